package apitest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/http"
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

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/seedtest"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// For all that clients and operators do, at any time, with any key, and over a network that
// sometimes fails: every response is the model's, and what is stored is what the model holds.
func TestService_IsItsModel(t *testing.T) {
	t.Parallel()
	r := seedtest.Random(t)
	rapidSeed := flag.Lookup("rapid.seed").Value
	given := rapidSeed.String() != "0" // as rapid reports it on a failure
	end := seedtest.Until(16 * time.Second)
	answers := map[string]int{} // by operation and status
	count, failing := 0, false
	next := append(append(operationSteps(), otherSteps...), step{name: timePasses, odds: 2})
	a, network := newFailingAPI(t)
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
			s := newService(t, a, network)
			step := func(t *rapid.T) {
				next := drawStep(t, next)
				if next.name == timePasses {
					s.timePasses(t)
					return
				}
				answers[fmt.Sprint(next.name, " ", s.step(t, next))]++
				count++
			}
			for range 3 { // rapid's own runs, of some 30 steps, are too short to fill an organization
				t.Repeat(map[string]func(*rapid.T){"step": step})
			}
			s.compareStored(t) // effects of time alone would not be seen before
		})
	}
	t.Logf("%d steps", count)
	for _, answer := range slices.Sorted(maps.Keys(answers)) {
		t.Logf("%6d %s", answers[answer], answer)
	}
}

const timePasses = "time passes"

// service is the real service, over HTTP and a network that may fail, beside its model.
type service struct {
	model   *model
	api     *api
	faulty  *table.Table // over the network, for operators
	network *badNetwork
}

// tester is a *testing.T or a *rapid.T.
type tester interface {
	Context() context.Context
	Fatal(...any)
}

var services atomic.Int64 // each has its own organizations

// newFailingAPI returns the API over a network that may fail.
func newFailingAPI(t *testing.T) (*api, *badNetwork) {
	t.Helper()
	network := &badNetwork{}
	client, tableName := tabletest.Client(t)
	faulty := table.New(network.client(), tableName)
	a := serveWith(t, "http", faulty, faulty, newKeyring(table.New(client, tableName)))
	a.client, a.tableName, a.table = client, tableName, a.keys.table
	return a, network
}

// newService returns the API with two organizations of its own.
func newService(t tester, a *api, network *badNetwork) *service {
	n := services.Add(1)
	s := &service{api: a, network: network, faulty: table.New(network.client(), a.tableName), model: newModel(begins.Add(time.Millisecond/2), fmt.Sprint("acme ", n), fmt.Sprintf("acme#%d ü", n))}
	a.clock.set(s.model.now)
	a.log.take()
	for _, o := range s.model.organizations {
		k := s.model.newKey(o, "admin")
		s.model.keys = append(s.model.keys, k)
		if err := a.table.AddAPIKey(t.Context(), k.record()); err != nil {
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
	s.api.clock.set(s.model.now)
}

// step does one operation on the service and on the model, and returns its status.
func (s *service) step(t *rapid.T, op step) int {
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
		want = rule(o, r.key)
	}

	out := s.network.drawFaults(t)
	got := s.do(t, o, r)
	t.Logf("%s %s?%s %s %s: %d %s, after %d requests to DynamoDB", r.method, r.path, r.query, r.headers, r.body, got.status, got.body, s.network.heal())
	if got.status == http.StatusServiceUnavailable && out {
		if r.operator == nil {
			if seconds, err := strconv.Atoi(got.headers.Get("Retry-After")); err != nil || seconds < 1 {
				t.Fatalf("a 503 with Retry-After %q", got.headers.Get("Retry-After"))
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
	if change.made != "" {
		known, _ := s.model.stored(o)[change.made].([]any)
		for _, object := range stored[change.made].([]any) {
			if id := object.(doc)["id"]; !slices.ContainsFunc(known, func(k any) bool { return k.(doc)["id"] == id }) {
				change.body.(doc)["id"] = id
			}
		}
	}
	if len(change.numbered) > 0 { // some of the groups may be stored, with numbers that no response has named
		listed, _ := stored["listUsageRecordGroups"].([]any)
		for _, value := range listed {
			for _, g := range change.numbered {
				if got := value.(doc); g["id"] == got["id"] {
					g["serialID"] = got["serialID"]
					o.keep(g)
				}
			}
		}
	} else {
		change.then()
	}
	if diff := cmp.Diff(s.model.stored(o), stored); diff != "" {
		t.Fatalf("a change that was answered with 503 has happened otherwise: -model +service\n%s", diff)
	}
}

// do sends a request with its key, or does what an operator does. An operator's request gets the
// status that a client would receive.
func (s *service) do(t *rapid.T, o *organization, r request) answer {
	got, wrong, err := s.send(t.Context(), o, r)
	if err != nil {
		t.Fatal(err)
	}
	for _, what := range wrong {
		t.Errorf("%s", what)
	}
	return got
}

func (s *service) send(ctx context.Context, o *organization, r request) (got answer, wrong []string, err error) {
	if r.operator != nil {
		got = answerOf(nil, r.operator(ctx, s.faulty, o.name))
		if got.status == http.StatusInternalServerError {
			err = errors.New(got.body)
		}
		return got, nil, err
	}
	if k := r.key; k.secret == "" {
		r = r.authorized("")
	} else {
		if k.organization != nil {
			s.api.keys.add(k.secret, k.organization.name)
		}
		r = r.with(k.secret)
	}
	return s.api.exchange(ctx, r.of(o.name))
}

func (s *service) compare(t *rapid.T, o *organization, r request, want reply, got answer) {
	if got.status != want.status {
		t.Fatalf("status %d, the model says %d", got.status, want.status)
	}
	if r.operator != nil {
		return
	}
	if got.status == http.StatusNotModified {
		if got.body != "" || got.headers.Get("Content-Type") != "" {
			t.Fatalf("a 304 has the body %q and the Content-Type %q", got.body, got.headers.Get("Content-Type"))
		}
		want.tags.see(t, want.version, got.headers.Get("ETag"))
		return
	}
	body := values(got.body)
	want.adopt(body)
	if made, ok := body.(doc); ok && want.made != "" {
		want.body.(doc)["id"] = made["id"]
	}
	if sentence, ok := body.(string); want.body == nil && (!ok || sentence == "" || !strings.Contains(sentence, want.says)) {
		t.Fatalf("it is no sentence with %q", want.says)
	}
	if diff := cmp.Diff(want.body, body); want.body != nil && diff != "" {
		t.Fatalf("-model +service\n%s", diff)
	}
	for name, there := range map[string]bool{
		"Content-Type": true, "ETag": want.tags != nil, "Link": want.next != nil,
		"WWW-Authenticate": want.status == 401, "Allow": want.status == 405, "Retry-After": false,
		"Content-Location": want.tags != nil && (r.method == "PUT" || r.method == "PATCH"), "Accept-Encoding": false,
		"Accept-Patch": want.status == 415 && r.method == "PATCH",
	} {
		if has := got.headers.Get(name); (has != "") != there || name == "Content-Type" && has != "application/json; charset=utf-8" {
			t.Fatalf("the header %s is %q", name, has)
		}
	}
	if etag := got.headers.Get("ETag"); etag != "" {
		want.tags.see(t, want.version, etag)
	}
	if want.next != nil {
		o.follow(t, r, *want.next, got.headers.Get("Link"))
	}
}

var etagForm = regexp.MustCompile(`^"[^"]*"$`)

// see records the ETag of a version: strong, always the same, and different from all others.
func (g *tags) see(t *rapid.T, version int, etag string) {
	if g.seen[version] == "" {
		g.seen[version] = etag
	}
	for v, seen := range g.seen {
		if !etagForm.MatchString(etag) || (seen == etag) != (v == version) {
			t.Fatalf("the ETag of version %d is %s, that of version %d %s", version, etag, v, seen)
		}
	}
}

// follow records the two ways to the next page.
func (o *organization) follow(t *rapid.T, r request, next place, link string) {
	parts := linkForm.FindStringSubmatch(link)
	if parts == nil || !strings.HasPrefix(parts[1], "?") {
		t.Fatalf("Link is %q", link)
	}
	linked, query := parsedQuery(parts[1][1:]), parsedQuery(r.query)
	cursor := linked.Get("cursor")
	query.Del("offset")
	query.Set("cursor", cursor)
	if cursor == "" || !equal(query, linked) {
		t.Fatalf("Link is %q, for the query %s", link, query.Encode())
	}
	o.cursors[cursor] = next
	byOffset, byCursor := r, r
	byCursor.query = query.Encode()
	query.Del("cursor")
	query.Set("offset", strconv.Itoa(next.offset))
	byOffset.query = query.Encode()
	o.next = append(o.next, byOffset, byCursor)
}

func parsedQuery(query string) url.Values {
	values, err := url.ParseQuery(query)
	if err != nil {
		panic(err)
	}
	return values
}

// stored reads what model.stored returns.
func (s *service) stored(t *rapid.T, o *organization) doc {
	k := s.model.keys[slices.Index(s.model.organizations, o)]
	read := func(path, query string) doc {
		got := s.do(t, o, request{method: "GET", path: path, query: query, key: k})
		if got.status != http.StatusOK {
			t.Fatalf("%s: %d %s", path, got.status, got.body)
		}
		return object(values(got.body))
	}
	keys := doc{}
	records, err := s.faulty.APIKeys(t.Context(), metering.OrgID(o.name))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		keys[r.Hash.ID()] = fmt.Sprint(r.Scopes, r.CreationTime, r.ExpiryTime, r.RevocationTime, r.ReplacedBy)
	}
	all := doc{"keys": keys}
	for _, op := range operations() {
		if op.stored != nil {
			all[op.id] = op.stored.service(read)
		}
	}
	return all
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
	options := tabletest.NewClient(tabletest.Recorded(tabletest.Planned(n.plan))).Options()
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
