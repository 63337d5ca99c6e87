// Package reliability holds the service to what docs/reliability.md promises: under faults, races, crashes and
// overload, on real DynamoDB Local.
//
//	go test -timeout=0 ./internal/reliability -long looks for hours and not for seconds
//	go test ./internal/reliability -run X -seed N goes the way again that a failure has printed
package reliability

import (
	"flag"
	"math/rand/v2"
	"testing"
	"time"
)

var (
	long = flag.Bool("long", false, "look for much longer")
	seed = flag.Uint64("seed", 0, "the seed of all that is random; 0 is a new one")
)

// random is what a test takes everything random from; where the test fails it tells how to go the same way again.
func random(t *testing.T) *rand.Rand {
	t.Helper()
	from := *seed
	for from == 0 {
		from = rand.Uint64()
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("again: go test ./internal/reliability -run '^%s$' -seed %d", t.Name(), from)
		}
	})
	return rand.New(rand.NewPCG(from, 0))
}

// until is when a test that looks at random stops: after the time given, or after a hundred times that.
func until(short time.Duration) time.Time {
	if *long {
		short *= 100
	}
	return time.Now().Add(short)
}
