package sandbox_test

import (
	"fmt"
	"net/http/httptest"

	"github.com/marketmeter/marketmeter/sandbox"
)

// A test of a seller's own meter: three lines, and the meter reports to server.URL + "/aws", "/azure" or "/gcp".
func Example() {
	s, err := sandbox.New(sandbox.Options{Catalog: sandbox.Catalog{AWS: sandbox.AWSCatalog{
		Products:   []sandbox.AWSProduct{{ProductCode: "prod-1", Dimensions: []sandbox.Dimension{{Key: "requests", Price: "0.25"}}}},
		Customers:  []sandbox.AWSCustomer{{AccountID: "111122223333"}},
		Agreements: []sandbox.AWSAgreement{{AccountID: "111122223333", ProductCode: "prod-1", LicenseArn: "arn:aws:license-manager::1:license:l-1"}},
	}}})
	server := httptest.NewServer(s)
	defer server.Close()

	if err != nil {
		panic(err)
	}
	bill, err := s.Bill("")
	fmt.Println(len(bill.Lines), err)
	// Output: 0 <nil>
}
