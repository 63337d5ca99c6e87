package auth

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// FuzzAuditLine looks for a line that is read as the end of a key but does not say whose, which and
// when; and for a line that is read differently after the program has written it itself.
func FuzzAuditLine(f *testing.F) {
	hash := Hash{0xd5}
	for _, line := range []string{
		`{"msg":"key changed","what":"revoked","organization":"o1","keyId":"` + hash.ID() + `"}`,
		`{"time":"2026-11-23T18:37:56.3Z","level":"INFO","msg":"key changed","what":"rotated","organization":"o\u00231","keyId":"` + hash.ID() +
			`","keyHash":"` + hash.String() + `","expiryTime":"2026-11-24T18:37:56.357Z","newKeyId":"b5f438f6715ace75"}`,
		`{"msg":"key changed","what":"ended","organization":"o1","keyId":"` + hash.ID() + `","expiryTime":"1990-12-31T23:59:59.1234+01:00","keyHash":"` + hash.String() + `"}`,
		`{"msg":"key changed","what":"ended","organization":"o1","keyId":"` + hash.ID() + `","expiryTime":"0001-01-01T00:00:00Z"}`,
		`{"msg":"key changed","what":"created"}`, `{"msg":"request","keyId":5}`, `{"MSG":"key changed","What":"revoked"}`,
		"table marketmeter at eu-central-1", "marketmeter key revoke: no", "{", "null", `{"msg":"key changed"}{`,
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		end, ok, err := ParseAuditLine(text)
		if ok && err != nil || !ok && end != (KeyEnd{}) {
			t.Fatalf("%q is read as %+v, %v, %v", text, end, ok, err)
		}
		if !ok {
			return
		}
		if end.Organization == "" || len(end.KeyID) != maxIDDigits || !isIDDigits(end.KeyID) || end.Revoked != end.At.IsZero() ||
			end.Hash != (Hash{}) && end.Hash.ID() != end.KeyID {
			t.Fatalf("%q is read as %+v", text, end)
		}
		if end.Hash == (Hash{}) {
			return // of old lines
		}
		what := "revoked"
		if !end.Revoked {
			what = "ended"
		}
		var log bytes.Buffer
		ring := &Keyring{Log: slog.New(slog.NewJSONHandler(&log, nil))}
		ring.changed(what, &Record{Hash: end.Hash, Organization: end.Organization, ExpiryTime: end.At})
		if again, ok, err := ParseAuditLine(bytes.TrimSpace(log.Bytes())); again != end || !ok || err != nil {
			t.Fatalf("%q is read as %+v, and again as %+v, %v, %v", text, end, again, ok, err)
		}
	})
}

// For all lines that the keyring can write, the line is read as what was done.
func TestParseAuditLine_ReadsWhatIsWritten(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := Record{
			Hash: New().Hash(), Organization: rapid.StringN(1, 64, -1).Draw(t, "organization"), Scopes: Read,
			ExpiryTime: time.Date(2026, 3, 1, 9, 30, 0, 123e6, time.UTC),
		}
		what := rapid.SampledFrom([]string{"created", "rotated", "ended", "revoked"}).Draw(t, "what")
		var log bytes.Buffer
		ring := &Keyring{Log: slog.New(slog.NewJSONHandler(&log, nil))}
		ring.changed(what, &r, "newKeyId", "0123456789abcdef")
		got, ok, err := ParseAuditLine(bytes.TrimSpace(log.Bytes()))
		want := KeyEnd{Organization: strings.ToValidUTF8(r.Organization, "\ufffd"), KeyID: r.Hash.ID(), Hash: r.Hash, Revoked: what == "revoked"}
		if what == "created" {
			want = KeyEnd{}
		} else if !want.Revoked {
			want.At = r.ExpiryTime
		}
		if got != want || ok != (what != "created") || err != nil {
			t.Fatalf("%sis read as %+v, %v, %v", &log, got, ok, err)
		}
	})
}
