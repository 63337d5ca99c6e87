package reporting_test

import (
	"context"
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

// closed is a time at which the hour of rt.Hour is closed at each marketplace.
var closed = rt.Hour.Add(2*time.Hour + time.Minute)

var everywhere = []metering.EntitlementID{worldtest.OnAWS, worldtest.OnAzure, worldtest.OnGoogle}

// outcome returns what became of a dimension of an hour.
func outcome(w *worldtest.World, e metering.EntitlementID, hour time.Time, dimension string) string {
	h := w.Hour(e, hour)
	if h == nil {
		return "no hour"
	}
	if h.Sealed == nil {
		return string(h.State)
	}
	r := h.Record(dimension)
	if r == nil {
		return string(h.State) + " without it"
	}
	return strings.TrimSpace(strings.Join([]string{string(h.State), string(r.Outcome.Kind), string(r.Outcome.Evidence), string(r.Outcome.Code)}, " "))
}

func TestWorker_BillsAnHourOnceItIsClosed(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	var groups []metering.GroupID
	for _, e := range everywhere {
		groups = append(groups, w.Report(e, rt.Hour.Add(5*time.Minute), "d0 1.5, d1 2"), w.Report(e, rt.Hour.Add(59*time.Minute), "d0 2.5"))
	}
	w.Set(rt.Hour.Add(time.Hour + 9*time.Minute))
	w.Work()
	want(t, "billed before it is closed", w.Billed(), "")
	w.Set(closed)
	w.Work()
	want(t, "billed", w.Billed(), "d0=4 d1=2 d0=4 d1=2 d0=4 d1=2")
	for _, id := range groups {
		want(t, "group", w.Status(id), "REPORTED")
	}
	for _, e := range everywhere {
		want(t, string(e), outcome(w, e, rt.Hour, "d0"), "SETTLED ACCEPTED RESPONSE")
	}
	if g := w.Group(groups[0]); g.UsageRecordReportID != metering.ReportID(worldtest.Org, worldtest.OnAWS, rt.Hour) || g.ReportedTime.IsZero() {
		t.Errorf("a reported group is %+v", g)
	}
	w.Work()
	want(t, "billed by more work", w.Billed(), "d0=4 d1=2 d0=4 d1=2 d0=4 d1=2")
	seen, err := w.Worker(w.Table).Schedule(t.Context())
	if err != nil || seen.Places != 0 || seen.Lanes != 0 || !seen.Oldest.IsZero() {
		t.Errorf("work is left: %+v, %v", seen, err)
	}
}

func TestWorker_ReportsLateUsageInTheNextHour(t *testing.T) {
	t.Parallel()
	for _, e := range everywhere {
		w := worldtest.NewWorld(t, sandbox.Options{})
		w.Report(e, rt.Hour, "d0 1")
		w.Set(closed)
		w.Work()
		late := w.Report(e, rt.Hour.Add(time.Minute), "d0 2")
		w.Work()
		want(t, "billed while the next hour is open", w.Billed(), "d0=1")
		want(t, "late", w.Status(late), "CREATED")
		w.Set(closed.Add(2 * time.Hour))
		w.Work()
		want(t, "billed", w.Billed(), "d0=1 d0=2")
		want(t, "late", w.Status(late), "REPORTED")
		want(t, "next hour", outcome(w, e, rt.Hour.Add(time.Hour), "d0"), "SETTLED ACCEPTED RESPONSE")
	}
}

// Each hour from that of the usage on has its report: the usage does not wait for a schedule at
// each.
func TestWorker_MovesLateUsageOnAtOnce(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	for i := range 3 {
		w.Set(closed.Add(time.Duration(i) * time.Hour))
		w.Report(worldtest.OnAzure, rt.Hour.Add(time.Duration(i)*time.Hour), "d0 1")
		w.Work()
	}
	w.Report(worldtest.OnAzure, rt.Hour, "d0 5")
	w.Set(closed.Add(3 * time.Hour))
	w.Work()
	want(t, "billed", w.Billed(), "d0=1 d0=1 d0=1 d0=5")
}

func TestWorker_BillsOnceAfterALostResponse(t *testing.T) {
	t.Parallel()
	for _, e := range everywhere {
		for _, fault := range rt.Doubts() {
			w := worldtest.NewWorld(t, sandbox.Options{})
			group := w.Report(e, rt.Hour, "d0 3")
			w.Fault(fault)
			w.Set(closed)
			w.Work()
			w.Set(closed.Add(10 * time.Minute))
			w.Work()
			want(t, string(e)+" billed", w.Billed(), "d0=3")
			want(t, string(e)+" group", w.Status(group), "REPORTED")
		}
	}
}

func TestWorker_ShowsWhatWasRefused(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	w.Change(func(c *sandbox.Catalog) { c.AWS.Products[0].Dimensions = c.AWS.Products[0].Dimensions[:1] })
	good, bad := w.Report(worldtest.OnAWS, rt.Hour, "d0 1"), w.Report(worldtest.OnAWS, rt.Hour, "d0 1, d5 2")
	w.Set(closed)
	w.Work()
	want(t, "billed", w.Billed(), "d0=2")
	want(t, "good", w.Status(good), "REPORTED")
	want(t, "bad", w.Status(bad), "REPORT_FAILED DIMENSION_UNKNOWN")
	want(t, "events", strconv.Itoa(w.Log.Count(reporting.EventRejected)), "1")
}

func TestWorker_AnotherMetersRecordIsAConflict(t *testing.T) {
	t.Parallel()
	for _, e := range everywhere[:2] {
		w := worldtest.NewWorld(t, sandbox.Options{})
		w.Set(closed)
		foreign, partner := rt.AWS("d0", "9"), metering.Partner("AWS")
		if e == worldtest.OnAzure {
			foreign, partner = rt.Azure("d0", "9"), "AZURE"
		}
		want(t, "another meter", rt.Verdicts(send(w.Marketplace(partner), foreign)), "billed done")
		group := w.Report(e, rt.Hour, "d0 3")
		w.Work()
		want(t, "group", w.Status(group), "REPORT_FAILED CONFLICT")
		want(t, "billed", w.Billed(), "d0=9")
		difference := w.Hour(e, rt.Hour).Record("d0").Outcome.Difference
		if e == worldtest.OnAzure && (difference == nil || difference.String() != "6") || e == worldtest.OnAWS && difference != nil {
			t.Errorf("%s: the difference is %v", e, difference)
		}
	}
}

// late is a table on which the second write of a worker waits, which stores the response.
type late struct {
	*table.Table
	written     int
	waits, goes chan struct{}
}

func (l *late) Write(ctx context.Context, step *reports.Step) error {
	if l.written++; l.written == 2 {
		close(l.waits)
		<-l.goes
	}
	return l.Table.Write(ctx, step)
}

// A duplicate came after an attempt in doubt: it counts as billed. When the response to that
// attempt is stored at last, and says that it was not billed, the record of another meter stands.
func TestWorker_LateResponseContradictsADuplicate(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	group := w.Report(worldtest.OnAWS, rt.Hour, "d0 3")
	w.Set(closed)
	place := reports.Place{Organization: worldtest.Org, Entitlement: worldtest.OnAWS, Hour: rt.Hour}
	if err := w.Worker(w.Table).Plan(t.Context(), place); err != nil {
		t.Fatal(err)
	}
	w.Fault(sandbox.Fault{Fault: sandbox.Throttled})
	l := &late{Table: w.Table, waits: make(chan struct{}), goes: make(chan struct{})}
	first, lane, ended := w.Worker(l), w.Hour(worldtest.OnAWS, rt.Hour).Sealed.Lane, make(chan error, 1)
	go func() { ended <- first.Submit(t.Context(), lane) }()
	select {
	case <-l.waits:
	case err := <-ended:
		t.Fatalf("it has stored no response: %v", err)
	}
	want(t, "another meter", rt.Verdicts(send(w.Marketplace("AWS"), rt.AWS("d0", "9"))), "billed done")
	w.Set(closed.Add(10 * time.Minute))
	w.Work()
	want(t, "outcome", outcome(w, worldtest.OnAWS, rt.Hour, "d0"), "SETTLED ACCEPTED DUPLICATE")
	close(l.goes)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	w.Work()
	want(t, "outcome", outcome(w, worldtest.OnAWS, rt.Hour, "d0"), "SETTLED ACCEPTED DUPLICATE")
	want(t, "reason", w.Hour(worldtest.OnAWS, rt.Hour).Record("d0").Outcome.Reason, "a response that came later says that another record stands for the hour")
	want(t, "events", strconv.Itoa(w.Log.Count(reporting.EventConflict)), "1")
	want(t, "group", w.Status(group), "REPORTED")
}

func TestWorker_FailsWhatCameTooLate(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	group := w.Report(worldtest.OnAWS, rt.Hour, "d0 1")
	w.Set(rt.Hour.Add(25 * time.Hour))
	w.Work()
	want(t, "group", w.Status(group), "REPORT_FAILED EXPIRED")
	want(t, "billed", w.Billed(), "")
	if w.Hour(worldtest.OnAWS, rt.Hour) != nil {
		t.Error("an hour was opened after its deadline")
	}
}

// More than a marketplace takes of an hour is carried, and grows if it happens again: nobody would
// see it, as all groups are REPORTED. A quantity of 0, beside
// another dimension, bills what is carried.
func TestWorker_CountsUnitsThatAreCarried(t *testing.T) {
	t.Parallel()
	most := map[metering.EntitlementID]string{worldtest.OnAWS: "9999999999.999999", worldtest.OnAzure: "9999999999999990000", worldtest.OnGoogle: "9223372036854775807"}
	half := map[metering.EntitlementID]string{worldtest.OnAWS: "6000000000", worldtest.OnAzure: "9000000000000000000", worldtest.OnGoogle: "6000000000000000000"}
	rest := map[metering.EntitlementID]string{worldtest.OnAWS: "2000000000.000001", worldtest.OnAzure: "8000000000000010000", worldtest.OnGoogle: "2776627963145224193"}
	for _, e := range everywhere {
		w := worldtest.NewWorld(t, sandbox.Options{})
		first, second := w.Report(e, rt.Hour, "d0 "+half[e]+", d1 0.7"), w.Report(e, rt.Hour, "d0 "+half[e])
		w.Set(closed)
		w.Work()
		h := w.Hour(e, rt.Hour)
		want(t, string(e)+" sent", h.Record("d0").Quantity.String(), most[e])
		want(t, string(e)+" carried", h.Record("d0").CarryOut.String(), rest[e])
		want(t, string(e)+" groups", w.Status(first)+" "+w.Status(second), "REPORTED REPORTED")
		want(t, string(e)+" events", strconv.Itoa(w.Log.Count(reporting.EventUnitsCarried)), "1")
		w.Report(e, rt.Hour.Add(time.Hour), "d0 0, d1 1")
		w.Set(closed.Add(time.Hour))
		w.Work()
		want(t, string(e)+" sent later", w.Hour(e, rt.Hour.Add(time.Hour)).Record("d0").Quantity.String(), rest[e])
		want(t, string(e)+" events of what is carried no more", strconv.Itoa(w.Log.Count(reporting.EventUnitsCarried)), "1")
	}
}

// The window of the usage ends before a worker looks at it.
func TestWorker_MovesOnWhatCameJustInTime(t *testing.T) {
	t.Parallel()
	for _, e := range everywhere {
		for _, reported := range []bool{true, false} {
			w := worldtest.NewWorld(t, sandbox.Options{})
			billed, hour := "d0=2", rt.Hour.Add(time.Hour)
			if reported {
				w.Report(e, rt.Hour, "d0 1")
				w.Set(closed)
				w.Work()
				billed = "d0=1 d0=2"
			} else if e == worldtest.OnGoogle {
				hour = rt.Hour // its window ends with the month
			}
			w.Set(rt.Hour.Add(24*time.Hour - 2*time.Minute))
			late := w.Report(e, rt.Hour.Add(20*time.Minute), "d0 2")
			w.Set(rt.Hour.Add(24*time.Hour + time.Minute))
			w.Work()
			want(t, string(e)+" billed", w.Billed(), billed)
			want(t, string(e)+" group", w.Status(late), "REPORTED")
			want(t, string(e)+" hour", outcome(w, e, hour, "d0"), "SETTLED ACCEPTED RESPONSE")
		}
	}
}

// Google's last hour of a month has its deadline an hour after its end. Usage of its last minutes
// is billed if it comes within the lock.
func TestWorker_BillsLateUsageOfGooglesLastHourOfAMonth(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	end := metering.MonthAfter("GCP", rt.Hour)
	w.Set(end.Add(-2 * time.Minute))
	first := w.Report(worldtest.OnGoogle, end.Add(-30*time.Minute), "d0 1")
	w.Set(end.Add(4 * time.Minute))
	w.Work()
	want(t, "first", w.Status(first), "CREATED")
	w.Set(end.Add(6 * time.Minute))
	late := w.Report(worldtest.OnGoogle, end.Add(-2*time.Minute), "d0 2")
	w.Set(end.Add(12 * time.Minute))
	w.Work()
	want(t, "billed", w.Billed(), "d0=3")
	want(t, "groups", w.Status(first)+" "+w.Status(late), "REPORTED REPORTED")
}

// Usage of a month that comes after its last hour closed is billed only if an hour of it is left,
// whatever its reportBy says.
func TestWorker_HasNoHourForLateUsageOfAMonth(t *testing.T) {
	t.Parallel()
	for _, e := range []metering.EntitlementID{worldtest.OnAWS, worldtest.OnAzure} {
		w := worldtest.NewWorld(t, sandbox.Options{})
		end := metering.MonthAfter("AWS", rt.Hour)
		w.Set(end.Add(-2 * time.Minute))
		w.Report(e, end.Add(-30*time.Minute), "d0 1")
		w.Set(end.Add(time.Hour))
		w.Work()
		want(t, "billed", w.Billed(), "d0=1")
		w.Set(end.Add(2 * time.Hour))
		late, own := w.Report(e, end.Add(-40*time.Minute), "d0 2"), w.Report(e, end.Add(-90*time.Minute), "d0 4")
		if by := w.Group(late).ReportBy; by.Before(w.Now().Add(4 * time.Hour)) {
			t.Errorf("reportBy is %s", by)
		}
		w.Work()
		want(t, "late", w.Status(late), "REPORT_FAILED NO_HOUR_LEFT")
		want(t, "of an hour without a report", w.Status(own), "REPORTED")
		want(t, "billed", w.Billed(), "d0=1 d0=4")
		retry := func() { // as the hint says, to delete it: its window is open
			if _, err := w.Table.Retry(t.Context(), worldtest.Org, late, metering.Retry{Now: w.Now()}); err != nil {
				t.Fatal(err)
			}
			want(t, "retried", w.Status(late), "CREATED")
		}
		retry()
		w.Work()
		want(t, "not deleted at once", w.Status(late), "REPORT_FAILED NO_HOUR_LEFT")
		retry()
		if _, err := w.Table.Delete(t.Context(), worldtest.Org, late, "", w.Now()); err != nil {
			t.Fatal(err)
		}
		w.Report(e, end.Add(time.Hour), "d0 2")
		w.Set(end.Add(4 * time.Hour))
		w.Work()
		want(t, "billed with a later hour", w.Billed(), "d0=1 d0=4 d0=2")
	}
}

func TestWorker_IsUnknownAtTheEndOfADoubt(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	group := w.Report(worldtest.OnAWS, rt.Hour, "d0 1")
	for range 100 {
		w.Fault(sandbox.Fault{Fault: sandbox.Lost})
	}
	for now := closed; now.Before(rt.Hour.Add(25 * time.Hour)); now = now.Add(40 * time.Minute) {
		w.Set(now)
		w.Work()
	}
	want(t, "group", w.Status(group), "REPORT_FAILED OUTCOME_UNKNOWN")
	want(t, "outcome", outcome(w, worldtest.OnAWS, rt.Hour, "d0"), "SETTLED UNKNOWN WINDOW OUTCOME_UNKNOWN")
	if _, err := w.Table.Retry(t.Context(), worldtest.Org, group, metering.Retry{Now: w.Now()}); metering.CodeOf(err) != metering.Conflict {
		t.Errorf("retry of an unknown outcome: %v", err)
	}
}

func TestWorker_SettlesUsageThatSendsNothing(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	fraction := w.Report(worldtest.OnGoogle, rt.Hour, "d0 0.4")
	zero := w.Report(worldtest.OnAWS, rt.Hour, "d0 0, d1 0.0000001")
	w.Set(closed)
	w.Work()
	want(t, "fraction", w.Status(fraction), "REPORTED")
	want(t, "zero", w.Status(zero), "REPORTED")
	want(t, "billed", w.Billed(), "")
	want(t, "outcome", outcome(w, worldtest.OnGoogle, rt.Hour, "d0"), "SETTLED ACCEPTED CARRIED")
	w.Report(worldtest.OnGoogle, rt.Hour.Add(90*time.Minute), "d0 0.7")
	w.Set(closed.Add(2 * time.Hour))
	w.Work()
	want(t, "billed with the carry", w.Billed(), "d0=1")
	ledger, err := w.Table.Ledger(t.Context(), worldtest.Org, worldtest.OnGoogle)
	if carry := ledger.Carry["d0"]; err != nil || carry.String() != "0.1" {
		t.Errorf("the ledger is %+v, %v", ledger, err)
	}
}

func TestWorker_FillsRequests(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	for i := range 29 {
		w.Report(worldtest.OnAWS, rt.Hour, "d"+strconv.Itoa(i)+" 1")
	}
	w.Set(closed)
	w.Work()
	if n := len(w.Calls("BatchMeterUsage")); n != 2 {
		t.Errorf("29 records took %d calls", n)
	}
}

// The two ways of metering.LateHint, each of which bills what came too late once; and that one has
// to choose: what is not deleted is billed by a retry under CARRY.
func TestWorker_BillsOnceWhatCameTooLate(t *testing.T) {
	t.Parallel()
	for _, carried := range []bool{false, true} {
		w := worldtest.NewWorld(t, sandbox.Options{})
		group := w.Report(worldtest.OnAWS, rt.Hour, "d0 1")
		w.Set(rt.Hour.Add(25 * time.Hour))
		w.Work()
		want(t, "too late", w.Status(group), "REPORT_FAILED EXPIRED")
		if hint := w.Group(group).Problems[0].Hint; !strings.Contains(hint, metering.LateHint) {
			t.Error(hint)
		}
		retry := func() {
			if _, err := w.Table.Retry(t.Context(), worldtest.Org, group, metering.Retry{Now: w.Now()}); err != nil {
				t.Fatal(err)
			}
		}
		if carried {
			w.PutConnection(metering.Connection{Partner: "AWS", LateUsage: metering.LateUsageCarried})
			retry()
		} else {
			if _, err := w.Table.Delete(t.Context(), worldtest.Org, group, "", w.Now()); metering.CodeOf(err) != metering.Conflict {
				t.Errorf("delete of what failed: %v", err)
			}
			retry()
			want(t, "retried", w.Status(group), "INVALID TOO_OLD")
			if _, err := w.Table.Delete(t.Context(), worldtest.Org, group, "", w.Now()); err != nil {
				t.Fatal(err)
			}
			w.Report(worldtest.OnAWS, rt.Hour.Add(24*time.Hour), "d0 1")
			w.PutConnection(metering.Connection{Partner: "AWS", LateUsage: metering.LateUsageCarried})
			if _, err := w.Table.Retry(t.Context(), worldtest.Org, group, metering.Retry{Now: w.Now()}); metering.CodeOf(err) != metering.Conflict {
				t.Errorf("retry of what is deleted: %v", err)
			}
		}
		w.Set(rt.Hour.Add(28 * time.Hour))
		w.Work()
		want(t, "billed", w.Billed(), "d0=1")
	}
}

func TestWorker_DeletedAndRetriedGroups(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	deleted := w.Report(worldtest.OnAWS, rt.Hour, "d0 1")
	if _, err := w.Table.Delete(t.Context(), worldtest.Org, deleted, "", w.Now()); err != nil {
		t.Fatal(err)
	}
	w.Change(func(c *sandbox.Catalog) { c.AWS.Products[0].Dimensions = c.AWS.Products[0].Dimensions[:1] })
	failed := w.Report(worldtest.OnAWS, rt.Hour, "d0 1, d5 2")
	w.Set(closed)
	w.Work()
	want(t, "billed", w.Billed(), "d0=1")
	w.Change(func(c *sandbox.Catalog) {
		c.AWS.Products[0].Dimensions = append(c.AWS.Products[0].Dimensions, sandbox.Dimension{Key: "d5", Price: "1"})
	})
	if _, err := w.Table.Retry(t.Context(), worldtest.Org, failed, metering.Retry{Now: w.Now()}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Table.Delete(t.Context(), worldtest.Org, failed, "", w.Now()); metering.CodeOf(err) != metering.Conflict {
		t.Errorf("delete of a group that is billed in part: %v", err)
	}
	w.Work()
	want(t, "waits for the next hour", w.Status(failed), "CREATED")
	w.Set(closed.Add(time.Hour))
	w.Work()
	want(t, "billed after the retry", w.Billed(), "d0=1 d5=2")
	want(t, "retried", w.Status(failed), "REPORTED")
	want(t, "next hour", outcome(w, worldtest.OnAWS, rt.Hour.Add(time.Hour), "d0"), "SETTLED without it")
}

func TestWorker_WaitsForAConnection(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	if _, err := w.Table.DeleteConnection(t.Context(), worldtest.Org, "AWS", metering.Conditions{}); err != nil {
		t.Fatal(err)
	}
	group := w.Report(worldtest.OnAWS, rt.Now.Add(-time.Minute), "d0 1")
	w.Set(closed.Add(2 * time.Hour))
	w.Work()
	want(t, "group", w.Status(group), "CREATED")
	want(t, "no event yet", strconv.Itoa(w.Log.Count(reporting.EventNoConnection)), "0")
	w.Set(rt.Hour.Add(14 * time.Hour))
	w.Work()
	want(t, "group", w.Status(group), "CREATED")
	want(t, "event", strconv.Itoa(w.Log.Count(reporting.EventNoConnection)), "1")
	w.Set(rt.Hour.Add(25 * time.Hour))
	w.Work()
	want(t, "group", w.Status(group), "REPORT_FAILED NO_CONNECTION")
}

func TestWorker_DoesNothingBehindAClosedGate(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	group := w.Report(worldtest.OnAWS, rt.Hour, "d0 1")
	if err := w.Table.Pause(t.Context(), "ann", w.Now()); err != nil {
		t.Fatal(err)
	}
	w.Set(closed)
	worker := w.Worker(w.Table)
	p := reports.Place{Organization: worldtest.Org, Entitlement: worldtest.OnAWS, Hour: rt.Hour}
	if err := worker.Plan(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	w.Work()
	want(t, "group", w.Status(group), "CREATED")
	if err := w.Table.Resume(t.Context(), "ann", w.Now()); err != nil {
		t.Fatal(err)
	}
	w.Work()
	want(t, "group", w.Status(group), "REPORTED")
}

// The connection is deleted while more hours wait than a Submit reads: it does not enqueue itself.
func TestWorker_SubmitWithoutAConnectionEnds(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	w.Report(worldtest.OnAWS, rt.Hour, "d0 1")
	w.Fault(sandbox.Fault{Fault: sandbox.Throttled})
	w.Set(closed)
	w.Work()
	if _, err := w.Table.DeleteConnection(t.Context(), worldtest.Org, "AWS", metering.Conditions{}); err != nil {
		t.Fatal(err)
	}
	w.Set(closed.Add(10 * time.Minute))
	if err := w.Worker(w.Table).Submit(t.Context(), w.Hour(worldtest.OnAWS, rt.Hour).Sealed.Lane); err != nil {
		t.Fatal(err)
	}
	if hint, ok := w.Queue.Next(); ok {
		t.Errorf("it enqueues %+v", hint)
	}
	want(t, "events", strconv.Itoa(w.Log.Count(reporting.EventNoConnection)), "1")
}

// A Plan that had no time left has claimed some of the groups. Another one reads them, and claims
// the others.
func TestWorker_ContinuesToClaim(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	first, second := w.Report(worldtest.OnAWS, rt.Hour, "d0 1"), w.Report(worldtest.OnAWS, rt.Hour, "d0 2")
	w.Set(closed)
	h := reports.OpenHour(worldtest.Org, worldtest.OnAWS, rt.Hour)
	h.Opened, h.Opener, h.Parts = closed, "another", 1
	if err := w.Table.Open(t.Context(), &h, [][]metering.GroupID{{first, second}}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Table.Claim(t.Context(), &h, second, closed, time.Time{}); err != nil {
		t.Fatal(err)
	}
	w.Work()
	want(t, "groups", w.Status(first)+" "+w.Status(second), "REPORTED REPORTED")
	want(t, "billed", w.Billed(), "d0=3")
}

// throttled is a world with usage that was throttled, and is to be sent again, by the lane.
func throttled(t *testing.T) (w *worldtest.World, lane string) {
	t.Helper()
	w = worldtest.NewWorld(t, sandbox.Options{})
	w.Report(worldtest.OnAWS, rt.Hour, "d0 1")
	w.Fault(sandbox.Fault{Fault: sandbox.Throttled})
	w.Set(closed)
	w.Work()
	w.Set(closed.Add(10 * time.Minute))
	return w, w.Hour(worldtest.OnAWS, rt.Hour).Sealed.Lane
}

// unreadable is a table of which no terms can be read.
type unreadable struct{ *table.Table }

func (unreadable) TermsOf(context.Context, metering.OrgID, []metering.EntitlementID, bool) (metering.TermsByEntitlement, error) {
	return nil, metering.Errorf(metering.Internal, "an entitlement that is stored can't be read")
}

func TestWorker_SubmitOfALaneWithoutReadableTerms(t *testing.T) {
	t.Parallel()
	w, lane := throttled(t)
	if err := w.Worker(unreadable{w.Table}).Submit(t.Context(), lane); err != nil {
		t.Fatal(err)
	}
	want(t, "events", strconv.Itoa(w.Log.Count(reporting.EventUnknownVersion)), "1")
	w.Work()
	want(t, "billed once they can be read", w.Billed(), "d0=1")
}
