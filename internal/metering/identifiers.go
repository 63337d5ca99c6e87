package metering

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The Check functions hold an identifier to the contract's limits and say in a sentence's second
// half what it must be. Identifiers are UTF-8 and compared byte by byte.

// CheckOrganizationID allows 1 to 64 bytes that can travel in a path.
func CheckOrganizationID(id string) error { return checkBytes(id, 64, true) }

// CheckBuyerID allows 1 to 256 bytes.
func CheckBuyerID(id string) error { return checkBytes(id, 256, false) }

// CheckProductID allows 1 to 256 bytes.
func CheckProductID(id string) error { return checkBytes(id, 256, false) }

// CheckEntitlementID allows 1 to 256 bytes that can travel in a path.
func CheckEntitlementID(id string) error { return checkBytes(id, 256, true) }

// CheckGroupID allows 1 to 36 characters that can travel in a path.
func CheckGroupID(id string) error { return checkCharacters(id, 36, true) }

// CheckKey allows a dimension or metric key: 1 to 255 characters.
func CheckKey(key string) error { return checkCharacters(key, 255, false) }

func checkBytes(id string, most int, inPath bool) error {
	if id == "" || len(id) > most {
		return fmt.Errorf("it must have 1 to %d bytes", most)
	}
	return checkText(id, inPath)
}

func checkCharacters(id string, most int, inPath bool) error {
	if id == "" || utf8.RuneCountInString(id) > most {
		return fmt.Errorf("it must have 1 to %d characters", most)
	}
	return checkText(id, inPath)
}

func checkText(id string, inPath bool) error {
	if !utf8.ValidString(id) {
		return errors.New("it must be UTF-8")
	}
	if strings.ContainsFunc(id, unicode.IsControl) {
		return errors.New("it must not hold control characters")
	}
	if inPath && (strings.ContainsAny(id, "/?") || id == "." || id == "..") {
		return errors.New(`it must not hold "/" or "?" and not be "." or ".."`)
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
