package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/transfer"
)

const importHelp = `
usage: marketmeter import --org ORG [--rewrite-org] FILE

Loads usage record groups into organization ORG: one JSON object a line, as the list operation returns
it or "marketmeter export" writes it, in UTF-8, plain or compressed with gzip. FILE may be - for standard
input. Ids, times and statuses stay as
they are. A group whose id is there is skipped and never overwritten, so an import that was broken off
can be run again. A bad line is refused, with its number and the reason on standard error, and the rest
goes on.

A group may have at most 392 KB as stored. A line must have id, buyerID, entitlementID, partner, status and creationTime. It may have productID,
which is stored and never returned, and all other members of a group; its organizationID must be ORG.

The last line of output counts what was imported, skipped and refused. The exit status is 0 where
nothing was refused, 1 where something was or the import failed, 2 for a command line that can't be meant.

`

func importGroups(ctx context.Context, p program, args []string) error {
	flags := flag.NewFlagSet("import", flag.ContinueOnError)
	org := flags.String("org", "", "the `organization` to import into; required")
	rewriteOrg := flags.Bool("rewrite-org", false, "import the groups of other organizations too, as the organization's own")
	if err := p.parse(flags, importHelp, args); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return usageError(fmt.Sprintf("it takes one FILE, or -, after the flags; there are %d", flags.NArg()))
	}
	if err := checkOrg(*org); err != nil {
		return err
	}
	from := p.stdin
	if name := flags.Arg(0); name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return err
		}
		defer file.Close()
		from = file
	}
	tbl, err := p.openTable(ctx)
	if err != nil {
		return err
	}
	show := transfer.NewProgress(p.stderr, p.getenv, time.Now)
	counts, err := transfer.Import(ctx, tbl.Table, metering.OrgID(*org), from, transfer.ImportOptions{
		RewriteOrg: *rewriteOrg, Patience: time.Minute, Refused: show.Refused, Progress: show.Counts,
	})
	show.Clear()
	if _, printing := fmt.Fprintln(p.stdout, counts); printing != nil && err == nil {
		err = fmt.Errorf("%v, which could not be written to standard output: %w", counts, printing)
	}
	if err == nil && counts.Refused > 0 {
		return exitStatus(1)
	}
	return err
}

// checkOrg checks the --org of a command that stores something for an organization.
func checkOrg(org string) error { return checkOrgBy(metering.ParseOrgID, org) }

// checkStoredOrg checks the --org of a command that reads or ends stored data. It also accepts ids
// that were allowed by earlier versions.
func checkStoredOrg(org string) error { return checkOrgBy(metering.StoredOrgID, org) }

func checkOrgBy(parse func(string) (metering.OrgID, error), org string) error {
	if org == "" {
		return usageError("--org is missing: it names the organization")
	}
	if _, err := parse(org); err != nil {
		return usageError(fmt.Sprintf("--org is %s: %v", metering.Quote(org), err))
	}
	return nil
}
