package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/metering"
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

// changedMessage is the msg of an audit line, which keyring.changed writes.
const changedMessage = "key changed"

// keyEnd is the end of a key that an audit line tells of.
type keyEnd struct {
	organization string
	id           string    // 16 digits; known if hash is not
	hash         auth.Hash // zero in lines of programs that did not write it
	revoked      bool
	at           time.Time // of a key that was rotated or ended
}

// parseAuditLine reads a line. ok is false if it is whole and no key ends by it: another log line,
// or the line of a key that was made.
func parseAuditLine(text []byte) (end keyEnd, ok bool, err error) {
	if text[0] != '{' {
		if isOwnText(text) {
			return keyEnd{}, false, nil
		}
		return keyEnd{}, false, errors.New("it is not a line of JSON")
	}
	var log struct{ Msg any }
	if err := json.Unmarshal(text, &log); err != nil {
		return keyEnd{}, false, fmt.Errorf("it is not a line of JSON: %w", err)
	}
	if log.Msg != changedMessage {
		return keyEnd{}, false, nil
	}
	var line struct{ What, Organization, KeyID, KeyHash, ExpiryTime string }
	if err := json.Unmarshal(text, &line); err != nil {
		return keyEnd{}, false, fmt.Errorf("it is not an audit line: %w", err)
	}
	end = keyEnd{organization: line.Organization, id: line.KeyID}
	switch line.What {
	case "created":
		return keyEnd{}, false, nil
	case "revoked":
		end.revoked = true
	case "rotated", "ended":
		if end.at, err = metering.ParseTime(line.ExpiryTime); err != nil {
			return keyEnd{}, false, fmt.Errorf("expiryTime is %s: %w", metering.Quote(line.ExpiryTime), err)
		}
		if end.at.IsZero() { // which is stored for no end at all
			return keyEnd{}, false, errors.New("expiryTime is the beginning of year 1: it must be later")
		}
	default:
		return keyEnd{}, false, fmt.Errorf("what is %s: this version knows created, rotated, revoked and ended", metering.Quote(line.What))
	}
	if line.Organization == "" {
		return keyEnd{}, false, errors.New("organization is missing")
	}
	if line.KeyHash != "" {
		if end.hash, ok = auth.ParseHash(line.KeyHash); !ok || end.hash.ID() != line.KeyID {
			return keyEnd{}, false, errors.New("keyHash is not 64 digits of 0-9 and a-f that begin with keyId")
		}
		return end, true, nil
	}
	if len(line.KeyID) != mostOfID || checkKeyID(line.KeyID) != nil {
		return keyEnd{}, false, fmt.Errorf("keyId is not %d digits of 0-9 and a-f", mostOfID)
	}
	return end, true, nil
}

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
	ring   *keyring
	org    string // the only one that counts; empty for all
	stdout io.Writer
	stderr io.Writer
	now    func() time.Time

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
	ring, err := openKeyring(ctx, p)
	if err != nil {
		return err
	}
	signal.Ignore(syscall.SIGPIPE) // a reader that has gone is an error of Write then
	replay := &auditReplay{ring: ring, org: org, stdout: p.stdout, stderr: p.stderr, now: time.Now}
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
	input := bufio.NewReaderSize(interruptible(ctx, from), maxLine)
	for number := 1; ; number++ {
		text, err := readLine(input)
		if number == 1 {
			text = bytes.TrimPrefix(text, []byte("\ufeff"))
		}
		switch {
		case ctx.Err() != nil:
			return errors.New("interrupted")
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && !errors.Is(err, errLineTooLong):
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
	end, ok, err := parseAuditLine(text)
	if err != nil || !ok || r.org != "" && r.org != end.organization {
		return err
	}
	hash := end.hash
	if hash == (auth.Hash{}) {
		if hash, err = r.ring.find(ctx, end.organization, end.id); err != nil {
			return err
		}
	}
	if end.revoked {
		_, changed, err := r.ring.revoke(ctx, end.organization, hash, r.now())
		if err != nil {
			return err
		}
		r.count(changed, &r.revoked, "line %d: revoked key %s of organization %s", number, hash.ID(), metering.Quote(end.organization))
		return nil
	}
	changed, err := r.ring.end(ctx, end.organization, hash, end.at, r.now())
	if err != nil {
		return err
	}
	r.count(changed, &r.ended, "line %d: key %s of organization %s ends at %s", number, hash.ID(), metering.Quote(end.organization), metering.FormatTime(end.at))
	return nil
}

func (r *auditReplay) count(changed bool, of *int, format string, a ...any) {
	if !changed {
		r.unchanged++
		return
	}
	*of++
	r.say(format, a...)
}

// say writes a line to standard output. What fails is no reason to leave a key alive.
func (r *auditReplay) say(format string, a ...any) {
	if _, err := fmt.Fprintf(r.stdout, format+"\n", a...); err != nil && r.writing == nil {
		r.writing = err
	}
}
