package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/marketmeter/marketmeter/sandbox"
)

const defaultSandboxAddr = "127.0.0.1:8090"

const sandboxHelp = `
usage: marketmeter sandbox [flags]

Serves the AWS, Azure and Google Cloud marketplaces on this machine until Ctrl-C or TERM: their usage
metering, strictly by their rules, and a control API for catalog, clock, faults, requests and the bill.
docs/sandbox.md explains it.

  SANDBOX_ADDR  its address, ` + defaultSandboxAddr + ` if not set; it must be a loopback address
  LOCAL_DIR     the folder of the journal; .local if not set

`

// serveSandbox runs the sandbox alone.
func serveSandbox(ctx context.Context, p program, args []string) error {
	flags := flag.NewFlagSet("sandbox", flag.ContinueOnError)
	journal := flags.String("journal", sandboxJournal(p.getenv), "the file that keeps the state; empty: it is lost at the end")
	catalog := flags.String("catalog", "", "a file with the catalog to begin with, in JSON")
	seed := flags.Uint64("seed", 0, "decides all that is random: ids, tokens, orders, faults by chance")
	resend := flags.String("identical-resend", string(sandbox.ResendSuccess), "AWS's status for an identical record: Success or DuplicateRecord")
	rate := flags.Int("aws-rate", sandbox.DefaultRateLimit, "requests a second that AWS takes, for each account and Region; -1: any number")
	if err := p.parse(flags, sandboxHelp, args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return usageError(fmt.Sprintf("it takes no argument %q", flags.Arg(0)))
	}
	options := sandbox.Options{Journal: *journal, Seed: *seed, IdenticalResend: sandbox.Resend(*resend), RateLimit: *rate}
	if *catalog != "" {
		text, err := os.ReadFile(*catalog)
		if err == nil {
			options.Catalog, err = sandbox.ReadCatalog(text)
		}
		if err != nil {
			return fmt.Errorf("the catalog: %w", err)
		}
	}
	s, err := startSandbox(cmp.Or(p.getenv("SANDBOX_ADDR"), defaultSandboxAddr), options)
	if err != nil {
		return err
	}
	fmt.Fprintf(p.stdout, "The sandbox serves until Ctrl-C:\n\n")
	for _, e := range []struct{ name, path, does string }{
		{"AWS", "/aws", "BatchMeterUsage, ResolveCustomer: the endpoint of a client"},
		{"Azure", "/azure", "{tenant}/oauth2/v2.0/token, api/usageEvent, api/batchUsageEvent, api/usageEvents"},
		{"Google", "/gcp", "token, v1/token, v1/services/{service}:check, :report"},
		{"control", "/control", "catalog, clock, faults, requests, records, bill, reset"},
	} {
		fmt.Fprintf(p.stdout, "  %-8s %s%-9s %s\n", e.name, s.url, e.path, e.does)
	}
	if *journal != "" {
		fmt.Fprintf(p.stdout, "\nIts state is in %s.\n", *journal)
	}
	select {
	case <-ctx.Done():
		return s.stop()
	case err := <-s.failed:
		return errors.Join(fmt.Errorf("serving at %s: %w", s.url, err), s.stop())
	}
}

func sandboxJournal(getenv func(string) string) string {
	return filepath.Join(localDir(getenv), "sandbox.journal")
}

// sandboxAddr is the address of the sandbox of `make run`: SANDBOX_ADDR or, on loopback, ten ports
// above the API; on any free port if the API is. Connections name its address, so it must be the
// same the next time.
func sandboxAddr(getenv func(string) string, api string) string {
	if addr := getenv("SANDBOX_ADDR"); addr != "" {
		return addr
	}
	_, text, _ := net.SplitHostPort(api)
	port, err := strconv.Atoi(text)
	switch {
	case err != nil || port > 65535-10:
		return defaultSandboxAddr
	case port == 0:
		return "127.0.0.1:0"
	}
	return fmt.Sprintf("127.0.0.1:%d", port+10)
}

// startSandbox starts the sandbox of `make run`.
func (s *server) startSandbox() error {
	addr := sandboxAddr(s.getenv, cmp.Or(s.getenv("ADDR"), defaultAddr))
	var err error
	if s.sandbox, err = startSandbox(addr, sandbox.Options{Journal: sandboxJournal(s.getenv)}); err == nil {
		s.say("The sandbox of the marketplaces serves at " + s.sandbox.url)
	}
	return err
}

// A runningSandbox is a sandbox that serves.
type runningSandbox struct {
	url    string
	failed <-chan error
	server *http.Server
	state  *sandbox.Sandbox
}

// startSandbox serves a sandbox at a loopback address.
func startSandbox(addr string, options sandbox.Options) (*runningSandbox, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("the sandbox can't serve at %s: %w; set SANDBOX_ADDR to another HOST:PORT", addr, err)
	}
	if !listener.Addr().(*net.TCPAddr).IP.IsLoopback() {
		listener.Close()
		return nil, fmt.Errorf("SANDBOX_ADDR=%s is not a loopback address: the sandbox needs no key", addr)
	}
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
	s := &runningSandbox{urlOf(listener.Addr()), failed, &http.Server{
		Handler:           state,
		ReadHeaderTimeout: serverLimits.header,
		ReadTimeout:       serverLimits.read,
		IdleTimeout:       serverLimits.idle,
		MaxHeaderBytes:    serverLimits.headerBytes,
		// No limit for the response: the fault "slow" takes up to 10 minutes.
	}, state}
	go func() { failed <- s.server.Serve(listener) }()
	return s, nil
}

// stop ends the requests under way, as a sandbox may, and closes the journal.
func (s *runningSandbox) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := s.server.Shutdown(ctx); err != nil {
		_ = s.server.Close()
	}
	return s.state.Close()
}
