package sandbox_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/sandbox"
)

// awsRequest is a request to AWS with a well-formed signature.
func awsRequest(operation, region, body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/aws/", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	r.Header.Set("X-Amz-Target", "AWSMPMeteringService."+operation)
	r.Header.Set("X-Amz-Date", "20261118T123000Z")
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261118/"+region+"/aws-marketplace/aws4_request, "+
		"SignedHeaders=content-type;host;x-amz-date;x-amz-target, Signature="+strings.Repeat("0f", 32))
	return r
}

// usage is a record of the newer integration, at the start of noon's hour, after the changes. Each
// change is a name and the JSON of its value, or "" to omit it.
func usage(quantity string, changes ...string) string {
	return record([]string{
		"Timestamp", fmt.Sprint(noon.Truncate(time.Hour).Unix()), "Dimension", `"requests"`, "QuantityAsDecimal", `"` + quantity + `"`,
		"CustomerAWSAccountId", `"` + account + `"`, "LicenseArn", `"` + licence + `"`,
	}, changes)
}

// legacy is the same record in the older integration.
func legacy(quantity string, changes ...string) string {
	return usage(quantity, append([]string{"CustomerAWSAccountId", "", "LicenseArn", "", "CustomerIdentifier", `"cust-1"`}, changes...)...)
}

func record(members, changes []string) string {
	var names []string
	values := map[string]string{}
	for _, list := range [][]string{members, changes} {
		for i := 0; i < len(list); i += 2 {
			if _, known := values[list[i]]; !known {
				names = append(names, list[i])
			}
			values[list[i]] = list[i+1]
		}
	}
	var parts []string
	for _, name := range names {
		if values[name] != "" {
			parts = append(parts, fmt.Sprintf("%q:%s", name, values[name]))
		}
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func records(list ...string) string { return `{"UsageRecords":[` + strings.Join(list, ",") + `]}` }

func productRecords(product string, list ...string) string {
	return fmt.Sprintf(`{"ProductCode":%q,"UsageRecords":[%s]}`, product, strings.Join(list, ","))
}

func (b *box) meter(body string) answer {
	b.t.Helper()
	return b.send(awsRequest("BatchMeterUsage", "us-east-1", body))
}

// wantAWSError checks that the whole request was refused with the error, in the protocol's shape,
// and that nothing of it was stored.
func (b *box) wantAWSError(a answer, name string) {
	b.t.Helper()
	if a.status != 400 || a.get("__type") != name || a.header.Get("X-Amzn-Errortype") != name || a.get("message") == nil ||
		a.header.Get("Content-Type") != "application/x-amz-json-1.1" {
		b.t.Fatalf("got %d %s, want 400 %s", a.status, a.raw, name)
	}
	decisions := b.lastDecisions()
	if len(decisions) != 1 || decisions[0].Record != nil || decisions[0].Status != name {
		b.t.Fatalf("decisions: %+v, want one, %s of the whole request", decisions, name)
	}
}

func statuses(a answer) []any {
	var all []any
	list, _ := a.get("Results").([]any)
	for i := range list {
		all = append(all, a.get("Results", i, "Status"))
	}
	return all
}

func TestAWS_BothIntegrationsAreAccepted(t *testing.T) {
	b := fresh(t)
	a := b.meter(records(usage("17.42")))
	wantStatus(t, a, 200)
	want(t, "status", a.get("Results", 0, "Status"), "Success")
	want(t, "echo", a.get("Results", 0, "UsageRecord", "QuantityAsDecimal"), "17.42")
	if id, _ := a.get("Results", 0, "MeteringRecordId").(string); id == "" {
		t.Fatal("there is no MeteringRecordId")
	}
	want(t, "unprocessed", a.get("UnprocessedRecords"), "[]")
	wantStatus(t, b.meter(productRecords("prod-1", legacy("", "QuantityAsDecimal", "", "Quantity", "5"))), 200)
	// Using both integrations for one customer in one hour bills twice.
	want(t, "quantities", b.quantities(), "[17.42 5]")
}

func TestAWS_AtMost25Records(t *testing.T) {
	b := fresh(t)
	var list []string
	for i := range 26 {
		list = append(list, usage("1", "Timestamp", fmt.Sprint(noon.Add(-time.Duration(i)*time.Hour).Unix())))
	}
	list[24], list[25] = usage("1", "Dimension", `"gb"`), usage("2", "Dimension", `"gb"`, "Timestamp", fmt.Sprint(noon.Add(-2*time.Hour).Unix()))
	b.wantAWSError(b.meter(records(list...)), "ValidationException")
	want(t, "records", len(b.quantities()), 0)
	want(t, "statuses", len(statuses(b.meter(records(list[:25]...)))), 25)
	want(t, "records", len(b.quantities()), 25)
	wantStatus(t, b.meter(records()), 200) // the model's minimum is 0
}

func TestAWS_RequestIsUnder1MB(t *testing.T) {
	b := fresh(t)
	body := records(usage("1"))
	b.wantAWSError(b.meter(body+strings.Repeat(" ", 1_000_000-len(body))), "RequestEntityTooLargeException")
	b.wantAWSError(b.meter(body+strings.Repeat(" ", 3_000_000)), "RequestEntityTooLargeException")
	wantStatus(t, b.meter(body+strings.Repeat(" ", 999_999-len(body))), 200)
}

func TestAWS_OneProductPerRequest(t *testing.T) {
	b := fresh(t)
	other := usage("1", "LicenseArn", `"arn:aws:license-manager::294406891311:license:l-0002"`)
	b.wantAWSError(b.meter(records(usage("1"), other)), "InvalidLicenseException")
	wantStatus(t, b.meter(records(other)), 200)
	b.wantAWSError(b.meter(productRecords("prod-9", legacy("1"))), "InvalidProductCodeException")
	b.wantAWSError(b.meter(records(legacy("1"))), "InvalidProductCodeException")
}

func TestAWS_UsageWindowIs24Hours(t *testing.T) {
	for _, c := range []struct {
		age time.Duration
		ok  bool
	}{{0, true}, {24*time.Hour - time.Second, true}, {24 * time.Hour, false}, {25 * time.Hour, false}, {-time.Second, false}} {
		b := fresh(t)
		a := b.meter(records(usage("1"), usage("1", "Dimension", `"gb"`, "Timestamp", fmt.Sprint(noon.Add(-c.age).Unix()))))
		if c.ok {
			want(t, c.age.String(), statuses(a), "[Success Success]")
		} else {
			b.wantAWSError(a, "TimestampOutOfBoundsException")
			want(t, "records", len(b.quantities()), 0)
		}
	}
}

func TestAWS_MonthClosesOnThe1stAt6UTC(t *testing.T) {
	october := fmt.Sprint(time.Date(2026, 10, 31, 23, 0, 0, 0, time.UTC).Unix())
	for _, c := range []struct {
		now string
		ok  bool
	}{{"2026-11-01T05:59:59Z", true}, {"2026-11-01T06:00:00Z", false}, {"2026-11-01T12:00:00Z", false}} {
		b := fresh(t)
		now, _ := time.Parse(time.RFC3339, c.now)
		b.at(now)
		a := b.meter(records(usage("1", "Timestamp", october)))
		if c.ok {
			want(t, c.now, statuses(a), "[Success]")
			bill, _ := b.Bill("2026-10")
			want(t, "October's lines", len(bill.Lines), 1)
		} else {
			b.wantAWSError(a, "TimestampOutOfBoundsException")
		}
	}
	// The limit of 24 hours also applies within the grace of 6 hours.
	b := fresh(t)
	b.at(time.Date(2026, 11, 1, 5, 0, 0, 0, time.UTC))
	b.wantAWSError(b.meter(records(usage("1", "Timestamp", fmt.Sprint(time.Date(2026, 10, 31, 5, 0, 0, 0, time.UTC).Unix())))), "TimestampOutOfBoundsException")
}

func TestAWS_NotBeforeTheStartOfUse(t *testing.T) {
	b := fresh(t, `"start": "2026-01-01T00:00:00Z"`, `"start": "2026-11-18T12:15:00Z"`)
	b.wantAWSError(b.meter(records(usage("1"))), "InvalidLicenseException")
	b.wantAWSError(b.meter(productRecords("prod-1", legacy("1"))), "TimestampOutOfBoundsException")
	start := fmt.Sprint(time.Date(2026, 11, 18, 12, 15, 0, 0, time.UTC).Unix())
	want(t, "at the start", statuses(b.meter(records(usage("1", "Timestamp", start)))), "[Success]")
}

func TestAWS_CancellationLeavesAnHour(t *testing.T) {
	cancel := []string{`"start": "2026-01-01T00:00:00Z"`, `"start": "2026-01-01T00:00:00Z", "cancelled": "2026-11-18T12:10:00Z"`}
	before, after := fmt.Sprint(noon.Add(-21*time.Minute).Unix()), fmt.Sprint(noon.Add(-20*time.Minute).Unix())
	for _, make := range []func(string, ...string) string{usage, legacy} {
		wrap := func(r string) string {
			if strings.Contains(r, "LicenseArn") {
				return records(r)
			}
			return productRecords("prod-1", r)
		}
		b := fresh(t, cancel...)
		want(t, "after the cancellation", statuses(b.meter(wrap(make("1", "Timestamp", after)))), "[CustomerNotSubscribed]")
		want(t, "before it", statuses(b.meter(wrap(make("1", "Timestamp", before)))), "[Success]")
		b = fresh(t, cancel...)
		b.at(time.Date(2026, 11, 18, 13, 10, 0, 0, time.UTC))
		want(t, "an hour later", statuses(b.meter(wrap(make("1", "Timestamp", before)))), "[CustomerNotSubscribed]")
		b.at(time.Date(2026, 11, 18, 13, 9, 59, 0, time.UTC))
		want(t, "a second earlier", statuses(b.meter(wrap(make("1", "Timestamp", before)))), "[Success]")
	}
}

func TestAWS_QuantityForms(t *testing.T) {
	decimal := func(text string) string { return usage("", "QuantityAsDecimal", text) }
	whole := func(text string) string { return usage("", "QuantityAsDecimal", "", "Quantity", text) }
	for _, c := range []struct{ record, want string }{
		{decimal(`"0"`), "0"},
		{decimal(`"9999999999.999999"`), "9999999999.999999"},
		{decimal(`"0.000001"`), "0.000001"},
		{decimal(`"1.50"`), "1.5"},
		{whole(`0`), "0"},
		{whole(`2147483647`), "2147483647"},
		{whole(""), "0"},
	} {
		b := fresh(t)
		wantStatus(t, b.meter(records(c.record)), 200)
		want(t, c.record, b.quantities(), "["+c.want+"]")
	}
	for _, c := range []struct{ record, want string }{
		{decimal(`"10000000000"`), "ValidationException"},
		{decimal(`"0.0000001"`), "ValidationException"},
		{decimal(`"-1"`), "ValidationException"},
		{decimal(`"01"`), "ValidationException"},
		{decimal(`"1."`), "ValidationException"},
		{decimal(`".5"`), "ValidationException"},
		{decimal(`"1e3"`), "ValidationException"},
		{decimal(`""`), "ValidationException"},
		{decimal(`1.5`), "SerializationException"},
		{whole(`-1`), "ValidationException"},
		{whole(`2147483648`), "ValidationException"},
		{whole(`1.5`), "SerializationException"},
		{whole(`"1"`), "SerializationException"},
	} {
		b := fresh(t)
		b.wantAWSError(b.meter(records(c.record)), c.want)
		want(t, "records", len(b.quantities()), 0)
	}
}

func TestAWS_NeverBothKindsOfQuantity(t *testing.T) {
	b := fresh(t)
	b.wantAWSError(b.meter(records(usage("1", "Quantity", "1"))), "ValidationException")
	b.wantAWSError(b.meter(records(usage("1"), usage("", "QuantityAsDecimal", "", "Quantity", "1", "Dimension", `"gb"`))), "ValidationException")
	want(t, "outcome", b.lastDecisions()[0].Outcome, sandbox.Undocumented)
}

func TestAWS_IdentityIsTheHourPerRegion(t *testing.T) {
	b := fresh(t)
	hour := noon.Truncate(time.Hour)
	at := func(d time.Duration) string { return fmt.Sprint(hour.Add(d).Unix()) }
	want(t, "first", statuses(b.meter(records(usage("1")))), "[Success]")
	for what, r := range map[string]string{
		"the end of the hour": usage("2", "Timestamp", at(29*time.Minute)), "a fraction of a second": usage("2", "Timestamp", at(0)+".25"),
	} {
		want(t, what, statuses(b.meter(records(r))), "[DuplicateRecord]")
	}
	for what, r := range map[string]string{
		"another hour": usage("2", "Timestamp", at(-time.Second)), "another dimension": usage("2", "Dimension", `"gb"`),
	} {
		want(t, what, statuses(b.meter(records(r))), "[Success]")
	}
	// The same hour in two Regions bills twice.
	want(t, "another Region", statuses(b.send(awsRequest("BatchMeterUsage", "eu-west-1", records(usage("2"))))), "[Success]")
	want(t, "quantities", len(b.quantities()), 4)
	// In the older integration, product and customer are the identity.
	want(t, "legacy", statuses(b.meter(productRecords("prod-1", legacy("3")))), "[Success]")
	want(t, "legacy again", statuses(b.meter(productRecords("prod-1", legacy("4")))), "[DuplicateRecord]")
	want(t, "legacy, another product", statuses(b.meter(productRecords("prod-2", legacy("4")))), "[Success]")
}

func TestAWS_FirstWriteWins(t *testing.T) {
	b := fresh(t)
	b.meter(records(usage("7")))
	a := b.meter(records(usage("8")))
	want(t, "another quantity", statuses(a), "[DuplicateRecord]")
	if a.get("Results", 0, "MeteringRecordId") != nil || strings.Contains(a.raw, `"7"`) {
		t.Fatalf("%s tells the accepted record", a.raw)
	}
	want(t, "outcome", b.lastDecisions()[0].Outcome, sandbox.Duplicate)
	// The first one wins within one request too.
	want(t, "twice in a request", statuses(b.meter(records(usage("1", "Dimension", `"gb"`), usage("2", "Dimension", `"gb"`)))), "[Success DuplicateRecord]")
	// Quantities are never added up.
	want(t, "quantities", b.quantities(), "[7 1]")
}

func TestAWS_IdenticalResendIsASetting(t *testing.T) {
	for _, c := range []struct {
		setting sandbox.Resend
		want    string
	}{{"", "Success"}, {sandbox.ResendSuccess, "Success"}, {sandbox.ResendDuplicate, "DuplicateRecord"}} {
		b := open(t, sandbox.Options{IdenticalResend: c.setting})
		b.at(noon)
		first := b.meter(records(usage("17")))
		again := b.meter(records(usage("17")))
		want(t, "status", statuses(again), "["+c.want+"]")
		// Quantities are compared by value.
		want(t, "17.00", statuses(b.meter(records(usage("17.00")))), "["+c.want+"]")
		want(t, "whole", statuses(b.meter(records(usage("", "QuantityAsDecimal", "", "Quantity", "17")))), "["+c.want+"]")
		if c.want == "Success" {
			want(t, "id", again.get("Results", 0, "MeteringRecordId"), first.get("Results", 0, "MeteringRecordId"))
		}
		want(t, "quantities", b.quantities(), "[17]")
	}
	if _, err := sandbox.New(sandbox.Options{IdenticalResend: "Perhaps"}); err == nil {
		t.Fatal("a setting that there is not was taken")
	}
}

func TestAWS_OneBadRecordFailsTheWholeRequest(t *testing.T) {
	tag := func(tags string) string {
		return usage("1", "UsageAllocations", `[{"AllocatedUsageQuantityAsDecimal":"1","Tags":[`+tags+`]}]`)
	}
	for _, c := range []struct{ what, record, want string }{
		{"timestamp", usage("1", "Timestamp", "0"), "TimestampOutOfBoundsException"},
		{"dimension", usage("1", "Dimension", `"rqeuests"`), "InvalidUsageDimensionException"},
		{"licence", usage("1", "LicenseArn", `"arn:aws:license-manager::294406891311:license:l-9"`), "InvalidLicenseException"},
		{"another customer's licence", usage("1", "CustomerAWSAccountId", `"444455556666"`), "InvalidLicenseException"},
		{"customer id", usage("1", "CustomerAWSAccountId", "", "LicenseArn", ""), "InvalidCustomerIdentifierException"},
		{"licence without customer", usage("1", "CustomerAWSAccountId", ""), "InvalidCustomerIdentifierException"},
		{"both customers", usage("1", "CustomerIdentifier", `"cust-1"`), "InvalidCustomerIdentifierException"},
		{"tags", tag(`{"Key":"ä","Value":"b"}`), "InvalidTagException"},
		{"allocations", usage("1", "UsageAllocations", `[{"AllocatedUsageQuantityAsDecimal":"2"}]`), "InvalidUsageAllocationsException"},
		{"mixed kinds of quantity", usage("1", "UsageAllocations", `[{"AllocatedUsageQuantity":1}]`), "InvalidUsageAllocationsException"},
		{"both quantities", usage("1", "Quantity", "1"), "ValidationException"},
		{"unknown member", usage("1", "QuantityAsDecimals", `"1"`), "SerializationException"},
	} {
		b := fresh(t)
		b.wantAWSError(b.meter(records(usage("1", "Dimension", `"gb"`), c.record)), c.want)
		want(t, c.what, len(b.quantities()), 0)
		// Without that record the rest is accepted: bisecting finds it.
		want(t, c.what, statuses(b.meter(records(usage("1", "Dimension", `"gb"`)))), "[Success]")
	}
	b := fresh(t)
	b.wantAWSError(b.meter(productRecords("prod-1", legacy("1"), legacy("1", "CustomerIdentifier", `"cust-9"`))), "InvalidCustomerIdentifierException")
}

func TestAWS_IdentifiersHaveTheirForm(t *testing.T) {
	b := fresh(t)
	for _, r := range []string{
		usage("1", "CustomerAWSAccountId", `"1111-2222"`), usage("1", "LicenseArn", `"l-0001"`), usage("1", "UsageAllocations", `[{"AllocatedUsageQuantityAsDecimal":"1."}]`),
	} {
		b.wantAWSError(b.meter(records(r)), "ValidationException")
	}
	// The lengths are the model's.
	long := func(n int) string { return `"arn:aws:license-manager::294406891311:` + strings.Repeat("l", n) + `"` }
	b.wantAWSError(b.meter(records(usage("1", "LicenseArn", long(1025)))), "ValidationException")
	b.wantAWSError(b.meter(records(usage("1", "LicenseArn", long(1024)))), "InvalidLicenseException")
	b.wantAWSError(b.meter(records(usage("1", "CustomerAWSAccountId", `"`+strings.Repeat("1", 256)+`"`))), "ValidationException")
	name := func(n int) string { return `"` + strings.Repeat("ä", n) + `"` }
	b.wantAWSError(b.meter(productRecords("prod-1", legacy("1", "CustomerIdentifier", name(256)))), "ValidationException")
	b.wantAWSError(b.meter(productRecords("prod-1", legacy("1", "CustomerIdentifier", name(255)))), "InvalidCustomerIdentifierException")
	twice := `[{"AllocatedUsageQuantityAsDecimal":"1","Tags":[{"Key":"a","Value":"b"},{"Key":"a","Value":"c"}]}]`
	b.wantAWSError(b.meter(records(usage("1", "UsageAllocations", twice))), "InvalidTagException")
	for _, r := range []string{
		usage("1", "LicenseArn", "5"), usage("1", "UsageAllocations", "{}"), usage("1", "UsageAllocations", `[{"Tag":[]}]`),
		usage("1", "UsageAllocations", `[{"AllocatedUsageQuantityAsDecimal":"1","Tags":{}}]`),
		usage("1", "UsageAllocations", `[{"AllocatedUsageQuantityAsDecimal":"1","Tags":[{"Key":1}]}]`),
	} {
		b.wantAWSError(b.meter(records(r)), "SerializationException")
	}
}

func TestAWS_OneOfSeveralAgreementsIsEnough(t *testing.T) {
	// Two agreements of one customer for one product: one starts later, the other has ended.
	const first = `{"accountId": "111122223333", "productCode": "prod-2", "licenseArn": "arn:aws:license-manager::294406891311:license:l-0002"}`
	const later = `{"accountId": "111122223333", "productCode": "prod-2", "start": "2026-11-18T12:20:00Z"}`
	b := fresh(t, first, `{"accountId": "111122223333", "productCode": "prod-2", "cancelled": "2026-11-18T11:00:00Z"}, `+later)
	at := func(minute int) string {
		return fmt.Sprint(noon.Truncate(time.Hour).Add(time.Duration(minute) * time.Minute).Unix())
	}
	want(t, "between them", statuses(b.meter(productRecords("prod-2", legacy("1", "Timestamp", at(10))))), "[CustomerNotSubscribed]")
	want(t, "in the second", statuses(b.meter(productRecords("prod-2", legacy("1", "Timestamp", at(20))))), "[Success]")
}

func TestAWS_FaultsHaveItsForm(t *testing.T) {
	b := fresh(t)
	b.fault(sandbox.Fault{Fault: sandbox.ServerError, Status: 503, Code: "ServiceUnavailableException"})
	a := b.meter(records(usage("1")))
	wantStatus(t, a, 503)
	want(t, "type", a.get("__type"), "ServiceUnavailableException")
	b.fault(sandbox.Fault{Fault: sandbox.ServerError})
	wantStatus(t, b.meter(records(usage("1"))), 500)
	b.fault(sandbox.Fault{Fault: sandbox.Throttled})
	want(t, "type", b.meter(records(usage("1"))).get("__type"), "ThrottlingException")
	want(t, "records", len(b.quantities()), 0)
	// Each record is unprocessed by chance, at least one of them; the others are done.
	b.fault(sandbox.Fault{Fault: sandbox.Unprocessed})
	a = b.meter(records(usage("1"), usage("1", "Dimension", `"gb"`)))
	undone := len(a.get("UnprocessedRecords").([]any))
	if undone == 0 {
		t.Fatal("all records were processed")
	}
	want(t, "records", len(b.quantities()), 2-undone)
}

func TestAWS_ProductCodeWithLicenseArnIsRefused(t *testing.T) {
	b := fresh(t)
	b.wantAWSError(b.meter(productRecords("prod-1", usage("1"))), "InvalidProductCodeException")
}

func TestAWS_NewProductsAreMeteredByLicence(t *testing.T) {
	b := fresh(t)
	b.wantAWSError(b.meter(productRecords("prod-new", legacy("1"))), "InvalidCustomerIdentifierException")
	want(t, "by licence", statuses(b.meter(records(usage("1", "LicenseArn", `"arn:aws:license-manager::294406891311:license:l-0003"`)))), "[Success]")
	// An account with a product code matches neither of the two integrations.
	b.wantAWSError(b.meter(productRecords("prod-1", usage("1", "LicenseArn", ""))), "InvalidLicenseException")
	want(t, "outcome", b.lastDecisions()[0].Outcome, sandbox.Undocumented)
}

func TestAWS_AllocationsSumToTheQuantity(t *testing.T) {
	allocations := func(list string) string { return usage("10", "UsageAllocations", "["+list+"]") }
	tags := func(n int) string {
		var list []string
		for i := range n {
			list = append(list, fmt.Sprintf(`{"Key":"k%d","Value":"v"}`, i))
		}
		return strings.Join(list, ",")
	}
	many := strings.Repeat(`{"AllocatedUsageQuantityAsDecimal":"0"},`, 2500) + `{"AllocatedUsageQuantityAsDecimal":"10"}`
	for _, c := range []struct{ list, want string }{
		{`{"AllocatedUsageQuantityAsDecimal":"9.999999","Tags":[{"Key":"a","Value":"b"}]},{"AllocatedUsageQuantityAsDecimal":"0.000001"}`, ""},
		{`{"AllocatedUsageQuantityAsDecimal":"10","Tags":[` + tags(5) + `]}`, ""},
		{`{"AllocatedUsageQuantityAsDecimal":"9.999999"}`, "InvalidUsageAllocationsException"},
		{`{"AllocatedUsageQuantity":10}`, "InvalidUsageAllocationsException"},
		{`{"Tags":[{"Key":"a","Value":"b"}]}`, "InvalidUsageAllocationsException"},
		// Sets of tags must differ, whatever their order.
		{`{"AllocatedUsageQuantityAsDecimal":"4","Tags":[{"Key":"a","Value":"b"},{"Key":"c","Value":"d"}]},` +
			`{"AllocatedUsageQuantityAsDecimal":"6","Tags":[{"Key":"c","Value":"d"},{"Key":"a","Value":"b"}]}`, "InvalidUsageAllocationsException"},
		{`{"AllocatedUsageQuantityAsDecimal":"10","Tags":[` + tags(6) + `]}`, "InvalidTagException"},
		{`{"AllocatedUsageQuantityAsDecimal":"10","Tags":[]}`, "InvalidTagException"},
		{`{"AllocatedUsageQuantityAsDecimal":"10","Tags":[{"Key":"","Value":"b"}]}`, "InvalidTagException"},
		{`{"AllocatedUsageQuantityAsDecimal":"10","Tags":[{"Key":"` + strings.Repeat("a", 101) + `","Value":"b"}]}`, "InvalidTagException"},
		{`{"AllocatedUsageQuantityAsDecimal":"10","Tags":[{"Key":"a","Value":"` + strings.Repeat("a", 257) + `"}]}`, "InvalidTagException"},
		{"", "ValidationException"},
		{many, "ValidationException"},
	} {
		b := fresh(t)
		a := b.meter(records(allocations(c.list)))
		if c.want == "" {
			want(t, c.list, statuses(a), "[Success]")
			continue
		}
		b.wantAWSError(a, c.want)
	}
}

func TestAWS_CustomerNotSubscribedIsPerRecord(t *testing.T) {
	b := fresh(t)
	a := b.meter(productRecords("prod-1", legacy("1"), legacy("1", "CustomerIdentifier", `"cust-2"`), legacy("1", "CustomerIdentifier", `"cust-suspended"`)))
	want(t, "statuses", statuses(a), "[Success CustomerNotSubscribed CustomerNotSubscribed]")
	want(t, "quantities", b.quantities(), "[1]")
}

func TestAWS_ZeroLocksTheHour(t *testing.T) {
	b := fresh(t)
	want(t, "zero", statuses(b.meter(records(usage("0")))), "[Success]")
	want(t, "later usage", statuses(b.meter(records(usage("5")))), "[DuplicateRecord]")
	want(t, "quantities", b.quantities(), "[0]")
}

func TestAWS_UnprocessedRecordsAreNotBilled(t *testing.T) {
	b := fresh(t)
	b.fault(sandbox.Fault{Marketplace: sandbox.AWS, Fault: sandbox.Unprocessed, Records: []int{1}})
	a := b.meter(records(usage("1"), usage("2", "Dimension", `"gb"`)))
	want(t, "results", len(statuses(a)), 1)
	want(t, "unprocessed", a.get("UnprocessedRecords", 0, "QuantityAsDecimal"), "2")
	want(t, "quantities", b.quantities(), "[1]")
	want(t, "sent again", statuses(b.meter(records(usage("2", "Dimension", `"gb"`)))), "[Success]")
}

func TestAWS_TenRequestsASecondPerAccountAndRegion(t *testing.T) {
	b := open(t, sandbox.Options{RateLimit: sandbox.DefaultRateLimit})
	b.at(noon) // the limit counts real time, not the sandbox's clock
	for i := range 10 {
		wantStatus(t, b.meter(records()), 200)
		if i < 9 {
			b.machine.advance(50 * time.Millisecond)
		}
	}
	b.wantAWSError(b.meter(records(usage("1"))), "ThrottlingException")
	want(t, "records", len(b.quantities()), 0)
	wantStatus(t, b.send(awsRequest("BatchMeterUsage", "eu-west-1", records())), 200)
	other := awsRequest("BatchMeterUsage", "us-east-1", records())
	other.Header.Set("Authorization", strings.Replace(other.Header.Get("Authorization"), "AKIDEXAMPLE", "AKIDOTHER", 1))
	wantStatus(t, b.send(other), 200)
	b.machine.advance(time.Second - 450*time.Millisecond) // the first of the ten was a second ago
	wantStatus(t, b.meter(records(usage("1"))), 200)
	b.wantAWSError(b.meter(records()), "ThrottlingException")
}

func TestAWS_SellersShareAnAccountsRate(t *testing.T) {
	c := catalog(t, `"aws": {`, `"aws": {"sellers": [{"accountId": "999900001111", "accessKeyIds": ["AKIDEXAMPLE", "AKIDTWO"]}],`)
	b := open(t, sandbox.Options{Catalog: c, RateLimit: 1})
	b.at(noon)
	wantStatus(t, b.meter(records()), 200)
	second := awsRequest("BatchMeterUsage", "us-east-1", records())
	second.Header.Set("Authorization", strings.Replace(second.Header.Get("Authorization"), "AKIDEXAMPLE", "AKIDTWO", 1))
	b.wantAWSError(b.send(second), "ThrottlingException")
	stranger := awsRequest("BatchMeterUsage", "us-east-1", records())
	stranger.Header.Set("Authorization", strings.Replace(stranger.Header.Get("Authorization"), "AKIDEXAMPLE", "AKIDNOBODY", 1))
	b.wantAWSError(b.send(stranger), "UnrecognizedClientException")
}

func TestAWS_DisabledApiOutsideTheRegions(t *testing.T) {
	b := fresh(t, `"aws": {`, `"aws": {"regions": ["us-east-1"],`)
	wantStatus(t, b.meter(records(usage("1"))), 200)
	b.wantAWSError(b.send(awsRequest("BatchMeterUsage", "eu-west-1", records(usage("1")))), "DisabledApiException")
}

func TestAWS_SignatureHasItsForm(t *testing.T) {
	b := fresh(t)
	good := awsRequest("BatchMeterUsage", "us-east-1", "").Header.Get("Authorization")
	for authorization, name := range map[string]string{
		"": "MissingAuthenticationTokenException", "Bearer x": "IncompleteSignatureException",
		strings.Replace(good, "Signature=0f", "Signature=xx", 1):               "IncompleteSignatureException",
		strings.Replace(good, "host;x-amz-date", "x-amz-date", 1):              "IncompleteSignatureException",
		strings.Replace(good, "aws4_request", "aws3_request", 1):               "IncompleteSignatureException",
		strings.Replace(good, "/aws-marketplace/", "/dynamodb/", 1):            "InvalidSignatureException",
		strings.Replace(good, "/20261118/us-east-1", "/20261119/us-east-1", 1): "InvalidSignatureException",
	} {
		r := awsRequest("BatchMeterUsage", "us-east-1", records(usage("1")))
		r.Header.Set("Authorization", authorization)
		if authorization == "" {
			r.Header.Del("Authorization")
		}
		b.wantAWSError(b.send(r), name)
	}
	r := awsRequest("BatchMeterUsage", "us-east-1", records(usage("1")))
	r.URL.Path = "/aws/eu-west-1/" // an endpoint of a Region other than the signature's
	b.wantAWSError(b.send(r), "InvalidSignatureException")
	r = awsRequest("BatchMeterUsage", "eu-west-1", records(usage("1")))
	r.URL.Path = "/aws/eu-west-1"
	wantStatus(t, b.send(r), 200)
}

func TestAWS_ProtocolIsJSON11(t *testing.T) {
	b := fresh(t)
	r := awsRequest("BatchMeterUsage", "us-east-1", records(usage("1")))
	r.Header.Set("Content-Type", "application/json")
	b.wantAWSError(b.send(r), "SerializationException")
	b.wantAWSError(b.send(awsRequest("MeterUsage", "us-east-1", "{}")), "UnknownOperationException")
	for body, name := range map[string]string{
		"": "SerializationException", "[]": "SerializationException", "{": "SerializationException", "{}": "ValidationException",
		`{"UsageRecords":{}}`: "SerializationException", `{"UsageRecords":[1]}`: "SerializationException", `{"UsageRecords":[]}x`: "SerializationException",
		`{"UsageRecords":[],"UsageRecords":[]}`: "SerializationException", `{"usageRecords":[]}`: "SerializationException", "{\"UsageRecords\":[\"\xff\"]}": "SerializationException",
		records(usage("1", "Timestamp", `"2026-11-18T12:00:00Z"`)): "SerializationException", records(usage("1", "Timestamp", "1e400")): "SerializationException",
		records(usage("1", "Timestamp", "1e4000000")): "SerializationException", records(usage("1", "Timestamp", "-1")): "SerializationException",
		records(usage("1", "Timestamp", "")): "ValidationException", records(usage("1", "Dimension", "")): "ValidationException",
		records(usage("1", "Dimension", `"`+strings.Repeat("d", 256)+`"`)):             "ValidationException",
		`{"UsageRecords":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`: "SerializationException",
		`{"ProductCode":"a b","UsageRecords":[]}`:                                      "ValidationException",
	} {
		b.wantAWSError(b.meter(body), name)
	}
}

func TestAWS_ResolveCustomer(t *testing.T) {
	b := fresh(t)
	resolve := func(token string) answer {
		return b.send(awsRequest("ResolveCustomer", "us-east-1", fmt.Sprintf(`{"RegistrationToken":%q}`, token)))
	}
	a := resolve("tok-1")
	wantStatus(t, a, 200)
	want(t, "account", a.get("CustomerAWSAccountId"), account)
	want(t, "identifier", a.get("CustomerIdentifier"), "cust-1")
	want(t, "product", a.get("ProductCode"), "prod-1")
	want(t, "licence", a.get("LicenseArn"), licence)
	want(t, "agreement", a.get("Metadata", "AgreementId"), "agmt-1")
	// New integrations have no customer identifier.
	want(t, "identifier of a new product", resolve("tok-new").get("CustomerIdentifier"), nil)
	b.wantAWSError(resolve("tok-9"), "InvalidTokenException")
	b.wantAWSError(resolve("tok-old"), "ExpiredTokenException")
	b.wantAWSError(resolve(""), "ValidationException")
	b.wantAWSError(b.send(awsRequest("ResolveCustomer", "us-east-1", `{"Token":"x"}`)), "SerializationException")
}

func TestAWS_AnotherAccountsProductIsRefused(t *testing.T) {
	b := fresh(t, `"aws": {`, `"aws": {"sellers": [{"accountId": "999900001111", "accessKeyIds": ["AKIDEXAMPLE"]}, {"accountId": "999900002222", "accessKeyIds": ["AKIDOTHER"]}],`,
		`{"productCode": "prod-1",`, `{"productCode": "prod-1", "seller": "999900002222",`)
	b.wantAWSError(b.meter(records(usage("1"))), "InvalidLicenseException")
	b.wantAWSError(b.meter(productRecords("prod-1", legacy("1"))), "InvalidProductCodeException")
	b.wantAWSError(b.send(awsRequest("ResolveCustomer", "us-east-1", `{"RegistrationToken":"tok-1"}`)), "InvalidTokenException")
}

func TestAWS_EarlierRecordStandsAfterTheAgreement(t *testing.T) {
	ended := func(changes ...string) sandbox.Catalog { return catalog(t, changes...) }
	for what, c := range map[string]sandbox.Catalog{
		"cancelled": ended(`"start": "2026-01-01T00:00:00Z"`, `"start": "2026-01-01T00:00:00Z", "cancelled": "2026-11-18T11:00:00Z"`),
		"suspended": ended(`"customerIdentifier": "cust-1"`, `"customerIdentifier": "cust-1", "suspended": true`),
	} {
		for _, setting := range []sandbox.Resend{sandbox.ResendSuccess, sandbox.ResendDuplicate} {
			b := open(t, sandbox.Options{IdenticalResend: setting})
			b.at(noon)
			first := b.meter(records(usage("7")))
			b.meter(productRecords("prod-1", legacy("7")))
			if err := b.PutCatalog(c); err != nil {
				t.Fatal(err)
			}
			identical := map[sandbox.Resend]string{sandbox.ResendSuccess: "Success", sandbox.ResendDuplicate: "DuplicateRecord"}[setting]
			a := b.meter(records(usage("7"), usage("8"), usage("7", "Dimension", `"gb"`)))
			want(t, what, statuses(a), "["+identical+" DuplicateRecord CustomerNotSubscribed]")
			if identical == "Success" {
				want(t, "id", a.get("Results", 0, "MeteringRecordId"), first.get("Results", 0, "MeteringRecordId"))
			}
			want(t, what+", legacy", statuses(b.meter(productRecords("prod-1", legacy("7"), legacy("8")))), "["+identical+" DuplicateRecord]")
			want(t, "quantities", b.quantities(), "[7 7]")
		}
	}
	// The window is checked before: its error says nothing about the earlier record.
	b := fresh(t)
	b.meter(records(usage("7")))
	b.at(noon.Add(24 * time.Hour))
	b.wantAWSError(b.meter(records(usage("7"))), "TimestampOutOfBoundsException")
	want(t, "quantities", b.quantities(), "[7]")
}

func TestAWS_IdenticalIsQuantityAndAllocations(t *testing.T) {
	split := func(list ...string) string { return usage("10", "UsageAllocations", "["+strings.Join(list, ",")+"]") }
	part := func(quantity, tags string) string {
		return fmt.Sprintf(`{"AllocatedUsageQuantityAsDecimal":%q,"Tags":[%s]}`, quantity, tags)
	}
	const a, b, c = `{"Key":"k","Value":"a"}`, `{"Key":"k","Value":"b"}`, `{"Key":"l","Value":"c"}`
	rest := `{"AllocatedUsageQuantityAsDecimal":"10"}`
	first := split(part("4", a+","+c), part("6", b))
	for _, test := range []struct{ what, first, second, want string }{
		{"the same", first, first, "Success"},
		{"another order", first, split(part("6.0", b), part("4.00", c+","+a)), "Success"},
		{"another split", first, split(part("5", a+","+c), part("5", b)), "DuplicateRecord"},
		{"exchanged", first, split(part("6", a+","+c), part("4", b)), "DuplicateRecord"},
		{"other tags", first, split(part("4", a), part("6", b)), "DuplicateRecord"},
		{"one more", first, split(part("4", a+","+c), part("6", b), part("0", c)), "DuplicateRecord"},
		{"none any more", first, usage("10"), "DuplicateRecord"},
		{"none before", usage("10"), first, "DuplicateRecord"},
		{"one without tags", usage("10"), split(rest), "DuplicateRecord"},
		{"none at all", usage("10"), usage("10.0"), "Success"},
		{"another time of the hour", first, strings.Replace(first, fmt.Sprint(noon.Truncate(time.Hour).Unix()), fmt.Sprint(noon.Unix()), 1), "Success"},
	} {
		journal := filepath.Join(t.TempDir(), "journal")
		s := open(t, sandbox.Options{Journal: journal})
		s.at(noon)
		want(t, test.what, statuses(s.meter(records(test.first, test.second))), "[Success "+test.want+"]")
		// The journal has the allocations too.
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, sandbox.Options{Journal: journal})
		want(t, test.what+", after a restart", statuses(s.meter(records(test.second, test.first))), "["+test.want+" Success]")
		want(t, "quantities", s.quantities(), "[10]")
	}
}

func TestAWS_EmptyMembers(t *testing.T) {
	for _, r := range []string{
		usage("1", "LicenseArn", `""`), usage("1", "CustomerAWSAccountId", `""`),
		legacy("1", "LicenseArn", `""`), legacy("1", "CustomerAWSAccountId", `""`),
	} {
		b := fresh(t)
		b.wantAWSError(b.meter(productRecords("prod-1", r)), "ValidationException")
	}
	for _, c := range []struct{ body, want string }{
		{productRecords("", usage("1")), "InvalidProductCodeException"},
		{records(usage("1", "CustomerIdentifier", `""`)), "InvalidCustomerIdentifierException"},
		{records(usage("1", "CustomerIdentifier", `""`, "LicenseArn", "")), "InvalidCustomerIdentifierException"},
	} {
		b := fresh(t)
		b.wantAWSError(b.meter(c.body), c.want)
		want(t, c.body, b.lastDecisions()[0].Outcome, sandbox.Undocumented)
	}
	// null is absent.
	b := fresh(t)
	want(t, "null", statuses(b.meter(`{"ProductCode":null,"UsageRecords":[`+usage("1", "CustomerIdentifier", "null")+`]}`)), "[Success]")
	want(t, "null", statuses(b.meter(productRecords("prod-1", legacy("1", "CustomerAWSAccountId", "null", "LicenseArn", "null")))), "[Success]")
}

func TestAWS_TagsHaveTheModelsCharacters(t *testing.T) {
	const accepted = "azAZ09+ !\"#$%&'()*,-./:;<=_@"
	for _, c := range "\x1f >?[\\]^`{|}~\x7fä" + accepted {
		text, _ := json.Marshal(string(c))
		for _, tag := range []string{fmt.Sprintf(`{"Key":%s,"Value":"v"}`, text), fmt.Sprintf(`{"Key":"k","Value":%s}`, text)} {
			b := fresh(t)
			a := b.meter(records(usage("1", "UsageAllocations", `[{"AllocatedUsageQuantityAsDecimal":"1","Tags":[`+tag+`]}]`)))
			if strings.ContainsRune(accepted, c) {
				want(t, tag, statuses(a), "[Success]")
			} else {
				b.wantAWSError(a, "InvalidTagException")
			}
		}
	}
}
