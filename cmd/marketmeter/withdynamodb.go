package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/marketmeter/marketmeter"
	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/child"
	"github.com/marketmeter/marketmeter/internal/localdb"
	"github.com/marketmeter/marketmeter/internal/localserver"
	"github.com/marketmeter/marketmeter/internal/stack"
	"github.com/marketmeter/marketmeter/internal/transfer"
)

const withDynamoDBHelp = `
usage: marketmeter with-dynamodb [--sample] [--containers] [--] COMMAND [ARGUMENT...]

Starts a DynamoDB Local in memory on a free port, runs COMMAND, stops the database, and exits with
COMMAND's status: 128 and the signal that ended it, 126 if it can't be executed, 127 if there is none.
COMMAND finds the database by DYNAMODB_ENDPOINT, TABLE_NAME, AWS_REGION,
AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and with --sample MARKETMETER_ORG and MARKETMETER_KEY, a key
for the sample data that is good for a day. Where DYNAMODB_ENDPOINT is set already, the DynamoDB that
it names is used and none is started. A signal is passed on to COMMAND; the database outlives it.

The database listens on loopback alone. With --containers it also listens on the address at which the
containers of this machine's Docker reach it: whoever reaches that address may read and change it.

`

func withDynamoDB(ctx context.Context, p program, args []string) error {
	flags := flag.NewFlagSet("with-dynamodb", flag.ContinueOnError)
	sample := flags.Bool("sample", false, "make the table, load the sample data and make a key for it first")
	containers := flags.Bool("containers", false, "let the containers of this machine's Docker reach the database too")
	if err := p.parse(flags, withDynamoDBHelp, args); err != nil {
		return err
	}
	if flags.NArg() == 0 {
		return usageError("it needs a command to run")
	}
	say := func(text string) { fmt.Fprintln(p.stderr, text) }

	var s stack.Stack
	if endpoint := p.getenv("DYNAMODB_ENDPOINT"); endpoint != "" {
		s = stack.At(endpoint, p.getenv)
	} else {
		db, err := localdb.Start(ctx, localdb.Options{Jars: stack.JarsDir(p.getenv), Containers: *containers, Say: say})
		if err != nil {
			return err
		}
		defer db.Stop()
		go func() {
			<-db.Done()
			if err := db.Err(); err != nil {
				say(err.Error())
			}
		}()
		s = stack.Own(db, p.getenv)
	}
	variables := s.Variables()
	if *sample {
		key, err := p.makeSample(ctx, s, say)
		if err != nil {
			return err
		}
		variables = append(variables, stack.Variable{Name: "MARKETMETER_ORG", Value: transfer.SampleOrg}, stack.Variable{Name: "MARKETMETER_KEY", Value: string(key)})
	}
	environment := os.Environ()
	for _, v := range variables {
		environment = append(environment, v.Name+"="+v.Value)
	}
	stdout := p.stdout
	if out, ok := stdout.(*standardOutput); ok { // the file itself, which may be a terminal
		stdout = out.to
	}
	status, err := child.Run(flags.Args(), environment, p.stdin, stdout, p.stderr)
	if err != nil {
		fmt.Fprintf(p.stderr, "marketmeter with-dynamodb: %v\n", err)
	}
	return exitStatus(status)
}

// makeSample creates the table with the sample data if it does not exist, and a key for it.
func (p program) makeSample(ctx context.Context, s stack.Stack, say func(string)) (auth.Key, error) {
	if _, err := localdb.CreateTable(ctx, s.Client(stack.ForCommands), marketmeter.Template, s.Table); err != nil {
		return "", err
	}
	t := s.Open(stack.ForCommands)
	if err := transfer.LoadSample(ctx, t.Table, time.Now(), say); err != nil {
		return "", err
	}
	log := p.log()
	return localserver.AddDemoKey(ctx, t, log, "demo of with-dynamodb", day, time.Now()) // no command takes longer
}
