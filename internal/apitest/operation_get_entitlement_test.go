package apitest

import (
	"net/http"

	"pgregory.net/rapid"
)

var _ = declare(operation{
	id: "getEntitlement", scopes: "read",
	given: []request{ofEntitlement("PUT", "ent-8f3a61c2", oneEntitlement)}, example: ofEntitlement("GET", "ent-8f3a61c2", ""),
	draw: drawEntitlementGet, odds: 2,
	shows: []exchange{
		{ofEntitlement("GET", "ent-8f3a61c2", ""), http.StatusOK},
		{ofEntitlement("GET", "absent", ""), http.StatusNotFound},
	},
	effects: []effect{{again: http.StatusOK, reads: true}},
})

func drawEntitlementGet(t *rapid.T, _ *model, o *organization) (request, rule) {
	id := pick(t, "entitlement", drawnCatalog...)
	r := ofEntitlement("GET", id, "")
	o.drawConditions(t, r.touches, r.headers)
	return r, ruleOfObjectGet(r, "entitlement", id)
}

// ruleOfObjectGet is the rule for a GET of an object of the catalog.
func ruleOfObjectGet(r request, kind, id string) rule {
	return func(o *organization, _ *modelKey) reply {
		stored, exists := o.all(kind)[id]
		if !exists {
			return reply{status: 404, says: id}
		}
		tags := o.tags(r.touches)
		switch match, noneMatch := o.meets(r.touches, r.headers); {
		case !match:
			return reply{status: 412}
		case !noneMatch:
			return reply{status: 304, tags: tags, version: tags.version}
		}
		return reply{status: 200, body: stored, tags: tags, version: tags.version}
	}
}
