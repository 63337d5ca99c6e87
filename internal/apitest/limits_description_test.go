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
			value, _ = value.(doc)[name]
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
	body := at(description, "paths", "/org/{orgId}/batchValidateUsageRecordGroups", "post", "requestBody", "content", "application/json", "schema", "maxItems")
	if body != metering.MaxBatch {
		t.Errorf("a batch has %v groups at most, want %d", body, metering.MaxBatch)
	}
}
