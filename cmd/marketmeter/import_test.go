package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"golang.org/x/sync/errgroup"

	"github.com/marketmeter/marketmeter/internal/bench/figure"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
	"github.com/marketmeter/marketmeter/internal/wire"
)

// lineOf is a line with what is required and the members given as name, value; a value is a
// number or an object as it is, else a string. An empty one takes the member away.
func lineOf(id string, members ...string) string {
	group := map[string]any{
		"id": id, "buyerID": "buyer", "entitlementID": "ent-1", "partner": "AWS", "status": "CREATED", "creationTime": "2026-03-01T12:00:00Z",
	}
	for i := 0; i < len(members); i += 2 {
		name, value := members[i], members[i+1]
		switch {
		case value == "":
			delete(group, name)
		case value[0] == '{' || name == "serialID":
			group[name] = json.RawMessage(value)
		default:
			group[name] = value
		}
	}
	line, err := json.Marshal(group)
	if err != nil {
		panic(err)
	}
	return string(line) + "\n"
}

func TestImportTellsBadLinesAndGoesOn(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	file := "\ufeff" + lineOf("g1") + // a byte order mark
		"\n \r\n" + // nothing on lines 2 and 3
		strings.ReplaceAll(lineOf("g4"), "\n", "\r\n") +
		"no JSON\n" +
		lineOf("g6", "status", "PAID") +
		lineOf("g7", "buyerID", "") +
		lineOf("g8", "usageRecordReportID", strings.Repeat("x", maxLine)) +
		lineOf("g9", "organizationID", "o2") +
		lineOf("g10", "organizationID", "o1") +
		lineOf("g11", "usageRecordReportID", strings.Repeat("x", 500_000)) +
		lineOf("g1", "buyerID", "another") +
		"null\n" +
		lineOf("g14", "creatonTime", "2026-03-01T12:00:00Z") +
		strings.TrimSuffix(lineOf("g15"), "\n") // ends without a newline
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
	for _, g := range storedGroups(t, table.New(client, name), "o1") {
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
	lines := lineOf("g1", "creationTime", "2026-03-01T13:00:00.5+01:00", "lastUpdateTime", "2026-03-02t00:00:00.123456z",
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
	if got := linesOf(storedGroups(t, tbl, "o1")); got != want {
		t.Errorf("stored\n%swant\n%s", got, want)
	}
	wantSerial(t, tbl, "o1", 41)
	if others := storedGroups(t, tbl, "elsewhere"); len(others) > 0 {
		t.Errorf("in the line's own organization: %v", others)
	}
	if status, stdout, _ = onTable(t, name, "", "import", "--org", "o1", "--rewrite-org", file); status != 0 || stdout != "imported 0, skipped 1, refused 0\n" {
		t.Errorf("again: %d, %q", status, stdout)
	}
}

func wantSerial(t *testing.T, tbl *table.Table, org string, atLeast int32) {
	t.Helper()
	if serial, err := tbl.Serial(t.Context(), org); err != nil || serial < atLeast {
		t.Errorf("the serial counter is %d, %v; want at least %d", serial, err, atLeast)
	}
}

func TestImportStoresTheFirstOfLinesWithOneID(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	var lines strings.Builder
	for n := range 600 {
		lines.WriteString(lineOf(fmt.Sprint("g", n%7), "buyerID", fmt.Sprint("b", n)))
	}
	counts, err := importLines(t.Context(), tbl, "o1", strings.NewReader(lines.String()), importOptions{})
	if want := (importCounts{imported: 7, skipped: 593}); err != nil || counts != want {
		t.Errorf("%v, %v; want %v", counts, err, want)
	}
	for _, g := range storedGroups(t, tbl, "o1") {
		if g.BuyerID != "b"+g.ID[1:] {
			t.Errorf("%s is of %s", g.ID, g.BuyerID)
		}
	}
}

// After a failure at any request, what is there has serials up to the counter at most, and the same
// import again brings the rest.
func TestImportCanBeRunAgainAfterAFailure(t *testing.T) {
	t.Parallel()
	var lines strings.Builder
	const total = 2*chunkLines + 50
	for n := range total {
		lines.WriteString(lineOf(fmt.Sprint("g", n), "serialID", fmt.Sprint(n+1)))
	}
	for _, after := range []int{0, 1, chunkLines - 20, chunkLines + 5, total - 10} {
		t.Run(fmt.Sprintf("after %d requests", after), func(t *testing.T) {
			t.Parallel()
			client, name := tabletest.Client(t)
			faults := slices.Repeat([]tabletest.Fault{tabletest.Pass}, after)
			faulty, _ := tabletest.NewFaults(append(faults, slices.Repeat([]tabletest.Fault{tabletest.Drop}, 1000)...)...)
			first, err := importLines(t.Context(), table.New(faulty, name), "o1", strings.NewReader(lines.String()), importOptions{})
			if metering.CodeOf(err) != metering.Unavailable || !strings.HasSuffix(err.Error(), "; run it again to go on: what is there is skipped") {
				t.Fatalf("%v, %v", first, err)
			}

			tbl := table.New(client, name)
			stored := storedGroups(t, tbl, "o1")
			var largest int32
			for _, g := range stored {
				largest = max(largest, g.SerialID)
			}
			if first.imported != len(stored) || first.lines() != len(stored) {
				t.Errorf("%v, and %d are stored", first, len(stored))
			}
			wantSerial(t, tbl, "o1", largest)

			again, err := importLines(t.Context(), tbl, "o1", strings.NewReader(lines.String()), importOptions{})
			if want := (importCounts{imported: total - len(stored), skipped: len(stored)}); err != nil || again != want {
				t.Errorf("again: %v, %v; want %v", again, err, want)
			}
			wantSerial(t, tbl, "o1", total)
		})
	}
}

// Whatever one try of an import's requests comes to, all tries of one, or all from there on: what is counted as imported
// is stored, what is stored is whole, and the same import again ends with each group there as its line says. Where one
// try goes wrong, the client's retry is enough.
func TestEachFaultOfAnImport(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	lines := []string{lineOf("g1", "serialID", "1"), lineOf("g2", "serialID", "2"), lineOf("g3")}
	const requests = 4 // a group each, and the serial counter
	tbl := table.New(client, name)
	var orgs atomic.Int64
	var all errgroup.Group
	all.SetLimit(32)
	late := len(tabletest.Kinds)
	for point := range requests {
		for kind := range late + 1 {
			for _, tries := range []int{1, 6, 1000} { // the client makes 6
				all.Go(func() error {
					var l tabletest.Late
					k := append(slices.Clone(tabletest.Kinds), l.Kind())[kind]
					faults := tabletest.Planned(func(try int, request *http.Request) tabletest.Fault {
						if point <= try && try < point+tries {
							return k.Of(request)
						}
						return nil
					})
					org := fmt.Sprint("o", orgs.Add(1))
					tell := func(what string, a ...any) {
						t.Errorf("from request %d on %s, %d times: %s", point, k.Name, tries, fmt.Sprintf(what, a...))
					}
					run := func(tbl *table.Table) (importCounts, error) {
						return importLines(t.Context(), tbl, org, strings.NewReader(strings.Join(lines, "")), importOptions{})
					}

					counts, err := run(table.New(tabletest.NewClient(faults), name))
					stored, wrong := importedAsTold(t.Context(), tbl, org, lines)
					switch {
					case wrong != nil:
						tell("%v", wrong)
					case err != nil && (tries == 1 || metering.CodeOf(err) != metering.Unavailable):
						tell("%v", err)
					case err == nil && (counts.imported != len(lines) || stored != len(lines)), counts.skipped+counts.refused > 0, counts.imported > stored:
						tell("%v, %v, and %d are stored", counts, err, stored)
					}

					if _, err := l.Arrive(); err != nil {
						return err
					}
					if stored, wrong = importedAsTold(t.Context(), tbl, org, lines); wrong != nil {
						tell("when all had arrived: %v", wrong)
					}
					counts, err = run(tbl)
					if want := (importCounts{imported: len(lines) - stored, skipped: stored}); err != nil || counts != want {
						tell("again: %v, %v, where %d were stored", counts, err, stored)
					}
					if stored, wrong = importedAsTold(t.Context(), tbl, org, lines); wrong != nil || stored != len(lines) {
						tell("in the end %d are stored, %v", stored, wrong)
					}
					return nil
				})
			}
		}
	}
	if err := all.Wait(); err != nil {
		t.Error(err)
	}
}

// importedAsTold wants each group that is stored to be as its line says, once, and the serial counter not to be below it.
func importedAsTold(ctx context.Context, tbl *table.Table, org string, lines []string) (stored int, wrong error) {
	serial, err := tbl.Serial(ctx, org)
	if err != nil {
		return 0, err
	}
	told := map[string]string{}
	for _, line := range lines {
		group, err := wire.DecodeGroup([]byte(line))
		if err != nil {
			return 0, err
		}
		group.OrganizationID = org
		told[group.ID] = string(wire.AppendGroupForExport(nil, &group))
	}
	for group, err := range tbl.Groups(ctx, org, metering.GroupFilter{}) {
		if err != nil {
			return 0, err
		}
		if got := string(wire.AppendGroupForExport(nil, group)); got != told[group.ID] || group.SerialID > serial {
			return 0, fmt.Errorf("serial counter %d, stored\n%s, to be\n%s", serial, got, told[group.ID])
		}
		delete(told, group.ID)
		stored++
	}
	return stored, nil
}

func TestInterruptedImportCountsWhatItStored(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	from, to := io.Pipe() // which nobody closes: the last Read never returns
	go func() {
		for n := range chunkLines * 4 {
			if _, err := io.WriteString(to, lineOf(fmt.Sprint("g", n))); err != nil {
				return
			}
		}
	}()
	counts, err := importLines(ctx, tbl, "o1", from, importOptions{progress: func(c importCounts) {
		if c.imported == chunkLines {
			interrupt()
		}
	}})
	if err == nil || err.Error() != "interrupted; run it again to go on: what is there is skipped" {
		t.Error(err)
	}
	if stored := len(storedGroups(t, tbl, "o1")); counts.imported != stored || stored < chunkLines || stored > chunkLines+importWorkers {
		t.Errorf("%v, and %d are stored", counts, stored)
	}
}

// Throttled for longer than the client's own retries last, as AWS does sooner or later.
func TestAPatientImportOutlastsAnUnavailableTable(t *testing.T) {
	t.Parallel()
	_, name := tabletest.Client(t)
	drops := slices.Repeat([]tabletest.Fault{tabletest.Drop}, 14) // two calls' worth of tries, and two
	client, _ := tabletest.NewFaults(drops...)
	counts, err := importLines(t.Context(), table.New(client, name), "o1", strings.NewReader(lineOf("g1")), importOptions{patience: time.Minute})
	if err != nil || counts.imported != 1 {
		t.Errorf("%v, %v", counts, err)
	}
}

// Whatever becomes of the answers to a put, and of the group until the next try: a line that the import has stored
// is imported, and one that another has stored is skipped.
func TestImportCountsWhatItStoredThoughNobodyAnswered(t *testing.T) {
	t.Parallel()
	for lost, tries := range map[string]int{"the client's tries but one": 5, "all of the client's tries": 6} {
		for _, deleted := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s are lost, deleted then: %v", lost, deleted), func(t *testing.T) {
				t.Parallel()
				others, name := tabletest.Client(t)
				faults := slices.Repeat([]tabletest.Fault{tabletest.Lose}, tries)
				faults[tries-1] = func(send func() (*http.Response, error)) (*http.Response, error) {
					_, lost := tabletest.Lose(send)
					if deleted {
						if _, err := table.New(others, name).Delete(t.Context(), "o1", "g1", "", time.Now()); err != nil {
							t.Error(err)
						}
					}
					return nil, lost
				}
				client, _ := tabletest.NewFaults(faults...)
				counts, err := importLines(t.Context(), table.New(client, name), "o1", strings.NewReader(lineOf("g1")+lineOf("g1")), importOptions{patience: time.Minute})
				if want := (importCounts{imported: 1, skipped: 1}); err != nil || counts != want {
					t.Errorf("%v, %v; want %v", counts, err, want)
				}
			})
		}
	}
}

func TestImportTellsWhereItCouldNotRead(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	from := io.MultiReader(strings.NewReader(lineOf("g1")+lineOf("g2")+`{"id":`), iotest.ErrReader(errors.New("the disk is gone")))
	counts, err := importLines(t.Context(), tbl, "o1", from, importOptions{})
	if err == nil || err.Error() != "reading line 3: the disk is gone; run it again to go on: what is there is skipped" || counts.imported != 2 {
		t.Errorf("%v, %v", counts, err)
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
		{[]string{"--org", "..", "file"}, 2, `--org is "..": it must not hold "/" or "?" and not be "." or ".."`},
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
	status, stdout, stderr := onTable(t, name+"-not", lineOf("g1"), "import", "--org", "o1", "-")
	if status != 1 || stdout != "imported 0, skipped 0, refused 0\n" || !strings.Contains(stderr, "ResourceNotFoundException") {
		t.Errorf("%d, %q, %q", status, stdout, stderr)
	}
}

func TestProgressIsALineNowAndThen(t *testing.T) {
	t.Parallel()
	const first, bad, second = "imported 500, skipped 0, refused 0, 100 lines a second", "line 700: bad\n", "imported 999, skipped 0, refused 1, 100 lines a second"
	for _, test := range []struct {
		inPlace bool
		want    string
	}{
		{false, first + "\n" + bad + second + "\n"},
		{true, "\r\x1b[K" + first + "\r\x1b[K" + bad + "\r\x1b[K" + second + "\r\x1b[K"},
	} {
		var out strings.Builder
		now := time.Unix(0, 0)
		p := newProgress(&out, os.Getenv, func() time.Time { return now })
		p.inPlace = test.inPlace
		for n := range 1200 { // a line every 10 ms
			now = now.Add(10 * time.Millisecond)
			counts := importCounts{imported: n + 1}
			if n >= 700 {
				counts = importCounts{imported: n, refused: 1}
			}
			if n == 700 {
				p.refused(n, errors.New("bad"))
			}
			p.counts(counts)
		}
		p.clear()
		if got := out.String(); got != test.want {
			t.Errorf("in place %v:\n%q\nwant\n%q", test.inPlace, got, test.want)
		}
	}
}

// Not parallel: the heap is this test's alone.
func TestImportOfManyLinesTakesNoMoreMemory(t *testing.T) {
	tbl := tabletest.New(t)
	few, many := peakOfImport(t, tbl, 300), peakOfImport(t, tbl, 6_000)
	t.Logf("heap in use at most: %d KiB with 300 lines, %d KiB with 6,000", few>>10, many>>10)
	if many > few+6<<20 {
		t.Errorf("the heap grew from %d to %d bytes with 20 times the lines", few, many)
	}
}

// peakOfImport imports lines of 5 KB, which are groups of 50 ids again and again, and returns the most
// of the heap that was in use.
func peakOfImport(t *testing.T, tbl *table.Table, lines int) (peak uint64) {
	t.Helper()
	from, to := io.Pipe()
	go func() {
		for n := range lines {
			line := strings.Replace(lineOf(fmt.Sprint("g", n%50)), "{", `{"usageRecordReportID":"`+strings.Repeat("x", 5_000)+`",`, 1)
			if _, err := io.WriteString(to, line); err != nil {
				return
			}
			if n%(lines/4) == lines/4-1 {
				runtime.GC()
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				peak = max(peak, m.HeapInuse)
			}
		}
		_ = to.Close() // never fails
	}()
	counts, err := importLines(t.Context(), tbl, "o1", from, importOptions{})
	if err != nil || counts.lines() != lines || counts.refused > 0 {
		t.Fatalf("%v, %v", counts, err)
	}
	return peak
}

// BenchmarkImport measures the import of the sample data beside putting its items, made before, on
// the condition that they are not there: as many at the same time, each in an organization of its own.
func BenchmarkImport(b *testing.B) {
	client, name := tabletest.Client(b)
	tbl, lines := table.New(client, name), string(sampleLines(time.Now()))
	importInto := func(org string) {
		counts, err := importLines(b.Context(), tbl, org, strings.NewReader(lines), importOptions{rewriteOrg: true})
		if err != nil || counts.imported != sampleCount {
			b.Fatal(counts, err)
		}
	}
	importInto("made-00000")
	bare, imported := 0, 0
	m := figure.InTurns(figure.Rounds(b, 9),
		func() float64 {
			imported++
			return figure.Milliseconds(func() { importInto(fmt.Sprintf("line-%05d", imported)) })()
		},
		func() float64 {
			bare++
			items := itemsFor(b, client, name, "made-00000", fmt.Sprintf("bare-%05d", bare))
			return figure.Milliseconds(func() { putItems(b, client, name, items) })()
		},
	)
	b.Logf("medians: import %.0f ms, bare %.0f ms, for %d groups", m.Median(0), m.Median(1), sampleCount)
	figure.Print("import-vs-bare", m.Ratio(0, 1), "times", "<= 1.5")
}

// itemsFor reads the items of the groups of organization from as organization to would have them.
func itemsFor(b *testing.B, client *dynamodb.Client, name, from, to string) (items []map[string]types.AttributeValue) {
	b.Helper()
	pages := dynamodb.NewQueryPaginator(client, &dynamodb.QueryInput{
		TableName: &name, KeyConditionExpression: aws.String("PK = :org AND begins_with(SK, :group)"),
		ExpressionAttributeValues: map[string]types.AttributeValue{
			":org": &types.AttributeValueMemberS{Value: "ORG#" + from}, ":group": &types.AttributeValueMemberS{Value: "GROUP#"},
		},
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		for _, item := range page.Items {
			for _, value := range item {
				if s, ok := value.(*types.AttributeValueMemberS); ok {
					s.Value = strings.Replace(s.Value, from, to, 1)
				}
			}
		}
		items = append(items, page.Items...)
	}
	if len(items) != sampleCount {
		b.Fatalf("%d items", len(items))
	}
	return items
}

func putItems(b *testing.B, client *dynamodb.Client, name string, items []map[string]types.AttributeValue) {
	b.Helper()
	queue := make(chan map[string]types.AttributeValue)
	var workers sync.WaitGroup
	for range importWorkers {
		workers.Go(func() {
			for item := range queue {
				if _, err := client.PutItem(b.Context(), &dynamodb.PutItemInput{
					TableName: &name, Item: item, ConditionExpression: aws.String("attribute_not_exists(PK)"),
				}); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for _, item := range items {
		queue <- item
	}
	close(queue)
	workers.Wait()
}

// A single large number, which may be a placeholder of the other service, leaves numbers for new groups.
func TestImport_LargeSerialsDoNotUseUpTheCounter(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		serials []string
		want    int32
	}{
		{[]string{"2147483647"}, 0},
		{[]string{"7", "2147483647", "41", "2147483646"}, 41},
		{[]string{"2000000001", "2000000000"}, 2_000_000_000},
	} {
		tbl := tabletest.New(t)
		var lines, want []string
		for i, serial := range test.serials {
			lines = append(lines, lineOf(fmt.Sprint("g", i), "serialID", serial))
			want = append(want, serial)
		}
		counts, err := importLines(t.Context(), tbl, "o1", strings.NewReader(strings.Join(lines, "")), importOptions{})
		if err != nil || counts.imported != len(lines) {
			t.Fatal(counts, err)
		}
		var got []string
		for _, g := range storedGroups(t, tbl, "o1") {
			got = append(got, fmt.Sprint(g.SerialID))
		}
		slices.Sort(got)
		slices.Sort(want)
		if serial, err := tbl.Serial(t.Context(), "o1"); err != nil || serial != test.want || !slices.Equal(got, want) {
			t.Errorf("after %q the counter is %d, %v, and %q are stored; want %d", test.serials, serial, err, got, test.want)
		}
	}
}
