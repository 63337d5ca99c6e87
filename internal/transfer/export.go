package transfer

import (
	"bufio"
	"cmp"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"iter"
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

// ExportOptions are the options of an export. Without any, it writes groups as lines of JSON.
type ExportOptions struct {
	Kind   Kind
	Format string               // jsonl or, for groups, csv
	CSVRaw bool                 // texts are written in CSV as they are stored
	Filter metering.GroupFilter // of groups
}

// Check returns an error, with the names of the command's flags, if the options exclude each other.
func (o *ExportOptions) Check() error {
	from, to := o.Filter.StartDate, o.Filter.EndDate
	switch {
	case from != "" && to != "" && from > to:
		return fmt.Errorf("--from is %s and --to %s: the first day must not be after the last", from, to)
	case o.Format != "jsonl" && o.Format != "csv":
		return fmt.Errorf("--format is %q: it must be jsonl or csv", o.Format)
	case o.CSVRaw && o.Format != "csv":
		return errors.New("--csv-raw is for --format csv alone")
	case o.Kind != Groups && o.Format == "csv":
		return fmt.Errorf("--format csv is for --kind groups alone: %s are exported as jsonl", o.Kind)
	case o.Kind != Groups && (from != "" || to != ""):
		return fmt.Errorf("--from and --to are for --kind groups alone: all %s are exported", o.Kind)
	}
	return nil
}

// Export writes what the organization has of a kind. It holds one page in memory. It reports on
// stderr what it can't write, and returns an error at the end.
//
// Groups that match the filter, newest first:
//
//	Query  a round trip and about 128 read units per 1 MB
//
// All entitlements or metrics, DELETED ones too, as lines of JSON in the order of their ids: what
// is stored, members of newer versions included:
//
//	Query  a round trip per 1 MB, 1 read unit per 4 KB
func Export(ctx context.Context, tbl *table.Table, org metering.OrgID, o ExportOptions, to, stderr io.Writer) error {
	switch {
	case o.Kind == Entitlements:
		return exportLines(ctx, tbl.ExportEntitlements(ctx, org), to, stderr)
	case o.Kind == Metrics:
		return exportLines(ctx, tbl.ExportMetrics(ctx, org), to, stderr)
	case o.Format == "csv":
		return exportGroups(ctx, tbl.Groups(ctx, org, o.Filter), newCSV(to, o.CSVRaw), stderr)
	}
	return exportGroups(ctx, tbl.Groups(ctx, org, o.Filter), &jsonlWriter{out: bufio.NewWriter(to)}, stderr)
}

// groupWriter writes groups in a format. It must not be used after an error.
type groupWriter interface {
	// Write returns the paths of members that the format can't hold and that it has omitted.
	Write(*metering.Group) (leftOut []string, err error)
	Flush() error
}

func exportGroups(ctx context.Context, groups iter.Seq2[*metering.Group, error], w groupWriter, stderr io.Writer) error {
	var reading, writing error
	incomplete := 0
	for group, err := range groups {
		if err != nil {
			if reading != nil {
				fmt.Fprintln(stderr, reading)
			}
			reading = err
			continue // goes to the groups after one that can't be read; an error of the table ends the loop
		}
		var leftOut []string
		if leftOut, writing = w.Write(group); writing != nil {
			break
		}
		if len(leftOut) > 0 {
			incomplete++
			fmt.Fprintf(stderr, "group %s is written without %s: a newer version stored it, and this format can't hold it\n",
				metering.Quote(group.ID), strings.Join(leftOut, ", "))
		}
	}
	if writing == nil {
		writing = w.Flush()
	}
	if err := notAll(ctx, reading, writing); err != nil {
		return err
	}
	if incomplete > 0 {
		return fmt.Errorf("what was written is not all: of %d groups a member is missing; export them by the version that stored them", incomplete)
	}
	return nil
}

// notAll is the error of an export that has failed in reading or writing, or was interrupted.
func notAll(ctx context.Context, reading, writing error) error {
	if ctx.Err() != nil {
		return errors.New("interrupted: what was written is not all")
	}
	if err := cmp.Or(reading, writing); err != nil {
		return fmt.Errorf("what was written is not all: %w", err)
	}
	return nil
}

func exportLines(ctx context.Context, lines iter.Seq2[[]byte, error], to, stderr io.Writer) error {
	out := bufio.NewWriter(to)
	var reading, writing error
	for line, err := range lines {
		if err != nil {
			if reading != nil {
				fmt.Fprintln(stderr, reading)
			}
			reading = err
			continue
		}
		if _, writing = out.Write(append(line, '\n')); writing != nil {
			break
		}
	}
	if writing == nil {
		writing = out.Flush()
	}
	return notAll(ctx, reading, writing)
}

// jsonlWriter writes each group as a line of JSON, in the format that Import reads.
type jsonlWriter struct {
	out  *bufio.Writer
	line []byte
}

func (w *jsonlWriter) Write(g *metering.Group) ([]string, error) {
	w.line = append(wire.AppendGroupForExport(w.line[:0], g), '\n')
	_, err := w.out.Write(w.line)
	return g.Unexportable, err
}

func (w *jsonlWriter) Flush() error { return w.out.Flush() }

type csvWriter struct {
	out *csv.Writer
	raw bool // texts are written unchanged
}

// newCSV writes a header and a row per group. Unless raw is set, a ' is put before a text that a
// spreadsheet takes for a formula or that begins with a ' itself. Removing one leading ' from each
// text returns the stored text.
func newCSV(w io.Writer, raw bool) csvWriter {
	out := csv.NewWriter(w)
	header := make([]string, len(metering.GroupMembers))
	for i, m := range metering.GroupMembers {
		header[i] = m.Name
	}
	_ = out.Write(header) // into the buffer: Flush returns the error
	return csvWriter{out, raw}
}

// Write omits unknown members of the group itself, because they have no column.
func (w csvWriter) Write(g *metering.Group) ([]string, error) {
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
	case []metering.Problem:
		return string(wire.AppendProblemsForExport(nil, value))
	default:
		panic(fmt.Sprintf("export: a %T has no form in CSV", value))
	}
}

// text returns the cell of a text that a client may have chosen, by the rule of NewCSV. Quotes
// around a cell do not help, because a spreadsheet removes them first.
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

func (w csvWriter) Flush() error {
	w.out.Flush()
	return w.out.Error()
}
