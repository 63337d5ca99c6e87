package localserver

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/metering"
)

// admission bounds how many requests the API works on at once, each of which may hold megabytes, and how many
// wait for that. Who is let in waits little and is answered; the rest are told at once to come again. A
// server that takes all there is answers nobody in time under a load that does not end.
//
// Nobody has a place while the server waits for the client, so that one who sends or reads slowly, with a key or
// without, keeps nobody else from being served.
type admission struct {
	api      http.Handler
	log      *slog.Logger
	work     *semaphore.Weighted // a place for each request that is worked on
	queue    *semaphore.Weighted // and for each that waits for one
	transit  *semaphore.Weighted // and for each body or large answer, kept here, that its client is slow with
	patience time.Duration       // that one waits for a place at most
	shed     atomic.Int64        // requests since the last that the log tells
}

// admit is several times what DynamoDB Local does at once, and queues about a second of it. What is in transit
// may have 4 MB of a body, or 6 MB of a page.
func admit(api http.Handler, log *slog.Logger) *admission {
	return &admission{
		api: api, log: log, patience: mostPatience,
		work: semaphore.NewWeighted(mostWork), queue: semaphore.NewWeighted(mostQueue), transit: semaphore.NewWeighted(mostTransit),
	}
}

const (
	mostWork     = 16
	mostQueue    = 64
	mostTransit  = 32
	mostPatience = 2 * time.Second
)

func (a *admission) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	t := &turn{ResponseWriter: w, admission: a}
	if !t.begin(r.Context()) {
		if r.Context().Err() == nil {
			a.tell()
		}
		httpapi.Refuse(w, r, func() { unavailable(w, busy.Message) })
		return
	}
	defer t.end()
	r = r.WithContext(r.Context()) // a copy: the request is the caller's
	r.Body = &turnBody{r.Body, t, r.Context()}
	a.api.ServeHTTP(t, r)
}

// busy is what is answered to who is not let in.
var busy = &metering.Error{
	Code: metering.Unavailable, RetryAfter: time.Second,
	Message: fmt.Sprintf("the server has more requests than it accepts: it works on at most %d at once, %d wait for at most %v, and of %d it keeps the bodies: try again",
		mostWork, mostQueue, mostPatience, mostTransit),
}

// tell logs that a request was shed, with all others of that second: under a load that does not end they are
// too many for a line each.
func (a *admission) tell() {
	if a.shed.Add(1) == 1 {
		time.AfterFunc(time.Second, func() {
			a.log.Warn("requests were answered 503: there are more than can be worked on", "requests", a.shed.Swap(0))
		})
	}
}

// turn is a request that was let in, and what it has of the admission's places.
type turn struct {
	http.ResponseWriter
	*admission
	works, passes bool // it has a place of work, of transit
	answered      bool
}

// begin reports whether there is a place of work in time, and before that one to wait for it.
func (t *turn) begin(ctx context.Context) bool {
	if t.works = t.work.TryAcquire(1); t.works {
		return true
	}
	if !t.queue.TryAcquire(1) {
		return false
	}
	defer t.queue.Release(1)
	return t.wait(ctx)
}

// wait takes a place of work after those that have waited longer, if there is one in time.
func (t *turn) wait(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, t.patience)
	defer cancel()
	t.works = t.work.Acquire(ctx, 1) == nil
	return t.works
}

// pause leaves the place of work for as long as the client is waited for. What is large is kept meanwhile: where
// there is too much of that already, the request stays where it is.
func (t *turn) pause(large bool) {
	if large && t.works && !t.passes {
		if t.passes = t.transit.TryAcquire(1); !t.passes {
			return
		}
	}
	if t.works {
		t.works = false
		t.work.Release(1)
	}
}

func (t *turn) end() {
	t.pause(false)
	t.arrive()
}

// arrive leaves the place of transit.
func (t *turn) arrive() {
	if t.passes {
		t.passes = false
		t.transit.Release(1)
	}
}

// Unwrap is for http.ResponseController.
func (t *turn) Unwrap() http.ResponseWriter { return t.ResponseWriter }

// largeAnswer is one that takes more memory than the connection itself.
const largeAnswer = 64 << 10

// Write writes an answer, which the API does in one piece: the work is done.
func (t *turn) Write(answer []byte) (int, error) {
	t.answered = true
	if len(answer) > largeAnswer {
		t.pause(true)
	} else {
		t.end()
	}
	return t.ResponseWriter.Write(answer)
}

// turnBody is a body that no place of work is held for until it is there.
type turnBody struct {
	io.ReadCloser
	turn *turn
	ctx  context.Context // of the request
}

// Read fails with busy where the body is there and no place is in time. It takes none to wait in: with one to win among
// all who come, once more, a request that has a body would be served far less often than others.
func (b *turnBody) Read(p []byte) (int, error) {
	t := b.turn
	if t.answered { // and what still comes is thrown away
		return b.ReadCloser.Read(p)
	}
	t.pause(true)
	n, err := b.ReadCloser.Read(p)
	if err != io.EOF || t.works {
		return n, err
	}
	if !t.wait(b.ctx) {
		return n, busy
	}
	t.arrive()
	return n, err
}
