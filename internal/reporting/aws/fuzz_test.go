package aws

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/reporting"
	rt "github.com/marketmeter/marketmeter/internal/reporting/reportingtest"
	"github.com/marketmeter/marketmeter/sandbox"
)

// received returns what Send makes of a response.
func received(status int, body string) reporting.Response {
	m := New(Options{
		Credentials: static("AKIDEXAMPLE", "secret", ""), Sandbox: "http://aws.example", Now: func() time.Time { return rt.Now },
		Transport: &rt.Canned{Status: status, Body: body},
	})
	return m.Send(context.Background(), records(rt.AWS("d0", "1"), rt.AWS("d1", "2")))
}

// A response that was cut anywhere says nothing.
func TestSend_EveryCutIsInDoubt(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	b.Fault(sandbox.Fault{Fault: sandbox.Unprocessed, Records: []int{1}})
	body := string(send(b, rt.AWS("d0", "1"), rt.AWS("d1", "2")).Response)
	want(t, "whole", rt.Verdicts(received(200, body)), "billed done, refused resend")
	for n := range len(body) {
		want(t, body[:n], rt.Verdicts(received(200, body[:n])), "in doubt resend, in doubt resend")
	}
}

// FuzzResponse looks for a response that bills a record without saying so, that is definite though
// it is none of AWS's, or that depends on the order of the results.
func FuzzResponse(f *testing.F) {
	record := `{"UsageRecord":{"Timestamp":1794999600,"Dimension":"d0","LicenseArn":"` + rt.Licence + `"},"MeteringRecordId":"x","Status":"Success"}`
	for _, body := range []string{
		"", "{}", `{"Results":[` + record + `]}`, `{"Results":[` + strings.Replace(record, "Success", "DuplicateRecord", 1) + "," + record + `]}`,
		`{"Results":[],"UnprocessedRecords":[{"Timestamp":1.7949996E9,"Dimension":"d1"}]}`,
		`{"__type":"a#ThrottlingException:b","message":"m"}`, `{"__type":"TimestampOutOfBoundsException"}`, `{"code":"InternalServiceErrorException"}`, "<html>",
	} {
		for _, status := range []int{200, 400, 500} {
			f.Add(status, body)
		}
	}
	f.Fuzz(func(t *testing.T, status int, body string) {
		if status < 200 || status > 599 {
			return
		}
		got := received(status, body)
		var response struct {
			Results []struct {
				UsageRecord struct{ Dimension string }
				Status      string
			}
			UnprocessedRecords []json.RawMessage
		}
		object := json.Unmarshal([]byte(body), &map[string]json.RawMessage{}) == nil
		readable := json.Unmarshal([]byte(body), &response) == nil
		for i, r := range got.Results {
			dimension := []string{"d0", "d1"}[i]
			says := func(status string) bool {
				for _, s := range response.Results {
					if s.UsageRecord.Dimension == dimension && s.Status == status {
						return true
					}
				}
				return false
			}
			switch {
			case r.Verdict == reporting.InDoubt && r.Next != reporting.Resend,
				r.Verdict != reporting.InDoubt && (!object || status >= 500),
				r.Verdict == reporting.Billed && (status != 200 || readable && !says("Success")),
				r.Verdict == reporting.Duplicate && (status != 200 || readable && !says("DuplicateRecord")),
				r.Verdict == reporting.Refused && r.Problem == "",
				got.Lane != reporting.NoLaneFault && r.Next != reporting.WaitForLane:
				t.Fatalf("status %d, %s: %+v", status, body, got)
			}
		}
		if status == 200 && readable && len(response.UnprocessedRecords) == 0 {
			var parts struct{ Results []json.RawMessage }
			if json.Unmarshal([]byte(body), &parts) != nil || rt.Verdicts(got) == rt.Verdicts(received(200, "")) {
				return
			}
			slices.Reverse(parts.Results)
			reversed, _ := json.Marshal(parts)
			want(t, "reversed", rt.Verdicts(received(200, string(reversed))), rt.Verdicts(got))
		}
	})
}
