package reporting_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/reporting"
	rt "github.com/marketmeter/marketmeter/internal/reporting/reportingtest"
	"github.com/marketmeter/marketmeter/internal/reporting/worldtest"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/sandbox"
)

// work does all that is due, as World.Work, and returns the errors of what fails.
func work(t *testing.T, w *worldtest.World) (failed error) {
	t.Helper()
	worker := w.Worker(w.Table)
	if _, err := worker.Schedule(t.Context()); err != nil {
		failed = err
	}
	for {
		hint, ok := w.Queue.Next()
		if !ok {
			return failed
		}
		failed = errors.Join(failed, worker.Work(t.Context(), hint))
	}
}

// workFails does all that is due, of which something fails.
func workFails(t *testing.T, w *worldtest.World) {
	t.Helper()
	if err := work(t, w); err == nil {
		t.Error("nothing fails")
	}
}

// A stop is something stored that does not let an hour be sealed.
type stop struct {
	name   string
	make   func(w *worldtest.World, e metering.Entitlement)
	reason string
}

func stops() []stop {
	return []stop{
		{"a member of a newer version", func(w *worldtest.World, e metering.Entitlement) { w.PutNewerConfig(e.Partner, `"newer":true`) }, `member "newer"`},
		{"a mapping of a newer version", func(w *worldtest.World, e metering.Entitlement) {
			w.PutNewerConfig(e.Partner, `"enableDimensionMapping":true,"dimensionMappingV2":{"m":{"newer":true}}`)
		}, "is mapped by dimensionMappingV2"},
		{"an amount for which no rate is left", func(w *worldtest.World, e metering.Entitlement) {
			w.PutNewerConfig(e.Partner, `"enableDimensionMapping":true,"dimensionMapping":{"m":{"dimensionKey":"d1","mappingMode":"AMOUNT"}}`)
			e.Info.Dimensions = []metering.Dimension{{Key: "d0"}, {Key: "d1"}, {Key: "d2"}}
			w.PutEntitlement(e)
		}, "can't be converted"},
		{"no entitlement", func(w *worldtest.World, e metering.Entitlement) {
			w.DeleteItems("ORG#acme", "ENTITLEMENT#"+string(e.ID))
		}, "the entitlement does not exist any more"},
		{"an entitlement that can't be read", func(w *worldtest.World, e metering.Entitlement) {
			w.SetText("ORG#acme", "ENTITLEMENT#"+string(e.ID), "entitlement", "{")
		}, "can't be read"},
		{"a metric that can't be read", func(w *worldtest.World, _ metering.Entitlement) { w.SetText("ORG#acme", "METRIC#m", "metric", "{") }, "can't be read"},
		{"a ledger of a newer version", func(w *worldtest.World, e metering.Entitlement) {
			w.SetText("ORG#acme#BILL#"+string(e.ID), "LEDGER", "ledger", `{"newer":1}`)
		}, "what earlier hours have left can't be read"},
	}
}

// reportMetric stores usage of the billable metric m.
func reportMetric(w *worldtest.World, e metering.EntitlementID, at time.Time, quantity string) metering.GroupID {
	return w.ReportGroup(&metering.NewGroup{
		EntitlementID: string(e), Timestamp: &at, BillableRecords: []metering.NewBillableRecord{{Key: "m", Quantity: quantity}},
	})
}

// putMetric stores the billable metric m, a sum.
func putMetric(w *worldtest.World, name string) {
	w.AddMetric("m", metering.BillableMetric{Name: name, AggregationType: metering.AggregateSum})
}

func ledgerOf(t *testing.T, w *worldtest.World, e metering.EntitlementID) string {
	t.Helper()
	l, err := w.Table.Ledger(t.Context(), worldtest.Org, e)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(l.Version, l.Carry["d0"], l.Used)
}

// gone is a table of a worker that ends before it seals.
type gone struct{ *table.Table }

func (gone) Write(context.Context, *reports.Step) error { return errors.New("the worker is gone") }

// Whatever stops the seal of an hour, at its deadline the hour ends: its groups say why, nothing
// waits, and the ledger has what it had.
func TestWorker_EndsAtItsDeadlineAnHourThatCantBeSealed(t *testing.T) {
	t.Parallel()
	for i, stop := range stops() {
		e := worldtest.Entitlements()[i%3]
		t.Run(stop.name, func(t *testing.T) {
			t.Parallel()
			w := worldtest.NewWorld(t, sandbox.Options{})
			putMetric(w, "d1")
			w.Report(e.ID, rt.Hour.Add(-3*time.Hour), "d0 0.0000001") // which is carried
			w.Work()
			plain, metric := w.Report(e.ID, rt.Hour, "d0 1, d2 3"), reportMetric(w, e.ID, rt.Hour, "2")
			ledger := ledgerOf(t, w, e.ID)
			w.Set(closed)
			place := reports.Place{Organization: worldtest.Org, Entitlement: e.ID, Hour: rt.Hour}
			if err := w.Worker(gone{w.Table}).Plan(t.Context(), place); err == nil {
				t.Error("the worker is not gone")
			}
			stop.make(w, e)
			workFails(t, w)
			want(t, "hour", outcome(w, e.ID, rt.Hour, "d0"), "OPEN")
			want(t, "groups", w.Status(plain)+" "+w.Status(metric), "REPORT_PENDING REPORT_PENDING")
			if n := w.Log.Count(reporting.EventSealStopped); n == 0 {
				t.Error("no event says that the seal stopped")
			}
			deadline := metering.WindowOf(e.Partner, rt.Hour, time.Time{}).End
			w.Set(deadline.Add(-time.Second))
			if err := work(t, w); err == nil || w.Log.Count(reporting.EventExpired) > 0 {
				t.Errorf("before the deadline: %v, %d expired", err, w.Log.Count(reporting.EventExpired))
			}
			w.Set(deadline)
			stopped := w.Log.Count(reporting.EventSealStopped)
			if err := work(t, w); err != nil && stop.name != "an entitlement that can't be read" { // Schedule has asked for its deadline
				t.Error(err)
			}
			for _, dimension := range []string{"d0", "d1", "d2"} {
				want(t, dimension, outcome(w, e.ID, rt.Hour, dimension), "SETTLED REJECTED SEAL EXPIRED")
			}
			want(t, "plain", w.Status(plain), "REPORT_FAILED EXPIRED EXPIRED")
			want(t, "metric", w.Status(metric), "REPORT_FAILED EXPIRED")
			want(t, "expired", strconv.Itoa(w.Log.Count(reporting.EventExpired)), "3")
			want(t, "stopped", strconv.Itoa(w.Log.Count(reporting.EventSealStopped)), strconv.Itoa(stopped))
			if m := w.Group(metric).Problems[0].Message; !strings.Contains(m, stop.reason) || !strings.Contains(m, "window of the hour ended") {
				t.Errorf("the problem is %q; want why: %s", m, stop.reason)
			}
			h := w.Hour(e.ID, rt.Hour)
			if h.Sealed.Groups != 2 || h.Sealed.Partner != e.Partner || h.Sealed.Buyer != e.BuyerID {
				t.Errorf("the report is %+v", h.Sealed)
			}
			if stop.name != "a ledger of a newer version" {
				want(t, "ledger", ledgerOf(t, w, e.ID), ledger)
			}
			seen, err := w.Worker(w.Table).Schedule(t.Context())
			if err != nil || seen.Places != 0 || !seen.Oldest.IsZero() || !seen.Closed.IsZero() || !seen.Deadline.IsZero() {
				t.Errorf("work is left: %+v, %v", seen, err)
			}
			if _, hint := w.Queue.Next(); hint {
				t.Error("a hint is left")
			}
			if !strings.Contains(reportsOf(t, w), `"code":"EXPIRED"`) {
				t.Error("the report is not listed")
			}
		})
	}
}

// reportsOf returns the reports as the API lists them.
func reportsOf(t *testing.T, w *worldtest.World) (json string) {
	t.Helper()
	f := metering.GroupFilter{StartDate: "2026-11-01", EndDate: "2026-12-31"}
	r := metering.ListRequest{Filter: f, Client: "k1", Limit: 1_000, MaxSize: metering.MaxListSize, Now: w.Now(), ReadFor: 10 * time.Second}
	if _, err := w.Table.Reports(t.Context(), worldtest.Org, r, nil, func(reports []byte, _ metering.GroupPage) error {
		json = string(reports)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return json
}

// The deadline of a cancelled entitlement is its own.
func TestWorker_EndsAnHourThatCantBeSealedAfterACancellation(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	group := w.Report(worldtest.OnAWS, rt.Hour, "d0 1")
	e := worldtest.Entitlements()[0]
	e.Status, e.CancelTime = metering.EntitlementCancelled, rt.Hour.Add(30*time.Minute)
	w.PutEntitlement(e)
	w.PutNewerConfig(e.Partner, `"newer":true`)
	w.Set(rt.Hour.Add(89 * time.Minute))
	workFails(t, w)
	want(t, "before", w.Status(group), "REPORT_PENDING")
	end := rt.Hour.Add(90 * time.Minute)
	want(t, "reportBy", metering.FormatTime(w.Group(group).ReportBy), metering.FormatTime(end))
	w.Set(end)
	w.Work()
	want(t, "after", w.Status(group), "REPORT_FAILED EXPIRED")
}

// A config that can be read again before the deadline seals the hour as usual.
func TestWorker_SealsAnHourOnceItsConfigCanBeRead(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	group := w.Report(worldtest.OnAWS, rt.Hour, "d0 1")
	w.PutNewerConfig("AWS", `"newer":true`)
	w.Set(closed)
	workFails(t, w)
	w.SetText("ORG#acme", "CONFIG#0000000001", "config", `{"partnerUsageMeteringConfigs":[]}`)
	w.Set(rt.Hour.Add(23 * time.Hour))
	w.Work()
	want(t, "group", w.Status(group), "REPORTED")
	want(t, "billed", w.Billed(), "d0=1")
}

// What an hour has ended with is retried as a whole, in a later hour if the connection has it.
func TestWorker_BillsARetryAfterAnHourThatCouldNotBeSealed(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	putMetric(w, "d1")
	plain, metric := w.Report(worldtest.OnAWS, rt.Hour, "d0 1, d2 3"), reportMetric(w, worldtest.OnAWS, rt.Hour, "2")
	w.PutNewerConfig("AWS", `"enableDimensionMapping":true,"dimensionMappingV2":{"m":{"newer":true}}`)
	w.Set(closed)
	workFails(t, w)
	w.Set(rt.Hour.Add(24 * time.Hour))
	w.Work()
	want(t, "groups", w.Status(plain)+", "+w.Status(metric), "REPORT_FAILED EXPIRED EXPIRED, REPORT_FAILED EXPIRED")
	w.PutConnection(metering.Connection{Partner: "AWS", LateUsage: metering.LateUsageCarried})
	w.PutConfig(metering.Config{"partnerUsageMeteringConfigs": []any{map[string]any{
		"partner": "AWS", "enableDimensionMapping": true,
		"dimensionMapping": map[string]any{"m": map[string]any{"dimensionKey": "d5", "convertionMultiplier": number("1")}},
	}}})
	for _, id := range []metering.GroupID{plain, metric} {
		if _, err := w.Table.Retry(t.Context(), worldtest.Org, id, metering.Retry{Now: w.Now()}); err != nil {
			t.Fatal(err)
		}
	}
	w.Work()
	want(t, "groups", w.Status(plain)+", "+w.Status(metric), "REPORTED, REPORTED")
	want(t, "billed, by the config of now", w.Billed(), "d0=1 d2=3 d5=2")
	w.Set(w.Now().Add(48 * time.Hour))
	w.Work()
	want(t, "billed in the end", w.Billed(), "d0=1 d2=3 d5=2")
}

// endsLate is a table of a worker whose clock is late: before it ends an hour, another one seals
// and sends it.
type endsLate struct {
	*table.Table
	before func()
}

func (e endsLate) Write(ctx context.Context, s *reports.Step) error {
	if s.Before.State == reports.StateOpen && s.After.State == reports.StateDecided {
		e.before()
	}
	return e.Table.Write(ctx, s)
}

func TestWorker_DoesNotEndAnHourThatAnotherSealed(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	group := w.Report(worldtest.OnAWS, rt.Hour, "d0 1")
	w.PutNewerConfig("AWS", `"newer":true`)
	w.Set(closed)
	workFails(t, w)
	w.Set(rt.Hour.Add(24*time.Hour - time.Minute))
	fast := w.Worker(endsLate{w.Table, func() {
		w.SetText("ORG#acme", "CONFIG#0000000001", "config", `{"partnerUsageMeteringConfigs":[]}`)
		w.Work()
	}})
	fast.Now = func() time.Time { return w.Now().Add(2 * time.Minute) }
	if err := fast.Plan(t.Context(), reports.Place{Organization: worldtest.Org, Entitlement: worldtest.OnAWS, Hour: rt.Hour}); err != nil {
		t.Error(err)
	}
	want(t, "group", w.Status(group), "REPORTED")
	want(t, "outcome", outcome(w, worldtest.OnAWS, rt.Hour, "d0"), "SETTLED ACCEPTED RESPONSE")
	want(t, "billed", w.Billed(), "d0=1")
	want(t, "expired", strconv.Itoa(w.Log.Count(reporting.EventExpired)), "0")
}
