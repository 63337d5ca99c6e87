package operate_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/reporting"
	"github.com/marketmeter/marketmeter/internal/reporting/operate"
	rt "github.com/marketmeter/marketmeter/internal/reporting/reportingtest"
	"github.com/marketmeter/marketmeter/internal/reporting/worldtest"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
	"github.com/marketmeter/marketmeter/sandbox"
)

// restore makes the table one that was restored: reporting began on another.
func restore(t *testing.T, w *worldtest.World) {
	t.Helper()
	key := &types.AttributeValueMemberS{Value: "REPORTING"}
	_, err := tabletest.NewClient(http.DefaultTransport).UpdateItem(t.Context(), &dynamodb.UpdateItemInput{
		TableName: &w.TableName, Key: map[string]types.AttributeValue{"PK": key, "SK": key},
		UpdateExpression:          awssdk.String("SET tableID = :other"),
		ExpressionAttributeValues: map[string]types.AttributeValue{":other": &types.AttributeValueMemberS{Value: "the lost table"}},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// gateItem is the state of reporting as it is stored.
func gateItem(t *testing.T, w *worldtest.World) map[string]types.AttributeValue {
	t.Helper()
	key := &types.AttributeValueMemberS{Value: "REPORTING"}
	out, err := tabletest.NewClient(http.DefaultTransport).GetItem(t.Context(), &dynamodb.GetItemInput{
		TableName: &w.TableName, Key: map[string]types.AttributeValue{"PK": key, "SK": key},
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.Item
}

// unsealed is a table of a worker that ends before it seals.
type unsealed struct{ reporting.Store }

func (unsealed) Write(context.Context, *reports.Step) error { return errors.New("the worker is gone") }

// What may have been sent since the backup is UNKNOWN and not sent again; usage that comes later is
// reported in later hours.
func TestResume_OfARestoredTableSendsNothingAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{})
	w.Set(closed)
	settled := w.Report(worldtest.OnGoogle, rt.Hour, "d0 2")
	w.Fault(sandbox.Fault{Marketplace: sandbox.AWS, Fault: sandbox.Lost})
	sealed := w.Report(worldtest.OnAWS, rt.Hour, "d0 3, d1 4")
	do(t, operate.Run, request(t, w))
	waiting := w.Report(worldtest.OnAzure, rt.Hour, "d0 5")
	early := w.Report(worldtest.OnGoogle, w.Now(), "d0 6")
	open := w.Report(worldtest.OnAWS, rt.Hour.Add(-time.Hour), "d2 8")
	place := reports.Place{Organization: worldtest.Org, Entitlement: worldtest.OnAWS, Hour: rt.Hour.Add(-time.Hour)}
	if err := w.Worker(unsealed{w.Table}).Plan(t.Context(), place); err == nil || w.Hour(worldtest.OnAWS, place.Hour).State != reports.StateOpen {
		t.Fatalf("%v; want an hour that stays open", err)
	}
	restore(t, w)
	calls := len(w.Calls("BatchMeterUsage")) + len(w.Calls("batchUsageEvent"))

	result, err := operate.Run(t.Context(), request(t, w))
	if err != nil || !result.Incomplete() {
		t.Errorf("a run on a restored table: %+v, %v", result, err)
	}
	if _, err := operate.Resume(t.Context(), request(t, w)); metering.CodeOf(err) != metering.Conflict || !strings.Contains(err.Error(), "report resume --since") {
		t.Errorf("resume without the time: %v", err)
	}
	r := request(t, w)
	r.Since = w.Now().Add(time.Minute)
	if _, err := operate.Resume(t.Context(), r); metering.CodeOf(err) != metering.Invalid {
		t.Errorf("resume since a time to come: %v", err)
	}
	r.Since = closed.Add(-time.Minute)
	text, encoded := do(t, operate.Resume, r)
	has(t, text, "hours abandoned 4, failed 0", "in hours from 2026-11-18T14:00:00Z on")
	has(t, encoded, `"since":"2026-11-18T12:59:00Z","abandoned":4,"failed":[],"floor":"2026-11-18T14:00:00Z"`)
	for id, want := range map[metering.GroupID]string{
		settled: "REPORTED", sealed: "REPORT_FAILED OUTCOME_UNKNOWN OUTCOME_UNKNOWN", waiting: "REPORT_FAILED OUTCOME_UNKNOWN",
		open: "REPORT_FAILED OUTCOME_UNKNOWN", early: "REPORT_FAILED OUTCOME_UNKNOWN",
	} {
		if got := w.Status(id); got != want {
			t.Errorf("%s; want %s", got, want)
		}
	}
	text, _ = do(t, operate.ReadStatus, everywhere(t, w))
	has(t, text, "unknown 5", "the table was restored to its state of 2026-11-18T12:59:00Z")
	if got := len(w.Calls("BatchMeterUsage")) + len(w.Calls("batchUsageEvent")); got != calls {
		t.Errorf("%d calls; want %d as before", got, calls)
	}

	// A client sends again what the backup does not have: it may have been sent for that hour.
	again := w.Report(worldtest.OnAWS, rt.Hour.Add(-2*time.Hour), "d0 7")
	do(t, operate.Run, request(t, w))
	if got := w.Hour(worldtest.OnAWS, rt.Hour.Add(-2*time.Hour)); got != nil || w.Status(again) != "CREATED" {
		t.Errorf("usage of an hour before: %+v, %s", got, w.Status(again))
	}
	w.Set(closed.Add(3 * time.Hour))
	do(t, operate.Run, request(t, w))
	if got := w.Status(again); got != "REPORTED" {
		t.Errorf("later: %s", got)
	}
	do(t, operate.Resolve, request(t, w, w.Hour(worldtest.OnAWS, rt.Hour).ID(), "d0", "billed"))
	do(t, operate.Resolve, request(t, w, w.Hour(worldtest.OnAWS, rt.Hour).ID(), "d1", "billed"))
	if got := w.Status(sealed); got != "REPORTED" {
		t.Errorf("resolved: %s", got)
	}
	if got := w.Billed(); got != "d0=2 d0=3 d1=4 d0=7" && got != "d0=3 d1=4 d0=2 d0=7" {
		t.Errorf("billed %s", got)
	}
	if _, err := operate.Resume(t.Context(), r); metering.CodeOf(err) != metering.Conflict {
		t.Errorf("resume since again: %v; want Conflict", err)
	}
}

// The table that was restored lacks what the lost one may have sent by: a connection, identifiers,
// a shorter lock, a cancellation, a move to a later hour. Once all of it is put again, nothing is
// sent again.
func TestResume_OfARestoredTableThatLacksWhatItSentBy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{})
	entitlements := map[metering.EntitlementID]metering.Entitlement{}
	for _, e := range worldtest.Entitlements() {
		entitlements[e.ID] = e
	}
	w.Set(rt.Hour.Add(90 * time.Minute))
	settled := w.Report(worldtest.OnAWS, rt.Hour.Add(-2*time.Hour), "d9 1")
	do(t, operate.Run, request(t, w))
	if got := w.Status(settled); got != "REPORTED" {
		t.Fatal(got)
	}
	waiting := map[string]metering.GroupID{
		"no identifiers":      w.Report(worldtest.OnAWS, rt.Hour, "d0 1"),
		"no connection":       w.Report(worldtest.OnAzure, rt.Hour, "d1 2"),
		"a longer lock":       w.Report(worldtest.OnGoogle, rt.Hour, "d2 3"),
		"no cancellation":     w.Report(worldtest.OnGoogle, w.Now(), "d3 4"),
		"moved to a later":    w.Report(worldtest.OnAWS, rt.Hour.Add(-2*time.Hour), "d4 5"),
		"nothing, was closed": w.Report(worldtest.OnAzure, rt.Hour.Add(-time.Hour), "d5 6"),
	}
	bare := entitlements[worldtest.OnAWS]
	bare.Marketplace = metering.MarketplaceIDs{}
	w.PutEntitlement(bare)
	if _, err := w.Table.DeleteConnection(t.Context(), worldtest.Org, "AZURE", metering.Conditions{}); err != nil {
		t.Fatal(err)
	}
	lock := 50
	w.PutConnection(metering.Connection{Partner: "GCP", LockMinutes: &lock})
	restore(t, w)
	billed := w.Billed()

	r := request(t, w)
	r.Since = w.Now().Add(-time.Minute)
	text, _ := do(t, operate.Resume, r)
	has(t, text, "hours abandoned 6, failed 0", "in hours from 2026-11-18T13:00:00Z on")
	for lacks, id := range waiting {
		if got := w.Status(id); got != "REPORT_FAILED OUTCOME_UNKNOWN" {
			t.Errorf("%s: %s", lacks, got)
		}
	}
	w.PutEntitlement(entitlements[worldtest.OnAWS])
	w.PutConnection(metering.Connection{Partner: "AZURE"})
	w.PutConnection(metering.Connection{Partner: "GCP"})
	for hour := range 4 {
		w.Set(closed.Add(time.Duration(1+hour) * time.Hour))
		do(t, operate.Run, request(t, w))
	}
	if got := w.Billed(); got != billed {
		t.Errorf("billed %s; want %s as before", got, billed)
	}
}

// Groups whose entitlement is missing can't be settled: nothing is resumed.
func TestResume_OfARestoredTableWithoutTheEntitlement(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{})
	w.Set(closed)
	waiting := w.Report(worldtest.OnAWS, rt.Hour, "d0 1")
	w.DeleteItems("ORG#"+string(worldtest.Org), "ENTITLEMENT#"+string(worldtest.OnAWS))
	restore(t, w)
	r := request(t, w)
	r.Since = closed.Add(-time.Minute)
	text, _ := do(t, operate.Resume, r)
	has(t, text, "hours abandoned 0, failed 1", "the entitlement does not exist", "Nothing is reported")
	if got := w.Status(waiting); got != "CREATED" {
		t.Error(got)
	}
	w.PutEntitlement(worldtest.Entitlements()[0])
	text, _ = do(t, operate.Resume, r)
	has(t, text, "hours abandoned 1, failed 0")
	if got := w.Status(waiting); got != "REPORT_FAILED OUTCOME_UNKNOWN" {
		t.Error(got)
	}
}
