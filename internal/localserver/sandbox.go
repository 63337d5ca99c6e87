package localserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/marketmeter/marketmeter/internal/stack"
	"github.com/marketmeter/marketmeter/internal/transfer"
	"github.com/marketmeter/marketmeter/sandbox"
)

// DefaultSandboxAddr is the address of a sandbox that runs without the API.
const DefaultSandboxAddr = "127.0.0.1:8090"

// SandboxJournal is the file that stores the state of the sandbox on this machine.
func SandboxJournal(getenv func(string) string) string {
	return filepath.Join(stack.LocalDir(getenv), "sandbox.journal")
}

// sandboxAddr is the address of the sandbox of `make run`: SANDBOX_ADDR or, on loopback, the API's
// port plus ten. If the API serves at any free port, so does the sandbox. Connections name the
// address, so it must be the same at the next start.
func sandboxAddr(getenv func(string) string, api string) string {
	if addr := getenv("SANDBOX_ADDR"); addr != "" {
		return addr
	}
	_, text, _ := net.SplitHostPort(api)
	port, err := strconv.Atoi(text)
	switch {
	case err != nil || port > 65535-10:
		return DefaultSandboxAddr
	case port == 0:
		return "127.0.0.1:0"
	}
	return fmt.Sprintf("127.0.0.1:%d", port+10)
}

// startSandbox starts the sandbox of `make run`. With the sample data it knows its buyers, unless
// its journal has another catalog.
func (s *server) startSandbox() error {
	options := sandbox.Options{Journal: SandboxJournal(s.Getenv)}
	if s.Sample {
		options.Catalog = transfer.SampleCatalog()
	}
	var err error
	if s.sandbox, err = listenSandbox(sandboxAddr(s.Getenv, s.Addr), options); err != nil {
		return err
	}
	s.say("The sandbox of the marketplaces serves at " + s.sandbox.url)
	if s.sandbox.state.KeptCatalog() {
		s.say("It keeps its catalog, which is not that of the sample data")
	}
	return nil
}

// RunSandbox serves a sandbox without the API until ctx is done, and prints its addresses.
func RunSandbox(ctx context.Context, addr string, options sandbox.Options, stdout, stderr io.Writer) error {
	s, err := listenSandbox(addr, options)
	if err != nil {
		return err
	}
	if s.state.KeptCatalog() {
		fmt.Fprintf(stderr, "The journal %s has another catalog, which stays: --catalog is not used. "+
			"PUT /control/catalog replaces it.\n", options.Journal)
	}
	fmt.Fprintf(stdout, "The sandbox serves until Ctrl-C:\n\n")
	for _, e := range []struct{ name, path, does string }{
		{"AWS", "/aws", "BatchMeterUsage, ResolveCustomer: the endpoint of a client"},
		{"Azure", "/azure", "{tenant}/oauth2/v2.0/token, api/usageEvent, api/batchUsageEvent, api/usageEvents"},
		{"Google", "/gcp", "token, v1/token, v1/services/{service}:check, :report"},
		{"control", "/control", "catalog, clock, faults, requests, records, bill, reset"},
	} {
		fmt.Fprintf(stdout, "  %-8s %s%-9s %s\n", e.name, s.url, e.path, e.does)
	}
	if options.Journal != "" {
		fmt.Fprintf(stdout, "\nIts state is in %s.\n", options.Journal)
	}
	select {
	case <-ctx.Done():
		return s.stop()
	case err := <-s.failed:
		return errors.Join(fmt.Errorf("serving at %s: %w", s.url, err), s.stop())
	}
}

// sandboxServer is a running sandbox.
type sandboxServer struct {
	url    string
	failed <-chan error // receives the error that ended it
	http   *http.Server
	state  *sandbox.Sandbox
}

// listenSandbox serves a sandbox at a loopback address.
func listenSandbox(addr string, options sandbox.Options) (*sandboxServer, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("the sandbox can't serve at %s: %w; set SANDBOX_ADDR to another HOST:PORT", addr, err)
	}
	if !listener.Addr().(*net.TCPAddr).IP.IsLoopback() {
		listener.Close()
		return nil, fmt.Errorf("SANDBOX_ADDR=%s is not a loopback address: the sandbox needs no key", addr)
	}
	options.LoopbackHosts = true
	if options.Journal != "" {
		err = os.MkdirAll(filepath.Dir(options.Journal), 0o755)
	}
	var state *sandbox.Sandbox
	if err == nil {
		state, err = sandbox.New(options)
	}
	if err != nil {
		listener.Close()
		return nil, fmt.Errorf("the sandbox: %w", err)
	}
	failed := make(chan error, 1)
	s := &sandboxServer{url: urlOf(listener.Addr()), failed: failed, state: state, http: &http.Server{
		Handler:           state,
		ReadHeaderTimeout: serverLimits.header,
		ReadTimeout:       serverLimits.read,
		IdleTimeout:       serverLimits.idle,
		MaxHeaderBytes:    serverLimits.headerBytes,
		// No limit for the response: the fault "slow" takes up to 10 minutes.
	}}
	go func() { failed <- s.http.Serve(listener) }()
	return s, nil
}

// stop ends the requests under way, which is allowed for a sandbox, and closes the journal.
func (s *sandboxServer) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := s.http.Shutdown(ctx); err != nil {
		_ = s.http.Close()
	}
	return s.state.Close()
}
