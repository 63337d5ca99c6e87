package operate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/reporting"
	"github.com/marketmeter/marketmeter/internal/reporting/inprocess"
	"github.com/marketmeter/marketmeter/internal/stack"
)

// maxRounds bounds a run. Each round plans and sends all that is due; the second finds what the
// first has sealed, if a hint was lost.
const maxRounds = 20

// Ran is what a run in this process has done.
type Ran struct {
	Rounds    int      `json:"rounds"`
	Planned   int      `json:"planned"`   // places that were looked at
	Submitted int      `json:"submitted"` // lanes that were sent
	Failed    int      `json:"failed"`    // of these, how many ended with an error, which is in the log
	Stopped   string   `json:"stopped,omitempty"`
	Reports   []Report `json:"reports"` // those that have changed
	Left      int      `json:"left"`    // places at which usage waits for its hour to close, or for an attempt
}

// Report is a report as a run has left it.
type Report struct {
	Report       string                 `json:"report"`
	Organization metering.OrgID         `json:"organization"`
	Entitlement  metering.EntitlementID `json:"entitlement"`
	Hour         time.Time              `json:"hour"`
	State        reports.State          `json:"state"`
	Partner      metering.Partner       `json:"partner,omitempty"`
	Records      []Record               `json:"records"`
}

// Record is a dimension of a report.
type Record struct {
	Dimension string               `json:"dimension"`
	Quantity  string               `json:"quantity"`
	Outcome   reports.Kind         `json:"outcome,omitempty"` // absent: not decided yet
	Evidence  reports.Evidence     `json:"evidence,omitempty"`
	Code      metering.ProblemCode `json:"code,omitempty"`
	Reason    string               `json:"reason,omitempty"`
}

// Run does what the schedule does. On DynamoDB Local beside a sandbox, it plans and submits in this
// process until nothing is due. On any other table it enqueues hints for the workers of its stack.
func Run(ctx context.Context, r *Request) (Result, error) {
	worker, err := inprocess.NewWorker(ctx, r.Target, sandboxURL(r), r.Now, r.Log)
	switch {
	case errors.Is(err, inprocess.ErrOff):
		return hint(ctx, r, err)
	case err != nil:
		return nil, err
	}
	return runHere(ctx, worker)
}

// sandboxURL is the sandbox that the environment names, or that of the local stack if its table is
// the one to act on.
func sandboxURL(r *Request) string {
	if named := r.Getenv("SANDBOX_URL"); named != "" {
		return named
	}
	local, err := stack.ReadEnv(stack.EnvFile(r.Getenv))
	if err != nil || local["DYNAMODB_ENDPOINT"] != r.Target.At || local["TABLE_NAME"] != r.Target.Name {
		return ""
	}
	return local["SANDBOX_URL"]
}

// runHere works in this process until nothing is due.
func runHere(ctx context.Context, worker reporting.Worker) (*Ran, error) {
	ran := &Ran{Reports: []Report{}}
	var err error
	if ran.Stopped, err = worker.Store.Gate(ctx); err != nil || ran.Stopped != "" {
		return ran, err
	}
	var mu sync.Mutex
	written := map[reports.Place]*reports.Hour{}
	runner := inprocess.New(worker, func(h *reports.Hour) {
		mu.Lock()
		defer mu.Unlock()
		if last := written[h.Place()]; last == nil || last.Version < h.Version {
			written[h.Place()] = h
		}
	})
	for ran.Rounds < maxRounds {
		did, seen, err := runner.Round(ctx)
		ran.Rounds++
		ran.Planned += did.Planned
		ran.Submitted += did.Submitted
		ran.Failed += did.Failed
		ran.Left = seen.Places
		if err != nil {
			return ran, err
		}
		if did.Steps == 0 {
			break
		}
	}
	for _, h := range slices.SortedFunc(maps.Values(written), func(a, b *reports.Hour) int {
		return cmp.Or(a.Start.Compare(b.Start), cmp.Compare(a.Organization, b.Organization), cmp.Compare(a.Entitlement, b.Entitlement))
	}) {
		ran.Reports = append(ran.Reports, ReportOf(h))
	}
	return ran, nil
}

// ReportOf is the report of an hour.
func ReportOf(h *reports.Hour) Report {
	r := Report{Report: h.ID(), Organization: h.Organization, Entitlement: h.Entitlement, Hour: h.Start, State: h.State, Records: []Record{}}
	if h.Sealed == nil {
		return r
	}
	r.Partner = h.Sealed.Partner
	for i := range h.Sealed.Records {
		record := &h.Sealed.Records[i]
		o := &record.Outcome
		r.Records = append(r.Records, Record{record.Dimension, record.Quantity.String(), o.Kind, o.Evidence, o.Code, o.Reason})
	}
	return r
}

// Incomplete reports whether something has failed, or nothing may be done.
func (r *Ran) Incomplete() bool { return r.Failed > 0 || r.Stopped != "" }

// WriteText writes what was done for people.
func (r *Ran) WriteText(w io.Writer) error {
	var text strings.Builder
	if r.Stopped != "" {
		fmt.Fprintf(&text, "Nothing is reported: %s\n", r.Stopped)
	}
	for i := range r.Reports {
		text.WriteString(r.Reports[i].Line() + "\n")
	}
	fmt.Fprintf(&text, "rounds %d, planned %d, submitted %d, failed %d, reports changed %d, left %d\n",
		r.Rounds, r.Planned, r.Submitted, r.Failed, len(r.Reports), r.Left)
	_, err := io.WriteString(w, text.String())
	return err
}

// Line describes a report in a line.
func (r *Report) Line() string {
	var records []string
	for i := range r.Records {
		record := &r.Records[i]
		said := fmt.Sprintf("%s %s %s", record.Dimension, record.Quantity, cmp.Or(string(record.Outcome), "not decided yet"))
		if record.Reason != "" {
			said += " (" + record.Reason + ")"
		}
		records = append(records, said)
	}
	return fmt.Sprintf("%s %s, entitlement %s, %s: %s", r.State, at(r.Hour), metering.Quote(r.Entitlement), cmp.Or(string(r.Partner), "no partner yet"),
		cmp.Or(strings.Join(records, ", "), "no records yet"))
}

// Hinted is what a run has enqueued for the workers of a stack.
type Hinted struct {
	Here    string `json:"here"`   // why nothing was done in this process
	Places  int    `json:"places"` // hints to plan
	Lanes   int    `json:"lanes"`  // hints to submit
	Stopped string `json:"stopped,omitempty"`
}

// hint enqueues hints for what is due. why is why the workers can't run here.
func hint(ctx context.Context, r *Request, why error) (Result, error) {
	q, known := queuesOf(r)
	if !known {
		return nil, fmt.Errorf("nothing was done: %w; hints for the workers of a stack go to the queues in PLAN_QUEUE_URL and SUBMIT_QUEUE_URL, its outputs PlanQueueUrl and SubmitQueueUrl", why)
	}
	stopped, err := r.Target.Gate(ctx)
	if err != nil || stopped != "" {
		return &Hinted{Here: why.Error(), Stopped: stopped}, err
	}
	worker := reporting.Worker{Store: r.Target.Table, Queue: q.hints(), Now: r.Now, Log: inprocess.Warnings(r.Log)}
	seen, err := worker.Schedule(ctx)
	if err != nil {
		return nil, err
	}
	return &Hinted{Here: why.Error(), Places: seen.Places, Lanes: seen.Lanes}, nil
}

// Incomplete reports whether nothing may be done.
func (h *Hinted) Incomplete() bool { return h.Stopped != "" }

// WriteText writes it for people.
func (h *Hinted) WriteText(w io.Writer) error {
	if h.Stopped != "" {
		_, err := fmt.Fprintf(w, "Nothing is reported: %s\n", h.Stopped)
		return err
	}
	_, err := fmt.Fprintf(w, "Nothing was sent from here: %s.\nHints are enqueued for the workers of the stack: to plan %d, to submit %d\n", h.Here, h.Places, h.Lanes)
	return err
}
