package gcp

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/reporting"
	"github.com/marketmeter/marketmeter/internal/reporting/exchange"
	rt "github.com/marketmeter/marketmeter/internal/reporting/reportingtest"
	"github.com/marketmeter/marketmeter/sandbox"
)

// received returns what Send makes of a response, to a check or to a report. The other succeeds.
func received(status int, body string, toCheck bool) reporting.Response {
	now := func() time.Time { return rt.Now }
	first := rt.Google("d0", "1")
	m := New(Options{Sandbox: "http://google.example", Now: now})
	report := &rt.Canned{Path: ":report", Status: 200, Body: "{}"}
	check := &rt.Canned{Path: ":check", Status: 200, Body: `{"operationId":"` + OperationID(&first) + `"}`}
	if toCheck {
		check.Status, check.Body = status, body
	} else {
		report.Status, report.Body = status, body
	}
	m.client = exchange.NewClient(byPath{check, report}, 0)
	m.tokens.Fetch = func(context.Context) (exchange.Token, error) {
		return exchange.Token{Value: "token-of-the-test", Expires: rt.Now.Add(time.Hour)}, nil
	}
	return m.Send(context.Background(), records(first, rt.Google("d1", "2")))
}

// A response that was cut anywhere says nothing.
func TestSend_EveryCutIsInDoubt(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	body := string(send(b, rt.Google("d0", "1"), rt.Google("none", "2")).Response)
	want(t, "whole", rt.Verdicts(received(200, strings.Replace(body, OperationID(ref(rt.Google("none", "1"))), OperationID(ref(rt.Google("d1", "1"))), 1), false)), "billed done, refused done")
	for n := range len(body) {
		want(t, body[:n], rt.Verdicts(received(200, body[:n], false)), "in doubt resend, in doubt resend")
	}
}

func ref(r reporting.Record) *reporting.Record { return &r }

// FuzzResponse looks for a response that is definite though it is none of Google's, that bills an
// operation with an error, or that depends on the order of the errors; and for a response to a
// check that bills or rejects anything.
func FuzzResponse(f *testing.F) {
	first := OperationID(ref(rt.Google("d0", "1")))
	failed := `{"operationId":"` + first + `","status":{"code":3,"message":"m"}}`
	for _, body := range []string{
		"", "{}", `{"serviceConfigId":"x"}`, `{"reportErrors":[` + failed + `]}`, `{"reportErrors":[` + strings.Replace(failed, "3", "14", 1) + `]}`,
		`{"error":{"code":400,"message":"m","status":"INVALID_ARGUMENT"}}`, `{"error":{"code":429,"message":"m","status":"RESOURCE_EXHAUSTED"}}`,
		`{"operationId":"` + first + `","checkErrors":[{"code":"BILLING_DISABLED"}]}`, "<html>",
	} {
		for _, status := range []int{200, 400, 500} {
			f.Add(status, body, false)
			f.Add(status, body, true)
		}
	}
	f.Fuzz(func(t *testing.T, status int, body string, toCheck bool) {
		if status < 200 || status > 599 {
			return
		}
		got := received(status, body, toCheck)
		object := json.Unmarshal([]byte(body), &map[string]json.RawMessage{}) == nil && strings.Contains(body, "{")
		var response struct {
			ReportErrors []struct {
				OperationID string `json:"operationId"`
			} `json:"reportErrors"`
		}
		readable := json.Unmarshal([]byte(body), &response) == nil
		for i, r := range got.Results {
			id := OperationID(ref(rt.Google([]string{"d0", "d1"}[i], "1")))
			switch {
			case toCheck:
				// It continues, or nothing is sent.
				if r.Verdict != reports.Billed && (r.Verdict != reports.Refused || r.Next == reporting.Done || got.Request != nil || !object || status >= 500) {
					t.Fatalf("check: status %d, %s: %+v", status, body, got)
				}
			case r.Verdict == reports.InDoubt && r.Next != reporting.Resend,
				r.Verdict != reports.InDoubt && (!object || status >= 500),
				r.Verdict == reports.Billed && (status != 200 || readable && slices.ContainsFunc(response.ReportErrors, func(e struct {
					OperationID string `json:"operationId"`
				},
				) bool {
					return e.OperationID == id
				})),
				r.Verdict == reports.Duplicate,
				r.Verdict == reports.Refused && r.Problem == "",
				got.Lane != reporting.NoLaneFault && r.Next != reporting.WaitForLane:
				t.Fatalf("status %d, %s: %+v", status, body, got)
			}
		}
		var parts struct {
			ReportErrors []json.RawMessage `json:"reportErrors"`
		}
		if !toCheck && status == 200 && json.Unmarshal([]byte(body), &parts) == nil && rt.Verdicts(got) != rt.Verdicts(received(200, "", false)) {
			slices.Reverse(parts.ReportErrors)
			reversed, _ := json.Marshal(parts)
			want(t, "reversed", rt.Verdicts(received(200, string(reversed), false)), rt.Verdicts(got))
		}
	})
}
