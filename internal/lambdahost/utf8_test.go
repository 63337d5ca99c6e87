package lambdahost_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/table"
)

// bodyEvent is the event of a batch validate of organization demo whose body is that JSON string.
func bodyEvent(t testing.TB, jsonString string, change func(map[string]any)) []byte {
	t.Helper()
	payload := event(t, "/org/demo"+validation, "", func(e map[string]any) {
		e["routeKey"], e["pathParameters"] = "POST /org/{orgId}"+validation, map[string]any{"orgId": "demo"}
		e["requestContext"].(map[string]any)["http"].(map[string]any)["method"] = "POST"
		e["requestContext"].(map[string]any)["authorizer"] = map[string]any{
			"lambda": map[string]any{"organization": "demo", "keyId": "k", "scopes": "write"},
		}
		e["body"] = "BODY"
		if change != nil {
			change(e)
		}
	})
	return bytes.Replace(payload, []byte(`"BODY"`), []byte(jsonString), 1)
}

// onTheServer is the local server's response to the same body.
func onTheServer(t testing.TB, body string) int {
	t.Helper()
	api := &httpapi.API{Log: discard, Now: time.Now, CountUnits: table.CountUnits, Authenticate: func(*http.Request) (auth.Principal, error) {
		return auth.Principal{Organization: "demo", KeyID: "k", Scopes: auth.Write}, nil
	}}
	w := httptest.NewRecorder()
	api.Handler("validate").ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/org/demo"+validation, strings.NewReader(body)))
	return w.Code
}

func TestBody_NotUTF8IsRefusedAsOnTheServer(t *testing.T) {
	t.Parallel()
	function := validator()
	for _, invalid := range []string{"\xff", "\x80", "\xc3", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82", "\xf0\x9f\x98"} {
		body := `[{"records":{"` + invalid + `":1}}]`
		inJSON := `"` + strings.ReplaceAll(body, `"`, `\"`) + `"`
		replaced := fmt.Sprintf("%q", strings.ToValidUTF8(body, "\uFFFD"))
		length := fmt.Sprint(len(body))
		for how, payload := range map[string][]byte{
			"bytes":   bodyEvent(t, inJSON, nil),
			"escapes": bodyEvent(t, strings.ReplaceAll(inJSON, invalid, `\ud800`), nil),
			"base64": bodyEvent(t, `"`+base64.StdEncoding.EncodeToString([]byte(body))+`"`, func(e map[string]any) {
				e["isBase64Encoded"] = true
			}),
			"replaced by the gateway": bodyEvent(t, replaced, func(e map[string]any) { e["headers"].(map[string]any)["content-length"] = length }),
		} {
			if how == "replaced by the gateway" && len(invalid)%3 == 0 {
				continue // as long as U+FFFD: it can't be detected
			}
			answer, err := function.Invoke(t.Context(), payload)
			if err != nil {
				t.Fatal(err)
			}
			response, server := wantAnswer(t, answer), onTheServer(t, body)
			if response.StatusCode != http.StatusBadRequest || server != http.StatusBadRequest {
				t.Errorf("%q as %s: %d %s, and on the server %d; want 400", invalid, how, response.StatusCode, response.Body, server)
			}
		}
	}
}

func TestBody_UTF8IsTakenHoweverItIsEscaped(t *testing.T) {
	t.Parallel()
	function := validator()
	for _, key := range []string{"a", "ü", "😀", "\uFFFD", "\uffff", "u", "ud800"} {
		body := `[{"records":{"` + key + `":1}}]`
		quoted, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		ascii := fmt.Sprintf("%+q", body)                               // \uXXXX, and beyond U+FFFF
		ascii = strings.ReplaceAll(ascii, `\U0001f600`, `\ud83d\ude00`) // as JSON has it
		for _, text := range []string{string(quoted), ascii} {
			payload := bodyEvent(t, text, func(e map[string]any) { e["headers"].(map[string]any)["content-length"] = fmt.Sprint(len(body)) })
			answer, err := function.Invoke(t.Context(), payload)
			if err != nil {
				t.Fatal(err)
			}
			if response := wantAnswer(t, answer); response.StatusCode != http.StatusOK || onTheServer(t, body) != http.StatusOK {
				t.Errorf("%s: %d %s", text, response.StatusCode, response.Body)
			}
		}
	}
}

// Other parts of a request that are not UTF-8 also get the local server's response: such a path
// does not exist, such a query can't be read, and a header that nothing reads may be anything.
func TestRequest_NotUTF8IsRefusedAsOnTheServer(t *testing.T) {
	t.Parallel()
	function := validator()
	for _, c := range []struct {
		member, invalid string
		status          int
	}{
		{"rawPath", `"/org/de\ud800mo` + validation + `"`, http.StatusNotFound},
		{"rawPath", "\"/org/demo\xff" + validation + `"`, http.StatusNotFound},
		{"rawPath", `"/org/demo` + validation + `\udc00"`, http.StatusNotFound},
		{"rawQueryString", "\"a=\xff\"", http.StatusBadRequest},
		{"rawQueryString", `"\ud800=1"`, http.StatusBadRequest},
		{"rawQueryString", `"a=%ff"`, http.StatusBadRequest},
		{"rawQueryString", `"%ff="`, http.StatusBadRequest},
		{"headers", "{\"user-agent\":\"\xff\",\"x-\xff\":\"\"}", http.StatusOK},
		{"headers", `{"user-agent":"\ud800"}`, http.StatusOK},
		{"headers", "{\"content-type\":\"application/json; charset=\xff\"}", http.StatusUnsupportedMediaType},
		{"headers", "{\"content-encoding\":\"\xff\"}", http.StatusUnsupportedMediaType},
	} {
		var members map[string]json.RawMessage
		if err := json.Unmarshal(bodyEvent(t, `"[{\"records\":{\"a\":1}}]"`, nil), &members); err != nil {
			t.Fatal(err)
		}
		members[c.member] = json.RawMessage(`"HERE"`)
		payload, err := json.Marshal(members)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := function.Invoke(t.Context(), bytes.Replace(payload, []byte(`"HERE"`), []byte(c.invalid), 1))
		if err != nil {
			t.Fatal(err)
		}
		if response := wantAnswer(t, answer); response.StatusCode != c.status {
			t.Errorf("%s %s: %d %s; want %d", c.member, c.invalid, response.StatusCode, response.Body, c.status)
		}
	}
}

// For all bodies, whatever their bytes, a function responds as the local server does.
func TestBody_IsReadAsOnTheServer(t *testing.T) {
	t.Parallel()
	function := validator()
	piece := rapid.OneOf(
		rapid.SampledFrom([]string{`"`, `\`, `\u`, `\ud83d`, `\ude00`, "\xff", "\xed\xa0\x80", "\uFFFD", "😀", "a", "{", "}", "[", "]", ":", "1", `"records":{"a":1}`}),
		rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 3), func(b []byte) string { return string(b) }),
	)
	rapid.Check(t, func(rt *rapid.T) {
		key := strings.Join(rapid.SliceOfN(piece, 0, 4).Draw(rt, "key"), "")
		body := `[{"records":{"k` + key + `":1}}]`
		if rapid.Bool().Draw(rt, "raw") {
			body = key
		}
		inJSON := []byte{'"'}
		for i := range len(body) { // as it is, byte by byte
			switch c := body[i]; {
			case c == '"' || c == '\\':
				inJSON = append(inJSON, '\\', c)
			case c < ' ':
				inJSON = fmt.Appendf(inJSON, `\u%04x`, c)
			default:
				inJSON = append(inJSON, c)
			}
		}
		answer, err := function.Invoke(rt.Context(), bodyEvent(t, string(append(inJSON, '"')), nil))
		if err != nil {
			rt.Fatal(err)
		}
		var response struct{ StatusCode int }
		if err := json.Unmarshal(answer, &response); err != nil || response.StatusCode != onTheServer(t, body) {
			rt.Fatalf("%q: %s, and on the server %d", body, answer, onTheServer(t, body))
		}
	})
}

// What API Gateway read from the path must equal what the delivered path holds.
func TestPath_DiffersFromPathParameters(t *testing.T) {
	t.Parallel()
	const valid = "/org/demo" + validation
	const route = "POST /org/{orgId}" + validation
	for _, c := range []struct {
		what       string
		path       string
		routeKey   string
		parameters any
		status     int
	}{
		{"the same", valid, route, map[string]any{"orgId": "demo"}, 200},
		{"a route without parameters", valid, "$default", nil, 200},
		{"no parameters of a route with some", valid, route, nil, 400},
		{"none of them", valid, route, map[string]any{}, 400},
		{"null", valid, route, json.RawMessage("null"), 400},
		{"another", valid, route, map[string]any{"orgId": "other"}, 400},
		{"decoded once more in the path", valid, route, map[string]any{"orgId": "d%65mo"}, 400},
		{"cut in the path", valid, route, map[string]any{"orgId": "demo?x"}, 400},
		{"with another name", valid, route, map[string]any{"org": "demo"}, 400},
		{"one more", valid, route, map[string]any{"orgId": "demo", "usageRecordGroupId": "g1"}, 400},
		{"parameters of $default", valid, "$default", map[string]any{"orgId": "other"}, 400},
		{"a catch-all's", valid, "POST /{proxy+}", map[string]any{"proxy": "org/demo" + validation}, 400},
		{"both with a percent sign", "/org/d%65mo" + validation, route, map[string]any{"orgId": "d%65mo"}, 403},
		{"both with a question mark", "/org/demo?" + validation, route, map[string]any{"orgId": "demo?"}, 403},
	} {
		payload := bodyEvent(t, `"[{\"records\":{\"a\":1}}]"`, func(e map[string]any) {
			e["rawPath"], e["routeKey"] = c.path, c.routeKey
			delete(e, "pathParameters")
			if c.parameters != nil {
				e["pathParameters"] = c.parameters
			}
		})
		answer, err := validator().Invoke(t.Context(), payload)
		if err != nil {
			t.Fatal(err)
		}
		if response := wantAnswer(t, answer); response.StatusCode != c.status {
			t.Errorf("%s: %d %s; want %d", c.what, response.StatusCode, response.Body, c.status)
		}
	}
}

// An identity whose organization an earlier version allowed finds no organization. It does not
// count as no identity.
func TestIdentity_OrganizationWithPercentIsNotFound(t *testing.T) {
	t.Parallel()
	payload := bodyEvent(t, `"[]"`, func(e map[string]any) {
		e["rawPath"], e["pathParameters"] = "/org/a%b"+validation, map[string]any{"orgId": "a%b"}
		e["requestContext"].(map[string]any)["authorizer"].(map[string]any)["lambda"].(map[string]any)["organization"] = "a%b"
	})
	answer, err := validator().Invoke(t.Context(), payload)
	if err != nil {
		t.Fatal(err)
	}
	if response := wantAnswer(t, answer); response.StatusCode != http.StatusNotFound || !strings.Contains(response.Body, "a%b") {
		t.Errorf("%d %s", response.StatusCode, response.Body)
	}
}
