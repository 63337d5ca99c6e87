package localserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/marketmeter/marketmeter/internal/build"
)

// notHealthy is all that a client without a key reads about a failure.
const notHealthy = `"marketmeter can't serve: the log has the reason"`

func TestGate_Responds503UntilItIsOpen(t *testing.T) {
	t.Parallel()
	var g gate
	for _, path := range []string{"/healthz", "/org/o1/usageRecordGroup", "/"} {
		w := httptest.NewRecorder()
		g.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if want := `"marketmeter is starting: its output has the step that it is at; try again"`; w.Code != 503 || w.Body.String() != want || w.Header().Get("Retry-After") == "" {
			t.Errorf("%s before: %d %s, Retry-After %q; want 503 %s", path, w.Code, w.Body, w.Header().Get("Retry-After"), want)
		}
	}

	healthy := errors.New("the table is gone")
	api := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, limited := r.Context().Deadline(); limited {
			fmt.Fprint(w, "the API")
		}
	})
	g.open.Store(&opened{api, func(context.Context) error { return healthy }})
	for _, test := range []struct {
		path   string
		health error
		status int
		body   string
	}{
		{"/healthz", healthy, 503, notHealthy},
		{"/org/o1/usageRecordGroup", healthy, 200, "the API"},
		{"/healthz", nil, 200, fmt.Sprintf(`{"commit":%q,"status":"ok","version":%q}`, build.Current().Commit, build.Current().Version)},
	} {
		healthy = test.health
		w := httptest.NewRecorder()
		g.ServeHTTP(w, httptest.NewRequest("GET", test.path, nil))
		if w.Code != test.status || w.Body.String() != test.body {
			t.Errorf("%s with health %v: %d %s; want %d %s", test.path, test.health, w.Code, w.Body, test.status, test.body)
		}
	}
	w := httptest.NewRecorder()
	g.ServeHTTP(w, httptest.NewRequest("POST", "/healthz", nil))
	if w.Code != 405 || w.Header().Get("Allow") == "" {
		t.Errorf("POST: %d %s", w.Code, w.Body)
	}
}
