package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

const inTransit = 32

// The program itself, with more slow clients of each kind than it has places: with no key, and with one.
func TestSlowClientsKeepNobodyFromBeingServed(t *testing.T) {
	t.Parallel()
	_, name := tabletest.Client(t)
	dir, variables := t.TempDir(), []string{endpoint(t), "TABLE_NAME=" + name}
	url := begin(t, dir, variables, "serve").ready(t)
	key := newKey(t, dir, variables, "--org", "o1", "--scope", "admin")
	const config = "/org/o1/usageMeteringConfigInfo"
	for _, client := range []struct {
		name, key, header, want string
		clients                 int
	}{
		{"without a key", string(auth.New()), "", "HTTP/1.1 401 ", 100},
		{"with a key", key, "Expect: 100-continue\r\n", "HTTP/1.1 100 ", inTransit}, // which tells that the body is waited for
	} {
		for range client.clients {
			connection := dial(t, url)
			fmt.Fprintf(connection, "PUT %s HTTP/1.1\r\nHost: x\r\nAuthorization: Key %s\r\nContent-Length: 100000\r\n%s\r\n", config, client.key, client.header)
			if line, err := bufio.NewReader(connection).ReadString('\n'); err != nil || !strings.HasPrefix(line, client.want) {
				t.Fatalf("%s: %q, %v; want %s", client.name, line, err, client.want)
			}
			go func() {
				for range time.Tick(10 * time.Millisecond) {
					if _, err := io.WriteString(connection, " "); err != nil {
						return
					}
				}
			}()
		}
	}
	for range 3 {
		if status, answer := call(t, "GET", url+"/org/o1/usageRecordGroup", key, ""); status != http.StatusOK {
			t.Errorf("a list beside slow clients: %d %s", status, answer)
		}
		if status, answer := call(t, "PUT", url+config, key, "{}"); status != http.StatusOK {
			t.Errorf("a body beside slow clients: %d %s", status, answer)
		}
	}
}
