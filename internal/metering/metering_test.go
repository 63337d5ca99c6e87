package metering

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParseTime_Normalizes(t *testing.T) {
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

// The last day of a month in UTC ends with the leap second, whatever day and hour the offset makes
// of it.
func TestParseTime_TakesLeapSeconds(t *testing.T) {
	for text, want := range map[string]string{
		"1990-12-31T23:59:60Z":          "1990-12-31T23:59:59.999Z", // RFC 3339, 5.8
		"1990-12-31T15:59:60-08:00":     "1990-12-31T23:59:59.999Z", // the same
		"1991-01-01T00:59:60+01:00":     "1990-12-31T23:59:59.999Z",
		"1991-01-01T05:29:60.123+05:30": "1990-12-31T23:59:59.999Z",
		"2016-12-31t23:59:60.5z":        "2016-12-31T23:59:59.999Z",
		"2016-12-31T23:59:60.0Z":        "2016-12-31T23:59:59.999Z",
		"2015-06-30T23:59:60-00:00":     "2015-06-30T23:59:59.999Z",
		"2024-02-29T23:59:60Z":          "2024-02-29T23:59:59.999Z",
		"9999-12-31T23:59:60.999999Z":   "9999-12-31T23:59:59.999Z",
	} {
		if got, err := ParseTime(text); err != nil || FormatTime(got) != want {
			t.Errorf("%s is %s, %v; want %s", text, FormatTime(got), err, want)
		}
	}
	for _, text := range []string{
		"1990-12-31T12:00:60Z", "1990-12-31T23:59:60-08:00", "1990-12-31T15:59:60Z", "1990-12-30T23:59:60Z", "2023-02-29T23:59:60Z",
		"2024-02-28T23:59:60Z", "1990-12-31T23:60:60Z", "1990-12-31T24:59:60Z", "1990-12-31T23:59:61Z", "1990-12-31T23:59:60", "1990-12-31T23:59:60,5Z",
		"1990-12-31 23:59:60Z", "1990-12-31T23:59:60.Z", "1990-12-31T23:59:60+24:00", "9999-12-31T22:59:60-01:00x", "1990-12-31T23:59:6Z", "1990-12-31T23:59:600Z",
		"0000-01-01T00:59:60+01:00",
	} {
		if got, err := ParseTime(text); err == nil || !strings.Contains(err.Error(), "is not a time") && !strings.Contains(err.Error(), "is out of range") {
			t.Errorf("%q became %s, %v", text, FormatTime(got), err)
		}
	}
}

func TestDay_IsADayOfUTC(t *testing.T) {
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

// check wraps parse: it must return the text unchanged, and nothing of a text that it refuses.
func check[ID ~string](parse func(string) (ID, error)) func(string) error {
	return func(text string) error {
		id, err := parse(text)
		if err == nil && string(id) != text || err != nil && id != "" {
			return fmt.Errorf("%q is made of %q: %w", id, text, err)
		}
		return err
	}
}

func TestIdentifiers_AreChecked(t *testing.T) {
	for _, c := range []struct {
		check func(string) error
		id    string
		ok    bool
	}{
		{check(ParseOrgID), strings.Repeat("é", 32), true},
		{check(ParseOrgID), strings.Repeat("é", 32) + "x", false}, // 65 bytes
		{check(ParseGroupID), strings.Repeat("é", 36), true},
		{check(ParseGroupID), strings.Repeat("x", 37), false},
		{check(ParseGroupID), "a#b+20 ü", true},
		{check(ParseGroupID), "a%20b", false},
		{check(ParseGroupID), "%", false},
		{check(ParseOrgID), "a%b", false},
		{check(ParseOrgID), "a?b", false},
		{check(ParseOrgID), "..", false},
		{check(ParseEntitlementID), "100%", false},
		{check(ParseEntitlementID), "a?b", false},
		{check(ParseEntitlementID), ".", false},
		{check(StoredGroupID), "a%20b", true},
		{check(StoredGroupID), strings.Repeat("%", 37), false},
		{check(StoredGroupID), "a/b", false},
		{check(StoredEntitlementID), "100%", true},
		{check(StoredEntitlementID), "a?b", false},
		{check(StoredOrgID), "a%b", true},
		{check(StoredOrgID), "a/b", false},
		{check(ParseBuyerID), "50%", true},
		{check(ParseProductID), "50%25/x?", true},
		{CheckKey, "50%/x?", true},
		{check(ParseGroupID), "a/b", false},
		{check(ParseGroupID), "a?b", false},
		{check(ParseGroupID), ".", false},
		{check(ParseGroupID), "..", false},
		{check(ParseGroupID), "...", true},
		{check(ParseGroupID), "", false},
		{check(ParseBuyerID), "a/b?c", true},
		{check(ParseBuyerID), "..", true},
		{check(ParseBuyerID), strings.Repeat("x", 256), true},
		{check(ParseBuyerID), strings.Repeat("x", 257), false},
		{check(ParseBuyerID), "a\x00b", false},
		{check(ParseBuyerID), "a\u0085b", false},
		{check(ParseBuyerID), "a\xffb", false},
		{check(ParseEntitlementID), "a/b", false},
		{CheckKey, strings.Repeat("ü", 255), true},
		{CheckKey, strings.Repeat("ü", 256), false},
		{CheckKey, "a\nb", false},
	} {
		if err := c.check(c.id); (err == nil) != c.ok {
			t.Errorf("%.50q: %v", c.id, err)
		}
	}
}

func TestConfigPatch_LeavesItsBaseUnchanged(t *testing.T) {
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
