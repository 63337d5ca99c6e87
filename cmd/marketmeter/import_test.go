package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
	"github.com/marketmeter/marketmeter/internal/transfer/transfertest"
)

func TestImportTellsBadLinesAndGoesOn(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	file := "\ufeff" + transfertest.Line("g1") + // a byte order mark
		"\n \r\n" + // lines 2 and 3 are empty
		strings.ReplaceAll(transfertest.Line("g4"), "\n", "\r\n") +
		"no JSON\n" +
		transfertest.Line("g6", "status", "PAID") +
		transfertest.Line("g7", "buyerID", "") +
		transfertest.Line("g8", "usageRecordReportID", strings.Repeat("x", 1<<20)) +
		transfertest.Line("g9", "organizationID", "o2") +
		transfertest.Line("g10", "organizationID", "o1") +
		transfertest.Line("g11", "usageRecordReportID", strings.Repeat("x", 500_000)) +
		transfertest.Line("g1", "buyerID", "another") +
		"null\n" +
		transfertest.Line("g14", "creatonTime", "2026-03-01T12:00:00Z") +
		strings.TrimSuffix(transfertest.Line("g15"), "\n") // ends without a newline
	status, stdout, stderr := onTable(t, name, file, "import", "--org", "o1", "-")
	if status != 1 || stdout != "imported 4, skipped 1, refused 8\n" {
		t.Errorf("status %d, %q", status, stdout)
	}
	got := slices.Collect(strings.Lines(stderr))
	for _, want := range []string{
		"line 5: this is not JSON, from byte 1 on",
		`line 6: status is "PAID": it must be one of "CREATED", `,
		"line 7: buyerID is missing: ",
		"line 8: it is too long: a line has less than 1048576 bytes",
		`line 9: organizationID is "o2": it must be "o1", unless --rewrite-org makes it that`,
		"line 11: the group has 500356 bytes as stored: it may have at most 401408 (392 KB)",
		"line 13: the JSON value is null: it must be a usage record group, an object",
		"line 14: creatonTime is unknown: did you mean creationTime?",
	} {
		if !slices.ContainsFunc(got, func(line string) bool { return strings.HasPrefix(line, want) }) {
			t.Errorf("not told: %s", want)
		}
	}
	if len(got) != 8 {
		t.Errorf("told:\n%s", stderr)
	}
	var ids []string
	for _, g := range transfertest.StoredGroups(t, table.New(client, name), "o1") {
		ids = append(ids, g.ID+" of "+g.BuyerID)
	}
	if want := []string{"g4 of buyer", "g15 of buyer", "g10 of buyer", "g1 of buyer"}; !slices.Equal(ids, want) {
		t.Errorf("stored %q, want %q", ids, want)
	}
}

func TestImportKeepsWhatALineSays(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	tbl := table.New(client, name)
	file := filepath.Join(t.TempDir(), "groups.jsonl")
	lines := transfertest.Line("g1", "creationTime", "2026-03-01T13:00:00.5+01:00", "lastUpdateTime", "2026-03-02t00:00:00.123456z",
		"status", "REPORT_FAILED", "serialID", "41", "productID", "p1", "organizationID", "else/where, an id that can't be one of ours")
	if err := os.WriteFile(file, []byte(lines), 0o644); err != nil {
		t.Fatal(err)
	}
	status, stdout, stderr := onTable(t, name, "", "import", "--org", "o1", "--rewrite-org", file)
	if status != 0 || stdout != "imported 1, skipped 0, refused 0\n" || stderr != "" {
		t.Errorf("%d, %q, %q", status, stdout, stderr)
	}
	const want = `{"buyerID":"buyer","creationTime":"2026-03-01T12:00:00.500Z","entitlementID":"ent-1","id":"g1",` +
		`"lastUpdateTime":"2026-03-02T00:00:00.123Z","metaInfo":{},"organizationID":"o1","partner":"AWS","productID":"p1",` +
		`"records":{},"serialID":41,"status":"REPORT_FAILED","usageRecordReportID":""}` + "\n"
	if got := transfertest.Lines(transfertest.StoredGroups(t, tbl, "o1")); got != want {
		t.Errorf("stored\n%swant\n%s", got, want)
	}
	transfertest.WantSerial(t, tbl, "o1", 41)
	if others := transfertest.StoredGroups(t, tbl, "elsewhere"); len(others) > 0 {
		t.Errorf("in the line's own organization: %v", others)
	}
	if status, stdout, _ = onTable(t, name, "", "import", "--org", "o1", "--rewrite-org", file); status != 0 || stdout != "imported 0, skipped 1, refused 0\n" {
		t.Errorf("again: %d, %q", status, stdout)
	}
}

func TestImportTellsWhatItCantMean(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"file"}, 2, "--org is missing"},
		{[]string{"--org", "..", "file"}, 2, `--org is "..": it must not hold "/", "?" or "%" and not be "." or ".."`},
		{[]string{"--org", "o1"}, 2, "it takes one FILE, or -, after the flags; there are 0"},
		{[]string{"file", "--org", "o1"}, 2, "it takes one FILE, or -, after the flags; there are 3"},
		{[]string{"--overwrite", "file"}, 2, "flag provided but not defined: -overwrite"},
		{[]string{"--org", "o1", "/no/such/file"}, 1, "open /no/such/file: no such file or directory"},
	} {
		status, stdout, stderr := onTable(t, "none", "", append([]string{"import"}, test.args...)...)
		if status != test.status || stdout != "" || !strings.Contains(stderr, test.want) {
			t.Errorf("%q: %d, %q, %q; want %d and %q", test.args, status, stdout, stderr, test.status, test.want)
		}
	}
}

func TestImportIntoNoTableSaysSo(t *testing.T) {
	t.Parallel()
	_, name := tabletest.Client(t)
	status, stdout, stderr := onTable(t, name+"-not", transfertest.Line("g1"), "import", "--org", "o1", "-")
	if status != 1 || stdout != "imported 0, skipped 0, refused 0\n" || !strings.Contains(stderr, "ResourceNotFoundException") {
		t.Errorf("%d, %q, %q", status, stdout, stderr)
	}
}
