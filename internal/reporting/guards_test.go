package reporting_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/reporting"
	rt "github.com/marketmeter/marketmeter/internal/reporting/reportingtest"
	"github.com/marketmeter/marketmeter/internal/reporting/worldtest"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
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

// Two hours are under way at once. The carry that one has used is gone for the other: without the
// guard, 1.6 that were used become 2 billed and 0.8 left.
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
	want(t, "without it", run(false), "billed d0=1 d0=1, carry 0.8")
}

// sleeper is a table of a worker that sleeps before its first claim.
type sleeper struct {
	reporting.Store
	sleep func() // nil once it has slept
}

func (s *sleeper) Claim(ctx context.Context, h *reports.Hour, id metering.GroupID, now, reportBy time.Time) (*reports.Member, error) {
	if sleep := s.sleep; sleep != nil {
		s.sleep = nil
		sleep()
	}
	return s.Store.Claim(ctx, h, id, now, reportBy)
}

// anyDueHour is a connection to a table whose updates of groups that wait for an hour change those
// that wait for the next one.
type anyDueHour struct{ hour time.Time }

func (a anyDueHour) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	if tabletest.Action(r) == "UpdateItem" {
		due := func(hour time.Time) []byte { return []byte(hour.Format(`"2006-01-02T15#`)) }
		body = bytes.ReplaceAll(body, due(a.hour), due(a.hour.Add(time.Hour)))
	}
	changed := r.Clone(r.Context())
	changed.Body = io.NopCloser(bytes.NewReader(body)) // of the same length
	return http.DefaultTransport.RoundTrip(changed)
}

// A worker sleeps before its claim. Meanwhile the group is claimed, fails and is retried: it waits
// for a later hour. Without the guard, the worker claims it for an hour that is settled, in which
// nothing is sent any more.
func TestGuard_DueHourInTheClaim(t *testing.T) {
	t.Parallel()
	run := func(guard bool) string {
		w := worldtest.NewWorld(t, sandbox.Options{})
		name := func(d5 string) {
			w.Change(func(c *sandbox.Catalog) { c.AWS.Products[0].Dimensions[5].Key = d5 })
		}
		name("gone")
		group := w.Report(worldtest.OnAWS, rt.Hour, "d5 1")
		store := w.Table
		if !guard {
			store = table.New(tabletest.NewClient(anyDueHour{rt.Hour}), w.TableName)
		}
		w.Set(closed)
		workBy(t, w, &sleeper{store, func() {
			w.Work()
			want(t, "meanwhile", w.Status(group), "REPORT_FAILED DIMENSION_UNKNOWN")
			name("d5")
			if _, err := w.Table.Retry(t.Context(), worldtest.Org, group, metering.Retry{Now: w.Now()}); err != nil {
				t.Fatal(err)
			}
			want(t, "retried", w.Status(group), "CREATED")
		}})
		for range 3 {
			w.Set(w.Now().Add(time.Hour))
			w.Work()
		}
		return w.Status(group) + ", billed " + w.Billed()
	}
	want(t, "with the guard", run(true), "REPORTED, billed d5=1")
	want(t, "without it", run(false), "REPORT_PENDING, billed ")
}

// Two entitlements with one identity: the marketplace takes the usage of one for a duplicate of the
// other's.
func TestGuard_IdentityItem(t *testing.T) {
	t.Parallel()
	run := func(guard bool) string {
		w := worldtest.NewWorld(t, sandbox.Options{IdenticalResend: sandbox.ResendDuplicate})
		one, twin := worldtest.Entitlements()[0], worldtest.Entitlements()[0]
		twin.ID = "ent-twin"
		if !guard {
			w.DeleteItems("ORG#"+string(worldtest.Org), "IDENTITY#")
		}
		put := func() error {
			change, err := metering.NewEntitlementChange(worldtest.Org, twin.ID, &twin, metering.Conditions{}, w.Now())
			if err == nil {
				_, _, err = w.Table.PutEntitlement(t.Context(), &change)
			}
			return err
		}
		if err := put(); guard {
			if metering.CodeOf(err) != metering.Conflict {
				t.Errorf("the twin is not refused: %v", err)
			}
			w.Change(func(c *sandbox.Catalog) {
				agreement := c.AWS.Agreements[0]
				agreement.LicenseArn = "arn:aws:license-manager::294406891311:license:l-3"
				c.AWS.Agreements = append(c.AWS.Agreements, agreement)
				twin.Marketplace.LicenseARN = agreement.LicenseArn
			})
			if err := put(); err != nil {
				t.Fatal(err)
			}
		} else if err != nil {
			t.Fatal(err)
		}
		first := w.Report(one.ID, rt.Hour, "d0 1")
		w.Set(closed)
		w.Work()
		// Nothing shows that the record which stands is not the twin's: its own response was lost.
		other := w.Report(twin.ID, rt.Hour, "d0 1")
		accepted := false
		w.Fault(sandbox.Fault{Fault: sandbox.Lost, Accepted: &accepted})
		w.Work()
		w.Set(closed.Add(10 * time.Minute))
		w.Work()
		return w.Status(first) + " and " + w.Status(other) + ", billed " + w.Billed()
	}
	want(t, "with the guard", run(true), "REPORTED and REPORTED, billed d0=1 d0=1")
	want(t, "without it", run(false), "REPORTED and REPORTED, billed d0=1")
}
