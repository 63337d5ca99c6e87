package lambdahost_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/marketmeter/marketmeter/internal/lambdahost"
)

// A time with a monotonic part shows it: what is computed from it takes no notice of the hours in
// which Lambda had the process frozen.
func TestNow_IsTheWallAlone(t *testing.T) {
	t.Parallel()
	if now := lambdahost.Now().String(); strings.Contains(now, "m=") {
		t.Errorf("the time is %s", now)
	}
	// No function is given another clock. time.Now() itself measures how long something takes.
	clock := regexp.MustCompile(`time\.Now\b[^(]`)
	sources := 0
	for _, root := range []string{".", "../../functions"} {
		err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			source, err := os.ReadFile(path)
			if found := clock.Find(source); found != nil {
				t.Errorf("%s gives away %s: it must be lambdahost.Now", path, found)
			}
			sources++
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if sources < 20 {
		t.Errorf("only %d files were read", sources)
	}
}
