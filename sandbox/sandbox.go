// Package sandbox implements the usage metering of the AWS, Azure and Google Cloud marketplaces on
// one machine, for tests and development. It applies their rules strictly: identities, usage
// windows, first write wins, whole-request failures, tokens. It refuses what a marketplace does not
// document, and records that in the log of requests.
//
// A Sandbox is an http.Handler. It serves the marketplaces under /aws, /azure and /gcp and a
// control API under /control: the catalog, the clock, faults, all requests, the accepted records
// and the bill. docs/sandbox.md of the module explains all of it; control.yaml describes the
// control API.
//
// It shares no code with the programs that it tests. Do not send secrets to it: it logs every
// request in full.
package sandbox

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Resend is AWS's status for a record that equals an accepted one. The sources disagree.
type Resend string

// The values of Resend. The first is the default.
const (
	ResendSuccess   Resend = "Success"
	ResendDuplicate Resend = "DuplicateRecord"
)

// DefaultRateLimit is how many requests a second AWS accepts, for each account and Region.
const DefaultRateLimit = 10

// Options of a Sandbox. The zero value is a sandbox in memory, with an empty catalog.
type Options struct {
	// Seed determines all random values: ids, tokens, orders, faults by chance. 0 means the seed of
	// the journal, if it has one.
	Seed uint64
	// Journal is the file that stores the state. It is created if it does not exist, and read if it
	// does. Empty: the state is lost at the end.
	Journal string
	// Catalog is the catalog until the first PUT /control/catalog. If the journal has none, it is
	// stored in the journal; if the journal has one, Catalog is not used: see KeptCatalog.
	Catalog Catalog
	// IdenticalResend is AWS's status for an identical record; empty means ResendSuccess.
	IdenticalResend Resend
	// RateLimit is AWS's limit of requests a second, for each account and Region, in real time. 0
	// means DefaultRateLimit; below 0 there is none.
	RateLimit int
	// MaxRequests and MaxRequestBytes bound the log of requests in memory: the oldest are dropped,
	// and counted. 0 means DefaultMaxRequests and DefaultMaxRequestBytes. Records are never
	// dropped.
	MaxRequests     int
	MaxRequestBytes int
	// LoopbackHosts refuses requests whose Host is neither localhost nor a loopback address: a web
	// page may have made its own name point to this machine.
	LoopbackHosts bool
	// Now is the machine's clock; nil means time.Now.
	Now func() time.Time
}

// The default bounds of the log of requests.
const (
	DefaultMaxRequests     = 10_000
	DefaultMaxRequestBytes = 64 << 20
)

// A Sandbox is the three marketplaces. It is safe for concurrent use.
type Sandbox struct {
	options Options
	control http.Handler
	kept    bool     // KeptCatalog
	journal *journal // nil if the state is in memory only

	mu    sync.Mutex
	state *state
	rate  map[string][]time.Time // times of AWS's last requests, by account and Region
}

// New returns a sandbox with the state of its journal. It fails if the options are invalid, or if
// the journal cannot be opened, is damaged, or is used by another sandbox.
func New(options Options) (*Sandbox, error) {
	switch options.IdenticalResend {
	case "":
		options.IdenticalResend = ResendSuccess
	case ResendSuccess, ResendDuplicate:
	default:
		return nil, fmt.Errorf("IdenticalResend is %q: it must be %s or %s", options.IdenticalResend, ResendSuccess, ResendDuplicate)
	}
	if err := options.Catalog.check(); err != nil {
		return nil, fmt.Errorf("the catalog: %w", err)
	}
	if options.MaxRequests < 0 || options.MaxRequestBytes < 0 {
		return nil, errors.New("MaxRequests and MaxRequestBytes must not be negative")
	}
	options.RateLimit = cmp.Or(options.RateLimit, DefaultRateLimit)
	options.MaxRequests = cmp.Or(options.MaxRequests, DefaultMaxRequests)
	options.MaxRequestBytes = cmp.Or(options.MaxRequestBytes, DefaultMaxRequestBytes)
	if options.Now == nil {
		options.Now = time.Now
	}
	s := &Sandbox{options: options, state: newState(&options), rate: map[string][]time.Time{}}
	// A web page in a browser of the same machine must not change anything.
	protection := http.NewCrossOriginProtection()
	protection.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		controlError(w, http.StatusForbidden, "the request comes from a page of another site")
	}))
	s.control = protection.Handler(s.controlRoutes())
	if options.Journal != "" {
		var err error
		if s.journal, err = openJournal(options.Journal, s.state.replay); err != nil {
			return nil, err
		}
		s.options.Seed = cmp.Or(options.Seed, s.state.seed)
		s.kept = s.state.put && !isZero(options.Catalog) && !same(options.Catalog, s.state.catalog.Catalog)
		if err := s.safe(s.commitOptions()); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

// commitOptions stores the seed and the catalog of the options, so that a restart without them
// keeps them. The caller holds the lock.
func (s *Sandbox) commitOptions() (last uint64) {
	if s.options.Seed != s.state.seed {
		last = s.commit(event{Seed: &s.options.Seed})
	}
	if !s.state.put && !isZero(s.options.Catalog) {
		last = s.commit(event{Catalog: &s.options.Catalog})
	}
	return last
}

func isZero(c Catalog) bool { return same(c, Catalog{}) }

// same reports whether the catalogs are the same document.
func same(a, b Catalog) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// KeptCatalog reports whether the journal had another catalog than Options.Catalog, which was
// therefore not used.
func (s *Sandbox) KeptCatalog() bool { return s.kept }

// Close writes the pending events and closes the journal. Later requests fail.
func (s *Sandbox) Close() error {
	if s.journal == nil {
		return nil
	}
	return s.journal.close()
}

// ServeHTTP serves the marketplaces and the control API.
func (s *Sandbox) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.options.LoopbackHosts && !isLoopback(r.Host) {
		controlError(w, http.StatusForbidden, fmt.Sprintf("Host is %q: it must be localhost or a loopback address", r.Host))
		return
	}
	first, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch m := Marketplace(first); m {
	case AWS, Azure, Google:
		s.serve(w, r, m, "/"+path)
	case "control":
		s.control.ServeHTTP(w, r)
	default:
		controlError(w, http.StatusNotFound, "the sandbox serves /aws, /azure, /gcp and /control")
	}
}

// isLoopback reports whether the Host is a name or an address of this machine alone.
func isLoopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip := net.ParseIP(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
	return ip != nil && ip.IsLoopback()
}

// maxBody is more than any marketplace accepts. A longer body is refused.
const maxBody = 2 << 20

// The log has all bytes of a body up to maxKept, and of a longer one that was accepted. It has the
// first maxRefused bytes of a longer one that was not.
const (
	maxKept    = 1 << 20
	maxRefused = 64 << 10
)

// serve handles a request to a marketplace: it decides, syncs the journal, and responds, or applies
// a fault.
func (s *Sandbox) serve(w http.ResponseWriter, r *http.Request, m Marketplace, path string) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
	if err != nil {
		panic(http.ErrAbortHandler) // the client went away
	}
	c, event := s.decide(r, m, path, body)
	if err := s.safe(event); err != nil {
		// The marketplace's own form, so that the client reads it as a failure of the marketplace.
		resp := c.protocol().failure(&hit{fault: ServerError})
		resp.header.Set("Sandbox-Error", strings.ReplaceAll(err.Error(), "\n", " "))
		(*hit)(nil).respond(w, r, resp)
		return
	}
	c.fault.respond(w, r, c.response)
}

// decide turns the request into an event and applies it.
func (s *Sandbox) decide(r *http.Request, m Marketplace, path string, body []byte) (*call, uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	wall := s.options.Now()
	c := &call{
		Request: r, marketplace: m, path: path, body: body, state: s.state, options: &s.options,
		now: s.state.clock.at(wall), wall: wall, rate: s.rate, number: s.state.requests.last() + 1,
	}
	protocol := c.protocol()
	c.operation = protocol.operation()
	var matched []int
	if refused, ok := protocol.throttle(); ok {
		c.response = refused
	} else {
		matched, c.fault = s.state.draw(s.options.Seed, m, c.operation)
		c.response = protocol.respond()
		if c.fault != nil {
			c.spoil(protocol)
		}
	}
	e := requestEvent{
		Request: Request{
			Number: c.number, Time: c.now, Marketplace: m, Operation: c.operation, Method: r.Method, URL: r.URL.RequestURI(),
			Header: r.Header.Clone(), Body: body, Decisions: c.decisions,
			Response: &Response{c.response.status, c.response.header, c.response.body},
		},
		Records: c.records, Tokens: c.tokens, Matched: matched,
	}
	if len(body) > maxKept && len(c.records) == 0 {
		e.Body, e.BodyLength = bytes.Clone(body[:maxRefused]), len(body)
	}
	if c.fault != nil && c.fault.acted(c.decisions) {
		e.Fault, e.FaultID = c.fault.fault, c.fault.rule
		if c.fault.is(Lost) || c.fault.is(Reset) {
			e.Response = nil
		}
	}
	return c, s.commit(event{Request: &e})
}

// commit applies an event and passes it to the journal. The caller holds the lock.
func (s *Sandbox) commit(e event) uint64 {
	s.state.apply(e)
	if s.journal == nil {
		return 0
	}
	text, err := json.Marshal(e)
	if err != nil {
		panic(err) // events are plain data
	}
	return s.journal.add(text)
}

// safe returns nil when the event is synced. It returns errJournal if the sync fails.
func (s *Sandbox) safe(event uint64) error {
	if s.journal == nil {
		return nil
	}
	if err := s.journal.wait(event); err != nil {
		return fmt.Errorf("%w: %w", errJournal, err)
	}
	return nil
}

// errJournal marks a change that may not be stored.
var errJournal = errors.New("the state is not safe")

// view calls read with the state. It returns when everything that read has seen is synced.
func (s *Sandbox) view(read func(*state)) error {
	s.mu.Lock()
	read(s.state)
	var last uint64
	if s.journal != nil {
		last = s.journal.last()
	}
	s.mu.Unlock()
	return s.safe(last)
}

// A call is a request to a marketplace while it is decided.
type call struct {
	*http.Request
	marketplace Marketplace
	operation   string
	path        string // below the marketplace's prefix
	body        []byte
	number      uint64
	now, wall   time.Time
	state       *state
	options     *Options
	rate        map[string][]time.Time
	fault       *hit

	decisions []Decision
	records   []Record
	tokens    []token
	response  response
}

type response struct {
	status int
	header http.Header
	body   []byte
}

// A protocol is how one marketplace reads requests and writes responses.
type protocol interface {
	// operation returns the name of the requested operation, or an empty string.
	operation() string
	// throttle refuses a request over the limit.
	throttle() (response, bool)
	// respond does the requested operation.
	respond() response
	// failure is the marketplace's response to Throttled and ServerError.
	failure(*hit) response
}

func (c *call) protocol() protocol {
	switch c.marketplace {
	case AWS:
		return awsProtocol{c}
	case Azure:
		return azureProtocol{c}
	default:
		return googleProtocol{c}
	}
}

// find returns the accepted record with the identity, of this request or an earlier one.
func (c *call) find(identity string) *Record {
	for i := range c.records {
		if c.records[i].Identity == identity {
			return &c.records[i]
		}
	}
	if i, ok := c.state.byKey[recordKey(c.marketplace, identity)]; ok {
		return &c.state.records[i]
	}
	return nil
}

func (c *call) decided(record int, identity, outcome, status, reason string) {
	c.decisions = append(c.decisions, Decision{&record, identity, outcome, status, reason})
}

// refuse records that the whole request was refused, so that none of it is done.
func (c *call) refuse(outcome, status, reason string) {
	c.records, c.tokens = nil, nil
	c.decisions = []Decision{{Outcome: outcome, Status: status, Reason: reason}}
}

// spoil applies the fault to the response and to the result of the request.
func (c *call) spoil(p protocol) {
	h := c.fault
	if !h.done() {
		c.records, c.tokens = nil, nil
		c.decisions = []Decision{{Outcome: NotDone, Reason: "fault " + h.fault}}
	}
	switch h.fault {
	case Throttled, ServerError:
		c.response = p.failure(h)
	case Malformed:
		c.response.body = c.response.body[:len(c.response.body)/2]
	case ContentType:
		c.response.header = http.Header{"Content-Type": {"text/html; charset=utf-8"}}
		c.response.body = []byte("<html><body><h1>It works!</h1></body></html>\n")
	}
}

// respond sends the response, subject to the fault.
func (h *hit) respond(w http.ResponseWriter, r *http.Request, resp response) {
	if h != nil {
		switch h.fault {
		case Slow:
			wait := time.NewTimer(time.Duration(h.DelayMS) * time.Millisecond)
			defer wait.Stop()
			select {
			case <-wait.C:
			case <-r.Context().Done():
			}
		case Lost:
			panic(http.ErrAbortHandler) // closes the connection
		case Reset:
			reset(w)
		}
	}
	for name, values := range resp.header {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(resp.body)))
	w.WriteHeader(resp.status)
	if h.is(Cut) {
		_, _ = w.Write(resp.body[:len(resp.body)/2])
		if f, ok := w.(http.Flusher); ok {
			f.Flush()
		}
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write(resp.body) // an error means that the client did not wait for it
}

// reset resets the connection, if the server is HTTP/1, or closes it.
func reset(w http.ResponseWriter) {
	if hijacker, ok := w.(http.Hijacker); ok {
		if connection, _, err := hijacker.Hijack(); err == nil {
			if tcp, ok := connection.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0) // so that closing it resets it
			}
			connection.Close()
		}
	}
	panic(http.ErrAbortHandler)
}

// jsonResponse returns a response in JSON.
func jsonResponse(status int, contentType string, value any) response {
	var body bytes.Buffer
	e := json.NewEncoder(&body)
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		panic(err) // values are plain data
	}
	return response{status, http.Header{"Content-Type": {contentType}}, bytes.TrimSuffix(body.Bytes(), []byte("\n"))}
}

// PutCatalog replaces the catalog. Accepted records keep the price at which they were accepted.
func (s *Sandbox) PutCatalog(c Catalog) error {
	if err := c.check(); err != nil {
		return err
	}
	return s.change(event{Catalog: &c})
}

// Catalog returns the catalog.
func (s *Sandbox) Catalog() (c Catalog, err error) {
	err = s.view(func(s *state) { c = deepCopy(s.catalog.Catalog) })
	return c, err
}

// SetClock changes the clock and returns it.
func (s *Sandbox) SetClock(change ClockChange) (Clock, error) {
	s.mu.Lock()
	wall := s.options.Now()
	clock, err := s.state.clock.changed(change, wall)
	if err != nil {
		s.mu.Unlock()
		return Clock{}, err
	}
	number := s.commit(event{Clock: &clock})
	s.mu.Unlock()
	return Clock{clock.at(wall), clock.Frozen != nil}, s.safe(number)
}

// Clock returns the time that the marketplaces see.
func (s *Sandbox) Clock() (c Clock, err error) {
	wall := s.options.Now()
	err = s.view(func(s *state) { c = Clock{s.clock.at(wall), s.clock.Frozen != nil} })
	return c, err
}

// AddFault adds a rule and returns it with its id.
func (s *Sandbox) AddFault(f Fault) (Fault, error) {
	if err := f.check(); err != nil {
		return Fault{}, err
	}
	s.mu.Lock()
	number := s.commit(event{Fault: &f})
	added := deepCopy(*s.state.faults[len(s.state.faults)-1])
	s.mu.Unlock()
	return added, s.safe(number)
}

// Faults returns the rules.
func (s *Sandbox) Faults() (faults []Fault, err error) {
	faults = []Fault{}
	err = s.view(func(s *state) {
		for _, f := range s.faults {
			faults = append(faults, deepCopy(*f))
		}
	})
	return faults, err
}

// ClearFaults removes all rules.
func (s *Sandbox) ClearFaults() error { return s.change(event{ClearFaults: true}) }

// Requests returns the last requests to the marketplaces, up to the bounds of the options, in the
// order of their decisions.
func (s *Sandbox) Requests() (requests []Request, err error) {
	requests, _, err = s.requests()
	return requests, err
}

// requests returns the log of requests, and how many were dropped from it.
func (s *Sandbox) requests() (requests []Request, dropped uint64, err error) {
	err = s.view(func(s *state) { requests, dropped = slices.Clone(s.requests.list), s.requests.dropped })
	return requests, dropped, err
}

// Records returns all accepted records, in the order of acceptance.
func (s *Sandbox) Records() (records []Record, err error) {
	err = s.view(func(s *state) { records = slices.Clone(s.records) })
	return records, err
}

// Bill returns what the buyers pay for a month such as 2026-11, or for all months if month is "".
func (s *Sandbox) Bill(month string) (Bill, error) {
	if month != "" {
		if _, err := time.Parse("2006-01", month); err != nil {
			return Bill{}, errors.New("month must be as in 2026-11")
		}
	}
	records, err := s.Records()
	return billOf(records, month), err
}

// Reset returns to the state of a new sandbox with the same options, and empties the journal.
func (s *Sandbox) Reset() error {
	s.mu.Lock()
	s.state = newState(&s.options)
	clear(s.rate)
	var number uint64
	if s.journal != nil {
		number = s.journal.empty()
		number = max(number, s.commitOptions())
	}
	s.mu.Unlock()
	return s.safe(number)
}

func (s *Sandbox) change(e event) error {
	s.mu.Lock()
	number := s.commit(e)
	s.mu.Unlock()
	return s.safe(number)
}
