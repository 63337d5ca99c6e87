// Package programtest is what tests share that run the program itself.
package programtest

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"testing"
)

// Skip ends the test, as a failure where nothing may be missing: where CI is set.
func Skip(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}

var peak = regexp.MustCompile(`VmHWM:\s+(\d+) kB`)

// PeakMemory is the most of the machine's memory that a process has had so far, in bytes. It skips
// the rest of a test where that is not told.
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
