package reporting

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
)

const (
	// maxDue is how many hours of a lane a Submit sends: more by less than a page.
	maxDue = 200
	// maxPages is how many pages of maxDue hours it reads. A page takes a second if each of its
	// terms is looked at alone.
	maxPages = 10
	// sendMargin is what Submit leaves of its time when it begins a call, which takes 15 s at most.
	sendMargin = 30 * time.Second
)

// Submit sends the records of a lane that are due, first attempts before others, in full requests,
// and decides their outcomes. It ends early if the marketplace refuses the whole lane; the hours
// stay due. It does nothing while the lane is left alone for that.
func (w *Worker) Submit(ctx context.Context, lane string) error {
	if w.Lanes.left(lane, w.Now()) {
		return nil
	}
	ctx = w.noticing(ctx)
	if closed, err := w.closed(ctx); closed || err != nil {
		return err
	}
	s := submission{Worker: w, lane: lane}
	more, unread := s.find(ctx)
	if len(s.hours) == 0 { // find has counted why
		return unread
	}
	first := s.hours[0]
	if err := s.connect(ctx, first.Organization, first.Sealed.Partner); err != nil {
		return err
	}
	err := errors.Join(unread, s.send(ctx))
	if more && !s.stopped && s.wrote.Load() { // else another Submit would find the same
		s.hint(Hint{Lane: lane, Place: first.Place()})
	}
	s.hintPending()
	return errors.Join(err, w.Queue.Enqueue(ctx, s.hints...))
}

// find reads the hours of the lane that are due, at most maxDue, and returns whether there may be
// more. Those that can't be read keep their place before others: it reads on behind them, up to
// maxPages. What it has read before an error is sent.
func (s *submission) find(ctx context.Context) (more bool, err error) {
	var unreadable []reports.Place
	defer func() {
		if n := len(unreadable); n > 0 { // one line: it may be the whole lane
			s.event(ctx, EventUnknownVersion, n, at(unreadable[0]))
		}
	}()
	page := 0
	for places, err := range s.Store.Due(ctx, s.lane, s.Now(), maxDue) {
		if err != nil {
			return false, err
		}
		stored, err := s.Store.Hours(ctx, places)
		if err != nil {
			return false, err
		}
		var hours []*sending
		for _, p := range places {
			switch h := stored[p]; {
			case h == nil:
				unreadable = append(unreadable, p)
			case h.State == reports.StateSealed && h.Sealed.Lane == s.lane: // else the index lags
				hours = append(hours, &sending{Hour: h, read: h})
			}
		}
		if hours, err = s.withTerms(ctx, hours); err != nil {
			return false, err
		}
		s.hours = append(s.hours, hours...)
		if page++; len(s.hours) >= maxDue || page == maxPages {
			return true, nil
		}
	}
	return false, nil
}

// withTerms reads the schedules of hours of the lane. It returns those whose terms can be read:
// they are sent, whatever the others have.
func (s *submission) withTerms(ctx context.Context, hours []*sending) ([]*sending, error) {
	if len(hours) == 0 {
		return nil, nil
	}
	ids := make([]metering.EntitlementID, len(hours))
	for i, h := range hours {
		ids[i] = h.Entitlement
	}
	slices.Sort(ids)
	terms, err := s.readableTerms(ctx, hours[0].Organization, slices.Compact(ids))
	if err != nil {
		return nil, err
	}
	hours = slices.DeleteFunc(hours, func(h *sending) bool { _, ok := terms[h.Entitlement]; return !ok })
	for _, h := range hours {
		h.schedule = reports.ScheduleBy(terms[h.Entitlement])
		h.schedule.Partner = h.Sealed.Partner // as it was sealed
	}
	return hours, nil
}

// submission is one Submit.
type submission struct {
	*Worker
	lane        string
	marketplace Marketplace // nil if the connection can't be used
	hours       []*sending
	stopped     bool // the lane is refused, the connection can't be used, workers are paused, or the time is over
	wrote       atomic.Bool

	// Of refusals that may be the lane's (Result.OrLane).
	passed   bool    // the marketplace has accepted or refused a record: the lane works
	suspects []item  // refused before that, without a record of another entitlement
	refusal  *Result // of the last suspect

	mu    sync.Mutex
	hints []Hint
}

// sending is an hour that is sent, as this worker has written it last.
type sending struct {
	*reports.Hour
	read     *reports.Hour // as the submission has read it
	schedule reports.Schedule
	lost     bool // another worker has changed it: it is left to the next Submit
}

// item is a record that is due.
type item struct {
	hour      *sending
	dimension string
	attempt   int // the number of the attempt that is stored for the call
}

func (s *submission) connect(ctx context.Context, org metering.OrgID, partner metering.Partner) error {
	connection, err := s.Store.Connection(ctx, org, partner)
	if err == nil {
		s.marketplace, err = s.Marketplaces.Marketplace(org, connection.Value)
		if err != nil {
			s.event(ctx, EventConnectionRefused, 1, "organization", string(org), "partner", string(partner), "error", err.Error())
			s.stopped = true
		}
		return nil
	}
	if metering.CodeOf(err) == metering.NotFound {
		s.stopped = true
		s.event(ctx, EventNoConnection, len(s.hours), "organization", string(org), "partner", string(partner), "reason", "the connection was deleted")
		return nil
	}
	return err
}

// send sends what is due, and decides hours of which nothing can be sent any more.
func (s *submission) send(ctx context.Context) error {
	var due []item
	var failed []error // an hour that can't be written is in no other's way
	now := s.Now()
	for _, h := range s.hours {
		dimensions := h.Due(&h.schedule, now)
		for _, dimension := range dimensions {
			due = append(due, item{hour: h, dimension: dimension})
		}
		if len(dimensions) == 0 && !now.Before(h.NextAttempt(&h.schedule)) {
			failed = append(failed, s.decided(ctx, h, nil, nil))
		}
	}
	slices.SortStableFunc(due, func(a, b item) int { return cmp.Compare(a.again(), b.again()) })
	if !s.stopped && probeFirst(due) {
		failed = append(failed, s.call(ctx, due[:1]))
		s.suspect(ctx, 1)
		due = due[1:]
	}
	failed = append(failed, s.callAll(ctx, due))
	if !s.stopped && !s.passed {
		s.suspect(ctx, 1)
	}
	if s.passed { // the suspects are at fault: their entitlements, each alone
		for _, items := range byEntitlement(s.suspects) {
			failed = append(failed, s.callAll(ctx, items))
		}
	}
	return errors.Join(failed...)
}

// callAll makes the calls that the records of items need, until the lane is refused.
func (s *submission) callAll(ctx context.Context, items []item) error {
	var failed []error
	for records := recordsOf(items); len(items) > 0 && !s.stopped; {
		n := s.marketplace.Fit(records)
		failed = append(failed, s.call(ctx, items[:n]))
		items, records = items[n:], records[n:]
	}
	return errors.Join(failed...)
}

// probeFirst reports whether the lane was at fault in the last call with one of the items, so that
// one item is to be sent alone. It moves that to the front: one of the entitlement of which nothing
// was sent for longest, so that no record that is itself at fault stops the others for long.
func probeFirst(due []item) bool {
	last := map[metering.EntitlementID]time.Time{}
	refused := false
	for i := range due {
		if a := due[i].hour.Record(due[i].dimension).LastAttempt(); a != nil {
			refused = refused || a.Lane
			last[due[i].hour.Entitlement] = metering.Later(last[due[i].hour.Entitlement], a.Time)
		}
	}
	if !refused {
		return false
	}
	first := 0
	for i := range due {
		if last[due[i].hour.Entitlement].Before(last[due[first].hour.Entitlement]) {
			first = i
		}
	}
	probe := due[first]
	copy(due[1:], due[:first])
	due[0] = probe
	return true
}

// again is 0 for a record that was never sent, else 1.
func (i *item) again() int { return min(1, len(i.hour.Record(i.dimension).Attempts)) }

func recordsOf(items []item) []Record {
	records := make([]Record, len(items))
	for i := range items {
		h := items[i].hour.Hour
		records[i] = *recordOf(h, h.Record(items[i].dimension))
	}
	return records
}

// recordOf is what is sent of a sealed record. It follows from the hour alone.
func recordOf(h *reports.Hour, r *reports.Record) *Record {
	return &Record{
		Organization: h.Organization, Entitlement: h.Entitlement, Product: h.Sealed.Product, IDs: h.Sealed.Marketplace,
		Dimension: r.Dimension, Quantity: r.Quantity, Start: h.Sealed.From, End: h.Sealed.To,
	}
}

// call makes one call with the records of items, unless workers are paused: it stores an attempt in
// each of their hours, sends, stores the responses, and decides. If the request was refused because
// of some of its records, it calls again with each half.
func (s *submission) call(ctx context.Context, items []item) error {
	if shortOf(ctx, sendMargin) {
		s.stopped = true
		s.hint(Hint{Lane: s.lane, Place: items[0].hour.Place()})
		return nil
	}
	if closed, err := s.closed(ctx); closed || err != nil {
		s.stopped = true
		return err
	}
	began := s.Now().Round(0) // by the wall: a monotonic clock stands while a machine sleeps
	items, failed := s.begin(ctx, items, began)
	if len(items) == 0 {
		return failed
	}
	// A worker that slept since then must not send after the window.
	if late := s.Now().Round(0); late.Sub(began) > time.Minute || slices.ContainsFunc(items, func(i item) bool {
		return !late.Before(i.hour.SendUntil(i.dimension, &i.hour.schedule))
	}) {
		return errors.Join(failed, s.respond(ctx, items, began, time.Time{}, notSent(len(items))))
	}
	response := s.marketplace.Send(ctx, recordsOf(items))
	s.judge(items, &response)
	notBefore := s.fault(ctx, items, &response)
	failed = errors.Join(failed, s.respond(ctx, items, began, notBefore, response))
	s.suspect(ctx, maxSuspects)
	var divided []item
	for i := range items {
		if response.Results[i].Next == Bisect {
			divided = append(divided, items[i])
		}
	}
	for half := range slices.Chunk(divided, max(1, (len(divided)+1)/2)) {
		if s.stopped {
			break
		}
		failed = errors.Join(failed, s.call(ctx, half))
	}
	return failed
}

// maxSuspects is of how many entitlements records are refused, and none is accepted, until the lane
// is taken for the cause.
const maxSuspects = 3

// judge decides what a refusal means that is some record's or the lane's. The marketplace refuses
// the records of an entitlement alike, so they are not divided. They are at fault if another
// request of this submission has passed, or if they were at fault before. Else they are suspects,
// and wait for the lane.
func (s *submission) judge(items []item, response *Response) {
	s.passed = s.passed || slices.ContainsFunc(response.Results, Result.passed)
	divisible := slices.ContainsFunc(items, func(i item) bool { return i.hour.Entitlement != items[0].hour.Entitlement })
	for i := range items {
		r := &response.Results[i]
		if r.OrLane == NoLaneFault || r.Next == Bisect && divisible {
			continue
		}
		r.Next = Hourly
		if s.passed || items[i].wasAtFault(r.Problem) {
			continue
		}
		r.Next = WaitForLane
		s.suspects = append(s.suspects, items[i])
		s.refusal = r
	}
}

// passed reports whether the marketplace has read the record, and so accepted the credentials.
func (r Result) passed() bool {
	return r.Verdict == reports.Billed || r.Verdict == reports.Duplicate || r.Verdict == reports.Refused && r.Raw != nil
}

// wasAtFault reports whether the last attempt before this one that was the record's own was refused
// with the problem: others of the lane passed then.
func (i *item) wasAtFault(problem metering.ProblemCode) bool {
	for _, a := range slices.Backward(i.hour.Record(i.dimension).Attempts) {
		if a.Number != i.attempt && !a.Lane {
			return a.Result == reports.Refused && a.Code == problem
		}
	}
	return false
}

// suspect takes the lane for the cause if nothing has passed, and the suspects are of that many
// entitlements.
func (s *submission) suspect(ctx context.Context, enough int) {
	if s.passed || len(byEntitlement(s.suspects)) < enough {
		return
	}
	s.fault(ctx, s.suspects, &Response{Lane: s.refusal.OrLane, LaneReason: s.refusal.Reason})
}

// notSent is the response of a call that was not made.
func notSent(n int) Response {
	results := make([]Result, n)
	for i := range results {
		results[i] = Result{Verdict: reports.Refused, Next: Resend, Reason: "not sent: the worker was too late"}
	}
	return Response{Results: results}
}

// fault counts what is wrong with the lane, and ends the submission. It returns until when the lane
// is left alone; zero if nothing is wrong.
func (s *submission) fault(ctx context.Context, items []item, response *Response) (until time.Time) {
	if response.Lane == NoLaneFault {
		return until
	}
	s.stopped = true
	until = s.laneWaits(response.RetryAfter)
	s.Lanes.leave(s.lane, s.Now(), until)
	event := EventConnectionRefused
	if response.Lane == Throttled || response.Lane == Unreachable {
		event = EventThrottled
	}
	h := items[0].hour
	s.event(ctx, event, 1, "organization", string(h.Organization), "partner", string(h.Sealed.Partner), "lane", s.lane,
		"fault", response.Lane.String(), "reason", response.LaneReason, "retryAfterSeconds", int(response.RetryAfter.Seconds()))
	return until
}

// laneWaits returns until when the lane is left alone: for half of what is left of the window of a
// record at most, so that the next schedule may come before its end.
func (s *submission) laneWaits(retryAfter time.Duration) time.Time {
	now := s.Now()
	wait := min(max(retryAfter, minLaneWait), maxLaneWait)
	for _, h := range s.hours {
		if h.State != reports.StateSealed {
			continue
		}
		for i := range h.Sealed.Records {
			r := &h.Sealed.Records[i]
			if left := h.SendUntil(r.Dimension, &h.schedule).Sub(now); r.Outcome.Kind == reports.Undecided && left > 0 {
				wait = min(wait, left/2)
			}
		}
	}
	return now.Add(wait)
}

// byHour groups items by their hours, in order.
func byHour(items []item) [][]item {
	return grouped(items, func(i *item) *sending { return i.hour })
}

// byEntitlement groups items by their entitlements, in order.
func byEntitlement(items []item) [][]item {
	return grouped(items, func(i *item) metering.EntitlementID { return i.hour.Entitlement })
}

// grouped groups values by a key, in order.
func grouped[T any, K comparable](all []T, key func(*T) K) (groups [][]T) {
	at := map[K]int{}
	for i := range all {
		k := key(&all[i])
		n, ok := at[k]
		if !ok {
			n = len(groups)
			at[k], groups = n, append(groups, nil)
		}
		groups[n] = append(groups[n], all[i])
	}
	return groups
}

// begin stores an attempt of each record in its hour. It returns those that are to be sent: not
// those of an hour that another worker has changed, or that could not be written.
func (s *submission) begin(ctx context.Context, items []item, now time.Time) (begun []item, err error) {
	hours := byHour(items)
	ready := make([][]item, len(hours))
	err = each(ctx, len(hours), func(n int) error {
		h := hours[n][0].hour
		if h.lost {
			return nil
		}
		dimensions := make([]string, len(hours[n]))
		for i := range hours[n] {
			dimensions[i] = hours[n][i].dimension
		}
		after, sent, err := h.Begin(dimensions, &h.schedule, now)
		if errors.Is(err, reports.ErrState) || err == nil && len(sent) == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		after.Next = after.NextAttempt(&h.schedule)
		switch err := s.Store.Write(ctx, &reports.Step{Before: h.Hour, After: &after}); {
		case errors.Is(err, reports.ErrChanged):
			h.lost = true
			return nil
		case err != nil:
			return err
		}
		h.Hour = &after
		s.wrote.Store(true)
		for _, i := range hours[n] {
			if slices.Contains(sent, i.dimension) {
				i.attempt = after.Record(i.dimension).LastAttempt().Number
				ready[n] = append(ready[n], i)
			}
		}
		return nil
	})
	return slices.Concat(ready...), err
}

// respond stores the response of a call and decides. The results are in the order of the items. The
// next attempt is not before notBefore, in any process. It does so even if the context ends: what
// is not stored stays in doubt.
func (s *submission) respond(ctx context.Context, items []item, began, notBefore time.Time, response Response) error {
	results := map[item]*Result{}
	for i := range items {
		results[items[i]] = &response.Results[i]
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sendMargin/2)
	defer cancel()
	// The hours of an entitlement share a ledger: one comes after the other.
	hours := grouped(byHour(items), func(of *[]item) metering.EntitlementID { return (*of)[0].hour.Entitlement })
	failed := make([]error, len(hours))
	return each(ctx, len(hours), func(n int) error {
		for ; len(hours[n]) > 0; hours[n] = hours[n][1:] {
			err := s.respondHour(ctx, hours[n][0], results, began, notBefore, &response)
			if metering.CodeOf(err) == metering.Unavailable {
				return err // again, from this hour on
			}
			failed[n] = errors.Join(failed[n], err)
		}
		return failed[n]
	})
}

// respondHour is respond for one hour.
func (s *submission) respondHour(ctx context.Context, items []item, results map[item]*Result, began, notBefore time.Time, response *Response) error {
	h := items[0].hour
	call := reports.StoredCall{
		Time: began, Status: response.Status, RequestID: response.RequestID, CorrelationID: response.CorrelationID,
	}
	for _, i := range items {
		if raw := results[i].Raw; raw != nil {
			call.Responses = append(call.Responses, raw)
		}
	}
	var calls []reports.StoredCall
	if response.Request != nil {
		call.Request = s.marketplace.Body(recordsOf(items))
		calls = append(calls, call)
	}
	return s.decided(ctx, h, func(h reports.Hour) (after reports.Hour, err error) {
		after = h
		after.Next = notBefore
		for _, i := range items {
			result, err := results[i].response()
			if err != nil {
				s.Log.WarnContext(ctx, "a response can't be read", "error", err.Error())
			}
			if after, err = after.Respond(i.dimension, i.attempt, result); err != nil {
				return after, err
			}
		}
		return after, nil
	}, calls)
}

// decided is decide for an hour that is being sent. It enqueues a hint for one that is decided.
func (s *submission) decided(ctx context.Context, h *sending, change func(reports.Hour) (reports.Hour, error), calls []reports.StoredCall) error {
	after, err := s.decide(ctx, h.Hour, &h.schedule, change, calls)
	if err != nil {
		return err
	}
	s.wrote.Store(true)
	if h.Hour = after; after.State == reports.StateDecided {
		s.hint(Hint{Place: after.Place()})
	}
	return nil
}

func (s *submission) hint(h Hint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hints = append(s.hints, h)
}

// response is the result as the decisions read it. With an error, the record is in doubt.
func (r *Result) response() (reports.Response, error) {
	response := reports.Response{
		Result: r.Verdict, Receipt: r.Receipt, Code: r.Problem, Reason: r.Reason, Again: r.Next != Done, Lane: r.Next == WaitForLane || r.Next == Bisect,
	}
	if r.Accepted == nil {
		return response, nil
	}
	number, err := metering.ParseNumber(r.Accepted.Quantity) // JSON: it may have an exponent
	if err != nil {
		return reports.Response{Reason: r.Reason}, err
	}
	accepted, err := metering.ParseExact(number.String())
	if err != nil {
		return reports.Response{Reason: r.Reason}, err
	}
	response.Accepted, response.AcceptedAt, response.Receipt = &accepted, r.Accepted.Time, r.Accepted.Receipt
	return response, nil
}

// decide stores a change of an hour, and the outcomes that its history allows then, again and again
// while others change the hour or its ledger. It returns the hour as it is stored. A nil change
// changes nothing else. If the change sets Next, the next attempt is not before that.
func (w *Worker) decide(ctx context.Context, h *reports.Hour, s *reports.Schedule, change func(reports.Hour) (reports.Hour, error), calls []reports.StoredCall) (*reports.Hour, error) {
	for attempt := 0; ; attempt++ {
		after := *h
		after.Next = time.Time{}
		var err error
		if change != nil {
			if after, err = change(after); err != nil {
				return h, err
			}
		}
		step := &reports.Step{Before: h, After: &after, Calls: calls}
		if after.State == reports.StateSealed {
			decided, _, err := after.Decide(reports.Ledger{}, s, w.Now())
			if err != nil {
				return h, err
			}
			if len(newOutcomes(&after, &decided)) > 0 || decided.State != after.State {
				ledger, err := w.Store.Ledger(ctx, h.Organization, h.Entitlement)
				switch {
				case errors.Is(err, reports.ErrNewer): // the response is stored all the same
					w.event(ctx, EventUnknownVersion, 1, at(h.Place()), "error", err.Error())
				case err != nil:
					return h, err
				default:
					var left reports.Ledger
					if decided, left, err = after.Decide(ledger, s, w.Now()); err != nil {
						return h, err
					}
					after, step.Ledger = decided, &left
				}
			}
			if next := after.NextAttempt(s); after.State == reports.StateSealed {
				after.Next = metering.Later(after.Next, next)
			} else {
				after.Next = next
			}
		}
		if after.Version == h.Version {
			return h, nil // nothing has changed
		}
		err = w.Store.Write(ctx, step)
		if err == nil {
			w.countOutcomes(ctx, h, &after)
			return &after, nil
		}
		next, err := w.again(ctx, h.Place(), err, attempt)
		if err != nil {
			return h, err
		}
		h = next
	}
}

// newOutcomes returns the dimensions that got their outcome between two states of an hour.
func newOutcomes(before, after *reports.Hour) (dimensions []string) {
	for i := range after.Sealed.Records {
		r := &after.Sealed.Records[i]
		was := reports.Undecided
		if old := before.Record(r.Dimension); old != nil {
			was = old.Outcome.Kind
		}
		if was != r.Outcome.Kind {
			dimensions = append(dimensions, r.Dimension)
		}
	}
	return dimensions
}

// countOutcomes counts what a step has decided.
func (w *Worker) countOutcomes(ctx context.Context, before, after *reports.Hour) {
	if after.Sealed == nil {
		return
	}
	for _, dimension := range newOutcomes(before, after) {
		outcome := &after.Record(dimension).Outcome
		event := EventAccepted
		switch {
		case outcome.Evidence == reports.EvidenceDuplicate:
			event = EventDuplicate
		case outcome.Kind == reports.Conflict:
			event = EventConflict
		case outcome.Kind == reports.Unknown:
			event = EventUnknown
		case outcome.Kind == reports.Rejected && (outcome.Code == metering.ProblemExpired || outcome.Code == metering.ProblemNoHourLeft):
			event = EventExpired
		case outcome.Kind == reports.Rejected:
			event = EventRejected
		}
		w.event(ctx, event, 1, at(after.Place()), "dimension", dimension, "report", after.ID(), "reason", outcome.Reason)
		if event == EventDuplicate {
			w.event(ctx, EventAccepted, 1, at(after.Place()), "dimension", dimension, "report", after.ID())
		}
	}
	for i := range after.Sealed.Records {
		r := &after.Sealed.Records[i]
		old := before.Record(r.Dimension)
		closed := r.Outcome.Kind == reports.Accepted || r.Outcome.Kind == reports.Rejected
		if closed && old != nil && old.Outcome.Kind == r.Outcome.Kind && old.Outcome.Reason != r.Outcome.Reason { // a response that came later contradicts it
			w.event(ctx, EventConflict, 1, at(after.Place()), "dimension", r.Dimension, "report", after.ID(), "reason", r.Outcome.Reason)
		}
	}
}

// closed reports whether the gate is closed, which it counts.
func (w *Worker) closed(ctx context.Context) (bool, error) {
	reason, err := w.Store.Gate(ctx)
	if err != nil {
		return true, fmt.Errorf("reading whether reporting is paused: %w", err)
	}
	if reason != "" {
		w.event(ctx, EventGateClosed, 1, "reason", reason)
	}
	return reason != "", nil
}
