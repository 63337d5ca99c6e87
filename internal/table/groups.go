package table

import (
	"context"
	"iter"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// Groups are the organization's groups that match the filter, newest first, ties by id, descending.
// They end at the first error, unless it is that of a group that can't be read: then the next
// groups follow.
//
//	Query  as List   1 round trip and about 128 read units per 1 MB
//
// Groups is for callers that need groups whole and exact in memory; clients read groups by List.
func (t *Table) Groups(ctx context.Context, org metering.OrgID, filter metering.GroupFilter) iter.Seq2[*metering.Group, error] {
	return func(yield func(*metering.Group, error) bool) {
		query, possible := newGroupQuery(org, filter)
		if !possible {
			return
		}
		input := query.input(ctx, t.name)
		for {
			page, err := t.client.Query(ctx, input)
			if err != nil {
				yield(nil, storageError("read groups", err))
				return
			}
			countRead(ctx, page.ConsumedCapacity)
			for _, item := range page.Items {
				group, err := itemGroup(item)
				if err != nil {
					if !yield(nil, err) {
						return
					}
					continue
				}
				if (query.metaInfo == nil || query.metaInfo.Matches(group.MetaInfo.Document())) && !yield(&group, nil) {
					return
				}
			}
			if input.ExclusiveStartKey = page.LastEvaluatedKey; input.ExclusiveStartKey == nil {
				return
			}
		}
	}
}

// CountGroups counts all groups of the organization.
//
//	Query  byTime, COUNT   a round trip and about 128 read units per 1 MB
func (t *Table) CountGroups(ctx context.Context, org metering.OrgID) (int, error) {
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
