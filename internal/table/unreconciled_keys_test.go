package table

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
)

// For all days: the keys of its daily records in byWork lead back to it, sort by date, and those of
// other items do not lead to any day.
func TestComparesDay_InvertsTheKeysOfADay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) reports.Day {
			p := drawPlace(t, name)
			return reports.Day{Organization: p.Organization, Partner: "AZURE", Entitlement: p.Entitlement, Date: p.Hour.Truncate(24 * time.Hour)}
		}
		entry := func(d reports.Day, part int) workEntry {
			return workEntry{
				dailyPartition(d.Organization, d.Partner), dailyKey(metering.DayOf(d.Date), d.Entitlement, part),
				unreconciledKey(d.Organization), unreconciledDueKey(&d, part),
			}
		}
		d, other := draw("a"), draw("b")
		n := rapid.IntRange(0, 999).Draw(t, "part")
		e := entry(d, n)
		if got, ok := e.comparesDay(); !ok || got != d {
			t.Fatalf("%+v became %+v", d, got)
		}
		o := entry(other, n)
		if d.Date.Before(other.Date) && e.due >= o.due {
			t.Fatalf("%s is not before %s", e.due, o.due)
		}
		if d == other {
			return
		}
		for _, mixed := range []workEntry{
			{o.pk, e.sk, e.work, e.due}, {e.pk, o.sk, e.work, e.due}, {e.pk, e.sk, e.work, o.due}, {e.pk, e.sk, "WORK#0", e.due}, {e.pk, e.sk + "#1", e.work, e.due},
		} {
			if got, ok := mixed.comparesDay(); ok && got != d && got != other {
				t.Fatalf("%+v became %+v", mixed, got)
			}
		}
	})
}

func TestUnreconciledDueKey_FitsInASortKey(t *testing.T) {
	d := reports.Day{
		Organization: metering.OrgID(strings.Repeat("#", metering.MaxOrganizationID)), Entitlement: metering.EntitlementID(strings.Repeat("%", metering.MaxEntitlementID)), Date: time.Now(),
	}
	if key := unreconciledDueKey(&d, 999); len(key) > maxSortKey {
		t.Errorf("%d bytes", len(key))
	}
}
