package apitest

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/lambdahost"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// now is the time on the API's clock.
var now = time.Date(2024, 7, 29, 15, 51, 28, 71_000_000, time.UTC)

// api is the API over its own table, reached in one way.
type api struct {
	client    *dynamodb.Client // to read the table behind the API
	tableName string
	table     *table.Table
	log       *logLines // what the operations log
	keyLog    *logLines // what the key check logs: the same over HTTP, the authorizer's own on AWS
	clock     *clock
	keys      *keyring
	metricIDs *metricIDs
	way       way
}

// way sends a request to the API and returns its response.
type way interface {
	send(ctx context.Context, r request) (answer, error)
}

// request is what a client sends: path and query are already percent-encoded. Without an
// Authorization header, it is sent with a key that has all permissions in the path's organization.
// If that header is "", the request is sent without a key.
type request struct {
	method, path, query string
	headers             map[string]string
	again               map[string]string // the same headers a second time, with these values
	body                string

	// operator is what an operator does instead, such as an import.
	operator func(ctx context.Context, tbl *table.Table, org string) error
	touches  string    // the one thing that it reads or changes, such as "config"; see linearizability_test.go
	key      *modelKey // in the model; nil means any
}

type answer struct {
	status  int
	headers http.Header
	body    string

	ofGateway bool // API Gateway itself refused: no function of an operation was reached

	// The requests to DynamoDB: for the key check, and for the operation.
	authentication, operation []tabletest.Request
}

// clock is the time on the API's clock: now, unless a test sets it.
type clock struct{ at atomic.Pointer[time.Time] }

func (c *clock) set(at time.Time) { c.at.Store(&at) }

func (c *clock) now() time.Time {
	if at := c.at.Load(); at != nil {
		return *at
	}
	return now
}

// eachWay runs test once for each way, each with its own empty table.
func eachWay(t *testing.T, test func(t *testing.T, a *api)) {
	t.Parallel()
	for _, name := range ways() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newAPI(t, name))
		})
	}
}

// newAPI returns the API over an empty table.
func newAPI(t testing.TB, way string) *api {
	if way == "sam" {
		return newSAM(t)
	}
	return newAPIOver(t, way, tabletest.Watched(t))
}

// eachWayWith is eachWay over the transport, with change applied to the API.
func eachWayWith(t *testing.T, transport http.RoundTripper, change func(*httpapi.API), test func(t *testing.T, a *api)) {
	t.Parallel()
	for _, name := range ways() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newAPIOver(t, name, transport, change))
		})
	}
}

// newAPIOver is newAPI with requests to DynamoDB over the transport.
func newAPIOver(t testing.TB, way string, transport http.RoundTripper, change ...func(*httpapi.API)) *api {
	client, tableName := tabletest.Client(t)
	served := table.New(tabletest.NewClient(transport), tableName)
	a := serveWith(t, way, served, patient{served}, newKeyring(table.New(client, tableName)), change...)
	a.client, a.tableName, a.table = client, tableName, a.keys.table
	return a
}

// eachWayOver runs test once for each way over one table. The table may be one that fails, or nil
// if the test needs none. The keys are stored in a separate table.
func eachWayOver(t *testing.T, tbl httpapi.Table, test func(t *testing.T, a *api)) {
	keys := tabletest.New(t)
	for _, name := range ways() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, serve(t, name, tbl, keys))
		})
	}
}

// serve starts the API in the way of that name. The API runs until the test ends.
func serve(t testing.TB, way string, tbl httpapi.Table, keys *table.Table) *api {
	if way == "sam" {
		if tbl != nil {
			t.Fatal("the functions have the table that they were given: this test can't run over sam")
		}
		return newSAM(t)
	}
	return serveWith(t, way, tbl, patient{keys}, newKeyring(keys))
}

// patient are keys whose uses are always noted, however long it takes. On a busy machine a note can
// take longer than a request waits for it, and would sometimes be missing.
type patient struct{ *table.Table }

func (p patient) APIKeyUsed(ctx context.Context, hash auth.Hash, hour time.Time) error {
	return p.Table.APIKeyUsed(context.WithoutCancel(ctx), hash, hour)
}

// serveWith is serve with keys that are looked up in records, and with change applied to the API.
func serveWith(t testing.TB, way string, tbl httpapi.Table, records auth.Records, keys *keyring, change ...func(*httpapi.API)) *api {
	a := &api{log: &logLines{}, clock: &clock{}, keys: keys, metricIDs: &metricIDs{}}
	a.keyLog = a.log
	log := slog.New(slog.NewJSONHandler(a.log, nil))
	checker := &auth.Authenticator{Records: records, Log: log, Now: a.clock.now}
	// On a slow machine, a page must not end before it is full.
	served := &httpapi.API{Table: tbl, Log: log, Now: a.clock.now, CountUnits: table.CountUnits, ListFor: time.Minute, NewMetricID: a.metricIDs.next}
	for _, c := range change {
		c(served)
	}
	if way == "lambda" {
		a.keyLog = &logLines{}
		checker.Log = slog.New(slog.NewJSONHandler(a.keyLog, nil))
		served.Authenticate = lambdahost.Principal
		a.way = overLambda{lambdahost.Authorizer(checker), lambdahost.Handler(served.Handler(), log)}
	} else {
		served.Authenticate = httpapi.ByKey(checker)
		o := &overHTTP{handler: served.Handler()}
		server := httptest.NewServer(o)
		t.Cleanup(server.Close)
		o.address = server.Listener.Addr().String()
		a.way = o
	}
	t.Cleanup(func() { a.wantNoKeyLogged(t) })
	return a
}

// do sends a request and checks the response against the rules for all responses.
func (a *api) do(t testing.TB, r request) answer {
	t.Helper()
	got, wrong, err := a.exchange(t.Context(), r)
	if err != nil {
		t.Fatalf("%s %s: %v", r.method, r.path, err)
	}
	for _, what := range wrong {
		t.Errorf("%s %s: %s", r.method, r.path, what)
	}
	return got
}

// exchange sends a request and reports what is wrong with the response and with the requests to
// DynamoDB for it.
func (a *api) exchange(ctx context.Context, r request) (got answer, wrong []string, err error) {
	if _, given := r.headers["Authorization"]; !given {
		key, err := a.keys.of(ctx, organizationIn(r.path))
		if err != nil {
			return answer{}, nil, err
		}
		r.headers = maps.Clone(r.headers)
		if r.headers == nil {
			r.headers = map[string]string{}
		}
		r.headers["Authorization"] = "Key " + string(key)
	}
	if got, err = a.way.send(ctx, r); err != nil {
		return answer{}, nil, err
	}
	if err := got.decompress(); err != nil {
		return answer{}, nil, err
	}
	return got, slices.Concat(got.wrong(r), wrongByDescription(r, got), a.keys.wrong(r, got)), nil
}

// decompress replaces the body by its decompressed form. The headers stay as they were sent.
func (got *answer) decompress() error {
	if length := got.headers.Get("Content-Length"); length != "" && length != strconv.Itoa(len(got.body)) && got.body != "" {
		return fmt.Errorf("Content-Length is %s, the body has %d bytes", length, len(got.body))
	}
	switch coding := got.headers.Get("Content-Encoding"); coding {
	case "":
		return nil
	case "gzip":
		unzipped, err := gzip.NewReader(strings.NewReader(got.body))
		if err != nil {
			return err
		}
		body, err := io.ReadAll(unzipped)
		got.body = string(body)
		return err
	default:
		return fmt.Errorf("Content-Encoding is %s", coding)
	}
}

// wrong reports how the response breaks the rules for all responses.
func (got answer) wrong(r request) (wrong []string) {
	if got.status == http.StatusNotModified {
		for _, name := range []string{"Content-Type", "Content-Length", "Content-Encoding"} {
			if has := got.headers.Get(name); has != "" {
				wrong = append(wrong, fmt.Sprintf("a 304 with the %s %q", name, has))
			}
		}
		if got.body != "" || got.headers.Get("ETag") == "" {
			wrong = append(wrong, fmt.Sprintf("a 304 with the body %q and the ETag %q", got.body, got.headers.Get("ETag")))
		}
		return wrong
	}
	contentType := "application/json; charset=utf-8"
	if got.ofGateway {
		contentType = "application/json"
	}
	if has := got.headers.Get("Content-Type"); has != contentType {
		wrong = append(wrong, fmt.Sprintf("Content-Type is %q", has))
	}
	if got.status >= 300 && got.status < 400 {
		wrong = append(wrong, fmt.Sprintf("status %d: nothing redirects", got.status))
	}
	if got.status == http.StatusMethodNotAllowed && got.headers.Get("Allow") == "" {
		wrong = append(wrong, "a 405 without Allow")
	}
	if got.status == http.StatusUnauthorized && !got.ofGateway && got.headers.Get("WWW-Authenticate") == "" {
		wrong = append(wrong, "a 401 without WWW-Authenticate")
	}
	if r.method != http.MethodHead && !json.Valid([]byte(got.body)) {
		wrong = append(wrong, fmt.Sprintf("the body is not JSON: %.200s", got.body))
	}
	return wrong
}

func (a *api) get(t testing.TB, path, query string) answer {
	t.Helper()
	return a.do(t, request{method: "GET", path: path, query: query})
}

// send sends a JSON body.
func (a *api) send(t testing.TB, method, path, body string) answer {
	t.Helper()
	return a.do(t, request{method: method, path: path, body: body, headers: map[string]string{"Content-Type": "application/json"}})
}

// want ends the test if the response has another status.
func want(t testing.TB, got answer, status int) {
	t.Helper()
	if got.status != status {
		t.Fatalf("status %d, want %d: %.500s", got.status, status, got.body)
	}
}

// wantError checks that the response is an error of that status: one JSON string that contains each
// text.
func wantError(t testing.TB, got answer, status int, texts ...string) string {
	t.Helper()
	if got.status != status {
		t.Errorf("status %d, want %d: %.500s", got.status, status, got.body)
	}
	if got.ofGateway && (got.status == http.StatusNotFound || got.status == http.StatusBadRequest) {
		return "" // in API Gateway's own words
	}
	var message string
	if err := json.Unmarshal([]byte(got.body), &message); err != nil {
		t.Fatalf("the body is not a JSON string: %.500s", got.body)
	}
	if message == "" {
		t.Error("the error says nothing")
	}
	for _, text := range texts {
		if !strings.Contains(message, text) {
			t.Errorf("the error does not say %q: %s", text, message)
		}
	}
	return message
}

// overHTTP writes requests to a socket byte by byte: nothing cleans a path or adds a header.
type overHTTP struct {
	address string
	handler http.Handler
	waiting sync.Map // by the client's address: a chan []tabletest.Request
}

// ServeHTTP records the requests to DynamoDB for a request and passes them to the sender.
func (o *overHTTP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	sender, waits := o.waiting.LoadAndDelete(r.RemoteAddr)
	ctx, requests := tabletest.Record(r.Context())
	o.handler.ServeHTTP(w, r.WithContext(ctx))
	if waits {
		sender.(chan []tabletest.Request) <- requests()
	}
}

func (o *overHTTP) send(ctx context.Context, r request) (answer, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", o.address)
	if err != nil {
		return answer{}, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })() // the client goes away
	handled := make(chan []tabletest.Request, 1)
	o.waiting.Store(conn.LocalAddr().String(), handled)
	got, err := roundTrip(conn, r)
	if err != nil {
		return answer{}, err
	}
	if _, unseen := o.waiting.LoadAndDelete(conn.LocalAddr().String()); unseen {
		return got, nil // the server itself responded
	}
	for _, request := range <-handled {
		if isOfKey(request) {
			got.authentication = append(got.authentication, request)
		} else {
			got.operation = append(got.operation, request)
		}
	}
	return got, nil
}

// roundTrip writes the request as it is and reads the response.
func roundTrip(conn net.Conn, r request) (answer, error) {
	if err := conn.SetDeadline(time.Now().Add(5 * time.Minute)); err != nil {
		return answer{}, err
	}
	var head bytes.Buffer
	target := r.path
	if r.query != "" {
		target += "?" + r.query
	}
	head.WriteString(r.method + " " + target + " HTTP/1.1\r\nHost: api.example\r\nConnection: close\r\n")
	for _, headers := range []map[string]string{r.headers, r.again} {
		for name, value := range headers {
			if name != "Authorization" || value != "" {
				head.WriteString(name + ": " + value + "\r\n")
			}
		}
	}
	if r.body != "" || r.method == "POST" || r.method == "PUT" || r.method == "PATCH" {
		head.WriteString("Content-Length: " + strconv.Itoa(len(r.body)) + "\r\n")
	}
	head.WriteString("\r\n")
	go func() {
		// A request that is too large gets its response before it is read: an error in writing it
		// is no failure.
		_, _ = conn.Write(append(head.Bytes(), r.body...))
	}()
	response, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: r.method})
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return answer{}, err
	}
	return answer{status: response.StatusCode, headers: response.Header, body: string(body)}, nil
}

// logLines stores what is logged, one JSON object per line.
type logLines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logLines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// take returns the logged lines and clears them.
func (l *logLines) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.text.Reset()
	return l.text.String()
}

func (l *logLines) all(t testing.TB) []map[string]any {
	t.Helper()
	var lines []map[string]any
	for line := range strings.Lines(l.String()) {
		var members map[string]any
		if err := json.Unmarshal([]byte(line), &members); err != nil {
			t.Fatalf("a log line is not JSON: %s", line)
		}
		lines = append(lines, members)
	}
	return lines
}
