package sandbox_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/marketmeter/marketmeter/sandbox"
)

// TestMain serves a sandbox instead of running tests if a test has started this program to do so.
func TestMain(m *testing.M) {
	if journal := os.Getenv("SANDBOX_TEST_JOURNAL"); journal != "" {
		serveForTest(journal)
	}
	os.Exit(m.Run())
}

func serveForTest(journal string) {
	if limit, err := strconv.ParseUint(os.Getenv("SANDBOX_TEST_LIMIT"), 10, 64); err == nil {
		signal.Ignore(syscall.SIGXFSZ) // at the file size limit a write returns an error
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: limit, Max: limit}); err != nil {
			panic(err)
		}
	}
	c, err := sandbox.ReadCatalog([]byte(testCatalog))
	if err != nil {
		panic(err)
	}
	s, err := sandbox.New(sandbox.Options{Journal: journal, Catalog: c, RateLimit: -1})
	if err != nil {
		panic(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(l.Addr())
	panic(http.Serve(l, s))
}

// everything returns all that a sandbox shows, as text.
func (b *box) everything() string {
	b.t.Helper()
	var all []string
	for _, path := range []string{"/catalog", "/clock", "/faults", "/requests", "/records", "/bill"} {
		all = append(all, b.control(http.MethodGet, path, "").raw)
	}
	return strings.Join(all, "\n")
}

// state returns the same without the control API.
func (b *box) state() string {
	b.t.Helper()
	requests, err := b.Requests()
	records, _ := b.Records()
	faults, _ := b.Faults()
	clock, _ := b.Clock()
	if err != nil {
		b.t.Fatal(err)
	}
	text, err := json.Marshal([]any{requests, records, faults, clock})
	if err != nil {
		b.t.Fatal(err)
	}
	return string(text)
}

// work uses every feature of the sandbox.
func (b *box) work() {
	b.t.Helper()
	b.at(noon)
	b.fault(sandbox.Fault{Marketplace: sandbox.AWS, Fault: sandbox.Unprocessed, Count: new(2), Skip: 1})
	b.fault(sandbox.Fault{Fault: sandbox.Throttled, Probability: 0.5})
	for i := range 5 {
		b.meter(records(usage(fmt.Sprint(i+1), "Timestamp", fmt.Sprint(noon.Add(-time.Duration(i)*time.Hour).Unix())), usage("1", "Dimension", `"gb"`)))
		b.azureCall(http.MethodPost, "batchUsageEvent", `{"request":[`+event(fmt.Sprint(i+1))+`]}`)
		b.report(operation(fmt.Sprint("op-", i), "3"), operation("op", "4"))
	}
}

func TestJournal_StateSurvivesARestart(t *testing.T) {
	options := sandbox.Options{Journal: filepath.Join(t.TempDir(), "journal")}
	b := open(t, options)
	b.work()
	before := b.everything()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, options)
	want(t, "after a restart", again.everything(), before)
	// Tokens, faults and ids continue as before.
	again.azure, again.google = b.azure, b.google
	other := open(t, sandbox.Options{})
	other.work()
	again.work()
	other.work()
	want(t, "as if it had not stopped", again.control(http.MethodGet, "/records", "").raw, other.control(http.MethodGet, "/records", "").raw)
}

// A torn tail may end anywhere in the last event, which was not acknowledged. All earlier events
// remain.
func TestJournal_TornTailIsCutOff(t *testing.T) {
	file := filepath.Join(t.TempDir(), "journal")
	b := open(t, sandbox.Options{Journal: file})
	b.at(noon)
	var ends []int64
	for i := range 3 {
		b.meter(records(usage("1", "Timestamp", fmt.Sprint(noon.Add(-time.Duration(i)*time.Hour).Unix()))))
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, info.Size())
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for length := ends[1]; length < ends[2]; length += 31 {
		for _, garbage := range []string{"", "\x00\x00\x00", "garbage"} {
			if err := os.WriteFile(file, append(bytes.Clone(whole[:length]), garbage...), 0o600); err != nil {
				t.Fatal(err)
			}
			b := open(t, sandbox.Options{Journal: file})
			want(t, fmt.Sprint("cut at ", length), len(b.quantities()), 2)
			b.meter(records(usage("9", "Dimension", `"gb"`)))
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			b = open(t, sandbox.Options{Journal: file})
			want(t, "after another", b.quantities(), "[1 1 9]")
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A damaged line may hold an acknowledged event, wherever it is: the sandbox does not start, and
// changes nothing.
func TestJournal_DamagedLineIsAnError(t *testing.T) {
	file := filepath.Join(t.TempDir(), "journal")
	b := open(t, sandbox.Options{Journal: file})
	b.work()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	last := bytes.LastIndexByte(whole[:len(whole)-1], '\n') + 1
	middle := bytes.LastIndexByte(whole[:len(whole)/2], '\n') + 1
	changed := func(at int, to ...byte) []byte {
		return append(append(bytes.Clone(whole[:at]), to...), whole[at+len(to):]...)
	}
	for what, c := range map[string]struct {
		content []byte
		at      int
	}{
		"a bit of a line":           {changed(middle+20, whole[middle+20]^1), middle},
		"a bit of the last line":    {changed(last+20, whole[last+20]^1), last},
		"the last checksum":         {changed(last, whole[last]^1), last},
		"zeros in the last line":    {changed(last+30, make([]byte, 50)...), last},
		"a newline in the middle":   {changed(middle-1, ' '), bytes.LastIndexByte(whole[:middle-1], '\n') + 1},
		"a line without a checksum": {append(bytes.Clone(whole), "garbage\n"...), len(whole)},
		"an empty line":             {append(bytes.Clone(whole), '\n'), len(whole)},
		"two events in one line":    {changed(last-1, ' '), bytes.LastIndexByte(whole[:last-1], '\n') + 1},
	} {
		if err := os.WriteFile(file, c.content, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := sandbox.New(sandbox.Options{Journal: file})
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("the line at byte %d is damaged", c.at)) || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: got %v, want that byte %d of the file is damaged", what, err, c.at)
		}
		if left, err := os.ReadFile(file); err != nil || !bytes.Equal(left, c.content) {
			t.Errorf("%s: the file was changed, %v", what, err)
		}
	}
}

func TestJournal_EventOfANewerVersionIsAnError(t *testing.T) {
	file := filepath.Join(t.TempDir(), "journal")
	event := `{"refund":{"request":1}}`
	line := fmt.Sprintf("%08x %s\n", crc32.ChecksumIEEE([]byte(event)), event)
	if err := os.WriteFile(file, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sandbox.New(sandbox.Options{Journal: file}); err == nil || !strings.Contains(err.Error(), "refund") {
		t.Fatalf("got %v, want that refund is unknown", err)
	}
}

func TestJournal_OneSandboxAtATime(t *testing.T) {
	file := filepath.Join(t.TempDir(), "journal")
	open(t, sandbox.Options{Journal: file})
	if _, err := sandbox.New(sandbox.Options{Journal: file}); err == nil || !strings.Contains(err.Error(), "another sandbox") {
		t.Fatalf("got %v, want that another sandbox uses it", err)
	}
}

func TestJournal_ResetEmptiesIt(t *testing.T) {
	file := filepath.Join(t.TempDir(), "journal")
	options := sandbox.Options{Journal: file}
	b := open(t, options)
	empty := b.everything()
	b.work()
	first := b.control(http.MethodGet, "/records", "").raw
	wantStatus(t, b.control(http.MethodPost, "/reset", ""), 204)
	want(t, "after reset", b.everything(), empty)
	// The journal has the catalog of the options again, and no more.
	content, err := os.ReadFile(file)
	if err != nil || bytes.Count(content, []byte("\n")) != 1 || !bytes.Contains(content, []byte(`{"catalog":`)) {
		t.Fatalf("the journal has %s, %v", content, err)
	}
	b.azure, b.google = "", "" // their tokens are gone
	b.work()
	want(t, "the same again", b.control(http.MethodGet, "/records", "").raw, first)
	before := b.everything()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	want(t, "after a restart", open(t, options).everything(), before)
}

// The catalog and the seed of the options are in the journal: a restart without them keeps them,
// and a restart with another catalog says that the journal's stays.
func TestJournal_KeepsTheCatalogAndSeedOfTheOptions(t *testing.T) {
	file := filepath.Join(t.TempDir(), "journal")
	start := func(o sandbox.Options) *sandbox.Sandbox {
		t.Helper()
		o.Journal = file
		s, err := sandbox.New(o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	var size int64
	for i, c := range []struct {
		options sandbox.Options
		kept    bool
	}{
		{sandbox.Options{Catalog: catalog(t), Seed: 7}, false},
		{sandbox.Options{}, false},
		{sandbox.Options{Catalog: catalog(t), Seed: 7}, false},
		{sandbox.Options{Catalog: catalog(t, `"0.25"`, `"0.5"`)}, true},
	} {
		s := start(c.options)
		got, err := s.Catalog()
		if err != nil || len(got.AWS.Products) == 0 || got.AWS.Products[0].Dimensions[1].Price != "0.25" {
			t.Fatalf("start %d: the catalog is %+v, %v", i, got, err)
		}
		want(t, fmt.Sprint("kept at start ", i), s.KeptCatalog(), c.kept)
		b := &box{t: t, Sandbox: s}
		id := b.send(awsRequest("ResolveCustomer", "us-east-1", "{}")).header.Get("X-Amzn-Requestid")
		seeded := open(t, sandbox.Options{Seed: 7})
		for range i {
			seeded.send(awsRequest("ResolveCustomer", "us-east-1", "{}"))
		}
		want(t, fmt.Sprint("an id at start ", i), id, seeded.send(awsRequest("ResolveCustomer", "us-east-1", "{}")).header.Get("X-Amzn-Requestid"))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(file)
		if err != nil || i > 1 && info.Size()-size > 2000 {
			t.Fatalf("the journal grew to %d bytes, %v", info.Size(), err)
		}
		size = info.Size()
	}
}

// The marketplaces' responses to a journal that fails have their own forms.
func TestJournal_FailureHasTheMarketplacesForm(t *testing.T) {
	b := open(t, sandbox.Options{Journal: filepath.Join(t.TempDir(), "journal")})
	azure := b.azureRequest(http.MethodPost, "usageEvent", event("1"))
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	a := b.send(awsRequest("BatchMeterUsage", "us-east-1", records()))
	want(t, "aws", fmt.Sprint(a.status, a.get("__type")), "500InternalServiceErrorException")
	a = b.send(azure)
	want(t, "azure", fmt.Sprint(a.status, a.get("code")), "500InternalServerError")
	a = b.send(httptest.NewRequest(http.MethodPost, "/gcp/v1/services/s:report", strings.NewReader("{}")))
	want(t, "gcp", fmt.Sprint(a.status, a.get("error", "status")), "500INTERNAL")
	want(t, "why", strings.Contains(a.header.Get("Sandbox-Error"), "closed"), true)
}

func TestJournal_NothingIsAcknowledgedAfterClose(t *testing.T) {
	b := open(t, sandbox.Options{Journal: filepath.Join(t.TempDir(), "journal")})
	b.at(noon)
	server := b.server()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	a, err := over(t, server, awsRequest("BatchMeterUsage", "us-east-1", records(usage("1"))))
	if err != nil || a.status != 500 {
		t.Fatalf("got %d %s, %v, want 500", a.status, a.raw, err)
	}
	for _, c := range [][]string{
		{http.MethodGet, "/catalog", ""},
		{http.MethodPut, "/catalog", "{}"},
		{http.MethodGet, "/clock", ""},
		{http.MethodPut, "/clock", `{"advance":"1s"}`},
		{http.MethodGet, "/faults", ""},
		{http.MethodPost, "/faults", `{"fault":"lost"}`},
		{http.MethodDelete, "/faults", ""},
		{http.MethodGet, "/requests", ""},
		{http.MethodGet, "/records", ""},
		{http.MethodGet, "/bill", ""},
		{http.MethodPost, "/reset", ""},
	} {
		want(t, c[0]+c[1], b.control(c[0], c[1], c[2]).status, 500)
	}
}

// A sandbox that is killed with SIGKILL at work has every record that it acknowledged.
func TestJournal_KillLosesNothingAcknowledged(t *testing.T) {
	journal := filepath.Join(t.TempDir(), "journal")
	acknowledged := map[string]bool{}
	next := 0
	for range 3 {
		program, server := serveInProcess(t, journal)
		clock, err := over(t, server, mustRequest(t, http.MethodPut, "/control/clock", `{"time":"2026-11-18T12:30:00Z","frozen":true}`))
		wantStatus(t, clock, 200)
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var clients sync.WaitGroup
		killed := make(chan struct{})
		for range 8 {
			clients.Go(func() {
				for {
					mu.Lock()
					next++
					quantity := fmt.Sprint(next)
					mu.Unlock()
					// Each record has its own customer, and its quantity identifies it.
					r := legacyOf(quantity)
					a, err := over(t, server, r)
					if err != nil {
						return
					}
					if a.get("Results", 0, "Status") != "Success" {
						t.Errorf("got %d %s", a.status, a.raw)
						return
					}
					mu.Lock()
					acknowledged[quantity] = true
					if len(acknowledged)%40 == 0 {
						select {
						case killed <- struct{}{}:
						default:
						}
					}
					mu.Unlock()
				}
			})
		}
		<-killed
		if err := program.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		clients.Wait()
		_ = program.Wait()
		b := open(t, sandbox.Options{Journal: journal})
		kept := map[string]bool{}
		for _, q := range b.quantities() {
			kept[q] = true
		}
		for q := range acknowledged {
			if !kept[q] {
				t.Fatalf("record %s was acknowledged and is lost", q)
			}
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// serveInProcess starts this program to serve a sandbox.
func serveInProcess(t *testing.T, journal string, variables ...string) (*exec.Cmd, *url.URL) {
	t.Helper()
	program := exec.Command(os.Args[0])
	program.Env = append(append(os.Environ(), "SANDBOX_TEST_JOURNAL="+journal), variables...)
	stdout, err := program.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = program.Process.Kill()
		_ = program.Wait()
	})
	var address string
	if _, err := fmt.Fscan(stdout, &address); err != nil {
		t.Fatal(err)
	}
	return program, &url.URL{Scheme: "http", Host: address}
}

// If the journal cannot be written, nothing is acknowledged from then on, and everything
// acknowledged before exists.
func TestJournal_FullDiskAcknowledgesNothing(t *testing.T) {
	journal := filepath.Join(t.TempDir(), "journal")
	program, server := serveInProcess(t, journal, "SANDBOX_TEST_LIMIT=20000")
	clock, err := over(t, server, mustRequest(t, http.MethodPut, "/control/clock", `{"time":"2026-11-18T12:30:00Z","frozen":true}`))
	if err != nil || clock.status != 200 {
		t.Fatalf("%d %s, %v", clock.status, clock.raw, err)
	}
	acknowledged, refused := 0, 0
	for i := range 50 {
		a, err := over(t, server, legacyOf(fmt.Sprint(i+1)))
		switch {
		case err == nil && a.status == 200 && refused == 0:
			acknowledged++
		case err == nil && a.status == 500 && a.get("__type") == "InternalServiceErrorException" &&
			strings.Contains(a.header.Get("Sandbox-Error"), "the journal could not be written"):
			refused++
		default:
			t.Fatalf("request %d after %d refusals: %d %s, %v", i, refused, a.status, a.raw, err)
		}
	}
	if acknowledged == 0 || refused == 0 {
		t.Fatalf("%d were acknowledged and %d refused", acknowledged, refused)
	}
	if err := program.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = program.Wait()
	want(t, "records", len(open(t, sandbox.Options{Journal: journal}).quantities()), acknowledged)
}

// legacyOf is a record in a Region of its own, so that no other has its identity.
func legacyOf(quantity string) *http.Request {
	return awsRequest("BatchMeterUsage", "r-"+quantity, productRecords("prod-1", legacy(quantity)))
}

func mustRequest(t testing.TB, method, path, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://127.0.0.1"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// For any requests, a sandbox that reads its journal again shows the same state, and accepts at
// most one record for an identity.
func TestJournal_ReplayGivesTheSameState(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		options := sandbox.Options{Journal: filepath.Join(dir, "journal"), Seed: rapid.Uint64().Draw(rt, "seed")}
		b := open(t, options)
		b.at(noon)
		for range rapid.IntRange(1, 20).Draw(rt, "steps") {
			hour := rapid.IntRange(-1, 26).Draw(rt, "hour")
			quantity := rapid.IntRange(0, 3).Draw(rt, "quantity")
			at := noon.Add(-time.Duration(hour) * time.Hour)
			switch rapid.IntRange(0, 5).Draw(rt, "step") {
			case 0:
				b.meter(records(usage(fmt.Sprint(quantity), "Timestamp", fmt.Sprint(at.Unix()))))
			case 1:
				b.send(b.azureRequest(http.MethodPost, "usageEvent", event(fmt.Sprint(quantity), "effectiveStartTime", `"`+at.Format("2006-01-02T15:04:05")+`"`)))
			case 2:
				b.report(operation(fmt.Sprint("op-", hour), fmt.Sprint(quantity)))
			case 3:
				fault := rapid.SampledFrom([]string{sandbox.Throttled, sandbox.ServerError, sandbox.Unprocessed, sandbox.Partial}).Draw(rt, "fault")
				b.fault(sandbox.Fault{Fault: fault})
			case 4:
				b.at(noon.Add(time.Duration(hour) * time.Minute))
			case 5:
				if err := b.ClearFaults(); err != nil {
					t.Fatal(err)
				}
			}
		}
		seen := map[string]bool{}
		all, _ := b.Records()
		for _, r := range all {
			if seen[r.Identity] {
				rt.Fatalf("two records for %s", r.Identity)
			}
			seen[r.Identity] = true
		}
		before := b.state()
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		again := open(t, options)
		if after := again.state(); after != before {
			rt.Fatalf("before:\n%s\nafter:\n%s", before, after)
		}
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
