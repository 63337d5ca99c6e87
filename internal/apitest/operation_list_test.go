package apitest

import (
	"cmp"
	"context"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"pgregory.net/rapid"

	"github.com/marketmeter/marketmeter/internal/table"
)

var large = doc{"metaInfo": doc{"metronomeInvoiceID": strings.Repeat("x", 380_000)}}

var _ = declare(operation{
	id: "listUsageRecordGroups", scopes: "read",
	example: listing(""),
	draw:    drawList, odds: 8,
	stored: &stored{
		of: "group",
		model: func(o *organization) any {
			groups := []any{}
			for _, id := range slices.Sorted(maps.Keys(o.all("group"))) {
				groups = append(groups, o.all("group")[id])
			}
			return groups
		},
		service: func(read func(path, query string) doc) any {
			groups := read("/usageRecordGroup", "startDate=2000-01-01&endDate=2199-01-01")["usageRecordGroups"].([]any)
			slices.SortFunc(groups, func(a, b any) int { return strings.Compare(a.(doc)["id"].(string), b.(doc)["id"].(string)) })
			return groups
		},
	},
	shows: listShows(),
	effects: []effect{
		{given: dated("g1", "g2", "g3"), request: listing("limit=2"), again: http.StatusOK, steady: true},
		{
			// Two responses hold nothing of the list: the first request stores an empty range, the
			// second a longer one. The third skips it, stores the checkpoint of its page and makes
			// the range expire. Then a page with the other group follows, and the end.
			name: "to its end, read in vain at first", given: append(dated("g1", "g2", "g3", "g4"), deleting("g1", ""), deleting("g2", "")),
			do: func(ctx context.Context, w *world, over *table.Table) answer {
				return w.readOn(ctx, over, "/usageRecordGroup", "usageRecordGroups", "id", "buyerId=b&status=CREATED")
			},
			again: http.StatusOK, steady: true, reads: true, hasty: true,
		},
	},
})

func listing(query string) request {
	return request{method: "GET", path: "/usageRecordGroup", query: query}
}

// listShows are lists of groups with each filter, over more than one response of DynamoDB.
func listShows() (all []exchange) {
	for id, members := range map[string]doc{"g1": {}, "g2": {"status": "INVALID"}, "g3": large, "g4": large, "g5": large} {
		all = append(all, exchange{imported(group(id, members)), http.StatusOK})
	}
	for _, query := range []string{
		"", "limit=1", "limit=1&offset=1", "status=CREATED", "buyerId=buyer-1", "entitlementId=entitlement-1", "buyerId=buyer-1&status=CREATED",
		"entitlementId=entitlement-1&status=CREATED", "partner=AWS", "productId=product-1", "source=API", "metaInfo=%7B%22source%22%3A%22API%22%7D",
		"startDate=2024-07-01&endDate=2024-07-31", "status=REPORTED", "buyerId=nobody",
		"source=STRIPE", // a response of Query without a match
	} {
		all = append(all, exchange{listing(query), http.StatusOK})
	}
	return all
}

// dated imports groups of buyer b, created at the time of a world and each before the last.
func dated(ids ...string) (all []request) {
	for i, id := range ids {
		all = append(all, imported(group(id, doc{"buyerID": "b", "creationTime": milliseconds(begins.Add(-time.Duration(i) * time.Minute))})))
	}
	return all
}

// drawList draws a list from its beginning, a page that follows another, or an unreadable request.
func drawList(t *rapid.T, w *model, o *organization) (request, rule) {
	switch kind := roll(t, "kind of list", 8); {
	case kind == 7:
		return listing(parsedQuery(pick(t, "query", unreadableLists...)).Encode()), func(*organization, *modelKey) reply { return reply{status: 400} }
	case kind >= 4 && len(o.nextOf("/usageRecordGroup")) > 0:
		return drawNextPage(t, w, o)
	}
	query := url.Values{}
	set := func(odds int, name string, values ...string) {
		if roll(t, "with "+name, odds) == odds-1 {
			query.Set(name, pick(t, name, values...))
		}
	}
	switch roll(t, "filter", 8) {
	case 4:
		set(1, "partner", partners...)
	case 5:
		set(1, "productId", "p1", "p2")
	case 6:
		set(1, "entitlementId", drawnEntitlements...)
	case 7:
		set(1, "buyerId", drawnBuyers...)
	}
	set(3, "status", append(drawnStatuses, "")...)
	set(6, "source", "API", "ORB")
	set(6, "metaInfo", `{}`, `{"source":"API"}`, `{"originRecords":{"cpu":1.50}}`, `{"billableRecords":[{"properties":{"zone":"eu"}}]}`, `{"billableRecords":[]}`, `{"SkipValidation":true}`,
		`{"metronomeInvoiceID":`+quoted(o.name)+`}`, `{"metronomeInvoiceID":`+quoted(w.other(o).name)+`}`)
	set(4, "startDate", day(w.now, -40), day(w.now, -30), day(w.now, -1), day(w.now, 0), day(w.now, 1))
	set(4, "endDate", day(w.now, -31), day(w.now, -1), day(w.now, 0), day(w.now, 2))
	set(1, "limit", "1", "1", "2", "3", "1000", "")
	set(5, "offset", "0", "1", "2", "3", "5", "2147483647")
	return listing(query.Encode()), func(o *organization, k *modelKey) reply { return o.list(w.now, k, query) }
}

func drawNextPage(t *rapid.T, w *model, o *organization) (request, rule) {
	r := drawNextOf(t, o.nextOf("/usageRecordGroup"))
	if query := parsedQuery(r.query); roll(t, "with a filter", 10) == 9 {
		query.Set("status", "CREATED")
		r.query = query.Encode()
	}
	return r, func(o *organization, k *modelKey) reply { return o.list(w.now, k, parsedQuery(r.query)) }
}

// nextOf are the requests of that path for pages that follow others.
func (o *organization) nextOf(path string) (all []request) {
	for _, r := range o.next {
		if r.path == path {
			all = append(all, r)
		}
	}
	return all
}

// drawNextOf draws one of the last of them, perhaps with another limit or key.
func drawNextOf(t *rapid.T, next []request) request {
	r := pick(t, "next page", next[max(0, len(next)-6):]...)
	query := parsedQuery(r.query)
	if roll(t, "with another limit", 2) == 1 {
		query.Set("limit", pick(t, "limit", "1", "2", "4", ""))
	}
	if roll(t, "spoil", 10) == 8 {
		r.key = nil // a list belongs to its client
	}
	r.query = query.Encode()
	return r
}

func (o *organization) list(now time.Time, k *modelKey, query url.Values) reply {
	return o.page(now, k, "/usageRecordGroup", "usageRecordGroups", query, func(filter url.Values) (all []inList) {
		for id, g := range o.all("group") {
			if isListed(g, o.products[id], filter) {
				all = append(all, inList{g, g["creationTime"].(string), sortKey(g)})
			}
		}
		return all
	})
}

// inList is an object of a list, the time of its day, and the text by which the list sorts.
type inList struct {
	object   doc
	time     string
	position string
}

// page is a page of a list, whose objects are in the member of that name.
func (o *organization) page(now time.Time, k *modelKey, path, member string, query url.Values, all func(filter url.Values) []inList) reply {
	filter := url.Values{}
	for name := range query {
		if value := query.Get(name); value != "" && name != "limit" && name != "offset" && name != "cursor" {
			filter.Set(name, value)
		}
	}
	// The checkpoints of a list are stored for an hour, by client and query.
	at := place{list: string(k.secret) + " " + path + " " + filter.Encode(), start: filter.Get("startDate"), end: cmp.Or(filter.Get("endDate"), day(now, 0))}
	if at.start == "" {
		end, _ := time.Parse(time.DateOnly, at.end)
		at.start = day(end, -30)
	}
	if at.start > at.end {
		return reply{status: 400, says: "start"}
	}
	offset, _ := strconv.Atoi(query.Get("offset"))
	cursor := query.Get("cursor")
	if cursor != "" {
		from, ok := o.cursors[cursor]
		if !ok || from.list != at.list {
			return reply{status: 400, says: "cursor"}
		}
		at, offset = from, from.offset
	}
	for _, kept := range o.places[at.list] {
		if cursor == "" && kept.offset <= offset && kept.offset > at.offset && kept.until.After(now) {
			at = kept
		}
	}

	var rest []inList
	for _, g := range all(filter) {
		day := g.time[:len(time.DateOnly)]
		if at.start <= day && day <= at.end && (at.after == "" || g.position < at.after) {
			rest = append(rest, g)
		}
	}
	slices.SortFunc(rest, func(a, b inList) int { return cmp.Compare(b.position, a.position) })
	rest = rest[min(offset-at.offset, len(rest)):]
	limit, _ := strconv.Atoi(cmp.Or(query.Get("limit"), "1000"))
	objects := []any{}
	for _, g := range rest[:min(limit, len(rest))] {
		objects = append(objects, g.object)
	}
	if len(objects) == len(rest) {
		return reply{status: 200, body: doc{member: objects, "nextOffset": exact("0")}}
	}
	next := place{at.list, offset + len(objects), rest[len(objects)-1].position, at.start, at.end, now.Add(time.Hour)}
	return reply{
		status: 200, body: doc{member: objects, "nextOffset": exact(strconv.Itoa(next.offset))}, next: &next,
		then: func() {
			if cursor != "" {
				return
			}
			if o.places[next.list] == nil {
				o.places[next.list] = map[int]place{}
			}
			o.places[next.list][next.offset] = next
		},
	}
}

func isListed(g doc, product string, filter url.Values) bool {
	metaInfo := g["metaInfo"].(doc)
	for name := range filter {
		has := any(nil)
		switch name {
		case "partner", "status":
			has = g[name]
		case "buyerId":
			has = g["buyerID"]
		case "entitlementId":
			has = g["entitlementID"]
		case "productId":
			has = product
		case "source":
			has = metaInfo["source"]
		case "metaInfo":
			if !contains(metaInfo, values(filter.Get(name))) {
				return false
			}
			continue
		default:
			continue
		}
		if has != filter.Get(name) {
			return false
		}
	}
	return true
}

var unreadableLists = []string{
	"limit=0", "limit=1001", "limit=x", "offset=-1", "offset=2147483648", "status=created", "source=Z", "partner=ADYEN", "partner=AWS&buyerId=b1",
	"startDate=2099-02-30", "colour=red", "status=CREATED&status=DELETED", "metaInfo=[]", "metaInfo={", "cursor=x", "cursor=x&offset=1",
}
