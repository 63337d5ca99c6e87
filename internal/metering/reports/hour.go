package reports

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// Hour is the usage of an entitlement in one hour, on its way to the marketplace. It is created once
// and never released: it is the report, and the place in which the report is made.
//
// A method that changes an hour returns the changed copy, with the next version. It returns ErrState
// if the hour is in another state: another worker was first, and what it wrote is adopted.
type Hour struct {
	Organization metering.OrgID
	Entitlement  metering.EntitlementID
	Start        time.Time // UTC, a whole hour
	State        State
	Version      int // 1 if OPEN; grows by 1 with each change

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
	return Hour{Organization: org, Entitlement: entitlement, Start: HourOf(start), State: StateOpen, Version: 1}
}

// ID is the id of the hour's report.
func (h *Hour) ID() string { return ReportID(h.Organization, h.Entitlement, h.Start) }

// Claims reports whether the hour takes a group with that status and due hour. The due hour is the
// fencing token: a worker that slept since it listed the group does not take it into a later hour's
// place.
func (h *Hour) Claims(status metering.Status, due time.Time) bool {
	return h.State == StateOpen && status == metering.StatusCreated && due.Equal(h.Start)
}

// Begin stores an attempt of the dimensions' records that have no outcome, something to send, and an
// open window. It returns the dimensions that are to be sent, which may be none. The changed hour is
// written before the call.
func (h Hour) Begin(dimensions []string, s *Schedule, now time.Time) (changed Hour, sent []string, err error) {
	if h, err = h.changed(StateSealed); err != nil {
		return h, nil, err
	}
	for i := range h.Sealed.Records {
		r := &h.Sealed.Records[i]
		if r.sends() && slices.Contains(dimensions, r.Dimension) && now.Before(r.sendUntil(s, h.Start)) {
			r.Attempts = append(slices.Clip(r.Attempts), Attempt{Time: now})
			sent = append(sent, r.Dimension)
		}
	}
	return h, sent, nil
}

// Respond stores the response to an attempt of a dimension, by the attempt's index. A definite
// response is final. One that arrives after the outcome is stored too, and changes nothing else.
func (h Hour) Respond(dimension string, attempt int, response Response) (Hour, error) {
	h, err := h.changed(StateSealed, StateDecided, StateSettled)
	if err != nil {
		return h, err
	}
	r := h.record(dimension)
	if r == nil || attempt < 0 || attempt >= len(r.Attempts) {
		return h, fmt.Errorf("no attempt %d of dimension %s is stored", attempt, metering.Quote(dimension))
	}
	if r.Attempts[attempt].Result == InDoubt {
		r.Attempts = slices.Clone(r.Attempts)
		r.Attempts[attempt].Response = response
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

// Resolve is an operator's word on a record that is in CONFLICT or UNKNOWN: it was billed or not. Hour
// and ledger are written in one transaction; then the groups get their status again.
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
	outcome := Outcome{Kind: Accepted, Evidence: EvidenceResolved, Difference: r.Outcome.Difference, By: by, At: now}
	if !billed {
		outcome.Kind, outcome.Code = Rejected, metering.ProblemMarketplaceRefused
		outcome.Reason = "an operator found that it was not billed"
	}
	r.Outcome = outcome
	after := ledger.changed()
	after.giveBack(r)
	return h, after, nil
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
		at := earlier(nextAttempt(r.Attempts), r.sendUntil(s, h.Start))
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
