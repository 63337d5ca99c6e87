package localdb

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/marketmeter/marketmeter/internal/programtest"
)

// The container's user can read and write existing files and create new ones. No other user can,
// not even files that the container's user has created.
func TestContainerData_IsOfItsUserAndTheOwner(t *testing.T) {
	if os.Getuid() != 0 {
		programtest.Skip(t, "only root can act as other users")
	}
	const container, stranger = 12345, 12346
	parent, err := os.MkdirTemp("", "marketmeter-test-") // not t.TempDir, whose parent other users can't enter
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(parent) })
	if err := os.Chmod(parent, 0o755); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(parent, "data")
	programs(t, map[string]string{"docker": `case "$*" in *"--entrypoint id "*) echo 12345 ;; esac`})
	as := func(uid uint32, script string) error {
		cmd := exec.Command("/bin/sh", "-c", "umask 0; "+script, "sh", data)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		return cmd.Run()
	}
	for _, what := range []string{"a new folder", "the folder of a run before"} {
		unlock, err := claim(data)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(data, "of-java.db"), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := findRunner(t.Context(), Options{Data: data, Jars: parent}); err != nil {
			t.Fatal(err)
		}
		if err := as(container, `read line <"$1/of-java.db"; echo y >>"$1/of-java.db" && echo x >>"$1/of-container.db" && [ -r "$1/of-container.db" ]`); err != nil {
			t.Errorf("%s: its user: %v", what, err)
		}
		for _, script := range []string{
			`: <"$1/of-java.db"`, `: <"$1/of-container.db"`, `: >>"$1/of-container.db"`, `: >"$1/more"`, `cd "$1"`,
		} {
			if as(stranger, script) == nil {
				t.Errorf("%s: another user: %s", what, script)
			}
		}
		for _, file := range []string{"", "of-java.db", "of-container.db", "lock"} {
			info, err := os.Stat(filepath.Join(data, file))
			if err != nil || info.Mode().Perm()&0o007 != 0 {
				t.Errorf("%s: %q is %v, %v", what, file, info.Mode(), err)
			}
		}
		// The folder's list names only the owner and the container's user.
		list := make([]byte, 200)
		n, err := syscall.Getxattr(data, "system.posix_acl_access", list)
		if err != nil || n != 4+5*8 || !bytes.Contains(list, []byte{0x02, 0, 7, 0, 0x39, 0x30, 0, 0}) {
			t.Errorf("%s: the folder's list is %x, %v", what, list[:n], err)
		}
		unlock()
	}
}
