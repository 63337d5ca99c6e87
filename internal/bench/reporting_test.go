package bench

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"golang.org/x/sync/errgroup"

	"github.com/marketmeter/marketmeter/internal/bench/figure"
	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// BenchmarkPlanAndApply measures how long the groups of one hour take to become members of it, and
// to get their statuses, beside the two conditional updates of each by the client alone, as many at
// once. What is sent between the two is not measured.
func BenchmarkPlanAndApply(b *testing.B) {
	const groups = 10 * thousand
	hour := newClosedHours(b, 1, groups)
	keys := hour.groups(0)
	if len(keys) != groups {
		b.Fatalf("%d groups", len(keys))
	}
	var read, write float64
	ours := func() (ms float64) {
		hour.use(b, func() {
			worker, queue := hour.worker()
			ctx, consumed := table.CountUnits(b.Context())
			plan := figure.Milliseconds(func() {
				if err := worker.Plan(ctx, placeOf(0)); err != nil {
					b.Fatal(err)
				}
			})
			ms = plan()
			for _, hint := range queue.take() {
				if err := worker.Submit(ctx, hint.Lane); err != nil {
					b.Fatal(err)
				}
			}
			ms += plan()
			read, write = consumed()
			hour.wantReported(b, groups)
		})
		return ms
	}
	bare := func() (ms float64) {
		hour.use(b, func() {
			ms = figure.Milliseconds(func() {
				hour.update(b, keys, claimOf)
				hour.update(b, keys, applyOf)
			})()
			hour.wantReported(b, groups)
		})
		return ms
	}
	m := figure.InTurns(figure.Rounds(b, 3), ours, bare)
	b.Logf("medians: planning and applying %.0f ms, bare updates %.0f ms", m.Median(0), m.Median(1))
	figure.Print("plan-and-apply-vs-updates", m.Ratio(0, 1), "times", "<= 1.5")
	printUnits("plan-and-apply", read, write, groups)
}

// wantReported ends b unless so many groups are REPORTED.
func (c *closedHour) wantReported(b *testing.B, groups int) {
	b.Helper()
	n, pages := 0, dynamodb.NewQueryPaginator(c.client, &dynamodb.QueryInput{
		TableName: &c.name, IndexName: aws.String("byStatus"), KeyConditionExpression: aws.String("#status = :reported"), Select: types.SelectCount,
		Limit:                     aws.Int32(10 * thousand), // without, DynamoDB Local reads all into its heap
		ExpressionAttributeNames:  map[string]string{"#status": "_status"},
		ExpressionAttributeValues: map[string]types.AttributeValue{":reported": stringValue("ORG#bench#STATUS#REPORTED")},
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		n += int(page.Count)
	}
	if n != groups {
		b.Fatalf("%d of %d groups are REPORTED", n, groups)
	}
}

func stringValue(text string) types.AttributeValue { return &types.AttributeValueMemberS{Value: text} }

// update makes an update of each group.
func (c *closedHour) update(b *testing.B, keys []map[string]types.AttributeValue, of func(key map[string]types.AttributeValue) *dynamodb.UpdateItemInput) {
	b.Helper()
	var updates errgroup.Group
	updates.SetLimit(groupsAtOnce)
	for _, key := range keys {
		updates.Go(func() error {
			input := of(key)
			input.TableName, input.Key = &c.name, key
			_, err := c.client.UpdateItem(b.Context(), input)
			return err
		})
	}
	if err := updates.Wait(); err != nil {
		b.Fatal(err)
	}
}

var names = map[string]string{
	"#s": "status", "#i": "_status", "#u": "lastUpdateTime", "#p": "problems", "#w": "_work", "#d": "_due", "#h": "_hour", "#a": "_applied",
}

// claimOf makes a group a member of the hour and returns it, since its usage is added up.
func claimOf(key map[string]types.AttributeValue) *dynamodb.UpdateItemInput {
	id := strings.TrimPrefix(key["SK"].(*types.AttributeValueMemberS).Value, "GROUP#")
	return &dynamodb.UpdateItemInput{
		UpdateExpression:         aws.String("SET #s = :s, #i = :i, #u = :u, #h = :h REMOVE #p, #w, #d, #a"),
		ConditionExpression:      aws.String("#s = :c AND #d = :d"),
		ExpressionAttributeNames: names,
		ExpressionAttributeValues: map[string]types.AttributeValue{
			":s": stringValue("REPORT_PENDING"), ":i": stringValue("ORG#bench#STATUS#REPORT_PENDING"), ":u": stringValue("2026-11-18T13:05:00.000Z"),
			":h": stringValue("2026-11-18T11"), ":c": stringValue("CREATED"), ":d": stringValue("2026-11-18T11#bench#ent-00000#" + id),
		},
		ReturnValues: types.ReturnValueAllNew, ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
	}
}

// applyOf makes a member of the hour REPORTED.
func applyOf(map[string]types.AttributeValue) *dynamodb.UpdateItemInput {
	return &dynamodb.UpdateItemInput{
		UpdateExpression:    aws.String("SET #s = :s, #i = :i, #u = :u, #a = :a, #r = :r, #t = :u REMOVE #p, #w, #d, #o"),
		ConditionExpression: aws.String("#s = :c AND #h = :h"),
		ExpressionAttributeNames: map[string]string{
			"#s": "status", "#i": "_status", "#u": "lastUpdateTime", "#p": "problems", "#w": "_work", "#d": "_due", "#h": "_hour", "#a": "_applied",
			"#r": "usageRecordReportID", "#t": "reportedTime", "#o": "_outcomes",
		},
		ExpressionAttributeValues: map[string]types.AttributeValue{
			":s": stringValue("REPORTED"), ":i": stringValue("ORG#bench#STATUS#REPORTED"), ":u": stringValue("2026-11-18T13:05:00.000Z"),
			":a": &types.AttributeValueMemberN{Value: "4"}, ":r": stringValue("5e0f1d0c-3b5c-5c8f-9c53-1f2f6d0a7c11"),
			":h": stringValue("2026-11-18T11"), ":c": stringValue("REPORT_PENDING"),
		},
	}
}

// BenchmarkSettle measures how long 1,000 entitlements with 10 groups each take from the closed
// hour until everything is settled, beside the same requests to DynamoDB and to the marketplace by
// the clients alone, as many at once. It counts the requests and the units, and the records in each
// call.
func BenchmarkSettle(b *testing.B) {
	const entitlements, groups = thousand, 10
	hour := newClosedHours(b, entitlements, groups)
	var rounds [][]*trace
	var read, write float64
	ours := func() (ms float64) {
		hour.use(b, func() {
			worker, queue := hour.worker()
			ctx, consumed := table.CountUnits(b.Context())
			ms = figure.Milliseconds(func() {
				var err error
				if rounds, err = settle(ctx, worker, queue); err != nil {
					b.Fatal(err)
				}
			})()
			read, write = consumed()
			hour.wantReported(b, entitlements*groups)
		})
		return ms
	}
	bare := func() (ms float64) {
		hour.use(b, func() {
			ms = figure.Milliseconds(func() {
				if err := hour.resend(b.Context(), rounds); err != nil {
					b.Fatal(err)
				}
			})()
			hour.wantReported(b, entitlements*groups)
		})
		return ms
	}
	ours() // the bare requests of the first round are those of this one
	m := figure.InTurns(figure.Rounds(b, 3), ours, bare)
	b.Logf("medians: settling %.0f ms, bare requests %.0f ms", m.Median(0), m.Median(1))
	figure.Print("settle-vs-bare", m.Ratio(0, 1), "times", "<= 1.5")

	requests, calls := count(rounds)
	total := 0.0
	for _, kind := range slices.Sorted(maps.Keys(requests)) {
		b.Logf("%s: %.2f requests for each hour", kind, requests[kind]/entitlements)
		total += requests[kind] / entitlements
	}
	figure.Print("settle-requests", total, fmt.Sprintf("for each hour of %d groups", groups), "none")
	figure.Print("records-per-call", float64(entitlements)/float64(calls), "records", ">= 20")
	for r := range requestsOf(rounds) {
		if step, ok := r.(*dynamodb.TransactWriteItemsInput); ok {
			write += unitsInAWS(step) - unitsHere
		}
	}
	printUnits("settle", read, write, entitlements*groups)
}

// count counts requests by their kind, and those to the marketplace.
func count(rounds [][]*trace) (requests map[string]float64, calls int) {
	requests = map[string]float64{}
	for r := range requestsOf(rounds) {
		kind := strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%T", r), "*dynamodb."), "Input")
		if _, call := r.(*marketCall); call {
			kind = "marketplace"
			calls++
		}
		requests[kind]++
	}
	return requests, calls
}

// requestsOf are the requests of all traces.
func requestsOf(rounds [][]*trace) iter.Seq[any] {
	return func(yield func(any) bool) {
		for _, traces := range rounds {
			for _, t := range traces {
				for _, r := range slices.Concat(t.batches...) {
					if !yield(r) {
						return
					}
				}
			}
		}
	}
}

// Prices of DynamoDB on demand in us-east-1, in dollars for a million units. docs/performance.md
// has their source.
const (
	readPrice  = 0.125
	writePrice = 0.625
)

// printUnits prints what DynamoDB has consumed for each group, and what a million groups cost.
func printUnits(name string, read, write float64, groups int) {
	read, write = read/float64(groups), write/float64(groups)
	figure.Print(name+"-read-units", read, "for each group", "none")
	figure.Print(name+"-write-units", write, "for each group", "none")
	figure.Print(name+"-cost", read*readPrice+write*writePrice, "dollars for a million groups", "none")
}

// unitsHere is what DynamoDB Local says that a transaction consumes, whatever it writes.
const unitsHere = 2

// unitsInAWS is what a transaction consumes in AWS: 2 write units for each KB of an item. The first
// is the hour, which has less than 1 KB and changes its entry in byWork.
func unitsInAWS(step *dynamodb.TransactWriteItemsInput) (units float64) {
	const hour, moved = 2, 2
	units = hour + moved
	for _, item := range step.TransactItems[1:] {
		units += 2 * float64((sizeOf(item.Put.Item)+1023)/1024)
	}
	return units
}

// sizeOf is about the size of an item of texts and small numbers.
func sizeOf(item map[string]types.AttributeValue) (size int) {
	for name, value := range item {
		size += len(name)
		switch v := value.(type) {
		case *types.AttributeValueMemberS:
			size += len(v.Value)
		case *types.AttributeValueMemberN:
			size += len(v.Value)/2 + 1
		}
	}
	return size
}

// BenchmarkReportWhileHourCloses measures how long a report takes while an hour of many groups
// closes, beside one otherwise. It does so here, when both share the processors with DynamoDB
// Local, and at a distance as between a function and DynamoDB in AWS. As a comparison it measures
// the report beside a client alone that puts groups, one after the other.
func BenchmarkReportWhileHourCloses(b *testing.B) {
	near, rounds, pause := 100*thousand, figure.Rounds(b, 3), 0
	if os.Getenv("LONG") != "" {
		// Without pauses it takes hours: reports and workers share the processors.
		near, pause = 1000*thousand, 9
	}
	for _, c := range []struct {
		name     string
		groups   int
		distance time.Duration
		pause    int
		rounds   int
	}{
		{"report-while-%d-close", near, 0, pause, 1}, // a round has tens of thousands of reports
		{"report-while-%d-close-far", 10 * thousand, 4 * time.Millisecond, 0, rounds},
	} {
		var closing, bare []float64
		for range c.rounds {
			hour := newClosedHour(b, 1, c.groups)
			hour.client = tabletest.NewClient(distant{c.distance})
			while, beside := hour.slowdown(b, c.pause)
			closing, bare = append(closing, while), append(bare, beside)
			hour.wantReported(b, c.groups)
		}
		figure.Print(fmt.Sprintf(c.name, c.groups), figure.Median(closing), "times", fmt.Sprintf("<= 1.5; beside one bare client: %.2f", figure.Median(bare)))
	}
}

// distant is DynamoDB Local at a distance: each request takes longer by that time.
type distant struct{ time.Duration }

// RoundTrip implements http.RoundTripper.
func (d distant) RoundTrip(r *http.Request) (*http.Response, error) {
	time.Sleep(d.Duration)
	return dynamoDB.RoundTrip(r)
}

// slowdown returns how much longer a report takes while the hour closes, and beside a bare client.
// While the hour closes it pauses after each 20 reports, for that many times as long as they took.
func (c *closedHour) slowdown(b *testing.B, pause int) (closing, bare float64) {
	b.Helper()
	api := &httpapi.API{
		Table: table.New(c.client, c.name), Log: slog.New(slog.DiscardHandler), Now: time.Now, CountUnits: table.CountUnits, Authenticate: anyone,
	}
	handler := api.Handler("report")
	report := figure.Milliseconds(func() {
		r := httptest.NewRequest(http.MethodPost, "/org/bench/entitlement/ent-00000/usageRecordGroup",
			strings.NewReader(`{"records":{"d0":1.25},"metaInfo":{"source":"API"}}`))
		if got := answer(b, handler, r); !bytes.Contains(got, []byte(`"CREATED"`)) {
			b.Fatalf("%.1000s", got)
		}
	})
	const some = 500
	reports := func(n int) (took []float64) {
		for range n {
			took = append(took, report())
		}
		return took
	}
	// beside returns how long reports take until the work is done.
	beside := func(pause int, work func(ctx context.Context) error) (took []float64) {
		var working errgroup.Group
		var done atomic.Bool
		working.Go(func() error {
			defer done.Store(true)
			return work(b.Context())
		})
		for !done.Load() {
			began := time.Now()
			took = append(took, reports(20)...)
			time.Sleep(time.Duration(pause) * time.Since(began))
		}
		if err := working.Wait(); err != nil {
			b.Fatal(err)
		}
		return took
	}
	otherwise := reports(some)
	putting := beside(0, func(ctx context.Context) error {
		found, err := c.client.Query(ctx, &dynamodb.QueryInput{
			TableName: &c.name, KeyConditionExpression: aws.String("PK = :org AND begins_with(SK, :groups)"), Limit: aws.Int32(1),
			ExpressionAttributeValues: map[string]types.AttributeValue{":org": stringValue("ORG#bench"), ":groups": stringValue("GROUP#")},
		})
		if err != nil {
			return err
		}
		group := found.Items[0]
		delete(group, "_work") // it waits for nothing
		delete(group, "_due")
		for i := range 2 * some {
			group["SK"] = stringValue(fmt.Sprintf("GROUP#bare%032d", i))
			if _, err := c.client.PutItem(ctx, &dynamodb.PutItemInput{TableName: &c.name, Item: group, ConditionExpression: aws.String("attribute_not_exists(PK)")}); err != nil {
				return err
			}
		}
		return nil
	})
	settling := beside(pause, func(ctx context.Context) error {
		worker, queue := c.worker()
		_, err := settle(ctx, worker, queue)
		return err
	})
	otherwise = append(otherwise, reports(some)...)
	usual := figure.Median(otherwise)
	b.Logf("medians: otherwise %.2f ms, beside a bare client %.2f ms, while the hour closes %.2f ms, of %d reports",
		usual, figure.Median(putting), figure.Median(settling), len(settling))
	return figure.Median(settling) / usual, figure.Median(putting) / usual
}
