package apitest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"pgregory.net/rapid"

	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

func entitlementsPath(org string) string { return "/org/" + url.PathEscape(org) + "/entitlement" }

func entitlementPath(org, id string) string { return entitlementsPath(org) + "/" + url.PathEscape(id) }

const (
	licence      = "arn:aws:license-manager::294406891311:license:l-0123456789abcdef0123456789abcdef"
	otherLicence = "arn:aws:license-manager::294406891311:license:l-fedcba9876543210fedcba9876543210"
	someGUID     = "2f8a4b0e-6c1d-4e57-9a3b-0d1e2f3a4b5c"
)

// entitlement is the body of a PUT; members replace its members or add to them.
func entitlement(members ...doc) doc {
	e := doc{"partner": "AWS", "buyerID": "buyer-1"}
	for _, m := range members {
		maps.Copy(e, m)
	}
	return e
}

func (a *api) putEntitlement(t testing.TB, org, id string, body doc, headers ...map[string]string) answer {
	t.Helper()
	return a.sendObject(t, "PUT", entitlementPath(org, id), toJSON(t, body), headers...)
}

// sendObject sends a body, or none, with headers.
func (a *api) sendObject(t testing.TB, method, path, body string, headers ...map[string]string) answer {
	t.Helper()
	all := map[string]string{}
	if body != "" {
		all["Content-Type"] = "application/json"
	}
	for _, h := range headers {
		maps.Copy(all, h)
	}
	return a.do(t, request{method: method, path: path, body: body, headers: all})
}

// ids returns the ids of a list of entitlements.
func (a *api) entitlements(t testing.TB, org, query string) []string {
	t.Helper()
	got := a.get(t, entitlementsPath(org), query)
	want(t, got, http.StatusOK)
	var list []struct{ ID string }
	if err := json.Unmarshal([]byte(got.body), &list); err != nil || !strings.HasPrefix(got.body, "[") {
		t.Fatalf("%v: %.200s", err, got.body)
	}
	ids := []string{}
	for _, e := range list {
		ids = append(ids, e.ID)
	}
	return ids
}

func TestEntitlement_PutIsReadBack(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		body := `{"partner": "AWS", "buyerID": "buyer 1", "name": "Gold \u2603", "productID": "p", "externalID": "x-1", "status": "PENDING_CANCEL",
			"startTime": "2024-07-01T02:00:00+02:00", "endTime": "2025-07-01T00:00:00.1239Z", "creationTime": "2001-01-01T00:00:00Z", "lastUpdateTime": null,
			"id": "ent-1", "organizationID": "acme",
			"info": {"currency": "USD", "commitAmount": 1e3, "dimensions": [
				{"key": "cpu", "name": "CPU", "description": "d", "rate": 0.050, "listPrice": 9007199254740.993, "valueType": "FLOAT"}, {"key": "gb", "rate": -1}]},
			"marketplace": {"customerAWSAccountID": "123456789012", "licenseArn": "` + licence + `", "region": "eu-west-1"}}`
		expected := `{"partner": "AWS", "buyerID": "buyer 1", "name": "Gold \u2603", "productID": "p", "externalID": "x-1", "status": "PENDING_CANCEL",
			"startTime": "2024-07-01T00:00:00.000Z", "endTime": "2025-07-01T00:00:00.123Z", "creationTime": "2024-07-29T15:51:28.071Z",
			"lastUpdateTime": "2024-07-29T15:51:28.071Z", "id": "ent-1", "organizationID": "acme",
			"info": {"currency": "USD", "commitAmount": 1000, "dimensions": [
				{"key": "cpu", "name": "CPU", "description": "d", "rate": 0.05, "listPrice": 9007199254740.993, "valueType": "FLOAT"}, {"key": "gb", "rate": -1}]},
			"marketplace": {"customerAWSAccountID": "123456789012", "licenseArn": "` + licence + `", "region": "eu-west-1"}}`
		put := a.sendObject(t, "PUT", entitlementPath("acme", "ent-1"), body)
		want(t, put, http.StatusOK)
		wantSame(t, parse(t, expected), parse(t, put.body))
		got := a.get(t, entitlementPath("acme", "ent-1"), "")
		want(t, got, http.StatusOK)
		if got.body != put.body || strongETag(t, got) != strongETag(t, put) {
			t.Errorf("GET returns %s %s, PUT returned %s %s", strongETag(t, got), got.body, strongETag(t, put), put.body)
		}
		if list := a.get(t, entitlementsPath("acme"), ""); list.body != "["+put.body+"]" {
			t.Errorf("the list is %s", list.body)
		}
		wantError(t, a.get(t, entitlementPath("acme", "ent-2"), ""), http.StatusNotFound, `"ent-2"`)
		wantError(t, a.get(t, entitlementPath("other", "ent-1"), ""), http.StatusNotFound, `"ent-1"`)
	})
}

// What is sent decides what is stored: of the entitlement before, only creationTime stays.
func TestEntitlement_PutReplacesAndKeepsCreationTime(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		first := a.putEntitlement(t, "acme", "e", entitlement(doc{"name": "one", "productID": "p"}))
		want(t, first, http.StatusOK)
		a.clock.set(now.Add(time.Hour))
		same := a.putEntitlement(t, "acme", "e", entitlement(doc{"name": "one", "productID": "p", "status": "ACTIVE", "externalID": nil}))
		want(t, same, http.StatusOK)
		if same.body != first.body || strongETag(t, same) != strongETag(t, first) || writes(same) != 0 {
			t.Errorf("the same content: %s after %s, with %d writes", same.body, first.body, writes(same))
		}
		second := a.putEntitlement(t, "acme", "e", entitlement(doc{"externalID": "x"}))
		want(t, second, http.StatusOK)
		wantSame(t, parse(t, `{"id": "e", "organizationID": "acme", "partner": "AWS", "buyerID": "buyer-1", "externalID": "x", "status": "ACTIVE",
			"creationTime": "2024-07-29T15:51:28.071Z", "lastUpdateTime": "2024-07-29T16:51:28.071Z"}`), parse(t, second.body))
		if strongETag(t, second) == strongETag(t, first) {
			t.Error("other content has the same ETag")
		}
		third := a.putEntitlement(t, "acme", "e", entitlement(doc{"name": "one", "productID": "p"}))
		if strongETag(t, third) == strongETag(t, first) {
			t.Error("an entitlement that was changed in between has its old ETag")
		}
	})
}

// writes counts the requests of the operation that write.
func writes(got answer) (n int) {
	for _, r := range got.operation {
		if r.Action != "GetItem" && r.Action != "Query" {
			n++
		}
	}
	return n
}

func TestEntitlement_UnreadableBodyIs400(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		long := strings.Repeat("x", 257)
		for body, texts := range map[string][]string{
			``:                                      {"no JSON"},
			`[]`:                                    {"an array", "an entitlement, an object"},
			`null`:                                  {"null", "an object"},
			`{}`:                                    {"partner is missing", "partner and buyerID"},
			`{"partner": "AWS"}`:                    {"buyerID is missing"},
			`{"partner": "AWS", "buyerID": ""}`:     {"buyerID is missing"},
			`{"partner": "", "buyerID": "b"}`:       {"partner", "AWS"},
			`{"partner": "ORACLE", "buyerID": "b"}`: {"partner", `"ORACLE"`, "AZURE"},
			`{"partner": "AWS", "buyerID": "b", "buyerID": "c"}`:                                                        {"buyerID is there twice"},
			`{"partner": "AWS", "buyerId": "b"}`:                                                                        {"buyerId is unknown", "did you mean buyerID"},
			`{"partner": "AWS", "buyerID": 7}`:                                                                          {"buyerID is the number 7", "a string"},
			`{"partner": "AWS", "buyerID": "a\u0001"}`:                                                                  {"buyerID", "control characters"},
			`{"partner": "AWS", "buyerID": "` + long + `"}`:                                                             {"buyerID", "256 bytes"},
			`{"partner": "AWS", "buyerID": "b", "productID": "` + long + `"}`:                                           {"productID", "256 bytes"},
			`{"partner": "AWS", "buyerID": "b", "externalID": "` + long + `"}`:                                          {"externalID", "256 bytes"},
			`{"partner": "AWS", "buyerID": "b", "id": "f"}`:                                                             {"id is", `"f"`, `"e"`},
			`{"partner": "AWS", "buyerID": "b", "organizationID": "Acme"}`:                                              {"organizationID", `"acme"`},
			`{"partner": "AWS", "buyerID": "b", "status": "active"}`:                                                    {"status", `"active"`, "ACTIVE"},
			`{"partner": "AWS", "buyerID": "b", "status": "DELETED"}`:                                                   {"status", "DELETE"},
			`{"partner": "AWS", "buyerID": "b", "startTime": "2024-07-01"}`:                                             {"startTime", "RFC 3339"},
			`{"partner": "AWS", "buyerID": "b", "creationTime": 5}`:                                                     {"creationTime", "a string"},
			`{"partner": "AWS", "buyerID": "b", "cancelTime": "2024-13-01T00:00:00Z"}`:                                  {"cancelTime", "RFC 3339"},
			`{"partner": "AWS", "buyerID": "b", "info": []}`:                                                            {"info is an array", "an object"},
			`{"partner": "AWS", "buyerID": "b", "info": {"currncy": "USD"}}`:                                            {"info.currncy is unknown", "currency"},
			`{"partner": "AWS", "buyerID": "b", "info": {"commitAmount": "5"}}`:                                         {"info.commitAmount", "a number"},
			`{"partner": "AWS", "buyerID": "b", "info": {"commitAmount": -5}}`:                                          {"info.commitAmount is -5"},
			`{"partner": "AWS", "buyerID": "b", "info": {"commitAmount": 1e1000000000}}`:                                {"info.commitAmount"},
			`{"partner": "AWS", "buyerID": "b", "info": {"dimensions": {}}}`:                                            {"info.dimensions", "an array"},
			`{"partner": "AWS", "buyerID": "b", "info": {"dimensions": [null]}}`:                                        {"info.dimensions[0] is null", "an object"},
			`{"partner": "AWS", "buyerID": "b", "info": {"dimensions": [{}]}}`:                                          {"info.dimensions[0].key is missing"},
			`{"partner": "AWS", "buyerID": "b", "info": {"dimensions": [{"key": "a"}, {"key": "b"}, {"key": "a"}]}}`:    {"info.dimensions[2].key", `"a" again`, "info.dimensions[0]"},
			`{"partner": "AWS", "buyerID": "b", "info": {"dimensions": [{"key": "` + strings.Repeat("k", 256) + `"}]}}`: {"info.dimensions[0].key", "255 characters"},
			`{"partner": "AWS", "buyerID": "b", "info": {"dimensions": [{"key": "a", "rate": 12345678901234567890}]}}`:  {"info.dimensions[0].rate", "19 digits"},
			`{"partner": "AWS", "buyerID": "b", "info": {"dimensions": [{"key": "a", "price": 1}]}}`:                    {"info.dimensions[0].price is unknown"},
			`{"partner": "AWS", "buyerID": "b"} x`:                                                                      {"more follows"},
			`{"partner": "AWS", "buyerID": "\ud800"}`:                                                                   {"not JSON"},
			`{"partner": "AWS", "buyerID": "b", "name": ` + strings.Repeat("[", 10_000) + `}`:                           {"name", "a string"},
			`{"partner": "AWS", "buyerID": "b", "name": "` + strings.Repeat("n", 33_000) + `"}`:                         {"32768", "33"},
		} {
			got := a.sendObject(t, "PUT", entitlementPath("acme", "e"), body)
			if wantError(t, got, http.StatusBadRequest, texts...); t.Failed() {
				t.Fatalf("body %.200s", body)
			}
		}
		large := a.sendObject(t, "PUT", entitlementPath("acme", "e"), `{"name": "`+strings.Repeat("n", 1<<20)+`"}`)
		wantError(t, large, http.StatusRequestEntityTooLarge, "1048576")
		wantError(t, a.get(t, entitlementPath("acme", "e"), ""), http.StatusNotFound)
	})
}

func TestEntitlement_IdentifiersAreCheckedByPartner(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		for i, c := range []struct {
			partner     string
			marketplace doc
			refused     string // the member named by the 400; empty is 200
		}{
			{"AWS", doc{"customerAWSAccountID": "123456789012", "licenseArn": licence}, ""},
			{"AWS", doc{"customerAWSAccountID": "123456789013"}, ""}, // incomplete
			{"AWS", doc{"customerIdentifier": "c", "productCode": "p", "region": "us-west-2"}, ""},
			{"AWS", doc{}, ""},
			{"AWS", nil, ""},
			{"AWS", doc{"licenseArn": "arn:aws-us-gov:license-manager:us-gov-west-1:123456789012:license:l-1"}, ""},
			{"AWS", doc{"customerAWSAccountID": "12345678901"}, "customerAWSAccountID"},
			{"AWS", doc{"customerAWSAccountID": "12345678901x"}, "customerAWSAccountID"},
			{"AWS", doc{"licenseArn": "arn:aws:iam::123456789012:role/x"}, "licenseArn"},
			{"AWS", doc{"licenseArn": licence + "\n"}, "licenseArn"},
			{"AWS", doc{"region": "us-east-1/.."}, "region"},
			{"AWS", doc{"productCode": strings.Repeat("p", 256)}, "productCode"},
			{"AWS", doc{"customerAWSAccountID": "123456789012", "licenseArn": licence, "productCode": "p"}, "productCode"},
			{"AWS", doc{"customerIdentifier": "c", "licenseArn": licence}, "customerIdentifier"},
			{"AWS", doc{"planID": "p"}, "planID"},
			{"AWS", doc{"usageReportingID": "u"}, "usageReportingID"},
			{"AZURE", doc{"resourceID": strings.ToUpper(someGUID), "planID": "gold"}, ""},
			{"AZURE", doc{"resourceURI": "/subscriptions/x/resourceGroups/y", "planID": "gold"}, ""},
			{"AZURE", doc{"planID": "gold"}, ""},
			{"AZURE", doc{"resourceID": someGUID[1:]}, "resourceID"},
			{"AZURE", doc{"resourceURI": "subscriptions/x"}, "resourceURI"},
			{"AZURE", doc{"resourceURI": "/subscriptions/x", "resourceID": someGUID}, "resourceURI"},
			{"AZURE", doc{"planID": "a\u0007"}, "planID"},
			{"AZURE", doc{"region": "us-east-1"}, "region"},
			{"GCP", doc{"usageReportingID": "project_number:12345", "serviceName": "example-messaging.gcpmarketplace.example.com"}, ""},
			{"GCP", doc{"serviceName": "a b"}, "serviceName"},
			{"GCP", doc{"customerAWSAccountID": "123456789012"}, "customerAWSAccountID"},
		} {
			body := entitlement(doc{"partner": c.partner, "marketplace": c.marketplace})
			got := a.putEntitlement(t, "acme", fmt.Sprint("e", i), body)
			if c.refused == "" {
				want(t, got, http.StatusOK)
			} else {
				wantError(t, got, http.StatusBadRequest, "marketplace."+c.refused)
			}
			if t.Failed() {
				t.Fatalf("%s %v", c.partner, c.marketplace)
			}
		}
	})
}

func TestEntitlement_IDsInPaths(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		for _, id := range []string{"a#b", "ü ", "a+b", strings.Repeat("x", 256), "ENTITLEMENT#x"} {
			want(t, a.putEntitlement(t, "acme", id, entitlement()), http.StatusOK)
			got := a.get(t, entitlementPath("acme", id), "")
			want(t, got, http.StatusOK)
			if e := parse(t, got.body).(doc); e["id"] != id {
				t.Errorf("%q is read back as %q", id, e["id"])
			}
		}
		long := strings.Repeat("x", 257)
		wantError(t, a.putEntitlement(t, "acme", long, entitlement()), http.StatusBadRequest, "256 bytes")
		wantError(t, a.get(t, entitlementPath("acme", long), ""), http.StatusNotFound)
		wantError(t, a.sendObject(t, "DELETE", entitlementPath("acme", long), ""), http.StatusNotFound)
	})
}

func TestEntitlement_Conditions(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		path := entitlementPath("acme", "e")
		match := func(tag string) map[string]string { return map[string]string{"If-Match": tag} }
		noneMatch := func(tag string) map[string]string { return map[string]string{"If-None-Match": tag} }
		body, other := toJSON(t, entitlement()), toJSON(t, entitlement(doc{"name": "other"}))

		for _, h := range []map[string]string{match("*"), match(`"x"`)} {
			wantError(t, a.sendObject(t, "PUT", path, body, h), http.StatusPreconditionFailed, "does not exist", "nothing was written")
			wantError(t, a.sendObject(t, "GET", path, "", h), http.StatusNotFound)
			wantError(t, a.sendObject(t, "DELETE", path, "", h), http.StatusNotFound)
		}
		created := a.sendObject(t, "PUT", path, body, noneMatch("*"))
		want(t, created, http.StatusOK)
		old := strongETag(t, created)
		current := strongETag(t, a.sendObject(t, "PUT", path, other, match(old)))
		for _, c := range []struct {
			headers     map[string]string
			get, change int
		}{
			{match(old), 412, 412},
			{match("W/" + current), 412, 412},
			{match("*"), 200, 200},
			{match(`"x", ` + current), 200, 200},
			{noneMatch("*"), 304, 412},
			{noneMatch("W/" + current), 304, 412},
			{noneMatch(old), 200, 200},
			{match("x"), 400, 400},
			{noneMatch("x"), 400, 400},
		} {
			want(t, a.sendObject(t, "GET", path, "", c.headers), c.get)
			want(t, a.sendObject(t, "PUT", path, other, c.headers), c.change)
			if c.change != http.StatusOK {
				want(t, a.sendObject(t, "DELETE", path, "", c.headers), c.change)
			}
		}
		if got := a.get(t, path, ""); strongETag(t, got) != current {
			t.Errorf("what was refused was written: %s", got.body)
		}
		want(t, a.sendObject(t, "DELETE", path, "", match(current)), http.StatusOK)
		// A DELETED entitlement exists: GET shows it.
		wantError(t, a.sendObject(t, "PUT", path, body, noneMatch("*")), http.StatusPreconditionFailed)
	})
}

// Of many PUTs that each require to be the first, one succeeds; of many without conditions, all.
func TestEntitlement_ConcurrentPuts(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		for _, c := range []struct {
			headers map[string]string
			want    map[int]int
		}{
			{map[string]string{"If-None-Match": "*"}, map[int]int{200: 1, 412: 7}},
			{nil, map[int]int{200: 8}},
		} {
			statuses := make(chan int, 8)
			for i := range cap(statuses) {
				body := toJSON(t, entitlement(doc{"name": fmt.Sprint(i)}))
				go func() {
					headers := map[string]string{"Content-Type": "application/json"}
					maps.Copy(headers, c.headers)
					got, _, err := a.exchange(t.Context(), request{method: "PUT", path: entitlementPath("acme", "e"), body: body, headers: headers})
					if err != nil {
						t.Error(err)
					}
					statuses <- got.status
				}()
			}
			counts := map[int]int{}
			for range cap(statuses) {
				counts[<-statuses]++
			}
			if !maps.Equal(counts, c.want) {
				t.Errorf("statuses: %v, want %v", counts, c.want)
			}
		}
	})
}

func TestEntitlement_CancelTimeIsSetWhenCancelled(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		cancelled := func(members ...doc) any {
			t.Helper()
			got := a.putEntitlement(t, "acme", "e", entitlement(members...))
			want(t, got, http.StatusOK)
			return parse(t, got.body).(doc)["cancelTime"]
		}
		status := func(s string) doc { return doc{"status": s} }
		if got := cancelled(status("ACTIVE")); got != nil {
			t.Errorf("cancelTime of an active entitlement: %v", got)
		}
		if got := cancelled(status("CANCELLED")); got != "2024-07-29T15:51:28.071Z" {
			t.Errorf("cancelTime: %v", got)
		}
		a.clock.set(now.Add(time.Hour))
		if got := cancelled(status("CANCELLED"), doc{"name": "renamed"}); got != "2024-07-29T15:51:28.071Z" {
			t.Errorf("a change of a cancelled entitlement moved cancelTime to %v", got)
		}
		if got := cancelled(status("CANCELLED"), doc{"cancelTime": "2024-07-29T12:00:00Z"}); got != "2024-07-29T12:00:00.000Z" {
			t.Errorf("cancelTime that was given: %v", got)
		}
		if got := cancelled(status("SUSPENDED")); got != nil {
			t.Errorf("cancelTime of an entitlement that is not cancelled any more: %v", got)
		}
		if got := cancelled(status("CANCELLED")); got != "2024-07-29T16:51:28.071Z" {
			t.Errorf("cancelTime of the second cancellation: %v", got)
		}
	})
}

func TestEntitlement_DeleteIsSoft(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		path := entitlementPath("acme", "e")
		created := a.putEntitlement(t, "acme", "e", entitlement(doc{"name": "n"}))
		a.clock.set(now.Add(time.Hour))
		deleted := a.sendObject(t, "DELETE", path, "")
		want(t, deleted, http.StatusOK)
		expected := parse(t, created.body).(doc)
		expected["status"], expected["lastUpdateTime"] = "DELETED", "2024-07-29T16:51:28.071Z"
		wantSame(t, any(expected), parse(t, deleted.body))
		if got := a.get(t, path, ""); got.body != deleted.body {
			t.Errorf("GET of the deleted one: %s", got.body)
		}
		if ids := a.entitlements(t, "acme", ""); len(ids) != 0 {
			t.Errorf("the list has %v", ids)
		}
		a.clock.set(now.Add(2 * time.Hour))
		again := a.sendObject(t, "DELETE", path, "")
		want(t, again, http.StatusOK)
		if again.body != deleted.body || writes(again) != 0 {
			t.Errorf("a second DELETE: %s", again.body)
		}
		revived := a.putEntitlement(t, "acme", "e", entitlement())
		want(t, revived, http.StatusOK)
		if e := parse(t, revived.body).(doc); e["status"] != "ACTIVE" || e["creationTime"] != "2024-07-29T15:51:28.071Z" {
			t.Errorf("revived: %v", e)
		}
		if ids := a.entitlements(t, "acme", ""); len(ids) != 1 {
			t.Errorf("the list has %v", ids)
		}
		wantError(t, a.sendObject(t, "DELETE", entitlementPath("acme", "absent"), ""), http.StatusNotFound, "absent")
	})
}

func TestEntitlement_DeleteWithUnsettledUsageIs409(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		for _, c := range []struct {
			status string
			want   int
		}{{"CREATED", 409}, {"REPORT_PENDING", 409}, {"INVALID", 200}, {"REPORTED", 200}, {"REPORT_FAILED", 200}, {"DELETED", 200}} {
			id := "e-" + c.status
			want(t, a.putEntitlement(t, "acme", id, entitlement()), http.StatusOK)
			a.put(t, "acme", group("g-"+c.status, doc{"status": c.status, "entitlementID": id}))
			a.put(t, "other", group("g-other", doc{"entitlementID": id, "id": "o-" + c.status}))
			got := a.sendObject(t, "DELETE", entitlementPath("acme", id), "")
			if c.want == http.StatusConflict {
				wantError(t, got, c.want, "g-"+c.status, c.status)
			} else {
				want(t, got, c.want)
			}
		}
	})
}

func awsIDs(members ...doc) doc {
	ids := doc{"customerAWSAccountID": "123456789012", "licenseArn": licence}
	for _, m := range members {
		maps.Copy(ids, m)
	}
	return doc{"marketplace": ids}
}

func TestIdentity_SecondOwnerIs409(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		for _, c := range []struct {
			name          string
			partner       string
			first, second doc
			conflict      bool
		}{
			{"the same", "AWS", awsIDs(), awsIDs(), true},
			{"another Region", "AWS", awsIDs(), awsIDs(doc{"region": "eu-west-1"}), true},
			{"another licence", "AWS", awsIDs(), awsIDs(doc{"licenseArn": otherLicence}), false},
			{"another account", "AWS", awsIDs(), awsIDs(doc{"customerAWSAccountID": "210987654321"}), false},
			{"incomplete", "AWS", doc{"marketplace": doc{"customerAWSAccountID": "123456789012"}}, doc{"marketplace": doc{"customerAWSAccountID": "123456789012"}}, false},
			{"product codes", "AWS", doc{"marketplace": doc{"customerIdentifier": "c", "productCode": "p"}}, doc{"marketplace": doc{"customerIdentifier": "c", "productCode": "p"}}, true},
			{"parts that join to the same", "AWS", doc{"marketplace": doc{"customerIdentifier": "ab", "productCode": "c"}}, doc{"marketplace": doc{"customerIdentifier": "a", "productCode": "bc"}}, false},
			{"a GUID in upper case", "AZURE", doc{"marketplace": doc{"resourceID": someGUID, "planID": "a"}}, doc{"marketplace": doc{"resourceID": strings.ToUpper(someGUID), "planID": "b"}}, true},
			{"a URI in upper case", "AZURE", doc{"marketplace": doc{"resourceURI": "/subscriptions/x", "planID": "a"}}, doc{"marketplace": doc{"resourceURI": "/subscriptions/X"}}, true},
			{"Google", "GCP", doc{"marketplace": doc{"usageReportingID": "u", "serviceName": "s"}}, doc{"marketplace": doc{"usageReportingID": "u", "serviceName": "s"}}, true},
			{"another service", "GCP", doc{"marketplace": doc{"usageReportingID": "u", "serviceName": "s"}}, doc{"marketplace": doc{"usageReportingID": "u", "serviceName": "t"}}, false},
		} {
			org := "of " + c.name
			partner := doc{"partner": c.partner}
			want(t, a.putEntitlement(t, org, "first", entitlement(partner, c.first)), http.StatusOK)
			got := a.putEntitlement(t, org, "second", entitlement(partner, c.second, doc{"buyerID": "secret-buyer"}))
			if !c.conflict {
				want(t, got, http.StatusOK)
				continue
			}
			if message := wantError(t, got, http.StatusConflict, `"first"`); t.Failed() || strings.Contains(message, "buyer") {
				t.Fatalf("%s: %s", c.name, message)
			}
			wantError(t, a.get(t, entitlementPath(org, "second"), ""), http.StatusNotFound) // nothing of it was stored
			want(t, a.putEntitlement(t, org, "first", entitlement(partner, c.first, doc{"name": "n"})), http.StatusOK)
			want(t, a.putEntitlement(t, org+" 2", "second", entitlement(partner, c.second)), http.StatusOK) // another organization
		}
	})
}

// An identity follows its entitlement: changed identifiers move it, and a deleted entitlement
// releases it if nothing was sent with it.
func TestIdentity_MovesAndIsReleased(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		put := func(id string, status int, members ...doc) {
			t.Helper()
			want(t, a.putEntitlement(t, "acme", id, entitlement(members...)), status)
		}
		put("a", 200, awsIDs())
		put("b", 409, awsIDs())
		put("a", 200, awsIDs(doc{"licenseArn": otherLicence}))
		put("b", 200, awsIDs()) // a has left it
		put("b", 409, awsIDs(doc{"licenseArn": otherLicence}))
		want(t, a.sendObject(t, "DELETE", entitlementPath("acme", "a"), ""), http.StatusOK)
		put("b", 200, awsIDs(doc{"licenseArn": otherLicence}))
		put("a", 409, awsIDs(doc{"licenseArn": otherLicence})) // revived, without its identity
		put("a", 200, awsIDs())
		put("a", 200) // without identifiers
		put("c", 200, awsIDs())
		put("c", 200, awsIDs(doc{"region": "eu-west-1"})) // its own
	})
}

func TestIdentity_StaysIfUsageWasSent(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		sent := map[string]func(org string){
			"a reported group": func(org string) { a.put(t, org, group("g", doc{"status": "REPORTED", "entitlementID": "a"})) },
			"a failed group":   func(org string) { a.put(t, org, group("g", doc{"status": "REPORT_FAILED", "entitlementID": "a"})) },
			"an hour": func(org string) {
				a.putItem(t, map[string]types.AttributeValue{"PK": text(orgPartition(org) + "#BILL#a"), "SK": text("HOUR#2024-07-29T15")})
			},
		}
		for name, send := range sent {
			org := "with " + name
			want(t, a.putEntitlement(t, org, "a", entitlement(awsIDs())), http.StatusOK)
			send(org)
			want(t, a.putEntitlement(t, org, "a", entitlement(awsIDs(doc{"licenseArn": otherLicence}))), http.StatusOK)
			wantError(t, a.putEntitlement(t, org, "b", entitlement(awsIDs())), http.StatusConflict, `"a"`)
			want(t, a.putEntitlement(t, org, "a", entitlement(awsIDs())), http.StatusOK) // back to its own
			want(t, a.sendObject(t, "DELETE", entitlementPath(org, "a"), ""), http.StatusOK)
			wantError(t, a.putEntitlement(t, org, "b", entitlement(awsIDs())), http.StatusConflict, `"a"`)
			want(t, a.putEntitlement(t, org, "a", entitlement(awsIDs())), http.StatusOK)
		}
		// Groups that nothing was sent of don't count.
		want(t, a.putEntitlement(t, "acme", "a", entitlement(awsIDs())), http.StatusOK)
		a.put(t, "acme", group("g1", doc{"status": "INVALID", "entitlementID": "a"}), group("g2", doc{"status": "DELETED", "entitlementID": "a"}))
		want(t, a.sendObject(t, "DELETE", entitlementPath("acme", "a"), ""), http.StatusOK)
		want(t, a.putEntitlement(t, "acme", "b", entitlement(awsIDs())), http.StatusOK)
	})
}

// Many entitlements that want one identity at once: one gets it.
func TestIdentity_OneOfManyAtOnce(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		statuses := make(chan int, 6)
		for i := range cap(statuses) {
			go func() {
				got, _, err := a.exchange(t.Context(), request{
					method: "PUT", path: entitlementPath("acme", fmt.Sprint("e", i)), body: toJSON(t, entitlement(awsIDs())),
					headers: map[string]string{"Content-Type": "application/json"},
				})
				if err != nil {
					t.Error(err)
				}
				statuses <- got.status
			}()
		}
		counts := map[int]int{}
		for range cap(statuses) {
			counts[<-statuses]++
		}
		if !maps.Equal(counts, map[int]int{200: 1, 409: cap(statuses) - 1}) {
			t.Errorf("statuses: %v", counts)
		}
		if ids := a.entitlements(t, "acme", ""); len(ids) != 1 {
			t.Errorf("stored: %v", ids)
		}
	})
}

// For all entitlements and filters, the list is what a model of it says.
func TestEntitlements_ListAgreesWithModel(t *testing.T) {
	t.Parallel()
	a := newAPIOver(t, "lambda", tabletest.ShortPages(tabletest.Watched(t), 2))
	org := 0
	rapid.Check(t, func(rt *rapid.T) {
		org++
		name := fmt.Sprint("org", org)
		sample := func(label string, values ...string) string { return rapid.SampledFrom(values).Draw(rt, label) }
		type stored struct{ id, partner, product, buyer, external, at string }
		var all []stored
		for i := range rapid.IntRange(0, 8).Draw(rt, "entitlements") {
			at := now.Add(time.Duration(rapid.IntRange(0, 3).Draw(rt, "time")) * time.Minute)
			a.clock.set(at)
			e := stored{
				fmt.Sprint("e", i), sample("partner", "AWS", "GCP"), sample("product", "", "p", "q"), sample("buyer", "b", "c"), sample("external", "", "x"),
				at.Format(time.RFC3339),
			}
			body := doc{"partner": e.partner, "buyerID": e.buyer, "productID": e.product, "externalID": e.external}
			want(t, a.putEntitlement(t, name, e.id, body), http.StatusOK)
			if rapid.IntRange(0, 4).Draw(rt, "deleted") == 4 {
				want(t, a.sendObject(t, "DELETE", entitlementPath(name, e.id), ""), http.StatusOK)
				continue
			}
			all = append(all, e)
		}
		slices.SortFunc(all, func(x, y stored) int { return strings.Compare(y.at+"#"+y.id, x.at+"#"+x.id) })
		query := url.Values{}
		filter := func(parameter string, value func(stored) string, values ...string) {
			wanted := sample(parameter, values...)
			query.Set(parameter, wanted)
			if wanted != "" {
				all = slices.DeleteFunc(all, func(e stored) bool { return value(e) != wanted })
			}
		}
		filter("partner", func(e stored) string { return e.partner }, "", "", "AWS")
		filter("productId", func(e stored) string { return e.product }, "", "", "p")
		filter("buyerId", func(e stored) string { return e.buyer }, "", "", "c")
		filter("externalId", func(e stored) string { return e.external }, "", "", "x")
		offset, limit := rapid.IntRange(0, 4).Draw(rt, "offset"), rapid.IntRange(1, 5).Draw(rt, "limit")
		query.Set("offset", fmt.Sprint(offset))
		query.Set("limit", fmt.Sprint(limit))
		wanted := []string{}
		for _, e := range all[min(offset, len(all)):min(offset+limit, len(all))] {
			wanted = append(wanted, e.id)
		}
		if got := a.entitlements(t, name, query.Encode()); !slices.Equal(got, wanted) {
			rt.Fatalf("%s: %v, want %v", query.Encode(), got, wanted)
		}
	})
}

func TestEntitlements_ParametersAreStrict(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		for query, text := range map[string]string{
			"limit=0": "limit", "limit=1001": "1 to 1000", "limit=x": "limit", "offset=-1": "offset", "offset=2147483648": "offset",
			"partner=ORACLE": "partner", "partner=AWS&partner=GCP": "2 times", "status=ACTIVE": "status", "entitlementId=e": "entitlementId",
			"buyerId=%01": "buyerId", "cursor=x": "cursor",
		} {
			wantError(t, a.get(t, entitlementsPath("acme"), query), http.StatusBadRequest, text)
		}
		for _, query := range []string{"", "limit=", "partner=&productId=&buyerId=&externalId=&offset=", "offset=2147483647", "externalId=absent"} {
			if ids := a.entitlements(t, "acme", query); len(ids) != 0 {
				t.Errorf("%s: %v", query, ids)
			}
		}
	})
}

// A list that Lambda could not return is 400 and names limit; a smaller limit succeeds.
func TestEntitlements_ListOver6MBIs400(t *testing.T) {
	t.Parallel()
	a := newAPI(t, "lambda")
	name := strings.Repeat(`"`, 10_000) // as stored twice as long, in the envelope four times
	for i := range 160 {
		want(t, a.putEntitlement(t, "acme", fmt.Sprint("e", i), entitlement(doc{"name": name})), http.StatusOK)
	}
	wantError(t, a.get(t, entitlementsPath("acme"), ""), http.StatusBadRequest, "limit", "160")
	if ids := a.entitlements(t, "acme", "limit=100&offset=60"); len(ids) != 100 {
		t.Errorf("%d entitlements", len(ids))
	}
}

// An entitlement that a newer version has stored is returned as it is stored; a DELETE keeps what
// this version does not know, and a PUT replaces it.
func TestEntitlement_OfANewerVersionIsKept(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		const stored = `{"buyerID":"b","creationTime":"2024-07-01T00:00:00.000Z","future":{"a":[1.50,null]},"id":"e","info":{"dimensions":[{"key":"cpu","rate":"free","tier":2}],"tax":true},` +
			`"lastUpdateTime":"2024-07-01T00:00:00.000Z","marketplace":{"newID":"n"},"name":{"en":"n"},"organizationID":"acme","partner":"ORACLE","startTime":"someday","status":"PAUSED"}`
		a.putItem(t, map[string]types.AttributeValue{
			"PK": text("ORG#acme"), "SK": text("ENTITLEMENT#e"), "entitlement": text(stored), "status": text("PAUSED"), "id": text("e"),
			"creationTime": text("2024-07-01T00:00:00.000Z"), "_op": &types.AttributeValueMemberB{Value: []byte("0123456789abcdef")}, "_new": text("x"),
		})
		// The description has only what this version stores, so it is not checked.
		send := func(method, body string) answer {
			t.Helper()
			got, _, err := a.exchange(t.Context(), request{method: method, path: entitlementPath("acme", "e"), body: body})
			if err != nil {
				t.Fatal(err)
			}
			want(t, got, http.StatusOK)
			return got
		}
		if got := send("GET", ""); got.body != stored {
			t.Errorf("GET returns %s", got.body)
		}
		expected := parse(t, stored).(doc)
		expected["status"], expected["lastUpdateTime"] = "DELETED", "2024-07-29T15:51:28.071Z"
		wantSame(t, any(expected), parse(t, send("DELETE", "").body))
		items, err := itemsIn(t.Context(), a.client, a.tableName)
		if err != nil {
			t.Fatal(err)
		}
		if item := items[`"ORG#acme" "ENTITLEMENT#e"`]; item["_new"] != "x" || item["status"] != "DELETED" {
			t.Errorf("the deleted item is %v", item)
		}
		replaced := parse(t, send("PUT", toJSON(t, entitlement())).body).(doc)
		if replaced["creationTime"] != "2024-07-01T00:00:00.000Z" || replaced["future"] != nil || replaced["name"] != nil {
			t.Errorf("replaced: %v", replaced)
		}
	})
}

// An entitlement that can't be read is a 500 that leaks nothing, and can be replaced.
func TestEntitlement_UnreadableIsReplaced(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		for _, stored := range []string{`{"id": "secret-nonsense"`, `{"id":"e","organizationID":"acme"}`, `[]`} {
			a.putItem(t, map[string]types.AttributeValue{"PK": text("ORG#acme"), "SK": text("ENTITLEMENT#e"), "entitlement": text(stored)})
			for _, method := range []string{"GET", "DELETE"} {
				if message := wantError(t, a.sendObject(t, method, entitlementPath("acme", "e"), ""), http.StatusInternalServerError); strings.Contains(message, "nonsense") {
					t.Error(message)
				}
			}
			want(t, a.putEntitlement(t, "acme", "e", entitlement()), http.StatusOK)
			want(t, a.get(t, entitlementPath("acme", "e"), ""), http.StatusOK)
		}
	})
}
