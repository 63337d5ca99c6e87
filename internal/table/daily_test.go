package table_test

import (
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

func accept(t *testing.T, tbl *table.Table, before, after *reports.Hour) {
	t.Helper()
	if err := tbl.WriteDaily(t.Context(), &reports.Step{Before: before, After: after}, func() {}); err != nil {
		t.Fatal(err)
	}
}

func listDaily(t *testing.T, tbl *table.Table, r metering.ListRequest) (l listOf) {
	t.Helper()
	if _, err := tbl.DailyRecords(t.Context(), "o1", "AWS", r, nil, l.read); err != nil {
		t.Fatal(err)
	}
	return l
}

// dailyOf spells the records of a list: day, entitlement, dimension, quantity and amount.
func dailyOf(l listOf) (all []string) {
	for _, o := range l.objects {
		spelled := fmt.Sprintf("%.10s %s %s %s", o["date"], o["entitlementID"], o["key"], o["quantity"])
		if o["amount"] != nil {
			spelled += fmt.Sprintf(" %s", o["amount"])
		}
		all = append(all, spelled)
	}
	return all
}

func TestDaily_StepAddsWhatItHasAccepted(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	const day = "2026-03-01 "
	wants := func(want ...string) {
		t.Helper()
		if got := dailyOf(listDaily(t, tbl, listRequest(metering.GroupFilter{}))); !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
	first := reportedHour(t, "e1", 5, "cpu 0.1 3", "gb 5", "no 0 1", "req 7 0.5")
	accept(t, tbl, nil, first)
	wants()
	one := decided(first, reports.Accepted, "cpu", "no")
	accept(t, tbl, first, one)
	wants(day + "e1 cpu 0.1 0.3")
	accept(t, tbl, one, decided(one, reports.Unknown, "gb", "req"))
	wants(day + "e1 cpu 0.1 0.3")
	// The same outcomes again, as of a response that arrives after them.
	accept(t, tbl, one, decided(one, reports.Accepted, "cpu"))
	wants(day + "e1 cpu 0.1 0.3")
	// An operator resolves.
	unknown := decided(one, reports.Unknown, "gb", "req")
	accept(t, tbl, unknown, decided(unknown, reports.Accepted, "gb"))
	accept(t, tbl, unknown, decided(unknown, reports.Rejected, "req"))
	wants(day+"e1 gb 5", day+"e1 cpu 0.1 0.3")
	// Another hour of the day, with another price and without one.
	second := reportedHour(t, "e1", 4, "cpu 0.2 5", "gb 1 2", "zip 1")
	accept(t, tbl, second, decided(second, reports.Accepted))
	wants(day+"e1 zip 1", day+"e1 gb 6", day+"e1 cpu 0.3 1.3")
	// Days, entitlements, partners and organizations of their own.
	yesterday := reportedHour(t, "e1", 13, "cpu 2 1")
	accept(t, tbl, yesterday, decided(yesterday, reports.Accepted))
	another := reportedHour(t, "e#~1", 4, "cpu 3 1")
	accept(t, tbl, another, decided(another, reports.Accepted))
	azure := reportedHour(t, "e3", 4, "cpu 4 1")
	azure.Sealed.Partner = "AZURE"
	accept(t, tbl, azure, decided(azure, reports.Accepted))
	foreign := reportedHour(t, "e1", 4, "cpu 5 1")
	foreign.Organization = "o2"
	accept(t, tbl, foreign, decided(foreign, reports.Accepted))
	wants(day+"e#~1 cpu 3 3", day+"e1 zip 1", day+"e1 gb 6", day+"e1 cpu 0.3 1.3", "2026-02-28 e1 cpu 2 2")
}

func TestDaily_BuyersHaveRecordsOfTheirOwn(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	for i, buyer := range []metering.BuyerID{"b1", "b2", "b1"} {
		h := reportedHour(t, "e1", 5-i, "cpu 1")
		h.Sealed.Buyer = buyer
		accept(t, tbl, h, decided(h, reports.Accepted))
	}
	for buyer, want := range map[metering.BuyerID]string{"b1": "2", "b2": "1"} {
		got := listDaily(t, tbl, listRequest(metering.GroupFilter{BuyerID: buyer}))
		if !slices.Equal(got.all("quantity"), []string{want}) {
			t.Errorf("%s has %v", buyer, got.all("quantity"))
		}
	}
}

func TestDaily_ManyDimensionsAreAddedUpAndListed(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	want := map[string]*big.Rat{}
	// The dimensions of an hour begin at others than those of the hour before, so they have other
	// positions in it. Some are so long that a position does not hold them whole.
	for i := range 4 {
		var records []string
		for j := range 130 {
			dimension := fmt.Sprintf("d%03d", i*37+j)
			if j%10 == 0 {
				dimension = strings.Repeat("é", 240) + dimension
			}
			records = append(records, dimension+" 0.1 1")
		}
		slices.Sort(records)
		h := reportedHour(t, "e1", 9-i, records...)
		accept(t, tbl, h, decided(h, reports.Accepted))
		for _, r := range h.Sealed.Records {
			if want[r.Dimension] == nil {
				want[r.Dimension] = new(big.Rat)
			}
			want[r.Dimension].Add(want[r.Dimension], big.NewRat(1, 10))
		}
	}
	all := listDaily(t, tbl, listRequest(metering.GroupFilter{}))
	got := map[string]bool{}
	for _, o := range all.objects {
		key := o["key"].(string)
		quantity, ok := new(big.Rat).SetString(fmt.Sprint(o["quantity"]))
		if !ok || got[key] || want[key] == nil || quantity.Cmp(want[key]) != 0 || o["quantity"] != o["amount"] {
			t.Errorf("%s is %v, want %v", key, o, want[key])
		}
		got[key] = true
	}
	if len(got) != len(want) {
		t.Errorf("%d dimensions, want %d", len(got), len(want))
	}
	for _, limit := range []int{7, 99} {
		checkPages(t, "many", all.all("key"), "key", func(r metering.ListRequest) listOf { return listDaily(t, tbl, r) }, metering.GroupFilter{}, limit)
	}
}

// A transaction has room for 16 of them.
func TestDaily_StepHasAtMost16Items(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	for i := range 2 {
		var records []string
		for j := range 1_700 {
			records = append(records, fmt.Sprintf("d%05d 1", i*500+j))
		}
		h := reportedHour(t, "e1", 9-i, records...)
		items, err := tbl.DailyItems(t.Context(), &reports.Step{Before: h, After: decided(h, reports.Accepted)})
		if err != nil || len(items) != 16 {
			t.Fatalf("%d items, %v", len(items), err)
		}
		accept(t, tbl, h, decided(h, reports.Accepted))
	}
	twice := 0
	r := listRequest(metering.GroupFilter{})
	for n := 0; ; {
		page := listDaily(t, tbl, r)
		for _, o := range page.objects {
			if n++; fmt.Sprint(o["quantity"]) == "2" {
				twice++
			}
		}
		if r.Offset = page.page.NextOffset; r.Offset == 0 {
			if n != 2_200 || twice != 1_200 {
				t.Errorf("%d dimensions, %d of both hours", n, twice)
			}
			return
		}
	}
}

func TestDaily_ListIsFilteredAndPaged(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	var all []string
	for i := range 12 {
		h := reportedHour(t, metering.EntitlementID(fmt.Sprintf("e%d", i%3)), 24*(i/3), "a 1", "b 2", "c 3")
		h.Sealed.Buyer = metering.BuyerID(fmt.Sprintf("b%d", i%2))
		accept(t, tbl, h, decided(h, reports.Accepted))
	}
	all = dailyOf(listDaily(t, tbl, listRequest(metering.GroupFilter{})))
	if len(all) != 36 || !slices.IsSortedFunc(all, func(a, b string) int { return strings.Compare(b[:10], a[:10]) }) {
		t.Fatalf("%q", all)
	}
	for _, f := range []metering.GroupFilter{
		{},
		{EntitlementID: "e1"},
		{BuyerID: "b1"},
		{BuyerID: "b0", EntitlementID: "e2"},
		{EntitlementID: "none"},
		{StartDate: "2026-02-27", EndDate: "2026-02-28"},
	} {
		got := listDaily(t, tbl, listRequest(f))
		var want []string
		for _, spelled := range all {
			day, entitlement := spelled[:10], spelled[11:13]
			i := int(metering.DayOf(now)[9]-day[9])*3 + int(entitlement[1]-'0')
			if day < "2026-03" {
				i = (1+int('8'-day[9]))*3 + int(entitlement[1]-'0')
			}
			if (f.EntitlementID == "" || string(f.EntitlementID) == entitlement) && (f.BuyerID == "" || string(f.BuyerID) == fmt.Sprintf("b%d", i%2)) &&
				(f.StartDate == "" || string(f.StartDate) <= day && day <= string(f.EndDate)) {
				want = append(want, spelled)
			}
		}
		if !slices.Equal(dailyOf(got), want) {
			t.Errorf("%+v: %q, want %q", f, dailyOf(got), want)
		}
		var keys []string
		for _, spelled := range want {
			keys = append(keys, strings.Fields(spelled)[2])
		}
		for _, limit := range []int{1, 2, 5} {
			checkPages(t, fmt.Sprint(f), keys, "key", func(r metering.ListRequest) listOf { return listDaily(t, tbl, r) }, f, limit)
		}
	}
}

func TestDaily_RareFilterComesToItsEnd(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	tbl := table.New(client, name)
	for i := range 12 {
		h := reportedHour(t, "common", 24*i, "a 1")
		accept(t, tbl, h, decided(h, reports.Accepted))
	}
	rare := reportedHour(t, "rare", 24*12, "a 1", "b 1")
	accept(t, tbl, rare, decided(rare, reports.Accepted))
	slow := table.New(tabletest.NewClient(tabletest.ShortPages(http.DefaultTransport, 1)), name)
	for _, offset := range []int{0, 1} {
		r := listRequest(metering.GroupFilter{EntitlementID: "rare"})
		r.ReadFor, r.Offset = 0, offset
		came := false
		for i := 0; i < 40 && !came; i++ {
			var l listOf
			_, err := slow.DailyRecords(t.Context(), "o1", "AWS", r, nil, l.read)
			if came = err == nil; came {
				if want := []string{"b", "a"}[offset:]; !slices.Equal(l.all("key"), want) || i == 0 {
					t.Errorf("request %d: %v, want %v", i, l.all("key"), want)
				}
			} else {
				wantCode(t, err, metering.Unavailable)
			}
		}
		if !came {
			t.Error("it never came to the records")
		}
	}
}

func TestDaily_SumThatAnotherStepHasChangedFailsTheTransaction(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	first, second := reportedHour(t, "e1", 5, "cpu 1"), reportedHour(t, "e1", 4, "cpu 10")
	for _, want := range []string{"10", "21"} { // the first time, the item does not exist yet
		err := tbl.WriteDaily(t.Context(), &reports.Step{Before: first, After: decided(first, reports.Accepted)}, func() {
			accept(t, tbl, second, decided(second, reports.Accepted))
		})
		cancelled, ok := errors.AsType[*types.TransactionCanceledException](err)
		if !ok || *cancelled.CancellationReasons[0].Code != "ConditionalCheckFailed" {
			t.Fatalf("%v", err)
		}
		if got := listDaily(t, tbl, listRequest(metering.GroupFilter{})).all("quantity"); !slices.Equal(got, []string{want}) {
			t.Errorf("%v, want %s", got, want)
		}
		accept(t, tbl, first, decided(first, reports.Accepted))
	}
}

func TestDaily_StepsAtOnceAddUp(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	var all sync.WaitGroup
	for i := range 8 {
		h := reportedHour(t, "e1", i, "cpu 1", fmt.Sprintf("d%d 1", i))
		all.Go(func() {
			for {
				err := tbl.WriteDaily(t.Context(), &reports.Step{Before: h, After: decided(h, reports.Accepted)}, func() {})
				if err == nil {
					return
				}
				if _, ok := errors.AsType[*types.TransactionCanceledException](err); !ok {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	sum := 0
	for _, o := range listDaily(t, tbl, listRequest(metering.GroupFilter{})).objects {
		n, err := strconv.Atoi(fmt.Sprint(o["quantity"]))
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	if sum != 16 {
		t.Errorf("the sum is %d", sum)
	}
}
