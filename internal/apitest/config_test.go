package apitest

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"pgregory.net/rapid"
)

const emptyConfig = `{"partnerUsageMeteringConfigs": []}`

// config returns the config of the organization and its ETag.
func (a *api) config(t testing.TB, org string) (config any, etag string) {
	t.Helper()
	got := a.get(t, configPath(org), "")
	want(t, got, http.StatusOK)
	return parse(t, got.body), strongETag(t, got)
}

func strongETag(t testing.TB, got answer) string {
	t.Helper()
	etag := got.headers.Get("ETag")
	if len(etag) < 3 || etag[0] != '"' || etag[len(etag)-1] != '"' || strings.Contains(etag[1:len(etag)-1], `"`) {
		t.Fatalf("the ETag is %q: it must be a strong one", etag)
	}
	return etag
}

// etagOf is the ETag of a version of a config, by its bytes.
func etagOf(version int, stored string) string {
	sum := sha256.Sum256([]byte(stored))
	return fmt.Sprintf(`"%d-%x"`, version, sum[:16])
}

func (a *api) sendConfig(t testing.TB, method, org, body string, headers map[string]string) answer {
	t.Helper()
	all := map[string]string{"Content-Type": "application/json"}
	maps.Copy(all, headers)
	return a.do(t, request{method: method, path: configPath(org), body: body, headers: all})
}

// wantConfig sends a change and checks the response and what is stored.
func (a *api) wantConfig(t testing.TB, method, org, body, expected string) {
	t.Helper()
	got := a.sendConfig(t, method, org, body, nil)
	want(t, got, http.StatusOK)
	wantSame(t, parse(t, expected), parse(t, got.body))
	read, etag := a.config(t, org)
	wantSame(t, parse(t, expected), read)
	if etag != strongETag(t, got) {
		t.Errorf("the ETag was %s and is %s", strongETag(t, got), etag)
	}
}

// versions are the config's stored versions, oldest first (docs/data-model.md: PK ORG#<org>, SK
// CONFIG#<n>).
func versions(t testing.TB, client *dynamodb.Client, tableName, org string) []string {
	t.Helper()
	out, err := client.Query(t.Context(), &dynamodb.QueryInput{
		TableName: &tableName, KeyConditionExpression: aws.String("PK = :pk AND begins_with(SK, :sk)"), ConsistentRead: aws.Bool(true),
		ExpressionAttributeValues: map[string]types.AttributeValue{
			":pk": &types.AttributeValueMemberS{Value: "ORG#" + org}, ":sk": &types.AttributeValueMemberS{Value: "CONFIG#"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	keys := []string{}
	for _, item := range out.Items {
		keys = append(keys, item["SK"].(*types.AttributeValueMemberS).Value)
	}
	return keys
}

func TestConfig_DefaultIsEmpty(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		got := a.get(t, configPath("acme"), "")
		want(t, got, http.StatusOK)
		wantSame(t, parse(t, emptyConfig), parse(t, got.body))
		etag := strongETag(t, got)
		want(t, a.sendConfig(t, "PATCH", "acme", `{"partnerUsageMeteringConfigs": [{"partner": "AWS"}]}`, map[string]string{"If-Match": etag}), http.StatusOK)
		wantError(t, a.sendConfig(t, "PATCH", "acme", `{}`, map[string]string{"If-Match": etag}), http.StatusPreconditionFailed)
	})
}

// wholeConfig uses every member.
const wholeConfig = `{"partnerUsageMeteringConfigs": [
	{"partner": "AWS", "enableDimensionMapping": true, "enableBillableDimension": false, "enableCommitWithAdditionalUsageMetering": true,
		"enableCommitWithAdditionalUsageAtListPrice": true,
		"dimensionMapping": {
			"cpu": {"dimensionKey": "cpu_hours", "convertionMultiplier": 0.1, "mappingMode": ""},
			"ram \"GB\"": {"dimensionKey": "rám", "convertionMultiplier": 9007199254740993, "mappingMode": "QUANTITY"},
			"a.b#c": {"dimensionKey": "usd", "mappingMode": "AMOUNT"}},
		"dimensionMappingV2": {
			"cpu": [{"dimensionKey": "x", "convertionMultiplier": 1e-9}, {"dimensionKey": "y", "convertionMultiplier": 3, "mappingMode": "AMOUNT"}],
			"none": []}},
	{"partner": "GCP", "dimensionMapping": {}, "dimensionMappingV2": {}, "enableCommitWithAdditionalUsageAtListPrice": true},
	{"partner": "ZOHO"}]}`

func TestConfig_PutReplaces(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.wantConfig(t, "PUT", "acme", wholeConfig, wholeConfig)
		smaller := `{"partnerUsageMeteringConfigs": [{"partner": "GCP", "dimensionMapping": {"ram": {"dimensionKey": "r", "convertionMultiplier": 1}}}]}`
		a.wantConfig(t, "PUT", "acme", smaller, smaller)
		a.wantConfig(t, "PUT", "acme", `{}`, emptyConfig)
	})
}

func TestConfig_PatchChangesWhatItNames(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		config := func(entries string) string { return `{"partnerUsageMeteringConfigs": [` + entries + `]}` }
		for i, c := range []struct{ name, before, patch, after string }{
			{"nothing", `{"partner": "AWS"}`, ``, `{"partner": "AWS"}`},
			{"a flag", `{"partner": "AWS", "enableDimensionMapping": false, "enableBillableDimension": true}`, `{"partner": "AWS", "enableDimensionMapping": true}`, `{"partner": "AWS", "enableDimensionMapping": true, "enableBillableDimension": true}`},
			{"null removes a flag", `{"partner": "AWS", "enableDimensionMapping": true, "enableBillableDimension": true}`, `{"partner": "AWS", "enableDimensionMapping": null}`, `{"partner": "AWS", "enableBillableDimension": true}`},
			{"another partner", `{"partner": "AWS", "enableDimensionMapping": true}`, `{"partner": "GCP"}`, `{"partner": "AWS", "enableDimensionMapping": true}, {"partner": "GCP"}`},
			{"partners are matched by name, not place", `{"partner": "AWS"}, {"partner": "GCP"}`, `{"partner": "GCP", "enableDimensionMapping": true}, {"partner": "AWS", "enableBillableDimension": true}`, `{"partner": "AWS", "enableBillableDimension": true}, {"partner": "GCP", "enableDimensionMapping": true}`},
			{"AWS is not AWS_CHINA", `{"partner": "AWS"}`, `{"partner": "AWS_CHINA", "enableDimensionMapping": true}`, `{"partner": "AWS"}, {"partner": "AWS_CHINA", "enableDimensionMapping": true}`},
			{"a mapping key", `{"partner": "AWS", "dimensionMapping": {"a": {"dimensionKey": "A", "convertionMultiplier": 1}}}`, `{"partner": "AWS", "dimensionMapping": {"b": {"dimensionKey": "B", "convertionMultiplier": 2}}}`, `{"partner": "AWS", "dimensionMapping": {"a": {"dimensionKey": "A", "convertionMultiplier": 1}, "b": {"dimensionKey": "B", "convertionMultiplier": 2}}}`},
			{"inside a mapping value", `{"partner": "AWS", "dimensionMapping": {"a": {"dimensionKey": "A", "convertionMultiplier": 1}}}`, `{"partner": "AWS", "dimensionMapping": {"a": {"convertionMultiplier": 0.1}}}`, `{"partner": "AWS", "dimensionMapping": {"a": {"dimensionKey": "A", "convertionMultiplier": 0.1}}}`},
			{"null removes a mapping key", `{"partner": "AWS", "dimensionMapping": {"a": {"dimensionKey": "A", "convertionMultiplier": 1}, "b": {"dimensionKey": "B", "convertionMultiplier": 2}}}`, `{"partner": "AWS", "dimensionMapping": {"a": null, "absent": null}}`, `{"partner": "AWS", "dimensionMapping": {"b": {"dimensionKey": "B", "convertionMultiplier": 2}}}`},
			{"null removes the last mapping key", `{"partner": "AWS", "dimensionMapping": {"a": {"dimensionKey": "A", "convertionMultiplier": 1}}}`, `{"partner": "AWS", "dimensionMapping": {"a": null}}`, `{"partner": "AWS", "dimensionMapping": {}}`},
			{"null removes inside a mapping value", `{"partner": "AWS", "dimensionMapping": {"a": {"dimensionKey": "A", "convertionMultiplier": 1, "mappingMode": "AMOUNT"}}}`, `{"partner": "AWS", "dimensionMapping": {"a": {"convertionMultiplier": null}}}`, `{"partner": "AWS", "dimensionMapping": {"a": {"dimensionKey": "A", "mappingMode": "AMOUNT"}}}`},
			{"null removes a mapping", `{"partner": "AWS", "dimensionMapping": {"a": {"dimensionKey": "A", "convertionMultiplier": 1}}, "dimensionMappingV2": {"b": []}}`, `{"partner": "AWS", "dimensionMapping": null, "dimensionMappingV2": null}`, `{"partner": "AWS"}`},
			{"an array replaces the key's array", `{"partner": "AWS", "dimensionMappingV2": {"a": [{"dimensionKey": "A", "convertionMultiplier": 1}, {"dimensionKey": "B", "convertionMultiplier": 1}], "b": []}}`, `{"partner": "AWS", "dimensionMappingV2": {"a": [{"dimensionKey": "C", "mappingMode": "AMOUNT"}]}}`, `{"partner": "AWS", "dimensionMappingV2": {"a": [{"dimensionKey": "C", "mappingMode": "AMOUNT"}], "b": []}}`},
			{"null removes an array", `{"partner": "AWS", "dimensionMappingV2": {"a": [], "b": []}}`, `{"partner": "AWS", "dimensionMappingV2": {"a": null}}`, `{"partner": "AWS", "dimensionMappingV2": {"b": []}}`},
			{"an empty object names nothing", `{"partner": "AWS", "dimensionMapping": {"a": {"dimensionKey": "A", "convertionMultiplier": 1}}}`, `{"partner": "AWS", "dimensionMapping": {}}`, `{"partner": "AWS", "dimensionMapping": {"a": {"dimensionKey": "A", "convertionMultiplier": 1}}}`},
		} {
			org := fmt.Sprintf("acme %d", i)
			want(t, a.sendConfig(t, "PUT", org, config(c.before), nil), http.StatusOK)
			if a.wantConfig(t, "PATCH", org, config(c.patch), config(c.after)); t.Failed() {
				t.Fatal(c.name)
			}
		}
		a.wantConfig(t, "PATCH", "acme 1", `{}`, config(`{"partner": "AWS", "enableDimensionMapping": true, "enableBillableDimension": true}`))
		a.wantConfig(t, "PATCH", "acme 1", `{"partnerUsageMeteringConfigs": null}`, emptyConfig)
	})
}

// For all configs and sequences of patches, the result is that of RFC 7396 with matching by
// partner, or, if that breaks a rule, a 400 that changes nothing.
func TestConfig_PatchIsRFC7396(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		var organizations, taken, refused int
		rapid.Check(t, func(rt *rapid.T) {
			organizations++
			o := newOrganization(fmt.Sprint("acme ", organizations))
			for step := range rapid.IntRange(1, 6).Draw(rt, "steps") {
				r := configured([]string{"PUT", "PATCH", "PATCH"}[step%3], drawConfig(rt, o))
				r.headers["Content-Type"] = "application/json"
				before := o.tags("config").version
				expected := ruleOfChange(now, r)(o, nil)
				got := a.do(t, r.of(o.name))
				if expected.status != http.StatusOK {
					refused++
					wantError(t, got, expected.status)
				} else {
					taken++
					want(t, got, http.StatusOK)
					wantSame(t, expected.body, parse(t, got.body))
					if expected.then != nil {
						expected.then()
					}
					if tag := o.tags("config").seen[before]; tag != "" && (tag == strongETag(t, got)) != (before == o.tags("config").version) {
						t.Errorf("version %d had the ETag %s, version %d has %s", before, tag, o.tags("config").version, strongETag(t, got))
					}
					o.tags("config").seen[o.tags("config").version] = strongETag(t, got)
				}
				config, tag := a.config(t, o.name)
				wantSame(t, any(configBody(o.config)), config)
				if known := o.tags("config").seen[o.tags("config").version]; known != "" && tag != known {
					t.Errorf("the ETag was %s and is %s", known, tag)
				}
				if t.Failed() {
					rt.Fatalf("%s %s", r.method, r.body)
				}
			}
		})
		if taken < organizations/2 || refused < organizations/10 {
			t.Errorf("%d rounds, %d changes taken, %d refused: the data no longer tests much", organizations, taken, refused)
		}
	})
}

func TestConfig_IsValidated(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		entry := func(members string) string { return `{"partnerUsageMeteringConfigs": [{` + members + `}]}` }
		mapping := func(value string) string {
			return entry(`"partner": "AWS", "dimensionMapping": {"cpu h": ` + value + `}`)
		}
		array := func(value string) string {
			return entry(`"partner": "AWS", "dimensionMappingV2": {"cpu h": ` + value + `}`)
		}
		for _, c := range []struct {
			body  string
			texts []string
		}{
			{``, nil},
			{`x`, nil},
			{`null`, nil},
			{`[]`, nil},
			{`"x"`, nil},
			{`{} {}`, nil},
			{`{"partnerUsageMeteringConfigs": [}`, nil},
			{`{"partnerUsageMeteringConfigs": {}}`, []string{"partnerUsageMeteringConfigs", "array"}},
			{`{"partnerUsageMeteringConfigs": [null]}`, []string{"partnerUsageMeteringConfigs[0]"}},
			{`{"partnerUsageMeteringConfigs": ["AWS"]}`, []string{"partnerUsageMeteringConfigs[0]"}},
			{`{"partnerUsageMeteringConfig": []}`, []string{"did you mean partnerUsageMeteringConfigs?"}},
			{`{"partnerUsageMeteringConfigs": [], "partnerUsageMeteringConfigs": []}`, []string{"partnerUsageMeteringConfigs"}},
			{entry(``), []string{"partner"}},
			{entry(`"partner": null`), []string{"partner"}},
			{entry(`"partner": ""`), []string{"partner", "mean"}},
			{entry(`"partner": "aws"`), []string{"partner", `"aws"`, `"AWS"`}},
			{entry(`"partner": "SUGER"`), []string{"partner", `"AWS_CHINA"`, `"DATABRICKS"`}},
			{entry(`"partner": 1`), []string{"partnerUsageMeteringConfigs[0].partner"}},
			{`{"partnerUsageMeteringConfigs": [{"partner": "AWS"}, {"partner": "GCP"}, {"partner": "AWS"}]}`, []string{"partnerUsageMeteringConfigs[2]", "AWS"}},
			{entry(`"partner": "AWS", "enableDimensionMaping": true`), []string{"did you mean enableDimensionMapping?"}},
			{entry(`"partner": "AWS", "EnableDimensionMapping": true`), []string{"did you mean enableDimensionMapping?"}},
			{entry(`"partner": "AWS", "dimensionMappingV3": {}`), []string{"did you mean dimensionMappingV2?"}},
			{entry(`"partner": "AWS", "enableDimensionMapping": "true"`), []string{"partnerUsageMeteringConfigs[0].enableDimensionMapping"}},
			{entry(`"partner": "AWS", "enableDimensionMapping": 1`), []string{"partnerUsageMeteringConfigs[0].enableDimensionMapping"}},
			{entry(`"partner": "AWS", "dimensionMapping": []`), []string{"partnerUsageMeteringConfigs[0].dimensionMapping"}},
			{entry(`"partner": "AWS", "dimensionMappingV2": {"a": {}}`), []string{"partnerUsageMeteringConfigs[0].dimensionMappingV2.a"}},
			{entry(`"partner": "AWS", "dimensionMapping": {"a": {"dimensionKey": "x", "convertionMultiplier": 1}, "a": null}`), []string{"dimensionMapping.a"}},
			{mapping(`{"dimensionKey": "x", "conversionMultiplier": 1}`), []string{"did you mean convertionMultiplier?"}},
			{mapping(`{"dimensionKey": "x", "convertionMultiplier": "1"}`), []string{`dimensionMapping["cpu h"].convertionMultiplier`}},
			{mapping(`{"dimensionKey": "x", "convertionMultiplier": 0}`), []string{`["cpu h"].convertionMultiplier`, "0"}},
			{mapping(`{"dimensionKey": "x", "convertionMultiplier": -1}`), []string{`["cpu h"].convertionMultiplier`, "-1"}},
			{mapping(`{"dimensionKey": "x", "convertionMultiplier": -0}`), []string{`["cpu h"].convertionMultiplier`}},
			{mapping(`{"dimensionKey": "x", "convertionMultiplier": 1e400}`), []string{`["cpu h"].convertionMultiplier`, "19"}},
			{mapping(`{"dimensionKey": "x", "convertionMultiplier": 1e-20}`), []string{`["cpu h"].convertionMultiplier`, "19"}},
			{mapping(`{"dimensionKey": "x", "convertionMultiplier": 12345678901234567890}`), []string{`["cpu h"].convertionMultiplier`, "19"}},
			{mapping(`{"dimensionKey": "x"}`), []string{`["cpu h"].convertionMultiplier`}},
			{mapping(`{"dimensionKey": "x", "mappingMode": "QUANTITY"}`), []string{`["cpu h"].convertionMultiplier`}},
			{mapping(`{"convertionMultiplier": 1}`), []string{`["cpu h"].dimensionKey`, "255"}},
			{mapping(`{"dimensionKey": "", "convertionMultiplier": 1}`), []string{`["cpu h"].dimensionKey`, "255"}},
			{mapping(`{"dimensionKey": null, "convertionMultiplier": 1}`), []string{`["cpu h"].dimensionKey`, "255"}},
			{mapping(`{"dimensionKey": "` + strings.Repeat("ü", 256) + `", "convertionMultiplier": 1}`), []string{`["cpu h"].dimensionKey`, "255"}},
			{mapping(`{"dimensionKey": "x\u0000", "convertionMultiplier": 1}`), []string{`["cpu h"].dimensionKey`, "control"}},
			{mapping(`{"dimensionKey": "x", "mappingMode": "amount"}`), []string{`["cpu h"].mappingMode`, `"AMOUNT"`}},
			{mapping(`{"dimensionKey": "x", "mappingMode": 1, "convertionMultiplier": 1}`), []string{`dimensionMapping["cpu h"].mappingMode`}},
			{mapping(`{}`), []string{`["cpu h"].dimensionKey`}},
			{mapping(`1`), []string{`dimensionMapping["cpu h"]`}},
			{array(`[null]`), []string{`dimensionMappingV2["cpu h"][0]`}},
			{array(`[{"dimensionKey": "x", "convertionMultiplier": 1}, {"dimensionKey": "y"}]`), []string{`dimensionMappingV2["cpu h"][1].convertionMultiplier`}},
			{array(`[{"convertionMultiplier": 1}]`), []string{`dimensionMappingV2["cpu h"][0].dimensionKey`}},
			{array(`[{"dimensionKey": "x", "convertionMultiplier": 1, "x": 1}]`), []string{`dimensionMappingV2["cpu h"][0].x`}},
			{entry(`"partner": "AWS", "dimensionMapping": {"": {"dimensionKey": "x", "convertionMultiplier": 1}}`), []string{"dimensionMapping", "255"}},
			{entry(`"partner": "AWS", "dimensionMappingV2": {"` + strings.Repeat("k", 256) + `": []}`), []string{"dimensionMappingV2", "255"}},
			{"{\"partnerUsageMeteringConfigs\": [{\"partner\": \"A\xffS\"}]}", nil},
		} {
			if !a.carries(request{body: c.body}) {
				continue
			}
			for _, method := range []string{"PUT", "PATCH"} {
				got := a.sendConfig(t, method, "acme", c.body, nil)
				if wantError(t, got, http.StatusBadRequest, c.texts...); t.Failed() {
					t.Fatalf("%s %s", method, c.body)
				}
			}
		}
		for _, partner := range []string{
			"ADYEN", "ALIBABA", "AWS", "AWS_CHINA", "AZURE", "GCP", "GOOGLE", "HUBSPOT", "LAGO", "MARKETO", "METRONOME", "MICROSOFT", "ORACLE",
			"ORB", "REDHAT", "SALESFORCE", "SLACK", "STRIPE", "ZOHO", "INTUIT", "SNOWFLAKE", "DATABRICKS",
		} {
			want(t, a.sendConfig(t, "PUT", "partners", entry(`"partner": "`+partner+`"`), nil), http.StatusOK)
		}
		config, _ := a.config(t, "acme")
		wantSame(t, parse(t, emptyConfig), config)
		if kept := versions(t, a.client, a.tableName, "acme"); len(kept) != 0 {
			t.Errorf("what was refused left versions: %q", kept)
		}
	})
}

func TestConfig_KeepsNumbersExactly(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		for _, number := range []string{"0.1", "9007199254740993", "1e-9", "0.0000000000000000001", "9999999999999999999", "1234567890.123456789", "1E+3", "2.50"} {
			config := `{"partnerUsageMeteringConfigs": [{"partner": "AWS", "dimensionMapping": {"a": {"dimensionKey": "A", "convertionMultiplier": ` + number + `}},
				"dimensionMappingV2": {"a": [{"dimensionKey": "A", "convertionMultiplier": ` + number + `}]}}]}`
			if a.wantConfig(t, "PATCH", "acme", config, config); t.Failed() {
				t.Fatal(number)
			}
		}
	})
}

func TestConfig_HasAMaxSize(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		config := func(bytes int) string {
			var b strings.Builder
			for i := 0; b.Len() < bytes; i++ {
				fmt.Fprintf(&b, `"%s %d": {"dimensionKey": "%s", "convertionMultiplier": 1},`, strings.Repeat("k", 200), i, strings.Repeat("ü", 200))
			}
			return `{"partnerUsageMeteringConfigs": [{"partner": "AWS", "dimensionMapping": {` + strings.TrimSuffix(b.String(), ",") + `}}]}`
		}
		put := a.sendConfig(t, "PUT", "acme", config(395_000), nil)
		want(t, put, http.StatusOK)
		wantError(t, a.sendConfig(t, "PUT", "acme", config(420_000), nil), http.StatusBadRequest, "bytes")
		wantError(t, a.sendConfig(t, "PATCH", "acme", strings.Repeat(" ", 1<<20)+"{}", nil), http.StatusRequestEntityTooLarge)
		// Each is small, together they are too large.
		more := strings.ReplaceAll(config(20_000), `"AWS"`, `"GCP"`)
		wantError(t, a.sendConfig(t, "PATCH", "acme", more, nil), http.StatusBadRequest, "bytes")
		got := a.get(t, configPath("acme"), "")
		want(t, got, http.StatusOK)
		if len(got.body) < 390_000 || got.body != put.body || strongETag(t, got) != strongETag(t, put) {
			t.Errorf("%d bytes were put and are %d now; the ETag was %s and is %s", len(put.body), len(got.body), strongETag(t, put), strongETag(t, got))
		}
	})
}

func TestConfigChange_WithoutEffectWritesNothing(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		for _, body := range []string{`{}`, `{"partnerUsageMeteringConfigs": []}`, `{"partnerUsageMeteringConfigs": null}`} {
			for _, method := range []string{"PUT", "PATCH"} {
				want(t, a.sendConfig(t, method, "nobody", body, nil), http.StatusOK)
			}
		}
		if kept := versions(t, a.client, a.tableName, "nobody"); len(kept) != 0 {
			t.Errorf("the empty config was written over the empty config: %q", kept)
		}

		etag := strongETag(t, a.sendConfig(t, "PUT", "acme", wholeConfig, nil))
		respelled := strings.NewReplacer("0.1", "1e-1", "9007199254740993", "9007199254740993.0", "1e-9", "0.0000000010").Replace(wholeConfig)
		for method, bodies := range map[string][]string{
			"PUT": {wholeConfig, respelled, toJSON(t, json.RawMessage(wholeConfig))},
			"PATCH": {
				wholeConfig, respelled, `{}`, `{"partnerUsageMeteringConfigs": []}`, `{"partnerUsageMeteringConfigs": [{"partner": "ZOHO"}]}`,
				`{"partnerUsageMeteringConfigs": [{"partner": "AWS", "enableDimensionMapping": true, "dimensionMapping": {"absent": null}}]}`,
			},
		} {
			for _, body := range bodies {
				got := a.sendConfig(t, method, "acme", body, map[string]string{"If-Match": etag})
				want(t, got, http.StatusOK)
				if strongETag(t, got) != etag {
					t.Errorf("%s %s: the ETag was %s and is %s", method, body, etag, strongETag(t, got))
				}
			}
		}
		wantSame(t, []string{"CONFIG#0000000001"}, versions(t, a.client, a.tableName, "acme"))
	})
}

// An ETag names one version of the config and is never used again, not even for the same content.
func TestConfig_EachVersionHasItsETag(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		on := `{"partnerUsageMeteringConfigs": [{"partner": "AWS", "enableDimensionMapping": true}]}`
		etags := map[string]bool{}
		for range 3 {
			for _, body := range []string{on, emptyConfig} {
				etags[strongETag(t, a.sendConfig(t, "PUT", "acme", body, nil))] = true
			}
		}
		if len(etags) != 6 {
			t.Errorf("6 configs had the ETags %v", etags)
		}
		wantSame(t, []string{
			"CONFIG#0000000001", "CONFIG#0000000002", "CONFIG#0000000003", "CONFIG#0000000004", "CONFIG#0000000005", "CONFIG#0000000006",
		}, versions(t, a.client, a.tableName, "acme"))
	})
}

// Of many changes that are each made for one version of a config, or for none, one succeeds.
func TestConfigChange_OneOfManyOnOneVersionSucceeds(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		_, etag := a.config(t, "acme")
		for org, headers := range map[string]map[string]string{"acme": {"If-Match": etag}, "other": {"If-None-Match": "*"}} {
			statuses := make(chan int, 10)
			for i := range cap(statuses) {
				go func() {
					patch := fmt.Sprintf(`{"partnerUsageMeteringConfigs": [{"partner": "AWS", "dimensionMapping": {"%d": {"dimensionKey": "d", "convertionMultiplier": 1}}}]}`, i)
					statuses <- a.sendConfig(t, []string{"PUT", "PATCH"}[i%2], org, patch, headers).status
				}()
			}
			counts := map[int]int{}
			for range cap(statuses) {
				counts[<-statuses]++
			}
			wantSame(t, map[int]int{http.StatusOK: 1, http.StatusPreconditionFailed: cap(statuses) - 1}, counts)
		}
	})
}
