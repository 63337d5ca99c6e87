package table_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// failed brings group g1 through the report of the hour, which leaves these outcomes.
func (r *groupsTable) failed(outcomes ...string) {
	r.Helper()
	r.claim("g1")
	r.apply("g1", 3, outcomes...)
}

func (r *groupsTable) retry(at time.Time) (metering.Group, error) {
	return r.Retry(r.Context(), "o1", "g1", metering.Retry{Now: at})
}

func has(item map[string]types.AttributeValue, attribute string) bool {
	_, ok := item[attribute]
	return ok
}

// What was rejected in a report waits for a later hour than that of the report.
func TestRetry_WaitsForALaterHour(t *testing.T) {
	t.Parallel()
	r := newGroupsTable(t, "g1")
	r.failed("a", "REJECTED", "b", "REJECTED", "c", "REJECTED")
	g, err := r.retry(now.Add(2 * time.Hour))
	if err != nil || g.Status != metering.StatusCreated || g.Problems != nil || g.UsageRecordReportID != "" || len(g.Records) != 3 {
		t.Fatalf("%+v, %v", g, err)
	}
	r.wantWaits("g1", now.Add(time.Hour))
	if item := r.item("g1"); has(item, "_outcomes") || !has(item, "_hour") {
		t.Errorf("%v", keysAndTexts(item))
	}
	if m, err := r.Claim(t.Context(), r.hour, "g1", now, time.Time{}); m != nil || err != nil {
		t.Errorf("a worker that slept claims %v, %v", m, err)
	}
	r.hour = hourOf(now.Add(time.Hour))
	if m := r.claim("g1"); m.Only != nil || m.Before != nil {
		t.Errorf("%+v", m)
	}
}

// The rest of a group of which a part is billed is reported as it is stored, whatever the
// entitlement and the config say since.
func TestRetry_InPart(t *testing.T) {
	t.Parallel()
	r := newGroupsTable(t, "g1")
	r.failed("a", "ACCEPTED", "b", "REJECTED", "c", "ACCEPTED")
	before := r.wantStatus("g1", metering.StatusReportFailed)
	storeEntitlement(t, r.Table, "e1", strings.Replace(identified, `{"key":"b"}`, `{"key":"other"}`, 1))
	g, err := r.retry(now.Add(2 * time.Hour))
	if err != nil || g.Status != metering.StatusCreated || g.Problems != nil || g.UsageRecordReportID != "" {
		t.Fatalf("%+v, %v", g, err)
	}
	wantSame(t, before.Records, g.Records)
	wantSame(t, before.MetaInfo, g.MetaInfo)
	r.wantWaits("g1", now.Add(time.Hour))
	_, err = r.Delete(t.Context(), "o1", "g1", "", now)
	wantCode(t, err, metering.Conflict)
	if !strings.Contains(err.Error(), `"a" is billed`) {
		t.Error(err)
	}
	r.wantStatus("g1", metering.StatusCreated)

	r.hour = hourOf(now.Add(time.Hour))
	m := r.claim("g1")
	if len(m.Only) != 1 || m.Only["b"].String() != "1.5" || len(m.Before) != 3 {
		t.Errorf("%+v", m)
	}
	r.apply("g1", 2, "a", "ACCEPTED", "b", "ACCEPTED", "c", "ACCEPTED")
	r.wantStatus("g1", metering.StatusReported)
	if item := r.item("g1"); has(item, "_outcomes") {
		t.Errorf("%v", keysAndTexts(item))
	}
}

// A part of a group that was rejected twice is retried twice.
func TestRetry_InPartAgain(t *testing.T) {
	t.Parallel()
	r := newGroupsTable(t, "g1")
	for i := range 3 {
		r.hour = hourOf(now.Add(time.Duration(i) * time.Hour))
		if m := r.claim("g1"); i > 0 && (len(m.Only) != 1 || len(m.Before) != 3) {
			t.Errorf("%+v", m)
		}
		r.apply("g1", 3, "a", "ACCEPTED", "b", "REJECTED", "c", "ACCEPTED")
		if g, err := r.retry(now.Add(5 * time.Hour)); err != nil || g.Status != metering.StatusCreated {
			t.Fatalf("%+v, %v", g, err)
		}
		r.wantWaits("g1", now.Add(time.Duration(i+1)*time.Hour))
	}
}

// What no hour can take any more is not CREATED: a part of it that is billed keeps the group from
// being INVALID, which could be deleted.
func TestRetry_NoHourIsLeft(t *testing.T) {
	t.Parallel()
	ended := strings.Replace(identified, `"buyerID"`, `"endTime":"2026-03-01T13:00:00Z","buyerID"`, 1)
	for name, c := range map[string]struct {
		outcomes    []string
		entitlement string
		at          time.Time
		want        string
	}{
		"rejected, too old":              {[]string{"a", "REJECTED"}, identified, now.Add(30 * time.Hour), "INVALID TOO_OLD"},
		"rejected, the entitlement ends": {[]string{"a", "REJECTED"}, ended, now.Add(2 * time.Hour), "INVALID NO_HOUR_LEFT"},
		"in part, too old":               {[]string{"a", "ACCEPTED", "b", "REJECTED"}, identified, now.Add(30 * time.Hour), "REPORT_FAILED TOO_OLD"},
		"in part, the entitlement ends":  {[]string{"a", "ACCEPTED", "b", "REJECTED"}, ended, now.Add(2 * time.Hour), "REPORT_FAILED NO_HOUR_LEFT"},
		"in part, of no entitlement":     {[]string{"a", "ACCEPTED", "b", "REJECTED"}, "", now.Add(2 * time.Hour), "REPORT_FAILED ENTITLEMENT_UNKNOWN"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newGroupsTable(t, "g1")
			r.failed(c.outcomes...)
			if c.entitlement != "" {
				storeEntitlement(t, r.Table, "e1", c.entitlement)
			} else if _, _, err := r.DeleteEntitlement(t.Context(), "o1", "e1", metering.EntitlementDeletion{Now: now}); err != nil {
				t.Fatal(err)
			}
			for range 2 { // again, from what the first has left
				g, err := r.retry(c.at)
				if err != nil || len(g.Problems) != 1 || string(g.Status)+" "+string(g.Problems[0].Code) != c.want {
					t.Fatalf("%s %v, %v, want %s", g.Status, g.Problems, err, c.want)
				}
				wantSame(t, g, r.wantStatus("g1", g.Status))
			}
			r.wantWaits("g1", time.Time{})
			_, err := r.Delete(t.Context(), "o1", "g1", "", now)
			if deleted := err == nil; deleted != strings.HasPrefix(c.want, "INVALID") {
				t.Errorf("deleted: %v", err)
			}
		})
	}
}

// An INVALID group that was never in a report waits for the first hour that its usage has.
func TestRetry_OfAnInvalidGroup(t *testing.T) {
	t.Parallel()
	r := newGroupsTable(t, "g1")
	r.set("g1", map[string]types.AttributeValue{"status": text("INVALID"), "_status": text("ORG#o1#STATUS#INVALID"), "_work": nil, "_due": nil})
	if g, err := r.retry(now.Add(time.Hour)); err != nil || g.Status != metering.StatusCreated {
		t.Fatalf("%+v, %v", g, err)
	}
	r.wantWaits("g1", now)
}

// The time of usage whose validation is skipped is not checked, by a retry as by a report: a worker
// fails it. After a report it has no hour.
func TestRetry_WithoutValidation(t *testing.T) {
	t.Parallel()
	for _, reported := range []bool{false, true} {
		r := newGroupsTable(t, "g1")
		if reported {
			r.failed("a", "REJECTED")
		}
		item := r.item("g1")
		metaInfo, _ := item["metaInfo"].(*types.AttributeValueMemberM)
		metaInfo.Value["SkipValidation"] = &types.AttributeValueMemberBOOL{Value: true}
		r.set("g1", map[string]types.AttributeValue{
			"metaInfo": metaInfo, "status": text("REPORT_FAILED"), "_status": text("ORG#o1#STATUS#REPORT_FAILED"), "_work": nil, "_due": nil,
		})
		g, err := r.retry(now.Add(30 * time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		if reported {
			if g.Status != metering.StatusInvalid || g.Problems[0].Code != metering.ProblemExpired {
				t.Errorf("%s %v", g.Status, g.Problems)
			}
			r.wantWaits("g1", time.Time{})
		} else {
			r.wantStatus("g1", metering.StatusCreated)
			r.wantWaits("g1", now)
		}
	}
}

func TestRetry_Refuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		attributes map[string]types.AttributeValue
		says       string
	}{
		"a conflict":               {map[string]types.AttributeValue{"_outcomes": kinds("a", "ACCEPTED", "b", "CONFLICT")}, `"b" is CONFLICT`},
		"an unknown outcome":       {map[string]types.AttributeValue{"_outcomes": kinds("a", "REJECTED", "b", "UNKNOWN")}, `"b" is UNKNOWN`},
		"one of a newer version":   {map[string]types.AttributeValue{"_outcomes": kinds("a", "REJECTED", "b", "HELD")}, `"b" is HELD`},
		"no quantity":              {map[string]types.AttributeValue{"_outcomes": kinds("a", "ACCEPTED", "z", "REJECTED")}, `"z"`},
		"outcomes that don't fit":  {map[string]types.AttributeValue{"_outcomes": text("IN_REPORT"), "usageRecordReportID": text("rep-1")}, "rep-1"},
		"a problem not resolved":   {map[string]types.AttributeValue{"_outcomes": nil, "problems": problemsOf("CONFLICT")}, "CONFLICT"},
		"outcomes of another type": {map[string]types.AttributeValue{"_outcomes": &types.AttributeValueMemberBOOL{Value: true}}, "_outcomes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newGroupsTable(t, "g1")
			r.failed("a", "REJECTED")
			r.set("g1", c.attributes)
			before := keysAndTexts(r.item("g1"))
			if _, err := r.retry(now.Add(time.Hour)); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want %q", err, c.says)
			}
			wantSame(t, before, keysAndTexts(r.item("g1")))
		})
	}
}

func problemsOf(code string) types.AttributeValue {
	return &types.AttributeValueMemberL{Value: []types.AttributeValue{&types.AttributeValueMemberM{Value: map[string]types.AttributeValue{
		"code": text(code), "path": text("/records/a"), "message": text("m"), "hint": text("h"),
	}}}}
}

// A retry and a report that is applied again, at the same moment: one finds what the other wrote.
func TestRetry_AfterAnotherOutcome(t *testing.T) {
	t.Parallel()
	r := newGroupsTable(t, "g1")
	r.failed("a", "REJECTED", "b", "REJECTED", "c", "REJECTED")
	resolved := false
	slept := table.New(tabletest.NewClient(tabletest.Planned(func(_ int, request *http.Request) tabletest.Fault {
		if tabletest.Action(request) == "UpdateItem" && !resolved {
			resolved = true
			if err := r.Apply(t.Context(), r.version(4), "g1", applied("a", "ACCEPTED", "b", "REJECTED", "c", "REJECTED"), now.Add(time.Hour)); err != nil {
				t.Error(err)
			}
		}
		return nil
	})), r.name)
	g, err := slept.Retry(t.Context(), "o1", "g1", metering.Retry{Now: now.Add(time.Hour)})
	if err != nil || g.Status != metering.StatusCreated || !has(r.item("g1"), "_outcomes") {
		t.Errorf("%+v, %v", g, err)
	}
	r.hour = hourOf(now.Add(time.Hour))
	if m := r.claim("g1"); len(m.Only) != 2 {
		t.Errorf("%+v", m.Only)
	}
}

// A change that comes between a retry's read and its update, at the same moment as the one before
// it, so that no time differs.
func TestRetry_AfterAChangeAtTheSameMoment(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change  func(r *groupsTable) error
		status  metering.Status
		updates int
	}{
		"a delete": {func(r *groupsTable) error {
			_, err := r.Delete(r.Context(), "o1", "g1", "", now)
			return err
		}, metering.StatusDeleted, 1},
		"a retry": {func(r *groupsTable) error {
			_, err := r.retry(now)
			return err
		}, metering.StatusInvalid, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newGroupsTable(t, "g1")
			r.set("g1", map[string]types.AttributeValue{"status": text("INVALID"), "_status": text("ORG#o1#STATUS#INVALID"), "_work": nil, "_due": nil})
			storeEntitlement(t, r.Table, "e1", strings.Replace(identified, `{"key":"b"}`, `{"key":"other"}`, 1)) // INVALID again
			updates := 0
			slept := table.New(tabletest.NewClient(tabletest.Planned(func(_ int, request *http.Request) tabletest.Fault {
				if tabletest.Action(request) != "UpdateItem" {
					return nil
				}
				if updates++; updates == 1 {
					if err := c.change(r); err != nil {
						t.Error(err)
					}
				}
				return nil
			})), r.name)
			_, err := slept.Retry(t.Context(), "o1", "g1", metering.Retry{Now: now})
			if c.status == metering.StatusDeleted {
				wantCode(t, err, metering.Conflict)
			} else if err != nil {
				t.Error(err)
			}
			if updates != c.updates {
				t.Errorf("%d updates", updates)
			}
			r.wantStatus("g1", c.status)
		})
	}
}

// A group is retried on a restored table only if it has changed since reporting was resumed there.
func TestRetry_OnARestoredTable(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		restored types.AttributeValue
		code     metering.Code
		retried  bool
	}{
		"resumed before":         {text("2026-03-01T12:29:59.999Z"), 0, true},
		"resumed at that moment": {text("2026-03-01T12:30:00.000Z"), metering.Conflict, false},
		"resumed after":          {text("2026-03-01T13:00:00.000Z"), metering.Conflict, false},
		"unreadable":             {text("yesterday"), metering.Internal, false},
		"of another type":        {&types.AttributeValueMemberN{Value: "1"}, metering.Internal, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newGroupsTable(t, "g1")
			r.failed("a", "REJECTED")
			r.set("g1", map[string]types.AttributeValue{"lastUpdateTime": text("2026-03-01T12:30:00.000Z")})
			before := keysAndTexts(r.item("g1"))
			gate := map[string]types.AttributeValue{"PK": text("REPORTING"), "SK": text("REPORTING"), "restoredTime": c.restored}
			if _, err := r.client.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &r.name, Item: gate}); err != nil {
				t.Fatal(err)
			}
			_, err := r.retry(now.Add(time.Hour))
			if c.retried {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantCode(t, err, c.code)
			wantSame(t, before, keysAndTexts(r.item("g1")))
		})
	}
}

// A delete, and a retry in part that comes at the same moment.
func TestDelete_OfAGroupThatIsBilledInPart(t *testing.T) {
	t.Parallel()
	r := newGroupsTable(t, "g1")
	r.failed("a", "ACCEPTED", "b", "REJECTED")
	if _, err := r.retry(now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	for _, fault := range []tabletest.Fault{tabletest.Pass, tabletest.Lose, tabletest.Throttle} {
		_, err := r.faulty(fault).Delete(t.Context(), "o1", "g1", metering.DayOf(now), now)
		wantCode(t, err, metering.Conflict)
	}
	_, err := r.Delete(t.Context(), "o1", "g1", "2026-02-01", now)
	wantCode(t, err, metering.NotFound)
	r.wantStatus("g1", metering.StatusCreated)
	r.wantWaits("g1", now.Add(time.Hour))
}

// What was rejected as a whole, and waits again, can be deleted.
func TestDelete_OfAGroupThatWasRejected(t *testing.T) {
	t.Parallel()
	r := newGroupsTable(t, "g1")
	r.failed("a", "REJECTED", "b", "REJECTED")
	if _, err := r.retry(now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if g, err := r.Delete(t.Context(), "o1", "g1", "", now); err != nil || g.Status != metering.StatusDeleted {
		t.Errorf("%+v, %v", g, err)
	}
	r.wantWaits("g1", time.Time{})
}

// A retry ends as one that was never disturbed.
func TestRetry_InPartUnderFaults(t *testing.T) {
	t.Parallel()
	undisturbed := newGroupsTable(t, "g1")
	undisturbed.failed("a", "ACCEPTED", "b", "REJECTED")
	if _, err := undisturbed.retry(now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	want := keysAndTexts(undisturbed.item("g1"))
	for request := range 3 { // of the group, the terms, the update
		for _, fault := range []tabletest.Fault{tabletest.Lose, tabletest.Throttle, tabletest.Short} {
			r := newGroupsTable(t, "g1")
			r.failed("a", "ACCEPTED", "b", "REJECTED")
			faulty := r.faulty(append(slices.Repeat([]tabletest.Fault{tabletest.Pass}, request), fault)...)
			if _, err := faulty.Retry(context.Background(), "o1", "g1", metering.Retry{Now: now.Add(time.Hour)}); err != nil {
				t.Errorf("request %d: %v", request, err)
			}
			wantSame(t, fmt.Sprint(want), fmt.Sprint(keysAndTexts(r.item("g1"))))
		}
	}
}

// What the service notes of a group's reports is in no list, no response and no export.
func TestGroups_OfAReportHaveNoAttributesOfOurs(t *testing.T) {
	t.Parallel()
	r := newGroupsTable(t, "g1")
	r.failed("a", "ACCEPTED", "b", "REJECTED")
	item := r.item("g1")
	for _, attribute := range []string{"_hour", "_applied", "_outcomes"} {
		if !has(item, attribute) {
			t.Fatalf("%v", keysAndTexts(item))
		}
	}
	g := r.wantStatus("g1", metering.StatusReportFailed)
	exported := all(t, r.Table, "o1")
	wantSame(t, []metering.Group{g}, exported)
	if g.Unknown != nil || g.Unexportable != nil || g.MetaInfo.Unknown != nil {
		t.Errorf("%+v", g)
	}
	request := listing(now, 10)
	request.Filter.Status, request.Query = metering.StatusReportFailed, "status=REPORT_FAILED"
	listed, _, _, err := list(t, r.Table, "o1", request)
	if err != nil || !strings.Contains(listed, `"g1"`) || strings.Contains(listed, `"_`) || strings.Contains(listed, "ACCEPTED") {
		t.Errorf("%s, %v", listed, err)
	}
	// An import of what was exported waits for nothing.
	exported[0].ID, exported[0].Status, exported[0].Problems = "g2", metering.StatusCreated, nil
	put(t, r.Table, &exported[0])
	for name := range r.item("g2") {
		if slices.Contains([]string{"_hour", "_applied", "_outcomes", "_work", "_due"}, name) {
			t.Errorf("the import has %s", name)
		}
	}
}
