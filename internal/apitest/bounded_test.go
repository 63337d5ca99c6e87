package apitest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// rare are n groups. Those at the given indexes are of LAGO, also in one of their records; the rest
// are not.
func rare(n int, places ...int) []doc {
	return series(n, func(i int) doc {
		source := "API"
		if slices.Contains(places, i) {
			source = "LAGO"
		}
		return doc{"metaInfo": doc{"source": source, "billableRecords": []any{doc{"key": "of " + source, "quantity": 1}}}}
	})
}

// Lists with few matches: one that DynamoDB filters, and one that only the code can filter.
var rareLists = []url.Values{{"source": {"LAGO"}}, {"metaInfo": {`{"billableRecords":[{"key":"of LAGO"}]}`}}}

// A list with few matches is read to its end in short requests, as many as it takes to read all
// groups.
func TestList_FewMatchesAreReadToTheEnd(t *testing.T) {
	const n, size = 32, 8
	eachWayInHaste(t, size, func(t *testing.T, a *api) {
		a.clock.set(later)
		for _, places := range [][]int{{}, {31}, {0, 31}, {3, 4, 17, 30}} {
			org := fmt.Sprint("acme ", places)
			a.put(t, org, rare(n, places...)...)
			ids := []string{}
			for _, place := range places {
				ids = append(ids, fmt.Sprintf("g%03d", place))
			}
			for _, parameters := range rareLists {
				for _, byLink := range []bool{false, true} {
					r := a.reader(org, parameters)
					r.byLink, r.key = byLink, a.newKey(t, org, auth.Read)
					wantSame(t, ids, append([]string{}, r.readAll(t)...))
					if most := n/size + 1 + r.pages; r.repeats+r.pages > most {
						t.Errorf("%v, %v, by link %v: %d requests, of which %d were to be repeated: want no more than %d", places, parameters, byLink, r.pages+r.repeats, r.repeats, most)
					}
				}
				for offset := 1; offset <= len(places); offset++ {
					r := a.reader(org, parameters)
					r.key = a.newKey(t, org, auth.Read)
					r.set("offset", offset)
					r.ids = make([]string, offset) // as if read
					if got := r.readAll(t)[offset:]; !slices.Equal(ids[offset:], got) {
						t.Errorf("%v, %v from offset %d: %q", places, parameters, offset, got)
					}
					if most := n/size + 1 + offset + r.pages; r.repeats+r.pages > most {
						t.Errorf("%v, %v from offset %d: %d repeats and %d pages: want no more than %d", places, parameters, offset, r.repeats, r.pages, most)
					}
				}
			}
		}
	})
}

// Reaching a far offset takes several requests, each of which continues at the end of the previous
// one.
func TestList_FarOffsetIsReached(t *testing.T) {
	eachWayInHaste(t, 5, func(t *testing.T, a *api) {
		a.clock.set(later)
		a.put(t, "acme", series(33, likeAll)...)
		for offset, most := range map[int]int{1: 1, 5: 1, 12: 3, 31: 7, 33: 7, 40: 7} {
			r := a.reader("acme", url.Values{"limit": {"1"}})
			r.key = a.newKey(t, "acme", auth.Read)
			r.set("offset", offset)
			r.ids = make([]string, offset)
			if err := r.read(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
			if offset < 33 && r.ids[offset] != fmt.Sprintf("g%03d", offset) || r.repeats > most {
				t.Errorf("offset %d: %q after %d repeats, want no more than %d", offset, r.ids[offset:], r.repeats, most)
			}
		}
	})
}

// hasty requests once a list whose time is always over, and wants that status.
func (a *api) hasty(t testing.TB, parameters url.Values, status int) answer {
	t.Helper()
	got := a.get(t, listPath("acme"), parameters.Encode())
	want(t, got, status)
	if status == http.StatusServiceUnavailable {
		wantError(t, got, status, "repeat the request")
		if got.headers.Get("Retry-After") != "1" || got.headers.Get("Link") != "" {
			t.Errorf("%v", got.headers)
		}
	}
	return got
}

// startsOf are the groups after which the reads of a request began.
func startsOf(t testing.TB, requests []tabletest.Request) (starts []string) {
	t.Helper()
	for _, r := range requests {
		var body struct {
			IndexName         string
			ExclusiveStartKey struct{ SK struct{ S string } }
		}
		if err := json.Unmarshal(r.Body, &body); err != nil {
			t.Fatal(err)
		}
		if r.Action == "Query" && body.IndexName != "" {
			starts = append(starts, strings.TrimPrefix(body.ExclusiveStartKey.SK.S, "GROUP#"))
		}
	}
	return starts
}

// A range without matches is stored for 5 minutes: a request that is repeated reads what is newer,
// and continues after the range.
func TestList_RepeatContinues(t *testing.T) {
	eachWayInHaste(t, 5, func(t *testing.T, a *api) {
		a.clock.set(later)
		a.put(t, "acme", rare(40, 39)...)
		list := rareLists[0]
		got := a.hasty(t, list, http.StatusServiceUnavailable)
		wantSame(t, []string{"read", "find empty range", "store empty range"}, asked(t, got.operation))
		got = a.hasty(t, list, http.StatusServiceUnavailable)
		wantSame(t, []string{"read", "find empty range", "read", "store empty range"}, asked(t, got.operation))
		wantSame(t, []string{"", "g004"}, startsOf(t, got.operation))
		got = a.hasty(t, list, http.StatusServiceUnavailable)
		wantSame(t, []string{"", "g009"}, startsOf(t, got.operation))

		// Newer groups are all read, even if that takes more than one response.
		for i := range 7 {
			a.put(t, "acme", at(fmt.Sprint("new", i), -time.Duration(i+1)*time.Second))
		}
		got = a.hasty(t, list, http.StatusServiceUnavailable)
		wantSame(t, []string{"", "new2", "g002", "g014"}, startsOf(t, got.operation))
		expiry := json.Number(fmt.Sprint(later.Add(time.Minute).Unix()))
		wantSame(t, any(expiry), a.kept(t)["AFTER#"]["expiresAt"])

		a.clock.set(later.Add(time.Minute - time.Second))
		got = a.hasty(t, list, http.StatusServiceUnavailable)
		wantSame(t, []string{"", "g019"}, startsOf(t, got.operation))
		a.clock.set(later.Add(2 * time.Minute)) // this one was stored again for a minute
		got = a.hasty(t, list, http.StatusServiceUnavailable)
		wantSame(t, []string{""}, startsOf(t, got.operation))
	})
}

// A group that is created while a request is repeated is in the list.
func TestList_GroupCreatedBetweenRepeatsIsListed(t *testing.T) {
	eachWayInHaste(t, 5, func(t *testing.T, a *api) {
		a.clock.set(later)
		a.put(t, "acme", rare(40, 39)...)
		for _, parameters := range rareLists {
			for range 3 {
				a.hasty(t, parameters, http.StatusServiceUnavailable)
			}
		}
		for i := range 2 {
			g := rare(1, 0)[0]
			g["id"], g["creationTime"] = fmt.Sprint("new", i), milliseconds(later.Add(time.Duration(i+1)*time.Second))
			a.put(t, "acme", g)
		}
		for i := range 7 { // which fill the first response
			a.put(t, "acme", at(fmt.Sprint("plain", i), -time.Minute))
		}
		for _, parameters := range rareLists {
			wantSame(t, []string{"new1", "new0", "g039"}, a.reader("acme", parameters).readAll(t))
		}
	})
}

// A client that lists again, after a list has come to its end, sees changes in the ranges that were
// empty then.
func TestList_NewListReadsEmptyRangesAgain(t *testing.T) {
	for name, c := range map[string]struct {
		matching []int
		offset   int
		byLink   bool
	}{
		"from the beginning": {[]int{28}, 0, false},
		"from a checkpoint":  {[]int{0, 28}, 0, false},
		"from a cursor":      {[]int{0, 28}, 0, true},
		"from a far offset":  {[]int{12, 20, 28}, 2, false},
	} {
		t.Run(name, func(t *testing.T) {
			eachWayInHaste(t, 5, func(t *testing.T, a *api) {
				a.clock.set(later)
				a.put(t, "acme", series(30, func(i int) doc {
					if slices.Contains(c.matching, i) {
						return doc{"status": "DELETED"}
					}
					return nil
				})...)
				read := func(offset int) []string {
					r := a.reader("acme", url.Values{"buyerId": {"buyer-1"}, "status": {"DELETED"}})
					r.byLink = c.byLink
					if offset > 0 {
						r.set("offset", offset)
						r.ids = make([]string, offset)
					}
					return r.readAll(t)[offset:]
				}
				ids := []string{}
				for _, i := range c.matching {
					ids = append(ids, fmt.Sprintf("g%03d", i))
				}
				wantSame(t, ids[c.offset:], read(c.offset))
				for _, id := range []string{"g024", "g013", "g007"} {
					want(t, a.delete(t, "acme", id, ""), http.StatusOK)
					ids = slices.Sorted(slices.Values(append(ids, id)))
					wantSame(t, ids, read(0))
				}
			})
		})
	}
}

// An attempt that can't read how far an earlier one came does not store a shorter range.
func TestList_EarlierAttemptIsNotShortened(t *testing.T) {
	t.Parallel()
	transport := &failing{next: tabletest.ShortPages(tabletest.Watched(t), 5)}
	a := newAPIOver(t, "lambda", transport, func(a *httpapi.API) { a.ListFor = time.Nanosecond })
	a.clock.set(later)
	a.put(t, "acme", rare(40, 39)...)
	query := rareLists[0].Encode()
	for range 4 {
		want(t, a.get(t, listPath("acme"), query), http.StatusServiceUnavailable)
	}
	before := a.kept(t)
	unreadable := func(action, body string) bool { return action == "GetItem" && strings.Contains(body, "AFTER#") }
	transport.fails.Store(&unreadable)
	want(t, a.get(t, listPath("acme"), query), http.StatusServiceUnavailable)
	wantSame(t, before, a.kept(t))
}

// stuck is a transport on which queries of groups fail, or never return, after that many responses.
type stuck struct {
	next  http.RoundTripper
	left  atomic.Int64
	waits bool
}

func (s *stuck) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Header.Get("X-Amz-Target") == "DynamoDB_20120810.Query" && s.left.Add(-1) < 0 {
		if !s.waits {
			return nil, errors.New("fault: nothing answers")
		}
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	return s.next.RoundTrip(r)
}

// If DynamoDB stops responding to a function, or the function's time runs out while DynamoDB is
// slow, the function responds in time: with what it has found, or with a 503 to continue later from
// there.
func TestList_RespondsInTimeIfDynamoDBDoesNot(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		matching []int
		query    string
		slow     bool
		status   int
		starts   []string // of the next request
	}{
		"out of time":     {[]int{30}, "source=LAGO", true, http.StatusServiceUnavailable, []string{"", "g009", "g014", "g019", "g024", "g029"}},
		"something found": {[]int{3, 30}, "source=LAGO", false, http.StatusOK, []string{"g009", "g014", "g019", "g024", "g029"}},
		"nothing found":   {[]int{30}, "source=LAGO", false, http.StatusServiceUnavailable, []string{"", "g009", "g014", "g019", "g024", "g029"}},
		"still counting":  {[]int{0, 3, 30}, "source=LAGO&offset=2", false, http.StatusServiceUnavailable, []string{"g009", "g014", "g019", "g024", "g029"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			transport := &stuck{next: tabletest.ShortPages(tabletest.Watched(t), 5), waits: c.slow}
			a := newAPIOver(t, "lambda", transport, func(*httpapi.API) {})
			a.clock.set(later)
			a.put(t, "acme", rare(32, c.matching...)...)
			event, err := eventOf(request{method: "GET", path: listPath("acme"), query: c.query}, lambdaContext("acme"))
			if err != nil {
				t.Fatal(err)
			}
			transport.left.Store(2)
			if strings.Contains(c.query, "offset") {
				transport.left.Add(1)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
			defer cancel()
			got, err := a.way.(overLambda).invoke(ctx, event)
			if err != nil || ctx.Err() != nil {
				t.Fatalf("%v, %v", err, ctx.Err())
			}
			want(t, got, c.status)
			if (got.headers.Get("Retry-After") != "") != (c.status == http.StatusServiceUnavailable) {
				t.Errorf("%v", got.headers)
			}

			transport.left.Store(1000)
			if c.status == http.StatusOK {
				next := linked(t, got)
				next.Del("cursor")
				next.Set("offset", "1")
				c.query = next.Encode()
			}
			if event, err = eventOf(request{method: "GET", path: listPath("acme"), query: c.query}, lambdaContext("acme")); err != nil {
				t.Fatal(err)
			}
			if got, err = a.way.(overLambda).invoke(t.Context(), event); err != nil {
				t.Fatal(err)
			}
			want(t, got, http.StatusOK)
			if !strings.Contains(got.body, `"g030"`) || strings.Contains(got.body, `"g003"`) {
				t.Errorf("%.500s", got.body)
			}
			wantSame(t, c.starts, slices.Compact(startsOf(t, got.operation)))
		})
	}
}
