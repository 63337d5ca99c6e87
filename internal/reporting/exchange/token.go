package exchange

import (
	"context"
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

	mu      sync.Mutex
	current Token
}

// Get returns the token, and whether it was fetched by this call. Callers that need a new one at
// the same time wait for one fetch.
func (t *Tokens) Get(ctx context.Context) (value string, fetched bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.current.Value != "" && t.Now().Before(t.current.Expires.Add(-margin)) {
		return t.current.Value, false, nil
	}
	token, err := t.Fetch(ctx)
	if err != nil {
		return "", false, err
	}
	t.current = token
	return token.Value, true, nil
}

// Drop forgets the token, if it is still the current one: the marketplace has refused it.
func (t *Tokens) Drop(value string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.current.Value == value {
		t.current = Token{}
	}
}
