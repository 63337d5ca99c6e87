// Package exchange sends one HTTP request to a marketplace and reads its response, within bounds.
// It follows no redirect, repeats nothing, and says whether a request may have left the machine.
package exchange

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Timeout bounds a call if the options name none. A worker has 120 s, and more than one call.
const Timeout = 15 * time.Second

// maxResponse is the max size of a response. Responses to 25 records have some 20 KB; those about a
// full request to Google a few MB.
const maxResponse = 16 << 20

// A Client makes calls.
type Client struct {
	http    *http.Client
	timeout time.Duration
	list    *list // nil if all responses are read whole
}

// list is how a response is read that may be too long for the memory.
type list struct {
	max  int64
	read func(io.Reader) error
}

// NewClient returns a client. A nil transport is the default one, with its TLS; a timeout of 0 is
// Timeout.
func NewClient(transport http.RoundTripper, timeout time.Duration) *Client {
	if timeout == 0 {
		timeout = Timeout
	}
	return &Client{
		// A redirect could lead a token or usage to another host.
		http:    &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		timeout: timeout,
	}
}

// Listing returns a client for calls whose response is a list. The body of one with status 200, of
// at most max bytes, is given to read as it arrives. It is not in the Reply, whose error is read's.
// A timeout of 0 is that of c.
func (c *Client) Listing(timeout time.Duration, max int64, read func(io.Reader) error) *Client {
	listing := *c
	listing.timeout, listing.list = cmp.Or(timeout, c.timeout), &list{max, read}
	return &listing
}

// HTTP returns a client for libraries that fetch tokens. Its calls end with the context, whatever
// context they have: golang.org/x/oauth2/jwt makes them without one.
func (c *Client) HTTP(ctx context.Context) *http.Client {
	bound := *c.http
	bound.Transport = within{ctx, bound.Transport}
	return &bound
}

type within struct {
	ctx  context.Context
	next http.RoundTripper
}

func (w within) RoundTrip(r *http.Request) (*http.Response, error) {
	next := w.next
	if next == nil {
		next = http.DefaultTransport
	}
	return next.RoundTrip(r.WithContext(w.ctx))
}

// Bound returns a context that ends after the timeout.
func (c *Client) Bound(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, c.timeout, fmt.Errorf("no response within %v", c.timeout))
}

// A Reply is the response to a call, or why there is none.
type Reply struct {
	// Sent reports whether any byte of the request may have been sent. If not, nothing was done.
	Sent   bool
	Status int // 0 if there was no status
	Header http.Header
	Body   []byte
	Err    error // why the response is missing, cut or too long; Body has what was read
}

// Do sends the request. The request must be bound to a context by Bound.
//
// A request for which there was never a connection was not sent. The transport itself sends a POST
// a second time only if it has written nothing of the first.
func (c *Client) Do(request *http.Request) Reply {
	var connected atomic.Bool
	ctx := httptrace.WithClientTrace(request.Context(), &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { connected.Store(true) },
	})
	response, err := c.http.Do(request.WithContext(ctx))
	if err != nil {
		return Reply{Sent: connected.Load(), Err: err}
	}
	defer response.Body.Close()
	reply := Reply{Sent: true, Status: response.StatusCode, Header: response.Header}
	if c.list != nil && reply.Status == http.StatusOK {
		reply.Err = c.list.read(&bounded{response.Body, c.list.max, c.list.max})
		return reply
	}
	reply.Body, err = io.ReadAll(&bounded{response.Body, maxResponse, maxResponse})
	if err != nil {
		reply.Err = fmt.Errorf("the response was cut after %d bytes: %w", len(reply.Body), err)
	}
	return reply
}

// bounded reads at most max bytes. Its error says so if there are more.
type bounded struct {
	from      io.Reader
	max, left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left > 0 || len(p) == 0 {
		n, err := b.from.Read(p[:min(int64(len(p)), b.left)])
		b.left -= int64(n)
		return n, err
	}
	var more [1]byte
	if n, err := b.from.Read(more[:]); n == 0 {
		return 0, err
	}
	return 0, fmt.Errorf("it has more than %d bytes", b.max)
}

// RetryAfter returns how long the response asks to wait, or 0.
func (r *Reply) RetryAfter(now time.Time) time.Duration {
	text := r.Header.Get("Retry-After")
	if seconds, err := strconv.Atoi(text); err == nil {
		return max(0, min(time.Duration(seconds), 24*3600)*time.Second)
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, min(at.Sub(now), 24*time.Hour))
	}
	return 0
}

const redacted = "(redacted)"

// minSecret is the length from which a text is taken for a secret. Real ones are longer; a short
// one of a test could be a part of the response's own form.
const minSecret = 8

// Redact returns the text without the secrets, as they are or escaped in a form or in JSON. A
// marketplace may repeat what it was sent: AWS shows the headers of a request whose signature is
// wrong.
func Redact(text []byte, secrets ...string) []byte {
	for _, secret := range secrets {
		if len(secret) < minSecret {
			continue
		}
		for _, form := range []string{secret, url.QueryEscape(secret), strings.ReplaceAll(secret, "/", `\/`)} {
			text = bytes.ReplaceAll(text, []byte(form), []byte(redacted))
		}
	}
	return text
}

// RedactText is Redact for a string.
func RedactText(text string, secrets ...string) string {
	return string(Redact([]byte(text), secrets...))
}
