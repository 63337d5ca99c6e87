package localserver

import (
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/stack"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

func TestDemoKey_OnlyAValidOneIsReused(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	target := &stack.Target{Table: table.New(client, name), Name: name}
	ring := auth.Keyring{Store: target.Table, Operator: "ann@host", Log: slog.New(slog.DiscardHandler)}
	added := func(org string, scopes auth.Scopes, lifetime time.Duration) string {
		r := auth.Record{Organization: org, Scopes: scopes}
		key, err := ring.Create(t.Context(), &r, lifetime, demoTime)
		if err != nil {
			t.Fatal(err)
		}
		return string(key)
	}
	revoked := added("demo", auth.Admin, auth.Forever)
	if _, _, err := ring.Revoke(t.Context(), "demo", auth.Key(revoked).Hash(), demoTime); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, key string
		want      bool
	}{
		{"good for more than a day", added("demo", auth.Admin, day+time.Hour), true},
		{"good for ever", added("demo", auth.Read|auth.Admin, auth.Forever), true},
		{"none", "", false},
		{"no key", "mm_key", false},
		{"not of this table", string(auth.New()), false},
		{"of another organization", added("o1", auth.Admin, auth.Forever), false},
		{"not for everything", added("demo", auth.Read|auth.Write|auth.Config, auth.Forever), false},
		{"good for a day", added("demo", auth.Admin, day), false},
		{"expired", added("demo", auth.Admin, time.Second), false},
		{"revoked", revoked, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "env")
			if err := stack.WriteEnv(file, []stack.Variable{{Name: "MARKETMETER_KEY", Value: test.key}}); err != nil {
				t.Fatal(err)
			}
			key, ok, err := keptDemoKey(t.Context(), target, file, demoTime.Add(time.Minute))
			if err != nil || ok != test.want || (ok && string(key) != test.key) {
				t.Errorf("kept: %v, %v; want %v", ok, err, test.want)
			}
		})
	}
	if _, ok, err := keptDemoKey(t.Context(), target, filepath.Join(t.TempDir(), "env"), demoTime); ok || err != nil {
		t.Errorf("without a file: %v, %v", ok, err)
	}
}

// demoTime is the creation time of the test's demo keys.
var demoTime = time.Date(2026, 3, 1, 9, 30, 0, 123456789, time.UTC)
