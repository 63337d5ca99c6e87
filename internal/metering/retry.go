package metering

import (
	"crypto/sha256"
	"slices"
	"time"
)

// Retry is a request to validate and convert a group again.
type Retry struct {
	Created Day      // the day on which the group must have been created; empty is any
	Key     *KeyHash // of the Idempotency-Key; nil is none
	Now     time.Time
}

// KeyHash identifies an Idempotency-Key of a retry in the group that it belongs to.
type KeyHash [16]byte

// HashKey returns the hash of an Idempotency-Key.
func HashKey(key string) KeyHash {
	sum := sha256.Sum256([]byte(key))
	return KeyHash(sum[:16])
}

// CheckRetry returns Conflict, with the status, if the group can't be retried, and Invalid if it
// has had all the retries with a key that it can have. keys is how many it has had.
func (g *Group) CheckRetry(keys int, retry Retry) error {
	if !slices.Contains(Retryable, g.Status) {
		return Errorf(Conflict, "usage record group %s is %s: only a group that is INVALID or REPORT_FAILED can be retried", Quote(g.ID), g.Status)
	}
	for _, p := range g.Problems {
		if g.Status == StatusReportFailed && p.unresolved() {
			return Errorf(Conflict, "usage record group %s has the problem %s at %s: it may be billed, so it can be retried only when that is resolved", Quote(g.ID), p.Code, p.Path)
		}
	}
	if retry.Key != nil && keys >= MaxRetryKeys {
		return Errorf(Invalid, "usage record group %s was retried with %d different Idempotency-Keys, which is the most: retry it without one", Quote(g.ID), keys)
	}
	return nil
}

// CheckRestored returns Conflict if the group has not changed since reporting was resumed on a
// table that was restored from a backup: a retry on the lost table may have billed it. restored is
// zero if the table was not restored.
func (g *Group) CheckRestored(restored time.Time) error {
	if restored.IsZero() || g.LastUpdateTime.After(restored) {
		return nil
	}
	return Errorf(Conflict, "usage record group %s is as it was when the table was restored from a backup: it may have been retried and billed since the backup; if the marketplace has no such record, report its usage as a new group", Quote(g.ID))
}

// Rest is what a retry judges of a group of which a part is billed: the rest is reported as it is
// stored, so that only the entitlement and the time are judged.
func (g *Group) Rest() NewGroup {
	n := g.AsReported()
	n.Records, n.BillableRecords = nil, nil
	return n
}

// CheckRest returns Invalid if what failed of a group of which a part is billed can't be reported
// as it is stored. That is so if it has billable records of a metric whose hour is not the sum of
// its groups: each would add its own maximum, last or unique count. And if its records may have
// been converted otherwise when its hour was sealed: then what is stored of a dimension may be
// billed as another already. sealed is the version of the config that the hour was sealed by,
// converted that which the group was stored by, and entitlement the last change of the entitlement
// before the seal.
func (g *Group) CheckRest(metrics []BillableMetric, sealed, converted int, entitlement time.Time) error {
	unchanged := func(at time.Time) bool { return at.Add(obeyedWithin).Before(g.CreationTime) }
	for i := range g.MetaInfo.BillableRecords {
		key := g.MetaInfo.BillableRecords[i].Key
		at := slices.IndexFunc(metrics, func(m BillableMetric) bool { return m.ID == MetricID(key) })
		if at < 0 || metrics[at].AggregationType != AggregateSum && metrics[at].AggregationType != AggregateCount {
			return Errorf(Invalid,
				"usage record group %s is billed in part, and has records of billable metric %s, which is no SUM and no COUNT: what the groups of an hour came to can't be added up; report what is missing of the hour as new usage, in one group with records by dimension",
				Quote(g.ID), Quote(key))
		}
		if sealed != converted || !unchanged(entitlement) || !unchanged(metrics[at].LastUpdateTime) {
			return Errorf(Invalid,
				"usage record group %s is billed in part, and the config, its entitlement or billable metric %s was changed after it was stored: what is stored of its dimensions may be billed as others; report what is missing of the hour as new usage, in one group with records by dimension",
				Quote(g.ID), Quote(key))
		}
	}
	return nil
}

// obeyedWithin is after what time each function obeys a change. Source: the contract.
const obeyedWithin = 5 * time.Second

// RetriedInPart gives a group of which a part is billed the status of the judgement of its rest:
// CREATED, or REPORT_FAILED with the problems. What it holds, and whose it is, stays.
func (g *Group) RetriedInPart(judged *Judgement, now time.Time) {
	g.LastUpdateTime, g.ReportBy, g.Problems = now.UTC().Truncate(time.Millisecond), judged.ReportBy, nil
	if !judged.Valid() {
		g.Status = StatusReportFailed
		g.keepProblems(judged.Problems)
		return
	}
	g.Status, g.UsageRecordReportID, g.ReportedTime = StatusCreated, "", time.Time{}
}

// NoHour adds the problem of usage that no hour can take: EXPIRED or NO_HOUR_LEFT.
func (j *Judgement) NoHour(code ProblemCode) {
	why := "every hour in which it could be reported has its report already"
	if code == ProblemExpired {
		why = "the time in which the marketplace accepts the usage is over"
	}
	j.Problems = append(j.Problems, problem(code, "/timestamp", "timestamp is %s: %s", FormatTime(j.Timestamp), why))
}
