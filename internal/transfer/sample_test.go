package transfer

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
	"github.com/marketmeter/marketmeter/internal/transfer/transfertest"
	"github.com/marketmeter/marketmeter/internal/wire"
	"github.com/marketmeter/marketmeter/sandbox"
)

var sampleToday = time.Date(2026, 3, 1, 9, 30, 0, 0, time.UTC)

func TestSample_IsTheSameAllDay(t *testing.T) {
	t.Parallel()
	lines := sampleLines(sampleToday)
	for _, at := range []time.Time{
		sampleToday, time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), time.Date(2026, 3, 1, 23, 59, 59, 999e6, time.UTC),
		time.Date(2026, 3, 2, 0, 59, 0, 0, time.FixedZone("CET", 3600)),
	} {
		if !bytes.Equal(sampleLines(at), lines) {
			t.Errorf("at %s it is another", at)
		}
	}
	if bytes.Equal(sampleLines(sampleToday.AddDate(0, 0, 1)), lines) {
		t.Error("it is the same on the next day")
	}
}

func TestSample_HasEverything(t *testing.T) {
	t.Parallel()
	startOfDay := sampleToday.Truncate(24 * time.Hour)
	oldest := startOfDay.AddDate(0, 0, 1).AddDate(0, 0, -45) // as seen at the end of the day
	var last metering.Group
	found := map[string]int{}
	n := 0
	for line := range strings.Lines(string(sampleLines(sampleToday))) {
		n++
		g, err := wire.DecodeGroup([]byte(line))
		if err != nil {
			t.Fatalf("line %d: %v", n, err)
		}
		if !g.CreationTime.After(last.CreationTime) || g.SerialID <= last.SerialID || g.ID <= last.ID || g.OrganizationID != "demo" || g.ProductID == "" {
			t.Errorf("%s, serial %d, of %q follows %s, serial %d", g.ID, g.SerialID, g.OrganizationID, last.ID, last.SerialID)
		}
		for _, at := range []time.Time{g.CreationTime, *g.MetaInfo.Timestamp, g.LastUpdateTime} {
			if at.Before(oldest) || at.After(startOfDay) {
				t.Errorf("%s has a time of %s", g.ID, at)
			}
		}
		reported := g.Status == metering.StatusReported
		if g.ReportedTime.IsZero() == reported || (g.UsageRecordReportID == "") == reported || g.ReportedTime.After(startOfDay) {
			t.Errorf("%s is %s, reported %s as %q", g.ID, g.Status, g.ReportedTime, g.UsageRecordReportID)
		}
		for _, what := range []string{"status " + string(g.Status), "source " + string(*g.MetaInfo.Source), "partner " + string(g.Partner), "version " + version(g)} {
			found[what]++
		}
		for member := range g.MetaInfo.Carried {
			if found["member "+member]++; !strings.HasPrefix(member, strings.ToLower(string(*g.MetaInfo.Source))) {
				t.Errorf("%s is from %s and has %s", g.ID, *g.MetaInfo.Source, member)
			}
		}
		last = g
	}
	if n != 2500 || last.ID != "urg-2500" || last.Status != metering.StatusCreated {
		t.Errorf("%d groups, the last is %s, %s", n, last.ID, last.Status)
	}

	want := []string{"version 1", "version 2"}
	for _, s := range metering.Statuses {
		want = append(want, "status "+string(s))
	}
	for _, s := range metering.Sources {
		want = append(want, "source "+string(s))
	}
	for _, p := range metering.Partners {
		want = append(want, "partner "+string(p))
	}
	for _, m := range metering.CarriedMembers() {
		want = append(want, "member "+m.Name)
	}
	for _, what := range want {
		if found[what] == 0 {
			t.Errorf("there is no %s", what)
		}
	}
	t.Log(found)
}

// version is 2 if the group has billable records with properties, 1 if it has records only.
func version(g metering.Group) string {
	switch {
	case len(g.MetaInfo.BillableRecords) == 0 && len(g.Records) > 0:
		return "1"
	case !slices.ContainsFunc(g.MetaInfo.BillableRecords, func(r metering.BillableRecord) bool { return len(r.Properties) == 0 }):
		return "2"
	default:
		return "none"
	}
}

// midMonth is a time at which no marketplace has just closed a month.
var midMonth = time.Date(2026, 3, 18, 9, 30, 15, 0, time.UTC)

func loadSample(t *testing.T, tbl *table.Table, now time.Time, sandboxURL string) (said []string) {
	t.Helper()
	if err := LoadSample(t.Context(), tbl, SampleOptions{Now: now, SandboxURL: sandboxURL, Say: func(s string) { said = append(said, s) }}); err != nil {
		t.Fatal(err)
	}
	return said
}

// A load that was interrupted one day is completed on the next.
func TestLoadSample_CompletesWhatExists(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	lines := slices.Collect(strings.Lines(string(sampleLines(midMonth))))
	counts, err := Import(t.Context(), tbl, SampleOrg, strings.NewReader(strings.Join(lines[:700], "")), ImportOptions{})
	if err != nil || counts.Imported != 700 {
		t.Fatal(counts, err)
	}
	tomorrow := midMonth.AddDate(0, 0, 1)
	said := append(loadSample(t, tbl, tomorrow, ""), loadSample(t, tbl, tomorrow.Add(time.Hour), "")...)
	want := []string{
		"Loading the sample data: organization demo, 2500 groups", "  500 of 2500", "  1000 of 2500", "  1500 of 2500", "  2000 of 2500",
		fmt.Sprintf("Reported usage of the last hours: %d groups, urg-20260319-01 and so on", len(sample().Reports)),
		"The sample data exists: organization demo, 2500 groups",
	}
	if !slices.Equal(said, want) {
		t.Errorf("said %q, want %q", said, want)
	}
	transfertest.WantSerial(t, tbl, SampleOrg, 2500)
}

// state is all of the sample data in the table, as an export and the API show it.
func state(t *testing.T, tbl *table.Table) string {
	t.Helper()
	connections, err := tbl.Connections(t.Context(), SampleOrg)
	if err != nil {
		t.Fatal(err)
	}
	config, err := tbl.Config(t.Context(), SampleOrg)
	if err != nil {
		t.Fatal(err)
	}
	return exported(t, tbl, SampleOrg) + exportedCatalog(t, tbl, SampleOrg, Entitlements) + exportedCatalog(t, tbl, SampleOrg, Metrics) +
		string(bytes.Join(connections, []byte("\n"))) + config.Tag()
}

// A load again on the same day changes nothing, also what the user has changed. The next day's adds
// the usage of its last hours alone. A sandbox at another address becomes that of the connections.
func TestLoadSample_AddsOnlyWhatIsMissing(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	loadSample(t, tbl, midMonth, "http://127.0.0.1:8090")
	first := state(t, tbl)
	loadSample(t, tbl, midMonth.Add(2*time.Hour), "http://127.0.0.1:8090")
	if state(t, tbl) != first {
		t.Error("a second load on the day changed something")
	}
	if _, err := tbl.Delete(t.Context(), SampleOrg, sampleReportID(midMonth, 0), "", midMonth); err != nil {
		t.Fatal(err)
	}
	patch, err := wire.DecodeConfigPatch([]byte(`{"partnerUsageMeteringConfigs":[]}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := tbl.ChangeConfig(t.Context(), SampleOrg, midMonth, metering.ConfigChange{Patch: patch, Replace: true, KeyID: "k"}); err != nil {
		t.Fatal(err)
	}
	changed := state(t, tbl)
	loadSample(t, tbl, midMonth.Add(3*time.Hour), "http://127.0.0.1:8090")
	if state(t, tbl) != changed {
		t.Error("a load changed what the user had changed")
	}

	before := len(transfertest.StoredGroups(t, tbl, SampleOrg))
	loadSample(t, tbl, midMonth.AddDate(0, 0, 1), "http://127.0.0.1:9999")
	if added := len(transfertest.StoredGroups(t, tbl, SampleOrg)) - before; added != len(sample().Reports) {
		t.Errorf("the next day added %d groups; want %d", added, len(sample().Reports))
	}
	for _, partner := range metering.Partners {
		c, err := tbl.Connection(t.Context(), SampleOrg, partner)
		if err != nil || c.Value.Endpoint != "http://127.0.0.1:9999" {
			t.Errorf("the connection to %s: %q, %v", partner, c.Value.Endpoint, err)
		}
	}
}

// A load that fails at any point of the terms and the reports is completed by the next.
func TestLoadSample_IsCompletedAfterAFailure(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	tbl := table.New(client, name)
	if _, err := Import(t.Context(), tbl, SampleOrg, bytes.NewReader(sampleLines(midMonth)), ImportOptions{}); err != nil {
		t.Fatal(err)
	}
	for after := 0; ; after += 7 {
		faulty, _ := tabletest.NewFaults(append(slices.Repeat([]tabletest.Fault{tabletest.Pass}, after), slices.Repeat([]tabletest.Fault{tabletest.Drop}, 200)...)...)
		err := LoadSample(t.Context(), table.New(faulty, name), SampleOptions{Now: midMonth, SandboxURL: "http://127.0.0.1:8090", Say: func(string) {}})
		if err == nil {
			break
		}
		if metering.CodeOf(err) != metering.Unavailable || after > 500 {
			t.Fatalf("after %d requests: %v", after, err)
		}
	}
	wantReported(t, tbl, midMonth)
}

// Terms of the user that exclude those of the sample stay, and a deleted entitlement gets no usage.
func TestLoadSample_LeavesTheUsersTermsAlone(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	mine := metric("bm-mine", "tokens")
	if counts, err := Import(t.Context(), tbl, SampleOrg, strings.NewReader(mine), ImportOptions{Kind: Metrics, RewriteOrg: true}); err != nil || counts.Imported != 1 {
		t.Fatal(counts, err)
	}
	deleted := strings.ReplaceAll(licensed("ent-8f3a61c2", "1"), "ACTIVE", "DELETED")
	if counts, err := Import(t.Context(), tbl, SampleOrg, strings.NewReader(deleted), ImportOptions{Kind: Entitlements, RewriteOrg: true}); err != nil || counts.Imported != 1 {
		t.Fatal(counts, err)
	}
	said := strings.Join(loadSample(t, tbl, midMonth, ""), "\n")
	if !strings.Contains(said, `One of the sample metrics is left out: the billable metric "bm-mine" has the name "tokens"`) {
		t.Errorf("said %s", said)
	}
	if _, err := tbl.Group(t.Context(), SampleOrg, sampleReportID(midMonth, 0)); metering.CodeOf(err) != metering.NotFound {
		t.Errorf("usage of the deleted entitlement: %v; want none", err)
	}
	if _, err := tbl.Group(t.Context(), SampleOrg, sampleReportID(midMonth, 1)); err != nil {
		t.Errorf("the other usage: %v", err)
	}
}

// The usage of the last hours is CREATED, or INVALID with the one problem that sample.json names.
func TestLoadSample_ReportsTheLastHours(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	loadSample(t, tbl, midMonth, "http://127.0.0.1:8090")
	wantReported(t, tbl, midMonth)
}

func wantReported(t *testing.T, tbl *table.Table, now time.Time) {
	t.Helper()
	for i, r := range sample().Reports {
		g, err := tbl.Group(t.Context(), SampleOrg, sampleReportID(now, i))
		if err != nil {
			t.Errorf("report %d: %v", i, err)
			continue
		}
		var codes []metering.ProblemCode
		for _, p := range g.Problems {
			codes = append(codes, p.Code)
		}
		want, status := []metering.ProblemCode(nil), metering.StatusCreated
		if r.Problem != "" {
			want, status = []metering.ProblemCode{r.Problem}, metering.StatusInvalid
		}
		if g.Status != status || !slices.Equal(codes, want) {
			t.Errorf("report %d: %s, %v; want %s, %v", i, g.Status, g.Problems, status, want)
		}
		ago := now.Sub(*g.MetaInfo.Timestamp)
		outside := slices.Contains([]metering.ProblemCode{metering.ProblemTooOld, metering.ProblemMonthClosed, metering.ProblemInTheFuture}, r.Problem)
		if !outside && (ago < 2*time.Hour || ago > 5*time.Hour+time.Minute) {
			t.Errorf("report %d happened %v ago; want 2 to 5 hours", i, ago)
		}
	}
}

// Each kind of problem that makes a report INVALID has an example.
func TestSample_HasEachProblemOfAReport(t *testing.T) {
	t.Parallel()
	none := map[metering.ProblemCode]string{ // kinds that no report has
		metering.ProblemNotStorable:        "the response is 400",
		metering.ProblemEntitlementUnknown: "the response is 404",
		metering.ProblemNoConnection:       "a warning until the time to report it ends",
		metering.ProblemMappingUnreadable:  "only a newer version stores such a config",
		metering.ProblemExpired:            "of validation, only a retry finds it",
		metering.ProblemNoHourLeft:         "of validation, only a retry finds it",
	}
	shown := map[metering.ProblemCode]bool{}
	for _, r := range sample().Reports {
		shown[r.Problem] = true
	}
	for _, kind := range metering.ProblemKinds() {
		possible := kind.Severity == metering.SeverityError && kind.Found&metering.FoundByValidation != 0 && none[kind.Code] == ""
		if shown[kind.Code] != possible {
			t.Errorf("%s: shown %v; want %v", kind.Code, shown[kind.Code], possible)
		}
	}
}

// The sandbox accepts the catalog, and knows each entitlement that has identifiers, with the prices
// of its dimensions.
func TestSample_SandboxKnowsTheEntitlements(t *testing.T) {
	t.Parallel()
	catalog := SampleCatalog()
	if _, err := sandbox.New(sandbox.Options{Catalog: catalog}); err != nil {
		t.Fatal(err)
	}
	var want []string
	for line := range strings.Lines(string(sample().entitlementLines(midMonth))) {
		e, err := wire.DecodeEntitlement([]byte(line))
		if err != nil {
			t.Fatal(err)
		}
		if e.Marketplace.Complete(e.Partner) {
			m := e.Marketplace
			of := fmt.Sprint(m.CustomerAWSAccountID, m.CustomerIdentifier, m.LicenseARN, m.ProductCode, m.ResourceID, m.PlanID, m.UsageReportingID, m.ServiceName)
			for _, d := range e.Info.Dimensions {
				want = append(want, fmt.Sprint(of, " ", d.Key, " ", d.Rate))
			}
		} else if e.ID != "ent-no-identifiers" {
			t.Errorf("%s lacks identifiers", e.ID)
		}
	}
	var got []string
	for _, a := range catalog.AWS.Agreements {
		customer := catalog.AWS.Customers[slices.IndexFunc(catalog.AWS.Customers, func(c sandbox.AWSCustomer) bool { return c.AccountID == a.AccountID })]
		of := a.AccountID + a.LicenseArn
		if customer.CustomerIdentifier != "" {
			of = customer.CustomerIdentifier + a.ProductCode
		}
		product := slices.IndexFunc(catalog.AWS.Products, func(p sandbox.AWSProduct) bool { return p.ProductCode == a.ProductCode })
		for _, d := range catalog.AWS.Products[product].Dimensions {
			got = append(got, of+" "+d.Key+" "+d.Price)
		}
	}
	for _, s := range catalog.Azure.Subscriptions {
		offer := slices.IndexFunc(catalog.Azure.Offers, func(o sandbox.AzureOffer) bool { return o.OfferID == s.OfferID })
		for _, d := range catalog.Azure.Offers[offer].Plans[0].Dimensions {
			got = append(got, s.ResourceID+s.PlanID+" "+d.Key+" "+d.Price)
		}
	}
	for _, e := range catalog.Google.Entitlements {
		service := slices.IndexFunc(catalog.Google.Services, func(s sandbox.GoogleService) bool { return s.Name == e.Service })
		for _, m := range catalog.Google.Services[service].Metrics {
			got = append(got, e.UsageReportingID+e.Service+" "+m.Name+" "+m.Price)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" || len(want) < 20 {
		t.Errorf("the sandbox's catalog differs from the entitlements (-want +got)\n%s", diff)
	}
}
