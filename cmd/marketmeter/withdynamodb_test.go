package main

import (
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/apikey"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
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
	if status := p.status(t); status != 7 { // read meets the end of standard input
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
	key, err := apikey.Parse(text)
	if err != nil {
		t.Fatalf("MARKETMETER_KEY: %v", err)
	}
	record, err := table.New(client, name).APIKey(t.Context(), key.Hash())
	if err != nil || org != "demo" || record.Organization != "demo" || !record.Scopes.Allow(apikey.Admin) ||
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
		var stdout, stderr output
		status := run(t.Context(), test.args, os.Getenv, strings.NewReader(""), &stdout, &stderr)
		if status != test.status || !strings.Contains(stdout.String(), test.stdout) || !strings.Contains(stderr.String(), test.stderr) {
			t.Errorf("%q: exit status %d\nstandard output: %s\nstandard error: %s", test.args, status, &stdout, &stderr)
		}
	}
}
