package apitest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/lambdahost"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// now is the time on the API's clock.
var now = time.Date(2024, 7, 29, 15, 51, 28, 71_000_000, time.UTC)

// api is the API over a table of its own, reached in one way.
type api struct {
	client    *dynamodb.Client // of the table, to look behind the API
	tableName string
	table     *table.Table
	log       *logLines
	way       way
}

// way takes a request to the API and its answer back.
type way interface {
	do(t testing.TB, r request) answer
}

// request is what a client puts on the wire: path and query are percent-encoded already.
type request struct {
	method, path, query string
	headers             map[string]string
	body                string
}

type answer struct {
	status  int
	headers http.Header
	body    string
}

// eachWay runs test once for each way, each with an empty table of its own.
func eachWay(t *testing.T, test func(t *testing.T, a *api)) {
	t.Parallel()
	for _, name := range []string{"http", "lambda"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client, tableName := tabletest.Client(t)
			tbl := table.New(client, tableName)
			a := serve(t, name, tbl)
			a.client, a.tableName, a.table = client, tableName, tbl
			test(t, a)
		})
	}
}

// eachWayOver runs test once for each way over one table: one that is expensive to fill and only
// read, or that is no table at all.
func eachWayOver(t *testing.T, tbl httpapi.Table, test func(t *testing.T, a *api)) {
	for _, name := range []string{"http", "lambda"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, serve(t, name, tbl))
		})
	}
}

// serve starts the API, to be reached in the way of that name, until the test ends.
func serve(t testing.TB, name string, tbl httpapi.Table) *api {
	log := &logLines{}
	logger := slog.New(slog.NewJSONHandler(log, nil))
	handler := (&httpapi.API{Table: tbl, Log: logger, Now: func() time.Time { return now }, CountUnits: table.CountUnits}).Handler()
	if name == "lambda" {
		return &api{log: log, way: overLambda{lambdahost.Handler(handler, logger)}}
	}
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return &api{log: log, way: overHTTP{server.Listener.Addr().String()}}
}

// do sends a request and holds the answer, whatever it is, to what all answers promise.
func (a *api) do(t testing.TB, r request) answer {
	t.Helper()
	got := a.way.do(t, r)
	if got.status >= 300 && got.status < 400 {
		t.Errorf("%s %s: status %d: nothing redirects", r.method, r.path, got.status)
	}
	if contentType := got.headers.Get("Content-Type"); contentType != "application/json; charset=utf-8" {
		t.Errorf("%s %s: Content-Type is %q", r.method, r.path, contentType)
	}
	if got.status == http.StatusMethodNotAllowed && got.headers.Get("Allow") == "" {
		t.Errorf("%s %s: a 405 without Allow", r.method, r.path)
	}
	if r.method != http.MethodHead && !json.Valid([]byte(got.body)) {
		t.Errorf("%s %s: the body is not JSON: %.200s", r.method, r.path, got.body)
	}
	return got
}

func (a *api) get(t testing.TB, path, query string) answer {
	t.Helper()
	return a.do(t, request{method: "GET", path: path, query: query})
}

// send sends a body of JSON.
func (a *api) send(t testing.TB, method, path, body string) answer {
	t.Helper()
	return a.do(t, request{method: method, path: path, body: body, headers: map[string]string{"Content-Type": "application/json"}})
}

// want ends the test where the answer has another status.
func want(t testing.TB, got answer, status int) {
	t.Helper()
	if got.status != status {
		t.Fatalf("status %d, want %d: %.500s", got.status, status, got.body)
	}
}

// wantError checks that the answer is an error of that status: one JSON string that holds each text.
func wantError(t testing.TB, got answer, status int, texts ...string) string {
	t.Helper()
	if got.status != status {
		t.Errorf("status %d, want %d: %.500s", got.status, status, got.body)
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
type overHTTP struct{ address string }

func (o overHTTP) do(t testing.TB, r request) answer {
	t.Helper()
	conn, err := net.Dial("tcp", o.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var head bytes.Buffer
	target := r.path
	if r.query != "" {
		target += "?" + r.query
	}
	head.WriteString(r.method + " " + target + " HTTP/1.1\r\nHost: api.example\r\nConnection: close\r\n")
	for name, value := range r.headers {
		head.WriteString(name + ": " + value + "\r\n")
	}
	if r.body != "" || r.method == "POST" || r.method == "PUT" || r.method == "PATCH" {
		head.WriteString("Content-Length: " + strconv.Itoa(len(r.body)) + "\r\n")
	}
	head.WriteString("\r\n")
	go func() {
		// What is too large is answered before it is read: that it can't be written then is no failure.
		_, _ = conn.Write(append(head.Bytes(), r.body...))
	}()
	response, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: r.method})
	if err != nil {
		t.Fatalf("%s %s: %v", r.method, target, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", r.method, target, err)
	}
	return answer{response.StatusCode, response.Header, string(body)}
}

// overLambda makes of each request the event that API Gateway (HTTP API, payload 2.0) makes of it.
type overLambda struct {
	handler func(context.Context, events.APIGatewayV2HTTPRequest) (events.APIGatewayV2HTTPResponse, error)
}

// maxLambdaResponse is what Lambda takes from a function, as encoding/json writes it.
const maxLambdaResponse = 6_291_556

func (o overLambda) do(t testing.TB, r request) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	response, err := o.handler(ctx, eventOf(t, r))
	if err != nil {
		t.Fatalf("%s %s: an invocation error: %v", r.method, r.path, err)
	}
	envelope, err := json.Marshal(response)
	if err != nil {
		t.Fatal(err)
	}
	if len(envelope) > maxLambdaResponse {
		t.Errorf("%s %s: the response has %d bytes: Lambda takes %d", r.method, r.path, len(envelope), maxLambdaResponse)
	}
	if response.IsBase64Encoded {
		t.Errorf("%s %s: the body is base64, JSON never needs that", r.method, r.path)
	}
	got := answer{status: response.StatusCode, headers: http.Header{}, body: response.Body}
	for name, value := range response.Headers {
		got.headers.Set(name, value)
	}
	return got
}

// eventOf is the event as the function's runtime decodes it: the path decoded, the query as sent,
// header names in lower case, a body that is not text in base64.
func eventOf(t testing.TB, r request) (event events.APIGatewayV2HTTPRequest) {
	t.Helper()
	path, err := url.PathUnescape(r.path)
	if err != nil {
		t.Fatalf("API Gateway refuses the path %s itself: %v", r.path, err)
	}
	headers := map[string]string{"host": "a1b2c3d4e5.execute-api.us-east-1.amazonaws.com", "content-length": strconv.Itoa(len(r.body))}
	for name, value := range r.headers {
		headers[strings.ToLower(name)] = value
	}
	call := map[string]any{"method": r.method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "203.0.113.17", "userAgent": "curl/8.5.0"}
	sent := map[string]any{
		"version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": r.query, "headers": headers,
		"requestContext": map[string]any{
			"accountId": "123456789012", "apiId": "a1b2c3d4e5", "domainName": "a1b2c3d4e5.execute-api.us-east-1.amazonaws.com",
			"domainPrefix": "a1b2c3d4e5", "http": call, "requestId": "bqO8gjLvIAMEPDA=", "routeKey": "$default", "stage": "$default",
			"time": "29/Jul/2024:15:51:28 +0000", "timeEpoch": 1722268288071,
		},
		"isBase64Encoded": false,
	}
	if r.body != "" {
		sent["body"] = r.body
		if isText := headers["content-type"] == "application/json"; !isText || !utf8.ValidString(r.body) {
			sent["body"], sent["isBase64Encoded"] = base64.StdEncoding.EncodeToString([]byte(r.body)), true
		}
	}
	if r.query != "" {
		joined := map[string]string{}
		values, _ := url.ParseQuery(r.query)
		for name, all := range values {
			joined[name] = strings.Join(all, ",")
		}
		sent["queryStringParameters"] = joined
	}
	encoded, err := json.Marshal(sent)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(encoded, &event); err != nil {
		t.Fatal(err)
	}
	return event
}

// logLines keeps what is logged, one JSON object a line.
type logLines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logLines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logLines) all(t testing.TB) []map[string]any {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	var lines []map[string]any
	for line := range strings.Lines(l.text.String()) {
		var members map[string]any
		if err := json.Unmarshal([]byte(line), &members); err != nil {
			t.Fatalf("a log line is not JSON: %s", line)
		}
		lines = append(lines, members)
	}
	return lines
}
