//go:build unix

package sandbox

import (
	"errors"
	"os"
	"syscall"
)

// lock locks the file for this process. The system releases the lock when the process ends, in any
// way.
func lock(file *os.File) error {
	return syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}

// syncFolder syncs the folder, so that a file created in it survives a power cut.
func syncFolder(name string) error {
	folder, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
