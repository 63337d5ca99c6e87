package table

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// part draws text that could be mistaken for a piece of a key.
func part(t *rapid.T, name string) string {
	return strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{
		"a", "#", "%", "%23", "%25", "ORG#", "#STATUS#", "#BUYER#", "#ENTITLEMENT#", "CREATED", "23", "ü", "/", " ",
	}), 1, 4).Draw(t, name), "")
}

// For all organizations, buyers, entitlements and ids: different parts give different keys.
func TestKeys_DifferForDifferentParts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := [2]string{part(t, "org a"), part(t, "id a")}, [2]string{part(t, "org b"), part(t, "id b")}
		partitions := func(p [2]string) []string {
			return []string{orgKey(metering.OrgID(p[0])), statusKey(metering.OrgID(p[0]), metering.Status(p[1])), buyerKey(metering.OrgID(p[0]), metering.BuyerID(p[1])), entitlementKey(metering.OrgID(p[0]), metering.EntitlementID(p[1]))}
		}
		for i, x := range partitions(a) {
			for j, y := range partitions(b) {
				same := i == j && a[0] == b[0] && (i == 0 || a[1] == b[1])
				if (x == y) != same {
					t.Fatalf("%q of %q and %q of %q", x, a, y, b)
				}
			}
		}
		if (groupKey(metering.GroupID(a[1])) == groupKey(metering.GroupID(b[1]))) != (a[1] == b[1]) {
			t.Fatalf("%q and %q", a[1], b[1])
		}
		for _, other := range []string{serialKey, configKey(1)} {
			if groupKey(metering.GroupID(a[1])) == other {
				t.Fatalf("%q", a[1])
			}
		}
	})
}

// For all times and ids: keys sort by time, then by the bytes of the id.
func TestTimeKey_SortsAsTheList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) (time.Time, string) {
			ms := rapid.Int64Range(-62167219200000, 253402300799999).Draw(t, name)
			return time.UnixMilli(ms).UTC(), rapid.StringN(1, 5, -1).Draw(t, name+" id")
		}
		ta, ia := draw("a")
		tb, ib := draw("b")
		if rapid.Bool().Draw(t, "tie") {
			tb = ta
		}
		want := ta.Compare(tb)
		if want == 0 {
			want = strings.Compare(ia, ib)
		}
		if got := strings.Compare(timeKey(ta, metering.GroupID(ia)), timeKey(tb, metering.GroupID(ib))); got != want {
			t.Fatalf("%s and %s: %d", timeKey(ta, metering.GroupID(ia)), timeKey(tb, metering.GroupID(ib)), got)
		}
	})
}

func TestTimeRange_HasWholeDays(t *testing.T) {
	at := func(text string) string {
		created, err := metering.ParseTime(text)
		if err != nil {
			t.Fatal(err)
		}
		return timeKey(created, "id")
	}
	for _, c := range []struct {
		start, end metering.Day
		created    string
		in         bool
	}{
		{"2026-03-01", "2026-03-01", "2026-03-01T00:00:00.000Z", true},
		{"2026-03-01", "2026-03-01", "2026-03-01T23:59:59.999Z", true},
		{"2026-03-01", "2026-03-01", "2026-02-28T23:59:59.999Z", false},
		{"2026-03-01", "2026-03-01", "2026-03-02T00:00:00.000Z", false},
		{"", "9999-12-31", "9999-12-31T23:59:59.999Z", true},
		{"0000-01-01", "", "0000-01-01T00:00:00.000Z", true},
		{"", "", "9999-12-31T23:59:59.999Z", true},
	} {
		from, to := timeRange(c.start, c.end)
		if key := at(c.created); (from <= key && key <= to) != c.in {
			t.Errorf("%s in %s to %s: %v", c.created, c.start, c.end, !c.in)
		}
	}
}
