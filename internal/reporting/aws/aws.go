// Package aws reports usage to AWS Marketplace by BatchMeterUsage of its metering service.
//
// It makes the call by hand: no SDK module that can be downloaded has both QuantityAsDecimal and
// LicenseArn (decision 50). Source of the protocol: the API model of meteringmarketplace 2016-01-14
// and the seller guide's "Metering for usage".
//
// AWS has no read-back: after a lost response only a resend shows what happened.
package aws

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

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

// Fit returns how many of the first records fit in one request.
func (m *Marketplace) Fit(records []reporting.Record) int { return reporting.Fit(records, &limits) }

// Send calls BatchMeterUsage in the records' Region.
func (m *Marketplace) Send(ctx context.Context, records []reporting.Record) reporting.Response {
	call := reporting.Begin(records, &limits)
	if len(call.Sent) == 0 {
		return reporting.Response{Results: call.Results()}
	}
	ctx, cancel := m.client.Bound(ctx)
	defer cancel()

	body := Body(call.Sent)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, m.endpoint(region(&call.Sent[0])), bytes.NewReader(body))
	if err != nil {
		return call.NotSent(reporting.Misconfigured, "the endpoint is no URL")
	}
	request.Header.Set("Content-Type", contentType)
	request.Header.Set("X-Amz-Target", target)
	credentials, err := m.options.Credentials.Retrieve(ctx)
	if err != nil {
		return call.NotSent(reporting.CredentialsRefused, "no AWS credentials: "+err.Error())
	}
	secrets := []string{credentials.SecretAccessKey, credentials.SessionToken}
	digest := sha256.Sum256(body)
	if err := v4.NewSigner().SignHTTP(ctx, credentials, request, hex.EncodeToString(digest[:]), signingName,
		region(&call.Sent[0]), m.options.Now()); err != nil {
		return call.NotSent(reporting.CredentialsRefused, "the request can't be signed: "+exchange.RedactText(err.Error(), secrets...))
	}
	reply := m.client.Do(request)
	if !reply.Sent {
		return call.NotSent(reporting.Unreachable, "AWS can't be reached: "+exchange.RedactText(reply.Err.Error(), secrets...))
	}
	reply.Body = exchange.Redact(reply.Body, secrets...)
	response := reporting.Response{
		Request: body, Response: reply.Body, Status: reply.Status,
		RequestID: reply.Header.Get("X-Amzn-Requestid"), RetryAfter: reply.RetryAfter(m.options.Now()),
	}
	switch name, reason := readException(reply.Body, reply.Header.Get("X-Amzn-Errortype")); {
	case reply.Err != nil:
		call.Rest(reporting.Result{Reason: "AWS's response is missing or incomplete: " + exchange.RedactText(reply.Err.Error(), secrets...)})
	case reply.Status == http.StatusOK:
		readResults(call, reply.Body)
		call.Rest(reporting.Result{Reason: "AWS's response does not name the record"})
	case reply.Status >= 400 && reply.Status < 500 && exceptions[name] != reporting.Rule{}:
		call.Whole(exceptions[name], reason, &response)
	default:
		call.Rest(reporting.Result{Reason: fmt.Sprintf("AWS's response is status %d, %s", reply.Status, reason)})
	}
	response.Results = call.Results()
	return response
}

func (m *Marketplace) endpoint(region string) string {
	if m.options.Sandbox != "" {
		return m.options.Sandbox + "/aws/"
	}
	return "https://metering.marketplace." + region + ".amazonaws.com/"
}
