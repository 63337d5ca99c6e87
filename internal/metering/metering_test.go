package metering

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestTimesAreNormalised(t *testing.T) {
	for text, want := range map[string]string{
		"2024-07-29T15:51:28.071Z":            "2024-07-29T15:51:28.071Z",
		"2024-07-29T15:51:28.0719999Z":        "2024-07-29T15:51:28.071Z",
		"2024-07-29T15:51:28Z":                "2024-07-29T15:51:28.000Z",
		"2024-07-29t15:51:28z":                "2024-07-29T15:51:28.000Z",
		"2024-07-29T00:30:00+01:00":           "2024-07-28T23:30:00.000Z",
		"2024-02-29T12:00:00.5-12:45":         "2024-03-01T00:45:00.500Z",
		"0000-01-01T00:00:00Z":                "0000-01-01T00:00:00.000Z",
		"1969-12-31T23:59:59.9999Z":           "1969-12-31T23:59:59.999Z",
		"9999-12-31T23:59:59.999999999-00:00": "9999-12-31T23:59:59.999Z",
	} {
		got, err := ParseTime(text)
		if err != nil || FormatTime(got) != want {
			t.Errorf("%s is %s, %v; want %s", text, FormatTime(got), err, want)
		}
	}
	for _, text := range []string{
		"", "now", "2024-07-29", "2024-07-29 15:51:28Z", "2024-07-29T15:51:28", "2024-07-29T1:51:28Z", "2024-07-29T15:51:28,5Z",
		"2023-02-29T00:00:00Z", "2024-07-29T24:00:00Z", "2024-07-29T15:51:28+25:00", "2024-07-29T15:51:28+24:00", "2024-07-29T15:51:28-23:60", "0000-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00",
		"10000-01-01T00:00:00Z", "1722268288",
	} {
		if got, err := ParseTime(text); err == nil {
			t.Errorf("%q became %s", text, FormatTime(got))
		}
	}
}

func TestDays(t *testing.T) {
	for _, text := range []string{"", "2024-7-1", "2024-02-30", "2023-02-29", "20240101", "2024-01-01T00:00:00Z", " 2024-01-01", "-001-01-01"} {
		if d, err := ParseDay(text); err == nil {
			t.Errorf("%q became %s", text, d)
		}
	}
	if d, err := ParseDay("2024-03-01"); err != nil || d.AddDays(-1) != "2024-02-29" || d.AddDays(31) != "2024-04-01" {
		t.Errorf("%s, %v", d, err)
	}
	if d := Day("0000-01-10").AddDays(-30); d != "0000-01-01" {
		t.Error(d)
	}
	if d := DayOf(time.Date(2024, 7, 29, 1, 0, 0, 0, time.FixedZone("", 2*3600))); d != "2024-07-28" {
		t.Error(d)
	}
}

func TestIdentifiers(t *testing.T) {
	for _, c := range []struct {
		check func(string) error
		id    string
		ok    bool
	}{
		{CheckOrganizationID, strings.Repeat("é", 32), true},
		{CheckOrganizationID, strings.Repeat("é", 32) + "x", false}, // 65 bytes
		{CheckGroupID, strings.Repeat("é", 36), true},
		{CheckGroupID, strings.Repeat("x", 37), false},
		{CheckGroupID, "a#b%20 ü", true},
		{CheckGroupID, "a/b", false},
		{CheckGroupID, "a?b", false},
		{CheckGroupID, ".", false},
		{CheckGroupID, "..", false},
		{CheckGroupID, "...", true},
		{CheckGroupID, "", false},
		{CheckBuyerID, "a/b?c", true},
		{CheckBuyerID, "..", true},
		{CheckBuyerID, strings.Repeat("x", 256), true},
		{CheckBuyerID, strings.Repeat("x", 257), false},
		{CheckBuyerID, "a\x00b", false},
		{CheckBuyerID, "a\u0085b", false},
		{CheckBuyerID, "a\xffb", false},
		{CheckEntitlementID, "a/b", false},
		{CheckKey, strings.Repeat("ü", 255), true},
		{CheckKey, strings.Repeat("ü", 256), false},
		{CheckKey, "a\nb", false},
	} {
		if err := c.check(c.id); (err == nil) != c.ok {
			t.Errorf("%.50q: %v", c.id, err)
		}
	}
}

func TestContains(t *testing.T) {
	number := func(text string) Number {
		n, err := ParseNumber(text)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	type object = map[string]any
	stored := object{
		"source": "API", "SkipValidation": false, "lagoAmount": number("1.50"), "nothing": nil,
		"originRecords":   object{"cpu": number("3"), "": number("1")},
		"billableRecords": []any{object{"key": "a", "quantity": number("1")}, object{"key": "b", "quantity": number("2"), "properties": object{"tags": []any{"x", "y"}}}},
	}
	for _, c := range []struct {
		wanted any
		want   bool
	}{
		{object{}, true},
		{object{"source": "API"}, true},
		{object{"source": "AP"}, false},
		{object{"SkipValidation": false, "lagoAmount": number("15e-1")}, true},
		{object{"SkipValidation": nil}, false},
		{object{"nothing": nil}, true},
		{object{"absent": nil}, false},
		{object{"lagoAmount": NoNumber{}}, false},
		{object{"lagoAmount": "1.50"}, false},
		{object{"originRecords": object{}}, true},
		{object{"originRecords": object{"": number("1")}}, true},
		{object{"originRecords": []any{}}, false},
		{object{"originRecords": number("3")}, false},
		{object{"billableRecords": []any{}}, true},
		{object{"billableRecords": []any{object{"key": "b"}, object{"key": "a"}}}, true},
		{object{"billableRecords": []any{object{"key": "a"}, object{"key": "a"}}}, true}, // each wanted one in some stored one
		{object{"billableRecords": []any{object{"key": "a", "quantity": number("2")}}}, false},
		{object{"billableRecords": []any{object{"properties": object{"tags": []any{"y"}}}}}, true},
		{object{"billableRecords": object{"key": "a"}}, false},
		{object{"billableRecords": []any{"a"}}, false},
	} {
		if got := Contains(stored, c.wanted); got != c.want {
			t.Errorf("%v: %v", c.wanted, got)
		}
	}
}

func TestCarriedMembersAreFoundByName(t *testing.T) {
	for _, m := range CarriedMembers {
		if found, ok := CarriedMemberNamed(m.Name); !ok || found != m {
			t.Errorf("%s: %v", m.Name, found) // they must be in order
		}
	}
	if _, ok := CarriedMemberNamed("source"); ok {
		t.Error("source is the service's own")
	}
}

func TestAPatchLeavesItsBaseAlone(t *testing.T) {
	value := func(destination, multiplier string) map[string]any {
		return map[string]any{"dimensionKey": destination, "convertionMultiplier": Numeral(multiplier)}
	}
	config := func(entry map[string]any) Config {
		entry["partner"] = "AWS"
		return Config{"partnerUsageMeteringConfigs": []any{entry}}
	}
	makeBase := func() Config {
		return config(map[string]any{
			"dimensionMapping":   map[string]any{"cpu": value("c", "2"), "old": value("o", "2")},
			"dimensionMappingV2": map[string]any{"cpu": []any{value("c", "2")}},
		})
	}
	base := makeBase()
	patch := ConfigPatch(config(map[string]any{
		"dimensionMapping":   map[string]any{"cpu": map[string]any{"convertionMultiplier": Numeral("3")}, "old": nil},
		"dimensionMappingV2": map[string]any{"cpu": nil},
	}))
	merged, err := patch.Apply(base)
	if err != nil {
		t.Fatal(err)
	}
	want := config(map[string]any{"dimensionMapping": map[string]any{"cpu": value("c", "3")}, "dimensionMappingV2": map[string]any{}})
	if !reflect.DeepEqual(merged, want) {
		t.Errorf("merged: %+v", merged)
	}
	if !reflect.DeepEqual(base, makeBase()) {
		t.Errorf("base: %+v", base)
	}
}
