// Package aws reports usage to AWS Marketplace by BatchMeterUsage of its metering service.
//
// It makes the call by hand: no SDK module that can be downloaded has both QuantityAsDecimal and
// LicenseArn (decision 50). Source of the protocol: the API model of meteringmarketplace 2016-01-14
// and the seller guide's "Metering for usage".
//
// AWS has no read-back: after a lost response only a resend shows what happened.
package aws

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"

	"github.com/marketmeter/marketmeter/internal/awscall"
	"github.com/marketmeter/marketmeter/internal/reporting"
	"github.com/marketmeter/marketmeter/internal/reporting/exchange"
)

const (
	target      = "AWSMPMeteringService.BatchMeterUsage"
	contentType = "application/x-amz-json-1.1"
	// signingName is the service of the signature: it is not the name of the host.
	signingName = "aws-marketplace"
)

// Options configure a Marketplace.
type Options struct {
	Credentials awssdk.CredentialsProvider
	Sandbox     string            // the URL of a sandbox to use instead of AWS, or empty
	Transport   http.RoundTripper // nil is the default one
	Timeout     time.Duration     // of a call; 0 is exchange.Timeout
	Now         func() time.Time
}

// Marketplace is AWS Marketplace for one connection.
type Marketplace struct {
	options Options
	client  *exchange.Client
}

// New returns the marketplace.
func New(options Options) *Marketplace {
	return &Marketplace{options, exchange.NewClient(options.Transport, options.Timeout)}
}

// Body returns the request with the records, as Send sends it.
func (m *Marketplace) Body(records []reporting.Record) []byte { return Body(records) }

// Fit returns how many of the first records fit in one request.
func (m *Marketplace) Fit(records []reporting.Record) int { return reporting.Fit(records, &limits) }

// Send calls BatchMeterUsage in the records' Region.
func (m *Marketplace) Send(ctx context.Context, records []reporting.Record) reporting.Response {
	call := reporting.Begin(records, &limits)
	if len(call.Sent) == 0 {
		return reporting.Response{Results: call.Results()}
	}
	body := Body(call.Sent)
	reply, err := m.do(ctx, region(&call.Sent[0]), body)
	if err != nil {
		return call.NotSent(faultOf(err), err.Error())
	}
	response := reporting.Response{
		Request: body, Response: reply.Body, Status: reply.Status,
		RequestID: reply.Header.Get("X-Amzn-Requestid"), RetryAfter: reply.RetryAfter(m.options.Now()),
	}
	switch name, reason := awscall.ReadException(reply.Body, reply.Header.Get("X-Amzn-Errortype")); {
	case reply.Err != nil:
		call.Rest(reporting.Result{Reason: "AWS's response is missing or incomplete: " + reply.Err.Error()})
	case reply.Status == http.StatusOK:
		readResults(call, reply.Body)
		call.Rest(reporting.Result{Reason: "AWS's response does not name the record"})
	case reply.Status >= 400 && reply.Status < 500 && exceptions[name] != reporting.Rule{}:
		call.Whole(exceptions[name], reason, &response)
	default:
		call.Rest(reporting.Result{Reason: fmt.Sprintf("AWS's response is status %d, %s", reply.Status, reason)})
	}
	if response.Lane == reporting.CredentialsRefused {
		drop(m.options.Credentials)
	}
	response.Results = call.Results()
	return response
}

// do calls BatchMeterUsage. An error means that nothing was sent.
func (m *Marketplace) do(ctx context.Context, region string, body []byte) (exchange.Reply, error) {
	client := awscall.Client{Credentials: m.options.Credentials, HTTP: m.client, Now: m.options.Now}
	return client.Do(ctx, &awscall.Call{
		URL: m.endpoint(region), Service: signingName, Region: region, ContentType: contentType, Target: target, Body: body,
	})
}

// faultOf returns the fault of the lane for an error of do.
func faultOf(err error) reporting.LaneFault {
	if errors.Is(err, awscall.ErrCredentials) && !errors.Is(err, errUnreachable) {
		return reporting.CredentialsRefused
	}
	return reporting.Unreachable
}

func (m *Marketplace) endpoint(region string) string {
	if m.options.Sandbox != "" {
		return m.options.Sandbox + "/aws/"
	}
	return "https://metering.marketplace." + region + ".amazonaws.com/"
}
