package table

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// gateKey is both keys of the item that all workers ask before they open, send or apply anything.
const gateKey = "REPORTING"

// The item's attributes. It has tableID from the first worker on, and pausedTime while it is
// paused.
const (
	attrTableID     = "tableID"
	attrPausedBy    = "pausedBy"
	attrPausedTime  = "pausedTime"
	attrResumedBy   = "resumedBy"
	attrResumedTime = "resumedTime"
	attrFloor       = "floor" // of a table that was restored: the first hour that may be opened

	attrRestoredTime = "restoredTime" // of a table that was restored: when reporting was resumed on it
)

// Gate returns why workers must not open, send or apply anything: an operator has paused them, or
// the table is not the one that they began on, because it was restored. It is empty if they may.
//
//	GetItem        PK = SK = REPORTING   1 round trip, 1 read unit
//	DescribeTable                        1 before, if the last one is over a minute ago
//	UpdateItem     PK = SK = REPORTING   1 after, once for each table: 1 write unit
func (t *Table) Gate(ctx context.Context) (closed string, err error) { return t.gate(ctx, true) }

// Stopped is Gate for a person: it does not begin to report.
//
//	as Gate, without the UpdateItem
func (t *Table) Stopped(ctx context.Context) (closed string, err error) { return t.gate(ctx, false) }

func (t *Table) gate(ctx context.Context, begin bool) (closed string, err error) {
	id, err := t.tableID(ctx)
	if err != nil {
		return "", err
	}
	item, err := t.getItem(ctx, "read whether reporting is paused", itemKey(gateKey, gateKey))
	if err != nil {
		return "", err
	}
	r := itemReader{item: item}
	if !r.has(attrTableID) {
		if !begin {
			id = ""
		} else if item, err = t.takeTable(ctx, id); err != nil {
			return "", err
		}
	}
	floor, err := floorOf(item)
	if err != nil {
		return "", err
	}
	t.described.mu.Lock()
	t.described.floor = floor
	t.described.mu.Unlock()
	return closedBy(item, id)
}

// Floor is the first hour that may be opened, as Gate has read it last; zero if any may.
func (t *Table) Floor() time.Time {
	t.described.mu.Lock()
	defer t.described.mu.Unlock()
	return t.described.floor
}

func floorOf(item map[string]types.AttributeValue) (floor time.Time, err error) {
	r := itemReader{item: item}
	if r.has(attrFloor) {
		if floor, err = time.Parse(hourLayout, r.text(attrFloor)); err != nil {
			return floor, storageError("read the first hour that may be opened", err)
		}
	}
	return floor, nil
}

// restoredTime is when reporting was resumed on the table after it had been restored, and the first
// hour that was opened then; zero if it was not restored.
//
//	GetItem  PK = SK = REPORTING   1 round trip, 1 read unit
func (t *Table) restoredTime(ctx context.Context) (at, floor time.Time, err error) {
	item, err := t.getItem(ctx, "read whether the table was restored", itemKey(gateKey, gateKey))
	r := itemReader{item: item}
	if err != nil || !r.has(attrRestoredTime) {
		return at, floor, err
	}
	if at, err = metering.ParseTime(r.text(attrRestoredTime)); err != nil {
		r.fail(attrRestoredTime, "a time")
	}
	if err := r.storedError("the state of reporting"); err != nil {
		return at, floor, err
	}
	floor, err = floorOf(item)
	return at, floor, err
}

// RestoredFloor is the first hour that may be opened on a table that was restored: the table that
// was lost has sent no usage of it, nor of one after it. It is zero if the table was not restored,
// and Conflict if it was, until ResumeRestored.
//
//	GetItem        PK = SK = REPORTING   1 round trip, 1 read unit
//	DescribeTable                        1 before, if the last one is over a minute ago
func (t *Table) RestoredFloor(ctx context.Context) (floor time.Time, err error) {
	id, err := t.tableID(ctx)
	if err != nil {
		return floor, err
	}
	item, err := t.getItem(ctx, "read whether the table was restored", itemKey(gateKey, gateKey))
	if err != nil {
		return floor, err
	}
	r := itemReader{item: item}
	if r.has(attrTableID) {
		if reason := restoredSince(&r, id); reason != "" {
			return floor, metering.Errorf(metering.Conflict, "%s", reason)
		}
	}
	if err := r.storedError("the state of reporting"); err != nil {
		return floor, err
	}
	return floorOf(item)
}

// ResumeRestored ends the pause of a restored table, once nothing in it may be sent that was sent
// before: from then on it is the table that reporting has begun on. No hour before floor is
// opened, and no group is retried that has not changed since now. It returns Conflict if the table
// was not restored, unless reporting is paused.
//
//	UpdateItem     PK = SK = REPORTING   1 round trip, 1 write unit
//	DescribeTable                        1 before, if the last one is over a minute ago
func (t *Table) ResumeRestored(ctx context.Context, by string, floor, now time.Time) error {
	id, err := t.tableID(ctx)
	if err != nil {
		return err
	}
	u := newUpdate()
	began, paused := u.name(attrTableID), u.name(attrPausedTime)
	condition := "attribute_not_exists(" + began + ") OR " + began + " <> " + u.value(text(id)) + " OR attribute_exists(" + paused + ")"
	u.remove(attrPausedBy)
	u.remove(attrPausedTime)
	u.set(attrTableID, text(id))
	u.set(attrResumedBy, text(by))
	u.set(attrResumedTime, text(metering.FormatTime(now)))
	u.set(attrFloor, text(hourText(floor)))
	u.set(attrRestoredTime, text(metering.FormatTime(now)))
	if _, resumed, err := t.updateItem(ctx, "resume reporting", u.input(ctx, t.name, itemKey(gateKey, gateKey), condition)); err != nil || resumed {
		return err
	}
	return metering.Errorf(metering.Conflict, "reporting is not paused, and the table was not restored since it began: nothing is to be resumed")
}

// takeTable notes on which table the workers begin, and returns the item: another worker may have
// been first.
func (t *Table) takeTable(ctx context.Context, id string) (map[string]types.AttributeValue, error) {
	u := newUpdate()
	u.set(attrTableID, text(id))
	item, _, err := t.updateItem(ctx, "begin to report", u.input(ctx, t.name, itemKey(gateKey, gateKey), "attribute_not_exists("+attrTableID+")"))
	return item, err
}

// closedBy returns why the item closes the gate of the table with that id.
func closedBy(item map[string]types.AttributeValue, id string) (closed string, err error) {
	r := itemReader{item: item}
	if id != "" { // empty: reporting has not begun
		if reason := restoredSince(&r, id); reason != "" {
			return reason, nil
		}
	}
	if r.has(attrPausedTime) {
		closed = "reporting is paused: by " + r.text(attrPausedBy) + ", since " + r.text(attrPausedTime)
	}
	return closed, r.storedError("the state of reporting")
}

// restoredSince says that the table with the id is not the one that reporting began on; it is empty
// if it is, or can't be read.
func restoredSince(r *itemReader, id string) string {
	if began := r.text(attrTableID); r.err == nil && began != id {
		return restored(began, id)
	}
	return ""
}

func restored(began, id string) string {
	return fmt.Sprintf("the table was restored: reporting began on the table with the id %s, and this one has the id %s", began, id)
}

// Pause makes workers open, send and apply nothing until Resume. If they are paused already, the
// name of the first operator stays.
//
//	UpdateItem  PK = SK = REPORTING   1 round trip, 1 write unit
func (t *Table) Pause(ctx context.Context, by string, now time.Time) error {
	u := newUpdate()
	for name, value := range map[string]string{attrPausedBy: by, attrPausedTime: metering.FormatTime(now)} {
		n := u.name(name)
		u.sets = append(u.sets, n+" = if_not_exists("+n+", "+u.value(text(value))+")")
	}
	out, err := t.client.UpdateItem(ctx, u.unconditional(ctx, t.name, itemKey(gateKey, gateKey)))
	if err != nil {
		return storageError("pause reporting", err)
	}
	countWrite(ctx, out.ConsumedCapacity)
	return nil
}

// Resume ends a Pause. It returns Conflict if the table was restored: what was sent since the
// backup is not in it, and would be sent again.
//
//	UpdateItem     PK = SK = REPORTING   1 round trip, 1 write unit
//	DescribeTable                        1 before, if the last one is over a minute ago
func (t *Table) Resume(ctx context.Context, by string, now time.Time) error {
	id, err := t.tableID(ctx)
	if err != nil {
		return err
	}
	u := newUpdate()
	u.remove(attrPausedBy)
	u.remove(attrPausedTime)
	u.set(attrResumedBy, text(by))
	u.set(attrResumedTime, text(metering.FormatTime(now)))
	began := u.name(attrTableID)
	condition := "attribute_not_exists(" + began + ") OR " + began + " = " + u.value(text(id))
	found, resumed, err := t.updateItem(ctx, "resume reporting", u.input(ctx, t.name, itemKey(gateKey, gateKey), condition))
	if err != nil || resumed {
		return err
	}
	r := itemReader{item: found}
	return metering.Errorf(metering.Conflict, "%s: usage that was sent since the backup would be sent again", restored(r.text(attrTableID), id))
}

// describedTable is the id of the table, and when it was read. A process may outlive its table: one
// that is restored under the same name has another id, and the items of the old one.
type describedTable struct {
	mu sync.Mutex
	id string
	at time.Time // on the wall: other clocks may stand while a function is frozen

	floor time.Time // as Gate has read it last
}

// maxDescribed is how old the id may be. To delete a table and restore it takes longer.
const maxDescribed = time.Minute

// tableID returns the id that DynamoDB has given the table.
func (t *Table) tableID(ctx context.Context) (string, error) {
	d := &t.described
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now().Round(0)
	if age := now.Sub(d.at); d.id != "" && age >= 0 && age < maxDescribed {
		return d.id, nil
	}
	out, err := t.client.DescribeTable(ctx, &dynamodb.DescribeTableInput{TableName: &t.name})
	if err != nil {
		return "", storageError("describe the table", err)
	}
	d.id, d.at = aws.ToString(out.Table.TableId), now
	if d.id == "" { // DynamoDB Local gives tables no id
		d.id = "of " + metering.FormatTime(aws.ToTime(out.Table.CreationDateTime))
	}
	return d.id, nil
}
