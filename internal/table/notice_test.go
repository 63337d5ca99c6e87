package table_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// noticing returns a context, and a function that returns what was noticed since it was called
// last.
func noticing(ctx context.Context) (context.Context, func() string) {
	var seen []string
	names := map[reports.Notice]string{reports.StaleWork: "stale", reports.UnknownWork: "unknown", reports.TooLarge: "too large"}
	ctx = reports.WithNoticer(ctx, func(_ context.Context, notice reports.Notice, n int, attributes ...any) {
		at := slices.Index(attributes, any("group"))
		if at < 0 {
			at = slices.Index(attributes, any("sk"))
		}
		seen = append(seen, fmt.Sprint(names[notice], " ", n, " ", attributes[at+1]))
	})
	return ctx, func() string {
		defer func() { seen = nil }()
		return strings.Join(seen, ", ")
	}
}

// Whatever meets a group that has ended, or whose status this version does not know, reports it.
func TestNotice_OfAGroupThatDoesNotWait(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ status, want string }{
		{"CREATED", ""}, {"DELETED", "stale 1 g1"}, {"REPORTED", "stale 1 g1"}, {"PARKED", "unknown 1 g1"},
	} {
		for name, find := range map[string]func(context.Context, *groupsTable, *reports.Hour) error{
			"claim": func(ctx context.Context, r *groupsTable, h *reports.Hour) error {
				_, err := r.Claim(ctx, h, "g1", now, time.Time{})
				return err
			},
			"move": func(ctx context.Context, r *groupsTable, h *reports.Hour) error {
				return r.Move(ctx, h.Place(), "g1", now.Add(48*time.Hour))
			},
			"expire": func(ctx context.Context, r *groupsTable, h *reports.Hour) error {
				_, err := r.Expire(ctx, h.Place(), "g1", metering.Problem{Code: "C"}, now)
				return err
			},
			"waiting groups": func(ctx context.Context, r *groupsTable, h *reports.Hour) error {
				_, err := r.WaitingGroups(ctx, h.Place(), []metering.GroupID{"g1"})
				return err
			},
		} {
			t.Run(name+" "+c.status, func(t *testing.T) {
				t.Parallel()
				r := newGroupsTable(t, "g1")
				if c.status != "CREATED" {
					r.set("g1", map[string]types.AttributeValue{"status": text(c.status), "_status": text("ORG#o1#STATUS#" + c.status)})
				}
				ctx, seen := noticing(t.Context())
				if err := find(ctx, r, hourOf(now.Add(time.Hour))); err != nil { // it waits for another hour
					t.Fatal(err)
				}
				wantSame(t, c.want, seen())
				if strings.HasPrefix(c.want, "stale") { // it is removed
					if err := find(ctx, r, hourOf(now.Add(time.Hour))); err != nil {
						t.Fatal(err)
					}
					wantSame(t, "", seen())
				}
			})
		}
	}
}

func TestNotice_OfAMemberWithAnUnknownStatus(t *testing.T) {
	t.Parallel()
	r := newGroupsTable(t, "g1", "g2")
	r.claim("g1")
	r.claim("g2")
	r.set("g2", map[string]types.AttributeValue{"status": text("PARKED")})
	ctx, seen := noticing(t.Context())
	members, err := r.Members(ctx, r.hour, []metering.GroupID{"g1", "g2"})
	if err != nil || len(members) != 1 {
		t.Errorf("%v, %v", members, err)
	}
	wantSame(t, "unknown 1 g2", seen())
}

func TestNotice_OfUnknownEntries(t *testing.T) {
	t.Parallel()
	w := newWaiting(t)
	p := placeOf("o1", "e1", now)
	w.put(unknownWork(p)...)
	w.put(send("a", now, "e1"), [4]string{"ORG#o1", "GROUP#u9", table.SendKey("a"), table.SendDueKey("a", now, now)})
	w.put([4]string{"ORG#o1", "GROUP#u8", "DAILY#0", "x"})
	ctx, seen := noticing(t.Context())
	for _, c := range []struct {
		name, want string
		read       func() error
	}{
		{"EachPlace", "unknown 7", func() error { return w.EachPlace(ctx, time.Time{}, now, func(reports.Place) error { return nil }) }},
		{"Waiting", "unknown 3", func() error { _, err := w.Waiting(ctx, p); return err }},
		{"EachSealed", "unknown 1 GROUP#u9", func() error {
			return w.EachSealed(ctx, func(string, time.Time, reports.Place) error { return nil })
		}},
		{"Due", "unknown 1 GROUP#u9", func() error {
			for _, err := range w.Due(ctx, "a", now, 10) {
				return err
			}
			return nil
		}},
		{"EachUnreconciled", "unknown 1 GROUP#u8", func() error {
			return w.EachUnreconciled(ctx, func(reports.Day) error { return nil })
		}},
	} {
		if err := c.read(); err != nil {
			t.Fatal(err)
		}
		if got := seen(); !strings.HasPrefix(got, c.want) || strings.Contains(got, ",") {
			t.Errorf("%s: %q is noticed, want %s", c.name, got, c.want)
		}
	}
}

// A group that has no room for a problem stays as it is, and waits on.
func TestExpire_OfAFullGroupIsNoticed(t *testing.T) {
	t.Parallel()
	r := newGroupsTable(t)
	work := map[string]types.AttributeValue{"_work": text(table.WorkKey(r.hour.Place())), "_due": text(table.DueKey(r.hour.Place(), "g1"))}
	room := 0
	for name, value := range work {
		room += len(name) + len(value.(*types.AttributeValueMemberS).Value)
	}
	putLarger(t, r.client, r.name, full("g1", metering.StatusCreated, room))
	r.set("g1", work)
	before := r.item("g1")
	ctx, seen := noticing(t.Context())
	problem := metering.Problem{Code: metering.ProblemExpired, Severity: metering.SeverityError, Message: strings.Repeat("m", 1000), Hint: "h"}
	if expired, err := r.Expire(ctx, r.hour.Place(), "g1", problem, now); expired || err != nil {
		t.Fatal(expired, err)
	}
	wantSame(t, "too large 1 g1", seen())
	wantSame(t, keysAndTexts(before), keysAndTexts(r.item("g1")))
	if m, err := r.Claim(ctx, r.hour, "g1", now, time.Time{}); m == nil || err != nil || seen() != "" { // that makes it smaller
		t.Errorf("%v, %v", m, err)
	}
}

// DynamoDB refuses an update that would make an item too large. Claims take more away than they
// add, so that this one is made here.
func TestClaim_OfAGroupThatIsTooLargeIsNoticed(t *testing.T) {
	t.Parallel()
	r := newGroupsTable(t, "g1")
	client, _ := tabletest.NewFaults(tabletest.TooLarge)
	ctx, seen := noticing(t.Context())
	m, err := table.New(client, r.name).Claim(ctx, r.hour, "g1", now, time.Time{})
	if m != nil || err != nil {
		t.Errorf("%v, %v", m, err)
	}
	wantSame(t, "too large 1 g1", seen())
	r.wantStatus("g1", metering.StatusCreated)
	r.wantWaits("g1", now)
}
