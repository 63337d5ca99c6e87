package gcp

import (
	"context"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/sync/errgroup"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/reporting"
)

// checkAge is for how long the result of a check is used. Source: "Configuring usage reports":
// cache it for 60 seconds.
const checkAge = 60 * time.Second

// maxChecks is how many checks of a request run at once.
const maxChecks = 8

type consumer struct{ service, id string }

// checked is the last result of a consumer's check.
type checked struct {
	at     time.Time
	rule   reporting.Rule // zero if the consumer can be billed
	reason string         // why it can't
}

// stop is why nothing of a request can be sent.
type stop struct {
	rule       reporting.Rule
	reason     string
	retryAfter time.Duration
}

// check brings the checks of the records' consumers up to date, in half of the time that ctx has
// left: the other half is for report. It returns nil, or why the lane can't send.
//
// A check that fails without saying anything about the consumer, or for which no time is left,
// leaves its last result as it is; a consumer without one is taken for active: report refuses what
// is not billable.
func (m *Marketplace) check(ctx context.Context, service string, records []reporting.Record) *stop {
	end, _ := ctx.Deadline() // Bound has set one
	ctx, cancel := context.WithTimeout(ctx, time.Until(end)/2)
	defer cancel()
	var group errgroup.Group
	group.SetLimit(maxChecks)
	due := map[string]bool{}
	stops := make([]*stop, len(records))
	for i := range records {
		r := &records[i]
		id := r.IDs.UsageReportingID
		if due[id] || !m.checkIsDue(service, id) {
			continue
		}
		due[id] = true
		group.Go(func() error {
			stops[i] = m.checkOne(ctx, service, r)
			return nil
		})
	}
	_ = group.Wait() // no function fails
	for _, s := range stops {
		if s != nil {
			return s
		}
	}
	return nil
}

func (m *Marketplace) checkIsDue(service, id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	last, known := m.checks[consumer{service, id}]
	age := m.options.Now().Sub(last.at)
	return !known || age < 0 || age >= checkAge
}

// lastCheck returns the last result of the consumer's check.
func (m *Marketplace) lastCheck(service, id string) checked {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.checks[consumer{service, id}]
}

func (m *Marketplace) checkOne(ctx context.Context, service string, r *reporting.Record) *stop {
	reply, err := m.do(ctx, service, "check", checkBody(r))
	if err != nil && ctx.Err() != nil {
		return nil // the time for checks is over: report finds out whether Google can be reached
	}
	if err != nil {
		return &stop{reporting.LaneAtFault(faultOf(err), metering.ProblemNoConnection), err.Error(), 0}
	}
	if reply.Err != nil {
		return nil
	}
	if name, reason := readError(reply.Body); name != "" {
		if rule := refusals[name]; rule.Lane != reporting.NoLaneFault && reply.Status < 500 {
			return &stop{rule, "check: " + reason, reply.RetryAfter(m.options.Now())}
		}
		return nil
	}
	var response struct {
		OperationID string `json:"operationId"`
		CheckErrors []struct {
			Code   string `json:"code"`
			Detail string `json:"detail"`
		} `json:"checkErrors"`
	}
	if reply.Status != http.StatusOK || json.Unmarshal(reply.Body, &response) != nil || response.OperationID != OperationID(r) {
		return nil
	}
	result := checked{at: m.options.Now()}
	transient := false
	for _, e := range response.CheckErrors {
		switch rule := checkRule(e.Code); {
		case rule == reporting.Rule{}:
			transient = true
		case result.reason == "":
			result.rule, result.reason = rule, e.Code+": "+e.Detail
		}
	}
	if transient && result.reason == "" {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.checks[consumer{service, r.IDs.UsageReportingID}] = result
	return nil
}
