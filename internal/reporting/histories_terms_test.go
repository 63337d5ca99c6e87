package reporting_test

import (
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/reporting/worldtest"
)

// entitlementVersion names a version of an entitlement by its last update.
type entitlementVersion struct {
	metering.EntitlementID
	at time.Time
}

// change stores an entitlement at a time of its own.
func (h *history) change(e metering.Entitlement) {
	h.Set(h.Now().Add(time.Second))
	h.PutEntitlement(e)
	stored, err := h.Table.Entitlement(h.t.Context(), worldtest.Org, e.ID)
	if err != nil {
		h.t.Fatal(err)
	}
	h.changed(stored.Value)
}

// changed remembers an entitlement as it is stored now.
func (h *history) changed(e metering.Entitlement) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.put[entitlementVersion{e.ID, e.LastUpdateTime.UTC()}] = e
}

// config stores a config that has these of the flags, and the mapping of the history, and sends d1
// to the dimension renamed, unless that is empty.
func (h *history) config(flags []string, renamed string) {
	entry, mapping := map[string]any{"partner": string(h.partner)}, map[string]any{}
	for _, flag := range flags {
		entry[flag] = true
	}
	to := func(name, dimension string) {
		mapping[name] = map[string]any{"dimensionKey": dimension, "convertionMultiplier": number("1")}
	}
	for name, dimension := range h.mapping {
		to(name, dimension)
	}
	if renamed != "" {
		to("d1", renamed)
	}
	if len(mapping) > 0 {
		entry["enableDimensionMapping"], entry["dimensionMapping"] = true, mapping
	}
	h.PutConfig(metering.Config{"partnerUsageMeteringConfigs": []any{entry}})
	stored, err := h.Table.Config(h.t.Context(), worldtest.Org)
	if err != nil {
		h.t.Fatal(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.flags[stored.Version], h.newer = flags, false
}

// newerConfig stores a config of a newer version, with the mapping of the history.
func (h *history) newerConfig() {
	h.config(nil, "")
	var mapping []string
	for name, dimension := range h.mapping {
		mapping = append(mapping, fmt.Sprintf(`%q:{"dimensionKey":%q,"convertionMultiplier":1}`, name, dimension))
	}
	h.SetConfig(fmt.Sprintf(`{"partnerUsageMeteringConfigs":[{"partner":%q,"enableDimensionMapping":%t,"dimensionMapping":{%s},"newer":true}]}`,
		h.partner, len(mapping) > 0, strings.Join(mapping, ",")))
	h.newer = true
}

// terms changes an entitlement: its prices, its commit, its identifiers or its bounds.
func (h *history) terms() {
	e := h.entitlement()
	if e.Status == metering.EntitlementDeleted {
		h.deleteOrPut(e)
		return
	}
	what := ""
	switch h.pick(4) {
	case 0:
		e.Info.Dimensions = append([]metering.Dimension(nil), e.Info.Dimensions...)
		for i := range 8 {
			d := &e.Info.Dimensions[i]
			d.Rate = worldtest.Quantity([]string{"0", "0.3", "0.5", "0.7", "3"}[h.pick(5)])
			d.ListPrice = worldtest.Quantity([]string{"0", "0.3", "1", "3"}[h.pick(4)])
			what += fmt.Sprintf("%s %s %s, ", d.Key, d.Rate, d.ListPrice)
		}
	case 1:
		e.Info.CommitAmount = worldtest.Quantity([]string{"0", "0.5", "1.0000001", "5", "10", "20"}[h.pick(6)])
		what = "commit " + e.Info.CommitAmount.String()
	case 2:
		e.Marketplace = metering.MarketplaceIDs{}
		if own := h.own[e.ID]; h.pick(5) > 0 {
			e.Marketplace = own[h.pick(len(own))]
		}
		what = "resource " + resourceOf(e.Marketplace)
	case 3:
		e.StartTime, e.EndTime = time.Time{}, time.Time{}
		if h.pick(2) == 0 {
			e.StartTime = h.Now().Add(-time.Duration(h.pick(120)) * time.Minute).Truncate(time.Second)
		}
		if h.pick(2) == 0 {
			e.EndTime = h.Now().Add(time.Duration(h.pick(240)-60) * time.Minute).Truncate(time.Second)
			if !e.EndTime.After(e.StartTime) {
				e.EndTime = time.Time{}
			}
		}
		what = fmt.Sprintf("from %s until %s", e.StartTime.Format("15:04:05"), e.EndTime.Format("15:04:05"))
	}
	h.change(e)
	h.mu.Lock()
	h.note("%s is changed: %s", e.ID, what)
	h.mu.Unlock()
	h.steal(e)
}

// isForeign reports whether another meter wrote what the hour was sealed for.
func (h *history) isForeign(place reports.Place, dimension string) bool {
	hour := h.hours[place]
	return hour != nil && hour.Sealed != nil && h.foreign[resourceOf(hour.Sealed.Marketplace)+" "+recordKey(place.Entitlement, place.Hour, dimension)]
}

// checkTerms checks that an hour which was sealed just now is sealed by the entitlement and the
// config whose versions it names.
func (h *history) checkTerms(place reports.Place, hour *reports.Hour) {
	s := hour.Sealed
	if hour.State == reports.StateDecided { // it expired, maybe without terms
		return
	}
	e, ok := h.put[entitlementVersion{place.Entitlement, s.Entitlement.UTC()}]
	if !ok {
		h.fail("1. hour %s is sealed by an entitlement of %s, which nobody put", place.Hour, s.Entitlement)
		return
	}
	if fmt.Sprint(s.Marketplace) != fmt.Sprint(e.Marketplace) || s.Buyer != e.BuyerID || s.Partner != e.Partner {
		h.fail("1. hour %s is sealed for %v, the entitlement has %v", place.Hour, s.Marketplace, e.Marketplace)
	}
	used := new(big.Rat)
	for other, sealed := range h.hours {
		if sealed.Sealed == nil || other == place || other.Entitlement != place.Entitlement {
			continue
		}
		for i := range sealed.Sealed.Records {
			if r := &sealed.Sealed.Records[i]; r.Outcome.Kind != reports.Rejected {
				used.Add(used, ratOf(r.DrawnAmount))
			}
		}
	}
	if used.Cmp(ratOf(s.UsedCommit)) != 0 {
		h.fail("4. hour %s is sealed with %s of the commit used, want %s", place.Hour, s.UsedCommit, used.FloatString(9))
	}
	d := draws{commit: rat(e.Info.CommitAmount.String()), used: used}
	for _, flag := range h.flags[s.Config] {
		d.beyond = d.beyond || flag == "enableCommitWithAdditionalUsageMetering"
		d.atList = d.atList || flag == "enableCommitWithAdditionalUsageAtListPrice"
	}
	left := s.From.Before(s.To)
	for i := range s.Records {
		r := &s.Records[i]
		want, list := "0", "0"
		for _, of := range e.Info.Dimensions {
			if of.Key == r.Dimension {
				want, list = of.Rate.String(), of.ListPrice.String()
			}
		}
		if rat(want).Cmp(rat(r.UnitPrice.String())) != 0 || rat(list).Cmp(rat(r.ListPrice.String())) != 0 {
			h.fail("4. %s of hour %s is sealed at %s and %s, the entitlement has %s and %s", r.Dimension, place.Hour, r.UnitPrice, r.ListPrice, want, list)
		}
		if r.Outcome.Code == metering.ProblemNoHourLeft {
			if left {
				h.fail("4. %s of hour %s is rejected, and %s to %s is left", r.Dimension, place.Hour, s.From, s.To)
			}
			continue
		}
		doubt := r.Outcome.Evidence == reports.EvidenceRestore
		if !left && !doubt || s.From.Before(place.Hour) || s.From.Before(e.StartTime) || !s.From.Before(place.Hour.Add(time.Hour)) && !doubt ||
			!e.EndTime.IsZero() && s.To.After(e.EndTime) || !e.CancelTime.IsZero() && s.To.After(e.CancelTime) {
			h.fail("1. hour %s is sent from %s to %s, the entitlement is from %s until %s, cancelled %s", place.Hour, s.From, s.To, e.StartTime, e.EndTime, e.CancelTime)
		}
		if err := d.check(r, e.Partner); err != "" {
			h.fail("4. %s of hour %s: %s", r.Dimension, place.Hour, err)
		}
	}
}

// draws draws a commit down, by the formulas of docs/reporting.md.
type draws struct {
	commit, used   *big.Rat
	beyond, atList bool
}

// check checks the numbers of the next record.
func (d *draws) check(r *reports.Record, partner metering.Partner) string {
	members, price, list := ratOf(r.Members), rat(r.UnitPrice.String()), rat(r.ListPrice.String())
	drawn, amount, scale, missing := new(big.Rat), new(big.Rat), big.NewRat(1, 1), false
	if d.beyond && d.commit.Sign() > 0 && members.Sign() > 0 {
		if rest := new(big.Rat).Sub(d.commit, d.used); rest.Sign() > 0 && price.Sign() == 0 {
			missing = true
		} else if rest.Sign() > 0 {
			drawn.Set(members)
			if amount.Mul(members, price); amount.Cmp(rest) > 0 {
				amount.Set(rest)
				if units := roundedUp(new(big.Rat).Quo(rest, price)); units.Cmp(drawn) < 0 {
					drawn = units
				}
			}
		}
		if d.atList && !missing && drawn.Cmp(members) < 0 {
			if missing = price.Sign() == 0 || list.Sign() == 0; !missing {
				scale.Quo(list, price)
			}
		}
	}
	rejected := r.Outcome.Evidence == reports.EvidenceSeal
	if missing != rejected && r.Outcome.Evidence != reports.EvidenceRestore {
		return fmt.Sprintf("a price is missing: %t, the record is %v", missing, r.Outcome)
	}
	if rejected {
		return ""
	}
	if missing { // in doubt, it is sealed without the commit
		drawn, amount = new(big.Rat), new(big.Rat)
	}
	if drawn.Cmp(ratOf(r.Drawn)) != 0 || amount.Cmp(ratOf(r.DrawnAmount)) != 0 || scale.Cmp(ratOf(r.Scale)) != 0 {
		return fmt.Sprintf("it draws %s for %s and is scaled by %s, want %s, %s and %s", r.Drawn, r.DrawnAmount, r.Scale, drawn, amount, scale)
	}
	d.used = new(big.Rat).Add(d.used, amount)
	finest := map[metering.Partner]string{"AWS": "0.000001", "AZURE": "0.000000001", "GCP": "1"}[partner]
	if out := ratOf(r.CarryOut); out.Sign() < 0 || out.Cmp(rat(finest)) >= 0 {
		return fmt.Sprintf("it carries %s", r.CarryOut)
	}
	return ""
}

// roundedUp is x, rounded up at 9 decimals.
func roundedUp(x *big.Rat) *big.Rat {
	units := new(big.Rat).Mul(x, big.NewRat(1_000_000_000, 1))
	whole, rest := new(big.Int).QuoRem(units.Num(), units.Denom(), new(big.Int))
	if rest.Sign() > 0 {
		whole.Add(whole, big.NewInt(1))
	}
	return new(big.Rat).SetFrac(whole, big.NewInt(1_000_000_000))
}
