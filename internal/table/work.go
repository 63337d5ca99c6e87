package table

import (
	"context"
	"iter"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"golang.org/x/sync/errgroup"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
)

// byWork is the index of all that waits to be reported: keys alone.
const byWork = "byWork"

// workEntry is an entry of byWork.
type workEntry struct{ pk, sk, work, due string }

// dueUnescaper returns what dueEscaper has escaped.
var dueUnescaper = strings.NewReplacer("%p", "%", "%h", "#")

// placePrefix begins the dueKey of all that waits for a place.
func placePrefix(p reports.Place) string { return dueKey(p.Hour, p.Organization, p.Entitlement, "") }

// waitsFor returns the place that the entry waits for, and the group; an hour has no id. ok is
// false if it is not an entry that this version writes.
func (e *workEntry) waitsFor() (p reports.Place, id metering.GroupID, ok bool) {
	parts := strings.SplitN(e.due, "#", 4) // the id is not escaped
	if len(parts) != 4 {
		return p, "", false
	}
	hour, err := time.Parse(hourLayout, parts[0])
	p = reports.Place{
		Organization: metering.OrgID(dueUnescaper.Replace(parts[1])), Entitlement: metering.EntitlementID(dueUnescaper.Replace(parts[2])), Hour: hour,
	}
	id = metering.GroupID(strings.Clone(parts[3])) // a million ids do not keep their entries
	if err != nil || e.work != workKey(p.Organization, p.Entitlement) || e.due != dueKey(hour, p.Organization, p.Entitlement, id) {
		return p, "", false
	}
	if id == "" {
		return p, "", e.pk == billKey(p.Organization, p.Entitlement) && e.sk == hourKey(hour)
	}
	return p, id, e.pk == orgKey(p.Organization) && e.sk == groupKey(id)
}

// sendsNext returns the lane that the entry is of, as its sort key has it, the next attempt, and
// the place of the hour. ok is false if it is not an entry that this version writes.
func (e *workEntry) sendsNext() (lane string, next time.Time, p reports.Place, ok bool) {
	parts := strings.SplitN(e.due, "#", 3)
	if len(parts) != 3 {
		return "", next, p, false
	}
	next, err := metering.ParseTime(parts[1])
	p, isHour := placeOf(e.pk, e.sk)
	return parts[0], next, p, err == nil && isHour && e.due == sendDueKey(dueUnescaper.Replace(parts[0]), next, p.Hour)
}

// EachPlace calls take for each place that has groups which wait for it, or an hour which is OPEN
// or DECIDED, between these hours, both included. A zero first hour is any. The calls follow each
// other, in no order. Entries that this version does not know are left alone, and noticed.
//
//	Query  byWork, _work = WORK#<0 to 15>, _due of the hours   16 at once, each 1 round trip, and
//	                                                           more by the number of places
//
// What waits for one place may be a million groups: a page that holds one place alone is the last
// of that place that is read. The index lags: a place may be missing, or be called for in vain.
func (t *Table) EachPlace(ctx context.Context, first, last time.Time, take func(reports.Place) error) error {
	caller := ctx
	scans, ctx := errgroup.WithContext(ctx)
	var mu sync.Mutex // the calls of take follow each other
	unknown := make([]unknownEntries, workShards)
	one := func(p reports.Place) error {
		mu.Lock()
		defer mu.Unlock()
		if err := ctx.Err(); err != nil {
			return storageError("read what waits to be reported", err)
		}
		return take(p)
	}
	from := "0"
	if !first.IsZero() {
		from = hourText(first)
	}
	for shard := range workShards {
		scans.Go(func() error {
			return t.scanPlaces(ctx, workPrefix+strconv.Itoa(shard), from, hourText(last)+afterSeparator, one, &unknown[shard])
		})
	}
	err := scans.Wait()
	noticeUnknown(caller, unknown)
	return err
}

// EachSealed calls take for each sealed hour, lane by lane, those of a lane by their next attempt.
// Entries that this version does not know are left alone, and noticed.
//
//	Query  byWork, _work = SEND#<0 to 15>   16, one after the other; each 1 round trip, and 0.5 read
//	                                        units per 4 KB
func (t *Table) EachSealed(ctx context.Context, take func(lane string, next time.Time, p reports.Place) error) error {
	var unknown unknownEntries
	defer func() { noticeUnknown(ctx, []unknownEntries{unknown}) }()
	for shard := range workShards {
		for e, err := range t.workOf(ctx, sendPrefix+strconv.Itoa(shard), "", nil) {
			if err != nil {
				return err
			}
			lane, next, p, ok := e.sendsNext()
			if !ok {
				unknown.add(&e)
				continue
			}
			if err := take(dueUnescaper.Replace(lane), next, p); err != nil {
				return err
			}
		}
	}
	return nil
}

// afterSeparator is the byte after "#": what begins with x and "#" is between x and x with it.
const afterSeparator = "$"

// How many entries a page of EachPlace has: few at first, since one place may fill it, and more
// while pages hold several places.
const (
	minWorkPage = 64
	maxWorkPage = 1024
)

// scanPlaces is EachPlace in one partition.
func (t *Table) scanPlaces(ctx context.Context, partition, from, to string, take func(reports.Place) error, unknown *unknownEntries) error {
	limit := int32(minWorkPage)
	var start map[string]types.AttributeValue
	var last reports.Place
	for {
		entries, next, err := t.workPage(ctx, partition, "#due BETWEEN :from AND :to", map[string]string{":from": from, ":to": to}, limit, start)
		if err != nil {
			return err
		}
		alone, first := len(entries) > 0, reports.Place{} // whether the page is of one place alone
		for i := range entries {
			p, _, ok := entries[i].waitsFor()
			if i == 0 {
				first = p
			}
			alone = alone && ok && p == first
			switch {
			case !ok:
				unknown.add(&entries[i])
			case p != last:
				last = p
				if err := take(p); err != nil {
					return err
				}
			}
		}
		switch {
		case next == nil:
			return nil
		case alone:
			from, start, limit = strings.TrimSuffix(placePrefix(last), "#")+afterSeparator, nil, minWorkPage
		default:
			start, limit = next, min(2*limit, maxWorkPage)
		}
	}
}

// wholePage is more entries than the megabyte of a page has. It is for DynamoDB Local: without a
// limit, it reads all entries of a partition into its heap for each page.
const wholePage = 1 << 14

// workOf are the entries of a partition of byWork, or those of it that meet the condition on #due.
func (t *Table) workOf(ctx context.Context, partition, condition string, values map[string]string) iter.Seq2[workEntry, error] {
	return func(yield func(workEntry, error) bool) {
		for entries, err := range t.workPages(ctx, partition, condition, values, wholePage) {
			if err != nil {
				yield(workEntry{}, err)
				return
			}
			for _, e := range entries {
				if !yield(e, nil) {
					return
				}
			}
		}
	}
}

// workPages is workOf in pages of at most limit entries. The last one may be empty.
func (t *Table) workPages(ctx context.Context, partition, condition string, values map[string]string, limit int32) iter.Seq2[[]workEntry, error] {
	return func(yield func([]workEntry, error) bool) {
		var start map[string]types.AttributeValue
		for {
			entries, next, err := t.workPage(ctx, partition, condition, values, limit, start)
			if !yield(entries, err) || err != nil || next == nil {
				return
			}
			start = next
		}
	}
}

// workPage is one page of a partition of byWork.
func (t *Table) workPage(ctx context.Context, partition, condition string, values map[string]string, limit int32, start map[string]types.AttributeValue) (entries []workEntry, next map[string]types.AttributeValue, err error) {
	input := &dynamodb.QueryInput{
		TableName:                 &t.name,
		IndexName:                 aws.String(byWork),
		KeyConditionExpression:    aws.String("#work = :work"),
		ExpressionAttributeNames:  map[string]string{"#work": attrWork},
		ExpressionAttributeValues: map[string]types.AttributeValue{":work": text(partition)},
		ExclusiveStartKey:         start,
		Limit:                     &limit,
		ReturnConsumedCapacity:    wantUnits(ctx),
	}
	if condition != "" {
		*input.KeyConditionExpression += " AND " + condition
		input.ExpressionAttributeNames["#due"] = attrDue
	}
	for name, value := range values {
		input.ExpressionAttributeValues[name] = text(value)
	}
	page, err := t.client.Query(ctx, input)
	if err != nil {
		return nil, nil, storageError("read what waits to be reported", err)
	}
	countRead(ctx, page.ConsumedCapacity)
	entries = make([]workEntry, len(page.Items))
	for i, item := range page.Items {
		r := itemReader{item: item}
		entries[i] = workEntry{r.text(attrPK), r.text(attrSK), r.text(attrWork), r.text(attrDue)}
		if r.err != nil {
			return nil, nil, r.storedError("an entry of byWork")
		}
	}
	return entries, page.LastEvaluatedKey, nil
}

// Due returns the sealed hours of a lane whose next attempt is due, by next attempt, in pages of at
// most max. The last one may be empty.
//
//	Query  byWork, _work = SEND#<by lane>, _due of the lane up to now   each page 1 round trip
func (t *Table) Due(ctx context.Context, lane string, now time.Time, max int) iter.Seq2[[]reports.Place, error] {
	values := map[string]string{":from": sendLane(lane), ":to": sendLane(lane) + metering.FormatTime(now) + afterSeparator}
	limit := int32(min(max, maxWorkPage)) //nolint:gosec // at most maxWorkPage
	return func(yield func([]reports.Place, error) bool) {
		var unknown unknownEntries
		defer func() { noticeUnknown(ctx, []unknownEntries{unknown}) }()
		for entries, err := range t.workPages(ctx, sendKey(lane), "#due BETWEEN :from AND :to", values, limit) {
			var places []reports.Place
			for i := range entries {
				if _, _, p, ok := entries[i].sendsNext(); ok {
					places = append(places, p)
				} else {
					unknown.add(&entries[i])
				}
			}
			if !yield(places, err) {
				return
			}
		}
	}
}

// Waiting returns the groups that wait for a place, by their ids.
//
//	Query  byWork, _work = WORK#<by place>, _due of the place   1 round trip and 128 read units per
//	                                                            1 MB, which is some 5,000 groups
func (t *Table) Waiting(ctx context.Context, p reports.Place) ([]metering.GroupID, error) {
	var (
		ids     []metering.GroupID
		unknown unknownEntries
	)
	place := map[string]string{":place": placePrefix(p)}
	for e, err := range t.workOf(ctx, workKey(p.Organization, p.Entitlement), "begins_with(#due, :place)", place) {
		if err != nil {
			return nil, err
		}
		switch _, id, ok := e.waitsFor(); {
		case !ok:
			unknown.add(&e)
		case id != "":
			ids = append(ids, id)
		}
	}
	noticeUnknown(ctx, []unknownEntries{unknown})
	return ids, nil
}

// unknownEntries counts entries of byWork that this version does not know: a newer one may have
// written them. They are left alone.
type unknownEntries struct {
	n     int
	first workEntry
}

func (u *unknownEntries) add(e *workEntry) {
	if u.n == 0 {
		u.first = *e
	}
	u.n++
}

func noticeUnknown(ctx context.Context, all []unknownEntries) {
	n, first := 0, workEntry{}
	for _, u := range all {
		if n == 0 {
			first = u.first
		}
		n += u.n
	}
	if n > 0 {
		notice(ctx, reports.UnknownWork, n, "pk", first.pk, "sk", first.sk, "work", first.work, "due", first.due)
	}
}
