package reports

import (
	"maps"
	"slices"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// Billable is what the members with billable records of a list of candidates used, as far as their
// hour needs it: they are aggregated over all its lists before they are converted.
type Billable struct {
	// Aggregates is of an hour that is to be sealed, by the terms of its seal.
	Aggregates metering.PartialAggregates
	// Records and Destinations are of an hour that can't be sealed: what the members were converted
	// to when they were accepted, by dimension key, and the dimensions of each metric then, sorted.
	Records      map[string]metering.Exact
	Destinations map[string][]string
}

// NewBillable returns the Billable of no members.
func NewBillable() *Billable {
	return &Billable{metering.PartialAggregates{}, map[string]metering.Exact{}, map[string][]string{}}
}

// Add adds members by the terms of the seal, which are nil if the hour can't be sealed. Members
// without billable records are in the Sum of their list.
func (b *Billable) Add(terms *metering.Terms, members []Member) {
	for _, m := range members {
		switch {
		case !m.billable():
		case terms != nil:
			b.Aggregates.Add(terms, m.Group)
		default:
			b.addAccepted(m.Group)
		}
	}
}

func (b *Billable) addAccepted(g *metering.Group) {
	for dimension, quantity := range g.Records {
		b.Records[dimension] = b.Records[dimension].Add(metering.ExactOf(quantity))
	}
	dimensions := slices.Sorted(maps.Keys(g.Records))
	for i := range g.MetaInfo.BillableRecords {
		b.addDestinations(g.MetaInfo.BillableRecords[i].Key, dimensions)
	}
}

// addDestinations adds dimensions, which are sorted, to those of a metric.
func (b *Billable) addDestinations(metric string, dimensions []string) {
	known, ok := b.Destinations[metric]
	if ok && containsAll(known, dimensions) {
		return
	}
	b.Destinations[metric] = slices.Compact(slices.Sorted(slices.Values(slices.Concat(known, dimensions))))
}

// containsAll reports whether all has each of some. Both are sorted.
func containsAll(all, some []string) bool {
	i := 0
	for _, text := range some {
		for i < len(all) && all[i] < text {
			i++
		}
		if i == len(all) || all[i] != text {
			return false
		}
	}
	return true
}

// ServesFor reports whether it has been added up by those terms, or by ones that make no difference
// to it. Its list has a member with billable records.
func (b *Billable) ServesFor(terms *metering.Terms) bool {
	if terms == nil {
		return len(b.Destinations) > 0
	}
	return len(b.Aggregates) > 0 && terms.CanConvert(b.Aggregates)
}

// Keep takes from what was stored before of the same members what it does not have itself: an hour
// that can't be sealed now may be sealed by the next worker, and the other way round.
func (b *Billable) Keep(before *Billable) {
	if len(b.Aggregates) == 0 {
		b.Aggregates = before.Aggregates
	}
	if len(b.Destinations) == 0 {
		b.Records, b.Destinations = before.Records, before.Destinations
	}
}

// Join adds what members of another list used.
func (b *Billable) Join(other *Billable) {
	b.Aggregates.Join(other.Aggregates)
	for dimension, total := range other.Records {
		b.Records[dimension] = b.Records[dimension].Add(total)
	}
	for metric, dimensions := range other.Destinations {
		b.addDestinations(metric, dimensions)
	}
}

// AcceptedUsage is the usage of an hour that can't be converted: totals of members without billable
// records, and of the others as each was converted when it was accepted. Billable records that came
// to no dimension then are in one with the id of their metric: they might come to one now, so the
// group must not count as billed.
func (b *Billable) AcceptedUsage(totals map[string]metering.Exact) metering.HourUsage {
	usage := metering.HourUsage{Totals: map[string]metering.Exact{}, Destinations: map[string][]string{}}
	maps.Copy(usage.Totals, totals)
	for dimension, total := range b.Records {
		usage.Totals[dimension] = usage.Totals[dimension].Add(total)
	}
	for metric, dimensions := range b.Destinations {
		if len(dimensions) == 0 {
			dimensions = []string{metric}
			usage.Totals[metric] = usage.Totals[metric].Add(metering.Exact{})
		}
		usage.Destinations[metric] = dimensions
	}
	return usage
}
