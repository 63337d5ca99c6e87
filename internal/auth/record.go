package auth

import (
	"errors"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// Record is what is stored of a key. It remains after the key has ended, so that past access can be
// traced.
type Record struct {
	Hash         Hash
	Organization string
	Scopes       Scopes
	Label        string // for people; up to 100 characters

	CreationTime   time.Time
	ExpiryTime     time.Time // not valid from then on; zero is never
	LastUsedTime   time.Time // to the hour; zero is never
	RevocationTime time.Time // zero if it is not revoked

	CreatedBy, RevokedBy string // the operator
	ReplacedBy           string // the ID of the key that it was rotated to; empty if it was not rotated

	UnknownScopes     string   // names of scopes, joined by commas, that this version does not know: they allow nothing
	UnknownAttributes []string // names of other stored attributes that this version does not know: they change nothing

	// Unreadable names what is stored of the key and cannot be read: it is damaged, or a newer
	// version writes it in another form. The fields of these attributes are empty, and the key is
	// refused.
	Unreadable []string
}

// Names in Record.Unreadable.
const (
	WholeRecord         = "record"         // it is missing or another organization's; nothing but the Hash is known, if that
	RevocationAttribute = "revocationTime" // the key is revoked, the time is unknown
)

// CheckLabel allows up to 100 characters of one line.
func CheckLabel(label string) error {
	if !utf8.ValidString(label) || utf8.RuneCountInString(label) > 100 || strings.ContainsFunc(label, unicode.IsControl) {
		return errors.New("it must have at most 100 characters, in UTF-8 and without control characters")
	}
	return nil
}

// State says whether a key is valid.
type State string

// The states of a key. A key that has been revoked and has expired too is Revoked. A key that has
// ended and has something that cannot be read is not Unreadable.
const (
	Active     State = "active"
	Expired    State = "expired"
	Revoked    State = "revoked"
	Unreadable State = "unreadable"
)

// State returns the state at that time.
func (r *Record) State(now time.Time) State {
	switch {
	case !r.RevocationTime.IsZero() || slices.Contains(r.Unreadable, RevocationAttribute):
		return Revoked
	case ended(r.ExpiryTime, now):
		return Expired
	case len(r.Unreadable) > 0:
		return Unreadable
	default:
		return Active
	}
}

func ended(expiry, now time.Time) bool { return !expiry.IsZero() && !now.Before(expiry) }

// Principal is the caller of a request and its permissions: what the operations need to know of a
// key that has been checked.
type Principal struct {
	Organization metering.OrgID
	KeyID        string
	Scopes       Scopes
	ExpiryTime   time.Time // zero is never

	UnknownScopes string // as in Record: another version of the service may know them
}

// Principal returns the principal of the key. If the record has no organization, the principal's
// Organization is empty, which no path names.
func (r *Record) Principal() Principal {
	org, _ := metering.StoredOrgID(r.Organization)
	return Principal{Organization: org, KeyID: r.Hash.ID(), Scopes: r.Scopes, ExpiryTime: r.ExpiryTime, UnknownScopes: r.UnknownScopes}
}

// ScopeNames returns the names of all scopes, including the unknown ones, as ReadScopes reads them.
func (i Principal) ScopeNames() string {
	names := i.Scopes.String()
	if names != "" && i.UnknownScopes != "" {
		names += ","
	}
	return names + i.UnknownScopes
}
