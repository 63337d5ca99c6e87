package localdb

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/marketmeter/marketmeter"
)

// wantPrivate wants data and its contents to be private to the owner, and to contain the file.
func wantPrivate(t *testing.T, data, file string) {
	t.Helper()
	found := false
	err := filepath.WalkDir(data, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		found = found || entry.Name() == file
		info, err := entry.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s is %v", path, info.Mode())
		}
		return err
	})
	if err != nil || !found {
		t.Errorf("%v; there is %s: %v", err, file, found)
	}
}

func TestData_IsItsOwnersAlone(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	db := startedOver(t, data)
	processOf(t, data)
	if _, err := CreateTable(t.Context(), db.Client(), marketmeter.Template, "kept"); err != nil {
		t.Fatal(err)
	}
	wantPrivate(t, data, "shared-local-instance.db")
}

// The folder is as an earlier version has left it, for Java (0755) or for a container (0777).
func TestData_IsMadePrivate(t *testing.T) {
	t.Parallel()
	for _, open := range []os.FileMode{0o755, 0o777} {
		data := t.TempDir()
		for file, mode := range map[string]os.FileMode{"": open, "shared-local-instance.db": 0o644, "lock": 0o644, "pid": 0o666} {
			path := filepath.Join(data, file)
			if file != "" {
				if err := os.WriteFile(path, nil, mode); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
		}
		outside := filepath.Join(t.TempDir(), "outside")
		if err := os.WriteFile(outside, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(filepath.Join(data, "tmp"), 0o755); err != nil {
			t.Fatal(err)
		}
		unlock, err := claim(data)
		if err != nil {
			t.Fatal(err)
		}
		unlock()
		wantPrivate(t, data, "shared-local-instance.db")
		if err := os.Symlink(outside, filepath.Join(data, "link")); err != nil {
			t.Fatal(err)
		}
		if unlock, err = claim(data); err != nil {
			t.Fatal(err)
		}
		unlock()
		if info, err := os.Stat(outside); err != nil || info.Mode().Perm() != 0o644 {
			t.Errorf("what a link leads to is %v, %v; want it as it was", info.Mode(), err)
		}
	}
}
