// Package clienttest tests the sandbox with independent clients: AWS's SDK for Go, botocore, and
// Google's client for Python. It is a module of its own, so that their libraries are not
// dependencies of the main module.
package clienttest

import (
	"cmp"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/sandbox"
)

// hour is the hour that the clients meter. Their signatures and tokens use the real time; the
// sandbox's clock is half an hour after hour.
var hour = time.Date(2026, 11, 18, 12, 0, 0, 0, time.UTC)

// start serves a sandbox with catalog.json.
func start(t *testing.T, options sandbox.Options) (*sandbox.Sandbox, string) {
	t.Helper()
	text, err := os.ReadFile("catalog.json")
	if err == nil {
		options.Catalog, err = sandbox.ReadCatalog(text)
	}
	if err != nil {
		t.Fatal(err)
	}
	options.RateLimit = cmp.Or(options.RateLimit, -1)
	s, err := sandbox.New(options)
	if err != nil {
		t.Fatal(err)
	}
	now, frozen := hour.Add(30*time.Minute), true
	if _, err := s.SetClock(sandbox.ClockChange{Time: &now, Frozen: &frozen}); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return s, server.URL
}

// python runs a client in Python against a sandbox of its own. The script exits with an
// error if a check fails.
func python(t *testing.T, script string) {
	t.Helper()
	interpreter, err := filepath.Abs("../../.local/sandbox-clients/bin/python")
	if err == nil {
		_, err = os.Stat(interpreter)
	}
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("make .local/sandbox-clients/bin/python installs it: ", err) //nolint:forbidigo // this module does not import programtest; CI has failed above
	}
	_, url := start(t, sandbox.Options{})
	command := exec.CommandContext(t.Context(), interpreter, "-B", script, url) // -B: writes no files beside the scripts
	out, err := command.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}

func TestBotocore_AcceptsTheSandbox(t *testing.T) { python(t, "botocore_client.py") }

func TestGoogleClient_AcceptsTheSandbox(t *testing.T) { python(t, "google_client.py") }
