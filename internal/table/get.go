package table

import (
	"context"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// Group returns a group, read consistently. It returns NotFound if it does not exist.
//
//	GetItem  PK = ORG#<org>, SK = GROUP#<id>   1 round trip, 1 read unit per 4 KB
func (t *Table) Group(ctx context.Context, org metering.OrgID, id metering.GroupID) (metering.Group, error) {
	group, _, err := t.group(ctx, org, id)
	return group, err
}

// group is Group with its item.
func (t *Table) group(ctx context.Context, org metering.OrgID, id metering.GroupID) (metering.Group, map[string]types.AttributeValue, error) {
	item, err := t.getItem(ctx, "read a group", itemKey(orgKey(org), groupKey(id)))
	if err != nil {
		return metering.Group{}, nil, err
	}
	if item == nil {
		return metering.Group{}, nil, noSuchGroup(id, "")
	}
	group, err := itemGroup(item)
	return group, item, err
}

// getItem reads an item, consistently; it is nil if it does not exist.
func (t *Table) getItem(ctx context.Context, doing string, key map[string]types.AttributeValue) (map[string]types.AttributeValue, error) {
	out, err := t.client.GetItem(ctx, &dynamodb.GetItemInput{
		TableName: &t.name, Key: key, ConsistentRead: aws.Bool(true), ReturnConsumedCapacity: wantUnits(ctx),
	})
	if err != nil {
		return nil, storageError(doing, err)
	}
	countRead(ctx, out.ConsumedCapacity)
	return out.Item, nil
}

// configNumber is the version of the config of the terms, as a group stores it.
func configNumber(terms *metering.Terms) *types.AttributeValueMemberN {
	return number(strconv.Itoa(terms.Config.Version))
}
