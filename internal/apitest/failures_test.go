package apitest

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/dynamoclient"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// tableRequests holds a valid request for each operation that needs the table.
var tableRequests = map[string]request{
	"listUsageRecordGroups":          {method: "GET", path: listPath("acme")},
	"deleteUsageRecordGroup":         {method: "DELETE", path: groupPath("acme", "g1")},
	"getUsageMeteringConfigInfo":     {method: "GET", path: configPath("acme")},
	"replaceUsageMeteringConfigInfo": {method: "PUT", path: configPath("acme"), body: `{"partnerUsageMeteringConfigs": [{"partner": "AWS"}]}`},
	"updateUsageMeteringConfigInfo":  {method: "PATCH", path: configPath("acme"), body: `{"partnerUsageMeteringConfigs": [{"partner": "GCP"}]}`},
}

func TestAPanicIsA500ThatLeaksNothing(t *testing.T) {
	t.Parallel()
	eachWayOver(t, nil, func(t *testing.T, a *api) { // no table: using it panics
		for operation, r := range tableRequests {
			line := a.wantInternalError(t, operation, r)
			if text, _ := line["error"].(string); !strings.Contains(text, "nil pointer") || !strings.Contains(text, ".go:") {
				t.Errorf("%s: the log does not tell the panic and where it was: %v", operation, line)
			}
		}
		want(t, a.validate(t, `[{"records": {"cpu": 1}}]`), http.StatusOK) // it continues to serve
	})
}

func TestStoredNonsenseIsA500ThatLeaksNothing(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.put(t, "acme", group("g1"), group("g2"))
		if _, err := a.client.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{
			TableName: &a.tableName, Key: key("ORG#acme", "GROUP#g1"), UpdateExpression: aws.String("SET serialID = :nonsense"),
			ExpressionAttributeValues: map[string]types.AttributeValue{":nonsense": text("secret-nonsense")},
		}); err != nil {
			t.Fatal(err)
		}
		config := key("ORG#acme", "CONFIG#0000000001")
		config["config"] = text(`{"partnerUsageMeteringConfigs": [{"partner": "secret-nonsense"`)
		if _, err := a.client.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &a.tableName, Item: config}); err != nil {
			t.Fatal(err)
		}
		for operation, r := range tableRequests {
			if operation == "replaceUsageMeteringConfigInfo" {
				continue
			}
			line := a.wantInternalError(t, operation, r)
			if text, _ := line["error"].(string); !strings.Contains(text, "serialID") && !strings.Contains(text, "config") {
				t.Errorf("%s: the log does not tell what is wrong: %v", operation, line)
			}
		}
		want(t, a.delete(t, "acme", "g2", ""), http.StatusOK)
		want(t, a.do(t, tableRequests["replaceUsageMeteringConfigInfo"]), http.StatusOK) // a replacement need not read the config
	})
}

// wantInternalError sends a request that fails inside and returns its log line. The response names
// the log line and says nothing more.
func (a *api) wantInternalError(t *testing.T, operation string, r request) doc {
	t.Helper()
	message := wantError(t, a.do(t, r), http.StatusInternalServerError)
	for _, leak := range []string{"nil pointer", "runtime", "goroutine", ".go", "panic", "serialID", "nonsense", "attribute", "test-", "ORG#"} {
		if strings.Contains(message, leak) {
			t.Errorf("%s: the error tells a client %q: %s", operation, leak, message)
		}
	}
	lines := a.log.all(t)
	line := lines[len(lines)-1]
	if id, _ := line["requestId"].(string); id == "" || !strings.Contains(message, id) {
		t.Errorf("%s: the error does not name the log line of request %q: %s", operation, id, message)
	}
	if line["level"] != "ERROR" || line["operation"] != operation {
		t.Errorf("%s: the log line is %v", operation, line)
	}
	return line
}

func text(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }

func key(pk, sk string) map[string]types.AttributeValue {
	return map[string]types.AttributeValue{"PK": text(pk), "SK": text(sk)}
}

func TestATableOutOfReachIsA503(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close() // nothing listens there now
	wantUnavailable(t, dynamoclient.New(dynamoclient.Options{
		Region: "us-east-1", Endpoint: "http://" + listener.Addr().String(),
		Credentials: credentials.NewStaticCredentialsProvider("test", "test", ""),
	}))
}

func TestAThrottledTableIsA503(t *testing.T) {
	t.Parallel()
	client, _ := tabletest.NewFaults(slices.Repeat([]tabletest.Fault{tabletest.Throttle}, 1000)...)
	wantUnavailable(t, client)
}

func wantUnavailable(t *testing.T, client *dynamodb.Client) {
	eachWayOver(t, table.New(client, "secret-table"), func(t *testing.T, a *api) {
		for operation, r := range tableRequests {
			t.Run(operation, func(t *testing.T) {
				t.Parallel()
				got := a.do(t, r)
				message := wantError(t, got, http.StatusServiceUnavailable)
				if seconds, err := strconv.Atoi(got.headers.Get("Retry-After")); err != nil || seconds < 1 {
					t.Errorf("Retry-After is %q", got.headers.Get("Retry-After"))
				}
				if strings.Contains(message, "127.0.0.1") || strings.Contains(message, "secret") {
					t.Errorf("the error tells too much: %s", message)
				}
			})
		}
	})
}

// A function responds before its time ends, however slow the table is.
func TestASlowTableIsA503InTime(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	client := dynamoclient.New(dynamoclient.Options{
		Region: "us-east-1", Endpoint: "http://127.0.0.1", Transport: silence{&asked},
		Credentials: credentials.NewStaticCredentialsProvider("test", "test", ""),
	})
	a := serve(t, "lambda", table.New(client, "table"), tabletest.New(t))
	for operation, r := range tableRequests {
		t.Run(operation, func(t *testing.T) {
			t.Parallel()
			event, err := eventOf(r, lambdaContext("acme"))
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second) // of which a list reserves 2.5
			defer cancel()
			got, err := a.way.(overLambda).invoke(ctx, event)
			if err != nil || ctx.Err() != nil {
				t.Fatalf("%v, %v", err, ctx.Err())
			}
			wantError(t, got, http.StatusServiceUnavailable)
			if got.headers.Get("Retry-After") == "" {
				t.Errorf("no Retry-After: %v", got.headers)
			}
		})
	}
	t.Cleanup(func() {
		if got, least := asked.Load(), int64(len(tableRequests)); got < least {
			t.Errorf("the table was asked %d times by %d operations", got, least)
		}
	})
}

// silence is a connection that never receives anything. It counts the requests.
type silence struct{ asked *atomic.Int64 }

func (s silence) RoundTrip(r *http.Request) (*http.Response, error) {
	s.asked.Add(1)
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func TestALostAnswerIsNotALostWrite(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.put(t, "acme", group("g1"))
		losing := func(faults ...tabletest.Fault) *api {
			client, _ := tabletest.NewFaults(faults...)
			return serve(t, t.Name()[strings.LastIndex(t.Name(), "/")+1:], table.New(client, a.tableName), a.table)
		}
		want(t, losing(tabletest.Lose).delete(t, "acme", "g1", ""), http.StatusOK)

		body := `{"partnerUsageMeteringConfigs": [{"partner": "AWS"}]}`
		got := losing(tabletest.Pass, tabletest.Lose).sendConfig(t, "PATCH", "acme", body, nil)
		want(t, got, http.StatusOK)
		wantSame(t, []string{"CONFIG#0000000001"}, versions(t, a.client, a.tableName, "acme"))
	})
}

// One line per request states the client, the request, its result and its cost.
func TestEveryRequestIsOneLogLine(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.put(t, "acme", group("g1"))
		want(t, a.sendConfig(t, "PUT", "acme", wholeConfig, nil), http.StatusOK) // a read that finds nothing costs nothing here
		for _, c := range []struct {
			operation   string
			request     request
			status      float64
			reads, puts bool
		}{
			{"listUsageRecordGroups", tableRequests["listUsageRecordGroups"], 200, true, false},
			{"listUsageRecordGroups", request{method: "GET", path: listPath("acme"), query: "limit=0"}, 400, false, false},
			{"deleteUsageRecordGroup", tableRequests["deleteUsageRecordGroup"], 200, false, true},
			{"deleteUsageRecordGroup", tableRequests["deleteUsageRecordGroup"], 400, false, false},
			{validating, request{method: "POST", path: validatePath("acme"), body: `[{"records": {"cpu": 1}}]`}, 200, false, false},
			{validating, request{method: "POST", path: validatePath("acme"), body: `[{}]`}, 500, false, false},
			{"getUsageMeteringConfigInfo", tableRequests["getUsageMeteringConfigInfo"], 200, true, false},
			{"replaceUsageMeteringConfigInfo", tableRequests["replaceUsageMeteringConfigInfo"], 200, true, true},
			{"updateUsageMeteringConfigInfo", tableRequests["updateUsageMeteringConfigInfo"], 200, true, true},
			{"none", request{method: "GET", path: "/nowhere"}, 404, false, false},
		} {
			before := len(a.log.all(t))
			a.do(t, c.request)
			lines := a.log.all(t)[before:]
			if len(lines) != 1 {
				t.Fatalf("%s: %d log lines: %v", c.operation, len(lines), lines)
			}
			line := lines[0]
			org := "acme"
			if c.operation == "none" {
				org = ""
			}
			if line["operation"] != c.operation || line["organization"] != org || line["status"] != c.status || line["method"] != c.request.method {
				t.Errorf("%s: %v", c.operation, line)
			}
			if id, _ := line["requestId"].(string); id == "" {
				t.Errorf("%s: no requestId: %v", c.operation, line)
			}
			_, hasDuration := line["durationMs"].(float64)
			read, hasRead := line["readUnits"].(float64)
			write, hasWrite := line["writeUnits"].(float64)
			if !hasDuration || !hasRead || !hasWrite || (c.reads && read <= 0) || (c.puts && write <= 0) {
				t.Errorf("%s: duration and units: %v", c.operation, line)
			}
			if _, hasError := line["error"]; hasError != (c.status >= 400) {
				t.Errorf("%s: error: %v", c.operation, line)
			}
			// The 500 of a validating request is required by the contract, and must raise no alarm.
			if line["level"] != "INFO" {
				t.Errorf("%s: level %v", c.operation, line["level"])
			}
		}
	})
}

// An error is a JSON string even if it quotes text that would break one.
func TestErrorsQuoteAnything(t *testing.T) {
	t.Parallel()
	eachWayOver(t, nil, func(t *testing.T, a *api) {
		for _, nasty := range []string{`"`, `\`, "<script>", "\u2028", "\x7f", "ü😀", strings.Repeat("x", 5000)} {
			quoted, err := json.Marshal(nasty)
			if err != nil {
				t.Fatal(err)
			}
			message := wantError(t, a.validate(t, `[{`+string(quoted)+`: 1}]`), http.StatusBadRequest)
			if len(message) > 1000 {
				t.Errorf("%d bytes of error: %.200s", len(message), message)
			}
		}
	})
}
