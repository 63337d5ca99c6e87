package reporting_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/reporting"
	rt "github.com/marketmeter/marketmeter/internal/reporting/reportingtest"
	"github.com/marketmeter/marketmeter/internal/reporting/worldtest"
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
	worker := w.Worker(w.Table)
	plan := func() (hint reporting.Hint, enqueued bool) {
		t.Helper()
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
		want(t, "applied", statuses(), strings.TrimSpace(strings.Repeat(reported+" ", 2*i+2)+strings.Repeat(pending+" ", 4-2*i)))
		if last := i == len(lists)-1; enqueued == last || enqueued && hint != again {
			t.Fatalf("after list %d comes %+v", i, hint)
		}
	}
	want(t, "outcome", outcome(w, worldtest.OnAWS, rt.Hour, "d0"), "SETTLED ACCEPTED RESPONSE")
	want(t, "billed", w.Billed(), "d0=6")
}
