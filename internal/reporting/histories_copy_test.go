package reporting_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/reporting/worldtest"
	"github.com/marketmeter/marketmeter/sandbox"
)

// tableCopy is what a history keeps of the table.
type tableCopy struct {
	groups  map[metering.GroupID]*seenGroup
	hours   map[reports.Place]*reports.Hour
	ledgers map[metering.EntitlementID]reports.Ledger
	kinds   map[string]reports.Kind                              // by recordKey: the first outcome
	kept    map[metering.EntitlementID][]metering.MarketplaceIDs // of one that is DELETED, which no other may have
	mapping map[string]string                                    // of the history
}

// seenGroup is the copy of a group.
type seenGroup struct {
	metering.Group
	hour     time.Time // that claimed it last
	applied  int       // the version of that hour which gave it its status
	inWork   bool
	outcomes map[string]reports.Kind
	claims   map[time.Time]claim // by hour
	mapping  map[string]string   // of the history
}

// claim is what an hour took of a group.
type claim struct {
	records map[string]metering.Quantity // as they are stored
	metered bool                         // its billable records count instead
}

func newCopy(mapping map[string]string) *tableCopy {
	return &tableCopy{
		map[metering.GroupID]*seenGroup{},
		map[reports.Place]*reports.Hour{},
		map[metering.EntitlementID]reports.Ledger{},
		map[string]reports.Kind{},
		map[metering.EntitlementID][]metering.MarketplaceIDs{},
		mapping,
	}
}

// clone returns a copy that does not change with c.
func (c *tableCopy) clone() *tableCopy {
	groups := map[metering.GroupID]*seenGroup{}
	for id, g := range c.groups {
		clone := *g
		clone.outcomes, clone.claims = maps.Clone(g.outcomes), maps.Clone(g.claims)
		groups[id] = &clone
	}
	return &tableCopy{groups, maps.Clone(c.hours), maps.Clone(c.ledgers), maps.Clone(c.kinds), maps.Clone(c.kept), c.mapping}
}

// recordKey names the usage of a dimension in an hour of an entitlement.
func recordKey(e metering.EntitlementID, hour time.Time, dimension string) string {
	return fmt.Sprintf("%s %s %s", e, hour.Format(time.RFC3339), dimension)
}

// sealed reports whether the copy has a record of that recordKey.
func (c *tableCopy) sealed(key string) bool {
	for place, hour := range c.hours {
		if hour.Sealed == nil {
			continue
		}
		for i := range hour.Sealed.Records {
			if recordKey(place.Entitlement, place.Hour, hour.Sealed.Records[i].Dimension) == key {
				return true
			}
		}
	}
	return false
}

// meters are the billable metrics of a history. Each goes to the dimension of its name, or to that
// of a mapping which the history has from its beginning to its end.
var meters = map[string]metering.AggregationType{
	"d3": metering.AggregateMax, "d4": metering.AggregateLast, "d5": metering.AggregateUniqueCount, "d6": metering.AggregateSum, "d7": metering.AggregateCount,
}

// mappings are those of which a history has one: metrics add to other metrics, and to records.
var mappings = []map[string]string{nil, {"d6": "d7"}, {"d3": "d0", "d6": "d7"}, {"d4": "d6", "d5": "d6"}}

// meterID is the id of the metric of that name.
func meterID(name string) string { return "metric-" + name }

// destination returns the dimension that a metric goes to.
func destination(mapping map[string]string, id string) string {
	name := strings.TrimPrefix(id, "metric-")
	return cmp.Or(mapping[name], name)
}

// of reports whether the group is of the entitlement of a place.
func (g *seenGroup) of(place reports.Place) bool {
	return metering.EntitlementID(g.EntitlementID) == place.Entitlement
}

// dimensions returns those that the claim adds to.
func (g *seenGroup) dimensions(c claim) map[string]bool {
	all := map[string]bool{}
	if !c.metered {
		for dimension := range c.records {
			all[dimension] = true
		}
		return all
	}
	for _, r := range g.MetaInfo.BillableRecords {
		all[destination(g.mapping, r.Key)] = true
	}
	return all
}

// toReport returns what an hour takes of the group: all of it, or what failed of one that is
// accepted in part.
func (g *seenGroup) toReport() claim {
	c := claim{maps.Clone(g.Records), len(g.MetaInfo.BillableRecords) > 0}
	if slices.Contains(slices.Collect(maps.Values(g.outcomes)), reports.Accepted) {
		maps.DeleteFunc(c.records, func(dimension string, _ metering.Quantity) bool { return g.outcomes[dimension] != reports.Rejected })
		c.metered = false
	}
	return c
}

// follow makes the copy follow a write.
func (h *history) follow(who string, request []byte) {
	type key struct {
		PK, SK struct{ S string }
	}
	var sent struct {
		Item, Key     *key
		TransactItems []struct{ Put, Update, Delete *struct{ Item, Key *key } }
	}
	if err := json.Unmarshal(request, &sent); err != nil {
		h.t.Error(err)
	}
	keys := []*key{sent.Item, sent.Key}
	for _, item := range sent.TransactItems {
		for _, write := range []*struct{ Item, Key *key }{item.Put, item.Update, item.Delete} {
			if write != nil {
				keys = append(keys, write.Item, write.Key)
			}
		}
	}
	for _, k := range keys {
		if k == nil {
			continue
		}
		_, bill, isBill := strings.Cut(k.PK.S, "#BILL#")
		entitlement := metering.EntitlementID(bill)
		switch {
		case strings.HasPrefix(k.SK.S, "GROUP#"):
			h.followGroup(who, k.PK.S, k.SK.S)
		case isBill && k.SK.S == "LEDGER":
			ledger, err := h.Table.Ledger(context.Background(), worldtest.Org, entitlement)
			if err != nil {
				h.t.Error(err)
			}
			h.ledgers[entitlement] = ledger
		case isBill && strings.Count(k.SK.S, "#") == 1:
			h.followHour(who, entitlement, k.SK.S)
		}
	}
}

func (h *history) followHour(who string, entitlement metering.EntitlementID, sk string) {
	start, err := time.Parse("2006-01-02T15", strings.TrimPrefix(sk, "HOUR#"))
	if err != nil {
		h.t.Error(err)
	}
	place := reports.Place{Organization: worldtest.Org, Entitlement: entitlement, Hour: start}
	hour, err := h.Table.Hour(context.Background(), place)
	if err != nil || hour == nil {
		h.t.Errorf("the hour %s: %v, %v", sk, hour, err)
		return
	}
	h.checkWork(hour, "ORG#"+string(worldtest.Org)+"#BILL#"+string(entitlement), sk)
	before := h.hours[place]
	h.hours[place] = hour
	h.note("%s writes hour %s of %s: %s version %d%s", who, start.Format("15"), entitlement, hour.State, hour.Version, recordsText(hour))
	if before != nil && hour.Version < before.Version {
		h.fail("hour %s goes from version %d to %d", start, before.Version, hour.Version)
	}
	if hour.Sealed != nil && (before == nil || before.Sealed == nil) {
		h.checkTerms(place, hour)
	}
	if before != nil && before.Sealed != nil { // 1: what is sent never changes
		for i := range before.Sealed.Records {
			was, is := &before.Sealed.Records[i], hour.Record(before.Sealed.Records[i].Dimension)
			if is == nil || was.Quantity != is.Quantity || !before.Sealed.From.Equal(hour.Sealed.From) || fmt.Sprint(before.Sealed.Marketplace) != fmt.Sprint(hour.Sealed.Marketplace) {
				h.fail("1. %s of hour %s has changed", was.Dimension, start)
			}
		}
	}
}

// checkWork checks of invariant 7 that an hour is in the index of work: one that is sealed by its
// lane, one that is settled not at all, or by its trouble.
func (h *history) checkWork(hour *reports.Hour, pk, sk string) {
	work := ""
	if in, ok := h.item(pk, sk)["_work"].(*types.AttributeValueMemberS); ok {
		work, _, _ = strings.Cut(in.Value, "#")
	}
	want := map[reports.State]string{reports.StateOpen: "WORK", reports.StateSealed: "SEND", reports.StateDecided: "WORK"}[hour.State]
	if want != "" && work != want || want == "" && (work == "WORK" || work == "SEND") {
		h.fail("7. hour %s is %s, and in the index of work as %q", sk, hour.State, work)
	}
}

// item returns an item as it is stored.
func (h *history) item(pk, sk string) map[string]types.AttributeValue {
	out, err := h.client.GetItem(context.Background(), &dynamodb.GetItemInput{
		TableName: &h.TableName, ConsistentRead: aws.Bool(true),
		Key: map[string]types.AttributeValue{"PK": &types.AttributeValueMemberS{Value: pk}, "SK": &types.AttributeValueMemberS{Value: sk}},
	})
	if err != nil || out.Item == nil {
		h.t.Errorf("the item %s, %s is missing: %v", pk, sk, err)
		return nil
	}
	return out.Item
}

func recordsText(hour *reports.Hour) (text string) {
	if hour.Sealed == nil {
		return ""
	}
	for i := range hour.Sealed.Records {
		r := &hour.Sealed.Records[i]
		text += fmt.Sprintf("; %s=%s (in %s, out %s, drawn %s) %s%s", r.Dimension, r.Quantity, r.CarryIn, r.CarryOut, r.Drawn, r.Outcome.Kind, r.Outcome.Evidence)
		for _, a := range r.Attempts {
			text += fmt.Sprintf(" [%d %s %s]", a.Number, a.Result, a.Code)
		}
	}
	return text
}

func (h *history) followGroup(who, pk, sk string) {
	item := h.item(pk, sk)
	if item == nil {
		return
	}
	id := metering.GroupID(strings.TrimPrefix(sk, "GROUP#"))
	group, err := h.Table.Group(context.Background(), worldtest.Org, id)
	if err != nil {
		h.t.Error(err)
		return
	}
	g := h.groups[id]
	if g == nil {
		g = &seenGroup{claims: map[time.Time]claim{}, mapping: h.mapping}
		h.groups[id] = g
	}
	before := g.Status
	g.Group, g.applied, g.inWork, g.outcomes = group, 0, item["_work"] != nil, map[string]reports.Kind{}
	if applied, ok := item["_applied"].(*types.AttributeValueMemberN); ok {
		if g.applied, err = strconv.Atoi(applied.Value); err != nil {
			h.t.Error(err)
		}
	}
	if kinds, ok := item["_outcomes"].(*types.AttributeValueMemberM); ok {
		for dimension, kind := range kinds.Value {
			g.outcomes[dimension] = reports.Kind(kind.(*types.AttributeValueMemberS).Value)
		}
	}
	if hour, ok := item["_hour"].(*types.AttributeValueMemberS); ok {
		if g.hour, err = parseHour(hour.Value); err != nil {
			h.t.Error(err)
		}
	}
	due, _ := item["_due"].(*types.AttributeValueMemberS)
	text := ""
	if due != nil {
		text = " due " + due.Value[:13]
	}
	if g.Status == metering.StatusReportPending && before == metering.StatusCreated {
		c := g.toReport()
		if _, twice := g.claims[g.hour]; twice {
			h.fail("2. hour %s claims %s a second time", g.hour, id)
		}
		g.claims[g.hour] = c
		text += fmt.Sprintf(" with %v, metered %t", c.records, c.metered)
	}
	h.note("%s makes %s of %s %s%s %v", who, id[len(id)-6:], g.EntitlementID, g.Status, text, g.outcomes)
}

// parseHour reads the start of an hour, in one of the forms that the table has.
func parseHour(text string) (time.Time, error) {
	at, err := time.Parse("2006-01-02T15", text)
	if err != nil {
		at, err = metering.ParseTime(text)
	}
	return at.UTC(), err
}

// members returns what the groups of an hour come to, by dimension.
func (c *tableCopy) members(place reports.Place) map[string]*big.Rat {
	totals := c.aggregates(place)
	for _, g := range c.groups {
		if taken := g.claims[place.Hour]; g.of(place) && !taken.metered {
			for dimension, quantity := range taken.records {
				add(totals, dimension, rat(quantity.String()), 1)
			}
		}
	}
	return totals
}

// aggregates returns what the billable records of an hour come to, by dimension.
func (c *tableCopy) aggregates(place reports.Place) map[string]*big.Rat {
	totals := map[string]*big.Rat{}
	var metered []*seenGroup
	for _, g := range c.groups {
		if g.of(place) && g.claims[place.Hour].metered {
			metered = append(metered, g)
		}
	}
	slices.SortFunc(metered, func(a, b *seenGroup) int {
		for _, order := range []int{a.UsedAt().Compare(b.UsedAt()), a.CreationTime.Compare(b.CreationTime)} {
			if order != 0 {
				return order
			}
		}
		return strings.Compare(a.ID, b.ID)
	})
	for name, aggregation := range meters {
		var records []metering.BillableRecord
		for _, g := range metered {
			for _, r := range g.MetaInfo.BillableRecords {
				if r.Key == meterID(name) {
					records = append(records, r)
				}
			}
		}
		if len(records) > 0 {
			add(totals, destination(c.mapping, name), aggregated(aggregation, records), 1)
		}
	}
	return totals
}

// aggregated returns what the records of a metric come to, in their order.
func aggregated(as metering.AggregationType, records []metering.BillableRecord) *big.Rat {
	sum, most, users := new(big.Rat), rat(records[0].Quantity.String()), map[any]bool{}
	for _, r := range records {
		q := rat(r.Quantity.String())
		sum.Add(sum, q)
		if q.Cmp(most) > 0 {
			most = q
		}
		if user, ok := r.Properties["user"]; ok {
			users[user] = true
		}
	}
	switch as {
	case metering.AggregateMax:
		return most
	case metering.AggregateLast:
		return rat(records[len(records)-1].Quantity.String())
	case metering.AggregateUniqueCount:
		return big.NewRat(int64(len(users)), 1)
	case metering.AggregateCount:
		return big.NewRat(int64(len(records)), 1)
	default:
		return sum
	}
}

func add[K comparable](to map[K]*big.Rat, key K, x *big.Rat, sign int64) {
	if to[key] == nil {
		to[key] = new(big.Rat)
	}
	to[key].Add(to[key], new(big.Rat).Mul(x, big.NewRat(sign, 1)))
}

// check checks the invariants 2 to 5 and 7 on the copy.
func (h *history) check() {
	carry, used := map[account]*big.Rat{}, map[metering.EntitlementID]*big.Rat{}
	in := map[string]int{}
	for place, hour := range h.hours {
		if hour.Sealed == nil {
			continue
		}
		for id, g := range h.groups {
			taken, ok := g.claims[place.Hour]
			if !ok || !g.of(place) {
				continue
			}
			for dimension := range g.dimensions(taken) {
				r := hour.Record(dimension)
				if r == nil {
					h.fail("hour %s has no record of %s, which %s has", place.Hour, dimension, id)
				} else if r.Outcome.Kind != reports.Rejected {
					in[string(id)+" "+dimension]++
					if g.Status == metering.StatusDeleted {
						h.fail("2. %s is DELETED, and in hour %s", id, place.Hour)
					}
				}
			}
		}
		members := h.members(place)
		for i := range hour.Sealed.Records {
			r := &hour.Sealed.Records[i]
			h.checkEvidence(place, r)
			if r.Outcome.Evidence == reports.EvidenceSeal {
				continue
			}
			total := members[r.Dimension]
			if total == nil {
				total = new(big.Rat)
			}
			if total.Cmp(ratOf(r.Members)) != 0 {
				h.fail("4. hour %s is sealed with %s of %s, its groups have %s", place.Hour, r.Members, r.Dimension, total.FloatString(9))
			}
			left := new(big.Rat).Mul(new(big.Rat).Sub(total, ratOf(r.Drawn)), ratOf(r.Scale))
			right := new(big.Rat).Sub(new(big.Rat).Add(rat(r.Quantity.String()), ratOf(r.CarryOut)), ratOf(r.CarryIn))
			if left.Cmp(right) != 0 {
				h.fail("4. %s of hour %s: %s is not %s", r.Dimension, place.Hour, left, right)
			}
			if r.Outcome.Kind == reports.Accepted {
				add(carry, account{place.Entitlement, r.Dimension}, ratOf(r.CarryOut), 1)
			}
			if r.Outcome.Kind != reports.Rejected {
				add(carry, account{place.Entitlement, r.Dimension}, ratOf(r.CarryIn), -1)
				add(used, place.Entitlement, ratOf(r.DrawnAmount), 1)
			}
		}
	}
	for key, n := range in {
		if n > 1 {
			h.fail("2. %s is in %d hours", key, n)
		}
	}
	for of, want := range carry {
		if got := ratOf(h.ledgers[of.EntitlementID].Carry[of.dimension]); got.Cmp(want) != 0 || got.Sign() < 0 {
			h.fail("4. the carry of %s is %s, want %s", of, got.FloatString(9), want.FloatString(9))
		}
	}
	for entitlement, want := range used {
		if got := ratOf(h.ledgers[entitlement].Used); got.Cmp(want) != 0 {
			h.fail("4. %s of the commit of %s is used, want %s", got.FloatString(9), entitlement, want.FloatString(9))
		}
	}
	for id, g := range h.groups {
		if g.Status == metering.StatusCreated && !g.inWork {
			h.fail("7. %s is CREATED and not in the index of work", id)
		}
		hour := h.hours[reports.Place{Organization: worldtest.Org, Entitlement: metering.EntitlementID(g.EntitlementID), Hour: g.hour}]
		if g.Status == metering.StatusReportPending && (hour == nil || hour.State == reports.StateSettled) {
			h.fail("7. %s is REPORT_PENDING in no report", id)
		}
	}
	h.checkPlaces()
}

// checkEvidence checks invariant 3.
func (h *history) checkEvidence(place reports.Place, r *reports.Record) {
	key := recordKey(place.Entitlement, place.Hour, r.Dimension)
	kind := r.Outcome.Kind
	if before := h.kinds[key]; before != kind && before != reports.Undecided && r.Outcome.Evidence != reports.EvidenceResolved {
		h.fail("3. %s is %s, and was %s", key, kind, before)
	}
	h.kinds[key] = kind
	if r.Quantity.Sign() == 0 || r.Outcome.Evidence == reports.EvidenceResolved {
		return
	}
	with := func(result reports.Result) bool {
		return slices.ContainsFunc(r.Attempts, func(a reports.Attempt) bool { return a.Result == result })
	}
	switch kind {
	case reports.Rejected:
		if with(reports.Billed) || with(reports.Duplicate) || with(reports.InDoubt) {
			h.fail("3. %s is REJECTED: %v", key, r.Attempts)
		}
	case reports.Accepted:
		contradicted := r.Outcome.Reason != "" // by a response that came later, and ended the doubt
		if contradicted && !h.isForeign(place, r.Dimension) {
			h.fail("3. %s is not another meter's: %s", key, r.Outcome.Reason)
		}
		if !with(reports.Billed) && (!with(reports.Duplicate) || !with(reports.InDoubt) && !contradicted) {
			h.fail("3. %s is ACCEPTED: %v", key, r.Attempts)
		}
	}
}

func rat(text string) *big.Rat {
	r, ok := new(big.Rat).SetString(text)
	if !ok {
		panic(text)
	}
	return r
}

func ratOf(x metering.Exact) *big.Rat { return rat(x.String()) }

// compare compares the copy with the table.
func (h *history) compare() {
	for id, g := range h.groups {
		stored, err := h.Table.Group(h.t.Context(), worldtest.Org, id)
		if err != nil || stored.Status != g.Status || !stored.LastUpdateTime.Equal(g.LastUpdateTime) {
			h.fail("the copy of %s is %s, the table has %s (%v)", id, g.Status, stored.Status, err)
		}
	}
	for place, hour := range h.hours {
		stored := h.Hour(place.Entitlement, place.Hour)
		if stored == nil || stored.Version != hour.Version || stored.State != hour.State {
			h.fail("the copy of hour %s is %+v, the table has %+v", place.Hour, hour, stored)
		}
	}
}

// billed returns what the marketplace bills, by recordKey, without what another meter wrote.
func (h *history) billed() map[string]string {
	records, err := h.Records()
	if err != nil {
		h.t.Fatal(err)
	}
	billed := map[string]string{}
	for _, r := range records {
		at := metering.HourOf(r.Time)
		if r.Marketplace == sandbox.Google {
			at = metering.HourOf(r.Time.Add(-time.Nanosecond))
		}
		owner := h.ownerOf(r.Resource)
		key := recordKey(owner, at, r.Dimension)
		if h.foreign[r.Resource+" "+key] {
			continue
		}
		hour := h.hours[reports.Place{Organization: worldtest.Org, Entitlement: owner, Hour: at}]
		if hour != nil && hour.Sealed != nil && !h.ofLost(key) && resourceOf(hour.Sealed.Marketplace) != r.Resource {
			h.fail("1. %s is billed to %s, it was sealed for %s", key, r.Resource, resourceOf(hour.Sealed.Marketplace))
		}
		if billed[key] != "" {
			h.fail("6. %s is billed twice", key)
		}
		billed[key] = r.Quantity
	}
	return billed
}

// checkRequests checks invariant 1 at the marketplace: what is sent of a record is the same bytes
// each time.
func (h *history) checkRequests() {
	requests, err := h.Requests()
	if err != nil {
		h.t.Fatal(err)
	}
	sent := map[string]string{}
	for i := range requests {
		var body struct{ UsageRecords, Request, Operations []json.RawMessage } // of each marketplace
		if !slices.Contains([]string{"BatchMeterUsage", "batchUsageEvent", "report"}, requests[i].Operation) {
			continue
		}
		if err := json.Unmarshal(requests[i].Body, &body); err != nil {
			h.t.Fatal(err)
		}
		for _, record := range slices.Concat(body.UsageRecords, body.Request, body.Operations) {
			h.sentRecords++
			key, foreign := h.recordOf(record)
			if before, again := sent[key]; again && !foreign && before != string(record) {
				h.fail("1. %s is sent as %s, and was sent as %s", key, record, before)
			}
			sent[key] = string(record)
		}
	}
}

// recordOf returns what identifies a record that was sent, and whether another meter writes it too.
func (h *history) recordOf(record []byte) (key string, foreign bool) {
	var r struct {
		Dimension, LicenseArn, ResourceID, ConsumerID string
		Timestamp                                     float64
		EffectiveStartTime, StartTime                 string
		MetricValueSets                               []struct{ MetricName string }
	}
	if err := json.Unmarshal(record, &r); err != nil {
		h.t.Fatal(err)
	}
	at := time.Unix(int64(r.Timestamp), 0).UTC()
	if text := cmp.Or(r.EffectiveStartTime, r.StartTime); text != "" {
		var err error
		if at, err = time.Parse(time.RFC3339Nano, strings.TrimSuffix(text, "Z")+"Z"); err != nil {
			h.t.Fatal(err)
		}
	}
	for _, set := range r.MetricValueSets {
		r.Dimension = set.MetricName[strings.LastIndex(set.MetricName, "/")+1:]
	}
	resource := cmp.Or(r.LicenseArn, r.ResourceID, r.ConsumerID)
	key = resource + " " + recordKey(h.ownerOf(resource), metering.HourOf(at), r.Dimension)
	return key, h.foreign[key]
}

// checkBill checks invariants 1 and 6 at the marketplace: it bills what is accepted, once.
func (h *history) checkBill() {
	h.checkRequests()
	billed := h.billed()
	h.checkRestored(billed)
	for place, hour := range h.hours {
		for i := range hour.Sealed.Records {
			r := &hour.Sealed.Records[i]
			key := recordKey(place.Entitlement, place.Hour, r.Dimension)
			if h.isForeign(place, r.Dimension) || r.Quantity.Sign() == 0 {
				continue
			}
			got := billed[key]
			if h.ofLost(key) && (r.Outcome.Kind == reports.Unknown || r.Outcome.Evidence == reports.EvidenceResolved) {
				continue // the lost table sealed it, maybe with other groups
			}
			delete(billed, key)
			switch {
			case got != "" && rat(got).Cmp(rat(r.Quantity.String())) != 0:
				h.fail("6. %s is billed with %s, not %s", key, got, r.Quantity)
			case r.Outcome.Kind == reports.Accepted && got == "" && (h.lost == nil || r.Outcome.Evidence != reports.EvidenceResolved):
				h.fail("6. %s is ACCEPTED, and not billed", key)
			case r.Outcome.Kind == reports.Rejected && got != "":
				h.fail("6. %s is REJECTED, and billed", key)
			}
		}
	}
	for key := range billed {
		if !h.ofLost(key) {
			h.fail("6. the marketplace bills %s of %s, which no report has", billed[key], key)
		}
	}
}
