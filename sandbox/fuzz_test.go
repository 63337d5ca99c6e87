package sandbox_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/marketmeter/marketmeter/sandbox"
)

// Each fuzz target sends a body to a marketplace. For any body, the response is one that the
// marketplace documents, and the accepted usage is what an independent reading of the body finds.
// Sending the same body again adds nothing.

// send2 sends the request twice and checks the properties common to all marketplaces.
func send2(t *testing.T, b *box, request func() *http.Request) (first answer, added []sandbox.Record) {
	t.Helper()
	var answers []answer
	var counts []int
	for range 2 {
		answers = append(answers, b.send(request())) // fails the test if the response is not JSON
		counts = append(counts, len(b.quantities()))
	}
	if counts[0] != counts[1] {
		t.Fatalf("the same request again added %d records", counts[1]-counts[0])
	}
	added, _ = b.Records()
	seen := map[string]bool{}
	for _, r := range added {
		if seen[r.Identity] {
			t.Fatalf("two records for %s", r.Identity)
		}
		seen[r.Identity] = true
	}
	if answers[0].status != 200 && len(added) > 0 {
		t.Fatalf("%d %s, and %d records", answers[0].status, answers[0].raw, len(added))
	}
	requests, _ := b.Requests()
	accepted := 0
	for _, d := range requests[len(requests)-2].Decisions {
		if d.Outcome == sandbox.Accepted {
			accepted++
		}
	}
	if len(requests[len(requests)-2].Decisions) == 0 && answers[0].status != 200 || accepted > len(added) {
		t.Fatalf("decisions %+v for %d records", requests[len(requests)-2].Decisions, len(added))
	}
	return answers[0], added
}

func FuzzAWS(f *testing.F) {
	for _, body := range []string{
		records(usage("17.42")), productRecords("prod-1", legacy("3")), records(usage("", "QuantityAsDecimal", "", "Quantity", "5")),
		records(usage("10", "UsageAllocations", `[{"AllocatedUsageQuantityAsDecimal":"10","Tags":[{"Key":"a","Value":"b"}]}]`)),
		records(usage("1", "Timestamp", "1.79e9")), records(usage("1"), usage("2")), `{"UsageRecords":[]}`, `{`, ``, `{"UsageRecords":[{}],"ProductCode":null}`,
	} {
		f.Add([]byte(body))
	}
	documented := map[string]bool{
		"TimestampOutOfBoundsException": true, "InvalidUsageDimensionException": true, "InvalidLicenseException": true, "InvalidProductCodeException": true,
		"InvalidCustomerIdentifierException": true, "InvalidTagException": true, "InvalidUsageAllocationsException": true,
		"ValidationException": true, "SerializationException": true, "RequestEntityTooLargeException": true,
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		b := fresh(t)
		a, added := send2(t, b, func() *http.Request { return awsRequest("BatchMeterUsage", "us-east-1", string(body)) })
		if a.status != 200 {
			if name, _ := a.get("__type").(string); a.status != 400 || !documented[name] {
				t.Fatalf("%d %s", a.status, a.raw)
			}
			return
		}
		var request struct{ UsageRecords []map[string]any }
		if err := json.Unmarshal(body, &request); err != nil {
			t.Fatalf("%v, and it was accepted", err)
		}
		if len(statuses(a)) != len(request.UsageRecords) {
			t.Fatalf("%d results for %d records", len(statuses(a)), len(request.UsageRecords))
		}
		for _, r := range added {
			found := false
			for _, sent := range request.UsageRecords {
				found = found || sent["Dimension"] == r.Dimension
			}
			if !found {
				t.Fatalf("%+v is none of %s", r, body)
			}
		}
	})
}

func FuzzAzure(f *testing.F) {
	for _, body := range []string{
		`{"request":[` + event("5.5") + `]}`, `{"request":[` + event("1e-7") + `,` + event("2", "dimension", `"email"`) + `]}`, event("5"), `{"request":[]}`, ``, `{`,
		`{"request":[` + event("1", "effectiveStartTime", `"2026-11-18T12:00:00"`) + `]}`, `{"request":[` + event("1", "resourceId", `"x"`) + `]}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, path := range []string{"batchUsageEvent", "usageEvent"} {
			b := fresh(t)
			a, added := send2(t, b, func() *http.Request { return b.azureRequest(http.MethodPost, path, string(body)) })
			if a.status != 200 && a.status != 400 && a.status != 403 && a.status != 409 {
				t.Fatalf("%d %s", a.status, a.raw)
			}
			checkAzureResponse(t, b, path, a)
			if a.status == 200 && path == "batchUsageEvent" {
				var request struct{ Request []json.RawMessage }
				if err := json.Unmarshal(body, &request); err != nil || float64(len(request.Request)) != a.get("count") {
					t.Fatalf("%v, %s for %d events", err, a.raw, len(request.Request))
				}
			}
			for _, r := range added {
				if r.Quantity == "0" || strings.HasPrefix(r.Quantity, "-") {
					t.Fatalf("the quantity %s was accepted", r.Quantity)
				}
			}
		}
	})
}

// checkAzureResponse checks only the response, because the request may be anything.
func checkAzureResponse(t *testing.T, b *box, path string, a answer) {
	t.Helper()
	r := b.azureRequest(http.MethodPost, path, "")
	response := httptest.NewRecorder()
	for name, values := range a.header {
		response.Header()[name] = values
	}
	response.WriteHeader(a.status)
	_, _ = response.WriteString(a.raw)
	if ok, errs := azureDescription().ValidateHttpResponse(r, response.Result()); !ok {
		t.Fatalf("%d %s: %+v", a.status, a.raw, errs[0])
	}
}

func FuzzGoogle(f *testing.F) {
	for _, body := range []string{
		`{"operations":[` + operation("op", `"150"`) + `]}`, `{"operations":[` + operation("op", "1", "labels", `{"a":"b"}`) + `,` + operation("op", "2") + `]}`,
		`{"operation":` + operation("op", "1") + `}`, `{"operations":[]}`, ``, `{`, `{"operations":[` + operation("op", "1", "endTime", `"2026-11-18T12:00:00.5+00:00"`) + `]}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, method := range []string{":report", ":check"} {
			b := fresh(t)
			b.googleLogin()
			a, added := send2(t, b, func() *http.Request {
				r := httptest.NewRequest(http.MethodPost, googleBase+"/v1/services/"+service+method, strings.NewReader(string(body)))
				r.Header.Set("Authorization", "Bearer "+b.google)
				r.Header.Set("Content-Type", "application/json")
				return r
			})
			if a.status != 200 {
				if a.status != 400 || a.get("error", "status") != "INVALID_ARGUMENT" {
					t.Fatalf("%d %s", a.status, a.raw)
				}
				continue
			}
			if method == ":check" && len(added) > 0 {
				t.Fatal("a check was billed")
			}
			failed, _ := a.get("reportErrors").([]any)
			var request struct{ Operations []json.RawMessage }
			if err := json.Unmarshal(body, &request); err != nil || len(failed) > len(request.Operations) {
				t.Fatalf("%v, %s", err, a.raw)
			}
			for _, r := range added {
				if r.Quantity == "0" || strings.HasPrefix(r.Quantity, "-") || strings.Contains(r.Quantity, ".") {
					t.Fatalf("the quantity %s was accepted", r.Quantity)
				}
			}
		}
	})
}
