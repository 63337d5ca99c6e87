package main

import (
	"context"
	"fmt"
	"time"

	"github.com/marketmeter/marketmeter/internal/cli"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/stack"
	"github.com/marketmeter/marketmeter/internal/transfer"
)

const kindUsage = "the `kind` of the lines: groups, entitlements or metrics (default groups)"

func importLines(ctx context.Context, p cli.Program, args []string) error {
	flags := p.Flags()
	orgText := flags.String("org", "", "the `organization` to import into; required")
	options := transfer.ImportOptions{Kind: transfer.Groups, Patience: time.Minute}
	cli.Var(flags, &options.Kind, "kind", kindUsage, transfer.ParseKind)
	flags.BoolVar(&options.RewriteOrg, "rewrite-org", false, "import the lines of other organizations too, as the organization's own")
	if err := p.Parse(flags, args); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return cli.UsageError(fmt.Sprintf("it takes one FILE, or -, after the flags; there are %d", flags.NArg()))
	}
	org, err := parseOrg(metering.ParseOrgID, *orgText)
	if err != nil {
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
	options.Refused, options.Progress = show.Refused, show.Counts
	counts, err := transfer.Import(ctx, tbl.Table, org, from, options)
	show.Clear()
	if _, printing := fmt.Fprintln(p.Stdout, counts); printing != nil && err == nil {
		err = fmt.Errorf("%v, which could not be written to standard output: %w", counts, printing)
	}
	if err == nil && counts.Refused > 0 {
		return cli.ExitStatus(1)
	}
	return err
}

func exportLines(ctx context.Context, p cli.Program, args []string) error {
	flags := p.Flags()
	orgText := flags.String("org", "", "the `organization` to export; required")
	options := transfer.ExportOptions{Kind: transfer.Groups}
	cli.Var(flags, &options.Kind, "kind", kindUsage, transfer.ParseKind)
	flags.StringVar(&options.Format, "format", "jsonl", "jsonl or csv")
	flags.BoolVar(&options.CSVRaw, "csv-raw", false, "write texts in CSV as they are stored, also those that a spreadsheet takes for formulas")
	cli.Var(flags, &options.Filter.StartDate, "from", "the first `day` of creation, as YYYY-MM-DD in UTC (default: of the oldest group)", metering.ParseDay)
	cli.Var(flags, &options.Filter.EndDate, "to", "the last `day` of creation, as YYYY-MM-DD in UTC (default: of the newest group)", metering.ParseDay)
	if err := p.ParseAll(flags, args); err != nil {
		return err
	}
	org, err := parseOrg(metering.StoredOrgID, *orgText)
	if err != nil {
		return err
	}
	if err := options.Check(); err != nil {
		return cli.UsageError(err.Error())
	}
	tbl, err := stack.Open(ctx, p.Getenv, p.Stderr)
	if err != nil {
		return err
	}
	return transfer.Export(ctx, tbl.Table, org, options, p.Stdout, p.Stderr)
}
