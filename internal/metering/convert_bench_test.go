package metering

import (
	"fmt"
	"strings"
	"testing"
)

// benchTerms are those of an entitlement of 50 dimensions with prices and names, and of a config
// that maps some sources: by quantity, by amount, and to two dimensions.
func benchTerms() *Terms {
	info := EntitlementInfo{DimensionsKnown: true}
	for i := range 50 {
		info.Dimensions = append(info.Dimensions, Dimension{Key: fmt.Sprintf("dimension_%d", i), Name: fmt.Sprintf("Dimension %d", i), Rate: quantityOf(int64(i + 1))})
	}
	to := func(key, mode, multiplier string) map[string]any {
		return map[string]any{mappingDimensionKey: key, mappingMode: mode, mappingMultiplier: Numeral(multiplier)}
	}
	return &Terms{
		Entitlement: &Entitlement{ID: "ent", Partner: "AWS", Info: info},
		Config: ConfigVersion{Config: Config{configEntries: []any{map[string]any{
			configPartner: "AWS", configEnableMapping: true,
			configMapping:   map[string]any{"mapped": to("dimension_1", "QUANTITY", "0.001"), "spend": to("dimension_2", "AMOUNT", "1")},
			configMappingV2: map[string]any{"twice": []any{to("dimension_3", "", "2"), to("dimension_4", "", "0.5")}},
		}}}},
		Metrics: []BillableMetric{{
			ID: "m", Name: "dimension_5", Status: MetricActive, AggregationType: AggregateSum,
			Info: MetricInfo{GroupBys: []string{"team"}, FilterGroups: []FilterGroup{{Filters: []MetricFilter{{Name: "plan", Operation: "IS", Value: "pro", ValueType: "STRING"}}}}},
		}},
	}
}

func recordsOf(keys ...string) *NewGroup {
	g := &NewGroup{}
	for i, key := range keys {
		g.Records = append(g.Records, NewRecord{key, fmt.Sprintf("%d.%d", 3*i+1, i)})
	}
	return g
}

func billableRecords(n int) *NewGroup {
	g := &NewGroup{}
	for i := range n {
		g.BillableRecords = append(g.BillableRecords, NewBillableRecord{"m", map[string]any{"team": fmt.Sprint(i), "plan": "pro"}, fmt.Sprintf("%d.5", i)})
	}
	return g
}

// What conversion costs is bounded by the size of the group, not by that of the terms: each record
// takes a few allocations, and a problem some more. (A body of 4 MiB holds 400,000 records.)
func TestConvert_AllocatesByRecord(t *testing.T) {
	const many = 2000
	var known, unknown, amounts, named []string
	for i := range many {
		known = append(known, fmt.Sprintf("dimension_%d", i%50)+strings.Repeat("x", i/50))
		unknown = append(unknown, fmt.Sprintf("unknown_%d", i))
		amounts = append(amounts, "spend")
		named = append(named, "Dimension 7")
	}
	for _, c := range []struct {
		name      string
		group     *NewGroup
		perRecord float64
	}{
		{"dimensions", recordsOf(known...), 0.2},
		{"unknown", recordsOf(unknown...), 10},
		{"amounts", recordsOf(amounts...), 5},
		{"names", recordsOf(named...), 0.2},
		{"billable", billableRecords(many), 0.2},
	} {
		terms := benchTerms()
		terms.Entitlement.Info.DimensionsKnown = c.name == "unknown"
		if allocs := testing.AllocsPerRun(3, func() { terms.convert(c.group) }); allocs > c.perRecord*many {
			t.Errorf("%s: %.2f allocations for each record, want at most %.2f", c.name, allocs/many, c.perRecord)
		}
	}
}

func BenchmarkConvert(b *testing.B) {
	var large []string
	for i := range 25_000 { // as many as a group of 392 KB has
		large = append(large, fmt.Sprintf("unknown_%d", i))
	}
	for _, c := range []struct {
		name  string
		group *NewGroup
	}{
		{"dimensions-3", recordsOf("dimension_10", "dimension_20", "dimension_30")},
		{"mapped-3", recordsOf("dimension_10", "mapped", "twice")},
		{"amount-1", recordsOf("spend")},
		{"billable-10", billableRecords(10)},
		{"unknown-25000", recordsOf(large...)},
		{"billable-5000", billableRecords(5000)},
	} {
		terms := benchTerms()
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				terms.convert(c.group)
			}
		})
	}
	b.Run("fan-out-8000", func(b *testing.B) { // as many as a config of 400 KB has
		values := make([]any, 8000)
		for i := range values {
			values[i] = map[string]any{mappingDimensionKey: fmt.Sprintf("d%d", i), mappingMultiplier: Numeral("2")}
		}
		terms := benchTerms()
		terms.Config.Config = Config{configEntries: []any{map[string]any{configPartner: "AWS", configEnableMapping: true, configMappingV2: map[string]any{"s": values}}}}
		terms.Entitlement.Info.DimensionsKnown = false
		b.ReportAllocs()
		for b.Loop() {
			terms.convert(recordsOf("s"))
		}
	})
	b.Run("index-50-dimensions", func(b *testing.B) {
		b.ReportAllocs()
		terms := benchTerms()
		for b.Loop() {
			fresh := &Terms{Entitlement: terms.Entitlement, Config: terms.Config, Metrics: terms.Metrics}
			fresh.indexed()
		}
	})
}
