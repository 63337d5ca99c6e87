package table

import (
	"context"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/table/listjson"
	"github.com/marketmeter/marketmeter/internal/wire"
)

// The report of an hour is a copy for lists: the hour decides. It is written once the hour is
// sealed, again while its records are sent again and have another reason, and once it is settled or
// resolved.

const attrReport = "report" // the API's JSON

// maxReportSize leaves room for the rest of an item, which has at most 400 KB.
const maxReportSize = 390_000

func reportsKey(org metering.OrgID) string { return orgKey(org) + "#REPORT" }

// reportKey sorts reports by creation time, then by id. It is a position of a list.
func reportKey(opened time.Time, id string) string { return timeKey(opened, metering.GroupID(id)) }

// PutReport stores the copy of the hour that clients list, which must be sealed. ids are its first
// groups. It does nothing if a copy of a later version of the hour is stored, or if the hour has no
// partner: nobody's usage is in it, and its entitlement is gone.
//
//	Query    as Calls, once a record has an attempt
//	PutItem  PK = ORG#<org>#REPORT, SK = <opened>#<id>    1 round trip, 1 write unit per KB
func (t *Table) PutReport(ctx context.Context, h *reports.Hour, ids []metering.GroupID) error {
	if h.Sealed == nil {
		return metering.Errorf(metering.Internal, "report %s can't be listed: the hour is %s", h.ID(), h.State)
	}
	if h.Sealed.Partner == "" {
		return nil
	}
	var calls []reports.StoredCall
	if h.WasSent() {
		var err error
		if calls, err = t.Calls(ctx, h.Place()); err != nil {
			return err
		}
	}
	item := itemKey(reportsKey(h.Organization), reportKey(h.Opened, h.ID()))
	item[attrReport] = text(string(wire.AppendUsageRecordReport(nil, h, ids, calls, maxReportSize)))
	item[attrVersion] = number(strconv.Itoa(h.Version))
	item["partner"], item["buyerID"], item["entitlementID"] = text(h.Sealed.Partner), text(h.Sealed.Buyer), text(h.Entitlement)
	out, err := t.client.PutItem(ctx, &dynamodb.PutItemInput{
		TableName: &t.name, Item: item,
		ConditionExpression:       aws.String("attribute_not_exists(PK) OR #version <= :version"),
		ExpressionAttributeNames:  map[string]string{"#version": attrVersion},
		ExpressionAttributeValues: map[string]types.AttributeValue{":version": item[attrVersion]},
		ReturnConsumedCapacity:    wantUnits(ctx),
	})
	if _, later := failedCondition(err); later {
		return nil
	}
	if err != nil {
		return storageError("store a report", err)
	}
	countWrite(ctx, out.ConsumedCapacity)
	return nil
}

// Reports reads a page of the organization's reports as List does, and calls encode with it. Of the
// filter, it reads the days, which are those of the reports' creation, partner, entitlement and
// buyer.
//
//	Query  PK = ORG#<org>#REPORT, SK BETWEEN start AND end,   1 round trip, about 128 read units
//	       backwards                                          per 1 MB
//
// The rest is as List. Reports are not read consistently.
func (t *Table) Reports(ctx context.Context, org metering.OrgID, r metering.ListRequest, buffer []byte,
	encode func(reports []byte, page metering.GroupPage) error,
) (laterBy time.Duration, err error) {
	partition := pageKey(org, fingerprint(r.Client, "usageRecordReport?"+r.Query))
	return t.list(ctx, "reports", partition, r, func(f metering.GroupFilter) (listed, bool) {
		q := &reportQuery{newListQuery(attrPK, reportsKey(org), attrSK, f.StartDate, f.EndDate)}
		q.filterByOwner(f)
		return q, true
	}, buffer, encode)
}

// filterByOwner filters items by attributes named as the members of the API.
func (q *listQuery) filterByOwner(f metering.GroupFilter) {
	for _, wanted := range []struct{ attribute, value string }{
		{"partner", string(f.Partner)}, {"buyerID", string(f.BuyerID)}, {"entitlementID", string(f.EntitlementID)},
	} {
		if wanted.value != "" {
			q.filterEqual(wanted.attribute, wanted.value)
		}
	}
}

// reportQuery is the Query of a list of reports.
type reportQuery struct{ listQuery }

func (q *reportQuery) exact() bool   { return len(q.filters) == 0 }
func (q *reportQuery) counted() bool { return true }

func (q *reportQuery) startAfter(input *dynamodb.QueryInput, position string) (ended bool, err error) {
	if position == "" || position < q.from {
		return position != "", nil
	}
	input.ExclusiveStartKey = itemKey(q.partition, position)
	return false, nil
}

func (q *reportQuery) last(key map[string]types.AttributeValue) (string, error) {
	r := itemReader{item: key}
	position := r.text(attrSK)
	return position, r.storedError("a key")
}

func (q *reportQuery) read(ctx context.Context, l *listing, input *dynamodb.QueryInput) (last string, err error) {
	out, err := l.table.client.Query(ctx, input)
	if err != nil {
		return "", storageError("list reports", err)
	}
	countRead(ctx, out.ConsumedCapacity)
	for _, item := range out.Items {
		r := itemReader{item: item}
		position, report := r.text(attrSK), r.text(attrReport)
		if r.err != nil {
			return "", r.storedError("a report")
		}
		l.add(position, []byte(report))
	}
	if err := l.copyEnd(); err != nil || out.LastEvaluatedKey == nil {
		return "", err
	}
	return q.last(out.LastEvaluatedKey)
}

// add adds an object of the list to the page, if it is in it.
func (l *listing) add(position string, object []byte) {
	before := l.page.json
	longer := before
	if l.page.count > 0 {
		longer = append(longer, ',')
	}
	longer = append(longer, object...)
	if !l.take(listjson.Group{Page: longer, Position: []byte(position)}) {
		l.page.json = before
		return
	}
	l.page.json = longer
}
