package metering

import (
	"cmp"
	"crypto/sha256"
	"strings"
	"time"
)

// PartialAggregates are what the billable records of some groups of an hour come to, by metric id.
// Those of all its groups, joined, are converted as the records of all groups are: an hour can be
// added up in parts, and their groups need not be in memory.
type PartialAggregates map[string]PartialAggregate

// PartialAggregate is what the records of a metric in some groups come to, by each type of
// aggregation. It has the size of a record, but for its distinct values.
type PartialAggregate struct {
	Count int
	Sum   Exact
	Max   Quantity
	Last  Quantity
	At    Moment // of Last
	// Distinct are the values of the property UniqueOn. They are not known if that is empty.
	UniqueOn string
	Distinct map[ValueHash]struct{}
}

// Moment orders the groups of an hour: by when their usage happened, then by their creation, then
// by their ids.
type Moment struct {
	Used, Created time.Time
	ID            string
}

// ValueHash is the hash of a value of a property: the first half of its SHA-256. Two values of an
// hour have the same one with a probability of less than 1 to 10^24 for 10 million values.
type ValueHash [16]byte

// momentOf is the moment of a group.
func momentOf(g *Group) Moment {
	return Moment{g.UsedAt().UTC().Truncate(time.Millisecond), g.CreationTime.UTC(), g.ID}
}

func (m *Moment) compare(other *Moment) int {
	return cmp.Or(m.Used.Compare(other.Used), m.Created.Compare(other.Created), strings.Compare(m.ID, other.ID))
}

// Add adds the billable records of a group. The terms say which property a metric counts the
// distinct values of.
func (p PartialAggregates) Add(terms *Terms, g *Group) {
	at := momentOf(g)
	for i := range g.MetaInfo.BillableRecords {
		record := &g.MetaInfo.BillableRecords[i]
		a, known := p[record.Key]
		if !known {
			a.UniqueOn = terms.uniqueOn(record.Key)
		}
		a.add(record, at)
		p[record.Key] = a
	}
}

// Join adds the partial aggregates of other groups.
func (p PartialAggregates) Join(other PartialAggregates) {
	for metric, of := range other {
		a, known := p[metric]
		if !known {
			a.UniqueOn = of.UniqueOn
		}
		a.join(&of)
		p[metric] = a
	}
}

// CanConvert reports whether the terms can convert the partial aggregates: the distinct values are
// those of the property that each metric names.
func (t *Terms) CanConvert(p PartialAggregates) bool {
	for metric := range p {
		if t.uniqueOn(metric) != p[metric].UniqueOn {
			return false
		}
	}
	return true
}

// uniqueOn is the property whose distinct values the metric counts; empty if it counts none, or is
// not known.
func (t *Terms) uniqueOn(metric string) string {
	m := t.indexed().metrics[metric]
	if m == nil || m.AggregationType != AggregateUniqueCount {
		return ""
	}
	return m.Info.PropertyUniqueOn
}

// add adds a record of a group. Those of a group come in their order, and groups in any.
func (a *PartialAggregate) add(record *BillableRecord, at Moment) {
	q := record.Quantity
	a.join(&PartialAggregate{Count: 1, Sum: ExactOf(q), Max: q, Last: q, At: at, UniqueOn: a.UniqueOn})
	// As in SQL, null is not counted.
	if value := record.Properties[a.UniqueOn]; a.UniqueOn != "" && value != nil {
		if a.Distinct == nil {
			a.Distinct = map[ValueHash]struct{}{}
		}
		hash := sha256.Sum256(appendIdentity(nil, value))
		a.Distinct[ValueHash(hash[:len(ValueHash{})])] = struct{}{}
	}
}

// join adds other records: of other groups, or later ones of the same group. If they were added by
// another property, the distinct values are not known.
func (a *PartialAggregate) join(other *PartialAggregate) {
	if other.Count == 0 {
		return
	}
	if a.Count == 0 || other.Max.d.Cmp(a.Max.d) > 0 {
		a.Max = other.Max
	}
	if a.Count == 0 || other.At.compare(&a.At) >= 0 {
		a.Last, a.At = other.Last, other.At
	}
	a.Count += other.Count
	a.Sum = a.Sum.Add(other.Sum)
	if a.UniqueOn != other.UniqueOn {
		a.UniqueOn, a.Distinct = "", nil
	}
	if a.UniqueOn == "" || len(other.Distinct) == 0 {
		return
	}
	if a.Distinct == nil {
		a.Distinct = make(map[ValueHash]struct{}, len(other.Distinct))
	}
	for hash := range other.Distinct {
		a.Distinct[hash] = struct{}{}
	}
}
