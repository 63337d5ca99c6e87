package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
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

// isOwnText reports whether the line is one that the program itself writes to standard error beside
// the audit lines.
func isOwnText(text []byte) bool {
	for _, start := range []string{"table ", "marketmeter ", "marketmeter: ", "`marketmeter "} {
		if bytes.HasPrefix(text, []byte(start)) {
			return true
		}
	}
	return false
}

// auditReplay ends the keys again that audit lines have ended.
type auditReplay struct {
	ring   *auth.Keyring
	org    string // the only one that counts; empty for all
	stdout io.Writer
	stderr io.Writer

	revoked, ended, unchanged, failed int
	writing                           error // the first of standard output
}

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
	signal.Ignore(syscall.SIGPIPE) // a reader that has gone is an error of Write then
	replay := &auditReplay{ring: ring, org: org, stdout: p.stdout, stderr: p.stderr}
	err = replay.lines(ctx, from)
	replay.say("revoked %d, ended %d, unchanged %d, failed %d", replay.revoked, replay.ended, replay.unchanged, replay.failed)
	switch {
	case err != nil:
		return fmt.Errorf("%w; not all lines were done: run it again", err)
	case replay.writing != nil:
		return fmt.Errorf("what was done could not be written to standard output: %w", replay.writing)
	case replay.failed > 0:
		return exitStatus(1)
	}
	return nil
}

// lines does each line. It fails if from does, if the table is unavailable, or when ctx is done.
func (r *auditReplay) lines(ctx context.Context, from io.Reader) error {
	input := transfer.NewLineReader(ctx, from)
	for {
		number, text, err := input.Next()
		switch {
		case ctx.Err() != nil:
			return errors.New("interrupted")
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && !errors.Is(err, transfer.ErrLineTooLong):
			return fmt.Errorf("reading line %d: %w", number, err)
		case err == nil && len(text) == 0:
			continue
		}
		if err == nil {
			err = r.line(ctx, number, text)
		}
		if metering.CodeOf(err) == metering.Unavailable {
			return fmt.Errorf("line %d: %w", number, err)
		}
		if err != nil {
			r.failed++
			fmt.Fprintf(r.stderr, "line %d: %v\n", number, err)
		}
	}
}

func (r *auditReplay) line(ctx context.Context, number int, text []byte) error {
	if isOwnText(text) {
		return nil
	}
	end, ok, err := auth.ParseAuditLine(text)
	if err != nil || !ok || r.org != "" && r.org != end.Organization {
		return err
	}
	hash, changed, err := r.ring.EndAgain(ctx, end, time.Now())
	switch {
	case err != nil:
		return err
	case !changed:
		r.unchanged++
	case end.Revoked:
		r.revoked++
		r.say("line %d: revoked key %s of organization %s", number, hash.ID(), metering.Quote(end.Organization))
	default:
		r.ended++
		r.say("line %d: key %s of organization %s ends at %s", number, hash.ID(), metering.Quote(end.Organization), metering.FormatTime(end.At))
	}
	return nil
}

// say writes a line to standard output. What fails is no reason to leave a key alive.
func (r *auditReplay) say(format string, a ...any) {
	if _, err := fmt.Fprintf(r.stdout, format+"\n", a...); err != nil && r.writing == nil {
		r.writing = err
	}
}
