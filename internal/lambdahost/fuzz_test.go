package lambdahost_test

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/lambdahost"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// FuzzEvent looks for bytes for which a function returns an error or an invalid response: the
// client would get API Gateway's bare 500. It also looks for an event for which the authorizer lets
// in a caller without the one key that is stored, or passes on something else than what is stored
// with it.
func FuzzEvent(f *testing.F) {
	f.Add([]byte(""))
	f.Add([]byte("null"))
	f.Add(event(f, "/org/demo"+validation, "", nil))
	f.Add(bodyEvent(f, `"[{\"records\":{\"a\":1}}]"`, nil))
	f.Add(bodyEvent(f, "\"[{\\\"records\\\":{\\\"\xff\\\":1}}]\"", nil))
	f.Add(bodyEvent(f, `"[{\"records\":{\"\ud800\":1}}]"`, nil))
	f.Add(bodyEvent(f, `"[{\"records\":{\"a\":1}}]"`, func(e map[string]any) {
		e["rawPath"], e["pathParameters"] = "org/demo"+validation, map[string]any{"orgId": "demo"}
	}))
	f.Add(bodyEvent(f, `"[]"`, func(e map[string]any) { e["pathParameters"] = map[string]any{"orgId": "d%65mo"} }))
	for _, name := range eventNames(f) {
		f.Add(eventFile(f, name))
	}
	function := validator()
	key, keys := storedKey(f)
	authorizer := lambda.NewHandler(lambdahost.Authorizer(&auth.Authenticator{Records: keys, Log: discard, Now: time.Now}))
	source := []byte(`"Key ` + key + `"`)
	for _, other := range []string{`"KEY"`, `" bEARER  KEY\t"`, `"Key\tKEY"`, `"Key KEY KEY"`, `"Key KEY","Key KEY"`, ``, `"Key mm_yhOTglEjTszxzx0zoqBfBhu2Guf1KXJ044QLpU"`} {
		other = strings.ReplaceAll(other, "KEY", string(key))
		f.Add(bytes.Replace(eventFile(f, "authorizer"), source, []byte(other), 1))
	}
	isKey := regexp.MustCompile(`^[ \t]*((?i:key|bearer) [ \t]*)?` + string(key) + `[ \t]*$`)
	quiet(f)
	f.Fuzz(func(t *testing.T, payload []byte) {
		answer, err := function.Invoke(t.Context(), payload)
		if err != nil {
			t.Fatalf("an invocation error: %v", err)
		}
		if response := wantAnswer(t, answer); response.StatusCode == http.StatusOK {
			wantOneReading(t, payload)
		}

		decision, err := authorizer.Invoke(t.Context(), payload)
		var sent events.APIGatewayV2CustomAuthorizerV2Request
		if json.NewDecoder(bytes.NewReader(payload)).Decode(&sent) != nil {
			if err == nil {
				t.Fatalf("%s", decision)
			}
			return // not an event of an authorizer: Lambda reports an error to API Gateway, which responds with 500
		}
		var want events.APIGatewayV2CustomAuthorizerSimpleResponse
		if len(sent.IdentitySource) == 1 && isKey.MatchString(sent.IdentitySource[0]) {
			want.IsAuthorized = true
			want.Context = map[string]any{"organization": "demo", "keyId": key.Hash().ID(), "scopes": "read,config"}
		}
		var told events.APIGatewayV2CustomAuthorizerSimpleResponse
		if err := errors.Join(err, json.Unmarshal(decision, &told)); err != nil || !reflect.DeepEqual(want, told) {
			t.Fatalf("%+v, %v; want %+v", told, err, want)
		}
	})
}

// wantOneReading requires that the path and the path parameters of an event whose response is 200
// say the same.
func wantOneReading(t *testing.T, payload []byte) {
	t.Helper()
	var sent events.APIGatewayV2HTTPRequest
	if err := json.Unmarshal(payload, &sent); err != nil {
		t.Fatal(err)
	}
	path := "/" + strings.TrimPrefix(sent.RawPath, "/") // which the adapter adds
	organization := strings.TrimSuffix(strings.TrimPrefix(path, "/org/"), validation)
	if strings.ContainsAny(organization, "%?/") || (sent.PathParameters != nil || strings.Contains(sent.RouteKey, "{")) &&
		!maps.Equal(sent.PathParameters, map[string]string{"orgId": organization}) {
		t.Fatalf("%q is answered, with %q of %s", sent.RawPath, sent.PathParameters, sent.RouteKey)
	}
}

// eventNames are the names of the files in events/.
func eventNames(t testing.TB) (names []string) {
	t.Helper()
	files, err := filepath.Glob("../../events/*.json")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		names = append(names, strings.TrimSuffix(filepath.Base(file), ".json"))
	}
	return names
}

func eventFile(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile("../../events/" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// storedKey returns the key in events/authorizer.json, and a table that holds only this key: it
// belongs to the organization demo and never expires. A text without the form of a key never
// reaches the table, so that it costs little.
func storedKey(f *testing.F) (auth.Key, *table.Table) {
	var authorizer events.APIGatewayV2CustomAuthorizerV2Request
	if err := json.Unmarshal(eventFile(f, "authorizer"), &authorizer); err != nil {
		f.Fatal(err)
	}
	key, err := auth.Parse(strings.TrimPrefix(authorizer.IdentitySource[0], "Key "))
	keys := tabletest.New(f)
	if err == nil {
		err = keys.AddAPIKey(f.Context(), &auth.Record{
			Hash: key.Hash(), Organization: "demo", Scopes: auth.Read | auth.Config, CreatedBy: "operator", CreationTime: time.Now(),
		})
	}
	if err != nil {
		f.Fatal(err)
	}
	return key, keys
}

var discard = slog.New(slog.DiscardHandler)

// validator is the function of the operation that needs no table; it has no other path.
func validator() lambda.Handler {
	api := &httpapi.API{Log: discard, Now: time.Now, CountUnits: table.CountUnits, Authenticate: lambdahost.Principal}
	return lambdahost.Handler(api.Handler("validate"), discard)
}

// quiet discards what the adapter prints about requests that it can't read.
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

// wantAnswer requires a response that API Gateway accepts. Its body must be JSON, and a string if
// the response is a failure.
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

// FuzzRequest looks for a request that reaches the handler changed from what the client sent to API
// Gateway, or that is refused although it could be read.
func FuzzRequest(f *testing.F) {
	for _, path := range []string{"/", "/org/o/usageRecordGroup/a#b", "/a%41/50%", "//a b/../?x", "/ü\x00\x7f", "x", ""} {
		f.Add("GET", path, "a=%23+b&c", "gzip, br", "", false)
	}
	for _, query := range []string{"", "%", "a;b", "a=\x01", "ü", "a#b", "?&&=", "a b"} {
		f.Add("DELETE", "/org/o/usageRecordGroup/g", query, "*", "", false)
	}
	f.Add("POST", "/org/demo"+validation, "", "", `[{"records":{"a":1}}]`, false)
	f.Add("patch", "/org/demo/usageMeteringConfigInfo", "", " a ,, b", "e30=", true)
	f.Add("G E T", "/", "", "\x00\r\n", "e30", true)
	quiet(f)
	validate := validator()
	f.Fuzz(func(t *testing.T, method, path, query, header, body string, inBase64 bool) {
		for _, text := range []*string{&method, &path, &query, &header, &body} {
			*text = strings.ToValidUTF8(*text, "?") // an event is JSON
		}
		if path == "" || path[0] != '/' {
			path = "/" + path // as HTTP requires
		}
		payload := event(t, path, query, func(e map[string]any) {
			e["requestContext"].(map[string]any)["http"].(map[string]any)["method"] = method
			e["headers"].(map[string]any)["accept-encoding"] = header
			e["body"], e["isBase64Encoded"] = body, inBase64
			if org, ok := strings.CutSuffix(strings.TrimPrefix(path, "/org/"), validation); ok {
				e["pathParameters"] = map[string]any{"orgId": org}
			}
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

		// The API itself must respond to it, whatever it is.
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
