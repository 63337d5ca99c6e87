package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const smallCatalog = `{"gcp":{"services":[{"name":"svc","metrics":[{"name":"requests"}]}]}}`

func TestSandbox_ServesAloneAndKeepsItsState(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "catalog.json")
	if err := os.WriteFile(file, []byte(smallCatalog), 0o600); err != nil {
		t.Fatal(err)
	}
	variables := []string{"SANDBOX_ADDR=127.0.0.1:0"}
	p := begin(t, dir, variables, "sandbox", "--catalog", file)
	control := strings.Fields(p.says(t, "control"))[0]
	if !strings.HasPrefix(control, "http://127.0.0.1:") || !strings.HasSuffix(control, "/control") {
		t.Fatalf("control is at %q", control)
	}
	if status, body := call(t, http.MethodGet, control+"/catalog", "", ""); status != 200 || !strings.Contains(body, `"svc"`) {
		t.Fatalf("the catalog: %d %s", status, body)
	}
	if status, body := call(t, http.MethodPut, control+"/clock", "", `{"time":"2026-11-18T12:00:00Z","frozen":true}`); status != 200 {
		t.Fatalf("the clock: %d %s", status, body)
	}
	p.signal(t, syscall.SIGKILL)
	p.status(t)
	p = begin(t, dir, variables, "sandbox", "--catalog", file)
	control = strings.Fields(p.says(t, "control"))[0]
	if _, body := call(t, http.MethodGet, control+"/clock", "", ""); body != `{"time":"2026-11-18T12:00:00Z","frozen":true}` {
		t.Fatalf("after a kill the clock is %s", body)
	}
	p.signal(t, syscall.SIGTERM)
	if status := p.status(t); status != 0 || strings.Contains(p.stderr.String(), "another catalog") {
		t.Fatalf("exit status %d after SIGTERM; standard error:\n%s", status, p.stderr)
	}
	// The journal has the catalog; another one is not used, and the command says so.
	if err := os.WriteFile(file, []byte(strings.Replace(smallCatalog, "svc", "other", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	p = begin(t, dir, variables, "sandbox", "--catalog", file)
	control = strings.Fields(p.says(t, "control"))[0]
	if _, body := call(t, http.MethodGet, control+"/catalog", "", ""); !strings.Contains(body, `"svc"`) {
		t.Fatalf("the catalog of the journal is %s", body)
	}
	p.signal(t, syscall.SIGTERM)
	if status := p.status(t); status != 0 || !strings.Contains(p.stderr.String(), "has another catalog") {
		t.Fatalf("exit status %d; standard error:\n%s", status, p.stderr)
	}
}

func TestSandbox_RefusesWhatCannotBeMeant(t *testing.T) {
	dir := t.TempDir()
	broken := filepath.Join(dir, "broken.json")
	if err := os.WriteFile(broken, []byte(`{"gpc":{}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		variable string
		args     []string
		status   int
		says     string
	}{
		{"", []string{"x"}, 2, `no argument "x"`},
		{"", []string{"--catalog", broken}, 1, "gpc"},
		{"", []string{"--catalog", broken + "x"}, 1, "no such file"},
		{"", []string{"--identical-resend", "Maybe"}, 1, "Success or DuplicateRecord"},
		{"SANDBOX_ADDR=0.0.0.0:0", nil, 1, "not a loopback address"},
		{"SANDBOX_ADDR=nowhere", nil, 1, "set SANDBOX_ADDR"},
	} {
		p := begin(t, dir, []string{"SANDBOX_ADDR=127.0.0.1:0", c.variable}, append([]string{"sandbox"}, c.args...)...)
		if status := p.status(t); status != c.status || !strings.Contains(p.stderr.String(), c.says) {
			t.Errorf("%v %v: exit status %d, %s", c.variable, c.args, status, p.stderr)
		}
	}
}

// `make run` starts the sandbox too and writes its URL to the env file. The sandbox's state
// survives a restart.
func TestServe_StartsTheSandbox(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	variables := []string{endpoint(t), "TABLE_NAME=" + t.Name()}
	sandboxURL := func(p *process) string {
		t.Helper()
		p.ready(t)
		read, err := os.ReadFile(filepath.Join(dir, ".local", "env"))
		if err != nil {
			t.Fatal(err)
		}
		_, url, _ := strings.Cut(string(read), "SANDBOX_URL=")
		url, _, _ = strings.Cut(url, "\n")
		return url
	}
	p := begin(t, dir, variables, "serve")
	if status, body := call(t, http.MethodPut, sandboxURL(p)+"/control/catalog", "", smallCatalog); status != 200 {
		t.Fatalf("the catalog: %d %s", status, body)
	}
	p.signal(t, syscall.SIGTERM)
	if status := p.status(t); status != 0 {
		t.Fatalf("exit status %d; standard error:\n%s", status, p.stderr)
	}
	p = begin(t, dir, variables, "serve")
	if _, body := call(t, http.MethodGet, sandboxURL(p)+"/control/catalog", "", ""); !strings.Contains(body, `"svc"`) {
		t.Fatalf("after a restart the catalog is %s", body)
	}
}

// The console blocks of docs/sandbox.md print the output that they show. Random values in them
// follow from the seed.
func TestSandbox_DocsRunAsWritten(t *testing.T) {
	docs, err := os.ReadFile("../../docs/sandbox.md")
	if err != nil {
		t.Fatal(err)
	}
	var commands []string
	var outputs []string // of each command
	inside, command := false, false
	for line := range strings.Lines(string(docs)) {
		switch {
		case strings.HasPrefix(line, "```"):
			inside = strings.HasPrefix(line, "```console")
		case !inside:
		case strings.HasPrefix(line, "$ "):
			commands, outputs, command = append(commands, strings.TrimPrefix(line, "$ ")), append(outputs, ""), true
		case command && strings.HasPrefix(line, "    "):
			commands[len(commands)-1] += line
		default:
			outputs[len(outputs)-1] += line
			command = false
		}
	}
	if len(commands) < 20 {
		t.Fatalf("only %d commands", len(commands))
	}
	p := begin(t, t.TempDir(), []string{"SANDBOX_ADDR=127.0.0.1:0"}, "sandbox")
	url := strings.TrimSuffix(strings.Fields(p.says(t, "control"))[0], "/control")
	var script strings.Builder
	for i, c := range commands {
		script.WriteString(strings.ReplaceAll(c, "http://127.0.0.1:8090", url))
		fmt.Fprintf(&script, "echo '=== %d'\n", i)
	}
	bash := exec.CommandContext(t.Context(), "bash")
	bash.Stdin = strings.NewReader(script.String())
	out, err := bash.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	rest := string(out)
	for i, want := range outputs {
		var got string
		got, rest, _ = strings.Cut(rest, fmt.Sprintf("=== %d\n", i))
		if got != want {
			t.Errorf("%sgives\n%s\nand the docs say\n%s", commands[i], got, want)
		}
	}
}
