package table

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
)

// Retry validates and converts a group again that is INVALID or REPORT_FAILED, by what is stored
// now, and returns it: CREATED, or INVALID with today's problems. If a part of the group is billed,
// the rest is reported as it is stored, and the group is CREATED, or stays REPORT_FAILED with
// today's problems. Retry returns NotFound, Conflict naming the status or the dimension whose
// outcome has to be resolved first, or Invalid if the group can't be retried. With a key that has
// retried the group before, it returns the group as it is.
//
//	GetItem     as Group                             1 round trip
//	GetItem     PK = SK = REPORTING                  1 round trip, 1 read unit
//	as Hour                                          1 round trip, if the table was restored, and
//	                                                 the group was in a report before; or if a part
//	                                                 of its billable records is billed
//	as TermsOf                                       1 round trip, never from a cache
//	UpdateItem  PK = ORG#<org>, SK = GROUP#<id>      1 round trip, 7 write units at 1 KB, 1 more if
//	                                                 the buyer has changed
//
// The update is conditional on the group being the one that was read. If another request has
// changed it, Retry begins again. The retry's own operation id is in an attribute that nothing but
// another retry changes, so a repetition after a lost response finds it, even if the group was
// claimed meanwhile. A group that was in a report waits for a later hour than that of the report:
// a worker that slept must not take it into an hour that is sealed.
func (t *Table) Retry(ctx context.Context, org metering.OrgID, id metering.GroupID, retry metering.Retry) (metering.Group, error) {
	operation := NewOperation()
	for attempt := 0; ; attempt++ {
		group, item, err := t.group(ctx, org, id)
		if err != nil {
			return metering.Group{}, err
		}
		if retry.Created != "" && metering.DayOf(group.CreationTime) != retry.Created {
			return metering.Group{}, noSuchGroup(id, retry.Created)
		}
		if retry.Key != nil && retriedWith(item, *retry.Key) {
			return group, nil
		}
		if err := group.CheckRetry(len(retryKeys(item)), retry); err != nil {
			return metering.Group{}, err
		}
		restored, floor, err := t.restoredTime(ctx)
		if err != nil {
			return metering.Group{}, err
		}
		if err := group.CheckRestored(restored); err != nil {
			return metering.Group{}, err
		}
		r := retrying{org: org, Retry: retry, group: &group, read: item, operation: operation}
		if r.reported, err = hourIn(item); err != nil {
			return metering.Group{}, err
		}
		if err := t.checkReported(ctx, &r, restored, floor); err != nil {
			return metering.Group{}, err
		}
		if r.inPart, err = isInPart(&group, item); err != nil {
			return metering.Group{}, err
		}
		if err := t.judgeRetried(ctx, &r); err != nil {
			return metering.Group{}, err
		}
		after, changed, err := t.updateRetried(ctx, &r)
		if err != nil || changed {
			return after, err
		}
		if err := pause(ctx, attempt); err != nil {
			return metering.Group{}, contended("the group", err)
		}
	}
}

// checkReported returns Conflict if the table was restored, and a retry on the table that was lost
// may have billed what this one would report, though the group has changed since: it was in a
// report before, and an operator has not resolved since each dimension that is to be reported. That
// another dimension was resolved, which changes the group, says nothing of those; nor does the sum
// of a day.
func (t *Table) checkReported(ctx context.Context, r *retrying, restored, floor time.Time) error {
	if r.reported.IsZero() || !r.reported.Before(floor) {
		return nil
	}
	outcomes, err := outcomesOf(r.read)
	if err != nil || len(outcomes) == 0 {
		return err
	}
	h, err := t.lastHour(ctx, r)
	if err != nil {
		return err
	}
	for _, dimension := range slices.Sorted(maps.Keys(outcomes)) {
		if outcomes[dimension] == reports.Rejected && !h.ResolvedByOperator(dimension, restored) {
			return metering.Errorf(metering.Conflict,
				"usage record group %s was in a report when the table was restored from a backup: its dimension %s may have been retried and billed since the backup; report as new usage what the marketplace does not have",
				metering.Quote(r.group.ID), metering.Quote(dimension))
		}
	}
	return nil
}

// lastHour returns the hour of the group's last report, which is read once.
func (t *Table) lastHour(ctx context.Context, r *retrying) (h *reports.Hour, err error) {
	if r.hour == nil {
		r.hour, err = t.Hour(ctx, reports.Place{Organization: r.org, Entitlement: metering.EntitlementID(r.group.EntitlementID), Hour: r.reported})
	}
	return r.hour, err
}

// retrying is one attempt of a retry.
type retrying struct {
	metering.Retry
	org       metering.OrgID
	operation Operation
	read      map[string]types.AttributeValue
	group     *metering.Group
	reported  time.Time     // the hour of its last report; zero if it had none
	hour      *reports.Hour // that hour, if it was read
	inPart    bool          // a part of the group is billed, and stays as it is
	terms     *metering.Terms
	due       time.Time // the hour that the group waits for, if it is CREATED
}

// isInPart reports whether a part of the group is billed. It returns an error if the group can't be
// retried.
func isInPart(group *metering.Group, item map[string]types.AttributeValue) (bool, error) {
	if isText(item, attrOutcomes, inReport) {
		return false, metering.Errorf(metering.Invalid,
			"usage record group %s is too large to store which of its dimensions are billed: see report %s, and report the others as new usage",
			metering.Quote(group.ID), group.UsageRecordReportID)
	}
	outcomes, err := outcomesOf(item)
	if err != nil {
		return false, err
	}
	of, err := reports.RetryOf(group, outcomes)
	if err != nil {
		return false, metering.Errorf(metering.CodeOf(err), "usage record group %s can't be retried: %v", metering.Quote(group.ID), err)
	}
	return !of.Convert, nil
}

// judgeRetried makes the group what its retry makes of it, by the terms of now.
func (t *Table) judgeRetried(ctx context.Context, r *retrying) error {
	sent := r.group.AsReported()
	if r.inPart {
		sent = r.group.Rest()
	}
	ids, billable := metering.EntitlementsOf([]metering.NewGroup{sent})
	terms, err := t.TermsOf(ctx, r.org, ids, billable || len(r.group.MetaInfo.BillableRecords) > 0)
	if err != nil {
		return err
	}
	r.terms = terms[metering.EntitlementID(r.group.EntitlementID)]
	if r.inPart {
		if err := t.checkRest(ctx, r); err != nil {
			return err
		}
	}
	judged := r.terms.Judge(&sent, r.Now)
	if judged.Valid() {
		schedule := reports.ScheduleBy(r.terms)
		due, problem := schedule.Due(judged.Timestamp, r.reported, r.Now, r.Now)
		if r.Now.Before(schedule.Start) { // a worker lets it wait, as the start may be corrected
			due, problem = metering.HourOf(judged.Timestamp), ""
			if !due.After(r.reported) {
				due = r.reported.Add(time.Hour)
			}
		}
		switch {
		case problem == "":
			r.due = due
		case r.reported.IsZero() && sent.MetaInfo.SkipValidation: // as new usage: a worker fails it
			r.due = judged.Timestamp
		default:
			judged.NoHour(problem)
		}
	}
	if r.inPart {
		r.group.RetriedInPart(&judged, r.Now)
		return nil
	}
	return r.group.Judged(r.terms, &judged, r.Now)
}

// checkRest returns Invalid if what failed of a group of which a part is billed can't be reported
// as it is stored: for another partner, or by metering.Group.CheckRest. That is by the hour of the
// group's first report; later ones take what is stored.
func (t *Table) checkRest(ctx context.Context, r *retrying) error {
	if e := r.terms.Entitlement; e != nil && e.Partner != r.group.Partner {
		return metering.Errorf(metering.Invalid,
			"usage record group %s is billed in part, and was converted for %s, which is not the partner of its entitlement any more: report what is missing as new usage",
			metering.Quote(r.group.ID), r.group.Partner)
	}
	if _, checked := r.read[attrRest]; checked || len(r.group.MetaInfo.BillableRecords) == 0 {
		return nil
	}
	h, err := t.lastHour(ctx, r)
	if err != nil {
		return err
	}
	reader := itemReader{item: r.read}
	sealed, converted, entitlement := -1, 0, time.Time{}
	if h != nil && h.Sealed != nil && reader.has(attrConfig) {
		sealed, entitlement = h.Sealed.Config, h.Sealed.Entitlement
		if converted, err = strconv.Atoi(reader.number(attrConfig)); err != nil {
			reader.fail(attrConfig, "a version")
			return reader.storedError("a group")
		}
	}
	return r.group.CheckRest(r.terms.Metrics, sealed, converted, entitlement)
}

// hourIn returns the hour that claimed a group last; zero if none has.
func hourIn(item map[string]types.AttributeValue) (time.Time, error) {
	r := itemReader{item: item}
	if !r.has(attrHour) {
		return time.Time{}, nil
	}
	hour, err := time.Parse(hourLayout, r.text(attrHour))
	if err != nil {
		r.fail(attrHour, "an hour")
	}
	return hour, r.storedError("a group")
}

// updateRetried stores a group as its retry has made it. It reports false if it is not the item any
// more that was read.
func (t *Table) updateRetried(ctx context.Context, r *retrying) (after metering.Group, changed bool, err error) {
	group, u := r.group, newUpdate()
	stored := groupItem(group)
	u.setStatus(statusOf(r.org, group, &r.due))
	for _, name := range ofRetry {
		if value, ok := stored[name]; ok {
			u.set(name, value)
		} else {
			u.remove(name)
		}
	}
	if !r.inPart {
		metaInfo, _ := stored["metaInfo"].(*types.AttributeValueMemberM)
		for _, name := range []string{"originRecords", "billableRecords"} {
			if value, ok := metaInfo.Value[name]; ok {
				u.sets = append(u.sets, u.name("metaInfo")+"."+u.name(name)+" = "+u.value(value))
			}
		}
		u.set(attrConfig, configNumber(r.terms))
		u.remove(attrOutcomes)
		u.remove(attrRest)
	} else if group.Status == metering.StatusCreated && len(group.MetaInfo.BillableRecords) > 0 {
		u.set(attrRest, &types.AttributeValueMemberBOOL{Value: true})
	}
	u.set(attrRetry, r.operation.value())
	if r.Key != nil {
		u.add(attrRetryKeys, &types.AttributeValueMemberBS{Value: [][]byte{r.Key[:]}})
	}
	// Nothing but a retry changes _retry, and each report that is applied changes _applied: times
	// alone may be equal.
	condition := u.name("status") + " = " + u.value(r.read["status"]) + " AND " + u.name("lastUpdateTime") + " = " + u.value(r.read["lastUpdateTime"]) +
		" AND " + u.as(r.read, attrRetry) + " AND " + u.as(r.read, attrApplied)
	found, retried, err := t.updateItem(ctx, "retry group", u.input(ctx, t.name, itemKey(orgKey(r.org), groupKey(metering.GroupID(group.ID))), condition))
	if retried {
		after, err = itemGroup(found)
		return after, true, err
	}
	if message, ok := invalid(err); ok {
		instead := "delete it, and report its usage in several groups"
		if r.inPart {
			instead = "report what is not billed as new usage"
		}
		return metering.Group{}, false, &metering.Error{
			Code: metering.Invalid, Message: "the group would be too large to store: " + instead, Cause: errors.New(message),
		}
	}
	if err != nil {
		return metering.Group{}, false, err
	}
	if isMine(found, attrRetry, r.operation) { // the response to the first attempt was lost
		return *group, true, nil
	}
	return metering.Group{}, false, nil
}

// as is the condition that the attribute is as it was read, or absent.
func (u *update) as(read map[string]types.AttributeValue, attribute string) string {
	if value, ok := read[attribute]; ok {
		return u.name(attribute) + " = " + u.value(value)
	}
	return "attribute_not_exists(" + u.name(attribute) + ")"
}

// ofRetry are the attributes, besides those of its status, that a retry may change.
var ofRetry = []string{"partner", "buyerID", "productID", attrBuyer, "records", "reportBy", "reportedTime", "usageRecordReportID"}

// retryKeys returns the hashes of the keys of the group's retries.
func retryKeys(item map[string]types.AttributeValue) [][]byte {
	set, _ := item[attrRetryKeys].(*types.AttributeValueMemberBS)
	if set == nil {
		return nil
	}
	return set.Value
}

func retriedWith(item map[string]types.AttributeValue, key metering.KeyHash) bool {
	return slices.ContainsFunc(retryKeys(item), func(hash []byte) bool { return string(hash) == string(key[:]) })
}
