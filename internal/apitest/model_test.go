package apitest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"pgregory.net/rapid"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/wire"
)

// The model is the whole service in plain maps, with rules that were written from the contract and
// not from the code. TestService_IsItsModel does the same to the model and to the service, and
// compares them after every step. The operations' rules are in their files. Keys, foreign
// organizations, the clock, faults and lost responses need no code there.

// otherSteps are what else clients and operators do, besides letting time pass.
var otherSteps = []step{
	{"no such route", "", drawNoRoute, 1},
	{"import", "", drawImport, 7},
	{"report copy", "", drawReportCopy, 4},
	{"accepted", "", drawAccepted, 4},
	{"key create", "", createKey, 1},
	{"key rotate", "", rotateKey, 1},
	{"key revoke", "", revokeKey, 1},
}

// step is what is done next: the scopes of which a key needs one (if there are none, it needs no
// key), the function that draws it, and the odds of being next, relative to the other steps.
type step struct {
	name, scopes string
	draw         drawing
	odds         int
}

func operationSteps() (all []step) {
	for _, o := range operations() {
		all = append(all, step{o.id, o.scopes, o.draw, o.odds})
	}
	return all
}

// drawStep draws one of the steps by their odds.
func drawStep(t *rapid.T, from []step) step {
	odds := 0
	for _, s := range from {
		odds += s.odds
	}
	at := roll(t, "step", odds)
	for _, s := range from {
		if at -= s.odds; at < 0 {
			return s
		}
	}
	panic("no steps")
}

// drawing draws a request to an organization in a state of the model, with the rule for its
// response. It changes nothing.
type drawing func(*rapid.T, *model, *organization) (request, rule)

// rule returns the service's reply to a request with that key to the organization, in its state at
// that time. It changes the organization only in reply.then.
type rule func(*organization, *modelKey) reply

// reply is the required response to a request.
type reply struct {
	status  int
	body    any    // as values reads it; nil means a sentence
	says    string // what the sentence contains
	tags    *tags  // of what the response has an ETag of; nil means none
	version int    // of it
	next    *place // the position of the next page, if there is one

	numbered []doc  // those groups in body whose serialID the service has chosen
	then     func() // the changes; nil means none

	// made is the operation whose stored list has the object of body, if the service makes its id:
	// body has the id once the response or, if that was lost, the list has been read.
	made string
}

// model is the whole state.
type model struct {
	now           time.Time
	organizations []*organization
	keys          []*modelKey
	ids           []string // of the groups that are drawn
}

// organization is the state of one. An operation stores what it adds in things, or in a member of
// its own.
type organization struct {
	name     string
	products map[string]string         // by the group's id
	config   []any                     // its entries
	things   map[string]map[string]doc // by kind and id, such as "group" and "g1", as the API returns them
	etags    map[string]*tags          // by what has them, such as "config"

	places  map[string]map[int]place // by list and offset
	cursors map[string]place
	next    []request // for pages that follow others
}

// tags are the ETags of one thing by its version, of those versions that were seen. A new version
// has a number that no other has.
type tags struct {
	version int
	seen    map[int]string
}

type modelKey struct {
	secret       auth.Key // empty means that none is sent
	organization *organization
	scopes       string
	created      time.Time
	expires      time.Time // zero means never
	revoked      time.Time
	replacedBy   *modelKey
}

// newModel returns the model of organizations that have nothing.
func newModel(now time.Time, organizations ...string) *model {
	w := &model{now: now, ids: drawnIDs}
	for _, name := range organizations {
		w.organizations = append(w.organizations, newOrganization(name))
	}
	return w
}

func newOrganization(name string) *organization {
	return &organization{
		name: name, products: map[string]string{}, things: map[string]map[string]doc{}, etags: map[string]*tags{},
		places: map[string]map[int]place{}, cursors: map[string]place{},
	}
}

// clone returns an organization that can be changed apart. Of its lists it has nothing.
func (o *organization) clone() *organization {
	c := newOrganization(o.name)
	c.products, c.config = maps.Clone(o.products), o.config
	for kind, things := range o.things {
		c.things[kind] = maps.Clone(things)
	}
	for of, g := range o.etags {
		c.etags[of] = &tags{g.version, maps.Clone(g.seen)}
	}
	return c
}

// tags returns the ETags of a thing.
func (o *organization) tags(of string) *tags {
	if o.etags[of] == nil {
		o.etags[of] = &tags{seen: map[int]string{}}
	}
	return o.etags[of]
}

// all returns the things of a kind, by id. A rule replaces them and never changes them.
func (o *organization) all(kind string) map[string]doc {
	if o.things[kind] == nil {
		o.things[kind] = map[string]doc{}
	}
	return o.things[kind]
}

// other returns the other organization.
func (w *model) other(o *organization) *organization {
	return w.organizations[1-slices.Index(w.organizations, o)]
}

// drawConditions draws If-Match and If-None-Match for a thing. An ETag may be one that was seen
// before.
func (o *organization) drawConditions(t *rapid.T, of string, headers map[string]string) {
	tags := o.tags(of)
	current := tags.seen[tags.version]
	seen := []string{`"never"`, current, current, current}
	for _, version := range slices.Sorted(maps.Keys(tags.seen)) {
		seen = append(seen, tags.seen[version])
	}
	etag := cmp.Or(pick(t, "ETag", seen...), `"none"`)
	if match := pick(t, "If-Match", "", "", "", "", etag, `"x,y", `+etag, "W/"+etag, "*"); match != "" {
		headers["If-Match"] = match
	}
	if match := pick(t, "If-None-Match", "", "", "", "", "", "", "", "", "", etag, `"x,y", W/`+etag, "*"); match != "" {
		headers["If-None-Match"] = match
	}
}

var etagsIn = regexp.MustCompile(`(W/)?("[^"]*")`)

// meets reports whether a thing meets If-Match and If-None-Match. A weak ETag never matches in the
// first, and matches like a strong one in the second. "*" stands for every thing that exists, which
// the caller checks, and in the second for one that was changed.
func (o *organization) meets(of string, headers map[string]string) (match, noneMatch bool) {
	tags := o.tags(of)
	current := tags.seen[tags.version]
	match, noneMatch = headers["If-Match"] == "" || headers["If-Match"] == "*", headers["If-None-Match"] != "*" || tags.version == 0
	for _, tag := range etagsIn.FindAllStringSubmatch(headers["If-Match"], -1) {
		match = match || tag[1] == "" && tag[2] == current
	}
	for _, tag := range etagsIn.FindAllStringSubmatch(headers["If-None-Match"], -1) {
		noneMatch = noneMatch && tag[2] != current
	}
	return match, noneMatch
}

// refusal is the status of a request whose key does not allow it; 0 if it is allowed.
func (w *model) refusal(k *modelKey, o *organization, scopes string) int {
	has := strings.Fields(k.scopes)
	switch {
	case k.organization == nil || !k.revoked.IsZero() || !k.expires.IsZero() && !w.now.Before(k.expires):
		return http.StatusUnauthorized
	case k.organization != o:
		return http.StatusForbidden
	case !slices.Contains(has, "admin") && !slices.ContainsFunc(strings.Fields(scopes), func(s string) bool { return slices.Contains(has, s) }):
		return http.StatusForbidden
	}
	return 0
}

// drawKey usually draws the organization's first key, which has all permissions.
func (w *model) drawKey(t *rapid.T, o *organization) *modelKey {
	switch roll(t, "key", 10) {
	default:
		return w.keys[slices.IndexFunc(w.keys, func(k *modelKey) bool { return k.organization == o })]
	case 8:
		return pick(t, "any key", w.keys...)
	case 9:
		return pick(t, "no key", &modelKey{}, &modelKey{secret: "nonsense"}, &modelKey{secret: auth.New()})
	}
}

// place is the position at which a page of a list begins.
type place struct {
	list       string // the client and the query
	offset     int
	after      string // sortKey of the group before it; empty means the beginning
	start, end string // the days of the list
	until      time.Time
}

func sortKey(group doc) string { return group["creationTime"].(string) + "#" + group["id"].(string) }

func drawNoRoute(t *rapid.T, _ *model, _ *organization) (request, rule) {
	c := pick(t, "route", []struct {
		method, path string
		status       int
	}{
		{"GET", "/usageRecordGroups", 404},
		{"GET", "", 404},
		{"GET", "/usageRecordGroup/", 404},
		{"GET", "//usageRecordGroup", 404},
		{"DELETE", "/usageRecordGroup/a/b", 404},
		{"POST", "/usageRecordGroup", 405},
		{"PATCH", "/usageRecordGroup/g1", 405},
		{"DELETE", "/usageMeteringConfigInfo", 405},
	}...)
	return request{method: c.method, path: c.path}, func(*organization, *modelKey) reply { return reply{status: c.status} }
}

var (
	drawnStatuses     = []string{"CREATED", "CREATED", "CREATED", "INVALID", "DELETED", "REPORTED", "REPORT_PENDING", "REPORT_FAILED"}
	drawnBuyers       = []string{"b1", "b1#STATUS#CREATED"}
	drawnEntitlements = []string{"e1", "e2"}
	drawnIDs          = []string{"g1", "g2", "g3", "g4", "g5", "g6", "G", "g#1", "g 1", "ü+2F"}
)

func (w *model) drawID(t *rapid.T) string { return pick(t, "id", w.ids...) }

// drawImport stores a group as marketmeter import does: unchanged, unless its id exists.
func drawImport(t *rapid.T, w *model, o *organization) (request, rule) {
	id, product := w.drawID(t), pick(t, "product", "", "p1", "p2")
	midnight := w.now.Truncate(24 * time.Hour)
	created := pick(t, "creationTime",
		w.now, w.now, w.now.Add(-time.Second), w.now.Add(-time.Hour), midnight, midnight.Add(-time.Nanosecond), midnight.AddDate(0, 0, 1).Add(-time.Nanosecond),
		w.now.AddDate(0, 0, -1), midnight.AddDate(0, 0, -30), midnight.AddDate(0, 0, -30).Add(-time.Nanosecond), w.now.AddDate(0, 0, -40))
	line := fmt.Sprintf(`{"id":%q,"buyerID":%q,"entitlementID":%q,"partner":%q,"status":%q,"creationTime":%q,"serialID":%d,"productID":%q%s}`,
		id, pick(t, "buyer", drawnBuyers...), pick(t, "entitlement", drawnEntitlements...),
		pick(t, "partner", partners...), pick(t, "status", drawnStatuses...),
		created.In(pick(t, "zone", time.UTC, time.FixedZone("", 5400))).Format(time.RFC3339Nano),
		roll(t, "serialID", 3), product,
		pick(t, "rest",
			"", `,"records":{"cpu":1.50,"big":9007199254740993}`, `,"metaInfo":{"source":"API","originRecords":{"cpu":1.5}}`, `,"metaInfo":{"SkipValidation":true,"source":"ORB"}`,
			`,"metaInfo":{"metronomeInvoiceID":`+quoted(o.name)+`}`,
			`,"metaInfo":{"billableRecords":[{"key":"m","quantity":2,"properties":{"zone":"us"}},{"key":"m","quantity":1e1,"properties":{"zone":"eu","n":1}}]}`,
		))
	if roll(t, "unreadable", 16) == 15 {
		line = strings.Replace(line, "buyerID", "buyer", 1)
	}
	return importing(line)
}

// importing imports a line.
func importing(line string) (request, rule) {
	g, _ := values(line).(doc)
	id, product, created := g["id"].(string), g["productID"], g["creationTime"].(string)
	r := request{touches: "group " + id, body: line, operator: func(ctx context.Context, tbl *table.Table, org string) error {
		g, err := wire.DecodeGroup([]byte(line))
		if err != nil {
			return err
		}
		g.OrganizationID = org
		stored, err := tbl.Put(ctx, &g)
		if err == nil && !stored {
			err = errIsThere
		}
		return err
	}}
	return r, func(o *organization, _ *modelKey) reply {
		switch {
		case g["buyerID"] == nil:
			return reply{status: 400}
		case o.all("group")[id] != nil:
			return reply{status: 409}
		}
		return reply{status: 200, then: func() {
			stored := doc{"records": doc{}, "metaInfo": doc{}, "usageRecordReportID": ""}
			maps.Copy(stored, g)
			delete(stored, "productID")
			at, _ := time.Parse(time.RFC3339Nano, created)
			stored["organizationID"], stored["creationTime"], stored["lastUpdateTime"] = o.name, milliseconds(at), milliseconds(at)
			o.all("group")[id], o.products[id] = stored, product.(string)
		}}
	}
}

func createKey(t *rapid.T, w *model, o *organization) (request, rule) {
	k := w.newKey(o, pick(t, "scopes", "read", "write", "config", "read write", "admin"))
	if life := pick(t, "life", time.Duration(0), time.Minute, time.Hour, 24*time.Hour); life > 0 {
		k.expires = k.created.Add(life)
	}
	r := request{operator: func(ctx context.Context, tbl *table.Table, org string) error { return tbl.AddAPIKey(ctx, k.record()) }}
	return r, func(o *organization, _ *modelKey) reply {
		return reply{status: 200, then: func() { w.keys = append(w.keys, k) }}
	}
}

func rotateKey(t *rapid.T, w *model, o *organization) (request, rule) {
	old, k := w.drawChangedKey(t), w.newKey(o, "read write config")
	ends := k.created.Add(pick(t, "keep", time.Duration(0), time.Hour))
	r := request{operator: func(ctx context.Context, tbl *table.Table, org string) error {
		return tbl.RotateAPIKey(ctx, old.secret.Hash(), ends, k.record())
	}}
	return r, func(o *organization, _ *modelKey) reply {
		if old.organization != o || !old.revoked.IsZero() || old.replacedBy != nil {
			return reply{status: 404}
		}
		return reply{status: 200, then: func() {
			w.keys = append(w.keys, k)
			old.expires, old.replacedBy = ends, k
		}}
	}
}

func revokeKey(t *rapid.T, w *model, o *organization) (request, rule) {
	k, at := w.drawChangedKey(t), w.now.Truncate(time.Millisecond)
	r := request{operator: func(ctx context.Context, tbl *table.Table, org string) error {
		_, err := tbl.RevokeAPIKey(ctx, metering.OrgID(org), k.secret.Hash(), at, "operator")
		return err
	}}
	return r, func(o *organization, _ *modelKey) reply {
		switch {
		case k.organization != o:
			return reply{status: 404}
		case !k.revoked.IsZero(): // it stays unchanged
			return reply{status: 200}
		}
		return reply{status: 200, then: func() { k.revoked = at }}
	}
}

// drawChangedKey draws any key but the first of each organization, with which the test reads the
// stored data.
func (w *model) drawChangedKey(t *rapid.T) *modelKey {
	if len(w.keys) == len(w.organizations) {
		t.Skip("there is no other")
	}
	return pick(t, "which key", w.keys[len(w.organizations):]...)
}

func (w *model) newKey(o *organization, scopes string) *modelKey {
	return &modelKey{secret: auth.New(), organization: o, scopes: scopes, created: w.now.Truncate(time.Millisecond)}
}

func (k *modelKey) record() *auth.Record {
	scopes, err := auth.ParseScopes(strings.ReplaceAll(k.scopes, " ", ","))
	if err != nil {
		panic(err)
	}
	return &auth.Record{
		Hash: k.secret.Hash(), Organization: k.organization.name, Scopes: scopes, CreatedBy: "operator", CreationTime: k.created, ExpiryTime: k.expires,
	}
}

// stored is what a client and an operator can read of all data that is stored for good.
func (w *model) stored(o *organization) doc {
	keys := doc{}
	for _, k := range w.keys {
		if k.organization == o {
			replaced := ""
			if k.replacedBy != nil {
				replaced = k.replacedBy.secret.Hash().ID()
			}
			keys[k.secret.Hash().ID()] = fmt.Sprint(k.record().Scopes, k.created, k.expires, k.revoked, replaced)
		}
	}
	all := doc{"keys": keys}
	for _, op := range operations() {
		if op.stored != nil {
			all[op.id] = op.stored.model(o)
		}
	}
	return all
}

// values reads JSON; an error is a value that is equal to none.
func values(text string) any {
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return err
	}
	return exactNumbers(value)
}

// roll is a fair die, with sides from 0: numbers that rapid draws itself are mostly small.
func roll(t *rapid.T, label string, sides int) int { return bits.Draw(t, label) % sides }

var bits = rapid.Custom(func(t *rapid.T) (n int) {
	for range 10 {
		if n *= 2; rapid.Bool().Draw(t, "bit") {
			n++
		}
	}
	return n
})

func pick[T any](t *rapid.T, label string, of ...T) T { return of[roll(t, label, len(of))] }

// object returns an object of a response. A response that is an array becomes the member list.
func object(value any) doc {
	if list, ok := value.([]any); ok {
		return doc{"list": list}
	}
	return value.(doc)
}

func equal(a, b any) bool { return reflect.DeepEqual(a, b) }

func exactNumbers(value any) any {
	switch value := value.(type) {
	case json.Number:
		r, ok := new(big.Rat).SetString(value.String())
		if !ok {
			panic("no number: " + value.String())
		}
		return exact(r.RatString())
	case []any:
		for i := range value {
			value[i] = exactNumbers(value[i])
		}
	case doc:
		for name := range value {
			value[name] = exactNumbers(value[name])
		}
	}
	return value
}

func day(at time.Time, later int) string { return at.UTC().AddDate(0, 0, later).Format(time.DateOnly) }

// errIsThere is the error of an import of a group whose id exists.
var errIsThere = errors.New("it is there already")

// adopt takes the serial numbers that the service has chosen.
func (r reply) adopt(body any) {
	groups, isList := body.([]any)
	if !isList {
		groups = []any{body}
	}
	for _, value := range groups {
		got, _ := value.(doc)
		for _, g := range r.numbered {
			if g["id"] == got["id"] {
				g["serialID"] = got["serialID"]
			}
		}
	}
}

// numbered is want with the serial numbers that got has for groups of which the model knows none,
// because the response that had them was lost.
func numbered(want, got any) any {
	switch want := want.(type) {
	case []any:
		got, _ := got.([]any)
		all := slices.Clone(want)
		for i := range min(len(all), len(got)) {
			all[i] = numbered(all[i], got[i])
		}
		return all
	case doc:
		got, _ := got.(doc)
		if _, isGroup := want["usageRecordReportID"]; isGroup && want["serialID"] == nil && got["serialID"] != nil {
			want = maps.Clone(want)
			want["serialID"] = got["serialID"]
		}
		return want
	default:
		return want
	}
}
