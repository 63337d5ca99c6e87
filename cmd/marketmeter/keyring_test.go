package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/google/go-cmp/cmp"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// ringTime is when the tests of the keyring take place.
var ringTime = time.Date(2026, 3, 1, 9, 30, 0, 123456789, time.UTC)

// ringOn is a keyring on a table of its own.
func ringOn(t *testing.T) *keyring {
	t.Helper()
	client, name := tabletest.Client(t)
	return &keyring{
		target: &target{Table: table.New(client, name), name: name}, operator: "ann@host", log: slog.New(slog.DiscardHandler),
	}
}

// add makes a key of organization o1 and returns what is kept of it.
func (k *keyring) add(t *testing.T, lifetime time.Duration, at time.Time) auth.Record {
	t.Helper()
	r := auth.Record{Organization: "o1", Scopes: auth.Read | auth.Config, Label: "ci"}
	key, err := k.create(t.Context(), &r, lifetime, at)
	if err != nil || key.Hash() != r.Hash {
		t.Fatal(r, err)
	}
	k.wantKept(t, r)
	return r
}

func (k *keyring) wantKept(t *testing.T, want auth.Record) {
	t.Helper()
	got, err := k.APIKey(t.Context(), want.Hash)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("kept is, %v (-want +got):\n%s", err, diff)
	}
}

func TestRotationEndsTheOldKeyInTime(t *testing.T) {
	t.Parallel()
	ring := ringOn(t)
	made, never := ringTime.Truncate(time.Millisecond), time.Time{}
	for _, test := range []struct {
		name                         string
		oldLifetime, keep, lifetime  time.Duration
		wantOldExpiry, wantNewExpiry time.Time
	}{
		{"as by default", 30 * day, day, likeTheOld, made.Add(day), made.Add(90 * day)},
		{"of a key that ends sooner", time.Hour, day, likeTheOld, made.Add(time.Hour), made.Add(90 * day)},
		{"of a key that never expires", forever, day, likeTheOld, made.Add(day), never},
		{"of such a key, for one that does", forever, day, 7 * day, made.Add(day), made.Add(7 * day)},
		{"for a key that never expires", 30 * day, day, forever, made.Add(day), never},
		{"at once", 30 * day, 0, likeTheOld, made, made.Add(90 * day)},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			old := ring.add(t, test.oldLifetime, ringTime)
			wantOld := old
			wantOld.ExpiryTime = test.wantOldExpiry
			key, r, err := ring.rotate(t.Context(), &old, test.keep, test.lifetime, ringTime)
			if err != nil {
				t.Fatal(err)
			}
			wantOld.ReplacedBy = key.Hash().ID()
			ring.wantKept(t, wantOld)
			ring.wantKept(t, auth.Record{
				Hash: key.Hash(), Organization: "o1", Scopes: old.Scopes, Label: "ci",
				CreationTime: made, CreatedBy: "ann@host", ExpiryTime: test.wantNewExpiry,
			})
			if r.Hash != key.Hash() || !old.ExpiryTime.Equal(test.wantOldExpiry) {
				t.Errorf("it tells %v and %v", r, old)
			}
		})
	}
}

func TestOnlyGoodKeysAreRotated(t *testing.T) {
	t.Parallel()
	ring := ringOn(t)
	expired := ring.add(t, time.Hour, ringTime)
	revoked := ring.add(t, forever, ringTime)
	stale := revoked // as it was before another operator revoked it
	if _, _, err := ring.revoke(t.Context(), "o1", revoked.Hash, ringTime); err != nil {
		t.Fatal(err)
	}
	revoked.RevocationTime = ringTime
	for _, test := range []struct {
		old  auth.Record
		want string
	}{
		{expired, " expired at 2026-03-01T10:30:00.123Z, and only a key that is good is rotated, once"},
		{revoked, " was revoked at 2026-03-01T09:30:00.123Z, and only"},
		{stale, "there is no key " + stale.Hash.ID()},
	} {
		if _, _, err := ring.rotate(t.Context(), &test.old, day, likeTheOld, ringTime.Add(2*time.Hour)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v; want %q", err, test.want)
		}
	}
	if all, err := ring.APIKeys(t.Context(), "o1"); err != nil || len(all) != 2 {
		t.Errorf("there are %d keys, %v; want the 2 there were", len(all), err)
	}
}

func TestRevocationIsOnce(t *testing.T) {
	t.Parallel()
	ring := ringOn(t)
	var log bytes.Buffer
	ring.log = slog.New(slog.NewJSONHandler(&log, nil))
	want := ring.add(t, day, ringTime)
	want.RevocationTime, want.RevokedBy = ringTime.Truncate(time.Millisecond), "ann@host"
	for i, by := range []string{"ann@host", "ann@host", "bob@host"} {
		ring.operator = by
		got, changed, err := ring.revoke(t.Context(), "o1", want.Hash, ringTime.Add(time.Duration(i)*time.Hour))
		if diff := cmp.Diff(want, got); err != nil || diff != "" || changed != (i == 0) {
			t.Errorf("time %d by %s: changed %v, %v (-want +got):\n%s", i, by, changed, err, diff)
		}
	}
	ring.wantKept(t, want)
	if n := strings.Count(log.String(), `"what":"revoked"`); n != 1 {
		t.Errorf("%d lines; want one:\n%s", n, &log)
	}
	if _, _, err := ring.revoke(t.Context(), "o2", want.Hash, ringTime); metering.CodeOf(err) != metering.NotFound {
		t.Errorf("of another organization: %v; want it not found", err)
	}
}

func TestFindTakesTheOnlyKeyThatItCanBe(t *testing.T) {
	t.Parallel()
	ring := ringOn(t)
	own := auth.New()
	for org, hashes := range map[string][]auth.Hash{
		"o1": {{0xab, 0xcd, 0x01}, {0xab, 0xcd, 0x02}, {0x12, 0x34}, own.Hash()},
		"o2": {{0x56, 0x78}},
	} {
		for _, hash := range hashes {
			if err := ring.AddAPIKey(t.Context(), &auth.Record{Hash: hash, Organization: org, Scopes: auth.Read, CreationTime: ringTime}); err != nil {
				t.Fatal(err)
			}
		}
	}
	other := auth.New()
	for text, want := range map[string]string{
		"1234":                                 "1234000000000000",
		"12340":                                "1234000000000000",
		"abcd01":                               "abcd010000000000",
		"abcd020000000000":                     "abcd020000000000",
		string(own):                            own.Hash().ID(),
		own.Hash().String():                    own.Hash().ID(),
		strings.ToUpper(other.Hash().String()): other.Hash().ID(), // the caller sees whether it is there
	} {
		if got, err := ring.find(t.Context(), "o1", text); err != nil || got.ID() != want {
			t.Errorf("%s is %s, %v; want %s", text, got.ID(), err, want)
		}
	}
	for text, want := range map[string]string{
		"abcd": `2 keys of organization "o1" begin with abcd: give more digits of one, abcd010000000000, abcd020000000000`,
		"5678": `organization "o1" has no key 5678: ` + "`marketmeter key list --org o1` shows those that it has; " +
			"a key that is not listed can be named by its whole hash or by the key itself",
	} {
		if _, err := ring.find(t.Context(), "o1", text); err == nil || err.Error() != want {
			t.Errorf("%s: %v; want %s", text, err, want)
		}
	}
	for _, hash := range []auth.Hash{own.Hash(), other.Hash()} {
		_, err := ring.read(t.Context(), "o2", hash)
		_, _, again := ring.revoke(t.Context(), "o2", hash, ringTime)
		for _, err := range []error{err, again} {
			if metering.CodeOf(err) != metering.NotFound || !strings.Contains(err.Error(), "has no key "+hash.ID()) {
				t.Errorf("another organization's, or nobody's: %v", err)
			}
		}
	}
}

func TestTheOperatorIsNamed(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]string{"local": "", "AKIAEXAMPLE": " with access key AKIAEXAMPLE"} {
		ring, err := newKeyring(t.Context(), &target{credentials: credentials.NewStaticCredentialsProvider(id, "secret", "")}, nil)
		if err != nil {
			t.Fatal(err)
		}
		who, key, _ := strings.Cut(ring.operator, " with ")
		if name, host, at := strings.Cut(who, "@"); !at || name == "" || host == "" || strings.TrimPrefix(want, " with ") != key {
			t.Errorf("with %s it is %q; want user@host%s", id, ring.operator, want)
		}
	}
	_, err := newKeyring(t.Context(), &target{credentials: credentials.NewStaticCredentialsProvider("", "", "")}, nil)
	if err == nil || !strings.HasPrefix(err.Error(), "the AWS credentials: ") {
		t.Errorf("without credentials: %v", err)
	}
}
