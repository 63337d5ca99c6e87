package apitest

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"pgregory.net/rapid"

	"github.com/marketmeter/marketmeter/internal/seedtest"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// The results of concurrent requests to the same things, over a network that fails, are as if the
// requests were done one after the other: each at one moment between the request and its response.
// A request with a 503, or without a response, was done at some moment or never. The requests are
// all that operations draw that touches one thing.
func TestClients_AtOnceAreAsInTurn(t *testing.T) {
	t.Parallel()
	random := seedtest.Random(t)
	a, network := newFailingAPI(t)
	histories, overlaps, outcomes := 0, 0, map[string]int{}
	for end := seedtest.Until(7 * time.Second); histories == 0 || time.Now().Before(end); {
		s := newService(t, a, network)
		history := record(t, s, random)
		for _, of := range slices.Sorted(maps.Keys(history)) {
			operations := history[of]
			histories++
			for i, op := range operations {
				outcomes[fmt.Sprint(strings.Fields(op.Input.(act).String())[0], " ", op.Output.(outcome).status)]++
				for _, other := range operations[:i] {
					if op.Call < other.Return && other.Call < op.Return {
						overlaps++
					}
				}
			}
			if result := porcupine.CheckOperationsTimeout(sequential(s.model.organizations[0].name), operations, time.Minute); result != porcupine.Ok {
				t.Fatalf("%s: %s\n%s", of, result, written(operations))
			}
		}
	}
	t.Logf("%d histories, %d pairs at once, %v", histories, overlaps, outcomes)
}

// act is what one client does to a thing, or a read of it at the end.
type act struct {
	request request
	rule    rule
	stored  *stored
}

func (a act) String() string {
	r := a.request
	if a.stored != nil {
		return "read"
	}
	return strings.Join([]string{cmp.Or(r.method, "IMPORT"), r.path, r.query, fmt.Sprint(r.headers), r.body}, " ")
}

// outcome is its result; status 0 means that it is unknown.
type outcome struct {
	status int
	body   any // as values reads it
	etag   string
}

// sequential is the model of one thing of an organization, to which the acts are done one after the
// other.
func sequential(org string) porcupine.Model {
	model := porcupine.NondeterministicModel{
		Init:  func() []any { return []any{newOrganization(org)} },
		Step:  func(state, input, output any) []any { return input.(act).step(state.(*organization), output.(outcome)) },
		Equal: equal,
	}
	return model.ToModel()
}

// step returns the states after the act if it can have that outcome.
func (a act) step(o *organization, out outcome) (after []any) {
	if a.stored != nil {
		if equal(numbered(only(a.request.touches, a.stored.model(o)), out.body), out.body) {
			after = append(after, o)
		}
		return after
	}
	for _, o := range a.before(o) {
		want := a.rule(o, nil)
		want.adopt(out.body)
		tag := ""
		if want.tags != nil {
			tag = want.tags.seen[want.version]
		}
		switch {
		case out.status == 0:
		case out.status != want.status || want.body != nil && !equal(numbered(want.body, out.body), out.body):
			continue
		case want.tags != nil:
			if !want.tags.canHave(want.version, out.etag) {
				continue
			}
			tag = out.etag
		}
		if want.then != nil {
			want.then()
		}
		if tag != "" {
			want.tags.seen[want.version] = tag
		}
		after = append(after, o)
	}
	return after
}

// before returns the states that are possible before the act. If the response to the last change
// was lost, its ETag is unknown: it may be one that the act names.
func (a act) before(o *organization) []*organization {
	all := []*organization{o.clone()}
	if g := o.tags(a.request.touches); g.seen[g.version] == "" {
		for _, tag := range etagsIn.FindAllStringSubmatch(a.request.headers["If-Match"]+","+a.request.headers["If-None-Match"], -1) {
			if named := o.clone(); g.canHave(g.version, tag[2]) {
				named.tags(a.request.touches).seen[g.version] = tag[2]
				all = append(all, named)
			}
		}
	}
	return all
}

// canHave reports whether a version can have the ETag: no other version has it.
func (g *tags) canHave(version int, etag string) bool {
	for v, seen := range g.seen {
		if (seen == etag) != (v == version) && seen != "" {
			return false
		}
	}
	return etag != ""
}

// only returns what touches names of data: the elements of a list with its id, or all.
func only(touches string, data any) any {
	list, ok := data.([]any)
	if !ok {
		return data
	}
	_, id, _ := strings.Cut(touches, " ")
	some := []any{}
	for _, element := range list {
		if element.(doc)["id"] == id {
			some = append(some, element)
		}
	}
	return some
}

// record lets clients act at the same time, and returns what they did and the results, by what it
// touches.
func record(t *testing.T, s *service, random *rand.Rand) map[string][]porcupine.Operation {
	t.Helper()
	const clients, acts = 4, 12
	o := s.model.organizations[0]
	s.model.ids = []string{"g1", "g2"}
	history, start := map[string][]porcupine.Operation{}, time.Now()
	var mu sync.Mutex
	do := func(client int, a act, send func() (outcome, error)) outcome {
		call := time.Since(start)
		out, err := send()
		op := porcupine.Operation{ClientId: client, Input: a, Call: call.Nanoseconds(), Output: out, Return: time.Since(start).Nanoseconds()}
		mu.Lock()
		defer mu.Unlock()
		if out.status == 0 {
			op.Return = math.MaxInt64
		}
		if err != nil {
			t.Error(err)
		}
		history[a.request.touches] = append(history[a.request.touches], op)
		return out
	}

	sell, _ := drawSeller(s.model)
	sell.key = s.model.keys[0]
	if got, _, err := s.send(t.Context(), o, sell); err != nil || got.status != http.StatusOK {
		t.Fatal(got, err)
	}
	s.network.fail(storms(rand.New(rand.NewPCG(random.Uint64(), 0))))
	var wait sync.WaitGroup
	for client := range clients {
		random := rand.New(rand.NewPCG(random.Uint64(), 0))
		wait.Go(func() {
			seen := newOrganization(o.name) // what this client knows of it
			seen.all("entitlement")[seller] = doc{}
			for range acts {
				ctx, cancel := context.WithCancel(t.Context())
				if random.IntN(8) == 0 { // and goes away, whether or not the request was done
					defer time.AfterFunc(time.Duration(random.Int64N(int64(10*time.Millisecond))), cancel).Stop()
				}
				a := s.drawAct(random, seen)
				if out := do(client, a, func() (outcome, error) { return s.outcome(ctx, o, a.request) }); out.etag != "" {
					g := seen.tags(a.request.touches)
					g.version++
					g.seen[g.version] = out.etag
				}
				cancel()
			}
		})
	}
	wait.Wait()
	s.network.heal()
	for touched := range maps.Clone(history) {
		kind, _, _ := strings.Cut(touched, " ")
		for _, op := range operations() {
			if op.stored == nil || op.stored.of != kind {
				continue
			}
			do(clients, act{request: request{touches: touched}, stored: op.stored}, func() (outcome, error) {
				read := func(path, query string) doc {
					got, _, err := s.send(t.Context(), o, request{method: "GET", path: path, query: query, key: s.model.keys[0]})
					if want(t, got, http.StatusOK); err != nil {
						t.Fatal(err)
					}
					return object(values(got.body))
				}
				return outcome{status: http.StatusOK, body: only(touched, op.stored.service(read))}, nil
			})
		}
	}
	return history
}

// drawAct draws an import, or a request of any operation, that touches one thing.
func (s *service) drawAct(random *rand.Rand, seen *organization) act {
	w := &model{now: s.model.now, ids: s.model.ids, organizations: []*organization{seen, s.model.organizations[1]}}
	next := append(operationSteps(), step{name: "import", draw: drawImport, odds: 4})
	draw := rapid.Custom(func(t *rapid.T) (a act) {
		a.request, a.rule = drawStep(t, next).draw(t, w, seen)
		return a
	})
	for {
		if a := draw.Example(int(random.Uint32())); a.request.touches != "" {
			return a
		}
	}
}

// storms are occasional faults, and sometimes so many that a call of the SDK runs out of attempts.
func storms(random *rand.Rand) func() tabletest.Fault {
	storm := 0
	return func() tabletest.Fault {
		if storm--; storm < 0 && random.IntN(50) == 0 {
			storm = 6 + random.IntN(12)
		}
		if storm < 0 && random.IntN(8) > 0 {
			return tabletest.Pass
		}
		return faultsByName[faultNames[random.IntN(len(faultNames))]]
	}
}

// outcome sends a request with the organization's first key.
func (s *service) outcome(ctx context.Context, o *organization, r request) (outcome, error) {
	r.key = s.model.keys[0]
	got, wrong, err := s.send(ctx, o, r)
	switch {
	case got.status == http.StatusServiceUnavailable, err != nil && ctx.Err() != nil:
		return outcome{}, nil
	case err != nil:
		return outcome{}, err
	case len(wrong) > 0:
		err = fmt.Errorf("%s %s: %s", r.method, r.path, strings.Join(wrong, "; "))
	}
	return outcome{got.status, values(got.body), got.headers.Get("ETag")}, err
}

func written(history []porcupine.Operation) string {
	var text strings.Builder
	for _, op := range slices.SortedFunc(slices.Values(history), func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) }) {
		fmt.Fprintf(&text, "%9d to %19d ns, client %d: %s -> %+v\n", op.Call, op.Return, op.ClientId, op.Input.(act), op.Output)
	}
	return text.String()
}

// Histories that must not occur are reported: otherwise TestClients_AtOnceAreAsInTurn would check
// nothing.
func TestHistories_ThatMustNotOccurAreReported(t *testing.T) {
	t.Parallel()
	type done struct {
		act act
		out outcome
	}
	created, now := "2099-07-29T15:00:00.000Z", begins
	imports := func(buyer, status string) act {
		r, rule := importing(fmt.Sprintf(`{"id":"g","buyerID":%q,"entitlementID":"e","partner":"AWS","status":%q,"creationTime":%q,"serialID":1,"productID":""}`, buyer, status, created))
		return act{request: r, rule: rule}
	}
	changes := func(method, mapping string, ifMatch ...string) act {
		r := configured(method, `{"partnerUsageMeteringConfigs":[{"partner":"AWS","dimensionMapping":{`+mapping+`}}]}`, ifMatch...)
		return act{request: r, rule: ruleOfChange(now, r)}
	}
	config := func(mapping string) any { return values(changes("PUT", mapping).request.body) }
	// The group as the model has it after the acts.
	groups := func(acts ...act) any {
		o := newOrganization("acme")
		for _, a := range acts {
			a.rule(o, nil).then()
		}
		return []any{o.all("group")["g"]}
	}
	m := func(key string) string { return `"` + key + `":{"dimensionKey":"d","convertionMultiplier":1}` }
	var (
		importA, importB = imports("a", "CREATED"), imports("b", "REPORTED")
		del              = act{request: deleting("g", ""), rule: ruleOfDelete(now, "g", "")}
		read             = act{request: request{touches: "group g"}, stored: declared["listUsageRecordGroups"].stored}
		ok, there, none  = outcome{status: 200, body: nil}, outcome{status: 409}, outcome{status: 404}
		deletedA         = outcome{status: 200, body: groups(importA, del).([]any)[0]}
		refused, unknown = outcome{status: 400}, outcome{}
		isA, goneA       = outcome{status: 200, body: groups(importA)}, outcome{status: 200, body: groups(importA, del)}
		isNone           = outcome{status: 200, body: []any{}}

		put1, putEmpty       = changes("PUT", m("k")), changes("PUT", "")
		patch2, patch2If1    = changes("PATCH", m("l")), changes("PATCH", m("l"), `"1"`)
		patch3If1            = changes("PATCH", m("m"), `"1"`)
		get                  = act{request: configured("GET", ""), rule: ruleOfGet(configured("GET", ""))}
		hasNone, hasEmpty    = outcome{200, configBody(nil), `"0"`}, outcome{200, config(""), `"1"`}
		has1, has2           = outcome{200, config(m("k")), `"1"`}, outcome{200, config(m("l")), `"2"`}
		has12, has12With1    = outcome{200, config(m("k") + "," + m("l")), `"2"`}, outcome{200, config(m("k") + "," + m("l")), `"1"`}
		has13, changedBefore = outcome{200, config(m("k") + "," + m("m")), `"3"`}, outcome{status: 412}
	)
	for _, c := range []struct {
		name   string
		atOnce bool
		steps  []done
		want   porcupine.CheckResult
	}{
		{"group in turn", false, []done{{del, none}, {importA, ok}, {importB, there}, {del, deletedA}, {del, refused}, {read, goneA}}, porcupine.Ok},
		{"imported", false, []done{{importA, ok}, {read, isA}}, porcupine.Ok},
		{"two imports", true, []done{{importA, ok}, {importB, ok}}, porcupine.Illegal},
		{"two deletes", true, []done{{importA, ok}, {del, deletedA}, {del, deletedA}}, porcupine.Illegal},
		{"one of two deletes", true, []done{{importA, ok}, {del, deletedA}, {del, refused}}, porcupine.Ok},
		{"the group of another client deleted", true, []done{{importA, there}, {importB, ok}, {del, deletedA}}, porcupine.Illegal},
		{"acknowledged and absent", false, []done{{importA, ok}, {read, isNone}}, porcupine.Illegal},
		{"unknown, and it is there", false, []done{{importA, unknown}, {read, isA}}, porcupine.Ok},
		{"unknown, and it is not there", false, []done{{importA, unknown}, {read, isNone}}, porcupine.Ok},
		{"refused, and it has happened", false, []done{{importA, ok}, {del, none}, {read, goneA}}, porcupine.Illegal},
		{"config in turn", false, []done{{put1, has1}, {patch2If1, has12}, {patch3If1, changedBefore}, {get, has12}, {patch2, has12}}, porcupine.Ok},
		{"an empty one is not none", false, []done{{get, hasNone}, {putEmpty, hasEmpty}, {putEmpty, hasEmpty}, {get, hasEmpty}}, porcupine.Ok},
		{"a lost update", true, []done{{put1, has1}, {patch2If1, has12}, {patch3If1, has13}}, porcupine.Illegal},
		{"a patch of what was before", false, []done{{put1, has1}, {patch2, has2}}, porcupine.Illegal},
		{"stale", false, []done{{put1, has1}, {patch2, has12}, {get, has1}}, porcupine.Illegal},
		{"a config change refused, and it has happened", false, []done{{put1, has1}, {patch2If1, changedBefore}, {get, has12}}, porcupine.Illegal},
		{"a config change unknown, and it has happened", false, []done{{put1, has1}, {patch2, unknown}, {get, has12}}, porcupine.Ok},
		{"a config change unknown, and it has not", false, []done{{put1, has1}, {patch2, unknown}, {get, has1}}, porcupine.Ok},
		{"the ETag of an unknown change", false, []done{{put1, unknown}, {patch2If1, has12}}, porcupine.Ok},
		{"changed with its ETag kept", false, []done{{put1, has1}, {patch2, has12With1}}, porcupine.Illegal},
	} {
		t.Run(c.name, func(t *testing.T) {
			history := make([]porcupine.Operation, len(c.steps))
			for i, s := range c.steps {
				history[i] = porcupine.Operation{ClientId: i, Input: s.act, Output: s.out, Call: int64(10 * i), Return: int64(10*i + 5)}
				if c.atOnce {
					history[i].Return = 1000
				}
				if s.out.status == 0 {
					history[i].Return = math.MaxInt64
				}
			}
			check := func() porcupine.CheckResult {
				return porcupine.CheckOperationsTimeout(sequential("acme"), history, 0)
			}
			if got := check(); got != c.want {
				t.Fatalf("%s, want %s\n%s", got, c.want, written(history))
			}
			if c.atOnce || c.want != porcupine.Ok {
				return
			}
			for i := range history[1:] { // two results swapped
				a, b := &history[i], &history[i+1]
				if equal(a.Output, b.Output) || a.Output.(outcome).status == 0 || b.Output.(outcome).status == 0 {
					continue
				}
				a.Output, b.Output = b.Output, a.Output
				if got := check(); got != porcupine.Illegal {
					t.Errorf("with the results of %d and %d swapped: %s", i, i+1, got)
				}
				a.Output, b.Output = b.Output, a.Output
			}
		})
	}
}
