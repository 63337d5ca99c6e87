package reliability

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// For all that clients and operators do, at any time, with any key, and over a network that
// sometimes fails: every response is the model's, and what is stored is what the model holds.
func TestTheServiceIsItsModel(t *testing.T) {
	t.Parallel()
	r := random(t)
	rapidSeed := flag.Lookup("rapid.seed").Value
	given := rapidSeed.String() != "0" // as rapid reports it on a failure
	end := until(16 * time.Second)
	_, tableName := tabletest.Client(t)
	answers := map[string]int{} // by operation and status
	steps, failing := 0, false
	next := slices.Repeat([]string{timePasses}, 2)
	for _, name := range slices.Sorted(maps.Keys(actions)) {
		next = append(next, slices.Repeat([]string{name}, actions[name].odds)...)
	}
	for first := true; first || time.Now().Before(end); first = false {
		if !given {
			if err := rapidSeed.Set(strconv.FormatUint(r.Uint64(), 10)); err != nil {
				t.Fatal(err)
			}
		}
		rapid.Check(t, func(t *rapid.T) {
			if !failing && time.Now().After(end) {
				return
			}
			defer func() { failing = failing || t.Failed() }() // rapid runs on after a failure, to shrink it
			s := serve(t, tableName)
			step := func(t *rapid.T) {
				name := pick(t, "operation", next...)
				if name == timePasses {
					s.timePasses(t)
					return
				}
				answers[fmt.Sprint(name, " ", s.step(t, actions[name]))]++
				steps++
			}
			for range 3 { // rapid's own runs, of some 30 steps, are too short to fill an organization
				t.Repeat(map[string]func(*rapid.T){"step": step})
			}
			s.compareStored(t) // effects of time alone would not be seen before
		})
	}
	t.Logf("%d steps", steps)
	for _, answer := range slices.Sorted(maps.Keys(answers)) {
		t.Logf("%6d %s", answers[answer], answer)
	}
}

const timePasses = "time passes"

// service is the real service, over HTTP, beside its model.
type service struct {
	model   *model
	table   *table.Table
	network *badNetwork
	clock   atomic.Pointer[time.Time]
	url     string
}

// tester is a *testing.T or a *rapid.T.
type tester interface {
	Cleanup(func())
	Context() context.Context
	Fatal(...any)
}

var worlds atomic.Int64 // each has its own organizations

func serve(t tester, tableName string) *service {
	s := &service{network: &badNetwork{}, model: &model{
		// A time that is in the future for DynamoDB Local: it may delete items that have expired by
		// the real time.
		now: time.Date(2099, 7, 29, 15, 51, 28, 71_500_000, time.UTC),
	}}
	s.clock.Store(&s.model.now)
	s.table = table.New(s.network.client(), tableName)
	now := func() time.Time { return *s.clock.Load() }
	log := slog.New(slog.DiscardHandler)
	api := &httpapi.API{
		Table: s.table, Log: log, Now: now, CountUnits: table.CountUnits,
		Authenticate: httpapi.ByKey(&auth.Authenticator{Records: s.table, Log: log, Now: now}),
	}
	server := httptest.NewServer(api.Handler())
	t.Cleanup(server.Close)
	s.url = server.URL

	n := worlds.Add(1)
	for _, name := range []string{"acme %d", "acme#%d ü"} {
		o := newOrganization(fmt.Sprintf(name, n))
		k := s.model.newKey(o, "admin")
		s.model.organizations, s.model.keys = append(s.model.organizations, o), append(s.model.keys, k)
		if err := s.table.AddAPIKey(t.Context(), k.record()); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s *service) timePasses(t *rapid.T) {
	now := s.model.now
	midnight := now.Truncate(24*time.Hour).AddDate(0, 0, 1).Add(now.Sub(now.Truncate(time.Second)))
	s.model.now = pick(t, "now", now.Add(time.Second), now.Add(20*time.Minute), now.Add(59*time.Minute), now.Add(time.Hour),
		midnight.Add(-time.Second), midnight, now.AddDate(0, 0, 1))
	now = s.model.now
	s.clock.Store(&now)
}

// step does one operation on the service and on the model, and returns its status.
func (s *service) step(t *rapid.T, op action) int {
	o := s.model.organizations[max(0, roll(t, "organization", 4)-2)] // mostly the first
	r, rule := op.draw(t, s.model, o)
	if r.key == nil {
		r.key = s.model.drawKey(t, o)
	}
	want := reply{status: http.StatusNotFound}
	if r.operator == nil && op.scopes != "" {
		want.status = s.model.refusal(r.key, o, op.scopes)
	}
	if want.status == 0 || op.scopes == "" {
		want = rule(r.key)
	}

	out := s.network.drawFaults(t)
	got := s.do(t, o, r)
	t.Logf("%s %s?%s %s %s: %d %s, after %d requests to DynamoDB", r.method, r.path, r.query.Encode(), r.headers, r.body, got.status, got.body, s.network.heal())
	if got.status == http.StatusServiceUnavailable && out {
		if r.operator == nil {
			if seconds, err := strconv.Atoi(got.header.Get("Retry-After")); err != nil || seconds < 1 {
				t.Fatalf("a 503 with Retry-After %q", got.header.Get("Retry-After"))
			}
		}
		if want.then != nil && r.method != http.MethodGet {
			s.findOut(t, o, want)
			s.compareStored(t)
			return got.status
		}
		got = s.do(t, o, r) // nothing has changed that the same request won't change
	}
	s.compare(t, o, r, want, got)
	if want.then != nil {
		want.then()
	}
	if s.network.hasWritten() || want.then != nil && r.method != http.MethodGet {
		s.compareStored(t)
	}
	return got.status
}

// compareStored checks that the stored data of every organization is what the model holds,
// whichever organization the step was for.
func (s *service) compareStored(t *rapid.T) {
	for _, o := range s.model.organizations {
		if diff := cmp.Diff(s.model.stored(o), s.stored(t, o)); diff != "" {
			t.Fatalf("what is stored for %s after that: -model +service\n%s", o.name, diff)
		}
	}
}

// findOut reads whether a change that got a 503 has happened. It has happened as a whole or not at
// all.
func (s *service) findOut(t *rapid.T, o *organization, change reply) {
	stored := s.stored(t, o)
	if equal(stored, s.model.stored(o)) {
		return
	}
	change.then()
	if diff := cmp.Diff(s.model.stored(o), stored); diff != "" {
		t.Fatalf("a change that was answered with 503 has happened otherwise: -model +service\n%s", diff)
	}
}

// received is the result of a request. For an operator's request, the status is the one that a
// client would receive.
type received struct {
	status int
	header http.Header
	body   string
}

func (s *service) do(t *rapid.T, o *organization, r request) received {
	if r.operator != nil {
		err := r.operator(t.Context(), s.table)
		status := map[metering.Code]int{metering.Unavailable: 503, metering.NotFound: 404, metering.Invalid: 400}[metering.CodeOf(err)]
		switch {
		case err == nil:
			status = http.StatusOK
		case errors.Is(err, errIsThere):
			status = http.StatusConflict
		case status == 0:
			t.Fatal(err)
		}
		return received{status: status}
	}
	got, err := sendTo(t.Context(), s.url, o.name, r)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// plain follows no redirect.
var plain = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

func sendTo(ctx context.Context, server, organization string, r request) (received, error) {
	request, err := http.NewRequestWithContext(ctx, r.method, server+"/org/"+url.PathEscape(organization)+r.path+"?"+r.query.Encode(), strings.NewReader(r.body))
	if err != nil {
		return received{}, err
	}
	for name, value := range r.headers {
		request.Header.Set(name, value)
	}
	if r.key != nil && r.key.secret != "" {
		request.Header.Set("Authorization", "Key "+string(r.key.secret))
	}
	response, err := plain.Do(request)
	if err != nil {
		return received{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return received{response.StatusCode, response.Header, string(body)}, err
}

func (s *service) compare(t *rapid.T, o *organization, r request, want reply, got received) {
	if got.status != want.status {
		t.Fatalf("status %d, the model says %d", got.status, want.status)
	}
	if r.operator != nil {
		return
	}
	if got.status == http.StatusNotModified {
		if got.body != "" || got.header.Get("Content-Type") != "" {
			t.Fatalf("a 304 has the body %q and the Content-Type %q", got.body, got.header.Get("Content-Type"))
		}
		o.see(t, want.version, got.header.Get("ETag"))
		return
	}
	body := values(got.body)
	if sentence, ok := body.(string); want.body == nil && (!ok || sentence == "" || !strings.Contains(sentence, want.says)) {
		t.Fatalf("it is no sentence with %q", want.says)
	}
	if diff := cmp.Diff(want.body, body); want.body != nil && diff != "" {
		t.Fatalf("-model +service\n%s", diff)
	}
	for name, there := range map[string]bool{
		"Content-Type": true, "ETag": want.status == 200 && strings.HasPrefix(r.path, "/usageMeteringConfigInfo"), "Link": want.next != nil,
		"WWW-Authenticate": want.status == 401, "Allow": want.status == 405, "Retry-After": false,
		"Content-Location": want.status == 200 && (r.method == "PUT" || r.method == "PATCH"), "Accept-Encoding": false,
		"Accept-Patch": want.status == 415 && r.method == "PATCH",
	} {
		if has := got.header.Get(name); (has != "") != there || name == "Content-Type" && has != "application/json; charset=utf-8" {
			t.Fatalf("the header %s is %q", name, has)
		}
	}
	if etag := got.header.Get("ETag"); etag != "" {
		o.see(t, want.version, etag)
	}
	if want.next != nil {
		o.follow(t, r, *want.next, got.header.Get("Link"))
	}
}

var etagForm = regexp.MustCompile(`^"[^"]*"$`)

// see records the ETag of a version: strong, always the same, and different from all others.
func (o *organization) see(t *rapid.T, version int, etag string) {
	if o.etags[version] == "" {
		o.etags[version] = etag
	}
	for v, seen := range o.etags {
		if !etagForm.MatchString(etag) || (seen == etag) != (v == version) {
			t.Fatalf("the ETag of version %d is %s, that of version %d %s", version, etag, v, seen)
		}
	}
}

var linkForm = regexp.MustCompile(`^<\?([^<>]*)>; rel="next"$`)

// follow records the two ways to the next page.
func (o *organization) follow(t *rapid.T, r request, next place, link string) {
	r.query = maps.Clone(r.query)
	byOffset, byCursor := r, r
	parts := linkForm.FindStringSubmatch(link)
	if parts == nil {
		t.Fatalf("Link is %q", link)
	}
	var err error
	if byCursor.query, err = url.ParseQuery(parts[1]); err != nil {
		t.Fatal(err)
	}
	cursor := byCursor.query.Get("cursor")
	r.query.Del("offset")
	r.query.Set("cursor", cursor)
	if cursor == "" || !equal(r.query, byCursor.query) {
		t.Fatalf("Link is %q, for the query %s", link, r.query.Encode())
	}
	o.cursors[cursor] = next
	byOffset.query = maps.Clone(r.query)
	byOffset.query.Del("cursor")
	byOffset.query.Set("offset", strconv.Itoa(next.offset))
	o.next = append(o.next, byOffset, byCursor)
}

// stored reads what model.stored returns.
func (s *service) stored(t *rapid.T, o *organization) object {
	read := func(path string, query url.Values) object {
		k := s.model.keys[slices.Index(s.model.organizations, o)]
		got := s.do(t, o, request{method: "GET", path: path, query: query, key: k})
		if got.status != http.StatusOK {
			t.Fatalf("%s: %d %s", path, got.status, got.body)
		}
		return values(got.body).(object)
	}
	groups := read("/usageRecordGroup", url.Values{"startDate": {"2000-01-01"}, "endDate": {"2199-01-01"}})["usageRecordGroups"].([]any)
	slices.SortFunc(groups, func(a, b any) int { return strings.Compare(a.(object)["id"].(string), b.(object)["id"].(string)) })
	keys := object{}
	records, err := s.table.APIKeys(t.Context(), metering.OrgID(o.name))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		keys[r.Hash.ID()] = fmt.Sprint(r.Scopes, r.CreationTime, r.ExpiryTime, r.RevocationTime, r.ReplacedBy)
	}
	return object{"groups": groups, "config": read("/usageMeteringConfigInfo", nil), "keys": keys}
}

// badNetwork is the network between the SDK and DynamoDB. It fails as planned.
type badNetwork struct {
	mu     sync.Mutex
	faults func() tabletest.Fault // of the next request; nil is none
	tries  int
	wrote  bool // anything other than a checkpoint
}

// plan is tabletest.Plan.
func (n *badNetwork) plan(_ int, r *http.Request) tabletest.Fault {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.tries++
	n.wrote = n.wrote || !isRead(r) && placeIn(r) == ""
	if n.faults == nil {
		return nil
	}
	return n.faults()
}

func (n *badNetwork) fail(faults func() tabletest.Fault) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.faults, n.tries = faults, 0
}

// heal ends the faults and returns the number of requests.
func (n *badNetwork) heal() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.faults = nil
	return n.tries
}

// isRead reports whether a request is known to change nothing.
func isRead(r *http.Request) bool {
	return slices.Contains([]string{"Query", "GetItem", "BatchGetItem"}, tabletest.Action(r))
}

// hasWritten reports whether any request since its last call could have changed what a client or an
// operator reads. Nothing else writes to the organizations of a model: if no request could, the
// data is unchanged since the last comparison.
func (n *badNetwork) hasWritten() (wrote bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	wrote, n.wrote = n.wrote, false
	return wrote
}

// client is a real client that doesn't wait between its attempts, and whose calls share no retry
// budget: the result of a step must depend on that step alone.
func (n *badNetwork) client() *dynamodb.Client {
	options := tabletest.NewClient(tabletest.Planned(n.plan)).Options()
	options.Retryer = eager{options.Retryer.(aws.RetryerV2)}
	return dynamodb.New(options)
}

type eager struct{ aws.RetryerV2 }

func (eager) RetryDelay(int, error) (time.Duration, error) { return 0, nil }

func (eager) GetRetryToken(context.Context, error) (func(error) error, error) {
	return func(error) error { return nil }, nil
}

// drawFaults draws what the network does in a step: mostly nothing; or, after some requests, no
// more faults than the client has retries, which must have no visible effect; or no request gets
// through any more, and out is true.
func (n *badNetwork) drawFaults(t *rapid.T) (out bool) {
	how := roll(t, "network", 10)
	if how < 6 {
		n.fail(nil)
		return false
	}
	out = how == 9
	passes := roll(t, "passes", 5)
	faults := rapid.SliceOfN(rapid.SampledFrom(faultNames), 1, 5).Draw(t, "faults")
	at := -passes
	n.fail(func() tabletest.Fault {
		at++
		if at <= 0 || at > len(faults) && !out {
			return tabletest.Pass
		}
		return faultsByName[faults[(at-1)%len(faults)]]
	})
	return out
}

var (
	faultsByName = map[string]tabletest.Fault{
		"lose": tabletest.Lose, "drop": tabletest.Drop, "throttle": tabletest.Throttle, "cut": tabletest.Cut, "short": tabletest.Short,
		"flip": tabletest.Flip, "empty": tabletest.Empty,
	}
	faultNames = slices.Sorted(maps.Keys(faultsByName))
)
