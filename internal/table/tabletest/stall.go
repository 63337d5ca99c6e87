package tabletest

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync/atomic"
	"testing"
	"time"
)

// A Stall writes a response of DynamoDB that does not end while the client stays connected.
type Stall func(to net.Conn, head, body []byte)

// Stalls are the ways in which a response stalls, by name.
var Stalls = map[string]Stall{
	"before the headers":                func(net.Conn, []byte, []byte) {},
	"in the status line":                func(to net.Conn, head, _ []byte) { _, _ = to.Write(head[:5]) },
	"in the headers":                    func(to net.Conn, head, _ []byte) { _, _ = to.Write(head[:len(head)-10]) },
	"after the headers":                 func(to net.Conn, head, _ []byte) { _, _ = to.Write(head) },
	"after a byte of the body":          func(to net.Conn, head, body []byte) { _, _ = to.Write(append(head, body[0])) },
	"before the last byte of the body":  func(to net.Conn, head, body []byte) { _, _ = to.Write(append(head, body[:len(body)-1]...)) },
	"after a byte of a chunk":           func(to net.Conn, head, _ []byte) { _, _ = to.Write(append(chunked(head), "8\r\n{"...)) },
	"with a byte of the headers a tick": func(to net.Conn, head, _ []byte) { trickle(to, head[:len(head)-2], "X: y\r\n") },
	"with a byte of the body a tick":    func(to net.Conn, head, _ []byte) { trickle(to, chunked(head), "1\r\n \r\n") },
}

// chunked returns the head of a response whose body has no stated length.
func chunked(head []byte) []byte {
	at := bytes.Index(head, []byte("Content-Length: "))
	end := at + bytes.IndexByte(head[at:], '\n')
	return append(append(bytes.Clone(head[:at]), "Transfer-Encoding: chunked\r"...), head[end:]...)
}

// trickle writes the head, and then rest byte by byte, again and again until the client
// disconnects.
func trickle(to net.Conn, head []byte, rest string) {
	_, err := to.Write(head)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for at := 0; err == nil; at++ {
		<-tick.C
		_, err = to.Write([]byte{rest[at%len(rest)]})
	}
}

// StallingProxy listens on loopback in front of the test's DynamoDB Local. stall is called with the
// number of the response, the first being 0. It returns how the response stalls, or nil to pass it
// on. StallingProxy returns its URL and the count of the requests so far.
func StallingProxy(t testing.TB, stall func(n int) Stall) (url string, requests func() int) {
	t.Helper()
	var count atomic.Int64
	// A server of net/http reads its connections as HTTP and closes them with it.
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := int(count.Add(1)) - 1
		raw, err := forwarded(r)
		connection, stream, hijacked := http.NewResponseController(w).Hijack()
		if hijacked != nil {
			t.Error(hijacked)
			return
		}
		defer connection.Close()
		if err != nil {
			return
		}
		head, body, _ := bytes.Cut(raw, []byte("\r\n\r\n"))
		head = append(head, "\r\n\r\n"...)
		how := stall(n)
		if how == nil {
			_, _ = connection.Write(append(head, body...))
			return
		}
		go how(connection, head, body)
		_, _ = io.Copy(io.Discard, stream) // until the client gives up, or the test ends
	}))
	t.Cleanup(proxy.Close)
	return proxy.URL, func() int { return int(count.Load()) }
}

// forwarded returns the bytes of DynamoDB Local's response to a request. Each response is the last
// of its connection.
func forwarded(r *http.Request) ([]byte, error) {
	request, err := http.NewRequestWithContext(r.Context(), r.Method, os.Getenv("DYNAMODB_ENDPOINT"), r.Body)
	if err != nil {
		return nil, err
	}
	request.Header = r.Header
	response, err := transport.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	response.Body, response.ContentLength, response.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
	response.Close = true
	var raw bytes.Buffer
	err = response.Write(&raw)
	return raw.Bytes(), err
}
