package localserver

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/marketmeter/marketmeter/internal/programtest"
)

// The slots of `marketmeter serve`.
const places, waiting = 16, 64

// work is an API whose requests last until they are released. It counts those under way.
type work struct {
	release chan struct{}
	now     atomic.Int64
}

func (k *work) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	k.now.Add(1)
	defer k.now.Add(-1)
	<-k.release
	writeText(w, http.StatusOK, "done")
}

// ask sends times requests at once, and returns the responses as they arrive.
func ask(server http.Handler, times int) (answers chan *httptest.ResponseRecorder) {
	answers = make(chan *httptest.ResponseRecorder, times)
	for range times {
		go func() {
			w := httptest.NewRecorder()
			server.ServeHTTP(w, httptest.NewRequest("GET", "/x", nil))
			answers <- w
		}()
	}
	return answers
}

func wantShed(t *testing.T, w *httptest.ResponseRecorder) {
	t.Helper()
	var why string
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != "1" || json.Unmarshal(w.Body.Bytes(), &why) != nil || !strings.Contains(why, "more requests") {
		t.Errorf("%d %s, headers %v; want 503, Retry-After and why", w.Code, w.Body, w.Header())
	}
}

func TestAdmission_RequestsWaitForASlotOrAreShed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log programtest.Output
		k := &work{release: make(chan struct{})}
		a := admit(k, slog.New(slog.NewJSONHandler(&log, nil)))
		answers := ask(a, places+waiting+7)
		synctest.Wait()
		if k.now.Load() != places || len(answers) != 7 {
			t.Fatalf("%d are processed and %d done; want %d, and 7 that find no slot", k.now.Load(), len(answers), places)
		}
		for range 7 {
			wantShed(t, <-answers)
		}
		for range 5 {
			k.release <- struct{}{}
		}
		synctest.Wait()
		if k.now.Load() != places || len(answers) != 5 {
			t.Fatalf("%d are processed and %d done; want those that waited in the slots of the 5 that are done", k.now.Load(), len(answers))
		}
		for range 5 {
			if w := <-answers; w.Code != http.StatusOK {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		}
		time.Sleep(a.patience)
		synctest.Wait()
		if len(answers) != waiting-5 {
			t.Errorf("%d are shed after %v; want the %d that waited", len(answers), a.patience, waiting-5)
		}
		for range len(answers) {
			wantShed(t, <-answers)
		}
		close(k.release)
		for range places {
			if w := <-answers; w.Code != http.StatusOK {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		}
		answers = ask(a, places+waiting)
		for range places + waiting {
			if w := <-answers; w.Code != http.StatusOK {
				t.Errorf("after it: %d %s", w.Code, w.Body)
			}
		}
		time.Sleep(time.Minute)
		if got := log.String(); strings.Count(got, "\n") != 2 || !strings.Contains(got, `"requests":7}`) || !strings.Contains(got, fmt.Sprintf(`"requests":%d}`, waiting-5)) {
			t.Errorf("the log has\n%s; want one line for those shed at once, and one for those that waited", got)
		}
	})
}

// A health check reads the table and needs no key: concurrent checks share one read.
func TestGate_ConcurrentHealthChecksAreOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var checks atomic.Int64
		var g gate
		g.open.Store(&opened{nil, func(ctx context.Context) error {
			checks.Add(1)
			<-ctx.Done()
			return ctx.Err()
		}})
		var all sync.WaitGroup
		for range 1000 {
			all.Go(func() {
				w := httptest.NewRecorder()
				g.ServeHTTP(w, httptest.NewRequest("GET", "/healthz", nil))
				if w.Code != http.StatusServiceUnavailable {
					t.Errorf("%d %s", w.Code, w.Body)
				}
			})
		}
		all.Wait()
		if checks.Load() != 1 {
			t.Errorf("%d checks", checks.Load())
		}
	})
}

// A client that goes away while it waits frees its slot in the queue and leaves no log line.
func TestAdmission_GoneClientLeavesTheQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log programtest.Output
		k := &work{release: make(chan struct{})}
		a := admit(k, slog.New(slog.NewJSONHandler(&log, nil)))
		working := ask(a, places)
		synctest.Wait()
		ctx, leave := context.WithCancel(t.Context())
		var gone sync.WaitGroup
		for range waiting {
			gone.Go(func() {
				a.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, "GET", "/x", nil))
			})
		}
		synctest.Wait()
		leave()
		gone.Wait()
		next := ask(a, waiting)
		synctest.Wait()
		if len(next) > 0 {
			t.Errorf("%d are shed where %d places to wait are free", len(next), waiting)
		}
		close(k.release)
		for range places {
			<-working
		}
		for range waiting {
			if w := <-next; w.Code != http.StatusOK {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		}
		time.Sleep(time.Minute)
		if log.String() != "" {
			t.Errorf("the log has\n%s", &log)
		}
		if !a.work.TryAcquire(places) || !a.queue.TryAcquire(waiting) {
			t.Error("not all places are free in the end")
		}
	})
}
