package reporting_test

import (
	"context"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"sync"
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

// another is an application of the offer's publisher: with it in the offer, ours is in none.
const another = "bbbbbbbb-0000-4000-8000-000000000009"

// A crowd is a world with usage of one hour of many entitlements, each with a subscription of its
// own: one lane of Azure.
type crowd struct {
	*worldtest.World
	groups []metering.GroupID
}

func newCrowd(t *testing.T, n int) *crowd {
	t.Helper()
	c := &crowd{World: worldtest.NewWorld(t, sandbox.Options{})}
	c.Change(func(catalog *sandbox.Catalog) {
		catalog.Azure.Applications = append(catalog.Azure.Applications, sandbox.AzureApplication{TenantID: rt.Tenant, ClientID: another, ClientSecret: "another"})
		for i := range n {
			catalog.Azure.Subscriptions = append(catalog.Azure.Subscriptions, sandbox.AzureSubscription{
				ResourceID: crowdResource(i), OfferID: "offer", PlanID: "silver", State: sandbox.AzureSubscribed,
			})
		}
	})
	for i := range n {
		e := worldtest.Entitlements()[1]
		e.ID, e.Marketplace.ResourceID = entitlementOf(i), crowdResource(i)
		c.PutEntitlement(e)
		c.groups = append(c.groups, c.Report(e.ID, rt.Hour, "d0 1, d1 2"))
	}
	c.Set(closed)
	return c
}

func entitlementOf(i int) metering.EntitlementID {
	return metering.EntitlementID(fmt.Sprintf("ent-%02d", i))
}

func crowdResource(i int) string { return fmt.Sprintf("eeeeeeee-0000-4000-8000-%012d", i) }

// moves moves the subscriptions to an offer.
func (c *crowd) moves(offer string, which ...int) {
	c.Change(func(catalog *sandbox.Catalog) {
		for i := range catalog.Azure.Subscriptions {
			s := &catalog.Azure.Subscriptions[i]
			for _, n := range which {
				if s.ResourceID == crowdResource(n) {
					s.OfferID = offer
				}
			}
		}
	})
}

// has sets the application of the offer.
func (c *crowd) has(application string) {
	c.Change(func(catalog *sandbox.Catalog) { catalog.Azure.Offers[0].ClientID = application })
}

// calls returns how many requests were made since it was called last.
func (c *crowd) calls(since *int) int {
	n := len(c.Calls("batchUsageEvent"))
	made := n - *since
	*since = n
	return made
}

// billed fails the test if what is billed is not the usage of that many entitlements, each once.
func (c *crowd) billed(t *testing.T, entitlements int) {
	t.Helper()
	if got := c.Billed(); strings.Count(got, "d0=1") != entitlements || strings.Count(got, "d1=2") != entitlements ||
		len(strings.Fields(got)) != 2*entitlements {
		t.Errorf("billed %s, want d0 and d1 of %d", got, entitlements)
	}
}

// reported returns how many of the groups are REPORTED.
func (c *crowd) reported() (n int) {
	for _, id := range c.groups {
		if c.Status(id) == "REPORTED" {
			n++
		}
	}
	return n
}

// own returns how many attempts of a record were refused for its own sake.
func (c *crowd) own(i int, dimension string) (n int) {
	for _, a := range c.Hour(entitlementOf(i), rt.Hour).Record(dimension).Attempts {
		if a.Result == reports.Refused && !a.Lane {
			n++
		}
	}
	return n
}

// The application is in no offer: Azure refuses all that is sent, as it refuses an event for
// another publisher's resource. A few calls show that the lane is at fault, then one each time. No
// record is charged with it, and all is billed once the offer is corrected.
func TestSubmit_ApplicationInNoOfferIsTheLanes(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"of no offer", "of another publisher"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, since := newCrowd(t, 15), 0
			c.has(another)
			if name == "of another publisher" {
				c.Change(func(catalog *sandbox.Catalog) { catalog.Azure.Offers[1].ClientID = rt.Application })
			}
			c.Work()
			if n := c.calls(&since); n > 12 {
				t.Errorf("%d calls until the lane is taken for the cause", n)
			}
			want(t, "events", strconv.Itoa(c.Log.Count(reporting.EventConnectionRefused)), "1")
			rounds := 1
			for now := closed.Add(5 * time.Minute); now.Before(closed.Add(4 * time.Hour)); now = now.Add(5 * time.Minute) {
				c.Set(now)
				c.Work()
				rounds++
				if n := c.calls(&since); n > 1 {
					t.Fatalf("%d calls in round %d", n, rounds)
				}
			}
			want(t, "events", strconv.Itoa(c.Log.Count(reporting.EventConnectionRefused)), strconv.Itoa(rounds))
			for i := range c.groups {
				if n := c.own(i, "d0") + c.own(i, "d1"); n > 0 {
					t.Errorf("%d attempts of entitlement %d are its own", n, i)
				}
			}
			c.billed(t, 0)
			want(t, "rejected", strconv.Itoa(c.Log.Count(reporting.EventRejected)), "0")

			c.Change(func(catalog *sandbox.Catalog) {
				catalog.Azure.Offers[0].ClientID, catalog.Azure.Offers[1].ClientID = rt.Application, rt.Stranger
			})
			c.Set(closed.Add(4 * time.Hour))
			c.Work()
			c.billed(t, 15)
			want(t, "reported", strconv.Itoa(c.reported()), "15")
		})
	}
}

// Records of another publisher's resources are at fault themselves, wherever they stand: the others
// are billed at once, and the lane is not taken for the cause.
func TestSubmit_ForeignResourcesAreTheirRecords(t *testing.T) {
	t.Parallel()
	for _, foreign := range [][]int{{0}, {14}, {0, 1}, {0, 14}, {6, 7}} {
		t.Run(fmt.Sprint(foreign), func(t *testing.T) {
			t.Parallel()
			c := newCrowd(t, 15)
			c.moves("foreign", foreign...)
			c.Work()
			c.billed(t, 15-len(foreign))
			want(t, "reported", strconv.Itoa(c.reported()), strconv.Itoa(15-len(foreign)))
			// They are alone in the lane now, and stay at fault.
			for now := closed.Add(5 * time.Minute); now.Before(closed.Add(2 * time.Hour)); now = now.Add(5 * time.Minute) {
				c.Set(now)
				c.Work()
			}
			want(t, "events", strconv.Itoa(c.Log.Count(reporting.EventConnectionRefused)), "0")
			for _, i := range foreign {
				if n := c.own(i, "d0"); n < 3 || n > 9 {
					t.Errorf("%d attempts of entitlement %d are its own", n, i)
				}
			}
			c.moves("offer", foreign...)
			c.Set(closed.Add(4 * time.Hour))
			c.Work()
			c.billed(t, 15)
			want(t, "reported", strconv.Itoa(c.reported()), "15")
		})
	}
}

// So many foreign resources follow each other that the lane is taken for the cause, or would be if
// nothing had passed before. They hold up no others for long.
func TestSubmit_ManyForeignResourcesStopNoOthers(t *testing.T) {
	t.Parallel()
	for first, rounds := range map[int]int{0: 10, 3: 1, 7: 1} {
		c := newCrowd(t, 15)
		c.moves("foreign", first, first+1, first+2, first+3, first+4, first+5, first+6, first+7)
		for round := range rounds {
			c.Set(closed.Add(time.Duration(round) * 5 * time.Minute))
			c.Work()
		}
		c.billed(t, 7)
		want(t, "reported", strconv.Itoa(c.reported()), "7")
	}
}

// The token is corrected while a record of another publisher's resource waits with the others.
func TestSubmit_LaneIsCorrectedBesideAForeignResource(t *testing.T) {
	t.Parallel()
	for _, foreign := range []int{0, 7} {
		c := newCrowd(t, 8)
		c.moves("foreign", foreign)
		c.has(another)
		c.Work()
		c.billed(t, 0)
		c.has(rt.Application)
		for round := range 3 {
			c.Set(closed.Add(time.Duration(round+1) * 5 * time.Minute))
			c.Work()
		}
		c.billed(t, 7)
	}
}

// Nothing else is in the lane: the response does not show whether the lane or the record is at
// fault. It counts as the lane's, so that somebody looks, and it is sent again soon.
func TestSubmit_LoneRecordsRefusalIsTheLanes(t *testing.T) {
	t.Parallel()
	c, since := newCrowd(t, 1), 0
	c.has(another)
	for round := range 10 {
		c.Set(closed.Add(time.Duration(round) * 5 * time.Minute))
		c.Work()
		want(t, "calls", strconv.Itoa(c.calls(&since)), "1")
		want(t, "events", strconv.Itoa(c.Log.Count(reporting.EventConnectionRefused)), strconv.Itoa(round+1))
	}
	want(t, "own attempts", strconv.Itoa(c.own(0, "d0")), "0")
	c.has(rt.Application)
	c.Set(closed.Add(50 * time.Minute))
	c.Work()
	c.billed(t, 1)
	// Its window ends: it is rejected, and visible.
	late := newCrowd(t, 1)
	late.moves("foreign", 0)
	workUntil(late.World, rt.Hour.Add(25*time.Hour), 30*time.Minute)
	want(t, "group", late.Status(late.groups[0]), "REPORT_FAILED MARKETPLACE_REFUSED MARKETPLACE_REFUSED")
}

// The refusal of a divided request says nothing about the records that are billed by a half: no
// attempt is charged to them.
func TestSubmit_DividedRequestChargesNoRecord(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	w.Change(func(c *sandbox.Catalog) { c.AWS.Products[0].Dimensions[3].Key = "gone" })
	group := w.Report(worldtest.OnAWS, rt.Hour, "d0 1, d1 1, d2 1, d3 1, d4 1")
	w.Set(closed)
	w.Work()
	want(t, "group", w.Status(group), "REPORT_FAILED DIMENSION_UNKNOWN")
	want(t, "billed", w.Billed(), "d0=1 d1=1 d2=1 d4=1")
	for _, r := range w.Hour(worldtest.OnAWS, rt.Hour).Sealed.Records {
		for i, a := range r.Attempts {
			if last := i == len(r.Attempts)-1; a.Lane == last {
				t.Errorf("%s: attempt %d of %d is the lane's: %v", r.Dimension, i+1, len(r.Attempts), a.Lane)
			}
		}
	}
	want(t, "events", strconv.Itoa(w.Log.Count(reporting.EventConnectionRefused)), "0")
}

// responding is a table with which something happens once the first response to a call is stored.
type responding struct {
	*table.Table
	once  sync.Once
	first func()
}

func (r *responding) Write(ctx context.Context, step *reports.Step) error {
	err := r.Table.Write(ctx, step)
	if err == nil && len(step.Calls) > 0 {
		r.once.Do(r.first)
	}
	return err
}

// The application is taken out of the offer in the middle of a Submit. What is refused then is
// taken for at fault itself, since others had passed, and is sent again for its own sake. The first
// usage after that shows that the lane is at fault. All is billed once the offer is corrected.
func TestSubmit_LaneThatIsRefusedInTheMiddle(t *testing.T) {
	t.Parallel()
	c := newCrowd(t, 20) // more than a request holds
	workBy(t, c.World, &responding{Table: c.Table, first: func() { c.has(another) }})
	before := c.reported()
	if before == 0 || before == 20 {
		t.Fatalf("%d of 20 are reported, want some", before)
	}
	want(t, "events", strconv.Itoa(c.Log.Count(reporting.EventConnectionRefused)), "0")
	c.groups = append(c.groups, c.Report(entitlementOf(0), rt.Hour.Add(time.Hour), "d0 1, d1 2"))
	for round := range 3 {
		c.Set(closed.Add(time.Hour + time.Duration(round)*5*time.Minute))
		c.Work()
		want(t, "events", strconv.Itoa(c.Log.Count(reporting.EventConnectionRefused)), strconv.Itoa(round+1))
	}
	want(t, "reported", strconv.Itoa(c.reported()), strconv.Itoa(before))
	c.has(rt.Application)
	for round := range 3 {
		c.Set(closed.Add(time.Duration(2+round) * time.Hour))
		c.Work()
	}
	c.billed(t, 21)
	want(t, "reported", strconv.Itoa(c.reported()), "21")
}

// Reporting is paused while a Submit has more to send: more than a request holds, or the halves of
// one that was refused. It makes no further call.
func TestSubmit_PauseEndsItBeforeTheNextCall(t *testing.T) {
	t.Parallel()
	for name, bad := range map[string]string{"full requests": "", "halves": "d3"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := worldtest.NewWorld(t, sandbox.Options{})
			w.Change(func(c *sandbox.Catalog) {
				for i, d := range c.AWS.Products[0].Dimensions {
					if d.Key == bad {
						c.AWS.Products[0].Dimensions[i].Key = "gone"
					}
				}
			})
			var usage []string
			for i := range 30 {
				usage = append(usage, fmt.Sprintf("d%d 1", i))
			}
			w.Report(worldtest.OnAWS, rt.Hour, strings.Join(usage, ", "))
			w.Set(closed)
			workBy(t, w, &responding{Table: w.Table, first: func() {
				if err := w.Table.Pause(t.Context(), "ann", w.Now()); err != nil {
					t.Error(err)
				}
			}})
			want(t, "calls", strconv.Itoa(len(w.Calls("BatchMeterUsage"))), "1")
			want(t, "events", strconv.Itoa(w.Log.Count(reporting.EventGateClosed)), "2") // Submit's, and that of the Plan it hints
			for _, r := range w.Hour(worldtest.OnAWS, rt.Hour).Sealed.Records {
				for _, a := range r.Attempts {
					if a.Result == reports.InDoubt {
						t.Errorf("an attempt of %s is in doubt: %+v", r.Dimension, a)
					}
				}
			}
			if err := w.Table.Resume(t.Context(), "ann", w.Now()); err != nil {
				t.Fatal(err)
			}
			w.Set(closed.Add(2 * time.Minute))
			w.Work()
			billed := 30
			if bad != "" {
				billed--
			}
			want(t, "billed", strconv.Itoa(len(strings.Fields(w.Billed()))), strconv.Itoa(billed))
		})
	}
}

// pages is a table whose lanes are read hour by hour.
type pages struct{ *table.Table }

func (p pages) Due(ctx context.Context, lane string, now time.Time, _ int) iter.Seq2[[]reports.Place, error] {
	return p.Table.Due(ctx, lane, now, 1)
}

// What a newer version has left in a lane, as after a rollback, keeps its place before all others:
// what is behind it is sent.
func TestSubmit_SendsWhatIsBehindHoursThatCantBeRead(t *testing.T) {
	t.Parallel()
	for name, newer := range map[string]func(*crowd, reports.Place){
		"hours": func(c *crowd, p reports.Place) {
			c.SetText("ORG#acme#BILL#"+string(p.Entitlement), "HOUR#"+p.Hour.Format("2006-01-02T15"), "newer", "1")
		},
		"entitlements": func(c *crowd, p reports.Place) {
			c.SetText("ORG#acme", "ENTITLEMENT#"+string(p.Entitlement), "entitlement", `{"newer":1}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCrowd(t, 4)
			worker := c.Worker(pages{c.Table})
			for i := range 4 {
				if err := worker.Plan(t.Context(), reports.Place{Organization: worldtest.Org, Entitlement: entitlementOf(i), Hour: rt.Hour}); err != nil {
					t.Fatal(err)
				}
			}
			lane := c.Hour(entitlementOf(0), rt.Hour).Sealed.Lane
			read := 0
			for page, err := range worker.Store.Due(t.Context(), lane, c.Now(), 1) {
				if err != nil {
					t.Fatal(err)
				}
				for _, p := range page {
					if read++; read != 3 { // all but the third
						newer(c, p)
					}
				}
			}
			if err := worker.Submit(t.Context(), lane); err != nil {
				t.Fatal(err)
			}
			c.billed(t, 1)
			want(t, "hours", strconv.Itoa(read), "4")
			want(t, "counted", strconv.Itoa(c.Log.Count(reporting.EventUnknownVersion)), "3")
		})
	}
}
