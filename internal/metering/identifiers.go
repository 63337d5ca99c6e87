package metering

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The Check functions check an identifier against the contract's limits. The error is the second
// half of a sentence: what the identifier must be. Identifiers are UTF-8 and compared byte by
// byte.

// CheckOrganizationID allows 1 to MaxOrganizationID bytes that can travel in a path.
func CheckOrganizationID(id string) error { return checkBytes(id, MaxOrganizationID, inPath) }

// CheckBuyerID allows 1 to MaxBuyerID bytes.
func CheckBuyerID(id string) error { return checkBytes(id, MaxBuyerID, anywhere) }

// CheckProductID allows 1 to MaxProductID bytes.
func CheckProductID(id string) error { return checkBytes(id, MaxProductID, anywhere) }

// CheckEntitlementID allows 1 to MaxEntitlementID bytes that can travel in a path.
func CheckEntitlementID(id string) error { return checkBytes(id, MaxEntitlementID, inPath) }

// CheckGroupID allows 1 to MaxGroupID characters that can travel in a path.
func CheckGroupID(id string) error { return checkCharacters(id, MaxGroupID, inPath) }

// CheckKey allows a dimension or metric key of 1 to MaxKey characters.
func CheckKey(key string) error { return checkCharacters(key, MaxKey, anywhere) }

// The CheckStored functions allow "%" too: earlier versions stored identifiers with it. They are
// for what reads, filters and exports.

// CheckStoredOrganizationID is CheckOrganizationID for an organization that may exist already.
func CheckStoredOrganizationID(id string) error { return checkBytes(id, MaxOrganizationID, onceInPath) }

// CheckStoredEntitlementID is CheckEntitlementID for an entitlement that groups may have already.
func CheckStoredEntitlementID(id string) error { return checkBytes(id, MaxEntitlementID, onceInPath) }

// CheckStoredGroupID is CheckGroupID for a group that may be stored already.
func CheckStoredGroupID(id string) error { return checkCharacters(id, MaxGroupID, onceInPath) }

// idUse is where an identifier is used, which decides what it may hold.
type idUse struct{ forbidden, rule string }

// API Gateway decodes a path twice: that of the id a%41, which is a%2541, reaches the service as
// that of aA (decision 28).
var (
	anywhere   = idUse{}
	inPath     = idUse{"/?%", `it must not hold "/", "?" or "%" and not be "." or ".."`}
	onceInPath = idUse{"/?", `it must not hold "/" or "?" and not be "." or ".."`}
)

func checkBytes(id string, most int, in idUse) error {
	if id == "" || len(id) > most {
		return fmt.Errorf("it must have 1 to %d bytes", most)
	}
	return checkText(id, in)
}

func checkCharacters(id string, most int, in idUse) error {
	if id == "" || utf8.RuneCountInString(id) > most {
		return fmt.Errorf("it must have 1 to %d characters", most)
	}
	return checkText(id, in)
}

func checkText(id string, in idUse) error {
	if !utf8.ValidString(id) {
		return errors.New("it must be UTF-8")
	}
	if strings.ContainsFunc(id, unicode.IsControl) {
		return errors.New("it must not hold control characters")
	}
	if in != anywhere && (strings.ContainsAny(id, in.forbidden) || id == "." || id == "..") {
		return errors.New(in.rule)
	}
	return nil
}

// Quote is s in quotes for a message, cut where it is long.
func Quote(s string) string {
	const most = 80
	if len(s) <= most {
		return strconv.Quote(s)
	}
	cut := most
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return strconv.Quote(s[:cut]) + "..."
}
