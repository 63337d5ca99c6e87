// Package dynamoclient creates the DynamoDB client. Its options are explicit, so that a function
// starts without walking the configuration chain. Its transport checks every response.
package dynamoclient

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go/middleware"
)

// Options configure a client; Region and Credentials are required.
type Options struct {
	Region      string
	Credentials aws.CredentialsProvider
	Endpoint    string            // empty is the region's own
	Transport   http.RoundTripper // nil is NewTransport of AnswerTimeout
	Call        time.Duration     // bounds a call with all its attempts; 0 leaves that to the context

	// Explain, if not nil, gets the error of each failed call, after the last attempt, and returns
	// the error that replaces it in the SDK's. It must keep the error in the chain.
	Explain func(error) error
}

// CredentialsError is the error of a call for which no credentials were available: nothing was
// sent.
type CredentialsError struct{ Cause error }

func (e *CredentialsError) Error() string { return "no AWS credentials: " + e.Cause.Error() }

func (e *CredentialsError) Unwrap() error { return e.Cause }

// namedCredentials converts the errors of a provider, which have no type in the SDK, to
// CredentialsErrors.
type namedCredentials struct{ aws.CredentialsProvider }

func (p namedCredentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	found, err := p.CredentialsProvider.Retrieve(ctx)
	if err != nil && !errors.Is(ctx.Err(), context.Canceled) {
		err = &CredentialsError{err}
	}
	return found, err
}

// maxAttempts bounds the attempts of one call and, with backoff, the time between them to 1.5
// seconds: if the table is throttled, the response is 503 well within any function's timeout.
const maxAttempts = 6

// backoff is full jitter up to 50 ms, doubling. The SDK's own begins at a second, but DynamoDB
// responds in milliseconds.
func backoff(attempt int, _ error) (time.Duration, error) {
	return rand.N(50 * time.Millisecond << min(max(attempt-1, 0), 4)), nil
}

// isConflict reports whether a request conflicted with a transaction; the SDK would not retry it.
// Nothing of it was applied. A transaction is sent again with the same mark.
func isConflict(err error) aws.Ternary {
	if _, ok := errors.AsType[*types.TransactionConflictException](err); ok {
		return aws.TrueTernary
	}
	cancelled, ok := errors.AsType[*types.TransactionCanceledException](err)
	if !ok {
		return aws.UnknownTernary
	}
	for _, reason := range cancelled.CancellationReasons {
		if code := aws.ToString(reason.Code); code != "None" && code != "TransactionConflict" {
			return aws.UnknownTernary
		}
	}
	return aws.TrueTernary
}

// New returns a client. It does not use the network.
func New(o Options) *dynamodb.Client {
	transport := o.Transport
	if transport == nil {
		transport = NewTransport(AnswerTimeout)
	}
	options := dynamodb.Options{
		Region:      o.Region,
		Credentials: aws.NewCredentialsCache(namedCredentials{o.Credentials}),
		HTTPClient:  &http.Client{Transport: checkedTransport{transport}},
		Retryer: retry.NewStandard(func(s *retry.StandardOptions) {
			s.MaxAttempts = maxAttempts
			s.Backoff = retry.BackoffDelayerFunc(backoff)
			s.Retryables = append(slices.Clone(s.Retryables), retry.IsErrorRetryableFunc(isConflict))
		}),
		// checkedTransport has checked it, and refuses what the SDK would only log.
		DisableValidateResponseChecksum: true,
		AccountIDEndpointMode:           aws.AccountIDEndpointModeDisabled,
	}
	if o.Call > 0 {
		options.APIOptions = append(options.APIOptions, bounded(o.Call))
	}
	if o.Endpoint != "" {
		options.BaseEndpoint = aws.String(o.Endpoint)
	}
	if o.Explain != nil {
		options.APIOptions = append(options.APIOptions, explained(o.Explain))
	}
	return dynamodb.New(options)
}

// explained adds a step around all others of a call, retries included.
func explained(explain func(error) error) func(*middleware.Stack) error {
	return func(stack *middleware.Stack) error {
		return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("Explain",
			func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
				out, metadata, err := next.HandleInitialize(ctx, in)
				if err != nil {
					err = explain(err)
				}
				return out, metadata, err
			}), middleware.Before)
	}
}

// AnswerTimeout bounds an attempt of a request for which a client waits: a longer attempt is ended
// and retried. DynamoDB responds in milliseconds, and a page of a list has at most 1 MB, so this
// allows for a link of 200 KB a second.
const AnswerTimeout = 5 * time.Second

// NewTransport returns the transport of a client, without the check of responses. An attempt must
// end within the time given: connection, request, headers and the whole body of the response. A
// response that stalls, or comes byte by byte, is therefore an error that the SDK retries.
func NewTransport(attempt time.Duration) http.RoundTripper {
	return attemptTransport{attempt, &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 3 * time.Second}).DialContext,
		TLSHandshakeTimeout: 3 * time.Second,
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     90 * time.Second,
		DisableCompression:  true, // the checksum is of the bytes as sent
	}}
}
