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

// RaiseSerial raises the organization's serial counter to at least atLeast, but to at most
// metering.MaxRaisedSerial.
//
//	UpdateItem  PK = ORG#<org>, SK = SERIAL   1 round trip, 1 write unit
func (t *Table) RaiseSerial(ctx context.Context, org metering.OrgID, atLeast int32) error {
	return t.moveSerial(ctx, org, "serialID", "<", min(atLeast, metering.MaxRaisedSerial))
}

// LimitSerial keeps the organization's serial counter below the number of a group that is above
// metering.MaxRaisedSerial. The counter is not raised to such a number.
//
//	UpdateItem  PK = ORG#<org>, SK = SERIAL   1 round trip, 1 write unit
func (t *Table) LimitSerial(ctx context.Context, org metering.OrgID, below int32) error {
	return t.moveSerial(ctx, org, attrSerialLimit, ">", below)
}

// moveSerial sets the attribute to n if it does not exist yet, or if its comparison with n holds.
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
		return nil // this or another request has set it already
	}
	return storageError("move the serial counter", err)
}

// Serial returns the organization's serial counter, read consistently. It is at or above the
// serialID of each of its groups up to metering.MaxRaisedSerial, and 0 if no serialID was assigned
// yet.
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
