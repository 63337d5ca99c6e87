package apitest

import (
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/marketmeter/marketmeter/internal/seedtest"
)

// atOnce sends requests at the same time and returns the responses in their order.
func (a *api) atOnce(t testing.TB, requests ...request) []answer {
	t.Helper()
	answers := make([]answer, len(requests))
	var all sync.WaitGroup
	for i, r := range requests {
		all.Go(func() {
			got, wrong, err := a.exchange(t.Context(), r)
			if err != nil || len(wrong) > 0 {
				t.Errorf("%s %s: %q, %v", r.method, r.path, wrong, err)
			}
			answers[i] = got
		})
	}
	all.Wait()
	return answers
}

// Reporters that race on one id or key store one group.
func TestReport_RacingReportersStoreOneGroup(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.give(t, "acme", sold("e1"))
		for _, c := range []struct {
			r    request
			lost int // the status of those that come second
		}{
			{reporting("e1", `{"id":"u1","records":{"cpu":1}}`), http.StatusConflict},
			{reporting("e1", `{"records":{"cpu":2}}`, "Idempotency-Key", "k1"), http.StatusOK},
			{batching(`[{"id":"u2","entitlementID":"e1","records":{"cpu":1}}]`), http.StatusOK},
			{batching(`[{"entitlementID":"e1","records":{"cpu":1}},{"entitlementID":"e1","records":{"cpu":1}},{"entitlementID":"e1","records":{"cpu":1}}]`, "Idempotency-Key", "k2"), http.StatusOK},
		} {
			before := len(a.listAll(t, "acme", nil))
			answers := a.atOnce(t, slices.Repeat([]request{c.r.of("acme")}, 8)...)
			won := ""
			statuses := map[int]int{}
			for _, got := range answers {
				statuses[got.status]++
				if got.status == http.StatusOK && won == "" {
					won = got.body
				}
				if got.status == http.StatusOK && got.body != won {
					t.Errorf("two reporters have different groups: %s and %s", won, got.body)
				}
			}
			if c.lost == http.StatusOK && statuses[http.StatusOK] != 8 || c.lost != http.StatusOK && (statuses[http.StatusOK] != 1 || statuses[c.lost] != 7) {
				t.Errorf("%s: the statuses are %v", c.r.body, statuses)
			}
			stored := 1
			if groups, isList := parse(t, won).([]any); isList {
				stored = len(groups)
			}
			if after := len(a.listAll(t, "acme", nil)); after != before+stored {
				t.Errorf("%s: %d groups are stored; want %d", c.r.body, after-before, stored)
			}
		}
		// Two requests with one key and other content: one of them is the key's, and all of it is
		// stored.
		a.give(t, "racing", sold("e1"))
		batch := func(n int) request {
			body := "["
			for i := range n {
				body += fmt.Sprintf(`{"entitlementID":"e1","records":{"cpu":%d}},`, i+1)
			}
			return batching(body[:len(body)-1]+"]", "Idempotency-Key", "k").of("racing")
		}
		answers := a.atOnce(t, batch(5), batch(6), batch(5), batch(6))
		sizes := map[int]bool{}
		for i, got := range answers {
			if got.status == http.StatusOK {
				sizes[5+i%2] = true
			} else {
				wantError(t, got, http.StatusConflict, "Idempotency-Key")
			}
		}
		if listed := len(a.listAll(t, "racing", nil)); len(sizes) != 1 || !sizes[listed] {
			t.Errorf("batches of %v have their 200, and %d groups are stored", sizes, listed)
		}
	})
}

// What four clients have reported, one by one and in batches, is listed, is returned one by one,
// and adds up to the last digit; no two groups have a serial number.
func TestReport_ManyReportsAddUp(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		clients, each := 4, 125
		if *seedtest.Long {
			each = 2500
		}
		a.give(t, "acme", sold("e1"), sold("e2"))
		sum := new(big.Rat)
		quantity := func(client, i int) string { return fmt.Sprintf("%d.%09d", i*7919%100_000, client*each+i+1) }
		reported := make([][]string, clients)
		var all sync.WaitGroup
		for client := range clients {
			all.Go(func() {
				for i := 0; i < each; {
					r := reporting([]string{"e1", "e2"}[i%2], `{"records":{"cpu":`+quantity(client, i)+`}}`, "Idempotency-Key", fmt.Sprintf("%d-%d", client, i))
					n := 1
					if client%2 == 1 {
						n = min(25, each-i)
						body := "["
						for j := range n {
							body += `{"entitlementID":"e1","records":{"cpu":` + quantity(client, i+j) + `}},`
						}
						r = batching(body[:len(body)-1] + "]")
					}
					got, wrong, err := a.exchange(t.Context(), r.of("acme"))
					if err != nil || len(wrong) > 0 || got.status != http.StatusOK {
						t.Errorf("%d %q, %v: %.300s", got.status, wrong, err, got.body)
						return
					}
					groups, isList := values(got.body).([]any)
					if !isList {
						groups = []any{values(got.body)}
					}
					for _, g := range groups {
						reported[client] = append(reported[client], g.(doc)["id"].(string))
					}
					i += n
				}
			})
		}
		all.Wait()
		for client := range clients {
			for i := range each {
				q, _ := new(big.Rat).SetString(quantity(client, i))
				sum.Add(sum, q)
			}
		}
		listed := new(big.Rat)
		serials, ids := map[string]bool{}, map[string]bool{}
		for _, g := range a.listAll(t, "acme", nil) {
			q, _ := new(big.Rat).SetString(string(g["records"].(doc)["cpu"].(exact)))
			listed.Add(listed, q)
			serials[string(g["serialID"].(exact))], ids[g["id"].(string)] = true, true
			if g["status"] != "CREATED" {
				t.Errorf("a group is %v", g["status"])
			}
		}
		if n := clients * each; len(serials) != n || len(ids) != n || listed.Cmp(sum) != 0 {
			t.Errorf("%d groups with %d serial numbers of %s in all are listed; want %d of %s", len(ids), len(serials), listed.FloatString(9), n, sum.FloatString(9))
		}
		for client := range clients {
			for i := 0; i < each; i += 25 {
				g := asGroup(t, parse(t, a.get(t, groupPath("acme", reported[client][i]), "").body))
				wantSame(t, parse(t, quantity(client, i)), g["records"].(doc)["cpu"])
			}
		}
	})
}

// What validation approves, a report stores as CREATED, and the reverse.
func TestValidate_AgreesWithReport(t *testing.T) {
	eachWay(t, func(t *testing.T, a *api) {
		a.give(t, "acme", sold("e1"), sold("suspended", doc{"status": "SUSPENDED"}), sold("late", doc{"startTime": "2024-07-29T15:00:00Z"}),
			sold("open", doc{"info": doc{}}), sold("bare", doc{"marketplace": doc{}}))
		want(t, a.send(t, "PUT", configPath("acme"), `{"partnerUsageMeteringConfigs":[{"partner":"AWS","enableDimensionMapping":true,
			"dimensionMapping":{"money":{"dimensionKey":"cpu","mappingMode":"AMOUNT"},"free":{"dimensionKey":"ram","mappingMode":"AMOUNT"},"tiny":{"dimensionKey":"cpu","convertionMultiplier":0.0000000000000000001}}}]}`), http.StatusOK)
		rapid.Check(t, func(rt *rapid.T) {
			body := `"records":{` + strconv.Quote(pick(rt, "key", "cpu", "CPU hours", "money", "free", "tiny", "disk", "")) + `:` + pick(rt, "quantity", "1", "0", "-1", "0.5", "9999999999", "10000000000", "12345678901234567890", "1e-19") + `}`
			if roll(rt, "v2", 5) == 4 {
				body = `"billableRecords":[{"key":"m","quantity":1}]`
			}
			if at := pick(rt, "timestamp", "", "2024-07-29T15:51:28Z", "2024-07-29T14:59:59Z", "2024-07-28T16:00:00Z", "2024-07-28T14:59:59Z", "2024-07-29T15:56:28.071Z", "2024-07-29T15:56:28.072Z"); at != "" {
				body += `,"timestamp":"` + at + `"`
			}
			entitlement := pick(rt, "entitlement", "e1", "e1", "suspended", "late", "open", "bare", "absent")
			valid := a.send(t, "POST", validatePath("acme"), `[{`+body+`,"entitlementID":"`+entitlement+`"}]`)
			report := a.report(t, "acme", entitlement, `{`+body+`}`)
			switch g, _ := values(report.body).(doc); {
			case valid.status == http.StatusOK && g["status"] != "CREATED", valid.status != http.StatusOK && g["status"] == "CREATED":
				rt.Errorf("%s of %s: validation says %d %s, the report %d %s", body, entitlement, valid.status, valid.body, report.status, report.body)
			case valid.status != http.StatusOK && valid.status != http.StatusInternalServerError:
				rt.Errorf("validation says %d %s", valid.status, valid.body)
			}
		})
	})
}
