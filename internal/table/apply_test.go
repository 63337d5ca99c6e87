package table_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/table"
)

func TestApply_GivesStatus(t *testing.T) {
	t.Parallel()
	r := newGroupsTable(t, "g1", "g2")
	r.claim("g1")
	r.claim("g2")
	ctx, units := table.CountUnits(t.Context())
	if err := r.Apply(ctx, r.version(3), "g1", applied("a", "ACCEPTED", "b", "ACCEPTED", "c", "ACCEPTED"), now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, write := units(); write != 6 {
		t.Errorf("%v write units", write)
	}
	g := r.wantStatus("g1", metering.StatusReported)
	if !g.ReportedTime.Equal(now.Add(time.Hour)) || g.UsageRecordReportID != r.hour.ID() || g.Problems != nil || has(r.item("g1"), "_outcomes") {
		t.Errorf("%+v", g)
	}
	r.apply("g2", 3, "a", "ACCEPTED", "b", "REJECTED", "c", "UNKNOWN")
	g = r.wantStatus("g2", metering.StatusReportFailed)
	if !g.ReportedTime.IsZero() || g.UsageRecordReportID != r.hour.ID() || len(g.Problems) != 2 || g.Problems[0].Code != metering.ProblemOutcomeUnknown {
		t.Errorf("%+v", g)
	}
	stored, _ := r.item("g2")["_outcomes"].(*types.AttributeValueMemberM)
	wantSame(t, []string{"a=ACCEPTED", "b=REJECTED", "c=UNKNOWN"}, keysAndTexts(stored.Value))
}

// A group in another status or hour, or with the status of a later version, stays as it is.
func TestApply_LeavesOthers(t *testing.T) {
	t.Parallel()
	own, other := text("2026-03-01T12"), text("2026-03-01T11")
	one := &types.AttributeValueMemberN{Value: "4"}
	for name, c := range map[string]struct {
		status  metering.Status
		hour    types.AttributeValue
		applied types.AttributeValue
		changes bool
	}{
		"pending":                           {metering.StatusReportPending, own, nil, true},
		"pending, in another hour":          {metering.StatusReportPending, other, nil, false},
		"reported":                          {metering.StatusReported, own, one, false},
		"failed":                            {metering.StatusReportFailed, own, one, true},
		"failed by this version":            {metering.StatusReportFailed, own, &types.AttributeValueMemberN{Value: "5"}, false},
		"failed by a later version":         {metering.StatusReportFailed, own, &types.AttributeValueMemberN{Value: "6"}, false},
		"failed in another hour":            {metering.StatusReportFailed, other, one, false},
		"retried":                           {metering.StatusCreated, own, one, false},
		"deleted":                           {metering.StatusDeleted, own, one, false},
		"invalid":                           {metering.StatusInvalid, own, one, false},
		"expired, was never in a report":    {metering.StatusReportFailed, nil, nil, false},
		"of a newer version":                {"PARKED", own, one, false},
		"of a newer version, pending":       {"PARKED", own, nil, false},
		"created, was never in a report":    {metering.StatusCreated, nil, nil, false},
		"expired, was in this report, late": {metering.StatusReportFailed, own, &types.AttributeValueMemberN{Value: "5"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newGroupsTable(t, "g1")
			r.set("g1", map[string]types.AttributeValue{
				"status": text(string(c.status)), "_status": text("ORG#o1#STATUS#" + string(c.status)), "_hour": c.hour, "_applied": c.applied, "_work": nil, "_due": nil,
			})
			before := keysAndTexts(r.item("g1"))
			r.apply("g1", 5, "a", "ACCEPTED", "b", "ACCEPTED")
			after := keysAndTexts(r.item("g1"))
			if changed := fmt.Sprint(before) != fmt.Sprint(after); changed != c.changes {
				t.Errorf("%v, was %v", after, before)
			}
		})
	}
	r := newGroupsTable(t)
	r.apply("absent", 5, "a", "ACCEPTED")
}

// Two operators resolve two dimensions. The one that was first sleeps, and applies last.
func TestApply_AgainByASlowWorker(t *testing.T) {
	t.Parallel()
	r := newGroupsTable(t, "g1")
	r.failed("a", "UNKNOWN", "b", "UNKNOWN", "c", "REJECTED")
	r.apply("g1", 5, "a", "ACCEPTED", "b", "ACCEPTED", "c", "REJECTED")
	r.apply("g1", 4, "a", "ACCEPTED", "b", "UNKNOWN", "c", "REJECTED")
	if g := r.wantStatus("g1", metering.StatusReportFailed); len(g.Problems) != 1 || g.Problems[0].Code != metering.ProblemMarketplaceRefused {
		t.Errorf("%+v", g.Problems)
	}
	r.apply("g1", 6, "a", "ACCEPTED", "b", "ACCEPTED", "c", "ACCEPTED")
	r.wantStatus("g1", metering.StatusReported)
}

// What Members returns of a group that has its status gives it the same status, and another one
// once a dimension is resolved.
func TestMembers_AreAppliedAgain(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		first, second []string // outcomes in the hour, and once it is resolved
		want          metering.Status
	}{
		"all unknown":   {[]string{"a", "UNKNOWN", "b", "UNKNOWN"}, []string{"a", "ACCEPTED", "b", "ACCEPTED"}, metering.StatusReported},
		"some accepted": {[]string{"a", "ACCEPTED", "b", "UNKNOWN"}, []string{"a", "ACCEPTED", "b", "ACCEPTED"}, metering.StatusReported},
		"some rejected": {[]string{"a", "REJECTED", "b", "CONFLICT"}, []string{"a", "REJECTED", "b", "ACCEPTED"}, metering.StatusReportFailed},
		"three kinds":   {[]string{"a", "ACCEPTED", "b", "CONFLICT", "c", "REJECTED"}, []string{"a", "ACCEPTED", "b", "ACCEPTED", "c", "REJECTED"}, metering.StatusReportFailed},
		"reported":      {[]string{"a", "ACCEPTED", "b", "ACCEPTED"}, []string{"a", "ACCEPTED", "b", "ACCEPTED"}, metering.StatusReported},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newGroupsTable(t)
			var dimensions []string
			for i := 0; i < len(c.first); i += 2 {
				dimensions = append(dimensions, c.first[i])
			}
			r.reportUsage("g1", "e1", now, dimensions...)
			r.claim("g1")
			for i, outcomes := range [][]string{c.first, c.second} {
				h := withOutcomes(r.version(3+i), outcomes...)
				r.settle(t, h, "g1")
			}
			r.wantStatus("g1", c.want)
		})
	}
}

// The second report of a group has what its retry in part has left, and the group has no room for
// what became of it. Once the report is resolved, the group settles, and what is left of it is not
// converted again.
func TestMembers_OfARetryInPartWithoutRoomSettle(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		resolved string
		want     metering.Status
		outcomes bool
	}{
		"billed":     {"ACCEPTED", metering.StatusReported, false},
		"not billed": {"REJECTED", metering.StatusReportFailed, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newGroupsTable(t)
			r.reportUsage("g1", "e1", now, "a", "b")
			r.failed("a", "ACCEPTED", "b", "REJECTED")
			r.apply("g1", 4, "a", "ACCEPTED", "b", "UNKNOWN")
			r.set("g1", map[string]types.AttributeValue{"_outcomes": text("IN_REPORT")})
			h := withOutcomes(r.version(5), "b", c.resolved)
			r.settle(t, h, "g1")
			r.wantStatus("g1", c.want)
			if got := r.item("g1")["_outcomes"]; has(r.item("g1"), "_outcomes") != c.outcomes || c.outcomes && got.(*types.AttributeValueMemberS).Value != "IN_REPORT" {
				t.Errorf("%v", got)
			}
			if _, err := r.retry(now.Add(time.Hour)); err == nil {
				t.Error("it was retried")
			}
		})
	}
}

// withOutcomes is the hour with records that have these outcomes.
func withOutcomes(h *reports.Hour, outcomes ...string) *reports.Hour {
	h.State, h.Sealed = reports.StateDecided, &reports.Sealed{}
	for i := 0; i < len(outcomes); i += 2 {
		h.Sealed.Records = append(h.Sealed.Records, reports.Record{Dimension: outcomes[i], Outcome: reports.Outcome{Kind: reports.Kind(outcomes[i+1]), Code: "C"}})
	}
	return h
}

func TestMembers_OfManyGroups(t *testing.T) {
	t.Parallel()
	r := newGroupsTable(t)
	var ids []metering.GroupID
	for i := range 120 {
		id := fmt.Sprintf("g%03d", i)
		ids = append(ids, metering.GroupID(id))
		r.report(id)
		if i%2 == 0 {
			r.claim(id)
		}
	}
	ids = append(ids, "absent")
	members, err := r.Members(t.Context(), r.hour, ids)
	if err != nil || len(members) != 60 || members[1].Group.ID != "g002" || members[59].Group.ID != "g118" {
		t.Errorf("%d members: %v", len(members), err)
	}
	if others, err := r.Members(t.Context(), hourOf(now.Add(time.Hour)), ids); err != nil || len(others) != 0 {
		t.Errorf("%v, %v", others, err)
	}
}

// A group of the largest size settles, whatever becomes of its dimensions.
func TestApply_OfTheLargestGroups(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		dimensions int
		key        int // characters
		kinds      func(i int) string
		outcomes   string // what is stored: map, "IN_REPORT" or ""
	}{
		"one dimension":            {1, 10, func(int) string { return "UNKNOWN" }, "map"},
		"long names":               {100, 255, func(i int) string { return []string{"ACCEPTED", "REJECTED"}[i%2] }, "IN_REPORT"},
		"many dimensions, in part": {5000, 12, func(i int) string { return []string{"REJECTED", "ACCEPTED", "UNKNOWN"}[i%3] }, "IN_REPORT"},
		"many, all rejected":       {5000, 12, func(int) string { return "REJECTED" }, ""},
		"many, all accepted":       {5000, 12, func(int) string { return "ACCEPTED" }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newGroupsTable(t)
			r.largest("g1", c.dimensions, c.key)
			r.claim("g1")
			var outcomes []string
			for i := range c.dimensions {
				outcomes = append(outcomes, dimensionOf(i, c.key), c.kinds(i))
			}
			made := applied(outcomes...)
			for i := range made.Problems {
				made.Problems[i].Message, made.Problems[i].Hint = strings.Repeat("ü", 1000), strings.Repeat("h", 500)
			}
			if err := r.Apply(t.Context(), r.version(3), "g1", made, now); err != nil {
				t.Fatal(err)
			}
			g := r.wantStatus("g1", made.Status)
			if (len(g.Problems) > 0) != (made.Status == metering.StatusReportFailed) || len(g.Problems) > 0 && len(g.Problems[0].Message) == 0 {
				t.Errorf("%+v", g.Problems)
			}
			stored := ""
			switch value := r.item("g1")["_outcomes"].(type) {
			case *types.AttributeValueMemberM:
				stored = "map"
			case *types.AttributeValueMemberS:
				stored = value.Value
			}
			if stored != c.outcomes {
				t.Errorf("the outcomes are stored as %q, want %q", stored, c.outcomes)
			}
			if size := r.size("g1"); size > 409_600 {
				t.Errorf("%d bytes", size)
			}
			if stored == "IN_REPORT" {
				says := r.hour.ID()
				if slices.Contains(outcomes, "UNKNOWN") { // of the one problem that is left
					says = "OUTCOME_UNKNOWN"
				}
				if _, err := r.retry(now.Add(time.Hour)); err == nil || !strings.Contains(err.Error(), says) {
					t.Errorf("%v, want %s", err, says)
				}
			}
		})
	}
}

func dimensionOf(i, length int) string {
	name := fmt.Sprintf("d%05d", i)
	return name + strings.Repeat("x", max(0, length-len(name)))
}

// largest stores a group of 392 KB, with as many retries as a group may have, that waits.
func (r *groupsTable) largest(id string, dimensions, key int) {
	r.Helper()
	at, source := now, metering.Source("API")
	g := metering.Group{
		ID: id, OrganizationID: "o1", BuyerID: "b1", EntitlementID: "e1", Partner: "AWS", Status: metering.StatusCreated,
		CreationTime: now, LastUpdateTime: now, SerialID: 1, Records: map[string]metering.Quantity{},
		MetaInfo: metering.MetaInfo{Timestamp: &at, Source: &source},
	}
	q, err := metering.ParseQuantity("1.5")
	if err != nil {
		r.Fatal(err)
	}
	for i := range dimensions {
		g.Records[dimensionOf(i, key)] = q
	}
	// What is left is filled with what an integration carries.
	fits := 0
	for step := 1 << 18; step > 0; step /= 2 {
		g.MetaInfo.Carried = map[string]any{"stripeInvoiceID": strings.Repeat("x", fits+step)}
		if g.CheckStorable() == nil {
			fits += step
		}
	}
	g.MetaInfo.Carried = map[string]any{"stripeInvoiceID": strings.Repeat("x", fits)}
	put(r.T, r.Table, &g)
	if size := r.size(id); size < metering.MaxStored-100 {
		r.Fatalf("the largest group has %d bytes", size)
	}
	var retries [][]byte
	for i := range metering.MaxRetryKeys {
		retries = append(retries, []byte(fmt.Sprintf("%016d", i)))
	}
	p := r.hour.Place()
	r.set(id, map[string]types.AttributeValue{
		"_work": text(table.WorkKey(p)), "_due": text(table.DueKey(p, id)), "_retries": &types.AttributeValueMemberBS{Value: retries},
		"_retry": &types.AttributeValueMemberB{Value: make([]byte, 16)}, "_request": &types.AttributeValueMemberB{Value: make([]byte, 16)},
		"_config": &types.AttributeValueMemberN{Value: "1234567890"},
	})
}

func (r *groupsTable) size(id string) int {
	size := 0
	for name, value := range r.item(id) {
		if set, ok := value.(*types.AttributeValueMemberBS); ok {
			size += len(name) + 17*len(set.Value)
			continue
		}
		size += len(name) + itemSize(r.T, value)
	}
	return size
}

// What fits no more in the group is a shorter problem.
func TestExpire_OfTheLargestGroup(t *testing.T) {
	t.Parallel()
	r := newGroupsTable(t)
	r.largest("g1", 1, 10)
	problem := metering.Problem{Code: metering.ProblemExpired, Severity: metering.SeverityError, Path: "/timestamp", Message: strings.Repeat("m", 10_000), Hint: "h"}
	if expired, err := r.Expire(t.Context(), r.hour.Place(), "g1", problem, now); !expired || err != nil {
		t.Fatal(expired, err)
	}
	if g := r.wantStatus("g1", metering.StatusReportFailed); len(g.Problems) != 1 || g.Problems[0].Code != metering.ProblemExpired || len(g.Problems[0].Message) > 1000 {
		t.Errorf("%+v", g.Problems)
	}
}

// settle gives a member what the hour makes of it.
func (r *groupsTable) settle(t *testing.T, h *reports.Hour, id metering.GroupID) {
	t.Helper()
	members, err := r.Members(t.Context(), h, []metering.GroupID{id})
	if err != nil || len(members) != 1 {
		t.Fatalf("%v, %v", members, err)
	}
	made, err := h.Apply(members[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Apply(t.Context(), h, id, &made, now); err != nil {
		t.Fatal(err)
	}
}
