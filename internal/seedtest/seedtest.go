// Package seedtest gives each randomized test a seed and a time limit. Each test prints at its
// start the command that repeats the run. go shows that output if a package fails, also by its time
// limit; if go itself may be killed, -v shows it at once. To run a package for hours instead of
// seconds:
//
//	bin/marketmeter with-dynamodb -- go test -timeout=0 ./internal/apitest -long
package seedtest

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Long is the flag -long: look for much longer.
var Long = flag.Bool("long", false, "look for much longer")

var seed = flag.Uint64("seed", 0, "the seed of all that is random; 0 is a new one")

// Random returns the source of all random choices of a test. It prints the command that repeats the
// run at once, past the testing package, which would hold it back until the test ends: a test that
// hangs never ends.
func Random(t *testing.T) *rand.Rand {
	t.Helper()
	from := *seed
	for from == 0 {
		from = rand.Uint64()
	}
	command := again(t, from)
	fmt.Fprintln(os.Stderr, command)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(command)
		}
	})
	return rand.New(rand.NewPCG(from, 0))
}

// again returns the shell command that runs this test alone, from that seed.
func again(t *testing.T, from uint64) string {
	t.Helper()
	folder, err := os.Getwd() // go test runs a test in the folder of its package
	if err != nil {
		t.Fatal(err)
	}
	names := strings.Split(t.Name(), "/") // -run has a pattern for each part
	for i, name := range names {
		names[i] = "^" + regexp.QuoteMeta(name) + "$"
	}
	pattern := strings.ReplaceAll(strings.Join(names, "/"), "'", `'\''`)
	more := ""
	if *Long {
		more = " -timeout=0 -long"
	}
	return fmt.Sprintf("again: bin/marketmeter with-dynamodb -- go test ./internal/%s -run '%s' -seed %d%s", filepath.Base(folder), pattern, from, more)
}

// Until returns when a randomized test stops: after the given time, with -long after a hundred
// times that, and with -short after an eighth.
func Until(short time.Duration) time.Time {
	switch {
	case *Long:
		short *= 100
	case testing.Short():
		short /= 8
	}
	return time.Now().Add(short)
}
