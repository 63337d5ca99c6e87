package reporting_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/big"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/reporting"
	rt "github.com/marketmeter/marketmeter/internal/reporting/reportingtest"
	"github.com/marketmeter/marketmeter/internal/reporting/worldtest"
	"github.com/marketmeter/marketmeter/internal/seedtest"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
	"github.com/marketmeter/marketmeter/sandbox"
)

// history is a random history of a world: clients, three workers that sleep, die, come second and
// have clocks that differ, a table and a marketplace with every fault. After every write of any of
// them, the invariants of docs/reporting.md are checked on a copy that the test keeps.
type history struct {
	*worldtest.World
	t      *testing.T
	random *rand.Rand // only under mu
	entity metering.EntitlementID
	client *dynamodb.Client // without faults, for the copy
	name   string
	front  *table.Table // of the API's functions, which has no faults here
	faults bool         // off once the history ends

	mu      sync.Mutex
	log     []string
	broken  string
	groups  map[metering.GroupID]*seenGroup
	hours   map[time.Time]*reports.Hour
	ledger  reports.Ledger
	kinds   map[string]reports.Kind // by hour and dimension: the first outcome
	foreign map[string]bool         // hours and dimensions that another meter wrote

	cancelled bool
	newer     bool // the config has a member that this version does not know

	workers [3]*actor
}

// seenGroup is the copy of a group.
type seenGroup struct {
	metering.Group
	hour     time.Time // that claimed it last
	inWork   bool
	outcomes map[string]reports.Kind
	// claims is what each hour took of it.
	claims map[time.Time]map[string]metering.Quantity
}

// actor is a worker, which does one thing at a time.
type actor struct {
	worker *reporting.Worker
	queue  worldtest.Hints
	link   *link
	done   chan error // receives what the thing that it does ends with; nil if it does nothing
}

// link is a worker's connection to the table.
type link struct {
	h       *history
	name    string
	crashed bool          // under h.mu
	asleep  chan struct{} // receives when a request sleeps
	wake    chan struct{} // closed to wake all that sleep
}

func newHistory(t *testing.T, random *rand.Rand) *history {
	w := worldtest.NewWorld(t, sandbox.Options{IdenticalResend: []sandbox.Resend{sandbox.ResendSuccess, sandbox.ResendDuplicate}[random.IntN(2)]})
	h := &history{
		World: w, t: t, random: random, faults: true, groups: map[metering.GroupID]*seenGroup{}, hours: map[time.Time]*reports.Hour{},
		kinds: map[string]reports.Kind{}, foreign: map[string]bool{},
	}
	if random.IntN(3) == 0 { // the end of a month, also in US Pacific
		h.Set(time.Date(2026, 11, 30, 21+random.IntN(12), 10, 0, 0, time.UTC))
	}
	h.client, h.name = tabletest.NewClient(http.DefaultTransport), w.TableName
	h.front = table.New(tabletest.NewClient(tabletest.Planned(h.observing)), h.name)
	h.entity = everywhere[random.IntN(len(everywhere))]
	e := h.entitlement()
	e.Info.CommitAmount = worldtest.Quantity([]string{"0", "10", "1.0000001"}[random.IntN(3)])
	h.PutEntitlement(e)
	h.PutConnection(metering.Connection{Partner: e.Partner, LateUsage: metering.LateUsages[random.IntN(2)]})
	for i := range h.workers {
		h.workers[i] = h.newActor(i)
	}
	return h
}

func (h *history) entitlement() metering.Entitlement {
	for _, e := range worldtest.Entitlements() {
		if e.ID == h.entity {
			return e
		}
	}
	panic("no entitlement")
}

func (h *history) newActor(i int) *actor {
	a := &actor{link: &link{h: h, name: "w" + strconv.Itoa(i), asleep: make(chan struct{}, 1000), wake: make(chan struct{})}}
	a.worker = h.Worker(&lagging{Table: table.New(tabletest.NewClient(tabletest.Planned(a.link.plan)), h.name), h: h, waited: map[reports.Place][]metering.GroupID{}})
	a.worker.Queue, a.worker.Log = &a.queue, slog.New(slog.DiscardHandler)
	skew := time.Duration(h.random.IntN(7)-3) * time.Minute
	a.worker.Now = func() time.Time { return h.Now().Add(skew) }
	return a
}

// lagging is the table with an index of work that lags, as those of DynamoDB do and those of
// DynamoDB Local do not: it lacks what is new, and has what is gone.
type lagging struct {
	*table.Table
	h      *history
	waited map[reports.Place][]metering.GroupID // what a place had at the last look; under h.mu
}

// lags reports whether the index lags this time.
func (l *lagging) lags() bool {
	l.h.mu.Lock()
	defer l.h.mu.Unlock()
	return l.h.faults && l.h.random.IntN(4) == 0
}

func (l *lagging) Waiting(ctx context.Context, p reports.Place) ([]metering.GroupID, error) {
	ids, err := l.Table.Waiting(ctx, p)
	lags := l.lags()
	l.h.mu.Lock()
	defer l.h.mu.Unlock()
	if lags {
		return l.waited[p], err
	}
	l.waited[p] = ids
	return ids, err
}

func (l *lagging) EachPlace(ctx context.Context, until time.Time, take func(reports.Place) error) error {
	return l.Table.EachPlace(ctx, until, func(p reports.Place) error {
		if l.lags() {
			return nil
		}
		return take(p)
	})
}

func (l *lagging) Due(ctx context.Context, lane string, now time.Time, limit int) ([]reports.Place, error) {
	places, err := l.Table.Due(ctx, lane, now, limit)
	return slices.DeleteFunc(places, func(reports.Place) bool { return l.lags() }), err
}

// note logs an event. It is called under mu.
func (h *history) note(format string, args ...any) {
	h.log = append(h.log, h.Now().Format("02 15:04 ")+fmt.Sprintf(format, args...))
}

func (h *history) fail(format string, args ...any) {
	if h.broken == "" {
		h.broken = fmt.Sprintf(format, args...)
	}
}

// observing is the plan of a connection without faults, whose writes the copy follows.
func (h *history) observing(_ int, r *http.Request) tabletest.Fault {
	return func(send func() (*http.Response, error)) (*http.Response, error) {
		return h.observed("client", r, send)
	}
}

var writes = []string{"PutItem", "UpdateItem", "DeleteItem", "TransactWriteItems"}

// observed sends a request. After a write, the copy follows and the invariants are checked, before
// any other write is sent.
func (h *history) observed(who string, r *http.Request, send func() (*http.Response, error)) (*http.Response, error) {
	if !slices.Contains(writes, tabletest.Action(r)) {
		return send()
	}
	body, err := r.GetBody()
	if err != nil {
		return nil, err
	}
	request, err := io.ReadAll(body)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	response, err := send()
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(response.Body)
	if err = errors.Join(err, response.Body.Close()); err != nil {
		return nil, err
	}
	response.Body = io.NopCloser(bytes.NewReader(text))
	if response.StatusCode == http.StatusOK {
		h.follow(who, request)
		h.check()
	}
	return response, nil
}

// rouse wakes the requests that sleep. One that has read wake before, and is about to sleep, does
// not.
func (l *link) rouse() {
	l.h.mu.Lock()
	defer l.h.mu.Unlock()
	close(l.wake)
	l.wake = make(chan struct{})
}

// fate is how a request of a worker fails; nil is not at all.
func (l *link) plan(_ int, r *http.Request) tabletest.Fault {
	h := l.h
	return func(send func() (*http.Response, error)) (*http.Response, error) {
		pass := func() (*http.Response, error) { return h.observed(l.name, r, send) }
		h.mu.Lock()
		crashed, fate, wake := l.crashed, 100, l.wake
		if h.faults && (tabletest.Action(r) != "Query" || h.random.IntN(20) == 0) { // a look for work is 32 of them
			fate = h.random.IntN(100)
		}
		kind := tabletest.Kinds[h.random.IntN(len(tabletest.Kinds))]
		if fate == 1 || fate == 2 {
			l.crashed = true
			h.note("%s dies at %s", l.name, tabletest.Action(r))
		}
		h.mu.Unlock()
		dead := errors.New("the worker is dead")
		switch {
		case crashed, fate == 1:
			return nil, dead
		case fate == 2: // its last request arrives
			if response, err := pass(); err == nil {
				_ = response.Body.Close()
			}
			return nil, dead
		case fate == 3 || fate == 4:
			l.asleep <- struct{}{}
			select {
			case <-wake:
			case <-r.Context().Done():
				return nil, r.Context().Err()
			}
			return pass()
		case fate < 9 && kind.Name != "slow":
			if fault := kind.Of(r); fault != nil {
				return fault(pass)
			}
		}
		return pass()
	}
}

// follow makes the copy follow a write.
func (h *history) follow(who string, request []byte) {
	type key struct {
		PK, SK struct{ S string }
	}
	var sent struct {
		Item, Key     *key
		TransactItems []struct{ Put, Update, Delete *struct{ Item, Key *key } }
	}
	if err := json.Unmarshal(request, &sent); err != nil {
		h.t.Error(err)
	}
	keys := []*key{sent.Item, sent.Key}
	for _, item := range sent.TransactItems {
		for _, write := range []*struct{ Item, Key *key }{item.Put, item.Update, item.Delete} {
			if write != nil {
				keys = append(keys, write.Item, write.Key)
			}
		}
	}
	for _, k := range keys {
		switch {
		case k == nil:
		case strings.HasPrefix(k.SK.S, "GROUP#"):
			h.followGroup(who, k.PK.S, k.SK.S)
		case strings.Contains(k.PK.S, "#BILL#") && k.SK.S == "LEDGER":
			ledger, err := h.Table.Ledger(context.Background(), worldtest.Org, h.entity)
			if err != nil {
				h.t.Error(err)
			}
			h.ledger = ledger
		case strings.Contains(k.PK.S, "#BILL#") && strings.Count(k.SK.S, "#") == 1:
			h.followHour(who, k.SK.S)
		}
	}
}

func (h *history) followHour(who, sk string) {
	start, err := time.Parse("2006-01-02T15", strings.TrimPrefix(sk, "HOUR#"))
	if err != nil {
		h.t.Error(err)
	}
	hour, err := h.Table.Hour(context.Background(), reports.Place{Organization: worldtest.Org, Entitlement: h.entity, Hour: start})
	if err != nil || hour == nil {
		h.t.Errorf("the hour %s: %v, %v", sk, hour, err)
		return
	}
	before := h.hours[start]
	h.hours[start] = hour
	h.note("%s writes hour %s: %s version %d%s", who, start.Format("15"), hour.State, hour.Version, recordsText(hour))
	if before != nil && hour.Version < before.Version {
		h.fail("hour %s goes from version %d to %d", start, before.Version, hour.Version)
	}
	if before != nil && before.Sealed != nil { // 1: what is sent never changes
		for i := range before.Sealed.Records {
			was, is := &before.Sealed.Records[i], hour.Record(before.Sealed.Records[i].Dimension)
			if is == nil || was.Quantity != is.Quantity || !before.Sealed.From.Equal(hour.Sealed.From) || fmt.Sprint(before.Sealed.Marketplace) != fmt.Sprint(hour.Sealed.Marketplace) {
				h.fail("1. %s of hour %s has changed", was.Dimension, start)
			}
		}
	}
}

func recordsText(hour *reports.Hour) (text string) {
	if hour.Sealed == nil {
		return ""
	}
	for i := range hour.Sealed.Records {
		r := &hour.Sealed.Records[i]
		text += fmt.Sprintf("; %s=%s (in %s, out %s, drawn %s) %s%s", r.Dimension, r.Quantity, r.CarryIn, r.CarryOut, r.Drawn, r.Outcome.Kind, r.Outcome.Evidence)
		for _, a := range r.Attempts {
			text += fmt.Sprintf(" [%d %s %s]", a.Number, a.Result, a.Code)
		}
	}
	return text
}

func (h *history) followGroup(who, pk, sk string) {
	out, err := h.client.GetItem(context.Background(), &dynamodb.GetItemInput{
		TableName: &h.name, ConsistentRead: aws.Bool(true),
		Key: map[string]types.AttributeValue{"PK": &types.AttributeValueMemberS{Value: pk}, "SK": &types.AttributeValueMemberS{Value: sk}},
	})
	if err != nil {
		h.t.Error(err)
		return
	}
	id := metering.GroupID(strings.TrimPrefix(sk, "GROUP#"))
	group, err := h.Table.Group(context.Background(), worldtest.Org, id)
	if err != nil {
		h.t.Error(err)
		return
	}
	g := h.groups[id]
	if g == nil {
		g = &seenGroup{claims: map[time.Time]map[string]metering.Quantity{}}
		h.groups[id] = g
	}
	before := g.Status
	g.Group, g.inWork, g.outcomes = group, out.Item["_work"] != nil, map[string]reports.Kind{}
	if kinds, ok := out.Item["_outcomes"].(*types.AttributeValueMemberM); ok {
		for dimension, kind := range kinds.Value {
			g.outcomes[dimension] = reports.Kind(kind.(*types.AttributeValueMemberS).Value)
		}
	}
	if hour, ok := out.Item["_hour"].(*types.AttributeValueMemberS); ok {
		if g.hour, err = parseHour(hour.Value); err != nil {
			h.t.Error(err)
		}
	}
	due, _ := out.Item["_due"].(*types.AttributeValueMemberS)
	text := ""
	if due != nil {
		text = " due " + due.Value[:13]
	}
	if g.Status == metering.StatusReportPending && before == metering.StatusCreated {
		claim := maps.Clone(g.Records)
		if slices.Contains(slices.Collect(maps.Values(g.outcomes)), reports.Accepted) {
			maps.DeleteFunc(claim, func(dimension string, _ metering.Quantity) bool { return g.outcomes[dimension] != reports.Rejected })
		}
		if g.claims[g.hour] != nil {
			h.fail("2. hour %s claims %s a second time", g.hour, id)
		}
		g.claims[g.hour] = claim
		text += fmt.Sprintf(" with %v", claim)
	}
	h.note("%s makes %s %s%s %v", who, id[len(id)-6:], g.Status, text, g.outcomes)
}

// parseHour reads the start of an hour, in one of the forms that the table has.
func parseHour(text string) (time.Time, error) {
	at, err := time.Parse("2006-01-02T15", text)
	if err != nil {
		at, err = metering.ParseTime(text)
	}
	return at.UTC(), err
}

// check checks the invariants 2 to 5 and 7 on the copy.
func (h *history) check() {
	carry, used := map[string]*big.Rat{}, new(big.Rat)
	add := func(to map[string]*big.Rat, dimension string, x *big.Rat, sign int64) {
		if to[dimension] == nil {
			to[dimension] = new(big.Rat)
		}
		to[dimension].Add(to[dimension], new(big.Rat).Mul(x, big.NewRat(sign, 1)))
	}
	in := map[string]int{}
	for start, hour := range h.hours {
		if hour.Sealed == nil {
			continue
		}
		members := map[string]*big.Rat{}
		for id, g := range h.groups {
			for dimension, quantity := range g.claims[start] {
				add(members, dimension, rat(quantity.String()), 1)
				r := hour.Record(dimension)
				if r == nil {
					h.fail("hour %s has no record of %s, which %s has", start, dimension, id)
				} else if r.Outcome.Kind != reports.Rejected {
					in[string(id)+" "+dimension]++
					if g.Status == metering.StatusDeleted {
						h.fail("2. %s is DELETED, and in hour %s", id, start)
					}
				}
			}
		}
		for i := range hour.Sealed.Records {
			r := &hour.Sealed.Records[i]
			h.checkEvidence(start, r)
			if r.Outcome.Evidence == reports.EvidenceSeal {
				continue
			}
			total := members[r.Dimension]
			if total == nil {
				total = new(big.Rat)
			}
			if total.Cmp(ratOf(r.Members)) != 0 {
				h.fail("4. hour %s is sealed with %s of %s, its groups have %s", start, r.Members, r.Dimension, total.FloatString(9))
			}
			left := new(big.Rat).Mul(new(big.Rat).Sub(total, ratOf(r.Drawn)), ratOf(r.Scale))
			right := new(big.Rat).Sub(new(big.Rat).Add(rat(r.Quantity.String()), ratOf(r.CarryOut)), ratOf(r.CarryIn))
			if left.Cmp(right) != 0 {
				h.fail("4. %s of hour %s: %s is not %s", r.Dimension, start, left, right)
			}
			if r.Outcome.Kind == reports.Accepted {
				add(carry, r.Dimension, ratOf(r.CarryOut), 1)
			}
			if r.Outcome.Kind != reports.Rejected {
				add(carry, r.Dimension, ratOf(r.CarryIn), -1)
				used.Add(used, ratOf(r.DrawnAmount))
			}
		}
	}
	for key, n := range in {
		if n > 1 {
			h.fail("2. %s is in %d hours", key, n)
		}
	}
	for dimension, want := range carry {
		if got := ratOf(h.ledger.Carry[dimension]); got.Cmp(want) != 0 || got.Sign() < 0 {
			h.fail("4. the carry of %s is %s, want %s", dimension, got.FloatString(9), want.FloatString(9))
		}
	}
	if got := ratOf(h.ledger.Used); got.Cmp(used) != 0 {
		h.fail("4. %s of the commit is used, want %s", got.FloatString(9), used.FloatString(9))
	}
	for id, g := range h.groups {
		if g.Status == metering.StatusCreated && !g.inWork {
			h.fail("7. %s is CREATED and not in the index of work", id)
		}
		if hour := h.hours[g.hour]; g.Status == metering.StatusReportPending && (hour == nil || hour.State == reports.StateSettled) {
			h.fail("7. %s is REPORT_PENDING in no report", id)
		}
	}
}

// checkEvidence checks invariant 3.
func (h *history) checkEvidence(start time.Time, r *reports.Record) {
	key := start.Format(time.RFC3339) + " " + r.Dimension
	kind := r.Outcome.Kind
	if before := h.kinds[key]; before != kind && before != reports.Undecided && r.Outcome.Evidence != reports.EvidenceResolved {
		h.fail("3. %s is %s, and was %s", key, kind, before)
	}
	h.kinds[key] = kind
	if r.Quantity.Sign() == 0 || r.Outcome.Evidence == reports.EvidenceResolved {
		return
	}
	with := func(result reports.Result) bool {
		return slices.ContainsFunc(r.Attempts, func(a reports.Attempt) bool { return a.Result == result })
	}
	switch kind {
	case reports.Rejected:
		if with(reports.Billed) || with(reports.Duplicate) || with(reports.InDoubt) {
			h.fail("3. %s is REJECTED: %v", key, r.Attempts)
		}
	case reports.Accepted:
		if !with(reports.Billed) && (!with(reports.Duplicate) || !with(reports.InDoubt)) {
			h.fail("3. %s is ACCEPTED: %v", key, r.Attempts)
		}
	}
}

func rat(text string) *big.Rat {
	r, ok := new(big.Rat).SetString(text)
	if !ok {
		panic(text)
	}
	return r
}

func ratOf(x metering.Exact) *big.Rat { return rat(x.String()) }

// pick returns a number below n.
func (h *history) pick(n int) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.random.IntN(n)
}

// step does one thing.
func (h *history) step() {
	switch h.pick(14) {
	case 0, 1, 2:
		h.use()
	case 3:
		h.user()
	case 4:
		h.environment()
	case 5, 6:
		h.Set(h.Now().Add(time.Duration(1+h.pick(70)) * time.Minute))
	default:
		h.work(h.workers[h.pick(len(h.workers))])
	}
}

func number(text string) metering.Number {
	n, err := metering.ParseNumber(text)
	if err != nil {
		panic(err) // the test's own text
	}
	return n
}

// use is a client that reports usage.
func (h *history) use() {
	if len(h.groups) >= 12 {
		return
	}
	quantities := []string{"0", "0.3000004", "0.7", "1.25", "2.0000009", "4", "13.9999999"}
	usage := "d0 " + quantities[h.pick(len(quantities))]
	if h.pick(2) == 0 {
		usage += ", d1 " + quantities[1+h.pick(len(quantities)-1)]
	}
	at := h.Now().Add(-time.Duration(h.pick(4)) * 30 * time.Minute)
	g := metering.NewGroup{EntitlementID: string(h.entity), Timestamp: &at}
	for record := range strings.SplitSeq(usage, ", ") {
		key, quantity, _ := strings.Cut(record, " ")
		g.Records = append(g.Records, metering.NewRecord{Key: key, Quantity: quantity})
	}
	_, err := h.front.Report(h.t.Context(), worldtest.Org, &metering.Report{Groups: []metering.NewGroup{g}, Now: h.Now()})
	if err != nil && metering.CodeOf(err) != metering.Invalid { // every quantity is 0
		h.t.Error(err)
	}
}

// user deletes or retries a group.
func (h *history) user() {
	h.mu.Lock()
	ids := slices.Sorted(maps.Keys(h.groups))
	h.mu.Unlock()
	if len(ids) == 0 {
		return
	}
	id := ids[h.pick(len(ids))]
	h.mu.Lock()
	status := h.groups[id].Status
	h.mu.Unlock()
	var err error
	if status == metering.StatusReportFailed {
		_, err = h.front.Retry(h.t.Context(), worldtest.Org, id, metering.Retry{Now: h.Now()})
	} else if h.pick(3) == 0 {
		_, err = h.front.Delete(h.t.Context(), worldtest.Org, id, "", h.Now())
	}
	if code := metering.CodeOf(err); err != nil && code != metering.Conflict && code != metering.Invalid {
		h.t.Error(err)
	}
}

// environment changes what is around: the marketplace, the buyer, the config, another meter.
func (h *history) environment() {
	e := h.entitlement()
	switch h.pick(9) {
	case 8:
		if h.pick(2) == 0 {
			h.putNewerConfig(e.Partner)
		}
	case 7:
		if h.pick(4) > 0 || h.cancelled {
			return
		}
		h.cancelled = true
		e.Status = metering.EntitlementCancelled
		e.CancelTime = h.Now().Add(-time.Duration(h.pick(90)) * time.Minute).Truncate(time.Second)
		h.PutEntitlement(e)
		h.mu.Lock()
		h.note("cancelled at %s", e.CancelTime.Format("15:04"))
		h.mu.Unlock()
	case 0, 1:
		doubts := rt.Doubts()
		h.Fault(doubts[h.pick(len(doubts))])
	case 2:
		h.Fault(sandbox.Fault{Fault: []string{sandbox.Throttled, sandbox.Unprocessed}[h.pick(2)]})
	case 3:
		active := h.pick(2) == 0
		h.Change(func(c *sandbox.Catalog) {
			c.Azure.Subscriptions[0].State = map[bool]string{true: sandbox.AzureSubscribed, false: sandbox.AzureSuspended}[active]
			c.Google.Entitlements[0].State = map[bool]string{true: sandbox.GoogleActive, false: sandbox.GoogleBillingDisabled}[active]
		})
	case 4:
		flags := [][]string{nil, {"enableCommitWithAdditionalUsageMetering"}, {"enableCommitWithAdditionalUsageMetering", "enableCommitWithAdditionalUsageAtListPrice"}}[h.pick(3)]
		entry := map[string]any{"partner": string(e.Partner)}
		for _, flag := range flags {
			entry[flag] = true
		}
		if h.pick(2) == 0 { // the mapping is renamed
			entry["enableDimensionMapping"] = true
			entry["dimensionMapping"] = map[string]any{"d1": map[string]any{
				"dimensionKey": []string{"d1", "d2"}[h.pick(2)], "convertionMultiplier": number("1"),
			}}
		}
		h.PutConfig(metering.Config{"partnerUsageMeteringConfigs": []any{entry}})
		h.newer = false
	case 5:
		known := h.pick(2) == 0 // the seller's catalog lacks a dimension, or has it again
		h.Change(func(c *sandbox.Catalog) {
			for _, dimensions := range []*[]sandbox.Dimension{&c.AWS.Products[0].Dimensions, &c.Azure.Offers[0].Plans[0].Dimensions} {
				(*dimensions)[1].Key = map[bool]string{true: "d1", false: "gone"}[known]
			}
		})
	case 6:
		if e.Partner == "GCP" || h.pick(3) > 0 {
			return
		}
		record := rt.AWS("d0", "5")
		if e.Partner == "AZURE" {
			record = rt.Azure("d0", "5")
		}
		record.Start = metering.HourOf(h.Now())
		record.End = record.Start.Add(time.Hour)
		response := h.Marketplace(e.Partner).Send(h.t.Context(), []reporting.Record{record})
		h.mu.Lock()
		h.foreign[record.Start.Format(time.RFC3339)+" d0"] = true
		h.note("another meter writes hour %s: %s", record.Start.Format("15"), rt.Verdicts(response))
		h.mu.Unlock()
	}
}

// putNewerConfig puts a config that this version can't read: no hour can be sealed.
func (h *history) putNewerConfig(partner metering.Partner) {
	h.PutConfig(metering.Config{"partnerUsageMeteringConfigs": []any{map[string]any{"partner": string(partner)}}})
	current, err := h.Table.Config(h.t.Context(), worldtest.Org)
	if err != nil {
		h.t.Fatal(err)
	}
	h.SetText("ORG#"+string(worldtest.Org), fmt.Sprintf("CONFIG#%010d", current.Version), "config",
		fmt.Sprintf(`{"partnerUsageMeteringConfigs":[{"partner":%q,"newer":true}]}`, partner))
	h.newer = true
	h.mu.Lock()
	defer h.mu.Unlock()
	h.note("the config is one of a newer version")
}

// work lets a worker begin something, go on if it sleeps, or be replaced if it died. It returns
// when the worker has ended that, or sleeps.
func (h *history) work(a *actor) {
	if a.done != nil { // it sleeps
		if h.pick(4) > 0 {
			return
		}
		a.link.rouse()
	} else {
		hint, ok := a.queue.Next()
		schedule := !ok
		if ok && h.pick(6) == 0 {
			_ = a.queue.Enqueue(h.t.Context(), hint) // a duplicate message
		}
		done := make(chan error, 1)
		a.done = done
		go func() {
			var err error
			if schedule {
				_, err = a.worker.Schedule(context.Background())
			} else {
				err = a.worker.Work(context.Background(), hint)
			}
			done <- err
		}()
	}
	h.wait(a)
}

func (h *history) wait(a *actor) {
	select {
	case err := <-a.done:
		a.done = nil
		for len(a.link.asleep) > 0 {
			<-a.link.asleep
		}
		h.mu.Lock()
		if err != nil {
			h.note("%s ends: %v", a.link.name, err)
		}
		if a.link.crashed {
			a.link.crashed = false // another one takes its place
		}
		h.mu.Unlock()
	case <-a.link.asleep:
	}
}

// settle ends the history: no more faults, and time passes until everything is settled.
func (h *history) settle() {
	h.mu.Lock()
	h.faults = false
	h.mu.Unlock()
	if err := h.ClearFaults(); err != nil {
		h.t.Fatal(err)
	}
	h.Change(func(c *sandbox.Catalog) {
		c.Azure.Subscriptions[0].State, c.Google.Entitlements[0].State = sandbox.AzureSubscribed, sandbox.GoogleActive
	})
	for _, a := range h.workers {
		for a.done != nil {
			a.link.rouse()
			h.wait(a)
		}
	}
	if h.newer && (h.entitlement().Partner == "GCP" || h.pick(2) == 0) { // whose month does not end
		h.PutConfig(metering.EmptyConfig())
		h.newer = false
	}
	for _, hours := range []int{0, 1, 1, 2, 4, 20, 6, 26, 26, 26} {
		h.Set(h.Now().Add(time.Duration(hours) * time.Hour))
		for range 2 { // a lane that was refused is sent a minute later
			h.settleNow()
			h.Set(h.Now().Add(2 * time.Minute))
		}
		if !h.waits() {
			break
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, g := range h.groups {
		if g.Status == metering.StatusCreated || g.Status == metering.StatusReportPending {
			h.fail("8. %s is %s at the end", id, g.Status)
		}
	}
	for start, hour := range h.hours {
		if hour.State != reports.StateSettled {
			h.fail("8. hour %s is %s at the end", start, hour.State)
		}
	}
	h.compare()
	h.checkBill()
}

// settleNow lets one worker do all that is due.
func (h *history) settleNow() {
	a := h.workers[0]
	if _, err := a.worker.Schedule(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	for {
		hint, ok := a.queue.Next()
		if !ok {
			return
		}
		if err := a.worker.Work(h.t.Context(), hint); err != nil && (!h.newer || !strings.Contains(err.Error(), `member "newer"`)) {
			h.t.Fatalf("%+v: %v", hint, err)
		}
	}
}

func (h *history) waits() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, hour := range h.hours {
		if hour.State != reports.StateSettled {
			return true
		}
	}
	for _, g := range h.groups {
		if g.Status == metering.StatusCreated || g.Status == metering.StatusReportPending {
			return true
		}
	}
	return false
}

// compare compares the copy with the table.
func (h *history) compare() {
	for id, g := range h.groups {
		stored, err := h.Table.Group(h.t.Context(), worldtest.Org, id)
		if err != nil || stored.Status != g.Status || !stored.LastUpdateTime.Equal(g.LastUpdateTime) {
			h.fail("the copy of %s is %s, the table has %s (%v)", id, g.Status, stored.Status, err)
		}
	}
	for start, hour := range h.hours {
		stored := h.Hour(h.entity, start)
		if stored == nil || stored.Version != hour.Version || stored.State != hour.State {
			h.fail("the copy of hour %s is %+v, the table has %+v", start, hour, stored)
		}
	}
}

// checkBill checks invariants 1 and 6 at the marketplace: it bills what is accepted, once.
func (h *history) checkBill() {
	records, err := h.Records()
	if err != nil {
		h.t.Fatal(err)
	}
	billed := map[string]string{}
	for _, r := range records {
		at := metering.HourOf(r.Time)
		if r.Marketplace == sandbox.Google {
			at = metering.HourOf(r.Time.Add(-time.Nanosecond))
		}
		key := at.Format(time.RFC3339) + " " + r.Dimension
		if h.foreign[key] {
			continue
		}
		if billed[key] != "" {
			h.fail("6. %s is billed twice", key)
		}
		billed[key] = r.Quantity
	}
	for start, hour := range h.hours {
		for i := range hour.Sealed.Records {
			r := &hour.Sealed.Records[i]
			key := start.Format(time.RFC3339) + " " + r.Dimension
			if h.foreign[key] || r.Quantity.Sign() == 0 {
				continue
			}
			got := billed[key]
			delete(billed, key)
			switch {
			case got != "" && rat(got).Cmp(rat(r.Quantity.String())) != 0:
				h.fail("6. %s is billed with %s, not %s", key, got, r.Quantity)
			case r.Outcome.Kind == reports.Accepted && got == "":
				h.fail("6. %s is ACCEPTED, and not billed", key)
			case r.Outcome.Kind == reports.Rejected && got != "":
				h.fail("6. %s is REJECTED, and billed", key)
			}
		}
	}
	if len(billed) > 0 {
		h.fail("6. the marketplace bills %v, which no report has", billed)
	}
}

// The invariants hold in random histories. HISTORIES=10000 tries that many.
func TestHistories_KeepTheInvariants(t *testing.T) {
	t.Parallel()
	random := seedtest.Random(t)
	until, most := seedtest.Until(20*time.Second), 1<<30
	if text := os.Getenv("HISTORIES"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		until, most = time.Now().Add(24*time.Hour), n
	}
	reached := map[string]int{}
	n := 0
	for ; n < most && time.Now().Before(until) && !t.Failed(); n++ {
		seed := random.Uint64()
		t.Run(fmt.Sprintf("%d", n), func(t *testing.T) {
			h := newHistory(t, rand.New(rand.NewPCG(seed, 0)))
			for range 60 {
				h.step()
			}
			h.settle()
			for _, hour := range h.hours {
				for i := range hour.Sealed.Records {
					reached[string(hour.Sealed.Records[i].Outcome.Kind)+" "+string(hour.Sealed.Records[i].Outcome.Evidence)]++
				}
			}
			if h.broken != "" {
				t.Fatalf("%s\n%s", h.broken, strings.Join(h.log, "\n"))
			}
		})
	}
	t.Logf("%d histories reached %v", n, reached)
}
