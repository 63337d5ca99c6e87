package table_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

func exactly(t *testing.T, text string) metering.Exact {
	t.Helper()
	x, err := metering.ParseExact(text)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func quantityOf(t *testing.T, text string) metering.Quantity {
	t.Helper()
	q, err := metering.ParseQuantity(text)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// reportedHour is an hour of o1 and the entitlement, so many hours before now, with records spelled
// as "cpu 1.5 2", that is with a quantity and a unit price. None has an outcome.
func reportedHour(t *testing.T, entitlement metering.EntitlementID, before int, records ...string) *reports.Hour {
	t.Helper()
	h := reports.OpenHour("o1", entitlement, now.Add(-time.Duration(before)*time.Hour))
	h.State, h.Version, h.Opened = reports.StateSealed, 2, h.Start.Add(90*time.Minute)
	h.Sealed = &reports.Sealed{From: h.Start, To: h.Start.Add(time.Hour), Partner: "AWS", Buyer: "b1", Product: "p1", Groups: 1}
	for _, spelled := range records {
		parts := strings.Fields(spelled)
		r := reports.Record{Dimension: parts[0], Quantity: quantityOf(t, parts[1]), Scale: exactly(t, "1")}
		if len(parts) > 2 {
			r.UnitPrice = quantityOf(t, parts[2])
		}
		h.Sealed.Records = append(h.Sealed.Records, r)
	}
	return &h
}

// decided returns the hour with the kind as the outcome of the dimensions, with the next version.
func decided(h *reports.Hour, kind reports.Kind, dimensions ...string) *reports.Hour {
	after, sealed := *h, *h.Sealed
	sealed.Records = slices.Clone(sealed.Records)
	for i := range sealed.Records {
		if len(dimensions) == 0 || slices.Contains(dimensions, sealed.Records[i].Dimension) {
			sealed.Records[i].Outcome.Kind = kind
		}
	}
	after.Sealed = &sealed
	after.Version++
	return &after
}

// listOf is a page of a list, as a client reads its objects.
type listOf struct {
	objects []map[string]any
	page    metering.GroupPage
}

// ids are the members of that name of all objects.
func (l listOf) all(member string) (all []string) {
	for _, o := range l.objects {
		all = append(all, fmt.Sprint(o[member]))
	}
	return all
}

func (l *listOf) read(json []byte, page metering.GroupPage) error {
	l.page = page
	return jsonNumbers("["+string(json)+"]", &l.objects)
}

func jsonNumbers(text string, to any) error {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	return d.Decode(to)
}

func listRequest(f metering.GroupFilter) metering.ListRequest {
	if f.EndDate == "" {
		f.EndDate = metering.DayOf(now)
	}
	if f.StartDate == "" {
		f.StartDate = f.EndDate.AddDays(-30)
	}
	return metering.ListRequest{Filter: f, Client: "k1", Query: fmt.Sprint(f), Limit: 1_000, MaxSize: metering.MaxListSize, Now: now, ReadFor: 10 * time.Second}
}

func listReports(t *testing.T, tbl *table.Table, r metering.ListRequest) (l listOf) {
	t.Helper()
	if _, err := tbl.Reports(t.Context(), "o1", r, nil, l.read); err != nil {
		t.Fatal(err)
	}
	return l
}

func putReport(t *testing.T, tbl *table.Table, h *reports.Hour, ids ...metering.GroupID) {
	t.Helper()
	if err := tbl.PutReport(t.Context(), h, ids); err != nil {
		t.Fatal(err)
	}
}

func TestPutReport_LaterCopyStays(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	sealed := reportedHour(t, "e1", 5, "cpu 1")
	settled := decided(sealed, reports.Accepted)
	settled.State = reports.StateSettled
	putReport(t, tbl, sealed, "g1")
	status := func() any {
		return listReports(t, tbl, listRequest(metering.GroupFilter{})).objects[0]["info"].(map[string]any)["status"]
	}
	if status() != "CREATED" {
		t.Errorf("it is %v", status())
	}
	putReport(t, tbl, settled, "g1")
	putReport(t, tbl, sealed, "g1") // of a worker that slept
	putReport(t, tbl, settled, "g1")
	if status() != "SUCCESS" {
		t.Errorf("it is %v", status())
	}
	open := reports.OpenHour("o1", "e1", now)
	wantCode(t, tbl.PutReport(t.Context(), &open, nil), metering.Internal)
}

func TestPutReport_HasTheCallsOfItsHour(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	sent := func(entitlement metering.EntitlementID, before int, requests ...string) *reports.Hour {
		h := reportedHour(t, entitlement, before, "cpu 1")
		h.Version, h.Sealed.Records[0].Attempts = 0, []reports.Attempt{{Number: 1, Time: now}}
		open := reports.OpenHour("o1", entitlement, h.Start)
		open.Opener = "opener"
		if err := tbl.Open(t.Context(), &open, nil); err != nil {
			t.Fatal(err)
		}
		last := &open
		for i, request := range requests {
			next := *h
			next.Version = last.Version + 1
			step := &reports.Step{Before: last, After: &next, Calls: []reports.StoredCall{{Time: now.Add(time.Duration(i) * time.Minute), Status: 200, Request: []byte(request)}}}
			if err := tbl.Write(t.Context(), step); err != nil {
				t.Fatal(err)
			}
			last = &next
		}
		return last
	}
	h := sent("e1", 5, `{"n":1}`, `{"n":2}`)
	sent("e1", 6, `{"n":3}`)
	sent("e2", 5, `{"n":4}`)
	putReport(t, tbl, h)
	info := listReports(t, tbl, listRequest(metering.GroupFilter{})).objects[0]["info"].(map[string]any)
	got := fmt.Sprint(info["calls"], info["awsMeteringRequest"])
	if !strings.Contains(got, "request:map[n:1]") || !strings.HasSuffix(got, "map[n:2]") || strings.Contains(got, "n:3") || strings.Contains(got, "n:4") {
		t.Error(got)
	}
}

func TestPutReport_LargeReportIsStored(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	tbl := table.New(client, name)
	h := reportedHour(t, "e1", 5)
	for i := range 2_000 {
		h.Sealed.Records = append(h.Sealed.Records, reports.Record{Dimension: fmt.Sprintf("%04d", i) + strings.Repeat("é", 250), Quantity: quantityOf(t, "1.5"), Scale: exactly(t, "1")})
	}
	h.Entitlement, h.Sealed.Buyer = metering.EntitlementID(strings.Repeat("é", 128)), metering.BuyerID(strings.Repeat("é", 128))
	ids := make([]metering.GroupID, 2_000)
	for i := range ids {
		ids[i] = metering.GroupID(fmt.Sprintf("%04d", i) + strings.Repeat("\U0001F600", 32))
	}
	putReport(t, tbl, h, ids...)
	info := listReports(t, tbl, listRequest(metering.GroupFilter{})).objects[0]["info"].(map[string]any)
	if len(info["usageRecordGroupIds"].([]any)) != 1_000 || len(info["outcomes"].([]any)) < 50 || !strings.Contains(info["message"].(string), "of 2000 dimensions are left out") {
		t.Error(info["message"])
	}
}

func TestReports_AreFilteredAndInOrder(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	var want []string
	for i := range 24 {
		h := reportedHour(t, metering.EntitlementID(fmt.Sprintf("e%d", i%3)), 24*i)
		h.Sealed.Partner = metering.Partners[i%2]
		h.Sealed.Buyer = metering.BuyerID(fmt.Sprintf("b%d", i%4))
		putReport(t, tbl, h)
		want = append(want, h.ID())
	}
	other := reportedHour(t, "e1", 1)
	other.Organization = "o2"
	putReport(t, tbl, other)
	// Reports of the same time are in the descending order of their ids.
	for _, entitlement := range []metering.EntitlementID{"s1", "s2", "s3"} {
		h := reportedHour(t, entitlement, 24*24)
		putReport(t, tbl, h)
		want = append(want, h.ID())
	}
	slices.Sort(want[24:])
	slices.Reverse(want[24:])
	select_ := func(keep func(i int) bool) (some []string) {
		for i := range 24 {
			if keep(i) {
				some = append(some, want[i])
			}
		}
		return some
	}
	day := func(i int) metering.Day { return metering.DayOf(now.Add(90 * time.Minute)).AddDays(-i) }
	for _, test := range []struct {
		name   string
		filter metering.GroupFilter
		want   []string
	}{
		{"all", metering.GroupFilter{}, want},
		{"partner", metering.GroupFilter{Partner: "AZURE"}, select_(func(i int) bool { return i%2 == 1 })},
		{"entitlement", metering.GroupFilter{EntitlementID: "e2"}, select_(func(i int) bool { return i%3 == 2 })},
		{"buyer", metering.GroupFilter{BuyerID: "b3"}, select_(func(i int) bool { return i%4 == 3 })},
		{"all of them", metering.GroupFilter{BuyerID: "b3", EntitlementID: "e1", Partner: "AZURE"}, select_(func(i int) bool { return i%12 == 7 })},
		{"none", metering.GroupFilter{BuyerID: "b3", Partner: "AWS"}, nil},
		{"days", metering.GroupFilter{StartDate: day(7), EndDate: day(5)}, want[5:8]},
		{"no days", metering.GroupFilter{StartDate: "2020-01-01", EndDate: "2020-01-02"}, nil},
	} {
		if got := listReports(t, tbl, listRequest(test.filter)); !slices.Equal(got.all("id"), test.want) || got.page.NextOffset != 0 {
			t.Errorf("%s: %v, want %v", test.name, got.all("id"), test.want)
		}
		for _, limit := range []int{1, 2, 5} {
			checkPages(t, test.name, test.want, "id", func(r metering.ListRequest) listOf { return listReports(t, tbl, r) }, test.filter, limit)
		}
	}
}

// checkPages reads a list page by page, by offset and by cursor, and wants the members of that
// name.
func checkPages(t *testing.T, name string, want []string, member string, read func(metering.ListRequest) listOf, f metering.GroupFilter, limit int) {
	t.Helper()
	for _, by := range []string{"offset", "cursor"} {
		var got []string
		r := listRequest(f)
		r.Limit = limit
		for range len(want) + 2 {
			page := read(r)
			got = append(got, page.all(member)...)
			if page.page.NextOffset == 0 {
				break
			}
			if len(page.objects) == 0 || page.page.NextOffset != len(got) {
				t.Fatalf("%s by %s: %+v after %d", name, by, page.page, len(got))
			}
			if by == "cursor" {
				r.Cursor = page.page.NextCursor
			} else {
				r.Offset = page.page.NextOffset
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s by %s of %d: %v, want %v", name, by, limit, got, want)
		}
	}
	r := listRequest(f)
	r.Query += "another" // without checkpoints
	r.Offset = len(want) / 2
	if got := read(r); !slices.Equal(got.all(member), want[len(want)/2:]) {
		t.Errorf("%s at %d: %v, want %v", name, r.Offset, got.all(member), want[len(want)/2:])
	}
}

func TestReports_PageEndsBeforeItIsTooLarge(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	var want []string
	for i := range 6 {
		h := reportedHour(t, "e1", i, "cpu 1")
		putReport(t, tbl, h)
		want = append(want, h.ID())
	}
	r := listRequest(metering.GroupFilter{})
	r.MaxSize = 2_500 // two reports, with their quotes escaped
	var got []string
	for {
		page := listReports(t, tbl, r)
		if n := len(page.objects); n == 0 || n > 2 {
			t.Fatalf("a page of %d", n)
		}
		got = append(got, page.all("id")...)
		if r.Offset = page.page.NextOffset; r.Offset == 0 {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestReports_RareFilterComesToItsEnd(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	tbl := table.New(client, name)
	for i := range 12 {
		putReport(t, tbl, reportedHour(t, "e1", i, "cpu 1"))
	}
	rare := reportedHour(t, "rare", 13)
	putReport(t, tbl, rare)
	// One report a response, and no time for a second one.
	slow := table.New(tabletest.NewClient(tabletest.ShortPages(http.DefaultTransport, 1)), name)
	r := listRequest(metering.GroupFilter{EntitlementID: "rare"})
	r.ReadFor = 0
	for i := range 30 {
		var l listOf
		_, err := slow.Reports(t.Context(), "o1", r, nil, l.read)
		if err == nil {
			if !slices.Equal(l.all("id"), []string{rare.ID()}) || i == 0 {
				t.Errorf("request %d: %v", i, l.all("id"))
			}
			return
		}
		wantCode(t, err, metering.Unavailable)
		if !strings.Contains(err.Error(), "the reports asked for were not reached") {
			t.Fatal(err)
		}
	}
	t.Error("it never came to the report")
}

func TestReports_ListsShareNoCheckpoints(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	put(t, tbl, group("g1", metering.StatusCreated))
	put(t, tbl, group("g2", metering.StatusCreated))
	putReport(t, tbl, reportedHour(t, "e1", 5))
	putReport(t, tbl, reportedHour(t, "e1", 6))
	r := listRequest(metering.GroupFilter{})
	r.Limit = 1
	cursor := listReports(t, tbl, r).page.NextCursor
	r.Cursor = cursor
	var l listOf
	_, err := tbl.List(t.Context(), "o1", r, nil, l.read)
	wantCode(t, err, metering.Invalid)
	_, err = tbl.DailyRecords(t.Context(), "o1", "AWS", r, nil, l.read)
	wantCode(t, err, metering.Invalid)
	_, err = tbl.Reports(t.Context(), "o2", r, nil, l.read)
	wantCode(t, err, metering.Invalid)
}
