package inprocess

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/reporting"
)

// observed is a store that counts what moves usage on, and shows each hour that is written.
type observed struct {
	reporting.Store
	wrote func(*reports.Hour)
	steps atomic.Int64
}

func (o *observed) Open(ctx context.Context, h *reports.Hour, candidates [][]metering.GroupID) error {
	return o.step(o.Store.Open(ctx, h, candidates))
}

func (o *observed) Write(ctx context.Context, s *reports.Step) error {
	err := o.step(o.Store.Write(ctx, s))
	if err == nil {
		o.wrote(s.After)
	}
	return err
}

func (o *observed) Move(ctx context.Context, p reports.Place, id metering.GroupID, to time.Time) error {
	return o.step(o.Store.Move(ctx, p, id, to))
}

func (o *observed) Expire(ctx context.Context, p reports.Place, id metering.GroupID, problem metering.Problem, now time.Time) (bool, error) {
	expired, err := o.Store.Expire(ctx, p, id, problem, now)
	return expired, o.step(err)
}

func (o *observed) step(err error) error {
	if err == nil {
		o.steps.Add(1)
	}
	return err
}
