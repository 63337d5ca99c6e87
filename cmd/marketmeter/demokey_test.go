package main

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/apikey"
)

func TestOnlyAGoodDemoKeyIsKept(t *testing.T) {
	t.Parallel()
	ring := ringOn(t)
	added := func(org string, scopes apikey.Scopes, lifetime time.Duration) string {
		r := apikey.Record{Organization: org, Scopes: scopes}
		key, err := ring.create(t.Context(), &r, lifetime, ringTime)
		if err != nil {
			t.Fatal(err)
		}
		return string(key)
	}
	revoked := added("demo", apikey.Admin, forever)
	if _, _, err := ring.revoke(t.Context(), "demo", apikey.Key(revoked).Hash(), ringTime); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, key string
		want      bool
	}{
		{"good for more than a day", added("demo", apikey.Admin, day+time.Hour), true},
		{"good for ever", added("demo", apikey.Read|apikey.Admin, forever), true},
		{"none", "", false},
		{"no key", "mm_key", false},
		{"not of this table", string(apikey.New()), false},
		{"of another organization", added("o1", apikey.Admin, forever), false},
		{"not for everything", added("demo", apikey.Read|apikey.Write|apikey.Config, forever), false},
		{"good for a day", added("demo", apikey.Admin, day), false},
		{"expired", added("demo", apikey.Admin, time.Second), false},
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
