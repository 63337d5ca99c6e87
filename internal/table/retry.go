package table

import (
	"context"
	"errors"
	"slices"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// Retry validates and converts a group again that is INVALID or REPORT_FAILED, by what is stored
// now, and returns it: CREATED, or INVALID with today's problems. It returns NotFound, or Conflict
// naming the status or the dimension whose outcome has to be resolved first. With a key that has
// retried the group before, it returns the group as it is.
//
//	GetItem     as Group                             1 round trip
//	as TermsOf                                       1 round trip, never from a cache
//	UpdateItem  PK = ORG#<org>, SK = GROUP#<id>      1 round trip, 7 write units at 1 KB, 1 more if
//	                                                 the buyer has changed
//
// The update is conditional on the group being the one that was read. If another request has
// changed it, Retry begins again. The retry's own operation id is in an attribute that nothing but
// another retry changes, so a repetition after a lost response finds it, even if the group was
// claimed meanwhile.
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
		sent := group.AsReported()
		ids, billable := metering.EntitlementsOf([]metering.NewGroup{sent})
		terms, err := t.TermsOf(ctx, org, ids, billable)
		if err != nil {
			return metering.Group{}, err
		}
		of := terms[metering.EntitlementID(group.EntitlementID)]
		judged := of.Judge(&sent, retry.Now)
		if err := group.Judged(of, &judged, retry.Now); err != nil {
			return metering.Group{}, err
		}
		after, changed, err := t.updateRetried(ctx, &group, item, of, retry, operation)
		if err != nil || changed {
			return after, err
		}
		if err := pause(ctx, attempt); err != nil {
			return metering.Group{}, contended("the group", err)
		}
	}
}

// updateRetried stores a group as its retry has made it. It reports false if it is not the item any
// more that was read.
func (t *Table) updateRetried(ctx context.Context, group *metering.Group, read map[string]types.AttributeValue, terms *metering.Terms, retry metering.Retry, operation Operation) (after metering.Group, changed bool, err error) {
	org := metering.OrgID(group.OrganizationID)
	stored, u := groupItem(group), newUpdate()
	usage := group.MetaInfo.Timestamp
	if usage == nil {
		usage = &group.CreationTime
	}
	u.setStatus(statusOf(org, group, usage))
	for _, name := range ofRetry {
		if value, ok := stored[name]; ok {
			u.set(name, value)
		} else {
			u.remove(name)
		}
	}
	metaInfo, _ := stored["metaInfo"].(*types.AttributeValueMemberM)
	for _, name := range []string{"originRecords", "billableRecords"} {
		if value, ok := metaInfo.Value[name]; ok {
			u.sets = append(u.sets, u.name("metaInfo")+"."+u.name(name)+" = "+u.value(value))
		}
	}
	u.set(attrConfig, configNumber(terms))
	u.set(attrRetry, operation.value())
	if retry.Key != nil {
		u.add(attrRetryKeys, &types.AttributeValueMemberBS{Value: [][]byte{retry.Key[:]}})
	}
	condition := u.name("status") + " = " + u.value(read["status"]) + " AND " + u.name("lastUpdateTime") + " = " + u.value(read["lastUpdateTime"])
	if last, ok := read[attrRetry]; ok {
		condition += " AND " + u.name(attrRetry) + " = " + u.value(last)
	} else {
		condition += " AND attribute_not_exists(" + u.name(attrRetry) + ")"
	}
	out, err := t.client.UpdateItem(ctx, u.input(ctx, t.name, itemKey(orgKey(org), groupKey(metering.GroupID(group.ID))), condition))
	if err == nil {
		countWrite(ctx, out.ConsumedCapacity)
		after, err = itemGroup(out.Attributes)
		return after, true, err
	}
	if message, ok := invalid(err); ok {
		return metering.Group{}, false, &metering.Error{
			Code: metering.Invalid, Message: "the group would be too large to store: delete it, and report its usage in several groups", Cause: errors.New(message),
		}
	}
	found, ok := failedCondition(err)
	if !ok {
		return metering.Group{}, false, storageError("retry group", err)
	}
	if isMine(found, attrRetry, operation) { // the response to the first attempt was lost
		return *group, true, nil
	}
	return metering.Group{}, false, nil
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
