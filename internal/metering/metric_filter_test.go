package metering

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// value reads JSON as a document.
func value(t *testing.T, text string) any {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	var v any
	if err := decoder.Decode(&v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return document(t, v)
}

func TestFilter_Holds(t *testing.T) {
	for _, c := range []struct {
		operation FilterOperation
		valueType FilterValueType
		value     string
		holds     string // properties, separated by " | "
		fails     string
	}{
		{"IS", "STRING", `"eu"`, `"eu"`, `"EU" | "e" | 1 | true | null | ["eu"] | {}`},
		{"EQ", "STRING", `"1"`, `"1" | 1 | 1.0 | 10e-1`, `"1.0" | "01" | true`},
		{"IS", "STRING", `true`, `true | "true"`, `false | 1 | null`},
		{"IS", "STRING", `null`, ``, `null | "null" | 0`},
		{"IS", "STRING", `["a",{"b":1}]`, `["a",{"b":1.0}]`, `["a"] | {"b":1} | "a" | null`},
		{"NOT_IS", "STRING", `"eu"`, `"us" | 1 | [] | null`, `"eu"`},
		{"IS", "FLOAT", `1.50`, `1.5 | "1.5" | 15e-1 | "0.15e1"`, `1.51 | "1,5" | "x" | true | null | [1.5]`},
		{"EQ", "FLOAT", `"1.50"`, `1.5 | "1.5"`, `1 | "x"`},
		{"EQ", "FLOAT", `"x"`, `"x"`, `1 | "y"`},
		{"NOT_EQ", "FLOAT", `0`, `1 | "x" | -0.0000001 | [0]`, `0 | -0 | 0e5 | "0.0"`},
		{"EQ", "FLOAT", `12345678901234567890123456789012345678`, `12345678901234567890123456789012345678`, `12345678901234567890123456789012345677`},
		{"GT", "FLOAT", `10`, `10.0000001 | 11 | 1e20 | "100"`, `10 | 9 | -11 | "9" | "x" | null | true | [11]`},
		{"GTE", "FLOAT", `-1.5`, `-1.5 | -1.4999 | 0 | 7`, `-1.51 | -20 | null`},
		{"LT", "FLOAT", `10`, `9.99 | -1e30 | 0 | "9"`, `10 | 100 | null | "x"`},
		{"LTE", "FLOAT", `0`, `0 | -1e-130 | -5`, `1e-130 | 1`},
		{"GT", "STRING", `"b"`, `"c" | "ba"`, `"b" | "a" | "B" | null | {}`},
		{"GTE", "STRING", `"10"`, `"9" | 9 | "10"`, `"1"`}, // as texts
		{"LT", "STRING", `"b"`, `"a" | "" | 7`, `"b" | true | null`},
		{"LTE", "STRING", `"b"`, `"b" | "a"`, `"c"`},
		{"CONTAINS", "STRING", `"ea"`, `"ea" | "area" | ["ea"] | ["x","ea"]`, `"e a" | ["area"] | null | {"ea":1} | ["x"] | []`},
		{"CONTAINS", "STRING", `""`, `"" | "x" | 1`, `null | []`},
		{"CONTAINS", "STRING", `2`, `123 | "2" | [2] | ["2"]`, `13 | [12]`},
		{"CONTAINS", "STRING", `["a"]`, `[["a"]]`, `"a" | ["a"] | null`},
		{"CONTAINS", "FLOAT", `2`, `[1,2.0] | ["2"] | 125`, `[12] | null`},
		{"NOT_CONTAINS", "STRING", `"ea"`, `"x" | [] | null | 5`, `"area" | ["ea"]`},
		{"EXISTS", "STRING", `null`, `"x" | 0 | false | "" | []`, `null`},
		{"NOT_EXISTS", "STRING", `"x"`, `null`, `"x" | 0 | false | ""`},
		{"IS", "", `1`, `1.0 | "1.0"`, `"x"`},
		{"IS", "", `"1"`, `1.0 | "1"`, `"1.0"`},
		{"NEWER", "STRING", `"x"`, ``, `"x" | null`},
	} {
		rule := newFilterRule(&MetricFilter{Name: "p", Operation: c.operation, ValueType: c.valueType, Value: value(t, c.value)})
		for want, properties := range map[bool]string{true: c.holds, false: c.fails} {
			for _, text := range strings.Split(properties, " | ") {
				if text == "" {
					continue
				}
				if got := rule.holds(value(t, text)); got != want {
					t.Errorf("%s %s %s of %s: %v", c.operation, c.valueType, c.value, text, got)
				}
			}
		}
	}
}

func TestMetricRule_SaysWhichPropertiesARecordHas(t *testing.T) {
	filter := func(name string, operation FilterOperation, text string) MetricFilter {
		return MetricFilter{Name: name, Operation: operation, Value: value(t, text), ValueType: "STRING"}
	}
	metric := &BillableMetric{AggregationType: AggregateUniqueCount, Info: MetricInfo{
		FilterGroups: []FilterGroup{
			{Filters: []MetricFilter{filter("plan", "IS", `"pro"`), filter("region", "IS", `"eu"`)}},
			{Filters: []MetricFilter{filter("test", "NOT_EXISTS", `null`)}},
		},
		GroupBys: []string{"team", "user"}, PropertyUniqueOn: "user",
	}}
	rule := newMetricRule(metric)
	if rule.fault != "" {
		t.Fatal(rule.fault)
	}
	for properties, want := range map[string]string{
		`{"plan":"pro","region":"us","team":"a","user":1}`:                `[] [] -`,
		`{"plan":"x","region":"eu","team":"a","user":1,"test":null}`:      `[] [] -`,
		`{"plan":"x","region":"us","team":"a","user":1}`:                  `[] [] 0`,
		`{"plan":"pro","region":"us","team":"a","user":1,"test":false}`:   `[] [] 1`,
		`{"plan":"pro","region":"us","user":null}`:                        `[team user] [] -`,
		`{"plan":"pro","region":"us","team":"a","user":1,"z":null,"y":1}`: `[] [y z] -`,
		`{}`: `[plan region team user] [] 0`,
	} {
		document, _ := value(t, properties).(map[string]any)
		failing := "-"
		if i, fails := rule.failing(document); fails {
			failing = fmt.Sprint(i)
		}
		if got := fmt.Sprintf("%v %v %s", rule.missing(document), rule.extra(document), failing); got != want {
			t.Errorf("%s: %s, want %s", properties, got, want)
		}
	}
	if _, fails := (&metricRule{groups: [][]filterRule{{}}}).failing(nil); !fails {
		t.Error("a filter of a group without filters holds")
	}
	if missing := rule.missing(nil); len(missing) != 4 {
		t.Errorf("without properties: %v", missing)
	}
}

// A metric that a newer version has stored must not be applied by a guess.
func TestMetricRule_RefusesWhatItDoesNotKnow(t *testing.T) {
	known := func() *BillableMetric {
		return &BillableMetric{AggregationType: AggregateSum, Info: MetricInfo{FilterGroups: []FilterGroup{{Filters: []MetricFilter{{Name: "a", Operation: "IS", Value: "x", ValueType: "STRING"}}}}}}
	}
	newer := map[string]any{"newer": true}
	for want, change := range map[string]func(m *BillableMetric){
		"":                        func(m *BillableMetric) { m.Unknown = newer }, // says nothing of records
		`its info`:                func(m *BillableMetric) { m.Info.Unknown = newer },
		`a filter group`:          func(m *BillableMetric) { m.Info.FilterGroups[0].Unknown = newer },
		`a filter has the member`: func(m *BillableMetric) { m.Info.FilterGroups[0].Filters[0].Unknown = newer },
		`"MATCHES"`:               func(m *BillableMetric) { m.Info.FilterGroups[0].Filters[0].Operation = "MATCHES" },
		`"DATE"`:                  func(m *BillableMetric) { m.Info.FilterGroups[0].Filters[0].ValueType = "DATE" },
		`"P95"`:                   func(m *BillableMetric) { m.AggregationType = "P95" },
		`no propertyUniqueOn`:     func(m *BillableMetric) { m.AggregationType = AggregateUniqueCount },
	} {
		metric := known()
		change(metric)
		metric.ID, metric.Name, metric.Status = "m1", "a", MetricActive
		fault := newMetricRule(metric).fault
		if (fault == "") != (want == "") || !strings.Contains(fault, want) {
			t.Errorf("%q, want %q", fault, want)
		}
		terms := &Terms{Entitlement: &Entitlement{ID: "ent", Partner: "AZURE"}, Metrics: []BillableMetric{*metric}}
		group := &NewGroup{BillableRecords: []NewBillableRecord{{Key: "m1", Quantity: "1", Properties: map[string]any{"a": "x"}}}}
		records, origin, _, problems := terms.convert(group)
		refused := len(records) == 0 && len(origin) == 0 && problems[0].Code == ProblemMetricUnknown && problems[0].Path == "/billableRecords/0/key" &&
			strings.Contains(problems[0].Message, want)
		if refused != (want != "") {
			t.Errorf("%q: %v, %v, %+v", want, records, origin, problems)
		}
		hour := terms.convertGroups([]Group{{MetaInfo: MetaInfo{BillableRecords: []BillableRecord{{Key: "m1", Quantity: quantity(t, "1")}}}}})
		if refused = len(hour.records()) == 0 && len(hour.Problems) == 1 && hour.Problems[0].Code == ProblemMetricUnknown; refused != (want != "") {
			t.Errorf("%q: an hour is %+v", want, hour)
		}
	}
}

func TestAggregate_CountsDistinctValues(t *testing.T) {
	a := aggregation{metric: &BillableMetric{AggregationType: AggregateUniqueCount, Info: MetricInfo{PropertyUniqueOn: "p"}}}
	count := func() string {
		total := a.total()
		return total.String()
	}
	for i, same := range []string{
		`1 | 1.0 | 10e-1`, `"1"`, `true`, `"true"`, `false`, `""`, `[] `, `{}`, `[1] | [1.00]`, `["1"]`, `[[1]]`, `[1,1]`, `["11"]`, `["1","1"]`,
		`{"a":1,"b":2} | {"b":2,"a":1.0}`, `{"a":{"b":2}}`, `{"a":null}`, `{"a":"n"}`, `[null]`, `[true]`, `[false]`, `"[1]"`, `"n"`, `{"ab":"c"}`, `{"a":"bc"}`, `[{},[]]`, `[[],{}]`,
		`["\u0022\u0001a"]`, `["\"","\u0001a"]`,
	} {
		for _, text := range strings.Split(same, " | ") {
			a.add(Quantity{}, map[string]any{"p": value(t, text)})
		}
		if got, want := count(), fmt.Sprint(i+1); got != want {
			t.Fatalf("after %s: %s, want %s", same, got, want)
		}
	}
	before := count()
	a.add(Quantity{}, map[string]any{"p": nil})
	a.add(Quantity{}, nil)
	if count() != before {
		t.Errorf("null is counted: %s", count())
	}
}

func TestAggregate_MaxOfNegativeQuantities(t *testing.T) {
	a := aggregation{metric: &BillableMetric{AggregationType: AggregateMax}}
	for _, text := range []string{"-5", "-1.5", "-7"} {
		a.add(quantity(t, text), nil)
	}
	if total := a.total(); total.String() != "-1.5" {
		t.Errorf("%s", &total)
	}
}
