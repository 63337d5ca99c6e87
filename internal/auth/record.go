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

// Record is what is kept of a key. It stays when the key has ended, so that there is an answer to
// who had access when.
type Record struct {
	Hash         Hash
	Organization string
	Scopes       Scopes
	Label        string // for people; up to 100 characters

	CreationTime   time.Time
	ExpiryTime     time.Time // not good from then on; zero is never
	LastUsedTime   time.Time // to the hour; zero is never
	RevocationTime time.Time // zero where it is not revoked

	CreatedBy, RevokedBy string // the operator
	ReplacedBy           string // the ID of the key that it was rotated to; empty where it was not

	UnknownScopes     string   // names of scopes, joined by commas, that this version does not know: they allow nothing
	UnknownAttributes []string // what else is stored that this version does not know: it changes nothing

	// Unreadable names what is stored of the key and cannot be read: it is damaged, or a newer
	// version writes it in another way. The fields of these attributes are empty, and the key lets
	// nobody in.
	Unreadable []string
}

// Names in Record.Unreadable.
const (
	WholeRecord         = "record"         // it is missing or another organization's; nothing but the Hash is known, if that
	RevocationAttribute = "revocationTime" // the key is revoked, nobody can say when
)

// CheckLabel allows up to 100 characters of one line.
func CheckLabel(label string) error {
	if !utf8.ValidString(label) || utf8.RuneCountInString(label) > 100 || strings.ContainsFunc(label, unicode.IsControl) {
		return errors.New("it must have at most 100 characters, in UTF-8 and without control characters")
	}
	return nil
}

// State is whether a key is good.
type State string

// The states of a key. A key that has been revoked and has expired too is revoked; one of which
// something cannot be read and that has ended anyway is not Unreadable.
const (
	Active     State = "active"
	Expired    State = "expired"
	Revoked    State = "revoked"
	Unreadable State = "unreadable"
)

// State is the state at that time.
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

// Principal is who sends a request and what they may do: of a key that has been checked, what the
// operations need to know.
type Principal struct {
	Organization metering.OrgID
	KeyID        string
	Scopes       Scopes
	ExpiryTime   time.Time // zero is never

	UnknownScopes string // as in Record: another version of the service may know them
}

// Principal is whom the key stands for. A record of no organization stands for nobody: its
// Organization is empty, which no path names.
func (r *Record) Principal() Principal {
	org, _ := metering.StoredOrgID(r.Organization)
	return Principal{Organization: org, KeyID: r.Hash.ID(), Scopes: r.Scopes, ExpiryTime: r.ExpiryTime, UnknownScopes: r.UnknownScopes}
}

// ScopeNames are the names of all scopes, the unknown ones too, as ReadScopes reads them.
func (i Principal) ScopeNames() string {
	names := i.Scopes.String()
	if names != "" && i.UnknownScopes != "" {
		names += ","
	}
	return names + i.UnknownScopes
}
