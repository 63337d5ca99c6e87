package reliability

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/wire"
)

// The model is the whole service in plain maps, with rules that were written from the contract and
// not from the code. TestTheServiceIsItsModel does the same to the model and to the service, and
// compares them after every step.
//
// To add an operation, write a function like deleteGroup: it draws a request and returns a rule for
// its result, which reads the model and changes it only in reply.then. Add it to actions, with the
// scopes that admit to it. Store its state in a member of organization. If that state is stored for
// good, add what a client can read of it to model.stored, and how to read it to service.stored.
// Keys, foreign organizations, the clock, faults and lost responses need no code.

// actions are what clients and operators do, besides letting time pass.
var actions = map[string]action{
	"listUsageRecordGroups":          {"read", list, 4},
	"list, next page":                {"read", nextPage, 3},
	"list, unreadable":               {"read", listUnreadable, 1},
	"deleteUsageRecordGroup":         {"write", deleteGroup, 4},
	validating:                       {"read write", validateGroups, 1},
	"getUsageMeteringConfigInfo":     {"read config", getConfig, 1},
	"replaceUsageMeteringConfigInfo": {"config", putConfig, 2},
	"updateUsageMeteringConfigInfo":  {"config", patchConfig, 5},
	"no such route":                  {"", noSuchRoute, 1},
	"import":                         {"", importGroup, 7},
	"key create":                     {"", createKey, 1},
	"key rotate":                     {"", rotateKey, 1},
	"key revoke":                     {"", revokeKey, 1},
}

// The model has every operation of the API, with its scopes.
func TestActions_CoverOperations(t *testing.T) {
	t.Parallel()
	for _, o := range httpapi.Operations() {
		if a, ok := actions[o.ID]; !ok || strings.ReplaceAll(a.scopes, " ", ",") != o.Scopes.String() {
			t.Errorf("the model has %s with the scopes %q: it is allowed by %s", o.ID, a.scopes, o.Scopes)
		}
	}
}

// action is one of them: the scopes of which a key needs one (with none it needs no key), and the
// function that draws a request to an organization, with the rule for its result.
type action struct {
	scopes string
	draw   func(*rapid.T, *model, *organization) (request, rule)
	odds   int // of being the next step, relative to the others
}

// rule returns the service's reply to a request with that key.
type rule func(*key) reply

// request is what a client sends to an organization, or what an operator does to it.
type request struct {
	method, path string // the path below that of the organization, escaped
	query        url.Values
	headers      map[string]string
	body         string
	key          *key // nil means any
	operator     func(context.Context, *table.Table) error
}

// reply is the required result of a request.
type reply struct {
	status  int
	body    any    // as values reads it; nil means a sentence
	says    string // what the sentence contains
	version int    // of the config, if the response has an ETag
	next    *place // the position of the next page, if there is one
	then    func() // the changes; nil means none
}

// model is the whole state.
type model struct {
	now           time.Time
	organizations []*organization
	keys          []*key
}

type organization struct {
	name     string
	groups   map[string]object // by id, as the API returns them
	products map[string]string // by the group's id

	config  []any          // its entries
	version int            // the number of changes
	etags   map[int]string // of the versions that were seen

	places  map[string]map[int]place // by list and offset
	cursors map[string]place
	next    []request // for pages that follow others
}

type key struct {
	secret       auth.Key // empty means that none is sent
	organization *organization
	scopes       string
	created      time.Time
	expires      time.Time // zero means never
	revoked      time.Time
	replacedBy   *key
}

// object is a JSON object, with each number in it a number.
type object = map[string]any

// number is a number by its value: 1, 1.0 and 1e0 are the same.
type number string

func newOrganization(name string) *organization {
	return &organization{
		name: name, groups: map[string]object{}, products: map[string]string{}, etags: map[int]string{},
		places: map[string]map[int]place{}, cursors: map[string]place{},
	}
}

// refusal is the status of a request whose key does not allow it; 0 if it is allowed.
func (w *model) refusal(k *key, o *organization, scopes string) int {
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
func (w *model) drawKey(t *rapid.T, o *organization) *key {
	switch roll(t, "key", 10) {
	default:
		return w.keys[slices.IndexFunc(w.keys, func(k *key) bool { return k.organization == o })]
	case 8:
		return pick(t, "any key", w.keys...)
	case 9:
		return pick(t, "no key", &key{}, &key{secret: "nonsense"}, &key{secret: auth.New()})
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

func sortKey(group object) string { return group["creationTime"].(string) + "#" + group["id"].(string) }

func list(t *rapid.T, w *model, o *organization) (request, rule) {
	query := url.Values{}
	set := func(odds int, name string, values ...string) {
		if roll(t, "with "+name, odds) == odds-1 {
			query.Set(name, pick(t, name, values...))
		}
	}
	switch roll(t, "filter", 8) {
	case 4:
		set(1, "partner", partners...)
	case 5:
		set(1, "productId", "p1", "p2")
	case 6:
		set(1, "entitlementId", entitlements...)
	case 7:
		set(1, "buyerId", buyers...)
	}
	set(3, "status", append(statuses, "")...)
	set(6, "source", "API", "ORB")
	set(6, "metaInfo", `{}`, `{"source":"API"}`, `{"originRecords":{"cpu":1.50}}`, `{"billableRecords":[{"properties":{"zone":"eu"}}]}`, `{"billableRecords":[]}`, `{"SkipValidation":true}`)
	set(4, "startDate", day(w.now, -40), day(w.now, -30), day(w.now, -1), day(w.now, 0), day(w.now, 1))
	set(4, "endDate", day(w.now, -31), day(w.now, -1), day(w.now, 0), day(w.now, 2))
	set(1, "limit", "1", "1", "2", "3", "1000", "")
	set(5, "offset", "0", "1", "2", "3", "5", "2147483647")
	r := request{method: "GET", path: "/usageRecordGroup", query: query}
	return r, func(k *key) reply { return o.list(w.now, k, query) }
}

func nextPage(t *rapid.T, w *model, o *organization) (request, rule) {
	if len(o.next) == 0 {
		t.Skip("no page has one")
	}
	r := pick(t, "next page", o.next[max(0, len(o.next)-6):]...)
	r.query = maps.Clone(r.query)
	if roll(t, "with another limit", 2) == 1 {
		r.query.Set("limit", pick(t, "limit", "1", "2", "4", ""))
	}
	switch roll(t, "spoil", 10) {
	case 8:
		r.key = nil // a list belongs to its client
	case 9:
		r.query.Set("status", "CREATED")
	}
	return r, func(k *key) reply { return o.list(w.now, k, r.query) }
}

func (o *organization) list(now time.Time, k *key, query url.Values) reply {
	filter := url.Values{}
	for name := range query {
		if value := query.Get(name); value != "" && name != "limit" && name != "offset" && name != "cursor" {
			filter.Set(name, value)
		}
	}
	// The checkpoints of a list are stored for an hour, by client and query.
	at := place{list: string(k.secret) + " " + filter.Encode(), start: filter.Get("startDate"), end: cmp.Or(filter.Get("endDate"), day(now, 0))}
	if at.start == "" {
		end, _ := time.Parse(time.DateOnly, at.end)
		at.start = day(end, -30)
	}
	if at.start > at.end {
		return reply{status: 400, says: "start"}
	}
	offset, _ := strconv.Atoi(query.Get("offset"))
	cursor := query.Get("cursor")
	if cursor != "" {
		from, ok := o.cursors[cursor]
		if !ok || from.list != at.list {
			return reply{status: 400, says: "cursor"}
		}
		at, offset = from, from.offset
	}
	for _, kept := range o.places[at.list] {
		if cursor == "" && kept.offset <= offset && kept.offset > at.offset && kept.until.After(now) {
			at = kept
		}
	}

	var rest []object
	for id, g := range o.groups {
		created := g["creationTime"].(string)[:len(time.DateOnly)]
		if at.start <= created && created <= at.end && (at.after == "" || sortKey(g) < at.after) && isLike(g, o.products[id], filter) {
			rest = append(rest, g)
		}
	}
	slices.SortFunc(rest, func(a, b object) int { return cmp.Compare(sortKey(b), sortKey(a)) })
	rest = rest[min(offset-at.offset, len(rest)):]
	limit, _ := strconv.Atoi(cmp.Or(query.Get("limit"), "1000"))
	groups := []any{}
	for _, g := range rest[:min(limit, len(rest))] {
		groups = append(groups, g)
	}
	if len(groups) == len(rest) {
		return reply{status: 200, body: object{"usageRecordGroups": groups, "nextOffset": number("0")}}
	}
	next := place{at.list, offset + len(groups), sortKey(rest[len(groups)-1]), at.start, at.end, now.Add(time.Hour)}
	return reply{
		status: 200, body: object{"usageRecordGroups": groups, "nextOffset": number(strconv.Itoa(next.offset))}, next: &next,
		then: func() {
			if cursor != "" {
				return
			}
			if o.places[next.list] == nil {
				o.places[next.list] = map[int]place{}
			}
			o.places[next.list][next.offset] = next
		},
	}
}

func isLike(g object, product string, filter url.Values) bool {
	metaInfo := g["metaInfo"].(object)
	for name := range filter {
		has := any(nil)
		switch name {
		case "partner", "status":
			has = g[name]
		case "buyerId":
			has = g["buyerID"]
		case "entitlementId":
			has = g["entitlementID"]
		case "productId":
			has = product
		case "source":
			has = metaInfo["source"]
		case "metaInfo":
			if !includes(metaInfo, values(filter.Get(name))) {
				return false
			}
			continue
		default:
			continue
		}
		if has != filter.Get(name) {
			return false
		}
	}
	return true
}

// includes compares objects member by member. An array includes another if each of its elements is
// included in some element.
func includes(has, wanted any) bool {
	switch wanted := wanted.(type) {
	case object:
		in, ok := has.(object)
		for name, value := range wanted {
			ok = ok && includes(in[name], value)
		}
		return ok
	case []any:
		in, ok := has.([]any)
		for _, value := range wanted {
			ok = ok && slices.ContainsFunc(in, func(element any) bool { return includes(element, value) })
		}
		return ok
	default:
		return has == wanted
	}
}

func listUnreadable(t *rapid.T, _ *model, _ *organization) (request, rule) {
	query, err := url.ParseQuery(pick(t, "query",
		"limit=0", "limit=1001", "limit=x", "offset=-1", "offset=2147483648", "status=created", "source=Z", "partner=ADYEN", "partner=AWS&buyerId=b1",
		"startDate=2099-02-30", "colour=red", "status=CREATED&status=DELETED", "metaInfo=[]", "metaInfo={", "cursor=x", "cursor=x&offset=1"))
	if err != nil {
		t.Fatal(err)
	}
	return request{method: "GET", path: "/usageRecordGroup", query: query}, func(*key) reply { return reply{status: 400} }
}

func deleteGroup(t *rapid.T, w *model, o *organization) (request, rule) {
	id := drawID(t)
	created := ""
	switch roll(t, "creationDate", 6) {
	case 4:
		if g, ok := o.groups[id]; ok {
			created = g["creationTime"].(string)[:len(time.DateOnly)]
		}
	case 5:
		created = day(w.now, roll(t, "day", 4)-2)
	}
	return request{method: "DELETE", path: "/usageRecordGroup/" + url.PathEscape(id), query: url.Values{"creationDate": {created}}}, func(*key) reply {
		g, ok := o.groups[id]
		switch {
		case !ok || created != "" && created != g["creationTime"].(string)[:len(time.DateOnly)]:
			return reply{status: 404, says: id}
		case g["status"] != "CREATED" && g["status"] != "INVALID":
			return reply{status: 400, says: g["status"].(string)}
		}
		deleted := maps.Clone(g)
		deleted["status"], deleted["lastUpdateTime"] = "DELETED", milliseconds(w.now)
		return reply{status: 200, body: deleted, then: func() { o.groups[id] = deleted }}
	}
}

// validating is the ID of the operation that validates groups, and the end of its path.
const validating = "batchValidateUsageRecordGroups"

func validateGroups(t *rapid.T, w *model, o *organization) (request, rule) {
	at := func(after time.Duration) string { return milliseconds(w.now.Add(after)) }
	c := pick(t, "body", []struct {
		status     int
		says, body string
	}{
		{200, "", `[{"records":{"cpu":1}}]`},
		{200, "", `[{"records":{},"billableRecords":[{"key":"m","quantity":0.5}]},{"records":{"a":0,"b":1e2}}]`},
		{200, "", `[{"organizationID":"` + o.name + `","records":{"cpu":1},"timestamp":"` + at(5*time.Minute-time.Second) + `"}]`},
		{200, "", `[{"records":{"cpu":-1},"metaInfo":{"SkipValidation":true}}]`},
		{400, "", `[]`},
		{400, "", `{"records":{"cpu":1}}`},
		{400, "", `[{"records":{"cpu":"1"}}]`},
		{400, "", `[{"record":{"cpu":1}}]`},
		{400, "", `[{"records":{"cpu":-1}},{"timestamp":"yesterday"}]`},
		{500, "index 1", `[{"records":{"cpu":1}},{"records":{"cpu":-1}}]`},
		{500, "index 0", `[{"records":{"cpu":0}}]`},
		{500, "organizationID", `[{"organizationID":"other","records":{"cpu":1}}]`},
		{500, "timestamp", `[{"records":{"cpu":1},"timestamp":"` + at(5*time.Minute+time.Second) + `"}]`},
		{500, "2 of 2", `[{},{"records":{"":1}}]`},
	}...)
	return request{method: "POST", path: "/" + validating, body: c.body}, func(*key) reply {
		if c.status == 200 {
			return reply{status: 200, body: ""}
		}
		return reply{status: c.status, says: c.says}
	}
}

func (o *organization) configBody(entries []any) object {
	return object{"partnerUsageMeteringConfigs": append([]any{}, entries...)}
}

func getConfig(t *rapid.T, _ *model, o *organization) (request, rule) {
	r := request{method: "GET", path: "/usageMeteringConfigInfo", headers: map[string]string{}}
	matches, noneMatches := o.drawConditions(t, r.headers)
	return r, func(*key) reply {
		switch {
		case !matches():
			return reply{status: 412}
		case !noneMatches():
			return reply{status: 304, version: o.version}
		}
		return reply{status: 200, body: o.configBody(o.config), version: o.version}
	}
}

func putConfig(t *rapid.T, _ *model, o *organization) (request, rule) {
	return o.changeConfig(t, "PUT", func(body object) ([]any, bool) { return mergeConfig(nil, body) })
}

func patchConfig(t *rapid.T, _ *model, o *organization) (request, rule) {
	return o.changeConfig(t, "PATCH", func(body object) ([]any, bool) { return mergeConfig(o.config, body) })
}

func (o *organization) changeConfig(t *rapid.T, method string, change func(body object) ([]any, bool)) (request, rule) {
	body, readable := drawConfig(t)
	r := request{method: method, path: "/usageMeteringConfigInfo", headers: map[string]string{"Content-Type": "application/json"}, body: body}
	if roll(t, "other type", 10) == 9 {
		r.headers["Content-Type"] = "application/merge-patch+json"
	}
	matches, noneMatches := o.drawConditions(t, r.headers)
	return r, func(*key) reply {
		switch {
		case method == "PUT" && r.headers["Content-Type"] != "application/json":
			return reply{status: 415}
		case !readable:
			return reply{status: 400}
		case !matches() || !noneMatches():
			return reply{status: 412}
		}
		entries, ok := change(values(body).(object))
		if !ok {
			return reply{status: 400}
		}
		answer := reply{status: 200, body: o.configBody(entries), version: o.version}
		if !equal(answer.body, o.configBody(o.config)) { // otherwise nothing is written
			answer.version++
			answer.then = func() { o.config, o.version = entries, o.version+1 }
		}
		return answer
	}
}

// drawConditions draws If-Match and If-None-Match, and whether the config meets each. An ETag may
// be one that was seen before.
func (o *organization) drawConditions(t *rapid.T, headers map[string]string) (matches, noneMatches func() bool) {
	current := o.etags[o.version]
	seen := []string{`"never"`, current, current, current}
	for version := range o.version {
		seen = append(seen, o.etags[version])
	}
	etag := cmp.Or(pick(t, "ETag", seen...), `"none"`)
	is := func() bool { return etag == current }
	met := func() bool { return true }
	matches, noneMatches = met, met
	switch roll(t, "If-Match", 8) {
	case 4:
		headers["If-Match"], matches = etag, is
	case 5:
		headers["If-Match"], matches = `"x,y", `+etag, is
	case 6:
		headers["If-Match"], matches = "W/"+etag, func() bool { return false } // a weak ETag never matches
	case 7:
		headers["If-Match"] = "*"
	}
	switch roll(t, "If-None-Match", 12) {
	case 9:
		headers["If-None-Match"], noneMatches = etag, func() bool { return !is() }
	case 10:
		headers["If-None-Match"], noneMatches = `"x,y", W/`+etag, func() bool { return !is() } // a weak ETag matches like a strong one
	case 11:
		headers["If-None-Match"], noneMatches = "*", func() bool { return o.version == 0 }
	}
	return matches, noneMatches
}

// drawConfig draws the body of a change, and reports whether it can be read as one.
func drawConfig(t *rapid.T) (body string, readable bool) {
	switch roll(t, "special", 16) {
	case 14:
		return pick(t, "body", `{}`, `{"partnerUsageMeteringConfigs":null}`, `{"partnerUsageMeteringConfigs":[]}`), true
	case 15:
		return pick(t, "body",
			``, `[]`, `{"partners":[]}`, `{} {}`, `{"partnerUsageMeteringConfigs":[{"partner":"AWS","partner":"AWS"}]}`,
			`{"partnerUsageMeteringConfigs":[{"partner":"AWS","enableDimensionMapping":1}]}`,
			`{"partnerUsageMeteringConfigs":[{"partner":"AWS","dimensionMapping":{"k":{"conversionMultiplier":1}}}]}`,
		), false
	}
	var entries []string
	for range 1 + roll(t, "entries", 2) {
		members := []string{`"partner":"` + pick(t, "partner", "AWS", "AWS", "AWS", "AWS", "AWS", "GCP", "GCP", "GCP", "AZURE", "ORB", "", "NOBODY") + `"`}
		add := func(odds int, name string, values ...string) {
			if roll(t, "with "+name, odds) == odds-1 {
				members = append(members, `"`+name+`":`+pick(t, name, values...))
			}
		}
		add(3, "enableDimensionMapping", "true", "false", "null")
		add(6, "enableCommitWithAdditionalUsageMetering", "true", "false", "null")
		add(2, "dimensionMapping", `{}`, `null`, `{"k":null}`, `{"k":null}`, `{"k":null,"l":null}`, `{"k":{"dimensionKey":"d","convertionMultiplier":1.50}}`, `{"k":{"dimensionKey":"f","convertionMultiplier":3}}`, `{"k":{"dimensionKey":"d","mappingMode":"","convertionMultiplier":1}}`,
			`{"k":{"convertionMultiplier":2}}`,
			`{"k":{"convertionMultiplier":1.5e0}}`, `{"l":{"dimensionKey":"e","mappingMode":"AMOUNT"}}`, `{"l":{"mappingMode":"QUANTITY"}}`, `{"k":{"mappingMode":null},"l":null}`,
			`{"k":{"dimensionKey":null}}`, `{"k":{"dimensionKey":"d","convertionMultiplier":0}}`, `{"":{"dimensionKey":"d","convertionMultiplier":1}}`)
		add(3, "dimensionMappingV2", `null`, `{"v":[]}`, `{"v":null}`, `{"v":[{"dimensionKey":"d","convertionMultiplier":0.1}]}`,
			`{"w":[{"dimensionKey":"d","mappingMode":"AMOUNT"},{"dimensionKey":"e","convertionMultiplier":9007199254740993}]}`, `{"v":[{"dimensionKey":"d"}]}`)
		entries = append(entries, "{"+strings.Join(members, ",")+"}")
	}
	return `{"partnerUsageMeteringConfigs":[` + strings.Join(entries, ",") + `]}`, true
}

// mergeConfig merges a patch into the entries, matched by partner. It reports false if the result
// is not allowed.
func mergeConfig(entries []any, patch object) (merged []any, ok bool) {
	patches, named := patch["partnerUsageMeteringConfigs"]
	if !named {
		return entries, true
	}
	list, _ := patches.([]any) // null means no entries
	if list != nil {
		merged = slices.Clone(entries)
	}
	seen := map[any]bool{}
	for _, entry := range list {
		partner := entry.(object)["partner"]
		at := slices.IndexFunc(merged, func(e any) bool { return e.(object)["partner"] == partner })
		if at < 0 {
			at, merged = len(merged), append(merged, object{})
		}
		merged[at] = mergePatch(merged[at], entry)
		if seen[partner] || !slices.Contains([]any{"AWS", "GCP", "AZURE", "ORB"}, partner) || !allowedEntry(merged[at].(object)) {
			return nil, false
		}
		seen[partner] = true
	}
	return merged, true
}

// mergePatch is RFC 7396's.
func mergePatch(target, patch any) any {
	members, ok := patch.(object)
	if !ok {
		return patch
	}
	merged, _ := target.(object)
	if merged = maps.Clone(merged); merged == nil {
		merged = object{}
	}
	for name, value := range members {
		if value == nil {
			delete(merged, name)
		} else {
			merged[name] = mergePatch(merged[name], value)
		}
	}
	return merged
}

func allowedEntry(entry object) bool {
	mappings, _ := entry["dimensionMapping"].(object)
	arrays, _ := entry["dimensionMappingV2"].(object)
	for source, value := range mappings {
		if source == "" || !allowedMapping(value.(object)) {
			return false
		}
	}
	for source, array := range arrays {
		if source == "" || slices.ContainsFunc(array.([]any), func(value any) bool { return !allowedMapping(value.(object)) }) {
			return false
		}
	}
	return true
}

func allowedMapping(value object) bool {
	key, _ := value["dimensionKey"].(string)
	mode, _ := value["mappingMode"].(string)
	multiplier, _ := value["convertionMultiplier"].(number)
	return key != "" && (mode == "AMOUNT" || multiplier != "" && multiplier != "0" && multiplier[0] != '-')
}

func noSuchRoute(t *rapid.T, _ *model, _ *organization) (request, rule) {
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
		{"GET", "/" + validating, 405},
	}...)
	return request{method: c.method, path: c.path}, func(*key) reply { return reply{status: c.status} }
}

var (
	partners     = []string{"AWS", "AZURE", "GCP"}
	statuses     = []string{"CREATED", "CREATED", "CREATED", "INVALID", "DELETED", "REPORTED", "REPORT_PENDING", "REPORT_FAILED"}
	buyers       = []string{"b1", "b#1"}
	entitlements = []string{"e1", "e2"}
)

func drawID(t *rapid.T) string {
	return pick(t, "id", "g1", "g2", "g3", "g4", "g5", "g6", "G", "g#1", "g 1", "ü+2F")
}

// importGroup stores a group as marketmeter import does: unchanged, unless its id exists.
func importGroup(t *rapid.T, w *model, o *organization) (request, rule) {
	id, product := drawID(t), pick(t, "product", "", "p1", "p2")
	midnight := w.now.Truncate(24 * time.Hour)
	created := pick(t, "creationTime",
		w.now, w.now, w.now.Add(-time.Second), w.now.Add(-time.Hour), midnight, midnight.Add(-time.Nanosecond), midnight.AddDate(0, 0, 1).Add(-time.Nanosecond),
		w.now.AddDate(0, 0, -1), midnight.AddDate(0, 0, -30), midnight.AddDate(0, 0, -30).Add(-time.Nanosecond), w.now.AddDate(0, 0, -40))
	line := fmt.Sprintf(`{"id":%q,"buyerID":%q,"entitlementID":%q,"partner":%q,"status":%q,"creationTime":%q,"serialID":%d,"productID":%q%s}`,
		id, pick(t, "buyer", buyers...), pick(t, "entitlement", entitlements...),
		pick(t, "partner", partners...), pick(t, "status", statuses...),
		created.In(pick(t, "zone", time.UTC, time.FixedZone("", 5400))).Format(time.RFC3339Nano),
		roll(t, "serialID", 3), product,
		pick(t, "rest",
			"", `,"records":{"cpu":1.50,"big":9007199254740993}`, `,"metaInfo":{"source":"API","originRecords":{"cpu":1.5}}`, `,"metaInfo":{"SkipValidation":true,"source":"ORB"}`,
			`,"metaInfo":{"billableRecords":[{"key":"m","quantity":2,"properties":{"zone":"us"}},{"key":"m","quantity":1e1,"properties":{"zone":"eu","n":1}}]}`,
		))
	if roll(t, "unreadable", 16) == 15 {
		line = strings.Replace(line, "buyerID", "buyer", 1)
	}
	r := request{operator: func(ctx context.Context, tbl *table.Table) error {
		g, err := wire.DecodeGroup([]byte(line))
		if err != nil {
			return err
		}
		g.OrganizationID = o.name
		stored, err := tbl.Put(ctx, &g)
		if err == nil && !stored {
			err = errIsThere
		}
		return err
	}}
	return r, func(*key) reply {
		switch {
		case strings.Contains(line, `"buyer"`):
			return reply{status: 400}
		case o.groups[id] != nil:
			return reply{status: 409}
		}
		return reply{status: 200, then: func() {
			g := object{"records": object{}, "metaInfo": object{}, "usageRecordReportID": ""}
			maps.Copy(g, values(line).(object))
			delete(g, "productID")
			g["organizationID"], g["creationTime"], g["lastUpdateTime"] = o.name, milliseconds(created), milliseconds(created)
			o.groups[id], o.products[id] = g, product
		}}
	}
}

func createKey(t *rapid.T, w *model, o *organization) (request, rule) {
	k := w.newKey(o, pick(t, "scopes", "read", "write", "config", "read write", "admin"))
	if life := pick(t, "life", time.Duration(0), time.Minute, time.Hour, 24*time.Hour); life > 0 {
		k.expires = k.created.Add(life)
	}
	r := request{operator: func(ctx context.Context, tbl *table.Table) error { return tbl.AddAPIKey(ctx, k.record()) }}
	return r, func(*key) reply { return reply{status: 200, then: func() { w.keys = append(w.keys, k) }} }
}

func rotateKey(t *rapid.T, w *model, o *organization) (request, rule) {
	old, k := w.drawChangedKey(t), w.newKey(o, "read write config")
	ends := k.created.Add(pick(t, "keep", time.Duration(0), time.Hour))
	r := request{operator: func(ctx context.Context, tbl *table.Table) error {
		return tbl.RotateAPIKey(ctx, old.secret.Hash(), ends, k.record())
	}}
	return r, func(*key) reply {
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
	r := request{operator: func(ctx context.Context, tbl *table.Table) error {
		_, err := tbl.RevokeAPIKey(ctx, metering.OrgID(o.name), k.secret.Hash(), at, "operator")
		return err
	}}
	return r, func(*key) reply {
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
func (w *model) drawChangedKey(t *rapid.T) *key {
	if len(w.keys) == len(w.organizations) {
		t.Skip("there is no other")
	}
	return pick(t, "which key", w.keys[len(w.organizations):]...)
}

func (w *model) newKey(o *organization, scopes string) *key {
	return &key{secret: auth.New(), organization: o, scopes: scopes, created: w.now.Truncate(time.Millisecond)}
}

func (k *key) record() *auth.Record {
	scopes, err := auth.ParseScopes(strings.ReplaceAll(k.scopes, " ", ","))
	if err != nil {
		panic(err)
	}
	return &auth.Record{
		Hash: k.secret.Hash(), Organization: k.organization.name, Scopes: scopes, CreatedBy: "operator", CreationTime: k.created, ExpiryTime: k.expires,
	}
}

// stored is what a client and an operator can read of all data that is stored for good.
func (w *model) stored(o *organization) object {
	groups, keys := []any{}, object{}
	for _, id := range slices.Sorted(maps.Keys(o.groups)) {
		groups = append(groups, o.groups[id])
	}
	for _, k := range w.keys {
		if k.organization == o {
			replaced := ""
			if k.replacedBy != nil {
				replaced = k.replacedBy.secret.Hash().ID()
			}
			keys[k.secret.Hash().ID()] = fmt.Sprint(k.record().Scopes, k.created, k.expires, k.revoked, replaced)
		}
	}
	return object{"groups": groups, "config": o.configBody(o.config), "keys": keys}
}

// values reads JSON; an error is a value that is equal to none.
func values(text string) any {
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return err
	}
	return withNumbers(value)
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

func equal(a, b any) bool { return reflect.DeepEqual(a, b) }

func withNumbers(value any) any {
	switch value := value.(type) {
	case json.Number:
		r, ok := new(big.Rat).SetString(value.String())
		if !ok {
			panic("no number: " + value.String())
		}
		return number(r.RatString())
	case []any:
		for i := range value {
			value[i] = withNumbers(value[i])
		}
	case object:
		for name := range value {
			value[name] = withNumbers(value[name])
		}
	}
	return value
}

// milliseconds is a time as the API writes it.
func milliseconds(at time.Time) string {
	return at.UTC().Truncate(time.Millisecond).Format("2006-01-02T15:04:05.000Z")
}

func day(at time.Time, later int) string { return at.UTC().AddDate(0, 0, later).Format(time.DateOnly) }

// errIsThere is the error of an import of a group whose id exists.
var errIsThere = errors.New("it is there already")
