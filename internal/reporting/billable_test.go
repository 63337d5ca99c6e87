package reporting_test

import (
	"context"
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

// reading is a table that counts the lists of an hour whose billable records are added up.
type reading struct {
	*table.Table
	added string // their numbers
}

func (r *reading) PutBillable(ctx context.Context, h *reports.Hour, part int, b *reports.Billable) error {
	r.added += strconv.Itoa(part)
	return r.Table.PutBillable(ctx, h, part, b)
}

// listed is an hour of three lists of candidates, with a metric of each type: their dimensions are
// d0 (SUM), d1 (COUNT), d2 (UNIQUE_COUNT), d3 (MAX) and d4 (LAST). The second list has no billable
// records.
func listed(t *testing.T) (w *worldtest.World, h *reports.Hour, groups []metering.GroupID) {
	t.Helper()
	w = worldtest.NewWorld(t, sandbox.Options{})
	types := []metering.AggregationType{metering.AggregateSum, metering.AggregateCount, metering.AggregateUniqueCount, metering.AggregateMax, metering.AggregateLast}
	for i, of := range types {
		sent := metering.BillableMetric{Name: fmt.Sprint("d", i), AggregationType: of}
		if of == metering.AggregateUniqueCount {
			sent.Info.PropertyUniqueOn = "user"
		}
		w.AddMetric(metering.MetricID(fmt.Sprint("m", i)), sent)
	}
	use := func(minute int, quantity, user string) metering.GroupID {
		at := rt.Hour.Add(time.Duration(minute) * time.Minute)
		g := metering.NewGroup{EntitlementID: string(worldtest.OnAWS), Timestamp: &at}
		for i := range types {
			r := metering.NewBillableRecord{Key: fmt.Sprint("m", i), Quantity: quantity}
			if types[i] == metering.AggregateUniqueCount {
				r.Properties = map[string]any{"user": user}
			}
			g.BillableRecords = append(g.BillableRecords, r)
		}
		return w.ReportGroup(&g)
	}
	lists := [][]metering.GroupID{
		{use(10, "2.5", "ann"), use(30, "7", "bob")},
		{w.Report(worldtest.OnAWS, rt.Hour, "d0 100")},
		{use(20, "9", "ann"), use(5, "0.25", "eve")},
	}
	w.Set(closed)
	opened := reports.OpenHour(worldtest.Org, worldtest.OnAWS, rt.Hour)
	opened.Opened, opened.Opener, opened.Parts = closed, "opener", len(lists)
	if err := w.Table.Open(t.Context(), &opened, lists); err != nil {
		t.Fatal(err)
	}
	for _, list := range lists {
		groups = append(groups, list...)
	}
	return w, &opened, groups
}

// hurried is a context whose time is always about to end: a Plan ends after each list of
// candidates.
type hurried struct{ context.Context }

func (hurried) Deadline() (time.Time, bool) { return time.Now().Add(20 * time.Second), true }

// plan lets a worker that has little time left plan the hour until nothing of it is left to plan,
// and returns how often.
func plan(t *testing.T, w *worldtest.World, store reporting.Store, h *reports.Hour) (plans int) {
	t.Helper()
	worker := w.Worker(store)
	for hint := (reporting.Hint{Place: h.Place()}); hint == (reporting.Hint{Place: h.Place()}); {
		err := worker.Plan(hurried{t.Context()}, h.Place())
		if plans++; err != nil || plans == 20 {
			t.Fatalf("plan %d: %v", plans, err)
		}
		hint, _ = w.Queue.Next()
	}
	return plans
}

const ofAll = "d0=118.75 d1=4 d2=3 d3=9 d4=7"

// A worker with little time left adds up one list, and another continues: each is added up once,
// and one without billable records not at all.
func TestPlan_ContinuesToAddUpBillableRecords(t *testing.T) {
	t.Parallel()
	w, h, _ := listed(t)
	store := &reading{Table: w.Table}
	want(t, "plans", strconv.Itoa(plan(t, w, store, h)), "5") // each claims a list, or adds one up
	want(t, "added up", store.added, "02")
	w.Work()
	want(t, "billed", w.Billed(), ofAll)
}

// What is stored of a list and does not hold, or can't be read, is made again.
func TestPlan_AddsUpAgainWhatDoesNotHold(t *testing.T) {
	t.Parallel()
	addedBy := func(terms *metering.Terms) func(w *worldtest.World, h *reports.Hour) error {
		return func(w *worldtest.World, h *reports.Hour) error {
			members, err := w.Table.Members(t.Context(), h, candidatesOf(t, w, h, 0))
			if err != nil {
				return err
			}
			used := reports.NewBillable()
			used.Add(terms, members)
			return w.Table.PutBillable(t.Context(), h, 0, used)
		}
	}
	for name, spoil := range map[string]func(w *worldtest.World, h *reports.Hour) error{
		"by other metrics":                 addedBy(&metering.Terms{}),
		"for an hour that can't be sealed": addedBy(nil),
		"by a newer version": func(w *worldtest.World, h *reports.Hour) error {
			if err := w.Table.PutBillable(t.Context(), h, 0, reports.NewBillable()); err != nil {
				return err
			}
			w.SetText("ORG#acme#BILL#"+string(h.Entitlement), "HOUR#"+rt.Hour.Format("2006-01-02T15")+"#BILLABLE#000", "billable", `{"form":2}`)
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, h, ids := listed(t)
			for _, id := range ids {
				if _, err := w.Table.Claim(t.Context(), h, id, w.Now(), time.Time{}); err != nil {
					t.Fatal(err)
				}
			}
			if err := spoil(w, h); err != nil {
				t.Fatal(err)
			}
			store := &reading{Table: w.Table}
			plan(t, w, store, h)
			want(t, "added up", store.added, "02")
			w.Work()
			want(t, "billed", w.Billed(), ofAll)
		})
	}
}

func candidatesOf(t *testing.T, w *worldtest.World, h *reports.Hour, part int) []metering.GroupID {
	t.Helper()
	list, err := w.Table.Candidates(t.Context(), h, part)
	if err != nil {
		t.Fatal(err)
	}
	return list.IDs
}

// An hour of one list, as nearly all are, stores nothing more.
func TestPlan_StoresNothingOfASingleList(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	putMetric(w, "d0")
	reportMetric(w, worldtest.OnAWS, rt.Hour, "3")
	w.Set(closed)
	h := reports.OpenHour(worldtest.Org, worldtest.OnAWS, rt.Hour)
	store := &reading{Table: w.Table}
	plan(t, w, store, &h)
	want(t, "added up", store.added, "")
	w.Work()
	want(t, "billed", w.Billed(), "d0=3")
}

// An hour of several lists that can't be sealed ends too, with what was accepted of each.
func TestPlan_ContinuesToExpireBillableRecords(t *testing.T) {
	t.Parallel()
	w, h, groups := listed(t)
	w.PutNewerConfig("AWS", `"newer":true`)
	w.Set(rt.Hour.Add(30 * time.Hour))
	store := &reading{Table: w.Table}
	plan(t, w, store, h)
	want(t, "added up", store.added, "0202") // to be sealed, which fails; then for its end
	w.Work()
	want(t, "billed", w.Billed(), "")
	for _, id := range groups {
		status, problems, _ := strings.Cut(w.Status(id), " ")
		want(t, string(id), status, "REPORT_FAILED")
		want(t, string(id), strings.ReplaceAll(problems, " EXPIRED", ""), "EXPIRED") // of each dimension
	}
	sealed := w.Hour(worldtest.OnAWS, rt.Hour)
	want(t, "d0", sealed.Record("d0").Members.String(), "118.75")
}
