package apitest

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"pgregory.net/rapid"
)

var _ = declare(operation{
	id: "listUsageMeteringConfigInfoVersions", scopes: "read config",
	given: []request{configured("PUT", oneConfig)}, example: listingVersions(""),
	draw: drawVersions, odds: 2,
	stored: &stored{
		of:    "versions",
		model: func(o *organization) any { return o.newestVersions() },
		service: func(read func(path, query string) doc) any {
			return read("/usageMeteringConfigInfo/versions", "")["versions"]
		},
	},
	shows: []exchange{
		{listingVersions(""), http.StatusOK},
		{listingVersions("offset=1"), http.StatusOK},
	},
	effects: []effect{
		{again: http.StatusOK, reads: true},
		{name: "at an offset", given: []request{configured("PUT", oneConfig), configured("PUT", otherConfig)}, request: listingVersions("offset=1&limit=1"), again: http.StatusOK, reads: true},
	},
})

var _ = declare(operation{
	id: "getUsageMeteringConfigInfoVersion", scopes: "read config",
	given: []request{configured("PUT", oneConfig)}, example: ofVersion("1"),
	draw: drawVersion, odds: 2,
	shows: []exchange{
		{ofVersion("1"), http.StatusOK},
		{ofVersion("1000000"), http.StatusNotFound},
	},
	effects: []effect{{again: http.StatusOK, reads: true}},
})

func listingVersions(query string) request {
	return request{method: "GET", path: "/usageMeteringConfigInfo/versions", query: query}
}

func ofVersion(n string) request {
	return request{method: "GET", path: "/usageMeteringConfigInfo/versions/" + url.PathEscape(n)}
}

func drawVersions(t *rapid.T, _ *model, _ *organization) (request, rule) {
	offset, limit := roll(t, "offset", 4), 1+roll(t, "limit", 4)
	query := url.Values{}
	if offset > 0 {
		query.Set("offset", strconv.Itoa(offset))
	}
	if limit < 4 {
		query.Set("limit", strconv.Itoa(limit))
	} else {
		limit = 1000
	}
	if roll(t, "wrong", 10) == 9 {
		return listingVersions(pick(t, "query", "limit=0", "limit=1001", "offset=-1", "offset=x", "offset=1&offset=1", "status=ACTIVE")),
			func(*organization, *modelKey) reply { return reply{status: 400} }
	}
	return listingVersions(query.Encode()), func(o *organization, _ *modelKey) reply {
		all := o.newestVersions()
		page := append([]any{}, all[min(offset, len(all)):min(offset+limit, len(all))]...)
		next := 0
		if offset+len(page) < len(all) && len(page) > 0 {
			next = offset + len(page)
		}
		return reply{status: 200, body: doc{"nextOffset": exact(fmt.Sprint(next)), "versions": page}}
	}
}

func drawVersion(t *rapid.T, _ *model, o *organization) (request, rule) {
	n := pick(t, "version", strconv.Itoa(1+roll(t, "n", 1+len(o.all("version")))), strconv.Itoa(max(1, len(o.all("version")))), "0", "-1", "01", "x", "1.0", "99999999999999999999", "10000000001")
	return ofVersion(n), func(o *organization, _ *modelKey) reply {
		v, exists := o.all("version")[n]
		if !exists {
			return reply{status: 404, says: n}
		}
		return reply{status: 200, body: v}
	}
}
