package apitest

import (
	"crypto/sha1"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"pgregory.net/rapid"
)

var _ = declare(operation{
	id: "reportUsageRecordGroup", scopes: "write",
	given:   []request{sold("report-e"), sold("ent-8f3a61c2")}, // the second is that of the event
	example: reporting("report-e", `{"records":{"cpu":1.5}}`, "Idempotency-Key", "report-key"),
	draw:    drawReport, odds: 4,
	shows: []exchange{
		{reporting("report-e", `{"records":{"cpu":1}}`), http.StatusOK},
		{reporting("report-e", `{"id":"show-1","billableRecords":[{"key":"m","quantity":1}]}`), http.StatusOK},
		{reporting("report-e", `{"id":"show-1","records":{"cpu":1}}`), http.StatusConflict},
		{reporting("absent", `{"records":{"cpu":1}}`), http.StatusNotFound},
		{sold("show-e"), http.StatusOK},
		{reporting("show-e", `{"records":{"disk":1}}`, "Idempotency-Key", "show-key"), http.StatusOK},
		{ofEntitlement("DELETE", "show-e", ""), http.StatusOK},
		{reporting("show-e", `{"records":{"disk":1}}`, "Idempotency-Key", "show-key"), http.StatusOK}, // reads the group
	},
	effects: []effect{
		{again: http.StatusOK, numbers: true},
		{name: "with an id", request: reporting("report-e", `{"id":"report-1","records":{"cpu":1.5}}`), again: http.StatusConflict, numbers: true},
		{name: "that is invalid", request: reporting("report-e", `{"records":{"disk":1}}`, "Idempotency-Key", "report-key"), again: http.StatusOK, numbers: true},
		{name: "of metrics", request: reporting("report-e", `{"billableRecords":[{"key":"m","quantity":1}]}`, "Idempotency-Key", "report-key"), again: http.StatusOK, numbers: true},
	},
})

var _ = declare(operation{
	id: "batchCreateUsageRecordGroups", scopes: "write",
	given:   []request{sold("batch-e")},
	example: batching(`[{"entitlementID":"batch-e","records":{"cpu":1}},{"entitlementID":"batch-e","records":{"cpu":2}},{"entitlementID":"batch-e","records":{"disk":3}}]`, "Idempotency-Key", "batch-key"),
	draw:    drawBatch, odds: 3,
	shows: []exchange{
		{batching(`[{"entitlementID":"batch-e","records":{"cpu":1}},{"entitlementID":"batch-e","billableRecords":[{"key":"m","quantity":1}]}]`), http.StatusOK},
		{batching(`[{"id":"show-2","entitlementID":"batch-e","records":{"cpu":1}}]`), http.StatusOK},
		{batching(`[{"id":"show-2","entitlementID":"batch-e","records":{"cpu":2}}]`), http.StatusConflict},
		{batching(`[{"entitlementID":"absent","records":{"cpu":1}}]`), http.StatusBadRequest},
		{sold("show-e"), http.StatusOK},
		{batching(`[{"entitlementID":"show-e","records":{"disk":1}}]`, "Idempotency-Key", "show-key"), http.StatusOK},
		{ofEntitlement("DELETE", "show-e", ""), http.StatusOK},
		{batching(`[{"entitlementID":"show-e","records":{"disk":1}}]`, "Idempotency-Key", "show-key"), http.StatusOK},
	},
	effects: []effect{
		{again: http.StatusOK, parts: true, numbers: true},
		{name: "with ids", request: batching(`[{"id":"batch-1","entitlementID":"batch-e","records":{"cpu":1}},{"id":"batch-2","entitlementID":"batch-e","records":{"cpu":2}}]`), again: http.StatusOK, parts: true, numbers: true},
	},
})

var _ = declare(operation{
	id: "getUsageRecordGroup", scopes: "read",
	given:   []request{imported(group("get-1"))},
	example: request{method: "GET", path: "/usageRecordGroup/get-1"},
	draw:    drawGetGroup, odds: 2,
	shows: []exchange{
		{request{method: "GET", path: "/usageRecordGroup/get-1"}, http.StatusOK},
		{request{method: "GET", path: "/usageRecordGroup/absent"}, http.StatusNotFound},
	},
	effects: []effect{{again: http.StatusOK, reads: true}},
})

// retryable is an INVALID group of the entitlement that a retry makes CREATED at any time.
func retryable(id, entitlement string) request {
	return imported(group(id, doc{"status": "INVALID", "entitlementID": entitlement, "records": doc{}, "metaInfo": doc{"SkipValidation": true, "originRecords": doc{"cpu": 2}}}))
}

var _ = declare(operation{
	id: "retryUsageRecordGroup", scopes: "write",
	given:   []request{sold("retry-e"), retryable("retry-1", "retry-e"), retryable("urg-2417", "retry-e")}, // the last is that of the event
	example: retrying("retry-1", "", "Idempotency-Key", "retry-key"),
	draw:    drawRetry, odds: 3,
	shows: []exchange{
		{retrying("retry-1", ""), http.StatusOK},
		{retrying("retry-1", ""), http.StatusBadRequest},
		{retrying("absent", ""), http.StatusNotFound},
		{imported(group("retry-2", doc{"status": "INVALID", "entitlementID": "retry-e", "metaInfo": doc{"billableRecords": []any{doc{"key": "m", "quantity": 1}}}})), http.StatusOK},
		{retrying("retry-2", ""), http.StatusOK},
	},
	effects: []effect{
		{again: http.StatusOK},
		{name: "without a key", request: retrying("retry-1", ""), again: http.StatusBadRequest},
		{name: "of an entitlement that does not exist", given: []request{retryable("retry-1", "absent")}, request: retrying("retry-1", "", "Idempotency-Key", "retry-key"), again: http.StatusOK},
	},
})

func posting(path, body, touches string, headers ...string) request {
	r := request{method: "POST", path: path, body: body, touches: touches, headers: map[string]string{"Content-Type": "application/json"}}
	for i := 0; i < len(headers); i += 2 {
		r.headers[headers[i]] = headers[i+1]
	}
	return r
}

func reporting(entitlement, body string, headers ...string) request {
	return posting("/entitlement/"+url.PathEscape(entitlement)+"/usageRecordGroup", body, "", headers...)
}

func batching(body string, headers ...string) request {
	return posting("/batchCreateUsageRecordGroups", body, "", headers...)
}

func retrying(id, created string, headers ...string) request {
	r := posting("/usageRecordGroup/"+url.PathEscape(id)+"/retry", "", "group "+id, headers...)
	delete(r.headers, "Content-Type")
	if created != "" {
		r.query = "creationDate=" + created
	}
	return r
}

// keyed is the id of a group that is reported with an Idempotency-Key: a UUIDv5 of the
// organization, the key and the index.
func keyed(org, key string, i int) string {
	h := sha1.New()
	fmt.Fprintf(h, "marketMe\xb4er-keys%s\x00%s\x00%d", org, key, i)
	id := h.Sum(nil)[:16]
	id[6], id[8] = id[6]&0x0f|0x50, id[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}

// seller is the entitlement of the reports that are drawn. Nothing changes it, so that it does not
// matter how old the terms are that a report is judged by. Its dimensions have names that no drawn
// config maps.
const seller = "seller"

func drawSeller(w *model) (request, rule) {
	body := doc{
		"partner": "AZURE", "buyerID": "b1", "productID": "p1", "marketplace": doc{"resourceID": "2f8a4b0e-6c1d-4e57-9a3b-0d1e2f3a4b5c", "planID": "gold"},
		"info": doc{"dimensions": []any{doc{"key": "hours"}, doc{"key": "seats", "name": "Seats of the plan"}}},
	}
	r := ofEntitlement("PUT", seller, toText(body), "Content-Type", "application/json")
	return r, ruleOfEntitlementPut(w.now, r, seller, body)
}

// drawReport draws a report with an id or a key, or one that is refused.
func drawReport(t *rapid.T, w *model, o *organization) (request, rule) {
	exists := o.all("entitlement")[seller] != nil
	if !exists && roll(t, "sell", 3) > 0 {
		return drawSeller(w)
	}
	sent := pick(t, "records", `{"hours":2}`, `{"hours":7,"Seats of the plan":0}`, `{"hours":9007199254740993}`)
	records, body := values(sent).(doc), `{"records":`+sent+`}`
	switch roll(t, "kind", 6) {
	case 0:
		refused := pick(t, "body", `{}`, `[]`, `{"records":{"hours":0}}`, `{"records":{"hours":"1"}}`, `{"records":{"hours":1},"entitlementID":"other"}`, `{"record":{"hours":1}}`,
			`{"records":{"hours":1},"billableRecords":[{"key":"m","quantity":1}]}`, `{"records":{"hours":1},"id":"a/b"}`)
		return reporting(seller, refused), func(*organization, *modelKey) reply { return reply{status: 400} }
	case 1:
		return reporting("nobody", body), func(*organization, *modelKey) reply { return reply{status: 404, says: "nobody"} }
	case 2, 3:
		key := pick(t, "key", "k1", "k 2")
		id := keyed(o.name, key, 0)
		r := posting("/entitlement/"+seller+"/usageRecordGroup", body, "group "+id, "Idempotency-Key", key)
		return r, func(o *organization, _ *modelKey) reply {
			stored := o.all("group")[id]
			switch {
			case stored != nil && !equal(stored["metaInfo"].(doc)["originRecords"], records):
				return reply{status: 409, says: "Idempotency-Key"}
			case stored != nil:
				return reply{status: 200, body: stored}
			case !exists:
				return reply{status: 404, says: seller}
			}
			return o.reported(w, id, records)
		}
	default:
		id := w.drawID(t)
		r := posting("/entitlement/"+seller+"/usageRecordGroup", `{"records":`+sent+`,"id":`+strconv.Quote(id)+`}`, "group "+id)
		return r, func(o *organization, _ *modelKey) reply {
			stored := o.all("group")[id]
			switch {
			case !exists:
				return reply{status: 404, says: seller}
			case stored != nil && o.same(stored, records):
				return reply{status: 409, says: "same content"}
			case stored != nil:
				return reply{status: 409, says: "other content"}
			}
			return o.reported(w, id, records)
		}
	}
}

// same reports whether the stored group is a report of the records.
func (o *organization) same(stored doc, records doc) bool {
	m := stored["metaInfo"].(doc)
	return stored["entitlementID"] == seller && m["billableRecords"] == nil && equal(m["originRecords"], records)
}

// reported is the reply to a report that is stored.
func (o *organization) reported(w *model, id string, records doc) reply {
	g := o.newGroup(w, id, records)
	return reply{status: 200, body: g, numbered: []doc{g}, then: func() { o.keep(g) }}
}

// keep stores a group that was reported.
func (o *organization) keep(g doc) {
	id := g["id"].(string)
	o.all("group")[id], o.products[id] = g, "p1"
}

func (o *organization) newGroup(w *model, id string, records doc) doc {
	at := milliseconds(w.now)
	converted := maps.Clone(records)
	if seats, ok := converted["Seats of the plan"]; ok {
		delete(converted, "Seats of the plan")
		converted["seats"] = seats
	}
	return doc{
		"id": id, "organizationID": o.name, "buyerID": "b1", "entitlementID": seller, "partner": "AZURE", "status": "CREATED", "records": converted,
		"metaInfo": doc{"source": "API", "timestamp": at, "originRecords": records}, "usageRecordReportID": "",
		"creationTime": at, "lastUpdateTime": at, "reportBy": milliseconds(w.now.Truncate(time.Hour).Add(24 * time.Hour)),
	}
}

// drawBatch draws a batch of two groups with ids, or one that is refused.
func drawBatch(t *rapid.T, w *model, o *organization) (request, rule) {
	exists := o.all("entitlement")[seller] != nil
	if !exists && roll(t, "sell", 3) > 0 {
		return drawSeller(w)
	}
	if roll(t, "refused", 3) == 2 {
		c := pick(t, "body", [][2]string{
			{`[]`, ""},
			{`[{}]`, "index 0"},
			{`[{"entitlementID":"seller","records":{"hours":1}},{"records":{"hours":1}}]`, "index 1"},
			{`[{"entitlementID":"nobody","records":{"hours":1}},{"entitlementID":"nobody","records":{"hours":1}}]`, "indexes 0 and 1"},
			{`[{"entitlementID":"seller","records":{"hours":0}}]`, "every quantity is 0"},
			{`[{"entitlementID":"seller"}]`, "index 0"},
		}...)
		return batching(c[0]), func(*organization, *modelKey) reply { return reply{status: 400, says: c[1]} }
	}
	ids := []string{w.drawID(t), w.drawID(t)}
	sent := []string{`{"hours":2}`, pick(t, "records", `{"hours":2}`, `{"hours":3}`)}
	records, body := []doc{}, []string{}
	for i, id := range ids {
		records = append(records, values(sent[i]).(doc))
		body = append(body, `{"entitlementID":"`+seller+`","records":`+sent[i]+`,"id":`+strconv.Quote(id)+`}`)
	}
	return batching("[" + strings.Join(body, ",") + "]"), func(o *organization, _ *modelKey) reply {
		switch {
		case ids[0] == ids[1]:
			return reply{status: 400, says: ids[0]}
		case !exists:
			return reply{status: 400, says: "indexes 0 and 1"}
		}
		groups, others, news := []any{}, []string{}, []doc{}
		for i, id := range ids {
			switch stored := o.all("group")[id]; {
			case stored == nil:
				g := o.newGroup(w, id, records[i])
				groups, news = append(groups, g), append(news, g)
			case o.same(stored, records[i]):
				groups = append(groups, stored)
			default:
				others = append(others, fmt.Sprint(i))
			}
		}
		if len(others) > 0 {
			return reply{status: 409, says: strings.Join(others, " and ")}
		}
		return reply{status: 200, body: groups, numbered: news, then: func() {
			for _, g := range news {
				o.keep(g)
			}
		}}
	}
}

func drawGetGroup(t *rapid.T, w *model, _ *organization) (request, rule) {
	id := w.drawID(t)
	r := request{method: "GET", path: "/usageRecordGroup/" + url.PathEscape(id), touches: "group " + id}
	return r, func(o *organization, _ *modelKey) reply {
		g, ok := o.all("group")[id]
		if !ok {
			return reply{status: 404, says: id}
		}
		return reply{status: 200, body: g}
	}
}

// drawRetry draws a retry of a group in any status that is no retry of imported usage: what the
// catalog makes of that is tested elsewhere.
func drawRetry(t *rapid.T, w *model, o *organization) (request, rule) {
	id := w.drawID(t)
	if g := o.all("group")[id]; g != nil && (g["status"] == "INVALID" || g["status"] == "REPORT_FAILED") {
		id = "nothing"
	}
	created := ""
	if roll(t, "creationDate", 4) == 3 {
		created = day(w.now, roll(t, "day", 3)-1)
	}
	r := retrying(id, created)
	r.touches = "" // another request may make the group INVALID meanwhile
	return r, func(o *organization, _ *modelKey) reply {
		g, ok := o.all("group")[id]
		if !ok || created != "" && created != g["creationTime"].(string)[:len("2006-01-02")] {
			return reply{status: 404, says: id}
		}
		return reply{status: 400, says: g["status"].(string)}
	}
}
