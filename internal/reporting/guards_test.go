package reporting_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/reporting"
	rt "github.com/marketmeter/marketmeter/internal/reporting/reportingtest"
	"github.com/marketmeter/marketmeter/internal/reporting/worldtest"
	"github.com/marketmeter/marketmeter/sandbox"
)

// Each guard of the protocol is noticed if it is taken away: a scenario that ends well ends badly
// without it. A guard is taken away between the workers and the table.

// spoilt is a table that returns hours as if a guard had not written them.
type spoilt struct {
	reporting.Store
	spoil func(*reports.Record)
}

func (s spoilt) Hour(ctx context.Context, p reports.Place) (*reports.Hour, error) {
	h, err := s.Store.Hour(ctx, p)
	return s.spoilt(h), err
}

func (s spoilt) Hours(ctx context.Context, places []reports.Place) (map[reports.Place]*reports.Hour, error) {
	hours, err := s.Store.Hours(ctx, places)
	for _, h := range hours {
		s.spoilt(h)
	}
	return hours, err
}

func (s spoilt) spoilt(h *reports.Hour) *reports.Hour {
	if h != nil && h.Sealed != nil {
		for i := range h.Sealed.Records {
			s.spoil(&h.Sealed.Records[i])
		}
	}
	return h
}

// workBy does what is due by a store.
func workBy(t *testing.T, w *worldtest.World, store reporting.Store) {
	t.Helper()
	w.WorkBy(w.Worker(store))
}

// A worker dies after its call. Only the attempt that it stored before shows that the record which
// stands is ours.
func TestGuard_AttemptBeforeEachCall(t *testing.T) {
	t.Parallel()
	run := func(guard bool) string {
		w := worldtest.NewWorld(t, sandbox.Options{IdenticalResend: sandbox.ResendDuplicate})
		group := w.Report(worldtest.OnAWS, rt.Hour, "d0 1")
		var store reporting.Store = w.Table
		if !guard {
			store = spoilt{w.Table, func(r *reports.Record) {
				r.Attempts = slices.DeleteFunc(r.Attempts, func(a reports.Attempt) bool { return a.Result == reports.InDoubt })
			}}
		}
		w.Fault(sandbox.Fault{Fault: sandbox.Lost})
		w.Set(closed)
		workBy(t, w, w.Table)
		w.Set(closed.Add(10 * time.Minute))
		workBy(t, w, store)
		return w.Status(group) + ", billed " + w.Billed()
	}
	want(t, "with the guard", run(true), "REPORTED, billed d0=1")
	want(t, "without it", run(false), "REPORT_FAILED CONFLICT, billed d0=1")
}

// The response is lost, and every later attempt is refused. That says nothing about the first.
func TestGuard_DoubtForbidsARejection(t *testing.T) {
	t.Parallel()
	run := func(guard bool) string {
		w := worldtest.NewWorld(t, sandbox.Options{})
		group := w.Report(worldtest.OnAWS, rt.Hour, "d0 1")
		var store reporting.Store = w.Table
		if !guard {
			store = spoilt{w.Table, func(r *reports.Record) {
				for i := range r.Attempts {
					if r.Attempts[i].Result == reports.InDoubt {
						r.Attempts[i].Response = reports.Response{Result: reports.Refused, Again: true}
					}
				}
			}}
		}
		w.Fault(sandbox.Fault{Fault: sandbox.Lost})
		w.Set(closed)
		workBy(t, w, w.Table)
		w.Set(rt.Hour.Add(25 * time.Hour))
		workBy(t, w, store)
		return w.Status(group) + ", billed " + w.Billed()
	}
	want(t, "with the guard", run(true), "REPORT_FAILED OUTCOME_UNKNOWN, billed d0=1")
	want(t, "without it", run(false), "REPORT_FAILED EXPIRED, billed d0=1")
}

// noEscrow leaves in the ledger what a seal takes out.
type noEscrow struct{ reporting.Store }

func (s noEscrow) Write(ctx context.Context, step *reports.Step) error {
	if step.Before.State == reports.StateOpen && step.Ledger != nil {
		stored, err := s.Ledger(ctx, step.Before.Organization, step.Before.Entitlement)
		if err != nil {
			return err
		}
		stored.Version = step.Ledger.Version
		changed := *step
		changed.Ledger = &stored
		step = &changed
	}
	return s.Store.Write(ctx, step)
}

// Two hours are under way at once. The carry that one has used is gone for the other.
func TestGuard_Escrow(t *testing.T) {
	t.Parallel()
	run := func(guard bool) string {
		w := worldtest.NewWorld(t, sandbox.Options{})
		var store reporting.Store = w.Table
		if !guard {
			store = noEscrow{w.Table}
		}
		w.Report(worldtest.OnGoogle, rt.Hour, "d0 0.6")
		w.Set(closed)
		workBy(t, w, store)
		w.Report(worldtest.OnGoogle, closed, "d0 0.5")
		w.Report(worldtest.OnGoogle, rt.Hour.Add(time.Hour), "d0 0.5")
		w.Fault(sandbox.Fault{Fault: sandbox.Throttled})
		w.Set(closed.Add(2 * time.Hour))
		workBy(t, w, store)
		w.Set(closed.Add(2*time.Hour + 10*time.Minute))
		workBy(t, w, store)
		ledger, err := w.Table.Ledger(t.Context(), worldtest.Org, worldtest.OnGoogle)
		if err != nil {
			t.Fatal(err)
		}
		carry := ledger.Carry["d0"]
		return "billed " + w.Billed() + ", carry " + carry.String()
	}
	want(t, "with the guard", run(true), "billed d0=1, carry 0.6")
	if got := run(false); got == "billed d0=1, carry 0.6" {
		t.Errorf("nothing is noticed without it: %s", got)
	}
}

// A worker sleeps before its claim. Meanwhile the group was claimed, failed and retried: it waits
// for a later hour.
func TestGuard_DueHourInTheClaim(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	w.Change(func(c *sandbox.Catalog) { c.AWS.Products[0].Dimensions = c.AWS.Products[0].Dimensions[:1] })
	group := w.Report(worldtest.OnAWS, rt.Hour, "d5 1")
	w.Set(closed)
	w.Work()
	want(t, "failed", w.Status(group), "REPORT_FAILED DIMENSION_UNKNOWN")
	if _, err := w.Table.Retry(t.Context(), worldtest.Org, group, metering.Retry{Now: w.Now()}); err != nil {
		t.Fatal(err)
	}
	slept := reports.OpenHour(worldtest.Org, worldtest.OnAWS, rt.Hour)
	member, err := w.Table.Claim(t.Context(), &slept, group, w.Now())
	if err != nil || member != nil {
		t.Errorf("a worker that slept claims %v, %v", member, err)
	}
	want(t, "retried", w.Status(group), "CREATED")
}

// Two entitlements with one identity: the marketplace takes the usage of one for a duplicate of the
// other's.
func TestGuard_IdentityItem(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	twin := worldtest.Entitlements()[0]
	twin.ID = "ent-twin"
	change, err := metering.NewEntitlementChange(worldtest.Org, twin.ID, &twin, metering.Conditions{}, w.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.Table.PutEntitlement(t.Context(), &change); metering.CodeOf(err) != metering.Conflict {
		t.Errorf("with the guard: %v", err)
	}
	w.DeleteItems("ORG#"+string(worldtest.Org), "IDENTITY#")
	w.PutEntitlement(twin)
	one, other := w.Report(worldtest.OnAWS, rt.Hour, "d0 1"), w.Report("ent-twin", rt.Hour, "d0 2")
	w.Set(closed)
	w.Work()
	if a, b := w.Status(one), w.Status(other); a == "REPORTED" && b == "REPORTED" {
		t.Errorf("without it, both are reported, billed %s", w.Billed())
	}
}
