package table

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"golang.org/x/sync/errgroup"

	"github.com/marketmeter/marketmeter/internal/dynamoclient"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table/listjson"
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
// nearest checkpoint before it, a round trip per 1 MB, and none of what is counted is sent; but where a metaInfo
// filters, which takes reading the groups.
//
// When ReadFor is over, or DynamoDB does not answer, the page ends with what was found. Where that is nothing,
// List is Unavailable and keeps how far it came: the same request goes on from there. The indexes are eventually consistent: a
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
		return metering.GroupPage{JSON: buffer, Kept: func() (time.Duration, error) { return 0, nil }}, nil
	}
	l.query, l.begins, l.page.JSON = query, len(buffer), buffer

	reading, cancel := withTimeToKeep(ctx)
	defer cancel()
	if err = l.count(reading); err == nil {
		err = l.read(reading)
	}
	switch {
	case err == nil:
	case metering.CodeOf(err) != metering.Unavailable || ctx.Err() != nil:
		return metering.GroupPage{}, err
	case l.page.Count == 0:
		return metering.GroupPage{}, l.giveUp(ctx, err)
	default: // the page ends with what was found
		l.next = l.position
	}
	return l.finish(ctx), nil
}

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

	barren stretch // not yet come to
	looked bool    // for barren
	jumped bool    // over barren

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
	for l.skip > 0 && l.query.metaInfo == nil {
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
		if err := l.afterAnswer(ctx); err != nil {
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
		groups, beside, err := listjson.AppendGroups(l.page.JSON, *answer, l.begins, l.take)
		l.page.JSON = groups
		if err != nil {
			return storageError("list groups", err)
		}
		if len(l.last) > 0 {
			l.end, l.last = string(l.last), nil
			if _, ok := idOf(l.end); !ok {
				return storageError("list groups", fmt.Errorf("%q is no position", l.end))
			}
		}
		countUnits(ctx, beside.Units, 0)
		if l.full {
			l.next = l.end
			return nil
		}
		if beside.Last == "" {
			return nil
		}
		l.position = beside.Last
		if err := l.afterAnswer(ctx); err != nil {
			return err
		}
	}
	return nil
}

// take is called by listjson.AppendGroups.
func (l *list) take(g listjson.Group) (bool, error) {
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
	if l.page.Count == l.request.Limit || l.page.Count > 0 && l.isTooLarge(g.Page) {
		l.full = true
		return false, nil
	}
	l.page.Count++
	l.last = g.Position
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

// afterAnswer is Unavailable when the time for reading is over. Where nothing was found yet, it skips what an
// earlier request has read in vain; up to there, and for one answer more, a list is read whatever the time.
func (l *list) afterAnswer(ctx context.Context) error {
	if l.first == "" {
		l.first = l.position
	}
	if !l.looked && l.page.Count == 0 && l.skipped == 0 {
		var err error
		if l.barren, err = l.table.stretch(ctx, l.partition, l.start.position, l.request.Now); err != nil {
			return err
		}
		l.looked = true
	}
	if l.barren.last != "" {
		if l.position <= l.barren.first {
			l.position, l.jumped, l.barren = min(l.position, l.barren.last), true, stretch{}
		}
		return nil
	}
	if time.Now().After(l.until) {
		return metering.Errorf(metering.Unavailable, "the time for reading is over")
	}
	return nil
}

// giveUp keeps how far the list was read, for the request to be repeated, and fails; why is what ended it.
func (l *list) giveUp(ctx context.Context, why error) error {
	var laterBy time.Duration
	var err error
	switch {
	case l.skipped > 0:
		laterBy, err = l.table.putCheckpoint(ctx, l.partition, l.at(l.start.offset+l.skipped, l.position), l.request.Now)
		if err == nil && l.jumped {
			err = l.forgetStretch(ctx)
		}
	case l.looked && l.barren.last == "":
		first := l.start.position
		if first == "" {
			first = l.first
		}
		laterBy, err = l.table.putStretch(ctx, l.partition, l.start.position, stretch{first, l.position}, l.request.Now, l.request.Now.Add(stretchLife))
	default: // no farther than an earlier one
		return why
	}
	if err != nil {
		return err
	}
	if laterBy > 0 {
		why = fmt.Errorf("%w; how far it came was left out for what a request has kept that came %v later", why, laterBy)
	}
	return &metering.Error{
		Code: metering.Unavailable, RetryAfter: time.Second, Cause: why,
		Message: fmt.Sprintf("the groups asked for were not reached in the %v that a request reads a list: repeat the request, and it continues from there", l.request.ReadFor),
	}
}

// finish begins to keep where the next page begins.
func (l *list) finish(ctx context.Context) metering.GroupPage {
	var keeping errgroup.Group
	var laterBy time.Duration
	l.page.Kept = func() (time.Duration, error) {
		err := keeping.Wait()
		return laterBy, err
	}
	if l.next != "" {
		next := l.at(l.request.Offset+l.page.Count, l.next)
		l.page.NextOffset, l.page.NextCursor = next.offset, cursorOf(l.partition, next)
		if l.request.Cursor == "" {
			keeping.Go(func() (err error) {
				laterBy, err = l.table.putCheckpoint(ctx, l.partition, next, l.request.Now)
				return err
			})
		}
	}
	if l.jumped {
		keeping.Go(func() error {
			_ = l.forgetStretch(ctx) // if not now, then when it expires
			return nil
		})
	}
	return l.page
}

// forgetStretch is for who reads from the same place in a later list, and wants to see what has changed since.
func (l *list) forgetStretch(ctx context.Context) error {
	_, err := l.table.putStretch(ctx, l.partition, l.start.position, stretch{l.first, l.first}, l.request.Now, l.request.Now)
	return err
}

func (l *list) at(offset int, position string) pageStart {
	return pageStart{offset, position, l.start.startDate, l.start.endDate}
}

// maxQueryLimit is more than one page of 1 MB holds: from there on a limit saves nothing.
const maxQueryLimit = 10_000
