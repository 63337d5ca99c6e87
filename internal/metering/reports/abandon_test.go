package reports

import (
	"errors"
	"testing"
)

// What was never sent is UNKNOWN too: that it was not is not known. What it has in escrow is held
// until an operator resolves it, as with any other UNKNOWN.
func TestAbandon_HoldsWhatMayHaveBeenSent(t *testing.T) {
	h, ledger := sealedHour(t)
	before := ledgerText(ledger)
	after := must(t)(h.Abandon("the table was restored"))
	if after.State != StateDecided || after.Version != h.Version+1 {
		t.Errorf("%s, version %d", after.State, after.Version)
	}
	for _, r := range after.Sealed.Records {
		if r.Outcome.Kind != Unknown || r.Outcome.Reason != "the table was restored" {
			t.Errorf("%s: %+v", r.Dimension, r.Outcome)
		}
		if h.record(r.Dimension).Outcome.Kind != Undecided {
			t.Errorf("%s of the hour before has changed", r.Dimension)
		}
	}
	resolved, ledger, err := after.Resolve(ledger, "b", false, "ann", inWindow)
	if err != nil || resolved.record("b").Outcome.Kind != Rejected || ledgerText(ledger) == before {
		t.Errorf("%v: %+v, the ledger %s", err, resolved.record("b").Outcome, ledgerText(ledger))
	}
}

func TestAbandon_KeepsOutcomes(t *testing.T) {
	h, ledger := sealedHour(t)
	h, _, err := h.Begin([]string{"b"}, &window, inWindow)
	if err != nil {
		t.Fatal(err)
	}
	h = must(t)(h.Respond("b", 1, Response{Result: Billed, Receipt: "1"}))
	if h, _, err = h.Decide(ledger, &window, inWindow); err != nil {
		t.Fatal(err)
	}
	after := must(t)(h.Abandon("r"))
	if got := after.record("b").Outcome; got.Kind != Accepted || got.Receipt != "1" {
		t.Errorf("%+v", got)
	}
	if got := after.record("a").Outcome; got.Kind != Unknown {
		t.Errorf("%+v", got)
	}
	if _, err := after.Abandon("r"); !errors.Is(err, ErrState) {
		t.Errorf("a decided hour: %v; want ErrState", err)
	}
}
