package apitest

import (
	"context"
	"encoding/json"
	"maps"
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
	"github.com/google/go-cmp/cmp"

	"github.com/marketmeter/marketmeter/internal/dynamoclient"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// onTable returns the example of each operation that needs the table.
func onTable(org string) map[string]request {
	all := everyOperation(org)
	for _, o := range operations() {
		if !o.usesTable() {
			delete(all, o.id)
		}
	}
	return all
}

func TestErrors_PanicIsA500ThatLeaksNothing(t *testing.T) {
	t.Parallel()
	eachWayOver(t, nil, func(t *testing.T, a *api) { // no table: using it panics
		for operation, r := range onTable("acme") {
			line := a.wantInternalError(t, operation, r)
			if text, _ := line["error"].(string); !strings.Contains(text, "nil pointer") || !strings.Contains(text, ".go:") {
				t.Errorf("%s: the log does not tell the panic and where it was: %v", operation, line)
			}
		}
		want(t, a.validate(t, `[{"records": {"cpu": 1}}]`), http.StatusOK) // it continues to serve
	})
}

func TestErrors_StoredNonsenseIsA500ThatLeaksNothing(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.giveAll(t, "acme")
		a.spoilAll(t, "acme")
		a.put(t, "acme", group("g2"))
		for _, o := range operations() {
			if !o.usesTable() || o.blind {
				continue
			}
			line := a.wantInternalError(t, o.id, o.example.of("acme"))
			if text, _ := line["error"].(string); !slices.ContainsFunc([]string{"serialID", "config", "attribute entitlement", "attribute connection", "attribute metric", "entitlement must be", "connection must be", "attribute creationTime", "attribute report", "attribute records"}, func(said string) bool { return strings.Contains(text, said) }) {
				t.Errorf("%s: the log does not tell what is wrong: %v", o.id, line)
			}
		}
		want(t, a.delete(t, "acme", "g2", ""), http.StatusOK)
		for _, o := range operations() {
			if o.blind {
				want(t, a.do(t, o.example.of("acme")), http.StatusOK)
			}
		}
	})
}

// spoilAll makes nonsense of all that is stored for the organization, but for items that have
// nothing else than an id. It fails if it does not know how to spoil an item, or if a kind is not
// stored.
func (a *api) spoilAll(t *testing.T, org string) {
	t.Helper()
	nonsense := map[string]types.AttributeValue{
		"serialID": text("secret-nonsense"), "config": text(`{"partnerUsageMeteringConfigs": [{"partner": "secret-nonsense"`),
		"entitlement": &types.AttributeValueMemberN{Value: "5"}, "connection": &types.AttributeValueMemberN{Value: "5"}, "metric": &types.AttributeValueMemberN{Value: "5"},
		"report": &types.AttributeValueMemberN{Value: "5"}, "records": &types.AttributeValueMemberN{Value: "5"},
	}
	missing := map[string]string{
		"GROUP": "serialID", "CONFIG": "config", "ENTITLEMENT": "entitlement", "CONNECTION": "connection", "METRIC": "metric",
		"#REPORT": "report", "#DAILY#AWS": "records", // by the partition
	}
	kinds := maps.Clone(missing)
	items, err := itemsIn(t.Context(), a.client, a.tableName)
	if err != nil {
		t.Fatal(err)
	}
	for _, item := range items {
		pk, sk := item["PK"].(string), item["SK"].(string)
		kind, _, _ := strings.Cut(sk, "#")
		if partition, ok := strings.CutPrefix(pk, "ORG#"+org); !ok || partition != "" && kinds[partition] == "" {
			continue
		} else if partition != "" {
			kind = partition
		}
		attribute := kinds[kind]
		switch {
		case kind == "METRICNAME" || kind == "IDENTITY" || kind == "KEY":
			continue
		case attribute == "":
			t.Fatalf("nothing is known here of the item %s", sk)
		}
		delete(missing, kind)
		if _, err := a.client.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{
			TableName: &a.tableName, Key: itemKeyOf(pk, sk), UpdateExpression: aws.String("SET #attribute = :nonsense"),
			ExpressionAttributeNames: map[string]string{"#attribute": attribute}, ExpressionAttributeValues: map[string]types.AttributeValue{":nonsense": nonsense[attribute]},
		}); err != nil {
			t.Fatal(err)
		}
	}
	if len(missing) > 0 {
		t.Errorf("nothing was stored of these kinds: %v", missing)
	}
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

func TestErrors_TableOutOfReachIsA503(t *testing.T) {
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

func TestErrors_ThrottledTableIsA503(t *testing.T) {
	t.Parallel()
	client, _ := tabletest.NewFaults(slices.Repeat([]tabletest.Fault{tabletest.Throttle}, 1000)...)
	wantUnavailable(t, client)
}

func wantUnavailable(t *testing.T, client *dynamodb.Client) {
	eachWayOver(t, table.New(client, "secret-table"), func(t *testing.T, a *api) {
		for operation, r := range onTable("acme") {
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

// Each operation reads and writes only until its function has a second left, and then responds.
func TestErrors_SlowTableIsA503InTime(t *testing.T) {
	t.Parallel()
	var asked, late atomic.Int64
	client := dynamoclient.New(dynamoclient.Options{
		Region: "us-east-1", Endpoint: "http://127.0.0.1", Transport: silence{&asked, &late},
		Credentials: credentials.NewStaticCredentialsProvider("test", "test", ""),
	})
	a := serve(t, "lambda", table.New(client, "table"), tabletest.New(t))
	for operation, r := range onTable("acme") {
		t.Run(operation, func(t *testing.T) {
			t.Parallel()
			event, err := eventOf(r, lambdaContext("acme"))
			if err != nil {
				t.Fatal(err)
			}
			end := time.Now().Add(4 * time.Second) // of which a list reserves 2.5
			ctx, cancel := context.WithDeadline(context.WithValue(t.Context(), silence{}, end), end)
			defer cancel()
			got, err := a.way.(overLambda).invoke(ctx, event)
			if err != nil {
				t.Fatal(err)
			}
			wantError(t, got, http.StatusServiceUnavailable)
			if got.headers.Get("Retry-After") == "" {
				t.Errorf("no Retry-After: %v", got.headers)
			}
		})
	}
	t.Cleanup(func() {
		if got, least := asked.Load(), int64(len(onTable("acme"))); got < least || late.Load() > 0 {
			t.Errorf("the table was asked %d times by %d operations, %d times until less than a second before the end", got, least, late.Load())
		}
	})
}

// silence is a connection that never receives anything. It counts the requests, and those that may
// last until less than a second before the end of their function.
type silence struct{ asked, late *atomic.Int64 }

func (s silence) RoundTrip(r *http.Request) (*http.Response, error) {
	s.asked.Add(1)
	until, limited := r.Context().Deadline()
	if !limited || until.After(r.Context().Value(silence{}).(time.Time).Add(-time.Second)) {
		s.late.Add(1)
	}
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func TestLostResponse_IsNoLostWrite(t *testing.T) {
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
func TestLog_HasOneLinePerRequest(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.giveAll(t, "acme")
		want(t, a.sendConfig(t, "PUT", "acme", wholeConfig, nil), http.StatusOK) // a read that finds nothing costs nothing here
		items := func() map[string]doc {
			t.Helper()
			all, err := itemsIn(t.Context(), a.client, a.tableName)
			if err != nil {
				t.Fatal(err)
			}
			maps.DeleteFunc(all, func(key string, _ doc) bool { return strings.HasPrefix(key, `"KEY#`) }) // the hours of use
			return all
		}
		check := func(operation, org string, r request) answer {
			t.Helper()
			before, stored := len(a.log.all(t)), items()
			got := a.do(t, r)
			lines := a.log.all(t)[before:]
			if len(lines) != 1 {
				t.Fatalf("%s: %d log lines: %v", operation, len(lines), lines)
			}
			line := lines[0]
			if line["operation"] != operation || line["organization"] != org || line["status"] != float64(got.status) || line["method"] != r.method {
				t.Errorf("%s: %v", operation, line)
			}
			if id, _ := line["requestId"].(string); id == "" {
				t.Errorf("%s: no requestId: %v", operation, line)
			}
			reads, writes := false, false
			for _, asked := range got.operation {
				isRead := slices.Contains([]string{"Query", "GetItem", "BatchGetItem"}, asked.Action)
				reads, writes = reads || isRead, writes || !isRead
			}
			if writes { // DynamoDB does not report the units of a write whose condition fails
				writes = !cmp.Equal(stored, items())
			}
			_, hasDuration := line["durationMs"].(float64)
			read, hasRead := line["readUnits"].(float64)
			write, hasWrite := line["writeUnits"].(float64)
			if !hasDuration || !hasRead || !hasWrite || got.status == 200 && (reads && read <= 0 || writes && write <= 0) {
				t.Errorf("%s: no duration or units; a method of the table asks for units by wantUnits and counts them: %v", operation, line)
			}
			if _, hasError := line["error"]; hasError != (got.status >= 400) {
				t.Errorf("%s: error: %v", operation, line)
			}
			// The 500 of a validating request is required by the contract, and must raise no alarm.
			if line["level"] != "INFO" {
				t.Errorf("%s: level %v", operation, line["level"])
			}
			return got
		}
		for _, o := range operations() {
			for range 2 { // the second time, some are refused or change nothing
				check(o.id, "acme", o.example.of("acme"))
			}
			unknown := o.example.of("acme")
			unknown.query = "unknown=1"
			wantError(t, check(o.id, "acme", unknown), http.StatusBadRequest, "unknown")
		}
		check("batchValidateUsageRecordGroups", "acme", validating(`[{}]`).of("acme"))
		check("none", "", request{method: "GET", path: "/nowhere"})
	})
}

// An error is a JSON string even if it quotes text that would break one.
func TestErrors_QuoteAnything(t *testing.T) {
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
