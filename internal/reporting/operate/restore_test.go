package operate_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
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

// backup returns all items of the table.
func backup(t *testing.T, w *worldtest.World) []map[string]types.AttributeValue {
	t.Helper()
	items, err := tabletest.Items(t.Context(), tabletest.NewClient(http.DefaultTransport), w.TableName)
	if err != nil {
		t.Fatal(err)
	}
	return items
}

// restoreTo makes the table one that was restored from a backup.
func restoreTo(t *testing.T, w *worldtest.World, items []map[string]types.AttributeValue) {
	t.Helper()
	client := tabletest.NewClient(http.DefaultTransport)
	for _, item := range backup(t, w) {
		key := map[string]types.AttributeValue{"PK": item["PK"], "SK": item["SK"]}
		if _, err := client.DeleteItem(t.Context(), &dynamodb.DeleteItemInput{TableName: &w.TableName, Key: key}); err != nil {
			t.Fatal(err)
		}
	}
	for _, item := range items {
		if _, err := client.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &w.TableName, Item: item}); err != nil {
			t.Fatal(err)
		}
	}
	restore(t, w)
}

// billed is what the marketplaces bill, in byte order.
func billed(w *worldtest.World) string {
	records := strings.Fields(w.Billed())
	slices.Sort(records)
	return strings.Join(records, " ")
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

// sealedOnly is a table of a worker that ends once it has sealed an hour.
type sealedOnly struct{ reporting.Store }

func (sealedOnly) PutReport(context.Context, *reports.Hour, []metering.GroupID) error {
	return errors.New("the worker is gone")
}

// By the terms of the backup, an hour is rejected, or has nothing to send. The lost table had a
// price, an entitlement that had not ended, or less of a commit, and billed it. It is reported
// again only if an operator resolves it as not billed. What the backup has sealed never changes.
func TestResume_OfARestoredTableThatRejectsWhatTheLostOneBilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{})
	commits := []any{}
	for _, partner := range metering.Partners {
		commits = append(commits, map[string]any{"partner": string(partner), "enableCommitWithAdditionalUsageMetering": true})
	}
	w.PutConfig(metering.Config{"partnerUsageMeteringConfigs": commits})
	entitlements := map[metering.EntitlementID]metering.Entitlement{}
	put := func(id metering.EntitlementID, commit, rate string, cancel time.Time) {
		for _, e := range worldtest.Entitlements() {
			if e.ID != id {
				continue
			}
			e.Info.CommitAmount = worldtest.Quantity(commit)
			for i := range e.Info.Dimensions {
				e.Info.Dimensions[i].Rate = worldtest.Quantity(rate)
			}
			if e.CancelTime = cancel; !cancel.IsZero() {
				e.Status = metering.EntitlementCancelled
			}
			entitlements[id] = e
			w.PutEntitlement(e)
		}
	}
	used := rt.Hour.Add(30 * time.Minute)
	w.Set(used.Add(time.Minute))
	put(worldtest.OnAWS, "2", "0", time.Time{})
	put(worldtest.OnGoogle, "100", "1", time.Time{})
	noPrice := w.Report(worldtest.OnAWS, used, "d0 5")
	cancelled := w.Report(worldtest.OnAzure, used, "d0 6")
	covered := w.Report(worldtest.OnGoogle, used, "d0 7")
	put(worldtest.OnAzure, "0", "0.5", rt.Hour.Add(-time.Minute))
	sealed := w.Report(worldtest.OnAWS, used.Add(-time.Hour), "d0 8")
	place := reports.Place{Organization: worldtest.Org, Entitlement: worldtest.OnAWS, Hour: rt.Hour.Add(-time.Hour)}
	w.Set(rt.Hour.Add(time.Hour + 5*time.Minute))
	if err := w.Worker(sealedOnly{w.Table}).Plan(t.Context(), place); err == nil || w.Hour(worldtest.OnAWS, place.Hour).State != reports.StateSealed {
		t.Fatalf("%v; want an hour that is sealed", err)
	}
	items := backup(t, w)
	terms := func() {
		put(worldtest.OnAWS, "2", "1", time.Time{})
		put(worldtest.OnAzure, "0", "0.5", time.Time{})
		put(worldtest.OnGoogle, "2", "1", time.Time{})
	}
	terms()
	w.Set(closed)
	do(t, operate.Run, request(t, w))
	if got := billed(w); got != "d0=3 d0=5 d0=6" {
		t.Fatalf("the lost table has billed %s", got)
	}
	if got := w.Status(sealed); got != "REPORT_FAILED NO_PRICE" {
		t.Fatalf("the lost table could not bill what was sealed: %s", got)
	}

	restoreTo(t, w, items)
	r := request(t, w)
	r.Since = closed.Add(-time.Minute)
	text, _ := do(t, operate.Resume, r)
	has(t, text, "hours abandoned 4, failed 0")
	for id, want := range map[metering.GroupID]string{
		noPrice: "REPORT_FAILED OUTCOME_UNKNOWN", cancelled: "REPORT_FAILED OUTCOME_UNKNOWN", covered: "REPORT_FAILED OUTCOME_UNKNOWN",
		sealed: "REPORT_FAILED NO_PRICE",
	} {
		if got := w.Status(id); got != want {
			t.Errorf("%s; want %s", got, want)
		}
	}
	terms()
	for _, id := range []metering.GroupID{noPrice, cancelled, covered} {
		refuseRetry(t, w, id, "only when that is resolved")
	}
	refuseRetry(t, w, sealed, "since the backup") // with a price, the lost table may have billed it in a later hour
	w.Set(closed.Add(time.Minute))
	again := w.Report(worldtest.OnAWS, used.Add(-time.Hour), "d0 8")
	for _, of := range []metering.EntitlementID{worldtest.OnAWS, worldtest.OnAzure} {
		do(t, operate.Resolve, request(t, w, w.Hour(of, rt.Hour).ID(), "d0", "billed"))
	}
	// The operator errs: the lost table billed 5 of these. It is the operator's word that counts.
	do(t, operate.Resolve, request(t, w, w.Hour(worldtest.OnGoogle, rt.Hour).ID(), "d0", "not-billed"))
	ledger, err := w.Table.Ledger(t.Context(), worldtest.Org, worldtest.OnGoogle)
	if err != nil || ledger.Used.Sign() != 0 {
		t.Errorf("the commit: %v, %v; want what was drawn back", ledger.Used, err)
	}
	if _, err := w.Table.Retry(t.Context(), worldtest.Org, covered, metering.Retry{Now: w.Now()}); err != nil {
		t.Error(err)
	}
	w.Set(closed.Add(3 * time.Hour))
	do(t, operate.Run, request(t, w))
	for _, id := range []metering.GroupID{noPrice, cancelled, covered, again} {
		if got := w.Status(id); got != "REPORTED" {
			t.Errorf("%s: %s", id, got)
		}
	}
	if got := billed(w); got != "d0=3 d0=5 d0=5 d0=6 d0=6" {
		t.Errorf("billed %s", got)
	}
}

func refuseRetry(t *testing.T, w *worldtest.World, id metering.GroupID, says string) {
	t.Helper()
	_, err := w.Table.Retry(t.Context(), worldtest.Org, id, metering.Retry{Now: w.Now()})
	if metering.CodeOf(err) != metering.Conflict || !strings.Contains(err.Error(), says) {
		t.Errorf("a retry of %s: %v; want %q", id, err, says)
	}
}

// What had failed in the backup was retried after it and billed, by the lost table. The restored
// table does not know that: it retries nothing of the backup, whatever is corrected and however
// often. What comes or fails later is as on any table.
func TestResume_OfARestoredTableRetriesNothingOfTheBackup(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{})
	correct := func() {
		for _, e := range worldtest.Entitlements() {
			w.PutEntitlement(e)
		}
	}
	wrong := worldtest.Entitlements()[0]
	wrong.Info.Dimensions = wrong.Info.Dimensions[1:]
	w.PutEntitlement(wrong)
	invalid := w.Report(wrong.ID, rt.Hour, "d0 1")
	correct()
	w.Change(func(c *sandbox.Catalog) { c.AWS.Products[0].Dimensions = nil })
	rejected := w.Report(wrong.ID, rt.Hour, "d1 2")
	w.Set(closed)
	do(t, operate.Run, request(t, w))
	for id, want := range map[metering.GroupID]string{invalid: "INVALID DIMENSION_UNKNOWN", rejected: "REPORT_FAILED DIMENSION_UNKNOWN"} {
		if got := w.Status(id); got != want {
			t.Fatalf("%s; want %s", got, want)
		}
	}
	items := backup(t, w)

	w.Change(func(c *sandbox.Catalog) { c.AWS.Products[0].Dimensions = rt.Catalog().AWS.Products[0].Dimensions })
	for _, id := range []metering.GroupID{invalid, rejected} {
		if _, err := w.Table.Retry(t.Context(), worldtest.Org, id, metering.Retry{Now: w.Now()}); err != nil {
			t.Fatal(err)
		}
	}
	for hours := range 2 { // the second moves to the hour after that of the first
		w.Set(closed.Add(time.Duration(1+hours) * time.Hour))
		do(t, operate.Run, request(t, w))
	}
	lost := billed(w)
	if lost != "d0=1 d1=2" {
		t.Fatalf("the lost table has billed %s", lost)
	}

	restoreTo(t, w, items)
	r := request(t, w)
	r.Since = closed.Add(time.Minute)
	do(t, operate.Resume, r)
	for hours := range 4 {
		for _, id := range []metering.GroupID{invalid, rejected} {
			refuseRetry(t, w, id, "since the backup")
		}
		correct()
		do(t, operate.Run, request(t, w))
		w.Set(closed.Add(time.Duration(3+hours) * time.Hour))
	}
	if got := billed(w); got != lost {
		t.Errorf("billed %s; want %s as before", got, lost)
	}
	w.PutEntitlement(wrong)
	later := w.Report(wrong.ID, w.Now().Add(-time.Hour), "d0 4")
	correct()
	if g, err := w.Table.Retry(t.Context(), worldtest.Org, later, metering.Retry{Now: w.Now()}); err != nil || g.Status != metering.StatusCreated {
		t.Errorf("%s, %v", g.Status, err)
	}
}

// Groups that came late for hours which have a report are moved before the hour that they go to is
// opened for others: else they would find none before the floor, and be sent again after it.
func TestResume_OfARestoredTableMovesLateGroupsFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{})
	lock := 0
	w.PutConnection(metering.Connection{Partner: "AWS", LockMinutes: &lock})
	w.Set(rt.Hour.Add(5 * time.Minute))
	first := w.Report(worldtest.OnAWS, rt.Hour.Add(-2*time.Hour), "d0 1")
	second := w.Report(worldtest.OnAWS, rt.Hour.Add(-time.Hour), "d0 2")
	do(t, operate.Run, request(t, w))
	if w.Status(first) != "REPORTED" || w.Status(second) != "REPORTED" {
		t.Fatal(w.Status(first), w.Status(second))
	}
	w.Set(rt.Hour.Add(time.Hour + time.Minute))
	groups := []metering.GroupID{
		w.Report(worldtest.OnAWS, rt.Hour, "d0 4"),
		w.Report(worldtest.OnAWS, w.Now(), "d0 8"),
		w.Report(worldtest.OnAWS, rt.Hour.Add(-2*time.Hour), "d0 16"),
		w.Report(worldtest.OnAWS, rt.Hour.Add(-time.Hour), "d0 32"),
	}
	items := backup(t, w)
	w.Set(rt.Hour.Add(time.Hour + 5*time.Minute))
	for _, hour := range []time.Time{rt.Hour.Add(-2 * time.Hour), rt.Hour.Add(-time.Hour)} {
		if err := w.Worker(w.Table).Plan(t.Context(), reports.Place{Organization: worldtest.Org, Entitlement: worldtest.OnAWS, Hour: hour}); err != nil {
			t.Fatal(err)
		}
	}
	do(t, operate.Run, request(t, w))
	if got := billed(w); got != "d0=1 d0=2 d0=52" {
		t.Fatalf("the lost table has billed %s", got)
	}

	restoreTo(t, w, items)
	r := request(t, w)
	r.Since = w.Now().Add(-time.Minute)
	text, _ := do(t, operate.Resume, r)
	has(t, text, "hours abandoned 2, failed 0")
	for _, id := range groups {
		if got := w.Status(id); got != "REPORT_FAILED OUTCOME_UNKNOWN" {
			t.Errorf("%s: %s", id, got)
		}
	}
	if h := w.Hour(worldtest.OnAWS, rt.Hour); h == nil || h.Sealed.Records[0].Quantity.String() != "52" {
		t.Errorf("%+v; want the hour that the lost table has sent", h)
	}
	w.Set(closed.Add(3 * time.Hour))
	do(t, operate.Run, request(t, w))
	if got := billed(w); got != "d0=1 d0=2 d0=52" {
		t.Errorf("billed %s", got)
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

// An hour that can't be sealed may have been sent by the workers of the lost table, with a config
// that came after the backup: it does not end as one of which nothing was sent.
func TestResume_OfARestoredTableWithAnHourThatCantBeSealed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{})
	w.Set(closed)
	open := w.Report(worldtest.OnAWS, rt.Hour, "d0 1")
	place := reports.Place{Organization: worldtest.Org, Entitlement: worldtest.OnAWS, Hour: rt.Hour}
	if err := w.Worker(unsealed{w.Table}).Plan(t.Context(), place); err == nil {
		t.Fatal("the worker is not gone")
	}
	w.PutNewerConfig("AWS", `"newer":true`)
	restore(t, w)
	w.Set(rt.Hour.Add(25 * time.Hour))
	r := request(t, w)
	r.Since = closed.Add(-time.Minute)
	text, _ := do(t, operate.Resume, r)
	has(t, text, "hours abandoned 0, failed 1", `member "newer"`, "Nothing is reported")
	if got := w.Status(open); got != "REPORT_PENDING" {
		t.Error(got)
	}
	w.PutConfig(metering.EmptyConfig())
	text, _ = do(t, operate.Resume, r)
	has(t, text, "hours abandoned 1, failed 0")
	if got := w.Status(open); got != "REPORT_FAILED OUTCOME_UNKNOWN" {
		t.Error(got)
	}
}
