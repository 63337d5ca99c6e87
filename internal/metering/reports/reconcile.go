package reports

import (
	"math"
	"strings"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// ByReconciliation is the name of what has resolved an outcome by a sum of the marketplace.
const ByReconciliation = "reconciliation"

// Day is a UTC day of an entitlement whose reports are compared with what the marketplace has
// processed, until both are equal.
type Day struct {
	Organization metering.OrgID
	Partner      metering.Partner
	Entitlement  metering.EntitlementID
	Date         time.Time // its start
}

// StoredDay is what is stored of a day.
type StoredDay struct {
	Hours    []*Hour     // those that exist, in order
	Versions map[int]int // of the daily records, by their part
}

const (
	// dayMatures is how long after its end a day may still change at the marketplace. Its last hour
	// is sent until 23 h after the end, and processed later.
	dayMatures = 48 * time.Hour
	// dayExpires is how long after its start a day is compared at most.
	dayExpires = 30 * 24 * time.Hour
	// dayAbandoned is how long after its start a day is attempted that can't be compared: a fault
	// in a run or two does not end it.
	dayAbandoned = dayExpires + 3*24*time.Hour
)

// ReadsBack reports whether the marketplace of the partner reports what it has processed.
func ReadsBack(partner metering.Partner) bool { return partner == "AZURE" }

// Day is the day of a sealed hour.
func (h *Hour) Day() Day {
	return Day{h.Organization, h.Sealed.Partner, h.Entitlement, h.Start.UTC().Truncate(24 * time.Hour)}
}

// Compared reports whether the step changes what its day is compared by: the outcome of a record
// that was sent to a marketplace that reads back, or what stands for it.
func (s *Step) Compared() bool {
	if s.After.Sealed == nil || !ReadsBack(s.After.Sealed.Partner) {
		return false
	}
	for i := range s.After.Sealed.Records {
		r := &s.After.Sealed.Records[i]
		before := s.before(r.Dimension)
		if r.mayStand() && (r.Outcome.Kind != before.Outcome.Kind || r.stands().Cmp(before.stands()) != 0) {
			return true
		}
	}
	return false
}

// Mature reports whether it is no delay any more if less was processed than was accepted.
func (d *Day) Mature(now time.Time) bool { return !now.Before(d.Date.Add(24*time.Hour + dayMatures)) }

// Expired reports whether the day is compared for the last time.
func (d *Day) Expired(now time.Time) bool { return !now.Before(d.Date.Add(dayExpires)) }

// Abandoned reports whether the day is given up if it can't be compared.
func (d *Day) Abandoned(now time.Time) bool { return !now.Before(d.Date.Add(dayAbandoned)) }

// Places returns the hours of the day.
func (d *Day) Places() []Place {
	places := make([]Place, 24)
	for i := range places {
		places[i] = Place{d.Organization, d.Entitlement, d.Date.Add(time.Duration(i) * time.Hour)}
	}
	return places
}

// Meter is what the marketplace adds up the usage of a day by.
type Meter struct {
	Resource  string // in lower case
	Dimension string
}

// Managed reports whether the meter is of a managed application, which is sent by its URI. Azure
// documents only GUIDs for what it reads back; whether it returns the URI is not known.
func (m Meter) Managed() bool { return strings.HasPrefix(m.Resource, "/") }

// Processed is what the marketplace has processed of a meter on a day. The zero value says that it
// reports nothing.
type Processed struct {
	Quantity float64 // Azure adds up doubles
	Records  int     // how many it has of the meter
	Complete bool    // the marketplace says that it has processed all that it has
	Status   string  // in the marketplace's words
}

// Tally is what the reports of a day have of a meter.
type Tally struct {
	Accepted metering.Exact // what is known to stand at the marketplace
	Pending  metering.Exact // what was sent and has no outcome that is final
	Records  int            // of all that may stand
	Unknown  []Doubt
	Conflict bool // what stands for an hour is another meter's, and no operator has resolved it
}

// Doubt is a record of a settled hour whose outcome is UNKNOWN.
type Doubt struct {
	Place    Place
	Quantity metering.Exact
	Billed   bool // a response that came after the outcome says so
	Restored bool // what was sent is not known: only an operator decides it
}

// Tally adds what the hour may have at the marketplace to the tallies of its day.
func (h *Hour) Tally(day map[Meter]*Tally) {
	if h.Sealed == nil || !ReadsBack(h.Sealed.Partner) { // its entitlement may have had another partner that day
		return
	}
	resource := strings.ToLower(h.Sealed.Marketplace.ResourceID + h.Sealed.Marketplace.ResourceURI)
	for i := range h.Sealed.Records {
		r := &h.Sealed.Records[i]
		if !r.mayStand() {
			continue
		}
		meter := Meter{resource, r.Dimension}
		if day[meter] == nil {
			day[meter] = &Tally{}
		}
		day[meter].add(h, r)
	}
}

// mayStand reports whether anything of the record may stand at the marketplace. An outcome that
// says so counts without an attempt: a table that was restored has lost those since.
func (r *Record) mayStand() bool {
	return len(r.Attempts) > 0 || r.Outcome.Kind == Unknown || r.Outcome.Evidence == EvidenceResolved
}

// stands is what the marketplace has if the record stands. If it was a conflict, the operator has
// seen what stands, and that may not be what was sent.
func (r *Record) stands() metering.Exact {
	quantity := metering.ExactOf(r.Quantity)
	if r.Outcome.Difference != nil {
		quantity = quantity.Add(*r.Outcome.Difference)
	}
	return quantity
}

func (t *Tally) add(h *Hour, r *Record) {
	quantity := r.stands()
	t.Records++
	switch {
	case r.Outcome.Kind == Conflict:
		t.Conflict = true
	case r.Outcome.Kind == Accepted, r.Outcome.Difference != nil:
		t.Accepted = t.Accepted.Add(quantity)
	case r.Outcome.Kind == Rejected:
		t.Records--
	case r.Outcome.Kind == Unknown && h.State == StateSettled:
		t.Unknown = append(t.Unknown, Doubt{
			Place: h.Place(), Quantity: quantity, Billed: find(r.Attempts, Billed) >= 0 || find(r.Attempts, Duplicate) >= 0,
			Restored: r.Outcome.Evidence == EvidenceRestore,
		})
	default:
		t.Pending = t.Pending.Add(quantity)
	}
}

// Comparison is how what was processed compares with what was accepted.
type Comparison string

// The comparisons.
const (
	Equal     Comparison = "EQUAL"
	Unsettled Comparison = "UNSETTLED" // they may become equal
	More      Comparison = "MORE"      // more was processed than was accepted
	Less      Comparison = "LESS"      // less was processed, and it is no delay
	// The record that is UNKNOWN was billed, or was not.
	WasBilled    Comparison = "BILLED"
	WasNotBilled Comparison = "NOT_BILLED"
)

// Compare compares the tally with what the marketplace has processed. mature is that of the day.
// visible reports whether the marketplace has reported anything of the resource: only then does it
// mean something that it reports nothing of the meter. An application that was exchanged for
// another one sees nothing, and no error either.
//
// A record that is UNKNOWN is decided if it is the only one, nothing else of the meter is open, and
// the sum with it and the sum without it can be distinguished. That it was not billed is decided
// only once the day is mature. One that was sealed in doubt is not decided: the lost table may have
// sent another quantity, for another dimension or resource.
func (t *Tally) Compare(p Processed, visible, mature bool) Comparison {
	equal := t.holds(p, t.Accepted)
	if len(t.Unknown) == 1 && !t.Unknown[0].Restored && !t.Conflict && t.Pending.Sign() == 0 {
		doubt := &t.Unknown[0]
		with := t.holds(p, t.Accepted.Add(doubt.Quantity))
		complete := p.Complete || p.Records == 0 && visible
		switch {
		case with && !equal && p.Complete:
			return WasBilled
		case equal && !with && complete && mature && !doubt.Billed:
			return WasNotBilled
		}
	}
	accepted := t.Accepted.Float64()
	switch {
	case equal:
		return Equal
	case p.Quantity < accepted:
		if mature {
			return Less
		}
		return Unsettled
	case t.Pending.Sign() > 0 && (p.Quantity <= t.Accepted.Add(t.Pending).Float64() || t.holds(p, t.Accepted.Add(t.Pending))):
		return Unsettled
	default:
		return More
	}
}

// Open reports whether anything of the meter may still change what was accepted, without an
// operator.
func (t *Tally) Open() bool { return len(t.Unknown) > 0 || t.Pending.Sign() > 0 }

// holds reports whether the marketplace's sum is that of the quantities that add up to exact.
//
// It adds up doubles, in an order that is not known: each quantity and each sum is rounded, by at
// most 2^-53 of itself. No quantity is negative, so that the error of the sum is at most 2^-53 of
// it for each record. It is allowed twice, which covers the rounding of this function's own
// numbers.
func (t *Tally) holds(p Processed, exact metering.Exact) bool {
	const unit = 0x1p-52
	sum := exact.Float64()
	return math.Abs(p.Quantity-sum) <= unit*float64(max(t.Records, p.Records, 1))*max(p.Quantity, sum)
}
