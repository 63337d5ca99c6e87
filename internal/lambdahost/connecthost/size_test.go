package connecthost

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/marketmeter/marketmeter/internal/programtest"
)

// A function stays under 10 MB, as make build makes it. Those with the marketplaces do because
// they have nothing else: no other operations, and no Plan; the others do because they have no
// marketplaces.
func TestFunctions_StayUnder10MB(t *testing.T) {
	t.Parallel()
	programtest.Long(t)
	for _, name := range []string{"connection", "report", "plan", "submit", "reconcile"} {
		program := filepath.Join(t.TempDir(), "bootstrap")
		build := exec.Command("go", "build", "-tags=lambda.norpc,nethttpomithttp2", "-trimpath", "-ldflags=-s", "-o", program, "../../../functions/"+name)
		build.Env = append(os.Environ(), "GOOS=linux", "GOARCH=arm64", "CGO_ENABLED=0", "GOFLAGS=")
		if output, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, output)
		}
		info, err := os.Stat(program)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() >= 10_000_000 {
			t.Errorf("functions/%s has %d bytes", name, info.Size())
		}
	}
}
