package reports

import (
	"maps"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// Ledger is what the reports of an entitlement leave behind for later ones. What a report has taken
// out is in escrow, in the report's records, until its outcome is known.
type Ledger struct {
	Version int // grows by 1 with each change
	// Carry is the usage by dimension that was too fine, or too much, for the marketplace. It is not
	// in the ledger if it is 0.
	Carry map[string]metering.Exact
	Used  metering.Exact // of the commit, in the entitlement's currency
}

// changed returns a copy of the ledger that may be changed, with the next version.
func (l Ledger) changed() Ledger {
	l.Version++
	if l.Carry = maps.Clone(l.Carry); l.Carry == nil {
		l.Carry = map[string]metering.Exact{}
	}
	return l
}

// addCarry adds to the carry of a dimension.
func (l *Ledger) addCarry(dimension string, carry metering.Exact) {
	if carry = l.Carry[dimension].Add(carry); carry.Sign() == 0 {
		delete(l.Carry, dimension)
	} else {
		l.Carry[dimension] = carry
	}
}

// take moves what the sealed record uses out of the ledger.
func (l *Ledger) take(r *Record) {
	l.addCarry(r.Dimension, metering.Exact{}.Sub(r.CarryIn))
	l.Used = l.Used.Add(r.DrawnAmount)
}

// giveBack returns by outcome what the record has in escrow. What an outcome holds stays there.
func (l *Ledger) giveBack(r *Record) {
	switch r.Outcome.Kind {
	case Accepted:
		l.addCarry(r.Dimension, r.CarryOut)
	case Rejected:
		l.addCarry(r.Dimension, r.CarryIn)
		l.Used = l.Used.Sub(r.DrawnAmount)
	}
}
