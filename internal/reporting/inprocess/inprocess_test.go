package inprocess_test

import (
	"context"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/reporting/inprocess"
	rt "github.com/marketmeter/marketmeter/internal/reporting/reportingtest"
	"github.com/marketmeter/marketmeter/internal/reporting/worldtest"
	"github.com/marketmeter/marketmeter/sandbox"
)

// Usage is reported by the first schedule. When the runner is stopped, nothing of it runs any more.
func TestRun_ReportsAtOnceUntilItIsStopped(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	first := w.Report(worldtest.OnAWS, rt.Hour.Add(-2*time.Hour), "d0 3")
	settled := make(chan *reports.Hour, 10)
	runner := inprocess.New(*w.Worker(w.Table), func(h *reports.Hour) {
		if h.State == reports.StateSettled {
			settled <- h
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		runner.Run(ctx, time.Millisecond)
		close(ended)
	}()
	if h := <-settled; h.Entitlement != worldtest.OnAWS || w.Billed() != "d0=3" {
		t.Errorf("%+v is settled, and billed is %s", h, w.Billed())
	}
	second := w.Report(worldtest.OnAzure, rt.Hour.Add(-2*time.Hour), "d0 4") // of a later schedule
	if h := <-settled; h.Entitlement != worldtest.OnAzure {
		t.Errorf("%+v is settled", h)
	}
	cancel()
	<-ended
	if a, b := w.Status(first), w.Status(second); a != "REPORTED" || b != "REPORTED" {
		t.Errorf("%s, %s", a, b)
	}
	w.Report(worldtest.OnAWS, rt.Hour.Add(-5*time.Hour), "d0 3")
	if _, _, err := runner.Round(ctx); err == nil {
		t.Error("a round after the end has no error")
	}
	if n := len(w.Calls("BatchMeterUsage")); n != 1 {
		t.Errorf("%d calls to AWS; want 1", n)
	}
}
