package table

import (
	"context"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// listQuery is the Query of a partition between two days, newest first. It is of the table itself,
// unless an index is set in its input.
type listQuery struct {
	from, to  string // of the sort key
	partition string
	key       string   // the condition on the keys
	filters   []string // what DynamoDB decides
	placeholders
}

// newListQuery is the Query of the partition, by the names of the keys. The sort keys begin with a
// day or a time.
func newListQuery(partitionKey, partition, sortKey string, start, end metering.Day) listQuery {
	q := listQuery{partition: partition, placeholders: newPlaceholders()}
	q.from, q.to = timeRange(start, end)
	q.key = q.name(partitionKey) + " = " + q.value(text(q.partition)) +
		" AND " + q.name(sortKey) + " BETWEEN " + q.value(text(q.from)) + " AND " + q.value(text(q.to))
	return q
}

func (q *listQuery) input(ctx context.Context, table string) *dynamodb.QueryInput {
	input := &dynamodb.QueryInput{
		TableName:                 &table,
		KeyConditionExpression:    &q.key,
		ExpressionAttributeNames:  q.names,
		ExpressionAttributeValues: q.values,
		ScanIndexForward:          aws.Bool(false),
		ReturnConsumedCapacity:    wantUnits(ctx),
	}
	if len(q.filters) > 0 {
		input.FilterExpression = aws.String(strings.Join(q.filters, " AND "))
	}
	return input
}

func (q *listQuery) filterEqual(attribute, value string) {
	q.filters = append(q.filters, q.name(attribute)+" = "+q.value(text(value)))
}
