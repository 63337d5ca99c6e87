package exchange

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// A Token is a bearer token.
type Token struct {
	Value   string
	Expires time.Time
}

// margin is how long before its end a token is replaced, so that it lasts for a call.
const margin = 2 * time.Minute

// Tokens holds the current token of a connection.
type Tokens struct {
	Fetch func(context.Context) (Token, error)
	Now   func() time.Time

	mu       sync.Mutex
	current  Token
	fetching chan struct{} // closed when the fetch under way ends; nil if there is none
}

// Get returns the token, and whether it was fetched by this call. Callers that need a new one at
// the same time wait for one fetch, each until its own context ends.
func (t *Tokens) Get(ctx context.Context) (value string, fetched bool, err error) {
	for {
		value, under := t.begin()
		switch {
		case value != "":
			return value, false, nil
		case under == nil:
			value, err = t.fetch(ctx)
			return value, err == nil, err
		}
		select {
		case <-under:
		case <-ctx.Done():
			return "", false, fmt.Errorf("no token was fetched: %w", context.Cause(ctx))
		}
	}
}

// begin returns the current token; or the fetch under way; or neither: the caller calls fetch.
func (t *Tokens) begin() (value string, under chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.current.Value != "" && t.Now().Before(t.current.Expires.Add(-margin)) {
		return t.current.Value, nil
	}
	if under = t.fetching; under == nil {
		t.fetching = make(chan struct{})
	}
	return "", under
}

func (t *Tokens) fetch(ctx context.Context) (string, error) {
	var token Token
	var err error
	defer func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if err == nil {
			t.current = token
		}
		close(t.fetching)
		t.fetching = nil
	}()
	token, err = t.Fetch(ctx)
	return token.Value, err
}

// Drop forgets the token, if it is still the current one: the marketplace has refused it.
func (t *Tokens) Drop(value string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.current.Value == value {
		t.current = Token{}
	}
}

// Do sends the request that build makes, with the token. If the service itself refuses a token that
// an earlier call has fetched, Do repeats the request once with a new one: the first was refused
// before anything was done. isOwn reports whether the body of a 401 or 403 is the service's own.
// The reply does not have the token. An error means that nothing was sent; service names what can't
// be reached.
func (t *Tokens) Do(ctx context.Context, c *Client, service string, build func() (*http.Request, error), isOwn func(body []byte) bool) (Reply, error) {
	for {
		token, fetched, err := t.Get(ctx)
		if err != nil {
			return Reply{}, err
		}
		request, err := build()
		if err != nil {
			return Reply{}, errors.New("the endpoint is no URL")
		}
		request.Header.Set("Authorization", "Bearer "+token)
		reply := c.Do(request)
		if reply.Err != nil {
			reply.Err = errors.New(RedactText(reply.Err.Error(), token))
		}
		if !reply.Sent {
			return reply, fmt.Errorf("%s can't be reached: %w", service, reply.Err)
		}
		reply.Body = Redact(reply.Body, token)
		if reply.Err == nil && (reply.Status == http.StatusUnauthorized || reply.Status == http.StatusForbidden) {
			t.Drop(token)
			if isOwn(reply.Body) && !fetched {
				continue
			}
		}
		return reply, nil
	}
}
