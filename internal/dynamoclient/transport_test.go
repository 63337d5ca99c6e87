package dynamoclient_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

var key = map[string]types.AttributeValue{
	"PK": &types.AttributeValueMemberS{Value: "a"}, "SK": &types.AttributeValueMemberS{Value: "b"},
}

// Without the check a flipped bit reaches the caller as data, and an empty response as "no such
// item".
func TestSpoiltResponse_IsRetried(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	item := map[string]types.AttributeValue{
		"PK": key["PK"], "SK": key["SK"], "status": &types.AttributeValueMemberS{Value: strings.Repeat("DELETED", 50)},
	}
	if _, err := client.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &name, Item: item}); err != nil {
		t.Fatal(err)
	}
	for how, fault := range map[string]tabletest.Fault{
		"cut": tabletest.Cut, "short": tabletest.Short, "flipped": tabletest.Flip, "empty": tabletest.Empty,
		"lost": tabletest.Lose, "dropped": tabletest.Drop, "without a checksum": withoutChecksum,
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			faulty, faults := tabletest.NewFaults(fault)
			out, err := faulty.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: &name, Key: key})
			if err != nil {
				t.Fatal(err)
			}
			status, ok := out.Item["status"].(*types.AttributeValueMemberS)
			if !ok || status.Value != strings.Repeat("DELETED", 50) {
				t.Errorf("got %v", out.Item)
			}
			if faults.Tries() != 2 {
				t.Errorf("%d tries", faults.Tries())
			}
		})
	}
}

func withoutChecksum(send func() (*http.Response, error)) (*http.Response, error) {
	response, err := send()
	if err == nil {
		response.Header.Del("X-Amz-Crc32")
	}
	return response, err
}

// DynamoDB Local sends no checksum with its errors, so only a cut can be detected.
func TestErrors_KeepTheirType(t *testing.T) {
	t.Parallel()
	_, name := tabletest.Client(t)
	faulty, faults := tabletest.NewFaults(tabletest.Cut)
	missing := name + "-missing"
	_, err := faulty.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: &missing, Key: key})
	if _, ok := errors.AsType[*types.ResourceNotFoundException](err); !ok || faults.Tries() != 2 {
		t.Errorf("after %d tries: %v", faults.Tries(), err)
	}
}

func TestRetries_End(t *testing.T) {
	t.Parallel()
	_, name := tabletest.Client(t)
	faulty, faults := tabletest.NewFaults(slices.Repeat([]tabletest.Fault{tabletest.Empty}, 20)...)
	_, err := faulty.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: &name, Key: key})
	if err == nil || !strings.Contains(err.Error(), "it is empty") || faults.Tries() != 6 {
		t.Errorf("after %d tries: %v", faults.Tries(), err)
	}
}
