package transfer

import (
	"bufio"
	"cmp"
	"context"
	"encoding/csv"
	"errors"
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

// Writer writes groups in a format. After an error it is of no more use.
type Writer interface {
	// Write returns the paths of members that the format can't hold, which it has left out.
	Write(*metering.Group) (leftOut []string, err error)
	Flush() error
}

// Export writes the organization's groups of the filter, newest first. It holds a page of them in
// memory, however many there are. What it can't write it names on stderr, and fails at the end.
//
//	Query  a round trip and about 128 read units per 1 MB
func Export(ctx context.Context, tbl *table.Table, org metering.OrgID, filter metering.GroupFilter, w Writer, stderr io.Writer) error {
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

// NewJSONL writes a line of JSON a group, as Import reads it.
func NewJSONL(w io.Writer) Writer { return &jsonlWriter{out: bufio.NewWriter(w)} }

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
	raw bool // texts are written as they are
}

// NewCSV writes a header, and a row a group. A text that a spreadsheet takes for a formula has a '
// before it, and so has one with a ' of its own, unless raw is set: taking one leading ' off each
// text gives what is stored.
func NewCSV(w io.Writer, raw bool) Writer {
	out := csv.NewWriter(w)
	header := make([]string, len(metering.GroupMembers))
	for i, m := range metering.GroupMembers {
		header[i] = m.Name
	}
	_ = out.Write(header) // into the buffer: what fails comes out of Flush
	return csvWriter{out, raw}
}

// Write has no column for members of the group itself that it does not know.
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
	default:
		panic(fmt.Sprintf("export: a %T has no form in CSV", value))
	}
}

// text returns the cell of a text that a client may have chosen: NewCSV has the rule. Quotes around
// a cell do not help, because a spreadsheet takes them off first.
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
