package operate_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/reporting"
	"github.com/marketmeter/marketmeter/internal/reporting/inprocess"
	"github.com/marketmeter/marketmeter/internal/reporting/operate"
	rt "github.com/marketmeter/marketmeter/internal/reporting/reportingtest"
	"github.com/marketmeter/marketmeter/internal/reporting/worldtest"
	"github.com/marketmeter/marketmeter/internal/stack"
	"github.com/marketmeter/marketmeter/internal/transfer"
	"github.com/marketmeter/marketmeter/sandbox"
)

// newWorld returns a world whose connections name no secrets: on a developer's machine, they are
// the sandbox's.
func newWorld(t *testing.T, options sandbox.Options) *worldtest.World {
	t.Helper()
	w := worldtest.NewWorld(t, options)
	for _, c := range []metering.Connection{{Partner: "AZURE", TenantID: rt.Tenant, ClientID: rt.Application}, {Partner: "GCP"}} {
		c.Endpoint = w.URL
		change, err := metering.NewConnectionChange(c.Partner, &c, metering.ConnectionRules{Organization: worldtest.Org, SandboxURL: w.URL}, metering.Conditions{})
		if err == nil {
			_, _, err = w.Table.PutConnection(t.Context(), worldtest.Org, &change)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// request returns what an operator asks of the world.
func request(t *testing.T, w *worldtest.World, arguments ...string) *operate.Request {
	t.Helper()
	endpoint := os.Getenv("DYNAMODB_ENDPOINT")
	target := stack.At(endpoint, func(string) string { return "" }).Open(stack.Deadlines{Attempt: 20 * time.Second, Call: time.Minute})
	target.Table = w.Table
	return &operate.Request{
		Target: target, Getenv: environment("SANDBOX_URL", w.URL),
		Now: w.Now, Log: slog.New(w.Log), Organization: worldtest.Org, By: "ann", Arguments: arguments,
	}
}

// everywhere is a request for all organizations.
func everywhere(t *testing.T, w *worldtest.World) *operate.Request {
	t.Helper()
	r := request(t, w)
	r.Organization = ""
	return r
}

// environment has the variables, a name and a value each.
func environment(variables ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(variables); i += 2 {
			if variables[i] == name {
				return variables[i+1]
			}
		}
		return ""
	}
}

// do does what an operator asks, and returns the result as text and as JSON.
func do(t *testing.T, command func(context.Context, *operate.Request) (operate.Result, error), r *operate.Request) (text, encoded string) {
	t.Helper()
	result, err := command(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := result.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	j, err := json.Marshal(result)
	if err != nil {
		t.Fatal(err)
	}
	return b.String(), string(j)
}

// has checks that the text holds each of the parts.
func has(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q is missing in\n%s", part, text)
		}
	}
}

func TestRun_ReportsAllThatIsDue(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{})
	used := rt.Hour.Add(-2 * time.Hour)
	for _, e := range []metering.EntitlementID{worldtest.OnAWS, worldtest.OnAzure, worldtest.OnGoogle} {
		w.Report(e, used, "d0 3, d1 4")
		w.Report(e, used.Add(time.Minute), "d0 2")
	}
	early := w.Report(worldtest.OnAWS, w.Now(), "d0 1") // its hour is open
	text, encoded := do(t, operate.Run, request(t, w))
	has(t, text, "SETTLED", "d0 5 ACCEPTED", "d1 4 ACCEPTED", "failed 0")
	has(t, encoded, `"state":"SETTLED"`, `"outcome":"ACCEPTED"`, `"quantity":"5"`)
	if got := w.Billed(); got != "d0=5 d1=4 d0=5 d1=4 d0=5 d1=4" {
		t.Errorf("billed %s", got)
	}
	if got := w.Status(early); got != "CREATED" {
		t.Errorf("usage of an open hour is %s", got)
	}
	text, _ = do(t, operate.Run, request(t, w))
	has(t, text, "reports changed 0")
}

// Late usage is moved to the next hour, which is due too.
func TestRun_ContinuesWithWhatARoundHasMoved(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{})
	used := rt.Hour.Add(-3 * time.Hour)
	w.Report(worldtest.OnAWS, used, "d0 1")
	do(t, operate.Run, request(t, w))
	late := w.Report(worldtest.OnAWS, used, "d0 2")
	do(t, operate.Run, request(t, w))
	if got, billed := w.Status(late), w.Billed(); got != "REPORTED" || billed != "d0=1 d0=2" {
		t.Errorf("late usage is %s, billed %s", got, billed)
	}
}

func TestRun_IsOffWhereWorkersMayNotRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{})
	id := w.Report(worldtest.OnAWS, rt.Hour.Add(-2*time.Hour), "d0 3")
	for name, change := range map[string]func(*operate.Request){
		"in AWS":                   func(r *operate.Request) { r.Target.At = "eu-central-1" },
		"at another machine":       func(r *operate.Request) { r.Target.At = "http://192.0.2.1:8000" },
		"without a sandbox":        func(r *operate.Request) { r.Getenv = environment() },
		"the sandbox is elsewhere": func(r *operate.Request) { r.Getenv = environment("SANDBOX_URL", "https://192.0.2.1") },
		"it is no sandbox":         func(r *operate.Request) { r.Getenv = environment("SANDBOX_URL", os.Getenv("DYNAMODB_ENDPOINT")) },
	} {
		r := request(t, w)
		change(r)
		if _, err := operate.Run(t.Context(), r); !errors.Is(err, inprocess.ErrOff) {
			t.Errorf("%s: %v; want that reporting is off", name, err)
		}
	}
	if got := w.Status(id); got != "CREATED" || len(w.Calls("BatchMeterUsage")) > 0 {
		t.Errorf("the usage is %s, and there were %d calls", got, len(w.Calls("BatchMeterUsage")))
	}
}

func TestRun_DoesNothingWhilePaused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{})
	id := w.Report(worldtest.OnAWS, rt.Hour.Add(-2*time.Hour), "d0 3")
	text, _ := do(t, operate.Pause, request(t, w))
	has(t, text, "Nothing is reported", "ann")
	result, err := operate.Run(t.Context(), request(t, w))
	if err != nil || !result.Incomplete() || w.Status(id) != "CREATED" {
		t.Errorf("%+v, %v; the usage is %s", result, err, w.Status(id))
	}
	text, _ = do(t, operate.ReadStatus, everywhere(t, w))
	has(t, text, "Nothing is reported: reporting is paused: by ann")
	text, encoded := do(t, operate.Resume, request(t, w))
	has(t, text, "Usage is reported.")
	has(t, encoded, `{"by":"ann"}`)
	do(t, operate.Run, request(t, w))
	if got := w.Status(id); got != "REPORTED" {
		t.Errorf("after the pause the usage is %s", got)
	}
}

func TestStatus_ShowsWhatWaits(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{})
	text, encoded := do(t, operate.ReadStatus, everywhere(t, w))
	has(t, text, "No usage waits to be reported.")
	has(t, encoded, `"partners":[]`, `"organizations":[]`)
	w.Report(worldtest.OnAWS, rt.Hour.Add(-2*time.Hour), "d0 3")
	w.Report(worldtest.OnAWS, rt.Hour.Add(-5*time.Hour), "d0 3")
	w.Report(worldtest.OnAWS, rt.Hour.Add(-5*time.Hour), "d0 4")
	w.Report(worldtest.OnGoogle, w.Now(), "d0 3")
	text, encoded = do(t, operate.ReadStatus, everywhere(t, w))
	has(t, text,
		`AWS: the oldest usage that is not settled is of 2026-11-18T06:00:00Z: organization "acme", entitlement "ent-aws"; its deadline is 2026-11-19T06:00:00Z, in 17h30m0s`,
		`GCP: the oldest usage that is not settled is of 2026-11-18T12:00:00Z`,
		`Organization "acme": groups waiting 4, failed 0; hours open 0, sealed 0, decided 0`)
	if strings.Contains(text, "AZURE") {
		t.Errorf("Azure has usage that waits:\n%s", text)
	}
	has(t, encoded, `"waiting":4`, `"oldest":"2026-11-18T06:00:00Z"`)
}

// The usage whose deadline is the earliest may not be the oldest: its entitlement was cancelled.
func TestStatus_ShowsTheEarliestDeadline(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{})
	other := worldtest.Entitlements()[0]
	other.ID, other.Marketplace.LicenseARN = "other", other.Marketplace.LicenseARN+"-2"
	w.PutEntitlement(other)
	w.Report(worldtest.OnAWS, rt.Hour.Add(-5*time.Hour), "d0 3")
	w.Report("other", rt.Hour.Add(-2*time.Hour), "d0 3")
	w.Report(worldtest.OnGoogle, rt.Hour.Add(-2*time.Hour), "d0 3")
	if text, encoded := do(t, operate.ReadStatus, everywhere(t, w)); strings.Contains(text+encoded, "earliest") {
		t.Errorf("the oldest has the earliest deadline:\n%s\n%s", text, encoded)
	}
	other.CancelTime, other.Status = w.Now().Add(-10*time.Minute), metering.EntitlementCancelled
	w.PutEntitlement(other)
	text, encoded := do(t, operate.ReadStatus, everywhere(t, w))
	has(t, text,
		`AWS: the oldest usage that is not settled is of 2026-11-18T06:00:00Z: organization "acme", entitlement "ent-aws"; its deadline is 2026-11-19T06:00:00Z, in 17h30m0s`+"\n"+
			`AWS: the earliest deadline is of usage of 2026-11-18T09:00:00Z: organization "acme", entitlement "other"; its deadline is 2026-11-18T13:20:00Z, in 50m0s`+"\n"+
			`GCP: the oldest`)
	has(t, encoded, `"entitlement":"ent-aws","earliest":{"hour":"2026-11-18T09:00:00Z","deadline":"2026-11-18T13:20:00Z","organization":"acme","entitlement":"other"}}`)
}

// An entitlement that can't be read hides nothing: it is shown without a partner.
func TestStatus_ShowsAnUnreadableEntitlement(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{})
	w.Report(worldtest.OnAWS, rt.Hour, "d0 3")
	w.Report(worldtest.OnAzure, rt.Hour, "d0 3")
	w.Report(worldtest.OnGoogle, rt.Hour, "d0 3")
	w.SetText("ORG#acme", "ENTITLEMENT#"+string(worldtest.OnAzure), "entitlement", `{"newer":1}`)
	text, _ := do(t, operate.ReadStatus, everywhere(t, w))
	has(t, text, `no partner: the oldest usage that is not settled is of 2026-11-18T11:00:00Z: organization "acme", entitlement "ent-azure"; its deadline is not known`,
		"AWS: the oldest usage", "GCP: the oldest usage")
}

// What is refused and sent again is shown with its reason, by partner and entitlement: the oldest
// of it if it is much.
func TestStatus_ShowsWhyUsageIsSentAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{})
	w.Change(func(c *sandbox.Catalog) {
		c.AWS.Customers[0].Suspended = true
	})
	w.Report(worldtest.OnAzure, rt.Hour, "d0 1")
	w.Fault(sandbox.Fault{Marketplace: "azure", Fault: sandbox.Lost})
	w.Report(worldtest.OnAWS, rt.Hour.Add(time.Hour), "d0 1, d1 1.5")
	w.Report(worldtest.OnAWS, rt.Hour, "d0 2.5, d1 1.5")
	w.Set(closed.Add(time.Hour))
	var last metering.EntitlementID
	for i := range 22 {
		e := worldtest.Entitlements()[2]
		e.ID = metering.EntitlementID(fmt.Sprintf("google%02d", i))
		e.Marketplace.UsageReportingID = fmt.Sprintf("project_number:%d", 100+i)
		w.Change(func(c *sandbox.Catalog) {
			c.Google.Entitlements = append(c.Google.Entitlements, sandbox.GoogleEntitlement{UsageReportingID: e.Marketplace.UsageReportingID, Service: rt.Service, State: sandbox.GoogleBillingDisabled})
		})
		w.PutEntitlement(e)
		w.Report(e.ID, rt.Hour, "d0 2")
		last = e.ID
	}
	do(t, operate.Run, request(t, w))
	text, encoded := do(t, operate.ReadStatus, everywhere(t, w))
	report := metering.ReportID(worldtest.Org, worldtest.OnAWS, rt.Hour)
	has(t, text,
		"AWS: records that were refused or may be billed, and are sent again: 4, of 1 entitlements; the oldest:",
		`  organization "acme", entitlement "ent-aws": 4 records; report `+report+`, dimension "d0": 2.5, `+rt.Hour.Format(time.RFC3339)+`: attempts 1, code NOT_SUBSCRIBED: AWS's status is "CustomerNotSubscribed"`,
		"GCP: records that were refused or may be billed, and are sent again: 22, of 22 entitlements; the oldest:", "attempts 1, code NOT_SUBSCRIBED: not sent: check reports BILLING_DISABLED",
		"AZURE: records that were refused or may be billed, and are sent again: 1, of 1 entitlements; the oldest:", "attempts 1, code none: it may be billed: the last attempt has no definite response")
	if n := strings.Count(text, "BILLING_DISABLED"); n != 20 || strings.Contains(text, string(last)) {
		t.Errorf("%d entitlements at Google are shown:\n%s", n, text)
	}
	has(t, encoded, `"pending":[{"partner":"AWS","records":4,"entitlements":1,"oldest":[{"organization":"acme","report":"`+report+`"`, `"code":"NOT_SUBSCRIBED"`, `"attempts":1,"records":4}`)
	w.Change(func(c *sandbox.Catalog) {
		c.AWS.Customers[0].Suspended = false
		for i := range c.Google.Entitlements {
			c.Google.Entitlements[i].State = sandbox.GoogleActive
		}
	})
	w.Set(closed.Add(3 * time.Hour))
	do(t, operate.Run, request(t, w))
	text, encoded = do(t, operate.ReadStatus, everywhere(t, w))
	has(t, encoded, `"pending":[]`)
	if strings.Contains(text, "sent again") {
		t.Error(text)
	}
}

// closed is when the hour rt.Hour closes.
var closed = rt.Hour.Add(2 * time.Hour)

// conflict makes a report whose dimension d0 is CONFLICT and d1 ACCEPTED: another meter has written
// d0 of the hour. It returns its group.
func conflict(t *testing.T, w *worldtest.World) metering.GroupID {
	t.Helper()
	w.Set(closed)
	other := w.Marketplace("AWS")
	if got := rt.Verdicts(other.Send(t.Context(), []reporting.Record{rt.AWS("d0", "9")})); got != "billed done" {
		t.Fatalf("the other meter: %s", got)
	}
	id := w.Report(worldtest.OnAWS, rt.Hour, "d0 3, d1 4")
	do(t, operate.Run, request(t, w))
	if got := w.Status(id); got != "REPORT_FAILED CONFLICT" {
		t.Fatalf("the group is %s", got)
	}
	return id
}

func TestStatus_NamesWhatNeedsAPerson(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{})
	conflict(t, w)
	w.Change(func(c *sandbox.Catalog) {
		c.Azure.Offers[0].Plans[0].Dimensions = c.Azure.Offers[0].Plans[0].Dimensions[:1]
	})
	w.Report(worldtest.OnAzure, rt.Hour, "d5 2")
	do(t, operate.Run, request(t, w))
	report := w.Hour(worldtest.OnAWS, rt.Hour).ID()
	for _, at := range []time.Time{closed, closed.Add(30 * 24 * time.Hour)} {
		w.Set(at)
		text, encoded := do(t, operate.ReadStatus, everywhere(t, w))
		has(t, text, "No usage waits", `Organization "acme": groups waiting 0, failed 2;`, "records failed 1, conflicts 1, unknown 0",
			"CONFLICT: report "+report+`, dimension "d0": 3 of entitlement "ent-aws", 2026-11-18T11:00:00Z: the marketplace had a record of the hour`,
			"REJECTED: report "+w.Hour(worldtest.OnAzure, rt.Hour).ID()+`, dimension "d5": 2`)
		has(t, encoded, `"conflicts":[{"report":"`+report+`","entitlement":"ent-aws","hour":"2026-11-18T11:00:00Z","dimension":"d0","quantity":"3","code":"CONFLICT"`)
	}
	// What was rejected is not shown for ever. What may have been billed is.
	w.Set(closed.Add(46 * 24 * time.Hour))
	text, _ := do(t, operate.ReadStatus, everywhere(t, w))
	has(t, text, "records failed 0, conflicts 1, unknown 0")
}

func TestResolve_GivesGroupsTheirStatusAgain(t *testing.T) {
	t.Parallel()
	for word, want := range map[string]struct{ status, outcome string }{
		"billed": {"REPORTED", "ACCEPTED"}, "not-billed": {"REPORT_FAILED MARKETPLACE_REFUSED", "REJECTED"},
	} {
		w := newWorld(t, sandbox.Options{})
		id := conflict(t, w)
		report := w.Hour(worldtest.OnAWS, rt.Hour).ID()
		w.Set(closed.Add(time.Hour))
		text, encoded := do(t, operate.Resolve, request(t, w, report, "d0", word))
		has(t, text, `dimension "d0" of report `+report+" is "+want.outcome+`, resolved by "ann" at 2026-11-18T14:00:00Z`)
		has(t, encoded, `"outcome":"`+want.outcome+`","resolvedBy":"ann","resolvedTime":"2026-11-18T14:00:00Z","changed":true`)
		if got := w.Status(id); got != want.status {
			t.Errorf("%s: the group is %s; want %s", word, got, want.status)
		}
		status, _ := do(t, operate.ReadStatus, everywhere(t, w))
		has(t, status+"organizations", map[string]string{"billed": "No usage waits to be reported.\norganizations", "not-billed": "failed 1, conflicts 0"}[word])

		// The same word again changes nothing; the other word is refused.
		again := request(t, w, report, "d0", word)
		again.By = "bob"
		text, _ = do(t, operate.Resolve, again)
		has(t, text, "was already "+want.outcome+`, resolved by "ann"`)
		other := map[string]string{"billed": "not-billed", "not-billed": "billed"}[word]
		if _, err := operate.Resolve(t.Context(), request(t, w, report, "d0", other)); metering.CodeOf(err) != metering.Conflict {
			t.Errorf("after %s, %s: %v; want Conflict", word, other, err)
		}
		if word == "not-billed" {
			if _, err := w.Table.Retry(t.Context(), worldtest.Org, id, metering.Retry{Now: w.Now()}); err != nil {
				t.Error(err)
			}
			w.Set(closed.Add(2 * time.Hour))
			do(t, operate.Run, request(t, w))
			if got, billed := w.Status(id), w.Billed(); got != "REPORTED" || billed != "d0=9 d1=4 d0=3" {
				t.Errorf("retried, the group is %s, billed %s", got, billed)
			}
		}
	}
}

// A Resolve that is interrupted before the groups have their status is completed by the workers, or
// by the same word again.
func TestResolve_IsCompletedAfterAnInterruption(t *testing.T) {
	t.Parallel()
	for _, again := range []bool{false, true} {
		w := newWorld(t, sandbox.Options{})
		id := conflict(t, w)
		h := w.Hour(worldtest.OnAWS, rt.Hour)
		ledger, err := w.Table.Ledger(t.Context(), worldtest.Org, worldtest.OnAWS)
		if err != nil {
			t.Fatal(err)
		}
		after, ledger, err := h.Resolve(ledger, "d0", true, "ann", w.Now())
		if err == nil {
			err = w.Table.Write(t.Context(), &reports.Step{Before: h, After: &after, Ledger: &ledger})
		}
		if err != nil || w.Status(id) != "REPORT_FAILED CONFLICT" {
			t.Fatal(w.Status(id), err)
		}
		if again {
			text, _ := do(t, operate.Resolve, request(t, w, h.ID(), "d0", "billed"))
			has(t, text, "was already ACCEPTED")
		} else {
			do(t, operate.Run, request(t, w))
		}
		if got, state := w.Status(id), w.Hour(worldtest.OnAWS, rt.Hour).State; got != "REPORTED" || state != reports.StateSettled {
			t.Errorf("again %v: the group is %s, the hour %s", again, got, state)
		}
	}
}

func TestResolve_RefusesWhatIsNotToBeResolved(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{})
	conflict(t, w)
	report := w.Hour(worldtest.OnAWS, rt.Hour).ID()
	for _, test := range []struct {
		report, dimension string
		want              metering.Code
	}{
		{"6f1c3b1e-0000-5000-8000-000000000000", "d0", metering.NotFound},
		{"", "d0", metering.NotFound},
		{report, "d7", metering.NotFound},
		{report, "d1", metering.Conflict},
	} {
		if _, err := operate.Resolve(t.Context(), request(t, w, test.report, test.dimension, "billed")); metering.CodeOf(err) != test.want {
			t.Errorf("%s %s: %v; want %v", test.report, test.dimension, err, test.want)
		}
	}
	other := request(t, w, report, "d0", "billed")
	other.Organization = "other"
	if _, err := operate.Resolve(t.Context(), other); metering.CodeOf(err) != metering.NotFound {
		t.Errorf("another organization: %v; want NotFound", err)
	}
}

// imported imports a group as it is, by its JSON without what each has.
func imported(t *testing.T, w *worldtest.World, groups ...string) {
	t.Helper()
	var lines strings.Builder
	for _, g := range groups {
		lines.WriteString(`{"buyerID":"buyer","status":"CREATED","creationTime":"2026-11-18T11:30:00Z",` + g + "}\n")
	}
	counts, err := transfer.Import(t.Context(), w.Table, worldtest.Org, strings.NewReader(lines.String()), transfer.ImportOptions{RewriteOrg: true})
	if err != nil || counts.Imported != len(groups) {
		t.Fatal(counts, err)
	}
}

func TestEnqueue_HasImportedUsageReported(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{})
	at := func(used string) string { return `"metaInfo":{"timestamp":"` + used + `"}` }
	const recent, old, lastMonth = "2026-11-18T09:10:00Z", "2026-11-17T12:10:00Z", "2026-10-31T09:10:00Z"
	const onAWS, onAzure, onGoogle = `"partner":"AWS","entitlementID":"ent-aws"`, `"partner":"AZURE","entitlementID":"ent-azure"`, `"partner":"GCP","entitlementID":"ent-google"`
	imported(t, w,
		`"id":"a1",`+onAWS+`,"records":{"d0":3},`+at(recent),
		`"id":"a2",`+onAWS+`,"records":{"d0":4},`+at(recent),
		`"id":"a3",`+onAzure+`,"records":{"d0":5},`+at(recent),
		`"id":"a4",`+onGoogle+`,"records":{"d0":6},`+at("2026-11-02T09:10:00Z"),
		`"id":"a5",`+onAWS+`,"records":{"d0":7}`, // of the time of its creation, whose hour is open
		`"id":"r1",`+onAWS+`,"records":{"d0":3},`+at(old),
		`"id":"r2",`+onGoogle+`,"records":{"d0":3},`+at(lastMonth),
		`"id":"r3",`+onAWS+`,"records":{"d0":-3},`+at(recent),
		`"id":"r4",`+onAWS+`,"records":{"d77":3},`+at(recent),
		`"id":"r5",`+onAWS+`,"records":{"d0":3},"metaInfo":{"timestamp":"`+old+`","SkipValidation":true}`,
		`"id":"r6","partner":"AWS","entitlementID":"none","records":{"d0":3},`+at(recent),
		`"id":"r7","partner":"AZURE","entitlementID":"ent-aws","records":{"d0":3},`+at(recent),
		`"id":"r8",`+onAWS+`,"records":{},"metaInfo":{"timestamp":"`+recent+`","billableRecords":[{"key":"none","quantity":1}]}`,
	)
	waits := w.Report(worldtest.OnAWS, rt.Hour.Add(-2*time.Hour), "d1 1")
	do(t, operate.Run, request(t, w))
	if got := w.Status("a1"); got != "CREATED" {
		t.Fatalf("imported usage is %s before it is enqueued", got)
	}
	w.Report(worldtest.OnAWS, rt.Hour.Add(-2*time.Hour), "d1 1") // it waits, and is not named

	text, encoded := do(t, operate.Enqueue, request(t, w))
	has(t, text, "enqueued 5, refused 8",
		`group "r1" is refused: EXPIRED: the usage is of 2026-11-17T12:10:00Z, and AWS accepted it until 2026-11-18T12:00:00Z`,
		`group "r2" is refused: EXPIRED`, `group "r3" is refused: QUANTITY_NEGATIVE`, `group "r4" is refused: DIMENSION_UNKNOWN`, `group "r5" is refused: EXPIRED`,
		`group "r6" is refused: ENTITLEMENT_UNKNOWN`, `group "r7" is refused: ENTITLEMENT_UNKNOWN`, `group "r8" is refused: METRIC_UNKNOWN`)
	has(t, encoded, `{"enqueued":5,"refused":[{"group":"r1","code":"EXPIRED","reason":"`)
	text, _ = do(t, operate.Enqueue, request(t, w))
	has(t, text, "enqueued 0, refused 8")
	do(t, operate.Run, request(t, w))
	for _, id := range []metering.GroupID{"a1", "a2", "a3", "a4", waits} { // the hour of a1 and a2 had its report: they are in the next
		if got := w.Status(id); got != "REPORTED" {
			t.Errorf("%s is %s", id, got)
		}
	}
	w.Set(closed.Add(time.Hour))
	do(t, operate.Run, request(t, w))
	if got := w.Status("a5"); got != "REPORTED" {
		t.Errorf("a5 is %s", got)
	}
	if got := w.Status("r1"); got != "CREATED" {
		t.Errorf("refused usage is %s", got)
	}
}

func TestEnqueue_OfOneEntitlement(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{})
	imported(t, w,
		`"id":"a1","partner":"AWS","entitlementID":"ent-aws","records":{"d0":3}`,
		`"id":"a2","partner":"AZURE","entitlementID":"ent-azure","records":{"d0":3}`)
	r := request(t, w)
	r.Entitlement = worldtest.OnAzure
	text, _ := do(t, operate.Enqueue, r)
	has(t, text, "enqueued 1, refused 0")
	w.Set(closed)
	do(t, operate.Run, request(t, w))
	if a, b := w.Status("a1"), w.Status("a2"); a != "CREATED" || b != "REPORTED" {
		t.Errorf("%s, %s", a, b)
	}
}

// Usage that expired before it was in a report is in none: only its groups show it.
func TestStatus_CountsFailedGroupsOfAnOrganization(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{})
	w.Report(worldtest.OnAWS, rt.Hour, "d0 3")
	w.Set(rt.Hour.Add(25 * time.Hour))
	do(t, operate.Run, request(t, w))
	r := request(t, w)
	text, _ := do(t, operate.ReadStatus, r)
	has(t, text, "groups waiting 0, failed 1;")
	r.Organization = "other"
	text, encoded := do(t, operate.ReadStatus, r)
	has(t, text, `Organization "other": groups waiting 0, failed 0;`)
	has(t, encoded, `"organizations":[{"organization":"other","waiting":0,"failedGroups":0,`)
	w.Report(worldtest.OnAWS, w.Now(), "d0 3")
	if text, _ = do(t, operate.ReadStatus, r); strings.Contains(text, "acme") {
		t.Errorf("another organization is shown:\n%s", text)
	}
	r.Organization = ""
	text, _ = do(t, operate.ReadStatus, r)
	has(t, text, `Organization "acme": groups waiting 1, failed 1;`)
}

// The status may be read before reporting has begun. That does not begin it on the table.
func TestStatus_BeginsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{})
	do(t, operate.ReadStatus, everywhere(t, w))
	if item := gateItem(t, w); item != nil {
		t.Errorf("%v is stored", item)
	}
	do(t, operate.Run, request(t, w))
	if gateItem(t, w)["tableID"] == nil {
		t.Error("a run did not begin it")
	}
}
