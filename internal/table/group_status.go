package table

import (
	"context"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// groupStatus is a status of a group with every attribute that follows from it. All that writes a
// status writes a groupStatus, so that no attribute is forgotten: a group is in byWork exactly
// while it waits to be reported, and has problems only while it is INVALID or REPORT_FAILED.
type groupStatus struct {
	org      metering.OrgID
	status   metering.Status
	at       time.Time // of the change
	problems []metering.Problem
	work     *work // nil if the group does not wait to be reported
}

// work is the entry of a group in byWork.
type work struct {
	entitlement metering.EntitlementID
	id          metering.GroupID
	hour        time.Time // of its usage
}

// ofStatus are the attributes that follow from a status.
var ofStatus = []string{"status", attrStatus, "lastUpdateTime", "problems", attrWork, attrDue}

// attributes returns those of ofStatus that the group has.
func (s groupStatus) attributes() map[string]types.AttributeValue {
	has := map[string]types.AttributeValue{
		"status":         text(string(s.status)),
		attrStatus:       text(statusKey(s.org, s.status)),
		"lastUpdateTime": text(metering.FormatTime(s.at)),
	}
	if s.problems != nil {
		has["problems"] = attributeValue(s.problems)
	}
	if s.work != nil {
		has[attrWork] = text(workKey(s.org, s.work.entitlement))
		has[attrDue] = text(dueKey(s.work.hour, s.org, s.work.entitlement, s.work.id))
	}
	return has
}

// putInto makes the status that of an item that is to be put.
func (s groupStatus) putInto(item map[string]types.AttributeValue) {
	has := s.attributes()
	for _, name := range ofStatus {
		delete(item, name)
		if value, ok := has[name]; ok {
			item[name] = value
		}
	}
}

// update is the UpdateExpression of a group that exists.
type update struct {
	sets, removes []string
	adds          []string
	placeholders
}

func newUpdate() *update {
	return &update{placeholders: newPlaceholders()}
}

// setStatus gives the group a status.
func (u *update) setStatus(s groupStatus) {
	has := s.attributes()
	for _, name := range ofStatus {
		if value, ok := has[name]; ok {
			u.set(name, value)
		} else {
			u.remove(name)
		}
	}
}

func (u *update) set(attribute string, value types.AttributeValue) {
	u.sets = append(u.sets, u.name(attribute)+" = "+u.value(value))
}

func (u *update) remove(attribute string) { u.removes = append(u.removes, u.name(attribute)) }

// add adds elements to a set.
func (u *update) add(attribute string, elements types.AttributeValue) {
	u.adds = append(u.adds, u.name(attribute)+" "+u.value(elements))
}

// unconditional is the request without a condition.
func (u *update) unconditional(ctx context.Context, table string, key map[string]types.AttributeValue) *dynamodb.UpdateItemInput {
	input := u.input(ctx, table, key, "")
	input.ConditionExpression = nil
	return input
}

// input is the request: it returns the group after the change or, if the condition fails, as it is.
func (u *update) input(ctx context.Context, table string, key map[string]types.AttributeValue, condition string) *dynamodb.UpdateItemInput {
	return &dynamodb.UpdateItemInput{
		TableName:                           &table,
		Key:                                 key,
		UpdateExpression:                    aws.String(u.expression()),
		ConditionExpression:                 &condition,
		ExpressionAttributeNames:            u.names,
		ExpressionAttributeValues:           u.values,
		ReturnValues:                        types.ReturnValueAllNew,
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
		ReturnConsumedCapacity:              wantUnits(ctx),
	}
}

// updateItem sends an update. It returns the item after it or, if met is false, the one that does
// not meet the condition.
func (t *Table) updateItem(ctx context.Context, doing string, input *dynamodb.UpdateItemInput) (item map[string]types.AttributeValue, met bool, err error) {
	out, err := t.client.UpdateItem(ctx, input)
	if err == nil {
		countWrite(ctx, out.ConsumedCapacity)
		return out.Attributes, true, nil
	}
	if found, failed := failedCondition(err); failed {
		return found, false, nil
	}
	return nil, false, storageError(doing, err)
}

// blind is input without the group in the response: it saves reading it.
func (u *update) blind(ctx context.Context, table string, key map[string]types.AttributeValue, condition string) *dynamodb.UpdateItemInput {
	input := u.input(ctx, table, key, condition)
	input.ReturnValues, input.ReturnValuesOnConditionCheckFailure = "", ""
	return input
}

func (u *update) expression() string {
	var clauses []string
	for _, clause := range []struct {
		keyword string
		parts   []string
	}{{"SET", u.sets}, {"REMOVE", u.removes}, {"ADD", u.adds}} {
		if len(clause.parts) > 0 {
			clauses = append(clauses, clause.keyword+" "+strings.Join(clause.parts, ", "))
		}
	}
	return strings.Join(clauses, " ")
}
