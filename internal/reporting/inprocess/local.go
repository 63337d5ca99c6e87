package inprocess

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/marketmeter/marketmeter/internal/reporting"
	"github.com/marketmeter/marketmeter/internal/stack"
)

// ErrOff is the error of a table on which no workers may run in a process: usage would be billed
// from a developer's machine, beside the workers of its stack.
var ErrOff = errors.New("workers run in a process only on DynamoDB Local at a loopback address, beside a sandbox")

// NewWorker returns a worker for this process, which sends usage to the sandbox alone. Without a
// table or a sandbox on this machine it returns an ErrOff that says what is missing.
func NewWorker(ctx context.Context, target *stack.Target, sandboxURL string, now func() time.Time, log *slog.Logger) (reporting.Worker, error) {
	off := func(format string, a ...any) (reporting.Worker, error) {
		return reporting.Worker{}, fmt.Errorf("%s: %w", fmt.Sprintf(format, a...), ErrOff)
	}
	if !IsLoopback(target.At) {
		return off("the table is at %s", target.At)
	}
	local, err := target.IsLocal(ctx)
	if err != nil {
		return reporting.Worker{}, err
	}
	if !local {
		return off("what responds at %s is not DynamoDB Local", target.At)
	}
	if sandboxURL == "" {
		return off("no sandbox is known: SANDBOX_URL names it, which .local/env of `make run` has")
	}
	sandbox := Sandbox{sandboxURL}
	if err := sandbox.Check(ctx); err != nil {
		return off("SANDBOX_URL is %s: %v", sandboxURL, err)
	}
	return reporting.Worker{Store: target.Table, Marketplaces: sandbox.Connector(now), Lanes: &reporting.Lanes{}, Now: now, Log: Warnings(log)}, nil
}
