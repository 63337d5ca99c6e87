package reports

import (
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// A history is spelled as its attempts in order: one minute apart, from 12:00.
//
//	?  in doubt                     B  billed
//	R  refused                      r  refused, to be sent again
//	s  not subscribed, sent again   D  duplicate, nothing else is known
//	=  duplicate of our quantity    !  duplicate of another quantity
//	~  duplicate of our quantity, from before our first attempt, by clocks that may differ so much
//	<  duplicate of our quantity, from before our first attempt, by any clock
func history(spelled string) (attempts []Attempt) {
	first := at("06-15 12:00")
	same, other := metering.MustExact("10.1"), metering.MustExact("12.5")
	responses := map[rune]Response{
		'?': {},
		'B': {Result: Billed, Receipt: "receipt"},
		'R': {Result: Refused, Code: metering.ProblemDimensionUnknown, Reason: "no such dimension"},
		'r': {Result: Refused, Again: true, Reason: "throttled"},
		's': {Result: Refused, Again: true, Code: metering.ProblemNotSubscribed, Reason: "not subscribed"},
		'D': {Result: Duplicate},
		'=': {Result: Duplicate, Accepted: &same, AcceptedAt: first},
		'!': {Result: Duplicate, Accepted: &other, AcceptedAt: first.Add(time.Second)},
		'<': {Result: Duplicate, Accepted: &same, AcceptedAt: first.Add(-clockTolerance - time.Millisecond)},
		'~': {Result: Duplicate, Accepted: &same, AcceptedAt: first.Add(-clockTolerance)},
	}
	for i, c := range spelled {
		response, ok := responses[c]
		if !ok {
			panic("no response is spelled " + string(c))
		}
		attempts = append(attempts, Attempt{i + 1, first.Add(time.Duration(i) * time.Minute), response})
	}
	return attempts
}

func TestOutcomeOf_EachHistory(t *testing.T) {
	const (
		undecided = Undecided
		none      = metering.ProblemCode("")
	)
	for _, test := range []struct {
		history string
		open    Kind // while the window is open
		over    Kind // once it has ended
		code    metering.ProblemCode
		why     Evidence
	}{
		{"", undecided, Rejected, metering.ProblemExpired, EvidenceWindow},
		{"B", Accepted, Accepted, none, EvidenceResponse},
		{"?", undecided, Unknown, metering.ProblemOutcomeUnknown, EvidenceWindow},
		{"R", Rejected, Rejected, metering.ProblemDimensionUnknown, EvidenceResponse},
		{"r", undecided, Rejected, metering.ProblemExpired, EvidenceWindow},
		{"s", undecided, Rejected, metering.ProblemNotSubscribed, EvidenceWindow},
		{"sr", undecided, Rejected, metering.ProblemExpired, EvidenceWindow},
		{"srR", Rejected, Rejected, metering.ProblemDimensionUnknown, EvidenceResponse},
		{"ssB", Accepted, Accepted, none, EvidenceResponse},

		// A refusal says nothing about another attempt that is in doubt.
		{"?R", undecided, Unknown, metering.ProblemOutcomeUnknown, EvidenceWindow},
		{"R?", undecided, Unknown, metering.ProblemOutcomeUnknown, EvidenceWindow},
		{"?s", undecided, Unknown, metering.ProblemOutcomeUnknown, EvidenceWindow},
		{"?RB", Accepted, Accepted, none, EvidenceResponse},
		{"B?", Accepted, Accepted, none, EvidenceResponse},
		{"BR", Accepted, Accepted, none, EvidenceResponse},
		{"RB", Accepted, Accepted, none, EvidenceResponse},

		// A duplicate on the first attempt is never ours.
		{"D", Conflict, Conflict, metering.ProblemConflict, EvidenceResponse},
		{"=", Conflict, Conflict, metering.ProblemConflict, EvidenceResponse},
		{"RD", Conflict, Conflict, metering.ProblemConflict, EvidenceResponse},
		{"sD", Conflict, Conflict, metering.ProblemConflict, EvidenceResponse},
		{"DD", Conflict, Conflict, metering.ProblemConflict, EvidenceResponse},
		{"DR", Conflict, Conflict, metering.ProblemConflict, EvidenceResponse},
		{"?D", Accepted, Accepted, none, EvidenceDuplicate},
		{"R?D", Accepted, Accepted, none, EvidenceDuplicate},
		{"?RD", Accepted, Accepted, none, EvidenceDuplicate},
		{"?DD", Accepted, Accepted, none, EvidenceDuplicate},
		{"D?D", Accepted, Accepted, none, EvidenceDuplicate},
		{"DB", Accepted, Accepted, none, EvidenceResponse},

		// Two workers overlap: the later attempt may be what stands.
		{"D?", undecided, Conflict, metering.ProblemConflict, EvidenceResponse},
		{"D?R", undecided, Conflict, metering.ProblemConflict, EvidenceResponse},

		// The marketplace says what it has.
		{"?=", Accepted, Accepted, none, EvidenceDuplicate},
		{"?~", Accepted, Accepted, none, EvidenceDuplicate},
		{"~", Conflict, Conflict, metering.ProblemConflict, EvidenceResponse},
		{"?!", Conflict, Conflict, metering.ProblemConflict, EvidenceResponse},
		{"?<", Conflict, Conflict, metering.ProblemConflict, EvidenceResponse},
		{"?D!", Conflict, Conflict, metering.ProblemConflict, EvidenceResponse},
		{"B!", Accepted, Accepted, none, EvidenceResponse},
	} {
		ten, err := metering.ParseQuantity("10.1")
		if err != nil {
			t.Fatal(err)
		}
		for over, want := range map[bool]Kind{false: test.open, true: test.over} {
			got := OutcomeOf(ten, history(test.history), over)
			if got.Kind != want {
				t.Errorf("%q, over %t: %s, want %s", test.history, over, got.Kind, want)
			}
			if got.Kind != Undecided && (got.Evidence != test.why || got.Code != test.code) {
				t.Errorf("%q, over %t: %s %s, want %s %s", test.history, over, got.Code, got.Evidence, test.code, test.why)
			}
			if got.Kind == Accepted && got.Evidence == EvidenceResponse && got.Receipt != "receipt" {
				t.Errorf("%q: the receipt is %q", test.history, got.Receipt)
			}
			if (got.Kind == Conflict || got.Kind == Unknown) && got.Reason == "" {
				t.Errorf("%q: no reason", test.history)
			}
		}
	}
}

func TestOutcomeOf_ShowsTheDifference(t *testing.T) {
	ten, _ := metering.ParseQuantity("10.1")
	for spelled, want := range map[string]string{"!": "2.4", "?!": "2.4", "=": "0", "<": "0"} {
		got := OutcomeOf(ten, history(spelled), false)
		if got.Difference == nil || got.Difference.String() != want {
			t.Errorf("%q: %v", spelled, got.Difference)
		}
	}
	if got := OutcomeOf(ten, history("D"), false); got.Difference != nil {
		t.Errorf("the difference is %s, but nothing is known", got.Difference)
	}
}

// Azure returns a double. What it spells differently is the same quantity.
func TestOutcomeOf_ComparesDoubles(t *testing.T) {
	ours, _ := metering.ParseQuantity("0.1")
	for text, want := range map[string]Kind{
		"0.1000000000000000055511151231257827": Accepted, "0.1": Accepted, "0.10000000000000002": Conflict, "0.09999999999999": Conflict,
	} {
		echo := metering.MustExact(text)
		attempts := append(history("?"), Attempt{9, at("06-15 12:01"), Response{Result: Duplicate, Accepted: &echo}})
		if got := OutcomeOf(ours, attempts, false); got.Kind != want {
			t.Errorf("%s: %s", text, got.Kind)
		}
	}
}

// For all histories of up to 5 attempts: what is said follows from evidence, and a refusal alone
// rejects.
func TestOutcomeOf_HasEvidence(t *testing.T) {
	ten, _ := metering.ParseQuantity("10.1")
	var check func(spelled string)
	check = func(spelled string) {
		attempts := history(spelled)
		refused, billed, duplicateAfterDoubt, doubt := true, false, false, false
		for _, a := range attempts {
			refused = refused && a.Result == Refused
			billed = billed || a.Result == Billed
			duplicateAfterDoubt = duplicateAfterDoubt || doubt && a.Result == Duplicate
			doubt = doubt || a.Result == InDoubt
		}
		for _, over := range []bool{false, true} {
			switch got := OutcomeOf(ten, attempts, over); {
			case got.Kind == Rejected && !refused, got.Kind == Accepted && !billed && !duplicateAfterDoubt, billed && got.Kind != Accepted:
				t.Errorf("%q, over %t: %s", spelled, over, got.Kind)
			case over && got.Kind == Undecided, !over && got.Kind == Unknown:
				t.Errorf("%q, over %t: %q", spelled, over, got.Kind)
			}
		}
		if len(spelled) < 5 {
			for _, c := range "?BRrD=!~<" {
				check(spelled + string(c))
			}
		}
	}
	check("")
}

func TestRecord_Pending(t *testing.T) {
	const doubt = "it may be billed: the last attempt has no definite response"
	for _, test := range []struct {
		history string
		code    metering.ProblemCode
		reason  string
	}{
		{"", "", ""},
		{"s", metering.ProblemNotSubscribed, "not subscribed"},
		{"rs", metering.ProblemNotSubscribed, "not subscribed"},
		{"sr", "", "throttled"},
		{"?", "", doubt},
		{"s?", "", doubt},
		{"?s", metering.ProblemNotSubscribed, "not subscribed; it may be billed: another attempt has no definite response"},
		{"D?", "", doubt},
	} {
		r := Record{Attempts: history(test.history)}
		if code, reason := r.Pending(); code != test.code || reason != test.reason || r.Attempted() != len(test.history) {
			t.Errorf("%q: %s, %q after %d attempts, want %s, %q", test.history, code, reason, r.Attempted(), test.code, test.reason)
		}
		r.Outcome.Kind = Unknown
		if code, reason := r.Pending(); code != "" || reason != "" {
			t.Errorf("%q with an outcome: %s, %q", test.history, code, reason)
		}
	}
	r := Record{Attempts: history("?")}
	r.Attempts[0].Reason = "the connection was closed"
	if _, reason := r.Pending(); reason != doubt+": the connection was closed" {
		t.Error(reason)
	}
}
