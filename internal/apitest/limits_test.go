package apitest

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// Each request exceeds one limit; the error must name that limit by its number.
func TestErrors_NameTheLimit(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		x := strings.Repeat
		list := func(parameter, value string) request {
			return request{method: "GET", path: listPath("acme"), query: url.Values{parameter: {value}}.Encode()}
		}
		validate := func(group string) request {
			return request{method: "POST", path: validatePath("acme"), body: "[" + group + "]", headers: map[string]string{"Content-Type": "application/json"}}
		}
		patch := func(mapping string) request {
			body := `{"partnerUsageMeteringConfigs": [{"partner": "AWS", "dimensionMapping": {` + mapping + `}}]}`
			return request{method: "PATCH", path: configPath("acme"), body: body, headers: map[string]string{"Content-Type": "application/json"}}
		}
		properties := func(value string) request {
			return validate(`{"billableRecords": [{"key": "m", "quantity": 1, "properties": {"a": ` + value + `}}]}`)
		}
		const (
			bad      = http.StatusBadRequest
			value    = http.StatusInternalServerError
			tooLarge = http.StatusRequestEntityTooLarge
		)
		for name, c := range map[string]struct {
			request request
			status  int
			limit   string
		}{
			"parameters":                       {request{method: "GET", path: listPath("acme"), query: x("&", 10_000)}, bad, "at most 10000"},
			"limit":                            {list("limit", "1001"), bad, "1 to 1000"},
			"limit, low":                       {list("limit", "0"), bad, "1 to 1000"},
			"offset":                           {list("offset", "2147483648"), bad, "0 to 2147483647"},
			"buyerId":                          {list("buyerId", x("b", 257)), bad, "1 to 256 bytes"},
			"entitlementId":                    {list("entitlementId", x("e", 257)), bad, "1 to 256 bytes"},
			"productId":                        {list("productId", x("ü", 129)), bad, "1 to 256 bytes"},
			"metaInfo":                         {list("metaInfo", `{"a":"`+x("x", 4089)+`"}`), bad, "at most 4096"},
			"batch":                            {validate(`{}` + x(`,{}`, 1000)), bad, "1 to 1000"},
			"batch, empty":                     {validate(``), bad, "1 to 1000"},
			"body of a batch":                  {validate(x(" ", 4<<20)), tooLarge, "4194304 bytes"},
			"nesting":                          {properties(x("[", 24) + x("]", 24)), bad, "at most 24 levels"},
			"nesting, far":                     {properties(x(`{"a":`, 20_000) + "1" + x("}", 20_000)), bad, "at most 24 levels"},
			"digits in properties":             {properties(x("1", 39)), bad, "38 significant digits"},
			"magnitude in properties":          {properties("1e126"), bad, "under 1e126"},
			"amount":                           {validate(`{"metaInfo": {"lagoAmount": ` + x("1", 39) + `}}`), bad, "38 significant digits"},
			"count":                            {validate(`{"metaInfo": {"stripeUsageRecordSummaryTotalUsage": 2147483648}}`), bad, "-2147483648 to 2147483647"},
			"year":                             {validate(`{"timestamp": "0000-01-01T00:00:00+00:01"}`), bad, "0 to 9999"},
			"id":                               {validate(`{"id": "` + x("ü", 37) + `"}`), value, "1 to 36 characters"},
			"entitlementID":                    {validate(`{"entitlementID": "` + x("e", 257) + `"}`), value, "1 to 256 bytes"},
			"dimension key":                    {validate(`{"records": {"` + x("k", 256) + `": 1}}`), value, "1 to 255 characters"},
			"metric key":                       {validate(`{"billableRecords": [{"key": "` + x("k", 256) + `"}]}`), value, "1 to 255 characters"},
			"quantity":                         {validate(`{"records": {"k": ` + x("1", 20) + `}}`), value, "at most 19 digits"},
			"quantity, negative":               {validate(`{"records": {"k": -1}}`), value, "0 or more"},
			"future":                           {validate(`{"timestamp": "2099-01-01T00:00:00Z", "records": {"k": 1}}`), value, "5 minutes"},
			"name in properties":               {properties(`{"` + x("n", 65_536) + `": 1}`), value, "1 to 65535 bytes"},
			"group":                            {properties(`"` + x("x", 392<<10) + `"`), value, "at most 401408 (392 KB)"},
			"body of a config":                 {patch(x(" ", 1<<20)), tooLarge, "1048576 bytes"},
			"config":                           {patch(`"k": {"dimensionKey": "d", "convertionMultiplier": 1}` + manyMappings(409_000)), bad, "at most 408576"},
			"source key of a mapping":          {patch(`"` + x("k", 256) + `": {"dimensionKey": "d", "convertionMultiplier": 1}`), bad, "1 to 255 characters"},
			"dimensionKey":                     {patch(`"k": {"dimensionKey": "` + x("d", 256) + `", "convertionMultiplier": 1}`), bad, "1 to 255 characters"},
			"convertionMultiplier":             {patch(`"k": {"dimensionKey": "d", "convertionMultiplier": ` + x("1", 20) + `}`), bad, "at most 19 digits"},
			"convertionMultiplier, not over 0": {patch(`"k": {"dimensionKey": "d", "convertionMultiplier": 0}`), bad, "over 0"},
		} {
			if !a.carries(c.request) {
				continue
			}
			if wantError(t, a.do(t, c.request), c.status, c.limit); t.Failed() {
				t.Fatal(name)
			}
		}
	})
}

// manyMappings are further members for a dimensionMapping, of at least that many bytes.
func manyMappings(bytes int) string {
	var b strings.Builder
	for i := 0; b.Len() < bytes; i++ {
		b.WriteString(`,"` + strings.Repeat("k", 200) + string(rune('a'+i%26)) + string(rune('\u4e00'+i)) + `":{"convertionMultiplier":1,"dimensionKey":"` + strings.Repeat("d", 200) + `"}`)
	}
	return b.String()
}
