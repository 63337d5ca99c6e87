package table

import (
	"context"
	"sync"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// termsCache holds terms that were read at most metering.CatalogAge ago. What is judged by them
// must be judged again, by terms that are read again, if the result is negative: an entitlement
// that does not exist or a problem.
type termsCache struct {
	mu   sync.Mutex
	of   map[termsKey]cachedTerms
	size int // of all that is held, in bytes as stored
}

type termsKey struct {
	org         metering.OrgID
	entitlement metering.EntitlementID
	billable    bool // with the metrics
}

type cachedTerms struct {
	terms *metering.Terms
	read  time.Time // when the read began
	size  int
}

// maxTermsCache is how many bytes, as stored, a process holds. As values they take a few times
// that.
const maxTermsCache = 16 << 20

// cached returns the terms of the entitlements as TermsOf does, at most metering.CatalogAge old.
// fresh reports whether all of them were read just now.
func (t *Table) cached(ctx context.Context, org metering.OrgID, ids []metering.EntitlementID, billable bool, now time.Time) (terms metering.TermsByEntitlement, fresh bool, err error) {
	terms = make(metering.TermsByEntitlement, len(ids))
	var missing []metering.EntitlementID
	t.terms.mu.Lock()
	for _, id := range ids {
		c, ok := t.terms.of[termsKey{org, id, billable}]
		if age := now.Sub(c.read); ok && age >= 0 && age < metering.CatalogAge {
			terms[id] = c.terms
		} else {
			missing = append(missing, id)
		}
	}
	t.terms.mu.Unlock()
	if len(missing) == 0 {
		return terms, false, nil
	}
	read, err := t.readTerms(ctx, org, missing, billable, now)
	for id, of := range read {
		terms[id] = of
	}
	return terms, len(missing) == len(ids), err
}

// readTerms is TermsOf, and holds what it has read for others.
func (t *Table) readTerms(ctx context.Context, org metering.OrgID, ids []metering.EntitlementID, billable bool, now time.Time) (metering.TermsByEntitlement, error) {
	terms, err := t.TermsOf(ctx, org, ids, billable)
	if err != nil {
		return nil, err
	}
	t.terms.mu.Lock()
	defer t.terms.mu.Unlock()
	for id, of := range terms {
		if of.Exist() {
			t.terms.hold(termsKey{org, id, billable}, cachedTerms{of, now, sizeOfTerms(of)}, now)
		}
	}
	return terms, nil
}

// sizeOfTerms is about the size of the terms as stored; the config counts for each entitlement.
func sizeOfTerms(of *metering.Terms) int {
	const item = 1 << 10
	size := item + len(of.Config.Stored) + item*len(of.Metrics)
	if of.Entitlement != nil {
		size += item / 4 * len(of.Entitlement.Info.Dimensions)
	}
	return size
}

// hold adds terms. If there is no room, those that are too old are dropped; if that is not enough,
// all are.
func (c *termsCache) hold(key termsKey, terms cachedTerms, now time.Time) {
	c.size += terms.size - c.of[key].size
	if c.size > maxTermsCache || c.of == nil {
		kept := map[termsKey]cachedTerms{}
		c.size = terms.size
		for k, old := range c.of {
			if age := now.Sub(old.read); age >= 0 && age < metering.CatalogAge && k != key {
				kept[k] = old
				c.size += old.size
			}
		}
		if c.size > maxTermsCache {
			kept, c.size = map[termsKey]cachedTerms{}, terms.size
		}
		c.of = kept
	}
	c.of[key] = terms
}
