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
	return t.groupsWhere(ctx, org, filter, func(map[string]types.AttributeValue) bool { return true })
}

// groupsWhere is Groups of those items that keep accepts.
func (t *Table) groupsWhere(ctx context.Context, org metering.OrgID, filter metering.GroupFilter, keep func(map[string]types.AttributeValue) bool) iter.Seq2[*metering.Group, error] {
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
				if !keep(item) {
					continue
				}
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
	return t.countGroups(ctx, org, metering.GroupFilter{})
}

// CountFailed counts the groups of the organization that are REPORT_FAILED and were created on that
// day or later.
//
//	Query  byStatus, COUNT   as CountGroups
func (t *Table) CountFailed(ctx context.Context, org metering.OrgID, from metering.Day) (int, error) {
	return t.countGroups(ctx, org, metering.GroupFilter{Status: metering.StatusReportFailed, StartDate: from})
}

func (t *Table) countGroups(ctx context.Context, org metering.OrgID, filter metering.GroupFilter) (int, error) {
	query, _ := newGroupQuery(org, filter)
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
