package apitest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// scenario is what two organizations do. Their ids overlap and their names are almost the same.
type scenario struct {
	Way           string
	Organizations [2]string
	Keys          [2][]ownKey
	Groups        [2][]doc // stored before
	AtOnce        bool     // each organization acts in its own order, both at the same time
	Steps         []move
}

type ownKey struct {
	Scopes  auth.Scopes
	Expires time.Duration // from the start; 0 is never
}

// move is a request with one of the actor's keys, or an import of a group.
type move struct {
	Actor   int
	Key     int // index in the actor's keys; noKey and badKey are none of them
	Request request
	Import  doc
}

const (
	noKey  = -1
	badKey = -2
)

// key is the same in every played and every run.
func (s *scenario) key(actor, i int) auth.Key {
	return keyOf(fmt.Sprintf("%032d", 1000*actor+i))
}

// observed is what an organization can see of one step, and what it cost.
type observed struct {
	Status         int
	Headers        map[string][]string
	Body           string
	Authentication []string // the requests to DynamoDB, in order
	Operation      []string // sorted: some are sent at once
}

// played is the result of a scenario: by step, by organization, and all that is stored.
type played struct {
	Steps []*observed // nil if the actor was absent
	Log   [2][]doc
	Items map[string]doc
}

// For all actions of two organizations, neither can detect whether the other exists. The responses
// it gets, the requests to DynamoDB, their cost and the items stored for it in the end are the same
// in a played with the other organization and in a played without it.
func TestOrganizations_CannotDetectEachOther(t *testing.T) {
	t.Parallel()
	worlds := map[string][3]*processes{}
	for _, way := range []string{"http", "lambda"} {
		worlds[way] = [3]*processes{newProcesses(t, way), newProcesses(t, way), newProcesses(t, way)}
	}
	scopes, statuses := map[auth.Scopes]bool{}, map[int]int{}
	rapid.Check(t, func(rt *rapid.T) {
		s := genScenario().Draw(rt, "scenario")
		for _, key := range slices.Concat(s.Keys[0], s.Keys[1]) {
			scopes[key.Scopes] = true
		}
		var together *played
		var alone [2]*played
		var wrong [3][]string
		var errs [3]error
		var wait sync.WaitGroup
		wait.Go(func() { together, wrong[2], errs[2] = s.run(t.Context(), worlds[s.Way][2], 0, 1) })
		for actor := range 2 {
			wait.Go(func() { alone[actor], wrong[actor], errs[actor] = s.run(t.Context(), worlds[s.Way][actor], actor) })
		}
		wait.Wait()
		if err := errors.Join(errs[:]...); err != nil {
			rt.Fatalf("%v", err)
		}
		if wrong := slices.Concat(wrong[:]...); len(wrong) > 0 {
			rt.Fatalf("%s", strings.Join(wrong, "\n"))
		}
		for actor, org := range s.Organizations {
			with, without := together, alone[actor]
			for i, step := range s.Steps {
				if step.Actor != actor {
					continue
				}
				statuses[with.Steps[i].Status]++
				if diff := cmp.Diff(without.Steps[i], with.Steps[i]); diff != "" {
					rt.Fatalf("organization %q can tell of %q by step %d: -alone +together\n%s", org, s.Organizations[1-actor], i, diff)
				}
			}
			if diff := cmp.Diff(without.Log[actor], with.Log[actor]); diff != "" {
				rt.Fatalf("the log of organization %q: -alone +together\n%s", org, diff)
			}
		}
		items := maps.Clone(alone[0].Items)
		maps.Copy(items, alone[1].Items)
		if diff := cmp.Diff(items, together.Items); diff != "" {
			rt.Fatalf("what is stored: -alone +together\n%s", diff)
		}
	})
	if t.Failed() {
		return
	}
	t.Logf("%d scope sets; steps by status, imports 0: %v", len(scopes), statuses)
	for _, status := range []int{0, 200, 400, 401, 403, 404, 405, 412, 500} {
		if statuses[status] == 0 {
			t.Errorf("no step had status %d: the scenarios no longer test much", status)
		}
	}
	if len(scopes) != 15 {
		t.Errorf("keys had %d sets of scopes of 15", len(scopes))
	}
}

// processes is an API whose process can be replaced: a new one has no terms and no numbers in
// memory.
type processes struct {
	*api
	*table.Table // of the process
	client       *dynamodb.Client
}

func newProcesses(t *testing.T, way string) *processes {
	p := &processes{client: tabletest.NewClient(tabletest.Watched(t))}
	p.api = newAPIOver(t, way, tabletest.Watched(t), func(served *httpapi.API) { served.Table = p })
	p.start()
	return p
}

func (p *processes) start() { p.Table = table.New(p.client, p.tableName) }

// GoString is how rapid prints a failed scenario.
func (s *scenario) GoString() string {
	var b strings.Builder
	fmt.Fprintf(&b, "over %s, at once: %v\n", s.Way, s.AtOnce)
	for actor, org := range s.Organizations {
		fmt.Fprintf(&b, "  %d: organization %q, keys %v\n", actor, org, s.Keys[actor])
		for _, g := range s.Groups[actor] {
			fmt.Fprintf(&b, "     has group %.300v\n", g)
		}
	}
	for i, step := range s.Steps {
		r := step.Request
		if step.Import != nil {
			fmt.Fprintf(&b, "  step %d: %d imports %.300v\n", i, step.Actor, step.Import)
		} else {
			fmt.Fprintf(&b, "  step %d: %d sends with key %d %s %s?%s %s %v\n", i, step.Actor, step.Key, r.method, r.path, r.query, r.body, r.headers)
		}
	}
	return b.String()
}

// run runs the scenario in a new process over an empty table, with the steps of the actors that are
// present.
func (s *scenario) run(ctx context.Context, p *processes, present ...int) (w *played, wrong []string, err error) {
	a := p.api
	if err := a.empty(ctx); err != nil {
		return nil, nil, err
	}
	p.start()
	a.log.take()
	a.keyLog.take()
	a.clock.set(now)
	a.metricIDs.reset()
	for _, actor := range present {
		if err := s.prepare(ctx, a, actor); err != nil {
			return nil, nil, err
		}
	}
	w = &played{Steps: make([]*observed, len(s.Steps))}
	var mu sync.Mutex
	play := func(actors ...int) {
		for i, step := range s.Steps {
			if !slices.Contains(actors, step.Actor) {
				continue
			}
			if !s.AtOnce {
				a.clock.set(now.Add(time.Duration(i) * 7 * time.Minute))
			}
			seen, problems, failure := s.do(ctx, a, step)
			mu.Lock()
			w.Steps[i], err = seen, errors.Join(err, failure)
			for _, problem := range problems {
				wrong = append(wrong, fmt.Sprintf("step %d: %s", i, problem))
			}
			mu.Unlock()
		}
	}
	if s.AtOnce {
		var wait sync.WaitGroup
		for _, actor := range present {
			wait.Go(func() { play(actor) })
		}
		wait.Wait()
	} else {
		play(present...)
	}
	if err != nil {
		return nil, nil, err
	}
	for _, text := range []string{a.log.take(), a.keyLog.take()} {
		if err := s.readLog(text, w); err != nil {
			return nil, nil, err
		}
	}
	w.Items, err = itemsIn(ctx, a.client, a.tableName)
	for _, item := range w.Items {
		for _, operation := range []string{"_op", "_deletion", "_retry"} {
			delete(item, operation)
		}
	}
	return w, wrong, err
}

// prepare stores the keys and groups that the actor has at the start.
func (s *scenario) prepare(ctx context.Context, a *api, actor int) error {
	org := s.Organizations[actor]
	for i, k := range s.Keys[actor] {
		key := s.key(actor, i)
		record := recordOf(key, org, k.Scopes)
		if k.Expires > 0 {
			record.ExpiryTime = now.Add(k.Expires)
		}
		a.keys.mu.Lock()
		a.keys.organizations[key] = org
		a.keys.mu.Unlock()
		if err := a.table.AddAPIKey(ctx, record); err != nil {
			return err
		}
	}
	for _, g := range s.Groups[actor] {
		group, err := decodeGroup(org, g)
		if err != nil {
			return err
		}
		if _, err := a.table.Put(ctx, group); err != nil {
			return err
		}
	}
	return nil
}

// do executes one step.
func (s *scenario) do(ctx context.Context, a *api, step move) (seen *observed, wrong []string, err error) {
	if step.Import != nil {
		return s.importGroup(ctx, a, s.Organizations[step.Actor], step.Import)
	}
	r := step.Request
	switch step.Key {
	case noKey:
		r = r.authorized("")
	case badKey:
		r = r.authorized("Key " + strings.Replace(string(s.key(step.Actor, 0)), "0", "O", 1))
	default:
		r = r.with(s.key(step.Actor, step.Key))
	}
	got, wrong, err := a.exchange(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	got.headers.Del("Date")
	return &observed{got.status, got.headers, got.body, shapes(got.authentication), slices.Sorted(slices.Values(shapes(got.operation)))}, wrong, nil
}

// importGroup does what `marketmeter import` does with a line.
func (s *scenario) importGroup(ctx context.Context, a *api, org string, g doc) (seen *observed, wrong []string, err error) {
	group, err := decodeGroup(org, g)
	if err != nil {
		return nil, nil, err
	}
	ctx, requests := tabletest.Record(ctx)
	isNew, err := a.table.Put(ctx, group)
	if err != nil {
		return nil, nil, err
	}
	if err := a.table.RaiseSerial(ctx, metering.OrgID(org), group.SerialID); err != nil {
		return nil, nil, err
	}
	serial, err := a.table.Serial(ctx, metering.OrgID(org))
	if err != nil {
		return nil, nil, err
	}
	count, err := a.table.CountGroups(ctx, metering.OrgID(org))
	if err != nil {
		return nil, nil, err
	}
	for _, asked := range requests() {
		for _, partition := range partitionsOf(asked) {
			if own := orgPartition(org); partition != own && !strings.HasPrefix(partition, own+"#") {
				wrong = append(wrong, fmt.Sprintf("the import of %q asked for the partition %q", org, partition))
			}
		}
	}
	return &observed{Body: fmt.Sprintf("new: %v, serial counter %d, %d groups", isNew, serial, count), Operation: shapes(requests())}, wrong, nil
}

// readLog adds the log lines of each organization, without the values that always differ.
func (s *scenario) readLog(text string, w *played) error {
	for line := range strings.Lines(text) {
		var members doc
		if err := json.Unmarshal([]byte(line), &members); err != nil {
			return err
		}
		for _, name := range []string{"time", "durationMs", "requestId", "coldStart"} {
			delete(members, name)
		}
		for actor, org := range s.Organizations {
			if members["organization"] == org {
				w.Log[actor] = append(w.Log[actor], members)
			}
			for i := range s.Keys[actor] {
				if strings.Contains(line, string(s.key(actor, i))) {
					return fmt.Errorf("the log holds a key: %s", line)
				}
			}
		}
	}
	return nil
}

// empty deletes every item of the table.
func (a *api) empty(ctx context.Context) error {
	items, err := itemsIn(ctx, a.client, a.tableName)
	if err != nil {
		return err
	}
	var deletes []types.WriteRequest
	for _, item := range items {
		deletes = append(deletes, types.WriteRequest{DeleteRequest: &types.DeleteRequest{
			Key: map[string]types.AttributeValue{"PK": text(item["PK"].(string)), "SK": text(item["SK"].(string))},
		}})
	}
	for batch := range slices.Chunk(deletes, 25) {
		for len(batch) > 0 {
			out, err := a.client.BatchWriteItem(ctx, &dynamodb.BatchWriteItemInput{RequestItems: map[string][]types.WriteRequest{a.tableName: batch}})
			if err != nil {
				return err
			}
			batch = out.UnprocessedItems[a.tableName]
		}
	}
	return nil
}

func genScenario() *rapid.Generator[*scenario] {
	return rapid.Custom(func(t *rapid.T) *scenario {
		s := &scenario{Way: rapid.SampledFrom([]string{"http", "lambda"}).Draw(t, "way")}
		s.Organizations = [2]string(rapid.SliceOfNDistinct(rapid.SampledFrom(similarOrganizations), 2, 2, rapid.ID[string]).Draw(t, "organizations"))
		for actor := range 2 {
			s.Keys[actor] = rapid.SliceOfN(genKey(), 1, 3).Draw(t, "keys")
			s.Groups[actor] = rapid.SliceOfN(genIsolatedGroup(s.Organizations[actor]), 0, 4).Draw(t, "groups")
		}
		if rapid.IntRange(0, 19).Draw(t, "fat") == 19 { // lists that continue from a start key, in both
			for actor := range 2 {
				for i := range 3 {
					s.Groups[actor] = append(s.Groups[actor], group(fmt.Sprintf("fat%d", i), doc{
						"buyerID": "b", "entitlementID": "e", "metaInfo": doc{"metronomeInvoiceID": strings.Repeat("x", 380_000)},
					}))
				}
			}
		}
		s.AtOnce = rapid.IntRange(0, 4).Draw(t, "at once") == 4
		s.Steps = rapid.SliceOfN(rapid.Custom(s.genStep), 1, 16).Draw(t, "steps")
		return s
	})
}

func genKey() *rapid.Generator[ownKey] {
	return rapid.Custom(func(t *rapid.T) ownKey {
		return ownKey{
			Scopes:  rapid.SampledFrom([]auth.Scopes{8, 15, 7, 1, 2, 3, 4, 5, 6, 9, 10, 11, 12, 13, 14}).Draw(t, "scopes"),
			Expires: rapid.SampledFrom([]time.Duration{0, 0, 0, 0, 24 * time.Hour, 40 * time.Minute}).Draw(t, "expires"),
		}
	})
}

// isolatedIDs are few, so that those of both organizations are often the same.
var isolatedIDs = []string{"g1", "g2", "g#3"}

// genIsolatedGroup draws groups from few ids, buyers, entitlements, products and times.
func genIsolatedGroup(org string) *rapid.Generator[doc] {
	return rapid.Custom(func(t *rapid.T) doc {
		sample := func(name string, values ...string) string { return rapid.SampledFrom(values).Draw(t, name) }
		return group(sample("id", isolatedIDs...), doc{
			"status":       sample("status", "CREATED", "CREATED", "INVALID", "REPORTED", "DELETED"),
			"buyerID":      sample("buyer", drawnBuyers...),
			"productID":    sample("product", "p1", "p2"),
			"creationTime": sample("time", "2024-07-28T10:00:00.000Z", "2024-07-29T10:00:00.000Z"), "entitlementID": "e1",
			"metaInfo": doc{"source": sample("source", "API", "LAGO"), "metronomeInvoiceID": "of " + org},
			"serialID": rapid.IntRange(1, 9).Draw(t, "serial"),
		})
	})
}

// genStep draws a step, mostly of the actor's own organization with a key of its own: an import, or
// a request that the model would draw if it had seen the first ETags of a config.
func (s *scenario) genStep(t *rapid.T) move {
	actor := rapid.IntRange(0, 1).Draw(t, "actor")
	if rapid.IntRange(0, 9).Draw(t, "import") == 9 {
		return move{Actor: actor, Import: genIsolatedGroup(s.Organizations[actor]).Draw(t, "group")}
	}
	m := move{Actor: actor, Key: rapid.SampledFrom([]int{0, 0, 0, 1, 1, 1, 2, 2, 2, noKey, badKey}).Draw(t, "key")}
	if m.Key >= 0 {
		m.Key %= len(s.Keys[actor])
	}
	w := newModel(now, s.Organizations[:]...)
	w.ids = append(isolatedIDs, "g4")
	for _, o := range w.organizations {
		*o.tags("config") = tags{version: 1, seen: map[int]string{
			0: etagOf(0, `{"partnerUsageMeteringConfigs":[]}`), 1: etagOf(1, oneConfig), 2: etagOf(2, oneConfig),
		}}
	}
	chosen := append(operationSteps(), step{"no route", "", drawNoRoute, 2})
	r, _ := drawStep(t, chosen).draw(t, w, w.organizations[actor])
	m.Request = r.of(rapid.SampledFrom([]string{s.Organizations[actor], s.Organizations[actor], s.Organizations[actor], s.Organizations[actor], s.Organizations[1-actor]}).Draw(t, "organization"))
	return m
}

// quoted is a text of an organization's in JSON.
func quoted(org string) string {
	text, _ := json.Marshal("of " + org)
	return string(text)
}
