package main

import (
	"context"
	"fmt"

	"github.com/marketmeter/marketmeter/internal/cli"
	"github.com/marketmeter/marketmeter/internal/localserver"
)

func withDynamoDB(ctx context.Context, p cli.Program, args []string) error {
	flags := p.Flags()
	o := localserver.DatabaseOptions{Getenv: p.Getenv, Stdin: p.Stdin, Stdout: p.Stdout, Stderr: p.Stderr, Log: logger(p)}
	flags.BoolVar(&o.Sample, "sample", false, "make the table, load the sample data and make a key for it first")
	flags.BoolVar(&o.Containers, "containers", false, "let the containers of this machine's Docker reach the database too")
	if err := p.Parse(flags, args); err != nil {
		return err
	}
	if flags.NArg() == 0 {
		return cli.UsageError("it needs a command to run")
	}
	if out, ok := p.Stdout.(*cli.Output); ok {
		o.Stdout = out.Unwrapped()
	}
	status, err := localserver.WithDatabase(ctx, o, flags.Args())
	if err != nil {
		fmt.Fprintf(p.Stderr, "%s: %v\n", p.Name, p.Explain(err))
	}
	return cli.ExitStatus(status)
}
