package reliability

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/marketmeter/marketmeter"
	"github.com/marketmeter/marketmeter/internal/bench/lambda"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/seedtest"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// tries is the max number of attempts of the client for one request.
const tries = 6

// The results of a table that fails every request, including a function's retries, as a transport
// sees them. There is no DynamoDB behind them: they only fail.
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

// A function that has a table responds with 503 and Retry-After within its Timeout, whatever the
// table does, after a bounded number of attempts. The authorizer fails, as API Gateway requires if
// a client can't be authenticated. The functions are the programs as they are deployed, with
// repeated requests to the same process, whose retry budget runs out.
//
// A table that never responds makes each function use all of its time, so they all wait at once.
func TestAFunctionAnswersWhateverItsTableDoes(t *testing.T) {
	t.Parallel()
	folder, programs := t.TempDir(), map[string]string{}
	functions := map[string][]string{
		"list": {"listUsageRecordGroups"}, "delete": {"deleteUsageRecordGroup"}, "config": {"getUsageMeteringConfigInfo", "replaceUsageMeteringConfigInfo", "updateUsageMeteringConfigInfo"}, "authorizer": {"authorizer"},
	}
	for function := range functions { // all of them first: a compiler takes processor time that the others need to respond in time
		programs[function] = lambda.Build(t, folder, "github.com/marketmeter/marketmeter/functions/"+function, runtime.GOARCH)
	}
	var all sync.WaitGroup
	defer all.Wait()
	// Not t.Parallel: the tests that it allows at once would only wait, each for up to half a
	// minute.
	run := func(name string, test func(t *testing.T)) { all.Go(func() { t.Run(name, test) }) }
	for function, operations := range functions {
		timeout := timeoutOf(t, function)
		for failure, handler := range failures {
			times, events := 2, operations
			switch {
			case *seedtest.Long:
				times = 30
			case failure == "silent":
				times, events = 1, operations[:1] // each takes long, and begins with the same read
			}
			run(function+" "+failure, func(t *testing.T) {
				asked, calls := wantUnavailable(t, programs[function], rand.Text(), handler, timeout, slices.Repeat(events, times))
				if function == "authorizer" && failure == "silent" && calls < asked+1 {
					t.Error("one silent connection takes the authorizer all of its time; want another try")
				}
				if calls < asked-1 || calls > asked*tries {
					t.Errorf("%d calls for %d requests; want at most %d for each", calls, asked, tries)
				}
			})
		}
	}

	// Only writes fail: of the next page's checkpoint, and of the config.
	client, name := tabletest.Client(t)
	now := time.Now().UTC().Truncate(time.Millisecond)
	for n := range 21 { // one more than the page of the event
		g := metering.Group{
			ID: fmt.Sprint("g", n), OrganizationID: "demo", BuyerID: "b", EntitlementID: "e", Partner: "AWS", Status: metering.StatusCreated,
			MetaInfo: metering.MetaInfo{Source: new(metering.Source("API"))}, CreationTime: now, LastUpdateTime: now,
		}
		if _, err := table.New(client, name).Put(t.Context(), &g); err != nil {
			t.Fatal(err)
		}
	}
	for function, operations := range map[string][]string{"list": {"listUsageRecordGroups"}, "config": {"replaceUsageMeteringConfigInfo", "updateUsageMeteringConfigInfo"}} {
		timeout := timeoutOf(t, function)
		for _, failure := range []string{"throttled", "silent"} {
			run(function+", writes "+failure, func(t *testing.T) {
				asked, calls := wantUnavailable(t, programs[function], name, ofWrites(t, failures[failure]), timeout, operations)
				if calls < 2*asked-1 || calls > asked*(tries+1) {
					t.Errorf("%d calls for %d requests; want for each at most %d, after one that reads", calls, asked, tries)
				}
			})
		}
	}
}

// ofWrites is DynamoDB Local, except that requests that put an item fail.
func ofWrites(t *testing.T, fail http.HandlerFunc) http.HandlerFunc {
	t.Helper()
	endpoint, err := url.Parse(os.Getenv("DYNAMODB_ENDPOINT"))
	if err != nil {
		t.Fatal(err)
	}
	database := httputil.NewSingleHostReverseProxy(endpoint)
	return func(w http.ResponseWriter, r *http.Request) {
		if tabletest.Action(r) == "PutItem" {
			fail(w, r)
			return
		}
		database.ServeHTTP(w, r)
	}
}

// wantUnavailable invokes a function for the operations, one after the other. Each must respond
// within the function's Timeout that its table is Unavailable. It returns the number of
// invocations, including the start, and the number of calls of the table.
func wantUnavailable(t *testing.T, program, tableName string, database http.HandlerFunc, timeout time.Duration, operations []string) (asked, calls int64) {
	t.Helper()
	var called atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil && bytes.Contains(body, []byte(tableName)) { // the port may have been another test's, whose requests still arrive
			called.Add(1)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		database(w, r)
	}))
	t.Cleanup(server.Close) // after the function's end: until then a silent one makes it wait
	p := lambda.Start(t, program, server.URL, "TABLE_NAME="+tableName)
	longest := time.Duration(0)
	for _, operation := range operations {
		event, err := os.ReadFile(filepath.Join("../../events", operation+".json"))
		if err != nil {
			t.Fatal(err)
		}
		got := p.InvokeWithin(t, event, timeout)
		wantUnavailableReply(t, operation, got)
		if got.Took >= timeout {
			t.Errorf("%s answers after %v; it had %v, and Lambda would have ended it", operation, got.Took, timeout)
		}
		longest = max(longest, got.Took)
	}
	asked = int64(len(operations)) + 1
	t.Logf("%d requests, %d calls; the longest took %v of %v", asked-1, called.Load(), longest.Round(time.Millisecond), timeout)
	return asked, called.Load()
}

func wantUnavailableReply(t *testing.T, operation string, got lambda.Reply) {
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
