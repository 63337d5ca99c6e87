// Command marketmeter is the operator's program: it serves the whole API on this machine, imports
// and exports usage record groups, entitlements and billable metrics, and manages the API's keys.
package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/build"
	"github.com/marketmeter/marketmeter/internal/cli"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/stack"
)

var commands = []cli.Command{
	{Name: "serve", Does: "serve the whole API on this machine, on a DynamoDB Local", Run: serve},
	{Name: "import", Does: "load usage record groups, entitlements or metrics from a file", Run: importLines},
	{Name: "export", Does: "write the groups, entitlements or metrics of an organization to standard output", Run: exportLines},
	{Name: "key", Does: "make, list, rotate and revoke the API keys of an organization", Run: keys},
	{Name: "report", Does: "see and steer how usage is reported to the marketplaces", Run: report},
	{Name: "sandbox", Does: "serve the AWS, Azure and Google marketplaces on this machine, for tests", Run: serveSandbox},
	{Name: "with-dynamodb", Does: "run a command with a DynamoDB Local of its own", Run: withDynamoDB},
	{Name: "version", Does: "print the version and the commit of this program", Run: printVersion},
}

//go:embed help
var help embed.FS

func main() {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		signal.Stop(signals) // before the shutdown begins: a second signal ends the program at once
		cancel()
	}()
	texts, _ := fs.Sub(help, "help") // never fails
	p := cli.Program{
		Getenv: os.Getenv, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Name: "marketmeter", Help: texts, Explain: explain,
	}
	os.Exit(p.Run(ctx, commands, os.Args[1:]))
}

// explain returns the error as the operator reads it.
func explain(err error) error {
	if uncertain, ok := errors.AsType[*auth.UncertainError](err); ok {
		err = stack.FollowedBy(err, fmt.Sprintf("; should `marketmeter key list` show a key %s, revoke it: nobody has it", uncertain.KeyID))
	}
	if access, ok := errors.AsType[*stack.AccessError](err); ok {
		err = errors.New(access.Sentence)
	}
	return err
}

// parseOrg reads --org. A command that stores something parses it by metering.ParseOrgID. One that
// reads or ends stored data parses it by metering.StoredOrgID, as earlier versions did.
func parseOrg(parse func(string) (metering.OrgID, error), text string) (metering.OrgID, error) {
	if text == "" {
		return "", cli.UsageError("--org is missing: it names the organization")
	}
	if holdsKey(text) { // it would be printed and logged
		return "", cli.UsageError("--org holds a key: it must be the organization")
	}
	org, err := parse(text)
	if err != nil {
		return "", cli.UsageError(fmt.Sprintf("--org is %s: %v", metering.Quote(text), err))
	}
	return org, nil
}

func holdsKey(text string) bool { return auth.Redact(text) != text }

// logger returns a logger for standard error whose lines name the build.
func logger(p cli.Program) *slog.Logger {
	return slog.New(slog.NewJSONHandler(p.Stderr, nil)).With(build.Current().LogAttributes()...)
}
