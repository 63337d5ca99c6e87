package apitest

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	worker "github.com/marketmeter/marketmeter/internal/reporting"
	rt "github.com/marketmeter/marketmeter/internal/reporting/reportingtest"
	"github.com/marketmeter/marketmeter/internal/reporting/worldtest"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
	"github.com/marketmeter/marketmeter/sandbox"
)

// requestsOfWorkers reports usage to the sandbox. It returns the requests to DynamoDB by the
// function that would have made them.
func requestsOfWorkers(t *testing.T) map[string][]tabletest.Request {
	t.Helper()
	w := worldtest.NewWorld(t, sandbox.Options{})
	requests := map[string][]tabletest.Request{}
	do := func(function string, work func(context.Context) error) {
		t.Helper()
		ctx, sent := tabletest.Record(t.Context())
		if err := work(ctx); err != nil {
			t.Fatalf("%s: %v", function, err)
		}
		requests[function] = append(requests[function], sent()...)
	}
	// Each function has a process of its own.
	workers := map[string]*worker.Worker{}
	for _, function := range []string{"ScheduleFunction", "PlanFunction", "SubmitFunction", "ReconcileFunction"} {
		workers[function] = w.Worker(table.New(tabletest.NewClient(tabletest.ShortPages(tabletest.Watched(t), 2)), w.TableName))
		workers[function].MaxCandidates = 1 // an hour of two groups has two lists of candidates
	}
	round := func(at time.Time) {
		t.Helper()
		w.Set(at)
		do("ScheduleFunction", func(ctx context.Context) error {
			_, err := workers["ScheduleFunction"].Schedule(ctx)
			return err
		})
		for {
			hint, ok := w.Queue.Next()
			if !ok {
				return
			}
			function := "PlanFunction"
			if hint.Lane != "" {
				function = "SubmitFunction"
			}
			do(function, func(ctx context.Context) error { return workers[function].Work(ctx, hint) })
		}
	}
	closed := rt.Hour.Add(2*time.Hour + time.Minute)
	w.Change(func(c *sandbox.Catalog) { c.AWS.Products[0].Dimensions = c.AWS.Products[0].Dimensions[:1] })
	w.AddMetric("m", metering.BillableMetric{Name: "d2", AggregationType: metering.AggregateSum})
	use := func(e metering.EntitlementID, at time.Time) metering.GroupID {
		t.Helper()
		return w.ReportGroup(&metering.NewGroup{
			EntitlementID: string(e), Timestamp: &at, BillableRecords: []metering.NewBillableRecord{{Key: "m", Quantity: "3"}},
		})
	}
	good, listed := w.Report(worldtest.OnAzure, rt.Hour, "d0 1.5"), []metering.GroupID{use(worldtest.OnAzure, rt.Hour), use(worldtest.OnAzure, rt.Hour)}
	w.Report(worldtest.OnGoogle, rt.Hour, "d0 0.2") // too little to be sent: plan decides
	bad := w.Report(worldtest.OnAWS, rt.Hour, "d0 1, d5 2")
	round(closed)
	late := w.Report(worldtest.OnAzure, rt.Hour.Add(time.Minute), "d0 2")
	round(closed.Add(time.Minute))
	round(closed.Add(time.Hour))
	unknown := w.Report(worldtest.OnAzure, rt.Hour.Add(2*time.Hour), "d0 4, d1 5")
	w.Fault(sandbox.Fault{Fault: sandbox.Lost})
	round(closed.Add(2 * time.Hour))
	// A plan that opened this hour has died. Nothing is left of its time at the next schedule.
	gone := reports.OpenHour(worldtest.Org, worldtest.OnAWS, rt.Hour.Add(time.Hour))
	expired := []metering.GroupID{use(worldtest.OnAWS, gone.Start), use(worldtest.OnAWS, gone.Start)}
	gone.Opened, gone.Opener, gone.Parts = w.Now(), "opener", 2
	if err := w.Table.Open(t.Context(), &gone, [][]metering.GroupID{expired[:1], expired[1:]}); err != nil {
		t.Fatal(err)
	}
	round(rt.Hour.Add(26*time.Hour + time.Minute))
	if got := w.Status(unknown); got != "REPORT_FAILED OUTCOME_UNKNOWN OUTCOME_UNKNOWN" {
		t.Errorf("group %s is %s", unknown, got)
	}
	w.Change(func(c *sandbox.Catalog) { // the sum does not decide d1
		c.Azure.Reconciliations = []sandbox.AzureReconciliation{
			{Date: rt.Hour.Format(time.DateOnly), Resource: rt.Resource, Dimension: "d1", ReconStatus: "Mismatch", ProcessedQuantity: "1"},
		}
	})
	w.Set(rt.Hour.Add(72 * time.Hour)) // the day is over for 48 hours
	do("ReconcileFunction", workers["ReconcileFunction"].Reconcile)
	if n := w.Log.Count(worker.EventReconciled); n != 1 {
		t.Error("nothing was reconciled")
	}
	for id, status := range map[metering.GroupID]string{
		good: "REPORTED", bad: "REPORT_FAILED DIMENSION_UNKNOWN", late: "REPORTED", unknown: "REPORT_FAILED OUTCOME_UNKNOWN",
		listed[0]: "REPORTED", listed[1]: "REPORTED", expired[0]: "REPORT_FAILED EXPIRED", expired[1]: "REPORT_FAILED EXPIRED",
	} {
		if got := w.Status(id); got != status {
			t.Errorf("group %s is %s, want %s", id, got, status)
		}
	}
	if n := w.Log.Count(worker.EventAccepted); n == 0 {
		t.Error("nothing was accepted")
	}
	for _, c := range []struct{ action, key string }{
		{"UpdateItem", "#LEASE"}, {"PutItem", "#APPLIED"}, {"GetItem", "#APPLIED"}, {"PutItem", "#BILLABLE#"}, {"BatchGetItem", "#BILLABLE#"},
	} {
		if !slices.ContainsFunc(requests["PlanFunction"], func(r tabletest.Request) bool {
			return r.Action == c.action && strings.Contains(string(r.Body), c.key)
		}) {
			t.Errorf("plan made no %s of %s", c.action, c.key)
		}
	}
	return requests
}
