package table

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
)

// A day that is to be compared with what its marketplace has processed is in byWork by its daily
// records, from the first outcome of a record that was sent. Whatever changes an outcome of the day
// writes a daily record, and so brings the day back.

// unreconciledKey is the partition of byWork of the days of an organization. They are together, so
// that each is read back once.
func unreconciledKey(org metering.OrgID) string { return unreconciledPrefix + shardOf(string(org)) }

const unreconciledPrefix = "DAILY#"

// unreconciledDueKey sorts the daily records of an unreconciledKey by day, then by organization and
// entitlement.
func unreconciledDueKey(d *reports.Day, part int) string {
	return fmt.Sprintf("%s#%s#%s#%03d", metering.DayOf(d.Date), dueEscaper.Replace(string(d.Organization)), dueEscaper.Replace(string(d.Entitlement)), part)
}

// unreconciledAttributes are the keys in byWork of a daily record of the hour; none if its
// marketplace can't be read back.
func unreconciledAttributes(h *reports.Hour, part int) map[string]types.AttributeValue {
	if !reports.ReadsBack(h.Sealed.Partner) {
		return nil
	}
	d := h.Day()
	return map[string]types.AttributeValue{
		attrWork: text(unreconciledKey(d.Organization)), attrDue: text(unreconciledDueKey(&d, part)),
	}
}

// comparesDay returns the day whose daily record the entry is. ok is false if it is not an entry
// that this version writes.
func (e *workEntry) comparesDay() (d reports.Day, ok bool) {
	parts := strings.Split(e.due, "#")
	if len(parts) != 4 {
		return d, false
	}
	date, err := time.Parse(time.DateOnly, parts[0])
	d = reports.Day{
		Organization: metering.OrgID(dueUnescaper.Replace(parts[1])), Entitlement: metering.EntitlementID(dueUnescaper.Replace(parts[2])), Date: date,
	}
	part, notNumber := strconv.Atoi(parts[3])
	if err != nil || notNumber != nil || e.work != unreconciledKey(d.Organization) || e.due != unreconciledDueKey(&d, part) {
		return d, false
	}
	for _, partner := range metering.Partners {
		if e.pk == dailyPartition(d.Organization, partner) && e.sk == dailyKey(metering.DayOf(date), d.Entitlement, part) {
			d.Partner = partner
		}
	}
	return d, d.Partner != ""
}

// EachUnreconciled calls take for each day that is to be compared with what its marketplace has
// processed. Those of an organization and a date follow each other. It begins with any partition:
// if the caller's time ends, not always the same ones are left. Entries that this version does not
// know are left alone, and noticed.
//
//	Query  byWork, _work = DAILY#<0 to 15>   16, one after the other; each 1 round trip, and
//	                                         0.5 read units per 4 KB
func (t *Table) EachUnreconciled(ctx context.Context, take func(reports.Day) error) error {
	var unknown unknownEntries
	defer func() { noticeUnknown(ctx, []unknownEntries{unknown}) }()
	first := rand.N(workShards)
	for i := range workShards {
		shard := (first + i) % workShards
		var last reports.Day
		for e, err := range t.workOf(ctx, unreconciledPrefix+strconv.Itoa(shard), "", nil) {
			if err != nil {
				return err
			}
			d, ok := e.comparesDay()
			switch {
			case !ok:
				unknown.add(&e)
				continue
			case d == last: // another part of its daily records
				continue
			}
			last = d
			if err := take(d); err != nil {
				return err
			}
		}
	}
	return nil
}

// Day returns the hours of a day, and the versions of its daily records as they were before, read
// consistently. Its error is reports.ErrNewer if this version can't read one of them.
//
//	Query  as Write reads daily records
//	as Hours, for 24 hours
func (t *Table) Day(ctx context.Context, d reports.Day) (reports.StoredDay, error) {
	stored := reports.StoredDay{Versions: map[int]int{}}
	items, err := t.readDaily(ctx, dailyPartition(d.Organization, d.Partner), dailyPrefix(metering.DayOf(d.Date), d.Entitlement))
	if err != nil {
		return stored, err
	}
	for _, item := range items {
		stored.Versions[item.part] = item.version
	}
	read, err := t.hours(ctx, d.Places())
	if err != nil {
		return stored, err
	}
	for p, of := range read {
		if of.err != nil {
			return stored, fmt.Errorf("the hour %s: %w", hourText(p.Hour), of.err)
		}
		if of.hour != nil {
			stored.Hours = append(stored.Hours, of.hour)
		}
	}
	slices.SortFunc(stored.Hours, func(a, b *reports.Hour) int { return a.Start.Compare(b.Start) })
	return stored, nil
}

// Reconciled ends the comparison of a day: its daily records leave byWork, unless they have changed
// since they were read.
//
//	UpdateItem  PK = ORG#<org>#DAILY#<partner>,          1 round trip for each, 2 write units per KB
//	            SK = <date>#<entitlement>#<part>
func (t *Table) Reconciled(ctx context.Context, d reports.Day, read reports.StoredDay) error {
	for part, version := range read.Versions {
		u := newUpdate()
		u.remove(attrWork)
		u.remove(attrDue)
		condition := u.name(attrVersion) + " = " + u.value(number(strconv.Itoa(version)))
		key := itemKey(dailyPartition(d.Organization, d.Partner), dailyKey(metering.DayOf(d.Date), d.Entitlement, part))
		if _, _, err := t.updateItem(ctx, "end the comparison of a day", u.input(ctx, t.name, key, condition)); err != nil {
			return err
		}
	}
	return nil
}
