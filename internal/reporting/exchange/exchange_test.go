package exchange

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func do(t *testing.T, c *Client, url string) Reply {
	t.Helper()
	ctx, cancel := c.Bound(context.Background())
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	return c.Do(request)
}

func serve(t *testing.T, handle http.HandlerFunc) string {
	server := httptest.NewServer(handle)
	t.Cleanup(server.Close)
	return server.URL
}

func TestDo_RedirectIsNotFollowed(t *testing.T) {
	for status := 301; status <= 308; status++ {
		var requests atomic.Int32
		url := serve(t, func(w http.ResponseWriter, r *http.Request) {
			requests.Add(1)
			http.Redirect(w, r, "/elsewhere", status)
		})
		if r := do(t, NewClient(nil, 0), url); r.Status != status || requests.Load() != 1 || r.Err != nil {
			t.Errorf("%d: status %d, %d requests, %v", status, r.Status, requests.Load(), r.Err)
		}
	}
}

func TestDo_ResponseIsBounded(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.CopyN(w, endless{}, maxResponse+10)
	})
	if r := do(t, NewClient(nil, time.Minute), url); r.Err == nil || len(r.Body) != maxResponse {
		t.Errorf("%d bytes, %v", len(r.Body), r.Err)
	}
}

func TestDo_AListIsReadAsItArrives(t *testing.T) {
	const max = 1000
	for _, c := range []struct {
		status, bytes int
		want          string
	}{
		{200, 0, "read 0 kept 0 <nil>"},
		{200, max, "read 1000 kept 0 <nil>"},
		{200, max + 1, "read 1000 kept 0 it has more than 1000 bytes"},
		{503, max + 1, "read 0 kept 1001 <nil>"},
	} {
		url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(c.status)
			_, _ = io.CopyN(w, endless{}, int64(c.bytes))
		})
		var read int64
		client := NewClient(nil, time.Nanosecond).Listing(time.Minute, max, func(body io.Reader) (err error) {
			read, err = io.Copy(io.Discard, body)
			return err
		})
		r := do(t, client, url)
		if got := fmt.Sprint("read ", read, " kept ", len(r.Body), " ", r.Err); got != c.want || r.Status != c.status {
			t.Errorf("%d, %d bytes: %s, want %s", c.status, c.bytes, got, c.want)
		}
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// A request is repeated by nobody, and is said to be sent if it may have been.
func TestDo_SaysWhetherTheRequestWasSent(t *testing.T) {
	var requests atomic.Int32
	url := serve(t, func(http.ResponseWriter, *http.Request) {
		requests.Add(1)
		panic(http.ErrAbortHandler)
	})
	c := NewClient(nil, 0)
	for range 2 {
		if r := do(t, c, url); !r.Sent || r.Err == nil || r.Status != 0 {
			t.Errorf("%+v", r)
		}
	}
	if n := requests.Load(); n != 2 {
		t.Errorf("%d requests", n)
	}
	for _, unreachable := range []string{"http://127.0.0.1:1", "http://nowhere.invalid"} {
		if r := do(t, c, unreachable); r.Sent || r.Err == nil {
			t.Errorf("%s: %+v", unreachable, r)
		}
	}
}

// The connection that an earlier request has left open may be closed under the next one, after the
// server has done it.
func TestDo_ReusedConnectionMayHaveBeenUsed(t *testing.T) {
	var requests atomic.Int32
	url := serve(t, func(http.ResponseWriter, *http.Request) {
		if requests.Add(1) > 1 {
			panic(http.ErrAbortHandler)
		}
	})
	c := NewClient(nil, 0)
	if r := do(t, c, url); r.Err != nil {
		t.Fatal(r.Err)
	}
	if r := do(t, c, url); !r.Sent || r.Err == nil || requests.Load() != 2 {
		t.Errorf("%+v, %d requests", r, requests.Load())
	}
}

func TestDo_TimeoutIsNamed(t *testing.T) {
	stop := make(chan struct{})
	slow := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/cut" {
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
		}
		<-stop
	}
	url := serve(t, slow)
	t.Cleanup(func() { close(stop) })
	if r := do(t, NewClient(nil, time.Second), url+"/cut"); r.Status != 200 || r.Err == nil || !strings.Contains(r.Err.Error(), "no response within 1s") {
		t.Errorf("%+v", r)
	}
	if r := do(t, NewClient(nil, 50*time.Millisecond), url); !r.Sent || r.Err == nil || !strings.Contains(r.Err.Error(), "no response within 50ms") {
		t.Errorf("%+v", r)
	}
}

func TestRetryAfter_IsSecondsOrATime(t *testing.T) {
	now := time.Date(2026, 11, 18, 12, 30, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-1": 0, "x": 0, "99999999999": 24 * time.Hour, "9223372036854775807": 24 * time.Hour,
		"Wed, 18 Nov 2026 12:31:00 GMT": time.Minute, "Wed, 18 Nov 2020 12:31:00 GMT": 0, "Wed, 18 Nov 2099 12:31:00 GMT": 24 * time.Hour,
	} {
		r := Reply{Header: http.Header{"Retry-After": {text}}}
		if got := r.RetryAfter(now); got != want {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
	}
}

func TestRedact_RemovesEachSecret(t *testing.T) {
	const text = `secret/one+ and secret%2Fone%2B and secret\/one+, secret-two; short`
	const want = `(redacted) and (redacted) and (redacted), (redacted); short`
	if got := string(Redact([]byte(text), "secret/one+", "", "short", "secret-two")); got != want {
		t.Error(got)
	}
	if got := RedactText(text, "secret/one+", "", "short", "secret-two"); got != want {
		t.Error(got)
	}
}

func TestTokens_AreFetchedOnceForAll(t *testing.T) {
	now := time.Date(2026, 11, 18, 12, 30, 0, 0, time.UTC)
	fetched := 0
	tokens := Tokens{Now: func() time.Time { return now }, Fetch: func(context.Context) (Token, error) {
		fetched++
		return Token{"t", now.Add(time.Hour)}, nil
	}}
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			if value, _, err := tokens.Get(context.Background()); value != "t" || err != nil {
				t.Error(value, err)
			}
		})
	}
	group.Wait()
	if fetched != 1 {
		t.Errorf("%d fetches", fetched)
	}
	tokens.Drop("another")
	if _, fresh, _ := tokens.Get(context.Background()); fresh {
		t.Error("another token was dropped")
	}
	tokens.Drop("t")
	if _, fresh, _ := tokens.Get(context.Background()); !fresh {
		t.Error("the token was not dropped")
	}
}

// A caller waits for another's fetch only until its own time is over.
func TestTokens_WaitEndsWithItsContext(t *testing.T) {
	begun, ends := make(chan struct{}), make(chan struct{})
	tokens := Tokens{Now: time.Now, Fetch: func(context.Context) (Token, error) {
		close(begun)
		<-ends
		return Token{"t", time.Now().Add(time.Hour)}, nil
	}}
	var group sync.WaitGroup
	group.Go(func() {
		if value, fetched, err := tokens.Get(context.Background()); value != "t" || !fetched || err != nil {
			t.Error(value, fetched, err)
		}
	})
	<-begun
	late := errors.New("the time is over")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(late)
	if _, _, err := tokens.Get(ctx); !errors.Is(err, late) {
		t.Error(err)
	}
	close(ends)
	group.Wait()
	if value, fetched, err := tokens.Get(ctx); value != "t" || fetched || err != nil {
		t.Error(value, fetched, err)
	}
}

func TestTokens_FailureIsNotStored(t *testing.T) {
	failure := errors.New("no")
	tokens := Tokens{Now: time.Now, Fetch: func(context.Context) (Token, error) { return Token{}, failure }}
	if _, _, err := tokens.Get(context.Background()); !errors.Is(err, failure) {
		t.Error(err)
	}
	tokens.Fetch = func(context.Context) (Token, error) { return Token{"t", time.Now().Add(time.Hour)}, nil }
	if value, fresh, err := tokens.Get(context.Background()); value != "t" || !fresh || err != nil {
		t.Error(value, fresh, err)
	}
}
