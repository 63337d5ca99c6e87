package table

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/wire"
)

// Open stores the lists of candidates under the name of the opener, then the hour. Until the hour
// names the opener, nobody sees the lists. It returns reports.ErrChanged if the hour exists, or the
// opener's lists do: an opener opens once.
//
//	PutItem for each list   1 write unit per KB: 190 for 5,000 ids of 36 characters
//	PutItem of the hour     1 write unit, and 1 of byWork, if its ids have up to about 100 bytes
func (t *Table) Open(ctx context.Context, h *reports.Hour, candidates [][]metering.GroupID) error {
	operation := NewOperation()
	for i, ids := range candidates {
		item := itemKey(billKey(h.Organization, h.Entitlement), candidatesKey(h.Start, h.Opener, i))
		pieces := setLongText(item, attrIDs, wire.AppendStoredCandidates(nil, ids), maxPiece, operation)
		if err := t.putPieces(ctx, "store candidates", pieces); err != nil {
			return err
		}
		if err := t.putOnce(ctx, "store candidates", operation, item); err != nil {
			return err
		}
	}
	return t.putOnce(ctx, "open an hour", operation, hourItem(h, operation))
}

// putOnce stores an item of the operation. It returns reports.ErrChanged if there is another.
func (t *Table) putOnce(ctx context.Context, doing string, operation Operation, item map[string]types.AttributeValue) error {
	stored, err := t.putNew(ctx, operation, item)
	if _, conflict := errors.AsType[*types.TransactionConflictException](err); conflict || err == nil && !stored {
		return reports.ErrChanged
	}
	if err != nil {
		return storageError(doing, err)
	}
	return nil
}

// Candidates returns a list of candidates with its sum, if it is stored, read consistently.
//
//	BatchGetItem of the list and its sum   1 round trip, 1 read unit per 4 KB
func (t *Table) Candidates(ctx context.Context, h *reports.Hour, part int) (reports.Candidates, error) {
	const doing = "read candidates"
	pk := billKey(h.Organization, h.Entitlement)
	ids, sum := candidatesKey(h.Start, h.Opener, part), sumKey(h.Start, part)
	items, err := t.getAll(ctx, doing, []map[string]types.AttributeValue{itemKey(pk, ids), itemKey(pk, sum)})
	if err != nil {
		return reports.Candidates{}, err
	}
	written, err := t.strictText(ctx, doing, attrIDs, ids, items[[2]string{pk, ids}])
	if err != nil {
		return reports.Candidates{}, err
	}
	var c reports.Candidates
	if c.IDs, err = wire.DecodeStoredCandidates([]byte(written)); err != nil {
		return reports.Candidates{}, fmt.Errorf("%s: %w", ids, err)
	}
	if item := items[[2]string{pk, sum}]; item != nil {
		written, err := t.strictText(ctx, doing, attrSum, sum, item)
		if err != nil {
			return reports.Candidates{}, err
		}
		if c.Sum, err = wire.DecodeStoredSum([]byte(written)); err != nil {
			return reports.Candidates{}, fmt.Errorf("%s: %w", sum, err)
		}
	}
	return c, nil
}

// strictText returns the text in an attribute of an item that has no other attributes. The error of
// one that this version can't read is reports.ErrNewer.
func (t *Table) strictText(ctx context.Context, doing, attribute, what string, item map[string]types.AttributeValue, beside ...string) (string, error) {
	if err := t.readLongTexts(ctx, doing, attribute, []map[string]types.AttributeValue{item}); err != nil {
		return "", err
	}
	r := strictReader{itemReader{item: item}}
	r.only(append(beside, attrPK, attrSK, attrOperation, attribute))
	written := r.text(attribute)
	return written, r.newer(what)
}

// PutSum stores the sum of a list of candidates, unless one is stored: the first one stays, even if
// a worker that came late found that more candidates are absent by now.
//
//	PutItem   1 write unit per KB
func (t *Table) PutSum(ctx context.Context, h *reports.Hour, part int, sum *reports.Sum) error {
	const doing = "store a sum"
	operation := NewOperation()
	item := itemKey(billKey(h.Organization, h.Entitlement), sumKey(h.Start, part))
	pieces := setLongText(item, attrSum, wire.AppendStoredSum(nil, sum), maxPiece, operation)
	if err := t.putPieces(ctx, doing, pieces); err != nil {
		return err
	}
	if _, err := t.putNew(ctx, operation, item); err != nil {
		return storageError(doing, err)
	}
	return nil
}

// Billable returns what the members with billable records of a list used, read consistently; an
// empty one if none is stored that this version can read: it is made of the members again.
//
//	BatchGetItem of an item   1 round trip, 1 read unit per 4 KB; another one if it has pieces
func (t *Table) Billable(ctx context.Context, h *reports.Hour, part int) (*reports.Billable, error) {
	const doing = "read billable records"
	pk, sk := billKey(h.Organization, h.Entitlement), billableKey(h.Start, part)
	items, err := t.getAll(ctx, doing, []map[string]types.AttributeValue{itemKey(pk, sk)})
	item := items[[2]string{pk, sk}]
	if item == nil || err != nil {
		return reports.NewBillable(), err
	}
	b := reports.NewBillable()
	written, err := t.strictText(ctx, doing, attrBillable, sk, item)
	if err == nil {
		b, err = wire.DecodeStoredBillable([]byte(written))
	}
	if errors.Is(err, reports.ErrNewer) {
		return reports.NewBillable(), nil
	}
	return b, err
}

// PutBillable stores what the members with billable records of a list used, in the place of what is
// stored.
//
//	PutItem   1 write unit per KB
func (t *Table) PutBillable(ctx context.Context, h *reports.Hour, part int, b *reports.Billable) error {
	const doing = "store billable records"
	item := itemKey(billKey(h.Organization, h.Entitlement), billableKey(h.Start, part))
	pieces := setLongText(item, attrBillable, wire.AppendStoredBillable(nil, b), maxPiece, NewOperation())
	return t.putPieces(ctx, doing, append(pieces, item))
}

// AppliedLists returns how many lists of candidates, from the first on, are noted to be applied:
// each member has its status of this version of the hour. It is 0 if none is, or if the note can't
// be read or is of a table that was lost: then all are looked at again.
//
//	GetItem         1 round trip, 1 read unit
//	DescribeTable   1 before, if the last one is over a minute ago
func (t *Table) AppliedLists(ctx context.Context, h *reports.Hour) (int, error) {
	item, err := t.getItem(ctx, "read how far a report is applied", itemKey(billKey(h.Organization, h.Entitlement), appliedKey(h.Start)))
	if item == nil || err != nil {
		return 0, err
	}
	id, err := t.tableID(ctx)
	if err != nil {
		return 0, err
	}
	r := strictReader{itemReader{item: item}}
	version, lists := r.integer(attrVersion), r.integer(attrLists)
	if r.err != nil || !isText(item, attrTableID, id) || version != h.Version || lists < 0 || lists >= h.Parts {
		return 0, nil
	}
	return lists, nil
}

// PutAppliedLists notes how many lists of candidates are applied, in the place of another note.
//
//	PutItem         1 write unit
//	DescribeTable   1 before, if the last one is over a minute ago
//
// The note is an item of its own: the hour stays one that earlier versions can read, and one that
// they have changed has another version than its note.
func (t *Table) PutAppliedLists(ctx context.Context, h *reports.Hour, lists int) error {
	id, err := t.tableID(ctx)
	if err != nil {
		return err
	}
	item := itemKey(billKey(h.Organization, h.Entitlement), appliedKey(h.Start))
	item[attrTableID] = text(id) // a backup may have the note, and not yet its groups or its hour
	item[attrVersion], item[attrLists] = number(strconv.Itoa(h.Version)), number(strconv.Itoa(lists))
	return t.putPieces(ctx, "note how far a report is applied", []map[string]types.AttributeValue{item})
}

// Lease leases the hour of a place to the holder until that time, to the millisecond. It returns
// false if it is leased to another one. A holder may lease again.
//
//	UpdateItem   1 write unit, whether it is leased or not
func (t *Table) Lease(ctx context.Context, p reports.Place, holder string, now, until time.Time) (bool, error) {
	u := newUpdate()
	u.set(attrHolder, text(holder))
	u.set(attrUntil, text(metering.FormatTime(until)))
	end, by := u.name(attrUntil), u.name(attrHolder)
	condition := fmt.Sprintf("attribute_not_exists(%s) OR %s <= %s OR %s = %s",
		end, end, u.value(text(metering.FormatTime(now))), by, u.value(text(holder)))
	key := itemKey(billKey(p.Organization, p.Entitlement), leaseKey(p.Hour))
	_, leased, err := t.updateItem(ctx, "lease an hour", u.blind(ctx, t.name, key, condition))
	return leased, err
}

// EndLease ends the holder's lease of the hour of a place. It does nothing if the holder has none.
//
//	UpdateItem   1 write unit
func (t *Table) EndLease(ctx context.Context, p reports.Place, holder string) error {
	u := newUpdate()
	u.remove(attrHolder)
	u.remove(attrUntil)
	key := itemKey(billKey(p.Organization, p.Entitlement), leaseKey(p.Hour))
	condition := u.name(attrHolder) + " = " + u.value(text(holder))
	_, _, err := t.updateItem(ctx, "end a lease", u.blind(ctx, t.name, key, condition))
	return err
}
