// Package lambda runs a function's program as Lambda does, for tests and benchmarks.
package lambda

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/localdb"
)

// Process is a function's program, run as Lambda runs it: one event at a time, passed by a stand-in
// for the Runtime API, which is HTTP on the loopback here as in Lambda.
type Process struct {
	Begun time.Time
	Ready time.Duration // from then to its first request for an event

	command *exec.Cmd
	runtime *httptest.Server
	log     *os.File
	events  chan invocation
	asked   chan time.Time
	answers chan Reply
	ended   chan struct{} // closed when the process ended
}

type invocation struct {
	event    []byte
	deadline time.Time
}

// Reply is a function's response to an event. Failed is set if the function reports a failure.
type Reply struct {
	Body   []byte
	Failed bool
	Took   time.Duration // from the start of the event's delivery until the response is complete

	at time.Time
}

// Build builds a function as `sam build` does, for that architecture, into the folder.
func Build(tb testing.TB, folder, function, architecture string) (program string) {
	tb.Helper()
	program = filepath.Join(folder, filepath.Base(function)+"-"+architecture)
	compile := exec.Command("go", "build", "-tags=lambda.norpc,nethttpomithttp2", "-trimpath", "-ldflags=-s", "-o", program, function)
	compile.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+architecture)
	if out, err := compile.CombinedOutput(); err != nil {
		tb.Fatalf("%v: %s", err, out)
	}
	return program
}

// startLimit is longer than any start takes: Lambda's own limit.
const startLimit = 10 * time.Second

// Start starts the program and waits until it requests an event. The program gets the environment
// that Lambda sets, DynamoDB at endpoint, and the given variables. It ends with tb.
func Start(tb testing.TB, program, endpoint string, environment ...string) *Process {
	tb.Helper()
	p := &Process{events: make(chan invocation), asked: make(chan time.Time, 1), answers: make(chan Reply, 1), ended: make(chan struct{})}
	p.runtime = httptest.NewServer(http.HandlerFunc(p.serve))
	log, err := os.CreateTemp(tb.TempDir(), filepath.Base(program)+".log")
	if err != nil {
		tb.Fatal(err)
	}
	p.log = log
	p.command = exec.Command(program)
	p.command.Dir = tb.TempDir()
	p.command.Stdout, p.command.Stderr = log, log
	p.command.Env = append([]string{
		"AWS_LAMBDA_RUNTIME_API=" + strings.TrimPrefix(p.runtime.URL, "http://"),
		"AWS_LAMBDA_FUNCTION_NAME=function", "AWS_LAMBDA_FUNCTION_VERSION=1", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE=256",
		"AWS_LAMBDA_LOG_GROUP_NAME=log", "AWS_LAMBDA_LOG_STREAM_NAME=stream", "AWS_LAMBDA_INITIALIZATION_TYPE=on-demand",
		"AWS_EXECUTION_ENV=AWS_Lambda_provided.al2023", "AWS_XRAY_DAEMON_ADDRESS=127.0.0.1:2000",
		"AWS_REGION=" + localdb.Region, "AWS_DEFAULT_REGION=" + localdb.Region,
		"AWS_ACCESS_KEY_ID=" + localdb.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + localdb.SecretAccessKey, "AWS_SESSION_TOKEN=",
		"LAMBDA_TASK_ROOT=/var/task", "LAMBDA_RUNTIME_DIR=/var/runtime", "_HANDLER=bootstrap", "TZ=:UTC", "LANG=en_US.UTF-8",
		"PATH=/usr/local/bin:/usr/bin:/bin", "METRICS_NAMESPACE=marketmeter/bench", "TABLE_NAME=bench",
		"DYNAMODB_ENDPOINT=" + endpoint,
		"AWS_ENDPOINT_URL_DYNAMODB=" + endpoint, // read by the SDK's own configuration
	}, environment...)
	p.Begun = time.Now()
	if err := p.command.Start(); err != nil {
		tb.Fatal(err)
	}
	go func() {
		_ = p.command.Wait()
		close(p.ended)
	}()
	tb.Cleanup(func() { p.Stop() })
	p.Ready = p.wait(tb).Sub(p.Begun)
	return p
}

// serve is the Runtime API.
func (p *Process) serve(w http.ResponseWriter, r *http.Request) {
	asked := time.Now()
	switch path := strings.TrimPrefix(r.URL.Path, "/2018-06-01/runtime/invocation/"); {
	case path == "next":
		select {
		case p.asked <- asked:
		case <-r.Context().Done():
			return
		}
		select {
		case invoked := <-p.events:
			w.Header().Set("Lambda-Runtime-Aws-Request-Id", "8476a536-e9f4-11e8-9739-2dfe598c3fcd")
			w.Header().Set("Lambda-Runtime-Deadline-Ms", fmt.Sprint(invoked.deadline.UnixMilli()))
			w.Header().Set("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:123456789012:function:function:live")
			w.Header().Set("Lambda-Runtime-Trace-Id", "Root=1-66a7ba80-2c1f5b0e3d4a59687f0a1b2c;Parent=53995c3f42cd8ad8;Sampled=0")
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(invoked.event)
		case <-r.Context().Done():
		}
	case strings.HasSuffix(path, "/response"), strings.HasSuffix(path, "/error"):
		var body bytes.Buffer
		_, err := io.Copy(&body, r.Body)
		w.WriteHeader(http.StatusAccepted)
		select {
		case p.answers <- Reply{Body: body.Bytes(), Failed: err != nil || strings.HasSuffix(path, "/error"), at: time.Now()}:
		case <-r.Context().Done(): // the process no longer waits: there was no event
		}
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// wait waits until the process requests an event, and returns the time of that request.
func (p *Process) wait(tb testing.TB) time.Time {
	tb.Helper()
	select {
	case asked := <-p.asked:
		return asked
	case <-p.ended:
		tb.Fatalf("%s ended: %v: %s", p.command.Path, p.command.ProcessState, p.Said(tb))
	case <-time.After(startLimit):
		tb.Fatalf("%s asks for no event: %s", p.command.Path, p.Said(tb))
	}
	panic("not reached")
}

// Invoke sends the event and returns the response, and how long it took until the response was
// complete. It ends tb if the function reports a failure.
func (p *Process) Invoke(tb testing.TB, event []byte) (answer []byte, took time.Duration) {
	tb.Helper()
	reply := p.InvokeWithin(tb, event, 29*time.Second)
	if reply.Failed {
		tb.Fatalf("%s failed: %s: %s", p.command.Path, reply.Body, p.Said(tb))
	}
	return reply.Body, reply.Took
}

// InvokeWithin sends the event and gives the function that much time to respond. It ends tb if the
// function takes a minute longer, or requests no event.
func (p *Process) InvokeWithin(tb testing.TB, event []byte, timeout time.Duration) Reply {
	tb.Helper()
	begun := time.Now()
	select {
	case p.events <- invocation{event, begun.Add(timeout)}:
	case <-p.ended:
		tb.Fatalf("%s ended: %v: %s", p.command.Path, p.command.ProcessState, p.Said(tb))
	case <-time.After(startLimit):
		tb.Fatalf("%s takes no event: %s", p.command.Path, p.Said(tb))
	}
	var reply Reply
	select {
	case reply = <-p.answers:
		reply.Took = reply.at.Sub(begun)
	case <-p.ended:
		tb.Fatalf("%s ended: %v: %s", p.command.Path, p.command.ProcessState, p.Said(tb))
	case <-time.After(timeout + time.Minute):
		tb.Fatalf("%s does not answer, and had %v: %s", p.command.Path, timeout, p.Said(tb))
	}
	p.wait(tb)
	return reply
}

// Said is the log of the process.
func (p *Process) Said(tb testing.TB) string {
	tb.Helper()
	text, err := os.ReadFile(p.log.Name())
	if err != nil {
		tb.Fatal(err)
	}
	return string(text)
}

// Stop ends the process and returns the max memory that it ever had, in bytes (on Linux, which
// counts in KiB).
func (p *Process) Stop() (maxRSS int64) {
	_ = p.command.Process.Kill()
	<-p.ended
	p.runtime.Close()
	p.log.Close()
	return p.command.ProcessState.SysUsage().(*syscall.Rusage).Maxrss * 1024
}
