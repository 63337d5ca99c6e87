package reliability

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/big"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/programtest"
	"github.com/marketmeter/marketmeter/internal/reporting/inprocess"
	"github.com/marketmeter/marketmeter/internal/seedtest"
	"github.com/marketmeter/marketmeter/internal/stack"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
	"github.com/marketmeter/marketmeter/sandbox"
)

// phases are those of docs/reporting.md. A kill cuts an hour's work in one of them.
var phases = []string{"open", "claim", "seal", "send", "decide", "apply"}

// `marketmeter serve`, with its workers and its sandbox, is killed at random requests to the table
// while clients report usage, until a kill has cut each phase. After a restart, all usage that was
// acknowledged is reported, or waits for an hour that has not closed, and the bill is that usage,
// to the last digit.
//
// The table survives in a DynamoDB Local of its own process; the sandbox has its journal.
func TestKill_UsageIsBilledOnceAfterARestart(t *testing.T) {
	programtest.Long(t)
	t.Parallel()
	s := newSeller(t, seedtest.Random(t))
	const kills, most = 6, 100 // at least, and until each phase is cut
	deadline := seedtest.Until(15 * time.Second)
	n := 0
	for ; n < kills || time.Now().Before(deadline) || s.uncut() != "" && n < most; n++ {
		s.killOnce(t, n%2 == 1)
		if t.Failed() {
			return
		}
	}
	if missing := s.uncut(); missing != "" {
		t.Errorf("none of %d kills has cut %s", n, missing)
	}
	server := s.serve(t)
	server.ready(t)
	s.settle(t, server)
	s.verify(t, server)
	t.Logf("%d kills, which have cut %v; %s", n, s.cut, s)
}

// seller is an organization whose entitlements are at all three marketplaces.
type seller struct {
	*installation
	random  *rand.Rand
	client  *dynamodb.Client
	table   *table.Table
	name    string // of the table
	sandbox string // its URL
	key     string
	start   time.Time // of the test

	sold    []*sold
	left    int             // writes, about, until all is settled that waited at the last kill
	cut     map[string]int  // hours, by phase
	counted map[string]bool // the cuts of earlier kills

	mu     sync.Mutex
	groups map[string]*usage // that were sent
	unsure [][]*usage        // batches that are not acknowledged: they are sent again
}

// sold is an entitlement.
type sold struct {
	id, resource, buyer string // the last two at the marketplace
	partner             metering.Partner
	body                map[string]any
}

// usage is a group that a client has sent.
type usage struct {
	ID            string                 `json:"id"`
	EntitlementID string                 `json:"entitlementID"`
	Timestamp     time.Time              `json:"timestamp"`
	Records       map[string]json.Number `json:"records"`
	invalid       bool                   // as the response says
}

// most entitlements of a seller, and how many are new at each start.
const (
	maxSold = 1200
	newSold = 6
)

func newSeller(t *testing.T, r *rand.Rand) *seller {
	t.Helper()
	client, name := tabletest.Client(t)
	address := freeAddress(t)
	s := &seller{
		installation: install(t, "ADDR=127.0.0.1:0", "SANDBOX_ADDR="+address, "TABLE_NAME="+name, "DYNAMODB_ENDPOINT="+os.Getenv("DYNAMODB_ENDPOINT")),
		random:       r, client: client, table: table.New(client, name), name: name, sandbox: "http://" + address, start: time.Now(),
		cut: map[string]int{}, counted: map[string]bool{}, groups: map[string]*usage{},
	}
	var err error
	if s.key, err = s.newKey(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	server := s.serve(t)
	server.ready(t)
	s.control(t, "PUT", "/catalog", toJSON(t, s.catalog()))
	for partner, members := range map[string]string{"AWS": "", "AZURE": `"tenantID": "` + tenant + `", "clientID": "` + application + `", `, "GCP": ""} {
		s.do(t, server, "PUT", "/connection/"+partner, `{`+members+`"endpoint": "`+s.sandbox+`"}`)
	}
	s.sell(t.Context(), server.url)
	server.stop()
	return s
}

const (
	tenant      = "aaaaaaaa-0000-4000-8000-000000000001"
	application = "bbbbbbbb-0000-4000-8000-000000000001"
	robot       = "robot@seller.iam.gserviceaccount.com"
	dimensions  = 3
	products    = 3 // at each marketplace
)

// catalog is that of the sandbox: it knows all that will be sold.
func (s *seller) catalog() (c sandbox.Catalog) {
	var sells []sandbox.Dimension
	var metrics []sandbox.GoogleMetric
	for i := range dimensions {
		key := fmt.Sprintf("d%d", i)
		sells = append(sells, sandbox.Dimension{Key: key, Price: "0.5"})
		metrics = append(metrics, sandbox.GoogleMetric{Name: key, Price: "0.5"})
	}
	c.Azure.Applications = []sandbox.AzureApplication{{TenantID: tenant, ClientID: application, ClientSecret: "secret"}}
	c.Google.ServiceAccounts = []sandbox.GoogleServiceAccount{{Email: robot}}
	for i := range products {
		c.AWS.Products = append(c.AWS.Products, sandbox.AWSProduct{ProductCode: fmt.Sprintf("product-%d", i), Dimensions: sells})
		c.Azure.Offers = append(c.Azure.Offers, sandbox.AzureOffer{
			OfferID: fmt.Sprintf("product-%d", i), ClientID: application, Plans: []sandbox.AzurePlan{{PlanID: "plan", Dimensions: sells}},
		})
		c.Google.Services = append(c.Google.Services, sandbox.GoogleService{Name: fmt.Sprintf("product-%d.example", i), Metrics: metrics})
	}
	for i := range maxSold {
		product := fmt.Sprintf("product-%d", i%products)
		switch e := soldAs(i); e.partner {
		case "AWS":
			c.AWS.Customers = append(c.AWS.Customers, sandbox.AWSCustomer{AccountID: e.buyer})
			c.AWS.Agreements = append(c.AWS.Agreements, sandbox.AWSAgreement{AccountID: e.buyer, ProductCode: product, LicenseArn: e.resource})
		case "AZURE":
			c.Azure.Subscriptions = append(c.Azure.Subscriptions, sandbox.AzureSubscription{
				ResourceID: e.resource, Buyer: e.buyer, OfferID: product, PlanID: "plan", State: sandbox.AzureSubscribed,
			})
		default:
			c.Google.Entitlements = append(c.Google.Entitlements, sandbox.GoogleEntitlement{
				UsageReportingID: e.resource, Buyer: e.buyer, Service: product + ".example", State: sandbox.GoogleActive,
			})
		}
	}
	return c
}

// soldAs is the i-th entitlement.
func soldAs(i int) *sold {
	e := &sold{id: fmt.Sprintf("ent-%d", i), buyer: fmt.Sprintf("%012d", 100_000_000_000+i), partner: metering.Partners[i/products%3]}
	product := fmt.Sprintf("product-%d", i%products)
	ids := map[string]any{}
	switch e.partner {
	case "AWS":
		e.resource = fmt.Sprintf("arn:aws:license-manager::294406891311:license:l-%d", i)
		ids["customerAWSAccountID"], ids["licenseArn"] = e.buyer, e.resource
	case "AZURE":
		e.resource = fmt.Sprintf("cccccccc-0000-4000-8000-%s", e.buyer)
		ids["resourceID"], ids["planID"] = e.resource, "plan"
	default:
		e.resource = "project_number:" + e.buyer
		ids["usageReportingID"], ids["serviceName"] = e.resource, product+".example"
	}
	var of []any
	for d := range dimensions {
		of = append(of, map[string]any{"key": fmt.Sprintf("d%d", d), "rate": 0.5})
	}
	e.body = map[string]any{
		"partner": e.partner, "buyerID": e.buyer, "productID": product, "startTime": "2024-01-01T00:00:00Z",
		"info": map[string]any{"dimensions": of}, "marketplace": ids,
	}
	return e
}

func toJSON(t *testing.T, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// do sends a request that must succeed.
func (s *seller) do(t *testing.T, server *localServer, method, path, body string) []byte {
	t.Helper()
	return s.want(t, method, server.url+"/org/acme"+path, body)
}

// control sends a request to the control API of the sandbox.
func (s *seller) control(t *testing.T, method, path, body string) []byte {
	t.Helper()
	return s.want(t, method, s.sandbox+"/control"+path, body)
}

func (s *seller) want(t *testing.T, method, url, body string) []byte {
	t.Helper()
	got, err := send(t.Context(), http.DefaultClient, method, url, s.key, body)
	if err != nil || got.status >= 300 {
		t.Fatalf("%s %s: %v, %v", method, url, got, err)
	}
	return got.body
}

// sell makes the next entitlements, and reports usage of their closed hours. What is not
// acknowledged is sent again at the next call, before all else. It ends early if the server is
// killed.
func (s *seller) sell(ctx context.Context, at string) {
	s.mu.Lock()
	again, first := s.unsure, len(s.sold)
	s.unsure = nil
	s.mu.Unlock()
	for _, batch := range again {
		s.report(ctx, at, batch)
	}
	for i := range newSold {
		e := soldAs(first + i)
		body, err := json.Marshal(e.body)
		if err != nil {
			panic(err) // the test's own
		}
		if got, err := send(ctx, http.DefaultClient, "PUT", at+"/org/acme/entitlement/"+e.id, s.key, string(body)); err != nil || got.status != http.StatusOK {
			break
		}
		s.sold = append(s.sold, e)
	}
	made := s.sold[first:]
	if len(made) == 0 { // it is killed
		return
	}
	var all sync.WaitGroup
	for range 2 { // clients
		own := rand.New(rand.NewPCG(s.random.Uint64(), 0))
		all.Go(func() {
			for range 6 {
				batch := make([]*usage, 1+own.IntN(8))
				for i := range batch {
					of := made
					if own.IntN(20) == 0 {
						of = s.sold // its hour may have a report
					}
					batch[i] = s.usage(own, of[own.IntN(len(of))])
				}
				s.report(ctx, at, batch)
			}
		})
	}
	all.Wait()
}

// usage is usage of a closed hour, the last of which is two hours back.
func (s *seller) usage(r *rand.Rand, e *sold) *usage {
	hour := metering.HourOf(s.start).Add(-time.Duration(2+r.IntN(4)) * time.Hour)
	u := &usage{
		ID: fmt.Sprintf("%s-%016x", e.id, r.Uint64()), EntitlementID: e.id, Timestamp: hour.Add(rand0(r, time.Hour).Truncate(time.Second)),
		Records: map[string]json.Number{},
	}
	for range 1 + r.IntN(dimensions) { // some the same
		// More digits than a marketplace has.
		u.Records[fmt.Sprintf("d%d", r.IntN(dimensions))] = json.Number(fmt.Sprintf("%d.%07d", r.IntN(20), r.IntN(10_000_000)))
	}
	return u
}

// report sends a batch. Without a response, or with 503, the batch may be stored, in part too.
func (s *seller) report(ctx context.Context, at string, batch []*usage) {
	text, err := json.Marshal(batch)
	if err != nil {
		panic(err) // the test's own
	}
	got, err := send(ctx, http.DefaultClient, "POST", at+"/org/acme/batchCreateUsageRecordGroups", s.key, string(text))
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, u := range batch {
		s.groups[u.ID] = u
	}
	var stored []struct{ ID, Status string }
	if err == nil && got.status == http.StatusOK {
		err = json.Unmarshal(got.body, &stored)
	}
	if err != nil || len(stored) != len(batch) {
		s.unsure = append(s.unsure, batch)
		return
	}
	for i := range batch {
		batch[i].invalid = stored[i].Status == "INVALID"
	}
}

func (s *seller) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprintf("%d groups of %d entitlements", len(s.groups), len(s.sold))
}

// uncut names the phases that no kill has cut.
func (s *seller) uncut() string {
	return strings.Join(slices.DeleteFunc(slices.Clone(phases), func(phase string) bool { return s.cut[phase] > 0 }), ", ")
}

// killOnce starts the server, which has the usage of the start before to report, has clients report
// more, and kills it at a random write to the table: before the write, or after it and before its
// response.
func (s *seller) killOnce(t *testing.T, faults bool) {
	t.Helper()
	link := newLink(t)
	linked := *s.installation
	linked.environment = append(slices.Clone(s.environment), "DYNAMODB_ENDPOINT="+link.URL)
	writes := s.random.IntN(s.left + 50)
	before := s.random.IntN(2) == 0
	server := linked.serve(t)
	server.ready(t)
	link.killAt(writes, before, func() { _ = syscall.Kill(server.Process.Pid, syscall.SIGKILL) })
	s.control(t, "DELETE", "/faults", "")
	if faults {
		s.control(t, "POST", "/faults", `{"fault": "lost", "probability": 0.5}`)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	if s.left < 500 { // else every start would be a start of plans, which come first
		clients.Go(func() { s.sell(ctx, server.url) })
	}
	limit := time.NewTimer(3 * time.Second)
	defer limit.Stop()
	select {
	case <-server.ended:
	case <-limit.C: // all was done after fewer writes
		_ = server.Process.Kill()
		<-server.ended
	}
	cancel()
	clients.Wait()
	link.Close() // waits for the requests that have arrived
	cut := s.note(t)
	t.Logf("killed at write %d: it has cut %v; so far %v, %d writes left", writes, cut, s.cut, s.left)
}

// link is a connection to DynamoDB Local through which a process is killed.
type link struct {
	*httptest.Server
	mu     sync.Mutex
	writes int // left until the kill
	before bool
	kill   func() // nil: not any more, or not yet
}

func newLink(t *testing.T) *link {
	t.Helper()
	endpoint, err := url.Parse(os.Getenv("DYNAMODB_ENDPOINT"))
	if err != nil {
		t.Fatal(err)
	}
	l := &link{}
	database := httputil.NewSingleHostReverseProxy(endpoint)
	database.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // the process is gone
	l.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// What has arrived is done, even if the process is killed meanwhile.
		r = r.WithContext(context.WithoutCancel(r.Context()))
		kill := l.due(r)
		if kill == nil {
			database.ServeHTTP(w, r)
			return
		}
		if !l.before {
			database.ServeHTTP(httptest.NewRecorder(), r)
		}
		kill()
		panic(http.ErrAbortHandler)
	}))
	return l
}

// killAt has the process killed at a later write.
func (l *link) killAt(writes int, before bool, kill func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writes, l.before, l.kill = writes, before, kill
}

// due returns the kill if it is to be done at this request.
func (l *link) due(r *http.Request) (kill func()) {
	if !slices.Contains([]string{"PutItem", "UpdateItem", "TransactWriteItems"}, tabletest.Action(r)) {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.writes--; l.writes < 0 {
		kill, l.kill = l.kill, nil
	}
	return kill
}

// storedHour is what the table has of an hour, or of the lists of one that does not exist yet.
type storedHour struct {
	state            string // empty if it does not exist
	lists            string // of the candidates: the last key
	sum              bool
	version, next    string
	claimed, applied int // groups
}

// due reports whether a sealed hour has a record to be sent now.
func (h *storedHour) due() bool {
	at, err := time.Parse(time.RFC3339Nano, h.next)
	return err != nil || !at.After(time.Now())
}

// stored returns all hours, and the due hours of the groups that wait.
func (s *seller) stored(t *testing.T) (hours map[reports.Place]*storedHour, waiting map[string]time.Time, copies map[string]bool) {
	t.Helper()
	hours, waiting, copies = map[reports.Place]*storedHour{}, map[string]time.Time{}, map[string]bool{}
	at := func(entitlement, hour string) *storedHour {
		start, err := time.Parse("2006-01-02T15", hour)
		if err != nil {
			t.Fatal(err)
		}
		p := reports.Place{Organization: "acme", Entitlement: metering.EntitlementID(entitlement), Hour: start}
		if hours[p] == nil {
			hours[p] = &storedHour{}
		}
		return hours[p]
	}
	pages := dynamodb.NewScanPaginator(s.client, &dynamodb.ScanInput{
		TableName: &s.name, ConsistentRead: aws.Bool(true), ProjectionExpression: aws.String("PK, SK, #state, version, #next, entitlementID, #status, #hour, #due"),
		ExpressionAttributeNames: map[string]string{"#state": "state", "#next": "next", "#status": "status", "#hour": "_hour", "#due": "_due"},
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range page.Items {
			text := func(name string) string {
				switch value := item[name].(type) {
				case *types.AttributeValueMemberS:
					return value.Value
				case *types.AttributeValueMemberN:
					return value.Value
				}
				return ""
			}
			key := strings.Split(text("SK"), "#")
			entitlement, bill := strings.CutPrefix(text("PK"), "ORG#acme#BILL#")
			switch {
			case text("PK") == "ORG#acme#REPORT":
				copies[key[1]] = true
			case key[0] == "GROUP" && text("status") == "CREATED":
				due, _, _ := strings.Cut(text("_due"), "#")
				hour, err := time.Parse("2006-01-02T15", due)
				if err != nil {
					t.Fatalf("group %s waits for the hour %q", key[1], due)
				}
				waiting[key[1]] = hour
			case key[0] == "GROUP" && text("_hour") != "":
				h := at(text("entitlementID"), text("_hour"))
				h.claimed++
				if text("status") != "REPORT_PENDING" {
					h.applied++
				}
			case bill && key[0] == "HOUR" && len(key) == 2:
				h := at(entitlement, key[1])
				h.state, h.version, h.next = text("state"), text("version"), text("next")
			case bill && key[0] == "HOUR" && key[2] == "IDS":
				at(entitlement, key[1]).lists = text("SK")
			case bill && key[0] == "HOUR" && key[2] == "SUM":
				at(entitlement, key[1]).sum = true
			}
		}
	}
	return hours, waiting, copies
}

// note counts the hours that the last kill has cut, by phase.
func (s *seller) note(t *testing.T) map[string]int {
	t.Helper()
	accepted := map[string]bool{}
	for _, r := range s.journal(t) {
		accepted[identity(&r)] = true
	}
	hours, waiting, copies := s.stored(t)
	s.left = 0
	places := map[string]bool{}
	for id, hour := range waiting {
		of := s.groups[id].EntitlementID
		if schedule := s.scheduleOf(of); !time.Now().Before(schedule.Closes(hour)) {
			s.left += 2
			places[of+metering.FormatTime(hour)] = true
		}
	}
	s.left += 8 * len(places)
	cut := map[string]int{}
	for p, h := range hours {
		switch {
		case h.state == "OPEN":
			s.left += 6 + h.claimed
		case h.state == "SEALED" && h.due():
			s.left += 4 + h.claimed
		case h.state == "DECIDED":
			s.left += 2 + h.claimed - h.applied
		}
		phase, version := "", h.version
		switch {
		case h.state == "" && h.lists != "":
			phase, version = "open", h.lists
		case h.state == "OPEN" && h.sum:
			phase = "seal"
		case h.state == "OPEN" && h.claimed > 0:
			phase, version = "claim", fmt.Sprint(h.claimed)
		case h.state == "SEALED":
			phase = s.cutOf(t, p, copies, accepted)
		case h.state == "DECIDED" && h.applied > 0:
			phase, version = "apply", fmt.Sprint(h.applied)
		}
		if cutting := fmt.Sprint(p, phase, version); phase != "" && !s.counted[cutting] {
			s.counted[cutting] = true
			cut[phase]++
			s.cut[phase]++
		}
	}
	return cut
}

// cutOf is the phase in which a sealed hour was cut; empty if in none. An attempt without a
// response was cut in send, or in decide if the sandbox has done it.
func (s *seller) cutOf(t *testing.T, p reports.Place, copies, accepted map[string]bool) (phase string) {
	t.Helper()
	h, err := s.table.Hour(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	if !copies[h.ID()] {
		return "seal"
	}
	for i := range h.Sealed.Records {
		r := &h.Sealed.Records[i]
		if len(r.Attempts) == 0 {
			continue
		}
		last := r.LastAttempt().Response
		if r.Outcome.Kind != reports.Undecided || last.Result != reports.InDoubt || last.Reason != "" {
			continue
		}
		if accepted[s.identityOf(p, r.Dimension)] {
			return "decide"
		}
		phase = "send"
	}
	return phase
}

// journal returns the records that the sandbox had accepted when it was killed.
func (s *seller) journal(t *testing.T) []sandbox.Record {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, ".local", "sandbox.journal"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "journal") // reading a journal repairs its end
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	box, err := sandbox.New(sandbox.Options{Journal: file})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = box.Close() }() // a copy
	records, err := box.Records()
	if err != nil {
		t.Fatal(err)
	}
	return records
}

// identity is what no two records may share, whatever the marketplace compares.
func identity(r *sandbox.Record) string {
	at := r.Time
	if r.Marketplace == sandbox.Google { // the end
		at = at.Add(-time.Nanosecond)
	}
	return strings.Join([]string{r.Resource, r.Dimension, metering.FormatTime(metering.HourOf(at))}, " ")
}

func (s *seller) identityOf(p reports.Place, dimension string) string {
	return strings.Join([]string{s.soldBy(string(p.Entitlement)).resource, dimension, metering.FormatTime(p.Hour)}, " ")
}

// settle waits until the programs have done all that is due: the server, and `report run` beside
// it, which does not wait for the next look for work. A record whose attempt was cut, or whose
// response was lost, is sent again after a minute: with -long the server does that and all else
// alone, without it a worker whose clock is ahead.
func (s *seller) settle(t *testing.T, server *localServer) {
	t.Helper()
	s.control(t, "DELETE", "/faults", "")
	for _, batch := range s.unsure {
		s.report(t.Context(), server.url, batch)
	}
	isSettled := func(h *storedHour) bool { return h.state == "SETTLED" }
	if *seedtest.Long {
		s.await(t, server, isSettled)
		return
	}
	// What is late moves on by an hour each time that work is looked for.
	run := s.command(t.Context(), "report", "run")
	run.Env = append(slices.Clone(run.Env), "SANDBOX_URL="+s.sandbox)
	if said, err := run.CombinedOutput(); err != nil {
		t.Fatalf("report run: %v\n%s", err, said)
	}
	s.await(t, server, func(h *storedHour) bool { return h.state == "SETTLED" || h.state == "SEALED" && !h.due() })
	target := stack.At(os.Getenv("DYNAMODB_ENDPOINT"), func(name string) string { return map[string]string{"TABLE_NAME": s.name}[name] }).
		Open(stack.Deadlines{Attempt: 20 * time.Second, Call: time.Minute})
	ahead := time.Duration(0)
	worker, err := inprocess.NewWorker(t.Context(), target, s.sandbox, func() time.Time { return time.Now().Add(ahead) }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	runner := inprocess.New(worker, func(*reports.Hour) {})
	for {
		now := time.Now().Add(ahead)
		if _, _, err := runner.Round(t.Context()); err != nil {
			t.Fatal(err)
		}
		missing := s.settled(t, now, isSettled)
		if missing == "" {
			return
		}
		if ahead > 30*time.Minute {
			t.Fatal(missing)
		}
		ahead += time.Minute
		s.control(t, "PUT", "/clock", `{"advance": "1m"}`)
	}
}

// await waits until all that is due is done, and each hour is as it should be.
func (s *seller) await(t *testing.T, server *localServer, done func(*storedHour) bool) {
	t.Helper()
	for limit := time.Now().Add(patience); ; {
		missing := s.settled(t, time.Now(), done)
		if missing == "" {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("%s after %s:\n%s", missing, patience, server.errors())
		}
		select {
		case <-server.ended:
			t.Fatalf("it ended by itself: %s", server.errors())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// settled returns what is missing: an hour that is not as it should be, or a group that waits for
// an hour which has closed.
func (s *seller) settled(t *testing.T, now time.Time, done func(*storedHour) bool) (missing string) {
	t.Helper()
	hours, waiting, _ := s.stored(t)
	for p, h := range hours {
		if !done(h) && h.state != "" {
			return fmt.Sprintf("hour %s of %s is %s", metering.FormatTime(p.Hour), p.Entitlement, h.state)
		}
	}
	for id, hour := range waiting {
		if schedule := s.scheduleOf(s.groups[id].EntitlementID); !now.Before(schedule.Closes(hour)) {
			return fmt.Sprintf("group %s waits for the hour %s", id, metering.FormatTime(hour))
		}
	}
	return ""
}

func (s *seller) scheduleOf(entitlement string) reports.Schedule {
	return reports.ScheduleOf(&metering.Entitlement{Partner: s.soldBy(entitlement).partner}, metering.Connection{})
}

// soldBy returns an entitlement by its id.
func (s *seller) soldBy(id string) *sold {
	return s.sold[slices.IndexFunc(s.sold, func(e *sold) bool { return e.id == id })]
}

// verify compares the bill with the usage that was acknowledged.
func (s *seller) verify(t *testing.T, server *localServer) {
	t.Helper()
	all, err := listAll(t.Context(), server.url, "acme", s.key, "")
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != len(s.groups) {
		t.Errorf("%d groups are listed, and %d were acknowledged", len(all), len(s.groups))
	}
	used, statuses := sums{}, map[string]int{}
	for id, u := range s.groups {
		g := all[id]
		status := fmt.Sprint(g["status"])
		statuses[status]++
		switch status {
		case "REPORTED":
			for dimension, quantity := range u.Records {
				used.add(t, u.EntitlementID+" "+dimension, quantity.String())
			}
		case "CREATED": // settle has waited for those of closed hours
		case "INVALID", "REPORT_FAILED": // on the first of a month
			if reason := fmt.Sprint(g["problems"]); u.invalid != (status == "INVALID") || !strings.Contains(reason, "EXPIRED") && !strings.Contains(reason, "NO_HOUR_LEFT") {
				t.Errorf("group %s is %s: %s", id, status, reason)
			}
		default:
			t.Errorf("group %s is %s", id, status)
		}
	}
	if statuses["REPORTED"] == 0 {
		t.Error("no group is REPORTED")
	}

	var records struct{ Records []sandbox.Record }
	if err := json.Unmarshal(s.control(t, "GET", "/records", ""), &records); err != nil {
		t.Fatal(err)
	}
	billed := map[string]string{} // quantities
	for _, r := range records.Records {
		if quantity, twice := billed[identity(&r)]; twice {
			t.Errorf("%s is billed twice: %s and %s", identity(&r), quantity, r.Quantity)
		}
		billed[identity(&r)] = r.Quantity
	}
	settled := s.verifyHours(t, billed)

	var bill sandbox.Bill
	if err := json.Unmarshal(s.control(t, "GET", "/bill", ""), &bill); err != nil {
		t.Fatal(err)
	}
	paid := sums{}
	for _, line := range bill.Lines {
		i := slices.IndexFunc(s.sold, func(e *sold) bool { return e.buyer == line.Buyer })
		paid.add(t, s.sold[i].id+" "+line.Dimension, line.Quantity)
	}
	for _, e := range s.sold { // what is too fine for the marketplace is in the ledger
		ledger, err := s.table.Ledger(t.Context(), "acme", metering.EntitlementID(e.id))
		if err != nil {
			t.Fatal(err)
		}
		finest := big.NewRat(1, 1_000_000)
		if e.partner == "GCP" {
			finest = big.NewRat(1, 1)
		}
		for dimension, carry := range ledger.Carry {
			// What is too fine is carried to the next hour: to none that was sealed before it was
			// sure.
			if at := new(big.Rat).Quo(rat(t, carry.String()), finest); at.Sign() < 0 || at.Cmp(big.NewRat(settled[e.id], 1)) >= 0 {
				t.Errorf("%s carries %s of %s after %d hours", e.id, carry, dimension, settled[e.id])
			}
			paid.add(t, e.id+" "+dimension, carry.String())
		}
	}
	for of, quantity := range used {
		if paid[of] == nil || paid[of].Cmp(quantity) != 0 {
			t.Errorf("%s: %s was used, and %v is billed or carried", of, quantity.FloatString(7), paid[of])
		}
	}
	for of := range paid {
		if used[of] == nil {
			t.Errorf("%s is billed and was not used", of)
		}
	}
	t.Logf("groups: %v; %d records are billed", statuses, len(billed))
}

// verifyHours checks that each record of an hour is ACCEPTED and billed as it was sealed, and that
// nothing else is billed. It returns how many hours each entitlement has.
func (s *seller) verifyHours(t *testing.T, billed map[string]string) (settled map[string]int64) {
	t.Helper()
	settled = map[string]int64{}
	hours, _, _ := s.stored(t)
	sent := 0
	for p, stored := range hours {
		if stored.state == "" {
			t.Errorf("the lists of hour %v have no hour", p)
			continue
		}
		h, err := s.table.Hour(t.Context(), p)
		if err != nil || h == nil || h.State != reports.StateSettled {
			t.Errorf("hour %v is %v, %v", p, h, err)
			continue
		}
		settled[string(p.Entitlement)]++
		for i := range h.Sealed.Records {
			r := &h.Sealed.Records[i]
			if r.Outcome.Kind != reports.Accepted {
				t.Errorf("%s of %v is %+v", r.Dimension, p, r.Outcome)
			}
			if r.Quantity.Sign() == 0 {
				continue
			}
			sent++
			if quantity, ok := billed[s.identityOf(p, r.Dimension)]; !ok || rat(t, r.Quantity.String()).Cmp(rat(t, quantity)) != 0 {
				t.Errorf("%s of %v was sealed with %s, and %q is billed", r.Dimension, p, r.Quantity, quantity)
			}
		}
	}
	if sent != len(billed) {
		t.Errorf("%d records were sealed, and %d are billed", sent, len(billed))
	}
	return settled
}

// sums are exact quantities, by entitlement and dimension.
type sums map[string]*big.Rat

func (s sums) add(t *testing.T, of, quantity string) {
	t.Helper()
	if s[of] == nil {
		s[of] = new(big.Rat)
	}
	s[of].Add(s[of], rat(t, quantity))
}

func rat(t *testing.T, quantity string) *big.Rat {
	t.Helper()
	x, ok := new(big.Rat).SetString(quantity)
	if !ok {
		t.Fatalf("%q is no quantity", quantity)
	}
	return x
}
