package reporting_test

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	rt "github.com/marketmeter/marketmeter/internal/reporting/reportingtest"
	"github.com/marketmeter/marketmeter/internal/reporting/worldtest"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/sandbox"
)

// sells lets the product have dimensions d0 and up, but for some.
func sells(w *worldtest.World, but ...string) {
	w.Change(func(c *sandbox.Catalog) {
		for i := range c.AWS.Products[0].Dimensions {
			key := "d" + strconv.Itoa(i)
			if strings.Contains(strings.Join(but, " "), key) {
				key = "gone-" + key
			}
			c.AWS.Products[0].Dimensions[i].Key = key
		}
	})
}

// Three groups of an hour have a maximum, a unique count or the last value of 10. It is rejected,
// and something else of them is billed. A retry must not bill 30, their sum: it is refused.
// What sums up is retried.
func TestRetry_InPartOfWhatDoesNotAddUp(t *testing.T) {
	t.Parallel()
	for kind, of := range map[metering.AggregationType]string{
		metering.AggregateMax: "", metering.AggregateLast: "", metering.AggregateUniqueCount: "",
		metering.AggregateSum: "d1=30", metering.AggregateCount: "d1=3",
	} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			w := worldtest.NewWorld(t, sandbox.Options{})
			for id, m := range map[metering.MetricID]metering.BillableMetric{
				"m0": {Name: "d0", AggregationType: metering.AggregateSum}, "m1": {Name: "d1", AggregationType: kind},
			} {
				if kind == metering.AggregateUniqueCount && id == "m1" {
					m.Info.PropertyUniqueOn = "user"
				}
				w.AddMetric(id, m)
			}
			sells(w, "d1")
			w.Set(w.Now().Add(time.Minute))
			var ids []metering.GroupID
			for range 3 {
				at := rt.Hour.Add(10 * time.Minute)
				g := metering.NewGroup{EntitlementID: string(worldtest.OnAWS), Timestamp: &at, BillableRecords: []metering.NewBillableRecord{
					{Key: "m0", Quantity: "1"}, {Key: "m1", Quantity: "10"},
				}}
				if kind == metering.AggregateUniqueCount {
					g.BillableRecords[1].Properties = map[string]any{"user": "ann"}
				}
				ids = append(ids, w.ReportGroup(&g))
			}
			w.Set(closed)
			w.Work()
			want(t, "billed", w.Billed(), "d0=3")
			sells(w)
			for _, id := range ids {
				_, err := w.Table.Retry(t.Context(), worldtest.Org, id, metering.Retry{Now: w.Now()})
				if of == "" && (metering.CodeOf(err) != metering.Invalid || !strings.Contains(err.Error(), "m1")) || of != "" && err != nil {
					t.Errorf("retry: %v", err)
				}
			}
			w.Set(closed.Add(time.Hour))
			w.Work()
			want(t, "billed after the retry", w.Billed(), strings.TrimSpace("d0=3 "+of))
		})
	}
}

// Two metrics added to one dimension when their group was stored, and to two when its hour was
// sealed. One of these was billed. What is stored of the other has the usage of both: it is not
// retried. Without the change, the rest is billed.
func TestRetry_InPartOfWhatWasConvertedOtherwise(t *testing.T) {
	t.Parallel()
	mapped := func(w *worldtest.World, first string) {
		w.PutConfig(metering.Config{"partnerUsageMeteringConfigs": []any{map[string]any{
			"partner": "AWS", "enableDimensionMapping": true, "dimensionMapping": map[string]any{
				"m0": map[string]any{"dimensionKey": first, "convertionMultiplier": number("1")},
				"m1": map[string]any{"dimensionKey": "d1", "convertionMultiplier": number("1")},
			},
		}}})
	}
	for name, test := range map[string]struct {
		stored  string
		change  func(w *worldtest.World)
		refused bool
		billed  string
	}{
		"nothing":    {"d0", func(*worldtest.World) {}, false, "d0=10 d1=5"},
		"the config": {"d1", func(w *worldtest.World) { mapped(w, "d0") }, true, "d0=10"},
		"the entitlement": {"d0", func(w *worldtest.World) {
			e := worldtest.Entitlements()[0]
			e.ExternalID = "another"
			w.PutEntitlement(e)
		}, true, "d0=10"},
		"a metric's details": {"d0", func(w *worldtest.World) { renameMetric(t, w, "m0") }, true, "d0=10"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := worldtest.NewWorld(t, sandbox.Options{})
			for i := range 2 {
				w.AddMetric(metering.MetricID("m"+strconv.Itoa(i)), metering.BillableMetric{Name: "metric " + strconv.Itoa(i), AggregationType: metering.AggregateSum})
			}
			mapped(w, test.stored)
			w.Set(w.Now().Add(time.Minute))
			at := rt.Hour.Add(10 * time.Minute)
			group := w.ReportGroup(&metering.NewGroup{
				EntitlementID: string(worldtest.OnAWS), Timestamp: &at,
				BillableRecords: []metering.NewBillableRecord{{Key: "m0", Quantity: "10"}, {Key: "m1", Quantity: "5"}},
			})
			w.Set(w.Now().Add(time.Minute))
			test.change(w)
			sells(w, "d1")
			w.Set(closed)
			w.Work()
			want(t, "billed", w.Billed(), "d0=10")
			sells(w)
			_, err := w.Table.Retry(t.Context(), worldtest.Org, group, metering.Retry{Now: w.Now()})
			if test.refused != (metering.CodeOf(err) == metering.Invalid && err != nil) || !test.refused && err != nil {
				t.Errorf("retry: %v", err)
			}
			w.Set(closed.Add(time.Hour))
			w.Work()
			want(t, "billed after the retry", w.Billed(), test.billed)
		})
	}
}

// A retry in part is rejected again. The second one takes what the first has taken, whatever was
// changed since.
func TestRetry_InPartAgainAfterAChange(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	putMetric(w, "d1")
	w.AddMetric("m2", metering.BillableMetric{Name: "d0", AggregationType: metering.AggregateCount})
	sells(w, "d1")
	w.Set(w.Now().Add(time.Minute))
	at := rt.Hour.Add(10 * time.Minute)
	id := w.ReportGroup(&metering.NewGroup{
		EntitlementID: string(worldtest.OnAWS), Timestamp: &at,
		BillableRecords: []metering.NewBillableRecord{{Key: "m", Quantity: "5"}, {Key: "m2", Quantity: "1"}},
	})
	for round := range 3 {
		w.Set(closed.Add(time.Duration(round) * time.Hour))
		w.Work()
		want(t, "billed", w.Billed(), "d0=1")
		if round == 2 {
			sells(w)
		}
		if _, err := w.Table.Retry(t.Context(), worldtest.Org, id, metering.Retry{Now: w.Now()}); err != nil {
			t.Fatalf("retry %d: %v", round+1, err)
		}
		e := worldtest.Entitlements()[0]
		e.ExternalID = "of round " + strconv.Itoa(round)
		w.PutEntitlement(e)
	}
	w.Set(closed.Add(3 * time.Hour))
	w.Work()
	want(t, "billed", w.Billed(), "d0=1 d1=5")
	want(t, "group", w.Status(id), "REPORTED")
}

// What is left of a group was converted for its marketplace: it is not retried at another one.
func TestRetry_InPartAtAnotherMarketplace(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	sells(w, "d1")
	group := w.Report(worldtest.OnAWS, rt.Hour, "d0 1, d1 5")
	w.Set(closed)
	w.Work()
	e := worldtest.Entitlements()[1]
	e.ID, e.Marketplace = worldtest.OnAWS, metering.MarketplaceIDs{ResourceID: "cccccccc-0000-4000-8000-000000000077"}
	w.PutEntitlement(e)
	_, err := w.Table.Retry(t.Context(), worldtest.Org, group, metering.Retry{Now: w.Now()})
	if metering.CodeOf(err) != metering.Invalid || !strings.Contains(err.Error(), "AWS") {
		t.Errorf("retry: %v", err)
	}
}

func renameMetric(t *testing.T, w *worldtest.World, id metering.MetricID) {
	t.Helper()
	name := "another name"
	if _, _, err := w.Table.ChangeMetric(t.Context(), worldtest.Org, id, w.Now(), metering.MetricPatch{Name: &name}); err != nil {
		t.Fatal(err)
	}
}

// A group is rejected, and retried under another dimension, which another group of its first hour
// has in conflict. The retry expires. When the conflict is resolved as billed, that is no usage of
// the group, which stays as it is; the hour settles, whatever the dimension is.
func TestRetry_ThatExpiresIsNoMemberOfItsFirstHour(t *testing.T) {
	t.Parallel()
	for _, to := range []string{"d1", "d2"} {
		t.Run(to, func(t *testing.T) {
			t.Parallel()
			w := worldtest.NewWorld(t, sandbox.Options{})
			sells(w, "d0")
			w.Set(closed)
			want(t, "another meter", rt.Verdicts(send(w.Marketplace("AWS"), rt.AWS("d1", "9"))), "billed done")
			group, other := w.Report(worldtest.OnAWS, rt.Hour, "d0 5"), w.Report(worldtest.OnAWS, rt.Hour, "d1 3")
			w.Work()
			want(t, "groups", w.Status(group)+", "+w.Status(other), "REPORT_FAILED DIMENSION_UNKNOWN, REPORT_FAILED CONFLICT")
			w.PutConfig(metering.Config{"partnerUsageMeteringConfigs": []any{map[string]any{
				"partner": "AWS", "enableDimensionMapping": true,
				"dimensionMapping": map[string]any{"d0": map[string]any{"dimensionKey": to, "convertionMultiplier": number("1")}},
			}}})
			if g, err := w.Table.Retry(t.Context(), worldtest.Org, group, metering.Retry{Now: w.Now()}); err != nil || g.Status != metering.StatusCreated {
				t.Fatalf("%+v, %v", g, err)
			}
			w.Set(rt.Hour.Add(30 * time.Hour))
			w.Work()
			want(t, "expired", w.Status(group), "REPORT_FAILED EXPIRED")
			resolve(t, w, "d1", true)
			if err := work(t, w); err != nil {
				t.Error(err)
			}
			want(t, "groups", w.Status(group)+", "+w.Status(other), "REPORT_FAILED EXPIRED, REPORTED")
			want(t, "hour", string(w.Hour(worldtest.OnAWS, rt.Hour).State), "SETTLED")
		})
	}
}

// resolve is an operator's resolve that is interrupted before the groups have their status.
func resolve(t *testing.T, w *worldtest.World, dimension string, billed bool) {
	t.Helper()
	h := w.Hour(worldtest.OnAWS, rt.Hour)
	ledger, err := w.Table.Ledger(t.Context(), worldtest.Org, worldtest.OnAWS)
	if err != nil {
		t.Fatal(err)
	}
	after, left, err := h.Resolve(ledger, dimension, billed, "ann", w.Now())
	if err == nil {
		err = w.Table.Write(t.Context(), &reports.Step{Before: h, After: &after, Ledger: &left})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// applying is a table that counts the groups that are given a status.
type applying struct {
	*table.Table
	mu      sync.Mutex
	applied []metering.GroupID
}

func (a *applying) Apply(ctx context.Context, h *reports.Hour, id metering.GroupID, as *reports.Applied, now time.Time) error {
	a.mu.Lock()
	a.applied = append(a.applied, id)
	a.mu.Unlock()
	return a.Table.Apply(ctx, h, id, as, now)
}

// An hour is settled again. Groups that are REPORTED are not written: of a large hour, a Plan would
// have no time left for the others, again and again.
func TestSettle_AgainLeavesReportedGroups(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	w.Set(closed)
	want(t, "another meter", rt.Verdicts(send(w.Marketplace("AWS"), rt.AWS("d1", "9"))), "billed done")
	w.Report(worldtest.OnAWS, rt.Hour, "d0 5")
	other := w.Report(worldtest.OnAWS, rt.Hour, "d1 3")
	lists := w.Worker(w.Table)
	lists.MaxCandidates = 1 // a single short list is not read
	w.WorkBy(lists)
	resolve(t, w, "d1", true)
	store := &applying{Table: w.Table}
	workBy(t, w, store)
	if len(store.applied) != 1 || store.applied[0] != other {
		t.Errorf("%v are applied, want %s", store.applied, other)
	}
	want(t, "other", w.Status(other), "REPORTED")
}

// Usage of before the start of its entitlement waits for the hour of the start.
func TestPlan_UsageOfBeforeTheStart(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	group := w.Report(worldtest.OnAWS, rt.Hour, "d0 5")
	e := worldtest.Entitlements()[0]
	e.StartTime = rt.Hour.Add(2*time.Hour + 30*time.Minute)
	w.PutEntitlement(e)
	w.Set(closed)
	w.Work()
	want(t, "before", w.Status(group), "CREATED")
	w.Set(closed.Add(2 * time.Hour))
	w.Work()
	want(t, "group", w.Status(group), "REPORTED")
	if sealed := w.Hour(worldtest.OnAWS, rt.Hour.Add(2*time.Hour)).Sealed; !sealed.From.Equal(e.StartTime) {
		t.Errorf("sent from %s", sealed.From)
	}
	// A start that is wrong for a while parks nothing.
	wrong := worldtest.NewWorld(t, sandbox.Options{})
	group = wrong.Report(worldtest.OnAWS, rt.Hour, "d0 5")
	e.StartTime = rt.Hour.Add(18 * 24 * time.Hour)
	wrong.PutEntitlement(e)
	wrong.Set(closed)
	wrong.Work()
	want(t, "a wrong start", wrong.Status(group), "CREATED")
	e.StartTime = time.Time{}
	wrong.PutEntitlement(e)
	wrong.Work()
	want(t, "corrected", wrong.Status(group), "REPORTED")
	for late, status := range map[metering.LateUsage]string{metering.LateUsageCarried: "CREATED", metering.LateUsages[0]: "REPORT_FAILED EXPIRED"} {
		never := worldtest.NewWorld(t, sandbox.Options{})
		never.PutConnection(metering.Connection{Partner: "AWS", LateUsage: late})
		group = never.Report(worldtest.OnAWS, rt.Hour, "d0 5")
		e.StartTime = rt.Hour.Add(18 * 24 * time.Hour)
		never.PutEntitlement(e)
		never.Set(rt.Hour.Add(25 * time.Hour))
		never.Work()
		want(t, "never corrected", never.Status(group), status)
	}
	e.StartTime = rt.Hour.Add(2*time.Hour + 30*time.Minute)
	// A retry waits in the same way. It has no deadline under CARRY, as a later hour takes it.
	retried := worldtest.NewWorld(t, sandbox.Options{})
	retried.PutConnection(metering.Connection{Partner: "AWS", LateUsage: metering.LateUsageCarried})
	sells(retried, "d0")
	at := rt.Hour
	group = retried.ReportGroup(&metering.NewGroup{
		EntitlementID: string(worldtest.OnAWS), Timestamp: &at, Records: []metering.NewRecord{{Key: "d0", Quantity: "5"}},
		MetaInfo: metering.NewMetaInfo{SkipValidation: true},
	})
	retried.Set(closed)
	retried.Work()
	sells(retried)
	e.StartTime = rt.Hour.Add(300 * 24 * time.Hour)
	retried.PutEntitlement(e)
	if _, err := retried.Table.Retry(t.Context(), worldtest.Org, group, metering.Retry{Now: retried.Now()}); err != nil {
		t.Fatal(err)
	}
	for _, at := range []time.Time{closed.Add(time.Hour), closed.Add(30 * time.Hour)} {
		seen, hints := look(t, retried, at)
		if late := at.After(rt.Hour.Add(25 * time.Hour)); seen.Closed.IsZero() || hints != 1 || late != seen.Deadline.IsZero() {
			t.Errorf("%+v, %d hints", seen, hints)
		}
		retried.Work()
	}
	want(t, "a retry before a wrong start", retried.Status(group), "CREATED")
	e.StartTime = time.Time{}
	retried.PutEntitlement(e)
	retried.Work()
	retried.Set(closed.Add(31 * time.Hour))
	retried.Work()
	want(t, "a retry after a wrong start", retried.Status(group), "REPORTED")
	e.StartTime = rt.Hour.Add(2*time.Hour + 30*time.Minute)
	// It starts later once the hour has claimed its group.
	late := worldtest.NewWorld(t, sandbox.Options{})
	group = late.Report(worldtest.OnAWS, rt.Hour, "d0 5")
	late.Set(closed)
	if err := late.Worker(gone{late.Table}).Plan(t.Context(), reports.Place{Organization: worldtest.Org, Entitlement: worldtest.OnAWS, Hour: rt.Hour}); err == nil {
		t.Error("the worker is not gone")
	}
	late.PutEntitlement(e)
	late.Work()
	want(t, "claimed", late.Status(group), "REPORT_FAILED NO_HOUR_LEFT")
	if message := late.Group(group).Problems[0].Message; !strings.Contains(message, "starts after the hour") {
		t.Errorf("the problem is %q", message)
	}
}

// A cancellation is taken back while the hour that it ended is OPEN: the hour is sealed when it
// ends, and takes the usage until then that came later in the next.
func TestPlan_CancellationThatIsTakenBack(t *testing.T) {
	t.Parallel()
	for _, cancel := range []time.Duration{0, 50 * time.Minute} {
		w := worldtest.NewWorld(t, sandbox.Options{})
		e := worldtest.Entitlements()[2]
		w.Set(rt.Hour.Add(4 * time.Minute))
		group := w.Report(e.ID, rt.Hour, "d0 5")
		e.Status, e.CancelTime = metering.EntitlementCancelled, rt.Hour.Add(5*time.Minute)
		w.PutEntitlement(e)
		w.Set(rt.Hour.Add(16 * time.Minute))
		place := reports.Place{Organization: worldtest.Org, Entitlement: e.ID, Hour: rt.Hour}
		if err := w.Worker(gone{w.Table}).Plan(t.Context(), place); err == nil {
			t.Error("the worker is not gone")
		}
		e.Status, e.CancelTime = metering.EntitlementActive, time.Time{}
		end := rt.Hour.Add(time.Hour)
		if cancel > 0 {
			end = rt.Hour.Add(cancel)
			e.Status, e.CancelTime = metering.EntitlementCancelled, end
		}
		w.PutEntitlement(e)
		w.Work()
		want(t, "hour", string(w.Hour(e.ID, rt.Hour).State), "OPEN")
		w.Set(end.Add(20 * time.Minute))
		w.Work()
		want(t, "group", w.Status(group), "REPORTED")
		if to := w.Hour(e.ID, rt.Hour).Sealed.To; !to.Equal(end) {
			t.Errorf("sent until %s, want %s", to, end)
		}
	}
}

// An hour that has claimed its groups loses the connection and the identifiers of its entitlement.
// It is not sealed until it has identifiers again.
func TestPlan_SealsNothingWithoutIdentifiersAndConnection(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	group := w.Report(worldtest.OnAWS, rt.Hour, "d0 5")
	w.Set(closed)
	if err := w.Worker(gone{w.Table}).Plan(t.Context(), reports.Place{Organization: worldtest.Org, Entitlement: worldtest.OnAWS, Hour: rt.Hour}); err == nil {
		t.Error("the worker is not gone")
	}
	stored, err := w.Table.Connection(t.Context(), worldtest.Org, "AWS")
	if err != nil {
		t.Fatal(err)
	}
	w.DeleteItems("ORG#acme", "CONNECTION#AWS")
	e := worldtest.Entitlements()[0]
	whole := e.Marketplace
	e.Marketplace = metering.MarketplaceIDs{}
	w.PutEntitlement(e)
	workFails(t, w)
	want(t, "hour", string(w.Hour(worldtest.OnAWS, rt.Hour).State), "OPEN")
	e.Marketplace = whole
	w.PutEntitlement(e)
	w.PutConnection(stored.Value)
	w.Set(closed.Add(10 * time.Minute))
	w.Work()
	want(t, "group", w.Status(group), "REPORTED")
	want(t, "billed", w.Billed(), "d0=5")
}

// Usage that waits was converted for its marketplace: its entitlement keeps the partner until it is
// settled.
func TestPutEntitlement_KeepsItsPartnerWhileUsageWaits(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	put := func(partner metering.Partner) error {
		e := worldtest.Entitlements()[0]
		e.Partner, e.Marketplace = partner, metering.MarketplaceIDs{}
		change, err := metering.NewEntitlementChange(worldtest.Org, worldtest.OnAWS, &e, metering.Conditions{}, w.Now())
		if err == nil {
			_, _, err = w.Table.PutEntitlement(t.Context(), &change)
		}
		return err
	}
	group := w.Report(worldtest.OnAWS, rt.Hour, "d0 5")
	if err := put("GCP"); metering.CodeOf(err) != metering.Conflict || !strings.Contains(err.Error(), string(group)) {
		t.Errorf("while usage waits: %v", err)
	}
	if err := put("AWS"); err != nil {
		t.Errorf("without identifiers: %v", err)
	}
	if _, err := w.Table.Delete(t.Context(), worldtest.Org, group, "", w.Now()); err != nil {
		t.Fatal(err)
	}
	if err := put("GCP"); err != nil {
		t.Errorf("without usage: %v", err)
	}
}
