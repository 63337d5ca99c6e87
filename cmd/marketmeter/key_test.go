package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/google/go-cmp/cmp"

	"github.com/marketmeter/marketmeter"
	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/programtest"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// The life of a key, as the operator and the client see it. The key is never in the table, nor in
// any output except the last line of standard output.
func TestLifeOfAKey(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	dir, variables := t.TempDir(), []string{endpoint(t), "TABLE_NAME=" + name}
	server := begin(t, dir, variables, "serve")
	config := server.ready(t) + "/org/o1/usageMeteringConfigInfo"
	op := &operatorAt{t: t, dir: dir, variables: variables}

	first := op.makes("create", "--org", "o1", "--scope", "read,config", "--label", `the "ci" key`)
	wantStatus(t, "a new key", config, first, http.StatusOK)
	listed := op.runs("list", "--org", "o1")
	for _, want := range []string{id(first), `the "ci" key`, "read,config", "active"} {
		if !strings.Contains(listed, want) {
			t.Errorf("listed is\n%s\nwant %q in it", listed, want)
		}
	}
	records, err := table.New(client, name).APIKeys(t.Context(), "o1")
	if err != nil || len(records) != 1 {
		t.Fatal(records, err)
	}
	if used := records[0].LastUsedTime; used.IsZero() || !strings.Contains(listed, used.Format("  2006-01-02T15:00Z  ")) {
		t.Errorf("used at %s; listed is\n%s\nwant that hour in it", used, listed)
	}
	if lives := records[0].ExpiryTime.Sub(records[0].CreationTime); lives != 90*24*time.Hour {
		t.Errorf("it lives for %s; want 90 days", lives)
	}

	second := op.makes("rotate", id(first)[:8], "--org", "o1")
	wantStatus(t, "the key in place of it", config, second, http.StatusOK)
	wantStatus(t, "the old key, for a day", config, first, http.StatusOK)
	if status, stdout, stderr := onTable(t, name, "", "key", "rotate", "--org", "o1", first); status != 1 || stdout != "" ||
		!strings.Contains(stderr, "was rotated before, to the key "+id(second)) {
		t.Errorf("rotated again: exit status %d\n%s%s", status, stdout, stderr)
	}
	third := op.makes("rotate", "--org", "o1", "--keep", "1s", "--expires", "never", second) // named by the key itself
	wantStatus(t, "the key in place of that", config, third, http.StatusOK)
	eventually(t, "the second key ends", func() bool {
		status, answer := call(t, "GET", config, second, "")
		return status == http.StatusUnauthorized && strings.Contains(answer, "expired at")
	})

	op.runs("revoke", "--org", "o1", third)
	wantStatus(t, "a revoked key", config, third, http.StatusUnauthorized)
	wantStatus(t, "the first key then", config, first, http.StatusOK)
	if again := op.runs("revoke", id(third), "--org", "o1"); !strings.Contains(again, "was revoked before, at 2") {
		t.Errorf("revoked again it says %q", again)
	}
	listed = op.runs("list", "--org", "o1")
	rotated := map[string]string{first: ", rotated to " + id(second), second: ", rotated to " + id(third)}
	for key, state := range map[string]string{first: "active", second: "expired", third: "revoked"} {
		if !regexp.MustCompile(`(?m)^` + id(key) + ` .*  ` + state + `( \S+ by \S+)?` + rotated[key] + `$`).MatchString(listed) {
			t.Errorf("listed is\n%s\nwant %s to be %s", listed, id(key), state)
		}
	}

	wantChanges(t, op.stderr.String(),
		map[string]any{"what": "created", "keyId": id(first), "scopes": "read,config"},
		map[string]any{"what": "rotated", "keyId": id(first), "scopes": "read,config", "newKeyId": id(second)},
		map[string]any{"what": "rotated", "keyId": id(second), "scopes": "read,config", "newKeyId": id(third)},
		map[string]any{"what": "revoked", "keyId": id(third), "scopes": "read,config"},
	)
	items := scan(t, client, name)
	for what, text := range map[string]string{
		"standard output": op.stdout.String(), "standard error": op.stderr.String(),
		"the server's log": server.stderr.String(), "the table": items,
	} {
		for _, key := range []string{first, second, third} {
			if secret := key[len("mm_") : len(key)-6]; strings.Contains(text, secret) {
				t.Errorf("%s holds the key %s:\n%s", what, id(key), text)
			}
		}
	}
	if !strings.Contains(items, id(first)) || !strings.Contains(server.stderr.String(), id(first)) {
		t.Error("neither the table nor the log knows the key at all: this test would not have seen it there")
	}
}

// operatorAt runs `marketmeter key` and stores its output, without the keys that makes returns.
type operatorAt struct {
	t              *testing.T
	dir            string
	variables      []string
	stdout, stderr bytes.Buffer
}

func (o *operatorAt) runs(args ...string) (stdout string) {
	o.t.Helper()
	text := o.lines(args)
	o.stdout.WriteString(text)
	return text
}

// makes returns the key on the last line of standard output.
func (o *operatorAt) makes(args ...string) (key string) {
	o.t.Helper()
	key = lastLine(o.t, o.lines(args), &o.stdout)
	return key
}

func (o *operatorAt) lines(args []string) string {
	o.t.Helper()
	p := begin(o.t, o.dir, o.variables, append([]string{"key"}, args...)...)
	var text strings.Builder
	for line := range p.lines {
		fmt.Fprintln(&text, line)
	}
	if status := p.status(o.t); status != 0 {
		o.t.Fatalf("key %s: exit status %d; standard error:\n%s", args[0], status, p.stderr)
	}
	o.stderr.WriteString(p.stderr.String())
	return text.String()
}

// lastLine returns the key, which is alone on the last line. It writes the lines before to rest.
func lastLine(t *testing.T, stdout string, rest *bytes.Buffer) string {
	t.Helper()
	text, ended := strings.CutSuffix(stdout, "\n")
	before, key, _ := strings.Cut(text, "\nmm_")
	if _, err := auth.Parse("mm_" + key); err != nil || !ended {
		t.Fatalf("standard output is\n%s\nwant a key alone on its last line", stdout)
	}
	rest.WriteString(before)
	return "mm_" + key
}

func id(key string) string { return auth.Key(key).Hash().ID() }

func wantStatus(t *testing.T, what, url, key string, want int) {
	t.Helper()
	if status, answer := call(t, "GET", url, key, ""); status != want {
		t.Errorf("%s: %d %s; want %d", what, status, answer, want)
	}
}

// wantChanges checks the log lines of changes, including the actor and the time of each.
func wantChanges(t *testing.T, stderr string, want ...map[string]any) {
	t.Helper()
	var got []map[string]any
	for line := range strings.Lines(stderr) {
		var change map[string]any
		if json.Unmarshal([]byte(line), &change) != nil || change["msg"] != "key changed" {
			continue
		}
		at, err := time.Parse(time.RFC3339, fmt.Sprint(change["time"]))
		who, _ := change["who"].(string)
		if err != nil || time.Since(at) > time.Hour || !strings.Contains(who, "@") || change["organization"] != "o1" || change["table"] == "" || change["at"] != os.Getenv("DYNAMODB_ENDPOINT") {
			t.Errorf("%swant who, when, whose and where in it", line)
		}
		if hash, _ := change["keyHash"].(string); len(hash) != 64 || !strings.HasPrefix(hash, fmt.Sprint(change["keyId"])) {
			t.Errorf("%swant the key's hash in it", line)
		}
		for _, name := range []string{"time", "level", "msg", "version", "commit", "who", "organization", "table", "at", "expiryTime", "newExpiryTime", "keyHash"} {
			delete(change, name)
		}
		got = append(got, change)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
}

// scan returns all items of the table as text.
func scan(t *testing.T, client *dynamodb.Client, name string) string {
	t.Helper()
	all, err := client.Scan(t.Context(), &dynamodb.ScanInput{TableName: &name})
	if err != nil || all.LastEvaluatedKey != nil {
		t.Fatal(err, all)
	}
	items, err := json.Marshal(all.Items)
	if err != nil {
		t.Fatal(err)
	}
	return string(items)
}

func TestKeysEndOnTheirOwn(t *testing.T) {
	t.Parallel()
	_, name := tabletest.Client(t)
	dir, variables := t.TempDir(), []string{endpoint(t), "TABLE_NAME=" + name}
	config := begin(t, dir, variables, "serve").ready(t) + "/org/o1/usageMeteringConfigInfo"
	key := newKey(t, dir, variables, "--org", "o1", "--expires", "1s")
	eventually(t, "the key ends", func() bool {
		status, answer := call(t, "GET", config, key, "")
		return status == http.StatusUnauthorized && strings.Contains(answer, "the key "+id(key)+" expired at ")
	})
}

func TestKeysOpenTheirOrganizationAndScopesAlone(t *testing.T) {
	t.Parallel()
	_, name := tabletest.Client(t)
	dir, variables := t.TempDir(), []string{endpoint(t), "TABLE_NAME=" + name}
	url := begin(t, dir, variables, "serve").ready(t)
	const list, config = "/usageRecordGroup", "/usageMeteringConfigInfo"
	for _, test := range []struct {
		scopes, method, path string
		want                 int
	}{
		{"read", "GET", "/org/o1" + list, 200},
		{"read", "GET", "/org/o1" + config, 200},
		{"read", "PUT", "/org/o1" + config, 403},
		{"read", "DELETE", "/org/o1" + list + "/g1", 403},
		{"write", "GET", "/org/o1" + list, 403},
		{"write", "DELETE", "/org/o1" + list + "/g1", 404},
		{"config", "GET", "/org/o1" + list, 403},
		{"config", "PUT", "/org/o1" + config, 200},
		{"admin", "GET", "/org/o1" + list, 200},
		{"admin", "PUT", "/org/o1" + config, 200},
		{"admin", "GET", "/org/o2" + list, 403},
		{"admin", "GET", "/org/O1" + list, 403},
		{"admin", "GET", "/org/o1%20" + list, 403},
		{"admin", "GET", "/org/o1%2Fo2" + list, 404},
	} {
		key := newKey(t, dir, variables, "--org", "o1", "--scope", test.scopes)
		status, answer := call(t, test.method, url+test.path, key, `{"partnerUsageMeteringConfigs":[]}`)
		if status != test.want {
			t.Errorf("with %s, %s %s: %d %s; want %d", test.scopes, test.method, test.path, status, answer, test.want)
		}
		if text := ""; status == 403 && json.Unmarshal([]byte(answer), &text) != nil {
			t.Errorf("with %s, %s %s: %s; want a JSON string", test.scopes, test.method, test.path, answer)
		}
	}
}

func TestKeyCommandsTellWhatIsWrong(t *testing.T) {
	t.Parallel()
	_, name := tabletest.Client(t)
	secret := string(auth.New())
	typo := secret[:len(secret)-1] + "_"
	long := strings.Repeat("x", 101)
	for _, test := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"create"}, 2, "--org is missing"},
		{[]string{"create", "--org", "a/b"}, 2, `--org is "a/b": `},
		{[]string{"create", "--org", "o1", secret}, 2, "it takes flags alone"},
		{[]string{"create", "--org", secret}, 2, "--org holds a key"},
		{[]string{"create", "--org", "o1", "--label", "the key " + secret}, 2, "--label holds a key"},
		{[]string{"create", "--org", "o1", "--scope", secret}, 2, "is no scope"},
		{[]string{"create", "--org", "o1", "--" + secret}, 2, "not defined: -mm_..."},
		{[]string{"list", "--org", secret}, 2, "--org holds a key"},
		{[]string{"rotate", "--org", "o1", "--keep", secret, "abcd"}, 2, "as in 90d or 12h"},
		{[]string{"revoke", "--org", secret, secret}, 2, "--org holds a key"},
		{[]string{"revoke", "--org", "o1", id(secret) + strings.Repeat("0", 47)}, 2, "the 64 digits of the whole hash"},
		{[]string{"revoke", "--org", "o1", auth.Key(secret).Hash().String()}, 1, `organization "o1" has no key ` + id(secret)},
		{[]string{"revoke", "--from-audit", "-", "abcd"}, 2, "not both"},
		{[]string{"revoke", "--from-audit", "-", "--org", secret}, 2, "--org holds a key"},
		{[]string{"revoke", "--from-audit", "no-such-file"}, 1, "no such file"},
		{[]string{"create", "--org", "o1", "--scope", "red"}, 2, `"red" is no scope: they are read, write, config, admin`},
		{[]string{"create", "--org", "o1", "--scope", ""}, 2, "they are read, write, config, admin"},
		{[]string{"create", "--org", "o1", "--expires", "90"}, 2, "as in 90d or 12h, or never"},
		{[]string{"create", "--org", "o1", "--expires", "0d"}, 2, "it must be longer than nothing, or never"},
		{[]string{"create", "--org", "o1", "--expires", "-1d"}, 2, "as in 90d or 12h, or never"},
		{[]string{"create", "--org", "o1", "--expires", "3651d"}, 2, "at most 3650d"},
		{[]string{"create", "--org", "o1", "--label", "a\tb"}, 2, `--label is "a\tb": it must have at most 100 characters`},
		{[]string{"create", "--org", "o1", "--label", long}, 2, "it must have at most 100 characters"},
		{[]string{"create", "--organization", "o1"}, 2, "not defined: -organization"},
		{[]string{"list"}, 2, "--org is missing"},
		{[]string{"list", "--org", "o1", secret}, 2, "it takes flags alone"},
		{[]string{"rotate", "--org", "o1"}, 2, "it takes one ID of a key; there are 0"},
		{[]string{"rotate", "abcd"}, 2, "--org is missing"},
		{[]string{"rotate", "--org", "o1", "--keep", "soon", "abcd"}, 2, "as in 90d or 12h"},
		{[]string{"rotate", "--org", "o1", "abcd"}, 1, `organization "o1" has no key abcd: ` + "`marketmeter key list --org o1` shows"},
		{[]string{"rotate", "--org", "o1", secret}, 1, `organization "o1" has no key ` + id(secret)},
		{[]string{"revoke", "abcd", "--org"}, 2, "needs an argument"},
		{[]string{"revoke", "--org", "o1", secret, "abcd"}, 2, "there are 2"},
		{[]string{"revoke", "--org", "o1", "abc"}, 2, "it must be 4 to 16 digits of 0-9 and a-f"},
		{[]string{"revoke", "--org", "o1", strings.Repeat("a", 17)}, 2, "it must be 4 to 16 digits"},
		{[]string{"revoke", "--org", "o1", typo}, 2, "it must be 4 to 16 digits"},
		{[]string{"revoke", "--org", "o1", "abcd"}, 1, "has no key abcd"},
	} {
		status, stdout, stderr := onTable(t, name, "", append([]string{"key"}, test.args...)...)
		if status != test.status || stdout != "" || !strings.HasPrefix(stderr, "marketmeter key "+test.args[0]+": ") || !strings.Contains(stderr, test.want) {
			t.Errorf("%q: exit status %d\n%s%s\nwant %d and %q", test.args, status, stdout, stderr, test.status, test.want)
		}
		if strings.Contains(stderr, secret[:20]) {
			t.Errorf("%q repeats the key:\n%s", test.args, stderr)
		}
	}
	if status, stdout, _ := onTable(t, name, "", "key", "list", "--org", "o 1"); status != 0 ||
		stdout != "Organization \"o 1\" has no keys; `marketmeter key create --org 'o 1'` makes one.\n" {
		t.Errorf("a list of none: %d %s", status, stdout)
	}
}

// A key that could not be stored is not printed.
func TestNoKeyIsShownThatIsNotThere(t *testing.T) {
	t.Parallel()
	status, stdout, stderr := onTable(t, "no-such-table", "", "key", "create", "--org", "o1")
	if status != 1 || stdout != "" || strings.Contains(stderr, "key changed") || !strings.Contains(stderr, "revoke it: nobody has it") {
		t.Errorf("exit status %d\n%s%s\nwant 1, no key and no change", status, stdout, stderr)
	}
}

// unwritable are standard outputs that accept no writes.
var unwritable = map[string]func(*testing.T) *os.File{
	"a closed pipe": func(t *testing.T) *os.File {
		reader, writer, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		reader.Close()
		return writer
	},
	"a full disk": func(t *testing.T) *os.File {
		file, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			programtest.Skip(t, err.Error())
		}
		return file
	},
}

// writesTo runs `marketmeter key` with the given standard output. It returns the exit status and
// standard error.
func writesTo(t *testing.T, stdout *os.File, name, stdin string, args ...string) (status int, stderr string) {
	t.Helper()
	program, err := buildProgram()
	if err != nil {
		t.Fatal(err)
	}
	defer stdout.Close()
	var errs bytes.Buffer
	command := exec.Command(program, append([]string{"key"}, args...)...)
	command.Env, command.Stdout, command.Stderr = []string{endpoint(t), "TABLE_NAME=" + name}, stdout, &errs
	command.Stdin = strings.NewReader(stdin)
	if err := command.Run(); err != nil && command.ProcessState == nil {
		t.Fatal(err)
	}
	return command.ProcessState.ExitCode(), errs.String()
}

// A key that could not be printed exists, and nobody has it.
func TestAKeyThatCannotBeShownIsTold(t *testing.T) {
	t.Parallel()
	_, name := tabletest.Client(t)
	for what, open := range unwritable {
		t.Run(what, func(t *testing.T) {
			old := newKey(t, t.TempDir(), []string{endpoint(t), "TABLE_NAME=" + name}, "--org", "o1")
			for _, args := range [][]string{{"create", "--org", "o1"}, {"rotate", "--org", "o1", id(old)}} {
				status, stderr := writesTo(t, open(t), name, "", args...)
				if status != 1 {
					t.Errorf("%s: exit status %d; want 1", args[0], status)
				}
				revoke := regexp.MustCompile("the key ([0-9a-f]{16}) has been made and could not be shown: .*; end it with `marketmeter key revoke --org o1 ([0-9a-f]{16})`").
					FindStringSubmatch(stderr)
				if revoke == nil || revoke[1] != revoke[2] || strings.Contains(stderr, "mm_") {
					t.Fatalf("%s: standard error:\n%s\nwant to be told to revoke the key", args[0], stderr)
				}
				if status, _, stderr := onTable(t, name, "", "key", "revoke", "--org", "o1", revoke[1]); status != 0 {
					t.Errorf("revoke: %d\n%s", status, stderr)
				}
			}
		})
	}
}

// Output that could not be written is a failure, even if the change was made: then the error says
// so.
func TestKeyCommands_UnwritableOutputIsAFailure(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	for what, open := range unwritable {
		t.Run(what, func(t *testing.T) {
			variables := []string{endpoint(t), "TABLE_NAME=" + name}
			key, other := newKey(t, t.TempDir(), variables, "--org", "o1"), newKey(t, t.TempDir(), variables, "--org", "o1")
			line := fmt.Sprintf(`{"msg":"key changed","what":"revoked","organization":"o1","keyId":"%s"}`, id(other))
			for _, test := range []struct {
				stdin string
				args  []string
				want  string
			}{
				{"", []string{"revoke", "--org", "o1", id(key)}, "the key " + id(key) + " is revoked, which could not be written to standard output: "},
				{"", []string{"revoke", "--org", "o1", id(key)}, "the key " + id(key) + " is revoked, which could not be written to standard output: "},
				{line, []string{"revoke", "--from-audit", "-"}, "what was done could not be written to standard output: "},
			} {
				if status, stderr := writesTo(t, open(t), name, test.stdin, test.args...); status != 1 || !strings.Contains(stderr, test.want) {
					t.Errorf("%q: exit status %d\n%s\nwant 1 and %q", test.args, status, stderr, test.want)
				}
			}
			for _, org := range []string{"o1", "of-no-keys"} { // a read command may end as other filters do when its reader has gone
				if status, stderr := writesTo(t, open(t), name, "", "list", "--org", org); what == "a full disk" &&
					(status != 1 || !strings.Contains(stderr, "the list is not written whole: ")) {
					t.Errorf("list of %s: exit status %d\n%s", org, status, stderr)
				}
			}
			for _, key := range []string{key, other} {
				r, err := table.New(client, name).APIKey(t.Context(), auth.Key(key).Hash())
				if err != nil || r.State(time.Now()) != auth.Revoked {
					t.Errorf("%+v, %v; want it revoked", r, err)
				}
			}
		})
	}
}

// damage lists changes of a key's item that another version or a fault might make, and what the
// list prints for them.
var damage = []struct {
	expression string
	value      types.AttributeValue
	shown      string // in the line of the list
	rotation   string // why the key is not rotated
}{
	{"SET scopes = :v", &types.AttributeValueMemberS{Value: "read,report"}, `active, unknown scopes: "report"`, `it has scopes that this version does not know: "report"`},
	{"SET scopes = :v", &types.AttributeValueMemberS{Value: "report"}, `active, unknown scopes: "report"`, `does not know: "report"`},
	{"SET scopes = :v", &types.AttributeValueMemberS{Value: "READ,\x1b[2J"}, `active, unknown scopes: "READ,\x1b[2J"`, `does not know: "READ,`},
	{"SET team = :v", &types.AttributeValueMemberS{Value: "x"}, `active, unknown attributes: "team"`, `it has attributes that this version does not know: "team"`},
	{"SET scopes = :v", &types.AttributeValueMemberN{Value: "3"}, "unreadable: scopes", "cannot be read: scopes"},
	{"REMOVE scopes", nil, "unreadable: scopes", "cannot be read: scopes"},
	{"SET expiryTime = :v", &types.AttributeValueMemberS{Value: "soon"}, "unreadable: expiryTime", "cannot be read: expiryTime"},
	{"SET label = :v", &types.AttributeValueMemberN{Value: "3"}, "unreadable: label", "cannot be read: label"},
	{"REMOVE creationTime, createdBy", nil, "unreadable: createdBy, creationTime", "cannot be read: createdBy, creationTime"},
	{"REMOVE organizationID", nil, "unreadable: organizationID", "cannot be read: organizationID"},
	{"SET revokedBy = :v", &types.AttributeValueMemberN{Value: "3"}, "unreadable: revokedBy", "cannot be read: revokedBy"},
	{"SET revocationTime = :v", &types.AttributeValueMemberN{Value: "3"}, "revoked, unreadable: revocationTime", "was revoked, and only a key that is good is rotated"},
}

// keyTime is when the test's keys are made.
var keyTime = time.Date(2026, 3, 1, 9, 30, 0, 123456789, time.UTC)

func TestKeyCommands_UnreadableRecordIsInNobodysWay(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	tbl := table.New(client, name)
	key := func(args ...string) (status int, stdout, stderr string) {
		return onTable(t, name, "", append([]string{"key"}, args...)...)
	}
	for i, d := range damage {
		org := fmt.Sprintf("o%d", i)
		var hashes []auth.Hash
		for range 3 { // one that is damaged, one to revoke, one to rotate
			r := auth.Record{Hash: auth.New().Hash(), Organization: org, Scopes: auth.Read, Label: "l", CreatedBy: "c", CreationTime: keyTime}
			if err := tbl.AddAPIKey(t.Context(), &r); err != nil {
				t.Fatal(err)
			}
			hashes = append(hashes, r.Hash)
		}
		change(t, client, name, hashes[0], d.expression, d.value)
		put(t, client, name, "ORG#"+org, "KEY#damaged")

		status, stdout, stderr := key("list", "--org", org)
		if status != 0 || stderr != "" || strings.Count(stdout, "\n") != 5 || strings.Count(stdout, "  active\n") != 2 ||
			!regexp.MustCompile(`(?m)^`+hashes[0].ID()+` .*  `+regexp.QuoteMeta(d.shown)+`$`).MatchString(stdout) ||
			!regexp.MustCompile(`(?m)^- .*  unreadable: record, SK "KEY#damaged"$`).MatchString(stdout) {
			t.Errorf("%s: listed is, with exit status %d\n%s%s\nwant %q", d.expression, status, stdout, stderr, d.shown)
		}
		for _, args := range [][]string{{"revoke", "--org", org, hashes[1].ID()}, {"rotate", "--org", org, hashes[2].ID()}} {
			if status, stdout, stderr := key(args...); status != 0 {
				t.Errorf("%s: %q: exit status %d\n%s%s", d.expression, args, status, stdout, stderr)
			}
		}
		if status, stdout, stderr := key("rotate", "--org", org, hashes[0].ID()); status != 1 || stdout != "" || !strings.Contains(stderr, d.rotation) {
			t.Errorf("%s: rotated: exit status %d\n%s%s\nwant %q", d.expression, status, stdout, stderr, d.rotation)
		}
		if status, stdout, stderr := key("revoke", "--org", org, hashes[0].ID()[:8]); status != 0 || !strings.Contains(stdout, hashes[0].ID()) {
			t.Errorf("%s: revoked: exit status %d\n%s%s", d.expression, status, stdout, stderr)
		}
		if r, err := tbl.APIKey(t.Context(), hashes[0]); err != nil || r.State(keyTime) != auth.Revoked {
			t.Errorf("%s: revoked it is %+v, %v", d.expression, r, err)
		}
	}
}

// change changes the item of a key directly in the table.
func change(t *testing.T, client *dynamodb.Client, name string, hash auth.Hash, expression string, value types.AttributeValue) {
	t.Helper()
	var values map[string]types.AttributeValue
	if value != nil {
		values = map[string]types.AttributeValue{":v": value}
	}
	if _, err := client.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{
		TableName: &name, Key: item("KEY#"+hash.String(), "KEY"), UpdateExpression: &expression, ExpressionAttributeValues: values,
	}); err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, client *dynamodb.Client, name, pk, sk string) {
	t.Helper()
	if _, err := client.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &name, Item: item(pk, sk)}); err != nil {
		t.Fatal(err)
	}
}

func item(pk, sk string) map[string]types.AttributeValue {
	return map[string]types.AttributeValue{"PK": &types.AttributeValueMemberS{Value: pk}, "SK": &types.AttributeValueMemberS{Value: sk}}
}

// revoke ends a key that no list contains, given its hash or the key itself. It never prints the
// key.
func TestRevoke_EndsAKeyThatIsNotListed(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	tbl := table.New(client, name)
	for _, named := range []func(auth.Key) string{
		func(k auth.Key) string { return string(k) },
		func(k auth.Key) string { return k.Hash().String() },
		func(k auth.Key) string { return strings.ToUpper(k.Hash().String()) },
	} {
		key := auth.New()
		if err := tbl.AddAPIKey(t.Context(), &auth.Record{Hash: key.Hash(), Organization: "o1", Scopes: auth.Read, CreationTime: keyTime}); err != nil {
			t.Fatal(err)
		}
		if _, err := client.DeleteItem(t.Context(), &dynamodb.DeleteItemInput{TableName: &name, Key: item("ORG#o1", "KEY#"+key.Hash().String())}); err != nil {
			t.Fatal(err)
		}
		if status, _, stderr := onTable(t, name, "", "key", "revoke", "--org", "o1", key.Hash().ID()); status != 1 || !strings.Contains(stderr, "by its whole hash or by the key itself") {
			t.Errorf("by its id: exit status %d\n%s", status, stderr)
		}
		if status, _, stderr := onTable(t, name, "", "key", "revoke", "--org", "o2", named(key)); status != 1 || !strings.Contains(stderr, "has no key "+key.Hash().ID()) {
			t.Errorf("of another organization: exit status %d\n%s", status, stderr)
		}
		status, stdout, stderr := onTable(t, name, "", "key", "revoke", "--org", "o1", named(key))
		if status != 0 || !strings.Contains(stdout, "Revoked key "+key.Hash().ID()) || strings.Contains(stdout+stderr, "mm_") ||
			!strings.Contains(stderr, `"what":"revoked"`) {
			t.Errorf("exit status %d\n%s%s", status, stdout, stderr)
		}
		if r, err := tbl.APIKey(t.Context(), key.Hash()); err != nil || r.State(time.Now()) != auth.Revoked {
			t.Errorf("%+v, %v", r, err)
		}
	}
}

func TestParseSpan(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"90d": 90 * 24 * time.Hour, "12h": 12 * time.Hour, "5m": 5 * time.Minute, "1s": time.Second, "0h": 0, "3650d": longestSpan,
		"87600h": longestSpan, "007d": 7 * 24 * time.Hour,
	} {
		if got, err := parseSpan(text); err != nil || got != want {
			t.Errorf("%q is %s, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "d", "90", "1.5d", "+1d", "-1d", " 1d", "1d ", "1w", "1D", "1d12h", "1_0d", "0x1d", "3651d", "87601h", "4294967295d",
		"99999999999999999999d", "١d", "never",
	} {
		if got, err := parseSpan(text); err == nil {
			t.Errorf("%q is %s; want it refused", text, got)
		}
	}
}

// The lag that the program prints for API Gateway is the one that the template sets.
func TestTheLagIsTheTemplates(t *testing.T) {
	t.Parallel()
	set := regexp.MustCompile(`ReauthorizeEvery: (\d+)\n`).FindSubmatch(marketmeter.Template)
	if set == nil || string(set[1]) != strconv.Itoa(int(gatewayLag.Seconds())) {
		t.Errorf("the template has %q; the program says %s", set, gatewayLag)
	}
}

func TestRotationAtOnce(t *testing.T) {
	t.Parallel()
	_, name := tabletest.Client(t)
	status, stdout, stderr := onTable(t, name, "", "key", "create", "--org", "o1", "--expires", "never", "--label", "ci")
	if status != 0 {
		t.Fatal(stderr)
	}
	key := lastLine(t, stdout, new(bytes.Buffer))
	status, stdout, stderr = onTable(t, name, "", "key", "rotate", "--org", "o1", "--keep", "0h", key)
	if status != 0 || !strings.Contains(stdout, `labelled "ci"; its scopes are read,write; it never expires`) ||
		!regexp.MustCompile(`The old key `+id(key)+` ends at 2\S+Z\. In AWS, API Gateway may let it in for up to 60 seconds from now\.`).MatchString(stdout) {
		t.Errorf("exit status %d\n%s%s", status, stdout, stderr)
	}
	status, stdout, stderr = onTable(t, name, "", "key", "rotate", "--org", "o1", key)
	if status != 1 || stdout != "" || !strings.Contains(stderr, "and only a key that is good is rotated, once: make a new one with `marketmeter key create --org o1`") {
		t.Errorf("of a key that has ended: exit status %d\n%s%s", status, stdout, stderr)
	}
}
