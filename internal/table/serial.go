package table

import (
	"context"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
)

const attrSerialLimit = "serialLimit"

// RaiseSerial makes the organization's serial counter at least atLeast, which is
// metering.MaxRaisedSerial at most.
//
//	UpdateItem  PK = ORG#<org>, SK = SERIAL   1 round trip, 1 write unit
func (t *Table) RaiseSerial(ctx context.Context, org metering.OrgID, atLeast int32) error {
	return t.moveSerial(ctx, org, "serialID", "<", min(atLeast, metering.MaxRaisedSerial))
}

// LimitSerial makes the organization's serial counter stay below the number of a group that is
// above metering.MaxRaisedSerial, and to which the counter is not raised.
//
//	UpdateItem  PK = ORG#<org>, SK = SERIAL   1 round trip, 1 write unit
func (t *Table) LimitSerial(ctx context.Context, org metering.OrgID, below int32) error {
	return t.moveSerial(ctx, org, attrSerialLimit, ">", below)
}

// moveSerial sets the attribute to n if it is not there yet or, by the comparison, has not come as
// far.
func (t *Table) moveSerial(ctx context.Context, org metering.OrgID, attribute, comparison string, n int32) error {
	out, err := t.client.UpdateItem(ctx, &dynamodb.UpdateItemInput{
		TableName:           &t.name,
		Key:                 itemKey(orgKey(org), serialKey),
		UpdateExpression:    aws.String("SET " + attribute + " = :n"),
		ConditionExpression: aws.String("attribute_not_exists(" + attribute + ") OR " + attribute + " " + comparison + " :n"),
		ExpressionAttributeValues: map[string]types.AttributeValue{
			":n": number(strconv.Itoa(int(n))),
		},
		ReturnConsumedCapacity: wantUnits(ctx),
	})
	if err == nil {
		countWrite(ctx, out.ConsumedCapacity)
		return nil
	}
	if _, ok := failedCondition(err); ok {
		return nil // it is there already, by us or by another
	}
	return storageError("move the serial counter", err)
}

// Serial returns the organization's serial counter: at or above the serialID of each of its groups
// up to metering.MaxRaisedSerial, and 0 if none was given yet. Read consistently.
//
//	GetItem  PK = ORG#<org>, SK = SERIAL   1 round trip, 1 read unit
func (t *Table) Serial(ctx context.Context, org metering.OrgID) (int32, error) {
	out, err := t.client.GetItem(ctx, &dynamodb.GetItemInput{
		TableName:              &t.name,
		Key:                    itemKey(orgKey(org), serialKey),
		ConsistentRead:         aws.Bool(true),
		ReturnConsumedCapacity: wantUnits(ctx),
	})
	if err != nil {
		return 0, storageError("read the serial counter", err)
	}
	countRead(ctx, out.ConsumedCapacity)
	if _, ok := out.Item["serialID"]; !ok {
		return 0, nil
	}
	r := itemReader{item: out.Item}
	n := r.int32("serialID")
	if r.err != nil {
		return 0, storageError("read the serial counter", r.err)
	}
	return n, nil
}
