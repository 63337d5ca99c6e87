package table

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/metering"
)

// An API key is two items. Its record is in a partition of its own and is found by the hash alone.
// Its place is in the partition of its organization and has only a primary key. One transaction
// writes both. Later changes are made to the record only.

func apiKeyItemKey(hash auth.Hash) map[string]types.AttributeValue {
	return itemKey(apiKeyPrefix+hash.String(), apiKeySK)
}

// APIKey returns the record of the key with that hash, read consistently: a revocation takes effect
// at once. It returns NotFound if no such key exists. What can't be read of the key is named in the
// record.
//
//	GetItem  PK = KEY#<hash>, SK = KEY   1 round trip, 1 read unit
func (t *Table) APIKey(ctx context.Context, hash auth.Hash) (auth.Record, error) {
	out, err := t.client.GetItem(ctx, &dynamodb.GetItemInput{
		TableName:              &t.name,
		Key:                    apiKeyItemKey(hash),
		ConsistentRead:         aws.Bool(true),
		ReturnConsumedCapacity: wantUnits(ctx),
	})
	if err != nil {
		return auth.Record{}, storageError("read the API key", err)
	}
	countRead(ctx, out.ConsumedCapacity)
	if out.Item == nil {
		return auth.Record{}, noSuchKey(hash)
	}
	return itemAPIKey(out.Item), nil
}

func noSuchKey(hash auth.Hash) error {
	return metering.Errorf(metering.NotFound, "there is no key %s", hash.ID())
}

// APIKeyUsed stores the hour as the key's last use, unless a later one is stored.
//
//	UpdateItem  PK = KEY#<hash>, SK = KEY   1 round trip, 1 write unit
func (t *Table) APIKeyUsed(ctx context.Context, hash auth.Hash, hour time.Time) error {
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

// APIKeys returns the organization's keys, ended ones too, oldest first, read consistently. What
// can't be read of a key is named in its record, and all other keys are still listed. This holds
// for its place too: a place that is not the hash of a key has a record with a zero Hash. A place
// whose record does not exist, or is another organization's, has a record of which only the Hash is
// known.
//
//	Query         PK = ORG#<org>,            1 round trip, 1 read unit per 50 keys or so
//	              begins_with(SK, KEY#)
//	BatchGetItem  PK = KEY#<hash>, SK = KEY  1 round trip for 100 keys, 1 read unit a key
//	              for each
func (t *Table) APIKeys(ctx context.Context, org metering.OrgID) ([]auth.Record, error) {
	places, err := t.apiKeyPlaces(ctx, org, "")
	if err != nil {
		return nil, err
	}
	var records []auth.Record
	var hashes []auth.Hash
	for _, place := range places {
		if hash, ok := hashOfPlace(place); ok {
			hashes = append(hashes, hash)
		} else {
			records = append(records, auth.Record{
				Organization: string(org), Unreadable: []string{auth.WholeRecord, attrSK + " " + metering.Quote(place)},
			})
		}
	}
	for chunk := range slices.Chunk(hashes, maxBatchGet) {
		of, err := t.apiKeysOf(ctx, org, chunk)
		if err != nil {
			return nil, err
		}
		records = append(records, of...)
	}
	slices.SortFunc(records, func(a, b auth.Record) int {
		if c := a.CreationTime.Compare(b.CreationTime); c != 0 {
			return c
		}
		return strings.Compare(a.Hash.String(), b.Hash.String())
	})
	return records, nil
}

// FindAPIKeys returns the hashes of the organization's keys whose id begins with digits, ended ones
// too. It reads no record, so an unreadable record does not make it fail.
//
//	Query  PK = ORG#<org>, begins_with(SK, KEY#<digits>)
//	1 round trip, 1 read unit per 50 keys or so
func (t *Table) FindAPIKeys(ctx context.Context, org metering.OrgID, digits string) ([]auth.Hash, error) {
	places, err := t.apiKeyPlaces(ctx, org, digits)
	if err != nil {
		return nil, err
	}
	var hashes []auth.Hash
	for _, place := range places {
		if hash, ok := hashOfPlace(place); ok {
			hashes = append(hashes, hash)
		}
	}
	return hashes, nil
}

// apiKeyPlaces returns the sort keys of the organization's places whose hash begins with digits.
func (t *Table) apiKeyPlaces(ctx context.Context, org metering.OrgID, digits string) ([]string, error) {
	query := &dynamodb.QueryInput{
		TableName:              &t.name,
		KeyConditionExpression: aws.String("PK = :org AND begins_with(SK, :key)"),
		ExpressionAttributeValues: map[string]types.AttributeValue{
			":org": text(orgKey(org)), ":key": text(apiKeyPrefix + digits),
		},
		ConsistentRead:         aws.Bool(true),
		Limit:                  aws.Int32(maxBatchGet),
		ReturnConsumedCapacity: wantUnits(ctx),
	}
	var places []string
	for {
		page, err := t.client.Query(ctx, query)
		if err != nil {
			return nil, storageError("list the API keys", err)
		}
		countRead(ctx, page.ConsumedCapacity)
		for _, item := range page.Items {
			r := itemReader{item: item}
			places = append(places, r.text(attrSK))
		}
		if page.LastEvaluatedKey == nil {
			return places, nil
		}
		query.ExclusiveStartKey = page.LastEvaluatedKey
	}
}

// hashOfPlace returns the hash in a place's sort key, as newAPIKey writes it.
func hashOfPlace(place string) (hash auth.Hash, ok bool) {
	hash, ok = auth.ParseHash(strings.TrimPrefix(place, apiKeyPrefix))
	return hash, ok && place == apiKeyPrefix+hash.String()
}

// apiKeysOf reads the keys that have a place in the organization, at most maxBatchGet.
func (t *Table) apiKeysOf(ctx context.Context, org metering.OrgID, hashes []auth.Hash) ([]auth.Record, error) {
	var keys []map[string]types.AttributeValue
	found := map[auth.Hash]auth.Record{}
	for _, hash := range hashes {
		keys = append(keys, apiKeyItemKey(hash))
		found[hash] = auth.Record{Hash: hash, Organization: string(org), Unreadable: []string{auth.WholeRecord}}
	}
	items, err := t.batchGet(ctx, "read the API keys", keys)
	if err != nil {
		return nil, err
	}
	for _, item := range items {
		if record := itemAPIKey(item); record.Organization == string(org) || isNowhere(&record) {
			found[record.Hash] = record
		}
	}
	return slices.Collect(maps.Values(found)), nil
}

// isNowhere reports whether a record does not name an organization. Then only the organization that
// has its place has the key.
func isNowhere(r *auth.Record) bool {
	_, err := metering.StoredOrgID(r.Organization)
	return err != nil
}

// AddAPIKey stores a new key.
//
//	TransactWriteItems  both items, attribute_not_exists(PK)   1 round trip, 4 write units
//
// The SDK marks the transaction, so DynamoDB recognizes a retry whose first response was lost.
func (t *Table) AddAPIKey(ctx context.Context, r *auth.Record) error {
	return t.writeAPIKeys(ctx, "store the API key", t.newAPIKey(r))
}

// RotateAPIKey stores a new key that replaces an old one of the same organization. The old key ends
// at the time given. It returns NotFound if the organization has no such key, or if the old key was
// revoked or rotated.
//
//	TransactWriteItems  as AddAPIKey, and an update of the old key   1 round trip, 6 write units
func (t *Table) RotateAPIKey(ctx context.Context, old auth.Hash, ends time.Time, r *auth.Record) error {
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

// newAPIKey returns the writes of the two items of a new key.
func (t *Table) newAPIKey(r *auth.Record) []types.TransactWriteItem {
	item := apiKeyItemKey(r.Hash)
	item["organizationID"] = text(r.Organization)
	item["scopes"] = text(r.Scopes.String())
	item["label"] = text(r.Label)
	item["createdBy"] = text(r.CreatedBy)
	item["creationTime"] = text(metering.FormatTime(r.CreationTime))
	if !r.ExpiryTime.IsZero() {
		item["expiryTime"] = text(metering.FormatTime(r.ExpiryTime))
	}
	place := itemKey(orgKey(metering.OrgID(r.Organization)), apiKeyPrefix+r.Hash.String())
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

// RevokeAPIKey ends a key of the organization for good and returns its record, even if parts of it
// can't be read. A key that was revoked before stays as it is. It returns NotFound if the
// organization has no such key. A key whose record does not name an organization can be revoked for
// any organization.
//
//	UpdateItem  PK = KEY#<hash>, SK = KEY   1 round trip, 1 write unit;
//	            2 if the record does not say whose the key is
//
// A retry after a lost response finds its own time and operator, and so does the caller.
func (t *Table) RevokeAPIKey(ctx context.Context, org metering.OrgID, hash auth.Hash, now time.Time, by string) (auth.Record, error) {
	update := &dynamodb.UpdateItemInput{
		TableName:           &t.name,
		Key:                 apiKeyItemKey(hash),
		UpdateExpression:    aws.String("SET revocationTime = :now, revokedBy = :by"),
		ConditionExpression: aws.String("organizationID = :org AND attribute_not_exists(revocationTime)"),
		ExpressionAttributeValues: map[string]types.AttributeValue{
			":now": text(metering.FormatTime(now)), ":by": text(by), ":org": text(org),
		},
		ReturnValues:                        types.ReturnValueAllNew,
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
		ReturnConsumedCapacity:              wantUnits(ctx),
	}
	for {
		out, err := t.client.UpdateItem(ctx, update)
		if err == nil {
			countWrite(ctx, out.ConsumedCapacity)
			return itemAPIKey(out.Attributes), nil
		}
		item, ok := failedCondition(err)
		if !ok {
			return auth.Record{}, storageError("revoke the API key", err)
		}
		found := itemAPIKey(item)
		switch {
		case item == nil || found.Organization != string(org) && !isNowhere(&found):
			return auth.Record{}, noSuchKey(hash)
		case found.State(now) == auth.Revoked:
			return found, nil
		}
		update.ConditionExpression = aws.String("attribute_exists(PK) AND attribute_not_exists(revocationTime)")
		delete(update.ExpressionAttributeValues, ":org")
	}
}

// EndAPIKey makes a key of the organization end at the time given, or sooner if it would anyway. It
// returns NotFound if the organization has no such key, or if the key was revoked or ends sooner.
//
//	UpdateItem  PK = KEY#<hash>, SK = KEY   1 round trip, 1 write unit
func (t *Table) EndAPIKey(ctx context.Context, org metering.OrgID, hash auth.Hash, ends time.Time) error {
	out, err := t.client.UpdateItem(ctx, &dynamodb.UpdateItemInput{
		TableName:        &t.name,
		Key:              apiKeyItemKey(hash),
		UpdateExpression: aws.String("SET expiryTime = :ends"),
		ConditionExpression: aws.String("organizationID = :org AND attribute_not_exists(revocationTime) AND " +
			"(attribute_not_exists(expiryTime) OR expiryTime >= :ends)"),
		ExpressionAttributeValues: map[string]types.AttributeValue{
			":ends": text(metering.FormatTime(ends)), ":org": text(org),
		},
		ReturnConsumedCapacity: wantUnits(ctx),
	})
	if err == nil {
		countWrite(ctx, out.ConsumedCapacity)
		return nil
	}
	if _, ok := failedCondition(err); ok {
		return metering.Errorf(metering.NotFound, "there is no key %s to end: it is not there, or it was revoked or ends sooner meanwhile", hash.ID())
	}
	return storageError("end the API key", err)
}

// knownAttributes are those of a key's record.
var knownAttributes = []string{
	attrPK, attrSK, "organizationID", "scopes", "label", "createdBy", "creationTime", "expiryTime", "lastUsedTime",
	auth.RevocationAttribute, "revokedBy", "replacedBy",
}

// itemAPIKey decodes a key's item. Attributes that can't be read, or are not known, are named in
// the record.
func itemAPIKey(item map[string]types.AttributeValue) auth.Record {
	var record auth.Record
	r := itemReader{item: item}
	record.Hash, _ = auth.ParseHash(strings.TrimPrefix(r.text(attrPK), apiKeyPrefix)) // the item was requested by it
	unreadable := func(name string) { record.Unreadable = append(record.Unreadable, name) }
	for _, member := range []struct {
		name     string
		optional bool
		value    *string
	}{
		{"organizationID", false, &record.Organization},
		{"label", false, &record.Label},
		{"createdBy", false, &record.CreatedBy},
		{"revokedBy", true, &record.RevokedBy},
		{"replacedBy", true, &record.ReplacedBy},
	} {
		r := itemReader{item: item}
		if member.optional && !r.has(member.name) {
			continue
		}
		if *member.value = r.text(member.name); r.err != nil || member.name == "organizationID" && isNowhere(&record) {
			unreadable(member.name)
		}
	}
	for _, member := range []struct {
		name     string
		optional bool
		value    *time.Time
	}{
		{"creationTime", false, &record.CreationTime},
		{"expiryTime", true, &record.ExpiryTime},
		{"lastUsedTime", true, &record.LastUsedTime},
		{auth.RevocationAttribute, true, &record.RevocationTime},
	} {
		r := itemReader{item: item}
		if member.optional && !r.has(member.name) {
			continue
		}
		if at := r.time(member.name); r.err != nil || at.IsZero() { // a zero time is none
			unreadable(member.name)
		} else {
			*member.value = at
		}
	}
	scopes := itemReader{item: item}
	var ok bool
	if record.Scopes, record.UnknownScopes, ok = auth.ReadScopes(scopes.text("scopes")); !ok {
		unreadable("scopes")
	}
	for name := range item {
		if !slices.Contains(knownAttributes, name) {
			record.UnknownAttributes = append(record.UnknownAttributes, name)
		}
	}
	slices.Sort(record.UnknownAttributes)
	return record
}
