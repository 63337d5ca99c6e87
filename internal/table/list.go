package table

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"golang.org/x/sync/errgroup"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table/listjson"
)

// List reads a page of the organization's groups and calls encode with it. docs/listing.md explains
// how a page is found, when it ends, and what is stored between the pages.
//
//	Query    the nearest checkpoint, only at an offset   1 round trip, 1 read unit
//	Query    byStatus, byBuyer, byEntitlement or byTime  1 round trip, about 128 read units per 1 MB
//	         partition = ORG#<org>[#...], _time BETWEEN start AND end, backwards
//	PutItem  the next page's checkpoint, if there is a   1 round trip, 1 write unit
//	         next page and the request had no cursor
//
// encode gets buffer with the page appended: the groups in the API's JSON, joined by commas. The
// checkpoint is stored while encode runs, so the caller sends the output of encode only after List
// has returned no error: without the checkpoint, the next page would be counted in a list that has
// changed. laterBy is not 0 if a request that was later by that much has stored another checkpoint:
// the next page begins there.
//
// List returns Invalid if the cursor is not one of this list. It returns Unavailable if DynamoDB
// does not respond, or ReadFor ends, before a group of the page is found. If it read farther than
// earlier requests, it has stored its progress, and the same request continues from there. If a
// group was found by then, the page ends with the last one found. Indexes are eventually
// consistent: a group that was stored a moment ago may be missing.
func (t *Table) List(ctx context.Context, org metering.OrgID, r metering.ListRequest, buffer []byte,
	encode func(groups []byte, page metering.GroupPage) error,
) (laterBy time.Duration, err error) {
	return t.list(ctx, "groups", pageKey(org, fingerprint(r.Client, r.Query)), r, func(f metering.GroupFilter) (listed, bool) {
		return newGroupQuery(org, f)
	}, buffer, encode)
}

// list is List of what query reads. The checkpoints of the list are in the partition.
func (t *Table) list(ctx context.Context, what, partition string, r metering.ListRequest, query func(metering.GroupFilter) (q listed, possible bool),
	buffer []byte, encode func(page []byte, p metering.GroupPage) error,
) (laterBy time.Duration, err error) {
	l := &listing{table: t, what: what, request: r, partition: partition, deadline: time.Now().Add(r.ReadFor)}
	if err := l.begin(ctx); err != nil {
		return 0, err
	}
	filter := r.Filter
	filter.StartDate, filter.EndDate = l.start.startDate, l.start.endDate
	var possible bool
	if l.query, possible = query(filter); !possible {
		return 0, encode(buffer, metering.GroupPage{})
	}
	l.page = page{json: buffer, begin: len(buffer), limit: r.Limit, size: sizeLimit{max: r.MaxSize}}

	reading, cancel := withTimeToStore(ctx)
	defer cancel()
	if err = l.count(reading); err == nil {
		err = l.read(reading)
	}
	switch {
	case err == nil:
	case metering.CodeOf(err) != metering.Unavailable || ctx.Err() != nil:
		return 0, err
	case l.page.count == 0:
		return 0, l.storeProgress(ctx, err)
	}
	return l.finish(ctx, encode)
}

// listed is what a list reads: items of one partition of the table or an index, sorted by their
// positions, in descending order.
type listed interface {
	// input is the Query from the newest item on.
	input(ctx context.Context, table string) *dynamodb.QueryInput
	// startAfter makes the Query continue after the position, if it is not empty; ended reports
	// that nothing of the list follows.
	startAfter(input *dynamodb.QueryInput, position string) (ended bool, err error)
	// exact reports whether each item that is read is an object of the list.
	exact() bool
	// counted reports whether DynamoDB can count the objects of the list.
	counted() bool
	// last returns the position of a LastEvaluatedKey.
	last(key map[string]types.AttributeValue) (string, error)
	// read sends the Query and calls l.take with the objects of its response. It returns the
	// position at which DynamoDB stopped, which is empty at the end.
	read(ctx context.Context, l *listing, input *dynamodb.QueryInput) (last string, err error)
}

// storeTime is the part of a request's time that reading leaves for storing its progress.
const storeTime = 1500 * time.Millisecond

func withTimeToStore(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, deadline.Add(-storeTime))
}

// listing is one request for a page.
type listing struct {
	table     *Table
	what      string // is listed, for messages
	request   metering.ListRequest
	partition string // of the checkpoints and empty ranges of the list
	query     listed
	deadline  time.Time // for reading

	start checkpoint // start of reading
	at    checkpoint // how far it came; the next page begins there, unless ended
	ended bool       // no group of the list follows at
	end   string     // the position of the last object of the page
	retry retry
	page  page
}

// begin sets the start of reading: the cursor, the nearest checkpoint, or the newest group.
func (l *listing) begin(ctx context.Context) (err error) {
	l.start = checkpoint{startDate: l.request.Filter.StartDate, endDate: l.request.Filter.EndDate}
	switch {
	case l.request.Cursor != "":
		l.start, err = readCursor(l.partition, l.request.Cursor)
		l.request.Offset = l.start.offset
	case l.request.Offset > 0:
		nearest, ok, failure := l.table.nearestCheckpoint(ctx, l.partition, l.request.Offset, l.request.Now)
		if ok {
			l.start = nearest
		}
		err = failure
	}
	l.at = l.start
	return err
}

// count moves to the page's offset as far as DynamoDB can count: to the response in which the page
// begins. read then reads that response.
func (l *listing) count(ctx context.Context) error {
	input := l.query.input(ctx, l.table.name)
	input.Select = types.SelectCount
	for l.at.offset < l.request.Offset && l.query.counted() {
		left := l.request.Offset - l.at.offset
		if ended, err := l.query.startAfter(input, l.at.position); ended || err != nil {
			l.ended = ended
			return err
		}
		if l.query.exact() {
			input.Limit = aws.Int32(int32(min(left, math.MaxInt32)))
		}
		response, err := l.table.client.Query(ctx, input)
		if err != nil {
			return storageError("count "+l.what, err)
		}
		countRead(ctx, response.ConsumedCapacity)
		if int(response.Count) > left {
			return nil
		}
		l.at.offset += int(response.Count)
		if response.LastEvaluatedKey == nil {
			l.ended = true
			return nil
		}
		if l.at.position, err = l.query.last(response.LastEvaluatedKey); err != nil {
			return err
		}
		if err := l.afterResponse(ctx); err != nil {
			return err
		}
	}
	return nil
}

// read reads until the page is full or the list ends.
func (l *listing) read(ctx context.Context) error {
	input := l.query.input(ctx, l.table.name)
	for !l.ended {
		if ended, err := l.query.startAfter(input, l.at.position); ended || err != nil {
			l.ended = ended
			return err
		}
		// One more than the page holds shows whether another follows.
		if left := l.request.Offset + l.request.Limit + 1 - l.at.offset; l.query.exact() && left <= maxQueryLimit {
			input.Limit = aws.Int32(int32(left))
		}
		last, err := l.query.read(ctx, l, input)
		if err != nil {
			return err
		}
		switch {
		case l.page.full:
			l.at.position = l.end
			return nil
		case last == "":
			l.ended = true
			return nil
		}
		l.at.position = last
		if err := l.afterResponse(ctx); err != nil {
			return err
		}
	}
	return nil
}

// afterResponse moves past the range that an earlier request has found empty. It returns
// Unavailable if the time for reading is over.
func (l *listing) afterResponse(ctx context.Context) error {
	if skipping, err := l.skipEmptyRange(ctx); skipping || err != nil {
		return err
	}
	if time.Now().After(l.deadline) {
		return metering.Errorf(metering.Unavailable, "the time for reading is over")
	}
	return nil
}

// maxQueryLimit is more than one response of 1 MB holds. A larger limit saves nothing.
const maxQueryLimit = 10_000

// take reports whether an object of the list, which follows at, is in the page. If it is not after
// the page, at moves past it.
func (l *listing) take(g listjson.Group) bool {
	if l.page.full {
		return false
	}
	inPage := l.at.offset >= l.request.Offset
	if inPage && !l.page.add(g) {
		return false
	}
	l.at.offset++
	return inPage
}

// copyEnd copies the position of the last object of the page out of the response that holds it.
func (l *listing) copyEnd() error {
	if len(l.page.last) == 0 {
		return nil
	}
	l.end, l.page.last = string(l.page.last), nil
	if _, ok := idOf(l.end); !ok {
		return storageError("list "+l.what, fmt.Errorf("%q is no position", l.end))
	}
	return nil
}

// storeProgress stores how far reading came without finding a group of the page, so that a retry
// continues from there. It returns Unavailable with the cause why.
func (l *listing) storeProgress(ctx context.Context, why error) error {
	var laterBy time.Duration
	var err error
	now := l.request.Now
	switch {
	case l.at.offset > l.start.offset:
		laterBy, err = l.table.putCheckpoint(ctx, l.partition, l.at, now)
		if err == nil && l.retry.passed {
			err = l.expireEmptyRange(ctx)
		}
	case l.retry.loaded && l.retry.ahead == (emptyRange{}):
		empty := emptyRange{l.start.position, l.at.position}
		if empty.after == "" { // newer groups can still arrive before the first response
			empty.after = l.retry.first
		}
		laterBy, err = l.table.putEmptyRange(ctx, l.partition, l.start.position, empty, now, now.Add(emptyRangeLife))
	default: // no farther than an earlier request
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
		Message: fmt.Sprintf("the %s asked for were not reached in the %v that a request reads a list: repeat the request, and it continues from there", l.what, l.request.ReadFor),
	}
}

// finish calls encode while it stores what the next request needs.
func (l *listing) finish(ctx context.Context, encode func([]byte, metering.GroupPage) error) (laterBy time.Duration, err error) {
	page := metering.GroupPage{Count: l.page.count}
	var storing struct {
		errgroup.Group
		laterBy time.Duration
	}
	if !l.ended {
		page.NextOffset, page.NextCursor = l.at.offset, cursorOf(l.partition, l.at)
		if l.request.Cursor == "" {
			storing.Go(func() (err error) {
				storing.laterBy, err = l.table.putCheckpoint(ctx, l.partition, l.at, l.request.Now)
				return err
			})
		}
	}
	if l.retry.passed {
		storing.Go(func() error {
			_ = l.expireEmptyRange(ctx) // if it fails, the range expires by itself
			return nil
		})
	}
	err = encode(l.page.json, page)
	if failure := storing.Wait(); err == nil {
		err = failure
	}
	return storing.laterBy, err
}
