package localdb

import "syscall"

// childAttributes protect the database from the terminal's Ctrl-C, because it must outlive the
// requests under way. They make the kernel end it when this process is killed.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
