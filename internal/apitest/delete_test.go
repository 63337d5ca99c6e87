package apitest

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func (a *api) delete(t testing.TB, org, id, query string) answer {
	t.Helper()
	return a.do(t, request{method: "DELETE", path: groupPath(org, id), query: query})
}

func TestDelete_KeepsTheGroupAsDeleted(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		g := group("g1", doc{"lastUpdateTime": "2024-07-28T11:00:00Z"})
		a.put(t, "acme", g)

		got := a.delete(t, "acme", "g1", "")

		want(t, got, http.StatusOK)
		body := asGroup(t, parse(t, got.body))
		deleted := answered(t, "acme", g)
		deleted["status"], deleted["lastUpdateTime"] = "DELETED", a.wantNow(t, body["lastUpdateTime"])
		wantSame(t, deleted, body)
		wantSame(t, []doc{deleted}, a.listAll(t, "acme", nil))
		wantSame(t, []doc{deleted}, a.listAll(t, "acme", url.Values{"status": {"DELETED"}}))
		wantSame(t, []doc{}, a.listAll(t, "acme", url.Values{"status": {"CREATED"}}))
	})
}

func TestDelete_OnlyCreatedAndInvalidGroups(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		for _, status := range []string{"CREATED", "INVALID", "DELETED", "REPORTED", "REPORT_PENDING", "REPORT_FAILED"} {
			g := group(status, doc{"status": status})
			a.put(t, "acme", g)
			if status == "CREATED" || status == "INVALID" {
				want(t, a.delete(t, "acme", status, ""), http.StatusOK)
				wantError(t, a.delete(t, "acme", status, ""), http.StatusBadRequest, "is DELETED")
				continue
			}
			wantError(t, a.delete(t, "acme", status, ""), http.StatusBadRequest, "is "+status)
			list := a.listAll(t, "acme", url.Values{"status": {status}})
			if i := slices.Index(idsOf(list), status); i < 0 {
				t.Errorf("the %s group is gone", status)
			} else {
				wantSame(t, answered(t, "acme", g), list[i])
			}
		}
	})
}

func TestDelete_AbsentGroupIsNotFound(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.put(t, "acme", group("g1"))
		for _, path := range []string{
			"/org/acme/usageRecordGroup/g2",
			"/org/acme/usageRecordGroup/G1",
			"/org/nobody/usageRecordGroup/g1",
			"/org/acme/usageRecordGroup/" + strings.Repeat("x", 37), // no id is that long
			"/org/acme/usageRecordGroup/g1%00",
			"/org/acme/usageRecordGroup/a%2Fg1",
			"/org/acme/usageRecordGroup/g1%23",
			"/org/acme/usageRecordGroup/g1%20",
		} {
			wantError(t, a.do(t, request{method: "DELETE", path: path}), http.StatusNotFound)
		}
		wantSame(t, []string{"g1"}, idsOf(a.listAll(t, "acme", url.Values{"status": {"CREATED"}})))
	})
}

func TestDelete_ByDayOfCreation(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.put(t, "acme",
			group("first", doc{"creationTime": "2024-07-28T00:00:00.000Z"}),
			group("last", doc{"creationTime": "2024-07-28T23:59:59.999Z"}),
			group("offset", doc{"creationTime": "2024-07-29T01:30:00+02:00"}),
			group("reported", doc{"creationTime": "2024-07-28T12:00:00Z", "status": "REPORTED"}),
		)
		for _, id := range []string{"first", "last", "offset", "reported"} {
			for _, day := range []string{"2024-07-27", "2024-07-29"} {
				wantError(t, a.delete(t, "acme", id, "creationDate="+day), http.StatusNotFound, id)
			}
		}
		for _, id := range []string{"first", "last", "offset"} {
			want(t, a.delete(t, "acme", id, "creationDate=2024-07-28"), http.StatusOK)
		}
		wantError(t, a.delete(t, "acme", "reported", "creationDate=2024-07-28"), http.StatusBadRequest, "REPORTED")
		wantError(t, a.delete(t, "acme", "first", "creationDate=2024-07-28"), http.StatusBadRequest, "DELETED")
	})
}

func TestDelete_ReadsItsParametersStrictly(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.put(t, "acme", group("g1"))
		for _, query := range []string{
			"creationDate=28.07.2024", "creationDate=2024-7-28", "creationDate=2024-02-30", "creationDate=2024-07-28T10:00:00Z",
			"creationDate=2024-07-28&creationDate=2024-07-28", "creationdate=2024-07-28", "force=true", "force=", "creationDate=%zz",
		} {
			wantError(t, a.delete(t, "acme", "g1", query), http.StatusBadRequest)
		}
		want(t, a.delete(t, "acme", "g1", "creationDate="), http.StatusOK) // empty is the same as absent
	})
}

// awkwardIDs are ids that some layer between the client and the table could mistake for one
// another.
var awkwardIDs = []string{
	"a", "a#b", "aA", "50", "a b", "a+b", "ab", " a", "a ", "ü", "u\u0308", "a23b", "a2523b", "a41", "C3BC",
	"a;b", "a&b", "a=b", "a,b", "a:b", "a@b", "a\"b", "a'b", "a\\b", "a~b", "...", "a.", "#", "a|b", "<a>", "{a}", "[a]", "$a", "*",
	"日本語", "😀", "\u2028", "A", "2e2e", "a2Fb", "a3Fb", strings.Repeat("x", 36), strings.Repeat("#", 36), strings.Repeat("ü", 36), strings.Repeat("😀", 36),
}

// Each deletion deletes the group that it names among all similar ones, and no other.
func TestDelete_DeletesExactlyTheNamedGroup(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		groups := []doc{}
		for _, id := range awkwardIDs {
			groups = append(groups, group(id))
		}
		a.put(t, "acme", groups...)
		left := slices.Clone(awkwardIDs)
		for len(left) > 0 {
			id := left[0]
			left = left[1:]
			got := a.delete(t, "acme", id, "")
			want(t, got, http.StatusOK)
			if g := asGroup(t, parse(t, got.body)); g["id"] != id {
				t.Fatalf("to delete %q deleted %q", id, g["id"])
			}
			ids := idsOf(a.listAll(t, "acme", url.Values{"status": {"CREATED"}}))
			slices.Sort(ids)
			wantSame(t, append([]string{}, slices.Sorted(slices.Values(left))...), ids)
		}
	})
}

// The same id may be spelled in several ways in a path.
func TestDelete_AcceptsEverySpellingOfAnID(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		for _, c := range []struct{ spelled, id string }{
			{"p;q", "p;q"},
			{"p%3Bq", "p;q"},
			{"p%3bq", "p;q"},
			{"p,q", "p,q"},
			{"p+q", "p+q"},
			{"p%2Bq", "p+q"},
			{"%70lain", "plain"},
			{"pl%61in", "plain"},
			{"%C3%BC", "ü"},
			{"%c3%bc", "ü"},
			{"p=q&r", "p=q&r"},
			{"p@q:r", "p@q:r"},
		} {
			org := "org " + strings.ReplaceAll(c.spelled, "%", "-")
			a.put(t, org, group(c.id))
			got := a.do(t, request{method: "DELETE", path: listPath(org) + "/" + c.spelled})
			if got.status != http.StatusOK || asGroup(t, parse(t, got.body))["id"] != c.id {
				t.Errorf("%s: %d %s", c.spelled, got.status, got.body)
			}
		}
	})
}

// storedIDs are ids that earlier versions stored, each with the groups that its path would reach
// through API Gateway.
var storedIDs = map[string][]string{
	"a%41": {"aA"}, "a%2541": {"a%41", "aA"}, "50%": {"50"}, "50%25": {"50%", "50"}, "a%20b": {"a b"}, "%C3%BC": {"ü"},
	"%": {"x"}, "%%": {"%"}, "a%23b": {"a#b"}, "%67%31": {"g1"}, "a%3Fb": {"a"}, "a%2Fb": {"a"}, "%2e%2e": {"..."}, "a%zz": {"a"},
}

// A stored id with "%" is listed unchanged. Its path reaches no group, neither that one nor
// another.
func TestDelete_StoredIDWithPercentReachesNoGroup(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		seen := map[string]bool{}
		for id, others := range storedIDs {
			for _, id := range append(others, id) {
				if !seen[id] {
					seen[id] = true
					a.put(t, "acme", group(id))
				}
			}
		}
		before := a.dump(t)
		for id := range storedIDs {
			for _, query := range []string{"", "creationDate=2024-07-28"} {
				got := a.delete(t, "acme", id, query)
				if got.status != http.StatusNotFound && (a.isHTTP() || got.status != http.StatusBadRequest) {
					t.Errorf("%q: %d %s", id, got.status, got.body)
				}
				if a.isHTTP() {
					wantError(t, got, http.StatusNotFound, strconv.Quote(id))
				}
			}
		}
		after := a.dump(t)
		for _, dump := range []map[string]doc{before, after} {
			maps.DeleteFunc(dump, func(name string, _ doc) bool { return strings.Contains(name, "KEY#") })
		}
		wantSame(t, before, after)
		wantSame(t, len(seen), len(a.listAll(t, "acme", url.Values{"status": {"CREATED"}})))
		for id := range storedIDs {
			if !slices.Contains(idsOf(a.listAll(t, "acme", nil)), id) {
				t.Errorf("%q is not listed", id)
			}
		}
	})
}

// A path that API Gateway cut or decoded into the path of another group deletes nothing.
func TestDelete_AmbiguousPathIsRefused(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.put(t, "acme", group("g1"), group("aA"), group("a b"))
		for _, path := range []string{
			"g1%3F", "g1%3Fx", "g1%3FcreationDate=2023-01-01", "g1%253Fx", "a%2541", "%2567%2531", "a%252520b", "a%2520b", "g1%2525", "g1%25", "g1%252F", "g1%252Fx", "g1%25zz",
		} {
			r := request{method: "DELETE", path: listPath("acme") + "/" + path}
			got := a.do(t, r)
			if got.status != http.StatusNotFound && (a.isHTTP() || got.status != http.StatusBadRequest) {
				t.Errorf("%s: %d %s", path, got.status, got.body)
			}
		}
		wantSame(t, 3, len(a.listAll(t, "acme", url.Values{"status": {"CREATED"}})))
	})
}
