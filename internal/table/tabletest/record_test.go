package tabletest

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// refusal is a transport that refuses each request.
type refusal struct{}

func (refusal) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusBadRequest, Header: http.Header{"Content-Type": {"application/x-amz-json-1.0"}}, ContentLength: -1,
		Body: io.NopCloser(strings.NewReader(`{"__type":"com.amazon.coral.validate#ValidationException","message":"no"}`)),
	}, nil
}

func attributes(pairs ...string) map[string]types.AttributeValue {
	all := map[string]types.AttributeValue{"n": &types.AttributeValueMemberN{Value: "1"}}
	for i := 0; i < len(pairs); i += 2 {
		all[pairs[i]] = &types.AttributeValueMemberS{Value: pairs[i+1]}
	}
	return all
}

func access(action, index, names string, partitions []string) Access {
	return Access{Action: action, Table: "tbl", Index: index, Partitions: partitions, Attributes: strings.Fields(names)}
}

// Each way to name a partition in a request is recorded, whatever placeholders it uses.
func TestRecord_NamesThePartitions(t *testing.T) {
	t.Parallel()
	client := NewClient(recorder{next: refusal{}})
	ctx, requests := Record(t.Context())
	name, index := aws.String("tbl"), aws.String("byBuyer")
	put := &types.Put{TableName: name, Item: attributes("PK", "p", "SK", "s", "_status", "st")}
	update := &types.Update{
		TableName: name, Key: attributes("PK", "u", "SK", "s"), UpdateExpression: aws.String("SET _buyer = :b, other = :b"),
		ExpressionAttributeValues: attributes(":b", "bu"),
	}
	for i, c := range []struct {
		send func() error
		want Request
	}{
		{
			func() error {
				_, err := client.GetItem(ctx, &dynamodb.GetItemInput{TableName: name, Key: attributes("PK", "g", "SK", "s")})
				return err
			},
			Request{Action: "GetItem", Accesses: []Access{access("GetItem", "", "PK SK n", []string{"g"})}},
		},
		{
			func() error {
				_, err := client.PutItem(ctx, &dynamodb.PutItemInput{TableName: name, Item: attributes("PK", "p", "SK", "s", "_buyer", "b", "_entitlement", "e", "x", "y")})
				return err
			},
			Request{Action: "PutItem", Accesses: []Access{access("PutItem", "", "PK SK _buyer _entitlement n x", []string{"p"})}, Written: []string{"b", "e", "p"}},
		},
		{
			func() error {
				_, err := client.UpdateItem(ctx, &dynamodb.UpdateItemInput{
					TableName: name, Key: attributes("PK", "u", "SK", "s"), UpdateExpression: aws.String("SET #a = :a, #b=:b, c = if_not_exists(c, :c)"),
					ConditionExpression: aws.String("attribute_exists(#d.x[0].#a) AND NOT (e BETWEEN :a AND :b OR size(f[1].g) IN (:a))"), ReturnValues: types.ReturnValueAllNew,
					ExpressionAttributeNames: map[string]string{"#a": "status", "#b": "_status", "#d": "D"}, ExpressionAttributeValues: attributes(":a", "A", ":b", "B", ":c", "C"),
				})
				return err
			},
			Request{Action: "UpdateItem", Accesses: []Access{{"UpdateItem", "tbl", "", []string{"u"}, strings.Fields("D PK SK _status c e f n status"), "ALL_NEW"}}, Written: []string{"B"}},
		},
		{
			func() error {
				_, err := client.UpdateItem(ctx, &dynamodb.UpdateItemInput{
					TableName: name, Key: attributes("PK", "u", "SK", "s"), UpdateExpression: aws.String("SET _status = if_not_exists(other, :b)"),
					ExpressionAttributeValues: attributes(":b", "B"),
				})
				return err
			},
			Request{Action: "UpdateItem", Accesses: []Access{access("UpdateItem", "", "PK SK _status n other", []string{"u"})}, Written: []string{""}, Unclear: errors.New("any")},
		},
		{
			func() error {
				_, err := client.DeleteItem(ctx, &dynamodb.DeleteItemInput{TableName: name, Key: attributes("PK", "d", "SK", "s")})
				return err
			},
			Request{Action: "DeleteItem", Accesses: []Access{access("DeleteItem", "", "PK SK n", []string{"d"})}},
		},
		{
			func() error {
				_, err := client.Query(ctx, &dynamodb.QueryInput{
					TableName: name, IndexName: index, KeyConditionExpression: aws.String("#s BETWEEN :x AND :y AND #p = :p"),
					ExpressionAttributeNames:  map[string]string{"#p": "_buyer", "#s": "_time"},
					ExpressionAttributeValues: attributes(":p", "q", ":x", "x", ":y", "y"),
					ExclusiveStartKey:         attributes("PK", "sp", "SK", "ss", "_buyer", "sb", "_time", "st"),
				})
				return err
			},
			Request{Action: "Query", Accesses: []Access{access("Query", "byBuyer", "_buyer _time", []string{"q"})}, StartKey: map[string]string{"PK": "sp", "_buyer": "sb"}},
		},
		{ // only the index's partition matters: the request has none of the table's
			func() error {
				_, err := client.Query(ctx, &dynamodb.QueryInput{
					TableName: name, IndexName: index, KeyConditionExpression: aws.String("PK = :p"), ExpressionAttributeValues: attributes(":p", "q"),
				})
				return err
			},
			Request{Action: "Query", Accesses: []Access{access("Query", "byBuyer", "PK", nil)}},
		},
		{
			func() error {
				_, err := client.Query(ctx, &dynamodb.QueryInput{
					TableName: name, KeyConditionExpression: aws.String("PK=:p AND begins_with(SK, :s)"), ExpressionAttributeValues: attributes(":p", "q", ":s", "s"),
				})
				return err
			},
			Request{Action: "Query", Accesses: []Access{access("Query", "", "PK SK", []string{"q"})}},
		},
		{
			func() error {
				_, err := client.Scan(ctx, &dynamodb.ScanInput{TableName: name, IndexName: index})
				return err
			},
			Request{Action: "Scan", Accesses: []Access{access("Scan", "byBuyer", "", nil)}},
		},
		{
			func() error {
				_, err := client.TransactWriteItems(ctx, &dynamodb.TransactWriteItemsInput{TransactItems: []types.TransactWriteItem{{Put: put}, {Update: update}}})
				return err
			},
			Request{
				Action: "TransactWriteItems", Accesses: []Access{
					access("PutItem", "", "PK SK _status n", []string{"p"}), access("UpdateItem", "", "PK SK _buyer n other", []string{"u"}),
				},
				Written: []string{"bu", "p", "st"},
			},
		},
		{
			func() error {
				_, err := client.BatchGetItem(ctx, &dynamodb.BatchGetItemInput{RequestItems: map[string]types.KeysAndAttributes{
					"tbl": {Keys: []map[string]types.AttributeValue{attributes("PK", "1", "SK", "s"), attributes("PK", "2", "SK", "s")}},
				}})
				return err
			},
			Request{Action: "BatchGetItem", Accesses: []Access{access("BatchGetItem", "", "", []string{"1", "2"})}},
		},
		{
			func() error {
				_, err := client.BatchWriteItem(ctx, &dynamodb.BatchWriteItemInput{RequestItems: map[string][]types.WriteRequest{
					"tbl": {{PutRequest: &types.PutRequest{Item: attributes("PK", "1", "SK", "s")}}, {DeleteRequest: &types.DeleteRequest{Key: attributes("PK", "2", "SK", "s")}}},
				}})
				return err
			},
			Request{Action: "BatchWriteItem", Accesses: []Access{access("BatchWriteItem", "", "", []string{"1", "2"})}, Written: []string{"1"}},
		},
		{
			func() error {
				_, err := client.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: name})
				return err
			},
			Request{Action: "DescribeTable", Accesses: []Access{access("DescribeTable", "", "", nil)}},
		},
		{
			func() error {
				_, err := client.DescribeTimeToLive(ctx, &dynamodb.DescribeTimeToLiveInput{TableName: name})
				return err
			},
			Request{Action: "DescribeTimeToLive", Accesses: []Access{access("DescribeTimeToLive", "", "", nil)}, Unclear: errors.New("any")},
		},
	} {
		before := len(requests())
		if err := c.send(); err == nil {
			t.Fatal("it was not refused")
		}
		sent := requests()[before:]
		if len(sent) != 1 {
			t.Fatalf("case %d: %d requests were recorded", i, len(sent))
		}
		got := sent[0]
		slices.Sort(got.Written)
		equal := cmp.Options{cmpopts.EquateEmpty(), cmpopts.IgnoreFields(Request{}, "Body", "Unclear")}
		if diff := cmp.Diff(c.want, got, equal); diff != "" || len(got.Body) == 0 || (got.Unclear == nil) != (c.want.Unclear == nil) {
			t.Errorf("case %d: -want +got\n%s%v", i, diff, got.Unclear)
		}
	}
}

func TestRecord_HoldsWhatIsUnderIt(t *testing.T) {
	t.Parallel()
	client := NewClient(recorder{next: refusal{}})
	get := &dynamodb.GetItemInput{TableName: aws.String("tbl"), Key: attributes("PK", "g", "SK", "s")}
	outer, outerRequests := Record(t.Context())
	_, innerRequests := Record(outer)
	_, _ = client.GetItem(outer, get)
	_, _ = client.GetItem(t.Context(), get)
	if len(outerRequests()) != 1 || len(innerRequests()) != 0 {
		t.Errorf("%d and %d requests", len(outerRequests()), len(innerRequests()))
	}

	strays := 0
	watched := NewClient(recorder{refusal{}, func(Request) { strays++ }})
	_, _ = watched.GetItem(outer, get)
	if strays != 0 || len(outerRequests()) != 2 {
		t.Errorf("%d strays under a record, which has %d requests", strays, len(outerRequests()))
	}
	if _, _ = watched.GetItem(t.Context(), get); strays != 1 {
		t.Errorf("%d strays of 1", strays)
	}
}
