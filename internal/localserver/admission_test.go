package localserver

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/table"
)

// The places of `marketmeter serve`.
const places, waiting, inTransit = 16, 64, 32

// work is an API that works on each request until it is released, and how many it works on.
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

// ask asks that many times at once, and returns the answers as they come.
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

func TestRequestsWaitForAPlaceOrAreShed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log output
		k := &work{release: make(chan struct{})}
		a := admit(k, slog.New(slog.NewJSONHandler(&log, nil)))
		answers := ask(a, places+waiting+7)
		synctest.Wait()
		if k.now.Load() != places || len(answers) != 7 {
			t.Fatalf("%d are worked on and %d answered; want %d, and 7 that find no place to wait in", k.now.Load(), len(answers), places)
		}
		for range 7 {
			wantShed(t, <-answers)
		}
		for range 5 {
			k.release <- struct{}{}
		}
		synctest.Wait()
		if k.now.Load() != places || len(answers) != 5 {
			t.Fatalf("%d are worked on and %d answered; want those that waited in the place of the 5 that are done", k.now.Load(), len(answers))
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
			t.Errorf("the log tells\n%s; want one line for those shed at once, and one for those that waited", got)
		}
	})
}

// A look at the health asks the table, and needs no key: many at once are one question.
func TestManyLooksAtTheHealthAreOne(t *testing.T) {
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

// slowWriter is a client that takes its answer when it is told to.
type slowWriter struct {
	*httptest.ResponseRecorder
	take chan struct{}
}

func (w *slowWriter) Write(b []byte) (int, error) {
	<-w.take
	return w.ResponseRecorder.Write(b)
}

// Clients that are slow, each in its way, and more than there are places: the next is worked on. Of bodies that are
// on their way, and pages, there are as many as the memory is meant for.
func TestASlowClientHasNoPlace(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		clients int // all that leave a place
		answer  int // bytes
		body    bool
		taken   bool // the answer, at once
	}{
		{name: "sends a body", clients: inTransit + places - 1, body: true, taken: true},
		{name: "takes a page", clients: inTransit + places - 1, answer: largeAnswer + 1},
		{name: "takes a small answer", clients: 500, answer: largeAnswer},
		{name: "sends a body, and takes a page", clients: inTransit + places - 1, answer: largeAnswer + 1, body: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var worked, most atomic.Int64
				a := admit(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if _, err := io.ReadAll(r.Body); err != nil {
						t.Error(err)
					}
					now := worked.Add(1)
					for m := most.Load(); now > m && !most.CompareAndSwap(m, now); m = most.Load() {
					}
					time.Sleep(time.Millisecond)
					worked.Add(-1)
					_, _ = w.Write(make([]byte, test.answer))
				}), slog.New(slog.DiscardHandler))
				var all sync.WaitGroup
				sending, take := []*io.PipeWriter{}, make(chan struct{})
				if test.taken {
					close(take)
				}
				serve := func() {
					r := httptest.NewRequest("POST", "/x", nil)
					if test.body {
						body, to := io.Pipe()
						r.Body, sending = body, append(sending, to)
					}
					all.Go(func() { a.ServeHTTP(&slowWriter{httptest.NewRecorder(), take}, r) })
					time.Sleep(10 * time.Millisecond)
				}
				for range test.clients {
					serve()
				}
				next := ask(a, 1)
				time.Sleep(time.Second)
				if len(next) != 1 || (<-next).Code != http.StatusOK {
					t.Errorf("beside %d such clients the next is not served", test.clients)
				}
				if test.clients < 100 {
					serve()
					next = ask(a, 1)
					wantShed(t, <-next)
				}
				for _, body := range sending {
					_ = body.Close()
				}
				if !test.taken {
					time.Sleep(time.Second)
					close(take)
				}
				all.Wait()
				if most.Load() > places {
					t.Errorf("%d were worked on at once; want %d at most", most.Load(), places)
				}
				if !a.work.TryAcquire(places) || !a.queue.TryAcquire(waiting) || !a.transit.TryAcquire(inTransit) {
					t.Error("not all places are free in the end")
				}
			})
		})
	}
}

// A body that is there, and no place any more to work on it: 503 as for all others, and nothing was done.
func TestABodyMayComeTooLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log output
		logger := slog.New(slog.NewJSONHandler(&log, nil))
		k := &work{release: make(chan struct{})}
		validate := (&httpapi.API{
			Log: logger, Now: time.Now, CountUnits: table.CountUnits,
			Authenticate: func(*http.Request) (auth.Principal, error) {
				return auth.Principal{Organization: "o1", Scopes: auth.Write}, nil
			},
		}).Handler()
		a := admit(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == "GET" {
				k.ServeHTTP(w, r)
				return
			}
			validate.ServeHTTP(w, r)
		}), logger)
		body, send := io.Pipe()
		w := httptest.NewRecorder()
		answered := make(chan struct{})
		go func() {
			a.ServeHTTP(w, httptest.NewRequest("POST", "/org/o1/batchValidateUsageRecordGroups", body))
			close(answered)
		}()
		if _, err := io.WriteString(send, `[{"records":{"cpu":1}}]`); err != nil {
			t.Fatal(err)
		}
		others := ask(a, places)
		synctest.Wait()
		_ = send.Close()
		<-answered
		wantShed(t, w)
		time.Sleep(time.Minute)
		if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, `"status":503`) {
			t.Errorf("the log tells\n%s", &log)
		}
		close(k.release)
		for range places {
			<-others
		}
	})
}

// Under four times what can be done those that have a body, and so need a place twice, are served as others are.
func TestABodyIsNoDisadvantage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := admit(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(10 * time.Millisecond) // for the key
			if _, err := io.ReadAll(r.Body); err != nil {
				unavailable(w, err.Error())
				return
			}
			time.Sleep(40 * time.Millisecond)
			writeText(w, http.StatusOK, "done")
		}), slog.New(slog.DiscardHandler))
		var all sync.WaitGroup
		var served [2]atomic.Int64 // without a body and with one
		const able = places * 20   // a second
		for n := range 4 * able * 10 {
			r := httptest.NewRequest("PUT", "/x", nil)
			if n%2 > 0 {
				r = httptest.NewRequest("PUT", "/x", strings.NewReader("{}"))
			}
			all.Go(func() {
				w := httptest.NewRecorder()
				a.ServeHTTP(w, r)
				if w.Code == http.StatusOK {
					served[n%2].Add(1)
				}
			})
			time.Sleep(time.Second / (4 * able))
		}
		all.Wait()
		without, with := served[0].Load(), served[1].Load()
		t.Logf("%d without a body and %d with one", without, with)
		if with < without/2 || without < with/2 || without+with < 9*able {
			t.Errorf("%d are served without a body and %d with one; want about as many, and %d in all", without, with, 10*able)
		}
	})
}
