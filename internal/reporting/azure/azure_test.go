package azure

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/reporting"
	"github.com/marketmeter/marketmeter/internal/reporting/exchange"
	rt "github.com/marketmeter/marketmeter/internal/reporting/reportingtest"
	"github.com/marketmeter/marketmeter/sandbox"
)

// vault has the secrets of a test by their ARN.
type vault map[string]string

func (v vault) Secret(_ context.Context, arn string) (string, error) {
	if secret, ok := v[arn]; ok {
		return secret, nil
	}
	return "", errors.New("there is no secret " + arn)
}

func of(b *rt.Box, transport http.RoundTripper) *Marketplace {
	return New(Options{
		TenantID: rt.Tenant, ClientID: rt.Application, SecretARN: "arn", Secrets: vault{"arn": rt.ClientSecret},
		Sandbox: b.URL, Transport: transport, Now: b.Now, Timeout: time.Minute,
	})
}

func send(b *rt.Box, records ...reporting.Record) reporting.Response {
	return of(b, nil).Send(context.Background(), records)
}

func records(r ...reporting.Record) []reporting.Record { return r }

func with(r reporting.Record, change func(*reporting.Record)) reporting.Record {
	change(&r)
	return r
}

func resourceIs(id string) func(*reporting.Record) {
	return func(r *reporting.Record) { r.IDs.ResourceID = id }
}

func want(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func TestSend_BatchIsBilled(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	managed := rt.Azure("d3", "2")
	managed.IDs.ResourceID, managed.IDs.ResourceURI = "", rt.ManagedApp
	got := send(b, rt.Azure("d0", "1200.5"), rt.Azure("d1", "0.000000001"), rt.Azure("d2", "123456789012345"), managed)
	want(t, "verdicts", rt.Verdicts(got), "billed done, billed done, billed done, billed done")
	want(t, "billed", b.Billed(), "d0=1200.5 d1=0.000000001 d2=123456789012345 d3=2")
	billed, _ := b.Records()
	for i, r := range billed {
		want(t, "receipt", got.Results[i].Receipt, r.ID)
	}
	call := b.Calls("batchUsageEvent")[0]
	if !bytes.Equal(call.Body, got.Request) || !bytes.Equal(call.Response.Body, got.Response) || got.Status != 200 {
		t.Errorf("the report has %s and %s, the wire had %s and %s", got.Request, got.Response, call.Body, call.Response.Body)
	}
	want(t, "request id", got.RequestID, call.Header["X-Ms-Requestid"][0])
	want(t, "correlation id", got.CorrelationID, call.Header["X-Ms-Correlationid"][0])
	if got.RequestID == got.CorrelationID {
		t.Error("both ids are one")
	}
}

func TestBody_IsTheDocumentedForm(t *testing.T) {
	clamped := rt.Azure("<d&1>", "7")
	clamped.Start = rt.Hour.Add(90*time.Second + 250*time.Millisecond)
	clamped.IDs.ResourceID, clamped.IDs.ResourceURI = "", rt.ManagedApp
	want(t, "body", string(Body([]reporting.Record{rt.Azure("d0", "1200.50"), clamped})), `{"request":[`+
		`{"resourceId":"`+rt.Resource+`","quantity":1200.5,"dimension":"d0","effectiveStartTime":"2026-11-18T11:00:00Z","planId":"silver"},`+
		`{"resourceUri":"`+rt.ManagedApp+`","quantity":7,"dimension":"<d&1>","effectiveStartTime":"2026-11-18T11:01:30.25Z","planId":"silver"}]}`)
}

// What is sent for an hour never changes, and a decimal of 15 digits comes through the double.
func TestSend_RepeatsTheSameBytes(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	first := send(b, rt.Azure("d0", "1"), rt.Azure("d1", "2"))
	b.Set(rt.Now.Add(3 * time.Hour))
	if again := send(b, rt.Azure("d0", "1"), rt.Azure("d1", "2")); !bytes.Equal(first.Request, again.Request) {
		t.Errorf("first %s, then %s", first.Request, again.Request)
	}
	rapid.Check(t, func(t *rapid.T) {
		digits := rapid.Int64Range(1, 999_999_999_999_999).Draw(t, "digits")
		places := rapid.IntRange(0, 17).Draw(t, "places")
		r := rt.Azure("d0", fmt.Sprintf("%de-%d", digits, places))
		if code, reason := check(&r); code != "" {
			t.Fatalf("%s of 15 digits: %s", r.Quantity, reason)
		}
		double, _ := strconv.ParseFloat(r.Quantity.String(), 64)
		echo := strconv.FormatFloat(double, 'g', -1, 64)
		if !sameDouble([]byte(echo), &r) {
			t.Fatalf("%s is not %s", echo, r.Quantity)
		}
	})
}

type row struct {
	name    string
	prepare func(*rt.Box)
	records []reporting.Record
	canned  *rt.Canned
	want    string
	problem metering.ProblemCode
	lane    reporting.LaneFault
}

var rows = []row{
	{name: "Accepted", records: records(rt.Azure("d0", "1")), want: "billed done"},
	{
		name: "Duplicate", prepare: func(b *rt.Box) { send(b, rt.Azure("d0", "2")) }, records: records(rt.Azure("d0", "1"), rt.Azure("d1", "1")),
		want: "duplicate done, billed done", problem: metering.ProblemConflict,
	},
	{
		name: "Error", prepare: func(b *rt.Box) { b.Fault(sandbox.Fault{Fault: sandbox.Unprocessed, Records: []int{0}}) },
		records: records(rt.Azure("d0", "1"), rt.Azure("d1", "1")), want: "in doubt resend, billed done",
	},
	{
		name: "Expired", prepare: func(b *rt.Box) { b.Set(rt.Hour.Add(24*time.Hour + 1)) }, records: records(rt.Azure("d0", "1")),
		want: "refused done", problem: metering.ProblemExpired,
	},
	{
		name: "ResourceNotActive", prepare: func(b *rt.Box) {
			b.Change(func(c *sandbox.Catalog) { c.Azure.Subscriptions[0].State = sandbox.AzureSuspended })
		}, records: records(rt.Azure("d0", "1")), want: "refused hourly", problem: metering.ProblemNotSubscribed,
	},
	{
		name: "ResourceNotFound", records: records(with(rt.Azure("d0", "1"), resourceIs("cccccccc-0000-4000-8000-00000000000f")), rt.Azure("d1", "1")),
		want: "refused done, billed done", problem: metering.ProblemMarketplaceRefused,
	},
	{
		name: "ResourceNotAuthorized", records: records(with(rt.Azure("d0", "1"), resourceIs(rt.Sibling)), rt.Azure("d1", "1")),
		want: "refused done, billed done", problem: metering.ProblemMarketplaceRefused,
	},
	{name: "InvalidDimension", records: records(rt.Azure("none", "1"), rt.Azure("d1", "1")), want: "refused done, billed done", problem: metering.ProblemDimensionUnknown},
	{
		name: "BadArgument", records: records(with(rt.Azure("d0", "1"), func(r *reporting.Record) { r.IDs.PlanID = "gold" }), rt.Azure("d1", "1")),
		want: "refused done, billed done", problem: metering.ProblemMarketplaceRefused,
	},
	// No record that is sent has a quantity that Azure refuses.
	{
		name: "InvalidQuantity", records: records(rt.Azure("d0", "1")), want: "refused done", problem: metering.ProblemQuantityRange,
		canned: &rt.Canned{Path: "/api/", Status: 200, Body: `{"result":[{"status":"InvalidQuantity","dimension":"d0","effectiveStartTime":"2026-11-18T11:59:59"}]}`},
	},

	{
		name: "400", records: records(with(rt.Azure("d0", "1"), func(r *reporting.Record) { r.IDs.PlanID = "x" })), want: "refused done",
		problem: metering.ProblemMarketplaceRefused, canned: refusal(400),
	},
	{name: "400", records: records(rt.Azure("d0", "1"), rt.Azure("d1", "1")), want: "refused bisect, refused bisect", problem: metering.ProblemMarketplaceRefused, canned: refusal(400)},
	{name: "401", records: records(rt.Azure("d0", "1")), want: "refused wait for the lane", problem: metering.ProblemNoConnection, lane: reporting.CredentialsRefused, canned: refusal(401)},
	{
		name: "403", records: records(with(rt.Azure("d0", "1"), resourceIs(rt.Foreign)), rt.Azure("d1", "1")), want: "refused bisect, refused bisect",
		problem: metering.ProblemMarketplaceRefused,
	},
	{name: "403", records: records(with(rt.Azure("d0", "1"), resourceIs(rt.Foreign))), want: "refused hourly", problem: metering.ProblemMarketplaceRefused},
	{
		name: "429", prepare: func(b *rt.Box) { b.Fault(sandbox.Fault{Fault: sandbox.Throttled}) }, records: records(rt.Azure("d0", "1")),
		want: "refused wait for the lane", problem: metering.ProblemMarketplaceRefused, lane: reporting.Throttled,
	},
}

func refusal(status int) *rt.Canned {
	return &rt.Canned{Path: "/api/", Status: status, Body: fmt.Sprintf(`{"code":"%d","message":"no","details":[{"code":"BadArgument","message":"why"}]}`, status)}
}

func TestTables_TheKindsList(t *testing.T) { rt.KindsList(t, "AZURE", nil, statuses) }

func TestTables_EachRowIsProduced(t *testing.T) {
	missing := map[string]bool{}
	for status := range refusals {
		missing[strconv.Itoa(status)] = true
	}
	for status := range statuses {
		missing[status] = true
	}
	for _, row := range rows {
		delete(missing, row.name)
		t.Run(row.name, func(t *testing.T) {
			b := rt.Start(t, sandbox.Options{})
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
			if first.Problem != row.problem || got.Lane != row.lane || (got.Lane != reporting.NoLaneFault) != (got.LaneReason != "") {
				t.Errorf("problem %s, lane %v, %q; want %s, %v", first.Problem, got.Lane, got.LaneReason, row.problem, row.lane)
			}
			if first.Reason == "" {
				t.Error("there is no reason")
			}
			if row.lane == reporting.Throttled && got.RetryAfter != time.Second {
				t.Errorf("retry after %v", got.RetryAfter)
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

// Azure carries the accepted event: a duplicate of another quantity is no success
// (metered-billing-accelerator takes any Duplicate for one, Flexprice repeats it until it is too
// old).
func TestSend_DuplicateCarriesTheAcceptedEvent(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	first := send(b, rt.Azure("d0", "0.1"), rt.Azure("d1", "5"))
	b.Set(rt.Now.Add(time.Hour))
	got := send(b, rt.Azure("d1", "7.5"), rt.Azure("d0", "0.1"))
	want(t, "verdicts", rt.Verdicts(got), "duplicate done, duplicate done")
	for i, w := range []reporting.Accepted{
		{Quantity: "5", Equal: false, Time: rt.Now, Receipt: first.Results[1].Receipt},
		{Quantity: "0.1", Equal: true, Time: rt.Now, Receipt: first.Results[0].Receipt},
	} {
		if a := got.Results[i].Accepted; a == nil || *a != w {
			t.Errorf("result %d: got %+v, want %+v", i, a, w)
		}
	}
	want(t, "billed", b.Billed(), "d0=0.1 d1=5")
}

func TestSend_FaultsLeaveTheRecordsInDoubt(t *testing.T) {
	yes := true
	for _, f := range append(rt.Doubts(),
		sandbox.Fault{Fault: sandbox.ServerError, Status: 503, Accepted: &yes},
		sandbox.Fault{Fault: sandbox.Partial, Records: []int{0, 1}},
		sandbox.Fault{Fault: sandbox.Unprocessed, Records: []int{0, 1}},
	) {
		b := rt.Start(t, sandbox.Options{})
		b.Fault(f)
		got := send(b, rt.Azure("d0", "1"), rt.Azure("d1", "2"))
		want(t, f.Fault, rt.Verdicts(got), "in doubt resend, in doubt resend")
		if got.Lane != reporting.NoLaneFault || got.Results[0].Reason == "" || got.Request == nil {
			t.Errorf("%s: %+v", f.Fault, got)
		}
		again := send(b, rt.Azure("d0", "1"), rt.Azure("d1", "2"))
		want(t, f.Fault+", again", strings.ReplaceAll(rt.Verdicts(again), "duplicate", "billed"), "billed done, billed done")
		for _, r := range again.Results {
			if r.Verdict == reports.Duplicate && (r.Accepted == nil || !r.Accepted.Equal) {
				t.Errorf("%s: %+v", f.Fault, r)
			}
		}
		want(t, f.Fault+", bill", b.Billed(), "d0=1 d1=2")
	}
}

func TestSend_SlowResponseIsInDoubt(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	b.Fault(sandbox.Fault{Fault: sandbox.Slow, DelayMS: 600_000})
	m := of(b, nil)
	if _, _, err := m.tokens.Get(context.Background()); err != nil {
		t.Fatal(err)
	}
	m.client = exchange.NewClient(nil, 300*time.Millisecond)
	got := m.Send(context.Background(), records(rt.Azure("d0", "1")))
	want(t, "verdicts", rt.Verdicts(got), "in doubt resend")
	if !strings.Contains(got.Results[0].Reason, "no response within 300ms") {
		t.Errorf("reason %q", got.Results[0].Reason)
	}
}

// Azure promises no order, and leaves out what it does not know.
func TestSend_OddResponses(t *testing.T) {
	event := func(dimension, more string) string {
		return `{"dimension":"` + dimension + `","effectiveStartTime":"2026-11-18T11:00:00",` + more + `}`
	}
	result := func(all ...string) string { return `{"count":9,"result":[` + strings.Join(all, ",") + `]}` }
	accepted := `"status":"Accepted","usageEventId":"x"`
	duplicate := func(of string) string {
		return `"status":"Duplicate","error":{"additionalInfo":{"acceptedMessage":` + of + `}}`
	}
	doubt := "in doubt resend, in doubt resend"
	for _, c := range []struct {
		name   string
		status int
		body   string
		want   string // of d0 and d1
	}{
		{"another order, few members", 200, result(event("d1", accepted), event("d0", `"status":"Expired"`)), "refused done, billed done"},
		{"upper case resource", 200, result(event("d0", accepted+`,"resourceId":"CCCCCCCC-0000-4000-8000-000000000001"`)), "billed done, in doubt resend"},
		{"another resourceId beside ours", 200, result(event("d0", accepted+`,"resourceId":"`+rt.Foreign+`","resourceUri":"`+rt.Resource+`"`)), "billed done, in doubt resend"},
		{"another resource", 200, result(event("d0", accepted+`,"resourceId":"`+rt.Foreign+`"`)), doubt},
		{"another quantity", 200, result(event("d0", accepted+`,"quantity":2`), event("d1", accepted+`,"quantity":1.0e0`)), "in doubt resend, billed done"},
		{"another hour", 200, result(`{"dimension":"d0","effectiveStartTime":"2026-11-18T12:00:00Z",` + accepted + `}`), doubt},
		{"an hour with an offset", 200, result(`{"dimension":"d0","effectiveStartTime":"2026-11-18T12:00:00.0000000+01:00",` + accepted + `}`), "billed done, in doubt resend"},
		{"another hour, with an offset", 200, result(`{"dimension":"d0","effectiveStartTime":"2026-11-18T11:00:00+01:00",` + accepted + `}`), doubt},
		{"no hour", 200, result(`{"dimension":"d0",` + accepted + `}`), doubt},
		{"a duplicate without its event", 200, result(event("d0", `"status":"Duplicate"`), event("d1", duplicate(`{}`))), "duplicate done, duplicate done"},
		{"a duplicate of another event", 200, result(event("d0", duplicate(event("d1", `"quantity":1`)))), "duplicate done, in doubt resend"},
		{"an event twice", 200, result(event("d0", accepted), event("d0", `"status":"Expired"`)), doubt},
		{"an unknown status", 200, result(event("d0", `"status":"Queued"`), event("d1", accepted)), "in doubt resend, billed done"},
		{"a status in another case", 200, result(event("d0", `"status":"accepted"`)), doubt},
		{"a member twice", 200, result(event("d0", `"status":"Accepted","status":"Expired"`)), doubt},
		{"an event without a form", 200, result("7", event("d1", accepted)), "in doubt resend, billed done"},
		{"empty", 200, "", doubt},
		{"null", 200, "null", doubt},
		{"a list", 200, "[]", doubt},
		{"two documents", 200, result(event("d0", accepted)) + "{}", doubt},
		{"202", 202, result(event("d0", accepted)), doubt},
		{"a redirect", 307, `{"code":"x"}`, doubt},
		{"404", 404, `{"code":"NotFound","message":"x"}`, doubt},
		{"409", 409, `{"code":"Conflict","message":"x"}`, doubt}, // rhsm-subscriptions counts 400 and 409 as success
		{"an empty 400", 400, "", doubt},
		{"an HTML 403", 403, "<html>", doubt},
		{"a 400 of another form", 400, `{"error":"x"}`, doubt},
		{"an error of 500", 500, `{"code":"BadArgument","message":"x"}`, doubt},
	} {
		b := rt.Start(t, sandbox.Options{})
		m := of(b, &rt.Canned{Path: "/api/", Status: c.status, Body: c.body, Header: http.Header{"Location": {b.URL + "/azure/api/batchUsageEvent"}}})
		got := m.Send(context.Background(), records(rt.Azure("d0", "1"), rt.Azure("d1", "1")))
		want(t, c.name, rt.Verdicts(got), c.want)
		for _, r := range got.Results {
			if r.Accepted != nil {
				t.Errorf("%s: %+v", c.name, r.Accepted)
			}
		}
	}
}

// An accepted event whose time is written in another form still says which quantity stands: what it
// has of another meter is not ours.
func TestSend_AcceptedEventHasTimesOfAnyForm(t *testing.T) {
	hour := `"effectiveStartTime":"2026-11-18T11:00:00Z"`
	const at = "2026-11-18T11:20:53.1465802"
	for _, c := range []struct{ name, start, processed string }{
		{"Microsoft's own client", `"effectiveStartTime":"2026-11-18T11:00:00.0000000+00:00",`, at + "+00:00"},
		{"another offset", `"effectiveStartTime":"2026-11-18T12:59:59+01:00",`, "2026-11-18T12:20:53.1465802+01:00"},
		{"no offset", `"effectiveStartTime":"2026-11-18T11:00:00",`, at},
		{"no start", "", at + "Z"},
		{"a start that is no time", `"effectiveStartTime":"18.11.2026 11:00",`, at + "Z"},
	} {
		body := `{"result":[{"dimension":"d0",` + hour + `,"status":"Duplicate","error":{"additionalInfo":{"acceptedMessage":{` + c.start +
			`"dimension":"d0","quantity":7.5,"usageEventId":"x","messageTime":"` + c.processed + `"}}}}]}`
		m := of(rt.Start(t, sandbox.Options{}), &rt.Canned{Path: "/api/", Status: 200, Body: body})
		got := m.Send(context.Background(), records(rt.Azure("d0", "1")))
		want(t, c.name, rt.Verdicts(got), "duplicate done")
		a := got.Results[0].Accepted
		if a == nil || a.Quantity != "7.5" || a.Equal || !a.Time.Equal(rt.Hour.Add(20*time.Minute+53*time.Second+146580200)) {
			t.Errorf("%s: %+v", c.name, a)
		}
	}
}

func TestSend_UnfitRecordsAreNotSent(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	both := with(rt.Azure("d6", "1"), func(r *reporting.Record) { r.IDs.ResourceURI = rt.ManagedApp })
	upper := with(rt.Azure("d0", "2"), resourceIs(strings.ToUpper(rt.Resource)))
	upper.IDs.PlanID = "gold"
	got := send(b, rt.Azure("d0", "1"), rt.Azure("d1", "1234567890123456789"), rt.Azure("d2", "0.12345678901234567"), rt.Azure("d3", "0"), both, upper,
		with(rt.Azure("d7", "1"), func(r *reporting.Record) { r.IDs.PlanID = "" }))
	want(t, "verdicts", rt.Verdicts(got), "billed done, refused done, refused done, refused done, refused done, refused resend, refused done")
	want(t, "precision", string(got.Results[1].Problem), "QUANTITY_PRECISION")
	want(t, "billed", b.Billed(), "d0=1")
}

func TestFit_IsAtMost25Events(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	var all []reporting.Record
	for i := range 30 {
		all = append(all, rt.Azure(fmt.Sprintf("d%d", i), "1"))
	}
	if n := of(b, nil).Fit(all); n != 25 {
		t.Errorf("%d fit", n)
	}
	want(t, "verdicts", rt.Verdicts(send(b, all...)), strings.Repeat("billed done, ", 25)+strings.TrimSuffix(strings.Repeat("refused resend, ", 5), ", "))
}

// A token is fetched once for its lifetime. If it is refused before its end, one new one is
// fetched, and the call repeated.
func TestSend_TokenIsReused(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	m := of(b, nil)
	clock := rt.Now
	m.tokens.Now = func() time.Time { return clock }
	for i, step := range []struct {
		ours, theirs time.Duration
		tokens       int
	}{{0, 0, 1}, {57 * time.Minute, 57 * time.Minute, 1}, {58 * time.Minute, 58 * time.Minute, 2}, {58 * time.Minute, 3 * time.Hour, 3}} {
		clock = rt.Now.Add(step.ours)
		b.Set(rt.Now.Add(step.theirs))
		want(t, "verdicts", rt.Verdicts(m.Send(context.Background(), records(rt.Azure(fmt.Sprintf("d%d", i), "1")))), "billed done")
		if n := len(b.Calls("token")); n != step.tokens {
			t.Errorf("step %d: %d tokens", i, n)
		}
	}
	want(t, "billed", b.Billed(), "d0=1 d1=1 d2=1 d3=1")
}

func TestSend_ExpiresInMayBeAString(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	m := of(b, nil)
	m.options.ClientID, m.options.Secrets = "bbbbbbbb-0000-4000-8000-000000000003", vault{"arn": "third"}
	for range 2 {
		m.Send(context.Background(), records(with(rt.Azure("d0", "1"), resourceIs(rt.Sibling))))
	}
	if n := len(b.Calls("token")); n != 1 {
		t.Errorf("%d tokens", n)
	}
	want(t, "billed", b.Billed(), "d0=1")
}

// The response does not show whether the lane is at fault: the worker sees each part refused.
func TestSend_ApplicationOfAnotherPublisher(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	m := of(b, nil)
	m.options.ClientID, m.options.Secrets = rt.Stranger, vault{"arn": "other"}
	want(t, "verdicts", rt.Verdicts(m.Send(context.Background(), records(rt.Azure("d0", "1"), rt.Azure("d1", "1")))), "refused bisect, refused bisect")
	for _, d := range []string{"d0", "d1"} {
		want(t, "half", rt.Verdicts(m.Send(context.Background(), records(rt.Azure(d, "1")))), "refused hourly")
	}
}

func TestSend_CredentialsAreTheLanes(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Options, *rt.Box)
		lane   reporting.LaneFault
		reason string
	}{
		{"wrong secret", func(o *Options, _ *rt.Box) { o.Secrets = vault{"arn": "planted-wrong"} }, reporting.CredentialsRefused, "invalid_client: AADSTS7000215"},
		{"no secret", func(o *Options, _ *rt.Box) { o.Secrets = vault{} }, reporting.CredentialsRefused, "there is no secret arn"},
		{"no tenant", func(o *Options, _ *rt.Box) { o.TenantID = "aaaaaaaa-0000-4000-8000-00000000000f" }, reporting.CredentialsRefused, "AADSTS90002"},
		{"token endpoint fails", func(_ *Options, b *rt.Box) {
			b.Fault(sandbox.Fault{Operation: "token", Marketplace: sandbox.Azure, Fault: sandbox.ServerError})
		}, reporting.Unreachable, "status 500"},
		{"token endpoint is lost", func(_ *Options, b *rt.Box) {
			b.Fault(sandbox.Fault{Operation: "token", Marketplace: sandbox.Azure, Fault: sandbox.Lost})
		}, reporting.Unreachable, "EOF"},
		{"token endpoint is cut", func(_ *Options, b *rt.Box) {
			b.Fault(sandbox.Fault{Operation: "token", Marketplace: sandbox.Azure, Fault: sandbox.Malformed})
		}, reporting.Unreachable, "no token"},
		{"unreachable", func(o *Options, _ *rt.Box) { o.Sandbox = "http://127.0.0.1:1" }, reporting.Unreachable, "refused"},
	} {
		b := rt.Start(t, sandbox.Options{})
		m := of(b, nil)
		c.change(&m.options, b)
		got := m.Send(context.Background(), records(rt.Azure("d0", "1")))
		want(t, c.name, rt.Verdicts(got), "refused wait for the lane")
		if got.Lane != c.lane || !strings.Contains(got.LaneReason, c.reason) || got.Request != nil || strings.Contains(rt.Everything(got), "planted") {
			t.Errorf("%s: %+v", c.name, got)
		}
		if n := len(b.Calls("batchUsageEvent")); n != 0 {
			t.Errorf("%s: %d calls", c.name, n)
		}
	}
}

// A marketplace or its token endpoint may repeat what it was sent.
func TestSend_SecretsAreRedacted(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	echo := func(r *http.Request) string {
		body := ""
		if r.Body != nil {
			var buffer bytes.Buffer
			_, _ = buffer.ReadFrom(r.Body)
			body = buffer.String()
		}
		if strings.HasSuffix(r.URL.Path, "/token") {
			body += rt.ClientSecret
		}
		return fmt.Sprintf(`{"code":"x","message":%q,"error":"invalid_client","error_description":%q}`, r.Header.Get("Authorization"), body)
	}
	for path, marks := range map[string]string{"/api/": "Bearer (redacted)", "/token": "client_secret=(redacted)"} {
		got := of(b, &rt.Canned{Path: path, Status: 401, Fill: echo}).Send(context.Background(), records(rt.Azure("d0", "1")))
		all := rt.Everything(got)
		if !strings.Contains(all, marks) || strings.Contains(all, "planted") {
			t.Errorf("%s: %s", path, all)
		}
		for _, call := range b.Calls("token") {
			token := string(call.Response.Body)
			if _, value, _ := strings.Cut(token, `"access_token":"`); strings.Contains(all, value[:20]) {
				t.Errorf("%s: the response has a token: %s", path, all)
			}
		}
	}
}

// A message that names no resource may be of either.
func TestSend_AmbiguousMessageIsInDoubt(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	managed := rt.Azure("d0", "1")
	managed.IDs.ResourceID, managed.IDs.ResourceURI = "", rt.ManagedApp
	for body, verdicts := range map[string]string{
		`{"result":[{"dimension":"d0","effectiveStartTime":"2026-11-18T11:00:00Z","status":"Accepted"}]}`: "in doubt resend, in doubt resend",
		`{"result":[{"dimension":"d0","effectiveStartTime":"2026-11-18T11:00:00Z","status":"Accepted","resourceUri":"` +
			strings.ToUpper(rt.ManagedApp) + `"}]}`: "in doubt resend, billed done",
	} {
		m := of(b, &rt.Canned{Path: "/api/", Status: 200, Body: body})
		want(t, body, rt.Verdicts(m.Send(context.Background(), records(rt.Azure("d0", "1"), managed))), verdicts)
	}
}
