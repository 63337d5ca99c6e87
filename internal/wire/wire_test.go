package wire_test

import (
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/wire"
)

// The error for each bad body has the path and what is accepted.
func TestBody_ErrorHasPathAndWhatIsAccepted(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		``:                                    `there is no JSON`,
		`[`:                                   `this is not JSON, from byte 1 on`,
		`[{}] x`:                              `more follows the JSON value, from byte 4 on`,
		`{}`:                                  `the JSON value is an object: it must be an array of usage record groups`,
		`[]`:                                  `the array is empty`,
		`[null]`:                              `[0] is null: it must be a usage record group, an object`,
		`[{"records":{"cpu h":"5"}}]`:         `[0].records["cpu h"] is the string "5": it must be a number`,
		`[{"records":{"a":1,"a":2}}]`:         `[0].records.a is there twice`,
		`[{},{"recods":{}}]`:                  `[1].recods is unknown: did you mean records?`,
		`[{"metaInfo":{"skipvalidation":1}}]`: `[0].metaInfo.skipvalidation is unknown: did you mean SkipValidation?`,
		`[{"zzzzzzzzzzzzzzzzzz":1}]`:          `[0].zzzzzzzzzzzzzzzzzz is unknown: known here are billableRecords, `,
		`[{"timestamp":"yesterday"}]`:         `[0].timestamp is unreadable: "yesterday" is not a time: it must be RFC 3339`,
		`[{"timestamp":5}]`:                   `[0].timestamp is the number 5: it must be a string`,
		`[{"billableRecords":[{"key":"k"},{"key":7}]}]`:                                                    `[0].billableRecords[1].key is the number 7: it must be a string`,
		`[{"metaInfo":{"stripeUsageRecordSummaryTotalUsage":1.5}}]`:                                        `[0].metaInfo.stripeUsageRecordSummaryTotalUsage is the number 1.5: it must be a 32-bit integer`,
		`[{"metaInfo":{"lagoAmount":"7"}}]`:                                                                `[0].metaInfo.lagoAmount is the string "7": it must be a number`,
		`[{"metaInfo":{"lagoUsageStartTime":"x"}}]`:                                                        `[0].metaInfo.lagoUsageStartTime is unreadable`,
		"[{\"entitlementID\":\"\xff\"}]":                                                                   `this is not JSON, from byte`,
		`[{"entitlementID":"\ud800"}]`:                                                                     `this is not JSON, from byte`,
		`[` + strings.Repeat(`{},`, 1000) + `{}]`:                                                          `the array holds more than 1000`,
		`[{"billableRecords":[{"properties":` + strings.Repeat("[", 30) + strings.Repeat("]", 30) + `}]}]`: `is nested too deep: arrays and objects may nest at most 24 levels deep here`,
	} {
		_, err := wire.DecodeNewGroups([]byte(body))
		failure, ok := errors.AsType[*metering.Error](err)
		if !ok || failure.Code != metering.Invalid || !strings.Contains(failure.Message, want) {
			t.Errorf("%.60s\n got %v\nwant %s", body, err, want)
		}
	}
	_, err := wire.DecodeConfigPatch([]byte(`{"partnerUsageMeteringConfigs":[{"partner":"AWS","dimensionMapping":{"cpu":{"conversionMultiplier":1}}}]}`))
	if err == nil || !strings.Contains(err.Error(), "partnerUsageMeteringConfigs[0].dimensionMapping.cpu.conversionMultiplier is unknown: did you mean convertionMultiplier?") {
		t.Error(err)
	}
}

// A hint is given only for a name that may be a misspelling.
func TestUnknownMember_HintsOnlyAtCloseNames(t *testing.T) {
	t.Parallel()
	for name, near := range map[string]string{
		"ID": "id", "Id": "id", "recods": "records", "RECORD": "records", "entitlementId": "entitlementID", "meta_info": "metaInfo",
		"timestámp": "timestamp", "timestamps": "timestamp", "organisationID": "organizationID", "biIIableRecords": "billableRecords",
		"q": "", "é": "", "42": "", "x": "", "": "", "i": "", "d": "", "ix": "", "xd": "", "iid": "", "éé": "", "日本": "", "🙂": "", "идд": "",
		"rec": "", "records_by_dimension_key": "", "stamp": "", "info": "", "key": "", "rrrrrrr": "", "日本語日本語日本": "",
		strings.Repeat("日", 1_300_000): "", strings.Repeat("id", 2_000_000): "",
	} {
		_, err := wire.DecodeNewGroups([]byte(`[{"` + name + `":1}]`))
		if err == nil {
			t.Errorf("%.40s is taken", name)
			continue
		}
		hint := "did you mean " + near + "?"
		if near == "" {
			hint = "is unknown: known here are billableRecords, entitlementID, id, "
		}
		if !strings.Contains(err.Error(), hint) || len(err.Error()) > 1000 {
			t.Errorf("%.40s: %.300v; want %s", name, err, hint)
		}
	}
}

// An unknown name costs what reading it costs, whatever its characters. The test measures memory,
// not time.
func TestUnknownMember_LongNameCostsNoMore(t *testing.T) {
	allocated := func(body string) uint64 {
		data := []byte(body)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _ = wire.DecodeNewGroups(data)
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	long := allocated(`[{"` + strings.Repeat("日", 1_000_000) + `":1}]`)
	if same := allocated(`[{"` + strings.Repeat("x", 3_000_000) + `":1}]`); long > same*3/2 {
		t.Errorf("%d bytes for three-byte characters, %d for as many bytes of ASCII", long, same)
	}
}

func TestNull_CountsAsAbsent(t *testing.T) {
	t.Parallel()
	got, err := wire.DecodeNewGroups([]byte(`[{"id":null,"organizationID":null,"entitlementID":null,"timestamp":null,"records":null,
		"billableRecords":[{"key":null,"properties":null,"quantity":null}],
		"metaInfo":{"SkipValidation":null,"source":null,"timestamp":null,"originRecords":null,"billableRecords":null,"lagoAmount":null}},
		{"metaInfo":null}]`))
	want := []metering.NewGroup{{BillableRecords: []metering.NewBillableRecord{{}}}, {}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}

func TestGroup_IsWrittenInOneWay(t *testing.T) {
	t.Parallel()
	line := `{"status":"REPORTED","serialID":1e1,"id":"g","buyerID":"b/?","entitlementID":"e","partner":"GCP","productID":"p",
		"creationTime":"2024-07-29T17:51:28.0719+02:00","reportedTime":"2024-07-29t15:51:29z","records":{"z":0.10,"a\"b":9007199254740993,"m":1e-9},
		"metaInfo":{"source":"","SkipValidation":false,"lagoAmount":1.50,"stripeUsageRecordSummaryTotalUsage":3,
		"billableRecords":[{"key":"k","properties":{"b":null,"a":[1e3,{}]}}],"originRecords":{},"stripePeriodEndTime":"2024-01-01T00:00:00Z"}}`
	want := `{"buyerID":"b/?","creationTime":"2024-07-29T15:51:28.071Z","entitlementID":"e","id":"g","lastUpdateTime":"2024-07-29T15:51:28.071Z",` +
		`"metaInfo":{"SkipValidation":false,"billableRecords":[{"key":"k","properties":{"a":[1000,{}],"b":null},"quantity":0}],"lagoAmount":1.5,` +
		`"originRecords":{},"source":"","stripePeriodEndTime":"2024-01-01T00:00:00.000Z","stripeUsageRecordSummaryTotalUsage":3},` +
		`"organizationID":"","partner":"GCP","productID":"p","records":{"a\"b":9007199254740993,"m":0.000000001,"z":0.1},` +
		`"reportedTime":"2024-07-29T15:51:29.000Z","serialID":10,"status":"REPORTED","usageRecordReportID":""}`
	g, err := wire.DecodeGroup([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(wire.AppendGroupForExport(nil, &g)); got != want {
		t.Errorf(" got %s\nwant %s", got, want)
	}
	if got, without := string(wire.AppendGroup(nil, &g)), strings.Replace(want, `"productID":"p",`, "", 1); got != without {
		t.Errorf(" got %s\nwant %s", got, without)
	}
}

// Every time of a group may be a leap second.
func TestGroup_TakesLeapSeconds(t *testing.T) {
	t.Parallel()
	const leap, last = "1990-12-31T15:59:60.25-08:00", "1990-12-31T23:59:59.999Z"
	line := `{"id":"g","buyerID":"b","entitlementID":"e","partner":"AWS","status":"REPORTED","creationTime":"@","lastUpdateTime":"@","reportedTime":"@",
		"metaInfo":{"timestamp":"@","lagoUsageStartTime":"@","stripePeriodEndTime":"@","stripePeriodStartTime":"@"}}`
	g, err := wire.DecodeGroup([]byte(strings.ReplaceAll(line, "@", leap)))
	if err != nil {
		t.Fatal(err)
	}
	if written := string(wire.AppendGroup(nil, &g)); strings.Count(written, `"`+last+`"`) != 7 {
		t.Errorf("a time is not %s: %s", last, written)
	}
}

func TestGroup_InvalidLineIsRefused(t *testing.T) {
	t.Parallel()
	const good = `{"id":"g","buyerID":"b","entitlementID":"e","partner":"AWS","status":"CREATED","creationTime":"2024-07-29T15:51:28Z"}`
	if _, err := wire.DecodeGroup([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][3]string{
		{`"id":"g"`, `"id":null`, "id is missing"},
		{`"id":"g"`, `"id":"` + strings.Repeat("x", 37) + `"`, "1 to 36 characters"},
		{`"id":"g"`, `"id":"a/b"`, "must not hold"},
		{`"buyerID":"b",`, ``, "buyerID is missing"},
		{`"buyerID":"b"`, `"buyerID":"\u0007"`, "control characters"},
		{`"partner":"AWS"`, `"partner":"IBM"`, `partner is "IBM": it must be one of "AWS", "AZURE", "GCP"`},
		{`"status":"CREATED"`, `"status":"created"`, `it must be one of "CREATED"`},
		{`"creationTime":"2024-07-29T15:51:28Z"`, `"creationTime":"2024-07-29"`, "must be RFC 3339"},
		{`"id":"g"`, `"id":"g","serialID":3000000000`, "32-bit integer"},
		{`"id":"g"`, `"id":"g","serialID":-1`, "0 or more"},
		{`"id":"g"`, `"id":"g","records":{"":1}`, "is not a dimension key"},
		{`"id":"g"`, `"id":"g","records":{"a":1e40}`, "does not fit"},
		{`"id":"g"`, `"id":"g","metaInfo":{"source":"EBAY"}`, "metaInfo.source is"},
		{`"id":"g"`, `"id":"g","metaInfo":{"billableRecords":[{"quantity":1}]}`, "has the key"},
	} {
		_, err := wire.DecodeGroup([]byte(strings.Replace(good, c[0], c[1], 1)))
		if metering.CodeOf(err) != metering.Invalid || !strings.Contains(err.Error(), c[2]) {
			t.Errorf("%s: %v", c[1], err)
		}
	}
}
