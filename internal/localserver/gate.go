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

// How long a request may take, as long as API Gateway would wait; and a look at the health.
const (
	requestTimeout = 29 * time.Second
	healthTimeout  = 2 * time.Second
)

// forServer are the deadlines of a call to DynamoDB for a request: it has the time of the request
// that waits, for as many attempts as a command's; the http.Server has longer.
var forServer = stack.Deadlines{Attempt: 9 * time.Second, Call: requestTimeout}

// gate stands before the API. Until it is opened every path answers 503; after that /healthz
// answers from a check, docs what it has, and the rest is the API's. No key is asked for here, so
// no response says more than whether the server can serve: steps and errors name files, addresses
// and the table.
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
	// Whoever asks while a check goes on is answered from that: many are no load.
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

// writeHealth says that all is well, and which build it is.
func writeHealth(w http.ResponseWriter) {
	b := build.Current()
	body, _ := json.Marshal(map[string]string{"status": "ok", "version": b.Version, "commit": b.Commit}) // strings always have JSON
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(body)
}

func unavailable(w http.ResponseWriter, reason string) {
	w.Header().Set("Retry-After", "1")
	writeText(w, http.StatusServiceUnavailable, reason)
}

// writeText answers a JSON string, which is what every answer without an object is here.
func writeText(w http.ResponseWriter, status int, text string) {
	body, _ := json.Marshal(text) // a string always has JSON
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
