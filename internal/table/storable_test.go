package table_test

import (
	"encoding/json"
	"fmt"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"pgregory.net/rapid"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/programtest"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
	"github.com/marketmeter/marketmeter/internal/wire"
)

// The limit is exact to the byte, by the sizes that AWS documents.
func TestPut_RefusesMoreThan392KB(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	fits := full("g-fits", metering.StatusCreated, 8<<10)
	put(t, tbl, fits)
	_, err := tbl.Put(t.Context(), full("g-over", metering.StatusCreated, 8<<10-1))
	wantCode(t, err, metering.Invalid)
	if want := "the group has 401409 bytes as stored: it may have at most 401408 (392 KB)"; err.Error() != want {
		t.Errorf("%v; want %s", err, want)
	}
	wantSame(t, []metering.Group{*fits}, all(t, tbl, "o1"))
}

// Put refuses each name in properties that DynamoDB refuses, and its error says where the name is.
func TestPut_NamesAreThoseOfDynamoDB(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	tbl := table.New(client, name)
	for i, c := range []struct {
		name string
		ok   bool
	}{{"", false}, {"\x00", true}, {" ", true}, {strings.Repeat("x", 65_535), true}, {strings.Repeat("x", 65_536), false}, {strings.Repeat("ü", 32_768), false}} {
		for depth, properties := range []map[string]any{
			{c.name: true},
			{"a": []any{nil, map[string]any{"b c": map[string]any{c.name: []any{}}}}},
		} {
			g := group(fmt.Sprint("g-", i, depth), metering.StatusCreated)
			g.MetaInfo.BillableRecords = []metering.BillableRecord{{Key: "k"}, {Key: "l", Properties: properties}}
			stored, err := tbl.Put(t.Context(), g)
			if c.ok {
				if !stored || err != nil {
					t.Errorf("%.20q: %v", c.name, err)
				}
				continue
			}
			wantCode(t, err, metering.Invalid)
			place := []string{"metaInfo.billableRecords[1].properties has", `metaInfo.billableRecords[1].properties["a"][1]["b c"] has`}[depth]
			if !strings.HasPrefix(err.Error(), place) || !strings.Contains(err.Error(), "1 to 65535 bytes") {
				t.Errorf("%.20q: %v", c.name, err)
			}
			_, err = client.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &name, Item: map[string]types.AttributeValue{
				"PK": text("a"), "SK": text("b"), "properties": &types.AttributeValueMemberM{Value: map[string]types.AttributeValue{c.name: text("")}},
			}})
			if err == nil {
				t.Errorf("%.20q: DynamoDB takes it", c.name)
			}
		}
	}
}

func text(s string) *types.AttributeValueMemberS { return &types.AttributeValueMemberS{Value: s} }

// reported returns the group that a report of g creates without a mapping, with an entitlement that
// has the longest ids.
func reported(g *metering.NewGroup, serial int32) *metering.Group {
	long := strings.Repeat("#", 256)
	source, at := metering.Source("METRONOME"), now
	r := &metering.Group{
		ID: strings.Repeat("#", 30) + fmt.Sprintf("%06d", serial), OrganizationID: "o1", BuyerID: long, ProductID: long, EntitlementID: long,
		Partner: "AZURE", Status: metering.StatusInvalid, SerialID: 2_000_000_000 + serial, CreationTime: now, LastUpdateTime: now,
		Records:  map[string]metering.Quantity{},
		MetaInfo: metering.MetaInfo{Source: &source, Timestamp: &at, Carried: g.MetaInfo.Carried, SkipValidation: &g.MetaInfo.SkipValidation},
	}
	for _, record := range g.Records {
		r.Records[record.Key], _ = metering.ParseQuantity(record.Quantity)
	}
	for _, record := range g.BillableRecords {
		quantity, _ := metering.ParseQuantity(record.Quantity)
		r.Records[record.Key] = quantity
		r.MetaInfo.BillableRecords = append(r.MetaInfo.BillableRecords, metering.BillableRecord{Key: record.Key, Properties: record.Properties, Quantity: quantity})
	}
	r.MetaInfo.OriginRecords = r.Records
	return r
}

// The largest group of each shape that validation approves is stored and deleted, whatever its ids
// are, which validation does not know. The next larger one is refused with its size.
func TestValidate_ApprovesOnlyWhatPutStores(t *testing.T) {
	programtest.Long(t)
	t.Parallel()
	tbl := tabletest.New(t)
	repeat := func(n int, element string) string { return strings.TrimSuffix(strings.Repeat(element+",", n), ",") }
	numbered := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format+",", i)
		}
		return strings.TrimSuffix(b.String(), ",")
	}
	properties := func(json string) string {
		return `[{"billableRecords":[{"key":"k","quantity":1,"properties":` + json + `}]}]`
	}
	serial := int32(0)
	for name, c := range map[string]struct {
		each int // max bytes as stored that one more of n adds
		body func(n int) string
	}{
		"text": {1, func(n int) string {
			return `[{"records":{"a":1},"metaInfo":{"stripeInvoiceID":"` + strings.Repeat("x", n) + `"}}]`
		}},
		"three-byte text": {3, func(n int) string { return properties(`{"a":"` + strings.Repeat("日", n) + `"}`) }},
		"long names": {207, func(n int) string {
			return properties(`{"a":{` + numbered(n, `"`+strings.Repeat("n", 200)+`%d":""`) + `}}`)
		}},
		"nulls":            {2, func(n int) string { return properties(`{"a":[` + repeat(n, "null") + `]}`) }},
		"empty arrays":     {4, func(n int) string { return properties(`{"a":[` + repeat(n, "[]") + `]}`) }},
		"negative numbers": {5, func(n int) string { return properties(`{"a":[` + repeat(n, "-1.2") + `]}`) }},
		"38 digits": {22, func(n int) string {
			return properties(`{"a":[` + repeat(n, "1.2345678901234567890123456789012345678e-100") + `]}`)
		}},
		"members": {8, func(n int) string { return properties(`{` + numbered(n, `"%x":0`) + `}`) }},
		"records": {20, func(n int) string { return `[{"records":{` + numbered(n, `"%d":0.1`) + `}}]` }},
		"billable records": {70, func(n int) string {
			return `[{"billableRecords":[` + numbered(n, `{"key":"%d","quantity":1.5,"properties":{}}`) + `]}]`
		}},
	} {
		validate := func(n int) ([]metering.NewGroup, error) {
			groups, err := wire.DecodeNewGroups([]byte(c.body(n)))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			return groups, metering.ValidateBatch(groups, "o1", nil, now)
		}
		n := 1
		var err error
		for err == nil {
			n *= 2
			_, err = validate(n)
		}
		for err != nil {
			wantCode(t, err, metering.Invalid)
			var size int
			if _, message, ok := strings.Cut(err.Error(), "the group may have "); !ok || !strings.Contains(message, "at most 401408 (392 KB)") {
				t.Fatalf("%s: %v", name, err)
			} else if _, err := fmt.Sscan(message, &size); err != nil {
				t.Fatal(err)
			}
			n -= max(1, (size-metering.MaxStored)/c.each)
			_, err = validate(n)
		}
		groups, err := validate(n)
		if err != nil {
			t.Fatal(err)
		}
		serial++
		g := reported(&groups[0], serial)
		if stored, err := tbl.Put(t.Context(), g); err != nil || !stored {
			t.Errorf("%s: the largest that is approved, %d: %v", name, n, err)
			continue
		}
		if _, err := tbl.Delete(t.Context(), "o1", metering.GroupID(g.ID), "", now.Add(time.Hour)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A group that validation approves is stored, with any properties and keys. DynamoDB refuses every
// name that validation refuses.
func TestValidate_ApprovesOnlyStorableProperties(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	name := rapid.SampledFrom([]string{"", "a", "b", " ", ".", "#", "%", "PK", "_time", "\x00", "ü", "\U0010FFFF", "a.b[0]", "NULL", "M"})
	number := rapid.SampledFrom([]string{"0", "-0.0", "1", "-7.25", "1e-130", "9.9999999999999999999999999999999999999e125", "-1e125", "0.1", "1000000"})
	var value func(depth int) *rapid.Generator[any]
	value = func(depth int) *rapid.Generator[any] {
		scalar := rapid.OneOf(rapid.Just[any](nil), rapid.Just[any](true), rapid.Just[any](""), rapid.Map(rapid.String(), func(s string) any { return s }),
			rapid.Map(number, func(n string) any { return json.Number(n) }))
		if depth == 0 {
			return scalar
		}
		return rapid.OneOf(scalar, rapid.Map(rapid.SliceOfN(rapid.Deferred(func() *rapid.Generator[any] { return value(depth - 1) }), 0, 3), func(a []any) any { return a }),
			rapid.Map(rapid.MapOfN(name, rapid.Deferred(func() *rapid.Generator[any] { return value(depth - 1) }), 0, 3), func(m map[string]any) any { return m }))
	}
	serial, refused, approved := int32(0), 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		properties := rapid.MapOfN(name, value(rapid.IntRange(0, 22).Draw(rt, "depth")), 0, 4).Draw(rt, "properties")
		body, err := json.Marshal([]any{map[string]any{"billableRecords": []any{map[string]any{"key": "k", "quantity": 1, "properties": properties}}}})
		if err != nil {
			rt.Fatal(err)
		}
		groups, err := wire.DecodeNewGroups(body)
		if err != nil {
			rt.Fatalf("%s: %v", body, err)
		}
		serial++
		g := reported(&groups[0], serial)
		if err := metering.ValidateBatch(groups, "o1", nil, now); err != nil {
			refused++
			if !strings.Contains(err.Error(), "a name must have 1 to 65535 bytes") || !strings.Contains(string(body), `"":`) {
				rt.Fatalf("%s: %v", body, err)
			}
			return
		}
		approved++
		if stored, err := tbl.Put(t.Context(), g); err != nil || !stored {
			rt.Fatalf("%s: %v", body, err)
		}
	})
	if refused == 0 || approved == 0 {
		t.Errorf("%d refused, %d approved", refused, approved)
	}
}

// The largest group that is stored fills 392 KB to the byte, whatever its members are.
func TestPut_CountsEachAttribute(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	tbl := table.New(client, name)
	number := func(text string) metering.Number {
		n, err := metering.ParseNumber(text)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	quantities := map[string]metering.Quantity{}
	for key, text := range map[string]string{"a": "0", "ü": "-7", "😀#%": "9007199254740993", "long": "9999999999999999999"} {
		quantities[key], _ = metering.ParseQuantity(text)
	}
	source, skip, at := metering.Source("METRONOME"), true, now
	for i, change := range []func(*metering.Group){
		func(*metering.Group) {},
		func(g *metering.Group) { g.OrganizationID, g.BuyerID, g.EntitlementID = "ü#%#", "#", "%23" },
		func(g *metering.Group) { g.ID = "%#ü" },
		func(g *metering.Group) { g.ProductID, g.UsageRecordReportID = "", "r-1" },
		func(g *metering.Group) {
			g.Partner, g.Status, g.SerialID = "AZURE", metering.StatusReportPending, 2147483647
		},
		func(g *metering.Group) { g.ReportedTime, g.SerialID = now, 0 },
		func(g *metering.Group) { g.Records = quantities },
		func(g *metering.Group) {
			g.MetaInfo.SkipValidation, g.MetaInfo.Source, g.MetaInfo.Timestamp, g.MetaInfo.OriginRecords = &skip, &source, &at, quantities
		},
		func(g *metering.Group) { g.MetaInfo.Source, g.MetaInfo.OriginRecords = nil, nil },
		func(g *metering.Group) {
			g.MetaInfo.Carried["lagoAmount"], g.MetaInfo.Carried["stripeUsageRecordSummaryTotalUsage"] = number("-12345"), number("-2147483647")
			g.MetaInfo.Carried["stripePeriodEndTime"] = metering.FormatTime(now)
		},
		func(g *metering.Group) { g.MetaInfo.BillableRecords = []metering.BillableRecord{} },
		func(g *metering.Group) {
			g.MetaInfo.BillableRecords = []metering.BillableRecord{{Key: "k"}, {Key: "日", Quantity: quantities["long"], Properties: map[string]any{}}, {Key: "l", Properties: map[string]any{
				"a": nil, "b": true, "c": "ü", "d": number("12345678901234567890123456789012345679"), "e": []any{}, "f": []any{nil, []any{"x", map[string]any{"y": number("-1")}}},
			}}}
		},
	} {
		g := group(fmt.Sprint("g", i), metering.StatusCreated)
		g.MetaInfo.Carried = map[string]any{}
		change(g)
		pad := func(n int) { g.MetaInfo.Carried["stripeInvoiceID"] = strings.Repeat("x", n) }
		over := sort.Search(metering.MaxStored, func(n int) bool {
			pad(n)
			return g.CheckStorable() != nil
		})
		pad(over)
		_, err := tbl.Put(t.Context(), g)
		wantCode(t, err, metering.Invalid)
		pad(over - 1)
		put(t, tbl, g)
		escaped := strings.NewReplacer("%", "%25", "#", "%23")
		out, err := client.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: &name, Key: map[string]types.AttributeValue{
			"PK": text("ORG#" + escaped.Replace(g.OrganizationID)), "SK": text("GROUP#" + escaped.Replace(g.ID)),
		}})
		if err != nil {
			t.Fatal(err)
		}
		size := -3 - len(out.Item) // an item is counted as a map without the map's own overhead
		if size += itemSize(t, &types.AttributeValueMemberM{Value: out.Item}); size != metering.MaxStored {
			t.Errorf("%d: the item has %d bytes, want %d", i, size, metering.MaxStored)
		}
	}
}

// itemSize returns the size of a value by the rules that AWS documents. Its numbers must be
// integers that don't end with 0.
func itemSize(t *testing.T, value types.AttributeValue) int {
	switch value := value.(type) {
	case *types.AttributeValueMemberNULL, *types.AttributeValueMemberBOOL:
		return 1
	case *types.AttributeValueMemberS:
		return len(value.Value)
	case *types.AttributeValueMemberB:
		return len(value.Value)
	case *types.AttributeValueMemberN:
		digits, negative := strings.CutPrefix(value.Value, "-")
		size := 1 + (len(digits)+1)/2
		if negative {
			size++
		}
		if digits == "0" {
			return 1
		}
		return size
	case *types.AttributeValueMemberL:
		size := 3
		for _, element := range value.Value {
			size += 1 + itemSize(t, element)
		}
		return size
	case *types.AttributeValueMemberM:
		size := 3
		for name, member := range value.Value {
			size += 1 + len(name) + itemSize(t, member)
		}
		return size
	default:
		t.Fatalf("a %T", value)
		return 0
	}
}
