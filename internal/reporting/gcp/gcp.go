// Package gcp reports usage to Google Cloud Marketplace by check and report of Service Control v1.
//
// It makes the two calls by hand: Google's client library is hundreds of megabytes and brings gRPC
// (decision 50). Sources: the Service Control v1 reference; the Cloud Marketplace partner guides
// "Configuring usage reports" and "Best practices for reporting usage".
//
// Google has no read-back. An operation that is in doubt is sent again with the same operationId,
// by which Google finds duplicates.
package gcp

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"

	"github.com/marketmeter/marketmeter/internal/reporting"
	"github.com/marketmeter/marketmeter/internal/reporting/exchange"
)

// Options configure a Marketplace. It needs WorkloadIdentity with Credentials and Region, or
// SecretARN with Secrets.
type Options struct {
	// WorkloadIdentity is the configuration of an external account: by it AWS credentials are
	// exchanged for Google's, without a stored key.
	WorkloadIdentity map[string]any
	Credentials      awssdk.CredentialsProvider
	Region           string // of AWS

	// SecretARN names the key of a service account, as Google exports it.
	SecretARN string
	Secrets   reporting.Secrets

	Sandbox   string            // the URL of a sandbox to use instead of Google, or empty
	Transport http.RoundTripper // nil is the default one
	Timeout   time.Duration     // of a Send or Verify in all; 0 is exchange.Timeout
	Now       func() time.Time
}

// Marketplace is Google Cloud Marketplace for one connection.
type Marketplace struct {
	options Options
	client  *exchange.Client
	tokens  exchange.Tokens

	mu     sync.Mutex
	checks map[consumer]checked
}

// New returns the marketplace.
func New(options Options) *Marketplace {
	m := &Marketplace{options: options, client: exchange.NewClient(options.Transport, options.Timeout), checks: map[consumer]checked{}}
	m.tokens = exchange.Tokens{Fetch: m.fetchToken, Now: options.Now}
	return m
}

// Body returns the request with the records, as Send sends it.
func (m *Marketplace) Body(records []reporting.Record) []byte { return Body(records) }

// Fit returns how many of the first records fit in one request.
func (m *Marketplace) Fit(records []reporting.Record) int { return reporting.Fit(records, &limits) }

// Send checks the consumers whose last check is too old, and reports the records of those that can
// be billed. All of it, fetching a token too, ends within the timeout.
func (m *Marketplace) Send(ctx context.Context, records []reporting.Record) reporting.Response {
	call := reporting.Begin(records, &limits)
	if len(call.Sent) == 0 {
		return reporting.Response{Results: call.Results()}
	}
	ctx, cancel := m.client.Bound(ctx)
	defer cancel()

	service := call.Sent[0].IDs.ServiceName
	if stop := m.check(ctx, service, call.Sent); stop != nil {
		var response reporting.Response
		call.Whole(stop.rule, stop.reason, &response)
		response.Results, response.RetryAfter = call.Results(), stop.retryAfter
		return response
	}
	var active []reporting.Record
	for i := range call.Sent {
		r := &call.Sent[i]
		if last := m.lastCheck(service, r.IDs.UsageReportingID); last.reason != "" {
			call.SayAt(i, last.rule.Result("not sent: check reports "+last.reason))
		} else {
			active = append(active, *r)
		}
	}
	if len(active) == 0 {
		return reporting.Response{Results: call.Results()}
	}
	body := Body(active)
	reply, err := m.do(ctx, service, "report", body)
	if err != nil {
		return call.NotSent(faultOf(err), err.Error())
	}
	response := reporting.Response{Request: body, Response: reply.Body, Status: reply.Status, RetryAfter: reply.RetryAfter(m.options.Now())}
	name, reason := readError(reply.Body)
	rule, refused := refusals[name]
	switch {
	case reply.Err != nil:
		call.Rest(reporting.Result{Reason: "Google's response is missing or incomplete: " + reply.Err.Error()})
	case reply.Status == http.StatusOK:
		readResults(call, reply.Body)
	case reply.Status >= 400 && reply.Status < 500 && refused:
		call.Whole(rule, reason, &response)
	default:
		call.Rest(reporting.Result{Reason: fmt.Sprintf("Google's response is status %d, %s", reply.Status, reason)})
	}
	response.Results = call.Results()
	return response
}

// do calls a method of Service Control. An error means that nothing was sent.
func (m *Marketplace) do(ctx context.Context, service, method string, body []byte) (exchange.Reply, error) {
	build := func() (*http.Request, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost,
			m.endpoint("https://servicecontrol.googleapis.com")+"/v1/services/"+url.PathEscape(service)+":"+method, bytes.NewReader(body))
		if err == nil {
			request.Header.Set("Content-Type", "application/json")
		}
		return request, err
	}
	return m.tokens.Do(ctx, m.client, "the Service Control API", build, func(body []byte) bool {
		name, _ := readError(body)
		return name != ""
	})
}

func (m *Marketplace) endpoint(host string) string {
	if m.options.Sandbox != "" {
		return m.options.Sandbox + "/gcp"
	}
	return host
}
