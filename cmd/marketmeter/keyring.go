package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/dynamoclient"
	"github.com/marketmeter/marketmeter/internal/localdb"
	"github.com/marketmeter/marketmeter/internal/metering"
)

// keyring changes the keys of a table in the name of an operator, and leaves a log line for each
// change. A key itself is in none of its lines and errors.
type keyring struct {
	*target
	operator string
	log      *slog.Logger
}

func openKeyring(ctx context.Context, p program) (*keyring, error) {
	t, err := openTable(ctx, p)
	if err != nil {
		return nil, err
	}
	return newKeyring(ctx, t, p.log())
}

// newKeyring fails where there are no credentials to act with.
func newKeyring(ctx context.Context, t *target, log *slog.Logger) (*keyring, error) {
	operator, err := operatorOf(ctx, t)
	if err != nil {
		return nil, err
	}
	return &keyring{t, operator, log}, nil
}

// operatorOf tells who acts on the table: the user of this machine and, in AWS, the id of the access
// key, which is no secret and which CloudTrail knows the principal of.
func operatorOf(ctx context.Context, t *target) (string, error) {
	name := "uid " + strconv.Itoa(os.Getuid())
	if known, err := user.Current(); err == nil {
		name = known.Username
	}
	if host, err := os.Hostname(); err == nil {
		name += "@" + host
	}
	ctx, cancel := context.WithTimeout(ctx, forCommands.call)
	defer cancel()
	used, err := t.credentials.Retrieve(ctx)
	if err != nil {
		return "", fmt.Errorf("the AWS credentials: %w", tableAt{name: t.name, region: t.at}.explain(&dynamoclient.CredentialsError{Cause: err}))
	}
	if used.AccessKeyID != localdb.AccessKeyID {
		name += " with access key " + used.AccessKeyID
	}
	return name, nil
}

// create makes a key for the record's organization, with its scopes and label, and fills in the rest.
func (k *keyring) create(ctx context.Context, r *auth.Record, lifetime time.Duration, now time.Time) (auth.Key, error) {
	key := k.newKey(r, lifetime, now)
	if err := k.AddAPIKey(ctx, r); err != nil {
		return "", mayBeThere(err, r)
	}
	k.changed("created", r)
	return key, nil
}

func (k *keyring) newKey(r *auth.Record, lifetime time.Duration, now time.Time) auth.Key {
	key := auth.New()
	now = now.Truncate(time.Millisecond) // as it is stored
	r.Hash, r.CreationTime, r.CreatedBy = key.Hash(), now, k.operator
	if lifetime != forever {
		r.ExpiryTime = now.Add(lifetime)
	}
	return key
}

// mayBeThere adds to a failure of a write whose answer may only have been lost.
func mayBeThere(err error, r *auth.Record) error {
	if metering.CodeOf(err) == metering.NotFound {
		return err
	}
	return followedBy(err, fmt.Sprintf("; should `marketmeter key list` show a key %s, revoke it: nobody has it", r.Hash.ID()))
}

// rotate makes a key in place of the old one and ends that after a while, or when it ends anyway;
// it sets old's ExpiryTime to that. It refuses a key that has ended, of which there is nothing
// to keep alive, and one that was rotated before: two would be in its place.
func (k *keyring) rotate(ctx context.Context, old *auth.Record, keep, lifetime time.Duration, now time.Time) (auth.Key, auth.Record, error) {
	if err := rotatable(old, now); err != nil {
		return "", auth.Record{}, err
	}
	switch {
	case lifetime != likeTheOld:
	case old.ExpiryTime.IsZero():
		lifetime = forever
	default:
		lifetime = defaultLifetime // of an old key that was rotated before nothing tells its first span
	}
	ends := now.Truncate(time.Millisecond).Add(keep)
	if !old.ExpiryTime.IsZero() && old.ExpiryTime.Before(ends) {
		ends = old.ExpiryTime
	}
	r := auth.Record{Organization: old.Organization, Scopes: old.Scopes, Label: old.Label}
	key := k.newKey(&r, lifetime, now)
	if err := k.RotateAPIKey(ctx, old.Hash, ends, &r); err != nil {
		return "", auth.Record{}, mayBeThere(err, &r)
	}
	old.ExpiryTime, old.ReplacedBy = ends, r.Hash.ID()
	rest := []any{"newKeyId", r.Hash.ID()}
	if !r.ExpiryTime.IsZero() {
		rest = append(rest, "newExpiryTime", metering.FormatTime(r.ExpiryTime))
	}
	k.changed("rotated", old, rest...)
	return key, r, nil
}

func rotatable(r *auth.Record, now time.Time) error {
	how := ""
	switch state := r.State(now); {
	case state == auth.Revoked:
		how = "was revoked" + atTime(r.RevocationTime)
	case state == auth.Expired:
		how = "expired at " + metering.FormatTime(r.ExpiryTime)
	case state == auth.Unreadable:
		return notHandedOn(r, "what is stored of it cannot be read: "+strings.Join(r.Unreadable, ", "))
	case r.UnknownScopes != "":
		return notHandedOn(r, "it has scopes that this version does not know: "+metering.Quote(r.UnknownScopes))
	case len(r.UnknownAttributes) > 0:
		return notHandedOn(r, "it has attributes that this version does not know: "+metering.Quote(strings.Join(r.UnknownAttributes, ",")))
	case r.ReplacedBy != "":
		how = "was rotated before, to the key " + printable(r.ReplacedBy)
	default:
		return nil
	}
	return fmt.Errorf("the key %s %s, and only a key that is good is rotated, once: make a new one with `marketmeter key create --org %s`",
		r.Hash.ID(), how, shellWord(r.Organization))
}

// notHandedOn refuses to rotate a key of which a part would be missing in the new one.
func notHandedOn(r *auth.Record, why string) error {
	return fmt.Errorf("the key %s is not rotated, because the new key would not be as this one: %s; "+
		"rotate it with the version that made it, or make a new key with `marketmeter key create` and revoke this one", r.Hash.ID(), why)
}

// atTime is empty for a time that is not known.
func atTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return " at " + metering.FormatTime(t)
}

// revoke ends a key of the organization. changed tells whether it had not been revoked before.
func (k *keyring) revoke(ctx context.Context, org string, hash auth.Hash, now time.Time) (r auth.Record, changed bool, err error) {
	now = now.Truncate(time.Millisecond)
	r, err = k.RevokeAPIKey(ctx, metering.OrgID(org), hash, now, k.operator)
	if metering.CodeOf(err) == metering.NotFound {
		return auth.Record{}, false, noKey(org, hash.ID())
	}
	if err != nil {
		return auth.Record{}, false, err
	}
	r.Organization = org // of a record that does not say it, too
	changed = r.RevocationTime.Equal(now) && r.RevokedBy == k.operator
	if changed {
		k.changed("revoked", &r)
	}
	return r, changed, nil
}

// end lets a key of the organization end at the time given, if it would not end sooner; changed is
// false if it would.
func (k *keyring) end(ctx context.Context, org string, hash auth.Hash, ends, now time.Time) (changed bool, err error) {
	r, err := k.read(ctx, org, hash)
	if err != nil {
		return false, err
	}
	switch state := r.State(now); {
	case state == auth.Revoked, !r.ExpiryTime.IsZero() && !r.ExpiryTime.After(ends):
		return false, nil
	case state == auth.Unreadable:
		return false, fmt.Errorf("what is stored of the key %s cannot be read: %s; revoke it", hash.ID(), strings.Join(r.Unreadable, ", "))
	}
	if err := k.EndAPIKey(ctx, metering.OrgID(org), hash, ends); err != nil {
		return false, err
	}
	r.ExpiryTime = ends
	k.changed("ended", &r)
	return true, nil
}

// read is what is kept of a key of the organization, or of one whose record does not say whose it
// is.
func (k *keyring) read(ctx context.Context, org string, hash auth.Hash) (auth.Record, error) {
	r, err := k.APIKey(ctx, hash)
	if _, noOrg := metering.StoredOrgID(r.Organization); metering.CodeOf(err) == metering.NotFound || err == nil && r.Organization != org && noOrg == nil {
		return auth.Record{}, noKey(org, hash.ID())
	}
	return r, err
}

func noKey(org, id string) error {
	return metering.Errorf(metering.NotFound, "organization %s has no key %s: `marketmeter key list --org %s` shows those that it has; "+
		"a key that is not listed can be named by its whole hash or by the key itself", metering.Quote(org), id, shellWord(org))
}

// changed leaves the log line of a change: what, of which key, who; the logger says when.
func (k *keyring) changed(what string, r *auth.Record, rest ...any) {
	line := []any{
		"what", what, "who", k.operator, "organization", r.Organization, "keyId", r.Hash.ID(), "keyHash", r.Hash.String(),
		"scopes", r.Principal().ScopeNames(), "table", k.name, "at", k.at,
	}
	if !r.ExpiryTime.IsZero() {
		line = append(line, "expiryTime", metering.FormatTime(r.ExpiryTime))
	}
	k.log.Info(changedMessage, append(line, rest...)...)
}

// find is the hash of the key that text names, which checkKeyID has let through: the key itself,
// its hash, or the digits that its id begins with, if the organization has one such key. It reads
// no record: nothing that is stored of another key is in the way. Whether the organization has a
// key of that hash is for the caller to see.
func (k *keyring) find(ctx context.Context, org, text string) (auth.Hash, error) {
	if key, err := auth.Parse(text); err == nil {
		return key.Hash(), nil
	}
	if hash, ok := auth.ParseHash(text); ok {
		return hash, nil
	}
	found, err := k.FindAPIKeys(ctx, metering.OrgID(org), text)
	if err != nil {
		return auth.Hash{}, err
	}
	switch len(found) {
	case 0:
		return auth.Hash{}, noKey(org, text)
	case 1:
		return found[0], nil
	}
	var ids []string
	for _, hash := range found {
		ids = append(ids, hash.ID())
	}
	return auth.Hash{}, fmt.Errorf("%d keys of organization %s begin with %s: give more digits of one, %s",
		len(found), metering.Quote(org), text, strings.Join(ids, ", "))
}
