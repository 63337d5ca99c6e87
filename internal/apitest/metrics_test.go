package apitest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

func (a *api) createMetric(t testing.TB, body string) answer {
	t.Helper()
	return a.do(t, creatingMetric(body).of("acme"))
}

func (a *api) patchMetric(t testing.TB, id, body string) answer {
	t.Helper()
	return a.do(t, ofMetric("PATCH", id, body).of("acme"))
}

func (a *api) madeMetric(t testing.TB, body string) (id string) {
	t.Helper()
	got := a.createMetric(t, body)
	want(t, got, http.StatusOK)
	return parse(t, got.body).(doc)["id"].(string)
}

func TestMetric_CreatedIsReadBack(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		got := a.createMetric(t, `{"name": "tokens ☃", "description": "d", "aggregationType": "UNIQUE_COUNT", "id": "mine", "organizationId": "acme", "status": "ACTIVE",
			"creationTime": "2001-01-01T00:00:00Z", "lastUpdateTime": null, "info": {"propertyUniqueOn": "user", "groupBys": ["zone"], "filterGroups": [{"filters": [
				{"name": "n", "operation": "GTE", "value": 9007199254740993.50, "valueType": "FLOAT"}, {"name": "x", "operation": "NOT_EXISTS", "valueType": null}]}]}}`)
		want(t, got, http.StatusOK)
		id, _ := parse(t, got.body).(doc)["id"].(string)
		if id == "" || id == "mine" {
			t.Errorf("the id is %q", id)
		}
		wantSame(t, parse(t, `{"id": "`+id+`", "organizationId": "acme", "name": "tokens ☃", "description": "d", "aggregationType": "UNIQUE_COUNT", "status": "ACTIVE",
			"creationTime": "2024-07-29T15:51:28.071Z", "lastUpdateTime": "2024-07-29T15:51:28.071Z", "info": {"propertyUniqueOn": "user", "groupBys": ["zone"], "filterGroups": [{"filters": [
				{"name": "n", "operation": "GTE", "value": 9007199254740993.5, "valueType": "FLOAT"}, {"name": "x", "operation": "NOT_EXISTS"}]}]}}`), parse(t, got.body))
		if read := a.do(t, ofMetric("GET", id, "").of("acme")); read.body != got.body {
			t.Errorf("GET returns %s", read.body)
		}
		if list := a.do(t, listingMetrics("").of("acme")); list.body != "["+got.body+"]" {
			t.Errorf("the list is %s", list.body)
		}
		wantError(t, a.do(t, ofMetric("GET", id, "").of("other")), http.StatusNotFound, id)
	})
}

func TestMetric_UnreadableBodyIs400(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		with := func(member string) string { return `{"name": "a", "aggregationType": "SUM", ` + member + `}` }
		filter := func(filter string) string { return with(`"info": {"filterGroups": [{"filters": [` + filter + `]}]}`) }
		for body, texts := range map[string][]string{
			``:                                       {"no JSON"},
			`null`:                                   {"null", "a billable metric"},
			`{}`:                                     {"name is missing"},
			`{"name": "a"}`:                          {"aggregationType is missing"},
			`{"name": "", "aggregationType": "SUM"}`: {"name"},
			`{"name": "a", "aggregationType": "sum"}`:                                      {"aggregationType", `"sum"`, "UNIQUE_COUNT"},
			with(`"name": "b"`):                                                            {"name is there twice"},
			with(`"descriptin": "b"`):                                                      {"descriptin is unknown", "did you mean description"},
			with(`"status": "DELETED"`):                                                    {"status", "PATCH deletes"},
			with(`"organizationId": "Acme"`):                                               {"organizationId", `"acme"`},
			with(`"description": 5`):                                                       {"description is the number 5", "a string"},
			with(`"description": "\ud800"`):                                                {"not JSON"},
			with(`"info": []`):                                                             {"info is an array"},
			with(`"info": {"groupBy": []}`):                                                {"info.groupBy is unknown", "groupBys"},
			with(`"info": {"groupBys": [5]}`):                                              {"info.groupBys[0]", "a string"},
			with(`"info": {"groupBys": ["z", ""]}`):                                        {"info.groupBys[1]", "1 to"},
			with(`"info": {"groupBys": ["z", "z"]}`):                                       {"info.groupBys[1]", "again"},
			with(`"info": {"filterGroups": [{}]}`):                                         {"info.filterGroups[0].filters is empty"},
			with(`"info": {"filterGroups": [null]}`):                                       {"info.filterGroups[0] is null"},
			filter(`{"operation": "IS", "value": 1}`):                                      {"info.filterGroups[0].filters[0].name"},
			filter(`{"name": "n", "value": 1}`):                                            {"info.filterGroups[0].filters[0].operation is missing", "NOT_EXISTS"},
			filter(`{"name": "n", "operation": "LIKE", "value": 1}`):                       {"info.filterGroups[0].filters[0].operation", `"LIKE"`},
			filter(`{"name": "n", "operation": "IS"}`):                                     {"info.filterGroups[0].filters[0].value is missing"},
			filter(`{"name": "n", "operation": "IS", "value": null}`):                      {"info.filterGroups[0].filters[0].value is missing"},
			filter(`{"name": "n", "operation": "EQ", "value": 1, "valueType": "INT"}`):     {"valueType", "FLOAT"},
			filter(`{"name": "n", "operation": "GT", "value": "x", "valueType": "FLOAT"}`): {"info.filterGroups[0].filters[0].value is no number"},
			filter(`{"name": "n", "operation": "EQ", "value": 1e1000000000}`):              {"info.filterGroups[0].filters[0].value"},
			filter(`{"name": "n", "operation": "EQ", "value": ` + strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000) + `}`): {"info.filterGroups[0].filters[0].value"},
			`{"name": "a", "aggregationType": "UNIQUE_COUNT"}`:                                                                     {"info.propertyUniqueOn is missing"},
			`{"name": "` + strings.Repeat("n", 256) + `", "aggregationType": "SUM"}`:                                               {"name", "255 characters"},
			`{"name": "a\u0007", "aggregationType": "SUM"}`:                                                                        {"name", "control characters"},
			with(`"description": "` + strings.Repeat("d", 33_000) + `"`):                                                           {"32768", "33"},
			with(`"status": "ACTIVE"`) + ` x`:                                                                                      {"more follows"},
		} {
			if wantError(t, a.createMetric(t, body), http.StatusBadRequest, texts...); t.Failed() {
				t.Fatalf("body %.200s", body)
			}
		}
		wantError(t, a.createMetric(t, `{"description": "`+strings.Repeat("n", 1<<20)+`"}`), http.StatusRequestEntityTooLarge, "1048576")
		if list := a.do(t, listingMetrics("").of("acme")); list.body != "[]" {
			t.Errorf("the list is %s", list.body)
		}
		id := a.madeMetric(t, oneMetric)
		for body, texts := range map[string][]string{
			`{"aggregationType": "MAX"}`: {"aggregationType is unknown", "description, name, status"},
			`{"info": {}}`:               {"info is unknown"},
			`{"Name": "x"}`:              {"did you mean name"},
			`{"status": "GONE"}`:         {"status", `"GONE"`, "ACTIVE"},
			`{"name": ""}`:               {"name"},
			`{"name": 1}`:                {"name is the number 1"},
			`[]`:                         {"an array"},
			`{"description": "` + strings.Repeat("d", 33_000) + `"}`: {"32768"},
		} {
			wantError(t, a.patchMetric(t, id, body), http.StatusBadRequest, texts...)
		}
	})
}

// The name of an ACTIVE metric is its own; that of a DELETED one is free.
func TestMetric_NameIsUniqueAmongActive(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		first := a.madeMetric(t, oneMetric)
		wantError(t, a.createMetric(t, oneMetric), http.StatusConflict, first, `"tokens"`, "ACTIVE")
		want(t, a.do(t, creatingMetric(oneMetric).of("other")), http.StatusOK)
		seats := a.madeMetric(t, `{"name": "seats", "aggregationType": "MAX"}`)
		wantError(t, a.patchMetric(t, seats, `{"name": "tokens"}`), http.StatusConflict, first)
		want(t, a.patchMetric(t, first, `{"status": "DELETED"}`), http.StatusOK)
		want(t, a.patchMetric(t, seats, `{"name": "tokens"}`), http.StatusOK)
		wantError(t, a.patchMetric(t, first, `{"status": "ACTIVE"}`), http.StatusConflict, seats)
		want(t, a.patchMetric(t, first, `{"description": "a DELETED one is changed too"}`), http.StatusOK)
		want(t, a.patchMetric(t, first, `{"status": "ACTIVE", "name": "seats"}`), http.StatusOK)
		wantError(t, a.createMetric(t, `{"name": "seats", "aggregationType": "MAX"}`), http.StatusConflict, first)
		a.wantNamesOwned(t)
	})
}

// wantNamesOwned checks that the items of names are those of the ACTIVE metrics, and returns these.
func (a *api) wantNamesOwned(t testing.TB) (active map[string]string) {
	t.Helper()
	items, err := itemsIn(t.Context(), a.client, a.tableName)
	if err != nil {
		t.Fatal(err)
	}
	active = map[string]string{}
	owners, owned := []string{}, []string{}
	for _, item := range items {
		if item["PK"] != "ORG#acme" {
			continue
		}
		sk := item["SK"].(string)
		if strings.HasPrefix(sk, "METRICNAME#") {
			owners = append(owners, sk+" "+fmt.Sprint(item["owner"]))
		}
		if strings.HasPrefix(sk, "METRIC#") {
			m := parse(t, item["metric"].(string)).(doc)
			name, id := m["name"].(string), m["id"].(string)
			if m["status"] == "ACTIVE" {
				if other, twice := active[name]; twice {
					t.Errorf("%s and %s have the name %s", id, other, name)
				}
				active[name] = id
				owned = append(owned, fmt.Sprint(item["_name"], " ", id))
			} else if item["_name"] != nil {
				t.Errorf("%s is DELETED and owns a name", id)
			}
		}
	}
	slices.Sort(owners)
	slices.Sort(owned)
	wantSame(t, owned, owners)
	return active
}

// Of many that create, rename and revive metrics of one name at once, one has it.
func TestMetric_OneOfManyGetsAName(t *testing.T) {
	t.Parallel()
	a := newAPI(t, "http")
	for _, id := range []string{"a", "b", "c"} {
		a.give(t, "acme", importedMetric(id), importedMetric("gone-"+id, doc{"name": "wanted", "status": "DELETED"}))
	}
	requests := []request{creatingMetric(`{"name": "wanted", "aggregationType": "SUM"}`), creatingMetric(`{"name": "wanted", "aggregationType": "MAX"}`)}
	for _, id := range []string{"a", "b", "c"} {
		requests = append(requests, ofMetric("PATCH", id, `{"name": "wanted"}`), ofMetric("PATCH", "gone-"+id, `{"status": "ACTIVE"}`))
	}
	var wait sync.WaitGroup
	got := make([]answer, len(requests))
	for i, r := range requests {
		wait.Go(func() { got[i] = a.do(t, r.of("acme")) })
	}
	wait.Wait()
	winner := ""
	for i, g := range got {
		switch g.status {
		case http.StatusOK:
			if winner != "" {
				t.Errorf("%s %s has it too", requests[i].method, requests[i].path)
			}
			winner = parse(t, g.body).(doc)["id"].(string)
		case http.StatusConflict:
		default:
			t.Errorf("%d %s", g.status, g.body)
		}
	}
	if active := a.wantNamesOwned(t); winner == "" || active["wanted"] != winner {
		t.Errorf("%q has it, stored is %v", winner, active)
	}
}

// Two metrics that exchange their names by way of a third, at once with each other, end with one
// owner of each name.
func TestMetric_ConcurrentChangesKeepNamesOwned(t *testing.T) {
	t.Parallel()
	a := newAPI(t, "http")
	names := []string{"x", "y", "z"}
	for _, id := range names {
		a.give(t, "acme", importedMetric(id, doc{"name": id}))
	}
	var wait sync.WaitGroup
	for client := range 3 {
		wait.Go(func() {
			for i := range 12 {
				change := `{"name": "` + names[(client+i)%3] + `"}`
				if i%4 == 3 {
					change = `{"status": "` + []string{"DELETED", "ACTIVE"}[i/4%2] + `"}`
				}
				if got := a.do(t, ofMetric("PATCH", names[(client*2+i)%3], change).of("acme")); got.status != http.StatusOK && got.status != http.StatusConflict {
					t.Errorf("%d %s", got.status, got.body)
				}
			}
		})
	}
	wait.Wait()
	a.wantNamesOwned(t)
}

func TestMetric_ChangeThatChangesNothingWritesNothing(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		id := a.madeMetric(t, oneMetric)
		before := a.do(t, ofMetric("GET", id, "").of("acme"))
		a.clock.set(now.Add(time.Hour))
		for _, body := range []string{`{}`, `{"name": "tokens"}`, `{"status": "ACTIVE", "description": null, "name": null}`} {
			got := a.patchMetric(t, id, body)
			want(t, got, http.StatusOK)
			if got.body != before.body || writes(got) != 0 {
				t.Errorf("%s: %s, %d writes", body, got.body, writes(got))
			}
		}
		got := a.patchMetric(t, id, `{"description": "d"}`)
		want(t, got, http.StatusOK)
		if !strings.Contains(got.body, `"lastUpdateTime":"2024-07-29T16:51:28.071Z"`) || !strings.Contains(got.body, `"creationTime":"2024-07-29T15:51:28.071Z"`) {
			t.Errorf("%s", got.body)
		}
	})
}

func TestMetrics_AreListedByStatusNewestFirst(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.give(t, "acme", importedMetric("a"), importedMetric("c"), importedMetric("b", doc{"status": "DELETED"}),
			importedMetric("0", doc{"creationTime": "2024-07-29T00:00:00.000Z"}))
		a.give(t, "other", importedMetric("x"))
		for query, expected := range map[string]string{"": "0 c b a", "status=": "0 c b a", "status=ACTIVE": "0 c a", "status=DELETED": "b"} {
			got := a.do(t, listingMetrics(query).of("acme"))
			var list []struct{ ID string }
			if err := json.Unmarshal([]byte(got.body), &list); err != nil {
				t.Fatal(err)
			}
			ids := []string{}
			for _, m := range list {
				ids = append(ids, m.ID)
			}
			wantSame(t, expected, strings.Join(ids, " "))
		}
		wantError(t, a.do(t, listingMetrics("limit=5").of("acme")), http.StatusBadRequest, "limit", "status")
	})
}

// A list that no response can hold is refused, and the error says what to do.
func TestMetrics_ListOver6MBIs400(t *testing.T) {
	t.Parallel()
	a := newAPI(t, "http")
	large := strings.Repeat("x", 32_000)
	for i := range 200 {
		a.give(t, "acme", importedMetric(fmt.Sprint("m", i), doc{"description": large, "status": []string{"ACTIVE", "DELETED"}[i%2]}))
	}
	wantError(t, a.do(t, listingMetrics("").of("acme")), http.StatusBadRequest, "200 objects", "limit", "status")
	want(t, a.do(t, listingMetrics("status=DELETED").of("acme")), http.StatusOK)
}

// A response of DynamoDB that is lost does not make a second metric, nor a 409 by one's own name.
func TestMetric_LostResponseIsNoConflict(t *testing.T) {
	t.Parallel()
	a := newAPI(t, "http")
	losing := func(faults ...tabletest.Fault) *api {
		client, _ := tabletest.NewFaults(faults...)
		b := serve(t, "http", table.New(client, a.tableName), a.table)
		b.metricIDs = a.metricIDs
		return b
	}
	id := losing(tabletest.Lose).madeMetric(t, oneMetric)
	want(t, losing(tabletest.Pass, tabletest.Lose).patchMetric(t, id, `{"name": "renamed"}`), http.StatusOK)
	want(t, losing(tabletest.Pass, tabletest.Lose).patchMetric(t, id, `{"status": "DELETED"}`), http.StatusOK)
	want(t, losing(tabletest.Pass, tabletest.Lose).patchMetric(t, id, `{"status": "ACTIVE"}`), http.StatusOK)
	wantSame(t, map[string]string{"renamed": id}, a.wantNamesOwned(t))
	if list := a.do(t, listingMetrics("").of("acme")); strings.Count(list.body, `"id"`) != 1 {
		t.Errorf("the list is %s", list.body)
	}
}

// What a newer version has stored is returned, and stays when this version changes the rest.
func TestMetric_OfANewerVersionKeepsWhatThisOneDoesNotKnow(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.give(t, "acme", importedMetric("m", doc{
			"unit": doc{"a": json.Number("1.50e1")}, "info": doc{"window": "P1D", "filterGroups": []any{doc{"mode": "any", "filters": []any{
				doc{"name": "n", "operation": "MATCHES", "value": "x", "flags": []any{"i"}},
			}}}},
		}))
		before := a.undescribed(t, ofMetric("GET", "m", "").of("acme"))
		for _, kept := range []string{`"unit":{"a":1.50e1}`, `"window":"P1D"`, `"mode":"any"`, `"operation":"MATCHES"`, `"flags":["i"]`} {
			if !strings.Contains(before.body, kept) {
				t.Errorf("GET leaves out %s: %s", kept, before.body)
			}
		}
		item := a.item(t, "ORG#acme", "METRIC#m")
		item["_new"] = &types.AttributeValueMemberS{Value: "of a newer version"}
		a.putItem(t, item)
		got := a.undescribed(t, ofMetric("PATCH", "m", `{"description": "d"}`).of("acme"))
		want(t, got, http.StatusOK)
		after := strings.Replace(strings.Replace(got.body, `"description":"d",`, "", 1), "2024-07-29T15:51:28.071Z", "2024-07-28T00:00:00.000Z", 1)
		wantSame(t, before.body, after)
		if a.item(t, "ORG#acme", "METRIC#m")["_new"] == nil {
			t.Error("the attribute of the newer version is lost")
		}
	})
}

// item reads an item of the table.
func (a *api) item(t testing.TB, pk, sk string) map[string]types.AttributeValue {
	t.Helper()
	out, err := a.client.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: &a.tableName, Key: itemKeyOf(pk, sk), ConsistentRead: aws.Bool(true)})
	if err != nil {
		t.Fatal(err)
	}
	return out.Item
}
