package main

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/auth"
)

func TestOnlyAGoodDemoKeyIsKept(t *testing.T) {
	t.Parallel()
	ring := ringOn(t)
	added := func(org string, scopes auth.Scopes, lifetime time.Duration) string {
		r := auth.Record{Organization: org, Scopes: scopes}
		key, err := ring.create(t.Context(), &r, lifetime, ringTime)
		if err != nil {
			t.Fatal(err)
		}
		return string(key)
	}
	revoked := added("demo", auth.Admin, forever)
	if _, _, err := ring.revoke(t.Context(), "demo", auth.Key(revoked).Hash(), ringTime); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, key string
		want      bool
	}{
		{"good for more than a day", added("demo", auth.Admin, day+time.Hour), true},
		{"good for ever", added("demo", auth.Read|auth.Admin, forever), true},
		{"none", "", false},
		{"no key", "mm_key", false},
		{"not of this table", string(auth.New()), false},
		{"of another organization", added("o1", auth.Admin, forever), false},
		{"not for everything", added("demo", auth.Read|auth.Write|auth.Config, forever), false},
		{"good for a day", added("demo", auth.Admin, day), false},
		{"expired", added("demo", auth.Admin, time.Second), false},
		{"revoked", revoked, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "env")
			if err := writeEnv(file, []variable{{"MARKETMETER_KEY", test.key}}); err != nil {
				t.Fatal(err)
			}
			key, ok, err := keptDemoKey(t.Context(), ring.target, file, ringTime.Add(time.Minute))
			if err != nil || ok != test.want || (ok && string(key) != test.key) {
				t.Errorf("kept: %v, %v; want %v", ok, err, test.want)
			}
		})
	}
	if _, ok, err := keptDemoKey(t.Context(), ring.target, filepath.Join(t.TempDir(), "env"), ringTime); ok || err != nil {
		t.Errorf("without a file: %v, %v", ok, err)
	}
}
