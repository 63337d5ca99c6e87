package main

import (
	"cmp"
	"context"

	"github.com/marketmeter/marketmeter/internal/cli"
	"github.com/marketmeter/marketmeter/internal/localserver"
	"github.com/marketmeter/marketmeter/internal/transfer"
)

func serve(ctx context.Context, p cli.Program, args []string) error {
	flags := p.Flags()
	sample := flags.Bool("sample", false, "load the sample data, of organization "+transfer.SampleOrg+", if it does not exist, and make a key for it")
	if err := p.ParseAll(flags, args); err != nil {
		return err
	}
	return localserver.Run(ctx, localserver.Options{
		Addr: cmp.Or(p.Getenv("ADDR"), "127.0.0.1:8080"), Sample: *sample,
		Getenv: p.Getenv, Stdout: p.Stdout, Stderr: p.Stderr, Log: logger(p),
	})
}
