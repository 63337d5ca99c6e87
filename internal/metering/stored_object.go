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

// CheckConditions returns PreconditionFailed if the stored object does not meet the conditions of a
// change. what names the object in the error.
func CheckConditions[O any](c Conditions, what string, stored *Stored[O]) error {
	tag, exists := stored.Tag(), stored.Exists()
	switch {
	case !c.Matches(tag, exists) && !exists:
		return Errorf(PreconditionFailed, "%s does not exist, so it is not the one that If-Match names; nothing was written", what)
	case !c.Matches(tag, exists):
		return Errorf(PreconditionFailed, "%s is not the one that If-Match names: its ETag is %q now; nothing was written", what, tag)
	case !c.NoneMatches(tag, exists):
		return Errorf(PreconditionFailed, "%s is one that If-None-Match excludes: its ETag is %q; nothing was written", what, tag)
	default:
		return nil
	}
}
