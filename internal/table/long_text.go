package table

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// A long text is one that an item of 400 KB may not hold, such as the records of an hour of 100,000
// dimensions. What does not fit is divided into pieces, items of their own, whose keys name the
// operation that wrote them. They are written before the item that names the operation: until then
// nobody sees them, and afterwards they never change. Pieces that no item names any more are not
// deleted; only texts that hardly occur have pieces.

const (
	// maxPiece is how many bytes of a text an item holds. Source: DynamoDB's 400 KB, and room for
	// the keys.
	maxPiece = 350_000

	attrPieces = "pieces" // how many the text of the item has; absent if it has none
	attrPiece  = "piece"
)

// pieceKey is the sort key of a piece of the text of an item.
func pieceKey(sk string, operation []byte, n int) string {
	return fmt.Sprintf("%s#%s#%03d", sk, hex.EncodeToString(operation), n)
}

// setLongText makes the text an attribute of the item, which the operation writes. If it has more
// than most bytes, which are at most maxPiece, it returns the pieces, which have to be written
// first.
func setLongText(item map[string]types.AttributeValue, attribute string, long []byte, most int, operation Operation) (pieces []map[string]types.AttributeValue) {
	item[attrOperation] = operation.value()
	if len(long) <= most {
		item[attribute] = text(string(long))
		return nil
	}
	pk, sk := item[attrPK], item[attrSK].(*types.AttributeValueMemberS).Value
	for len(long) > 0 {
		end := min(maxPiece, len(long))
		for end < len(long) && !utf8.RuneStart(long[end]) {
			end--
		}
		pieces = append(pieces, map[string]types.AttributeValue{
			attrPK: pk, attrSK: text(pieceKey(sk, operation[:], len(pieces))), attrPiece: text(string(long[:end])),
		})
		long = long[end:]
	}
	item[attrPieces] = number(strconv.Itoa(len(pieces)))
	return pieces
}

// putPieces writes pieces.
//
//	PutItem for each   1 write unit per KB
func (t *Table) putPieces(ctx context.Context, doing string, pieces []map[string]types.AttributeValue) error {
	for _, piece := range pieces {
		out, err := t.client.PutItem(ctx, &dynamodb.PutItemInput{TableName: &t.name, Item: piece, ReturnConsumedCapacity: wantUnits(ctx)})
		if err != nil {
			return storageError(doing, err)
		}
		countWrite(ctx, out.ConsumedCapacity)
	}
	return nil
}

// readLongTexts gives each item that has pieces its text. The error of pieces that are missing is
// reports.ErrNewer.
//
//	BatchGetItem of up to 100 pieces, if there are any   1 read unit per 4 KB
func (t *Table) readLongTexts(ctx context.Context, doing, attribute string, items []map[string]types.AttributeValue) error {
	var keys []map[string]types.AttributeValue
	for _, item := range items {
		for _, sk := range pieceKeys(item) {
			keys = append(keys, map[string]types.AttributeValue{attrPK: item[attrPK], attrSK: text(sk)})
		}
	}
	if len(keys) == 0 {
		return nil
	}
	pieces, err := t.getAll(ctx, doing, keys)
	if err != nil {
		return err
	}
	for _, item := range items {
		pk, _ := item[attrPK].(*types.AttributeValueMemberS)
		parts := pieceKeys(item)
		if len(parts) == 0 {
			continue
		}
		var whole strings.Builder
		for _, sk := range parts {
			r := strictReader{itemReader{item: pieces[[2]string{pk.Value, sk}]}}
			whole.WriteString(r.text(attrPiece))
			if err := r.newer("a piece of a text"); err != nil {
				return err
			}
		}
		item[attribute] = text(whole.String())
		delete(item, attrPieces)
	}
	return nil
}

// pieceKeys are the sort keys of the pieces of an item. An item whose attributes can't be read has
// none: its text is missing.
func pieceKeys(item map[string]types.AttributeValue) (keys []string) {
	r := itemReader{item: item}
	if !r.has(attrPieces) {
		return nil
	}
	sk, n := r.text(attrSK), r.int32(attrPieces)
	operation, ok := item[attrOperation].(*types.AttributeValueMemberB)
	if r.err != nil || !ok {
		return nil
	}
	for i := range int(n) {
		keys = append(keys, pieceKey(sk, operation.Value, i))
	}
	return keys
}

// getAll is batchGet for any number of keys. It returns the items by PK and SK.
func (t *Table) getAll(ctx context.Context, doing string, keys []map[string]types.AttributeValue) (map[[2]string]map[string]types.AttributeValue, error) {
	all := make(map[[2]string]map[string]types.AttributeValue, len(keys))
	for batch := range slices.Chunk(keys, maxBatchGet) {
		items, err := t.batchGet(ctx, doing, batch)
		if err != nil {
			return nil, err
		}
		for _, item := range items {
			r := itemReader{item: item}
			all[[2]string{r.text(attrPK), r.text(attrSK)}] = item
		}
	}
	return all, nil
}
