package lambdahost_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/awslabs/aws-lambda-go-api-proxy/httpadapter"

	"github.com/marketmeter/marketmeter/internal/bench/figure"
	"github.com/marketmeter/marketmeter/internal/lambdahost"
)

// BenchmarkEnvelope measures a function whose handler only writes a page of 850 KB, from the
// event's bytes to the response's. It alternates with the same through the adapter's response half
// and aws-lambda-go's encoder.
func BenchmarkEnvelope(b *testing.B) {
	page := listPage(1000)
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.Header().Set("Content-Length", strconv.Itoa(len(page)))
		w.WriteHeader(http.StatusOK)
		_, _ = w.Write(page)
	})
	functions := []lambda.Handler{
		lambdahost.Handler(handler, slog.New(slog.DiscardHandler)),
		lambda.NewHandler(httpadapter.NewV2(handler).ProxyWithContext),
	}
	request := event(b, "/org/demo/usageRecordGroup", "", nil)
	const us, them = 0, 1
	var took []func() float64
	var allocated [2]float64
	for i, function := range functions {
		invoke := func() float64 {
			start := time.Now()
			answer, err := function.Invoke(b.Context(), request)
			if err != nil || len(answer) < len(page) {
				b.Fatalf("%d bytes, %v", len(answer), err)
			}
			return float64(time.Since(start).Microseconds())
		}
		took = append(took, invoke)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range 20 {
			invoke()
		}
		runtime.ReadMemStats(&after)
		allocated[i] = float64(after.TotalAlloc - before.TotalAlloc)
	}
	m := figure.InTurns(figure.Rounds(b, 101), took...)
	figure.Print("envelope-vs-marshal", m.Ratio(them, us), "times", ">= 1.5")
	figure.Print("envelope-memory", allocated[them]/allocated[us], "times", ">= 1.5")
}

// listPage is a page of n groups of 850 bytes.
func listPage(n int) []byte {
	page := []byte(`{"nextOffset":0,"usageRecordGroups":[`)
	for i := range n {
		if i > 0 {
			page = append(page, ',')
		}
		page = fmt.Appendf(page, `{"buyerID":"buyer-%04d","creationTime":"2026-03-12T19:03:58.%03dZ","entitlementID":"ent-%08x",`+
			`"id":"%08x-5f5a-4d86-9a3c-2b1d%08x","lastUpdateTime":"2026-03-12T19:13:07.210Z","metaInfo":{`+
			`"billableRecords":[{"key":"bm-tokens","properties":{"model":"small","region":"us-east-1"},"quantity":%d.478},`+
			`{"key":"bm-tokens","properties":{"model":"large","region":"eu-central-1"},"quantity":%d.886}],`+
			`"metronomeDailyCostAmount":%d.25,"metronomeInvoiceID":"inv-%08x-2026-03","metronomeMonthlyInvoiceAmount":%d.5,`+
			`"originRecords":{"input_tokens_k":%d.125,"output_tokens_k":%d.75},"source":"METRONOME","timestamp":"2026-03-12T19:00:00.000Z"},`+
			`"organizationID":"demo","partner":"AWS","records":{"input_tokens_k":%d.125,"output_tokens_k":%d.75},`+
			`"reportedTime":"2026-03-12T19:13:07.210Z","serialID":%d,"status":"REPORTED","usageRecordReportID":"%08x-7ffa-730a-21ff-2f09%08x"}`,
			i%40, i, i%40*7919, i*2654435761%(1<<32), i*40503%(1<<32), i*7%3000, i*13%9000, i%400, i%40*7919, i*37, i*7, i*13, i*7, i*13, i,
			i*2246822519%(1<<32), i*3266489917%(1<<32))
	}
	return append(page, "]}"...)
}
