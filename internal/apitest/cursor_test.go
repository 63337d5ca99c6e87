package apitest

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/auth"
)

// linked returns the parameters in the Link header of a response.
func linked(t testing.TB, got answer) url.Values {
	t.Helper()
	want(t, got, http.StatusOK)
	link := linkForm.FindStringSubmatch(got.headers.Get("Link"))
	if link == nil || !strings.HasPrefix(link[1], "?") {
		t.Fatalf("Link is %q", got.headers.Get("Link"))
	}
	parameters, err := url.ParseQuery(link[1][1:])
	if err != nil {
		t.Fatal(err)
	}
	return parameters
}

// wantCursorRefused wants a 400 that names the cursor.
func wantCursorRefused(t testing.TB, got answer, what string) {
	t.Helper()
	if got.status != http.StatusBadRequest || !strings.Contains(got.body, "cursor is ") {
		t.Errorf("%s: %d %.300s", what, got.status, got.body)
	}
}

// A cursor is valid only unchanged, and only for the list that returned it.
func TestList_CursorIsValidForItsListAlone(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.clock.set(later)
		for _, org := range []string{"acme", "acme#1"} {
			a.put(t, org, series(6, likeAll)...)
		}
		list := allOf(url.Values{"buyerId": {"buyer-1"}, "status": {"CREATED"}, "source": {"API"}, "metaInfo": {`{"source":"API"}`}, "limit": {"2"}})
		list.Set("startDate", "2024-07-01") // before today, whatever day the functions' clocks show
		next := linked(t, a.get(t, listPath("acme"), list.Encode()))
		cursor := next.Get("cursor")
		ask := func(change func(url.Values)) answer {
			parameters := maps.Clone(next)
			change(parameters)
			return a.get(t, listPath("acme"), parameters.Encode())
		}
		for what, change := range map[string]func(url.Values){
			"as it is":           func(url.Values) {},
			"another limit":      func(p url.Values) { p.Set("limit", "3") },
			"no limit":           func(p url.Values) { p.Del("limit") },
			"an empty parameter": func(p url.Values) { p.Set("partner", ""); p.Set("offset", "") },
		} {
			if got := ask(change); got.status != http.StatusOK || !strings.Contains(got.body, `"g002"`) || strings.Contains(got.body, `"g001"`) {
				t.Errorf("%s: %d %.300s", what, got.status, got.body)
			}
		}

		alphabet := base62 + "-_"
		d := newDice(5)
		for i := 0; i < len(cursor); i += 4 {
			other := strings.Replace(alphabet, cursor[i:i+1], "", 1)
			altered := []string{cursor[:i] + choose(d, strings.Split(other, "")) + cursor[i+1:], cursor[:i] + choose(d, []string{"A", "=", "~", "\n", "\r", " ", "\x00", "ü"}) + cursor[i:]}
			if i > 0 {
				altered = append(altered, cursor[:i])
			}
			for _, altered := range altered {
				wantCursorRefused(t, ask(func(p url.Values) { p.Set("cursor", altered) }), strconv.Quote(altered))
			}
		}
		for _, more := range []string{"A", "AAAA", "=", "==", "\n", "\r\n", " ", cursor} {
			wantCursorRefused(t, ask(func(p url.Values) { p.Set("cursor", cursor+more) }), fmt.Sprintf("%.9q after it", more))
		}

		for _, c := range [][2]string{
			{"buyerId", ""},
			{"buyerId", "buyer-2"},
			{"status", ""},
			{"status", "DELETED"},
			{"source", ""},
			{"source", "LAGO"},
			{"metaInfo", ""},
			{"metaInfo", `{"source": "API"}`}, // word for word
			{"startDate", ""},
			{"startDate", "2099-07-02"},
			{"endDate", ""},
			{"endDate", "2099-08-30"},
		} {
			wantCursorRefused(t, ask(func(p url.Values) { p.Set(c[0], c[1]) }), strings.Join(c[:], "="))
		}
		for _, other := range []string{"partner=AWS", "productId=product-1", "entitlementId=entitlement-1"} {
			name, value, _ := strings.Cut(other, "=")
			wantCursorRefused(t, ask(func(p url.Values) { p.Del("buyerId"); p.Set(name, value) }), other)
		}
		wantCursorRefused(t, a.do(t, request{method: "GET", path: listPath("acme"), query: next.Encode()}.with(a.newKey(t, "acme", auth.Read))), "another key")
		wantCursorRefused(t, a.get(t, listPath("acme#1"), next.Encode()), "another organization")
		for _, offset := range []string{"0", "2"} {
			wantError(t, ask(func(p url.Values) { p.Set("offset", offset) }), http.StatusBadRequest, "offset and cursor")
		}
		wantError(t, ask(func(p url.Values) { p["cursor"] = []string{cursor, cursor} }), http.StatusBadRequest, "cursor")
	})
}

// Anyone who reads the code can make a cursor. It gives no access: a cursor that is no position in
// the list is refused, and from any position only the organization's own groups follow.
func TestList_ForgedCursorOpensNothing(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.clock.set(later)
		a.put(t, "acme", series(4, likeAll)...)
		a.put(t, "other", at("secret", 90*time.Second), at("secret2", 150*time.Second))
		list := allOf(url.Values{"limit": {"2"}})
		cursor := linked(t, a.get(t, listPath("acme"), list.Encode())).Get("cursor")
		partition := a.kept(t)["0000000002"]["PK"].(string)
		forged := func(parts string) string {
			sum := sha256.Sum256([]byte(partition + "~" + parts))
			return base64.RawURLEncoding.EncodeToString(append([]byte(parts), sum[:12]...))
		}
		time := milliseconds(later.Add(-time.Minute))
		if own := forged("2~2099-07-01~2099-08-31~" + time + "#g001"); own != cursor {
			t.Fatalf("the cursor is %s and not %s: this test no longer knows how one is made", cursor, own)
		}
		ask := func(cursor string) answer {
			parameters := maps.Clone(list)
			parameters.Set("cursor", cursor)
			return a.get(t, listPath("acme"), parameters.Encode())
		}
		const window = "2~2099-07-01~2099-08-31~"
		for _, parts := range []string{
			"", "~", "~~~", "2", "2~2099-07-01~2099-08-31", window,
			window + "#", window + "g001", window + "#g001", window + time, window + time + "#", window + time + "g001",
			window + "2099-07-28T15:50:28Z#g001", window + "2099-07-28t15:50:28.071z#g001", window + "2099-07-32T15:50:28.071Z#g001",
			window + "2099-07-29T15:50:28.071+00:00#g001", window + " " + time + "#g001",
			window + time + "#\xff", window + time + "#" + strings.Repeat("x", 1000), // more than a key can hold
			window + "2099-06-30T23:59:59.999Z#g001", window + "2099-09-01T00:00:00.000Z#g001", // outside the window
			"2~2099-08-31~2099-07-01~" + time + "#g001", "2~~~" + time + "#g001", "2~2099-07-1~2099-08-31~" + time + "#g001", "2~0~9~" + time + "#g001",
			"-1~2099-07-01~2099-08-31~" + time + "#g001", "x~2099-07-01~2099-08-31~" + time + "#g001", "~2099-07-01~2099-08-31~" + time + "#g001",
			"+2~2099-07-01~2099-08-31~" + time + "#g001", "02~2099-07-01~2099-08-31~" + time + "#g001",
			"9223372036854775807~2099-07-01~2099-08-31~" + time + "#g001", "2147483648~2099-07-01~2099-08-31~" + time + "#g001",
		} {
			wantCursorRefused(t, ask(forged(parts)), fmt.Sprintf("%q", parts))
		}
		for place, ids := range map[string][]string{
			time + "#g001~": {"g001", "g002"}, // no such group ever existed
			milliseconds(later.Add(-90*1e9)) + "#secret":               {"g002", "g003"},
			"2099-08-31T23:59:59.999Z#" + strings.Repeat("\uffff", 36): {"g000", "g001"},
			"2099-07-01T00:00:00.000Z#!":                               {},
			// An id that only another version allows.
			time + "#a/b":                        {"g002", "g003"},
			time + "#..":                         {"g002", "g003"},
			time + "#\x00":                       {"g002", "g003"},
			time + "#" + strings.Repeat("x", 37): {"g001", "g002"},
		} {
			got := ask(forged(window + place))
			want(t, got, http.StatusOK)
			listed := []string{}
			for _, g := range parse(t, got.body).(doc)["usageRecordGroups"].([]any) {
				listed = append(listed, g.(doc)["id"].(string))
			}
			wantSame(t, ids, listed)
		}
	})
}

// The Link header names the parameters as they were sent, whatever they hold.
func TestList_LinkKeepsTheParameters(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.clock.set(later)
		for i, buyer := range buyers {
			org := fmt.Sprint("acme ", i)
			a.put(t, org, series(5, func(int) doc {
				return doc{"buyerID": buyer, "metaInfo": doc{"metronomeInvoiceID": `<a>; rel="b",` + buyer}}
			})...)
			list := allOf(url.Values{
				"buyerId": {buyer}, "metaInfo": {toJSON(t, doc{"metronomeInvoiceID": `<a>; rel="b",` + buyer})}, "limit": {"2"}, "status": {""}, "offset": {"1"},
			})
			next := linked(t, a.get(t, listPath(org), list.Encode()))
			if next.Get("cursor") == "" || next.Has("offset") {
				t.Errorf("%v", next)
			}
			next.Del("cursor")
			next.Set("offset", "1")
			wantSame(t, list, next)

			list.Del("offset")
			r := a.reader(org, list)
			r.byLink = true
			wantSame(t, []string{"g000", "g001", "g002", "g003", "g004"}, r.readAll(t))
		}
	})
}

// API Gateway allows 10,240 bytes of headers: a Link that would be longer is omitted, and the
// client reads the list by nextOffset.
func TestList_LinkIsNotTooLong(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.clock.set(later)
		a.put(t, "acme", series(5, likeAll)...)
		of := func(length int, newlines int) url.Values {
			space := strings.Repeat("\n", newlines) + strings.Repeat(" ", max(0, length-newlines-16))
			return allOf(url.Values{"metaInfo": {`{"source":"API"` + space + `}`}, "limit": {"2"}})
		}
		length := func(parameters url.Values) int {
			return len(a.get(t, listPath("acme"), parameters.Encode()).headers.Get("Link"))
		}
		shortest := length(of(16, 0))
		newlines := (8000 - shortest) / 3
		most := 16 + newlines + (8000-shortest)%3
		if got := length(of(most, newlines)); got != 8000 {
			t.Errorf("the Link has %d bytes, want 8,000", got)
		}
		for _, parameters := range []url.Values{of(most+1, newlines), of(4096, 4080)} {
			if got := length(parameters); got != 0 {
				t.Errorf("the Link has %d bytes", got)
			}
			wantSame(t, []string{"g000", "g001", "g002", "g003", "g004"}, idsOf(a.listAll(t, "acme", parameters)))
		}
	})
}

// The last page has no Link; neither has any response other than a page that another one follows.
func TestList_LinkExistsIfAPageFollows(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.clock.set(later)
		a.put(t, "acme", series(4, likeAll)...)
		for query, follows := range map[string]bool{
			"limit=3": true, "limit=4": false, "": false, "limit=1&offset=2": true, "limit=1&offset=3": false, "offset=4": false, "offset=9": false, "limit=0": false,
			"status=DELETED": false, "limit=1&metaInfo=%7B%22source%22:1e999%7D": false,
		} {
			query = strings.Trim(query+"&startDate=2099-07-01&endDate=2099-07-30", "&")
			got := a.get(t, listPath("acme"), query)
			if has := got.headers.Values("Link"); (len(has) == 1) != follows || slices.Contains(has, "") {
				t.Errorf("%s: %q", query, has)
			}
		}
	})
}

// allOf returns the parameters with a window that holds the groups around later.
func allOf(parameters url.Values) url.Values {
	all := maps.Clone(parameters)
	all.Set("startDate", "2099-07-01")
	all.Set("endDate", "2099-08-31")
	return all
}
