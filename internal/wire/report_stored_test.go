package wire_test

import (
	"errors"
	"fmt"
	"math/big"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/wire"
)

// fill draws all that a value holds, so that no field can be forgotten.
func fill(t *rapid.T, v reflect.Value) {
	if !rapid.Bool().Draw(t, "given") {
		return
	}
	switch p := v.Addr().Interface().(type) {
	case *metering.Exact:
		r := new(big.Rat).SetFrac64(rapid.Int64().Draw(t, "numerator"), rapid.Int64Range(1, 1<<62).Draw(t, "denominator"))
		if digits, finite := r.FloatPrec(); finite {
			*p = exact(t, r.FloatString(digits))
		} else {
			*p = exact(t, r.String())
		}
	case *metering.Aggregates: // which are decimals
		*p = metering.Aggregates{}
		for range rapid.IntRange(1, 3).Draw(t, "length") {
			x := metering.ExactOf(metering.Quantity{})
			for range rapid.IntRange(0, 3).Draw(t, "terms") {
				var q metering.Quantity
				fill(t, reflect.ValueOf(&q).Elem())
				x = x.Add(metering.ExactOf(q)).Mul(metering.MustExact("1000000000000.000001"))
			}
			(*p)[rapid.String().Draw(t, "metric")] = x
		}
	case *metering.Quantity:
		q, err := metering.ParseQuantity(fmt.Sprintf("%d.%d", rapid.IntRange(0, 99999).Draw(t, "whole"), rapid.IntRange(0, 999999999).Draw(t, "fraction")))
		if err != nil {
			t.Fatal(err)
		}
		*p = q
	case *time.Time:
		*p = time.Unix(rapid.Int64Range(-62135596800, 253402300799).Draw(t, "seconds"), rapid.Int64Range(0, 999999999).Draw(t, "ns")).UTC()
	case *reports.Kind:
		*p = rapid.SampledFrom(reports.Kinds).Draw(t, "kind")
	case *reports.Evidence:
		*p = rapid.SampledFrom(reports.Evidences).Draw(t, "evidence")
	case *reports.Result:
		*p = rapid.SampledFrom(reports.Results).Draw(t, "result")
	case *map[string]any: // of members that another version knows
	default:
		fillByKind(t, v)
	}
}

func fillByKind(t *rapid.T, v reflect.Value) {
	fresh := func(of reflect.Type) reflect.Value {
		value := reflect.New(of).Elem()
		fill(t, value)
		return value
	}
	some := func() int { return rapid.IntRange(1, 3).Draw(t, "length") }
	switch v.Kind() {
	case reflect.String:
		v.SetString(rapid.String().Draw(t, "text"))
	case reflect.Int:
		v.SetInt(int64(rapid.Int().Draw(t, "integer")))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem())
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes([]byte(rapid.String().Draw(t, "bytes")))
			return
		}
		for range some() {
			v.Set(reflect.Append(v, fresh(v.Type().Elem())))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range some() {
			v.SetMapIndex(fresh(v.Type().Key()), fresh(v.Type().Elem()))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i))
		}
	case reflect.Array:
		for i := range v.Len() {
			v.Index(i).SetUint(uint64(rapid.Byte().Draw(t, "byte")))
		}
	default:
		t.Fatalf("a %s can't be drawn", v.Type())
	}
}

func drawn[T any](t *rapid.T) *T {
	value := new(T)
	fillByKind(t, reflect.ValueOf(value).Elem())
	return value
}

func exact(t interface{ Fatal(...any) }, text string) metering.Exact {
	x, err := metering.ParseExact(text)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

var sameHours = cmp.Options{
	cmpopts.EquateEmpty(),
	cmp.Comparer(func(x, y metering.Exact) bool { return x.Cmp(y) == 0 }),
	cmp.Comparer(func(x, y metering.Quantity) bool { return x.String() == y.String() }),
}

// For all that an hour stores: what is read is what was written, to the last digit.
func TestStoredHour_IsReadBack(t *testing.T) {
	t.Parallel()
	same := func(t *rapid.T, written, read any, err error) {
		if diff := cmp.Diff(written, read, sameHours); err != nil || diff != "" {
			t.Fatalf("%v\n-written +read\n%s", err, diff)
		}
	}
	for name, property := range map[string]func(t *rapid.T){
		"first part of the records": func(t *rapid.T) {
			sealed := drawn[reports.Sealed](t)
			read, records, err := wire.DecodeStoredRecords(wire.AppendStoredRecords(nil, sealed, sealed.Records))
			if err == nil {
				read.Records = records
			}
			same(t, sealed, read, err)
		},
		"other part of the records": func(t *rapid.T) {
			records := []reports.Record{*drawn[reports.Record](t), *drawn[reports.Record](t)}
			sealed, read, err := wire.DecodeStoredRecords(wire.AppendStoredRecords(nil, nil, records))
			if sealed != nil {
				t.Fatalf("%+v", sealed)
			}
			same(t, records, read, err)
		},
		"ledger": func(t *rapid.T) {
			ledger := drawn[reports.Ledger](t)
			read, err := wire.DecodeStoredLedger(wire.AppendStoredLedger(nil, ledger))
			same(t, ledger, &read, err)
		},
		"candidates": func(t *rapid.T) {
			ids := drawn[reports.Candidates](t).IDs
			read, err := wire.DecodeStoredCandidates(wire.AppendStoredCandidates(nil, ids))
			same(t, ids, read, err)
		},
		"sum": func(t *rapid.T) {
			sum := drawn[reports.Sum](t)
			read, err := wire.DecodeStoredSum(wire.AppendStoredSum(nil, sum))
			same(t, sum, read, err)
		},
		"billable records": func(t *rapid.T) {
			billable := drawn[reports.Billable](t)
			read, err := wire.DecodeStoredBillable(wire.AppendStoredBillable(nil, billable))
			same(t, billable, read, err)
		},
		"calls": func(t *rapid.T) {
			calls := []reports.StoredCall{*drawn[reports.StoredCall](t), *drawn[reports.StoredCall](t)}
			read, err := wire.DecodeStoredCalls(wire.AppendStoredCalls(nil, calls))
			same(t, calls, read, err)
		},
	} {
		t.Run(name, func(t *testing.T) { rapid.Check(t, property) })
	}
}

func TestStoredHour_IsText(t *testing.T) {
	t.Parallel()
	third, zero := exact(t, "1/3"), metering.Exact{}
	at := time.Date(2026, 6, 15, 10, 30, 0, 123456789, time.UTC)
	sealed := &reports.Sealed{Partner: "GCP", Lane: "5f2a", Groups: 2, UsedCommit: exact(t, "0.5"), Aggregates: metering.Aggregates{"m": exact(t, "2.5"), "n": exact(t, "100000000000000000000.25")}, Destinations: map[string][]string{"m": {"a", "b"}}}
	records := []reports.Record{{
		Dimension: `a"`, Members: exact(t, "4/3"), Scale: exact(t, "1"), CarryOut: third,
		Attempts: []reports.Attempt{{Number: 2, Time: at, Response: reports.Response{Result: reports.Duplicate, Accepted: &zero}}},
		Outcome:  reports.Outcome{Kind: reports.Accepted, Evidence: reports.EvidenceResolved, By: "ada", At: at},
	}}
	want := `{"form":1,"sealed":{"partner":"GCP","marketplace":{},"lane":"5f2a","groups":2,"usedCommit":"0.5","aggregates":{"m":2.5,"n":100000000000000000000.25},"destinations":{"m":["a","b"]}},` +
		`"records":[{"dimension":"a\"","members":"4/3","carryOut":"1/3","scale":"1",` +
		`"attempts":[{"number":2,"time":"2026-06-15T10:30:00.123456789Z","result":"DUPLICATE","accepted":"0"}],` +
		`"outcome":{"kind":"ACCEPTED","evidence":"RESOLVED","by":"ada","at":"2026-06-15T10:30:00.123456789Z"}}]}`
	if got := string(wire.AppendStoredRecords(nil, sealed, records)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// A metric whose records came to no dimension has an empty list.
func TestStoredBillable_IsText(t *testing.T) {
	t.Parallel()
	b := reports.NewBillable()
	at := time.Date(2026, 6, 15, 10, 30, 0, 0, time.UTC)
	members := []reports.Member{{Group: &metering.Group{ID: "g", CreationTime: at, MetaInfo: metering.MetaInfo{BillableRecords: []metering.BillableRecord{{Key: "m"}}}}}}
	b.Add(nil, members)
	b.Add(&metering.Terms{}, members)
	of := b.Aggregates["m"]
	of.UniqueOn, of.Distinct = "user", map[metering.ValueHash]struct{}{{1}: {}, {0, 2}: {}}
	b.Aggregates["m"] = of
	want := `{"form":1,"aggregates":{"m":{"count":1,"used":"2026-06-15T10:30:00Z","created":"2026-06-15T10:30:00Z","group":"g","uniqueOn":"user",` +
		`"distinct":"AAIAAAAAAAAAAAAAAAAAAAEAAAAAAAAAAAAAAAAAAAA"}},"destinations":{"m":[]}}`
	got := wire.AppendStoredBillable(nil, b)
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	read, err := wire.DecodeStoredBillable(got)
	if err != nil || fmt.Sprint(read.AcceptedUsage(map[string]metering.Exact{}).Destinations) != "map[m:[m]]" {
		t.Errorf("%+v, %v", read, err)
	}
}

// What another version may have written is refused at any level, and so is what is damaged.
func TestStoredHour_IsReadStrictly(t *testing.T) {
	t.Parallel()
	decoders := map[string]func(string) error{
		"records":    func(text string) error { _, _, err := wire.DecodeStoredRecords([]byte(text)); return err },
		"ledger":     func(text string) error { _, err := wire.DecodeStoredLedger([]byte(text)); return err },
		"candidates": func(text string) error { _, err := wire.DecodeStoredCandidates([]byte(text)); return err },
		"sum":        func(text string) error { _, err := wire.DecodeStoredSum([]byte(text)); return err },
		"billable":   func(text string) error { _, err := wire.DecodeStoredBillable([]byte(text)); return err },
		"calls":      func(text string) error { _, err := wire.DecodeStoredCalls([]byte(text)); return err },
	}
	for name, decode := range decoders {
		if err := decode(`{"form":1}`); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, text := range []string{`{}`, `{"form":2}`, `{"form":1,"new":1}`, `{"form":1,"form":1}`, `{"form":"1"}`, `[]`, ``, `{"form":1`, `{"form":1}{}`} {
			if err := decode(text); !errors.Is(err, reports.ErrNewer) {
				t.Errorf("%s: %s: %v", name, text, err)
			}
		}
	}
	for decoder, values := range map[string][]string{
		"records": {
			`"sealed":{"new":1}`, `"sealed":{"marketplace":{"new":"a"}}`, `"sealed":{"from":"yesterday"}`, `"sealed":{"from":"2026-06-15T10:00:00+02:00"}`,
			`"sealed":{"groups":1.5}`, `"sealed":{"destinations":{"m":"a"}}`, `"sealed":{"commitAmount":0.5}`, `"records":[{"new":1}]`,
			`"records":[{"members":"0.50"}]`, `"records":[{"members":"2/6"}]`, `"records":[{"quantity":"1/3"}]`, `"records":[{"attempts":[{"new":1}]}]`,
			`"records":[{"attempts":[{"result":"QUEUED"}]}]`, `"records":[{"attempts":[{"again":1}]}]`, `"records":[{"outcome":{"new":1}}]`,
			`"records":[{"outcome":{"kind":"PARTIAL"}}]`, `"records":[{"outcome":{"evidence":"GUESS"}}]`, `"records":[{"outcome":{"difference":1}}]`,
		},
		"ledger":     {`"version":"1"`, `"used":1`, `"carry":{"a":1}`, `"carry":{"a":"1","a":"1"}`},
		"candidates": {`"ids":[1]`, `"ids":{}`},
		"sum":        {`"members":-`, `"absent":[1]`, `"totals":{"a":2}`, `"billable":1`},
		"billable": {
			`"records":{"a":1}`, `"destinations":{"m":1}`, `"aggregates":{"m":{"new":1}}`, `"aggregates":{"m":{"count":"1"}}`, `"aggregates":{"m":1}`,
			`"aggregates":{"m":{"distinct":"AAAA"}}`, `"aggregates":{"m":{"distinct":"?"}}`, `"aggregates":{"m":{"distinct":1}}`, `"aggregates":{"m":{},"m":{}}`,
		},
		"calls": {`"calls":[{"new":1}]`, `"calls":[{"responses":[{}]}]`, `"calls":[{"request":{}}]`},
	} {
		for _, value := range values {
			err := decoders[decoder](`{"form":1,` + value + `}`)
			if !errors.Is(err, reports.ErrNewer) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: %s: %v", decoder, value, err)
			}
		}
	}
}
