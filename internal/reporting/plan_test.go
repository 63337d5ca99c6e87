package reporting_test

import (
	"context"
	"fmt"
	"slices"
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
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
	"github.com/marketmeter/marketmeter/sandbox"
)

// Each request is paid for, once for each hour of each entitlement.
func TestWorker_MakesNoOtherRequests(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	for range 3 {
		w.Report(worldtest.OnAWS, rt.Hour, "d0 1")
	}
	w.Set(closed)
	worker := w.Worker(w.Table)
	if _, err := worker.Schedule(t.Context()); err != nil { // it also asks for the id of the table
		t.Fatal(err)
	}
	for _, phase := range []struct{ name, reads, writes string }{
		{
			"open and seal",
			"BatchGetItem BatchGetItem GetItem GetItem Query Query",                               // hour, terms; gate, ledger; config, candidates
			"PutItem PutItem PutItem PutItem TransactWriteItems UpdateItem UpdateItem UpdateItem", // list, hour, sum, report; sealed; claims
		},
		{
			"send and decide",
			// hour, terms; gate, connection, gate before the call, ledger; due, config, days
			"BatchGetItem BatchGetItem GetItem GetItem GetItem GetItem Query Query Query",
			"TransactWriteItems TransactWriteItems", // attempt, outcome
		},
		{
			"apply and settle",
			"BatchGetItem BatchGetItem GetItem Query",                     // hour, candidates; gate; calls
			"PutItem TransactWriteItems UpdateItem UpdateItem UpdateItem", // report; settled; groups
		},
	} {
		hint, ok := w.Queue.Next()
		if !ok {
			t.Fatalf("%s: no hint", phase.name)
		}
		ctx, requests := tabletest.Record(t.Context())
		if err := worker.Work(ctx, hint); err != nil {
			t.Fatal(err)
		}
		var reads, writes []string
		for _, r := range requests() {
			if slices.Contains([]string{"BatchGetItem", "GetItem", "Query"}, r.Action) {
				reads = append(reads, r.Action)
			} else {
				writes = append(writes, r.Action)
			}
		}
		slices.Sort(reads)
		slices.Sort(writes)
		want(t, phase.name+", reads", strings.Join(reads, " "), phase.reads)
		want(t, phase.name+", writes", strings.Join(writes, " "), phase.writes)
	}
	want(t, "billed", w.Billed(), "d0=3")
}

// memberReads is a table that counts how often members are read. The lists here are short: each is
// read at once.
type memberReads struct {
	*table.Table
	lists int
}

func (m *memberReads) Members(ctx context.Context, h *reports.Hour, ids []metering.GroupID) ([]reports.Member, error) {
	m.lists++
	return m.Table.Members(ctx, h, ids)
}

// A worker with little time left works on one list of candidates, and another continues.
func TestPlan_ContinuesWhenItsTimeIsOver(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	var lists [][]metering.GroupID
	for range 3 {
		lists = append(lists, []metering.GroupID{w.Report(worldtest.OnAWS, rt.Hour, "d0 1"), w.Report(worldtest.OnAWS, rt.Hour, "d0 1")})
	}
	w.Set(closed)
	h := reports.OpenHour(worldtest.Org, worldtest.OnAWS, rt.Hour)
	h.Opened, h.Opener, h.Parts = closed, "opener", len(lists)
	if err := w.Table.Open(t.Context(), &h, lists); err != nil {
		t.Fatal(err)
	}
	read := &memberReads{Table: w.Table}
	worker := w.Worker(read)
	plan := func() (hint reporting.Hint, enqueued bool) {
		t.Helper()
		read.lists = 0
		if err := worker.Plan(hurried{t.Context()}, h.Place()); err != nil {
			t.Fatal(err)
		}
		return w.Queue.Next()
	}
	statuses := func() string {
		var all []string
		for _, list := range lists {
			for _, id := range list {
				all = append(all, w.Status(id))
			}
		}
		return strings.Join(all, " ")
	}
	const created, pending, reported = "CREATED", "REPORT_PENDING", "REPORTED"
	again := reporting.Hint{Place: h.Place()}
	for i := range lists {
		hint, enqueued := plan()
		want(t, "claimed", statuses(), strings.TrimSpace(strings.Repeat(pending+" ", 2*i+2)+strings.Repeat(created+" ", 4-2*i)))
		if last := i == len(lists)-1; !enqueued || !last && hint != again || last && hint.Lane == "" {
			t.Fatalf("after list %d comes %+v", i, hint)
		} else if last {
			if err := worker.Submit(t.Context(), hint.Lane); err != nil {
				t.Fatal(err)
			}
			w.Queue.Next()
		}
	}
	for i := range lists {
		hint, enqueued := plan()
		want(t, "lists whose groups are read", strconv.Itoa(read.lists), "1")
		want(t, "applied", statuses(), strings.TrimSpace(strings.Repeat(reported+" ", 2*i+2)+strings.Repeat(pending+" ", 4-2*i)))
		if last := i == len(lists)-1; enqueued == last || enqueued && hint != again {
			t.Fatalf("after list %d comes %+v", i, hint)
		}
	}
	want(t, "outcome", outcome(w, worldtest.OnAWS, rt.Hour, "d0"), "SETTLED ACCEPTED RESPONSE")
	want(t, "billed", w.Billed(), "d0=6")
}

// leased is a table and a queue that look at whether awsHour is leased: while a Plan claims it has
// to be, and not any more once a hint says that another Plan may continue.
type leased struct {
	*table.Table
	reporting.Queue
	w               *worldtest.World
	claims, hinted  int
	unleased, taken int
}

// free reports whether another Plan may lease the hour, by a lease that ends at once.
func (l *leased) free(ctx context.Context) bool {
	free, err := l.Lease(ctx, awsHour, "another", l.w.Now(), l.w.Now())
	return free || err != nil
}

func (l *leased) Claim(ctx context.Context, h *reports.Hour, id metering.GroupID, now, reportBy time.Time) (*reports.Member, error) {
	l.claims++
	if l.free(ctx) {
		l.unleased++
	}
	return l.Table.Claim(ctx, h, id, now, reportBy)
}

func (l *leased) Enqueue(ctx context.Context, hints ...reporting.Hint) error {
	l.hinted++
	if hints[0].Place == awsHour && hints[0].Lane == "" && !l.free(ctx) {
		l.taken++
	}
	return l.Queue.Enqueue(ctx, hints...)
}

// threeGroups returns a world in which three groups wait for awsHour, which is closed.
func threeGroups(t *testing.T) *worldtest.World {
	t.Helper()
	w := worldtest.NewWorld(t, sandbox.Options{})
	for range 3 {
		w.Report(worldtest.OnAWS, rt.Hour, "d0 1")
	}
	w.Set(closed)
	return w
}

// A Plan leases an hour before it claims, whether it has opened it or not, and ends the lease
// before it enqueues a hint for the next one.
func TestPlan_LeasesAnHourWhileItWorksOnIt(t *testing.T) {
	t.Parallel()
	w := threeGroups(t)
	l := &leased{Table: w.Table, Queue: w.Queue, w: w}
	worker := w.Worker(l)
	worker.MaxCandidates, worker.Queue = 1, l
	for range 3 {
		if err := worker.Plan(hurried{t.Context()}, awsHour); err != nil {
			t.Fatal(err)
		}
	}
	want(t, "claims, and those without a lease", fmt.Sprint(l.claims, l.unleased), "3 0")
	want(t, "hints, and those before the end of a lease", fmt.Sprint(l.hinted, l.taken), "3 0")
}

// unleasable is a table that can write no lease.
type unleasable struct{ *table.Table }

func (unleasable) Lease(context.Context, reports.Place, string, time.Time, time.Time) (bool, error) {
	return false, metering.Errorf(metering.Unavailable, "throttled")
}

func TestPlan_WorksWithoutALease(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	w.Report(worldtest.OnAWS, rt.Hour, "d0 1")
	w.Report(worldtest.OnAWS, rt.Hour, "d0 2")
	w.Set(closed)
	worker := w.Worker(unleasable{w.Table})
	worker.MaxCandidates = 1
	w.WorkBy(worker)
	want(t, "billed", w.Billed(), "d0=3")
}

// Each Schedule asks for a Plan of an hour that takes longer. While one works on it, the others
// leave it alone, but not for ever.
func TestPlan_LeavesAnHourToThePlanThatHasLeasedIt(t *testing.T) {
	t.Parallel()
	w := threeGroups(t)
	worker := w.Worker(w.Table)
	worker.MaxCandidates = 1
	state := func() reports.State { return w.Hour(worldtest.OnAWS, rt.Hour).State }
	plan := func() (done bool) {
		t.Helper()
		before := state()
		if err := worker.Plan(t.Context(), awsHour); err != nil {
			t.Fatal(err)
		}
		return state() != before
	}
	leave := func(in reports.State) {
		t.Helper()
		want(t, "state", string(state()), string(in))
		if leased, err := w.Table.Lease(t.Context(), awsHour, "another", w.Now(), w.Now().Add(time.Minute)); err != nil || !leased {
			t.Fatalf("%s: the Plan before has not ended its lease: %v", in, err)
		}
		if plan() {
			t.Errorf("%s: Plan works on an hour that another one has", in)
		}
		if h, enqueued := w.Queue.Next(); enqueued {
			t.Errorf("%s: %+v is enqueued", in, h)
		}
		w.Set(w.Now().Add(time.Minute))
	}
	if err := worker.Plan(hurried{t.Context()}, awsHour); err != nil { // it opens the hour, and claims one group
		t.Fatal(err)
	}
	w.Queue.Next()
	leave(reports.StateOpen)
	if !plan() {
		t.Fatal("an OPEN hour is not leased when the other's time is over")
	}
	hint, _ := w.Queue.Next()
	if err := worker.Submit(t.Context(), hint.Lane); err != nil {
		t.Fatal(err)
	}
	w.Queue.Next()
	leave(reports.StateDecided)
	w.WorkBy(worker)
	want(t, "outcome", outcome(w, worldtest.OnAWS, rt.Hour, "d0"), "SETTLED ACCEPTED RESPONSE")
	want(t, "billed", w.Billed(), "d0=3")
}

// Half of the groups of an hour are REPORT_FAILED when an operator says that their record was
// billed: all of them get their status again.
func TestPlan_AppliesTheFirstListsAgainAfterAResolve(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	w.Set(closed)
	want(t, "another meter", rt.Verdicts(send(w.Marketplace("AWS"), rt.AWS("d1", "9"))), "billed done")
	var groups []metering.GroupID
	for range 4 {
		groups = append(groups, w.Report(worldtest.OnAWS, rt.Hour, "d1 1"))
	}
	statuses := func() string {
		count := map[string]int{}
		for _, id := range groups {
			count[w.Status(id)]++
		}
		return fmt.Sprint(count)
	}
	worker := w.Worker(w.Table)
	worker.MaxCandidates = 1
	p := reports.Place{Organization: worldtest.Org, Entitlement: worldtest.OnAWS, Hour: rt.Hour}
	if err := worker.Plan(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	hint, _ := w.Queue.Next()
	if err := worker.Submit(t.Context(), hint.Lane); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := worker.Plan(hurried{t.Context()}, p); err != nil {
			t.Fatal(err)
		}
	}
	want(t, "before", statuses(), "map[REPORT_FAILED CONFLICT:2 REPORT_PENDING:2]")
	wantApplied := func(lists int) {
		t.Helper()
		if got, err := w.Table.AppliedLists(t.Context(), w.Hour(worldtest.OnAWS, rt.Hour)); err != nil || got != lists {
			t.Errorf("%d lists are applied, want %d; %v", got, lists, err)
		}
	}
	wantApplied(2)
	resolve(t, w, "d1", true)
	wantApplied(0)
	w.WorkBy(worker)
	want(t, "after", statuses(), "map[REPORTED:4]")
	want(t, "hour", string(w.Hour(worldtest.OnAWS, rt.Hour).State), "SETTLED")
}

// rushed is a context in which a Plan has time for one chunk of groups.
type rushed struct{ context.Context }

func (rushed) Deadline() (time.Time, bool) { return time.Now().Add(5 * time.Second), true }

// waitingReads is a table that counts the groups whose waiting is looked at.
type waitingReads struct {
	*table.Table
	groups int
}

func (r *waitingReads) WaitingGroups(ctx context.Context, p reports.Place, ids []metering.GroupID) ([]metering.Group, error) {
	r.groups += len(ids)
	return r.Table.WaitingGroups(ctx, p, ids)
}

// Usage that can't be reported is not all read before its window is over. Then it is failed, by as
// many Plans as it takes.
func TestPlan_FailsManyGroupsWithoutAConnection(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	w.DeleteItems("ORG#"+string(worldtest.Org), "CONNECTION#AWS")
	groups := make([]metering.GroupID, 250)
	for i := range groups {
		groups[i] = w.Report(worldtest.OnAWS, rt.Hour, "d0 1")
	}
	read := &waitingReads{Table: w.Table}
	worker := w.Worker(read)
	p := reports.Place{Organization: worldtest.Org, Entitlement: worldtest.OnAWS, Hour: rt.Hour}
	for _, c := range []struct {
		at           time.Duration // after the hour
		read, failed int
		again        bool
	}{
		{5 * time.Hour, 100, 0, false},
		{25 * time.Hour, 100, 100, true},
		{25 * time.Hour, 100, 200, true},
		{25 * time.Hour, 50, 250, false},
		{25 * time.Hour, 0, 250, false},
	} {
		w.Set(rt.Hour.Add(c.at))
		read.groups = 0
		if err := worker.Plan(rushed{t.Context()}, p); err != nil {
			t.Fatal(err)
		}
		failed := 0
		for _, id := range groups {
			if w.Status(id) == "REPORT_FAILED NO_CONNECTION" {
				failed++
			}
		}
		if hint, again := w.Queue.Next(); read.groups != c.read || failed != c.failed || again != c.again || again && hint != (reporting.Hint{Place: p}) {
			t.Errorf("after %s: %d are read, %d failed, again: %v %+v", c.at, read.groups, failed, again, hint)
		}
	}
}
