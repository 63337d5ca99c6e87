package apitest

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/apijson"
	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/lambdahost"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table"
)

// BenchmarkCompress measures what a compressed page of 1,000 groups costs and saves: the list function from
// the event's bytes to the answer's, over a table in memory, for a client that takes gzip and for one
// that doesn't, the two in turns.
func BenchmarkCompress(b *testing.B) {
	log := slog.New(slog.DiscardHandler)
	api := &httpapi.API{
		Table: memoryTable{groups: variedGroups(b, 1000)}, Log: log, Now: func() time.Time { return now },
		Identify: lambdahost.Identity, CountUnits: table.CountUnits,
	}
	function := lambdahost.Handler(api.Handler(), log)
	var events [2][]byte
	for i, accepted := range []string{"gzip, deflate, br", "identity"} {
		r := request{method: "GET", path: listPath("acme"), headers: map[string]string{"Accept-Encoding": accepted}}
		event, err := eventOf(r, lambdaContext("acme"))
		if err != nil {
			b.Fatal(err)
		}
		events[i] = event
	}
	var took [2][]time.Duration
	var size [2]int
	for b.Loop() {
		for i, event := range events {
			start := time.Now()
			answer, err := function.Invoke(b.Context(), event)
			took[i] = append(took[i], time.Since(start))
			if size[i] = len(answer); err != nil {
				b.Fatal(err)
			}
		}
	}
	median := func(of []time.Duration) float64 {
		slices.Sort(of)
		return float64(of[len(of)/2])
	}
	fmt.Printf("bench: compress-time %.2f x (goal <= 2)\n", median(took[0])/median(took[1]))
	fmt.Printf("bench: compress-saving %.1f x (goal >= 3)\n", float64(size[1])/float64(size[0]))
}

// variedGroups are n groups that differ in what real ones differ in; ids are random.
func variedGroups(b *testing.B, n int) []metering.Group {
	random := rand.New(rand.NewPCG(1, 2))
	uuid := func() string {
		return fmt.Sprintf("%08x-%04x-4%03x-a%03x-%012x", random.Uint32(), random.IntN(1<<16), random.IntN(1<<12), random.IntN(1<<12), random.Int64N(1<<48))
	}
	groups := make([]metering.Group, n)
	for i := range groups {
		at := now.Add(-time.Duration(i) * 37 * time.Minute).Add(-time.Duration(random.Int64N(int64(time.Minute))))
		records := fmt.Sprintf(`{"hosts":%d,"logs_gb":%d.%02d}`, random.IntN(80), random.IntN(900), random.IntN(100))
		line := fmt.Appendf(nil, `{"id":%q,"buyerID":"4829133%05d","entitlementID":"ent-%08x","partner":%q,"status":"REPORTED",
			"creationTime":%q,"lastUpdateTime":%q,"reportedTime":%q,"serialID":%d,"usageRecordReportID":%q,"records":%s,
			"metaInfo":{"source":%q,"timestamp":%q,"originRecords":%s}}`,
			uuid(), random.IntN(20), random.IntN(30)*104729, []string{"AWS", "AZURE", "GCP"}[random.IntN(3)],
			milliseconds(at), milliseconds(at.Add(time.Hour)), milliseconds(at.Add(time.Hour)), n-i, uuid(), records,
			[]string{"API", "LAGO", "ORB"}[random.IntN(3)], milliseconds(at.Truncate(time.Minute)), records)
		g, err := apijson.DecodeGroup(line)
		if err != nil {
			b.Fatal(err)
		}
		g.OrganizationID = "acme"
		groups[i] = g
	}
	return groups
}
