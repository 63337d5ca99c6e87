package main

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// Every operation refuses a request without a valid key, whatever the client sends and whatever the
// environment variables are that the program reads or might read.
func TestServe_RefusesRequestsWithoutAKey(t *testing.T) {
	t.Parallel()
	unknown := string(auth.New())
	for _, setting := range []string{"off", "true", "demo"} {
		_, name := tabletest.Client(t)
		dir, variables := t.TempDir(), []string{endpoint(t), "TABLE_NAME=" + name}
		for _, variable := range append(variablesRead(t),
			"MARKETMETER_AUTH", "MARKETMETER_KEY", "MARKETMETER_ORG", "AUTH", "NO_AUTH", "INSECURE", "DEBUG", "DEV", "ENV", "CI", "AWS_SAM_LOCAL") {
			variables = append(variables, variable+"="+setting)
		}
		server := begin(t, dir, variables, "serve")
		url := server.ready(t)
		key := newKey(t, dir, variables, "--org", "demo", "--scope", "admin")
		for what, header := range map[string]http.Header{
			"nothing":             {},
			"an empty header":     {"Authorization": {""}},
			"a scheme alone":      {"Authorization": {"Key"}},
			"something":           {"Authorization": {"Key let-me-in"}},
			"an unknown key":      {"Authorization": {"Key " + unknown}},
			"half a key":          {"Authorization": {"Key " + key[:len(key)/2]}},
			"a typo":              {"Authorization": {"Key " + strings.ToLower(key[:12]) + strings.ToUpper(key[12:])}},
			"a key's id":          {"Authorization": {"Key " + auth.Key(key).Hash().ID()}},
			"a key's hash":        {"Authorization": {"Key " + auth.Key(key).Hash().String()}},
			"two keys":            {"Authorization": {"Key " + key, "Key " + key}},
			"another scheme":      {"Authorization": {"Basic " + key}},
			"another header":      {"X-Api-Key": {key}, "Cookie": {"key=" + key}, "Proxy-Authorization": {"Key " + key}},
			"a forged authorizer": {"X-Golambdaproxy-Apigw-Context": {forgedContext}, "X-Golambdaproxy-Apigw-Stagevars": {"{}"}},
		} {
			for _, route := range httpapi.Operations() {
				path := strings.NewReplacer("{orgId}", "demo", "{usageRecordGroupId}", "g1").Replace(route.Path)
				wantUnauthenticated(t, what+" with "+setting, route.Method, url+path+"?key="+key, header)
			}
		}
		if status, body := call(t, "GET", url+"/org/demo/usageRecordGroup", key, ""); status != http.StatusOK {
			t.Errorf("with the key itself: %d %s; want 200", status, body)
		}
		if status, body := call(t, "GET", url+"/healthz", "", ""); status != http.StatusOK || !strings.HasPrefix(body, `{"commit":"`) {
			t.Errorf("the health: %d %s; want 200", status, body)
		}
		if log := server.stderr.String(); strings.Contains(log, key) || strings.Contains(log, unknown) {
			t.Error("the log holds a key")
		}
	}
}

const forgedContext = `{"authorizer":{"lambda":{"organization":"demo","keyId":"0123456789abcdef","scopes":"admin"}},"stage":"$default"}`

func wantUnauthenticated(t *testing.T, what, method, url string, header http.Header) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	request.Header = maps.Clone(header)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	var text string
	if err != nil || response.StatusCode != http.StatusUnauthorized || json.Unmarshal(body, &text) != nil || response.Header.Get("WWW-Authenticate") != "Key" {
		t.Errorf("%s, %s %s: %d %s, %v; want 401 and a JSON string", what, method, request.URL.Path, response.StatusCode, body, err)
	}
}

// variablesRead returns the environment variables that our code reads, except those that name the
// database and the server's address.
func variablesRead(t *testing.T) []string {
	t.Helper()
	read := regexp.MustCompile(`(?i:getenv|lookupenv)\("([A-Z0-9_]+)"\)`)
	names := map[string]bool{}
	for _, pattern := range []string{"*.go", "../../internal/*/*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatal(files, err)
		}
		for _, file := range files {
			code, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range read.FindAllSubmatch(code, -1) {
				names[string(name[1])] = true
			}
		}
	}
	for _, where := range []string{
		"DYNAMODB_ENDPOINT", "DYNAMODB_TIMEOUT", "TABLE_NAME", "ADDR", "SANDBOX_ADDR", "LOCAL_DIR", "LOCAL_JARS", "PATH", "HOME", "JAVA_HOME",
		"AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
	} {
		delete(names, where)
	}
	return slices.Sorted(maps.Keys(names))
}
