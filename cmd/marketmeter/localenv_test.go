package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestEnvFileKeepsEveryValue(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "new", "env")
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.MapOf(rapid.StringMatching(`[A-Z_]{1,8}`), rapid.StringMatching(`[^\n\x00]*`)).Draw(t, "variables")
		var variables []variable
		for name, value := range want {
			variables = append(variables, variable{name, value})
		}
		if err := writeEnv(file, variables); err != nil {
			t.Fatal(err)
		}
		got, err := readEnv(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
	if left, err := os.ReadDir(filepath.Dir(file)); err != nil || len(left) != 1 {
		t.Errorf("beside the file: %v, %v", left, err)
	}
}

func TestOpenTableChoosesTheStack(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	running := t.TempDir()
	stopped := t.TempDir()
	for dir, endpoint := range map[string]string{running: "http://" + listener.Addr().String(), stopped: "http://127.0.0.1:1"} {
		if err := writeEnv(filepath.Join(dir, "env"), stack{endpoint: endpoint, table: "local"}.variables()); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		name        string
		environment map[string]string
		want        string // in the error or, where there is none, on standard error
	}{
		{"the environment's DynamoDB", map[string]string{"TABLE_NAME": "t", "DYNAMODB_ENDPOINT": "http://127.0.0.1:1", "LOCAL_DIR": running}, "table t at http://127.0.0.1:1, from DYNAMODB_ENDPOINT"},
		{"the environment's DynamoDB, its table by default", map[string]string{"DYNAMODB_ENDPOINT": "http://127.0.0.1:1", "LOCAL_DIR": running}, "table marketmeter at http://127.0.0.1:1, from DYNAMODB_ENDPOINT"},
		{"the local stack", map[string]string{"LOCAL_DIR": running}, "table local at http://" + listener.Addr().String()},
		{"a local stack that has stopped", map[string]string{"LOCAL_DIR": stopped}, "does not run"},
		{"none", map[string]string{"LOCAL_DIR": t.TempDir()}, "Set TABLE_NAME"},
	} {
		var stderr output
		p := program{getenv: func(name string) string { return test.environment[name] }, stderr: &stderr}
		tbl, err := openTable(t.Context(), p)
		said := stderr.String()
		if err != nil {
			said = err.Error()
		}
		if (tbl == nil) != (err != nil) || !strings.Contains(said, test.want) {
			t.Errorf("%s: table %v, error %v, said %q; want %q", test.name, tbl != nil, err, stderr.String(), test.want)
		}
	}
}

func TestOpenTableInAWSNeedsARegion(t *testing.T) {
	for name, value := range map[string]string{
		"AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull, "AWS_PROFILE": "",
		"AWS_DEFAULT_REGION": "", "AWS_REGION": "", "DYNAMODB_ENDPOINT": "", "TABLE_NAME": "mine",
	} {
		t.Setenv(name, value)
	}
	var stderr output
	p := program{getenv: os.Getenv, stderr: &stderr}
	if _, err := openTable(t.Context(), p); err == nil || !strings.Contains(err.Error(), "Set AWS_REGION") {
		t.Errorf("without a region: %v; want to be told to set it", err)
	}
	t.Setenv("AWS_REGION", "eu-central-1")
	if _, err := openTable(t.Context(), p); err != nil || stderr.String() != "table mine in AWS region eu-central-1\n" {
		t.Errorf("with a region: %v, said %q", err, &stderr)
	}
}
