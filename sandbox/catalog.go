package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"
)

// A Catalog is the data of the marketplaces: products, prices, buyers and reporters. It is one JSON
// document.
type Catalog struct {
	AWS    AWSCatalog    `json:"aws"`
	Azure  AzureCatalog  `json:"azure"`
	Google GoogleCatalog `json:"gcp"`
}

// A Dimension is a unit of usage. Price is a decimal, per unit; absent means zero.
type Dimension struct {
	Key   string `json:"key"`
	Price string `json:"price,omitempty"`
}

// An AWSCatalog is the data of AWS Marketplace.
type AWSCatalog struct {
	// Regions are those that have the API; others return DisabledApiException. None means all.
	Regions []string `json:"regions,omitempty"`
	// Sellers have access keys. Without sellers each access key is an account of its own.
	Sellers    []AWSSeller    `json:"sellers,omitempty"`
	Products   []AWSProduct   `json:"products,omitempty"`
	Customers  []AWSCustomer  `json:"customers,omitempty"`
	Agreements []AWSAgreement `json:"agreements,omitempty"`
}

// An AWSSeller is an account that calls the API.
type AWSSeller struct {
	AccountID    string   `json:"accountId"`
	AccessKeyIDs []string `json:"accessKeyIds"`
}

// An AWSProduct is a SaaS product. Products created since 2026-06-01 are metered by licence only.
type AWSProduct struct {
	ProductCode string      `json:"productCode"`
	Seller      string      `json:"seller,omitempty"` // an account ID; absent: any
	Created     *time.Time  `json:"created,omitempty"`
	Currency    string      `json:"currency,omitempty"` // absent: USD
	Dimensions  []Dimension `json:"dimensions"`
}

// An AWSCustomer is a buyer: an AWS account and, for the older integration, a customer identifier.
type AWSCustomer struct {
	AccountID          string `json:"accountId"`
	CustomerIdentifier string `json:"customerIdentifier,omitempty"`
	Suspended          bool   `json:"suspended,omitempty"`
}

// An AWSAgreement is a customer's subscription to a product.
type AWSAgreement struct {
	AgreementID string     `json:"agreementId,omitempty"`
	AccountID   string     `json:"accountId"`
	ProductCode string     `json:"productCode"`
	LicenseArn  string     `json:"licenseArn,omitempty"`
	Start       *time.Time `json:"start,omitempty"`     // earlier usage is refused
	Cancelled   *time.Time `json:"cancelled,omitempty"` // License Deprovisioned, or unsubscribe-pending
	// RegistrationTokens are the tokens that ResolveCustomer accepts.
	RegistrationTokens []AWSRegistrationToken `json:"registrationTokens,omitempty"`
}

// An AWSRegistrationToken is the token that a buyer's browser sends to the seller.
type AWSRegistrationToken struct {
	Token   string     `json:"token"`
	Expires *time.Time `json:"expires,omitempty"`
}

// An AzureCatalog is the data of the Azure marketplace.
type AzureCatalog struct {
	Applications    []AzureApplication    `json:"applications,omitempty"`
	Offers          []AzureOffer          `json:"offers,omitempty"`
	Subscriptions   []AzureSubscription   `json:"subscriptions,omitempty"`
	Reconciliations []AzureReconciliation `json:"reconciliations,omitempty"`
}

// An AzureApplication gets tokens. ExpiresInAsString makes expires_in a string, as in some versions
// of the endpoint.
type AzureApplication struct {
	TenantID          string `json:"tenantId"`
	ClientID          string `json:"clientId"`
	ClientSecret      string `json:"clientSecret"`
	ExpiresInAsString bool   `json:"expiresInAsString,omitempty"`
}

// An AzureOffer is an offer with its plans. ClientID is the application of its technical
// configuration: no other application may report usage for the offer.
type AzureOffer struct {
	OfferID   string      `json:"offerId"`
	Publisher string      `json:"publisher,omitempty"` // absent: a publisher of its own
	ClientID  string      `json:"clientId"`
	Currency  string      `json:"currency,omitempty"`
	Plans     []AzurePlan `json:"plans"`
}

// An AzurePlan is a plan of an offer.
type AzurePlan struct {
	PlanID     string      `json:"planId"`
	Dimensions []Dimension `json:"dimensions"`
}

// The states of an AzureSubscription.
const (
	AzurePending      = "PendingFulfillmentStart"
	AzureSubscribed   = "Subscribed"
	AzureSuspended    = "Suspended"
	AzureUnsubscribed = "Unsubscribed"
)

// An AzureSubscription is a purchase: a SaaS subscription with a ResourceID, or a managed
// application with a ResourceURI.
type AzureSubscription struct {
	ResourceID          string     `json:"resourceId,omitempty"`
	ResourceURI         string     `json:"resourceUri,omitempty"`
	Buyer               string     `json:"buyer,omitempty"` // for the bill; absent: the resource
	OfferID             string     `json:"offerId"`
	PlanID              string     `json:"planId"`
	AzureSubscriptionID string     `json:"azureSubscriptionId,omitempty"`
	State               string     `json:"state"`
	Cancelled           *time.Time `json:"cancelled,omitempty"` // required if the state is Unsubscribed
}

// An AzureReconciliation is a status of a day in GET usageEvents other than Submitted and Accepted.
type AzureReconciliation struct {
	Date              string `json:"date"` // 2006-01-02
	Resource          string `json:"resource"`
	Dimension         string `json:"dimension"`
	ReconStatus       string `json:"reconStatus"`
	ProcessedQuantity string `json:"processedQuantity,omitempty"`
}

// A GoogleCatalog is the data of Google Cloud Marketplace.
type GoogleCatalog struct {
	ServiceAccounts  []GoogleServiceAccount   `json:"serviceAccounts,omitempty"`
	WorkloadIdentity []GoogleWorkloadIdentity `json:"workloadIdentity,omitempty"`
	Services         []GoogleService          `json:"services,omitempty"`
	Entitlements     []GoogleEntitlement      `json:"entitlements,omitempty"`
}

// A GoogleServiceAccount gets tokens with a signed JWT or by impersonation.
type GoogleServiceAccount struct {
	Email string `json:"email"`
}

// A GoogleWorkloadIdentity is a provider of a pool. Its tokens can only impersonate the service
// accounts.
type GoogleWorkloadIdentity struct {
	Audience        string   `json:"audience"`
	ServiceAccounts []string `json:"serviceAccounts"`
}

// A GoogleService is a product. Reporters are the service accounts that may call check and report;
// none means all.
type GoogleService struct {
	Name      string         `json:"name"`
	Reporters []string       `json:"reporters,omitempty"`
	Currency  string         `json:"currency,omitempty"`
	Metrics   []GoogleMetric `json:"metrics"`
}

// A GoogleMetric is a metric of a service. Kind and ValueType default to DELTA and INT64. Reports
// of other metrics are refused, because the marketplace bills no others.
type GoogleMetric struct {
	Name      string `json:"name"`
	Price     string `json:"price,omitempty"`
	Kind      string `json:"kind,omitempty"`
	ValueType string `json:"valueType,omitempty"`
}

// The states of a GoogleEntitlement. If it is not active, check returns the error named here.
const (
	GoogleActive          = "ACTIVE"
	GoogleBillingDisabled = "BILLING_DISABLED"
	GoogleNotActivated    = "SERVICE_NOT_ACTIVATED"
	GoogleProjectDeleted  = "PROJECT_DELETED"
)

// A GoogleEntitlement is a buyer's purchase. Cancelled ends it: afterwards only usage from before
// Cancelled is accepted, for an hour.
type GoogleEntitlement struct {
	UsageReportingID string     `json:"usageReportingId"`
	Service          string     `json:"service"`
	Buyer            string     `json:"buyer,omitempty"`
	State            string     `json:"state"`
	Cancelled        *time.Time `json:"cancelled,omitempty"`
}

// ReadCatalog reads a catalog from JSON and checks it. An unknown member, a dangling reference and
// a duplicate key are errors.
func ReadCatalog(document []byte) (Catalog, error) {
	var c Catalog
	if err := readStrict(document, &c); err != nil {
		return Catalog{}, err
	}
	return c, c.check()
}

// readStrict decodes a document of the control API.
func readStrict(document []byte, into any) error {
	o, err := parseObject(document) // refuses duplicate members
	if err != nil {
		return err
	}
	// encoding/json would accept a name in another case.
	if err := exactNames("", o, reflect.TypeOf(into).Elem()); err != nil {
		return err
	}
	if err := json.Unmarshal(document, into); err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}

// exactNames returns an error if an object in the value has a member that its struct type does not
// name exactly.
func exactNames(path string, value any, t reflect.Type) error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch v := value.(type) {
	case *object:
		if t.Kind() != reflect.Struct {
			return nil // the decoder reports it
		}
		fields := map[string]reflect.Type{}
		var names []string
		for i := range t.NumField() {
			name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
			fields[name] = t.Field(i).Type
			names = append(names, name)
		}
		if err := v.only(path, names...); err != nil {
			return err
		}
		for _, name := range v.names {
			if err := exactNames(member(path, name), v.members[name], fields[name]); err != nil {
				return err
			}
		}
	case []any:
		if t.Kind() != reflect.Slice {
			return nil
		}
		for i, e := range v {
			if err := exactNames(element(path, i), e, t.Elem()); err != nil {
				return err
			}
		}
	}
	return nil
}

var (
	guidForm       = regexp.MustCompile(`^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$`)
	accountForm    = regexp.MustCompile(`^[0-9]{12}$`)
	licenseForm    = regexp.MustCompile(`^arn:aws[a-zA-Z-]*:[A-Za-z0-9][A-Za-z0-9_/.-]{0,62}:[A-Za-z0-9_/.-]{0,63}:[A-Za-z0-9_/.-]{0,63}:[A-Za-z0-9][A-Za-z0-9:_/+=,@.-]*$`)
	managedAppForm = regexp.MustCompile(`(?i)^/subscriptions/[0-9a-f-]{36}/resourceGroups/[^/]+(/.*)?$`)
)

// check returns the first error in the catalog.
func (c *Catalog) check() error {
	k := checker{seen: map[string]bool{}}
	c.checkAWS(&k)
	c.checkAzure(&k)
	c.checkGoogle(&k)
	return k.err
}

// A checker remembers the keys seen so far, and the first error.
type checker struct {
	seen map[string]bool
	err  error
}

func (k *checker) require(ok bool, format string, args ...any) {
	if !ok && k.err == nil {
		k.err = fmt.Errorf(format, args...)
	}
}

// add requires that the key is not empty and has not appeared before.
func (k *checker) add(at, kind, key string) {
	k.require(key != "", "%s: the %s is missing", at, kind)
	k.require(!k.seen[kind+" "+key], "%s: %s %q appears twice", at, kind, key)
	k.seen[kind+" "+key] = true
}

func (k *checker) refer(at, kind, key string) {
	k.require(k.seen[kind+" "+key], "%s: there is no %s %q", at, kind, key)
}

func (k *checker) price(at, price string) {
	r, ok := parseDecimal(price)
	k.require(ok && r.Sign() >= 0, "%s: price %q must be a decimal of at least 0, such as \"0.25\"", at, price)
}

func (k *checker) dimensions(at string, dimensions []Dimension) {
	keys := checker{seen: map[string]bool{}}
	for _, d := range dimensions {
		keys.add(at, "dimension", d.Key)
		keys.price(at+", dimension "+d.Key, d.Price)
	}
	k.require(keys.err == nil, "%w", keys.err)
}

func (c *Catalog) checkAWS(k *checker) {
	for i, s := range c.AWS.Sellers {
		at := element("aws.sellers", i)
		k.add(at, "seller", s.AccountID)
		for _, key := range s.AccessKeyIDs {
			k.add(at, "access key", key)
		}
	}
	for i, p := range c.AWS.Products {
		at := element("aws.products", i)
		k.add(at, "product", p.ProductCode)
		if p.Seller != "" {
			k.refer(at, "seller", p.Seller)
		}
		k.dimensions(at, p.Dimensions)
	}
	for i, u := range c.AWS.Customers {
		at := element("aws.customers", i)
		k.add(at, "customer", u.AccountID)
		k.require(accountForm.MatchString(u.AccountID), "%s: accountId %q must have 12 digits", at, u.AccountID)
		if u.CustomerIdentifier != "" {
			k.add(at, "customer identifier", u.CustomerIdentifier)
		}
	}
	for i, a := range c.AWS.Agreements {
		at := element("aws.agreements", i)
		k.refer(at, "customer", a.AccountID)
		k.refer(at, "product", a.ProductCode)
		if a.LicenseArn != "" {
			k.add(at, "licence", a.LicenseArn)
			k.require(licenseForm.MatchString(a.LicenseArn), "%s: licenseArn %q is not an ARN", at, a.LicenseArn)
		}
		for _, t := range a.RegistrationTokens {
			k.add(at, "registration token", t.Token)
		}
	}
}

func (c *Catalog) checkAzure(k *checker) {
	for i, a := range c.Azure.Applications {
		at := element("azure.applications", i)
		k.add(at, "application", strings.ToLower(a.ClientID))
		k.require(guidForm.MatchString(a.ClientID), "%s: clientId %q must be a GUID", at, a.ClientID)
		k.require(guidForm.MatchString(a.TenantID), "%s: tenantId %q must be a GUID", at, a.TenantID)
		k.require(a.ClientSecret != "", "%s: the clientSecret is missing", at)
	}
	for i, o := range c.Azure.Offers {
		at := element("azure.offers", i)
		k.add(at, "offer", o.OfferID)
		k.refer(at, "application", strings.ToLower(o.ClientID))
		for _, p := range o.Plans {
			k.add(at, "plan of "+o.OfferID, p.PlanID)
			k.dimensions(at+", plan "+p.PlanID, p.Dimensions)
		}
	}
	for i, s := range c.Azure.Subscriptions {
		at := element("azure.subscriptions", i)
		k.require((s.ResourceID == "") != (s.ResourceURI == ""), "%s: it needs resourceId or resourceUri, and not both", at)
		k.require(s.ResourceID == "" || guidForm.MatchString(s.ResourceID), "%s: resourceId %q must be a GUID", at, s.ResourceID)
		k.require(s.ResourceURI == "" || managedAppForm.MatchString(s.ResourceURI),
			"%s: resourceUri %q must be /subscriptions/{GUID}/resourceGroups/...", at, s.ResourceURI)
		k.add(at, "resource", strings.ToLower(s.ResourceID+s.ResourceURI))
		k.refer(at, "offer", s.OfferID)
		k.refer(at, "plan of "+s.OfferID, s.PlanID)
		switch s.State {
		case AzurePending, AzureSubscribed, AzureSuspended:
			k.require(s.Cancelled == nil, "%s: cancelled needs the state %s", at, AzureUnsubscribed)
		case AzureUnsubscribed:
			k.require(s.Cancelled != nil, "%s: the state %s needs cancelled, its time", at, AzureUnsubscribed)
		default:
			k.require(false, "%s: state %q must be %s, %s, %s or %s", at, s.State, AzurePending, AzureSubscribed, AzureSuspended, AzureUnsubscribed)
		}
	}
	for i, r := range c.Azure.Reconciliations {
		at := element("azure.reconciliations", i)
		k.refer(at, "resource", strings.ToLower(r.Resource))
		_, err := time.Parse(time.DateOnly, r.Date)
		k.require(err == nil, "%s: date %q must be as in 2026-11-26", at, r.Date)
		switch r.ReconStatus {
		case "Submitted", "Accepted", "Rejected", "Mismatch":
		default:
			k.require(false, "%s: reconStatus %q must be Submitted, Accepted, Rejected or Mismatch", at, r.ReconStatus)
		}
		_, ok := parseDecimal(r.ProcessedQuantity)
		k.require(ok, "%s: processedQuantity %q must be a decimal", at, r.ProcessedQuantity)
	}
}

// metricKinds and metricTypes are those of Google's metric descriptors, and "" for the default.
var (
	metricKinds = []string{"", "DELTA", "GAUGE", "CUMULATIVE"}
	metricTypes = []string{"", "INT64", "DOUBLE", "BOOL", "STRING", "DISTRIBUTION", "MONEY"}
)

func (c *Catalog) checkGoogle(k *checker) {
	for i, a := range c.Google.ServiceAccounts {
		k.add(element("gcp.serviceAccounts", i), "service account", a.Email)
	}
	for i, w := range c.Google.WorkloadIdentity {
		at := element("gcp.workloadIdentity", i)
		k.add(at, "audience", w.Audience)
		for _, email := range w.ServiceAccounts {
			k.refer(at, "service account", email)
		}
	}
	for i, s := range c.Google.Services {
		at := element("gcp.services", i)
		k.add(at, "service", s.Name)
		for _, email := range s.Reporters {
			k.refer(at, "service account", email)
		}
		for _, m := range s.Metrics {
			k.add(at, "metric of "+s.Name, m.Name)
			k.price(at+", metric "+m.Name, m.Price)
			k.require(slices.Contains(metricKinds, m.Kind), "%s, metric %s: kind %q must be DELTA, GAUGE or CUMULATIVE", at, m.Name, m.Kind)
			k.require(slices.Contains(metricTypes, m.ValueType), "%s, metric %s: valueType %q must be one of %s",
				at, m.Name, m.ValueType, strings.Join(metricTypes[1:], ", "))
		}
	}
	for i, e := range c.Google.Entitlements {
		at := element("gcp.entitlements", i)
		k.add(at, "entitlement", e.UsageReportingID)
		k.refer(at, "service", e.Service)
		switch e.State {
		case GoogleActive, GoogleBillingDisabled, GoogleNotActivated, GoogleProjectDeleted:
		default:
			k.require(false, "%s: state %q must be %s, %s, %s or %s", at, e.State,
				GoogleActive, GoogleBillingDisabled, GoogleNotActivated, GoogleProjectDeleted)
		}
	}
}
