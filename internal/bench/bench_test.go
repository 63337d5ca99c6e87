// Package bench measures the promised speed and size of marketmeter: the functions' own programs
// with a stand-in for Lambda, the API's handler over recorded responses of DynamoDB, and the
// workers on DynamoDB Local with a sandbox. `make bench` runs it, docs/performance.md explains the
// figures, and ROUNDS=1 gives a quick look.
package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/marketmeter/marketmeter/internal/bench/lambda"
)

// programs is the folder to which programs are built, by build.
var programs string

func TestMain(m *testing.M) {
	var err error
	if programs, err = os.MkdirTemp("", "marketmeter-bench-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	status := m.Run()
	_ = os.RemoveAll(programs)
	os.Exit(status)
}

// functions are the names of the deployed functions, which all have a table.
var functions = foldersIn("../../functions")

func foldersIn(path string) (names []string) {
	entries, err := os.ReadDir(path)
	if err != nil {
		panic(err)
	}
	for _, entry := range entries {
		if entry.IsDir() {
			names = append(names, entry.Name())
		}
	}
	return names
}

const (
	ours     = "github.com/marketmeter/marketmeter/functions/"
	measured = "github.com/marketmeter/marketmeter/internal/bench/functions/"
)

var building sync.Mutex

// build builds a function as `sam build` does, for that architecture, once.
func build(tb testing.TB, function, architecture string) (program string) {
	tb.Helper()
	building.Lock()
	defer building.Unlock()
	program = filepath.Join(programs, filepath.Base(function)+"-"+architecture)
	if _, err := os.Stat(program); err == nil {
		return program
	}
	return lambda.Build(tb, programs, function, architecture)
}

// buildHere builds a function for this machine.
func buildHere(tb testing.TB, function string) (program string) {
	tb.Helper()
	return build(tb, function, runtime.GOARCH)
}
