package apitest

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// catalogPut sends a PUT of an object of the catalog, which must be accepted.
func (a *api) catalogPut(t testing.TB, path, body string) {
	t.Helper()
	got := a.send(t, "PUT", "/org/acme"+path, body)
	if got.status != http.StatusOK {
		t.Fatalf("PUT %s: %d %s", path, got.status, got.body)
	}
}

// sellers stores an entitlement of each partner, with mappings and a connection to AWS alone.
func (a *api) sellers(t testing.TB) {
	t.Helper()
	const dimensions = `"info": {"currency": "USD", "dimensions": [{"key": "cpu_hours", "name": "CPU hours", "rate": 0.5}, {"key": "gb"}]}`
	a.catalogPut(t, "/entitlement/aws-1", `{"partner": "AWS", "buyerID": "b", `+dimensions+`, "marketplace": {"customerAWSAccountID": "123456789012",
		"licenseArn": "arn:aws:license-manager::123456789012:license:l-1"}}`)
	a.catalogPut(t, "/entitlement/aws-2", `{"partner": "AWS", "buyerID": "b", "marketplace": {"customerIdentifier": "c1", "productCode": "p1"}}`)
	a.catalogPut(t, "/entitlement/azure-1", `{"partner": "AZURE", "buyerID": "b", `+dimensions+`, "marketplace": {"resourceID": "2f8a4b0e-6c1d-4e57-9a3b-0d1e2f3a4b5c", "planID": "gold"}}`)
	a.catalogPut(t, "/entitlement/gcp-1", `{"partner": "GCP", "buyerID": "b", `+dimensions+`, "marketplace": {"usageReportingID": "project_number:1", "serviceName": "acme.example.com"}}`)
	a.catalogPut(t, "/usageMeteringConfigInfo", `{"partnerUsageMeteringConfigs": [{"partner": "AWS", "enableDimensionMapping": true,
		"dimensionMapping": {"cpu_minutes": {"dimensionKey": "cpu_hours", "convertionMultiplier": 0.5}, "spend": {"dimensionKey": "gb", "mappingMode": "AMOUNT"}}}]}`)
	a.catalogPut(t, "/connection/AWS", `{"roleArn": "arn:aws:iam::123456789012:role/metering"}`)
}

// explained returns the response to an explained validation.
func (a *api) explained(t testing.TB, body string) (groups []any, valid any) {
	t.Helper()
	got := a.do(t, explaining(body).of("acme"))
	if got.status != http.StatusOK {
		t.Fatalf("%.300s: %d %s", body, got.status, got.body)
	}
	object, _ := values(got.body).(map[string]any)
	groups, _ = object["groups"].([]any)
	return groups, object["valid"]
}

// Usage of an entitlement is checked by what is stored of it, by plain validation too.
func TestValidate_ChecksTheEntitlement(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.sellers(t)
		for _, c := range []struct{ group, text string }{
			{`{"entitlementID": "aws-1", "records": {"cpu_minutes": 90, "gb": 1}}`, ""},
			{`{"entitlementID": "azure-1", "records": {"CPU hours": 90}}`, ""},
			{`{"entitlementID": "aws-2", "records": {"anything": 1}}`, ""},
			{`{"entitlementID": "nobody", "records": {"gb": 1}}`, `entitlementID is "nobody": the organization has no such entitlement`},
			{`{"entitlementID": "aws-1", "records": {"cpu_hour": 1}}`, `records["cpu_hour"]`},
			{`{"entitlementID": "aws-1", "records": {"spend": 1}}`, `no rate over 0`},
			{`{"entitlementID": "aws-1", "records": {"gb": 10000000000}}`, `gb`},
			{`{"entitlementID": "aws-1", "records": {"gb": -1}}`, `records["gb"]: -1 is negative: a quantity is 0 or more`},
			{`{"entitlementID": "aws-1", "billableRecords": [{"key": "m1", "quantity": 1}]}`, `billableRecords[0].key`},
			{`{"entitlementID": "azure-1", "records": {"gb": 1}, "timestamp": "2024-07-01T00:00:00Z"}`, "timestamp is 2024-07-01T00:00:00.000Z: AZURE takes usage of this hour until 2024-07-02T00:00:00.000Z"},
			{`{"entitlementID": "nobody", "records": {"gb": -1}, "metaInfo": {"SkipValidation": true}}`, ""},
		} {
			got := a.validate(t, "["+c.group+"]")
			if c.text == "" {
				if got.status != http.StatusOK || got.body != `""` {
					t.Errorf("%s: %d %s", c.group, got.status, got.body)
				}
				continue
			}
			wantError(t, got, http.StatusInternalServerError, "validation failed for usage record group: index 0: ", c.text, "; 1 of 1 groups invalid")
		}
		// Organizations do not share entitlements.
		got := a.send(t, "POST", validatePath("other"), `[{"entitlementID": "aws-1", "records": {"gb": 1}}]`)
		wantError(t, got, http.StatusInternalServerError, "no such entitlement")
	})
}

// What validation reads, it reads again for each request: a change is obeyed at once.
func TestValidate_ObeysAChangeAtOnce(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.sellers(t)
		body := `[{"entitlementID": "azure-1", "records": {"seats": 1}}]`
		for _, c := range []struct {
			method, path, body string
			status             int
		}{
			{"", "", "", http.StatusInternalServerError},
			{"PUT", "/usageMeteringConfigInfo", `{"partnerUsageMeteringConfigs": [{"partner": "AZURE", "enableDimensionMapping": true, "dimensionMapping": {"seats": {"dimensionKey": "gb", "convertionMultiplier": 2}}}]}`, http.StatusOK},
			{"PUT", "/usageMeteringConfigInfo", `{}`, http.StatusInternalServerError},
			{"PUT", "/entitlement/azure-1", `{"partner": "AZURE", "buyerID": "b", "info": {"dimensions": [{"key": "seats"}]}, "marketplace": {"resourceID": "2f8a4b0e-6c1d-4e57-9a3b-0d1e2f3a4b5c", "planID": "gold"}}`, http.StatusOK},
			{"PUT", "/entitlement/azure-1", `{"partner": "AZURE", "buyerID": "b", "status": "SUSPENDED", "info": {"dimensions": [{"key": "seats"}]}, "marketplace": {"resourceID": "2f8a4b0e-6c1d-4e57-9a3b-0d1e2f3a4b5c", "planID": "gold"}}`, http.StatusInternalServerError},
			{"PUT", "/entitlement/azure-1", `{"partner": "AZURE", "buyerID": "b", "info": {"dimensions": [{"key": "seats"}]}, "marketplace": {"resourceID": "2f8a4b0e-6c1d-4e57-9a3b-0d1e2f3a4b5c", "planID": "gold"}}`, http.StatusOK},
			{"DELETE", "/entitlement/azure-1", "", http.StatusInternalServerError},
		} {
			if c.method == "PUT" {
				a.catalogPut(t, c.path, c.body)
			} else if c.method != "" {
				want(t, a.do(t, request{method: c.method, path: "/org/acme" + c.path}), http.StatusOK)
			}
			if got := a.validate(t, body); got.status != c.status {
				t.Errorf("after %s %s %s: %d %s", c.method, c.path, c.body, got.status, got.body)
			}
		}
	})
}

// A connection that is put, changed and deleted is noticed at once: without one usage waits, and
// with lateUsage CARRY old usage is accepted.
func TestValidate_ObeysAConnectionAtOnce(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.sellers(t)
		recent, old := `[{"entitlementID": "aws-1", "records": {"gb": 1}}]`, `[{"entitlementID": "aws-1", "timestamp": "2024-07-01T00:00:00Z", "records": {"gb": 1}}]`
		for _, c := range []struct {
			method, body string
			status       int // of old usage
			warned       bool
		}{
			{"", "", http.StatusInternalServerError, false},
			{"PUT", `{"roleArn": "arn:aws:iam::123456789012:role/metering", "lateUsage": "CARRY"}`, http.StatusOK, false},
			{"DELETE", "", http.StatusInternalServerError, true},
			{"PUT", `{"roleArn": "arn:aws:iam::123456789012:role/metering", "lateUsage": "FAIL"}`, http.StatusInternalServerError, false},
		} {
			switch c.method {
			case "PUT":
				a.catalogPut(t, "/connection/AWS", c.body)
			case "DELETE":
				want(t, a.do(t, request{method: "DELETE", path: "/org/acme/connection/AWS"}), http.StatusOK)
			}
			groups, _ := a.explained(t, recent)
			if got := strings.Contains(toJSON(t, groups), "NO_CONNECTION"); got != c.warned {
				t.Errorf("after %s %s: %s", c.method, c.body, toJSON(t, groups))
			}
			if got := a.validate(t, old); got.status != c.status {
				t.Errorf("after %s %s: %d %s", c.method, c.body, got.status, got.body)
			}
		}
	})
}

func TestExplain_Preview(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.sellers(t)
		for group, preview := range map[string]string{
			`{"entitlementID": "aws-1", "timestamp": "2024-07-29T14:10:00Z", "records": {"cpu_minutes": 3.0000014, "gb": 0}}`: `{"partner": "AWS", "reportBy": "2024-07-30T14:00:00.000Z",
				"originRecords": {"cpu_minutes": 3.0000014, "gb": 0}, "records": {"cpu_hours": 1.5000007, "gb": 0},
				"requests": [{"Timestamp": 1722261600, "Dimension": "cpu_hours", "QuantityAsDecimal": "1.5", "CustomerAWSAccountId": "123456789012", "LicenseArn": "arn:aws:license-manager::123456789012:license:l-1"}]}`,
			`{"entitlementID": "aws-2", "timestamp": "2024-07-29T15:51:28Z", "records": {"b": 2, "a": 1}}`: `{"partner": "AWS", "reportBy": "2024-07-30T15:00:00.000Z",
				"originRecords": {"a": 1, "b": 2}, "records": {"a": 1, "b": 2}, "requests": [
				{"Timestamp": 1722265200, "Dimension": "a", "QuantityAsDecimal": "1", "CustomerIdentifier": "c1"}, {"Timestamp": 1722265200, "Dimension": "b", "QuantityAsDecimal": "2", "CustomerIdentifier": "c1"}]}`,
			`{"entitlementID": "azure-1", "timestamp": "2024-07-29T15:51:28Z", "records": {"CPU hours": 1234567890123.4567}}`: `{"partner": "AZURE", "reportBy": "2024-07-30T15:00:00.000Z",
				"originRecords": {"CPU hours": 1234567890123.4567}, "records": {"cpu_hours": 1234567890123.4567}, "requests": [{"dimension": "cpu_hours", "quantity": 1234567890123.45,
				"effectiveStartTime": "2024-07-29T15:00:00Z", "planId": "gold", "resourceId": "2f8a4b0e-6c1d-4e57-9a3b-0d1e2f3a4b5c"}]}`,
			`{"entitlementID": "gcp-1", "timestamp": "2024-07-29T15:51:28Z", "records": {"gb": 7.9, "cpu_hours": 0.5}}`: `{"partner": "GCP", "reportBy": "2024-08-01T08:00:00.000Z",
				"originRecords": {"gb": 7.9, "cpu_hours": 0.5}, "records": {"gb": 7.9, "cpu_hours": 0.5}, "requests": [{"operationName": "Hourly usage report", "operationId": "OPERATION", "consumerId": "project_number:1",
				"startTime": "2024-07-29T15:00:00Z", "endTime": "2024-07-29T16:00:00Z",
				"metricValueSets": [{"metricName": "acme.example.com/gb", "metricValues": [{"int64Value": "7"}]}]}]}`,
			`{"entitlementID": "aws-1", "timestamp": "2024-07-29T15:51:28Z", "records": {"gb": 1, "nothing": 2}}`: `{"partner": "AWS", "reportBy": "2024-07-30T15:00:00.000Z",
				"originRecords": {"gb": 1, "nothing": 2}, "records": {"gb": 1, "nothing": 2}, "requests": []}`,
			`{"entitlementID": "nobody", "records": {"gb": 1}}`: `null`,
			`{"records": {"gb": 1}}`:                            `null`,
		} {
			groups, _ := a.explained(t, "["+group+"]")
			got, _ := groups[0].(map[string]any)
			text := toJSON(t, got["preview"])
			if strings.Contains(group, "gcp-1") {
				_, after, _ := strings.Cut(text, `"operationId":"`)
				if len(after) < 36 || after[14] != '5' {
					t.Fatalf("no UUIDv5 in %s", text)
				}
				text = strings.Replace(text, after[:36], "OPERATION", 1)
			}
			if expected := toJSON(t, values(preview)); text != expected {
				t.Errorf("%s:\n%s\nwant\n%s", group, text, expected)
			}
		}
	})
}

// All groups are explained, in their order, and all problems of each.
func TestExplain_Problems(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.sellers(t)
		groups, valid := a.explained(t, `[
			{"entitlementID": "aws-1", "timestamp": "2024-07-29T15:00:00Z", "records": {"gb": 1}},
			{"entitlementID": "gcp-1", "timestamp": "2024-07-29T14:00:00Z", "records": {"x~y/z": 1, "cpu_hours": -2, "spend": 1}, "metaInfo": {"source": "API"}},
			{"entitlementID": "aws-1", "timestamp": "2024-07-29T17:00:00+02:00", "records": {"gb": 1.0}, "id": "g1"},
			{"entitlementID": "aws-2", "id": "g1", "records": {"gb": 1}},
			{"id": "a/b", "records": {"gb": 0}, "metaInfo": {"source": "X"}},
			{"entitlementID": "nobody", "records": {"gb": -1}, "metaInfo": {"SkipValidation": true}}]`)
		if valid != false || len(groups) != 6 {
			t.Fatalf("valid %v, %d groups", valid, len(groups))
		}
		for i, expected := range []string{
			"true", "false NO_CONNECTION? /entitlementID, LATE? /timestamp, DIMENSION_UNKNOWN /records/spend, DIMENSION_UNKNOWN /records/x~0y~1z, QUANTITY_NEGATIVE /records/cpu_hours",
			"true DUPLICATE_IN_BATCH? ", "false DIMENSIONS_UNCHECKED? /entitlementID, NOT_STORABLE /id", "false NOT_STORABLE /id, NOT_STORABLE /metaInfo/source, NOT_STORABLE /records", "true",
		} {
			group, _ := groups[i].(map[string]any)
			problems, _ := group["problems"].([]any)
			all := make([]string, len(problems))
			for j, p := range problems {
				p, _ := p.(map[string]any)
				mark := map[any]string{"ERROR": "", "WARNING": "?"}[p["severity"]]
				all[j] = fmt.Sprintf("%v%s %v", p["code"], mark, p["path"])
				if message, _ := p["message"].(string); message == "" || p["hint"] == nil {
					t.Errorf("group %d: %v", i, p)
				}
			}
			got := strings.TrimSpace(fmt.Sprint(group["valid"]) + " " + strings.Join(all, ", "))
			if !sameProblems(got, strings.TrimSpace(expected)) || group["index"] != exact(fmt.Sprint(i)) {
				t.Errorf("group %d: %s, want %s", i, got, expected)
			}
		}
	})
}

// sameProblems compares lists of problems in any order.
func sameProblems(a, b string) bool {
	a, b = strings.Replace(a, " ", ", ", 1), strings.Replace(b, " ", ", ", 1)
	return strings.Join(slices.Sorted(slices.Values(strings.Split(a, ", "))), ", ") == strings.Join(slices.Sorted(slices.Values(strings.Split(b, ", "))), ", ")
}

func TestExplain_Parameter(t *testing.T) {
	t.Parallel()
	eachWayOver(t, nil, func(t *testing.T, a *api) {
		for query, status := range map[string]int{
			"": 200, "explain=": 200, "explain=false": 200, "explain=true": 200, "explain=1": 400, "explain=TRUE": 400, "explain=yes": 400,
			"explain=true&explain=true": 400, "Explain=true": 400, "x=1": 400,
		} {
			for body, invalid := range map[string]int{`[{"records": {"cpu": 1}}]`: 200, `[{"records": {"cpu": -1}}]`: 500, `[{"record": {}}]`: 400} {
				expected := invalid
				if status == 400 || query == "explain=true" && invalid == 500 {
					expected = status
				}
				got := a.do(t, request{method: "POST", path: validatePath("acme"), query: query, body: body})
				if got.status != expected || got.status == 200 && query != "explain=true" && got.body != `""` {
					t.Errorf("%s %s: %d %s, want %d", query, body, got.status, got.body, expected)
				}
			}
		}
	})
}

// An explanation that a function can't return is refused, and one that is large is compressed.
func TestExplain_Large(t *testing.T) {
	t.Parallel()
	eachWayOver(t, nil, func(t *testing.T, a *api) {
		group := `{"records":{`
		for i := range 60 {
			group += fmt.Sprintf(`"k%d":-1,`, i)
		}
		group = strings.TrimSuffix(group, ",") + "}}"
		batch := func(n int) string { return "[" + strings.TrimSuffix(strings.Repeat(group+",", n), ",") + "]" }
		wantError(t, a.do(t, explaining(batch(1000)).of("acme")), http.StatusRequestEntityTooLarge, "explain fewer at once")
		r := explaining(batch(50)).of("acme")
		r.headers["Accept-Encoding"] = "gzip"
		got := a.do(t, r)
		if got.status != http.StatusOK || got.headers.Get("Content-Encoding") != "gzip" || got.headers.Get("Vary") != "Accept-Encoding" {
			t.Errorf("%d %v", got.status, got.headers)
		}
		// A group has at most 100 problems of a code; the last one counts the others.
		long := strings.Replace(group, `"k0"`, strings.Repeat(`"x":-1,`, 1)+`"k0"`, 1)
		for i := range 100 {
			long = strings.Replace(long, `"k0"`, fmt.Sprintf(`"y%d":-1,"k0"`, i), 1)
		}
		groups, _ := a.explained(t, "["+long+"]")
		problems, _ := groups[0].(map[string]any)["problems"].([]any)
		if last := fmt.Sprint(problems[len(problems)-1]); len(problems) != 100 || !strings.Contains(last, "61 more problems") {
			t.Errorf("%d problems, the last is %s", len(problems), last)
		}
	})
}

// What a newer version has stored of an entitlement does not change how this version reads the
// rest.
func TestValidate_ReadsWhatANewerVersionHasStored(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.sellers(t)
		item := a.storedItem(t, "ORG#acme", "ENTITLEMENT#azure-1")
		stored := item["entitlement"].(*types.AttributeValueMemberS)
		newer := strings.Replace(stored.Value, `{"buyerID"`, `{"ageOfBuyer":[1,{"x":null}],"buyerID"`, 1)
		if newer == stored.Value {
			t.Fatal(stored.Value)
		}
		item["entitlement"] = &types.AttributeValueMemberS{Value: newer}
		a.putItem(t, item)
		want(t, a.validate(t, `[{"entitlementID": "azure-1", "records": {"gb": 1}}]`), http.StatusOK)
		item["entitlement"] = &types.AttributeValueMemberS{Value: strings.Replace(newer, `"ACTIVE"`, `"PAUSED"`, 1)}
		a.putItem(t, item)
		wantError(t, a.validate(t, `[{"entitlementID": "azure-1", "records": {"gb": 1}}]`), http.StatusInternalServerError, "PAUSED")
	})
}

// A batch names more entitlements than DynamoDB returns at once; each is found.
func TestValidate_ManyEntitlements(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		const n = 230
		stored := func(i int) bool { return i%99 == 0 }
		groups := make([]string, 0, n+1)
		for i := range n {
			id := fmt.Sprintf("many-%d", i)
			if stored(i) { // the others do not exist
				a.give(t, "acme", sold(id))
			}
			groups = append(groups, fmt.Sprintf(`{"entitlementID": %q, "records": {"cpu": 1}}`, id))
		}
		explained, _ := a.explained(t, "["+strings.Join(groups, ",")+"]")
		for i, group := range explained {
			if valid := group.(map[string]any)["valid"]; valid != stored(i) {
				t.Errorf("group %d is valid: %v", i, valid)
			}
		}
		wantError(t, a.validate(t, "["+strings.Join(groups, ",")+"]"), http.StatusInternalServerError, "index 1", "227 of 230")
	})
}

// The clock decides: usage that validates now is too old later.
func TestValidate_AgeIsByTheClock(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.sellers(t)
		body := `[{"entitlementID": "azure-1", "timestamp": "2024-07-29T15:10:00Z", "records": {"gb": 1}}]`
		for after, status := range map[time.Duration]int{0: 200, 23 * time.Hour: 200, 24*time.Hour - 52*time.Minute: 200, 24*time.Hour - 51*time.Minute: 500} {
			a.clock.set(now.Add(after))
			if got := a.validate(t, body); got.status != status {
				t.Errorf("%v later: %d %s", after, got.status, got.body)
			}
		}
	})
}
