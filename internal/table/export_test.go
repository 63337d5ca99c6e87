package table

import (
	"context"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
)

// NewSerials is newSerials, for tests of the numbers alone.
func (t *Table) NewSerials(ctx context.Context, org metering.OrgID, n int, now time.Time) ([]int32, error) {
	return t.newSerials(ctx, org, n, now)
}

// SetSerial sets the counter to a number to which no import raises it.
func (t *Table) SetSerial(ctx context.Context, org metering.OrgID, n int32) error {
	return t.moveSerial(ctx, org, "serialID", "<", n)
}

// The keys of byWork, for tests that write its entries.
func OrgKey(org metering.OrgID) string { return orgKey(org) }

func GroupKey(id string) string { return groupKey(metering.GroupID(id)) }

func WorkKey(p reports.Place) string { return workKey(p.Organization, p.Entitlement) }

func DueKey(p reports.Place, id string) string {
	return dueKey(p.Hour, p.Organization, p.Entitlement, metering.GroupID(id))
}

func BillKey(p reports.Place) string { return billKey(p.Organization, p.Entitlement) }

func SendKey(lane string) string { return sendKey(lane) }

func SendDueKey(lane string, next, hour time.Time) string { return sendDueKey(lane, next, hour) }

// AgeTableID makes the table's id as old as it may be.
func (t *Table) AgeTableID() { t.described.at = t.described.at.Add(-maxDescribed) }
