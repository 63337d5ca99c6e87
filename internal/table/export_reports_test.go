package table

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering/reports"
)

// DailyItems is dailyItems.
func (t *Table) DailyItems(ctx context.Context, s *reports.Step) ([]types.TransactWriteItem, error) {
	return t.dailyItems(ctx, s)
}

// WriteDaily is the part of a step that writes what was accepted, in a transaction of its own.
func (t *Table) WriteDaily(ctx context.Context, s *reports.Step, between func()) error {
	items, err := t.dailyItems(ctx, s)
	if between(); err != nil || len(items) == 0 {
		return err
	}
	_, err = t.client.TransactWriteItems(ctx, &dynamodb.TransactWriteItemsInput{TransactItems: items})
	return err
}
