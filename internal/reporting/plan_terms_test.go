package reporting_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/reporting"
	rt "github.com/marketmeter/marketmeter/internal/reporting/reportingtest"
	"github.com/marketmeter/marketmeter/internal/reporting/worldtest"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/sandbox"
)

// meanwhile is a table on which something happens once, after a call of a worker.
type meanwhile struct {
	*table.Table
	after map[string]func() // by the name of the call
}

func (m meanwhile) happen(call string) {
	if do := m.after[call]; do != nil {
		delete(m.after, call)
		do()
	}
}

func (m meanwhile) Waiting(ctx context.Context, p reports.Place) ([]metering.GroupID, error) {
	defer m.happen("Waiting")
	return m.Table.Waiting(ctx, p)
}

func (m meanwhile) PutSum(ctx context.Context, h *reports.Hour, part int, sum *reports.Sum) error {
	defer m.happen("PutSum")
	return m.Table.PutSum(ctx, h, part, sum)
}

func (m meanwhile) Members(ctx context.Context, h *reports.Hour, ids []metering.GroupID) ([]reports.Member, error) {
	defer m.happen("Members")
	return m.Table.Members(ctx, h, ids)
}

func (m meanwhile) Ledger(ctx context.Context, org metering.OrgID, e metering.EntitlementID) (reports.Ledger, error) {
	defer m.happen("Ledger")
	return m.Table.Ledger(ctx, org, e)
}

func (m meanwhile) WaitingGroups(ctx context.Context, p reports.Place, ids []metering.GroupID) ([]metering.Group, error) {
	defer m.happen("WaitingGroups")
	return m.Table.WaitingGroups(ctx, p, ids)
}

func atAWS() metering.Entitlement { return worldtest.Entitlements()[0] }

var awsHour = reports.Place{Organization: worldtest.Org, Entitlement: worldtest.OnAWS, Hour: rt.Hour}

// A change of what an hour is sealed by is obeyed, however long the worker claims, reads the
// groups, or sleeps before it stores the seal.
func TestPlan_SealsByTermsOfTheLastSeconds(t *testing.T) {
	t.Parallel()
	const otherLicence = "arn:aws:license-manager::294406891311:license:l-other"
	for _, c := range []struct {
		name string
		make func(w *worldtest.World)
		want string
	}{
		{"rate", func(w *worldtest.World) {
			e := atAWS()
			e.Info.Dimensions[0].Rate = worldtest.Quantity("2")
			w.PutEntitlement(e)
		}, "SEALED: price 2"},
		{"licenseArn", func(w *worldtest.World) {
			e := atAWS()
			e.Marketplace.LicenseARN = otherLicence
			w.PutEntitlement(e)
		}, "SEALED: price 0.5 licence " + otherLicence},
		{"cancelTime", func(w *worldtest.World) {
			e := atAWS()
			e.Status, e.CancelTime = metering.EntitlementCancelled, rt.Hour
			w.PutEntitlement(e)
		}, "SETTLED REJECTED SEAL NO_HOUR_LEFT: price 0.5"},
		{"endTime", func(w *worldtest.World) {
			e := atAWS()
			e.EndTime = rt.Hour
			w.PutEntitlement(e)
		}, "SETTLED REJECTED SEAL NO_HOUR_LEFT: price 0.5"},
		{"config", func(w *worldtest.World) {
			w.PutConfig(metering.Config{"partnerUsageMeteringConfigs": []any{map[string]any{"partner": "AWS"}}})
		}, "SEALED: price 0.5 config 1"},
		{"no entitlement", func(w *worldtest.World) { w.DeleteItems("ORG#acme", "ENTITLEMENT#ent-aws") }, "OPEN"},
		{"no identifiers", func(w *worldtest.World) {
			e := atAWS()
			e.Marketplace = metering.MarketplaceIDs{}
			w.PutEntitlement(e)
		}, "OPEN"},
		{"a config of a newer version", func(w *worldtest.World) { w.PutNewerConfig("AWS", `"newer":true`) }, "OPEN"},
		{"a pause", func(w *worldtest.World) {
			if err := w.Table.Pause(t.Context(), "tester", w.Now()); err != nil {
				t.Fatal(err)
			}
		}, "OPEN"},
	} {
		for _, call := range []string{"PutSum", "Members", "Ledger"} {
			t.Run(c.name+" after "+call, func(t *testing.T) {
				t.Parallel()
				w := worldtest.NewWorld(t, sandbox.Options{})
				w.Report(worldtest.OnAWS, rt.Hour, "d0 1")
				if call == "Members" { // which are read if they have billable records
					putMetric(w, "d1")
					reportMetric(w, worldtest.OnAWS, rt.Hour, "2")
				}
				w.Set(closed)
				changed := func() {
					w.Set(w.Now().Add(10 * time.Second))
					c.make(w)
				}
				worker := w.Worker(meanwhile{w.Table, map[string]func(){call: changed}})
				err := worker.Plan(t.Context(), awsHour)
				got := outcome(w, worldtest.OnAWS, rt.Hour, "d0")
				if h := w.Hour(worldtest.OnAWS, rt.Hour); h.Sealed != nil {
					got += ": price " + h.Record("d0").UnitPrice.String()
					if licence := h.Sealed.Marketplace.LicenseARN; licence != rt.Licence {
						got += " licence " + licence
					}
					if h.Sealed.Config > 0 {
						got += fmt.Sprintf(" config %d", h.Sealed.Config)
					}
				}
				want(t, "hour", got, c.want)
				stops := c.want == "OPEN" && w.Log.Count(reporting.EventGateClosed) == 0
				if (err != nil) != stops || stops != (w.Log.Count(reporting.EventSealStopped) == 1) {
					t.Errorf("the error is %v, %d seals stopped", err, w.Log.Count(reporting.EventSealStopped))
				}
			})
		}
	}
}

// A write that takes too long is given up, and the hour is sealed by what is stored then.
func TestPlan_GivesUpASealThatIsNotStoredInTime(t *testing.T) {
	t.Parallel()
	for _, stored := range []bool{false, true} {
		w := worldtest.NewWorld(t, sandbox.Options{})
		w.Report(worldtest.OnAWS, rt.Hour, "d0 1")
		w.Set(closed)
		old := func() { w.Set(w.Now().Add(3990 * time.Millisecond)) }
		slow := &slowSeal{meanwhile: meanwhile{w.Table, map[string]func(){"Ledger": old}}, stored: stored, then: func() {
			e := atAWS()
			e.Info.Dimensions[0].Rate = worldtest.Quantity("2")
			w.PutEntitlement(e)
		}}
		if err := w.Worker(slow).Plan(t.Context(), awsHour); err != nil {
			t.Error(err)
		}
		lane, hinted := w.Hour(worldtest.OnAWS, rt.Hour).Sealed.Lane, false
		for hint, ok := w.Queue.Next(); ok; hint, ok = w.Queue.Next() {
			hinted = hinted || hint.Lane == lane
		}
		if !hinted {
			t.Errorf("stored %v: the lane has no hint", stored)
		}
		want(t, "report", listedReport(t, w), "CREATED calls 0 attempts 0")
		price := "2"
		if stored {
			price = "0.5"
		}
		want(t, "price", w.Hour(worldtest.OnAWS, rt.Hour).Record("d0").UnitPrice.String(), price)
		w.Work()
		want(t, "billed", w.Billed(), "d0=1")
	}
}

// A seal that is never stored in time ends with an error, by which its message is delivered again
// later, and its dead letters ring.
func TestPlan_SealThatIsNeverStoredInTimeIsAnError(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	w.Report(worldtest.OnAWS, rt.Hour, "d0 1")
	w.Set(closed)
	slow := meanwhile{w.Table, map[string]func(){}}
	var pass func() // at each look at the ledger
	pass = func() {
		w.Set(w.Now().Add(5 * time.Second))
		slow.after["Ledger"] = pass
	}
	slow.after["Ledger"] = pass
	if err := w.Worker(slow).Plan(t.Context(), awsHour); err == nil || !strings.Contains(err.Error(), "not sealed within 5s") {
		t.Errorf("the error is %v", err)
	}
	want(t, "state", string(w.Hour(worldtest.OnAWS, rt.Hour).State), "OPEN")
	w.Work()
	want(t, "billed", w.Billed(), "d0=1")
}

// slowSeal is a table whose first seal has no response in time.
type slowSeal struct {
	meanwhile
	stored bool // all the same
	then   func()
}

func (s *slowSeal) Write(ctx context.Context, step *reports.Step) error {
	then := s.then
	if s.then = nil; then == nil {
		return s.Table.Write(ctx, step)
	}
	if s.stored {
		if err := s.Table.Write(context.WithoutCancel(ctx), step); err != nil {
			return err
		}
	}
	<-ctx.Done()
	then()
	return ctx.Err()
}

// The time to list what waits counts too.
func TestPlan_OpensNoHourByTermsThatAreOld(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*worldtest.World){
		"no connection": func(w *worldtest.World) { w.DeleteItems("ORG#acme", "CONNECTION#AWS") },
		"lockMinutes": func(w *worldtest.World) {
			minutes := 240
			w.PutConnection(metering.Connection{Partner: "AWS", LockMinutes: &minutes})
		},
		"a pause": func(w *worldtest.World) {
			if err := w.Table.Pause(t.Context(), "tester", w.Now()); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := worldtest.NewWorld(t, sandbox.Options{})
			group := w.Report(worldtest.OnAWS, rt.Hour, "d0 1")
			w.Set(closed)
			worker := w.Worker(meanwhile{w.Table, map[string]func(){"Waiting": func() {
				w.Set(w.Now().Add(10 * time.Second))
				change(w)
			}}})
			if err := worker.Plan(t.Context(), awsHour); err != nil {
				t.Error(err)
			}
			want(t, "hour", outcome(w, worldtest.OnAWS, rt.Hour, "d0"), "no hour")
			want(t, "group", w.Status(group), "CREATED")
		})
	}
}

// Late usage is moved on 100 groups at a time. What is changed meanwhile holds for the others.
func TestPlan_MovesOnByTermsOfTheLastSeconds(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*worldtest.World)
		want   string
	}{
		"a cancellation": {func(w *worldtest.World) {
			e := atAWS()
			e.Status, e.CancelTime = metering.EntitlementCancelled, rt.Hour.Add(time.Hour)
			w.PutEntitlement(e)
		}, "REPORT_FAILED EXPIRED"},
		"a pause": {func(w *worldtest.World) {
			if err := w.Table.Pause(t.Context(), "tester", w.Now()); err != nil {
				t.Fatal(err)
			}
		}, "CREATED"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := worldtest.NewWorld(t, sandbox.Options{})
			w.Report(worldtest.OnAWS, rt.Hour, "d0 1")
			w.Set(closed)
			w.Work()
			var late []metering.GroupID
			for range 101 {
				late = append(late, w.Report(worldtest.OnAWS, rt.Hour, "d0 1"))
			}
			slices.Sort(late)
			worker := w.Worker(meanwhile{w.Table, map[string]func(){"WaitingGroups": func() {
				w.Set(w.Now().Add(10 * time.Second))
				c.change(w)
			}}})
			if err := worker.Plan(t.Context(), awsHour); err != nil {
				t.Error(err)
			}
			want(t, "the first", w.Status(late[0])+" "+w.Status(late[99]), "CREATED CREATED")
			want(t, "the last", w.Status(late[100]), c.want)
			ids, err := w.Table.Waiting(t.Context(), awsHour)
			if err != nil {
				t.Fatal(err)
			}
			left := 0
			if c.want == "CREATED" {
				left = 1
			}
			want(t, "left", fmt.Sprint(len(ids)), fmt.Sprint(left))
		})
	}
}

// After a pause a worker claims no more than it has begun with. Once reporting is resumed, the hour
// is sealed with all of its groups.
func TestPlan_ClaimsAndSealsNothingAfterAPause(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	lists := [][]metering.GroupID{{w.Report(worldtest.OnAWS, rt.Hour, "d0 1")}, {w.Report(worldtest.OnAWS, rt.Hour, "d0 2")}}
	w.Set(closed)
	h := reports.OpenHour(worldtest.Org, worldtest.OnAWS, rt.Hour)
	h.Opened, h.Opener, h.Parts = closed, "opener", len(lists)
	if err := w.Table.Open(t.Context(), &h, lists); err != nil {
		t.Fatal(err)
	}
	worker := w.Worker(meanwhile{w.Table, map[string]func(){"PutSum": func() {
		w.Set(w.Now().Add(10 * time.Second))
		if err := w.Table.Pause(t.Context(), "tester", w.Now()); err != nil {
			t.Fatal(err)
		}
	}}})
	if err := worker.Plan(t.Context(), awsHour); err != nil {
		t.Error(err)
	}
	want(t, "groups", w.Status(lists[0][0])+" "+w.Status(lists[1][0]), "REPORT_PENDING CREATED")
	want(t, "hour", outcome(w, worldtest.OnAWS, rt.Hour, "d0"), "OPEN")
	if w.Log.Count(reporting.EventGateClosed) != 1 {
		t.Errorf("the gate closed %d times", w.Log.Count(reporting.EventGateClosed))
	}
	if err := w.Table.Resume(t.Context(), "tester", w.Now()); err != nil {
		t.Fatal(err)
	}
	w.Work()
	want(t, "billed", w.Billed(), "d0=3")
}
