package apitest

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"pgregory.net/rapid"
)

// The operations of connections share their model: o.all("connection") has them as the API returns
// them, by partner.

// ofConnection is a request for a connection.
func ofConnection(method, partner, body string, conditions ...string) request {
	r := ofEntitlement(method, partner, body, conditions...)
	r.path, r.touches = "/connection/"+partner, "connection "+partner
	return r
}

const roleConnection = `{"roleArn": "` + someRole + `"}`

var googleConnection = toText(doc{"workloadIdentity": externalAccount()})

var unreadableConnections = []string{``, `[]`, `{}`, `{"roleArn":"x"}`, `{"tenantID":"x"}`, `{"roleARN":"` + someRole + `"}`, `{"lockMinutes":-1}`, `{"endpoint":"http://127.0.0.1"}`}

var listingConnections = request{method: "GET", path: "/connection"}

var _ = declare(operation{
	id: "listConnections", scopes: "config",
	example: listingConnections, draw: drawConnectionList, odds: 1,
	stored: &stored{
		of:    "connection",
		model: func(o *organization) any { return storedConnections(o) },
		service: func(read func(path, query string) doc) any {
			list, _ := read("/connection", "")["list"].([]any)
			for _, c := range list {
				c.(doc)["id"] = c.(doc)["partner"]
			}
			return list
		},
	},
	shows:   []exchange{{ofConnection("PUT", "AWS", roleConnection), http.StatusOK}, {listingConnections, http.StatusOK}},
	effects: []effect{{given: []request{ofConnection("PUT", "AWS", roleConnection)}, again: http.StatusOK, reads: true}},
})

var _ = declare(operation{
	id: "getConnection", scopes: "config",
	given: []request{ofConnection("PUT", "AWS", roleConnection)}, example: ofConnection("GET", "AWS", ""),
	draw: drawConnectionGet, odds: 1,
	shows: []exchange{
		{ofConnection("GET", "AWS", ""), http.StatusOK},
		{ofConnection("GET", "AZURE", ""), http.StatusNotFound},
	},
	effects: []effect{{again: http.StatusOK, reads: true}},
})

var _ = declare(operation{
	id: "putConnection", scopes: "config",
	example: ofConnection("PUT", "AWS", roleConnection),
	draw:    drawConnectionPut, odds: 2,
	shows: []exchange{
		{ofConnection("PUT", "AWS", roleConnection), http.StatusOK},
		{ofConnection("PUT", "AWS", roleConnection), http.StatusOK}, // it changes nothing
		{ofConnection("PUT", "AWS", roleConnection, "If-Match", `"never"`), http.StatusPreconditionFailed},
		{ofConnection("PUT", "AWS", `{"tenantID": "x"}`), http.StatusBadRequest},
	},
	effects: []effect{
		{again: http.StatusOK},
		{name: "that creates", request: ofConnection("PUT", "AWS", roleConnection, "If-None-Match", "*"), again: http.StatusPreconditionFailed},
	},
	blind: true,
})

var _ = declare(operation{
	id: "deleteConnection", scopes: "config",
	given: []request{ofConnection("PUT", "GCP", googleConnection)}, example: ofConnection("DELETE", "GCP", ""),
	draw: drawConnectionDelete, odds: 1,
	shows: []exchange{
		{ofConnection("DELETE", "GCP", "", "If-Match", `"never"`), http.StatusPreconditionFailed},
		{ofConnection("DELETE", "GCP", ""), http.StatusOK},
		{ofConnection("DELETE", "GCP", ""), http.StatusNotFound},
	},
	effects: []effect{{again: http.StatusNotFound}},
})

// externalIDOf is the externalID of an organization's connection to AWS.
func externalIDOf(org string) string {
	sum := sha256.Sum256([]byte("externalID of " + org))
	return fmt.Sprintf("marketmeter-%x", sum[:16])
}

// storedConnections are the connections by partner, each with its partner as id.
func storedConnections(o *organization) []any {
	list := []any{}
	for _, partner := range slices.Sorted(maps.Keys(o.all("connection"))) {
		c := maps.Clone(o.all("connection")[partner])
		c["id"] = partner
		list = append(list, c)
	}
	return list
}

func drawConnectionList(t *rapid.T, _ *model, _ *organization) (request, rule) {
	if roll(t, "wrong", 8) == 7 {
		wrong := listingConnections
		wrong.query = "partner=AWS"
		return wrong, func(*organization, *modelKey) reply { return reply{status: 400} }
	}
	return listingConnections, func(o *organization, _ *modelKey) reply {
		list := []any{}
		for _, partner := range slices.Sorted(maps.Keys(o.all("connection"))) {
			list = append(list, o.all("connection")[partner])
		}
		return reply{status: 200, body: list}
	}
}

func drawConnectionGet(t *rapid.T, _ *model, o *organization) (request, rule) {
	partner := pick(t, "partner", "AWS", "GCP", "AZURE")
	r := ofConnection("GET", partner, "")
	o.drawConditions(t, r.touches, r.headers)
	return r, ruleOfObjectGet(r, "connection", partner)
}

func drawConnectionPut(t *rapid.T, _ *model, o *organization) (request, rule) {
	partner := pick(t, "partner", "AWS", "GCP")
	r := ofConnection("PUT", partner, "")
	r.headers["Content-Type"] = "application/json"
	r.query = pick(t, "verify", "", "", "verify=false", "verify=")
	o.drawConditions(t, r.touches, r.headers)
	if roll(t, "unreadable", 8) == 7 {
		r.body = pick(t, "body", unreadableConnections...)
		return r, func(*organization, *modelKey) reply { return reply{status: 400} }
	}
	body := doc{}
	if late := pick(t, "lateUsage", "", "FAIL", "CARRY"); late != "" {
		body["lateUsage"] = late
	}
	if minutes := pick(t, "lockMinutes", "", "0", "50"); minutes != "" {
		body["lockMinutes"] = json.Number(minutes)
	}
	if partner == "AWS" {
		body["roleArn"] = pick(t, "role", someRole, someRole+"2")
	} else {
		body["workloadIdentity"] = externalAccount()
	}
	r.body = toText(body)
	return r, func(o *organization, _ *modelKey) reply {
		_, exists := o.all("connection")[partner]
		if !o.meetsExisting(r.touches, r, exists) {
			return reply{status: 412}
		}
		after := doc{"partner": partner, "lateUsage": "FAIL", "lockMinutes": exact("60")}
		if partner == "AWS" {
			after["externalID"] = externalIDOf(o.name)
		} else {
			after["lockMinutes"] = exact("10")
		}
		sent := values(r.body).(doc)
		maps.Copy(after, sent)
		tags := o.tags(r.touches)
		answer := reply{status: 200, body: after, tags: tags, version: tags.version}
		if !exists || !equal(sent, o.all("connection as sent")[partner]) { // a default that is sent is stored
			answer.version++
			answer.then = func() {
				o.all("connection")[partner], o.all("connection as sent")[partner], tags.version = after, sent, answer.version
			}
		}
		return answer
	}
}

func drawConnectionDelete(t *rapid.T, _ *model, o *organization) (request, rule) {
	partner := pick(t, "partner", "AWS", "GCP", "AZURE")
	r := ofConnection("DELETE", partner, "")
	o.drawConditions(t, r.touches, r.headers)
	return r, func(o *organization, _ *modelKey) reply {
		stored, exists := o.all("connection")[partner]
		switch {
		case !exists:
			return reply{status: 404, says: partner}
		case !o.meetsExisting(r.touches, r, true):
			return reply{status: 412}
		}
		return reply{status: 200, body: stored, then: func() {
			delete(o.all("connection"), partner)
			o.tags(r.touches).version++
		}}
	}
}
