package localserver

import (
	"context"
	"encoding/json"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/marketmeter/marketmeter/internal/build"
	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/stack"
)

// The max time of a request, as long as API Gateway would wait, and of a health check.
const (
	requestTimeout = 29 * time.Second
	healthTimeout  = 2 * time.Second
)

// forServer are the deadlines of a call to DynamoDB for a request. The call has the time of the
// request, for as many attempts as a command's; the http.Server allows longer.
var forServer = stack.Deadlines{Attempt: 9 * time.Second, Call: requestTimeout}

// deadlines returns forServer or, if DYNAMODB_TIMEOUT is shorter, the deadlines of a command.
func deadlines(getenv func(string) string) (stack.Deadlines, error) {
	d, err := stack.DeadlinesFor(getenv)
	if err == nil && d.Call > forServer.Call {
		return forServer, nil
	}
	return d, err
}

// gate is in front of the API. Until it is opened every path returns 503. Then /healthz returns the
// result of a check, docs serves its paths, and the API serves the rest. The gate asks for no key,
// so no response says more than whether the server can serve: steps and errors name files,
// addresses and the table.
type gate struct {
	docs   *docs
	open   atomic.Pointer[opened]
	health singleflight.Group
}

type opened struct {
	api   http.Handler
	check func(context.Context) error // logs the error that it returns
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	open := g.open.Load()
	if open == nil {
		httpapi.Refuse(w, r, func() { unavailable(w, "marketmeter is starting: its output has the step that it is at; try again") })
		return
	}
	if g.docs != nil && g.docs.has(r.URL.Path) {
		g.docs.ServeHTTP(w, r)
		return
	}
	if r.URL.Path != "/healthz" {
		ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
		defer cancel()
		open.api.ServeHTTP(w, r.WithContext(ctx))
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET")
		writeText(w, http.StatusMethodNotAllowed, "/healthz takes GET")
		return
	}
	// Concurrent health checks share one result, so that many cause no load.
	_, err, _ := g.health.Do("", func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), healthTimeout)
		defer cancel()
		return nil, open.check(ctx)
	})
	if err != nil {
		unavailable(w, "marketmeter can't serve: the log has the reason")
		return
	}
	writeHealth(w)
}

// writeHealth writes that the server is healthy, and its build.
func writeHealth(w http.ResponseWriter) {
	b := build.Current()
	body, _ := json.Marshal(map[string]string{"status": "ok", "version": b.Version, "commit": b.Commit}) // strings can always be encoded
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(body)
}

func unavailable(w http.ResponseWriter, reason string) {
	w.Header().Set("Retry-After", "1")
	writeText(w, http.StatusServiceUnavailable, reason)
}

// writeText writes a JSON string, the body of every response here that is not an object.
func writeText(w http.ResponseWriter, status int, text string) {
	body, _ := json.Marshal(text) // a string can always be encoded
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
