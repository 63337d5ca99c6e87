package table_test

import (
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// An empty range in a form that this version does not know is ignored: the list is read.
func TestList_EmptyRangeOfANewerVersionIsReadOrPassedOver(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	tbl := table.New(client, name)
	for i, id := range []string{"g0", "g1", "g2", "g3"} {
		g := group(id, metering.StatusCreated)
		g.CreationTime = now.Add(-time.Duration(i) * time.Minute)
		if id == "g3" {
			g.Partner = "GCP"
		}
		put(t, tbl, g)
	}
	hasty := table.New(tabletest.NewClient(tabletest.ShortPages(tabletest.Planned(func(int, *http.Request) tabletest.Fault { return nil }), 1)), name)
	request := listing(now, 2)
	request.Filter.Partner, request.ReadFor = "GCP", 0
	rangeItem := func() map[string]types.AttributeValue {
		items, err := client.Scan(t.Context(), &dynamodb.ScanInput{TableName: &name})
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range items.Items {
			if sk := item["SK"].(*types.AttributeValueMemberS).Value; strings.HasPrefix(sk, "AFTER#") {
				return item
			}
		}
		t.Fatal("there is no empty range")
		return nil
	}
	_, _, _, err := list(t, hasty, "o1", request)
	wantUnavailable(t, err)
	good := rangeItem()
	text := func(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }
	for what, change := range map[string]map[string]types.AttributeValue{
		"nothing":                {},
		"an unknown attribute":   {"filter": text("v2"), "_v": &types.AttributeValueMemberN{Value: "2"}},
		"no first":               {"first": nil},
		"another form":           {"last": text("v2:g2")},
		"a list":                 {"last": &types.AttributeValueMemberL{}},
		"an empty last":          {"last": text("")},
		"another expiry":         {"expiresAt": text("2099-01-01T00:00:00Z")},
		"a time that is written": {"expiresAt": &types.AttributeValueMemberN{Value: "99999999999.5"}},
		"no expiry":              {"expiresAt": nil},
		"another writing time":   {"writtenAt": text("later")},
		"a half millisecond":     {"writtenAt": &types.AttributeValueMemberN{Value: good["writtenAt"].(*types.AttributeValueMemberN).Value + ".5"}},
	} {
		changed := maps.Clone(good)
		for attribute, value := range change {
			if value == nil {
				delete(changed, attribute)
			} else {
				changed[attribute] = value
			}
		}
		if _, err := client.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &name, Item: changed}); err != nil {
			t.Fatal(err)
		}
		found := 0
		for attempt := 0; found == 0 && attempt < 5; attempt++ {
			groups, page, _, err := list(t, hasty, "o1", request)
			if err != nil {
				wantUnavailable(t, err)
				continue
			}
			if !strings.Contains(groups, `"g3"`) {
				t.Errorf("%s: %s", what, groups)
			}
			found = page.Count
		}
		if found != 1 {
			t.Errorf("%s: the list was not come to its group in 5 attempts", what)
		}
	}
}

// A later write is recognized even if its number is one that this version does not read.
func TestList_LaterCheckpointOfANewerVersionStays(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	tbl := table.New(client, name)
	for _, id := range []string{"g0", "g1", "g2"} {
		put(t, tbl, group(id, metering.StatusCreated))
	}
	laterBy := func(at time.Time) time.Duration {
		t.Helper()
		_, _, laterBy, err := list(t, tbl, "o1", listing(at, 1))
		if err != nil {
			t.Fatal(err)
		}
		return laterBy
	}
	laterBy(now.Add(5 * time.Second))
	items, err := client.Scan(t.Context(), &dynamodb.ScanInput{TableName: &name})
	if err != nil {
		t.Fatal(err)
	}
	changed := 0
	for _, item := range items.Items {
		if written, ok := item["writtenAt"].(*types.AttributeValueMemberN); ok {
			changed++
			item["writtenAt"], item["position"] = &types.AttributeValueMemberN{Value: written.Value + ".25"}, &types.AttributeValueMemberS{Value: "v2"}
			if _, err := client.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &name, Item: item}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if laterBy := laterBy(now); changed != 1 || laterBy <= 0 {
		t.Errorf("%d checkpoints; laterBy is %v", changed, laterBy)
	}
}
