package metering

import (
	"encoding/binary"
	"maps"
	"slices"
)

// aggregation is the records of a billable metric, as they become one quantity.
type aggregation struct {
	metric *BillableMetric // nil if it does not exist
	rule   *metricRule
	first  int  // the index of the metric's first record
	usable bool // if not, there is a problem and no record is counted

	count    int64
	sum      sum
	max      Quantity
	last     Quantity
	distinct map[any]struct{}
	values   int // of an hour: how many distinct values it has
}

// take makes the aggregation what all records of an hour come to.
func (a *aggregation) take(all *PartialAggregate) {
	a.count, a.sum, a.max, a.last, a.values = int64(all.Count), sumOf(all.Sum), all.Max, all.Last, len(all.Distinct)
}

// add adds a record. The records come in their order, which LAST depends on.
func (a *aggregation) add(q Quantity, properties map[string]any) {
	if a.count == 0 || q.d.Cmp(a.max.d) > 0 {
		a.max = q
	}
	a.count++
	a.last = q
	switch a.metric.AggregationType {
	case AggregateSum:
		a.sum.add(q)
	case AggregateUniqueCount:
		// As in SQL, null is not counted.
		if value := properties[a.metric.Info.PropertyUniqueOn]; value != nil {
			if a.distinct == nil {
				a.distinct = map[any]struct{}{}
			}
			a.distinct[identity(value)] = struct{}{}
		}
	}
}

// total returns what the records come to.
func (a *aggregation) total() sum {
	switch a.metric.AggregationType {
	case AggregateCount:
		return sum{small: quantityOf(a.count).d}
	case AggregateUniqueCount:
		return sum{small: quantityOf(int64(len(a.distinct) + a.values)).d}
	case AggregateMax:
		return sum{small: a.max.d}
	case AggregateLast:
		return sum{small: a.last.d}
	default:
		return a.sum
	}
}

// identity returns a value that is == that of another document if both say the same.
func identity(document any) any {
	switch document.(type) {
	case map[string]any, []any:
		return documentIdentity(appendIdentity(nil, document))
	default:
		return document
	}
}

// documentIdentity is of another type than a text, so that no text equals it.
type documentIdentity string

func appendIdentity(to []byte, document any) []byte {
	text := func(kind byte, s string) {
		to = append(binary.AppendUvarint(append(to, kind), uint64(len(s))), s...)
	}
	switch value := document.(type) {
	case map[string]any:
		to = binary.AppendUvarint(append(to, '{'), uint64(len(value)))
		for _, name := range slices.Sorted(maps.Keys(value)) {
			text('"', name)
			to = appendIdentity(to, value[name])
		}
	case []any:
		to = binary.AppendUvarint(append(to, '['), uint64(len(value)))
		for _, element := range value {
			to = appendIdentity(to, element)
		}
	case string:
		text('"', value)
	case Number:
		text('0', value.String())
	case bool:
		text('b', map[bool]string{false: "0", true: "1"}[value])
	default:
		to = append(to, 'n')
	}
	return to
}
