package table

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/apikey"
	"github.com/marketmeter/marketmeter/internal/metering"
)

// An API key is two items: what is kept of it, in a partition of its own, which the hash alone
// finds; and its place among the keys of its organization, which holds nothing but its own keys. They
// are written together, once. What changes later is in the first.

func apiKeyItemKey(hash apikey.Hash) map[string]types.AttributeValue {
	return itemKey(apiKeyPrefix+hash.String(), apiKeySK)
}

// APIKey is what is kept of the key with that hash, read consistently: a key that was revoked is
// revoked at once. It returns NotFound where there is none.
//
//	GetItem  PK = KEY#<hash>, SK = KEY   1 round trip, 1 read unit
func (t *Table) APIKey(ctx context.Context, hash apikey.Hash) (apikey.Record, error) {
	out, err := t.client.GetItem(ctx, &dynamodb.GetItemInput{
		TableName:              &t.name,
		Key:                    apiKeyItemKey(hash),
		ConsistentRead:         aws.Bool(true),
		ReturnConsumedCapacity: wantUnits(ctx),
	})
	if err != nil {
		return apikey.Record{}, storageError("read the API key", err)
	}
	countRead(ctx, out.ConsumedCapacity)
	if out.Item == nil {
		return apikey.Record{}, noSuchKey(hash)
	}
	return itemAPIKey(out.Item)
}

func noSuchKey(hash apikey.Hash) error {
	return metering.Errorf(metering.NotFound, "there is no key %s", hash.ID())
}

// APIKeyUsed notes that the key was used in that hour, where no later one is noted.
//
//	UpdateItem  PK = KEY#<hash>, SK = KEY   1 round trip, 1 write unit
func (t *Table) APIKeyUsed(ctx context.Context, hash apikey.Hash, hour time.Time) error {
	out, err := t.client.UpdateItem(ctx, &dynamodb.UpdateItemInput{
		TableName:           &t.name,
		Key:                 apiKeyItemKey(hash),
		UpdateExpression:    aws.String("SET lastUsedTime = :hour"),
		ConditionExpression: aws.String("attribute_exists(PK) AND (attribute_not_exists(lastUsedTime) OR lastUsedTime < :hour)"),
		ExpressionAttributeValues: map[string]types.AttributeValue{
			":hour": text(metering.FormatTime(hour)),
		},
		ReturnConsumedCapacity: wantUnits(ctx),
	})
	if err == nil {
		countWrite(ctx, out.ConsumedCapacity)
		return nil
	}
	if _, ok := failedCondition(err); ok {
		return nil // another request of the hour was first, or the key is gone
	}
	return storageError("note the use of an API key", err)
}

// APIKeys are the organization's keys, ended ones too, oldest first, read consistently.
//
//	Query         PK = ORG#<org>, begins_with(SK, KEY#)   1 round trip, 1 read unit per 50 keys or so
//	BatchGetItem  PK = KEY#<hash>, SK = KEY for each      1 round trip for 100 keys, 1 read unit a key
func (t *Table) APIKeys(ctx context.Context, org string) ([]apikey.Record, error) {
	var records []apikey.Record
	query := &dynamodb.QueryInput{
		TableName:              &t.name,
		KeyConditionExpression: aws.String("PK = :org AND begins_with(SK, :key)"),
		ExpressionAttributeValues: map[string]types.AttributeValue{
			":org": text(orgKey(org)), ":key": text(apiKeyPrefix),
		},
		ConsistentRead:         aws.Bool(true),
		Limit:                  aws.Int32(maxBatchGet),
		ReturnConsumedCapacity: wantUnits(ctx),
	}
	for {
		page, err := t.client.Query(ctx, query)
		if err != nil {
			return nil, storageError("list the API keys", err)
		}
		countRead(ctx, page.ConsumedCapacity)
		more, err := t.apiKeysOf(ctx, org, page.Items)
		if err != nil {
			return nil, err
		}
		records = append(records, more...)
		if page.LastEvaluatedKey == nil {
			break
		}
		query.ExclusiveStartKey = page.LastEvaluatedKey
	}
	slices.SortFunc(records, func(a, b apikey.Record) int {
		if c := a.CreationTime.Compare(b.CreationTime); c != 0 {
			return c
		}
		return strings.Compare(a.Hash.String(), b.Hash.String())
	})
	return records, nil
}

// maxBatchGet is how many items a BatchGetItem takes.
const maxBatchGet = 100

// apiKeysOf reads the keys whose places among the organization's are given, at most maxBatchGet. A place
// that leads to another organization's key is an error: nothing of ours makes one.
func (t *Table) apiKeysOf(ctx context.Context, org string, places []map[string]types.AttributeValue) ([]apikey.Record, error) {
	var keys []map[string]types.AttributeValue
	for _, place := range places {
		r := itemReader{item: place}
		hash, ok := apikey.ParseHash(strings.TrimPrefix(r.text(attrSK), apiKeyPrefix))
		if !ok {
			return nil, storageError("list the API keys", fmt.Errorf("%v is no hash of a key", place[attrSK]))
		}
		keys = append(keys, apiKeyItemKey(hash))
	}
	var records []apikey.Record
	for try := 0; len(keys) > 0; try++ {
		out, err := t.client.BatchGetItem(ctx, &dynamodb.BatchGetItemInput{
			RequestItems: map[string]types.KeysAndAttributes{
				t.name: {Keys: keys, ConsistentRead: aws.Bool(true)},
			},
			ReturnConsumedCapacity: wantUnits(ctx),
		})
		if err != nil {
			return nil, storageError("read the API keys", err)
		}
		for i := range out.ConsumedCapacity {
			countRead(ctx, &out.ConsumedCapacity[i])
		}
		for _, item := range out.Responses[t.name] {
			record, err := itemAPIKey(item)
			if err != nil {
				return nil, err
			}
			if record.Organization != org {
				return nil, storageError("list the API keys", fmt.Errorf("the key %s is not one of %q", record.Hash.ID(), org))
			}
			records = append(records, record)
		}
		if keys = out.UnprocessedKeys[t.name].Keys; len(keys) > 0 {
			if err := pause(ctx, try); err != nil {
				return nil, storageError("read the API keys", err)
			}
		}
	}
	return records, nil
}

// AddAPIKey stores a new key.
//
//	TransactWriteItems  both items, attribute_not_exists(PK)   1 round trip, 4 write units
//
// The SDK marks the transaction, so that DynamoDB itself tells a retry whose first answer was lost.
func (t *Table) AddAPIKey(ctx context.Context, r *apikey.Record) error {
	return t.writeAPIKeys(ctx, "store the API key", t.newAPIKey(r))
}

// RotateAPIKey stores a new key in place of an old one of the same organization, which ends at the time
// given. It returns NotFound where the organization has no such key, or one that was revoked or rotated.
//
//	TransactWriteItems  as AddAPIKey, and an update of the old key   1 round trip, 6 write units
func (t *Table) RotateAPIKey(ctx context.Context, old apikey.Hash, ends time.Time, r *apikey.Record) error {
	end := types.TransactWriteItem{Update: &types.Update{
		TableName:           &t.name,
		Key:                 apiKeyItemKey(old),
		UpdateExpression:    aws.String("SET expiryTime = :ends, replacedBy = :new"),
		ConditionExpression: aws.String("organizationID = :org AND attribute_not_exists(revocationTime) AND attribute_not_exists(replacedBy)"),
		ExpressionAttributeValues: map[string]types.AttributeValue{
			":ends": text(metering.FormatTime(ends)), ":org": text(r.Organization), ":new": text(r.Hash.ID()),
		},
	}}
	err := t.writeAPIKeys(ctx, "rotate the API key", append(t.newAPIKey(r), end))
	if failedConditionOf(err) {
		return metering.Errorf(metering.NotFound, "there is no key %s to rotate: it is not there, or it was revoked or rotated meanwhile", old.ID())
	}
	return err
}

// newAPIKey are the two items of a key that is not there yet.
func (t *Table) newAPIKey(r *apikey.Record) []types.TransactWriteItem {
	item := apiKeyItemKey(r.Hash)
	item["organizationID"] = text(r.Organization)
	item["scopes"] = text(r.Scopes.String())
	item["label"] = text(r.Label)
	item["createdBy"] = text(r.CreatedBy)
	item["creationTime"] = text(metering.FormatTime(r.CreationTime))
	if !r.ExpiryTime.IsZero() {
		item["expiryTime"] = text(metering.FormatTime(r.ExpiryTime))
	}
	place := itemKey(orgKey(r.Organization), apiKeyPrefix+r.Hash.String())
	var puts []types.TransactWriteItem
	for _, item := range []map[string]types.AttributeValue{item, place} {
		puts = append(puts, types.TransactWriteItem{Put: &types.Put{
			TableName: &t.name, Item: item, ConditionExpression: aws.String("attribute_not_exists(PK)"),
		}})
	}
	return puts
}

func (t *Table) writeAPIKeys(ctx context.Context, doing string, items []types.TransactWriteItem) error {
	out, err := t.client.TransactWriteItems(ctx, &dynamodb.TransactWriteItemsInput{
		TransactItems: items, ReturnConsumedCapacity: wantUnits(ctx),
	})
	if err != nil {
		return storageError(doing, err)
	}
	for i := range out.ConsumedCapacity {
		countWrite(ctx, &out.ConsumedCapacity[i])
	}
	return nil
}

func failedConditionOf(err error) bool {
	cancelled, ok := errors.AsType[*types.TransactionCanceledException](err)
	return ok && slices.ContainsFunc(cancelled.CancellationReasons, func(r types.CancellationReason) bool {
		return aws.ToString(r.Code) == "ConditionalCheckFailed"
	})
}

// RevokeAPIKey ends a key of the organization for good and returns what is kept of it. One that has
// been revoked stays as it is. It returns NotFound where the organization has no such key.
//
//	UpdateItem  PK = KEY#<hash>, SK = KEY   1 round trip, 1 write unit
func (t *Table) RevokeAPIKey(ctx context.Context, org string, hash apikey.Hash, now time.Time, by string) (apikey.Record, error) {
	out, err := t.client.UpdateItem(ctx, &dynamodb.UpdateItemInput{
		TableName: &t.name,
		Key:       apiKeyItemKey(hash),
		UpdateExpression: aws.String("SET revocationTime = if_not_exists(revocationTime, :now), " +
			"revokedBy = if_not_exists(revokedBy, :by)"),
		ConditionExpression: aws.String("organizationID = :org"),
		ExpressionAttributeValues: map[string]types.AttributeValue{
			":now": text(metering.FormatTime(now)), ":by": text(by), ":org": text(org),
		},
		ReturnValues:           types.ReturnValueAllNew,
		ReturnConsumedCapacity: wantUnits(ctx),
	})
	if err == nil {
		countWrite(ctx, out.ConsumedCapacity)
		return itemAPIKey(out.Attributes)
	}
	if _, ok := failedCondition(err); ok {
		return apikey.Record{}, noSuchKey(hash)
	}
	return apikey.Record{}, storageError("revoke the API key", err)
}

func itemAPIKey(item map[string]types.AttributeValue) (apikey.Record, error) {
	r := itemReader{item: item}
	hash, ok := apikey.ParseHash(strings.TrimPrefix(r.text(attrPK), apiKeyPrefix))
	if !ok {
		r.fail(attrPK, "the hash of a key")
	}
	record := apikey.Record{
		Hash:         hash,
		Organization: r.text("organizationID"),
		Label:        r.text("label"),
		CreatedBy:    r.text("createdBy"),
		CreationTime: r.time("creationTime"),
	}
	scopes, err := apikey.ParseScopes(r.text("scopes"))
	if err != nil {
		r.fail("scopes", "names of scopes")
	}
	record.Scopes = scopes
	for name, at := range map[string]*time.Time{
		"expiryTime": &record.ExpiryTime, "lastUsedTime": &record.LastUsedTime, "revocationTime": &record.RevocationTime,
	} {
		if r.has(name) {
			*at = r.time(name)
		}
	}
	for name, value := range map[string]*string{"revokedBy": &record.RevokedBy, "replacedBy": &record.ReplacedBy} {
		if r.has(name) {
			*value = r.text(name)
		}
	}
	if r.err != nil {
		return apikey.Record{}, storageError("read the API key "+hash.ID(), r.err)
	}
	return record, nil
}
