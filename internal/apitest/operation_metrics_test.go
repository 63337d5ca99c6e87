package apitest

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"

	"pgregory.net/rapid"
)

var _ = declare(operation{
	id: "listBillableMetrics", scopes: "read",
	given: []request{importedMetric("bm-tokens")}, example: listingMetrics(""),
	draw: drawMetricList, odds: 2,
	stored: &stored{
		of:    "metric",
		model: func(o *organization) any { return o.listedMetrics("", byID) },
		service: func(read func(path, query string) doc) any {
			list, _ := read("/billableMetric", "")["list"].([]any)
			slices.SortFunc(list, byID)
			return list
		},
	},
	shows: []exchange{
		{listingMetrics(""), http.StatusOK},
		{listingMetrics("status=DELETED"), http.StatusOK},
	},
	effects: []effect{{again: http.StatusOK, reads: true}},
})

var _ = declare(operation{
	id: "createBillableMetric", scopes: "config",
	example: creatingMetric(oneMetric),
	draw:    drawMetricCreation, odds: 3,
	shows: []exchange{
		{creatingMetric(oneMetric), http.StatusOK},
		{creatingMetric(oneMetric), http.StatusConflict},
		{creatingMetric(`{"name": "tokens"}`), http.StatusBadRequest},
	},
	effects: []effect{{again: http.StatusConflict}},
	blind:   true,
})

var _ = declare(operation{
	id: "getBillableMetric", scopes: "read",
	given: []request{importedMetric("bm-tokens")}, example: ofMetric("GET", "bm-tokens", ""),
	draw: drawMetricGet, odds: 2,
	shows: []exchange{
		{ofMetric("GET", "bm-tokens", ""), http.StatusOK},
		{ofMetric("GET", "absent", ""), http.StatusNotFound},
	},
	effects: []effect{{again: http.StatusOK, reads: true}},
})

var _ = declare(operation{
	id: "updateBillableMetric", scopes: "config",
	given: []request{importedMetric("bm-users")}, example: ofMetric("PATCH", "bm-users", `{"description": "changed"}`),
	draw: drawMetricChange, odds: 4,
	shows: []exchange{
		{ofMetric("PATCH", "bm-users", `{"description": "changed"}`), http.StatusOK},
		{ofMetric("PATCH", "bm-users", `{"description": "changed"}`), http.StatusOK}, // it changes nothing
		{ofMetric("PATCH", "bm-users", `{"name": "renamed"}`), http.StatusOK},
		{ofMetric("PATCH", "bm-users", `{"status": "DELETED"}`), http.StatusOK},
		{ofMetric("PATCH", "bm-users", `{"status": "ACTIVE"}`), http.StatusOK},
		{ofMetric("PATCH", "bm-users", `{"aggregationType": "MAX"}`), http.StatusBadRequest},
		{ofMetric("PATCH", "absent", `{}`), http.StatusNotFound},
	},
	effects: []effect{
		{again: http.StatusOK},
		{name: "that renames", request: ofMetric("PATCH", "bm-users", `{"name": "renamed"}`), again: http.StatusOK},
		{name: "that deletes", request: ofMetric("PATCH", "bm-users", `{"status": "DELETED"}`), again: http.StatusOK},
		{
			name: "that revives", given: []request{importedMetric("bm-users", doc{"status": "DELETED"})},
			request: ofMetric("PATCH", "bm-users", `{"status": "ACTIVE"}`), again: http.StatusOK,
		},
	},
})

func drawMetricList(t *rapid.T, _ *model, _ *organization) (request, rule) {
	status := pick(t, "status", "", "", "ACTIVE", "DELETED")
	query := url.Values{}
	if status != "" || roll(t, "empty", 4) == 3 {
		query.Set("status", status)
	}
	r := listingMetrics(query.Encode())
	if roll(t, "wrong", 10) == 9 {
		r.query = pick(t, "query", "status=active", "limit=1", "status=ACTIVE&status=ACTIVE", "name=tokens")
		return r, func(*organization, *modelKey) reply { return reply{status: 400} }
	}
	return r, func(o *organization, _ *modelKey) reply {
		return reply{status: 200, body: o.listedMetrics(status, newestFirst)}
	}
}

func drawMetricGet(t *rapid.T, _ *model, o *organization) (request, rule) {
	id := drawMetricID(t, o)
	return ofMetric("GET", id, ""), func(o *organization, _ *modelKey) reply {
		m, exists := o.all("metric")[id]
		if !exists {
			return reply{status: 404, says: id}
		}
		return reply{status: 200, body: m}
	}
}

var unreadableMetrics = []string{
	``, `[]`, `{}`, `{"name":"a"}`, `{"aggregationType":"SUM"}`, `{"name":"a","aggregationType":"AVG"}`, `{"name":"a","aggregationType":"SUM","status":"DELETED"}`,
	`{"name":"a","aggregationType":"SUM","organizationId":"another"}`, `{"name":"a","aggregationType":"UNIQUE_COUNT"}`, `{"name":"a","name":"a","aggregationType":"SUM"}`,
	`{"name":"a","aggregationType":"SUM","info":{"filterGroups":[{"filters":[]}]}}`, `{"name":"a","aggregationType":"SUM","info":{"groupBys":["b","b"]}}`,
	`{"name":"a","aggregationType":"SUM","agregationType":"SUM"}`,
}

func drawMetricCreation(t *rapid.T, w *model, _ *organization) (request, rule) {
	if roll(t, "unreadable", 8) == 7 {
		return creatingMetric(pick(t, "body", unreadableMetrics...)), func(*organization, *modelKey) reply { return reply{status: 400} }
	}
	body := doc{"name": pick(t, "name", drawnMetricNames...), "aggregationType": pick(t, "type", "COUNT", "SUM", "MAX", "LAST")}
	if roll(t, "described", 3) == 2 {
		body["description"] = "d"
	}
	info := pick(t, "info", "", "", `{"propertyUniqueOn":"user"}`, `{"groupBys":["zone","region"]}`,
		`{"filterGroups":[{"filters":[{"name":"zone","operation":"IS","value":"us","valueType":"STRING"},{"name":"n","operation":"GT","value":9007199254740993.5,"valueType":"FLOAT"}]},`+
			`{"filters":[{"name":"x","operation":"EXISTS"},{"name":"y","operation":"EQ","value":{"a":[1,null,true]}}]}]}`)
	sent := maps.Clone(body)
	if info != "" {
		body["info"], sent["info"] = values(info), json.RawMessage(info)
	}
	if roll(t, "what the service makes", 4) == 3 {
		sent["id"], sent["status"], sent["creationTime"], sent["lastUpdateTime"] = "mine", "ACTIVE", "2001-01-01T00:00:00Z", nil
	}
	return creatingMetric(toText(sent)), func(o *organization, _ *modelKey) reply {
		if owner := o.nameOwner(body["name"], ""); owner != "" {
			return reply{status: 409, says: owner}
		}
		m := maps.Clone(body)
		m["organizationId"], m["status"] = o.name, "ACTIVE"
		m["creationTime"], m["lastUpdateTime"] = milliseconds(w.now), milliseconds(w.now)
		return reply{status: 200, body: m, made: "listBillableMetrics", then: func() { o.all("metric")[m["id"].(string)] = m }}
	}
}

func drawMetricChange(t *rapid.T, w *model, o *organization) (request, rule) {
	id := drawMetricID(t, o)
	if roll(t, "unreadable", 8) == 7 {
		body := pick(t, "body", ``, `[]`, `{"id":"x"}`, `{"info":null}`, `{"status":"GONE"}`, `{"name":""}`, `{"name":5}`, `{"description":"a","description":"a"}`)
		return ofMetric("PATCH", id, body), func(o *organization, _ *modelKey) reply {
			if _, exists := o.all("metric")[id]; !exists && body == `{"name":""}` {
				return reply{status: 404, says: id}
			}
			return reply{status: 400}
		}
	}
	change := doc{}
	add := func(name string, values ...any) {
		if value := pick(t, name, values...); value != "" {
			change[name] = value
		}
	}
	add("name", append([]any{"", "", nil}, "tokens", "seats")...)
	add("description", "", "", nil, "d", "e")
	add("status", "", "ACTIVE", "ACTIVE", "DELETED", nil)
	now := w.now
	return ofMetric("PATCH", id, toText(change)), func(o *organization, _ *modelKey) reply {
		before, exists := o.all("metric")[id]
		if !exists {
			return reply{status: 404, says: id}
		}
		after := maps.Clone(before)
		for name, value := range change {
			if value != nil {
				after[name] = value
			}
		}
		if equal(before, after) {
			return reply{status: 200, body: before}
		}
		if owner := o.nameOwner(after["name"], id); owner != "" && after["status"] == "ACTIVE" {
			return reply{status: 409, says: owner}
		}
		after["lastUpdateTime"] = milliseconds(now)
		return reply{status: 200, body: after, then: func() { o.all("metric")[id] = after }}
	}
}
