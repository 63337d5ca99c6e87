package operate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/reporting"
)

// Resolved is what an operator's word has made of a record.
type Resolved struct {
	complete
	Report    string       `json:"report"`
	Dimension string       `json:"dimension"`
	Outcome   reports.Kind `json:"outcome"`
	By        string       `json:"resolvedBy"`
	Time      time.Time    `json:"resolvedTime"`
	Changed   bool         `json:"changed"` // false: it had been resolved like this before
}

// maxAttempts is how often a step is tried again that workers disturb.
const maxAttempts = 20

// Resolve is the operator's word on a record that is CONFLICT or UNKNOWN: Arguments are the report,
// the dimension, and "billed" or "not-billed". It stores the operator and the time, gives the
// groups of the report their status again, and writes the report. What is interrupted is continued
// by the workers.
//
// It returns NotFound if the report or the dimension does not exist, and Conflict if the record has
// another outcome. The same word again changes nothing.
func Resolve(ctx context.Context, r *Request) (Result, error) {
	tbl, report, dimension, billed := r.Target.Table, r.Arguments[0], r.Arguments[1], r.Arguments[2] == "billed"
	place, err := tbl.ReportPlace(ctx, r.Organization, report)
	if err != nil {
		return nil, err
	}
	worker := reporting.Worker{Store: tbl, Now: r.Now, Log: r.Log}
	var h *reports.Hour
	changed := false
	for attempt := 0; ; attempt++ {
		if h, err = tbl.Hour(ctx, place); err != nil {
			return nil, err
		}
		if h == nil {
			return nil, metering.Errorf(metering.NotFound, "the hour of report %s does not exist", metering.Quote(report))
		}
		if isResolved(h.Record(dimension), billed) {
			break
		}
		after, err := worker.Resolve(ctx, h, dimension, billed, r.By, r.Now())
		if err == nil {
			h, changed = after, true
			break
		}
		if !errors.Is(err, reports.ErrChanged) || attempt == maxAttempts {
			return nil, err
		}
	}
	// The groups of a report that is not decided get their status when it is. If this is
	// interrupted, the workers continue.
	if err := worker.Settle(ctx, h); err != nil {
		return nil, fmt.Errorf("the dimension is resolved, but not all groups of the report have their status yet: the workers continue: %w", err)
	}
	o := &h.Record(dimension).Outcome
	return &Resolved{Report: report, Dimension: dimension, Outcome: o.Kind, By: o.By, Time: o.At, Changed: changed}, nil
}

// isResolved reports whether an operator has said the same of the record before.
func isResolved(r *reports.Record, billed bool) bool {
	return r != nil && r.Outcome.By != "" && (r.Outcome.Kind == reports.Accepted) == billed
}

// WriteText writes it for people.
func (r *Resolved) WriteText(w io.Writer) error {
	was := "is"
	if !r.Changed {
		was = "was already"
	}
	_, err := fmt.Fprintf(w, "dimension %s of report %s %s %s, resolved by %s at %s\n", metering.Quote(r.Dimension), r.Report, was, r.Outcome,
		metering.Quote(r.By), at(r.Time))
	return err
}
