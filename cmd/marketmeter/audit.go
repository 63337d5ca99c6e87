package main

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"syscall"
	"time"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/cli"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/transfer"
)

func revokeFromAudit(ctx context.Context, p cli.Program, file, org string) error {
	if org != "" {
		if err := checkKeyOrg(metering.StoredOrgID, org); err != nil {
			return err
		}
	}
	from, err := p.Open(file)
	if err != nil {
		return err
	}
	defer from.Close()
	ring, err := openKeyring(ctx, p)
	if err != nil {
		return err
	}
	signal.Ignore(syscall.SIGPIPE) // if the reader has gone, Write returns an error
	var writing error              // a failed write does not stop the revocations
	write := func(format string, a ...any) {
		if _, err := fmt.Fprintf(p.Stdout, format+"\n", a...); err != nil && writing == nil {
			writing = err
		}
	}
	replay := auth.Replay{
		Keyring: ring, Organization: org, Now: time.Now,
		Done:   func(line int, id string, end auth.KeyEnd) { write("line %d: %s", line, end.Describe(id)) },
		Failed: func(line int, err error) { fmt.Fprintf(p.Stderr, "line %d: %v\n", line, err) },
	}
	lines, err := transfer.NewLineReader(ctx, from)
	if err != nil && !errors.Is(err, transfer.ErrNoText) { // a damaged line stops no other
		return err
	}
	counts, err := replay.Lines(ctx, lines)
	write("%v", counts)
	switch {
	case err != nil:
		return fmt.Errorf("%w; not all lines were done: run it again", err)
	case writing != nil:
		return fmt.Errorf("what was done could not be written to standard output: %w", writing)
	case counts.Failed > 0:
		return cli.ExitStatus(1)
	}
	return nil
}
