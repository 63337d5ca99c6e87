package main

import (
	"bufio"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/programtest"
)

// The tests here run the built program as its users do, with an environment, a terminal's signals
// and a folder of its own. Tests that start a DynamoDB Local share the checkout's copy of it.

// process is the program while it runs in a test.
type process struct {
	*exec.Cmd
	lines  chan string // lines of standard output; closed when the program closes it
	stderr *programtest.Output
	ended  chan struct{}
}

// begin starts the program in the folder dir. It passes on the environment that the machine needs,
// without a database or a table: those are in variables.
func begin(t *testing.T, dir string, variables []string, args ...string) *process {
	t.Helper()
	file, err := exec.LookPath("marketmeter") // the test binary itself
	if err != nil {
		t.Fatal(err)
	}
	return beginFile(t, file, dir, variables, args...)
}

// beginFile is begin for another build of the program.
func beginFile(t *testing.T, file, dir string, variables []string, args ...string) *process {
	t.Helper()
	jars, err := filepath.Abs("../../.local")
	if err != nil {
		t.Fatal(err)
	}
	p := &process{Cmd: exec.Command(file, args...), lines: make(chan string, 1000), stderr: new(programtest.Output), ended: make(chan struct{})}
	p.Dir = dir
	p.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "JAVA_HOME=" + os.Getenv("JAVA_HOME"),
		"LOCAL_JARS=" + jars, "ADDR=127.0.0.1:0",
	}, variables...)
	p.Stderr = p.stderr
	stdout, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		for s := bufio.NewScanner(stdout); s.Scan(); {
			p.lines <- s.Text()
		}
		close(p.lines)
		_ = p.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		_ = p.Process.Kill()
		<-p.ended
	})
	return p
}

// says waits for a line of standard output that contains text, and returns what follows text.
func (p *process) says(t *testing.T, text string) string {
	t.Helper()
	limit := time.After(patience)
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				t.Fatalf("it ended before it printed %q; standard error:\n%s", text, p.stderr)
			}
			if _, rest, found := strings.Cut(line, text); found {
				return rest
			}
		case <-limit:
			t.Fatalf("it did not print %q within %s; standard error:\n%s", text, patience, p.stderr)
		}
	}
}

// signal sends the signal to the program.
func (p *process) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := p.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// status waits for the end of the program and returns its exit status, -1 if a signal ended it.
func (p *process) status(t *testing.T) int {
	t.Helper()
	select {
	case <-p.ended:
		return p.ProcessState.ExitCode()
	case <-time.After(patience):
		t.Fatalf("it did not end within %s", patience)
		return 0
	}
}

// ready waits until the program serves, and returns its URL.
func (p *process) ready(t *testing.T) (url string) {
	t.Helper()
	url, _, _ = strings.Cut(p.says(t, "Serving at "), ",")
	p.says(t, "Ready")
	return url
}

// eventually waits until the condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(patience); !holds(); {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// newKey makes a key as an operator does and returns it.
func newKey(t *testing.T, dir string, variables []string, args ...string) string {
	t.Helper()
	p := begin(t, dir, variables, append([]string{"key", "create"}, args...)...)
	last := ""
	for line := range p.lines {
		last = line
	}
	if status := p.status(t); status != 0 {
		t.Fatalf("key create %q: exit status %d; standard error:\n%s", args, status, p.stderr)
	}
	return last
}

// call sends a request, with the key if it is not empty, and returns the response's status and
// body.
func call(t *testing.T, method, url, key, body string) (status int, text string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	if key != "" {
		request.Header.Set("Authorization", "Key "+key)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	all, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(all)
}

// endpoint returns the DYNAMODB_ENDPOINT of the test run as a variable.
func endpoint(t *testing.T) string {
	t.Helper()
	endpoint := os.Getenv("DYNAMODB_ENDPOINT")
	if endpoint == "" {
		t.Fatal("this test needs DynamoDB Local and DYNAMODB_ENDPOINT is not set: run `make test`")
	}
	return "DYNAMODB_ENDPOINT=" + endpoint
}
