package apitest

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"pgregory.net/rapid"
)

var _ = declare(operation{
	id: "listEntitlements", scopes: "read",
	example: request{method: "GET", path: "/entitlement"},
	draw:    drawEntitlementList, odds: 3,
	stored: &stored{
		of:    "entitlement",
		model: func(o *organization) any { return listedEntitlements(o, byID) },
		service: func(read func(path, query string) doc) any {
			list, _ := read("/entitlement", "")["list"].([]any)
			slices.SortFunc(list, byID)
			return list
		},
	},
	shows: []exchange{
		{ofEntitlement("PUT", "show-1", oneEntitlement), http.StatusOK},
		{request{method: "GET", path: "/entitlement"}, http.StatusOK},
		{request{method: "GET", path: "/entitlement", query: "partner=AWS&buyerId=b&productId=p&externalId=x"}, http.StatusOK},
	},
	effects: []effect{{given: []request{ofEntitlement("PUT", "e1", oneEntitlement), ofEntitlement("PUT", "e2", oneEntitlement)}, again: http.StatusOK, reads: true}},
})

func byID(a, b any) int { return strings.Compare(a.(doc)["id"].(string), b.(doc)["id"].(string)) }

func newestFirst(a, b any) int {
	return strings.Compare(b.(doc)["creationTime"].(string)+b.(doc)["id"].(string), a.(doc)["creationTime"].(string)+a.(doc)["id"].(string))
}

// listedEntitlements are those that are not DELETED.
func listedEntitlements(o *organization, order func(a, b any) int) []any {
	list := []any{}
	for e := range maps.Values(o.all("entitlement")) {
		if e["status"] != "DELETED" {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, order)
	return list
}

func drawEntitlementList(t *rapid.T, _ *model, _ *organization) (request, rule) {
	query, wanted := url.Values{}, map[string]string{}
	for _, filter := range []struct {
		parameter, member string
		values            []string
	}{
		{"partner", "partner", []string{"", "", "AWS", "AZURE"}},
		{"productId", "productID", []string{"", "", "", "p1"}},
		{"buyerId", "buyerID", []string{"", "", "b1"}},
		{"externalId", "externalID", []string{"", "", "", "x"}},
	} {
		if value := pick(t, filter.parameter, filter.values...); value != "" {
			query.Set(filter.parameter, value)
			wanted[filter.member] = value
		}
	}
	offset, limit := roll(t, "offset", 3), 1+roll(t, "limit", 4)
	if offset > 0 {
		query.Set("offset", string(rune('0'+offset)))
	}
	if limit < 4 {
		query.Set("limit", string(rune('0'+limit)))
	} else {
		limit = 1000
	}
	r := request{method: "GET", path: "/entitlement", query: query.Encode()}
	if roll(t, "wrong", 10) == 9 {
		r.query = pick(t, "query", "limit=0", "partner=aws", "status=ACTIVE", "offset=x", "limit=1&limit=1")
		return r, func(*organization, *modelKey) reply { return reply{status: 400} }
	}
	return r, func(o *organization, _ *modelKey) reply {
		list := slices.DeleteFunc(listedEntitlements(o, newestFirst), func(e any) bool {
			for member, value := range wanted {
				if e.(doc)[member] != value {
					return true
				}
			}
			return false
		})
		return reply{status: 200, body: append([]any{}, list[min(offset, len(list)):min(offset+limit, len(list))]...)}
	}
}
