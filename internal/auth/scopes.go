package auth

import (
	"fmt"
	"slices"
	"strings"
)

// Scopes is a set of permissions of a key.
type Scopes uint8

// The scopes.
const (
	Read   Scopes = 1 << iota // operations that change nothing: list, validate, read the config
	Write                     // change usage record groups, and validate them
	Config                    // read and change the config
	Admin                     // everything
)

var scopeNames = []string{"read", "write", "config", "admin"}

// ParseScopes reads names of scopes, separated by commas; at least one.
func ParseScopes(text string) (Scopes, error) {
	var s Scopes
	for name := range strings.SplitSeq(text, ",") {
		i := slices.Index(scopeNames, strings.TrimSpace(name))
		if i < 0 {
			return 0, fmt.Errorf("%q is no scope: they are %s", name, strings.Join(scopeNames, ", "))
		}
		s |= 1 << i
	}
	return s, nil
}

// ReadScopes reads the names of scopes of a stored key or from the authorizer; a newer version may
// have written them. Unknown names allow nothing; they are returned unchanged, separated by commas.
// ok is false if the text is not a list of names: it is empty, or one of its names is.
func ReadScopes(text string) (known Scopes, unknown string, ok bool) {
	var others []string
	for name := range strings.SplitSeq(text, ",") {
		name = strings.TrimSpace(name)
		if name == "" {
			return 0, "", false
		}
		if i := slices.Index(scopeNames, name); i >= 0 {
			known |= 1 << i
		} else {
			others = append(others, name)
		}
	}
	return known, strings.Join(others, ","), true
}

// String returns the names of the scopes, separated by commas, as ParseScopes reads them.
func (s Scopes) String() string {
	var names []string
	for i, name := range scopeNames {
		if s&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}

// Allow reports whether the set has one of the needed scopes. Admin has them all.
func (s Scopes) Allow(needed Scopes) bool { return s&(needed|Admin) != 0 }
