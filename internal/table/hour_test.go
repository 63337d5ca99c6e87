package table_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

var hourTime = time.Date(2026, 6, 15, 10, 0, 0, 0, time.UTC)

var sameHours = cmp.Options{
	cmpopts.EquateEmpty(),
	cmp.Comparer(func(x, y metering.Exact) bool { return x.Cmp(y) == 0 }),
	cmp.Comparer(func(x, y metering.Quantity) bool { return x.String() == y.String() }),
}

// difference is that of two values; empty if they are the same to the last digit. cmp alone takes
// seconds for thousands of records.
func difference(want, got any) string {
	if reflect.DeepEqual(want, got) {
		return ""
	}
	return cmp.Diff(want, got, sameHours)
}

func exact(t testing.TB, text string) metering.Exact {
	t.Helper()
	x, err := metering.ParseExact(text)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// openHour is an hour of an entitlement that was just opened, with one list.
func openHour(entitlement metering.EntitlementID) *reports.Hour {
	h := reports.OpenHour("acme", entitlement, hourTime)
	h.Opened, h.Opener, h.Parts = hourTime.Add(90*time.Minute+123456789), "opener-"+string(entitlement), 1
	return &h
}

// sealedHour is the hour after it was sealed with so many records, each of 1/3.
func sealedHour(t testing.TB, open *reports.Hour, records int) *reports.Hour {
	t.Helper()
	h := *open
	h.State, h.Version = reports.StateSealed, open.Version+1
	h.Sealed = &reports.Sealed{
		From: hourTime, To: hourTime.Add(time.Hour), Partner: "GCP", Buyer: "buyer", Lane: "5f2a", Groups: 3, Config: 7,
		Marketplace:  metering.MarketplaceIDs{UsageReportingID: "u", ServiceName: "s"},
		Destinations: map[string][]string{"metric": {"a", "b"}}, UsedCommit: exact(t, "1/3"),
	}
	for i := range records {
		h.Sealed.Records = append(h.Sealed.Records, reports.Record{
			Dimension: fmt.Sprintf("dimension-%06d", i), Members: exact(t, "4/3"), CarryOut: exact(t, "1/3"), Scale: exact(t, "1"), Quantity: quantity(t, "1"),
		})
	}
	return &h
}

func quantity(t testing.TB, text string) metering.Quantity {
	t.Helper()
	q, err := metering.ParseQuantity(text)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// begun is the hour after an attempt of the record with an index was stored.
func begun(h *reports.Hour, record int, at time.Time, reason string) *reports.Hour {
	after, sealed := *h, *h.Sealed
	sealed.Records = append([]reports.Record(nil), sealed.Records...)
	r := &sealed.Records[record]
	r.Attempts = append(append([]reports.Attempt(nil), r.Attempts...), reports.Attempt{Number: len(r.Attempts) + 1, Time: at, Response: reports.Response{Reason: reason}})
	after.Sealed, after.Version, after.Next = &sealed, h.Version+1, at.Add(time.Minute)
	return &after
}

func settled(h *reports.Hour) *reports.Hour {
	after := *h
	after.State, after.Version, after.Next = reports.StateSettled, h.Version+1, time.Time{}
	return &after
}

func mustOpen(t testing.TB, tbl *table.Table, h *reports.Hour) *reports.Hour {
	t.Helper()
	if err := tbl.Open(t.Context(), h, [][]metering.GroupID{{"g1", "g2"}}); err != nil {
		t.Fatal(err)
	}
	return h
}

func mustWrite(t testing.TB, tbl *table.Table, before, after *reports.Hour) *reports.Hour {
	t.Helper()
	if err := tbl.Write(t.Context(), &reports.Step{Before: before, After: after}); err != nil {
		t.Fatal(err)
	}
	return after
}

func checkHour(t testing.TB, tbl *table.Table, want *reports.Hour) {
	t.Helper()
	h, err := tbl.Hour(t.Context(), want.Place())
	if err != nil {
		t.Fatal(err)
	}
	if diff := difference(want, h); diff != "" {
		t.Fatalf("-want +stored\n%s", diff)
	}
}

// An hour is the same in each state, whatever the number of its records.
func TestHour_IsReadBack(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	places := []reports.Place{openHour("absent").Place()}
	for _, records := range []int{0, 1, 49, 50, 51, 100, 4000, 4001} {
		h := mustOpen(t, tbl, openHour(metering.EntitlementID(fmt.Sprint("e", records))))
		checkHour(t, tbl, h)
		h = mustWrite(t, tbl, h, sealedHour(t, h, records))
		checkHour(t, tbl, h)
		for i := 0; i < records; i += max(1, records-1) {
			h = mustWrite(t, tbl, h, begun(h, i, hourTime.Add(2*time.Hour+time.Duration(i+1)), ""))
			checkHour(t, tbl, h)
		}
		h = mustWrite(t, tbl, h, settled(h))
		checkHour(t, tbl, h)
		places = append(places, h.Place())
	}
	hours, err := tbl.Hours(t.Context(), append(places, places...))
	if err != nil || len(hours) != len(places)-1 {
		t.Fatalf("%d hours, %v", len(hours), err)
	}
	for p, h := range hours {
		if h.Place() != p || h.State != reports.StateSettled {
			t.Errorf("%+v is %+v", p, h.Place())
		}
	}
	if h, err := tbl.Hour(t.Context(), places[0]); h != nil || err != nil {
		t.Errorf("an absent hour is %+v, %v", h, err)
	}
}

func TestHours_ReadsMoreThanABatch(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	var places []reports.Place
	for i := range 120 {
		h := mustOpen(t, tbl, openHour(metering.EntitlementID(fmt.Sprint("e", i))))
		if i%2 == 0 {
			h = mustWrite(t, tbl, h, sealedHour(t, h, i))
		}
		places = append(places, h.Place())
	}
	ctx, requests := tabletest.Record(t.Context())
	hours, err := tbl.Hours(ctx, places)
	if err != nil || len(hours) != len(places) {
		t.Fatalf("%d hours, %v", len(hours), err)
	}
	for i, p := range places {
		if h := hours[p]; i%2 == 0 && len(h.Sealed.Records) != i || i%2 == 1 && h.Sealed != nil {
			t.Errorf("%+v", h)
		}
	}
	if n := len(requests()); n != 5 { // 3 batches, and the other parts of two
		t.Errorf("%d requests", n)
	}
}

// A step writes the parts that it changes, and no other.
func TestWrite_WritesOnlyWhatChanged(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	h := mustOpen(t, tbl, openHour("e"))
	for _, c := range []struct {
		what string
		step func() *reports.Step
		keys []string
	}{
		{"seal", func() *reports.Step {
			return &reports.Step{Before: h, After: sealedHour(t, h, 120), Ledger: &reports.Ledger{Version: 1}}
		}, []string{"HOUR#2026-06-15T10", "LEDGER", "HOUR#2026-06-15T10#RECORDS#000", "HOUR#2026-06-15T10#RECORDS#001", "HOUR#2026-06-15T10#RECORDS#002"}},
		{
			"attempt", func() *reports.Step { return &reports.Step{Before: h, After: begun(h, 50, hourTime, "")} },
			[]string{"HOUR#2026-06-15T10", "HOUR#2026-06-15T10#RECORDS#001"},
		},
		{"response", func() *reports.Step {
			return &reports.Step{Before: h, After: begun(h, 0, hourTime, ""), Calls: []reports.StoredCall{{Status: 200}}}
		}, []string{"HOUR#2026-06-15T10", "HOUR#2026-06-15T10#CALLS#0000000004", "HOUR#2026-06-15T10#RECORDS#000"}},
		{"settle", func() *reports.Step { return &reports.Step{Before: h, After: settled(h)} }, []string{"HOUR#2026-06-15T10"}},
	} {
		step := c.step()
		ctx, requests := tabletest.Record(t.Context())
		if err := tbl.Write(ctx, step); err != nil {
			t.Fatal(err)
		}
		var keys []string
		for _, r := range requests() {
			for i, key := range strings.Split(string(r.Body), `"SK":{"S":"`) {
				if i > 0 {
					key, _, _ = strings.Cut(key, `"`)
					keys = append(keys, key)
				}
			}
		}
		if diff := cmp.Diff(c.keys, keys); diff != "" || len(requests()) != 1 {
			t.Errorf("%s: %d requests\n-want +got\n%s", c.what, len(requests()), diff)
		}
		h = step.After
		checkHour(t, tbl, h)
	}
}

// Texts that an item, or a transaction, can't hold are divided.
func TestWrite_StoresAnySize(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	large := func(kb int) string { return strings.Repeat("ü€😀 reason ", kb<<10/len("ü€😀 reason ")) }
	for _, c := range []struct {
		what             string
		records, reasons int // in KB
		calls, carries   int
	}{
		{"a part over 400 KB", 50, 12, 0, 0},
		{"parts over 4 MB", 700, 6, 0, 0},
		{"over 4,000 dimensions", 5_000, 0, 0, 5_000},
		{"calls over 4 MB", 3, 0, 5, 0},
		{"a ledger over 400 KB", 3, 0, 0, 15_000},
	} {
		h := mustOpen(t, tbl, openHour(metering.EntitlementID(c.what)))
		after := sealedHour(t, h, c.records)
		if c.reasons > 0 {
			for i := range c.records {
				after.Sealed.Records[i].Attempts = []reports.Attempt{{Number: 1, Response: reports.Response{Reason: large(c.reasons)}}}
			}
		}
		step := &reports.Step{Before: h, After: after, Ledger: &reports.Ledger{Version: 1, Carry: map[string]metering.Exact{}}}
		for i := range c.carries {
			step.Ledger.Carry[fmt.Sprintf("a dimension with a name %d", i)] = exact(t, "1/3")
		}
		for range c.calls {
			step.Calls = append(step.Calls, reports.StoredCall{Status: 200, Request: []byte(large(1000))})
		}
		ctx, requests := tabletest.Record(t.Context())
		if err := tbl.Write(ctx, step); err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		for _, r := range requests() {
			if len(r.Body) > 2_500_000 { // DynamoDB allows 4 MB; DynamoDB Local allows more
				t.Errorf("%s: a %s of %d bytes", c.what, r.Action, len(r.Body))
			}
		}
		checkHour(t, tbl, after)
		ledger, err := tbl.Ledger(t.Context(), "acme", h.Entitlement)
		if diff := difference(*step.Ledger, ledger); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", c.what, err, diff)
		}
		calls, err := tbl.Calls(t.Context(), h.Place())
		if diff := difference(step.Calls, calls); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", c.what, err, diff)
		}
		late := *step
		late.After, late.Ledger = begun(after, 0, hourTime, large(400)), &reports.Ledger{Version: 1, Used: exact(t, "1/3")}
		if err := tbl.Write(t.Context(), &late); !errors.Is(err, reports.ErrChanged) {
			t.Errorf("%s: a worker that came late: %v", c.what, err)
		}
		checkHour(t, tbl, after)
		again := mustWrite(t, tbl, after, begun(after, c.records-1, hourTime, large(1)))
		checkHour(t, tbl, again)
	}
}

// A step is written only onto the hour and the ledger that it began with.
func TestWrite_ReportsWhatHasChanged(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	open := openHour("e")
	sealed := sealedHour(t, open, 1)
	if err := tbl.Write(t.Context(), &reports.Step{Before: open, After: sealed}); !errors.Is(err, reports.ErrChanged) {
		t.Errorf("an hour that does not exist: %v", err)
	}
	mustOpen(t, tbl, open)
	if err := tbl.Open(t.Context(), openHour("e"), nil); !errors.Is(err, reports.ErrChanged) {
		t.Errorf("an hour that exists: %v", err)
	}
	ledger := &reports.Ledger{Version: 1, Used: exact(t, "1/3")}
	for what, step := range map[string]*reports.Step{
		"another version": {Before: sealed, After: begun(sealed, 0, hourTime, "")},
		"another ledger":  {Before: open, After: sealed, Ledger: &reports.Ledger{Version: 2}},
	} {
		if err := tbl.Write(t.Context(), step); !errors.Is(err, reports.ErrChanged) {
			t.Errorf("%s: %v", what, err)
		}
		checkHour(t, tbl, open)
	}
	step := &reports.Step{Before: open, After: sealed, Ledger: ledger}
	if err := tbl.Write(t.Context(), step); err != nil {
		t.Fatal(err)
	}
	if err := tbl.Write(t.Context(), step); !errors.Is(err, reports.ErrChanged) {
		t.Errorf("the same step: %v", err)
	}
	if err := tbl.Write(t.Context(), &reports.Step{Before: sealed, After: settled(sealed), Ledger: ledger}); !errors.Is(err, reports.ErrChanged) {
		t.Errorf("a ledger that exists: %v", err)
	}
	checkHour(t, tbl, sealed)
	stored, err := tbl.Ledger(t.Context(), "acme", "e")
	if diff := difference(*ledger, stored); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	if absent, err := tbl.Ledger(t.Context(), "acme", "f"); err != nil || absent.Version != 0 || absent.Carry != nil || absent.Used.Sign() != 0 {
		t.Errorf("a ledger that was never written: %+v, %v", absent, err)
	}
}

// stored returns an item of the entitlement.
func stored(t testing.TB, client *dynamodb.Client, name, entitlement, sk string) map[string]types.AttributeValue {
	t.Helper()
	out, err := client.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: &name, Key: map[string]types.AttributeValue{
		"PK": &types.AttributeValueMemberS{Value: "ORG#acme#BILL#" + entitlement}, "SK": &types.AttributeValueMemberS{Value: sk},
	}})
	if err != nil || out.Item == nil {
		t.Fatalf("%s: %v", sk, err)
	}
	return out.Item
}

func putStored(t testing.TB, client *dynamodb.Client, name string, item map[string]types.AttributeValue) {
	t.Helper()
	if _, err := client.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &name, Item: item}); err != nil {
		t.Fatal(err)
	}
}

// An hour is in byWork until it is SETTLED.
func TestHour_IsInByWork(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	tbl := table.New(client, name)
	check := func(work, due string) {
		t.Helper()
		item := stored(t, client, name, "e%231", "HOUR#2026-06-15T10")
		for attribute, want := range map[string]string{"_work": work, "_due": due} {
			got, _ := item[attribute].(*types.AttributeValueMemberS)
			if want == "" && got != nil || want != "" && (got == nil || got.Value != want) {
				t.Errorf("%s is %v, want %s", attribute, got, want)
			}
		}
		if size := itemSize(t, &types.AttributeValueMemberM{Value: item}); size > 1024 {
			t.Errorf("the hour has %d bytes", size)
		}
	}
	h := mustOpen(t, tbl, openHour("e#1"))
	check("WORK#13", "2026-06-15T10#acme#e%h1#")
	h = mustWrite(t, tbl, h, sealedHour(t, h, 1))
	check("SEND#3", "5f2a#0001-01-01T00:00:00.000Z#2026-06-15T10")
	h = mustWrite(t, tbl, h, begun(h, 0, hourTime.Add(3*time.Hour+time.Millisecond), ""))
	check("SEND#3", "5f2a#2026-06-15T13:01:00.001Z#2026-06-15T10")
	decided := *h
	decided.State, decided.Version, decided.Next = reports.StateDecided, h.Version+1, time.Time{}
	h = mustWrite(t, tbl, h, &decided)
	check("WORK#13", "2026-06-15T10#acme#e%h1#")
	mustWrite(t, tbl, h, settled(h))
	check("", "")
}

// What another version has written is left alone.
func TestHour_OfANewerVersionIsLeftAlone(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	tbl := table.New(client, name)
	const hour, records = "HOUR#2026-06-15T10", "HOUR#2026-06-15T10#RECORDS#000"
	text := func(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }
	number := func(s string) types.AttributeValue { return &types.AttributeValueMemberN{Value: s} }
	for i, c := range []struct {
		sk, attribute string
		value         types.AttributeValue
	}{
		{hour, "shard", text("a")},
		{hour, "state", text("SHARDED")},
		{hour, "state", nil},
		{hour, "form", number("2")},
		{hour, "version", text("a")},
		{hour, "opened", text("yesterday")},
		{hour, "next", text("tomorrow")},
		{hour, "first", nil},
		{hour, "records", number("2")},
		{hour, "records", number("51")},
		{records, "compressed", text("a")},
		{records, "version", text("a")},
		{records, "version", number("1")},
		{records, "version", number("9")},
		{records, "records", nil},
		{records, "records", text(`{"form":2}`)},
		{records, "records", text(`{"form":1,"records":[{"dimension":"a","region":"b"}]}`)},
		{records, "records", text(`{"form":1,"records":[{"dimension":"a"}]}`)},
		{records, "pieces", number("1")},
	} {
		good, bad := openHour(metering.EntitlementID(fmt.Sprint("good", i))), openHour(metering.EntitlementID(fmt.Sprint("bad", i)))
		for _, h := range []*reports.Hour{good, bad} {
			mustOpen(t, tbl, h)
			mustWrite(t, tbl, h, sealedHour(t, h, 1))
		}
		item := stored(t, client, name, string(bad.Entitlement), c.sk)
		if item[c.attribute] = c.value; c.value == nil {
			delete(item, c.attribute)
		}
		putStored(t, client, name, item)
		if h, err := tbl.Hour(t.Context(), bad.Place()); h != nil || !errors.Is(err, reports.ErrNewer) {
			t.Errorf("%s of %s: %+v, %v", c.attribute, c.sk, h, err)
		}
		hours, err := tbl.Hours(t.Context(), []reports.Place{good.Place(), bad.Place()})
		if err != nil || len(hours) != 1 || hours[good.Place()] == nil {
			t.Errorf("%s of %s: %d hours, %v", c.attribute, c.sk, len(hours), err)
		}
	}
}
