//go:build unix && !linux

package localdb

import "syscall"

// childAttributes keep the terminal's Ctrl-C from the database, which must outlive the requests
// under way.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
