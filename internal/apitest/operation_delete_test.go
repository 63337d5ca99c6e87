package apitest

import (
	"maps"
	"net/http"
	"net/url"
	"time"

	"pgregory.net/rapid"
)

var _ = declare(operation{
	id: "deleteUsageRecordGroup", scopes: "write",
	given: []request{imported(group("g1"))}, example: deleting("g1", ""),
	draw: drawDelete, odds: 4,
	shows: []exchange{
		{imported(group("g2", doc{"status": "INVALID"})), http.StatusOK},
		{deleting("g1", "2024-07-01"), http.StatusNotFound},
		{deleting("g1", "2024-07-28"), http.StatusOK},
		{deleting("g1", ""), http.StatusBadRequest},
		{deleting("g2", ""), http.StatusOK},
		{deleting("absent", ""), http.StatusNotFound},
	},
	effects: []effect{{again: http.StatusBadRequest}},
})

func deleting(id, created string) request {
	r := request{method: "DELETE", path: "/usageRecordGroup/" + url.PathEscape(id), touches: "group " + id}
	if created != "" {
		r.query = "creationDate=" + created
	}
	return r
}

func drawDelete(t *rapid.T, w *model, o *organization) (request, rule) {
	id := w.drawID(t)
	created := ""
	switch roll(t, "creationDate", 6) {
	case 4:
		if g, ok := o.all("group")[id]; ok {
			created = g["creationTime"].(string)[:len(time.DateOnly)]
		}
	case 5:
		created = day(w.now, roll(t, "day", 4)-2)
	}
	return deleting(id, created), ruleOfDelete(w.now, id, created)
}

func ruleOfDelete(now time.Time, id, created string) rule {
	return func(o *organization, _ *modelKey) reply {
		g, ok := o.all("group")[id]
		switch {
		case !ok || created != "" && created != g["creationTime"].(string)[:len(time.DateOnly)]:
			return reply{status: 404, says: id}
		case g["status"] != "CREATED" && g["status"] != "INVALID":
			return reply{status: 400, says: g["status"].(string)}
		}
		deleted := maps.Clone(g)
		deleted["status"], deleted["lastUpdateTime"] = "DELETED", milliseconds(now)
		return reply{status: 200, body: deleted, then: func() { o.all("group")[id] = deleted }}
	}
}
