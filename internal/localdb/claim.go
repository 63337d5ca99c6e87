package localdb

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// claim creates the folder data, private to this user, and locks it. unlock or the end of this
// process releases the lock. If another process has the lock, the error names it.
func claim(data string) (unlock func(), err error) {
	if err := makePrivate(data); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(data, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the lock of the local database: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer lock.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("the lock of the local database: %s: %w", lock.Name(), err)
		}
		return nil, fmt.Errorf("the local database in %s is in use by %s: stop that first", data, holder(lock.Name()))
	}
	if err := errors.Join(lock.Truncate(0), writeLine(lock, os.Getpid())); err != nil {
		lock.Close()
		return nil, fmt.Errorf("the lock of the local database: %w", err)
	}
	return func() { lock.Close() }, nil
}

func writeLine(f *os.File, pid int) error {
	_, err := f.WriteString(strconv.Itoa(pid) + "\n")
	return err
}

func holder(lock string) string {
	pid, ok := readPID(lock)
	if !ok {
		return "another process"
	}
	return fmt.Sprintf("process %d (%s)", pid, commandLine(pid))
}

// pidFile holds the process id of the Java program over data. The lock shows that no marketmeter
// uses data; the pid shows whether a killed one left its database running.
func pidFile(data string) string { return filepath.Join(data, "pid") }

func writePID(data string, pid int) error {
	err := os.WriteFile(pidFile(data), []byte(strconv.Itoa(pid)+"\n"), 0o600)
	if err != nil {
		return fmt.Errorf("the process id of the local database: %w", err)
	}
	return nil
}

func readPID(file string) (pid int, ok bool) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
	return pid, err == nil && pid > 1
}

// stopLeftover ends the Java program that a killed process left running over data, if one exists.
// The process id alone proves nothing, because another process may have it now: its command line
// must name data.
func stopLeftover(data string) {
	pid, ok := readPID(pidFile(data))
	if !ok {
		return
	}
	ours := func() bool {
		line := commandLine(pid)
		return strings.Contains(line, "ServerRunner ") && strings.HasSuffix(line, "-dbPath "+data)
	}
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if !ours() {
			break
		}
		_ = syscall.Kill(pid, signal)
		for deadline := time.Now().Add(stopTimeout); ours() && time.Now().Before(deadline); {
			time.Sleep(20 * time.Millisecond)
		}
	}
	_ = os.Remove(pidFile(data))
}

// commandLine returns the command line of the process, its arguments separated by spaces, from
// /proc or, if that does not exist, from ps. It is empty if the process does not exist.
func commandLine(pid int) string {
	if raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil {
		return string(bytes.ReplaceAll(bytes.TrimRight(raw, "\x00"), []byte{0}, []byte{' '}))
	}
	out, _ := exec.Command("ps", "-ww", "-o", "command=", "-p", strconv.Itoa(pid)).Output()
	return strings.TrimSpace(string(out))
}
