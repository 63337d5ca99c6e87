package reports

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// Sealed is what an hour sends. Nothing of it changes afterwards, except attempts and outcomes:
// changes of the entitlement, the config and the connection affect later hours only.
type Sealed struct {
	// From and To are the hour, clamped to the entitlement. From is the timestamp that is sent.
	From, To time.Time

	Partner     metering.Partner
	Marketplace metering.MarketplaceIDs
	Buyer       metering.BuyerID
	Product     metering.ProductID // may be empty
	Lane        string             // what it is sent, throttled and refused with; made by its worker
	Groups      int                // how many members it has
	Config      int                // the version
	Entitlement time.Time          // its last update

	CommitAmount metering.Exact
	UsedCommit   metering.Exact // before this report

	Aggregates   metering.Aggregates // nil if there are none
	Destinations map[string][]string // the dimensions that each billable metric adds to
	Records      []Record            // in byte order of their dimensions
}

// Record is the usage of a dimension in an hour. Its numbers hold to the last digit:
//
//	(Members - Drawn) * Scale = Quantity + CarryOut - CarryIn
//
// except if it could not be sealed: then it has an outcome from the start, and takes nothing.
type Record struct {
	Dimension string
	Members   metering.Exact    // what the groups used
	Quantity  metering.Quantity // what is sent, unless it is 0

	CarryIn  metering.Exact // of earlier hours
	CarryOut metering.Exact // for later ones

	Drawn       metering.Exact // units that the commit covers
	DrawnAmount metering.Exact // what they take of it

	UnitPrice metering.Quantity // 0 is none
	ListPrice metering.Quantity // 0 is none
	Scale     metering.Exact    // list price / unit price if the excess is metered at list price, else 1

	Attempts []Attempt
	Outcome  Outcome
}

// Excess is what exceeds the commit.
func (r *Record) Excess() metering.Exact { return r.Members.Sub(r.Drawn) }

// CarriesUnits reports whether one unit or more is left for later hours: more than rounding leaves
// of a quantity that the marketplace takes.
func (r *Record) CarriesUnits() bool { return r.CarryOut.Cmp(one) >= 0 }

// sends reports whether the record has something to send and no outcome.
func (r *Record) sends() bool { return r.Outcome.Kind == Undecided && r.Quantity.Sign() > 0 }

// sendUntil is the end of the window in which the record is sent.
func (r *Record) sendUntil(s *Schedule, hour time.Time) time.Time {
	if doubt := find(r.Attempts, InDoubt); doubt >= 0 {
		return s.SendUntil(hour, r.Attempts[doubt].Time)
	}
	return s.SendUntil(hour, time.Time{})
}

// outcome is the outcome of the record, from its history.
func (r *Record) outcome(over bool) Outcome {
	switch {
	case r.Quantity.Sign() > 0:
		return OutcomeOf(r.Quantity, r.Attempts, over)
	case r.Members.Sign() == 0:
		return Outcome{Kind: Accepted, Evidence: EvidenceNoUsage}
	case r.Excess().Sign() == 0:
		return Outcome{Kind: Accepted, Evidence: EvidenceCommit}
	default:
		return Outcome{Kind: Accepted, Evidence: EvidenceCarried}
	}
}

// drawnDigits is how many digits after the point the units have that exhaust a commit. They are
// rounded up. Source: docs/reporting.md.
const drawnDigits = 9

// Member is a group of an hour.
type Member struct {
	Group *metering.Group
	// Only is set if the group is reported a second time because some of its dimensions failed: it
	// holds these, as they were stored. The others stand.
	Only map[string]metering.Quantity
	// Before is what became of its dimensions in earlier reports; nil if it had none, or was
	// converted again since.
	Before map[string]Kind
	// InReport reports that the group has no room for what became of its dimensions: it may have
	// been accepted in part in an earlier report, so that this hour has the others alone.
	InReport bool
	// Applied is the version of the hour that gave the group its status; 0 if it is REPORT_PENDING.
	Applied int
}

// billable reports whether billable records of the member are in the report.
func (m *Member) billable() bool { return m.Only == nil && len(m.Group.MetaInfo.BillableRecords) > 0 }

// Seal makes the records of an open hour from what its members used, and takes the carry and what
// is drawn of the commit out of the ledger. Hour and ledger are written in one transaction. usage
// is of the members that were claimed, never of what an index lists.
//
// It returns an error if the usage can't be sealed as it is: someone has to look at it, until
// Expire ends the hour. The terms have no entitlement if it does not exist.
func (h Hour) Seal(terms *metering.Terms, s *Schedule, usage metering.HourUsage, ledger Ledger) (Hour, Ledger, error) {
	return h.seal(terms, s, usage, ledger, false)
}

// seal is Seal, or SealInDoubt before the outcomes: if inDoubt, no record is rejected.
func (h Hour) seal(terms *metering.Terms, s *Schedule, usage metering.HourUsage, ledger Ledger, inDoubt bool) (Hour, Ledger, error) {
	h, err := h.changed(StateOpen)
	if err != nil {
		return h, ledger, err
	}
	if terms == nil || terms.Entitlement == nil {
		return h, ledger, errors.New("the entitlement does not exist any more")
	}
	if len(usage.Problems) > 0 {
		return h, ledger, fmt.Errorf("the usage of the hour can't be converted: %s", usage.Problems[0].Message)
	}
	rule, err := terms.CommitRule()
	if err != nil {
		return h, ledger, err
	}
	e := terms.Entitlement
	sealed := &Sealed{
		Partner: e.Partner, Marketplace: e.Marketplace, Buyer: e.BuyerID, Product: e.ProductID,
		Config: terms.Config.Version, Entitlement: e.LastUpdateTime,
		UsedCommit: ledger.Used, Aggregates: usage.Aggregates, Destinations: usage.Destinations,
	}
	if rule.OnlyBeyond {
		sealed.CommitAmount = metering.ExactOf(e.Info.CommitAmount)
	}
	inEntitlement := false
	sealed.From, sealed.To, inEntitlement = s.Sent(h.Start)
	after := ledger.changed()
	for _, dimension := range slices.Sorted(maps.Keys(usage.Totals)) {
		r := Record{Dimension: dimension, Members: usage.Totals[dimension], Scale: one}
		if r.Members.Sign() < 0 {
			return h, ledger, fmt.Errorf("dimension %s comes to %s, which is negative", metering.Quote(dimension), r.Members)
		}
		r.UnitPrice, r.ListPrice = pricesOf(e, dimension)
		if !inEntitlement && !inDoubt {
			r.reject(metering.ProblemNoHourLeft, s.unsent(h.Start))
		} else if err := r.seal(e.Partner, rule, sealed.CommitAmount, &after, inDoubt); err != nil {
			return h, ledger, err
		}
		sealed.Records = append(sealed.Records, r)
	}
	h.State, h.Sealed = StateSealed, sealed
	return h, after, nil
}

// seal draws the commit down, rounds the excess, and takes both out of the ledger. If inDoubt, what
// can't be drawn is sealed without the commit.
func (r *Record) seal(partner metering.Partner, rule metering.CommitRule, commit metering.Exact, ledger *Ledger, inDoubt bool) error {
	// An entitlement without a commit has no usage beyond it.
	if rule.OnlyBeyond && commit.Sign() > 0 && r.Members.Sign() > 0 {
		if missing := r.draw(rule, commit.Sub(ledger.Used)); missing != "" && !inDoubt {
			r.reject(metering.ProblemNoPrice, fmt.Sprintf("dimension %s has no %s over 0, which the commit is drawn down by", metering.Quote(r.Dimension), missing))
			return nil
		}
	}
	r.CarryIn = ledger.Carry[r.Dimension]
	exact := r.Excess().Mul(r.Scale).Add(r.CarryIn)
	held, err := exact.Held(partner)
	if err != nil {
		return err
	}
	r.Quantity = held
	r.CarryOut = exact.Sub(metering.ExactOf(held))
	ledger.take(r)
	return nil
}

// draw draws the usage from what remains of the commit. It returns the member of the dimension that
// is missing for it, or "".
func (r *Record) draw(rule metering.CommitRule, remains metering.Exact) (missing string) {
	price := metering.ExactOf(r.UnitPrice)
	var drawn, amount metering.Exact
	if remains.Sign() > 0 {
		if price.Sign() <= 0 {
			return "rate"
		}
		drawn, amount = r.Members, r.Members.Mul(price)
		if amount.Cmp(remains) > 0 {
			amount = remains
			if units := remains.Quo(price).Ceil(drawnDigits); units.Cmp(drawn) < 0 {
				drawn = units
			}
		}
	}
	if rule.AtListPrice && drawn.Cmp(r.Members) < 0 {
		switch {
		case price.Sign() <= 0:
			return "rate"
		case r.ListPrice.Sign() <= 0:
			return "listPrice"
		}
		r.Scale = metering.ExactOf(r.ListPrice).Quo(price)
	}
	r.Drawn, r.DrawnAmount = drawn, amount
	return ""
}

// reject gives a record that can't be sealed its outcome. It takes nothing from the ledger.
func (r *Record) reject(code metering.ProblemCode, reason string) {
	r.Outcome = Outcome{Kind: Rejected, Evidence: EvidenceSeal, Code: code, Reason: reason}
}

// pricesOf returns the prices of a dimension, which are 0 if it has none.
func pricesOf(e *metering.Entitlement, dimension string) (unit, list metering.Quantity) {
	i := slices.IndexFunc(e.Info.Dimensions, func(d metering.Dimension) bool { return d.Key == dimension })
	if i < 0 {
		return unit, list
	}
	return e.Info.Dimensions[i].Rate, e.Info.Dimensions[i].ListPrice
}

var one = metering.MustExact("1")
