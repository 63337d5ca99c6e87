package inprocess

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/reporting"
)

func planHint(entitlement string) reporting.Hint {
	return reporting.Hint{Place: reports.Place{Organization: "o1", Entitlement: metering.EntitlementID(entitlement), Hour: time.Date(2026, 11, 18, 11, 0, 0, 0, time.UTC)}}
}

func enqueue(t *testing.T, q *Queue, hints ...reporting.Hint) {
	t.Helper()
	if err := q.Enqueue(t.Context(), hints...); err != nil {
		t.Fatal(err)
	}
}

// next takes the next hint, of those that wait.
func next(t *testing.T, q *Queue) reporting.Hint {
	t.Helper()
	h, ok := q.take(t.Context(), true)
	if !ok {
		t.Fatal("no hint waits")
	}
	return h
}

func TestQueue_HoldsEqualHintsOnce(t *testing.T) {
	t.Parallel()
	var q Queue
	lane := reporting.Hint{Lane: "l1"}
	elsewhere := planHint("e1")
	elsewhere.Place.Hour = elsewhere.Place.Hour.In(time.FixedZone("", 3600))
	enqueue(t, &q, planHint("e1"), planHint("e2"), lane, planHint("e1"), elsewhere, lane)
	for _, want := range []reporting.Hint{planHint("e1"), planHint("e2"), lane} {
		if got := next(t, &q); got != want {
			t.Errorf("%v; want %v", got, want)
		}
		q.done(want)
	}
	if h, ok := q.take(t.Context(), true); ok {
		t.Errorf("%v is left", h)
	}
}

// A hint that comes while a worker has the same one is not lost, and no second worker gets it.
func TestQueue_KeepsAHintUntilTheSameIsDone(t *testing.T) {
	t.Parallel()
	var q Queue
	enqueue(t, &q, planHint("e1"))
	h := next(t, &q)
	enqueue(t, &q, planHint("e1"), planHint("e1"), planHint("e2"))
	if second := next(t, &q); second != planHint("e2") {
		t.Errorf("%v, while a worker has it", second)
	}
	q.done(planHint("e2"))
	q.done(h)
	if again := next(t, &q); again != h {
		t.Errorf("%v; want the hint that came meanwhile", again)
	}
	q.done(h)
	if h, ok := q.take(t.Context(), true); ok {
		t.Errorf("%v is left", h)
	}
}

func TestQueue_IsBounded(t *testing.T) {
	t.Parallel()
	var q Queue
	for i := range maxWaiting + 10 {
		enqueue(t, &q, planHint(fmt.Sprint(i)))
	}
	if len(q.waiting) != maxWaiting || len(q.state) != maxWaiting {
		t.Errorf("%d hints, %d states; want %d", len(q.waiting), len(q.state), maxWaiting)
	}
	h := next(t, &q)
	q.done(h)
	enqueue(t, &q, planHint("late"))
	if len(q.waiting) != maxWaiting {
		t.Errorf("%d hints after one was taken and one was added", len(q.waiting))
	}
}

// Work that enqueues its own hint without end is stopped, and continues after the next schedule.
func TestQueue_SameHintIsBounded(t *testing.T) {
	t.Parallel()
	var q Queue
	lane := reporting.Hint{Lane: "l1"}
	for range 2 {
		q.scheduling()
		enqueue(t, &q, lane, planHint("e1"))
		taken := map[reporting.Hint]int{}
		for {
			h, ok := q.take(t.Context(), true)
			if !ok {
				break
			}
			taken[h]++
			if h == lane {
				enqueue(t, &q, h) // by its own work
			}
			q.done(h)
			if h == lane && taken[h]%2 == 0 {
				enqueue(t, &q, h) // by other work
			}
		}
		if taken[lane] != maxTimes || taken[planHint("e1")] != 1 {
			t.Errorf("taken: %v", taken)
		}
	}
}

// Idle is a queue without hints whose workers are done: each of these may add more.
func TestQueue_IsIdleOnceNoWorkerCanAddHints(t *testing.T) {
	t.Parallel()
	var q Queue
	enqueue(t, &q, planHint("0"))
	var all sync.WaitGroup
	var mu sync.Mutex
	seen := 0
	for range 4 {
		all.Go(func() {
			for {
				h, ok := q.take(t.Context(), true)
				if !ok {
					return
				}
				mu.Lock()
				seen++
				n := seen
				mu.Unlock()
				if n <= 100 {
					enqueue(t, &q, planHint(fmt.Sprint(2*n)), planHint(fmt.Sprint(2*n+1)))
				}
				q.done(h)
			}
		})
	}
	all.Wait()
	if seen != 201 {
		t.Errorf("%d hints were worked on; want 201", seen)
	}
}

func TestQueue_TakeEndsWithItsContext(t *testing.T) {
	t.Parallel()
	var q Queue
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan bool)
	go func() {
		_, ok := q.take(ctx, false)
		ended <- ok
	}()
	cancel()
	if <-ended {
		t.Error("a hint was taken from an empty queue")
	}
	enqueue(t, &q, planHint("e1"))
	if _, ok := q.take(ctx, false); ok {
		t.Error("a hint was taken after the end")
	}
}
