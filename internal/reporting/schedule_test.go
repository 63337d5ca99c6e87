package reporting_test

import (
	"context"
	"errors"
	"fmt"
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

// look is what Schedule sees at that time, and how many hints it enqueues.
func look(t *testing.T, w *worldtest.World, at time.Time) (seen reporting.Overview, hints int) {
	t.Helper()
	w.Set(at)
	seen, err := w.Worker(w.Table).Schedule(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, ok := w.Queue.Next(); !ok {
			return seen, hints
		}
		hints++
	}
}

// The alarm of age counts from when an hour closed, by the connection's lockMinutes. The alarm of
// deadlines has the marketplace's.
func TestSchedule_ReportsAgeAndDeadline(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	end := rt.Hour.Add(time.Hour)
	w.Report(worldtest.OnAWS, rt.Hour, "d0 1")
	for _, c := range []struct {
		what             string
		at               time.Time
		closed, deadline time.Time
	}{
		{"before its end", end.Add(-time.Minute), time.Time{}, time.Time{}},
		{"before it closes", end.Add(59 * time.Minute), time.Time{}, time.Time{}},
		{"when it closes", end.Add(time.Hour), end.Add(time.Hour), rt.Hour.Add(24 * time.Hour)},
		{"long after", end.Add(6 * time.Hour), end.Add(time.Hour), rt.Hour.Add(24 * time.Hour)},
		{"after its deadline", end.Add(48 * time.Hour), end.Add(time.Hour), rt.Hour.Add(24 * time.Hour)},
	} {
		seen, hints := look(t, w, c.at)
		if !seen.Oldest.Equal(rt.Hour) || !seen.Closed.Equal(c.closed) || !seen.Deadline.Equal(c.deadline) || hints != 1 {
			t.Errorf("%s: %+v and %d hints, want closed at %v, deadline %v", c.what, seen, hints, c.closed, c.deadline)
		}
	}
	if n := w.Log.Count(reporting.EventScheduled); n != 5 {
		t.Errorf("scheduled is counted %d times", n)
	}
	minutes := 300
	w.PutConnection(metering.Connection{Partner: "AWS", LockMinutes: &minutes})
	if seen, _ := look(t, w, end.Add(299*time.Minute)); !seen.Closed.IsZero() {
		t.Errorf("with a lock of %d minutes: %+v", minutes, seen)
	}
}

// Of several entitlements the earliest counts: here one that was cancelled, whose deadline is in an
// hour.
func TestSchedule_ReportsTheEarliestDeadline(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	for _, e := range everywhere {
		w.Report(e, rt.Hour, "d0 1")
	}
	cancelled := rt.Hour.Add(time.Hour + 30*time.Minute)
	e := worldtest.Entitlements()[0]
	e.CancelTime, e.Status = cancelled, metering.EntitlementCancelled
	w.PutEntitlement(e)
	seen, hints := look(t, w, cancelled.Add(15*time.Minute))
	if want := cancelled.Add(time.Hour); !seen.Deadline.Equal(want) || hints != 3 {
		t.Errorf("%+v and %d hints, want the deadline %v", seen, hints, want)
	}
}

// An hour that a cancellation cuts short closes and has its deadline soon, mostly before the next
// hour is long under way.
func TestSchedule_SeesAnHourThatACancellationCutsShort(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	w.Set(rt.Hour.Add(4 * time.Minute))
	w.Report(worldtest.OnAWS, rt.Hour.Add(3*time.Minute), "d0 1")
	cancelled := rt.Hour.Add(5 * time.Minute)
	e := worldtest.Entitlements()[0]
	e.CancelTime, e.Status = cancelled, metering.EntitlementCancelled
	w.PutEntitlement(e)
	if seen, _ := look(t, w, rt.Hour.Add(14*time.Minute)); !seen.Closed.IsZero() || !seen.Deadline.IsZero() {
		t.Errorf("before it closes: %+v", seen)
	}
	place := reports.Place{Organization: worldtest.Org, Entitlement: worldtest.OnAWS, Hour: rt.Hour}
	seen, _ := look(t, w, rt.Hour.Add(20*time.Minute))
	if want := (reporting.Moment{Time: cancelled.Add(10 * time.Minute), Place: place}); seen.Closed != want {
		t.Errorf("closed at %+v, want %+v", seen.Closed, want)
	}
	if want := (reporting.Moment{Time: cancelled.Add(time.Hour), Place: place}); seen.Deadline != want {
		t.Errorf("the deadline is %+v, want %+v", seen.Deadline, want)
	}
	// It is sealed in its hour, and refused. Nothing but its deadline is near.
	w.Change(func(c *sandbox.Catalog) { c.AWS.Customers[0].Suspended = true })
	w.Work()
	if h := w.Hour(worldtest.OnAWS, rt.Hour); h == nil || h.State != reports.StateSealed {
		t.Fatalf("the hour is %+v", h)
	}
	seen, _ = look(t, w, rt.Hour.Add(25*time.Minute))
	if !seen.Closed.IsZero() || seen.Retried.Place != place || !seen.Deadline.Equal(cancelled.Add(time.Hour)) {
		t.Errorf("once it was sent: %+v", seen)
	}
	// Dated back, a cancellation closes no hour before its end.
	w.Report(worldtest.OnAzure, rt.Hour.Add(3*time.Minute), "d0 1")
	e = worldtest.Entitlements()[1]
	e.CancelTime, e.Status = rt.Hour.Add(-30*time.Minute), metering.EntitlementCancelled
	w.PutEntitlement(e)
	if seen, _ = look(t, w, rt.Hour.Add(59*time.Minute)); !seen.Closed.IsZero() {
		t.Errorf("cancelled before its start: %+v", seen)
	}
	if seen, _ = look(t, w, rt.Hour.Add(time.Hour)); !seen.Closed.Equal(rt.Hour.Add(time.Hour)) {
		t.Errorf("cancelled before its start, at its end: %+v", seen)
	}
}

// What a marketplace refuses for a month hides nothing that no worker sends.
func TestSchedule_RetriesHideNothingThatIsNotSent(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	subscribe(w, false)
	w.Report(worldtest.OnGoogle, rt.Hour, "d0 1")
	later := rt.Hour.Add(24 * time.Hour)
	for at := closed; at.Before(later); at = at.Add(70 * time.Minute) { // each refusal is due again in an hour
		seen, _ := look(t, w, at)
		w.Work()
		if at.After(closed) && (!seen.Closed.IsZero() || seen.Retried.Place.Entitlement != worldtest.OnGoogle || seen.Lanes != 1) {
			t.Fatalf("at %v: %+v", at, seen)
		}
	}
	at := w.Now().Add(time.Hour + 20*time.Minute) // no worker has sent it for 20 minutes
	if seen, _ := look(t, w, at); seen.Closed.Place.Entitlement != worldtest.OnGoogle || !seen.Retried.IsZero() {
		t.Errorf("once it is overdue: %+v", seen)
	}
}

// One entitlement that can't be read hides none of its organization, and its own usage grows old.
func TestSchedule_AnUnreadableEntitlementHidesNoOther(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	for _, e := range everywhere {
		w.Report(e, rt.Hour, "d0 1")
	}
	w.SetText("ORG#acme", "ENTITLEMENT#"+string(worldtest.OnGoogle), "entitlement", `{"newer":1}`)
	seen, _ := look(t, w, closed)
	if !seen.Deadline.Equal(rt.Hour.Add(24*time.Hour)) || seen.Deadline.Place.Entitlement == worldtest.OnGoogle {
		t.Errorf("the deadline is %+v", seen.Deadline)
	}
	if !seen.Closed.Equal(rt.Hour.Add(time.Hour)) || seen.Closed.Place.Entitlement != worldtest.OnGoogle {
		t.Errorf("what can't be read closed at %+v", seen.Closed)
	}
	if n := w.Log.Count(reporting.EventUnknownVersion); n != 1 {
		t.Errorf("unknownVersion is counted %d times", n)
	}
	// A connection that can't be read is of all.
	if seen, err := w.Worker(unreadable{w.Table}).Schedule(t.Context()); err != nil || !seen.Closed.Equal(rt.Hour.Add(time.Hour)) {
		t.Errorf("%+v, %v", seen, err)
	}
	if n := w.Log.Count(reporting.EventUnknownVersion); n != 4 {
		t.Errorf("unknownVersion is counted %d times", n)
	}
}

// endless is a table whose places are not read in time.
type endless struct{ *table.Table }

func (endless) EachPlace(context.Context, time.Time, time.Time, func(reports.Place) error) error {
	return context.DeadlineExceeded
}

// However long it takes to enqueue hints for all places, what was sealed is sent again.
func TestSchedule_BeginsWithLanes(t *testing.T) {
	t.Parallel()
	w, lane := throttled(t)
	if _, err := w.Worker(endless{w.Table}).Schedule(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if hint, ok := w.Queue.Next(); !ok || hint.Lane != lane {
		t.Errorf("%+v, %t", hint, ok)
	}
}

// googleBuyers adds buyers at Google to a world, which have no subscription, and returns all that
// it has.
func googleBuyers(w *worldtest.World, more int) []metering.EntitlementID {
	buyers := []metering.EntitlementID{worldtest.OnGoogle}
	for i := range more {
		e := worldtest.Entitlements()[2]
		e.ID, e.Marketplace.UsageReportingID = metering.EntitlementID(fmt.Sprint("google", i)), fmt.Sprint("project_number:", 100+i)
		w.Change(func(c *sandbox.Catalog) {
			c.Google.Entitlements = append(c.Google.Entitlements, sandbox.GoogleEntitlement{
				UsageReportingID: e.Marketplace.UsageReportingID, Service: rt.Service, State: sandbox.GoogleBillingDisabled,
			})
		})
		w.PutEntitlement(e)
		buyers = append(buyers, e.ID)
	}
	return buyers
}

// Google's buyers without a subscription are attempted for a month. However many they are, they
// hide no deadline of another marketplace, nor do others hide theirs.
func TestSchedule_DeadlineIsNotHiddenByManyOfAnotherMarketplace(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	subscribe(w, false)
	seen := func(at time.Time) reporting.Overview {
		w.Set(at)
		worker := w.Worker(w.Table)
		worker.MaxDeadlines = 3
		seen, err := worker.Schedule(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for {
			hint, ok := w.Queue.Next()
			if !ok {
				return seen
			}
			if err := worker.Work(t.Context(), hint); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, e := range googleBuyers(w, 4) {
		w.Report(e, rt.Hour, "d0 1")
	}
	googles := seen(closed).Deadline
	if googles.Before(rt.Hour.Add(200 * time.Hour)) {
		t.Fatalf("Google's deadline is %v", googles)
	}
	for _, days := range []int{0, 7} { // Google's hours are of the same day, and older
		hour := rt.Hour.Add(time.Hour + time.Duration(days)*24*time.Hour)
		w.Set(hour)
		w.Report(worldtest.OnAWS, hour, "d0 1")
		w.Report(worldtest.OnAzure, hour.Add(time.Hour), "d0 1")
		seen(hour.Add(4 * time.Hour))
		if got, want := seen(hour.Add(5*time.Hour)).Deadline, hour.Add(24*time.Hour); !got.Equal(want) {
			t.Errorf("after %d days: the deadline is %v, want that of AWS, %v", days, got, want)
		}
		subscribe(w, true)
		w.Change(func(c *sandbox.Catalog) { c.Google.Entitlements[0].State = sandbox.GoogleBillingDisabled })
		seen(hour.Add(7 * time.Hour))
		subscribe(w, false)
		if got := seen(hour.Add(8 * time.Hour)).Deadline; !got.Equal(googles.Time) {
			t.Errorf("after %d days: the deadline is %v, want that of Google, %v", days, got, googles)
		}
	}
}

// The same of usage that waits for a connection, and has no lane yet.
func TestSchedule_DeadlineIsNotHiddenByManyWithoutAConnection(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	for _, e := range googleBuyers(w, 4) {
		w.Report(e, rt.Hour, "d0 1")
	}
	hour := rt.Hour.Add(7 * 24 * time.Hour)
	w.Set(hour)
	w.Report(worldtest.OnAWS, hour, "d0 1")
	w.Set(hour.Add(3 * time.Hour))
	worker := w.Worker(w.Table)
	worker.MaxDeadlines = 3
	if seen, err := worker.Schedule(t.Context()); err != nil || !seen.Deadline.Equal(hour.Add(24*time.Hour)) {
		t.Errorf("%+v, %v; want the deadline %v", seen, err, hour.Add(24*time.Hour))
	}
}

// Usage without a connection is not invisible: its hour closes by the default of the marketplace.
func TestSchedule_UsageWithoutAConnectionGrowsOld(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	w.Report(worldtest.OnAzure, rt.Hour, "d0 1")
	if _, err := w.Table.DeleteConnection(t.Context(), worldtest.Org, "AZURE", metering.Conditions{}); err != nil {
		t.Fatal(err)
	}
	seen, _ := look(t, w, rt.Hour.Add(5*time.Hour))
	if !seen.Closed.Equal(rt.Hour.Add(2*time.Hour)) || seen.Deadline.IsZero() {
		t.Errorf("%+v", seen)
	}
}

// While reporting is paused, the schedule enqueues nothing, and its alarms continue.
func TestSchedule_PausedOnlyReports(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	for range 150 { // more than are enqueued together
		w.Report(worldtest.OnAzure, rt.Hour, "d0 1")
	}
	if err := w.Table.Pause(t.Context(), "somebody", w.Now()); err != nil {
		t.Fatal(err)
	}
	seen, hints := look(t, w, closed)
	counts := fmt.Sprint(hints, w.Log.Count(reporting.EventScheduled), w.Log.Count(reporting.EventGateClosed))
	if seen.Places != 1 || seen.Closed.IsZero() || counts != "0 1 1" {
		t.Errorf("%+v; hints, scheduled and gateClosed: %s", seen, counts)
	}
}

// However much old usage waits that can't be reported, it is in no way of usage that has less time.
func TestSchedule_BeginsWithWhatEachMarketplaceTakes(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	at := []time.Time{closed.Add(-40 * time.Hour), closed.Add(-25 * time.Hour), closed.Add(-24 * time.Hour), rt.Hour, closed.Add(time.Hour)}
	for _, used := range at {
		w.Report(worldtest.OnGoogle, used, "d0 1")
	}
	w.Set(closed)
	seen, err := w.Worker(w.Table).Schedule(t.Context())
	if err != nil || seen.Places != 4 || !seen.Oldest.Equal(metering.HourOf(at[0])) {
		t.Errorf("%+v, %v", seen, err)
	}
	var hours []string
	for hint, ok := w.Queue.Next(); ok; hint, ok = w.Queue.Next() {
		hours = append(hours, fmt.Sprint(closed.Sub(hint.Place.Hour).Truncate(time.Hour).Hours()))
	}
	want(t, "hours before the schedule, by hint", strings.Join(hours, " "), "24 2 40 25")
	// Old usage has some of the time in any case.
	if _, err := w.Worker(w.Table).Schedule(hurried{t.Context()}); err == nil || !strings.Contains(err.Error(), "2 hints were not enqueued") {
		t.Errorf("the error is %v", err)
	}
	for _, want := range at[:2] {
		if hint, ok := w.Queue.Next(); !ok || !hint.Place.Hour.Equal(metering.HourOf(want)) {
			t.Errorf("%+v, %t", hint, ok)
		}
	}
}

// A Schedule whose time ends before it has enqueued all hints says so, and what waits all the same.
func TestSchedule_OutOfTimeSeesAll(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	w.Report(worldtest.OnAWS, rt.Hour, "d0 1")
	w.Report(worldtest.OnAzure, rt.Hour, "d0 1")
	w.Set(closed)
	seen, err := w.Worker(w.Table).Schedule(rushed{t.Context()})
	if err == nil || !strings.Contains(err.Error(), "2 hints were not enqueued") {
		t.Errorf("the error is %v", err)
	}
	if seen.Places != 2 || !seen.Oldest.Equal(rt.Hour) || seen.Deadline.IsZero() {
		t.Errorf("it has seen %+v", seen)
	}
	if hint, ok := w.Queue.Next(); ok {
		t.Errorf("it enqueues %+v", hint)
	}
}
