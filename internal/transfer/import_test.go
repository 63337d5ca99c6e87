package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"golang.org/x/sync/errgroup"

	"github.com/marketmeter/marketmeter/internal/bench/figure"
	"github.com/marketmeter/marketmeter/internal/dynamoclient"
	"github.com/marketmeter/marketmeter/internal/localdb"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/stack"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
	"github.com/marketmeter/marketmeter/internal/transfer/transfertest"
	"github.com/marketmeter/marketmeter/internal/wire"
)

func TestImport_StoresTheFirstOfLinesWithOneID(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	var lines strings.Builder
	for n := range 600 {
		lines.WriteString(transfertest.Line(fmt.Sprint("g", n%7), "buyerID", fmt.Sprint("b", n)))
	}
	counts, err := Import(t.Context(), tbl, "o1", strings.NewReader(lines.String()), ImportOptions{})
	if want := (Counts{Imported: 7, Skipped: 593}); err != nil || counts != want {
		t.Errorf("%v, %v; want %v", counts, err, want)
	}
	for _, g := range transfertest.StoredGroups(t, tbl, "o1") {
		if g.BuyerID != "b"+g.ID[1:] {
			t.Errorf("%s is of %s", g.ID, g.BuyerID)
		}
	}
}

// After a failure at any request, the stored serials are at most the counter, and the same import
// run again stores the rest.
func TestImport_CanBeRunAgainAfterAFailure(t *testing.T) {
	t.Parallel()
	var lines strings.Builder
	const total = 2*chunkLines + 50
	for n := range total {
		lines.WriteString(transfertest.Line(fmt.Sprint("g", n), "serialID", fmt.Sprint(n+1)))
	}
	for _, after := range []int{0, 1, chunkLines - 20, chunkLines + 5, total - 10} {
		t.Run(fmt.Sprintf("after %d requests", after), func(t *testing.T) {
			t.Parallel()
			client, name := tabletest.Client(t)
			faults := slices.Repeat([]tabletest.Fault{tabletest.Pass}, after)
			faulty, _ := tabletest.NewFaults(append(faults, slices.Repeat([]tabletest.Fault{tabletest.Drop}, 1000)...)...)
			first, err := Import(t.Context(), table.New(faulty, name), "o1", strings.NewReader(lines.String()), ImportOptions{})
			if metering.CodeOf(err) != metering.Unavailable || !strings.HasSuffix(err.Error(), "; run it again to continue: what exists is skipped") {
				t.Fatalf("%v, %v", first, err)
			}

			tbl := table.New(client, name)
			stored := transfertest.StoredGroups(t, tbl, "o1")
			var largest int32
			for _, g := range stored {
				largest = max(largest, g.SerialID)
			}
			if first.Imported != len(stored) || first.Lines() != len(stored) {
				t.Errorf("%v, and %d are stored", first, len(stored))
			}
			transfertest.WantSerial(t, tbl, "o1", largest)

			again, err := Import(t.Context(), tbl, "o1", strings.NewReader(lines.String()), ImportOptions{})
			if want := (Counts{Imported: total - len(stored), Skipped: len(stored)}); err != nil || again != want {
				t.Errorf("again: %v, %v; want %v", again, err, want)
			}
			transfertest.WantSerial(t, tbl, "o1", total)
		})
	}
}

// A fault hits one attempt of any request of an import, all attempts of it, or every attempt from
// there on. What is counted as imported is stored, and what is stored is whole. After the same
// import again, each group is stored as its line says. If one attempt fails, the client's retry is
// enough.
func TestImport_EachFaultLosesNothing(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	lines := []string{transfertest.Line("g1", "serialID", "1"), transfertest.Line("g2", "serialID", "2"), transfertest.Line("g3")}
	const requests = 4 // one per group, and the serial counter
	tbl := table.New(client, name)
	var orgs atomic.Int64
	var all errgroup.Group
	all.SetLimit(32)
	late := len(tabletest.Kinds)
	for point := range requests {
		for kind := range late + 1 {
			for _, tries := range []int{1, 6, 1000} { // the client makes 6 attempts
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
					fail := func(what string, a ...any) {
						t.Errorf("from request %d on %s, %d times: %s", point, k.Name, tries, fmt.Sprintf(what, a...))
					}
					run := func(tbl *table.Table) (Counts, error) {
						return Import(t.Context(), tbl, metering.OrgID(org), strings.NewReader(strings.Join(lines, "")), ImportOptions{})
					}

					counts, err := run(table.New(tabletest.NewClient(faults), name))
					stored, wrong := storedAsWritten(t.Context(), tbl, org, lines)
					switch {
					case wrong != nil:
						fail("%v", wrong)
					case err != nil && (tries == 1 || metering.CodeOf(err) != metering.Unavailable):
						fail("%v", err)
					case err == nil && (counts.Imported != len(lines) || stored != len(lines)), counts.Skipped+counts.Refused > 0, counts.Imported > stored:
						fail("%v, %v, and %d are stored", counts, err, stored)
					}

					if _, err := l.Arrive(); err != nil {
						return err
					}
					if stored, wrong = storedAsWritten(t.Context(), tbl, org, lines); wrong != nil {
						fail("when all had arrived: %v", wrong)
					}
					counts, err = run(tbl)
					if want := (Counts{Imported: len(lines) - stored, Skipped: stored}); err != nil || counts != want {
						fail("again: %v, %v, where %d were stored", counts, err, stored)
					}
					if stored, wrong = storedAsWritten(t.Context(), tbl, org, lines); wrong != nil || stored != len(lines) {
						fail("in the end %d are stored, %v", stored, wrong)
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

// storedAsWritten checks that each stored group equals its line and is stored once, and that the
// serial counter is not below it.
func storedAsWritten(ctx context.Context, tbl *table.Table, org string, lines []string) (stored int, wrong error) {
	serial, err := tbl.Serial(ctx, metering.OrgID(org))
	if err != nil {
		return 0, err
	}
	want := map[string]string{}
	for _, line := range lines {
		group, err := wire.DecodeGroup([]byte(line))
		if err != nil {
			return 0, err
		}
		group.OrganizationID = org
		want[group.ID] = string(wire.AppendGroupForExport(nil, &group))
	}
	for group, err := range tbl.Groups(ctx, metering.OrgID(org), metering.GroupFilter{}) {
		if err != nil {
			return 0, err
		}
		if got := string(wire.AppendGroupForExport(nil, group)); got != want[group.ID] || group.SerialID > serial {
			return 0, fmt.Errorf("serial counter %d, stored\n%s, to be\n%s", serial, got, want[group.ID])
		}
		delete(want, group.ID)
		stored++
	}
	return stored, nil
}

func TestImport_InterruptedCountsWhatItStored(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	from, to := io.Pipe() // nothing closes it: the last Read never returns
	go func() {
		for n := range chunkLines * 4 {
			if _, err := io.WriteString(to, transfertest.Line(fmt.Sprint("g", n))); err != nil {
				return
			}
		}
	}()
	counts, err := Import(ctx, tbl, "o1", from, ImportOptions{Progress: func(c Counts) {
		if c.Imported == chunkLines {
			interrupt()
		}
	}})
	if err == nil || err.Error() != "interrupted; run it again to continue: what exists is skipped" {
		t.Error(err)
	}
	if stored := len(transfertest.StoredGroups(t, tbl, "o1")); counts.Imported != stored || stored < chunkLines || stored > chunkLines+importWorkers {
		t.Errorf("%v, and %d are stored", counts, stored)
	}
}

// AWS throttles for longer than the client's own retries last, sooner or later.
func TestImport_PatientOutlastsAnUnavailableTable(t *testing.T) {
	t.Parallel()
	_, name := tabletest.Client(t)
	drops := slices.Repeat([]tabletest.Fault{tabletest.Drop}, 14) // the attempts of two calls, and two more
	client, _ := tabletest.NewFaults(drops...)
	counts, err := Import(t.Context(), table.New(client, name), "o1", strings.NewReader(transfertest.Line("g1")), ImportOptions{Patience: time.Minute})
	if err != nil || counts.Imported != 1 {
		t.Errorf("%v, %v", counts, err)
	}
}

// The responses to a put are lost, and the group may be deleted before the next attempt. A line
// that the import has stored counts as imported, and one that another client has stored as skipped.
func TestImport_LostResponseCountsAsImported(t *testing.T) {
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
				counts, err := Import(t.Context(), table.New(client, name), "o1", strings.NewReader(transfertest.Line("g1")+transfertest.Line("g1")), ImportOptions{Patience: time.Minute})
				if want := (Counts{Imported: 1, Skipped: 1}); err != nil || counts != want {
					t.Errorf("%v, %v; want %v", counts, err, want)
				}
			})
		}
	}
}

func TestImport_NamesTheLineThatItCouldNotRead(t *testing.T) {
	t.Parallel()
	tbl := tabletest.New(t)
	from := io.MultiReader(strings.NewReader(transfertest.Line("g1")+transfertest.Line("g2")+`{"id":`), iotest.ErrReader(errors.New("the disk is gone")))
	counts, err := Import(t.Context(), tbl, "o1", from, ImportOptions{})
	if err == nil || err.Error() != "reading line 3: the disk is gone; run it again to continue: what exists is skipped" || counts.Imported != 2 {
		t.Errorf("%v, %v", counts, err)
	}
}

// Not parallel: the test measures the heap.
func TestImport_ManyLinesTakeNoMoreMemory(t *testing.T) {
	tbl := tabletest.New(t)
	few, many := peakOfImport(t, tbl, 300), peakOfImport(t, tbl, 6_000)
	t.Logf("heap in use at most: %d KiB with 300 lines, %d KiB with 6,000", few>>10, many>>10)
	if many > few+6<<20 {
		t.Errorf("the heap grew from %d to %d bytes with 20 times the lines", few, many)
	}
}

// peakOfImport imports lines of 5 KB, which are groups with 50 ids that repeat. It returns the peak
// of the heap in use.
func peakOfImport(t *testing.T, tbl *table.Table, lines int) (peak uint64) {
	t.Helper()
	from, to := io.Pipe()
	go func() {
		for n := range lines {
			line := strings.Replace(transfertest.Line(fmt.Sprint("g", n%50)), "{", `{"usageRecordReportID":"`+strings.Repeat("x", 5_000)+`",`, 1)
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
	counts, err := Import(t.Context(), tbl, "o1", from, ImportOptions{})
	if err != nil || counts.Lines() != lines || counts.Refused > 0 {
		t.Fatalf("%v, %v", counts, err)
	}
	return peak
}

// BenchmarkImport compares the import of the sample data with puts of its prepared items,
// conditional on the items not existing. Both have the same concurrency, and each run has its own
// organization.
func BenchmarkImport(b *testing.B) {
	client, name := tabletest.Client(b)
	tbl, lines := table.New(client, name), string(sampleLines(time.Now()))
	importInto := func(org string) {
		counts, err := Import(b.Context(), tbl, metering.OrgID(org), strings.NewReader(lines), ImportOptions{RewriteOrg: true})
		if err != nil || counts.Imported != sampleCount {
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

// itemsFor reads the items of the groups of organization from and returns them as items of to.
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

// A single large number, which may be a placeholder of the other service, does not use up the
// numbers for new groups.
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
			lines = append(lines, transfertest.Line(fmt.Sprint("g", i), "serialID", serial))
			want = append(want, serial)
		}
		counts, err := Import(t.Context(), tbl, "o1", strings.NewReader(strings.Join(lines, "")), ImportOptions{})
		if err != nil || counts.Imported != len(lines) {
			t.Fatal(counts, err)
		}
		var got []string
		for _, g := range transfertest.StoredGroups(t, tbl, "o1") {
			got = append(got, fmt.Sprint(g.SerialID))
		}
		slices.Sort(got)
		slices.Sort(want)
		if serial, err := tbl.Serial(t.Context(), "o1"); err != nil || serial != test.want || !slices.Equal(got, want) {
			t.Errorf("after %q the counter is %d, %v, and %q are stored; want %d", test.serials, serial, err, got, test.want)
		}
	}
}

// Once the table has been reached, an import waits for a failure that may pass. Any other failure
// ends it.
func TestImport_WaitsForWhatMayPassAlone(t *testing.T) {
	t.Parallel()
	_, name := tabletest.Client(t)
	expired := func(func() (*http.Response, error)) (*http.Response, error) {
		return &http.Response{
			StatusCode: http.StatusBadRequest, Header: http.Header{"Content-Type": {"application/x-amz-json-1.0"}}, ContentLength: -1,
			Body: io.NopCloser(strings.NewReader(`{"__type":"com.amazon.coral.service#ExpiredTokenException","message":"The security token included in the request is expired"}`)),
		}, nil
	}
	unreachable := func(func() (*http.Response, error)) (*http.Response, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	}
	for _, test := range []struct {
		name     string
		fault    tabletest.Fault
		from, to int // requests that fail
		imported int
		want     string
	}{
		{"out of reach for a while", unreachable, 1, 14, 2, ""},
		{"out of reach from the start", unreachable, 0, 1000, 0, "nothing listens at " + os.Getenv("DYNAMODB_ENDPOINT")},
		{"an expired token", expired, 2, 1000, 1, "the AWS credentials have expired"},
	} {
		faults := tabletest.Planned(func(try int, _ *http.Request) tabletest.Fault {
			if test.from <= try && try < test.to {
				return test.fault
			}
			return nil
		})
		client := dynamoclient.New(dynamoclient.Options{
			Region: localdb.Region, Endpoint: os.Getenv("DYNAMODB_ENDPOINT"), Transport: faults,
			Credentials: credentials.NewStaticCredentialsProvider(localdb.AccessKeyID, localdb.SecretAccessKey, ""),
			Explain:     stack.Location{Name: name, Region: localdb.Region, Endpoint: os.Getenv("DYNAMODB_ENDPOINT")}.Explain,
		})
		// The serial counter is written first, then one group at a time: both lines have one id,
		// and so one worker.
		lines := transfertest.Line("g1", "serialID", "1") + transfertest.Line("g1")
		counts, err := Import(t.Context(), table.New(client, name), metering.OrgID("o-"+strings.ReplaceAll(test.name, " ", "-")), strings.NewReader(lines), ImportOptions{Patience: time.Minute})
		access, explained := errors.AsType[*stack.AccessError](err)
		if counts.Lines() != test.imported || (err != nil) != (test.want != "") || explained != (test.want != "") ||
			explained && (!strings.HasPrefix(access.Sentence, test.want) || !strings.HasSuffix(access.Sentence, "; run it again to continue: what exists is skipped")) {
			t.Errorf("%s: %v, %v; want %d lines done and %q", test.name, counts, err, test.imported, test.want)
		}
	}
}
