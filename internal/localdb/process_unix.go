//go:build unix && !linux

package localdb

import "syscall"

// childAttributes protect the database from the terminal's Ctrl-C, because it must outlive the
// requests under way.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
