package reports

import "github.com/marketmeter/marketmeter/internal/metering"

// Abandon makes each record without an outcome UNKNOWN, since it may have been sent and that is not
// stored: the table is a restored one. The hour is DECIDED then. The ledger does not change: what
// the records have in escrow is held until Resolve.
func (h Hour) Abandon(reason string) (Hour, error) {
	h, err := h.changed(StateSealed)
	if err != nil {
		return h, err
	}
	for i := range h.Sealed.Records {
		if r := &h.Sealed.Records[i]; r.Outcome.Kind == Undecided {
			r.Outcome = Outcome{Kind: Unknown, Code: metering.ProblemOutcomeUnknown, Reason: reason}
		}
	}
	h.State = StateDecided
	return h, nil
}
