package metering

import "slices"

// Cause is what changes the status of a group.
type Cause string

// The causes of a change of status.
const (
	CauseReport  Cause = "report"  // a client reports the group: it is stored
	CauseDelete  Cause = "delete"  // a client deletes the group
	CauseRetry   Cause = "retry"   // a client has the group validated again
	CauseClaim   Cause = "claim"   // the report of an hour takes the group in
	CauseSettle  Cause = "settle"  // the report of the group's hour has an outcome for each dimension
	CauseExpire  Cause = "expire"  // no hour can take the group any more, or its partner has no connection
	CauseResolve Cause = "resolve" // an operator says what happened at the marketplace
)

// Transition is a change of a group's status.
type Transition struct {
	From  Status // empty if the group does not exist yet
	To    Status
	Cause Cause
}

// Transitions are all transitions; no other can happen. A retry of an INVALID group that is still
// invalid changes its problems, not its status; so does one of a REPORT_FAILED group of which a
// part is billed, if the rest can't be reported.
var Transitions = []Transition{
	{"", StatusCreated, CauseReport},
	{"", StatusInvalid, CauseReport},
	{StatusCreated, StatusDeleted, CauseDelete},
	{StatusCreated, StatusReportPending, CauseClaim},
	{StatusCreated, StatusReportFailed, CauseExpire},
	{StatusInvalid, StatusCreated, CauseRetry},
	{StatusInvalid, StatusDeleted, CauseDelete},
	{StatusReportPending, StatusReported, CauseSettle},
	{StatusReportPending, StatusReportFailed, CauseSettle},
	{StatusReportFailed, StatusCreated, CauseRetry},
	{StatusReportFailed, StatusInvalid, CauseRetry},
	{StatusReportFailed, StatusReported, CauseResolve},
}

// Allowed reports whether the cause may change a group's status so.
func Allowed(from, to Status, cause Cause) bool {
	return slices.Contains(Transitions, Transition{from, to, cause})
}

// The statuses in which an operation accepts a group (API reference: delete usageRecordGroup, retry
// usageRecordGroup).
var (
	Deletable = statusesBefore(CauseDelete)
	Retryable = statusesBefore(CauseRetry)
)

// statusesBefore returns the statuses that the cause can change.
func statusesBefore(cause Cause) (statuses []Status) {
	for _, t := range Transitions {
		if t.Cause == cause && !slices.Contains(statuses, t.From) {
			statuses = append(statuses, t.From)
		}
	}
	return statuses
}
