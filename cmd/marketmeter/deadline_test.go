package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

const oneGroup = `{"id":"g1","buyerID":"b","entitlementID":"e","partner":"AWS","status":"CREATED","creationTime":"2026-11-01T00:00:00Z","serialID":7}` + "\n"

// Every response of the table stalls, each command in a different way. The command returns an error
// within its deadline, which DYNAMODB_TIMEOUT shortens.
func TestCommands_EndIfTheTableStalls(t *testing.T) {
	t.Parallel()
	_, name := tabletest.Client(t)
	ways := []string{
		"after a byte of the body", "with a byte of the body a tick", "after the headers", "in the headers", "before the headers",
		"before the last byte of the body", "with a byte of the headers a tick", "in the status line", "after a byte of a chunk",
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "groups.jsonl"), []byte(oneGroup), 0o600); err != nil {
		t.Fatal(err)
	}
	running := map[string]*process{}
	for i, command := range []string{
		"export --org o1", "import --org o1 groups.jsonl", "key create --org o1", "key list --org o1", "key rotate --org o1 abcd",
		"key revoke --org o1 abcd", "serve", "serve --sample", "with-dynamodb --sample true",
	} {
		url, _ := tabletest.StallingProxy(t, func(int) tabletest.Stall { return tabletest.Stalls[ways[i]] })
		running[command] = begin(t, dir, []string{"DYNAMODB_ENDPOINT=" + url, "TABLE_NAME=" + name, "DYNAMODB_TIMEOUT=3s"}, strings.Fields(command)...)
	}
	// Credentials may come over the network too: here they come from a service that stalls.
	credentials := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	t.Cleanup(credentials.Close)
	for _, command := range []string{"export --org o2", "key create --org o2"} {
		running[command] = begin(t, dir, []string{
			"TABLE_NAME=mine", "DYNAMODB_TIMEOUT=3s", "AWS_REGION=eu-central-1", "AWS_CONFIG_FILE=" + os.DevNull, "AWS_SHARED_CREDENTIALS_FILE=" + os.DevNull,
			"AWS_CONTAINER_CREDENTIALS_FULL_URI=" + credentials.URL,
		}, strings.Fields(command)...)
	}
	for command, p := range running {
		status, stderr := p.status(t), p.stderr.String()
		t.Logf("%s: %s", command, stderr)
		explained := slices.ContainsFunc([]string{"can't reach its table in time", "DynamoDB did not respond within", "the AWS credentials to use table mine in AWS region eu-central-1 with did not come in time"}, func(text string) bool {
			return strings.Contains(stderr, text)
		})
		if status != 1 || !explained {
			t.Errorf("%s: exit status %d; standard error:\n%s", command, status, stderr)
		}
	}
}

// The first response of the table stalls. Each command retries and succeeds.
func TestCommands_RetryAfterAStall(t *testing.T) {
	t.Parallel()
	_, name := tabletest.Client(t)
	dir := t.TempDir()
	variables := []string{endpoint(t), "TABLE_NAME=" + name}
	key := newKey(t, dir, variables, "--org", "o1")
	if err := os.WriteFile(filepath.Join(dir, "groups.jsonl"), []byte(oneGroup), 0o600); err != nil {
		t.Fatal(err)
	}
	stalling := func(way string) []string {
		url, _ := tabletest.StallingProxy(t, func(n int) tabletest.Stall {
			if n > 0 {
				return nil
			}
			return tabletest.Stalls[way]
		})
		return []string{"DYNAMODB_ENDPOINT=" + url, "TABLE_NAME=" + name, "DYNAMODB_TIMEOUT=9s"}
	}
	// The first response to the import is that of the raise of the serial counter. For the other
	// commands it is that of their main request.
	imported := begin(t, dir, stalling("after a byte of the body"), "import", "--org", "o1", "groups.jsonl")
	created := begin(t, dir, stalling("with a byte of the body a tick"), "key", "create", "--org", "o2")
	listed := begin(t, dir, stalling("in the headers"), "key", "list", "--org", "o1")
	served := begin(t, dir, stalling("before the last byte of the body"), "serve")
	imported.says(t, "imported 1, skipped 0, refused 0")
	created.says(t, "mm_")
	listed.says(t, "active")
	url := served.ready(t)
	if status, body := call(t, "GET", url+"/org/o1/usageRecordGroup", key, ""); status != http.StatusOK || !strings.Contains(body, `"g1"`) {
		t.Errorf("the server: %d %s", status, body)
	}
	exported := begin(t, dir, stalling("after the headers"), "export", "--org", "o1")
	revoked := begin(t, dir, stalling("after a byte of the body"), "key", "revoke", "--org", "o1", key)
	exported.says(t, `"id":"g1"`)
	revoked.says(t, "Revoked key")
	for name, p := range map[string]*process{"import": imported, "key create": created, "key list": listed, "export": exported, "key revoke": revoked} {
		if status := p.status(t); status != 0 {
			t.Errorf("%s: exit status %d; standard error:\n%s", name, status, p.stderr)
		}
	}
}

// A server responds that it can't reach its table while the table stalls, and recovers afterwards.
func TestServe_RespondsIfTheTableStalls(t *testing.T) {
	t.Parallel()
	_, name := tabletest.Client(t)
	var stalling atomic.Bool
	endpoint, _ := tabletest.StallingProxy(t, func(int) tabletest.Stall {
		if !stalling.Load() {
			return nil
		}
		return tabletest.Stalls["before the last byte of the body"]
	})
	dir, variables := t.TempDir(), []string{"DYNAMODB_ENDPOINT=" + endpoint, "TABLE_NAME=" + name, "DYNAMODB_TIMEOUT=6s"}
	url := begin(t, dir, variables, "serve").ready(t)
	key := newKey(t, dir, variables, "--org", "o1")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, want := range []struct {
		stalls bool
		status int
	}{{true, http.StatusServiceUnavailable}, {false, http.StatusOK}} {
		stalling.Store(want.stalls)
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/org/o1/usageRecordGroup", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Key "+key)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != want.status {
			t.Errorf("the table stalls: %v: %d; want %d", want.stalls, response.StatusCode, want.status)
		}
	}
}
