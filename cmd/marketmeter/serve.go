package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"syscall"
	"time"

	"github.com/marketmeter/marketmeter"
	"github.com/marketmeter/marketmeter/internal/apikey"
	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/localdb"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table"
)

const (
	defaultAddr = "127.0.0.1:8080"
	sampleOrg   = "demo"
)

const serveHelp = `
usage: marketmeter serve [--sample]

Serves the whole API on this machine until Ctrl-C or TERM, and starts what it needs for that. Every
request needs a key ("marketmeter key -h"), but for /healthz, /docs and /openapi.yaml.

  ADDR               where it serves, 127.0.0.1:8080 if not set
  DYNAMODB_ENDPOINT  the DynamoDB to use; if not set, a DynamoDB Local is started and stopped
  TABLE_NAME         the table, made from template.yaml where it is not there; marketmeter if not set
  LOCAL_DIR          the folder of the data and of the file env, which tells programs and shells
                     where all this runs, with a key; .local if not set
  LOCAL_JARS         the folder that DynamoDB Local is fetched into; LOCAL_DIR if not set
  SANDBOX_ADDR       the address of the sandbox of the marketplaces ("marketmeter sandbox -h"); ten
                     ports above ADDR, on 127.0.0.1, if not set

`

// serve binds the address first, so that a port in use is told before anything is started, and answers
// 503 there while the start goes on.
func serve(ctx context.Context, p program, args []string) error {
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	sample := flags.Bool("sample", false, "load the sample data, of organization "+sampleOrg+", where it is not there, and make a key for it")
	if err := p.parse(flags, serveHelp, args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return usageError(fmt.Sprintf("it takes no argument %q", flags.Arg(0)))
	}
	listener, err := listen(cmp.Or(p.getenv("ADDR"), defaultAddr))
	if err != nil {
		return err
	}
	s := &server{program: p, url: urlOf(listener.Addr()), limits: serverLimits, gate: gate{docs: newDocs()}}
	s.say("Serving at " + s.url + ", 503 until all is ready")
	failed := s.serve(listener)
	defer s.stop()

	err = s.start(ctx, *sample)
	if err == nil {
		s.invite(ctx)
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

// urlOf is where a client on this machine finds the address.
func urlOf(addr net.Addr) string {
	tcp := addr.(*net.TCPAddr)
	if tcp.IP.IsUnspecified() {
		return fmt.Sprintf("http://127.0.0.1:%d", tcp.Port)
	}
	return "http://" + tcp.String()
}

// server is the API on this machine, with all that it started.
type server struct {
	program
	url     string
	limits  limits
	gate    gate
	http    *http.Server
	db      *localdb.DB // nil where DYNAMODB_ENDPOINT names another
	tbl     *target
	demoKey apikey.Key // for the sample data; empty where there is none
	sandbox *runningSandbox
}

// say tells a step to the terminal.
func (s *server) say(step string) { fmt.Fprintln(s.stdout, step) }

func (s *server) serve(listener net.Listener) (failed <-chan error) {
	s.http = s.limits.server(&s.gate)
	end := make(chan error, 1)
	go func() { end <- s.http.Serve(listener) }()
	return end
}

// start does all that the API needs and opens the gate.
func (s *server) start(ctx context.Context, sample bool) error {
	at, err := s.database(ctx)
	if err != nil {
		return err
	}
	created, err := localdb.CreateTable(ctx, at.client(forServer), marketmeter.Template, at.table)
	if err != nil {
		return err
	}
	if created {
		s.say("Made the table " + at.table)
	} else {
		s.say("The table " + at.table + " is there")
	}
	s.tbl = at.open(forServer)
	if sample {
		if err := loadSample(ctx, s.tbl.Table, time.Now(), s.say); err != nil {
			return err
		}
	}
	if err := s.startSandbox(); err != nil {
		return err
	}
	log := s.log()
	if err := s.tell(ctx, at, sample, log); err != nil {
		return err
	}
	api := httpapi.API{
		Table:      s.tbl,
		Log:        log,
		Now:        time.Now,
		Identify:   httpapi.ByKey(&apikey.Checker{Records: s.tbl, Log: log, Now: time.Now}),
		CountUnits: table.CountUnits,
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

// tell writes the env file, which tells where all this runs, and the demo key: the one it tells already
// or, with the sample data, a new one.
func (s *server) tell(ctx context.Context, at stack, sample bool, log *slog.Logger) error {
	file := envFile(s.getenv)
	key, ok, err := keptDemoKey(ctx, s.tbl, file, time.Now())
	if err == nil && !ok && sample {
		key, err = addDemoKey(ctx, s.tbl, log, "demo of make run", defaultLifetime, time.Now())
		ok = err == nil
	}
	if err != nil {
		return err
	}
	org := ""
	if ok {
		s.demoKey, org = key, sampleOrg
	}
	variables := append([]variable{
		{"MARKETMETER_URL", s.url},
		{"MARKETMETER_ORG", org},
		{"MARKETMETER_KEY", string(s.demoKey)},
	}, at.variables()...)
	variables = append(variables, variable{"SANDBOX_URL", s.sandbox.url})
	if err := writeEnv(file, variables); err != nil {
		return fmt.Errorf("writing %s: %w", file, err)
	}
	s.say("Wrote " + file)
	return nil
}

// database finds the DynamoDB to serve from, and starts one where the environment names none.
func (s *server) database(ctx context.Context) (stack, error) {
	if endpoint := s.getenv("DYNAMODB_ENDPOINT"); endpoint != "" {
		s.say("Using the DynamoDB at " + endpoint)
		if err := listens(endpoint); err != nil {
			return stack{}, fmt.Errorf("nothing answers at DYNAMODB_ENDPOINT=%s: %w", endpoint, err)
		}
		return stackAt(endpoint, s.getenv), nil
	}
	data := filepath.Join(localDir(s.getenv), "dynamodb")
	s.say("Starting DynamoDB Local, its data in " + data)
	db, err := localdb.Start(ctx, localdb.Options{Data: data, Jars: jarsDir(s.getenv), Say: s.say})
	if err != nil {
		return stack{}, err
	}
	s.db = db
	s.say("DynamoDB Local answers at " + db.Endpoint)
	return ownStack(db, s.getenv), nil
}

// wait returns when ctx is done or the server has failed. A database that ends before is told,
// and from then on /healthz is 503.
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
			fmt.Fprintf(s.stderr, "%v; stop this and start it again\n", s.db.Err())
			ended = nil
		}
	}
}

// stop lets the requests under way finish, as long as its limit is, and then stops the database.
func (s *server) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), s.limits.stop)
	defer cancel()
	if err := s.http.Shutdown(ctx); err != nil {
		_ = s.http.Close()
	}
	if s.sandbox != nil {
		if err := s.sandbox.stop(); err != nil {
			fmt.Fprintf(s.stderr, "the sandbox: %v\n", err)
		}
	}
	if s.db != nil {
		s.db.Stop()
	}
}

// invite prints a command for each operation; they act on the newest group that is CREATED, so that they
// work on data that was used before, too. Without a demo key it tells how to make a key.
func (s *server) invite(ctx context.Context) {
	if s.demoKey == "" {
		fmt.Fprintf(s.stdout, "Ready, until Ctrl-C. Every request needs a key; make one, and send it:\n\n"+
			"  bin/marketmeter key create --org ORG\n"+
			"  curl -H 'Authorization: Key KEY' %s/org/ORG/usageRecordGroup\n\n", s.url)
		return
	}
	example := metering.Group{ID: "urg-2500", CreationTime: time.Now()}
	for newest, err := range s.tbl.Groups(ctx, sampleOrg, metering.GroupFilter{Status: metering.StatusCreated}) {
		if err == nil {
			example = *newest
		}
		break
	}
	const typed = "-H 'Content-Type: application/json'"
	org := s.url + "/org/" + sampleOrg
	fmt.Fprintf(s.stdout, "Ready, until Ctrl-C. The key of organization %s, for this machine:\n\n  %s\n\nTry:\n\n", sampleOrg, s.demoKey)
	for _, line := range []string{
		"'" + org + "/usageRecordGroup?status=CREATED&startDate=" + string(metering.DayOf(example.CreationTime)) + "&limit=3'",
		"-X DELETE " + org + "/usageRecordGroup/" + url.PathEscape(example.ID),
		org + "/batchValidateUsageRecordGroups " + typed + ` -d '[{"records":{"api_calls":1200}}]'`,
		org + "/usageMeteringConfigInfo",
		"-X PUT " + org + "/usageMeteringConfigInfo " + typed + ` -d '{"partnerUsageMeteringConfigs":[{"partner":"AWS",` +
			`"enableDimensionMapping":true,"dimensionMapping":{"api_calls":{"dimensionKey":"requests","convertionMultiplier":0.001}}}]}'`,
		"-X PATCH " + org + "/usageMeteringConfigInfo " + typed +
			` -d '{"partnerUsageMeteringConfigs":[{"partner":"GCP","enableCommitWithAdditionalUsageMetering":true}]}'`,
	} {
		fmt.Fprintf(s.stdout, "  curl -H 'Authorization: Key %s' %s\n", s.demoKey, line)
	}
	fmt.Fprintf(s.stdout, "\nOr try it in a browser: %s%s\n\n", s.url, docsPath)
}
