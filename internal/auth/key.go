// Package auth is the API's keys: how a key is made and read, what is stored of it, what it allows,
// and how a request is authenticated by its Authorization header. A Keyring creates, rotates and
// revokes keys in a Store. The package knows neither HTTP nor the table.
package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"hash/crc32"
	"strings"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// Key is a secret that a client sends: mm_, 32 random characters of base62 (190 bits) and 6 of a
// checksum. It is shown once, when it is made; only its Hash is stored.
type Key string

const (
	prefix         = "mm_"
	base62         = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	secretLength   = 32
	checksumLength = 6 // of base62 hold 32 bits
	keyLength      = len(prefix) + secretLength + checksumLength
)

// New makes a key from the system's secure random source.
func New() Key {
	text := make([]byte, 0, keyLength)
	text = append(text, prefix...)
	for random := make([]byte, secretLength); len(text) < keyLength-checksumLength; {
		rand.Read(random) // never fails
		for _, b := range random {
			// 248 is the last multiple of 62 in a byte: the values from there on would favour some
			// characters.
			if b < 248 && len(text) < keyLength-checksumLength {
				text = append(text, base62[b%62])
			}
		}
	}
	return Key(append(text, checksum(text)...))
}

// begins reports whether text begins with the form of a key. (A regular expression would be
// compiled at each start of a function, and most functions need none.)
func begins(text string) bool {
	return len(text) >= keyLength && strings.HasPrefix(text, prefix) && strings.Trim(text[len(prefix):keyLength], base62) == ""
}

// Redact removes everything that has the form of a key from a text that is shown or stored, for
// example from a request whose client has put the key in the wrong place.
func Redact(text string) string {
	var redacted strings.Builder
	for {
		before, _, found := strings.Cut(text, prefix)
		redacted.WriteString(before)
		if !found {
			return redacted.String()
		}
		redacted.WriteString(prefix)
		text = text[len(before):]
		if begins(text) {
			redacted.WriteString("...")
			text = text[keyLength:]
		} else {
			text = text[len(prefix):]
		}
	}
}

// checksum is the CRC-32 (IEEE) of text in base62. It guards against typos, not against anyone.
func checksum(text []byte) []byte {
	sum := crc32.ChecksumIEEE(text)
	digits := make([]byte, checksumLength)
	for i := range digits {
		digits[checksumLength-1-i] = base62[sum%62]
		sum /= 62
	}
	return digits
}

// Parse accepts text that has the form and the checksum of a key; Authenticate checks whether the
// key exists. Parse returns Unauthenticated, and never repeats the text.
func Parse(text string) (Key, error) {
	if len(text) != keyLength || !begins(text) {
		return "", metering.Errorf(metering.Unauthenticated,
			"what the Authorization header holds is not a key: a key is %s and %d letters and digits", prefix, keyLength-len(prefix))
	}
	if body := text[:keyLength-checksumLength]; text[len(body):] != string(checksum([]byte(body))) {
		return "", metering.Errorf(metering.Unauthenticated,
			"the key in the Authorization header has a typo: its last %d characters don't match the others", checksumLength)
	}
	return Key(text), nil
}

// Hash is the SHA-256 of a key. Nothing else of a key is stored.
type Hash [sha256.Size]byte

// Hash returns the hash by which the key is looked up.
func (k Key) Hash() Hash { return sha256.Sum256([]byte(k)) }

// String is the hash in hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// ParseHash reads what String wrote; ok is false if text has another form.
func ParseHash(text string) (h Hash, ok bool) {
	bytes, err := hex.DecodeString(text)
	if err != nil || len(bytes) != len(h) {
		return Hash{}, false
	}
	return Hash(bytes), true
}

// ID names a key to people and in logs without revealing it: the first 16 digits of its hash.
func (h Hash) ID() string { return h.String()[:16] }
