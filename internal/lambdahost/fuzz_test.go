package lambdahost_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"

	"github.com/marketmeter/marketmeter/internal/apikey"
	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/lambdahost"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table"
)

// FuzzEvent looks for bytes that a function answers with an error, or with what is no answer: what reaches the client then is
// API Gateway's bare 500. And for an event by which the authorizer lets someone in, whose keys are none.
func FuzzEvent(f *testing.F) {
	f.Add([]byte(""))
	f.Add([]byte("null"))
	f.Add(event(f, "/org/demo/batchValidateUsageRecordGroups", "", nil))
	for _, name := range []string{"authorizer", "batchvalidate", "config-patch", "delete", "list"} {
		text, err := os.ReadFile("../../events/" + name + ".json")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	function := validator()
	authorizer := lambda.NewHandler(lambdahost.Authorizer(&apikey.Checker{Records: noRecords{}, Log: discard, Now: time.Now}))
	quiet(f)
	f.Fuzz(func(t *testing.T, payload []byte) {
		answer, err := function.Invoke(t.Context(), payload)
		if err != nil {
			t.Fatalf("an invocation error: %v", err)
		}
		wantAnswer(t, answer)

		decision, err := authorizer.Invoke(t.Context(), payload)
		if json.Unmarshal(payload, new(events.APIGatewayV2CustomAuthorizerV2Request)) != nil {
			return // no event of an authorizer: Lambda tells API Gateway, which answers 500 and lets nobody in
		}
		var told events.APIGatewayV2CustomAuthorizerSimpleResponse
		if err := errors.Join(err, json.Unmarshal(decision, &told)); err != nil || told.IsAuthorized || len(told.Context) > 0 {
			t.Fatalf("%s, %v", decision, err)
		}
	})
}

var discard = slog.New(slog.DiscardHandler)

// validator is the function of the operation that needs no table; every other path is none.
func validator() lambda.Handler {
	api := &httpapi.API{Log: discard, Now: time.Now, CountUnits: table.CountUnits, Identify: lambdahost.Identity}
	return lambdahost.Handler(api.Handler(httpapi.BatchValidate), discard)
}

// noRecords is where keys are kept, before there are any.
type noRecords struct{}

func (noRecords) APIKey(context.Context, apikey.Hash) (apikey.Record, error) {
	return apikey.Record{}, metering.Errorf(metering.NotFound, "there is no key")
}
func (noRecords) APIKeyUsed(context.Context, apikey.Hash, time.Time) error { return nil }

// quiet keeps what the adapter prints of requests that it can't read out of the fuzzer's way.
func quiet(f *testing.F) {
	out := os.Stdout
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		f.Fatal(err)
	}
	os.Stdout = null
	log.SetOutput(io.Discard)
	f.Cleanup(func() { os.Stdout = out; log.SetOutput(os.Stderr) })
}

// wantAnswer wants what API Gateway takes for an answer, whose body is JSON: a string, where it is of a failure.
func wantAnswer(t *testing.T, answer []byte) events.APIGatewayV2HTTPResponse {
	t.Helper()
	response := decoded(t, answer)
	var message string
	isString := json.Unmarshal([]byte(response.Body), &message) == nil
	if response.StatusCode < 200 || response.StatusCode > 599 || !json.Valid([]byte(response.Body)) || !isString || (message == "") != (response.StatusCode == 200) {
		t.Fatalf("%d %q", response.StatusCode, response.Body)
	}
	return response
}

// FuzzRequest looks for a request that reaches the handler as another than the client sent to API Gateway, or that is refused
// and could be read.
func FuzzRequest(f *testing.F) {
	for _, path := range []string{"/", "/org/o/usageRecordGroup/a#b", "/a%41/50%", "//a b/../?x", "/ü\x00\x7f", "x", ""} {
		f.Add("GET", path, "a=%23+b&c", "gzip, br", "", false)
	}
	for _, query := range []string{"", "%", "a;b", "a=\x01", "ü", "a#b", "?&&=", "a b"} {
		f.Add("DELETE", "/org/o/usageRecordGroup/g", query, "*", "", false)
	}
	f.Add("POST", "/org/demo/batchValidateUsageRecordGroups", "", "", `[{"records":{"a":1}}]`, false)
	f.Add("patch", "/org/demo/usageMeteringConfigInfo", "", " a ,, b", "e30=", true)
	f.Add("G E T", "/", "", "\x00\r\n", "e30", true)
	quiet(f)
	validate := validator()
	f.Fuzz(func(t *testing.T, method, path, query, header, body string, inBase64 bool) {
		for _, text := range []*string{&method, &path, &query, &header, &body} {
			*text = strings.ToValidUTF8(*text, "?") // an event is JSON
		}
		if path == "" || path[0] != '/' {
			path = "/" + path // as HTTP has it
		}
		payload := event(t, path, query, func(e map[string]any) {
			e["requestContext"].(map[string]any)["http"].(map[string]any)["method"] = method
			e["headers"].(map[string]any)["accept-encoding"] = header
			e["body"], e["isBase64Encoded"] = body, inBase64
			e["requestContext"].(map[string]any)["authorizer"] = map[string]any{
				"lambda": map[string]any{"organization": "demo", "keyId": "k", "scopes": "write"},
			}
		})
		sent, errBody := []byte(body), error(nil)
		if inBase64 {
			sent, errBody = base64.StdEncoding.DecodeString(body)
		}

		inURL := strings.ReplaceAll(query, "#", "%23") // else it would begin a fragment

		came := false
		answer, err := lambdahost.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			came = true
			got, err := io.ReadAll(r.Body)
			if err != nil || !bytes.Equal(got, sent) || r.Method != cmp.Or(strings.ToUpper(method), "GET") || r.URL.Path != path || r.URL.RawQuery != inURL {
				t.Errorf("%s %q?%q with %q, %v\ncame as\n%s %q?%q", method, path, query, sent, err, r.Method, r.URL.Path, r.URL.RawQuery)
			}
			elements := strings.Split(header, ",")
			for i := range elements {
				elements[i] = strings.Trim(elements[i], " ")
			}
			if got := r.Header.Values("Accept-Encoding"); strings.Join(got, ",") != strings.Join(elements, ",") {
				t.Errorf("the header %q came as %q", header, got)
			}
			w.WriteHeader(http.StatusTeapot)
			_, _ = io.WriteString(w, `"tea"`)
		}), discard).Invoke(t.Context(), payload)
		if err != nil {
			t.Fatalf("an invocation error: %v", err)
		}
		_, errQuery := url.Parse("https://h/?" + inURL)
		_, errMethod := http.NewRequest(strings.ToUpper(method), "/", nil)
		wanted := http.StatusTeapot
		if readable := errBody == nil && errQuery == nil && errMethod == nil; !readable {
			wanted = http.StatusBadRequest
		}
		if response := wantAnswer(t, answer); response.StatusCode != wanted || came != (wanted == http.StatusTeapot) {
			t.Fatalf("%s %q?%q with %q: %d %s", method, path, query, body, response.StatusCode, response.Body)
		}

		// And the API itself answers it, whatever it is.
		answer, err = validate.Invoke(t.Context(), payload)
		if err != nil {
			t.Fatalf("an invocation error: %v", err)
		}
		if response := wantAnswer(t, answer); !utf8.ValidString(response.Body) ||
			response.StatusCode == http.StatusInternalServerError && !strings.HasPrefix(response.Body, `"validation failed`) {
			t.Fatalf("%s %q?%q with %q: %d %s", method, path, query, body, response.StatusCode, response.Body)
		}
	})
}
