package table_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// waiting is a table in which items wait that have no more than their keys.
type waiting struct {
	*testing.T
	client *dynamodb.Client
	name   string
	*table.Table
}

func newWaiting(t *testing.T) *waiting {
	t.Helper()
	client, name := tabletest.Client(t)
	return &waiting{t, client, name, table.New(client, name)}
}

// put stores items with these PK, SK, _work and _due, many at once.
func (w *waiting) put(entries ...[4]string) {
	w.Helper()
	for batch := range slices.Chunk(entries, 25) {
		requests := make([]types.WriteRequest, len(batch))
		for i, e := range batch {
			requests[i].PutRequest = &types.PutRequest{Item: map[string]types.AttributeValue{"PK": text(e[0]), "SK": text(e[1]), "_work": text(e[2]), "_due": text(e[3])}}
		}
		out, err := w.client.BatchWriteItem(w.Context(), &dynamodb.BatchWriteItemInput{RequestItems: map[string][]types.WriteRequest{w.name: requests}})
		if err != nil || len(out.UnprocessedItems) > 0 {
			w.Fatal(out, err)
		}
	}
}

// groups are n groups that wait for a place.
func groups(p reports.Place, n int) [][4]string {
	entries := make([][4]string, n)
	for i := range entries {
		id := fmt.Sprintf("%s-%d-%06d", p.Entitlement, p.Hour.Hour(), i)
		entries[i] = [4]string{table.OrgKey(p.Organization), table.GroupKey(id), table.WorkKey(p), table.DueKey(p, id)}
	}
	return entries
}

func (w *waiting) places(last time.Time) []reports.Place {
	w.Helper()
	return w.placesBetween(time.Time{}, last)
}

func (w *waiting) placesBetween(first, last time.Time) []reports.Place {
	w.Helper()
	var places []reports.Place
	if err := w.EachPlace(w.Context(), first, last, func(p reports.Place) error {
		places = append(places, p)
		return nil
	}); err != nil {
		w.Fatal(err)
	}
	return sorted(places)
}

func sorted(places []reports.Place) []reports.Place {
	slices.SortFunc(places, func(a, b reports.Place) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	return places
}

// Names that are like keys, prefixes of each other, or have what keys escape, are places of their
// own, whatever shard they share.
func TestEachPlace_CallsForEachOnce(t *testing.T) {
	t.Parallel()
	w := newWaiting(t)
	var want, second []reports.Place
	names := []string{"e", "e#", "e$", "e\"", "e%", "e%h", "e1", "e10", "e1#x", "ü", "#", "%p"}
	for _, org := range []string{"o", "o#e", "o$"} {
		for _, entitlement := range names {
			for hour := range 3 {
				p := placeOf(org, entitlement, now.Add(time.Duration(hour)*time.Hour))
				w.put(groups(p, 1+hour)...)
				if hour < 2 {
					want = append(want, p)
				}
				if hour == 1 {
					second = append(second, p)
				}
			}
		}
	}
	wantSame(t, sorted(want), w.places(now.Add(time.Hour)))
	wantSame(t, []reports.Place(nil), w.places(now.Add(-time.Hour)))
	wantSame(t, sorted(second), w.placesBetween(now.Add(time.Hour), now.Add(time.Hour)))
}

// A place with many groups costs a few small pages; the places after it are found.
func TestEachPlace_SkipsTheRestOfAPlace(t *testing.T) {
	t.Parallel()
	w := newWaiting(t)
	var want []reports.Place
	// All in one partition.
	for i, n := range []int{63, 64, 65, 3000, 1, 2000, 1, 128, 128} {
		p := placeOf("o1", "e1", now.Add(time.Duration(i)*time.Hour))
		want = append(want, p)
		w.put(groups(p, n)...)
	}
	ctx, units := table.CountUnits(t.Context())
	var places []reports.Place
	if err := w.EachPlace(ctx, time.Time{}, now.Add(24*time.Hour), func(p reports.Place) error {
		places = append(places, p)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	wantSame(t, sorted(want), sorted(places))
	if read, _ := units(); read > 20 { // all of them are 5,514 entries of 90 bytes: some 60
		t.Errorf("%v read units", read)
	}
}

func TestEachPlace_CallsForHours(t *testing.T) {
	t.Parallel()
	w := newWaiting(t)
	h := placeOf("o#1", "e%1", now)
	both := placeOf("o1", "e1", now)
	for _, p := range []reports.Place{h, both} {
		w.put([4]string{table.BillKey(p), "HOUR#2026-03-01T12", table.WorkKey(p), table.DueKey(p, "")})
	}
	w.put(groups(both, 3)...)
	wantSame(t, sorted([]reports.Place{h, both}), w.places(now))
	ids, err := w.Waiting(t.Context(), both)
	if err != nil {
		t.Fatal(err)
	}
	wantSame(t, []metering.GroupID{"e1-12-000000", "e1-12-000001", "e1-12-000002"}, ids)
}

// unknownWork are entries that no code of this version writes. The last one has a partition that
// nothing reads.
func unknownWork(p reports.Place) [][4]string {
	due, work := table.DueKey(p, "g1"), table.WorkKey(p)
	return [][4]string{
		{"ORG#o1", "GROUP#u1", work, "2026-03-01T12"},
		{"ORG#o1", "GROUP#u2", work, "2026-03-01T12#o1#e1"},
		{"ORG#o1", "GROUP#u3", work, "2026-03-01#o1#e1#u3"},
		{"ORG#o1", "GROUP#u4", work, due},
		{"ORG#o2", "GROUP#g1", work, due},
		{"ORG#o1", "HOUR#2026-03-01T12", work, table.DueKey(p, "")},
		{"ORG#o1", "GROUP#u5", work, "2026-03-01T12#o1#e%x#u5"},
		{"ORG#o1", "GROUP#g1", work + "0", due},
	}
}

func TestEachPlace_LeavesUnknownEntriesAlone(t *testing.T) { // not parallel: it reads the log
	var log bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	defer slog.SetDefault(before)
	w := newWaiting(t)
	p := placeOf("o1", "e1", now)
	unknown := unknownWork(p)
	w.put(unknown...)
	w.put(groups(p, 20)...)
	wantSame(t, []reports.Place{p}, w.places(now))
	if text := log.String(); !strings.Contains(text, fmt.Sprint("entries=", len(unknown)-1)) || strings.Count(text, "\n") != 1 {
		t.Errorf("the log has %s", text)
	}
	log.Reset()
	ids, err := w.Waiting(t.Context(), p)
	if err != nil || len(ids) != 20 || !strings.Contains(log.String(), "entries=3") {
		t.Errorf("%d groups: %v; the log has %s", len(ids), err, &log)
	}
}

func TestEachPlace_EndsWithTheFirstError(t *testing.T) {
	t.Parallel()
	w := newWaiting(t)
	for i := range 40 {
		w.put(groups(placeOf("o1", fmt.Sprint("e", i), now), 1)...)
	}
	failure, calls := errors.New("enough"), 0
	err := w.EachPlace(t.Context(), time.Time{}, now, func(reports.Place) error {
		calls++
		return failure
	})
	if !errors.Is(err, failure) || calls != 1 {
		t.Errorf("%d calls: %v", calls, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantUnavailable(t, w.EachPlace(ctx, time.Time{}, now, func(reports.Place) error { return nil }))
}

// Each request of the index may fail once, or for good.
func TestWork_UnderFaults(t *testing.T) {
	t.Parallel()
	w := newWaiting(t)
	p := placeOf("o1", "e1", now)
	w.put(groups(p, 20)...)
	w.put(send("lane", now, "e1"))
	reads := map[string]func(tbl *table.Table) (int, error){
		"places": func(tbl *table.Table) (n int, err error) {
			return n, tbl.EachPlace(t.Context(), time.Time{}, now, func(reports.Place) error { n++; return nil })
		},
		"sealed": func(tbl *table.Table) (n int, err error) {
			return n, tbl.EachSealed(t.Context(), func(string, time.Time, reports.Place) error { n++; return nil })
		},
		"due": func(tbl *table.Table) (int, error) {
			places, err := due(tbl, "lane", now, 10)
			return len(places), err
		},
		"waiting": func(tbl *table.Table) (int, error) {
			ids, err := tbl.Waiting(t.Context(), p)
			return len(ids), err
		},
	}
	for name, read := range reads {
		want, err := read(w.Table)
		if err != nil || want == 0 {
			t.Fatalf("%s: %d, %v", name, want, err)
		}
		for _, fault := range []tabletest.Fault{tabletest.Lose, tabletest.Throttle, tabletest.Short, tabletest.Flip} {
			client, _ := tabletest.NewFaults(fault, fault)
			if got, err := read(table.New(client, w.name)); err != nil || got != want {
				t.Errorf("%s: %d, %v, want %d", name, got, err, want)
			}
		}
		client, _ := tabletest.NewFaults(slices.Repeat([]tabletest.Fault{tabletest.Throttle}, 1000)...)
		_, err = read(table.New(client, w.name))
		wantUnavailable(t, err)
	}
}

// send is a sealed hour of an entitlement whose next attempt is due at that time.
func send(lane string, next time.Time, entitlement string) [4]string {
	p := placeOf("o1", entitlement, now)
	return [4]string{table.BillKey(p), "HOUR#2026-03-01T12", table.SendKey(lane), table.SendDueKey(lane, next, now)}
}

// laneEntry is what EachSealed has called for.
type laneEntry struct {
	Lane string
	Next time.Time
	reports.Place
}

func TestEachSealed_CallsForEachLaneByLane(t *testing.T) {
	t.Parallel()
	w := newWaiting(t)
	entries := map[string][]laneEntry{}
	put := func(lane string, next time.Time, entitlement string) {
		w.put(send(lane, next, entitlement))
		entries[lane] = append(entries[lane], laneEntry{lane, next, placeOf("o1", entitlement, now)})
	}
	put("a", now, "e1")
	put("a", now.Add(time.Millisecond), "e2")
	put("a#", time.Time{}, "e3") // was never attempted
	put("a#", now, "e4")
	put("b", now.Add(time.Hour), "e5")
	put("c%", now.Add(-time.Hour), "e6")
	for i := range 200 {
		put("many", now.Add(time.Duration(i-100)*time.Second), fmt.Sprintf("m%03d", i))
	}
	_, transport := tabletest.NewFaults()
	short := table.New(tabletest.NewClient(tabletest.ShortPages(transport, 3)), w.name)
	for _, tbl := range []*table.Table{w.Table, short} {
		got := map[string][]laneEntry{}
		last := ""
		if err := tbl.EachSealed(t.Context(), func(lane string, next time.Time, p reports.Place) error {
			if lane != last && got[lane] != nil {
				t.Errorf("lane %s comes twice", lane)
			}
			last = lane
			got[lane] = append(got[lane], laneEntry{lane, next, p})
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		wantSame(t, entries, got)
	}
	failure, calls := errors.New("enough"), 0
	err := w.EachSealed(t.Context(), func(string, time.Time, reports.Place) error { calls++; return failure })
	if !errors.Is(err, failure) || calls != 1 {
		t.Errorf("%d calls: %v", calls, err)
	}
}

func TestDue_HasWhatIsDueOfALane(t *testing.T) {
	t.Parallel()
	w := newWaiting(t)
	w.put(send("a", now, "e1"), send("a#", now, "e2"), send("a", now.Add(time.Millisecond), "e3"), send("a", time.Time{}, "e4"))
	for i := range 200 {
		w.put(send("many", now.Add(time.Duration(i-100)*time.Second), fmt.Sprintf("m%03d", i)))
	}
	places, err := due(w.Table, "a", now, 10)
	if err != nil {
		t.Fatal(err)
	}
	wantSame(t, []reports.Place{placeOf("o1", "e4", now), placeOf("o1", "e1", now)}, places)
	for max, want := range map[int]int{1: 1, 100: 100, 101: 101, 5000: 101} {
		for page, err := range w.Due(t.Context(), "many", now, max) {
			if err != nil || len(page) != want || page[0] != placeOf("o1", "m000", now) {
				t.Errorf("%d of %d: %v", len(page), want, err)
			}
			break
		}
		all, err := due(w.Table, "many", now, max)
		if err != nil || len(all) != 101 || all[100] != placeOf("o1", "m100", now) {
			t.Errorf("pages of %d: %d, %v", max, len(all), err)
		}
	}
	if places, err := due(w.Table, "a#", now.Add(-time.Millisecond), 10); err != nil || len(places) != 0 {
		t.Errorf("%v, %v", places, err)
	}
}

// due returns all pages of Due.
func due(tbl *table.Table, lane string, now time.Time, max int) (places []reports.Place, err error) {
	for page, err := range tbl.Due(context.Background(), lane, now, max) {
		if err != nil {
			return nil, err
		}
		places = append(places, page...)
	}
	return places, nil
}

func TestWaiting_HasAllPages(t *testing.T) {
	t.Parallel()
	w := newWaiting(t)
	p := placeOf("o1", "e1", now)
	w.put(groups(p, 100)...)
	w.put(groups(placeOf("o1", "e10", now), 3)...)
	w.put(groups(placeOf("o1", "e1", now.Add(time.Hour)), 3)...)
	_, transport := tabletest.NewFaults()
	short := tabletest.NewClient(tabletest.ShortPages(transport, 7))
	ids, err := table.New(short, w.name).Waiting(t.Context(), p)
	if err != nil || len(ids) != 100 || !slices.IsSorted(ids) {
		t.Errorf("%d: %v", len(ids), err)
	}
}
