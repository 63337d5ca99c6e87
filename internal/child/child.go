// Package child runs a command as a shell would: it forwards signals and returns its exit status.
package child

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Run runs the command in the environment, forwards SIGINT and SIGTERM to it, and returns its exit
// status: 128 and the signal if one ended it, as a shell would. If the command can't be run, it
// returns the reason and the status of a shell: 126 if the command exists, 127 if it does not.
//
// With a terminal the command stays in its process group, or else it could not read from it; there,
// Ctrl-C reaches the command directly. Without a terminal the command gets its own group. A signal
// reaches the whole group, so that what `go test` has started ends too.
func Run(args, environment []string, stdin io.Reader, stdout, stderr io.Writer) (status int, err error) {
	child := exec.Command(args[0], args[1:]...)
	child.Env, child.Stdin, child.Stdout, child.Stderr = environment, stdin, stdout, stderr
	terminal := hasTerminal()
	child.SysProcAttr = &syscall.SysProcAttr{Setpgid: !terminal}

	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	if err := child.Start(); err != nil {
		if exists(args[0]) {
			return 126, err
		}
		return 127, err
	}
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	for {
		select {
		case s := <-signals:
			if !terminal {
				_ = syscall.Kill(-child.Process.Pid, s.(syscall.Signal))
			} else if s != os.Interrupt {
				_ = child.Process.Signal(s)
			}
		case err := <-ended:
			return statusOf(err)
		}
	}
}

// exists reports whether a file exists that the command's name means. A name without a slash is
// looked up in the folders of PATH. For a command that can't be run, a shell exits with 126 if the
// file exists, and with 127 if it does not.
func exists(command string) bool {
	if strings.Contains(command, "/") {
		_, err := os.Stat(command)
		return err == nil || errors.Is(err, os.ErrPermission)
	}
	return command != "" && slices.ContainsFunc(filepath.SplitList(os.Getenv("PATH")), func(dir string) bool {
		found, err := os.Stat(filepath.Join(dir, command))
		return err == nil && !found.IsDir()
	})
}

func hasTerminal() bool {
	terminal, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	return terminal.Close() == nil
}

func statusOf(err error) (int, error) {
	if err == nil {
		return 0, nil
	}
	failed, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return 1, err
	}
	if how, ok := failed.Sys().(syscall.WaitStatus); ok && how.Signaled() {
		return 128 + int(how.Signal()), nil
	}
	return failed.ExitCode(), nil
}
