package reporting_test

import (
	"maps"
	"math/big"
	"slices"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/reporting/worldtest"
)

// account is a dimension of an entitlement.
type account struct {
	metering.EntitlementID
	dimension string
}

// held is the usage of a group's dimension in a record that is not REJECTED.
type held struct {
	kind    reports.Kind
	metered bool // its billable records count
}

// checkPlaces checks invariant 5: each dimension of each group is in exactly one place, its status
// and what is stored of its outcomes say in which, and nothing is lost or counted twice.
func (h *history) checkPlaces() {
	used, accounted := map[account]*big.Rat{}, map[account]*big.Rat{}
	for id, g := range h.groups {
		in := h.heldOf(g)
		waits := h.waiting(g)
		h.checkStatus(id, g, in, waits)
		if g.Status == metering.StatusDeleted {
			continue
		}
		for dimension, quantity := range g.Records {
			of := account{metering.EntitlementID(g.EntitlementID), dimension}
			if all := in[dimension]; len(all) > 0 {
				if !all[0].metered { // else it counts in the aggregate of the hour
					add(used, of, rat(quantity.String()), 1)
				}
				continue
			}
			add(used, of, rat(quantity.String()), 1)
			if failed := g.Status == metering.StatusReportFailed || g.Status == metering.StatusInvalid; failed || waits[dimension] || h.rejects(g, dimension) {
				add(accounted, of, rat(quantity.String()), 1)
			}
		}
	}
	h.addSealed(used, accounted)
	for of, want := range used {
		if got := accounted[of]; got == nil || got.Cmp(want) != 0 {
			h.fail("5. %s was used of %s, %s is accounted for", want.FloatString(9), of, got)
		}
	}
	for of, got := range accounted {
		if used[of] == nil && got.Sign() != 0 {
			h.fail("5. %s of %s is accounted for, and was not used", got.FloatString(9), of)
		}
	}
}

// addSealed adds what the records that are not REJECTED account for, in units of usage: what is
// metered at list price is divided by its scale. In units that are billed, the excess is what is
// sent, carried or in escrow.
func (h *history) addSealed(used, accounted map[account]*big.Rat) {
	left := map[account]*big.Rat{} // excess - sent - in escrow
	for place, hour := range h.hours {
		if hour.Sealed == nil {
			continue
		}
		aggregates := h.aggregates(place)
		for i := range hour.Sealed.Records {
			r := &hour.Sealed.Records[i]
			if r.Outcome.Kind == reports.Rejected {
				continue
			}
			of := account{place.Entitlement, r.Dimension}
			if aggregate := aggregates[r.Dimension]; aggregate != nil {
				add(used, of, aggregate, 1)
			}
			q, out, got := rat(r.Quantity.String()), ratOf(r.CarryOut), ratOf(r.CarryIn)
			excess := new(big.Rat).Sub(new(big.Rat).Add(q, out), got)
			add(accounted, of, new(big.Rat).Quo(excess, ratOf(r.Scale)), 1)
			add(accounted, of, ratOf(r.Drawn), 1)
			add(left, of, new(big.Rat).Mul(new(big.Rat).Sub(ratOf(r.Members), ratOf(r.Drawn)), ratOf(r.Scale)), 1)
			add(left, of, q, -1)
			if r.Outcome.Kind != reports.Accepted {
				add(left, of, out, -1)
			}
		}
	}
	for of, want := range left {
		if got := ratOf(h.ledgers[of.EntitlementID].Carry[of.dimension]); got.Cmp(want) != 0 {
			h.fail("5. the excess of %s leaves %s, the carry is %s", of, want.FloatString(9), got.FloatString(9))
		}
	}
}

// heldOf returns in which records that are not REJECTED the dimensions of the group are.
func (h *history) heldOf(g *seenGroup) map[string][]held {
	in := map[string][]held{}
	for hour, taken := range g.claims {
		sealed := h.hourOf(g, hour)
		if sealed == nil || sealed.Sealed == nil {
			continue
		}
		for dimension := range g.dimensions(taken) {
			if r := sealed.Record(dimension); r != nil && r.Outcome.Kind != reports.Rejected {
				in[dimension] = append(in[dimension], held{r.Outcome.Kind, taken.metered})
			}
		}
	}
	return in
}

// waiting returns the dimensions that wait for a record: those of a group that is CREATED, but for
// what an earlier report holds, and those that an open hour has claimed.
func (h *history) waiting(g *seenGroup) map[string]bool {
	switch g.Status {
	case metering.StatusCreated:
		return g.dimensions(g.toReport())
	case metering.StatusReportPending:
		if hour := h.hourOf(g, g.hour); hour != nil && hour.Sealed == nil {
			return g.dimensions(g.claims[g.hour])
		}
	}
	return nil
}

// rejects reports whether the hour of a group that is REPORT_PENDING has rejected the dimension.
func (h *history) rejects(g *seenGroup, dimension string) bool {
	if g.Status != metering.StatusReportPending || !g.dimensions(g.claims[g.hour])[dimension] {
		return false
	}
	hour := h.hourOf(g, g.hour)
	if hour == nil || hour.Sealed == nil {
		return false
	}
	r := hour.Record(dimension)
	return r != nil && r.Outcome.Kind == reports.Rejected
}

// hourOf is an hour of the group's entitlement, or nil.
func (h *history) hourOf(g *seenGroup, start time.Time) *reports.Hour {
	return h.hours[reports.Place{Organization: worldtest.Org, Entitlement: metering.EntitlementID(g.EntitlementID), Hour: start}]
}

// checkStatus checks that the group's dimensions are in one place each, and that its status and its
// stored outcomes are those of these places. Between a decision and the group's next write, and
// between a resolve and it, they may be those of before.
func (h *history) checkStatus(id metering.GroupID, g *seenGroup, in map[string][]held, waits map[string]bool) {
	all := g.dimensions(claim{g.Records, len(g.MetaInfo.BillableRecords) > 0})
	accepted := 0
	for dimension := range all {
		places := len(in[dimension])
		if waits[dimension] {
			places++
		}
		switch of := in[dimension]; {
		case places > 1:
			h.fail("5. %s of %s is in %d places: it is %s", dimension, id, places, g.Status)
		case places == 0 && (g.Status == metering.StatusCreated || g.Status == metering.StatusReported ||
			g.Status == metering.StatusReportPending && !h.rejects(g, dimension)):
			h.fail("5. %s of %s, which is %s, is in no place", dimension, id, g.Status)
		case len(of) == 1 && of[0].kind == reports.Accepted:
			accepted++
		case g.Status == metering.StatusReported:
			h.fail("5. %s is REPORTED, and %s of it is not ACCEPTED: %v", id, dimension, of)
		}
	}
	for dimension := range in {
		if !all[dimension] {
			h.fail("5. %s of %s is in a record, and the group has %v", dimension, id, slices.Sorted(maps.Keys(all)))
		}
	}
	if failed := g.Status == metering.StatusReportFailed || g.Status == metering.StatusInvalid; failed && len(g.Problems) == 0 {
		h.fail("5. %s is %s for no reason", id, g.Status)
	}
	hour := h.hourOf(g, g.hour)
	if hour != nil && hour.State != reports.StateSettled && g.applied != hour.Version {
		return // a status of before
	}
	if g.Status == metering.StatusReportFailed && accepted == len(all) {
		h.fail("5. %s is REPORT_FAILED, and all of it is ACCEPTED", id)
	}
	h.checkOutcomes(id, g, in)
}

// checkOutcomes checks what is stored of the outcomes of a group. None are stored of one that is
// REPORTED, or was converted again.
func (h *history) checkOutcomes(id metering.GroupID, g *seenGroup, in map[string][]held) {
	if len(g.outcomes) == 0 {
		if g.Status != metering.StatusReported && g.Status != metering.StatusReportPending && len(in) > 0 {
			h.fail("5. %s is %s without outcomes, and in a record: %v", id, g.Status, in)
		}
		return
	}
	for dimension, stored := range g.outcomes {
		if g.Status == metering.StatusReportPending && g.dimensions(g.claims[g.hour])[dimension] {
			continue // it is claimed again
		}
		is := reports.Rejected
		if len(in[dimension]) > 0 {
			is = in[dimension][0].kind
		}
		if is != stored {
			h.fail("5. %s of %s, which is %s, is stored as %s, and is %s", dimension, id, g.Status, stored, is)
		}
	}
}
