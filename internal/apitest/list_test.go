package apitest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/wire"
)

// storedGroup is a group and what the API must return for it.
type storedGroup struct{ group, answered doc }

func storedIn(t testing.TB, org string, groups []doc) []storedGroup {
	t.Helper()
	all := []storedGroup{}
	for _, g := range groups {
		all = append(all, storedGroup{g, answered(t, org, g)})
	}
	return all
}

// listed is what the model lists of these groups, to the end.
func listed(t testing.TB, groups []storedGroup, parameters url.Values) []doc {
	t.Helper()
	o := newOrganization("acme")
	for _, s := range groups {
		id := s.group["id"].(string)
		o.all("group")[id] = s.answered
		o.products[id], _ = s.group["productID"].(string)
	}
	all := maps.Clone(parameters)
	all.Del("limit")
	list := []doc{}
	for _, g := range o.list(now, &modelKey{}, all).body.(doc)["usageRecordGroups"].([]any) {
		list = append(list, g.(doc))
	}
	return list
}

// contains is the contract's rule: objects member by member, each wanted element of an array
// contained in some stored element, numbers by value.
func contains(stored, wanted any) bool {
	switch wanted := wanted.(type) {
	case doc:
		object, ok := stored.(doc)
		for name, value := range wanted {
			member, there := object[name]
			ok = ok && there && contains(member, value)
		}
		return ok
	case []any:
		array, ok := stored.([]any)
		for _, value := range wanted {
			ok = ok && slices.ContainsFunc(array, func(element any) bool { return contains(element, value) })
		}
		return ok
	default:
		switch stored.(type) {
		case doc, []any:
			return false
		}
		return stored == wanted
	}
}

// dice makes random data, the same from the same seed.
type dice struct{ *rand.Rand }

func newDice(seed uint64) dice { return dice{rand.New(rand.NewPCG(seed, 7))} }

func (d dice) chance(percent int) bool { return d.IntN(100) < percent }

func choose[T any](d dice, from []T) T { return from[d.IntN(len(from))] }

var (
	partners     = []string{"AWS", "AZURE", "GCP"}
	statuses     = []string{"CREATED", "DELETED", "INVALID", "REPORTED", "REPORT_PENDING", "REPORT_FAILED"}
	sources      = []string{"", "API", "INTERNAL", "METRONOME", "ORB", "LAGO", "STRIPE"}
	buyers       = []string{"b", "b/1", "b/1?x=1", "b#1", "b%231", "b 1", "b+1", "ü&=b", "STATUS#CREATED", strings.Repeat("b", 256), strings.Repeat("%", 256)}
	entitlements = []string{"e", "e#1", "e%231", "e 1", "é", strings.Repeat("ü", 128)}
	products     = []string{"", "p", "p/1?", "p#1", "P", "日本"}
	idParts      = []string{"g", "a#b", "a%23", "50%", "a b", "a+b", "ü", "~", "😀", "\uff5e", "-", "A"} // U+FF5E is before U+1F600, not so in UTF-16
	times        = []string{                                                                            // the edges of days and of the default window, ties
		"2024-06-28T23:59:59.999Z", "2024-06-29T00:00:00.000Z", "2024-07-10T00:00:00.000Z", "2024-07-10T23:59:59.999Z",
		"2024-07-11T00:00:00.000Z", "2024-07-11T01:59:59.999999999+02:00", "2024-07-11T02:00:00+02:00", "2024-07-20T12:00:00Z",
		"2024-07-20T12:00:00.001Z", "2024-07-20T12:00:00.0009Z", "2024-07-29T00:00:00.000Z", "2024-07-29T23:59:59.999Z",
		"2024-07-30T00:00:00.000Z", "2024-02-29T12:00:00.5Z", "2023-12-31T23:59:59.999Z", "2024-01-01T00:00:00Z",
	}
	days  = []string{"2024-06-28", "2024-06-29", "2024-07-10", "2024-07-11", "2024-07-20", "2024-07-29", "2024-07-30", "2024-02-29", "2023-12-31", "2024-01-01", "0000-01-01", "9999-12-31"}
	names = []string{
		"cpu", "api calls", "a.b", `"q"`, "ü", "#n0", ":v0", "size", "status", "AND", "a'b", "[0]", "metaInfo", "\\", "0", "<&>", "😀",
	}
	quantities = []string{"0", "1", "0.1", "12.50", "1000", "9007199254740993", "9007199254740992", "1e-9", "0.0000000000000000001", "1234567890123456789"}
	numbers    = []string{
		"0", "-0", "1", "1.0", "-1", "0.1", "1e2", "100", "1e100", "-1e-100", "9007199254740993", "9007199254740992",
		"12345678901234567890123456789012345678", "0.12345678901234567890123456789012345678", "9.9999e125", "1e-130",
	}
	texts = []string{"", "a", "a.b", `a"b`, "100", "true", "null", "it's", "ü", "\u2028", "\\u0041", "<>&", "\x00\x1f\x7f", "😀", "2024-07-20T12:00:00.000Z"}
)

// group is a random group; i makes its id unique.
func (d dice) group(i int) doc {
	g := doc{
		"id": fmt.Sprintf("%s%d", choose(d, idParts), i), "buyerID": choose(d, buyers), "entitlementID": choose(d, entitlements),
		"partner": choose(d, partners), "status": choose(d, statuses), "creationTime": choose(d, times), "serialID": d.IntN(1 << 31),
		"usageRecordReportID": "", "records": d.quantities(), "metaInfo": d.metaInfo(),
	}
	if d.chance(50) {
		at := now.Add(-time.Duration(d.Int64N(int64(44 * 24 * time.Hour))))
		g["creationTime"] = at.Format("2006-01-02T15:04:05.999999Z07:00")
	}
	if product := choose(d, products); product != "" {
		g["productID"] = product
	}
	if g["status"] == "REPORTED" {
		g["reportedTime"], g["usageRecordReportID"] = "2024-07-29T10:00:00.1234567Z", "report-1"
	}
	return g
}

func (d dice) quantities() doc {
	q := doc{}
	for range d.IntN(4) {
		q[choose(d, names)] = json.Number(choose(d, quantities))
	}
	return q
}

func (d dice) metaInfo() doc {
	m := doc{}
	set := func(percent int, name string, value any) {
		if d.chance(percent) {
			m[name] = value
		}
	}
	set(30, "SkipValidation", d.chance(50))
	set(80, "source", choose(d, sources))
	set(40, "timestamp", choose(d, times))
	set(50, "originRecords", d.quantities())
	set(20, "lagoAmount", json.Number(choose(d, numbers)))
	set(20, "metronomeInvoiceID", choose(d, texts))
	set(20, "stripeUsageRecordSummaryTotalUsage", json.Number(choose(d, []string{"0", "5", "5.0", "2147483647", "-2147483648", "1e3"})))
	set(20, "lagoUsageStartTime", choose(d, times))
	if d.chance(60) {
		records := []any{}
		for range d.IntN(4) {
			r := doc{"key": choose(d, names), "quantity": json.Number(choose(d, quantities))}
			if d.chance(80) {
				r["properties"] = d.object(3)
			}
			records = append(records, r)
		}
		m["billableRecords"] = records
	}
	return m
}

func (d dice) object(depth int) doc {
	o := doc{}
	for range d.IntN(4) {
		o[choose(d, names)] = d.value(depth - 1)
	}
	return o
}

func (d dice) value(depth int) any {
	kinds := 5
	if depth > 0 {
		kinds = 7
	}
	switch d.IntN(kinds) {
	case 0:
		return nil
	case 1:
		return d.chance(50)
	case 2:
		return choose(d, texts)
	case 3, 4:
		return json.Number(choose(d, numbers))
	case 5:
		array := []any{}
		for range d.IntN(4) {
			array = append(array, d.value(depth-1))
		}
		return array
	default:
		return d.object(depth)
	}
}

// part is something that value contains: some of its members and elements, in any order and with
// any spelling of the numbers. Sometimes it is changed so that value may not contain it.
func (d dice) part(value any) any {
	if d.chance(3) {
		return d.value(1)
	}
	switch value := value.(type) {
	case doc:
		o := doc{}
		for name, member := range value {
			if d.chance(60) {
				o[name] = d.part(member)
			}
		}
		return o
	case []any:
		array := []any{}
		for _, i := range d.Perm(len(value)) {
			for range d.IntN(3) {
				array = append(array, d.part(value[i]))
			}
		}
		return array
	case json.Number:
		return d.respelled(value)
	default:
		return value
	}
}

func (d dice) respelled(n json.Number) json.Number {
	text, hasExponent := n.String(), strings.ContainsAny(n.String(), "eE")
	switch {
	case hasExponent:
		return json.Number(strings.ReplaceAll(text, "e", "E"))
	case strings.Contains(text, "."):
		return json.Number(text + choose(d, []string{"", "0", "e0", "00E+00"}))
	default:
		return json.Number(text + choose(d, []string{"", ".0", "e0", "e-0", ".000E0"}))
	}
}

// parameters are a valid combination of the list's parameters, which usually matches some group.
func (d dice) parameters(t testing.TB, groups []storedGroup) url.Values {
	p := url.Values{}
	like := choose(d, groups).group
	set := func(percent int, name string, value any) {
		if text, ok := value.(string); ok && d.chance(percent) {
			p.Set(name, text)
		}
	}
	if d.chance(60) {
		switch d.IntN(4) {
		case 0:
			set(100, "partner", like["partner"])
		case 1:
			set(100, "productId", like["productID"])
		case 2:
			set(100, "entitlementId", like["entitlementID"])
		case 3:
			set(100, "buyerId", like["buyerID"])
		}
	}
	set(30, "status", like["status"])
	set(30, "source", like["metaInfo"].(doc)["source"])
	if d.chance(40) {
		meta := answeredTimes(t, like["metaInfo"].(doc))
		if wanted, ok := d.part(meta).(doc); ok {
			set(100, "metaInfo", toJSON(t, wanted))
		}
	}
	from, to := choose(d, days), choose(d, days)
	if from > to {
		from, to = to, from
	}
	switch d.IntN(4) {
	case 0:
		set(100, "startDate", from)
		set(100, "endDate", to)
	case 1:
		set(100, "endDate", to)
	case 2:
		if from <= "2024-07-29" {
			set(100, "startDate", from)
		}
	}
	for _, name := range []string{"partner", "status", "limit", "offset", "endDate", "metaInfo"} {
		if d.chance(5) && !p.Has(name) {
			p.Set(name, "") // empty is the same as absent
		}
	}
	return p
}

// answeredTimes is a metaInfo with its times as the API returns them, which is the form that a
// filter requires.
func answeredTimes(t testing.TB, metaInfo doc) doc {
	m := doc{}
	for name, value := range metaInfo {
		m[name] = value
	}
	asAnsweredTime(t, m, "timestamp")
	asAnsweredTime(t, m, "lagoUsageStartTime")
	return m
}

// For every combination of parameters, the list holds what a plain filter over the same groups
// holds, in the same order, whole or page by page. It holds nothing of another organization with
// the same ids.
func TestList_IsAPlainFilter(t *testing.T) {
	const seed = 1
	d := newDice(seed)
	acme, other := []doc{}, []doc{}
	for i := range 300 {
		acme = append(acme, d.group(i))
	}
	for i := range 100 {
		g := d.group(i)
		g["id"] = acme[i]["id"]
		other = append(other, g)
	}
	orgs := map[string][]storedGroup{"acme": storedIn(t, "acme", acme), "acme#1": storedIn(t, "acme#1", other)}
	eachWay(t, func(t *testing.T, a *api) {
		a.put(t, "acme", acme...)
		a.put(t, "acme#1", other...)
		d := newDice(seed + uint64(len(t.Name()))) // different in each way
		matches := 0
		for range 50 {
			org := choose(d, []string{"acme", "acme", "acme", "acme#1"})
			parameters := d.parameters(t, orgs[org])
			expected := listed(t, orgs[org], parameters)
			matches += min(len(expected), 1)
			wantPages(t, a, d, org, parameters, expected)
			if t.Failed() {
				t.Fatalf("the list of %s with %s", org, parameters.Encode())
			}
		}
		if matches < 25 {
			t.Errorf("only %d lists held anything: the data no longer tests much", matches)
		}
	})
}

// wantPages requests the list page by page, with varying sizes, and one page at a random offset.
func wantPages(t *testing.T, a *api, d dice, org string, parameters url.Values, expected []doc) {
	t.Helper()
	limit := choose(d, []int{0, 0, 1000, 1 + len(expected)/2, 1 + len(expected)/3, len(expected), max(1, len(expected)-1)})
	if limit > 0 {
		parameters.Set("limit", fmt.Sprint(limit))
	}
	wantSame(t, expected, a.listAll(t, org, parameters))

	offset := d.IntN(len(expected) + 2)
	parameters.Set("offset", fmt.Sprint(offset))
	got := a.list(t, org, parameters)
	if limit == 0 {
		limit = 1000
	}
	from := min(offset, len(expected))
	to := min(from+limit, len(expected))
	wantNext := 0
	if to < len(expected) {
		wantNext = to
	}
	wantSame(t, idsOf(expected[from:to]), got.ids())
	if got.nextOffset != wantNext {
		t.Errorf("offset %d, limit %d of %d: nextOffset %d, want %d", offset, limit, len(expected), got.nextOffset, wantNext)
	}
	parameters.Del("offset")
}

// The list, which copies bytes, holds what Groups reads into memory, for all parameters.
func TestList_HoldsWhatGroupsReads(t *testing.T) {
	t.Parallel()
	const seed = 3
	d := newDice(seed)
	groups := []doc{}
	for i := range 200 {
		groups = append(groups, d.group(i))
	}
	all := storedIn(t, "acme", groups)
	a := newAPI(t, ways()[0])
	a.put(t, "acme", groups...)
	for range 40 {
		parameters := d.parameters(t, all)
		parameters.Set("startDate", cmp.Or(parameters.Get("startDate"), "0000-01-01"))
		parameters.Set("endDate", cmp.Or(parameters.Get("endDate"), "9999-12-31"))
		filter := metering.GroupFilter{
			Partner: metering.Partner(parameters.Get("partner")), ProductID: metering.ProductID(parameters.Get("productId")), EntitlementID: metering.EntitlementID(parameters.Get("entitlementId")),
			BuyerID: metering.BuyerID(parameters.Get("buyerId")), Status: metering.Status(parameters.Get("status")), Source: metering.Source(parameters.Get("source")),
			StartDate: metering.Day(parameters.Get("startDate")), EndDate: metering.Day(parameters.Get("endDate")),
		}
		if text := parameters.Get("metaInfo"); text != "" {
			var err error
			if filter.MetaInfo, err = wire.DecodeDocument([]byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		expected := []doc{}
		for g, err := range a.table.Groups(t.Context(), "acme", filter) {
			if err != nil {
				t.Fatal(err)
			}
			expected = append(expected, parse(t, string(wire.AppendGroup(nil, g))).(doc))
		}
		parameters.Set("limit", fmt.Sprint(1+len(expected)/5+d.IntN(9)))
		if wantSame(t, expected, a.listAll(t, "acme", parameters)); t.Failed() {
			t.Fatalf("the list with %s", parameters.Encode())
		}
	}
}

func TestList_PagesOfOne(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		groups := []doc{}
		for _, id := range awkwardIDs[:20] {
			groups = append(groups, group(id)) // all with the same time
		}
		a.put(t, "acme", groups...)
		wantSame(t, listed(t, storedIn(t, "acme", groups), nil), a.listAll(t, "acme", url.Values{"limit": {"1"}}))
	})
}

func TestList_Defaults(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		groups := []doc{}
		for _, created := range []string{
			"2024-06-28T23:59:59.999Z", "2024-06-29T00:00:00.000Z", // 30 days before today begin
			"2024-07-29T23:59:59.999Z", "2024-07-30T00:00:00.000Z", // today ends
			"2024-05-31T23:59:59.999Z", "2024-06-01T00:00:00.000Z", "2024-07-01T00:00:00.000Z", "2024-07-01T23:59:59.999Z", "2024-07-02T00:00:00.000Z",
		} {
			groups = append(groups, group(created, doc{"creationTime": created}))
		}
		a.put(t, "acme", groups...)
		for _, c := range []struct {
			name, query string
			first, last string
			number      int
		}{
			{"both", "", "2024-07-29T23:59:59.999Z", "2024-06-29T00:00:00.000Z", 5},
			{"the start is 30 days before the end", "endDate=2024-07-01", "2024-07-01T23:59:59.999Z", "2024-06-01T00:00:00.000Z", 5},
			{"the end is today", "startDate=2024-07-02", "2024-07-29T23:59:59.999Z", "2024-07-02T00:00:00.000Z", 2},
			{"one day", "startDate=2024-07-01&endDate=2024-07-01", "2024-07-01T23:59:59.999Z", "2024-07-01T00:00:00.000Z", 2},
		} {
			query, _ := url.ParseQuery(c.query)
			ids := a.list(t, "acme", query).ids()
			if len(ids) != c.number || ids[0] != c.first || ids[len(ids)-1] != c.last {
				t.Errorf("%s: %q, want %d from %s to %s", c.name, ids, c.number, c.first, c.last)
			}
		}
	})
}

func TestList_OfNothing(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.put(t, "acme", group("g1"))
		for _, path := range []string{listPath("nobody"), listPath("acme")} {
			got := a.get(t, path, "offset=2147483647&limit=1000")
			want(t, got, http.StatusOK)
			wantSame(t, parse(t, `{"nextOffset": 0, "usageRecordGroups": []}`), parse(t, got.body))
		}
	})
}

func TestList_ReadsItsParametersStrictly(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		for _, c := range []struct {
			query string
			text  string
		}{
			{"partner=aws", "partner"},
			{"partner=ALIBABA", `"AWS", "AZURE", "GCP"`},
			{"partner=AWS&buyerId=b", "at most one"},
			{"productId=p&entitlementId=e", "at most one"},
			{"entitlementId=e&buyerId=b&partner=AWS&productId=p", "at most one"},
			{"buyerId=" + strings.Repeat("b", 257), "buyerId"},
			{"entitlementId=" + strings.Repeat("b", 257), "entitlementId"},
			{"buyerId=%00", "buyerId"},
			{"buyerId=%FF", "buyerId"},
			{"productId=%C3%28", "productId"},
			{"status=created", "status"},
			{"status=CREATED,DELETED", "status"},
			{"status=CREATED&status=DELETED", "status"},
			{"status=&status=DELETED", "status"},
			{"source=api", "source"},
			{"source=METRONOME%20", "source"},
			{"startDate=2024-07-02&endDate=2024-07-01", "startDate"},
			{"startDate=2024-07-30", "startDate"}, // after today, the default end
			{"startDate=2024-7-1", "YYYY-MM-DD"},
			{"startDate=2024-02-30", "startDate"},
			{"startDate=20240701", "startDate"},
			{"endDate=2024-07-01T00:00:00Z", "endDate"},
			{"endDate=today", "endDate"},
			{"endDate=-001-01-01", "endDate"},
			{"limit=0", "limit is \"0\": it must be 1 to 1000"},
			{"limit=1001", "1 to 1000"},
			{"limit=-1", "limit"},
			{"limit=1.0", "limit"},
			{"limit=1e2", "limit"},
			{"limit=%2B5", "limit"},
			{"limit=0x10", "limit"},
			{"limit=ten", "limit"},
			{"limit=%205", "limit"},
			{"limit=99999999999999999999999", "limit"},
			{"limit=%D9%A1", "limit"}, // a Unicode digit, but not ASCII
			{"limit=10&limit=10", "limit"},
			{"offset=-1", "offset"},
			{"offset=2147483648", "2147483647"},
			{"offset=1&offset=1", "offset"},
			{"metaInfo=x", "metaInfo"},
			{"metaInfo=[]", "metaInfo"},
			{"metaInfo=null", "metaInfo"},
			{"metaInfo=1", "metaInfo"},
			{`metaInfo=%22a%22`, "metaInfo"},
			{"metaInfo=%7B%7D%7B%7D", "metaInfo"},
			{"metaInfo=%7B%22a%22:1,%22a%22:2%7D", "metaInfo"},
			{"metaInfo=%7B%22a%22:01%7D", "metaInfo"},
			{"metaInfo=%7B%22a%22:NaN%7D", "metaInfo"},
			{"metaInfo=%7B%22a%22:%22%FF%22%7D", "metaInfo"},
			{"metaInfo=%7B%22a%22:%22%5Cud800%22%7D", "metaInfo"},
			{"metaInfo=%7B%7D&metaInfo=%7B%7D", "metaInfo"},
			{"metaInfo=" + url.QueryEscape(`{"a":"`+strings.Repeat("x", 4097-8)+`"}`), "4096"},
			{"buyerID=b", "buyerID"}, // parameters are buyerId, members buyerID
			{"Partner=AWS", "Partner"},
			{"cursor2=x", "cursor2"},
			{"foo=", "foo"},
			{"=x", ""},
			{"partner=%zz", ""},
			{"partner=AWS;status=CREATED", ""},
		} {
			got := a.get(t, listPath("acme"), c.query)
			if wantError(t, got, http.StatusBadRequest, c.text); t.Failed() {
				t.Fatalf("the query %.200s", c.query)
			}
		}
		for _, query := range []string{
			"partner=&productId=&entitlementId=&buyerId=&status=&source=&metaInfo=&startDate=&endDate=&limit=&offset=",
			"partner=AWS&buyerId=", "limit=1000&offset=2147483647", "limit=1&offset=0", "metaInfo=%7B%7D",
			"metaInfo=" + url.QueryEscape(`{"a":"`+strings.Repeat("x", 4096-8)+`"}`),
			"buyerId=" + strings.Repeat("b", 256), "buyerId=" + strings.Repeat("%C3%BC", 128), "&&partner=AWS&",
			"entitlementId=100%25", "entitlementId=%2541", "buyerId=a%2Fb%3Fc%25", "productId=%25%2F%3F",
			"endDate=0000-01-01", "startDate=0000-01-01&endDate=9999-12-31", "endDate=0000-01-20", "endDate=9999-12-31",
		} {
			if got := a.get(t, listPath("acme"), query); got.status != http.StatusOK {
				t.Errorf("%.200s: %d %s", query, got.status, got.body)
			}
		}
	})
}

// The contract's rules for metaInfo, one by one.
func TestList_ByMetaInfo(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		many, manyWanted := doc{}, doc{}
		for i := range 120 {
			many[fmt.Sprintf("p%03d", i)] = i
			manyWanted[fmt.Sprintf("p%03d", i)] = i
		}
		manyWrong := doc{}
		for name, value := range manyWanted {
			manyWrong[name] = value
		}
		manyWrong["p119"] = "119"
		fifty := doc{}
		for i := range 50 {
			fifty[fmt.Sprint(i)] = i
		}
		nested := func(levels int, end string) string {
			return strings.Repeat(`{"d":`, levels) + end + strings.Repeat(`}`, levels)
		}
		deep := any(doc{"end": 1})
		for range 20 {
			deep = doc{"d": deep}
		}
		properties := doc{
			"one": 1, "tenth": json.Number("0.1"), "big": json.Number("9007199254740993"), "hundred": json.Number("1e2"), "zero": 0,
			"digits38": json.Number("12345678901234567890123456789012345678"), "huge": json.Number("1e125"), "tiny": json.Number("1e-130"),
			"text": "value", "number text": "1", "empty text": "", `quo"te`: `a"b\c`, "dot.ted": "d.o.t", "a": doc{"b": doc{"c": "deep"}},
			"null": nil, "true": true, "false": false, "no object": doc{}, "no array": []any{},
			"list":   []any{1, "a", doc{"x": 1, "y": []any{1, 2, doc{"z": nil}}}, []any{1, 2}, nil},
			"status": "s", "size": 3, "and": "or", "#n0": "hash", ":v0": "colon", "ü": "ümlaut", "😀": "\u2028", "many": many, "deep": deep,
			"ctrl\x01": "\x00\x1f", "[0]": "index", "attribute_exists(a)": 1, " ": "space", strings.Repeat("n", 300): "long name",
		}
		a.put(t, "acme",
			group("full", doc{"metaInfo": doc{
				"SkipValidation": true, "source": "API", "timestamp": "2024-07-28T10:00:00+02:00",
				"originRecords":   doc{"cpu": json.Number("1.50"), "storage.gb": 0, "a b": json.Number("1e-9")},
				"billableRecords": []any{doc{"key": "m1", "quantity": 1, "properties": properties}, doc{"key": "m2", "quantity": json.Number("2.5")}},
				"lagoAmount":      json.Number("10.00"), "stripeUsageRecordSummaryTotalUsage": 5,
			}}),
			group("bare", doc{"metaInfo": doc{}}),
		)
		record := func(properties string) string {
			return `{"billableRecords": [{"properties": ` + properties + `}]}`
		}
		for _, c := range []struct {
			filter  string
			matches bool
		}{
			{`{"source": "API"}`, true},
			{`{"source": "api"}`, false},
			{`{"source": ""}`, false},
			{`{"source": null}`, false},
			{`{"source": {}}`, false},
			{`{"source": []}`, false},
			{`{"source": ["API"]}`, false},
			{`{"SkipValidation": true}`, true},
			{`{"SkipValidation": false}`, false},
			{`{"SkipValidation": "true"}`, false},
			{`{"SkipValidation": 1}`, false},
			{`{"skipValidation": true}`, false},
			{`{"timestamp": "2024-07-28T08:00:00.000Z"}`, true},
			{`{"timestamp": "2024-07-28T10:00:00+02:00"}`, false}, // text is compared as text
			{`{"originRecords": {}}`, true},
			{`{"originRecords": []}`, false},
			{`{"originRecords": {"cpu": 1.5}}`, true},
			{`{"originRecords": {"cpu": 15e-1, "a b": 0.000000001}}`, true},
			{`{"originRecords": {"cpu": "1.5"}}`, false},
			{`{"originRecords": {"cpu": 1.5, "ram": 1}}`, false},
			{`{"originRecords": {"storage.gb": -0}}`, true},
			{`{"originRecords": {"storage": {"gb": 0}}}`, false},
			{`{"originRecords.cpu": 1.5}`, false},
			{`{"lagoAmount": 10}`, true},
			{`{"lagoAmount": 1e1, "stripeUsageRecordSummaryTotalUsage": 5.0}`, true},
			{`{"lagoAmount": 10.000000000000000000000000000000000001}`, false},
			{`{"billableRecords": []}`, true},
			{`{"billableRecords": {}}`, false},
			{`{"billableRecords": [{}]}`, true},
			{`{"billableRecords": [{}, {}, {}]}`, true}, // each in some element: one may contain them all
			{`{"billableRecords": [{"key": "m2"}, {"key": "m1"}]}`, true},
			{`{"billableRecords": [{"key": "m1", "quantity": 2.5}]}`, false}, // no element holds both
			{`{"billableRecords": [{"key": "m"}]}`, false},
			{`{"billableRecords": ["m1"]}`, false},
			{`{"billableRecords": [{"key": "m2", "properties": {}}]}`, false},
			{record(`{"one": 1, "tenth": 0.10, "big": 9007199254740993, "hundred": 100}`), true},
			{record(`{"one": 1.0}`), true},
			{record(`{"one": 1e0}`), true},
			{record(`{"one": 10e-1}`), true},
			{record(`{"one": "1"}`), false},
			{record(`{"one": true}`), false},
			{record(`{"number text": 1}`), false},
			{record(`{"big": 9007199254740992}`), false},
			{record(`{"digits38": 12345678901234567890123456789012345678}`), true},
			{record(`{"digits38": 12345678901234567890123456789012345678.0}`), true},
			{record(`{"digits38": 12345678901234567890123456789012345679}`), false},
			{record(`{"digits38": 123456789012345678901234567890123456789}`), false}, // no stored number has 39 digits
			{record(`{"one": 1.000000000000000000000000000000000000000000000}`), true},
			{record(`{"one": 1.000000000000000000000000000000000000000000001}`), false},
			{record(`{"huge": 10e124, "tiny": 0.1e-129}`), true},
			{record(`{"huge": 1e400}`), false},
			{record(`{"tiny": 1e-400}`), false},
			{record(`{"zero": 0e400}`), true},
			{record(`{"zero": -0.0}`), true},
			{record(`{"text": "value", "empty text": ""}`), true},
			{record(`{"text": "val"}`), false},
			{record(`{"text": "VALUE"}`), false},
			{record(`{"text": "v\u0061lue"}`), true},
			{record(`{"quo\"te": "a\"b\\c"}`), true},
			{record(`{"dot.ted": "d.o.t"}`), true},
			{record(`{"dot": {"ted": "d.o.t"}}`), false},
			{record(`{"a": {"b": {"c": "deep"}}}`), true},
			{record(`{"a.b.c": "deep"}`), false},
			{record(`{"a": {"b": {}}}`), true},
			{record(`{"a": {"b": {"c": {}}}}`), false},
			{record(`{"null": null}`), true},
			{record(`{"absent": null}`), false},
			{record(`{"text": null}`), false},
			{record(`{"no object": null}`), false},
			{record(`{"null": 0}`), false},
			{record(`{"null": {}}`), false},
			{record(`{"true": true, "false": false}`), true},
			{record(`{"true": false}`), false},
			{record(`{"no object": {}, "no array": []}`), true},
			{record(`{"no object": []}`), false},
			{record(`{"no array": {}}`), false},
			{record(`{"no array": [1]}`), false},
			{record(`{"list": [1]}`), true},
			{record(`{"list": ["a", 1.0, null]}`), true},
			{record(`{"list": [1, 1, 1, 1, 1, 1, 1]}`), true},
			{record(`{"list": [2]}`), false},
			{record(`{"list": [[2]]}`), true},
			{record(`{"list": [[1, 2], []]}`), true},
			{record(`{"list": [[3]]}`), false},
			{record(`{"list": [{"y": [{"z": null}, 2]}]}`), true},
			{record(`{"list": [{"x": 2}]}`), false},
			{record(`{"list": 1}`), false},
			{record(`{"list": {"0": 1}}`), false},
			{record(`{"status": "s", "size": 3, "and": "or", "#n0": "hash", ":v0": "colon"}`), true},
			{record(`{"ü": "ümlaut", "😀": "\u2028", "[0]": "index", " ": "space", "attribute_exists(a)": 1}`), true},
			{record(`{"ctrl\u0001": "\u0000\u001f"}`), true},
			{record(`{"": 1}`), false},
			{record(`{"a": {"": {}}}`), false},
			{record(`{"` + strings.Repeat("n", 300) + `": "long name"}`), true},
			{record(`{"` + strings.Repeat("m", 3900) + `": 1}`), false},
			{record(`{"many": ` + toJSON(t, manyWanted) + `}`), true},
			{record(`{"many": ` + toJSON(t, manyWrong) + `}`), false},
			{record(`{"deep": ` + toJSON(t, deep) + `}`), true},
			{record(`{"deep": ` + nested(200, `1`) + `}`), false},
			{nested(29, `{}`), false}, // from here on deeper than an expression's path may be
			{nested(31, `{}`), false},
			{nested(32, `1`), false},
			{nested(100, `1`), false},
			{nested(600, `{}`), false},
			{nested(25, toJSON(t, fifty)), false}, // longer than an expression may be
			{`{"a": ` + strings.Repeat(`[`, 1000) + strings.Repeat(`]`, 1000) + `}`, false},
			{`{"": ""}`, false},
			{`{"": {"": []}}`, false},
			{`{"originRecords": {"": 1}}`, false},
			{toJSON(t, manyWanted), false},
		} {
			expected := []string{}
			if c.matches {
				expected = []string{"full"}
			}
			if ids := a.list(t, "acme", url.Values{"metaInfo": {c.filter}}).ids(); !slices.Equal(ids, expected) {
				t.Errorf("%.300s lists %q, want %q", c.filter, ids, expected)
			}
		}
		wantSame(t, []string{"full", "bare"}, a.list(t, "acme", url.Values{"metaInfo": {" { } "}}).ids())
	})
}

// A list longer than what one Query reads is complete.
func TestList_ContinuesAcrossQueries(t *testing.T) {
	groups := []doc{}
	for i := range 28 { // 1.1 MB: two Queries
		status := choose(newDice(uint64(i)), statuses)
		groups = append(groups, group(fmt.Sprintf("g%02d", i), doc{"status": status, "metaInfo": doc{"metronomeInvoiceID": strings.Repeat("x", 40_000)}}))
	}
	all := storedIn(t, "acme", groups)
	eachWay(t, func(t *testing.T, a *api) {
		a.put(t, "acme", groups...)
		for _, parameters := range []url.Values{
			{},
			{"limit": {"27"}},
			{"partner": {"AWS"}, "limit": {"20"}},
			{"buyerId": {"buyer-1"}, "status": {"CREATED"}},
			{"metaInfo": {`{"metronomeInvoiceID":"x"}`}},
		} {
			wantSame(t, idsOf(listed(t, all, parameters)), idsOf(a.listAll(t, "acme", parameters)))
		}
	})
}

// A page ends before it is too large for Lambda, whatever the groups hold, and the next one
// continues: overLambda checks every response against Lambda's limit.
func TestList_PagesFitLambda(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"plain":   "xü😀\x7f\ufffd\u2027\u00a8",
		"quotes":  `"\`,
		"html":    "<>&\u2028\u2029",
		"control": "\x00\x01\x1f\n\t\b\r\f",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAPI(t, "lambda")
			a.putGroups(t, pageBreakers(t, text))
			wantPagesThatFit(t, a)
		})
	}
}

func TestList_PagesOfTheTableFitLambda(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.putGroups(t, pageBreakers(t, "\x01")) // the min to store for the max to return
		wantPagesThatFit(t, a)
	})
}

// pageBreakers are groups full of text, in keys and values, the last group first. Together they are
// more than Lambda can return at once.
func pageBreakers(t *testing.T, text string) []metering.Group {
	t.Helper()
	text = strings.Repeat(text, 12_000/len(text))
	properties := doc{text[:len(text)/10]: text}
	for i := range 10 {
		properties[fmt.Sprint(i)] = text
	}
	line := toJSON(t, group("", doc{"id": "g", "metaInfo": doc{"billableRecords": []any{doc{"key": "m", "quantity": 1, "properties": properties}}}}))
	g, err := wire.DecodeGroup([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	g.OrganizationID = "acme"
	encoded := string(wire.AppendGroup(nil, &g))
	escaped := len(encoded) + strings.Count(encoded, `"`) + strings.Count(encoded, `\`)
	groups := make([]metering.Group, 1+maxLambdaResponse/escaped)
	for i := range groups {
		groups[i] = g
		groups[i].ID = fmt.Sprintf("g%03d", len(groups)-1-i)
	}
	return groups
}

// wantPagesThatFit follows nextOffset through the list of pageBreakers, also compressed.
func wantPagesThatFit(t *testing.T, a *api) {
	ids, pages := []string{}, 0
	for next := 0; pages == 0 || next > 0; pages++ {
		got := a.get(t, listPath("acme"), fmt.Sprintf("offset=%d", next))
		want(t, got, http.StatusOK)
		compressed := a.do(t, request{
			method: "GET", path: listPath("acme"), query: fmt.Sprintf("offset=%d", next), headers: map[string]string{"Accept-Encoding": "gzip"},
		})
		if compressed.body != got.body {
			t.Fatalf("the page from %d on is another where it is compressed", next)
		}
		var page struct {
			NextOffset        int
			UsageRecordGroups []struct{ ID string }
		}
		if err := json.Unmarshal([]byte(got.body), &page); err != nil {
			t.Fatal(err)
		}
		for _, g := range page.UsageRecordGroups {
			ids = append(ids, g.ID)
		}
		if next = page.NextOffset; next != 0 && next != len(ids) {
			t.Fatalf("nextOffset is %d after %d groups", next, len(ids))
		}
	}
	if pages != 2 {
		t.Errorf("%d pages, want 2: the first as full as it can be", pages)
	}
	expected := []string{}
	for i := range ids {
		expected = append(expected, fmt.Sprintf("g%03d", len(ids)-1-i))
	}
	wantSame(t, expected, ids)
}

// putGroups stores groups, several at a time.
func (a *api) putGroups(t *testing.T, groups []metering.Group) {
	t.Helper()
	var putting errgroup.Group
	putting.SetLimit(8)
	for i := range groups {
		putting.Go(func() error {
			stored, err := a.table.Put(t.Context(), &groups[i])
			if err == nil && !stored {
				err = fmt.Errorf("%s is there already", groups[i].ID)
			}
			return err
		})
	}
	if err := putting.Wait(); err != nil {
		t.Fatal(err)
	}
}
