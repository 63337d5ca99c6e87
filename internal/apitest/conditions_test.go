package apitest

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

const (
	configOn  = `{"partnerUsageMeteringConfigs":[{"enableDimensionMapping":true,"partner":"AWS"}]}`
	configOff = `{"partnerUsageMeteringConfigs":[{"enableDimensionMapping":false,"partner":"AWS"}]}`
)

// conditionCases are If-Match and If-None-Match, with the status of a GET and of a change. %c is
// the current ETag, %o an earlier one, and %x the current one without quotes.
var conditionCases = []struct {
	ifMatch, ifNoneMatch string
	get, change          int
	unset                bool // no config was ever set
}{
	{ifNoneMatch: "%c", get: 304, change: 412},
	{ifNoneMatch: "W/%c", get: 304, change: 412}, // If-None-Match compares weakly
	{ifNoneMatch: `"x", %c`, get: 304, change: 412},
	{ifNoneMatch: `"a,b",,W/%c ,`, get: 304, change: 412},
	{ifNoneMatch: "*", get: 304, change: 412},
	{ifNoneMatch: " * ", get: 304, change: 412},
	{ifNoneMatch: "%c", get: 304, change: 412, unset: true},
	{ifNoneMatch: "*", get: 200, change: 200, unset: true},
	{ifNoneMatch: `"x"`, get: 200, change: 200, unset: true},
	{ifNoneMatch: "%o", get: 200, change: 200},
	{ifNoneMatch: `""`, get: 200, change: 200},
	{ifNoneMatch: `"%xx"`, get: 200, change: 200},
	{ifNoneMatch: `"*"`, get: 200, change: 200},
	{ifNoneMatch: "%x", get: 400, change: 400},
	{ifNoneMatch: "*, %c", get: 400, change: 400},
	{ifNoneMatch: "%c %o", get: 400, change: 400},
	{ifNoneMatch: "w/%c", get: 400, change: 400},

	{ifMatch: "%c", get: 200, change: 200},
	{ifMatch: " %c ", get: 200, change: 200},
	{ifMatch: `"x", %c`, get: 200, change: 200},
	{ifMatch: `%c,"x"`, get: 200, change: 200},
	{ifMatch: `"x",W/"y" , %c`, get: 200, change: 200},
	{ifMatch: `"a,b", %c`, get: 200, change: 200}, // an ETag may contain a comma
	{ifMatch: `"x", , %c`, get: 200, change: 200},
	{ifMatch: "*", get: 200, change: 200},
	{ifMatch: " * ", get: 200, change: 200},
	{ifMatch: "*", get: 200, change: 200, unset: true},
	{ifMatch: "%c", get: 200, change: 200, unset: true},
	{ifMatch: "%o", get: 412, change: 412},
	{ifMatch: `"never"`, get: 412, change: 412},
	{ifMatch: `""`, get: 412, change: 412},
	{ifMatch: "W/%c", get: 412, change: 412}, // If-Match compares strongly
	{ifMatch: `%o, "x", W/%c`, get: 412, change: 412},
	{ifMatch: `"a,b"`, get: 412, change: 412},
	{ifMatch: "%x", get: 400, change: 400},
	{ifMatch: `"%x`, get: 400, change: 400},
	{ifMatch: "w/%c", get: 400, change: 400},
	{ifMatch: "W/", get: 400, change: 400},
	{ifMatch: "*, %c", get: 400, change: 400},
	{ifMatch: `"*`, get: 400, change: 400},
	{ifMatch: "**", get: 400, change: 400},
	{ifMatch: "%c %o", get: 400, change: 400},
	{ifMatch: `"a"b"`, get: 400, change: 400},

	// RFC 9110, 13.2.2: If-Match is evaluated first.
	{"%o", "%c", 412, 412, false},
	{"%o", "%o", 412, 412, false},
	{"%c", "%c", 304, 412, false},
	{"%c", "%o", 200, 200, false},
	{"*", "*", 304, 412, false},
	{"x", "*", 400, 400, false},
	{"*", "x", 400, 400, false},
}

// A request whose condition is not met, or not readable, is refused and writes nothing; any other
// is as without a condition.
func TestConfig_Conditions(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		old := strongETag(t, a.sendConfig(t, "PUT", "acme", configOn, nil))
		want(t, a.sendConfig(t, "PUT", "acme", configOff, nil), http.StatusOK)
		for i, c := range conditionCases {
			for _, method := range []string{"GET", "PUT", "PATCH"} {
				org, status := "acme", c.get
				if c.unset {
					org = fmt.Sprint("new ", i, method)
				}
				before, current := a.config(t, org)
				spelled := strings.NewReplacer("%c", current, "%o", old, "%x", strings.Trim(current, `"`))
				headers := map[string]string{}
				for name, value := range map[string]string{"If-Match": c.ifMatch, "If-None-Match": c.ifNoneMatch} {
					if value != "" {
						headers[name] = spelled.Replace(value)
					}
				}
				r := configured(method, "").of(org)
				if method != "GET" {
					r, status = configured(method, configOn).of(org), c.change
				}
				maps.Copy(r.headers, headers)
				got := a.do(t, r)
				if got.status != status {
					t.Fatalf("%s of %s with %v: %d %s; want %d", method, org, headers, got.status, got.body, status)
				}
				after, etag := a.config(t, org)
				switch {
				case status >= 400:
					texts := []string{"Match"}
					if status == http.StatusBadRequest {
						texts = append(texts, "in quotes")
					} else if method != "GET" {
						texts = append(texts, strings.Trim(current, `"`), "nothing was written")
					}
					wantError(t, got, status, texts...)
					fallthrough
				case method == "GET":
					wantSame(t, before, after)
					if etag != current || status < 400 && strongETag(t, got) != current {
						t.Errorf("%s with %v: the ETag was %s and is %s", method, headers, current, etag)
					}
				default:
					wantSame(t, parse(t, configOn), after)
					want(t, a.sendConfig(t, "PUT", org, configOff, nil), http.StatusOK)
				}
			}
		}
		// A header that is sent twice is one list.
		_, current := a.config(t, "acme")
		twice := request{method: "GET", path: configPath("acme"), headers: map[string]string{"If-None-Match": old}, again: map[string]string{"If-None-Match": current}}
		if a.carries(twice) {
			want(t, a.do(t, twice), http.StatusNotModified)
		}
		// A condition that is not met refuses a change that changes nothing, too.
		wantError(t, a.sendConfig(t, "PUT", "acme", configOff, map[string]string{"If-None-Match": current}), http.StatusPreconditionFailed)
		// An invalid request is refused whatever its conditions are.
		wantError(t, a.do(t, request{method: "GET", path: configPath("acme"), query: "x=1", headers: map[string]string{"If-None-Match": current}}), http.StatusBadRequest, "x")
		wantError(t, a.sendConfig(t, "PUT", "acme", "x", map[string]string{"If-None-Match": "*", "If-Match": old}), http.StatusBadRequest, "JSON")
	})
}

// The stored form differs from the body; Content-Location says that the ETag is that of the
// response.
func TestConfigChange_ETagIsOfTheResponse(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		for _, method := range []string{"PUT", "PATCH"} {
			got := a.sendConfig(t, method, "acme", `{"partnerUsageMeteringConfigs": [ {"partner": "AWS", "dimensionMapping": {"a": {"dimensionKey": "d", "convertionMultiplier": 1.50}}} ]}`, nil)
			want(t, got, http.StatusOK)
			if has := got.headers.Get("Content-Location"); has != "usageMeteringConfigInfo" {
				t.Errorf("%s: the Content-Location is %q", method, has)
			}
			read := a.get(t, configPath("acme"), "")
			if read.body != got.body || strongETag(t, read) != strongETag(t, got) || strongETag(t, got) != etagOf(1, got.body) {
				t.Errorf("%s returned %s with the ETag %s; GET %s with %s", method, got.body, strongETag(t, got), read.body, strongETag(t, read))
			}
		}
	})
}

// A table that was restored from a backup may write a version number again, with other content.
func TestETag_OfARestoredTableIsNeverReused(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		first := strongETag(t, a.sendConfig(t, "PUT", "acme", configOn, nil))
		lost := strongETag(t, a.sendConfig(t, "PUT", "acme", configOff, nil))
		a.dropVersion(t, "acme", "CONFIG#0000000002") // the backup was older
		if _, etag := a.config(t, "acme"); etag != first {
			t.Errorf("the ETag of the same content was %s and is %s", first, etag)
		}
		other := strings.Replace(configOff, "AWS", "GCP", 1)
		second := strongETag(t, a.sendConfig(t, "PUT", "acme", other, nil))
		if second == lost {
			t.Fatalf("two contents have the ETag %s", lost)
		}
		for _, method := range []string{"PUT", "PATCH"} {
			wantError(t, a.sendConfig(t, method, "acme", configOn, map[string]string{"If-Match": lost}), http.StatusPreconditionFailed, "If-Match")
		}
		got := a.do(t, request{method: "GET", path: configPath("acme"), headers: map[string]string{"If-None-Match": lost}})
		if want(t, got, http.StatusOK); got.body != other {
			t.Errorf("a stale ETag was taken for the config's: %s", got.body)
		}
		wantSame(t, []string{"CONFIG#0000000001", "CONFIG#0000000002"}, versions(t, a.client, a.tableName, "acme"))

		// Restored to before the first version, and set again.
		a.dropVersion(t, "acme", "CONFIG#0000000001")
		a.dropVersion(t, "acme", "CONFIG#0000000002")
		if again := strongETag(t, a.sendConfig(t, "PUT", "acme", other, nil)); slices.Contains([]string{first, second, lost}, again) {
			t.Errorf("version 1 of another content has the ETag %s again", again)
		}
		wantError(t, a.sendConfig(t, "PUT", "acme", configOn, map[string]string{"If-Match": first}), http.StatusPreconditionFailed, "If-Match")
	})
}

func (a *api) dropVersion(t testing.TB, org, sk string) {
	t.Helper()
	key := map[string]types.AttributeValue{"PK": &types.AttributeValueMemberS{Value: "ORG#" + org}, "SK": &types.AttributeValueMemberS{Value: sk}}
	if _, err := a.client.DeleteItem(t.Context(), &dynamodb.DeleteItemInput{TableName: &a.tableName, Key: key}); err != nil {
		t.Fatal(err)
	}
}

// The body of every operation is JSON, uncompressed. That of a PATCH may also be a merge patch if
// the description has it.
func TestUnsupportedMediaType_NamesWhatIsAccepted(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.giveAll(t, "acme")
		described := describedMediaTypes(t)
		for _, o := range operations() {
			if o.example.body == "" {
				continue
			}
			types := described[o.id]
			if !slices.Contains(types, "application/json") {
				t.Errorf("%s: the description has the media types %q", o.id, types)
			}
			send := func(contentType, coding string) answer {
				r := o.example.of("acme")
				if r.headers = map[string]string{"Content-Type": contentType}; coding != "" {
					r.headers["Content-Encoding"] = coding
				}
				return a.do(t, r)
			}
			accepted := []string{"application/json; charset=utf-8", "application/json;charset=UTF-8", "Application/JSON"}
			refused := []string{
				"text/plain", "text/json", "application/x-www-form-urlencoded", "application/json-patch+json", "application/jsonl", "json", "*/*",
				"application/json; charset=iso-8859-1", "application/json; charset=utf-16", "application/json, text/plain", "nonsense;;",
			}
			if accepted = append(accepted, types...); !slices.Contains(types, "application/merge-patch+json") {
				refused = append(refused, "application/merge-patch+json")
			}
			patch := ""
			if o.example.method == "PATCH" {
				patch = strings.Join(types, ", ")
			}
			for _, contentType := range refused {
				got := send(contentType, "")
				wantError(t, got, http.StatusUnsupportedMediaType, append([]string{"Content-Type"}, types...)...)
				if has := got.headers.Get("Accept-Patch"); has != patch || got.headers.Get("Accept-Encoding") != "" {
					t.Errorf("%s of %s: Accept-Patch is %q, Accept-Encoding %q", o.id, contentType, has, got.headers.Get("Accept-Encoding"))
				}
			}
			for _, coding := range []string{"gzip", "br", "deflate", "identity, gzip", "x"} {
				got := send("application/json", coding)
				wantError(t, got, http.StatusUnsupportedMediaType, "Content-Encoding", coding)
				if has := got.headers.Get("Accept-Encoding"); has != "identity" || got.headers.Get("Accept-Patch") != "" {
					t.Errorf("%s of %s: Accept-Encoding is %q, Accept-Patch %q", o.id, coding, has, got.headers.Get("Accept-Patch"))
				}
			}
			for _, got := range []answer{send("application/json", "Identity"), send("application/json", "identity")} {
				if got.status == http.StatusUnsupportedMediaType {
					t.Errorf("%s, not encoded: %s", o.id, got.body)
				}
			}
			for _, contentType := range accepted {
				if got := send(contentType, ""); got.status == http.StatusUnsupportedMediaType {
					t.Errorf("%s of %s: %s", o.id, contentType, got.body)
				}
			}
		}
	})
}

// describedMediaTypes returns the media types of each operation's body, by the description.
func describedMediaTypes(t *testing.T) map[string][]string {
	t.Helper()
	d, err := described()
	if err != nil {
		t.Fatal(err)
	}
	types := map[string][]string{}
	for _, item := range d.paths {
		for _, o := range item.GetOperations().FromOldest() {
			if o.RequestBody != nil {
				types[o.OperationId] = slices.Sorted(o.RequestBody.Content.KeysFromOldest())
			}
		}
	}
	return types
}
