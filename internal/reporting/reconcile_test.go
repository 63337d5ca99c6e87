package reporting_test

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/reporting"
	"github.com/marketmeter/marketmeter/internal/reporting/connect"
	rt "github.com/marketmeter/marketmeter/internal/reporting/reportingtest"
	"github.com/marketmeter/marketmeter/internal/reporting/worldtest"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/sandbox"
)

// The sandbox has processed a day from processed on. From mature on, what is missing is no delay.
var (
	sentOn    = rt.Hour.Truncate(24 * time.Hour)
	processed = sentOn.AddDate(0, 0, 2).Add(time.Minute)
	mature    = sentOn.AddDate(0, 0, 3).Add(time.Minute)
	expired   = sentOn.AddDate(0, 0, 30)
	abandoned = sentOn.AddDate(0, 0, 33)
	earlier   = rt.Hour.Add(-time.Hour) // its hour is closed at rt.Now
)

// reconciling is a world whose days are reconciled.
type reconciling struct {
	*worldtest.World
	t *testing.T
}

func newReconciling(t *testing.T) reconciling {
	return reconciling{worldtest.NewWorld(t, sandbox.Options{}), t}
}

// reconcile reconciles at a time. It returns how many differences were counted, and which days wait
// to be compared afterwards.
func (w reconciling) reconcile(now time.Time) (differs int, left string) {
	w.t.Helper()
	before := w.Log.Count(reporting.EventDiffers)
	w.Set(now)
	if err := w.Worker(w.Table).Reconcile(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	return w.Log.Count(reporting.EventDiffers) - before, w.left()
}

func (w reconciling) left() string {
	w.t.Helper()
	var days []string
	err := w.Table.EachUnreconciled(w.t.Context(), func(d reports.Day) error {
		days = append(days, d.Date.Format(time.DateOnly)+" "+string(d.Entitlement))
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return strings.Join(days, ", ")
}

// expect reconciles at a time, and compares the number of differences and the days that are left.
func (w reconciling) expect(now time.Time, differs int, left string) {
	w.t.Helper()
	gotDiffers, gotLeft := w.reconcile(now)
	if gotDiffers != differs || gotLeft != left {
		w.t.Errorf("%s: %d differences, left %q; want %d, %q\n%s", now.Format(time.DateTime), gotDiffers, gotLeft, differs, left, w.Log.Lines())
	}
}

const onTheDay = "2026-11-18 ent-azure"

// accept has usage of the hour before rt.Hour accepted.
func (w reconciling) accept(usage string) metering.GroupID {
	w.t.Helper()
	group := w.Report(worldtest.OnAzure, earlier, usage)
	w.Set(rt.Now)
	w.Work()
	want(w.t, "accepted before", w.Status(group), "REPORTED")
	return group
}

// doubt makes the outcome of usage of rt.Hour UNKNOWN. billed is whether it was.
func (w reconciling) doubt(usage string, billed bool) metering.GroupID {
	w.t.Helper()
	group := w.Report(worldtest.OnAzure, rt.Hour, usage)
	w.Fault(sandbox.Fault{Fault: sandbox.Lost, Accepted: &billed})
	w.Set(closed)
	w.Work()
	w.Set(rt.Hour.Add(24*time.Hour + time.Minute))
	w.Work()
	if status := w.Status(group); !strings.HasPrefix(status, "REPORT_FAILED OUTCOME_UNKNOWN") {
		w.t.Fatalf("in doubt: %s", status)
	}
	return group
}

// foreign bills usage of another meter.
func (w reconciling) foreign(hour time.Time, dimension, quantity string) {
	w.t.Helper()
	r := rt.Azure(dimension, quantity)
	r.Start, r.End = hour, hour.Add(time.Hour)
	want(w.t, "another meter", rt.Verdicts(send(w.Marketplace("AZURE"), r)), "billed done")
}

// says makes usageEvents say something else of a dimension on the day.
func (w reconciling) says(dimension, status, quantity string) {
	w.Change(func(c *sandbox.Catalog) {
		c.Azure.Reconciliations = append(c.Azure.Reconciliations, sandbox.AzureReconciliation{
			Date: sentOn.Format(time.DateOnly), Resource: rt.Resource, Dimension: dimension, ReconStatus: status, ProcessedQuantity: quantity,
		})
	})
}

func TestReconcile_EndsOnceADayIsEqual(t *testing.T) {
	t.Parallel()
	w := newReconciling(t)
	for _, e := range everywhere {
		w.Report(e, earlier, "d0 0.1, d1 7")
		w.Report(e, rt.Hour, "d0 0.2")
	}
	w.Set(closed)
	w.Work()
	// AWS and Google report nothing back.
	want(t, "left", w.left(), onTheDay)
	w.expect(closed, 0, onTheDay)
	w.expect(processed.Add(-time.Hour), 0, onTheDay)
	w.expect(processed, 0, onTheDay) // 0.1 and 0.2 are no 0.3 in doubles
	w.expect(mature, 0, "")
	want(t, "runs", strconv.Itoa(w.Log.Count(reporting.EventReconciled)), "4")
	calls := len(w.Calls("usageEvents"))
	w.expect(mature, 0, "")
	want(t, "calls without a day", strconv.Itoa(len(w.Calls("usageEvents"))-calls), "0")
}

func TestReconcile_ResolvesWhatTheSumDecides(t *testing.T) {
	t.Parallel()
	t.Run("billed", func(t *testing.T) {
		t.Parallel()
		w := newReconciling(t)
		w.accept("d0 3, d1 5")
		group := w.doubt("d0 0.25", true)
		w.expect(processed.Add(-2*time.Minute), 0, onTheDay)
		want(t, "before it is processed", w.Status(group), "REPORT_FAILED OUTCOME_UNKNOWN")
		w.expect(processed, 0, onTheDay)
		want(t, "group", w.Status(group), "REPORTED")
		want(t, "outcome", outcome(w.World, worldtest.OnAzure, rt.Hour, "d0"), "SETTLED ACCEPTED RESOLVED")
		if o := w.Hour(worldtest.OnAzure, rt.Hour).Record("d0").Outcome; o.By != reports.ByReconciliation || !o.At.Equal(processed) {
			t.Errorf("the outcome is %+v", o)
		}
		if list := listReports(t, w.World); !strings.Contains(list, `"evidence":"RESOLVED"`) || strings.Contains(list, "UNKNOWN") {
			t.Errorf("the reports are %s", list)
		}
		w.expect(mature, 0, "")
		want(t, "billed", w.Billed(), "d0=3 d1=5 d0=0.25")
	})
	t.Run("not billed", func(t *testing.T) {
		t.Parallel()
		w := newReconciling(t)
		w.accept("d0 3")
		group := w.doubt("d0 0.25, d1 4", false)
		w.expect(processed, 0, onTheDay)
		want(t, "before the day is mature", w.Status(group), "REPORT_FAILED OUTCOME_UNKNOWN OUTCOME_UNKNOWN")
		w.expect(mature, 0, "")
		want(t, "group", w.Status(group), "REPORT_FAILED MARKETPLACE_REFUSED MARKETPLACE_REFUSED")
		for _, dimension := range []string{"d0", "d1"} {
			want(t, dimension, outcome(w.World, worldtest.OnAzure, rt.Hour, dimension), "SETTLED REJECTED RESOLVED MARKETPLACE_REFUSED")
		}
		if _, err := w.Table.Retry(t.Context(), worldtest.Org, group, metering.Retry{Now: w.Now()}); err != nil {
			t.Errorf("it can't be retried: %v", err)
		}
		want(t, "billed", w.Billed(), "d0=3")
	})
	t.Run("nothing else was accepted", func(t *testing.T) {
		t.Parallel()
		w := newReconciling(t)
		group := w.doubt("d0 0.25", true)
		want(t, "left", w.left(), onTheDay)
		w.expect(processed, 0, onTheDay)
		want(t, "group", w.Status(group), "REPORTED")
	})
	t.Run("the ledger", func(t *testing.T) {
		t.Parallel()
		w := newReconciling(t)
		w.accept("d1 1")
		w.doubt("d0 1234567890.1234567, d1 0.1", true)
		ledger, err := w.Table.Ledger(t.Context(), worldtest.Org, worldtest.OnAzure)
		if err != nil || len(ledger.Carry) != 0 {
			t.Fatal(ledger, err)
		}
		w.expect(processed, 0, onTheDay)
		if ledger, err = w.Table.Ledger(t.Context(), worldtest.Org, worldtest.OnAzure); err != nil || ledger.Carry["d0"].String() != "0.0000067" {
			t.Errorf("the ledger is %+v, %v", ledger, err)
		}
	})
}

// listReports returns the reports that clients list.
func listReports(t *testing.T, w *worldtest.World) (list string) {
	t.Helper()
	request := metering.ListRequest{
		Filter: metering.GroupFilter{StartDate: "2026-11-01", EndDate: "2026-12-31"}, Limit: 100, MaxSize: 1 << 20, Now: w.Now(), ReadFor: time.Minute,
	}
	_, err := w.Table.Reports(t.Context(), worldtest.Org, request, nil, func(page []byte, _ metering.GroupPage) error {
		list = string(page)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestReconcile_LeavesWhatTheSumDoesNotDecide(t *testing.T) {
	t.Parallel()
	t.Run("two hours", func(t *testing.T) {
		t.Parallel()
		w := newReconciling(t)
		w.Report(worldtest.OnAzure, earlier, "d0 1")
		w.Fault(sandbox.Fault{Fault: sandbox.Lost})
		w.Set(rt.Now)
		w.Work()
		w.Fault(sandbox.Fault{Fault: sandbox.Lost}) // it is sent again before the later hour is sealed
		group := w.doubt("d0 3", true)
		w.expect(mature, 1, onTheDay) // 4 was processed, nothing accepted
		want(t, "earlier", outcome(w.World, worldtest.OnAzure, earlier, "d0"), "SETTLED UNKNOWN WINDOW OUTCOME_UNKNOWN")
		want(t, "later", w.Status(group), "REPORT_FAILED OUTCOME_UNKNOWN")
		w.resolve(earlier, true)
		w.expect(mature, 0, "")
		want(t, "later, once the earlier one is resolved", w.Status(group), "REPORTED")
	})
	t.Run("another sum", func(t *testing.T) {
		t.Parallel()
		w := newReconciling(t)
		w.accept("d0 1")
		group := w.doubt("d0 3", true)
		w.foreign(rt.Hour.Add(6*time.Hour), "d0", "5")
		w.expect(mature, 1, onTheDay)
		want(t, "group", w.Status(group), "REPORT_FAILED OUTCOME_UNKNOWN")
	})
	t.Run("nothing is visible", func(t *testing.T) {
		t.Parallel()
		w := newReconciling(t)
		group := w.doubt("d0 3", false)
		w.expect(mature, 0, onTheDay)
		want(t, "group", w.Status(group), "REPORT_FAILED OUTCOME_UNKNOWN")
		w.expect(expired.Add(-time.Minute), 0, onTheDay)
		w.expect(expired, 0, "")
		// An operator's word brings the day back.
		w.resolve(rt.Hour, true)
		w.expect(expired, 1, "")
	})
	t.Run("the application was exchanged", func(t *testing.T) {
		t.Parallel()
		w := newReconciling(t)
		w.accept("d1 1")
		group := w.doubt("d0 3", true)
		w.Change(func(c *sandbox.Catalog) {
			c.Azure.Offers[0].ClientID = rt.Stranger
			c.Azure.Offers = append(c.Azure.Offers, sandbox.AzureOffer{OfferID: "another", ClientID: rt.Application})
		})
		w.expect(mature, 1, onTheDay) // of d1
		want(t, "group", w.Status(group), "REPORT_FAILED OUTCOME_UNKNOWN")
	})
	t.Run("not processed", func(t *testing.T) {
		t.Parallel()
		w := newReconciling(t)
		w.accept("d1 1")
		group := w.doubt("d0 3", true)
		w.says("d0", "Submitted", "0")
		w.expect(mature, 0, onTheDay)
		want(t, "group", w.Status(group), "REPORT_FAILED OUTCOME_UNKNOWN")
	})
	t.Run("a conflict", func(t *testing.T) {
		t.Parallel()
		w := newReconciling(t)
		w.Set(rt.Now)
		w.foreign(earlier, "d0", "3")
		w.Report(worldtest.OnAzure, earlier, "d0 2")
		w.Work()
		want(t, "earlier", outcome(w.World, worldtest.OnAzure, earlier, "d0"), "SETTLED CONFLICT RESPONSE CONFLICT")
		group := w.doubt("d0 3", false)
		w.expect(mature, 1, onTheDay) // 3 was processed, which is not ours
		want(t, "group", w.Status(group), "REPORT_FAILED OUTCOME_UNKNOWN")
		w.resolve(earlier, false)
		w.expect(mature, 0, "")
		want(t, "outcome", outcome(w.World, worldtest.OnAzure, rt.Hour, "d0"), "SETTLED REJECTED RESOLVED MARKETPLACE_REFUSED")
	})
}

// resolve is an operator's word.
func (w reconciling) resolve(hour time.Time, billed bool) {
	w.t.Helper()
	h := w.Hour(worldtest.OnAzure, hour)
	ledger, err := w.Table.Ledger(w.t.Context(), worldtest.Org, worldtest.OnAzure)
	if err != nil {
		w.t.Fatal(err)
	}
	after, ledger, err := h.Resolve(ledger, "d0", billed, "ann", w.Now())
	if err == nil {
		err = w.Table.Write(w.t.Context(), &reports.Step{Before: h, After: &after, Ledger: &ledger})
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func TestReconcile_CountsWhatDiffers(t *testing.T) {
	t.Parallel()
	t.Run("more is counted at once", func(t *testing.T) {
		t.Parallel()
		w := newReconciling(t)
		w.accept("d0 1")
		w.says("d0", "Mismatch", "1.5")
		w.expect(rt.Now, 1, onTheDay)
		w.expect(mature, 1, onTheDay)
		for _, part := range []string{"d0", "acceptedQuantity=1 ", "processedQuantity=1.5", "MORE", "Mismatch", "2026-11-18", "ent-azure", rt.Resource} {
			if !strings.Contains(w.Log.Lines(), part) {
				t.Errorf("the log has no %s: %s", part, w.Log.Lines())
			}
		}
		w.expect(expired.Add(-time.Minute), 1, onTheDay)
		w.expect(expired, 1, "")
	})
	t.Run("less is counted once it is no delay", func(t *testing.T) {
		t.Parallel()
		w := newReconciling(t)
		w.accept("d0 1")
		w.says("d0", "Rejected", "0")
		w.expect(processed, 0, onTheDay)
		w.expect(mature.Add(-2*time.Minute), 0, onTheDay)
		w.expect(mature, 1, onTheDay)
		w.Change(func(c *sandbox.Catalog) { c.Azure.Reconciliations = nil })
		w.expect(mature, 0, "")
	})
	t.Run("another meter", func(t *testing.T) {
		t.Parallel()
		w := newReconciling(t)
		w.accept("d0 1")
		w.foreign(rt.Hour, "d0", "2")
		w.foreign(rt.Hour, "d7", "2") // a dimension without usage
		w.expect(processed, 2, onTheDay)
	})
	t.Run("what was rejected is billed", func(t *testing.T) {
		t.Parallel()
		w := newReconciling(t)
		w.Change(func(c *sandbox.Catalog) {
			c.Azure.Offers[0].Plans[0].Dimensions = c.Azure.Offers[0].Plans[0].Dimensions[1:]
		})
		group := w.Report(worldtest.OnAzure, earlier, "d0 1")
		w.Set(rt.Now)
		w.Work()
		want(t, "group", w.Status(group), "REPORT_FAILED DIMENSION_UNKNOWN")
		w.Change(func(c *sandbox.Catalog) {
			c.Azure.Offers[0].Plans[0].Dimensions = rt.Catalog().Azure.Offers[0].Plans[0].Dimensions
		})
		w.foreign(earlier, "d0", "1")
		w.expect(processed, 1, onTheDay)
	})
	t.Run("what is on its way is no difference", func(t *testing.T) {
		t.Parallel()
		w := newReconciling(t)
		w.accept("d0 1")
		w.Report(worldtest.OnAzure, rt.Hour, "d0 2")
		w.Fault(sandbox.Fault{Fault: sandbox.Lost})
		w.Set(closed)
		w.Work()
		w.says("d0", "Accepted", "3")
		w.expect(closed, 0, onTheDay)
	})
}

func TestReconcile_WithoutAConnection(t *testing.T) {
	t.Parallel()
	w := newReconciling(t)
	w.accept("d0 1")
	if _, err := w.Table.DeleteConnection(t.Context(), worldtest.Org, "AZURE", metering.Conditions{}); err != nil {
		t.Fatal(err)
	}
	w.expect(mature, 0, onTheDay)
	want(t, "no connection", strconv.Itoa(w.Log.Count(reporting.EventNoConnection)), "1")
	w.expect(abandoned.Add(-time.Minute), 0, onTheDay)
	w.expect(abandoned, 1, "")
}

func TestReconcile_WithRefusedCredentials(t *testing.T) {
	t.Parallel()
	w := newReconciling(t)
	w.accept("d0 1")
	w.Change(func(c *sandbox.Catalog) { c.Azure.Applications[0].ClientSecret = "another" })
	w.expect(mature, 0, onTheDay)
	want(t, "refused", strconv.Itoa(w.Log.Count(reporting.EventConnectionRefused)), "1")
	want(t, "compared", strconv.Itoa(w.Log.Count(reporting.EventReconciled)), "0")
	w.Change(func(c *sandbox.Catalog) { c.Azure.Applications[0].ClientSecret = rt.ClientSecret })
	w.expect(mature, 0, "")
}

// A day that can't be compared does not keep others from being compared.
func TestReconcile_ComparesTheOthers(t *testing.T) {
	t.Parallel()
	w := newReconciling(t)
	managed := worldtest.Entitlements()[1]
	managed.ID, managed.Marketplace = "ent-managed", metering.MarketplaceIDs{ResourceURI: rt.ManagedApp, PlanID: "silver"}
	w.PutEntitlement(managed)
	w.Report(managed.ID, earlier, "d0 4")
	w.accept("d0 1")
	const both = onTheDay + ", 2026-11-18 ent-managed"
	want(t, "left", w.left(), both)
	w.SetText("ORG#acme#BILL#ent-azure", "HOUR#2026-11-18T10", "state", "NEWER")
	w.expect(mature, 0, onTheDay)
	want(t, "newer", strconv.Itoa(w.Log.Count(reporting.EventUnknownVersion)), "1")
	w.SetText("ORG#acme#BILL#ent-azure", "HOUR#2026-11-18T10", "state", "SETTLED")
	w.expect(mature, 0, "")
}

// odd is a transport whose usageEvents of a date have a row that can't be read.
type odd struct{ date string }

func (o odd) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Query().Get("usageStartDate") != o.date {
		return http.DefaultTransport.RoundTrip(r)
	}
	return (&rt.Canned{Path: "/api/usageEvents", Status: 200, Body: `[{"usageDate":"soon"}]`}).RoundTrip(r)
}

// vault has the client secret of the application.
type vault struct{}

func (vault) Secret(context.Context, string) (string, error) { return rt.ClientSecret, nil }

// A day that always fails is the oldest one for a month: the later ones are compared all the same.
func TestReconcile_OneDayThatFailsStopsNoOther(t *testing.T) {
	t.Parallel()
	w := newReconciling(t)
	w.accept("d0 1")
	next := rt.Hour.Add(24 * time.Hour)
	w.Set(next.Add(time.Hour))
	w.Report(worldtest.OnAzure, next, "d0 2")
	w.Set(next.Add(2*time.Hour + time.Minute))
	w.Work()
	want(t, "left", w.left(), onTheDay+", 2026-11-19 ent-azure")
	w.Set(mature.AddDate(0, 0, 1))
	worker := w.Worker(w.Table)
	worker.Marketplaces = connect.New(connect.Options{
		Secrets: vault{}, SandboxURL: w.URL, SandboxOnly: true, Transport: odd{"2026-11-18"}, Now: w.Now,
	})
	if err := worker.Reconcile(t.Context()); err != nil {
		t.Errorf("a failure of the marketplace is an error: %v", err)
	}
	want(t, "left", w.left(), onTheDay)
	want(t, "failed", strconv.Itoa(w.Log.Count(reporting.EventFailed)), "1")
	want(t, "compared all", strconv.Itoa(w.Log.Count(reporting.EventReconciled)), "0")
	w.expect(w.Now(), 0, "")
}

// unavailable makes the next n read-backs fail.
func (w reconciling) unavailable(n int) {
	w.Fault(sandbox.Fault{Operation: "usageEvents", Fault: sandbox.ServerError, Status: 503, Count: &n})
}

func TestReconcile_ReadsBackTwice(t *testing.T) {
	t.Parallel()
	w := newReconciling(t)
	w.accept("d0 1")
	w.unavailable(1)
	w.expect(processed, 0, onTheDay)
	want(t, "failed", strconv.Itoa(w.Log.Count(reporting.EventFailed)), "0")
	want(t, "compared all", strconv.Itoa(w.Log.Count(reporting.EventReconciled)), "1")
	w.unavailable(2)
	w.expect(mature, 0, onTheDay)
	want(t, "failed", strconv.Itoa(w.Log.Count(reporting.EventFailed)), "1")
	want(t, "compared all", strconv.Itoa(w.Log.Count(reporting.EventReconciled)), "1")
	w.expect(mature, 0, "")
}

// An outage of the marketplace while a day expires does not end it.
func TestReconcile_GivesADayUpLater(t *testing.T) {
	t.Parallel()
	w := newReconciling(t)
	w.accept("d0 3")
	group := w.doubt("d0 0.25", true)
	w.unavailable(2)
	w.expect(expired, 0, onTheDay)
	want(t, "group", w.Status(group), "REPORT_FAILED OUTCOME_UNKNOWN")
	w.expect(expired.AddDate(0, 0, 1), 0, "")
	want(t, "group", w.Status(group), "REPORTED")
}

func TestReconcile_GivesUpWhatAlwaysFails(t *testing.T) {
	t.Parallel()
	w := newReconciling(t)
	w.accept("d0 3")
	w.unavailable(4)
	w.expect(abandoned.Add(-time.Minute), 0, onTheDay)
	w.expect(abandoned, 1, "")
}

// A Reconcile that has no time leaves the days to the next one, and says so.
func TestReconcile_WithoutTime(t *testing.T) {
	t.Parallel()
	w := newReconciling(t)
	w.accept("d0 1")
	w.Set(mature)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := w.Worker(w.Table).Reconcile(ctx); err != nil {
		t.Error(err)
	}
	want(t, "failed", strconv.Itoa(w.Log.Count(reporting.EventFailed)), "1")
	want(t, "compared all", strconv.Itoa(w.Log.Count(reporting.EventReconciled)), "0")
	w.expect(mature, 0, "")
}

// ending is a context that has an hour, and once soon is set, what is left then.
type ending struct {
	context.Context
	left time.Duration
	soon *atomic.Bool
}

func (e ending) Deadline() (time.Time, bool) {
	if e.soon.Load() {
		return time.Now().Add(e.left), true
	}
	return time.Now().Add(time.Hour), true
}

// endsIn are marketplaces by which the time of a context ends: at a connection, or after a
// read-back.
type endsIn struct {
	reporting.Marketplaces
	ending
	connected bool
}

func (e endsIn) Marketplace(org metering.OrgID, connection metering.Connection) (reporting.Marketplace, error) {
	m, err := e.Marketplaces.Marketplace(org, connection)
	e.soon.Store(e.connected)
	return readBackEnds{m, e}, err
}

type readBackEnds struct {
	reporting.Marketplace
	endsIn
}

func (r readBackEnds) ReadBack(ctx context.Context, date time.Time) (reporting.ReadBack, error) {
	back, err := r.Marketplace.(reporting.Reader).ReadBack(ctx, date)
	r.soon.Store(true)
	return back, err
}

// The time ends among the days of one organization, or while one is read back: they are left, and
// the next run compares them.
func TestReconcile_TimeEndsInAnOrganization(t *testing.T) {
	t.Parallel()
	for name, ends := range map[string]struct {
		left      time.Duration
		connected bool
	}{
		"after a read-back":  {5 * time.Second, false},
		"before a read-back": {10*time.Second + 300*time.Millisecond, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newReconciling(t)
			w.accept("d0 1")
			w.Set(mature)
			one := 1
			w.Fault(sandbox.Fault{Operation: "usageEvents", Fault: sandbox.Slow, DelayMS: 4000, Count: &one})
			worker, ctx := w.Worker(w.Table), ending{t.Context(), ends.left, new(atomic.Bool)}
			worker.Marketplaces = endsIn{worker.Marketplaces, ctx, ends.connected}
			if err := worker.Reconcile(ctx); err != nil || !ctx.soon.Load() {
				t.Errorf("%v, read back: %v", err, ctx.soon.Load())
			}
			want(t, "failed", strconv.Itoa(w.Log.Count(reporting.EventFailed)), "1")
			if !strings.Contains(w.Log.Lines(), "not all days are reconciled") {
				t.Error("it does not say that the time is over")
			}
			want(t, "compared all", strconv.Itoa(w.Log.Count(reporting.EventReconciled)), "0")
			w.expect(mature, 0, "")
		})
	}
}

// Read-backs that fail after a long time do not take the time of other organizations.
func TestReconcile_ReadsBackNoMoreWhatFailsSlowly(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		slow            time.Duration
		fails           int
		calls, compared string
	}{
		{time.Nanosecond, 2, "2", "0"},
		{time.Nanosecond, 1, "4", "1"}, // the first day once more, and the others
		{time.Hour, 2, "5", "1"},
	} {
		w := newReconciling(t)
		for _, at := range []time.Time{earlier, earlier.Add(-24 * time.Hour), earlier.Add(-48 * time.Hour)} {
			w.Set(at.Add(time.Minute))
			w.Report(worldtest.OnAzure, at, "d0 1")
			w.Set(at.Add(2 * time.Hour))
			w.Work()
		}
		w.Set(mature)
		w.unavailable(c.fails)
		worker := w.Worker(w.Table)
		worker.SlowReadBack = c.slow
		before := len(w.Calls("usageEvents"))
		if err := worker.Reconcile(t.Context()); err != nil {
			t.Fatal(err)
		}
		what := c.slow.String() + " and " + strconv.Itoa(c.fails)
		want(t, what+": calls", strconv.Itoa(len(w.Calls("usageEvents"))-before), c.calls)
		want(t, what+": compared all", strconv.Itoa(w.Log.Count(reporting.EventReconciled)), c.compared)
		if left := w.left(); (left == "") != (c.compared == "1") {
			t.Errorf("%s: left %s", what, left)
		}
	}
}

// Azure may name a managed application by another id than the URI that was sent. Then nothing is
// known of it; if it names the URI, the sums are compared.
func TestReconcile_ManagedApplication(t *testing.T) {
	t.Parallel()
	const left = "2026-11-18 ent-managed"
	accepted := func(t *testing.T) reconciling {
		w := newReconciling(t)
		managed := worldtest.Entitlements()[1]
		managed.ID, managed.Marketplace = "ent-managed", metering.MarketplaceIDs{ResourceURI: rt.ManagedApp, PlanID: "silver"}
		w.PutEntitlement(managed)
		group := w.Report(managed.ID, earlier, "d0 4")
		w.Set(rt.Now)
		w.Work()
		want(t, "group", w.Status(group), "REPORTED")
		return w
	}
	t.Run("by another id", func(t *testing.T) {
		t.Parallel()
		w := accepted(t)
		w.Change(func(c *sandbox.Catalog) { // the URI is not in the list
			c.Azure.Offers[0].ClientID = rt.Stranger
			c.Azure.Offers = append(c.Azure.Offers, sandbox.AzureOffer{OfferID: "another", ClientID: rt.Application})
		})
		w.expect(processed, 0, left)
		w.expect(mature, 0, "")
		if lines := w.Log.Lines(); strings.Count(lines, "notReported=1") != 2 {
			t.Errorf("the log does not say so: %s", lines)
		}
	})
	t.Run("by its URI", func(t *testing.T) {
		t.Parallel()
		w := accepted(t)
		w.Change(func(c *sandbox.Catalog) {
			c.Azure.Reconciliations = []sandbox.AzureReconciliation{
				{Date: "2026-11-18", Resource: rt.ManagedApp, Dimension: "d0", ReconStatus: "Mismatch", ProcessedQuantity: "3"},
			}
		})
		w.expect(mature, 1, left)
		w.Change(func(c *sandbox.Catalog) { c.Azure.Reconciliations = nil })
		w.expect(mature, 0, "")
	})
}

func TestReconcile_DoesNothingBehindAClosedGate(t *testing.T) {
	t.Parallel()
	w := newReconciling(t)
	w.accept("d1 1")
	group := w.doubt("d0 0.25", true)
	if err := w.Table.Pause(t.Context(), "ann", w.Now()); err != nil {
		t.Fatal(err)
	}
	w.expect(mature, 0, onTheDay)
	want(t, "group", w.Status(group), "REPORT_FAILED OUTCOME_UNKNOWN")
	want(t, "calls", strconv.Itoa(len(w.Calls("usageEvents"))), "0")
}

// dying is a table whose worker dies instead of giving a group its status.
type dying struct{ *table.Table }

var errDead = errors.New("the worker is dead")

func (dying) Apply(context.Context, *reports.Hour, metering.GroupID, *reports.Applied, time.Time) error {
	return errDead
}

func TestReconcile_CompletesWhatADeadWorkerHasResolved(t *testing.T) {
	t.Parallel()
	w := newReconciling(t)
	w.accept("d0 1")
	group := w.doubt("d0 0.25", true)
	w.Set(mature)
	if err := w.Worker(dying{w.Table}).Reconcile(t.Context()); !errors.Is(err, errDead) {
		t.Fatal(err)
	}
	want(t, "resolved", outcome(w.World, worldtest.OnAzure, rt.Hour, "d0"), "DECIDED ACCEPTED RESOLVED")
	want(t, "group of a dead worker", w.Status(group), "REPORT_FAILED OUTCOME_UNKNOWN")
	w.Work()
	want(t, "group", w.Status(group), "REPORTED")
}

// disturbed is a table in which an operator comes first.
type disturbed struct {
	*table.Table
	first func()
}

func (d *disturbed) Write(ctx context.Context, s *reports.Step) error {
	if first := d.first; first != nil {
		d.first = nil
		first()
	}
	return d.Table.Write(ctx, s)
}

func TestReconcile_AdoptsAnOperatorsWord(t *testing.T) {
	t.Parallel()
	w := newReconciling(t)
	w.accept("d0 1")
	w.doubt("d0 0.25", true)
	w.Set(mature)
	if err := w.Worker(&disturbed{w.Table, func() { w.resolve(rt.Hour, false) }}).Reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	want(t, "outcome", outcome(w.World, worldtest.OnAzure, rt.Hour, "d0"), "DECIDED REJECTED RESOLVED MARKETPLACE_REFUSED")
	want(t, "differs", strconv.Itoa(w.Log.Count(reporting.EventDiffers)), "1") // the operator is wrong
}

func TestReconcile_TwoAtOnce(t *testing.T) {
	t.Parallel()
	w := newReconciling(t)
	w.accept("d0 1, d1 1")
	group := w.doubt("d0 0.25, d1 4", true)
	w.Set(mature)
	var all errgroup.Group
	for range 4 {
		all.Go(func() error { return w.Worker(w.Table).Reconcile(t.Context()) })
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
	want(t, "group", w.Status(group), "REPORTED")
	want(t, "accepted", strconv.Itoa(w.Log.Count(reporting.EventAccepted)), "4")
	w.expect(mature, 0, "")
}
