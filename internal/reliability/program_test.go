package reliability

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/programtest"
)

// patience bounds every wait for a process.
const patience = 5 * time.Minute

// installation is marketmeter as users have it: the program, in its own folder with a .local.
type installation struct {
	program, dir string
	environment  []string
}

// TestMain removes the program that the tests have built.
func TestMain(m *testing.M) {
	status := m.Run()
	if build.folder != "" {
		_ = os.RemoveAll(build.folder)
	}
	os.Exit(status)
}

// build is the program, built once for all tests.
var build struct {
	once   sync.Once
	folder string
	err    error
}

func buildProgram() {
	if build.folder, build.err = os.MkdirTemp("", "marketmeter-"); build.err != nil {
		return
	}
	out, err := exec.Command("go", "build", "-o", filepath.Join(build.folder, "marketmeter"), "../../cmd/marketmeter").CombinedOutput()
	if err != nil {
		build.err = fmt.Errorf("go build: %w\n%s", err, out)
	}
}

// install installs the program. It uses the checkout's copy of DynamoDB Local. Of the environment
// it passes on what the machine needs, but neither a database nor a table: those are in variables.
func install(t *testing.T, variables ...string) *installation {
	t.Helper()
	build.once.Do(buildProgram)
	if build.err != nil {
		t.Fatal(build.err)
	}
	i := &installation{program: filepath.Join(build.folder, "marketmeter"), dir: t.TempDir()}
	jars, err := filepath.Abs("../../.local")
	if err != nil {
		t.Fatal(err)
	}
	i.environment = append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "JAVA_HOME=" + os.Getenv("JAVA_HOME"), "LOCAL_JARS=" + jars,
	}, variables...)
	return i
}

// command is a command of the program that ends by itself, or with ctx.
func (i *installation) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, i.program, args...)
	cmd.Dir, cmd.Env = i.dir, i.environment
	return cmd
}

// newKey makes a key that has all permissions in the organization, as an operator does.
func (i *installation) newKey(ctx context.Context, org string) (key string, err error) {
	out, err := i.command(ctx, "key", "create", "--org", org, "--scope", "admin").Output()
	lines := strings.Fields(string(out))
	if err == nil && len(lines) == 0 {
		err = fmt.Errorf("it printed no key")
	}
	if err != nil {
		return "", err
	}
	return lines[len(lines)-1], nil
}

// localServer is a running `marketmeter serve`, the leader of a process group.
type localServer struct {
	*exec.Cmd
	url   string        // set when it is ready
	said  chan string   // its lines of standard output
	ended chan struct{} // closed when the process has ended
	log   string        // the file of its standard error
}

func (i *installation) serve(t *testing.T, args ...string) *localServer {
	t.Helper()
	log, err := os.CreateTemp(t.TempDir(), "log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	s := &localServer{
		Cmd:  i.command(context.Background(), append([]string{"serve"}, args...)...),
		said: make(chan string, 1000), ended: make(chan struct{}), log: log.Name(),
	}
	s.Stderr = log
	s.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdout, err := s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			s.said <- lines.Text()
		}
		_ = s.Wait()
		close(s.ended)
	}()
	t.Cleanup(s.stop)
	return s
}

// ready waits until it serves.
func (s *localServer) ready(t *testing.T) {
	t.Helper()
	limit := time.After(patience)
	for {
		select {
		case line := <-s.said:
			if rest, ok := strings.CutPrefix(line, "Serving at "); ok {
				s.url, _, _ = strings.Cut(rest, ",")
			}
			if strings.HasPrefix(line, "Ready") {
				return
			}
		case <-s.ended:
			t.Fatalf("it ended before it was ready:\n%s", s.errors())
		case <-limit:
			t.Fatalf("it was not ready within %s:\n%s", patience, s.errors())
		}
	}
}

// stop stops it, if it runs, and the database that it started.
func (s *localServer) stop() {
	_ = s.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.ended:
	case <-time.After(patience):
		_ = s.Process.Kill()
		<-s.ended
	}
}

// errors is the end of its log.
func (s *localServer) errors() string {
	text, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-2000):])
}

// databaseOver is the process of the DynamoDB Local that stores its data in the folder. It skips
// the rest of a test if that process runs in a container, since the pid file then has only the
// docker program.
func databaseOver(t *testing.T, data string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(data, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	// wide, for systems without /proc: ps cuts lines
	line, err := exec.Command("ps", "-ww", "-o", "command=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		t.Fatalf("process %d, which should be the database: %v", pid, err)
	}
	if !strings.HasSuffix(strings.TrimSpace(string(line)), "-dbPath "+data) {
		programtest.Skip(t, "DynamoDB Local is no process of ours but in a container")
	}
	return pid
}

// httpResponse is the response to a request.
type httpResponse struct {
	status int
	header http.Header
	body   []byte
}

func (a httpResponse) String() string { return fmt.Sprintf("%d %.300s", a.status, a.body) }

// shed reports whether the response asks the client to repeat the request: 503, the time to wait,
// and a JSON string with the reason.
func (a httpResponse) shed() bool {
	var why string
	return a.status == http.StatusServiceUnavailable && a.header.Get("Retry-After") != "" && json.Unmarshal(a.body, &why) == nil && why != ""
}

// send sends a request and reads the whole response.
func send(ctx context.Context, client *http.Client, method, url, key, body string) (httpResponse, error) {
	request, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return httpResponse{}, err
	}
	request.Header.Set("Authorization", "Key "+key)
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return httpResponse{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return httpResponse{response.StatusCode, response.Header, text}, err
}
