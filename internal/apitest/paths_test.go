package apitest

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

func TestPaths_UnknownAndUncleanAreNotFound(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.put(t, "acme", group("g1"), group("usageRecordGroup"))
		for _, path := range []string{
			"/", "/org", "/org/acme", "/org/acme/usageRecordGroups", "/org/acme/usageRecordGroup/g1/x", "/orgs/acme/usageRecordGroup",
			"/ORG/acme/usageRecordGroup", "/org/acme/usagerecordgroup", "/usageRecordGroup", "/org/usageRecordGroup", "/healthz/x",
			validatePath("acme") + "/x", "/org/acme/usageMeteringConfigInfo/AWS", "/org/acme/usageRecordGroup;x",
			"/$default/org/acme/usageRecordGroup", "/v1/org/acme/usageRecordGroup",
			// unclean
			"//org/acme/usageRecordGroup", "/org//acme/usageRecordGroup", "/org/acme//usageRecordGroup", "/org/acme/usageRecordGroup//g1", "//",
			"/org//usageRecordGroup", "/org//usageMeteringConfigInfo", "/org/acme/usageRecordGroup/", "/org/acme/usageRecordGroup/g1/",
			"/org/acme/usageMeteringConfigInfo/", "/./org/acme/usageRecordGroup", "/org/./acme/usageRecordGroup", "/org/acme/usageRecordGroup/.",
			"/org/acme/usageRecordGroup/./g1", "/../org/acme/usageRecordGroup", "/org/x/../acme/usageRecordGroup", "/org/acme/usageRecordGroup/..",
			"/org/acme/usageRecordGroup/x/../g1", "/org/../usageRecordGroup", "/org/./usageRecordGroup",
			// the same, encoded
			"/org/%2e%2e/usageRecordGroup", "/org/%2E/usageRecordGroup", "/org/acme/usageRecordGroup/%2e%2e", "/org/acme/usageRecordGroup/%2e",
			"/org/x/%2e%2e/acme/usageRecordGroup", "/org/acme/usageRecordGroup%2F", "/org/acme%2F/usageRecordGroup", "/org%2Facme/x/usageRecordGroup/y",
			"/%2Forg/acme/usageRecordGroup", "/org/acme/usageRecordGroup/g1%2F", "/org/%2Facme/usageRecordGroup", "/org/acme/usageRecordGroup/%2Fg1",
			"/org/.%2e/usageMeteringConfigInfo",
		} {
			for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"} {
				r := request{method: method, path: path}
				if !a.carries(r) {
					continue
				}
				got := a.do(t, r)
				if got.status != http.StatusNotFound {
					t.Errorf("%s %s: %d %s", method, path, got.status, got.body)
				}
				if method != "HEAD" {
					wantError(t, got, http.StatusNotFound)
				}
			}
		}
		wantSame(t, 2, len(a.listAll(t, "acme", url.Values{"status": {"CREATED"}})))
	})
}

func TestPaths_OtherMethodsAreNotAllowed(t *testing.T) {
	t.Parallel()
	eachWayOver(t, nil, func(t *testing.T, a *api) {
		paths := map[string]string{} // an example of each path of the API
		methods := map[string][]string{}
		for _, o := range operations() {
			_, e := routed(o.example.method, o.example.of("acme").path)
			paths[e.path] = o.example.of("acme").path
			methods[e.path] = append(methods[e.path], e.method)
		}
		for route, allowed := range methods {
			path := paths[route]
			slices.Sort(allowed)
			for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "PROPFIND"} {
				if slices.Contains(allowed, method) {
					continue
				}
				got := a.do(t, request{method: method, path: path, query: "x=1"})
				if got.status != http.StatusMethodNotAllowed {
					t.Errorf("%s %s: %d %s", method, path, got.status, got.body)
				}
				if method != "HEAD" {
					wantError(t, got, http.StatusMethodNotAllowed, append([]string{method}, allowed...)...)
				}
				named := strings.FieldsFunc(got.headers.Get("Allow"), func(c rune) bool { return c == ',' || c == ' ' })
				slices.Sort(named)
				if !slices.Equal(named, allowed) {
					t.Errorf("%s %s: the header Allow has %q, this test %q", method, path, named, allowed)
				}
			}
		}
	})
}

// No key belongs to an organization that can't exist: it is refused like any other that is not the
// key's.
func TestOrganizations_ImpossibleIsRefused(t *testing.T) {
	t.Parallel()
	eachWayOver(t, nil, func(t *testing.T, a *api) {
		for _, org := range []string{strings.Repeat("o", 65), strings.Repeat("ü", 33), "a\x00", "a\nb", "a\x7f", "a\u0085"} {
			for _, r := range []request{
				{method: "GET", path: listPath(org)},
				{method: "DELETE", path: groupPath(org, "g1")},
				{method: "GET", path: configPath(org)},
				{method: "PUT", path: configPath(org), body: "{}"},
				{method: "PATCH", path: configPath(org), body: "{}"},
				{method: "POST", path: validatePath(org), body: `[{"records": {"cpu": 1}}]`},
			} {
				wantError(t, a.do(t, r), http.StatusForbidden)
			}
		}
	})
}

// Organizations whose names, or whose buyers, look like keys of another.
var similarOrganizations = []string{
	"a", "A", "a ", "a#", "a&23", "ORG#a", "a#STATUS#CREATED", "a+23STATUS+23CREATED", "a#BUYER#b1", "ab", "a+23", "a#BUYER#a", "a#ENTITLEMENT#a", "a+", "ä", "a\u0308",
	strings.Repeat("o", 64), strings.Repeat("ü", 32), strings.Repeat("#", 64),
}

// A path that is decoded twice or cut gives a key no access to another organization, nor to its own
// under another name.
func TestOrganizations_DoubleDecodingLeadsIntoNoOther(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.put(t, "a", group("g1", doc{"buyerID": "of a"}))
		a.put(t, "b", group("g1", doc{"buyerID": "of b"}))
		key := a.newKey(t, "a", allScopes)
		for _, org := range []string{
			"%62", "%2562", "%252562", "b%3F", "b%3Fa", "b%253Fa", "b%2F..%2Fa", "b%252F..%252Fa", "a%2F..%2Fb", "a%252F..%252Fb", "b%2523", "b%00", "b%2500", "a%25", "a%2525",
			"b%3F/../a", "a%3F/../b", "%2e%2e/org/b", "%252e%252e/org/b", "a/%2e%2e/b", "a/%252e%252e/b", "a%252Fb", "b%252Fa",
		} {
			for _, r := range everyOperation("ORG") {
				r.path = strings.ReplaceAll(r.path, "ORG", org)
				if !a.carries(r) {
					continue
				}
				got := a.do(t, r.with(key))
				if got.status < 400 || got.status >= 500 || strings.Contains(got.body, "of b") {
					t.Errorf("%s %s: %d %s", r.method, r.path, got.status, got.body)
				}
			}
		}
		for _, org := range []string{"a", "b"} {
			wantSame(t, []string{"g1"}, idsOf(a.listAll(t, org, url.Values{"status": {"CREATED"}})))
			config, _ := a.config(t, org)
			wantSame(t, any(doc{"partnerUsageMeteringConfigs": []any{}}), config)
		}
	})
}

// A key that an earlier version made for an organization with "%" reaches no organization; the
// service does not rely on the way for that.
func TestOrganizations_StoredWithPercentIsNotFound(t *testing.T) {
	t.Parallel()
	eachWayOver(t, nil, func(t *testing.T, a *api) {
		key := a.newKey(t, "a%b", allScopes)
		for operation, r := range everyOperation("a%b") {
			got := a.do(t, r.with(key))
			if _, refused := a.way.(overLambda); refused { // API Gateway itself refuses the path
				want(t, got, http.StatusBadRequest)
			} else if wantError(t, got, http.StatusNotFound, `"a%b"`); t.Failed() {
				t.Fatal(operation)
			}
		}
	})
}
