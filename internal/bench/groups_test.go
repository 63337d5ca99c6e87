package bench

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"golang.org/x/sync/errgroup"

	"github.com/marketmeter/marketmeter"
	"github.com/marketmeter/marketmeter/internal/localdb"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// store is a table with organizations that have usage record groups.
type store struct {
	client *dynamodb.Client
	name   string
	table  *table.Table
	groups []map[string]types.AttributeValue // the items of organization "org-000000", a thousand
}

const thousand = 1000

// newStore makes a table with an organization that has 1,000 groups.
func newStore(tb testing.TB) *store {
	tb.Helper()
	client, name := tabletest.NewClient(dynamoDB), "bench-"+rand.Text()
	if _, err := localdb.CreateTable(tb.Context(), client, marketmeter.Template, name); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if _, err := client.DeleteTable(context.Background(), &dynamodb.DeleteTableInput{TableName: &name}); err != nil {
			tb.Errorf("deleting the table of this benchmark: %v", err)
		}
	})
	s := &store{client: client, name: name, table: table.New(client, name)}
	var puts errgroup.Group
	puts.SetLimit(16)
	now := time.Now()
	for n := range thousand {
		puts.Go(func() error {
			group := usage("org-000000", fmt.Sprintf("urg-000-%04d", n), n, now)
			_, err := s.table.Put(tb.Context(), &group)
			return err
		})
	}
	if err := puts.Wait(); err != nil {
		tb.Fatal(err)
	}
	pages := dynamodb.NewQueryPaginator(client, &dynamodb.QueryInput{
		TableName: &name, KeyConditionExpression: aws.String("PK = :org"),
		ExpressionAttributeValues: map[string]types.AttributeValue{":org": &types.AttributeValueMemberS{Value: "ORG#org-000000"}},
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(tb.Context())
		if err != nil {
			tb.Fatal(err)
		}
		s.groups = append(s.groups, page.Items...)
	}
	return s
}

// organization adds an organization with that many groups, a multiple of a thousand, and returns
// its name. It writes the same thousand again under other names, which is the fastest way.
func (s *store) organization(tb testing.TB, groups int) (name string) {
	tb.Helper()
	name = fmt.Sprintf("org-%06d", groups)
	var batches errgroup.Group
	batches.SetLimit(8)
	for block := range groups / thousand {
		for from := 0; from < thousand; from += 25 { // the max of a batch
			batches.Go(func() error {
				renamed := strings.NewReplacer("org-000000", name, "urg-000-", fmt.Sprintf("urg-%03d-", block))
				var writes []types.WriteRequest
				for _, item := range s.groups[from : from+25] {
					item = maps.Clone(item)
					for attribute, value := range item {
						if text, ok := value.(*types.AttributeValueMemberS); ok {
							item[attribute] = &types.AttributeValueMemberS{Value: renamed.Replace(text.Value)}
						}
					}
					writes = append(writes, types.WriteRequest{PutRequest: &types.PutRequest{Item: item}})
				}
				out, err := s.client.BatchWriteItem(tb.Context(), &dynamodb.BatchWriteItemInput{
					RequestItems: map[string][]types.WriteRequest{s.name: writes},
				})
				if err == nil && len(out.UnprocessedItems) > 0 {
					err = fmt.Errorf("%d items were not written", len(out.UnprocessedItems[s.name]))
				}
				return err
			})
		}
	}
	if err := batches.Wait(); err != nil {
		tb.Fatal(err)
	}
	return name
}

// usage is the n-th usage record group, as large as one of an integration with a billing system
// usually is: about 0.85 KB in the API's JSON.
func usage(org, id string, n int, now time.Time) metering.Group {
	created := now.UTC().Add(-time.Duration(n) * 30 * time.Minute).Truncate(time.Millisecond)
	used := created.Truncate(time.Minute)
	source := metering.Source("STRIPE")
	records := map[string]metering.Quantity{
		"api_requests_thousands": quantity(fmt.Sprintf("%d.%03d", 100+n, n)), "storage_gb_hours": quantity(fmt.Sprint(3*n + 1)),
	}
	return metering.Group{
		ID: id, OrganizationID: org, BuyerID: fmt.Sprintf("4829133%05d", n%40), EntitlementID: fmt.Sprintf("ent-8f3a61c2-%04d", n%60),
		ProductID: "prod-observe", Partner: metering.Partners[n%3], Status: metering.StatusReported, SerialID: int32(n + 1),
		Records: records, UsageRecordReportID: "urr-" + id, CreationTime: created,
		LastUpdateTime: created.Add(time.Minute), ReportedTime: created.Add(time.Minute),
		MetaInfo: metering.MetaInfo{
			Source: &source, Timestamp: &used, OriginRecords: records,
			Carried: map[string]any{
				"stripeInvoiceID":                    fmt.Sprintf("in_1PhT2eLkdIwHu7ix%06d", n),
				"stripePeriodEndTime":                metering.FormatTime(used.AddDate(0, 1, 0)),
				"stripePeriodStartTime":              metering.FormatTime(used),
				"stripeSubscriptionItemID":           fmt.Sprintf("si_QYcWpbVnGx%06d", n),
				"stripeUsageRecordSummaryID":         fmt.Sprintf("sis_1PhT2eLkdIwHu7ix%06d", n),
				"stripeUsageRecordSummaryTotalUsage": metering.NumberOf(int64(1000 + n)),
			},
		},
	}
}

func quantity(text string) metering.Quantity {
	q, err := metering.ParseQuantity(text)
	if err != nil {
		panic(err) // the members set are all quantities
	}
	return q
}
