package metering

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// The examples of docs/conversion.md are the table of this test: each block of JSON is a case.
func TestConvert_GivesWhatTheDocumentSays(t *testing.T) {
	document, err := os.ReadFile("../../docs/conversion.md")
	if err != nil {
		t.Fatal(err)
	}
	heading, examples := "", 0
	for _, match := range regexp.MustCompile("(?ms)^#+ (.*?)$|^```json\n(.*?)^```$").FindAllSubmatch(document, -1) {
		if match[1] != nil {
			heading = string(match[1])
			continue
		}
		examples++
		t.Run(fmt.Sprintf("%d %s", examples, heading), func(t *testing.T) { readExample(t, match[2]).check(t) })
	}
	if fences := bytes.Count(document, []byte("```json")); examples != fences || examples < 25 {
		t.Errorf("%d of %d examples were read", examples, fences)
	}
}

// example is a block of docs/conversion.md.
type example struct {
	Partner    Partner
	Dimensions []struct {
		Key, Name       string
		Rate, ListPrice json.Number
	}
	Config  map[string]any
	Metrics []struct {
		ID, Name        string
		AggregationType AggregationType
		Status          MetricStatus
		Info            struct {
			FilterGroups []struct {
				Filters []struct {
					Name      string
					Operation FilterOperation
					Value     any
					ValueType FilterValueType
				}
			}
			GroupBys         []string
			PropertyUniqueOn string
		}
	}
	Report *exampleReport
	Hour   []exampleReport
	Gives  struct {
		Records       map[string]json.Number
		OriginRecords map[string]json.Number
		Problems      []struct {
			Code ProblemCode
			Path string
		}
	}

	hasDimensions bool
}

type exampleReport struct {
	Records         map[string]json.Number
	BillableRecords []exampleRecord
	MetaInfo        struct {
		SkipValidation  bool
		BillableRecords []exampleRecord
	}
}

type exampleRecord struct {
	Key        string
	Properties map[string]any
	Quantity   json.Number
}

func readExample(t *testing.T, text []byte) *example {
	var e example
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	decoder.UseNumber()
	if err := decoder.Decode(&e); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	e.hasDimensions = e.Dimensions != nil
	return &e
}

func (e *example) terms(t *testing.T) *Terms {
	if e.Partner == "" {
		e.Partner = "AWS"
	}
	terms := &Terms{Entitlement: &Entitlement{ID: "ent", Partner: e.Partner}}
	terms.Entitlement.Info.DimensionsKnown = e.hasDimensions
	for _, d := range e.Dimensions {
		terms.Entitlement.Info.Dimensions = append(terms.Entitlement.Info.Dimensions,
			Dimension{Key: d.Key, Name: d.Name, Rate: quantity(t, string(d.Rate)), ListPrice: quantity(t, string(d.ListPrice))})
	}
	if e.Config != nil {
		entry, _ := stored(e.Config).(map[string]any)
		if entry[configPartner] == nil {
			entry[configPartner] = string(e.Partner)
		}
		terms.Config.Config = Config{configEntries: []any{entry}}
	}
	for _, m := range e.Metrics {
		metric := BillableMetric{ID: MetricID(m.ID), Name: m.Name, AggregationType: m.AggregationType, Status: m.Status}
		if metric.Status == "" {
			metric.Status = MetricActive
		}
		metric.Info.GroupBys, metric.Info.PropertyUniqueOn = m.Info.GroupBys, m.Info.PropertyUniqueOn
		for _, g := range m.Info.FilterGroups {
			var group FilterGroup
			for _, f := range g.Filters {
				group.Filters = append(group.Filters, MetricFilter{Name: f.Name, Operation: f.Operation, Value: document(t, f.Value), ValueType: f.ValueType})
			}
			metric.Info.FilterGroups = append(metric.Info.FilterGroups, group)
		}
		terms.Metrics = append(terms.Metrics, metric)
	}
	return terms
}

func (r *exampleReport) group(t *testing.T) *NewGroup {
	g := &NewGroup{EntitlementID: "ent", BillableRecords: billableOf(t, r.BillableRecords)}
	for _, key := range slices.Backward(slices.Sorted(maps.Keys(r.Records))) {
		g.Records = append(g.Records, NewRecord{key, string(r.Records[key])})
	}
	g.MetaInfo.SkipValidation = r.MetaInfo.SkipValidation
	g.MetaInfo.BillableRecords = billableOf(t, r.MetaInfo.BillableRecords)
	return g
}

func billableOf(t *testing.T, records []exampleRecord) (all []NewBillableRecord) {
	for _, r := range records {
		record := NewBillableRecord{Key: r.Key, Quantity: string(r.Quantity)}
		if r.Properties != nil {
			record.Properties, _ = document(t, r.Properties).(map[string]any)
		}
		all = append(all, record)
	}
	return all
}

func (e *example) check(t *testing.T) {
	terms := e.terms(t)
	var records, origin map[string]Exact
	var problems []Problem
	switch {
	case e.Report != nil && e.Hour == nil:
		var converted, sent map[string]Quantity
		converted, sent, _, problems = terms.convert(e.Report.group(t))
		records, origin = exactsOf(converted), exactsOf(sent)
	case e.Report == nil && e.Hour != nil:
		var hour []Group
		for i, r := range e.Hour {
			_, origin, billable, problems := terms.convert(r.group(t))
			if len(problems) > 0 {
				t.Fatalf("group %d: %v", i, problems)
			}
			group := Group{ID: fmt.Sprint(i), MetaInfo: MetaInfo{BillableRecords: billable}, CreationTime: time.UnixMilli(int64(i))}
			if len(billable) == 0 {
				group.Records = origin
			}
			hour = append(hour, group)
		}
		usage := terms.convertGroups(hour)
		records, origin, problems = usage.Totals, usage.Aggregates, usage.Problems
	default:
		t.Fatal("an example has either a report or an hour")
	}
	wantNumbers(t, "records", records, e.Gives.Records)
	wantNumbers(t, "originRecords", origin, e.Gives.OriginRecords)
	var got, want []string
	for _, p := range problems {
		got = append(got, string(p.Code)+" "+p.Path)
		if p.Message == "" || p.Hint == "" || (p.Severity == SeverityWarning) != (p.Code == ProblemDimensionsUnchecked) {
			t.Errorf("problem %+v", p)
		}
	}
	for _, p := range e.Gives.Problems {
		want = append(want, string(p.Code)+" "+p.Path)
	}
	if !slices.Equal(got, want) {
		t.Errorf("problems\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func exactsOf(quantities map[string]Quantity) map[string]Exact {
	exacts := map[string]Exact{}
	for key, q := range quantities {
		exacts[key] = ExactOf(q)
	}
	return exacts
}

func wantNumbers(t *testing.T, what string, got map[string]Exact, want map[string]json.Number) {
	t.Helper()
	same := func(x Exact, text json.Number) bool {
		r, ok := new(big.Rat).SetString(string(text))
		return ok && x.rat().Cmp(r) == 0
	}
	if !maps.EqualFunc(got, want, same) {
		t.Errorf("%s %v, want %v", what, got, want)
	}
}

func quantity(t *testing.T, text string) Quantity {
	t.Helper()
	if text == "" {
		return Quantity{}
	}
	q, err := ParseQuantity(text)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// stored returns JSON that encoding/json has read as a config holds it.
func stored(value any) any {
	switch value := value.(type) {
	case json.Number:
		return Numeral(value)
	case map[string]any:
		object := map[string]any{}
		for name, member := range value {
			object[name] = stored(member)
		}
		return object
	case []any:
		array := make([]any, len(value))
		for i := range value {
			array[i] = stored(value[i])
		}
		return array
	default:
		return value
	}
}

// document returns the same as a document.
func document(t *testing.T, value any) any {
	switch value := value.(type) {
	case json.Number:
		n, err := ParseNumber(string(value))
		if err != nil {
			t.Fatal(err)
		}
		return n
	case map[string]any:
		object := map[string]any{}
		for name, member := range value {
			object[name] = document(t, member)
		}
		return object
	case []any:
		array := make([]any, len(value))
		for i := range value {
			array[i] = document(t, value[i])
		}
		return array
	default:
		return value
	}
}

// convert is convertNew with all quantities.
func (t *Terms) convert(g *NewGroup) (records, origin map[string]Quantity, billable []BillableRecord, problems []Problem) {
	records, origin, billable, _, problems = t.convertNew(g, true)
	return records, origin, billable, problems
}
