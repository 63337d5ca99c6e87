package reports

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// Hour is the usage of an entitlement in one hour, on its way to the marketplace. It is created
// once and never released: it is the report, and the place in which the report is made.
//
// A method that changes an hour returns the changed copy, with the next version. It returns
// ErrState if the hour is in another state: another worker was first, and what it wrote is adopted.
type Hour struct {
	Organization metering.OrgID
	Entitlement  metering.EntitlementID
	Start        time.Time // UTC, a whole hour
	State        State
	Version      int // 1 if it was just opened; grows by 1 with each change

	Opened time.Time // when
	Opener string    // the worker's name for its lists of candidates, which are part of the hour
	Parts  int       // how many lists of candidates it has
	Next   time.Time // when it is looked at again; zero is now

	Sealed *Sealed // nil if OPEN
}

// State is the state of an hour.
type State string

// The states of an hour, in their order.
const (
	StateOpen    State = "OPEN"    // it collects groups
	StateSealed  State = "SEALED"  // its records are exact and never change
	StateDecided State = "DECIDED" // each record has an outcome
	StateSettled State = "SETTLED" // each group has its status
)

// States are all states that this version knows. It leaves an hour in another one alone.
var States = []State{StateOpen, StateSealed, StateDecided, StateSettled}

// ErrState is the error of a change that the state of the hour does not allow.
var ErrState = errors.New("the hour is in another state")

// OpenHour opens the hour of an entitlement that is named by its start.
func OpenHour(org metering.OrgID, entitlement metering.EntitlementID, start time.Time) Hour {
	return Hour{Organization: org, Entitlement: entitlement, Start: metering.HourOf(start), State: StateOpen, Version: 1}
}

// Candidates is one of the lists of groups that an hour was opened with. Only groups of its lists
// become members of the hour.
type Candidates struct {
	IDs []metering.GroupID
	// Sum is what its members come to; nil until each of them is claimed or found to be absent.
	Sum *Sum
}

// Sum is what the members of a list of candidates come to. Each worker makes the same one.
type Sum struct {
	Members int                       // how many candidates became members
	Absent  []metering.GroupID        // those that did not: they were deleted, or moved to another hour
	Totals  map[string]metering.Exact // of members without billable records, by dimension key
	// Billable reports whether a member has billable records, which a Billable adds up.
	Billable bool
}

// SumOf is the sum of a list of candidates, of what their claims returned: nil for one that did not
// become a member.
func SumOf(ids []metering.GroupID, claimed []*Member) *Sum {
	s := &Sum{Totals: map[string]metering.Exact{}}
	for i, m := range claimed {
		if m == nil {
			s.Absent = append(s.Absent, ids[i])
			continue
		}
		s.Members++
		if m.billable() {
			s.Billable = true
			continue
		}
		records := m.Group.Records
		if m.Only != nil {
			records = m.Only
		}
		for dimension, quantity := range records {
			s.Totals[dimension] = s.Totals[dimension].Add(metering.ExactOf(quantity))
		}
	}
	return s
}

// Add adds the sum of another part of the list.
func (s *Sum) Add(other *Sum) {
	s.Members += other.Members
	s.Absent = append(s.Absent, other.Absent...)
	s.Billable = s.Billable || other.Billable
	for dimension, total := range other.Totals {
		s.Totals[dimension] = s.Totals[dimension].Add(total)
	}
}

// Present returns the candidates that became members. The list has its sum.
func (c *Candidates) Present() []metering.GroupID {
	if len(c.Sum.Absent) == 0 {
		return c.IDs
	}
	absent := make(map[metering.GroupID]bool, len(c.Sum.Absent))
	for _, id := range c.Sum.Absent {
		absent[id] = true
	}
	return slices.DeleteFunc(slices.Clone(c.IDs), func(id metering.GroupID) bool { return absent[id] })
}

// ID is the id of the hour's report.
func (h *Hour) ID() string { return metering.ReportID(h.Organization, h.Entitlement, h.Start) }

// Place is the place of the hour.
func (h *Hour) Place() Place { return Place{h.Organization, h.Entitlement, h.Start} }

// Claims reports whether the hour takes a group with that status and due hour. The due hour is the
// fencing token: a worker that slept since it listed the group does not take it into a later hour's
// place.
func (h *Hour) Claims(status metering.Status, due time.Time) bool {
	return h.State == StateOpen && status == metering.StatusCreated && due.Equal(h.Start)
}

// Begin stores an attempt of the dimensions' records that have no outcome, something to send, and
// an open window. It returns the dimensions that are to be sent, which may be none. The changed
// hour is written before the call.
func (h Hour) Begin(dimensions []string, s *Schedule, now time.Time) (changed Hour, sent []string, err error) {
	if h, err = h.changed(StateSealed); err != nil {
		return h, nil, err
	}
	for i := range h.Sealed.Records {
		r := &h.Sealed.Records[i]
		if r.sends() && slices.Contains(dimensions, r.Dimension) && now.Before(r.sendUntil(s, h.Start)) {
			number := 1
			if n := len(r.Attempts); n > 0 {
				number = r.Attempts[n-1].Number + 1
			}
			r.Attempts = append(withoutOldRefusals(r.Attempts), Attempt{Number: number, Time: now})
			sent = append(sent, r.Dimension)
		}
	}
	return h, sent, nil
}

// maxAttempts is from how many attempts on the oldest refusals are dropped: a buyer that does not
// subscribe is asked for hourly, at Google for a month.
const maxAttempts = 32

// withoutOldRefusals returns a copy of the attempts in which, of too many, refusals are missing
// that make no outcome and no delay: none but the first and the last.
func withoutOldRefusals(attempts []Attempt) []Attempt {
	left := slices.Clone(attempts)
	for i := 1; len(left) >= maxAttempts && i < len(left)-1; {
		if left[i].Result == Refused {
			left = slices.Delete(left, i, i+1)
		} else {
			i++
		}
	}
	return left
}

// Respond stores the response to an attempt of a dimension, by the attempt's number. A definite
// response is final. One that arrives after the outcome is stored too, and changes no outcome, but
// the reason of one that it contradicts; a settled hour is DECIDED again, until its report has it.
func (h Hour) Respond(dimension string, attempt int, response Response) (Hour, error) {
	h, err := h.changed(StateSealed, StateDecided, StateSettled)
	if err != nil {
		return h, err
	}
	r := h.record(dimension)
	at := -1
	if r != nil {
		at = slices.IndexFunc(r.Attempts, func(a Attempt) bool { return a.Number == attempt })
	}
	if at < 0 {
		return h, fmt.Errorf("no attempt %d of dimension %s is stored", attempt, metering.Quote(dimension))
	}
	if r.Attempts[at].Result == InDoubt {
		r.Attempts = slices.Clone(r.Attempts)
		r.Attempts[at].Response = response
		if h.State == StateSettled { // its report is written again
			h.State = StateDecided
		}
		r.Outcome.contradict(OutcomeOf(r.Quantity, r.Attempts, find(r.Attempts, InDoubt) < 0))
	}
	return h, nil
}

// Decide makes the outcomes that the history allows, and returns what they have in escrow to the
// ledger. The hour is DECIDED once each record has an outcome. Hour and ledger are written in one
// transaction.
func (h Hour) Decide(ledger Ledger, s *Schedule, now time.Time) (Hour, Ledger, error) {
	h, err := h.changed(StateSealed)
	if err != nil {
		return h, ledger, err
	}
	after := ledger.changed()
	undecided := 0
	for i := range h.Sealed.Records {
		r := &h.Sealed.Records[i]
		if r.Outcome.Kind != Undecided {
			continue
		}
		if r.Outcome = r.outcome(!now.Before(r.sendUntil(s, h.Start))); r.Outcome.Kind == Undecided {
			undecided++
		}
		after.giveBack(r)
	}
	if undecided == 0 {
		h.State = StateDecided
	}
	return h, after, nil
}

// Resolve is an operator's word, or the reconciliation's, on a record that is in CONFLICT or
// UNKNOWN: it was billed or not. Hour and ledger are written in one transaction. A settled hour is
// DECIDED again, until its groups have their status.
func (h Hour) Resolve(ledger Ledger, dimension string, billed bool, by string, now time.Time) (Hour, Ledger, error) {
	h, err := h.changed(StateSealed, StateDecided, StateSettled)
	if err != nil {
		return h, ledger, err
	}
	r := h.record(dimension)
	if r == nil {
		return h, ledger, metering.Errorf(metering.NotFound, "report %s has no dimension %s", h.ID(), metering.Quote(dimension))
	}
	if r.Outcome.Kind != Conflict && r.Outcome.Kind != Unknown {
		return h, ledger, metering.Errorf(metering.Conflict, "dimension %s of report %s is %s: only CONFLICT and UNKNOWN can be resolved",
			metering.Quote(dimension), h.ID(), kindName(r.Outcome.Kind))
	}
	if !billed && find(r.Attempts, Billed) >= 0 {
		return h, ledger, metering.Errorf(metering.Conflict, "the marketplace has said that dimension %s of report %s was billed: it can't be resolved as not billed",
			metering.Quote(dimension), h.ID())
	}
	outcome := Outcome{Kind: Accepted, Evidence: EvidenceResolved, Difference: r.Outcome.Difference, By: by, At: now}
	if !billed {
		outcome.Kind, outcome.Code = Rejected, metering.ProblemMarketplaceRefused
		outcome.Reason = "an operator found that it was not billed"
		if by == ByReconciliation {
			outcome.Reason = "the marketplace's sum of the day shows that it was not billed"
		}
	}
	r.Outcome = outcome
	if h.State == StateSettled { // its groups get their status again
		h.State = StateDecided
	}
	after := ledger.changed()
	after.giveBack(r)
	return h, after, nil
}

// ResolvedByOperator reports whether an operator, and not the reconciliation, has resolved the
// dimension after that moment. It is false if there is no hour.
func (h *Hour) ResolvedByOperator(dimension string, after time.Time) bool {
	if h == nil || h.Sealed == nil {
		return false
	}
	r := h.record(dimension)
	return r != nil && r.Outcome.Evidence == EvidenceResolved && r.Outcome.By != ByReconciliation && r.Outcome.At.After(after)
}

// Settle ends the hour once each of its groups has its status.
func (h Hour) Settle() (Hour, error) {
	h, err := h.changed(StateDecided)
	if err == nil {
		h.State = StateSettled
	}
	return h, err
}

// Succeeded reports whether each record is ACCEPTED.
func (h *Hour) Succeeded() bool {
	return h.Sealed != nil && !slices.ContainsFunc(h.Sealed.Records, func(r Record) bool { return r.Outcome.Kind != Accepted })
}

// Due returns the dimensions whose records are to be sent now, or again, in byte order. The window
// of each is open.
func (h *Hour) Due(s *Schedule, now time.Time) (dimensions []string) {
	if h.State != StateSealed {
		return nil
	}
	for i := range h.Sealed.Records {
		r := &h.Sealed.Records[i]
		if r.sends() && !now.Before(nextAttempt(r.Attempts)) && now.Before(r.sendUntil(s, h.Start)) {
			dimensions = append(dimensions, r.Dimension)
		}
	}
	return dimensions
}

// WasSent reports whether an attempt of a record is stored.
func (h *Hour) WasSent() bool {
	return h.Sealed != nil && slices.ContainsFunc(h.Sealed.Records, func(r Record) bool { return len(r.Attempts) > 0 })
}

// SendUntil is the end of the window in which the record of a dimension is sent.
func (h *Hour) SendUntil(dimension string, s *Schedule) time.Time {
	return h.record(dimension).sendUntil(s, h.Start)
}

// Record returns the record of a dimension; nil if the hour has none.
func (h *Hour) Record(dimension string) *Record { return h.record(dimension) }

// NextAttempt is when the hour is looked at again: when a record that has no outcome is sent again,
// or now if one was never sent or nothing is to be sent. It is never after the end of its window.
func (h *Hour) NextAttempt(s *Schedule) (next time.Time) {
	if h.State != StateSealed {
		return time.Time{}
	}
	for i := range h.Sealed.Records {
		r := &h.Sealed.Records[i]
		if r.Outcome.Kind != Undecided {
			continue
		}
		if len(r.Attempts) == 0 {
			return time.Time{}
		}
		at := metering.Earlier(nextAttempt(r.Attempts), r.sendUntil(s, h.Start))
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return next
}

// changed returns a copy of the hour that may be changed, with the next version.
func (h Hour) changed(states ...State) (Hour, error) {
	if !slices.Contains(states, h.State) {
		return h, fmt.Errorf("%w: it is %s", ErrState, h.State)
	}
	h.Version++
	if h.Sealed != nil {
		sealed := *h.Sealed
		sealed.Records = slices.Clone(sealed.Records)
		h.Sealed = &sealed
	}
	return h, nil
}

// record returns the record of a dimension, or nil.
func (h *Hour) record(dimension string) *Record {
	if h.Sealed == nil {
		return nil
	}
	at, found := slices.BinarySearchFunc(h.Sealed.Records, dimension, func(r Record, d string) int { return strings.Compare(r.Dimension, d) })
	if !found {
		return nil
	}
	return &h.Sealed.Records[at]
}

// kindName is a kind in a message.
func kindName(k Kind) string {
	if k == Undecided {
		return "not decided yet"
	}
	return string(k)
}
