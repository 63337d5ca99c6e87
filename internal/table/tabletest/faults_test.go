package tabletest

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A test that reads the table after its client gave up must not find less stored than a moment
// later.
func TestFaults_WaitForARequestWhoseClientGaveUp(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		of   func(*http.Request) Fault
	}{
		{"no fault", of(Pass)},
		{"unanswered", func(request *http.Request) Fault { return Delay(request.Context(), time.Hour) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			received, returned := make(chan struct{}), make(chan struct{})
			var stored atomic.Bool
			busy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				close(received)
				select { // too late for a transport that does not wait
				case <-returned:
				case <-time.After(100 * time.Millisecond):
				}
				stored.Store(true)
				w.WriteHeader(http.StatusOK)
			}))
			t.Cleanup(busy.Close)
			ctx, giveUp := context.WithCancel(t.Context())
			go func() {
				<-received
				giveUp()
			}()
			request, err := http.NewRequestWithContext(ctx, http.MethodPost, busy.URL, strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			response, err := Planned(func(_ int, request *http.Request) Fault { return c.of(request) }).RoundTrip(request)
			if err == nil {
				err = response.Body.Close()
			}
			if !stored.Load() || !errors.Is(err, context.Canceled) {
				t.Errorf("stored: %v, error: %v", stored.Load(), err)
			}
			close(returned)
		})
	}
}
