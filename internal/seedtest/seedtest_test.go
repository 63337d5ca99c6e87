package seedtest

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// A test that hangs and is killed has printed the command that repeats the run, whatever its name.
// The command repeats the run.
func TestRandom_HangPrintsItsSeed(t *testing.T) {
	t.Parallel()
	const hangs = "HANGS"
	if os.Getenv(hangs) != "" {
		t.Run("one", func(*testing.T) { fmt.Fprintln(os.Stderr, "another test has run") })
		t.Run("one's name (of some)|.*", func(t *testing.T) {
			fmt.Fprintln(os.Stderr, "drawn", Random(t).Uint64())
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
	first := run("-run '^TestRandom_HangPrintsItsSeed$'")
	if len(first) != 3 || !strings.HasPrefix(first[1], "again: ") {
		t.Fatalf("it says %q; want three lines, the second with the command", first)
	}
	_, flags, _ := strings.Cut(first[1], " ./internal/seedtest ")
	if second := run(flags); !slices.Equal(second, first[1:]) {
		t.Errorf("again it says %q; want %q", second, first[1:])
	}
}
