package reports

import (
	"fmt"
	"maps"
	"slices"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// Applied is what the report of an hour makes of a group.
type Applied struct {
	Status     metering.Status
	Problems   []metering.Problem // one for each dimension that is not ACCEPTED
	Dimensions map[string]Kind    // what became of each dimension, in this and in earlier reports
	InReport   bool               // Dimensions is not all of the group, or may be of others: it is not stored
}

// Dimensions returns the dimensions of a member, sorted: those that its records have, or those that
// its billable metrics add to by the terms of the seal.
func (h *Hour) Dimensions(m Member) []string {
	if m.Only != nil {
		return slices.Sorted(maps.Keys(m.Only))
	}
	if len(m.Group.MetaInfo.BillableRecords) == 0 {
		return slices.Sorted(maps.Keys(m.Group.Records))
	}
	all := map[string]bool{}
	for i := range m.Group.MetaInfo.BillableRecords {
		for _, dimension := range h.Sealed.Destinations[m.Group.MetaInfo.BillableRecords[i].Key] {
			all[dimension] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// Apply returns what the outcomes of the hour make of one of its members. It returns ErrState if a
// record of the member has no outcome.
func (h *Hour) Apply(m Member) (Applied, error) {
	applied := Applied{Status: metering.StatusReported, Dimensions: maps.Clone(m.Before), InReport: m.InReport}
	if applied.Dimensions == nil {
		applied.Dimensions = map[string]Kind{}
	}
	if h.Sealed == nil {
		return applied, fmt.Errorf("%w: it is %s", ErrState, h.State)
	}
	var failed []*Record
	for _, dimension := range h.Dimensions(m) {
		r := h.record(dimension)
		if r == nil && m.InReport {
			continue // it was accepted in an earlier report
		}
		if r == nil {
			return applied, fmt.Errorf("report %s has no dimension %s, which group %s has", h.ID(), metering.Quote(dimension), metering.Quote(m.Group.ID))
		}
		if r.Outcome.Kind == Undecided {
			return applied, fmt.Errorf("%w: dimension %s is not decided", ErrState, metering.Quote(dimension))
		}
		applied.Dimensions[dimension] = r.Outcome.Kind
		if r.Outcome.Kind != Accepted {
			failed = append(failed, r)
		}
	}
	inPart := m.InReport // it may be
	for _, kind := range applied.Dimensions {
		if inPart = inPart || kind == Accepted; kind != Accepted {
			applied.Status = metering.StatusReportFailed
		}
	}
	for _, r := range failed {
		applied.Problems = append(applied.Problems, r.problem(h.ID(), inPart))
	}
	return applied, nil
}

// What to do about usage whose window is over. A group may have a problem for each of its
// dimensions, so that these are shorter than metering.LateHint.
const (
	lateWhole = "set lateUsage of the connection to CARRY and retry the group; or retry it without CARRY (it becomes INVALID, or CREATED while its window is open), " +
		"delete it at once, and only after the DELETE succeeded report the usage again with a later timestamp. Never both: it would be billed twice"
	lateInPart = "set lateUsage of the connection to CARRY and retry the group; or, also if a retry is refused, report the usage of the dimension again with a later timestamp, " +
		"and never retry this group: it would be billed twice"
)

// hint is what to do about a record that is not ACCEPTED. inPart reports whether another dimension
// of the group is billed: then the group can't be deleted.
func (r *Record) hint(inPart bool) string {
	late, refused := lateWhole, ""
	if inPart {
		late, refused = lateInPart, " (if the retry is refused, report what is missing as new usage)"
	}
	correct := "correct the cause at the marketplace or in the entitlement"
	o := &r.Outcome
	switch {
	case o.Kind == Conflict:
		return "find out what the marketplace has for the hour. " + metering.ConflictHint
	case o.Kind == Unknown:
		return "find out at the marketplace what it has for the hour; then an operator resolves the dimension of the report"
	case o.Code == metering.ProblemNoHourLeft:
		return "if the startTime, endTime or cancelTime of the entitlement is wrong, correct it and retry the group before the end of its window; if the usage is still to be billed, " + late
	case o.Code == metering.ProblemExpired:
		return "if the usage is still to be billed, " + late
	case o.Evidence == EvidenceWindow:
		return correct + "; the window of the hour is over: " + late
	case o.Evidence == EvidenceResolved:
		correct = ""
	case o.Code == metering.ProblemNoPrice:
		correct = "set the rate of the dimension, and the listPrice if the reason names it, in info.dimensions of the entitlement"
	}
	if correct != "" {
		correct += ", and "
	}
	return correct + "retry the group before its reportBy" + refused + "; after that, " + late
}

// problem is the problem of a group whose dimension is not ACCEPTED.
func (r *Record) problem(report string, inPart bool) metering.Problem {
	reason := r.Outcome.Reason
	if reason == "" {
		reason = "the marketplace gave no reason"
	}
	return metering.Problem{
		Code: r.Outcome.Code, Severity: metering.SeverityError, Path: metering.Pointer("/records", r.Dimension),
		Message: fmt.Sprintf("dimension %s of report %s is %s: %s", metering.Quote(r.Dimension), report, r.Outcome.Kind, reason),
		Hint:    r.hint(inPart),
	}
}

// Retry is what a retry of a group reports.
type Retry struct {
	Convert bool                         // the group is converted again, as if it were new
	Only    map[string]metering.Quantity // else, the dimensions that failed, as they are stored
}

// RetryOf returns what a retry of a group reports, by what became of its dimensions. A group is
// converted again only if all of it was rejected: else a mapping that was renamed since would bill
// the same usage under another name. It returns Invalid if a dimension has to be resolved first, or
// if nothing failed.
func RetryOf(g *metering.Group, dimensions map[string]Kind) (Retry, error) {
	only := map[string]metering.Quantity{}
	rejected := 0
	missing := ""
	for _, dimension := range slices.Sorted(maps.Keys(dimensions)) {
		switch kind := dimensions[dimension]; kind {
		case Accepted:
		case Rejected:
			rejected++
			q, stored := g.Records[dimension]
			if only[dimension] = q; !stored && missing == "" {
				missing = dimension
			}
		default:
			return Retry{}, metering.Errorf(metering.Invalid, "dimension %s is %s: it must be resolved first", metering.Quote(dimension), kindName(kind))
		}
	}
	switch {
	case rejected == len(dimensions):
		return Retry{Convert: true}, nil
	case rejected == 0:
		return Retry{}, metering.Errorf(metering.Invalid, "each dimension of the group was accepted: nothing is left to report")
	case missing != "":
		// A billable metric was mapped to it after the group was converted.
		return Retry{}, metering.Errorf(metering.Invalid,
			"dimension %s failed, but the group is not stored with it: report what is missing as new usage", metering.Quote(missing))
	default:
		return Retry{Only: only}, nil
	}
}
