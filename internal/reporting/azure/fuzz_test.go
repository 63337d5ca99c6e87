package azure

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/reporting"
	"github.com/marketmeter/marketmeter/internal/reporting/exchange"
	rt "github.com/marketmeter/marketmeter/internal/reporting/reportingtest"
	"github.com/marketmeter/marketmeter/sandbox"
)

// received returns what Send makes of a response.
func received(status int, body string) reporting.Response {
	now := func() time.Time { return rt.Now }
	m := New(Options{Sandbox: "http://azure.example", Now: now, Transport: &rt.Canned{Status: status, Body: body}})
	m.tokens.Fetch = func(context.Context) (exchange.Token, error) {
		return exchange.Token{Value: "token-of-the-test", Expires: rt.Now.Add(time.Hour)}, nil
	}
	return m.Send(context.Background(), records(rt.Azure("d0", "1"), rt.Azure("d1", "2")))
}

// A response that was cut anywhere says nothing.
func TestSend_EveryCutIsInDoubt(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	send(b, rt.Azure("d1", "3"))
	body := string(send(b, rt.Azure("d0", "1"), rt.Azure("d1", "2")).Response)
	want(t, "whole", rt.Verdicts(received(200, body)), "billed done, duplicate done")
	for n := range len(body) {
		want(t, body[:n], rt.Verdicts(received(200, body[:n])), "in doubt resend, in doubt resend")
	}
}

// FuzzResponse looks for a response that bills an event without saying so, that is definite though
// it is none of Azure's, that makes up an accepted event, or that depends on the order of the
// results.
func FuzzResponse(f *testing.F) {
	event := `{"usageEventId":"x","status":"Accepted","resourceId":"` + rt.Resource + `","quantity":1.0,"dimension":"d0","effectiveStartTime":"2026-11-18T11:00:00Z","planId":"silver"}`
	duplicate := strings.Replace(event, `"Accepted"`, `"Duplicate","error":{"additionalInfo":{"acceptedMessage":`+event+`}}`, 1)
	for _, body := range []string{
		"", "{}", `{"count":1,"result":[` + event + `]}`, `{"result":[` + duplicate + "," + strings.ReplaceAll(event, "d0", "d1") + `]}`,
		`{"result":[` + strings.Replace(event, "Accepted", "Expired", 1) + `]}`, `{"code":"BadArgument","message":"m","details":[{"message":"x"}]}`, "<html>",
	} {
		for _, status := range []int{200, 400, 401, 403, 409, 429, 500} {
			f.Add(status, body)
		}
	}
	f.Fuzz(func(t *testing.T, status int, body string) {
		if status < 200 || status > 599 {
			return
		}
		got := received(status, body)
		var response struct {
			Result []struct {
				Dimension string `json:"dimension"`
				Status    string `json:"status"`
			} `json:"result"`
		}
		object := json.Unmarshal([]byte(body), &map[string]json.RawMessage{}) == nil
		readable := json.Unmarshal([]byte(body), &response) == nil
		for i, r := range got.Results {
			dimension := []string{"d0", "d1"}[i]
			says := func(status string) bool {
				for _, s := range response.Result {
					if s.Dimension == dimension && s.Status == status {
						return true
					}
				}
				return false
			}
			switch {
			case r.Verdict == reporting.InDoubt && r.Next != reporting.Resend,
				r.Verdict != reporting.InDoubt && (!object || status >= 500 || status == 409),
				r.Verdict == reporting.Billed && (status != 200 || readable && !says("Accepted")),
				r.Verdict == reporting.Duplicate && (status != 200 || readable && !says("Duplicate")),
				r.Accepted != nil && (r.Verdict != reporting.Duplicate || !json.Valid([]byte(r.Accepted.Quantity))),
				r.Verdict == reporting.Refused && r.Problem == "",
				got.Lane != reporting.NoLaneFault && r.Next != reporting.WaitForLane:
				t.Fatalf("status %d, %s: %+v", status, body, got)
			}
		}
		var parts struct {
			Result []json.RawMessage `json:"result"`
		}
		if status == 200 && json.Unmarshal([]byte(body), &parts) == nil && rt.Verdicts(got) != rt.Verdicts(received(200, "")) {
			slices.Reverse(parts.Result)
			reversed, _ := json.Marshal(parts)
			want(t, "reversed", rt.Verdicts(received(200, string(reversed))), rt.Verdicts(got))
		}
	})
}
