package gcp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
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
		SecretARN: "arn", Secrets: vault{"arn": rt.Key(rt.Robot)},
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

func consumerIs(id string) func(*reporting.Record) {
	return func(r *reporting.Record) { r.IDs.UsageReportingID, r.Entitlement = id, metering.EntitlementID(id) }
}

func serviceIs(name string) func(*reporting.Record) {
	return func(r *reporting.Record) { r.IDs.ServiceName = name }
}

func want(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func TestSend_BatchIsBilled(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	got := send(b, rt.Google("d0", "1"), rt.Google("d1", "9223372036854775807"), with(rt.Google("d0", "7"), consumerIs("project_number:2")))
	want(t, "verdicts", rt.Verdicts(got), "billed done, billed done, billed done")
	want(t, "billed", b.Billed(), "d0=1 d1=9223372036854775807 d0=7")
	billed, _ := b.Records()
	for i, r := range billed {
		want(t, "receipt", got.Results[i].Receipt, r.ID)
	}
	call := b.Calls("report")[0]
	if !bytes.Equal(call.Body, got.Request) || !bytes.Equal(call.Response.Body, got.Response) || got.Status != 200 {
		t.Errorf("the report has %s and %s, the wire had %s and %s", got.Request, got.Response, call.Body, call.Response.Body)
	}
	if n := len(b.Calls("check")); n != 2 {
		t.Errorf("%d checks", n)
	}
}

func TestBody_IsTheDocumentedForm(t *testing.T) {
	clamped := rt.Google("<d&1>", "7")
	clamped.Start, clamped.End = rt.Hour.Add(90*time.Second), rt.Hour.Add(20*time.Minute+250*time.Millisecond)
	want(t, "body", string(Body([]reporting.Record{rt.Google("d0", "1200"), clamped})), `{"operations":[`+
		`{"operationId":"08c38d8a-48de-54c8-9455-ccd76256c19e","operationName":"Hourly usage report","consumerId":"project_number:1",`+
		`"startTime":"2026-11-18T11:00:00Z","endTime":"2026-11-18T12:00:00Z",`+
		`"metricValueSets":[{"metricName":"meter.example/d0","metricValues":[{"int64Value":"1200"}]}]},`+
		`{"operationId":"`+OperationID(&clamped)+`","operationName":"Hourly usage report","consumerId":"project_number:1",`+
		`"startTime":"2026-11-18T11:01:30Z","endTime":"2026-11-18T11:20:00.25Z",`+
		`"metricValueSets":[{"metricName":"meter.example/<d&1>","metricValues":[{"int64Value":"7"}]}]}]}`)
}

// The id has organization, entitlement, dimension and hour in it, and nothing else.
func TestOperationID_IsItsIdentity(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`[ab",]{0,3}`)
		draw := func() reporting.Record {
			r := rt.Google(text.Draw(t, "dimension"), "1")
			r.Organization, r.Entitlement = metering.OrgID(text.Draw(t, "org")), metering.EntitlementID(text.Draw(t, "entitlement"))
			r.Start = rt.Hour.Add(time.Duration(rapid.IntRange(0, 3).Draw(t, "hours")) * 30 * time.Minute)
			return r
		}
		a, b := draw(), draw()
		same := a.Organization == b.Organization && a.Entitlement == b.Entitlement && a.Dimension == b.Dimension && a.Hour().Equal(b.Hour())
		if (OperationID(&a) == OperationID(&b)) != same {
			t.Fatalf("%+v and %+v", a, b)
		}
		if id := OperationID(&a); len(id) != 36 || id[14] != '5' || !strings.Contains("89ab", id[19:20]) {
			t.Fatalf("%s is no UUID of version 5", id)
		}
	})
}

func TestSend_RepeatsTheSameBytes(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	first := send(b, rt.Google("d0", "1"), rt.Google("d1", "2"))
	b.Set(rt.Now.Add(3 * time.Hour))
	again := send(b, rt.Google("d0", "1"), rt.Google("d1", "2"))
	if !bytes.Equal(first.Request, again.Request) {
		t.Errorf("first %s, then %s", first.Request, again.Request)
	}
	want(t, "verdicts", rt.Verdicts(again), "billed done, billed done")
	want(t, "billed", b.Billed(), "d0=1 d1=2")
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

// undone is an operation that the sandbox does not do, with a code.
func undone(code int) func(*rt.Box) {
	return func(b *rt.Box) {
		b.Fault(sandbox.Fault{Marketplace: sandbox.Google, Fault: sandbox.Unprocessed, Records: []int{0}, Code: strconv.Itoa(code)})
	}
}

// inactive makes the entitlement inactive after its check.
func inactive(b *rt.Box) {
	b.Fault(sandbox.Fault{Operation: "check", Fault: sandbox.Lost})
	b.Change(func(c *sandbox.Catalog) { c.Google.Entitlements[0].State = sandbox.GoogleBillingDisabled })
}

func failure(status int, name string) *rt.Canned {
	return &rt.Canned{Path: ":report", Status: status, Body: fmt.Sprintf(`{"error":{"code":%d,"message":"why","status":%q}}`, status, name)}
}

var rows = []row{
	{name: "accepted", records: records(rt.Google("d0", "1")), want: "billed done"},
	{name: "3", records: records(rt.Google("none", "1"), rt.Google("d1", "1")), want: "refused done, billed done", problem: metering.ProblemMarketplaceRefused},
	{name: "4", prepare: undone(4), records: records(rt.Google("d0", "1"), rt.Google("d1", "1")), want: "in doubt resend, billed done"},
	{
		name: "5", prepare: inactive, records: records(rt.Google("d0", "1"), with(rt.Google("d1", "1"), consumerIs("project_number:2"))),
		want: "refused hourly, billed done", problem: metering.ProblemNotSubscribed,
	},
	{
		name: "7", prepare: func(b *rt.Box) { b.Fault(sandbox.Fault{Operation: "check", Fault: sandbox.Lost}) },
		records: records(with(rt.Google("d0", "1"), consumerIs("project_number:3"))), want: "refused hourly", problem: metering.ProblemMarketplaceRefused,
	},
	{name: "8", prepare: undone(8), records: records(rt.Google("d0", "1"), rt.Google("d1", "1")), want: "refused resend, billed done", problem: metering.ProblemMarketplaceRefused},
	{name: "13", prepare: undone(13), records: records(rt.Google("d0", "1"), rt.Google("d1", "1")), want: "in doubt resend, billed done"},
	{name: "14", prepare: undone(14), records: records(rt.Google("d0", "1"), rt.Google("d1", "1")), want: "in doubt resend, billed done"},
	{name: "an unknown code", prepare: undone(9), records: records(rt.Google("d0", "1"), rt.Google("d1", "1")), want: "in doubt resend, billed done"},

	{
		name: "INVALID_ARGUMENT", canned: failure(400, "INVALID_ARGUMENT"), records: records(rt.Google("d0", "1"), rt.Google("d1", "1")),
		want: "refused bisect, refused bisect", problem: metering.ProblemMarketplaceRefused,
	},
	{name: "INVALID_ARGUMENT", canned: failure(400, "INVALID_ARGUMENT"), records: records(rt.Google("d0", "1")), want: "refused done", problem: metering.ProblemMarketplaceRefused},
	{
		name: "UNAUTHENTICATED", canned: failure(401, "UNAUTHENTICATED"), records: records(rt.Google("d0", "1")), want: "refused wait for the lane",
		problem: metering.ProblemNoConnection, lane: reporting.CredentialsRefused,
	},
	{
		name: "PERMISSION_DENIED", records: records(with(rt.Google("d0", "1"), serviceIs("none.example"))), want: "refused wait for the lane",
		problem: metering.ProblemNoConnection, lane: reporting.CredentialsRefused,
	},
	{
		name: "NOT_FOUND", canned: failure(404, "NOT_FOUND"), records: records(rt.Google("d0", "1")), want: "refused wait for the lane",
		problem: metering.ProblemNoConnection, lane: reporting.Misconfigured,
	},
	{
		name: "RESOURCE_EXHAUSTED", prepare: func(b *rt.Box) { b.Fault(sandbox.Fault{Fault: sandbox.Throttled, Operation: "report"}) },
		records: records(rt.Google("d0", "1")), want: "refused wait for the lane", problem: metering.ProblemMarketplaceRefused, lane: reporting.Throttled,
	},
	{
		name: "RESOURCE_EXHAUSTED", prepare: func(b *rt.Box) { b.Fault(sandbox.Fault{Fault: sandbox.Throttled, Operation: "check"}) },
		records: records(rt.Google("d0", "1")), want: "refused wait for the lane", problem: metering.ProblemMarketplaceRefused, lane: reporting.Throttled,
	},
}

func TestTables_TheKindsList(t *testing.T) {
	names := map[int]string{
		3: "INVALID_ARGUMENT", 4: "DEADLINE_EXCEEDED", 5: "NOT_FOUND", 7: "PERMISSION_DENIED", 8: "RESOURCE_EXHAUSTED", 13: "INTERNAL", 14: "UNAVAILABLE",
	}
	errors := map[string]reporting.Rule{}
	for code, rule := range reportErrors {
		errors[names[code]] = rule
	}
	checks := maps.Clone(checkErrors)
	maps.DeleteFunc(checks, func(_ string, rule reporting.Rule) bool { return rule.Problem == "" }) // these say nothing
	rt.KindsList(t, "GCP", nil, errors, checks, refusals)
}

func TestTables_EachRowIsProduced(t *testing.T) {
	missing := map[string]bool{"accepted": true}
	for code := range reportErrors {
		missing[strconv.Itoa(code)] = true
	}
	for name := range refusals {
		missing[name] = true
	}
	for _, row := range rows {
		delete(missing, row.name)
		t.Run(row.name, func(t *testing.T) {
			b := rt.Start(t, sandbox.Options{})
			if row.prepare != nil {
				row.prepare(b)
			}
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
			if first.Verdict != reports.Billed && (first.Reason == "" || strings.Contains(b.Billed(), "d0")) {
				t.Errorf("verdict %v, reason %q, billed: %s", first.Verdict, first.Reason, b.Billed())
			}
		})
	}
	if len(missing) > 0 {
		t.Errorf("no test produces %v", slices.Sorted(maps.Keys(missing)))
	}
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
		got := send(b, rt.Google("d0", "1"), rt.Google("d1", "2"))
		want(t, f.Fault, rt.Verdicts(got), "in doubt resend, in doubt resend")
		if got.Lane != reporting.NoLaneFault || got.Results[0].Reason == "" || got.Request == nil {
			t.Errorf("%s: %+v", f.Fault, got)
		}
		want(t, f.Fault+", again", rt.Verdicts(send(b, rt.Google("d0", "1"), rt.Google("d1", "2"))), "billed done, billed done")
		want(t, f.Fault+", bill", b.Billed(), "d0=1 d1=2")
	}
}

func TestSend_SlowResponseIsInDoubt(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	m := of(b, nil)
	if _, _, err := m.tokens.Get(context.Background()); err != nil {
		t.Fatal(err)
	}
	b.Fault(sandbox.Fault{Operation: "report", Fault: sandbox.Slow, DelayMS: 600_000})
	m.client = exchange.NewClient(nil, 300*time.Millisecond)
	got := m.Send(context.Background(), records(rt.Google("d0", "1")))
	want(t, "verdicts", rt.Verdicts(got), "in doubt resend")
	if !strings.Contains(got.Results[0].Reason, "no response within 300ms") {
		t.Errorf("reason %q", got.Results[0].Reason)
	}
}

func TestSend_OddResponses(t *testing.T) {
	first, second := rt.Google("d0", "1"), rt.Google("d1", "1")
	failed := func(id, status string) string {
		return `{"operationId":"` + id + `","status":` + status + `}`
	}
	reports := func(all ...string) string { return `{"reportErrors":[` + strings.Join(all, ",") + `]}` }
	doubt := "in doubt resend, in doubt resend"
	for _, c := range []struct {
		name   string
		status int
		body   string
		want   string // of d0 and d1
	}{
		{"no errors", 200, "{}", "billed done, billed done"},
		{"no errors, members", 200, `{"reportErrors":[],"serviceConfigId":"x","new":1}`, "billed done, billed done"},
		{"members that are new alone", 200, `{"new":1}`, doubt},
		{"an error with status 200", 200, `{"error":{"code":503,"message":"why"}}`, doubt},
		{"an error beside members", 200, `{"serviceConfigId":"x","Error":null}`, doubt},
		{"a proxy", 200, `{"message":"blocked"}`, doubt},
		{"a report without a list of errors", 200, `{"reportErrors":null,"service_rollout_id":"x"}`, "billed done, billed done"},
		{"the second failed", 200, reports(failed(OperationID(&second), `{"code":3}`)), "billed done, refused done"},
		{"another operation failed", 200, reports(failed("x", `{"code":3}`)), doubt},
		{"another operation and one of ours", 200, reports(failed("x", `{"code":3}`), failed(OperationID(&first), `{"code":3}`)), "refused done, in doubt resend"},
		{"errors in another spelling", 200, strings.Replace(reports(failed(OperationID(&second), `{"code":3}`)), "reportErrors", "report_errors", 1), "billed done, refused done"},
		{"an error without a code", 200, reports(failed(OperationID(&first), `{}`)), "in doubt resend, billed done"},
		{"an error twice", 200, reports(failed(OperationID(&first), `{"code":3}`), failed(OperationID(&first), `{"code":5}`)), "in doubt resend, billed done"},
		{"an error without a form", 200, reports("7"), doubt},
		{"a member twice", 200, `{"reportErrors":[],"reportErrors":[]}`, doubt},
		{"empty", 200, "", doubt},
		{"null", 200, "null", doubt},
		{"a list", 200, "[]", doubt},
		{"two documents", 200, "{}{}", doubt},
		{"202", 202, "{}", doubt},
		{"a redirect", 307, "{}", doubt},
		{"an empty 400", 400, "", doubt},
		{"an HTML 403", 403, "<html>", doubt},
		{"an unknown failure", 409, `{"error":{"status":"ABORTED"}}`, doubt},
		{"a failure of 500", 500, `{"error":{"status":"INVALID_ARGUMENT"}}`, doubt},
	} {
		b := rt.Start(t, sandbox.Options{})
		m := of(b, &rt.Canned{Path: ":report", Status: c.status, Body: c.body, Header: http.Header{"Location": {b.URL + "/gcp/v1/services/meter.example:report"}}})
		want(t, c.name, rt.Verdicts(m.Send(context.Background(), records(first, second))), c.want)
		want(t, c.name+", bill", b.Billed(), "")
	}
}

func TestSend_ChecksAreCachedFor60Seconds(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	m := of(b, nil)
	for i, step := range []struct {
		after  time.Duration
		checks int
	}{{0, 1}, {59 * time.Second, 1}, {60 * time.Second, 2}, {61 * time.Second, 2}} {
		b.Set(rt.Now.Add(step.after))
		want(t, "verdicts", rt.Verdicts(m.Send(context.Background(), records(rt.Google(fmt.Sprintf("d%d", i), "1")))), "billed done")
		if n := len(b.Calls("check")); n != step.checks {
			t.Errorf("step %d: %d checks", i, n)
		}
	}
	sent := rt.Google("d0", "1")
	var check struct {
		Operation struct {
			OperationID string            `json:"operationId"`
			UserLabels  map[string]string `json:"userLabels"`
		} `json:"operation"`
	}
	if err := json.Unmarshal(b.Calls("check")[0].Body, &check); err != nil || check.Operation.OperationID != OperationID(&sent) || check.Operation.UserLabels != nil {
		t.Errorf("%+v %v", check, err)
	}
}

// An entitlement that check refuses is not reported; that one alone, and checked again later.
func TestSend_CheckErrorsAreRefused(t *testing.T) {
	for _, state := range []string{sandbox.GoogleBillingDisabled, sandbox.GoogleNotActivated, sandbox.GoogleProjectDeleted} {
		b := rt.Start(t, sandbox.Options{})
		b.Change(func(c *sandbox.Catalog) { c.Google.Entitlements[0].State = state })
		m := of(b, nil)
		batch := records(rt.Google("d0", "1"), with(rt.Google("d1", "1"), consumerIs("project_number:2")), rt.Google("d2", "1"))
		got := m.Send(context.Background(), batch)
		want(t, "verdicts", rt.Verdicts(got), "refused hourly, billed done, refused hourly")
		if r := got.Results[0]; r.Problem != metering.ProblemNotSubscribed || !strings.Contains(r.Reason, state) {
			t.Errorf("%+v", r)
		}
		// The last result stands while Google can't say another.
		b.Set(rt.Now.Add(2 * time.Minute))
		for _, f := range []sandbox.Fault{{Fault: sandbox.CheckError}, {Operation: "check", Fault: sandbox.ServerError}, {Operation: "check", Fault: sandbox.Malformed}} {
			b.Fault(f)
			want(t, "alone", rt.Verdicts(m.Send(context.Background(), batch[:1])), "refused hourly")
		}
		b.Change(func(c *sandbox.Catalog) { c.Google.Entitlements[0].State = sandbox.GoogleActive })
		want(t, "active again", rt.Verdicts(m.Send(context.Background(), batch)), "billed done, billed done, billed done")
		want(t, "billed", b.Billed(), "d1=1 d0=1 d2=1")
	}
}

// Each code of checkErrors does what its row says, and one that is not known does by default. Of a
// consumer that can't be billed nothing is sent; a code that says nothing keeps nothing back.
func TestTables_EachCheckErrorIsProduced(t *testing.T) {
	hourly, done, resend, billed := "refused hourly", "refused done", "refused resend", "billed done"
	subscribed, refused := metering.ProblemNotSubscribed, metering.ProblemMarketplaceRefused
	type means struct {
		verdict string
		problem metering.ProblemCode
	}
	codes := map[string]means{
		"NOT_FOUND": {hourly, subscribed}, "SERVICE_NOT_ACTIVATED": {hourly, subscribed}, "BILLING_DISABLED": {hourly, subscribed},
		"PROJECT_DELETED": {hourly, subscribed}, "PROJECT_INVALID": {done, refused}, "CONSUMER_INVALID": {done, refused},
		"PERMISSION_DENIED": {hourly, refused}, "ABUSER_DETECTED": {hourly, refused}, "IP_ADDRESS_BLOCKED": {hourly, refused},
		"REFERER_BLOCKED": {hourly, refused}, "CLIENT_APP_BLOCKED": {hourly, refused}, "API_TARGET_BLOCKED": {hourly, refused},
		"API_KEY_INVALID": {hourly, refused}, "API_KEY_EXPIRED": {hourly, refused}, "API_KEY_NOT_FOUND": {hourly, refused},
		"INVALID_CREDENTIAL": {hourly, refused}, "SECURITY_POLICY_VIOLATED": {hourly, refused}, "LOCATION_POLICY_VIOLATED": {hourly, refused},
		"RESOURCE_EXHAUSTED":           {resend, refused},
		"NAMESPACE_LOOKUP_UNAVAILABLE": {billed, ""}, "SERVICE_STATUS_UNAVAILABLE": {billed, ""}, "BILLING_STATUS_UNAVAILABLE": {billed, ""},
		"QUOTA_CHECK_UNAVAILABLE": {billed, ""}, "CLOUD_RESOURCE_MANAGER_BACKEND_UNAVAILABLE": {billed, ""},
		"SECURITY_POLICY_BACKEND_UNAVAILABLE": {billed, ""}, "LOCATION_POLICY_BACKEND_UNAVAILABLE": {billed, ""},
	}
	for code := range checkErrors {
		if _, ok := codes[code]; !ok {
			t.Errorf("no test produces %s", code)
		}
	}
	codes["SOME_NEW_CODE"], codes["SOMETHING_NEW_UNAVAILABLE"] = means{hourly, subscribed}, means{billed, ""}
	for code, row := range codes {
		b := rt.Start(t, sandbox.Options{})
		b.Fault(sandbox.Fault{Fault: sandbox.CheckError, Code: code})
		got := send(b, rt.Google("d0", "1"))
		want(t, code, rt.Verdicts(got), row.verdict)
		if r := got.Results[0]; r.Problem != row.problem || row.problem != "" && !strings.Contains(r.Reason, code) {
			t.Errorf("%s: problem %s, reason %q", code, r.Problem, r.Reason)
		}
		if sent := len(b.Calls("report")) > 0; sent != (row.verdict == billed) || got.Lane != reporting.NoLaneFault {
			t.Errorf("%s: report was called: %v; lane %v", code, sent, got.Lane)
		}
	}
}

// A check that says nothing does not keep usage from being reported: report refuses what is not
// billable.
func TestSend_TransientChecksGoOn(t *testing.T) {
	for _, f := range []sandbox.Fault{
		{Fault: sandbox.CheckError, Code: "SERVICE_STATUS_UNAVAILABLE"},
		{Operation: "check", Fault: sandbox.Lost},
		{Operation: "check", Fault: sandbox.Cut},
		{Operation: "check", Fault: sandbox.Malformed},
		{Operation: "check", Fault: sandbox.ContentType},
		{Operation: "check", Fault: sandbox.ServerError},
	} {
		b := rt.Start(t, sandbox.Options{})
		b.Fault(f)
		m := of(b, nil)
		want(t, f.Fault, rt.Verdicts(m.Send(context.Background(), records(rt.Google("d0", "1")))), "billed done")
		m.Send(context.Background(), records(rt.Google("d1", "1")))
		if n := len(b.Calls("check")); n != 2 {
			t.Errorf("%s: %d checks: a result that says nothing is not cached", f.Fault, n)
		}
	}
}

func TestSend_UnfitRecordsAreNotSent(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	got := send(b, rt.Google("d0", "1"), rt.Google("d1", "1.5"), rt.Google("d2", "9223372036854775808"), rt.Google("d3", "0"), rt.Google("d0", "2"),
		with(rt.Google("d4", "1"), serviceIs("other.example")), with(rt.Google("d5", "1"), serviceIs("")))
	want(t, "verdicts", rt.Verdicts(got), "billed done, refused done, refused done, refused done, refused resend, refused resend, refused done")
	want(t, "precision", string(got.Results[1].Problem), "QUANTITY_PRECISION")
	want(t, "range", string(got.Results[2].Problem), "QUANTITY_RANGE")
	want(t, "billed", b.Billed(), "d0=1")
}

// A request has as many operations as 1 MB takes, and no more.
func TestFit_IsAtMost1MB(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	m := of(b, nil)
	var all []reporting.Record
	for i := range 4_000 {
		all = append(all, with(rt.Google("d0", "1"), func(r *reporting.Record) {
			r.Start = r.Start.Add(-time.Duration(i) * time.Hour)
			r.End = r.Start.Add(time.Hour)
			if i%3 == 0 {
				r.Dimension = strings.Repeat(`"`, 255) // twice as long in JSON
			}
		}))
	}
	n := m.Fit(all)
	if size := len(Body(all[:n])); size > 1_000_000 || len(Body(all[:n+2])) < 1_000_000 {
		t.Fatalf("%d operations fit, with %d bytes", n, size)
	}
	got := m.Send(context.Background(), all)
	if len(b.Calls("report")) != 1 || got.Status != 200 {
		t.Fatalf("status %d, lane %v", got.Status, got.Lane)
	}
	for i, r := range got.Results {
		if sent := r.Next != reporting.Resend; sent != (i < n) {
			t.Fatalf("record %d of %d: %+v", i, n, r)
		}
	}
}

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
		want(t, "verdicts", rt.Verdicts(m.Send(context.Background(), records(rt.Google(fmt.Sprintf("d%d", i), "1")))), "billed done")
		if n := len(b.Calls("token")); n != step.tokens {
			t.Errorf("step %d: %d tokens", i, n)
		}
	}
}

// federated returns a marketplace with Workload Identity Federation.
func federated(b *rt.Box, transport http.RoundTripper) *Marketplace {
	m := of(b, transport)
	m.options.Secrets, m.options.SecretARN = nil, ""
	m.options.Region = "eu-west-1"
	m.options.Credentials = awssdk.CredentialsProviderFunc(func(context.Context) (awssdk.Credentials, error) {
		return awssdk.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "planted-secret-key", SessionToken: "planted-session"}, nil
	})
	m.options.WorkloadIdentity = map[string]any{
		"type": "external_account", "audience": rt.Audience, "subject_token_type": "urn:ietf:params:aws:token-type:aws4_request",
		"service_account_impersonation_url": "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/" + rt.Robot + ":generateAccessToken",
		"token_url":                         "https://attacker.example/token",
		"credential_source":                 map[string]any{"environment_id": "aws1", "url": "https://attacker.example"},
	}
	return m
}

func TestSend_WorkloadIdentityFederation(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	m := federated(b, nil)
	for _, d := range []string{"d0", "d1"} {
		got := m.Send(context.Background(), records(rt.Google(d, "1")))
		want(t, "verdicts", rt.Verdicts(got), "billed done")
	}
	if len(b.Calls("exchangeToken")) != 1 || len(b.Calls("generateAccessToken")) != 1 || len(b.Calls("token")) != 0 {
		t.Errorf("%d exchanges, %d impersonations", len(b.Calls("exchangeToken")), len(b.Calls("generateAccessToken")))
	}
	if body := string(b.Calls("exchangeToken")[0].Body); strings.Contains(body, "planted-secret-key") {
		t.Error("the AWS secret key left the machine")
	}
}

func TestSend_CredentialsAreTheLanes(t *testing.T) {
	canned := func(status int, body string) func(*rt.Box, http.RoundTripper) *Marketplace {
		return func(b *rt.Box, _ http.RoundTripper) *Marketplace {
			return of(b, &rt.Canned{Path: "/token", Status: status, Body: body})
		}
	}
	nothing := func(*Options, *rt.Box) {}
	google := func(fault, operation string) sandbox.Fault {
		return sandbox.Fault{Marketplace: sandbox.Google, Operation: operation, Fault: fault}
	}
	for _, c := range []struct {
		name   string
		of     func(*rt.Box, http.RoundTripper) *Marketplace
		change func(*Options, *rt.Box)
		lane   reporting.LaneFault
		reason string
	}{
		{"unknown account", of, func(o *Options, _ *rt.Box) { o.Secrets = vault{"arn": rt.Key("planted@x")} }, reporting.CredentialsRefused, "status 400"},
		{"no secret", of, func(o *Options, _ *rt.Box) { o.Secrets = vault{} }, reporting.CredentialsRefused, "there is no secret arn"},
		{"no key", of, func(o *Options, _ *rt.Box) { o.Secrets = vault{"arn": "planted"} }, reporting.CredentialsRefused, "no key of a service account"},
		{"broken key", of, func(o *Options, _ *rt.Box) {
			o.Secrets = vault{"arn": `{"type":"service_account","client_email":"x","private_key":"planted"}`}
		}, reporting.CredentialsRefused, "private key"},
		{"no reporter", of, func(o *Options, _ *rt.Box) { o.Secrets = vault{"arn": rt.Key("other@seller.iam.gserviceaccount.com")} }, reporting.CredentialsRefused, "PERMISSION_DENIED"},
		{"token endpoint fails", canned(500, "{}"), nothing, reporting.Unreachable, "status 500"},
		{"token endpoint refuses in another form", canned(403, "<html>"), nothing, reporting.CredentialsRefused, "status 403"},
		{"token endpoint is cut", canned(200, `{"access_token":"planted`), nothing, reporting.Unreachable, "token"},
		{"no token", canned(200, `{}`), nothing, reporting.Unreachable, "no token"},
		{"unreachable", of, func(o *Options, _ *rt.Box) { o.Sandbox = "http://127.0.0.1:1" }, reporting.Unreachable, "token"},
		{"no pool", federated, func(o *Options, _ *rt.Box) { o.WorkloadIdentity["audience"] = rt.Audience + "x" }, reporting.CredentialsRefused, "status 400"},
		{"another account", federated, func(o *Options, _ *rt.Box) {
			o.WorkloadIdentity["service_account_impersonation_url"] = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/x:generateAccessToken"
		}, reporting.CredentialsRefused, "status 403"},
		{"another host", federated, func(o *Options, _ *rt.Box) {
			o.WorkloadIdentity["service_account_impersonation_url"] = "https://attacker.example/v1/projects/-/serviceAccounts/x:generateAccessToken"
		}, reporting.CredentialsRefused, "iamcredentials.googleapis.com"},
		{"no AWS credentials", federated, func(o *Options, _ *rt.Box) {
			o.Credentials = awssdk.CredentialsProviderFunc(func(context.Context) (awssdk.Credentials, error) {
				return awssdk.Credentials{}, errors.New("no role")
			})
		}, reporting.CredentialsRefused, "no role"},
		{"exchange fails", federated, func(_ *Options, b *rt.Box) { b.Fault(google(sandbox.ServerError, "exchangeToken")) }, reporting.Unreachable, "token"},
		{"impersonation fails", federated, func(_ *Options, b *rt.Box) { b.Fault(google(sandbox.ServerError, "generateAccessToken")) }, reporting.Unreachable, "token"},
	} {
		b := rt.Start(t, sandbox.Options{})
		m := c.of(b, nil)
		c.change(&m.options, b)
		got := m.Send(context.Background(), records(rt.Google("d0", "1")))
		want(t, c.name, rt.Verdicts(got), "refused wait for the lane")
		if got.Lane != c.lane || !strings.Contains(got.LaneReason, c.reason) || got.Request != nil || strings.Contains(rt.Everything(got), "planted") {
			t.Errorf("%s: %+v", c.name, got)
		}
		if n := len(b.Calls("report")); n != 0 {
			t.Errorf("%s: %d calls", c.name, n)
		}
	}
}

// A marketplace or its token endpoints may repeat what they were sent.
func TestSend_SecretsAreRedacted(t *testing.T) {
	echo := func(r *http.Request) string {
		var body bytes.Buffer
		_, _ = body.ReadFrom(r.Body)
		text := r.Header.Get("Authorization") + body.String()
		return fmt.Sprintf(`{"error":{"status":"UNAUTHENTICATED","message":%q},"error_description":%q}`, text, text)
	}
	for path, of := range map[string]func(*rt.Box, http.RoundTripper) *Marketplace{
		":report": of, ":check": of, "/token": of, "/v1/token": federated, ":generateAccessToken": federated,
	} {
		for _, status := range []int{401, 500} {
			b := rt.Start(t, sandbox.Options{})
			got := of(b, &rt.Canned{Path: path, Status: status, Fill: echo}).Send(context.Background(), records(rt.Google("d0", "1")))
			all := rt.Everything(got)
			if strings.Contains(all, "planted") || strings.Contains(all, "ya29.") || strings.Contains(all, "assertion=") || strings.Contains(all, "subject_token") {
				t.Errorf("%s: %s", path, all)
			}
		}
	}
}

// byPath has a canned response for each of the two methods.
type byPath struct{ check, report *rt.Canned }

func (p byPath) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.Contains(r.URL.Path, p.check.Path) {
		return p.check.RoundTrip(r)
	}
	return p.report.RoundTrip(r)
}

// A response that does not repeat the operationId is not Google's response to the check.
func TestSend_CheckOfAnotherOperationSaysNothing(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	b.Change(func(c *sandbox.Catalog) { c.Google.Entitlements[0].State = sandbox.GoogleBillingDisabled })
	m := of(b, nil)
	want(t, "disabled", rt.Verdicts(m.Send(context.Background(), records(rt.Google("d0", "1")))), "refused hourly")
	b.Set(rt.Now.Add(2 * time.Minute))
	for _, body := range []string{"{}", `{"operationId":"x"}`, "", "null", "[]", `{"error":{"code":503}}`, `{"message":"blocked"}`} {
		m.client = exchange.NewClient(&rt.Canned{Path: ":check", Status: 200, Body: body}, 0)
		want(t, body, rt.Verdicts(m.Send(context.Background(), records(rt.Google("d0", "1")))), "refused hourly")
	}
	if n := len(b.Calls("report")); n != 0 {
		t.Errorf("%d reports", n)
	}
}

// Each consumer of a request is checked, however many there are.
func TestSend_ManyConsumersAreChecked(t *testing.T) {
	catalog := rt.Catalog()
	var batch []reporting.Record
	for i := range 100 {
		id := fmt.Sprintf("project_number:%d", 100+i)
		state := sandbox.GoogleActive
		if i%10 == 3 {
			state = sandbox.GoogleProjectDeleted
		}
		catalog.Google.Entitlements = append(catalog.Google.Entitlements, sandbox.GoogleEntitlement{UsageReportingID: id, Service: rt.Service, State: state})
		batch = append(batch, with(rt.Google("d0", "1"), consumerIs(id)), with(rt.Google("d1", "1"), consumerIs(id)))
	}
	b := rt.Start(t, sandbox.Options{Catalog: catalog})
	got := send(b, batch...)
	for i, r := range got.Results {
		if billed := r.Verdict == reports.Billed; billed == (i/2%10 == 3) {
			t.Fatalf("record %d: %+v", i, r)
		}
	}
	if n := len(b.Calls("check")); n != 100 || len(b.Calls("report")) != 1 || len(b.Calls("token")) != 1 {
		t.Errorf("%d checks, %d reports, %d tokens", n, len(b.Calls("report")), len(b.Calls("token")))
	}
}

// Slow checks leave half of the timeout for report, however many there are. A consumer that could
// not be checked counts by its last result, or as active.
func TestSend_SlowChecksLeaveTimeForReport(t *testing.T) {
	const timeout = 4 * time.Second
	catalog := rt.Catalog()
	var batch []reporting.Record
	for i := range 5 * maxChecks {
		id := fmt.Sprintf("project_number:%d", 100+i)
		state := sandbox.GoogleActive
		if i == 0 {
			state = sandbox.GoogleBillingDisabled
		}
		catalog.Google.Entitlements = append(catalog.Google.Entitlements, sandbox.GoogleEntitlement{UsageReportingID: id, Service: rt.Service, State: state})
		batch = append(batch, with(rt.Google("d0", "1"), consumerIs(id)))
	}
	b := rt.Start(t, sandbox.Options{Catalog: catalog})
	m := of(b, nil)
	want(t, "checked before", rt.Verdicts(m.Send(context.Background(), batch[:1])), "refused hourly")
	b.Set(rt.Now.Add(2 * time.Minute))

	all := 1000
	b.Fault(sandbox.Fault{Operation: "check", Fault: sandbox.Slow, DelayMS: 600_000, Count: &all})
	ends := &deadlines{of: map[string][]time.Time{}}
	m.client = exchange.NewClient(ends, timeout)
	for i, r := range m.Send(context.Background(), batch).Results {
		if billed := r.Verdict == reports.Billed; billed == (i == 0) {
			t.Errorf("record %d: %+v", i, r)
		}
	}
	checks, report := ends.of["check"], ends.of["report"]
	if len(report) != 1 || len(checks) == 0 {
		t.Fatalf("%d checks, %d reports", len(checks), len(report))
	}
	for _, end := range checks {
		if rest := report[0].Sub(end); !end.Equal(checks[0]) || rest <= 0 || rest > timeout/2 {
			t.Errorf("a check may last until %v, the first until %v, report until %v", end, checks[0], report[0])
		}
	}
}

// deadlines is a network that notes until when each request may last, by its method.
type deadlines struct {
	mu sync.Mutex
	of map[string][]time.Time
}

func (d *deadlines) RoundTrip(r *http.Request) (*http.Response, error) {
	_, method, _ := strings.Cut(r.URL.Path, ":")
	end, _ := r.Context().Deadline()
	d.mu.Lock()
	d.of[method] = append(d.of[method], end)
	d.mu.Unlock()
	return http.DefaultTransport.RoundTrip(r)
}

// A token endpoint that never responds holds a call no longer than its timeout.
func TestSend_SilentTokenEndpointIsUnreachable(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	for name, of := range map[string]func(*rt.Box, http.RoundTripper) *Marketplace{"/token": of, "/v1/token": federated, ":generateAccessToken": federated} {
		m := of(b, &silentAt{name})
		m.client = exchange.NewClient(m.options.Transport, 50*time.Millisecond)
		got := m.Send(context.Background(), records(rt.Google("d0", "1")))
		want(t, name, rt.Verdicts(got), "refused wait for the lane")
		if got.Lane != reporting.Unreachable {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// silentAt is a network on which requests to the path have no response.
type silentAt struct{ path string }

func (s *silentAt) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.HasSuffix(r.URL.Path, s.path) {
		<-r.Context().Done()
		return nil, context.Cause(r.Context())
	}
	return http.DefaultTransport.RoundTrip(r)
}
