// Package cli runs a program of commands: it finds the command, prints its help, reads its flags,
// and makes a message and an exit status of its error. It knows nothing of what commands do.
package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// Program is a program with its environment. A command gets a copy and may replace the output.
type Program struct {
	Getenv         func(string) string
	Stdin          io.Reader
	Stdout, Stderr io.Writer

	Name    string            // with the commands around, as "marketmeter key"
	Help    fs.FS             // NAME.txt is the help of command NAME; a command of "key" is "key-NAME"
	Explain func(error) error // returns the error as the user reads it
}

// A Command of a program. Its Run returns nil for exit status 0, an ExitStatus if it has already
// reported everything, a UsageError for 2, and any other error for 1.
type Command struct {
	Name, Does string
	Run        func(ctx context.Context, p Program, args []string) error
}

// ExitStatus ends a command that has already reported the reason.
type ExitStatus int

func (s ExitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// UsageError reports an invalid command line.
type UsageError string

func (e UsageError) Error() string { return string(e) }

// brokenPipe is the exit status that a shell reports for a program that SIGPIPE has ended.
const brokenPipe = 128 + int(syscall.SIGPIPE)

// Run runs the command that args name and returns the exit status: 2 if they name none, 1 if the
// result could not be written to standard output. --version is the command version.
func (p Program) Run(ctx context.Context, commands []Command, args []string) int {
	out := &Output{to: p.Stdout}
	p.Stdout = out
	if len(args) > 0 && strings.TrimLeft(args[0], "-") == "version" {
		args = append([]string{"version"}, args[1:]...)
	}
	status := p.Dispatch(ctx, commands, args)
	if err := out.err(); err != nil && status == 0 {
		if errors.Is(err, syscall.EPIPE) { // the reader has closed the pipe while SIGPIPE was ignored
			return brokenPipe
		}
		fmt.Fprintf(p.Stderr, "%s: the result could not be written to standard output: %v\n", p.Name, err)
		return 1
	}
	return status
}

// Dispatch runs the command that args name. The help of the commands is followed by that of p.
func (p Program) Dispatch(ctx context.Context, commands []Command, args []string) int {
	usage := p.usage(commands)
	if len(args) == 0 {
		fmt.Fprint(p.Stderr, usage)
		return 2
	}
	if word := strings.TrimLeft(args[0], "-"); word == "help" || word == "h" {
		if len(args) == 1 || strings.TrimLeft(args[1], "-") == "help" {
			fmt.Fprint(p.Stdout, usage, p.help(p.Name))
			return 0
		}
		args = append([]string{args[1], "-h"}, args[2:]...) // help COMMAND is COMMAND -h
	}
	for _, c := range commands {
		if c.Name == args[0] {
			within := p
			within.Name += " " + c.Name
			return within.exit(c.Run(ctx, within, args[1:]))
		}
	}
	fmt.Fprintf(p.Stderr, "%s: there is no command %q\n\n%s", p.Name, args[0], usage)
	return 2
}

func (p Program) usage(commands []Command) string {
	var text strings.Builder
	fmt.Fprintf(&text, "usage: %s COMMAND ...\n\n", p.Name)
	for _, c := range commands {
		fmt.Fprintf(&text, "  %-14s %s\n", c.Name, c.Does)
	}
	fmt.Fprintf(&text, "\n`%s help COMMAND` explains a command.\n", p.Name)
	return text.String()
}

// help returns the help of a command; it is empty for the program itself.
func (p Program) help(name string) string {
	_, command, _ := strings.Cut(name, " ")
	text, err := fs.ReadFile(p.Help, strings.ReplaceAll(command, " ", "-")+".txt")
	if err != nil {
		return ""
	}
	return "\n" + string(text)
}

// exit prints the error of the command and returns the exit status.
func (p Program) exit(err error) int {
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if status, ok := errors.AsType[ExitStatus](err); ok {
		return int(status)
	}
	fmt.Fprintf(p.Stderr, "%s: %v\n", p.Name, p.Explain(err))
	if _, ok := errors.AsType[UsageError](err); ok {
		fmt.Fprintf(p.Stderr, "`%s -h` explains the command line\n", p.Name)
		return 2
	}
	return 1
}

// Flags returns the empty flags of the command.
func (p Program) Flags() *flag.FlagSet { return flag.NewFlagSet(p.Name, flag.ContinueOnError) }

// Parse reads the flags. For -h it prints the help and the flags to standard output, and returns
// flag.ErrHelp.
func (p Program) Parse(flags *flag.FlagSet, args []string) error {
	flags.SetOutput(io.Discard)
	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(p.Stdout, strings.TrimPrefix(p.help(p.Name), "\n"))
		flags.SetOutput(p.Stdout)
		flags.PrintDefaults()
		return err
	}
	if err != nil {
		return UsageError(err.Error())
	}
	return nil
}

// ParseAll is Parse for a command without arguments.
func (p Program) ParseAll(flags *flag.FlagSet, args []string) error {
	err := p.Parse(flags, args)
	if err == nil && flags.NArg() > 0 {
		err = UsageError(fmt.Sprintf("it takes no argument %q", flags.Arg(0)))
	}
	return err
}

// ParseFlags is ParseAll for a command that may get a secret as an argument by mistake: its error
// does not repeat it.
func (p Program) ParseFlags(flags *flag.FlagSet, args []string) error {
	err := p.Parse(flags, args)
	if err == nil && flags.NArg() > 0 {
		err = UsageError("it takes flags alone, as in --org ORG, and no arguments")
	}
	return err
}

// ParseMixed is Parse for flags with arguments before, between and after them, which it returns.
func (p Program) ParseMixed(flags *flag.FlagSet, args []string) (rest []string, err error) {
	for {
		if err := p.Parse(flags, args); err != nil {
			return nil, err
		}
		if flags.NArg() == 0 {
			return rest, nil
		}
		rest, args = append(rest, flags.Arg(0)), flags.Args()[1:]
	}
}

// Var defines a flag whose text parse reads.
func Var[T any](flags *flag.FlagSet, to *T, name, usage string, parse func(string) (T, error)) {
	flags.Func(name, usage, func(text string) (err error) {
		*to, err = parse(text)
		return err
	})
}

// Results returns standard output for a command that has changed something and must report it: if
// the reader has gone, Write returns an error, and SIGPIPE does not end the program.
func (p Program) Results() io.Writer {
	signal.Ignore(syscall.SIGPIPE)
	return p.Stdout
}

// Open opens a file to read it; "-" is standard input.
func (p Program) Open(name string) (io.ReadCloser, error) {
	if name == "-" {
		return io.NopCloser(p.Stdin), nil
	}
	return os.Open(name)
}
