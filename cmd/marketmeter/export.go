package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/csv"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/wire"
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
	newWriter, ok := groupWriters[*format]
	if !ok {
		return usageError(fmt.Sprintf("--format is %q: it must be jsonl or csv", *format))
	}
	if *raw {
		if *format != "csv" {
			return usageError("--csv-raw is for --format csv alone")
		}
		newWriter = newRawCSVWriter
	}
	tbl, err := openTable(ctx, p)
	if err != nil {
		return err
	}
	return writeGroups(ctx, tbl.Table, *org, filter, newWriter(p.stdout), p.stderr)
}

func dayFlag(flags *flag.FlagSet, day *metering.Day, name, usage string) {
	flags.Func(name, usage, func(text string) (err error) {
		*day, err = metering.ParseDay(text)
		return err
	})
}

// groupWriter writes groups in a format. After an error it is of no more use.
type groupWriter interface {
	// write returns the paths of members that the format can't hold, which it has left out.
	write(*metering.Group) (leftOut []string, err error)
	flush() error
}

var groupWriters = map[string]func(io.Writer) groupWriter{
	"jsonl": func(w io.Writer) groupWriter { return &jsonlWriter{out: bufio.NewWriter(w)} },
	"csv":   newCSVWriter,
}

// writeGroups writes the organization's groups of the filter, newest first. It holds a page of
// them in memory, however many there are. What it can't write it names on stderr, and fails at the end.
//
//	Query  a round trip and about 128 read units per 1 MB
func writeGroups(ctx context.Context, tbl *table.Table, org string, filter metering.GroupFilter, w groupWriter, stderr io.Writer) error {
	var reading, writing error
	incomplete := 0
	for group, err := range tbl.Groups(ctx, org, filter) {
		if err != nil {
			if reading != nil {
				fmt.Fprintln(stderr, reading)
			}
			reading = err
			continue // to the groups after one that can't be read; nothing comes after an error of the table
		}
		var leftOut []string
		if leftOut, writing = w.write(group); writing != nil {
			break
		}
		if len(leftOut) > 0 {
			incomplete++
			fmt.Fprintf(stderr, "group %s is written without %s: a newer version stored it, and this format can't hold it\n",
				metering.Quote(group.ID), strings.Join(leftOut, ", "))
		}
	}
	if writing == nil {
		writing = w.flush()
	}
	if ctx.Err() != nil {
		return errors.New("interrupted: what was written is not all")
	}
	if err := cmp.Or(reading, writing); err != nil {
		return fmt.Errorf("what was written is not all: %w", err)
	}
	if incomplete > 0 {
		return fmt.Errorf("what was written is not all: of %d groups a member is missing; export them by the version that stored them", incomplete)
	}
	return nil
}

type jsonlWriter struct {
	out  *bufio.Writer
	line []byte
}

func (w *jsonlWriter) write(g *metering.Group) ([]string, error) {
	w.line = append(wire.AppendGroupForExport(w.line[:0], g), '\n')
	_, err := w.out.Write(w.line)
	return g.Unexportable, err
}

func (w *jsonlWriter) flush() error { return w.out.Flush() }

type csvWriter struct {
	out *csv.Writer
	raw bool // texts are written as they are
}

func newCSVWriter(w io.Writer) groupWriter { return beginCSV(w, false) }

func newRawCSVWriter(w io.Writer) groupWriter { return beginCSV(w, true) }

func beginCSV(w io.Writer, raw bool) groupWriter {
	out := csv.NewWriter(w)
	header := make([]string, len(metering.GroupMembers))
	for i, m := range metering.GroupMembers {
		header[i] = m.Name
	}
	_ = out.Write(header) // into the buffer: what fails comes out of flush
	return csvWriter{out, raw}
}

// write has no column for members of the group itself that it does not know.
func (w csvWriter) write(g *metering.Group) ([]string, error) {
	row := make([]string, len(metering.GroupMembers))
	for i := range metering.GroupMembers {
		row[i] = w.cell(metering.GroupMembers[i].Get(g))
	}
	return slices.Concat(slices.Sorted(maps.Keys(g.Unknown)), g.Unexportable), w.out.Write(row)
}

// cell returns the cell of a member's value.
func (w csvWriter) cell(value any) string {
	switch value := value.(type) {
	case nil:
		return ""
	case string:
		return w.text(value)
	case int32:
		return strconv.Itoa(int(value))
	case time.Time:
		return metering.FormatTime(value)
	case map[string]metering.Quantity:
		return string(wire.AppendQuantities(nil, value))
	case metering.MetaInfo:
		return string(wire.AppendMetaInfoForExport(nil, &value))
	default:
		panic(fmt.Sprintf("export: a %T has no form in CSV", value))
	}
}

// text returns the cell of a text that a client may have chosen: exportHelp has the rule. Quotes around a cell do not
// help, because a spreadsheet takes them off first.
func (w csvWriter) text(text string) string {
	const begins = "=+-@＝＋－＠\t\r\n"
	inside := strings.TrimLeftFunc(text, func(r rune) bool {
		return (unicode.IsSpace(r) || !unicode.IsPrint(r)) && !strings.ContainsRune(begins, r)
	})
	first, _ := utf8.DecodeRuneInString(inside)
	if !w.raw && (strings.HasPrefix(text, "'") || inside != "" && strings.ContainsRune(begins, first)) {
		return "'" + text
	}
	return text
}

func (w csvWriter) flush() error {
	w.out.Flush()
	return w.out.Error()
}
