package reporting_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/reporting"
	rt "github.com/marketmeter/marketmeter/internal/reporting/reportingtest"
	"github.com/marketmeter/marketmeter/internal/reporting/worldtest"
	"github.com/marketmeter/marketmeter/internal/seedtest"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
	"github.com/marketmeter/marketmeter/sandbox"
)

// history is a random history of a world: clients, three workers that sleep, die, come second and
// have clocks that differ, a table and a marketplace with every fault, two entitlements of one
// buyer. After every write of any of them, the invariants of docs/reporting.md are checked on a
// copy that the test keeps.
type history struct {
	*worldtest.World
	t        *testing.T
	random   *rand.Rand       // only under mu
	partner  metering.Partner // of all entitlements
	entities []metering.EntitlementID
	own      map[metering.EntitlementID][]metering.MarketplaceIDs // that it may have, its first ones first
	client   *dynamodb.Client                                     // without faults, for the copy
	front    *table.Table                                         // of the API's functions, which has no faults here
	faults   bool                                                 // off once the history ends

	late tabletest.Late // writes that arrive after their workers gave them up

	mu                      sync.Mutex
	log                     []string
	broken                  string
	lateWrites, sentRecords int
	*tableCopy
	foreign   map[string]bool // by resource and recordKey: another meter wrote it
	put       map[entitlementVersion]metering.Entitlement
	flags     map[int][]string // by config version
	cancelled map[metering.EntitlementID]bool
	newer     bool // the config has a member that this version does not know

	workers [3]*actor

	backup *backup // nil until there is one
	lost   *lost   // nil until the table is restored from the backup
}

// actor is a worker, which does one thing at a time.
type actor struct {
	worker *reporting.Worker
	queue  worldtest.Hints
	link   *link
	done   chan error // receives what the thing that it does ends with; nil if it does nothing
}

// link is a worker's connection to the table.
type link struct {
	h       *history
	name    string
	crashed bool          // under h.mu
	asleep  chan struct{} // receives when a request sleeps
	wake    chan struct{} // closed to wake all that sleep
}

func newHistory(t *testing.T, random *rand.Rand) *history {
	w := worldtest.NewWorld(t, sandbox.Options{IdenticalResend: []sandbox.Resend{sandbox.ResendSuccess, sandbox.ResendDuplicate}[random.IntN(2)]})
	h := &history{
		World: w, t: t, random: random, faults: true, client: tabletest.NewClient(http.DefaultTransport), tableCopy: newCopy(mappings[random.IntN(len(mappings))]),
		foreign: map[string]bool{}, cancelled: map[metering.EntitlementID]bool{}, put: map[entitlementVersion]metering.Entitlement{},
		flags: map[int][]string{}, own: map[metering.EntitlementID][]metering.MarketplaceIDs{},
	}
	if random.IntN(3) == 0 { // the end of a month, also in US Pacific
		h.Set(time.Date(2026, 11, 30, 21+random.IntN(12), 10, 0, 0, time.UTC))
	}
	first := worldtest.Entitlements()[random.IntN(len(everywhere))]
	h.partner = first.Partner
	first.Info.CommitAmount = worldtest.Quantity([]string{"0", "10", "1.0000001"}[random.IntN(3)])
	second := h.sibling(first)
	for _, e := range []metering.Entitlement{first, second} {
		h.entities = append(h.entities, e.ID)
		h.own[e.ID] = []metering.MarketplaceIDs{e.Marketplace, h.sibling(e).Marketplace}
		h.change(e)
	}
	h.PutConnection(metering.Connection{Partner: first.Partner, LateUsage: metering.LateUsages[random.IntN(2)]})
	for _, name := range slices.Sorted(maps.Keys(meters)) {
		sent := metering.BillableMetric{Name: name, AggregationType: meters[name]}
		if sent.AggregationType == metering.AggregateUniqueCount {
			sent.Info.PropertyUniqueOn = "user"
		}
		h.AddMetric(metering.MetricID(meterID(name)), sent)
	}
	h.config(nil, "")
	h.dimensions(random.IntN(3) > 0)
	h.begin()
	return h
}

// begin begins to report on the table of the world.
func (h *history) begin() {
	h.front = table.New(tabletest.NewClient(tabletest.Planned(h.observing)), h.TableName)
	for i := range h.workers {
		h.workers[i] = h.newActor(i)
	}
}

// sibling returns another entitlement of the same buyer, product and commit, which the marketplace
// has too.
func (h *history) sibling(e metering.Entitlement) metering.Entitlement {
	e.ID += "-2"
	h.Change(func(c *sandbox.Catalog) {
		switch e.Partner {
		case "AWS":
			agreement := c.AWS.Agreements[0]
			agreement.LicenseArn = fmt.Sprintf("arn:aws:license-manager::294406891311:license:l-%d", 10+len(c.AWS.Agreements))
			c.AWS.Agreements = append(c.AWS.Agreements, agreement)
			e.Marketplace.LicenseARN = agreement.LicenseArn
		case "AZURE":
			subscription := c.Azure.Subscriptions[0]
			subscription.ResourceID = fmt.Sprintf("cccccccc-0000-4000-8000-%012d", 10+len(c.Azure.Subscriptions))
			c.Azure.Subscriptions = append(c.Azure.Subscriptions, subscription)
			e.Marketplace.ResourceID = subscription.ResourceID
		default:
			entitlement := c.Google.Entitlements[0]
			entitlement.UsageReportingID = fmt.Sprintf("project_number:%d", 10+len(c.Google.Entitlements))
			c.Google.Entitlements = append(c.Google.Entitlements, entitlement)
			e.Marketplace.UsageReportingID = entitlement.UsageReportingID
		}
	})
	return e
}

// resourceOf is what the marketplace's records name.
func resourceOf(ids metering.MarketplaceIDs) string {
	return cmp.Or(ids.LicenseARN, ids.ResourceID, ids.UsageReportingID)
}

// ownerOf returns the entitlement that a record of the marketplace is of.
func (h *history) ownerOf(resource string) metering.EntitlementID {
	for id, own := range h.own {
		if slices.ContainsFunc(own, func(ids metering.MarketplaceIDs) bool { return resourceOf(ids) == resource }) {
			return id
		}
	}
	h.fail("6. a record of %s is billed, which no entitlement had", resource)
	return ""
}

// entitlement returns one of the entitlements as it is stored.
func (h *history) entitlement() metering.Entitlement {
	stored, err := h.Table.Entitlement(h.t.Context(), worldtest.Org, h.entities[h.pick(len(h.entities))])
	if err != nil {
		h.t.Fatal(err)
	}
	return stored.Value
}

func (h *history) newActor(i int) *actor {
	a := &actor{link: &link{h: h, name: "w" + strconv.Itoa(i), asleep: make(chan struct{}, 1000), wake: make(chan struct{})}}
	a.worker = h.Worker(&lagging{Table: table.New(tabletest.NewClient(tabletest.Planned(a.link.plan)), h.TableName), h: h, waited: map[reports.Place][]metering.GroupID{}})
	a.worker.Queue, a.worker.Log = &a.queue, slog.New(slog.DiscardHandler)
	a.worker.MaxCandidates = h.random.IntN(3)
	skew := time.Duration(h.random.IntN(7)-3) * time.Minute
	a.worker.Now = func() time.Time { return h.Now().Add(skew) }
	return a
}

// lagging is the table with an index of work that lags, as those of DynamoDB do and those of
// DynamoDB Local do not: it lacks what is new, and has what is gone.
type lagging struct {
	*table.Table
	h      *history
	waited map[reports.Place][]metering.GroupID // what a place had at the last look; under h.mu
}

// lags reports whether the index lags this time.
func (l *lagging) lags() bool {
	l.h.mu.Lock()
	defer l.h.mu.Unlock()
	return l.h.faults && l.h.random.IntN(4) == 0
}

func (l *lagging) Waiting(ctx context.Context, p reports.Place) ([]metering.GroupID, error) {
	ids, err := l.Table.Waiting(ctx, p)
	lags := l.lags()
	l.h.mu.Lock()
	defer l.h.mu.Unlock()
	if lags {
		return l.waited[p], err
	}
	l.waited[p] = ids
	return ids, err
}

func (l *lagging) EachPlace(ctx context.Context, first, last time.Time, take func(reports.Place) error) error {
	return l.Table.EachPlace(ctx, first, last, func(p reports.Place) error {
		if l.lags() {
			return nil
		}
		return take(p)
	})
}

func (l *lagging) Due(ctx context.Context, lane string, now time.Time, limit int) iter.Seq2[[]reports.Place, error] {
	return func(yield func([]reports.Place, error) bool) {
		for places, err := range l.Table.Due(ctx, lane, now, limit) {
			if !yield(slices.DeleteFunc(places, func(reports.Place) bool { return l.lags() }), err) {
				return
			}
		}
	}
}

// Lease is not obeyed each time: a lease spares work, and the invariants hold without it.
func (l *lagging) Lease(ctx context.Context, p reports.Place, holder string, now, until time.Time) (bool, error) {
	leased, err := l.Table.Lease(ctx, p, holder, now, until)
	return leased || err == nil && l.lags(), err
}

// note logs an event. It is called under mu.
func (h *history) note(format string, args ...any) {
	h.log = append(h.log, h.Now().Format("02 15:04 ")+fmt.Sprintf(format, args...))
}

func (h *history) fail(format string, args ...any) {
	if h.broken == "" {
		h.broken = fmt.Sprintf(format, args...)
	}
}

// observing is the plan of a connection without faults, whose writes the copy follows.
func (h *history) observing(_ int, r *http.Request) tabletest.Fault {
	return func(send func() (*http.Response, error)) (*http.Response, error) {
		return h.observed("client", r, send)
	}
}

var writes = []string{"PutItem", "UpdateItem", "DeleteItem", "TransactWriteItems"}

// observed sends a request. After a write, the copy follows and the invariants are checked, before
// any other write is sent.
func (h *history) observed(who string, r *http.Request, send func() (*http.Response, error)) (*http.Response, error) {
	if !slices.Contains(writes, tabletest.Action(r)) {
		return send()
	}
	body, err := r.GetBody()
	if err != nil {
		return nil, err
	}
	request, err := io.ReadAll(body)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	response, err := send()
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(response.Body)
	if err = errors.Join(err, response.Body.Close()); err != nil {
		return nil, err
	}
	response.Body = io.NopCloser(bytes.NewReader(text))
	if response.StatusCode == http.StatusOK {
		h.follow(who, request)
		h.check()
	}
	return response, nil
}

// rouse wakes the requests that sleep. One that has read wake before, and is about to sleep, does
// not.
func (l *link) rouse() {
	l.h.mu.Lock()
	defer l.h.mu.Unlock()
	close(l.wake)
	l.wake = make(chan struct{})
}

// fate is how a request of a worker fails; nil is not at all.
func (l *link) plan(_ int, r *http.Request) tabletest.Fault {
	h := l.h
	return func(send func() (*http.Response, error)) (*http.Response, error) {
		pass := func() (*http.Response, error) { return h.observed(l.name, r, send) }
		h.mu.Lock()
		crashed, fate, wake := l.crashed, 100, l.wake
		if h.faults && (tabletest.Action(r) != "Query" || h.random.IntN(20) == 0) { // a look for work is 32 of them
			fate = h.random.IntN(100)
		}
		kind := tabletest.Kinds[h.random.IntN(len(tabletest.Kinds))]
		if fate == 1 || fate == 2 {
			l.crashed = true
			h.note("%s dies at %s", l.name, tabletest.Action(r))
		}
		h.mu.Unlock()
		dead := errors.New("the worker is dead")
		switch {
		case crashed, fate == 1:
			return nil, dead
		case fate == 2: // its last request arrives
			if response, err := pass(); err == nil {
				_ = response.Body.Close()
			}
			return nil, dead
		case fate == 3 || fate == 4:
			l.asleep <- struct{}{}
			select {
			case <-wake:
			case <-r.Context().Done():
				return nil, r.Context().Err()
			}
			return pass()
		case (fate == 5 || fate == 6) && slices.Contains(writes, tabletest.Action(r)):
			return h.late.Kind().Of(r)(pass)
		case fate < 11:
			if fault := kind.Of(r); fault != nil {
				return fault(pass)
			}
		}
		return pass()
	}
}

// pick returns a number below n.
func (h *history) pick(n int) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.random.IntN(n)
}

// step does one thing.
func (h *history) step() {
	switch h.pick(18) {
	case 17:
		h.arrive()
	case 0, 1, 2:
		h.use()
	case 3:
		h.user()
	case 4:
		h.environment()
	case 5:
		h.operator()
	case 16:
		h.terms()
	case 6, 7:
		h.Set(h.Now().Add(time.Duration(1+h.pick(70)) * time.Minute))
	default:
		h.work(h.workers[h.pick(len(h.workers))])
	}
}

// arrive lets the writes arrive that are late.
func (h *history) arrive() {
	n, err := h.late.Arrive()
	if err != nil {
		h.t.Error(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lateWrites += n
}

func number(text string) metering.Number {
	n, err := metering.ParseNumber(text)
	if err != nil {
		panic(err) // the test's own text
	}
	return n
}

// use is a client that reports usage, of dimensions or of metrics.
func (h *history) use() {
	h.mu.Lock()
	n := len(h.groups)
	h.mu.Unlock()
	if n >= 12 {
		return
	}
	quantities := []string{"0", "0.3000004", "0.7", "1.25", "2.0000009", "4", "13.9999999"}
	at := h.Now().Add(-time.Duration(h.pick(4)) * 30 * time.Minute)
	g := metering.NewGroup{EntitlementID: string(h.entities[h.pick(len(h.entities))]), Timestamp: &at}
	if h.pick(3) == 0 {
		all := slices.Sorted(maps.Keys(meters))
		for range 1 + h.pick(4) {
			r := metering.NewBillableRecord{Key: meterID(all[h.pick(len(all))]), Quantity: quantities[h.pick(len(quantities))]}
			if r.Key == meterID("d5") {
				r.Properties = map[string]any{"user": []string{"ann", "bob", "eve"}[h.pick(3)]}
			}
			g.BillableRecords = append(g.BillableRecords, r)
		}
	} else {
		for _, dimension := range []string{"d0", "d1"}[:1+h.pick(2)] {
			g.Records = append(g.Records, metering.NewRecord{Key: dimension, Quantity: quantities[h.pick(len(quantities))]})
		}
	}
	_, err := h.front.Report(h.t.Context(), worldtest.Org, &metering.Report{Groups: []metering.NewGroup{g}, Now: h.Now()})
	gone := metering.CodeOf(err) == metering.NotFound && h.deleted(metering.EntitlementID(g.EntitlementID))
	if err != nil && metering.CodeOf(err) != metering.Invalid && !gone { // every quantity is 0
		h.t.Error(err)
	}
}

// user deletes or retries a group.
func (h *history) user() {
	h.mu.Lock()
	ids := slices.Sorted(maps.Keys(h.groups))
	failed := slices.DeleteFunc(slices.Clone(ids), func(id metering.GroupID) bool { return h.groups[id].Status != metering.StatusReportFailed })
	h.mu.Unlock()
	if len(failed) > 0 && h.pick(2) == 0 {
		ids = failed
	}
	if len(ids) == 0 {
		return
	}
	id := ids[h.pick(len(ids))]
	if h.deletedSinceBackup(id) {
		return // the restored table does not show it, the client knows
	}
	h.mu.Lock()
	status := h.groups[id].Status
	h.mu.Unlock()
	var err error
	if status == metering.StatusReportFailed || status == metering.StatusInvalid && h.pick(2) == 0 {
		_, err = h.front.Retry(h.t.Context(), worldtest.Org, id, metering.Retry{Now: h.Now()})
	} else if h.pick(3) == 0 {
		_, err = h.front.Delete(h.t.Context(), worldtest.Org, id, "", h.Now())
	}
	if code := metering.CodeOf(err); err != nil && code != metering.Conflict && code != metering.Invalid {
		h.t.Error(err)
	}
}

// environment changes what is around: the marketplace, the buyer, the config, another meter.
func (h *history) environment() {
	e := h.entitlement()
	switch h.pick(18) {
	case 13, 16, 17:
		h.deleteOrPut(e)
	case 12:
		if h.pick(2) == 0 {
			h.newerConfig()
			h.mu.Lock()
			h.note("the config is one of a newer version")
			h.mu.Unlock()
		}
	case 9, 10, 11:
		h.copyOrRestore()
	case 8:
		h.steal(e)
	case 7:
		if h.pick(4) > 0 || h.cancelled[e.ID] || e.Status == metering.EntitlementDeleted {
			return
		}
		h.cancelled[e.ID] = true
		e.Status = metering.EntitlementCancelled
		e.CancelTime = h.Now().Add(-time.Duration(h.pick(90)) * time.Minute).Truncate(time.Second)
		h.change(e)
		h.mu.Lock()
		h.note("%s is cancelled at %s", e.ID, e.CancelTime.Format("15:04"))
		h.mu.Unlock()
	case 0, 1:
		doubts := rt.Doubts()
		h.Fault(doubts[h.pick(len(doubts))])
	case 2:
		faults := []sandbox.Fault{{Fault: sandbox.Throttled}, {Fault: sandbox.Unprocessed}, {Fault: sandbox.Partial}, {Fault: sandbox.Slow, DelayMS: 100}}
		if e.Partner == "GCP" {
			faults = append(faults, sandbox.Fault{Fault: sandbox.CheckError}, sandbox.Fault{Operation: "check", Fault: sandbox.ServerError})
		}
		h.Fault(faults[h.pick(len(faults))])
	case 3:
		active := h.pick(2) == 0
		h.Change(func(c *sandbox.Catalog) {
			c.Azure.Subscriptions[0].State = map[bool]string{true: sandbox.AzureSubscribed, false: sandbox.AzureSuspended}[active]
			c.Google.Entitlements[0].State = map[bool]string{true: sandbox.GoogleActive, false: sandbox.GoogleBillingDisabled}[active]
		})
	case 4:
		flags := [][]string{nil, {"enableCommitWithAdditionalUsageMetering"}, {"enableCommitWithAdditionalUsageMetering", "enableCommitWithAdditionalUsageAtListPrice"}}[h.pick(3)]
		renamed := ""
		if h.pick(2) == 0 {
			renamed = []string{"d1", "d2"}[h.pick(2)]
		}
		h.config(flags, renamed)
	case 5, 14, 15:
		h.dimensions(h.pick(2) == 0)
	case 6:
		if e.Partner == "GCP" || h.pick(3) > 0 || e.IdentityKey() == "" {
			return
		}
		record := rt.AWS("d0", "5")
		record.IDs = e.Marketplace
		record.Start = metering.HourOf(h.Now())
		record.End = record.Start.Add(time.Hour)
		response := h.Marketplace(e.Partner).Send(h.t.Context(), []reporting.Record{record})
		h.mu.Lock()
		h.foreign[resourceOf(e.Marketplace)+" "+recordKey(e.ID, record.Start, "d0")] = true
		h.note("another meter writes hour %s of %s: %s", record.Start.Format("15"), e.ID, rt.Verdicts(response))
		h.mu.Unlock()
	}
}

// dimensions lets the seller's catalog have all dimensions, or lack one.
func (h *history) dimensions(all bool) {
	h.Change(func(c *sandbox.Catalog) {
		for _, dimensions := range []*[]sandbox.Dimension{&c.AWS.Products[0].Dimensions, &c.Azure.Offers[0].Plans[0].Dimensions} {
			(*dimensions)[1].Key = map[bool]string{true: "d1", false: "gone"}[all]
		}
	})
}

// steal tries to put another entitlement with the identifiers of one, or of its earlier hours.
func (h *history) steal(e metering.Entitlement) {
	had := h.kept[e.ID]
	if e.Status != metering.EntitlementDeleted {
		had = append(h.sent(e.ID), e.Marketplace)
	}
	if len(had) == 0 { // it was deleted, and nothing was sent of it
		return
	}
	if e.Marketplace = had[h.pick(len(had))]; e.IdentityKey() == "" {
		return
	}
	e.ID, e.Status = "thief", metering.EntitlementActive
	change, err := metering.NewEntitlementChange(worldtest.Org, e.ID, &e, metering.Conditions{}, h.Now())
	if err == nil {
		_, _, err = h.front.PutEntitlement(h.t.Context(), &change)
	}
	if metering.CodeOf(err) != metering.Conflict {
		h.t.Errorf("a second entitlement of the same buyer: %v", err)
	}
}

// sent returns the identifiers of the entitlement's hours that are sealed.
func (h *history) sent(id metering.EntitlementID) (had []metering.MarketplaceIDs) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for place, hour := range h.hours {
		if place.Entitlement == id && hour.Sealed != nil {
			had = append(had, hour.Sealed.Marketplace)
		}
	}
	return had
}

// deleteOrPut deletes an entitlement, which is refused while its usage is not settled, or puts it
// again as it was.
func (h *history) deleteOrPut(e metering.Entitlement) {
	what := "put again"
	if e.Status == metering.EntitlementDeleted {
		h.change(revived(e))
	} else {
		what = "deleted"
		h.Set(h.Now().Add(time.Second))
		kept, unsettled := h.sent(e.ID), h.unsettled(e.ID)
		stored, _, err := h.front.DeleteEntitlement(h.t.Context(), worldtest.Org, e.ID, metering.EntitlementDeletion{Now: h.Now()})
		if unsettled && metering.CodeOf(err) == metering.Conflict {
			return
		}
		if err != nil || h.unsettled(e.ID) {
			h.t.Fatalf("%s is deleted, and has usage that is not settled: %t, before %t; %v", e.ID, h.unsettled(e.ID), unsettled, err)
		}
		h.changed(stored.Value)
		h.mu.Lock()
		h.kept[e.ID] = kept // without those of an hour that a worker opens later, for which nothing waits
		h.mu.Unlock()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.note("%s is %s", e.ID, what)
}

// revived is an entitlement that was DELETED, as it is put again.
func revived(e metering.Entitlement) metering.Entitlement {
	if e.Status = metering.EntitlementActive; !e.CancelTime.IsZero() {
		e.Status = metering.EntitlementCancelled
	}
	return e
}

// unsettled reports whether the entitlement has usage that is not settled.
func (h *history) unsettled(id metering.EntitlementID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, g := range h.groups {
		if g.EntitlementID == string(id) && (g.Status == metering.StatusCreated || g.Status == metering.StatusReportPending) {
			return true
		}
	}
	return false
}

// deleted reports whether the entitlement is DELETED.
func (h *history) deleted(id metering.EntitlementID) bool {
	stored, err := h.Table.Entitlement(h.t.Context(), worldtest.Org, id)
	return err == nil && stored.Value.Status == metering.EntitlementDeleted
}

// work lets a worker begin something, go on if it sleeps, or be replaced if it died. It returns
// when the worker has ended that, or sleeps.
func (h *history) work(a *actor) {
	if a.done != nil { // it sleeps
		if h.pick(4) > 0 {
			return
		}
		a.link.rouse()
	} else {
		if h.pick(3) == 0 {
			a.queue.Delay() // messages come in another order
		}
		hint, ok := a.queue.Next()
		schedule := !ok
		if ok && h.pick(6) == 0 {
			_ = a.queue.Enqueue(h.t.Context(), hint) // a duplicate message
		}
		done := make(chan error, 1)
		a.done = done
		ctx := context.Background()
		if h.pick(2) == 0 {
			ctx = hurried{ctx}
		}
		go func() {
			var err error
			if schedule {
				_, err = a.worker.Schedule(ctx)
			} else {
				err = a.worker.Work(ctx, hint)
			}
			done <- err
		}()
	}
	h.wait(a)
}

func (h *history) wait(a *actor) {
	select {
	case err := <-a.done:
		a.done = nil
		for len(a.link.asleep) > 0 {
			<-a.link.asleep
		}
		h.mu.Lock()
		if err != nil {
			h.note("%s ends: %v", a.link.name, err)
		}
		if a.link.crashed {
			a.link.crashed = false // another one takes its place
		}
		h.mu.Unlock()
	case <-a.link.asleep:
	}
}

// calm ends all faults, and corrects what stops hours.
func (h *history) calm() {
	h.mu.Lock()
	h.faults = false
	h.mu.Unlock()
	if err := h.ClearFaults(); err != nil {
		h.t.Fatal(err)
	}
	h.Change(func(c *sandbox.Catalog) {
		c.Azure.Subscriptions[0].State, c.Google.Entitlements[0].State = sandbox.AzureSubscribed, sandbox.GoogleActive
	})
	for _, a := range h.workers {
		for a.done != nil {
			a.link.rouse()
			h.wait(a)
		}
	}
	h.arrive()
	google := h.entitlement().Partner == "GCP" // whose month does not end
	if h.newer && (google || h.pick(2) == 0) {
		h.config(nil, "")
	}
	for _, id := range h.entities {
		if stored, err := h.Table.Entitlement(h.t.Context(), worldtest.Org, id); err != nil {
			h.t.Fatal(err)
		} else if e := stored.Value; e.IdentityKey() == "" && (google || h.pick(2) == 0) {
			e.Marketplace = h.own[id][0]
			if e.Status == metering.EntitlementDeleted {
				e = revived(e)
			}
			h.change(e)
		}
	}
}

// retry lets users retry what has failed, now that its dimensions are known, and what operators
// have resolved as not billed.
func (h *history) retry() {
	if h.lost != nil {
		for range 10 {
			h.operator()
		}
	}
	h.settleNow()
	h.dimensions(true)
	for range 20 {
		if h.pick(20) == 0 {
			h.deleteOrPut(h.entitlement())
		}
		h.user()
	}
}

// settle lets time pass until everything is settled.
func (h *history) settle() {
	for _, hours := range []int{0, 1, 1, 2, 4, 20, 6, 26, 26, 26} {
		h.Set(h.Now().Add(time.Duration(hours) * time.Hour))
		for range 2 { // a lane that was refused is sent a minute later
			h.settleNow()
			h.Set(h.Now().Add(2 * time.Minute))
		}
		if !h.waits() {
			break
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, g := range h.groups {
		if g.Status == metering.StatusCreated || g.Status == metering.StatusReportPending {
			h.fail("8. %s is %s at the end", id, g.Status)
		}
	}
	for place, hour := range h.hours {
		if hour.State != reports.StateSettled {
			h.fail("8. hour %s of %s is %s at the end", place.Hour, place.Entitlement, hour.State)
		}
	}
	h.compare()
	h.checkBill()
}

// settleNow lets one worker do all that is due.
func (h *history) settleNow() {
	a := h.workers[0]
	if _, err := a.worker.Schedule(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	for {
		hint, ok := a.queue.Next()
		if !ok {
			return
		}
		if err := a.worker.Work(h.t.Context(), hint); err != nil && !h.stops(hint, err) {
			h.t.Fatalf("%+v: %v", hint, err)
		}
	}
}

// stops reports whether an error is of an hour that can't be sealed: its config is newer, or its
// entitlement has lost its identifiers.
func (h *history) stops(hint reporting.Hint, err error) bool {
	if h.newer && strings.Contains(err.Error(), `member "newer"`) {
		return true
	}
	stored, failed := h.Table.Entitlement(h.t.Context(), worldtest.Org, hint.Place.Entitlement)
	return failed == nil && stored.Value.IdentityKey() == "" && strings.Contains(err.Error(), "no complete identifiers")
}

func (h *history) waits() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, hour := range h.hours {
		if hour.State != reports.StateSettled {
			return true
		}
	}
	for _, g := range h.groups {
		if g.Status == metering.StatusCreated || g.Status == metering.StatusReportPending {
			return true
		}
	}
	return false
}

// The invariants hold in random histories. HISTORIES=10000 tries that many. HISTORY is the seed
// of one to try again, which may differ: requests at once draw in the order in which they come.
func TestHistories_KeepTheInvariants(t *testing.T) {
	t.Parallel()
	random := seedtest.Random(t)
	until, most, atOnce := seedtest.Until(20*time.Second), 1<<30, 6 // each one waits more than it works
	if text := os.Getenv("HISTORIES"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		until, most, atOnce = time.Now().Add(24*time.Hour), n, 16
	}
	var mu sync.Mutex // of what follows, and of random
	reached := map[string]int{}
	n := 0
	next := func() (seed uint64, ok bool) {
		mu.Lock()
		defer mu.Unlock()
		if n == most || !time.Now().Before(until) || t.Failed() {
			return 0, false
		}
		n++
		return random.Uint64(), true
	}
	one := func(t *testing.T, seed uint64) {
		h := newHistory(t, rand.New(rand.NewPCG(seed, 0)))
		t.Cleanup(func() {
			if t.Failed() {
				h.mu.Lock()
				defer h.mu.Unlock()
				t.Log(strings.Join(h.log, "\n"))
			}
		})
		for range 60 {
			h.step()
		}
		h.calm()
		h.retry()
		h.settle()
		mu.Lock()
		defer mu.Unlock()
		for _, hour := range h.hours {
			for i := range hour.Sealed.Records {
				reached[string(hour.Sealed.Records[i].Outcome.Kind)+" "+string(hour.Sealed.Records[i].Outcome.Evidence)]++
			}
		}
		if h.lost != nil {
			reached["restored"]++
		}
		reached["late writes"] += h.lateWrites
		reached["sent"] += h.sentRecords
		for _, line := range h.log {
			for _, event := range []string{"is deleted", "is put again"} {
				if strings.HasSuffix(line, event) {
					reached[event]++
				}
			}
		}
		if h.broken != "" {
			t.Error(h.broken)
		}
	}
	if text := os.Getenv("HISTORY"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		one(t, seed)
		return
	}
	var all sync.WaitGroup
	for range atOnce {
		all.Go(func() {
			for seed, ok := next(); ok; seed, ok = next() {
				t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) { one(t, seed) })
			}
		})
	}
	all.Wait()
	t.Logf("%d histories reached %v", n, reached)
}
