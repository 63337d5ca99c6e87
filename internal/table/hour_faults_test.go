package table_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// hourWrite is a write of the workers whose effect can be read.
type hourWrite struct {
	what    string
	prepare func(t *testing.T, tbl *table.Table, h *reports.Hour) // before it
	write   func(ctx context.Context, tbl *table.Table, h *reports.Hour) error
	written func(t *testing.T, tbl *table.Table, h *reports.Hour) bool
	again   error // of a second write, after the first
}

func hourWrites(t *testing.T) []hourWrite {
	step := func(h *reports.Hour, records, kb int) *reports.Step {
		after := sealedHour(t, h, records)
		after.Sealed.Records[records-1].Attempts = []reports.Attempt{{Number: 1, Response: reports.Response{Reason: strings.Repeat("x", kb<<10)}}}
		return &reports.Step{
			Before: h, After: after, Ledger: &reports.Ledger{Version: 1, Used: exact(t, "1/3")}, Calls: []reports.StoredCall{{Status: 200, Request: []byte("{}")}},
		}
	}
	opened := func(t *testing.T, tbl *table.Table, h *reports.Hour) { mustOpen(t, tbl, h) }
	write := func(what string, records, kb int) hourWrite {
		return hourWrite{
			what, opened,
			func(ctx context.Context, tbl *table.Table, h *reports.Hour) error {
				return tbl.Write(ctx, step(h, records, kb))
			},
			func(t *testing.T, tbl *table.Table, h *reports.Hour) bool {
				ledger, err := tbl.Ledger(t.Context(), "acme", h.Entitlement)
				if err != nil {
					t.Fatal(err)
				}
				calls, err := tbl.Calls(t.Context(), h.Place())
				if err != nil {
					t.Fatal(err)
				}
				stored, err := tbl.Hour(t.Context(), h.Place())
				if err != nil {
					t.Fatal(err)
				}
				want := step(h, records, kb)
				if stored.State == reports.StateOpen { // nothing of it
					if difference(h, stored) != "" || ledger.Version != 0 || len(calls) != 0 {
						t.Fatalf("a part was written: %+v, %+v, %d calls", stored, ledger, len(calls))
					}
					return false
				}
				if diff := difference(want.After, stored) + difference(*want.Ledger, ledger) + difference(want.Calls, calls); diff != "" {
					t.Fatal(diff)
				}
				return true
			},
			reports.ErrChanged,
		}
	}
	lists := [][]metering.GroupID{{"g1", "g2"}, manyIDs(3500)}
	sum := &reports.Sum{Members: 1, Absent: manyIDs(2), Totals: map[string]metering.Exact{"a": exact(t, "1/3")}}
	billable := reports.NewBillable()
	billable.Aggregates["m"] = metering.PartialAggregate{Count: 2, UniqueOn: "user", Distinct: hashes(20_000)} // two pieces
	return []hourWrite{
		write("a step", 2, 0),
		write("a step of pieces", 51, 400),
		{
			"open",
			func(*testing.T, *table.Table, *reports.Hour) {},
			func(ctx context.Context, tbl *table.Table, h *reports.Hour) error { return tbl.Open(ctx, h, lists) },
			func(t *testing.T, tbl *table.Table, h *reports.Hour) bool {
				stored, err := tbl.Hour(t.Context(), h.Place())
				if err != nil {
					t.Fatal(err)
				}
				if stored == nil {
					return false
				}
				if diff := difference(h, stored); diff != "" {
					t.Fatal(diff)
				}
				for i, ids := range lists {
					c, err := tbl.Candidates(t.Context(), h, i)
					if diff := difference(reports.Candidates{IDs: ids}, c); err != nil || diff != "" {
						t.Fatalf("%v\n%s", err, diff)
					}
				}
				return true
			},
			reports.ErrChanged,
		},
		{
			"sum", opened,
			func(ctx context.Context, tbl *table.Table, h *reports.Hour) error { return tbl.PutSum(ctx, h, 0, sum) },
			func(t *testing.T, tbl *table.Table, h *reports.Hour) bool {
				c, err := tbl.Candidates(t.Context(), h, 0)
				if err != nil {
					t.Fatal(err)
				}
				if c.Sum == nil {
					return false
				}
				if diff := difference(sum, c.Sum); diff != "" {
					t.Fatal(diff)
				}
				return true
			},
			nil,
		},
		{
			"billable records", opened,
			func(ctx context.Context, tbl *table.Table, h *reports.Hour) error {
				return tbl.PutBillable(ctx, h, 0, billable)
			},
			func(t *testing.T, tbl *table.Table, h *reports.Hour) bool {
				stored, err := tbl.Billable(t.Context(), h, 0)
				if err != nil {
					t.Fatal(err)
				}
				if len(stored.Aggregates) == 0 {
					return false
				}
				if diff := difference(billable, stored); diff != "" {
					t.Fatal(diff)
				}
				return true
			},
			nil,
		},
		{
			"applied lists", opened,
			func(ctx context.Context, tbl *table.Table, h *reports.Hour) error {
				return tbl.PutAppliedLists(ctx, h, 1)
			},
			func(t *testing.T, tbl *table.Table, h *reports.Hour) bool {
				several := *h
				several.Parts = 2
				lists, err := tbl.AppliedLists(t.Context(), &several)
				if err != nil {
					t.Fatal(err)
				}
				return lists == 1
			},
			nil,
		},
		{
			"lease", opened,
			func(ctx context.Context, tbl *table.Table, h *reports.Hour) error {
				leased, err := tbl.Lease(ctx, h.Place(), "mine", now, now.Add(time.Hour))
				if err == nil && !leased {
					err = errors.New("it is not leased")
				}
				return err
			},
			func(t *testing.T, tbl *table.Table, h *reports.Hour) bool { return !isFree(t, tbl, h) },
			nil,
		},
		{
			"end of a lease",
			func(t *testing.T, tbl *table.Table, h *reports.Hour) {
				opened(t, tbl, h)
				leases(t, tbl, h, "mine", now, now.Add(time.Hour))
			},
			func(ctx context.Context, tbl *table.Table, h *reports.Hour) error {
				return tbl.EndLease(ctx, h.Place(), "mine")
			},
			isFree,
			nil,
		},
	}
}

func hashes(n int) map[metering.ValueHash]struct{} {
	all := map[metering.ValueHash]struct{}{}
	for i := range n {
		all[metering.ValueHash{byte(i), byte(i >> 8), byte(i >> 16)}] = struct{}{}
	}
	return all
}

// manyIDs are as large as ids can be: 36 characters of 4 bytes.
func manyIDs(n int) (ids []metering.GroupID) {
	for i := range n {
		ids = append(ids, metering.GroupID(fmt.Sprintf("%06d", i)+strings.Repeat("😀", 30)))
	}
	return ids
}

func faulty(name string, plan tabletest.Plan) (*table.Table, *tabletest.Faults) {
	faults := tabletest.Planned(plan)
	return table.New(tabletest.NewClient(tabletest.Recorded(faults)), name), faults
}

// Each request of each write fails in each way. Then the write has been done, if it says so, and
// else not at all.
func TestHourWrites_SurviveEachFault(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	tbl := table.New(client, name)
	for _, w := range hourWrites(t) {
		t.Run(w.what, func(t *testing.T) {
			t.Parallel()
			n := 0
			fresh := func() *reports.Hour {
				n++
				h := openHour(metering.EntitlementID(fmt.Sprint(w.what, n)))
				w.prepare(t, tbl, h)
				return h
			}
			counted, faults := faulty(name, func(int, *http.Request) tabletest.Fault { return nil })
			if err := w.write(t.Context(), counted, fresh()); err != nil {
				t.Fatal(err)
			}
			for _, kind := range tabletest.Kinds {
				for at := range faults.Tries() {
					h := fresh()
					through, _ := faulty(name, func(try int, r *http.Request) tabletest.Fault {
						if try == at {
							return kind.Of(r)
						}
						return nil
					})
					err := w.write(t.Context(), through, h)
					what := fmt.Sprintf("%s: request %d %s", w.what, at, kind.Name)
					written := w.written(t, tbl, h)
					switch {
					case err == nil && !written, err != nil && written:
						t.Errorf("%s: %v, written: %v", what, err, written)
					case metering.CodeOf(err) == metering.Unavailable && kind.Name == "in a throttled transaction":
					case err != nil:
						t.Errorf("%s: %v", what, err)
					}
					if err != nil && w.what == "open" {
						continue // an opener opens once
					}
					if err != nil {
						if err := w.write(t.Context(), tbl, h); err != nil || !w.written(t, tbl, h) {
							t.Errorf("%s, and once more: %v", what, err)
						}
					}
					if err := w.write(t.Context(), tbl, h); !errors.Is(err, w.again) || !w.written(t, tbl, h) {
						t.Errorf("%s, and again: %v", what, err)
					}
				}
			}
		})
	}
}

func leases(t *testing.T, tbl *table.Table, h *reports.Hour, holder string, now, until time.Time) bool {
	t.Helper()
	leased, err := tbl.Lease(t.Context(), h.Place(), holder, now, until)
	if err != nil {
		t.Fatal(err)
	}
	return leased
}

// isFree reports whether another holder may lease the hour, by a lease that ends at once.
func isFree(t *testing.T, tbl *table.Table, h *reports.Hour) bool {
	t.Helper()
	return leases(t, tbl, h, "another", now, now)
}

// An hour is leased to one holder, until that ends it or its time is over.
func TestLease_IsOfOneHolder(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	h, other := openHour("e"), openHour("another entitlement")
	steps := []struct {
		what, holder string
		of           *reports.Hour
		at           time.Time
		want         bool
	}{
		{"the first", "mine", h, now, true},
		{"another holder", "yours", h, now, false},
		{"the same holder", "mine", h, now.Add(time.Minute), true},
		{"before the end of the second", "yours", h, now.Add(time.Minute + time.Hour - time.Millisecond), false},
		{"another hour", "yours", other, now, true},
		{"at its end", "yours", h, now.Add(time.Minute + time.Hour), true},
		{"the first holder after it", "mine", h, now.Add(time.Minute + time.Hour), false},
	}
	for _, s := range steps {
		if got := leases(t, tbl, s.of, s.holder, s.at, s.at.Add(time.Hour)); got != s.want {
			t.Errorf("%s: %t, want %t", s.what, got, s.want)
		}
	}
	for _, holder := range []string{"mine", "nobody", "yours"} {
		if err := tbl.EndLease(t.Context(), other.Place(), holder); err != nil {
			t.Fatal(err)
		}
		if got, want := isFree(t, tbl, other), holder == "yours"; got != want {
			t.Errorf("after its end by %s: free %t, want %t", holder, got, want)
		}
	}
}

// What is noted of another version, or can't be read, is nothing: all lists are looked at again.
func TestAppliedLists_AreOfOneVersion(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	tbl := table.New(client, name)
	h := openHour("e")
	h.Parts = 3
	wantLists := func(what string, h *reports.Hour, want int) {
		t.Helper()
		if got, err := tbl.AppliedLists(t.Context(), h); err != nil || got != want {
			t.Errorf("%s: %d, want %d; %v", what, got, want, err)
		}
	}
	wantLists("nothing is noted", h, 0)
	if err := tbl.PutAppliedLists(t.Context(), h, 2); err != nil {
		t.Fatal(err)
	}
	wantLists("noted", h, 2)
	after := *h
	after.Version++
	wantLists("another version", &after, 0)
	for what, lists := range map[string]types.AttributeValue{
		"all, of which none is noted": &types.AttributeValueMemberN{Value: "3"}, "less than none": &types.AttributeValueMemberN{Value: "-1"},
		"no integer": &types.AttributeValueMemberN{Value: "1.5"}, "a text": text("1"), "missing": nil,
	} {
		item := stored(t, client, name, "e", "HOUR#2026-06-15T10#APPLIED")
		if delete(item, "lists"); lists != nil {
			item["lists"] = lists
		}
		putStored(t, client, name, item)
		wantLists(what, h, 0)
	}
	if err := tbl.PutAppliedLists(t.Context(), h, 2); err != nil {
		t.Fatal(err)
	}
	wantLists("noted again", h, 2)
	for what, table := range map[string]types.AttributeValue{"a table that was lost": text("another"), "no table": nil} {
		item := stored(t, client, name, "e", "HOUR#2026-06-15T10#APPLIED")
		if delete(item, "tableID"); table != nil {
			item["tableID"] = table
		}
		putStored(t, client, name, item)
		wantLists(what, h, 0)
	}
}

// All attempts of the client are lost, but were applied: the error says Unavailable, and a repeated
// write that another worker was first. What was written stays.
func TestHourWrites_AppliedAndLost(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	tbl := table.New(client, name)
	for i, w := range hourWrites(t) {
		h := openHour(metering.EntitlementID(fmt.Sprint("e", i)))
		w.prepare(t, tbl, h)
		counted, faults := faulty(name, func(int, *http.Request) tabletest.Fault { return nil })
		other := openHour("counted")
		other.Entitlement += metering.EntitlementID(h.Entitlement)
		w.prepare(t, tbl, other)
		if err := w.write(t.Context(), counted, other); err != nil {
			t.Fatal(err)
		}
		lost, _ := faulty(name, func(try int, _ *http.Request) tabletest.Fault {
			if try < faults.Tries()-1 {
				return nil
			}
			return tabletest.Lose
		})
		if err := w.write(t.Context(), lost, h); metering.CodeOf(err) != metering.Unavailable || !w.written(t, tbl, h) {
			t.Errorf("%s: %v", w.what, err)
		}
		if err := w.write(t.Context(), tbl, h); !errors.Is(err, w.again) || !w.written(t, tbl, h) {
			t.Errorf("%s, again: %v", w.what, err)
		}
	}
}

// A write that conflicts with another transaction at each attempt of the client is a change by
// another worker. Nothing of it is written.
func TestHourWrites_ConflictIsAChange(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	tbl := table.New(client, name)
	for i, w := range hourWrites(t) {
		h := openHour(metering.EntitlementID(fmt.Sprint("e", i)))
		w.prepare(t, tbl, h)
		through, _ := faulty(name, func(_ int, r *http.Request) tabletest.Fault {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			for _, part := range []string{`"SK":{"S":"HOUR#2026-06-15T10"}`, "#SUM#", "#BILLABLE#", "#APPLIED", "#LEASE"} {
				if bytes.Contains(body, []byte(part)) {
					return kindNamed("in conflict").Of(r)
				}
			}
			return nil
		})
		err := w.write(t.Context(), through, h)
		if slices.Contains([]string{"sum", "billable records", "applied lists", "lease", "end of a lease"}, w.what) { // they are not of a transaction
			if metering.CodeOf(err) != metering.Unavailable {
				t.Errorf("%s: %v", w.what, err)
			}
		} else if !errors.Is(err, reports.ErrChanged) {
			t.Errorf("%s: %v", w.what, err)
		}
		if w.written(t, tbl, h) {
			t.Errorf("%s was written", w.what)
		}
	}
}

// DynamoDB knows a transaction by its token for ten minutes only. After that, an attempt whose
// first was applied finds its own operation's id in the hour.
func TestWrite_KnowsItsOwnOperation(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	tbl := table.New(client, name)
	h := mustOpen(t, tbl, openHour("e"))
	through, faults := faulty(name, func(try int, r *http.Request) tabletest.Fault {
		if try == 0 {
			return tabletest.Lose
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		token := regexp.MustCompile(`"ClientRequestToken":"[^"]*"`)
		if !token.Match(body) {
			t.Errorf("%s has no token", body)
		}
		body = token.ReplaceAll(body, []byte(`"ClientRequestToken":"another"`))
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		return nil
	})
	step := &reports.Step{Before: h, After: sealedHour(t, h, 1), Ledger: &reports.Ledger{Version: 1}}
	if err := through.Write(t.Context(), step); err != nil || faults.Tries() != 2 {
		t.Errorf("after %d attempts: %v", faults.Tries(), err)
	}
	checkHour(t, tbl, step.After)
}

// A request that arrives after the client has given it up changes nothing of what came later.
func TestHourWrites_LateOnesChangeNothing(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	tbl := table.New(client, name)
	h := mustOpen(t, tbl, openHour("e"))
	h = mustWrite(t, tbl, h, sealedHour(t, h, 1))
	late := &tabletest.Late{}
	through, _ := faulty(name, func(try int, r *http.Request) tabletest.Fault {
		if try == 0 {
			return late.Kind().Of(r)
		}
		return nil
	})
	h = mustWrite(t, through, h, begun(h, 0, hourTime, ""))
	h = mustWrite(t, tbl, h, begun(h, 0, hourTime.Add(time.Minute), ""))
	if held, err := late.Arrive(); held != 1 || err != nil {
		t.Fatalf("%d were held, %v", held, err)
	}
	checkHour(t, tbl, h)
}

// Reads survive each fault that the client retries.
func TestHourReads_SurviveEachFault(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	tbl := table.New(client, name)
	small, large := mustOpen(t, tbl, openHour("small")), mustOpen(t, tbl, openHour("large"))
	small = mustWrite(t, tbl, small, sealedHour(t, small, 2))
	large = mustWrite(t, tbl, large, sealedHour(t, large, 200))
	for _, kind := range tabletest.Kinds {
		for at := range 2 {
			through, _ := faulty(name, func(try int, r *http.Request) tabletest.Fault {
				if try == at {
					return kind.Of(r)
				}
				return nil
			})
			hours, err := through.Hours(t.Context(), []reports.Place{small.Place(), large.Place()})
			if err != nil || len(hours) != 2 {
				t.Fatalf("request %d %s: %d hours, %v", at, kind.Name, len(hours), err)
			}
			if diff := difference(small, hours[small.Place()]) + difference(large, hours[large.Place()]); diff != "" {
				t.Errorf("request %d %s: %s", at, kind.Name, diff)
			}
			for what, read := range map[string]func() error{
				"a ledger":         func() error { _, err := through.Ledger(t.Context(), "acme", "small"); return err },
				"candidates":       func() error { _, err := through.Candidates(t.Context(), small, 0); return err },
				"billable records": func() error { _, err := through.Billable(t.Context(), small, 0); return err },
				"calls":            func() error { _, err := through.Calls(t.Context(), small.Place()); return err },
			} {
				if err := read(); err != nil {
					t.Errorf("%s, request %d %s: %v", what, at, kind.Name, err)
				}
			}
		}
	}
}

// An hour that is written while it is read is read again: no part is of another version than the
// hour. The write comes before each of the requests of the read, and before the second half of it.
func TestHour_IsReadAtOneVersion(t *testing.T) {
	t.Parallel()
	for _, records := range []int{1, 120} {
		for at := range 2 {
			for _, record := range []int{0, records - 1} {
				for _, half := range []bool{false, true} {
					client, name := tabletest.Client(t)
					tbl := table.New(client, name)
					h := mustOpen(t, tbl, openHour("e"))
					h = mustWrite(t, tbl, h, sealedHour(t, h, records))
					through, _ := faulty(name, func(try int, r *http.Request) tabletest.Fault {
						if try != at {
							return nil
						}
						var some tabletest.Fault
						if half {
							some = kindNamed("done in part").Of(r)
						}
						if some == nil {
							some = tabletest.Pass
						}
						return func(send func() (*http.Response, error)) (*http.Response, error) {
							var response *http.Response
							var err error
							if half {
								response, err = some(send)
							}
							h = mustWrite(t, tbl, h, begun(h, record, hourTime, "written meanwhile"))
							if !half {
								response, err = some(send)
							}
							return response, err
						}
					})
					read, err := through.Hour(t.Context(), h.Place())
					if err != nil {
						t.Fatal(err)
					}
					sameVersion := read.Version == h.Version || read.Version == h.Version-1
					attempts := len(read.Sealed.Records[record].Attempts)
					if !sameVersion || attempts != read.Version-2 {
						t.Errorf("%d records, request %d, record %d, half %v: version %d with %d attempts", records, at, record, half, read.Version, attempts)
					}
				}
			}
		}
	}
}

// An hour that is written each time while it is read is read until it is not.
func TestHour_IsReadWhileItChanges(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	tbl := table.New(client, name)
	h := mustOpen(t, tbl, openHour("e"))
	h = mustWrite(t, tbl, h, sealedHour(t, h, 1))
	const writes = 10
	through, _ := faulty(name, func(_ int, r *http.Request) tabletest.Fault {
		if h.Version == 2+writes {
			return nil
		}
		half := kindNamed("done in part").Of(r)
		if half == nil {
			return nil
		}
		return func(send func() (*http.Response, error)) (*http.Response, error) {
			response, err := half(send)
			h = mustWrite(t, tbl, h, begun(h, 0, hourTime, ""))
			return response, err
		}
	})
	read, err := through.Hour(t.Context(), h.Place())
	if diff := difference(h, read); err != nil || diff != "" || h.Version != 2+writes {
		t.Errorf("version %d: %v\n%s", h.Version, err, diff)
	}
}

func kindNamed(name string) tabletest.Kind {
	return tabletest.Kinds[slices.IndexFunc(tabletest.Kinds, func(k tabletest.Kind) bool { return k.Name == name })]
}

// Of workers that write at once, one is first each time, and no attempt is lost.
func TestWrite_OneWorkerIsFirst(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	h := mustOpen(t, tbl, openHour("e"))
	h = mustWrite(t, tbl, h, sealedHour(t, h, 60))
	const workers, steps = 4, 10
	var wg sync.WaitGroup
	for worker := range workers {
		wg.Go(func() {
			for written := 0; written < steps; {
				now, err := tbl.Hour(t.Context(), h.Place())
				if err != nil {
					t.Error(err)
					return
				}
				switch err := tbl.Write(t.Context(), &reports.Step{Before: now, After: begun(now, worker*15, hourTime, "")}); {
				case err == nil:
					written++
				case !errors.Is(err, reports.ErrChanged):
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	h, err := tbl.Hour(t.Context(), h.Place())
	if err != nil || h.Version != 2+workers*steps {
		t.Fatalf("%+v, %v", h, err)
	}
	for worker := range workers {
		if n := len(h.Sealed.Records[worker*15].Attempts); n != steps {
			t.Errorf("worker %d has %d attempts", worker, n)
		}
	}
}

// The lists of an hour are those of its opener, also if others open it.
func TestOpen_OneOpenerIsFirst(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	tbl := table.New(client, name)
	const openers = 5
	errs := make([]error, openers)
	var wg sync.WaitGroup
	for i := range openers {
		wg.Go(func() {
			h := openHour("e")
			h.Opener = fmt.Sprint("opener ", i)
			errs[i] = tbl.Open(t.Context(), h, [][]metering.GroupID{{metering.GroupID(h.Opener)}})
		})
	}
	wg.Wait()
	h, err := tbl.Hour(t.Context(), openHour("e").Place())
	if err != nil || h == nil {
		t.Fatalf("%+v, %v", h, err)
	}
	c, err := tbl.Candidates(t.Context(), h, 0)
	if err != nil || len(c.IDs) != 1 || string(c.IDs[0]) != h.Opener || c.Sum != nil {
		t.Errorf("%+v, %v", c, err)
	}
	for i, err := range errs {
		if first := h.Opener == fmt.Sprint("opener ", i); first && err != nil || !first && !errors.Is(err, reports.ErrChanged) {
			t.Errorf("opener %d: %v", i, err)
		}
	}
	again := openHour("e2")
	again.Opener = "a"
	mustOpen(t, tbl, again)
	if err := tbl.Open(t.Context(), again, [][]metering.GroupID{{"another"}}); !errors.Is(err, reports.ErrChanged) {
		t.Errorf("the same opener: %v", err)
	}
	if c, err := tbl.Candidates(t.Context(), again, 0); err != nil || len(c.IDs) != 2 {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestCandidates_UnreadableOnesAreNewer(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	tbl := table.New(client, name)
	h := mustOpen(t, tbl, openHour("e"))
	if _, err := tbl.Candidates(t.Context(), h, 1); !errors.Is(err, reports.ErrNewer) {
		t.Errorf("a list that is missing: %v", err)
	}
	text := func(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }
	step := &reports.Step{Before: h, After: sealedHour(t, h, 1), Ledger: &reports.Ledger{Version: 1}, Calls: []reports.StoredCall{{Status: 200}}}
	if err := tbl.Write(t.Context(), step); err != nil {
		t.Fatal(err)
	}
	for _, members := range []int{2, 1} { // of a worker that came late
		if err := tbl.PutSum(t.Context(), h, 0, &reports.Sum{Members: members}); err != nil {
			t.Fatal(err)
		}
	}
	if c, err := tbl.Candidates(t.Context(), h, 0); err != nil || c.Sum == nil || c.Sum.Members != 2 {
		t.Errorf("the first sum does not stay: %+v, %v", c.Sum, err)
	}
	for _, records := range []string{"1", "2"} { // by terms that could not be read before
		used := reports.NewBillable()
		used.Records["a"] = exact(t, records)
		if err := tbl.PutBillable(t.Context(), h, 0, used); err != nil {
			t.Fatal(err)
		}
	}
	if used, err := tbl.Billable(t.Context(), h, 0); err != nil || used.Records["a"].String() != "2" {
		t.Errorf("the last billable records do not stay: %+v, %v", used, err)
	}
	if used, err := tbl.Billable(t.Context(), h, 1); err != nil || len(used.Records) > 0 {
		t.Errorf("billable records that are not stored: %+v, %v", used, err)
	}
	for _, c := range []struct {
		sk, attribute string
		read          func() error
	}{
		{"HOUR#2026-06-15T10#IDS#opener-e#000", "ids", func() error { _, err := tbl.Candidates(t.Context(), h, 0); return err }},
		{"HOUR#2026-06-15T10#SUM#000", "sum", func() error { _, err := tbl.Candidates(t.Context(), h, 0); return err }},
		{"LEDGER", "ledger", func() error { _, err := tbl.Ledger(t.Context(), "acme", "e"); return err }},
		{"HOUR#2026-06-15T10#CALLS#0000000002", "calls", func() error { _, err := tbl.Calls(t.Context(), h.Place()); return err }},
		{"HOUR#2026-06-15T10#BILLABLE#000", "billable", func() error {
			used, err := tbl.Billable(t.Context(), h, 0)
			if len(used.Records) == 0 && err == nil { // it is made again
				return reports.ErrNewer
			}
			return err
		}},
	} {
		good := stored(t, client, name, "e", c.sk)
		for what, change := range map[string]func(item map[string]types.AttributeValue){
			"another form":      func(item map[string]types.AttributeValue) { item[c.attribute] = text(`{"form":2}`) },
			"another attribute": func(item map[string]types.AttributeValue) { item["new"] = text("a") },
			"no text":           func(item map[string]types.AttributeValue) { delete(item, c.attribute) },
			"pieces that are missing": func(item map[string]types.AttributeValue) {
				delete(item, c.attribute)
				item["pieces"] = &types.AttributeValueMemberN{Value: "2"}
			},
		} {
			bad := map[string]types.AttributeValue{}
			for name, value := range good {
				bad[name] = value
			}
			change(bad)
			putStored(t, client, name, bad)
			if err := c.read(); !errors.Is(err, reports.ErrNewer) {
				t.Errorf("%s, %s: %v", c.sk, what, err)
			}
		}
		putStored(t, client, name, good)
		if err := c.read(); err != nil {
			t.Error(err)
		}
	}
}

// The units that docs/data-model.md promises, for an entitlement of usual size. Transactions are
// left out: DynamoDB Local counts them otherwise than AWS.
func TestHour_Units(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	open := openHour("2f8a4b0e-6c1d-4e57-9a3b-0d1e2f3a4b5c")
	for _, c := range []struct {
		what, want string
		do         func(ctx context.Context) error
	}{
		{"open", "0 read, 3 write", func(ctx context.Context) error { return tbl.Open(ctx, open, [][]metering.GroupID{{"g1"}}) }},
		{"a sum", "0 read, 1 write", func(ctx context.Context) error { return tbl.PutSum(ctx, open, 0, &reports.Sum{}) }},
		{"billable records", "0 read, 1 write", func(ctx context.Context) error { return tbl.PutBillable(ctx, open, 0, reports.NewBillable()) }},
		{"applied lists", "0 read, 1 write", func(ctx context.Context) error { return tbl.PutAppliedLists(ctx, open, 1) }},
		{"applied lists again", "1 read, 0 write", func(ctx context.Context) error { _, err := tbl.AppliedLists(ctx, open); return err }},
		{"a lease", "0 read, 1 write", func(ctx context.Context) error {
			_, err := tbl.Lease(ctx, open.Place(), "mine", now, now.Add(time.Hour))
			return err
		}},
		{"the end of a lease", "0 read, 1 write", func(ctx context.Context) error { return tbl.EndLease(ctx, open.Place(), "mine") }},
		{"billable records again", "1 read, 0 write", func(ctx context.Context) error { _, err := tbl.Billable(ctx, open, 0); return err }},
		{"candidates", "2 read, 0 write", func(ctx context.Context) error { _, err := tbl.Candidates(ctx, open, 0); return err }},
		{"an open hour", "1 read, 0 write", func(ctx context.Context) error { _, err := tbl.Hour(ctx, open.Place()); return err }},
		{"a ledger that was never written", "1 read, 0 write", func(ctx context.Context) error { _, err := tbl.Ledger(ctx, "acme", open.Entitlement); return err }},
		{"an hour", "2 read, 0 write", func(ctx context.Context) error { _, err := tbl.Hour(ctx, open.Place()); return err }},
		{"a ledger", "1 read, 0 write", func(ctx context.Context) error { _, err := tbl.Ledger(ctx, "acme", open.Entitlement); return err }},
	} {
		if c.what == "an hour" {
			if err := tbl.Write(t.Context(), &reports.Step{Before: open, After: sealedHour(t, open, 10), Ledger: &reports.Ledger{Version: 1}}); err != nil {
				t.Fatal(err)
			}
		}
		ctx, consumed := table.CountUnits(t.Context())
		if err := c.do(ctx); err != nil {
			t.Fatal(err)
		}
		read, write := consumed()
		if got := fmt.Sprintf("%g read, %g write", read, write); got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
}
