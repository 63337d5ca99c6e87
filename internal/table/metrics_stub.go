package table

import (
	"context"

	"github.com/marketmeter/marketmeter/internal/metering"
)

func (t *Table) Metrics(context.Context, metering.OrgID) ([]metering.BillableMetric, error) {
	return nil, nil
}
