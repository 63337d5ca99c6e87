package metering

import (
	"errors"
	"fmt"
	"maps"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// config makes a config of JSON.
func config(t *testing.T, text string) ConfigVersion {
	object, ok := numerals(value(t, text)).(map[string]any)
	if !ok {
		t.Fatal(text)
	}
	return ConfigVersion{Config: object}
}

// numerals returns a document as a config holds it.
func numerals(value any) any {
	switch value := value.(type) {
	case Number:
		return Numeral(value.String())
	case map[string]any:
		object := map[string]any{}
		for name, member := range value {
			object[name] = numerals(member)
		}
		return object
	case []any:
		array := make([]any, len(value))
		for i := range value {
			array[i] = numerals(value[i])
		}
		return array
	default:
		return value
	}
}

func oneRecord(key, quantity string) *NewGroup {
	return &NewGroup{Records: []NewRecord{{key, quantity}}}
}

// What this version does not know of the entry that counts makes a group INVALID and stops an hour.
func TestConvert_RefusesAConfigThatItCannotRead(t *testing.T) {
	const on = `"partner":"AWS","enableDimensionMapping":true`
	for text, fault := range map[string]string{
		`{}`:                                      "",
		`{"partnerUsageMeteringConfigs":null}`:    "",
		`{"partnerUsageMeteringConfigs":[]}`:      "",
		`{"newer":1}`:                             "",
		`{"partnerUsageMeteringConfigs":{}}`:      "is not an array",
		`{"partnerUsageMeteringConfigs":["AWS"]}`: "[0] has no partner",
		`{"partnerUsageMeteringConfigs":[{"partner":"GCP"},{"partner":["AWS"]}]}`:                                                                                                  "[1] has no partner",
		`{"partnerUsageMeteringConfigs":[{"partner":"AWS"},{"partner":"AWS"}]}`:                                                                                                    "two entries of AWS",
		`{"partnerUsageMeteringConfigs":[{"partner":"AWS","newer":1}]}`:                                                                                                            "",
		`{"partnerUsageMeteringConfigs":[{"partner":"AWS","enableDimensionMapping":false,"x":1}]}`:                                                                                 "",
		`{"partnerUsageMeteringConfigs":[{"partner":"AWS","enableDimensionMapping":null,"x":1}]}`:                                                                                  "",
		`{"partnerUsageMeteringConfigs":[{"partner":"AWS","enableDimensionMapping":"auto"}]}`:                                                                                      "neither true nor false",
		`{"partnerUsageMeteringConfigs":[{"partner":"AWS","enableDimensionMapping":1}]}`:                                                                                           "neither true nor false",
		`{"partnerUsageMeteringConfigs":[{` + on + `,"newer":null,"also":1}]}`:                                                                                                     `the member "also"`,
		`{"partnerUsageMeteringConfigs":[{` + on + `,"dimensionMapping":["x"]}]}`:                                                                                                  "a dimensionMapping that is not an object",
		`{"partnerUsageMeteringConfigs":[{` + on + `,"dimensionMapping":"x"}]}`:                                                                                                    "a dimensionMapping that is not an object",
		`{"partnerUsageMeteringConfigs":[{` + on + `,"dimensionMappingV2":false}]}`:                                                                                                "a dimensionMappingV2 that is not an object",
		`{"partnerUsageMeteringConfigs":[{` + on + `,"dimensionMapping":[],"dimensionMappingV2":null}]}`:                                                                           "",
		`{"partnerUsageMeteringConfigs":[{` + on + `,"enableBillableDimension":"x","enableCommitWithAdditionalUsageMetering":7,"enableCommitWithAdditionalUsageAtListPrice":{}}]}`: "", // they have no effect here
		`{"partnerUsageMeteringConfigs":[{"partner":"GCP","enableDimensionMapping":true,"newer":1},{` + on + `}]}`:                                                                 "",
		`unreadable`: "the usage metering config can't be read: it is torn",
	} {
		version := ConfigVersion{Err: errors.New("it is torn")}
		if text != `unreadable` {
			version = config(t, text)
		}
		terms := &Terms{Entitlement: &Entitlement{ID: "ent", Partner: "AWS"}, Config: version, Metrics: []BillableMetric{{ID: "m", Name: "m", Status: MetricActive, AggregationType: AggregateSum}}}
		terms.Entitlement.Info = EntitlementInfo{DimensionsKnown: true, Dimensions: []Dimension{{Key: "a"}, {Key: "m"}}}
		records, origin, _, problems := terms.convert(oneRecord("a", "5"))
		good := len(problems) == 0 && len(records) == 1
		bad := len(problems) == 1 && problems[0].Code == ProblemMappingUnreadable && problems[0].Path == "/records" && len(records) == 0
		if fault == "" && !good || fault != "" && (!bad || !strings.Contains(problems[0].Message, fault)) {
			t.Errorf("%s: %v, %+v; want %q", text, records, problems, fault)
		}
		if len(origin) != 1 {
			t.Errorf("%s: origin %v", text, origin)
		}
		hour := terms.convertGroups([]Group{{MetaInfo: MetaInfo{BillableRecords: []BillableRecord{{Key: "m", Quantity: quantity(t, "5")}}}}})
		if stopped := len(hour.Problems) == 1 && hour.Problems[0].Code == ProblemMappingUnreadable && len(hour.records()) == 0; stopped != (fault != "") {
			t.Errorf("%s: the hour is %+v", text, hour)
		}
		// What was converted when its group was accepted does not need the config.
		hour = terms.convertGroups([]Group{{Records: records}})
		if len(hour.Problems) > 0 || !maps.Equal(hour.records(), records) {
			t.Errorf("%s: the hour is %+v", text, hour)
		}
	}
}

// A mapping that can't be read matters only to the sources that it maps.
func TestConvert_RefusesAMappingThatItCannotRead(t *testing.T) {
	for mapping, fault := range map[string]string{
		`{"dimensionKey":"a","convertionMultiplier":2}`:                          "",
		`{"dimensionKey":"a","convertionMultiplier":2,"mappingMode":null}`:       "",
		`{"dimensionKey":"a","convertionMultiplier":2,"mappingMode":"QUANTITY"}`: "",
		`{"dimensionKey":"a","mappingMode":"AMOUNT","convertionMultiplier":"x"}`: "",
		`{"dimensionKey":"a","mappingMode":"AMOUNT","convertionMultiplier":-1}`:  "",
		`null`: "absent",
		`"a"`:  "not an object",
		`[]`:   "not an object",
		`{"dimensionKey":"a","convertionMultiplier":2,"newer":null}`:                   `the member "newer"`,
		`{"dimensionKey":"a","convertionMultiplier":2,"mappingMode":"LOG"}`:            "mappingMode",
		`{"dimensionKey":"a","convertionMultiplier":2,"mappingMode":"amount"}`:         "mappingMode",
		`{"dimensionKey":"a","convertionMultiplier":2,"mappingMode":7}`:                "mappingMode",
		`{"convertionMultiplier":2}`:                                                   "dimensionKey",
		`{"dimensionKey":"","convertionMultiplier":2}`:                                 "dimensionKey",
		`{"dimensionKey":["a"],"convertionMultiplier":2}`:                              "dimensionKey",
		`{"dimensionKey":"` + strings.Repeat("x", 256) + `","convertionMultiplier":2}`: "dimensionKey",
		`{"dimensionKey":"a"}`:                                               "convertionMultiplier",
		`{"dimensionKey":"a","convertionMultiplier":0}`:                      "convertionMultiplier",
		`{"dimensionKey":"a","convertionMultiplier":-1}`:                     "convertionMultiplier",
		`{"dimensionKey":"a","convertionMultiplier":"2"}`:                    "convertionMultiplier",
		`{"dimensionKey":"a","convertionMultiplier":1e30}`:                   "convertionMultiplier",
		`{"dimensionKey":"a","convertionMultiplier":0.00000000000000000001}`: "convertionMultiplier",
	} {
		for _, member := range []string{`"dimensionMapping":{"s":` + mapping, `"dimensionMappingV2":{"s":[` + mapping + `]`} {
			terms := &Terms{Entitlement: &Entitlement{ID: "ent", Partner: "GCP"}}
			terms.Entitlement.Info = EntitlementInfo{DimensionsKnown: true, Dimensions: []Dimension{{Key: "a", Rate: quantity(t, "2")}, {Key: "b"}, {Key: "s"}}}
			terms.Config = config(t, `{"partnerUsageMeteringConfigs":[{"partner":"GCP","enableDimensionMapping":true,`+member+`}}]}`)
			records, _, _, problems := terms.convert(&NewGroup{Records: []NewRecord{{"s", "4"}, {"b", "1"}}})
			want := fault
			if mapping == `null` {
				want = ""
				if strings.Contains(member, "V2") {
					want = "not an object"
				}
			}
			if records["b"] != quantity(t, "1") {
				t.Errorf("%s: the other record is lost: %v", member, records)
			}
			if want == "" && (len(records) != 2 || len(problems) > 0) {
				t.Errorf("%s: %v, %+v", member, records, problems)
			}
			if want != "" && (len(records) != 1 || len(problems) != 1 || problems[0].Code != ProblemMappingUnreadable || problems[0].Path != "/records/s" || !strings.Contains(problems[0].Message, want)) {
				t.Errorf("%s: %v, %+v; want %q", member, records, problems, want)
			}
		}
	}
	terms := &Terms{Entitlement: &Entitlement{Partner: "GCP"}, Config: config(t, `{"partnerUsageMeteringConfigs":[{"partner":"GCP","enableDimensionMapping":true,"dimensionMappingV2":{"s":{"dimensionKey":"a","convertionMultiplier":1}}}]}`)}
	if _, _, _, problems := terms.convert(oneRecord("s", "1")); problems[0].Message != `records["s"] is mapped by dimensionMappingV2["s"]: it is not an array` {
		t.Errorf("%+v", problems)
	}
}

func TestConvert_SaysWhatToChange(t *testing.T) {
	terms := &Terms{
		Entitlement: &Entitlement{ID: "ent-1", Partner: "AWS", Info: EntitlementInfo{DimensionsKnown: true, Dimensions: []Dimension{
			{Key: "api_calls"}, {Key: "storage_gb", Name: "Storage"}, {Key: "eu", Name: "Same"}, {Key: "us", Name: "Same"},
		}}},
		Config: config(t, `{"partnerUsageMeteringConfigs":[{"partner":"AWS","enableDimensionMapping":true,"dimensionMapping":{
			"cpu":{"dimensionKey":"gone","convertionMultiplier":1},"spend":{"dimensionKey":"api_calls","mappingMode":"AMOUNT"}}}]}`),
		Metrics: []BillableMetric{{ID: "m1", Name: "Calls", Status: MetricActive, AggregationType: AggregateCount}, {ID: "m2", Name: "Old", Status: MetricDeleted, AggregationType: AggregateCount}},
	}
	v2 := func(key string) *NewGroup {
		return &NewGroup{BillableRecords: []NewBillableRecord{{Key: key, Quantity: "1", Properties: map[string]any{"x": true}}}}
	}
	for i, c := range []struct {
		group         *NewGroup
		message, hint string
	}{
		{oneRecord("api_cals", "1"), `records["api_cals"] is not a dimension of entitlement "ent-1"`, `did you mean "api_calls"? If not, map it to a dimension in the usage metering config, or add it to info.dimensions of the entitlement, and retry`},
		{oneRecord("API_CALLS", "1"), `records["API_CALLS"] is not`, `did you mean "api_calls"?`},
		{oneRecord("gb", "1"), `records["gb"] is not`, `map it to a dimension`},
		{oneRecord("Same", "1"), `records["Same"] is the name of several dimensions of entitlement "ent-1"`, `send the key of the dimension`},
		{oneRecord("cpu", "1"), `records["cpu"] is mapped to dimension "gone", which entitlement "ent-1" does not have`, `correct the mapping in the usage metering config`},
		{oneRecord("spend", "1"), `records["spend"] is an amount of money for dimension "api_calls", which has no price: entitlement "ent-1" has no rate over 0 for it`, `set a rate over 0`},
		{oneRecord("eu", "-0.5"), `records["eu"]: -0.5 is negative: a quantity is 0 or more`, `send a quantity of 0 or more`},
		{oneRecord("eu", "12345678901234567890"), `records["eu"]: 12345678901234567890 does not fit`, `fewer digits`},
		{oneRecord("eu", "10000000000"), `dimension "eu" comes to 10000000000: it must be less than 10000000000 on AWS`, `larger unit`},
		{v2("Calls"), `billableRecords[0].key: "Calls" is not the id of a billable metric`, `a metric has this name: send its id as key, "m1"`},
		{v2("Old"), `billableRecords[0].key: "Old" is not the id of a billable metric`, `send the id of a billable metric as key, or create the metric`},
		{v2("m2"), `billableRecords[0].key: billable metric "m2" ("Old") is DELETED: it must be ACTIVE`, `make this one ACTIVE again`},
		{v2("m1"), `billableRecords[0].properties: "x" must not be sent, for billable metric "m1"`, `and no others`},
	} {
		_, _, _, problems := terms.convert(c.group)
		if len(problems) != 1 || !strings.HasPrefix(problems[0].Message, c.message) || !strings.Contains(problems[0].Hint, c.hint) {
			t.Errorf("%d: %+v\nwant %s\n%s", i, problems, c.message, c.hint)
		}
	}
}

// Without an entitlement nothing is known but what a quantity is.
func TestConvert_ChecksQuantitiesWithoutAnEntitlement(t *testing.T) {
	terms := &Terms{Config: ConfigVersion{Err: errors.New("unread")}}
	records, origin, _, problems := terms.convert(&NewGroup{Records: []NewRecord{{"b", "-1"}, {"a", "12345678901234567890"}, {"c", "2"}}})
	if records != nil || len(origin) != 2 || len(problems) != 2 || problems[0].Code != ProblemQuantityPrecision || problems[1].Code != ProblemQuantityNegative {
		t.Errorf("%v, %v, %+v", records, origin, problems)
	}
	records, origin, billable, problems := terms.convert(&NewGroup{BillableRecords: []NewBillableRecord{{Key: "m", Quantity: "-1"}, {Key: "m", Quantity: "1e30"}, {Key: "n", Quantity: "2"}, {Key: "n"}}})
	if records != nil || origin != nil || len(billable) != 4 || len(problems) != 2 || problems[0].Path != "/billableRecords/0/quantity" || problems[1].Path != "/billableRecords/1/quantity" {
		t.Errorf("%v, %v, %v, %+v", records, origin, billable, problems)
	}
}

// Billable records are stored as they were sent, also those that can't be converted.
func TestConvert_KeepsBillableRecords(t *testing.T) {
	properties := map[string]any{"a": "b"}
	_, _, billable, _ := (&Terms{Entitlement: &Entitlement{Partner: "AWS"}}).convert(&NewGroup{MetaInfo: NewMetaInfo{BillableRecords: []NewBillableRecord{
		{Key: "m", Quantity: "-1.50", Properties: properties}, {Key: "n"},
	}}})
	if len(billable) != 2 || billable[0].Key != "m" || billable[0].Quantity != quantity(t, "-1.5") || billable[0].Properties["a"] != "b" || billable[1].Properties != nil || billable[1].Quantity.Sign() != 0 {
		t.Errorf("%+v", billable)
	}
}

// A group of many records has at most MaxProblems problems of a code, the same whatever the order.
func TestConvert_CountsProblemsThatItDoesNotList(t *testing.T) {
	terms := &Terms{Entitlement: &Entitlement{ID: "ent", Partner: "AWS", Info: EntitlementInfo{DimensionsKnown: true, Dimensions: []Dimension{{Key: "key-9"}}}}}
	g := &NewGroup{}
	for i := range MaxProblems + 23 {
		g.Records = append(g.Records, NewRecord{fmt.Sprintf("key-%d", i), "1"}, NewRecord{fmt.Sprintf("negative-%d", i), "-1"})
	}
	records, origin, _, problems := terms.convert(g)
	if len(records) != MaxProblems+23 || len(origin) != 2*len(records) || len(problems) != 2*MaxProblems {
		t.Fatalf("%d records, %d origin, %d problems", len(records), len(origin), len(problems))
	}
	more := map[ProblemCode]string{}
	for _, p := range problems {
		if before, after, ok := strings.Cut(p.Message, "; "); ok {
			more[p.Code] += before[:len("records")] + " " + after
		}
	}
	if len(more) != 2 || more[ProblemDimensionUnknown] != "records 22 more problems of this code are not listed" || more[ProblemQuantityNegative] != "records 23 more problems of this code are not listed" {
		t.Errorf("%q", more)
	}
	slices.Reverse(g.Records)
	if _, _, _, again := terms.convert(g); !reflect.DeepEqual(again, problems) {
		t.Error("problems depend on the order")
	}
}

// The records that a group of an hour was accepted with add up exactly, whatever their sum is.
func TestConvertHour_AddsRecords(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		terms := drawTerms(t)
		want := map[string]*big.Rat{}
		var groups []Group
		for range rapid.IntRange(0, 6).Draw(t, "groups") {
			g := Group{Records: map[string]Quantity{}}
			for _, key := range rapid.SliceOfNDistinct(drawnKeys, 0, 4, rapid.ID).Draw(t, "keys") {
				g.Records[key], _ = ParseQuantity(drawnQuantity.Draw(t, "quantity"))
				if want[key] == nil {
					want[key] = new(big.Rat)
				}
				want[key].Add(want[key], rat(g.Records[key].String()))
			}
			groups = append(groups, g)
		}
		hour := terms.convertGroups(groups)
		if len(hour.Totals) != len(want) || len(hour.Problems) > 0 {
			t.Fatalf("%v: %+v", hour.Totals, hour.Problems)
		}
		for key, v := range want {
			if total, ok := hour.Totals[key]; !ok || total.rat().Cmp(v) != 0 {
				t.Fatalf("%s is %s, want %s", key, total, v.FloatString(20))
			}
		}
	})
}

// LAST is the last record of the hour: by timestamp, then by creation, then by id.
func TestConvertHour_OrdersGroupsForLast(t *testing.T) {
	terms := &Terms{Entitlement: &Entitlement{Partner: "AWS"}, Metrics: []BillableMetric{{ID: "m", Name: "seats", Status: MetricActive, AggregationType: AggregateLast}}}
	group := func(id string, timestamp, creation int64, quantities ...int64) Group {
		g := Group{ID: id, CreationTime: time.UnixMilli(creation)}
		if timestamp > 0 {
			at := time.UnixMilli(timestamp)
			g.MetaInfo.Timestamp = &at
		}
		for _, q := range quantities {
			g.MetaInfo.BillableRecords = append(g.MetaInfo.BillableRecords, BillableRecord{Key: "m", Quantity: quantityOf(q)})
		}
		return g
	}
	for i, groups := range [][]Group{
		{group("a", 5, 1, 3, 7), group("b", 4, 9, 1)},
		{group("a", 5, 2, 7), group("b", 5, 1, 1)},
		{group("b", 5, 1, 7), group("a", 5, 1, 1)},
		{group("a", 0, 6, 7), group("b", 5, 9, 1)},
	} {
		slices.Reverse(groups)
		for range 2 {
			slices.Reverse(groups)
			if hour := terms.convertGroups(groups); hour.records()["seats"] != quantityOf(7) {
				t.Errorf("%d: %+v", i, hour)
			}
		}
	}
}

func TestConvertHour_NamesAMetricThatDoesNotExist(t *testing.T) {
	terms := &Terms{Entitlement: &Entitlement{Partner: "AWS"}}
	hour := terms.convertGroups([]Group{{Records: map[string]Quantity{"a": quantityOf(1)}}, {MetaInfo: MetaInfo{BillableRecords: []BillableRecord{{Key: "m"}}}}})
	if len(hour.records()) != 1 || len(hour.Problems) != 1 || hour.Problems[0].Code != ProblemMetricUnknown || hour.Problems[0].Path != "" {
		t.Errorf("%+v", hour)
	}
}

// Usage that was accepted by a metric is reported after the metric was deleted.
func TestConvertHour_TakesDeletedMetrics(t *testing.T) {
	terms := &Terms{Entitlement: &Entitlement{Partner: "AWS"}, Metrics: []BillableMetric{{ID: "m", Name: "calls", Status: MetricDeleted, AggregationType: AggregateCount}}}
	hour := terms.convertGroups([]Group{{MetaInfo: MetaInfo{BillableRecords: []BillableRecord{{Key: "m"}}}}})
	if len(hour.Problems) > 0 || hour.records()["calls"] != quantityOf(1) || hour.Aggregates["m"].String() != "1" {
		t.Errorf("%+v", hour)
	}
}

func TestConvertHour_OrdersProblems(t *testing.T) {
	terms := &Terms{Entitlement: &Entitlement{Partner: "AWS"}}
	var records []BillableRecord
	var want []string
	for i := range 9 {
		id := fmt.Sprintf("m%d", i)
		records = append(records, BillableRecord{Key: id, Quantity: quantityOf(1)})
		want = append(want, id)
	}
	group := Group{MetaInfo: MetaInfo{BillableRecords: records}}
	var got []string
	for _, p := range terms.convertGroups([]Group{group, group}).Problems {
		got = append(got, strings.Split(p.Message, `"`)[1])
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

// The records of a metric add up to more digits than a quantity has: the hour is converted all the
// same, to the last digit.
func TestConvertHour_SumsOfAnySize(t *testing.T) {
	terms := &Terms{
		Entitlement: &Entitlement{Partner: "AWS"},
		Metrics:     []BillableMetric{{ID: "m", Name: "calls", AggregationType: AggregateSum}, {ID: "top", Name: "top", AggregationType: AggregateMax}},
	}
	group := func(metric, text string) Group {
		return Group{MetaInfo: MetaInfo{BillableRecords: []BillableRecord{{Key: metric, Quantity: quantity(t, text)}}}}
	}
	for text, groups := range map[string][]Group{
		"100.30000000000000004":                   {group("m", "0.30000000000000004"), group("m", "100")},
		"19999999999999999998":                    {group("m", "9999999999999999999"), group("m", "9999999999999999999")},
		"9999999999999999999.0000000000000000001": {group("m", "9999999999999999999"), group("m", "0.0000000000000000001")},
	} {
		hour := terms.convertGroups(append(groups, group("top", "7")))
		if len(hour.Problems) > 0 || hour.Totals["calls"].String() != text || hour.Aggregates["m"].String() != text || hour.Totals["top"].String() != "7" {
			t.Errorf("%s: %+v", text, hour)
		}
	}
}

// For all quantities, sums and products are exact, whatever their signs and sizes.
func TestSum_IsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		signed := func() (Quantity, *big.Rat) {
			text := drawnQuantity.Draw(t, "quantity")
			if rapid.Bool().Draw(t, "negative") {
				text = "-" + text
			}
			q, err := ParseQuantity(text)
			if err != nil {
				t.Fatal(err)
			}
			return q, rat(text)
		}
		var s sum
		want := new(big.Rat)
		for range rapid.IntRange(0, 12).Draw(t, "terms") {
			a, x := signed()
			switch rapid.IntRange(0, 3).Draw(t, "kind") {
			case 0:
				b, y := signed()
				s.addProduct(&sum{small: a.d}, b)
				want.Add(want, x.Mul(x, y))
			case 1: // of a sum that may be large
				b, y := signed()
				c, z := signed()
				several := sum{small: a.d}
				several.add(c)
				s.addProduct(&several, b)
				want.Add(want, y.Mul(y, z.Add(x, z)))
			case 2:
				c, z := signed()
				several := sum{small: a.d}
				several.add(c)
				s.addSum(&several)
				want.Add(want, z.Add(x, z))
			default:
				s.add(a)
				want.Add(want, x)
			}
			if rat(s.String()).Cmp(want) != 0 || !jsonNumber.MatchString(s.String()) {
				t.Fatalf("%s, want %s", &s, want.FloatString(40))
			}
			if q, fits := s.quantity(); fits != fitsQuantity(want) || fits && rat(q.String()).Cmp(want) != 0 {
				t.Fatalf("%s, %v; want %s", q, fits, want.FloatString(40))
			}
		}
	})
}

// A batch judges groups of one entitlement at the same time, by the same terms.
func TestConvert_AtTheSameTime(t *testing.T) {
	terms := benchTerms()
	groups := []*NewGroup{recordsOf("Dimension 7", "mapped", "spend", "twice"), billableRecords(5), recordsOf("dimension_1", "unknown")}
	type result struct {
		records  map[string]Quantity
		problems []Problem
	}
	var want []result
	for _, g := range groups {
		records, _, _, problems := benchTerms().convert(g)
		want = append(want, result{records, problems})
	}
	results := make(chan result)
	for i := range 30 {
		go func() {
			records, _, _, problems := terms.convert(groups[i%len(groups)])
			results <- result{records, problems}
		}()
	}
	counts := make([]int, len(want))
	for range 30 {
		got := <-results
		for i := range want {
			if maps.Equal(got.records, want[i].records) && reflect.DeepEqual(got.problems, want[i].problems) {
				counts[i]++
			}
		}
	}
	if !slices.Equal(counts, []int{10, 10, 10}) {
		t.Error(counts)
	}
}

func TestConvertHour_NamesTheDestinationsOfMetrics(t *testing.T) {
	terms := &Terms{
		Entitlement: &Entitlement{Partner: "AWS"},
		Metrics:     []BillableMetric{{ID: "m1", Name: "traffic", AggregationType: AggregateSum}, {ID: "m2", Name: "calls", AggregationType: AggregateCount}},
		Config: ConfigVersion{Config: Config{"partnerUsageMeteringConfigs": []any{map[string]any{
			"partner": "AWS", "enableDimensionMapping": true, "dimensionMappingV2": map[string]any{"m2": []any{
				map[string]any{"dimensionKey": "z", "convertionMultiplier": Numeral("1")},
				map[string]any{"dimensionKey": "a", "convertionMultiplier": Numeral("2")},
				map[string]any{"dimensionKey": "z", "convertionMultiplier": Numeral("3")},
			}},
		}}}},
	}
	hour := terms.convertGroups([]Group{
		{Records: map[string]Quantity{"z": quantityOf(1)}},
		{MetaInfo: MetaInfo{BillableRecords: []BillableRecord{{Key: "m1", Quantity: quantityOf(1)}, {Key: "m2"}}}},
	})
	if got := fmt.Sprint(hour.Destinations); got != "map[m1:[traffic] m2:[a z]]" || len(hour.Problems) > 0 {
		t.Errorf("%s, %+v", got, hour.Problems)
	}
}
