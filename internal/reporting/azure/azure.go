// Package azure reports usage to the Azure marketplace by batchUsageEvent of its metering service,
// and reads back by usageEvents what it has processed.
//
// No SDK for Go exists: it makes two calls and fetches a token. Source of the protocol:
// "Marketplace metering service APIs" and its FAQ, version 2018-08-31.
package azure

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/marketmeter/marketmeter/internal/reporting"
	"github.com/marketmeter/marketmeter/internal/reporting/exchange"
)

const (
	version = "api-version=2018-08-31"
	// scope is the metering service. Source: "Marketplace metering service authentication".
	scope = "20e940b3-4c77-4b0b-9a53-9e16a1b010a7/.default"
)

// Options configure a Marketplace.
type Options struct {
	TenantID  string
	ClientID  string // the application of the offer's technical configuration
	SecretARN string
	Secrets   reporting.Secrets
	Sandbox   string            // the URL of a sandbox to use instead of Azure, or empty
	Transport http.RoundTripper // nil is the default one
	Timeout   time.Duration     // of a call; 0 is exchange.Timeout, and daysTimeout of ReadBack
	Now       func() time.Time
}

// Marketplace is the Azure marketplace for one connection.
type Marketplace struct {
	options Options
	client  *exchange.Client
	tokens  exchange.Tokens
}

// New returns the marketplace.
func New(options Options) *Marketplace {
	m := &Marketplace{options: options, client: exchange.NewClient(options.Transport, options.Timeout)}
	m.tokens = exchange.Tokens{Fetch: m.fetchToken, Now: options.Now}
	return m
}

// Body returns the request with the records, as Send sends it.
func (m *Marketplace) Body(records []reporting.Record) []byte { return Body(records) }

// Fit returns how many of the first records fit in one request.
func (m *Marketplace) Fit(records []reporting.Record) int { return reporting.Fit(records, &limits) }

// Send calls batchUsageEvent.
func (m *Marketplace) Send(ctx context.Context, records []reporting.Record) reporting.Response {
	call := reporting.Begin(records, &limits)
	if len(call.Sent) == 0 {
		return reporting.Response{Results: call.Results()}
	}
	ctx, cancel := m.client.Bound(ctx)
	defer cancel()

	body := Body(call.Sent)
	reply, requestID, correlationID, err := m.do(ctx, m.client, http.MethodPost, "batchUsageEvent?"+version, body)
	if err != nil {
		return call.NotSent(faultOf(err), err.Error())
	}
	response := reporting.Response{
		Request: body, Response: reply.Body, Status: reply.Status, RequestID: requestID, CorrelationID: correlationID,
		RetryAfter: reply.RetryAfter(m.options.Now()),
	}
	rule, refused := refusals[reply.Status]
	reason, readable := readError(reply.Body)
	switch {
	case reply.Err != nil:
		call.Rest(reporting.Result{Reason: "Azure's response is missing or incomplete: " + reply.Err.Error()})
	case reply.Status == http.StatusOK:
		readResults(call, reply.Body)
		call.Rest(reporting.Result{Reason: "Azure's response does not name the record"})
	case refused && readable:
		call.Whole(rule, reason, &response)
	default:
		call.Rest(reporting.Result{Reason: fmt.Sprintf("Azure's response is status %d, %s", reply.Status, reason)})
	}
	response.Results = call.Results()
	return response
}

// do calls the metering service. An error means that nothing was sent.
func (m *Marketplace) do(ctx context.Context, client *exchange.Client, method, path string, body []byte) (reply exchange.Reply, requestID, correlationID string, err error) {
	requestID, correlationID = newGUID(), newGUID()
	build := func() (*http.Request, error) {
		request, err := http.NewRequestWithContext(ctx, method, m.endpoint("https://marketplaceapi.microsoft.com")+"/api/"+path, bytes.NewReader(body))
		if err == nil {
			request.Header.Set("Content-Type", "application/json")
			request.Header.Set("X-Ms-Requestid", requestID)
			request.Header.Set("X-Ms-Correlationid", correlationID)
		}
		return request, err
	}
	reply, err = m.tokens.Do(ctx, client, "the metering service of Azure", build, func(body []byte) bool {
		_, readable := readError(body)
		return readable
	})
	return reply, requestID, correlationID, err
}

func (m *Marketplace) endpoint(host string) string {
	if m.options.Sandbox != "" {
		return m.options.Sandbox + "/azure"
	}
	return host
}

// newGUID returns a random GUID: by it Microsoft's support finds a call.
func newGUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// errCredentials marks a connection whose credentials are missing or refused.
var errCredentials = errors.New("the credentials for Azure are refused")

// faultOf returns the fault of the lane for an error of do.
func faultOf(err error) reporting.LaneFault {
	if errors.Is(err, errCredentials) {
		return reporting.CredentialsRefused
	}
	return reporting.Unreachable
}

// fetchToken fetches a token by the client's credentials. Its errors hold no secret: those of the
// library repeat the response.
func (m *Marketplace) fetchToken(ctx context.Context) (exchange.Token, error) {
	secret, err := m.options.Secrets.Secret(ctx, m.options.SecretARN)
	if errors.Is(err, reporting.ErrSecretUnavailable) {
		return exchange.Token{}, fmt.Errorf("the client secret can't be read: %w", err)
	}
	if err != nil {
		return exchange.Token{}, fmt.Errorf("%w: the client secret can't be read: %w", errCredentials, err)
	}
	config := clientcredentials.Config{
		ClientID: m.options.ClientID, ClientSecret: secret, Scopes: []string{scope}, AuthStyle: oauth2.AuthStyleInParams,
		TokenURL: m.endpoint("https://login.microsoftonline.com") + "/" + url.PathEscape(m.options.TenantID) + "/oauth2/v2.0/token",
	}
	token, err := config.Token(context.WithValue(ctx, oauth2.HTTPClient, m.client.HTTP(ctx)))
	if refused, ok := errors.AsType[*oauth2.RetrieveError](err); ok && refused.Response.StatusCode/100 == 4 && refused.Response.StatusCode != http.StatusTooManyRequests && refused.ErrorCode != "" {
		text := exchange.RedactText(refused.ErrorCode+": "+refused.ErrorDescription, secret)
		return exchange.Token{}, fmt.Errorf("%w: the token endpoint: %s", errCredentials, text)
	}
	if err != nil {
		return exchange.Token{}, fmt.Errorf("the token endpoint of Azure did not respond with a token: %s", tokenFailure(err))
	}
	// The library has added the lifetime to the machine's clock.
	return exchange.Token{Value: token.AccessToken, Expires: m.options.Now().Add(time.Until(token.Expiry))}, nil
}

// tokenFailure describes a failed fetch without the library's text, in which the response, and so
// anything, may stand.
func tokenFailure(err error) string {
	if refused, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		return fmt.Sprintf("status %d", refused.Response.StatusCode)
	}
	if failed, ok := errors.AsType[*url.Error](err); ok {
		return failed.Err.Error()
	}
	return "the response is no token"
}
