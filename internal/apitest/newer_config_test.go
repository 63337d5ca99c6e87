package apitest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// putItem stores an item as another version of the service might write it.
func (a *api) putItem(t testing.TB, item map[string]types.AttributeValue) {
	t.Helper()
	if _, err := a.client.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &a.tableName, Item: item}); err != nil {
		t.Fatal(err)
	}
}

// storeConfig stores a version of the config, with attributes that this version does not have.
func (a *api) storeConfig(t testing.TB, org string, version int, config types.AttributeValue) {
	t.Helper()
	text := func(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }
	a.putItem(t, map[string]types.AttributeValue{
		"PK": text("ORG#" + org), "SK": text(fmt.Sprintf("CONFIG#%010d", version)), "config": config, "keyID": text("0123456789abcdef"),
		"creationTime": text("2030-01-01T00:00:00.000Z"), "_signature": &types.AttributeValueMemberB{Value: []byte{1}},
	})
}

// newer sends a request whose response holds what api/openapi.yaml does not have.
func (a *api) newer(t testing.TB, method, org, body string, headers map[string]string) answer {
	t.Helper()
	r := request{method: method, path: configPath(org), body: body, headers: map[string]string{"Content-Type": "application/json"}}
	for name, value := range headers {
		r.headers[name] = value
	}
	return a.undescribed(t, r)
}

// newerConfig is what a newer version might store: an unknown partner, unknown members at each
// level, an unknown mappingMode, known members of another type, and an entry that is no object.
const newerConfig = `{"schema": {"v": 2, "n": 1.50}, "partnerUsageMeteringConfigs": [
	{"partner": "NEWCLOUD", "region": ["eu", null, 12345678901234567890123456789012345678901234567890]},
	{"partner": "AWS", "rounding": "UP", "enableBillableDimension": "sometimes",
		"dimensionMapping": {
			"cpu": {"dimensionKey": "CpuHours", "convertionMultiplier": 2.50, "tiers": [{"from": 0.10}]},
			"gpu": {"dimensionKey": "Gpu", "mappingMode": "TIERED"},
			"ram": {"dimensionKey": {"eu": "x"}, "convertionMultiplier": "1/3"},
			"str": "CpuHours"},
		"dimensionMappingV2": {"cpu": [{"dimensionKey": "x", "mappingMode": "SHARE", "share": 1e-7}], "old": "all"}},
	"a reference", {"noPartner": true},
	{"partner": "GCP", "dimensionMapping": [], "dimensionMappingV2": null}]}`

// newerConfigWith returns newerConfig with texts replaced, each of which it must hold.
func newerConfigWith(t testing.TB, pairs ...string) string {
	t.Helper()
	config := newerConfig
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(config, pairs[i]) {
			t.Fatalf("there is no %s", pairs[i])
		}
		config = strings.Replace(config, pairs[i], pairs[i+1], 1)
	}
	return config
}

func storedText(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }

func TestConfigOfANewerVersion_IsReturnedAsItIsStored(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		for i, stored := range []string{
			newerConfig, `{}`, `{"partnerUsageMeteringConfigs":{}}`, `{"partnerUsageMeteringConfigs":null}`, `{"partnerUsageMeteringConfigs":"x"}`,
			`{"partnerUsageMeteringConfigs":[],"x":1}`, `{"partnerUsageMeteringConfigs":[null,1,[],{}]}`, ` { "partnerUsageMeteringConfigs" : [ ] } `,
			`{"partnerUsageMeteringConfigs":[{"partner":7},{"partner":"AWS"},{"partner":"AWS","x":"\u00fc\/"}],"n":-0.00e+400}`,
		} {
			org := fmt.Sprint("acme ", i)
			a.storeConfig(t, org, 12, storedText(stored))
			got := a.newer(t, "GET", org, "", nil)
			if want(t, got, http.StatusOK); got.body != stored || got.headers.Get("ETag") != etagOf(12, stored) {
				t.Errorf("GET returns\n%s, %s\nstored is\n%s", got.body, got.headers.Get("ETag"), stored)
			}
			for _, body := range []string{`{}`, ` {"partnerUsageMeteringConfigs": [] } `} {
				if body != `{}` && !strings.Contains(stored, `s":[`) && stored != newerConfig {
					continue // it names a member that would change
				}
				got := a.newer(t, "PATCH", org, body, map[string]string{"If-Match": etagOf(12, stored)})
				if want(t, got, http.StatusOK); got.body != stored || got.headers.Get("ETag") != etagOf(12, stored) {
					t.Errorf("PATCH %s returns\n%s, %s\nstored is\n%s", body, got.body, got.headers.Get("ETag"), stored)
				}
			}
			want(t, a.newer(t, "GET", org, "", map[string]string{"If-None-Match": etagOf(12, stored)}), http.StatusNotModified)
			wantSame(t, []string{"CONFIG#0000000012"}, versions(t, a.client, a.tableName, org))
		}
	})
}

// A patch checks what it names and leaves the rest unchanged, including the spelling of numbers.
func TestConfigOfANewerVersion_PatchKeepsWhatItDoesNotName(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		entry := func(members string) string {
			return `{"partnerUsageMeteringConfigs": [{"partner": "AWS", ` + members + `}]}`
		}
		for i, c := range []struct{ patch, after string }{
			{entry(`"enableDimensionMapping": true`), newerConfigWith(t, `"rounding"`, `"enableDimensionMapping": true, "rounding"`)},
			{`{"partnerUsageMeteringConfigs": [{"partner": "ZOHO"}]}`, newerConfigWith(t, `"dimensionMappingV2": null}`, `"dimensionMappingV2": null}, {"partner": "ZOHO"}`)},
			{entry(`"enableBillableDimension": true`), newerConfigWith(t, `"sometimes"`, `true`)},
			{entry(`"enableBillableDimension": null`), newerConfigWith(t, `, "enableBillableDimension": "sometimes"`, ``)},
			// Unknown parts of a value are preserved.
			{entry(`"dimensionMapping": {"cpu": {"convertionMultiplier": 3}}`), newerConfigWith(t, `2.50`, `3`)},
			{entry(`"dimensionMapping": {"cpu": {"dimensionKey": "x", "convertionMultiplier": 2.5}}`), newerConfigWith(t, `"CpuHours", "conv`, `"x", "conv`)},
			{entry(`"dimensionMapping": {"gpu": {"dimensionKey": "y"}}`), newerConfigWith(t, `"Gpu"`, `"y"`)},
			{entry(`"dimensionMapping": {"gpu": {"convertionMultiplier": 0.5}}`), newerConfigWith(t, `"TIERED"`, `"TIERED", "convertionMultiplier": 0.5`)},
			{entry(`"dimensionMapping": {"gpu": {"mappingMode": "AMOUNT"}}`), newerConfigWith(t, `"TIERED"`, `"AMOUNT"`)},
			{entry(`"dimensionMapping": {"gpu": {"mappingMode": null, "convertionMultiplier": 1}}`), newerConfigWith(t, `"mappingMode": "TIERED"`, `"convertionMultiplier": 1`)},
			{entry(`"dimensionMapping": {"ram": {"convertionMultiplier": 4}}`), newerConfigWith(t, `"1/3"`, `4`)},
			{entry(`"dimensionMapping": {"ram": {"mappingMode": "QUANTITY"}}`), newerConfigWith(t, `"1/3"`, `"1/3", "mappingMode": "QUANTITY"`)},
			{entry(`"dimensionMapping": {"cpu": {}, "gpu": {}, "ram": {}}`), newerConfig},
			{entry(`"dimensionMapping": {"cpu": {"convertionMultiplier": 2.5}}`), newerConfig},
			{entry(`"dimensionMapping": {"new": {"dimensionKey": "n", "convertionMultiplier": 1}}`), newerConfigWith(t, `"str": "CpuHours"`, `"str": "CpuHours", "new": {"dimensionKey": "n", "convertionMultiplier": 1}`)},
			{
				entry(`"dimensionMapping": {"gpu": null}, "dimensionMappingV2": {"old": null}`),
				newerConfigWith(t, `"gpu": {"dimensionKey": "Gpu", "mappingMode": "TIERED"},`, ``, `, "old": "all"`, ``),
			},
			// A named value of another type is replaced (RFC 7396).
			{entry(`"dimensionMapping": {"str": {"dimensionKey": "s", "convertionMultiplier": 1}}`), newerConfigWith(t, `"str": "CpuHours"`, `"str": {"dimensionKey": "s", "convertionMultiplier": 1}`)},
			{entry(`"dimensionMappingV2": {"old": []}`), newerConfigWith(t, `"all"`, `[]`)},
			{
				`{"partnerUsageMeteringConfigs": [{"partner": "GCP", "dimensionMapping": {"a": {"dimensionKey": "A", "mappingMode": "AMOUNT"}}}]}`,
				newerConfigWith(t, `"dimensionMapping": []`, `"dimensionMapping": {"a": {"dimensionKey": "A", "mappingMode": "AMOUNT"}}`),
			},
			{`{"partnerUsageMeteringConfigs": null}`, `{"schema": {"v": 2, "n": 1.50}, "partnerUsageMeteringConfigs": []}`},
		} {
			org := fmt.Sprint("acme ", i)
			a.storeConfig(t, org, 1, storedText(newerConfig))
			got := a.newer(t, "PATCH", org, c.patch, nil)
			if want(t, got, http.StatusOK); strings.Contains(c.after, "0.10") && !strings.Contains(got.body, "0.10") {
				t.Errorf("%s: numbers are spelled otherwise: %s", c.patch, got.body)
			}
			wantSame(t, parse(t, c.after), parse(t, got.body))
			if read := a.newer(t, "GET", org, "", nil); read.body != got.body || read.headers.Get("ETag") != got.headers.Get("ETag") {
				t.Errorf("%s returned\n%s\nand GET\n%s", c.patch, got.body, read.body)
			}
			if kept := len(versions(t, a.client, a.tableName, org)); kept == 2 != (c.after != newerConfig) {
				t.Errorf("%s: %d versions", c.patch, kept)
			}
		}
	})
}

// Requests are read as strictly as always, whatever is stored.
func TestConfigOfANewerVersion_PatchIsReadStrictly(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.storeConfig(t, "acme", 1, storedText(newerConfig))
		mapping := func(key, value string) string {
			return `{"partnerUsageMeteringConfigs": [{"partner": "AWS", "dimensionMapping": {"` + key + `": ` + value + `}}]}`
		}
		for _, c := range []struct{ body, says string }{
			{`{"schema": null}`, "partnerUsageMeteringConfigs"},
			{`{"partnerUsageMeteringConfigs": [{"partner": "NEWCLOUD"}]}`, "NEWCLOUD"},
			{`{"partnerUsageMeteringConfigs": [{"noPartner": null}]}`, "noPartner"},
			{`{"partnerUsageMeteringConfigs": [{"partner": "AWS", "rounding": null}]}`, "rounding"},
			{`{"partnerUsageMeteringConfigs": [{"partner": "AWS", "enableBillableDimension": "sometimes"}]}`, "true or false"},
			{mapping("cpu", `{"tiers": []}`), "tiers"},
			{mapping("cpu", `{"mappingMode": "TIERED"}`), "TIERED"},
			{mapping("cpu", `{"convertionMultiplier": null}`), "convertionMultiplier is missing"},
			{mapping("gpu", `{"mappingMode": "TIERED"}`), "TIERED"}, // stored like this, and named
			{mapping("gpu", `{"mappingMode": "QUANTITY"}`), "convertionMultiplier is missing"},
			{mapping("gpu", `{"mappingMode": null}`), "convertionMultiplier is missing"},
			{mapping("gpu", `{"dimensionKey": null}`), "dimensionKey"},
			{mapping("ram", `{"convertionMultiplier": 0}`), "over 0"},
			{mapping("str", `{"convertionMultiplier": 1}`), "dimensionKey"},
			{mapping("new", `{"convertionMultiplier": 1}`), "dimensionKey"},
		} {
			wantError(t, a.newer(t, "PATCH", "acme", c.body, nil), http.StatusBadRequest, c.says)
		}
		if got := a.newer(t, "GET", "acme", "", nil); got.body != newerConfig {
			t.Errorf("what was refused was written: %s", got.body)
		}
	})
}

// PUT replaces any config, even one that this version can't read.
func TestConfigOfANewerVersion_PutReplacesIt(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		for i, stored := range []types.AttributeValue{
			storedText(newerConfig), storedText(""), storedText("not JSON"), storedText(`{"partnerUsageMeteringConfigs":[`), storedText(`{} {}`), storedText(`[]`),
			storedText(`"x"`), storedText("\x00\x01"), &types.AttributeValueMemberM{Value: map[string]types.AttributeValue{}},
			&types.AttributeValueMemberB{Value: []byte{0x1f, 0x8b}}, &types.AttributeValueMemberNULL{Value: true},
		} {
			org := fmt.Sprint("acme ", i)
			a.storeConfig(t, org, 41, stored)
			if i > 0 {
				for method, body := range map[string]string{"GET": "", "PATCH": configOn} {
					wantError(t, a.newer(t, method, org, body, nil), http.StatusInternalServerError, "internal error")
				}
				wantError(t, a.newer(t, "PUT", org, configOn, map[string]string{"If-Match": `"41"`}), http.StatusPreconditionFailed)
			}
			wantError(t, a.newer(t, "PUT", org, configOn, map[string]string{"If-None-Match": "*"}), http.StatusPreconditionFailed)
			wantError(t, a.newer(t, "PUT", org, `{"x": 1}`, nil), http.StatusBadRequest, "unknown")
			got := a.sendConfig(t, "PUT", org, configOn, nil)
			if want(t, got, http.StatusOK); got.body != configOn || strongETag(t, got) != etagOf(42, configOn) {
				t.Errorf("%s %s", got.body, strongETag(t, got))
			}
			want(t, a.get(t, configPath(org), ""), http.StatusOK)
			wantSame(t, []string{"CONFIG#0000000041", "CONFIG#0000000042"}, versions(t, a.client, a.tableName, org))
		}
	})
}

// The same content in another order or spelling is the same config.
func TestConfigOfANewerVersion_PutOfTheSameWritesNothing(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		stored := `{"partnerUsageMeteringConfigs" : [{"partner":"AWS", "dimensionMapping":{"a":{"dimensionKey":"d","convertionMultiplier":1.50}}}]}`
		a.storeConfig(t, "acme", 3, storedText(stored))
		for _, method := range []string{"PUT", "PATCH"} {
			for _, body := range []string{stored, strings.ReplaceAll(stored, "1.50", "15e-1"), toJSON(t, json.RawMessage(stored))} {
				got := a.sendConfig(t, method, "acme", body, nil)
				if want(t, got, http.StatusOK); got.body != stored || strongETag(t, got) != etagOf(3, stored) {
					t.Errorf("%s %s returns %s, %s", method, body, got.body, strongETag(t, got))
				}
			}
		}
		wantSame(t, []string{"CONFIG#0000000003"}, versions(t, a.client, a.tableName, "acme"))
	})
}

// A patch would drop a member that is stored in a form that it can't be merged into.
func TestConfigOfANewerVersion_PatchRefusesToDropAnotherForm(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		for n, c := range []struct{ stored, patch, path string }{
			{`{"partnerUsageMeteringConfigs":{"AWS":{"partner":"AWS"}}}`, `{"partnerUsageMeteringConfigs":[{"partner":"GCP"}]}`, "partnerUsageMeteringConfigs"},
			{`{"partnerUsageMeteringConfigs":"v2"}`, `{"partnerUsageMeteringConfigs":[]}`, "partnerUsageMeteringConfigs"},
			{
				`{"partnerUsageMeteringConfigs":[{"partner":"AWS","dimensionMapping":[{"from":"cpu"}]}]}`,
				`{"partnerUsageMeteringConfigs":[{"partner":"AWS","dimensionMapping":{"cpu":{"dimensionKey":"c","convertionMultiplier":1}}}]}`, "dimensionMapping",
			},
			{
				`{"partnerUsageMeteringConfigs":[{"partner":"AWS","dimensionMappingV2":"all"}]}`,
				`{"partnerUsageMeteringConfigs":[{"partner":"AWS","dimensionMappingV2":{"cpu":[]}}]}`, "dimensionMappingV2",
			},
		} {
			org := fmt.Sprintf("other%d", n)
			a.storeConfig(t, org, 7, storedText(c.stored))
			wantError(t, a.newer(t, "PATCH", org, c.patch, nil), http.StatusBadRequest, c.path, "another form", "PUT")
			if got := a.newer(t, "GET", org, "", nil); got.status != http.StatusOK || got.body != c.stored {
				t.Errorf("%s is %d %s after the patch", c.stored, got.status, got.body)
			}
			want(t, a.newer(t, "PATCH", org, `{"partnerUsageMeteringConfigs":null}`, nil), http.StatusOK)
		}
	})
}

// An item of another kind may begin as a version does: it is none.
func TestConfigOfANewerVersion_ItemsOfOtherKindsAreNoVersions(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.storeConfig(t, "kinds", 3, storedText(`{"partnerUsageMeteringConfigs":[]}`))
		for _, key := range []string{"CONFIG#draft", "CONFIG#zz#1", "CONFIG#", "CONFIG##"} {
			a.putItem(t, map[string]types.AttributeValue{"PK": storedText("ORG#kinds"), "SK": storedText(key)})
		}
		want(t, a.newer(t, "GET", "kinds", "", nil), http.StatusOK)
		got := a.newer(t, "PUT", "kinds", `{"partnerUsageMeteringConfigs":[{"partner":"AWS"}]}`, nil)
		want(t, got, http.StatusOK)
		if tag := got.headers.Get("ETag"); !strings.HasPrefix(tag, `"4-`) {
			t.Errorf("the version is %s", tag)
		}
	})
}
