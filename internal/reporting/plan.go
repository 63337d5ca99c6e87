package reporting

import (
	"cmp"
	"context"
	cryptorand "crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
)

const (
	// groupsAtOnce is how many groups of an hour are written at once. In AWS a write takes some 5
	// ms, so that 2 are 400 a second. One organization has 1,000 a second in each index (AWS:
	// DynamoDB, "Partitions and data distribution"): the rest is for usage that comes in.
	groupsAtOnce = 2
	// hoursAtOnce is how many hours are written at once. Each has a partition of its own.
	hoursAtOnce = 32
	// membersAtOnce is how many groups are read at once: the keys of a BatchGetItem.
	membersAtOnce = 100
	// maxListed is how many groups a report names. Source: the API's usageRecordGroupIds.
	maxListed = 1000
	// planMargin is what Plan leaves of its time. A list of candidates takes less, unless its
	// groups are large. claimMargin is what it leaves while it claims.
	planMargin  = 30 * time.Second
	claimMargin = 10 * time.Second
	// lookAge is how old the terms and the gate may be when Plan decides by them. Plan reads them
	// again only if it has worked for longer since, as it does on an hour of many groups.
	lookAge = time.Second
	// sealWithin is how long after it began to read the terms Plan may store what it has sealed by
	// them. It is the contract's: a change is obeyed at most 5 s after its response.
	sealWithin = 5 * time.Second
	// minWrite is how much of that a write gets at least.
	minWrite = time.Second
	// leaseTime is how long a lease lasts if the context has no deadline: the time of a function.
	leaseTime = 2 * time.Minute
	// endLeaseTime bounds the end of a lease: a hint has to be enqueued after it.
	endLeaseTime = 2 * time.Second
)

// Plan opens, seals and applies the hour of a place, as far as it is due. Then it moves on the
// groups that wait for it although it has its report already. What another worker has done is
// adopted.
//
// An hour of more groups than fit in the context's time is continued by another Plan, which Plan
// enqueues. If the gate closes meanwhile, Plan claims, seals and moves on nothing more. An hour of
// several lists of candidates is left to the Plan that has leased it.
func (w *Worker) Plan(ctx context.Context, p reports.Place) error {
	pl := planning{Worker: w, place: p}
	err := pl.plan(w.noticing(ctx))
	pl.endLease(ctx) // before another Plan begins
	switch {
	case errors.Is(err, errClosed):
		return nil
	case errors.Is(err, errOutOfTime):
		return w.Queue.Enqueue(ctx, Hint{Place: p})
	}
	return err
}

func (pl *planning) plan(ctx context.Context) error {
	if err := pl.ask(ctx); err != nil {
		return err
	}
	h, err := pl.Store.Hour(ctx, pl.place)
	if errors.Is(err, reports.ErrNewer) { // another Plan would not read it either: the schedule comes again
		pl.event(ctx, EventUnknownVersion, 1, at(pl.place), "error", err.Error())
		return nil
	}
	if err != nil {
		return err
	}
	if !pl.lease(ctx, h) {
		return nil
	}
	if h != nil && h.State == reports.StateDecided {
		return pl.Settle(ctx, h) // if groups wait too, the next Schedule finds them
	}
	if err := pl.read(ctx, false); err != nil {
		return err
	}
	if pl.unreadable != nil && (h == nil || h.State != reports.StateOpen) { // an OPEN hour ends at its deadline
		return pl.unreadable
	}
	late := h != nil && h.State != reports.StateOpen
	if h == nil {
		if h, err = pl.open(ctx); h == nil || err != nil {
			return err
		}
		if !pl.lease(ctx, h) {
			return nil
		}
	}
	if h.State == reports.StateOpen {
		if h, err = pl.seal(ctx, h); err != nil {
			return err
		}
	}
	var shown error // it keeps no late usage waiting
	if h.State == reports.StateSealed {
		if h, err = pl.pass(ctx, h); err != nil {
			return err
		}
		if h.State == reports.StateSealed && h.WasSent() {
			shown = pl.showPending(ctx, h)
		}
	}
	if h.State == reports.StateDecided {
		if err := pl.Settle(ctx, h); err != nil {
			return err
		}
	}
	if !late {
		return shown // the index may list what was claimed just now
	}
	ids, err := pl.Store.Waiting(ctx, pl.place)
	if err != nil {
		return errors.Join(shown, err)
	}
	return errors.Join(shown, pl.moveOn(ctx, ids))
}

// planning is one Plan.
type planning struct {
	*Worker
	place      reports.Place
	asked      time.Time // when the gate was open
	terms      *metering.Terms
	unreadable error // why terms is nil, if what is stored can't be read
	schedule   reports.Schedule
	termsRead  time.Time            // when reading the terms began
	metrics    bool                 // the terms have the metrics
	lists      [][]metering.GroupID // of candidates, if this Plan has opened the hour
	began      bool                 // a list of candidates: the next one is for another Plan if the time is short
	doubt      string               // why the hour is sealed in doubt; empty if it is not
	progressed atomic.Bool          // a group was moved on or failed
	failedAt   time.Time            // of groups that fail: the same if the write is repeated
	holder     string               // the name under which it has leased the hour
}

// lease takes an hour of several lists of candidates that are to be claimed or applied, so that
// other Plans, which each Schedule asks for, do not do the same. It returns false if another Plan
// has it. An hour whose lease can't be written is worked on without one.
//
// It spares work and guards nothing: a worker that sleeps may still write when its lease is over. A
// lease ends with the time that its Plan has, so that a crash delays the hour by no more.
func (pl *planning) lease(ctx context.Context, h *reports.Hour) bool {
	if h == nil || h.Parts <= 1 || h.State != reports.StateOpen && h.State != reports.StateDecided {
		return true
	}
	lasts := leaseTime
	if deadline, ok := ctx.Deadline(); ok {
		lasts = time.Until(deadline)
	}
	now := pl.Now()
	pl.holder = randomName() // it is leased also if the response is lost
	leased, err := pl.Store.Lease(ctx, pl.place, pl.holder, now, now.Add(lasts))
	if err != nil {
		pl.Log.WarnContext(ctx, "an hour is not leased", at(pl.place), "error", err.Error())
		return true
	}
	if !leased {
		pl.holder = ""
	}
	return leased
}

// endLease ends the lease of this Plan, if it has one. If that fails, it ends by itself.
func (pl *planning) endLease(ctx context.Context) {
	if pl.holder == "" {
		return
	}
	until := time.Now().Add(endLeaseTime)
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(until) {
		until = deadline
	}
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), until) // also if the program ends
	defer cancel()
	if err := pl.Store.EndLease(ctx, pl.place, pl.holder); err != nil {
		pl.Log.WarnContext(ctx, "a lease is not ended", at(pl.place), "error", err.Error())
	}
}

// errClosed is the error of a Plan that the gate has closed for.
var errClosed = errors.New("reporting is paused, or the table was restored")

// ask asks the gate, unless it was open a moment ago. The error is errClosed if it is closed.
// Abandon works while it is closed.
func (pl *planning) ask(ctx context.Context) error {
	now := pl.Now().Round(0)
	if pl.doubt != "" || isWithin(lookAge, pl.asked, now) {
		return nil
	}
	closed, err := pl.closed(ctx)
	if closed && err == nil {
		return errClosed
	}
	pl.asked = now
	return err
}

// look asks the gate and reads the terms, unless both were read a moment ago.
func (pl *planning) look(ctx context.Context, metrics bool) error {
	if err := pl.ask(ctx); err != nil {
		return err
	}
	if isWithin(lookAge, pl.termsRead, pl.Now().Round(0)) && (pl.metrics || !metrics) {
		return nil
	}
	return pl.read(ctx, metrics)
}

// lookReadable is look for a caller that needs terms which can be read.
func (pl *planning) lookReadable(ctx context.Context) error {
	if err := pl.look(ctx, false); err != nil {
		return err
	}
	return pl.unreadable
}

// isWithin reports whether now is less than d after at. Both are of the wall: a monotonic clock
// stands while a machine sleeps.
func isWithin(d time.Duration, at, now time.Time) bool {
	age := now.Sub(at)
	return age >= 0 && age < d
}

// read reads the terms of the place, and the schedule that follows from them.
func (pl *planning) read(ctx context.Context, metrics bool) error {
	began := pl.Now().Round(0)
	terms, err := pl.Store.TermsOf(ctx, pl.place.Organization, []metering.EntitlementID{pl.place.Entitlement}, metrics)
	pl.unreadable = nil
	if isUnreadable(err) {
		pl.unreadable = err
	} else if err != nil {
		return err
	}
	pl.terms, pl.termsRead, pl.metrics = terms[pl.place.Entitlement], began, metrics
	pl.schedule = reports.ScheduleBy(pl.terms)
	return nil
}

// open opens the hour if it is closed for usage. It returns nil if there is nothing to open: it is
// too early or too late, nothing waits, or the usage can't be reported.
func (pl *planning) open(ctx context.Context) (*reports.Hour, error) {
	if pl.Now().Before(pl.schedule.Closes(pl.place.Hour)) {
		return nil, nil
	}
	ids, err := pl.Store.Waiting(ctx, pl.place)
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	if err := pl.lookReadable(ctx); err != nil { // a million groups take seconds to list
		return nil, err
	}
	now := pl.Now()
	if now.Before(pl.schedule.Closes(pl.place.Hour)) {
		return nil, nil
	}
	if code, reason := pl.unreportable(); code != "" {
		if !now.Before(pl.place.Hour.Add(time.Hour + NoConnectionAfter(pl.schedule.Partner))) {
			pl.event(ctx, EventNoConnection, len(ids), at(pl.place), "reason", reason)
		}
		return nil, pl.moveOn(ctx, ids)
	}
	first := metering.Later(pl.Store.Floor(), metering.HourOf(pl.schedule.Start))
	if deadline := pl.schedule.Deadline(pl.place.Hour); !deadline.IsZero() && !now.Before(deadline) || pl.place.Hour.Before(first) {
		return nil, pl.moveOn(ctx, ids)
	}
	return pl.create(ctx, ids)
}

// create opens the hour with the groups as candidates, or adopts the one that another worker has
// opened.
func (pl *planning) create(ctx context.Context, ids []metering.GroupID) (*reports.Hour, error) {
	h := reports.OpenHour(pl.place.Organization, pl.place.Entitlement, pl.place.Hour)
	lists := slices.Collect(slices.Chunk(ids, cmp.Or(pl.MaxCandidates, 5000)))
	h.Opened, h.Opener, h.Parts = pl.Now().UTC().Truncate(time.Millisecond), randomName(), len(lists)
	switch err := pl.Store.Open(ctx, &h, lists); {
	case errors.Is(err, reports.ErrChanged):
		return pl.Store.Hour(ctx, pl.place)
	case err != nil:
		return nil, err
	}
	pl.lists = lists
	return &h, nil
}

// randomName returns a name that nothing else has.
func randomName() string {
	var random [8]byte
	cryptorand.Read(random[:]) // never fails
	return hex.EncodeToString(random[:])
}

// unreportable returns why the usage of the place can't be reported; an empty code if it can.
func (pl *planning) unreportable() (metering.ProblemCode, string) {
	switch {
	case pl.terms == nil || pl.terms.Entitlement == nil:
		return metering.ProblemEntitlementUnknown, "the entitlement does not exist"
	case pl.terms.Connection == nil:
		return metering.ProblemNoConnection, "the organization has no connection to " + string(pl.terms.Entitlement.Partner)
	case pl.withoutIdentifiers():
		return metering.ProblemEntitlementWithoutIdentifiers, noIdentifiers
	}
	return "", ""
}

const noIdentifiers = "the entitlement has no complete identifiers of its marketplace"

func (pl *planning) withoutIdentifiers() bool {
	if pl.terms == nil || pl.terms.Entitlement == nil {
		return false
	}
	return !pl.terms.Entitlement.Marketplace.Complete(pl.terms.Entitlement.Partner)
}

// moveOn makes groups wait for the next hour that may take them, or fails them if none may. It
// enqueues a hint for that hour, which may have its report too. Groups whose usage can't be
// reported stay, until their window at the marketplace is over. The error is errOutOfTime if the
// time is over before, and another Plan has less to do.
func (pl *planning) moveOn(ctx context.Context, ids []metering.GroupID) error {
	var moved sync.Map // the hours, which are few
	for i, chunk := range slices.Collect(slices.Chunk(ids, membersAtOnce)) {
		if i > 0 && shortOf(ctx, claimMargin) {
			if pl.progressed.Load() { // without hints: those hours would be opened without the others
				return errOutOfTime
			}
			break
		}
		if err := pl.lookReadable(ctx); err != nil {
			return err
		}
		if code, _ := pl.unreportable(); i > 0 && code != "" && !pl.windowClosed() {
			break // all stay; the first are read to remove those from the index that do not wait
		}
		pl.failedAt = pl.Now()
		err := pl.eachWaiting(ctx, chunk, func(ctx context.Context, g *metering.Group) error {
			if code, reason := pl.unreportable(); code != "" {
				return pl.expire(ctx, g, code, reason)
			}
			due, err := pl.moveGroup(ctx, g)
			if !due.IsZero() {
				moved.Store(due, true)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	var hints []Hint
	for due := range moved.Range {
		next := pl.place
		next.Hour = due.(time.Time)
		hints = append(hints, Hint{Place: next})
	}
	return pl.Queue.Enqueue(ctx, hints...)
}

// windowClosed reports whether groups that wait for the place may be failed: the time is over in
// which the marketplace accepts usage of its hour, or some marketplace if the entitlement does not
// say which.
func (pl *planning) windowClosed() bool {
	return slices.ContainsFunc(metering.Partners, func(p metering.Partner) bool {
		window := metering.WindowOf(p, pl.place.Hour, pl.schedule.Cancel)
		return (p == pl.schedule.Partner || pl.schedule.Partner == "") && window.Closed(pl.Now())
	})
}

// expire fails a group if its window at the marketplace is over.
func (pl *planning) expire(ctx context.Context, g *metering.Group, code metering.ProblemCode, reason string) error {
	window := metering.WindowOf(g.Partner, pl.place.Hour, pl.schedule.Cancel)
	if !window.Closed(pl.Now()) {
		return nil
	}
	return pl.fail(ctx, g, code, reason+", and the time in which the marketplace accepts the usage is over")
}

// moveGroup makes a group wait for the next hour that may take it, which it returns, or fails it.
func (pl *planning) moveGroup(ctx context.Context, g *metering.Group) (due time.Time, err error) {
	if pl.Now().Before(pl.schedule.Start) { // it may be corrected, and a due hour only grows
		if pl.schedule.Carry {
			return due, nil
		}
		return due, pl.expire(ctx, g, metering.ProblemExpired, "the entitlement has not started")
	}
	after := metering.Later(pl.place.Hour, pl.Store.Floor().Add(-time.Hour))
	due, problem := pl.schedule.Due(g.UsedAt(), after, g.LastUpdateTime, pl.Now())
	switch problem {
	case "":
		pl.progressed.Store(true)
		return due, pl.Store.Move(ctx, pl.place, metering.GroupID(g.ID), due)
	case metering.ProblemExpired:
		return due, pl.fail(ctx, g, problem, "the time in which the marketplace accepts the usage is over")
	default:
		return due, pl.fail(ctx, g, problem, "the usage came after its hour was reported, and no later hour may take it")
	}
}

// fail makes a group that waits for the place REPORT_FAILED.
func (pl *planning) fail(ctx context.Context, g *metering.Group, code metering.ProblemCode, message string) error {
	path, hint := "/timestamp", metering.HintOf(code)
	if code == metering.ProblemNoConnection || code == metering.ProblemEntitlementUnknown || code == metering.ProblemEntitlementWithoutIdentifiers {
		path, hint = "/entitlementID", hint+" The window of the usage is over: "+metering.LateHint
	}
	problem := metering.Problem{Code: code, Severity: metering.SeverityError, Path: path, Message: message, Hint: hint}
	if expired, err := pl.Store.Expire(ctx, pl.place, metering.GroupID(g.ID), problem, pl.failedAt); !expired || err != nil {
		return err
	}
	pl.progressed.Store(true)
	event := EventExpired
	if path == "/entitlementID" {
		event = EventNoConnection
	}
	pl.event(ctx, event, 1, at(pl.place), "group", g.ID, "code", string(code))
	return nil
}

// eachWaiting calls do for those of the groups, membersAtOnce at most, that still wait for the
// place, some at once.
func (pl *planning) eachWaiting(ctx context.Context, ids []metering.GroupID, do func(context.Context, *metering.Group) error) error {
	groups, err := pl.Store.WaitingGroups(ctx, pl.place, ids)
	if err != nil {
		return err
	}
	return atOnce(ctx, groupsAtOnce, len(groups), func(ctx context.Context, i int) error { return do(ctx, &groups[i]) })
}

// atOnce calls do for each index below n, at most limit at once. It returns the first error, when
// all calls have ended.
//
// If the table is throttled, it repeats the call after a pause, and makes fewer at once from then
// on: usage that comes in is served first.
func atOnce(ctx context.Context, limit int32, n int, do func(ctx context.Context, i int) error) error {
	all, ctx := errgroup.WithContext(ctx)
	room := make(chan struct{}, limit)
	var closed atomic.Int32 // places of room that are not given back
	for i := range n {
		select {
		case room <- struct{}{}:
		case <-ctx.Done(): // some are never called: that is an error, whatever the others return
			return cmp.Or(all.Wait(), context.Cause(ctx))
		}
		all.Go(func() error {
			giveBack := true
			defer func() {
				if giveBack {
					<-room
				}
			}()
			return unthrottled(ctx, func() error { return do(ctx, i) }, func() {
				if giveBack && closed.Add(1) < limit {
					giveBack = false
				} else if giveBack {
					closed.Add(-1)
				}
			})
		})
	}
	return all.Wait()
}

// each calls do for each index below n, hoursAtOnce at once, and repeats a call after a pause if
// the table is throttled. One that fails does not end the others. It returns all errors.
func each(ctx context.Context, n int, do func(i int) error) error {
	var all errgroup.Group
	all.SetLimit(hoursAtOnce)
	errs := make([]error, n)
	for i := range n {
		all.Go(func() error {
			errs[i] = unthrottled(ctx, func() error { return do(i) }, func() {})
			return nil
		})
	}
	_ = all.Wait()
	return errors.Join(errs...)
}

// unthrottled calls do, and again after a pause while the table is throttled, which it reports
// before each pause.
func unthrottled(ctx context.Context, do func() error, throttled func()) error {
	for attempt := 0; ; attempt++ {
		err := do()
		if metering.CodeOf(err) != metering.Unavailable || attempt == maxPauses {
			return err
		}
		throttled()
		if !pause(ctx, minPause<<attempt) {
			return err
		}
	}
}

// The pauses after a throttle: 3 seconds in all.
const (
	maxPauses = 5
	minPause  = 100 * time.Millisecond
)

// pause waits, and reports whether the context still lives.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// claimed is what the groups of an open hour come to, each of which is claimed or absent.
type claimed struct {
	reports.Sum
	listed   []metering.GroupID // the first members
	billable []claimedList      // those that have members with billable records
	// What they used, once it is known: by terms that can seal the hour, and as they were accepted.
	converted, accepted *reports.Billable
}

// claimedList is a list of candidates with the members that it has.
type claimedList struct {
	part    int
	members []metering.GroupID
}

// stopped is the error of an hour that can't be sealed, which is not the worker's: someone has to
// look at it.
type stopped struct {
	reason string // for clients
	err    error  // for the log
}

func (s *stopped) Error() string { return s.err.Error() }

// seal claims the candidates of an open hour, and seals what its members used. An hour that can't
// be sealed ends if its window is over; else the error is a *stopped. The error is errOutOfTime if
// the time is over before.
//
// An hour is sealed, or ended, by terms that are at most sealWithin old when it is stored: claiming
// and reading its groups may take minutes.
func (pl *planning) seal(ctx context.Context, h *reports.Hour) (*reports.Hour, error) {
	of, err := pl.claimAll(ctx, h)
	if err != nil {
		return nil, err
	}
	failed := error(errLate)
	for attempt := 0; h.State == reports.StateOpen; attempt++ {
		if attempt == maxSteps {
			return nil, failed
		}
		if err := pl.look(ctx, of.Billable); err != nil {
			return nil, err
		}
		if pl.doubt == "" && pl.ongoing(h) {
			return h, nil
		}
		step, err := pl.step(ctx, h, of)
		if err != nil {
			return nil, err
		}
		now := pl.Now().Round(0)
		if !isWithin(sealWithin-minWrite, pl.termsRead, now) {
			continue
		}
		err = pl.write(ctx, step, sealWithin-now.Sub(pl.termsRead))
		if err == nil {
			return pl.stored(ctx, h, step.After, of)
		}
		failed = err
		found, err := pl.again(ctx, pl.place, err, attempt)
		if err != nil {
			return nil, err
		}
		if errors.Is(failed, errLate) && found.Version == step.After.Version && found.State == step.After.State {
			return pl.stored(ctx, h, found, of) // by the write that had no response in time, or another worker's
		}
		h = found
	}
	return h, nil
}

// ongoing reports whether an open hour has not ended: the cancellation that it was opened for was
// taken back, or is later now. A marketplace takes no usage of the time to come.
func (pl *planning) ongoing(h *reports.Hour) bool {
	_, end, left := pl.schedule.Sent(h.Start)
	return pl.unreadable == nil && left && pl.Now().Before(end)
}

// stored does what follows once the seal of an hour, or its end, is stored. If it is done twice,
// what is counted is counted twice, and nothing else.
func (pl *planning) stored(ctx context.Context, before, after *reports.Hour, of *claimed) (*reports.Hour, error) {
	pl.countOutcomes(ctx, before, after)
	if after.State == reports.StateDecided {
		return after, nil
	}
	pl.countCarried(ctx, after)
	if err := pl.Store.PutReport(ctx, after, of.listed); err != nil {
		return nil, err
	}
	return after, pl.Queue.Enqueue(ctx, Hint{Lane: after.Sealed.Lane, Place: pl.place})
}

// errLate is the error of a step that had no response in time: it may be stored.
var errLate = fmt.Errorf("the hour is not sealed within %s of reading its terms: %w", sealWithin, reports.ErrChanged)

// write writes a step within the time. If that is over before, the error is errLate.
func (pl *planning) write(ctx context.Context, step *reports.Step, within time.Duration) error {
	limited, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	err := pl.Store.Write(limited, step)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("%w: %w", errLate, err)
	}
	return err
}

// step is the seal of an open hour or, if it can't be sealed and its window is over, its end.
func (pl *planning) step(ctx context.Context, h *reports.Hour, of *claimed) (*reports.Step, error) {
	sealed, after, err := pl.sealBy(ctx, h, of)
	if s, ok := errors.AsType[*stopped](err); ok && pl.doubt == "" {
		expired, err := pl.expired(ctx, h, of, s)
		return &reports.Step{Before: h, After: &expired}, err
	}
	return &reports.Step{Before: h, After: &sealed, Ledger: &after}, err
}

// sealBy seals an open hour by the terms that were read last, in doubt if the table was restored.
// It stores nothing of it.
func (pl *planning) sealBy(ctx context.Context, h *reports.Hour, of *claimed) (sealed reports.Hour, after reports.Ledger, err error) {
	usage, err := pl.convert(ctx, h, of)
	if err != nil {
		return sealed, after, err
	}
	if pl.withoutIdentifiers() && pl.doubt == "" { // they never change once it is sealed
		return sealed, after, &stopped{noIdentifiers, errors.New(noIdentifiers)}
	}
	ledger, err := pl.Store.Ledger(ctx, h.Organization, h.Entitlement)
	if errors.Is(err, reports.ErrNewer) {
		return sealed, after, &stopped{"what earlier hours have left can't be read", err}
	}
	if err != nil {
		return sealed, after, err
	}
	if pl.doubt != "" {
		sealed, after, err = h.SealInDoubt(pl.terms, &pl.schedule, usage, ledger, pl.doubt)
	} else {
		sealed, after, err = h.Seal(pl.terms, &pl.schedule, usage, ledger)
	}
	if err != nil {
		return sealed, after, &stopped{err.Error(), err}
	}
	sealed.Sealed.Groups = of.Members
	lane := LaneOf(sealed.Sealed.Partner, recordOf(&sealed, &reports.Record{}))
	sealed.Sealed.Lane = lane.Key()
	return sealed, after, nil
}

// claimAll claims the candidates of an open hour. The error is errOutOfTime if the time is over
// before.
func (pl *planning) claimAll(ctx context.Context, h *reports.Hour) (*claimed, error) {
	all := &claimed{Sum: *reports.SumOf(nil, nil)}
	for part := range h.Parts {
		list, err := pl.candidates(ctx, h, part)
		if err != nil {
			return nil, err
		}
		if list.Sum == nil {
			if pl.began && shortOf(ctx, planMargin) {
				return nil, errOutOfTime
			}
			pl.began = true
			if list.Sum, err = pl.claim(ctx, h, list.IDs); err != nil {
				return nil, err
			}
			if err := pl.Store.PutSum(ctx, h, part, list.Sum); err != nil {
				return nil, err
			}
		}
		all.Add(list.Sum)
		present := list.Present()
		if list.Sum.Billable {
			all.billable = append(all.billable, claimedList{part, present})
		}
		all.listed = appendListed(all.listed, present)
	}
	return all, nil
}

// convert converts what the members of the hour used. The error of terms that can't be read is a
// *stopped. An entitlement that does not exist converts nothing: Seal refuses it.
func (pl *planning) convert(ctx context.Context, h *reports.Hour, of *claimed) (usage metering.HourUsage, err error) {
	if pl.unreadable != nil {
		return usage, &stopped{"the entitlement, a connection or a billable metric can't be read", pl.unreadable}
	}
	if !of.Billable || pl.terms == nil || pl.terms.Entitlement == nil {
		return metering.HourUsage{Totals: of.Totals}, nil
	}
	if of.converted == nil || !of.converted.ServesFor(pl.terms) {
		if of.converted, err = pl.billable(ctx, h, of, pl.terms); err != nil {
			return usage, err
		}
	}
	return pl.terms.ConvertHour(of.Totals, of.converted.Aggregates), nil
}

// billable returns what the members with billable records used, by the terms of the seal, which are
// nil if the hour can't be sealed. What a list comes to is stored if the hour has several, so that
// a Plan that runs out of time leaves the next one less to do: then the error is errOutOfTime.
func (pl *planning) billable(ctx context.Context, h *reports.Hour, of *claimed, terms *metering.Terms) (*reports.Billable, error) {
	all := reports.NewBillable()
	for _, list := range of.billable {
		used := reports.NewBillable()
		var err error
		if h.Parts > 1 {
			if used, err = pl.Store.Billable(ctx, h, list.part); err != nil {
				return nil, err
			}
		}
		if !used.ServesFor(terms) {
			if pl.began && shortOf(ctx, planMargin) {
				return nil, errOutOfTime
			}
			pl.began = true
			if used, err = pl.addBillable(ctx, h, list, terms, used); err != nil {
				return nil, err
			}
		}
		all.Join(used)
	}
	return all, nil
}

// addBillable adds up the members of a list of candidates, of which stored is what is stored.
func (pl *planning) addBillable(ctx context.Context, h *reports.Hour, list claimedList, terms *metering.Terms, stored *reports.Billable) (used *reports.Billable, err error) {
	used = reports.NewBillable()
	for chunk := range slices.Chunk(list.members, membersAtOnce) {
		members, err := pl.Store.Members(ctx, h, chunk)
		if err != nil {
			return nil, err
		}
		used.Add(terms, members)
	}
	if used.Keep(stored); h.Parts > 1 {
		err = pl.Store.PutBillable(ctx, h, list.part, used)
	}
	return used, err
}

// isUnreadable reports whether the error is of something stored that this version can't read, and
// not of a table that is out of reach.
func isUnreadable(err error) bool {
	of, ok := errors.AsType[*metering.Error](err)
	return ok && of.Code == metering.Internal
}

// expired ends an hour that can't be sealed, if the window of its usage is over. Until then the
// hour stays OPEN, and the error is what stops the seal. It stores nothing of it.
func (pl *planning) expired(ctx context.Context, h *reports.Hour, of *claimed, s *stopped) (expired reports.Hour, err error) {
	u := reports.Unsealed{Terms: pl.terms, Groups: of.Members, Reason: s.reason}
	if unknown := pl.terms == nil || pl.terms.Entitlement == nil; unknown && len(of.listed) > 0 { // a member says whose usage it is
		first, err := pl.Store.Members(ctx, h, of.listed[:1])
		if err != nil {
			return expired, err
		}
		if len(first) > 0 {
			u.Member = first[0].Group
		}
	}
	if _, err := h.Expire(&u, pl.Now()); errors.Is(err, reports.ErrEarly) {
		pl.event(ctx, EventSealStopped, 1, at(pl.place), "error", s.Error())
		return expired, s
	}
	if of.accepted == nil {
		if of.accepted, err = pl.billable(ctx, h, of, nil); err != nil {
			return expired, err
		}
	}
	u.Usage = of.accepted.AcceptedUsage(of.Totals)
	return h.Expire(&u, pl.Now())
}

// candidates returns a list of candidates. One that this Plan has just stored is not read.
func (pl *planning) candidates(ctx context.Context, h *reports.Hour, part int) (reports.Candidates, error) {
	if pl.lists != nil {
		return reports.Candidates{IDs: pl.lists[part]}, nil
	}
	return pl.Store.Candidates(ctx, h, part)
}

// maxSteps is how often a step is tried again that others disturb: they have made steps themselves.
const maxSteps = 20

// again reads the hour after a step that others have disturbed. It returns err if nothing did.
func (w *Worker) again(ctx context.Context, p reports.Place, err error, attempt int) (*reports.Hour, error) {
	if !errors.Is(err, reports.ErrChanged) || attempt >= maxSteps {
		return nil, err
	}
	if !pause(ctx, rand.N(10*time.Millisecond<<min(attempt, 5))) {
		return nil, err
	}
	h, err := w.Store.Hour(ctx, p)
	if err == nil && h == nil {
		err = fmt.Errorf("the hour %s of entitlement %s is missing", metering.FormatTime(p.Hour), metering.Quote(p.Entitlement))
	}
	return h, err
}

// shortOf reports whether less than that is left of the context's time.
func shortOf(ctx context.Context, margin time.Duration) bool {
	deadline, ok := ctx.Deadline()
	return ok && time.Until(deadline) < margin
}

// claim makes the candidates members of the hour and returns what they come to. It is of what the
// claims returned, never of what the index lists.
//
// If another Plan has opened the hour, members are read first: one that had no time left has
// claimed them, and each claim that fails costs what a group has in write units. The error is
// errOutOfTime if the time is over before.
func (pl *planning) claim(ctx context.Context, h *reports.Hour, ids []metering.GroupID) (*reports.Sum, error) {
	sum := reports.SumOf(nil, nil)
	now := pl.Now()
	for chunk := range slices.Chunk(ids, membersAtOnce) {
		if sum.Members > 0 && shortOf(ctx, claimMargin) {
			return nil, errOutOfTime
		}
		if err := pl.ask(ctx); err != nil {
			return nil, err
		}
		claimed := make([]*reports.Member, len(chunk))
		if pl.lists == nil {
			members, err := pl.Store.Members(ctx, h, chunk)
			if err != nil {
				return nil, err
			}
			for i := range members {
				claimed[slices.Index(chunk, metering.GroupID(members[i].Group.ID))] = &members[i]
			}
		}
		err := atOnce(ctx, groupsAtOnce, len(chunk), func(ctx context.Context, i int) (err error) {
			if claimed[i] == nil {
				claimed[i], err = pl.Store.Claim(ctx, h, chunk[i], now, pl.cancelDeadline(h))
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		sum.Add(reports.SumOf(chunk, claimed))
	}
	return sum, nil
}

// cancelDeadline is until when the marketplace takes usage of the hour if that is because the
// entitlement was cancelled; else zero. It may have been cancelled since the usage was stored.
func (pl *planning) cancelDeadline(h *reports.Hour) time.Time {
	window := metering.WindowOf(pl.schedule.Partner, h.Start, pl.schedule.Cancel)
	if !window.Cancelled {
		return time.Time{}
	}
	return window.End
}

// present returns the members of a list of candidates, all of which are claimed or absent.
func (w *Worker) present(ctx context.Context, h *reports.Hour, part int) ([]metering.GroupID, error) {
	list, err := w.Store.Candidates(ctx, h, part)
	if err != nil {
		return nil, err
	}
	if list.Sum == nil {
		return nil, fmt.Errorf("list %d of report %s has no sum", part, h.ID())
	}
	return list.Present(), nil
}

// appendListed appends members to those that the report of an hour names, as far as it names them.
func appendListed(listed, members []metering.GroupID) []metering.GroupID {
	return append(listed, members[:min(maxListed-len(listed), len(members))]...)
}

// pass decides a sealed hour that has nothing to send, and enqueues a hint for one that has.
func (pl *planning) pass(ctx context.Context, h *reports.Hour) (*reports.Hour, error) {
	s := pl.schedule
	s.Partner = h.Sealed.Partner
	if len(h.Due(&s, pl.Now())) > 0 || pl.Now().Before(h.NextAttempt(&s)) {
		return h, nil
	}
	if h.WasSent() { // Submit decides what it has sent
		return h, pl.Queue.Enqueue(ctx, Hint{Lane: h.Sealed.Lane, Place: pl.place})
	}
	return pl.decide(ctx, h, &s, nil, nil)
}

// Settle gives each member of a decided hour its status, writes the report, and settles the hour.
// The hour comes last: until then, it is found by the index of work. Of an hour that is still
// sealed, it writes the report alone.
func (w *Worker) Settle(ctx context.Context, h *reports.Hour) error {
	if h.State == reports.StateSealed {
		return w.showPending(ctx, h)
	}
	for attempt := 0; h.State == reports.StateDecided; attempt++ {
		err := w.settle(ctx, h)
		if err == nil {
			return nil
		}
		// Another worker has settled it, a late response was stored, or an outcome was resolved.
		if h, err = w.again(ctx, h.Place(), err, attempt); err != nil {
			return err
		}
	}
	return nil
}

// settle settles a decided hour. It returns reports.ErrChanged if the hour has changed since.
func (w *Worker) settle(ctx context.Context, h *reports.Hour) error {
	listed, err := w.apply(ctx, h)
	if err != nil {
		return err
	}
	settled, err := h.Settle()
	if err != nil {
		return err
	}
	if err := w.Store.PutReport(ctx, &settled, listed); err != nil {
		return err
	}
	return w.Store.Write(ctx, &reports.Step{Before: h, After: &settled})
}

// Resolve stores whether a record that is CONFLICT or UNKNOWN was billed, and returns the hour. Its
// groups get their status by Settle. It returns reports.ErrChanged if the hour has changed since.
func (w *Worker) Resolve(ctx context.Context, h *reports.Hour, dimension string, billed bool, by string, now time.Time) (*reports.Hour, error) {
	ledger, err := w.Store.Ledger(ctx, h.Organization, h.Entitlement)
	if err != nil {
		return nil, err
	}
	after, ledger, err := h.Resolve(ledger, dimension, billed, by, now.UTC().Truncate(time.Millisecond))
	if err != nil {
		return nil, err
	}
	if err := w.Store.Write(ctx, &reports.Step{Before: h, After: &after, Ledger: &ledger}); err != nil {
		return nil, err
	}
	return &after, nil
}

// errOutOfTime is the error of a seal or an apply that has no time left. Another Plan continues.
var errOutOfTime = errors.New("the time was over before all groups of the hour were done")

// apply gives each member of a decided hour its status, and returns the first of them. A member
// that has a status of this version of the hour keeps it.
//
// After each list but the last it notes that the list is done. Another Plan, which continues if the
// time is over, begins there.
func (w *Worker) apply(ctx context.Context, h *reports.Hour) (listed []metering.GroupID, err error) {
	applied := 0 // lists
	if h.Parts > 1 {
		if applied, err = w.Store.AppliedLists(ctx, h); err != nil {
			return nil, err
		}
	}
	progressed := false
	for part := range h.Parts {
		if part < applied && len(listed) == maxListed {
			continue
		}
		if progressed && shortOf(ctx, planMargin) {
			return nil, errOutOfTime
		}
		ids, err := w.present(ctx, h, part)
		if err != nil {
			return nil, err
		}
		listed = appendListed(listed, ids)
		if part < applied {
			continue
		}
		if err := w.applyList(ctx, h, ids, &progressed); err != nil {
			return nil, err
		}
		if part < h.Parts-1 {
			if err := w.Store.PutAppliedLists(ctx, h, part+1); err != nil {
				return nil, err
			}
			progressed = true
		}
	}
	return listed, nil
}

// applyList gives each of the members its status, and sets progressed once one has it. The error is
// errOutOfTime if the time is over then.
func (w *Worker) applyList(ctx context.Context, h *reports.Hour, ids []metering.GroupID, progressed *bool) error {
	succeeded := h.Succeeded()
	if succeeded && h.Parts == 1 && len(ids) <= membersAtOnce { // no group has to be read
		return atOnce(ctx, groupsAtOnce, len(ids), func(ctx context.Context, i int) error {
			return w.Store.Apply(ctx, h, ids[i], &reports.Applied{Status: metering.StatusReported}, w.Now())
		})
	}
	for chunk := range slices.Chunk(ids, membersAtOnce) {
		if *progressed && shortOf(ctx, claimMargin) {
			return errOutOfTime
		}
		members, err := w.Store.Members(ctx, h, chunk)
		if err != nil {
			return err
		}
		members = slices.DeleteFunc(members, func(m reports.Member) bool { // that have their status
			return m.Applied >= h.Version || m.Group.Status == metering.StatusReported
		})
		err = atOnce(ctx, groupsAtOnce, len(members), func(ctx context.Context, i int) error {
			as := reports.Applied{Status: metering.StatusReported}
			if !succeeded {
				var err error
				if as, err = h.Apply(members[i]); err != nil {
					return err
				}
			}
			return w.Store.Apply(ctx, h, metering.GroupID(members[i].Group.ID), &as, w.Now())
		})
		if err != nil {
			return err
		}
		*progressed = *progressed || len(members) > 0
	}
	return nil
}
