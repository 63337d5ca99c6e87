package reporting

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
)

const (
	// scheduleMargin is what Schedule leaves of its time for what it has seen: the alarms' gauges.
	scheduleMargin = 15 * time.Second
	// olderMargin is what is left for the hints of older usage: some 100,000.
	olderMargin = 15 * time.Second
	// hintsAtOnce is how many hints are enqueued together.
	hintsAtOnce = 100
	// maxDeadlines bounds how many entitlements are read for the deadlines of their oldest hours:
	// of the hours of each age.
	maxDeadlines = 2000
	// overdue is after how long a record that was not sent again is not on its way any more: its
	// hint may have failed twice.
	overdue = 15 * time.Minute
)

// Schedule looks for all work that is due and enqueues hints. It returns what it has seen. It needs
// no memory: what a crash or a lost hint has left is found again.
//
// Its time may end before it has enqueued hints for all places. Then the error says how many it has
// not, and the next run begins again. Sealed hours, which are of few lanes, come first, then usage
// that all marketplaces still take. Older usage comes last, and has some of the time in any case:
// that which only Google still takes, for a month, and that which has to end.
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
	late := 0 // hints that there was no time for
	flush := func() error {
		err := w.Queue.Enqueue(ctx, hints...)
		hints = nil
		return err
	}
	margin := scheduleMargin + olderMargin
	enqueue := func(h Hint) error {
		if closed {
			return nil
		}
		if shortOf(ctx, margin) {
			late++
			return nil
		}
		hints = append(hints, h)
		if len(hints) < hintsAtOnce {
			return nil
		}
		return flush()
	}
	waits := waiting{}
	note := func(l line, p reports.Place) {
		if seen.Oldest.IsZero() || p.Hour.Before(seen.Oldest) {
			seen.Oldest = p.Hour
		}
		l.organization, l.age = p.Organization, ageOf(p.Hour, now)
		waits.add(l, p)
	}
	last := ""
	err = w.Store.EachSealed(ctx, func(lane string, next time.Time, p reports.Place) error {
		note(line{lane: lane, retried: now.Before(next.Add(overdue))}, p)
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
	if err := flush(); err != nil {
		return seen, err
	}
	place := func(p reports.Place) error {
		seen.Places++
		note(line{}, p)
		return enqueue(Hint{Place: p})
	}
	taken := metering.HourOf(now.Add(-metering.UsageWindow)) // the first hour of which all marketplaces take usage
	if err := w.Store.EachPlace(ctx, taken, metering.HourOf(now), place); err != nil {
		return seen, err
	}
	margin = scheduleMargin
	if err := w.Store.EachPlace(ctx, time.Time{}, taken.Add(-time.Hour), place); err != nil {
		return seen, err
	}
	if err := flush(); err != nil {
		return seen, err
	}
	err = w.lookAtDeadlines(ctx, waits, now, &seen)
	w.scheduled(ctx, seen)
	if late > 0 {
		err = errors.Join(err, fmt.Errorf("%d hints were not enqueued: the time was over", late))
	}
	return seen, err
}

// waiting has the first hour of each entitlement of a line that is not settled. It closes first,
// and has the first deadline.
type waiting map[line]map[metering.EntitlementID]time.Time

// line is a part of what waits whose deadlines are in the order of the hours, but for
// cancellations: a lane is of one marketplace. What is not sealed has none.
type line struct {
	organization metering.OrgID
	lane         string
	retried      bool // sent, and sent again later
	age          age
}

// age is of an hour. Those of an age are looked at however many others there are.
type age int

const (
	current age = iota // it has not ended: only a cancellation can have closed it
	ended
	old // only Google still takes it
	ages
)

func ageOf(hour, now time.Time) age {
	switch {
	case now.Sub(hour) > metering.UsageWindow:
		return old
	case now.Sub(hour) >= time.Hour:
		return ended
	}
	return current
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

// waitingPlace is a place of a line.
type waitingPlace struct {
	reports.Place
	line
	rank int
}

// oldest returns the oldest places of the lines of an age, at most n: the first of each line, then
// the second of each. So what may wait for a month at one marketplace does not hide what waits for
// a day at another.
func (w waiting) oldest(of age, n int) []waitingPlace {
	var all []waitingPlace
	for l, hours := range w {
		if l.age != of {
			continue
		}
		first := len(all)
		for entitlement, hour := range hours {
			all = append(all, waitingPlace{Place: reports.Place{Organization: l.organization, Entitlement: entitlement, Hour: hour}, line: l})
		}
		slices.SortFunc(all[first:], func(a, b waitingPlace) int { return a.Hour.Compare(b.Hour) })
		for i := range all[first:] {
			all[first+i].rank = i
		}
	}
	slices.SortFunc(all, func(a, b waitingPlace) int { return cmp.Or(a.rank-b.rank, a.Hour.Compare(b.Hour)) })
	return all[:min(len(all), n)]
}

// lookAtDeadlines finds out when the hours that wait closed, and their deadlines: of the oldest
// ones if they are many. What can't be read of one organization hides none of another, and an
// entitlement that can't be read none of its organization: its own hour counts as closed at its
// end, and has no deadline.
func (w *Worker) lookAtDeadlines(ctx context.Context, waits waiting, now time.Time, seen *Overview) error {
	byOrg := map[metering.OrgID][]waitingPlace{}
	for of := range ages {
		for _, p := range waits.oldest(of, cmp.Or(w.MaxDeadlines, maxDeadlines)) {
			byOrg[p.Organization] = append(byOrg[p.Organization], p)
		}
	}
	var failed []error
	for org, places := range byOrg {
		var ids []metering.EntitlementID
		for _, p := range places {
			ids = append(ids, p.Entitlement)
		}
		slices.Sort(ids)
		terms, err := w.readableTerms(ctx, org, slices.Compact(ids))
		if err != nil {
			failed = append(failed, fmt.Errorf("organization %s: %w", metering.Quote(org), err))
			continue
		}
		for _, p := range places {
			s := reports.ScheduleBy(terms[p.Entitlement])
			closes := s.Closes(p.Hour)
			if s.Cancel.Before(p.Hour) { // dated back: the closing time lies before the hour
				closes = metering.Later(closes, p.Hour.Add(time.Hour))
			}
			if now.Before(closes) {
				continue
			}
			if p.retried {
				seen.Retried.note(closes, p.Place)
			} else {
				seen.Closed.note(closes, p.Place)
			}
			if deadline := s.Deadline(p.Hour); p.lane != "" || !s.Carry || now.Before(deadline) { // else a later hour takes it
				seen.Deadline.note(deadline, p.Place)
			}
		}
	}
	return errors.Join(failed...)
}

// readableTerms returns the terms of those of the entitlements whose terms can be read, and counts
// the others.
func (w *Worker) readableTerms(ctx context.Context, org metering.OrgID, ids []metering.EntitlementID) (metering.TermsByEntitlement, error) {
	terms, unreadable, err := ReadableTerms(ctx, w.Store, org, ids)
	if len(unreadable) > 0 { // one line: it may be all of an organization
		first := slices.Min(slices.Collect(maps.Keys(unreadable)))
		w.event(ctx, EventUnknownVersion, len(unreadable), "organization", string(org), "entitlement", string(first), "error", unreadable[first].Error())
	}
	return terms, err
}
