package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/transfer"
)

const auditHelp = `With --from-audit, revokes again what was revoked since a backup that was restored: FILE has the lines of JSON
that these commands wrote to standard error, and may have other log lines. Keys that were revoked are revoked.
Keys that were rotated end when they were to end, if they would live longer; the keys that replaced them are not
made again. The lines of all organizations count, or with --org those of one. It can be run again: what has ended
is left as it is.

A line that is damaged, or names a key that is not there, is reported on standard error with its number, and the
rest goes on. The last line of output counts the keys that were revoked and ended, and the lines that changed
nothing or failed. The exit status is 0 if all was done, 1 if a line failed.

`

func revokeFromAudit(ctx context.Context, p program, file, org string) error {
	if org != "" {
		if err := checkKeyOrg(org, checkStoredOrg); err != nil {
			return err
		}
	}
	from := p.stdin
	if file != "-" {
		opened, err := os.Open(file)
		if err != nil {
			return err
		}
		defer opened.Close()
		from = opened
	}
	ring, err := p.openKeyring(ctx)
	if err != nil {
		return err
	}
	signal.Ignore(syscall.SIGPIPE) // if the reader has gone, Write returns an error
	var writing error              // a failed write does not stop the revocations
	say := func(format string, a ...any) {
		if _, err := fmt.Fprintf(p.stdout, format+"\n", a...); err != nil && writing == nil {
			writing = err
		}
	}
	replay := auth.Replay{
		Keyring: ring, Organization: org, Now: time.Now,
		Done: func(line int, id string, end auth.KeyEnd) {
			if end.Revoked {
				say("line %d: revoked key %s of organization %s", line, id, metering.Quote(end.Organization))
			} else {
				say("line %d: key %s of organization %s ends at %s", line, id, metering.Quote(end.Organization), metering.FormatTime(end.At))
			}
		},
		Failed: func(line int, err error) { fmt.Fprintf(p.stderr, "line %d: %v\n", line, err) },
	}
	lines, err := transfer.NewLineReader(ctx, from)
	if err != nil && !errors.Is(err, transfer.ErrNoText) { // a damaged line stops no other
		return err
	}
	counts, err := replay.Lines(ctx, lines)
	say("revoked %d, ended %d, unchanged %d, failed %d", counts.Revoked, counts.Ended, counts.Unchanged, counts.Failed)
	switch {
	case err != nil:
		return fmt.Errorf("%w; not all lines were done: run it again", err)
	case writing != nil:
		return fmt.Errorf("what was done could not be written to standard output: %w", writing)
	case counts.Failed > 0:
		return exitStatus(1)
	}
	return nil
}
