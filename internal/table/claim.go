package table

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
)

// Attributes of a group that was in a report.
const (
	attrHour     = "_hour"     // the start of the hour that claimed the group last
	attrApplied  = "_applied"  // the version of that hour which gave the group its status
	attrOutcomes = "_outcomes" // what became of each dimension, while not all are ACCEPTED
)

// Claim makes a group that waits for the hour, and is CREATED, a member of it: REPORT_PENDING. It
// returns nil if the group is no member: it was deleted, waits for another hour, or is too large to
// be written, which is noticed.
//
//	UpdateItem  PK = ORG#<org>, SK = GROUP#<id>   1 round trip, 7 write units under 1 KB
//	as dropWork                                   after, if an ended group is in byWork
//	another UpdateItem before                     if reportBy is not zero and not earlier
//
// reportBy, unless it is zero, becomes the group's if it is earlier than that.
//
// The condition is that the group is CREATED and that its due hour is this one: a worker that slept
// must not take a group that waits for a later hour. A group that has this hour already is a
// member: the response was lost, another worker was first, or the one that claimed it is gone. It
// may have its status too, if this worker slept until the hour was decided; then the hour can't be
// sealed again, whatever this worker adds up.
func (t *Table) Claim(ctx context.Context, h *reports.Hour, id metering.GroupID, now, reportBy time.Time) (*reports.Member, error) {
	if h.State != reports.StateOpen {
		return nil, fmt.Errorf("%w: it is %s, and claims no groups", reports.ErrState, h.State)
	}
	claim := func(earlier string) (item map[string]types.AttributeValue, claimed bool, err error) {
		u := newUpdate()
		u.setStatus(groupStatus{org: h.Organization, status: metering.StatusReportPending, at: now})
		u.set(attrHour, text(hourText(h.Start)))
		u.remove(attrApplied)
		condition := u.waits(h.Place(), id)
		if earlier != "" {
			u.set("reportBy", text(earlier))
			condition += " AND " + u.name("reportBy") + " > " + u.value(text(earlier))
		}
		return t.updateItem(ctx, "claim a group", u.input(ctx, t.name, itemKey(orgKey(h.Organization), groupKey(id)), condition))
	}
	if !reportBy.IsZero() {
		if item, claimed, _ := claim(metering.FormatTime(reportBy)); claimed { // else as without it
			return memberOf(item)
		}
	}
	item, claimed, err := claim("")
	if noticeTooLarge(ctx, h.Organization, id, err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if claimed || isMember(item, h) {
		return memberOf(item)
	}
	return nil, t.dropWork(ctx, h.Organization, id, item)
}

// retriedAway is in attrApplied of a group that was retried after its last report, and expired. No
// version of an hour is larger, so that no report is applied to it any more.
const retriedAway = math.MaxInt32

// isMember reports whether the group of the item is a member of the hour. One that was retried
// since is a member no more.
func isMember(item map[string]types.AttributeValue, h *reports.Hour) bool {
	r := itemReader{item: item}
	if !isText(item, attrHour, hourText(h.Start)) || r.has(attrApplied) && r.number(attrApplied) == strconv.Itoa(retriedAway) {
		return false
	}
	switch metering.Status(r.text("status")) {
	case metering.StatusReportPending, metering.StatusReported, metering.StatusReportFailed:
		return true
	}
	return false
}

// waits is the condition that a group waits for a place.
func (u *update) waits(p reports.Place, id metering.GroupID) string {
	return u.name("status") + " = " + u.value(text(string(metering.StatusCreated))) +
		" AND " + u.name(attrDue) + " = " + u.value(text(dueKey(p.Hour, p.Organization, p.Entitlement, id)))
}

// hourText is an hour in an attribute.
func hourText(hour time.Time) string { return hour.UTC().Format(hourLayout) }

// isText reports whether the attribute of the item is that text.
func isText(item map[string]types.AttributeValue, attribute, want string) bool {
	stored, ok := item[attribute].(*types.AttributeValueMemberS)
	return ok && stored.Value == want
}

// Members returns those of the groups that are members of the hour, whatever their status, in the
// order of the ids. One whose status this version does not know is none, which is noticed.
//
//	BatchGetItem  PK = ORG#<org>, SK = GROUP#<id>   1 round trip for each 100 groups, 1 read unit
//	                                                per 4 KB and group
func (t *Table) Members(ctx context.Context, h *reports.Hour, ids []metering.GroupID) ([]reports.Member, error) {
	var members []reports.Member
	err := t.eachGroup(ctx, h.Organization, ids, func(id metering.GroupID, item map[string]types.AttributeValue) error {
		if noticeStatus(ctx, h.Organization, id, item) || !isMember(item, h) {
			return nil
		}
		m, err := memberOf(item)
		if err == nil {
			members = append(members, *m)
		}
		return err
	})
	return members, err
}

// eachGroup calls take for the items of those of the groups that exist, in the order of the ids.
func (t *Table) eachGroup(ctx context.Context, org metering.OrgID, ids []metering.GroupID, take func(metering.GroupID, map[string]types.AttributeValue) error) error {
	for batch := range slices.Chunk(ids, maxBatchGet) {
		keys := make([]map[string]types.AttributeValue, len(batch))
		for i, id := range batch {
			keys[i] = itemKey(orgKey(org), groupKey(id))
		}
		items, err := t.getAll(ctx, "read groups", keys)
		if err != nil {
			return err
		}
		for _, id := range batch {
			if item := items[[2]string{orgKey(org), groupKey(id)}]; item != nil {
				if err := take(id, item); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// memberOf is the group of an item as a member of the hour that has claimed it.
//
// If some of its dimensions were accepted in an earlier report, it is in this one with those that
// were rejected. After the report each dimension that is not accepted is of this report: those that
// an earlier one has left were retried in it. A dimension that has no quantity, because an older
// version has converted the group again, is not reported as 0: it stays as it is.
func memberOf(item map[string]types.AttributeValue) (*reports.Member, error) {
	group, err := itemGroup(item)
	if err != nil {
		return nil, err
	}
	outcomes, err := outcomesOf(item)
	if err != nil {
		return nil, err
	}
	m := &reports.Member{Group: &group, InReport: isText(item, attrOutcomes, inReport)}
	if r := (itemReader{item: item}); r.has(attrApplied) {
		if m.Applied, err = strconv.Atoi(r.number(attrApplied)); err != nil {
			return nil, fmt.Errorf("the stored group %s has no number in %s: %w", metering.Quote(group.ID), attrApplied, err)
		}
	}
	switch {
	case group.Status == metering.StatusReported:
		m.Only = map[string]metering.Quantity{} // nothing is left to be applied
	case accepted(outcomes) != "":
		m.Only, m.Before = map[string]metering.Quantity{}, outcomes
		for dimension, kind := range outcomes {
			q, stored := group.Records[dimension]
			if kind == reports.Rejected && stored || kind != reports.Accepted && group.Status == metering.StatusReportFailed {
				m.Only[dimension] = q
			}
		}
	}
	return m, nil
}
