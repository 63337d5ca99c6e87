package reporting_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/reporting"
	rt "github.com/marketmeter/marketmeter/internal/reporting/reportingtest"
	"github.com/marketmeter/marketmeter/internal/reporting/worldtest"
	"github.com/marketmeter/marketmeter/sandbox"
)

// listedReport returns what the list of reports has of the only report: its status, how many calls
// it shows, and of its first dimension the attempts, the outcome, the code and the reason.
func listedReport(t *testing.T, w *worldtest.World) string {
	t.Helper()
	var all []struct {
		Info struct {
			Status   string
			Message  string
			Calls    []json.RawMessage
			IDs      []string `json:"usageRecordGroupIds"`
			Outcomes []struct {
				Attempts              int
				Outcome, Code, Reason string
			}
		}
	}
	read := func(page []byte, _ metering.GroupPage) error {
		return json.Unmarshal([]byte("["+string(page)+"]"), &all)
	}
	day := metering.DayOf(w.Now())
	_, err := w.Table.Reports(t.Context(), worldtest.Org, metering.ListRequest{
		Filter: metering.GroupFilter{StartDate: day.AddDays(-30), EndDate: day}, Client: "k1", Limit: 1_000, MaxSize: metering.MaxListSize,
		Now: w.Now(), ReadFor: 10 * time.Second,
	}, nil, read)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 1 || len(all[0].Info.IDs) != 1 {
		t.Fatalf("the reports are %+v", all)
	}
	info := all[0].Info
	o := info.Outcomes[0]
	if pending := o.Outcome == "" && o.Attempts > 0; pending != strings.Contains(info.Message, `of "d0", outcomes has the reason`) {
		t.Errorf("the message is %q", info.Message)
	}
	return strings.Join(strings.Fields(fmt.Sprint(info.Status, " calls ", len(info.Calls), " attempts ", o.Attempts, " ", o.Outcome, " ", o.Code, " ", o.Reason)), " ")
}

const notSubscribed = `AWS's status is "CustomerNotSubscribed"`

// subscribe ends or renews the buyer's subscription at each marketplace.
func subscribe(w *worldtest.World, active bool) {
	w.Change(func(c *sandbox.Catalog) {
		c.AWS.Customers[0].Suspended = !active
		c.Azure.Subscriptions[0].State = map[bool]string{true: sandbox.AzureSubscribed, false: sandbox.AzureSuspended}[active]
		c.Google.Entitlements[0].State = map[bool]string{true: sandbox.GoogleActive, false: sandbox.GoogleBillingDisabled}[active]
	})
}

// The report of usage that is refused, and is sent again, shows it from the first attempt on. It is
// written again once the attempts have doubled.
func TestSubmit_ReportShowsWhyUsageWaits(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		entitlement metering.EntitlementID
		calls       bool // a call was made: Google's check comes before
		words       string
	}{
		{worldtest.OnAWS, true, notSubscribed},
		{worldtest.OnAzure, true, `Azure's status is "ResourceNotActive", ResourceNotActive: The resource is suspended or was never activated.`},
		{worldtest.OnGoogle, false, "not sent: check reports BILLING_DISABLED: the entitlement's state"},
	} {
		calls := func(attempts int) int {
			if test.calls {
				return attempts
			}
			return 0
		}
		w := worldtest.NewWorld(t, sandbox.Options{})
		subscribe(w, false)
		group := w.Report(test.entitlement, rt.Hour, "d0 3")
		for attempt, shown := range []int{1, 2, 2, 4} {
			w.Set(closed.Add(time.Duration(attempt) * 61 * time.Minute))
			w.Work()
			want(t, fmt.Sprintf("%s, attempt %d", test.entitlement, attempt+1), listedReport(t, w),
				fmt.Sprintf("CREATED calls %d attempts %d NOT_SUBSCRIBED %s", calls(shown), shown, test.words))
			want(t, "group", w.Status(group), "REPORT_PENDING")
		}
		subscribe(w, true)
		w.Set(closed.Add(5 * time.Hour))
		w.Work()
		want(t, string(test.entitlement), listedReport(t, w), fmt.Sprintf("SUCCESS calls %d attempts 5 ACCEPTED", calls(4)+1))
		want(t, "group", w.Status(group), "REPORTED")
	}
}

func TestSubmit_ReportShowsAnotherReason(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	subscribe(w, false)
	w.Report(worldtest.OnAWS, rt.Hour, "d0 3")
	at := closed
	work := func() string {
		w.Set(at)
		at = at.Add(61 * time.Minute)
		w.Work()
		return listedReport(t, w)
	}
	work()
	want(t, "the second attempt", work(), "CREATED calls 2 attempts 2 NOT_SUBSCRIBED "+notSubscribed)
	w.Fault(sandbox.Fault{Fault: sandbox.ServerError})
	if report := work(); !strings.HasPrefix(report, "CREATED calls 3 attempts 3 it may be billed: the last attempt has no definite response: AWS's response is status 500, ") {
		t.Errorf("the third attempt: %q", report)
	}
	want(t, "the fourth attempt", work(),
		"CREATED calls 4 attempts 4 NOT_SUBSCRIBED "+notSubscribed+"; it may be billed: another attempt has no definite response")
	want(t, "the fifth attempt", work(),
		"CREATED calls 4 attempts 4 NOT_SUBSCRIBED "+notSubscribed+"; it may be billed: another attempt has no definite response")
	w.Fault(sandbox.Fault{Fault: sandbox.Throttled})
	if report := work(); !strings.HasPrefix(report, "CREATED calls 6 attempts 6 ") || !strings.Contains(report, "ThrottlingException") {
		t.Errorf("the sixth attempt: %q", report)
	}
}

func TestSubmit_ReportShowsADoubt(t *testing.T) {
	t.Parallel()
	for _, e := range everywhere {
		w := worldtest.NewWorld(t, sandbox.Options{})
		w.Report(e, rt.Hour, "d0 3")
		w.Fault(sandbox.Fault{Fault: sandbox.Lost})
		w.Set(closed)
		w.Work()
		if report := listedReport(t, w); !strings.HasPrefix(report, "CREATED calls 1 attempts 1 it may be billed: the last attempt has no definite response: ") {
			t.Errorf("%s: the report is %q", e, report)
		}
	}
}

// unlisted is a table that can't store the report of an hour that was sent.
type unlisted struct{ reporting.Store }

func (u unlisted) PutReport(ctx context.Context, h *reports.Hour, ids []metering.GroupID) error {
	if h.WasSent() {
		return errors.New("the report can't be stored")
	}
	return u.Store.PutReport(ctx, h, ids)
}

// A report that a worker could not write is written later, and the work continues.
func TestSubmit_ReportThatCantBeStoredLosesNothing(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	subscribe(w, false)
	group := w.Report(worldtest.OnAWS, rt.Hour, "d0 3")
	w.Set(closed)
	worker, failed := w.Worker(unlisted{w.Table}), 0
	if _, err := worker.Schedule(t.Context()); err != nil {
		t.Fatal(err)
	}
	for hint, ok := w.Queue.Next(); ok; hint, ok = w.Queue.Next() {
		if err := worker.Work(t.Context(), hint); err != nil {
			failed++
		}
	}
	want(t, "work that failed", fmt.Sprint(failed), "1")
	want(t, "the report", listedReport(t, w), "CREATED calls 0 attempts 0")
	if a := w.Hour(worldtest.OnAWS, rt.Hour).Record("d0").Attempts; len(a) != 1 || a[0].Code != metering.ProblemNotSubscribed {
		t.Errorf("the attempts are %+v", a)
	}
	w.Set(closed.Add(61 * time.Minute))
	w.Work()
	want(t, "the report", listedReport(t, w), "CREATED calls 2 attempts 2 NOT_SUBSCRIBED "+notSubscribed)
	subscribe(w, true)
	w.Set(closed.Add(3 * time.Hour))
	w.Work()
	want(t, "group", w.Status(group), "REPORTED")
	want(t, "billed", w.Billed(), "d0=3")
}
