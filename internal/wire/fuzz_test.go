package wire_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/wire"
)

// The decoders are checked against the contract of a body. It is written here again, as shapes over
// the JSON that encoding/json reads. A decoder must accept every body that has the shape, no other
// body, and read the same values.

// FuzzNewGroups looks for a body of the batch operations that is accepted but should not be,
// refused but should be accepted, or misread.
func FuzzNewGroups(f *testing.F) {
	for _, body := range []string{
		``, `{}`, `[null]`, `[{}] x`, `[{"id":"a","id":"b"}]`, `[{"records":{"a":1,"\u0061":2}}]`, `[{"entitlementID":"\ud83d\ude00\ud800"}]`,
		`[{"entitlementID":"e","timestamp":"2024-07-29t17:51:28.0719+02:00","records":{"cpu h":1.50,"":-0,"z":1e400}}]`,
		`[{"id":null,"organizationID":"o","records":null,"billableRecords":[{"key":"k","quantity":9007199254740993,"properties":{"a":[1e3,{"b":null}]}},{}]}]`,
		`[{"metaInfo":{"SkipValidation":true,"source":"API","timestamp":null,"originRecords":{"a":1},"billableRecords":[],"lagoAmount":1e-9,` +
			`"stripeUsageRecordSummaryTotalUsage":1e3,"stripePeriodEndTime":"2024-01-01T00:00:00Z","metronomeInvoiceID":"i"}},{"metaInfo":null}]`,
	} {
		f.Add([]byte(body))
	}
	record := members{"key": orNull(text), "quantity": orNull(number), "properties": orNull(properties)}
	metaInfo := members{
		"SkipValidation": orNull(boolean), "source": orNull(text), "timestamp": orNull(instant),
		"originRecords": orNull(mapOf(number)), "billableRecords": orNull(arrayOf(record.shape)),
	}
	maps.Copy(metaInfo, carried)
	group := members{
		"id": orNull(text), "organizationID": orNull(text), "entitlementID": orNull(text), "timestamp": orNull(instant),
		"records": orNull(mapOf(number)), "billableRecords": orNull(arrayOf(record.shape)), "metaInfo": orNull(metaInfo.shape),
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		value, isJSON := read(body)
		_, err := wire.DecodeNewGroup(body)
		wantTaken(t, isJSON && asObject(value) != nil && group.shape(value), err)
		groups, err := wire.DecodeNewGroups(body)
		array, _ := value.([]any)
		wantTaken(t, isJSON && len(array) >= 1 && len(array) <= 1000 && arrayOf(group.shape)(value), err)
		if err != nil {
			return
		}
		// What was read, encoded as JSON again, is what was sent without members that count as
		// absent.
		for i, g := range groups {
			got := map[string]any{"id": g.ID, "organizationID": g.OrganizationID, "entitlementID": g.EntitlementID}
			if g.Timestamp != nil {
				got["timestamp"] = metering.FormatTime(*g.Timestamp)
			}
			if len(g.Records) > 0 {
				records := map[string]any{}
				for _, r := range g.Records {
					records[r.Key] = json.Number(r.Quantity)
				}
				got["records"] = records
			}
			got["billableRecords"] = billables(g.BillableRecords)
			meta := map[string]any{"SkipValidation": g.MetaInfo.SkipValidation, "source": g.MetaInfo.Source, "billableRecords": billables(g.MetaInfo.BillableRecords)}
			if g.MetaInfo.Timestamp != nil {
				meta["timestamp"] = metering.FormatTime(*g.MetaInfo.Timestamp)
			}
			maps.Copy(meta, g.MetaInfo.Carried)
			got["metaInfo"] = meta
			want := array[i].(map[string]any)
			if meta, ok := want["metaInfo"].(map[string]any); ok {
				delete(meta, "originRecords") // read and ignored
			}
			if diff := cmp.Diff(withoutZeros(meaning(want)), withoutZeros(meaning(got))); diff != "" {
				t.Fatalf("%d: -sent +read\n%s", i, diff)
			}
		}
		_ = metering.ValidateBatch(groups, "o", nil, time.Unix(1_700_000_000, 0)) // everything that was read can be validated
	})
}

func billables(records []metering.NewBillableRecord) any {
	array := []any{}
	for _, r := range records {
		record := map[string]any{"key": r.Key, "properties": r.Properties}
		if r.Quantity != "" {
			record["quantity"] = json.Number(r.Quantity)
		}
		array = append(array, record)
	}
	return array
}

// FuzzConfig looks for two bodies of the config operations, one on top of the other, of which one
// is accepted or refused against its shape, or that make a config that is not read as it is
// written.
func FuzzConfig(f *testing.F) {
	const whole = `{"partnerUsageMeteringConfigs":[{"partner":"AWS","enableDimensionMapping":true,"enableBillableDimension":false,` +
		`"dimensionMapping":{"cpu":{"dimensionKey":"d","convertionMultiplier":1.50},"ram":{"dimensionKey":"r","mappingMode":"AMOUNT"}},` +
		`"dimensionMappingV2":{"cpu":[{"dimensionKey":"d","mappingMode":"QUANTITY","convertionMultiplier":2e-3}],"x":[]}},{"partner":"GCP"}]}`
	f.Add([]byte(whole), []byte(`{"partnerUsageMeteringConfigs":[{"partner":"AWS","enableDimensionMapping":null,"dimensionMapping":{"cpu":null,`+
		`"ram":{"mappingMode":null,"convertionMultiplier":3}},"dimensionMappingV2":null,"enableCommitWithAdditionalUsageMetering":true,`+
		`"enableCommitWithAdditionalUsageAtListPrice":false}]}`))
	f.Add([]byte(`{"partnerUsageMeteringConfigs":null,"partnerUsageMeteringConfigs":[]}`), []byte(`{"partnerUsageMeteringConfigs":[{"partner":"AWS"},{"partner":"AWS"}]}`))
	f.Add([]byte(`{"partnerUsageMeteringConfigs":[{"partner":null,"dimensionMapping":{"cpu":{"conversionMultiplier":1}}}]}`), []byte(`{}`))
	value := members{"dimensionKey": orNull(text), "mappingMode": orNull(text), "convertionMultiplier": orNull(quantity)}
	entry := members{
		"partner": orNull(text), "enableDimensionMapping": orNull(boolean), "enableBillableDimension": orNull(boolean),
		"enableCommitWithAdditionalUsageMetering": orNull(boolean), "enableCommitWithAdditionalUsageAtListPrice": orNull(boolean),
		"dimensionMapping": orNull(mapOf(orNull(value.shape))), "dimensionMappingV2": orNull(mapOf(orNull(arrayOf(value.shape)))),
	}
	config := members{"partnerUsageMeteringConfigs": orNull(arrayOf(entry.shape))}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		current := metering.EmptyConfig()
		for _, body := range [][]byte{first, second} {
			patch, err := wire.DecodeConfigPatch(body)
			value, isJSON := read(body)
			wantTaken(t, isJSON && config.shape(value), err)
			if err != nil {
				continue
			}
			before := wire.AppendConfig(nil, current)
			changed, err := patch.Apply(current)
			if after := wire.AppendConfig(nil, current); !bytes.Equal(before, after) {
				t.Fatalf("the patch changed what it was applied to, %s\nto %s", before, after)
			}
			if err != nil {
				wantInvalid(t, err)
				continue
			}
			written := wire.AppendConfig(nil, changed)
			again, err := wire.DecodeConfigPatch(written)
			if err != nil {
				t.Fatalf("%s is written and not read: %v", written, err)
			}
			reread, err := again.Apply(metering.EmptyConfig())
			if rewritten := wire.AppendConfig(nil, reread); err != nil || !bytes.Equal(written, rewritten) {
				t.Fatalf("%s\nis read as\n%s, %v", written, rewritten, err)
			}
			twice, err := patch.Apply(changed)
			if rewritten := wire.AppendConfig(nil, twice); err != nil || !bytes.Equal(written, rewritten) {
				t.Fatalf("%s\nis changed by the same patch again to\n%s, %v", written, rewritten, err)
			}
			if stored, err := wire.DecodeConfig(written); err != nil || !stored.Equal(changed) {
				t.Fatalf("%s is stored and read as %v, %v", written, stored, err)
			}
			current = changed
		}
	})
}

// FuzzObject looks for a line of an import or a metaInfo filter that is accepted or refused against
// its shape, or that is misread.
func FuzzObject(f *testing.F) {
	const bare = `"id":"g","buyerID":"b","entitlementID":"e","partner":"AWS","status":"CREATED","creationTime":"2024-07-29T15:51:28Z"`
	for _, object := range []string{
		``, `[]`, `{"a":{"b":[1.0,"ü",null,true,{}]},"n":1e999}`, `{"a":1,"a":2}`, `{"a":"\ud800"}`, `{` + bare + `}`, `{` + bare + `,"id":"h"}`,
		`{` + bare + `,"productID":"p","organizationID":"o","serialID":1e1,"usageRecordReportID":"r","reportedTime":"0001-01-01T00:00:00Z",` +
			`"lastUpdateTime":"2024-07-29t17:51:28.0719+02:00","records":{"z":0.10,"a\"b":9007199254740993,"m":1e-9},"metaInfo":{"source":"",` +
			`"SkipValidation":false,"timestamp":null,"lagoAmount":1.50,"stripeUsageRecordSummaryTotalUsage":3,"originRecords":{},` +
			`"billableRecords":[{"key":"k","quantity":2,"properties":{"b":null,"a":[1e3,{}]}}],"stripePeriodEndTime":"2024-01-01T00:00:00Z"}}`,
	} {
		f.Add([]byte(object))
	}
	key := func(value any) bool { return text(value) && metering.CheckKey(value.(string)) == nil }
	keyed := func(value any) bool { // quantities by key
		for name := range asObject(value) {
			if metering.CheckKey(name) != nil {
				return false
			}
		}
		return mapOf(quantity)(value)
	}
	record := members{"key": key, "quantity": orNull(quantity), "properties": orNull(properties)}.with("key")
	metaInfo := members{
		"SkipValidation": orNull(boolean), "source": orNull(oneOf("", "API", "INTERNAL", "METRONOME", "ORB", "LAGO", "STRIPE")),
		"timestamp": orNull(instant), "originRecords": orNull(keyed), "billableRecords": orNull(arrayOf(record)),
	}
	maps.Copy(metaInfo, carried)
	identifier := func(allowed func(string) bool, mayBeEmpty bool) shape {
		return func(value any) bool {
			return text(value) && (mayBeEmpty && value == "" || allowed(value.(string)))
		}
	}
	group := members{
		"id": identifier(allows(metering.ParseGroupID), false), "buyerID": identifier(allows(metering.ParseBuyerID), false),
		"entitlementID": identifier(allows(metering.ParseEntitlementID), false), "productID": orNull(identifier(allows(metering.ParseProductID), true)),
		"organizationID": orNull(text), "usageRecordReportID": orNull(text), "partner": oneOf("AWS", "AZURE", "GCP"),
		"status":       oneOf("CREATED", "DELETED", "INVALID", "REPORTED", "REPORT_PENDING", "REPORT_FAILED"),
		"creationTime": func(value any) bool { return instant(value) && !isNoTime(value) }, "lastUpdateTime": orNull(instant), "reportedTime": orNull(instant),
		"problems": orNull(arrayOf(members{"code": orNull(text), "path": orNull(text), "message": orNull(text), "hint": orNull(text)}.shape)), "reportBy": orNull(instant),
		"serialID": orNull(func(value any) bool { return int32s(value) && !strings.HasPrefix(meaning(value).(string), "-") }),
		"records":  orNull(keyed), "metaInfo": orNull(metaInfo.shape),
	}.with("id", "buyerID", "entitlementID", "partner", "status", "creationTime")
	f.Fuzz(func(t *testing.T, object []byte) {
		value, isJSON := read(object)
		isObject := isJSON && asObject(value) != nil

		document, err := wire.DecodeDocument(object)
		wantTaken(t, isObject, err)
		if err == nil {
			if diff := cmp.Diff(meaning(value), meaning(document)); diff != "" {
				t.Fatalf("-sent +read\n%s", diff)
			}
			if !metering.NewMatcher(document).Matches(document) {
				t.Fatalf("%v does not contain itself", document)
			}
		}

		g, err := wire.DecodeGroup(object)
		wantTaken(t, isObject && group(value), err)
		if err != nil {
			return
		}
		line := wire.AppendGroupForExport(nil, &g)
		written, isJSON := read(line)
		if !isJSON {
			t.Fatalf("no JSON is written: %s", line)
		}
		want := asObject(value)
		if last := want["lastUpdateTime"]; last == nil || isNoTime(last) {
			want["lastUpdateTime"] = want["creationTime"]
		}
		for _, name := range []string{"reportedTime", "reportBy"} {
			if at := want[name]; at != nil && isNoTime(at) {
				delete(want, name)
			}
		}
		if diff := cmp.Diff(withoutZeros(meaning(want)), withoutZeros(meaning(written))); diff != "" {
			t.Fatalf("-sent +written\n%s", diff)
		}
		again, err := wire.DecodeGroup(line)
		if rewritten := wire.AppendGroupForExport(nil, &again); err != nil || !bytes.Equal(line, rewritten) {
			t.Fatalf("%s\nis read as\n%s, %v", line, rewritten, err)
		}
	})
}

// FuzzMetric looks for a body that creates a billable metric and is accepted or refused against its
// shape, or misread, or that makes a metric that is not read as it is stored.
func FuzzMetric(f *testing.F) {
	for _, body := range []string{
		``, `[]`, `{}`, `{"name":"a","aggregationType":"SUM","info":null,"id":null}`, `{"name":"a","name":"a"}`, `{"status":"ACTIVE"} x`,
		`{"id":"i","organizationId":"o","name":"a","description":"d","aggregationType":"UNIQUE_COUNT","status":"ACTIVE","creationTime":"2024-07-29t17:51:28.0719+02:00",` +
			`"lastUpdateTime":null,"info":{"propertyUniqueOn":"u","groupBys":["z"],"filterGroups":[{"filters":[{"name":"n","operation":"GT","value":1.50e1,"valueType":"FLOAT"},` +
			`{"name":"x","operation":"EXISTS"},{"name":"y","operation":"EQ","value":{"a":[1,null,{"b":false}]},"valueType":null}]},{"filters":null}]}}`,
	} {
		f.Add([]byte(body))
	}
	document := func(value any) bool { return fits(value, 24) }
	filter := members{
		"name": orNull(text), "value": orNull(document), "valueType": orNull(oneOf("STRING", "FLOAT")),
		"operation": orNull(oneOf("IS", "NOT_IS", "CONTAINS", "NOT_CONTAINS", "GT", "GTE", "LT", "LTE", "EQ", "NOT_EQ", "EXISTS", "NOT_EXISTS")),
	}
	group := members{"filters": orNull(arrayOf(filter.shape))}
	info := members{"filterGroups": orNull(arrayOf(group.shape)), "groupBys": orNull(arrayOf(text)), "propertyUniqueOn": orNull(text)}
	metric := members{
		"id": orNull(text), "organizationId": orNull(text), "name": orNull(text), "description": orNull(text), "info": orNull(info.shape),
		"aggregationType": orNull(oneOf("COUNT", "UNIQUE_COUNT", "SUM", "MAX", "LAST")), "status": orNull(oneOf("ACTIVE", "DELETED")),
		"creationTime": orNull(instant), "lastUpdateTime": orNull(instant),
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		sent, err := wire.DecodeMetric(body)
		value, isJSON := read(body)
		wantTaken(t, isJSON && metric.shape(value), err)
		if err != nil {
			return
		}
		m, err := metering.NewMetric("o", "m", &sent, time.Unix(1_700_000_000, 0))
		if err != nil {
			wantInvalid(t, err)
			return
		}
		stored := wire.AppendMetric(nil, &m)
		written, isJSON := read(stored)
		if !isJSON {
			t.Fatalf("no JSON is written: %s", stored)
		}
		want := asObject(value)
		want["id"], want["organizationId"], want["status"] = "m", "o", "ACTIVE"
		want["creationTime"], want["lastUpdateTime"] = "2023-11-14T22:13:20Z", "2023-11-14T22:13:20Z"
		if diff := cmp.Diff(withoutZeros(meaning(want)), withoutZeros(meaning(written))); diff != "" {
			t.Fatalf("-sent +written\n%s", diff)
		}
		again, err := wire.DecodeStoredMetric(stored)
		if rewritten := wire.AppendMetric(nil, &again); err != nil || !bytes.Equal(stored, rewritten) {
			t.Fatalf("%s\nis read as\n%s, %v", stored, rewritten, err)
		}
	})
}

// read is the JSON value that body is, as encoding/json reads it. ok is false if body is not JSON,
// or is JSON that the API always refuses: with a duplicate member, or with text that is not
// Unicode.
func read(body []byte) (value any, ok bool) {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if err := d.Decode(&value); err != nil {
		return nil, false
	}
	_, end := d.Token()
	return value, errors.Is(end, io.EOF) && utf8.Valid(body) && !halfPair(body) && !memberTwice(body)
}

var (
	escapes    = regexp.MustCompile(`\\[^u]`)
	pairs      = regexp.MustCompile(`(?i)\\ud[89ab][0-9a-f]{2}\\ud[c-f]`)
	surrogates = regexp.MustCompile(`(?i)\\ud[89a-f]`)
)

// halfPair reports whether body has one half of a surrogate pair without the other.
func halfPair(body []byte) bool {
	space := []byte(" ")
	return surrogates.Match(pairs.ReplaceAll(escapes.ReplaceAll(body, space), space))
}

func memberTwice(body []byte) bool {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var twice func() bool // of the next value
	twice = func() bool {
		token, err := d.Token()
		if err != nil {
			return false
		}
		seen := map[any]bool{}
		for opened, isOpened := token.(json.Delim); isOpened && d.More(); {
			if opened == '{' {
				name, err := d.Token()
				if err != nil || seen[name] {
					return true
				}
				seen[name] = true
			}
			if twice() {
				return true
			}
		}
		if _, isOpened := token.(json.Delim); isOpened {
			_, _ = d.Token()
		}
		return false
	}
	return twice()
}

// shape reports whether a value is valid in its position.
type shape func(value any) bool

type members map[string]shape

// shape is an object with any of the members and no others.
func (m members) shape(value any) bool {
	for name, value := range asObject(value) {
		if allowed, known := m[name]; !known || !allowed(value) {
			return false
		}
	}
	return asObject(value) != nil
}

// with is an object that must have these members.
func (m members) with(required ...string) shape {
	return func(value any) bool {
		for _, name := range required {
			if _, ok := asObject(value)[name]; !ok {
				return false
			}
		}
		return m.shape(value)
	}
}

func asObject(value any) map[string]any {
	object, _ := value.(map[string]any)
	return object
}

func orNull(s shape) shape { return func(value any) bool { return value == nil || s(value) } }

func mapOf(s shape) shape {
	return func(value any) bool {
		for _, member := range asObject(value) {
			if !s(member) {
				return false
			}
		}
		return asObject(value) != nil
	}
}

func arrayOf(s shape) shape {
	return func(value any) bool {
		array, ok := value.([]any)
		for _, element := range array {
			ok = ok && s(element)
		}
		return ok
	}
}

func oneOf(values ...string) shape {
	return func(value any) bool {
		for _, one := range values {
			if value == one {
				return true
			}
		}
		return false
	}
}

func text(value any) bool    { _, ok := value.(string); return ok }
func boolean(value any) bool { _, ok := value.(bool); return ok }
func number(value any) bool  { _, ok := value.(json.Number); return ok }

// FuzzScalars of internal/metering checks the readers of these three.

func instant(value any) bool {
	s, ok := value.(string)
	_, err := metering.ParseTime(s)
	return ok && err == nil
}

func isNoTime(value any) bool {
	t, err := metering.ParseTime(value.(string))
	return err == nil && t.IsZero()
}

func quantity(value any) bool {
	n, ok := value.(json.Number)
	_, err := metering.ParseQuantity(n.String())
	return ok && err == nil
}

func amount(value any) bool {
	n, ok := value.(json.Number)
	_, err := metering.ParseNumber(n.String())
	return ok && err == nil
}

func int32s(value any) bool {
	if !amount(value) {
		return false
	}
	_, err := strconv.ParseInt(meaning(value).(string), 10, 32)
	return err == nil
}

var carried = func() members {
	m := members{}
	for _, member := range metering.CarriedMembers() {
		m[member.Name] = orNull(map[metering.Kind]shape{
			metering.KindText: text, metering.KindTime: instant, metering.KindAmount: amount, metering.KindCount: int32s,
		}[member.Kind])
	}
	return m
}()

// properties nest at most 24 levels deep, and DynamoDB can hold their numbers.
func properties(value any) bool { return asObject(value) != nil && fits(value, 24) }

// fits reports whether a document nests at most so many levels deep, with such numbers.
func fits(value any, levels int) bool {
	switch value := value.(type) {
	case json.Number:
		return amount(value)
	case []any:
		return levels > 0 && arrayOf(func(element any) bool { return fits(element, levels-1) })(value)
	case map[string]any:
		return levels > 0 && mapOf(func(member any) bool { return fits(member, levels-1) })(value)
	}
	return true
}

// meaning returns a value that is the same for all spellings: numbers by value, times in UTC.
func meaning(value any) any {
	switch value := value.(type) {
	case json.Number:
		n, err := metering.ParseNumber(value.String())
		if err != nil {
			return "out of range"
		}
		return n.String()
	case metering.Number:
		return value.String()
	case metering.NoNumber:
		return "out of range"
	case string:
		if t, err := metering.ParseTime(value); err == nil {
			return "at " + metering.FormatTime(t)
		}
		return "text " + value
	case []any:
		array := []any{}
		for _, element := range value {
			array = append(array, meaning(element))
		}
		return array
	case map[string]any:
		object := map[string]any{}
		for name, member := range value {
			object[name] = meaning(member)
		}
		return object
	}
	return value
}

// withoutZeros is a meaning without the members whose value means the same as their absence.
func withoutZeros(value any) any {
	switch value := value.(type) {
	case []any:
		for i, element := range value {
			value[i] = withoutZeros(element)
		}
	case map[string]any:
		for name, member := range value {
			switch member := withoutZeros(member).(type) {
			case nil, bool:
				if member != true {
					delete(value, name)
				}
			case string:
				if member == "0" || member == "text " {
					delete(value, name)
				}
			case []any:
				if len(member) == 0 {
					delete(value, name)
				}
			case map[string]any:
				if len(member) == 0 {
					delete(value, name)
				}
			}
		}
	}
	return value
}

func wantTaken(t *testing.T, want bool, err error) {
	t.Helper()
	if want && err != nil {
		t.Fatalf("refused: %v", err)
	}
	if !want {
		wantInvalid(t, err)
	}
}

// wantInvalid requires an error that a client may read.
func wantInvalid(t *testing.T, err error) {
	t.Helper()
	failure, ok := errors.AsType[*metering.Error](err)
	if !ok || failure.Code != metering.Invalid || failure.Message == "" || !utf8.ValidString(failure.Message) || len(failure.Message) > 10_000 {
		t.Fatalf("taken, or refused as %#v", err)
	}
}

func allows[ID any](parse func(string) (ID, error)) func(string) bool {
	return func(text string) bool {
		_, err := parse(text)
		return err == nil
	}
}
