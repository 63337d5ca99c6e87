package reports

import (
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
)

const lostTable = "the table was restored"

// What was never sent is UNKNOWN too: that it was not is not known. What it has in escrow is held
// until an operator resolves it, as with any other UNKNOWN.
func TestAbandon_HoldsWhatMayHaveBeenSent(t *testing.T) {
	h, ledger := sealedHour(t)
	before := ledgerText(ledger)
	after, ledger, err := h.Abandon(ledger, lostTable)
	if err != nil || after.State != StateDecided || after.Version != h.Version+1 || ledgerText(ledger) != before {
		t.Errorf("%v: %s, version %d, the ledger %s; want %s", err, after.State, after.Version, ledgerText(ledger), before)
	}
	for _, dimension := range []string{"a", "b"} {
		if got := after.record(dimension).Outcome; got.Kind != Unknown || got.Reason != lostTable {
			t.Errorf("%s: %+v", dimension, got)
		}
		if h.record(dimension).Outcome.Kind != Undecided {
			t.Errorf("%s of the hour before has changed", dimension)
		}
	}
	resolved, ledger, err := after.Resolve(ledger, "b", false, "ann", inWindow)
	if err != nil || resolved.record("b").Outcome.Kind != Rejected || ledgerText(ledger) == before {
		t.Errorf("%v: %+v, the ledger %s", err, resolved.record("b").Outcome, ledgerText(ledger))
	}
}

// What the backup has sealed never changes: the lost table has sent nothing of a record that has no
// quantity, and has rejected what could not be sealed.
func TestAbandon_DecidesWhatTheBackupHasSealedWithoutAQuantity(t *testing.T) {
	e := entitlementOf("GCP", "10", "a 1 0, c 0 0, d 1 0")
	h, ledger := sealed(t, e, []string{beyondCommit}, exacts("a 4, c 1, d 0"), Ledger{Carry: exacts("d 0.5")})
	if got, want := summary(&h), "a 0 drawn 4 amount 4; c 0 REJECTED NO_PRICE; d 0 in 0.5 out 0.5"; got != want {
		t.Fatalf("%s; want %s", got, want)
	}
	after, ledger, err := h.Abandon(ledger, lostTable)
	if err != nil {
		t.Fatal(err)
	}
	for dimension, want := range map[string]string{"a": "ACCEPTED COMMIT", "c": "REJECTED SEAL", "d": "ACCEPTED NO_USAGE"} {
		if o := after.record(dimension).Outcome; string(o.Kind)+" "+string(o.Evidence) != want {
			t.Errorf("%s: %+v; want %s", dimension, o, want)
		}
	}
	if got, want := ledgerText(ledger), "4 d 0.5"; got != want {
		t.Errorf("the ledger %s; want %s", got, want)
	}
}

func TestAbandon_KeepsOutcomes(t *testing.T) {
	h, ledger := sealedHour(t)
	h, _, err := h.Begin([]string{"b"}, &window, inWindow)
	if err != nil {
		t.Fatal(err)
	}
	h = must(t)(h.Respond("b", 1, Response{Result: Billed, Receipt: "1"}))
	if h, ledger, err = h.Decide(ledger, &window, inWindow); err != nil {
		t.Fatal(err)
	}
	before := ledgerText(ledger)
	after, ledger, err := h.Abandon(ledger, "r")
	if got := after.record("b").Outcome; err != nil || got.Kind != Accepted || got.Receipt != "1" {
		t.Errorf("%v: %+v", err, got)
	}
	if got := after.record("a").Outcome; got.Kind != Unknown || ledgerText(ledger) != before {
		t.Errorf("%+v, the ledger %s; want %s", got, ledgerText(ledger), before)
	}
	if _, _, err := after.Abandon(ledger, "r"); !errors.Is(err, ErrState) {
		t.Errorf("a decided hour: %v; want ErrState", err)
	}
}

// By the terms of a backup, nothing is an outcome: neither what Seal rejects, nor what it has
// nothing to send of. An operator's word on each leaves the ledger as it was, or as if it had been
// sent.
func TestSealInDoubt_LeavesEachOutcomeToAnOperator(t *testing.T) {
	beyond, list := []string{beyondCommit}, []string{beyondCommit, atListPrice}
	ended := at("06-15 09:30")
	for _, test := range []struct {
		name                      string
		flags                     []string
		commit, prices            string
		usage, carry, used        string
		ended                     bool
		outcome                   string // of Seal and Decide
		want                      string
		wantLedger                string
		wantBilled, wantNotBilled string // the ledger
	}{
		{"ordinary", nil, "0", "", "a 2.5", "a 0.25", "0", false, "", "a 2 in 0.25 out 0.75", "0", "0 a 0.75", "0 a 0.25"},
		{"no price", beyond, "10", "b 1 0", "a 2.5", "a 0.75", "4", false, "REJECTED SEAL", "a 3 in 0.75 out 0.25", "4", "4 a 0.25", "4 a 0.75"},
		{"no list price", list, "10", "a 1 0", "a 7", "", "4", false, "REJECTED SEAL", "a 7", "4", "4", "4"},
		{"has ended", nil, "0", "", "a 2.5", "", "0", true, "REJECTED SEAL", "a 2 out 0.5", "0", "0 a 0.5", "0"},
		{"has ended, and no price", beyond, "10", "", "a 2", "", "0", true, "REJECTED SEAL", "a 2", "0", "0", "0"},
		{"has ended, the commit covers all", beyond, "10", "a 1 0", "a 2", "", "0", true, "REJECTED SEAL", "a 0 drawn 2 amount 2", "2", "2", "0"},
		{"the commit covers all", beyond, "10", "a 1 0", "a 2", "", "4", false, "ACCEPTED COMMIT", "a 0 drawn 2 amount 2", "6", "6", "4"},
		{"carried", nil, "0", "", "a 0.5", "a 0.25", "0", false, "ACCEPTED CARRIED", "a 0 in 0.25 out 0.75", "0", "0 a 0.75", "0 a 0.25"},
		{"no usage", nil, "0", "", "a 0", "a 0.25", "0", false, "ACCEPTED NO_USAGE", "a 0 in 0.25 out 0.25", "0", "0 a 0.25", "0 a 0.25"},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := entitlementOf("GCP", test.commit, test.prices)
			if test.ended {
				e.EndTime = ended
			}
			terms, ledger := metering.Terms{Entitlement: e, Config: configOf("GCP", test.flags...)}, Ledger{Carry: exacts(test.carry), Used: metering.MustExact(test.used)}
			s, open, usage := ScheduleOf(e, metering.Connection{}), OpenHour("org1", "ent1", at("06-15 10:00")), metering.HourUsage{Totals: exacts(test.usage)}

			h, after, err := open.Seal(&terms, &s, usage, ledger)
			if err == nil {
				h, _, err = h.Decide(after, &s, inWindow)
			}
			if err != nil {
				t.Fatal(err)
			}
			if o := h.record("a").Outcome; strings.TrimSpace(string(o.Kind)+" "+string(o.Evidence)) != test.outcome {
				t.Fatalf("Seal: %+v; want %s", o, test.outcome)
			}

			h, after, err = open.SealInDoubt(&terms, &s, usage, ledger, lostTable)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := summary(&h), test.want+" UNKNOWN OUTCOME_UNKNOWN"; got != want || ledgerText(after) != test.wantLedger {
				t.Errorf("%s, the ledger %s; want %s, %s", got, ledgerText(after), want, test.wantLedger)
			}
			if o := h.record("a").Outcome; o.Evidence != EvidenceRestore || o.Reason != lostTable || h.State != StateSealed {
				t.Errorf("%s: %+v", h.State, o)
			}
			h, after, err = h.Abandon(after, "another")
			if err != nil || h.State != StateDecided || h.record("a").Outcome.Reason != lostTable || ledgerText(after) != test.wantLedger {
				t.Errorf("%v: %+v, the ledger %s", err, h.record("a").Outcome, ledgerText(after))
			}
			for billed, want := range map[bool]string{true: test.wantBilled, false: test.wantNotBilled} {
				resolved, ledger, err := h.Resolve(after, "a", billed, "ann", inWindow)
				if err != nil || ledgerText(ledger) != want {
					t.Errorf("billed %t: %v, the ledger %s; want %s", billed, err, ledgerText(ledger), want)
				}
				g := metering.Group{ID: "g1", Records: quantities(test.usage)}
				applied, err := resolved.Apply(Member{Group: &g})
				if err != nil {
					t.Fatal(err)
				}
				retry, err := RetryOf(&g, applied.Dimensions)
				if billed && (applied.Status != metering.StatusReported || err == nil) || !billed && (applied.Status != metering.StatusReportFailed || err != nil || !retry.Convert) {
					t.Errorf("billed %t: %s; a retry is %+v, %v", billed, applied.Status, retry, err)
				}
			}
		})
	}
}

// For all histories of a table that is lost and restored, nothing is billed twice: whatever the
// lost table did by later terms, a group is only retried after an operator has seen that it was not
// billed. The invariants of the restored table hold after every step.
func TestProtocol_HoldsAfterARestore(t *testing.T) {
	reached := map[string]int{}
	for seed := range uint64(histories(t)) {
		w := newWorld(allGuards, rand.New(rand.NewPCG(seed, 2)).IntN) //nolint:gosec // a test
		w.runUntilLost(reached)
		for range worldSteps {
			if w.step(); w.broken != "" {
				break
			}
		}
		for range 5 { // what failed is retried
			if w.broken == "" {
				w.settle()
				for range 20 {
					w.user()
				}
			}
		}
		if w.broken != "" {
			t.Fatalf("seed %d: %s\n%s", seed, w.broken, strings.Join(w.log, "\n"))
		}
		for _, h := range w.hours {
			for _, r := range h.Sealed.Records {
				if r.Outcome.Evidence == EvidenceResolved && h.Start.Before(w.floor) {
					reached[map[bool]string{true: "resolved as billed", false: "resolved as not billed"}[r.Outcome.Kind == Accepted]]++
				}
			}
		}
	}
	for _, want := range []string{
		"UNKNOWN RESTORE", "UNKNOWN ", "ACCEPTED COMMIT", "REJECTED SEAL",
		"in doubt, and billed by the lost table", "in doubt, and Seal rejects it", "in doubt, without a quantity",
		"resolved as billed", "resolved as not billed",
	} {
		if reached[want] == 0 {
			t.Errorf("no history reaches %q: %v", want, reached)
		}
	}
}

// runUntilLost runs the world, and makes it one whose table is as it was a while ago. Each hour
// that the lost table may have sent is settled as Worker.Abandon does it.
func (w *world) runUntilLost(reached map[string]int) {
	for range w.choose(150) {
		w.step()
	}
	backup := *w
	backup.groups, backup.hours = nil, map[time.Time]*storedHour{}
	for _, g := range w.groups {
		stored := *g
		backup.groups = append(backup.groups, &stored)
	}
	for hour, h := range w.hours {
		stored := *h
		backup.hours[hour] = &stored
	}

	w.losing = true
	w.note("from here on, all is lost")
	e := *w.terms.Entitlement
	e.Info.Dimensions = entitlementOf(e.Partner, "0", worldPrices[w.choose(len(worldPrices))]).Info.Dimensions
	w.terms = &metering.Terms{Entitlement: &e, Config: w.terms.Config}
	if w.choose(2) == 0 {
		w.schedule.Cancel = time.Time{} // it is taken back
	}
	for range w.choose(150) {
		w.step()
	}
	for len(w.net) > 0 {
		w.receive(0)
	}
	terms, schedule := w.terms, w.schedule
	w.losing = false
	w.floor = metering.HourOf(w.now).Add(time.Hour)
	for hour := range w.hours {
		w.floor = metering.Later(w.floor, hour.Add(time.Hour)) // the world's workers do not wait for its end
	}
	w.groups, w.hours, w.ledger, w.terms, w.schedule = backup.groups, backup.hours, backup.ledger, backup.terms, backup.schedule
	w.requests, w.outcomes = map[place]metering.Quantity{}, map[place]Kind{}
	for i := range w.workers {
		w.workers[i] = worker{calls: w.workers[i].calls + 1}
	}
	w.note("the table is restored; hours from %s on are opened", w.floor.Format("02 15:04"))
	w.abandon(reached)
	w.check()
	if w.choose(2) == 0 { // what was put is put again
		w.terms, w.schedule = terms, schedule
	}
}

// abandon settles each hour before the floor without sending anything. Groups that wait for an hour
// which has a report go to the next one that has none, before any is opened.
func (w *world) abandon(reached map[string]int) {
	hours := slices.SortedFunc(maps.Keys(w.hours), time.Time.Compare)
	for _, hour := range hours {
		if h := w.hours[hour]; h.State != StateSettled {
			w.abandonHour(h, reached)
		}
	}
	waiting := map[time.Time][]int{}
	for j, g := range w.groups {
		if g.Status != metering.StatusCreated {
			continue
		}
		due := g.due
		for w.hours[due] != nil {
			due = due.Add(time.Hour)
		}
		if due.Before(w.floor) {
			g.due = due
			waiting[due] = append(waiting[due], j)
		}
	}
	for _, hour := range slices.SortedFunc(maps.Keys(waiting), time.Time.Compare) {
		w.hours[hour] = &storedHour{Hour: OpenHour("org1", "ent1", hour), candidates: waiting[hour]}
		w.abandonHour(w.hours[hour], reached)
	}
}

// abandonHour settles an hour without sending anything.
func (w *world) abandonHour(h *storedHour, reached map[string]int) {
	var err error
	if h.State == StateOpen {
		if err = w.sealInDoubt(h, reached); err != nil {
			w.fail("seal in doubt: %v", err)
			return
		}
	}
	if h.State == StateSealed {
		if h.Hour, w.ledger, err = h.Abandon(w.ledger, lostTable); err != nil {
			w.fail("abandon: %v", err)
		}
	}
	for _, r := range h.Sealed.Records {
		reached[string(r.Outcome.Kind)+" "+string(r.Outcome.Evidence)]++
	}
	for _, j := range h.members {
		w.apply(h, w.groups[j], metering.StatusReportPending)
	}
	if h.Hour, err = h.Settle(); err != nil {
		w.fail("settle: %v", err)
	}
	w.note("%s is abandoned: %s; ledger %s", h.Start.Format("15:04"), summary(&h.Hour), ledgerText(w.ledger))
}

func (w *world) sealInDoubt(h *storedHour, reached map[string]int) error {
	var members []int
	var claimed []Member
	for _, j := range h.candidates {
		g := w.groups[j]
		if h.Claims(g.Status, g.due) {
			g.Status, g.report = metering.StatusReportPending, h.Start
		}
		if g.report.Equal(h.Start) && g.Status != metering.StatusCreated && g.Status != metering.StatusDeleted {
			members, claimed = append(members, j), append(claimed, g.member())
		}
	}
	h.sealedWith(members, w.groups)
	usage := convert(w.terms, claimed)
	rejects, _, err := h.Seal(w.terms, &w.schedule, usage, w.ledger)
	if err != nil {
		return err
	}
	if h.Hour, w.ledger, err = h.SealInDoubt(w.terms, &w.schedule, usage, w.ledger, lostTable); err != nil {
		return err
	}
	for i := range h.Sealed.Records {
		r := &h.Sealed.Records[i]
		for what, is := range map[string]bool{
			"in doubt, and billed by the lost table": slices.ContainsFunc(h.uses[r.Dimension], func(use string) bool { return w.billed[use] }),
			"in doubt, and Seal rejects it":          rejects.record(r.Dimension).Outcome.Kind == Rejected,
			"in doubt, without a quantity":           r.Quantity.Sign() == 0,
		} {
			if is {
				reached[what]++
			}
		}
	}
	return nil
}
