package table

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/wire"
)

// An hour is an item that is written with each change, and its records beside it, in parts: a step
// writes the parts that it changes. DynamoDB reads each item consistently, but not several at one
// moment, so each part has the version of the hour that wrote it. The hour has that of its first
// part, which is read with it. The others are read after it: if one of them is newer than the hour,
// the hour is read again.

const (
	attrState    = "state"
	attrForm     = "form"   // the version of the form of the item
	attrOpened   = "opened" // when
	attrOpener   = "opener"
	attrLists    = "lists"   // how many lists of candidates it has; in a note, how many are applied
	attrNext     = "next"    // absent if it is zero
	attrLane     = "lane"    // of a sealed hour, for people
	attrRecords  = "records" // in the hour, how many it has; in a part, the records
	attrFirst    = "first"   // the version that wrote the first part of the records
	attrIDs      = "ids"
	attrSum      = "sum"
	attrBillable = "billable"
	attrLedger   = "ledger"
	attrCalls    = "calls"
	attrHolder   = "holder" // of a lease, with its end
	attrUntil    = "until"
)

const (
	// hourForm is the form of an hour that this version reads and writes.
	hourForm = 1

	// usualPart is how many records a part has, unless the hour would have more than maxParts. That
	// leaves room in a transaction of 100 items for the hour, the ledger, calls and daily records.
	usualPart = 50
	maxParts  = 80

	// hoursAtOnce is how many hours are read at once, each with its first part.
	hoursAtOnce = maxBatchGet / 2

	// maxReads is how often an hour is read that does not change, and whose parts are of other
	// versions.
	maxReads = 5
)

// ofHour are the attributes that an hour may have.
var ofHour = []string{
	attrPK, attrSK, attrOperation, attrWork, attrDue, attrState, attrVersion, attrForm, attrOpened, attrOpener,
	attrLists, attrNext, attrLane, attrRecords, attrFirst,
}

// partSize is how many records a part of an hour has.
func partSize(records int) int { return max(usualPart, (records+maxParts-1)/maxParts) }

// partCount is how many parts the records of a sealed hour have. The first also has what else is
// sealed.
func partCount(records int) int {
	size := partSize(records)
	return max(1, (records+size-1)/size)
}

// partOf returns the records of a part.
func partOf(records []reports.Record, part int) []reports.Record {
	size := partSize(len(records))
	return records[part*size : min((part+1)*size, len(records))]
}

// hourItem is the item of an hour without the version that wrote the first part of its records.
func hourItem(h *reports.Hour, operation Operation) map[string]types.AttributeValue {
	item := itemKey(billKey(h.Organization, h.Entitlement), hourKey(h.Start))
	maps.Copy(item, workAttributes(h))
	item[attrOperation] = operation.value()
	item[attrForm] = number(strconv.Itoa(hourForm))
	item[attrState] = text(h.State)
	item[attrVersion] = number(strconv.Itoa(h.Version))
	item[attrOpened] = text(h.Opened.UTC().Format(time.RFC3339Nano))
	item[attrOpener] = text(h.Opener)
	item[attrLists] = number(strconv.Itoa(h.Parts))
	if !h.Next.IsZero() {
		item[attrNext] = text(h.Next.UTC().Format(time.RFC3339Nano))
	}
	if h.Sealed != nil {
		item[attrLane] = text(h.Sealed.Lane)
		item[attrRecords] = number(strconv.Itoa(len(h.Sealed.Records)))
	}
	return item
}

// readHour reads the item of an hour. It returns how many records the hour has, and the version
// that wrote the first part of them.
func readHour(p reports.Place, item map[string]types.AttributeValue) (h *reports.Hour, records, first int, err error) {
	r := strictReader{itemReader{item: item}}
	r.only(ofHour)
	h = &reports.Hour{
		Organization: p.Organization, Entitlement: p.Entitlement, Start: p.Hour,
		State: reports.State(r.text(attrState)), Version: r.integer(attrVersion),
		Opened: r.exactTime(attrOpened), Opener: r.text(attrOpener), Parts: r.integer(attrLists),
	}
	if form := r.integer(attrForm); form != hourForm && r.err == nil {
		r.err = fmt.Errorf("form is %d: it must be %d", form, hourForm)
	}
	if !slices.Contains(reports.States, h.State) && r.err == nil {
		r.err = fmt.Errorf("state is %q, which this version does not know", h.State)
	}
	if r.has(attrNext) {
		h.Next = r.exactTime(attrNext)
	}
	if h.State != reports.StateOpen {
		records, first = r.integer(attrRecords), r.integer(attrFirst)
	}
	return h, records, first, r.newer("the hour " + hourKey(p.Hour))
}

// strictReader reads an item of which this version must know all.
type strictReader struct{ itemReader }

// only fails if the item has another attribute.
func (r *strictReader) only(known []string) {
	for name := range r.item {
		if !slices.Contains(known, name) && r.err == nil {
			r.err = fmt.Errorf("attribute %s is unknown", name)
		}
	}
}

func (r *strictReader) integer(name string) int {
	n, err := strconv.Atoi(r.number(name))
	if err != nil {
		r.fail(name, "an integer")
	}
	return n
}

// exactTime reads a time with all its digits.
func (r *strictReader) exactTime(name string) time.Time {
	at, err := time.Parse(time.RFC3339Nano, r.text(name))
	if err != nil {
		r.fail(name, "a time")
	}
	return at.UTC()
}

// newer is the error of an item that can't be read.
func (r *strictReader) newer(what string) error {
	if r.err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w: %w", what, reports.ErrNewer, r.err)
}

// Hour returns an hour with its records, read consistently; nil if it does not exist. Its error is
// reports.ErrNewer if this version can't read it in all its parts.
//
//	BatchGetItem of the hour and the first part of   1 round trip, 1 read unit per 4 KB of each;
//	its records; then of the others, if over 50      2 if more parts exist
func (t *Table) Hour(ctx context.Context, p reports.Place) (*reports.Hour, error) {
	read, err := t.hours(ctx, []reports.Place{p})
	if err != nil {
		return nil, err
	}
	return read[p].hour, read[p].err
}

// Hours returns hours by their places. Those that do not exist, and those that this version can't
// read, are missing.
//
//	as Hour, 50 hours at once
func (t *Table) Hours(ctx context.Context, places []reports.Place) (map[reports.Place]*reports.Hour, error) {
	hours := make(map[reports.Place]*reports.Hour, len(places))
	for batch := range slices.Chunk(places, hoursAtOnce) {
		read, err := t.hours(ctx, batch)
		if err != nil {
			return nil, err
		}
		for p, of := range read {
			if of.err == nil && of.hour != nil {
				hours[p] = of.hour
			}
		}
	}
	return hours, nil
}

// readOf is what was read of a place.
type readOf struct {
	hour    *reports.Hour
	version int   // of the hour, if err is errTorn
	err     error // of an hour that this version can't read
}

// errTorn is the error of an hour whose parts were read at another version than the hour.
var errTorn = errors.New("its parts are of other versions")

// hours reads at most hoursAtOnce hours, and again those that changed meanwhile. One whose parts
// are of other versions although it does not change is damaged.
func (t *Table) hours(ctx context.Context, places []reports.Place) (map[reports.Place]readOf, error) {
	all := make(map[reports.Place]readOf, len(places))
	unchanged := map[reports.Place]int{} // how often it was read at this version
	for attempt := 0; ; attempt++ {
		read, err := t.hoursOnce(ctx, places)
		if err != nil {
			return nil, err
		}
		places = nil
		for p, of := range read {
			if of.version == all[p].version {
				unchanged[p]++
			} else {
				unchanged[p] = 1
			}
			all[p] = of
			if errors.Is(of.err, errTorn) && unchanged[p] < maxReads {
				places = append(places, p)
			}
		}
		if len(places) == 0 {
			return all, nil
		}
		if err := pause(ctx, attempt); err != nil {
			return nil, storageError("read hours", err)
		}
	}
}

// hoursOnce reads hours. The error of one that changed meanwhile is errTorn.
func (t *Table) hoursOnce(ctx context.Context, places []reports.Place) (map[reports.Place]readOf, error) {
	keys := map[[2]string]map[string]types.AttributeValue{}
	key := func(p reports.Place, sk string) [2]string {
		return [2]string{billKey(p.Organization, p.Entitlement), sk}
	}
	want := func(p reports.Place, sk string) {
		keys[key(p, sk)] = itemKey(billKey(p.Organization, p.Entitlement), sk)
	}
	for _, p := range places {
		want(p, hourKey(p.Hour))
		want(p, recordsKey(p.Hour, 0))
	}
	items, err := t.getAll(ctx, "read hours", slices.Collect(maps.Values(keys)))
	if err != nil {
		return nil, err
	}
	type layout struct{ records, first int }
	read := make(map[reports.Place]readOf, len(places))
	layouts := map[reports.Place]layout{} // of those that are sealed
	clear(keys)
	for _, p := range places {
		item := items[key(p, hourKey(p.Hour))]
		if item == nil {
			read[p] = readOf{}
			continue
		}
		h, records, first, err := readHour(p, item)
		if err != nil {
			h = nil
		}
		read[p] = readOf{hour: h, err: err}
		if h != nil && h.State != reports.StateOpen {
			layouts[p] = layout{records, first}
			for part := 1; part < partCount(records); part++ {
				want(p, recordsKey(p.Hour, part))
			}
		}
	}
	more, err := t.getAll(ctx, "read hours", slices.Collect(maps.Values(keys)))
	if err != nil {
		return nil, err
	}
	maps.Copy(items, more)
	for p, l := range layouts {
		h := read[p].hour
		parts := make([]map[string]types.AttributeValue, partCount(l.records))
		for i := range parts {
			parts[i] = items[key(p, recordsKey(p.Hour, i))]
		}
		if err := t.readRecords(ctx, h, l.records, l.first, parts); err != nil {
			if !errors.Is(err, errTorn) && !errors.Is(err, reports.ErrNewer) {
				return nil, err
			}
			read[p] = readOf{version: h.Version, err: err}
		}
	}
	return read, nil
}

// ofPart are the attributes that a part of the records may have.
var ofPart = []string{attrPK, attrSK, attrOperation, attrVersion, attrRecords, attrPieces}

// readRecords reads the parts of the records of a sealed hour into it.
func (t *Table) readRecords(ctx context.Context, h *reports.Hour, records, first int, parts []map[string]types.AttributeValue) error {
	what := "the records of the hour " + hourKey(h.Start)
	for i, item := range parts {
		r := strictReader{itemReader{item: item}}
		version := r.integer(attrVersion)
		if item == nil || r.err == nil && (version > h.Version || i == 0 && version != first) {
			return fmt.Errorf("%s: %w: %w", what, reports.ErrNewer, errTorn)
		}
		r.only(ofPart)
		if err := r.newer(what); err != nil {
			return err
		}
	}
	if err := t.readLongTexts(ctx, "read hours", attrRecords, parts); err != nil {
		return err
	}
	for i, item := range parts {
		r := strictReader{itemReader{item: item}}
		written := r.text(attrRecords)
		if err := r.newer(what); err != nil {
			return err
		}
		sealed, some, err := wire.DecodeStoredRecords([]byte(written))
		if err == nil && (sealed == nil) != (i > 0) {
			err = fmt.Errorf("%w: part %d has what belongs to another", reports.ErrNewer, i)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if i == 0 {
			h.Sealed = sealed
		}
		h.Sealed.Records = append(h.Sealed.Records, some...)
	}
	if len(h.Sealed.Records) != records {
		return fmt.Errorf("%s: %w: %d of %d", what, reports.ErrNewer, len(h.Sealed.Records), records)
	}
	return nil
}
