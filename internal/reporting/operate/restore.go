package operate

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/reporting"
	"github.com/marketmeter/marketmeter/internal/reporting/inprocess"
)

// Restored is what became of a table that was restored.
type Restored struct {
	By        string      `json:"by"`
	Since     time.Time   `json:"since"`
	Abandoned int         `json:"abandoned"` // hours whose records are UNKNOWN now, unless they had an outcome
	Failed    []Abandoned `json:"failed"`    // hours that could not be; nothing is resumed then
	Floor     *time.Time  `json:"floor,omitempty"`
}

// Abandoned is an hour that could not be abandoned.
type Abandoned struct {
	Organization metering.OrgID         `json:"organization"`
	Entitlement  metering.EntitlementID `json:"entitlement"`
	Hour         time.Time              `json:"hour"`
	Reason       string                 `json:"reason"`
}

// noQueue loses hints: the next schedule finds the work.
type noQueue struct{}

func (noQueue) Enqueue(context.Context, ...reporting.Hint) error { return nil }

// entitlementsAtOnce is of how many entitlements hours are abandoned at once. Each writes two
// groups at once, as plan does, and most of the time none: it waits for reads.
const entitlementsAtOnce = 4

// resumeRestored abandons each hour before the floor that is not settled or that groups wait for,
// and resumes if none is left.
func resumeRestored(ctx context.Context, r *Request) (Result, error) {
	now := r.Now()
	if !r.Since.Before(now) {
		return nil, metering.Errorf(metering.Invalid, "--since is %s: it must be before now, %s", at(r.Since), at(now))
	}
	stopped, err := r.Target.Gate(ctx)
	if err != nil {
		return nil, err
	}
	if stopped == "" {
		return nil, metering.Errorf(metering.Conflict, "reporting is not paused, and the table was not restored since it began: nothing is to be resumed")
	}
	worker := reporting.Worker{Store: r.Target.Table, Queue: noQueue{}, Now: r.Now, Log: inprocess.Warnings(r.Log)}
	floor := metering.HourOf(now).Add(time.Hour)
	result := &Restored{By: r.By, Since: r.Since, Failed: []Abandoned{}}
	reason := "the table was restored to its state of " + at(r.Since) + ", and what was sent after that is not known"
	for again := true; again && len(result.Failed) == 0; { // until the index, which lags, has no more
		again = false
		places, err := work(ctx, r, now)
		if err != nil {
			return nil, err
		}
		abandoned := make([][]reporting.Abandoned, len(places))
		all, within := errgroup.WithContext(ctx)
		all.SetLimit(entitlementsAtOnce)
		for i, of := range places {
			all.Go(func() error {
				if within.Err() == nil {
					abandoned[i] = worker.Abandon(within, of, floor, reason)
				}
				return within.Err()
			})
		}
		if err := all.Wait(); err != nil {
			return nil, err
		}
		for _, a := range slices.Concat(abandoned...) {
			if a.Err != nil {
				result.Failed = append(result.Failed, Abandoned{a.Organization, a.Entitlement, a.Hour, a.Err.Error()})
			} else {
				result.Abandoned++
				again = true
			}
		}
	}
	if len(result.Failed) > 0 {
		return result, nil
	}
	if err := r.Target.ResumeRestored(ctx, r.By, floor, r.Now()); err != nil {
		return nil, err
	}
	result.Floor = &floor
	return result, nil
}

// work returns the places that have work: those of each entitlement, in the order of their hours.
func work(ctx context.Context, r *Request, now time.Time) (byEntitlement [][]reports.Place, err error) {
	var places []reports.Place
	err = r.Target.EachPlace(ctx, time.Time{}, metering.HourOf(now), func(p reports.Place) error {
		places = append(places, p)
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = r.Target.EachSealed(ctx, func(_ string, _ time.Time, p reports.Place) error {
		places = append(places, p)
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(places, func(p, q reports.Place) int {
		return cmp.Or(cmp.Compare(p.Organization, q.Organization), cmp.Compare(p.Entitlement, q.Entitlement), p.Hour.Compare(q.Hour))
	})
	for _, p := range slices.Compact(places) {
		last := len(byEntitlement) - 1
		if last < 0 || byEntitlement[last][0].Organization != p.Organization || byEntitlement[last][0].Entitlement != p.Entitlement {
			byEntitlement, last = append(byEntitlement, nil), last+1
		}
		byEntitlement[last] = append(byEntitlement[last], p)
	}
	return byEntitlement, nil
}

// Incomplete reports whether an hour could not be abandoned.
func (r *Restored) Incomplete() bool { return len(r.Failed) > 0 }

// WriteText writes it for people.
func (r *Restored) WriteText(w io.Writer) error {
	var text strings.Builder
	for _, f := range r.Failed {
		fmt.Fprintf(&text, "hour %s of organization %s, entitlement %s: %s\n", at(f.Hour), metering.Quote(f.Organization), metering.Quote(f.Entitlement), f.Reason)
	}
	fmt.Fprintf(&text, "hours abandoned %d, failed %d\n", r.Abandoned, len(r.Failed))
	if r.Floor != nil {
		fmt.Fprintf(&text, "Usage is reported, in hours from %s on. `marketmeter report status` shows what is UNKNOWN.\n", at(*r.Floor))
	} else {
		text.WriteString("Nothing is reported: correct what failed, and run it again.\n")
	}
	_, err := io.WriteString(w, text.String())
	return err
}
