package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/marketmeter/marketmeter/internal/programtest"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// Clients that send bodies over the limit without end get a response, and the server closes the
// connection. Together they use less memory than the bytes that they sent.
func TestServe_RespondsToBodiesWithoutEnd(t *testing.T) {
	t.Parallel()
	_, name := tabletest.Client(t)
	dir, variables := t.TempDir(), []string{endpoint(t), "TABLE_NAME=" + name}
	// Its memory is that of the program, without what -race adds to the test binary.
	program := filepath.Join(t.TempDir(), "marketmeter")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	server := beginFile(t, program, dir, variables, "serve")
	url := server.ready(t)
	key := newKey(t, dir, variables, "--org", "o1", "--scope", "config")
	const clients = 12
	chunk := strings.Repeat(" ", 64<<10)
	for _, test := range []struct {
		name, key, header, chunk string
		want                     int
	}{
		{"10 GB declared", key, "Content-Length: 10000000000", chunk, 413},
		{"in chunks", key, "Transfer-Encoding: chunked", fmt.Sprintf("%x\r\n%s\r\n", len(chunk), chunk), 413},
		{"10 GB declared without a key", "none", "Content-Length: 10000000000", chunk, 401},
		{"in chunks without a key", "none", "Transfer-Encoding: chunked", fmt.Sprintf("%x\r\n%s\r\n", len(chunk), chunk), 401},
	} {
		before := programtest.PeakMemory(t, server.Process.Pid)
		var sent atomic.Int64
		var all sync.WaitGroup
		for range clients {
			connection := dial(t, url)
			fmt.Fprintf(connection, "PUT /org/o1/usageMeteringConfigInfo HTTP/1.1\r\nHost: x\r\nAuthorization: Key %s\r\n%s\r\n\r\n", test.key, test.header)
			all.Go(func() {
				for err := error(nil); err == nil; { // until the server closes the connection
					_, err = io.WriteString(connection, test.chunk)
					sent.Add(int64(len(chunk)))
				}
			})
			all.Go(func() {
				response, err := http.ReadResponse(bufio.NewReader(connection), nil)
				if err != nil {
					t.Errorf("%s: %v; want a response", test.name, err)
					return
				}
				defer response.Body.Close()
				var text string
				if err := json.NewDecoder(response.Body).Decode(&text); err != nil || response.StatusCode != test.want || !response.Close {
					t.Errorf("%s: %d %q, %v, closes: %v; want %d, a JSON string, and the connection closed",
						test.name, response.StatusCode, text, err, response.Close, test.want)
				}
			})
		}
		all.Wait()
		grown := programtest.PeakMemory(t, server.Process.Pid) - before
		t.Logf("%s: sent %d MB, memory grew by %d MB", test.name, sent.Load()>>20, grown>>20)
		if grown > sent.Load()/2 {
			t.Errorf("%s: memory grew by %d bytes over %d that were sent", test.name, grown, sent.Load())
		}
	}
	if status, body := call(t, "GET", url+"/healthz", "", ""); status != http.StatusOK {
		t.Errorf("after it: %d %s", status, body)
	}
}

func TestServe_RefusesLongHeadersAndPaths(t *testing.T) {
	t.Parallel()
	_, name := tabletest.Client(t)
	dir, variables := t.TempDir(), []string{endpoint(t), "TABLE_NAME=" + name}
	url := begin(t, dir, variables, "serve").ready(t)
	key := newKey(t, dir, variables, "--org", "o1")
	long := strings.Repeat("x", 40<<10)
	many := strings.Repeat("X-H: 1\r\n", 5000)
	const list = "/org/o1/usageRecordGroup"
	for _, test := range []struct {
		name, target, header string
		want                 int
	}{
		{"a header of 40 KB", list, "X-Header: " + long + "\r\n", 431},
		{"a key of 40 KB", list, "Authorization: Key " + long + "\r\n", 431},
		{"5,000 headers", list, many, 431},
		{"a path of 40 KB", "/org/" + long + "/usageRecordGroup", "", 431},
		{"a query of 40 KB", list + "?metaInfo=" + long, "", 431},
		{"30 KB of path", "/org/" + long[:30<<10] + "/usageRecordGroup", "Authorization: Key " + key + "\r\n", 403},
		{"nothing of the kind", list, "Authorization: Key " + key + "\r\n", 200},
	} {
		connection := dial(t, url)
		go fmt.Fprintf(connection, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s\r\n", test.target, test.header)
		response, err := http.ReadResponse(bufio.NewReader(connection), nil)
		if err != nil {
			t.Errorf("%s: %v; want a response", test.name, err)
			continue
		}
		if response.StatusCode != test.want || !response.Close {
			t.Errorf("%s: %d, closes: %v; want %d, and the connection closed", test.name, response.StatusCode, response.Close, test.want)
		}
		response.Body.Close()
	}
}

func dial(t *testing.T, url string) net.Conn {
	t.Helper()
	connection, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	return connection
}
