package table_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

func TestWaitingGroups_AreThoseOfThePlace(t *testing.T) {
	t.Parallel()
	r := newGroupsTable(t)
	var ids []metering.GroupID
	for i := range 130 {
		id := fmt.Sprintf("g%03d", i)
		ids = append(ids, metering.GroupID(id))
		r.report(id)
	}
	r.claim("g001")
	if err := r.Move(t.Context(), r.hour.Place(), "g002", now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Delete(t.Context(), "o1", "g003", "", now); err != nil {
		t.Fatal(err)
	}
	groups, err := r.WaitingGroups(t.Context(), r.hour.Place(), append(ids, "absent"))
	if err != nil || len(groups) != 127 || groups[0].ID != "g000" || groups[1].ID != "g004" || groups[126].ID != "g129" {
		t.Errorf("%d groups: %v", len(groups), err)
	}
}

func TestMove_ChangesTheHourAlone(t *testing.T) {
	t.Parallel()
	r := newGroupsTable(t, "g1")
	before := r.wantStatus("g1", metering.StatusCreated)
	p, later := r.hour.Place(), now.Add(25*time.Hour)
	ctx, units := table.CountUnits(t.Context())
	if err := r.Move(ctx, p, "g1", later); err != nil {
		t.Fatal(err)
	}
	if _, write := units(); write != 7 {
		t.Errorf("%v write units", write)
	}
	r.wantWaits("g1", later)
	wantSame(t, before, r.wantStatus("g1", metering.StatusCreated))
	if err := r.Move(t.Context(), p, "g1", now.Add(30*time.Hour)); err != nil { // it does not wait there any more
		t.Fatal(err)
	}
	r.wantWaits("g1", later)
	for _, to := range []time.Time{later, later.Add(-time.Hour), {}} {
		if err := r.Move(t.Context(), placeOf("o1", "e1", later), "g1", to); err == nil {
			t.Errorf("moved to %v: a due hour only grows", to)
		}
	}
	r.wantWaits("g1", later)
	if m, err := r.Claim(t.Context(), r.hour, "g1", now, time.Time{}); m != nil || err != nil {
		t.Errorf("%v, %v", m, err)
	}
	r.hour = hourOf(later)
	r.claim("g1")
}

func TestExpire_FailsWhatWaits(t *testing.T) {
	t.Parallel()
	r := newGroupsTable(t, "g1", "g2")
	problem := metering.Problem{Code: metering.ProblemNoConnection, Path: "/entitlementID", Message: "m", Hint: "h"}
	ctx, units := table.CountUnits(t.Context())
	if expired, err := r.Expire(ctx, r.hour.Place(), "g1", problem, now.Add(time.Hour)); !expired || err != nil {
		t.Fatal(expired, err)
	}
	if _, write := units(); write != 7 {
		t.Errorf("%v write units", write)
	}
	g := r.wantStatus("g1", metering.StatusReportFailed)
	wantSame(t, []metering.Problem{problem}, g.Problems)
	r.wantWaits("g1", time.Time{})
	if expired, err := r.Expire(t.Context(), placeOf("o1", "e1", now.Add(time.Hour)), "g2", problem, now); expired || err != nil {
		t.Fatal(expired, err)
	}
	r.wantWaits("g2", now)
	r.claim("g2")
	if expired, err := r.Expire(t.Context(), r.hour.Place(), "g2", problem, now); expired || err != nil {
		t.Fatal(expired, err)
	}
	r.wantStatus("g2", metering.StatusReportPending)
}

// What a group has failed with is counted once: also if the first response is lost, and not by a
// worker that comes second.
func TestExpire_SaysWhetherItDid(t *testing.T) {
	t.Parallel()
	r := newGroupsTable(t, "g1")
	problem := metering.Problem{Code: metering.ProblemExpired, Severity: metering.SeverityError, Message: "m", Hint: "h"}
	if expired, err := r.faulty(tabletest.Lose).Expire(t.Context(), r.hour.Place(), "g1", problem, now); !expired || err != nil {
		t.Errorf("the first response is lost: %v, %v", expired, err)
	}
	if expired, err := r.Expire(t.Context(), r.hour.Place(), "g1", problem, now.Add(time.Second)); expired || err != nil {
		t.Errorf("another worker: %v, %v", expired, err)
	}
}

// A retry that expires keeps what became of the group before: what is billed stays billed.
func TestExpire_OfARetryInPart(t *testing.T) {
	t.Parallel()
	r := newGroupsTable(t, "g1")
	r.failed("a", "ACCEPTED", "b", "REJECTED")
	if _, err := r.retry(now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	problem := metering.Problem{Code: metering.ProblemExpired, Severity: metering.SeverityError, Message: "m", Hint: "h"}
	if expired, err := r.Expire(t.Context(), placeOf("o1", "e1", now.Add(time.Hour)), "g1", problem, now); !expired || err != nil {
		t.Fatal(expired, err)
	}
	r.apply("g1", 3, "a", "ACCEPTED", "b", "UNKNOWN") // by a worker that slept
	if g := r.wantStatus("g1", metering.StatusReportFailed); g.Problems[0].Code != metering.ProblemExpired {
		t.Errorf("%+v", g)
	}
	if _, err := r.retry(now.Add(2 * time.Hour)); err != nil {
		t.Fatal(err)
	}
	r.hour = hourOf(now.Add(time.Hour))
	if m := r.claim("g1"); len(m.Only) != 1 || len(m.Before) != 2 {
		t.Errorf("%+v", m)
	}
}

// An older version deletes a group and leaves it in byWork. The worker that finds it removes it,
// and nothing else.
func TestWork_IsRemovedOfGroupsThatEnded(t *testing.T) {
	t.Parallel()
	for name, find := range map[string]func(*groupsTable) error{
		"claim": func(r *groupsTable) error {
			m, err := r.Claim(r.Context(), r.hour, "g1", now, time.Time{})
			if m != nil {
				r.Errorf("claimed %v", m)
			}
			return err
		},
		"move": func(r *groupsTable) error {
			return r.Move(r.Context(), r.hour.Place(), "g1", now.Add(time.Hour))
		},
		"expire": func(r *groupsTable) error {
			_, err := r.Expire(r.Context(), r.hour.Place(), "g1", metering.Problem{Code: "C"}, now)
			return err
		},
		"waiting groups": func(r *groupsTable) error {
			groups, err := r.WaitingGroups(r.Context(), r.hour.Place(), []metering.GroupID{"g1"})
			if len(groups) > 0 {
				r.Errorf("found %v", groups)
			}
			return err
		},
	} {
		for _, status := range append([]metering.Status{"PARKED"}, metering.Statuses...) {
			if status == metering.StatusCreated {
				continue
			}
			t.Run(name+" "+string(status), func(t *testing.T) {
				t.Parallel()
				r := newGroupsTable(t, "g1")
				r.set("g1", map[string]types.AttributeValue{"status": text(string(status)), "_status": text("ORG#o1#STATUS#" + string(status))})
				before := r.item("g1")
				for range 2 {
					if err := find(r); err != nil {
						t.Fatal(err)
					}
				}
				after := r.item("g1")
				if stays := has(after, "_work") && has(after, "_due"); stays != (status == "PARKED") {
					t.Errorf("its entry stays: %t", stays)
				}
				delete(before, "_work")
				delete(before, "_due")
				delete(after, "_work")
				delete(after, "_due")
				wantSame(t, keysAndTexts(before), keysAndTexts(after))
			})
		}
	}
}

// A group that is retried while its old entry is removed keeps its new entry.
func TestWork_IsKeptIfTheGroupWaitsAgain(t *testing.T) {
	t.Parallel()
	r := newGroupsTable(t, "g1")
	r.set("g1", map[string]types.AttributeValue{"status": text("INVALID"), "_status": text("ORG#o1#STATUS#INVALID")})
	retried := 0
	slept := table.New(tabletest.NewClient(tabletest.Planned(func(try int, _ *http.Request) tabletest.Fault {
		if try == 1 { // the removal
			retried++
			if _, err := r.Retry(context.Background(), "o1", "g1", metering.Retry{Now: now.Add(time.Minute)}); err != nil {
				t.Error(err)
			}
		}
		return nil
	})), r.name)
	if m, err := slept.Claim(t.Context(), r.hour, "g1", now, time.Time{}); m != nil || err != nil || retried != 1 {
		t.Errorf("%v, %v, %d", m, err, retried)
	}
	r.wantStatus("g1", metering.StatusCreated)
	r.wantWaits("g1", now)
}
