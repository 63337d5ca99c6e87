package metering

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The identifiers. Each has its own type, so that one can't be used as another. Parse makes an
// identifier from what a client sends. Stored makes one that may be stored already: it accepts "%",
// which earlier versions stored in identifiers that must not have it now. (A reader of the table
// converts what it finds: other versions may have stored it.) An error is the second half of a
// sentence: what the identifier must be. Identifiers are UTF-8 and compared byte by byte.

// OrgID is an organization: 1 to MaxOrganizationID bytes that can travel in a path.
type OrgID string

// GroupID is a usage record group: 1 to MaxGroupID characters that can travel in a path.
type GroupID string

// EntitlementID is an entitlement: 1 to MaxEntitlementID bytes that can travel in a path.
type EntitlementID string

// BuyerID is a buyer: 1 to MaxBuyerID bytes.
type BuyerID string

// ProductID is a product: 1 to MaxProductID bytes.
type ProductID string

// ParseOrgID makes the identifier of an organization.
func ParseOrgID(text string) (OrgID, error) {
	return parsed[OrgID](text, checkBytes(text, MaxOrganizationID, inPath))
}

// StoredOrgID makes the identifier of an organization that may exist already.
func StoredOrgID(text string) (OrgID, error) {
	return parsed[OrgID](text, checkBytes(text, MaxOrganizationID, onceInPath))
}

// ParseGroupID makes the identifier of a group.
func ParseGroupID(text string) (GroupID, error) {
	return parsed[GroupID](text, checkCharacters(text, MaxGroupID, inPath))
}

// StoredGroupID makes the identifier of a group that may be stored already.
func StoredGroupID(text string) (GroupID, error) {
	return parsed[GroupID](text, checkCharacters(text, MaxGroupID, onceInPath))
}

// ParseEntitlementID makes the identifier of an entitlement.
func ParseEntitlementID(text string) (EntitlementID, error) {
	return parsed[EntitlementID](text, checkBytes(text, MaxEntitlementID, inPath))
}

// StoredEntitlementID makes the identifier of an entitlement that groups may have already.
func StoredEntitlementID(text string) (EntitlementID, error) {
	return parsed[EntitlementID](text, checkBytes(text, MaxEntitlementID, onceInPath))
}

// ParseBuyerID makes the identifier of a buyer.
func ParseBuyerID(text string) (BuyerID, error) {
	return parsed[BuyerID](text, checkBytes(text, MaxBuyerID, anywhere))
}

// ParseProductID makes the identifier of a product.
func ParseProductID(text string) (ProductID, error) {
	return parsed[ProductID](text, checkBytes(text, MaxProductID, anywhere))
}

func parsed[ID ~string](text string, err error) (ID, error) {
	if err != nil {
		return "", err
	}
	return ID(text), nil
}

// CheckKey allows a dimension or metric key of 1 to MaxKey characters.
func CheckKey(key string) error { return checkCharacters(key, MaxKey, anywhere) }

// idUse is a use of an identifier, which decides the characters that it may have.
type idUse struct{ forbidden, rule string }

// API Gateway decodes a path twice: the path of the id a%41, encoded as a%2541, reaches the service
// as the path of aA (decision 28).
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

// Quote returns s in quotes for a message, truncated if it is long.
func Quote[S ~string](text S) string {
	s := string(text)
	const most = 80
	if len(s) <= most {
		return strconv.Quote(s)
	}
	return strconv.Quote(Prefix(s, most)) + "..."
}

// Prefix returns the first n bytes of the text, or fewer, so that no character is cut.
func Prefix(text string, n int) string {
	if len(text) <= n {
		return text
	}
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n]
}
