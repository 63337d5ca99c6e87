package reporting_test

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	rt "github.com/marketmeter/marketmeter/internal/reporting/reportingtest"
	"github.com/marketmeter/marketmeter/internal/reporting/worldtest"
	"github.com/marketmeter/marketmeter/internal/wire"
	"github.com/marketmeter/marketmeter/sandbox"
)

// Explained validation shows the records of a group that is alone in its hour as they are sent.
func TestExplain_ShowsWhatIsSent(t *testing.T) {
	t.Parallel()
	operations := map[metering.Partner]struct{ name, records string }{
		"AWS": {"BatchMeterUsage", "UsageRecords"}, "AZURE": {"batchUsageEvent", "request"}, "GCP": {"report", "operations"},
	}
	quantities := []string{"1", "0.3000004", "13.99999999", "9999999999.999999", "0.0001234567890123456"}
	minute := func(m int) time.Time { return rt.Hour.Add(time.Duration(m) * time.Minute) }
	changes := map[string]func(*metering.Entitlement){
		"":                   func(*metering.Entitlement) {},
		"starts in the hour": func(e *metering.Entitlement) { e.StartTime = minute(10).Add(250 * time.Millisecond) },
		"ends in the hour":   func(e *metering.Entitlement) { e.EndTime = minute(50) },
		"is cancelled in it": func(e *metering.Entitlement) { e.Status, e.CancelTime = metering.EntitlementCancelled, minute(55) },
		"has other AWS names": func(e *metering.Entitlement) {
			if e.Partner == "AWS" {
				e.Marketplace = metering.MarketplaceIDs{CustomerIdentifier: rt.Customer, ProductCode: rt.ProductCode}
			}
		},
	}
	for name, change := range changes {
		w := worldtest.NewWorld(t, sandbox.Options{})
		for _, e := range worldtest.Entitlements() {
			change(&e)
			w.PutEntitlement(e)
			at := minute(30)
			g := metering.NewGroup{EntitlementID: string(e.ID), Timestamp: &at}
			for i, quantity := range quantities {
				g.Records = append(g.Records, metering.NewRecord{Key: "d" + string(rune('0'+i)), Quantity: quantity})
			}
			w.Set(rt.Now)
			terms, err := w.Table.TermsOf(t.Context(), worldtest.Org, []metering.EntitlementID{e.ID}, false)
			if err != nil {
				t.Fatal(err)
			}
			var explained struct {
				Groups []struct {
					Problems []any
					Preview  struct{ Requests []any }
				}
			}
			text := wire.AppendExplanation(nil, metering.ExplainBatch([]metering.NewGroup{g}, worldtest.Org, terms, w.Now()))
			if err := json.Unmarshal(text, &explained); err != nil {
				t.Fatal(err)
			}
			shown := explained.Groups[0].Preview.Requests
			if _, err := w.Table.Report(t.Context(), worldtest.Org, &metering.Report{Groups: []metering.NewGroup{g}, Now: w.Now()}); err != nil {
				t.Fatal(err)
			}
			before := len(w.Calls(operations[e.Partner].name))
			for _, at := range []time.Time{minute(100), closed} { // a cancelled one has an hour
				w.Set(at)
				w.Work()
			}
			var sent []any
			for _, call := range w.Calls(operations[e.Partner].name)[before:] {
				var body map[string]any
				if err := json.Unmarshal(call.Body, &body); err != nil {
					t.Fatal(err)
				}
				records, _ := body[operations[e.Partner].records].([]any)
				sent = append(sent, records...)
			}
			if len(sent) == 0 || !reflect.DeepEqual(sent, shown) {
				t.Errorf("%s, %s: what is sent and what is shown:\n%v\n%v\n%s", e.Partner, name, sent, shown, text)
			}
		}
	}
}
