package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"

	"github.com/marketmeter/marketmeter/internal/programtest"
)

func TestWithDynamoDBLivesAsLongAsTheCommand(t *testing.T) {
	t.Parallel()
	p := begin(t, t.TempDir(), []string{"AWS_ACCESS_KEY_ID=not/local", "AWS_SECRET_ACCESS_KEY=x"}, "with-dynamodb", "--", "sh", "-c",
		`echo "at $DYNAMODB_ENDPOINT $TABLE_NAME $AWS_REGION $AWS_ACCESS_KEY_ID $AWS_SECRET_ACCESS_KEY"; read line; exit 7`)
	rest := p.says(t, "at http://")
	address, others, _ := strings.Cut(rest, " ")
	if others != "marketmeter us-east-1 local local" {
		t.Errorf("the environment has %q", others)
	}
	if status := p.status(t); status != 7 { // read reaches the end of standard input
		t.Errorf("exit status %d; want the command's, 7", status)
	}
	if c, err := net.Dial("tcp", address); err == nil {
		c.Close()
		t.Errorf("the database at %s outlives the command", address)
	}
}

func TestWithDynamoDBUsesTheOneThereIs(t *testing.T) {
	t.Parallel()
	p := begin(t, t.TempDir(), []string{"DYNAMODB_ENDPOINT=http://127.0.0.1:1", "AWS_REGION=eu-west-1", "TABLE_NAME=mine"},
		"with-dynamodb", "sh", "-c", `echo "at $DYNAMODB_ENDPOINT $TABLE_NAME $AWS_REGION"`)
	if got := p.says(t, "at "); got != "http://127.0.0.1:1 mine eu-west-1" {
		t.Errorf("the environment has %q", got)
	}
	if status := p.status(t); status != 0 {
		t.Errorf("exit status %d; want 0", status)
	}
}

func TestWithDynamoDBGivesTheCommandAKey(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	p := begin(t, t.TempDir(), []string{endpoint(t), "TABLE_NAME=" + name, "MARKETMETER_KEY=another"},
		"with-dynamodb", "--sample", "--", "sh", "-c", `echo "as $MARKETMETER_ORG $MARKETMETER_KEY"`)
	org, text, _ := strings.Cut(p.says(t, "as "), " ")
	key, err := auth.Parse(text)
	if err != nil {
		t.Fatalf("MARKETMETER_KEY: %v", err)
	}
	record, err := table.New(client, name).APIKey(t.Context(), key.Hash())
	if err != nil || org != "demo" || record.Organization != "demo" || !record.Scopes.Allow(auth.Admin) ||
		record.ExpiryTime.Sub(record.CreationTime) != 24*time.Hour {
		t.Errorf("of %s it has the key of %+v, %v", org, record, err)
	}
	if status := p.status(t); status != 0 || strings.Contains(p.stderr.String(), text) {
		t.Errorf("exit status %d; standard error:\n%s\nwant 0, and no key there", status, p.stderr)
	}
}

func TestWithDynamoDBPassesSignalsOn(t *testing.T) {
	t.Parallel()
	p := begin(t, t.TempDir(), []string{"DYNAMODB_ENDPOINT=http://127.0.0.1:1"}, "with-dynamodb", "--", "sh", "-c",
		`trap 'echo got TERM; exit 3' TERM; echo started; while :; do read line || sleep 0.1; done`)
	p.says(t, "started")
	p.signal(t, syscall.SIGTERM)
	p.says(t, "got TERM")
	if status := p.status(t); status != 3 {
		t.Errorf("exit status %d; want the command's, 3", status)
	}
}

func TestWithDynamoDBTellsHowTheCommandEnded(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		command []string
		want    int
	}{
		{[]string{"sh", "-c", "kill -9 $$"}, 128 + 9},
		{[]string{"/nowhere/program"}, 127},
		{nil, 2},
	} {
		p := begin(t, t.TempDir(), []string{"DYNAMODB_ENDPOINT=http://127.0.0.1:1"}, append([]string{"with-dynamodb"}, test.command...)...)
		if status := p.status(t); status != test.want {
			t.Errorf("%q: exit status %d; want %d; standard error:\n%s", test.command, status, test.want, p.stderr)
		}
	}
}

// The statuses are those of a shell and of env(1): 126 if the file exists and can't be executed.
func TestWithDynamoDB_StatusOfWhatCannotRun(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	file("in-path", "#!/bin/sh\n", 0o644)
	for _, test := range []struct {
		command string
		want    int
	}{
		{file("not-executable", "#!/bin/sh\n", 0o644), 126},
		{dir, 126},
		{dir + "/", 126},
		{"in-path", 126},
		{file("no-format", "\x00\x01", 0o755), 126},
		{file("no-interpreter", "#!/nowhere/sh\n", 0o755), 126},
		{dir + "/not-executable/below", 127},
		{dir + "/none", 127},
		{"no-command-of-this-name", 127},
		{"", 127},
	} {
		p := begin(t, dir, []string{"DYNAMODB_ENDPOINT=http://127.0.0.1:1", "PATH=" + os.Getenv("PATH") + ":" + dir}, "with-dynamodb", "--", test.command)
		if status := p.status(t); status != test.want || !strings.Contains(p.stderr.String(), "marketmeter with-dynamodb: ") {
			t.Errorf("%q: exit status %d; want %d; standard error:\n%s", test.command, status, test.want, p.stderr)
		}
	}
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGKILL, syscall.SIGSEGV, syscall.SIGPIPE} {
		p := begin(t, dir, []string{"DYNAMODB_ENDPOINT=http://127.0.0.1:1"}, "with-dynamodb", "--", "sh", "-c", fmt.Sprintf("kill -%d $$", signal))
		if status := p.status(t); status != 128+int(signal) {
			t.Errorf("%v: exit status %d", signal, status)
		}
	}
}

func TestRunNamesTheCommands(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args           []string
		status         int
		stdout, stderr string
	}{
		{nil, 2, "", "usage: marketmeter COMMAND"},
		{[]string{"help"}, 0, "usage: marketmeter COMMAND", ""},
		{[]string{"server"}, 2, "", `there is no command "server"`},
		{[]string{"serve", "-h"}, 0, "DYNAMODB_ENDPOINT", ""},
		{[]string{"serve", "--fast"}, 2, "", "not defined: -fast"},
		{[]string{"serve", "now"}, 2, "", `no argument "now"`},
		{[]string{"key"}, 2, "", "usage: marketmeter key COMMAND"},
		{[]string{"key", "-h"}, 0, "Only a key's hash", ""},
		{[]string{"key", "make"}, 2, "", `marketmeter key: there is no command "make"`},
	} {
		var stdout, stderr programtest.Output
		status := run(t.Context(), test.args, os.Getenv, strings.NewReader(""), &stdout, &stderr)
		if status != test.status || !strings.Contains(stdout.String(), test.stdout) || !strings.Contains(stderr.String(), test.stderr) {
			t.Errorf("%q: exit status %d\nstandard output: %s\nstandard error: %s", test.args, status, &stdout, &stderr)
		}
	}
}
