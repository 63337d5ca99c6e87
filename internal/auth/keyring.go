package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// Store stores keys for a Keyring; internal/table documents it. Each change is atomic and returns
// NotFound if the key, or the organization's key of that hash, does not exist.
type Store interface {
	APIKey(ctx context.Context, hash Hash) (Record, error)
	FindAPIKeys(ctx context.Context, org metering.OrgID, digits string) ([]Hash, error)
	AddAPIKey(ctx context.Context, r *Record) error
	RotateAPIKey(ctx context.Context, old Hash, ends time.Time, r *Record) error
	RevokeAPIKey(ctx context.Context, org metering.OrgID, hash Hash, now time.Time, by string) (Record, error)
	EndAPIKey(ctx context.Context, org metering.OrgID, hash Hash, ends time.Time) error
}

// Keyring changes the keys of a Store on behalf of an operator, and writes a log line for each
// change. Its lines and errors never contain a key itself.
type Keyring struct {
	Store     Store
	Operator  string
	Table, At string // the Store, as the log lines name it: the table and its location
	Log       *slog.Logger
}

// The lifetimes that are not spans of time.
const (
	Forever    time.Duration = 0
	LikeTheOld time.Duration = -1 // of a key that is made by rotation
)

// DefaultLifetime is how long a key is valid by default.
const DefaultLifetime = 90 * 24 * time.Hour

// ErrNotRotatable is in the errors of a rotation of a key that has ended or that was rotated
// before.
var ErrNotRotatable = errors.New("only a key that is good is rotated, once")

// UncertainError is a failure of a write whose response may have been lost: the new key may be
// stored although no one has received it.
type UncertainError struct {
	KeyID string
	Err   error
}

func (e *UncertainError) Error() string { return e.Err.Error() }

// Unwrap returns the failure of the write.
func (e *UncertainError) Unwrap() error { return e.Err }

// Create makes a key for the record's organization, with its scopes and label, and sets the other
// fields of the record.
func (k *Keyring) Create(ctx context.Context, r *Record, lifetime time.Duration, now time.Time) (Key, error) {
	key := k.newKey(r, lifetime, now)
	if err := k.Store.AddAPIKey(ctx, r); err != nil {
		return "", mayBeThere(err, r)
	}
	k.changed("created", r)
	return key, nil
}

func (k *Keyring) newKey(r *Record, lifetime time.Duration, now time.Time) Key {
	key := New()
	now = now.Truncate(time.Millisecond) // as it is stored
	r.Hash, r.CreationTime, r.CreatedBy = key.Hash(), now, k.Operator
	if lifetime != Forever {
		r.ExpiryTime = now.Add(lifetime)
	}
	return key
}

// mayBeThere marks a failure of a write that may have succeeded, if only the response was lost.
func mayBeThere(err error, r *Record) error {
	if metering.CodeOf(err) == metering.NotFound {
		return err
	}
	return &UncertainError{r.Hash.ID(), err}
}

// Rotate makes a new key that replaces the old one. The old key ends after keep, or at its own end
// if that is earlier; Rotate sets old's ExpiryTime to that time. It refuses a key that has ended,
// because nothing is left to keep valid, and one that was rotated before, because two keys would
// replace it.
func (k *Keyring) Rotate(ctx context.Context, old *Record, keep, lifetime time.Duration, now time.Time) (Key, Record, error) {
	if err := rotatable(old, now); err != nil {
		return "", Record{}, err
	}
	switch {
	case lifetime != LikeTheOld:
	case old.ExpiryTime.IsZero():
		lifetime = Forever
	default:
		lifetime = DefaultLifetime // the first lifetime of an old key that was rotated before is unknown
	}
	ends := now.Truncate(time.Millisecond).Add(keep)
	if !old.ExpiryTime.IsZero() && old.ExpiryTime.Before(ends) {
		ends = old.ExpiryTime
	}
	r := Record{Organization: old.Organization, Scopes: old.Scopes, Label: old.Label}
	key := k.newKey(&r, lifetime, now)
	if err := k.Store.RotateAPIKey(ctx, old.Hash, ends, &r); err != nil {
		return "", Record{}, mayBeThere(err, &r)
	}
	old.ExpiryTime, old.ReplacedBy = ends, r.Hash.ID()
	rest := []any{"newKeyId", r.Hash.ID()}
	if !r.ExpiryTime.IsZero() {
		rest = append(rest, "newExpiryTime", metering.FormatTime(r.ExpiryTime))
	}
	k.changed("rotated", old, rest...)
	return key, r, nil
}

func rotatable(r *Record, now time.Time) error {
	how := ""
	switch state := r.State(now); {
	case state == Revoked:
		how = "was revoked" + r.atRevocation()
	case state == Expired:
		how = "expired at " + metering.FormatTime(r.ExpiryTime)
	case state == Unreadable:
		return notHandedOn(r, "what is stored of it cannot be read: "+strings.Join(r.Unreadable, ", "))
	case r.UnknownScopes != "":
		return notHandedOn(r, "it has scopes that this version does not know: "+metering.Quote(r.UnknownScopes))
	case len(r.UnknownAttributes) > 0:
		return notHandedOn(r, "it has attributes that this version does not know: "+metering.Quote(strings.Join(r.UnknownAttributes, ",")))
	case r.ReplacedBy != "":
		to := r.ReplacedBy
		if !isIDDigits(to) { // it is damaged
			to = metering.Quote(to)
		}
		how = "was rotated before, to the key " + to
	default:
		return nil
	}
	return fmt.Errorf("the key %s %s, and %w", r.Hash.ID(), how, ErrNotRotatable)
}

// notHandedOn returns the error for a key of which the new key would lack a part.
func notHandedOn(r *Record, why string) error {
	return fmt.Errorf("the key %s is not rotated, because the new key would not be as this one: %s; "+
		"rotate it with the version that made it, or make a new key and revoke this one", r.Hash.ID(), why)
}

// Revoke ends a key of the organization. changed reports whether it had not been revoked before.
func (k *Keyring) Revoke(ctx context.Context, org metering.OrgID, hash Hash, now time.Time) (r Record, changed bool, err error) {
	now = now.Truncate(time.Millisecond)
	r, err = k.Store.RevokeAPIKey(ctx, org, hash, now, k.Operator)
	if metering.CodeOf(err) == metering.NotFound {
		return Record{}, false, noKey(org, hash.ID())
	}
	if err != nil {
		return Record{}, false, err
	}
	r.Organization = string(org) // also if the record does not say it
	changed = r.RevocationTime.Equal(now) && r.RevokedBy == k.Operator
	if changed {
		k.changed("revoked", &r)
	}
	return r, changed, nil
}

// End sets the end of a key of the organization to the time given. If the key was revoked or ends
// by then anyway, End changes nothing and changed is false.
func (k *Keyring) End(ctx context.Context, org metering.OrgID, hash Hash, ends, now time.Time) (changed bool, err error) {
	r, err := k.Read(ctx, org, hash)
	if err != nil {
		return false, err
	}
	switch state := r.State(now); {
	case state == Revoked, !r.ExpiryTime.IsZero() && !r.ExpiryTime.After(ends):
		return false, nil
	case state == Unreadable:
		return false, fmt.Errorf("what is stored of the key %s cannot be read: %s; revoke it", hash.ID(), strings.Join(r.Unreadable, ", "))
	}
	if err := k.Store.EndAPIKey(ctx, org, hash, ends); err != nil {
		return false, err
	}
	r.ExpiryTime = ends
	k.changed("ended", &r)
	return true, nil
}

// Read returns the record of a key of the organization, or of a key whose record does not say which
// organization it belongs to.
func (k *Keyring) Read(ctx context.Context, org metering.OrgID, hash Hash) (Record, error) {
	r, err := k.Store.APIKey(ctx, hash)
	if _, noOrg := metering.StoredOrgID(r.Organization); metering.CodeOf(err) == metering.NotFound || err == nil && r.Organization != string(org) && noOrg == nil {
		return Record{}, noKey(org, hash.ID())
	}
	return r, err
}

func noKey(org metering.OrgID, id string) error {
	return metering.Errorf(metering.NotFound, "organization %s has no key %s", metering.Quote(string(org)), id)
}

// changed writes the log line of a change: what changed, which key, which operator. The logger adds
// the time.
func (k *Keyring) changed(what string, r *Record, rest ...any) {
	line := []any{
		"what", what, "who", k.Operator, "organization", r.Organization, "keyId", r.Hash.ID(), "keyHash", r.Hash.String(),
		"scopes", r.Principal().ScopeNames(), "table", k.Table, "at", k.At,
	}
	if !r.ExpiryTime.IsZero() {
		line = append(line, "expiryTime", metering.FormatTime(r.ExpiryTime))
	}
	k.Log.Info(changedMessage, append(line, rest...)...)
}

// CheckKeyName returns an error if text can't name a key in Find. The error does not repeat it: it
// may be a secret with a typo.
func CheckKeyName(text string) error {
	_, malformed := Parse(text)
	if _, isHash := ParseHash(text); malformed == nil || isHash || len(text) >= minIDDigits && isIDDigits(text) {
		return nil
	}
	return fmt.Errorf("it must be %d to %d digits of 0-9 and a-f, as `marketmeter key list` shows them, the %d digits of the whole hash, "+
		"or the key itself", minIDDigits, maxIDDigits, len(Hash{}.String()))
}

// The min and max number of digits of an id that Find accepts.
const (
	minIDDigits = 4
	maxIDDigits = 16
)

func isIDDigits(text string) bool {
	return len(text) <= maxIDDigits && strings.Trim(text, "0123456789abcdef") == ""
}

// Find returns the hash of the key that text names. CheckKeyName must have accepted text: it is the
// key itself, its hash, or the first digits of its id, if only one key of the organization has
// them. Find reads no record, so damaged records of other keys do not matter. The caller checks
// whether the organization has a key of that hash.
func (k *Keyring) Find(ctx context.Context, org metering.OrgID, text string) (Hash, error) {
	if key, err := Parse(text); err == nil {
		return key.Hash(), nil
	}
	if hash, ok := ParseHash(text); ok {
		return hash, nil
	}
	found, err := k.Store.FindAPIKeys(ctx, org, text)
	if err != nil {
		return Hash{}, err
	}
	switch len(found) {
	case 0:
		return Hash{}, noKey(org, text)
	case 1:
		return found[0], nil
	}
	var ids []string
	for _, hash := range found {
		ids = append(ids, hash.ID())
	}
	return Hash{}, fmt.Errorf("%d keys of organization %s begin with %s: give more digits of one, %s",
		len(found), metering.Quote(string(org)), text, strings.Join(ids, ", "))
}
