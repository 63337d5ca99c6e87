package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/marketmeter/marketmeter/internal/apijson"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

func TestExportIntoImportGivesTheSameList(t *testing.T) {
	t.Parallel()
	const org = "o#1 +é"
	groups := manyGroups(400, org)
	client, from := tabletest.Client(t)
	_, to := tabletest.Client(t)
	status, stdout, stderr := onTable(t, from, linesOf(groups), "import", "--org", org, "-")
	if status != 0 || stdout != "imported 400, skipped 0, refused 0\n" {
		t.Fatalf("import: %d\n%s%s", status, stdout, stderr)
	}

	status, exported, stderr := onTable(t, from, "", "export", "--org", org)
	if status != 0 || stderr != "" {
		t.Fatalf("export: %d\n%s", status, stderr)
	}
	if want := linesOf(sortedNewestFirst(groups)); exported != want {
		t.Errorf("what was imported is not what was exported, newest first:\n%s\nwant\n%s", exported, want)
	}
	if status, stdout, stderr = onTable(t, to, exported, "import", "--org", org, "-"); status != 0 {
		t.Fatalf("import of the export: %d\n%s%s", status, stdout, stderr)
	}
	if _, again, _ := onTable(t, to, "", "export", "--org", org); again != exported {
		t.Errorf("exported again:\n%s\nwant\n%s", again, exported)
	}
	fromTable, toTable := table.New(client, from), table.New(client, to)
	if got, want := listedPages(t, toTable, org, 37), listedPages(t, fromTable, org, 37); got != want {
		t.Errorf("listed:\n%s\nwant\n%s", got, want)
	}
}

func TestExportReadsEveryPage(t *testing.T) {
	t.Parallel()
	_, name := tabletest.Client(t)
	var want []string
	for _, g := range manyGroups(12, "o1") {
		g.UsageRecordReportID = strings.Repeat("x", 200_000) // five of them fill a page of DynamoDB's
		want = append(want, string(apijson.AppendGroupForExport(nil, &g))+"\n")
	}
	if status, stdout, stderr := onTable(t, name, strings.Join(want, ""), "import", "--org", "o1", "-"); status != 0 {
		t.Fatalf("import: %d\n%s%s", status, stdout, stderr)
	}
	status, exported, _ := onTable(t, name, "", "export", "--org", "o1")
	got := slices.Sorted(strings.Lines(exported))
	if slices.Sort(want); status != 0 || !slices.Equal(got, want) {
		t.Errorf("export: %d with %d lines; want 0 with the %d imported", status, len(got), len(want))
	}
}

func TestExportOfDays(t *testing.T) {
	t.Parallel()
	_, name := tabletest.Client(t)
	times := []string{
		"2026-03-04T00:00:00.000Z", "2026-03-03T23:59:59.999Z", "2026-03-03T00:00:00.000Z",
		"2026-03-02T23:59:59.999Z", "2026-03-02T00:00:00.000Z", "2026-03-01T23:59:59.999Z",
	}
	var lines strings.Builder
	for _, at := range times {
		lines.WriteString(lineOf("g"+at, "creationTime", at))
	}
	if status, _, stderr := onTable(t, name, lines.String(), "import", "--org", "o1", "-"); status != 0 {
		t.Fatal(stderr)
	}
	for _, test := range []struct {
		flags []string
		want  []string
	}{
		{nil, times},
		{[]string{"--from", "2026-03-02"}, times[:5]},
		{[]string{"--to", "2026-03-03"}, times[1:]},
		{[]string{"--from", "2026-03-02", "--to", "2026-03-03"}, times[1:5]},
		{[]string{"--from", "2026-03-03", "--to", "2026-03-03"}, times[1:3]},
		{[]string{"--from", "2026-03-05"}, nil},
		{[]string{"--to", "2026-02-28"}, nil},
	} {
		status, stdout, stderr := onTable(t, name, "", append([]string{"export", "--org", "o1"}, test.flags...)...)
		var got []string
		for line := range strings.Lines(stdout) {
			group, err := apijson.DecodeGroup([]byte(line))
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, metering.FormatTime(group.CreationTime))
		}
		if status != 0 || !slices.Equal(got, test.want) {
			t.Errorf("%v: %d, %q; want %q\n%s", test.flags, status, got, test.want, stderr)
		}
	}
}

func TestExportAsCSV(t *testing.T) {
	t.Parallel()
	_, name := tabletest.Client(t)
	lines := lineOf("g1", "serialID", "3", "records", `{"b":0.10,"a":9007199254740993}`, "metaInfo", `{"source":"LAGO","lagoAmount":1.50}`,
		"productID", "p,1", "buyerID", `the "buyer"`, "reportedTime", "2026-03-01T13:00:00+01:00") +
		lineOf("g0")
	if status, _, stderr := onTable(t, name, lines, "import", "--org", "o1", "-"); status != 0 {
		t.Fatal(stderr)
	}
	status, stdout, stderr := onTable(t, name, "", "export", "--org", "o1", "--format", "csv")
	got, err := csv.NewReader(strings.NewReader(stdout)).ReadAll()
	want := [][]string{
		{
			"id", "organizationID", "buyerID", "entitlementID", "productID", "partner", "status", "records", "metaInfo",
			"serialID", "usageRecordReportID", "creationTime", "lastUpdateTime", "reportedTime",
		},
		{
			"g1", "o1", `the "buyer"`, "ent-1", "p,1", "AWS", "CREATED", `{"a":9007199254740993,"b":0.1}`, `{"lagoAmount":1.5,"source":"LAGO"}`,
			"3", "", "2026-03-01T12:00:00.000Z", "2026-03-01T12:00:00.000Z", "2026-03-01T12:00:00.000Z",
		},
		{
			"g0", "o1", "buyer", "ent-1", "", "AWS", "CREATED", "{}", "{}",
			"0", "", "2026-03-01T12:00:00.000Z", "2026-03-01T12:00:00.000Z", "",
		},
	}
	if status != 0 || err != nil || !slices.EqualFunc(got, want, slices.Equal[[]string]) {
		t.Errorf("%d, %v, %s\n%q\nwant\n%q", status, err, stderr, got, want)
	}
	if _, empty, _ := onTable(t, name, "", "export", "--org", "o2", "--format", "csv"); empty != strings.Join(want[0], ",")+"\n" {
		t.Errorf("an organization without groups: %q; want the header", empty)
	}
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
	counts, err := importLines(t.Context(), tbl, "o1", strings.NewReader(linesOf(manyGroups(50, "o1"))), importOptions{})
	if err != nil || counts.imported != 50 {
		t.Fatal(counts, err)
	}
	for format, newWriter := range groupWriters {
		for _, room := range []int{0, 10_000} {
			err := writeGroups(t.Context(), tbl, "o1", metering.GroupFilter{}, newWriter(&closedPipe{room}))
			if err == nil || err.Error() != "what was written is not all: write |1: broken pipe" {
				t.Errorf("%s into a pipe that closes after %d bytes: %v", format, room, err)
			}
		}
	}
}

func TestExportTellsWhatItCantMean(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{}, "--org is missing"},
		{[]string{"--org", "a?"}, `--org is "a?": it must not hold "/" or "?"`},
		{[]string{"--org", "o1", "more"}, `it takes no argument "more"`},
		{[]string{"--org", "o1", "--format", "xml"}, `--format is "xml": it must be jsonl or csv`},
		{[]string{"--org", "o1", "--from", "2026-02-30"}, "it must be a day of the calendar as YYYY-MM-DD"},
		{[]string{"--org", "o1", "--from", "2026-03-02", "--to", "2026-03-01"}, "--from is 2026-03-02 and --to 2026-03-01: the first day must not be after the last"},
	} {
		status, stdout, stderr := onTable(t, "none", "", append([]string{"export"}, test.args...)...)
		if status != 2 || stdout != "" || !strings.Contains(stderr, test.want) {
			t.Errorf("%q: %d, %q, %q; want 2 and %q", test.args, status, stdout, stderr, test.want)
		}
	}
}

// What an earlier version stored with "%" in an identifier is exported as it is; an import takes it no more,
// and says which line.
func TestExport_KeepsIdentifiersWithPercent(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	tbl := table.New(client, name)
	groups := manyGroups(4, "o%1")
	groups[1].ID, groups[2].EntitlementID, groups[3].BuyerID = "a%41", "100%", "50%"
	for i := range groups {
		if _, err := tbl.Put(t.Context(), &groups[i]); err != nil {
			t.Fatal(err)
		}
	}
	status, exported, stderr := onTable(t, name, "", "export", "--org", "o%1")
	if want := linesOf(sortedNewestFirst(groups)); status != 0 || stderr != "" || exported != want {
		t.Fatalf("export: %d %s\n%swant\n%s", status, stderr, exported, want)
	}
	if status, csv, _ := onTable(t, name, "", "export", "--org", "o%1", "--format", "csv"); status != 0 || !strings.Contains(csv, "a%41") {
		t.Errorf("as CSV: %d\n%s", status, csv)
	}

	status, stdout, stderr := onTable(t, name, linesOf(groups), "import", "--org", "o2", "--rewrite-org", "-")
	if status != 1 || stdout != "imported 2, skipped 0, refused 2\n" {
		t.Errorf("import: %d, %q", status, stdout)
	}
	for _, want := range []string{`line 2: id is "a%41": it must not hold "/", "?" or "%"`, `line 3: entitlementID is "100%": it must not hold "/", "?" or "%"`} {
		if !strings.Contains(stderr, want) {
			t.Errorf("not told: %s\n%s", want, stderr)
		}
	}
}

// Nothing new is stored for an organization that no path can name; what is stored for one is read and ended.
func TestOrgFlag_PercentIsTakenWhereNothingIsStored(t *testing.T) {
	t.Parallel()
	_, name := tabletest.Client(t)
	for _, c := range []struct {
		args   []string
		status int
		told   string
	}{
		{[]string{"import", "--org", "a%b", "-"}, 2, `--org is "a%b": it must not hold "/", "?" or "%"`},
		{[]string{"key", "create", "--org", "a%b"}, 2, `--org is "a%b": it must not hold "/", "?" or "%"`},
		{[]string{"key", "create", "--org", "a?b"}, 2, `--org is "a?b"`},
		{[]string{"export", "--org", "a%b"}, 0, ""},
		{[]string{"export", "--org", "a/b"}, 2, `--org is "a/b"`},
		{[]string{"key", "list", "--org", "a%b"}, 0, ""},
		{[]string{"key", "revoke", "--org", "a%b", "0123456789abcdef"}, 1, "0123456789abcdef"},
	} {
		if status, _, stderr := onTable(t, name, "", c.args...); status != c.status || !strings.Contains(stderr, c.told) {
			t.Errorf("%q: %d %s; want %d %s", c.args, status, stderr, c.status, c.told)
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
		g, err := apijson.DecodeGroup([]byte(lineOf(fmt.Sprint("g", i), "serialID", "7", "records", `{"a":-1.5}`)))
		if err != nil {
			t.Fatal(err)
		}
		g.OrganizationID, g.ID, g.BuyerID, g.EntitlementID, g.ProductID, g.UsageRecordReportID = "o1", text, text, text, text, text
		groups = append(groups, g)
	}
	for _, raw := range []bool{false, true} {
		var out strings.Builder
		w := beginCSV(&out, raw)
		for _, g := range groups {
			if err := w.write(&g); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.flush(); err != nil {
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
			want = strings.ReplaceAll(want, "\r\n", "\n") // the reader of Go changes these
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

func TestExport_CSVRawIsAFlag(t *testing.T) {
	t.Parallel()
	_, name := tabletest.Client(t)
	if status, _, stderr := onTable(t, name, lineOf("g1", "buyerID", "=1"), "import", "--org", "o1", "-"); status != 0 {
		t.Fatal(stderr)
	}
	for _, test := range []struct {
		flags []string
		want  string
	}{
		{[]string{"--format", "csv"}, "g1,o1,'=1,"},
		{[]string{"--format", "csv", "--csv-raw"}, "g1,o1,=1,"},
		{nil, `"buyerID":"=1"`},
	} {
		if status, stdout, stderr := onTable(t, name, "", append([]string{"export", "--org", "o1"}, test.flags...)...); status != 0 || !strings.Contains(stdout, test.want) {
			t.Errorf("%q: %d, %s%s", test.flags, status, stdout, stderr)
		}
	}
	if status, _, stderr := onTable(t, name, "", "export", "--org", "o1", "--csv-raw"); status != 2 || !strings.Contains(stderr, "--csv-raw is for --format csv alone") {
		t.Errorf("of JSON lines: %d, %s", status, stderr)
	}
}
