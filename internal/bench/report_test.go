package bench

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
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

// reporter is the API over DynamoDB Local, with entitlements to report usage for.
type reporter struct {
	client *dynamodb.Client
	name   string
	api    *httpapi.API
	bare   int // items that were put by the client alone
}

func newReporter(b *testing.B, entitlements int) *reporter {
	b.Helper()
	client, name := tabletest.Client(b)
	stored := table.New(client, name)
	for i := range entitlements {
		putEntitlement(b, stored, "bench", fmt.Sprintf("ent-%05d", i), 50)
	}
	return &reporter{client: client, name: name, api: &httpapi.API{
		Table: stored, Log: slog.New(slog.NewJSONHandler(io.Discard, nil)), Now: time.Now, CountUnits: table.CountUnits, Authenticate: anyone,
	}}
}

// post sends a request to the operation of a function.
func (r *reporter) post(b *testing.B, handler http.Handler, path string, body []byte) {
	b.Helper()
	if got := answer(b, handler, httptest.NewRequest(http.MethodPost, "/org/bench/"+path, bytes.NewReader(body))); !bytes.Contains(got, []byte(`"CREATED"`)) || bytes.Contains(got, []byte(`"INVALID"`)) {
		b.Fatalf("%.1000s", got)
	}
}

// items are the items of the reported groups.
func (r *reporter) items(b *testing.B) (items []map[string]types.AttributeValue) {
	b.Helper()
	pages := dynamodb.NewQueryPaginator(r.client, &dynamodb.QueryInput{
		TableName: &r.name, KeyConditionExpression: aws.String("PK = :org AND begins_with(SK, :groups)"),
		ExpressionAttributeValues: map[string]types.AttributeValue{
			":org": &types.AttributeValueMemberS{Value: "ORG#bench"}, ":groups": &types.AttributeValueMemberS{Value: "GROUP#"},
		},
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		items = append(items, page.Items...)
	}
	return items
}

// renamed is the item under a key that does not exist, which is as long.
func (r *reporter) renamed(item map[string]types.AttributeValue) map[string]types.AttributeValue {
	r.bare++
	item = maps.Clone(item)
	item["SK"] = &types.AttributeValueMemberS{Value: fmt.Sprintf("GROUP#bare%032d", r.bare)}
	return item
}

// put puts an item as a report does, by the client alone.
func (r *reporter) put(b *testing.B, item map[string]types.AttributeValue) error {
	_, err := r.client.PutItem(b.Context(), &dynamodb.PutItemInput{
		TableName: &r.name, Item: item, ConditionExpression: aws.String("attribute_not_exists(PK)"),
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
		ReturnConsumedCapacity:              types.ReturnConsumedCapacityTotal,
	})
	return err
}

// BenchmarkReport measures one warm report, from the HTTP request to the response, on DynamoDB
// Local, beside the same conditional put by the same client alone. Each round's value is the median
// of several, so that the update of the serial counter, one in up to 512 reports, does not count.
func BenchmarkReport(b *testing.B) {
	r := newReporter(b, 1)
	handler := r.api.Handler("report")
	report := func() {
		r.post(b, handler, "entitlement/ent-00000/usageRecordGroup",
			[]byte(`{"records":{"dimension_02":1.25,"dimension_19":7,"dimension_40":123456789},"metaInfo":{"source":"API"}}`))
	}
	for range 20 {
		report()
	}
	item := r.items(b)[0]
	put := func() {
		if err := r.put(b, r.renamed(item)); err != nil {
			b.Fatal(err)
		}
	}
	const several = 15
	m := figure.InTurns(figure.Rounds(b, 31), medianOf(several, report), medianOf(several, put))
	b.Logf("medians: report %.2f ms, put %.2f ms", m.Median(0), m.Median(1))
	figure.Print("report-vs-put", m.Ratio(0, 1), "times", "<= 1.3")
}

// medianOf measures how long the work usually takes.
func medianOf(several int, work func()) func() float64 {
	once := figure.Milliseconds(work)
	return func() float64 {
		values := make([]float64, several)
		for i := range values {
			values[i] = once()
		}
		return figure.Median(values)
	}
}

// BenchmarkBatchCreate measures batch create of 1,000 groups of 100 entitlements, from the HTTP
// request to the response, on DynamoDB Local, beside the same conditional puts by the same client
// alone, as many at once.
func BenchmarkBatchCreate(b *testing.B) {
	const entitlements, atOnce = 100, 32 // as table.Report
	r := newReporter(b, entitlements)
	handler := r.api.Handler("batchcreate")
	body := batchOf(thousand, entitlements)
	create := func() { r.post(b, handler, "batchCreateUsageRecordGroups", body) }
	create()
	items := r.items(b)
	if len(items) != thousand {
		b.Fatalf("%d items", len(items))
	}
	put := func() {
		var puts errgroup.Group
		puts.SetLimit(atOnce)
		for _, item := range items {
			item = r.renamed(item)
			puts.Go(func() error { return r.put(b, item) })
		}
		if err := puts.Wait(); err != nil {
			b.Fatal(err)
		}
	}
	m := figure.InTurns(figure.Rounds(b, 7), figure.Milliseconds(create), figure.Milliseconds(put))
	b.Logf("medians: batch create %.0f ms, puts %.0f ms", m.Median(0), m.Median(1))
	figure.Print("batch-vs-puts", m.Ratio(0, 1), "times", "<= 1.5")
}
