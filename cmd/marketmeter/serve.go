package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"

	"github.com/marketmeter/marketmeter/internal/localserver"
	"github.com/marketmeter/marketmeter/internal/transfer"
)

const serveHelp = `
usage: marketmeter serve [--sample]

Serves the whole API on this machine until Ctrl-C or TERM, and starts what it needs for that. Every
request needs a key ("marketmeter key -h"), but for /healthz, /docs and /openapi.yaml.

  ADDR               where it serves, 127.0.0.1:8080 if not set
  DYNAMODB_ENDPOINT  the DynamoDB to use; if not set, a DynamoDB Local is started and stopped
  TABLE_NAME         the table, made from template.yaml where it is not there; marketmeter if not set
  LOCAL_DIR          the folder of the data and of the file env, which tells programs and shells
                     where all this runs, with a key; .local if not set
  LOCAL_JARS         the folder that DynamoDB Local is fetched into; LOCAL_DIR if not set
  SANDBOX_ADDR       the address of the sandbox of the marketplaces ("marketmeter sandbox -h"); ten
                     ports above ADDR, on 127.0.0.1, if not set

`

func serve(ctx context.Context, p program, args []string) error {
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	sample := flags.Bool("sample", false, "load the sample data, of organization "+transfer.SampleOrg+", where it is not there, and make a key for it")
	if err := p.parse(flags, serveHelp, args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return usageError(fmt.Sprintf("it takes no argument %q", flags.Arg(0)))
	}
	return localserver.Run(ctx, localserver.Options{
		Addr: cmp.Or(p.getenv("ADDR"), "127.0.0.1:8080"), Sample: *sample,
		Getenv: p.getenv, Stdout: p.stdout, Stderr: p.stderr, Log: p.log(),
	})
}
