package operate

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
)

// Imported is what became of imported usage that had no work.
type Imported struct {
	Enqueued int       `json:"enqueued"` // groups that wait for their hour now
	Refused  []Refusal `json:"refused"`
}

// Refusal is why a group is not reported.
type Refusal struct {
	Group  metering.GroupID     `json:"group"`
	Code   metering.ProblemCode `json:"code"`
	Reason string               `json:"reason"`
}

// writesAtOnce is how many groups Enqueue writes at once.
const writesAtOnce = 16

// Enqueue makes usage wait to be reported that is CREATED and waits for nothing: it was imported,
// or stored before usage was reported. It reads all CREATED groups of the organization, or of the
// entitlement. It refuses a group that could not be reported as it is stored, or whose window at
// the marketplace is over, also if the connection carries late usage.
//
// On a table that was restored it refuses usage of the hours before, unless the operator says that
// it was not billed: the lost table may have enqueued and sent it since the backup. When a group
// was stored does not matter: an import takes its times from elsewhere. It returns Conflict until
// reporting is resumed on such a table.
func Enqueue(ctx context.Context, r *Request) (Result, error) {
	e := enqueuing{Request: r, terms: map[metering.EntitlementID]*metering.Terms{}}
	var err error
	if e.floor, err = r.Target.RestoredFloor(ctx); err != nil {
		if metering.CodeOf(err) == metering.Conflict {
			err = metering.Errorf(metering.Conflict, "nothing was enqueued: %v; run `marketmeter report resume --since` first", err)
		}
		return nil, err
	}
	result := &Imported{Refused: []Refusal{}}
	var mu sync.Mutex
	writes, within := errgroup.WithContext(ctx)
	writes.SetLimit(writesAtOnce)
	var failed error
	for g, err := range r.Target.WithoutWork(ctx, r.Organization, r.Entitlement) {
		if failed = err; err != nil || within.Err() != nil {
			break
		}
		due, refusal, err := e.due(ctx, g)
		if failed = err; err != nil {
			break
		}
		if refusal != nil {
			result.Refused = append(result.Refused, *refusal)
			continue
		}
		writes.Go(func() error {
			added, err := r.Target.AddWork(within, g, due)
			if added {
				mu.Lock()
				result.Enqueued++
				mu.Unlock()
			}
			return err
		})
	}
	if err := cmp.Or(writes.Wait(), failed); err != nil {
		return nil, fmt.Errorf("%d groups were enqueued: run it again for the others: %w", result.Enqueued, err)
	}
	slices.SortFunc(result.Refused, func(a, b Refusal) int { return cmp.Compare(a.Group, b.Group) })
	return result, nil
}

// enqueuing is one Enqueue. It reads the terms of each entitlement once.
type enqueuing struct {
	*Request
	terms map[metering.EntitlementID]*metering.Terms
	floor time.Time // of a table that was restored; zero if it was not
}

// due returns the hour that a group is to wait for, or why it can't be reported.
func (e *enqueuing) due(ctx context.Context, g *metering.Group) (time.Time, *Refusal, error) {
	refuse := func(code metering.ProblemCode, format string, a ...any) (time.Time, *Refusal, error) {
		return time.Time{}, &Refusal{metering.GroupID(g.ID), code, fmt.Sprintf(format, a...)}, nil
	}
	id, now := metering.EntitlementID(g.EntitlementID), e.Now()
	terms, read := e.terms[id]
	if !read {
		all, err := e.Target.TermsOf(ctx, e.Organization, []metering.EntitlementID{id}, true)
		if err != nil {
			return time.Time{}, nil, err
		}
		terms = all[id]
		e.terms[id] = terms
	}
	if !terms.Exist() {
		return refuse(metering.ProblemEntitlementUnknown, "entitlement %s does not exist", metering.Quote(id))
	}
	if g.Partner != terms.Entitlement.Partner {
		return refuse(metering.ProblemEntitlementUnknown, "the group is of %s, and entitlement %s of %s", g.Partner, metering.Quote(id), terms.Entitlement.Partner)
	}
	used := g.UsedAt()
	if w := metering.WindowOf(g.Partner, used, terms.Entitlement.CancelTime); w.Closed(now) {
		return refuse(metering.ProblemExpired, "the usage is of %s, and %s accepted it until %s", at(used), g.Partner, at(w.End))
	}
	if err := g.CheckStorable(); err != nil { // of an older version: no room for what its report adds
		return refuse(metering.ProblemNotStorable, "%v: delete it, and report its usage in several groups", err)
	}
	if p := problemOf(terms, g, now); p != nil {
		return refuse(p.Code, "%s", p.Message)
	}
	schedule := reports.ScheduleBy(terms)
	due, code := schedule.Due(used, time.Time{}, now, now)
	if code != "" {
		return refuse(code, "no hour may take usage of %s", at(used))
	}
	if used.Before(e.floor) && !e.NotBilled {
		return refuse(metering.ProblemOutcomeUnknown, "the usage is of %s, and the table was restored from a backup, and resumed from %s on: "+
			"it may have been enqueued and billed since the backup; look at the marketplace: if it has none of it, enqueue it with --not-billed, "+
			"else delete the group, and report as new usage what it does not have", at(used), at(e.floor))
	}
	return due, nil, nil
}

// problemOf is the first problem of a group, by the rules for new usage. Its records are what is
// reported, so they are not converted; its billable records are converted when the hour is sealed.
func problemOf(terms *metering.Terms, g *metering.Group, now time.Time) *metering.Problem {
	stored := *g
	if len(g.MetaInfo.BillableRecords) == 0 {
		stored.MetaInfo.OriginRecords = nil
		terms = &metering.Terms{Entitlement: terms.Entitlement, Connection: terms.Connection}
	}
	sent := stored.AsReported()
	sent.MetaInfo.SkipValidation = false
	judged := terms.Judge(&sent, now)
	for i := range judged.Problems {
		if judged.Problems[i].Severity == metering.SeverityError {
			return &judged.Problems[i]
		}
	}
	return nil
}

// Incomplete reports whether a group was refused.
func (i *Imported) Incomplete() bool { return len(i.Refused) > 0 }

// WriteText writes it for people.
func (i *Imported) WriteText(w io.Writer) error {
	var text strings.Builder
	for _, r := range i.Refused {
		fmt.Fprintf(&text, "group %s is refused: %s: %s\n", metering.Quote(r.Group), r.Code, r.Reason)
	}
	fmt.Fprintf(&text, "enqueued %d, refused %d\n", i.Enqueued, len(i.Refused))
	_, err := io.WriteString(w, text.String())
	return err
}
