package table

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// An object of the catalog, such as an entitlement, is an item of its organization's partition: its
// JSON in one attribute, and beside it what filters and conditions read. Each write stores its
// operation id. A change is conditional on the id that it has read, so two changes of one object
// come one after the other, and a retry after a lost response finds its own id.

// catalogItem reads an object of the catalog, consistently; the item is nil if it does not exist.
//
//	GetItem  PK = ORG#<org>, SK = sk   1 round trip, 1 read unit per 4 KB
func (t *Table) catalogItem(ctx context.Context, org metering.OrgID, sk string) (map[string]types.AttributeValue, error) {
	return t.getItem(ctx, "read the catalog", itemKey(orgKey(org), sk))
}

const attrVersion = "version" // how often the object was written

// versionOf is the version of an object; 0 if it was never written.
func versionOf(item map[string]types.AttributeValue) int {
	r := itemReader{item: item}
	version, err := strconv.Atoi(r.number(attrVersion))
	if err != nil {
		return 0
	}
	return version
}

// condition is a condition expression, with its names and values.
type condition struct {
	text   string
	names  map[string]string
	values map[string]types.AttributeValue
}

// unchangedSince is the condition that an object is still the item that was read; nil means that
// none existed.
func unchangedSince(item map[string]types.AttributeValue) condition {
	if item == nil {
		return condition{text: "attribute_not_exists(PK)"}
	}
	c := condition{text: "attribute_exists(PK) AND attribute_not_exists(#op)", names: map[string]string{"#op": attrOperation}}
	if item[attrOperation] != nil { // no version writes an item without
		c.text, c.values = "#op = :read", map[string]types.AttributeValue{":read": item[attrOperation]}
	}
	return c
}

// catalogWrite is a write of an object, and other writes that succeed or fail with it.
type catalogWrite struct {
	read   map[string]types.AttributeValue // the item that the change was made from; nil if none existed
	item   map[string]types.AttributeValue // the item to store
	other  []types.TransactWriteItem
	exists error // of a write that is made once: what is wrong if the object exists

	// operation is that of a caller that may repeat the write after Unavailable. If it is zero, the
	// write has its own.
	operation Operation
}

// write reports false if the object was changed since it was read, or if another transaction
// writes the same items. An error of another write of the transaction is returned as
// *otherConditionError.
//
//	PutItem, or TransactWriteItems if there are other writes
func (t *Table) write(ctx context.Context, w catalogWrite) (written bool, err error) {
	operation := w.operation
	if operation == (Operation{}) {
		operation = NewOperation()
	}
	w.item[attrOperation] = operation.value()
	w.item[attrVersion] = number(strconv.Itoa(versionOf(w.read) + 1))
	unchanged := unchangedSince(w.read)
	if len(w.other) == 0 {
		out, err := t.client.PutItem(ctx, &dynamodb.PutItemInput{
			TableName: &t.name, Item: w.item, ConditionExpression: &unchanged.text,
			ExpressionAttributeNames: unchanged.names, ExpressionAttributeValues: unchanged.values,
			ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
			ReturnConsumedCapacity:              wantUnits(ctx),
		})
		if err == nil {
			countWrite(ctx, out.ConsumedCapacity)
			return true, nil
		}
		if found, ok := failedCondition(err); ok {
			if isMine(found, attrOperation, operation) {
				return true, nil
			}
			return false, w.exists
		}
		return false, storageError("write the catalog", err)
	}
	out, err := t.client.TransactWriteItems(ctx, &dynamodb.TransactWriteItemsInput{
		TransactItems: append([]types.TransactWriteItem{{Put: &types.Put{
			TableName: &t.name, Item: w.item, ConditionExpression: &unchanged.text,
			ExpressionAttributeNames: unchanged.names, ExpressionAttributeValues: unchanged.values,
			ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
		}}}, w.other...),
		ReturnConsumedCapacity: wantUnits(ctx),
	})
	if err == nil {
		for i := range out.ConsumedCapacity {
			countWrite(ctx, &out.ConsumedCapacity[i])
		}
		return true, nil
	}
	cancelled, ok := errors.AsType[*types.TransactionCanceledException](err)
	if !ok || len(cancelled.CancellationReasons) != len(w.other)+1 {
		return false, storageError("write the catalog", err)
	}
	reasons := cancelled.CancellationReasons
	if isMine(reasons[0].Item, attrOperation, operation) {
		return true, nil // a retry whose first attempt was applied, and DynamoDB no longer knows it
	}
	if isReason(reasons[0], conditionFailed) {
		return false, w.exists
	}
	for i := range w.other {
		if isReason(reasons[i+1], conditionFailed) {
			return false, &otherConditionError{i, reasons[i+1].Item}
		}
	}
	for i := range reasons {
		if isReason(reasons[i], transactionConflict) {
			return false, nil
		}
	}
	return false, storageError("write the catalog", err)
}

// The codes of a cancelled transaction.
const (
	conditionFailed     = "ConditionalCheckFailed"
	transactionConflict = "TransactionConflict"
)

func isReason(r types.CancellationReason, code string) bool { return aws.ToString(r.Code) == code }

// otherConditionError reports that the condition of another write of a transaction failed.
type otherConditionError struct {
	index int // in catalogWrite.other
	found map[string]types.AttributeValue
}

func (e *otherConditionError) Error() string { return "a condition of the transaction failed" }

// changeCatalog reads the item, makes the write from it and writes, again and again until no other
// change came between or the context ends: then it returns Unavailable and nothing was written. A
// write without an item writes nothing.
func (t *Table) changeCatalog(ctx context.Context, org metering.OrgID, sk, what string, change func(read map[string]types.AttributeValue) (catalogWrite, error)) (written bool, err error) {
	for attempt := 0; ; attempt++ {
		read, err := t.catalogItem(ctx, org, sk)
		if err != nil {
			return false, err
		}
		w, err := change(read)
		if err != nil || w.item == nil {
			return false, err
		}
		w.read = read
		if written, err := t.write(ctx, w); err != nil || written {
			return written, err
		}
		if err := pause(ctx, attempt); err != nil {
			return false, contended(what, err)
		}
	}
}

// addCatalog writes an object that does not exist yet, again and again while other transactions
// write the same items, until the context ends: then it returns Unavailable.
func (t *Table) addCatalog(ctx context.Context, what string, w catalogWrite) error {
	for attempt := 0; ; attempt++ {
		if written, err := t.write(ctx, w); err != nil || written {
			return err
		}
		if err := pause(ctx, attempt); err != nil {
			return contended(what, err)
		}
	}
}

// errExists is the error of an import of an object that exists.
var errExists = errors.New("it exists")

// importCatalog is addCatalog for an import. It reports false if the object exists.
func (t *Table) importCatalog(ctx context.Context, operation Operation, what string, w catalogWrite) (stored bool, err error) {
	w.operation, w.exists = operation, errExists
	err = t.addCatalog(ctx, what, w)
	if errors.Is(err, errExists) {
		return false, nil
	}
	return err == nil, err
}

// take stores an item that names its owner, unless another owner has it. It keeps a value, such as
// marketplace identifiers, unique in the organization.
func (t *Table) take(org metering.OrgID, sk, owner string) types.TransactWriteItem {
	item := itemKey(orgKey(org), sk)
	item[attrOwner] = text(owner)
	return types.TransactWriteItem{Put: &types.Put{
		TableName: &t.name, Item: item,
		ConditionExpression:                 aws.String("attribute_not_exists(PK) OR #owner = :id"),
		ExpressionAttributeNames:            map[string]string{"#owner": attrOwner},
		ExpressionAttributeValues:           map[string]types.AttributeValue{":id": text(owner)},
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
	}}
}

// release deletes an item that take has stored for the owner, if it exists.
func (t *Table) release(org metering.OrgID, sk, owner string) types.TransactWriteItem {
	return types.TransactWriteItem{Delete: &types.Delete{
		TableName: &t.name, Key: itemKey(orgKey(org), sk),
		ConditionExpression:       aws.String("attribute_not_exists(PK) OR #owner = :id"),
		ExpressionAttributeNames:  map[string]string{"#owner": attrOwner},
		ExpressionAttributeValues: map[string]types.AttributeValue{":id": text(owner)},
	}}
}

// ownerIn returns the owner that an item of take names, or "".
func ownerIn(item map[string]types.AttributeValue) string {
	owner, _ := item[attrOwner].(*types.AttributeValueMemberS)
	if owner == nil {
		return ""
	}
	return owner.Value
}

// listCatalog returns the JSON of the organization's objects whose sort keys begin with prefix:
// newest first, ties by id, descending, at most the first end of them. The filter is by attribute;
// none has the status without, if that is not empty.
//
//	Query  PK = ORG#<org>,           1 round trip per 1 MB of all such objects of the
//	       begins_with(SK, prefix)   organization, 1 read unit per 4 KB
func (t *Table) listCatalog(ctx context.Context, org metering.OrgID, prefix, attribute string, filter map[string]string, without string, end int) ([][]byte, error) {
	names := map[string]string{"#json": attribute, "#id": "id", "#time": "creationTime"}
	values := map[string]types.AttributeValue{":org": text(orgKey(org)), ":prefix": text(prefix)}
	var conditions []string
	if without != "" {
		names["#status"], values[":without"] = "status", text(without)
		conditions = append(conditions, "#status <> :without")
	}
	for _, name := range slices.Sorted(maps.Keys(filter)) {
		if value := filter[name]; value != "" {
			names["#"+name], values[":"+name] = name, text(value)
			conditions = append(conditions, "#"+name+" = :"+name)
		}
	}
	input := &dynamodb.QueryInput{
		TableName:                 &t.name,
		KeyConditionExpression:    aws.String("PK = :org AND begins_with(SK, :prefix)"),
		ProjectionExpression:      aws.String("#id, #time, #json"),
		ExpressionAttributeNames:  names,
		ExpressionAttributeValues: values,
		ConsistentRead:            aws.Bool(true),
		ReturnConsumedCapacity:    wantUnits(ctx),
	}
	if len(conditions) > 0 {
		input.FilterExpression = aws.String(strings.Join(conditions, " AND "))
	}
	type row struct{ position, json string }
	var newest []row
	for {
		page, err := t.client.Query(ctx, input)
		if err != nil {
			return nil, storageError("list the catalog", err)
		}
		countRead(ctx, page.ConsumedCapacity)
		for _, item := range page.Items {
			r := itemReader{item: item}
			newest = append(newest, row{r.text("creationTime") + "#" + r.text("id"), r.text(attribute)})
			if r.err != nil {
				return nil, r.storedError("an object in " + attribute)
			}
		}
		slices.SortFunc(newest, func(a, b row) int { return strings.Compare(b.position, a.position) })
		newest = newest[:min(len(newest), end)]
		if input.ExclusiveStartKey = page.LastEvaluatedKey; input.ExclusiveStartKey == nil {
			break
		}
	}
	list := make([][]byte, len(newest))
	for i, r := range newest {
		list[i] = []byte(r.json)
	}
	return list, nil
}

// exportCatalog yields the JSON of all objects of the organization whose sort keys begin with
// prefix, as they are stored, in the order of those keys. The error of one that can't be read is
// yielded in its place; an error of the table ends it.
//
//	Query  PK = ORG#<org>, begins_with(SK, prefix),   1 round trip per 1 MB, 1 read unit per 4 KB
//	       consistent
func exportCatalog[O any](ctx context.Context, t *Table, org metering.OrgID, prefix string, read func(map[string]types.AttributeValue) metering.Stored[O]) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		input := &dynamodb.QueryInput{
			TableName:                 &t.name,
			KeyConditionExpression:    aws.String("PK = :org AND begins_with(SK, :prefix)"),
			ExpressionAttributeValues: map[string]types.AttributeValue{":org": text(orgKey(org)), ":prefix": text(prefix)},
			ConsistentRead:            aws.Bool(true),
			ReturnConsumedCapacity:    wantUnits(ctx),
		}
		for {
			page, err := t.client.Query(ctx, input)
			if err != nil {
				yield(nil, storageError("export the catalog", err))
				return
			}
			countRead(ctx, page.ConsumedCapacity)
			for _, item := range page.Items {
				stored := read(item)
				if stored.Err == nil && !stored.Exists() {
					stored.Err = errors.New("it has no JSON")
				}
				if stored.Err != nil {
					r := itemReader{item: item}
					stored.JSON, stored.Err = nil, fmt.Errorf("the stored item %s can't be read: %w", metering.Quote(r.text("SK")), stored.Err)
				}
				if !yield(stored.JSON, stored.Err) {
					return
				}
			}
			if input.ExclusiveStartKey = page.LastEvaluatedKey; input.ExclusiveStartKey == nil {
				return
			}
		}
	}
}

// contended is the error of a change that lost every race until its time ran out.
func contended(what string, err error) error {
	return &metering.Error{
		Code: metering.Unavailable, Message: what + " is being changed by too many at once: try again",
		Cause: err, RetryAfter: time.Second,
	}
}

// checkSize refuses JSON that is too large to store.
func checkSize(what string, json []byte) error {
	if len(json) > metering.MaxCatalogItem {
		return metering.Errorf(metering.Invalid, "%s would have %d bytes: it must have at most %d", what, len(json), metering.MaxCatalogItem)
	}
	return nil
}

// isThere reports whether the item has an object in the attribute. One whose object was deleted for
// good has none.
func isThere(item map[string]types.AttributeValue, attribute string) bool {
	return item[attribute] != nil
}

// readCatalog reads the object in an attribute of an item. asClientsGetIt is the JSON that clients
// get of it, or nil for what is stored.
func readCatalog[O any](item map[string]types.AttributeValue, attribute string, decode func([]byte) (O, error), asClientsGetIt func(*O) []byte) metering.Stored[O] {
	s := metering.Stored[O]{Version: versionOf(item)}
	if !isThere(item, attribute) {
		return s
	}
	r := itemReader{item: item}
	s.JSON = []byte(r.text(attribute))
	if s.Err = r.err; s.Err == nil {
		s.Value, s.Err = decode(s.JSON)
	}
	if s.Err != nil {
		var none O
		s.Value = none
		r.err = s.Err
		s.Err = r.storedError("an object in " + attribute)
		return s
	}
	if asClientsGetIt != nil {
		s.JSON = asClientsGetIt(&s.Value)
	}
	return s
}

// isStored reports whether the attribute of the item, which may be nil, holds the JSON.
func isStored(item map[string]types.AttributeValue, attribute string, json []byte) bool {
	stored, ok := item[attribute].(*types.AttributeValueMemberS)
	return ok && bytes.Equal([]byte(stored.Value), json)
}
