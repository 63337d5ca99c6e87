package transfer_test

import (
	"encoding/json"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/wire"
	"github.com/marketmeter/marketmeter/sandbox"
)

// The sample's catalog is one that the sandbox takes, and what is stored beside it is what the API
// takes. Each entitlement has the identifiers of a purchase in the catalog, and its dimensions.
func TestSampleJSON_IsTakenByTheSandboxAndTheAPI(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("sample.json")
	if err != nil {
		t.Fatal(err)
	}
	var sample struct {
		Catalog                            json.RawMessage
		Entitlements, Connections, Metrics []json.RawMessage
		Config                             json.RawMessage
	}
	if err := json.Unmarshal(text, &sample); err != nil {
		t.Fatal(err)
	}
	catalog, err := sandbox.ReadCatalog(sample.Catalog)
	if err != nil {
		t.Fatal(err)
	}
	identities := map[string]bool{}
	for _, body := range sample.Entitlements {
		e, err := wire.DecodeEntitlement(body)
		if err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		if key := e.IdentityKey(); key == "" || identities[key] {
			t.Errorf("%s has no identity, or that of another", e.ID)
		} else {
			identities[key] = true
		}
		keys := dimensionsSold(&catalog, e.Marketplace)
		for _, d := range e.Info.Dimensions {
			if !slices.Contains(keys, d.Key) {
				t.Errorf("%s: the catalog sells %q, not %s", e.ID, keys, d.Key)
			}
		}
		if len(keys) != len(e.Info.Dimensions) {
			t.Errorf("%s: the catalog sells %q", e.ID, keys)
		}
	}
	if len(identities) != 20 {
		t.Errorf("%d entitlements, want those of the sample's 20", len(identities))
	}
	partners := []metering.Partner{}
	for _, body := range sample.Connections {
		c, err := wire.DecodeConnection(body)
		if err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		partners = append(partners, c.Partner)
	}
	if !slices.Equal(partners, []metering.Partner{"AWS", "AZURE", "GCP"}) {
		t.Errorf("connections of %q", partners)
	}
	for _, body := range sample.Metrics {
		m, err := wire.DecodeMetric(body)
		if err == nil {
			m.Status = ""
			_, err = metering.NewMetric("demo", m.ID, &m, time.Unix(0, 0))
		}
		if err != nil {
			t.Errorf("%s: %v", body, err)
		}
	}
	patch, err := wire.DecodeConfigPatch(sample.Config)
	if err == nil {
		_, err = patch.Apply(metering.EmptyConfig())
	}
	if err != nil {
		t.Error(err)
	}
}

// dimensionsSold returns the dimensions of the purchase with these identifiers.
func dimensionsSold(c *sandbox.Catalog, ids metering.MarketplaceIDs) (keys []string) {
	product := ""
	customers := map[string]string{}
	for _, customer := range c.AWS.Customers {
		customers[customer.AccountID] = customer.CustomerIdentifier
	}
	for _, a := range c.AWS.Agreements {
		if ids.LicenseARN != "" && a.LicenseArn == ids.LicenseARN && a.AccountID == ids.CustomerAWSAccountID ||
			ids.CustomerIdentifier != "" && customers[a.AccountID] == ids.CustomerIdentifier && a.ProductCode == ids.ProductCode {
			product = a.ProductCode
		}
	}
	for _, p := range c.AWS.Products {
		if p.ProductCode == product {
			for _, d := range p.Dimensions {
				keys = append(keys, d.Key)
			}
		}
	}
	for _, s := range c.Azure.Subscriptions {
		if ids.PlanID != s.PlanID || (ids.ResourceID != s.ResourceID || ids.ResourceURI != s.ResourceURI) {
			continue
		}
		for _, o := range c.Azure.Offers {
			for _, plan := range o.Plans {
				if o.OfferID == s.OfferID && plan.PlanID == s.PlanID {
					for _, d := range plan.Dimensions {
						keys = append(keys, d.Key)
					}
				}
			}
		}
	}
	for _, e := range c.Google.Entitlements {
		if e.UsageReportingID != ids.UsageReportingID || e.Service != ids.ServiceName {
			continue
		}
		for _, s := range c.Google.Services {
			if s.Name == e.Service {
				for _, m := range s.Metrics {
					keys = append(keys, m.Name)
				}
			}
		}
	}
	return keys
}
