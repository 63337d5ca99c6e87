package reporting

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
)

// Abandon settles the hour of a place without sending anything: what may have been sent and is not
// stored becomes UNKNOWN, for the reason. It is for a table that was restored, whose gate is
// closed, and does not ask the gate.
//
// An hour that groups wait for is opened with them: the workers of the table that was lost may have
// done the same, with a connection, identifiers or a cancellation that this table does not have.
// Only the entitlement itself is needed. Groups that wait for an hour which is settled wait for the
// next one without a report, as on the lost table; if there is none before the floor, they stay.
//
// It returns false if there is nothing to abandon: the hour is settled, or no group waits for it.
func (w *Worker) Abandon(ctx context.Context, p reports.Place, floor time.Time, reason string) (bool, error) {
	h, err := w.Store.Hour(ctx, p)
	if err != nil {
		return false, err
	}
	terms, err := w.Store.TermsOf(ctx, p.Organization, []metering.EntitlementID{p.Entitlement}, false)
	if err != nil {
		return false, err
	}
	pl := planning{Worker: w, place: p, terms: terms[p.Entitlement]}
	pl.schedule = reports.ScheduleBy(pl.terms)
	if h == nil || h.State == reports.StateSettled {
		ids, err := w.Store.Waiting(ctx, p)
		if err == nil && h != nil {
			ids, err = pl.moveBefore(ctx, ids, floor)
			p = pl.place
		}
		if err != nil || len(ids) == 0 {
			return false, err
		}
		if pl.terms == nil || pl.terms.Entitlement == nil {
			return false, fmt.Errorf("%d groups wait for it, and the entitlement does not exist: put the entitlement, or delete the groups", len(ids))
		}
		if h, err = pl.create(ctx, ids); err != nil {
			return false, err
		}
	}
	if h.State == reports.StateOpen {
		if h, err = pl.seal(ctx, h); err != nil {
			return false, err
		}
		if h == nil {
			return false, fmt.Errorf("the time was over before all groups of hour %s were claimed", metering.FormatTime(p.Hour))
		}
	}
	for attempt := 0; h.State == reports.StateSealed; attempt++ {
		after, err := h.Abandon(reason)
		if err != nil {
			return false, err
		}
		if err = w.Store.Write(ctx, &reports.Step{Before: h, After: &after}); err == nil {
			h = &after
			break
		}
		if h, err = w.again(ctx, p, err, attempt); err != nil {
			return false, err
		}
	}
	if h.State != reports.StateDecided {
		return false, nil
	}
	return true, pl.settle(ctx, h)
}

// moveBefore makes those of the groups that still wait for the place wait for the next one before
// the floor that has no report. That is the place then, and all groups that wait for it are
// returned: none if there is no such place, or no group waited any more.
func (pl *planning) moveBefore(ctx context.Context, ids []metering.GroupID, floor time.Time) ([]metering.GroupID, error) {
	to := pl.place
	for to.Hour = to.Hour.Add(time.Hour); to.Hour.Before(floor); to.Hour = to.Hour.Add(time.Hour) {
		h, err := pl.Store.Hour(ctx, to)
		if err != nil {
			return nil, err
		}
		if h == nil {
			return pl.moveTo(ctx, ids, to)
		}
	}
	return nil, nil
}

func (pl *planning) moveTo(ctx context.Context, ids []metering.GroupID, to reports.Place) ([]metering.GroupID, error) {
	var mu sync.Mutex
	var moved []metering.GroupID
	err := pl.eachWaiting(ctx, ids, func(ctx context.Context, g *metering.Group) error {
		id := metering.GroupID(g.ID)
		mu.Lock()
		moved = append(moved, id)
		mu.Unlock()
		return pl.Store.Move(ctx, pl.place, id, to.Hour)
	})
	if err != nil || len(moved) == 0 {
		return nil, err
	}
	pl.place = to
	others, err := pl.Store.Waiting(ctx, to) // without those that the index, which lags, does not have yet
	all := append(moved, others...)
	slices.Sort(all)
	return slices.Compact(all), err
}
