package model

import (
	"fmt"
	"testing"
)

// TestOpenClaimSeal searches a model of open, claim, seal and apply: one group, hours 0 to 2, two
// workers that may sleep at any point, an index that lags, a delete, a retry after a rejection, and
// clocks that differ: then a retry may choose an hour that is just being sealed.
func TestOpenClaimSeal(t *testing.T) {
	const forever, last = "REPORT_PENDING for ever", "w1 seal of h0 fails"
	for _, test := range []struct {
		claiming
		variant[claimingState]
	}{
		{claiming{}, variant[claimingState]{name: "StatusOnly_ApplyToCandidates", violation: forever, states: 589, lastStep: last}},
		{claiming{members: true}, variant[claimingState]{name: "StatusOnly_ApplyToMembers", violation: forever, states: 589, lastStep: last}},
		{claiming{members: true, dueHour: true}, variant[claimingState]{name: "Protocol", states: 2513}},
		{claiming{members: true, dueHour: true, expires: true}, variant[claimingState]{name: "Protocol_HourThatCantBeSealed", states: 2513}},
		{claiming{members: true, dueHour: true, expires: true, blind: true}, variant[claimingState]{name: "HourThatIsEndedWhateverItsState", violation: "REPORTED, but in no accepted sum", states: 431, lastStep: "w1 ends h0, which it can't seal, member: true"}},
		{claiming{members: true, dueHour: true, skew: true}, variant[claimingState]{name: "RetryIntoTheSameHour", violation: forever, states: 610, lastStep: last}},
		{claiming{members: true, dueHour: true, skew: true, sweep: true}, variant[claimingState]{name: "RetryIntoTheSameHour_WithSweep", states: 2565}},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.variant.next, test.bad = test.claiming.next, test.broken
			test.search(t, claimingState{status: 'C', reported: none, listed: none})
		})
	}
}

// claiming is a variant of the model.
type claiming struct {
	dueHour bool // a claim also demands the due hour that was listed
	members bool // apply changes the sealed members, not the candidates
	sweep   bool // a sweep frees groups that are stranded as REPORT_PENDING
	skew    bool // a retry may choose the hour of the last report again
	expires bool // a worker may end an hour that it can't seal
	blind   bool // it ends the hour even if the hour is not open any more
}

const none = -1

type claimingState struct {
	status   byte // C created, P pending, R reported, F failed, D deleted
	due      int
	reported int // the hour of the group's report
	retries  int
	listed   int // the due hour that the index shows
	hours    [3]modelHour
	workers  [2]claimer
}

// modelHour is an hour: it is absent, open, sealed, accepted or rejected.
type modelHour struct {
	state   byte // 0, O, S, A, R
	member  bool // the group is among the sealed members
	settled bool
}

func (h modelHour) decided() bool { return h.state == 'A' || h.state == 'R' }
func (h modelHour) sealed() bool  { return h.state == 'S' || h.decided() }

type claimer struct {
	state  string // "" is idle
	hour   int
	member bool
}

func (v claiming) next(s claimingState) (steps []step[claimingState]) {
	add := func(to claimingState, format string, args ...any) {
		steps = append(steps, step[claimingState]{fmt.Sprintf(format, args...), to})
	}
	if s.listed != s.due {
		to := s
		to.listed = s.due
		add(to, "index catches up")
	}
	if s.status == 'C' {
		to := s
		to.status, to.due, to.reported = 'D', none, none
		add(to, "user deletes")
	}
	if s.status == 'F' && s.retries < 1 {
		for h := range s.hours {
			if h > s.reported || v.skew && h == s.reported {
				to := s
				to.status, to.due, to.reported, to.retries = 'C', h, none, s.retries+1
				add(to, "user retries, due h%d", h)
			}
		}
	}
	for i := range s.workers {
		v.work(s, i, add)
	}
	for h := range s.hours {
		v.settle(s, h, add)
	}
	return steps
}

// work adds what worker i may do.
func (v claiming) work(s claimingState, i int, add func(to claimingState, format string, args ...any)) {
	w := s.workers[i]
	h := w.hour
	does := func(state string, h int) claimingState {
		to := s
		to.workers[i] = claimer{state: state, hour: h}
		return to
	}
	idle := s
	idle.workers[i] = claimer{}
	switch w.state {
	case "":
		for h, hour := range s.hours {
			if hour.state == 0 && s.listed == h {
				add(does("listed", h), "w%d lists h%d: found", i, h)
			}
			if hour.state == 'O' {
				add(does("claims", h), "w%d resumes h%d", i, h)
			}
			if hour.sealed() && s.listed == h && s.status == 'C' && s.due == h && h < 2 {
				to := s
				to.due = h + 1
				add(to, "w%d moves a late group from h%d", i, h)
			}
		}
	case "listed":
		switch s.hours[h].state {
		case 0:
			to := does("claims", h)
			to.hours[h].state = 'O'
			add(to, "w%d opens h%d", i, h)
		case 'O':
			add(does("claims", h), "w%d adopts h%d", i, h)
		default:
			add(idle, "w%d h%d is done already", i, h)
		}
		add(idle, "w%d dies", i)
	case "claims":
		to := does("sums", h)
		what := "no"
		if s.status == 'C' && (!v.dueHour || s.due == h) {
			what = "done"
			to.status, to.due, to.reported = 'P', none, h
		}
		to.workers[i].member = to.reported == h
		add(to, "w%d claims for h%d: %s", i, h, what)
		add(idle, "w%d dies", i)
	case "sums":
		if s.hours[h].state == 'O' {
			idle.hours[h] = modelHour{state: 'S', member: w.member}
			add(idle, "w%d seals h%d, member: %t", i, h, w.member)
		} else {
			add(idle, "w%d seal of h%d fails", i, h)
		}
		if v.expires && (v.blind || s.hours[h].state == 'O') {
			idle.hours[h] = modelHour{state: 'R', member: w.member}
			add(idle, "w%d ends h%d, which it can't seal, member: %t", i, h, w.member)
		}
	}
}

// settle adds what may happen to an hour once it is sealed.
func (v claiming) settle(s claimingState, h int, add func(to claimingState, format string, args ...any)) {
	hour := s.hours[h]
	pending := s.status == 'P' && s.reported == h
	if hour.state == 'S' {
		for _, outcome := range []byte("AR") {
			to := s
			to.hours[h].state = outcome
			add(to, "h%d decided %c", h, outcome)
		}
	}
	if hour.decided() && !hour.settled {
		if !pending {
			to := s
			to.hours[h].settled = true
			add(to, "h%d SETTLED", h)
		}
		if pending && (hour.member || !v.members) {
			to := s
			to.due = none
			if to.status = 'F'; hour.state == 'A' {
				to.status = 'R'
			}
			add(to, "h%d applied to the group", h)
		}
	}
	if v.sweeps(s, h) {
		to := s
		to.status, to.due, to.reported = 'C', min(h+1, 2), none
		add(to, "sweep frees the group from h%d", h)
	}
}

// sweeps reports whether the sweep frees the group from the hour.
func (v claiming) sweeps(s claimingState, h int) bool {
	hour := s.hours[h]
	return v.sweep && s.status == 'P' && s.reported == h && (hour.sealed() && !hour.member || hour.decided() && hour.settled)
}

func (v claiming) broken(s claimingState) string {
	billed := 0
	inBilled := false
	for h, hour := range s.hours {
		if hour.state == 'A' && hour.member {
			billed++
			inBilled = inBilled || s.reported == h
		}
	}
	switch {
	case billed > 1:
		return "in two accepted reports"
	case s.status == 'R' && !inBilled:
		return "REPORTED, but in no accepted sum"
	case s.status == 'D' && billed > 0:
		return "DELETED, and billed"
	case v.stuck(s):
		return "REPORT_PENDING for ever"
	default:
		return ""
	}
}

// stuck reports whether the group is pending and nothing can settle it.
func (v claiming) stuck(s claimingState) bool {
	if s.status != 'P' || s.workers != [2]claimer{} || s.hours[s.reported].state == 'O' {
		return false
	}
	for h, hour := range s.hours {
		applies := hour.decided() && !hour.settled && (hour.member || !v.members) && s.reported == h
		if hour.state == 'S' || applies || v.sweeps(s, h) {
			return false
		}
	}
	return true
}
