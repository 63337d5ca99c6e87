package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// backedUp is a table that can be restored to an earlier state, as from a backup.
type backedUp struct {
	client *dynamodb.Client
	name   string
	items  []map[string]types.AttributeValue
}

func backup(t *testing.T, client *dynamodb.Client, name string) *backedUp {
	t.Helper()
	return &backedUp{client, name, itemsOf(t, client, name)}
}

func itemsOf(t *testing.T, client *dynamodb.Client, name string) []map[string]types.AttributeValue {
	t.Helper()
	all, err := client.Scan(t.Context(), &dynamodb.ScanInput{TableName: &name})
	if err != nil || all.LastEvaluatedKey != nil {
		t.Fatal(err, all)
	}
	return all.Items
}

func (b *backedUp) restore(t *testing.T) {
	t.Helper()
	for _, item := range itemsOf(t, b.client, b.name) {
		if _, err := b.client.DeleteItem(t.Context(), &dynamodb.DeleteItemInput{
			TableName: &b.name, Key: map[string]types.AttributeValue{"PK": item["PK"], "SK": item["SK"]},
		}); err != nil {
			t.Fatal(err)
		}
	}
	for _, item := range b.items {
		if _, err := b.client.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &b.name, Item: item}); err != nil {
			t.Fatal(err)
		}
	}
}

// Keys that ended after a backup are ended again after its restore. The only source is the standard
// error of the commands.
func TestRevokeFromAudit_EndsAgainWhatHadEnded(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	tbl := table.New(client, name)
	audit := filepath.Join(t.TempDir(), "audit.jsonl")
	file, err := os.Create(audit)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var rest bytes.Buffer
	run := func(args ...string) (stdout string) {
		t.Helper()
		status, stdout, stderr := onTable(t, name, "", append([]string{"key"}, args...)...)
		if status != 0 {
			t.Fatalf("%q: exit status %d\n%s", args, status, stderr)
		}
		// As a shell's `2>>audit.jsonl` writes it. Other programs write to the file too.
		fmt.Fprintf(file, "table %s at %s, from DYNAMODB_ENDPOINT\r\n%s\n  {\"time\":\"2026-01-01T00:00:00Z\",\"msg\":\"request\",\"keyId\":5}\n", name, os.Getenv("DYNAMODB_ENDPOINT"), stderr)
		return stdout
	}
	create := func(args ...string) string {
		t.Helper()
		return lastLine(t, run(append([]string{"create"}, args...)...), &rest)
	}
	record := func(key string) auth.Record {
		t.Helper()
		r, err := tbl.APIKey(t.Context(), auth.Key(key).Hash())
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	before := create("--org", "o1")
	untouched := create("--org", "o1")
	revoked := create("--org", "o1")
	others := create("--org", "o#2")
	rotated := create("--org", "o1", "--expires", "never")
	sooner := create("--org", "o1", "--expires", "1h")
	unlisted := create("--org", "o1")
	run("revoke", "--org", "o1", before)
	if _, err := client.DeleteItem(t.Context(), &dynamodb.DeleteItemInput{
		TableName: &name, Key: item("ORG#o1", "KEY#"+auth.Key(unlisted).Hash().String()),
	}); err != nil {
		t.Fatal(err)
	}
	saved := backup(t, client, name)

	run("revoke", "--org", "o1", id(revoked))
	run("revoke", "--org", "o#2", id(others))
	run("revoke", "--org", "o1", unlisted)
	run("rotate", "--org", "o1", "--keep", "2h", id(rotated))
	run("rotate", "--org", "o1", "--keep", "2h", id(sooner))
	ends := record(rotated).ExpiryTime
	saved.restore(t)
	for _, key := range []string{untouched, revoked, others, rotated, sooner, unlisted} {
		if r := record(key); r.State(time.Now().Add(30*time.Minute)) != auth.Active {
			t.Fatalf("after the restore it is %+v", r)
		}
	}

	again := func(args ...string) string {
		t.Helper()
		status, stdout, stderr := onTable(t, name, "", append([]string{"key", "revoke", "--from-audit", audit}, args...)...)
		if status != 0 {
			t.Fatalf("exit status %d\n%s%s", status, stdout, stderr)
		}
		return stdout + stderr
	}
	if out := again("--org", "o#2"); !strings.Contains(out, "\nrevoked 1, ended 0, unchanged 0, failed 0\n") || !strings.Contains(out, "revoked key "+id(others)+` of organization "o#2"`) {
		t.Errorf("of one organization:\n%s", out)
	}
	if out := again(); !strings.Contains(out, "\nrevoked 2, ended 1, unchanged 3, failed 0\n") || strings.Contains(out, "mm_") {
		t.Errorf("of all:\n%s", out)
	}
	check := func() {
		t.Helper()
		for _, key := range []string{before, revoked, others, unlisted} {
			if r := record(key); r.State(time.Now()) != auth.Revoked {
				t.Errorf("%s is %+v; want it revoked", id(key), r)
			}
		}
		if r := record(rotated); !r.ExpiryTime.Equal(ends) || r.State(time.Now()) != auth.Active || r.ReplacedBy != "" {
			t.Errorf("%s is %+v; want it to end at %s", id(rotated), r, ends)
		}
		for _, key := range []string{untouched, sooner} {
			if r := record(key); r.State(time.Now()) != auth.Active || r.ExpiryTime.Sub(r.CreationTime) != map[string]time.Duration{untouched: 90 * day, sooner: time.Hour}[key] {
				t.Errorf("%s is %+v; want it as it was", id(key), r)
			}
		}
	}
	check()
	if out := again(); !strings.HasPrefix(out, "revoked 0, ended 0, unchanged 6, failed 0\n") {
		t.Errorf("once more:\n%s", out)
	}
	check()
	if text, err := os.ReadFile(audit); err != nil || strings.Contains(string(text), "mm_") {
		t.Errorf("%v; the audit lines hold a key:\n%s", err, text)
	}
}

func TestRevokeFromAudit_ReportsWhatItCannotDo(t *testing.T) {
	t.Parallel()
	_, name := tabletest.Client(t)
	status, stdout, stderr := onTable(t, name, "", "key", "create", "--org", "o1")
	if status != 0 {
		t.Fatal(stderr)
	}
	alive := lastLine(t, stdout, new(bytes.Buffer))
	line := func(members string) string { return `{"msg":"key changed",` + members + `}` }
	whole := line(`"what":"revoked","organization":"o1","keyId":"` + id(alive) + `"`)
	for _, test := range []struct{ text, want string }{
		{whole[:len(whole)-9], "it is not a line of JSON: unexpected end of JSON input"},
		{whole[5:], "it is not a line of JSON"},
		{whole + whole, "it is not a line of JSON: invalid character '{' after top-level value"},
		{"null", "it is not a line of JSON"},
		{"\x00\x00\x00", "it is not a line of JSON"},
		{strings.Repeat("x", 1<<20), "it is too long"},
		{line(`"what":"revoked","organization":"o1"`), "keyId is not 16 digits of 0-9 and a-f"},
		{line(`"what":"revoked","organization":"o1","keyId":"` + id(alive)[:8] + `"`), "keyId is not 16 digits"},
		{line(`"what":"revoked","organization":"o1","keyId":5`), "it is not an audit line: "},
		{line(`"what":"revoked","keyId":"` + id(alive) + `"`), "organization is missing"},
		{line(`"what":"revoked","organization":"o1","keyId":"` + id(alive) + `","keyHash":"00"`), "keyHash is not 64 digits"},
		{line(`"what":"revoked","organization":"o1","keyId":"0123456789abcdef","keyHash":"` + auth.Key(alive).Hash().String() + `"`), "keyHash is not 64 digits of 0-9 and a-f that begin with keyId"},
		{line(`"what":"rotated","organization":"o1","keyId":"` + id(alive) + `"`), `expiryTime is "": `},
		{line(`"what":"paused","organization":"o1","keyId":"` + id(alive) + `"`), `what is "paused": this version knows created, rotated, revoked and ended`},
		{line(`"organization":"o1"`), `what is "": `},
		{line(`"what":"revoked","organization":"o1","keyId":"0123456789abcdef"`), `organization "o1" has no key 0123456789abcdef`},
		{line(`"what":"revoked","organization":"o2","keyId":"` + id(alive) + `"`), `organization "o2" has no key ` + id(alive)},
		{line(`"what":"revoked","organization":"o2","keyId":"` + id(alive) + `","keyHash":"` + auth.Key(alive).Hash().String() + `"`), `organization "o2" has no key ` + id(alive)},
		{line(`"what":"rotated","organization":"o2","expiryTime":"2026-03-01T09:30:00.000Z","keyId":"0123456789abcdef"`), `organization "o2" has no key 0123456789abcdef`},
		{line(`"what":"ended","organization":"o1","expiryTime":"2026-03-01T09:30:00.000Z","keyId":"0123456789abcdef","keyHash":"` + zeros() + `"`), "keyHash is not 64 digits of 0-9 and a-f that begin with keyId"},
	} {
		status, stdout, stderr := onTable(t, name, "", "key", "create", "--org", "o1")
		if status != 0 {
			t.Fatal(stderr)
		}
		next := id(lastLine(t, stdout, new(bytes.Buffer)))
		status, stdout, stderr = onTable(t, name, "\ufeff\r\n"+test.text+"\n"+line(`"what":"revoked","organization":"o1","keyId":"`+next+`"`), "key", "revoke", "--from-audit", "-")
		if status != 1 || !strings.HasPrefix(stderr, "line 2: "+test.want) || stdout != "line 3: revoked key "+next+" of organization \"o1\"\nrevoked 1, ended 0, unchanged 0, failed 1\n" {
			t.Errorf("%.200q: exit status %d\n%s%s\nwant line 2 to be reported: %s", test.text, status, stdout, stderr, test.want)
		}
	}
	if status, stdout, stderr := onTable(t, name, "", "key", "revoke", "--from-audit", "-"); status != 0 || stdout != "revoked 0, ended 0, unchanged 0, failed 0\n" {
		t.Errorf("of no lines: exit status %d\n%s%s", status, stdout, stderr)
	}
	if status, _, stderr := onTable(t, name, "", "key", "revoke", "--from-audit", t.TempDir()); status != 1 || !strings.Contains(stderr, "reading line 1: ") {
		t.Errorf("of a folder: exit status %d\n%s", status, stderr)
	}
}

func zeros() string { return strings.Repeat("0", 64) }

func TestRevokeFromAudit_ReadsGzipAndNamesOtherFormats(t *testing.T) {
	t.Parallel()
	_, name := tabletest.Client(t)
	status, _, stderr := onTable(t, name, "", "key", "create", "--org", "o1")
	if status != 0 {
		t.Fatal(stderr)
	}
	line := strings.Replace(stderr, `"what":"created"`, `"what":"revoked"`, 1)
	var compressed bytes.Buffer
	w := gzip.NewWriter(&compressed)
	if _, err := io.WriteString(w, line); err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	wide := strings.Join(strings.Split(line, ""), "\x00") + "\x00"
	if status, stdout, stderr := onTable(t, name, wide, "key", "revoke", "--from-audit", "-"); status != 1 || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, "the input is UTF-16") {
		t.Errorf("UTF-16: %d, %s%s", status, stdout, stderr)
	}
	if status, stdout, stderr := onTable(t, name, compressed.String(), "key", "revoke", "--from-audit", "-"); status != 0 || !strings.Contains(stdout, "revoked 1,") {
		t.Errorf("gzip: %d, %s%s", status, stdout, stderr)
	}
}
