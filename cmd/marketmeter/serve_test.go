package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// The client sends the second half of its request after TERM.
func TestServe_FinishesRequestsUnderWay(t *testing.T) {
	t.Parallel()
	dir, variables := t.TempDir(), []string{endpoint(t), "TABLE_NAME=" + t.Name()}
	p := begin(t, dir, variables, "serve")
	url := p.ready(t)
	connection, body := halfARequest(t, url, newKey(t, dir, variables, "--org", "o1"))
	p.signal(t, syscall.SIGTERM)
	p.says(t, "Stopping")
	eventually(t, "no new connection is taken", func() bool {
		c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	fmt.Fprint(connection, body)
	response, err := io.ReadAll(connection)
	if err != nil || !strings.HasPrefix(string(response), "HTTP/1.1 200 OK\r\n") {
		t.Errorf("the request under way has the response %q, %v; want 200", response, err)
	}
	if status := p.status(t); status != 0 {
		t.Errorf("exit status %d; want 0", status)
	}
}

func TestServe_SecondSignalEndsItAtOnce(t *testing.T) {
	t.Parallel()
	dir, variables := t.TempDir(), []string{endpoint(t), "TABLE_NAME=" + t.Name()}
	p := begin(t, dir, variables, "serve")
	halfARequest(t, p.ready(t), newKey(t, dir, variables, "--org", "o1"))
	p.signal(t, os.Interrupt)
	p.says(t, "Stopping")
	p.signal(t, os.Interrupt)
	if status := p.status(t); status != -1 {
		t.Errorf("exit status %d; want none, a signal ended it", status)
	}
}

// halfARequest sends a validation of a batch up to the middle of its body, and returns the rest of
// the body.
func halfARequest(t *testing.T, url, key string) (connection net.Conn, rest string) {
	t.Helper()
	connection, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	const body = `[{"records":{"cpu":1}}]`
	fmt.Fprintf(connection, "POST /org/o1/batchValidateUsageRecordGroups HTTP/1.1\r\nHost: x\r\n"+
		"Authorization: Key %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"+
		"Expect: 100-continue\r\nConnection: close\r\n\r\n", key, len(body))
	// The interim response shows that the handler has begun to read.
	interim := make([]byte, len("HTTP/1.1 100 Continue\r\n\r\n"))
	if _, err := io.ReadFull(connection, interim); err != nil || !strings.Contains(string(interim), "100") {
		t.Fatalf("%q, %v; want 100 Continue", interim, err)
	}
	fmt.Fprint(connection, body[:10])
	return connection, body[10:]
}

// A command whose reader has gone is ended by the signal, as a shell's `export | head` expects. If
// SIGPIPE is ignored it exits with the same status.
func TestCommands_EndBySIGPIPE(t *testing.T) {
	t.Parallel()
	_, name := tabletest.Client(t)
	for _, line := range []string{"export --org o1 --format csv", "key list --org o1", "help"} {
		from, to, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		from.Close()
		command := exec.CommandContext(t.Context(), "marketmeter", strings.Fields(line)...)
		command.Env, command.Stdout = []string{endpoint(t), "TABLE_NAME=" + name}, to
		err = command.Run()
		to.Close()
		failed, ok := errors.AsType[*exec.ExitError](err)
		if !ok || failed.Sys().(syscall.WaitStatus).Signal() != syscall.SIGPIPE {
			t.Errorf("%s: %v; want it ended by SIGPIPE", line, err)
		}
	}
}
