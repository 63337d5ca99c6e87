// Package worldtest serves the tests of workers: a table, the sandbox and workers of both, with a
// clock that stands. Tests alone import it.
package worldtest

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/reporting"
	"github.com/marketmeter/marketmeter/internal/reporting/connect"
	rt "github.com/marketmeter/marketmeter/internal/reporting/reportingtest"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
	"github.com/marketmeter/marketmeter/sandbox"
)

// Org is the organization of a World.
const Org metering.OrgID = "acme"

// A World is a table with an entitlement at each marketplace, a box, and a worker of both.
type World struct {
	*rt.Box
	Table *table.Table
	Log   *Events
	Queue *Hints
	// TableName is the name of Table.
	TableName string
	client    *dynamodb.Client
	connector *connect.Connector
	lanes     *reporting.Lanes
	t         testing.TB
}

// The entitlements of a World, whose dimensions are d0 to d29 at a unit price of 0.5.
const (
	OnAWS    metering.EntitlementID = "ent-aws"
	OnAzure  metering.EntitlementID = "ent-azure"
	OnGoogle metering.EntitlementID = "ent-google"
)

// Entitlements returns the entitlements of a new world.
func Entitlements() []metering.Entitlement {
	ids := map[metering.EntitlementID]metering.MarketplaceIDs{
		OnAWS:    {CustomerAWSAccountID: rt.Account, LicenseARN: rt.Licence},
		OnAzure:  {ResourceID: rt.Resource, PlanID: "silver"},
		OnGoogle: {UsageReportingID: rt.Consumer, ServiceName: rt.Service},
	}
	partners := map[metering.EntitlementID]metering.Partner{OnAWS: "AWS", OnAzure: "AZURE", OnGoogle: "GCP"}
	var all []metering.Entitlement
	for _, id := range []metering.EntitlementID{OnAWS, OnAzure, OnGoogle} {
		e := metering.Entitlement{ID: id, Partner: partners[id], BuyerID: "buyer", ProductID: "product", Marketplace: ids[id]}
		e.Info.DimensionsKnown = true
		for i := range 30 {
			e.Info.Dimensions = append(e.Info.Dimensions, metering.Dimension{Key: fmt.Sprintf("d%d", i), Rate: Quantity("0.5"), ListPrice: Quantity("1")})
		}
		all = append(all, e)
	}
	return all
}

// Quantity reads a quantity of a test.
func Quantity(text string) metering.Quantity {
	q, err := metering.ParseQuantity(text)
	if err != nil {
		panic(err) // the test's own text
	}
	return q
}

// NewWorld returns a world on a table of its own. Its clock is the box's.
func NewWorld(t testing.TB, options sandbox.Options) *World {
	t.Helper()
	client, name := tabletest.Client(t)
	w := &World{Box: rt.Start(t, options), Table: table.New(client, name), Log: &Events{}, Queue: &Hints{}, TableName: name, client: client, lanes: &reporting.Lanes{}, t: t}
	w.connector = connect.New(connect.Options{Secrets: secrets{}, SandboxURL: w.URL, SandboxOnly: true, Now: w.Now})
	for _, e := range Entitlements() {
		w.PutEntitlement(e)
	}
	for _, partner := range metering.Partners {
		w.PutConnection(metering.Connection{Partner: partner})
	}
	return w
}

// PutEntitlement stores an entitlement, a minute before the earliest usage that is accepted.
func (w *World) PutEntitlement(e metering.Entitlement) {
	w.t.Helper()
	change, err := metering.NewEntitlementChange(Org, e.ID, &e, metering.Conditions{}, w.Now())
	if err == nil {
		_, _, err = w.Table.PutEntitlement(w.t.Context(), &change)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// PutConnection stores a connection to the box.
func (w *World) PutConnection(c metering.Connection) {
	w.t.Helper()
	c.Endpoint = w.URL
	switch c.Partner {
	case "AZURE":
		c.TenantID, c.ClientID, c.SecretARN = rt.Tenant, rt.Application, "arn:aws:secretsmanager:us-east-1:111122223333:secret:marketmeter/acme/azure"
	case "GCP":
		c.SecretARN = "arn:aws:secretsmanager:us-east-1:111122223333:secret:marketmeter/acme/google"
	}
	change, err := metering.NewConnectionChange(c.Partner, &c, metering.ConnectionRules{Organization: Org, SandboxURL: w.URL, OwnRole: true}, metering.Conditions{})
	if err == nil {
		_, _, err = w.Table.PutConnection(w.t.Context(), Org, &change)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// DeleteItems deletes the items of a partition whose sort keys begin with prefix, which no function
// of the table deletes.
func (w *World) DeleteItems(partition, prefix string) {
	w.t.Helper()
	out, err := w.client.Query(w.t.Context(), &dynamodb.QueryInput{
		TableName: &w.TableName, KeyConditionExpression: awssdk.String("PK = :p AND begins_with(SK, :prefix)"),
		ExpressionAttributeValues: map[string]types.AttributeValue{":p": &types.AttributeValueMemberS{Value: partition}, ":prefix": &types.AttributeValueMemberS{Value: prefix}},
	})
	if err != nil || len(out.Items) == 0 {
		w.t.Fatalf("%s has no item %s...: %v", partition, prefix, err)
	}
	for _, item := range out.Items {
		if _, err := w.client.DeleteItem(w.t.Context(), &dynamodb.DeleteItemInput{
			TableName: &w.TableName, Key: map[string]types.AttributeValue{"PK": item["PK"], "SK": item["SK"]},
		}); err != nil {
			w.t.Fatal(err)
		}
	}
}

// SetText sets an attribute of an item, as a newer version might.
func (w *World) SetText(partition, sort, attribute, value string) {
	w.t.Helper()
	text := func(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }
	_, err := w.client.UpdateItem(w.t.Context(), &dynamodb.UpdateItemInput{
		TableName: &w.TableName, Key: map[string]types.AttributeValue{"PK": text(partition), "SK": text(sort)},
		UpdateExpression: awssdk.String("SET #name = :value"), ConditionExpression: awssdk.String("attribute_exists(PK)"),
		ExpressionAttributeNames: map[string]string{"#name": attribute}, ExpressionAttributeValues: map[string]types.AttributeValue{":value": text(value)},
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// PutConfig replaces the config.
func (w *World) PutConfig(c metering.Config) {
	w.t.Helper()
	if _, _, err := w.Table.ChangeConfig(w.t.Context(), Org, w.Now(), metering.ConfigChange{Patch: metering.ConfigPatch(c), Replace: true}); err != nil {
		w.t.Fatal(err)
	}
}

// PutNewerConfig replaces the config by one of a newer version, which has that member for the
// partner: nothing is sealed by it.
func (w *World) PutNewerConfig(partner metering.Partner, member string) {
	w.t.Helper()
	w.PutConfig(metering.Config{"partnerUsageMeteringConfigs": []any{map[string]any{"partner": string(partner)}}})
	w.SetConfig(fmt.Sprintf(`{"partnerUsageMeteringConfigs":[{"partner":%q,%s}]}`, partner, member))
}

// SetConfig replaces the text of the config that is stored, as a newer version may have written it.
func (w *World) SetConfig(text string) {
	w.t.Helper()
	stored, err := w.Table.Config(w.t.Context(), Org)
	if err != nil {
		w.t.Fatal(err)
	}
	w.SetText("ORG#"+string(Org), fmt.Sprintf("CONFIG#%010d", stored.Version), "config", text)
}

// Report stores usage of a time, as "d0 1.5, d1 2", and returns the id of its group.
func (w *World) Report(e metering.EntitlementID, at time.Time, usage string) metering.GroupID {
	w.t.Helper()
	g := metering.NewGroup{EntitlementID: string(e), Timestamp: &at}
	for record := range strings.SplitSeq(usage, ", ") {
		key, quantity, _ := strings.Cut(record, " ")
		g.Records = append(g.Records, metering.NewRecord{Key: key, Quantity: quantity})
	}
	return w.ReportGroup(&g)
}

// ReportGroup stores usage, and returns the id of its group.
func (w *World) ReportGroup(g *metering.NewGroup) metering.GroupID {
	w.t.Helper()
	groups, err := w.Table.Report(w.t.Context(), Org, &metering.Report{Groups: []metering.NewGroup{*g}, Now: w.Now()})
	if err != nil {
		w.t.Fatal(err)
	}
	return metering.GroupID(groups[0].ID)
}

// AddMetric stores a billable metric.
func (w *World) AddMetric(id metering.MetricID, sent metering.BillableMetric) {
	w.t.Helper()
	m, err := metering.NewMetric(Org, id, &sent, w.Now())
	if err == nil {
		_, err = w.Table.AddMetric(w.t.Context(), &m)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// Group returns a group as it is stored.
func (w *World) Group(id metering.GroupID) metering.Group {
	w.t.Helper()
	g, err := w.Table.Group(w.t.Context(), Org, id)
	if err != nil {
		w.t.Fatal(err)
	}
	return g
}

// Status returns the status of a group, with the codes of its problems.
func (w *World) Status(id metering.GroupID) string {
	g := w.Group(id)
	text := string(g.Status)
	for _, p := range g.Problems {
		text += " " + string(p.Code)
	}
	return text
}

// Hour returns an hour; nil if it does not exist.
func (w *World) Hour(e metering.EntitlementID, hour time.Time) *reports.Hour {
	w.t.Helper()
	h, err := w.Table.Hour(w.t.Context(), reports.Place{Organization: Org, Entitlement: e, Hour: hour})
	if err != nil {
		w.t.Fatal(err)
	}
	return h
}

// Worker returns a worker of the world by a table. All are of one process.
func (w *World) Worker(tbl reporting.Store) *reporting.Worker {
	return &reporting.Worker{
		Store: tbl, Marketplaces: w.connector, Queue: w.Queue, Lanes: w.lanes, Now: w.Now, Log: slog.New(w.Log),
	}
}

// Work is WorkBy with a worker of the world.
func (w *World) Work() {
	w.t.Helper()
	w.WorkBy(w.Worker(w.Table))
}

// WorkBy schedules, and does what that enqueues and what follows from it, until nothing is left.
func (w *World) WorkBy(worker *reporting.Worker) {
	w.t.Helper()
	if _, err := worker.Schedule(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	for {
		hint, ok := w.Queue.Next()
		if !ok {
			return
		}
		if err := worker.Work(w.t.Context(), hint); err != nil {
			w.t.Fatalf("%+v: %v", hint, err)
		}
	}
}

// Marketplace returns the marketplace of the connection to a partner.
func (w *World) Marketplace(partner metering.Partner) reporting.Marketplace {
	w.t.Helper()
	stored, err := w.Table.Connection(w.t.Context(), Org, partner)
	if err != nil {
		w.t.Fatal(err)
	}
	m, err := w.connector.Marketplace(Org, stored.Value)
	if err != nil {
		w.t.Fatal(err)
	}
	return m
}

// secrets are the box's: the client secret of the application, and the key of the service account.
type secrets struct{}

// Secret implements reporting.Secrets.
func (secrets) Secret(_ context.Context, arn string) (string, error) {
	if strings.HasSuffix(arn, "/azure") {
		return rt.ClientSecret, nil
	}
	return rt.Key(rt.Robot), nil
}

// Hints is a queue that holds each hint once, in order.
type Hints struct {
	mu    sync.Mutex
	hints []reporting.Hint
}

// Enqueue implements reporting.Queue.
func (q *Hints) Enqueue(_ context.Context, hints ...reporting.Hint) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, h := range hints {
		if !slices.ContainsFunc(q.hints, func(other reporting.Hint) bool { return other == h || h.Lane != "" && other.Lane == h.Lane }) {
			q.hints = append(q.hints, h)
		}
	}
	return nil
}

// Delay makes the first hint the last one.
func (q *Hints) Delay() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.hints) > 1 {
		q.hints = append(q.hints[1:], q.hints[0])
	}
}

// Next removes the first hint and returns it.
func (q *Hints) Next() (h reporting.Hint, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.hints) == 0 {
		return h, false
	}
	h, q.hints = q.hints[0], q.hints[1:]
	return h, true
}

// Events counts the events that a worker logs, and keeps the lines.
type Events struct {
	mu     sync.Mutex
	counts map[string]int
	lines  strings.Builder
}

// Count returns how often an event happened.
func (e *Events) Count(event reporting.Event) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.counts[string(event)]
}

// Lines returns all that was logged.
func (e *Events) Lines() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.lines.String()
}

// Enabled implements slog.Handler.
func (e *Events) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements slog.Handler.
func (e *Events) Handle(ctx context.Context, r slog.Record) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	r.Attrs(func(a slog.Attr) bool {
		if reporting.MetricUnit(a.Key) != "" && a.Value.Kind() == slog.KindInt64 {
			if e.counts == nil {
				e.counts = map[string]int{}
			}
			e.counts[a.Key] += int(a.Value.Int64())
		}
		return true
	})
	return slog.NewTextHandler(io.Writer(&e.lines), nil).Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (e *Events) WithAttrs([]slog.Attr) slog.Handler { return e }

// WithGroup implements slog.Handler.
func (e *Events) WithGroup(string) slog.Handler { return e }
