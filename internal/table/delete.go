package table

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// Delete marks a group DELETED and returns the updated group. If a day is given, the group must
// have been created on that day. It returns NotFound, or Conflict naming the status. A group of
// which a part is billed can't be deleted, even while the rest waits to be reported again.
//
//	UpdateItem  PK = ORG#<org>, SK = GROUP#<id>   1 round trip, 6 write units at 1 KB;
//	                                              7 if the group waits to be reported
//
// The update is conditional on the status. If the condition fails, DynamoDB returns the item, which
// distinguishes NotFound from Conflict. A retry whose first response was lost finds its own
// operation id: DELETED is terminal, so no other change can have followed. The id of the Put stays
// in the item, because the Put's retry may come after the delete.
//
// The item grows only by the delete's operation id, for which a Put leaves room. If a group of an
// earlier version would become too large for an item, the id replaces the Put's, at the cost of
// another round trip. A retry of that Put then takes the group for another operation's.
func (t *Table) Delete(ctx context.Context, org metering.OrgID, id metering.GroupID, created metering.Day, now time.Time) (metering.Group, error) {
	group, err := t.deleteAs(ctx, org, id, created, now, attrDeletion)
	if _, tooLarge := invalid(err); tooLarge {
		return t.deleteAs(ctx, org, id, created, now, attrOperation)
	}
	return group, err
}

// deleteAs is Delete with its operation id in the attribute mark.
func (t *Table) deleteAs(ctx context.Context, org metering.OrgID, id metering.GroupID, created metering.Day, now time.Time, mark string) (metering.Group, error) {
	operation := NewOperation()
	u := newUpdate()
	u.setStatus(groupStatus{org: org, status: metering.StatusDeleted, at: now})
	u.set(mark, operation.value())
	allowed := make([]string, len(metering.Deletable))
	for i, status := range metering.Deletable {
		allowed[i] = u.value(text(string(status)))
	}
	// A retry of a group of which nothing is billed removes its outcomes.
	condition := u.name("status") + " IN (" + strings.Join(allowed, ", ") + ") AND attribute_not_exists(" + u.name(attrOutcomes) + ")"
	if created != "" {
		condition += " AND begins_with(creationTime, " + u.value(text(string(created))) + ")"
	}
	found, deleted, err := t.updateItem(ctx, "delete group", u.input(ctx, t.name, itemKey(orgKey(org), groupKey(id)), condition))
	if err != nil {
		return metering.Group{}, err
	}
	if deleted {
		return itemGroup(found)
	}
	if found == nil {
		return metering.Group{}, noSuchGroup(id, created)
	}
	if isMine(found, mark, operation) {
		return itemGroup(found)
	}
	// Read only what is needed: a newer version may have stored the rest.
	r := itemReader{item: found}
	status, creationTime := r.text("status"), r.time("creationTime")
	switch {
	case r.err != nil:
		return metering.Group{}, r.storedError("a group")
	case created != "" && metering.DayOf(creationTime) != created:
		return metering.Group{}, noSuchGroup(id, created)
	case r.has(attrOutcomes) && slices.Contains(metering.Deletable, metering.Status(status)):
		return metering.Group{}, billedInPart(id, found)
	default:
		return metering.Group{}, metering.Errorf(metering.Conflict,
			"usage record group %s is %s: only a group that is CREATED or INVALID can be deleted", metering.Quote(id), status)
	}
}

// billedInPart is the error for a group of which a part is billed, and the rest waits.
func billedInPart(id metering.GroupID, item map[string]types.AttributeValue) error {
	outcomes, err := outcomesOf(item)
	if err != nil {
		return err
	}
	return metering.Errorf(metering.Conflict,
		"usage record group %s was reported in part: its dimension %s is billed, and the others wait to be reported again; a group can be deleted only if nothing of it is billed",
		metering.Quote(id), metering.Quote(accepted(outcomes)))
}

func noSuchGroup(id metering.GroupID, created metering.Day) error {
	if created != "" {
		return metering.Errorf(metering.NotFound, "there is no usage record group %s created on %s", metering.Quote(id), created)
	}
	return metering.Errorf(metering.NotFound, "there is no usage record group %s", metering.Quote(id))
}
