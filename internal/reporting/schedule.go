package reporting

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
)

const (
	// hintsAtOnce is how many hints are enqueued together.
	hintsAtOnce = 100
	// maxDeadlines bounds how many entitlements are read for the deadlines of their oldest hours.
	maxDeadlines = 2000
)

// Schedule looks for all work that is due and enqueues hints. It returns what it has seen. It needs
// no memory: what a crash or a lost hint has left is found again.
//
// While workers are paused it enqueues nothing and only reports what waits.
func (w *Worker) Schedule(ctx context.Context) (Overview, error) {
	var seen Overview
	closed, err := w.closed(ctx)
	if err != nil {
		return seen, err
	}
	now := w.Now()
	var hints []Hint
	enqueue := func(h Hint) error {
		if closed {
			return nil
		}
		hints = append(hints, h)
		if len(hints) < hintsAtOnce {
			return nil
		}
		err := w.Queue.Enqueue(ctx, hints...)
		hints = nil
		return err
	}
	waits := waiting{}
	note := func(p reports.Place) {
		if seen.Oldest.IsZero() || p.Hour.Before(seen.Oldest) {
			seen.Oldest = p.Hour
		}
		if !now.Before(p.Hour.Add(time.Hour)) {
			waits.add(p)
		}
	}
	err = w.Store.EachPlace(ctx, metering.HourOf(now), func(p reports.Place) error {
		seen.Places++
		note(p)
		return enqueue(Hint{Place: p})
	})
	if err != nil {
		return seen, err
	}
	last := ""
	err = w.Store.EachSealed(ctx, func(lane string, next time.Time, p reports.Place) error {
		note(p)
		if lane == last || now.Before(next) {
			return nil
		}
		last = lane
		seen.Lanes++
		return enqueue(Hint{Lane: lane, Place: p})
	})
	if err != nil {
		return seen, err
	}
	if err := w.Queue.Enqueue(ctx, hints...); err != nil {
		return seen, err
	}
	err = w.lookAtDeadlines(ctx, waits, now, &seen)
	w.scheduled(ctx, seen)
	return seen, err
}

// waiting has the first hour of each entitlement that has ended and is not settled. It closes
// first, and has the first deadline.
type waiting map[metering.OrgID]map[metering.EntitlementID]time.Time

func (w waiting) add(p reports.Place) {
	of := w[p.Organization]
	if of == nil {
		of = map[metering.EntitlementID]time.Time{}
		w[p.Organization] = of
	}
	if first, ok := of[p.Entitlement]; !ok || p.Hour.Before(first) {
		of[p.Entitlement] = p.Hour
	}
}

// lookAtDeadlines finds out when the hours that wait closed, and their deadlines: of the oldest
// ones if they are many. What can't be read of one organization hides none of another.
func (w *Worker) lookAtDeadlines(ctx context.Context, waits waiting, now time.Time, seen *Overview) error {
	var places []reports.Place
	for org, of := range waits {
		for entitlement, hour := range of {
			places = append(places, reports.Place{Organization: org, Entitlement: entitlement, Hour: hour})
		}
	}
	slices.SortFunc(places, func(a, b reports.Place) int { return a.Hour.Compare(b.Hour) })
	ids := map[metering.OrgID][]metering.EntitlementID{}
	for _, p := range places[:min(len(places), maxDeadlines)] {
		ids[p.Organization] = append(ids[p.Organization], p.Entitlement)
	}
	var failed []error
	for org, ids := range ids {
		terms, err := w.Store.TermsOf(ctx, org, ids, false)
		if err != nil {
			failed = append(failed, fmt.Errorf("organization %s: %w", metering.Quote(org), err))
			continue
		}
		for _, id := range ids {
			hour, s := waits[org][id], reports.ScheduleBy(terms[id])
			// Without an entitlement, the schedule knows no closing time.
			closes := metering.Later(hour.Add(time.Hour), s.Closes(hour))
			if now.Before(closes) {
				continue
			}
			if seen.Closed.IsZero() || closes.Before(seen.Closed) {
				seen.Closed = closes
			}
			if deadline := s.Deadline(hour); !deadline.IsZero() && (seen.Deadline.IsZero() || deadline.Before(seen.Deadline)) {
				seen.Deadline = deadline
			}
		}
	}
	return errors.Join(failed...)
}
