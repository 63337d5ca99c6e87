// Command marketmeter is the operator's program: it serves the whole API on this machine, moves
// usage record groups into a table and out of one, and keeps the API's keys.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

func main() {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		signal.Stop(signals) // before anything is told to stop: a second signal ends the program at once
		cancel()
	}()
	os.Exit(run(ctx, os.Args[1:], os.Getenv, os.Stdin, os.Stdout, os.Stderr))
}

// program is what a command sees of the world outside.
type program struct {
	getenv         func(string) string
	stdin          io.Reader
	stdout, stderr io.Writer
}

// A command of the program. Its run returns nil for exit status 0, an exitStatus where it has told
// all there is to tell, a usageError for 2, and any other error for 1.
type command struct {
	name, does string
	run        func(ctx context.Context, p program, args []string) error
}

var commands = []command{
	{"serve", "serve the whole API on this machine, on a DynamoDB Local", serve},
	{"import", "load usage record groups from a file", importGroups},
	{"export", "write the usage record groups of an organization to standard output", exportGroups},
	{"key", "make, list, rotate and revoke the API keys of an organization", keys},
	{"with-dynamodb", "run a command with a DynamoDB Local of its own", withDynamoDB},
}

// run runs the command that args name and returns the exit status: 2 where they name none.
func run(ctx context.Context, args []string, getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) int {
	return program{getenv, stdin, stdout, stderr}.dispatch(ctx, "marketmeter", "", commands, args)
}

// dispatch runs that one of the commands that args name. What these are commands of is called name,
// and about is the rest of its help.
func (p program) dispatch(ctx context.Context, name, about string, commands []command, args []string) int {
	if len(args) == 0 {
		fmt.Fprint(p.stderr, usage(name, commands))
		return 2
	}
	if word := strings.TrimLeft(args[0], "-"); word == "help" || word == "h" {
		fmt.Fprint(p.stdout, usage(name, commands), about)
		return 0
	}
	for _, c := range commands {
		if c.name == args[0] {
			return p.exit(name+" "+c.name, c.run(ctx, p, args[1:]))
		}
	}
	fmt.Fprintf(p.stderr, "%s: there is no command %q\n\n%s", name, args[0], usage(name, commands))
	return 2
}

func usage(name string, commands []command) string {
	var text strings.Builder
	fmt.Fprintf(&text, "usage: %s COMMAND ...\n\n", name)
	for _, c := range commands {
		fmt.Fprintf(&text, "  %-14s %s\n", c.name, c.does)
	}
	fmt.Fprintf(&text, "\n`%s COMMAND -h` tells more of one.\n", name)
	return text.String()
}

// exitStatus is the end of a command that has said why itself.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// usageError is a command line that can't be meant.
type usageError string

func (e usageError) Error() string { return string(e) }

func (p program) exit(name string, err error) int {
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if status, ok := errors.AsType[exitStatus](err); ok {
		return int(status)
	}
	fmt.Fprintf(p.stderr, "%s: %v\n", name, err)
	if _, ok := errors.AsType[usageError](err); ok {
		fmt.Fprintf(p.stderr, "`%s -h` tells what it takes\n", name)
		return 2
	}
	return 1
}

// parse reads a command's flags. For -h it prints the text and the flags to standard output, and
// returns flag.ErrHelp.
func (p program) parse(flags *flag.FlagSet, text string, args []string) error {
	flags.SetOutput(io.Discard)
	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(p.stdout, strings.TrimLeft(text, "\n"))
		flags.SetOutput(p.stdout)
		flags.PrintDefaults()
		return err
	}
	if err != nil {
		return usageError(err.Error())
	}
	return nil
}
