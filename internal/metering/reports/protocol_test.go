package reports

import (
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/marketmeter/marketmeter/internal/metering"
	"pgregory.net/rapid"
)

const worldSteps = 300

// For all histories, the invariants hold after every step, and everything comes to its end.
func TestProtocol_HoldsInAllHistories(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(allGuards, func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "choice") })
		for range worldSteps {
			w.step()
			if w.broken != "" {
				t.Fatalf("%s\n%s", w.broken, strings.Join(w.log, "\n"))
			}
		}
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0)) //nolint:gosec // a test
		w.choose = random.IntN
		w.settle()
		if w.broken != "" {
			t.Fatalf("%s\n%s", w.broken, strings.Join(w.log, "\n"))
		}
	})
}

// brokenWorld returns the first of the histories in which a promise is broken, or nil.
func brokenWorld(g guards, histories int) (w *world, seed uint64) {
	for seed := range uint64(histories) {
		random := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // a test
		w := newWorld(g, random.IntN)
		for range worldSteps {
			if w.step(); w.broken != "" {
				return w, seed
			}
		}
		if w.settle(); w.broken != "" {
			return w, seed
		}
	}
	return nil, 0
}

// histories is how many histories are run: HISTORIES.
func histories(t *testing.T) int {
	text := os.Getenv("HISTORIES")
	if text == "" {
		return 300
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestProtocol_HoldsInRandomHistories(t *testing.T) {
	if w, seed := brokenWorld(allGuards, histories(t)); w != nil {
		t.Fatalf("seed %d: %s\n%s", seed, w.broken, strings.Join(w.log, "\n"))
	}
}

// The histories are worth something: they reach each outcome, by each evidence, in each way.
func TestProtocol_HistoriesReachEachOutcome(t *testing.T) {
	reached := map[string]int{}
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // a test
		w := newWorld(allGuards, random.IntN)
		for range worldSteps {
			w.step()
		}
		w.settle()
		for _, h := range w.hours {
			for i := range h.Sealed.Records {
				r := &h.Sealed.Records[i]
				reached[string(r.Outcome.Kind)+" "+string(r.Outcome.Evidence)]++
				if r.Outcome.Evidence == EvidenceSeal && r.Outcome.Code == metering.ProblemExpired {
					reached["ended, as it could not be sealed"]++
				}
				if r.CarryIn.Sign() > 0 && r.Drawn.Sign() > 0 && r.Quantity.Sign() > 0 {
					reached["carry and drawdown"]++
				}
				if r.Scale.Cmp(one) != 0 {
					reached["list price"]++
				}
			}
		}
		for _, g := range w.groups {
			if h := w.hours[g.ended]; h != nil {
				reached["ended before, "+string(g.Status)]++
			}
			if g.only != nil {
				reached["retried in part, "+string(g.Status)]++
			}
		}
	}
	for _, want := range []string{
		"ACCEPTED RESPONSE", "ACCEPTED DUPLICATE", "ACCEPTED COMMIT", "ACCEPTED CARRIED", "ACCEPTED NO_USAGE", "ACCEPTED RESOLVED",
		"REJECTED RESPONSE", "REJECTED WINDOW", "REJECTED SEAL", "REJECTED RESOLVED", "CONFLICT RESPONSE", "UNKNOWN WINDOW",
		"carry and drawdown", "list price", "retried in part, REPORTED",
		"ended, as it could not be sealed", "ended before, REPORTED",
	} {
		if reached[want] == 0 {
			t.Errorf("no history reaches %s: %v", want, reached)
		}
	}
}

// Each guard is needed: without it, a promise is broken.
func TestProtocol_NoticesAMissingGuard(t *testing.T) {
	for name, remove := range map[string]func(*guards){
		"attempt before each call": func(g *guards) { g.attempts = false },
		"doubt rule":               func(g *guards) { g.doubt = false },
		"escrow":                   func(g *guards) { g.escrow = false },
		"due hour in the claim":    func(g *guards) { g.dueHour = false },
		"version at the end of an hour that can't be sealed": func(g *guards) { g.expiry = false },
	} {
		g := allGuards
		remove(&g)
		w, seed := brokenWorld(g, 5000)
		if w == nil {
			t.Errorf("%s: nothing is noticed without it", name)
			continue
		}
		t.Logf("%s: seed %d, after %d events: %s", name, seed, len(w.log), w.broken)
	}
}
