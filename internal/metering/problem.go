package metering

import (
	"fmt"
	"slices"
)

// Problem is a reason why a group can't be reported as it is, or may not be reported as expected.
// Message is a sentence on its own: it names what is wrong and its path, as code would write it.
type Problem struct {
	Code     ProblemCode
	Severity Severity
	Path     string // JSON Pointer into the group as the client sent it
	Message  string
	Hint     string // what to do; always given, may be empty

	Unknown map[string]any // as of a Group
}

func (p Problem) isError() bool { return p.Severity == SeverityError }

// unresolved reports whether an operator has to resolve the problem: the usage may be billed.
func (p Problem) unresolved() bool {
	return p.Code == ProblemConflict || p.Code == ProblemOutcomeUnknown
}

// ProblemCode names a kind of problem. Clients depend on the codes.
type ProblemCode string

// Severity says whether a problem makes a group invalid.
type Severity string

// The severities.
const (
	SeverityError   Severity = "ERROR"   // the group is INVALID
	SeverityWarning Severity = "WARNING" // shown by explained validation alone, never stored
)

// The codes. ProblemKinds describes each. Clients depend on the names.
const (
	ProblemNotStorable                   ProblemCode = "NOT_STORABLE"
	ProblemEntitlementUnknown            ProblemCode = "ENTITLEMENT_UNKNOWN"
	ProblemEntitlementNotActive          ProblemCode = "ENTITLEMENT_NOT_ACTIVE"
	ProblemEntitlementNotStarted         ProblemCode = "ENTITLEMENT_NOT_STARTED"
	ProblemEntitlementEnded              ProblemCode = "ENTITLEMENT_ENDED"
	ProblemEntitlementWithoutIdentifiers ProblemCode = "ENTITLEMENT_WITHOUT_IDENTIFIERS"
	ProblemDimensionUnknown              ProblemCode = "DIMENSION_UNKNOWN"
	ProblemDimensionsUnchecked           ProblemCode = "DIMENSIONS_UNCHECKED"
	ProblemMappingUnreadable             ProblemCode = "MAPPING_UNREADABLE"
	ProblemMetricUnknown                 ProblemCode = "METRIC_UNKNOWN"
	ProblemMetricDeleted                 ProblemCode = "METRIC_DELETED"
	ProblemMetricProperties              ProblemCode = "METRIC_PROPERTIES"
	ProblemQuantityNegative              ProblemCode = "QUANTITY_NEGATIVE"
	ProblemQuantityRange                 ProblemCode = "QUANTITY_RANGE"
	ProblemQuantityPrecision             ProblemCode = "QUANTITY_PRECISION"
	ProblemNoPrice                       ProblemCode = "NO_PRICE"
	ProblemTooOld                        ProblemCode = "TOO_OLD"
	ProblemMonthClosed                   ProblemCode = "MONTH_CLOSED"
	ProblemInTheFuture                   ProblemCode = "IN_THE_FUTURE"
	ProblemLate                          ProblemCode = "LATE"
	ProblemDuplicateInBatch              ProblemCode = "DUPLICATE_IN_BATCH"
	ProblemNoConnection                  ProblemCode = "NO_CONNECTION"
	ProblemExpired                       ProblemCode = "EXPIRED"
	ProblemNoHourLeft                    ProblemCode = "NO_HOUR_LEFT"
	ProblemNotSubscribed                 ProblemCode = "NOT_SUBSCRIBED"
	ProblemMarketplaceRefused            ProblemCode = "MARKETPLACE_REFUSED"
	ProblemConflict                      ProblemCode = "CONFLICT"
	ProblemOutcomeUnknown                ProblemCode = "OUTCOME_UNKNOWN"
)

// problem returns a problem with the severity and the hint of its kind.
func problem(code ProblemCode, path, format string, args ...any) Problem {
	kind := kindOf(code)
	return Problem{Code: code, Severity: kind.Severity, Path: path, Message: fmt.Sprintf(format, args...), Hint: kind.Hint}
}

// Pointer is the JSON Pointer (RFC 6901) of a member of the object at path.
func Pointer(path, member string) string {
	return path + "/" + pointerEscapes.Replace(member)
}

// problemList is the problems of a group, at most MaxProblems of each code.
type problemList struct {
	problems []Problem
	counts   map[ProblemCode]int
}

// add adds a problem with the severity of its kind.
func (l *problemList) add(code ProblemCode, path, hint, format string, args ...any) {
	if l.count(code) {
		l.problems = append(l.problems, Problem{Code: code, Severity: kindOf(code).Severity, Path: path, Message: fmt.Sprintf(format, args...), Hint: hint})
	}
}

// count counts a problem and reports whether it is to be listed.
func (l *problemList) count(code ProblemCode) bool {
	if l.counts == nil {
		l.counts = map[ProblemCode]int{}
	}
	l.counts[code]++
	return l.counts[code] <= MaxProblems
}

// list returns the problems. If a code has more than MaxProblems, the last one of it says how many.
func (l *problemList) list() []Problem {
	for code, count := range l.counts {
		if count <= MaxProblems {
			continue
		}
		for i := range slices.Backward(l.problems) {
			if p := &l.problems[i]; p.Code == code {
				p.Message += fmt.Sprintf("; %d more problems of this code are not listed", count-MaxProblems)
				break
			}
		}
	}
	return l.problems
}
