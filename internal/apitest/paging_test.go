package apitest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// later is the API's time in tests that store checkpoints: DynamoDB Local uses the real time, and
// may delete items that expire in 2024.
var later = now.AddDate(75, 0, 0)

// at is a group created that long before later.
func at(id string, before time.Duration, members ...doc) doc {
	return group(id, append([]doc{{"creationTime": milliseconds(later.Add(-before))}}, members...)...)
}

// series are n groups, one minute apart, the newest first.
func series(n int, members func(i int) doc) []doc {
	groups := make([]doc, n)
	for i := range groups {
		groups[i] = at(fmt.Sprintf("g%03d", i), time.Duration(i)*time.Minute, members(i))
	}
	return groups
}

func likeAll(int) doc { return nil }

// reader is a client that reads a list page by page, by nextOffset or as the Link header says.
type reader struct {
	a       *api
	key     auth.Key // empty means the organization's own
	byLink  bool
	path    string
	query   string // of the next page
	ids     []string
	pages   int
	repeats int // number of requests that had to be repeated
	ended   bool
}

func (a *api) reader(org string, parameters url.Values) *reader {
	return &reader{a: a, path: listPath(org), query: parameters.Encode()}
}

var linkForm = regexp.MustCompile(`^<([^<>]*)>; rel="next"$`)

// read requests the next page, with another limit if that is not 0. It repeats a request that timed
// out.
func (r *reader) read(ctx context.Context, limit int) error {
	if limit > 0 {
		r.set("limit", limit)
	}
	for {
		repeat, err := r.try(ctx)
		if err != nil || !repeat {
			return err
		}
		if r.repeats++; r.repeats > 200 {
			return errors.New("200 repeats")
		}
	}
}

func (r *reader) set(parameter string, value int) {
	query, err := url.ParseQuery(r.query)
	if err != nil {
		panic(err)
	}
	query.Set(parameter, strconv.Itoa(value))
	r.query = query.Encode()
}

// try requests the next page once.
func (r *reader) try(ctx context.Context) (repeat bool, err error) {
	send := request{method: "GET", path: r.path, query: r.query}
	if r.key != "" {
		send = send.with(r.key)
	}
	got, wrong, err := r.a.exchange(ctx, send)
	switch {
	case err != nil:
		return false, err
	case len(wrong) > 0:
		return false, errors.New(strings.Join(wrong, "\n"))
	case got.status == http.StatusServiceUnavailable && got.headers.Get("Retry-After") == "1":
		return true, nil
	case got.status != http.StatusOK:
		return false, fmt.Errorf("%s: %d %.300s", r.query, got.status, got.body)
	}
	var page struct {
		NextOffset        int
		UsageRecordGroups []struct{ ID string }
	}
	if err := json.Unmarshal([]byte(got.body), &page); err != nil {
		return false, err
	}
	for _, g := range page.UsageRecordGroups {
		r.ids = append(r.ids, g.ID)
	}
	r.pages++
	link := linkForm.FindStringSubmatch(got.headers.Get("Link"))
	switch {
	case (page.NextOffset != 0) != (link != nil):
		return false, fmt.Errorf("nextOffset is %d and Link %q", page.NextOffset, got.headers.Get("Link"))
	case page.NextOffset == 0:
		r.ended = true
	case page.NextOffset != len(r.ids) || len(page.UsageRecordGroups) == 0:
		return false, fmt.Errorf("nextOffset is %d after %d groups, %d of them on this page", page.NextOffset, len(r.ids), len(page.UsageRecordGroups))
	case r.byLink:
		here, err := url.Parse("https://api.example" + r.path + "?" + r.query)
		if err != nil {
			return false, err
		}
		next, err := here.Parse(link[1])
		if err != nil {
			return false, err
		}
		r.path, r.query = next.EscapedPath(), next.RawQuery
	default:
		r.set("offset", page.NextOffset)
	}
	return false, nil
}

// readAll reads to the end.
func (r *reader) readAll(t testing.TB) []string {
	t.Helper()
	for !r.ended {
		if err := r.read(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
	}
	return r.ids
}

// eachWayInHaste is eachWay with a DynamoDB that reads n groups per response, and lists that are
// read for no longer than that takes.
func eachWayInHaste(t *testing.T, n int, test func(t *testing.T, a *api)) {
	eachWayWith(t, tabletest.ShortPages(tabletest.Watched(t), n), func(a *httpapi.API) { a.ListFor = time.Nanosecond }, test)
}

// A list that began before midnight continues with the days of its first page.
func TestList_ContinuesAcrossMidnight(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		midnight := later.Truncate(24 * time.Hour).Add(24 * time.Hour)
		a.put(t, "acme",
			at("of tomorrow", later.Sub(midnight)), at("today's", time.Hour), at("yesterday's", 24*time.Hour),
			at("30 days old", later.Sub(midnight.AddDate(0, 0, -31))), at("31 days old", later.Sub(midnight.AddDate(0, 0, -31).Add(-time.Millisecond))),
		)
		for _, byLink := range []bool{false, true} {
			a.clock.set(midnight.Add(-time.Millisecond))
			r := a.reader("acme", url.Values{"limit": {"1"}})
			r.key, r.byLink = a.newKey(t, "acme", auth.Read), byLink // another client than that of the day after
			for range 2 {
				if err := r.read(t.Context(), 0); err != nil {
					t.Fatal(err)
				}
			}
			a.clock.set(midnight)
			wantSame(t, []string{"today's", "yesterday's", "30 days old"}, r.readAll(t))
			wantSame(t, []string{"of tomorrow", "today's", "yesterday's"}, idsOf(a.listAll(t, "acme", nil)))
		}
	})
}

// kept returns the items stored between the pages of lists, by their names.
func (a *api) kept(t testing.TB) map[string]doc {
	t.Helper()
	items, err := itemsIn(t.Context(), a.client, a.tableName)
	if err != nil {
		t.Fatal(err)
	}
	kept := map[string]doc{}
	for _, item := range items {
		if strings.Contains(item["PK"].(string), "#PAGE#") {
			kept[item["SK"].(string)] = item
		}
	}
	return kept
}

// A checkpoint is valid for an hour, even if it is stored for longer. After that, an offset is
// counted again, from the nearest valid checkpoint.
func TestList_CheckpointIsValidForAnHour(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.clock.set(later)
		a.put(t, "acme", series(8, likeAll)...)
		wantSame(t, []string{"g000", "g001"}, a.list(t, "acme", url.Values{"limit": {"2"}}).ids())
		a.clock.set(later.Add(30 * time.Minute))
		wantSame(t, []string{"g002", "g003"}, a.list(t, "acme", url.Values{"offset": {"2"}, "limit": {"2"}}).ids())
		a.put(t, "acme", at("new", -time.Second))

		for _, c := range []struct {
			after  time.Duration
			offset string
			first  string
		}{
			{59 * time.Minute, "2", "g002"},
			{59 * time.Minute, "3", "g003"}, // one after the checkpoint
			{time.Hour, "2", "g001"},        // counted, with "new" included
			{time.Hour, "3", "g002"},
			{time.Hour, "4", "g004"}, // from the second page's checkpoint
			{time.Hour, "5", "g005"},
			{90*time.Minute - time.Second, "4", "g004"},
			{90 * time.Minute, "4", "g003"},
			{90 * time.Minute, "5", "g004"},
		} {
			a.clock.set(later.Add(c.after))
			// To the end of the list, so that no checkpoint follows.
			if ids := a.list(t, "acme", url.Values{"offset": {c.offset}}).ids(); ids[0] != c.first {
				t.Errorf("after %v at offset %s: %q, want it to begin with %s", c.after, c.offset, ids, c.first)
			}
		}
		expiries := map[string]any{}
		for name, item := range a.kept(t) {
			expiries[name] = item["expiresAt"]
		}
		unix := func(after time.Duration) json.Number {
			return json.Number(strconv.FormatInt(later.Add(after).Unix(), 10))
		}
		wantSame(t, map[string]any{"0000000002": unix(time.Hour), "0000000004": unix(90 * time.Minute)}, expiries)
	})
}

func TestList_LastCheckpointWins(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.clock.set(later)
		a.put(t, "acme", series(4, likeAll)...)
		for _, next := range []string{"g002", "g001"} { // the second time after one more was created
			query := url.Values{"startDate": {"2099-07-01"}, "endDate": {"2099-08-31"}, "limit": {"2"}}
			a.list(t, "acme", query)
			query.Set("offset", "2")
			wantSame(t, next, a.list(t, "acme", query).ids()[0])
			a.put(t, "acme", at("before "+next, -time.Minute))
		}
	})
}

// If the last request's clock is far behind, its checkpoint is dropped. The client can't be
// notified, but a warning is logged, which discloses nothing of the list.
func TestList_DroppedCheckpointIsLogged(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.put(t, "acme", series(4, likeAll)...)
		for _, c := range []struct {
			ahead time.Duration
			level string
		}{{0, "INFO"}, {-500 * time.Millisecond, "INFO"}, {-1001 * time.Millisecond, "WARN"}} {
			a.clock.set(later.Add(c.ahead))
			a.list(t, "acme", url.Values{"startDate": {"2099-07-01"}, "endDate": {"2099-08-31"}, "limit": {"2"}})
			lines := a.log.all(t)
			line := lines[len(lines)-1]
			warning, warned := line["warning"].(string)
			if line["status"] != 200.0 || line["level"] != c.level || warned != (c.level == "WARN") {
				t.Errorf("%v: %v", c.ahead, line)
			}
			if warned && warning != "the next page begins where a request has it begin that came 501ms later, by the clock of its function" {
				t.Errorf("the warning is %q", warning)
			}
			a.put(t, "acme", at(fmt.Sprint("new", c.ahead), -time.Minute))
		}
	})
}

// asked describes the requests for a list in words.
func asked(t testing.TB, requests []tabletest.Request) (all []string) {
	t.Helper()
	for _, r := range requests {
		var body struct {
			IndexName, Select string
			Key, Item         struct{ SK struct{ S string } }
		}
		if err := json.Unmarshal(r.Body, &body); err != nil {
			t.Fatal(err)
		}
		emptyRange := strings.HasPrefix(body.Key.SK.S+body.Item.SK.S, "AFTER#")
		switch {
		case r.Action == "Query" && body.IndexName == "":
			all = append(all, "find checkpoint")
		case r.Action == "Query" && body.Select == "COUNT":
			all = append(all, "count")
		case r.Action == "Query":
			all = append(all, "read")
		case r.Action == "GetItem" && emptyRange:
			all = append(all, "find empty range")
		case r.Action == "PutItem" && emptyRange:
			all = append(all, "store empty range")
		case r.Action == "PutItem":
			all = append(all, "store checkpoint")
		default:
			all = append(all, r.Action)
		}
	}
	return all
}

// Any page costs what the first page costs, plus the read of its checkpoint.
func TestList_PageCostsWhatTheFirstCosts(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.clock.set(later)
		a.put(t, "acme", series(40, func(i int) doc { return doc{"partner": choose(newDice(uint64(i)), partners)} })...)
		for _, filter := range []url.Values{{}, {"buyerId": {"buyer-1"}}, {"partner": {"AWS"}}, {"metaInfo": {`{"source":"API"}`}}} {
			ask := func(parameter string, value any) (asks []string, got answer) {
				parameters := maps.Clone(filter)
				parameters.Set("limit", "3")
				parameters.Set(parameter, fmt.Sprint(value))
				got = a.get(t, listPath("acme"), parameters.Encode())
				want(t, got, http.StatusOK)
				return asked(t, got.operation), got
			}
			asks, got := ask("offset", 0)
			wantSame(t, []string{"read", "store checkpoint"}, asks)
			asks, _ = ask("offset", 3)
			wantSame(t, []string{"find checkpoint", "read", "store checkpoint"}, asks)
			next, err := url.ParseQuery(strings.Trim(linkForm.FindStringSubmatch(got.headers.Get("Link"))[1], "?"))
			if err != nil {
				t.Fatal(err)
			}
			asks, _ = ask("cursor", next.Get("cursor"))
			wantSame(t, []string{"read"}, asks)
			asks, _ = ask("limit", 1000)
			wantSame(t, []string{"read"}, asks) // no page follows
		}
	})
}

// An offset without a checkpoint is counted from the nearest checkpoint before it. The counted
// groups are not sent, and the count takes no more requests than there are responses up to the
// offset.
func TestList_OffsetWithoutCheckpointIsCounted(t *testing.T) {
	const n, size = 40, 7
	groups := series(n, func(i int) doc {
		d := newDice(uint64(i))
		return doc{"metaInfo": doc{"source": choose(d, []string{"API", "LAGO"}), "billableRecords": []any{doc{"key": choose(d, []string{"a", "b", "c"}), "quantity": 1}}}}
	})
	all := storedIn(t, "acme", groups)
	at := func(a *api, filter url.Values, offset, limit int) answer {
		parameters := maps.Clone(filter)
		parameters.Set("endDate", "2099-07-29")
		parameters.Set("offset", fmt.Sprint(offset))
		parameters.Set("limit", fmt.Sprint(limit))
		got := a.get(t, listPath("acme"), parameters.Encode())
		want(t, got, http.StatusOK)
		return got
	}
	ids := func(got answer) []string {
		ids := []string{}
		for _, g := range parse(t, got.body).(doc)["usageRecordGroups"].([]any) {
			ids = append(ids, g.(doc)["id"].(string))
		}
		return ids
	}
	number := func(asks []string, of string) int {
		return len(slices.DeleteFunc(slices.Clone(asks), func(ask string) bool { return ask != of }))
	}
	eachWayWith(t, tabletest.ShortPages(tabletest.Watched(t), size), func(*httpapi.API) {}, func(t *testing.T, a *api) {
		a.clock.set(later)
		a.put(t, "acme", groups...)
		d := newDice(3)
		for _, filter := range []url.Values{{}, {"status": {"CREATED"}}, {"source": {"LAGO"}}, {"metaInfo": {`{"billableRecords":[{"key":"a"}]}`}}} {
			window := maps.Clone(filter)
			window.Set("endDate", "2099-07-29")
			expected := idsOf(listed(t, all, window))
			// indexOf is the index, among all groups, of the group that follows that many of the
			// list.
			indexOf := func(passed int) int {
				return slices.IndexFunc(groups, func(g doc) bool { return g["id"] == expected[passed-1] })
			}
			for _, offset := range d.Perm(len(expected))[:4] {
				if offset == 0 {
					continue
				}
				// Each with a key that has not read anything.
				got := a.do(t, request{method: "GET", path: listPath("acme"), query: window.Encode() + fmt.Sprintf("&offset=%d", offset)}.with(a.newKey(t, "acme", auth.Read)))
				want(t, got, http.StatusOK)
				wantSame(t, expected[offset:], ids(got))
				counts := indexOf(offset)/size + 1
				if filter.Has("metaInfo") {
					counts = 0 // which only the code can count
				}
				if asks := asked(t, got.operation); number(asks, "count") != counts || number(asks, "find checkpoint") != 1 {
					t.Errorf("%v, offset %d: %q, want %d counts", filter, offset, asks, counts)
				}
			}
			for range 4 { // with the checkpoints that these stored
				offset, limit := d.IntN(len(expected)+1), 1+d.IntN(5)
				got := at(a, filter, offset, limit)
				wantSame(t, expected[offset:min(offset+limit, len(expected))], ids(got))
			}
			for _, offset := range []int{len(expected), len(expected) + 1, 1<<31 - 1} {
				wantSame(t, parse(t, `{"nextOffset": 0, "usageRecordGroups": []}`), parse(t, at(a, filter, offset, 5).body))
			}
		}
	})
}

// failing is a transport on which the requests that fails matches fail.
type failing struct {
	next  http.RoundTripper
	fails atomic.Pointer[func(action, body string) bool]
}

func (f *failing) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	r.Body.Close()
	if err != nil {
		return nil, err
	}
	if fails := f.fails.Load(); fails != nil && (*fails)(tabletest.Action(r), string(body)) {
		return nil, errors.New("fault: the connection was refused")
	}
	r = r.Clone(r.Context())
	r.Body = io.NopCloser(bytes.NewReader(body))
	return f.next.RoundTrip(r)
}

// No page is returned if the checkpoint of the next page can't be stored, or the page's own
// checkpoint can't be read.
func TestList_NoPageWithoutItsCheckpoint(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		query string
		fails func(action, body string) bool
		ids   []string
	}{
		"kept":  {"limit=2&offset=2", func(action, _ string) bool { return action == "PutItem" }, []string{"g002", "g003"}},
		"found": {"limit=9&offset=2", func(action, body string) bool { return action == "Query" && !strings.Contains(body, "IndexName") }, []string{"g002", "g003", "g004"}},
	} {
		for _, way := range ways() {
			t.Run(name+"/"+way, func(t *testing.T) {
				t.Parallel()
				transport := &failing{next: tabletest.Watched(t)}
				a := newAPIOver(t, way, transport)
				a.clock.set(later)
				a.put(t, "acme", series(5, likeAll)...)
				a.list(t, "acme", url.Values{"limit": {"2"}})
				transport.fails.Store(&c.fails)
				got := a.get(t, listPath("acme"), c.query)
				wantError(t, got, http.StatusServiceUnavailable)
				if seconds, err := strconv.Atoi(got.headers.Get("Retry-After")); err != nil || seconds < 1 || got.headers.Get("Link") != "" {
					t.Errorf("%v", got.headers)
				}
				transport.fails.Store(nil)
				got = a.get(t, listPath("acme"), c.query)
				want(t, got, http.StatusOK)
				for _, id := range c.ids {
					if !strings.Contains(got.body, id) {
						t.Errorf("%s is not in %s", id, got.body)
					}
				}
			})
		}
	}
}
