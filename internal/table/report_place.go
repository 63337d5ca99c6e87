package table

import (
	"context"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
)

// oldestOpened is how long after its start an hour may be opened: a month at Google, and the month
// before.
const oldestOpened = 70 * 24 * time.Hour

// ReportPlace returns the place of a report by its id. It returns NotFound if the organization has
// no such report.
//
//	Query  PK = ORG#<org>#REPORT, newest first   1 round trip and about 128 read units per 1 MB, up
//	                                             to the report
//
// The key of a report has its id and when its hour was opened. The hour is the one of which the id
// is made.
func (t *Table) ReportPlace(ctx context.Context, org metering.OrgID, id string) (reports.Place, error) {
	input := &dynamodb.QueryInput{
		TableName:                 &t.name,
		KeyConditionExpression:    aws.String("PK = :reports"),
		ProjectionExpression:      aws.String("SK, entitlementID"),
		ExpressionAttributeValues: map[string]types.AttributeValue{":reports": text(reportsKey(org))},
		ConsistentRead:            aws.Bool(true),
		ScanIndexForward:          aws.Bool(false),
		ReturnConsumedCapacity:    wantUnits(ctx),
	}
	for {
		page, err := t.client.Query(ctx, input)
		if err != nil {
			return reports.Place{}, storageError("find a report", err)
		}
		countRead(ctx, page.ConsumedCapacity)
		for _, item := range page.Items {
			r := itemReader{item: item}
			opened, found := strings.CutSuffix(r.text(attrSK), "#"+id)
			if !found {
				continue
			}
			p := reports.Place{Organization: org, Entitlement: metering.EntitlementID(r.text("entitlementID"))}
			at, err := metering.ParseTime(opened)
			if r.err != nil || err != nil {
				return p, r.storedError("a report")
			}
			for p.Hour = metering.HourOf(at); at.Sub(p.Hour) < oldestOpened; p.Hour = p.Hour.Add(-time.Hour) {
				if metering.ReportID(p.Organization, p.Entitlement, p.Hour) == id {
					return p, nil
				}
			}
		}
		if input.ExclusiveStartKey = page.LastEvaluatedKey; input.ExclusiveStartKey == nil {
			return reports.Place{}, metering.Errorf(metering.NotFound, "the organization has no report %s", metering.Quote(id))
		}
	}
}
