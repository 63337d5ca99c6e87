package metering

import (
	"slices"
	"sync"
	"time"
)

// Terms are what the usage of an entitlement is checked against and converted by, as they were read
// at one moment. They must not change, nor be copied, once they are used: they are indexed then.
type Terms struct {
	Entitlement *Entitlement     // nil if it does not exist
	Connection  *Connection      // of the entitlement's partner; nil if there is none
	Config      ConfigVersion    // of the organization
	Metrics     []BillableMetric // of the organization; read only for billable records

	index     indexedTerms
	indexOnce sync.Once
}

// Judgement is what the terms say about a new group.
type Judgement struct {
	// Problems are all problems, in a fixed order. The group is INVALID if one is an ERROR.
	Problems []Problem

	// Records are the quantities by dimension key after conversion. They are not complete if a
	// problem is an ERROR: then they hold what could be converted.
	Records       map[string]Quantity
	OriginRecords map[string]Quantity // by source key, or by metric id for billable records
	Billable      []BillableRecord    // usage metering v2

	Timestamp time.Time // when the usage happened
	ReportBy  time.Time // the last moment at which the marketplace takes it; zero if it is not known
}

// Valid reports whether no problem is an ERROR.
func (j *Judgement) Valid() bool { return !slices.ContainsFunc(j.Problems, Problem.isError) }

// Exist reports whether the entitlement exists. One that is DELETED does not.
func (t *Terms) Exist() bool {
	return t.Entitlement != nil && t.Entitlement.Status != EntitlementDeleted
}

// Judge checks the group by the terms and converts its records. Check has accepted the group. A
// group that names no entitlement is checked only for what needs none. With SkipValidation, the
// rules about the entitlement's state, the dimensions and the time are skipped.
//
// The problems are first those of the entitlement, then those of the time, then those of the
// records.
func (t *Terms) Judge(g *NewGroup, now time.Time) Judgement {
	j, _ := t.judge(g, now, true)
	return j
}

// judge is Judge. Without keep, it leaves out the quantities. It returns the bytes of the keys of
// Records.
func (t *Terms) judge(g *NewGroup, now time.Time, keep bool) (j Judgement, keys int) {
	j = Judgement{Timestamp: now.UTC().Truncate(time.Millisecond)}
	if timestamp := g.timestamp(); timestamp != nil {
		j.Timestamp = *timestamp
	}
	skip := g.MetaInfo.SkipValidation
	if t.Exist() {
		if !skip {
			j.Problems = t.entitlementProblems(j.Timestamp)
		}
		j.ReportBy = t.reportBy(j.Timestamp, now)
	} else if g.EntitlementID != "" {
		j.Problems = append(j.Problems, problem(ProblemEntitlementUnknown, "/entitlementID",
			"entitlementID is %s: the organization has no such entitlement", Quote(g.EntitlementID)))
	}
	if !skip {
		j.Problems = append(j.Problems, t.timeProblems(g, j.Timestamp, now)...)
	}
	converted := t
	if !t.Exist() {
		converted = &Terms{}
	}
	var problems []Problem
	j.Records, j.OriginRecords, j.Billable, keys, problems = converted.convertNew(g, keep)
	j.Problems = append(j.Problems, problems...)
	return j, keys
}

// timestamp is when the usage happened, as it was sent; nil if it was not.
func (g *NewGroup) timestamp() *time.Time {
	if g.Timestamp != nil {
		return g.Timestamp
	}
	return g.MetaInfo.Timestamp
}

// entitlementProblems are the problems of the entitlement's state for usage of that time.
func (t *Terms) entitlementProblems(at time.Time) (problems []Problem) {
	e := t.Entitlement
	add := func(code ProblemCode, format string, args ...any) {
		problems = append(problems, problem(code, "/entitlementID", "entitlementID is %s: "+format, append([]any{Quote(e.ID)}, args...)...))
	}
	switch e.Status {
	case EntitlementActive, EntitlementPendingCancel:
	case EntitlementCancelled:
		if e.CancelTime.IsZero() {
			add(ProblemEntitlementNotActive, "the entitlement is CANCELLED, without the time since when")
		}
	default:
		add(ProblemEntitlementNotActive, "the entitlement is %s, not ACTIVE", e.Status)
	}
	if at.Before(e.StartTime) {
		add(ProblemEntitlementNotStarted, "the entitlement starts at %s, after the usage of %s", FormatTime(e.StartTime), FormatTime(at))
	}
	if end := e.end(); !end.IsZero() && !at.Before(end) {
		what := "ended"
		if end.Equal(e.CancelTime) {
			what = "was cancelled"
		}
		add(ProblemEntitlementEnded, "the entitlement %s at %s, before the usage of %s", what, FormatTime(end), FormatTime(at))
	}
	if !e.Marketplace.Complete(e.Partner) {
		add(ProblemEntitlementWithoutIdentifiers, "the entitlement lacks the identifiers by which %s knows it: %s", e.Partner, identifiersOf(e.Partner))
	}
	return problems
}

// end is when the entitlement ends or is cancelled, whichever is earlier; zero if neither is known.
func (e *Entitlement) end() time.Time {
	if e.EndTime.IsZero() || !e.CancelTime.IsZero() && e.CancelTime.Before(e.EndTime) {
		return e.CancelTime
	}
	return e.EndTime
}

// identifiersOf says what MarketplaceIDs.Complete asks for.
func identifiersOf(partner Partner) string {
	switch partner {
	case "AWS":
		return "marketplace must have customerAWSAccountID and licenseArn, or customerIdentifier and productCode"
	case "AZURE":
		return "marketplace must have resourceID or resourceURI, and planID"
	case "GCP":
		return "marketplace must have usageReportingID and serviceName"
	default:
		return "usage can't be reported to it"
	}
}

// timeProblems are the problems of the time of usage. The path of all is /timestamp.
func (t *Terms) timeProblems(g *NewGroup, at, now time.Time) (problems []Problem) {
	add := func(code ProblemCode, format string, args ...any) {
		path := "timestamp"
		if g.Timestamp == nil {
			path = "metaInfo.timestamp"
		}
		problems = append(problems, problem(code, "/timestamp", "%s is %s: "+format, append([]any{path, FormatTime(at)}, args...)...))
	}
	if at.After(now.Add(MaxFuture)) {
		add(ProblemInTheFuture, "it must not be more than 5 minutes in the future (it is %s)", FormatTime(now))
	}
	if !t.Exist() {
		return problems
	}
	partner := t.Entitlement.Partner
	w := t.window(at)
	switch {
	case w.Closed(now) && t.carries(now):
	case w.Closed(now) && w.Month && partner == "GCP":
		add(ProblemMonthClosed, "%s closed its month at %s", partner, FormatTime(w.End))
	case w.Closed(now) && w.Month:
		add(ProblemTooOld, "%s takes usage of this hour until %s", partner, FormatTime(w.End))
		add(ProblemMonthClosed, "%s closed its month at %s", partner, FormatTime(w.End))
	case w.Closed(now) && w.Cancelled:
		add(ProblemTooOld, "%s takes usage until one hour after the cancellation, %s", partner, FormatTime(w.End))
	case w.Closed(now):
		add(ProblemTooOld, "%s takes usage of this hour until %s", partner, FormatTime(w.End))
	case partner == "GCP" && !now.Before(at.Add(googleLate)):
		add(ProblemLate, "GCP asks for usage within an hour, by %s", FormatTime(at.Add(googleLate)))
	}
	return problems
}

// notConnected is the warning that the usage waits for a connection.
func (t *Terms) notConnected() Problem {
	return Problem{
		Code: ProblemNoConnection, Severity: SeverityWarning, Path: "/entitlementID", Hint: kindOf(ProblemNoConnection).Hint,
		Message: "the organization has no connection to " + string(t.Entitlement.Partner) + ": the usage waits for one until its time to be reported ends",
	}
}

// CheckStorable returns the reason why what the judgement makes of the group can't be stored, or
// nil. A report of such a group is Invalid and stores nothing.
func (t *Terms) CheckStorable(g *NewGroup, org OrgID, j *Judgement) error {
	if !t.Exist() {
		return nil
	}
	size := g.roughSize()
	for key := range j.Records {
		size += len(key) + roughNumber
	}
	if size <= MaxStored {
		return nil
	}
	largest := g.largest(org)
	largest.Records, largest.MetaInfo.OriginRecords = j.Records, j.OriginRecords
	return checkStoredSize(&largest, "after conversion the group may have %d bytes as stored, where an id that is not given counts as the longest")
}
