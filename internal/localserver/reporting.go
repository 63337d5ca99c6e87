package localserver

import (
	"context"
	"errors"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/reporting/inprocess"
	"github.com/marketmeter/marketmeter/internal/reporting/operate"
)

// scheduleInterval is how often work is looked for on this machine. In a stack it is every 5
// minutes.
const scheduleInterval = 15 * time.Second

// startReporting starts the workers that report usage to the sandbox, until stopReporting. It says
// so if they may not run on this table.
func (s *server) startReporting(ctx context.Context) {
	worker, err := inprocess.NewWorker(ctx, s.tbl, s.sandbox.url, time.Now, s.Log)
	if err != nil {
		s.say("Reporting is off, usage stays CREATED: " + err.Error())
		if !errors.Is(err, inprocess.ErrOff) {
			s.Log.Error("reporting could not be started", "error", err.Error())
		}
		return
	}
	s.say("Usage of the hours that have closed is reported to the sandbox now; the report of each hour is a line here")
	ctx, s.cancelReporting = context.WithCancel(ctx)
	runner := inprocess.New(worker, s.showReport)
	s.reporting.Go(func() { runner.Run(ctx, scheduleInterval) })
}

// stopReporting waits for the workers to end.
func (s *server) stopReporting() {
	if s.cancelReporting != nil {
		s.cancelReporting()
	}
	s.reporting.Wait()
}

// showReport prints an hour that is settled.
func (s *server) showReport(h *reports.Hour) {
	if h.State == reports.StateSettled {
		report := operate.ReportOf(h)
		s.say(report.Line())
	}
}
