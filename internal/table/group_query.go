package table

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/dynamoclient"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table/listjson"
	"github.com/marketmeter/marketmeter/internal/wire"
)

// groupQuery is the Query of a filter: the index that serves it and the conditions beyond the
// index.
type groupQuery struct {
	org      metering.OrgID
	index    index
	metaInfo *metering.Matcher // what matches decides, nil for nothing; filters may contain a part of it already
	listQuery
}

// newGroupQuery chooses the index by the most selective of its filters. possible is false if no
// stored group can match.
func newGroupQuery(org metering.OrgID, f metering.GroupFilter) (q *groupQuery, possible bool) {
	q = &groupQuery{org: org}
	if len(f.MetaInfo) > 0 {
		q.metaInfo = metering.NewMatcher(f.MetaInfo)
	}
	var partition string
	switch {
	case f.BuyerID != "":
		q.index, partition = byBuyer, buyerKey(org, f.BuyerID)
	case f.EntitlementID != "":
		q.index, partition = byEntitlement, entitlementKey(org, f.EntitlementID)
	case f.Status != "":
		q.index, partition = byStatus, statusKey(org, f.Status)
	default:
		q.index, partition = byTime, orgKey(org)
	}
	q.listQuery = newListQuery(q.index.partition, partition, attrTime, f.StartDate, f.EndDate)

	if f.Status != "" && q.index != byStatus {
		q.filterEqual("status", string(f.Status))
	}
	if f.Partner != "" {
		q.filterEqual("partner", string(f.Partner))
	}
	if f.ProductID != "" {
		q.filterEqual("productID", string(f.ProductID))
	}
	if f.Source != "" {
		q.filters = append(q.filters, q.name("metaInfo")+"."+q.name("source")+" = "+q.value(text(string(f.Source))))
	}
	return q, q.filterDocument([]string{"metaInfo"}, f.MetaInfo)
}

func (q *groupQuery) exact() bool { return len(q.filters) == 0 && q.metaInfo == nil }

// counted is false if matches decides.
func (q *groupQuery) counted() bool { return q.metaInfo == nil }

// matches checks what DynamoDB could not.
func (q *groupQuery) matches(g listjson.Group) (bool, error) {
	if q.metaInfo == nil {
		return true, nil
	}
	stored, err := wire.DecodeDocument(g.MetaInfo)
	return err == nil && q.metaInfo.Matches(stored), err
}

func (q *groupQuery) input(ctx context.Context, table string) *dynamodb.QueryInput {
	input := q.listQuery.input(ctx, table)
	input.IndexName = &q.index.name
	return input
}

// startAfter relies on DynamoDB, which continues from any key between the bounds, whether or not an
// item has it.
func (q *groupQuery) startAfter(input *dynamodb.QueryInput, position string) (ended bool, err error) {
	if position == "" || position < q.from {
		return position != "", nil
	}
	id, ok := idOf(position)
	if !ok {
		return false, storageError("list groups", fmt.Errorf("%q is no position", position))
	}
	input.ExclusiveStartKey = itemKey(orgKey(q.org), groupKey(id))
	input.ExclusiveStartKey[attrTime] = text(position)
	input.ExclusiveStartKey[q.index.partition] = text(q.partition)
	return false, nil
}

func (q *groupQuery) last(key map[string]types.AttributeValue) (string, error) {
	r := itemReader{item: key}
	position := r.text(attrTime)
	return position, r.storedError("a key")
}

func (q *groupQuery) read(ctx context.Context, l *listing, input *dynamodb.QueryInput) (last string, err error) {
	if input.ProjectionExpression == nil {
		q.project(input)
	}
	response, ok := l.table.answers.Get().(*[]byte)
	if !ok {
		response = new([]byte)
	}
	defer l.table.answers.Put(response)
	*response = (*response)[:0]
	if _, err := l.table.client.Query(dynamoclient.TakeAnswer(ctx, response), input); err != nil {
		return "", storageError("list groups", err)
	}
	// The groups of a response take no more bytes than the response.
	l.page.json = slices.Grow(l.page.json, len(*response))
	groups, beside, err := listjson.AppendGroups(l.page.json, *response, l.page.begin, func(g listjson.Group) (bool, error) {
		if l.page.full {
			return false, nil
		}
		if matches, err := q.matches(g); !matches || err != nil {
			return false, err
		}
		return l.take(g), nil
	})
	l.page.json = groups
	if err != nil {
		return "", storageError("list groups", err)
	}
	countUnits(ctx, beside.Units, 0)
	return beside.Last, l.copyEnd()
}

// project requests only the attributes that a list copies. The rest is a third of the data.
func (q *groupQuery) project(input *dynamodb.QueryInput) {
	attributes := listjson.Attributes()
	for i, attribute := range attributes {
		attributes[i] = q.name(attribute)
	}
	input.ProjectionExpression = aws.String(strings.Join(attributes, ","))
}

// Bounds on the part of a document that DynamoDB checks: an expression has at most 4 KB, 300
// operators and paths of 32 levels. metering.Matcher checks the rest.
const (
	maxFilterLeaves     = 50
	maxFilterDepth      = 30
	maxFilterExpression = 3_000
)

// filterDocument adds conditions that every item meets whose attribute at path contains the
// document. They are necessary, not sufficient: an array is only checked to be an array, because
// DynamoDB's contains needs whole elements. It returns false if no item can match.
func (q *groupQuery) filterDocument(path []string, document map[string]any) bool {
	for _, name := range slices.Sorted(maps.Keys(document)) {
		leaf := append(slices.Clone(path), name)
		var condition func(path string) string
		switch value := document[name].(type) {
		case metering.NoNumber:
			return false
		case map[string]any:
			if len(value) > 0 {
				if !q.filterDocument(leaf, value) {
					return false
				}
				continue
			}
			condition = func(path string) string { return "attribute_type(" + path + ", " + q.value(text("M")) + ")" }
		case []any:
			condition = func(path string) string { return "attribute_type(" + path + ", " + q.value(text("L")) + ")" }
		default:
			condition = func(path string) string { return path + " = " + q.value(attributeValue(value)) }
		}
		if q.roomFor(leaf) {
			q.filters = append(q.filters, condition(q.path(leaf)))
		}
	}
	return true
}

func (q *groupQuery) roomFor(leaf []string) bool {
	return len(q.filters) < maxFilterLeaves && len(leaf) <= maxFilterDepth && !slices.Contains(leaf, "") &&
		len(strings.Join(q.filters, " AND "))+len(leaf)*len("#n999.") < maxFilterExpression
}

func (q *groupQuery) path(names []string) string {
	placeholders := make([]string, len(names))
	for i, name := range names {
		placeholders[i] = q.name(name)
	}
	return strings.Join(placeholders, ".")
}
