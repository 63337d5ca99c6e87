package table_test

import (
	"math"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

func TestSerial_LargeNumbersDoNotUseItUp(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	tbl := table.New(client, name)
	want := func(serial int32, limit string) {
		t.Helper()
		if n, err := tbl.Serial(t.Context(), "o1"); err != nil || n != serial {
			t.Errorf("the counter is %d, %v; want %d", n, err, serial)
		}
		out, err := client.GetItem(t.Context(), &dynamodb.GetItemInput{
			TableName: &name, ConsistentRead: aws.Bool(true), Key: map[string]types.AttributeValue{
				"PK": &types.AttributeValueMemberS{Value: "ORG#o1"}, "SK": &types.AttributeValueMemberS{Value: "SERIAL"},
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := out.Item["serialLimit"].(*types.AttributeValueMemberN); got == nil || got.Value != limit {
			t.Errorf("the limit is %v; want %s", out.Item["serialLimit"], limit)
		}
	}
	for _, step := range []struct {
		do     func() error
		serial int32
		limit  string
	}{
		{func() error { return tbl.LimitSerial(t.Context(), "o1", math.MaxInt32) }, 0, "2147483647"},
		{func() error { return tbl.RaiseSerial(t.Context(), "o1", 41) }, 41, "2147483647"},
		{func() error { return tbl.LimitSerial(t.Context(), "o1", 2_100_000_000) }, 41, "2100000000"},
		{func() error { return tbl.LimitSerial(t.Context(), "o1", 2_100_000_001) }, 41, "2100000000"},
		{func() error { return tbl.RaiseSerial(t.Context(), "o1", metering.MaxRaisedSerial) }, 2_000_000_000, "2100000000"},
		{func() error { return tbl.RaiseSerial(t.Context(), "o1", math.MaxInt32) }, 2_000_000_000, "2100000000"},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		want(step.serial, step.limit)
	}
}
