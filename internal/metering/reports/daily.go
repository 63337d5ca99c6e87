package reports

import "github.com/marketmeter/marketmeter/internal/metering"

// Daily is what a marketplace has accepted of a dimension in the hours of a day.
type Daily struct {
	Quantity metering.Exact
	// Amount is the sum of quantity times unit price; nil if an hour has no unit price.
	Amount *metering.Exact
}

// Accepted returns the records that the step has made ACCEPTED, without those of which nothing was
// sent. Each record of an hour is returned by one step at most: nothing changes an ACCEPTED.
func (s *Step) Accepted() []Record {
	if s.After.Sealed == nil {
		return nil
	}
	var accepted []Record
	for _, r := range s.After.Sealed.Records {
		if r.Outcome.Kind != Accepted || r.Quantity.Sign() == 0 {
			continue
		}
		if s.before(r.Dimension) != Accepted {
			accepted = append(accepted, r)
		}
	}
	return accepted
}

// before is the kind of the outcome that a dimension had before the step.
func (s *Step) before(dimension string) Kind {
	if s.Before == nil {
		return Undecided
	}
	if r := s.Before.record(dimension); r != nil {
		return r.Outcome.Kind
	}
	return Undecided
}

// Add returns the day with an accepted record. The first record is added to a nil day.
func (d *Daily) Add(r *Record) Daily {
	quantity, price := r.stands(), metering.ExactOf(r.UnitPrice)
	sum := Daily{Quantity: quantity}
	if price.Sign() > 0 {
		amount := quantity.Mul(price)
		sum.Amount = &amount
	}
	if d == nil {
		return sum
	}
	sum.Quantity = sum.Quantity.Add(d.Quantity)
	if sum.Amount == nil || d.Amount == nil {
		sum.Amount = nil
		return sum
	}
	amount := sum.Amount.Add(*d.Amount)
	sum.Amount = &amount
	return sum
}
