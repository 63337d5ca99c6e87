package table

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// List hands the organization's groups that the filter lets through to add, newest first, ties by
// id, descending; without the first offset of them, and limit of them at most. When add returns
// false it has not taken the group, and the list ends before it. more says that another group
// follows the last one taken.
//
//	Query  byStatus, byBuyer, byEntitlement or byTime, backwards   a round trip and about 128 read units per 1 MB read
//	       partition = ORG#<org>[#...], _time BETWEEN start AND end
//
// What is read is everything from the newest group of the window to the last one taken and one
// more: the groups of the offset too, and those that the filter drops. Where DynamoDB filters, what is
// read goes on to the end of a 1 MB page. The indexes are eventually consistent: a group written a
// moment ago may not be there yet.
func (t *Table) List(ctx context.Context, org string, filter metering.GroupFilter, offset, limit int, add func(*metering.Group) bool) (more bool, err error) {
	query, possible := newGroupQuery(org, filter)
	if !possible {
		return false, nil
	}
	input := query.input(ctx, t.name)
	for {
		if most := offset + limit + 1; query.exact() && 0 < most && most <= maxQueryLimit {
			input.Limit = aws.Int32(int32(most))
		}
		page, err := t.client.Query(ctx, input)
		if err != nil {
			return false, storageError("list groups", err)
		}
		countRead(ctx, page.ConsumedCapacity)
		for _, item := range page.Items {
			group, err := itemGroup(item)
			if err != nil {
				return false, err
			}
			if !query.matches(&group) {
				continue
			}
			if offset > 0 {
				offset--
				continue
			}
			if limit == 0 || !add(&group) {
				return true, nil
			}
			limit--
		}
		if page.LastEvaluatedKey == nil {
			return false, nil
		}
		input.ExclusiveStartKey = page.LastEvaluatedKey
	}
}

// maxQueryLimit is more than one page of 1 MB holds: from there on a limit saves nothing.
const maxQueryLimit = 10_000

// groupQuery is the Query of a filter: the index that serves it and what is filtered on top.
type groupQuery struct {
	index    index
	key      string         // the condition on the index's keys
	filters  []string       // what DynamoDB decides
	metaInfo map[string]any // what matches decides; filters may hold a part of it already
	names    map[string]string
	values   map[string]types.AttributeValue
}

// newGroupQuery chooses the index by the most selective of its filters. It is not possible where no
// stored group can match.
func newGroupQuery(org string, f metering.GroupFilter) (q *groupQuery, possible bool) {
	q = &groupQuery{metaInfo: f.MetaInfo, names: map[string]string{}, values: map[string]types.AttributeValue{}}
	partition := orgKey(org)
	switch {
	case f.BuyerID != "":
		q.index, partition = byBuyer, buyerKey(org, f.BuyerID)
	case f.EntitlementID != "":
		q.index, partition = byEntitlement, entitlementKey(org, f.EntitlementID)
	case f.Status != "":
		q.index, partition = byStatus, statusKey(org, f.Status)
	default:
		q.index = byTime
	}
	from, to := timeRange(f.StartDate, f.EndDate)
	q.key = q.name(q.index.partition) + " = " + q.value(text(partition)) +
		" AND " + q.name(attrTime) + " BETWEEN " + q.value(text(from)) + " AND " + q.value(text(to))

	if f.Status != "" && q.index != byStatus {
		q.filterEqual("status", string(f.Status))
	}
	if f.Partner != "" {
		q.filterEqual("partner", string(f.Partner))
	}
	if f.ProductID != "" {
		q.filterEqual("productID", f.ProductID)
	}
	if f.Source != "" {
		q.filters = append(q.filters, q.name("metaInfo")+"."+q.name("source")+" = "+q.value(text(string(f.Source))))
	}
	return q, q.filterDocument([]string{"metaInfo"}, f.MetaInfo)
}

// exact reports whether every group read is one of the list.
func (q *groupQuery) exact() bool { return len(q.filters) == 0 && len(q.metaInfo) == 0 }

// matches decides what DynamoDB could not.
func (q *groupQuery) matches(g *metering.Group) bool {
	return len(q.metaInfo) == 0 || metering.Contains(g.MetaInfo.Document(), q.metaInfo)
}

func (q *groupQuery) input(ctx context.Context, table string) *dynamodb.QueryInput {
	input := &dynamodb.QueryInput{
		TableName:                 &table,
		IndexName:                 &q.index.name,
		KeyConditionExpression:    &q.key,
		ExpressionAttributeNames:  q.names,
		ExpressionAttributeValues: q.values,
		ScanIndexForward:          aws.Bool(false),
		ReturnConsumedCapacity:    wantUnits(ctx),
	}
	if len(q.filters) > 0 {
		input.FilterExpression = aws.String(strings.Join(q.filters, " AND "))
	}
	return input
}

func (q *groupQuery) filterEqual(attribute, value string) {
	q.filters = append(q.filters, q.name(attribute)+" = "+q.value(text(value)))
}

// Bounds on what of a document DynamoDB is asked to decide: an expression has at most 4 KB, 300
// operators and paths of 32 levels. What is over them is left to metering.Contains.
const (
	maxFilterLeaves     = 50
	maxFilterDepth      = 30
	maxFilterExpression = 3_000
)

// filterDocument adds conditions that every item whose attribute at path contains the document
// meets; they are necessary, not sufficient: arrays are only asked to be arrays, since DynamoDB's
// contains wants whole elements. It is false where no item can.
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
			condition = func(path string) string { return path + " = " + q.value(documentValue(value)) }
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

// name makes a placeholder for the name of an attribute, whatever it holds.
func (q *groupQuery) name(attribute string) string {
	placeholder := "#n" + strconv.Itoa(len(q.names))
	q.names[placeholder] = attribute
	return placeholder
}

func (q *groupQuery) value(v types.AttributeValue) string {
	placeholder := ":v" + strconv.Itoa(len(q.values))
	q.values[placeholder] = v
	return placeholder
}

// CountGroups counts all groups of the organization.
//
//	Query  byTime, COUNT   a round trip and about 128 read units per 1 MB
func (t *Table) CountGroups(ctx context.Context, org string) (int, error) {
	query, _ := newGroupQuery(org, metering.GroupFilter{})
	input := query.input(ctx, t.name)
	input.Select = types.SelectCount
	total := 0
	for {
		page, err := t.client.Query(ctx, input)
		if err != nil {
			return 0, storageError("count groups", err)
		}
		countRead(ctx, page.ConsumedCapacity)
		total += int(page.Count)
		if page.LastEvaluatedKey == nil {
			return total, nil
		}
		input.ExclusiveStartKey = page.LastEvaluatedKey
	}
}
