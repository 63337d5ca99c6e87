package localdb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/marketmeter/marketmeter"
	"github.com/marketmeter/marketmeter/internal/programtest"
)

// jars is the checkout's own folder, so that DynamoDB Local is fetched once and not by every test.
const jars = "../../.local"

func startedOver(t *testing.T, data string) *DB {
	t.Helper()
	db, err := Start(t.Context(), Options{Data: data, Jars: jars, Say: func(s string) { t.Log(s) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Stop)
	return db
}

// javaFor returns the runner that uses Java, with the jars of jars.
func javaFor(t *testing.T) javaRunner {
	t.Helper()
	found, err := findRunner(t.Context(), Options{Jars: jars})
	if err != nil {
		t.Fatal(err)
	}
	java, ok := found.(javaRunner)
	if !ok {
		programtest.Skip(t, "there is no Java 17 with Maven: DynamoDB Local runs in a container")
	}
	return java
}

// processOf returns the process id of the database over data. It skips the rest of a test if the
// database runs in a container.
func processOf(t *testing.T, data string) int {
	t.Helper()
	javaFor(t)
	pid, ok := readPID(pidFile(data))
	if !ok || !strings.Contains(commandLine(pid), mainClass) {
		t.Fatalf("%s names process %d, which runs %q", pidFile(data), pid, commandLine(pid))
	}
	return pid
}

func TestData_OutlivesTheDatabase(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "a folder")
	db := startedOver(t, data)
	if _, err := CreateTable(t.Context(), db.Client(), marketmeter.Template, "kept"); err != nil {
		t.Fatal(err)
	}
	pid := processOf(t, data)

	_, err := Start(t.Context(), Options{Data: data, Jars: jars})
	if want := fmt.Sprintf("in use by process %d", os.Getpid()); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("a second Start over the same data: %v; want an error with %q", err, want)
	}

	db.Stop()
	if line := commandLine(pid); line != "" {
		t.Errorf("after Stop process %d still runs %s", pid, line)
	}
	if err := db.Err(); err != nil {
		t.Errorf("after Stop: %v", err)
	}

	again := startedOver(t, data)
	created, err := CreateTable(t.Context(), again.Client(), marketmeter.Template, "kept")
	if created || err != nil {
		t.Errorf("the table after a restart: created %v, %v; want it there", created, err)
	}
}

func TestDB_ReportsItsDeath(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	db := startedOver(t, data)
	if err := syscall.Kill(processOf(t, data), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-db.Done()
	if err := db.Err(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("Err is %v; want how it ended", err)
	}
}

func TestStart_EndsWithTheContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	interrupted := errors.New("interrupted")
	scripts := []string{"trap 'exit 0' TERM; while :; do sleep 0.1; done"}
	time.AfterFunc(100*time.Millisecond, func() { cancel(interrupted) })
	_, err := startWith(ctx, scripted{&scripts, nil}, "", func() {})
	if !errors.Is(err, interrupted) {
		t.Errorf("startWith: %v; want why the context ended", err)
	}
}

// The leftover is what a killed marketmeter leaves on a system without Pdeathsig.
func TestStart_StopsALeftover(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	java := javaFor(t)
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	command := java.command(port, data)
	leftover := exec.Command(command[0], command[1:]...)
	if err := leftover.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- leftover.Wait() }()
	if err := writePID(data, leftover.Process.Pid); err != nil {
		t.Fatal(err)
	}

	startedOver(t, data)
	select {
	case <-ended:
	default:
		t.Error("the leftover still runs beside the new database")
		_ = leftover.Process.Kill()
	}
}

func TestStopLeftover_IgnoresReusedPID(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	stranger := exec.Command("cat")
	in, _ := stranger.StdinPipe()
	out, _ := stranger.StdoutPipe()
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	if err := writePID(data, stranger.Process.Pid); err != nil {
		t.Fatal(err)
	}
	stopLeftover(data)
	fmt.Fprintln(in, "alive")
	in.Close()
	said, _ := io.ReadAll(out)
	if err := stranger.Wait(); err != nil || string(said) != "alive\n" {
		t.Errorf("the stranger ended with %v, having said %q", err, said)
	}
}

// scripted runs one shell script after the other, with the port as $1; then the next runner.
type scripted struct {
	scripts *[]string
	then    runner
}

func (s scripted) command(port int, data string) []string {
	if len(*s.scripts) == 0 {
		return s.then.command(port, data)
	}
	script := (*s.scripts)[0]
	*s.scripts = (*s.scripts)[1:]
	return []string{"sh", "-c", script, "sh", fmt.Sprint(port)}
}

func (s scripted) clean(string) {}

func TestStart_RetriesOnAnotherPort(t *testing.T) {
	t.Parallel()
	java := javaFor(t)
	scripts := []string{
		"echo java.net.BindException: Address already in use; exit 1",
		"echo Bind for 127.0.0.1:$1 failed: port is already allocated; exit 125",
	}
	db, err := startWith(t.Context(), scripted{&scripts, java}, "", func() {})
	if err != nil {
		t.Fatal(err)
	}
	db.Stop()
}

func TestStart_ReportsAnEarlyEndWithItsOutput(t *testing.T) {
	t.Parallel()
	scripts := []string{`printf 'Error: no room\n\tat Main.main(Main.java)\n' >&2; exit 3`}
	before := time.Now()
	_, err := startWith(t.Context(), scripted{&scripts, nil}, "", func() {})
	if got, want := fmt.Sprint(err), "DynamoDB Local does not run: it ended at once (exit status 3): Error: no room"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if took := time.Since(before); took > startTimeout/2 {
		t.Errorf("it took %s to notice", took)
	}
}

func TestLastLines_KeepTheEnd(t *testing.T) {
	t.Parallel()
	var output lastLines
	for i := range 10_000 {
		fmt.Fprintln(&output, "line", i)
	}
	want := "line 9995 | line 9996 | line 9997 | line 9998 | line 9999"
	if got := output.String(); got != want || len(output.text) > keptBytes {
		t.Errorf("%d bytes kept, printed as %q; want %q", len(output.text), got, want)
	}
}

func TestJavaVersion_IsRead(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{
		"openjdk version \"17.0.15\" 2025-04-15\nOpenJDK Runtime Environment":      17,
		"java version \"1.8.0_402\"\nJava(TM) SE Runtime Environment":              8,
		"openjdk version \"11.0.2\" 2019-01-15":                                    11,
		"openjdk version \"21\" 2023-09-19":                                        21,
		"openjdk version \"22-ea\" 2024-03-19":                                     22,
		"Picked up JAVA_TOOL_OPTIONS: -Xmx1g\nopenjdk version \"25.0.1\" 2026-1-1": 25,
		"Unable to locate a Java Runtime.":                                         0,
	} {
		if got, ok := javaVersion(text); got != want || ok != (want > 0) {
			t.Errorf("%q is Java %d, %v; want %d", text, got, ok, want)
		}
	}
}

// programs sets PATH to a new folder with only these shell scripts. The scripts can use only the
// shell's builtins.
func programs(t *testing.T, scripts map[string]string) {
	t.Helper()
	dir := t.TempDir()
	for name, script := range scripts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
	t.Setenv("JAVA_HOME", "")
}

func TestStart_NamesWhatIsMissing(t *testing.T) {
	const java11 = `echo 'openjdk version "11.0.2" 2019-01-15' >&2`
	const java17 = `echo 'openjdk version "17.0.15" 2025-04-15' >&2`
	for _, test := range []struct {
		name    string
		scripts map[string]string
		want    []string
	}{
		{"nothing", nil, []string{"there is no java in JAVA_HOME or PATH", "there is no docker in PATH"}},
		{"old Java", map[string]string{"java": java11}, []string{"/java is Java 11", "there is no docker in PATH"}},
		{"no Java behind java", map[string]string{"java": "exit 1"}, []string{"does not say which Java it is"}},
		{
			"no compiler",
			map[string]string{"java": `case "$*" in *jdk.compiler*) exit 1 ;; esac; ` + java17, "mvn": ""},
			[]string{"/java has no compiler (it is a JRE, and a JDK is needed)", "there is no docker in PATH"},
		},
		{
			"another DynamoDB Local than can be bound",
			map[string]string{
				"java": `case "$*" in *-version) ` + java17 + ` ;; *) echo 'error: cannot find symbol'; exit 1 ;; esac`,
				"mvn":  "",
			},
			[]string{"compiling what binds DynamoDB Local 3.1.0 to loopback: exit status 1: error: cannot find symbol"},
		},
		{"no Maven", map[string]string{"java": java17}, []string{"not Maven (mvn)", "there is no docker in PATH"}},
		{"no engine", map[string]string{"docker": "exit 1"}, []string{"there is no java", "its engine does not run"}},
		{
			"no image",
			map[string]string{"docker": `[ "$1" = version ] || { echo no such host >&2; exit 1; }`},
			[]string{"fetching the container image amazon/dynamodb-local:3.1.0: exit status 1: no such host"},
		},
		{
			"no network",
			map[string]string{"java": java17, "mvn": "echo '[ERROR] Could not transfer artifact'; exit 1"},
			[]string{"with Maven: exit status 1: [ERROR] Could not transfer artifact"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			programs(t, test.scripts)
			_, err := Start(t.Context(), Options{Data: t.TempDir(), Jars: t.TempDir()})
			if err == nil || strings.Contains(err.Error(), "\n") {
				t.Fatalf("Start: %v; want one line", err)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("Start: %v\nwant %q in it", err, want)
				}
			}
		})
	}
}

func TestFetch_IsRepeatedAfterAnInterruption(t *testing.T) {
	const java = `echo 'openjdk version "17.0.15" 2025-04-15' >&2; exit 0`
	const mvn = `for a; do case "$a" in -DoutputDirectory=*) dir="${a#*=}";; esac; done; `
	home := t.TempDir()
	options := Options{Jars: home}

	programs(t, map[string]string{"java": java, "mvn": mvn + `: >"$dir/half.jar"; exit 130`})
	if _, err := findRunner(t.Context(), options); err == nil {
		t.Fatal("a fetch that failed is taken for done")
	}
	programs(t, map[string]string{"java": java, "mvn": mvn + `: >"$dir/whole.jar"`})
	if _, err := findRunner(t.Context(), options); err != nil {
		t.Fatal(err)
	}
	got, err := filepath.Glob(filepath.Join(home, "dynamodb-local-3.1.0*", "*.jar"))
	if want := []string{filepath.Join(jarsDir(home), "whole.jar")}; err != nil || !slices.Equal(got, want) {
		t.Errorf("after both the jars are %q, %v; want %q", got, err, want)
	}
	programs(t, map[string]string{"java": java, "mvn": "exit 1"})
	if _, err := findRunner(t.Context(), options); err != nil {
		t.Errorf("what exists needs no Maven: %v", err)
	}
}

func TestFetch_EndsWithTheContext(t *testing.T) {
	programs(t, map[string]string{
		"java": `echo 'openjdk version "17.0.15" 2025-04-15' >&2`,
		"mvn":  "while :; do :; done",
	})
	ctx, cancel := context.WithCancelCause(t.Context())
	interrupted := errors.New("interrupted")
	_, err := findRunner(ctx, Options{Jars: t.TempDir(), Say: func(string) { cancel(interrupted) }})
	if !errors.Is(err, interrupted) {
		t.Errorf("findRunner: %v; want why the context ended", err)
	}
}

// No image can be pulled in this test's environment: the Java program stands in for it, and a
// script for the engine.
func TestContainer_IsRunAndRemoved(t *testing.T) {
	t.Parallel()
	java := javaFor(t).command(4321, "")
	docker := filepath.Join(t.TempDir(), "docker")
	script := fmt.Sprintf(`#!/bin/sh
if [ "$1" != run ]; then echo "$@" >>"$0.log"; exit; fi
while [ "$1" != -p ]; do shift; done
port=${2#127.0.0.1:}
exec '%s' -port "${port%%:8000}" -inMemory
`, strings.Join(java[:len(java)-3], "' '"))
	if err := os.WriteFile(docker, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	db, err := startWith(t.Context(), dockerRunner{docker, "a-name", []string{loopback}}, "", func() {})
	if err != nil {
		t.Fatal(err)
	}
	db.Stop()
	ran, err := os.ReadFile(docker + ".log")
	if want := "rm --force a-name\nrm --force a-name\n"; err != nil || string(ran) != want {
		t.Errorf("before and after docker ran %q, %v; want %q", ran, err, want)
	}
}

func TestContainer_Command(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	got := dockerRunner{"/usr/bin/docker", "a-name", []string{loopback}}.command(4321, data)
	want := []string{
		"/usr/bin/docker", "run", "--rm", "--name", "a-name", "-p", "127.0.0.1:4321:8000", "-v", data + ":/data",
		"amazon/dynamodb-local:3.1.0", "-jar", "DynamoDBLocal.jar", "-sharedDb", "-disableTelemetry", "-port", "8000",
		"-dbPath", "/data",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("over a folder (-want +got):\n%s", diff)
	}
	got = dockerRunner{"/usr/bin/docker", "a-name", []string{loopback, "172.17.0.1", "fd00::1"}}.command(4321, "")
	want = append(slices.DeleteFunc(want[:len(want)-2], func(s string) bool { return s == "-v" || s == data+":/data" }), "-inMemory")
	want = slices.Insert(want, slices.Index(want, "127.0.0.1:4321:8000")+1, "-p", "172.17.0.1:4321:8000", "-p", "[fd00::1]:4321:8000")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("in memory (-want +got):\n%s", diff)
	}
	over, inMemory := containerName(data), containerName("")
	if over != containerName(data) || inMemory == containerName("") {
		t.Error("a container is not named after its data, or one in memory not like no other")
	}
}
