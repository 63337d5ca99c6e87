// Package programtest has helpers for the tests that run the program itself.
package programtest

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"sync"
	"testing"
)

// Output is what a program has written so far. It may be read while the program writes.
type Output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *Output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

// String returns what was written so far.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// Skip skips the test. If CI is set, nothing may be missing, and it fails the test.
func Skip(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// Long marks a test, or the rest of it, that takes too long for every run while one develops: with
// -short it is skipped. CI runs everything, so there -short fails it.
func Long(t testing.TB) {
	t.Helper()
	if testing.Short() {
		Skip(t, "it takes long, and -short leaves it out")
	}
}

var peak = regexp.MustCompile(`VmHWM:\s+(\d+) kB`)

// PeakMemory returns the peak memory of a process so far, in bytes. It skips the rest of the test
// if the system has no /proc.
func PeakMemory(t testing.TB, pid int) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if os.IsNotExist(err) {
		Skip(t, "there is no /proc here")
	}
	told := peak.FindSubmatch(status)
	if told == nil {
		t.Fatalf("%v; no VmHWM in\n%s", err, status)
	}
	kilobytes, err := strconv.ParseInt(string(told[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kilobytes << 10
}
