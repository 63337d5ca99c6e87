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

// pageStart is where a page of a list begins.
type pageStart struct {
	offset   int    // how many groups are before it
	position string // attrTime of what is before it; empty is the beginning of the list

	// The days of the list, so that a list that began yesterday goes on as it was.
	startDate, endDate metering.Day
}

// isInList reports whether the position is one between the days of the list.
func (s pageStart) isInList() bool {
	from, to := timeRange(s.startDate, s.endDate)
	_, ok := idOf(s.position)
	return ok && from <= s.position && s.position <= to
}

// How long the items of a list are kept. A stretch is for who was told to try again in a second: until it
// expires, what has come into it meanwhile is not seen by another list from the same place.
const (
	checkpointLife = time.Hour
	stretchLife    = time.Minute
)

// fingerprint tells a list from all others of its organization.
func fingerprint(client, query string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d:%s%s", len(client), client, query))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// putCheckpoint keeps where the page at start.offset begins. The last request wins: a client that pages alone
// never misses a group, nor sees one twice. It returns putForList's laterBy.
//
//	PutItem  PK = ORG#<org>#PAGE#<fingerprint>, SK = <offset>, no later request's   1 round trip, 1 write unit
func (t *Table) putCheckpoint(ctx context.Context, partition string, start pageStart, now time.Time) (laterBy time.Duration, err error) {
	item := itemKey(partition, checkpointKey(start.offset))
	item[attrPosition] = text(start.position)
	item["startDate"], item["endDate"] = text(string(start.startDate)), text(string(start.endDate))
	return t.putForList(ctx, item, now, now.Add(checkpointLife))
}

// checkpoint is the nearest to the offset of those that are not after it; ok is false where there is none.
//
//	Query  PK = ORG#<org>#PAGE#<fingerprint>, SK <= <offset>, backwards, consistent   1 round trip, 1 read unit
//
// Time to live deletes late: what has expired is as if it were not there.
func (t *Table) checkpoint(ctx context.Context, partition string, offset int, now time.Time) (start pageStart, ok bool, err error) {
	input := &dynamodb.QueryInput{
		TableName:              &t.name,
		KeyConditionExpression: aws.String("PK = :partition AND SK BETWEEN :first AND :offset"),
		FilterExpression:       aws.String("expiresAt > :now"),
		ScanIndexForward:       aws.Bool(false),
		ConsistentRead:         aws.Bool(true),
		Limit:                  aws.Int32(10), // as many as are likely to fit a read unit, should the nearest have expired
		ReturnConsumedCapacity: wantUnits(ctx),
		ExpressionAttributeValues: map[string]types.AttributeValue{
			":partition": text(partition), ":first": text(checkpointKey(0)), ":offset": text(checkpointKey(offset)), ":now": unixTime(now),
		},
	}
	for {
		out, err := t.client.Query(ctx, input)
		if err != nil {
			return start, false, storageError("read the checkpoints of a list", err)
		}
		countRead(ctx, out.ConsumedCapacity)
		for _, item := range out.Items {
			if start, ok := itemCheckpoint(item); ok {
				return start, true, nil
			}
		}
		if out.LastEvaluatedKey == nil {
			return start, false, nil
		}
		input.ExclusiveStartKey, input.Limit = out.LastEvaluatedKey, nil
	}
}

// itemCheckpoint reports false for one of a form that this version does not know: a checkpoint only saves
// reading.
func itemCheckpoint(item map[string]types.AttributeValue) (start pageStart, ok bool) {
	r := itemReader{item: item}
	offset, errOffset := strconv.Atoi(r.text(attrSK))
	start = pageStart{offset, r.text(attrPosition), metering.Day(r.text("startDate")), metering.Day(r.text("endDate"))}
	for _, day := range []metering.Day{start.startDate, start.endDate} {
		if _, err := metering.ParseDay(string(day)); err != nil && day != "" {
			return start, false
		}
	}
	return start, r.err == nil && errOffset == nil && start.isInList()
}

// stretch is a part of a list that was read and holds nothing of the list: all after first, up to last and
// with it. Who reads on from the same place skips it.
type stretch struct{ first, last string }

// putStretch keeps the stretch of the list that begins at position from. It returns putForList's laterBy.
//
//	PutItem  PK = ORG#<org>#PAGE#<fingerprint>, SK = AFTER#<from>, no later request's   1 round trip, 1 write unit
func (t *Table) putStretch(ctx context.Context, partition, from string, s stretch, now, until time.Time) (laterBy time.Duration, err error) {
	item := itemKey(partition, stretchKey(from))
	item["first"], item["last"] = text(s.first), text(s.last)
	return t.putForList(ctx, item, now, until)
}

// stretch is empty if none is stored, or one of a form that this version does not know.
//
//	GetItem  PK = ORG#<org>#PAGE#<fingerprint>, SK = AFTER#<from>, consistent   1 round trip, 1 read unit
func (t *Table) stretch(ctx context.Context, partition, from string, now time.Time) (s stretch, err error) {
	out, err := t.client.GetItem(ctx, &dynamodb.GetItemInput{
		TableName: &t.name, Key: itemKey(partition, stretchKey(from)), ConsistentRead: aws.Bool(true), ReturnConsumedCapacity: wantUnits(ctx),
	})
	if err != nil {
		return s, storageError("read how far a list was read", err)
	}
	countRead(ctx, out.ConsumedCapacity)
	if out.Item == nil {
		return s, nil
	}
	r := itemReader{item: out.Item}
	stored, expiry := stretch{r.text("first"), r.text("last")}, r.unixTime(attrExpiry)
	_, isFirst := idOf(stored.first)
	_, isLast := idOf(stored.last)
	if r.err != nil || !isFirst || !isLast || expiry <= now.Unix() {
		return s, nil
	}
	return stored, nil
}

const (
	// clockSkew is by how much the clocks of functions may differ: the request that seems to have come so much before
	// the one whose place is there may have come after it. It is half of what a client waits after a request that
	// was Unavailable, so that what of such a request arrives late is still told from what the next one has kept.
	clockSkew = 500 * time.Millisecond

	// mostLate bounds by how much a put can come late, and for how long a clock that was set back is in the way.
	mostLate = time.Minute
)

// putForList never puts in place of what a later request has put: a try that was given up and arrives when the
// client has asked again must not move the page that it was given then. Where it leaves another place there, laterBy
// is by how much that one's request came later, else 0. One who asks alone has given this one up then, and two
// clients must bear it; but where clocks differ by more than clockSkew it may be the last one's, so it is to be logged.
func (t *Table) putForList(ctx context.Context, item map[string]types.AttributeValue, now, until time.Time) (laterBy time.Duration, err error) {
	item[attrExpiry] = unixTime(until)
	item[attrWritten] = unixMilliseconds(now)
	out, err := t.client.PutItem(ctx, &dynamodb.PutItemInput{
		TableName: &t.name, Item: item, ReturnConsumedCapacity: wantUnits(ctx),
		ConditionExpression:      aws.String("attribute_not_exists(#written) OR NOT #written BETWEEN :next AND :last"),
		ExpressionAttributeNames: map[string]string{"#written": attrWritten},
		ExpressionAttributeValues: map[string]types.AttributeValue{
			":next": unixMilliseconds(now.Add(clockSkew + time.Millisecond)), ":last": unixMilliseconds(now.Add(mostLate)),
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
		return 0, storageError("keep the place in a list", err)
	}
	countWrite(ctx, out.ConsumedCapacity)
	return 0, nil
}
