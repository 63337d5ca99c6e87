package reports

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// sealedHour is an hour with 10.5 of a and 2 of b at Google: the half is carried. Its commit covers
// all of c, and 4 of the 10.5.
func sealedHour(t testing.TB) (Hour, Ledger) {
	return sealed(t, entitlementOf("GCP", "10", "A 1 0, a 1 0, b 1 0"), []string{beyondCommit}, exacts("A 6, a 14.5, b 2"), Ledger{Carry: exacts("b 0.25")})
}

// The window of sealedHour.
var (
	window    = Schedule{Partner: "GCP"}
	inWindow  = at("06-15 11:30")
	windowEnd = at("07-01 08:00")
)

func must(t testing.TB) func(Hour, error) Hour {
	return func(h Hour, err error) Hour {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
}

func TestHour_GoesThroughItsStates(t *testing.T) {
	open := OpenHour("org1", "ent1", at("06-15 10:40"))
	if open.State != StateOpen || open.Version != 1 || !open.Start.Equal(at("06-15 10:00")) || open.ID() != metering.ReportID("org1", "ent1", at("06-15 10:00")) {
		t.Fatalf("%+v", open)
	}
	h, ledger := sealedHour(t)
	if got, want := summary(&h)+" | "+ledgerText(ledger), "A 0 drawn 6 amount 6; a 10 out 0.5 drawn 4 amount 4; b 2 in 0.25 out 0.25 | 10"; got != want || h.State != StateSealed || h.Version != 2 {
		t.Fatalf("%s, version %d: %s, want %s", h.State, h.Version, got, want)
	}

	h, sent, err := h.Begin([]string{"b", "A", "unknown"}, &window, at("06-15 11:10"))
	if err != nil || !slices.Equal(sent, []string{"b"}) || h.Version != 3 {
		t.Fatalf("%v, %v, version %d", sent, err, h.Version)
	}
	h, sent, err = h.Begin([]string{"a", "b"}, &window, at("06-15 11:11"))
	if err != nil || !slices.Equal(sent, []string{"a", "b"}) {
		t.Fatalf("%v, %v", sent, err)
	}
	h = must(t)(h.Respond("b", 2, Response{Result: Billed, Receipt: "1"}))
	h = must(t)(h.Respond("b", 2, Response{Result: Refused}))
	if got := h.record("b").Attempts[1]; got.Result != Billed || got.Receipt != "1" {
		t.Errorf("a definite response has changed: %+v", got)
	}

	h, ledger, err = h.Decide(ledger, &window, inWindow)
	if err != nil || h.State != StateSealed || ledgerText(ledger) != "10 b 0.25" {
		t.Fatalf("%s, ledger %s, %v", h.State, ledgerText(ledger), err)
	}
	if a, b, c := h.record("a").Outcome, h.record("b").Outcome, h.record("A").Outcome; a.Kind != Undecided || b.Kind != Accepted || c.Kind != Accepted || c.Evidence != EvidenceCommit {
		t.Errorf("%+v, %+v, %+v", a, b, c)
	}
	if _, sent, err := h.Begin([]string{"a", "b"}, &window, at("06-15 11:12")); err != nil || !slices.Equal(sent, []string{"a"}) {
		t.Errorf("sends %v, %v: b has an outcome", sent, err)
	}

	h = must(t)(h.Respond("a", 1, Response{Result: Refused, Code: metering.ProblemDimensionUnknown}))
	h, ledger, err = h.Decide(ledger, &window, inWindow)
	if err != nil || h.State != StateDecided || ledgerText(ledger) != "6 b 0.25" || h.Succeeded() {
		t.Fatalf("%s, ledger %s, %v", h.State, ledgerText(ledger), err)
	}
	h = must(t)(h.Settle())
	if h.State != StateSettled {
		t.Fatal(h.State)
	}
	// A late response is stored, and changes no outcome.
	late := must(t)(h.Respond("b", 1, Response{Result: Refused}))
	if late.record("b").Attempts[0].Result != Refused || late.record("b").Outcome != h.record("b").Outcome {
		t.Errorf("%+v", late.record("b"))
	}
}

// An outcome stays when a response comes after it. What the response says is in the reason, once
// all that could change it is known.
func TestRespond_LateResponseIsInTheReason(t *testing.T) {
	const (
		doubt, billed, refused, duplicate = InDoubt, Billed, Refused, Duplicate

		ended    = "the window of the hour ended, and no definite response to every attempt was received"
		found    = "an operator found that it was not billed"
		conflict = "the marketplace has 3 for the hour, not 10"

		later      = "a response that came later says that "
		wasBilled  = later + "it was billed"
		notBilled  = later + "it was not billed"
		another    = later + "another record stands for the hour"
		hasARecord = later + "the marketplace has a record of the hour, after an attempt in doubt"
	)
	three := exacts("a 3")["a"]
	different := Response{Result: duplicate, Accepted: &three}
	of := func(results ...Result) (all []Response) {
		for _, result := range results {
			all = append(all, Response{Result: result})
		}
		return all
	}
	type late struct {
		attempt int
		Response
	}
	on := func(attempt int, result Result) late { return late{attempt, Response{Result: result, Receipt: "r"}} }
	for _, test := range []struct {
		attempts []Response
		resolved string
		late     []late
		want     string
	}{
		{of(doubt), "", []late{on(1, billed)}, "UNKNOWN: " + ended + "; " + wasBilled + " r"},
		{of(doubt), "", []late{on(1, refused)}, "UNKNOWN: " + ended + "; " + notBilled},
		{of(doubt), "", []late{on(1, duplicate)}, "UNKNOWN: " + ended + "; " + another},
		{of(doubt), "", []late{{1, different}}, "UNKNOWN: " + ended + "; " + another + " -7"},
		{of(doubt, refused), "", []late{on(1, refused)}, "UNKNOWN: " + ended + "; " + notBilled},
		{of(doubt, doubt), "", []late{on(1, refused)}, "UNKNOWN: " + ended},
		{of(doubt, doubt), "", []late{on(1, refused), on(2, refused)}, "UNKNOWN: " + ended + "; " + notBilled},
		{of(doubt, doubt), "", []late{on(1, duplicate)}, "UNKNOWN: " + ended}, // the second may be what stands
		{of(doubt, doubt), "", []late{on(2, duplicate)}, "UNKNOWN: " + ended + "; " + hasARecord},
		{of(doubt, doubt), "", []late{on(2, duplicate), on(1, billed)}, "UNKNOWN: " + ended + "; " + hasARecord + "; " + wasBilled + " r"},
		{of(doubt, doubt), "", []late{on(1, billed), on(2, refused)}, "UNKNOWN: " + ended + "; " + wasBilled + " r"},
		{of(doubt, duplicate), "", []late{on(1, billed)}, "ACCEPTED:  r"},
		{of(doubt, duplicate), "", []late{on(1, refused)}, "ACCEPTED: " + another},
		{of(doubt, doubt, duplicate), "", []late{on(1, refused)}, "ACCEPTED: "},
		{of(doubt, duplicate, doubt), "", []late{on(1, refused)}, "ACCEPTED: "}, // the third may be what stands
		{of(doubt, duplicate, doubt), "", []late{on(1, refused), on(3, billed)}, "ACCEPTED:  r"},
		{of(doubt, duplicate, doubt), "", []late{on(1, refused), on(3, refused)}, "ACCEPTED: " + another},
		{of(doubt, billed), "", []late{on(1, refused)}, "ACCEPTED: "},
		{append(of(doubt, refused), different), "", []late{on(1, billed)}, "CONFLICT: " + conflict + "; " + wasBilled + " r -7"},
		{append(of(doubt, refused), different), "", []late{on(1, refused)}, "CONFLICT: " + conflict + " -7"},
		{of(doubt), "not billed", []late{on(1, billed)}, "REJECTED: " + found + "; " + wasBilled + " r"},
		{of(doubt), "not billed", []late{on(1, refused)}, "REJECTED: " + found},
		{of(doubt, doubt), "not billed", []late{on(2, duplicate)}, "REJECTED: " + found + "; " + hasARecord},
		{of(doubt), "billed", []late{on(1, billed)}, "ACCEPTED: "},
		{of(doubt), "billed", []late{on(1, refused)}, "ACCEPTED: " + notBilled},
		{of(doubt), "billed", []late{on(1, duplicate)}, "ACCEPTED: " + another},
		{of(doubt), "restored", []late{on(1, billed)}, "UNKNOWN: the table was restored; " + wasBilled + " r"},
		{of(doubt), "restored", []late{on(1, refused)}, "UNKNOWN: the table was restored"}, // the lost table may have sent it again
		{of(doubt), "restored", []late{on(1, duplicate)}, "UNKNOWN: the table was restored"},
	} {
		h, ledger := sealedHour(t)
		for i, response := range test.attempts {
			h, _, _ = h.Begin([]string{"a"}, &window, at("06-15 11:10"))
			h = must(t)(h.Respond("a", i+1, response))
		}
		h, ledger, err := h.Decide(ledger, &window, windowEnd)
		switch test.resolved {
		case "":
		case "restored":
			h.record("a").Outcome = Outcome{Kind: Unknown, Evidence: EvidenceRestore, Reason: "the table was restored"}
		default:
			h, _, err = h.Resolve(ledger, "a", test.resolved == "billed", "ann", windowEnd)
		}
		if err != nil {
			t.Fatal(err)
		}
		before := h.record("a").Outcome
		for _, late := range test.late {
			h = must(t)(h.Respond("a", late.attempt, late.Response))
		}
		after := h.record("a").Outcome
		got := fmt.Sprintf("%s: %s", after.Kind, after.Reason)
		if after.Receipt != "" {
			got += " " + after.Receipt
		}
		if after.Difference != nil {
			got += " " + after.Difference.String()
		}
		if got != test.want || after.Kind != before.Kind || after.Evidence != before.Evidence || after.By != before.By {
			t.Errorf("%v, %q, then %v:\n got %q\nwant %q", test.attempts, test.resolved, test.late, got, test.want)
		}
	}
}

// A worker that comes second gets ErrState, and nothing that it had changes.
func TestHour_RefusesChangesOfAnotherState(t *testing.T) {
	before, ledger := sealedHour(t)
	allowed := map[string][]State{
		"Seal": {StateOpen}, "Begin": {StateSealed}, "Decide": {StateSealed}, "Settle": {StateDecided},
		"Respond": {StateSealed, StateDecided, StateSettled}, "Resolve": {StateSealed, StateDecided, StateSettled},
	}
	e := entitlementOf("AWS", "0", "")
	schedule := ScheduleOf(e, metering.Connection{})
	for _, state := range append([]State{"", "A_NEWER_STATE"}, States...) {
		h := before
		h.State = state
		text := fmt.Sprintf("%+v %+v", h, *h.Sealed)
		_, _, sealErr := h.Seal(&metering.Terms{Entitlement: e, Config: configOf("AWS")}, &schedule, metering.HourUsage{}, ledger)
		_, _, beginErr := h.Begin([]string{"a"}, &window, at("06-15 11:10"))
		_, _, decideErr := h.Decide(ledger, &window, windowEnd)
		_, settleErr := h.Settle()
		_, respondErr := h.Respond("a", 1, Response{})
		_, _, resolveErr := h.Resolve(ledger, "a", true, "ann", at("06-15 11:10"))
		for name, err := range map[string]error{
			"Seal": sealErr, "Begin": beginErr, "Decide": decideErr, "Settle": settleErr, "Respond": respondErr, "Resolve": resolveErr,
		} {
			if errors.Is(err, ErrState) == slices.Contains(allowed[name], state) {
				t.Errorf("%s of an hour that is %q: %v", name, state, err)
			}
		}
		if got := fmt.Sprintf("%+v %+v", h, *h.Sealed); got != text {
			t.Errorf("an hour that is %q has changed: %s, was %s", state, got, text)
		}
	}
}

func TestHour_ChangesAreCopies(t *testing.T) {
	h, ledger := sealedHour(t)
	for range 3 { // after which a slice has room for a fourth
		h, _, _ = h.Begin([]string{"a", "b"}, &window, at("06-15 11:10"))
	}
	text := func() string { return fmt.Sprintf("%+v %+v", h, *h.Sealed) }
	before := text()
	one, _, _ := h.Begin([]string{"a"}, &window, at("06-15 11:11"))
	two, _, _ := h.Begin([]string{"a"}, &window, at("06-15 11:12"))
	three, _ := h.Respond("a", 1, Response{Result: Refused})
	four, _, _ := h.Decide(ledger, &window, windowEnd)
	if got := text(); got != before {
		t.Errorf("%s, was %s", got, before)
	}
	if !one.record("a").Attempts[3].Time.Equal(at("06-15 11:11")) || !two.record("a").Attempts[3].Time.Equal(at("06-15 11:12")) ||
		three.record("a").Attempts[0].Result != Refused || four.record("a").Outcome.Kind != Unknown {
		t.Error("two changes of an hour share memory")
	}
}

func TestHour_Claims(t *testing.T) {
	open := OpenHour("org1", "ent1", at("06-15 10:00"))
	closed, _ := sealedHour(t)
	for _, status := range metering.Statuses {
		for _, due := range []string{"06-15 09:00", "06-15 10:00", "06-15 11:00", ""} {
			want := status == metering.StatusCreated && due == "06-15 10:00"
			if got := open.Claims(status, at(due)); got != want {
				t.Errorf("%s, due %s: %t", status, due, got)
			}
			if closed.Claims(status, at(due)) {
				t.Errorf("%s, due %s: a sealed hour claims", status, due)
			}
		}
	}
}

func TestHour_RespondNamesWhatIsMissing(t *testing.T) {
	h, _ := sealedHour(t)
	h, _, _ = h.Begin([]string{"a"}, &window, at("06-15 11:10"))
	for dimension, attempt := range map[string]int{"a": 2, "b": 1, "z": 1} {
		if _, err := h.Respond(dimension, attempt, Response{Result: Billed}); err == nil {
			t.Errorf("attempt %d of %s has a response", attempt, dimension)
		}
	}
}

func TestHour_NextAttempt(t *testing.T) {
	s := Schedule{Partner: "GCP"}
	h, ledger := sealedHour(t)
	next := func(want string) {
		t.Helper()
		if got := h.NextAttempt(&s); !got.Equal(at(want)) {
			t.Errorf("%s, want %s", got, want)
		}
	}
	next("") // nothing was sent yet
	h, _, _ = h.Begin([]string{"a", "b"}, &s, at("06-15 11:10"))
	next("") // A has nothing to send, and can be decided
	h, ledger, _ = h.Decide(ledger, &s, at("06-15 11:30"))
	next("06-15 11:11")
	h, _, _ = h.Begin([]string{"a"}, &s, at("06-15 11:12"))
	next("06-15 11:11") // b
	h = must(t)(h.Respond("b", 1, Response{Result: Refused, Again: true, Code: metering.ProblemNotSubscribed}))
	next("06-15 11:14")
	h = must(t)(h.Respond("a", 2, Response{Result: Billed}))
	h, ledger, _ = h.Decide(ledger, &s, at("06-15 11:30"))
	next("06-15 12:10") // b, an hour after its attempt
	s.Cancel = at("06-15 10:50")
	next("06-15 11:50") // the end of the window
	h, _, _ = h.Decide(ledger, &s, at("06-15 11:50"))
	next("")
}

// Google forgets operations: one that is in doubt is not sent again after three hours. One that was
// refused is, until the window ends.
func TestHour_DoubtfulOperationsAreSentForThreeHours(t *testing.T) {
	h, ledger := sealedHour(t)
	h, _, _ = h.Begin([]string{"a", "b"}, &window, at("06-15 11:10"))
	h = must(t)(h.Respond("b", 1, Response{Result: Refused, Again: true}))
	if _, sent, _ := h.Begin([]string{"a", "b"}, &window, at("06-15 14:09")); len(sent) != 2 {
		t.Errorf("sent %v", sent)
	}
	if _, sent, _ := h.Begin([]string{"a", "b"}, &window, at("06-15 14:10")); !slices.Equal(sent, []string{"b"}) {
		t.Errorf("sent %v", sent)
	}
	h, _, _ = h.Decide(ledger, &window, at("06-15 14:10"))
	if a, b := h.record("a").Outcome.Kind, h.record("b").Outcome.Kind; a != Unknown || b != Undecided {
		t.Errorf("%s, %s", a, b)
	}
	if _, sent, _ := h.Begin([]string{"b"}, &window, windowEnd); len(sent) != 0 {
		t.Errorf("sent %v", sent)
	}
}

func TestNextAttempt_Grows(t *testing.T) {
	var last time.Duration
	for n := 1; n < 100; n++ {
		attempts := make([]Attempt, n)
		delay := nextAttempt(attempts).Sub(time.Time{})
		if delay < last || delay < minDelay || delay > maxDelay {
			t.Fatalf("%s after %d attempts, %s before", delay, n, last)
		}
		last = delay
	}
	if last != maxDelay {
		t.Errorf("%s at last", last)
	}
}

// A lane's refusal delays by a minute, and begins no delay of the record's own again.
func TestNextAttempt_LaneDelaysByAMinute(t *testing.T) {
	own := make([]Attempt, 7)
	for i := range own {
		own[i].Time = at("06-15 10:00")
	}
	for _, test := range []struct{ lane, want string }{
		{"06-15 10:50", "06-15 11:00"}, {"06-15 10:59", "06-15 11:00"}, {"06-15 11:00", "06-15 11:01"},
	} {
		attempts := append(slices.Clone(own), Attempt{Time: at(test.lane), Response: Response{Result: Refused, Lane: true}})
		if got := nextAttempt(attempts); !got.Equal(at(test.want)) {
			t.Errorf("refused at %s: %s, want %s", test.lane, got, test.want)
		}
	}
}

// Escrow is returned by outcome: accepted, the new carry; rejected, the old carry and what was
// drawn; held otherwise, until an operator resolves it.
func TestDecide_ReturnsEscrowByOutcome(t *testing.T) {
	const held = "10"
	for _, test := range []struct {
		history           string // of a, b is billed
		want              string
		billed, notBilled string // after resolve; "" if it can't be resolved
	}{
		{"B", "10 a 0.5 b 0.25", "", ""},
		{"?D", "10 a 0.5 b 0.25", "", ""},
		{"R", "6 b 0.25", "", ""},
		{"", "6 b 0.25", "", ""},
		{"D", "10 b 0.25", "10 a 0.5 b 0.25", "6 b 0.25"},
		{"?", "10 b 0.25", "10 a 0.5 b 0.25", "6 b 0.25"},
	} {
		h, ledger := sealedHour(t)
		if ledgerText(ledger) != held {
			t.Fatal(ledgerText(ledger))
		}
		h.record("a").Attempts = history(test.history)
		h.record("b").Attempts = history("B")
		h, ledger, err := h.Decide(ledger, &window, windowEnd)
		if err != nil || h.State != StateDecided || ledgerText(ledger) != test.want {
			t.Errorf("%q: %s, ledger %s, want %s (%v)", test.history, h.State, ledgerText(ledger), test.want, err)
		}
		for billed, want := range map[bool]string{true: test.billed, false: test.notBilled} {
			resolved, after, err := h.Resolve(ledger, "a", billed, "ann", at("06-16 08:00"))
			if want == "" {
				if metering.CodeOf(err) != metering.Conflict {
					t.Errorf("%q is resolved: %v", test.history, err)
				}
				continue
			}
			kind := map[bool]Kind{true: Accepted, false: Rejected}[billed]
			o := resolved.record("a").Outcome
			if err != nil || ledgerText(after) != want || o.Kind != kind || o.Evidence != EvidenceResolved || o.By != "ann" || !o.At.Equal(at("06-16 08:00")) {
				t.Errorf("%q resolved as billed %t: %+v, ledger %s, want %s (%v)", test.history, billed, o, ledgerText(after), want, err)
			}
			if _, _, err := resolved.Resolve(after, "a", !billed, "bob", at("06-16 09:00")); metering.CodeOf(err) != metering.Conflict {
				t.Errorf("%q is resolved twice: %v", test.history, err)
			}
		}
		if _, _, err := h.Resolve(ledger, "z", true, "ann", at("06-16 08:00")); metering.CodeOf(err) != metering.NotFound {
			t.Error(err)
		}
	}
}

// The response comes after the window: the outcome stays UNKNOWN, but no operator can say that it
// was not billed.
func TestResolve_RefusesNotBilledAfterALateResponse(t *testing.T) {
	h, ledger := sealedHour(t)
	h, sent, err := h.Begin([]string{"a", "b"}, &window, at("06-15 11:10"))
	if err != nil || len(sent) != 2 {
		t.Fatal(sent, err)
	}
	if h, ledger, err = h.Decide(ledger, &window, at("06-17 11:10")); err != nil || h.record("a").Outcome.Kind != Unknown {
		t.Fatalf("%+v, %v", h.record("a").Outcome, err)
	}
	h = must(t)(h.Respond("a", 1, Response{Result: Billed, Receipt: "r1"}))
	if o := h.record("a").Outcome; o.Kind != Unknown || o.Receipt != "r1" {
		t.Errorf("%+v", o)
	}
	if _, _, err := h.Resolve(ledger, "a", false, "ann", at("06-17 12:00")); metering.CodeOf(err) != metering.Conflict {
		t.Errorf("resolved as not billed: %v", err)
	}
	if resolved, _, err := h.Resolve(ledger, "a", true, "ann", at("06-17 12:00")); err != nil || resolved.record("a").Outcome.Kind != Accepted {
		t.Errorf("resolved as billed: %v", err)
	}
}
