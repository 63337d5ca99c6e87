package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/bench/figure"
	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// BenchmarkPaging measures the cost of a page far into a list: if a client has reached it page by
// page, and if it has not and nothing is known of the groups before. The figures are counts, the
// same each time.
func BenchmarkPaging(b *testing.B) {
	const groups, far = 20 * thousand, 19 * thousand
	store := newStore(b)
	org := store.organization(b, groups)
	asked := &counter{}
	var read float64
	api := &httpapi.API{
		Table: table.New(tabletest.NewClient(asked), store.name), Log: slog.New(slog.DiscardHandler), Now: time.Now, Authenticate: anyone,
		CountUnits: func(ctx context.Context) (context.Context, func() (float64, float64)) {
			ctx, consumed := table.CountUnits(ctx)
			return ctx, func() (float64, float64) {
				r, w := consumed()
				read = r
				return r, w
			}
		},
	}
	handler := api.Handler("list")

	// Before any page is requested: no checkpoint exists.
	asked.reset()
	if n := len(readPage(b, answer(b, handler, listRequest(org, far, thousand))).UsageRecordGroups); n != thousand {
		b.Fatalf("%d groups", n)
	}
	// The page itself is the Query that returns its items. The read of its checkpoint is not part
	// of the walk.
	b.Logf("offset %d: %v", far, asked.requests)
	figure.Print("cold-offset", float64(asked.walked()), "round trips", fmt.Sprintf("<= %d", store.bareWalk(b, org, far)))
	figure.Print("cold-offset-items", float64(asked.items()-thousand), "items", "0")

	offset, first := 0, 0.0
	for {
		p := readPage(b, answer(b, handler, listRequest(org, offset, thousand)))
		if offset == 0 {
			first = read
		}
		if offset == far {
			b.Logf("read units: offset 0 %.1f, offset %d %.1f", first, offset, read)
			figure.Print("page-cost", read/first, "times", "<= 1.1")
			return
		}
		if p.NextOffset <= offset {
			b.Fatalf("after offset %d comes %d", offset, p.NextOffset)
		}
		offset = p.NextOffset
	}
}

// counter is a transport that records the Queries that it sends, and their results.
type counter struct {
	mu       sync.Mutex
	requests []query
}

// query is a Query by its index, empty for the table itself, and the number of items in its
// response.
type query struct {
	index string
	items int
}

func (c *counter) reset() { c.requests = nil }

// walked are the round trips to the index, except for the last, which is the page.
func (c *counter) walked() (n int) {
	for _, q := range c.requests {
		if q.index != "" {
			n++
		}
	}
	return n - 1
}

func (c *counter) items() (n int) {
	for _, q := range c.requests {
		n += q.items
	}
	return n
}

func (c *counter) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.Header.Get("X-Amz-Target") != "DynamoDB_20120810.Query" {
		return dynamoDB.RoundTrip(request)
	}
	sent, err := io.ReadAll(request.Body)
	if err != nil {
		return nil, err
	}
	request = request.Clone(request.Context())
	request.Body = io.NopCloser(bytes.NewReader(sent))
	response, err := dynamoDB.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	got, err := io.ReadAll(response.Body)
	response.Body.Close()
	response.Body = io.NopCloser(bytes.NewReader(got))
	if err != nil {
		return nil, err
	}
	var asked struct{ IndexName string }
	var answered struct{ Items []json.RawMessage }
	if err := json.Unmarshal(sent, &asked); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(got, &answered); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests = append(c.requests, query{asked.IndexName, len(answered.Items)})
	return response, nil
}

// bareWalk is the number of round trips to count that many groups, newest first: DynamoDB reads 1
// MB in each.
func (s *store) bareWalk(tb testing.TB, org string, groups int) (trips int) {
	tb.Helper()
	input := &dynamodb.QueryInput{
		TableName: &s.name, IndexName: aws.String("byTime"), KeyConditionExpression: aws.String("PK = :org"), Select: types.SelectCount,
		ExpressionAttributeValues: map[string]types.AttributeValue{":org": &types.AttributeValueMemberS{Value: "ORG#" + org}},
		ScanIndexForward:          aws.Bool(false),
	}
	for groups > 0 {
		input.Limit = aws.Int32(int32(groups))
		page, err := s.client.Query(tb.Context(), input)
		if err != nil {
			tb.Fatal(err)
		}
		trips++
		groups -= int(page.Count)
		input.ExclusiveStartKey = page.LastEvaluatedKey
	}
	return trips
}

// BenchmarkGrowth measures whether a page of 100 groups takes longer if the organization has more
// groups. It measures the first page, and a page in the middle of the list that a client has
// reached page by page. It also measures how much longer DynamoDB Local itself takes, with the same
// groups read by the SDK alone.
func BenchmarkGrowth(b *testing.B) {
	const limit = 100
	sizes := []int{thousand, 10 * thousand, 50 * thousand}
	if os.Getenv("LONG") != "" {
		sizes = append(sizes, 200*thousand)
	}
	store := newStore(b)
	handler := listHandler(store.name, dynamoDB)
	const sidesOfSize, first, middle, bareFirst, bareMiddle = 4, 0, 1, 2, 3
	var sides []func() float64
	for _, size := range sizes {
		org := store.organization(b, size)
		var last map[string]any // of the groups before the middle
		for offset := 0; offset < size/2; {
			p := readPage(b, answer(b, handler, listRequest(org, offset, min(thousand, size/2-offset))))
			if p.NextOffset <= offset {
				b.Fatalf("after offset %d of %d comes %d", offset, size, p.NextOffset)
			}
			offset, last = p.NextOffset, p.UsageRecordGroups[len(p.UsageRecordGroups)-1]
		}
		sides = append(sides,
			figure.Milliseconds(func() { answer(b, handler, listRequest(org, 0, limit)) }),
			figure.Milliseconds(func() { answer(b, handler, listRequest(org, size/2, limit)) }),
			figure.Milliseconds(func() { store.bareQuery(b, org, nil, limit+1) }),
			figure.Milliseconds(func() { store.bareQuery(b, org, last, limit+1) }),
		)
	}
	m := figure.InTurns(figure.Rounds(b, 101), sides...)
	for i, size := range sizes {
		side := i * sidesOfSize
		b.Logf("medians, %d groups: first page %.2f ms (bare %.2f), in the middle %.2f ms (bare %.2f)",
			size, m.Median(side+first), m.Median(side+bareFirst), m.Median(side+middle), m.Median(side+bareMiddle))
		if i > 0 {
			goal := func(bare int) string {
				return fmt.Sprintf("1 within noise; DynamoDB Local itself: %.2f", m.Ratio(side+bare, bare))
			}
			figure.Print(fmt.Sprintf("growth-%d-first", size), m.Ratio(side+first, first), "times", goal(bareFirst))
			figure.Print(fmt.Sprintf("growth-%d-middle", size), m.Ratio(side+middle, middle), "times", goal(bareMiddle))
		}
	}
}

// bareQuery reads that many groups after the given one, or the newest.
func (s *store) bareQuery(tb testing.TB, org string, after map[string]any, limit int) {
	tb.Helper()
	text := func(parts ...any) types.AttributeValue {
		return &types.AttributeValueMemberS{Value: fmt.Sprint(parts...)}
	}
	input := &dynamodb.QueryInput{
		TableName: &s.name, IndexName: aws.String("byTime"), KeyConditionExpression: aws.String("PK = :org"),
		ExpressionAttributeValues: map[string]types.AttributeValue{":org": text("ORG#", org)},
		ScanIndexForward:          aws.Bool(false), Limit: aws.Int32(int32(limit)),
	}
	if after != nil {
		input.ExclusiveStartKey = map[string]types.AttributeValue{
			"PK": text("ORG#", org), "SK": text("GROUP#", after["id"]), "_time": text(after["creationTime"], "#", after["id"]),
		}
	}
	if page, err := s.client.Query(tb.Context(), input); err != nil || int(page.Count) != limit {
		tb.Fatal(page, err)
	}
}
