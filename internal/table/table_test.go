package table_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/programtest"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func group(id string, status metering.Status) *metering.Group {
	quantity, _ := metering.ParseQuantity("9007199254740993")
	source := metering.Source("API")
	return &metering.Group{
		ID: id, OrganizationID: "o1", BuyerID: "b1", EntitlementID: "e1", ProductID: "p1", Partner: "AWS", Status: status,
		Records: map[string]metering.Quantity{"cpu": quantity}, SerialID: 7,
		MetaInfo:     metering.MetaInfo{Source: &source, OriginRecords: map[string]metering.Quantity{}},
		CreationTime: now, LastUpdateTime: now,
	}
}

func put(t *testing.T, tbl *table.Table, g *metering.Group) {
	t.Helper()
	if stored, err := tbl.Put(t.Context(), g); err != nil || !stored {
		t.Fatalf("put %s: %v, %v", g.ID, stored, err)
	}
}

// all returns every group of the organization, newest first.
func all(t *testing.T, tbl *table.Table, org string) []metering.Group {
	t.Helper()
	var groups []metering.Group
	for g, err := range tbl.Groups(t.Context(), metering.OrgID(org), metering.GroupFilter{}) {
		if err != nil {
			t.Fatal(err)
		}
		groups = append(groups, *g)
	}
	return groups
}

func wantSame(t *testing.T, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(metering.Quantity{}), cmpopts.EquateComparable(metering.Number{}, metering.Quantity{})); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func wantCode(t *testing.T, err error, want metering.Code) {
	t.Helper()
	if failure, ok := errors.AsType[*metering.Error](err); !ok || failure.Code != want {
		t.Fatalf("got %v, want code %d", err, want)
	}
}

// wantUnavailable wants an error with the time to try again and, for the log, its cause.
func wantUnavailable(t *testing.T, err error) {
	t.Helper()
	wantCode(t, err, metering.Unavailable)
	if failure, _ := errors.AsType[*metering.Error](err); failure.RetryAfter <= 0 || failure.Cause == nil {
		t.Errorf("%+v", failure)
	}
}

func TestPut_IsReadBack(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	amount, _ := metering.ParseNumber("1234567890.1234567890123456789")
	skip, at := true, now.Add(-time.Hour)
	g := group("g1", metering.StatusReported)
	g.ReportedTime, g.UsageRecordReportID = now.Add(time.Minute), "r1"
	g.MetaInfo.SkipValidation, g.MetaInfo.Timestamp = &skip, &at
	g.MetaInfo.BillableRecords = []metering.BillableRecord{
		{Key: "k", Properties: map[string]any{"a": []any{nil, true, "", map[string]any{}}, "n": amount}, Quantity: g.Records["cpu"]},
		{Key: "bare"},
	}
	g.MetaInfo.Carried = map[string]any{"lagoAmount": amount, "stripeInvoiceID": "in_1"}
	put(t, tbl, g)
	plain := group("g0", metering.StatusCreated)
	plain.ProductID = ""
	put(t, tbl, plain)
	wantSame(t, []metering.Group{*g, *plain}, all(t, tbl, "o1"))
}

func TestPut_LeavesAnExistingGroup(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	g := group("g1", metering.StatusReported)
	put(t, tbl, g)
	if stored, err := tbl.Put(t.Context(), group("g1", metering.StatusCreated)); stored || err != nil {
		t.Errorf("%v, %v", stored, err)
	}
	wantSame(t, []metering.Group{*g}, all(t, tbl, "o1"))
}

func TestDelete_KeepsWhatMayNotBeDeleted(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	for _, status := range metering.Statuses {
		g := group("g-"+string(status), status)
		put(t, tbl, g)
		deleted, err := tbl.Delete(t.Context(), "o1", metering.GroupID(g.ID), "", now.Add(time.Hour))
		if status == metering.StatusCreated || status == metering.StatusInvalid {
			want := *g
			want.Status, want.LastUpdateTime = metering.StatusDeleted, now.Add(time.Hour)
			wantSame(t, want, deleted)
			continue
		}
		wantCode(t, err, metering.Conflict)
		if !strings.Contains(err.Error(), string(status)) {
			t.Error(err)
		}
	}
	for _, g := range all(t, tbl, "o1") {
		if g.Status != metering.StatusDeleted && !g.LastUpdateTime.Equal(now) {
			t.Errorf("%s was touched", g.ID)
		}
	}
	_, err := tbl.Delete(t.Context(), "o2", "g-CREATED", "", now)
	wantCode(t, err, metering.NotFound)
}

func TestDelete_GroupIsListedByItsNewStatus(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	put(t, tbl, group("g1", metering.StatusCreated))
	if _, err := tbl.Delete(t.Context(), "o1", "g1", metering.DayOf(now), now); err != nil {
		t.Fatal(err)
	}
	for status, want := range map[metering.Status]int{metering.StatusCreated: 0, metering.StatusDeleted: 1} {
		_, page, _, err := list(t, tbl, "o1", metering.ListRequest{
			Filter: metering.GroupFilter{Status: status}, Limit: 10, MaxSize: 1 << 20, ReadFor: time.Minute,
		})
		if err != nil || page.Count != want {
			t.Errorf("%s: %d, %v", status, page.Count, err)
		}
	}
}

// The write was applied and its response lost: the retry's condition fails because of its own
// write.
func TestWrites_LostResponseIsNoLostWrite(t *testing.T) {
	t.Parallel()
	_, name := tabletest.Client(t)
	faulty := func(faults ...tabletest.Fault) *table.Table {
		client, _ := tabletest.NewFaults(faults...)
		return table.New(client, name)
	}
	for how, fault := range map[string]tabletest.Fault{
		"lost": tabletest.Lose, "cut": tabletest.Cut, "short": tabletest.Short, "flipped": tabletest.Flip, "empty": tabletest.Empty,
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			g := group("g-"+how, metering.StatusCreated)
			if stored, err := faulty(fault).Put(t.Context(), g); err != nil || !stored {
				t.Errorf("put: %v, %v", stored, err)
			}
			deleted, err := faulty(fault).Delete(t.Context(), "o1", metering.GroupID(g.ID), "", now)
			if err != nil || deleted.Status != metering.StatusDeleted {
				t.Errorf("delete: %v, %v", deleted, err)
			}
			if err := faulty(fault).RaiseSerial(t.Context(), metering.OrgID(how), 5); err != nil {
				t.Errorf("counter: %v", err)
			}
			version, written, err := faulty(tabletest.Pass, fault).ChangeConfig(t.Context(), metering.OrgID(how), now, setFlag("AWS"))
			if err != nil || !written || version.Version != 1 {
				t.Errorf("config: %v, %v, %v", version, written, err)
			}
			if how == "flipped" {
				return // DynamoDB Local sends no checksum with its errors
			}
			// If another operation wrote the item, it is still a failed condition.
			if stored, err := faulty(fault).Put(t.Context(), g); err != nil || stored {
				t.Errorf("a second put: %v, %v", stored, err)
			}
			_, err = faulty(fault).Delete(t.Context(), "o1", metering.GroupID(g.ID), "", now)
			wantCode(t, err, metering.Conflict)
		})
	}
}

// The same holds for a put if another client deletes the group before the retry.
func TestPut_LostResponseThenDelete(t *testing.T) {
	t.Parallel()
	others, name := tabletest.Client(t)
	g := group("g1", metering.StatusCreated)
	client, _ := tabletest.NewFaults(func(send func() (*http.Response, error)) (*http.Response, error) {
		_, lost := tabletest.Lose(send)
		if _, err := table.New(others, name).Delete(t.Context(), "o1", metering.GroupID(g.ID), "", now); err != nil {
			t.Error(err)
		}
		return nil, lost
	})
	if stored, err := table.New(client, name).Put(t.Context(), g); err != nil || !stored {
		t.Errorf("%v, %v", stored, err)
	}
}

// full returns a group that leaves butFor bytes of an item free, by the sizes that AWS documents.
// DynamoDB Local follows them to the byte; AWS documents that those of numbers are approximate.
func full(id string, status metering.Status, butFor int) *metering.Group {
	g := group(id, status)
	g.MetaInfo.Carried = map[string]any{"stripeInvoiceID": ""}
	size := len("_op") + 16
	for name, value := range map[string]string{
		"PK": "ORG#o1", "SK": "GROUP#" + id, "_time": metering.FormatTime(now) + "#" + id, "_status": "ORG#o1#STATUS#" + string(status),
		"_buyer": "ORG#o1#BUYER#b1", "_entitlement": "ORG#o1#ENTITLEMENT#e1", "id": id, "organizationID": "o1", "buyerID": "b1",
		"entitlementID": "e1", "productID": "p1", "partner": "AWS", "status": string(status), "usageRecordReportID": "",
		"creationTime": metering.FormatTime(now), "lastUpdateTime": metering.FormatTime(now),
	} {
		size += len(name) + len(value)
	}
	const aMap, member = 3, 1
	size += len("serialID") + 2 // a byte for two digits, and one more
	size += len("records") + aMap + member + len("cpu") + 9
	size += len("metaInfo") + aMap + member + len("source") + len("API") + member + len("originRecords") + aMap + member + len("stripeInvoiceID")
	g.MetaInfo.Carried["stripeInvoiceID"] = strings.Repeat("x", 400*1024-butFor-size)
	return g
}

// putLarger stores a group of more than 392 KB, as tables of earlier versions contain them.
func putLarger(t *testing.T, client *dynamodb.Client, name string, g *metering.Group) {
	t.Helper()
	smaller := *g
	smaller.MetaInfo.Carried = map[string]any{"stripeInvoiceID": ""}
	put(t, table.New(client, name), &smaller)
	_, err := client.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{
		TableName:                 &name,
		Key:                       map[string]types.AttributeValue{"PK": text("ORG#o1"), "SK": text("GROUP#" + g.ID)},
		UpdateExpression:          aws.String("SET metaInfo.stripeInvoiceID = :text"),
		ExpressionAttributeValues: map[string]types.AttributeValue{":text": text(g.MetaInfo.Carried["stripeInvoiceID"].(string))},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A group of any size that can be stored can be deleted, even if the item has no room for the 25
// bytes of the deletion's id, and even if the response is lost.
func TestDelete_FullGroup(t *testing.T) {
	programtest.Long(t)
	t.Parallel()
	client, name := tabletest.Client(t)
	tbl := table.New(client, name)
	for _, status := range metering.Deletable {
		for _, c := range []struct{ room, tries int }{{0, 2}, {1, 2}, {24, 2}, {25, 1}, {26, 1}} {
			for _, lost := range []bool{false, true} {
				id := fmt.Sprint("g-", status, "-", c.room, "-", lost)
				g := full(id, status, c.room)
				putLarger(t, client, name, g)
				var faults []tabletest.Fault
				if lost {
					faults = append(slices.Repeat([]tabletest.Fault{tabletest.Pass}, c.tries-1), tabletest.Lose)
					c.tries++
				}
				faulty, tried := tabletest.NewFaults(faults...)
				deleted, err := table.New(faulty, name).Delete(t.Context(), "o1", metering.GroupID(id), metering.DayOf(now), now.Add(time.Hour))
				if err != nil {
					t.Fatalf("%s: %v", id, err)
				}
				want := *g
				want.Status, want.LastUpdateTime = metering.StatusDeleted, now.Add(time.Hour)
				wantSame(t, want, deleted)
				if tried.Tries() != c.tries {
					t.Errorf("%s: %d requests, want %d", id, tried.Tries(), c.tries)
				}
				_, err = tbl.Delete(t.Context(), "o1", metering.GroupID(id), "", now)
				wantCode(t, err, metering.Conflict)
				if stored, err := tbl.Put(t.Context(), group(id, status)); err != nil || stored {
					t.Errorf("%s: put again: %v, %v", id, stored, err)
				}
			}
		}
	}
	// The condition is checked before the size.
	reported := full("g-reported", metering.StatusReported, 0)
	putLarger(t, client, name, reported)
	_, err := tbl.Delete(t.Context(), "o1", metering.GroupID(reported.ID), "", now)
	wantCode(t, err, metering.Conflict)
}

// A put that is repeated reports the same, even if the group was deleted meanwhile.
func TestPutAs_RepeatedReportsTheSame(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	tbl := table.New(client, name)
	lost, _ := tabletest.NewFaults(slices.Repeat([]tabletest.Fault{tabletest.Lose}, 6)...) // all attempts of the client
	operation, g := table.NewOperation(), group("g1", metering.StatusCreated)
	_, err := table.New(lost, name).PutAs(t.Context(), operation, g)
	wantUnavailable(t, err)
	if _, err := tbl.Delete(t.Context(), "o1", metering.GroupID(g.ID), "", now); err != nil {
		t.Fatal(err)
	}
	if stored, err := tbl.PutAs(t.Context(), operation, g); err != nil || !stored {
		t.Errorf("again: %v, %v", stored, err)
	}
	if stored, err := tbl.Put(t.Context(), g); err != nil || stored {
		t.Errorf("another: %v, %v", stored, err)
	}
	if groups := all(t, tbl, "o1"); len(groups) != 1 || groups[0].Status != metering.StatusDeleted {
		t.Errorf("%v", groups)
	}
}

// setFlag returns a change that adds an entry for the partner.
func setFlag(partner string) metering.ConfigChange {
	return patchOf(metering.ConfigPatch{"partnerUsageMeteringConfigs": []any{map[string]any{"partner": partner}}})
}

func patchOf(patch metering.ConfigPatch) metering.ConfigChange {
	return metering.ConfigChange{Patch: patch}
}

// entries returns the entries of a config.
func entries(c metering.Config) []any { return c["partnerUsageMeteringConfigs"].([]any) }

func TestChangeConfig_EachIsAVersion(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	tbl := table.New(client, name)
	partners := metering.ConfigPartners[:12] // past version 9, to check how digits sort
	for i, partner := range partners {
		v, written, err := tbl.ChangeConfig(t.Context(), "o1", now, setFlag(partner))
		if err != nil || !written || v.Version != i+1 {
			t.Fatalf("%v, %v, %v", v, written, err)
		}
	}
	again, written, err := tbl.ChangeConfig(t.Context(), "o1", now, setFlag(partners[0]))
	if err != nil || written || again.Version != len(partners) {
		t.Errorf("a change that changes nothing: %d, %v, %v", again.Version, written, err)
	}
	current, err := tbl.Config(t.Context(), "o1")
	if err != nil || current.Version != len(partners) || len(entries(current.Config)) != len(partners) {
		t.Errorf("%v, %v", current, err)
	}
	if other, err := tbl.Config(t.Context(), "o"); err != nil || other.Version != 0 {
		t.Errorf("%v, %v", other, err)
	}
	items, err := client.Query(t.Context(), &dynamodb.QueryInput{
		TableName: &name, KeyConditionExpression: ptr("PK = :pk"),
		ExpressionAttributeValues: map[string]types.AttributeValue{":pk": &types.AttributeValueMemberS{Value: "ORG#o1"}},
	})
	if err != nil || len(items.Items) != len(partners) {
		t.Errorf("%d versions are kept, %v", len(items.Items), err)
	}
}

func ptr[T any](v T) *T { return &v }

func TestChangeConfig_FiftyWritersLoseNothing(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	var writers sync.WaitGroup
	for i := range 50 {
		writers.Go(func() {
			array := []any{map[string]any{"dimensionKey": "d", "convertionMultiplier": metering.Numeral("2")}}
			entry := map[string]any{"partner": "AWS", "dimensionMappingV2": map[string]any{fmt.Sprintf("source %d", i): array}}
			_, _, err := tbl.ChangeConfig(t.Context(), "o1", now, patchOf(metering.ConfigPatch{"partnerUsageMeteringConfigs": []any{entry}}))
			if err != nil {
				t.Error(err)
			}
		})
	}
	writers.Wait()
	current, err := tbl.Config(t.Context(), "o1")
	if err != nil || current.Version != 50 {
		t.Fatalf("version %d, %v", current.Version, err)
	}
	if mapped := entries(current.Config)[0].(map[string]any)["dimensionMappingV2"].(map[string]any); len(mapped) != 50 {
		t.Errorf("%d mappings", len(mapped))
	}
}

// deadline is a context whose deadline passes when the channel is closed.
type deadline struct {
	context.Context
	passed chan struct{}
}

func (d deadline) Done() <-chan struct{} { return d.passed }

func (d deadline) Err() error {
	select {
	case <-d.passed:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// Another writer is first each time: the change ends at its deadline, and has written nothing.
func TestChangeConfig_ContendedIsUnavailableAtTheDeadline(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	tbl, others := table.New(client, name), 0
	ctx := deadline{t.Context(), make(chan struct{})}
	contended := table.New(tabletest.NewClient(tabletest.Planned(func(_ int, request *http.Request) tabletest.Fault {
		if !strings.HasSuffix(request.Header.Get("X-Amz-Target"), ".PutItem") {
			return nil
		}
		first := setFlag(metering.ConfigPartners[others%2]) // alternating, so that each is a change
		first.Replace = true
		if _, _, err := tbl.ChangeConfig(t.Context(), "o1", now, first); err != nil {
			t.Error(err)
		}
		if others++; others == 3 {
			close(ctx.passed)
		}
		return nil
	})), name)
	_, _, err := contended.ChangeConfig(ctx, "o1", now, setFlag("ZOHO"))
	wantUnavailable(t, err)
	current, err := tbl.Config(t.Context(), "o1")
	if err != nil || current.Version != others || entries(current.Config)[0].(map[string]any)["partner"] == "ZOHO" {
		t.Errorf("version %d after %d others, %v", current.Version, others, err)
	}
}

func TestChangeConfig_TooLargeIsRefused(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	fill := func(n int) metering.ConfigChange {
		values := map[string]any{}
		for i := range n {
			values[fmt.Sprintf("%0250d", i)] = map[string]any{"dimensionKey": "d", "mappingMode": "AMOUNT"}
		}
		return patchOf(metering.ConfigPatch{"partnerUsageMeteringConfigs": []any{map[string]any{"partner": "AWS", "dimensionMapping": values}}})
	}
	_, _, err := tbl.ChangeConfig(t.Context(), "o1", now, fill(1400))
	wantCode(t, err, metering.Invalid)
	if _, _, err := tbl.ChangeConfig(t.Context(), "o1", now, fill(1350)); err != nil {
		t.Errorf("just under the bound: %v", err)
	}
	if v, err := tbl.Config(t.Context(), "o1"); err != nil || v.Version != 1 {
		t.Errorf("%d, %v", v.Version, err)
	}
}

func TestSerial_OnlyGrows(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	for _, step := range []struct{ raise, want int32 }{{5, 5}, {3, 5}, {5, 5}, {1 << 30, 1 << 30}} {
		if err := tbl.RaiseSerial(t.Context(), "o1", step.raise); err != nil {
			t.Fatal(err)
		}
		if n, err := tbl.Serial(t.Context(), "o1"); err != nil || n != step.want {
			t.Errorf("after %d: %d, %v", step.raise, n, err)
		}
	}
	if n, err := tbl.Serial(t.Context(), "o2"); err != nil || n != 0 {
		t.Errorf("%d, %v", n, err)
	}
}

func TestTable_OutOfReachIsUnavailable(t *testing.T) {
	t.Parallel()
	_, name := tabletest.Client(t)
	client, _ := tabletest.NewFaults(slices.Repeat([]tabletest.Fault{tabletest.Drop}, 100)...)
	gone := table.New(client, name)
	ended, cancel := context.WithDeadline(t.Context(), now)
	defer cancel()
	live, _ := tabletest.Client(t)
	for what, call := range map[string]func() error{
		"ping":   func() error { return gone.Ping(t.Context()) },
		"delete": func() error { _, err := gone.Delete(t.Context(), "o1", "g", "", now); return err },
		"config": func() error { _, err := gone.Config(t.Context(), "o1"); return err },
		"reports": func() error {
			_, err := gone.Reports(t.Context(), "o1", listRequest(metering.GroupFilter{}), nil, new(listOf).read)
			return err
		},
		"daily records": func() error {
			_, err := gone.DailyRecords(t.Context(), "o1", "AWS", listRequest(metering.GroupFilter{}), nil, new(listOf).read)
			return err
		},
		"report": func() error { return gone.PutReport(t.Context(), reportedHour(t, "e1", 5), nil) },
		"day": func() error {
			h := reportedHour(t, "e1", 5, "cpu 1")
			return gone.WriteDaily(t.Context(), &reports.Step{Before: h, After: decided(h, reports.Accepted)}, func() {})
		},
		"expired": func() error { _, err := table.New(live, name).Config(ended, "o1"); return err },
		"throttled": func() error {
			throttled := saying(`{"__type":"com.amazonaws.dynamodb.v20120810#ThrottlingException","message":"slow down"}`)
			client, _ := tabletest.NewFaults(slices.Repeat([]tabletest.Fault{throttled}, 6)...)
			return table.New(client, name).Ping(t.Context())
		},
		"in conflict": func() error { // DynamoDB Local never responds so
			client, _ := tabletest.NewFaults(slices.Repeat([]tabletest.Fault{conflict}, 6)...)
			return table.New(client, name).RotateAPIKey(t.Context(), newKey("o1").Hash, now, newKey("o1"))
		},
		"at it already": func() error { // with an earlier attempt whose response was lost
			underWay := saying(`{"__type":"com.amazonaws.dynamodb.v20120810#TransactionInProgressException","message":"under way"}`)
			client, _ := tabletest.NewFaults(slices.Repeat([]tabletest.Fault{underWay}, 6)...)
			return table.New(client, name).AddAPIKey(t.Context(), newKey("o1"))
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			wantUnavailable(t, call())
		})
	}
	missing := table.New(live, "no-such-table")
	wantCode(t, missing.Ping(t.Context()), metering.Internal)
}

// conflict is AWS's response to a transaction that conflicts with another. DynamoDB Local has none.
var conflict = saying(`{"__type":"com.amazonaws.dynamodb.v20120810#TransactionCanceledException",` +
	`"CancellationReasons":[{"Code":"None"},{"Code":"None"},{"Code":"TransactionConflict"}],"message":"cancelled"}`)

// saying makes DynamoDB respond with an error and do nothing.
func saying(body string) tabletest.Fault {
	return func(func() (*http.Response, error)) (*http.Response, error) {
		return &http.Response{
			StatusCode: 400, Header: http.Header{"Content-Type": {"application/x-amz-json-1.0"}},
			Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
		}, nil
	}
}

// Members that a newer version stored neither reach a client nor break the list.
func TestList_PassesOverMembersOfANewerVersion(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	tbl := table.New(client, name)
	g := group("g1", metering.StatusCreated)
	put(t, tbl, g)
	_, err := client.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{
		TableName:        &name,
		Key:              map[string]types.AttributeValue{"PK": &types.AttributeValueMemberS{Value: "ORG#o1"}, "SK": &types.AttributeValueMemberS{Value: "GROUP#g1"}},
		UpdateExpression: ptr("SET metaInfo.newer = :v, newest = :v"),
		ExpressionAttributeValues: map[string]types.AttributeValue{
			":v": &types.AttributeValueMemberS{Value: "x"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if groups, page, _, err := list(t, tbl, "o1", listing(now, 10)); err != nil || page.Count != 1 || strings.Contains(groups, "newe") {
		t.Errorf("%s, %v", groups, err)
	}
	g.Unknown, g.MetaInfo.Unknown = map[string]any{"newest": "x"}, map[string]any{"newer": "x"} // for an export alone
	wantSame(t, []metering.Group{*g}, all(t, tbl, "o1"))
}
