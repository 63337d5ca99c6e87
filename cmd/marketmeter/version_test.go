package main

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/marketmeter/marketmeter/internal/build"
	"github.com/marketmeter/marketmeter/internal/programtest"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
	"github.com/marketmeter/marketmeter/internal/transfer/transfertest"
)

// repository creates a Git repository with the files of this checkout. The checkout itself may be a
// worktree or an archive, which the Go command reads no commit from.
func repository(t *testing.T) (dir, commit string) {
	t.Helper()
	for _, tool := range []string{"git", "make"} {
		if _, err := exec.LookPath(tool); err != nil {
			programtest.Skip(t, "there is no "+tool)
		}
	}
	dir = t.TempDir()
	err := filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel("../..", path)
		if err != nil {
			return err
		}
		if entry.Name() == ".git" && !entry.IsDir() { // in a worktree
			return nil
		}
		if entry.IsDir() {
			switch filepath.Base(path) {
			case ".git", ".local", ".aws-sam", "bin", "testdata":
				return fs.SkipDir
			}
			return os.MkdirAll(filepath.Join(dir, relative), 0o755)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, relative), text, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	inside(t, dir, "git", "init", "--quiet")
	if err := os.WriteFile(filepath.Join(dir, ".git", "info", "exclude"), []byte("/bin\n/functions.out\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	inside(t, dir, "git", "add", "--all")
	inside(t, dir, "git", "-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false", "commit", "--quiet", "--message=all")
	return dir, strings.TrimSpace(inside(t, dir, "git", "rev-parse", "HEAD"))
}

// inside runs a command in the folder, in an environment in which the Go command leaves the commit
// out.
func inside(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	command := exec.Command(name, args...)
	command.Dir = dir
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "GIT_") && !strings.HasPrefix(variable, "MAKE") {
			command.Env = append(command.Env, variable)
		}
	}
	command.Env = append(command.Env, "GOFLAGS=-buildvcs=false")
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func TestMake_StampsTheCommit(t *testing.T) {
	t.Parallel()
	dir, commit := repository(t)
	inside(t, dir, "make", "bin/marketmeter")
	version := inside(t, dir, "bin/marketmeter", "version")
	if !regexp.MustCompile(`^marketmeter v0\.0\.0-\d{14}-` + commit[:12] + `, commit ` + commit + `, go1\.\S+, \w+/\w+\n$`).MatchString(version) {
		t.Errorf("of commit %s it says %q", commit, version)
	}

	// sam builds with the same flags.
	recipe := inside(t, dir, "make", "--dry-run", "--assume-old=.local/sam/bin/sam", "build")
	flags := regexp.MustCompile(`CGO_ENABLED=0 GOFLAGS="[^"]*"`).FindString(recipe)
	if flags == "" {
		t.Fatalf("make build runs\n%s", recipe)
	}
	inside(t, dir, "sh", "-c", flags+" go build -o functions.out ./functions/validate")
	function, err := buildinfo.ReadFile(filepath.Join(dir, "functions.out"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(function.String(), "vcs.revision="+commit) {
		t.Errorf("a function has\n%s", function)
	}
}

func TestVersion_IsPrinted(t *testing.T) {
	t.Parallel()
	want := "marketmeter " + build.Current().Version + ", commit " + build.Current().Commit + ", "
	for _, args := range [][]string{{"version"}, {"--version"}, {"-version"}} {
		if status, stdout, stderr := runIn(t, nil, "", args...); status != 0 || !strings.HasPrefix(stdout, want) || stderr != "" {
			t.Errorf("%q: %d, %q, %q; want %q", args, status, stdout, stderr, want)
		}
	}
	if status, _, stderr := runIn(t, nil, "", "version", "now"); status != 2 || !strings.Contains(stderr, `no argument "now"`) {
		t.Errorf("version now: %d, %q", status, stderr)
	}
}

func TestHelp_OfACommandIsItsHelp(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ line, same string }{
		{"help import", "import -h"},
		{"help export", "export -h"},
		{"help serve", "serve --help"},
		{"--help serve", "serve -h"},
		{"help with-dynamodb", "with-dynamodb -h"},
		{"help version", "version -h"},
		{"help key", "key -h"},
		{"help key create", "key create -h"},
		{"help key rotate", "key rotate -h"},
		{"key help create", "key create -h"},
		{"key -h list", "key list -h"},
		{"help help", "help"},
		{"help --help", "help"},
	} {
		status, stdout, stderr := runIn(t, nil, "", strings.Fields(test.line)...)
		_, same, _ := runIn(t, nil, "", strings.Fields(test.same)...)
		if status != 0 || stdout == "" || stdout != same || stderr != "" {
			t.Errorf("%s: %d, %q\n%s\nwant what `%s` prints\n%s", test.line, status, stderr, stdout, test.same, same)
		}
	}
	for line, want := range map[string]string{
		"help server": `marketmeter: there is no command "server"`, "help key make": `marketmeter key: there is no command "make"`,
		"key help make": `marketmeter key: there is no command "make"`,
	} {
		if status, stdout, stderr := runIn(t, nil, "", strings.Fields(line)...); status != 2 || stdout != "" || !strings.Contains(stderr, want) {
			t.Errorf("%s: %d, %q, %q", line, status, stdout, stderr)
		}
	}
}

// A command whose output is lost fails.
func TestCommands_FailOnAFullDisk(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		programtest.Skip(t, "there is no /dev/full")
	}
	t.Cleanup(func() { full.Close() })
	_, name := tabletest.Client(t)
	status, stdout, stderr := onTable(t, name, "", "key", "create", "--org", "o1")
	if status != 0 {
		t.Fatal(stderr)
	}
	ID := id(lastLine(t, stdout, new(bytes.Buffer)))
	environment := map[string]string{"DYNAMODB_ENDPOINT": os.Getenv("DYNAMODB_ENDPOINT"), "TABLE_NAME": name}
	for _, test := range []struct{ line, stdin, want string }{
		{"import --org o1 -", transfertest.Line("g1"), "imported 1, skipped 0, refused 0"},
		{"import --org o1 -", "", "imported 0, skipped 0, refused 0"},
		{"export --org o1", "", ""},
		{"export --org o1 --format csv", "", ""},
		{"key list --org o1", "", ""},
		{"key list --org o2", "", ""},
		{"key create --org o1", "", "end it with"},
		{"key revoke --org o1 " + ID, "", ""},
		{"key revoke --org o1 " + ID, "", ""}, // the second changes nothing
		{"version", "", ""},
		{"--version", "", ""},
		{"help", "", ""},
		{"help import", "", ""},
		{"key -h", "", ""},
		{"key list -h", "", ""},
	} {
		var errs programtest.Output
		status := run(t.Context(), strings.Fields(test.line), func(name string) string { return environment[name] }, strings.NewReader(test.stdin), full, &errs)
		if said := errs.String(); status != 1 || !strings.Contains(said, "no space left on device") || !strings.Contains(said, test.want) {
			t.Errorf("%s: exit status %d\n%s", test.line, status, said)
		}
	}
}

// As with `export | head -1` in a shell.
func TestExport_EndsQuietlyWithItsReader(t *testing.T) {
	t.Parallel()
	_, name := tabletest.Client(t)
	if status, _, stderr := onTable(t, name, transfertest.Lines(transfertest.ManyGroups(600, "o1")), "import", "--org", "o1", "-"); status != 0 {
		t.Fatal(stderr)
	}
	file, err := buildProgram()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"export --org o1", "export --org o1 --format csv", "key list --org o1", "help"} {
		from, to, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		from.Close()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		command := exec.CommandContext(ctx, file, strings.Fields(line)...)
		var stderr bytes.Buffer
		command.Env, command.Stdout, command.Stderr = []string{endpoint(t), "TABLE_NAME=" + name}, to, &stderr
		err = command.Run()
		cancel()
		to.Close()
		failed, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			t.Fatalf("%s: %v", line, err)
		}
		how := failed.Sys().(syscall.WaitStatus)
		if !how.Signaled() || how.Signal() != syscall.SIGPIPE || strings.Contains(stderr.String(), "marketmeter") {
			t.Errorf("%s: %v\n%s\nwant it ended by SIGPIPE, without a word", line, err, &stderr)
		}
	}
	if status := run(t.Context(), []string{"help"}, os.Getenv, nil, brokenWriter{}, new(programtest.Output)); status != 141 {
		t.Errorf("if SIGPIPE is ignored: exit status %d; want 141", status)
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, fmt.Errorf("write: %w", syscall.EPIPE) }

func TestServe_NamesTheBuild(t *testing.T) {
	t.Parallel()
	_, name := tabletest.Client(t)
	dir := t.TempDir()
	server := begin(t, dir, []string{endpoint(t), "TABLE_NAME=" + name}, "serve")
	url := server.ready(t)
	file, err := buildProgram()
	if err != nil {
		t.Fatal(err)
	}
	version := inside(t, dir, file, "version")
	of := regexp.MustCompile(`^marketmeter (\S+), commit (\S+), `).FindStringSubmatch(version)
	if of == nil {
		t.Fatalf("the program says %q", version)
	}
	want := fmt.Sprintf(`{"commit":%q,"status":"ok","version":%q}`, of[2], of[1])
	if status, answer := call(t, "GET", url+"/healthz", "", ""); status != 200 || answer != want {
		t.Errorf("/healthz: %d %s; want %s", status, answer, want)
	}
	call(t, "GET", url+"/org/o1/usageMeteringConfigInfo", "", "")
	line := fmt.Sprintf(`"version":%q,"commit":%q,"requestId":`, of[1], of[2])
	eventually(t, "a request's line with "+line, func() bool { return strings.Contains(server.stderr.String(), line) })

	create := begin(t, dir, []string{endpoint(t), "TABLE_NAME=" + name}, "key", "create", "--org", "o1")
	if status := create.status(t); status != 0 || !strings.Contains(create.stderr.String(), `"msg":"key changed","version":"`+of[1]+`"`) {
		t.Errorf("key create: %d\n%s", status, create.stderr)
	}
}
