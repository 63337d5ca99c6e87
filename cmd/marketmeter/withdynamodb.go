package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/marketmeter/marketmeter"
	"github.com/marketmeter/marketmeter/internal/auth"
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
	return p.runChild(flags.Args(), variables)
}

// makeSample makes the table with the sample data where it is not there, and a key for it.
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

// runChild runs the command with the variables added to this program's own, passes SIGINT
// and SIGTERM on to it, and returns its exit status as an exitStatus: 128 and the signal where one
// ended it, as a shell would.
//
// With a terminal the command stays in its process group, or else it could not read from it; there
// Ctrl-C has reached it by itself. Without one it gets a group of its own, which a signal
// reaches as a whole, so that what `go test` has started ends too.
func (p program) runChild(args []string, variables []stack.Variable) error {
	child := exec.Command(args[0], args[1:]...)
	child.Stdin, child.Stdout, child.Stderr = p.stdin, p.stdout, p.stderr
	if out, ok := p.stdout.(*standardOutput); ok { // the file itself, which may be a terminal
		child.Stdout = out.to
	}
	child.Env = os.Environ()
	for _, v := range variables {
		child.Env = append(child.Env, v.Name+"="+v.Value)
	}
	terminal := hasTerminal()
	child.SysProcAttr = &syscall.SysProcAttr{Setpgid: !terminal}

	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	if err := child.Start(); err != nil {
		fmt.Fprintf(p.stderr, "marketmeter with-dynamodb: %v\n", err)
		if exists(args[0]) {
			return exitStatus(126)
		}
		return exitStatus(127)
	}
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	for {
		select {
		case s := <-signals:
			if !terminal {
				_ = syscall.Kill(-child.Process.Pid, s.(syscall.Signal))
			} else if s != os.Interrupt {
				_ = child.Process.Signal(s)
			}
		case err := <-ended:
			return childStatus(err)
		}
	}
}

// exists reports whether there is a file that the command's name means, in the folders of PATH if it is a
// name alone: a shell exits with 126 then, and with 127 if there is none.
func exists(command string) bool {
	if strings.Contains(command, "/") {
		_, err := os.Stat(command)
		return err == nil || errors.Is(err, os.ErrPermission)
	}
	return command != "" && slices.ContainsFunc(filepath.SplitList(os.Getenv("PATH")), func(dir string) bool {
		found, err := os.Stat(filepath.Join(dir, command))
		return err == nil && !found.IsDir()
	})
}

func hasTerminal() bool {
	terminal, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	return terminal.Close() == nil
}

func childStatus(err error) error {
	failed, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return err
	}
	if how, ok := failed.Sys().(syscall.WaitStatus); ok && how.Signaled() {
		return exitStatus(128 + int(how.Signal()))
	}
	return exitStatus(failed.ExitCode())
}
