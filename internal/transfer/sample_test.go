package transfer

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
	"github.com/marketmeter/marketmeter/internal/transfer/transfertest"
	"github.com/marketmeter/marketmeter/internal/wire"
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

// A load that was interrupted one day is completed on the next.
func TestLoadSample_CompletesWhatExists(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	lines := slices.Collect(strings.Lines(string(sampleLines(sampleToday))))
	counts, err := Import(t.Context(), tbl, SampleOrg, strings.NewReader(strings.Join(lines[:700], "")), ImportOptions{})
	if err != nil || counts.Imported != 700 {
		t.Fatal(counts, err)
	}
	var said []string
	for range 2 {
		if err := LoadSample(t.Context(), tbl, sampleToday.AddDate(0, 0, 1), func(s string) { said = append(said, s) }); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		"Loading the sample data: organization demo, 2500 groups", "  500 of 2500", "  1000 of 2500", "  1500 of 2500", "  2000 of 2500",
		"The sample data exists: organization demo, 2500 groups",
	}
	if !slices.Equal(said, want) {
		t.Errorf("said %q, want %q", said, want)
	}
	transfertest.WantSerial(t, tbl, SampleOrg, 2500)
}
