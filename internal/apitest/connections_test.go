package apitest

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

func connectionsPath(org string) string { return "/org/" + url.PathEscape(org) + "/connection" }

func connectionPath(org, partner string) string { return connectionsPath(org) + "/" + partner }

const (
	someRole   = "arn:aws:iam::123456789012:role/marketmeter"
	someSecret = "arn:aws:secretsmanager:us-east-1:123456789012:secret:marketmeter/acme/azure-AbCdEf"
)

func (a *api) putConnection(t testing.TB, org, partner string, body doc, headers ...map[string]string) answer {
	t.Helper()
	return a.sendObject(t, "PUT", connectionPath(org, partner), toJSON(t, body), headers...)
}

func azureConnection(members ...doc) doc {
	c := doc{"tenantID": someGUID, "clientID": someGUID, "secretArn": someSecret}
	for _, m := range members {
		maps.Copy(c, m)
	}
	return c
}

// externalAccount is the JSON that gcloud makes for AWS. A member is replaced, or removed if it is
// nil; a name with a dot is one of credential_source.
func externalAccount(members ...doc) doc {
	source := doc{
		"environment_id": "aws1", "region_url": "http://169.254.169.254/latest/meta-data/placement/availability-zone",
		"url":                            "http://169.254.169.254/latest/meta-data/iam/security-credentials",
		"regional_cred_verification_url": "https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15",
		"imdsv2_session_token_url":       "http://169.254.169.254/latest/api/token",
	}
	account := doc{
		"type": "external_account", "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/aws",
		"subject_token_type":                "urn:ietf:params:aws:token-type:aws4_request",
		"token_url":                         "https://sts.googleapis.com/v1/token",
		"service_account_impersonation_url": "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/m@p.iam.gserviceaccount.com:generateAccessToken",
		"credential_source":                 source,
	}
	for _, m := range members {
		for name, value := range m {
			in := account
			if _, member, nested := strings.Cut(name, "."); nested {
				in, name = source, member
			}
			if in[name] = value; value == nil {
				delete(in, name)
			}
		}
	}
	return account
}

func TestConnection_PutIsReadBackWithDefaults(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		for _, c := range []struct {
			partner        string
			body, expected doc
		}{
			{"AWS", doc{"roleArn": someRole}, doc{"roleArn": someRole, "lateUsage": "FAIL", "lockMinutes": 60}},
			{"AZURE", azureConnection(doc{"lateUsage": "CARRY", "lockMinutes": 720, "partner": "AZURE"}), azureConnection(doc{"lateUsage": "CARRY", "lockMinutes": 720})},
			{"GCP", doc{"workloadIdentity": externalAccount()}, doc{"workloadIdentity": externalAccount(), "lateUsage": "FAIL", "lockMinutes": 10}},
			{"GCP", doc{"secretArn": someSecret, "lockMinutes": 0}, doc{"secretArn": someSecret, "lateUsage": "FAIL", "lockMinutes": 0}},
		} {
			put := a.putConnection(t, "acme", c.partner, c.body)
			want(t, put, http.StatusOK)
			got := parse(t, put.body).(doc)
			if id, _ := got["externalID"].(string); (c.partner == "AWS") != (len(id) > 20) {
				t.Errorf("%s: the externalID is %q", c.partner, id)
			}
			delete(got, "externalID")
			c.expected["partner"] = c.partner
			wantSame(t, parse(t, toJSON(t, c.expected)), any(got))
			read := a.get(t, connectionPath("acme", c.partner), "")
			if read.body != put.body || strongETag(t, read) != strongETag(t, put) {
				t.Errorf("GET returns %s, PUT returned %s", read.body, put.body)
			}
			again := a.sendObject(t, "PUT", connectionPath("acme", c.partner), read.body) // what GET returns is accepted
			if want(t, again, http.StatusOK); again.body != put.body {
				t.Errorf("%s after %s", again.body, put.body)
			}
		}
		list := a.get(t, connectionsPath("acme"), "")
		var partners []any
		for _, c := range parse(t, list.body).([]any) {
			partners = append(partners, c.(doc)["partner"])
		}
		wantSame(t, []any{"AWS", "AZURE", "GCP"}, partners)
		if none := a.get(t, connectionsPath("other"), ""); none.body != "[]" {
			t.Errorf("the list of an organization without connections is %s", none.body)
		}
		wantError(t, a.get(t, connectionPath("other", "AWS"), ""), http.StatusNotFound, "AWS")
	})
}

func TestConnection_AbsentMembersStayAbsentInTheTable(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		want(t, a.putConnection(t, "acme", "GCP", doc{"secretArn": someSecret, "lateUsage": nil}), http.StatusOK)
		items, err := itemsIn(t.Context(), a.client, a.tableName)
		if err != nil {
			t.Fatal(err)
		}
		stored, _ := items[`"ORG#acme" "CONNECTION#GCP"`]["connection"].(string)
		if stored != `{"partner":"GCP","secretArn":"`+someSecret+`"}` {
			t.Errorf("stored: %s", stored)
		}
	})
}

// The service makes the externalID, names the organization by it and keeps it.
func TestConnection_ExternalIDIsTheServices(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		externalID := func(org string, body doc) any {
			t.Helper()
			got := a.putConnection(t, org, "AWS", body)
			want(t, got, http.StatusOK)
			return parse(t, got.body).(doc)["externalID"]
		}
		first := externalID("acme", doc{"roleArn": someRole})
		if other := externalID("other", doc{"roleArn": someRole}); other == first {
			t.Errorf("two organizations have the externalID %v", other)
		}
		if second := externalID("acme", doc{"roleArn": someRole + "2", "lockMinutes": 5}); second != first {
			t.Errorf("the externalID was %v and is %v", first, second)
		}
		if same := externalID("acme", doc{"roleArn": someRole, "externalID": first}); same != first {
			t.Errorf("the externalID was %v and is %v", first, same)
		}
		for _, org := range []string{"acme", "other", "new"} {
			got := a.putConnection(t, org, "AWS", doc{"roleArn": someRole, "externalID": "chosen by a client"})
			wantError(t, got, http.StatusBadRequest, "externalID")
		}
	})
}

// Nothing of what a client sends in the wrong place is returned or logged: it may be a secret.
func TestConnection_RefusedValuesAreNotQuoted(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		const secret = "S3cretS3cretS3cret"
		for _, c := range []struct {
			partner string
			body    string
			says    string
		}{
			{"AWS", `{"roleArn": "` + secret + `"}`, "roleArn"},
			{"AWS", `{"roleArn": "arn:aws:iam::123456789012:user/` + secret + `"}`, "roleArn"},
			{"AWS", `{"externalID": "` + secret + `", "roleArn": "` + someRole + `"}`, "externalID"},
			{"AWS", `{"secretArn": "` + secret + `"}`, "secretArn is not a member"},
			{"AWS", `{"workloadIdentity": {"a": "` + secret + `"}}`, "workloadIdentity is not a member"},
			{"AWS", `{"lockMinutes": "` + secret + `"}`, "lockMinutes is a string"},
			{"AWS", `{"lateUsage": "` + secret + `"}`, "lateUsage"},
			{"AWS", `{"partner": "` + secret + `"}`, "partner"},
			{"AWS", `{"endpoint": "https://` + secret + `"}`, "endpoint"},
			{"AWS", `{"clientSecret": "` + secret + `"}`, "clientSecret is unknown"},
			{"AWS", `"` + secret + `"`, "a connection, an object"},
			{"AZURE", toJSON(t, azureConnection(doc{"tenantID": secret})), "tenantID"},
			{"AZURE", toJSON(t, azureConnection(doc{"clientID": secret})), "clientID"},
			{"AZURE", toJSON(t, azureConnection(doc{"secretArn": secret})), "marketmeter/acme/"},
			{"AZURE", toJSON(t, azureConnection(doc{"secretArn": strings.Replace(someSecret, "/acme/", "/other/", 1)})), "marketmeter/acme/"},
			{"AZURE", toJSON(t, azureConnection(doc{"secretArn": strings.Replace(someSecret, "azure-AbCdEf", "", 1)})), "marketmeter/acme/"},
			{"AZURE", toJSON(t, azureConnection(doc{"roleArn": someRole})), "roleArn is not a member"},
			{"GCP", `{"workloadIdentity": "` + secret + `"}`, "workloadIdentity"},
			{"GCP", toJSON(t, doc{"workloadIdentity": externalAccount(), "secretArn": someSecret}), "secretArn"},
		} {
			got := a.sendObject(t, "PUT", connectionPath("acme", c.partner), c.body)
			if message := wantError(t, got, http.StatusBadRequest, c.says); strings.Contains(message, secret) || t.Failed() {
				t.Fatalf("%s: %s", c.body, message)
			}
		}
		for _, credentials := range []struct {
			partner, missing string
			body             doc
		}{
			{"AWS", "roleArn is missing", doc{}},
			{"AZURE", "tenantID, clientID and secretArn", azureConnection(doc{"clientID": nil})},
			{"AZURE", "tenantID, clientID and secretArn", doc{"secretArn": someSecret}},
			{"GCP", "workloadIdentity or secretArn", doc{}},
		} {
			wantError(t, a.putConnection(t, "acme", credentials.partner, credentials.body), http.StatusBadRequest, credentials.missing)
		}
		if log := a.log.String(); strings.Contains(log, secret) {
			t.Errorf("the log holds what was refused: %s", log)
		}
	})
}

func TestConnection_WorkloadIdentityNamesGoogleAndAWSAlone(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		const token = "https://sts.googleapis.com/v1/token"
		for _, c := range []struct {
			account doc
			refused string // empty is 200
		}{
			{externalAccount(), ""},
			{externalAccount(doc{"credential_source.url": nil, "credential_source.region_url": nil, "credential_source.imdsv2_session_token_url": nil}), ""},
			{externalAccount(doc{"universe_domain": "googleapis.com", "token_info_url": "https://sts.googleapis.com/v1/introspect", "quota_project_id": "p-1"}), ""},
			{externalAccount(doc{"service_account_impersonation": doc{"token_lifetime_seconds": 3600}}), ""},
			{doc{}, "type is missing"},
			{externalAccount(doc{"credential_source": nil}), "credential_source.environment_id is missing"},
			{externalAccount(doc{"type": "service_account"}), "workloadIdentity.type"},
			{externalAccount(doc{"private_key": "x"}), "no file, executable or secret"},
			{externalAccount(doc{"client_secret": "x"}), "no file, executable or secret"},
			{externalAccount(doc{"token_url": "https://sts.googleapis.com.example.com/v1/token"}), "token_url"},
			{externalAccount(doc{"token_url": "https://example.com/sts.googleapis.com/"}), "token_url"},
			{externalAccount(doc{"token_url": "https://user@sts.googleapis.com/"}), "token_url"},
			{externalAccount(doc{"token_url": "https://sts.googleapis.com:8443/v1/token"}), "token_url"},
			{externalAccount(doc{"token_url": "https://sts.googleapis.com@example.com/"}), "token_url"},
			{externalAccount(doc{"token_url": "https://evilgoogleapis.com/v1/token"}), "token_url"},
			{externalAccount(doc{"token_url": "http://sts.googleapis.com/v1/token"}), "token_url"},
			{externalAccount(doc{"token_url": token + "\n"}), "token_url"},
			{externalAccount(doc{"token_url": token + "?x=y#z"}), "token_url"},
			{externalAccount(doc{"token_url": 5}), "not accepted"},
			{externalAccount(doc{"universe_domain": "example.com"}), "universe_domain"},
			// A connection that could never send is not stored.
			{externalAccount(doc{"service_account_impersonation_url": nil}), "service_account_impersonation_url is missing"},
			{externalAccount(doc{"service_account_impersonation_url": "https://example.com/"}), "service_account_impersonation_url"},
			{externalAccount(doc{"service_account_impersonation_url": "https://iamcredentials.googleapis.com/"}), "serviceAccounts/EMAIL:generateAccessToken"},
			{externalAccount(doc{"service_account_impersonation_url": "https://sts.googleapis.com/v1/projects/-/serviceAccounts/m@p.iam.gserviceaccount.com:generateAccessToken"}), "https://iamcredentials.googleapis.com/v1"},
			{externalAccount(doc{"service_account_impersonation_url": "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/m@p.iam.gserviceaccount.com:generateIdToken"}), ":generateAccessToken"},
			{externalAccount(doc{"credential_source.file": "/etc/passwd"}), "no file, executable or secret"},
			{externalAccount(doc{"credential_source.executable": doc{"command": "sh"}}), "no file, executable or secret"},
			{externalAccount(doc{"credential_source.environment_id": "aws2"}), "environment_id"},
			{externalAccount(doc{"credential_source.url": "http://169.254.169.254/latest/user-data"}), "credential_source.url"},
			{externalAccount(doc{"credential_source.region_url": "http://localhost/"}), "credential_source.region_url"},
			{externalAccount(doc{"credential_source.regional_cred_verification_url": "https://example.com"}), "regional_cred_verification_url"},
			{externalAccount(doc{"credential_source.headers": doc{"a": "b"}}), "not accepted"},
			{externalAccount(doc{"service_account_impersonation": doc{"token_lifetime_seconds": "x"}}), "not accepted"},
		} {
			got := a.putConnection(t, "acme", "GCP", doc{"workloadIdentity": c.account})
			if c.refused == "" {
				want(t, got, http.StatusOK)
			} else {
				wantError(t, got, http.StatusBadRequest, "workloadIdentity", c.refused)
			}
			if t.Failed() {
				t.Fatalf("%v", c.account)
			}
		}
	})
}

func TestConnection_LockMinutesHaveTheRangeOfThePartner(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		credentials := map[string]doc{"AWS": {"roleArn": someRole}, "AZURE": azureConnection(), "GCP": {"secretArn": someSecret}}
		for partner, most := range map[string]int{"AWS": 720, "AZURE": 720, "GCP": 50} {
			for minutes, status := range map[string]int{
				"0": 200, fmt.Sprint(most): 200, fmt.Sprint(most + 1): 400, "-1": 400, "1.5": 400, "1e1": 200, "null": 200, "2147483648": 400,
			} {
				body := strings.TrimSuffix(toJSON(t, credentials[partner]), "}") + `, "lockMinutes": ` + minutes + "}"
				got := a.sendObject(t, "PUT", connectionPath("acme", partner), body)
				if want(t, got, status); status != http.StatusOK {
					wantError(t, got, status, "lockMinutes")
				}
			}
		}
	})
}

// A connection has an endpoint only beside a sandbox, and the sandbox's own.
func TestConnection_EndpointIsTheSandboxsAlone(t *testing.T) {
	t.Parallel()
	const sandbox = "http://127.0.0.1:8090"
	a := newAPIOver(t, "http", tabletest.Watched(t), func(api *httpapi.API) { api.SandboxURL = sandbox })
	for _, partner := range []string{"AWS", "AZURE", "GCP"} { // without credentials: the sandbox needs none
		got := a.putConnection(t, "acme", partner, doc{"endpoint": sandbox})
		want(t, got, http.StatusOK)
		if c := parse(t, got.body).(doc); c["endpoint"] != sandbox {
			t.Errorf("%v", c)
		}
		for _, endpoint := range []string{sandbox + "/", "http://127.0.0.1:8091", "https://metering.marketplace.us-east-1.amazonaws.com", "http://127.0.0.1:8090@example.com"} {
			wantError(t, a.putConnection(t, "acme", partner, doc{"endpoint": endpoint}), http.StatusBadRequest, "endpoint", sandbox)
		}
	}
	deployed := newAPI(t, "lambda")
	wantError(t, deployed.putConnection(t, "acme", "AWS", doc{"roleArn": someRole, "endpoint": sandbox}), http.StatusBadRequest, "endpoint")
}

func TestConnection_OwnRoleIsForOrganizationsThatTheStackNames(t *testing.T) {
	t.Parallel()
	a := newAPIOver(t, "lambda", tabletest.Watched(t), func(api *httpapi.API) { api.OwnRoleOrganizations = []string{"seller", "acme "} })
	want(t, a.putConnection(t, "seller", "AWS", doc{}), http.StatusOK)
	for _, org := range []string{"acme", "Seller", "selle", "seller,acme"} {
		wantError(t, a.putConnection(t, org, "AWS", doc{}), http.StatusBadRequest, "roleArn is missing")
	}
}

func TestConnection_ConditionsAndDelete(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		path := connectionPath("acme", "AWS")
		first := a.putConnection(t, "acme", "AWS", doc{"roleArn": someRole}, map[string]string{"If-None-Match": "*"})
		want(t, first, http.StatusOK)
		old := map[string]string{"If-Match": strongETag(t, first)}
		same := a.putConnection(t, "acme", "AWS", doc{"roleArn": someRole}, old)
		if want(t, same, http.StatusOK); writes(same) != 0 || same.body != first.body {
			t.Errorf("the same content: %s, with %d writes", same.body, writes(same))
		}
		second := a.putConnection(t, "acme", "AWS", doc{"roleArn": someRole, "lockMinutes": 1}, old)
		want(t, second, http.StatusOK)
		for _, method := range []string{"GET", "DELETE"} {
			wantError(t, a.sendObject(t, method, path, "", old), http.StatusPreconditionFailed, "If-Match")
		}
		wantError(t, a.putConnection(t, "acme", "AWS", doc{"roleArn": someRole}, old), http.StatusPreconditionFailed, "If-Match")
		want(t, a.sendObject(t, "GET", path, "", map[string]string{"If-None-Match": strongETag(t, second)}), http.StatusNotModified)
		deleted := a.sendObject(t, "DELETE", path, "", map[string]string{"If-Match": strongETag(t, second)})
		if want(t, deleted, http.StatusOK); deleted.body != second.body {
			t.Errorf("DELETE returns %s", deleted.body)
		}
		for _, method := range []string{"GET", "DELETE"} {
			wantError(t, a.sendObject(t, method, path, ""), http.StatusNotFound, "AWS")
		}
		if list := a.get(t, connectionsPath("acme"), ""); list.body != "[]" {
			t.Errorf("the list is %s", list.body)
		}
	})
}

func TestConnection_RequestsAreStrict(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		role := toJSON(t, doc{"roleArn": someRole})
		put := func(partner, query string) answer {
			t.Helper()
			return a.do(t, request{method: "PUT", path: connectionPath("acme", partner), query: query, body: role})
		}
		if !a.isSAM() { // there, the marketplace itself would be called
			wantError(t, put("AWS", "verify=true"), http.StatusBadRequest, "verify=true is not available here")
		}
		wantError(t, put("AWS", "verify=x"), http.StatusBadRequest, "verify", `"true", "false"`)
		want(t, put("AWS", "verify=false"), http.StatusOK)
		wantError(t, put("AWS", "Verify=true"), http.StatusBadRequest, "Verify", "unknown")
		wantError(t, put("ORACLE", ""), http.StatusBadRequest, "ORACLE", "AZURE")
		wantError(t, put("aws", ""), http.StatusBadRequest, "aws")
		for _, method := range []string{"GET", "DELETE"} {
			wantError(t, a.sendObject(t, method, connectionPath("acme", "ORACLE"), ""), http.StatusNotFound, "ORACLE")
			wantError(t, a.do(t, request{method: method, path: connectionPath("acme", "AWS"), query: "verify=true"}), http.StatusBadRequest, "verify")
		}
		wantError(t, a.get(t, connectionsPath("acme"), "partner=AWS"), http.StatusBadRequest, "partner")
		wantError(t, a.sendObject(t, "PUT", connectionPath("acme", "AWS"), `{"endpoint": "`+strings.Repeat("x", 1<<20)+`"}`), http.StatusRequestEntityTooLarge, "1048576")
		want(t, put("AWS", "verify="), http.StatusOK)
	})
}

// A connection that a newer version has stored is returned as it is stored, with defaults.
func TestConnection_OfANewerVersionIsKept(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.putItem(t, map[string]types.AttributeValue{
			"PK": text("ORG#acme"), "SK": text("CONNECTION#AWS"),
			"connection": text(`{"partner":"AWS","future":{"a":1.50},"lateUsage":"LATER","lockMinutes":"long","roleArn":["r"]}`),
		})
		got, _, err := a.exchange(t.Context(), request{method: "GET", path: connectionPath("acme", "AWS")})
		if err != nil {
			t.Fatal(err)
		}
		want(t, got, http.StatusOK)
		const expected = `{"future":{"a":1.50},"lateUsage":"LATER","lockMinutes":"long","partner":"AWS","roleArn":["r"]}`
		if got.body != expected {
			t.Errorf("GET returns %s", got.body)
		}
		want(t, a.putConnection(t, "acme", "AWS", doc{"roleArn": someRole}), http.StatusOK)
	})
}
