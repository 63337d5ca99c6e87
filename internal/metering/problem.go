package metering

import (
	"fmt"
	"strings"
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

// pointer is the JSON Pointer (RFC 6901) of a member of the object at path.
func pointer(path, member string) string {
	return path + "/" + pointerEscaper.Replace(member)
}

var pointerEscaper = strings.NewReplacer("~", "~0", "/", "~1")
