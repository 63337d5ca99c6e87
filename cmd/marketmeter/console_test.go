package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/marketmeter/marketmeter/internal/programtest"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// console is the console blocks of a document: commands, and the output that each shows.
type console struct{ commands, outputs []string }

func readConsole(t *testing.T, file string) (c console) {
	t.Helper()
	document, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	inside, command := false, false
	for line := range strings.Lines(string(document)) {
		switch {
		case strings.HasPrefix(line, "```"):
			inside = strings.HasPrefix(line, "```console")
		case !inside:
		case strings.HasPrefix(line, "$ "):
			c.commands, c.outputs, command = append(c.commands, strings.TrimPrefix(line, "$ ")), append(c.outputs, ""), true
		case command && strings.HasPrefix(line, "    "):
			c.commands[len(c.commands)-1] += line
		default:
			c.outputs[len(c.outputs)-1] += line
			command = false
		}
	}
	return c
}

// run runs the commands in one shell, in the folder dir. Each must print the output that is shown.
// Text of the document that depends on the machine is replaced by pairs of old and new.
func (c console) run(t *testing.T, dir string, replace ...string) {
	t.Helper()
	var script strings.Builder
	for i, command := range c.commands {
		script.WriteString(strings.NewReplacer(replace...).Replace(command))
		fmt.Fprintf(&script, "echo '=== %d'\n", i)
	}
	bash := exec.CommandContext(t.Context(), "bash")
	bash.Dir, bash.Stdin = dir, strings.NewReader(script.String())
	out, err := bash.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	rest := string(out)
	for i, want := range c.outputs {
		var got string
		got, rest, _ = strings.Cut(rest, fmt.Sprintf("=== %d\n", i))
		if got != want {
			t.Errorf("%sprints\n%s\nand the document says\n%s", c.commands[i], got, want)
		}
	}
}

// A new user pastes the README's console blocks after `make run`: usage is reported and listed; a
// misspelt dimension is INVALID, with the reason; it is CREATED after a mapping and a retry.
func TestServe_READMERunsAsWritten(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("jq"); err != nil {
		programtest.Skip(t, "there is no jq")
	}
	c := readConsole(t, "../../README.md")
	if len(c.commands) < 10 {
		t.Fatalf("only %d commands", len(c.commands))
	}
	_, name := tabletest.Client(t)
	dir := t.TempDir()
	begin(t, dir, []string{endpoint(t), "TABLE_NAME=" + name}, "serve", "--sample").ready(t)
	c.run(t, dir)
}
