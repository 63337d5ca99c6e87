package localdb

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// version of DynamoDB Local; pom.xml has it too.
const version = "3.1.0"

//go:embed pom.xml
var pom []byte

// jarsDir is the folder of the jars. It exists only with all of them: fetch creates it by a rename.
func jarsDir(parent string) string { return filepath.Join(parent, "dynamodb-local-"+version) }

func fetched(jars string) bool {
	_, err := os.Stat(jars)
	return err == nil
}

// fetch makes Maven copy DynamoDB Local into the folder jars, all of it or nothing: the next fetch
// removes what an interrupted one left. Two fetches at the same time wait for each other.
func fetch(ctx context.Context, mvn, jars string, say func(string)) error {
	part := jars + ".part"
	if err := os.MkdirAll(filepath.Dir(jars), 0o755); err != nil {
		return fmt.Errorf("the folder for DynamoDB Local: %w", err)
	}
	unlock, err := await(part + ".lock")
	if err != nil {
		return err
	}
	defer unlock()
	if fetched(jars) {
		return nil
	}
	say("Fetching DynamoDB Local " + version + " with Maven, 50 MB, this once")
	pomFile := filepath.Join(part, "pom.xml")
	err = errors.Join(os.RemoveAll(part), os.Mkdir(part, 0o755), os.WriteFile(pomFile, pom, 0o644))
	if err != nil {
		return fmt.Errorf("the folder for DynamoDB Local: %w", err)
	}
	var output lastLines
	cmd := exec.CommandContext(ctx, mvn, "--quiet", "--batch-mode", "-Dstyle.color=never",
		"--strict-checksums", "--file", pomFile, "dependency:copy-dependencies", "-DoutputDirectory="+part)
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("fetching DynamoDB Local %s with Maven: %w: %s", version, err, &output)
	}
	if err := os.Rename(part, jars); err != nil {
		return fmt.Errorf("the folder for DynamoDB Local: %w", err)
	}
	return nil
}

// await takes the lock on file, and waits for as long as another process has it.
func await(file string) (unlock func(), err error) {
	lock, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("the lock for fetching DynamoDB Local: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		lock.Close()
		return nil, fmt.Errorf("the lock for fetching DynamoDB Local: %w", err)
	}
	return func() { lock.Close() }, nil
}
