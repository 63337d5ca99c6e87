package table

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
)

func drawPlace(t *rapid.T, name string) reports.Place {
	return reports.Place{
		Organization: metering.OrgID(part(t, name+" org")), Entitlement: metering.EntitlementID(part(t, name+" entitlement")),
		Hour: time.Unix(rapid.Int64Range(0, 1_000_000).Draw(t, name+" hour")*3600, 0).UTC(),
	}
}

// For all places: the keys of an hour lead back to its place, and those of no other item do.
func TestPlaceOf_InvertsTheKeysOfAnHour(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawPlace(t, "a")
		pk, sk := billKey(p.Organization, p.Entitlement), hourKey(p.Hour)
		if got, ok := placeOf(pk, sk); !ok || got != p {
			t.Fatalf("%+v became %+v", p, got)
		}
		for _, other := range [][2]string{
			{pk, ledgerKey},
			{pk, recordsKey(p.Hour, 0)},
			{pk, candidatesKey(p.Hour, "opener", 3)},
			{pk, sumKey(p.Hour, 3)},
			{pk, billableKey(p.Hour, 3)},
			{pk, appliedKey(p.Hour)},
			{pk, leaseKey(p.Hour)},
			{pk, callsKey(p.Hour, 2)},
			{orgKey(p.Organization), groupKey(metering.GroupID(p.Entitlement))},
			{orgKey(p.Organization), sk},
			{"KEY#" + pk, sk},
		} {
			if got, ok := placeOf(other[0], other[1]); ok {
				t.Fatalf("%q became %+v", other, got)
			}
		}
	})
}

// For all sealed hours: those of a lane are together, by their next attempt, and then by hour.
func TestSendDueKey_SortsByLaneThenByNextAttempt(t *testing.T) {
	type entry struct {
		lane       string
		next, hour time.Time
	}
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) (e entry) {
			e.lane = part(t, name+" lane")
			if ms := rapid.Int64Range(0, 253402300799999).Draw(t, name+" next"); rapid.Bool().Draw(t, name+" has next") {
				e.next = time.UnixMilli(ms).UTC()
			}
			e.hour = drawPlace(t, name).Hour
			return e
		}
		a, b := draw("a"), draw("b")
		if rapid.Bool().Draw(t, "same lane") {
			b.lane = a.lane
			if rapid.Bool().Draw(t, "same time") {
				b.next = a.next
			}
		}
		x, y := sendDueKey(a.lane, a.next, a.hour), sendDueKey(b.lane, b.next, b.hour)
		if a.lane != b.lane {
			if strings.HasPrefix(x, sendLane(b.lane)) || strings.HasPrefix(y, sendLane(a.lane)) {
				t.Fatalf("%s and %s", x, y)
			}
			return
		}
		want := a.next.Compare(b.next)
		if want == 0 {
			want = a.hour.Compare(b.hour)
		}
		if got := strings.Compare(x, y); got != want || sendKey(a.lane) != sendKey(b.lane) || !strings.HasPrefix(x, sendLane(a.lane)) {
			t.Fatalf("%s and %s: %d", x, y, got)
		}
	})
}
