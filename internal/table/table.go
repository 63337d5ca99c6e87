// Package table is the single DynamoDB table: its keys, its items, and one file for each access
// pattern with its cost on top. docs/data-model.md draws the whole.
//
// Every function takes the organization and never leaves its partitions, but for those of API keys,
// which are looked up by their hash before anything tells an organization; nothing scans. Failures
// come out as metering.Error: Unavailable where trying again may help, Internal where it won't.
package table

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"

	"github.com/marketmeter/marketmeter/internal/dynamoclient"
	"github.com/marketmeter/marketmeter/internal/metering"
)

// Table is marketmeter's table in one region.
type Table struct {
	client *dynamodb.Client
	name   string

	answers sync.Pool // of *[]byte, for List: memory for a megabyte costs as much as reading it
}

// New makes a Table of the table with that name, which template.yaml defines.
func New(client *dynamodb.Client, name string) *Table { return &Table{client: client, name: name} }

// units are the capacity units that the calls under one context consumed.
type units struct {
	mu          sync.Mutex
	read, write float64
}

type unitsKey struct{}

// CountUnits returns a context, and what the calls under it have consumed so far, indexes included.
func CountUnits(ctx context.Context) (counting context.Context, consumed func() (read, write float64)) {
	u := new(units)
	return context.WithValue(ctx, unitsKey{}, u), u.consumed
}

// wantUnits asks DynamoDB for the units of a call only where someone counts them.
func wantUnits(ctx context.Context) types.ReturnConsumedCapacity {
	if ctx.Value(unitsKey{}) == nil {
		return types.ReturnConsumedCapacityNone
	}
	return types.ReturnConsumedCapacityTotal
}

func (u *units) consumed() (read, write float64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.read, u.write
}

func countRead(ctx context.Context, c *types.ConsumedCapacity)  { countUnits(ctx, capacity(c), 0) }
func countWrite(ctx context.Context, c *types.ConsumedCapacity) { countUnits(ctx, 0, capacity(c)) }

func capacity(c *types.ConsumedCapacity) float64 {
	if c == nil {
		return 0
	}
	return aws.ToFloat64(c.CapacityUnits)
}

func countUnits(ctx context.Context, read, write float64) {
	u, ok := ctx.Value(unitsKey{}).(*units)
	if !ok {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.read += read
	u.write += write
}

// Operation marks a conditional write. A retry of the SDK whose first try was applied, and its
// answer lost, fails its own condition: on a failed condition that finds its own id, the write had
// succeeded.
type Operation [16]byte

// NewOperation is unlike any other.
func NewOperation() (o Operation) {
	rand.Read(o[:]) // never fails
	return o
}

func (o Operation) value() *types.AttributeValueMemberB {
	return &types.AttributeValueMemberB{Value: o[:]}
}

// failedCondition returns the item that a failed condition found, nil where there was none; ok is
// false where err is no failed condition.
func failedCondition(err error) (found map[string]types.AttributeValue, ok bool) {
	failed, ok := errors.AsType[*types.ConditionalCheckFailedException](err)
	if !ok {
		return nil, false
	}
	return failed.Item, true
}

// isMine reports whether the operation is the one that the attribute names.
func isMine(item map[string]types.AttributeValue, attribute string, operation Operation) bool {
	stored, ok := item[attribute].(*types.AttributeValueMemberB)
	return ok && string(stored.Value) == string(operation[:])
}

// invalid tells a request that DynamoDB refuses to do, whatever is stored, and why: of those made
// here, one by which an item would be too large.
func invalid(err error) (message string, ok bool) {
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok || api.ErrorCode() != "ValidationException" {
		return "", false
	}
	return api.ErrorMessage(), true
}

// storageError makes a failed call a domain error.
func storageError(doing string, err error) error {
	cause := fmt.Errorf("%s: %w", doing, err)
	if unavailable(err) {
		return &metering.Error{
			Code: metering.Unavailable, Message: "the service can't reach its table in time: try again",
			Cause: cause, RetryAfter: time.Second,
		}
	}
	return &metering.Error{Code: metering.Internal, Message: "internal error", Cause: cause}
}

// unavailable tells the failures that pass: time ran out, the table is throttled, the network or
// DynamoDB itself failed more often than the client retries.
func unavailable(err error) bool {
	if _, ok := errors.AsType[*dynamoclient.CredentialsError](err); ok {
		return false
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return true
	}
	if cancelled, ok := errors.AsType[*types.TransactionCanceledException](err); ok {
		return slices.ContainsFunc(cancelled.CancellationReasons, func(r types.CancellationReason) bool {
			return slices.Contains([]string{"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"}, aws.ToString(r.Code))
		})
	}
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		switch api.ErrorCode() {
		case "ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded", "LimitExceededException",
			"TransactionConflictException", "TransactionInProgressException", "InternalServerError", "ServiceUnavailable":
			return true
		}
		response, ok := errors.AsType[*awshttp.ResponseError](err)
		return ok && response.HTTPStatusCode() >= 500
	}
	// What is left of the SDK's is a request that could not be made, which is a defect here, or one
	// that got no answer to use.
	_, ofSDK := errors.AsType[*smithy.OperationError](err)
	_, unwritten := errors.AsType[*smithy.SerializationError](err)
	_, invalid := errors.AsType[*smithy.InvalidParamsError](err)
	return ofSDK && !unwritten && !invalid
}

// Ping tells whether the table can be read.
//
//	GetItem of an item that is not there   1 round trip, 0.5 read units
func (t *Table) Ping(ctx context.Context) error {
	out, err := t.client.GetItem(ctx, &dynamodb.GetItemInput{
		TableName:              &t.name,
		Key:                    itemKey("PING", "PING"),
		ReturnConsumedCapacity: wantUnits(ctx),
	})
	if err != nil {
		return storageError("ping", err)
	}
	countRead(ctx, out.ConsumedCapacity)
	return nil
}
