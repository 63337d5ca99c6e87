package operate_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"golang.org/x/sync/errgroup"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/reporting"
	"github.com/marketmeter/marketmeter/internal/reporting/operate"
	rt "github.com/marketmeter/marketmeter/internal/reporting/reportingtest"
	"github.com/marketmeter/marketmeter/internal/reporting/worldtest"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
	"github.com/marketmeter/marketmeter/sandbox"
)

// A record may be resolved while others of its hour are still sent: its groups wait for all.
func TestResolve_OfAnHourThatIsStillSent(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{})
	w.Set(closed)
	if got := rt.Verdicts(w.Marketplace("AWS").Send(t.Context(), []reporting.Record{rt.AWS("d0", "9")})); got != "billed done" {
		t.Fatalf("the other meter: %s", got)
	}
	w.Fault(sandbox.Fault{Marketplace: sandbox.AWS, Fault: "unprocessed", Records: []int{1}})
	id := w.Report(worldtest.OnAWS, rt.Hour, "d0 3, d1 4")
	do(t, operate.Run, request(t, w))
	h := w.Hour(worldtest.OnAWS, rt.Hour)
	if h.State != reports.StateSealed || h.Record("d0").Outcome.Kind != reports.Conflict {
		t.Fatalf("%s, %+v", h.State, h.Record("d0").Outcome)
	}
	do(t, operate.Resolve, request(t, w, h.ID(), "d0", "billed"))
	if got := w.Status(id); got != "REPORT_PENDING" {
		t.Errorf("the group is %s before the hour is decided", got)
	}
	w.Set(closed.Add(time.Hour))
	do(t, operate.Run, request(t, w))
	if got, billed := w.Status(id), w.Billed(); got != "REPORTED" || billed != "d0=9 d1=4" {
		t.Errorf("the group is %s, billed %s", got, billed)
	}
}

func TestResolve_ByManyAtOnceChangesOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{})
	id := conflict(t, w)
	report := w.Hour(worldtest.OnAWS, rt.Hour).ID()
	var changed atomic.Int64
	var all errgroup.Group
	for range 6 {
		r := request(t, w, report, "d0", "billed")
		all.Go(func() error {
			result, err := operate.Resolve(t.Context(), r)
			if err == nil && result.(*operate.Resolved).Changed {
				changed.Add(1)
			}
			return err
		})
	}
	if err := all.Wait(); err != nil || changed.Load() != 1 || w.Status(id) != "REPORTED" {
		t.Errorf("%v; %d changed it, and the group is %s", err, changed.Load(), w.Status(id))
	}
	ledger, err := w.Table.Ledger(t.Context(), worldtest.Org, worldtest.OnAWS)
	if err != nil || len(ledger.Carry) > 0 {
		t.Errorf("the ledger is %+v, %v", ledger, err)
	}
}

// A report is found behind megabytes of newer ones.
func TestResolve_FindsAnOldReport(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{})
	id := conflict(t, w)
	large := strings.Repeat("x", 300_000)
	for i := range 8 {
		_, err := tabletest.NewClient(http.DefaultTransport).PutItem(t.Context(), &dynamodb.PutItemInput{
			TableName: &w.TableName, Item: map[string]types.AttributeValue{
				"PK":            &types.AttributeValueMemberS{Value: "ORG#acme#REPORT"},
				"SK":            &types.AttributeValueMemberS{Value: fmt.Sprintf("2026-12-%02dT00:00:00.000Z#6f1c3b1e-0000-5000-8000-00000000000%d", i+1, i)},
				"entitlementID": &types.AttributeValueMemberS{Value: "ent-aws"},
				"report":        &types.AttributeValueMemberS{Value: large},
			},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	do(t, operate.Resolve, request(t, w, w.Hour(worldtest.OnAWS, rt.Hour).ID(), "d0", "billed"))
	if got := w.Status(id); got != "REPORTED" {
		t.Errorf("the group is %s", got)
	}
	// An id that is not made of the report's hour is not its place.
	if _, err := operate.Resolve(t.Context(), request(t, w, "6f1c3b1e-0000-5000-8000-000000000001", "d0", "billed")); metering.CodeOf(err) != metering.NotFound {
		t.Errorf("%v; want NotFound", err)
	}
}

// Each page of the indexes is read.
func TestStatusAndEnqueue_ReadEachPage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{})
	conflict(t, w)
	do(t, operate.Run, request(t, w))
	var groups []string
	for i := range 5 {
		w.Report(worldtest.OnAWS, w.Now().Add(-time.Duration(i)*3*time.Hour), "d1 1")
		w.Report(worldtest.OnAzure, w.Now(), "d1 1")
		groups = append(groups, fmt.Sprintf(`"id":"i%d","partner":"AWS","entitlementID":"ent-aws","records":{"d2":1},"metaInfo":{"timestamp":"2026-11-18T12:40:00Z"}`, i))
	}
	imported(t, w, groups...)
	r := request(t, w)
	r.Target.Table = table.New(tabletest.NewClient(tabletest.ShortPages(http.DefaultTransport, 1)), w.TableName)
	text, _ := do(t, operate.ReadStatus, r)
	has(t, text, "groups waiting 10", "conflicts 1")
	text, _ = do(t, operate.Enqueue, r)
	has(t, text, "enqueued 5, refused 0")
}
