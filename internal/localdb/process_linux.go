package localdb

import "syscall"

// childAttributes keep the terminal's Ctrl-C from the database, which must outlive the requests
// under way, and have the kernel end it when this process is killed.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
