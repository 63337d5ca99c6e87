package reporting

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
)

// Abandoned is what became of a place: its hour was abandoned if there is no error.
type Abandoned struct {
	reports.Place
	Err error
}

// Abandon settles the hours of an entitlement without sending anything: what may have been sent and
// is not stored becomes UNKNOWN, for the reason. It is for a table that was restored, whose gate is
// closed, and does not ask the gate. places are those that have work, in the order of their hours.
//
// An hour that groups wait for is opened with them: the workers of the table that was lost may have
// done the same, with a connection, identifiers, prices or a cancellation that this table does not
// have. So it is sealed in doubt, as is one that was open already: no record of it has another
// outcome than UNKNOWN. Only the entitlement itself is needed.
//
// Groups that wait for an hour which has a report wait for the next one without, as on the lost
// table. They are moved before any hour is opened, else others could take that one without them. If
// there is none before the floor, they stay: the lost table has sent nothing of an hour from there
// on.
//
// It returns the hours that were abandoned, or could not be. Places in which nothing is to be done
// are missing.
func (w *Worker) Abandon(ctx context.Context, places []reports.Place, floor time.Time, reason string) (abandoned []Abandoned) {
	a := abandoning{Worker: w, floor: floor, reason: reason, open: map[reports.Place][]metering.GroupID{}}
	add := func(p reports.Place, done bool, err error) {
		if done || err != nil {
			abandoned = append(abandoned, Abandoned{p, err})
		}
	}
	for _, p := range places {
		done, err := a.look(ctx, p)
		add(p, done, err)
	}
	for _, p := range slices.SortedFunc(maps.Keys(a.open), func(p, q reports.Place) int { return p.Hour.Compare(q.Hour) }) {
		done, err := a.openHour(ctx, p)
		add(p, done, err)
	}
	return abandoned
}

// abandoning is one Abandon.
type abandoning struct {
	*Worker
	floor  time.Time
	reason string
	open   map[reports.Place][]metering.GroupID // hours to open, with groups that were moved there
}

// look settles the hour of a place, if there is one, and moves the groups on that wait for it. Else
// it notes that the hour is to be opened.
func (a *abandoning) look(ctx context.Context, p reports.Place) (done bool, err error) {
	h, err := a.Store.Hour(ctx, p)
	if err != nil {
		return false, err
	}
	if h == nil {
		if _, noted := a.open[p]; !noted {
			a.open[p] = nil
		}
		return false, nil
	}
	if h.State != reports.StateSettled {
		pl, err := a.planning(ctx, p)
		if err != nil {
			return false, err
		}
		if done, err = pl.abandon(ctx, h); err != nil {
			return false, err
		}
	}
	ids, err := a.Store.Waiting(ctx, p)
	if err != nil || len(ids) == 0 {
		return done, err
	}
	return done, a.moveOn(ctx, p, ids)
}

func (a *abandoning) planning(ctx context.Context, p reports.Place) (*planning, error) {
	pl := planning{Worker: a.Worker, place: p, doubt: a.reason}
	return &pl, pl.lookReadable(ctx)
}

// moveOn makes those of the groups that still wait for the place wait for the next one before the
// floor that has no report, if there is one.
func (a *abandoning) moveOn(ctx context.Context, p reports.Place, ids []metering.GroupID) error {
	to := p
	for h := new(reports.Hour); h != nil; {
		to.Hour = to.Hour.Add(time.Hour)
		if !to.Hour.Before(a.floor) {
			return nil
		}
		var err error
		if h, err = a.Store.Hour(ctx, to); err != nil {
			return err
		}
	}
	pl := planning{Worker: a.Worker, place: p}
	var mu sync.Mutex
	for chunk := range slices.Chunk(ids, membersAtOnce) {
		err := pl.eachWaiting(ctx, chunk, func(ctx context.Context, g *metering.Group) error {
			id := metering.GroupID(g.ID)
			if err := a.Store.Move(ctx, p, id, to.Hour); err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			a.open[to] = append(a.open[to], id)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// openHour opens the hour of a place with the groups that wait for it, and settles it. Those that
// were moved there just now may not be in the index yet.
func (a *abandoning) openHour(ctx context.Context, p reports.Place) (bool, error) {
	ids, err := a.Store.Waiting(ctx, p)
	if err != nil {
		return false, err
	}
	ids = append(ids, a.open[p]...)
	slices.Sort(ids)
	if ids = slices.Compact(ids); len(ids) == 0 {
		return false, nil
	}
	pl, err := a.planning(ctx, p)
	if err != nil {
		return false, err
	}
	if pl.terms == nil || pl.terms.Entitlement == nil {
		return false, fmt.Errorf("%d groups wait for it, and the entitlement does not exist: put the entitlement, or delete the groups", len(ids))
	}
	h, err := pl.create(ctx, ids)
	if err != nil {
		return false, err
	}
	return pl.abandon(ctx, h)
}

// abandon settles an hour without sending anything. It returns false if it is settled.
func (pl *planning) abandon(ctx context.Context, h *reports.Hour) (bool, error) {
	var err error
	if h.State == reports.StateOpen {
		if h, err = pl.seal(ctx, h); err != nil {
			return false, err
		}
	}
	for attempt := 0; h.State == reports.StateSealed; attempt++ {
		ledger, err := pl.Store.Ledger(ctx, h.Organization, h.Entitlement)
		if err != nil {
			return false, err
		}
		after, ledger, err := h.Abandon(ledger, pl.doubt)
		if err != nil {
			return false, err
		}
		if err = pl.Store.Write(ctx, &reports.Step{Before: h, After: &after, Ledger: &ledger}); err == nil {
			h = &after
			break
		}
		if h, err = pl.again(ctx, pl.place, err, attempt); err != nil {
			return false, err
		}
	}
	if h.State != reports.StateDecided {
		return false, nil
	}
	return true, pl.Settle(ctx, h)
}
