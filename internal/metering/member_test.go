package metering

import (
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"
)

// A field without a member would neither be stored nor returned.
func TestMembers_CoverEveryField(t *testing.T) {
	coverEveryField(t, GroupMembers, "Unknown", "Unexportable")
	coverEveryField(t, MetaInfoMembers, "Unknown")
	coverEveryField(t, BillableMembers, "Unknown")
	coverEveryField(t, ProblemMembers, "Unknown", "Severity")
	coverEveryField(t, EntitlementMembers, "Unknown")
	coverEveryField(t, EntitlementInfoMembers, "Unknown", "DimensionsKnown")
	coverEveryField(t, DimensionMembers, "Unknown")
	coverEveryField(t, MarketplaceMembers, "Unknown")
	coverEveryField(t, ConnectionMembers, "Unknown")
}

func coverEveryField[O any](t *testing.T, members []Member[O], but ...string) {
	t.Helper()
	quantity, _ := ParseQuantity("1.5")
	source := Source("API")
	values := map[Kind]any{
		KindText: "text", KindTime: time.UnixMilli(1_700_000_000_123).UTC(), KindAmount: NumberOf(7), KindCount: int32(7), KindFlag: true,
		KindQuantity: quantity, KindQuantities: map[string]Quantity{"k": quantity}, KindProperties: map[string]any{"p": nil},
		KindBillableRecords: []BillableRecord{{Key: "k"}}, KindMetaInfo: MetaInfo{Source: &source},
		KindProblems:        []Problem{{Code: ProblemTooOld}},
		KindEntitlementInfo: EntitlementInfo{Currency: "USD"}, KindDimensions: []Dimension{{Key: "k"}}, KindMarketplaceIDs: MarketplaceIDs{PlanID: "p"},
	}
	covered := map[string]string{}
	names := map[string]bool{}
	for i := range members {
		m := &members[i]
		if names[m.Name] {
			t.Errorf("%s is given twice", m.Name)
		}
		names[m.Name] = true
		var o O
		if value := m.Get(&o); m.Required == (value == nil) {
			t.Errorf("%s of nothing is %v; required: %v", m.Name, value, m.Required)
		}
		m.Set(&o, values[m.Kind])
		if got := m.Get(&o); !reflect.DeepEqual(got, values[m.Kind]) && !reflect.DeepEqual(got, documentOf(values[m.Kind], false)) {
			t.Errorf("%s is set to %v and is %v", m.Name, values[m.Kind], got)
		}
		var set []string
		for field, value := range reflect.ValueOf(o).Fields() {
			if !value.IsZero() {
				set = append(set, field.Name)
			}
		}
		if len(set) != 1 || covered[set[0]] != "" && set[0] != "Carried" {
			t.Errorf("%s sets %v, of which others set %v", m.Name, set, covered)
		}
		covered[set[0]] = m.Name
	}
	for field := range reflect.TypeFor[O]().Fields() {
		if covered[field.Name] == "" && !slices.Contains(but, field.Name) {
			t.Errorf("no member sets %s: only %v are set", field.Name, slices.Sorted(maps.Keys(covered)))
		}
	}
}
