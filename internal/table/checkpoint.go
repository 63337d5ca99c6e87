package table

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"reflect"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// checkpoint is the start of a page of a list. It is stored for clients that page by offset, and a
// cursor holds one. docs/listing.md explains both.
type checkpoint struct {
	offset   int    // how many groups are before it
	position string // attrTime of the last group before it; empty at the beginning of the list

	// The days of the list, so that a list that began yesterday continues with the same days.
	startDate, endDate metering.Day
}

// isInList reports whether the position is between the days of the list.
func (c checkpoint) isInList() bool {
	from, to := timeRange(c.startDate, c.endDate)
	_, ok := idOf(c.position)
	return ok && from <= c.position && c.position <= to
}

const checkpointLife = time.Hour

// fingerprint distinguishes a list from all others of its organization.
func fingerprint(client, query string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d:%s%s", len(client), client, query))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// putCheckpoint stores a checkpoint at its offset, unless a later request has stored one. It
// returns putForList's laterBy.
//
//	PutItem  PK = ORG#<org>#PAGE#<fingerprint>, SK = <offset>   1 round trip, 1 write unit
func (t *Table) putCheckpoint(ctx context.Context, partition string, c checkpoint, now time.Time) (laterBy time.Duration, err error) {
	item := itemKey(partition, checkpointKey(c.offset))
	item[attrPosition] = text(c.position)
	item["startDate"], item["endDate"] = text(string(c.startDate)), text(string(c.endDate))
	return t.putForList(ctx, item, now, now.Add(checkpointLife))
}

// nearestCheckpoint returns the last checkpoint that is not after the offset; ok is false if none
// exists.
//
//	Query  PK = ORG#<org>#PAGE#<fingerprint>, SK <= <offset>, backwards, consistent
//	1 round trip, 1 read unit
//
// Time to live deletes late, so expired checkpoints are filtered out.
func (t *Table) nearestCheckpoint(ctx context.Context, partition string, offset int, now time.Time) (nearest checkpoint, ok bool, err error) {
	input := &dynamodb.QueryInput{
		TableName:              &t.name,
		KeyConditionExpression: aws.String("PK = :partition AND SK BETWEEN :first AND :offset"),
		FilterExpression:       aws.String("expiresAt > :now"),
		ScanIndexForward:       aws.Bool(false),
		ConsistentRead:         aws.Bool(true),
		Limit:                  aws.Int32(10), // as many as are likely to fit a read unit, in case the nearest has expired
		ReturnConsumedCapacity: wantUnits(ctx),
		ExpressionAttributeValues: map[string]types.AttributeValue{
			":partition": text(partition), ":first": text(checkpointKey(0)), ":offset": text(checkpointKey(offset)), ":now": unixTime(now),
		},
	}
	for {
		out, err := t.client.Query(ctx, input)
		if err != nil {
			return nearest, false, storageError("read the checkpoints of a list", err)
		}
		countRead(ctx, out.ConsumedCapacity)
		for _, item := range out.Items {
			if nearest, ok := itemCheckpoint(item); ok {
				return nearest, true, nil
			}
		}
		if out.LastEvaluatedKey == nil {
			return nearest, false, nil
		}
		input.ExclusiveStartKey, input.Limit = out.LastEvaluatedKey, nil
	}
}

// itemCheckpoint reports false for a form that this version does not know: a checkpoint only saves
// reading.
func itemCheckpoint(item map[string]types.AttributeValue) (c checkpoint, ok bool) {
	r := itemReader{item: item}
	key := r.text(attrSK)
	offset, err := strconv.Atoi(key)
	c = checkpoint{offset, r.text(attrPosition), metering.Day(r.text("startDate")), metering.Day(r.text("endDate"))}
	for _, day := range []metering.Day{c.startDate, c.endDate} {
		if _, err := metering.ParseDay(string(day)); err != nil && day != "" {
			return c, false
		}
	}
	return c, r.err == nil && err == nil && key == checkpointKey(offset) && c.isInList()
}

const (
	// clockSkew is the max difference between the clocks of functions. It is half of what a client
	// waits after Unavailable, so that a late write of the first request is still distinguished
	// from one of the retry.
	clockSkew = 500 * time.Millisecond

	// maxLate is the max delay of a put. An item whose request seems even later was written by a
	// clock that has been set back, and is replaced.
	maxLate = time.Minute
)

// putForList stores an item of a list unless a later request has stored another at its key
// (docs/listing.md, "The last request wins"). laterBy is 0 if it has stored the item or found the
// same, else by how much the other request was later. The caller logs that, because a wrong clock
// can be the cause.
func (t *Table) putForList(ctx context.Context, item map[string]types.AttributeValue, now, expiry time.Time) (laterBy time.Duration, err error) {
	item[attrExpiry] = unixTime(expiry)
	item[attrWritten] = unixMilliseconds(now)
	out, err := t.client.PutItem(ctx, &dynamodb.PutItemInput{
		TableName: &t.name, Item: item, ReturnConsumedCapacity: wantUnits(ctx),
		ConditionExpression:      aws.String("attribute_not_exists(#written) OR NOT #written BETWEEN :next AND :last"),
		ExpressionAttributeNames: map[string]string{"#written": attrWritten},
		ExpressionAttributeValues: map[string]types.AttributeValue{
			":next": unixMilliseconds(now.Add(clockSkew + time.Millisecond)), ":last": unixMilliseconds(now.Add(maxLate)),
		},
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
	})
	if found, later := failedCondition(err); later {
		r := itemReader{item: found}
		written := r.unixTime(attrWritten)
		item[attrExpiry], item[attrWritten] = found[attrExpiry], found[attrWritten]
		if reflect.DeepEqual(found, item) {
			return 0, nil
		}
		if r.err != nil {
			return clockSkew, nil // a number that this version does not write, but a later one
		}
		return time.Duration(written-now.UnixMilli()) * time.Millisecond, nil
	}
	if err != nil {
		return 0, storageError("store how far a list was read", err)
	}
	countWrite(ctx, out.ConsumedCapacity)
	return 0, nil
}
