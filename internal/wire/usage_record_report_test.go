package wire

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
)

var reportHour = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)

func quantity(text string) metering.Quantity {
	q, err := metering.ParseQuantity(text)
	if err != nil {
		panic(err)
	}
	return q
}

func exactly(text string) metering.Exact {
	x, err := metering.ParseExact(text)
	if err != nil {
		panic(err)
	}
	return x
}

// sealedReport is an hour of the partner in the state, with the records.
func sealedReport(partner metering.Partner, state reports.State, records ...reports.Record) *reports.Hour {
	h := reports.OpenHour("org1", "ent1", reportHour)
	h.State, h.Opened = state, time.Date(2026, 3, 1, 12, 0, 0, 5_000_000, time.UTC)
	h.Sealed = &reports.Sealed{
		From: reportHour, To: reportHour.Add(time.Hour), Partner: partner, Buyer: "buyer1", Product: "product1", Groups: 2, Records: records,
	}
	return &h
}

func TestAppendUsageRecordReport(t *testing.T) {
	difference := exactly("-1.5")
	h := sealedReport("AWS", reports.StateSettled,
		reports.Record{
			Dimension: "cpu", Members: exactly("10"), Quantity: quantity("5.333333"), CarryIn: exactly("0.25"), CarryOut: exactly("1/3"),
			Drawn: exactly("6"), DrawnAmount: exactly("12"), UnitPrice: quantity("2"), ListPrice: quantity("3"), Scale: exactly("1.5"),
			Attempts: []reports.Attempt{{Number: 1}, {Number: 7, Response: reports.Response{Result: reports.Billed}}},
			Outcome:  reports.Outcome{Kind: reports.Accepted, Evidence: reports.EvidenceResponse, Receipt: "r1"},
		},
		reports.Record{
			Dimension: "gb", Members: exactly("3"), Quantity: quantity("2"), CarryIn: exactly("0.5"), CarryOut: exactly("0.75"),
			Drawn: exactly("1"), DrawnAmount: exactly("4"), UnitPrice: quantity("4"), Scale: exactly("1"),
			Outcome: reports.Outcome{Kind: reports.Rejected, Evidence: reports.EvidenceResponse, Code: metering.ProblemMarketplaceRefused, Reason: "it says no"},
		},
		reports.Record{
			Dimension: "req", Members: exactly("9007199254740993"), Quantity: quantity("9007199254740993"), Scale: exactly("1"),
			Outcome: reports.Outcome{
				Kind: reports.Accepted, Evidence: reports.EvidenceResolved, Difference: &difference, By: "anna", At: reportHour.Add(30 * time.Hour),
			},
		},
	)
	h.Sealed.CommitAmount, h.Sealed.UsedCommit = exactly("1000.5"), exactly("988.5")
	h.Sealed.Aggregates = metering.Aggregates{"m2": metering.MustExact("1.5"), "m1": metering.MustExact("100000000000000000000.5")}
	calls := []reports.StoredCall{
		{Time: reportHour.Add(3 * time.Hour), Request: []byte(`{"UsageRecords":[]}`)},
		{
			Time: reportHour.Add(4 * time.Hour), Status: 200, RequestID: "id1", Request: []byte(`{"ProductCode":"p","UsageRecords":[{"Dimension":"cpu"}]}`),
			Responses: [][]byte{[]byte(`{"Status":"Success"}`), []byte(`{"Dimension":"gb"}`)},
		},
	}
	want := `{"buyerID":"buyer1","creationTime":"2026-03-01T12:00:00.005Z","entitlementID":"ent1","entitlementTermID":"","id":"` + h.ID() + `","info":{` +
		`"aggregatedBillableRecords":[{"key":"m1","quantity":100000000000000000000.5},{"key":"m2","quantity":1.5}],` +
		`"awsMeteringRequest":{"ProductCode":"p","UsageRecords":[{"Dimension":"cpu"}]},` +
		`"awsMeteringResponse":{"Results":[{"Status":"Success"}],"UnprocessedRecords":[{"Dimension":"gb"}]},` +
		`"calls":[{"request":{"UsageRecords":[]},"responses":[],"time":"2026-03-01T13:00:00.000Z"},` +
		`{"request":{"ProductCode":"p","UsageRecords":[{"Dimension":"cpu"}]},"requestID":"id1","responses":[{"Status":"Success"},{"Dimension":"gb"}],` +
		`"status":200,"time":"2026-03-01T14:00:00.000Z"}],` +
		`"commitAmount":1000.5,` +
		`"decimalParts":{"cpu":0.25,"gb":0.5},` +
		`"dimensionUnitListPrice":{"cpu":3},"dimensionUnitPrice":{"cpu":2,"gb":4},` +
		`"endTime":"2026-03-01T11:00:00.000Z",` +
		`"includedRecords":{"cpu":6},` +
		`"message":"1 of 3 dimensions are not ACCEPTED: \"gb\" is REJECTED, outcomes has the reason",` +
		`"newDecimalParts":{"cpu":0.3333333333333333333,"gb":0.5},` +
		`"outcomes":[{"attempts":7,"dimension":"cpu","evidence":"RESPONSE","hour":"2026-03-01T10:00:00.000Z","outcome":"ACCEPTED","quantity":5.333333,"receipt":"r1"},` +
		`{"attempts":0,"code":"MARKETPLACE_REFUSED","dimension":"gb","evidence":"RESPONSE","hour":"2026-03-01T10:00:00.000Z","outcome":"REJECTED","quantity":2,"reason":"it says no"},` +
		`{"attempts":0,"difference":-1.5,"dimension":"req","evidence":"RESOLVED","hour":"2026-03-01T10:00:00.000Z","outcome":"ACCEPTED","quantity":9007199254740993,` +
		`"resolvedBy":"anna","resolvedTime":"2026-03-02T16:00:00.000Z"}],` +
		`"partner":"AWS",` +
		`"recordsToReportBeforeAdjustmentAtListPrice":{"cpu":4},` +
		`"reportedRecords":{"cpu":5.333333,"gb":2,"req":9007199254740993},` +
		`"startTime":"2026-03-01T10:00:00.000Z","status":"FAILED","usageRecordGroupCount":2,"usageRecordGroupIds":["g1","g2"],` +
		`"usedCommitAmount":988.5,"usedCommitAmountIncrement":12},` +
		`"organizationID":"org1","partner":"AWS","productID":"product1"}`
	got := string(AppendUsageRecordReport(nil, h, []metering.GroupID{"g1", "g2"}, calls, 1_000_000))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// shownReport is a report as a client reads it.
type shownReport struct {
	Info struct {
		Status   string
		Message  string
		Outcomes []struct{ Dimension, Outcome string }
		Calls    []struct{ Request, Responses json.RawMessage }
		IDs      []string `json:"usageRecordGroupIds"`

		AWSRequest    json.RawMessage `json:"awsMeteringRequest"`
		AWSResponse   json.RawMessage `json:"awsMeteringResponse"`
		AzureRequest  json.RawMessage `json:"azureMeteringRequest"`
		AzureResponse json.RawMessage `json:"azureMeteringResponse"`
		GCPRequest    json.RawMessage `json:"gcpMeteringRequest"`
		GCPResponse   json.RawMessage `json:"gcpMeteringResponse"`
	}
}

func shown(t interface {
	Helper()
	Fatalf(string, ...any)
}, report []byte,
) (s shownReport) {
	t.Helper()
	if err := json.Unmarshal(report, &s); err != nil {
		t.Fatalf("%v: %s", err, report)
	}
	return s
}

func outcome(dimension string, kind reports.Kind) reports.Record {
	return reports.Record{Dimension: dimension, Scale: exactly("1"), Outcome: reports.Outcome{Kind: kind}}
}

func TestUsageRecordReport_Status(t *testing.T) {
	for _, test := range []struct {
		state reports.State
		kinds []reports.Kind
		want  string
	}{
		{reports.StateSealed, []reports.Kind{reports.Undecided}, "CREATED"},
		{reports.StateSealed, []reports.Kind{reports.Rejected, reports.Undecided}, "CREATED"},
		{reports.StateDecided, []reports.Kind{reports.Accepted}, "CREATED"},
		{reports.StateSettled, []reports.Kind{reports.Accepted, reports.Accepted}, "SUCCESS"},
		{reports.StateSettled, nil, "SUCCESS"},
		{reports.StateSettled, []reports.Kind{reports.Accepted, reports.Rejected}, "FAILED"},
		{reports.StateSettled, []reports.Kind{reports.Conflict}, "FAILED"},
		{reports.StateSettled, []reports.Kind{reports.Unknown}, "FAILED"},
	} {
		var records []reports.Record
		for i, kind := range test.kinds {
			records = append(records, outcome(fmt.Sprint("d", i), kind))
		}
		s := shown(t, AppendUsageRecordReport(nil, sealedReport("AWS", test.state, records...), nil, nil, 100_000))
		if s.Info.Status != test.want {
			t.Errorf("%s with %v is %s, want %s", test.state, test.kinds, s.Info.Status, test.want)
		}
	}
}

func TestUsageRecordReport_LastCallHasTheMarketplacesForm(t *testing.T) {
	call := func(status int, request string, responses ...string) reports.StoredCall {
		c := reports.StoredCall{Time: reportHour, Status: status, Request: []byte(request)}
		for _, response := range responses {
			c.Responses = append(c.Responses, []byte(response))
		}
		return c
	}
	for _, test := range []struct {
		name              string
		partner           metering.Partner
		call              reports.StoredCall
		request, response string
	}{
		{"AWS", "AWS", call(200, `{"UsageRecords":[]}`, `{"Status":"Success"}`), `{"UsageRecords":[]}`, `{"Results":[{"Status":"Success"}],"UnprocessedRecords":[]}`},
		{"AWS, unprocessed", "AWS", call(200, `{}`, `{"Dimension":"Status"}`), `{}`, `{"Results":[],"UnprocessedRecords":[{"Dimension":"Status"}]}`},
		{"Azure", "AZURE", call(200, `{"request":[]}`, `{"status":"Accepted"}`, `{"status":"Duplicate"}`), `{"request":[]}`, `{"count":2,"result":[{"status":"Accepted"},{"status":"Duplicate"}]}`},
		{"Google", "GCP", call(200, `{"operations":[]}`), `{"operations":[]}`, `{"reportErrors":[]}`},
		{"Google, an error", "GCP", call(200, `{"operations":[]}`, `{"operationId":"o"}`), `{"operations":[]}`, `{"reportErrors":[{"operationId":"o"}]}`},
		{"no response", "AWS", call(0, `{"UsageRecords":[]}`), `{"UsageRecords":[]}`, ``},
		{"refused as a whole", "AZURE", call(400, `{"request":[]}`), `{"request":[]}`, `{"count":0,"result":[]}`},
		{"no JSON", "AWS", call(502, "", "<html>\xff"), ``, `{"Results":[],"UnprocessedRecords":[]}`},
		{"no object", "AWS", call(200, `[1]`, `[2]`), ``, `{"Results":[],"UnprocessedRecords":[]}`},
	} {
		older := call(200, `{"older":1}`, `{"older":2}`)
		s := shown(t, AppendUsageRecordReport(nil, sealedReport(test.partner, reports.StateSealed), nil, []reports.StoredCall{older, test.call}, 100_000))
		got := map[metering.Partner][2]json.RawMessage{
			"AWS": {s.Info.AWSRequest, s.Info.AWSResponse}, "AZURE": {s.Info.AzureRequest, s.Info.AzureResponse}, "GCP": {s.Info.GCPRequest, s.Info.GCPResponse},
		}
		for partner, members := range got {
			request, response := test.request, test.response
			if partner != test.partner {
				request, response = "", ""
			}
			if string(members[0]) != request || string(members[1]) != response {
				t.Errorf("%s: %s has %s and %s, want %s and %s", test.name, partner, members[0], members[1], request, response)
			}
		}
		if len(s.Info.Calls) != 2 || string(s.Info.Calls[0].Request) != `{"older":1}` {
			t.Errorf("%s: calls are %s", test.name, s.Info.Calls)
		}
	}
}

func TestUsageRecordReport_LeavesOutWhatIsTooLarge(t *testing.T) {
	const size = 390_000
	ids := make([]metering.GroupID, MaxReportGroups+5)
	for i := range ids {
		ids[i] = metering.GroupID(fmt.Sprintf("%05d%s", i, strings.Repeat("\U0001F600", 31)))
	}
	record := func(i int, long string) reports.Record {
		r := outcome(fmt.Sprintf("%05d%s", i, long), reports.Accepted)
		r.Quantity, r.CarryIn, r.UnitPrice = quantity("1.5"), exactly("0.5"), quantity("2")
		return r
	}
	var many, long, few []reports.Record
	for i := range 2_000 {
		many = append(many, record(i, strings.Repeat("x", 60)))
		long = append(long, record(i, strings.Repeat("\U0001F600", 250)))
	}
	few = many[:3]
	many[1_500].Outcome = reports.Outcome{Kind: reports.Conflict, Code: metering.ProblemConflict, Reason: "another one"}
	calls := func(n, size int) (calls []reports.StoredCall) {
		for i := range n {
			calls = append(calls, reports.StoredCall{
				Time: reportHour, Status: 200, Request: fmt.Appendf(nil, `{"n":%d,"x":%q}`, i, strings.Repeat("x", size)), Responses: [][]byte{[]byte(`{"Status":"Success"}`)},
			})
		}
		return calls
	}
	manyMetrics := metering.Aggregates{}
	for i := range 20_000 {
		manyMetrics[fmt.Sprintf("metric-%05d-of-a-test", i)] = metering.MustExact("1")
	}
	for _, test := range []struct {
		name       string
		records    []reports.Record
		calls      []reports.StoredCall
		aggregates metering.Aggregates
		message    []string
		least      int // of records
	}{
		{name: "everything fits", records: few, calls: calls(3, 100), least: 3},
		{name: "many calls", records: few, calls: calls(720, 3_000), message: []string{" of 720 calls to the marketplace are left out"}, least: 3},
		{name: "one large call", records: few, calls: calls(1, size), message: []string{"1 of 1 calls to the marketplace are left out"}, least: 3},
		{
			name: "many dimensions", records: many, calls: calls(2, 100), least: 200,
			message: []string{"1 of 2000 dimensions are not ACCEPTED", "2 of 2 calls to the marketplace are left out", " of 2000 dimensions are left out"},
		},
		{name: "long dimensions", records: long, least: 30, message: []string{" of 2000 dimensions are left out"}},
		{name: "many metrics", records: few, aggregates: manyMetrics, message: []string{"3 of 3 dimensions", "20000 of 20000 aggregated billable records are left out"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := sealedReport("AWS", reports.StateSettled, test.records...)
			h.Sealed.Aggregates = test.aggregates
			report, isAppended := strings.CutPrefix(string(AppendUsageRecordReport([]byte("before"), h, ids, test.calls, size)), "before")
			if !isAppended || len(report) > size {
				t.Errorf("it has %d bytes", len(report))
			}
			s := shown(t, []byte(report))
			if len(s.Info.IDs) != MaxReportGroups || s.Info.IDs[999] != string(ids[999]) {
				t.Errorf("it has %d ids", len(s.Info.IDs))
			}
			if len(s.Info.Outcomes) < test.least {
				t.Errorf("it has %d outcomes", len(s.Info.Outcomes))
			}
			for _, part := range test.message {
				if !strings.Contains(s.Info.Message, part) {
					t.Errorf("message is %q, want %q in it", s.Info.Message, part)
				}
			}
			if len(test.message) == 0 && s.Info.Message != "" {
				t.Errorf("message is %q", s.Info.Message)
			}
			if n := len(s.Info.Calls); n > 0 && !strings.Contains(string(s.Info.Calls[n-1].Request), fmt.Sprintf(`{"n":%d,`, len(test.calls)-1)) {
				t.Errorf("the newest call is not shown")
			}
			if test.name == "many dimensions" {
				failed := slices.ContainsFunc(s.Info.Outcomes, func(o struct{ Dimension, Outcome string }) bool { return o.Outcome == "CONFLICT" })
				inOrder := slices.IsSortedFunc(s.Info.Outcomes, func(a, b struct{ Dimension, Outcome string }) int { return strings.Compare(a.Dimension, b.Dimension) })
				if !failed || !inOrder {
					t.Errorf("the dimension that failed is shown: %v; in order: %v", failed, inOrder)
				}
			}
		})
	}
}

func TestUsageRecordReport_ShowsWhyItWaits(t *testing.T) {
	refused := outcome("cpu", reports.Undecided)
	refused.Attempts = []reports.Attempt{
		{Number: 1, Response: reports.Response{Result: reports.Refused, Again: true, Reason: "busy"}},
		{Number: 9, Response: reports.Response{Result: reports.Refused, Again: true, Code: metering.ProblemNotSubscribed, Reason: "the buyer is gone"}},
	}
	doubtful := outcome("gb", reports.Undecided)
	doubtful.Attempts = []reports.Attempt{{Number: 1}}
	h := sealedReport("AWS", reports.StateSealed, refused, doubtful, outcome("req", reports.Undecided))
	got := string(AppendUsageRecordReport(nil, h, nil, nil, 1_000_000))
	for _, want := range []string{
		`"message":"2 of 3 dimensions were sent and have no outcome yet: of \"cpu\", outcomes has the reason"`,
		`"outcomes":[{"attempts":9,"code":"NOT_SUBSCRIBED","dimension":"cpu","hour":"2026-03-01T10:00:00.000Z","quantity":0,"reason":"the buyer is gone"},` +
			`{"attempts":1,"dimension":"gb","hour":"2026-03-01T10:00:00.000Z","quantity":0,"reason":"it may be billed: the last attempt has no definite response"},` +
			`{"attempts":0,"dimension":"req","hour":"2026-03-01T10:00:00.000Z","quantity":0}]`,
		`"status":"CREATED"`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is missing in\n%s", want, got)
		}
	}
}
