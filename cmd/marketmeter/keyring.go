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

	"github.com/marketmeter/marketmeter/internal/apikey"
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
	return newKeyring(ctx, t, slog.New(slog.NewJSONHandler(p.stderr, nil)))
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
		return "", fmt.Errorf("the AWS credentials: %w", err)
	}
	if used.AccessKeyID != localdb.AccessKeyID {
		name += " with access key " + used.AccessKeyID
	}
	return name, nil
}

// create makes a key for the record's organization, with its scopes and label, and fills in the rest.
func (k *keyring) create(ctx context.Context, r *apikey.Record, lifetime time.Duration, now time.Time) (apikey.Key, error) {
	key := k.newKey(r, lifetime, now)
	if err := k.AddAPIKey(ctx, r); err != nil {
		return "", mayBeThere(err, r)
	}
	k.changed("created", r)
	return key, nil
}

func (k *keyring) newKey(r *apikey.Record, lifetime time.Duration, now time.Time) apikey.Key {
	key := apikey.New()
	now = now.Truncate(time.Millisecond) // as it is stored
	r.Hash, r.CreationTime, r.CreatedBy = key.Hash(), now, k.operator
	if lifetime != forever {
		r.ExpiryTime = now.Add(lifetime)
	}
	return key
}

// mayBeThere adds to a failure of a write whose answer may only have been lost.
func mayBeThere(err error, r *apikey.Record) error {
	if metering.CodeOf(err) == metering.NotFound {
		return err
	}
	return fmt.Errorf("%w; should `marketmeter key list` show a key %s, revoke it: nobody has it", err, r.Hash.ID())
}

// rotate makes a key in place of the old one and ends that after a while, or when it ends anyway;
// it sets old's ExpiryTime to that. It refuses a key that has ended, of which there is nothing
// to keep alive, and one that was rotated before: two would be in its place.
func (k *keyring) rotate(ctx context.Context, old *apikey.Record, keep, lifetime time.Duration, now time.Time) (apikey.Key, apikey.Record, error) {
	if err := rotatable(old, now); err != nil {
		return "", apikey.Record{}, err
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
	r := apikey.Record{Organization: old.Organization, Scopes: old.Scopes, Label: old.Label}
	key := k.newKey(&r, lifetime, now)
	if err := k.RotateAPIKey(ctx, old.Hash, ends, &r); err != nil {
		return "", apikey.Record{}, mayBeThere(err, &r)
	}
	old.ExpiryTime, old.ReplacedBy = ends, r.Hash.ID()
	rest := []any{"newKeyId", r.Hash.ID()}
	if !r.ExpiryTime.IsZero() {
		rest = append(rest, "newExpiryTime", metering.FormatTime(r.ExpiryTime))
	}
	k.changed("rotated", old, rest...)
	return key, r, nil
}

func rotatable(r *apikey.Record, now time.Time) error {
	how := ""
	switch r.State(now) {
	case apikey.Revoked:
		how = "was revoked at " + metering.FormatTime(r.RevocationTime)
	case apikey.Expired:
		how = "expired at " + metering.FormatTime(r.ExpiryTime)
	default:
		if r.ReplacedBy == "" {
			return nil
		}
		how = "was rotated before, to the key " + r.ReplacedBy
	}
	return fmt.Errorf("the key %s %s, and only a key that is good is rotated, once: make a new one with `marketmeter key create --org %s`",
		r.Hash.ID(), how, shellWord(r.Organization))
}

// revoke ends a key of the organization. changed tells whether it had not been revoked before.
func (k *keyring) revoke(ctx context.Context, org string, hash apikey.Hash, now time.Time) (r apikey.Record, changed bool, err error) {
	now = now.Truncate(time.Millisecond)
	r, err = k.RevokeAPIKey(ctx, org, hash, now, k.operator)
	if err != nil {
		return apikey.Record{}, false, err
	}
	changed = r.RevocationTime.Equal(now) && r.RevokedBy == k.operator
	if changed {
		k.changed("revoked", &r)
	}
	return r, changed, nil
}

// changed leaves the log line of a change: what, of which key, who; the logger says when.
func (k *keyring) changed(what string, r *apikey.Record, rest ...any) {
	line := []any{
		"what", what, "who", k.operator, "organization", r.Organization, "keyId", r.Hash.ID(),
		"scopes", r.Scopes.String(), "table", k.name, "at", k.at,
	}
	if !r.ExpiryTime.IsZero() {
		line = append(line, "expiryTime", metering.FormatTime(r.ExpiryTime))
	}
	k.log.Info("key changed", append(line, rest...)...)
}

// find is the key of the organization that text names, which checkKeyID has let through: by the
// digits that its id begins with, as it is the only one, or by the key itself.
func (k *keyring) find(ctx context.Context, org, text string) (apikey.Record, error) {
	if key, err := apikey.Parse(text); err == nil {
		text = key.Hash().ID()
	}
	records, err := k.APIKeys(ctx, org)
	if err != nil {
		return apikey.Record{}, err
	}
	var found apikey.Record
	var ids []string
	for _, r := range records {
		if strings.HasPrefix(r.Hash.ID(), text) {
			found, ids = r, append(ids, r.Hash.ID())
		}
	}
	switch len(ids) {
	case 0:
		return apikey.Record{}, fmt.Errorf("organization %s has no key %s: `marketmeter key list --org %s` shows those that it has",
			metering.Quote(org), text, shellWord(org))
	case 1:
		return found, nil
	default:
		return apikey.Record{}, fmt.Errorf("%d keys of organization %s begin with %s: give more digits of one, %s",
			len(ids), metering.Quote(org), text, strings.Join(ids, ", "))
	}
}
