package table

import (
	"context"
	"iter"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// WithoutWork are the CREATED groups of the organization, or of one of its entitlements, that wait
// for no report: they were imported. They end at the first error.
//
//	Query  as Groups
func (t *Table) WithoutWork(ctx context.Context, org metering.OrgID, entitlement metering.EntitlementID) iter.Seq2[*metering.Group, error] {
	filter := metering.GroupFilter{Status: metering.StatusCreated, EntitlementID: entitlement}
	return t.groupsWhere(ctx, org, filter, func(item map[string]types.AttributeValue) bool {
		_, works := item[attrWork]
		return !works
	})
}

// AddWork makes a group wait for the report of an hour. It returns false if the group is not
// CREATED any more, or waits already.
//
//	UpdateItem  PK = ORG#<org>, SK = GROUP#<id>   1 round trip, 6 write units under 1 KB
func (t *Table) AddWork(ctx context.Context, g *metering.Group, due time.Time) (added bool, err error) {
	org, entitlement, id := metering.OrgID(g.OrganizationID), metering.EntitlementID(g.EntitlementID), metering.GroupID(g.ID)
	u := newUpdate()
	u.set(attrWork, text(workKey(org, entitlement)))
	u.set(attrDue, text(dueKey(due, org, entitlement, id)))
	condition := u.name("status") + " = " + u.value(text(string(metering.StatusCreated))) + " AND attribute_not_exists(" + u.name(attrWork) + ")"
	_, added, err = t.updateItem(ctx, "enqueue a group", u.input(ctx, t.name, itemKey(orgKey(org), groupKey(id)), condition))
	return added, err
}
