package apitest

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

func (a *api) versions(t testing.TB, query string) (next any, list []any) {
	t.Helper()
	got := a.do(t, listingVersions(query).of("acme"))
	want(t, got, http.StatusOK)
	page := parse(t, got.body).(doc)
	return page["nextOffset"], page["versions"].([]any)
}

// To go back, an old version is read and PUT again: it becomes the newest, with the same content.
func TestConfigVersions_GoingBackIsAPut(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.wantConfig(t, "PUT", "acme", wholeConfig, wholeConfig)
		first, _ := a.config(t, "acme")
		a.clock.set(now.Add(time.Hour))
		a.wantConfig(t, "PUT", "acme", otherConfig, otherConfig)
		old := a.do(t, ofVersion("1").of("acme"))
		want(t, old, http.StatusOK)
		config, _, _ := strings.Cut(strings.TrimPrefix(old.body, `{"config":`), `,"keyID":`)
		want(t, a.sendConfig(t, "PUT", "acme", config, nil), http.StatusOK)
		again, _ := a.config(t, "acme")
		wantSame(t, first, again)

		key := a.keyID(t, "acme")
		_, list := a.versions(t, "")
		if len(list) != 3 {
			t.Fatalf("%d versions", len(list))
		}
		for i, v := range list {
			at := "2024-07-29T16:51:28.071Z"
			if i == 2 {
				at = "2024-07-29T15:51:28.071Z"
			}
			v := v.(doc)
			if fmt.Sprint(v["version"]) != fmt.Sprint(3-i) || v["keyID"] != key || v["time"] != at || len(v) != 4 {
				t.Errorf("%v", v)
			}
		}
		wantSame(t, first, list[0].(doc)["config"])
		wantSame(t, first, list[2].(doc)["config"])
		wantSame(t, parse(t, old.body), list[2])
	})
}

// keyID is the id of the key that requests to the organization have.
func (a *api) keyID(t testing.TB, org string) string {
	t.Helper()
	key, err := a.keys.of(t.Context(), org)
	if err != nil {
		t.Fatal(err)
	}
	return key.Hash().ID()
}

func TestConfigVersions_PagesFollowEachOther(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		if next, list := a.versions(t, ""); fmt.Sprint(next) != "0" || len(list) != 0 {
			t.Errorf("of an organization without a config: %v, %v", next, list)
		}
		for i := range 5 {
			want(t, a.sendConfig(t, "PUT", "acme", strings.Replace(oneConfig, `"AWS"`, `"AWS","enableDimensionMapping":`+fmt.Sprint(i%2 == 0), 1), nil), http.StatusOK)
		}
		for _, c := range []struct{ query, next, versions string }{
			{"", "0", "5 4 3 2 1"},
			{"limit=2", "2", "5 4"},
			{"limit=2&offset=2", "4", "3 2"},
			{"limit=2&offset=4", "0", "1"},
			{"offset=5", "0", ""},
			{"offset=2147483647", "0", ""},
			{"limit=5", "0", "5 4 3 2 1"},
			{"limit=&offset=", "0", "5 4 3 2 1"},
			{"limit=1&offset=3", "4", "2"},
		} {
			next, list := a.versions(t, c.query)
			numbers := []string{}
			for _, v := range list {
				numbers = append(numbers, fmt.Sprint(v.(doc)["version"]))
			}
			if got := strings.Join(numbers, " "); fmt.Sprint(next) != c.next || got != c.versions {
				t.Errorf("%s: nextOffset %v, versions %s", c.query, next, got)
			}
		}
		for _, n := range []string{"0", "6", "-1", "01", "+1", "1.0", "x", "99999999999", "99999999999999999999", " 1"} {
			wantError(t, a.do(t, ofVersion(n).of("acme")), http.StatusNotFound, "no version")
		}
		wantError(t, a.do(t, ofVersion("1").of("other")), http.StatusNotFound, "no version 1")
	})
}

// A page ends before it is too large for a response, and the next ones have the rest.
func TestConfigVersions_LargePagesEndEarly(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		const count = 8
		mappings := []string{} // with as many quotes as possible, which take two bytes in the envelope
		for i := range 700 {
			mappings = append(mappings, `"`+fmt.Sprintf("%05d", i)+strings.Repeat(`\"`, 240)+`":{"dimensionKey":"d","convertionMultiplier":1}`)
		}
		large := `{"partnerUsageMeteringConfigs":[{"partner":"AWS","dimensionMapping":{` + strings.Join(mappings, ",") + `}}]}`
		for i := range count {
			item := itemKeyOf("ORG#acme", fmt.Sprintf("CONFIG#%010d", i+1))
			item["config"], item["creationTime"] = text(large), text("2024-07-29T00:00:00.000Z")
			a.putItem(t, item)
		}
		seen, offset := 0, "0"
		for pages := 0; ; pages++ {
			next, list := a.versions(t, "offset="+offset)
			for _, v := range list {
				if fmt.Sprint(v.(doc)["version"]) != fmt.Sprint(count-seen) {
					t.Fatalf("after %d: %v", seen, v.(doc)["version"])
				}
				seen++
			}
			if offset = fmt.Sprint(next); offset == "0" {
				break
			}
			if len(list) == 0 || pages == count {
				t.Fatal("an empty page has a next one")
			}
		}
		if seen != count {
			t.Errorf("%d versions", seen)
		}
	})
}

// Older versions of the service stored no key; a newer one may store what this one does not know.
func TestConfigVersions_OfOtherVersionsOfTheService(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		item := itemKeyOf("ORG#acme", "CONFIG#0000000001")
		stored := `{"partnerUsageMeteringConfigs":[{"partner":"NEW","level":1.50e1}],"x":[null]}`
		item["config"], item["creationTime"], item["_new"] = text(stored), text("2024-07-29T00:00:00.000Z"), text("x")
		a.putItem(t, item)
		want(t, a.newer(t, "PATCH", "acme", oneConfig, nil), http.StatusOK)
		got := a.undescribed(t, ofVersion("1").of("acme"))
		wantSame(t, `{"config":`+stored+`,"keyID":"","time":"2024-07-29T00:00:00.000Z","version":1}`, got.body)
		if second := a.undescribed(t, ofVersion("2").of("acme")); !strings.Contains(second.body, `"x":[null]`) || !strings.Contains(second.body, `1.50e1`) {
			t.Errorf("the next version is %s", second.body)
		}
	})
}

// A version that can't be read is a 500, and the log names it. The others are read.
func TestConfigVersions_UnreadableOneIsNamed(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		for _, body := range []string{oneConfig, otherConfig, oneConfig} {
			want(t, a.sendConfig(t, "PUT", "acme", body, nil), http.StatusOK)
		}
		for _, broken := range []types.AttributeValue{text(`{"partnerUsageMeteringConfigs":`), &types.AttributeValueMemberN{Value: "5"}, nil} {
			item := itemKeyOf("ORG#acme", "CONFIG#0000000002")
			if broken != nil {
				item["config"] = broken
			}
			a.putItem(t, item)
			for operation, r := range map[string]request{
				"getUsageMeteringConfigInfoVersion": ofVersion("2"), "listUsageMeteringConfigInfoVersions": listingVersions(""),
			} {
				line := a.wantInternalError(t, operation, r.of("acme"))
				if said := fmt.Sprint(line["error"]); !strings.Contains(said, `version 2 of the config of "acme"`) {
					t.Errorf("%s: the log says %s", operation, said)
				}
			}
			want(t, a.do(t, ofVersion("1").of("acme")), http.StatusOK)
			want(t, a.do(t, ofVersion("3").of("acme")), http.StatusOK)
			if next, list := a.versions(t, "limit=1"); len(list) != 1 || fmt.Sprint(next) != "1" {
				t.Errorf("the page before: %v %v", next, list)
			}
			if _, list := a.versions(t, "offset=2"); len(list) != 1 {
				t.Errorf("the page after: %v", list)
			}
		}
	})
}

// undescribed sends a request whose response holds what api/openapi.yaml does not have.
func (a *api) undescribed(t testing.TB, r request) answer {
	t.Helper()
	got, _, err := a.exchange(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return got
}
