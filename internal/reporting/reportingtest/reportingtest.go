// Package reportingtest serves the tests of what reports usage: a sandbox with a catalog, and
// responses that no sandbox gives. Tests alone import it.
package reportingtest

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/reporting"
	"github.com/marketmeter/marketmeter/sandbox"
)

// Now is the time of a new box, at which its clock stands. Hour is the last whole hour before it.
var (
	Now  = time.Date(2026, 11, 18, 12, 30, 0, 0, time.UTC)
	Hour = time.Date(2026, 11, 18, 11, 0, 0, 0, time.UTC)
)

// Identifiers of the catalog.
const (
	Account      = "111122223333"
	Licence      = "arn:aws:license-manager::294406891311:license:l-1"
	OtherLicence = "arn:aws:license-manager::294406891311:license:l-2" // of another account
	Customer     = "customer-1"
	ProductCode  = "prod-1"

	Tenant       = "aaaaaaaa-0000-4000-8000-000000000001"
	Application  = "bbbbbbbb-0000-4000-8000-000000000001"
	Stranger     = "bbbbbbbb-0000-4000-8000-000000000002" // an application of another publisher
	ClientSecret = "planted-client-secret+/="
	Resource     = "cccccccc-0000-4000-8000-000000000001"
	Foreign      = "cccccccc-0000-4000-8000-000000000002" // of another publisher
	Sibling      = "cccccccc-0000-4000-8000-000000000003" // of another application of the same publisher
	ManagedApp   = "/subscriptions/dddddddd-0000-4000-8000-000000000001/resourceGroups/rg/providers/app"

	Service  = "meter.example"
	Consumer = "project_number:1"
	Robot    = "robot@seller.iam.gserviceaccount.com"
	Audience = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/aws"
)

// KindsList checks that the kind of the problem that each of a marketplace's names makes lists that
// name, and that the kinds which only reporting finds list no others. beside are names that no
// table has.
func KindsList(t *testing.T, partner metering.Partner, beside []string, tables ...map[string]reporting.Rule) {
	t.Helper()
	named := map[metering.ProblemCode][]string{}
	for _, table := range tables {
		for name, rule := range table {
			code := rule.Problem
			if rule.Verdict == reports.InDoubt && rule.Next == reporting.Resend {
				code = metering.ProblemOutcomeUnknown
			}
			if code != "" && !slices.Contains(named[code], name) {
				named[code] = append(named[code], name)
			}
		}
	}
	for _, kind := range metering.ProblemKinds() {
		var listed []string
		for _, e := range kind.Errors {
			if e.Partner == partner {
				listed = append(listed, e.Names...)
			}
		}
		for _, name := range named[kind.Code] {
			if !slices.Contains(listed, name) {
				t.Errorf("%s does not list %s's %s", kind.Code, partner, name)
			}
		}
		for _, name := range listed {
			if kind.Found == metering.FoundByReporting && !slices.Contains(named[kind.Code], name) && !slices.Contains(beside, name) {
				t.Errorf("%s lists %s's %s, which no table makes it", kind.Code, partner, name)
			}
		}
	}
}

// Catalog returns the catalog of a new box.
func Catalog() sandbox.Catalog {
	var dimensions []sandbox.Dimension
	var metrics []sandbox.GoogleMetric
	for i := range 30 {
		key := fmt.Sprintf("d%d", i)
		dimensions = append(dimensions, sandbox.Dimension{Key: key, Price: "0.5"})
		metrics = append(metrics, sandbox.GoogleMetric{Name: key, Price: "0.5"})
	}
	plans := []sandbox.AzurePlan{{PlanID: "silver", Dimensions: dimensions}}
	return sandbox.Catalog{
		AWS: sandbox.AWSCatalog{
			Products:  []sandbox.AWSProduct{{ProductCode: ProductCode, Dimensions: dimensions}, {ProductCode: "prod-2", Dimensions: dimensions}},
			Customers: []sandbox.AWSCustomer{{AccountID: Account, CustomerIdentifier: Customer}, {AccountID: "444455556666"}},
			Agreements: []sandbox.AWSAgreement{
				{AccountID: Account, ProductCode: ProductCode, LicenseArn: Licence},
				{AccountID: "444455556666", ProductCode: "prod-2", LicenseArn: OtherLicence},
			},
		},
		Azure: sandbox.AzureCatalog{
			Applications: []sandbox.AzureApplication{
				{TenantID: Tenant, ClientID: Application, ClientSecret: ClientSecret},
				{TenantID: Tenant, ClientID: Stranger, ClientSecret: "other"},
				{TenantID: Tenant, ClientID: "bbbbbbbb-0000-4000-8000-000000000003", ClientSecret: "third", ExpiresInAsString: true},
			},
			Offers: []sandbox.AzureOffer{
				{OfferID: "offer", Publisher: "we", ClientID: Application, Plans: plans},
				{OfferID: "foreign", ClientID: Stranger, Plans: plans},
				{OfferID: "sibling", Publisher: "we", ClientID: "bbbbbbbb-0000-4000-8000-000000000003", Plans: plans},
			},
			Subscriptions: []sandbox.AzureSubscription{
				{ResourceID: Resource, OfferID: "offer", PlanID: "silver", State: sandbox.AzureSubscribed},
				{ResourceURI: ManagedApp, OfferID: "offer", PlanID: "silver", State: sandbox.AzureSubscribed},
				{ResourceID: Foreign, OfferID: "foreign", PlanID: "silver", State: sandbox.AzureSubscribed},
				{ResourceID: Sibling, OfferID: "sibling", PlanID: "silver", State: sandbox.AzureSubscribed},
			},
		},
		Google: sandbox.GoogleCatalog{
			ServiceAccounts:  []sandbox.GoogleServiceAccount{{Email: Robot}, {Email: "other@seller.iam.gserviceaccount.com"}},
			WorkloadIdentity: []sandbox.GoogleWorkloadIdentity{{Audience: Audience, ServiceAccounts: []string{Robot}}},
			Services: []sandbox.GoogleService{
				{Name: Service, Reporters: []string{Robot}, Metrics: metrics},
				{Name: "other.example", Metrics: metrics},
			},
			Entitlements: []sandbox.GoogleEntitlement{
				{UsageReportingID: Consumer, Service: Service, State: sandbox.GoogleActive},
				{UsageReportingID: "project_number:2", Service: Service, State: sandbox.GoogleActive},
				{UsageReportingID: "project_number:3", Service: "other.example", State: sandbox.GoogleActive},
			},
		},
	}
}

// A Box is a sandbox with a server.
type Box struct {
	*sandbox.Sandbox
	URL string
	t   testing.TB
}

// Start starts a box whose clock stands at Now. The catalog is Catalog unless the options have one.
func Start(t testing.TB, options sandbox.Options) *Box {
	t.Helper()
	options.RateLimit = -1
	if len(options.Catalog.AWS.Products) == 0 {
		options.Catalog = Catalog()
	}
	s, err := sandbox.New(options)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	b := &Box{s, server.URL, t}
	b.Set(Now)
	return b
}

// Set sets the clock, which stands.
func (b *Box) Set(now time.Time) {
	b.t.Helper()
	frozen := true
	if _, err := b.SetClock(sandbox.ClockChange{Time: &now, Frozen: &frozen}); err != nil {
		b.t.Fatal(err)
	}
}

// Now is the box's clock.
func (b *Box) Now() time.Time {
	c, err := b.Clock()
	if err != nil {
		b.t.Fatal(err)
	}
	return c.Time
}

// Change changes the catalog.
func (b *Box) Change(change func(*sandbox.Catalog)) {
	b.t.Helper()
	c, err := b.Catalog()
	if err == nil {
		change(&c)
		err = b.PutCatalog(c)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// Fault adds a rule.
func (b *Box) Fault(f sandbox.Fault) {
	b.t.Helper()
	if _, err := b.AddFault(f); err != nil {
		b.t.Fatal(err)
	}
}

// Calls returns the requests for the operation.
func (b *Box) Calls(operation string) []sandbox.Request {
	b.t.Helper()
	all, err := b.Requests()
	if err != nil {
		b.t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(r sandbox.Request) bool { return r.Operation != operation })
}

// Billed returns the dimensions and quantities that the buyers pay for, in order.
func (b *Box) Billed() string {
	b.t.Helper()
	records, err := b.Records()
	if err != nil {
		b.t.Fatal(err)
	}
	var all []string
	for _, r := range records {
		all = append(all, r.Dimension+"="+r.Quantity)
	}
	return strings.Join(all, " ")
}

// Key returns the key of a service account, as Google exports it.
func Key(email string) string {
	text, err := json.Marshal(map[string]string{
		"type": "service_account", "client_email": email, "private_key_id": "planted-key-id", "private_key": privateKey(),
		"token_uri": "https://attacker.example/token",
	})
	if err != nil {
		panic(err)
	}
	return string(text)
}

var privateKey = sync.OnceValue(func() string {
	made, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(made)}))
})

// AWS returns a record of the dimension.
func AWS(dimension, quantity string) reporting.Record {
	return record(dimension, quantity, metering.MarketplaceIDs{CustomerAWSAccountID: Account, LicenseARN: Licence})
}

// Azure returns a record of the dimension.
func Azure(dimension, quantity string) reporting.Record {
	return record(dimension, quantity, metering.MarketplaceIDs{ResourceID: Resource, PlanID: "silver"})
}

// Google returns a record of the dimension.
func Google(dimension, quantity string) reporting.Record {
	return record(dimension, quantity, metering.MarketplaceIDs{UsageReportingID: Consumer, ServiceName: Service})
}

func record(dimension, quantity string, ids metering.MarketplaceIDs) reporting.Record {
	q, err := metering.ParseQuantity(quantity)
	if err != nil {
		panic(err) // the test's own text
	}
	return reporting.Record{
		Organization: "acme", Entitlement: "ent-1", Product: "product-1", IDs: ids, Dimension: dimension, Quantity: q,
		Start: Hour, End: Hour.Add(time.Hour),
	}
}

// Canned is a transport that gives one response to every request whose path holds Path. Others go
// to their server, as those for tokens do.
type Canned struct {
	Path   string
	Status int
	Header http.Header
	Body   string
	// Fill, if not nil, makes the body of the request.
	Fill func(*http.Request) string
}

// RoundTrip returns the response.
func (c *Canned) RoundTrip(r *http.Request) (*http.Response, error) {
	if !strings.Contains(r.URL.Path, c.Path) {
		return http.DefaultTransport.RoundTrip(r)
	}
	w := httptest.NewRecorder()
	for name, values := range c.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(c.Status)
	body := c.Body
	if c.Fill != nil {
		body = c.Fill(r)
	}
	_, _ = w.WriteString(body)
	response := w.Result()
	response.Request = r
	return response, nil
}

// Verdicts returns the verdict and the next step of each result, as "billed done, refused resend".
func Verdicts(response reporting.Response) string {
	var all []string
	for _, r := range response.Results {
		verdict := strings.ToLower(string(r.Verdict))
		if r.Verdict == reports.InDoubt {
			verdict = "in doubt"
		}
		all = append(all, verdict+" "+r.Next.String())
	}
	return strings.Join(all, ", ")
}

// Everything returns all texts of a response, to search them.
func Everything(response reporting.Response) string {
	s := fmt.Sprintf("%+v %s %s", response, response.Request, response.Response)
	for _, r := range response.Results {
		s += fmt.Sprintf(" %s %+v", r.Raw, r.Accepted)
	}
	return s
}

// Doubts returns the faults of every marketplace that leave all records of a request in doubt: the
// response is missing, cut or nonsense, whether the records were accepted or not.
func Doubts() []sandbox.Fault {
	yes, no := true, false
	return []sandbox.Fault{
		{Fault: sandbox.Lost},
		{Fault: sandbox.Lost, Accepted: &no},
		{Fault: sandbox.Reset},
		{Fault: sandbox.Cut},
		{Fault: sandbox.Cut, Accepted: &no},
		{Fault: sandbox.Malformed},
		{Fault: sandbox.Malformed, Accepted: &no},
		{Fault: sandbox.ContentType},
		{Fault: sandbox.ContentType, Accepted: &no},
		{Fault: sandbox.ServerError},
		{Fault: sandbox.ServerError, Accepted: &yes},
	}
}
