// Package localserver serves the whole API on this machine, for development: on a DynamoDB Local
// that it starts, with the page /docs, a health check, and limits that protect the machine.
package localserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/marketmeter/marketmeter"
	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/localdb"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/reporting/inprocess"
	"github.com/marketmeter/marketmeter/internal/stack"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/transfer"
)

// Options configure a server.
type Options struct {
	Addr   string // address to serve at, HOST:PORT
	Sample bool   // load the sample data if it does not exist, and make a key for it

	Getenv         func(string) string // DYNAMODB_ENDPOINT, TABLE_NAME, LOCAL_DIR and the like, as package stack reads them
	Stdout, Stderr io.Writer           // Stdout gets each step and what to try; Stderr gets failures while it serves
	Log            *slog.Logger
}

// Run serves the whole API until ctx is done. It binds the address first, so that it reports a port
// in use before it starts anything. It responds 503 until the start is complete.
func Run(ctx context.Context, o Options) error {
	listener, err := listen(o.Addr)
	if err != nil {
		return err
	}
	s := &server{Options: o, url: urlOf(listener.Addr()), limits: serverLimits, gate: gate{docs: newDocs()}}
	s.say("Serving at " + s.url + ", 503 until all is ready")
	failed := s.serve(listener)
	defer s.stop()

	err = s.start(ctx)
	if err == nil {
		s.invite(ctx)
		s.startReporting(ctx)
		err = s.wait(ctx, failed)
	}
	if ctx.Err() != nil {
		s.say("Stopping: requests under way are finished first")
		return nil
	}
	return err
}

func listen(addr string) (net.Listener, error) {
	listener, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("another program serves at %s already (perhaps another `make run`): "+
			"stop that, or choose another address, as in ADDR=127.0.0.1:8081", addr)
	}
	if err != nil {
		return nil, fmt.Errorf("can't serve at ADDR=%s: %w; it is HOST:PORT, as in ADDR=127.0.0.1:8081", addr, err)
	}
	return listener, nil
}

// urlOf returns the URL at which a client on this machine reaches the address.
func urlOf(addr net.Addr) string {
	tcp := addr.(*net.TCPAddr)
	if tcp.IP.IsUnspecified() {
		return fmt.Sprintf("http://127.0.0.1:%d", tcp.Port)
	}
	return "http://" + tcp.String()
}

// server is the API on this machine, with all that it started.
type server struct {
	Options
	url     string
	limits  limits
	gate    gate
	http    *http.Server
	db      *localdb.DB // nil if DYNAMODB_ENDPOINT names another
	tbl     *stack.Target
	demoKey auth.Key // for the sample data; empty if none exists
	sandbox *sandboxServer

	reporting       sync.WaitGroup
	cancelReporting context.CancelFunc // nil if no usage is reported
}

// say prints a step to the terminal.
func (s *server) say(step string) { fmt.Fprintln(s.Stdout, step) }

func (s *server) serve(listener net.Listener) (failed <-chan error) {
	s.http = s.limits.server(&s.gate)
	end := make(chan error, 1)
	go func() { end <- s.http.Serve(listener) }()
	return end
}

// start starts all that the API needs and opens the gate.
func (s *server) start(ctx context.Context) error {
	d, err := deadlines(s.Getenv)
	if err != nil {
		return err
	}
	at, err := s.database(ctx)
	if err != nil {
		return err
	}
	created, err := localdb.CreateTable(ctx, at.Client(d), marketmeter.Template, at.Table)
	if err != nil {
		return err
	}
	if created {
		s.say("Made the table " + at.Table)
	} else {
		s.say("The table " + at.Table + " exists")
	}
	s.tbl = at.Open(d)
	if err := s.startSandbox(); err != nil {
		return err
	}
	if s.Sample {
		if err := transfer.LoadSample(ctx, s.tbl.Table, transfer.SampleOptions{Now: time.Now(), SandboxURL: s.sandbox.url, Say: s.say}); err != nil {
			return err
		}
	}
	log := s.Log
	if err := s.tell(ctx, at); err != nil {
		return err
	}
	api := httpapi.API{
		Table:        s.tbl,
		Log:          log,
		Now:          time.Now,
		Authenticate: httpapi.ByKey(&auth.Authenticator{Records: s.tbl, Log: log, Now: time.Now}),
		CountUnits:   table.CountUnits,
		SandboxURL:   s.sandbox.url,
		Verify:       inprocess.Sandbox{URL: s.sandbox.url}.Connector(time.Now).Verify,
	}
	s.gate.open.Store(&opened{admit(api.Handler(), log), func(ctx context.Context) error {
		err := s.check(ctx)
		if err != nil {
			log.Warn("the health check failed", "error", err.Error())
		}
		return err
	}})
	return nil
}

// check returns why the server can't serve.
func (s *server) check(ctx context.Context) error {
	if s.db != nil && s.db.Err() != nil {
		return s.db.Err()
	}
	return s.tbl.Ping(ctx)
}

// tell writes the env file with the addresses and the demo key. The key is that of the existing env
// file or, with the sample data, a new one.
func (s *server) tell(ctx context.Context, at stack.Stack) error {
	file := stack.EnvFile(s.Getenv)
	key, ok, err := keptDemoKey(ctx, s.tbl, file, time.Now())
	if err == nil && !ok && s.Sample {
		key, err = addDemoKey(ctx, s.tbl, s.Log, "demo of make run", auth.DefaultLifetime, time.Now())
		ok = err == nil
	}
	if err != nil {
		return err
	}
	org := ""
	if ok {
		s.demoKey, org = key, transfer.SampleOrg
	}
	variables := append([]stack.Variable{
		{Name: "MARKETMETER_URL", Value: s.url},
		{Name: "MARKETMETER_ORG", Value: org},
		{Name: "MARKETMETER_KEY", Value: string(s.demoKey)},
	}, at.Variables()...)
	variables = append(variables, stack.Variable{Name: "SANDBOX_URL", Value: s.sandbox.url})
	if err := stack.WriteEnv(file, variables); err != nil {
		return fmt.Errorf("writing %s: %w", file, err)
	}
	s.say("Wrote " + file)
	return nil
}

// database finds the DynamoDB to serve from, and starts one if the environment names none.
func (s *server) database(ctx context.Context) (stack.Stack, error) {
	if endpoint := s.Getenv("DYNAMODB_ENDPOINT"); endpoint != "" {
		s.say("Using the DynamoDB at " + endpoint)
		if err := stack.Listens(endpoint); err != nil {
			return stack.Stack{}, fmt.Errorf("nothing listens at DYNAMODB_ENDPOINT=%s: %w", endpoint, err)
		}
		return stack.At(endpoint, s.Getenv), nil
	}
	data := filepath.Join(stack.LocalDir(s.Getenv), "dynamodb")
	s.say("Starting DynamoDB Local, its data in " + data)
	db, err := localdb.Start(ctx, localdb.Options{Data: data, Jars: stack.JarsDir(s.Getenv), Say: s.say})
	if err != nil {
		return stack.Stack{}, err
	}
	s.db = db
	s.say("DynamoDB Local responds at " + db.Endpoint)
	return stack.Own(db, s.Getenv), nil
}

// wait returns when ctx is done or the server has failed. If the database ends before, wait reports
// it on Stderr, and /healthz returns 503 from then on.
func (s *server) wait(ctx context.Context, failed <-chan error) error {
	var ended <-chan struct{}
	if s.db != nil {
		ended = s.db.Done()
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return fmt.Errorf("serving at %s: %w", s.url, err)
		case err := <-s.sandbox.failed:
			return fmt.Errorf("serving the sandbox at %s: %w", s.sandbox.url, err)
		case <-ended:
			fmt.Fprintf(s.Stderr, "%v; stop this and start it again\n", s.db.Err())
			ended = nil
		}
	}
}

// stop waits for the requests under way, up to its limit, and for the workers, and then stops the
// database.
func (s *server) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), s.limits.stop)
	defer cancel()
	if err := s.http.Shutdown(ctx); err != nil {
		_ = s.http.Close()
	}
	s.stopReporting()
	if s.sandbox != nil {
		if err := s.sandbox.stop(); err != nil {
			fmt.Fprintf(s.Stderr, "the sandbox: %v\n", err)
		}
	}
	if s.db != nil {
		s.db.Stop()
	}
}

// sampleEntitlement is an entitlement of the sample data whose API calls are mapped to requests.
const sampleEntitlement = "ent-97f1d06b"

// invite prints commands to try. The one that deletes acts on the newest group that is CREATED and
// waits for no report, so it also works later, and on data that was used before. Without a demo key
// it prints how to make a key.
func (s *server) invite(ctx context.Context) {
	if s.demoKey == "" {
		fmt.Fprintf(s.Stdout, "Ready, until Ctrl-C. Every request needs a key; make one, and send it:\n\n"+
			"  bin/marketmeter key create --org ORG\n"+
			"  curl -H 'Authorization: Key KEY' %s/org/ORG/usageRecordGroup\n\n", s.url)
		return
	}
	example := metering.Group{ID: "urg-2500", CreationTime: time.Now()}
	for newest, err := range s.tbl.WithoutWork(ctx, transfer.SampleOrg, "") {
		if err == nil {
			example = *newest
		}
		break
	}
	const typed = "-H 'Content-Type: application/json'"
	org := s.url + "/org/" + transfer.SampleOrg
	fmt.Fprintf(s.Stdout, "Ready, until Ctrl-C. The key of organization %s, for this machine:\n\n  %s\n\nTry:\n\n", transfer.SampleOrg, s.demoKey)
	for _, line := range []string{
		org + "/entitlement/" + sampleEntitlement + "/usageRecordGroup " + typed + ` -d '{"records":{"api_calls":1200}}'`,
		"'" + org + "/usageRecordGroup?entitlementId=" + sampleEntitlement + "&limit=1'",
		"'" + org + "/usageRecordGroup?status=INVALID&limit=3'",
		"'" + org + "/usageRecordGroup?status=CREATED&startDate=" + string(metering.DayOf(example.CreationTime)) + "&limit=3'",
		"-X DELETE " + org + "/usageRecordGroup/" + url.PathEscape(example.ID),
		"'" + org + "/batchValidateUsageRecordGroups?explain=true' " + typed + ` -d '[{"entitlementID":"` + sampleEntitlement + `","records":{"api_cals":1200}}]'`,
		org + "/usageMeteringConfigInfo",
		"-X PATCH " + org + "/usageMeteringConfigInfo " + typed + ` -d '{"partnerUsageMeteringConfigs":[{"partner":"AWS",` +
			`"dimensionMapping":{"api_cals":{"dimensionKey":"requests","convertionMultiplier":0.001}}}]}'`,
		"'" + org + "/usageRecordReport?entitlementId=" + sampleEntitlement + "&limit=1'",
	} {
		fmt.Fprintf(s.Stdout, "  curl -H 'Authorization: Key %s' %s\n", s.demoKey, line)
	}
	fmt.Fprintf(s.Stdout, "  curl %s/control/bill\n", s.sandbox.url)
	fmt.Fprintf(s.Stdout, "\nOr try it in a browser: %s%s\n\n", s.url, docsPath)
}
