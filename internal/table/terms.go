package table

import (
	"context"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table/listjson"
	"github.com/marketmeter/marketmeter/internal/wire"
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
	keys := make([]string, 0, len(ids)+len(metering.Partners))
	for _, partner := range metering.Partners {
		keys = append(keys, connectionItemKey(partner))
	}
	for _, id := range ids {
		keys = append(keys, entitlementItemKey(id))
	}
	chunks := slices.Collect(slices.Chunk(keys, maxBatchGet))
	found := make([][]storedText, len(chunks))

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
		reads.Go(func() error {
			return t.batchGetTexts(ctx, "read the catalog", org, chunk, []string{attrSK, attrJSON, attrConnection}, func(values [][]byte) error {
				sk, err := listjson.Unquote(values[0])
				if err != nil {
					return err
				}
				text := values[1]
				if text == nil {
					text = values[2]
				}
				found[i] = append(found[i], t.parsed.text(org, sk, text))
				return nil
			})
		})
	}
	if err := reads.Wait(); err != nil {
		return nil, err
	}

	stored := make(map[string]string, len(keys))
	for _, texts := range found {
		for _, item := range texts {
			stored[item.sk] = item.text
		}
	}
	connections := map[metering.Partner]connectionRead{}
	for i, partner := range metering.Partners {
		text := stored[keys[i]]
		if text == "" {
			continue
		}
		connection, err := readText(text, "a connection", wire.DecodeStoredConnection)
		if err != nil {
			return nil, err
		}
		connections[partner] = connectionRead{text, &connection}
	}
	all := make(metering.TermsByEntitlement, len(ids))
	tag := config.Tag()
	for i, id := range ids {
		sk := keys[len(metering.Partners)+i]
		from := parsedFrom{entitlement: stored[sk], config: tag}
		if terms := t.parsed.find(org, sk, from, connections); terms != nil && !billable {
			all[id] = terms
			continue
		}
		terms := &metering.Terms{Config: config, Metrics: metrics}
		all[id] = terms
		if from.entitlement == "" {
			continue
		}
		entitlement, err := readText(from.entitlement, "an entitlement", wire.DecodeStoredEntitlement)
		if err != nil {
			return nil, err
		}
		connection := connections[entitlement.Partner]
		terms.Entitlement, terms.Connection = &entitlement, connection.value
		if from.connection = connection.text; !billable && config.Err == nil {
			t.parsed.hold(org, sk, from, terms)
		}
	}
	return all, nil
}

// storedText is the string that holds an object of the catalog, as DynamoDB's response spells it.
// It is empty if the item has none.
type storedText struct{ sk, text string }

// readText reads an object of the catalog.
func readText[O any](text, what string, decode func([]byte) (O, error)) (object O, err error) {
	json, err := listjson.Unquote([]byte(text))
	if err == nil {
		object, err = decode(json)
	}
	if err != nil {
		r := itemReader{err: err}
		return object, r.storedError(what)
	}
	return object, nil
}

// connectionRead is a connection as it is stored and what that says.
type connectionRead struct {
	text  string
	value *metering.Connection
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
	sk  string // of the entitlement
}

type parsed struct {
	sk    string
	from  parsedFrom
	terms *metering.Terms
}

// parsedFrom is all that terms without metrics depend on.
type parsedFrom struct {
	entitlement, connection string // as storedText
	config                  string // its tag
}

func (f *parsedFrom) size() int { return len(f.entitlement) + len(f.connection) }

// text returns the text of an item. It is the one that is held, without a copy, if it is the same.
func (p *parsedTerms) text(org metering.OrgID, sk, text []byte) storedText {
	p.mu.Lock()
	held := p.of[parsedKey{org, string(sk)}]
	p.mu.Unlock()
	if held.from.entitlement == string(text) && held.terms != nil {
		return storedText{held.sk, held.from.entitlement}
	}
	return storedText{string(sk), string(text)}
}

// find returns the terms that were made of the same; nil if there are none.
func (p *parsedTerms) find(org metering.OrgID, sk string, from parsedFrom, connections map[metering.Partner]connectionRead) *metering.Terms {
	p.mu.Lock()
	defer p.mu.Unlock()
	found, ok := p.of[parsedKey{org, sk}]
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
func (p *parsedTerms) hold(org metering.OrgID, sk string, from parsedFrom, terms *metering.Terms) {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := parsedKey{org, sk}
	before := p.of[key]
	p.size += from.size() - before.from.size()
	if p.of == nil || p.size > maxTermsCache {
		p.of, p.size = map[parsedKey]parsed{}, from.size()
	}
	p.of[key] = parsed{sk, from, terms}
}
