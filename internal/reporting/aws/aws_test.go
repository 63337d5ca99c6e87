package aws

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"pgregory.net/rapid"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/reporting"
	"github.com/marketmeter/marketmeter/internal/reporting/exchange"
	rt "github.com/marketmeter/marketmeter/internal/reporting/reportingtest"
	"github.com/marketmeter/marketmeter/sandbox"
)

func static(key, secret, session string) awssdk.CredentialsProvider {
	return awssdk.CredentialsProviderFunc(func(context.Context) (awssdk.Credentials, error) {
		return awssdk.Credentials{AccessKeyID: key, SecretAccessKey: secret, SessionToken: session}, nil
	})
}

func of(b *rt.Box, transport http.RoundTripper) *Marketplace {
	return New(Options{
		Credentials: static("AKIDEXAMPLE", "planted-secret-key", "planted-session-token"),
		Sandbox:     b.URL, Transport: transport, Now: b.Now, Timeout: time.Minute,
	})
}

func send(b *rt.Box, records ...reporting.Record) reporting.Response {
	return of(b, nil).Send(context.Background(), records)
}

func legacy(dimension, quantity string) reporting.Record {
	r := rt.AWS(dimension, quantity)
	r.IDs = metering.MarketplaceIDs{CustomerIdentifier: rt.Customer, ProductCode: rt.ProductCode}
	return r
}

func want(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func TestSend_BatchIsBilled(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	got := send(b, rt.AWS("d0", "1200.5"), rt.AWS("d1", "0.000001"), rt.AWS("d2", "9999999999.999999"))
	want(t, "verdicts", rt.Verdicts(got), "billed done, billed done, billed done")
	want(t, "billed", b.Billed(), "d0=1200.5 d1=0.000001 d2=9999999999.999999")
	records, _ := b.Records()
	for i, r := range records {
		if got.Results[i].Receipt != r.ID || r.Region != "us-east-1" || !r.Time.Equal(rt.Hour) {
			t.Errorf("receipt %s, record %+v", got.Results[i].Receipt, r)
		}
	}
	call := b.Calls("BatchMeterUsage")[0]
	if !bytes.Equal(call.Body, got.Request) || !bytes.Equal(call.Response.Body, got.Response) || got.Status != 200 {
		t.Errorf("the report has %s and %s, the wire had %s and %s", got.Request, got.Response, call.Body, call.Response.Body)
	}
	want(t, "request id", got.RequestID, call.Response.Header["X-Amzn-Requestid"][0])
}

func TestBody_IsTheDocumentedForm(t *testing.T) {
	r := rt.AWS("d0", "1200.50")
	clamped := rt.AWS("<d&1>", "7")
	clamped.Start = rt.Hour.Add(90*time.Second + 250*time.Millisecond)
	want(t, "licence", string(Body([]reporting.Record{r, clamped})), `{"UsageRecords":[`+
		`{"Timestamp":1794999600,"Dimension":"d0","QuantityAsDecimal":"1200.5","CustomerAWSAccountId":"111122223333","LicenseArn":"`+rt.Licence+`"},`+
		`{"Timestamp":1794999690.25,"Dimension":"<d&1>","QuantityAsDecimal":"7","CustomerAWSAccountId":"111122223333","LicenseArn":"`+rt.Licence+`"}]}`)
	want(t, "product", string(Body([]reporting.Record{legacy("d0", "5")})), `{"ProductCode":"prod-1","UsageRecords":[`+
		`{"Timestamp":1794999600,"Dimension":"d0","QuantityAsDecimal":"5","CustomerIdentifier":"customer-1"}]}`)
}

// What is sent for an hour never changes: not with the clock, the attempt or the batch.
func TestSend_RepeatsTheSameBytes(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	first := send(b, rt.AWS("d0", "1"), rt.AWS("d1", "2"))
	b.Set(rt.Now.Add(3 * time.Hour))
	again := send(b, rt.AWS("d0", "1"), rt.AWS("d1", "2"))
	if !bytes.Equal(first.Request, again.Request) {
		t.Errorf("first %s, then %s", first.Request, again.Request)
	}
	rapid.Check(t, func(t *rapid.T) {
		quantity := rapid.Uint64Range(1, 9_999_999_999).Draw(t, "quantity")
		r := rt.AWS(rapid.StringN(1, 255, -1).Draw(t, "dimension"), metering.NumberOf(int64(quantity)).String())
		one := strings.TrimSuffix(strings.TrimPrefix(string(Body([]reporting.Record{r})), `{"UsageRecords":[`), "]}")
		if two := string(Body([]reporting.Record{rt.AWS("d0", "1"), r})); !strings.Contains(two, one) {
			t.Fatalf("alone %s, in a batch %s", one, two)
		}
	})
}

// rows are what produces each row of the tables, and "a" whole-request error of each kind.
type row struct {
	name    string
	box     sandbox.Options
	prepare func(*rt.Box)
	records []reporting.Record
	canned  *rt.Canned
	want    string
	problem metering.ProblemCode
	lane    reporting.LaneFault
}

func records(r ...reporting.Record) []reporting.Record { return r }

func exception(status int, name string) *rt.Canned {
	return &rt.Canned{Status: status, Body: `{"__type":"com.amazon.coral#` + name + `:http://example.com","message":"why"}`}
}

func with(r reporting.Record, change func(*reporting.Record)) reporting.Record {
	change(&r)
	return r
}

var rows = []row{
	{name: "Success", records: records(rt.AWS("d0", "1")), want: "billed done"},
	{
		name: "DuplicateRecord", prepare: func(b *rt.Box) { send(b, rt.AWS("d0", "2")) },
		records: records(rt.AWS("d0", "1"), rt.AWS("d1", "1")), want: "duplicate done, billed done", problem: metering.ProblemConflict,
	},
	{
		name: "CustomerNotSubscribed", prepare: func(b *rt.Box) { b.Change(func(c *sandbox.Catalog) { c.AWS.Customers[0].Suspended = true }) },
		records: records(rt.AWS("d0", "1")), want: "refused hourly", problem: metering.ProblemNotSubscribed,
	},
	{
		name: "UnprocessedRecords", prepare: func(b *rt.Box) { b.Fault(sandbox.Fault{Fault: sandbox.Unprocessed, Records: []int{0}}) },
		records: records(rt.AWS("d0", "1"), rt.AWS("d1", "1")), want: "refused resend, billed done", problem: metering.ProblemMarketplaceRefused,
	},
	{
		name: "TimestampOutOfBoundsException", prepare: func(b *rt.Box) { b.Set(rt.Hour.Add(24 * time.Hour)) },
		records: records(rt.AWS("d0", "1"), rt.AWS("d1", "1")), want: "refused bisect, refused bisect", problem: metering.ProblemExpired,
	},
	{
		name: "TimestampOutOfBoundsException", prepare: func(b *rt.Box) { b.Set(rt.Hour.Add(24 * time.Hour)) },
		records: records(rt.AWS("d0", "1")), want: "refused done", problem: metering.ProblemExpired,
	},
	{
		name: "InvalidUsageDimensionException", records: records(rt.AWS("d0", "1"), rt.AWS("none", "1")),
		want: "refused bisect, refused bisect", problem: metering.ProblemDimensionUnknown,
	},
	{
		name: "InvalidLicenseException", records: records(rt.AWS("d0", "1"), with(rt.AWS("d1", "1"), func(r *reporting.Record) { r.IDs.LicenseARN += "9" })),
		want: "refused bisect, refused bisect", problem: metering.ProblemMarketplaceRefused,
	},
	{
		name: "InvalidProductCodeException", records: records(with(legacy("d0", "1"), func(r *reporting.Record) { r.IDs.ProductCode = "none" })),
		want: "refused done", problem: metering.ProblemMarketplaceRefused,
	},
	{
		name: "InvalidCustomerIdentifierException", records: records(with(legacy("d0", "1"), func(r *reporting.Record) { r.IDs.CustomerIdentifier = "none" })),
		want: "refused done", problem: metering.ProblemMarketplaceRefused,
	},
	{
		name: "ValidationException", records: records(with(rt.AWS("d0", "1"), func(r *reporting.Record) { r.IDs.LicenseARN = "arn" })),
		want: "refused done", problem: metering.ProblemMarketplaceRefused,
	},
	{
		name: "ThrottlingException", prepare: func(b *rt.Box) { b.Fault(sandbox.Fault{Fault: sandbox.Throttled}) },
		records: records(rt.AWS("d0", "1"), rt.AWS("d1", "1")), want: "refused wait for the lane, refused wait for the lane",
		problem: metering.ProblemMarketplaceRefused, lane: reporting.Throttled,
	},
	{
		name: "DisabledApiException", prepare: func(b *rt.Box) { b.Change(func(c *sandbox.Catalog) { c.AWS.Regions = []string{"us-east-1"} }) },
		records: records(with(rt.AWS("d0", "1"), func(r *reporting.Record) { r.IDs.Region = "eu-central-1" })), want: "refused wait for the lane",
		problem: metering.ProblemNoConnection, lane: reporting.Misconfigured,
	},
	{
		name: "UnrecognizedClientException", prepare: func(b *rt.Box) {
			b.Change(func(c *sandbox.Catalog) {
				c.AWS.Sellers = []sandbox.AWSSeller{{AccountID: "999988887777", AccessKeyIDs: []string{"AKIDOTHER"}}}
			})
		},
		records: records(rt.AWS("d0", "1")), want: "refused wait for the lane", problem: metering.ProblemNoConnection, lane: reporting.CredentialsRefused,
	},

	// The sandbox gives none of these to a request that this package can make.
	{name: "InvalidTagException", records: records(rt.AWS("d0", "1")), canned: exception(400, "InvalidTagException"), want: "refused done", problem: metering.ProblemMarketplaceRefused},
	{name: "InvalidUsageAllocationsException", records: records(rt.AWS("d0", "1")), canned: exception(400, "InvalidUsageAllocationsException"), want: "refused done", problem: metering.ProblemMarketplaceRefused},
	{name: "SerializationException", records: records(rt.AWS("d0", "1")), canned: exception(400, "SerializationException"), want: "refused done", problem: metering.ProblemMarketplaceRefused},
	{name: "RequestEntityTooLargeException", records: records(rt.AWS("d0", "1"), rt.AWS("d1", "1")), canned: exception(413, "RequestEntityTooLargeException"), want: "refused bisect, refused bisect", problem: metering.ProblemMarketplaceRefused},
	{name: "UnknownOperationException", records: records(rt.AWS("d0", "1")), canned: exception(404, "UnknownOperationException"), want: "refused wait for the lane", problem: metering.ProblemNoConnection, lane: reporting.Misconfigured},
	credentialsRow("AccessDeniedException"), credentialsRow("ExpiredTokenException"), credentialsRow("IncompleteSignature"),
	credentialsRow("IncompleteSignatureException"), credentialsRow("InvalidClientTokenId"), credentialsRow("InvalidSignatureException"),
	credentialsRow("MissingAuthenticationToken"), credentialsRow("MissingAuthenticationTokenException"), credentialsRow("NotAuthorized"),
	credentialsRow("OptInRequired"), credentialsRow("RequestExpired"),
}

func credentialsRow(name string) row {
	return row{
		name: name, records: records(rt.AWS("d0", "1")), canned: exception(403, name), want: "refused wait for the lane",
		problem: metering.ProblemNoConnection, lane: reporting.CredentialsRefused,
	}
}

func TestTables_TheKindsList(t *testing.T) {
	rt.KindsList(t, "AWS", []string{"InternalServiceErrorException"}, statuses, exceptions)
}

func TestTables_EachRowIsProduced(t *testing.T) {
	missing := map[string]bool{"UnprocessedRecords": true}
	for _, table := range []map[string]reporting.Rule{statuses, exceptions} {
		for name := range table {
			missing[name] = true
		}
	}
	for _, row := range rows {
		delete(missing, row.name)
		t.Run(row.name, func(t *testing.T) {
			b := rt.Start(t, row.box)
			if row.prepare != nil {
				row.prepare(b)
			}
			before := b.Billed()
			var transport http.RoundTripper
			if row.canned != nil {
				transport = row.canned
			}
			got := of(b, transport).Send(context.Background(), row.records)
			want(t, "verdicts", rt.Verdicts(got), row.want)
			first := got.Results[0]
			if first.Problem != row.problem || got.Lane != row.lane {
				t.Errorf("problem %s, lane %v; want %s, %v", first.Problem, got.Lane, row.problem, row.lane)
			}
			if row.name != "Success" && row.name != "UnprocessedRecords" && !strings.Contains(first.Reason, row.name) {
				t.Errorf("the reason %q is not AWS's own", first.Reason)
			}
			if (got.Lane != reporting.NoLaneFault) != (got.LaneReason != "") {
				t.Errorf("lane %v for the reason %q", got.Lane, got.LaneReason)
			}
			if first.Verdict != reports.Billed && strings.Contains(strings.TrimPrefix(b.Billed(), before), "d0") {
				t.Errorf("verdict %v, but billed: %s", first.Verdict, b.Billed())
			}
		})
	}
	if len(missing) > 0 {
		t.Errorf("no test produces %v", slices.Sorted(maps.Keys(missing)))
	}
}

// A response that is missing, broken or not documented says nothing: the record may be billed.
func TestSend_FaultsLeaveTheRecordsInDoubt(t *testing.T) {
	yes := true
	for _, f := range append(rt.Doubts(),
		sandbox.Fault{Fault: sandbox.ServerError, Status: 503, Code: "ThrottlingException", Accepted: &yes},
		sandbox.Fault{Fault: sandbox.ServerError, Status: 599, Code: "ValidationException", Accepted: &yes},
		sandbox.Fault{Fault: sandbox.Partial, Records: []int{0, 1}},
	) {
		b := rt.Start(t, sandbox.Options{IdenticalResend: sandbox.ResendDuplicate})
		b.Fault(f)
		got := send(b, rt.AWS("d0", "1"), rt.AWS("d1", "2"))
		want(t, f.Fault, rt.Verdicts(got), "in doubt resend, in doubt resend")
		if got.Lane != reporting.NoLaneFault || got.Results[0].Reason == "" || got.Request == nil {
			t.Errorf("%s: %+v", f.Fault, got)
		}
		want(t, f.Fault+", again", strings.ReplaceAll(rt.Verdicts(send(b, rt.AWS("d0", "1"), rt.AWS("d1", "2"))), "duplicate", "billed"), "billed done, billed done")
		want(t, f.Fault+", bill", b.Billed(), "d0=1 d1=2")
	}
}

func TestSend_SlowResponseIsInDoubt(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	b.Fault(sandbox.Fault{Fault: sandbox.Slow, DelayMS: 600_000})
	m := of(b, nil)
	m.client = exchange.NewClient(nil, 300*time.Millisecond)
	got := m.Send(context.Background(), records(rt.AWS("d0", "1")))
	want(t, "verdicts", rt.Verdicts(got), "in doubt resend")
	if !strings.Contains(got.Results[0].Reason, "no response within 300ms") {
		t.Errorf("reason %q", got.Results[0].Reason)
	}
}

func TestSend_PartialResponseDoubtsTheMissingAlone(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	b.Fault(sandbox.Fault{Fault: sandbox.Partial, Records: []int{1}})
	want(t, "verdicts", rt.Verdicts(send(b, rt.AWS("d0", "1"), rt.AWS("d1", "2"), rt.AWS("d2", "3"))), "billed done, in doubt resend, billed done")
}

// Responses that no marketplace should give, and one that it may: what they say is not guessed.
func TestSend_OddResponses(t *testing.T) {
	echo := func(dimension, more string) string {
		return `{"UsageRecord":{"Timestamp":1.795E9,"Dimension":"` + dimension + `"},` + more + `}`
	}
	results := func(all ...string) string { return `{"Results":[` + strings.Join(all, ",") + `]}` }
	success := `"Status":"Success","MeteringRecordId":"x"`
	for _, c := range []struct {
		name   string
		status int
		body   string
		want   string // of d0 and d1
	}{
		{"another order, few members", 200, results(echo("d1", success), echo("d0", `"Status":"DuplicateRecord"`)), "duplicate done, billed done"},
		{"empty", 200, "", "in doubt resend, in doubt resend"},
		{"null", 200, "null", "in doubt resend, in doubt resend"},
		{"a list", 200, "[]", "in doubt resend, in doubt resend"},
		{"no members", 200, "{}", "in doubt resend, in doubt resend"},
		{"two documents", 200, results(echo("d0", success)) + "{}", "in doubt resend, in doubt resend"},
		{"an unknown status", 200, results(echo("d0", `"Status":"Pending"`), echo("d1", success)), "in doubt resend, billed done"},
		{"a status in another case", 200, results(echo("d0", `"status":"Success"`), echo("d1", `"Status":"SUCCESS"`)), "in doubt resend, in doubt resend"},
		{"a member twice", 200, results(echo("d0", `"Status":"Success","Status":"DuplicateRecord"`), echo("d1", success)), "in doubt resend, in doubt resend"},
		{"a record twice", 200, results(echo("d0", success), echo("d0", `"Status":"CustomerNotSubscribed"`), echo("d1", success)), "in doubt resend, billed done"},
		{"in both lists", 200, `{"Results":[` + echo("d0", success) + `],"UnprocessedRecords":[{"Timestamp":1795000000,"Dimension":"d0"}]}`, "in doubt resend, in doubt resend"},
		{"another hour", 200, results(`{"UsageRecord":{"Timestamp":1795003600,"Dimension":"d0"},` + success + `}`), "in doubt resend, in doubt resend"},
		{"another licence", 200, results(`{"UsageRecord":{"Timestamp":1795000000,"Dimension":"d0","LicenseArn":"x"},` + success + `}`), "in doubt resend, in doubt resend"},
		{"a record without a form", 200, `{"Results":[7,` + echo("d1", success) + `]}`, "in doubt resend, billed done"},
		{"201", 201, results(echo("d0", success)), "in doubt resend, in doubt resend"},
		{"a redirect", 307, "{}", "in doubt resend, in doubt resend"},
		{"an unknown exception", 400, `{"__type":"NewException"}`, "in doubt resend, in doubt resend"},
		{"no exception", 400, `{}`, "in doubt resend, in doubt resend"},
		{"an empty 403", 403, "", "in doubt resend, in doubt resend"},
		{"an exception of 500", 500, `{"__type":"ValidationException"}`, "in doubt resend, in doubt resend"},
		{"an HTML 400", 400, "<html>", "in doubt resend, in doubt resend"},
	} {
		b := rt.Start(t, sandbox.Options{})
		header := http.Header{"X-Amzn-Errortype": {"ValidationException"}, "Location": {b.URL + "/aws/"}}
		if c.name == "no exception" || c.status < 400 {
			header.Del("X-Amzn-Errortype")
		}
		m := of(b, &rt.Canned{Status: c.status, Body: c.body, Header: header})
		want(t, c.name, rt.Verdicts(m.Send(context.Background(), records(rt.AWS("d0", "1"), rt.AWS("d1", "2")))), c.want)
		want(t, c.name+", bill", b.Billed(), "")
	}
}

// AWS may repeat a record with what it knows of the buyer beside what was sent.
func TestSend_EchoMayHaveMoreThanWasSent(t *testing.T) {
	record := func(more string) string {
		return `{"Results":[{"UsageRecord":{"Timestamp":1795000000,"Dimension":"d0","CustomerAWSAccountId":"123456789012"` + more + `},"Status":"Success","MeteringRecordId":"x"}]}`
	}
	other := with(legacy("d0", "1"), func(r *reporting.Record) { r.IDs.CustomerIdentifier = "other" })
	for _, c := range []struct {
		name, body string
		records    []reporting.Record
		want       string
	}{
		{"the account of a customer", record(`,"CustomerIdentifier":"` + rt.Customer + `"`), records(legacy("d0", "1"), other), "billed done, in doubt resend"},
		{"the account alone, of one record", record(""), records(legacy("d0", "1")), "billed done"},
		{"the account alone, of two records", record(""), records(legacy("d0", "1"), other), "in doubt resend, in doubt resend"},
		{"another customer", record(`,"CustomerIdentifier":"third"`), records(legacy("d0", "1"), other), "in doubt resend, in doubt resend"},
	} {
		m := of(rt.Start(t, sandbox.Options{}), &rt.Canned{Status: 200, Body: c.body})
		want(t, c.name, rt.Verdicts(m.Send(context.Background(), c.records)), c.want)
	}
}

// The header names the exception if the body, which is JSON, does not.
func TestSend_HeaderNamesTheException(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	c := &rt.Canned{Status: 400, Body: `{"message":"slow down"}`, Header: http.Header{"X-Amzn-Errortype": {"ThrottlingException:http://x/"}, "Retry-After": {"7"}}}
	got := of(b, c).Send(context.Background(), records(rt.AWS("d0", "1")))
	if got.Lane != reporting.Throttled || got.RetryAfter != 7*time.Second {
		t.Errorf("lane %v, retry after %v", got.Lane, got.RetryAfter)
	}
}

func TestSend_UnfitRecordsAreNotSent(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	other := rt.AWS("d5", "1")
	other.IDs.Region = "eu-west-1"
	both := rt.AWS("d6", "1")
	both.IDs.ProductCode, both.IDs.CustomerIdentifier = rt.ProductCode, rt.Customer
	host := rt.AWS("d7", "1")
	host.IDs.Region = "evil.example/"
	got := send(b, rt.AWS("d0", "1"), rt.AWS("d1", "0.0000001"), rt.AWS("d2", "10000000000"), rt.AWS("d3", "0"), rt.AWS("d4", "-1"), other, both, host,
		rt.AWS("d0", "2"), legacy("d8", "1"), with(rt.AWS("d9", "1"), func(r *reporting.Record) { r.IDs = metering.MarketplaceIDs{} }),
		with(rt.AWS("d9", "1"), func(r *reporting.Record) { r.Start = time.Time{} }), rt.AWS(strings.Repeat("é", 256), "1"), rt.AWS("\xff", "1"))
	want(t, "verdicts", rt.Verdicts(got), "billed done, refused done, refused done, refused done, refused done, refused resend, refused done, refused done, "+
		"refused resend, refused resend, refused done, refused done, refused done, refused done")
	for i, r := range got.Results[1:] {
		if !strings.HasPrefix(r.Reason, "not sent: ") || r.Problem == "" {
			t.Errorf("result %d: %+v", i+1, r)
		}
	}
	want(t, "precision", string(got.Results[1].Problem), "QUANTITY_PRECISION")
	want(t, "range", string(got.Results[2].Problem), "QUANTITY_RANGE")
	want(t, "billed", b.Billed(), "d0=1")
	if n := len(b.Calls("BatchMeterUsage")); n != 1 {
		t.Errorf("%d calls", n)
	}
	want(t, "nothing fits", rt.Verdicts(send(b, rt.AWS("d3", "0"))), "refused done")
}

func TestFit_IsAtMost25Records(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	var all []reporting.Record
	for i := range 30 {
		all = append(all, rt.AWS("d"+metering.NumberOf(int64(i)).String(), "1"))
	}
	m := of(b, nil)
	if n := m.Fit(all); n != 25 {
		t.Errorf("%d fit", n)
	}
	if n := m.Fit(all[:3]); n != 3 {
		t.Errorf("%d fit", n)
	}
	got := m.Send(context.Background(), all)
	want(t, "verdicts", rt.Verdicts(got), strings.Repeat("billed done, ", 25)+strings.TrimSuffix(strings.Repeat("refused resend, ", 5), ", "))
}

// What can't be sent is not in doubt.
func TestSend_UnreachableIsRefused(t *testing.T) {
	m := New(Options{Credentials: static("a", "b", ""), Sandbox: "http://127.0.0.1:1", Now: func() time.Time { return rt.Now }})
	got := m.Send(context.Background(), records(rt.AWS("d0", "1")))
	want(t, "verdicts", rt.Verdicts(got), "refused wait for the lane")
	if got.Lane != reporting.Unreachable || got.Request != nil || got.Status != 0 {
		t.Errorf("%+v", got)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	b := rt.Start(t, sandbox.Options{})
	want(t, "cancelled", rt.Verdicts(of(b, nil).Send(ctx, records(rt.AWS("d0", "1")))), "refused wait for the lane")
}

func TestSend_MissingCredentialsAreTheLanes(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	m := of(b, nil)
	m.options.Credentials = awssdk.CredentialsProviderFunc(func(context.Context) (awssdk.Credentials, error) {
		return awssdk.Credentials{}, errors.New("no role")
	})
	got := m.Send(context.Background(), records(rt.AWS("d0", "1")))
	if got.Lane != reporting.CredentialsRefused || rt.Verdicts(got) != "refused wait for the lane" || !strings.Contains(got.LaneReason, "no role") {
		t.Errorf("%+v", got)
	}
}

func TestSend_EndpointIsTheRegions(t *testing.T) {
	m := New(Options{})
	want(t, "endpoint", m.endpoint("eu-west-1"), "https://metering.marketplace.eu-west-1.amazonaws.com/")
}

// AWS repeats the headers of a request whose signature is wrong.
func TestSend_SecretsAreRedacted(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	c := &rt.Canned{Status: 403, Fill: func(r *http.Request) string {
		return `{"__type":"InvalidSignatureException","message":"The Canonical String was x-amz-security-token:` + r.Header.Get("X-Amz-Security-Token") + ` planted-secret-key"}`
	}}
	got := of(b, c).Send(context.Background(), records(rt.AWS("d0", "1")))
	if s := rt.Everything(got); strings.Contains(s, "planted") || !strings.Contains(s, "(redacted)") {
		t.Errorf("the response has a secret: %s", s)
	}
}

// A result that names no licence may be of either.
func TestSend_AmbiguousResultIsInDoubt(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	other := with(rt.AWS("d0", "1"), func(r *reporting.Record) { r.IDs.LicenseARN = rt.OtherLicence })
	for body, verdicts := range map[string]string{
		`{"Results":[{"UsageRecord":{"Timestamp":1794999600,"Dimension":"d0"},"Status":"Success"}]}`: "in doubt resend, in doubt resend",
		`{"Results":[{"UsageRecord":{"Timestamp":1794999600,"Dimension":"d0","LicenseArn":"` + rt.OtherLicence +
			`"},"Status":"Success"}]}`: "in doubt resend, billed done",
	} {
		m := of(b, &rt.Canned{Status: 200, Body: body})
		want(t, body, rt.Verdicts(m.Send(context.Background(), records(rt.AWS("d0", "1"), other))), verdicts)
	}
}
