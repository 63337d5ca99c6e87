package model

import (
	"fmt"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
)

// TestDuplicates searches the histories of one sealed quantity: up to three attempts, which may
// overlap, be lost or never be sent, and another meter that may have written the hour before. The
// outcome is that of the program, or by another rule for duplicates, for comparison.
func TestDuplicates(t *testing.T) {
	const foreign = "ACCEPTED, but never billed by us"
	for _, test := range []struct {
		duplicates
		variant[duplicateState]
	}{
		{duplicates{faults: true}, variant[duplicateState]{name: "Protocol", states: 4190}},
		{duplicates{faults: true, dedupesFirst: true}, variant[duplicateState]{name: "Protocol_DedupesFirst", states: 3311}},
		{duplicates{faults: true, anyDoubt: true}, variant[duplicateState]{name: "AnyDoubt", states: 4117}},
		{duplicates{faults: true, atOnce: true}, variant[duplicateState]{name: "ConflictAtOnce", violation: "CONFLICT with our own record", states: 968, lastStep: "response 0 is stored"}},
		{duplicates{foreign: true}, variant[duplicateState]{name: "OtherMeter_InOrder", states: 1809}},
		{duplicates{foreign: true, dedupesFirst: true}, variant[duplicateState]{name: "OtherMeter_InOrder_DedupesFirst", states: 1099}},
		{duplicates{foreign: true, anyDoubt: true}, variant[duplicateState]{name: "OtherMeter_InOrder_AnyDoubt", violation: foreign, states: 267, lastStep: "response 0 is stored"}},
		// The known limit: an earlier attempt is in doubt, but never wrote anything.
		{duplicates{foreign: true, faults: true}, variant[duplicateState]{name: "OtherMeter", violation: foreign, states: 841, lastStep: "response 1 is stored"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.variant.next, test.bad = test.duplicates.next, duplicateState.broken
			test.search(t, duplicateState{})
		})
	}
}

// duplicates is a variant of the model.
type duplicates struct {
	anyDoubt     bool // a duplicate is ours if any other attempt is in doubt
	atOnce       bool // a duplicate on the first attempt is a conflict, whatever is in doubt
	faults       bool // attempts are sent in any order or never; responses come in any order or never
	foreign      bool // another meter may have written the hour
	dedupesFirst bool // the marketplace looks for a duplicate before it checks buyer and window
}

type duplicateState struct {
	attempts [3]modelAttempt
	made     int
	stands   byte // 0, u: ours, o: of another meter
	inactive bool
	turns    int
	over     bool // the window has ended
	outcome  reports.Kind
}

type modelAttempt struct {
	stage  byte // 0, s: stored, n: on its way, r: its response is on its way, d: done
	result reports.Result
	stored bool // the response is
}

func (v duplicates) next(s duplicateState) (steps []step[duplicateState]) {
	add := func(to duplicateState, format string, args ...any) {
		steps = append(steps, step[duplicateState]{fmt.Sprintf(format, args...), to})
	}
	if s.outcome == reports.Undecided && s.made < len(s.attempts) && !s.over {
		to := s
		to.attempts[s.made].stage, to.made = 's', s.made+1
		add(to, "attempt %d is stored", s.made)
	}
	inOrder, done := true, true // all attempts before are sent, and their responses are stored
	for i, a := range s.attempts[:s.made] {
		to := s
		switch {
		case a.stage == 's' && (v.faults || inOrder):
			to.attempts[i].stage = 'n'
			add(to, "attempt %d is sent", i)
			if v.faults {
				to.attempts[i].stage = 'd'
				add(to, "attempt %d is never sent", i)
			}
		case a.stage == 'n':
			refuses := s.over || s.inactive
			isDuplicate := s.stands != 0
			result := reports.Billed
			switch {
			case isDuplicate && (v.dedupesFirst || !refuses):
				result = reports.Duplicate
			case refuses:
				result = reports.Refused
			default:
				to.stands = 'u'
			}
			to.attempts[i].stage, to.attempts[i].result = 'r', result
			add(to, "attempt %d: %s", i, result)
			if v.faults {
				to.attempts[i].stage, to.attempts[i].result = 'd', ""
				add(to, "attempt %d: %s, lost", i, result)
			}
		case a.stage == 'r' && (v.faults || done):
			to.attempts[i].stage, to.attempts[i].stored = 'd', true
			add(v.decide(to), "response %d is stored", i)
		}
		inOrder = inOrder && a.stage != 's'
		done = done && a.stage == 'd'
	}
	if s.turns < 2 {
		to := s
		to.inactive, to.turns = !s.inactive, s.turns+1
		add(to, "buyer leaves or comes back")
	}
	if !s.over {
		to := s
		to.over = true
		add(v.decide(to), "window ends")
	}
	if v.foreign && s.stands == 0 && s.made == 0 {
		to := s
		to.stands = 'o'
		add(to, "another meter writes the hour")
	}
	return steps
}

// decide makes the outcome from what is stored, once.
func (v duplicates) decide(s duplicateState) duplicateState {
	if s.outcome != reports.Undecided {
		return s
	}
	var attempts []reports.Attempt
	doubts, duplicates := 0, 0
	for i, a := range s.attempts[:s.made] {
		attempt := reports.Attempt{Time: time.Unix(int64(i), 0)}
		if a.stored {
			attempt.Result = a.result
		}
		attempts = append(attempts, attempt)
		switch attempt.Result {
		case reports.InDoubt:
			doubts++
		case reports.Duplicate:
			duplicates++
		}
	}
	s.outcome = reports.OutcomeOf(one, attempts, s.over).Kind
	if v.atOnce && duplicates > 0 && attempts[0].Result == reports.Duplicate {
		s.outcome = reports.Conflict
	}
	if v.anyDoubt && duplicates > 0 && doubts > 0 {
		s.outcome = reports.Accepted
	}
	return s
}

var one = func() metering.Quantity {
	q, err := metering.ParseQuantity("1")
	if err != nil {
		panic(err)
	}
	return q
}()

func (s duplicateState) broken() string {
	switch {
	case s.outcome == reports.Accepted && s.stands != 'u':
		return "ACCEPTED, but never billed by us"
	case s.outcome == reports.Rejected && s.stands == 'u':
		return "REJECTED, but billed"
	case s.outcome == reports.Conflict && s.stands == 'u' && !s.over:
		return "CONFLICT with our own record"
	case s.over && s.outcome == reports.Undecided:
		return "undecided after the window"
	default:
		return ""
	}
}
