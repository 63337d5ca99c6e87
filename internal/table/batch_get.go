package table

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/dynamoclient"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table/listjson"
)

// maxBatchGet is the max number of items of a BatchGetItem.
const maxBatchGet = 100

// batchGet returns the items that exist of those with the keys, at most maxBatchGet, read
// consistently, in any order.
//
//	BatchGetItem   1 round trip, and more while DynamoDB leaves keys unprocessed: because the items
//	               have more than 16 MB, or the table is throttled
func (t *Table) batchGet(ctx context.Context, doing string, keys []map[string]types.AttributeValue) (items []map[string]types.AttributeValue, err error) {
	for attempt := 0; len(keys) > 0; attempt++ {
		out, err := t.client.BatchGetItem(ctx, &dynamodb.BatchGetItemInput{
			RequestItems: map[string]types.KeysAndAttributes{
				t.name: {Keys: keys, ConsistentRead: aws.Bool(true)},
			},
			ReturnConsumedCapacity: wantUnits(ctx),
		})
		if err != nil {
			return nil, storageError(doing, err)
		}
		for i := range out.ConsumedCapacity {
			countRead(ctx, &out.ConsumedCapacity[i])
		}
		items = append(items, out.Responses[t.name]...)
		if keys = out.UnprocessedKeys[t.name].Keys; len(keys) > 0 {
			if err := pause(ctx, attempt); err != nil {
				return nil, storageError(doing, err)
			}
		}
	}
	return items, nil
}

// batchGetTexts is batchGet for strings of the organization's items, which may be large: it reads
// them from DynamoDB's response, since the SDK's decoding takes longer than all the rest of a
// validation. It calls take as listjson.EachText does.
func (t *Table) batchGetTexts(ctx context.Context, doing string, org metering.OrgID, sortKeys, names []string, take func(values [][]byte) error) error {
	response, ok := t.answers.Get().(*[]byte)
	if !ok {
		response = new([]byte)
	}
	defer t.answers.Put(response)
	partition := text(orgKey(org))
	for attempt := 0; len(sortKeys) > 0; attempt++ {
		keys := make([]map[string]types.AttributeValue, len(sortKeys))
		for i, sk := range sortKeys {
			keys[i] = map[string]types.AttributeValue{attrPK: partition, attrSK: text(sk)}
		}
		*response = (*response)[:0]
		if _, err := t.client.BatchGetItem(dynamoclient.TakeAnswer(ctx, response), &dynamodb.BatchGetItemInput{
			RequestItems: map[string]types.KeysAndAttributes{
				t.name: {Keys: keys, ConsistentRead: aws.Bool(true)},
			},
			ReturnConsumedCapacity: wantUnits(ctx),
		}); err != nil {
			return storageError(doing, err)
		}
		beside, err := listjson.EachText(*response, names, take)
		if err != nil {
			return storageError(doing, err)
		}
		countUnits(ctx, beside.Units, 0)
		if sortKeys = beside.Unprocessed; len(sortKeys) > 0 {
			if err := pause(ctx, attempt); err != nil {
				return storageError(doing, err)
			}
		}
	}
	return nil
}
