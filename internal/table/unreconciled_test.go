package table_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// sentHour is reportedHour at a partner, with an attempt of each record.
func sentHour(t *testing.T, partner metering.Partner, entitlement metering.EntitlementID, before int, records ...string) *reports.Hour {
	t.Helper()
	h := reportedHour(t, entitlement, before, records...)
	h.Sealed.Partner = partner
	for i := range h.Sealed.Records {
		h.Sealed.Records[i].Attempts = []reports.Attempt{{Number: 1, Time: h.Start.Add(time.Hour)}}
	}
	return h
}

func unreconciled(t *testing.T, tbl *table.Table) string {
	t.Helper()
	var days []string
	err := tbl.EachUnreconciled(t.Context(), func(d reports.Day) error {
		days = append(days, fmt.Sprintf("%s %s %s %s", d.Date.Format(time.DateOnly), d.Organization, d.Partner, d.Entitlement))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(days, ", ")
}

func TestUnreconciled_EachOutcomeOfWhatWasSentBringsItsDay(t *testing.T) {
	t.Parallel()
	for _, kind := range reports.Kinds {
		tbl := tabletest.New(t)
		for _, partner := range metering.Partners {
			h := sentHour(t, partner, "e#~%1", 5, "cpu 1")
			accept(t, tbl, h, decided(h, kind))
		}
		want := "2026-03-01 o1 AZURE e#~%1"
		if kind == reports.Undecided {
			want = ""
		}
		if got := unreconciled(t, tbl); got != want {
			t.Errorf("%s: %q, want %q", kind, got, want)
		}
		// What was not accepted has no daily record that clients see.
		records := 0
		if _, err := tbl.DailyRecords(t.Context(), "o1", "AZURE", listRequest(metering.GroupFilter{}), nil, func(page []byte, _ metering.GroupPage) error {
			records = strings.Count(string(page), "entitlementID")
			return nil
		}); err != nil || (records == 1) != (kind == reports.Accepted) {
			t.Errorf("%s: %d daily records, %v", kind, records, err)
		}
	}
	// What was never sent is nothing to compare.
	tbl := tabletest.New(t)
	h := sentHour(t, "AZURE", "e1", 5, "cpu 1")
	h.Sealed.Records[0].Attempts = nil
	accept(t, tbl, h, decided(h, reports.Rejected))
	if got := unreconciled(t, tbl); got != "" {
		t.Errorf("not sent: %q", got)
	}
}

func TestUnreconciled_DaysOfAnOrganizationAreTogether(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	for _, entitlement := range []metering.EntitlementID{"e1", "e2", "e3"} {
		for _, org := range []metering.OrgID{"o1", "o2"} {
			for _, before := range []int{5, 6, 30} {
				h := sentHour(t, "AZURE", entitlement, before, "cpu 1", "gb 2")
				h.Organization = org
				accept(t, tbl, h, decided(h, reports.Accepted))
			}
		}
	}
	// A day of several daily records.
	var many []string
	for i := range 250 {
		many = append(many, fmt.Sprintf("d%03d 1", i))
	}
	h := sentHour(t, "AZURE", "e2", 7, many...)
	accept(t, tbl, h, decided(h, reports.Accepted))
	groups := strings.Split(unreconciled(t, tbl), ", ")
	var heads []string
	for _, g := range groups {
		heads = append(heads, strings.Join(strings.Fields(g)[:2], " "))
	}
	if heads = slices.Compact(heads); len(groups) != 12 || len(heads) != 4 {
		t.Errorf("%q", groups)
	}
	// The one that comes first, of two in different partitions, is not the same each time.
	first := map[string]int{}
	for range 200 {
		first[strings.Fields(unreconciled(t, tbl))[1]]++
	}
	if len(first) != 2 {
		t.Errorf("it begins with %v", first)
	}
}

func TestReconciled_EndsADayThatHasNotChanged(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	var many []string
	for i := range 150 {
		many = append(many, fmt.Sprintf("d%03d 1", i))
	}
	h := sentHour(t, "AZURE", "e1", 5, many...)
	d := h.Day()
	half := decided(h, reports.Accepted, "d000")
	accept(t, tbl, h, half)
	read, err := tbl.Day(t.Context(), d)
	if err != nil || len(read.Versions) != 1 || len(read.Hours) != 0 {
		t.Fatalf("%+v, %v", read, err)
	}
	all := decided(half, reports.Accepted)
	accept(t, tbl, half, all)
	if err := tbl.Reconciled(t.Context(), d, read); err != nil {
		t.Fatal(err)
	}
	if got := unreconciled(t, tbl); got == "" {
		t.Error("a day has ended that changed since it was read")
	}
	if read, err = tbl.Day(t.Context(), d); err != nil || len(read.Versions) != 2 {
		t.Fatalf("%+v, %v", read, err)
	}
	for range 2 { // the response of the first may be lost
		if err := tbl.Reconciled(t.Context(), d, read); err != nil {
			t.Fatal(err)
		}
	}
	if got := unreconciled(t, tbl); got != "" {
		t.Errorf("%q has not ended", got)
	}
	sums := dailyOf(listDailyOf(t, tbl, "AZURE"))
	if len(sums) != 150 {
		t.Errorf("%d daily records are left", len(sums))
	}
	// Another outcome brings it back, also in a daily record that has ended.
	late := sentHour(t, "AZURE", "e1", 6, "d000 1")
	accept(t, tbl, late, decided(late, reports.Unknown))
	if got := unreconciled(t, tbl); got != "2026-03-01 o1 AZURE e1" {
		t.Errorf("%q", got)
	}
}

func listDailyOf(t *testing.T, tbl *table.Table, partner metering.Partner) (l listOf) {
	t.Helper()
	if _, err := tbl.DailyRecords(t.Context(), "o1", partner, listRequest(metering.GroupFilter{}), nil, l.read); err != nil {
		t.Fatal(err)
	}
	return l
}

func TestDay_HasTheHoursOfTheDay(t *testing.T) {
	t.Parallel()
	w := newWaiting(t)
	for _, before := range []int{0, 12, 13, 5} { // the last hour of the day before is 13 h before now
		h := reports.OpenHour("o1", "e1", now.Add(-time.Duration(before)*time.Hour))
		h.Opener, h.Parts = "opener", 1
		if err := w.Open(t.Context(), &h, [][]metering.GroupID{{"g"}}); err != nil {
			t.Fatal(err)
		}
	}
	d := reports.Day{Organization: "o1", Partner: "AZURE", Entitlement: "e1", Date: now.Truncate(24 * time.Hour)}
	read, err := w.Day(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	var hours []int
	for _, h := range read.Hours {
		hours = append(hours, h.Start.Hour())
	}
	if want := []int{now.Hour() - 12, now.Hour() - 5, now.Hour()}; !slices.Equal(hours, want) {
		t.Errorf("%v, want %v", hours, want)
	}
	p := placeOf("o1", "e1", now.Add(-3*time.Hour))
	w.put([4]string{table.BillKey(p), "HOUR#" + p.Hour.Format("2006-01-02T15"), "WORK#0", "x"})
	if _, err := w.Day(t.Context(), d); !errors.Is(err, reports.ErrNewer) {
		t.Errorf("an hour that can't be read: %v", err)
	}
}

func TestUnreconciled_Cost(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	h := sentHour(t, "AZURE", "e1", 5, "cpu 1")
	accept(t, tbl, h, decided(h, reports.Accepted))
	ctx, units := table.CountUnits(t.Context())
	wants := func(what string, read, write float64) {
		t.Helper()
		if r, w := units(); r != read || w != write {
			t.Errorf("%s: %v read units, %v write units in all; want %v, %v", what, r, w, read, write)
		}
	}
	days := 0
	if err := tbl.EachUnreconciled(ctx, func(reports.Day) error { days++; return nil }); err != nil || days != 1 {
		t.Fatal(days, err)
	}
	wants("EachUnreconciled", 0.5, 0)
	read, err := tbl.Day(ctx, h.Day())
	if err != nil {
		t.Fatal(err)
	}
	wants("Day", 1.5, 0)
	if err := tbl.Reconciled(ctx, h.Day(), read); err != nil {
		t.Fatal(err)
	}
	wants("Reconciled", 1.5, 2)
}

func TestEachUnreconciled_LeavesUnknownEntriesAlone(t *testing.T) {
	t.Parallel()
	w := newWaiting(t)
	w.put(
		[4]string{"ORG#o1#DAILY#AZURE", "2026-03-01#e1#000", "DAILY#3", "2026-03-01#o1#e1#000"},
		[4]string{"ORG#o1#DAILY#AZURE", "2026-03-01#e2#000", "DAILY#3", "2026-03-01#o1"},
		[4]string{"ORG#o1#NEWER#AZURE", "2026-03-01#e3#000", "DAILY#4", "2026-03-01#o1#e3#000"},
	)
	if got := unreconciled(t, w.Table); len(got) > len("2026-03-01 o1 AZURE e1") {
		t.Errorf("%q", got)
	}
}
