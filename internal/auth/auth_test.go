package auth_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/metering"
)

func TestKey_HasItsForm(t *testing.T) {
	t.Parallel()
	form := regexp.MustCompile(`^mm_[0-9A-Za-z]{38}$`)
	seen := map[auth.Key]bool{}
	counts := map[rune]int{}
	for range 2000 {
		key := auth.New()
		if !form.MatchString(string(key)) {
			t.Fatalf("%s has not the form of a key", key)
		}
		if seen[key] {
			t.Fatalf("%s was made twice", key)
		}
		seen[key] = true
		if parsed, err := auth.Parse(string(key)); err != nil || parsed != key {
			t.Fatalf("%s is read as %s, %v", key, parsed, err)
		}
		for _, c := range key[3:35] {
			counts[c]++
		}
	}
	// 64,000 characters, 1,032 of each of 62: in one of a million runs, the count of some character
	// is this far off.
	for c, n := range counts {
		if n < 800 || n > 1270 || len(counts) != 62 {
			t.Errorf("%c is there %d times of 64,000, beside %d others", c, n, len(counts)-1)
		}
	}
}

// The form is fixed: later versions must read keys that were issued before.
func TestKey_OfOldIsRead(t *testing.T) {
	t.Parallel()
	const key = "mm_0123456789ABCDEFGHIJKLMNOPQRSTUV3hylLU"
	parsed, err := auth.Parse(key)
	if err != nil {
		t.Fatal(err)
	}
	if got := parsed.Hash().String(); got != "d2f980555642babb8d3d722a879db1353746d84f28f0fb50f42fbba58b051d3c" || parsed.Hash().ID() != got[:16] {
		t.Error(got, parsed.Hash().ID())
	}
}

func TestKey_TypoIsReported(t *testing.T) {
	t.Parallel()
	const characters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_- \x00ü"
	rapid.Check(t, func(t *rapid.T) {
		key := string(auth.New())
		at := rapid.IntRange(0, len(key)-1).Draw(t, "at")
		other := string(rapid.SampledFrom([]rune(characters)).Draw(t, "character"))
		for what, text := range map[string]string{
			"another character": key[:at] + other + key[at+1:],
			"one more":          key[:at] + other + key[at:],
			"one less":          key[:at] + key[at+1:],
			"cut":               key[:at],
			"swapped":           key[:max(at-1, 0)] + key[at:at+1] + key[max(at-1, 0):at] + key[at+1:],
		} {
			if text == key {
				continue
			}
			_, err := auth.Parse(text)
			if metering.CodeOf(err) != metering.Unauthenticated {
				t.Fatalf("%s at %d: %q is taken for a key: %v", what, at, text, err)
			}
			if len(text) > 10 && strings.Contains(err.Error(), text[3:]) {
				t.Fatalf("the error contains the key: %v", err)
			}
		}
	})
}

func TestRedact_KeyInAText(t *testing.T) {
	t.Parallel()
	key := string(auth.New())
	for text, want := range map[string]string{
		key: "mm_...", `path "/org/` + key + `/x" and ` + key: `path "/org/mm_.../x" and mm_...`, key + "more": "mm_...more", key[:40]: key[:40], "mm_": "mm_",
	} {
		if got := auth.Redact(text); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}

// For all texts, Redact removes what matches the form of a key.
func TestRedact_GoesByTheForm(t *testing.T) {
	t.Parallel()
	form := regexp.MustCompile(`mm_[0-9A-Za-z]{38}`)
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOf(rapid.OneOf(
			rapid.SampledFrom([]string{"mm_", "m", "_", "-", "é", "\xff"}), rapid.StringMatching(`[0-9A-Za-z]{37,39}`), rapid.StringMatching(`mm_[0-9A-Za-z]{38}`),
		)).Draw(t, "parts"), "")
		if got, want := auth.Redact(text), form.ReplaceAllString(text, "mm_..."); got != want {
			t.Fatalf("%q becomes %q, not %q", text, got, want)
		}
	})
}

func TestScopes_AllowWhatTheyName(t *testing.T) {
	t.Parallel()
	for s := auth.Scopes(1); s < 16; s++ {
		if parsed, err := auth.ParseScopes(s.String()); err != nil || parsed != s {
			t.Errorf("%s is read as %s, %v", s, parsed, err)
		}
		for needed := auth.Scopes(1); needed < 16; needed++ {
			if got, want := s.Allow(needed), s&needed != 0 || s&auth.Admin != 0; got != want {
				t.Errorf("%s for %s: %v", s, needed, got)
			}
		}
	}
	if s, err := auth.ParseScopes("write, read,write"); err != nil || s != auth.Read|auth.Write {
		t.Errorf("%s, %v", s, err)
	}
	for _, text := range []string{"", "reads", "read,", "Read", "read;write", "*"} {
		if s, err := auth.ParseScopes(text); err == nil || !strings.Contains(err.Error(), "read, write, config, admin") {
			t.Errorf("%q is %s, %v", text, s, err)
		}
	}
	if auth.Scopes(0).Allow(auth.Read | auth.Write | auth.Config | auth.Admin) {
		t.Error("no scope allows something")
	}
}

func TestReadScopes_UnknownNamesAllowNothing(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		known   auth.Scopes
		unknown string
		ok      bool
	}{
		"read,report":           {auth.Read, "report", true},
		" report , config,Read": {auth.Config, "report,Read", true},
		"report":                {0, "report", true},
		"read;write":            {0, "read;write", true},
		"admin,admin":           {auth.Admin, "", true},
		"":                      {}, ",": {}, "read,": {}, " ,read": {}, "read,,report": {},
	} {
		if known, unknown, ok := auth.ReadScopes(text); known != want.known || unknown != want.unknown || ok != want.ok {
			t.Errorf("%q is read as %s and %q, %v", text, known, unknown, ok)
		}
	}
	err := auth.Principal{Organization: "o1", UnknownScopes: "report"}.Authorize("o1", auth.Read, time.Time{})
	if metering.CodeOf(err) != metering.Forbidden || err.Error() != "the key has no scope that is known here: this takes one of read,admin" {
		t.Error(err)
	}
}

func TestState_IsThatAtTheTime(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		expiry, revocation time.Time
		want               auth.State
		unreadable         []string
	}{
		{unreadable: []string{"label"}, want: auth.Unreadable},
		{unreadable: []string{"record"}, expiry: at, want: auth.Expired},
		{unreadable: []string{"label"}, expiry: at.Add(time.Millisecond), want: auth.Unreadable},
		{unreadable: []string{"label"}, revocation: at, want: auth.Revoked},
		{unreadable: []string{"label", "revocationTime"}, want: auth.Revoked},
		{want: auth.Active},
		{expiry: at.Add(time.Millisecond), want: auth.Active},
		{expiry: at, want: auth.Expired},
		{expiry: at.Add(-time.Hour), want: auth.Expired},
		{revocation: at.Add(-time.Hour), want: auth.Revoked},
		{revocation: at.Add(time.Hour), want: auth.Revoked}, // another clock
		{expiry: at.Add(-2 * time.Hour), revocation: at.Add(-time.Hour), want: auth.Revoked},
	} {
		r := auth.Record{ExpiryTime: c.expiry, RevocationTime: c.revocation, Unreadable: c.unreadable}
		if got := r.State(at); got != c.want {
			t.Errorf("expiry %v, revocation %v: %s, want %s", c.expiry, c.revocation, got, c.want)
		}
	}
}

func TestAuthorize_ChecksOrganizationScopeAndTime(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	identity := auth.Principal{Organization: "acme", KeyID: "id", Scopes: auth.Read, ExpiryTime: at}
	before := at.Add(-time.Millisecond)
	for _, c := range []struct {
		organization string
		needed       auth.Scopes
		now          time.Time
		want         metering.Code
	}{
		{"acm", auth.Read, before, metering.Forbidden},
		{"acmee", auth.Read, before, metering.Forbidden},
		{"ACME", auth.Read, before, metering.Forbidden},
		{"", auth.Read, before, metering.Forbidden},
		{"acme", auth.Write | auth.Config, before, metering.Forbidden},
		{"acme", auth.Read | auth.Config, at, metering.Unauthenticated},
	} {
		if err := identity.Authorize(c.organization, c.needed, c.now); err == nil || metering.CodeOf(err) != c.want {
			t.Errorf("%q, %s, %v: %v", c.organization, c.needed, c.now, err)
		}
	}
	if err := identity.Authorize("acme", auth.Read|auth.Config, before); err != nil {
		t.Error(err)
	}
	identity.ExpiryTime = time.Time{}
	if err := identity.Authorize("acme", auth.Read, at.AddDate(100, 0, 0)); err != nil {
		t.Errorf("a key that never expires: %v", err)
	}
}
