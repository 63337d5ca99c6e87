package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// changedMessage is the msg of an audit line, which Keyring.changed writes.
const changedMessage = "key changed"

// KeyEnd is the end of a key that an audit line tells of.
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
		if end.At.IsZero() { // which is stored for no end at all
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
	if len(line.KeyID) != MaxIDDigits || !isIDDigits(line.KeyID) {
		return KeyEnd{}, false, fmt.Errorf("keyId is not %d digits of 0-9 and a-f", MaxIDDigits)
	}
	return end, true, nil
}

// EndAgain ends the key of an audit line again, in a table that was restored from an older backup. It returns
// the hash of the key; changed is false if it had ended, or ends as soon, already.
func (k *Keyring) EndAgain(ctx context.Context, end KeyEnd, now time.Time) (hash Hash, changed bool, err error) {
	hash = end.Hash
	if hash == (Hash{}) {
		if hash, err = k.Find(ctx, end.Organization, end.KeyID); err != nil {
			return Hash{}, false, err
		}
	}
	if end.Revoked {
		_, changed, err = k.Revoke(ctx, end.Organization, hash, now)
	} else {
		changed, err = k.End(ctx, end.Organization, hash, end.At, now)
	}
	return hash, changed, err
}
