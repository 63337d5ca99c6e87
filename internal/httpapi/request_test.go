package httpapi_test

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/table"
)

// validation is the path of the operation that needs no table.
const validation = "/org/demo/batchValidateUsageRecordGroups"

// validator serves that operation.
func validator() http.Handler {
	api := &httpapi.API{
		Log: slog.New(slog.DiscardHandler), Now: time.Now,
		CountUnits: table.CountUnits,
		Authenticate: func(*http.Request) (auth.Principal, error) {
			return auth.Principal{Organization: "demo", KeyID: "test", Scopes: auth.Write}, nil
		},
	}
	return api.Handler("validate")
}

// A client that writes everything before it reads: the connection must still be open then.
func TestBody_TooLargeIs413ForASlowReader(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(validator())
	defer server.Close()
	for range 10 {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		body := strings.Repeat(" ", 4<<20+1)
		_, err = io.WriteString(conn, "POST "+validation+" HTTP/1.1\r\nHost: a\r\nContent-Length: "+strconv.Itoa(len(body))+"\r\n\r\n"+body)
		if err != nil {
			t.Fatalf("the connection was closed while the body was sent: %v", err)
		}
		answer := make([]byte, 12)
		if _, err := io.ReadFull(conn, answer); err != nil || string(answer) != "HTTP/1.1 413" {
			t.Errorf("%q, %v", answer, err)
		}
		conn.Close()
	}
}

// A client that declares a body and waits for the response before it sends any of it.
func TestBody_TooLargeIs413BeforeItIsSent(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(validator())
	defer server.Close()
	for _, header := range []string{"Content-Length: 10000000000", "Content-Length: 10000000000\r\nExpect: 100-continue", "Content-Type: text/plain\r\nContent-Length: 10"} {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err = io.WriteString(conn, "POST "+validation+" HTTP/1.1\r\nHost: a\r\n"+header+"\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 11)
		if _, err := io.ReadFull(conn, answer); err != nil || string(answer) != "HTTP/1.1 41" {
			t.Errorf("%q: %q, %v", header, answer, err)
		}
		conn.Close()
	}
}
