// Package table is the single DynamoDB table: its keys, its items, and one file for each access
// pattern with its cost on top. docs/data-model.md shows the whole data model.
//
// Every function accepts the organization and reads and writes only its partitions. The exception
// is API keys: they are looked up by their hash before the organization is known. Nothing scans the
// table. Failures are returned as metering.Error: Unavailable if another attempt may succeed,
// Internal if not.
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

	serials   serials
	terms     termsCache
	parsed    parsedTerms
	described describedTable

	answers sync.Pool // of *[]byte, for List: allocating a megabyte costs as much as reading it
}

// New returns the Table with that name, which template.yaml defines.
func New(client *dynamodb.Client, name string) *Table { return &Table{client: client, name: name} }

// units are the capacity units that the calls under one context consumed.
type units struct {
	mu          sync.Mutex
	read, write float64
}

type unitsKey struct{}

// CountUnits returns a context and a function that returns the units that calls under the context
// have consumed so far, indexes included.
func CountUnits(ctx context.Context) (counting context.Context, consumed func() (read, write float64)) {
	u := new(units)
	return context.WithValue(ctx, unitsKey{}, u), u.consumed
}

// wantUnits asks DynamoDB for the units of a call only if the context counts them.
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

// Operation identifies a conditional write. If the first attempt was applied and its response was
// lost, the SDK's retry fails its own condition. If the failed condition finds the operation's own
// id, the write has succeeded.
type Operation [16]byte

// NewOperation returns a random, unique operation id.
func NewOperation() (o Operation) {
	rand.Read(o[:]) // never fails
	return o
}

func (o Operation) value() *types.AttributeValueMemberB {
	return &types.AttributeValueMemberB{Value: o[:]}
}

// failedCondition returns the item that a failed condition found, nil if none existed; ok is false
// if err is not a failed condition.
func failedCondition(err error) (found map[string]types.AttributeValue, ok bool) {
	failed, ok := errors.AsType[*types.ConditionalCheckFailedException](err)
	if !ok {
		return nil, false
	}
	return failed.Item, true
}

// isMine reports whether the attribute of the item holds the operation's id.
func isMine(item map[string]types.AttributeValue, attribute string, operation Operation) bool {
	stored, ok := item[attribute].(*types.AttributeValueMemberB)
	return ok && string(stored.Value) == string(operation[:])
}

// invalid reports whether DynamoDB refuses the request whatever is stored, and returns its message.
// Of the requests made here, that is one that would make an item too large.
func invalid(err error) (message string, ok bool) {
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok || api.ErrorCode() != "ValidationException" {
		return "", false
	}
	return api.ErrorMessage(), true
}

// storageError converts the error of a failed call to a domain error.
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

// unavailable reports whether the failure is temporary: time ran out, the table is throttled, or
// the network or DynamoDB failed more often than the client retries.
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
	// The SDK's other errors are a request that could not be built, which is a defect here, or one
	// without a usable response.
	_, ofSDK := errors.AsType[*smithy.OperationError](err)
	_, unwritten := errors.AsType[*smithy.SerializationError](err)
	_, invalid := errors.AsType[*smithy.InvalidParamsError](err)
	return ofSDK && !unwritten && !invalid
}

// Ping returns an error if the table can't be read.
//
//	GetItem of an item that does not exist   1 round trip, 0.5 read units
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
