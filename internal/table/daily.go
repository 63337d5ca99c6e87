package table

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/wire"
)

// What a marketplace has accepted of an entitlement in the hours of a day is in items of dailyPart
// dimensions. A dimension is in one of them, that which had room for it. An item is of one buyer:
// if the entitlement changes to another one, that one has items of its own. A transaction has 100
// items, so a buyer has at most maxDailyParts, which have more dimensions if there are so many.

const (
	attrDaily     = "records" // the sums by dimension, JSON
	dailyPart     = 100
	maxDailyParts = 16
)

func dailyPartition(org metering.OrgID, partner metering.Partner) string {
	return orgKey(org) + "#DAILY#" + keyEscaper.Replace(string(partner))
}

// dailyPrefix begins the sort keys of the items of an entitlement and a day.
func dailyPrefix(day metering.Day, entitlement metering.EntitlementID) string {
	return string(day) + "#" + dailyEscaper.Replace(string(entitlement)) + "#"
}

func dailyKey(day metering.Day, entitlement metering.EntitlementID, part int) string {
	return fmt.Sprintf("%s%03d", dailyPrefix(day, entitlement), part)
}

// dailyEscaper escapes as keyEscaper does, but without "%": a position that holds such a key must
// be one by idOf, which escapes it again.
var dailyEscaper = strings.NewReplacer("~", "~t", "#", "~h")

// dailyItem is an item as it was read.
type dailyItem struct {
	part    int
	version int // 0 if it is not stored yet
	buyer   string
	sums    map[string]reports.Daily
	changed bool
}

// dailyItems returns the writes that add what the step has made ACCEPTED to the sums of its day,
// one for each item that changes. They fail if an item was changed since it was read here: then the
// step begins again. If the step has accepted nothing, nothing is read.
//
//	Query  PK = ORG#<org>#DAILY#<partner>,      1 round trip, 1 read unit per 4 KB
//	       begins_with(SK, <date>#<entitlement>#),
//	       consistent
//
// If the marketplace can be read back, a step that has accepted nothing of what was sent writes an
// item too: the day is compared again.
//
// The writes cost 2 write units per KB in the transaction: 100 ordinary dimensions have 6 KB.
func (t *Table) dailyItems(ctx context.Context, s *reports.Step) ([]types.TransactWriteItem, error) {
	accepted, compared := s.Accepted(), s.Compared()
	if len(accepted) == 0 && !compared {
		return nil, nil
	}
	h := s.After
	day := metering.DayOf(h.Start)
	partition := dailyPartition(h.Organization, h.Sealed.Partner)
	items, err := t.readDaily(ctx, partition, dailyPrefix(day, h.Entitlement))
	if err != nil {
		return nil, err
	}
	buyer := string(h.Sealed.Buyer)
	for i := range accepted {
		items = addDaily(items, buyer, &accepted[i])
	}
	if len(accepted) == 0 {
		items = noteDaily(items, buyer)
	}
	var writes []types.TransactWriteItem
	for _, d := range items {
		if !d.changed {
			continue
		}
		item := itemKey(partition, dailyKey(day, h.Entitlement, d.part))
		maps.Copy(item, unreconciledAttributes(h, d.part))
		item[attrVersion] = number(strconv.Itoa(d.version + 1))
		item["entitlementID"] = text(h.Entitlement)
		item["buyerID"] = text(buyer)
		item[attrDaily] = text(string(wire.AppendStoredDays(nil, d.sums)))
		writes = append(writes, putIf(&t.name, item, d.version))
	}
	return writes, nil
}

// addDaily adds what was accepted to the item that has its dimension, else to the one that has room
// for it.
func addDaily(items []*dailyItem, buyer string, a *reports.Acceptance) []*dailyItem {
	var to, emptiest *dailyItem
	parts := 0
	for _, d := range items {
		if d.buyer != buyer {
			continue
		}
		parts++
		if _, has := d.sums[a.Dimension]; has {
			to = d
			break
		}
		if emptiest == nil || len(d.sums) < len(emptiest.sums) {
			emptiest = d
		}
	}
	if to == nil && emptiest != nil && (len(emptiest.sums) < dailyPart || parts == maxDailyParts) {
		to = emptiest
	}
	if to == nil {
		to = newDaily(items, buyer)
		items = append(items, to)
	}
	var sum *reports.Daily
	if before, has := to.sums[a.Dimension]; has {
		sum = &before
	}
	to.sums[a.Dimension] = sum.Add(a)
	to.changed = true
	return items
}

// noteDaily changes an item of the buyer, which may be a new one without records.
func noteDaily(items []*dailyItem, buyer string) []*dailyItem {
	for _, d := range items {
		if d.buyer == buyer {
			d.changed = true
			return items
		}
	}
	return append(items, newDaily(items, buyer))
}

// newDaily is an item after those of the day.
func newDaily(items []*dailyItem, buyer string) *dailyItem {
	d := &dailyItem{buyer: buyer, sums: map[string]reports.Daily{}, changed: true}
	if n := len(items); n > 0 {
		d.part = items[n-1].part + 1
	}
	return d
}

// readDaily reads the items of a day, in the order of their parts.
func (t *Table) readDaily(ctx context.Context, partition, prefix string) (items []*dailyItem, err error) {
	input := &dynamodb.QueryInput{
		TableName:                 &t.name,
		KeyConditionExpression:    aws.String("PK = :daily AND begins_with(SK, :day)"),
		ExpressionAttributeValues: map[string]types.AttributeValue{":daily": text(partition), ":day": text(prefix)},
		ConsistentRead:            aws.Bool(true),
		ReturnConsumedCapacity:    wantUnits(ctx),
	}
	for {
		out, err := t.client.Query(ctx, input)
		if err != nil {
			return nil, storageError("read what was accepted in a day", err)
		}
		countRead(ctx, out.ConsumedCapacity)
		for _, item := range out.Items {
			d, err := readDailyItem(item)
			if err != nil {
				return nil, err
			}
			items = append(items, d)
		}
		if input.ExclusiveStartKey = out.LastEvaluatedKey; input.ExclusiveStartKey == nil {
			return items, nil
		}
	}
}

func readDailyItem(item map[string]types.AttributeValue) (*dailyItem, error) {
	r := itemReader{item: item}
	d := &dailyItem{version: versionOf(item), buyer: r.text("buyerID")}
	key := r.text(attrSK)
	var err error
	if d.part, err = strconv.Atoi(key[strings.LastIndex(key, "#")+1:]); err == nil {
		d.sums, err = wire.DecodeStoredDays([]byte(r.text(attrDaily)))
	}
	if r.err == nil {
		r.err = err
	}
	return d, r.storedError("what was accepted in a day")
}

// DailyRecords reads a page of what the partner has accepted, by day, entitlement and dimension,
// newest day first, as List does, and calls encode with it. Of the filter, it reads the days,
// entitlement and buyer.
//
//	Query  PK = ORG#<org>#DAILY#<partner>, SK BETWEEN start AND end,   1 round trip, about 128
//	       backwards                                                   read units per 1 MB
//
// The rest is as List. An item holds several records, so DynamoDB can't count them: a page at an
// offset reads from the last checkpoint before it. Records are not read consistently.
func (t *Table) DailyRecords(ctx context.Context, org metering.OrgID, partner metering.Partner, r metering.ListRequest, buffer []byte,
	encode func(records []byte, page metering.GroupPage) error,
) (laterBy time.Duration, err error) {
	partition := pageKey(org, fingerprint(r.Client, "usageMeteringDailyRecord/"+string(partner)+"?"+r.Query))
	return t.list(ctx, "records", partition, r, func(f metering.GroupFilter) (listed, bool) {
		q := &dailyQuery{partner, newListQuery(attrPK, dailyPartition(org, partner), attrSK, f.StartDate, f.EndDate)}
		f.Partner = "" // it is in the key
		q.filterByOwner(f)
		return q, true
	}, buffer, encode)
}

// dailyQuery is the Query of a list of daily records. Their positions begin with the time at which
// their day begins, continue as the sort key of their item, and end with the dimension.
type dailyQuery struct {
	partner metering.Partner
	listQuery
}

func (q *dailyQuery) exact() bool   { return false }
func (q *dailyQuery) counted() bool { return false }

const dayBegins = "T00:00:00.000Z"

// positionOf is the position of a record, or without a dimension, that after all records of an
// item.
func positionOf(sk, dimension string) string {
	position := sk[:len(time.DateOnly)] + dayBegins + sk[len(time.DateOnly):]
	if dimension == "" {
		return position
	}
	return position + "#" + shortened(dimension)
}

// shortened is a dimension in a position, which is at most half as long as a key of DynamoDB.
func shortened(dimension string) string {
	const most = 100
	if len(dimension) <= most {
		return dimension
	}
	sum := sha256.Sum256([]byte(dimension))
	return metering.Prefix(dimension, most) + hex.EncodeToString(sum[:8])
}

// startAfter continues with the item of the position's record, because records of it may follow.
func (q *dailyQuery) startAfter(input *dynamodb.QueryInput, position string) (ended bool, err error) {
	if position == "" || position < q.from {
		return position != "", nil
	}
	parts := strings.SplitN(position, "#", 4)
	day, ok := strings.CutSuffix(parts[0], dayBegins)
	if !ok || len(day) != len(time.DateOnly) || len(parts) < 3 {
		return false, storageError("list records", fmt.Errorf("%q is no position", position))
	}
	sk := day + "#" + parts[1] + "#" + parts[2]
	if len(parts) == 4 {
		sk += "#" // right after the item
	}
	input.ExclusiveStartKey = itemKey(q.partition, sk)
	return false, nil
}

func (q *dailyQuery) last(key map[string]types.AttributeValue) (string, error) {
	r := itemReader{item: key}
	sk := r.text(attrSK)
	if r.err == nil && len(sk) < len(time.DateOnly) {
		r.err = fmt.Errorf("%q is no key of a day", sk)
	}
	if r.err != nil {
		return "", r.storedError("a key")
	}
	return positionOf(sk, ""), nil
}

func (q *dailyQuery) read(ctx context.Context, l *listing, input *dynamodb.QueryInput) (last string, err error) {
	out, err := l.table.client.Query(ctx, input)
	if err != nil {
		return "", storageError("list records", err)
	}
	countRead(ctx, out.ConsumedCapacity)
	for _, item := range out.Items {
		if l.page.full { // nothing after it is needed
			break
		}
		d, err := readDailyItem(item)
		if err != nil {
			return "", err
		}
		r := itemReader{item: item}
		sk := r.text(attrSK)
		record := wire.DailyRecord{Date: metering.Day(sk[:len(time.DateOnly)]), Entitlement: metering.EntitlementID(r.text("entitlementID")), Partner: q.partner}
		if r.err != nil {
			return "", r.storedError("what was accepted in a day")
		}
		for _, dimension := range slices.Backward(slices.SortedFunc(maps.Keys(d.sums), func(a, b string) int {
			return strings.Compare(shortened(a), shortened(b))
		})) {
			position := positionOf(sk, dimension)
			if l.at.position != "" && position >= l.at.position {
				continue // of the page before
			}
			record.Key, record.Daily = dimension, d.sums[dimension]
			if l.add(position, wire.AppendDailyRecord(nil, &record)); l.page.full {
				break
			}
		}
	}
	if err := l.copyEnd(); err != nil || out.LastEvaluatedKey == nil {
		return "", err
	}
	return q.last(out.LastEvaluatedKey)
}
