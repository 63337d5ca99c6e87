package main

import (
	"cmp"
	"context"
	"fmt"
	"os"

	"github.com/marketmeter/marketmeter/internal/cli"
	"github.com/marketmeter/marketmeter/internal/localserver"
	"github.com/marketmeter/marketmeter/sandbox"
)

// serveSandbox serves the sandbox without the API.
func serveSandbox(ctx context.Context, p cli.Program, args []string) error {
	flags := p.Flags()
	journal := flags.String("journal", localserver.SandboxJournal(p.Getenv), "the file that keeps the state; empty: it is lost at the end")
	catalog := flags.String("catalog", "", "a file with the catalog to begin with, in JSON")
	seed := flags.Uint64("seed", 0, "decides all that is random: ids, tokens, orders, faults by chance")
	resend := flags.String("identical-resend", string(sandbox.ResendSuccess), "AWS's status for an identical record: Success or DuplicateRecord")
	rate := flags.Int("aws-rate", sandbox.DefaultRateLimit, "requests a second that AWS takes, for each account and Region; -1: any number")
	if err := p.ParseAll(flags, args); err != nil {
		return err
	}
	options := sandbox.Options{Journal: *journal, Seed: *seed, IdenticalResend: sandbox.Resend(*resend), RateLimit: *rate}
	if *catalog != "" {
		text, err := os.ReadFile(*catalog)
		if err == nil {
			options.Catalog, err = sandbox.ReadCatalog(text)
		}
		if err != nil {
			return fmt.Errorf("the catalog: %w", err)
		}
	}
	return localserver.RunSandbox(ctx, cmp.Or(p.Getenv("SANDBOX_ADDR"), localserver.DefaultSandboxAddr), options, p.Stdout, p.Stderr)
}
