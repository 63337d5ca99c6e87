package metering

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"
)

// Stored is an object of the catalog, such as an entitlement, as it is stored.
type Stored[O any] struct {
	Version int    // 1 is the first; it grows with each write, also over a deletion
	JSON    []byte // as clients get it; nil if nothing is stored
	Value   O      // what JSON says
	Err     error  // why what is stored can't be read; Value is zero then
}

// Exists reports whether anything is stored.
func (s *Stored[O]) Exists() bool { return s.JSON != nil }

// Tag names the version and its content. Other content never has the same tag, also not after a
// restore of the table. It is empty if nothing is stored.
func (s *Stored[O]) Tag() string {
	if !s.Exists() {
		return ""
	}
	return strconv.Itoa(s.Version) + "-" + hashOf(s.JSON)
}

// hashOf is a text of 32 characters that no other content has.
func hashOf(content []byte) string {
	const bytes = 16
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:bytes])
}

// Tags is a list of tags in a condition.
type Tags struct {
	Any    bool // "*"
	Listed []string
}

// Conditions are the preconditions of a request (RFC 9110, 13). A nil one is absent.
type Conditions struct {
	IfMatch     *Tags
	IfNoneMatch *Tags
}

// Matches reports whether If-Match holds for the object with that tag. "*" matches any that exists.
func (c Conditions) Matches(tag string, exists bool) bool {
	switch {
	case c.IfMatch == nil:
		return true
	case c.IfMatch.Any:
		return exists
	default:
		return exists && slices.Contains(c.IfMatch.Listed, tag)
	}
}

// NoneMatches reports whether If-None-Match holds for the object with that tag. "*" matches any
// that exists.
func (c Conditions) NoneMatches(tag string, exists bool) bool {
	switch {
	case c.IfNoneMatch == nil:
		return true
	case c.IfNoneMatch.Any:
		return !exists
	default:
		return !slices.Contains(c.IfNoneMatch.Listed, tag)
	}
}

// Tagged is what the conditions of a request are about: a ConfigVersion or a Stored.
type Tagged interface {
	Tag() string // empty if it does not exist
	Matches(Conditions) bool
	NoneMatches(Conditions) bool
}

// Matches reports whether If-Match holds for the object.
func (s *Stored[O]) Matches(c Conditions) bool { return c.Matches(s.Tag(), s.Exists()) }

// NoneMatches reports whether If-None-Match holds for the object.
func (s *Stored[O]) NoneMatches(c Conditions) bool { return c.NoneMatches(s.Tag(), s.Exists()) }

// CheckConditions returns PreconditionFailed if what is stored does not meet the conditions of a
// change. what names it in the error.
func CheckConditions(c Conditions, what string, stored Tagged) error {
	switch {
	case !stored.Matches(c) && stored.Tag() == "":
		return Errorf(PreconditionFailed, "%s does not exist, so it is not the one that If-Match names; nothing was written", what)
	case !stored.Matches(c):
		return Errorf(PreconditionFailed, "%s is not the one that If-Match names: its ETag is %q now; nothing was written", what, stored.Tag())
	case !stored.NoneMatches(c):
		return Errorf(PreconditionFailed, "%s is one that If-None-Match excludes: its ETag is %q; nothing was written", what, stored.Tag())
	default:
		return nil
	}
}
