package table

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
)

// localRegion is the Region in the ARN of a table of DynamoDB Local, whatever the client's is.
const localRegion = "ddblocal"

// IsLocal reports whether the table is in DynamoDB Local.
//
//	DescribeTable   1 round trip
func (t *Table) IsLocal(ctx context.Context) (bool, error) {
	out, err := t.client.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: &t.name})
	if err != nil {
		return false, storageError("describe the table", err)
	}
	name, err := arn.Parse(aws.ToString(out.Table.TableArn))
	return err == nil && name.Region == localRegion, nil
}
