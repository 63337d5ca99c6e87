// Package reliability checks the service against the promises of docs/reliability.md: under faults,
// races, crashes and overload, on real DynamoDB Local. To run it for hours instead of seconds:
//
//	bin/marketmeter with-dynamodb -- go test -timeout=0 ./internal/reliability -long
//
// All random choices of a test come from a seed. Each test prints at its start the command that
// repeats the run. go shows that output if a package fails, also by its time limit; if go itself
// may be killed, -v shows it at once. If TestTheServiceIsItsModel fails, rapid also names a file
// that repeats the failure at once.
package reliability

import (
	"bufio"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	long = flag.Bool("long", false, "look for much longer")
	seed = flag.Uint64("seed", 0, "the seed of all that is random; 0 is a new one")
)

// random is the source of all random choices of a test. It prints the command that repeats the run
// at once, past the testing package, which would hold it back until the test ends: a test that
// hangs never ends.
func random(t *testing.T) *rand.Rand {
	t.Helper()
	from := *seed
	for from == 0 {
		from = rand.Uint64()
	}
	command := again(t.Name(), from)
	fmt.Fprintln(os.Stderr, command)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(command)
		}
	})
	return rand.New(rand.NewPCG(from, 0))
}

// again is the shell command that runs this test alone, from that seed.
func again(test string, from uint64) string {
	names := strings.Split(test, "/") // -run has a pattern for each part
	for i, name := range names {
		names[i] = "^" + regexp.QuoteMeta(name) + "$"
	}
	pattern := strings.ReplaceAll(strings.Join(names, "/"), "'", `'\''`)
	more := ""
	if *long {
		more = " -timeout=0 -long"
	}
	return fmt.Sprintf("again: bin/marketmeter with-dynamodb -- go test ./internal/reliability -run '%s' -seed %d%s", pattern, from, more)
}

// until is when a randomized test stops: after the given time, with -long after a hundred times that,
// with -short after an eighth.
func until(usual time.Duration) time.Time {
	switch {
	case *long:
		usual *= 100
	case testing.Short(): //nolint:forbidigo // it skips nothing
		usual /= 8
	}
	return time.Now().Add(usual)
}

// A test that hangs and is killed has printed the command that repeats the run, whatever its name.
// The command repeats the run.
func TestRandom_HangHasPrintedItsSeed(t *testing.T) {
	t.Parallel()
	const hangs = "HANGS"
	if os.Getenv(hangs) != "" {
		t.Run("one", func(*testing.T) { fmt.Fprintln(os.Stderr, "another test has run") })
		t.Run("one's name (of some)|.*", func(t *testing.T) {
			fmt.Fprintln(os.Stderr, "drawn", random(t).Uint64())
			select {}
		})
	}
	run := func(flags string) (said []string) {
		// Through a shell, since the command is for one. go's -run is the program's -test.run.
		program := exec.CommandContext(t.Context(), "sh", "-c", `exec "$0" -test.timeout=1m `+strings.Replace(flags, "-run", "-test.run", 1), os.Args[0])
		program.Env = append(os.Environ(), hangs+"=1")
		stderr, err := program.StderrPipe()
		if err == nil {
			err = program.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			if said = append(said, lines.Text()); strings.HasPrefix(lines.Text(), "drawn") {
				break
			}
		}
		_ = program.Process.Kill()
		_ = program.Wait() // it was killed
		return said
	}
	first := run("-run '^TestRandom_HangHasPrintedItsSeed$'")
	if len(first) != 3 || !strings.HasPrefix(first[1], "again: ") {
		t.Fatalf("it says %q; want three lines, the second with the command", first)
	}
	_, flags, _ := strings.Cut(first[1], " ./internal/reliability ")
	if second := run(flags); !slices.Equal(second, first[1:]) {
		t.Errorf("again it says %q; want %q", second, first[1:])
	}
}
