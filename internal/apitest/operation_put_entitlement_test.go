package apitest

import (
	"maps"
	"net/http"

	"pgregory.net/rapid"
)

var _ = declare(operation{
	id: "putEntitlement", scopes: "config",
	example: ofEntitlement("PUT", "put-1", oneEntitlement),
	draw:    drawEntitlementPut, odds: 4,
	shows: []exchange{
		{ofEntitlement("PUT", "show-1", identified(licence)), http.StatusOK},
		{ofEntitlement("PUT", "show-1", identified(licence)), http.StatusOK}, // it changes nothing
		{ofEntitlement("PUT", "show-2", identified(licence)), http.StatusConflict},
		{ofEntitlement("PUT", "show-1", identified(otherLicence)), http.StatusOK}, // the identity moves
		{ofEntitlement("PUT", "show-1", oneEntitlement, "If-Match", `"never"`), http.StatusPreconditionFailed},
		{ofEntitlement("PUT", "show-1", oneEntitlement), http.StatusOK},
		{ofEntitlement("PUT", "show-1", `{}`), http.StatusBadRequest},
	},
	effects: []effect{
		{again: http.StatusOK},
		{name: "that creates", request: ofEntitlement("PUT", "put-1", oneEntitlement, "If-None-Match", "*"), again: http.StatusPreconditionFailed},
		{name: "with an identity", request: ofEntitlement("PUT", "put-1", identified(licence)), again: http.StatusOK},
		{
			name: "with another identity", given: []request{ofEntitlement("PUT", "put-1", identified(licence))},
			request: ofEntitlement("PUT", "put-1", identified(otherLicence)), again: http.StatusOK,
		},
		{
			name: "without its identity", given: []request{ofEntitlement("PUT", "put-1", identified(licence))},
			request: ofEntitlement("PUT", "put-1", oneEntitlement), again: http.StatusOK,
		},
	},
	blind: true,
})

func drawEntitlementPut(t *rapid.T, w *model, o *organization) (request, rule) {
	id := pick(t, "entitlement", drawnCatalog...)
	r := ofEntitlement("PUT", id, "")
	r.headers["Content-Type"] = "application/json"
	o.drawConditions(t, r.touches, r.headers)
	if roll(t, "unreadable", 10) == 9 {
		r.body = pick(t, "body", unreadableEntitlements...)
		return r, func(*organization, *modelKey) reply { return reply{status: 400} }
	}
	body := drawEntitlement(t)
	if licenseArn := pick(t, "licence", "", "", licence, otherLicence); licenseArn != "" {
		r.touches = "" // another entitlement may own it
		body["partner"], body["marketplace"] = "AWS", doc{"customerAWSAccountID": "123456789012", "licenseArn": licenseArn}
	}
	sent := maps.Clone(body)
	if roll(t, "with the path's ids", 4) == 3 {
		sent["id"], sent["creationTime"] = id, "2001-01-01T00:00:00Z"
	}
	r.body = toText(sent)
	return r, ruleOfEntitlementPut(w.now, r, id, body)
}
