package main

import (
	"debug/buildinfo"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/marketmeter/marketmeter/internal/programtest"
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
	programtest.Long(t)
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
