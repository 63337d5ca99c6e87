package auth_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/marketmeter/marketmeter/internal/auth"
)

func TestList_ShowsEachKey(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 9, 30, 59, 999e6, time.UTC)
	hash := func(first byte) (h auth.Hash) { h[0] = first; return h }
	var got bytes.Buffer
	if err := auth.WriteList(&got, []auth.Record{
		{
			Hash: hash(1), Label: "é \u202eci\x1b[2J", Scopes: auth.Read | auth.Admin, CreatedBy: "ann@a b", CreationTime: now,
			LastUsedTime: now.Truncate(time.Hour),
		},
		{Hash: hash(2), Scopes: auth.Config, CreatedBy: "ann@host", CreationTime: now, ExpiryTime: now},
		{
			Hash: hash(3), Label: "x", Scopes: auth.Config, CreatedBy: "ann@host", CreationTime: now, ExpiryTime: now.Add(day),
			RevocationTime: now.Add(time.Minute), RevokedBy: "bob@host",
		},
		{
			Hash: hash(4), Scopes: auth.Read, CreatedBy: "c", CreationTime: now, UnknownScopes: "report,\x1b[2J", UnknownAttributes: []string{"a", "\n"},
			ReplacedBy: "05\r", Unreadable: []string{"label", "expiryTime"},
		},
		{Unreadable: []string{"record", `SK "KEY#x"`}},
	}, now); err != nil {
		t.Fatal(err)
	}
	const want = `ID                LABEL      SCOPES      CREATED            CREATED BY  EXPIRES            LAST USED          STATE
0100000000000000  é �ci�[2J  read,admin  2026-03-01T09:30Z  ann@a b     never              2026-03-01T09:00Z  active
0200000000000000  -          config      2026-03-01T09:30Z  ann@host    2026-03-01T09:30Z  never              expired
0300000000000000  x          config      2026-03-01T09:30Z  ann@host    2026-03-02T09:30Z  never              revoked 2026-03-01T09:31Z by bob@host
0400000000000000  -          read        2026-03-01T09:30Z  c           ?                  never              unreadable: label, expiryTime, rotated to 05�, unknown scopes: "report,\x1b[2J", unknown attributes: "a,\n"
-                 -          -           ?                  -           ?                  ?                  unreadable: record, SK "KEY#x"
`
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
