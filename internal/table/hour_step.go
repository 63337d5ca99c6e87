package table

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/wire"
)

// maxStep is how many bytes of records, ledger and calls a transaction has; the rest are pieces,
// which are written before it. Source: DynamoDB's 4 MB, half of which is left for daily records.
const maxStep = 2_000_000

// Ledger returns the ledger of an entitlement, read consistently. One that was never written is
// empty. Its error is reports.ErrNewer if this version can't read it in all its parts.
//
//	GetItem  PK = ORG#<org>#BILL#<entitlement>, SK = LEDGER   1 round trip, 1 read unit per 4 KB
func (t *Table) Ledger(ctx context.Context, org metering.OrgID, entitlement metering.EntitlementID) (reports.Ledger, error) {
	item, err := t.getItem(ctx, "read a ledger", itemKey(billKey(org, entitlement), ledgerKey))
	if err != nil || item == nil {
		return reports.Ledger{}, err
	}
	written, err := t.strictText(ctx, "read a ledger", attrLedger, "the ledger", item, attrVersion)
	if err != nil {
		return reports.Ledger{}, err
	}
	ledger, err := wire.DecodeStoredLedger([]byte(written))
	if err != nil {
		return reports.Ledger{}, fmt.Errorf("the ledger: %w", err)
	}
	return ledger, nil
}

// Write stores what a step has made of an hour: the hour, the parts of its records that changed,
// the ledger, the calls and the daily records, all or nothing. It returns reports.ErrChanged if the
// stored hour is not the one that the step began with, or the ledger not the one before, or another
// transaction writes them. If its response is lost, the next attempt of the client finds the
// operation's id in the hour; a step that is written again is ErrChanged.
//
//	TransactWriteItems of the hour, the parts, the   1 round trip, 2 write units per KB of each
//	ledger, the calls and the daily records          item, and 2 of byWork
//	PutItem for each piece before it                 only of texts over 350 KB, or 2 MB in all
func (t *Table) Write(ctx context.Context, s *reports.Step) error {
	const doing = "write an hour"
	w := stepWrite{table: t.name, pk: billKey(s.After.Organization, s.After.Entitlement), operation: NewOperation(), left: maxStep}
	if s.Ledger != nil {
		item := itemKey(w.pk, ledgerKey)
		item[attrVersion] = number(strconv.Itoa(s.Ledger.Version))
		w.put(item, attrLedger, wire.AppendStoredLedger(nil, s.Ledger), s.Ledger.Version-1)
	}
	if len(s.Calls) > 0 {
		w.put(itemKey(w.pk, callsKey(s.After.Start, s.After.Version)), attrCalls, wire.AppendStoredCalls(nil, s.Calls), anyVersion)
	}
	firstChanged := w.putRecords(s.Before, s.After)
	daily, err := t.dailyItems(ctx, s)
	if err != nil {
		return err
	}
	if err := t.putPieces(ctx, doing, w.pieces); err != nil {
		return err
	}
	return t.transactStep(ctx, doing, w.operation, slices.Concat([]types.TransactWriteItem{w.hour(s.Before, s.After, firstChanged)}, w.items, daily))
}

// transactStep writes the items of a step, the first of which is the hour.
func (t *Table) transactStep(ctx context.Context, doing string, operation Operation, items []types.TransactWriteItem) error {
	out, err := t.client.TransactWriteItems(ctx, &dynamodb.TransactWriteItemsInput{TransactItems: items, ReturnConsumedCapacity: wantUnits(ctx)})
	if err == nil {
		for i := range out.ConsumedCapacity {
			countWrite(ctx, &out.ConsumedCapacity[i])
		}
		return nil
	}
	if cancelled, ok := errors.AsType[*types.TransactionCanceledException](err); ok {
		reasons := cancelled.CancellationReasons
		if len(reasons) > 0 && isMine(reasons[0].Item, attrOperation, operation) {
			return nil // a retry whose first attempt was applied, and DynamoDB no longer knows it
		}
		if slices.ContainsFunc(reasons, func(r types.CancellationReason) bool {
			return isReason(r, conditionFailed) || isReason(r, transactionConflict)
		}) {
			return reports.ErrChanged
		}
	}
	return storageError(doing, err)
}

// stepWrite are the writes of a step, except the hour's.
type stepWrite struct {
	table     string
	pk        string
	operation Operation
	items     []types.TransactWriteItem
	pieces    []map[string]types.AttributeValue // to be written before
	left      int                               // how many bytes of texts the transaction may have besides
}

const anyVersion = -1

// put writes an item with a text if the one that is stored has the version; 0 is none.
func (w *stepWrite) put(item map[string]types.AttributeValue, attribute string, long []byte, version int) {
	pieces := setLongText(item, attribute, long, min(maxPiece, w.left), w.operation)
	if len(pieces) == 0 {
		w.left -= len(long)
	}
	w.pieces = append(w.pieces, pieces...)
	w.items = append(w.items, putIf(&w.table, item, version))
}

const isVersion = "#version = :version"

// putIf puts an item if the one that is stored has the version; 0 is none.
func putIf(table *string, item map[string]types.AttributeValue, version int) types.TransactWriteItem {
	put := &types.Put{TableName: table, Item: item}
	switch version {
	case anyVersion:
	case 0:
		put.ConditionExpression = aws.String("attribute_not_exists(PK)")
	default:
		put.ConditionExpression = aws.String(isVersion)
		put.ExpressionAttributeNames = map[string]string{"#version": attrVersion}
		put.ExpressionAttributeValues = map[string]types.AttributeValue{":version": number(strconv.Itoa(version))}
	}
	return types.TransactWriteItem{Put: put}
}

// putRecords writes the parts of the records that have changed, and reports whether the first has.
func (w *stepWrite) putRecords(before, after *reports.Hour) (first bool) {
	if after.Sealed == nil {
		return false
	}
	for part := range partCount(len(after.Sealed.Records)) {
		records := recordsText(after.Sealed, part)
		if before.Sealed != nil && bytes.Equal(records, recordsText(before.Sealed, part)) {
			continue
		}
		item := itemKey(w.pk, recordsKey(after.Start, part))
		item[attrVersion] = number(strconv.Itoa(after.Version))
		w.put(item, attrRecords, records, anyVersion)
		first = first || part == 0
	}
	return first
}

// recordsText is the text of a part of the records.
func recordsText(s *reports.Sealed, part int) []byte {
	records := partOf(s.Records, part)
	if part > 0 {
		s = nil
	}
	return wire.AppendStoredRecords(nil, s, records)
}

// hour changes the hour, if it is the one before. first says that the first part of its records has
// changed.
func (w *stepWrite) hour(before, after *reports.Hour, first bool) types.TransactWriteItem {
	item := hourItem(after, w.operation)
	if first {
		item[attrFirst] = number(strconv.Itoa(after.Version))
	}
	u := newUpdate()
	for _, name := range ofHour {
		value, has := item[name]
		switch {
		case name == attrPK, name == attrSK, name == attrFirst && !first:
		case has:
			u.set(name, value)
		default:
			u.remove(name)
		}
	}
	condition := u.name(attrVersion) + " = " + u.value(number(strconv.Itoa(before.Version)))
	return types.TransactWriteItem{Update: &types.Update{
		TableName: &w.table, Key: itemKey(w.pk, hourKey(after.Start)),
		UpdateExpression: aws.String(u.expression()), ConditionExpression: &condition,
		ExpressionAttributeNames: u.names, ExpressionAttributeValues: u.values,
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
	}}
}

// Calls returns the calls that the steps of an hour have stored, in their order.
//
//	Query  PK = ORG#<org>#BILL#<entitlement>,         1 round trip per 1 MB, 1 read unit per 4 KB
//	       begins_with(SK, HOUR#<hour>#CALLS#)
func (t *Table) Calls(ctx context.Context, p reports.Place) (calls []reports.StoredCall, err error) {
	const doing = "read calls"
	input := &dynamodb.QueryInput{
		TableName:              &t.name,
		KeyConditionExpression: aws.String("PK = :bill AND begins_with(SK, :calls)"),
		ExpressionAttributeValues: map[string]types.AttributeValue{
			":bill": text(billKey(p.Organization, p.Entitlement)), ":calls": text(callsPrefix(p.Hour)),
		},
		ConsistentRead:         aws.Bool(true),
		ReturnConsumedCapacity: wantUnits(ctx),
	}
	for {
		page, err := t.client.Query(ctx, input)
		if err != nil {
			return nil, storageError(doing, err)
		}
		countRead(ctx, page.ConsumedCapacity)
		for _, item := range page.Items {
			if item[attrPiece] != nil {
				continue
			}
			written, err := t.strictText(ctx, doing, attrCalls, "the calls", item)
			if err != nil {
				return nil, err
			}
			some, err := wire.DecodeStoredCalls([]byte(written))
			if err != nil {
				return nil, fmt.Errorf("the calls: %w", err)
			}
			calls = append(calls, some...)
		}
		if input.ExclusiveStartKey = page.LastEvaluatedKey; input.ExclusiveStartKey == nil {
			return calls, nil
		}
	}
}
