package apitest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"golang.org/x/sync/errgroup"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/seedtest"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// Clients page by offset, each with its own key, and by cursor, all with one key. Meanwhile others
// import and delete, midnight passes, and any request to DynamoDB goes wrong in any way. No group
// is returned twice, none that existed unchanged from the first page to the last is missed, and
// none is returned that does not belong to the list. Each request is served by its own function,
// whose clock is up to a quarter of a second wrong.
func TestList_UnderChangeAndFaults(t *testing.T) {
	t.Parallel()
	seeds, end := seedtest.Random(t), seedtest.Until(6*time.Second)
	client, tableName := tabletest.Client(t)
	total := walks{}
	for round := 0; round < 2 || time.Now().Before(end) && !t.Failed(); round++ {
		c := newCrowd(client, tableName, rand.New(rand.NewPCG(seeds.Uint64(), 0)), round%2 == 1)
		wrong, err := c.run(t.Context(), &total)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range wrong {
			t.Errorf("round %d, in haste: %v: %s", round, c.hasty, w)
		}
	}
	t.Logf("%d walks of %d groups by %d pages, %d times asked again, %d across midnight", total.walks, total.groups, total.pages, total.repeats, total.midnights)
}

type walks struct{ walks, groups, pages, repeats, midnights int }

// crowd is an organization whose groups are created and changed while its lists are read.
type crowd struct {
	faulty *table.Table
	late   tabletest.Late
	hasty  bool // DynamoDB reads few groups per response, and a list is read no longer than for one
	org    string
	began  time.Time
	passed atomic.Bool  // midnight
	waited atomic.Int64 // seconds, by clients after a Retry-After
	count  atomic.Int64
	turns  chan int64 // pages that were read: the more of them, the more changes are made

	mu      sync.Mutex
	random  *rand.Rand
	members map[string]*member
}

// member is a group with the real times of its events, which are zero if an event did not happen.
type member struct {
	created           time.Time         // on the service's clock
	is                map[string]string // by the parameters of a list, but for its status
	coming, came      time.Time         // before the import, and after it
	deleting, deleted time.Time
}

var midnight = time.Date(2099, 7, 30, 0, 0, 0, 0, time.UTC)

func newCrowd(client *dynamodb.Client, tableName string, r *rand.Rand, hasty bool) *crowd {
	c := &crowd{hasty: hasty, org: string(auth.New()), began: time.Now(), random: r, members: map[string]*member{}, turns: make(chan int64, 1000)}
	kinds := append(slices.Clone(tabletest.Kinds), c.late.Kind())
	// Checkpoints that can't be stored: the faults of the next attempts, all of one kind, since
	// with several kinds one attempt might store the checkpoint after all.
	doomed := map[string][]tabletest.Kind{}
	faults := tabletest.Planned(func(_ int, request *http.Request) tabletest.Fault {
		if place := placeIn(request); place != "" {
			if len(doomed[place]) == 0 && c.dice(3) == 0 {
				doomed[place] = slices.Repeat([]tabletest.Kind{kinds[c.dice(len(kinds))]}, 6)
			}
			if all := doomed[place]; len(all) > 0 {
				doomed[place] = all[1:]
				return all[0].Of(request)
			}
		}
		if c.dice(6) > 0 {
			return nil
		}
		return kinds[c.dice(len(kinds))].Of(request)
	})
	var transport http.RoundTripper = faults
	if hasty {
		transport = tabletest.ShortPages(faults, 4)
	}
	c.faulty = table.New(tabletest.NewClient(transport), tableName)
	return c
}

// placeIn is the item in which a request stores a checkpoint; "" if it does something else.
func placeIn(request *http.Request) string {
	var put struct {
		Item struct{ PK, SK struct{ S string } }
	}
	body, err := request.GetBody()
	if err != nil || json.NewDecoder(body).Decode(&put) != nil || !strings.Contains(put.Item.PK.S, "#PAGE#") {
		return ""
	}
	return put.Item.PK.S + put.Item.SK.S
}

func (c *crowd) dice(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.random.IntN(n)
}

// now follows the real time, except that the time before midnight and the waits of clients pass at
// once. It spans less than a minute: no request arrives later than that, and one that did could
// move a page (the table's maxLate).
func (c *crowd) now() time.Time {
	at := midnight.Add(-45 * time.Second)
	if c.passed.Load() {
		at = midnight
	}
	return at.Add(time.Since(c.began)).Add(time.Duration(c.waited.Load()) * time.Second)
}

func (c *crowd) run(ctx context.Context, total *walks) (wrong []string, err error) {
	var before errgroup.Group
	before.SetLimit(8)
	for range 24 {
		before.Go(func() error { return c.bring(ctx) })
	}
	if err := before.Wait(); err != nil {
		return nil, err
	}
	var clients, others errgroup.Group
	shared := string(auth.New())
	var mu sync.Mutex
	for client := range 4 {
		clients.Go(func() error {
			for range 2 {
				w := &walk{crowd: c, key: string(auth.New()), filter: filters[c.dice(len(filters))]}
				if client%2 == 1 {
					w.key, w.byCursor = shared, true
				}
				if err := w.read(ctx); err != nil {
					return fmt.Errorf("%v, by cursor: %v: %w", w.filter, w.byCursor, err)
				}
				mu.Lock()
				wrong = append(wrong, w.wrong()...)
				total.add(w)
				mu.Unlock()
			}
			return nil
		})
	}
	for range 2 {
		others.Go(func() error {
			for page := range c.turns {
				if page == 12 {
					c.passed.Store(true)
				}
				if err := c.change(ctx); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err = clients.Wait()
	close(c.turns)
	return wrong, errors.Join(err, others.Wait())
}

func (total *walks) add(w *walk) {
	total.walks++
	total.groups += len(w.ids)
	total.pages += w.pages
	total.repeats += w.repeats
	if w.days[0][1].Before(midnight) && w.ends.After(midnight) {
		total.midnights++
	}
}

// change imports a group or deletes one, and delivers late requests.
func (c *crowd) change(ctx context.Context) error {
	if c.dice(3) == 0 {
		if _, err := c.late.Arrive(); err != nil {
			return err
		}
	}
	if c.dice(2) == 0 {
		return c.bring(ctx)
	}
	c.mu.Lock()
	ids := slices.Sorted(maps.Keys(c.members))
	id := ids[c.random.IntN(len(ids))]
	m := c.members[id]
	if m.came.IsZero() || !m.deleting.IsZero() {
		c.mu.Unlock()
		return nil
	}
	m.deleting = time.Now()
	c.mu.Unlock()
	err := patiently(func() error {
		_, err := c.faulty.Delete(ctx, metering.OrgID(c.org), metering.GroupID(id), "", c.now())
		if metering.CodeOf(err) == metering.Conflict {
			return nil // by the previous attempt
		}
		return err
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	m.deleted = time.Now()
	return err
}

// bring imports a group with the current time or a past one.
func (c *crowd) bring(ctx context.Context) error {
	c.mu.Lock()
	m := &member{created: c.now(), coming: time.Now(), is: map[string]string{
		"buyerId": fmt.Sprint("b", c.random.IntN(2)), "entitlementId": fmt.Sprint("e", c.random.IntN(2)), "source": []string{"API", "LAGO"}[c.random.IntN(2)],
		"metaInfo": rareRecord[c.random.IntN(3)],
	}}
	const day = 24 * 60 // minutes
	switch c.random.IntN(3) {
	case 1:
		m.created = m.created.Add(-time.Duration(c.random.IntN(30*day)) * time.Minute)
	case 2: // of the days that midnight may remove from a list
		m.created = m.created.Add(-time.Duration(30*day+c.random.IntN(2*day)) * time.Minute)
	}
	m.created = m.created.Truncate(time.Duration(1+c.random.IntN(2)*999) * time.Millisecond) // some with equal times
	id := fmt.Sprintf("g%d-%d", c.random.IntN(10), len(c.members))
	c.members[id] = m
	c.mu.Unlock()
	metaInfo := doc{"source": m.is["source"]}
	if m.is["metaInfo"] != "" {
		metaInfo["billableRecords"] = []any{doc{"key": "rare", "quantity": 1}}
	}
	group, err := decodeGroup(c.org, group(id, doc{
		"buyerID": m.is["buyerId"], "entitlementID": m.is["entitlementId"], "creationTime": metering.FormatTime(m.created), "metaInfo": metaInfo,
	}))
	if err != nil {
		return err
	}
	err = patiently(func() error {
		_, err := c.faulty.Put(ctx, group)
		return err
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	m.came = time.Now()
	return err
}

func patiently(try func() error) error {
	for range 100 {
		if err := try(); metering.CodeOf(err) != metering.Unavailable || err == nil {
			return err
		}
	}
	return errors.New("unavailable 100 times")
}

// filters are the filters of lists: without an index, with each index, with a condition that is
// evaluated beside the index, and with one that only the code evaluates.
var filters = []url.Values{
	{},
	{},
	{"status": {"CREATED"}},
	{"status": {"DELETED"}},
	{"buyerId": {"b1"}},
	{"buyerId": {"b1"}, "status": {"DELETED"}},
	{"entitlementId": {"e1"}},
	{"entitlementId": {"e1"}, "status": {"DELETED"}},
	{"source": {"LAGO"}},
	{"metaInfo": {rareRecord[0]}},
}

// rareRecord is the filter for groups with a rare record, of which one in three has one.
var rareRecord = [3]string{`{"billableRecords":[{"key":"rare"}]}`}

// walk is a client that reads a list from its first page to its last.
type walk struct {
	*crowd
	key      string
	byCursor bool
	filter   url.Values

	ahead       time.Duration // the clock of the function that serves this request
	first       time.Time     // the first request, also if it was to be repeated: it continues what that has read (docs/listing.md)
	began, ends time.Time     // the request of the first response; ends is on the service's clock
	end         time.Time
	days        [2][2]time.Time // of the list, as its first page may have found them: on the service's clock before and after it
	ids         []string
	pages       int
	repeats     int
}

// now is the time by the clock of the function.
func (w *walk) now() time.Time { return w.crowd.now().Add(w.ahead) }

func (w *walk) read(ctx context.Context) error {
	api := &httpapi.API{
		Table: w.faulty, Log: slog.New(slog.DiscardHandler), Now: w.now, CountUnits: table.CountUnits,
		Authenticate: func(*http.Request) (auth.Principal, error) {
			return auth.Principal{Organization: metering.OrgID(w.org), KeyID: w.key, Scopes: auth.Read}, nil
		},
	}
	if w.hasty {
		api.ListFor = time.Nanosecond
	}
	handler := api.Handler()
	query := maps.Clone(w.filter)
	for {
		query.Set("limit", strconv.Itoa(1+w.dice(3)))
		w.ahead = time.Duration(w.dice(500)-250) * time.Millisecond
		asked, since := w.now(), time.Now()
		if w.first.IsZero() {
			w.first = since
		}
		got := httptest.NewRecorder()
		handler.ServeHTTP(got, httptest.NewRequestWithContext(ctx, "GET", "/org/"+w.org+"/usageRecordGroup?"+query.Encode(), nil))
		if got.Code == http.StatusServiceUnavailable && got.Header().Get("Retry-After") == "1" {
			if w.repeats++; w.repeats > 1000 {
				return errors.New("asked again 1000 times")
			}
			w.waited.Add(1)
			continue
		}
		if got.Code != http.StatusOK {
			return fmt.Errorf("%d %s", got.Code, got.Body)
		}
		if w.pages == 0 {
			w.began = since
			w.days = [2][2]time.Time{daysAt(asked), daysAt(w.now())}
		}
		w.pages++
		select {
		case w.turns <- w.count.Add(1):
		default: // the clients that make changes have enough to do
		}
		var page struct {
			NextOffset        int
			UsageRecordGroups []struct{ ID string }
		}
		if err := json.Unmarshal(got.Body.Bytes(), &page); err != nil {
			return err
		}
		for _, g := range page.UsageRecordGroups {
			w.ids = append(w.ids, g.ID)
		}
		switch link := linkForm.FindStringSubmatch(got.Header().Get("Link")); {
		case page.NextOffset == 0 && link == nil:
			w.end, w.ends = time.Now(), w.now()
			return nil
		case page.NextOffset != len(w.ids) || link == nil || len(page.UsageRecordGroups) == 0:
			return fmt.Errorf("after %d groups, %d of them on this page, nextOffset is %d and Link %q", len(w.ids), len(page.UsageRecordGroups), page.NextOffset, link)
		case w.byCursor:
			next, err := url.ParseQuery(link[1][1:])
			if err != nil {
				return err
			}
			query = next
		default:
			query.Set("offset", strconv.Itoa(page.NextOffset))
		}
	}
}

// daysAt are the first and the last instant of a list that begins at that time: today and the 30
// days before.
func daysAt(now time.Time) [2]time.Time {
	today := now.Truncate(24 * time.Hour)
	return [2]time.Time{today.AddDate(0, 0, -30), today.AddDate(0, 0, 1).Add(-time.Millisecond)}
}

// wrong reports the errors of the list.
func (w *walk) wrong() (wrong []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	tell := func(id, what string) {
		wrong = append(wrong, fmt.Sprintf("%s %s: %v; in %v by cursor: %v: %s", id, what, w.members[id], w.filter, w.byCursor, strings.Join(w.ids, " ")))
	}
	for i, id := range w.ids {
		m := w.members[id]
		if m == nil || !w.may(m) {
			tell(id, "is not of the list")
			continue
		}
		if i == 0 {
			continue
		}
		if last := w.ids[i-1]; w.members[last] != nil {
			if order := m.created.Compare(w.members[last].created); order > 0 || order == 0 && id >= last {
				tell(id, "is there twice or out of order")
			}
		}
	}
	for id, m := range w.members {
		if w.must(m) && !slices.Contains(w.ids, id) {
			tell(id, "is missing")
		}
	}
	return wrong
}

// String gives the creation time by the service's clock, and all other times by ours.
func (m *member) String() string {
	if m == nil {
		return "never imported"
	}
	return fmt.Sprintf("created %s, %v, imported %s to %s, deleted %s to %s", metering.FormatTime(m.created), m.is,
		m.coming.Format(time.StampMicro), m.came.Format(time.StampMicro), m.deleting.Format(time.StampMicro), m.deleted.Format(time.StampMicro))
}

// may reports whether the group may have belonged to the list at some time.
func (w *walk) may(m *member) bool {
	created := m.deleted.IsZero() || m.deleted.After(w.began)
	deleted := !m.deleting.IsZero()
	return (w.isIn(m, 0) || w.isIn(m, 1)) && (w.matches(m, "CREATED") && created || w.matches(m, "DELETED") && deleted)
}

// must reports whether the group belonged to the list all the time, unchanged.
func (w *walk) must(m *member) bool {
	there := !m.came.IsZero() && m.came.Before(w.first) && w.isIn(m, 0) && w.isIn(m, 1)
	created := m.deleting.IsZero() || m.deleting.After(w.end)
	deleted := !m.deleted.IsZero() && m.deleted.Before(w.first)
	return there && (w.matches(m, "CREATED") && created || w.matches(m, "DELETED") && deleted)
}

func (w *walk) isIn(m *member, i int) bool {
	return !m.created.Before(w.days[i][0]) && !m.created.After(w.days[i][1])
}

func (w *walk) matches(m *member, status string) bool {
	for parameter := range w.filter {
		wanted := w.filter.Get(parameter)
		if parameter == "limit" || parameter == "offset" || parameter == "cursor" {
			continue
		}
		if parameter == "status" && wanted != status || parameter != "status" && wanted != m.is[parameter] {
			return false
		}
	}
	return true
}

// A checkpoint write that was given up, and arrives when the client has the page from another
// attempt, changes nothing: the next page begins at the end of that page. The client has waited for
// the Retry-After, and the clocks of the two functions differ by no more than is allowed.
func TestList_LateCheckpointMovesNothing(t *testing.T) {
	t.Parallel()
	client, tableName := tabletest.Client(t)
	for _, ahead := range []time.Duration{-499 * time.Millisecond, 0, 499 * time.Millisecond} { // the second function's clock
		t.Run(ahead.String(), func(t *testing.T) {
			t.Parallel()
			var late tabletest.Late
			broken := true
			over := table.New(tabletest.NewClient(tabletest.Planned(func(_ int, request *http.Request) tabletest.Fault {
				if !broken || placeIn(request) == "" {
					return nil
				}
				return late.Kind().Of(request)
			})), tableName)
			w := newWorld(client, tableName)
			page := func(query string, status int) string {
				t.Helper()
				got := w.send(t.Context(), over, listing("limit=2"+query))
				if got.status != status {
					t.Fatalf("%v, want %d", got, status)
				}
				return got.body
			}
			if err := w.prepare(t.Context(), effect{given: dated("g0", "g1", "g2", "g3")}); err != nil {
				t.Fatal(err)
			}
			page("&status=CREATED", http.StatusServiceUnavailable) // its checkpoint would have been after g1
			broken = false
			if _, err := w.table.Delete(t.Context(), metering.OrgID(w.org), "g0", "", w.now()); err != nil {
				t.Fatal(err)
			}
			const retryAfter = time.Second
			w.times = append(w.times, w.now().Add(retryAfter+ahead))
			if got := page("&status=CREATED", http.StatusOK); !strings.Contains(got, `"g2"`) {
				t.Fatalf("the first page is %s", got)
			}
			if came, err := late.Arrive(); err != nil || came == 0 {
				t.Fatalf("%d requests came late, %v", came, err)
			}
			if got := page("&status=CREATED&offset=2", http.StatusOK); strings.Contains(got, `"g2"`) || !strings.Contains(got, `"g3"`) {
				t.Errorf("the second page is %s", got)
			}
		})
	}
}
