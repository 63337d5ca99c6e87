package transfer

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
	"github.com/marketmeter/marketmeter/internal/transfer/transfertest"
	"github.com/marketmeter/marketmeter/internal/wire"
)

// For all groups, reading the line that export writes returns the same group.
func TestExport_LinesAreReadAsTheSameGroup(t *testing.T) {
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

func TestExport_EndsIfItsReaderHasGone(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	counts, err := Import(t.Context(), tbl, "o1", strings.NewReader(transfertest.Lines(transfertest.ManyGroups(50, "o1"))), ImportOptions{})
	if err != nil || counts.Imported != 50 {
		t.Fatal(counts, err)
	}
	for _, format := range []string{"jsonl", "csv"} {
		for _, room := range []int{0, 10_000} {
			err := Export(t.Context(), tbl, "o1", ExportOptions{Format: format}, &closedPipe{room}, io.Discard)
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
		w := newCSV(&out, raw)
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

// exported returns the lines that Export writes, newest first.
func exported(t *testing.T, tbl *table.Table, org metering.OrgID) string {
	t.Helper()
	var out, warnings strings.Builder
	if err := Export(t.Context(), tbl, org, ExportOptions{}, &out, &warnings); err != nil || warnings.Len() > 0 {
		t.Fatal(err, &warnings)
	}
	return out.String()
}

func TestExport_IntoImportIsTheSameList(t *testing.T) {
	t.Parallel()
	const org = "o#1 +é"
	groups := transfertest.ManyGroups(400, org)
	from, to := tabletest.New(t), tabletest.New(t)
	if counts, err := importText(t, from, org, transfertest.Lines(groups)); err != nil || counts.Imported != 400 {
		t.Fatal(counts, err)
	}
	lines := exported(t, from, org)
	if want := transfertest.Lines(transfertest.SortedNewestFirst(groups)); lines != want {
		t.Errorf("exported:\n%s\nwant what was imported, newest first:\n%s", lines, want)
	}
	if counts, err := importText(t, to, org, lines); err != nil || counts.Imported != 400 {
		t.Fatal(counts, err)
	}
	if again := exported(t, to, org); again != lines {
		t.Errorf("exported again:\n%s\nwant\n%s", again, lines)
	}
	if got, want := listedPages(t, to, org, 37), listedPages(t, from, org, 37); got != want {
		t.Errorf("listed:\n%s\nwant\n%s", got, want)
	}
}

// listedPages returns all pages of the list operation for all of time, one a line, with the members
// of each object sorted by name.
func listedPages(t *testing.T, tbl *table.Table, org string, limit int) string {
	t.Helper()
	api := httpapi.API{
		Table: tbl, Log: slog.New(slog.DiscardHandler), Now: time.Now,
		Authenticate: func(*http.Request) (auth.Principal, error) {
			return auth.Principal{Organization: metering.OrgID(org), KeyID: "test", Scopes: auth.Read}, nil
		},
		CountUnits: table.CountUnits,
	}
	handler := api.Handler("list")
	nextOffset := regexp.MustCompile(`"nextOffset":(\d+)}$`)
	var pages strings.Builder
	for offset := "0"; ; {
		path := fmt.Sprintf("/org/%s/usageRecordGroup?startDate=0000-01-01&endDate=9999-12-31&limit=%d&offset=%s", url.PathEscape(org), limit, offset)
		response := httptest.NewRecorder()
		handler.ServeHTTP(response, httptest.NewRequestWithContext(t.Context(), "GET", path, nil))
		next := nextOffset.FindStringSubmatch(response.Body.String())
		if response.Code != 200 || next == nil {
			t.Fatalf("%s: %d %s", path, response.Code, response.Body)
		}
		var page any
		decoder := json.NewDecoder(response.Body)
		decoder.UseNumber()
		if err := decoder.Decode(&page); err != nil {
			t.Fatal(err)
		}
		sorted, err := json.Marshal(page)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&pages, "%s\n", sorted)
		if offset = next[1]; offset == "0" {
			return pages.String()
		}
	}
}

func TestExport_ReadsEveryPage(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	groups := transfertest.ManyGroups(12, "o1")
	for i := range groups {
		groups[i].UsageRecordReportID = strings.Repeat("x", 200_000) // five of them fill a page of DynamoDB
	}
	if counts, err := importText(t, tbl, "o1", transfertest.Lines(groups)); err != nil || counts.Imported != 12 {
		t.Fatal(counts, err)
	}
	if exported(t, tbl, "o1") != transfertest.Lines(transfertest.SortedNewestFirst(groups)) {
		t.Error("the export is not the 12 groups that were imported")
	}
}

// An export returns identifiers with "%", stored by an earlier version, unchanged. An import
// refuses them and names the line.
func TestExport_KeepsIdentifiersWithPercent(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	groups := transfertest.ManyGroups(4, "o%1")
	groups[1].ID, groups[2].EntitlementID, groups[3].BuyerID = "a%41", "100%", "50%"
	for i := range groups {
		if _, err := tbl.Put(t.Context(), &groups[i]); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := exported(t, tbl, "o%1"), transfertest.Lines(transfertest.SortedNewestFirst(groups)); got != want {
		t.Errorf("exported\n%s\nwant\n%s", got, want)
	}
	var csv, warnings strings.Builder
	if err := Export(t.Context(), tbl, "o%1", ExportOptions{Format: "csv"}, &csv, &warnings); err != nil || !strings.Contains(csv.String(), "a%41") {
		t.Errorf("as CSV: %v, %s\n%s", err, &warnings, &csv)
	}
	var refused []string
	counts, err := Import(t.Context(), tbl, "o2", strings.NewReader(transfertest.Lines(groups)), ImportOptions{
		RewriteOrg: true, Refused: func(line int, reason error) { refused = append(refused, fmt.Sprintf("line %d: %v", line, reason)) },
	})
	slices.Sort(refused)
	want := []string{`line 2: id is "a%41": it must not hold "/", "?" or "%"`, `line 3: entitlementID is "100%": it must not hold "/", "?" or "%"`}
	if err != nil || counts.Imported != 2 || !slices.EqualFunc(refused, want, strings.HasPrefix) {
		t.Errorf("%v, %v, %q; want %q", counts, err, refused, want)
	}
}
