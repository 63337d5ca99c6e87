package localserver

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/stack"
	"github.com/marketmeter/marketmeter/internal/transfer"
)

// addDemoKey creates a key for the sample data with every permission.
func addDemoKey(ctx context.Context, t *stack.Target, log *slog.Logger, label string, lifetime time.Duration, now time.Time) (auth.Key, error) {
	ring, err := t.Keyring(ctx, log)
	if err != nil {
		return "", err
	}
	r := auth.Record{
		Organization: transfer.SampleOrg,
		Scopes:       auth.Read | auth.Write | auth.Config | auth.Admin,
		Label:        label,
	}
	key, err := ring.Create(ctx, &r, lifetime, now)
	if err != nil {
		return "", fmt.Errorf("making a key for the sample data: %w", err)
	}
	return key, nil
}

// keptDemoKey returns the demo key that an earlier run wrote to the env file, so that keys don't
// accumulate. ok is false if the file has no key, or one that is not valid in this table for
// another day.
func keptDemoKey(ctx context.Context, t *stack.Target, file string, now time.Time) (key auth.Key, ok bool, err error) {
	variables, err := stack.ReadEnv(file)
	if err != nil {
		return "", false, nil // the file is about to be rewritten
	}
	key, err = auth.Parse(variables["MARKETMETER_KEY"])
	if err != nil {
		return "", false, nil
	}
	r, err := t.APIKey(ctx, key.Hash())
	if metering.CodeOf(err) == metering.NotFound {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	ok = r.Organization == transfer.SampleOrg && r.Scopes.Allow(auth.Admin) && r.State(now.Add(24*time.Hour)) == auth.Active
	return key, ok, nil
}
