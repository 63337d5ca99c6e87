package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/marketmeter/marketmeter/internal/localserver"
	"github.com/marketmeter/marketmeter/sandbox"
)

const sandboxHelp = `
usage: marketmeter sandbox [flags]

Serves the AWS, Azure and Google Cloud marketplaces on this machine until Ctrl-C or TERM: their usage
metering, strictly by their rules, and a control API for catalog, clock, faults, requests and the bill.
docs/sandbox.md explains it.

  SANDBOX_ADDR  its address, ` + localserver.DefaultSandboxAddr + ` if not set; it must be a loopback address
  LOCAL_DIR     the folder of the journal; .local if not set

`

// serveSandbox serves the sandbox without the API.
func serveSandbox(ctx context.Context, p program, args []string) error {
	flags := flag.NewFlagSet("sandbox", flag.ContinueOnError)
	journal := flags.String("journal", localserver.SandboxJournal(p.getenv), "the file that keeps the state; empty: it is lost at the end")
	catalog := flags.String("catalog", "", "a file with the catalog to begin with, in JSON")
	seed := flags.Uint64("seed", 0, "decides all that is random: ids, tokens, orders, faults by chance")
	resend := flags.String("identical-resend", string(sandbox.ResendSuccess), "AWS's status for an identical record: Success or DuplicateRecord")
	rate := flags.Int("aws-rate", sandbox.DefaultRateLimit, "requests a second that AWS takes, for each account and Region; -1: any number")
	if err := p.parse(flags, sandboxHelp, args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return usageError(fmt.Sprintf("it takes no argument %q", flags.Arg(0)))
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
	s, err := localserver.StartSandbox(cmp.Or(p.getenv("SANDBOX_ADDR"), localserver.DefaultSandboxAddr), options)
	if err != nil {
		return err
	}
	if s.KeptCatalog {
		fmt.Fprintf(p.stderr, "The journal %s has another catalog, which stays: --catalog %s is not used. "+
			"PUT /control/catalog replaces it.\n", *journal, *catalog)
	}
	fmt.Fprintf(p.stdout, "The sandbox serves until Ctrl-C:\n\n")
	for _, e := range []struct{ name, path, does string }{
		{"AWS", "/aws", "BatchMeterUsage, ResolveCustomer: the endpoint of a client"},
		{"Azure", "/azure", "{tenant}/oauth2/v2.0/token, api/usageEvent, api/batchUsageEvent, api/usageEvents"},
		{"Google", "/gcp", "token, v1/token, v1/services/{service}:check, :report"},
		{"control", "/control", "catalog, clock, faults, requests, records, bill, reset"},
	} {
		fmt.Fprintf(p.stdout, "  %-8s %s%-9s %s\n", e.name, s.URL, e.path, e.does)
	}
	if *journal != "" {
		fmt.Fprintf(p.stdout, "\nIts state is in %s.\n", *journal)
	}
	select {
	case <-ctx.Done():
		return s.Stop()
	case err := <-s.Failed:
		return errors.Join(fmt.Errorf("serving at %s: %w", s.URL, err), s.Stop())
	}
}
