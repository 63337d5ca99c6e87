package auth_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/google/go-cmp/cmp"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// ringTime is the time of the tests of the keyring.
var ringTime = time.Date(2026, 3, 1, 9, 30, 0, 123456789, time.UTC)

const day = 24 * time.Hour

// keyring is a Keyring on a table of its own.
type keyring struct {
	*auth.Keyring
	client *dynamodb.Client
}

func ringOn(t *testing.T) keyring {
	t.Helper()
	client, name := tabletest.Client(t)
	return keyring{&auth.Keyring{Store: table.New(client, name), Operator: "ann@host", Table: name, Log: slog.New(slog.DiscardHandler)}, client}
}

// add makes a key of organization o1 and returns its record.
func (k keyring) add(t *testing.T, lifetime time.Duration, at time.Time) auth.Record {
	t.Helper()
	r := auth.Record{Organization: "o1", Scopes: auth.Read | auth.Config, Label: "ci"}
	key, err := k.Create(t.Context(), &r, lifetime, at)
	if err != nil || key.Hash() != r.Hash {
		t.Fatal(r, err)
	}
	k.wantKept(t, r)
	return r
}

func (k keyring) wantKept(t *testing.T, want auth.Record) {
	t.Helper()
	got, err := k.Store.APIKey(t.Context(), want.Hash)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("kept is, %v (-want +got):\n%s", err, diff)
	}
}

func TestRotate_EndsTheOldKeyInTime(t *testing.T) {
	t.Parallel()
	ring := ringOn(t)
	made, never := ringTime.Truncate(time.Millisecond), time.Time{}
	for _, test := range []struct {
		name                         string
		oldLifetime, keep, lifetime  time.Duration
		wantOldExpiry, wantNewExpiry time.Time
	}{
		{"as by default", 30 * day, day, auth.LikeTheOld, made.Add(day), made.Add(90 * day)},
		{"of a key that ends sooner", time.Hour, day, auth.LikeTheOld, made.Add(time.Hour), made.Add(90 * day)},
		{"of a key that never expires", auth.Forever, day, auth.LikeTheOld, made.Add(day), never},
		{"of such a key, for one that does", auth.Forever, day, 7 * day, made.Add(day), made.Add(7 * day)},
		{"for a key that never expires", 30 * day, day, auth.Forever, made.Add(day), never},
		{"at once", 30 * day, 0, auth.LikeTheOld, made, made.Add(90 * day)},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			old := ring.add(t, test.oldLifetime, ringTime)
			wantOld := old
			wantOld.ExpiryTime = test.wantOldExpiry
			key, r, err := ring.Rotate(t.Context(), &old, test.keep, test.lifetime, ringTime)
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
				t.Errorf("it returns %v and %v", r, old)
			}
		})
	}
}

func TestRotate_OnlyGoodKeys(t *testing.T) {
	t.Parallel()
	ring := ringOn(t)
	expired := ring.add(t, time.Hour, ringTime)
	revoked := ring.add(t, auth.Forever, ringTime)
	stale := revoked // as it was before another operator revoked it
	if _, _, err := ring.Revoke(t.Context(), "o1", revoked.Hash, ringTime); err != nil {
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
		if _, _, err := ring.Rotate(t.Context(), &test.old, day, auth.LikeTheOld, ringTime.Add(2*time.Hour)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v; want %q", err, test.want)
		}
	}
	if all, err := ring.Store.(*table.Table).APIKeys(t.Context(), "o1"); err != nil || len(all) != 2 {
		t.Errorf("there are %d keys, %v; want the 2 there were", len(all), err)
	}
}

func TestRevoke_IsOnce(t *testing.T) {
	t.Parallel()
	ring := ringOn(t)
	var log bytes.Buffer
	ring.Log = slog.New(slog.NewJSONHandler(&log, nil))
	want := ring.add(t, day, ringTime)
	want.RevocationTime, want.RevokedBy = ringTime.Truncate(time.Millisecond), "ann@host"
	for i, by := range []string{"ann@host", "ann@host", "bob@host"} {
		ring.Operator = by
		got, changed, err := ring.Revoke(t.Context(), "o1", want.Hash, ringTime.Add(time.Duration(i)*time.Hour))
		if diff := cmp.Diff(want, got); err != nil || diff != "" || changed != (i == 0) {
			t.Errorf("time %d by %s: changed %v, %v (-want +got):\n%s", i, by, changed, err, diff)
		}
	}
	ring.wantKept(t, want)
	if n := strings.Count(log.String(), `"what":"revoked"`); n != 1 {
		t.Errorf("%d lines; want one:\n%s", n, &log)
	}
	if _, _, err := ring.Revoke(t.Context(), "o2", want.Hash, ringTime); metering.CodeOf(err) != metering.NotFound {
		t.Errorf("of another organization: %v; want it not found", err)
	}
}

func TestFind_ReturnsTheOnlyMatch(t *testing.T) {
	t.Parallel()
	ring := ringOn(t)
	own := auth.New()
	for org, hashes := range map[string][]auth.Hash{
		"o1": {{0xab, 0xcd, 0x01}, {0xab, 0xcd, 0x02}, {0x12, 0x34}, own.Hash()},
		"o2": {{0x56, 0x78}},
	} {
		for _, hash := range hashes {
			if err := ring.Store.AddAPIKey(t.Context(), &auth.Record{Hash: hash, Organization: org, Scopes: auth.Read, CreationTime: ringTime}); err != nil {
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
		strings.ToUpper(other.Hash().String()): other.Hash().ID(), // the caller checks whether the key exists
	} {
		if got, err := ring.Find(t.Context(), "o1", text); err != nil || got.ID() != want {
			t.Errorf("%s is %s, %v; want %s", text, got.ID(), err, want)
		}
	}
	for text, want := range map[string]string{
		"abcd": `2 keys of organization "o1" begin with abcd: give more digits of one, abcd010000000000, abcd020000000000`,
		"5678": `organization "o1" has no key 5678`,
	} {
		if _, err := ring.Find(t.Context(), "o1", text); err == nil || err.Error() != want {
			t.Errorf("%s: %v; want %s", text, err, want)
		}
	}
	for _, hash := range []auth.Hash{own.Hash(), other.Hash()} {
		_, err := ring.Read(t.Context(), "o2", hash)
		_, _, again := ring.Revoke(t.Context(), "o2", hash, ringTime)
		for _, err := range []error{err, again} {
			if metering.CodeOf(err) != metering.NotFound || !strings.Contains(err.Error(), "has no key "+hash.ID()) {
				t.Errorf("another organization's, or nobody's: %v", err)
			}
		}
	}
}

// EndAgain writes audit lines of its own, so that it can be repeated after another restore.
func TestEndAgain_LeavesAuditLinesOfItsOwn(t *testing.T) {
	t.Parallel()
	revoked := auth.Record{Hash: auth.New().Hash(), Organization: "o1", Scopes: auth.Read, CreationTime: ringTime.Truncate(time.Millisecond)}
	ended := revoked
	ended.Hash = auth.New().Hash()
	audit := fmt.Sprintf(`{"msg":"key changed","what":"revoked","organization":"o1","keyId":"%s"}
{"msg":"key changed","what":"rotated","organization":"o1","keyId":"%s","expiryTime":"2026-03-01T10:30:00.000Z"}`, revoked.Hash.ID(), ended.Hash.ID())
	for range 3 {
		ring := ringOn(t) // as a table that was restored to a time before the changes
		for _, r := range []auth.Record{revoked, ended} {
			if err := ring.Store.AddAPIKey(t.Context(), &r); err != nil {
				t.Fatal(err)
			}
		}
		var log bytes.Buffer
		ring.Log = slog.New(slog.NewJSONHandler(&log, nil))
		for again := range 2 {
			for line := range strings.Lines(audit) {
				end, ok, err := auth.ParseAuditLine([]byte(line))
				if err != nil || !ok {
					t.Fatalf("%s: %v, %v", line, ok, err)
				}
				hash, changed, err := ring.EndAgain(t.Context(), end, ringTime.Add(time.Duration(again)*time.Hour))
				if err != nil || changed != (again == 0) || hash.ID() != end.KeyID {
					t.Errorf("%s: %s, changed %v, %v", line, hash.ID(), changed, err)
				}
			}
		}
		want := revoked
		want.RevocationTime, want.RevokedBy = ringTime.Truncate(time.Millisecond), "ann@host"
		ring.wantKept(t, want)
		want = ended
		want.ExpiryTime = time.Date(2026, 3, 1, 10, 30, 0, 0, time.UTC)
		ring.wantKept(t, want)
		audit = log.String()
	}
}

// A key that was revoked, or whose expiry cannot be read, is not ended: the first has ended
// already, the second is reported.
func TestEnd_EndsOnlyWhatItCanRead(t *testing.T) {
	t.Parallel()
	ring := ringOn(t)
	ends := ringTime.Add(time.Hour)
	revoked, unreadable := ring.add(t, auth.Forever, ringTime), ring.add(t, auth.Forever, ringTime)
	if _, _, err := ring.Revoke(t.Context(), "o1", revoked.Hash, ringTime); err != nil {
		t.Fatal(err)
	}
	if changed, err := ring.End(t.Context(), "o1", revoked.Hash, ends, ringTime); changed || err != nil {
		t.Errorf("revoked: %v, %v", changed, err)
	}
	if _, err := ring.client.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{
		TableName: &ring.Table, UpdateExpression: aws.String("SET expiryTime = :v"),
		Key: map[string]types.AttributeValue{
			"PK": &types.AttributeValueMemberS{Value: "KEY#" + unreadable.Hash.String()}, "SK": &types.AttributeValueMemberS{Value: "KEY"},
		},
		ExpressionAttributeValues: map[string]types.AttributeValue{":v": &types.AttributeValueMemberN{Value: "1"}},
	}); err != nil {
		t.Fatal(err)
	}
	if changed, err := ring.End(t.Context(), "o1", unreadable.Hash, ends, ringTime); changed || err == nil || !strings.Contains(err.Error(), "cannot be read: expiryTime; revoke it") {
		t.Errorf("unreadable: %v, %v", changed, err)
	}
}

// A failed write whose response may have been lost may have made a key: the error has its id.
func TestCreate_LostResponseNamesTheKey(t *testing.T) {
	t.Parallel()
	_, name := tabletest.Client(t)
	client, _ := tabletest.NewFaults(slices.Repeat([]tabletest.Fault{tabletest.Lose}, 1000)...)
	ring := auth.Keyring{Store: table.New(client, name), Operator: "ann@host", Log: slog.New(slog.DiscardHandler)}
	r := auth.Record{Organization: "o1", Scopes: auth.Read}
	key, err := ring.Create(t.Context(), &r, day, ringTime)
	uncertain, ok := errors.AsType[*auth.UncertainError](err)
	if key != "" || !ok || uncertain.KeyID != r.Hash.ID() || metering.CodeOf(err) != metering.Unavailable {
		t.Errorf("%q, %v; want no key, and an error that names the key", key, err)
	}
}
