package sandbox_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/sandbox"
)

func TestControl_CatalogIsOneDocument(t *testing.T) {
	b := open(t, sandbox.Options{})
	wantStatus(t, b.control(http.MethodPut, "/catalog", `{}`), 200)
	wantStatus(t, b.control(http.MethodPut, "/catalog", testCatalog), 200)
	a := b.control(http.MethodGet, "/catalog", "")
	want(t, "a product", a.get("aws", "products", 0, "productCode"), "prod-1")
	again, err := sandbox.ReadCatalog([]byte(a.raw))
	if err != nil {
		t.Fatal(err)
	}
	text, _ := json.Marshal(again)
	want(t, "read again", string(text), strings.TrimSpace(a.raw))
	for _, body := range []string{
		"", "[]", "null", "{", `{} x`, `{"aws":{},"aws":{}}`, `{"amazon":{}}`, `{"aws":{"products":[{"productCode":""}]}}`,
		`{"aws":{"products":[{"productCode":"p","dimensions":[{"key":"k","price":"1,5"}]}]}}`,
		`{"aws":{"products":[{"productCode":"p","dimensions":[{"key":"k","price":"-1"}]}]}}`,
		`{"aws":{"products":[{"productCode":"p","dimensions":[{"key":"k"},{"key":"k"}]}]}}`,
		`{"aws":{"products":[{"productCode":"p"},{"productCode":"p"}]}}`, `{"aws":{"products":[{"productCode":"p","seller":"s"}]}}`,
		`{"aws":{"customers":[{"accountId":"12"}]}}`, `{"aws":{"agreements":[{"accountId":"111122223333","productCode":"p"}]}}`,
		`{"azure":{"applications":[{"tenantId":"t","clientId":"c","clientSecret":"s"}]}}`, `{"azure":{"offers":[{"offerId":"o","clientId":"c"}]}}`,
		`{"azure":{"subscriptions":[{"resourceId":"` + resource + `","offerId":"o","planId":"p","state":"Subscribed"}]}}`,
		`{"gcp":{"entitlements":[{"usageReportingId":"u","service":"s","state":"ACTIVE"}]}}`,
		`{"gcp":{"services":[{"name":"s","reporters":["nobody"]}]}}`,
		`{"AWS":{}}`, `{"aws":{"Products":[]}}`, `{"aws":{"products":[{"productcode":"p"}]}}`, `{"gcp":{"services":[{"name":"s","metrics":[{"name":"m","Price":"1"}]}]}}`,
		`{"gcp":{"services":[{"name":"s","metrics":[{"name":"m","kind":"DELTAS"}]}]}}`, `{"gcp":{"services":[{"name":"s","metrics":[{"name":"m","kind":"delta"}]}]}}`,
		`{"gcp":{"services":[{"name":"s","metrics":[{"name":"m","valueType":"INT"}]}]}}`,
	} {
		wantStatus(t, b.control(http.MethodPut, "/catalog", body), 400)
	}
	want(t, "after refusals", b.control(http.MethodGet, "/catalog", "").raw, a.raw)
	if _, err := sandbox.New(sandbox.Options{Catalog: sandbox.Catalog{AWS: sandbox.AWSCatalog{Products: []sandbox.AWSProduct{{}}}}}); err == nil {
		t.Fatal("a catalog that cannot be meant was taken")
	}
}

func TestControl_CatalogChangesDoNotReachIn(t *testing.T) {
	c := catalog(t)
	b := open(t, sandbox.Options{Catalog: c})
	b.at(noon)
	c.AWS.Products[0].ProductCode = "changed"
	got, _ := b.Catalog()
	got.AWS.Products[0].Dimensions[0].Key = "changed"
	want(t, "status", statuses(b.meter(records(usage("1")))), "[Success]")
}

func TestControl_ClockIsSetFrozenAndAdvanced(t *testing.T) {
	b := open(t, sandbox.Options{})
	clock := func(body string) string {
		t.Helper()
		a := b.control(http.MethodPut, "/clock", body)
		wantStatus(t, a, 200)
		want(t, "GET", b.control(http.MethodGet, "/clock", "").raw, a.raw)
		return fmt.Sprint(a.get("time"), " ", a.get("frozen"))
	}
	want(t, "at first", clock(`{}`), "2026-11-26T22:00:00Z false")
	want(t, "set", clock(`{"time":"2026-11-18T13:30:00+01:00"}`), "2026-11-18T12:30:00Z false")
	b.machine.advance(time.Minute)
	want(t, "it runs", clock(`{}`), "2026-11-18T12:31:00Z false")
	want(t, "frozen", clock(`{"frozen":true}`), "2026-11-18T12:31:00Z true")
	b.machine.advance(time.Minute)
	want(t, "it stands", clock(`{}`), "2026-11-18T12:31:00Z true")
	want(t, "advanced", clock(`{"advance":"1h30m"}`), "2026-11-18T14:01:00Z true")
	want(t, "set while frozen", clock(`{"time":"2026-11-18T12:00:00Z"}`), "2026-11-18T12:00:00Z true")
	want(t, "thawed", clock(`{"frozen":false,"advance":"1s"}`), "2026-11-18T12:00:01Z false")
	b.machine.advance(time.Second)
	want(t, "it runs again", clock(`{}`), "2026-11-18T12:00:02Z false")
	want(t, "real", clock(`{"time":"real"}`), "2026-11-26T22:02:01Z false")
	for _, at := range []string{"2026-11-18T1:30:00Z", "2026-11-18T12:30:00,5Z", "2026-11-18T12:30:00+24:00"} {
		wantStatus(t, b.control(http.MethodPut, "/clock", `{"time":"`+at+`"}`), 400)
	}
	for _, body := range []string{"", "[]", `{"time":"noon"}`, `{"advance":"soon"}`, `{"advance":"-1s"}`, `{"time":"real","advance":"1s"}`, `{"now":"x"}`, `{"Frozen":true}`, `{"ADVANCE":"1s"}`, `{"time":"1969-12-31T00:00:00Z"}`, `{"time":"2300-01-01T00:00:00Z"}`, `{"advance":"2500000h"}`} {
		wantStatus(t, b.control(http.MethodPut, "/clock", body), 400)
	}
}

func TestControl_RequestsHaveTheirBytesAndReasons(t *testing.T) {
	b := fresh(t)
	body := records(usage("1"), usage("2"))
	b.meter(body)
	b.report(operation("op", "1"))
	a := b.control(http.MethodGet, "/requests", "")
	raw, err := base64.StdEncoding.DecodeString(a.get("requests", 0, "body").(string))
	if err != nil || string(raw) != body {
		t.Fatalf("the body is %q, %v", raw, err)
	}
	want(t, "operation", a.get("requests", 0, "operation"), "BatchMeterUsage")
	want(t, "header", a.get("requests", 0, "header", "X-Amz-Target", 0), "AWSMPMeteringService.BatchMeterUsage")
	want(t, "first", a.get("requests", 0, "decisions", 0, "outcome"), "accepted")
	want(t, "second", a.get("requests", 0, "decisions", 1, "outcome"), "duplicate")
	want(t, "why", a.get("requests", 0, "decisions", 1, "reason"), "request 1 was accepted for this hour with 1, this says 2")
	want(t, "response", a.get("requests", 0, "response", "status"), 200)
	for query, n := range map[string]int{"": 3, "?marketplace=gcp": 2, "?operation=report": 1, "?after=1": 2, "?limit=1": 1, "?marketplace=azure": 0} {
		want(t, query, len(b.control(http.MethodGet, "/requests"+query, "").get("requests").([]any)), n)
	}
	for _, query := range []string{"/requests?x=1", "/requests?after=x", "/requests?limit=-1", "/records?x=1", "/bill?month=x", "/bill?x=1"} {
		r := httptest.NewRequest(http.MethodGet, "/control"+query, nil)
		wantStatus(t, b.send(r), 400)
	}
	want(t, "records", len(b.control(http.MethodGet, "/records", "").get("records").([]any)), 2)
	want(t, "of gcp", len(b.control(http.MethodGet, "/records?marketplace=gcp", "").get("records").([]any)), 1)
}

func TestControl_UnknownPathsAndMethods(t *testing.T) {
	b := fresh(t)
	for path, status := range map[string]int{"/": 404, "/nothing": 404, "/control": 404, "/control/nothing": 404, "/control/reset": 405} {
		w := httptest.NewRecorder()
		b.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		want(t, path, w.Code, status)
		want(t, path, w.Header().Get("Content-Type"), "application/json")
		var body map[string]string
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || body["error"] == "" {
			t.Errorf("%s: %q, %v", path, w.Body, err)
		}
	}
	w := httptest.NewRecorder()
	b.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/control/openapi.yaml", nil))
	want(t, "description", w.Body.String(), string(sandbox.ControlDescription))
}

// The log of requests has the last ones. Numbers go on, and the response says how many are gone.
func TestControl_RequestsAreBounded(t *testing.T) {
	numbers := func(b *box, query string) string {
		t.Helper()
		a := b.control(http.MethodGet, "/requests"+query, "")
		text := ""
		for i := range a.get("requests").([]any) {
			text += fmt.Sprint(a.get("requests", i, "number"), " ")
		}
		return fmt.Sprint(text, "dropped ", a.get("dropped"), " more ", a.get("more"))
	}
	file := filepath.Join(t.TempDir(), "journal")
	options := sandbox.Options{MaxRequests: 3, Journal: file}
	b := open(t, options)
	b.at(noon)
	for i := range 5 {
		b.meter(records(usage("1", "Timestamp", fmt.Sprint(noon.Add(-time.Duration(i)*time.Hour).Unix()))))
	}
	want(t, "the last 3", numbers(b, ""), "3 4 5 dropped 2 more false")
	want(t, "a page", numbers(b, "?limit=2"), "3 4 dropped 2 more true")
	want(t, "the next", numbers(b, "?limit=2&after=4"), "5 dropped 2 more false")
	want(t, "records stay", len(b.quantities()), 5)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	want(t, "after a restart", numbers(open(t, options), ""), "3 4 5 dropped 2 more false")
	b = open(t, sandbox.Options{MaxRequestBytes: 10_000})
	for range 3 {
		b.meter(strings.Repeat("x", 6000))
	}
	want(t, "by size", numbers(b, ""), "3 dropped 2 more false")
	b.meter(strings.Repeat("x", 3<<20/2))
	requests, _ := b.Requests()
	want(t, "a long body", fmt.Sprint(len(requests[0].Body), " ", requests[0].BodyLength), "65536 1572864")
	want(t, "a long body", b.control(http.MethodGet, "/requests", "").get("requests", 0, "bodyLength"), "1.572864e+06")
}

// A page whose host name points to this machine (DNS rebinding) reaches nothing.
func TestControl_HostIsLoopback(t *testing.T) {
	for host, status := range map[string]int{
		"localhost": 200, "LOCALHOST:8090": 200, "a.localhost:1": 200, "127.0.0.1": 200, "127.1.2.3:8090": 200, "[::1]:8090": 200, "[::1]": 200,
		"": 403, "example.com": 403, "localhost.example.com:8090": 403, "127.0.0.1.example.com": 403, "10.0.0.1:8090": 403, "0.0.0.0": 403,
	} {
		for local, status := range map[bool]int{true: status, false: 200} {
			b := open(t, sandbox.Options{LoopbackHosts: local})
			r := httptest.NewRequest(http.MethodGet, "/control/clock", nil)
			r.Host = host
			want(t, host, b.send(r).status, status)
		}
	}
}

// A page of another site that is open in a browser cannot reset the sandbox of the same machine.
func TestControl_OtherSitesAreRefused(t *testing.T) {
	b := fresh(t)
	for _, header := range []string{"Origin: https://example.com", "Sec-Fetch-Site: cross-site"} {
		r := httptest.NewRequest(http.MethodPost, "http://127.0.0.1:8090/control/reset", nil)
		name, value, _ := strings.Cut(header, ": ")
		r.Header.Set(name, value)
		w := httptest.NewRecorder()
		b.ServeHTTP(w, r)
		want(t, header, w.Code, 403)
	}
	clock, _ := b.Clock()
	want(t, "nothing was reset", clock.Frozen, true)
}

// Tests in this package call every operation of control.yaml, through box.control, which checks
// request and response.
func TestControl_DescriptionIsComplete(t *testing.T) {
	text := string(sandbox.ControlDescription)
	for _, operation := range []string{
		"getCatalog", "putCatalog", "getClock", "putClock", "getFaults", "postFault", "deleteFaults", "getRequests", "getRecords", "getBill", "reset", "getDescription",
	} {
		if !strings.Contains(text, "operationId: "+operation+"\n") {
			t.Errorf("%s is not described", operation)
		}
	}
	want(t, "operations", strings.Count(text, "operationId: "), 12)
}

func TestBill_IsPerBuyerProductDimensionAndMonth(t *testing.T) {
	b := fresh(t)
	b.meter(records(usage("0.1"), usage("0.2", "Timestamp", fmt.Sprint(noon.Add(-2*time.Hour).Unix())), usage("1000000.000001", "Dimension", `"gb"`)))
	b.meter(productRecords("prod-1", legacy("3"))) // the same customer in the other integration: billed twice
	b.send(awsRequest("BatchMeterUsage", "eu-west-1", records(usage("0.1"))))
	b.batch(event("0.1"), event("0.2", "effectiveStartTime", `"2026-11-18T11:00:00Z"`))
	b.report(operation("op", "9223372036854775807"), operation("op-2", "9223372036854775807"))
	a := b.control(http.MethodGet, "/bill", "")
	lines := func(i int) string {
		var parts []string
		for _, name := range []string{"marketplace", "buyer", "product", "plan", "dimension", "month", "records", "quantity", "price", "amount", "currency"} {
			if v := a.get("lines", i, name); v != nil {
				parts = append(parts, fmt.Sprint(v))
			}
		}
		return strings.Join(parts, " ")
	}
	want(t, "gb", lines(0), "aws 111122223333 prod-1 gb 2026-11 1 1000000.000001 0.25 250000.00000025 USD")
	want(t, "requests", lines(1), "aws 111122223333 prod-1 requests 2026-11 4 3.4 0.001 0.0034 USD")
	want(t, "tokens", lines(2), "azure contoso offer silver tokens 2026-11 2 0.3 0.02 0.006 USD")
	want(t, "gcp", lines(3), "gcp acme "+service+" requests 2026-11 2 18446744073709551614 0.001 18446744073709551.614 USD")
	want(t, "lines", len(a.get("lines").([]any)), 4)
	want(t, "total", a.get("totals", 0, "amount"), "250000.00340025")
	want(t, "another month", len(b.control(http.MethodGet, "/bill?month=2026-10", "").get("lines").([]any)), 0)
	want(t, "this month", len(b.control(http.MethodGet, "/bill?month=2026-11", "").get("lines").([]any)), 4)
	// A new price applies to new records.
	if err := b.PutCatalog(catalog(t, `"price": "0.25"`, `"price": "0.5"`)); err != nil {
		t.Fatal(err)
	}
	b.meter(records(usage("1", "Dimension", `"gb"`, "Timestamp", fmt.Sprint(noon.Add(-5*time.Hour).Unix()))))
	bill, _ := b.Bill("")
	want(t, "old price", bill.Lines[0].Price+" "+bill.Lines[0].Quantity, "0.25 1000000.000001")
	want(t, "new price", bill.Lines[1].Price+" "+bill.Lines[1].Quantity, "0.5 1")
}

func TestFaults_AreRules(t *testing.T) {
	b := fresh(t)
	a := b.control(http.MethodPost, "/faults", `{"marketplace":"aws","fault":"serverError","skip":1,"count":2}`)
	wantStatus(t, a, 201)
	want(t, "id", a.get("id"), 1)
	b.report(operation("op", "1")) // another marketplace
	var got []int
	for range 4 {
		got = append(got, b.meter(records()).status)
	}
	want(t, "skip 1, hit 2", got, "[200 500 500 200]")
	want(t, "hits", b.control(http.MethodGet, "/faults", "").get("faults", 0, "hit"), 2)
	wantStatus(t, b.control(http.MethodPost, "/faults", `{"fault":"serverError","count":100}`), 201)
	wantStatus(t, b.meter(records()), 500)
	wantStatus(t, b.control(http.MethodDelete, "/faults", ""), 204)
	wantStatus(t, b.meter(records()), 200)
	want(t, "ids go on", b.fault(sandbox.Fault{Fault: sandbox.Throttled, Operation: "ResolveCustomer"}).ID, 3)
	wantStatus(t, b.meter(records()), 200)
	want(t, "its operation", b.send(awsRequest("ResolveCustomer", "us-east-1", `{"RegistrationToken":"tok-1"}`)).get("__type"), "ThrottlingException")
}

func TestFaults_RulesThatCannotBeMeantAreRefused(t *testing.T) {
	b := fresh(t)
	for _, body := range []string{
		"", "{}", "[]", `{"fault":"explode"}`, `{"fault":"lost","anyOf":["lost"]}`, `{"anyOf":[]}`, `{"anyOf":["lost","x"]}`, `{"fault":"lost","count":0}`,
		`{"fault":"lost","skip":-1}`, `{"fault":"lost","probability":2}`, `{"fault":"lost","marketplace":"oracle"}`, `{"fault":"lost","operation":"meter"}`,
		`{"fault":"reset","accepted":true}`, `{"fault":"slow","accepted":false}`, `{"fault":"partial","accepted":false}`,
		`{"anyOf":["lost","checkError"]}`, `{"fault":"checkError","operation":"report"}`, `{"fault":"checkError","marketplace":"aws"}`, `{"fault":"throttled","accepted":true}`, `{"fault":"serverError","status":200}`, `{"fault":"serverError","status":404}`, `{"fault":"serverError","status":600}`, `{"fault":"slow","delayMs":-1}`,
		`{"fault":"slow"}`, `{"fault":"slow","delayMs":0}`, `{"anyOf":["lost","slow"]}`, `{"fault":"slow","delayMs":9223372036855}`, `{"fault":"slow","delayMs":18446744073710}`,
		`{"fault":"lost","probability":0}`, `{"fault":"lost","probability":-0.0}`, `{"fault":"lost","probability":0e5}`,
		`{"marketplace":"gcp","fault":"unprocessed","code":"0"}`, `{"marketplace":"gcp","fault":"unprocessed","code":"x"}`, `{"fault":"unprocessed","code":"17"}`,
		`{"marketplace":"gcp","fault":"partial","code":"+3"}`, `{"marketplace":"gcp","fault":"partial","code":""}`, `{"operation":"report","fault":"unprocessed","code":"UNAVAILABLE"}`,
		`{"marketplace":"aws","fault":"unprocessed","code":"14"}`, `{"marketplace":"azure","fault":"serverError","code":"X"}`, `{"fault":"lost","code":"14"}`,
		`{"fault":"serverError","code":"a b"}`, `{"fault":"checkError","code":"14"}`,
		`{"operation":"usageEvent","fault":"partial"}`, `{"operation":"usageEvents","fault":"unprocessed"}`, `{"operation":"usageEvents","fault":"partial"}`,
		`{"operation":"ResolveCustomer","fault":"unprocessed"}`, `{"operation":"check","fault":"partial"}`, `{"operation":"usageEvent","anyOf":["lost","partial"]}`,
		`{"operation":"usageEvent","fault":"unprocessed","records":[0]}`, `{"fault":"unprocessed","records":[25]}`, `{"marketplace":"azure","fault":"partial","records":[0,99]}`,
		`{"fault":"unprocessed","records":[]}`, `{"fault":"throttled","records":[0]}`, `{"fault":"throttled","status":503}`, `{"fault":"throttled","delayMs":5}`,
		`{"fault":"lost","status":0}`, `{"marketplace":"aws","operation":"report","fault":"lost"}`, `{"marketplace":"gcp","operation":"usageEvent","fault":"lost"}`,
		`{"marketplace":"azure","operation":"BatchMeterUsage","fault":"lost"}`, `{"Fault":"lost"}`, `{"fault":"lost","COUNT":2}`,
		`{"fault":"slow","delayMs":600001}`, `{"fault":"partial","records":[-1]}`, `{"fault":"lost","id":7}`, `{"fault":"lost","x":1}`, `{"fault":"lost"} x`,
	} {
		wantStatus(t, b.control(http.MethodPost, "/faults", body), 400)
	}
	if _, err := b.AddFault(sandbox.Fault{Fault: sandbox.Lost, Probability: math.NaN()}); err == nil {
		t.Error("a probability that is no number was accepted")
	}
	want(t, "rules", len(b.control(http.MethodGet, "/faults", "").get("faults").([]any)), 0)
}

// "The next 3 requests of azure: accepted, response lost."
func TestFaults_LostAfterAcceptance(t *testing.T) {
	b := fresh(t)
	server := b.server()
	b.fault(sandbox.Fault{Marketplace: sandbox.Azure, Fault: sandbox.Lost, Count: new(3)})
	for i := range 3 {
		r := b.azureRequest(http.MethodPost, "batchUsageEvent", `{"request":[`+event("1", "effectiveStartTime", fmt.Sprintf(`"2026-11-18T%02d:00:00Z"`, i))+`]}`)
		if a, err := over(t, server, r); err == nil {
			t.Fatalf("request %d got a response: %d %s", i, a.status, a.raw)
		}
	}
	want(t, "accepted", b.quantities(), "[1 1 1]")
	want(t, "sent again", b.status(event("1", "effectiveStartTime", `"2026-11-18T00:00:00Z"`)), "Duplicate")
	a := b.control(http.MethodGet, "/requests?operation=batchUsageEvent", "")
	want(t, "no response", a.get("requests", 0, "response"), nil)
	want(t, "fault", a.get("requests", 0, "fault"), "lost")
	// Lost before the sandbox received it: nothing is done.
	no := false
	b.fault(sandbox.Fault{Fault: sandbox.Lost, Accepted: &no})
	if _, err := over(t, server, b.azureRequest(http.MethodPost, "usageEvent", event("1"))); err == nil {
		t.Fatal("there was a response")
	}
	want(t, "accepted", b.quantities(), "[1 1 1]")
	want(t, "outcome", b.lastDecisions()[0].Outcome, sandbox.NotDone)
}

func TestFaults_OnTheConnectionAndTheResponse(t *testing.T) {
	for _, c := range []struct {
		fault    string
		accepted bool
		seen     func(a answer, err error) bool
	}{
		{sandbox.Reset, false, func(_ answer, err error) bool { return err != nil }},
		{sandbox.Lost, true, func(_ answer, err error) bool { return err != nil }},
		{sandbox.Cut, true, func(a answer, err error) bool { return err != nil && a.status == 200 && a.body == nil }},
		{sandbox.Malformed, true, func(a answer, err error) bool { return err == nil && a.status == 200 && a.body == nil && a.raw != "" }},
		{sandbox.ContentType, true, func(a answer, err error) bool {
			return err == nil && a.status == 200 && a.body == nil && strings.HasPrefix(a.header.Get("Content-Type"), "text/html")
		}},
		{sandbox.Slow, true, func(a answer, err error) bool { return err == nil && statuses(a)[0] == "Success" }},
		{sandbox.Partial, true, func(a answer, err error) bool { return err == nil && len(statuses(a)) == 0 }},
		{sandbox.Unprocessed, false, func(a answer, err error) bool { return err == nil && a.get("UnprocessedRecords", 0) != nil }},
		{sandbox.Throttled, false, func(a answer, err error) bool { return err == nil && a.get("__type") == "ThrottlingException" }},
		{sandbox.ServerError, false, func(a answer, err error) bool {
			return err == nil && a.get("__type") == "InternalServiceErrorException"
		}},
	} {
		b := fresh(t)
		server := b.server()
		rule := sandbox.Fault{Fault: c.fault}
		if c.fault == sandbox.Slow {
			rule.DelayMS = 1
		}
		b.fault(rule)
		a, err := over(t, server, awsRequest("BatchMeterUsage", "us-east-1", records(usage("1"))))
		if !c.seen(a, err) {
			t.Errorf("%s: got %d %q, %v", c.fault, a.status, a.raw, err)
		}
		want(t, c.fault, len(b.quantities()) == 1, c.accepted)
		// The fault has ended.
		want(t, c.fault, len(statuses(b.meter(records(usage("1"))))), 1)
		want(t, c.fault, b.quantities(), "[1]")
	}
}

// A rule is used up by a request only if the fault had an effect on it.
func TestFaults_WithoutAnEffectAreNoHits(t *testing.T) {
	b := fresh(t)
	hit := func(what string, rule int, hits any) {
		t.Helper()
		want(t, what, b.control(http.MethodGet, "/faults", "").get("faults", rule, "hit"), hits)
	}
	last := func() string {
		t.Helper()
		requests, err := b.Requests()
		if err != nil {
			t.Fatal(err)
		}
		return requests[len(requests)-1].Fault
	}
	// A batch that fails as a whole returns no record undone.
	b.fault(sandbox.Fault{Fault: sandbox.Unprocessed})
	wantStatus(t, b.meter(records(usage("1", "Dimension", `"nothing"`))), 400)
	wantStatus(t, b.azureCall(http.MethodPost, "batchUsageEvent", `{"request":[]}`), 400)
	wantStatus(t, b.azureCall(http.MethodPost, "usageEvent", "{}"), 400)
	wantStatus(t, b.report(), 400)
	hit("whole requests refused", 0, nil)
	want(t, "the log", last(), "")
	want(t, "a good batch", len(b.meter(records(usage("1"))).get("UnprocessedRecords").([]any)), 1)
	hit("a good batch", 0, 1)
	want(t, "the log", last(), sandbox.Unprocessed)
	// A position that the batch does not have.
	b.fault(sandbox.Fault{Fault: sandbox.Partial, Records: []int{1}})
	want(t, "one record", statuses(b.meter(records(usage("1")))), "[Success]")
	hit("one record", 1, nil)
	// usageEvent has one record: none can be missing.
	wantStatus(t, b.azureCall(http.MethodPost, "usageEvent", event("1")), 200)
	want(t, "matched", b.control(http.MethodGet, "/faults", "").get("faults", 1, "matched"), 1)
	want(t, "two records", len(statuses(b.meter(records(usage("1"), usage("1", "Dimension", `"gb"`))))), 1)
	hit("two records", 1, 1)
	want(t, "the log", last(), sandbox.Partial)
	// A check that is refused has no checkErrors.
	b.fault(sandbox.Fault{Fault: sandbox.CheckError})
	wantStatus(t, b.check("{}"), 400)
	hit("a refused check", 2, nil)
	want(t, "a check", b.check(operation("op", "1")).get("checkErrors", 0, "code"), "BILLING_STATUS_UNAVAILABLE")
	hit("a check", 2, 1)
	// Of anyOf only those that can have an effect are chosen.
	b.fault(sandbox.Fault{Marketplace: sandbox.Azure, AnyOf: []string{sandbox.Partial, sandbox.Throttled}, Count: new(20)})
	for range 20 {
		wantStatus(t, b.azureCall(http.MethodPost, "usageEvent", event("1")), 429)
	}
}

// A refused request keeps its status when its response is an HTML page.
func TestFaults_ContentTypeKeepsTheStatus(t *testing.T) {
	b := fresh(t)
	server := b.server()
	b.fault(sandbox.Fault{Fault: sandbox.ContentType, Count: new(2)})
	for body, status := range map[string]int{records(usage("1")): 200, records(usage("1", "Dimension", `"nothing"`)): 400} {
		a, err := over(t, server, awsRequest("BatchMeterUsage", "us-east-1", body))
		if err != nil || a.status != status || !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") {
			t.Errorf("got %d %q, %v, want %d", a.status, a.raw, err, status)
		}
	}
}

func TestFaults_SeedDecidesChance(t *testing.T) {
	run := func(seed uint64, rule sandbox.Fault) string {
		b := open(t, sandbox.Options{Seed: seed})
		b.at(noon)
		b.fault(rule)
		var got []int
		for range 60 {
			got = append(got, b.meter(records()).status)
		}
		return fmt.Sprint(got)
	}
	half := sandbox.Fault{AnyOf: []string{sandbox.Throttled, sandbox.ServerError}, Probability: 0.5}
	one := run(1, half)
	want(t, "the same seed", run(1, half), one)
	if run(2, half) == one {
		t.Fatal("another seed decides the same")
	}
	for _, status := range []string{"200", "400", "500"} {
		if !strings.Contains(one, status) {
			t.Fatalf("%s: there is no %s", one, status)
		}
	}
	seed := uint64(9)
	half.Seed = &seed
	want(t, "a rule's own seed", run(1, half), run(2, half))
}

func TestSandbox_IsDeterministicUnderASeed(t *testing.T) {
	run := func(seed uint64) string {
		b := open(t, sandbox.Options{Seed: seed})
		b.work()
		return b.everything()
	}
	one := run(1)
	want(t, "the same seed", run(1), one)
	if run(2) == one {
		t.Fatal("another seed gives the same ids")
	}
}

// Of many concurrent records for one hour, each marketplace accepts one.
func TestSandbox_ConcurrentRequestsAcceptOne(t *testing.T) {
	b := fresh(t)
	b.azureRequest(http.MethodPost, "usageEvent", "")
	b.googleLogin()
	var clients sync.WaitGroup
	for i := range 16 {
		clients.Go(func() {
			for _, r := range []*http.Request{
				awsRequest("BatchMeterUsage", "us-east-1", records(usage(fmt.Sprint(i+1)))), b.azureRequest(http.MethodPost, "usageEvent", event(fmt.Sprint(i+1))),
			} {
				b.ServeHTTP(httptest.NewRecorder(), r)
			}
			b.report(operation("op", fmt.Sprint(i+1)))
		})
	}
	clients.Wait()
	want(t, "records", len(b.quantities()), 3)
	requests, _ := b.Requests()
	for i, r := range requests {
		want(t, "number", r.Number, i+1)
	}
	if !slices.IsSortedFunc(requests, func(a, b sandbox.Request) int { return int(a.Number) - int(b.Number) }) {
		t.Fatal("requests are not in order")
	}
}
