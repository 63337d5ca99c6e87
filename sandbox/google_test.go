package sandbox_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/sandbox"
)

const googleBase = "http://127.0.0.1:8090/gcp"

// jwt is an assertion after the changes of its claims.
func jwt(changes ...any) string {
	claims := map[string]any{
		"iss": robot, "scope": "https://www.googleapis.com/auth/cloud-platform", "aud": "https://oauth2.googleapis.com/token", "iat": 1000, "exp": 4600,
	}
	for i := 0; i < len(changes); i += 2 {
		claims[changes[i].(string)] = changes[i+1]
	}
	text, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	part := base64.RawURLEncoding.EncodeToString
	return part([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + part(text) + "." + part(make([]byte, 256))
}

func (b *box) form(path string, form url.Values) answer {
	b.t.Helper()
	r := httptest.NewRequest(http.MethodPost, googleBase+path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return b.send(r)
}

func (b *box) googleToken(assertion string) answer {
	b.t.Helper()
	return b.form("/token", url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {assertion}})
}

func (b *box) googleLogin() {
	b.t.Helper()
	a := b.googleToken(jwt())
	wantStatus(b.t, a, 200)
	b.google = a.get("access_token").(string)
}

func (b *box) googleCall(path, body string, headers ...string) answer {
	b.t.Helper()
	if b.google == "" {
		b.googleLogin()
	}
	r := httptest.NewRequest(http.MethodPost, googleBase+path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+b.google)
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return b.send(r)
}

func (b *box) report(operations ...string) answer {
	b.t.Helper()
	return b.googleCall("/v1/services/"+service+":report", `{"operations":[`+strings.Join(operations, ",")+`]}`)
}

func (b *box) check(operation string) answer {
	b.t.Helper()
	return b.googleCall("/v1/services/"+service+":check", `{"operation":`+operation+`}`)
}

// operation is an operation in the hour before noon's, after the changes.
func operation(id, value string, changes ...string) string {
	return record([]string{
		"operationId", `"` + id + `"`, "operationName", `"Hourly Usage Report"`, "consumerId", `"` + consumer + `"`,
		"startTime", `"2026-11-18T11:00:00Z"`, "endTime", `"2026-11-18T12:00:00Z"`,
		"metricValueSets", metrics("requests", value),
	}, changes)
}

func metrics(name, value string) string {
	return fmt.Sprintf(`[{"metricName":"%s/%s","metricValues":[{"int64Value":%s}]}]`, service, name, value)
}

// wantGoogleError checks that the whole request was refused and that nothing of it was stored.
func (b *box) wantGoogleError(a answer, status int, name string) {
	b.t.Helper()
	if a.status != status || a.get("error", "status") != name || a.get("error", "code") != float64(status) || a.get("error", "message") == "" {
		b.t.Fatalf("got %d %s, want %d %s", a.status, a.raw, status, name)
	}
	if d := b.lastDecisions(); len(d) != 1 || d[0].Record != nil {
		b.t.Fatalf("decisions: %+v, want one of the whole request", d)
	}
}

// wantReportErrors checks the codes of the operations that failed; the others are done.
func wantReportErrors(t testing.TB, a answer, codes map[string]int) {
	t.Helper()
	wantStatus(t, a, 200)
	got := map[string]int{}
	list, _ := a.get("reportErrors").([]any)
	for i := range list {
		code, _ := a.get("reportErrors", i, "status", "code").(float64)
		got[a.get("reportErrors", i, "operationId").(string)] = int(code)
	}
	want(t, "reportErrors of "+a.raw, got, codes)
}

func TestGoogle_ReportIsAccepted(t *testing.T) {
	b := fresh(t)
	a := b.report(operation("op-1", `"150"`, "userLabels", `{"cloudmarketplace.googleapis.com/resource_name":"db"}`), operation("op-2", `7`, "metricValueSets", metrics("gb", "7")))
	wantReportErrors(t, a, map[string]int{})
	if strings.Contains(a.raw, "reportErrors") {
		t.Fatalf("%s: an empty reportErrors is left out", a.raw)
	}
	want(t, "quantities", b.quantities(), "[150 7]")
}

func TestGoogle_AnyNumberOfOperations(t *testing.T) {
	b := fresh(t)
	var list []string
	for i := range 1000 {
		list = append(list, operation(fmt.Sprint("op-", i), "1"))
	}
	wantReportErrors(t, b.report(list...), map[string]int{})
	want(t, "records", len(b.quantities()), 1000)
	b.wantGoogleError(b.report(), 400, "INVALID_ARGUMENT")
	want(t, "outcome", b.lastDecisions()[0].Outcome, sandbox.Undocumented)
}

func TestGoogle_RequestIsAtMost1MB(t *testing.T) {
	b := fresh(t)
	pad := func(size int) answer {
		body := `{"operations":[` + operation("op", "1") + `]`
		return b.googleCall("/v1/services/"+service+":report", body+strings.Repeat(" ", size-len(body)-1)+"}")
	}
	b.wantGoogleError(pad(1_000_001), 400, "INVALID_ARGUMENT")
	b.wantGoogleError(pad(3_000_000), 400, "INVALID_ARGUMENT")
	want(t, "records", len(b.quantities()), 0)
	wantStatus(t, pad(1_000_000), 200)
}

func TestGoogle_OneServicePerRequest(t *testing.T) {
	b := fresh(t)
	// A metric of another service fails that operation alone.
	foreign := operation("op-2", "1", "metricValueSets", `[{"metricName":"other.endpoints.seller.cloud.goog/requests","metricValues":[{"int64Value":"1"}]}]`)
	wantReportErrors(t, b.report(operation("op-1", "1"), foreign), map[string]int{"op-2": 3})
	b.wantGoogleError(b.googleCall("/v1/services/nowhere:report", `{"operations":[]}`), 403, "PERMISSION_DENIED")
}

func TestGoogle_MetricNameIsServiceAndMetric(t *testing.T) {
	b := fresh(t)
	for i, name := range []string{"requests", service + "/nothing", service + "/", ""} {
		id := fmt.Sprint("op-", i)
		set := fmt.Sprintf(`[{"metricName":%q,"metricValues":[{"int64Value":"1"}]}]`, name)
		wantReportErrors(t, b.report(operation(id, "", "metricValueSets", set)), map[string]int{id: 3})
	}
}

func TestGoogle_QuantityIsINT64(t *testing.T) {
	b := fresh(t)
	value := func(v string) string {
		return operation("op", "", "metricValueSets", `[{"metricName":"`+service+`/requests","metricValues":[`+v+`]}]`)
	}
	for _, v := range []string{
		`{"doubleValue":1.5}`, `{"stringValue":"1"}`, `{"boolValue":true}`, `{"moneyValue":{"units":"1"}}`, `{"distributionValue":{}}`, `{}`,
		`{"int64Value":"1","doubleValue":1}`, `{"int64Value":"-1"}`,
	} {
		wantReportErrors(t, b.report(value(v)), map[string]int{"op": 3})
	}
	for _, v := range []string{
		`{"int64Value":"1.5"}`, `{"int64Value":1.5}`, `{"int64Value":"9223372036854775808"}`, `{"int64Value":true}`, `{"int64Value":"x"}`,
		`{"int64Value":"+5"}`, `{"int64Value":"007"}`, `{"int64Value":"-01"}`, `{"int64Value":" 5"}`, `{"int64Value":""}`, `{"int64Value":{}}`, `{"int64Value":"5","doubleValue":"x"}`,
	} {
		b.wantGoogleError(b.report(value(v)), 400, "INVALID_ARGUMENT")
	}
	want(t, "records", len(b.quantities()), 0)
	wantReportErrors(t, b.report(value(`{"int64Value":"9223372036854775807"}`)), map[string]int{})
	want(t, "quantities", b.quantities(), "[9223372036854775807]")
}

func TestGoogle_MetricsAreDelta(t *testing.T) {
	b := fresh(t)
	for _, metric := range []string{"users", "cpu"} { // GAUGE, and of type DOUBLE
		wantReportErrors(t, b.report(operation("op", "", "metricValueSets", metrics(metric, "1"))), map[string]int{"op": 3})
	}
}

func TestGoogle_ZeroIsUndocumented(t *testing.T) {
	b := fresh(t)
	wantReportErrors(t, b.report(operation("op", `"0"`)), map[string]int{"op": 3})
	want(t, "outcome", b.lastDecisions()[0].Outcome, sandbox.Undocumented)
}

func TestGoogle_SameOperationIdIsDeduplicated(t *testing.T) {
	b := fresh(t)
	wantReportErrors(t, b.report(operation("op", "5")), map[string]int{})
	// Nothing is added, and no error is reported.
	wantReportErrors(t, b.report(operation("op", "5"), operation("op", "6"), operation("new", "1"), operation("new", "2")), map[string]int{})
	want(t, "quantities", b.quantities(), "[5 1]")
	want(t, "outcome", b.lastDecisions()[1].Outcome, sandbox.Duplicate)
	// This applies to all values of the operation.
	two := `[{"metricName":"` + service + `/requests","metricValues":[{"int64Value":"1"}]},{"metricName":"` + service + `/gb","metricValues":[{"int64Value":"2"}]}]`
	for range 2 {
		wantReportErrors(t, b.report(operation("two", "", "metricValueSets", two)), map[string]int{})
	}
	want(t, "quantities", b.quantities(), "[5 1 1 2]")
	// An id is unique within a service. An id of a failed operation is free.
	a := b.googleCall("/v1/services/other.endpoints.seller.cloud.goog:report", `{"operations":[`+operation("op", "", "consumerId", `"project_number:6"`,
		"metricValueSets", `[{"metricName":"other.endpoints.seller.cloud.goog/requests","metricValues":[{"int64Value":"9"}]}]`)+`]}`)
	wantReportErrors(t, a, map[string]int{})
	wantReportErrors(t, b.report(operation("late", "1", "endTime", `"2026-11-18T13:00:00Z"`)), map[string]int{"late": 3})
	wantReportErrors(t, b.report(operation("late", "3")), map[string]int{})
	want(t, "quantities", b.quantities(), "[5 1 1 2 9 3]")
}

func TestGoogle_OneBadOperationFailsAlone(t *testing.T) {
	b := fresh(t)
	a := b.report(operation("good", "1"), operation("code-3", "1", "metricValueSets", metrics("nothing", "1")),
		operation("code-5", "1", "consumerId", `"project_number:2"`), operation("nobody", "1", "consumerId", `"project_number:99"`),
		operation("code-7", "1", "consumerId", `"project_number:6"`))
	wantReportErrors(t, a, map[string]int{"code-3": 3, "code-5": 5, "nobody": 5, "code-7": 7})
	want(t, "quantities", b.quantities(), "[1]")
	for _, op := range []string{
		operation("", "1"), operation("op", "1", "operationId", ""), operation("op", "1", "consumerId", ""), operation("op", "1", "startTime", ""),
		operation("op", "1", "endTime", ""), operation("op", "", "metricValueSets", "[]"), operation("op", "", "metricValueSets", ""),
		operation("op", "", "metricValueSets", `[{"metricName":"`+service+`/requests","metricValues":[]}]`),
		operation("op", "1", "endTime", `"2026-11-18T11:00:00Z"`), operation("op", "1", "endTime", `"2026-11-18T10:00:00Z"`),
	} {
		a := b.report(op)
		wantStatus(t, a, 200)
		want(t, op, a.get("reportErrors", 0, "status", "code"), 3)
	}
}

func TestGoogle_EqualLabelsFailTheWholeRequest(t *testing.T) {
	values := func(list string) string {
		return operation("op", "", "labels", `{"a":"1"}`, "metricValueSets", `[{"metricName":"`+service+`/requests","metricValues":[`+list+`]}]`)
	}
	for list, ok := range map[string]bool{
		`{"int64Value":"1"},{"int64Value":"2"}`:                                                       false,
		`{"int64Value":"1","labels":{"a":"1"}},{"int64Value":"2"}`:                                    false, // equal to the operation's label
		`{"int64Value":"1","labels":{"b":"1","c":"2"}},{"int64Value":"2","labels":{"c":"2","b":"1"}}`: false,
		`{"int64Value":"1","labels":{"a":"2"}},{"int64Value":"2"}`:                                    true,
	} {
		b := fresh(t)
		a := b.report(operation("good", "1"), values(list))
		if ok {
			wantReportErrors(t, a, map[string]int{})
			want(t, "quantities", b.quantities(), "[1 1 2]")
			continue
		}
		b.wantGoogleError(a, 400, "INVALID_ARGUMENT")
		want(t, "records", len(b.quantities()), 0)
	}
	// The same applies to two sets of one metric.
	b := fresh(t)
	set := `{"metricName":"` + service + `/requests","metricValues":[{"int64Value":"1"}]}`
	b.wantGoogleError(b.report(operation("op", "", "metricValueSets", "["+set+","+set+"]")), 400, "INVALID_ARGUMENT")
}

func TestGoogle_NeverInTheFuture(t *testing.T) {
	b := fresh(t)
	wantReportErrors(t, b.report(operation("op", "1", "startTime", `"2026-11-18T12:00:00Z"`, "endTime", `"2026-11-18T12:30:00.001Z"`)), map[string]int{"op": 3})
	wantReportErrors(t, b.report(operation("op", "1", "startTime", `"2026-11-18T12:00:00Z"`, "endTime", `"2026-11-18T12:30:00Z"`)), map[string]int{})
}

func TestGoogle_LateUsageIsAcceptedAndMarked(t *testing.T) {
	b := fresh(t)
	wantReportErrors(t, b.report(operation("in time", "1", "endTime", `"2026-11-18T11:30:00Z"`),
		operation("late", "1", "endTime", `"2026-11-18T11:29:59Z"`), operation("later", "1", "startTime", `"2026-11-02T11:00:00Z"`, "endTime", `"2026-11-02T12:00:00Z"`)), map[string]int{})
	records, _ := b.Records()
	for i, late := range []bool{false, true, true} {
		want(t, records[i].ID, records[i].Late, late)
	}
}

func TestGoogle_MonthClosesAt1Pacific(t *testing.T) {
	// 2026-11-01 01:00 in Los Angeles is 08:00 UTC: daylight saving time ends an hour later.
	october := []string{"startTime", `"2026-11-01T06:00:00Z"`, "endTime", `"2026-11-01T07:00:00Z"`} // until midnight there
	b := fresh(t)
	b.at(time.Date(2026, 11, 1, 8, 0, 0, 0, time.UTC))
	wantReportErrors(t, b.report(operation("op", "1", october...)), map[string]int{"op": 3})
	november := operation("november", "1", "startTime", `"2026-11-01T07:00:00Z"`, "endTime", `"2026-11-01T07:30:00Z"`)
	wantReportErrors(t, b.report(november), map[string]int{})
	// An operation that starts in a closed month is refused, though it ends in an open one.
	across := operation("across", "1", "startTime", `"2026-11-01T06:59:59Z"`, "endTime", `"2026-11-01T07:30:00Z"`)
	wantReportErrors(t, b.report(across), map[string]int{"across": 3})
	b.at(time.Date(2026, 11, 1, 7, 59, 59, 0, time.UTC))
	wantReportErrors(t, b.report(operation("op", "1", october...)), map[string]int{})
	bill, _ := b.Bill("")
	wantReportErrors(t, b.report(across), map[string]int{}) // and billed by its end while the month is open
	want(t, "months", bill.Lines[0].Month+" "+bill.Lines[1].Month, "2026-10 2026-11")
	b = fresh(t) // in December, 09:00 UTC
	b.at(time.Date(2026, 12, 1, 8, 59, 0, 0, time.UTC))
	wantReportErrors(t, b.report(operation("op", "1")), map[string]int{})
	b.at(time.Date(2026, 12, 1, 9, 0, 0, 0, time.UTC))
	b.googleLogin()
	wantReportErrors(t, b.report(operation("op-2", "1")), map[string]int{"op-2": 3})
}

func TestGoogle_CancellationLeavesAnHour(t *testing.T) {
	gone := []string{"consumerId", `"project_number:5"`} // cancelled at 12:00
	b := fresh(t)
	wantReportErrors(t, b.report(operation("before", "1", gone...), operation("across", "1", append(gone, "startTime", `"2026-11-18T11:30:00Z"`, "endTime", `"2026-11-18T12:00:01Z"`)...),
		operation("after", "1", append(gone, "startTime", `"2026-11-18T12:00:00Z"`, "endTime", `"2026-11-18T12:10:00Z"`)...)), map[string]int{"across": 5, "after": 5})
	want(t, "check before", b.check(operation("op", "1", gone...)).get("checkErrors"), nil)
	want(t, "check after", b.check(operation("op", "1", append(gone, "startTime", `"2026-11-18T12:00:00Z"`, "endTime", "")...)).get("checkErrors", 0, "code"), "SERVICE_NOT_ACTIVATED")
	b.at(noon.Add(30 * time.Minute))
	b.googleLogin()
	wantReportErrors(t, b.report(operation("too late", "1", gone...)), map[string]int{"too late": 5})
	want(t, "check an hour later", b.check(operation("op", "1", gone...)).get("checkErrors", 0, "code"), "SERVICE_NOT_ACTIVATED")
}

func TestGoogle_CheckHasNoUserLabels(t *testing.T) {
	b := fresh(t)
	a := b.check(operation("op", "1"))
	wantStatus(t, a, 200)
	want(t, "operationId", a.get("operationId"), "op")
	want(t, "checkErrors", a.get("checkErrors"), nil)
	b.wantGoogleError(b.check(operation("op", "1", "userLabels", `{"a":"b"}`)), 400, "INVALID_ARGUMENT")
	for _, op := range []string{operation("", "1"), operation("op", "1", "consumerId", ""), operation("op", "1", "startTime", ""), "null", "[]"} {
		b.wantGoogleError(b.check(op), 400, "INVALID_ARGUMENT")
	}
	want(t, "records", len(b.quantities()), 0) // a check bills nothing
}

func TestGoogle_CheckTimes(t *testing.T) {
	b := fresh(t)
	for _, times := range [][]string{
		{"endTime", `"2026-11-18T10:59:59Z"`},
		{"startTime", `"2026-11-18T13:30:01Z"`, "endTime", ""},
		{"startTime", `"2026-11-18T13:00:00Z"`, "endTime", `"2026-11-18T13:30:01Z"`},
		{"endTime", `"2026-11-18T12:00:01Z"`},
		{"startTime", `"2020-01-01T00:00:00Z"`},
		{"endTime", `""`},
	} {
		b.wantGoogleError(b.check(operation("op", "1", times...)), 400, "INVALID_ARGUMENT")
	}
	for _, times := range [][]string{{"endTime", ""}, {"endTime", `"2026-11-18T11:00:00Z"`}, {"startTime", `"2026-11-18T12:30:00Z"`, "endTime", `"2026-11-18T13:30:00Z"`}} {
		wantStatus(t, b.check(operation("op", "1", times...)), 200)
	}
}

func TestGoogle_IntervalIsAtMostAnHour(t *testing.T) {
	b := fresh(t)
	for _, start := range []string{"2026-11-18T10:59:59.999999999Z", "2026-11-18T10:00:00Z", "2020-01-01T00:00:00Z", "0001-01-01T00:00:01Z"} {
		wantReportErrors(t, b.report(operation("op", "1", "startTime", `"`+start+`"`)), map[string]int{"op": 3})
		want(t, "outcome", b.lastDecisions()[0].Outcome, sandbox.Undocumented)
	}
	b.wantGoogleError(b.report(operation("op", "1", "startTime", `"0000-01-01T00:00:00Z"`)), 400, "INVALID_ARGUMENT")
	// The same holds for the interval of a value.
	value := func(times string) string {
		return operation("op", "", "metricValueSets", `[{"metricName":"`+service+`/requests","metricValues":[{"int64Value":"1",`+times+`}]}]`)
	}
	for _, times := range []string{`"startTime":"2020-01-01T00:00:00Z"`, `"endTime":"2026-11-18T12:00:01Z"`} {
		wantReportErrors(t, b.report(value(times)), map[string]int{"op": 3})
	}
	want(t, "records", len(b.quantities()), 0)
	wantReportErrors(t, b.report(value(`"startTime":"2026-11-18T11:00:00Z","endTime":"2026-11-18T12:00:00Z"`)), map[string]int{})
}

// An operation that was accepted stays accepted, whatever has changed since.
func TestGoogle_AcceptedOperationStaysAccepted(t *testing.T) {
	active := `"buyer": "acme", "state": "ACTIVE"`
	for _, c := range []struct {
		what   string
		change func(*box)
		code   int // of another operation
	}{
		{"state", func(b *box) { b.put(active, `"buyer": "acme", "state": "BILLING_DISABLED"`) }, 5},
		{"cancelled", func(b *box) { b.put(active, active+`, "cancelled": "2026-11-18T11:00:00Z"`) }, 5},
		{"consumer", func(b *box) { b.put(consumer, "project_number:7") }, 5},
		{"metric", func(b *box) { b.put(`{"name": "requests", "price": "0.001"}, `, "") }, 3},
		{"month", func(b *box) { b.at(time.Date(2026, 12, 1, 9, 0, 0, 0, time.UTC)) }, 3},
		{"the clock goes back", func(b *box) { b.at(noon.Add(-time.Hour)) }, 3},
	} {
		b := fresh(t)
		wantReportErrors(t, b.report(operation("op", "5")), map[string]int{})
		c.change(b)
		b.googleLogin()
		wantReportErrors(t, b.report(operation("op", "5"), operation("new", "5")), map[string]int{"new": c.code})
		want(t, c.what, b.lastDecisions()[0].Outcome, sandbox.Duplicate)
		want(t, "quantities", b.quantities(), "[5]")
	}
}

func TestGoogle_TimesAreRFC3339(t *testing.T) {
	b := fresh(t)
	for _, start := range []string{
		"2026-11-18T11:00:00,5Z", "2026-11-18T1:00:00Z", "2026-11-18 11:00:00Z", "2026-11-18T11:00:00", "2026-11-18t11:00:00z", "2026-11-18T11:00Z", "2026-11-18T11:00:00.Z",
		"2026-11-18T11:00:00+24:00", "2026-11-18T11:00:00+01:60", "2026-11-18T11:00:00+0100", "2026-11-31T11:00:00Z", "2026-11-18T24:00:00Z", "0000-01-01T00:00:00Z", "",
	} {
		op := operation("op", "1", "startTime", `"`+start+`"`)
		b.wantGoogleError(b.report(op), 400, "INVALID_ARGUMENT")
		b.wantGoogleError(b.check(op), 400, "INVALID_ARGUMENT")
	}
	wantReportErrors(t, b.report(operation("op", "1", "startTime", `"2026-11-18T16:30:00.000000001+05:30"`)), map[string]int{})
}

func TestGoogle_KnownMembersHaveTheirType(t *testing.T) {
	b := fresh(t)
	value := func(member string) string {
		return operation("op", "", "metricValueSets", `[{"metricName":"`+service+`/requests","metricValues":[{`+member+`}]}]`)
	}
	operations := []string{
		value(`"int64Value":"1","startTime":5`), value(`"int64Value":"1","endTime":"yesterday"`), value(`"int64Value":"1","startTime":""`),
		value(`"boolValue":"true"`), value(`"stringValue":1`), value(`"doubleValue":"x"`), value(`"doubleValue":true`), value(`"moneyValue":1`), value(`"distributionValue":[]`),
	}
	for name, wrong := range map[string]string{
		"importance": `1.5 true "URGENT" {}`, "logEntries": `{} "x" [1] true`, "quotaProperties": `[] "x" 1`, "resources": `{} "x" [1]`, "traceSpans": `{} "x" ["y"]`,
		"operationName": `1`, "startTime": `1`, "endTime": `{}`,
	} {
		for _, v := range strings.Fields(wrong) {
			operations = append(operations, operation("op", "1", name, v))
		}
	}
	for _, op := range operations {
		b.wantGoogleError(b.report(op), 400, "INVALID_ARGUMENT")
		b.wantGoogleError(b.check(op), 400, "INVALID_ARGUMENT")
	}
	for _, member := range []string{`"skipActivationCheck":"true"`, `"requestProjectSettings":1`, `"serviceConfigId":1`} {
		b.wantGoogleError(b.googleCall("/v1/services/"+service+":check", `{"operation":`+operation("op", "1")+`,`+member+`}`), 400, "INVALID_ARGUMENT")
	}
	b.wantGoogleError(b.googleCall("/v1/services/"+service+":report", `{"operations":[`+operation("op", "1")+`],"serviceConfigId":1}`), 400, "INVALID_ARGUMENT")
	wantStatus(t, b.googleCall("/v1/services/"+service+":check", `{"operation":`+operation("op", "1")+`,"skipActivationCheck":true,"serviceConfigId":"1"}`), 200)
	right := operation("op", "1", "importance", `"LOW"`, "logEntries", `[{}]`, "quotaProperties", `{}`, "resources", `[]`, "traceSpans", `null`)
	wantReportErrors(t, b.report(right), map[string]int{})
}

func TestGoogle_CheckErrors(t *testing.T) {
	b := fresh(t)
	for id, code := range map[string]string{
		"project_number:2": "BILLING_DISABLED", "project_number:3": "SERVICE_NOT_ACTIVATED", "project_number:4": "PROJECT_DELETED", "project_number:99": "NOT_FOUND",
	} {
		a := b.check(operation("op", "1", "consumerId", `"`+id+`"`))
		wantStatus(t, a, 200)
		want(t, id, a.get("checkErrors", 0, "code"), code)
	}
	b.fault(sandbox.Fault{Fault: sandbox.CheckError}) // a transient one
	want(t, "fault", b.check(operation("op", "1")).get("checkErrors", 0, "code"), "BILLING_STATUS_UNAVAILABLE")
	b.fault(sandbox.Fault{Fault: sandbox.CheckError, Code: "SERVICE_STATUS_UNAVAILABLE"})
	want(t, "fault", b.check(operation("op", "1")).get("checkErrors", 0, "code"), "SERVICE_STATUS_UNAVAILABLE")
	want(t, "after it", b.check(operation("op", "1")).get("checkErrors"), nil)
}

func TestGoogle_MalformedRequestsAreInvalidArgument(t *testing.T) {
	b := fresh(t)
	for _, body := range []string{
		"", "{", "[]", `{"operations":{}}`, `{"operations":[1]}`, `{"operation":[]}`, `{"operations":[{"operationID":"x"}]}`, `{"operations":[],"operations":[]}`,
		`{"operations":[` + operation("op", "1", "startTime", `"yesterday"`) + `]}`, `{"operations":[` + operation("op", "1", "userLabels", `{"a":1}`) + `]}`,
		`{"operations":[` + operation("op", "1", "labels", `[]`) + `]}`, `{"operations":[` + operation("op", "1", "metricValueSets", `[{"name":"x"}]`) + `]}`,
		`{"operations":[` + operation("op", "1", "metricValueSets", `[{"metricName":"x","metricValues":[{"value":1}]}]`) + `]}`, "{\"operations\":\"\xff\"}",
	} {
		b.wantGoogleError(b.googleCall("/v1/services/"+service+":report", body), 400, "INVALID_ARGUMENT")
	}
	b.wantGoogleError(b.googleCall("/v1/services/"+service+":report", `{"operations":[]}`, "Content-Type", "text/plain"), 400, "INVALID_ARGUMENT")
	b.wantGoogleError(b.googleCall("/v1/services/"+service+":report?x=y", `{"operations":[]}`), 400, "INVALID_ARGUMENT")
	b.wantGoogleError(b.googleCall("/v1/services/"+service+":allocateQuota", `{}`), 404, "NOT_FOUND")
}

func TestGoogle_TokenEndpoint(t *testing.T) {
	b := fresh(t)
	a := b.googleToken(jwt())
	wantStatus(t, a, 200)
	want(t, "type", a.get("token_type"), "Bearer")
	for what, assertion := range map[string]string{
		"nothing": "", "two parts": "a.b", "no JSON": "YQ.YQ.YQ", "stranger": jwt("iss", "nobody@x"), "too long": jwt("exp", 4601), "backwards": jwt("exp", 999),
		"audience": jwt("aud", "https://example.com"), "no times": jwt("iat", nil), "no signature": jwt()[:strings.LastIndex(jwt(), ".")+1],
		"alg": strings.Replace(jwt(), "RS256"[:0], "", 1) + ".x",
	} {
		a := b.googleToken(assertion)
		wantStatus(t, a, 400)
		want(t, what, a.get("error"), "invalid_grant")
	}
	want(t, "no scope", b.googleToken(jwt("scope", "")).get("error"), "invalid_scope")
	want(t, "grant type", b.form("/token", url.Values{"grant_type": {"password"}}).get("error"), "unsupported_grant_type")
	want(t, "twice", b.form("/token", url.Values{"grant_type": {"a", "b"}}).get("error"), "invalid_request")
}

func TestGoogle_TokensAreChecked(t *testing.T) {
	b := fresh(t)
	b.googleLogin()
	b.at(noon.Add(time.Hour)) // the token has expired
	b.wantGoogleError(b.report(operation("op", "1")), 401, "UNAUTHENTICATED")
	b.wantGoogleError(b.googleCall("/v1/services/"+service+":report", "{}", "Authorization", ""), 401, "UNAUTHENTICATED")
	b.google = b.googleToken(jwt("scope", "https://www.googleapis.com/auth/devstorage.read_only")).get("access_token").(string)
	b.wantGoogleError(b.report(operation("op", "1")), 403, "PERMISSION_DENIED")
	b.google = b.googleToken(jwt("iss", "stranger@seller.iam.gserviceaccount.com")).get("access_token").(string) // is not a reporter
	b.wantGoogleError(b.report(operation("op", "1")), 403, "PERMISSION_DENIED")
	b.wantGoogleError(b.check(operation("op", "1")), 403, "PERMISSION_DENIED")
	b.google = b.googleToken(jwt("scope", "https://www.googleapis.com/auth/servicecontrol", "aud", "http://127.0.0.1:8090/gcp/token")).get("access_token").(string)
	wantStatus(t, b.report(operation("op", "1")), 200)
}

// exchange requests a federated token with the form after the changes.
func (b *box) exchange(subject string, changes ...string) answer {
	b.t.Helper()
	form := url.Values{
		"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}, "audience": {audience}, "scope": {"https://www.googleapis.com/auth/cloud-platform"},
		"requested_token_type": {"urn:ietf:params:oauth:token-type:access_token"}, "subject_token_type": {"urn:ietf:params:aws:token-type:aws4_request"},
		"subject_token": {url.QueryEscape(subject)},
	}
	for i := 0; i < len(changes); i += 2 {
		form.Set(changes[i], changes[i+1])
	}
	return b.form("/v1/token", form)
}

const subject = `{"url":"https://sts.us-east-1.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15","method":"POST","headers":[` +
	`{"key":"Authorization","value":"AWS4-HMAC-SHA256 Credential=A/20261118/us-east-1/sts/aws4_request, SignedHeaders=host;x-amz-date;x-goog-cloud-target-resource, Signature=00"},` +
	`{"key":"host","value":"sts.us-east-1.amazonaws.com"},{"key":"x-amz-date","value":"20261118T123000Z"},` +
	`{"key":"x-goog-cloud-target-resource","value":"` + audience + `"}]}`

func TestGoogle_WorkloadIdentityFederation(t *testing.T) {
	b := fresh(t)
	a := b.exchange(subject)
	wantStatus(t, a, 200)
	want(t, "type", a.get("issued_token_type"), "urn:ietf:params:oauth:token-type:access_token")
	b.google = a.get("access_token").(string)
	// A federated token itself cannot report.
	b.wantGoogleError(b.report(operation("op", "1")), 403, "PERMISSION_DENIED")
	open := "/v1/services/other.endpoints.seller.cloud.goog:report" // which takes all service accounts
	b.wantGoogleError(b.googleCall(open, `{"operations":[`+operation("op", "1")+`]}`), 403, "PERMISSION_DENIED")
	impersonate := func(email, body string) answer {
		return b.googleCall("/v1/projects/-/serviceAccounts/"+email+":generateAccessToken", body)
	}
	const scope = `{"scope":["https://www.googleapis.com/auth/cloud-platform"]`
	b.wantGoogleError(impersonate("stranger@seller.iam.gserviceaccount.com", scope+`}`), 403, "PERMISSION_DENIED")
	for _, body := range []string{"", "{}", `{"scope":[1]}`, scope + `,"lifetime":"3601s"}`, scope + `,"lifetime":"1h"}`, scope + `,"lifetime":"1m0s"}`, scope + `,"lifetime":"+60s"}`, scope + `,"x":1}`} {
		b.wantGoogleError(impersonate(robot, body), 400, "INVALID_ARGUMENT")
	}
	a = impersonate(robot, scope+`,"lifetime":"600s"}`)
	wantStatus(t, a, 200)
	want(t, "expireTime", a.get("expireTime"), "2026-11-18T12:40:00Z")
	b.google = a.get("accessToken").(string)
	wantReportErrors(t, b.report(operation("op", "1")), map[string]int{})
	// A service account's token cannot impersonate.
	b.wantGoogleError(impersonate(robot, scope+`}`), 403, "PERMISSION_DENIED")
	b.at(noon.Add(10 * time.Minute))
	b.wantGoogleError(b.report(operation("op", "1")), 401, "UNAUTHENTICATED")
	b.wantGoogleError(impersonate(robot, scope+`}`), 401, "UNAUTHENTICATED")
}

func TestGoogle_TokenExchangeIsStrict(t *testing.T) {
	b := fresh(t)
	for _, c := range []struct {
		subject string
		change  []string
		want    string
	}{
		{subject, []string{"audience", "//iam.googleapis.com/other"}, "invalid_target"},
		{subject, []string{"grant_type", "x"}, "invalid_request"},
		{subject, []string{"requested_token_type", "x"}, "invalid_request"},
		{subject, []string{"subject_token_type", "urn:ietf:params:oauth:token-type:jwt"}, "invalid_request"},
		{subject, []string{"scope", "x"}, "invalid_scope"},
		{"", nil, "invalid_grant"},
		{"%", nil, "invalid_grant"},
		{strings.Replace(subject, "GetCallerIdentity", "GetSessionToken", 1), nil, "invalid_grant"},
		{strings.Replace(subject, "sts.us-east-1.amazonaws.com?", "sts.example.com?", 1), nil, "invalid_grant"},
		{strings.Replace(subject, `"POST"`, `"GET"`, 1), nil, "invalid_grant"},
		{strings.Replace(subject, `"x-amz-date","value"`, `"x-amz-data","value"`, 1), nil, "invalid_grant"},
		{strings.Replace(subject, `"value":"`+audience, `"value":"x`, 1), nil, "invalid_grant"},
		{strings.Replace(subject, "AWS4-HMAC-SHA256", "Bearer", 1), nil, "invalid_grant"},
	} {
		a := b.exchange(c.subject, c.change...)
		wantStatus(t, a, 400)
		want(t, fmt.Sprint(c), a.get("error"), c.want)
	}
}

func TestGoogle_FaultsHaveItsForm(t *testing.T) {
	b := fresh(t)
	b.fault(sandbox.Fault{Fault: sandbox.Throttled})
	want(t, "throttled", b.report(operation("op", "1")).get("error", "status"), "RESOURCE_EXHAUSTED")
	b.fault(sandbox.Fault{Fault: sandbox.ServerError, Status: 503})
	want(t, "server error", b.report(operation("op", "1")).get("error", "status"), "UNAVAILABLE")
	b.fault(sandbox.Fault{Fault: sandbox.Unprocessed, Records: []int{0}})
	wantReportErrors(t, b.report(operation("op-1", "1"), operation("op-2", "2")), map[string]int{"op-1": 14})
	b.fault(sandbox.Fault{Fault: sandbox.Partial, Records: []int{0}, Code: "13"})
	wantReportErrors(t, b.report(operation("op-1", "1")), map[string]int{"op-1": 13})
	want(t, "quantities", b.quantities(), "[2]")
	// After a failed call the client does not know what was done: here, all of it.
	yes := true
	b.fault(sandbox.Fault{Fault: sandbox.ServerError, Accepted: &yes})
	wantStatus(t, b.report(operation("op-3", "3")), 500)
	wantReportErrors(t, b.report(operation("op-3", "3")), map[string]int{})
	want(t, "quantities", b.quantities(), "[2 3]")
}
