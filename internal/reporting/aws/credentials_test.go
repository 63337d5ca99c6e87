package aws

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/reporting"
	"github.com/marketmeter/marketmeter/internal/reporting/exchange"
	rt "github.com/marketmeter/marketmeter/internal/reporting/reportingtest"
	"github.com/marketmeter/marketmeter/sandbox"
)

// securityTokens stands for AWS STS. It has the seller's condition on the external id.
func securityTokens(t *testing.T, externalID string, calls *int) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*calls++
		w.Header().Set("Content-Type", "text/xml")
		if r.FormValue("Action") != "AssumeRole" || r.FormValue("RoleArn") != "arn:aws:iam::999988887777:role/meter" || r.FormValue("ExternalId") != externalID ||
			!strings.Contains(r.Header.Get("Authorization"), "AKIDOWN/") {
			w.WriteHeader(http.StatusForbidden)
			_, _ = w.Write([]byte(`<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>not authorized</Message></Error></ErrorResponse>`))
			return
		}
		_, _ = w.Write([]byte(`<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>` +
			`<AccessKeyId>AKIDROLE</AccessKeyId><SecretAccessKey>planted-secret</SecretAccessKey><SessionToken>planted-session</SessionToken>` +
			`<Expiration>2999-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>`))
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func TestAssumeRole_SendsTheExternalID(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	b.Change(func(c *sandbox.Catalog) {
		c.AWS.Sellers = []sandbox.AWSSeller{{AccountID: "999988887777", AccessKeyIDs: []string{"AKIDROLE"}}}
	})
	calls := 0
	role := Role{ARN: "arn:aws:iam::999988887777:role/meter", ExternalID: "org-acme", Region: "us-east-1", Now: b.Now, Endpoint: securityTokens(t, "org-acme", &calls)}
	m := of(b, nil)
	m.options.Credentials = AssumeRole(static("AKIDOWN", "own", ""), role)
	for range 2 {
		got := m.Send(context.Background(), records(rt.AWS("d0", "1")))
		want(t, "verdicts", rt.Verdicts(got), "billed done")
		if strings.Contains(rt.Everything(got), "planted") {
			t.Error("the response has a secret")
		}
	}
	if calls != 1 {
		t.Errorf("the role was assumed %d times", calls)
	}

	role.ExternalID = "org-other"
	m.options.Credentials = AssumeRole(static("AKIDOWN", "own", ""), role)
	got := m.Send(context.Background(), records(rt.AWS("d1", "1")))
	if got.Lane != reporting.CredentialsRefused || rt.Verdicts(got) != "refused wait for the lane" || !strings.Contains(got.LaneReason, "AccessDenied") {
		t.Errorf("%+v", got)
	}
}

// STS that does not respond has refused nothing: the role is assumed again later.
func TestAssumeRole_SilentSTSIsUnreachable(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	ended := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-ended }))
	t.Cleanup(silent.Close)
	t.Cleanup(func() { close(ended) })
	for _, timeout := range []time.Duration{time.Minute, 50 * time.Millisecond} { // the role's; the call has 100 ms
		m := of(b, nil)
		m.options.Credentials = AssumeRole(static("AKIDOWN", "own", ""), Role{ARN: "arn", Region: "us-east-1", Now: b.Now, Endpoint: silent.URL, Timeout: timeout})
		m.client = exchange.NewClient(nil, 100*time.Millisecond)
		got := m.Send(context.Background(), records(rt.AWS("d0", "1")))
		if got.Lane != reporting.Unreachable || rt.Verdicts(got) != "refused wait for the lane" || !strings.Contains(got.LaneReason, "no response within") {
			t.Errorf("%v: %+v", timeout, got)
		}
		fault, _ := errors.AsType[*reporting.Fault](m.Verify(context.Background()))
		if fault == nil || fault.Lane != reporting.Unreachable {
			t.Errorf("%v: %+v", timeout, fault)
		}
	}
}

// Credentials of a role that AWS refuses, such as those of a session that was revoked, are not held
// until their end.
func TestAssumeRole_RefusedCredentialsAreDropped(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	seller := func(key string) {
		b.Change(func(c *sandbox.Catalog) {
			c.AWS.Sellers = []sandbox.AWSSeller{{AccountID: "999988887777", AccessKeyIDs: []string{key}}}
		})
	}
	calls := 0
	role := Role{ARN: "arn:aws:iam::999988887777:role/meter", Region: "us-east-1", Now: b.Now, Endpoint: securityTokens(t, "", &calls)}
	m := of(b, nil)
	m.options.Credentials = AssumeRole(static("AKIDOWN", "own", ""), role)
	for i, step := range []struct {
		key, want string
		calls     int
	}{
		{"AKIDNEW", "refused wait for the lane", 1},
		{"AKIDROLE", "billed done", 2},
		{"AKIDROLE", "billed done", 2},
	} {
		seller(step.key)
		want(t, fmt.Sprint("step ", i), rt.Verdicts(m.Send(context.Background(), records(rt.AWS("d0", "1")))), step.want)
		if calls != step.calls {
			t.Errorf("step %d: the role was assumed %d times", i, calls)
		}
	}
}

func TestAssumeRole_FailuresHoldNoSecret(t *testing.T) {
	for _, c := range []struct {
		name, body string
		status     int
		reason     string
	}{
		{"refused", "<ErrorResponse><Error><Code>SignatureDoesNotMatch</Code><Message>x-amz-security-token:planted-session</Message></Error></ErrorResponse>", 403, "SignatureDoesNotMatch"},
		{"cut", "<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>AKID", 200, "no credentials"},
		{"empty", "", 200, "no credentials"},
		{"HTML", "<html><body>planted-session</body></html>", 200, "no credentials"},
		{"incomplete", "<R><AssumeRoleResult><Credentials><AccessKeyId>A</AccessKeyId><SecretAccessKey>planted</SecretAccessKey></Credentials></AssumeRoleResult></R>", 200, "no credentials"},
		{"fails", "<html>", 503, "status 503"},
	} {
		p := AssumeRole(static("AKIDOWN", "planted-key", "planted-session"), Role{
			ARN: "arn", Region: "us-east-1", Endpoint: "http://sts.example", Now: time.Now, Transport: &rt.Canned{Status: c.status, Body: c.body},
		})
		_, err := p.Retrieve(context.Background())
		if err == nil || !strings.Contains(err.Error(), c.reason) || strings.Contains(err.Error(), "planted") {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	p := AssumeRole(static("AKIDOWN", "planted-key", "planted-session"), Role{ARN: "arn", Region: "us-east-1", Endpoint: "http://127.0.0.1:1", Now: time.Now})
	if _, err := p.Retrieve(context.Background()); err == nil || strings.Contains(err.Error(), "planted") {
		t.Error(err)
	}
}
