package marketmeter

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The project states its license, how to report a vulnerability, and what it is compatible with.
func TestProject_HasWhatItsUsersLookFor(t *testing.T) {
	for file, text := range map[string]string{
		"LICENSE":           "Apache License",
		"SECURITY.md":       "report a vulnerability in private",
		".editorconfig":     "root = true",
		"README.md":         "compatible with Suger's\nmetering API",
		"Makefile":          "$(VULN) -db file://",
		"tools/vuln/go.mod": "golang.org/x/vulndb/cmd/indexdb",
	} {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Error(err)
		} else if !strings.Contains(string(content), text) {
			t.Errorf("%s does not hold %q", file, text)
		}
	}
}

// Each test that a document, a comment or a script names exists. A name may be the beginning of
// several, as in -run TestDelete.
func TestProject_NamesTestsThatExist(t *testing.T) {
	defined := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`)
	name := regexp.MustCompile(`\b(?:Test|Fuzz|Benchmark)[A-Z]\w*`)
	var tests strings.Builder
	named := map[string]string{} // the file that names it
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if path != "." && (strings.HasPrefix(entry.Name(), ".") || path == "bin") {
				return filepath.SkipDir
			}
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, found := range defined.FindAllSubmatch(text, -1) {
			tests.WriteString(" " + string(found[1]))
		}
		for _, found := range name.FindAll(text, -1) {
			named[string(found)] = path
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, file := range named {
		if !strings.Contains(tests.String(), " "+name) {
			t.Errorf("%s names %s, which does not exist", file, name)
		}
	}
}
