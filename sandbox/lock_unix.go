//go:build unix

package sandbox

import (
	"os"
	"syscall"
)

// lock locks the file for this process. The system releases the lock when the process ends, in any
// way.
func lock(file *os.File) error {
	return syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}
