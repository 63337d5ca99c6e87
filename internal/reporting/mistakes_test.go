package reporting_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"

	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/reporting"
	"github.com/marketmeter/marketmeter/internal/reporting/aws"
	"github.com/marketmeter/marketmeter/internal/reporting/azure"
	rt "github.com/marketmeter/marketmeter/internal/reporting/reportingtest"
	"github.com/marketmeter/marketmeter/sandbox"
)

// What other reporters get wrong, as far as a marketplace's adapter can get it wrong.

func onAWS(b *rt.Box) reporting.Marketplace {
	return aws.New(aws.Options{Credentials: awssdk.CredentialsProviderFunc(func(context.Context) (awssdk.Credentials, error) {
		return awssdk.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "secret"}, nil
	}), Sandbox: b.URL, Now: b.Now})
}

type secrets func() (string, error)

func (s secrets) Secret(context.Context, string) (string, error) { return s() }

func onAzure(b *rt.Box, s secrets) reporting.Marketplace {
	return azure.New(azure.Options{TenantID: rt.Tenant, ClientID: rt.Application, Secrets: s, Sandbox: b.URL, Now: b.Now})
}

func clientSecret() (string, error) { return rt.ClientSecret, nil }

func send(m reporting.Marketplace, records ...reporting.Record) reporting.Response {
	return m.Send(context.Background(), records)
}

func want(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// aws-samples' serverless SaaS: after a lost response the record gets another hour and is billed
// again.
func TestMistakes_NewTimestampOnEachAttempt(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	b.Fault(sandbox.Fault{Fault: sandbox.Lost})
	want(t, "first", rt.Verdicts(send(onAWS(b), rt.AWS("d0", "7"))), "in doubt resend")
	b.Set(rt.Now.Add(90 * time.Minute))
	want(t, "second", rt.Verdicts(send(onAWS(b), rt.AWS("d0", "7"))), "billed done")
	want(t, "billed", b.Billed(), "d0=7")
}

// aws-samples' serverless SaaS: what is in UnprocessedRecords is never sent again.
func TestMistakes_UnprocessedRecordsIgnored(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	b.Fault(sandbox.Fault{Fault: sandbox.Unprocessed, Records: []int{1}})
	want(t, "first", rt.Verdicts(send(onAWS(b), rt.AWS("d0", "1"), rt.AWS("d1", "2"))), "billed done, refused resend")
	want(t, "second", rt.Verdicts(send(onAWS(b), rt.AWS("d1", "2"))), "billed done")
	want(t, "billed", b.Billed(), "d0=1 d1=2")
}

// Flexprice PR 2255, Red Hat rhsm-subscriptions PR 6496: every record in Results counts as
// reported.
func TestMistakes_ResultsWithoutReadingStatus(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	b.Change(func(c *sandbox.Catalog) { c.AWS.Customers[0].Suspended = true })
	want(t, "verdicts", rt.Verdicts(send(onAWS(b), rt.AWS("d0", "1"))), "refused hourly")
	want(t, "billed", b.Billed(), "")
}

// metered-billing-accelerator: any duplicate counts as accepted. Flexprice: it is repeated until it
// is too old. Either way the difference is lost.
func TestMistakes_AnyDuplicateTakenAsSuccess(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	m := onAzure(b, clientSecret)
	send(m, rt.Azure("d0", "5"))
	got := send(m, rt.Azure("d0", "7"))
	want(t, "azure", rt.Verdicts(got), "duplicate done")
	if a := got.Results[0].Accepted; a == nil || a.Equal || a.Quantity != "5" {
		t.Errorf("accepted: %+v", a)
	}
	send(onAWS(b), rt.AWS("d0", "5"))
	got = send(onAWS(b), rt.AWS("d0", "7"))
	want(t, "aws", rt.Verdicts(got), "duplicate done")
	if got.Results[0].Accepted != nil {
		t.Error("AWS does not report what it has accepted")
	}
}

// rhsm-subscriptions: a response of 400 or 409 counts as success.
func TestMistakes_Azure400And409CountedAsSuccess(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	for status, verdict := range map[int]string{400: "refused done", 409: "in doubt resend"} {
		m := azure.New(azure.Options{
			TenantID: rt.Tenant, ClientID: rt.Application, Secrets: secrets(clientSecret), Sandbox: b.URL, Now: b.Now,
			Transport: &rt.Canned{Path: "/api/", Status: status, Body: `{"code":"Conflict","message":"no"}`},
		})
		want(t, fmt.Sprint(status), rt.Verdicts(send(m, rt.Azure("d0", "1"))), verdict)
	}
}

// metered-billing-accelerator: what is refused for good is sent again for ever.
func TestMistakes_RejectedEventsResentForever(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	want(t, "azure", rt.Verdicts(send(onAzure(b, clientSecret), rt.Azure("none", "1"))), "refused done")
	want(t, "aws", rt.Verdicts(send(onAWS(b), rt.AWS("none", "1"))), "refused done")
}

// SaaS-Accelerator issue 469: one failed run stops the meter for good.
func TestMistakes_OneFailedRunStopsTheMeter(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	secret, err := "", errors.New("the vault is away")
	m := onAzure(b, func() (string, error) { return secret, err })
	want(t, "first", rt.Verdicts(send(m, rt.Azure("d0", "1"))), "refused wait for the lane")
	secret, err = "wrong", nil
	want(t, "second", rt.Verdicts(send(m, rt.Azure("d0", "1"))), "refused wait for the lane")
	secret = rt.ClientSecret
	want(t, "third", rt.Verdicts(send(m, rt.Azure("d0", "1"))), "billed done")
}

// One record of the batch fails all 25: only bisecting finds it.
func TestMistakes_All25RefusedBecauseOfOne(t *testing.T) {
	for name, spoil := range map[string]func(*reporting.Record){
		"dimension": func(r *reporting.Record) { r.Dimension = "none" },
		"licence":   func(r *reporting.Record) { r.IDs.LicenseARN = rt.Licence + "0" },
	} {
		t.Run(name, func(t *testing.T) {
			b := rt.Start(t, sandbox.Options{})
			var batch []reporting.Record
			for i := range 25 {
				batch = append(batch, rt.AWS(fmt.Sprintf("d%d", i), "1"))
			}
			spoil(&batch[17])
			m := onAWS(b)
			var rejected []string
			var bisect func([]reporting.Record)
			bisect = func(part []reporting.Record) {
				got := m.Send(context.Background(), part)
				for i, r := range got.Results {
					if r.Next == reporting.Bisect {
						bisect(part[:len(part)/2])
						bisect(part[len(part)/2:])
						return
					}
					if r.Verdict == reports.Refused && r.Next == reporting.Done {
						rejected = append(rejected, part[i].Dimension)
					}
				}
			}
			bisect(batch)
			want(t, "rejected", strings.Join(rejected, " "), batch[17].Dimension)
			if n := len(strings.Fields(b.Billed())); n != 24 {
				t.Errorf("%d are billed: %s", n, b.Billed())
			}
			if n := len(b.Calls("BatchMeterUsage")); n > 11 {
				t.Errorf("%d calls", n)
			}
		})
	}
}

// rhsm-subscriptions PR 6539: ProductCode is sent with LicenseArn.
func TestMistakes_ProductCodeSentWithLicenseArn(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	got := send(onAWS(b), rt.AWS("d0", "1"))
	want(t, "verdicts", rt.Verdicts(got), "billed done")
	if strings.Contains(string(got.Request), "ProductCode") {
		t.Errorf("the request is %s", got.Request)
	}
}
