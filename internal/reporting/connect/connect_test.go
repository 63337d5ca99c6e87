package connect

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"

	"github.com/marketmeter/marketmeter/internal/awscall"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/programtest"
	"github.com/marketmeter/marketmeter/internal/reporting"
	"github.com/marketmeter/marketmeter/internal/reporting/exchange"
	rt "github.com/marketmeter/marketmeter/internal/reporting/reportingtest"
	"github.com/marketmeter/marketmeter/sandbox"
)

const (
	org     = metering.OrgID("acme")
	roleARN = "arn:aws:iam::999988887777:role/marketmeter"
	azureID = "arn:aws:secretsmanager:us-east-1:111122223333:secret:marketmeter/acme/azure-AbCdEf"
	gcpID   = "arn:aws:secretsmanager:us-east-1:111122223333:secret:marketmeter/acme/gcp-AbCdEf"
)

// vault holds secrets in memory.
type vault map[string]string

func (v vault) Secret(_ context.Context, arn string) (string, error) {
	secret, ok := v[arn]
	if !ok {
		return "", errors.New("there is no secret " + arn)
	}
	return secret, nil
}

func own(key, secret, session string) awssdk.CredentialsProvider {
	return awssdk.CredentialsProviderFunc(func(context.Context) (awssdk.Credentials, error) {
		return awssdk.Credentials{AccessKeyID: key, SecretAccessKey: secret, SessionToken: session}, nil
	})
}

func externalAccount(email string) map[string]any {
	return map[string]any{"audience": rt.Audience, "service_account_impersonation_url": "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/" + email + ":generateAccessToken"}
}

// beside returns the options of a process beside the box.
func beside(b *rt.Box) Options {
	return Options{
		Credentials: own("AKIDOWN", "planted-own-secret", "planted-own-session"), Region: "us-east-1",
		Secrets: vault{
			azureID: rt.ClientSecret, gcpID: rt.Key(rt.Robot),
			SandboxSecret("AZURE", rt.Application): rt.ClientSecret, SandboxSecret("GCP", ""): rt.Key(rt.Robot),
		},
		SandboxURL: b.URL, Now: b.Now,
	}
}

// connections are connections to the box, and a record that each can send.
func connections(b *rt.Box) map[string]struct {
	metering.Connection
	record reporting.Record
} {
	type c = struct {
		metering.Connection
		record reporting.Record
	}
	return map[string]c{
		"AWS":                   {metering.Connection{Partner: "AWS", Endpoint: b.URL}, rt.AWS("d0", "1")},
		"AWS with a role":       {metering.Connection{Partner: "AWS", Endpoint: b.URL, RoleARN: roleARN}, rt.AWS("d1", "1")},
		"Azure":                 {metering.Connection{Partner: "AZURE", Endpoint: b.URL, TenantID: rt.Tenant, ClientID: rt.Application, SecretARN: azureID}, rt.Azure("d0", "1")},
		"Azure without secret":  {metering.Connection{Partner: "AZURE", Endpoint: b.URL, TenantID: rt.Tenant, ClientID: rt.Application}, rt.Azure("d1", "1")},
		"Google":                {metering.Connection{Partner: "GCP", Endpoint: b.URL, SecretARN: gcpID}, rt.Google("d0", "1")},
		"Google without secret": {metering.Connection{Partner: "GCP", Endpoint: b.URL}, rt.Google("d1", "1")},
		"Google by federation":  {metering.Connection{Partner: "GCP", Endpoint: b.URL, WorkloadIdentity: externalAccount(rt.Robot)}, rt.Google("d2", "1")},
	}
}

func TestMarketplace_SendsWithTheConnectionsCredentials(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	c := New(beside(b))
	for name, connection := range connections(b) {
		m, err := c.Marketplace(org, connection.Connection)
		if err != nil {
			t.Fatal(name, err)
		}
		if got := m.Send(t.Context(), []reporting.Record{connection.record}); rt.Verdicts(got) != "billed done" {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestMarketplace_OfTheSameConnectionIsTheSame(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	c := New(beside(b))
	made := map[reporting.Marketplace]string{}
	for name, connection := range connections(b) {
		m, err := c.Marketplace(org, connection.Connection)
		if err != nil || made[m] != "" {
			t.Errorf("%s: the one of %s, %v", name, made[m], err)
		}
		made[m] = name
		// What the credentials do not depend on changes nothing.
		minutes := 5
		connection.LockMinutes, connection.LateUsage = &minutes, metering.LateUsageCarried
		if again, _ := c.Marketplace(org, connection.Connection); again != m {
			t.Errorf("%s: not the same", name)
		}
		if other, _ := c.Marketplace("other", connection.Connection); other == m {
			t.Errorf("%s: two organizations have one", name)
		}
	}
	for _, change := range []func(*metering.Connection){
		func(c *metering.Connection) { c.RoleARN = roleARN },
		func(c *metering.Connection) { c.ExternalID = "x" },
		func(c *metering.Connection) { c.TenantID = rt.Tenant },
		func(c *metering.Connection) { c.ClientID = rt.Stranger },
		func(c *metering.Connection) { c.SecretARN = gcpID + "2" },
		func(c *metering.Connection) { c.WorkloadIdentity = externalAccount("other@x") },
		func(c *metering.Connection) { c.WorkloadIdentity = map[string]any{"audience": "x"} },
	} {
		connection := metering.Connection{Partner: "GCP", Endpoint: b.URL, SecretARN: gcpID}
		change(&connection)
		m, err := c.Marketplace(org, connection)
		if err != nil || made[m] != "" {
			t.Errorf("%+v: the one of %s, %v", connection, made[m], err)
		}
		made[m] = "a change"
	}
}

// A token is fetched once for all.
func TestMarketplace_IsSafeForConcurrentUse(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	c := New(beside(b))
	var group sync.WaitGroup
	for i := range 20 {
		group.Go(func() {
			m, err := c.Marketplace(org, metering.Connection{Partner: "AZURE", Endpoint: b.URL, TenantID: rt.Tenant, ClientID: rt.Application})
			if err != nil {
				t.Error(err)
				return
			}
			if got := m.Send(t.Context(), []reporting.Record{rt.Azure(fmt.Sprintf("d%d", i), "1")}); rt.Verdicts(got) != "billed done" {
				t.Errorf("%+v", got)
			}
		})
	}
	group.Wait()
	tokens := 0
	for _, r := range b.Calls("token") {
		if r.Marketplace == sandbox.Azure {
			tokens++
		}
	}
	if tokens != 1 {
		t.Errorf("%d tokens", tokens)
	}
}

func TestMarketplace_HoldsABoundedNumber(t *testing.T) {
	c := New(Options{Now: time.Now})
	first, _ := c.Marketplace("org-0", metering.Connection{Partner: "AZURE"})
	second, _ := c.Marketplace("org-1", metering.Connection{Partner: "AZURE"})
	for i := 2; i <= maxMarketplaces; i++ {
		// The first is used all the time.
		if again, err := c.Marketplace("org-0", metering.Connection{Partner: "AZURE"}); again != first || err != nil {
			t.Fatal(i, err)
		}
		if _, err := c.Marketplace(metering.OrgID(fmt.Sprintf("org-%d", i)), metering.Connection{Partner: "AZURE"}); err != nil {
			t.Fatal(err)
		}
	}
	if len(c.held) != maxMarketplaces {
		t.Errorf("%d are held", len(c.held))
	}
	if again, _ := c.Marketplace("org-1", metering.Connection{Partner: "AZURE"}); again == second {
		t.Error("the one that was used least recently is held")
	}
}

func TestMarketplace_RefusesWhatMustNotBeUsed(t *testing.T) {
	const box = "http://127.0.0.1:1"
	for _, c := range []struct {
		name       string
		options    Options
		org        metering.OrgID
		connection metering.Connection
		says       string // empty: it is used
	}{
		{"an endpoint in a deployed stack", Options{}, org, metering.Connection{Partner: "AWS", RoleARN: roleARN, Endpoint: box}, "endpoint"},
		{"another endpoint", Options{SandboxURL: box}, org, metering.Connection{Partner: "AZURE", Endpoint: box + "0"}, "endpoint"},
		{"another spelling of the endpoint", Options{SandboxURL: box}, org, metering.Connection{Partner: "GCP", Endpoint: box + "/"}, "endpoint"},
		{"the sandbox's endpoint", Options{SandboxURL: box}, org, metering.Connection{Partner: "GCP", Endpoint: box}, ""},
		{"AWS itself, on a developer's machine", Options{SandboxURL: box, SandboxOnly: true, OwnRoleOrganizations: []string{"acme"}}, org, metering.Connection{Partner: "AWS", RoleARN: roleARN}, "only connections to the sandbox"},
		{"Azure itself, on a developer's machine", Options{SandboxURL: box, SandboxOnly: true}, org, metering.Connection{Partner: "AZURE", SecretARN: azureID}, "only connections to the sandbox"},
		{"Google itself, on a developer's machine without a sandbox", Options{SandboxOnly: true}, org, metering.Connection{Partner: "GCP", SecretARN: gcpID}, "only connections to the sandbox"},
		{"the own role", Options{OwnRoleOrganizations: []string{"acme2", "acm"}}, org, metering.Connection{Partner: "AWS"}, "roleArn"},
		{"the own role for one that may", Options{OwnRoleOrganizations: []string{"acme2", "acme"}}, org, metering.Connection{Partner: "AWS"}, ""},
		{"the own role in the sandbox", Options{SandboxURL: box}, org, metering.Connection{Partner: "AWS", Endpoint: box}, ""},
		{"another partner", Options{}, org, metering.Connection{Partner: "STRIPE"}, "STRIPE"},
		{"no connection", Options{}, org, metering.Connection{}, "not reported"},
	} {
		c.options.Now = time.Now
		m, err := New(c.options).Marketplace(c.org, c.connection)
		if (c.says == "") != (err == nil) || (m == nil) != (err != nil) || err != nil && (!strings.Contains(err.Error(), c.says) || metering.CodeOf(err) != metering.Invalid) {
			t.Errorf("%s: %v", c.name, err)
		}
		if c.says != "" {
			if err := New(c.options).Verify(t.Context(), c.org, c.connection); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: Verify: %v", c.name, err)
			}
		}
	}
}

// securityTokens stands for STS. It knows one role, with a condition on the external id.
func securityTokens(t *testing.T, externalID string) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("RoleArn") != roleARN || r.FormValue("ExternalId") != externalID {
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprintf(w, "<ErrorResponse><Error><Code>AccessDenied</Code><Message>%s is not authorized, %s</Message></Error></ErrorResponse>",
				r.Header.Get("Authorization")[:30], r.Header.Get("X-Amz-Security-Token"))
			return
		}
		fmt.Fprint(w, `<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>AKIDROLE</AccessKeyId><SecretAccessKey>planted-role-secret</SecretAccessKey>`+
			`<SessionToken>planted-role-session</SessionToken><Expiration>2999-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>`)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// The role is assumed with the external id of the connection, and reports with its credentials.
func TestMarketplace_AssumesTheRoleWithItsExternalID(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	b.Change(func(c *sandbox.Catalog) {
		c.AWS.Sellers = []sandbox.AWSSeller{{AccountID: "999988887777", AccessKeyIDs: []string{"AKIDROLE"}}}
	})
	o := beside(b)
	o.STSEndpoint = securityTokens(t, "marketmeter-acme")
	c := New(o)
	connection := metering.Connection{Partner: "AWS", Endpoint: b.URL, RoleARN: roleARN, ExternalID: "marketmeter-acme"}
	if err := c.Verify(t.Context(), org, connection); err != nil {
		t.Error(err)
	}
	m, err := c.Marketplace(org, connection)
	if err != nil {
		t.Fatal(err)
	}
	if got := m.Send(t.Context(), []reporting.Record{rt.AWS("d0", "1")}); rt.Verdicts(got) != "billed done" {
		t.Errorf("%+v", got)
	}
	connection.ExternalID = "marketmeter-other"
	if err := c.Verify(t.Context(), org, connection); metering.CodeOf(err) != metering.Invalid || !strings.Contains(err.Error(), "AccessDenied") {
		t.Error(err)
	}
}

// Verify finds out what is wrong, by the words of the marketplace, and meters nothing.
func TestVerify_SaysWhatIsWrong(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	b.Change(func(c *sandbox.Catalog) {
		c.AWS.Sellers = []sandbox.AWSSeller{{AccountID: "999988887777", AccessKeyIDs: []string{"AKIDROLE"}}, {AccountID: "111122223333", AccessKeyIDs: []string{"AKIDOWN"}}}
	})
	c := func(partner metering.Partner, change func(*metering.Connection)) metering.Connection {
		connection := metering.Connection{Partner: partner, Endpoint: b.URL}
		change(&connection)
		return connection
	}
	azure := func(change func(*metering.Connection)) metering.Connection {
		return c("AZURE", func(c *metering.Connection) {
			c.TenantID, c.ClientID, c.SecretARN = rt.Tenant, rt.Application, azureID
			change(c)
		})
	}
	account := func(email, audience string) metering.Connection {
		return c("GCP", func(c *metering.Connection) {
			c.WorkloadIdentity = externalAccount(email)
			c.WorkloadIdentity["audience"] = audience
		})
	}
	nothing := func(*metering.Connection) {}
	for _, row := range []struct {
		name       string
		connection metering.Connection
		change     func(*Options)
		says       string // empty: it is verified
	}{
		{"AWS", c("AWS", nothing), nil, ""},
		{"AWS, unknown key", c("AWS", nothing), func(o *Options) { o.Credentials = own("AKIDNONE", "planted-x-secret", "planted-x-session") }, "UnrecognizedClientException"},
		{"AWS, no credentials", c("AWS", nothing), func(o *Options) {
			o.Credentials = awssdk.CredentialsProviderFunc(func(context.Context) (awssdk.Credentials, error) {
				return awssdk.Credentials{}, errors.New("no role")
			})
		}, "no role"},
		{"Azure", azure(nothing), nil, ""},
		{"Azure, tenant", azure(func(c *metering.Connection) { c.TenantID = rt.Resource }), nil, "AADSTS90002"},
		{"Azure, application", azure(func(c *metering.Connection) { c.ClientID = rt.Resource }), nil, "AADSTS700016"},
		{"Azure, secret", azure(nothing), func(o *Options) { o.Secrets = vault{azureID: "planted-wrong-secret"} }, "AADSTS7000215"},
		{"Azure, no secret", azure(func(c *metering.Connection) { c.SecretARN += "x" }), nil, "there is no secret"},
		{"Azure, application of no offer", azure(func(c *metering.Connection) { c.ClientID = rt.Stranger }), func(o *Options) {
			o.Secrets = vault{azureID: "other"}
			b.Change(func(c *sandbox.Catalog) {
				c.Azure.Offers = c.Azure.Offers[:1]
				c.Azure.Subscriptions = c.Azure.Subscriptions[:2]
			})
		}, "status 403, Forbidden: the application is in no offer's technical configuration"},
		{"Google, key", c("GCP", func(c *metering.Connection) { c.SecretARN = gcpID }), nil, ""},
		{"Google, account", c("GCP", func(c *metering.Connection) { c.SecretARN = gcpID }), func(o *Options) {
			o.Secrets = vault{gcpID: rt.Key("planted@x")}
		}, "status 400, invalid_grant: Invalid grant: account not found"},
		{"Google, no key", c("GCP", func(c *metering.Connection) { c.SecretARN = gcpID }), func(o *Options) {
			o.Secrets = vault{gcpID: "planted-no-key"}
		}, "no key of a service account"},
		{"Google, broken key", c("GCP", func(c *metering.Connection) { c.SecretARN = gcpID }), func(o *Options) {
			o.Secrets = vault{gcpID: `{"type":"service_account","client_email":"x","private_key":"-----BEGIN PRIVATE KEY-----\ncGxhbnRlZA==\n-----END PRIVATE KEY-----\n"}`}
		}, "can't be used"},
		{"Google, federation", account(rt.Robot, rt.Audience), nil, ""},
		{"Google, pool", account(rt.Robot, rt.Audience+"x"), nil, "status 400, invalid_target: The target service indicated"},
		{"Google, another account", account("other@seller.iam.gserviceaccount.com", rt.Audience), nil, "PERMISSION_DENIED: Permission 'iam.serviceAccounts.getAccessToken' denied"},
		{"Google, without impersonation", c("GCP", func(c *metering.Connection) { c.WorkloadIdentity = map[string]any{"audience": rt.Audience} }), nil, "service_account_impersonation_url"},
	} {
		o := beside(b)
		if row.change != nil {
			row.change(&o)
		}
		err := New(o).Verify(t.Context(), org, row.connection)
		switch {
		case row.says == "":
			if err != nil {
				t.Errorf("%s: %v", row.name, err)
			}
		case metering.CodeOf(err) != metering.Invalid || !strings.Contains(err.Error(), row.says) || strings.Contains(err.Error(), "planted"):
			t.Errorf("%s: %v", row.name, err)
		}
	}
	if billed := b.Billed(); billed != "" {
		t.Errorf("billed: %s", billed)
	}
	for _, operation := range []string{"report", "batchUsageEvent", "usageEvent"} {
		if n := len(b.Calls(operation)); n != 0 {
			t.Errorf("%d calls of %s", n, operation)
		}
	}
	for _, r := range b.Calls("BatchMeterUsage") {
		if string(r.Body) != `{"UsageRecords":[]}` {
			t.Errorf("%s", r.Body)
		}
	}
}

// A marketplace that can't say whether the credentials are right has not refused them.
func TestVerify_IsUnavailableIfTheMarketplaceIs(t *testing.T) {
	three := 3
	for _, c := range []struct {
		connection  string
		marketplace sandbox.Marketplace
		operation   string
	}{
		{"AWS", sandbox.AWS, "BatchMeterUsage"},
		{"Azure", sandbox.Azure, "token"},
		{"Azure", sandbox.Azure, "usageEvents"},
		{"Google", sandbox.Google, "check"},
		{"Google by federation", sandbox.Google, "exchangeToken"},
		{"Google by federation", sandbox.Google, "generateAccessToken"},
	} {
		for _, fault := range []string{sandbox.ServerError, sandbox.Throttled, sandbox.Lost, sandbox.Reset, sandbox.Malformed, sandbox.Cut} {
			if c.operation == "BatchMeterUsage" || c.operation == "usageEvents" || c.operation == "check" {
				// A success that is cut is one: the credentials were accepted.
				if fault == sandbox.Malformed {
					continue
				}
			}
			b := rt.Start(t, sandbox.Options{})
			b.Fault(sandbox.Fault{Marketplace: c.marketplace, Operation: c.operation, Fault: fault, Count: &three})
			o := beside(b)
			// (The transport repeats a GET whose connection broke.)
			err := New(o).Verify(t.Context(), org, connections(b)[c.connection].Connection)
			e, _ := errors.AsType[*metering.Error](err)
			if e == nil || e.Code != metering.Unavailable || e.RetryAfter < time.Second || strings.Contains(e.Error(), "planted") {
				t.Errorf("%s, %s at %s: %v", c.connection, fault, c.operation, err)
			}
		}
	}
	b := rt.Start(t, sandbox.Options{})
	o := beside(b)
	o.Secrets = awaySecrets{}
	for _, name := range []string{"Azure", "Google"} {
		if err := New(o).Verify(t.Context(), org, connections(b)[name].Connection); metering.CodeOf(err) != metering.Unavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, status := range []int{429, 500, 503} {
		o = beside(b)
		o.Transport = &rt.Canned{Path: "/token", Status: status, Body: `{"error":"temporarily_unavailable"}`}
		for _, name := range []string{"Azure", "Google", "Google by federation"} {
			if err := New(o).Verify(t.Context(), org, connections(b)[name].Connection); metering.CodeOf(err) != metering.Unavailable {
				t.Errorf("%s, status %d: %v", name, status, err)
			}
		}
	}
	o = beside(b)
	o.STSEndpoint = "http://127.0.0.1:1"
	if err := New(o).Verify(t.Context(), org, connections(b)["AWS with a role"].Connection); metering.CodeOf(err) != metering.Unavailable {
		t.Error(err)
	}
}

// silent is a network on which no response ever comes.
type silent struct{}

func (silent) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, context.Cause(r.Context())
}

func TestVerify_EndsWithItsContext(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	o := beside(b)
	o.Transport = silent{}
	for name, connection := range connections(b) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := New(o).Verify(ctx, org, connection.Connection); metering.CodeOf(err) != metering.Unavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
}

type awaySecrets struct{}

func (awaySecrets) Secret(context.Context, string) (string, error) {
	return "", fmt.Errorf("%w: status 500", reporting.ErrSecretUnavailable)
}

// Against moto's Secrets Manager and STS: a secret that was changed is read at once, and a role is
// assumed.
func TestVerify_ReadsAChangedSecret(t *testing.T) {
	moto := programtest.Moto(t)
	b := rt.Start(t, sandbox.Options{})
	aws := &awscall.Client{Credentials: own("AKIDOWN", "planted-own-secret", ""), HTTP: exchange.NewClient(nil, 0), Now: time.Now}
	call := func(operation string, in, out any) {
		t.Helper()
		if err := aws.JSON(t.Context(), awscall.Call{
			URL: moto, Service: "secretsmanager", Region: "us-east-1", ContentType: "application/x-amz-json-1.1", Target: "secretsmanager." + operation,
		}, in, out); err != nil {
			t.Fatal(err)
		}
	}
	var made struct{ ARN string }
	call("CreateSecret", map[string]string{"Name": "marketmeter/acme/azure", "SecretString": "planted-old-secret"}, &made)

	o := beside(b)
	o.Secrets, o.STSEndpoint = &awscall.Secrets{Client: aws, Endpoint: moto}, moto
	c := New(o)
	connection := metering.Connection{Partner: "AZURE", Endpoint: b.URL, TenantID: rt.Tenant, ClientID: rt.Application, SecretARN: made.ARN}
	if err := c.Verify(t.Context(), org, connection); metering.CodeOf(err) != metering.Invalid || !strings.Contains(err.Error(), "AADSTS7000215") {
		t.Error(err)
	}
	call("PutSecretValue", map[string]string{"SecretId": made.ARN, "SecretString": rt.ClientSecret}, &made)
	if err := c.Verify(t.Context(), org, connection); err != nil {
		t.Error(err)
	}
	connection.SecretARN += "x"
	if err := c.Verify(t.Context(), org, connection); metering.CodeOf(err) != metering.Invalid || !strings.Contains(err.Error(), "ResourceNotFoundException") {
		t.Error(err)
	}
	if err := c.Verify(t.Context(), org, connections(b)["AWS with a role"].Connection); err != nil {
		t.Error(err)
	}
}
