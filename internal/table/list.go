package table

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"golang.org/x/sync/errgroup"

	"github.com/marketmeter/marketmeter/internal/apijson"
	"github.com/marketmeter/marketmeter/internal/dynamoclient"
	"github.com/marketmeter/marketmeter/internal/metering"
)

// List appends the groups of a page, as the API returns them, to buffer.
//
//	Query  byStatus, byBuyer, byEntitlement or byTime, backwards   1 round trip and about 128 read units per 1 MB read
//	       partition = ORG#<org>[#...], _time BETWEEN start AND end
//
// A page at an offset costs a checkpoint before, and a page that another follows a putCheckpoint after,
// which is under way when List returns (GroupPage.Kept); a page by its cursor costs neither.
//
// What is read is the groups of the page and one more, however far down the list they are. Where
// something is filtered on top of the index it is all from the first group of the page to the first of
// the next one, to the end of a 1 MB page. An offset at which no page has ended is counted from the
// nearest checkpoint before it, a round trip per 1 MB, and none of what is counted is sent.
//
// When ReadFor is over the page ends with what was found. Where that is nothing, List is Unavailable and
// keeps how far it came: the same request goes on from there. The indexes are eventually consistent: a
// group written a moment ago may not be there yet.
func (t *Table) List(ctx context.Context, org string, r metering.ListRequest, buffer []byte) (metering.GroupPage, error) {
	l := &list{table: t, request: r, partition: pageKey(org, fingerprint(r.Client, r.Query)), until: time.Now().Add(r.ReadFor)}
	err := l.begin(ctx)
	if err != nil {
		return metering.GroupPage{}, err
	}
	filter := r.Filter
	filter.StartDate, filter.EndDate = l.start.startDate, l.start.endDate
	query, possible := newGroupQuery(org, filter)
	if !possible {
		return metering.GroupPage{JSON: buffer, Kept: func() error { return nil }}, nil
	}
	l.query, l.begins, l.page.JSON = query, len(buffer), buffer

	reading, cancel := withTimeToKeep(ctx)
	defer cancel()
	if err = l.count(reading); err == nil {
		err = l.read(reading)
	}
	if metering.CodeOf(err) == metering.Unavailable && reading.Err() != nil && ctx.Err() == nil {
		err = errTimeOver
	}
	switch {
	case err == nil:
	case !errors.Is(err, errTimeOver):
		return metering.GroupPage{}, err
	case l.page.Count == 0:
		return metering.GroupPage{}, l.giveUp(ctx)
	default:
		l.next = l.position
	}
	return l.finish(ctx), nil
}

// errTimeOver ends the reading of a list that is not at its end.
var errTimeOver = errors.New("the time for reading is over")

// keepTime is what reading leaves of a request's time to keep how far it came.
const keepTime = 1500 * time.Millisecond

func withTimeToKeep(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, deadline.Add(-keepTime))
}

// list is a page on its way.
type list struct {
	table     *Table
	request   metering.ListRequest
	partition string // of what is kept between the pages
	start     pageStart
	query     *groupQuery
	until     time.Time

	position string // what was read ends with it
	first    string // position after the first answer
	skip     int    // groups still to be passed over
	skipped  int

	kept   stretch // not yet come to
	looked bool    // for kept
	jumped bool    // over kept

	ended   bool // nothing follows position
	begins  int  // where the groups begin in page.JSON
	page    metering.GroupPage
	twice   int // bytes that count two, of the first counted ones of the page's groups
	counted int
	last    []byte // the position of the last group that was taken, in answer
	end     string // the position of the page's last group
	full    bool   // and a group follows it
	next    string // what the next page begins after; empty where there is none
}

// begin finds where to read from: where the page begins, or the nearest before it that is known.
func (l *list) begin(ctx context.Context) (err error) {
	l.start = pageStart{startDate: l.request.Filter.StartDate, endDate: l.request.Filter.EndDate}
	switch {
	case l.request.Cursor != "":
		l.start, err = readCursor(l.partition, l.request.Cursor)
		l.request.Offset = l.start.offset
	case l.request.Offset > 0:
		nearest, ok, failure := l.table.checkpoint(ctx, l.partition, l.request.Offset, l.request.Now)
		if ok {
			l.start = nearest
		}
		err = failure
	}
	l.position, l.skip = l.start.position, l.request.Offset-l.start.offset
	return err
}

// count passes over groups up to the page's offset, where DynamoDB can count them. It leaves those to read
// that are in the 1 MB in which the page begins.
func (l *list) count(ctx context.Context) error {
	input := l.query.input(ctx, l.table.name)
	input.Select = types.SelectCount
	for l.skip > 0 && len(l.query.metaInfo) == 0 {
		if ended, err := l.query.startAfter(input, l.position); ended || err != nil {
			l.ended = ended
			return err
		}
		if l.query.exact() {
			input.Limit = aws.Int32(int32(min(l.skip, math.MaxInt32)))
		}
		answer, err := l.table.client.Query(ctx, input)
		if err != nil {
			return storageError("count groups", err)
		}
		countRead(ctx, answer.ConsumedCapacity)
		if int(answer.Count) > l.skip {
			return nil
		}
		l.skip -= int(answer.Count)
		l.skipped += int(answer.Count)
		if answer.LastEvaluatedKey == nil {
			l.ended = true
			return nil
		}
		r := itemReader{item: answer.LastEvaluatedKey}
		if l.position = r.text(attrTime); r.err != nil {
			return r.storedError("a key")
		}
		if err := l.goOn(ctx); err != nil {
			return err
		}
	}
	return nil
}

// read takes the groups of the page.
func (l *list) read(ctx context.Context) error {
	answer, ok := l.table.answers.Get().(*[]byte)
	if !ok {
		answer = new([]byte)
	}
	defer l.table.answers.Put(answer)
	input := l.query.input(ctx, l.table.name)
	l.query.project(input)
	for !l.ended {
		if ended, err := l.query.startAfter(input, l.position); ended || err != nil {
			return err
		}
		if most := l.skip + l.request.Limit - l.page.Count + 1; l.query.exact() && most <= maxQueryLimit {
			input.Limit = aws.Int32(int32(most))
		}
		*answer = (*answer)[:0]
		if _, err := l.table.client.Query(dynamoclient.TakeQueryAnswer(ctx, answer), input); err != nil {
			return storageError("list groups", err)
		}
		// What is made of an answer is no longer than it is.
		l.page.JSON = slices.Grow(l.page.JSON, len(*answer))
		groups, beside, err := decodeGroups(*answer, l.page.JSON, l.begins, l.take)
		l.page.JSON = groups
		if err != nil {
			return storageError("list groups", err)
		}
		if len(l.last) > 0 {
			l.end, l.last = string(l.last), nil
		}
		countUnits(ctx, beside.units, 0)
		if l.full {
			l.next = l.end
			return nil
		}
		if beside.last == "" {
			return nil
		}
		l.position = beside.last
		if err := l.goOn(ctx); err != nil {
			return err
		}
	}
	return nil
}

// take is decodeGroups'.
func (l *list) take(g wireGroup) (bool, error) {
	if l.full {
		return false, nil
	}
	matches, err := l.query.matches(g)
	if !matches || err != nil {
		return false, err
	}
	if l.skip > 0 {
		l.skip--
		l.skipped++
		return false, nil
	}
	if l.page.Count == l.request.Limit || l.page.Count > 0 && l.isTooLarge(g.page) {
		l.full = true
		return false, nil
	}
	l.page.Count++
	l.last = g.position
	return true, nil
}

// isTooLarge tells whether the page is over MaxSize. It looks for what counts twice only where that can matter,
// and only in what has been added since it did.
func (l *list) isTooLarge(page []byte) bool {
	if 2*len(page) <= l.request.MaxSize {
		return false
	}
	added := page[l.counted:]
	l.twice += bytes.Count(added, []byte{'"'}) + bytes.Count(added, []byte{'\\'})
	l.counted = len(page)
	return len(page)+l.twice > l.request.MaxSize
}

// goOn ends the reading when its time is over. Where nothing was found yet, it skips what an earlier
// request has read in vain; up to there, and for one answer more, a list is read whatever the time.
func (l *list) goOn(ctx context.Context) error {
	if l.first == "" {
		l.first = l.position
	}
	if !l.looked && l.page.Count == 0 && l.skipped == 0 {
		var err error
		if l.kept, err = l.table.stretch(ctx, l.partition, l.start.position, l.request.Now); err != nil {
			return err
		}
		l.looked = true
	}
	if l.kept.last != "" {
		if l.position <= l.kept.first {
			l.position, l.jumped, l.kept = min(l.position, l.kept.last), true, stretch{}
		}
		return nil
	}
	if time.Now().After(l.until) {
		return errTimeOver
	}
	return nil
}

// giveUp keeps how far the list was read for the request to be repeated.
func (l *list) giveUp(ctx context.Context) error {
	var err error
	switch {
	case l.skipped > 0:
		err = l.table.putCheckpoint(ctx, l.partition, l.at(l.start.offset+l.skipped, l.position), l.request.Now)
		if err == nil && l.jumped {
			err = l.forgetStretch(ctx)
		}
	case l.position != l.start.position && l.kept.last == "":
		first := l.start.position
		if first == "" {
			first = l.first
		}
		err = l.table.putStretch(ctx, l.partition, l.start.position, stretch{first, l.position}, l.request.Now, l.request.Now.Add(stretchLife))
	}
	if err != nil {
		return err
	}
	return &metering.Error{
		Code: metering.Unavailable, RetryAfter: time.Second, Cause: errTimeOver,
		Message: "the groups asked for were not come to in the time that a request has: repeat the request, and it goes on from where it is now",
	}
}

// finish begins to keep where the next page begins.
func (l *list) finish(ctx context.Context) metering.GroupPage {
	var keeping errgroup.Group
	l.page.Kept = keeping.Wait
	if l.next != "" {
		next := l.at(l.request.Offset+l.page.Count, l.next)
		l.page.NextOffset, l.page.NextCursor = next.offset, cursorOf(l.partition, next)
		if l.request.Cursor == "" {
			keeping.Go(func() error { return l.table.putCheckpoint(ctx, l.partition, next, l.request.Now) })
		}
	}
	if l.jumped {
		keeping.Go(func() error { return l.forgetStretch(ctx) })
	}
	return l.page
}

// forgetStretch is for who reads from the same place in a later list, and wants to see what has changed since.
func (l *list) forgetStretch(ctx context.Context) error {
	return l.table.putStretch(ctx, l.partition, l.start.position, stretch{l.first, l.first}, l.request.Now, l.request.Now)
}

func (l *list) at(offset int, position string) pageStart {
	return pageStart{offset, position, l.start.startDate, l.start.endDate}
}

// maxQueryLimit is more than one page of 1 MB holds: from there on a limit saves nothing.
const maxQueryLimit = 10_000

// groupQuery is the Query of a filter: the index that serves it and what is filtered on top.
type groupQuery struct {
	org       string
	index     index
	from, to  string // of attrTime
	partition string
	key       string         // the condition on the index's keys
	filters   []string       // what DynamoDB decides
	metaInfo  map[string]any // what matches decides; filters may hold a part of it already
	names     map[string]string
	values    map[string]types.AttributeValue
}

// newGroupQuery chooses the index by the most selective of its filters. It is not possible where no
// stored group can match.
func newGroupQuery(org string, f metering.GroupFilter) (q *groupQuery, possible bool) {
	q = &groupQuery{org: org, metaInfo: f.MetaInfo, names: map[string]string{}, values: map[string]types.AttributeValue{}}
	switch {
	case f.BuyerID != "":
		q.index, q.partition = byBuyer, buyerKey(org, f.BuyerID)
	case f.EntitlementID != "":
		q.index, q.partition = byEntitlement, entitlementKey(org, f.EntitlementID)
	case f.Status != "":
		q.index, q.partition = byStatus, statusKey(org, f.Status)
	default:
		q.index, q.partition = byTime, orgKey(org)
	}
	q.from, q.to = timeRange(f.StartDate, f.EndDate)
	q.key = q.name(q.index.partition) + " = " + q.value(text(q.partition)) +
		" AND " + q.name(attrTime) + " BETWEEN " + q.value(text(q.from)) + " AND " + q.value(text(q.to))

	if f.Status != "" && q.index != byStatus {
		q.filterEqual("status", string(f.Status))
	}
	if f.Partner != "" {
		q.filterEqual("partner", string(f.Partner))
	}
	if f.ProductID != "" {
		q.filterEqual("productID", f.ProductID)
	}
	if f.Source != "" {
		q.filters = append(q.filters, q.name("metaInfo")+"."+q.name("source")+" = "+q.value(text(string(f.Source))))
	}
	return q, q.filterDocument([]string{"metaInfo"}, f.MetaInfo)
}

// exact reports whether every group read is one of the list.
func (q *groupQuery) exact() bool { return len(q.filters) == 0 && len(q.metaInfo) == 0 }

// matches decides what DynamoDB could not.
func (q *groupQuery) matches(g wireGroup) (bool, error) {
	if len(q.metaInfo) == 0 {
		return true, nil
	}
	stored, err := apijson.DecodeDocument(g.metaInfo)
	return err == nil && metering.Contains(stored, q.metaInfo), err
}

func (q *groupQuery) input(ctx context.Context, table string) *dynamodb.QueryInput {
	input := &dynamodb.QueryInput{
		TableName:                 &table,
		IndexName:                 &q.index.name,
		KeyConditionExpression:    &q.key,
		ExpressionAttributeNames:  q.names,
		ExpressionAttributeValues: q.values,
		ScanIndexForward:          aws.Bool(false),
		ReturnConsumedCapacity:    wantUnits(ctx),
	}
	if len(q.filters) > 0 {
		input.FilterExpression = aws.String(strings.Join(q.filters, " AND "))
	}
	return input
}

// startAfter makes input go on after the position, where that is not empty; ended says that nothing of the
// list is there. DynamoDB goes on from any key between the bounds, whether or not an item has it.
func (q *groupQuery) startAfter(input *dynamodb.QueryInput, position string) (ended bool, err error) {
	if position == "" || position < q.from {
		return position != "", nil
	}
	id, ok := idOf(position)
	if !ok {
		return false, storageError("list groups", fmt.Errorf("%q is no position", position))
	}
	input.ExclusiveStartKey = itemKey(orgKey(q.org), groupKey(id))
	input.ExclusiveStartKey[attrTime] = text(position)
	input.ExclusiveStartKey[q.index.partition] = text(q.partition)
	return false, nil
}

// project asks for what decodeGroups takes: the rest is a third of what would be sent.
func (q *groupQuery) project(input *dynamodb.QueryInput) {
	members := make([]string, len(groupMembers))
	for i, m := range groupMembers {
		members[i] = q.name(m.name)
	}
	input.ProjectionExpression = aws.String(strings.Join(members, ","))
}

func (q *groupQuery) filterEqual(attribute, value string) {
	q.filters = append(q.filters, q.name(attribute)+" = "+q.value(text(value)))
}

// Bounds on what of a document DynamoDB is asked to decide: an expression has at most 4 KB, 300
// operators and paths of 32 levels. What is over them is left to metering.Contains.
const (
	maxFilterLeaves     = 50
	maxFilterDepth      = 30
	maxFilterExpression = 3_000
)

// filterDocument adds conditions that every item whose attribute at path contains the document
// meets; they are necessary, not sufficient: arrays are only asked to be arrays, since DynamoDB's
// contains wants whole elements. It is false where no item can.
func (q *groupQuery) filterDocument(path []string, document map[string]any) bool {
	for _, name := range slices.Sorted(maps.Keys(document)) {
		leaf := append(slices.Clone(path), name)
		var condition func(path string) string
		switch value := document[name].(type) {
		case metering.NoNumber:
			return false
		case map[string]any:
			if len(value) > 0 {
				if !q.filterDocument(leaf, value) {
					return false
				}
				continue
			}
			condition = func(path string) string { return "attribute_type(" + path + ", " + q.value(text("M")) + ")" }
		case []any:
			condition = func(path string) string { return "attribute_type(" + path + ", " + q.value(text("L")) + ")" }
		default:
			condition = func(path string) string { return path + " = " + q.value(documentValue(value)) }
		}
		if q.roomFor(leaf) {
			q.filters = append(q.filters, condition(q.path(leaf)))
		}
	}
	return true
}

func (q *groupQuery) roomFor(leaf []string) bool {
	return len(q.filters) < maxFilterLeaves && len(leaf) <= maxFilterDepth && !slices.Contains(leaf, "") &&
		len(strings.Join(q.filters, " AND "))+len(leaf)*len("#n999.") < maxFilterExpression
}

func (q *groupQuery) path(names []string) string {
	placeholders := make([]string, len(names))
	for i, name := range names {
		placeholders[i] = q.name(name)
	}
	return strings.Join(placeholders, ".")
}

// name makes a placeholder for the name of an attribute, whatever it holds.
func (q *groupQuery) name(attribute string) string {
	placeholder := "#n" + strconv.Itoa(len(q.names))
	q.names[placeholder] = attribute
	return placeholder
}

func (q *groupQuery) value(v types.AttributeValue) string {
	placeholder := ":v" + strconv.Itoa(len(q.values))
	q.values[placeholder] = v
	return placeholder
}
