package model

import (
	"fmt"
	"testing"
)

// TestLedger searches a model of carry and commit: two reports may be in flight at once, and a
// report may be rejected after the ledger has changed. Numbers are tenths; the marketplace takes
// whole units; the unit price is 1.
func TestLedger(t *testing.T) {
	const unequal = "usage is lost or counted twice"
	for _, test := range []struct {
		ledger
		variant[ledgerState]
	}{
		{ledger{}, variant[ledgerState]{name: "AdvancedAtSeal", violation: unequal, states: 193, lastStep: "rejected 0"}},
		{ledger{commit: 10}, variant[ledgerState]{name: "AdvancedAtSeal_Commit", violation: unequal, states: 437, lastStep: "rejected 0"}},
		// A plain undo: a later report may have used the carry.
		{ledger{undo: true}, variant[ledgerState]{name: "AdvancedAtSeal_Undone", violation: unequal, states: 3665, lastStep: "accepted 1"}},
		{ledger{escrow: true}, variant[ledgerState]{name: "Escrow", states: 15039}},
		{ledger{escrow: true, commit: 10}, variant[ledgerState]{name: "Escrow_Commit", states: 18864}},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.variant.next, test.bad = test.ledger.next, ledgerState.broken
			test.search(t, ledgerState{})
		})
	}
}

// ledger is a variant of the model.
type ledger struct {
	escrow bool // seal takes carry and drawdown out of the ledger, decide returns them by outcome
	undo   bool // without escrow, a rejection sets the ledger to what it was before
	commit int
}

type ledgerState struct {
	used             int // by the buyer, all of it
	waiting, failed  int
	carry, drawn     int // the ledger
	billed           int
	flying           [2]report
	reported, losses int // how often, which bounds the search
}

type report struct {
	flies                  bool
	members, quantity      int
	carryIn, carryOut      int
	drawn                  int
	carryBefore, drawnPast int // the ledger before, for a plain undo
}

func (v ledger) next(s ledgerState) (steps []step[ledgerState]) {
	add := func(to ledgerState, format string, args ...any) {
		steps = append(steps, step[ledgerState]{fmt.Sprintf(format, args...), to})
	}
	if s.reported < 4 {
		for _, quantity := range []int{4, 7, 13} {
			to := s
			to.used, to.waiting, to.reported = s.used+quantity, s.waiting+quantity, s.reported+1
			add(to, "used %d", quantity)
		}
	}
	for i, r := range s.flying {
		if !r.flies {
			if s.waiting > 0 {
				add(v.seal(s, i), "sealed %d", i)
			}
			continue
		}
		accepted := s
		accepted.flying[i] = report{}
		rejected := accepted
		accepted.billed += r.quantity
		rejected.failed += r.members
		rejected.losses++
		switch {
		case v.escrow:
			accepted.carry += r.carryOut
			rejected.carry += r.carryIn
			rejected.drawn -= r.drawn
		case v.undo:
			rejected.carry, rejected.drawn = r.carryBefore, r.drawnPast
		}
		add(accepted, "accepted %d", i)
		if r.quantity > 0 && s.losses < 2 {
			add(rejected, "rejected %d", i)
		}
	}
	if s.failed > 0 {
		to := s
		to.waiting, to.failed = s.waiting+s.failed, 0
		add(to, "retried")
	}
	return steps
}

// seal puts what waits into report i.
func (v ledger) seal(s ledgerState, i int) ledgerState {
	drawn := min(s.waiting, v.commit-s.drawn)
	exact := s.waiting - drawn + s.carry
	r := report{
		flies: true, members: s.waiting, quantity: exact / 10 * 10, carryIn: s.carry, carryOut: exact % 10, drawn: drawn,
	}
	if v.undo {
		r.carryBefore, r.drawnPast = s.carry, s.drawn
	}
	to := s
	to.flying[i], to.waiting, to.drawn = r, 0, s.drawn+drawn
	if to.carry = 0; !v.escrow {
		to.carry = r.carryOut
	}
	return to
}

// broken checks conservation once nothing is in flight.
func (s ledgerState) broken() string {
	switch {
	case s.carry < 0 || s.drawn < 0:
		return "the ledger is negative"
	case s.flying != [2]report{}:
		return ""
	case s.billed > s.used:
		return "more is billed than was used"
	case s.used != s.billed+s.carry+s.drawn+s.failed+s.waiting:
		return "usage is lost or counted twice"
	default:
		return ""
	}
}
