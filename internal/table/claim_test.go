package table_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// hourOf is an open hour of entitlement e1.
func hourOf(start time.Time) *reports.Hour {
	h := reports.OpenHour("o1", "e1", start)
	return &h
}

func placeOf(org, entitlement string, hour time.Time) reports.Place {
	return reports.Place{Organization: metering.OrgID(org), Entitlement: metering.EntitlementID(entitlement), Hour: hour}
}

// groupsTable is a table with usage of entitlement e1 that waits for the hour of now.
type groupsTable struct {
	*testing.T
	client *dynamodb.Client
	name   string
	*table.Table
	hour *reports.Hour
}

// identified is an entitlement with three dimensions.
const identified = `{"partner":"AWS","buyerID":"b1","info":{"dimensions":[{"key":"a"},{"key":"b"},{"key":"c"}]},
	"marketplace":{"customerAWSAccountID":"123456789012","licenseArn":"arn:aws:license-manager::123456789012:license:l-1"}}`

func newGroupsTable(t *testing.T, ids ...string) *groupsTable {
	t.Helper()
	client, name := tabletest.Client(t)
	r := &groupsTable{t, client, name, table.New(client, name), hourOf(now)}
	storeEntitlement(t, r.Table, "e1", identified)
	r.report(ids...)
	return r
}

// report stores groups with 1.5 of each dimension.
func (r *groupsTable) report(ids ...string) {
	r.Helper()
	for _, id := range ids {
		r.reportUsage(id, "e1", now, "a", "b", "c")
	}
}

func (r *groupsTable) reportUsage(id, entitlement string, at time.Time, dimensions ...string) {
	r.Helper()
	g := metering.NewGroup{ID: id, EntitlementID: entitlement, Timestamp: &at}
	for _, dimension := range dimensions {
		g.Records = append(g.Records, metering.NewRecord{Key: dimension, Quantity: "1.5"})
	}
	groups, err := r.Report(r.Context(), "o1", &metering.Report{Groups: []metering.NewGroup{g}, Now: now})
	if err != nil || groups[0].Status != metering.StatusCreated {
		r.Fatalf("%s: %+v, %v", id, groups, err)
	}
}

// faulty is the table over a client whose first attempts have these faults.
func (r *groupsTable) faulty(faults ...tabletest.Fault) *table.Table {
	client, _ := tabletest.NewFaults(faults...)
	return table.New(client, r.name)
}

func (r *groupsTable) item(id string) map[string]types.AttributeValue {
	r.Helper()
	out, err := r.client.GetItem(r.Context(), &dynamodb.GetItemInput{
		TableName: &r.name, ConsistentRead: aws.Bool(true),
		Key: map[string]types.AttributeValue{"PK": text("ORG#o1"), "SK": text("GROUP#" + id)},
	})
	if err != nil || out.Item == nil {
		r.Fatalf("%s: %v, %v", id, out, err)
	}
	return out.Item
}

// set changes attributes of a group behind the table's back; nil removes one.
func (r *groupsTable) set(id string, attributes map[string]types.AttributeValue) {
	r.Helper()
	item := r.item(id)
	for name, value := range attributes {
		if item[name] = value; value == nil {
			delete(item, name)
		}
	}
	if _, err := r.client.PutItem(r.Context(), &dynamodb.PutItemInput{TableName: &r.name, Item: item}); err != nil {
		r.Fatal(err)
	}
}

func kinds(pairs ...string) types.AttributeValue {
	m := map[string]types.AttributeValue{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = text(pairs[i+1])
	}
	return &types.AttributeValueMemberM{Value: m}
}

// wantWaits wants the group to wait for the hour; a zero hour is none.
func (r *groupsTable) wantWaits(id string, hour time.Time) {
	r.Helper()
	item := r.item(id)
	work, due := item["_work"], item["_due"]
	if hour.IsZero() {
		if work != nil || due != nil {
			r.Errorf("%s has %v, %v", id, work, due)
		}
		return
	}
	want := hour.Format("2006-01-02T15") + "#o1#e1#" + id
	if got, ok := due.(*types.AttributeValueMemberS); !ok || got.Value != want || work == nil {
		r.Errorf("%s has %v, %v, want %s", id, work, due, want)
	}
}

func (r *groupsTable) wantStatus(id string, want metering.Status) metering.Group {
	r.Helper()
	g, err := r.Group(r.Context(), "o1", metering.GroupID(id))
	if err != nil || g.Status != want {
		r.Errorf("%s is %s: %v, want %s", id, g.Status, err, want)
	}
	return g
}

func (r *groupsTable) claim(id string) *reports.Member {
	r.Helper()
	m, err := r.Claim(r.Context(), r.hour, metering.GroupID(id), now, time.Time{})
	if err != nil || m == nil {
		r.Fatalf("claim %s: %v, %v", id, m, err)
	}
	return m
}

// applied is what a report makes of a group whose dimensions have these outcomes.
func applied(pairs ...string) *reports.Applied {
	a := &reports.Applied{Status: metering.StatusReported, Dimensions: map[string]reports.Kind{}}
	for i := 0; i < len(pairs); i += 2 {
		kind := reports.Kind(pairs[i+1])
		a.Dimensions[pairs[i]] = kind
		if kind == reports.Accepted {
			continue
		}
		a.Status = metering.StatusReportFailed
		code := metering.ProblemMarketplaceRefused
		switch kind {
		case reports.Conflict:
			code = metering.ProblemConflict
		case reports.Unknown:
			code = metering.ProblemOutcomeUnknown
		}
		a.Problems = append(a.Problems, metering.Problem{Code: code, Severity: metering.SeverityError, Path: "/records/" + pairs[i], Message: "m", Hint: "h"})
	}
	return a
}

// version is the hour with that version.
func (r *groupsTable) version(n int) *reports.Hour {
	h := *r.hour
	h.Version = n
	return &h
}

func (r *groupsTable) apply(id string, version int, pairs ...string) {
	r.Helper()
	if err := r.Apply(r.Context(), r.version(version), metering.GroupID(id), applied(pairs...), now.Add(time.Hour)); err != nil {
		r.Fatalf("apply %s: %v", id, err)
	}
}

func TestClaim_TakesWhatWaits(t *testing.T) {
	t.Parallel()
	r := newGroupsTable(t, "g1")
	ctx, units := table.CountUnits(t.Context())
	m, err := r.Claim(ctx, r.hour, "g1", now.Add(time.Minute), time.Time{})
	if err != nil || m == nil || m.Only != nil || m.Before != nil || m.Group.Records["b"].String() != "1.5" {
		t.Fatalf("%+v, %v", m, err)
	}
	if _, write := units(); write != 7 {
		t.Errorf("%v write units", write)
	}
	g := r.wantStatus("g1", metering.StatusReportPending)
	wantSame(t, *m.Group, g)
	if !g.LastUpdateTime.Equal(now.Add(time.Minute)) || g.UsageRecordReportID != "" {
		t.Errorf("%+v", g)
	}
	r.wantWaits("g1", time.Time{})
}

// A worker that slept, came second, or lost a response claims a group in any state.
func TestClaim_LateWorker(t *testing.T) {
	t.Parallel()
	const member, none = true, false
	other, own := text(now.Add(-time.Hour).Format("2006-01-02T15")), text(now.Format("2006-01-02T15"))
	for name, c := range map[string]struct {
		status metering.Status
		hour   types.AttributeValue
		due    time.Time // zero: does not wait
		want   bool
	}{
		"claimed by another worker":        {metering.StatusReportPending, own, time.Time{}, member},
		"claimed for another hour":         {metering.StatusReportPending, other, time.Time{}, none},
		"waits for a later hour":           {metering.StatusCreated, nil, now.Add(time.Hour), none},
		"retried, waits for this hour":     {metering.StatusCreated, other, now, member},
		"reported in this hour":            {metering.StatusReported, own, time.Time{}, member},
		"failed in this hour":              {metering.StatusReportFailed, own, time.Time{}, member},
		"retried since, waits for a later": {metering.StatusCreated, own, now.Add(time.Hour), none},
		"retried since, is invalid":        {metering.StatusInvalid, own, time.Time{}, none},
		"retried since, deleted":           {metering.StatusDeleted, own, time.Time{}, none},
		"reported in another hour":         {metering.StatusReported, other, time.Time{}, none},
		"expired":                          {metering.StatusReportFailed, nil, time.Time{}, none},
		"deleted":                          {metering.StatusDeleted, nil, time.Time{}, none},
		"imported, waits for nothing":      {metering.StatusCreated, nil, time.Time{}, none},
		"of a newer version":               {"PARKED", nil, now, none},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newGroupsTable(t, "g1")
			attributes := map[string]types.AttributeValue{
				"status": text(string(c.status)), "_status": text("ORG#o1#STATUS#" + string(c.status)), "_work": nil, "_due": nil, "_hour": c.hour,
			}
			if !c.due.IsZero() {
				attributes["_work"], attributes["_due"] = r.item("g1")["_work"], text(c.due.Format("2006-01-02T15")+"#o1#e1#g1")
			}
			r.set("g1", attributes)
			before := r.item("g1")
			m, err := r.Claim(t.Context(), r.hour, "g1", now, time.Time{})
			if err != nil || (m != nil) != c.want {
				t.Errorf("%+v, %v", m, err)
			}
			if c.status != metering.StatusCreated || !c.want {
				if after := r.item("g1"); fmt.Sprint(keysAndTexts(after)) != fmt.Sprint(keysAndTexts(before)) {
					t.Errorf("%v, was %v", keysAndTexts(after), keysAndTexts(before))
				}
			}
		})
	}
}

func keysAndTexts(item map[string]types.AttributeValue) (texts []string) {
	for name, value := range item {
		if s, ok := value.(*types.AttributeValueMemberS); ok {
			texts = append(texts, name+"="+s.Value)
		} else {
			texts = append(texts, name)
		}
	}
	slices.Sort(texts)
	return texts
}

func TestClaim_OfAGroupThatDoesNotExist(t *testing.T) {
	t.Parallel()
	r := newGroupsTable(t)
	if m, err := r.Claim(t.Context(), r.hour, "g1", now, time.Time{}); m != nil || err != nil {
		t.Errorf("%v, %v", m, err)
	}
}

func TestClaim_OfAnHourThatIsNotOpen(t *testing.T) {
	t.Parallel()
	r := newGroupsTable(t, "g1")
	r.hour.State = reports.StateSealed
	if m, err := r.Claim(t.Context(), r.hour, "g1", now, time.Time{}); m != nil || !errors.Is(err, reports.ErrState) {
		t.Errorf("%v, %v", m, err)
	}
	r.wantStatus("g1", metering.StatusCreated)
}

// An entitlement of the same organization, and one whose name is like a key, are other places.
func TestClaim_OfAnotherPlace(t *testing.T) {
	t.Parallel()
	r := newGroupsTable(t, "g1")
	for _, p := range []reports.Place{
		placeOf("o1", "e2", now), placeOf("o2", "e1", now), placeOf("o1", "e1", now.Add(-time.Hour)), placeOf("o1#e1", "g1", now),
	} {
		h := reports.OpenHour(p.Organization, p.Entitlement, p.Hour)
		if m, err := r.Claim(t.Context(), &h, "g1", now, time.Time{}); m != nil || err != nil {
			t.Errorf("%v: %v, %v", p, m, err)
		}
	}
	r.wantStatus("g1", metering.StatusCreated)
}

// What was accepted in an earlier report is not reported again.
func TestClaim_MemberOfARetryInPart(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		outcomes types.AttributeValue
		only     []string
		before   int
	}{
		"in part":                {kinds("a", "ACCEPTED", "b", "REJECTED", "c", "ACCEPTED"), []string{"b"}, 3},
		"all rejected":           {kinds("a", "REJECTED", "b", "REJECTED"), nil, 0},
		"converted to others":    {kinds("a", "ACCEPTED", "z", "REJECTED"), []string{}, 2},
		"not resolved":           {kinds("a", "ACCEPTED", "b", "UNKNOWN", "c", "REJECTED"), []string{"c"}, 3},
		"of a newer version":     {kinds("a", "ACCEPTED", "b", "HELD", "c", "REJECTED"), []string{"c"}, 3},
		"too large to be stored": {text("IN_REPORT"), nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newGroupsTable(t, "g1")
			r.set("g1", map[string]types.AttributeValue{"_outcomes": c.outcomes})
			m := r.claim("g1")
			var only []string
			if m.Only != nil {
				only = []string{}
				for dimension, q := range m.Only {
					only = append(only, dimension)
					if q.String() != "1.5" {
						t.Errorf("%s is %s", dimension, q)
					}
				}
				slices.Sort(only)
			}
			wantSame(t, c.only, only)
			if len(m.Before) != c.before {
				t.Errorf("%v", m.Before)
			}
		})
	}
}

// changes are the writes of this file, with what they make of a group.
func (r *groupsTable) changes() map[string]func(context.Context, *table.Table) error {
	claim := func(reportBy time.Time) func(context.Context, *table.Table) error {
		return func(ctx context.Context, tbl *table.Table) error {
			m, err := tbl.Claim(ctx, r.hour, "g1", now, reportBy)
			if err == nil && m == nil {
				err = errors.New("no member")
			}
			return err
		}
	}
	return map[string]func(context.Context, *table.Table) error{
		"claim":                     claim(time.Time{}),
		"claim by another reportBy": claim(now.Add(time.Hour)),
		"move": func(ctx context.Context, tbl *table.Table) error {
			return tbl.Move(ctx, r.hour.Place(), "g1", now.Add(time.Hour))
		},
		"expire": func(ctx context.Context, tbl *table.Table) error {
			_, err := tbl.Expire(ctx, r.hour.Place(), "g1", metering.Problem{Code: metering.ProblemExpired, Severity: metering.SeverityError, Message: "m", Hint: "h"}, now)
			return err
		},
		"apply": func(ctx context.Context, tbl *table.Table) error {
			return tbl.Apply(ctx, r.version(3), "g1", applied("a", "ACCEPTED", "b", "REJECTED", "c", "ACCEPTED"), now)
		},
		"apply again": func(ctx context.Context, tbl *table.Table) error {
			return tbl.Apply(ctx, r.version(4), "g1", applied("a", "ACCEPTED", "b", "ACCEPTED", "c", "ACCEPTED"), now)
		},
	}
}

// before makes group g1 what the change finds.
func (r *groupsTable) before(change string) {
	r.Helper()
	if change == "apply" || change == "apply again" {
		r.claim("g1")
	}
	if change == "apply again" {
		r.apply("g1", 3, "a", "ACCEPTED", "b", "UNKNOWN", "c", "ACCEPTED")
	}
}

// Each change ends as one that was never disturbed, also if it is repeated.
func TestChangesOfGroups_UnderFaults(t *testing.T) {
	t.Parallel()
	for change := range (&groupsTable{}).changes() {
		t.Run(change, func(t *testing.T) {
			t.Parallel()
			undisturbed := newGroupsTable(t, "g1")
			undisturbed.before(change)
			if err := undisturbed.changes()[change](t.Context(), undisturbed.Table); err != nil {
				t.Fatal(err)
			}
			want := keysAndTexts(undisturbed.item("g1"))
			for name, faults := range map[string][]tabletest.Fault{
				"lost": {tabletest.Lose}, "dropped": {tabletest.Drop}, "throttled": {tabletest.Throttle}, "cut": {tabletest.Cut},
				"lost twice":    {tabletest.Lose, tabletest.Lose},
				"lost for good": slices.Repeat([]tabletest.Fault{tabletest.Lose}, 20), "throttled for good": slices.Repeat([]tabletest.Fault{tabletest.Throttle}, 20),
			} {
				r := newGroupsTable(t, "g1")
				r.before(change)
				err := r.changes()[change](t.Context(), r.faulty(faults...))
				if len(faults) == 20 {
					wantUnavailable(t, err)
				} else if err != nil {
					t.Errorf("%s: %v", name, err)
				}
				for range 2 {
					if err := r.changes()[change](t.Context(), r.Table); err != nil {
						t.Errorf("%s, repeated: %v", name, err)
					}
				}
				wantSame(t, want, keysAndTexts(r.item("g1")))
			}
		})
	}
}

// The entitlement was cancelled since: a claim makes reportBy earlier, never later.
func TestClaim_ShortensReportBy(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		by   time.Duration // after now
		want bool
	}{{time.Hour, true}, {1000 * time.Hour, false}} {
		r := newGroupsTable(t, "g1")
		before, err := r.Group(t.Context(), r.hour.Organization, "g1")
		if err != nil {
			t.Fatal(err)
		}
		ctx, units := table.CountUnits(t.Context())
		if m, err := r.Claim(ctx, r.hour, "g1", now, now.Add(c.by)); m == nil || err != nil {
			t.Fatal(m, err)
		}
		if _, write := units(); write != 7 { // DynamoDB Local does not say what the refused update costs
			t.Errorf("%s: %v write units", c.by, write)
		}
		want := before.ReportBy
		if c.want {
			want = now.Add(c.by)
		}
		if g := r.wantStatus("g1", metering.StatusReportPending); !g.ReportBy.Equal(want) || before.ReportBy.IsZero() {
			t.Errorf("%s: reportBy is %s, want %s, before %s", c.by, g.ReportBy, want, before.ReportBy)
		}
	}
}
