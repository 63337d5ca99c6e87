package reporting_test

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/reporting/connect"
	rt "github.com/marketmeter/marketmeter/internal/reporting/reportingtest"
	"github.com/marketmeter/marketmeter/internal/reporting/worldtest"
	"github.com/marketmeter/marketmeter/sandbox"
)

// What other reporters get wrong, by the workers and the table. mistakes_test.go has the part of
// the adapters.

// workUntil works every so often until a time.
func workUntil(w *worldtest.World, until time.Time, step time.Duration) {
	for now := w.Now(); now.Before(until); now = now.Add(step) {
		w.Set(now)
		w.Work()
	}
}

func TestWorkerMistakes_NewTimestampOnEachAttempt(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	w.Report(worldtest.OnAWS, rt.Hour.Add(20*time.Minute), "d0 7")
	for range 3 {
		w.Fault(sandbox.Fault{Fault: sandbox.Lost})
	}
	w.Set(closed)
	workUntil(w, closed.Add(3*time.Hour), 10*time.Minute)
	want(t, "billed", w.Billed(), "d0=7")
	calls := w.Calls("BatchMeterUsage")
	if len(calls) < 4 {
		t.Errorf("%d calls", len(calls))
	}
	for i := range calls {
		if string(calls[i].Body) != string(calls[0].Body) {
			t.Errorf("call %d sends %s, the first sent %s", i, calls[i].Body, calls[0].Body)
		}
	}
}

func TestWorkerMistakes_UnprocessedRecordsIgnored(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	group := w.Report(worldtest.OnAWS, rt.Hour, "d0 1, d1 2")
	w.Fault(sandbox.Fault{Fault: sandbox.Unprocessed, Records: []int{1}})
	w.Set(closed)
	w.Work()
	want(t, "billed", w.Billed(), "d0=1")
	want(t, "group", w.Status(group), "REPORT_PENDING")
	w.Set(closed.Add(5 * time.Minute))
	w.Work()
	want(t, "billed", w.Billed(), "d0=1 d1=2")
	want(t, "group", w.Status(group), "REPORTED")
}

func TestWorkerMistakes_ResultsWithoutReadingStatus(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	w.Change(func(c *sandbox.Catalog) { c.AWS.Agreements = c.AWS.Agreements[1:] })
	group := w.Report(worldtest.OnAWS, rt.Hour, "d0 1")
	w.Set(closed)
	w.Work()
	if status := w.Status(group); strings.HasPrefix(status, "REPORTED") {
		t.Errorf("usage of a customer without an agreement is %s", status)
	}
	want(t, "billed", w.Billed(), "")
}

func TestWorkerMistakes_AnyDuplicateTakenAsSuccess(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	w.Set(closed)
	want(t, "another meter", rt.Verdicts(send(w.Marketplace("AZURE"), rt.Azure("d0", "9"))), "billed done")
	group := w.Report(worldtest.OnAzure, rt.Hour, "d0 5")
	w.Work()
	want(t, "group", w.Status(group), "REPORT_FAILED CONFLICT")
	if calls := len(w.Calls("batchUsageEvent")); calls != 2 {
		t.Errorf("a conflict took %d calls", calls)
	}
}

// onTheWay changes each request that reports usage to the sandbox.
type onTheWay func(*http.Request, string) (path, body string)

func (change onTheWay) RoundTrip(r *http.Request) (*http.Response, error) {
	if !strings.HasSuffix(r.URL.Path, "/batchUsageEvent") {
		return http.DefaultTransport.RoundTrip(r)
	}
	sent, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	path, body := change(r, string(sent))
	r = r.Clone(r.Context())
	r.URL.Path, r.Body, r.ContentLength = path, io.NopCloser(strings.NewReader(body)), int64(len(body))
	return http.DefaultTransport.RoundTrip(r)
}

// workOnTheWay does what is due by workers whose requests are changed.
func workOnTheWay(w *worldtest.World, change onTheWay) {
	worker := w.Worker(w.Table)
	worker.Marketplaces = connect.New(connect.Options{
		Secrets: secrets(clientSecret), SandboxURL: w.URL, SandboxOnly: true, Now: w.Now, Transport: change,
	})
	w.WorkBy(worker)
}

// statuses returns the statuses of the responses to usage, as the report shows them.
func statuses(t *testing.T, w *worldtest.World) (all []int) {
	t.Helper()
	calls, err := w.Table.Calls(t.Context(), reports.Place{Organization: worldtest.Org, Entitlement: worldtest.OnAzure, Hour: rt.Hour})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range calls {
		all = append(all, c.Status)
	}
	return all
}

// The sandbox refuses a whole request with 400, for an event with a member that it does not know;
// and with 409, since the hour has another meter's event and the request has come to usageEvent.
func TestWorkerMistakes_Azure400And409CountedAsSuccess(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	good, bad := w.Report(worldtest.OnAzure, rt.Hour, "d0 5, d1 1"), w.Report(worldtest.OnAzure, rt.Hour, "d1 1, d2 7")
	w.Set(closed)
	workOnTheWay(w, func(r *http.Request, body string) (string, string) {
		return r.URL.Path, strings.Replace(body, `"dimension":"d2"`, `"dimension":"d2","more":1`, 1)
	})
	want(t, "statuses", fmt.Sprint(statuses(t, w)), "[400 200 400]")
	want(t, "good", w.Status(good), "REPORTED")
	want(t, "bad", w.Status(bad), "REPORT_FAILED MARKETPLACE_REFUSED")
	want(t, "billed", w.Billed(), "d0=5 d1=2")

	w = worldtest.NewWorld(t, sandbox.Options{})
	w.Set(closed)
	want(t, "another meter", rt.Verdicts(send(w.Marketplace("AZURE"), rt.Azure("d0", "9"))), "billed done")
	group := w.Report(worldtest.OnAzure, rt.Hour, "d0 5")
	workOnTheWay(w, func(r *http.Request, body string) (string, string) {
		return strings.Replace(r.URL.Path, "batchUsageEvent", "usageEvent", 1), strings.TrimSuffix(strings.TrimPrefix(body, `{"request":[`), `]}`)
	})
	want(t, "statuses", fmt.Sprint(statuses(t, w)), "[409]")
	want(t, "group", w.Status(group), "REPORT_PENDING")
	w.Set(closed.Add(5 * time.Minute))
	w.Work()
	want(t, "group", w.Status(group), "REPORT_FAILED CONFLICT")
	want(t, "billed", w.Billed(), "d0=9")
}

func TestWorkerMistakes_RejectedEventsResentForever(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	w.Change(func(c *sandbox.Catalog) { c.AWS.Products[0].Dimensions = c.AWS.Products[0].Dimensions[1:] })
	group := w.Report(worldtest.OnAWS, rt.Hour, "d0 1")
	w.Set(closed)
	workUntil(w, closed.Add(6*time.Hour), time.Hour)
	want(t, "group", w.Status(group), "REPORT_FAILED DIMENSION_UNKNOWN")
	if calls := len(w.Calls("BatchMeterUsage")); calls != 1 {
		t.Errorf("a rejected record took %d calls", calls)
	}
}

func TestWorkerMistakes_OneFailedRunStopsTheMeter(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	first := w.Report(worldtest.OnAWS, rt.Hour, "d0 1")
	failing := 2
	w.Fault(sandbox.Fault{Fault: sandbox.ServerError, Count: &failing})
	w.Set(closed)
	w.Work()
	second := w.Report(worldtest.OnAWS, rt.Hour.Add(time.Hour), "d0 2")
	workUntil(w, closed.Add(4*time.Hour), 20*time.Minute)
	want(t, "billed", w.Billed(), "d0=1 d0=2")
	want(t, "groups", w.Status(first)+" "+w.Status(second), "REPORTED REPORTED")
}

func TestWorkerMistakes_LateEventsLost(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	w.Report(worldtest.OnAzure, rt.Hour, "d0 1")
	w.Set(closed)
	w.Work()
	late := w.Report(worldtest.OnAzure, rt.Hour.Add(time.Second), "d0 2")
	workUntil(w, closed.Add(4*time.Hour), time.Hour)
	want(t, "late", w.Status(late), "REPORTED")
	want(t, "billed", w.Billed(), "d0=1 d0=2")
}

func TestWorkerMistakes_All25RefusedBecauseOfOne(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	w.Change(func(c *sandbox.Catalog) { c.AWS.Products[0].Dimensions[13].Key = "gone" })
	var groups []metering.GroupID
	for i := range 25 {
		groups = append(groups, w.Report(worldtest.OnAWS, rt.Hour, "d"+strconv.Itoa(i)+" 1"))
	}
	w.Set(closed)
	w.Work()
	for i, id := range groups {
		status := "REPORTED"
		if i == 13 {
			status = "REPORT_FAILED DIMENSION_UNKNOWN"
		}
		want(t, "d"+strconv.Itoa(i), w.Status(id), status)
	}
}

// One of 25 customers of a product has the licence of another product, or none that AWS knows.
func TestWorkerMistakes_All25RefusedBecauseOfOneProduct(t *testing.T) {
	t.Parallel()
	licence := func(i int) string { return fmt.Sprintf("arn:aws:license-manager::294406891311:license:l-1%02d", i) }
	customer := func(i int) string { return fmt.Sprintf("1111222200%02d", i) }
	const wrong = 13
	for name, c := range map[string]struct {
		change         func(catalog *sandbox.Catalog, agreement *sandbox.AWSAgreement)
		status, billed string // of the customer
	}{
		"a licence that does not exist": {
			func(_ *sandbox.Catalog, a *sandbox.AWSAgreement) { a.LicenseArn = rt.Licence + "0" },
			"REPORT_FAILED MARKETPLACE_REFUSED", "",
		},
		"a licence of another seller's product": {
			func(c *sandbox.Catalog, a *sandbox.AWSAgreement) {
				c.AWS.Sellers = []sandbox.AWSSeller{{AccountID: "555566667777", AccessKeyIDs: []string{"SANDBOX"}}, {AccountID: "888899990000", AccessKeyIDs: []string{"OTHER"}}}
				c.AWS.Products[1].Seller, a.ProductCode = "888899990000", c.AWS.Products[1].ProductCode
			},
			"REPORT_FAILED MARKETPLACE_REFUSED", "",
		},
		"a licence of another product": { // AWS accepts it in a request of its own
			func(c *sandbox.Catalog, a *sandbox.AWSAgreement) { a.ProductCode = c.AWS.Products[1].ProductCode },
			"REPORTED", " d0=1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := worldtest.NewWorld(t, sandbox.Options{})
			w.Change(func(catalog *sandbox.Catalog) {
				catalog.AWS.Agreements = nil
				for i := range 25 {
					a := sandbox.AWSAgreement{AccountID: customer(i), ProductCode: rt.ProductCode, LicenseArn: licence(i)}
					if i == wrong {
						c.change(catalog, &a)
					}
					catalog.AWS.Customers = append(catalog.AWS.Customers, sandbox.AWSCustomer{AccountID: a.AccountID})
					catalog.AWS.Agreements = append(catalog.AWS.Agreements, a)
				}
			})
			var groups []metering.GroupID
			for i := range 25 {
				e := worldtest.Entitlements()[0]
				e.ID = metering.EntitlementID("ent-" + strconv.Itoa(i))
				e.Marketplace = metering.MarketplaceIDs{CustomerAWSAccountID: customer(i), LicenseARN: licence(i)}
				w.PutEntitlement(e)
				groups = append(groups, w.Report(e.ID, rt.Hour, "d0 1"))
			}
			w.Set(closed)
			w.Work()
			for i, id := range groups {
				status := "REPORTED"
				if i == wrong {
					status = c.status
				}
				want(t, "customer "+strconv.Itoa(i), w.Status(id), status)
			}
			want(t, "billed", w.Billed(), strings.TrimSpace(strings.Repeat("d0=1 ", 24))+c.billed)
			calls := w.Calls("BatchMeterUsage")
			if n := strings.Count(string(calls[0].Body), "LicenseArn"); n != 25 || calls[0].Response.Status != http.StatusBadRequest {
				t.Errorf("the first request has %d records, its status is %d", n, calls[0].Response.Status)
			}
			if len(calls) > 11 {
				t.Errorf("%d calls", len(calls))
			}
		})
	}
}

func TestWorkerMistakes_ProductCodeSentWithLicenseArn(t *testing.T) {
	t.Parallel()
	w := worldtest.NewWorld(t, sandbox.Options{})
	w.Report(worldtest.OnAWS, rt.Hour, "d0 1")
	w.Set(closed)
	w.Work()
	for _, call := range w.Calls("BatchMeterUsage") {
		if strings.Contains(string(call.Body), "ProductCode") {
			t.Errorf("the request is %s", call.Body)
		}
	}
	want(t, "billed", w.Billed(), "d0=1")
}
