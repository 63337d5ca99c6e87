package metering

import (
	"fmt"
	"maps"
	"math/big"
	"math/rand"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Conversion is checked against a second reading of docs/conversion.md, with rationals instead of
// decimals, and with loops over the terms instead of an index.

// reading is what the second reading makes of a group.
type reading struct {
	origin    map[string]*big.Rat // by source key or metric id; not those that do not fit
	records   map[string]*big.Rat // by dimension, rounded; those that do not fit too
	exact     map[string]*big.Rat // the same without rounding
	divided   map[string]bool     // dimensions with amounts
	overflows int                 // aggregates and totals that do not fit
	negatives int
	unread    int // values of mappings that can't be read
	noPrices  int
	unknown   int // sources and values of mappings that lead to no dimension
	metrics   int // metrics that do not exist or are deleted
	misfits   int // records whose properties are not the metric's
}

func rat(text string) *big.Rat {
	r, ok := new(big.Rat).SetString(text)
	if !ok {
		panic(text)
	}
	return r
}

func (r *reading) add(to map[string]*big.Rat, key string, v *big.Rat) {
	if to[key] == nil {
		to[key] = new(big.Rat)
	}
	to[key].Add(to[key], v)
}

// readAgain is the second reading. The group's quantities are numbers that fit, and its config is
// readable but for the values of mappings.
func readAgain(t *Terms, g *NewGroup) *reading {
	r := &reading{origin: map[string]*big.Rat{}, records: map[string]*big.Rat{}, exact: map[string]*big.Rat{}, divided: map[string]bool{}}
	var entry map[string]any
	if entries, ok := t.Config.Config[configEntries].([]any); ok {
		for _, e := range entries {
			if e, _ := e.(map[string]any); e[configPartner] == string(t.Entitlement.Partner) && e[configEnableMapping] == true {
				entry = e
			}
		}
	}
	amounts := map[string]*big.Rat{}
	prices := map[string]*big.Rat{}
	convert := func(names []string, own string, q *big.Rat) {
		var values []any
		for _, name := range names {
			v2, _ := entry[configMappingV2].(map[string]any)
			if array, ok := v2[name].([]any); ok {
				values = array
				break
			}
			v1, _ := entry[configMapping].(map[string]any)
			if value, ok := v1[name]; ok {
				values = []any{value}
				break
			}
		}
		dimension := func(key string) *Dimension {
			for i, d := range t.Entitlement.Info.Dimensions {
				if d.Key == key {
					return &t.Entitlement.Info.Dimensions[i]
				}
			}
			return nil
		}
		known := func(key string) {
			if dimension(key) == nil && t.Entitlement.Info.DimensionsKnown {
				r.unknown++
			}
		}
		if values == nil {
			key := own
			if dimension(own) == nil {
				named := []string{}
				for _, d := range t.Entitlement.Info.Dimensions {
					if d.Name == own {
						named = append(named, d.Key)
					}
				}
				if len(named) == 1 {
					key = named[0]
				}
			}
			known(key)
			r.add(r.exact, key, q)
			return
		}
		for _, value := range values {
			v, _ := value.(map[string]any)
			to, _ := v[mappingDimensionKey].(string)
			_, isNew := v["tiers"]
			switch mode := v[mappingMode]; {
			case v == nil, to == "", isNew:
				r.unread++
			case mode == "AMOUNT":
				known(to)
				if d := dimension(to); d != nil && d.Rate.Sign() > 0 {
					r.add(amounts, to, q)
					r.divided[to] = true
					prices[to] = rat(d.Rate.String())
				} else {
					r.noPrices++
				}
			case mode == nil || mode == "" || mode == "QUANTITY":
				multiplier, ok := v[mappingMultiplier].(Numeral)
				if !ok || rat(string(multiplier)).Sign() <= 0 || !fitsQuantity(rat(string(multiplier))) {
					r.unread++
					break
				}
				known(to)
				r.add(r.exact, to, new(big.Rat).Mul(q, rat(string(multiplier))))
			default:
				r.unread++
			}
		}
	}
	billable := g.BillableRecords
	if len(billable) == 0 {
		billable = g.MetaInfo.BillableRecords
	}
	if len(billable) == 0 {
		for _, record := range g.Records {
			q := rat(record.Quantity)
			r.add(r.origin, record.Key, q)
			if q.Sign() < 0 {
				r.negatives++
				continue
			}
			convert([]string{record.Key}, record.Key, q)
		}
	} else {
		for _, record := range billable {
			if record.Quantity != "" && rat(record.Quantity).Sign() < 0 {
				r.negatives++
			}
		}
		r.readMetrics(t, billable, convert)
	}
	for key, v := range r.exact {
		r.add(r.records, key, v)
	}
	billion := rat("1e9")
	for key, amount := range amounts {
		quotient := new(big.Rat).Quo(amount, prices[key])
		r.add(r.exact, key, quotient)
		// Half up at 9 decimals: floor(quotient * 10^9 + 1/2) / 10^9.
		shifted := new(big.Rat).Add(new(big.Rat).Mul(quotient, billion), rat("0.5"))
		floor := new(big.Int).Div(shifted.Num(), shifted.Denom())
		r.add(r.records, key, new(big.Rat).Quo(new(big.Rat).SetInt(floor), billion))
	}
	for _, v := range r.records {
		if !fitsQuantity(v) {
			r.overflows++
		}
	}
	return r
}

// readMetrics reads billable records. The metrics of these tests have a filter on "kind" and count
// the property "user" if they are UNIQUE_COUNT.
func (r *reading) readMetrics(t *Terms, billable []NewBillableRecord, convert func([]string, string, *big.Rat)) {
	metrics := map[string]*BillableMetric{}
	for i := range t.Metrics {
		metrics[string(t.Metrics[i].ID)] = &t.Metrics[i]
	}
	bad := map[string]bool{}
	quantities := map[string][]*big.Rat{}
	users := map[string]map[any]bool{}
	for _, record := range billable {
		m := metrics[record.Key]
		if m == nil || m.Status != MetricActive {
			if !bad[record.Key] {
				r.metrics++
			}
			bad[record.Key] = true
			continue
		}
		wanted := map[string]bool{}
		if len(m.Info.FilterGroups) > 0 {
			wanted["kind"] = true
		}
		if m.AggregationType == AggregateUniqueCount {
			wanted["user"] = true
		}
		fits := true
		missing := false
		for name := range wanted {
			missing = missing || record.Properties[name] == nil
		}
		extra := false
		for name := range record.Properties {
			extra = extra || !wanted[name]
		}
		for _, broken := range []bool{missing, extra, !missing && wanted["kind"] && record.Properties["kind"] != "a"} {
			if broken {
				r.misfits++
				fits = false
			}
		}
		q := new(big.Rat)
		if record.Quantity != "" {
			q = rat(record.Quantity)
		}
		if !fits || q.Sign() < 0 {
			continue
		}
		quantities[record.Key] = append(quantities[record.Key], q)
		if users[record.Key] == nil {
			users[record.Key] = map[any]bool{}
		}
		if wanted["user"] {
			users[record.Key][record.Properties["user"]] = true
		}
	}
	for id, all := range quantities {
		result := new(big.Rat)
		switch metrics[id].AggregationType {
		case AggregateSum:
			for _, q := range all {
				result.Add(result, q)
			}
		case AggregateMax:
			result = slices.MaxFunc(all, (*big.Rat).Cmp)
		case AggregateLast:
			result = all[len(all)-1]
		case AggregateCount:
			result.SetInt64(int64(len(all)))
		case AggregateUniqueCount:
			result.SetInt64(int64(len(users[id])))
		}
		if !fitsQuantity(result) {
			r.overflows++
			continue
		}
		r.origin[id] = result
		convert([]string{id, metrics[id].Name}, metrics[id].Name, result)
	}
}

var (
	drawnKeys     = rapid.SampledFrom([]string{"a", "b", "c", "d", "A name", "C name", "Same", "x/y~z"})
	drawnQuantity = rapid.Custom(func(t *rapid.T) string {
		text := rapid.OneOf(
			rapid.StringMatching(`[0-9]{1,2}(\.[0-9]{1,2})?`),
			rapid.StringMatching(`[1-9][0-9]{0,18}`),
			rapid.StringMatching(`0\.[0-9]{1,19}`),
			rapid.StringMatching(`[1-9][0-9]{0,8}\.[0-9]{1,10}`),
			rapid.SampledFrom([]string{"9999999999999999999", "0.0000000000000000001", "0.5", "0.0000000005", "1", "10000000000", "9223372036854775808"}),
		).Draw(t, "quantity")
		q, err := ParseQuantity(strings.TrimLeft(text[:1], "0") + strings.TrimPrefix(text, strings.TrimLeft(text[:1], "0")))
		if err != nil {
			return "1"
		}
		return q.String()
	})
)

func drawTerms(t *rapid.T) *Terms {
	terms := &Terms{Entitlement: &Entitlement{ID: "ent", Partner: rapid.SampledFrom(Partners).Draw(t, "partner")}}
	info := &terms.Entitlement.Info
	info.DimensionsKnown = rapid.IntRange(0, 4).Draw(t, "dimensions known") > 0
	if info.DimensionsKnown {
		for _, key := range []string{"a", "b", "c", "d"} {
			if rapid.IntRange(0, 5).Draw(t, "has dimension") == 0 {
				continue
			}
			name := rapid.SampledFrom([]string{"", strings.ToUpper(key) + " name", "Same", "b"}).Draw(t, "name")
			rate, _ := ParseQuantity(rapid.OneOf(drawnQuantity, rapid.SampledFrom([]string{"0", "-1", "3", "7", "0.03"})).Draw(t, "rate"))
			info.Dimensions = append(info.Dimensions, Dimension{Key: key, Name: name, Rate: rate})
		}
	}
	value := func() any {
		v := map[string]any{mappingDimensionKey: rapid.SampledFrom([]string{"a", "b", "c", "d", "elsewhere"}).Draw(t, "to")}
		if mode := rapid.SampledFrom([]string{"none", "", "QUANTITY", "AMOUNT", "AMOUNT"}).Draw(t, "mode"); mode != "none" {
			v[mappingMode] = mode
		}
		if multiplier := drawnQuantity.Draw(t, "multiplier"); multiplier != "0" {
			v[mappingMultiplier] = Numeral(multiplier)
		}
		switch rapid.IntRange(0, 30).Draw(t, "newer") {
		case 0:
			v["tiers"] = []any{}
		case 1:
			v[mappingMode] = "TIERED"
		case 2:
			v[mappingMultiplier] = Numeral("1e30")
		case 3:
			return "newer"
		}
		return v
	}
	entry := func(partner Partner) map[string]any {
		v1, v2 := map[string]any{}, map[string]any{}
		for range rapid.IntRange(0, 4).Draw(t, "mappings") {
			v1[rapid.OneOf(drawnKeys, rapid.SampledFrom(drawnMetrics)).Draw(t, "source")] = value()
		}
		for range rapid.IntRange(0, 3).Draw(t, "V2 mappings") {
			array := []any{}
			for range rapid.IntRange(0, 3).Draw(t, "values") {
				array = append(array, value())
			}
			v2[rapid.OneOf(drawnKeys, rapid.SampledFrom(drawnMetrics)).Draw(t, "source")] = array
		}
		return map[string]any{
			configPartner: string(partner), configEnableMapping: rapid.IntRange(0, 5).Draw(t, "enabled") > 0,
			configMapping: v1, configMappingV2: v2, configEnableBillable: true,
		}
	}
	terms.Config.Config = Config{configEntries: []any{map[string]any{configPartner: "STRIPE", "newer": true}, entry(terms.Entitlement.Partner)}}
	for i, id := range drawnMetrics[:5] {
		metric := BillableMetric{ID: MetricID(id), Status: MetricActive, AggregationType: AggregationTypes[i]}
		metric.Name = rapid.SampledFrom([]string{"a", "b", "C name", "Same", "metric"}).Draw(t, "metric's name")
		if metric.AggregationType == AggregateUniqueCount {
			metric.Info.PropertyUniqueOn = "user"
		}
		if rapid.Bool().Draw(t, "filtered") {
			metric.Info.FilterGroups = []FilterGroup{{Filters: []MetricFilter{{Name: "kind", Operation: "IS", Value: "a", ValueType: "STRING"}}}}
		}
		if rapid.IntRange(0, 5).Draw(t, "deleted") == 0 {
			metric.Status = MetricDeleted
		}
		terms.Metrics = append(terms.Metrics, metric)
	}
	return terms
}

// The last of them does not exist.
var drawnMetrics = []string{"m1", "m2", "m3", "m4", "m5", "m6"}

func drawGroup(t *rapid.T) *NewGroup {
	g := &NewGroup{EntitlementID: "ent"}
	draw := func() string {
		q := drawnQuantity.Draw(t, "quantity")
		if q != "0" && rapid.IntRange(0, 20).Draw(t, "negative") == 0 {
			q = "-" + q
		}
		return q
	}
	if rapid.Bool().Draw(t, "v1") {
		for _, key := range rapid.SliceOfNDistinct(drawnKeys, 1, 8, rapid.ID).Draw(t, "keys") {
			g.Records = append(g.Records, NewRecord{key, draw()})
		}
		return g
	}
	var records []NewBillableRecord
	for range rapid.IntRange(1, 10).Draw(t, "records") {
		record := NewBillableRecord{Key: rapid.SampledFrom(drawnMetrics).Draw(t, "metric")}
		if rapid.Bool().Draw(t, "has quantity") {
			record.Quantity = draw()
		}
		properties := map[string]any{}
		if rapid.IntRange(0, 4).Draw(t, "has kind") > 0 {
			properties["kind"] = rapid.SampledFrom([]any{"a", "a", "a", "b", nil}).Draw(t, "kind")
		}
		if rapid.Bool().Draw(t, "has user") {
			properties["user"] = rapid.SampledFrom([]any{"1", NumberOf(1), true, nil, "x"}).Draw(t, "user")
		}
		if rapid.IntRange(0, 3).Draw(t, "has properties") > 0 {
			record.Properties = properties
		}
		records = append(records, record)
	}
	if rapid.Bool().Draw(t, "in metaInfo") {
		g.MetaInfo.BillableRecords = records
	} else {
		g.BillableRecords = records
	}
	return g
}

// For all terms and groups, conversion gives what the second reading gives, to the last digit, and
// a problem for each thing that the second reading could not do.
func TestConvert_IsTheSecondReading(t *testing.T) { rapid.Check(t, checkSecondReading) }

// FuzzConvert looks for terms and a group for which the two readings differ.
func FuzzConvert(f *testing.F) { f.Fuzz(rapid.MakeFuzz(checkSecondReading)) }

func checkSecondReading(t *rapid.T) {
	terms, g := drawTerms(t), drawGroup(t)
	records, origin, _, problems := terms.convert(g)
	want := readAgain(terms, g)
	fitting := map[string]*big.Rat{}
	for key, v := range want.records {
		if fitsQuantity(v) {
			fitting[key] = v
		}
	}
	sameRationals(t, "records", records, fitting)
	sameRationals(t, "origin", origin, want.origin)
	counts := map[ProblemCode]int{}
	for _, p := range problems {
		counts[p.Code]++
		resolves(t, g, p)
	}
	large := 0
	for _, v := range fitting {
		limit := map[Partner]*big.Rat{"AWS": rat("1e10"), "GCP": rat("9223372036854775808")}[terms.Entitlement.Partner]
		if limit != nil && v.Cmp(limit) >= 0 {
			large++
		}
	}
	unchecked := 0
	if !terms.Entitlement.Info.DimensionsKnown {
		unchecked = 1
	}
	for code, n := range map[ProblemCode]int{
		ProblemQuantityPrecision: want.overflows, ProblemQuantityNegative: want.negatives, ProblemMappingUnreadable: want.unread,
		ProblemNoPrice: want.noPrices, ProblemDimensionUnknown: want.unknown, ProblemMetricProperties: want.misfits,
		ProblemQuantityRange: large, ProblemDimensionsUnchecked: unchecked,
	} {
		if counts[code] != n {
			t.Fatalf("%d problems %s, want %d: %+v", counts[code], code, n, problems)
		}
	}
	if got := counts[ProblemMetricUnknown] + counts[ProblemMetricDeleted]; got != want.metrics {
		t.Fatalf("%d problems of metrics, want %d: %+v", got, want.metrics, problems)
	}
	// Nothing is lost: what comes out is the converted sum of what went in, but for the rounding of
	// each dimension that amounts were divided for.
	for key, q := range records {
		difference := new(big.Rat).Sub(rat(q.String()), want.exact[key])
		most := new(big.Rat)
		if want.divided[key] {
			most = rat("5e-10")
		}
		if difference.Abs(difference).Cmp(most) > 0 {
			t.Fatalf("%s is %s, and exactly %s", key, q, want.exact[key].FloatString(30))
		}
	}
}

func sameRationals(t *rapid.T, what string, got map[string]Quantity, want map[string]*big.Rat) {
	for key, q := range got {
		if want[key] == nil || rat(q.String()).Cmp(want[key]) != 0 {
			t.Fatalf("%s[%q] is %s, want %v", what, key, q, want[key])
		}
		if again, err := ParseQuantity(q.String()); err != nil || again != q {
			t.Fatalf("%s[%q] is %s, and again %s, %v", what, key, q, again, err)
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%s: %v, want %v", what, got, want)
	}
}

// resolves checks that the path of a problem leads to a value in the group as it was sent.
func resolves(t *rapid.T, g *NewGroup, p Problem) {
	document := map[string]any{"entitlementID": g.EntitlementID, "metaInfo": map[string]any{"billableRecords": documentOfBillable(g.MetaInfo.BillableRecords)}}
	if len(g.BillableRecords) > 0 {
		document["billableRecords"] = documentOfBillable(g.BillableRecords)
	}
	records := map[string]any{}
	for _, r := range g.Records {
		records[r.Key] = r.Quantity
	}
	document["records"] = records
	var at any = document
	for _, token := range strings.Split(p.Path, "/")[1:] {
		token = strings.ReplaceAll(strings.ReplaceAll(token, "~1", "/"), "~0", "~")
		switch value := at.(type) {
		case map[string]any:
			member, ok := value[token]
			if !ok {
				t.Fatalf("%+v: nothing is at its path", p)
			}
			at = member
		case []any:
			index := -1
			if _, err := fmt.Sscanf(token, "%d", &index); err != nil || index < 0 || index >= len(value) {
				t.Fatalf("%+v: nothing is at its path", p)
			}
			at = value[index]
		default:
			t.Fatalf("%+v: nothing is at its path", p)
		}
	}
}

func documentOfBillable(records []NewBillableRecord) []any {
	all := []any{}
	for _, r := range records {
		document := map[string]any{"key": r.Key}
		if r.Quantity != "" {
			document["quantity"] = r.Quantity
		}
		if r.Properties != nil {
			document["properties"] = r.Properties
		}
		all = append(all, document)
	}
	return all
}

// For all terms and groups, the order of records does not matter: that of v1 for nothing, that of
// v2 for nothing but LAST and the indexes in problems.
func TestConvert_OrderDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		terms, g := drawTerms(t), drawGroup(t)
		for i := range terms.Metrics {
			if terms.Metrics[i].AggregationType == AggregateLast {
				terms.Metrics[i].AggregationType = AggregateMax
			}
		}
		records, origin, _, problems := terms.convert(g)
		other := *g
		random := rand.New(rand.NewSource(rapid.Int64().Draw(t, "seed"))) //nolint:gosec // it shuffles
		shuffle := func(n int, swap func(i, j int)) { random.Shuffle(n, swap) }
		other.Records = slices.Clone(g.Records)
		shuffle(len(other.Records), reflect.Swapper(other.Records))
		other.BillableRecords = slices.Clone(g.BillableRecords)
		shuffle(len(other.BillableRecords), reflect.Swapper(other.BillableRecords))
		other.MetaInfo.BillableRecords = slices.Clone(g.MetaInfo.BillableRecords)
		shuffle(len(other.MetaInfo.BillableRecords), reflect.Swapper(other.MetaInfo.BillableRecords))
		records2, origin2, _, problems2 := terms.convert(&other)
		if !maps.Equal(records, records2) || !maps.Equal(origin, origin2) {
			t.Fatalf("records %v and %v, origin %v and %v", records, records2, origin, origin2)
		}
		if len(g.Records) > 0 && !reflect.DeepEqual(problems, problems2) {
			t.Fatalf("problems %v and %v", problems, problems2)
		}
		codes := func(problems []Problem) (codes []ProblemCode) {
			for _, p := range problems {
				codes = append(codes, p.Code)
			}
			slices.Sort(codes)
			return codes
		}
		if !slices.Equal(codes(problems), codes(problems2)) {
			t.Fatalf("problems %v and %v", problems, problems2)
		}
	})
}

// For all ways to split usage into groups, the hour is the same: billable records as if one group
// had reported them, in their order, and converted records by their sum.
func TestConvertHour_DoesNotDependOnGroups(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		terms, g := drawTerms(t), drawGroup(t)
		if rapid.Bool().Draw(t, "deleted") {
			for i := range terms.Metrics {
				terms.Metrics[i].Status = MetricDeleted // usage that was accepted is reported
			}
		}
		billable, _ := g.billable()
		groups := func(cut func(i int) bool) (all []Group) {
			for i, r := range billable {
				if i == 0 || cut(i) {
					all = append(all, Group{ID: fmt.Sprintf("%02d", i)})
					if i%2 == 0 {
						at := time.UnixMilli(int64(i))
						all[len(all)-1].MetaInfo.Timestamp = &at
					} else {
						all[len(all)-1].CreationTime = time.UnixMilli(int64(i))
					}
				}
				record := BillableRecord{Key: r.Key, Properties: r.Properties}
				if r.Quantity != "" {
					record.Quantity, _ = ParseQuantity(r.Quantity)
				}
				group := &all[len(all)-1]
				group.MetaInfo.BillableRecords = append(group.MetaInfo.BillableRecords, record)
			}
			records, _, _, _ := terms.convert(&NewGroup{Records: g.Records})
			for key, q := range records {
				if len(all) == 0 || cut(0) {
					all = append(all, Group{ID: "v1", Records: map[string]Quantity{}})
				}
				for i := range all {
					if all[i].Records != nil {
						all[i].Records[key] = q
						break
					}
				}
			}
			return all
		}
		whole := groups(func(int) bool { return false })
		parts := groups(func(int) bool { return rapid.Bool().Draw(t, "cut") })
		rand.New(rand.NewSource(rapid.Int64().Draw(t, "seed"))).Shuffle(len(parts), reflect.Swapper(parts)) //nolint:gosec // it shuffles
		var lists [][]Group
		for from, to := 0, 0; from < len(parts); from = to {
			to = rapid.IntRange(from+1, len(parts)).Draw(t, "to")
			lists = append(lists, parts[from:to])
		}
		one, several := terms.convertWhole(whole), terms.convertLists(lists)
		if fmt.Sprintf("%+v", one) != fmt.Sprintf("%+v", several) {
			t.Fatalf("%+v\nand in parts\n%+v", one, several)
		}
		for _, p := range one.Problems {
			switch p.Code {
			case ProblemMappingUnreadable, ProblemMetricUnknown, ProblemNoPrice, ProblemQuantityPrecision:
			default:
				t.Fatalf("a rule for new usage is checked again: %+v", p)
			}
		}
	})
}
