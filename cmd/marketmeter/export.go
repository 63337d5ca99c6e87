package main

import (
	"context"
	"flag"
	"fmt"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/transfer"
)

const exportHelp = `
usage: marketmeter export --org ORG [--format jsonl|csv] [--csv-raw] [--from DAY] [--to DAY]

Writes all usage record groups of organization ORG to standard output, newest first.

  jsonl  one JSON object a line, as the list operation returns it, and with productID: what
         "marketmeter import" reads
  csv    a header and a row a group; records and metaInfo are JSON. For people and their spreadsheets:
         "marketmeter import" does not read it.

A spreadsheet takes a cell that begins with =, +, - or @ for a formula, which may come from a client. So
in CSV a text has a ' before it if it begins with one of these (also in full width: ＝＋－＠), a tab, a
carriage return or a line feed, spaces and characters that are not shown aside, or with a ' of its own:
taking one leading ' off each text gives what is stored. The columns records, metaInfo, serialID and
those of times are no texts and never have one. --csv-raw writes texts as they are stored, for programs.

A group that was written less than a second ago may not be there yet.

Members that a newer version has stored and this one does not know are exported too, for an import by
that version. Nothing is left out silently: a group that can't be read, or a member that the format can't
hold, is named on standard error, the rest is exported, and the exit status is 1.

`

func exportGroups(ctx context.Context, p program, args []string) error {
	flags := flag.NewFlagSet("export", flag.ContinueOnError)
	org := flags.String("org", "", "the `organization` to export; required")
	format := flags.String("format", "jsonl", "jsonl or csv")
	raw := flags.Bool("csv-raw", false, "write texts in CSV as they are stored, also those that a spreadsheet takes for formulas")
	var filter metering.GroupFilter
	dayFlag(flags, &filter.StartDate, "from", "the first `day` of creation, as YYYY-MM-DD in UTC (default: of the oldest group)")
	dayFlag(flags, &filter.EndDate, "to", "the last `day` of creation, as YYYY-MM-DD in UTC (default: of the newest group)")
	if err := p.parse(flags, exportHelp, args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return usageError(fmt.Sprintf("it takes no argument %q", flags.Arg(0)))
	}
	if err := checkStoredOrg(*org); err != nil {
		return err
	}
	if filter.StartDate != "" && filter.EndDate != "" && filter.StartDate > filter.EndDate {
		return usageError(fmt.Sprintf("--from is %s and --to %s: the first day must not be after the last", filter.StartDate, filter.EndDate))
	}
	switch {
	case *format != "jsonl" && *format != "csv":
		return usageError(fmt.Sprintf("--format is %q: it must be jsonl or csv", *format))
	case *raw && *format != "csv":
		return usageError("--csv-raw is for --format csv alone")
	}
	tbl, err := p.openTable(ctx)
	if err != nil {
		return err
	}
	var writer transfer.Writer
	if *format == "csv" {
		writer = transfer.NewCSV(p.stdout, *raw)
	} else {
		writer = transfer.NewJSONL(p.stdout)
	}
	return transfer.Export(ctx, tbl.Table, metering.OrgID(*org), filter, writer, p.stderr)
}

func dayFlag(flags *flag.FlagSet, day *metering.Day, name, usage string) {
	flags.Func(name, usage, func(text string) (err error) {
		*day, err = metering.ParseDay(text)
		return err
	})
}
