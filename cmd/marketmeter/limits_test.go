package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/programtest"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// Bodies over the limit, of clients that would send for ever: each is answered, and the connection
// is closed; all of them together don't take the memory that what they sent would.
func TestServeAnswersBodiesWithoutEnd(t *testing.T) {
	t.Parallel()
	_, name := tabletest.Client(t)
	dir, variables := t.TempDir(), []string{endpoint(t), "TABLE_NAME=" + name}
	server := begin(t, dir, variables, "serve")
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
					t.Errorf("%s: %v; want an answer", test.name, err)
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
	if status, answer := call(t, "GET", url+"/healthz", "", ""); status != http.StatusOK {
		t.Errorf("after it: %d %s", status, answer)
	}
}

func TestServeRefusesLongHeadersAndPaths(t *testing.T) {
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
			t.Errorf("%s: %v; want an answer", test.name, err)
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

// long is a limit that no test waits for.
const long = time.Hour

// serverWith is the server of `marketmeter serve` with other limits before another API.
func serverWith(t *testing.T, l limits, api http.HandlerFunc) (s *server, url string) {
	t.Helper()
	listener, err := listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s = &server{url: urlOf(listener.Addr()), limits: l}
	s.gate.open.Store(&opened{api, func(context.Context) error { return nil }})
	s.serve(listener)
	t.Cleanup(func() { _ = s.http.Close() })
	return s, s.url
}

func readAll(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		w.WriteHeader(http.StatusBadRequest)
	}
}

// Each ends by the limit that is short, or else not within the test's time.
func TestServeEndsSlowConnections(t *testing.T) {
	t.Parallel()
	const short, head = 50 * time.Millisecond, "POST /x HTTP/1.1\r\nHost: x\r\n"
	for _, test := range []struct {
		name   string
		limits limits
		send   string
		then   string // that it goes on with, little by little
		want   string // that the answer begins with
	}{
		{"that send nothing", limits{short, long, long, long, long, 1 << 10}, "", "", ""},
		{"that never end their header", limits{short, long, long, long, long, 1 << 20}, head, "X: 1\r\n", ""},
		{"that never end their body", limits{long, short, long, long, long, 1 << 10}, head + "Content-Length: 1000000\r\n\r\n", "x", "HTTP/1.1 400 "},
		{"that never end their chunks", limits{long, short, long, long, long, 1 << 10}, head + "Transfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n", "HTTP/1.1 400 "},
		{"that ask no more", limits{long, long, long, short, long, 1 << 10}, head + "\r\n", "", "HTTP/1.1 200 "},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, url := serverWith(t, test.limits, readAll)
			connection := dial(t, url)
			fmt.Fprint(connection, test.send)
			if test.then != "" {
				go func() {
					for range time.Tick(time.Millisecond) {
						if _, err := fmt.Fprint(connection, test.then); err != nil {
							return
						}
					}
				}()
			}
			// A connection that was closed on what the client still sends ends with an error.
			answer, _ := io.ReadAll(connection)
			if !strings.HasPrefix(string(answer), test.want) || (test.want == "" && len(answer) > 0) {
				t.Errorf("it was answered %q; want %q", answer, test.want)
			}
		})
	}
}

// A client that never reads holds neither its handler nor the end of the server: the one limit ends
// it, or the other.
func TestServeEndsClientsThatNeverRead(t *testing.T) {
	t.Parallel()
	const short = 50 * time.Millisecond
	for name, l := range map[string]limits{
		"by the time to write": {long, long, short, long, long, 1 << 10},
		"by the time to stop":  {long, long, long, long, short, 1 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			writing, ended := make(chan struct{}), make(chan struct{})
			s, url := serverWith(t, l, func(w http.ResponseWriter, _ *http.Request) {
				defer close(ended)
				close(writing)
				for err := error(nil); err == nil; {
					_, err = w.Write(make([]byte, 1<<20))
				}
			})
			fmt.Fprint(dial(t, url), "GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
			<-writing
			s.stop()
			<-ended
		})
	}
}

func TestServeHasEveryLimit(t *testing.T) {
	t.Parallel()
	s := serverLimits.server(nil)
	for what, limit := range map[string]time.Duration{
		"header": s.ReadHeaderTimeout, "read": s.ReadTimeout, "write": s.WriteTimeout, "idle": s.IdleTimeout, "stop": serverLimits.stop,
	} {
		if limit <= 0 || limit > 2*time.Minute {
			t.Errorf("%s: %s", what, limit)
		}
	}
	if s.MaxHeaderBytes <= 0 || s.WriteTimeout <= requestTimeout || serverLimits.stop <= requestTimeout {
		t.Errorf("%d bytes of headers, %s to write and %s to stop with requests of %s", s.MaxHeaderBytes, s.WriteTimeout, serverLimits.stop, requestTimeout)
	}
}
