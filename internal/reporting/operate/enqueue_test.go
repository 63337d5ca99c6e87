package operate_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/reporting/operate"
	rt "github.com/marketmeter/marketmeter/internal/reporting/reportingtest"
	"github.com/marketmeter/marketmeter/internal/reporting/worldtest"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
	"github.com/marketmeter/marketmeter/sandbox"
)

// Usage that waits for nothing in the backup may have been enqueued and billed after it. The
// restored table can't know, and enqueues it only by the operator's word. When it was stored is not
// in it: an import takes the times of another service, which may be to come.
func TestEnqueue_OnARestoredTableBillsNothingAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{})
	w.Set(closed)
	do(t, operate.Run, request(t, w))
	const used = `,"metaInfo":{"timestamp":"2026-11-18T11:10:00Z"}`
	imported(t, w,
		`"id":"a1","partner":"AWS","entitlementID":"ent-aws","records":{"d0":1}`+used,
		`"id":"a2","partner":"AWS","entitlementID":"ent-aws","records":{"d1":2},"lastUpdateTime":"2027-01-01T00:00:00Z"`+used,
		`"id":"a3","partner":"AZURE","entitlementID":"ent-azure","records":{"d0":4}`+used,
		`"id":"a4","partner":"GCP","entitlementID":"ent-google","records":{"d0":8}`+used)
	items := backup(t, w)
	of := func(e metering.EntitlementID) *operate.Request {
		r := request(t, w)
		r.Entitlement = e
		return r
	}
	for _, e := range []metering.EntitlementID{worldtest.OnAWS, worldtest.OnAzure} {
		do(t, operate.Enqueue, of(e))
	}
	do(t, operate.Run, request(t, w))
	if got := billed(w); got != "d0=1 d0=4 d1=2" {
		t.Fatalf("the lost table has billed %s", got)
	}

	restoreTo(t, w, items)
	for range 2 { // also while it is paused
		if _, err := operate.Enqueue(t.Context(), request(t, w)); metering.CodeOf(err) != metering.Conflict || !strings.Contains(err.Error(), "nothing was enqueued: the table was restored") {
			t.Errorf("before it is resumed: %v", err)
		}
		do(t, operate.Pause, request(t, w))
	}
	r := request(t, w)
	r.Since = closed.Add(-time.Minute)
	text, _ := do(t, operate.Resume, r)
	has(t, text, "hours abandoned 0, failed 0", "in hours from 2026-11-18T14:00:00Z on")
	text, encoded := do(t, operate.Enqueue, request(t, w))
	has(t, text, "enqueued 0, refused 4", `group "a1" is refused: OUTCOME_UNKNOWN: the usage is of 2026-11-18T11:10:00Z, and the table was restored`, "from 2026-11-18T14:00:00Z on", "--not-billed")
	has(t, encoded, `{"enqueued":0,"refused":[{"group":"a1","code":"OUTCOME_UNKNOWN","reason":"`)

	// What is used later is enqueued as ever, and the rest by the operator's word.
	w.Set(closed.Add(2 * time.Hour))
	imported(t, w,
		`"id":"b1","partner":"AWS","entitlementID":"ent-aws","records":{"d2":16},"metaInfo":{"timestamp":"2026-11-18T14:00:00Z"}`,
		`"id":"b2","partner":"AWS","entitlementID":"ent-aws","records":{"d2":32},"metaInfo":{"timestamp":"2026-11-18T13:59:59Z"}`)
	text, _ = do(t, operate.Enqueue, request(t, w))
	has(t, text, "enqueued 1, refused 5", `group "b2"`)
	r = of(worldtest.OnGoogle)
	r.NotBilled = true
	text, _ = do(t, operate.Enqueue, r)
	has(t, text, "enqueued 1, refused 0")
	for hour := range 4 {
		w.Set(closed.Add(time.Duration(3+hour) * time.Hour))
		do(t, operate.Run, request(t, w))
	}
	if got := billed(w); got != "d0=1 d0=4 d0=8 d1=2 d2=16" {
		t.Errorf("billed %s", got)
	}
	for _, id := range []metering.GroupID{"a1", "a2", "a3", "b2"} {
		if got := w.Status(id); got != "CREATED" {
			t.Errorf("%s is %s", id, got)
		}
	}
}

// A group of an older version may have no room left for what its report adds. It is refused by
// itself: the others are reported.
func TestEnqueue_RefusesAGroupThatIsTooLarge(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{})
	imported(t, w,
		`"id":"full","partner":"AWS","entitlementID":"ent-aws","records":{"d0":1}`,
		`"id":"large","partner":"AWS","entitlementID":"ent-aws","records":{"d0":2}`,
		`"id":"small","partner":"AWS","entitlementID":"ent-aws","records":{"d0":4}`)
	text := func(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }
	fill := func(id string, bytes int) error {
		_, err := tabletest.NewClient(http.DefaultTransport).UpdateItem(t.Context(), &dynamodb.UpdateItemInput{
			TableName: &w.TableName, Key: map[string]types.AttributeValue{"PK": text("ORG#" + string(worldtest.Org)), "SK": text("GROUP#" + id)},
			UpdateExpression:          awssdk.String("SET metaInfo.stripeInvoiceID = :long"),
			ExpressionAttributeValues: map[string]types.AttributeValue{":long": text(strings.Repeat("x", bytes))},
		})
		return err
	}
	if err := fill("large", metering.MaxStored); err != nil {
		t.Fatal(err)
	}
	for size := 400 << 10; fill("full", size) != nil; size -= 16 { // the largest that DynamoDB takes
		if size < metering.MaxStored {
			t.Fatal("DynamoDB takes no large group")
		}
	}
	said, encoded := do(t, operate.Enqueue, request(t, w))
	has(t, said, "enqueued 1, refused 2", `group "full" is refused: NOT_STORABLE: the group has 409`, `group "large" is refused: NOT_STORABLE: the group has 401`,
		"it may have at most 401408 (392 KB): delete it, and report its usage in several groups")
	has(t, encoded, `{"group":"full","code":"NOT_STORABLE"`)
	w.Set(rt.Hour.Add(3 * time.Hour))
	do(t, operate.Run, request(t, w))
	if got := w.Status("small"); got != "REPORTED" {
		t.Error(got)
	}
}
