package connect

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/marketmeter/marketmeter/internal/reporting"
	rt "github.com/marketmeter/marketmeter/internal/reporting/reportingtest"
	"github.com/marketmeter/marketmeter/sandbox"
)

// echo is a transport whose server repeats a request to the path in its response. It keeps the
// secrets of all requests and responses.
type echo struct {
	path   string
	status int
	form   func(said string) string

	mu      sync.Mutex
	secrets map[string]bool
	echoed  int
}

func (e *echo) RoundTrip(r *http.Request) (*http.Response, error) {
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	form, _ := url.ParseQuery(string(body))
	e.keep(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
	e.keep(r.Header.Get("X-Amz-Security-Token"))
	for _, name := range []string{"client_secret", "assertion", "subject_token"} {
		e.keep(form.Get(name))
	}
	if strings.Contains(r.URL.Path, e.path) {
		var said strings.Builder
		for name, values := range r.Header {
			fmt.Fprintf(&said, "%s: %s\n", name, values)
		}
		fmt.Fprintf(&said, "%s\n%s", r.Header.Get("Authorization"), body)
		for _, values := range form {
			said.WriteString("\n" + values[0])
		}
		e.mu.Lock()
		e.echoed++
		e.mu.Unlock()
		w := httptest.NewRecorder()
		w.WriteHeader(e.status)
		_, _ = w.WriteString(e.form(said.String()))
		response := w.Result()
		response.Request = r
		return response, nil
	}
	response, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(response.Body)
	response.Body = io.NopCloser(bytes.NewReader(text))
	var tokens struct {
		OAuth        string `json:"access_token"`
		Impersonated string `json:"accessToken"`
	}
	if json.Unmarshal(text, &tokens) == nil {
		e.keep(tokens.OAuth)
		e.keep(tokens.Impersonated)
	}
	return response, err
}

func (e *echo) keep(secret string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if secret != "" && !strings.HasPrefix(secret, "AWS4-") { // a signature is for one request
		e.secrets[secret] = true
	}
}

// found returns the secret that the text has, in any form, or an empty string.
func (e *echo) found(text string) string {
	for secret := range e.secrets {
		quoted, _ := json.Marshal(secret)
		for _, form := range []string{
			secret, url.QueryEscape(secret), url.PathEscape(secret), string(quoted[1 : len(quoted)-1]), strings.ReplaceAll(secret, "\n", `\n`),
			base64.StdEncoding.EncodeToString([]byte(secret)), base64.RawURLEncoding.EncodeToString([]byte(secret)),
		} {
			if strings.Contains(text, form) {
				return form
			}
		}
	}
	return ""
}

// Whatever a marketplace, a token endpoint or STS responds, even if it repeats all it was sent,
// neither Verify nor Marketplace nor Send returns a secret or a token.
func TestConnector_ReturnsNoSecret(t *testing.T) {
	quote := func(said string) string {
		quoted, _ := json.Marshal(said)
		return string(quoted)
	}
	escaped := func(said string) string {
		var b bytes.Buffer
		_ = xml.EscapeText(&b, []byte(said))
		return b.String()
	}
	forms := map[string]func(string) string{
		"raw": func(said string) string { return said },
		"AWS": func(said string) string {
			return fmt.Sprintf(`{"__type":"UnrecognizedClientException","message":%s}`, quote(said))
		},
		"XML": func(said string) string {
			return "<ErrorResponse><Error><Code>SignatureDoesNotMatch</Code><Message>" + escaped(said) + "</Message></Error></ErrorResponse>"
		},
		"OAuth": func(said string) string {
			return fmt.Sprintf(`{"error":"invalid_client","error_description":%s}`, quote(said))
		},
		"OAuth code": func(said string) string { return fmt.Sprintf(`{"error":%s}`, quote(said)) },
		"Azure": func(said string) string {
			return fmt.Sprintf(`{"code":"Forbidden","message":%s,"target":%s}`, quote(said), quote(said))
		},
		"Google": func(said string) string {
			return fmt.Sprintf(`{"error":{"code":403,"status":"PERMISSION_DENIED","message":%s}}`, quote(said))
		},
		// The session token that is a part of a signed request, within another.
		"OAuth, of the subject": func(said string) string {
			said, _ = url.QueryUnescape(said)
			_, said, _ = strings.Cut(strings.ToLower(said), `"x-amz-security-token"`)
			said, _, _ = strings.Cut(said, "}")
			return fmt.Sprintf(`{"error":"invalid_grant","error_description":%s}`, quote("token "+said))
		},
		"escaped": func(said string) string {
			return fmt.Sprintf(`{"error":"x","error_description":%s}`, quote(url.QueryEscape(said)))
		},
	}
	for name, paths := range map[string][]string{
		"AWS": {"/aws"}, "AWS with a role": {"/sts", "/aws"}, "Azure": {"/token", "/api/"},
		"Google": {"/token", ":check", ":report"}, "Google by federation": {"/v1/token", ":generateAccessToken", ":check", ":report"},
	} {
		for _, path := range paths {
			b := rt.Start(t, sandbox.Options{})
			sts := securityTokens(t, "") + "/sts"
			for form, of := range forms {
				for _, status := range []int{200, 400, 401, 403, 429, 500} {
					e := &echo{path: path, status: status, form: of, secrets: map[string]bool{
						"planted-own-secret": true, "planted-own-session": true, "planted-role-secret": true, "planted-role-session": true, rt.ClientSecret: true,
						strings.Split(rt.Key(rt.Robot), `\n`)[1]: true,
					}}
					o := beside(b)
					o.Transport, o.STSEndpoint = e, sts
					c := New(o)
					connection := connections(b)[name]

					var said []string
					if err := c.Verify(t.Context(), org, connection.Connection); err != nil {
						said = append(said, fmt.Sprintf("%v %+v %#v", err, err, err))
					}
					m, err := c.Marketplace(org, connection.Connection)
					if err != nil {
						t.Fatal(err)
					}
					for range 2 { // the second with the cached token
						said = append(said, rt.Everything(m.Send(t.Context(), []reporting.Record{connection.record})))
					}
					if e.echoed == 0 {
						t.Errorf("%s: nothing was sent to %s", name, path)
					}
					if found := e.found(strings.Join(said, "\n")); found != "" {
						t.Errorf("%s, %s at %s, form %s: %q is in\n%s", name, http.StatusText(status), path, form, found, strings.Join(said, "\n"))
					}
				}
			}
		}
	}
}
