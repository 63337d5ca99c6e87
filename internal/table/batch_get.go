package table

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
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
