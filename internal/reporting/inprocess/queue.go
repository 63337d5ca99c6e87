package inprocess

import (
	"context"
	"sync"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/reporting"
)

// maxWaiting bounds the hints that wait in a Queue. More are lost: the next Schedule finds the
// work.
const maxWaiting = 100_000

// maxTimes is how often a Queue gives out the same hint between two schedules. Work that enqueues
// its own hint again, but moves nothing on, ends at it.
const maxTimes = 100

// Queue is a reporting.Queue in memory. A hint that waits already is not added again, nor one that
// was given out maxTimes since the last schedule: the next one finds the work. Two workers never
// have the same hint at once. The zero value is an empty queue.
type Queue struct {
	mu      sync.Mutex
	waiting []reporting.Hint
	state   map[key]state
	times   map[key]int   // how often a hint was taken since the last schedule
	working int           // hints that a worker has
	changed chan struct{} // closed at the next change; nil if nobody waits for it
}

// key identifies a hint. Times are equal by their second, whatever their zone.
type key struct {
	organization metering.OrgID
	entitlement  metering.EntitlementID
	hour         int64
	lane         string
}

func keyOf(h reporting.Hint) key {
	if h.Lane != "" {
		return key{lane: h.Lane}
	}
	return key{h.Place.Organization, h.Place.Entitlement, h.Place.Hour.Unix(), ""}
}

type state int

const (
	waits     state = iota + 1
	worked          // a worker has it
	workedYet       // a worker has it, and it was enqueued again since
)

// Enqueue adds hints. It never fails.
func (q *Queue) Enqueue(_ context.Context, hints ...reporting.Hint) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.state == nil {
		q.state, q.times = map[key]state{}, map[key]int{}
	}
	for _, h := range hints {
		switch k := keyOf(h); q.state[k] {
		case waits, workedYet:
		case worked:
			q.state[k] = workedYet
		default:
			q.add(h)
		}
	}
	q.notify()
	return nil
}

func (q *Queue) add(h reporting.Hint) {
	if len(q.waiting) < maxWaiting && q.times[keyOf(h)] < maxTimes {
		q.waiting = append(q.waiting, h)
		q.state[keyOf(h)] = waits
	}
}

// take returns a hint once there is one. It returns false if ctx is done or, with untilIdle, if no
// hint waits and no worker has one that may add more. The caller calls done afterwards.
func (q *Queue) take(ctx context.Context, untilIdle bool) (reporting.Hint, bool) {
	for {
		q.mu.Lock()
		if ctx.Err() != nil || untilIdle && len(q.waiting) == 0 && q.working == 0 {
			q.mu.Unlock()
			return reporting.Hint{}, false
		}
		if len(q.waiting) > 0 {
			h := q.waiting[0]
			q.waiting = q.waiting[1:]
			q.state[keyOf(h)] = worked
			q.times[keyOf(h)]++
			q.working++
			q.mu.Unlock()
			return h, true
		}
		if q.changed == nil {
			q.changed = make(chan struct{})
		}
		changed := q.changed
		q.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// done ends the work on a hint. If it was enqueued again meanwhile, it waits again.
func (q *Queue) done(h reporting.Hint) {
	q.mu.Lock()
	defer q.mu.Unlock()
	k := keyOf(h)
	again := q.state[k] == workedYet
	delete(q.state, k)
	if again {
		q.add(h)
	}
	q.working--
	q.notify()
}

// scheduling begins a schedule: each hint may be given out maxTimes again.
func (q *Queue) scheduling() {
	q.mu.Lock()
	defer q.mu.Unlock()
	clear(q.times)
}

// notify wakes all that wait for a change.
func (q *Queue) notify() {
	if q.changed != nil {
		close(q.changed)
		q.changed = nil
	}
}
