package reporting_test

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/reporting"
	"github.com/marketmeter/marketmeter/internal/reporting/connect"
	rt "github.com/marketmeter/marketmeter/internal/reporting/reportingtest"
	"github.com/marketmeter/marketmeter/internal/reporting/worldtest"
	"github.com/marketmeter/marketmeter/sandbox"
)

// asks is a transport on which the sandbox's 429 asks to wait that long.
type asks string

func (seconds asks) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := http.DefaultTransport.RoundTrip(r)
	if err == nil && response.StatusCode == http.StatusTooManyRequests {
		response.Header.Set("Retry-After", string(seconds))
	}
	return response, err
}

// process returns a worker of a process of its own.
func process(w *worldtest.World, transport http.RoundTripper) *reporting.Worker {
	worker := w.Worker(w.Table)
	worker.Lanes = &reporting.Lanes{}
	worker.Marketplaces = connect.New(connect.Options{
		Secrets: secrets(clientSecret), SandboxURL: w.URL, SandboxOnly: true, Now: w.Now, Transport: transport,
	})
	return worker
}

// calls fails the test if usage was not sent to Azure that often.
func calls(t *testing.T, w *worldtest.World, what string, n int) {
	t.Helper()
	want(t, "calls "+what, strconv.Itoa(len(w.Calls("batchUsageEvent"))), strconv.Itoa(n))
}

// A lane that is throttled is called again once the time is over that the marketplace asks for, by
// no process before; by the one that was throttled, also not for other usage.
func TestSubmit_ThrottledLaneIsLeftAloneAsLongAsAsked(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		asks string
		wait time.Duration
	}{{"240", 4 * time.Minute}, {"", time.Minute}, {"1", time.Minute}, {"86400", 5 * time.Minute}} {
		t.Run(c.asks, func(t *testing.T) {
			t.Parallel()
			w := worldtest.NewWorld(t, sandbox.Options{})
			w.Report(worldtest.OnAzure, rt.Hour, "d0 1, d1 1")
			w.Fault(sandbox.Fault{Fault: sandbox.Throttled})
			w.Set(closed)
			first, second := process(w, asks(c.asks)), process(w, asks(c.asks))
			w.WorkBy(first)
			calls(t, w, "at first", 1)
			want(t, "events", strconv.Itoa(w.Log.Count(reporting.EventThrottled)), "1")

			before := closed.Add(c.wait - time.Second)
			w.Set(before)
			w.WorkBy(first)
			w.WorkBy(second)
			calls(t, w, "before the time is over", 1)
			// Usage of another entitlement is sealed, and due: its hint comes to the first process.
			other := worldtest.Entitlements()[1]
			other.ID, other.Marketplace.ResourceID, other.Marketplace.ResourceURI = "ent-other", "", rt.ManagedApp
			w.PutEntitlement(other)
			w.Report(other.ID, rt.Hour, "d2 1")
			w.WorkBy(first)
			calls(t, w, "for other usage", 1)
			want(t, "other", outcome(w, other.ID, rt.Hour, "d2"), "SEALED")

			w.Set(closed.Add(c.wait))
			w.WorkBy(first)
			want(t, "billed", strconv.Itoa(len(strings.Fields(w.Billed()))), "3")
		})
	}
}

// The window of the usage ends before the time that the marketplace asks for is over: it is sent
// before.
func TestSubmit_ThrottledLaneIsCalledBeforeItsDeadline(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	group := w.Report(worldtest.OnAzure, rt.Hour, "d0 1")
	w.Fault(sandbox.Fault{Fault: sandbox.Throttled})
	deadline := rt.Hour.Add(24 * time.Hour)
	w.Set(deadline.Add(-2 * time.Hour))
	if err := w.Table.Pause(t.Context(), "ann", w.Now()); err != nil {
		t.Fatal(err)
	}
	worker := process(w, asks("300"))
	w.WorkBy(worker)
	if err := w.Table.Resume(t.Context(), "ann", w.Now()); err != nil {
		t.Fatal(err)
	}
	w.Set(deadline.Add(-4 * time.Minute))
	w.WorkBy(worker)
	calls(t, w, "at first", 1)
	w.Set(deadline.Add(-2 * time.Minute))
	w.WorkBy(worker)
	want(t, "group", w.Status(group), "REPORTED")
	want(t, "billed", w.Billed(), "d0=1")
}

// unreachable is a transport by which the metering service can't be reached.
type unreachable struct{ attempts int }

func (u *unreachable) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.HasSuffix(r.URL.Path, "/batchUsageEvent") {
		u.attempts++
		return nil, errors.New("no route to host")
	}
	return http.DefaultTransport.RoundTrip(r)
}

// A lane that can't be reached, or whose credentials are refused, is left alone for a minute,
// whatever hints come.
func TestSubmit_RefusedAndUnreachableLanesAreLeftAlone(t *testing.T) {
	t.Parallel()
	for name, event := range map[string]reporting.Event{"unreachable": reporting.EventThrottled, "refused": reporting.EventConnectionRefused} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := worldtest.NewWorld(t, sandbox.Options{})
			transport := http.DefaultTransport
			if name == "unreachable" {
				transport = &unreachable{}
			} else {
				w.Change(func(c *sandbox.Catalog) { c.Azure.Applications[0].ClientSecret = "another" })
			}
			worker := process(w, transport)
			w.Report(worldtest.OnAzure, rt.Hour, "d0 1")
			w.Set(closed)
			w.WorkBy(worker)
			want(t, "events", strconv.Itoa(w.Log.Count(event)), "1")
			lane := w.Hour(worldtest.OnAzure, rt.Hour).Sealed.Lane
			for range 3 {
				w.Set(w.Now().Add(19 * time.Second))
				if err := worker.Submit(t.Context(), lane); err != nil {
					t.Fatal(err)
				}
			}
			want(t, "events", strconv.Itoa(w.Log.Count(event)), "1")
			w.Set(closed.Add(time.Minute))
			w.WorkBy(worker)
			want(t, "events", strconv.Itoa(w.Log.Count(event)), "2")
			w.Change(func(c *sandbox.Catalog) { c.Azure.Applications[0].ClientSecret = rt.ClientSecret })
			w.Set(closed.Add(3 * time.Minute))
			w.WorkBy(process(w, nil))
			want(t, "billed", w.Billed(), "d0=1")
		})
	}
}
