package sandbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// A Request is a request to a marketplace, with the decisions about it and their reasons.
type Request struct {
	Number      uint64              `json:"number"` // from 1
	Time        time.Time           `json:"time"`   // of the sandbox's clock
	Marketplace Marketplace         `json:"marketplace"`
	Operation   string              `json:"operation"` // empty if the marketplace has no such operation
	Method      string              `json:"method"`
	URL         string              `json:"url"`
	Header      map[string][]string `json:"header"`
	Body        []byte              `json:"body"` // base64 of the bytes as sent
	// BodyLength is the length of a refused body over 1 MiB, of which Body is the beginning.
	BodyLength int        `json:"bodyLength,omitempty"`
	Decisions  []Decision `json:"decisions"`
	Fault      string     `json:"fault,omitempty"`
	FaultID    int        `json:"faultId,omitempty"`
	Response   *Response  `json:"response"` // null if none was sent
}

// A Response is the response that the client gets.
type Response struct {
	Status int                 `json:"status"`
	Header map[string][]string `json:"header"`
	Body   []byte              `json:"body"` // base64
}

// The outcomes of a Decision.
const (
	Accepted     = "accepted"     // stored and billed
	Duplicate    = "duplicate"    // an earlier record is valid; nothing was stored
	Refused      = "refused"      // nothing was stored
	Throttling   = "throttled"    // nothing was stored
	NotDone      = "notDone"      // a fault: nothing was stored
	Answered     = "answered"     // a request that stores nothing: a token, a list, a check
	Undocumented = "undocumented" // refused: the sources do not say what the marketplace does
)

// A Decision is the outcome of a request, or of one record of it.
type Decision struct {
	Record   *int   `json:"record,omitempty"` // its position; absent means the whole request
	Identity string `json:"identity,omitempty"`
	Outcome  string `json:"outcome"`
	Status   string `json:"status,omitempty"` // as the marketplace names it
	Reason   string `json:"reason,omitempty"`
}

// An event changes the state. The journal holds events; applying them to the initial state gives
// the current state.
type event struct {
	Seed        *uint64       `json:"seed,omitempty"`
	Catalog     *Catalog      `json:"catalog,omitempty"`
	Clock       *clockState   `json:"clock,omitempty"`
	Fault       *Fault        `json:"fault,omitempty"`
	ClearFaults bool          `json:"clearFaults,omitempty"`
	Request     *requestEvent `json:"request,omitempty"`
}

type requestEvent struct {
	Request
	Records []Record `json:"records,omitempty"`
	Tokens  []token  `json:"tokens,omitempty"`
	Matched []int    `json:"matched,omitempty"`
}

// A token is an access token that a marketplace has issued.
type token struct {
	Value       string      `json:"value"`
	Marketplace Marketplace `json:"marketplace"`
	Principal   string      `json:"principal"` // client ID, service account, or audience of a federated token
	Federated   bool        `json:"federated,omitempty"`
	Scopes      []string    `json:"scopes,omitempty"`
	Expires     time.Time   `json:"expires"`
}

type state struct {
	seed     uint64 // the journal's
	catalog  index
	put      bool // an event has set the catalog
	clock    clockState
	faults   []*Fault
	rules    int // fault rules so far
	requests requestLog
	records  []Record
	byKey    map[string]int // position in records, by identity
	tokens   map[string]token
}

func newState(o *Options) *state {
	return &state{
		catalog: indexOf(deepCopy(o.Catalog)), byKey: map[string]int{}, tokens: map[string]token{},
		requests: requestLog{maxRequests: o.MaxRequests, maxBytes: o.MaxRequestBytes},
	}
}

// A requestLog has the last requests, up to a number and a size. It drops the oldest.
type requestLog struct {
	list        []Request
	bytes       int
	dropped     uint64
	maxRequests int
	maxBytes    int
}

// last returns the number of the last request.
func (l *requestLog) last() uint64 { return l.dropped + uint64(len(l.list)) }

func (l *requestLog) add(r Request) {
	l.list = append(l.list, r)
	l.bytes += r.size()
	for len(l.list) > l.maxRequests || l.bytes > l.maxBytes && len(l.list) > 1 {
		l.bytes -= l.list[0].size()
		l.list[0] = Request{} // the array keeps no reference to it
		l.list = l.list[1:]
		l.dropped++
	}
}

// size returns about how many bytes the request takes in memory.
func (r *Request) size() int {
	size := 500 + len(r.Body) + len(r.URL)
	headers := []map[string][]string{r.Header}
	if r.Response != nil {
		size += len(r.Response.Body)
		headers = append(headers, r.Response.Header)
	}
	for _, header := range headers {
		for name, values := range header {
			size += 50 + len(name)
			for _, value := range values {
				size += 16 + len(value)
			}
		}
	}
	for i := range r.Decisions {
		d := &r.Decisions[i]
		size += 100 + len(d.Identity) + len(d.Status) + len(d.Reason)
	}
	return size
}

// apply applies the event to the state. It never fails, because events were checked before.
func (s *state) apply(e event) {
	switch {
	case e.Seed != nil:
		s.seed = *e.Seed
	case e.Catalog != nil:
		s.put = true
		s.catalog = indexOf(deepCopy(*e.Catalog))
	case e.Clock != nil:
		s.clock = *e.Clock
	case e.Fault != nil:
		s.rules++
		f := deepCopy(*e.Fault)
		f.ID = s.rules
		s.faults = append(s.faults, &f)
	case e.ClearFaults:
		s.faults = nil
	case e.Request != nil:
		s.applyRequest(e.Request)
	}
}

func (s *state) applyRequest(r *requestEvent) {
	s.requests.add(r.Request)
	for _, record := range r.Records {
		s.byKey[recordKey(record.Marketplace, record.Identity)] = len(s.records)
		s.records = append(s.records, record)
	}
	for _, t := range r.Tokens {
		s.tokens[t.Value] = t
	}
	for _, f := range s.faults {
		for _, id := range r.Matched {
			if f.ID == id {
				f.Matched++
			}
		}
		if f.ID == r.FaultID {
			f.Hit++
		}
	}
}

func recordKey(m Marketplace, identity string) string { return string(m) + " " + identity }

func (s *state) replay(text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields() // an event of a newer version must not be ignored
	var e event
	if err := d.Decode(&e); err != nil {
		return fmt.Errorf("it cannot be read: %w", err)
	}
	s.apply(e)
	return nil
}

// An index is a catalog with maps for lookups by key.
type index struct {
	Catalog
	awsSellers    map[string]string // account by access key
	awsProducts   map[string]*AWSProduct
	awsCustomers  map[string]*AWSCustomer    // by account
	awsLegacy     map[string]*AWSCustomer    // by customer identifier
	awsAgreements map[string][]*AWSAgreement // by account and product
	awsLicences   map[string]*AWSAgreement
	applications  map[string]*AzureApplication // by client ID in lower case
	offers        map[string]*AzureOffer
	resources     map[string]*AzureSubscription // by resource in lower case
	services      map[string]*GoogleService
	entitlements  map[string]*GoogleEntitlement
}

func indexOf(c Catalog) index {
	x := index{
		Catalog: c, awsSellers: map[string]string{},
		awsProducts:   byKey(c.AWS.Products, func(p *AWSProduct) string { return p.ProductCode }),
		awsCustomers:  byKey(c.AWS.Customers, func(u *AWSCustomer) string { return u.AccountID }),
		awsLegacy:     byKey(c.AWS.Customers, func(u *AWSCustomer) string { return u.CustomerIdentifier }),
		awsAgreements: map[string][]*AWSAgreement{},
		awsLicences:   byKey(c.AWS.Agreements, func(a *AWSAgreement) string { return a.LicenseArn }),
		applications:  byKey(c.Azure.Applications, func(a *AzureApplication) string { return strings.ToLower(a.ClientID) }),
		offers:        byKey(c.Azure.Offers, func(o *AzureOffer) string { return o.OfferID }),
		resources:     byKey(c.Azure.Subscriptions, func(s *AzureSubscription) string { return strings.ToLower(s.ResourceID + s.ResourceURI) }),
		services:      byKey(c.Google.Services, func(s *GoogleService) string { return s.Name }),
		entitlements:  byKey(c.Google.Entitlements, func(e *GoogleEntitlement) string { return e.UsageReportingID }),
	}
	for _, s := range c.AWS.Sellers {
		for _, key := range s.AccessKeyIDs {
			x.awsSellers[key] = s.AccountID
		}
	}
	for i := range c.AWS.Agreements {
		a := &c.AWS.Agreements[i]
		key := a.AccountID + " " + a.ProductCode
		x.awsAgreements[key] = append(x.awsAgreements[key], a)
	}
	return x
}

// byKey maps the elements that have a key.
func byKey[T any](list []T, key func(*T) string) map[string]*T {
	m := map[string]*T{}
	for i := range list {
		if k := key(&list[i]); k != "" {
			m[k] = &list[i]
		}
	}
	return m
}

// dimension returns the dimension with the key, or nil.
func dimension(dimensions []Dimension, key string) *Dimension {
	for i := range dimensions {
		if dimensions[i].Key == key {
			return &dimensions[i]
		}
	}
	return nil
}

// deepCopy copies plain data with everything that it points to.
func deepCopy[T any](v T) T {
	var c T
	text, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(text, &c)
	}
	if err != nil {
		panic(err) // plain data can always be encoded
	}
	return c
}
