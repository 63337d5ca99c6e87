package table

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/wire"
)

const (
	connectionPrefix = "CONNECTION#"
	attrConnection   = "connection"
)

func connectionItemKey(partner metering.Partner) string { return connectionPrefix + string(partner) }

// Connection returns the organization's connection to the partner, read consistently: its value is
// without defaults, the JSON, which clients get, has them. It returns NotFound if none exists.
//
//	GetItem  PK = ORG#<org>, SK = CONNECTION#<partner>   1 round trip, 1 read unit per 4 KB
func (t *Table) Connection(ctx context.Context, org metering.OrgID, partner metering.Partner) (metering.Stored[metering.Connection], error) {
	item, err := t.catalogItem(ctx, org, connectionItemKey(partner))
	if err == nil && !isThere(item, attrConnection) {
		err = noSuchConnection(partner)
	}
	if err != nil {
		return metering.Stored[metering.Connection]{}, err
	}
	stored := readConnection(item)
	return stored, stored.Err
}

func noSuchConnection(partner metering.Partner) error {
	return metering.Errorf(metering.NotFound, "there is no connection to %s", partner)
}

func readConnection(item map[string]types.AttributeValue) metering.Stored[metering.Connection] {
	return readCatalog(item, attrConnection, wire.DecodeStoredConnection, effective)
}

// effective is the JSON that clients get of a connection.
func effective(c *metering.Connection) []byte {
	e := c.Effective()
	return wire.AppendConnection(nil, &e)
}

// Connections returns the JSON of the organization's connections as clients get it, in the order of
// their partners, read consistently.
//
//	Query  PK = ORG#<org>, begins_with(SK, CONNECTION#)   1 round trip, 1 read unit per 4 KB
func (t *Table) Connections(ctx context.Context, org metering.OrgID) (list [][]byte, err error) {
	out, err := t.client.Query(ctx, &dynamodb.QueryInput{
		TableName:                 &t.name,
		KeyConditionExpression:    aws.String("PK = :org AND begins_with(SK, :prefix)"),
		ExpressionAttributeValues: map[string]types.AttributeValue{":org": text(orgKey(org)), ":prefix": text(connectionPrefix)},
		ConsistentRead:            aws.Bool(true),
		ReturnConsumedCapacity:    wantUnits(ctx),
	})
	if err != nil {
		return nil, storageError("list connections", err)
	}
	countRead(ctx, out.ConsumedCapacity)
	for _, item := range out.Items { // at most one a partner, of at most 32 KB: far less than 1 MB
		stored := readConnection(item)
		if stored.Err != nil {
			return nil, stored.Err
		}
		if stored.Exists() {
			list = append(list, stored.JSON)
		}
	}
	return list, nil
}

// PutConnection applies the change, stores the connection and returns it. If the change changes
// nothing, nothing is written and written is false. An error of the change is returned as it is.
//
//	GetItem  as Connection
//	PutItem  the same, if its operation is the one read   1 round trip, 1 write unit per KB
func (t *Table) PutConnection(ctx context.Context, org metering.OrgID, change *metering.ConnectionChange) (after metering.Stored[metering.Connection], written bool, err error) {
	key := connectionItemKey(change.Connection.Partner)
	written, err = t.changeCatalog(ctx, org, key, "the connection", func(read map[string]types.AttributeValue) (catalogWrite, error) {
		stored := readConnection(read)
		c, err := change.Apply(&stored)
		if err != nil {
			return catalogWrite{}, err
		}
		json := wire.AppendConnection(nil, &c)
		after = metering.Stored[metering.Connection]{Version: stored.Version, JSON: effective(&c), Value: c}
		if isStored(read, attrConnection, json) {
			return catalogWrite{}, nil
		}
		if err := checkSize("the connection", json); err != nil {
			return catalogWrite{}, err
		}
		after.Version++
		item := itemKey(orgKey(org), key)
		item[attrConnection] = text(string(json))
		return catalogWrite{item: item}, nil
	})
	return after, written, err
}

// DeleteConnection deletes the connection and returns it as it was. It returns NotFound, or
// PreconditionFailed if it does not meet the conditions. The item stays, without the connection, so
// that its versions go on.
//
//	GetItem  as Connection
//	PutItem  the same, if its operation is the one read   1 round trip, 1 write unit per KB
func (t *Table) DeleteConnection(ctx context.Context, org metering.OrgID, partner metering.Partner, conditions metering.Conditions) (was metering.Stored[metering.Connection], err error) {
	key := connectionItemKey(partner)
	_, err = t.changeCatalog(ctx, org, key, "the connection", func(read map[string]types.AttributeValue) (catalogWrite, error) {
		if was = readConnection(read); !isThere(read, attrConnection) {
			return catalogWrite{}, noSuchConnection(partner)
		}
		if err := metering.CheckConditions(conditions, "the connection", &was); err != nil {
			return catalogWrite{}, err
		}
		return catalogWrite{item: itemKey(orgKey(org), key)}, was.Err
	})
	return was, err
}
