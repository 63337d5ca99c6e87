package main

import (
	"strings"
	"testing"
)

// The console blocks of docs/sandbox.md print the output that they show. Random values in them
// follow from the seed.
func TestSandbox_DocsRunAsWritten(t *testing.T) {
	c := readConsole(t, "../../docs/sandbox.md")
	if len(c.commands) < 20 {
		t.Fatalf("only %d commands", len(c.commands))
	}
	p := begin(t, t.TempDir(), []string{"SANDBOX_ADDR=127.0.0.1:0"}, "sandbox")
	url := strings.TrimSuffix(strings.Fields(p.says(t, "control"))[0], "/control")
	c.run(t, "", "http://127.0.0.1:8090", url)
}
