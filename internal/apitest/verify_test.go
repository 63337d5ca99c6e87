package apitest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/awscall"
	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/programtest"
	"github.com/marketmeter/marketmeter/internal/reporting/connect"
	marketplaces "github.com/marketmeter/marketmeter/internal/reporting/exchange"
	rt "github.com/marketmeter/marketmeter/internal/reporting/reportingtest"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
	"github.com/marketmeter/marketmeter/sandbox"
)

// Secrets that no response, log line or item may have.
const (
	plantedKey     = "planted-own-secret"
	plantedSession = "planted-own-session"
	plantedWrong   = "planted-wrong-client-secret"
)

// secretsOf is a store of secrets by their ARN.
type secretsOf map[string]string

func (s secretsOf) Secret(_ context.Context, arn string) (string, error) {
	if secret, ok := s[arn]; ok {
		return secret, nil
	}
	return "", errors.New("Secrets Manager: status 400, ResourceNotFoundException: Secrets Manager can't find the specified secret.")
}

func secretNamed(name string) string {
	return "arn:aws:secretsmanager:us-east-1:123456789012:secret:marketmeter/acme/" + name
}

func account(audience, email string) doc {
	return externalAccount(doc{
		"audience": audience, "service_account_impersonation_url": "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/" + email + ":generateAccessToken",
	})
}

// verifying is an API beside a sandbox.
type verifying struct {
	*api
	box       *rt.Box
	secrets   []string // what must be found nowhere
	meanwhile func()   // runs before a verification
}

// eachVerifying runs test for each way in which the API can stand beside a sandbox. Afterwards, no
// secret may be in the log or in the table.
func eachVerifying(t *testing.T, test func(t *testing.T, a *verifying)) {
	t.Parallel()
	for _, way := range []string{"http", "lambda"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			b := rt.Start(t, sandbox.Options{})
			b.Change(func(c *sandbox.Catalog) {
				c.AWS.Sellers = []sandbox.AWSSeller{{AccountID: "123456789012", AccessKeyIDs: []string{"AKIDOWN"}}}
			})
			key, wrongKey := rt.Key(rt.Robot), rt.Key("nobody@seller.iam.gserviceaccount.com")
			connector := connect.New(connect.Options{
				Credentials: awssdk.CredentialsProviderFunc(func(context.Context) (awssdk.Credentials, error) {
					return awssdk.Credentials{AccessKeyID: "AKIDOWN", SecretAccessKey: plantedKey, SessionToken: plantedSession}, nil
				}),
				Region: "us-east-1", SandboxURL: b.URL, Now: b.Now,
				Secrets: secretsOf{
					secretNamed("azure-AbCdEf"): rt.ClientSecret, secretNamed("wrong-AbCdEf"): plantedWrong,
					secretNamed("gcp-AbCdEf"): key, secretNamed("nobody-AbCdEf"): wrongKey,
				},
			})
			a := &verifying{box: b, secrets: []string{
				plantedKey, plantedSession, plantedWrong, rt.ClientSecret, strings.Split(key, `\n`)[1], // of both keys
			}}
			a.api = newAPIOver(t, way, tabletest.Watched(t), func(api *httpapi.API) {
				api.SandboxURL = b.URL
				api.Verify = func(ctx context.Context, org metering.OrgID, c metering.Connection) error {
					if a.meanwhile != nil {
						a.meanwhile()
					}
					return connector.Verify(ctx, org, c)
				}
			})
			test(t, a)
			items, err := itemsIn(t.Context(), a.client, a.tableName)
			if err != nil {
				t.Fatal(err)
			}
			a.wantNoSecret(t, "the table", fmt.Sprint(items))
			a.wantNoSecret(t, "the log", a.log.String())
		})
	}
}

func (a *verifying) wantNoSecret(t *testing.T, where, text string) {
	t.Helper()
	requests, err := a.box.Requests()
	if err != nil {
		t.Fatal(err)
	}
	secrets := a.secrets
	for _, r := range requests { // the tokens
		if r.Response == nil { // it was lost
			continue
		}
		for _, name := range []string{`"access_token":"`, `"accessToken":"`} {
			if _, rest, found := strings.Cut(string(r.Response.Body), name); found {
				token, _, _ := strings.Cut(rest, `"`)
				secrets = append(secrets, token)
			}
		}
	}
	for _, secret := range secrets {
		if strings.Contains(text, secret) {
			t.Errorf("%s has the secret %s: %s", where, secret, text)
		}
	}
}

func (a *verifying) put(t *testing.T, partner, query string, body doc, headers ...map[string]string) answer {
	t.Helper()
	r := request{method: "PUT", path: connectionPath("acme", partner), query: query, body: toJSON(t, body), headers: map[string]string{"Content-Type": "application/json"}}
	for _, h := range headers {
		maps.Copy(r.headers, h)
	}
	got := a.do(t, r)
	a.wantNoSecret(t, "the response", got.body)
	return got
}

func (a *verifying) calls(t *testing.T) int {
	t.Helper()
	requests, err := a.box.Requests()
	if err != nil {
		t.Fatal(err)
	}
	return len(requests)
}

// The response to wrong credentials has the marketplace's own error, and nothing is stored. Without
// verify the same connections are stored.
func TestVerify_WrongCredentialsAre422(t *testing.T) {
	eachVerifying(t, func(t *testing.T, a *verifying) {
		azure := func(members ...doc) doc {
			ours := doc{"endpoint": a.box.URL, "tenantID": rt.Tenant, "clientID": rt.Application, "secretArn": secretNamed("azure-AbCdEf")}
			return azureConnection(append([]doc{ours}, members...)...)
		}
		google := func(name string, value any) doc { return doc{"endpoint": a.box.URL, name: value} }
		for _, c := range []struct {
			partner string
			body    doc
			says    string // empty: it is verified
		}{
			{"AZURE", azure(doc{"tenantID": someGUID}), "AADSTS90002"},
			{"AZURE", azure(doc{"clientID": someGUID}), "AADSTS700016"},
			{"AZURE", azure(doc{"secretArn": secretNamed("wrong-AbCdEf")}), "AADSTS7000215: the client secret is wrong"},
			{"AZURE", azure(doc{"secretArn": secretNamed("none-AbCdEf")}), "ResourceNotFoundException"},
			{"AZURE", azure(), ""},
			{"GCP", google("secretArn", secretNamed("nobody-AbCdEf")), "invalid_grant: Invalid grant: account not found"},
			{"GCP", google("secretArn", secretNamed("azure-AbCdEf")), "no key of a service account"},
			{"GCP", google("secretArn", secretNamed("none-AbCdEf")), "ResourceNotFoundException"},
			{"GCP", google("workloadIdentity", account(rt.Audience+"x", rt.Robot)), "invalid_target"},
			{"GCP", google("workloadIdentity", account(rt.Audience, "nobody@x")), "PERMISSION_DENIED: Permission 'iam.serviceAccounts.getAccessToken' denied"},
			{"GCP", google("workloadIdentity", account(rt.Audience, rt.Robot)), ""},
			{"GCP", google("secretArn", secretNamed("gcp-AbCdEf")), ""},
			{"AWS", doc{"endpoint": a.box.URL}, ""},
			{"AWS", doc{"endpoint": a.box.URL, "roleArn": someRole}, ""},
		} {
			before := a.get(t, connectionPath("acme", c.partner), "")
			got := a.put(t, c.partner, "verify=true", c.body)
			if c.says == "" {
				want(t, got, http.StatusOK)
				if read := a.get(t, connectionPath("acme", c.partner), ""); read.body != got.body || strongETag(t, read) != strongETag(t, got) {
					t.Errorf("GET returns %s, PUT returned %s", read.body, got.body)
				}
				continue
			}
			wantError(t, got, http.StatusUnprocessableEntity, c.says)
			if after := a.get(t, connectionPath("acme", c.partner), ""); after.status != before.status || after.body != before.body {
				t.Errorf("%s %s: %s before, %s after", c.partner, c.body, before.body, after.body)
			}
			for _, query := range []string{"verify=false", ""} {
				calls := a.calls(t)
				want(t, a.put(t, c.partner, query, c.body), http.StatusOK)
				if a.calls(t) != calls {
					t.Errorf("%q: the marketplace was called", query)
				}
			}
		}
		a.box.Change(func(c *sandbox.Catalog) { c.AWS.Sellers[0].AccessKeyIDs[0] = "AKIDOTHER" })
		wantError(t, a.put(t, "AWS", "verify=true", doc{"endpoint": a.box.URL}), http.StatusUnprocessableEntity, "UnrecognizedClientException")
		if billed := a.box.Billed(); billed != "" {
			t.Errorf("billed: %s", billed)
		}
	})
}

// If the marketplace can't say whether the credentials are right, nothing is stored, and the client
// may repeat the request.
func TestVerify_UnavailableMarketplaceIs503(t *testing.T) {
	eachVerifying(t, func(t *testing.T, a *verifying) {
		for _, c := range []struct {
			partner     string
			marketplace sandbox.Marketplace
			operation   string
			body        doc
		}{
			{"AWS", sandbox.AWS, "BatchMeterUsage", doc{}},
			{"AZURE", sandbox.Azure, "token", doc{"tenantID": rt.Tenant, "clientID": rt.Application, "secretArn": secretNamed("azure-AbCdEf")}},
			{"GCP", sandbox.Google, "check", doc{"secretArn": secretNamed("gcp-AbCdEf")}},
		} {
			c.body["endpoint"] = a.box.URL
			for _, fault := range []string{sandbox.Throttled, sandbox.ServerError, sandbox.Lost} {
				a.box.Fault(sandbox.Fault{Marketplace: c.marketplace, Operation: c.operation, Fault: fault})
				got := a.put(t, c.partner, "verify=true", c.body)
				wantError(t, got, http.StatusServiceUnavailable, "could not be verified now")
				if got.headers.Get("Retry-After") == "" {
					t.Errorf("%s, %s: no Retry-After", c.partner, fault)
				}
				want(t, a.get(t, connectionPath("acme", c.partner), ""), http.StatusNotFound)
			}
			want(t, a.put(t, c.partner, "verify=true", c.body), http.StatusOK)
		}
	})
}

// What is refused anyway is not verified: the marketplace is not called.
func TestVerify_IsAfterAllOtherChecks(t *testing.T) {
	eachVerifying(t, func(t *testing.T, a *verifying) {
		good := doc{"endpoint": a.box.URL}
		for _, value := range []string{"TRUE", "1", "yes", "%20true", "true%20", "null"} {
			wantError(t, a.put(t, "AWS", "verify="+value, good), http.StatusBadRequest, "verify", `"true", "false"`)
		}
		wantError(t, a.put(t, "AWS", "verify=true&verify=true", good), http.StatusBadRequest, "verify")
		wantError(t, a.put(t, "AWS", "verify=true", doc{"endpoint": "http://planted.example"}), http.StatusBadRequest, "endpoint")
		wantError(t, a.put(t, "AWS", "verify=true", doc{"endpoint": a.box.URL, "roleArn": "x"}), http.StatusBadRequest, "roleArn")
		wantError(t, a.put(t, "AWS", "verify=true", doc{"endpoint": a.box.URL, "externalID": "x"}), http.StatusBadRequest, "externalID")
		wantError(t, a.put(t, "AZURE", "verify=true", doc{"secretArn": strings.Replace(secretNamed("azure-AbCdEf"), "/acme/", "/other/", 1)}), http.StatusBadRequest, "marketmeter/acme/")
		wantError(t, a.put(t, "AWS", "verify=true", good, map[string]string{"If-Match": `"never"`}), http.StatusPreconditionFailed)
		stored := a.put(t, "AWS", "verify=false", good)
		wantError(t, a.put(t, "AWS", "verify=true", good, map[string]string{"If-None-Match": "*"}), http.StatusPreconditionFailed)
		if n := a.calls(t); n != 0 {
			t.Errorf("%d calls of the marketplace", n)
		}
		again := a.put(t, "AWS", "verify=true", good, map[string]string{"If-Match": strongETag(t, stored)})
		if want(t, again, http.StatusOK); strongETag(t, again) != strongETag(t, stored) {
			t.Error("a verification changes the ETag")
		}
		if n := a.calls(t); n != 1 {
			t.Errorf("%d calls of the marketplace", n)
		}
	})
}

// A change between the verification and the write is one of the writes that conditions are for.
func TestVerify_ChangeMeanwhileIsSeenByTheConditions(t *testing.T) {
	eachVerifying(t, func(t *testing.T, a *verifying) {
		first := a.put(t, "AWS", "", doc{"endpoint": a.box.URL})
		old := map[string]string{"If-Match": strongETag(t, first)}
		a.meanwhile = func() { want(t, a.put(t, "AWS", "", doc{"endpoint": a.box.URL, "lockMinutes": 5}), http.StatusOK) }
		wantError(t, a.put(t, "AWS", "verify=true", doc{"endpoint": a.box.URL, "lockMinutes": 6}, old), http.StatusPreconditionFailed, "If-Match")
		last := a.put(t, "AWS", "verify=true", doc{"endpoint": a.box.URL, "lockMinutes": 7})
		want(t, last, http.StatusOK)
		if read := a.get(t, connectionPath("acme", "AWS"), ""); read.body != last.body {
			t.Errorf("stored: %s", read.body)
		}
	})
}

// A stored connection that this version can't read is verified and replaced.
func TestVerify_ReplacesAConnectionOfANewerVersion(t *testing.T) {
	eachVerifying(t, func(t *testing.T, a *verifying) {
		a.putItem(t, map[string]types.AttributeValue{
			"PK": text("ORG#acme"), "SK": text("CONNECTION#AWS"), "connection": text(`{"partner":"AWS","lockMinutes":"long","roleArn":["r"]}`),
		})
		got := a.put(t, "AWS", "verify=true", doc{"endpoint": a.box.URL})
		want(t, got, http.StatusOK)
		if n := a.calls(t); n != 1 {
			t.Errorf("%d calls of the marketplace", n)
		}
	})
}

// With moto's server for STS and Secrets Manager: the connection is verified with the externalID of
// the service.
func TestVerify_AssumesTheRoleWithTheServicesExternalID(t *testing.T) {
	t.Parallel()
	moto := programtest.Moto(t)
	b := rt.Start(t, sandbox.Options{})
	own := awssdk.CredentialsProviderFunc(func(context.Context) (awssdk.Credentials, error) {
		return awssdk.Credentials{AccessKeyID: "AKIDOWN", SecretAccessKey: plantedKey}, nil
	})
	wire := &recorded{}
	connector := connect.New(connect.Options{
		Credentials: own, Region: "us-east-1", STSEndpoint: moto, SandboxURL: b.URL, Transport: wire, Now: time.Now,
		Secrets: &awscall.Secrets{Client: &awscall.Client{Credentials: own, HTTP: marketplaces.NewClient(nil, 0), Now: time.Now}, Endpoint: moto},
	})
	a := newAPIOver(t, "lambda", tabletest.Watched(t), func(api *httpapi.API) { api.SandboxURL, api.Verify = b.URL, connector.Verify })
	got := a.do(t, request{
		method: "PUT", path: connectionPath("acme", "AWS"), query: "verify=true", body: toJSON(t, doc{"endpoint": b.URL, "roleArn": someRole}),
		headers: map[string]string{"Content-Type": "application/json"},
	})
	want(t, got, http.StatusOK)
	externalID := parse(t, got.body).(doc)["externalID"].(string)
	if externalID != externalIDOf("acme") || !strings.Contains(wire.forms, "ExternalId="+externalID) {
		t.Errorf("the externalID is %s, STS got %s", externalID, wire.forms)
	}
	got = a.do(t, request{
		method: "PUT", path: connectionPath("acme", "AZURE"), query: "verify=true", headers: map[string]string{"Content-Type": "application/json"},
		body: toJSON(t, doc{"endpoint": b.URL, "tenantID": rt.Tenant, "clientID": rt.Application, "secretArn": secretNamed("none-AbCdEf")}),
	})
	wantError(t, got, http.StatusUnprocessableEntity, "ResourceNotFoundException")
}

// recorded is a transport that keeps the forms that were sent.
type recorded struct{ forms string }

func (r *recorded) RoundTrip(request *http.Request) (*http.Response, error) {
	if body, err := request.GetBody(); err == nil && strings.HasPrefix(request.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
		text, err := io.ReadAll(body)
		if err != nil {
			return nil, err
		}
		r.forms += string(text) + "\n"
	}
	return http.DefaultTransport.RoundTrip(request)
}
