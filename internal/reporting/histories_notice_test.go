package reporting_test

import (
	"math/rand/v2"
	"slices"
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

// What the histories check can fail: each of these faults in the table of a history that ended well
// breaks the invariant that it is against.
func TestHistories_NoticeWhatIsWrong(t *testing.T) {
	t.Parallel()
	h := newHistory(t, rand.New(rand.NewPCG(seedOnAWS, 0)))
	h.Change(func(c *sandbox.Catalog) { c.AWS.Products[0].Dimensions[1].Key = "gone" })
	at, id := h.Now(), h.entities[0]
	reportGroup := func(g metering.NewGroup) metering.GroupID {
		g.EntitlementID, g.Timestamp = string(id), &at
		groups, err := h.front.Report(t.Context(), worldtest.Org, &metering.Report{Groups: []metering.NewGroup{g}, Now: at})
		if err != nil {
			t.Fatal(err)
		}
		return metering.GroupID(groups[0].ID)
	}
	report := func(records ...metering.NewRecord) metering.GroupID {
		return reportGroup(metering.NewGroup{Records: records})
	}
	reported := report(metering.NewRecord{Key: "d0", Quantity: "2.0000009"})
	failed := report(metering.NewRecord{Key: "d0", Quantity: "0.7"}, metering.NewRecord{Key: "d1", Quantity: "4"})
	metered := reportGroup(metering.NewGroup{BillableRecords: []metering.NewBillableRecord{{Key: meterID("d3"), Quantity: "4"}, {Key: meterID("d6"), Quantity: "2"}}})
	h.calm()
	h.settle()
	if h.broken != "" || h.groups[reported].Status != metering.StatusReported || h.groups[failed].Status != metering.StatusReportFailed {
		t.Fatalf("%s; %s, %s\n%s", h.broken, h.groups[reported].Status, h.groups[failed].Status, strings.Join(h.log, "\n"))
	}
	place := reports.Place{Organization: worldtest.Org, Entitlement: id, Hour: metering.HourOf(at)}
	group := func(id metering.GroupID, spoil func(g *seenGroup)) func() {
		return func() { spoil(h.groups[id]) }
	}
	hour := func(spoil func(s *reports.Sealed)) func() {
		return func() {
			changed, sealed := *h.hours[place], *h.hours[place].Sealed
			sealed.Records = slices.Clone(sealed.Records)
			spoil(&sealed)
			changed.Sealed = &sealed
			h.hours[place] = &changed
			h.checkTerms(place, &changed)
		}
	}
	quantity := worldtest.Quantity("1")
	for name, test := range map[string]struct {
		spoil   func()
		noticed string
	}{
		"a group that failed is REPORTED": {group(failed, func(g *seenGroup) { g.Status = metering.StatusReported }), "5."},
		"a group that is billed failed": {group(reported, func(g *seenGroup) {
			g.Status, g.Problems = metering.StatusReportFailed, []metering.Problem{{}}
		}), "5."},
		"a group fails for no reason":         {group(failed, func(g *seenGroup) { g.Problems = nil }), "5."},
		"a group that is billed waits":        {group(reported, func(g *seenGroup) { g.Status, g.inWork = metering.StatusCreated, true }), "5."},
		"a group that is billed is converted": {group(reported, func(g *seenGroup) { g.Records = map[string]metering.Quantity{"d2": quantity} }), "5."},
		"a group that is billed is DELETED":   {group(reported, func(g *seenGroup) { g.Status = metering.StatusDeleted }), "2."},
		"a group that waits is lost":          {group(failed, func(g *seenGroup) { g.Status, g.outcomes, g.inWork = metering.StatusCreated, nil, false }), "7."},
		"an outcome is forgotten":             {group(failed, func(g *seenGroup) { g.outcomes["d0"] = reports.Rejected }), "5."},
		"all outcomes are forgotten":          {group(failed, func(g *seenGroup) { g.outcomes = nil }), "5."},
		"a group has less":                    {group(reported, func(g *seenGroup) { g.Records["d0"] = quantity }), "5."},
		"the carry is lost":                   {func() { delete(h.ledgers, id) }, "4."},
		"a dimension is left out":             {hour(func(s *reports.Sealed) { s.Records = s.Records[1:] }), "hour"},
		"less is sent":                        {hour(func(s *reports.Sealed) { s.Records[0].Quantity = quantity }), "4."},
		"a dimension counts twice":            {hour(func(s *reports.Sealed) { s.Records[0].Members = s.Records[0].Members.Add(s.Records[0].Members) }), "4."},
		"it is sent for another buyer":        {hour(func(s *reports.Sealed) { s.Marketplace = h.own[h.entities[1]][0] }), "1."},
		"it is sent for another hour":         {hour(func(s *reports.Sealed) { s.From = s.From.Add(-1) }), "1."},
		"it has another price":                {hour(func(s *reports.Sealed) { s.Records[0].UnitPrice = quantity }), "4."},
		"metrics go to no other dimension":    {group(metered, func(g *seenGroup) { g.mapping = nil }), "hour"},
		"the sum of a metric is left out":     {func() { h.mapping = nil }, "4."},
		"it draws what there is not":          {hour(func(s *reports.Sealed) { s.Records[0].Drawn = metering.MustExact("1") }), "4."},
	} {
		whole := h.tableCopy
		h.tableCopy = whole.clone()
		for _, g := range h.groups {
			records := map[string]metering.Quantity{}
			for dimension, q := range g.Records {
				records[dimension] = q
			}
			g.Records = records
		}
		test.spoil()
		h.check()
		if !strings.HasPrefix(h.broken, test.noticed) {
			t.Errorf("%s: %q is noticed, want %s", name, h.broken, test.noticed)
		}
		h.tableCopy, h.broken = whole, ""
	}
	// A request with other bytes for a record that was sent.
	r := rt.AWS("d0", "5")
	r.IDs, r.Start, r.End = h.own[id][0], place.Hour, place.Hour.Add(time.Hour)
	h.Marketplace("AWS").Send(t.Context(), []reporting.Record{r})
	if h.checkRequests(); !strings.HasPrefix(h.broken, "1.") {
		t.Errorf("other bytes: %q is noticed", h.broken)
	}
	// An hour that leaves the index before it is settled.
	h.broken = ""
	h.hours[place].Version = 0
	h.SetText("ORG#"+string(worldtest.Org)+"#BILL#"+string(id), "HOUR#"+place.Hour.Format("2006-01-02T15"), "state", string(reports.StateDecided))
	if h.followHour("nobody", id, "HOUR#"+place.Hour.Format("2006-01-02T15")); !strings.HasPrefix(h.broken, "7.") {
		t.Errorf("an hour that is not in the index: %q is noticed", h.broken)
	}
}

// seedOnAWS is the seed of a history of an entitlement of AWS without a commit, with a mapping of
// metrics.
const seedOnAWS = 47
