package apitest

import (
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// The limits in the API description are those of the domain.
func TestLimits_AreInTheDescription(t *testing.T) {
	t.Parallel()
	var description doc
	if err := yaml.Unmarshal(readFile(t, "api/openapi.yaml"), &description); err != nil {
		t.Fatal(err)
	}
	at := func(value any, path ...string) any {
		for _, name := range path {
			object, _ := value.(doc)
			value = object[name]
		}
		return value
	}
	schemas := at(description, "components", "schemas").(doc)
	for name, want := range map[string]int{
		"OrganizationID": metering.MaxOrganizationID, "GroupID": metering.MaxGroupID, "BuyerID": metering.MaxBuyerID,
		"ProductID": metering.MaxProductID, "EntitlementID": metering.MaxEntitlementID, "Key": metering.MaxKey,
	} {
		if got := at(schemas, name, "maxLength"); got != want {
			t.Errorf("%s has a maxLength of %v, want %d", name, got, want)
		}
	}
	batches := 0
	for path, item := range at(description, "paths").(doc) {
		body := at(item, "post", "requestBody", "content", "application/json", "schema")
		if at(body, "type") != "array" {
			continue
		}
		batches++
		if limit := at(body, "maxItems"); limit != metering.MaxBatch {
			t.Errorf("%s accepts %v groups at most, want %d", path, limit, metering.MaxBatch)
		}
	}
	if batches == 0 {
		t.Error("no operation accepts a batch")
	}
}
