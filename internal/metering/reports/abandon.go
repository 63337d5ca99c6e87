package reports

import "github.com/marketmeter/marketmeter/internal/metering"

// SealInDoubt is Seal on a table that was restored. The lost table may have sealed the hour since
// the backup, by terms that are not in it: a price, a commit, an end that was moved. So nothing
// that the seal finds is an outcome. Each record is UNKNOWN from the start, for the reason, until
// an operator resolves it, and has in escrow what it would have been sent with. Neither the end of
// the entitlement nor a missing price keeps it from having a quantity: without a price, nothing of
// it is drawn from the commit.
func (h Hour) SealInDoubt(terms *metering.Terms, s *Schedule, usage metering.HourUsage, ledger Ledger, reason string) (Hour, Ledger, error) {
	h, ledger, err := h.seal(terms, s, usage, ledger, true)
	if err != nil {
		return h, ledger, err
	}
	for i := range h.Sealed.Records {
		h.Sealed.Records[i].Outcome = Outcome{Kind: Unknown, Evidence: EvidenceRestore, Code: metering.ProblemOutcomeUnknown, Reason: reason}
	}
	return h, ledger, nil
}

// Abandon makes each record without an outcome UNKNOWN that has something to send, since it may
// have been sent and that is not stored: the table is a restored one. What such a record has in
// escrow is held until Resolve. What was sealed never changes: a record with nothing to send was
// not sent by the lost table either, and has its outcome. The hour is DECIDED then.
func (h Hour) Abandon(ledger Ledger, reason string) (Hour, Ledger, error) {
	h, err := h.changed(StateSealed)
	if err != nil {
		return h, ledger, err
	}
	after := ledger.changed()
	for i := range h.Sealed.Records {
		r := &h.Sealed.Records[i]
		if r.Outcome.Kind != Undecided {
			continue
		}
		if r.sends() {
			r.Outcome = Outcome{Kind: Unknown, Code: metering.ProblemOutcomeUnknown, Reason: reason}
		} else {
			r.Outcome = r.outcome(false)
		}
		after.giveBack(r)
	}
	h.State = StateDecided
	return h, after, nil
}
