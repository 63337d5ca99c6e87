package table

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
)

// emptyRange is a range of positions in which a request found no group of the list: from the
// position after, excluded, to last, included. docs/listing.md explains its purpose.
type emptyRange struct{ after, last string }

// emptyRangeLife is enough for a client that repeats its request after a second. Until it ends,
// another list from the same start misses new groups in the range.
const emptyRangeLife = time.Minute

// putEmptyRange stores the empty range of requests that start at the position from. It returns
// putForList's laterBy.
//
//	PutItem  PK = ORG#<org>#PAGE#<fingerprint>, SK = AFTER#<from>   1 round trip, 1 write unit
func (t *Table) putEmptyRange(ctx context.Context, partition, from string, e emptyRange, now, expiry time.Time) (laterBy time.Duration, err error) {
	item := itemKey(partition, emptyRangeKey(from))
	item["first"], item["last"] = text(e.after), text(e.last)
	return t.putForList(ctx, item, now, expiry)
}

// emptyRange returns the zero range if none is stored, or if its form is unknown to this version.
//
//	GetItem  PK = ORG#<org>#PAGE#<fingerprint>, SK = AFTER#<from>, consistent
//	1 round trip, 1 read unit
func (t *Table) emptyRange(ctx context.Context, partition, from string, now time.Time) (emptyRange, error) {
	out, err := t.client.GetItem(ctx, &dynamodb.GetItemInput{
		TableName: &t.name, Key: itemKey(partition, emptyRangeKey(from)), ConsistentRead: aws.Bool(true), ReturnConsumedCapacity: wantUnits(ctx),
	})
	if err != nil {
		return emptyRange{}, storageError("read how far a list was read", err)
	}
	countRead(ctx, out.ConsumedCapacity)
	if out.Item == nil {
		return emptyRange{}, nil
	}
	r := itemReader{item: out.Item}
	stored, expiry := emptyRange{r.text("first"), r.text("last")}, r.unixTime(attrExpiry)
	_, isAfter := idOf(stored.after)
	_, isLast := idOf(stored.last)
	if r.err != nil || !isAfter || !isLast || expiry <= now.Unix() {
		return emptyRange{}, nil
	}
	return stored, nil
}

// retry is what a listing knows of the empty range that an earlier request with the same start has
// stored.
type retry struct {
	first  string     // the position at which the first response of this request ended
	loaded bool       // the stored range was looked up
	ahead  emptyRange // the stored range, until reading reaches it
	passed bool       // reading has continued after it
}

// skipEmptyRange moves at to the end of the stored empty range once reading has reached its
// beginning. It looks the range up after the first response, if that contained no group of the
// list. It reports whether reading continues even if its time is over: until the range is passed,
// and for one response after it, so that each retry gets farther.
func (l *listing) skipEmptyRange(ctx context.Context) (skipping bool, err error) {
	r := &l.retry
	if r.first == "" {
		r.first = l.at.position
	}
	if !r.loaded && l.at.offset == l.start.offset {
		if r.ahead, err = l.table.emptyRange(ctx, l.partition, l.start.position, l.request.Now); err != nil {
			return false, err
		}
		r.loaded = true
	}
	if r.ahead == (emptyRange{}) {
		return false, nil
	}
	if l.at.position <= r.ahead.after {
		l.at.position, r.passed, r.ahead = min(l.at.position, r.ahead.last), true, emptyRange{}
	}
	return true, nil
}

// expireEmptyRange expires the range that this listing has passed: a later list from the same start
// must see what has changed in it.
func (l *listing) expireEmptyRange(ctx context.Context) error {
	expired := emptyRange{l.retry.first, l.retry.first}
	_, err := l.table.putEmptyRange(ctx, l.partition, l.start.position, expired, l.request.Now, l.request.Now)
	return err
}
