// Package awscall calls services of AWS by hand: it signs one POST and reads the response. The
// SDK's modules for them would not fit in a function beside the rest (decision 50).
//
// Nothing that it returns holds the credentials that a request was signed with.
package awscall

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/marketmeter/marketmeter/internal/reporting/exchange"
)

// Client signs calls with the credentials.
type Client struct {
	Credentials awssdk.CredentialsProvider
	HTTP        *exchange.Client
	Now         func() time.Time
}

// Call is one POST.
type Call struct {
	URL         string
	Service     string // of the signature
	Region      string
	ContentType string
	Target      string // X-Amz-Target, in AWS's JSON protocols; empty is none
	Body        []byte
}

// ErrCredentials marks a call that could not be signed, for a reason other than its time. Nothing
// was sent.
var ErrCredentials = errors.New("no AWS credentials")

// Do makes the call. An error means that nothing was sent.
func (c *Client) Do(ctx context.Context, call *Call) (exchange.Reply, error) {
	ctx, cancel := c.HTTP.Bound(ctx)
	defer cancel()
	credentials, err := c.Credentials.Retrieve(ctx)
	if err != nil && ctx.Err() != nil {
		return exchange.Reply{}, fmt.Errorf("AWS credentials can't be had now: %w", context.Cause(ctx))
	}
	if err != nil {
		return exchange.Reply{}, fmt.Errorf("%w: %w", ErrCredentials, err)
	}
	secrets := []string{credentials.SecretAccessKey, credentials.SessionToken}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, call.URL, bytes.NewReader(call.Body))
	if err != nil {
		return exchange.Reply{}, errors.New("the endpoint is no URL")
	}
	request.Header.Set("Content-Type", call.ContentType)
	if call.Target != "" {
		request.Header.Set("X-Amz-Target", call.Target)
	}
	digest := sha256.Sum256(call.Body)
	if err := v4.NewSigner().SignHTTP(ctx, credentials, request, hex.EncodeToString(digest[:]), call.Service, call.Region, c.Now()); err != nil {
		return exchange.Reply{}, fmt.Errorf("%w: the request can't be signed: %s", ErrCredentials, exchange.RedactText(err.Error(), secrets...))
	}
	reply := c.HTTP.Do(request)
	if reply.Err != nil {
		reply.Err = errors.New(exchange.RedactText(reply.Err.Error(), secrets...))
	}
	if !reply.Sent {
		return reply, fmt.Errorf("AWS can't be reached: %w", reply.Err)
	}
	reply.Body = exchange.Redact(reply.Body, secrets...)
	return reply, nil
}

// Error is a response that is no success.
type Error struct {
	Status int
	Name   string // of the exception, without its namespace; empty if the body is none
	Text   string // the name and AWS's message
}

func (e *Error) Error() string { return fmt.Sprintf("status %d, %s", e.Status, e.Text) }

// Temporary reports whether the call may succeed if it is repeated.
func (e *Error) Temporary() bool {
	return e.Status/100 == 5 || e.Status == http.StatusTooManyRequests || strings.Contains(e.Name, "Throttl")
}

// JSON makes a call of one of AWS's JSON protocols: it encodes in, and decodes the response into
// out. It returns an *Error if AWS responded with anything but success.
func (c *Client) JSON(ctx context.Context, call Call, in, out any) error {
	var err error
	if call.Body, err = json.Marshal(in); err != nil {
		return err
	}
	reply, err := c.Do(ctx, &call)
	switch {
	case err != nil:
		return err
	case reply.Err != nil:
		return fmt.Errorf("the response is missing or incomplete: %w", reply.Err)
	case reply.Status != http.StatusOK:
		name, text := ReadException(reply.Body, reply.Header.Get("X-Amzn-Errortype"))
		return &Error{reply.Status, name, text}
	case json.Unmarshal(reply.Body, out) != nil: // its error may quote the response
		return errors.New("the response is cut or of another form")
	}
	return nil
}

// ReadException returns the name of an exception without its namespace, and a description. The name
// is empty if the body is none.
//
// Source: AWS JSON 1.1 protocol, "Operation error serialization": __type may be a shape id, and may
// be followed by a colon and a URI.
func ReadException(body []byte, header string) (name, reason string) {
	var e struct {
		Type    string `json:"__type"`
		Code    string `json:"code"`
		Message string `json:"message"`
		Capital string `json:"Message"`
	}
	if len(bytes.TrimSpace(body)) == 0 || json.Unmarshal(body, &e) != nil {
		return "", ""
	}
	for _, name = range []string{e.Type, e.Code, header} {
		if name != "" {
			break
		}
	}
	name, _, _ = strings.Cut(name, ":")
	if _, shape, ok := strings.Cut(name, "#"); ok {
		name = shape
	}
	return name, name + ": " + e.Message + e.Capital
}

// endpoint returns the URL of a service in a Region.
func endpoint(service, region string) string {
	domain := "amazonaws.com"
	if strings.HasPrefix(region, "cn-") {
		domain = "amazonaws.com.cn"
	}
	return "https://" + service + "." + region + "." + domain + "/"
}
