package sandbox_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	"github.com/pb33f/libopenapi-validator/config"

	"github.com/marketmeter/marketmeter/sandbox"
)

// noon is the time of most tests: in the middle of an hour, a day and a month.
var noon = time.Date(2026, 11, 18, 12, 30, 0, 0, time.UTC)

const (
	account    = "111122223333"
	licence    = "arn:aws:license-manager::294406891311:license:l-0001"
	tenant     = "aaaaaaaa-0000-4000-8000-000000000001"
	client     = "bbbbbbbb-0000-4000-8000-000000000001"
	resource   = "cccccccc-0000-4000-8000-000000000001"
	managedApp = "/subscriptions/dddddddd-0000-4000-8000-000000000001/resourceGroups/rg/providers/Microsoft.Solutions/applications/app"
	robot      = "robot@seller.iam.gserviceaccount.com"
	audience   = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/aws"
	service    = "meter.endpoints.seller.cloud.goog"
	consumer   = "project_number:1234567890"
)

// testCatalog is a small catalog of all three marketplaces.
const testCatalog = `{
  "aws": {
    "products": [
      {"productCode": "prod-1", "dimensions": [{"key": "requests", "price": "0.001"}, {"key": "gb", "price": "0.25"}]},
      {"productCode": "prod-2", "dimensions": [{"key": "requests", "price": "1"}]},
      {"productCode": "prod-new", "created": "2026-06-01T00:00:00Z", "dimensions": [{"key": "requests"}]}
    ],
    "customers": [
      {"accountId": "111122223333", "customerIdentifier": "cust-1"},
      {"accountId": "444455556666", "customerIdentifier": "cust-2"},
      {"accountId": "777788889999", "customerIdentifier": "cust-suspended", "suspended": true}
    ],
    "agreements": [
      {"accountId": "111122223333", "productCode": "prod-1", "licenseArn": "arn:aws:license-manager::294406891311:license:l-0001",
       "agreementId": "agmt-1", "start": "2026-01-01T00:00:00Z", "registrationTokens": [{"token": "tok-1"}, {"token": "tok-old", "expires": "2026-11-18T12:30:00Z"}]},
      {"accountId": "111122223333", "productCode": "prod-2", "licenseArn": "arn:aws:license-manager::294406891311:license:l-0002"},
      {"accountId": "111122223333", "productCode": "prod-new", "licenseArn": "arn:aws:license-manager::294406891311:license:l-0003",
       "registrationTokens": [{"token": "tok-new"}]},
      {"accountId": "777788889999", "productCode": "prod-1"}
    ]
  },
  "azure": {
    "applications": [
      {"tenantId": "aaaaaaaa-0000-4000-8000-000000000001", "clientId": "bbbbbbbb-0000-4000-8000-000000000001", "clientSecret": "hush"},
      {"tenantId": "aaaaaaaa-0000-4000-8000-000000000001", "clientId": "bbbbbbbb-0000-4000-8000-000000000002", "clientSecret": "hush-2", "expiresInAsString": true},
      {"tenantId": "aaaaaaaa-0000-4000-8000-000000000001", "clientId": "bbbbbbbb-0000-4000-8000-000000000003", "clientSecret": "hush-3"}
    ],
    "offers": [
      {"offerId": "offer", "publisher": "us", "clientId": "bbbbbbbb-0000-4000-8000-000000000001", "plans": [
        {"planId": "silver", "dimensions": [{"key": "tokens", "price": "0.02"}, {"key": "email", "price": "0.5"}]},
        {"planId": "gold", "dimensions": [{"key": "tokens", "price": "0.01"}]}]},
      {"offerId": "other-app", "publisher": "us", "clientId": "bbbbbbbb-0000-4000-8000-000000000002", "plans": [
        {"planId": "p", "dimensions": [{"key": "tokens"}]}]},
      {"offerId": "other-publisher", "publisher": "them", "clientId": "bbbbbbbb-0000-4000-8000-000000000002", "plans": [
        {"planId": "p", "dimensions": [{"key": "tokens"}]}]}
    ],
    "subscriptions": [
      {"resourceId": "cccccccc-0000-4000-8000-000000000001", "buyer": "contoso", "offerId": "offer", "planId": "silver", "state": "Subscribed", "azureSubscriptionId": "sub-1"},
      {"resourceId": "cccccccc-0000-4000-8000-000000000002", "offerId": "offer", "planId": "silver", "state": "Suspended"},
      {"resourceId": "cccccccc-0000-4000-8000-000000000003", "offerId": "offer", "planId": "silver", "state": "PendingFulfillmentStart"},
      {"resourceId": "cccccccc-0000-4000-8000-000000000004", "offerId": "offer", "planId": "silver", "state": "Unsubscribed", "cancelled": "2026-11-18T10:00:00Z"},
      {"resourceId": "cccccccc-0000-4000-8000-000000000005", "offerId": "other-app", "planId": "p", "state": "Subscribed"},
      {"resourceId": "cccccccc-0000-4000-8000-000000000006", "offerId": "other-publisher", "planId": "p", "state": "Subscribed"},
      {"resourceUri": "/subscriptions/dddddddd-0000-4000-8000-000000000001/resourceGroups/rg/providers/Microsoft.Solutions/applications/app",
       "offerId": "offer", "planId": "gold", "state": "Subscribed"}
    ]
  },
  "gcp": {
    "serviceAccounts": [{"email": "robot@seller.iam.gserviceaccount.com"}, {"email": "stranger@seller.iam.gserviceaccount.com"}],
    "workloadIdentity": [{"audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/aws",
      "serviceAccounts": ["robot@seller.iam.gserviceaccount.com"]}],
    "services": [
      {"name": "meter.endpoints.seller.cloud.goog", "reporters": ["robot@seller.iam.gserviceaccount.com"], "metrics": [
        {"name": "requests", "price": "0.001"}, {"name": "gb", "price": "2"}, {"name": "cpu", "valueType": "DOUBLE"}, {"name": "users", "kind": "GAUGE"}]},
      {"name": "other.endpoints.seller.cloud.goog", "metrics": [{"name": "requests"}]}
    ],
    "entitlements": [
      {"usageReportingId": "project_number:1234567890", "service": "meter.endpoints.seller.cloud.goog", "buyer": "acme", "state": "ACTIVE"},
      {"usageReportingId": "project_number:2", "service": "meter.endpoints.seller.cloud.goog", "state": "BILLING_DISABLED"},
      {"usageReportingId": "project_number:3", "service": "meter.endpoints.seller.cloud.goog", "state": "SERVICE_NOT_ACTIVATED"},
      {"usageReportingId": "project_number:4", "service": "meter.endpoints.seller.cloud.goog", "state": "PROJECT_DELETED"},
      {"usageReportingId": "project_number:5", "service": "meter.endpoints.seller.cloud.goog", "state": "ACTIVE", "cancelled": "2026-11-18T12:00:00Z"},
      {"usageReportingId": "project_number:6", "service": "other.endpoints.seller.cloud.goog", "state": "ACTIVE"}
    ]
  }
}`

// catalog reads testCatalog after the changes, which are pairs of old and new text.
func catalog(t testing.TB, changes ...string) sandbox.Catalog {
	t.Helper()
	for i := 0; i < len(changes); i += 2 {
		if !strings.Contains(testCatalog, changes[i]) {
			t.Fatalf("%q is not in the catalog", changes[i])
		}
	}
	c, err := sandbox.ReadCatalog([]byte(strings.NewReplacer(changes...).Replace(testCatalog)))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// plainCatalog is testCatalog, read once: reading it each time is too slow for the fuzz targets.
var plainCatalog = sync.OnceValue(func() sandbox.Catalog {
	c, err := sandbox.ReadCatalog([]byte(testCatalog))
	if err != nil {
		panic(err)
	}
	return c
})

// A box is a sandbox and the state of its test client. Its clock is frozen at noon.
type box struct {
	*sandbox.Sandbox
	t       testing.TB
	machine *machine // the clock of its machine
	azure   string   // tokens
	google  string
}

// A machine has a clock that stands still until a test moves it.
type machine struct {
	mu  sync.Mutex
	now time.Time
}

func (m *machine) Now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

func (m *machine) advance(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = m.now.Add(d)
}

// open returns a sandbox with the options; its catalog is testCatalog if they have none.
func open(t testing.TB, o sandbox.Options) *box {
	t.Helper()
	b := &box{t: t, machine: &machine{now: time.Date(2026, 11, 26, 22, 0, 0, 0, time.UTC)}}
	if len(o.Catalog.AWS.Products)+len(o.Catalog.Azure.Offers)+len(o.Catalog.Google.Services) == 0 {
		o.Catalog = catalog(t)
	}
	if o.Now == nil {
		o.Now = b.machine.Now
	}
	if o.RateLimit == 0 {
		o.RateLimit = -1
	}
	var err error
	if b.Sandbox, err = sandbox.New(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// fresh returns a sandbox whose clock is frozen at noon.
func fresh(t testing.TB, changes ...string) *box {
	t.Helper()
	o := sandbox.Options{Catalog: plainCatalog()}
	if len(changes) > 0 {
		o.Catalog = catalog(t, changes...)
	}
	b := open(t, o)
	b.at(noon)
	return b
}

func (b *box) at(now time.Time) {
	b.t.Helper()
	frozen := true
	if _, err := b.SetClock(sandbox.ClockChange{Time: &now, Frozen: &frozen}); err != nil {
		b.t.Fatal(err)
	}
}

// An answer is a response with its body as JSON.
type answer struct {
	status int
	header http.Header
	raw    string
	body   any
}

// get returns a value inside the body. A name selects a member, a position an element.
func (a answer) get(path ...any) any {
	v := a.body
	for _, step := range path {
		switch at := v.(type) {
		case map[string]any:
			v = at[fmt.Sprint(step)]
		case []any:
			i, ok := step.(int)
			if !ok || i >= len(at) {
				return nil
			}
			v = at[i]
		default:
			return nil
		}
	}
	return v
}

func (b *box) send(r *http.Request) answer {
	b.t.Helper()
	w := httptest.NewRecorder()
	b.ServeHTTP(w, r)
	a := answer{status: w.Code, header: w.Header(), raw: w.Body.String()}
	if a.raw != "" {
		if err := json.Unmarshal([]byte(a.raw), &a.body); err != nil {
			b.t.Fatalf("%s %s: %d %q is not JSON: %v", r.Method, r.URL, w.Code, a.raw, err)
		}
	}
	return a
}

// wantStatus fails the test if the response has another status.
func wantStatus(t testing.TB, a answer, status int) {
	t.Helper()
	if a.status != status {
		t.Fatalf("got %d %s, want %d", a.status, a.raw, status)
	}
}

func want(t testing.TB, what string, got, want any) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

// quantities returns the accepted quantities, in order.
func (b *box) quantities() []string {
	b.t.Helper()
	records, err := b.Records()
	if err != nil {
		b.t.Fatal(err)
	}
	quantities := []string{}
	for _, r := range records {
		quantities = append(quantities, r.Quantity)
	}
	return quantities
}

// lastDecisions returns the decisions about the last request.
func (b *box) lastDecisions() []sandbox.Decision {
	b.t.Helper()
	requests, err := b.Requests()
	if err != nil {
		b.t.Fatal(err)
	}
	return requests[len(requests)-1].Decisions
}

func (b *box) fault(f sandbox.Fault) sandbox.Fault {
	b.t.Helper()
	f, err := b.AddFault(f)
	if err != nil {
		b.t.Fatal(err)
	}
	return f
}

// A description is an OpenAPI document that requests and responses are checked against.
type description struct{ validator.Validator }

func describe(t testing.TB, document []byte) description {
	t.Helper()
	doc, err := libopenapi.NewDocument(document)
	if err != nil {
		t.Fatal(err)
	}
	v, errs := validator.NewValidator(doc, config.WithFormatAssertions())
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	if ok, errs := v.ValidateDocument(); !ok {
		t.Fatal(errs)
	}
	return description{v}
}

// check checks the response against the description and, if the request was not refused, the
// request too.
func (d description) check(t testing.TB, r *http.Request, body string, a answer) {
	t.Helper()
	again := func() *http.Request {
		c := r.Clone(t.Context())
		c.Body = io.NopCloser(strings.NewReader(body))
		return c
	}
	if a.status < 400 {
		if ok, errs := d.ValidateHttpRequest(again()); !ok {
			for _, e := range errs {
				t.Errorf("%s %s %s: %s: %s %v", r.Method, r.URL, body, e.Message, e.Reason, e.SchemaValidationErrors)
			}
			t.FailNow()
		}
	}
	response := &http.Response{StatusCode: a.status, Header: a.header, Body: io.NopCloser(strings.NewReader(a.raw))}
	if ok, errs := d.ValidateHttpResponse(again(), response); !ok {
		for _, e := range errs {
			t.Errorf("%s %s: %d %s: %s: %s %v", r.Method, r.URL, a.status, a.raw, e.Message, e.Reason, e.SchemaValidationErrors)
		}
		t.FailNow()
	}
}

var controlDescription = sync.OnceValue(func() description { return describe(nilT{}, sandbox.ControlDescription) })

var azureDescription = sync.OnceValue(func() description {
	document, err := os.ReadFile("azure.yaml")
	if err != nil {
		panic(err)
	}
	return describe(nilT{}, document)
})

// nilT panics if a document that all tests share is invalid.
type nilT struct{ testing.TB }

func (nilT) Helper()           {}
func (nilT) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

// control calls the control API and checks request and response against control.yaml.
func (b *box) control(method, path, body string) answer {
	b.t.Helper()
	r := httptest.NewRequest(method, "http://127.0.0.1:8090/control"+path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	a := b.send(r)
	controlDescription().check(b.t, r, body, a)
	return a
}

// server serves the box over TCP, so that connections can break.
func (b *box) server() *url.URL {
	b.t.Helper()
	s := httptest.NewServer(b)
	b.t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		b.t.Fatal(err)
	}
	return u
}

// over sends a request to the server. It returns the connection's error.
func over(t testing.TB, u *url.URL, r *http.Request) (answer, error) {
	t.Helper()
	r = r.Clone(t.Context())
	r.RequestURI, r.URL.Scheme, r.URL.Host, r.Host = "", u.Scheme, u.Host, u.Host
	transport := &http.Transport{DisableKeepAlives: true} // so that requests share no connection
	defer transport.CloseIdleConnections()
	response, err := transport.RoundTrip(r)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	a := answer{status: response.StatusCode, header: response.Header, raw: string(raw)}
	_ = json.NewDecoder(bytes.NewReader(raw)).Decode(&a.body)
	return a, err
}
