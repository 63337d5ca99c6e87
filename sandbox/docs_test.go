package sandbox_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every rule of docs/sandbox.md names an existing test, and every test of a marketplace is named by
// a rule.
func TestDocs_EveryRuleNamesItsTest(t *testing.T) {
	docs, err := os.ReadFile("../docs/sandbox.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rules, _ := strings.Cut(string(docs), "## The rules, and the tests that name them")
	rules, _, _ = strings.Cut(rules, "\n## ")
	tests := map[string]bool{}
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllStringSubmatch(string(text), -1) {
			tests[m[1]] = true
		}
	}
	named := map[string]bool{}
	name := regexp.MustCompile("`(Test\\w+)`")
	rows := 0
	for line := range strings.Lines(rules) {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| marketplace ") {
			continue
		}
		rows++
		found := name.FindAllStringSubmatch(line, -1)
		if len(found) == 0 {
			t.Errorf("no test: %s", line)
		}
		for _, m := range found {
			named[m[1]] = true
			if !tests[m[1]] {
				t.Errorf("there is no %s", m[1])
			}
		}
	}
	if rows < 60 {
		t.Errorf("only %d rules", rows)
	}
	for test := range tests {
		if regexp.MustCompile(`^Test(AWS|Azure|Google)_`).MatchString(test) && !named[test] {
			t.Errorf("no rule names %s", test)
		}
	}
}
