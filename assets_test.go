package marketmeter

import (
	"os"
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
