package main

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/programtest"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
	"github.com/marketmeter/marketmeter/internal/transfer"
	"github.com/marketmeter/marketmeter/internal/transfer/transfertest"
)

// migrate runs the script of docs/operations.md against pages of another service, for yesterday
// only, and returns its output.
func migrate(t *testing.T, pages map[string]string) (stdout, stderr string, status int) {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		programtest.Skip(t, "there is no python3")
	}
	guide, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	script := regexp.MustCompile("(?s)```python\n(.*?)```").FindSubmatch(guide)
	if script == nil {
		t.Fatal("docs/operations.md has no script")
	}
	yesterday := dayBefore(time.Now())
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		page, ok := pages[query.Get("offset")]
		if !ok || r.URL.EscapedPath() != "/org/o%2F1/usageRecordGroup" || r.Header.Get("Authorization") != "Key k" ||
			query.Get("startDate") != yesterday || query.Get("endDate") != yesterday || query.Get("limit") != "1000" {
			w.WriteHeader(http.StatusForbidden)
			page = `"not you"`
		}
		_, _ = w.Write([]byte(page))
	}))
	t.Cleanup(service.Close)
	file := filepath.Join(t.TempDir(), "migrate.py")
	if err := os.WriteFile(file, script[1], 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	command := exec.Command(python, file)
	command.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "LC_ALL=C",
		"OLD_URL=" + service.URL + "/", "OLD_ORG=o/1", "OLD_KEY=k", "FIRST_DAY=" + yesterday,
	}
	command.Stdout, command.Stderr = &out, &errs
	if err := command.Run(); err != nil {
		failed, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			t.Fatal(err)
		}
		status = failed.ExitCode()
	}
	if dayBefore(time.Now()) != yesterday { // the script may have asked for two days
		return migrate(t, pages)
	}
	return out.String(), errs.String(), status
}

func dayBefore(at time.Time) string { return at.UTC().AddDate(0, 0, -1).Format(time.DateOnly) }

func TestMigration_ReadsPagesInEveryForm(t *testing.T) {
	t.Parallel()
	group := strings.TrimSpace(transfertest.Line("g1", "records", `{"a":0.1000000000000000055,"b":9007199254740993}`, "buyerID", "é\u2028[日]"))
	other := strings.TrimSpace(transfertest.Line("g2", "buyerID", `"usageRecordGroups": [{`))
	for _, test := range []struct {
		name  string
		pages map[string]string
		want  string
	}{
		{"compact", map[string]string{"0": `{"nextOffset":0,"usageRecordGroups":[` + group + `,` + other + `]}`}, group + "\n" + other + "\n"},
		{"two pages", map[string]string{
			"0": `{"nextOffset":1,"usageRecordGroups":[` + group + `]}`, "1": `{"usageRecordGroups":[` + other + `],"nextOffset":0}`,
		}, group + "\n" + other + "\n"},
		{"an empty array", map[string]string{"0": `{"nextOffset":0,"usageRecordGroups":[]}`}, ""},
		{"null for the groups", map[string]string{"0": `{"nextOffset":0,"usageRecordGroups":null}`}, ""},
		{"null for all", map[string]string{"0": `{"nextOffset":null,"usageRecordGroups":null}`}, ""},
		{"no groups", map[string]string{"0": `{"nextOffset":0}`}, ""},
		{"no nextOffset", map[string]string{"0": `{"usageRecordGroups":[` + group + `]}`}, group + "\n"},
		{"nothing", map[string]string{"0": `{}`}, ""},
		{"null alone", map[string]string{"0": ` null `}, ""},
		{"an empty page before the last", map[string]string{
			"0": `{"nextOffset":5,"usageRecordGroups":null}`, "5": `{"usageRecordGroups":[` + group + `]}`,
		}, group + "\n"},
		{"a null in the array", map[string]string{"0": `{"usageRecordGroups":[null,` + group + `, null ]}`}, group + "\n"},
		{"other members first", map[string]string{"0": `{"note":"\"usageRecordGroups\": [","more":{"usageRecordGroups":[1]},"usageRecordGroups":[` + group + `]}`}, group + "\n"},
		{"white space", map[string]string{
			"0": " \r\n{\t\"usageRecordGroups\" :\n [ \r\n\t" + group + " \n,\n " + other + "\n\t]\n,\n\"nextOffset\" : 0 }\n",
		}, group + "\n" + other + "\n"},
		{"white space in an empty array", map[string]string{"0": "{\n  \"nextOffset\": 0,\n  \"usageRecordGroups\": [\n  ]\n}\n"}, ""},
		{"white space in a group", map[string]string{
			"0": "{\"usageRecordGroups\": [{\r\n  \"id\": \"g1\",\n  \"buyerID\": \"b\"\r\n}]}",
		}, "{    \"id\": \"g1\",   \"buyerID\": \"b\"  }\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if stdout, stderr, status := migrate(t, test.pages); status != 0 || stdout != test.want {
				t.Errorf("exit status %d\n%s\nprinted\n%s\nwant\n%s", status, stderr, stdout, test.want)
			}
		})
	}
}

func TestMigration_StopsAtARefusal(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		pages map[string]string
		want  string
	}{
		"a page that is refused":       {map[string]string{"0": `{"nextOffset":1}`}, `offset 1: 403 "not you"`},
		"an offset that does not grow": {map[string]string{"0": `{"nextOffset":1}`, "1": `{"nextOffset":1}`}, "would begin again"},
		"a page that is cut off":       {map[string]string{"0": `{"usageRecordGroups":[{"id":`}, "Error"},
	} {
		if _, stderr, status := migrate(t, test.pages); status == 0 || !strings.Contains(stderr, test.want) {
			t.Errorf("%s: exit status %d\n%s\nwant a failure with %q", name, status, stderr, test.want)
		}
	}
}

func TestMigration_IntoImport(t *testing.T) {
	t.Parallel()
	lines, stderr, status := migrate(t, map[string]string{
		"0": "{ \"usageRecordGroups\": [\n" + strings.ReplaceAll(transfertest.Lines(transfertest.ManyGroups(40, "old")), "}\n", "},\n") + "null ],\n \"nextOffset\": null }",
	})
	if status != 0 {
		t.Fatal(stderr)
	}
	counts, err := transfer.Import(t.Context(), tabletest.New(t), "o1", strings.NewReader(lines), transfer.ImportOptions{RewriteOrg: true})
	if want := (transfer.Counts{Imported: 40}); err != nil || counts != want {
		t.Errorf("%v, %v; want %v", counts, err, want)
	}
}
