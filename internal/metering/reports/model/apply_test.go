package model

import (
	"fmt"
	"testing"
)

// TestApply searches a model of apply and settle: an hour of two or three lists of candidates with
// one group each, a note of how many lists are done, and two workers that may sleep or die at any
// point. Outcomes change at any point: by an operator, or by a response that comes late. A group
// whose usage was rejected may be retried, and a later hour claims it.
//
// With restores, the table may be lost. Its hour and its groups are then those of a backup, and the
// note is one that was written later: a backup does not have the items in the order in which they
// were written. The resume leaves the note, which is of another table; before it, an operator may
// resolve, or repeat a resolve, which settles the hour.
func TestApply(t *testing.T) {
	const wrong, taken = "SETTLED, but a group lacks its status", "a group of a later hour has the status of this one"
	for _, test := range []struct {
		applying
		variant[applyingState]
	}{
		{applying{lists: 2, changes: 2}, variant[applyingState]{name: "Protocol", states: 314045}},
		{applying{lists: 3, changes: 1}, variant[applyingState]{name: "Protocol_ThreeLists", states: 106032}},
		{applying{lists: 2, changes: 2, anyNote: true}, variant[applyingState]{name: "NoteOfAnyVersion", violation: wrong, states: 28457, lastStep: "w1 settles version 2: true"}},
		{applying{lists: 2, changes: 2, noteFirst: true}, variant[applyingState]{name: "NoteBeforeTheGroups", violation: wrong, states: 8415, lastStep: "w1 settles version 1: true"}},
		{applying{lists: 2, changes: 2, settleAny: true}, variant[applyingState]{name: "SettledAtAnyVersion", violation: wrong, states: 10136, lastStep: "w0 settles version 1: true"}},
		{applying{lists: 2, changes: 2, anyApplied: true}, variant[applyingState]{name: "FailedByAnyVersion", violation: wrong, states: 50968, lastStep: "w1 settles version 2: true"}},
		{applying{lists: 2, changes: 2, pendingOnly: true}, variant[applyingState]{name: "OnlyPending", violation: wrong, states: 53140, lastStep: "w1 settles version 2: true"}},
		{applying{lists: 2, changes: 2, anyHour: true}, variant[applyingState]{name: "GroupOfAnyHour", violation: taken, states: 25839, lastStep: "w0 applies version 1 to group 0: true"}},
		{applying{lists: 2, changes: 1, restores: true}, variant[applyingState]{name: "Restore", states: 53884}},
		{applying{lists: 2, changes: 1, restores: true, anyTable: true}, variant[applyingState]{name: "Restore_NoteOfAnyTable", violation: wrong, states: 13972, lastStep: "w0 settles version 1: true"}},
		// A known limit of any hour: the backup has it SETTLED, and a group as it was before.
		{applying{lists: 2, changes: 1, restores: true, skew: true}, variant[applyingState]{name: "Restore_HourIsNewerThanItsGroups", violation: wrong, states: 6604, lastStep: "the table is restored"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.variant.next, test.bad = test.applying.next, test.broken
			test.search(t, applyingState{})
		})
	}
}

// applying is a variant of the model.
type applying struct {
	lists   int // of the hour
	changes int // how often its outcomes change

	anyNote     bool // a note counts whatever its version
	noteFirst   bool // a list is noted before its group has its status
	settleAny   bool // the hour is settled whatever its version
	anyApplied  bool // a REPORT_FAILED group gets its status again whatever version gave it
	pendingOnly bool // only a REPORT_PENDING group gets a status
	anyHour     bool // the status is given to a group of another hour too

	restores bool // the table may be lost, and restored from a backup
	anyTable bool // a note of another table counts
	skew     bool // the hour of the backup may be newer than its groups
}

type applyingState struct {
	stored   applied
	note     note
	workers  [2]applier
	backup   backup
	restored bool
	closed   bool // the gate is: the table is restored, and its hour not abandoned yet
}

// applied is what a table has of the hour and its groups.
type applied struct {
	hour   decided
	groups [3]member
}

// decided is the hour.
type decided struct {
	state   byte // 0 is sealed; D decided, S settled
	version int8
	changes int8
	// outcomes are those of the lists' usage: A accepted, R rejected, U unknown; a and so on if a
	// late response is part of the reason.
	outcomes [3]byte
}

// member is a group.
type member struct {
	status  byte // 0 is REPORT_PENDING; R reported, F failed, C created by a retry
	later   bool // a later hour has claimed it
	applied int8 // the version that gave it its status
	outcome byte // of which its status and its problem are
}

// note is how many lists are done.
type note struct {
	version, lists int8
	restored       bool // it is of the restored table
}

// applier is a worker, with the hour as it has read it.
type applier struct {
	stage    byte // 0 is idle; see step
	list     int8
	version  int8
	outcomes [3]byte
}

type backup struct {
	stage byte // 0 is none; G has the groups, H the hour too
	applied
}

func (v applying) next(s applyingState) (steps []step[applyingState]) {
	add := func(to applyingState, format string, args ...any) {
		steps = append(steps, step[applyingState]{fmt.Sprintf(format, args...), to})
	}
	if s.stored.hour.state == 0 {
		for _, outcomes := range []string{"UUU", "UAU", "AUA", "AAA"} {
			to := s
			to.stored.hour.state, to.stored.hour.version = 'D', 1
			copy(to.stored.hour.outcomes[:v.lists], outcomes)
			add(to, "decided: %s", outcomes[:v.lists])
		}
		return steps
	}
	for i, w := range s.workers {
		if w.stage == 0 && !v.begins(s, i) {
			continue
		}
		to, what := v.step(s, i)
		add(to, "w%d %s", i, what)
		if w.stage != 0 {
			idle := s
			idle.workers[i] = applier{}
			add(idle, "w%d dies", i)
		}
	}
	v.change(s, add)
	if v.restores && !s.restored {
		v.restore(s, add)
	}
	if s.closed {
		to := s
		to.closed = false
		add(to, "resumed")
	}
	return steps
}

// begins reports whether worker i may begin: a restored table has none until the resume, but an
// operator that repeats a resolve. The lost table has one worker, for a smaller search.
func (v applying) begins(s applyingState, i int) bool {
	hour := s.stored.hour
	return hour.state == 'D' && (!s.closed || hour.changes > 0) && (!v.restores || s.restored || i == 0)
}

// step is what worker i does next. It is the same whenever it does it.
func (v applying) step(s applyingState, i int) (to applyingState, what string) {
	to = s
	w, g := &to.workers[i], &to.stored.groups[s.workers[i].list]
	hour := &to.stored.hour
	switch w.stage {
	case 0:
		w.stage, w.version, w.outcomes = 'h', hour.version, hour.outcomes
		return to, fmt.Sprintf("reads the hour, version %d", hour.version)
	case 'h':
		if n := s.note; (n.version == w.version || v.anyNote) && (n.restored == s.restored || v.anyTable) {
			w.list = n.lists
			clear(w.outcomes[:n.lists])
		}
		v.begin(w)
		return to, fmt.Sprintf("reads the note: begins with list %d", w.list)
	case 'g': // like Members and what applyList leaves of them
		if g.status == 'C' || g.later && !v.anyHour || g.status == 'R' || g.status == 'F' && g.applied >= w.version {
			v.end(w)
			return to, "finds nothing to apply"
		}
		w.stage = 'a'
		return to, "reads a group"
	case 'a':
		may := g.status == 0 || g.status == 'F' && (g.applied < w.version || v.anyApplied) && !v.pendingOnly
		what = fmt.Sprintf("applies version %d to group %d: %t", w.version, w.list, may && (!g.later || v.anyHour))
		if may && (!g.later || v.anyHour) {
			g.outcome, g.applied = w.outcomes[w.list], w.version
			if g.status = 'F'; g.outcome == 'A' || g.outcome == 'a' {
				g.status = 'R'
			}
		}
		v.end(w)
		return to, what
	case 'n':
		to.note = note{w.version, w.list + 1, s.restored}
		if w.stage = 'g'; !v.noteFirst {
			w.list++
			v.begin(w)
		}
		return to, fmt.Sprintf("notes %d lists of version %d", to.note.lists, w.version)
	default: // s
		settles := hour.version == w.version || v.settleAny && hour.state == 'D'
		if settles {
			hour.state, hour.version = 'S', hour.version+1
		}
		what = fmt.Sprintf("settles version %d: %t", w.version, settles)
		*w = applier{}
		return to, what
	}
}

// begin begins with a list.
func (v applying) begin(w *applier) {
	if w.stage = 'g'; v.noteFirst && int(w.list) < v.lists-1 {
		w.stage = 'n'
	}
}

// end ends the work on the group of a list.
func (v applying) end(w *applier) {
	w.outcomes[w.list] = 0 // read no more
	switch {
	case int(w.list) == v.lists-1:
		w.stage, w.list = 's', 0
	case v.noteFirst:
		w.list++
		v.begin(w)
	default:
		w.stage = 'n'
	}
}

// change adds what changes outcomes, and what becomes of the groups then.
func (v applying) change(s applyingState, add func(to applyingState, format string, args ...any)) {
	hour := s.stored.hour
	mayChange := int(hour.changes) < v.changes
	for i, outcome := range hour.outcomes[:v.lists] {
		g := s.stored.groups[i]
		changes := func(outcome byte, what string) {
			to := s
			h := &to.stored.hour
			h.state, h.version, h.changes, h.outcomes[i] = 'D', hour.version+1, hour.changes+1, outcome
			add(to, "%s of list %d: version %d, %c", what, i, h.version, outcome)
		}
		if mayChange && (outcome == 'U' || outcome == 'u') {
			changes('A', "an operator resolves the usage")
			changes('R', "an operator resolves the usage")
		}
		if mayChange && i == 0 && outcome < 'a' {
			changes(outcome+'a'-'A', "a late response to the usage")
		}
		if g.status == 'F' && !g.later && (g.outcome == 'R' || g.outcome == 'r') {
			to := s
			to.stored.groups[i].status, to.stored.groups[i].outcome = 'C', 0
			add(to, "user retries group %d", i)
		}
		if g.status == 'C' {
			to := s
			to.stored.groups[i] = member{later: true}
			add(to, "a later hour claims group %d", i)
		}
	}
}

// restore adds a backup, and what restores it: its hour and groups, and the note of now. One that
// is as old as they are, or older, is no worse.
func (v applying) restore(s applyingState, add func(to applyingState, format string, args ...any)) {
	switch {
	case s.backup.stage == 0 && v.skew:
		to := s
		to.backup.stage, to.backup.groups = 'G', s.stored.groups
		add(to, "a backup has the groups")
	case s.backup.stage != 'H':
		to := s
		to.backup.stage, to.backup.hour = 'H', s.stored.hour
		if !v.skew {
			to.backup.groups = s.stored.groups
		}
		add(to, "a backup has the hour")
	default:
		to := applyingState{stored: s.backup.applied, note: s.note, restored: true}
		to.closed = to.stored.hour.state == 'D'
		add(to, "the table is restored")
	}
}

func (v applying) broken(s applyingState) string {
	for i, outcome := range s.stored.hour.outcomes[:v.lists] {
		g := s.stored.groups[i]
		switch {
		case g.later && g.status != 0:
			return "a group of a later hour has the status of this one"
		case s.stored.hour.state == 'S' && g.status != 'C' && !g.later && !g.has(outcome):
			return "SETTLED, but a group lacks its status"
		}
	}
	if s.stored.hour.state == 'D' && !s.closed && !v.settles(s) {
		return "never SETTLED"
	}
	return ""
}

// has reports whether the status of the group is that of the outcome. The problem of a group that
// failed has the reason too.
func (g member) has(outcome byte) bool {
	if outcome == 'A' || outcome == 'a' {
		return g.status == 'R'
	}
	return g.status == 'F' && g.outcome == outcome
}

// settles reports whether a worker settles the hour that nothing disturbs. What it settles is a
// state of the search.
func (v applying) settles(s applyingState) bool {
	s.workers = [2]applier{}
	for range 4*v.lists + 2 {
		if s, _ = v.step(s, 0); s.stored.hour.state == 'S' {
			return true
		}
	}
	return false
}
