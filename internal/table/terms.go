package table

import (
	"context"
	"slices"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"golang.org/x/sync/errgroup"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// parallelBatchGets is how many BatchGetItems run at once: each may hold 3 MB.
const parallelBatchGets = 4

// TermsOf returns the terms of each of the entitlements, at least one, read consistently: no cache
// is asked. Those of an entitlement that does not exist have none. The metrics are read if the usage
// has billable records.
//
//	BatchGetItem  PK = ORG#<org>, SK = ENTITLEMENT#<id>, CONNECTION#<partner>
//	              for each 100 items 1 round trip; 1 read unit per 4 KB and item
//	Query         as Config
//	Query         as Metrics, if the usage has billable records
//
// All run at once.
func (t *Table) TermsOf(ctx context.Context, org metering.OrgID, ids []metering.EntitlementID, billable bool) (metering.TermsByEntitlement, error) {
	var config metering.ConfigVersion
	var metrics []metering.BillableMetric
	keys := make([]map[string]types.AttributeValue, 0, len(ids)+len(metering.Partners))
	for _, partner := range metering.Partners {
		keys = append(keys, itemKey(orgKey(org), connectionItemKey(partner)))
	}
	for _, id := range ids {
		keys = append(keys, itemKey(orgKey(org), entitlementItemKey(id)))
	}
	chunks := slices.Collect(slices.Chunk(keys, maxBatchGet))
	found := make([][]map[string]types.AttributeValue, len(chunks))

	reads, ctx := errgroup.WithContext(ctx)
	reads.SetLimit(parallelBatchGets + 2)
	reads.Go(func() (err error) {
		config, err = t.Config(ctx, org)
		return err
	})
	if billable {
		reads.Go(func() (err error) {
			metrics, err = t.Metrics(ctx, org)
			return err
		})
	}
	for i, chunk := range chunks {
		reads.Go(func() (err error) {
			found[i], err = t.batchGet(ctx, "read the catalog", chunk)
			return err
		})
	}
	if err := reads.Wait(); err != nil {
		return nil, err
	}

	items := map[string]map[string]types.AttributeValue{}
	for _, item := range slices.Concat(found...) {
		r := itemReader{item: item}
		items[r.text(attrSK)] = item
	}
	connections := map[metering.Partner]*metering.Connection{}
	for _, partner := range metering.Partners {
		if item := items[connectionItemKey(partner)]; item != nil {
			stored := readConnection(item)
			if stored.Err != nil {
				return nil, stored.Err
			}
			connections[partner] = &stored.Value
		}
	}
	all := make(metering.TermsByEntitlement, len(ids))
	for _, id := range ids {
		terms := &metering.Terms{Config: config, Metrics: metrics}
		all[id] = terms
		item := items[entitlementItemKey(id)]
		if item == nil {
			continue
		}
		stored := readEntitlement(item)
		if stored.Err != nil {
			return nil, stored.Err
		}
		terms.Entitlement, terms.Connection = &stored.Value, connections[stored.Value.Partner]
	}
	return all, nil
}
