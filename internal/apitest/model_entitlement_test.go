package apitest

import (
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"time"

	"pgregory.net/rapid"
)

// The model of entitlements: o.all("entitlement") has them as the API returns them, by id.
// o.all("identity") has the owner of each identity, by its key, and o.all("owned") the identity
// that an entitlement owns, by its id.

// drawnCatalog are the ids of entitlements. Of the first two, groups are drawn too.
var drawnCatalog = append(slices.Clone(drawnEntitlements), "e#1", "ü 2")

// ofEntitlement is a request for an entitlement.
func ofEntitlement(method, id, body string, conditions ...string) request {
	r := request{method: method, path: "/entitlement/" + url.PathEscape(id), body: body, headers: map[string]string{}, touches: "entitlement " + id}
	if body != "" {
		r.headers["Content-Type"] = "application/json"
	}
	for i := 0; i+1 < len(conditions); i += 2 {
		r.headers[conditions[i]] = conditions[i+1]
	}
	return r
}

const oneEntitlement = `{"partner": "AWS", "buyerID": "b", "productID": "p"}`

// identified is oneEntitlement with marketplace identifiers.
func identified(licenseArn string) string {
	return `{"partner": "AWS", "buyerID": "b", "marketplace": {"customerAWSAccountID": "123456789012", "licenseArn": "` + licenseArn + `"}}`
}

var unreadableEntitlements = []string{
	``, `[]`, `{}`, `{"partner":"AWS"}`, `{"partner":"AWS","buyerID":"b","buyerId":"b"}`, `{"partner":"AWS","buyerID":"b","id":"another"}`,
	`{"partner":"AWS","buyerID":"b","status":"DELETED"}`, `{"partner":"GCP","buyerID":"b","marketplace":{"planID":"p"}}`,
	`{"partner":"AWS","buyerID":"b","info":{"dimensions":[{"key":"k"},{"key":"k"}]}}`,
}

// drawEntitlement draws the body of a PUT, without marketplace identifiers.
func drawEntitlement(t *rapid.T) doc {
	e := doc{"partner": pick(t, "partner", partners...), "buyerID": pick(t, "buyer", "b1", "b2")}
	optional := func(name string, values ...any) {
		if value := pick(t, name, values...); value != "" {
			e[name] = value
		}
	}
	optional("productID", "", "p1", "p2")
	optional("externalID", "", "", "x")
	optional("name", "", "one", "two")
	optional("status", "", "ACTIVE", "ACTIVE", "CANCELLED", "CANCELLED", "SUSPENDED", "PENDING_CANCEL")
	optional("cancelTime", "", "", "", "2024-07-29T12:00:00.000Z")
	optional("info", "", doc{"currency": "USD"}, doc{"dimensions": []any{}}, doc{"dimensions": []any{doc{"key": "cpu", "rate": json.Number("0.5")}, doc{"key": "gb"}}})
	return e
}

// ruleOfEntitlementPut is the rule for a PUT of a body that can be read.
func ruleOfEntitlementPut(now time.Time, r request, id string, body doc) rule {
	return func(o *organization, _ *modelKey) reply {
		before, exists := o.all("entitlement")[id]
		if !o.meetsExisting("entitlement "+id, r, exists) {
			return reply{status: 412}
		}
		after := exactNumbers(values(toText(body))).(doc)
		after["id"], after["organizationID"] = id, o.name
		if after["status"] == nil {
			after["status"] = "ACTIVE"
		}
		after["creationTime"], after["lastUpdateTime"] = milliseconds(now), milliseconds(now)
		if exists {
			after["creationTime"], after["lastUpdateTime"] = before["creationTime"], before["lastUpdateTime"]
		}
		if after["status"] == "CANCELLED" && after["cancelTime"] == nil {
			after["cancelTime"] = milliseconds(now)
			if exists && before["status"] == "CANCELLED" && before["cancelTime"] != nil {
				after["cancelTime"] = before["cancelTime"]
			}
		}
		tags := o.tags("entitlement " + id)
		answer := reply{status: 200, body: after, tags: tags, version: tags.version}
		if exists && equal(after, before) {
			return answer
		}
		after["lastUpdateTime"] = milliseconds(now)
		wanted, owned := identityIn(after), o.all("owned")[id]["key"]
		if wanted != "" && o.all("identity")[wanted] != nil && o.all("identity")[wanted]["owner"] != id {
			return reply{status: 409, says: o.all("identity")[wanted]["owner"].(string)}
		}
		answer.version++
		answer.then = func() {
			o.all("entitlement")[id], tags.version = after, answer.version
			if owned != nil && owned != wanted && !o.wasSent(id) {
				delete(o.all("identity"), owned.(string))
			}
			delete(o.all("owned"), id)
			if wanted != "" {
				o.all("identity")[wanted], o.all("owned")[id] = doc{"owner": id}, doc{"key": wanted}
			}
		}
		return answer
	}
}

// ruleOfEntitlementDelete is the rule for a DELETE.
func ruleOfEntitlementDelete(now time.Time, r request, id string) rule {
	return func(o *organization, _ *modelKey) reply {
		before, exists := o.all("entitlement")[id]
		if !exists {
			return reply{status: 404, says: id}
		}
		tags := o.tags("entitlement " + id)
		switch {
		case !o.meetsExisting("entitlement "+id, r, true):
			return reply{status: 412}
		case before["status"] == "DELETED":
			return reply{status: 200, body: before, tags: tags, version: tags.version}
		case o.hasGroup(id, "CREATED", "REPORT_PENDING"):
			return reply{status: 409}
		}
		after := maps.Clone(before)
		after["status"], after["lastUpdateTime"] = "DELETED", milliseconds(now)
		return reply{status: 200, body: after, tags: tags, version: tags.version + 1, then: func() {
			o.all("entitlement")[id] = after
			tags.version++
			if owned := o.all("owned")[id]["key"]; owned != nil && !o.wasSent(id) {
				delete(o.all("identity"), owned.(string))
				delete(o.all("owned"), id)
			}
		}}
	}
}

// meetsExisting reports whether the conditions of a change of an object hold. Unlike a config, one
// that was never stored does not exist.
func (o *organization) meetsExisting(thing string, r request, exists bool) bool {
	if !exists {
		return r.headers["If-Match"] == ""
	}
	match, noneMatch := o.meets(thing, r.headers)
	return match && noneMatch
}

func (o *organization) hasGroup(entitlement string, statuses ...string) bool {
	for _, g := range o.all("group") {
		if g["entitlementID"] == entitlement && slices.Contains(statuses, g["status"].(string)) {
			return true
		}
	}
	return false
}

// wasSent reports whether usage of the entitlement was, or may have been, sent.
func (o *organization) wasSent(entitlement string) bool {
	return o.hasGroup(entitlement, "CREATED", "REPORT_PENDING", "REPORTED", "REPORT_FAILED")
}

// identityIn is the identity of an entitlement with the licences of AWS, the only one that is
// drawn.
func identityIn(e doc) string {
	ids, _ := e["marketplace"].(doc)
	licenseArn, _ := ids["licenseArn"].(string)
	return licenseArn
}

func toText(body doc) string {
	text, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	return string(text)
}
