package transfer

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/sandbox"
)

//go:embed sample.json
var sampleJSON []byte

// sampleFile is sample.json: the products, buyers and terms of the sample data. The sandbox's
// catalog is made from it too, so the marketplaces know the buyers.
type sampleFile struct {
	Products     []sampleProduct     `json:"products"`
	Entitlements []sampleEntitlement `json:"entitlements"`

	Connections          []sampleConnection `json:"connections"`
	AzureClientSecret    string             `json:"azureClientSecret"` // known to the sandbox alone
	GoogleServiceAccount string             `json:"gcpServiceAccount"`

	Metrics []json.RawMessage `json:"metrics"` // as the API returns them, without times
	Config  json.RawMessage   `json:"config"`
	Reports []sampleReport    `json:"reports"`
}

// sampleProduct is a product, with its names on each marketplace.
type sampleProduct struct {
	ID             string            `json:"id"`
	Name           string            `json:"name"`
	AWSProductCode string            `json:"awsProductCode"`
	AzureOffer     string            `json:"azureOffer"`
	AzurePlan      string            `json:"azurePlan"`
	GoogleService  string            `json:"gcpService"`
	Dimensions     []sampleDimension `json:"dimensions"`
}

type sampleDimension struct {
	Key  string      `json:"key"`
	Name string      `json:"name"`
	Rate json.Number `json:"rate,omitempty"`
}

// sampleEntitlement is an entitlement, and what the sample data needs beside it.
type sampleEntitlement struct {
	ID           metering.EntitlementID `json:"id"`
	Partner      metering.Partner       `json:"partner"`
	BuyerID      string                 `json:"buyerID"`
	ProductID    string                 `json:"productID"`
	Status       string                 `json:"status"` // empty is ACTIVE
	StartTime    *time.Time             `json:"startTime"`
	EndTime      *time.Time             `json:"endTime"`
	Marketplace  sampleMarketplace      `json:"marketplace"`
	Source       metering.Source        `json:"source"`       // of its usage
	AWSAccountID string                 `json:"awsAccountID"` // of a customer that is metered by an identifier
	History      bool                   `json:"history"`      // it has usage of the past weeks
}

type sampleMarketplace struct {
	CustomerAWSAccountID string `json:"customerAWSAccountID,omitempty"`
	LicenseARN           string `json:"licenseArn,omitempty"`
	CustomerIdentifier   string `json:"customerIdentifier,omitempty"`
	ProductCode          string `json:"productCode,omitempty"`
	ResourceID           string `json:"resourceID,omitempty"`
	PlanID               string `json:"planID,omitempty"`
	UsageReportingID     string `json:"usageReportingID,omitempty"`
	ServiceName          string `json:"serviceName,omitempty"`
}

type sampleConnection struct {
	Partner  metering.Partner `json:"partner"`
	TenantID string           `json:"tenantID"`
	ClientID string           `json:"clientID"`
}

// sampleReport is usage that is reported when the sample data is loaded.
type sampleReport struct {
	Ago     duration             `json:"ago"`     // when the usage happened
	Group   json.RawMessage      `json:"group"`   // as a client sends it
	Problem metering.ProblemCode `json:"problem"` // that makes it INVALID; empty: it is CREATED
}

type duration time.Duration

func (d *duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	*d = duration(parsed)
	return err
}

// sample is the content of sample.json.
var sample = sync.OnceValue(func() *sampleFile {
	var s sampleFile
	d := json.NewDecoder(strings.NewReader(string(sampleJSON)))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		panic("sample.json: " + err.Error()) // a test reads it
	}
	return &s
})

func (s *sampleFile) product(id string) *sampleProduct {
	return &s.Products[slices.IndexFunc(s.Products, func(p sampleProduct) bool { return p.ID == id })]
}

// entitlementLines returns the entitlements as JSON lines for an import.
func (s *sampleFile) entitlementLines(created time.Time) (lines []byte) {
	for i := range s.Entitlements {
		e := &s.Entitlements[i]
		p := s.product(e.ProductID)
		status := e.Status
		if status == "" {
			status = string(metering.EntitlementActive)
		}
		lines = appendLine(lines, struct {
			ID           metering.EntitlementID `json:"id"`
			Name         string                 `json:"name"`
			Partner      metering.Partner       `json:"partner"`
			BuyerID      string                 `json:"buyerID"`
			ProductID    string                 `json:"productID"`
			Status       string                 `json:"status"`
			StartTime    *time.Time             `json:"startTime,omitempty"`
			EndTime      *time.Time             `json:"endTime,omitempty"`
			Info         any                    `json:"info"`
			Marketplace  sampleMarketplace      `json:"marketplace"`
			CreationTime string                 `json:"creationTime"`
		}{
			e.ID, p.Name + " for " + e.BuyerID, e.Partner, e.BuyerID, e.ProductID, status, e.StartTime, e.EndTime,
			map[string]any{"currency": "USD", "dimensions": p.Dimensions},
			e.Marketplace, metering.FormatTime(created),
		})
	}
	return lines
}

// metricLines returns the metrics as JSON lines for an import.
func (s *sampleFile) metricLines(created time.Time) (lines []byte) {
	for _, metric := range s.Metrics {
		var members map[string]any
		if err := json.Unmarshal(metric, &members); err != nil {
			panic(err) // a test reads it
		}
		members["creationTime"] = metering.FormatTime(created)
		lines = appendLine(lines, members)
	}
	return lines
}

func appendLine(lines []byte, object any) []byte {
	line, err := json.Marshal(object)
	if err != nil {
		panic(err) // it holds texts and numbers
	}
	return append(append(lines, line...), '\n')
}

// SampleCatalog returns the catalog of a sandbox that knows the products and buyers of the sample
// data.
func SampleCatalog() sandbox.Catalog {
	s := sample()
	var c sandbox.Catalog
	account := map[metering.Partner]sampleConnection{}
	for _, connection := range s.Connections {
		account[connection.Partner] = connection
	}
	azure := account["AZURE"]
	c.Azure.Applications = []sandbox.AzureApplication{{TenantID: azure.TenantID, ClientID: azure.ClientID, ClientSecret: s.AzureClientSecret}}
	c.Google.ServiceAccounts = []sandbox.GoogleServiceAccount{{Email: s.GoogleServiceAccount}}
	for i := range s.Products {
		p := &s.Products[i]
		service := sandbox.GoogleService{Name: p.GoogleService, Reporters: []string{s.GoogleServiceAccount}}
		var dimensions []sandbox.Dimension
		for _, d := range p.Dimensions {
			dimensions = append(dimensions, sandbox.Dimension{Key: d.Key, Price: d.price()})
			service.Metrics = append(service.Metrics, sandbox.GoogleMetric{Name: d.Key, Price: d.price()})
		}
		c.AWS.Products = append(c.AWS.Products, sandbox.AWSProduct{ProductCode: p.AWSProductCode, Dimensions: dimensions})
		c.Azure.Offers = append(c.Azure.Offers, sandbox.AzureOffer{
			OfferID: p.AzureOffer, ClientID: azure.ClientID, Plans: []sandbox.AzurePlan{{PlanID: p.AzurePlan, Dimensions: dimensions}},
		})
		c.Google.Services = append(c.Google.Services, service)
	}
	for i := range s.Entitlements {
		s.addBuyer(&c, &s.Entitlements[i])
	}
	return c
}

func (d *sampleDimension) price() string {
	if d.Rate == "" {
		return "0"
	}
	return string(d.Rate)
}

// addBuyer adds what the marketplace knows of an entitlement; nothing if it has no identifiers.
func (s *sampleFile) addBuyer(c *sandbox.Catalog, e *sampleEntitlement) {
	p, m := s.product(e.ProductID), &e.Marketplace
	suspended := e.Status == string(metering.EntitlementSuspended)
	switch {
	case m.CustomerAWSAccountID != "", m.CustomerIdentifier != "":
		buyer := sandbox.AWSCustomer{AccountID: m.CustomerAWSAccountID + e.AWSAccountID, CustomerIdentifier: m.CustomerIdentifier}
		if !slices.Contains(c.AWS.Customers, buyer) {
			c.AWS.Customers = append(c.AWS.Customers, buyer)
		}
		c.AWS.Agreements = append(c.AWS.Agreements, sandbox.AWSAgreement{
			AgreementID: fmt.Sprint("agreement-", e.ID), AccountID: buyer.AccountID, ProductCode: p.AWSProductCode, LicenseArn: m.LicenseARN,
			Start: e.StartTime, Cancelled: e.EndTime,
		})
	case m.ResourceID != "":
		state := sandbox.AzureSubscribed
		switch {
		case suspended:
			state = sandbox.AzureSuspended
		case e.EndTime != nil:
			state = sandbox.AzureUnsubscribed
		case e.StartTime != nil:
			state = sandbox.AzurePending
		}
		c.Azure.Subscriptions = append(c.Azure.Subscriptions, sandbox.AzureSubscription{
			ResourceID: m.ResourceID, Buyer: e.BuyerID, OfferID: p.AzureOffer, PlanID: p.AzurePlan, State: state, Cancelled: e.EndTime,
		})
	case m.UsageReportingID != "":
		state := sandbox.GoogleActive
		if suspended {
			state = sandbox.GoogleBillingDisabled
		}
		c.Google.Entitlements = append(c.Google.Entitlements, sandbox.GoogleEntitlement{
			UsageReportingID: m.UsageReportingID, Service: p.GoogleService, Buyer: e.BuyerID, State: state, Cancelled: e.EndTime,
		})
	}
}
