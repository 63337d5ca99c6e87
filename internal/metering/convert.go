package metering

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Conversion makes quantities by dimension key of what a client reports (docs/conversion.md). All
// arithmetic is exact, except that a quotient is rounded once. Except for LAST, the order in which
// records were sent does not matter.

// convertNew converts the usage of a new group: records are by dimension key, origin by source key
// or, for billable records, by metric id. Usage that can't be converted is left out of records and
// has a problem. Without an entitlement, only quantities are checked, and nothing is converted.
//
// With SkipValidation, dimensions are not checked. The problems are in a fixed order. Without keep,
// records and origin are left out: keys is how many bytes the keys of records take as stored.
func (t *Terms) convertNew(g *NewGroup, keep bool) (records, origin map[string]Quantity, billable []BillableRecord, keys int, problems []Problem) {
	terms := t.indexed()
	w, ok := conversions.Get().(*conversion)
	if !ok {
		w = new(conversion)
	}
	defer func() {
		clear(w.totals)
		*w = conversion{totals: w.totals[:0]}
		conversions.Put(w)
	}()
	*w = conversion{terms: terms, base: "/records", isNew: true, unchecked: g.MetaInfo.SkipValidation, keep: keep, totals: w.totals}
	if sent, path := g.billable(); len(sent) > 0 {
		w.base = "/" + strings.ReplaceAll(path, ".", "/")
		origin, billable = w.addBillable(sent)
	} else {
		w.totals = slices.Grow(w.totals, len(g.Records))
		origin = w.addRecords(g.Records)
	}
	if terms.entitlement == nil {
		return nil, origin, billable, 0, w.problems.list()
	}
	if terms.fault != "" {
		w.problems.add(ProblemMappingUnreadable, w.base, hintMapping, "%s", terms.fault)
	}
	if !w.unchecked && !terms.entitlement.Info.DimensionsKnown {
		w.problems.add(ProblemDimensionsUnchecked, "/entitlementID", "list the dimensions of the entitlement in info.dimensions",
			"entitlement %s does not list its dimensions: those of its usage are not checked", Quote(terms.entitlement.ID))
	}
	records = w.records()
	for i := range w.totals {
		keys += len(w.totals[i].key) + roughNumber
	}
	return records, origin, billable, keys, w.problems.list()
}

// conversions holds *conversion with memory for totals: a batch converts many groups.
var conversions sync.Pool

// HourUsage is what the groups of an entitlement's hour are converted to.
type HourUsage struct {
	Totals       map[string]Exact    // by dimension key, whatever their size
	Aggregates   Aggregates          // of billable records
	Destinations map[string][]string // the dimensions that each metric adds to, sorted
	Problems     []Problem           // why Totals are not complete, in a fixed order
}

// Aggregates is what billable records came to over an hour, by metric id: whatever its size, as the
// records of many groups may add up to more than a Quantity holds.
type Aggregates map[string]Exact

// ConvertHour converts the usage of an entitlement's groups of one hour. totals are of groups
// without billable records, by dimension key, as they were converted when accepted. Billable
// records of all groups are aggregated first, by their metric, and then converted by today's terms,
// which CanConvert accepts. For LAST, groups are in the order of their timestamps, then of their
// creation, then of their ids.
//
// Rules for new usage are not checked again. A problem says what can't be converted: an hour with
// one must not be reported.
func (t *Terms) ConvertHour(totals map[string]Exact, billable PartialAggregates) HourUsage {
	terms := t.indexed()
	w := conversion{terms: terms, keep: true}
	for _, key := range slices.Sorted(maps.Keys(totals)) {
		w.totalOf(key, source{key: key}).sum = sumOf(totals[key])
	}
	for _, metric := range slices.Sorted(maps.Keys(billable)) {
		if a, all := w.aggregationOf(metric, 0), billable[metric]; a.usable {
			a.take(&all)
		}
	}
	return w.hourUsage()
}

// hourUsage converts what the records of each metric come to, and returns all of the hour.
func (w *conversion) hourUsage() HourUsage {
	usage := HourUsage{Aggregates: Aggregates{}}
	w.routeAggregates(func(id string, total *sum) { usage.Aggregates[id] = total.exact() })
	if len(w.aggregations) > 0 && w.terms.fault != "" {
		w.problems.add(ProblemMappingUnreadable, "", hintMapping, "%s", w.terms.fault)
	}
	usage.Totals = make(map[string]Exact, len(w.totals))
	for i := range w.totals {
		usage.Totals[w.totals[i].key] = w.totals[i].all().exact()
	}
	usage.Destinations = w.destinations
	usage.Problems = w.problems.list()
	return usage
}

// conversion is the state of one conversion.
type conversion struct {
	terms     *indexedTerms
	base      string // the JSON Pointer of the records
	isNew     bool   // the usage is new: check what a marketplace takes
	unchecked bool   // do not check dimensions
	keep      bool   // the quantities are needed, not only the problems

	totals       []total
	totalAt      map[string]int // of a key in totals; nil while they are few
	aggregations map[string]*aggregation
	destinations map[string][]string // of an hour: the dimensions of each metric
	problems     problemList
}

// source is what a quantity comes from: a record, or all records of a metric.
type source struct {
	key    string          // the source key, or the metric's id
	metric *BillableMetric // nil for a record
	first  int             // the index of the metric's first record
}

// total is what a dimension gets.
type total struct {
	key     string
	sum     sum
	amounts *sum // of money, to be divided by rate; nil if there are none
	rate    Quantity
	from    source // the first that adds to it
	several bool   // others add to it too
}

// addRecords adds the records of usage metering v1.
func (w *conversion) addRecords(sent []NewRecord) (origin map[string]Quantity) {
	byKey := func(a, b NewRecord) int { return strings.Compare(a.Key, b.Key) }
	if !slices.IsSortedFunc(sent, byKey) {
		sent = slices.SortedFunc(slices.Values(sent), byKey)
	}
	if w.keep {
		origin = make(map[string]Quantity, len(sent))
	}
	for i := range sent {
		record := &sent[i]
		from := source{key: record.Key}
		q, err := ParseQuantity(record.Quantity)
		switch {
		case err != nil:
			w.problems.add(ProblemQuantityPrecision, w.pathOf(from), hintPrecision, "records[%s]: %v", Quote(record.Key), err)
			continue
		case q.Sign() < 0:
			w.problems.add(ProblemQuantityNegative, w.pathOf(from), hintNegative, "records[%s]: %s is negative: a quantity is 0 or more", Quote(record.Key), q)
		case w.terms.entitlement != nil:
			w.route(from, &sum{small: q.d})
		}
		if w.keep {
			origin[record.Key] = q
		}
	}
	return origin
}

// addBillable adds the records of usage metering v2.
func (w *conversion) addBillable(sent []NewBillableRecord) (origin map[string]Quantity, billable []BillableRecord) {
	billable = make([]BillableRecord, len(sent))
	for i := range sent {
		record := &sent[i]
		q, err := Quantity{}, error(nil)
		if record.Quantity != "" {
			q, err = ParseQuantity(record.Quantity)
		}
		billable[i] = BillableRecord{Key: record.Key, Properties: record.Properties, Quantity: q}
		isQuantity := false
		switch {
		case err != nil:
			w.problems.add(ProblemQuantityPrecision, w.recordPath(i)+"/quantity", hintPrecision, "%s.quantity: %v", w.recordLabel(i), err)
		case q.Sign() < 0:
			w.problems.add(ProblemQuantityNegative, w.recordPath(i)+"/quantity", hintNegative, "%s.quantity: %s is negative: a quantity is 0 or more", w.recordLabel(i), q)
		default:
			isQuantity = true
		}
		if w.terms.entitlement == nil {
			continue
		}
		if a := w.aggregationOf(record.Key, i); a.usable && w.checkProperties(a, i, record.Properties) && isQuantity {
			a.add(q, record.Properties)
		}
	}
	if w.terms.entitlement == nil {
		return nil, billable
	}
	origin = make(map[string]Quantity, len(w.aggregations))
	w.routeAggregates(func(id string, total *sum) { origin[id], _ = total.quantity() })
	return origin, billable
}

// aggregationOf returns the aggregation for the metric of a record. If the metric can't be used,
// its first record has a problem.
func (w *conversion) aggregationOf(id string, index int) *aggregation {
	if a := w.aggregations[id]; a != nil {
		return a
	}
	if w.aggregations == nil {
		w.aggregations = map[string]*aggregation{}
	}
	a := &aggregation{first: index, metric: w.terms.metrics[id]}
	w.aggregations[id] = a
	if a.metric != nil {
		a.rule = w.terms.ruleOf(a.metric)
	}
	problem := func(code ProblemCode, hint, format string, args ...any) {
		path, label := "", ""
		if w.isNew {
			path, label = w.recordPath(index)+"/key", w.recordLabel(index)+".key: "
		}
		w.problems.add(code, path, hint, "%s%s", label, fmt.Sprintf(format, args...))
	}
	switch {
	case a.metric == nil:
		hint := "send the id of a billable metric as key, or create the metric and send its id"
		if w.problems.counts[ProblemMetricUnknown] < maxNearest {
			if named := w.terms.metricNamed(id); named != "" {
				hint = "a metric has this name: send its id as key, " + Quote(named)
			}
		}
		problem(ProblemMetricUnknown, hint, "%s is not the id of a billable metric", Quote(id))
	case a.rule.fault != "":
		problem(ProblemMetricUnknown, "retry when all functions have the version that stored the metric, or report by another metric",
			"billable metric %s can't be applied: %s", Quote(id), a.rule.fault)
	case w.isNew && a.metric.Status != MetricActive:
		problem(ProblemMetricDeleted, "report by an ACTIVE metric, or make this one ACTIVE again and retry",
			"billable metric %s (%s) is %s: it must be ACTIVE", Quote(id), Quote(a.metric.Name), a.metric.Status)
	default:
		a.usable = true
	}
	return a
}

// checkProperties reports whether the properties of a record are those of its metric.
func (w *conversion) checkProperties(a *aggregation, index int, properties map[string]any) (ok bool) {
	ok = true
	problem := func(hint, format string, args ...any) {
		ok = false
		path := w.recordPath(index)
		if properties != nil {
			path += "/properties"
		}
		w.problems.add(ProblemMetricProperties, path, hint, "%s.properties: %s, for billable metric %s",
			w.recordLabel(index), fmt.Sprintf(format, args...), Quote(a.metric.ID))
	}
	missing := a.rule.missing(properties)
	if len(missing) > 0 {
		problem("send a value for each name in the metric's filters, groupBys and propertyUniqueOn", "%s must have a value", listed(missing))
	}
	if extra := a.rule.extra(properties); len(extra) > 0 {
		problem("send the properties that the metric's filters, groupBys and propertyUniqueOn name, and no others", "%s must not be sent", listed(extra))
	}
	if len(missing) > 0 {
		return ok
	}
	if i, fails := a.rule.failing(properties); fails {
		problem("send only records that meet at least one filter of each filter group", "no filter of filterGroups[%d] holds", i)
	}
	return ok
}

// routeAggregates converts what the records of each metric come to, which it calls take for: of new
// usage, if a Quantity holds it.
func (w *conversion) routeAggregates(take func(id string, total *sum)) {
	for _, id := range slices.Sorted(maps.Keys(w.aggregations)) {
		a := w.aggregations[id]
		if a.count == 0 {
			continue
		}
		total := a.total()
		if w.isNew && !total.fits() {
			w.problems.add(ProblemQuantityPrecision, w.recordPath(a.first), hintPrecision, "billable metric %s: its %d records come to %s, which %s",
				Quote(id), a.count, &total, doesNotFit)
			continue
		}
		take(id, &total)
		w.route(source{key: id, metric: a.metric, first: a.first}, &total)
	}
}

// route adds what a source has used to the dimensions that it is mapped to.
func (w *conversion) route(from source, used *sum) {
	if w.terms.fault != "" {
		return // the source may be mapped by what can't be read
	}
	m := w.terms.mappingOf(from.key)
	if m.absent() && from.metric != nil {
		m = w.terms.mappingOf(from.metric.Name)
	}
	switch {
	case m.fault != "":
		w.problems.add(ProblemMappingUnreadable, w.pathOf(from), hintMapping, "%s is mapped by %s: %s", w.label(from), m.place(), m.fault)
	case m.absent():
		name := from.key
		if from.metric != nil {
			name = from.metric.Name
		}
		if w.terms.dimensions[name] == nil {
			name = w.terms.dimensionOf(name)
			w.checkDimension(from, name, false)
		}
		w.totalOf(name, from).sum.addSum(used)
	}
	for i, value := range m.values {
		to, fault := readMapping(value)
		if fault != "" {
			w.problems.add(ProblemMappingUnreadable, w.pathOf(from), hintMapping, "%s is mapped by %s: %s", w.label(from), m.placeOf(i), fault)
			continue
		}
		w.checkDimension(from, to.key, true)
		if !to.isAmount {
			w.totalOf(to.key, from).sum.addProduct(used, to.multiplier)
			continue
		}
		rate := w.terms.rateOf(to.key)
		if rate.Sign() <= 0 {
			w.problems.add(ProblemNoPrice, w.pathOf(from), "set a rate over 0 for the dimension in info.dimensions of the entitlement, or map by QUANTITY, and retry",
				"%s is an amount of money for dimension %s, which has no price: entitlement %s has no rate over 0 for it",
				w.label(from), Quote(to.key), Quote(w.terms.entitlement.ID))
			continue
		}
		t := w.totalOf(to.key, from)
		if t.amounts == nil {
			t.amounts, t.rate = &sum{}, rate
		}
		t.amounts.addSum(used)
	}
}

// checkDimension reports a dimension that the entitlement does not have.
func (w *conversion) checkDimension(from source, key string, mapped bool) {
	entitlement := w.terms.entitlement
	if !w.isNew || w.unchecked || !entitlement.Info.DimensionsKnown || w.terms.dimensions[key] != nil {
		return
	}
	message := fmt.Sprintf("%s is not a dimension of entitlement %s", w.label(from), Quote(entitlement.ID))
	hint := "map it to a dimension in the usage metering config, or add it to info.dimensions of the entitlement, and retry"
	_, isName := w.terms.named(key)
	switch {
	case mapped:
		message = fmt.Sprintf("%s is mapped to dimension %s, which entitlement %s does not have", w.label(from), Quote(key), Quote(entitlement.ID))
		hint = "correct the mapping in the usage metering config, or add the dimension to info.dimensions of the entitlement, and retry"
	case isName:
		message = fmt.Sprintf("%s is the name of several dimensions of entitlement %s", w.label(from), Quote(entitlement.ID))
		hint = "send the key of the dimension, or map it in the usage metering config and retry"
	case w.problems.counts[ProblemDimensionUnknown] < maxNearest:
		hint = w.terms.nearest(key) + hint
	}
	w.problems.add(ProblemDimensionUnknown, w.pathOf(from), hint, "%s", message)
}

// totalOf returns the total of a dimension, to which the source adds.
func (w *conversion) totalOf(key string, from source) *total {
	const few = 8
	index := -1
	if w.totalAt != nil {
		if at, ok := w.totalAt[key]; ok {
			index = at
		}
	} else {
		index = slices.IndexFunc(w.totals, func(t total) bool { return t.key == key })
	}
	if index < 0 {
		index = len(w.totals)
		w.totals = append(w.totals, total{key: key, from: from})
		if w.totalAt != nil {
			w.totalAt[key] = index
		} else if len(w.totals) > few {
			w.totalAt = make(map[string]int, cap(w.totals))
			for i := range w.totals {
				w.totalAt[w.totals[i].key] = i
			}
		}
	}
	t := &w.totals[index]
	if from.metric != nil && !w.isNew {
		w.addDestination(from.key, key)
	}
	t.several = t.several || t.from != from
	return t
}

// addDestination records that a metric of the hour adds to a dimension.
func (w *conversion) addDestination(metric, key string) {
	if w.destinations == nil {
		w.destinations = map[string][]string{}
	}
	keys := w.destinations[metric]
	if at, known := slices.BinarySearch(keys, key); !known {
		w.destinations[metric] = slices.Insert(keys, at, key)
	}
}

// all returns the total with its amounts of money. It is called once.
func (t *total) all() *sum {
	if t.amounts != nil {
		t.sum.addQuotient(t.amounts, t.rate)
	}
	return &t.sum
}

// records returns the totals of new usage, or of a retry, as quantities. A total that does not fit
// is a problem.
func (w *conversion) records() map[string]Quantity {
	slices.SortFunc(w.totals, func(a, b total) int { return strings.Compare(a.key, b.key) })
	var records map[string]Quantity
	if w.keep {
		records = make(map[string]Quantity, len(w.totals))
	}
	for i := range w.totals {
		t := &w.totals[i]
		q, fits := t.all().quantity()
		if !fits {
			w.problems.add(ProblemQuantityPrecision, w.pathOfTotal(t), hintPrecision, "dimension %s comes to %s, which %s", Quote(t.key), &t.sum, doesNotFit)
			continue
		}
		if w.keep {
			records[t.key] = q
		}
		partner := w.terms.entitlement.Partner
		if limit, ok := quantityLimits[partner]; ok && q.d.Cmp(limit.d) >= 0 {
			w.problems.add(ProblemQuantityRange, w.pathOfTotal(t), "correct the quantity, or meter the dimension in a larger unit",
				"dimension %s comes to %s: it must be less than %s on %s", Quote(t.key), q, limit, partner)
		}
	}
	return records
}

// pathOf is the JSON Pointer of a source in the group as it was sent; empty in an hour.
func (w *conversion) pathOf(from source) string {
	switch {
	case !w.isNew:
		return ""
	case from.metric != nil:
		return w.recordPath(from.first) + "/key"
	default:
		return w.base + "/" + pointerEscapes.Replace(from.key)
	}
}

// pathOfTotal is the JSON Pointer of what adds up to a total: a source, or all records.
func (w *conversion) pathOfTotal(t *total) string {
	if t.several {
		return w.base
	}
	return w.pathOf(t.from)
}

var pointerEscapes = strings.NewReplacer("~", "~0", "/", "~1") // RFC 6901

// recordPath is the JSON Pointer of a billable record; empty in an hour.
func (w *conversion) recordPath(index int) string {
	if !w.isNew {
		return ""
	}
	return w.base + "/" + strconv.Itoa(index)
}

// recordLabel names a billable record in a message.
func (w *conversion) recordLabel(index int) string {
	return fmt.Sprintf("%s[%d]", strings.ReplaceAll(w.base[1:], "/", "."), index)
}

// label names a source in a message.
func (w *conversion) label(from source) string {
	if from.metric != nil {
		return fmt.Sprintf("billable metric %s (%s)", Quote(from.key), Quote(from.metric.Name))
	}
	return "records[" + Quote(from.key) + "]"
}

// listed lists names for a message.
func listed(names []string) string {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = Quote(name)
	}
	return strings.Join(quoted, ", ")
}

// Hints and parts of messages that several problems have.
const (
	doesNotFit    = "does not fit: a quantity has at most 19 digits, at most 19 of them after the point"
	hintPrecision = "send a quantity of fewer digits, or map it by a multiplier of fewer digits, and retry"
	hintNegative  = "send a quantity of 0 or more; to correct usage that was reported, delete its group and report it again"
	hintMapping   = "replace the usage metering config by one that this version can read, or retry when all functions have the version that stored it"
)
