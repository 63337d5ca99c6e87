package table

import (
	"context"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// NewSerials is newSerials, for tests of the numbers alone.
func (t *Table) NewSerials(ctx context.Context, org metering.OrgID, n int, now time.Time) ([]int32, error) {
	return t.newSerials(ctx, org, n, now)
}

// SetSerial sets the counter to a number to which no import raises it.
func (t *Table) SetSerial(ctx context.Context, org metering.OrgID, n int32) error {
	return t.moveSerial(ctx, org, "serialID", "<", n)
}
