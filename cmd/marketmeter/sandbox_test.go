package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

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
			t.Errorf("%sprints\n%s\nand the docs say\n%s", commands[i], got, want)
		}
	}
}
