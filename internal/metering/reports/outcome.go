package reports

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// Outcome is what became of a sealed record. The zero value is an outcome that is not known yet.
type Outcome struct {
	Kind     Kind
	Evidence Evidence
	Receipt  string // of the marketplace

	Code metering.ProblemCode // of any outcome but Accepted
	// Reason is why, of any outcome but Accepted; and what a response says that came later and
	// contradicts it.
	Reason string

	// Difference is what the marketplace has, less what was sent; nil if it does not say.
	Difference *metering.Exact

	// The operator that resolved it, or ByReconciliation, and the time.
	By string
	At time.Time
}

// Kind is the kind of an outcome.
type Kind string

// The kinds of outcomes. Only Resolve changes a Conflict or an Unknown.
const (
	Undecided Kind = ""
	Accepted  Kind = "ACCEPTED" // billed, once
	Rejected  Kind = "REJECTED" // not billed, and never will be
	Conflict  Kind = "CONFLICT" // another record stands for the hour
	Unknown   Kind = "UNKNOWN"  // billed or not
)

// Kinds are all kinds that this version knows.
var Kinds = []Kind{Undecided, Accepted, Rejected, Conflict, Unknown}

// Evidence is what settled an outcome.
type Evidence string

// The kinds of evidence.
const (
	EvidenceResponse  Evidence = "RESPONSE"  // the marketplace's
	EvidenceDuplicate Evidence = "DUPLICATE" // after an attempt of ours that was in doubt
	EvidenceCommit    Evidence = "COMMIT"    // the commit covers all: nothing was sent
	EvidenceCarried   Evidence = "CARRIED"   // too little for the marketplace: all of it is carried
	EvidenceNoUsage   Evidence = "NO_USAGE"  // the usage is zero: nothing was sent
	EvidenceSeal      Evidence = "SEAL"      // it could not be sealed: nothing was sent
	EvidenceWindow    Evidence = "WINDOW"    // the window ended
	EvidenceResolved  Evidence = "RESOLVED"  // by an operator or the reconciliation
	EvidenceRestore   Evidence = "RESTORE"   // the table was restored before it was sealed: nobody knows what was sent
)

// Evidences are all kinds of evidence that this version knows.
var Evidences = []Evidence{
	"", EvidenceResponse, EvidenceDuplicate, EvidenceCommit, EvidenceCarried, EvidenceNoUsage, EvidenceSeal, EvidenceWindow, EvidenceResolved,
	EvidenceRestore,
}

// clockTolerance is by how much the marketplace's clock may be behind ours. A record that it has
// accepted this much before our first attempt may still be ours.
const clockTolerance = time.Minute

// OutcomeOf makes the outcome of a sealed quantity from the history of its attempts, in the order
// in which they were stored. over reports whether the window has ended: nothing is sent any more.
// It is Undecided if more has to be known.
func OutcomeOf(quantity metering.Quantity, attempts []Attempt, over bool) Outcome {
	if billed := find(attempts, Billed); billed >= 0 {
		return Outcome{Kind: Accepted, Evidence: EvidenceResponse, Receipt: attempts[billed].Receipt}
	}
	doubt := find(attempts, InDoubt)
	if duplicate := find(attempts, Duplicate); duplicate >= 0 {
		return ofDuplicates(quantity, attempts, doubt, over)
	}
	switch {
	case doubt >= 0 && over:
		return Outcome{
			Kind: Unknown, Evidence: EvidenceWindow, Code: metering.ProblemOutcomeUnknown,
			Reason: "the window of the hour ended, and no definite response to every attempt was received",
		}
	case doubt >= 0, len(attempts) == 0 && !over:
		return Outcome{}
	case len(attempts) == 0:
		return Outcome{Kind: Rejected, Evidence: EvidenceWindow, Code: metering.ProblemExpired, Reason: "the window of the hour ended before it was sent"}
	}
	last := &attempts[len(attempts)-1]
	rejected := Outcome{Kind: Rejected, Evidence: EvidenceResponse, Code: last.Code, Reason: last.Reason}
	if rejected.Code == "" {
		rejected.Code = metering.ProblemMarketplaceRefused
	}
	if !last.Again {
		return rejected
	}
	if !over {
		return Outcome{}
	}
	if rejected.Evidence = EvidenceWindow; last.Code == "" {
		rejected.Code = metering.ProblemExpired
	}
	return rejected
}

// contradict adds to the reason what a response that came after the outcome makes of it: late is
// the outcome of the history with that response. The outcome stays: what it took of the ledger may
// be used by now.
func (o *Outcome) contradict(late Outcome) {
	// After a restore there may be attempts that are not known: no refusal proves anything.
	ended := o.Kind == Unknown && o.Evidence == EvidenceWindow
	resolved := o.Evidence == EvidenceResolved
	said := ""
	switch {
	case late.Kind == Accepted && late.Evidence == EvidenceResponse && o.Kind != Undecided && o.Kind != Accepted:
		o.Receipt, said = late.Receipt, "it was billed"
	case late.Kind == Accepted && late.Evidence == EvidenceResponse && o.Evidence == EvidenceDuplicate:
		o.Receipt = late.Receipt
	case late.Kind == Rejected && (ended || resolved && o.Kind == Accepted):
		said = "it was not billed"
	case late.Kind == Accepted && (ended || resolved && o.Kind == Rejected):
		said = "the marketplace has a record of the hour, after an attempt in doubt"
	case late.Kind == Conflict && (ended || o.Evidence == EvidenceDuplicate || resolved && o.Kind == Accepted):
		o.Difference, said = cmp.Or(late.Difference, o.Difference), "another record stands for the hour"
	}
	if said == "" {
		return
	}
	said = "a response that came later says that " + said
	switch {
	case o.Reason == "":
		o.Reason = said
	case !strings.Contains(o.Reason, said):
		o.Reason += "; " + said
	}
}

// ofDuplicates makes the outcome of a history with a duplicate. doubt is the first attempt that is
// in doubt, or -1. A duplicate is ours if an attempt before it is in doubt, and if the marketplace
// does not say that what stands is something else.
//
// If only later attempts are in doubt, two workers overlap, and one of these may be what stands.
// The record is sent again: the next duplicate has an attempt in doubt before it, or a definite
// response to all shows that the record is not ours.
func ofDuplicates(quantity metering.Quantity, attempts []Attempt, doubt int, over bool) Outcome {
	conflict := Outcome{Kind: Conflict, Evidence: EvidenceResponse, Code: metering.ProblemConflict}
	ours := false
	for i := range attempts {
		a := &attempts[i]
		if a.Result != Duplicate {
			continue
		}
		if a.Accepted != nil {
			difference := a.Accepted.Sub(metering.ExactOf(quantity))
			conflict.Difference = &difference
			if a.Accepted.Float64() != metering.ExactOf(quantity).Float64() {
				conflict.Reason = fmt.Sprintf("the marketplace has %s for the hour, not %s", a.Accepted, quantity)
				return conflict
			}
		}
		if !a.AcceptedAt.IsZero() && a.AcceptedAt.Before(attempts[0].Time.Add(-clockTolerance)) {
			conflict.Reason = fmt.Sprintf("the marketplace has a record of the hour from %s, before the first attempt", metering.FormatTime(a.AcceptedAt))
			return conflict
		}
		ours = ours || doubt >= 0 && doubt < i
	}
	switch {
	case ours:
		return Outcome{Kind: Accepted, Evidence: EvidenceDuplicate}
	case doubt >= 0 && !over:
		return Outcome{}
	default:
		conflict.Reason = "the marketplace had a record of the hour before the first attempt"
		return conflict
	}
}

// find returns the index of the first attempt with that result, or -1.
func find(attempts []Attempt, result Result) int {
	for i := range attempts {
		if attempts[i].Result == result {
			return i
		}
	}
	return -1
}
