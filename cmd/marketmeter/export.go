package main

import (
	"context"
	"flag"
	"fmt"

	"github.com/marketmeter/marketmeter/internal/cli"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/stack"
	"github.com/marketmeter/marketmeter/internal/transfer"
)

func exportLines(ctx context.Context, p cli.Program, args []string) error {
	flags := p.Flags()
	org := flags.String("org", "", "the `organization` to export; required")
	kind := kindFlag(flags)
	format := flags.String("format", "jsonl", "jsonl or csv")
	raw := flags.Bool("csv-raw", false, "write texts in CSV as they are stored, also those that a spreadsheet takes for formulas")
	var filter metering.GroupFilter
	dayFlag(flags, &filter.StartDate, "from", "the first `day` of creation, as YYYY-MM-DD in UTC (default: of the oldest group)")
	dayFlag(flags, &filter.EndDate, "to", "the last `day` of creation, as YYYY-MM-DD in UTC (default: of the newest group)")
	if err := p.ParseAll(flags, args); err != nil {
		return err
	}
	if err := checkOrg(metering.StoredOrgID, *org); err != nil {
		return err
	}
	if filter.StartDate != "" && filter.EndDate != "" && filter.StartDate > filter.EndDate {
		return cli.UsageError(fmt.Sprintf("--from is %s and --to %s: the first day must not be after the last", filter.StartDate, filter.EndDate))
	}
	switch {
	case *format != "jsonl" && *format != "csv":
		return cli.UsageError(fmt.Sprintf("--format is %q: it must be jsonl or csv", *format))
	case *raw && *format != "csv":
		return cli.UsageError("--csv-raw is for --format csv alone")
	case *kind != transfer.Groups && *format == "csv":
		return cli.UsageError(fmt.Sprintf("--format csv is for --kind groups alone: %s are exported as jsonl", *kind))
	case *kind != transfer.Groups && (filter.StartDate != "" || filter.EndDate != ""):
		return cli.UsageError(fmt.Sprintf("--from and --to are for --kind groups alone: all %s are exported", *kind))
	}
	tbl, err := stack.Open(ctx, p.Getenv, p.Stderr)
	if err != nil {
		return err
	}
	if *kind != transfer.Groups {
		return transfer.ExportCatalog(ctx, tbl.Table, metering.OrgID(*org), *kind, p.Stdout, p.Stderr)
	}
	var writer transfer.Writer
	if *format == "csv" {
		writer = transfer.NewCSV(p.Stdout, *raw)
	} else {
		writer = transfer.NewJSONL(p.Stdout)
	}
	return transfer.Export(ctx, tbl.Table, metering.OrgID(*org), filter, writer, p.Stderr)
}

func dayFlag(flags *flag.FlagSet, day *metering.Day, name, usage string) {
	flags.Func(name, usage, func(text string) (err error) {
		*day, err = metering.ParseDay(text)
		return err
	})
}
