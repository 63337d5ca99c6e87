package transfer

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
	"github.com/marketmeter/marketmeter/internal/transfer/transfertest"
	"github.com/marketmeter/marketmeter/internal/wire"
)

// For all groups, reading the line that export writes returns the same group.
func TestExportedLinesAreReadAsTheSameGroup(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := transfertest.AnyGroup().Draw(t, "group")
		line := wire.AppendGroupForExport(nil, &want)
		got, err := wire.DecodeGroup(line)
		if err != nil {
			t.Fatalf("%v\n%s", err, line)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(metering.Quantity{}, metering.Number{})); diff != "" {
			t.Fatalf("-want +got\n%s\n%s", diff, line)
		}
	})
}

type closedPipe struct{ room int }

func (c *closedPipe) Write(b []byte) (int, error) {
	if c.room -= len(b); c.room < 0 {
		return 0, errors.New("write |1: broken pipe")
	}
	return len(b), nil
}

func TestExportEndsWhereItsReaderHasGone(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	counts, err := Import(t.Context(), tbl, "o1", strings.NewReader(transfertest.Lines(transfertest.ManyGroups(50, "o1"))), ImportOptions{})
	if err != nil || counts.Imported != 50 {
		t.Fatal(counts, err)
	}
	for format, newWriter := range map[string]func(io.Writer) Writer{
		"jsonl": NewJSONL, "csv": func(w io.Writer) Writer { return NewCSV(w, false) },
	} {
		for _, room := range []int{0, 10_000} {
			err := Export(t.Context(), tbl, "o1", metering.GroupFilter{}, newWriter(&closedPipe{room}), io.Discard)
			if err == nil || err.Error() != "what was written is not all: write |1: broken pipe" {
				t.Errorf("%s into a pipe that closes after %d bytes: %v", format, room, err)
			}
		}
	}
}

func TestExport_NeutralizesFormulasInCSV(t *testing.T) {
	t.Parallel()
	texts := []string{
		"=1+1", "+1", "-1", "-", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "\u00a0+1", "\ufeff@x", "\u200b-1", "＝1", "＋1", "－1", "＠x", "'=1", "'", `="a","b"`, "=a\r\nb",
		"plain", "a=1", "1-2", `"=1"`, "a\n=1", " a", ",=1", "é",
	}
	neutral := func(text string) string {
		if slices.Index(texts, text) < slices.Index(texts, "plain") {
			return "'" + text
		}
		return text
	}
	columns := map[string]int{"id": 0, "buyerID": 2, "entitlementID": 3, "productID": 4, "usageRecordReportID": 10}
	var groups []metering.Group
	for i, text := range texts {
		g, err := wire.DecodeGroup([]byte(transfertest.Line(fmt.Sprint("g", i), "serialID", "7", "records", `{"a":-1.5}`)))
		if err != nil {
			t.Fatal(err)
		}
		g.OrganizationID, g.ID, g.BuyerID, g.EntitlementID, g.ProductID, g.UsageRecordReportID = "o1", text, text, text, text, text
		groups = append(groups, g)
	}
	for _, raw := range []bool{false, true} {
		var out strings.Builder
		w := NewCSV(&out, raw)
		for _, g := range groups {
			if _, err := w.Write(&g); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		rows, err := csv.NewReader(strings.NewReader(out.String())).ReadAll()
		if err != nil || len(rows) != len(texts)+1 {
			t.Fatal(len(rows), err)
		}
		for i, row := range rows[1:] {
			want := texts[i]
			if !raw {
				want = neutral(want)
			}
			want = strings.ReplaceAll(want, "\r\n", "\n") // Go's CSV reader makes this change
			for column, at := range columns {
				if row[at] != want {
					t.Errorf("raw %v: %s is %q; want %q", raw, column, row[at], want)
				}
			}
			if row[7] != `{"a":-1.5}` || row[9] != "7" || row[5] != "AWS" {
				t.Errorf("raw %v: %q", raw, row)
			}
		}
	}
}
