package table

import (
	"context"
	"errors"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// Put stores a group that does not exist yet, unchanged. It reports false if a group with its id
// exists, which it does not change, and returns Invalid for a group that is not storable.
//
//	PutItem  PK = ORG#<org>, SK = GROUP#<id>,   1 round trip, 5 write units under 1 KB
//	         attribute_not_exists(PK)
func (t *Table) Put(ctx context.Context, g *metering.Group) (stored bool, err error) {
	return t.PutAs(ctx, NewOperation(), g)
}

// PutAs is Put for a caller that may repeat the call after Unavailable: with the same operation, it
// reports true for the group that an earlier call has stored.
func (t *Table) PutAs(ctx context.Context, operation Operation, g *metering.Group) (stored bool, err error) {
	if err := g.CheckStorable(); err != nil {
		return false, metering.Errorf(metering.Invalid, "%v", err)
	}
	found, err := t.putGroup(ctx, operation, groupItem(g))
	return err == nil && (found == nil || isMine(found, attrOperation, operation)), err
}

// putGroup is putOrFind for a group.
func (t *Table) putGroup(ctx context.Context, operation Operation, item map[string]types.AttributeValue) (found map[string]types.AttributeValue, err error) {
	found, err = t.putOrFind(ctx, operation, item)
	if message, ok := invalid(err); ok { // for a reason that CheckStorable does not know
		return nil, &metering.Error{Code: metering.Invalid, Message: "DynamoDB refuses this group", Cause: errors.New(message)}
	}
	if err != nil {
		return nil, storageError("put group", err)
	}
	return found, nil
}

// putNew stores an item if its key does not exist yet; it reports false if it exists.
func (t *Table) putNew(ctx context.Context, operation Operation, item map[string]types.AttributeValue) (bool, error) {
	found, err := t.putOrFind(ctx, operation, item)
	if err != nil {
		return false, err
	}
	return found == nil || isMine(found, attrOperation, operation), nil
}

// putOrFind stores an item if its key does not exist yet; else it returns the item that exists,
// which may be the operation's own.
func (t *Table) putOrFind(ctx context.Context, operation Operation, item map[string]types.AttributeValue) (found map[string]types.AttributeValue, err error) {
	item[attrOperation] = operation.value()
	out, err := t.client.PutItem(ctx, &dynamodb.PutItemInput{
		TableName:                           &t.name,
		Item:                                item,
		ConditionExpression:                 aws.String("attribute_not_exists(PK)"),
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
		ReturnConsumedCapacity:              wantUnits(ctx),
	})
	if err == nil {
		countWrite(ctx, out.ConsumedCapacity)
		return nil, nil
	}
	if found, ok := failedCondition(err); ok {
		return found, nil
	}
	return nil, err
}
