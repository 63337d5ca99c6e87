package apitest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"pgregory.net/rapid"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/table"
)

// No request makes a report: the workers do, here in the place of an operator. Their model:
// o.all("report") has the reports as the API returns them, by id, and o.all("daily") what was
// accepted, by partner, day, entitlement and dimension.

var _ = declare(operation{
	id: "listUsageRecordReports", scopes: "read",
	given: reported("e-report", "buyer-1", 2), example: listingReports(always),
	draw: drawReports, odds: 2,
	stored: &stored{
		of:    "report",
		model: func(o *organization) any { return o.reports() },
		service: func(read func(path, query string) doc) any {
			return read("/usageRecordReport", always)["usageRecordReports"]
		},
	},
	shows: []exchange{
		{listingReports(always), http.StatusOK},
		{listingReports(always + "&limit=1"), http.StatusOK},
		{listingReports(always + "&limit=1&offset=1"), http.StatusOK},
		{reported("e-report-2", "buyer-2", 3)[2], http.StatusOK},
		{listingReports(always + "&buyerId=nobody"), http.StatusOK}, // responses of Query without a match
	},
	effects: []effect{
		{given: reported("e-report", "b", 3), request: listingReports(always + "&limit=2"), again: http.StatusOK, steady: true},
		{
			// After the first page, two responses hold nothing of the list.
			name:  "to its end, read in vain after a page",
			given: slices.Concat(reported("e-report", "b", 3)[1:], reported("e-other", "other", 4)[:1], reported("e-other", "other", 4)[3:]),
			do: func(ctx context.Context, w *world, over *table.Table) answer {
				return w.readOn(ctx, over, "/usageRecordReport", "usageRecordReports", "id", always+"&entitlementId=e-other")
			},
			again: http.StatusOK, steady: true, reads: true, hasty: true,
		},
	},
})

var _ = declare(operation{
	id: "listUsageMeteringDailyRecords", scopes: "read",
	given: billed("e-daily", "buyer-1", 2), example: listingDaily("AWS", always),
	draw: drawDaily, odds: 2,
	stored: &stored{
		of:    "daily",
		model: func(o *organization) any { return o.daily() },
		service: func(read func(path, query string) doc) any {
			all := []any{}
			for _, partner := range partners {
				all = append(all, read("/partner/"+partner+"/usageMeteringDailyRecord", always)["usageMeteringDailyRecords"].([]any)...)
			}
			return all
		},
	},
	shows: []exchange{
		{listingDaily("AWS", always), http.StatusOK},
		{listingDaily("AWS", always+"&limit=1"), http.StatusOK},
		{listingDaily("AWS", always+"&limit=1&offset=1"), http.StatusOK},
		{billed("e-daily-2", "buyer-2", 3)[2], http.StatusOK},
		{listingDaily("AWS", always+"&buyerId=nobody"), http.StatusOK},
		{listingDaily("ADYEN", ""), http.StatusNotFound},
	},
	effects: []effect{
		{given: billed("e-daily", "b", 3), request: listingDaily("AWS", always+"&limit=2"), again: http.StatusOK, steady: true},
		{
			// An item is of a day and an entitlement: two of other entitlements come first.
			name: "to its end, read in vain at first", given: slices.Concat(billed("e-daily", "b", 3)[2:], billed("e-day", "b", 3)[2:], billed("e-other", "other", 2)),
			do: func(ctx context.Context, w *world, over *table.Table) answer {
				return w.readOn(ctx, over, "/partner/AWS/usageMeteringDailyRecord", "usageMeteringDailyRecords", "key", always+"&entitlementId=e-other")
			},
			again: http.StatusOK, steady: true, reads: true, hasty: true,
		},
	},
})

const always = "startDate=2000-01-01&endDate=2199-01-01"

func listingReports(query string) request {
	return request{method: "GET", path: "/usageRecordReport", query: query}
}

func listingDaily(partner, query string) request {
	return request{method: "GET", path: "/partner/" + partner + "/usageMeteringDailyRecord", query: query}
}

// reportHour is the n-th hour of reports.
func reportHour(n int) time.Time {
	return begins.Truncate(time.Hour).AddDate(0, 0, -10).Add(time.Duration(5*n) * time.Hour)
}

// hourOf is an hour of an entitlement that is sealed, with a quantity of one dimension; opened is
// the creation of its report.
func hourOf(org, entitlement, buyer, partner string, n int, opened time.Time, dimension, quantity, price string) *reports.Hour {
	parsed := func(text string) metering.Quantity {
		q, err := metering.ParseQuantity(text)
		if err != nil {
			panic(err)
		}
		return q
	}
	h := reports.OpenHour(metering.OrgID(org), metering.EntitlementID(entitlement), reportHour(n))
	h.State, h.Version, h.Opened, h.Opener = reports.StateSealed, 2, opened, "opener"
	used := metering.ExactOf(parsed(quantity))
	h.Sealed = &reports.Sealed{
		From: h.Start, To: h.Start.Add(time.Hour), Partner: metering.Partner(partner), Buyer: metering.BuyerID(buyer), Product: "p1", Groups: 3,
		Records: []reports.Record{{Dimension: dimension, Members: used, Quantity: parsed(quantity), UnitPrice: parsed(price), Scale: metering.ExactOf(parsed("1"))}},
	}
	return &h
}

// settledHour is the hour, settled with the outcome of its record.
func settledHour(h *reports.Hour, kind reports.Kind) *reports.Hour {
	settled, sealed := *h, *h.Sealed
	sealed.Records = slices.Clone(sealed.Records)
	sealed.Records[0].Outcome.Kind = kind
	settled.State, settled.Version, settled.Sealed = reports.StateSettled, 4, &sealed
	return &settled
}

// reported stores n reports of an entitlement, each of an hour of its own.
func reported(entitlement, buyer string, n int) (all []request) {
	for i := range n {
		all = append(all, request{operator: func(ctx context.Context, tbl *table.Table, org string) error {
			h := hourOf(org, entitlement, buyer, "AWS", i, reportHour(i).Add(2*time.Hour), "cpu", "1.5", "2")
			return tbl.PutReport(ctx, h, []metering.GroupID{"g1", "g2"})
		}})
	}
	return all
}

// billed stores n hours of an entitlement whose usage was accepted, each of a dimension of its own.
func billed(entitlement, buyer string, n int) (all []request) {
	for i := range n {
		all = append(all, request{operator: func(ctx context.Context, tbl *table.Table, org string) error {
			return accept(ctx, tbl, hourOf(org, entitlement, buyer, "AWS", i, reportHour(i), fmt.Sprint("d", i), "1.5", "2"))
		}})
	}
	return all
}

// accept opens an hour, if it is not open yet, and makes it accepted in one step.
func accept(ctx context.Context, tbl *table.Table, h *reports.Hour) error {
	open := reports.OpenHour(h.Organization, h.Entitlement, h.Start)
	open.Opened, open.Opener = h.Opened, h.Opener
	if err := tbl.Open(ctx, &open, nil); err != nil && !errors.Is(err, reports.ErrChanged) {
		return err
	}
	accepted := settledHour(h, reports.Accepted)
	accepted.Version = 2
	if err := tbl.Write(ctx, &reports.Step{Before: &open, After: accepted}); err != nil && !errors.Is(err, reports.ErrChanged) {
		return err
	}
	return nil
}

// drawReportCopy stores a report, or settles one.
func drawReportCopy(t *rapid.T, w *model, o *organization) (request, rule) {
	n, settled := len(o.all("report")), reports.Undecided
	opened := w.now.Add(-time.Duration(roll(t, "opened before", 3)) * 20 * time.Hour).Truncate(time.Millisecond)
	entitlement, buyer, partner := pick(t, "entitlement", drawnEntitlements...), pick(t, "buyer", drawnBuyers...), pick(t, "partner", partners...)
	if n > 0 && roll(t, "settle", 3) > 0 {
		n = roll(t, "which", n)
		for _, r := range o.reports() {
			report := r.(doc)
			if info := report["info"].(doc); info["startTime"] == milliseconds(reportHour(n)) {
				opened, _ = time.Parse(time.RFC3339, report["creationTime"].(string))
				entitlement, buyer, partner = report["entitlementID"].(string), report["buyerID"].(string), report["partner"].(string)
			}
		}
		settled = pick(t, "outcome", reports.Accepted, reports.Rejected)
	}
	h := hourOf(o.name, entitlement, buyer, partner, n, opened, "cpu", "1.50", "2")
	if settled != reports.Undecided {
		h = settledHour(h, settled)
	}
	r := request{body: fmt.Sprint("report ", n, " ", settled), operator: func(ctx context.Context, tbl *table.Table, _ string) error {
		return tbl.PutReport(ctx, h, []metering.GroupID{"g1", "g2"})
	}}
	return r, func(o *organization, _ *modelKey) reply {
		report := reportDoc(h, settled)
		return reply{status: 200, then: func() { o.all("report")[h.ID()] = report }}
	}
}

// reportDoc is the report of hourOf as a client reads it.
func reportDoc(h *reports.Hour, settled reports.Kind) doc {
	outcome := doc{"attempts": exact("0"), "dimension": "cpu", "hour": milliseconds(h.Start), "quantity": values("1.5")}
	status, message, left := "CREATED", "", doc{}
	switch settled {
	case reports.Accepted:
		status, outcome["outcome"] = "SUCCESS", "ACCEPTED"
	case reports.Rejected:
		status, outcome["outcome"] = "FAILED", "REJECTED"
		message = `1 of 1 dimensions are not ACCEPTED: "cpu" is REJECTED, outcomes has the reason`
	}
	return doc{
		"id": h.ID(), "organizationID": string(h.Organization), "buyerID": string(h.Sealed.Buyer), "entitlementID": string(h.Entitlement), "entitlementTermID": "",
		"productID": "p1", "partner": string(h.Sealed.Partner), "creationTime": milliseconds(h.Opened),
		"info": doc{
			"status": status, "message": message, "partner": string(h.Sealed.Partner), "startTime": milliseconds(h.Start), "endTime": milliseconds(h.Start.Add(time.Hour)),
			"usageRecordGroupIds": []any{"g1", "g2"}, "usageRecordGroupCount": exact("3"), "aggregatedBillableRecords": []any{}, "calls": []any{},
			"reportedRecords": doc{"cpu": values("1.5")}, "includedRecords": doc{}, "decimalParts": doc{}, "newDecimalParts": left,
			"dimensionUnitPrice": doc{"cpu": exact("2")}, "dimensionUnitListPrice": doc{}, "recordsToReportBeforeAdjustmentAtListPrice": doc{},
			"commitAmount": exact("0"), "usedCommitAmount": exact("0"), "usedCommitAmountIncrement": exact("0"), "outcomes": []any{outcome},
		},
	}
}

// drawAccepted makes an hour accepted, whose day then has more.
func drawAccepted(t *rapid.T, _ *model, o *organization) (request, rule) {
	n := len(o.all("accepted hour"))
	entitlement, partner := pick(t, "entitlement", drawnEntitlements...), pick(t, "partner", partners...)
	buyer := map[string]string{"e1": "b1", "e2": drawnBuyers[1]}[entitlement]
	dimension, quantity, price := pick(t, "dimension", "cpu", "cpu", `g"b`, "~#"), pick(t, "quantity", "0.1", "2", "9007199254740993"), pick(t, "price", "0", "0.5", "3", "3")
	h := hourOf(o.name, entitlement, buyer, partner, n, reportHour(n), dimension, quantity, price)
	r := request{body: fmt.Sprint("accepted ", n, " ", dimension, " ", quantity), operator: func(ctx context.Context, tbl *table.Table, _ string) error { return accept(ctx, tbl, h) }}
	return r, func(o *organization, _ *modelKey) reply {
		day := milliseconds(h.Start.Truncate(24 * time.Hour))
		key := strings.Join([]string{partner, day, entitlement, dimension}, " ")
		sum := doc{
			"date": day, "entitlementID": entitlement, "partner": partner, "key": dimension, "quantity": added(nil, quantity, "1"), "buyer": buyer,
		}
		before, exists := o.all("daily")[key]
		if exists {
			sum["quantity"] = added(before["quantity"], quantity, "1")
		}
		if price != "0" && (!exists || before["amount"] != nil) {
			sum["amount"] = added(before["amount"], quantity, price)
		}
		return reply{status: 200, then: func() {
			o.all("accepted hour")[fmt.Sprint(n)] = doc{}
			o.all("daily")[key] = sum
		}}
	}
}

// added is the sum of a number of a document, or 0 if it is nil, and a product.
func added(to any, quantity, price string) any {
	rat := func(text string) *big.Rat {
		r, ok := new(big.Rat).SetString(text)
		if !ok {
			panic(text)
		}
		return r
	}
	sum := new(big.Rat).Mul(rat(quantity), rat(price))
	if to != nil {
		sum.Add(sum, rat(fmt.Sprint(to)))
	}
	return exact(sum.RatString())
}

// reports are all reports, newest first.
func (o *organization) reports() []any {
	all := []any{}
	for _, r := range o.all("report") {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b any) int { return strings.Compare(sortKey(b.(doc)), sortKey(a.(doc))) })
	return all
}

// daily are all daily records as the API returns them, those of a partner newest first.
func (o *organization) daily() []any {
	all := []any{}
	for _, p := range partners {
		var some []doc
		for _, d := range o.all("daily") {
			if d["partner"] == p {
				some = append(some, d)
			}
		}
		slices.SortFunc(some, func(a, b doc) int { return strings.Compare(dailyKey(b), dailyKey(a)) })
		for _, d := range some {
			all = append(all, withoutBuyer(d))
		}
	}
	return all
}

func withoutBuyer(d doc) doc {
	shown := maps.Clone(d)
	delete(shown, "buyer")
	return shown
}

func dailyKey(d doc) string {
	return strings.Join([]string{d["date"].(string), d["entitlementID"].(string), d["key"].(string)}, "#")
}

// drawReportQuery draws the parameters that both lists have.
func drawReportQuery(t *rapid.T, w *model) url.Values {
	query := url.Values{}
	set := func(odds int, name string, values ...string) {
		if roll(t, "with "+name, odds) == odds-1 {
			query.Set(name, pick(t, name, values...))
		}
	}
	set(4, "entitlementId", drawnEntitlements...)
	set(4, "buyerId", drawnBuyers...)
	set(3, "startDate", day(w.now, -40), day(w.now, -30), day(w.now, -1), day(w.now, 0), day(w.now, 1))
	set(3, "endDate", day(w.now, -31), day(w.now, -1), day(w.now, 0), day(w.now, 2), day(w.now, 30))
	set(1, "limit", "1", "1", "2", "3", "1000", "")
	set(5, "offset", "0", "1", "2", "3", "5", "2147483647")
	return query
}

var unreadableReportLists = []string{
	"limit=0", "limit=1001", "limit=x", "offset=-1", "offset=2147483648", "status=CREATED", "productId=p1", "metaInfo=%7B%7D", "startDate=2099-02-30", "colour=red",
	"buyerId=b1&buyerId=b2", "cursor=x", "cursor=x&offset=1", "entitlementId=a%2Fb",
}

func drawReports(t *rapid.T, w *model, o *organization) (request, rule) {
	switch next := o.nextOf("/usageRecordReport"); roll(t, "kind of list", 6) {
	case 5:
		query := pick(t, "query", append(unreadableReportLists, "partner=ADYEN")...)
		return listingReports(parsedQuery(query).Encode()), func(*organization, *modelKey) reply { return reply{status: 400} }
	case 3, 4:
		if len(next) > 0 {
			r := drawNextOf(t, next)
			return r, func(o *organization, k *modelKey) reply { return o.listReports(w.now, k, parsedQuery(r.query)) }
		}
	}
	query := drawReportQuery(t, w)
	if roll(t, "with partner", 4) == 3 {
		query.Set("partner", pick(t, "partner", partners...))
	}
	return listingReports(query.Encode()), func(o *organization, k *modelKey) reply { return o.listReports(w.now, k, query) }
}

func (o *organization) listReports(now time.Time, k *modelKey, query url.Values) reply {
	return o.page(now, k, "/usageRecordReport", "usageRecordReports", query, func(filter url.Values) (all []inList) {
		for _, r := range o.all("report") {
			if is(filter, "partner", r["partner"]) && is(filter, "entitlementId", r["entitlementID"]) && is(filter, "buyerId", r["buyerID"]) {
				all = append(all, inList{r, r["creationTime"].(string), sortKey(r)})
			}
		}
		return all
	})
}

// is reports whether a filter, if it is given, is the value.
func is(filter url.Values, name string, value any) bool {
	return filter.Get(name) == "" || filter.Get(name) == value
}

func drawDaily(t *rapid.T, w *model, o *organization) (request, rule) {
	partner := pick(t, "partner", partners...)
	path := listingDaily(partner, "").path
	switch next := o.nextOf(path); roll(t, "kind of list", 6) {
	case 5:
		if roll(t, "partner", 3) == 2 {
			partner := pick(t, "no partner", "aws", "ADYEN", "x y")
			return listingDaily(url.PathEscape(partner), ""), func(*organization, *modelKey) reply { return reply{status: 404, says: partner} }
		}
		query := pick(t, "query", append(unreadableReportLists, "partner=AWS")...)
		return listingDaily(partner, parsedQuery(query).Encode()), func(*organization, *modelKey) reply { return reply{status: 400} }
	case 3, 4:
		if len(next) > 0 {
			r := drawNextOf(t, next)
			return r, func(o *organization, k *modelKey) reply {
				return o.listDaily(w.now, k, partner, path, parsedQuery(r.query))
			}
		}
	}
	query := drawReportQuery(t, w)
	return listingDaily(partner, query.Encode()), func(o *organization, k *modelKey) reply { return o.listDaily(w.now, k, partner, path, query) }
}

func (o *organization) listDaily(now time.Time, k *modelKey, partner, path string, query url.Values) reply {
	return o.page(now, k, path, "usageMeteringDailyRecords", query, func(filter url.Values) (all []inList) {
		for _, d := range o.all("daily") {
			if d["partner"] == partner && is(filter, "entitlementId", d["entitlementID"]) && is(filter, "buyerId", d["buyer"]) {
				all = append(all, inList{withoutBuyer(d), d["date"].(string), dailyKey(d)})
			}
		}
		return all
	})
}
