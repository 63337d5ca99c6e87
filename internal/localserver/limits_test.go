package localserver

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// long is a limit that no test reaches.
const long = time.Hour

// serverWith is the server of `marketmeter serve` with other limits and another API.
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

// Each connection ends by its short limit. If not, the test runs out of time.
func TestServer_EndsSlowConnections(t *testing.T) {
	t.Parallel()
	const short, head = 50 * time.Millisecond, "POST /x HTTP/1.1\r\nHost: x\r\n"
	for _, test := range []struct {
		name   string
		limits limits
		send   string
		then   string // sent afterwards, little by little
		want   string // prefix of the response
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
			// If the server closes the connection while the client sends, the read ends with an
			// error.
			response, _ := io.ReadAll(connection)
			if !strings.HasPrefix(string(response), test.want) || (test.want == "" && len(response) > 0) {
				t.Errorf("the response is %q; want %q", response, test.want)
			}
		})
	}
}

// A client that never reads blocks neither its handler nor the end of the server. Either the limit
// to write or the limit to stop ends the connection.
func TestServer_EndsClientsThatNeverRead(t *testing.T) {
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

func TestServer_HasEveryLimit(t *testing.T) {
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

func dial(t *testing.T, url string) net.Conn {
	t.Helper()
	connection, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	return connection
}

// The deadline of a call to DynamoDB is below that of the request that waits for it, and leaves
// time for a retry.
func TestDeadlines_AreBelowTheServersOwn(t *testing.T) {
	t.Parallel()
	if forServer.Call > requestTimeout || requestTimeout >= serverLimits.write || 2*forServer.Attempt >= forServer.Call {
		t.Errorf("%+v in requests of %s, written within %s", forServer, requestTimeout, serverLimits.write)
	}
}

const day = 24 * time.Hour
