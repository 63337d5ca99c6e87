package reliability

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/marketmeter/marketmeter"
	"github.com/marketmeter/marketmeter/internal/bench/lambda"
)

// tries is how often the client sends one request at most.
const tries = 6

// What comes of a table that fails a function each time, and so of a function's retries. Each is what a transport
// sees, and no DynamoDB: it knows nothing but to fail.
var failures = map[string]http.HandlerFunc{
	"throttled": refuseWith(http.StatusBadRequest, `{"__type":"com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException","message":"secret"}`),
	"throttled by the account": refuseWith(http.StatusBadRequest,
		`{"__type":"com.amazon.coral.availability#ThrottlingException","message":"secret"}`),
	"failing":      refuseWith(http.StatusInternalServerError, `{"__type":"com.amazonaws.dynamodb.v20120810#InternalServerError","message":"secret"}`),
	"unavailable":  refuseWith(http.StatusServiceUnavailable, `secret`),
	"dropping all": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	"silent":       func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
}

func refuseWith(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

// A function that has a table answers 503 with Retry-After within its Timeout whatever the table does, and has tried a
// bounded number of times; the authorizer fails, as API Gateway wants it where it can't be told who asks. They are
// the programs as they are deployed, and again and again the same process, whose budget of retries runs out.
//
// A table that never answers takes each function all of its time, so all of them wait at once.
func TestAFunctionAnswersWhateverItsTableDoes(t *testing.T) {
	t.Parallel()
	folder, programs := t.TempDir(), map[string]string{}
	functions := map[string][]string{
		"list": {"list"}, "delete": {"delete"}, "config": {"config-get", "config-put", "config-patch"}, "authorizer": {"authorizer"},
	}
	for function := range functions { // all of them first: a compiler takes what the others need to answer in time
		programs[function] = lambda.Build(t, folder, "github.com/marketmeter/marketmeter/functions/"+function, runtime.GOARCH)
	}
	var all sync.WaitGroup
	defer all.Wait()
	for function, operations := range functions {
		timeout := timeoutOf(t, function)
		for failure, handler := range failures {
			times, events := 2, operations
			switch {
			case *long:
				times = 30
			case failure == "silent":
				times, events = 1, operations[:1] // each takes long, and begins with the same read
			}
			// Not t.Parallel: as many as run at once by that would only wait, each for up to half a minute.
			all.Go(func() {
				t.Run(function+" "+failure, func(t *testing.T) {
					var calls atomic.Int64
					name := rand.Text() // the port may have been another test's, whose requests still come
					table := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						body, err := io.ReadAll(r.Body)
						if err == nil && bytes.Contains(body, []byte(name)) {
							calls.Add(1)
						}
						handler(w, r)
					}))
					t.Cleanup(table.Close) // after the function's end: until then the silent one has it wait
					p := lambda.Start(t, programs[function], table.URL, "TABLE_NAME="+name)
					asked, longest := int64(1), time.Duration(0) // at the start
					for range times {
						for _, name := range events {
							event, err := os.ReadFile(filepath.Join("../../events", name+".json"))
							if err != nil {
								t.Fatal(err)
							}
							got := p.InvokeWithin(t, event, timeout)
							wantUnavailable(t, name, got)
							if got.Took >= timeout {
								t.Errorf("%s answers after %v; it had %v, and Lambda would have ended it", name, got.Took, timeout)
							}
							longest = max(longest, got.Took)
							asked++
						}
					}
					t.Logf("%d requests, %d calls; the longest took %v of %v", asked-1, calls.Load(), longest.Round(time.Millisecond), timeout)
					if got := calls.Load(); function == "authorizer" && failure == "silent" && got < asked+1 {
						t.Error("one silent connection takes the authorizer all of its time; want another try")
					}
					if got := calls.Load(); got < asked-1 || got > asked*tries {
						t.Errorf("%d calls for %d requests; want at most %d for each", got, asked, tries)
					}
				})
			})
		}
	}
}

func wantUnavailable(t *testing.T, operation string, got lambda.Reply) {
	t.Helper()
	if operation == "authorizer" {
		if !got.Failed || !strings.Contains(string(got.Body), "internal error") || strings.Contains(string(got.Body), "secret") {
			t.Errorf("it answers %s; want a failure", got.Body)
		}
		return
	}
	var envelope struct {
		StatusCode int
		Headers    map[string]string
		Body       string
	}
	if err := json.Unmarshal(got.Body, &envelope); err != nil || got.Failed {
		t.Fatalf("%s answers %s, %v", operation, got.Body, err)
	}
	a := httpAnswer{envelope.StatusCode, http.Header{"Retry-After": {envelope.Headers["Retry-After"]}}, []byte(envelope.Body)}
	if !a.shed() || strings.Contains(envelope.Body, "secret") {
		t.Errorf("%s answers %s; want 503 with Retry-After", operation, got.Body)
	}
}

// timeoutOf is the Timeout that template.yaml gives a function.
func timeoutOf(t *testing.T, function string) time.Duration {
	t.Helper()
	type properties struct {
		CodeURI string `yaml:"CodeUri"`
		Timeout int    `yaml:"Timeout"`
	}
	var template struct {
		Globals struct {
			Function properties `yaml:"Function"`
		} `yaml:"Globals"`
		Resources map[string]struct {
			Type       string    `yaml:"Type"`
			Properties yaml.Node `yaml:"Properties"`
		} `yaml:"Resources"`
	}
	if err := yaml.Unmarshal(marketmeter.Template, &template); err != nil {
		t.Fatal(err)
	}
	for _, resource := range template.Resources {
		if resource.Type != "AWS::Serverless::Function" {
			continue
		}
		p := template.Globals.Function
		if err := resource.Properties.Decode(&p); err != nil {
			t.Fatal(err)
		}
		if p.CodeURI == "functions/"+function {
			return time.Duration(p.Timeout) * time.Second
		}
	}
	t.Fatalf("template.yaml has no function %s", function)
	return 0
}
