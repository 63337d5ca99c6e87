package programtest

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

var motoURL = regexp.MustCompile(`http://127\.0\.0\.1:\d+`)

// Moto starts moto's server, which stands for AWS's services, and returns its URL. The server ends
// with the test. It is slow to start: share one.
func Moto(t testing.TB) string {
	t.Helper()
	program := motoServer()
	if program == "" {
		Skip(t, "moto's server is not there: make .local/moto/bin/moto_server installs it")
	}
	read, write := io.Pipe()
	// Port 0: the server takes a free one and logs it.
	command := exec.Command(program, "-H", "127.0.0.1", "-p", "0")
	command.Env = append(os.Environ(), "PYTHONUNBUFFERED=1")
	command.Stdout, command.Stderr = write, write
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = command.Wait() // it is killed
		_ = write.Close()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = command.Process.Kill() // it may have ended
		<-ended
	})
	lines, said := bufio.NewScanner(read), ""
	for lines.Scan() {
		if url := motoURL.FindString(lines.Text()); url != "" {
			go func() { _, _ = io.Copy(io.Discard, read) }() // it logs each request
			return url
		}
		said += lines.Text() + "\n"
	}
	t.Fatalf("moto's server does not start:\n%s", said)
	return ""
}

// motoServer returns the path of the program in this repository, or an empty string.
func motoServer() string {
	dir, err := os.Getwd()
	for err == nil {
		if program := filepath.Join(dir, ".local/moto/bin/moto_server"); executable(program) {
			return program
		}
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil || dir == filepath.Dir(dir) {
			return ""
		}
		dir = filepath.Dir(dir)
	}
	return ""
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&0o111 != 0
}
