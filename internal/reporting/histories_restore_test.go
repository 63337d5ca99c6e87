package reporting_test

import (
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/reporting/operate"
	"github.com/marketmeter/marketmeter/internal/reporting/worldtest"
	"github.com/marketmeter/marketmeter/internal/stack"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// backup is a backup of the table, with what the history knew then.
type backup struct {
	at        time.Time
	items     []map[string]types.AttributeValue
	copied    *tableCopy
	cancelled map[metering.EntitlementID]bool
	newer     bool
}

// lost is what the history knows of a table that was restored from a backup.
type lost struct {
	*tableCopy
	billed   map[string]string // what the marketplace billed until then
	unsealed []string          // which of billed the backup had not sealed
}

// ofLost reports whether the lost table has sent a record.
func (h *history) ofLost(key string) bool { return h.lost != nil && h.lost.billed[key] != "" }

// deletedSinceBackup reports whether a client deleted a group after the backup that the table was
// restored from.
func (h *history) deletedSinceBackup(id metering.GroupID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.lost != nil && h.backup.copied.groups[id] != nil && h.lost.groups[id].Status == metering.StatusDeleted
}

// copyOrRestore makes the backup, or loses the table and restores it.
func (h *history) copyOrRestore() {
	switch {
	case h.lost != nil:
	case h.backup == nil:
		h.makeBackup()
	case h.Now().After(h.backup.at):
		h.restore()
	}
}

func (h *history) makeBackup() {
	h.mu.Lock()
	defer h.mu.Unlock()
	b := &backup{at: h.Now(), copied: h.clone(), cancelled: map[metering.EntitlementID]bool{}, newer: h.newer}
	for id := range h.cancelled {
		b.cancelled[id] = true
	}
	var err error
	if b.items, err = tabletest.Items(h.t.Context(), h.client, h.TableName); err != nil {
		h.t.Fatal(err)
	}
	began := slices.ContainsFunc(b.items, func(item map[string]types.AttributeValue) bool {
		key, ok := item["PK"].(*types.AttributeValueMemberS)
		return ok && key.Value == "REPORTING"
	})
	if began { // by docs/reporting.md, an older backup is not noticed
		h.backup = b
		h.note("a backup is made")
	}
}

// restore ends the workers, loses the table, restores it from the backup under another name, and
// resumes as docs/operations.md says.
func (h *history) restore() {
	for _, a := range h.workers {
		for a.done != nil {
			h.mu.Lock()
			a.link.crashed = true
			h.mu.Unlock()
			a.link.rouse()
			h.wait(a)
		}
	}
	h.arrive()
	h.mu.Lock()
	h.lost = &lost{tableCopy: h.tableCopy, billed: h.billed()}
	for key := range h.lost.billed {
		if !h.backup.copied.sealed(key) {
			h.lost.unsealed = append(h.lost.unsealed, key)
		}
	}
	h.tableCopy, h.cancelled = h.backup.copied.clone(), h.backup.cancelled
	h.note("the table is restored to its state of %s", h.backup.at.Format("15:04"))
	h.mu.Unlock()
	client, name := tabletest.Client(h.t)
	for _, item := range h.backup.items {
		if _, err := client.PutItem(h.t.Context(), &dynamodb.PutItemInput{TableName: &name, Item: item}); err != nil {
			h.t.Fatal(err)
		}
	}
	h.TableName, h.Table = name, table.New(client, name)
	h.begin()
	h.Set(h.Now().Add(time.Duration(5+h.pick(300)) * time.Minute))
	if h.newer = false; h.backup.newer { // else its hours can't be sealed, and nothing is resumed
		h.config(nil, "")
	}
	r := h.request()
	r.Since = h.backup.at
	result, err := operate.Resume(h.t.Context(), r)
	if err != nil || result.Incomplete() {
		h.t.Fatalf("%+v, %v", result, err)
	}
}

// request is a request of an operator.
func (h *history) request(arguments ...string) *operate.Request {
	target := stack.At(os.Getenv("DYNAMODB_ENDPOINT"), func(string) string { return "" }).Open(stack.Deadlines{Attempt: 20 * time.Second, Call: time.Minute})
	target.Table, target.Name = h.front, h.TableName
	return &operate.Request{
		Target: target, Getenv: func(string) string { return "" }, Now: h.Now, Log: slog.New(slog.DiscardHandler),
		Organization: worldtest.Org, By: "ann", Arguments: arguments,
	}
}

// operator resolves a record by what the marketplace bills. Requests that are on their way have
// ended.
func (h *history) operator() {
	if slices.ContainsFunc(h.workers[:], func(a *actor) bool { return a.done != nil }) {
		return
	}
	h.mu.Lock()
	place, dimension, billed, ok := h.unresolved()
	h.mu.Unlock()
	if !ok {
		return
	}
	word := map[bool]string{true: "billed", false: "not-billed"}[billed]
	h.mu.Lock()
	h.note("%s of hour %s of %s is resolved as %s", dimension, place.Hour.Format("15"), place.Entitlement, word)
	h.mu.Unlock()
	if _, err := operate.Resolve(h.t.Context(), h.request(metering.ReportID(place.Organization, place.Entitlement, place.Hour), dimension, word)); err != nil {
		h.t.Error(err)
	}
}

// unresolved returns a record of a settled hour that is to be resolved, and whether it was billed.
// The lost table may have sent the usage of an hour in another one that the backup had not sealed,
// whether or not this table has a record of that: then it counts as billed.
func (h *history) unresolved() (place reports.Place, dimension string, billed, ok bool) {
	var open []string
	at := map[string]reports.Place{}
	for p, hour := range h.hours {
		if hour.State != reports.StateSettled || hour.Sealed == nil {
			continue
		}
		for i := range hour.Sealed.Records {
			r := &hour.Sealed.Records[i]
			if r.Outcome.Kind == reports.Unknown || r.Outcome.Kind == reports.Conflict {
				key := recordKey(p.Entitlement, p.Hour, r.Dimension)
				open = append(open, key)
				at[key] = p
			}
		}
	}
	if len(open) == 0 {
		return place, "", false, false
	}
	slices.Sort(open)
	key := open[h.random.IntN(len(open))]
	place, dimension = at[key], key[strings.LastIndex(key, " ")+1:]
	billed = h.billed()[key] != "" || h.lost != nil && slices.ContainsFunc(h.lost.unsealed, func(other string) bool {
		return strings.HasPrefix(other, string(place.Entitlement)+" ") && strings.HasSuffix(other, " "+dimension)
	})
	return place, dimension, billed, true
}

// checkRestored checks that no usage which the lost table billed is billed again.
func (h *history) checkRestored(billed map[string]string) {
	if h.lost == nil {
		return
	}
	for id, then := range h.lost.groups {
		now := h.groups[id]
		if now == nil {
			continue // it was reported after the backup
		}
		hours := map[string]map[string]bool{} // in which a dimension of the group was billed
		note := func(g *seenGroup, bills func(key string) bool) {
			for hour, taken := range g.claims {
				for dimension := range g.dimensions(taken) {
					if key := recordKey(metering.EntitlementID(g.EntitlementID), hour, dimension); bills(key) {
						if hours[dimension] == nil {
							hours[dimension] = map[string]bool{}
						}
						hours[dimension][key] = true
					}
				}
			}
		}
		note(then, h.ofLost)
		note(now, func(key string) bool { return billed[key] != "" && !h.ofLost(key) })
		for dimension, of := range hours {
			if len(of) > 1 {
				h.fail("6. %s of %s is billed by the lost table and again: %v", dimension, id, of)
			}
		}
	}
}
