package metering

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// convertGroups converts the groups of an hour that are added up in lists of three.
func (t *Terms) convertGroups(groups []Group) HourUsage {
	return t.convertLists(slices.Collect(slices.Chunk(groups, 3)))
}

// records are the totals of the hour.
func (u *HourUsage) records() map[string]Quantity { return quantitiesOf(u.Totals) }

// quantitiesOf returns what a Quantity holds of the numbers.
func quantitiesOf(numbers map[string]Exact) map[string]Quantity {
	quantities := map[string]Quantity{}
	for key, x := range numbers {
		if q, fits := x.Quantity(); fits {
			quantities[key] = q
		}
	}
	return quantities
}

// convertLists converts the groups of an hour that are added up in lists, as they are stored.
func (t *Terms) convertLists(lists [][]Group) HourUsage {
	totals, billable := map[string]Exact{}, PartialAggregates{}
	for _, groups := range lists {
		list := PartialAggregates{}
		for i := range groups {
			if len(groups[i].MetaInfo.BillableRecords) > 0 {
				list.Add(t, &groups[i])
				continue
			}
			for key, q := range groups[i].Records {
				totals[key] = totals[key].Add(ExactOf(q))
			}
		}
		billable.Join(list)
	}
	if !t.CanConvert(billable) {
		panic("the terms that added it up can't convert it")
	}
	return t.ConvertHour(totals, billable)
}

// convertWhole is what partial aggregates replace: all records of the hour are added in the order
// of their groups, as those of a group are when it is accepted.
func (t *Terms) convertWhole(groups []Group) HourUsage {
	inOrder := slices.SortedFunc(slices.Values(groups), func(a, b Group) int {
		return cmp.Or(cmp.Compare(a.UsedAt().UnixMilli(), b.UsedAt().UnixMilli()), a.CreationTime.Compare(b.CreationTime), strings.Compare(a.ID, b.ID))
	})
	w := conversion{terms: t.indexed(), keep: true}
	for _, g := range inOrder {
		if len(g.MetaInfo.BillableRecords) == 0 {
			for key, q := range g.Records {
				w.totalOf(key, source{key: key}).sum.add(q)
			}
		}
		for i := range g.MetaInfo.BillableRecords {
			record := &g.MetaInfo.BillableRecords[i]
			if a := w.aggregationOf(record.Key, 0); a.usable {
				a.add(record.Quantity, record.Properties)
			}
		}
	}
	return w.hourUsage()
}

// Distinct values that were added up without the metric, or in part, are not known.
func TestCanConvert_OnlyWhatTheMetricCounts(t *testing.T) {
	terms := &Terms{Entitlement: &Entitlement{Partner: "AWS"}, Metrics: []BillableMetric{
		{ID: "m", Name: "users", AggregationType: AggregateUniqueCount, Info: MetricInfo{PropertyUniqueOn: "user"}},
		{ID: "s", Name: "sums", AggregationType: AggregateSum},
	}}
	of := func(terms *Terms, metric string) PartialAggregates {
		p := PartialAggregates{}
		p.Add(terms, &Group{MetaInfo: MetaInfo{BillableRecords: []BillableRecord{
			{Key: metric, Quantity: quantityOf(2), Properties: map[string]any{"user": "ann"}},
		}}})
		return p
	}
	joined := func(a, b PartialAggregates) PartialAggregates {
		all := PartialAggregates{}
		all.Join(a)
		all.Join(b)
		return all
	}
	for i, test := range []struct {
		partial PartialAggregates
		want    bool
	}{
		{of(terms, "m"), true},
		{of(&Terms{}, "m"), false},
		{of(&Terms{}, "s"), true},
		{joined(of(terms, "m"), of(terms, "m")), true},
		{joined(of(terms, "m"), of(&Terms{}, "m")), false},
		{joined(of(&Terms{}, "m"), of(terms, "m")), false},
	} {
		if got := terms.CanConvert(test.partial); got != test.want {
			t.Errorf("%d: %t", i, got)
		}
	}
	if hour := terms.ConvertHour(nil, joined(of(terms, "m"), of(terms, "m"))); hour.records()["users"] != quantityOf(1) {
		t.Errorf("%+v", hour)
	}
}

// BenchmarkPartialAggregates adds up an hour of groups whose distinct values are all different.
func BenchmarkPartialAggregates(b *testing.B) {
	terms := &Terms{Entitlement: &Entitlement{Partner: "AWS"}, Metrics: []BillableMetric{
		{ID: "m", Name: "users", AggregationType: AggregateUniqueCount, Info: MetricInfo{PropertyUniqueOn: "user"}},
	}}
	p, n := PartialAggregates{}, 0
	b.ReportAllocs()
	for b.Loop() {
		n++
		p.Add(terms, &Group{ID: fmt.Sprint(n), CreationTime: time.UnixMilli(int64(n)), MetaInfo: MetaInfo{BillableRecords: []BillableRecord{
			{Key: "m", Quantity: quantityOf(1), Properties: map[string]any{"user": fmt.Sprint(n)}},
		}}})
	}
}
