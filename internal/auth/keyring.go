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

// Store is where a Keyring changes keys; internal/table documents it. Each change is done as a
// whole or not at all, and returns NotFound if the key, or the organization's key of that hash,
// does not exist.
type Store interface {
	APIKey(ctx context.Context, hash Hash) (Record, error)
	FindAPIKeys(ctx context.Context, org metering.OrgID, digits string) ([]Hash, error)
	AddAPIKey(ctx context.Context, r *Record) error
	RotateAPIKey(ctx context.Context, old Hash, ends time.Time, r *Record) error
	RevokeAPIKey(ctx context.Context, org metering.OrgID, hash Hash, now time.Time, by string) (Record, error)
	EndAPIKey(ctx context.Context, org metering.OrgID, hash Hash, ends time.Time) error
}

// Keyring changes the keys of a Store in the name of an operator, and leaves a log line for each
// change. A key itself is in none of its lines and errors.
type Keyring struct {
	Store     Store
	Operator  string
	Table, At string // the Store, as the log lines name it: the table and where it is
	Log       *slog.Logger
}

// The lifetimes of keys that are not spans of time.
const (
	Forever    time.Duration = 0
	LikeTheOld time.Duration = -1 // of a key that is made by rotation
)

// DefaultLifetime is how long a key is good if nothing else is asked for.
const DefaultLifetime = 90 * 24 * time.Hour

// ErrNotRotatable is in the errors of a rotation of a key that has ended or that was rotated
// before.
var ErrNotRotatable = errors.New("only a key that is good is rotated, once")

// UncertainError is a failure of a write whose response may have been lost: the new key may be
// stored, and nobody has it.
type UncertainError struct {
	KeyID string
	Err   error
}

func (e *UncertainError) Error() string { return e.Err.Error() }

// Unwrap is the failure of the write.
func (e *UncertainError) Unwrap() error { return e.Err }

// Create makes a key for the record's organization, with its scopes and label, and fills in the
// rest.
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

// mayBeThere marks a failure of a write whose response may only have been lost.
func mayBeThere(err error, r *Record) error {
	if metering.CodeOf(err) == metering.NotFound {
		return err
	}
	return &UncertainError{r.Hash.ID(), err}
}

// Rotate makes a key in place of the old one and ends that after a while, or when it ends anyway;
// it sets old's ExpiryTime to that. It refuses a key that has ended, of which there is nothing
// to keep alive, and one that was rotated before: two would be in its place.
func (k *Keyring) Rotate(ctx context.Context, old *Record, keep, lifetime time.Duration, now time.Time) (Key, Record, error) {
	if err := rotatable(old, now); err != nil {
		return "", Record{}, err
	}
	switch {
	case lifetime != LikeTheOld:
	case old.ExpiryTime.IsZero():
		lifetime = Forever
	default:
		lifetime = DefaultLifetime // of an old key that was rotated before nothing tells its first span
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

// notHandedOn refuses to rotate a key of which a part would be missing in the new one.
func notHandedOn(r *Record, why string) error {
	return fmt.Errorf("the key %s is not rotated, because the new key would not be as this one: %s; "+
		"rotate it with the version that made it, or make a new key and revoke this one", r.Hash.ID(), why)
}

// Revoke ends a key of the organization. changed tells whether it had not been revoked before.
func (k *Keyring) Revoke(ctx context.Context, org metering.OrgID, hash Hash, now time.Time) (r Record, changed bool, err error) {
	now = now.Truncate(time.Millisecond)
	r, err = k.Store.RevokeAPIKey(ctx, org, hash, now, k.Operator)
	if metering.CodeOf(err) == metering.NotFound {
		return Record{}, false, noKey(org, hash.ID())
	}
	if err != nil {
		return Record{}, false, err
	}
	r.Organization = string(org) // of a record that does not say it, too
	changed = r.RevocationTime.Equal(now) && r.RevokedBy == k.Operator
	if changed {
		k.changed("revoked", &r)
	}
	return r, changed, nil
}

// End lets a key of the organization end at the time given, if it would not end sooner; changed is
// false if it would.
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

// Read is what is kept of a key of the organization, or of one whose record does not say whose it
// is.
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

// changed leaves the log line of a change: what, of which key, who; the logger says when.
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

// NamesKey reports whether text can name a key to Find.
func NamesKey(text string) bool {
	if _, err := Parse(text); err == nil {
		return true
	}
	if _, ok := ParseHash(text); ok {
		return true
	}
	return len(text) >= MinIDDigits && isIDDigits(text)
}

// The digits of an id, of which Find takes the first.
const (
	MinIDDigits = 4
	MaxIDDigits = 16
)

func isIDDigits(text string) bool {
	return len(text) <= MaxIDDigits && strings.Trim(text, "0123456789abcdef") == ""
}

// Find is the hash of the key that text names, which NamesKey has let through: the key itself,
// its hash, or the digits that its id begins with, if the organization has one such key. It reads
// no record: nothing that is stored of another key is in the way. Whether the organization has a
// key of that hash is for the caller to see.
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
