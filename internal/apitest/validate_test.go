package apitest

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

func (a *api) validate(t testing.TB, body string) answer {
	t.Helper()
	return a.send(t, "POST", validatePath("acme"), body)
}

// validBatches are bodies that get a 200.
var validBatches = map[string]string{
	"v1":                                `[{"records": {"cpu": 1}}]`,
	"v1 with everything":                `[{"records": {"cpu": 1, "ram": 0}, "billableRecords": [], "entitlementID": "", "timestamp": "2024-07-29T10:00:00Z", "metaInfo": {"SkipValidation": false, "source": "API", "billableRecords": []}}]`,
	"v2":                                `[{"billableRecords": [{"key": "m1", "quantity": 2}]}]`,
	"v2 with properties":                `[{"billableRecords": [{"key": "m1", "quantity": 2, "properties": {"region": "eu", "tier": ["a", {"b": null}], "n": 1e-9}}]}]`,
	"v2 beside empty v1":                `[{"records": {}, "billableRecords": [{"key": "m1", "quantity": 2}], "entitlementID": ""}]`,
	"v2 beside null v1":                 `[{"records": null, "billableRecords": [{"key": "m1", "quantity": 2}], "entitlementID": null, "timestamp": null, "metaInfo": null}]`,
	"v1 beside null v2":                 `[{"records": {"cpu": 1}, "billableRecords": null, "metaInfo": {"billableRecords": null, "timestamp": null, "source": null, "SkipValidation": null, "originRecords": null}}]`,
	"v2 in metaInfo":                    `[{"metaInfo": {"billableRecords": [{"key": "m1", "quantity": 2}]}}]`,
	"v2 in metaInfo, empty above":       `[{"billableRecords": [], "metaInfo": {"billableRecords": [{"key": "m1", "quantity": 2}]}}]`,
	"billableRecords above win":         `[{"billableRecords": [{"key": "m1", "quantity": 2}], "metaInfo": {"billableRecords": [{"key": "", "quantity": -1}]}}]`,
	"the timestamp above wins":          `[{"records": {"cpu": 1}, "timestamp": "2024-07-29T10:00:00Z", "metaInfo": {"timestamp": "2034-07-29T10:00:00Z"}}]`,
	"originRecords are ignored":         `[{"records": {"cpu": 1}, "metaInfo": {"originRecords": {"": -1, "x": 1e400}}}]`,
	"null properties":                   `[{"billableRecords": [{"key": "m1", "quantity": 2, "properties": null}]}]`,
	"id and organization":               `[{"id": "g1", "organizationID": "acme", "records": {"cpu": 1}}]`,
	"no id and no organization":         `[{"id": "", "organizationID": null, "records": {"cpu": 1}}]`,
	"one of them zero":                  `[{"records": {"cpu": 0, "ram": -0, "disk": 0.0, "net": 0e5, "io": 0.0000000000000000001}}]`,
	"leap seconds":                      `[{"records": {"cpu": 1}, "timestamp": "1990-12-31T23:59:60Z", "metaInfo": {"timestamp": "2016-12-31T15:59:60.5-08:00", "lagoUsageStartTime": "2015-07-01T01:59:60+02:00"}}]`,
	"names of properties":               `[{"billableRecords": [{"key": "m", "quantity": 1, "properties": {" ": {"\u0000": [{"#%": 1}]}, "` + strings.Repeat("n", 65_535) + `": ""}}]}]`,
	"380 KB as stored":                  `[{"records": {"cpu": 1}, "metaInfo": {"lagoSubscriptionID": "` + strings.Repeat("日", 380<<10/3) + `"}}]`,
	"skipped: what can't be stored":     `[{"billableRecords": [{"key": "m", "quantity": 1, "properties": {"": 1}}], "metaInfo": {"lagoSubscriptionID": "` + strings.Repeat("x", 500_000) + `", "SkipValidation": true}}]`,
	"names that don't count":            `[{"billableRecords": [{"key": "m", "quantity": 1}], "metaInfo": {"billableRecords": [{"key": "m", "quantity": 1, "properties": {"": 1}}]}}]`,
	"two groups, the same keys":         `[{"records": {"cpu": 1}}, {"records": {"cpu": 1}}]`,
	"keys of all kinds":                 `[{"records": {" ": 1, "a.b": 1, "ü": 1, "日本": 1, "\"": 1, "/?#%": 1, "\u2028": 1, "😀": 1}}]`,
	"a key of 255 characters":           `[{"records": {"` + strings.Repeat("ü", 255) + `": 1}}]`,
	"exactly 5 minutes ahead":           `[{"records": {"cpu": 1}, "timestamp": "2024-07-29T15:56:28.071Z"}]`,
	"any offset and precision":          `[{"records": {"cpu": 1}, "timestamp": "2024-07-29T17:56:28.0709999999999+02:00"}, {"records": {"cpu": 1}, "timestamp": "2024-07-28T15:00:00-23:59"}, {"records": {"cpu": 1}, "timestamp": "2024-07-29t10:00:00z"}]`,
	"numbers to the last of 19 digits":  `[{"records": {"a": 9999999999999999999, "b": 0.9999999999999999999, "c": 9007199254740993, "d": 1e-9, "e": 0.1, "f": 1e18, "g": 1E-19, "h": 123456789.0123456789}}]`,
	"a value of 1 digit, spelled long":  `[{"records": {"a": 1.00000000000000000000000000000000, "b": 10000000000000000000000000e-25, "c": 0.00000000000000000000000001e+26}}]`,
	"zero, whatever its exponent":       `[{"records": {"a": 1, "b": 0e400, "c": -0e-400}}]`,
	"a skipped group may say anything":  `[{"metaInfo": {"SkipValidation": true}}]`,
	"skipped: keys and quantities":      `[{"records": {"": -1, "x": 1e400, "y": 0}, "billableRecords": [{"key": "", "quantity": -5}], "metaInfo": {"SkipValidation": true}}]`,
	"skipped: source, future, identity": `[{"id": "` + strings.Repeat("x", 40) + `", "organizationID": "other", "entitlementID": "a/b", "timestamp": "2099-01-01T00:00:00Z", "metaInfo": {"source": "NOBODY", "SkipValidation": true}}]`,
	"white space":                       " \r\n\t[ { \"records\" : { \"cpu\" : 1 } } ] \n",
	"what integrations carry along": `[{"records": {"cpu": 1}, "metaInfo": {"lagoAmount": 1.5, "lagoSubscriptionID": "s", "lagoUsageStartTime": "2024-07-29T10:00:00Z",
		"metronomeDailyCostAmount": -1, "metronomeInvoiceID": "", "metronomeMonthlyInvoiceAmount": 12345678901234567890.12, "metronomeMonthlyInvoiceAmountAdjusted": 0,
		"stripeInvoiceID": "i", "stripePeriodStartTime": "2024-07-01T00:00:00+02:00", "stripePeriodEndTime": "2034-07-01T00:00:00Z",
		"stripeSubscriptionItemID": "si", "stripeUsageRecordSummaryID": "su", "stripeUsageRecordSummaryTotalUsage": -2147483648}}]`,
}

func TestValidate_TakesWhatIsValid(t *testing.T) {
	t.Parallel()
	eachWayOver(t, nil, func(t *testing.T, a *api) {
		for name, body := range validBatches {
			if got := a.validate(t, body); got.status != http.StatusOK || got.body != `""` {
				t.Errorf("%s: %d %s", name, got.status, got.body)
			}
		}
		for _, source := range sources {
			got := a.validate(t, `[{"records": {"cpu": 1}, "metaInfo": {"source": "`+source+`"}}]`)
			if got.status != http.StatusOK || got.body != `""` {
				t.Errorf("source %q: %d %s", source, got.status, got.body)
			}
		}
	})
}

// A value that breaks a rule gets a 500, with the index, the path and the reason of the first such
// group and the number of such groups.
func TestValidate_RefusesValues(t *testing.T) {
	t.Parallel()
	eachWayOver(t, nil, func(t *testing.T, a *api) {
		for _, c := range []struct {
			group string
			texts []string // path and reason
		}{
			{`{}`, []string{"records", "billableRecords", "empty"}},
			{`{"records": {}}`, []string{"records", "empty"}},
			{`{"records": null, "billableRecords": []}`, []string{"records", "empty"}},
			{`{"records": {"cpu": 1}, "billableRecords": [{"key": "m", "quantity": 1}]}`, []string{"records and billableRecords", "not both"}},
			{`{"records": {"cpu": 1}, "metaInfo": {"billableRecords": [{"key": "m", "quantity": 1}]}}`, []string{"records and metaInfo.billableRecords", "not both"}},
			{`{"records": {"": 1}}`, []string{"records", `""`, "1 to 255"}},
			{`{"records": {"` + strings.Repeat("ü", 256) + `": 1}}`, []string{"records", "255"}},
			{`{"records": {"a\u0000b": 1}}`, []string{"records", "control"}},
			{`{"billableRecords": [{"key": "m", "quantity": 1}, {"key": "", "quantity": 1}]}`, []string{"billableRecords[1].key", "255"}},
			{`{"billableRecords": [{"quantity": 1}]}`, []string{"billableRecords[0].key", "255"}},
			{`{"billableRecords": [{"key": "` + strings.Repeat("x", 256) + `", "quantity": 1}]}`, []string{"billableRecords[0].key", "255"}},
			{`{"records": {"ok": 1, "cpu h": -1}}`, []string{`records["cpu h"]`, "-1", "negative"}},
			{`{"records": {"ok": 1, "cpu": -0.0000000000000000001}}`, []string{`records["cpu"]`, "negative"}},
			{`{"billableRecords": [{"key": "ok", "quantity": 1}, {"key": "m", "quantity": -1e2}]}`, []string{"billableRecords[1].quantity", "-100", "negative"}},
			{`{"metaInfo": {"billableRecords": [{"key": "m", "quantity": -1}]}}`, []string{"metaInfo.billableRecords[0].quantity", "negative"}},
			{`{"records": {"cpu": 0}}`, []string{"0"}},
			{`{"records": {"cpu": 0, "ram": -0, "disk": 0e9}}`, []string{"0"}},
			{`{"billableRecords": [{"key": "m", "quantity": 0.0}, {"key": "n", "quantity": 0}]}`, []string{"0"}},
			{`{"billableRecords": [{"key": "m"}]}`, []string{"0"}},
			{`{"records": {"cpu": 10000000000000000000}}`, []string{`records["cpu"]`, "19"}},
			{`{"records": {"cpu": 1.0000000000000000001}}`, []string{`records["cpu"]`, "19"}},
			{`{"records": {"cpu": 0.00000000000000000001}}`, []string{`records["cpu"]`, "19"}},
			{`{"records": {"cpu": 1e400}}`, []string{`records["cpu"]`, "1e400", "19"}},
			{`{"records": {"cpu": 1e-400}}`, []string{`records["cpu"]`, "19"}},
			{`{"records": {"cpu": 1e99999999999999999999}}`, []string{`records["cpu"]`, "19"}},
			{`{"records": {"cpu": ` + strings.Repeat("9", 100_000) + `}}`, []string{`records["cpu"]`, "19"}},
			{`{"records": {"cpu": 1}, "timestamp": "9999-12-31T23:59:59Z", "metaInfo": {"timestamp": "2024-07-29T10:00:00Z"}}`, []string{"timestamp", "9999", "5 minutes"}},
			{`{"records": {"cpu": 1}, "metaInfo": {"source": "NOBODY"}}`, []string{"metaInfo.source", "NOBODY", `"METRONOME"`}},
			{`{"records": {"cpu": 1}, "metaInfo": {"source": "api"}}`, []string{"metaInfo.source", "api", `"API"`}},
			{`{"records": {"cpu": 1}, "timestamp": "2990-12-31T23:59:60Z"}`, []string{"timestamp", "2990-12-31T23:59:59.999Z", "5 minutes"}},
			{`{"billableRecords": [{"key": "m", "quantity": 1, "properties": {"": 1}}]}`, []string{"billableRecords[0].properties has", `""`, "1 to 65535 bytes"}},
			{`{"metaInfo": {"billableRecords": [{"key": "m", "quantity": 1, "properties": {"": null}}]}}`, []string{"metaInfo.billableRecords[0].properties has", "1 to 65535"}},
			{`{"billableRecords": [{"key": "l", "quantity": 1}, {"key": "m", "quantity": 1, "properties": {"a": [1, {"b c": {"": {}}}]}}]}`, []string{`billableRecords[1].properties["a"][1]["b c"] has`, "1 to 65535"}},
			{`{"billableRecords": [{"key": "m", "quantity": 1, "properties": {"a": {"` + strings.Repeat("n", 65_536) + `": 1}}}]}`, []string{`billableRecords[0].properties["a"] has`, "65536 bytes", "1 to 65535"}},
			{`{"records": {"cpu": 1}, "metaInfo": {"lagoSubscriptionID": "` + strings.Repeat("x", 400<<10) + `"}}`, []string{"as stored", "401408", "392 KB"}},
			{`{"billableRecords": [{"key": "m", "quantity": 1, "properties": {"a": "` + strings.Repeat("x", 393<<10) + `"}}]}`, []string{"as stored", "401408", "392 KB"}},
			{`{"records": {"cpu": -1}, "metaInfo": {"SkipValidation": false}}`, []string{"negative"}},
			{`{"records": {"cpu": -1}, "metaInfo": {"SkipValidation": null}}`, []string{"negative"}},
			{`{"records": {"cpu": 1}, "entitlementID": "` + strings.Repeat("e", 257) + `"}`, []string{"entitlementID", "256"}},
			{`{"records": {"cpu": 1}, "entitlementID": "a/b"}`, []string{"entitlementID", "/"}},
			{`{"records": {"cpu": 1}, "entitlementID": "a%b"}`, []string{"entitlementID", `"%"`}},
			{`{"records": {"cpu": 1}, "entitlementID": "a?b"}`, []string{"entitlementID", `"?"`}},
			{`{"records": {"cpu": 1}, "entitlementID": ".."}`, []string{"entitlementID", `".."`}},
			{`{"records": {"cpu": 1}, "id": "a%41"}`, []string{"id", "a%41", `"%"`}},
			{`{"records": {"cpu": 1}, "id": "%"}`, []string{"id", `"%"`}},
			{`{"records": {"cpu": 1}, "id": "a?b"}`, []string{"id", `"?"`}},
		} {
			a.wantInvalid(t, c.group, c.texts...)
		}
	})
}

// The counterpart of "exactly 5 minutes ahead" in validBatches.
func TestValidate_RefusesMoreThan5MinutesAhead(t *testing.T) {
	t.Parallel()
	eachWayOver(t, nil, func(t *testing.T, a *api) {
		a.wantInvalid(t, `{"records": {"cpu": 1}, "timestamp": "2024-07-29T15:56:28.072Z"}`, "timestamp", "2024-07-29T15:56:28.072Z", "5 minutes")
		a.wantInvalid(t, `{"records": {"cpu": 1}, "metaInfo": {"timestamp": "2024-07-29T17:56:28.072+02:00"}}`, "metaInfo.timestamp", "2024-07-29T15:56:28.072Z", "5 minutes")
	})
}

// wantInvalid sends a group among others and checks that the error names it, with these texts.
func (a *api) wantInvalid(t *testing.T, group string, texts ...string) {
	t.Helper()
	ok := `{"records": {"cpu": 1}}`
	got := a.validate(t, "["+strings.Join([]string{ok, ok, group, ok, `{"records": {"z": -1}}`}, ",")+"]")
	message := wantError(t, got, http.StatusInternalServerError, append(texts, "2 of 5")...)
	if !strings.HasPrefix(message, "validation failed for usage record group: ") {
		t.Errorf("the error begins otherwise: %s", message)
	}
	if !regexp.MustCompile(`\bindex 2\b`).MatchString(message) || len(message) > 1000 {
		t.Errorf("the error does not name index 2, or is long: %.1200s", message)
	}
	if t.Failed() {
		t.Fatalf("group %.200s", group)
	}
}

// A body that can't be read as a batch gets a 400, with the path; SkipValidation does not change
// that.
func TestValidate_RefusesWhatItCantRead(t *testing.T) {
	t.Parallel()
	eachWayOver(t, nil, func(t *testing.T, a *api) {
		for _, c := range []struct{ body, text string }{
			// JSON
			{``, ""},
			{`   `, ""},
			{`[`, ""},
			{`[{"records": {"cpu": 1}}`, ""},
			{`[{"records": {"cpu": 1}},]`, ""},
			{`[{"records": {"cpu": 1,}}]`, ""},
			{`[{"records": {"cpu": 1}}]]`, ""},
			{`[{"records": {"cpu": 1}}] []`, ""},
			{`[{"records": {"cpu": 1}}]x`, ""},
			{"[{\"records\": {\"cpu\": 1}}]\x00", ""},
			{`[{"records": {"cpu": 1}}] // usage`, ""},
			{`[{'records': {'cpu': 1}}]`, ""},
			{`[{records: {"cpu": 1}}]`, ""},
			{"\ufeff" + `[{"records": {"cpu": 1}}]`, ""},
			{`[{"records": {"cpu": NaN}}]`, ""},
			{`[{"records": {"cpu": Infinity}}]`, ""},
			{`[{"records": {"cpu": -Infinity}}]`, ""},
			{`[{"records": {"cpu": 01}}]`, ""},
			{`[{"records": {"cpu": +1}}]`, ""},
			{`[{"records": {"cpu": .5}}]`, ""},
			{`[{"records": {"cpu": 5.}}]`, ""},
			{`[{"records": {"cpu": 1e}}]`, ""},
			{`[{"records": {"cpu": 0x1}}]`, ""},
			{`[{"records": {"cpu": 1_000}}]`, ""},
			{"[{\"records\": {\"c\xffu\": 1}}]", ""},
			{"[{\"entitlementID\": \"\xc0\xaf\", \"records\": {\"cpu\": 1}}]", ""},
			{"[{\"entitlementID\": \"\xed\xa0\x80\", \"records\": {\"cpu\": 1}}]", ""},
			{`[{"records": {"\ud800": 1}}]`, ""},
			{`[{"entitlementID": "\udc00\ud800", "records": {"cpu": 1}}]`, ""},
			{"[{\"entitlementID\": \"a\nb\", \"records\": {\"cpu\": 1}}]", ""},
			{`[{"entitlementID": "\x41", "records": {"cpu": 1}}]`, ""},
			{strings.Repeat("[", 100_000), ""},
			{`[{"billableRecords": [{"key": "m", "quantity": 1, "properties": ` + strings.Repeat(`{"a":`, 5000) + `1` + strings.Repeat(`}`, 5000) + `}]}]`, ""},
			// the array
			{`null`, "array"},
			{`{}`, "array"},
			{`{"records": {"cpu": 1}}`, "array"},
			{`"x"`, "array"},
			{`1`, "array"},
			{`[]`, "1 to 1000"},
			{`[null]`, "[0]"},
			{`[1]`, "[0]"},
			{`["x"]`, "[0]"},
			{`[[]]`, "[0]"},
			{`[{"records": {"cpu": 1}}, null]`, "[1]"},
			// types
			{`[{"records": []}]`, "[0].records"},
			{`[{"records": 1}]`, "[0].records"},
			{`[{"records": {"cpu": "1"}}]`, "[0].records.cpu"},
			{`[{"records": {"cpu": null}}]`, "[0].records.cpu"},
			{`[{"records": {"cpu": true}}]`, "[0].records.cpu"},
			{`[{"records": {"cpu": {}}}]`, "[0].records.cpu"},
			{`[{"records": {"cpu h": [1]}}]`, `[0].records["cpu h"]`},
			{`[{"billableRecords": {}}]`, "[0].billableRecords"},
			{`[{"billableRecords": [null]}]`, "[0].billableRecords[0]"},
			{`[{"billableRecords": [{"key": 1, "quantity": 1}]}]`, "[0].billableRecords[0].key"},
			{`[{"billableRecords": [{"key": "m", "quantity": "1"}]}]`, "[0].billableRecords[0].quantity"},
			{`[{"billableRecords": [{"key": "m", "quantity": 1, "properties": []}]}]`, "[0].billableRecords[0].properties"},
			{`[{"billableRecords": [{"key": "m", "quantity": 1, "properties": "p"}]}]`, "[0].billableRecords[0].properties"},
			{`[{"id": 1, "records": {"cpu": 1}}]`, "[0].id"},
			{`[{"organizationID": 1, "records": {"cpu": 1}}]`, "[0].organizationID"},
			{`[{"entitlementID": 1, "records": {"cpu": 1}}]`, "[0].entitlementID"},
			{`[{"entitlementID": {}, "records": {"cpu": 1}}]`, "[0].entitlementID"},
			{`[{"metaInfo": [], "records": {"cpu": 1}}]`, "[0].metaInfo"},
			{`[{"metaInfo": "", "records": {"cpu": 1}}]`, "[0].metaInfo"},
			{`[{"metaInfo": {"SkipValidation": "true"}, "records": {"cpu": 1}}]`, "[0].metaInfo.SkipValidation"},
			{`[{"metaInfo": {"SkipValidation": 1}, "records": {"cpu": 1}}]`, "[0].metaInfo.SkipValidation"},
			{`[{"metaInfo": {"source": 1}, "records": {"cpu": 1}}]`, "[0].metaInfo.source"},
			{`[{"metaInfo": {"billableRecords": {}}, "records": {"cpu": 1}}]`, "[0].metaInfo.billableRecords"},
			{`[{"metaInfo": {"lagoAmount": "1.5"}, "records": {"cpu": 1}}]`, "[0].metaInfo.lagoAmount"},
			{`[{"metaInfo": {"metronomeDailyCostAmount": true}, "records": {"cpu": 1}}]`, "[0].metaInfo.metronomeDailyCostAmount"},
			{`[{"metaInfo": {"lagoSubscriptionID": 1}, "records": {"cpu": 1}}]`, "[0].metaInfo.lagoSubscriptionID"},
			{`[{"metaInfo": {"lagoUsageStartTime": "yesterday"}, "records": {"cpu": 1}}]`, "[0].metaInfo.lagoUsageStartTime"},
			{`[{"metaInfo": {"stripePeriodEndTime": 1722268288}, "records": {"cpu": 1}}]`, "[0].metaInfo.stripePeriodEndTime"},
			{`[{"metaInfo": {"stripeUsageRecordSummaryTotalUsage": 1.5}, "records": {"cpu": 1}}]`, "[0].metaInfo.stripeUsageRecordSummaryTotalUsage"},
			{`[{"metaInfo": {"stripeUsageRecordSummaryTotalUsage": 2147483648}, "records": {"cpu": 1}}]`, "[0].metaInfo.stripeUsageRecordSummaryTotalUsage"},
			{`[{"metaInfo": {"stripeUsageRecordSummaryTotalUsage": "5"}, "records": {"cpu": 1}}]`, "[0].metaInfo.stripeUsageRecordSummaryTotalUsage"},
			// times
			{`[{"timestamp": "2024-07-29", "records": {"cpu": 1}}]`, "[0].timestamp"},
			{`[{"timestamp": "2024-07-29 10:00:00Z", "records": {"cpu": 1}}]`, "[0].timestamp"},
			{`[{"timestamp": "2024-07-29T10:00:00", "records": {"cpu": 1}}]`, "[0].timestamp"},
			{`[{"timestamp": "2024-02-30T10:00:00Z", "records": {"cpu": 1}}]`, "[0].timestamp"},
			{`[{"timestamp": "2024-07-29T24:00:01Z", "records": {"cpu": 1}}]`, "[0].timestamp"},
			{`[{"timestamp": "2024-07-31T12:00:60Z", "records": {"cpu": 1}}]`, "23:59:60 UTC"},
			{`[{"timestamp": "2024-07-30T23:59:60Z", "records": {"cpu": 1}}]`, "23:59:60 UTC"},
			{`[{"timestamp": "2024-07-31T23:59:61Z", "records": {"cpu": 1}}]`, "[0].timestamp"},
			{`[{"metaInfo": {"stripePeriodEndTime": "2024-07-31T23:59:60-08:00"}, "records": {"cpu": 1}}]`, "[0].metaInfo.stripePeriodEndTime"},
			{`[{"timestamp": "2024-07-29T1:00:00Z", "records": {"cpu": 1}}]`, "[0].timestamp"},
			{`[{"timestamp": "2024-07-29T10:00:00,5Z", "records": {"cpu": 1}}]`, "[0].timestamp"},
			{`[{"timestamp": "2024-07-29T10:00:00+25:00", "records": {"cpu": 1}}]`, "[0].timestamp"},
			{`[{"timestamp": 1722268288, "records": {"cpu": 1}}]`, "[0].timestamp"},
			{`[{"metaInfo": {"timestamp": "now"}, "records": {"cpu": 1}}]`, "[0].metaInfo.timestamp"},
			{`[{"timestamp": "2024-07-29T10:00:00Z", "metaInfo": {"timestamp": "now"}, "records": {"cpu": 1}}]`, "[0].metaInfo.timestamp"},
			// names
			{`[{"record": {"cpu": 1}}]`, "did you mean records?"},
			{`[{"Records": {"cpu": 1}}]`, "did you mean records?"},
			{`[{"records": {"cpu": 1}, "entitlementId": "e"}]`, "did you mean entitlementID?"},
			{`[{"records": {"cpu": 1}, "timeStamp": "2024-07-29T10:00:00Z"}]`, "did you mean timestamp?"},
			{`[{"billableRecord": []}]`, "did you mean billableRecords?"},
			{`[{"records": {"cpu": 1}, "metainfo": {}}]`, "did you mean metaInfo?"},
			{`[{"records": {"cpu": 1}, "organisationID": "acme"}]`, "did you mean organizationID?"},
			{`[{"records": {"cpu": 1}, "metaInfo": {"skipValidation": true}}]`, "did you mean SkipValidation?"},
			{`[{"records": {"cpu": 1}, "metaInfo": {"sourse": "API"}}]`, "did you mean source?"},
			{`[{"records": {"cpu": 1}, "metaInfo": {"lagoAmmount": 1}}]`, "did you mean lagoAmount?"},
			{`[{"billableRecords": [{"key": "m", "quantiti": 1}]}]`, "did you mean quantity?"},
			{`[{"billableRecords": [{"key": "m", "propertys": {}}]}]`, "did you mean properties?"},
			{`[{"records": {"cpu": 1}, "status": "CREATED"}]`, "[0].status"},
			{`[{"records": {"cpu": 1}, "x": 1}]`, "[0].x"},
			{`[{"records": {"cpu": 1}, "": 1}]`, "unknown"},
			{`[{"records": {"cpu": 1}, "metaInfo": {"` + strings.Repeat("n", 3_000_000) + `": 1}}]`, "unknown"},
			// duplicates
			{`[{"records": {"cpu": 1}, "records": {"cpu": 1}}]`, "[0].records"},
			{`[{"records": {"cpu": 1, "cpu": 1}}]`, "[0].records.cpu"},
			{`[{"records": {"cpu": 1, "\u0063pu": 2}}]`, "[0].records.cpu"},
			{`[{"billableRecords": [{"key": "m", "key": "m", "quantity": 1}]}]`, "[0].billableRecords[0].key"},
			{`[{"billableRecords": [{"key": "m", "quantity": 1, "properties": {"a": {"b": 1, "b": 1}}}]}]`, "[0].billableRecords[0].properties.a.b"},
			{`[{"records": {"cpu": 1}, "metaInfo": {"source": "API", "source": "API"}}]`, "[0].metaInfo.source"},
			// each of these in a group whose values are not validated, or beside one whose values
			// are invalid
			{`[{"records": {"cpu": "1"}, "metaInfo": {"SkipValidation": true}}]`, "[0].records.cpu"},
			{`[{"timestamp": "now", "metaInfo": {"SkipValidation": true}}]`, "[0].timestamp"},
			{`[{"record": {}, "metaInfo": {"SkipValidation": true}}]`, "did you mean records?"},
			{`[{"records": {"cpu": -1}}, {"records": {"cpu": "1"}}]`, "[1].records.cpu"},
			{`[{}, {"records": {"cpu": 1}, "foo": 1}]`, "[1].foo"},
			{`[{}] x`, ""},
		} {
			if !a.carries(request{body: c.body}) {
				continue
			}
			got := a.validate(t, c.body)
			if message := wantError(t, got, http.StatusBadRequest, c.text); t.Failed() || len(message) > 1000 {
				t.Fatalf("body %.200q: %.300q", c.body, message)
			}
		}
	})
}

func TestValidate_Counts(t *testing.T) {
	t.Parallel()
	eachWayOver(t, nil, func(t *testing.T, a *api) {
		batch := func(n int, group string) string {
			return "[" + strings.TrimSuffix(strings.Repeat(group+",", n), ",") + "]"
		}
		valid, invalid := `{"records":{"cpu":1}}`, `{"records":{"cpu":-1}}`
		if got := a.validate(t, batch(1000, valid)); got.status != http.StatusOK || got.body != `""` {
			t.Errorf("1000 groups: %d %s", got.status, got.body)
		}
		wantError(t, a.validate(t, batch(1001, valid)), http.StatusBadRequest, "1000")
		wantError(t, a.validate(t, batch(1001, invalid)), http.StatusBadRequest, "1000")
		wantError(t, a.validate(t, batch(1000, invalid)), http.StatusInternalServerError, "index 0", "1000 of 1000")
		wantError(t, a.validate(t, strings.Replace(batch(1000, valid), "1}}]", "-1}}]", 1)), http.StatusInternalServerError, "index 999", "1 of 1000")
	})
}

const maxBatchBody = 4 << 20

func TestValidate_Takes4MiB(t *testing.T) {
	t.Parallel()
	eachWayOver(t, nil, func(t *testing.T, a *api) {
		valid, invalid := `[{"records":{"cpu":1}}]`, `[{"records":{"cpu":-1}}]`
		got := a.validate(t, valid+strings.Repeat(" ", maxBatchBody-len(valid)))
		if got.status != http.StatusOK || got.body != `""` {
			t.Errorf("4 MiB: %d %s", got.status, got.body)
		}
		got = a.validate(t, invalid+strings.Repeat(" ", maxBatchBody-len(invalid)+1))
		wantError(t, got, http.StatusRequestEntityTooLarge, "4194304")
	})
}

// A body whose length is not declared in advance is cut off, too.
func TestValidate_Takes4MiBInChunks(t *testing.T) {
	t.Parallel()
	a := serve(t, "http", nil, tabletest.New(t))
	key := a.newKey(t, "acme", allScopes)
	for size, status := range map[int]int{maxBatchBody: http.StatusOK, maxBatchBody + 1: http.StatusRequestEntityTooLarge} {
		conn, err := net.Dial("tcp", a.way.(*overHTTP).address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		body := `[{"records":{"cpu":1}}]`
		body += strings.Repeat(" ", size-len(body))
		go func() {
			fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: api.example\r\nAuthorization: Key %s\r\nTransfer-Encoding: chunked\r\n\r\n%s\r\n%s\r\n0\r\n\r\n",
				validatePath("acme"), key, strconv.FormatInt(int64(size), 16), body)
		}()
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != status {
			t.Errorf("%d bytes: %d, want %d", size, response.StatusCode, status)
		}
	}
}
