package auth

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// Records stores keys; internal/table documents it.
type Records interface {
	APIKey(ctx context.Context, hash Hash) (Record, error) // NotFound if no such key exists
	APIKeyUsed(ctx context.Context, hash Hash, hour time.Time) error
}

// Authenticator identifies the caller by the key in the Authorization header.
type Authenticator struct {
	Records Records
	Log     *slog.Logger
	Now     func() time.Time
}

const (
	// endsSoon is how long before the end of a key each noted use is logged as a warning.
	endsSoon = 14 * 24 * time.Hour
	// usedTimeout bounds the noting of a use, which must not delay a request.
	usedTimeout = 500 * time.Millisecond
)

// Authenticate reads an Authorization header: "Key <key>", "Bearer <key>" or the bare key. It
// returns Unauthenticated with the reason, or the error of Records. A text without the form and the
// checksum of a key costs no read. If the record of the key cannot be read, it returns Internal.
// The first use in an hour is noted with the key; if that fails, the failure is only logged.
func (c *Authenticator) Authenticate(ctx context.Context, authorization string) (Principal, error) {
	key, err := parseAuthorization(authorization)
	if err != nil {
		return Principal{}, err
	}
	record, err := c.Records.APIKey(ctx, key.Hash())
	if metering.CodeOf(err) == metering.NotFound {
		return Principal{}, metering.Errorf(metering.Unauthenticated, "the key in the Authorization header is not known here")
	}
	if err != nil {
		return Principal{}, err
	}
	now := c.Now()
	switch record.State(now) {
	case Revoked:
		return Principal{}, metering.Errorf(metering.Unauthenticated, "the key %s was revoked%s", record.Hash.ID(), record.atRevocation())
	case Expired:
		return Principal{}, expired(record.Hash.ID(), record.ExpiryTime)
	case Unreadable:
		return Principal{}, &metering.Error{
			Code: metering.Internal, Message: "internal error",
			Cause: fmt.Errorf("the record of the key %s can't be read: %s", record.Hash.ID(), strings.Join(record.Unreadable, ", ")),
		}
	}
	c.noteUse(ctx, &record, now)
	return record.Principal(), nil
}

// atRevocation is empty if the record does not say when.
func (r *Record) atRevocation() string {
	if r.RevocationTime.IsZero() {
		return ""
	}
	return " at " + metering.FormatTime(r.RevocationTime)
}

func (c *Authenticator) noteUse(ctx context.Context, record *Record, now time.Time) {
	hour := now.UTC().Truncate(time.Hour)
	if !record.LastUsedTime.Before(hour) {
		return
	}
	of := []any{"keyId", record.Hash.ID(), "organization", record.Organization}
	if !record.ExpiryTime.IsZero() && record.ExpiryTime.Sub(now) < endsSoon {
		c.Log.Warn("a key that is in use ends soon: rotate it", append(of, "expiryTime", metering.FormatTime(record.ExpiryTime))...)
	}
	ctx, cancel := context.WithTimeout(ctx, usedTimeout)
	defer cancel()
	if err := c.Records.APIKeyUsed(ctx, record.Hash, hour); err != nil {
		c.Log.Warn("the use of a key could not be noted", append(of, "error", err.Error())...)
	}
}

func expired(id string, at time.Time) error {
	return metering.Errorf(metering.Unauthenticated, "the key %s expired at %s", id, metering.FormatTime(at))
}

// parseAuthorization reads the key in an Authorization header; the names of schemes are
// case-insensitive (RFC 9110, 11.1).
func parseAuthorization(header string) (Key, error) {
	header = strings.Trim(header, " \t")
	if header == "" {
		return "", metering.Errorf(metering.Unauthenticated, "there is no key: send one in a header, as Authorization: Key <key>")
	}
	if scheme, rest, ok := strings.Cut(header, " "); ok && (strings.EqualFold(scheme, "Key") || strings.EqualFold(scheme, "Bearer")) {
		header = strings.Trim(rest, " \t")
	}
	return Parse(header)
}

// Authorize checks that the caller may act now in the organization that a path names, by one of the
// needed scopes. It returns Forbidden, or Unauthenticated if the key has expired since it was
// checked. The result does not depend on whether the organization exists.
func (i Principal) Authorize(organization string, needed Scopes, now time.Time) error {
	switch {
	case ended(i.ExpiryTime, now):
		return expired(i.KeyID, i.ExpiryTime)
	case string(i.Organization) != organization:
		return metering.Errorf(metering.Forbidden, "the key is not one of organization %s", metering.Quote(organization))
	case i.Scopes == 0:
		return metering.Errorf(metering.Forbidden, "the key has no scope that is known here: this takes one of %s", needed|Admin)
	case !i.Scopes.Allow(needed):
		return metering.Errorf(metering.Forbidden, "the key has the scopes %s: this takes one of %s", i.Scopes, needed|Admin)
	}
	return nil
}
