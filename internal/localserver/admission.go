package localserver

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/marketmeter/marketmeter/internal/httpapi"
)

// admission bounds how many requests the API works on at once, each of which may hold megabytes,
// and how many wait. A request that is not admitted gets 503, at once or after it has waited for
// patience. A server that admits all requests responds to none in time under a load that does not
// end.
//
// A request occupies its slot until its response is written, also while its client sends the body
// or reads the response. The limits of the http.Server end slow clients.
type admission struct {
	api      http.Handler
	log      *slog.Logger
	work     *semaphore.Weighted // a slot for each request that is worked on
	queue    *semaphore.Weighted // a slot for each request that waits
	patience time.Duration       // max wait of a request
	shed     atomic.Int64        // requests shed since the last log line
}

const (
	maxWork     = 16 // several times what DynamoDB Local does at once
	maxQueue    = 64 // about a second of work
	maxPatience = 2 * time.Second
)

func admit(api http.Handler, log *slog.Logger) *admission {
	return &admission{
		api: api, log: log, patience: maxPatience, work: semaphore.NewWeighted(maxWork), queue: semaphore.NewWeighted(maxQueue),
	}
}

func (a *admission) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !a.enter(r.Context()) {
		if r.Context().Err() == nil {
			a.logShed()
		}
		httpapi.Refuse(w, r, func() { unavailable(w, busy) })
		return
	}
	defer a.work.Release(1)
	a.api.ServeHTTP(w, r)
}

// busy is the response to a request that is not admitted.
var busy = fmt.Sprintf("the server has more requests than it accepts: it works on at most %d at once, and %d wait for at most %v: try again",
	maxWork, maxQueue, maxPatience)

// enter acquires a slot of work, after the requests that have waited longer. It reports whether it
// got one in time.
func (a *admission) enter(ctx context.Context) bool {
	if a.work.TryAcquire(1) {
		return true
	}
	if !a.queue.TryAcquire(1) {
		return false
	}
	defer a.queue.Release(1)
	ctx, cancel := context.WithTimeout(ctx, a.patience)
	defer cancel()
	return a.work.Acquire(ctx, 1) == nil
}

// logShed counts a shed request and logs the number of each second in one line. Under a load that
// does not end, a line per request would be too many.
func (a *admission) logShed() {
	if a.shed.Add(1) == 1 {
		time.AfterFunc(time.Second, func() {
			a.log.Warn("rejected requests with 503: more arrived than can be processed", "requests", a.shed.Swap(0))
		})
	}
}
