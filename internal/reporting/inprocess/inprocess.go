// Package inprocess runs the workers of usage reporting in this process: for make run, and for
// `marketmeter report run`. In AWS they are Lambda functions with queues.
package inprocess

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/reporting"
)

const (
	daily   = 24 * time.Hour  // the interval of reconciliation
	workers = 4               // goroutines that plan and submit
	limit   = 2 * time.Minute // for the work of one hint; that of the Lambda functions
	grace   = 5 * time.Second // for the work under way when the runner stops
)

// Runner runs the workers on a queue in memory.
type Runner struct {
	worker reporting.Worker
	store  *observed
	queue  Queue

	planned, submitted, failed atomic.Int64
}

// New returns a runner of the worker, whose queue is replaced by one in memory. It calls wrote with
// each hour that it has written, at times several at once.
func New(worker reporting.Worker, wrote func(*reports.Hour)) *Runner {
	r := &Runner{worker: worker, store: &observed{Store: worker.Store, wrote: wrote}}
	r.worker.Store, r.worker.Queue = r.store, &r.queue
	return r
}

// Run schedules at once and then at each interval, works on what is due, and reconciles at once and
// then daily, until ctx is done. Work that is under way then has a few seconds to end. All
// goroutines have ended when Run returns.
func (r *Runner) Run(ctx context.Context, interval time.Duration) {
	var all sync.WaitGroup
	defer all.Wait()
	r.start(ctx, &all, false)
	all.Go(func() { r.each(ctx, daily, "reconcile", r.worker.Reconcile) })
	r.each(ctx, interval, "schedule", func(ctx context.Context) error {
		_, err := r.schedule(ctx)
		return err
	})
}

// each calls do at once and then at each interval, until ctx is done.
func (r *Runner) each(ctx context.Context, interval time.Duration, what string, do func(context.Context) error) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		if err := do(ctx); err != nil && ctx.Err() == nil {
			r.worker.Log.Warn(what+" failed", "error", err.Error())
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// Work is what a runner has done.
type Work struct {
	Planned   int // places that were looked at
	Submitted int // lanes that were sent
	Failed    int // of these, how many ended with an error, which is in the log
	Steps     int // how often something was written that moves usage on
}

// Round schedules once and works until no hint is left.
func (r *Runner) Round(ctx context.Context) (Work, reporting.Overview, error) {
	before := r.work()
	seen, err := r.schedule(ctx)
	if err != nil {
		return Work{}, seen, err
	}
	var all sync.WaitGroup
	r.start(ctx, &all, true)
	all.Wait()
	after := r.work()
	return Work{
		after.Planned - before.Planned, after.Submitted - before.Submitted, after.Failed - before.Failed, after.Steps - before.Steps,
	}, seen, ctx.Err()
}

func (r *Runner) work() Work {
	return Work{int(r.planned.Load()), int(r.submitted.Load()), int(r.failed.Load()), int(r.store.steps.Load())}
}

func (r *Runner) schedule(ctx context.Context) (reporting.Overview, error) {
	within, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	r.queue.scheduling()
	return r.worker.Schedule(within)
}

// start starts the goroutines. They take hints until ctx is done or, with untilIdle, none is left.
func (r *Runner) start(ctx context.Context, all *sync.WaitGroup, untilIdle bool) {
	working, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	for range workers {
		running.Go(func() {
			for {
				hint, ok := r.queue.take(ctx, untilIdle)
				if !ok {
					return
				}
				r.do(working, hint)
				r.queue.done(hint)
			}
		})
	}
	all.Go(func() {
		stop := context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })
		running.Wait()
		stop()
		cancel()
	})
}

// do works on a hint. What fails is found again by the next schedule.
func (r *Runner) do(ctx context.Context, hint reporting.Hint) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if hint.Lane == "" {
		r.planned.Add(1)
	} else {
		r.submitted.Add(1)
	}
	err := r.worker.Work(ctx, hint)
	if err == nil || errors.Is(err, context.Canceled) { // it was stopped
		return
	}
	r.failed.Add(1)
	r.worker.Log.Warn("work on a hint failed", "hint", hint, "error", err.Error())
}
