package operate_test

import (
	"strings"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/reporting/operate"
	rt "github.com/marketmeter/marketmeter/internal/reporting/reportingtest"
	"github.com/marketmeter/marketmeter/internal/reporting/worldtest"
	"github.com/marketmeter/marketmeter/sandbox"
)

// The lost table has retried a dimension that was rejected in the backup, and billed it in a later
// hour. That another dimension of the group is resolved on the restored table says nothing of it.
func TestResume_OfARestoredTableRetriesNoOtherDimension(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{})
	w.PutConfig(metering.Config{"partnerUsageMeteringConfigs": []any{map[string]any{"partner": "AWS", "enableCommitWithAdditionalUsageMetering": true}}})
	price := func(rate string) {
		e := worldtest.Entitlements()[0]
		e.Info.CommitAmount = worldtest.Quantity("1")
		for i := range e.Info.Dimensions {
			e.Info.Dimensions[i].Rate = worldtest.Quantity("1")
			if e.Info.Dimensions[i].Key == "d0" {
				e.Info.Dimensions[i].Rate = worldtest.Quantity(rate)
			}
		}
		w.PutEntitlement(e)
	}
	price("0")
	w.Set(closed)
	id := w.Report(worldtest.OnAWS, rt.Hour, "d0 3, d1 5")
	place := reports.Place{Organization: worldtest.Org, Entitlement: worldtest.OnAWS, Hour: rt.Hour}
	if err := w.Worker(sealedOnly{w.Table}).Plan(t.Context(), place); err == nil || w.Hour(worldtest.OnAWS, rt.Hour).State != reports.StateSealed {
		t.Fatalf("%v; want an hour that is sealed", err)
	}
	items := backup(t, w)
	do(t, operate.Run, request(t, w))
	if got := w.Status(id); got != "REPORT_FAILED NO_PRICE" {
		t.Fatal(got)
	}
	price("1")
	retry := func() error {
		_, err := w.Table.Retry(t.Context(), worldtest.Org, id, metering.Retry{Now: w.Now()})
		return err
	}
	if err := retry(); err != nil {
		t.Fatal(err)
	}
	w.Set(closed.Add(time.Hour))
	do(t, operate.Run, request(t, w))
	lost := billed(w)
	if lost != "d0=3 d1=4" {
		t.Fatalf("the lost table has billed %s", lost)
	}

	restoreTo(t, w, items)
	r := request(t, w)
	r.Since = closed.Add(time.Minute)
	do(t, operate.Resume, r)
	price("1")
	w.Set(closed.Add(2 * time.Hour))
	do(t, operate.Resolve, request(t, w, w.Hour(worldtest.OnAWS, rt.Hour).ID(), "d1", "billed"))
	refuseRetry(t, w, id, "since the backup")
	for hour := range 4 {
		w.Set(closed.Add(time.Duration(3+hour) * time.Hour))
		do(t, operate.Run, request(t, w))
	}
	if got := billed(w); got != lost {
		t.Errorf("billed %s; want %s as before", got, lost)
	}
}

// Days later, on the lost table, the sum of a day said that a record was not billed, and its group
// was retried and billed on another day. The same sum is not enough on the restored table.
func TestResume_OfARestoredTableRetriesNothingByTheSumOfADay(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{})
	w.PutConnection(metering.Connection{Partner: "AZURE", LateUsage: metering.LateUsageCarried})
	w.Report(worldtest.OnAzure, rt.Hour.Add(-time.Hour), "d0 1")
	w.Work()
	w.Set(closed)
	id := w.Report(worldtest.OnAzure, rt.Hour, "d0 2")
	w.Fault(sandbox.Fault{Fault: sandbox.Lost, Accepted: new(bool)})
	w.Work()
	w.Set(rt.Hour.Add(24*time.Hour + time.Minute))
	w.Work()
	if got := w.Status(id); !strings.HasPrefix(got, "REPORT_FAILED OUTCOME_UNKNOWN") {
		t.Fatal(got)
	}
	items := backup(t, w)
	reconcile := func(at time.Time) {
		t.Helper()
		w.Set(at)
		if err := w.Worker(w.Table).Reconcile(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := w.Status(id); got != "REPORT_FAILED MARKETPLACE_REFUSED" {
			t.Fatal(got)
		}
	}
	mature := rt.Hour.Truncate(24*time.Hour).AddDate(0, 0, 3).Add(time.Minute)
	reconcile(mature)
	if _, err := w.Table.Retry(t.Context(), worldtest.Org, id, metering.Retry{Now: w.Now()}); err != nil {
		t.Fatal(err)
	}
	w.Set(mature.Add(3 * time.Hour))
	w.Work()
	lost := billed(w)
	if lost != "d0=1 d0=2" {
		t.Fatalf("the lost table has billed %s", lost)
	}

	restoreTo(t, w, items)
	r := request(t, w)
	r.Since = mature.Add(-24 * time.Hour)
	do(t, operate.Resume, r)
	reconcile(mature.Add(4 * time.Hour))
	refuseRetry(t, w, id, "since the backup")
	w.Set(mature.Add(8 * time.Hour))
	w.Work()
	if got := billed(w); got != lost {
		t.Errorf("billed %s; want %s as before", got, lost)
	}
}
