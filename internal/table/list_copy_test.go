package table

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/marketmeter/marketmeter/internal/dynamoclient"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table/listjson"
	"github.com/marketmeter/marketmeter/internal/wire"
)

// replay is a transport that returns these bytes as the response to every request.
type replay []byte

func (a replay) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusOK, ContentLength: int64(len(a)), Body: io.NopCloser(bytes.NewReader(a)),
		Header: http.Header{"X-Amz-Crc32": {strconv.FormatUint(uint64(crc32.ChecksumIEEE(a)), 10)}},
	}, nil
}

// bySDK decodes the response as any other program would: the SDK decodes it into attribute values,
// itemGroup decodes these into groups, and wire encodes the groups as the API's JSON.
func bySDK(t testing.TB, response []byte) ([]byte, listjson.Response, error) {
	client := dynamoclient.New(dynamoclient.Options{
		Region: "us-east-1", Transport: replay(response), Credentials: credentials.NewStaticCredentialsProvider("a", "b", ""),
	})
	page, err := client.Query(t.Context(), &dynamodb.QueryInput{TableName: aws.String("t")})
	if err != nil {
		return nil, listjson.Response{}, err
	}
	if int(page.Count) != len(page.Items) {
		return nil, listjson.Response{}, fmt.Errorf("%d items, and Count is %d", len(page.Items), page.Count)
	}
	var out []byte
	for i, item := range page.Items {
		group, err := itemGroup(item)
		if err != nil {
			return nil, listjson.Response{}, err
		}
		if isBeyondWire(&group) {
			return nil, listjson.Response{}, errors.New("a value is perhaps a number and not a quantity, or a text and not a time")
		}
		wantStoredAlike(t, &group)
		if i > 0 {
			out = append(out, ',')
		}
		out = wire.AppendGroup(out, &group)
	}
	var beside listjson.Response
	if page.LastEvaluatedKey != nil {
		r := itemReader{item: page.LastEvaluatedKey}
		if beside.Last = r.text(attrTime); r.err != nil {
			return nil, listjson.Response{}, r.err
		}
	}
	if page.ConsumedCapacity != nil {
		beside.Units = aws.ToFloat64(page.ConsumedCapacity.CapacityUnits)
	}
	return out, beside, nil
}

// isBeyondWire reports whether itemGroup may have left out a quantity or a time that AppendGroups
// copies. Stored values were checked before they were stored.
func isBeyondWire(group *metering.Group) bool {
	unknown := group.MetaInfo.Unknown
	beyond := unknown["originRecords"] != nil || unknown["billableRecords"] != nil
	for _, value := range []any{
		group.Unknown["reportedTime"], unknown["timestamp"], unknown["lagoUsageStartTime"], unknown["stripePeriodStartTime"], unknown["stripePeriodEndTime"],
	} {
		_, isText := value.(string)
		beyond = beyond || isText
	}
	return beyond
}

// wantStoredAlike wants a group to be the same after it is written and read again.
func wantStoredAlike(t testing.TB, group *metering.Group) {
	t.Helper()
	again, err := itemGroup(groupItem(group))
	if again.ProductID != group.ProductID {
		t.Fatalf("the product %q is stored as %q", group.ProductID, again.ProductID)
	}
	if before, after := wire.AppendGroup(nil, group), wire.AppendGroup(nil, &again); err != nil || !bytes.Equal(before, after) {
		t.Fatalf("%s\nis stored as\n%s, %v", before, after, err)
	}
}

// byWire decodes the response as List does.
func byWire(response []byte) ([]byte, listjson.Response, error) {
	return listjson.AppendGroups(nil, response, 0, func(listjson.Group) (bool, error) { return true, nil })
}

// meaning returns the groups as values: two spellings of a number are equal, and the order of
// members does not matter.
func meaning(t testing.TB, groups []byte) (values []any) {
	t.Helper()
	decoder := jsontext.NewDecoder(bytes.NewReader(slices.Concat([]byte{'['}, groups, []byte{']'})), jsontext.AllowDuplicateNames(true))
	text, err := decoder.ReadValue()
	if err != nil {
		t.Fatalf("%v\n%s", err, groups)
	}
	number := json.NewDecoder(bytes.NewReader(text))
	number.UseNumber()
	if err := number.Decode(&values); err != nil {
		t.Fatal(err)
	}
	return spelledAlike(t, values).([]any)
}

func spelledAlike(t testing.TB, value any) any {
	switch value := value.(type) {
	case json.Number:
		n, err := metering.ParseNumber(value.String())
		if err != nil {
			return value // of more digits than DynamoDB has
		}
		return json.Number(n.String())
	case []any:
		for i := range value {
			value[i] = spelledAlike(t, value[i])
		}
	case map[string]any:
		for name := range value {
			value[name] = spelledAlike(t, value[name])
		}
	}
	return value
}

// For all groups, in all spellings that DynamoDB may use, both decoders return the same.
func TestDecodeGroups_IsAsTheSDKReads(t *testing.T) {
	t.Parallel()
	groups := 0
	rapid.Check(t, func(rt *rapid.T) {
		response := spelledResponse(rt)
		want, beside, err := bySDK(t, response)
		if err != nil {
			rt.Fatalf("%v\n%s", err, response)
		}
		got, a, err := byWire(response)
		if err != nil {
			rt.Fatalf("%v\n%s", err, response)
		}
		values := meaning(t, got)
		groups += len(values)
		if diff := cmp.Diff(meaning(t, want), values); diff != "" {
			rt.Fatalf("-by the SDK +by wire\n%s\n%s", diff, response)
		}
		if a != beside {
			rt.Fatalf("beside the groups the SDK reads %+v and wire %+v: %s", beside, a, response)
		}
		if len(got) > len(response) {
			rt.Fatalf("%d bytes became %d: %s", len(response), len(got), response)
		}
	})
	if groups < 50 {
		t.Errorf("only %d groups: that no longer tests much", groups)
	}
}

// spelledResponse returns a response to Query and varies everything that JSON leaves to the writer:
// order of members, white space, escapes.
func spelledResponse(t *rapid.T) []byte {
	s := speller{t}
	items := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string { return s.item() }), 0, 3).Draw(t, "items")
	return []byte(s.object(map[string]string{
		"Items":            s.array(items),
		"Count":            strconv.Itoa(len(items)),
		"ScannedCount":     strconv.Itoa(len(items)),
		"LastEvaluatedKey": s.object(map[string]string{"PK": s.text("ORG#o"), "_time": s.text("2026-03-01T12:00:00.000Z#g")}),
		"ConsumedCapacity": s.object(map[string]string{"TableName": s.quote("t"), "CapacityUnits": "1.5"}),
	}))
}

type speller struct{ t *rapid.T }

func (s speller) chance(percent int) bool {
	return rapid.IntRange(1, 100).Draw(s.t, "chance") <= percent
}

func (s speller) space() string {
	if s.chance(95) {
		return ""
	}
	return rapid.SampledFrom([]string{" ", "\n", "\t", "\r\n  "}).Draw(s.t, "space")
}

func (s speller) object(members map[string]string) string {
	var all []string
	for _, name := range rapid.Permutation(slices.Sorted(keysOf(members))).Draw(s.t, "order") {
		all = append(all, s.space()+s.quote(name)+s.space()+":"+s.space()+members[name]+s.space())
	}
	return s.space() + "{" + strings.Join(all, ",") + s.space() + "}" + s.space()
}

func keysOf(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for name := range m {
			if !yield(name) {
				return
			}
		}
	}
}

func (s speller) array(elements []string) string {
	return "[" + s.space() + strings.Join(elements, ",") + "]"
}

// quote spells a string: each character as it is, or as one of its escapes.
func (s speller) quote(text string) string {
	plain := s.chance(80)
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range text {
		short, hasShort := map[rune]string{
			'"': `\"`, '\\': `\\`, '/': `\/`, '\b': `\b`, '\f': `\f`, '\n': `\n`, '\r': `\r`, '\t': `\t`,
		}[r]
		must := r == '"' || r == '\\' || r < ' '
		switch {
		case !must && (plain || s.chance(70)):
			b.WriteRune(r)
		case hasShort && s.chance(50):
			b.WriteString(short)
		case r > 0xFFFF:
			fmt.Fprintf(&b, `\u%04x\u%04X`, 0xD800+(r-0x10000)>>10, 0xDC00+(r-0x10000)&0x3FF)
		case s.chance(50):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\u%04X`, r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func (s speller) value(tag, value string) string { return s.object(map[string]string{tag: value}) }

func (s speller) text(text string) string  { return s.value("S", s.quote(text)) }
func (s speller) number(n string) string   { return s.value("N", s.quote(n)) }
func (s speller) anyText(of string) string { return s.text(rapid.String().Draw(s.t, of)) }

func (s speller) time() string {
	return s.text(rapid.SampledFrom([]string{"0000-01-01T00:00:00.000Z", "2024-07-29T15:51:28.071Z", "9999-12-31T23:59:59.999Z"}).Draw(s.t, "time"))
}

func (s speller) quantity() string {
	return s.number(rapid.SampledFrom([]string{
		"0", "-0", "1", "-1.50", "0.1", "9007199254740993", "1234567890123456789", "0.0000000000000000001", "1E+3", "1e3", "12.5E-2",
	}).Draw(s.t, "quantity"))
}

func (s speller) amount() string {
	return s.number(rapid.SampledFrom([]string{
		"0", "-12345678901234567890123456789012345678", "0.12345678901234567890123456789012345678", "1e100", "-1E-130", "9.9999e125", "1.0",
	}).Draw(s.t, "amount"))
}

func (s speller) integer() string {
	return s.number(rapid.SampledFrom([]string{"0", "7", "-7", "2147483647", "-2147483648", "1E+3", "5.0", "-0"}).Draw(s.t, "integer"))
}

// some returns up to n members with any names.
func (s speller) some(n int, value func() string) map[string]string {
	members := map[string]string{}
	for range rapid.IntRange(0, n).Draw(s.t, "members") {
		members[rapid.String().Draw(s.t, "name")] = value()
	}
	return members
}

func (s speller) document(depth int) string {
	kinds := 5
	if depth > 0 {
		kinds = 7
	}
	switch rapid.IntRange(1, kinds).Draw(s.t, "kind") {
	case 1:
		return s.value("NULL", "true")
	case 2:
		return s.flag()
	case 3:
		return s.anyText("text")
	case 4:
		return s.amount()
	case 5:
		return s.quantity()
	case 6:
		var elements []string
		for range rapid.IntRange(0, 3).Draw(s.t, "elements") {
			elements = append(elements, s.document(depth-1))
		}
		return s.value("L", s.array(elements))
	default:
		return s.value("M", s.object(s.some(3, func() string { return s.document(depth - 1) })))
	}
}

func (s speller) flag() string {
	return s.value("BOOL", strconv.FormatBool(rapid.Bool().Draw(s.t, "flag")))
}

func (s speller) amounts() string { return s.value("M", s.object(s.some(3, s.quantity))) }

func (s speller) billables() string {
	var records []string
	for range rapid.IntRange(0, 2).Draw(s.t, "records") {
		record := map[string]string{"key": s.anyText("key"), "quantity": s.quantity()}
		if s.chance(50) {
			record["properties"] = s.value("M", s.object(s.some(3, func() string { return s.document(3) })))
		}
		if s.chance(10) {
			record["other"] = s.anyText("other")
		}
		records = append(records, s.value("M", s.object(record)))
	}
	return s.value("L", s.array(records))
}

// item returns a stored group, with attributes that are not in the API.
func (s speller) item() string {
	metaInfo := map[string]string{}
	maybe := func(to map[string]string, name string, value func() string) {
		if s.chance(30) {
			to[name] = value()
		}
	}
	maybe(metaInfo, "SkipValidation", s.flag)
	maybe(metaInfo, "source", func() string { return s.anyText("source") })
	maybe(metaInfo, "timestamp", s.time)
	maybe(metaInfo, "originRecords", s.amounts)
	maybe(metaInfo, "billableRecords", s.billables)
	for _, m := range metering.CarriedMembers() {
		maybe(metaInfo, m.Name, map[metering.Kind]func() string{
			metering.KindText: func() string { return s.anyText("carried") }, metering.KindTime: s.time,
			metering.KindAmount: s.amount, metering.KindCount: s.integer,
		}[m.Kind])
	}
	maybe(metaInfo, "_internal", func() string { return s.document(2) })
	item := map[string]string{
		"id": s.anyText("id"), "organizationID": s.anyText("organization"), "buyerID": s.anyText("buyer"), "entitlementID": s.anyText("entitlement"),
		"partner": s.text("AWS"), "status": s.text("CREATED"), "records": s.amounts(), "serialID": s.integer(), "usageRecordReportID": s.anyText("report"),
		"creationTime": s.time(), "lastUpdateTime": s.time(), "metaInfo": s.value("M", s.object(metaInfo)),
		"_time": s.text("2026-03-01T12:00:00.000Z#g"),
	}
	maybe(item, "reportedTime", s.time)
	maybe(item, "reportBy", s.time)
	maybe(item, "problems", s.problems)
	maybe(item, "productID", func() string { return s.anyText("product") })
	maybe(item, "_op", func() string { return s.value("B", s.quote("aGVsbG8=")) })
	maybe(item, "PK", func() string { return s.text("ORG#secret") })
	maybe(item, "_set", func() string { return s.value("SS", s.array([]string{s.quote("a")})) })
	return s.object(item)
}

func (s speller) problems() string {
	problems := make([]string, rapid.IntRange(0, 2).Draw(s.t, "problems"))
	for i := range problems {
		members := map[string]string{}
		for _, name := range []string{"code", "path", "message", "hint", "ofANewerVersion"} {
			members[name] = s.anyText(name)
		}
		problems[i] = s.value("M", s.object(members))
	}
	return s.value("L", s.array(problems))
}

// plainResponse returns a response with one item, after the given replacements in its text.
func plainResponse(replace ...string) []byte {
	return []byte(strings.NewReplacer(replace...).Replace(`{"Items":[{"id":{"S":"g"},"organizationID":{"S":"o"},"buyerID":{"S":"b"},` +
		`"entitlementID":{"S":"e"},"partner":{"S":"AWS"},"status":{"S":"CREATED"},"records":{"M":{"cpu":{"N":"1.5"}}},"serialID":{"N":"7"},` +
		`"usageRecordReportID":{"S":""},"creationTime":{"S":"2026-03-01T12:00:00.000Z"},"lastUpdateTime":{"S":"2026-03-01T12:00:00.000Z"},` +
		`"metaInfo":{"M":{"source":{"S":"API"},"billableRecords":{"L":[{"M":{"key":{"S":"k"},"quantity":{"N":"1"},"properties":{"M":{"p":{"NULL":true}}}}}]}}},` +
		`"_op":{"B":"aGk="},"_time":{"S":"2026-03-01T12:00:00.000Z#g"}}],"Count":1,"ScannedCount":1,` +
		`"LastEvaluatedKey":{"PK":{"S":"ORG#o"},"_time":{"S":"2026-03-01T12:00:00.000Z#g"}},"ConsumedCapacity":{"CapacityUnits":0.5,"TableName":"t"}}`))
}

func TestDecodeGroups_ResponseOfQuery(t *testing.T) {
	t.Parallel()
	groups, response, err := byWire(plainResponse())
	want := `{"id":"g","organizationID":"o","buyerID":"b","entitlementID":"e","partner":"AWS","status":"CREATED","records":{"cpu":1.5},"serialID":7,` +
		`"usageRecordReportID":"","creationTime":"2026-03-01T12:00:00.000Z","lastUpdateTime":"2026-03-01T12:00:00.000Z",` +
		`"metaInfo":{"source":"API","billableRecords":[{"key":"k","quantity":1,"properties":{"p":null}}]}}`
	if err != nil || string(groups) != want {
		t.Errorf("%v\n%s\nwant\n%s", err, groups, want)
	}
	if response != (listjson.Response{Last: "2026-03-01T12:00:00.000Z#g", Units: 0.5}) {
		t.Errorf("%+v", response)
	}
}

// A response that is cut at any byte is an error.
func TestDecodeGroups_CutResponseIsAnError(t *testing.T) {
	t.Parallel()
	response := plainResponse()
	for n := range response {
		if _, _, err := byWire(response[:n]); err == nil {
			t.Errorf("the first %d bytes of %d are read as a response", n, len(response))
		}
	}
}

func TestDecodeGroups_RefusedResponses(t *testing.T) {
	t.Parallel()
	for name, response := range map[string][]byte{
		"nothing":                       {},
		"what is given to the SDK":      []byte("{}"),
		"an item less":                  plainResponse(`"Count":1`, `"Count":2`),
		"an item more":                  plainResponse(`"Count":1`, `"Count":0`),
		"no Count":                      plainResponse(`"Count":1,`, ``),
		"Count twice":                   plainResponse(`"Count":1`, `"Count":1,"Count":1`),
		"a last key twice":              plainResponse(`"LastEvaluatedKey":`, `"LastEvaluatedKey":{"_time":{"S":"2026-03-01T12:00:00.000Z#g"}},"LastEvaluatedKey":`),
		"Items twice":                   plainResponse(`"Items":`, `"Items":[],"Items":`),
		"a number out of range":         plainResponse(`"1.5"`, `"1e999"`),
		"a number of 39 digits":         plainResponse(`"1.5"`, `"123456789012345678901234567890123456789"`),
		"a time without its digits":     plainResponse(`"lastUpdateTime":{"S":"2026-03-01`, `"lastUpdateTime":{"S":"2026-0;-01`),
		"no items":                      plainResponse(`"Items"`, `"Other"`),
		"more after the end":            append(plainResponse(), '{'),
		"a NUL after the end":           append(plainResponse(), 0),
		"a value of two types":          plainResponse(`{"S":"API"}`, `{"S":"API","N":"1"}`),
		"a string for a number":         plainResponse(`{"N":"1.5"}`, `{"S":"1.5"}`),
		"a list for a map":              plainResponse(`{"M":{"cpu":{"N":"1.5"}}}`, `{"L":[]}`),
		"what is no time":               plainResponse(`"lastUpdateTime":{"S":"2026`, `"lastUpdateTime":{"S":"26`),
		"a number that is none":         plainResponse(`"1.5"`, `"NaN"`),
		"a number with a zero before":   plainResponse(`"1.5"`, `"01"`),
		"a number without whole digits": plainResponse(`"1.5"`, `".5"`),
		"an empty number":               plainResponse(`"1.5"`, `""`),
		"an integer out of range":       plainResponse(`{"N":"7"}`, `{"N":"2147483648"}`),
		"an integer that is none":       plainResponse(`{"N":"7"}`, `{"N":"7.5"}`),
		"no id":                         plainResponse(`"id"`, `"ID"`),
		"no records":                    plainResponse(`"records"`, `"Records"`),
		"no metaInfo":                   plainResponse(`"metaInfo"`, `"_meta"`),
		"no position":                   plainResponse(`#g"}}],`, `#g"}},`, `"_time":{"S":"2026-03-01T12:00:00.000Z#g"}}],"Count"`, `"_x":{"S":"a"}}],"Count"`),
		"an empty position":             plainResponse(`"_time":{"S":"2026-03-01T12:00:00.000Z#g"}}],"Count"`, `"_time":{"S":""}}],"Count"`),
		"a member twice":                plainResponse(`"partner":`, `"status":`),
		"a last key without a position": plainResponse(`"LastEvaluatedKey":{"PK":{"S":"ORG#o"},"_time"`, `"LastEvaluatedKey":{"PK":{"S":"ORG#o"},"time"`),
		"a control character":           plainResponse(`"API"`, "\"A\nI\""),
		"what is not UTF-8":             plainResponse(`"API"`, "\"A\xffI\""),
		"an escape that is none":        plainResponse(`"API"`, `"\x41"`),
		"a short escape":                plainResponse(`"API"`, `"\u004"`),
		"half a surrogate pair":         plainResponse(`"API"`, `"\uD83D"`),
		"the other half":                plainResponse(`"API"`, `"\uDE00"`),
		"a pair the wrong way round":    plainResponse(`"API"`, `"\uDE00\uD83D"`),
		"a comma too many":              plainResponse(`,"Count"`, `,,"Count"`),
		"a comma at the end":            plainResponse(`{"N":"1.5"}`, `{"N":"1.5"},`),
		"a colon too few":               plainResponse(`"Count":`, `"Count" `),
		"too many levels": plainResponse(`{"NULL":true}`,
			strings.Repeat(`{"L":[`, 200)+`{"NULL":true}`+strings.Repeat(`]}`, 200)),
		"too many levels of what is passed over": plainResponse(`{"B":"aGk="}`, strings.Repeat("[", 1_000_000)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if bytes.Equal(response, plainResponse()) {
				t.Fatal("the response is as it should be")
			}
			if groups, _, err := byWire(response); err == nil {
				t.Errorf("read as %s", groups)
			} else if !strings.Contains(err.Error(), "DynamoDB's response at byte ") {
				t.Errorf("the error does not say where: %v", err)
			}
		})
	}
}

// A newer version may write an optional member in another form: the group is returned without it.
func TestDecodeGroups_OptionalMembersOfAnotherTypeAreLeftOut(t *testing.T) {
	t.Parallel()
	for name, response := range map[string][]byte{
		"binary":                      plainResponse(`{"NULL":true}`, `{"B":"aGk="}`),
		"a set of strings":            plainResponse(`{"NULL":true}`, `{"SS":["a"]}`),
		"a set of numbers":            plainResponse(`{"NULL":true}`, `{"NS":["1"]}`),
		"an unknown type":             plainResponse(`{"NULL":true}`, `{"X":"a"}`),
		"a boolean that is none":      plainResponse(`{"NULL":true}`, `{"BOOL":1}`),
		"a number for a string":       plainResponse(`{"S":"API"}`, `{"N":"1"}`),
		"a map for a list":            plainResponse(`{"L":[{`, `{"M":{"a":{`, `}}}}}]}`, `}}}}}}}`),
		"no key in a billable record": plainResponse(`"key"`, `"Key"`),
		"a number for a time":         plainResponse(`"source":{"S":"API"}`, `"timestamp":{"N":"1700000000"}`),
		"a text for a flag":           plainResponse(`"source":{"S":"API"}`, `"SkipValidation":{"S":"no"}`),
		"a text for an amount":        plainResponse(`"source":{"S":"API"}`, `"lagoAmount":{"S":"1"}`),
		"half a count":                plainResponse(`"source":{"S":"API"}`, `"stripeUsageRecordSummaryTotalUsage":{"N":"1.5"}`),
		"a number for a report":       plainResponse(`"_op":{"B":"aGk="}`, `"reportedTime":{"N":"1"}`),
		"quantities in a list":        plainResponse(`"source":{"S":"API"}`, `"originRecords":{"L":[{"M":{"cpu":{"N":"1"}}}]}`),
		"a map for a text":            plainResponse(`"source":{"S":"API"}`, `"stripeInvoiceID":{"M":{"a":{"SS":["b"]}}}`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			groups, _, err := byWire(response)
			if err != nil {
				t.Fatal(err)
			}
			full, _, _ := byWire(plainResponse())
			if len(groups) > len(full) || !strings.Contains(string(groups), `"records":{"cpu":1.5}`) || !json.Valid(groups) {
				t.Errorf("%s", groups)
			}
			if bySDK, _, err := bySDK(t, response); err == nil && !reflect.DeepEqual(meaning(t, bySDK), meaning(t, groups)) {
				t.Errorf("the SDK reads\n%s\nand wire\n%s", bySDK, groups)
			}
		})
	}
}

// FuzzDecodeGroups looks for a response that List accepts although it is not JSON, or that List and
// the SDK decode to different groups or different data beside them. It also looks for an item that
// the SDK and itemGroup accept and groupItem writes differently.
func FuzzDecodeGroups(f *testing.F) {
	f.Add(plainResponse())
	f.Add(plainResponse(`"API"`, `"\ud83d\ude00\u0000\/\"\\é"`, `"1.5"`, `"-1E-130"`, `"7"`, `"1e1"`))
	f.Add(plainResponse(`{"M":{"cpu":{"N":"1.5"}}}`, `{"M":{}}`, `{"L":[{`, ` { "L" : [ { `, `"id"`, `"\u0069d"`))
	f.Add(plainResponse(`"source":{"S":"API"}`, `"originRecords":{"M":{"a":{"N":"2.50"}}},"SkipValidation":{"BOOL":true},"timestamp":{"S":"2026-03-01T12:00:00.000Z"},`+
		`"lagoAmount":{"N":"1E-9"},"stripeInvoiceID":{"S":"i"}`, `"_op":{"B":"aGk="}`, `"reportedTime":{"S":"2026-03-01T12:00:00.000Z"},"productID":{"S":"p"}`))
	f.Fuzz(func(t *testing.T, response []byte) {
		want, beside, errSDK := bySDK(t, response)
		got, a, err := byWire(response)
		if err != nil {
			return
		}
		if len(got) > len(response) || !utf8.Valid(got) {
			t.Fatalf("%q", got)
		}
		values := meaning(t, got)
		if !json.Valid(response) {
			t.Fatal("taken, and no JSON")
		}
		if err := errSDK; err != nil {
			// The SDK also reads what AppendGroups skips, and itemGroup reads times and quantities,
			// which were checked before they were stored.
			for _, beyond := range []string{"deserialization failed", "and not a time", "and not a quantity", "attribute serialID is"} {
				if strings.Contains(err.Error(), beyond) {
					return
				}
			}
			t.Fatalf("taken, and refused by the SDK: %v", err)
		}
		if !reflect.DeepEqual(meaning(t, want), values) { // cmp.Diff takes twice as long with every list in a list
			t.Fatalf("the SDK reads\n%s\nand wire\n%s", want, got)
		}
		if a != beside {
			t.Fatalf("beside the groups the SDK reads %+v and wire %+v", beside, a)
		}
	})
}

// metering.GroupMembers is the only list of members: each one is stored and read, and copied unless
// it is private.
func TestMembers_AreStoredAndListed(t *testing.T) {
	t.Parallel()
	attributes := listjson.Attributes()
	for i := range metering.GroupMembers {
		m := &metering.GroupMembers[i]
		if slices.Contains(attributes, m.Name) == m.Private {
			t.Errorf("%s is private: %v; a list asks for %v", m.Name, m.Private, attributes)
		}
		value := map[metering.Kind]any{
			metering.KindText: "t", metering.KindTime: time.UnixMilli(1_700_000_000_123).UTC(), metering.KindCount: int32(7),
			metering.KindQuantities: map[string]metering.Quantity{"k": {}}, metering.KindMetaInfo: metering.MetaInfo{Carried: map[string]any{"stripeInvoiceID": "i"}},
			metering.KindProblems: []metering.Problem{{Code: "c", Path: "/p", Message: "m"}},
		}[m.Kind]
		var group metering.Group
		m.Set(&group, value)
		read, err := itemGroup(groupItem(&group))
		if got := m.Get(&read); err != nil || !reflect.DeepEqual(got, value) {
			t.Errorf("%s is stored as %v and read as %v, %v", m.Name, value, got, err)
		}
	}
}
