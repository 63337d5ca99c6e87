package reporting

import (
	"cmp"
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
	// maxDeadlines bounds how many entitlements are read for the deadlines of their oldest hours:
	// of recent ones, and of older ones.
	maxDeadlines = 2000
)

// Schedule looks for all work that is due and enqueues hints. It returns what it has seen. It needs
// no memory: what a crash or a lost hint has left is found again.
//
// While workers are paused it enqueues nothing and only reports what waits.
func (w *Worker) Schedule(ctx context.Context) (Overview, error) {
	var seen Overview
	ctx = w.noticing(ctx)
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
	note := func(lane string, p reports.Place) {
		if seen.Oldest.IsZero() || p.Hour.Before(seen.Oldest) {
			seen.Oldest = p.Hour
		}
		if !now.Before(p.Hour.Add(time.Hour)) {
			waits.add(line{p.Organization, lane, now.Sub(p.Hour) > metering.UsageWindow}, p)
		}
	}
	err = w.Store.EachPlace(ctx, metering.HourOf(now), func(p reports.Place) error {
		seen.Places++
		note("", p)
		return enqueue(Hint{Place: p})
	})
	if err != nil {
		return seen, err
	}
	last := ""
	err = w.Store.EachSealed(ctx, func(lane string, next time.Time, p reports.Place) error {
		note(lane, p)
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

// waiting has the first hour of each entitlement of a line that has ended and is not settled. It
// closes first, and has the first deadline.
type waiting map[line]map[metering.EntitlementID]time.Time

// line is a part of what waits whose deadlines are in the order of the hours, but for
// cancellations: a lane is of one marketplace. What is not sealed has none. It is old if only
// Google still takes it.
type line struct {
	organization metering.OrgID
	lane         string
	old          bool
}

func (w waiting) add(l line, p reports.Place) {
	of := w[l]
	if of == nil {
		of = map[metering.EntitlementID]time.Time{}
		w[l] = of
	}
	if first, ok := of[p.Entitlement]; !ok || p.Hour.Before(first) {
		of[p.Entitlement] = p.Hour
	}
}

// oldest returns the oldest places of the lines, old or not, at most n: the first of each line,
// then the second of each. So what may wait for a month at one marketplace does not hide what
// waits for a day at another.
func (w waiting) oldest(old bool, n int) []reports.Place {
	type ranked struct {
		reports.Place
		rank int
	}
	var all []ranked
	for l, of := range w {
		if l.old != old {
			continue
		}
		first := len(all)
		for entitlement, hour := range of {
			all = append(all, ranked{Place: reports.Place{Organization: l.organization, Entitlement: entitlement, Hour: hour}})
		}
		slices.SortFunc(all[first:], func(a, b ranked) int { return a.Hour.Compare(b.Hour) })
		for i := range all[first:] {
			all[first+i].rank = i
		}
	}
	slices.SortFunc(all, func(a, b ranked) int { return cmp.Or(a.rank-b.rank, a.Hour.Compare(b.Hour)) })
	places := make([]reports.Place, min(len(all), n))
	for i := range places {
		places[i] = all[i].Place
	}
	return places
}

// lookAtDeadlines finds out when the hours that wait closed, and their deadlines: of the oldest
// ones if they are many. What can't be read of one organization hides none of another.
func (w *Worker) lookAtDeadlines(ctx context.Context, waits waiting, now time.Time, seen *Overview) error {
	most := cmp.Or(w.MaxDeadlines, maxDeadlines)
	byOrg := map[metering.OrgID][]reports.Place{}
	for _, p := range append(waits.oldest(true, most), waits.oldest(false, most)...) {
		byOrg[p.Organization] = append(byOrg[p.Organization], p)
	}
	var failed []error
	for org, places := range byOrg {
		var ids []metering.EntitlementID
		for _, p := range places {
			ids = append(ids, p.Entitlement)
		}
		slices.Sort(ids)
		terms, err := w.Store.TermsOf(ctx, org, slices.Compact(ids), false)
		if err != nil {
			failed = append(failed, fmt.Errorf("organization %s: %w", metering.Quote(org), err))
			continue
		}
		for _, p := range places {
			hour, s := p.Hour, reports.ScheduleBy(terms[p.Entitlement])
			// Of an hour after a cancellation that was dated back, the closing time lies before it.
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
