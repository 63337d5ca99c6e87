package lambdahost_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambdacontext"

	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/lambdahost"
	"github.com/marketmeter/marketmeter/internal/table"
)

// validation is the end of the path of the operation that needs no table.
const validation = "/batchValidateUsageRecordGroups"

// event is what API Gateway sends for a GET of that path, which it has decoded.
func event(t testing.TB, decodedPath, rawQuery string, change func(map[string]any)) []byte {
	t.Helper()
	body := map[string]any{
		"version": "2.0", "routeKey": "GET /org/{orgId}/usageRecordGroup", "rawPath": decodedPath, "rawQueryString": rawQuery,
		"headers": map[string]any{"accept": "*/*", "host": "abc123.execute-api.us-east-1.amazonaws.com", "x-forwarded-proto": "https"},
		"requestContext": map[string]any{
			"accountId": "123456789012", "apiId": "abc123", "domainName": "abc123.execute-api.us-east-1.amazonaws.com",
			"http":      map[string]any{"method": "GET", "path": decodedPath, "protocol": "HTTP/1.1", "sourceIp": "203.0.113.7", "userAgent": "curl/8.5.0"},
			"requestId": "JKJaXmPLvHcESHA=", "stage": "$default", "time": "12/Mar/2026:19:03:58 +0000", "timeEpoch": 1773342238000,
		},
		"isBase64Encoded": false,
	}
	if change != nil {
		change(body)
	}
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// invoke runs the handler as Lambda would and fails on an invocation error.
func invoke(t *testing.T, h http.HandlerFunc, event []byte) (events.APIGatewayV2HTTPResponse, string) {
	t.Helper()
	var log bytes.Buffer
	answer, err := lambdahost.Handler(h, slog.New(slog.NewJSONHandler(&log, nil))).Invoke(t.Context(), event)
	if err != nil {
		t.Fatalf("an invocation error: %v", err)
	}
	return decoded(t, answer), log.String()
}

// decoded is the response as API Gateway reads it, which must be JSON in UTF-8 with no other
// members.
func decoded(t fataler, answer []byte) (response events.APIGatewayV2HTTPResponse) {
	decoder := json.NewDecoder(bytes.NewReader(answer))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&response); err != nil || decoder.More() || !utf8.Valid(answer) {
		t.Fatalf("%v: %q", err, answer)
	}
	return response
}

type fataler interface{ Fatalf(string, ...any) }

func echo(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain")
	_, _ = io.WriteString(w, r.Method+" "+r.URL.Path+"?"+r.URL.RawQuery)
}

func TestPath_IsThatOfTheClient(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"a#b", "a%41", "50%", "a b", "a?b", "ü", "a+b", "a;b", "%2F", "%", "a&b=c", `"`, "日本"} {
		response, _ := invoke(t, echo, event(t, "/org/o/usageRecordGroup/"+id, "x=%23+y", nil))
		if want := "GET /org/o/usageRecordGroup/" + id + "?x=%23+y"; response.StatusCode != 200 || response.Body != want {
			t.Errorf("%d %s, want %s", response.StatusCode, response.Body, want)
		}
	}
}

// The function is wired to a wrong source: the error is not a client's, and must raise the alarm.
func TestRequest_OtherEventIsA500(t *testing.T) {
	t.Parallel()
	ctx := lambdacontext.NewContext(t.Context(), &lambdacontext.LambdaContext{AwsRequestID: "8f1e"})
	for _, payload := range []string{"", "nonsense", `{"rawPath":`, "[]", `{"cookies":"a=b"}`, `{"headers":{"a":["b"]}}`} {
		var log bytes.Buffer
		function := lambdahost.Handler(http.HandlerFunc(echo), slog.New(slog.NewJSONHandler(&log, nil)))
		answer, err := function.Invoke(ctx, []byte(payload))
		if err != nil {
			t.Fatalf("%s: an invocation error: %v", payload, err)
		}
		if got := decoded(t, answer); got.StatusCode != 500 || got.Body != `"internal error: the log has more under request id 8f1e"` {
			t.Errorf("%s: %d %s", payload, got.StatusCode, got.Body)
		}
		var line map[string]any
		if err := json.Unmarshal(log.Bytes(), &line); err != nil || line["internalErrors"] != 1.0 || line["requestId"] != "8f1e" {
			t.Errorf("%s: %v, %s", payload, err, &log)
		}
	}
}

func TestRequest_UnreadableIsA400(t *testing.T) {
	t.Parallel()
	for what, change := range map[string]func(map[string]any){
		"a control character in the query": func(e map[string]any) { e["rawQueryString"] = "a=\x01" },
		"a body that is not base64":        func(e map[string]any) { e["isBase64Encoded"], e["body"] = true, "%%%" },
		"a method that is none": func(e map[string]any) {
			e["requestContext"].(map[string]any)["http"].(map[string]any)["method"] = "G E T"
		},
	} {
		response, _ := invoke(t, echo, event(t, "/org/o/usageRecordGroup", "", change))
		if response.StatusCode != 400 || !isJSONString(response.Body) {
			t.Errorf("%s: %d %s", what, response.StatusCode, response.Body)
		}
	}
}

func isJSONString(body string) bool {
	var s string
	return json.Unmarshal([]byte(body), &s) == nil && s != ""
}

func TestHandler_PanicLeaksNothingAndIsLogged(t *testing.T) {
	t.Parallel()
	response, log := invoke(t, func(http.ResponseWriter, *http.Request) { panic("secret of the handler") }, event(t, "/", "", nil))
	if response.StatusCode != 500 || !isJSONString(response.Body) || strings.Contains(response.Body, "secret") {
		t.Errorf("%d %s", response.StatusCode, response.Body)
	}
	if !strings.Contains(log, "secret of the handler") || !strings.Contains(log, "lambdahost_test.go") || !strings.Contains(log, "JKJaXmPLvHcESHA=") {
		t.Error(log)
	}
}

func TestHandler_WithoutAResponseIsA500(t *testing.T) {
	t.Parallel()
	response, log := invoke(t, func(http.ResponseWriter, *http.Request) {}, event(t, "/", "", nil))
	if response.StatusCode != 500 || !isJSONString(response.Body) || log == "" {
		t.Errorf("%d %s, log %s", response.StatusCode, response.Body, log)
	}
}

// The adapter can also pass the request context in a header, which clients can send.
func TestRequest_ForgedContextHeaderIsAHeader(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	logger := slog.New(slog.NewJSONHandler(&log, nil))
	api := &httpapi.API{Log: logger, Now: time.Now, CountUnits: table.CountUnits}
	e := event(t, "/org/o/nothing", "", func(e map[string]any) {
		e["headers"].(map[string]any)["x-golambdaproxy-apigw-context"] = `{"requestId":"forged"}`
	})
	response, err := lambdahost.Handler(api.Handler(), logger).Invoke(t.Context(), e)
	if err != nil || decoded(t, response).StatusCode != 404 {
		t.Errorf("%s, %v", response, err)
	}
	if strings.Contains(log.String(), "forged") || !strings.Contains(log.String(), "JKJaXmPLvHcESHA=") {
		t.Error(log.String())
	}
}

func TestHandler_HasTimeLeftToRespond(t *testing.T) {
	t.Parallel()
	ends := time.Now().Add(time.Minute)
	ctx, cancel := context.WithDeadline(t.Context(), ends)
	defer cancel()
	var seen time.Time
	h := func(w http.ResponseWriter, r *http.Request) {
		seen, _ = r.Context().Deadline()
		w.WriteHeader(http.StatusNoContent)
	}
	if _, err := lambdahost.Handler(http.HandlerFunc(h), slog.New(slog.DiscardHandler)).Invoke(ctx, event(t, "/", "", nil)); err != nil {
		t.Fatal(err)
	}
	if left := ends.Sub(seen); left < time.Second || left > 5*time.Second {
		t.Errorf("%v are left; want a second: a busy machine took 310 ms of the half that was", left)
	}
}

// A header that the adapter splits on commas is joined again by its reader.
func TestRequest_HeaderWithCommasIsWhole(t *testing.T) {
	t.Parallel()
	h := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, strings.Join(r.Header.Values("If-Match"), ","))
	}
	response, _ := invoke(t, h, event(t, "/", "", func(e map[string]any) {
		e["headers"].(map[string]any)["if-match"] = `"1", "2"`
	}))
	if response.Body != `"1","2"` {
		t.Error(response.Body)
	}
}
