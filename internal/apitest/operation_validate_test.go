package apitest

import (
	"net/http"
	"strconv"
	"time"

	"pgregory.net/rapid"
)

var _ = declare(operation{
	id: "batchValidateUsageRecordGroups", scopes: "read write",
	given:   []request{sold("validate-e")},
	example: validating(`[{"entitlementID": "validate-e", "records": {"cpu": 1}}]`),
	draw:    drawValidate, odds: 6,
	shows: []exchange{
		{validating(`[{"entitlementID": "validate-e", "records": {"cpu": 1}}]`), http.StatusOK},
		{validating(`[{"entitlementID": "absent", "billableRecords": [{"key": "m", "quantity": 1}]}]`), http.StatusInternalServerError},
		{explaining(`[{"entitlementID": "validate-e", "records": {"ram": 1}}]`), http.StatusOK},
	},
	effects: []effect{
		{again: http.StatusOK, reads: true},
		{name: "explained", request: explaining(`[{"entitlementID": "validate-e", "billableRecords": [{"key": "m", "quantity": 1}]}]`), again: http.StatusOK, reads: true},
	},
})

func validating(body string) request {
	return request{method: "POST", path: "/batchValidateUsageRecordGroups", body: body, headers: map[string]string{"Content-Type": "application/json"}}
}

func validatePath(org string) string { return orgPath(org) + validating("").path }

func explaining(body string) request {
	r := validating(body)
	r.query = "explain=true"
	return r
}

func drawValidate(t *rapid.T, w *model, o *organization) (request, rule) {
	at := func(after time.Duration) string { return milliseconds(w.now.Add(after)) }
	c := pick(t, "body", []struct {
		status     int
		says, body string
	}{
		{200, "", `[{"records":{"cpu":1}}]`},
		{200, "", `[{"records":{},"billableRecords":[{"key":"m","quantity":0.5}]},{"records":{"a":0,"b":1e2}}]`},
		{200, "", `[{"organizationID":` + strconv.Quote(o.name) + `,"records":{"cpu":1},"timestamp":"` + at(5*time.Minute-time.Second) + `"}]`},
		{200, "", `[{"records":{"cpu":-1},"metaInfo":{"SkipValidation":true}}]`},
		{400, "", `[]`},
		{400, "", `{"records":{"cpu":1}}`},
		{400, "", `[{"records":{"cpu":"1"}}]`},
		{400, "", `[{"record":{"cpu":1}}]`},
		{400, "", `[{"records":{"cpu":-1}},{"timestamp":"yesterday"}]`},
		{500, "index 1", `[{"records":{"cpu":1}},{"records":{"cpu":-1}}]`},
		{500, "index 0", `[{"records":{"cpu":0}}]`},
		{500, "organizationID", `[{"organizationID":` + strconv.Quote(w.other(o).name) + `,"records":{"cpu":1}}]`},
		{500, "timestamp", `[{"records":{"cpu":1},"timestamp":"` + at(5*time.Minute+time.Second) + `"}]`},
		{500, "2 of 2", `[{},{"records":{"":1}}]`},
		{500, "the group at index 0 has it too", `[{"id":"g1","records":{"cpu":1}},{"id":"g1","records":{"cpu":2}}]`},
		{500, "no such entitlement", `[{"entitlementID":"nobody's","records":{"cpu":1}}]`},
	}...)
	return validating(c.body), func(*organization, *modelKey) reply {
		if c.status == http.StatusOK {
			return reply{status: c.status, body: ""}
		}
		return reply{status: c.status, says: c.says}
	}
}
