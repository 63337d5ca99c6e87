package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go/middleware"
	"golang.org/x/sync/errgroup"

	"github.com/marketmeter/marketmeter"
	"github.com/marketmeter/marketmeter/internal/localdb"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/reporting"
	marketaws "github.com/marketmeter/marketmeter/internal/reporting/aws"
	rt "github.com/marketmeter/marketmeter/internal/reporting/reportingtest"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
	"github.com/marketmeter/marketmeter/sandbox"
)

const (
	seller  metering.OrgID     = "bench"
	product metering.ProductID = "observe"

	// workersAtOnce is how many hints are worked on at once: fewer than two executions take.
	workersAtOnce = 4
	// groupsAtOnce and hoursAtOnce are how many a worker writes at once. Source:
	// internal/reporting.
	groupsAtOnce = 2
	hoursAtOnce  = 32
)

// closedAt is a time at which rt.Hour is closed.
var closedAt = rt.Hour.Add(2*time.Hour + 5*time.Minute)

// closedHour is usage of rt.Hour in a table, and a sandbox. Nothing of it is reported yet.
type closedHour struct {
	name    string // of the table
	client  *dynamodb.Client
	catalog sandbox.Catalog
	items   []map[string]types.AttributeValue // for copies of the table

	server *httptest.Server
	market atomic.Pointer[sandbox.Sandbox]
}

// newClosedHour makes entitlements with licences of one product, and groups of each, each with
// usage of one dimension.
func newClosedHour(b *testing.B, entitlements, groups int) *closedHour {
	b.Helper()
	client, name := tabletest.Client(b)
	c := &closedHour{name: name, client: tabletest.NewClient(dynamoDB), catalog: rt.Catalog()}
	c.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { c.market.Load().ServeHTTP(w, r) }))
	b.Cleanup(c.server.Close)
	stored := table.New(client, name)
	change, err := metering.NewConnectionChange("AWS", &metering.Connection{Partner: "AWS", Endpoint: c.server.URL},
		metering.ConnectionRules{Organization: seller, SandboxURL: c.server.URL, OwnRole: true}, metering.Conditions{})
	if err == nil {
		_, _, err = stored.PutConnection(b.Context(), seller, &change)
	}
	if err != nil {
		b.Fatal(err)
	}
	for i := range entitlements {
		licence := fmt.Sprintf("arn:aws:license-manager::294406891311:license:l-%05d", i)
		c.catalog.AWS.Agreements = append(c.catalog.AWS.Agreements, sandbox.AWSAgreement{AccountID: rt.Account, ProductCode: rt.ProductCode, LicenseArn: licence})
		putLicence(b, stored, entitlementID(i), licence)
	}
	at := rt.Hour.Add(30 * time.Minute)
	for from := 0; from < entitlements*groups; from += thousand {
		var usage []metering.NewGroup
		for i := from; i < min(from+thousand, entitlements*groups); i++ {
			usage = append(usage, metering.NewGroup{
				EntitlementID: string(entitlementID(i % entitlements)), Timestamp: &at, Records: []metering.NewRecord{{Key: "d0", Quantity: "1.25"}},
			})
		}
		if _, err := stored.Report(b.Context(), seller, &metering.Report{Groups: usage, Batch: true, Now: rt.Now}); err != nil {
			b.Fatal(err)
		}
	}
	c.openMarket(b)
	return c
}

// openMarket begins a new sandbox.
func (c *closedHour) openMarket(b *testing.B) {
	b.Helper()
	market, err := sandbox.New(sandbox.Options{Catalog: c.catalog, RateLimit: -1, Now: func() time.Time { return closedAt }})
	if err != nil {
		b.Fatal(err)
	}
	c.market.Store(market)
}

// newClosedHours is newClosedHour for measurements with copies.
func newClosedHours(b *testing.B, entitlements, groups int) *closedHour {
	b.Helper()
	c := newClosedHour(b, entitlements, groups)
	var err error
	if c.items, err = tabletest.Items(b.Context(), c.client, c.name); err != nil {
		b.Fatal(err)
	}
	c.name += "-copy"
	return c
}

func entitlementID(i int) metering.EntitlementID {
	return metering.EntitlementID(fmt.Sprintf("ent-%05d", i))
}

func putLicence(b *testing.B, stored *table.Table, id metering.EntitlementID, licence string) {
	b.Helper()
	e := metering.Entitlement{
		ID: id, Partner: "AWS", BuyerID: "buyer", ProductID: product,
		Marketplace: metering.MarketplaceIDs{CustomerAWSAccountID: rt.Account, LicenseARN: licence},
	}
	e.Info.DimensionsKnown = true
	e.Info.Dimensions = []metering.Dimension{{Key: "d0", Rate: quantity("0.5")}}
	change, err := metering.NewEntitlementChange(seller, id, &e, metering.Conditions{}, rt.Now)
	if err == nil {
		_, _, err = stored.PutEntitlement(b.Context(), &change)
	}
	if err != nil {
		b.Fatal(err)
	}
}

// placeOf is the place of the i-th entitlement.
func placeOf(i int) reports.Place {
	return reports.Place{Organization: seller, Entitlement: entitlementID(i), Hour: rt.Hour}
}

// groups are the keys of the groups of the i-th entitlement.
func (c *closedHour) groups(i int) (keys []map[string]types.AttributeValue) {
	for _, item := range c.items {
		if id, ok := item["entitlementID"].(*types.AttributeValueMemberS); ok && id.Value == string(entitlementID(i)) && item["_due"] != nil {
			keys = append(keys, map[string]types.AttributeValue{"PK": item["PK"], "SK": item["SK"]})
		}
	}
	return keys
}

// use calls measure with a new copy of the table and a new sandbox.
func (c *closedHour) use(b *testing.B, measure func()) {
	b.Helper()
	if _, err := localdb.CreateTable(b.Context(), c.client, marketmeter.Template, c.name); err != nil {
		b.Fatal(err)
	}
	defer func() {
		if _, err := c.client.DeleteTable(context.WithoutCancel(b.Context()), &dynamodb.DeleteTableInput{TableName: &c.name}); err != nil {
			b.Error(err)
		}
	}()
	var batches errgroup.Group
	batches.SetLimit(8)
	for some := range slices.Chunk(c.items, 25) { // the max of a batch
		batches.Go(func() error {
			var writes []types.WriteRequest
			for _, item := range some {
				writes = append(writes, types.WriteRequest{PutRequest: &types.PutRequest{Item: item}})
			}
			out, err := c.client.BatchWriteItem(b.Context(), &dynamodb.BatchWriteItemInput{RequestItems: map[string][]types.WriteRequest{c.name: writes}})
			if err == nil && len(out.UnprocessedItems) > 0 {
				err = fmt.Errorf("%d items were not written", len(out.UnprocessedItems[c.name]))
			}
			return err
		})
	}
	if err := batches.Wait(); err != nil {
		b.Fatal(err)
	}
	c.openMarket(b)
	measure()
}

// worker returns a new worker, with the queue of its hints.
func (c *closedHour) worker() (*reporting.Worker, *hints) {
	queue := &hints{held: map[reporting.Hint]bool{}}
	market := marketaws.New(marketaws.Options{
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "secret"}, nil
		}),
		Sandbox: c.server.URL, Transport: tracedTransport{}, Now: func() time.Time { return closedAt },
	})
	return &reporting.Worker{
		Store: table.New(traced(c.client), c.name), Marketplaces: one{market}, Queue: queue,
		Now: func() time.Time { return closedAt }, Log: slog.New(slog.NewJSONHandler(io.Discard, nil)),
	}, queue
}

// one is the marketplace of all connections.
type one struct{ marketplace reporting.Marketplace }

// Marketplace implements reporting.Marketplaces.
func (o one) Marketplace(metering.OrgID, metering.Connection) (reporting.Marketplace, error) {
	return o.marketplace, nil
}

// hints is a queue that holds each hint once.
type hints struct {
	mu      sync.Mutex
	held    map[reporting.Hint]bool
	waiting []reporting.Hint
}

// Enqueue implements reporting.Queue.
func (q *hints) Enqueue(_ context.Context, some ...reporting.Hint) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, h := range some {
		if h.Lane != "" {
			h.Place = reports.Place{}
		}
		if !q.held[h] {
			q.held[h] = true
			q.waiting = append(q.waiting, h)
		}
	}
	return nil
}

// take removes all hints and returns them.
func (q *hints) take() []reporting.Hint {
	q.mu.Lock()
	defer q.mu.Unlock()
	taken := q.waiting
	q.waiting = nil
	clear(q.held)
	return taken
}

// settle schedules, and does what that enqueues and what follows from it, until nothing is left. It
// returns what was requested: for the hints that were taken together, the requests of each.
func settle(ctx context.Context, worker *reporting.Worker, queue *hints) (rounds [][]*trace, err error) {
	scheduled := new(trace)
	if _, err := worker.Schedule(context.WithValue(ctx, traceKey{}, scheduled)); err != nil {
		return nil, err
	}
	rounds = [][]*trace{{scheduled}}
	for taken := queue.take(); len(taken) > 0; taken = queue.take() {
		traces := make([]*trace, len(taken))
		var work errgroup.Group
		work.SetLimit(workersAtOnce)
		for i, hint := range taken {
			traces[i] = new(trace)
			work.Go(func() error {
				return worker.Work(context.WithValue(ctx, traceKey{}, traces[i]), hint)
			})
		}
		if err := work.Wait(); err != nil {
			return nil, err
		}
		rounds = append(rounds, traces)
	}
	return rounds, nil
}

// trace records the requests to DynamoDB and to the marketplace of one piece of work. Requests that
// overlap are a batch.
type trace struct {
	mu      sync.Mutex
	open    int
	batches [][]any
}

type traceKey struct{}

// begin adds a request. end is called when it has its response.
func (t *trace) begin(request any) (end func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open == 0 {
		t.batches = append(t.batches, nil)
	}
	t.open++
	last := len(t.batches) - 1
	t.batches[last] = append(t.batches[last], request)
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.open--
	}
}

// traced is the client with the requests in the traces of their contexts.
func traced(client *dynamodb.Client) *dynamodb.Client {
	return dynamodb.New(client.Options(), func(o *dynamodb.Options) {
		o.APIOptions = append(slices.Clone(o.APIOptions), func(stack *middleware.Stack) error {
			return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("Trace",
				func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
					if t, ok := ctx.Value(traceKey{}).(*trace); ok {
						defer t.begin(in.Parameters)()
					}
					return next.HandleInitialize(ctx, in)
				}), middleware.Before)
		})
	})
}

// marketCall is a request to the marketplace.
type marketCall struct {
	url    string
	header http.Header
	body   []byte
}

// tracedTransport has requests in the traces of their contexts.
type tracedTransport struct{}

// RoundTrip implements http.RoundTripper.
func (tracedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	t, ok := r.Context().Value(traceKey{}).(*trace)
	if !ok {
		return http.DefaultTransport.RoundTrip(r)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	_ = r.Body.Close()
	defer t.begin(&marketCall{r.URL.String(), r.Header, body})()
	r = r.Clone(r.Context())
	r.Body = io.NopCloser(bytes.NewReader(body))
	return http.DefaultTransport.RoundTrip(r)
}

// resend sends the requests of settle again, as many at once.
func (c *closedHour) resend(ctx context.Context, rounds [][]*trace) error {
	for _, traces := range rounds {
		var work errgroup.Group
		work.SetLimit(workersAtOnce)
		for _, t := range traces {
			work.Go(func() error {
				for _, batch := range t.batches {
					if err := c.resendBatch(ctx, batch); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err := work.Wait(); err != nil {
			return err
		}
	}
	return nil
}

func (c *closedHour) resendBatch(ctx context.Context, batch []any) error {
	if len(batch) == 1 {
		return c.resendOne(ctx, batch[0])
	}
	var requests errgroup.Group
	requests.SetLimit(hoursAtOnce)
	if _, group := batch[0].(*dynamodb.UpdateItemInput); group {
		requests.SetLimit(groupsAtOnce)
	}
	for _, r := range batch {
		requests.Go(func() error { return c.resendOne(ctx, r) })
	}
	return requests.Wait()
}

// resendOne sends a request again, without looking at the response.
func (c *closedHour) resendOne(ctx context.Context, request any) (err error) {
	switch r := request.(type) {
	case *dynamodb.GetItemInput:
		_, err = c.client.GetItem(ctx, r)
	case *dynamodb.BatchGetItemInput:
		_, err = c.client.BatchGetItem(ctx, r)
	case *dynamodb.QueryInput:
		_, err = c.client.Query(ctx, r)
	case *dynamodb.PutItemInput:
		_, err = c.client.PutItem(ctx, r)
	case *dynamodb.UpdateItemInput:
		_, err = c.client.UpdateItem(ctx, r)
	case *dynamodb.TransactWriteItemsInput:
		again := *r
		again.ClientRequestToken = nil // DynamoDB would do nothing the second time
		_, err = c.client.TransactWriteItems(ctx, &again)
	case *dynamodb.DescribeTableInput:
		_, err = c.client.DescribeTable(ctx, r)
	case *marketCall:
		err = r.resend(ctx)
	default:
		err = fmt.Errorf("a %T can't be sent again", request)
	}
	return err
}

func (m *marketCall) resend(ctx context.Context) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, m.url, bytes.NewReader(m.body))
	if err != nil {
		return err
	}
	r.Header = m.header
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the sandbox responds with %s", response.Status)
	}
	_, err = io.Copy(io.Discard, response.Body)
	return err
}
