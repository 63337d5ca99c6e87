package table

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
)

// WaitingGroups returns those of the groups that are CREATED and wait for the place, in the order
// of the ids. It removes the others' entries in byWork if they do not wait at all.
//
//	BatchGetItem  PK = ORG#<org>, SK = GROUP#<id>   1 round trip for each 100 groups, 1 read unit
//	                                                per 4 KB and group
//	as dropWork                                     for each entry to remove
func (t *Table) WaitingGroups(ctx context.Context, p reports.Place, ids []metering.GroupID) ([]metering.Group, error) {
	var groups []metering.Group
	err := t.eachGroup(ctx, p.Organization, ids, func(id metering.GroupID, item map[string]types.AttributeValue) error {
		if !isText(item, "status", string(metering.StatusCreated)) {
			return t.dropWork(ctx, p.Organization, id, item)
		}
		if !isText(item, attrDue, dueKey(p.Hour, p.Organization, p.Entitlement, id)) {
			return nil
		}
		group, err := itemGroup(item)
		groups = append(groups, group)
		return err
	})
	return groups, err
}

// Move makes a group that waits for a place wait for a later hour. It does nothing if the group
// does not wait for the place any more.
//
//	UpdateItem  PK = ORG#<org>, SK = GROUP#<id>   1 round trip, 7 write units under 1 KB
func (t *Table) Move(ctx context.Context, p reports.Place, id metering.GroupID, to time.Time) error {
	if !to.After(p.Hour) {
		return storageError("move a group", fmt.Errorf("from %s to %s: a due hour only grows", hourText(p.Hour), hourText(to)))
	}
	u := newUpdate()
	u.set(attrDue, text(dueKey(to, p.Organization, p.Entitlement, id)))
	_, _, err := t.changeWaiting(ctx, "move a group", p, id, u)
	return err
}

// Expire makes a group that waits for a place REPORT_FAILED, with the problem. It reports false if
// the group does not wait for the place any more, or has no room for a problem, as import and
// validate refuse it: that one waits on, which is noticed.
//
//	UpdateItem  PK = ORG#<org>, SK = GROUP#<id>   1 round trip, 7 write units under 1 KB; 2 round
//	                                              trips if the problem has to be shortened
//
// The group keeps the hour of its last report and what became of its dimensions, for a retry. It is
// no member of that hour any more: what the hour becomes later is of the group as it was then.
func (t *Table) Expire(ctx context.Context, p reports.Place, id metering.GroupID, problem metering.Problem, now time.Time) (expired bool, err error) {
	expire := func(problems []metering.Problem) (bool, error) {
		u := newUpdate()
		u.setStatus(groupStatus{org: p.Organization, status: metering.StatusReportFailed, at: now, problems: problems})
		u.set(attrApplied, number(strconv.Itoa(retriedAway)))
		found, changed, err := t.changeWaiting(ctx, "expire a group", p, id, u)
		// A retry of the client finds what its first attempt has done.
		return changed || err == nil && isExpired(found, now), err
	}
	expired, err = expire([]metering.Problem{problem})
	if _, tooLarge := invalid(err); tooLarge {
		expired, err = expire(metering.ShortProblems([]metering.Problem{problem}))
	}
	if noticeTooLarge(ctx, p.Organization, id, err) {
		return false, nil
	}
	return expired, err
}

// isExpired reports whether the group of the item was expired at that time.
func isExpired(item map[string]types.AttributeValue, at time.Time) bool {
	r := itemReader{item: item}
	return r.has(attrApplied) && r.number(attrApplied) == strconv.Itoa(retriedAway) &&
		isText(item, "status", string(metering.StatusReportFailed)) && isText(item, "lastUpdateTime", metering.FormatTime(at))
}

// changeWaiting updates a group if it waits for the place. It returns the group as it is then.
func (t *Table) changeWaiting(
	ctx context.Context, doing string, p reports.Place, id metering.GroupID, u *update,
) (found map[string]types.AttributeValue, changed bool, err error) {
	found, changed, err = t.updateItem(ctx, doing, u.input(ctx, t.name, itemKey(orgKey(p.Organization), groupKey(id)), u.waits(p, id)))
	if err != nil || changed {
		return found, changed, err
	}
	return found, false, t.dropWork(ctx, p.Organization, id, found)
}

// dropWork removes the entry in byWork of a group that does not wait. An older version's delete,
// which does not know byWork, leaves such an entry. A status that this version does not know may be
// one that waits: its entry stays. Both are noticed.
//
//	UpdateItem  PK = ORG#<org>, SK = GROUP#<id>   1 round trip, 6 write units under 1 KB; none if
//	                                              the group has no entry
func (t *Table) dropWork(ctx context.Context, org metering.OrgID, id metering.GroupID, found map[string]types.AttributeValue) error {
	if noticeStatus(ctx, org, id, found) {
		return nil
	}
	r := itemReader{item: found}
	if !r.has(attrWork) && !r.has(attrDue) || !ended(metering.Status(r.text("status"))) {
		return nil
	}
	u := newUpdate()
	u.remove(attrWork)
	u.remove(attrDue)
	condition := u.name("status") + " = " + u.value(found["status"])
	_, removed, err := t.updateItem(ctx, "remove a group from the work", u.input(ctx, t.name, itemKey(orgKey(org), groupKey(id)), condition))
	if removed {
		notice(ctx, reports.StaleWork, 1, "organization", string(org), "group", string(id), "status", r.text("status"))
	}
	return err // nil if it was changed meanwhile
}

// noticeStatus reports whether the group of an item has a status that this version does not know,
// which is noticed.
func noticeStatus(ctx context.Context, org metering.OrgID, id metering.GroupID, found map[string]types.AttributeValue) bool {
	r := itemReader{item: found}
	status := metering.Status(r.text("status"))
	if found == nil || slices.Contains(metering.Statuses, status) {
		return false
	}
	notice(ctx, reports.UnknownWork, 1, "organization", string(org), "group", string(id), "status", string(status))
	return true
}

// noticeTooLarge reports whether an update of a group failed since the group is too large for it,
// which is noticed.
func noticeTooLarge(ctx context.Context, org metering.OrgID, id metering.GroupID, err error) bool {
	message, tooLarge := invalid(err)
	if tooLarge {
		notice(ctx, reports.TooLarge, 1, "organization", string(org), "group", string(id), "error", message)
	}
	return tooLarge
}

// ended reports whether no group of that status waits to be reported.
func ended(status metering.Status) bool {
	switch status {
	case metering.StatusDeleted, metering.StatusInvalid, metering.StatusReportPending, metering.StatusReported, metering.StatusReportFailed:
		return true
	}
	return false
}
