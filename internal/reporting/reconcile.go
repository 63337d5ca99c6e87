package reporting

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
)

const (
	// reconcileMargin is what Reconcile leaves of its time when it begins to read back a day.
	reconcileMargin = 30 * time.Second
	// dayMargin is what it leaves when it begins to compare a day of an entitlement.
	dayMargin = 10 * time.Second
	// parallelDays is how many days of organizations are compared at once.
	parallelDays = 4
	// slowReadBack is after what time a read-back that fails is one of many: another day of its
	// organization would take as long.
	slowReadBack = 15 * time.Second
	// readBackPause is how long Reconcile waits before it reads back again what failed.
	readBackPause = time.Second
)

// Reconcile compares what marketplaces have processed with what was accepted, day by day, and
// resolves records that are UNKNOWN if the sum of their day decides. It looks at a day from the
// first outcome of a record that was sent until the sums are equal and can't change any more.
//
// What fails at the marketplace is attempted again at the end of the run, and otherwise counted: no
// error is returned for it. It returns the errors of the store. The next run compares what is left.
func (w *Worker) Reconcile(ctx context.Context) error {
	ctx = w.noticing(ctx)
	if closed, err := w.closed(ctx); closed || err != nil {
		return err
	}
	r := reconciliation{Worker: w, sources: map[metering.OrgID]*source{}}
	var running errgroup.Group
	running.SetLimit(parallelDays)
	var days []reports.Day // of one organization and date
	compare := func() {
		if together := days; len(together) > 0 {
			running.Go(func() error { return r.compare(ctx, together, false) })
		}
		days = nil
	}
	err := w.Store.EachUnreconciled(ctx, func(d reports.Day) error {
		if len(days) > 0 && (d.Organization != days[0].Organization || d.Partner != days[0].Partner || !d.Date.Equal(days[0].Date)) {
			compare()
		}
		days = append(days, d)
		return ctx.Err()
	})
	if err == nil {
		compare()
	}
	err = errors.Join(err, running.Wait(), r.compareAgain(ctx))
	err = errors.Join(err, errors.Join(r.failed...))
	if r.late > 0 {
		w.event(ctx, EventFailed, 1, "error", "the time is over: not all days are reconciled", "days", r.late)
	}
	if err == nil && r.skipped == 0 && r.late == 0 {
		w.event(ctx, EventReconciled, 1, "days", r.compared, "notReported", r.notReported)
	}
	return err
}

// reconciliation is one Reconcile.
type reconciliation struct {
	*Worker

	mu       sync.Mutex
	sources  map[metering.OrgID]*source
	again    [][]reports.Day // whose read-back failed once, each of one organization and date
	compared int             // days
	skipped  int             // days that could not be compared, for a reason that is counted
	late     int             // days for which the time was over
	failed   []error         // of the others
	// notReported is how many of the compared days have usage of a managed application that the
	// marketplace reports nothing of.
	notReported int
}

// source is what the usage of an organization is read back from, one call after the other.
type source struct {
	mu     sync.Mutex
	reader Reader
	slow   bool // a read-back has failed after a long time: the others are left to compareAgain
	// fault is why nothing more is read back in this run: no connection, one that is refused, or
	// read-backs that fail after a long time.
	fault string
}

// onDay is the attributes of a log line about a day.
func onDay(d *reports.Day) slog.Attr {
	return slog.Group("", "organization", string(d.Organization), "partner", string(d.Partner), "date", d.Date.Format(time.DateOnly))
}

// compare compares the days of the entitlements of an organization, some at once. If the read-back
// fails, and again is false, they are left to compareAgain.
func (r *reconciliation) compare(ctx context.Context, days []reports.Day, again bool) error {
	if shortOf(ctx, reconcileMargin) {
		r.leave(len(days))
		return nil
	}
	back, fault, failed := r.readBack(ctx, &days[0], again)
	if failed != nil && !again {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.again = append(r.again, days)
		return nil
	}
	if failed != nil {
		fault = failed.Error()
		r.event(ctx, EventFailed, 1, onDay(&days[0]), "error", fault)
	}
	return atOnce(ctx, hoursAtOnce, len(days), func(ctx context.Context, i int) error {
		if shortOf(ctx, dayMargin) {
			r.leave(1)
			return nil
		}
		d := &days[i]
		var err error
		switch {
		case fault == "":
			err = r.reconcile(ctx, d, &back)
		case d.Abandoned(r.Now()):
			err = r.giveUp(ctx, d, fault)
		}
		r.ended(ctx, d, fault != "", err)
		return ctx.Err()
	})
}

// leave counts days that are left to the next run, because the time is over.
func (r *reconciliation) leave(days int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.late += days
}

// compareAgain compares the days whose read-back has failed, after a pause. Most failures of a
// marketplace are short.
func (r *reconciliation) compareAgain(ctx context.Context) error {
	if len(r.again) == 0 {
		return nil
	}
	pause(ctx, readBackPause)
	var running errgroup.Group
	running.SetLimit(parallelDays)
	for _, days := range r.again {
		running.Go(func() error { return r.compare(ctx, days, true) })
	}
	return running.Wait()
}

// ended counts a day that was looked at.
func (r *reconciliation) ended(ctx context.Context, d *reports.Day, skipped bool, err error) {
	if err != nil && !errors.Is(err, reports.ErrNewer) {
		r.fail(ctx, d, fmt.Errorf("entitlement %s: %w", metering.Quote(d.Entitlement), err))
		return
	}
	if err != nil {
		r.event(ctx, EventUnknownVersion, 1, onDay(d), "entitlement", string(d.Entitlement), "error", err.Error())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if skipped || err != nil {
		r.skipped++
	} else {
		r.compared++
	}
}

// fail counts an error of the store, or a defect. It does not keep other days from being compared.
func (r *reconciliation) fail(ctx context.Context, d *reports.Day, err error) {
	r.event(ctx, EventFailed, 1, onDay(d), "error", err.Error())
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = append(r.failed, fmt.Errorf("organization %s, %s: %w", metering.Quote(d.Organization), d.Date.Format(time.DateOnly), err))
}

// errSlow is the error of a read-back that is not attempted since another one has failed after a
// long time.
var errSlow = errors.New("another read-back of the organization has failed after a long time")

// readBack reads back the day. It returns the fault of the organization's source, from which no
// other day is read back either, or how it has failed for this day alone.
//
// Days of other organizations wait meanwhile, so that of one whose read-backs fail after a long
// time two are attempted: one, and again the first that comes.
func (r *reconciliation) readBack(ctx context.Context, d *reports.Day, again bool) (back ReadBack, fault string, failed error) {
	s := r.source(d.Organization)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reader == nil && s.fault == "" {
		s.fault = r.connect(ctx, d, s)
	}
	if s.fault != "" {
		return back, s.fault, nil
	}
	if s.slow && !again {
		return back, "", errSlow
	}
	reading, cancel := before(ctx, dayMargin)
	defer cancel()
	began := time.Now()
	back, err := s.reader.ReadBack(reading, d.Date)
	if errors.Is(err, ErrRefused) {
		r.event(ctx, EventConnectionRefused, 1, onDay(d), "error", err.Error())
		s.fault = err.Error()
		return back, s.fault, nil
	}
	if err != nil && time.Since(began) >= cmp.Or(r.SlowReadBack, slowReadBack) {
		if s.slow = true; again {
			s.fault = err.Error()
		}
	}
	return back, "", err
}

// before returns a context that ends by that much before ctx does.
func before(ctx context.Context, margin time.Duration) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, deadline.Add(-margin))
}

func (r *reconciliation) source(org metering.OrgID) *source {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.sources[org]
	if s == nil {
		s = &source{}
		r.sources[org] = s
	}
	return s
}

// connect sets the reader of the source. It returns why there is none.
func (r *reconciliation) connect(ctx context.Context, d *reports.Day, s *source) (fault string) {
	connection, err := r.Store.Connection(ctx, d.Organization, d.Partner)
	switch {
	case metering.CodeOf(err) == metering.NotFound:
		r.event(ctx, EventNoConnection, 1, onDay(d), "reason", "the connection was deleted: its usage can't be reconciled")
		return err.Error()
	case err != nil:
		r.fail(ctx, d, err)
		return err.Error()
	}
	marketplace, err := r.Marketplaces.Marketplace(d.Organization, connection.Value)
	if err != nil {
		r.event(ctx, EventConnectionRefused, 1, onDay(d), "error", err.Error())
		return err.Error()
	}
	reader, ok := marketplace.(Reader)
	if !ok {
		err := fmt.Errorf("the marketplace of %s reports nothing back", d.Partner) // a defect
		r.fail(ctx, d, err)
		return err.Error()
	}
	s.reader = reader
	return ""
}

// reconcile compares the day of an entitlement with what was processed.
func (r *reconciliation) reconcile(ctx context.Context, d *reports.Day, back *ReadBack) error {
	for attempt := 0; ; attempt++ {
		stored, err := r.Store.Day(ctx, *d)
		if err != nil {
			return err
		}
		now := r.Now()
		meters, notReported := tally(stored.Hours, back)
		resolved, err := r.resolve(ctx, d, stored.Hours, meters, back, now)
		if errors.Is(err, reports.ErrChanged) && attempt < maxSteps {
			continue
		}
		if err != nil {
			return err
		}
		if resolved {
			continue // what was accepted has changed
		}
		if notReported {
			r.mu.Lock()
			r.notReported++
			r.mu.Unlock()
		}
		if done := r.report(ctx, d, meters, back, now); done || d.Expired(now) {
			return r.Store.Reconciled(ctx, *d, stored)
		}
		return nil
	}
}

// tally returns what the hours have of each meter, and of each other one of their resources that
// the marketplace has something of. A managed application that the marketplace has nothing of is
// left out, and noted: nothing is known of it, since Azure may name it otherwise.
func tally(hours []*reports.Hour, back *ReadBack) (meters map[reports.Meter]*reports.Tally, notReported bool) {
	meters = map[reports.Meter]*reports.Tally{}
	for _, h := range hours {
		h.Tally(meters)
	}
	resources := map[string]bool{}
	for meter := range meters {
		if meter.Managed() && !back.Resources[meter.Resource] {
			delete(meters, meter)
			notReported = true
			continue
		}
		resources[meter.Resource] = true
	}
	for meter := range back.Processed {
		if resources[meter.Resource] && meters[meter] == nil {
			meters[meter] = &reports.Tally{}
		}
	}
	return meters, notReported
}

// resolve resolves a record that the sum of its day decides, if there is one.
func (r *reconciliation) resolve(ctx context.Context, d *reports.Day, hours []*reports.Hour, meters map[reports.Meter]*reports.Tally, back *ReadBack, now time.Time) (bool, error) {
	for meter, t := range meters {
		comparison := t.Compare(back.Processed[meter], back.Resources[meter.Resource], d.Mature(now))
		if comparison != reports.WasBilled && comparison != reports.WasNotBilled {
			continue
		}
		at := slices.IndexFunc(hours, func(h *reports.Hour) bool { return h.Place() == t.Unknown[0].Place })
		h := hours[at]
		after, err := r.Resolve(ctx, h, meter.Dimension, comparison == reports.WasBilled, reports.ByReconciliation, now)
		if err != nil {
			return false, err
		}
		r.countOutcomes(ctx, h, after)
		if err := r.Settle(ctx, after); !errors.Is(err, errOutOfTime) { // else Plan continues
			return true, err
		}
		return true, nil
	}
	return false, nil
}

// report counts each meter whose sums differ. It returns whether all are equal and stay so.
func (r *reconciliation) report(ctx context.Context, d *reports.Day, meters map[reports.Meter]*reports.Tally, back *ReadBack, now time.Time) (done bool) {
	done = d.Mature(now)
	for meter, t := range meters {
		p := back.Processed[meter]
		comparison := t.Compare(p, back.Resources[meter.Resource], d.Mature(now))
		done = done && comparison == reports.Equal && !t.Open()
		if comparison != reports.More && comparison != reports.Less {
			continue
		}
		r.event(ctx, EventDiffers, 1, onDay(d), "entitlement", string(d.Entitlement), "resource", meter.Resource, "dimension", meter.Dimension,
			"acceptedQuantity", t.Accepted.String(), "processedQuantity", p.Quantity, "difference", string(comparison), "status", p.Status,
			"unknownRecords", len(t.Unknown), "conflict", t.Conflict)
	}
	return done
}

// giveUp ends the reconciliation of a day that could not be compared.
func (r *reconciliation) giveUp(ctx context.Context, d *reports.Day, fault string) error {
	stored, err := r.Store.Day(ctx, *d)
	if err != nil {
		return err
	}
	r.event(ctx, EventDiffers, 1, onDay(d), "entitlement", string(d.Entitlement), "reason", "the day could not be compared: "+fault)
	return r.Store.Reconciled(ctx, *d, stored)
}
