package model

import (
	"fmt"
	"slices"
	"testing"
)

// TestSubmitAndSettle searches a model of send, decide and retry: one unit of usage, two hours, two
// workers. At the marketplace, the first write of an hour wins; it may check the buyer and the
// window before or after it looks for a duplicate.
func TestSubmitAndSettle(t *testing.T) {
	const twice, foreign = "billed twice", "REPORTED, but never billed by us"
	proposed := sending{everyAttempt: true, history: true, firstDuplicate: true}
	dedupes := proposed
	dedupes.dedupesFirst = true
	released := proposed
	released.release = true
	otherMeter := dedupes
	otherMeter.foreign = true
	for _, test := range []struct {
		sending
		variant[sendingState]
	}{
		{sending{release: true}, variant[sendingState]{name: "NoGuard", violation: twice, states: 1501, lastStep: "marketplace h1: ok"}},
		{sending{release: true, dedupesFirst: true}, variant[sendingState]{name: "NoGuard_DedupesFirst", violation: twice, states: 1978, lastStep: "marketplace h1: ok"}},
		{sending{dedupesFirst: true}, variant[sendingState]{name: "HoursAreNotReleased", violation: twice, states: 2169, lastStep: "marketplace h1: ok"}},
		{sending{history: true}, variant[sendingState]{name: "OnlyFirstAttemptIsWritten", violation: twice, states: 1821, lastStep: "marketplace h1: ok"}},
		{released, variant[sendingState]{name: "AllGuardsButHoursAreReleased", states: 1398}},
		{proposed, variant[sendingState]{name: "Protocol", states: 1248}},
		{dedupes, variant[sendingState]{name: "Protocol_DedupesFirst", states: 1203}},
		{sending{foreign: true, dedupesFirst: true, history: true, everyAttempt: true}, variant[sendingState]{name: "OtherMeter_AnyDuplicateIsOurs", violation: foreign, states: 513, lastStep: "w0 ACCEPTED h0 (dup)"}},
		// The known limit: another meter writes the hour while two of our attempts overlap.
		{otherMeter, variant[sendingState]{name: "OtherMeter", violation: foreign, states: 786, lastStep: "w0 ACCEPTED h0 (dup)"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.variant.next, test.bad = test.sending.next, sendingState.broken
			test.search(t, sendingState{group: 'C', reports: [2]byte{'N', 'N'}, active: true})
		})
	}
}

// sending is a variant of the model: which guards exist, and what the marketplace does.
type sending struct {
	release        bool // an hour that was rejected is free again
	everyAttempt   bool // an attempt is written before each call, not only before the first
	history        bool // a refusal rejects only if no attempt is in doubt
	firstDuplicate bool // a duplicate on the only attempt is a conflict
	dedupesFirst   bool // the marketplace looks for a duplicate before it checks buyer and window
	foreign        bool // another meter may write the hour
}

type sendingState struct {
	group     byte // C created, P pending, R reported, F failed, U unknown
	hour      int  // of the group, unless it is created
	reports   [2]byte
	doubt     [2]int // attempts in doubt
	ever      [2]int // attempts made
	workers   [2]sender
	net       [4]call // requests on their way, sorted; an empty one is none
	billed    [2]byte // 0, u: by us, o: by another meter
	active    bool    // the buyer is subscribed
	closed    bool    // the window of hour 0 is over
	buyerTurn int
}

// sender is a worker that has written an attempt, waits for a response, or got one.
type sender struct {
	state    string // "" is idle
	hour     int
	response string
}

type call struct {
	sent         bool
	hour, worker int
}

func (v sending) next(s sendingState) (steps []step[sendingState]) {
	add := func(to sendingState, format string, args ...any) {
		steps = append(steps, step[sendingState]{fmt.Sprintf(format, args...), to})
	}
	isClosed := func(h int) bool { return h == 0 && s.closed }
	switch s.group {
	case 'C':
		for h := range 2 {
			if free := s.reports[h] == 'N' || v.release && s.reports[h] == 'X'; free && !isClosed(h) {
				to := s
				to.group, to.hour, to.reports[h] = 'P', h, 'S'
				add(to, "seal h%d", h)
				break
			}
		}
	case 'F':
		to := s
		to.group, to.hour = 'C', 0
		add(to, "user retries")
	}
	for i, w := range s.workers {
		h := w.hour
		idle := s
		idle.workers[i] = sender{}
		switch w.state {
		case "":
			for h := range 2 {
				if s.reports[h] != 'S' || s.ever[h] >= 2 {
					continue
				}
				to := s
				to.workers[i] = sender{state: "recorded", hour: h}
				if v.everyAttempt || s.ever[h] == 0 {
					to.doubt[h]++
				}
				to.ever[h]++
				add(to, "w%d writes an attempt of h%d", i, h)
			}
		case "recorded":
			to := s
			to.workers[i] = sender{state: "waits", hour: h}
			to.net = sorted(append(requests(s.net), call{true, h, i}))
			add(to, "w%d sends h%d", i, h)
			add(idle, "w%d dies before sending", i)
		case "waits":
			add(idle, "w%d gives up waiting (lost, or killed)", i)
		case "responded":
			v.settle(s, idle, i, isClosed(h), add)
		}
	}
	for k, c := range requests(s.net) {
		respond := func(response string, billed [2]byte) {
			to := s
			to.net = sorted(slices.Delete(requests(s.net), k, k+1))
			to.billed = billed
			if s.workers[c.worker] == (sender{state: "waits", hour: c.hour}) {
				to.workers[c.worker] = sender{"responded", c.hour, response}
			}
			add(to, "marketplace h%d: %s", c.hour, response)
		}
		refuses := isClosed(c.hour) || !s.active
		isDuplicate := s.billed[c.hour] != 0
		switch {
		case isDuplicate && (v.dedupesFirst || !refuses):
			respond("dup", s.billed)
		case refuses:
			respond("no", s.billed)
		default:
			billed := s.billed
			billed[c.hour] = 'u'
			respond("ok", billed)
		}
	}
	if s.buyerTurn < 2 {
		to := s
		to.active, to.buyerTurn = !s.active, s.buyerTurn+1
		add(to, "buyer leaves or comes back")
	}
	if !s.closed {
		to := s
		to.closed = true
		add(to, "window of h0 ends")
	}
	if v.foreign && s.billed[0] == 0 && s.reports[0] == 'N' {
		to := s
		to.billed[0] = 'o'
		add(to, "another meter bills h0 with the same quantity")
	}
	return steps
}

// settle is what worker i does with a response.
func (v sending) settle(s, to sendingState, i int, over bool, add func(to sendingState, format string, args ...any)) {
	h, response := s.workers[i].hour, s.workers[i].response
	doubt := s.doubt
	doubt[h] = max(0, doubt[h]-1) // this attempt has a definite response
	switch {
	case s.reports[h] != 'S':
		add(to, "w%d %s h%d: already decided", i, response, h)
	case response == "dup" && v.firstDuplicate && s.ever[h] == 1 && s.doubt[h] == 1:
		to.reports[h], to.group, to.hour = 'U', 'U', h
		add(to, "w%d dup on the only attempt: CONFLICT", i)
	case response != "no":
		to.reports[h], to.group, to.hour = 'A', 'R', h
		add(to, "w%d ACCEPTED h%d (%s)", i, h, response)
	case v.history && doubt[h] > 0:
		to.doubt = doubt
		if s.ever[h] >= 2 || over {
			to.reports[h], to.group, to.hour = 'U', 'U', h
			add(to, "w%d refused, another attempt in doubt: UNKNOWN", i)
		} else {
			add(to, "w%d refused, another attempt in doubt: continues", i)
		}
	default:
		to.doubt, to.reports[h], to.group, to.hour = doubt, 'R', 'F', h
		if v.release {
			to.reports[h] = 'X'
		}
		add(to, "w%d REJECTED h%d", i, h)
	}
}

func (s sendingState) broken() string {
	ours := 0
	for _, by := range s.billed {
		if by == 'u' {
			ours++
		}
	}
	switch {
	case ours > 1:
		return "billed twice"
	case s.group == 'R' && ours == 0:
		return "REPORTED, but never billed by us"
	default:
		return ""
	}
}

func requests(net [4]call) (calls []call) {
	for _, c := range net {
		if c.sent {
			calls = append(calls, c)
		}
	}
	return calls
}

func sorted(calls []call) (net [4]call) {
	slices.SortFunc(calls, func(a, b call) int { return (a.hour*2 + a.worker) - (b.hour*2 + b.worker) })
	copy(net[:], calls)
	return net
}
