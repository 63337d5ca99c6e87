package table_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// listing returns a request whose checkpoints DynamoDB Local does not expire: it uses the real
// time.
func listing(at time.Time, limit int) metering.ListRequest {
	return metering.ListRequest{
		Filter: metering.GroupFilter{Status: metering.StatusCreated}, Query: "status=CREATED", Limit: limit, MaxSize: 1 << 20, ReadFor: time.Minute,
		Now: at.AddDate(73, 0, 0),
	}
}

// list is List; it also returns the page that List has encoded.
func list(t testing.TB, tbl *table.Table, org string, request metering.ListRequest) (groups string, page metering.GroupPage, laterBy time.Duration, err error) {
	t.Helper()
	laterBy, err = tbl.List(t.Context(), metering.OrgID(org), request, nil, func(encoded []byte, described metering.GroupPage) error {
		groups, page = string(encoded), described
		return nil
	})
	return groups, page, laterBy, err
}

// Two requests of one client, the second by the clock of another function, find different
// checkpoints for the second page. If the clocks differ by at most half a second, the second one is
// stored. Otherwise it is not stored, and List returns the difference.
func TestList_ClocksMayDifferByHalfASecond(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	for _, c := range []struct {
		ahead   time.Duration // the second function's clock relative to the first one's
		nothing bool          // changes between the requests
		leftOut bool
	}{
		{ahead: time.Second},
		{ahead: time.Millisecond},
		{ahead: 0},
		{ahead: -time.Millisecond},
		{ahead: -500 * time.Millisecond},
		{ahead: -501 * time.Millisecond, leftOut: true},
		{ahead: -501 * time.Millisecond, nothing: true},
		{ahead: -time.Minute, leftOut: true},
		{ahead: -time.Minute - time.Millisecond}, // no request is so late: a clock was set back
	} {
		name := c.ahead.String()
		if c.nothing {
			name += " to the same place"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for i, id := range []string{"g0", "g1", "g2", "g3"} {
				g := group(id, metering.StatusCreated)
				g.OrganizationID, g.CreationTime = name, now.Add(-time.Duration(i)*time.Minute)
				put(t, tbl, g)
			}
			page := func(at time.Time, offset int) (groups string, laterBy time.Duration) {
				t.Helper()
				request := listing(at, 2)
				request.Offset = offset
				groups, _, laterBy, err := list(t, tbl, name, request)
				if err != nil {
					t.Fatal(err)
				}
				return groups, laterBy
			}
			page(now, 0)
			first := "g2"
			if !c.nothing {
				if _, err := tbl.Delete(t.Context(), metering.OrgID(name), "g0", "", now); err != nil {
					t.Fatal(err)
				}
				if !c.leftOut {
					first = "g3"
				}
			}
			wantLaterBy := time.Duration(0)
			if c.leftOut {
				wantLaterBy = -c.ahead
			}
			if _, laterBy := page(now.Add(c.ahead).Add(999*time.Microsecond), 0); laterBy != wantLaterBy {
				t.Errorf("the place there came %v later, want %v", laterBy, wantLaterBy)
			}
			if groups, _ := page(now, 2); !strings.HasPrefix(groups[strings.Index(groups, `"id":`):], `"id":"`+first+`"`) {
				t.Errorf("the second page begins otherwise than with %s: %s", first, groups)
			}
		})
	}
}

// The same holds for an empty range that is not stored: the next request does not continue from it.
func TestList_DroppedEmptyRangeIsReported(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	tbl := table.New(client, name)
	for i, id := range []string{"g0", "g1", "g2", "g3"} {
		g := group(id, metering.StatusCreated)
		g.CreationTime = now.Add(-time.Duration(i) * time.Minute)
		put(t, tbl, g)
	}
	hasty := table.New(tabletest.NewClient(tabletest.ShortPages(tabletest.Planned(func(int, *http.Request) tabletest.Fault { return nil }), 1)), name)
	for _, c := range []struct {
		at   time.Time
		told bool
	}{
		{now, false},
		{now.Add(-500 * time.Millisecond), false},
		{now.Add(-1001 * time.Millisecond), true},
	} {
		request := listing(c.at, 2)
		request.Filter.Partner, request.ReadFor = "GCP", 0
		_, _, _, err := list(t, hasty, "o1", request)
		wantUnavailable(t, err)
		if told := strings.Contains(err.Error(), "left out for what a request has kept that came 501ms later"); told != c.told {
			t.Errorf("%v: %v", c.at, err)
		}
	}
}
