package reports

import (
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// guards are what the protocol rests on. A world without one must be noticed.
type guards struct {
	attempts bool // an attempt is stored before each call, not only before the first
	doubt    bool // an attempt that is in doubt forbids a rejection
	escrow   bool // carry and drawdown are out of the ledger until the outcome is known
	dueHour  bool // a claim demands the due hour that was listed
	expiry   bool // an hour that can't be sealed is ended only if it is still open
}

var allGuards = guards{true, true, true, true, true}

// world is an entitlement with its table, its marketplace, and workers that may sleep, die or come
// second at any point. Each step is one write, one request or one response. All decisions are those
// of the package.
type world struct {
	guards
	choose func(n int) int // a number below n
	log    []string

	now      time.Time
	terms    *metering.Terms
	schedule Schedule
	stops    string // what stops a seal: "", unknownMember or noEntitlement

	// The table. A write of an hour or the ledger succeeds if the version is the one that was read.
	groups []*worldGroup
	hours  map[time.Time]*storedHour
	ledger Ledger

	// The marketplace: the first record of an hour stands.
	stands   map[place]standing
	requests map[place]metering.Quantity // of ours, the first
	net      []request
	inactive bool // the buyer is not subscribed
	foreign  bool // another meter has written

	workers  [3]worker
	skew     [3]time.Duration // of the workers' clocks
	outcomes map[place]Kind   // as they were seen first
	broken   string           // the first promise that was broken
	named    int              // how many groups there were
	billed   map[string]bool  // groups and dimensions, as "g1 a", in records that stand

	// Of a table that is lost and restored.
	losing bool      // what happens now is not in the backup
	floor  time.Time // the first hour that may be opened; zero if it was not restored
}

type place struct {
	hour      time.Time
	dimension string
}

type standing struct {
	quantity metering.Quantity
	since    time.Time
	ours     bool
}

type request struct {
	place
	quantity metering.Quantity
	worker   int
	call     int
	uses     []string // as in world.billed
}

type worldGroup struct {
	metering.Group
	at     time.Time
	since  time.Time // when it was reported or retried
	due    time.Time
	listed time.Time // the due hour that the index shows; zero if it shows none
	report time.Time // the hour that claimed it
	ended  time.Time // the hour that was ended with it, as it could not be sealed
	only   map[string]metering.Quantity
	states map[string]Kind
}

// usage is what the group is to be reported with.
func (g *worldGroup) usage() map[string]metering.Quantity {
	if g.only != nil {
		return g.only
	}
	return g.Records
}

func (g *worldGroup) member() Member { return Member{Group: &g.Group, Only: g.only, Before: g.states} }

type storedHour struct {
	Hour
	candidates []int
	members    []int               // once it is sealed
	uses       map[string][]string // what each dimension was sealed with, as in world.billed
}

// worker is a worker between two steps.
type worker struct {
	phase   string // "" is idle
	sleeps  int    // for how many of its turns it does nothing
	hour    time.Time
	todo    []int // groups to claim or apply
	members []int
	read    Hour
	ledger  Ledger
	calls   int               // counts the calls, so that a late response is not taken for another one's
	waits   map[string]int    // dimensions without a response, with their attempts
	got     map[string]answer // responses that are not stored
}

type answer struct {
	attempt int
	Response
}

var worldQuantities = []string{"0", "0.3000004", "0.7", "1.25", "2.0000009", "4", "13.9999999"}

var worldPrices = []string{"a 1 2, b 0.7 0.3", "a 3 1", "a 2 0, b 1.5 3"}

func newWorld(g guards, choose func(n int) int) *world {
	w := &world{
		guards: g, choose: choose, now: at("06-30 20:10"),
		hours: map[time.Time]*storedHour{}, stands: map[place]standing{}, requests: map[place]metering.Quantity{},
		outcomes: map[place]Kind{}, billed: map[string]bool{},
	}
	for i := range w.skew {
		w.skew[i] = time.Duration(choose(7)-3) * time.Minute
	}
	partner := metering.Partners[choose(len(metering.Partners))]
	commit := []string{"0", "10", "1.0000001"}[choose(3)]
	e := entitlementOf(partner, commit, worldPrices[choose(len(worldPrices))])
	w.terms = &metering.Terms{Entitlement: e, Config: configOf(partner)}
	w.schedule = ScheduleOf(e, metering.Connection{LateUsage: metering.LateUsages[choose(2)]})
	return w
}

func (w *world) note(format string, args ...any) { w.log = append(w.log, fmt.Sprintf(format, args...)) }

func (w *world) fail(format string, args ...any) {
	if w.broken == "" {
		w.broken = fmt.Sprintf(format, args...)
	}
}

// step does one thing, chosen at random.
func (w *world) step() {
	before := len(w.log)
	defer func() {
		if len(w.log) > before {
			w.check()
		}
	}()
	switch k := w.choose(24); {
	case k < 2:
		w.report()
	case k < 4:
		w.user()
	case k == 4:
		w.environment()
	case k < 7 && len(w.net) > 0:
		w.receive(w.choose(len(w.net)))
	case k < 9:
		w.index()
	default:
		w.work(w.choose(len(w.workers)))
	}
}

// report is a client that reports usage.
func (w *world) report() {
	if len(w.groups) >= 8 {
		return
	}
	ago := []time.Duration{0, 30 * time.Minute, time.Hour, 90 * time.Minute, 23*time.Hour + 50*time.Minute}[w.choose(5)]
	g := &worldGroup{at: w.now.Add(-ago), since: w.now}
	g.Partner = w.schedule.Partner
	g.ID, g.Status, g.Records = fmt.Sprintf("g%d", w.named), metering.StatusCreated, map[string]metering.Quantity{}
	for _, dimension := range []string{"a", "b"}[:1+w.choose(2)] {
		g.Records[dimension] = quantityOf(worldQuantities[w.choose(len(worldQuantities))])
	}
	w.named++
	w.groups = append(w.groups, g)
	w.moveOn(g, time.Time{})
	w.note("%s used %v at %s, due %s", g.ID, g.Records, g.at.Format("15:04"), g.due.Format("15:04"))
}

// moveOn gives a group its due hour after an hour, or fails it.
func (w *world) moveOn(g *worldGroup, after time.Time) {
	if !w.floor.IsZero() {
		after = metering.Later(after, w.floor.Add(-time.Hour))
	}
	due, problem := w.schedule.Due(g.at, after, g.since, w.now)
	if g.due = due; problem != "" {
		g.Status = metering.StatusReportFailed
	}
}

// index makes the index catch up with a group.
func (w *world) index() {
	if len(w.groups) > 0 {
		g := w.groups[w.choose(len(w.groups))]
		if g.listed = g.due; g.Status != metering.StatusCreated {
			g.listed = time.Time{}
		}
	}
}

// user deletes, retries or resolves.
func (w *world) user() {
	if len(w.groups) == 0 {
		return
	}
	g := w.groups[w.choose(len(w.groups))]
	switch g.Status {
	case metering.StatusCreated:
		if w.choose(4) == 0 && g.only == nil {
			g.Status = metering.StatusDeleted
			w.note("%s is deleted", g.ID)
		}
	case metering.StatusReportFailed:
		if w.losing { // a retry that the backup does not have is not seen after it
			return
		}
		retry, err := RetryOf(&g.Group, g.states)
		if err != nil {
			w.resolve(g)
			return
		}
		g.Status, g.only, g.since = metering.StatusCreated, retry.Only, w.now
		if retry.Convert {
			g.states = nil
		}
		w.moveOn(g, g.report)
		w.note("%s is retried, due %s", g.ID, g.due.Format("15:04"))
	}
}

// resolve is an operator that has seen what the marketplace has, once nothing is on its way.
func (w *world) resolve(g *worldGroup) {
	h := w.hours[g.report]
	if h == nil || h.State != StateSettled || w.onItsWay(g.report) {
		return
	}
	for _, dimension := range h.Dimensions(g.member()) {
		if k := g.states[dimension]; k != Conflict && k != Unknown {
			continue
		}
		billed := w.stands[place{g.report, dimension}].ours
		if g.report.Before(w.floor) {
			billed = slices.ContainsFunc(h.uses[dimension], func(use string) bool { return w.billed[use] })
		}
		changed, ledger, err := h.Resolve(w.ledger, dimension, billed, "ann", w.now)
		if err != nil {
			w.fail("resolve: %v", err)
			return
		}
		h.Hour, w.ledger = changed, ledger
		w.note("%s of %s is resolved as billed %t", dimension, g.report.Format("15:04"), billed)
		for _, i := range h.members {
			w.apply(h, w.groups[i], metering.StatusReportFailed)
		}
		return
	}
}

// sealedWith stores the members of the hour, and what it was sealed with.
func (h *storedHour) sealedWith(members []int, groups []*worldGroup) {
	h.members, h.uses = members, map[string][]string{}
	for _, j := range members {
		for dimension := range groups[j].usage() {
			h.uses[dimension] = append(h.uses[dimension], groups[j].ID+" "+dimension)
		}
	}
}

func (w *world) onItsWay(hour time.Time) bool {
	return slices.ContainsFunc(w.net, func(r request) bool { return r.hour.Equal(hour) })
}

// environment changes what is around: time, the buyer, the config, another meter.
func (w *world) environment() {
	switch w.choose(12) {
	case 10, 11:
		w.changeEntitlement()
	case 9:
		w.stops = []string{"", "", unknownMember, noEntitlement}[w.choose(4)]
		w.note("a seal is stopped by %q", w.stops)
	case 8:
		if w.schedule.Cancel.IsZero() && w.choose(4) == 0 {
			w.schedule.Cancel = w.now.Add(-time.Duration(w.choose(90)) * time.Minute)
			w.note("cancelled at %s", w.schedule.Cancel.Format("15:04"))
		}
	case 0, 1:
		w.now = w.now.Add(time.Duration(1+w.choose(90)) * time.Minute)
		w.note("it is %s", w.now.Format("02 15:04"))
	case 2:
		if w.choose(4) == 0 {
			w.now = w.now.Add(10 * time.Hour)
			w.note("it is %s", w.now.Format("02 15:04"))
		}
	case 3, 4:
		w.inactive = !w.inactive
		w.note("the buyer is subscribed: %t", !w.inactive)
	case 5, 6:
		flags := [][]string{nil, {beyondCommit}, {beyondCommit, atListPrice}}[w.choose(3)]
		w.terms = &metering.Terms{Entitlement: w.terms.Entitlement, Config: configOf(w.schedule.Partner, flags...)}
		w.note("config %v", flags)
	case 7:
		p := place{metering.HourOf(w.now), "a"}
		if _, exists := w.stands[p]; !exists && w.choose(8) == 0 {
			w.foreign = true
			w.stands[p] = standing{quantityOf(worldQuantities[1+w.choose(6)]), w.now, false}
			w.note("another meter writes %s", p.hour.Format("15:04"))
		}
	}
}

// changeEntitlement changes the prices, the commit or the bounds of the entitlement. Hours that are
// sealed keep what they have.
func (w *world) changeEntitlement() {
	e := *w.terms.Entitlement
	switch w.choose(3) {
	case 0:
		e.Info.Dimensions = entitlementOf(e.Partner, "0", worldPrices[w.choose(len(worldPrices))]).Info.Dimensions
		w.note("the prices are %v", e.Info.Dimensions)
	case 1:
		e.Info.CommitAmount = quantityOf([]string{"0", "0.5", "1.0000001", "10", "20"}[w.choose(5)])
		w.note("the commit is %s", e.Info.CommitAmount)
	case 2:
		e.StartTime, e.EndTime = time.Time{}, time.Time{}
		if w.choose(2) == 0 {
			e.StartTime = w.now.Add(-time.Duration(w.choose(120)) * time.Minute)
		}
		if w.choose(2) == 0 {
			e.EndTime = w.now.Add(time.Duration(w.choose(240)) * time.Minute)
		}
		w.schedule.Start, w.schedule.End = e.StartTime, e.EndTime
		w.note("it is from %s until %s", e.StartTime, e.EndTime)
	}
	w.terms = &metering.Terms{Entitlement: &e, Config: w.terms.Config}
}

// receive is the marketplace, which takes a request and responds, or its response is lost.
func (w *world) receive(i int) {
	r := w.net[i]
	w.net = slices.Delete(w.net, i, i+1)
	response := Response{Result: Billed}
	stands, exists := w.stands[r.place]
	refuses := w.inactive || !w.now.Before(w.schedule.Deadline(r.hour))
	switch {
	case exists && (!refuses || w.choose(2) == 0):
		response.Result = Duplicate
		if w.schedule.Partner == "AZURE" {
			accepted := metering.ExactOf(stands.quantity)
			response.Accepted, response.AcceptedAt = &accepted, stands.since
		}
	case refuses, w.choose(8) == 0:
		response = Response{Result: Refused, Code: metering.ProblemMarketplaceRefused, Again: w.choose(2) == 0}
	default:
		w.stands[r.place] = standing{r.quantity, w.now, true}
		for _, use := range r.uses {
			if w.billed[use] {
				w.fail("2. %s is billed twice", use)
			}
			w.billed[use] = true
		}
	}
	lost := w.choose(3) == 0
	w.note("marketplace %s %s: %s, lost %t", r.dimension, r.hour.Format("15:04"), response.Result, lost)
	worker := &w.workers[r.worker]
	if attempt, waits := worker.waits[r.dimension]; waits && worker.calls == r.call && !lost {
		delete(worker.waits, r.dimension)
		worker.got[r.dimension] = answer{attempt, response}
	}
}

// work is the next step of a worker.
func (w *world) work(i int) {
	x := &w.workers[i]
	if x.sleeps > 0 {
		x.sleeps--
		return
	}
	if x.phase != "" && w.choose(16) == 0 {
		x.sleeps = w.choose(40)
		return
	}
	if x.phase != "" && w.choose(16) == 0 {
		w.note("w%d dies at %s", i, x.phase)
		*x = worker{calls: x.calls + 1}
		return
	}
	switch x.phase {
	case "":
		w.begin(i, x)
	case "open":
		w.open(i, x)
	case "claim":
		w.claim(i, x)
	case "read to seal":
		x.read, x.ledger, x.phase = w.hours[x.hour].Hour, w.ledger, "seal"
	case "seal":
		w.seal(i, x)
	case "expire":
		w.expire(i, x)
	case "attempt":
		w.attempt(i, x)
	case "wait":
		if len(x.waits) == 0 || w.choose(3) == 0 {
			x.phase = "read to decide"
		}
	case "read to decide":
		x.read, x.ledger, x.phase = w.hours[x.hour].Hour, w.ledger, "decide"
	case "decide":
		w.decide(i, x)
	case "apply":
		w.applyNext(i, x)
	}
}

// begin chooses what an idle worker does.
func (w *world) begin(i int, x *worker) {
	hours := []time.Time{}
	for _, g := range w.groups {
		if !g.listed.IsZero() && w.hours[g.listed] == nil && !g.listed.Before(w.floor) {
			hours = append(hours, g.listed)
		}
	}
	for hour := range w.hours {
		hours = append(hours, hour)
	}
	slices.SortFunc(hours, time.Time.Compare)
	if hours = slices.Compact(hours); len(hours) == 0 {
		return
	}
	x.hour = hours[w.choose(len(hours))]
	h := w.hours[x.hour]
	switch {
	case h == nil:
		for j, g := range w.groups {
			if g.listed.Equal(x.hour) {
				x.todo = append(x.todo, j)
			}
		}
		x.phase = "open"
	case h.State == StateOpen:
		x.todo, x.phase = slices.Clone(h.candidates), "claim"
	case h.State == StateSealed && w.choose(4) > 0:
		x.read, x.phase = h.Hour, "attempt"
	case h.State == StateSealed:
		x.phase = "read to decide"
	case h.State == StateDecided:
		x.todo, x.phase = slices.Clone(h.members), "apply"
	}
	if h != nil && h.State != StateOpen {
		// Groups that came late move on. The write is conditional on status and due hour.
		for _, g := range w.groups {
			if g.listed.Equal(x.hour) && g.due.Equal(x.hour) && g.Status == metering.StatusCreated {
				w.moveOn(g, x.hour)
				w.note("w%d moves %s on to %s", i, g.ID, g.due.Format("15:04"))
			}
		}
	}
}

func (w *world) open(i int, x *worker) {
	x.phase = "claim"
	if h := w.hours[x.hour]; h != nil {
		if x.todo = slices.Clone(h.candidates); h.State != StateOpen {
			*x = worker{calls: x.calls}
		}
		return
	}
	w.hours[x.hour] = &storedHour{Hour: OpenHour("org1", "ent1", x.hour), candidates: slices.Clone(x.todo)}
	w.note("w%d opens %s for %v", i, x.hour.Format("15:04"), x.todo)
}

func (w *world) claim(i int, x *worker) {
	if len(x.todo) == 0 {
		x.phase = "read to seal"
		return
	}
	j := x.todo[0]
	x.todo = x.todo[1:]
	g := w.groups[j]
	due := g.due
	if !w.dueHour {
		due = x.hour
	}
	open := OpenHour("org1", "ent1", x.hour) // as the worker read it
	if open.Claims(g.Status, due) {
		g.Status, g.report = metering.StatusReportPending, x.hour
		w.note("w%d claims %s for %s", i, g.ID, x.hour.Format("15:04"))
	}
	if g.report.Equal(x.hour) && g.Status != metering.StatusCreated && g.Status != metering.StatusDeleted {
		x.members = append(x.members, j)
	}
}

func (w *world) seal(i int, x *worker) {
	var members []Member
	for _, j := range x.members {
		members = append(members, w.groups[j].member())
	}
	before := x.ledger
	sealed, ledger, err := x.read.Seal(w.read(), &w.schedule, convert(w.terms, members), before)
	stored := w.hours[x.hour]
	switch {
	case err != nil:
		x.phase = "expire" // after it has read the members again
		return
	case stored.Version != x.read.Version:
		w.note("w%d does not seal %s: it is %s", i, x.hour.Format("15:04"), stored.State)
		*x = worker{calls: x.calls}
		return
	case w.ledger.Version != x.ledger.Version:
		x.phase = "read to seal"
		return
	}
	if !w.escrow {
		for j := range sealed.Sealed.Records {
			r := &sealed.Sealed.Records[j]
			ledger.addCarry(r.Dimension, r.CarryOut)
		}
	}
	commit := ratOf(w.terms.Entitlement.Info.CommitAmount) // which may have been lowered
	if got := ratOfExact(ledger.Used); got.Cmp(ratOfExact(before.Used)) > 0 && got.Cmp(commit) > 0 {
		w.fail("4. %s of a commit of %s is used", got, commit)
	}
	stored.Hour, w.ledger = sealed, ledger
	stored.sealedWith(x.members, w.groups)
	w.note("w%d seals %s with %v: %s; ledger %s", i, x.hour.Format("15:04"), x.members, summary(&sealed), ledgerText(ledger))
	*x = worker{calls: x.calls}
}

// read is the terms as a worker reads them now.
func (w *world) read() *metering.Terms {
	switch w.stops {
	case unknownMember:
		return &metering.Terms{Entitlement: w.terms.Entitlement, Config: configOf(w.schedule.Partner, unknownMember)}
	case noEntitlement:
		return &metering.Terms{Config: w.terms.Config}
	default:
		return w.terms
	}
}

// What stops a seal in a world.
const (
	unknownMember = "aMemberOfANewerVersion"
	noEntitlement = "no entitlement"
)

// expire ends an hour that could not be sealed, if its window is over.
func (w *world) expire(i int, x *worker) {
	u := Unsealed{Terms: w.read(), Groups: len(x.members), Reason: "a test"}
	var members []Member
	for _, j := range x.members {
		members = append(members, w.groups[j].member())
		u.Member = &w.groups[j].Group
	}
	u.Usage = acceptedUsage(members)
	expired, err := x.read.Expire(&u, w.now.Add(w.skew[i]))
	stored := w.hours[x.hour]
	if err == nil && (!w.expiry || stored.Version == x.read.Version) {
		stored.Hour = expired
		stored.sealedWith(x.members, w.groups)
		for _, j := range x.members {
			w.groups[j].ended = x.hour
		}
		w.note("w%d ends %s with %v: %s", i, x.hour.Format("15:04"), x.members, summary(&expired))
	}
	*x = worker{calls: x.calls}
}

func (w *world) attempt(i int, x *worker) {
	var dimensions []string
	for _, r := range x.read.Sealed.Records {
		if w.choose(4) > 0 {
			dimensions = append(dimensions, r.Dimension)
		}
	}
	changed, sent, err := x.read.Begin(dimensions, &w.schedule, w.now.Add(w.skew[i]))
	stored := w.hours[x.hour]
	if err != nil || stored.Version != x.read.Version || len(sent) == 0 {
		*x = worker{calls: x.calls}
		return
	}
	x.calls++
	x.waits, x.got = map[string]int{}, map[string]answer{}
	for _, dimension := range sent {
		r := changed.record(dimension)
		if !w.attempts && len(r.Attempts) > 1 {
			r.Attempts = r.Attempts[:1]
		}
		p := place{x.hour, dimension}
		if first, again := w.requests[p]; again && first != r.Quantity {
			w.fail("1. %s of %s is sent with %s and %s", dimension, x.hour, first, r.Quantity)
		}
		w.requests[p] = r.Quantity
		x.waits[dimension] = r.LastAttempt().Number
		w.net = append(w.net, request{p, r.Quantity, i, x.calls, stored.uses[dimension]})
	}
	stored.Hour, x.phase = changed, "wait"
	w.note("w%d sends %v of %s", i, sent, x.hour.Format("15:04"))
}

func (w *world) decide(i int, x *worker) {
	h, ledger := x.read, x.ledger
	var err error
	for dimension, got := range x.got {
		if h, err = h.Respond(dimension, got.attempt, got.Response); err != nil {
			w.fail("respond: %v", err)
		}
	}
	if !w.doubt {
		h = withoutDoubt(h)
	}
	if x.read.State == StateSealed {
		if h, ledger, err = h.Decide(ledger, &w.schedule, w.now.Add(w.skew[i])); err != nil {
			w.fail("decide: %v", err)
		}
	}
	stored := w.hours[x.hour]
	if stored.Version != x.read.Version || w.ledger.Version != x.ledger.Version {
		x.phase = "read to decide"
		return
	}
	if !w.escrow {
		ledger = x.ledger
		ledger.Version++
	}
	stored.Hour, w.ledger = h, ledger
	w.note("w%d decides %s: %s; ledger %s", i, x.hour.Format("15:04"), summary(&h), ledgerText(ledger))
	*x = worker{calls: x.calls}
}

// withoutDoubt forgets attempts that are in doubt, if another one has a response.
func withoutDoubt(h Hour) Hour {
	h, err := h.changed(h.State)
	if err != nil {
		panic(err)
	}
	for i := range h.Sealed.Records {
		r := &h.Sealed.Records[i]
		if slices.ContainsFunc(r.Attempts, func(a Attempt) bool { return a.Result != InDoubt }) {
			r.Attempts = slices.Clone(r.Attempts)
			for j := range r.Attempts {
				if r.Attempts[j].Result == InDoubt {
					r.Attempts[j].Response = Response{Result: Refused, Again: true}
				}
			}
		}
	}
	return h
}

func (w *world) applyNext(i int, x *worker) {
	h := w.hours[x.hour]
	if len(x.todo) > 0 {
		w.apply(h, w.groups[x.todo[0]], metering.StatusReportPending)
		x.todo = x.todo[1:]
		return
	}
	if settled, err := h.Settle(); err == nil {
		h.Hour = settled
		w.note("w%d settles %s", i, x.hour.Format("15:04"))
	}
	*x = worker{calls: x.calls}
}

// apply gives a group its status, if it has the expected one with this hour.
func (w *world) apply(h *storedHour, g *worldGroup, from metering.Status) {
	if g.Status != from || !g.report.Equal(h.Start) {
		return
	}
	applied, err := h.Apply(g.member())
	if err != nil {
		w.fail("apply: %v", err)
		return
	}
	g.Status, g.states = applied.Status, applied.Dimensions
	w.note("%s is %s: %v", g.ID, g.Status, g.states)
}

// settle lets everything come to its end: no more usage, no more faults, and all windows end. What
// fails may be retried.
func (w *world) settle() {
	w.inactive = false
	corrected := w.choose(20) // the round in which the config is, or never
	if w.choose(2) == 0 {
		w.now = w.now.Add(80 * time.Hour)
	}
	for round := 0; round < 100 && w.broken == "" && w.waits(); round++ {
		if round == corrected && corrected < 10 {
			w.stops = ""
		}
		for len(w.net) > 0 {
			w.receive(0)
		}
		for _, g := range w.groups {
			if g.listed = g.due; g.Status != metering.StatusCreated {
				g.listed = time.Time{}
			}
		}
		for i := range w.workers {
			w.workers[i].sleeps = 0
			for range 15 {
				w.work(i)
			}
		}
		w.check()
		if round < 20 { // of what has expired since
			w.user()
			w.check()
		}
		switch round {
		case 50:
			w.now = w.now.Add(80 * time.Hour)
		case 70, 80, 90: // the end of Google's month, and of that to which usage was carried
			w.now = w.now.Add(40 * 24 * time.Hour)
		}
	}
	for _, g := range w.groups {
		if g.Status == metering.StatusCreated || g.Status == metering.StatusReportPending {
			w.fail("8. %s is %s at the end", g.ID, g.Status)
		}
	}
	for hour, h := range w.hours {
		if h.State != StateSettled {
			w.fail("8. hour %s is %s at the end", hour, h.State)
		}
	}
}

// waits reports whether anything is still to be done.
func (w *world) waits() bool {
	for _, h := range w.hours {
		if h.State != StateSettled {
			return true
		}
	}
	return slices.ContainsFunc(w.groups, func(g *worldGroup) bool {
		return g.Status == metering.StatusCreated || g.Status == metering.StatusReportPending
	})
}

// check checks the invariants of docs/reporting.md, by rationals that the package does not use.
func (w *world) check() {
	carry := map[string]*big.Rat{"a": {}, "b": {}}
	conserved := map[string]*big.Rat{"a": {}, "b": {}}
	add := func(to map[string]*big.Rat, dimension string, value *big.Rat, sign int64) {
		to[dimension].Add(to[dimension], new(big.Rat).Mul(value, big.NewRat(sign, 1)))
	}
	used := new(big.Rat)
	excess := map[string]*big.Rat{"a": {}, "b": {}} // in units that are billed, less what is sent and in escrow
	in := map[string]int{}                          // (group, dimension) in hours that are not REJECTED
	for hour, h := range w.hours {
		if h.Sealed == nil {
			continue
		}
		for i := range h.Sealed.Records {
			r := &h.Sealed.Records[i]
			q := ratOf(r.Quantity)
			out, got, drawn, scale := ratOfExact(r.CarryOut), ratOfExact(r.CarryIn), ratOfExact(r.Drawn), ratOfExact(r.Scale)
			kind := r.Outcome.Kind
			w.checkEvidence(hour, r)
			if r.Outcome.Evidence == EvidenceSeal {
				continue
			}
			left := new(big.Rat).Mul(new(big.Rat).Sub(ratOfExact(r.Members), drawn), scale)
			right := new(big.Rat).Sub(new(big.Rat).Add(q, out), got)
			if left.Cmp(right) != 0 {
				w.fail("4. %s of %s: %s is not %s", r.Dimension, hour, left, right)
			}
			if kind == Accepted {
				add(carry, r.Dimension, out, 1)
			}
			if kind != Rejected {
				add(carry, r.Dimension, got, -1)
				used.Add(used, ratOfExact(r.DrawnAmount))
				add(conserved, r.Dimension, drawn, 1)
				add(conserved, r.Dimension, new(big.Rat).Quo(right, scale), 1)
				add(excess, r.Dimension, left, 1)
				add(excess, r.Dimension, q, -1)
				if kind != Accepted {
					add(excess, r.Dimension, out, -1)
				}
			}
			// What is drawn is what it takes, but for the draw that exhausts the commit.
			price := ratOf(r.UnitPrice)
			over := new(big.Rat).Sub(new(big.Rat).Mul(drawn, price), ratOfExact(r.DrawnAmount))
			if over.Sign() < 0 || over.Cmp(new(big.Rat).Mul(price, big.NewRat(1, 1_000_000_000))) >= 0 && over.Sign() > 0 {
				w.fail("4. %s of %s draws %s units for %s", r.Dimension, hour, drawn, r.DrawnAmount)
			}
		}
		for _, j := range h.members {
			g := w.groups[j]
			for dimension := range g.Records {
				r := h.record(dimension)
				if r == nil || r.Outcome.Kind == Rejected || !slices.Contains(h.uses[dimension], g.ID+" "+dimension) {
					continue
				}
				if in[g.ID+" "+dimension]++; g.Status == metering.StatusDeleted {
					w.fail("2. %s is DELETED, and in hour %s", g.ID, hour)
				}
			}
		}
	}
	for key, n := range in {
		if n > 1 {
			w.fail("2. %s is in %d hours", key, n)
		}
	}
	for dimension, want := range carry {
		if got := ratOfExact(w.ledger.Carry[dimension]); got.Cmp(want) != 0 || got.Sign() < 0 {
			w.fail("4. the carry of %s is %s, want %s", dimension, got, want)
		}
		if got := ratOfExact(w.ledger.Carry[dimension]); got.Cmp(excess[dimension]) != 0 {
			w.fail("5. the excess of %s leaves %s, the carry is %s", dimension, excess[dimension], got)
		}
	}
	if got := ratOfExact(w.ledger.Used); got.Cmp(used) != 0 || got.Sign() < 0 {
		w.fail("4. %s of the commit is used, want %s", got, used)
	}
	w.checkConservation(conserved)
}

// checkEvidence checks that an outcome follows from its attempts, and what the marketplace has.
func (w *world) checkEvidence(hour time.Time, r *Record) {
	p := place{hour, r.Dimension}
	stands := w.stands[p]
	kind := r.Outcome.Kind
	if before := w.outcomes[p]; before != kind && before != Undecided && r.Outcome.Evidence != EvidenceResolved {
		w.fail("3. %s of %s is %s, and was %s", r.Dimension, hour, kind, before)
	}
	w.outcomes[p] = kind
	if r.Quantity.Sign() == 0 || kind == Undecided {
		return
	}
	if stands.ours && stands.quantity != r.Quantity && !hour.Before(w.floor) {
		w.fail("6. %s of %s: billed %s, not %s", r.Dimension, hour, stands.quantity, r.Quantity)
	}
	if r.Outcome.Evidence == EvidenceResolved {
		return
	}
	refused, billed, duplicate, doubt := true, false, false, false
	for _, a := range r.Attempts {
		refused = refused && a.Result == Refused
		billed = billed || a.Result == Billed
		duplicate = duplicate || a.Result == Duplicate
		doubt = doubt || a.Result == InDoubt
	}
	switch kind {
	case Rejected:
		if !refused {
			w.fail("3. %s of %s is REJECTED", r.Dimension, hour)
		}
		if stands.ours {
			w.fail("6. %s of %s is REJECTED, and billed", r.Dimension, hour)
		}
	case Accepted:
		if !billed && !duplicate {
			w.fail("3. %s of %s is ACCEPTED", r.Dimension, hour)
		}
		if !stands.ours && !w.foreign {
			w.fail("6. %s of %s is ACCEPTED, but was not billed", r.Dimension, hour)
		}
	}
}

// checkConservation checks that no usage is lost or counted twice, and that pending groups are
// seen. conserved is what the records account for, in units of usage: what is metered at list price
// is divided by its scale.
func (w *world) checkConservation(conserved map[string]*big.Rat) {
	total := map[string]*big.Rat{"a": {}, "b": {}}
	for _, g := range w.groups {
		if g.Status == metering.StatusDeleted {
			continue
		}
		for dimension, q := range g.Records {
			total[dimension].Add(total[dimension], ratOf(q))
		}
		h := w.hours[g.report]
		waits := map[string]metering.Quantity{}
		switch g.Status {
		case metering.StatusCreated:
			waits = g.usage()
		case metering.StatusReportPending:
			switch {
			case h == nil || h.State == StateSettled:
				w.fail("7. %s is REPORT_PENDING in no report", g.ID)
			case h.State == StateOpen:
				waits = g.usage()
			case !slices.ContainsFunc(h.members, func(j int) bool { return w.groups[j] == g }):
				w.fail("7. %s is REPORT_PENDING in %s, which was sealed without it", g.ID, g.report)
			default:
				waits = rejectedOf(h, g.usage())
			}
		case metering.StatusReportFailed:
			if g.states == nil { // it failed before it was in a report
				waits = g.Records
				break
			}
			for dimension, q := range g.usage() {
				if g.states[dimension] == Rejected {
					waits[dimension] = q
				}
			}
		}
		for dimension, q := range waits {
			conserved[dimension].Add(conserved[dimension], ratOf(q))
		}
	}
	for dimension, want := range total {
		if conserved[dimension].Cmp(want) != 0 {
			w.fail("5. %s was used of %s, %s is accounted for", want.FloatString(9), dimension, conserved[dimension].FloatString(9))
		}
	}
}

// rejectedOf returns the usage whose dimension is REJECTED in the hour, but not applied yet.
func rejectedOf(h *storedHour, usage map[string]metering.Quantity) map[string]metering.Quantity {
	rejected := map[string]metering.Quantity{}
	for dimension, q := range usage {
		if r := h.record(dimension); r != nil && r.Outcome.Kind == Rejected {
			rejected[dimension] = q
		}
	}
	return rejected
}

func ratOf(q metering.Quantity) *big.Rat {
	r, ok := new(big.Rat).SetString(q.String())
	if !ok {
		panic(q.String())
	}
	return r
}

func ratOfExact(x metering.Exact) *big.Rat {
	r, ok := new(big.Rat).SetString(x.String())
	if !ok {
		panic(x.String())
	}
	return r
}
