package apitest

import (
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

func (a *api) getConfigIf(t testing.TB, org string, headers map[string]string) answer {
	t.Helper()
	return a.do(t, request{method: "GET", path: configPath(org), headers: headers})
}

func TestIfNoneMatch_GetOfTheSameConfigIs304(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		old := strongETag(t, a.sendConfig(t, "PUT", "acme", configOn, nil))
		current := strongETag(t, a.sendConfig(t, "PUT", "acme", configOff, nil))
		empty := etagOf(0, `{"partnerUsageMeteringConfigs":[]}`)
		for _, c := range []struct {
			org, ifNoneMatch string
			status           int
		}{
			{"acme", current, 304},
			{"acme", "W/" + current, 304}, // If-None-Match compares weakly
			{"acme", `"x", ` + current, 304},
			{"acme", `"a,b",,W/` + current + " ,", 304},
			{"acme", "*", 304},
			{"acme", " * ", 304},
			{"acme", old, 200},
			{"acme", `""`, 200},
			{"acme", `"` + strings.ToUpper(strings.Trim(current, `"`)) + `x"`, 200},
			{"acme", `"*"`, 200},
			{"acme", strings.Trim(current, `"`), 400},
			{"acme", "*, " + current, 400},
			{"acme", current + " " + old, 400},
			{"acme", "w/" + current, 400},
			{"nobody", empty, 304},
			{"nobody", "*", 200}, // no config was ever set
			{"nobody", current, 200},
		} {
			got := a.getConfigIf(t, c.org, map[string]string{"If-None-Match": c.ifNoneMatch})
			if got.status != c.status {
				t.Errorf("%s, If-None-Match: %s: %d %s; want %d", c.org, c.ifNoneMatch, got.status, got.body, c.status)
			}
			if c.status == 400 {
				wantError(t, got, 400, "If-None-Match", "in quotes")
			} else if tag := map[string]string{"acme": current, "nobody": empty}[c.org]; strongETag(t, got) != tag {
				t.Errorf("the ETag is %s, want %s", strongETag(t, got), tag)
			}
		}
		// A header that is sent twice is one list.
		got := a.do(t, request{method: "GET", path: configPath("acme"), headers: map[string]string{"If-None-Match": old}, again: map[string]string{"If-None-Match": current}})
		want(t, got, http.StatusNotModified)
	})
}

func TestIfNoneMatch_ChangeOfAnExcludedConfigIs412(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		old := strongETag(t, a.sendConfig(t, "PUT", "acme", configOn, nil))
		current := strongETag(t, a.sendConfig(t, "PUT", "acme", configOff, nil))
		for _, method := range []string{"PUT", "PATCH"} {
			for _, ifNoneMatch := range []string{"*", current, "W/" + current, `"x", ` + current} {
				for _, body := range []string{configOn, configOff} { // one that changes nothing, too
					got := a.sendConfig(t, method, "acme", body, map[string]string{"If-None-Match": ifNoneMatch})
					if wantError(t, got, http.StatusPreconditionFailed, "If-None-Match", strings.Trim(current, `"`), "nothing was written"); t.Failed() {
						t.Fatalf("%s with If-None-Match: %s", method, ifNoneMatch)
					}
				}
			}
			wantError(t, a.sendConfig(t, method, "acme", configOn, map[string]string{"If-None-Match": "x"}), http.StatusBadRequest, "If-None-Match")
		}
		if config, etag := a.config(t, "acme"); etag != current || len(versions(t, a.client, a.tableName, "acme")) != 2 {
			t.Errorf("what was refused was written: %v %s", config, etag)
		}
		for _, method := range []string{"PUT", "PATCH"} {
			want(t, a.sendConfig(t, method, "acme", configOff, map[string]string{"If-None-Match": old}), http.StatusOK)
			// "*" means "only if no config was ever set".
			org := "new by " + method
			want(t, a.sendConfig(t, method, org, configOn, map[string]string{"If-None-Match": "*"}), http.StatusOK)
			wantError(t, a.sendConfig(t, method, org, configOff, map[string]string{"If-None-Match": "*"}), http.StatusPreconditionFailed)
			wantError(t, a.sendConfig(t, method, "nobody", configOn, map[string]string{"If-None-Match": etagOf(0, `{"partnerUsageMeteringConfigs":[]}`)}), http.StatusPreconditionFailed)
		}
	})
}

// RFC 9110, 13.2.2: If-Match is evaluated first.
func TestConditions_IfMatchIsEvaluatedBeforeIfNoneMatch(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		old := strongETag(t, a.sendConfig(t, "PUT", "acme", configOn, nil))
		current := strongETag(t, a.sendConfig(t, "PUT", "acme", configOff, nil))
		for _, c := range []struct {
			ifMatch, ifNoneMatch string
			get, change          int
			says                 string
		}{
			{old, current, 412, 412, "If-Match"},
			{old, old, 412, 412, "If-Match"},
			{current, current, 304, 412, "If-None-Match"},
			{current, old, 200, 200, ""},
			{"*", "*", 304, 412, "If-None-Match"},
			{"W/" + current, "", 412, 412, "If-Match"}, // If-Match compares strongly
			{"x", "*", 400, 400, "If-Match"},
			{"*", "x", 400, 400, "If-None-Match"},
		} {
			headers := map[string]string{"If-Match": c.ifMatch}
			if c.ifNoneMatch != "" {
				headers["If-None-Match"] = c.ifNoneMatch
			}
			for method, status := range map[string]int{"GET": c.get, "PUT": c.change, "PATCH": c.change} {
				got := a.sendConfig(t, method, "acme", configOff, headers)
				if status >= 400 {
					wantError(t, got, status, c.says)
				} else if got.status != status {
					t.Errorf("%s %v: %d, want %d", method, headers, got.status, status)
				}
			}
		}
		// An invalid request is refused whatever its conditions are.
		wantError(t, a.do(t, request{method: "GET", path: configPath("acme"), query: "x=1", headers: map[string]string{"If-None-Match": current}}), http.StatusBadRequest, "x")
		wantError(t, a.sendConfig(t, "PUT", "acme", "x", map[string]string{"If-None-Match": "*"}), http.StatusBadRequest, "JSON")
	})
}

// The stored form differs from the body; Content-Location says that the ETag is that of the
// response.
func TestChangeOfTheConfig_ETagIsOfTheResponse(t *testing.T) {
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
		got := a.getConfigIf(t, "acme", map[string]string{"If-None-Match": lost})
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

func TestUnsupportedMediaType_NamesWhatIsAccepted(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		for _, c := range []struct{ method, path, body, patch string }{
			{"PATCH", configPath("acme"), "{}", "application/json, application/merge-patch+json"},
			{"PUT", configPath("acme"), "{}", ""},
			{"POST", validatePath("acme"), `[{"records": {"cpu": 1}}]`, ""},
		} {
			send := func(headers map[string]string) answer {
				return a.do(t, request{method: c.method, path: c.path, body: c.body, headers: headers})
			}
			for _, contentType := range []string{"text/plain", "application/json-patch+json", "application/json; charset=latin1", "nonsense;;"} {
				got := send(map[string]string{"Content-Type": contentType})
				wantError(t, got, http.StatusUnsupportedMediaType, "Content-Type", "application/json")
				if has := got.headers.Get("Accept-Patch"); has != c.patch || got.headers.Get("Accept-Encoding") != "" {
					t.Errorf("%s of %s: Accept-Patch is %q, Accept-Encoding %q", c.method, contentType, has, got.headers.Get("Accept-Encoding"))
				}
			}
			for _, coding := range []string{"gzip", "br", "identity, gzip", "x"} {
				got := send(map[string]string{"Content-Type": "application/json", "Content-Encoding": coding})
				wantError(t, got, http.StatusUnsupportedMediaType, "Content-Encoding")
				if has := got.headers.Get("Accept-Encoding"); has != "identity" || got.headers.Get("Accept-Patch") != "" {
					t.Errorf("%s of %s: Accept-Encoding is %q, Accept-Patch %q", c.method, coding, has, got.headers.Get("Accept-Patch"))
				}
			}
			want(t, send(map[string]string{"Content-Type": "application/json", "Content-Encoding": "Identity"}), http.StatusOK)
		}
	})
}
