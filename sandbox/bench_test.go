package sandbox_test

import (
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/sandbox"
)

// BenchmarkRecords measures how many records per second AWS accepts, in requests of 25 and of one.
// It runs in memory on one processor, and with the journal synced before each response for 32
// concurrent clients.
func BenchmarkRecords(b *testing.B) {
	for _, c := range []struct {
		name    string
		batch   int
		clients int
		journal bool
		goal    string
	}{
		{"sandbox-memory", 25, 1, false, ">= 2000"},
		{"sandbox-memory-single", 1, 1, false, "none"},
		{"sandbox-journal", 25, 32, true, ">= 500"},
		{"sandbox-journal-single", 1, 32, true, ">= 500"},
	} {
		rate := func() float64 {
			options := sandbox.Options{}
			if c.journal {
				options.Journal = filepath.Join(b.TempDir(), "journal")
			} else {
				defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
			}
			s := open(b, options)
			s.at(noon)
			requests := 4000 / c.batch
			var list []string
			for i := range c.batch {
				dimension := []string{`"requests"`, `"gb"`}[i%2]
				list = append(list, usage("1.5", "Dimension", dimension, "Timestamp", fmt.Sprint(noon.Add(-time.Duration(i/2)*time.Hour).Unix())))
			}
			body := records(list...)
			next := make(chan int, requests)
			for i := range requests {
				next <- i
			}
			close(next)
			start := time.Now()
			var clients sync.WaitGroup
			for range c.clients {
				clients.Go(func() {
					for i := range next {
						// A Region of its own, so that no two records share an identity.
						s.ServeHTTP(httptest.NewRecorder(), awsRequest("BatchMeterUsage", fmt.Sprint("r-", i), body))
					}
				})
			}
			clients.Wait()
			took := time.Since(start)
			if got := len(s.quantities()); got != requests*c.batch {
				b.Fatalf("%d records were accepted of %d", got, requests*c.batch)
			}
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
			return float64(requests*c.batch) / took.Seconds()
		}
		var rates []float64
		for range rounds(b) {
			rates = append(rates, rate())
		}
		slices.Sort(rates)
		// go test has printed the benchmark's name on this line, without a newline.
		fmt.Printf("\nbench: %s %.2f records/s (goal %s)\n", c.name, rates[len(rates)/2], c.goal)
	}
}

// rounds is the number of measurements, of which the median is printed: ROUNDS, or 5 if that is not
// set.
func rounds(b *testing.B) int {
	b.Helper()
	text := os.Getenv("ROUNDS")
	if text == "" {
		return 5
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		b.Fatalf("ROUNDS is %q: it must be a number of at least 1", text)
	}
	return n
}
