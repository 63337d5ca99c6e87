package auth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// changedMessage is the msg of an audit line, which Keyring.changed writes.
const changedMessage = "key changed"

// KeyEnd is the end of a key, as an audit line records it.
type KeyEnd struct {
	Organization string
	KeyID        string // 16 digits; known if Hash is not
	Hash         Hash   // zero in lines of programs that did not write it
	Revoked      bool
	At           time.Time // of a key that was rotated or ended
}

// ParseAuditLine reads a line. ok is false if it is whole and no key ends by it: another log line,
// or the line of a key that was made.
func ParseAuditLine(text []byte) (end KeyEnd, ok bool, err error) {
	if len(text) == 0 || text[0] != '{' {
		if isOwnText(text) {
			return KeyEnd{}, false, nil
		}
		return KeyEnd{}, false, errors.New("it is not a line of JSON")
	}
	var log struct{ Msg any }
	if err := json.Unmarshal(text, &log); err != nil {
		return KeyEnd{}, false, fmt.Errorf("it is not a line of JSON: %w", err)
	}
	if log.Msg != changedMessage {
		return KeyEnd{}, false, nil
	}
	var line struct{ What, Organization, KeyID, KeyHash, ExpiryTime string }
	if err := json.Unmarshal(text, &line); err != nil {
		return KeyEnd{}, false, fmt.Errorf("it is not an audit line: %w", err)
	}
	end = KeyEnd{Organization: line.Organization, KeyID: line.KeyID}
	switch line.What {
	case "created":
		return KeyEnd{}, false, nil
	case "revoked":
		end.Revoked = true
	case "rotated", "ended":
		if end.At, err = metering.ParseTime(line.ExpiryTime); err != nil {
			return KeyEnd{}, false, fmt.Errorf("expiryTime is %s: %w", metering.Quote(line.ExpiryTime), err)
		}
		if end.At.IsZero() { // stored for no end at all
			return KeyEnd{}, false, errors.New("expiryTime is the beginning of year 1: it must be later")
		}
	default:
		return KeyEnd{}, false, fmt.Errorf("what is %s: this version knows created, rotated, revoked and ended", metering.Quote(line.What))
	}
	if line.Organization == "" {
		return KeyEnd{}, false, errors.New("organization is missing")
	}
	if line.KeyHash != "" {
		if end.Hash, ok = ParseHash(line.KeyHash); !ok || end.Hash.ID() != line.KeyID {
			return KeyEnd{}, false, errors.New("keyHash is not 64 digits of 0-9 and a-f that begin with keyId")
		}
		return end, true, nil
	}
	if len(line.KeyID) != maxIDDigits || !isIDDigits(line.KeyID) {
		return KeyEnd{}, false, fmt.Errorf("keyId is not %d digits of 0-9 and a-f", maxIDDigits)
	}
	return end, true, nil
}

// isOwnText reports whether the line is one that the program, marketmeter, writes to standard error
// besides the audit lines.
func isOwnText(text []byte) bool {
	for _, start := range []string{"table ", "marketmeter ", "marketmeter: ", "`marketmeter "} {
		if bytes.HasPrefix(text, []byte(start)) {
			return true
		}
	}
	return false
}

// EndAgain ends the key of an audit line again, in a table that was restored from an older backup.
// It returns the hash of the key; changed is false if the key has ended already, or ends at least
// as soon.
func (k *Keyring) EndAgain(ctx context.Context, end KeyEnd, now time.Time) (hash Hash, changed bool, err error) {
	org, err := metering.StoredOrgID(end.Organization)
	if err != nil {
		return Hash{}, false, metering.Errorf(metering.Invalid, "organization is %s: %v", metering.Quote(end.Organization), err)
	}
	hash = end.Hash
	if hash == (Hash{}) {
		if hash, err = k.Find(ctx, org, end.KeyID); err != nil {
			return Hash{}, false, err
		}
	}
	if end.Revoked {
		_, changed, err = k.Revoke(ctx, org, hash, now)
	} else {
		changed, err = k.End(ctx, org, hash, end.At, now)
	}
	return hash, changed, err
}

// Replay ends those keys again that audit lines have ended, in a table that was restored from an
// older backup. It can be repeated: it does not change a key that has ended.
type Replay struct {
	Keyring      *Keyring
	Organization string // the only one that counts; empty for all
	Now          func() time.Time

	Out io.Writer // gets a line for each key that was revoked or ends, and the counts
	Err io.Writer // gets a line for each line that failed

	counts    ReplayCounts
	unwritten error // the first failure of Out
}

// ReplayCounts counts the results of the lines that are the end of a key, or should be.
type ReplayCounts struct{ Revoked, Ended, Unchanged, Failed int }

// Lines are the lines that a Replay reads. Next returns io.EOF after the last, and Invalid for a
// line that it can't return; it can be called again after that.
type Lines interface {
	Next() (number int, text []byte, err error)
}

// Lines replays each line, and continues after a line that fails, and if Out fails. It returns an
// error if lines or Out does, if the Store is unavailable, or when ctx is done.
func (r *Replay) Lines(ctx context.Context, lines Lines) (ReplayCounts, error) {
	err := r.all(ctx, lines)
	r.write("%v", r.counts)
	if err != nil {
		return r.counts, fmt.Errorf("%w; not all lines were done: run it again", err)
	}
	if r.unwritten != nil {
		return r.counts, fmt.Errorf("what was done could not be written to standard output: %w", r.unwritten)
	}
	return r.counts, nil
}

func (r *Replay) all(ctx context.Context, lines Lines) error {
	for {
		number, text, err := lines.Next()
		switch {
		case ctx.Err() != nil:
			return errors.New("interrupted")
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && metering.CodeOf(err) != metering.Invalid:
			return fmt.Errorf("reading line %d: %w", number, err)
		case err == nil && len(text) > 0:
			err = r.line(ctx, number, text)
		}
		if metering.CodeOf(err) == metering.Unavailable {
			return fmt.Errorf("line %d: %w", number, err)
		}
		if err != nil {
			r.counts.Failed++
			fmt.Fprintf(r.Err, "line %d: %v\n", number, err)
		}
	}
}

func (r *Replay) line(ctx context.Context, number int, text []byte) error {
	end, ok, err := ParseAuditLine(text)
	if err != nil || !ok || r.Organization != "" && r.Organization != end.Organization {
		return err
	}
	hash, changed, err := r.Keyring.EndAgain(ctx, end, r.Now())
	switch {
	case err != nil:
		return err
	case !changed:
		r.counts.Unchanged++
		return nil
	case end.Revoked:
		r.counts.Revoked++
	default:
		r.counts.Ended++
	}
	r.write("line %d: %s", number, end.describe(hash.ID()))
	return nil
}

// write writes a line to Out. A failure does not stop the replay.
func (r *Replay) write(format string, a ...any) {
	if _, err := fmt.Fprintf(r.Out, format+"\n", a...); r.unwritten == nil {
		r.unwritten = err
	}
}
