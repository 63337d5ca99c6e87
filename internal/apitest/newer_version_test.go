package apitest

import (
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// These tests store one item of each kind as a future version might write it, with an unknown
// member and an unknown value of each set, and show what every operation does with it
// (docs/data-model.md, "Versions side by side"). newer_config_test.go does so for the config,
// internal/table for what a list stores between its pages, and cmd/marketmeter for import and
// export.

func numberValue(s string) types.AttributeValue { return &types.AttributeValueMemberN{Value: s} }

func mapValue(members map[string]types.AttributeValue) types.AttributeValue {
	return &types.AttributeValueMemberM{Value: members}
}

func listValue(elements ...types.AttributeValue) types.AttributeValue {
	return &types.AttributeValueMemberL{Value: elements}
}

func itemKeyOf(pk, sk string) map[string]types.AttributeValue {
	return map[string]types.AttributeValue{"PK": storedText(pk), "SK": storedText(sk)}
}

func (a *api) storedItem(t testing.TB, pk, sk string) map[string]types.AttributeValue {
	t.Helper()
	out, err := a.client.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: &a.tableName, Key: itemKeyOf(pk, sk)})
	if err != nil || out.Item == nil {
		t.Fatalf("%s %s: %v, %v", pk, sk, out.Item, err)
	}
	return out.Item
}

// putNewer stores a group, and then what a newer version may store with it: all possible unknown
// members, optional members of another type, and an unknown value for each member with a fixed set
// of values. If status is not empty, it becomes the group's status.
func (a *api) putNewer(t testing.TB, org, id, status string) {
	t.Helper()
	a.put(t, org, group(id, doc{
		"records":  doc{"cpu": 1},
		"metaInfo": doc{"billableRecords": []any{doc{"key": "k", "quantity": 1, "properties": doc{"region": "eu"}}}, "lagoAmount": 2, "timestamp": "2024-07-28T09:00:00Z"},
	}))
	item := a.storedItem(t, "ORG#"+org, "GROUP#"+id)
	object := mapValue(map[string]types.AttributeValue{"code": storedText("TOO_OLD"), "n": numberValue("0.1")})
	set := &types.AttributeValueMemberSS{Value: []string{"a", "b"}}
	maps.Copy(item, map[string]types.AttributeValue{
		"remarks": listValue(object), "settleBy": storedText("2024-07-29T10:00:00.000Z"), "tags": set, "partner": storedText("NEWCLOUD"),
		"reportedTime": numberValue("1722246688"), "productID": listValue(storedText("p")), "problems": listValue(object), "reportBy": numberValue("1722246688"),
		"_shard": storedText("ORG#" + org + "#SHARD#7"), "_settle": storedText("2024-07-28T10:05:00.000Z"), "_set": set,
	})
	if status != "" {
		item["status"], item["_status"] = storedText(status), storedText("ORG#"+org+"#STATUS#"+status)
	}
	metaInfo := item["metaInfo"].(*types.AttributeValueMemberM).Value
	maps.Copy(metaInfo, map[string]types.AttributeValue{
		"source": storedText("NEWSOURCE"), "newcloudInvoice": object, "newcloudTags": set, "SkipValidation": storedText("some"),
		"timestamp": numberValue("1722153600"), "originRecords": mapValue(map[string]types.AttributeValue{"cpu": storedText("1 core")}),
		"lagoAmount": object, "stripeUsageRecordSummaryTotalUsage": numberValue("9007199254740993"), "metronomeInvoiceID": numberValue("7"),
	})
	record := metaInfo["billableRecords"].(*types.AttributeValueMemberL).Value[0].(*types.AttributeValueMemberM).Value
	record["unit"], record["seen"] = storedText("GB"), set
	a.putItem(t, item)
}

// listNewer lists groups that do not match api/openapi.yaml.
func (a *api) listNewer(t testing.TB, org, query string) (groups []doc, got answer) {
	t.Helper()
	got, _, err := a.exchange(t.Context(), request{method: "GET", path: listPath(org), query: query})
	if err != nil {
		t.Fatal(err)
	}
	want(t, got, http.StatusOK)
	for _, g := range parse(t, got.body).(doc)["usageRecordGroups"].([]any) {
		groups = append(groups, g.(doc))
	}
	return groups, got
}

// shown is what a client receives of a group that putNewer stored: values unchanged, without
// members that this version does not know or not in that form.
func shown(t testing.TB, org, id, status string) doc {
	g := answered(t, org, group(id, doc{
		"records": doc{"cpu": 1}, "partner": "NEWCLOUD", "status": status,
		"metaInfo": doc{"source": "NEWSOURCE", "billableRecords": []any{doc{"key": "k", "quantity": 1, "properties": doc{"region": "eu"}}}},
	}))
	return g
}

func TestGroupOfANewerVersion_IsListed(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.putNewer(t, "acme", "g2", "HELD")
		a.putNewer(t, "acme", "g3", "")
		a.put(t, "acme", group("g1"), group("g4"))
		all := []any{answered(t, "acme", group("g4")), shown(t, "acme", "g3", "CREATED"), shown(t, "acme", "g2", "HELD"), answered(t, "acme", group("g1"))}
		filtered := func(i ...int) (some []any) {
			for _, i := range i {
				some = append(some, all[i])
			}
			return some
		}
		for query, expected := range map[string][]any{
			"": all, "buyerId=buyer-1": all, "entitlementId=entitlement-1": all, "limit=3": filtered(0, 1, 2), "limit=2&offset=2": filtered(2, 3),
			"status=CREATED": filtered(0, 1, 3), "partner=AWS": filtered(0, 3), "source=API": filtered(0, 3), "productId=product-1": filtered(0, 3),
			"metaInfo=" + url.QueryEscape(`{"source":"NEWSOURCE"}`): filtered(1, 2),
			// What is not shown does not match.
			"metaInfo=" + url.QueryEscape(`{"newcloudInvoice":{"code":"TOO_OLD"}}`):          nil,
			"metaInfo=" + url.QueryEscape(`{"billableRecords":[{"unit":"GB"}]}`):             nil,
			"metaInfo=" + url.QueryEscape(`{"metronomeInvoiceID":7}`):                        nil,
			"metaInfo=" + url.QueryEscape(`{"billableRecords":[{"key":"k"}]}`):               filtered(1, 2),
			"metaInfo=" + url.QueryEscape(`{"billableRecords":[{"properties":{"x":null}}]}`): nil,
		} {
			groups, _ := a.listNewer(t, "acme", query)
			var got []any
			for _, g := range groups {
				got = append(got, g)
			}
			if wantSame(t, expected, got); t.Failed() {
				t.Fatal(query)
			}
		}
		wantError(t, a.get(t, listPath("acme"), "status=HELD"), http.StatusBadRequest, "HELD") // a request is read as strictly as always
	})
}

// A delete changes what it always changes, also in an unknown form, and preserves the rest.
func TestGroupOfANewerVersion_IsDeletedByItsStatus(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		for _, c := range []struct {
			status string
			code   int
		}{{"CREATED", 200}, {"INVALID", 200}, {"HELD", 400}, {"REPORTED", 400}, {"", 400}, {"created", 400}} {
			id := "g " + c.status
			a.putNewer(t, "acme", id, "CREATED")
			item := a.storedItem(t, "ORG#acme", "GROUP#"+id)
			item["status"] = storedText(c.status)
			a.putItem(t, item)
			before := plainItem(item)
			got, _, err := a.exchange(t.Context(), request{method: "DELETE", path: groupPath("acme", id), query: "creationDate=2024-07-28"})
			if err != nil {
				t.Fatal(err)
			}
			after := plainItem(a.storedItem(t, "ORG#acme", "GROUP#"+id))
			if c.code == 400 {
				wantError(t, got, 400, "is "+c.status+":", "only a group that is CREATED or INVALID can be deleted")
				wantSame(t, before, after)
				continue
			}
			want(t, got, 200)
			expected := shown(t, "acme", id, "DELETED")
			deleted := parse(t, got.body).(doc)
			expected["lastUpdateTime"] = a.wantNow(t, deleted["lastUpdateTime"])
			wantSame(t, any(expected), any(deleted))
			if after["_deletion"] == nil {
				t.Error("there is no _deletion")
			}
			if after["problems"] != nil {
				t.Error("a deleted group has problems")
			}
			for _, changed := range []string{"status", "_status", "lastUpdateTime", "_deletion", "problems"} {
				delete(before, changed)
				delete(after, changed)
			}
			wantSame(t, before, after)
		}
		// A member that is not needed for a refusal is not read.
		a.putNewer(t, "acme", "other", "HELD")
		item := a.storedItem(t, "ORG#acme", "GROUP#other")
		item["records"], item["serialID"], item["metaInfo"] = storedText("elsewhere"), numberValue("9007199254740993"), listValue()
		a.putItem(t, item)
		wantError(t, a.delete(t, "acme", "other", ""), http.StatusBadRequest, "HELD")
	})
}

// An import never overwrites, and validate does not read what is stored.
func TestGroupOfANewerVersion_IsNotOverwritten(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.putNewer(t, "acme", "g1", "HELD")
		before := plainItem(a.storedItem(t, "ORG#acme", "GROUP#g1"))
		g, err := decodeGroup("acme", group("g1"))
		if err != nil {
			t.Fatal(err)
		}
		if stored, err := a.table.Put(t.Context(), g); err != nil || stored {
			t.Errorf("put: %v, %v", stored, err)
		}
		want(t, a.send(t, "POST", validatePath("acme"), `[{"id": "g1", "records": {"cpu": 1}}]`), http.StatusOK)
		wantSame(t, before, plainItem(a.storedItem(t, "ORG#acme", "GROUP#g1")))
	})
}

func TestSerialCounterOfANewerVersion_IsRaised(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		counter := itemKeyOf("ORG#acme", "SERIAL")
		counter["serialID"], counter["reserved"], counter["mode"] = numberValue("7"), mapValue(nil), storedText("BATCHED")
		a.putItem(t, counter)
		for raise, after := range map[int32]string{3: "7", 9: "9"} {
			if err := a.table.RaiseSerial(t.Context(), "acme", raise); err != nil {
				t.Fatal(err)
			}
			if raise == 9 {
				counter["serialID"] = numberValue(after)
			}
		}
		if n, err := a.table.Serial(t.Context(), "acme"); err != nil || n != 9 {
			t.Errorf("%d, %v", n, err)
		}
		wantSame(t, plainItem(counter), plainItem(a.storedItem(t, "ORG#acme", "SERIAL")))
	})
}

// A checkpoint in a form that this version does not know is ignored: the groups are counted.
func TestList_CheckpointOfANewerVersionIsReadOrCountedAgain(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.put(t, "acme", group("g1"), group("g2"), group("g3"), group("g4"))
		for name, change := range map[string]map[string]types.AttributeValue{
			"an unknown attribute":         {"index": storedText("byTime"), "_v": numberValue("2")},
			"another type":                 {"position": mapValue(map[string]types.AttributeValue{"time": storedText("x"), "id": storedText("g2")})},
			"another form":                 {"position": storedText("v2:g2")},
			"a position elsewhere":         {"position": storedText("2024-08-29T10:00:00.000Z#g2")},
			"an earlier position":          {"position": storedText("2024-01-29T10:00:00.000Z#g2")},
			"an empty position":            {"position": storedText("")},
			"an id that is too long":       {"position": storedText("2024-07-28T10:00:00.000Z#" + strings.Repeat("x", 2000))},
			"a day that is none":           {"startDate": storedText("yesterday")},
			"a time for a day":             {"endDate": storedText("2024-07-29T00:00:00.000Z")},
			"no day":                       {"startDate": nil},
			"no position":                  {"position": nil},
			"another expiry":               {"expiresAt": storedText("2099-01-01T00:00:00Z")},
			"no expiry":                    {"expiresAt": nil},
			"another time of writing":      {"writtenAt": storedText("2099")},
			"a half millisecond":           {"writtenAt": numberValue("1722268289571.5")},
			"no time of writing":           {"writtenAt": nil},
			"a sort key with more to it":   {"SK": storedText("0000000002#2")},
			"a sort key that is no number": {"SK": storedText("000000000x")},
		} {
			first, _ := a.listNewer(t, "acme", "limit=2")
			if len(first) != 2 {
				t.Fatalf("%d groups", len(first))
			}
			checkpoint := a.checkpointAt(t, 2)
			changed := maps.Clone(checkpoint)
			for attribute, value := range change {
				if value == nil {
					delete(changed, attribute)
				} else {
					changed[attribute] = value
				}
			}
			if change["SK"] != nil {
				a.dropItem(t, checkpoint)
			}
			a.putItem(t, changed)
			for range 2 { // and again over what the first run stored
				second, _ := a.listNewer(t, "acme", "limit=2&offset=2")
				if len(second) != 2 || second[0]["id"] != "g2" {
					t.Errorf("%s: the second page is %v", name, second)
				}
			}
			a.listNewer(t, "acme", "limit=2") // stores it again
			a.dropItem(t, changed)
		}
	})
}

// checkpointAt is the checkpoint that a list stored at that offset.
func (a *api) checkpointAt(t testing.TB, offset int) map[string]types.AttributeValue {
	t.Helper()
	items, err := a.client.Scan(t.Context(), &dynamodb.ScanInput{TableName: &a.tableName})
	if err != nil {
		t.Fatal(err)
	}
	for _, item := range items.Items {
		pk, sk := plainValue(item["PK"]).(string), plainValue(item["SK"])
		if strings.Contains(pk, "#PAGE#") && sk == fmt.Sprintf("%010d", offset) {
			return item
		}
	}
	t.Fatalf("there is no checkpoint at %d", offset)
	return nil
}

func (a *api) dropItem(t testing.TB, item map[string]types.AttributeValue) {
	t.Helper()
	key := map[string]types.AttributeValue{"PK": item["PK"], "SK": item["SK"]}
	if _, err := a.client.DeleteItem(t.Context(), &dynamodb.DeleteItemInput{TableName: &a.tableName, Key: key}); err != nil {
		t.Fatal(err)
	}
}

// A cursor of another version is refused like any other that is not a cursor of this list.
func TestList_CursorOfANewerVersionIs400(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.put(t, "acme", group("g1"), group("g2"), group("g3"))
		_, got := a.listNewer(t, "acme", "limit=1")
		link, err := url.ParseQuery(strings.TrimSuffix(strings.TrimPrefix(got.headers.Get("Link"), "<?"), `>; rel="next"`))
		if err != nil {
			t.Fatal(err)
		}
		cursor := link.Get("cursor")
		parts, err := base64.RawURLEncoding.DecodeString(cursor)
		if err != nil {
			t.Fatal(err)
		}
		encoded := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
		for _, other := range []string{
			"v2." + cursor, cursor + ".v2", encoded("v2~" + string(parts)), encoded(string(parts) + "~more"), encoded(`{"v":2,"offset":1,"after":"g1"}`),
			encoded("1~2024-07-01~2024-07-30~2024-07-28T10:00:00.000Z#g1" + strings.Repeat("\x00", 12)), encoded(strings.Repeat("\xff", 40)), "x", "%", "2",
		} {
			got := a.get(t, listPath("acme"), "limit=1&cursor="+url.QueryEscape(other))
			wantError(t, got, http.StatusBadRequest, "cursor is ", "without a cursor")
		}
		want(t, a.get(t, listPath("acme"), "limit=1&cursor="+cursor), http.StatusOK)
	})
}
