package table

import (
	"context"
	"math"
	"strconv"
	"sync"
	"time"

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

// The blocks of serial numbers that a process takes. A process that reports rarely leaves small
// gaps; one that reports much takes a block for each 512 groups.
const (
	minSerialBlock = 8
	maxSerialBlock = 512
	serialBlockFor = time.Minute // a block that is used up sooner doubles the next

	maxSerialOrgs = 1000 // whose blocks a process remembers
)

// noSerialLimit is above every number: serialID has 32 bits.
const noSerialLimit = math.MaxInt32 + 1

// serials are the numbers that this process has taken from the counters and no group has yet.
type serials struct {
	mu     sync.Mutex
	blocks map[metering.OrgID]serialBlock
}

type serialBlock struct {
	next, end int64 // the numbers left are next to end-1
	size      int64 // of the block
	taken     time.Time
	limit     int64 // serialLimit as last seen
}

// newSerials returns n serial numbers for new groups of the organization, in rising order. If no
// more numbers are left, the rest are 0, which means that the group has none.
//
//	nothing, if the process has the numbers;
//	UpdateItem  PK = ORG#<org>, SK = SERIAL   1 round trip, 1 write unit, once a block;
//	                                          2 for the first block if a serialLimit is stored
//
// The update adds to the counter without a read, so several functions never get the same number. A
// lost response costs a block.
func (t *Table) newSerials(ctx context.Context, org metering.OrgID, n int, now time.Time) ([]int32, error) {
	numbers := make([]int32, 0, n)
	t.serials.mu.Lock()
	block := t.serials.blocks[org]
	block.give(&numbers, n)
	if block.size > 0 {
		t.serials.blocks[org] = block
	}
	t.serials.mu.Unlock()
	missing := n - len(numbers)
	if missing == 0 {
		return numbers, nil
	}
	size := int64(minSerialBlock)
	if age := now.Sub(block.taken); block.size > 0 && age >= 0 && age < serialBlockFor {
		size = min(2*block.size, maxSerialBlock)
	}
	taken, err := t.takeSerials(ctx, org, max(size, int64(missing)), block.limit)
	if err != nil {
		return nil, err
	}
	taken.give(&numbers, n)
	taken.size, taken.taken = size, now

	t.serials.mu.Lock()
	defer t.serials.mu.Unlock()
	if t.serials.blocks == nil || len(t.serials.blocks) >= maxSerialOrgs {
		t.serials.blocks = map[metering.OrgID]serialBlock{}
	}
	if left := t.serials.blocks[org]; left.next < left.end {
		taken.next, taken.end = left.next, left.end // another request has taken a block meanwhile
	}
	t.serials.blocks[org] = taken
	return numbers[:n:n], nil
}

// give appends numbers of the block until there are n.
func (b *serialBlock) give(numbers *[]int32, n int) {
	for ; b.next < b.end && len(*numbers) < n; b.next++ {
		*numbers = append(*numbers, int32(b.next)) //nolint:gosec // below noSerialLimit
	}
}

// takeSerials takes up to n numbers from the counter: above serialID and below serialLimit
// (decision 30). limit is the limit that was seen before, or 0.
func (t *Table) takeSerials(ctx context.Context, org metering.OrgID, n, limit int64) (serialBlock, error) {
	if limit == 0 {
		limit = noSerialLimit
	}
	for n > 0 {
		out, err := t.client.UpdateItem(ctx, &dynamodb.UpdateItemInput{
			TableName:        &t.name,
			Key:              itemKey(orgKey(org), serialKey),
			UpdateExpression: aws.String("ADD serialID :n"),
			ConditionExpression: aws.String("(attribute_not_exists(serialID) OR serialID <= :room)" +
				" AND (attribute_not_exists(" + attrSerialLimit + ") OR " + attrSerialLimit + " >= :limit)"),
			ExpressionAttributeValues: map[string]types.AttributeValue{
				":n": number(strconv.FormatInt(n, 10)), ":room": number(strconv.FormatInt(limit-1-n, 10)), ":limit": number(strconv.FormatInt(limit, 10)),
			},
			ReturnValues:                        types.ReturnValueUpdatedNew,
			ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
			ReturnConsumedCapacity:              wantUnits(ctx),
		})
		if err == nil {
			countWrite(ctx, out.ConsumedCapacity)
			r := itemReader{item: out.Attributes}
			last := int64(r.int32("serialID"))
			if r.err != nil {
				return serialBlock{}, storageError("take serial numbers", r.err)
			}
			return serialBlock{next: last - n + 1, end: last + 1, limit: limit}, nil
		}
		found, ok := failedCondition(err)
		if !ok {
			return serialBlock{}, storageError("take serial numbers", err)
		}
		r := itemReader{item: found}
		last := int64(0)
		if r.has("serialID") {
			last = int64(r.int32("serialID"))
		}
		limit = noSerialLimit
		if r.has(attrSerialLimit) {
			limit = min(limit, int64(r.int32(attrSerialLimit)))
		}
		if r.err != nil {
			return serialBlock{}, storageError("take serial numbers", r.err)
		}
		n = min(n, limit-1-last)
	}
	return serialBlock{limit: limit}, nil
}
