package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"runtime"

	"github.com/marketmeter/marketmeter/internal/build"
)

const versionHelp = `
usage: marketmeter version

Prints the version and the commit that this program was built from, and what it was built for. The same
two are in /healthz and in each log line.

`

func printVersion(_ context.Context, p program, args []string) error {
	flags := flag.NewFlagSet("version", flag.ContinueOnError)
	if err := p.parse(flags, versionHelp, args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return usageError(fmt.Sprintf("it takes no argument %q", flags.Arg(0)))
	}
	fmt.Fprintf(p.stdout, "marketmeter %v, %s, %s/%s\n", build.Current(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return nil
}

// log returns a logger for standard error whose lines name the build.
func (p program) log() *slog.Logger {
	return slog.New(slog.NewJSONHandler(p.stderr, nil)).With(build.Current().LogAttributes()...)
}
