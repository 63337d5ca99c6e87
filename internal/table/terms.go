package table

import (
	"context"
	"slices"
	"sync"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"golang.org/x/sync/errgroup"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// parallelBatchGets is how many BatchGetItems run at once: each may hold 3 MB.
const parallelBatchGets = 4

// TermsOf returns the terms of each of the entitlements, at least one, read consistently: no cache
// is asked. Those of an entitlement that does not exist have none. The metrics are read if the
// usage has billable records.
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
	connections := map[metering.Partner]connectionRead{}
	for _, partner := range metering.Partners {
		item := items[connectionItemKey(partner)]
		stored := readConnection(item)
		switch {
		case stored.Err != nil:
			return nil, stored.Err
		case stored.Exists():
			connections[partner] = connectionRead{textOf(item, attrConnection), &stored.Value}
		}
	}
	all := make(metering.TermsByEntitlement, len(ids))
	tag := config.Tag()
	for _, id := range ids {
		item := items[entitlementItemKey(id)]
		from := parsedFrom{entitlement: textOf(item, attrJSON), config: tag}
		if terms := t.parsed.find(org, id, from, connections); terms != nil && !billable {
			all[id] = terms
			continue
		}
		terms := &metering.Terms{Config: config, Metrics: metrics}
		all[id] = terms
		stored := readEntitlement(item)
		if stored.Err != nil {
			return nil, stored.Err
		}
		if !stored.Exists() {
			continue
		}
		connection := connections[stored.Value.Partner]
		terms.Entitlement, terms.Connection = &stored.Value, connection.value
		if from.connection = connection.text; !billable && config.Err == nil {
			t.parsed.hold(org, id, from, terms)
		}
	}
	return all, nil
}

// connectionRead is a connection as it is stored and what that says.
type connectionRead struct {
	text  string
	value *metering.Connection
}

// textOf returns the text in an attribute of an item, which may be nil, or "".
func textOf(item map[string]types.AttributeValue, attribute string) string {
	stored, ok := item[attribute].(*types.AttributeValueMemberS)
	if !ok {
		return ""
	}
	return stored.Value
}

// parsedTerms holds terms with what they were made of. Reading and indexing what is stored takes
// longer than judging usage by it. It is no cache of what is stored: that is read for each request,
// and terms are made again if it has changed.
type parsedTerms struct {
	mu   sync.Mutex
	of   map[parsedKey]parsed
	size int // in bytes as stored
}

type parsedKey struct {
	org metering.OrgID
	id  metering.EntitlementID
}

type parsed struct {
	from  parsedFrom
	terms *metering.Terms
}

// parsedFrom is all that terms without metrics depend on.
type parsedFrom struct {
	entitlement, connection string // as stored
	config                  string // its tag
}

func (f *parsedFrom) size() int { return len(f.entitlement) + len(f.connection) }

// find returns the terms that were made of the same; nil if there are none.
func (p *parsedTerms) find(org metering.OrgID, id metering.EntitlementID, from parsedFrom, connections map[metering.Partner]connectionRead) *metering.Terms {
	p.mu.Lock()
	defer p.mu.Unlock()
	found, ok := p.of[parsedKey{org, id}]
	if !ok {
		return nil
	}
	from.connection = connections[found.terms.Entitlement.Partner].text
	if found.from != from {
		return nil
	}
	return found.terms
}

// hold adds terms. If there is no room, it drops all others.
func (p *parsedTerms) hold(org metering.OrgID, id metering.EntitlementID, from parsedFrom, terms *metering.Terms) {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := parsedKey{org, id}
	before := p.of[key]
	p.size += from.size() - before.from.size()
	if p.of == nil || p.size > maxTermsCache {
		p.of, p.size = map[parsedKey]parsed{}, from.size()
	}
	p.of[key] = parsed{from, terms}
}
