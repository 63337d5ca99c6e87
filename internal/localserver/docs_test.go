package localserver

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/marketmeter/marketmeter"
)

func TestDocs_PathsAndHeaders(t *testing.T) {
	t.Parallel()
	api := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	s, url := serverWith(t, serverLimits, api)
	s.gate.docs = newDocs()
	for _, test := range []struct {
		method, path string
		status       int
		contentType  string
		body         string // expected prefix
	}{
		{"GET", "/docs", 200, "text/html; charset=utf-8", "\n<!DOCTYPE html>"},
		{"HEAD", "/docs", 200, "text/html; charset=utf-8", ""},
		{"GET", "/openapi.yaml", 200, "application/yaml", string(marketmeter.OpenAPI)},
		{"HEAD", "/openapi.yaml", 200, "application/yaml", ""},
		{"GET", "/docs/swagger-ui.css", 200, "text/css; charset=utf-8", ".swagger-ui"},
		{"GET", "/docs/none", 404, "text/plain; charset=utf-8", ""},
		{"GET", "/docs/../docs.go", 404, "text/plain; charset=utf-8", ""},
		{"POST", "/docs", 405, "application/json; charset=utf-8", `"/docs takes GET"`},
		{"DELETE", "/openapi.yaml", 405, "application/json; charset=utf-8", `"/openapi.yaml takes GET"`},
		{"GET", "/docsx", http.StatusTeapot, "", ""},
		{"GET", "/openapi.yaml/", http.StatusTeapot, "", ""},
	} {
		request, err := http.NewRequestWithContext(t.Context(), test.method, url+test.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		got := string(text)
		if response.StatusCode != test.status || response.Header.Get("Content-Type") != test.contentType || !strings.HasPrefix(got, test.body) {
			t.Errorf("%s %s: %d %s %.100q; want %d %s %.100q", test.method, test.path,
				response.StatusCode, response.Header.Get("Content-Type"), got, test.status, test.contentType, test.body)
		}
		policy := response.Header.Get("Content-Security-Policy")
		if test.status == 200 && (!strings.HasPrefix(policy, "default-src 'none'; script-src 'self' 'sha256-") || strings.Contains(policy, "http")) {
			t.Errorf("%s %s: the policy is %q", test.method, test.path, policy)
		}
		if test.status == 200 && response.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s %s: types may be guessed", test.method, test.path)
		}
	}
}
