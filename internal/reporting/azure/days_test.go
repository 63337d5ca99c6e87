package azure

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/reporting"
	rt "github.com/marketmeter/marketmeter/internal/reporting/reportingtest"
	"github.com/marketmeter/marketmeter/sandbox"
)

var _ reporting.Reader = &Marketplace{}

var today = rt.Hour.Truncate(24 * time.Hour)

// readBack returns what was processed, as "d0 3.75 of 2 Accepted complete", in order.
func readBack(t *testing.T, m *Marketplace, date time.Time) string {
	t.Helper()
	read, err := m.ReadBack(context.Background(), date)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for meter, p := range read.Processed {
		if !read.Resources[meter.Resource] {
			t.Errorf("%s is not among the resources", meter.Resource)
		}
		text := fmt.Sprintf("%s %v of %d %s", meter.Dimension, p.Quantity, p.Records, p.Status)
		if p.Complete {
			text += " complete"
		}
		all = append(all, text)
	}
	slices.Sort(all)
	return strings.Join(all, "; ")
}

func TestReadBack_IsDailySums(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	m := of(b, nil)
	earlier := func(d time.Duration) func(*reporting.Record) {
		return func(r *reporting.Record) { r.Start, r.End = r.Start.Add(-d), r.End.Add(-d) }
	}
	managed := rt.Azure("d0", "4")
	managed.IDs.ResourceID, managed.IDs.ResourceURI = "", rt.ManagedApp
	m.Send(context.Background(), records(
		rt.Azure("d0", "1.25"), with(rt.Azure("d0", "2.5"), earlier(time.Hour)), rt.Azure("d1", "7"), managed,
		with(rt.Azure("d2", "8"), earlier(12*time.Hour)),
	))
	want(t, "on the day", readBack(t, m, today), "d0 0 of 1 Submitted; d0 0 of 2 Submitted; d1 0 of 1 Submitted")
	b.Set(rt.Now.Add(72 * time.Hour))
	want(t, "later", readBack(t, m, today), "d0 3.75 of 2 Accepted complete; d0 4 of 1 Accepted complete; d1 7 of 1 Accepted complete")
	want(t, "the day before", readBack(t, m, today.AddDate(0, 0, -1)), "d2 8 of 1 Accepted complete")
	want(t, "the day after", readBack(t, m, today.AddDate(0, 0, 1)), "")
	// Resources are those of the day and of the next.
	for days, resources := range map[int]string{0: "2", -1: "2", -2: "1", 1: "0", -3: "0"} {
		read, err := m.ReadBack(context.Background(), today.AddDate(0, 0, days))
		if err != nil {
			t.Fatal(err)
		}
		want(t, fmt.Sprintf("resources of day %d", days), fmt.Sprint(len(read.Resources)), resources)
		for resource := range read.Resources {
			want(t, "resource", resource, strings.ToLower(resource))
		}
	}
	b.Change(func(c *sandbox.Catalog) {
		for _, status := range []string{"Mismatch", "Rejected", "Accepted"} {
			c.Azure.Reconciliations = append(c.Azure.Reconciliations, sandbox.AzureReconciliation{
				Date: "2026-11-18", Resource: rt.Resource, Dimension: map[string]string{"Mismatch": "d0", "Rejected": "d1"}[status], ReconStatus: status, ProcessedQuantity: "3",
			})
		}
	})
	want(t, "other statuses", readBack(t, m, today), "d0 3 of 2 Mismatch; d0 4 of 1 Accepted complete; d1 3 of 1 Rejected")
}

// A day to come may be refused as the end of the range: the source's default is today.
func TestReadBack_AsksForNoDayToCome(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	for i, expected := range []string{
		"usageStartDate=2026-11-18&UsageEndDate=2026-11-18", "usageStartDate=2026-11-17&UsageEndDate=2026-11-18", "usageStartDate=2026-11-16&UsageEndDate=2026-11-17",
	} {
		readBack(t, of(b, nil), today.AddDate(0, 0, -i))
		calls := b.Calls("usageEvents")
		address, err := url.Parse(calls[len(calls)-1].URL)
		if err != nil {
			t.Fatal(err)
		}
		query := address.Query()
		want(t, "query", "usageStartDate="+query.Get("usageStartDate")+"&UsageEndDate="+query.Get("UsageEndDate"), expected)
	}
}

// Rows of a meter that differ in their plan are added up, and what contradicts itself is not
// complete.
func TestReadBack_AddsUpRows(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	row := func(members string) string {
		return `{"usageDate":"2026-11-18T00:00:00Z","usageResourceId":"` + strings.ToUpper(rt.Resource) + `","dimension":"d0","submittedCount":2,` + members + `}`
	}
	accepted := row(`"planId":"silver","reconStatus":"Accepted","submittedQuantity":1.5,"processedQuantity":1.5`)
	for body, expected := range map[string]string{
		accepted: "d0 1.5 of 2 Accepted complete",
		accepted + "," + row(`"planId":"gold","reconStatus":"Accepted","submittedQuantity":2.0,"processedQuantity":2.0`):  "d0 3.5 of 4 Accepted complete",
		accepted + "," + row(`"planId":"gold","reconStatus":"Submitted","submittedQuantity":2.0,"processedQuantity":0.0`): "d0 1.5 of 4 Accepted, Submitted",
		row(`"planId":"gold","reconStatus":"Submitted","submittedQuantity":2.0,"processedQuantity":0.0`) + "," + accepted: "d0 1.5 of 4 Submitted, Accepted",
		row(`"reconStatus":"Accepted","submittedQuantity":1.5,"processedQuantity":1.0`):                                   "d0 1 of 2 Accepted",
		row(`"reconStatus":"Accepted","submittedQuantity":1.5`):                                                           "d0 0 of 2 Accepted",
		row(`"reconStatus":"Accepted","processedQuantity":1.5`):                                                           "d0 1.5 of 2 Accepted",
		row(`"reconStatus":"DryRun","submittedQuantity":1.5,"processedQuantity":1.5`):                                     "d0 1.5 of 2 DryRun",
		row(`"reconStatus":"New","submittedQuantity":1.5,"processedQuantity":1.5`):                                        "d0 1.5 of 2 New",
		"": "",
	} {
		m := of(b, &rt.Canned{Path: "/api/", Status: 200, Body: "[" + body + "]"})
		want(t, body, readBack(t, m, today), expected)
	}
}

// A response that is not whole must not look like less usage.
func TestReadBack_FailsWithoutAWholeResponse(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	m := of(b, nil)
	m.Send(context.Background(), records(rt.Azure("d0", "1.25")))
	for _, fault := range []string{sandbox.Cut, sandbox.Malformed, sandbox.ContentType, sandbox.ServerError, sandbox.Throttled} {
		b.Fault(sandbox.Fault{Operation: "usageEvents", Fault: fault})
		if _, err := m.ReadBack(context.Background(), today); err == nil || errors.Is(err, reporting.ErrRefused) {
			t.Errorf("%s: %v", fault, err)
		}
	}
	want(t, "whole", readBack(t, m, today), "d0 0 of 1 Submitted")
	row := `{"usageDate":"2026-11-18T00:00:00Z","usageResourceId":"r","dimension":"d0","reconStatus":"Accepted","submittedQuantity":1.5,"processedQuantity":1.5,"submittedCount":1}`
	whole := "[" + row + "," + row + "]"
	bodies := []string{"null", "{}", `""`, "[null,1]", `[{"usageDate":"yesterday"}]`, "[{}]", `[{"processedQuantity":1e999}]`, `[{"processedQuantity":"1"}]`}
	bodies = append(bodies, whole+",", whole+"[]", `{"a":`+whole+"}")
	for n := range len(whole) {
		bodies = append(bodies, whole[:n])
	}
	for _, body := range bodies {
		if read, err := of(b, &rt.Canned{Path: "/api/", Status: 200, Body: body}).ReadBack(context.Background(), today); err == nil {
			t.Errorf("%s is read as %+v", body, read)
		}
	}
}

// Azure has no pages: what many resources have used is one list, which may be longer than
// any other response.
func TestReadBack_OfALongList(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	list := func(resources int, more string) string {
		var body strings.Builder
		for i := range resources {
			for dimension := range 30 {
				fmt.Fprintf(&body, `,{"usageDate":"2026-11-18T00:00:00Z","usageResourceId":"R%06d","dimension":"d%d","reconStatus":"Accepted"%s}`, i, dimension, more)
			}
		}
		return "[" + body.String()[1:] + "]"
	}
	body := list(1000, `,"submittedQuantity":1.5,"processedQuantity":1.5,"submittedCount":1,"offerName":"`+strings.Repeat("x", 500)+`"`)
	read, err := of(b, &rt.Canned{Path: "/api/", Status: 200, Body: body}).ReadBack(context.Background(), today)
	if err != nil || len(read.Processed) != 30_000 || len(read.Resources) != 1000 || len(body) < 18<<20 {
		t.Errorf("%d bytes: %d meters of %d resources, %v", len(body), len(read.Processed), len(read.Resources), err)
	}
	_, err = of(b, &rt.Canned{Path: "/api/", Status: 200, Body: list(maxMeters/30+1, "")}).ReadBack(context.Background(), today)
	if err == nil || !strings.Contains(err.Error(), "more than 200000") {
		t.Errorf("one more: %v", err)
	}
}

func TestReadBack_NamesRefusedCredentials(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	for status, refused := range map[int]bool{401: true, 403: true, 400: false, 404: false, 500: false} {
		_, err := of(b, &rt.Canned{Path: "/api/", Status: status, Body: `{"code":"x","message":"m"}`}).ReadBack(context.Background(), today)
		if err == nil || errors.Is(err, reporting.ErrRefused) != refused {
			t.Errorf("status %d: %v", status, err)
		}
	}
	wrong := New(Options{TenantID: rt.Tenant, ClientID: rt.Application, SecretARN: "arn", Secrets: vault{"arn": "planted-wrong-secret"}, Sandbox: b.URL, Now: b.Now})
	if _, err := wrong.ReadBack(context.Background(), today); !errors.Is(err, reporting.ErrRefused) || strings.Contains(err.Error(), "planted") {
		t.Errorf("a wrong secret: %v", err)
	}
}
