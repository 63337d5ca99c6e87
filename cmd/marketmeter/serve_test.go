package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/marketmeter/marketmeter/internal/programtest"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

func TestServeKeepsItsDataThroughKillAndTerm(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const config = "/org/o1/usageMeteringConfigInfo"
	first := begin(t, dir, nil, "serve")
	url := first.ready(t)
	key := newKey(t, dir, nil, "--org", "o1", "--scope", "config") // in the table that the env file names
	status, stored := call(t, "PUT", url+config, key,
		`{"partnerUsageMeteringConfigs":[{"partner":"AWS","enableDimensionMapping":true}]}`)
	if status != http.StatusOK {
		t.Fatalf("PUT: %d %s", status, stored)
	}
	left := databaseOf(t, dir)
	first.signal(t, syscall.SIGKILL)
	first.status(t)

	second := begin(t, dir, nil, "serve")
	status, kept := call(t, "GET", second.ready(t)+config, key, "")
	if status != http.StatusOK || kept != stored {
		t.Errorf("after KILL and a new start: %d %s; want 200 %s", status, kept, stored)
	}
	if runs(left) {
		t.Errorf("the database of the killed program, process %d, still runs", left)
	}
	database := databaseOf(t, dir)
	second.signal(t, syscall.SIGTERM)
	if status := second.status(t); status != 0 {
		t.Errorf("after TERM the exit status is %d; want 0; standard error:\n%s", status, second.stderr)
	}
	if runs(database) {
		t.Errorf("after TERM the database, process %d, still runs", database)
	}
}

func TestServeTellsOfTheDeathOfItsDatabase(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := begin(t, dir, nil, "serve")
	url := p.ready(t)
	if status, answer := call(t, "GET", url+"/healthz", "", ""); status != http.StatusOK || !strings.HasPrefix(answer, `{"commit":"`) {
		t.Errorf("at first: %d %s; want 200 with the build", status, answer)
	}
	if err := syscall.Kill(databaseOf(t, dir), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "standard error tells of it", func() bool {
		return strings.Contains(p.stderr.String(), "DynamoDB Local has stopped (signal: killed)")
	})
	status, answer := call(t, "GET", url+"/healthz", "", "")
	if status != http.StatusServiceUnavailable || answer != notHealthy {
		t.Errorf("after it: %d %s; want 503 %s", status, answer, notHealthy)
	}
	eventually(t, "the log has the reason", func() bool {
		line := regexp.MustCompile(`"msg":"the health check failed",.*"error":"DynamoDB Local has stopped \(signal: killed\)`)
		return line.MatchString(p.stderr.String())
	})
	p.signal(t, os.Interrupt)
	if status := p.status(t); status != 0 {
		t.Errorf("after Ctrl-C the exit status is %d; want 0", status)
	}
}

func TestServeTellsWhoHasThePort(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	dir := t.TempDir()
	p := begin(t, dir, []string{"ADDR=" + listener.Addr().String()}, "serve")
	if status := p.status(t); status != 1 {
		t.Errorf("exit status %d; want 1", status)
	}
	want := fmt.Sprintf("marketmeter serve: another program serves at %s already (perhaps another `make run`): "+
		"stop that, or choose another address, as in ADDR=127.0.0.1:8081\n", listener.Addr())
	if got := p.stderr.String(); got != want {
		t.Errorf("standard error:\n%swant\n%s", got, want)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("it had begun with %v, %v; want nothing begun", left, err)
	}
}

func TestServeTellsWhoHasTheData(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data := filepath.Join(dir, ".local", "dynamodb")
	if err := os.MkdirAll(data, 0o755); err != nil {
		t.Fatal(err)
	}
	lock, err := os.Create(filepath.Join(data, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(lock, os.Getpid())
	p := begin(t, dir, nil, "serve")
	if status := p.status(t); status != 1 {
		t.Errorf("exit status %d; want 1", status)
	}
	if want := fmt.Sprintf("is in use by process %d (", os.Getpid()); !strings.Contains(p.stderr.String(), want) {
		t.Errorf("standard error:\n%swant %q in it", p.stderr, want)
	}
}

func TestServeTellsWhatIsMissing(t *testing.T) {
	t.Parallel()
	p := begin(t, t.TempDir(), []string{"PATH=/nowhere", "JAVA_HOME="}, "serve")
	if status := p.status(t); status != 1 {
		t.Errorf("exit status %d; want 1", status)
	}
	got := p.stderr.String()
	if !strings.Contains(got, "there is no java in JAVA_HOME or PATH, and there is no docker in PATH") || strings.Count(got, "\n") != 1 {
		t.Errorf("standard error:\n%swant one line that names both", got)
	}
}

// The client sends the second half of its request after TERM.
func TestServeFinishesRequestsUnderWay(t *testing.T) {
	t.Parallel()
	dir, variables := t.TempDir(), []string{endpoint(t), "TABLE_NAME=" + t.Name()}
	p := begin(t, dir, variables, "serve")
	url := p.ready(t)
	connection, body := halfARequest(t, url, newKey(t, dir, variables, "--org", "o1"))
	p.signal(t, syscall.SIGTERM)
	p.says(t, "Stopping")
	eventually(t, "no new connection is taken", func() bool {
		c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	fmt.Fprint(connection, body)
	answer, err := io.ReadAll(connection)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200 OK\r\n") {
		t.Errorf("the request under way was answered %q, %v; want 200", answer, err)
	}
	if status := p.status(t); status != 0 {
		t.Errorf("exit status %d; want 0", status)
	}
}

func TestSecondSignalEndsServeAtOnce(t *testing.T) {
	t.Parallel()
	dir, variables := t.TempDir(), []string{endpoint(t), "TABLE_NAME=" + t.Name()}
	p := begin(t, dir, variables, "serve")
	halfARequest(t, p.ready(t), newKey(t, dir, variables, "--org", "o1"))
	p.signal(t, os.Interrupt)
	p.says(t, "Stopping")
	p.signal(t, os.Interrupt)
	if status := p.status(t); status != -1 {
		t.Errorf("exit status %d; want none, a signal ended it", status)
	}
}

// halfARequest sends a validation of a batch up to the middle of its body, and returns the rest of
// the body.
func halfARequest(t *testing.T, url, key string) (connection net.Conn, rest string) {
	t.Helper()
	connection, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	const body = `[{"records":{"cpu":1}}]`
	fmt.Fprintf(connection, "POST /org/o1/batchValidateUsageRecordGroups HTTP/1.1\r\nHost: x\r\n"+
		"Authorization: Key %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"+
		"Expect: 100-continue\r\nConnection: close\r\n\r\n", key, len(body))
	// The interim response shows that the handler has begun to read.
	interim := make([]byte, len("HTTP/1.1 100 Continue\r\n\r\n"))
	if _, err := io.ReadFull(connection, interim); err != nil || !strings.Contains(string(interim), "100") {
		t.Fatalf("%q, %v; want to be told to continue", interim, err)
	}
	fmt.Fprint(connection, body[:10])
	return connection, body[10:]
}

func TestEnvFileIsReadByAShell(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := begin(t, dir, []string{endpoint(t), "TABLE_NAME=" + t.Name(), "AWS_SECRET_ACCESS_KEY=a'b $c", "AWS_ACCESS_KEY_ID=id"}, "serve")
	url := p.ready(t)
	shell := exec.Command("sh", "-c", `set -a; . .local/env; sh -c 'echo "$MARKETMETER_URL|$MARKETMETER_ORG|$MARKETMETER_KEY|`+
		`$DYNAMODB_ENDPOINT|$TABLE_NAME|$AWS_REGION|$AWS_ACCESS_KEY_ID|$AWS_SECRET_ACCESS_KEY"'`)
	shell.Dir = dir
	got, err := shell.Output()
	want := url + "|||" + os.Getenv("DYNAMODB_ENDPOINT") + "|" + t.Name() + "|us-east-1|id|a'b $c\n"
	if err != nil || string(got) != want {
		t.Errorf("a shell reads %q, %v\nwant %q", got, err, want)
	}
}

// The commands that serve prints work as pasted, on sample data whose load was killed and then
// repeated.
func TestServeInvitesToWhatWorks(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("curl"); err != nil {
		programtest.Skip(t, "there is no curl")
	}
	_, name := tabletest.Client(t)
	dir, variables := t.TempDir(), []string{endpoint(t), "TABLE_NAME=" + name}
	killed := begin(t, dir, variables, "serve", "--sample")
	killed.says(t, "Loading the sample data")
	killed.signal(t, syscall.SIGKILL)
	killed.status(t)

	p := begin(t, dir, variables, "serve", "--sample")
	p.ready(t)
	key := "mm_" + p.says(t, "  mm_")
	for range 6 {
		line := p.says(t, "  curl ")
		out, err := exec.Command("sh", "-c", "curl --silent --show-error --write-out '\n%{http_code}' "+line).CombinedOutput()
		if err != nil || !strings.HasSuffix(string(out), "\n200") {
			t.Errorf("curl %s\n%v: %s\nwant it answered 200", line, err, out)
		}
	}
	if log := p.stderr.String(); strings.Contains(log, key) || !strings.Contains(log, `"msg":"key changed"`) || !strings.Contains(log, `"what":"created"`) {
		t.Errorf("the log is\n%swant the making of the demo key in it, and not the key", log)
	}
	p.signal(t, syscall.SIGTERM)
	p.status(t)

	again := begin(t, dir, variables, "serve", "--sample")
	again.says(t, "The sample data is there: organization demo, 2500 groups")
	again.says(t, "Ready")
	if got := "mm_" + again.says(t, "  mm_"); got != key {
		t.Error("started again it has another demo key; want the one there was")
	}
	shell := exec.Command("sh", "-c", ". .local/env; echo $MARKETMETER_ORG $MARKETMETER_KEY")
	shell.Dir = dir
	if told, err := shell.Output(); err != nil || string(told) != "demo "+key+"\n" {
		t.Errorf("the env file tells %s, %v; want the demo key", told, err)
	}
	if file, err := os.Stat(filepath.Join(dir, ".local", "env")); err != nil || file.Mode().Perm() != 0o600 {
		t.Errorf("the env file is %v, %v; want it its owner's alone", file.Mode(), err)
	}
}

// notHealthy is all that a client without a key reads about a failure.
const notHealthy = `"marketmeter can't serve: the log has the reason"`

// A missing table is named in the log. A client without a key sees neither its name nor its
// address.
func TestServe_HealthOfAMissingTableSaysNoReason(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	name += "-made" // by the server
	server := begin(t, t.TempDir(), []string{endpoint(t), "TABLE_NAME=" + name}, "serve")
	url := server.ready(t)
	if _, err := client.DeleteTable(t.Context(), &dynamodb.DeleteTableInput{TableName: &name}); err != nil {
		t.Fatal(err)
	}
	if status, answer := call(t, "GET", url+"/healthz", "", ""); status != http.StatusServiceUnavailable || answer != notHealthy {
		t.Errorf("%d %s; want 503 %s", status, answer, notHealthy)
	}
	eventually(t, "the log has the reason", func() bool {
		return strings.Contains(server.stderr.String(), `"msg":"the health check failed"`) && strings.Contains(server.stderr.String(), "ResourceNotFound")
	})
}
