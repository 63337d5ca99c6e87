package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"time"

	"github.com/marketmeter/marketmeter/internal/cli"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/stack"
	"github.com/marketmeter/marketmeter/internal/transfer"
)

func importLines(ctx context.Context, p cli.Program, args []string) error {
	flags := p.Flags()
	org := flags.String("org", "", "the `organization` to import into; required")
	kind := kindFlag(flags)
	rewriteOrg := flags.Bool("rewrite-org", false, "import the lines of other organizations too, as the organization's own")
	if err := p.Parse(flags, args); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return cli.UsageError(fmt.Sprintf("it takes one FILE, or -, after the flags; there are %d", flags.NArg()))
	}
	if err := checkOrg(metering.ParseOrgID, *org); err != nil {
		return err
	}
	from, err := p.Open(flags.Arg(0))
	if err != nil {
		return err
	}
	defer from.Close()
	tbl, err := stack.Open(ctx, p.Getenv, p.Stderr)
	if err != nil {
		return err
	}
	show := transfer.NewProgress(p.Stderr, p.Getenv, time.Now)
	counts, err := transfer.Import(ctx, tbl.Table, metering.OrgID(*org), from, transfer.ImportOptions{
		Kind: *kind, RewriteOrg: *rewriteOrg, Patience: time.Minute, Refused: show.Refused, Progress: show.Counts,
	})
	show.Clear()
	if _, printing := fmt.Fprintln(p.Stdout, counts); printing != nil && err == nil {
		err = fmt.Errorf("%v, which could not be written to standard output: %w", counts, printing)
	}
	if err == nil && counts.Refused > 0 {
		return cli.ExitStatus(1)
	}
	return err
}

// kindFlag defines --kind.
func kindFlag(flags *flag.FlagSet) *transfer.Kind {
	kind := transfer.Groups
	flags.Func("kind", "the `kind` of the lines: groups, entitlements or metrics (default groups)", func(text string) error {
		kind = transfer.Kind(text)
		if !slices.Contains(transfer.Kinds, kind) {
			return errors.New("it must be groups, entitlements or metrics")
		}
		return nil
	})
	return &kind
}

// checkOrg checks --org. A command that stores something parses it by metering.ParseOrgID. One that
// reads or ends stored data parses it by metering.StoredOrgID, as earlier versions did.
func checkOrg(parse func(string) (metering.OrgID, error), org string) error {
	if org == "" {
		return cli.UsageError("--org is missing: it names the organization")
	}
	if _, err := parse(org); err != nil {
		return cli.UsageError(fmt.Sprintf("--org is %s: %v", metering.Quote(org), err))
	}
	return nil
}
