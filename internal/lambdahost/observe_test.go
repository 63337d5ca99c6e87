package lambdahost

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/build"
	"github.com/marketmeter/marketmeter/internal/dynamoclient"
	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

const traceHeader = "Root=1-581cf771-a006649127e371903a2de979;Parent=70de5b6f19ff9a0a;Sampled=1;Lineage=1:a"

// requestLines sends four requests to a function without a table and returns their log lines.
func requestLines(t *testing.T, namespace string) []map[string]any {
	t.Helper()
	var out bytes.Buffer
	log := newLog(&out, namespace)
	api := &httpapi.API{Log: log, Now: time.Now, CountUnits: table.CountUnits, Authenticate: func(*http.Request) (auth.Principal, error) {
		return auth.Principal{Organization: "o", KeyID: "k", Scopes: auth.Admin}, nil
	}}
	function := Handler(api.Handler("validate", "config"), log)
	ctx := context.WithValue(t.Context(), "x-amzn-trace-id", traceHeader) //nolint:revive,staticcheck // aws-lambda-go's key
	for _, call := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/org/o/batchValidateUsageRecordGroups", `[{"records":{"a":-1}}]`, 500}, // the contract's
		{"GET", "/org/o/usageMeteringConfigInfo", "", 500},                               // no table: a panic, and so one of ours
		{"GET", "/org/o/nothing", "", 404},
		{"DELETE", "/org/o/usageMeteringConfigInfo", "", 405},
	} {
		event := events.APIGatewayV2HTTPRequest{RawPath: call.path, Body: call.body}
		event.RequestContext.RequestID = call.method
		event.RequestContext.HTTP.Method = call.method
		payload, err := json.Marshal(event)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := function.Invoke(ctx, payload)
		if err != nil || !bytes.HasPrefix(answer, fmt.Appendf(nil, `{"statusCode":%d,`, call.status)) {
			t.Fatalf("%v, %s", err, answer)
		}
	}
	var lines []map[string]any
	for line := range strings.Lines(out.String()) {
		var members map[string]any
		if err := json.Unmarshal([]byte(line), &members); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		lines = append(lines, members)
	}
	if len(lines) != 4 {
		t.Fatalf("%d lines: %s", len(lines), &out)
	}
	return lines
}

// A line has the trace of its invocation, and whether it had to wait for the process to start.
func TestLog_NamesTraceAndColdStart(t *testing.T) {
	t.Parallel()
	for i, line := range requestLines(t, "") {
		if line["traceId"] != "1-581cf771-a006649127e371903a2de979" || (line["coldStart"] == true) != (i == 0) {
			t.Errorf("line %d: %v", i, line)
		}
		if line["_aws"] != nil {
			t.Errorf("line %d is metrics without a namespace: %v", i, line)
		}
	}
}

// By the specification of CloudWatch's embedded metric format, what a directive names exists at the
// root, metrics as numbers, dimensions as strings.
func TestLog_LinesAreMetrics(t *testing.T) {
	t.Parallel()
	for i, line := range requestLines(t, "marketmeter/test") {
		encoded, err := json.Marshal(line["_aws"])
		if err != nil {
			t.Fatal(err)
		}
		var meta struct {
			Timestamp         int64
			CloudWatchMetrics []struct {
				Namespace  string
				Dimensions [][]string
				Metrics    []struct{ Name, Unit string }
			}
		}
		if err := json.Unmarshal(encoded, &meta); err != nil {
			t.Fatal(err)
		}
		if age := time.Since(time.UnixMilli(meta.Timestamp)); age < 0 || age > time.Minute {
			t.Errorf("line %d is of %v ago", i, age)
		}
		if len(meta.CloudWatchMetrics) != 1 || meta.CloudWatchMetrics[0].Namespace != "marketmeter/test" {
			t.Fatalf("line %d: %s", i, encoded)
		}
		directive := meta.CloudWatchMetrics[0]
		for _, m := range directive.Metrics {
			if _, ok := line[m.Name].(float64); !ok {
				t.Errorf("line %d: metric %s is %v", i, m.Name, line[m.Name])
			}
		}
		if len(directive.Metrics) != 4 || fmt.Sprint(directive.Dimensions) != "[[operation] []]" {
			t.Errorf("line %d: %s", i, encoded)
		}
		if want := []string{"batchValidateUsageRecordGroups", "getUsageMeteringConfigInfo", "none", "none"}[i]; line["operation"] != want { // CloudWatch accepts no empty dimension
			t.Errorf("line %d is of the operation %q, want %q", i, line["operation"], want)
		}
		if want := []float64{0, 1, 0, 0}[i]; line["internalErrors"] != want { // the validation is no internal error, the panic is one
			t.Errorf("line %d: %v internal errors, want %v", i, line["internalErrors"], want)
		}
	}
}

// Each attempt of a request to DynamoDB is reported to the daemon, if the invocation is sampled.
func TestTrace_HasRequestsToDynamoDB(t *testing.T) {
	t.Parallel()
	daemon, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer daemon.Close()
	_, name := tabletest.Client(t)
	client := dynamoclient.New(dynamoclient.Options{
		Region: "us-east-1", Endpoint: os.Getenv("DYNAMODB_ENDPOINT"),
		Credentials: credentials.NewStaticCredentialsProvider("test", "test", ""),
		Transport:   Traced(dynamoclient.NewTransport(dynamoclient.AnswerTimeout), daemon.LocalAddr().String(), slog.New(slog.DiscardHandler)),
	})
	get := func(header, table string) {
		ctx := context.WithValue(t.Context(), "x-amzn-trace-id", header) //nolint:revive,staticcheck // aws-lambda-go's key
		_, _ = client.GetItem(ctx, &dynamodb.GetItemInput{TableName: &table, Key: map[string]types.AttributeValue{
			"PK": &types.AttributeValueMemberS{Value: "a"}, "SK": &types.AttributeValueMemberS{Value: "b"},
		}})
	}
	begun := time.Now()
	get("", name)
	get(strings.Replace(traceHeader, "Sampled=1", "Sampled=0", 1), name)
	get(traceHeader, name)
	get(traceHeader, name+"-missing")
	seen := map[string]bool{}
	for i := range 2 { // a segment that is not sampled would come first
		if err := daemon.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		datagram := make([]byte, 64<<10)
		n, _, err := daemon.ReadFrom(datagram)
		if err != nil {
			t.Fatal(err)
		}
		header, document, _ := strings.Cut(string(datagram[:n]), "\n")
		if header != `{"format":"json","version":1}` {
			t.Errorf("the header is %s", header)
		}
		var s segment
		if err := json.Unmarshal([]byte(document), &s); err != nil {
			t.Fatal(err)
		}
		if s.TraceID != "1-581cf771-a006649127e371903a2de979" || s.ParentID != "70de5b6f19ff9a0a" || s.Type != "subsegment" ||
			s.Namespace != "aws" || s.Name != "DynamoDB" || s.AWS.Operation != "GetItem" || s.AWS.RequestID == "" || len(s.ID) != 16 || seen[s.ID] {
			t.Errorf("%s", document)
		}
		seen[s.ID] = true
		if s.StartTime < seconds(begun) || s.EndTime < s.StartTime || s.EndTime > seconds(time.Now()) {
			t.Errorf("from %f to %f, between %f and %f", s.StartTime, s.EndTime, seconds(begun), seconds(time.Now()))
		}
		if want := []int{200, 400}[i]; s.HTTP.Response.Status != want || s.Error != (want == 400) || s.Fault {
			t.Errorf("%d: %s", want, document)
		}
	}
}

func TestTrace_NeedsADaemon(t *testing.T) {
	t.Parallel()
	next := dynamoclient.NewTransport(dynamoclient.AnswerTimeout)
	if Traced(next, "", slog.New(slog.DiscardHandler)) != next {
		t.Error("it is traced")
	}
	var log bytes.Buffer
	if Traced(next, "nowhere", slog.New(slog.NewJSONHandler(&log, nil))) != next || !strings.Contains(log.String(), "not traced") {
		t.Errorf("a daemon that can't be: %s", &log)
	}
}

func TestLog_NamesTheBuildInEachLine(t *testing.T) {
	t.Parallel()
	want := build.Current()
	for _, namespace := range []string{"", "marketmeter/test"} {
		for _, line := range requestLines(t, namespace) {
			if line["version"] != want.Version || line["commit"] != want.Commit {
				t.Errorf("namespace %q: %v; want version %s and commit %s", namespace, line, want.Version, want.Commit)
			}
		}
	}
	var out bytes.Buffer
	newLog(&out, "marketmeter/test").Warn("of no request")
	if !strings.Contains(out.String(), `"version":"`+want.Version+`","commit":"`+want.Commit+`"`) {
		t.Errorf("of no request: %s", &out)
	}
}
