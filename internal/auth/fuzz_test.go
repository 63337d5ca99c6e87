package auth

import (
	"hash/crc32"
	"math/big"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"github.com/marketmeter/marketmeter/internal/metering"
)

var (
	formOfKey   = regexp.MustCompile(`mm_[0-9A-Za-z]{38}`)
	formOfValue = regexp.MustCompile(`^[ \t]*(?:(?i:key|bearer) [ \t]*)?(mm_[0-9A-Za-z]{38})[ \t]*$`)
	formOfHash  = regexp.MustCompile(`^[0-9A-Fa-f]{64}$`)
)

// FuzzAuthorization looks for an Authorization header that is accepted without a key, or refused
// with one; for an error that contains a key; and for a text in which Redact leaves a key or
// changes something else. It also reads texts of hashes and scopes, which come from the table and
// the command line.
func FuzzAuthorization(f *testing.F) {
	const key = "mm_0123456789ABCDEFGHIJKLMNOPQRSTUV3hylLU"
	for _, header := range []string{
		"", "Key", "Key " + key, "\tbEARER \t " + key + " ", key, "Basic " + key, "Key Key " + key, key + "," + key, "Key " + key[:40] + "V", key + "0",
		"mm_mm_" + key, "see mm_ and " + key + key[3:], "ü" + key + "\x00", "\u212Aey " + key,
		"d2f980555642babb8d3d722a879db1353746d84f28f0fb50f42fbba58b051d3c", "read, write,admin", "config,config", "read,report,READ", ",read", "read,,write",
	} {
		f.Add(header)
	}
	f.Fuzz(func(t *testing.T, text string) {
		// Once unchanged, and once with the right checksum, which random input would never have.
		for _, header := range []string{text, formOfKey.ReplaceAllStringFunc(text, func(key string) string {
			return key[:len(key)-checksumLength] + checksumOf(key[:len(key)-checksumLength])
		})} {
			var want Key
			if found := formOfValue.FindStringSubmatch(header); found != nil {
				if body := found[1][:len(found[1])-checksumLength]; found[1] == body+checksumOf(body) {
					want = Key(found[1])
				}
			}
			got, err := parseAuthorization(header)
			if got != want || (err == nil) != (want != "") {
				t.Fatalf("%q has the key %q, %v, and not %q", header, got, err, want)
			}
			if err != nil && (metering.CodeOf(err) != metering.Unauthenticated || err.Error() == "" || formOfKey.MatchString(err.Error())) {
				t.Fatalf("%q: %#v", header, err)
			}
		}
		if got, want := Redact(text), formOfKey.ReplaceAllString(text, "mm_..."); got != want {
			t.Fatalf("%q is shown as %q, and not as %q", text, got, want)
		}
		hash, ok := ParseHash(text)
		if ok != formOfHash.MatchString(text) || ok && hash.String() != strings.ToLower(text) {
			t.Fatalf("%q is the hash %s, %v", text, hash, ok)
		}
		scopes, err := ParseScopes(text)
		known, unknown, ok := ReadScopes(text)
		if err == nil && (!ok || known != scopes || unknown != "") || err != nil && ok && unknown == "" {
			t.Fatalf("%q has the scopes %s, %v, and is read as %s and %q, %v", text, scopes, err, known, unknown, ok)
		}
		if again, same, fine := ReadScopes((&Record{Scopes: known, UnknownScopes: unknown}).Principal().ScopeNames()); ok && (!fine || again != known || same != unknown) {
			t.Fatalf("%q is read as %s and %q, and again as %s and %q, %v", text, known, unknown, again, same, fine)
		}
		if err != nil {
			return
		}
		if again, err := ParseScopes(scopes.String()); err != nil || again != scopes || scopes == 0 {
			t.Fatalf("%q has the scopes %s, which are %s, %v", text, scopes, again, err)
		}
		for i, name := range scopeNames {
			given := false
			for part := range strings.SplitSeq(text, ",") {
				given = given || strings.TrimFunc(part, unicode.IsSpace) == name
			}
			if given != (scopes&(1<<i) != 0) {
				t.Fatalf("%q has the scopes %s", text, scopes)
			}
		}
	})
}

// checksumOf is six digits in base 62. In math/big, lower case letters are before upper case ones.
func checksumOf(body string) string {
	digits := new(big.Int).SetUint64(uint64(crc32.ChecksumIEEE([]byte(body)))).Text(62)
	other := strings.Map(func(c rune) rune {
		if unicode.IsLower(c) {
			return unicode.ToUpper(c)
		}
		return unicode.ToLower(c)
	}, digits)
	return strings.Repeat("0", checksumLength-len(other)) + other
}
