package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/marketmeter/marketmeter"
	"github.com/marketmeter/marketmeter/internal/localdb"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// patience bounds every wait for another process.
const patience = 90 * time.Second

// The test binary is the program too, if it is run under its name.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"marketmeter": main})
}

// TestScripts runs the files of testdata/script as shell sessions. Each has a table of its own, at
// the DynamoDB Local of the test run, as $TABLE_NAME. testdata/script/README.md lists the commands
// beside those of testscript.
func TestScripts(t *testing.T) {
	t.Parallel()
	client, _ := tabletest.Client(t)
	jars, err := filepath.Abs("../../.local")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Vars = append(e.Vars,
				"DYNAMODB_ENDPOINT="+os.Getenv("DYNAMODB_ENDPOINT"), "TABLE_NAME=test-"+rand.Text(),
				"LOCAL_JARS="+jars, "ADDR=127.0.0.1:0", "JAVA_HOME="+os.Getenv("JAVA_HOME"), "CI="+os.Getenv("CI"),
				"in90days="+hourAfter(90*24*time.Hour), "in24hours="+hourAfter(24*time.Hour))
			e.Values[refusedRequests{}] = new(atomic.Int64)
			return makeTable(t.Context(), e, client, e.Getenv("TABLE_NAME"))
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"fails": fails, "match": match, "until": until, "every": every, "dynamodb": dynamoDB, "restore": restore, "refuse": refuse, "listen": listen,
		},
		RequireUniqueNames: true,
	})
}

// hourAfter returns a pattern of the hour, as lists show it, at the end of a span that begins now
// or in the next minutes.
func hourAfter(span time.Duration) string {
	const hour = "2006-01-02T15"
	end := time.Now().UTC().Add(span)
	return "(" + end.Format(hour) + "|" + end.Add(10*time.Minute).Format(hour) + ")"
}

type deferrer interface{ Defer(func()) }

func makeTable(ctx context.Context, d deferrer, client *dynamodb.Client, name string) error {
	d.Defer(func() { // a script may have deleted it
		_, _ = client.DeleteTable(context.WithoutCancel(ctx), &dynamodb.DeleteTableInput{TableName: &name})
	})
	_, err := localdb.CreateTable(ctx, client, marketmeter.Template, name)
	return err
}

// fails STATUS TEXT PROGRAM [ARG...]: the program ends with the status and writes TEXT to standard
// error, nothing to standard output, and a key to neither.
func fails(ts *testscript.TestScript, _ bool, args []string) {
	status, text := args[0], args[1]
	err := ts.Exec(args[2], args[3:]...)
	failed, _ := errors.AsType[*exec.ExitError](err)
	if failed == nil || fmt.Sprint(failed.ExitCode()) != status {
		ts.Fatalf("%v; want exit status %s", err, status)
	}
	stdout, stderr := ts.ReadFile("stdout"), ts.ReadFile("stderr")
	if stdout != "" || !strings.Contains(stderr, text) || aKey.MatchString(stderr) {
		ts.Fatalf("want nothing on standard output, no key, and on standard error: %s", text)
	}
}

// aKey matches most of a key.
var aKey = regexp.MustCompile(`mm_[0-9A-Za-z_-]{17}`)

// match NAME PATTERN [FILE]: sets $NAME to the first group of the pattern in standard output.
func match(ts *testscript.TestScript, _ bool, args []string) {
	found := regexp.MustCompile(`(?m)` + args[1]).FindStringSubmatch(ts.ReadFile(append(args, "stdout")[2]))
	if found == nil {
		ts.Fatalf("no match for %s", args[1])
	}
	ts.Setenv(args[0], found[1])
}

// until PATTERN PROGRAM [ARG...]: runs the program again and again until its output matches.
func until(ts *testscript.TestScript, _ bool, args []string) {
	pattern := regexp.MustCompile(`(?m)` + args[0])
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(patience); ; {
		command := exec.Command(args[1], args[2:]...) // not ts.Exec, which logs each attempt
		command.Dir = ts.MkAbs(".")
		output, _ := command.CombinedOutput()
		if pattern.Match(output) {
			return
		}
		select {
		case <-tick.C:
		case <-limit:
			ts.Fatalf("not within %s: %s\n%s", patience, args[0], output)
		}
	}
}

// everyCommand lists each command that uses a table, as a line of a shell.
var everyCommand = []string{
	`echo '` + aGroup + `,"serialID":3}' | marketmeter import --org o1 -`,
	`echo '` + aGroup + "}\n" + aGroup + `}' | marketmeter import --org o1 -`,
	"marketmeter export --org o1",
	"marketmeter export --org o1 --format csv",
	"marketmeter key create --org o1",
	"marketmeter key list --org o1",
	"marketmeter key rotate --org o1 abcdef0123456789",
	"marketmeter key revoke --org o1 abcdef0123456789",
	"marketmeter report status",
	"marketmeter report run",
	"marketmeter report resolve --org o1 6f1c3b1e-0000-5000-8000-000000000000 requests billed",
	"marketmeter report enqueue --org o1",
	"marketmeter report pause",
	"marketmeter report resume",
	"marketmeter serve",
	"marketmeter with-dynamodb --sample true",
}

const aGroup = `{"id":"g1","buyerID":"b","entitlementID":"e","partner":"AWS","status":"CREATED","creationTime":"2026-03-01T12:00:00Z"`

// every TEXT [COMMAND...]: each command that uses a table (or only these) fails with exit status 1
// and TEXT on standard error. It does not say to try again, and does not do so itself. They run at
// the same time, because some wait for the retries of the SDK.
func every(ts *testscript.TestScript, _ bool, args []string) {
	var lines []string
	script := ""
	for _, line := range everyCommand {
		_, command, _ := strings.Cut(line, "marketmeter ")
		if len(args) == 1 || slices.Contains(args[1:], strings.Fields(command)[0]) {
			script += fmt.Sprintf("{ { %s; } >out.%d 2>err.%[2]d; echo $? >status.%[2]d; } &\n", line, len(lines))
			lines = append(lines, command)
		}
	}
	refused := ts.Value(refusedRequests{}).(*atomic.Int64)
	refused.Store(0)
	ts.Check(ts.Exec("sh", "-c", script+"wait"))
	for i, line := range lines {
		status, stderr := ts.ReadFile(fmt.Sprint("status.", i)), ts.ReadFile(fmt.Sprint("err.", i))
		if status != "1\n" || !strings.Contains(stderr, args[0]) || strings.Contains(stderr, "try again") {
			ts.Fatalf("%s: exit status %s%swant 1, and to read: %s", line, status, stderr, args[0])
		}
	}
	if n, most := refused.Load(), 7*len(lines); int(n) > most { // two lines of an import have 6 attempts of the SDK each
		ts.Fatalf("%d requests; want at most %d, without a second try", n, most)
	}
}

// refusedRequests is the key of the count of the requests that refuse has refused.
type refusedRequests struct{}

// dynamoDB OPERATION [JSON]: sends the request to DynamoDB, with $TABLE_NAME as its TableName. The
// response is standard output.
func dynamoDB(ts *testscript.TestScript, _ bool, args []string) {
	input := map[string]any{"TableName": ts.Getenv("TABLE_NAME")}
	if len(args) > 1 {
		ts.Check(json.Unmarshal([]byte(args[1]), &input))
	}
	_, err := ts.Stdout().Write(request(ts, args[0], input))
	ts.Check(err)
}

func request(ts *testscript.TestScript, operation string, input any) []byte {
	body, err := json.Marshal(input)
	ts.Check(err)
	r, err := http.NewRequest(http.MethodPost, ts.Getenv("DYNAMODB_ENDPOINT"), bytes.NewReader(body))
	ts.Check(err)
	r.Header.Set("Content-Type", "application/x-amz-json-1.0")
	r.Header.Set("X-Amz-Target", "DynamoDB_20120810."+operation)
	// DynamoDB Local checks no signature, but reads the header.
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=local/20260101/"+localdb.Region+"/dynamodb/aws4_request, SignedHeaders=host, Signature=0")
	response, err := http.DefaultClient.Do(r)
	ts.Check(err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	ts.Check(err)
	if response.StatusCode != http.StatusOK {
		ts.Fatalf("%s: %s", operation, text)
	}
	return text
}

// restore FILE: puts the items of a Scan into a new table, which is $TABLE_NAME from then on.
func restore(ts *testscript.TestScript, _ bool, args []string) {
	name := ts.Getenv("TABLE_NAME") + "-restored"
	ts.Check(makeTable(context.Background(), ts, tabletest.NewClient(http.DefaultTransport), name))
	ts.Setenv("TABLE_NAME", name)
	var scanned struct{ Items []any }
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &scanned))
	for _, item := range scanned.Items {
		request(ts, "PutItem", map[string]any{"TableName": name, "Item": item})
	}
}

// refuse CODE MESSAGE: $DYNAMODB_ENDPOINT refuses each request as AWS does.
func refuse(ts *testscript.TestScript, _ bool, args []string) {
	body, err := json.Marshal(map[string]string{"__type": args[0], "message": args[1]})
	ts.Check(err)
	requests := ts.Value(refusedRequests{}).(*atomic.Int64)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		requests.Add(1)
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		w.Header().Set("X-Amz-Crc32", fmt.Sprint(crc32.ChecksumIEEE(body)))
		w.Header().Set("X-Amzn-Requestid", "6O0D5B3K1Q5N6JEXAMPLE")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write(body)
	}))
	ts.Defer(server.Close)
	ts.Setenv("DYNAMODB_ENDPOINT", server.URL)
}

// listen KIND: sets $listening to the URL of a server that accepts connections and is silent, that
// has a certificate of no authority (untrusted), or that serves nothing (other).
func listen(ts *testscript.TestScript, _ bool, args []string) {
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	switch args[0] {
	case "silent":
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		ts.Check(err)
		ts.Defer(func() { listener.Close() })
		ts.Setenv("listening", "http://"+listener.Addr().String())
		return
	case "untrusted":
		server.StartTLS()
	default:
		server.Start()
	}
	ts.Defer(server.Close)
	ts.Setenv("listening", server.URL)
}
