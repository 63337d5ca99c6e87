// Command marketmeter is the operator's program: it serves the whole API on this machine, imports
// and exports usage record groups, and manages the API's keys.
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

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/stack"
)

func main() {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		signal.Stop(signals) // before the shutdown begins: a second signal ends the program at once
		cancel()
	}()
	os.Exit(run(ctx, os.Args[1:], os.Getenv, os.Stdin, os.Stdout, os.Stderr))
}

// program is the environment of a command: variables, input and output.
type program struct {
	getenv         func(string) string
	stdin          io.Reader
	stdout, stderr io.Writer
}

// openTable opens the table that a command acts on, and prints which it is.
func (p program) openTable(ctx context.Context) (*stack.Target, error) {
	return stack.Open(ctx, p.getenv, p.stderr)
}

// A command of the program. Its run returns nil for exit status 0, an exitStatus if it has already
// reported everything, a usageError for 2, and any other error for 1.
type command struct {
	name, does string
	run        func(ctx context.Context, p program, args []string) error
}

var commands = []command{
	{"serve", "serve the whole API on this machine, on a DynamoDB Local", serve},
	{"import", "load usage record groups from a file", importGroups},
	{"export", "write the usage record groups of an organization to standard output", exportGroups},
	{"key", "make, list, rotate and revoke the API keys of an organization", keys},
	{"sandbox", "serve the AWS, Azure and Google marketplaces on this machine, for tests", serveSandbox},
	{"with-dynamodb", "run a command with a DynamoDB Local of its own", withDynamoDB},
	{"version", "print the version and the commit of this program", printVersion},
}

// brokenPipe is the exit status that a shell reports for a program that SIGPIPE has ended.
const brokenPipe = 128 + int(syscall.SIGPIPE)

// run runs the command that args name and returns the exit status: 2 if they name none, 1 if the
// result could not be written to standard output.
func run(ctx context.Context, args []string, getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) int {
	out := &standardOutput{to: stdout}
	if len(args) > 0 && strings.TrimLeft(args[0], "-") == "version" {
		args = append([]string{"version"}, args[1:]...)
	}
	status := program{getenv, stdin, out, stderr}.dispatch(ctx, "marketmeter", "", commands, args)
	if err := out.err(); err != nil && status == 0 {
		if errors.Is(err, syscall.EPIPE) { // the reader has closed the pipe while SIGPIPE was ignored
			return brokenPipe
		}
		fmt.Fprintf(stderr, "marketmeter: the result could not be written to standard output: %v\n", err)
		return 1
	}
	return status
}

// dispatch runs the command that args name. name is the program or the command that the commands
// belong to, and about is the rest of its help.
func (p program) dispatch(ctx context.Context, name, about string, commands []command, args []string) int {
	if len(args) == 0 {
		fmt.Fprint(p.stderr, usage(name, commands))
		return 2
	}
	if word := strings.TrimLeft(args[0], "-"); word == "help" || word == "h" {
		if len(args) == 1 || strings.TrimLeft(args[1], "-") == "help" {
			fmt.Fprint(p.stdout, usage(name, commands), about)
			return 0
		}
		args = append([]string{args[1], "-h"}, args[2:]...) // help COMMAND is COMMAND -h
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
	fmt.Fprintf(&text, "\n`%s help COMMAND` says more of one.\n", name)
	return text.String()
}

// exitStatus ends a command that has already reported the reason.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// usageError reports an invalid command line.
type usageError string

func (e usageError) Error() string { return string(e) }

func (p program) exit(name string, err error) int {
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if status, ok := errors.AsType[exitStatus](err); ok {
		return int(status)
	}
	if uncertain, ok := errors.AsType[*auth.UncertainError](err); ok {
		err = stack.FollowedBy(err, fmt.Sprintf("; should `marketmeter key list` show a key %s, revoke it: nobody has it", uncertain.KeyID))
	}
	if access, ok := errors.AsType[*stack.AccessError](err); ok {
		err = errors.New(access.Sentence)
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
