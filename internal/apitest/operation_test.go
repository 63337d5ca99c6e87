package apitest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/table"
)

// operation is all that the tests know of an operation of the API. It is written from the contract
// and the description, not from the code. Each operation is declared in a file of its own, which is
// all that is to be written for the tests of every operation: authentication, authorization, the
// isolation of organizations, policies, failures, the log, faults at each request, the model and
// linearizability. For example, in operation_delete_test.go:
//
//	var _ = declare(operation{
//		id: "deleteUsageRecordGroup", scopes: "write",
//		given:   []request{imported(group("g1"))},
//		example: request{method: "DELETE", path: "/usageRecordGroup/g1"},
//		draw:    drawDelete, odds: 4,
//		shows:   []exchange{{deleting("g1"), 200}, {deleting("absent"), 404}},
//		effects: []effect{{again: http.StatusBadRequest}},
//	})
//
// TestOperations_AreDeclared reports what is missing, by name. What only this operation does has
// tests of its own, in another file.
type operation struct {
	id     string // as in httpapi.Operations and api/openapi.yaml
	scopes string // those of which a key needs one, beside admin: "read write"

	// example is a request that gets a 200 after given: what is imported, or stored by requests of
	// other operations. A path is what follows the organization's. The operations share an
	// organization in some tests, in any order: what the example changes has an id of its own.
	given   []request
	example request

	// draw draws a request of any kind, valid or not, and returns the rule for its response.
	draw drawing
	odds int // of being drawn, relative to the other operations

	// stored compares what is stored for good with the model. One operation of those that read the
	// same data has it.
	stored *stored

	// shows are requests after given, in their order, which make it access the table in all its
	// ways. It is empty if the operation has no table.
	shows []exchange

	// effects are the cases in which it is repeated until it succeeds, over a network that fails in
	// each way at each request. The first is the example; it has at least one if it has a table.
	effects []effect

	blind bool // it gets its 200 whatever is stored: it reads nothing
}

// exchange is a request and the status of its response.
type exchange struct {
	request request
	status  int
}

// stored is data that is stored for good: what the model has, and how a client reads it. Both are
// one value, or a list of objects with ids.
type stored struct {
	of      string // how touches of the requests that change it begins
	model   func(*organization) any
	service func(read func(path, query string) doc) any
}

// effect is a case in which a client or an operator does something over a network that fails.
type effect struct {
	name    string    // what follows the operation's id; empty for its example
	given   []request // nil is what the operation has
	request request   // the zero value is the operation's example

	prepare func(ctx context.Context, w *world) error                     // what no request of given does
	do      func(ctx context.Context, w *world, over *table.Table) answer // instead of one request

	again  int  // the status if it is requested again after it was done
	steady bool // the last writer wins: to do it again at the same time changes nothing, and later only a little
	reads  bool // it writes nothing but checkpoints of its list; its next pages show whether those are right
	hasty  bool // DynamoDB reads one group per response, and a list is read no longer than for one
}

var declared = map[string]operation{}

// declare adds an operation to the list of all.
func declare(o operation) string {
	if _, twice := declared[o.id]; twice {
		panic("two operations are " + o.id)
	}
	for i := range o.effects {
		e := &o.effects[i]
		e.name = strings.TrimSpace(o.id + " " + e.name)
		if e.given == nil {
			e.given = o.given
		}
		if e.request.method == "" {
			e.request = o.example
		}
		if e.do == nil {
			e.do = func(ctx context.Context, w *world, over *table.Table) answer { return w.send(ctx, over, e.request) }
		}
	}
	declared[o.id] = o
	return o.id
}

// operations returns all operations, by id.
func operations() (all []operation) {
	for _, id := range slices.Sorted(maps.Keys(declared)) {
		all = append(all, declared[id])
	}
	return all
}

// usesTable reports whether the operation has access to the table.
func (o operation) usesTable() bool {
	return slices.ContainsFunc(httpapi.Operations(), func(h httpapi.Operation) bool { return h.ID == o.id && len(h.Table) > 0 })
}

// admits reports whether a key with these scopes is allowed to do it.
func (o operation) admits(scopes ...string) bool {
	return slices.ContainsFunc(append(strings.Fields(o.scopes), "admin"), func(scope string) bool { return slices.Contains(scopes, scope) })
}

// of returns the request to the organization.
func (r request) of(org string) request {
	r.path = orgPath(org) + r.path
	return r
}

// imported is an operator's import of a group; it does nothing if the id exists.
func imported(g doc) request {
	return request{operator: func(ctx context.Context, tbl *table.Table, org string) error {
		stored, err := decodeGroup(org, g)
		if err == nil {
			_, err = tbl.Put(ctx, stored)
		}
		return err
	}}
}

// everyOperation returns the example of each operation, for that organization.
func everyOperation(org string) map[string]request {
	all := map[string]request{}
	for _, o := range operations() {
		all[o.id] = o.example.of(org)
	}
	return all
}

// give stores what requests store, in an organization.
func (a *api) give(t testing.TB, org string, requests ...request) {
	t.Helper()
	for _, r := range requests {
		if r.operator != nil {
			if err := r.operator(t.Context(), a.table, org); err != nil {
				t.Fatal(err)
			}
		} else if got := a.do(t, r.of(org)); got.status >= 300 {
			t.Fatalf("%s %s: %d %s", r.method, r.path, got.status, got.body)
		}
	}
}

// giveAll stores what the examples of all operations need.
func (a *api) giveAll(t testing.TB, org string) {
	t.Helper()
	for _, o := range operations() {
		a.give(t, org, o.given...)
	}
}

// Every operation of the API is declared for the tests, and with all that they need.
func TestOperations_AreDeclared(t *testing.T) {
	t.Parallel()
	for _, problem := range undeclared(operations()) {
		t.Error(problem)
	}
	for _, o := range operations() { // each member, forgotten
		for name, forget := range map[string]func(*operation){
			"not declared": func(o *operation) { o.id = "" }, "scopes": func(o *operation) { o.scopes = "admin" }, "example": func(o *operation) { o.example = request{} },
			"draw": func(o *operation) { o.draw = nil }, "odds": func(o *operation) { o.odds = 0 }, "shows": func(o *operation) { o.shows = nil }, "effects": func(o *operation) { o.effects = nil },
		} {
			edited := operations()
			at := slices.IndexFunc(edited, func(e operation) bool { return e.id == o.id })
			forget(&edited[at])
			problems := undeclared(edited)
			if needed := o.usesTable() || name != "shows" && name != "effects"; needed != slices.ContainsFunc(problems, func(p string) bool { return strings.HasPrefix(p, o.id) && strings.Contains(p, name) }) {
				t.Errorf("%s without %s: %q", o.id, name, problems)
			}
		}
	}
}

// undeclared reports what the declarations lack.
func undeclared(all []operation) (problems []string) {
	for _, h := range httpapi.Operations() {
		report := func(problem string, args ...any) {
			problems = append(problems, h.ID+": "+fmt.Sprintf(problem, args...))
		}
		at := slices.IndexFunc(all, func(o operation) bool { return o.id == h.ID })
		if at < 0 {
			report("it is not declared: internal/apitest needs a file operation_..._test.go, as operation_test.go says")
			continue
		}
		o := all[at]
		if scopes := strings.ReplaceAll(o.scopes, " ", ","); scopes != h.Scopes.String() {
			report("the scopes of its declaration are %s, those of the operation %s", scopes, h.Scopes)
		}
		if f, e := routed(o.example.method, o.example.of("acme").path); f == nil || e.String() != h.Method+" "+h.Path {
			report("its example is no request to %s %s", h.Method, h.Path)
		}
		if o.draw == nil || o.odds < 1 || !o.isDrawn(h) {
			report("it has no draw of requests to %s %s, or no odds", h.Method, h.Path)
		}
		if len(h.Table) > 0 && len(o.shows) == 0 {
			report("it has a table, and no request in shows")
		}
		if len(h.Table) > 0 && len(o.effects) == 0 {
			report("it has a table, and no effects")
		}
	}
	for _, o := range all {
		if o.id != "" && !slices.ContainsFunc(httpapi.Operations(), func(h httpapi.Operation) bool { return h.ID == o.id }) {
			problems = append(problems, o.id+": it is declared here, and no operation of the API")
		}
	}
	return problems
}

// isDrawn reports whether draw draws requests of the operation.
func (o operation) isDrawn(h httpapi.Operation) bool {
	w := newModel(now, "acme", "other")
	draw := rapid.Custom(func(t *rapid.T) request {
		r, _ := o.draw(t, w, w.organizations[0])
		return r.of("acme")
	})
	for seed := range 20 {
		r := draw.Example(seed)
		if _, e := routed(r.method, r.path); e.String() == h.Method+" "+h.Path {
			return true
		}
	}
	return false
}
