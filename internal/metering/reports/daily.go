package reports

import "github.com/marketmeter/marketmeter/internal/metering"

// Daily is what a marketplace has accepted of a dimension in the hours of a day.
type Daily struct {
	Quantity metering.Exact
	// Amount is the sum of quantity times unit price; nil if an hour has no unit price.
	Amount *metering.Exact
}

// Acceptance is what a step adds to what was accepted of a dimension.
type Acceptance struct {
	Dimension string
	Quantity  metering.Exact // below zero if less stands than was known
	UnitPrice metering.Quantity
}

// Accepted returns what the step adds to what was accepted: the records that it has made ACCEPTED,
// without those of which nothing was sent, and what a response that came later changes of what
// stands for one.
func (s *Step) Accepted() (all []Acceptance) {
	if s.After.Sealed == nil {
		return nil
	}
	for i := range s.After.Sealed.Records {
		r := &s.After.Sealed.Records[i]
		if r.Outcome.Kind != Accepted || r.Quantity.Sign() == 0 {
			continue
		}
		quantity := r.stands()
		if before := s.before(r.Dimension); before.Outcome.Kind == Accepted {
			if quantity = quantity.Sub(before.stands()); quantity.Sign() == 0 {
				continue
			}
		}
		all = append(all, Acceptance{r.Dimension, quantity, r.UnitPrice})
	}
	return all
}

// before is the record of a dimension before the step; an empty one if there was none.
func (s *Step) before(dimension string) *Record {
	if s.Before != nil {
		if r := s.Before.record(dimension); r != nil {
			return r
		}
	}
	return &Record{}
}

// Add returns the day with what was accepted. The first acceptance is added to a nil day.
func (d *Daily) Add(a *Acceptance) Daily {
	price := metering.ExactOf(a.UnitPrice)
	sum := Daily{Quantity: a.Quantity}
	if price.Sign() > 0 {
		amount := a.Quantity.Mul(price)
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
