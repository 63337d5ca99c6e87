package apitest

import (
	"net/http"
	"slices"

	"pgregory.net/rapid"
)

var _ = declare(operation{
	id: "deleteEntitlement", scopes: "config",
	given: []request{ofEntitlement("PUT", "ent-suspended", oneEntitlement)}, example: ofEntitlement("DELETE", "ent-suspended", ""),
	draw: drawEntitlementDelete, odds: 3,
	shows: []exchange{
		{ofEntitlement("PUT", "show-1", identified(licence)), http.StatusOK},
		{imported(group("show-1", doc{"entitlementID": "show-1"})), http.StatusOK},
		{ofEntitlement("DELETE", "show-1", ""), http.StatusConflict},
		{deleting("show-1", ""), http.StatusOK},
		{ofEntitlement("DELETE", "show-1", ""), http.StatusOK}, // the identity is released
		{ofEntitlement("DELETE", "show-1", ""), http.StatusOK}, // it changes nothing
		{ofEntitlement("DELETE", "absent", ""), http.StatusNotFound},
		{ofEntitlement("DELETE", "ent-suspended", "", "If-Match", `"never"`), http.StatusPreconditionFailed},
		{ofEntitlement("DELETE", "ent-suspended", ""), http.StatusOK},
	},
	effects: []effect{
		{again: http.StatusOK},
		{name: "with an identity", given: []request{ofEntitlement("PUT", "ent-suspended", identified(licence))}, again: http.StatusOK},
	},
})

func drawEntitlementDelete(t *rapid.T, w *model, o *organization) (request, rule) {
	id := pick(t, "entitlement", drawnCatalog...)
	r := ofEntitlement("DELETE", id, "")
	o.drawConditions(t, r.touches, r.headers)
	if slices.Contains(drawnEntitlements, id) {
		r.touches = "" // its groups decide too
	}
	return r, ruleOfEntitlementDelete(w.now, r, id)
}
