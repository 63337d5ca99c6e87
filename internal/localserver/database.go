package localserver

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/marketmeter/marketmeter"
	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/child"
	"github.com/marketmeter/marketmeter/internal/localdb"
	"github.com/marketmeter/marketmeter/internal/stack"
	"github.com/marketmeter/marketmeter/internal/transfer"
)

// DatabaseOptions configure a command that runs with a database.
type DatabaseOptions struct {
	Sample     bool // make the table, load the sample data and make a key for it first
	Containers bool // let the containers of this machine's Docker reach the database too

	Getenv         func(string) string // as in Options
	Stdin          io.Reader           // of the command,
	Stdout, Stderr io.Writer           // and its output; Stderr gets each step too
	Log            *slog.Logger
}

// WithDatabase runs the command with the DynamoDB that DYNAMODB_ENDPOINT names. If it names none,
// it starts a DynamoDB Local in memory, which outlives the command. It returns the exit status: the
// command's or, with an error, that of a command that can't be run.
func WithDatabase(ctx context.Context, o DatabaseOptions, command []string) (status int, err error) {
	say := func(text string) { fmt.Fprintln(o.Stderr, text) }
	var s stack.Stack
	if endpoint := o.Getenv("DYNAMODB_ENDPOINT"); endpoint != "" {
		s = stack.At(endpoint, o.Getenv)
	} else {
		db, err := localdb.Start(ctx, localdb.Options{Jars: stack.JarsDir(o.Getenv), Containers: o.Containers, Say: say})
		if err != nil {
			return 1, err
		}
		defer db.Stop()
		go func() {
			<-db.Done()
			if err := db.Err(); err != nil {
				say(err.Error())
			}
		}()
		s = stack.Own(db, o.Getenv)
	}
	variables := s.Variables()
	if o.Sample {
		key, err := makeSample(ctx, o, s, say)
		if err != nil {
			return 1, err
		}
		variables = append(variables, stack.Variable{Name: "MARKETMETER_ORG", Value: transfer.SampleOrg}, stack.Variable{Name: "MARKETMETER_KEY", Value: string(key)})
	}
	environment := os.Environ()
	for _, v := range variables {
		environment = append(environment, v.Name+"="+v.Value)
	}
	return child.Run(command, environment, o.Stdin, o.Stdout, o.Stderr)
}

// makeSample creates the table with the sample data if it does not exist, and a key for it.
func makeSample(ctx context.Context, o DatabaseOptions, s stack.Stack, say func(string)) (auth.Key, error) {
	deadlines, err := stack.DeadlinesFor(o.Getenv)
	if err != nil {
		return "", err
	}
	if _, err := localdb.CreateTable(ctx, s.Client(deadlines), marketmeter.Template, s.Table); err != nil {
		return "", err
	}
	t := s.Open(deadlines)
	if err := transfer.LoadSample(ctx, t.Table, transfer.SampleOptions{Now: time.Now(), SandboxURL: o.Getenv("SANDBOX_URL"), Say: say}); err != nil {
		return "", err
	}
	return addDemoKey(ctx, t, o.Log, "demo of with-dynamodb", 24*time.Hour, time.Now()) // no command takes longer
}
