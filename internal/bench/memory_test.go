package bench

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/marketmeter/marketmeter/internal/bench/figure"
	"github.com/marketmeter/marketmeter/internal/bench/lambda"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// smallestMemory is the min memory of a function in template.yaml, in bytes, without a tenth for
// Lambda's own use.
const smallestMemory = 256_000_000 * 9 / 10

// The list function repeatedly returns the largest page within the memory of the smallest function.
func TestListFunction_LargestPageFitsIntoItsMemory(t *testing.T) {
	t.Parallel()
	if most := listMemory(t, 1); most > smallestMemory {
		t.Errorf("%d MB", most/1_000_000)
	}
}

// BenchmarkMemory measures the max memory of the list function, over several of the largest pages
// in a row.
func BenchmarkMemory(b *testing.B) {
	figure.Print("list-memory", float64(listMemory(b, figure.Rounds(b, 5)))/1e6, "MB", "<= 200")
}

// listMemory is the max memory of a list function after pages of max size: of groups near the 400
// KB of an item, and of text that is escaped twice on its way, of which less fits.
func listMemory(tb testing.TB, rounds int) (bytes int64) {
	tb.Helper()
	client, name := tabletest.Client(tb)
	served := table.New(client, name)
	for org, text := range map[string]string{"plain": strings.Repeat("a metered word ", 390_000/15), "escaped": strings.Repeat(`"\`, 190_000/2)} {
		var puts errgroup.Group
		for n := range 20 { // 16 fill a page
			puts.Go(func() error {
				group := usage(org, fmt.Sprintf("large-%02d", n), n, time.Now())
				group.MetaInfo.Carried["stripeInvoiceID"] = text
				_, err := served.Put(tb.Context(), &group)
				return err
			})
		}
		if err := puts.Wait(); err != nil {
			tb.Fatal(err)
		}
	}
	p := lambda.Start(tb, buildHere(tb, ours+"list"), os.Getenv("DYNAMODB_ENDPOINT"), "TABLE_NAME="+name)
	for range rounds {
		for _, org := range []string{"plain", "escaped"} {
			for _, headers := range []map[string]string{nil, {"accept-encoding": "gzip"}} {
				for offset := range 2 { // the second is counted from the beginning
					answer, _ := p.Invoke(tb, listEvent(tb, org, fmt.Sprintf("%s&offset=%d", window(), offset), headers))
					wantFull(tb, answer, headers == nil)
				}
			}
		}
	}
	return p.Stop()
}

// wantFull fails if the response is not a full page. The size shows that, if the response is not
// compressed.
func wantFull(tb testing.TB, answer []byte, plain bool) {
	tb.Helper()
	var envelope struct{ StatusCode int }
	if err := json.Unmarshal(answer, &envelope); err != nil || envelope.StatusCode != http.StatusOK {
		tb.Fatalf("%v: %.300s", err, answer)
	}
	if plain && len(answer) < 5_000_000 {
		tb.Fatalf("the page has %d bytes: it is not full", len(answer))
	}
}
