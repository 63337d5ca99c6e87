package localserver

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"

	"github.com/swaggest/swgui"
	"github.com/swaggest/swgui/v5emb"

	"github.com/marketmeter/marketmeter"
)

const (
	docsPath    = "/docs"
	openAPIPath = "/openapi.yaml"
)

// docs serves the page at /docs, which shows the API and can send requests, and the description
// that the page shows. The page loads everything from this server; its policy allows no other.
type docs struct {
	page   []byte
	policy string       // of the page's Content-Security-Policy
	assets http.Handler // paths below /docs/
}

func newDocs() *docs {
	ui := v5emb.NewHandlerWithConfig(swgui.Config{
		Title: "marketmeter", SwaggerJSON: openAPIPath, BasePath: docsPath, AppendHead: docsStyle,
		SettingsUI: map[string]string{
			"docExpansion":           `"list"`,
			"displayRequestDuration": "true",
			"tryItOutEnabled":        "true",
		},
	})
	answer := httptest.NewRecorder() // the page never changes: its scripts can be named by their hashes
	ui.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, docsPath, nil))
	page := answer.Body.Bytes()
	return &docs{page, docsPolicy(page), ui}
}

// docsStyle hides an element that has no use here.
const docsStyle = `<style>.swagger-ui .info hgroup.main a { display: none }</style>`

var inlineScript = regexp.MustCompile(`(?s)<script>(.*?)</script>`)

// docsPolicy allows the page itself, its own scripts, and requests to this server only. Swagger UI
// sets styles of elements, and has icons in its style sheet.
func docsPolicy(page []byte) string {
	scripts := "'self'"
	for _, script := range inlineScript.FindAllSubmatch(page, -1) {
		hash := sha256.Sum256(script[1])
		scripts += " 'sha256-" + base64.StdEncoding.EncodeToString(hash[:]) + "'"
	}
	return "default-src 'none'; script-src " + scripts + "; style-src 'self' 'unsafe-inline'; img-src 'self' data:; " +
		"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}

// has reports whether docs serves the path.
func (d *docs) has(path string) bool {
	return path == openAPIPath || path == docsPath || strings.HasPrefix(path, docsPath+"/")
}

func (d *docs) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET")
		writeText(w, http.StatusMethodNotAllowed, r.URL.Path+" takes GET")
		return
	}
	header := w.Header()
	header.Set("Content-Security-Policy", d.policy)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cache-Control", "no-cache") // the next server at this address may be another version
	switch r.URL.Path {
	case openAPIPath:
		header.Set("Content-Type", "application/yaml")
		write(w, marketmeter.OpenAPI)
	case docsPath:
		header.Set("Content-Type", "text/html; charset=utf-8")
		write(w, d.page)
	default:
		d.assets.ServeHTTP(w, r)
	}
}

func write(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body)
}
