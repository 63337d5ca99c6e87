package operate_test

import (
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/reporting/operate"
	"github.com/marketmeter/marketmeter/internal/transfer"
	"github.com/marketmeter/marketmeter/sandbox"
)

// The usage of the last hours of the sample data is reported at once, also at the end of a month.
// At Google a month ends in US Pacific: for two hours, usage of the day before is INVALID.
func TestRun_ReportsTheSampleDataAtAnyTime(t *testing.T) {
	t.Parallel()
	for now, invalid := range map[string]int{
		"2026-11-18T12:00:00Z": 0,
		"2026-11-18T12:59:59Z": 0,
		"2026-12-01T00:30:00Z": 0,
		"2026-12-01T05:10:00Z": 0,
		"2026-12-01T05:59:30Z": 0,
		"2026-12-01T08:59:00Z": 0,
		"2026-12-01T09:30:00Z": 2,
		"2027-01-01T00:30:00Z": 0,
	} {
		t.Run(now, func(t *testing.T) {
			t.Parallel()
			at, err := time.Parse(time.RFC3339, now)
			if err != nil {
				t.Fatal(err)
			}
			w := newWorld(t, sandbox.Options{Catalog: transfer.SampleCatalog()})
			w.Set(at)
			err = transfer.LoadSample(t.Context(), w.Table, transfer.SampleOptions{Now: at, SandboxURL: w.URL, Say: func(string) {}})
			if err != nil {
				t.Fatal(err)
			}
			text, _ := do(t, operate.Run, request(t, w))
			has(t, text, "failed 0")
			statuses := map[metering.Status]int{}
			filter := metering.GroupFilter{StartDate: metering.DayOf(at)}
			for g, err := range w.Table.Groups(t.Context(), transfer.SampleOrg, filter) {
				if err != nil {
					t.Fatal(err)
				}
				if g.ID[:4] == "urg-" && len(g.ID) > len("urg-2500") {
					statuses[g.Status]++
				}
			}
			if statuses[metering.StatusReported] != 9-invalid || statuses[metering.StatusInvalid] != 15+invalid || len(statuses) != 2 {
				t.Errorf("%v; want %d REPORTED, the others INVALID\n%s\n%s", statuses, 9-invalid, text, w.Log.Lines())
			}
			if records, err := w.Records(); err != nil || len(records) == 0 {
				t.Errorf("the sandbox has %d records, %v", len(records), err)
			}
		})
	}
}
