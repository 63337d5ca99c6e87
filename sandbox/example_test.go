package sandbox_test

import (
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/marketmeter/marketmeter/sandbox"
)

// A Go test of a seller's own meter starts a sandbox and a server, and changes the meter's
// endpoint. The bill shows what the buyers would pay.
func Example() {
	s, err := sandbox.New(sandbox.Options{Catalog: exampleCatalog})
	server := httptest.NewServer(s)
	defer server.Close()
	if err != nil {
		log.Fatal(err)
	}
	meter(server.URL + "/aws")
	meter(server.URL + "/aws") // again, as after a lost response

	bill, err := s.Bill("")
	fmt.Println(bill.Lines[0].Records, bill.Lines[0].Quantity, bill.Lines[0].Amount, err)
	// Output: 1 17.42 4.355 <nil>
}

var exampleCatalog = sandbox.Catalog{AWS: sandbox.AWSCatalog{
	Products: []sandbox.AWSProduct{
		{ProductCode: "prod-1", Dimensions: []sandbox.Dimension{{Key: "gb", Price: "0.25"}}},
	},
	Customers: []sandbox.AWSCustomer{{AccountID: "111122223333"}},
	Agreements: []sandbox.AWSAgreement{
		{AccountID: "111122223333", ProductCode: "prod-1", LicenseArn: "arn:aws:license-manager::1:license:l-1"},
	},
}}

// hourOfExample is the hour that the example meters.
var hourOfExample = time.Now().Add(-time.Hour).Truncate(time.Hour)

// meter stands for the seller's program, whose requests the AWS SDK signs.
func meter(endpoint string) {
	body := fmt.Sprintf(`{"UsageRecords":[{"Timestamp":%d,"Dimension":"gb","QuantityAsDecimal":"17.42",`+
		`"CustomerAWSAccountId":"111122223333","LicenseArn":"arn:aws:license-manager::1:license:l-1"}]}`, hourOfExample.Unix())
	r, err := http.NewRequest(http.MethodPost, endpoint, strings.NewReader(body))
	if err != nil {
		log.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	r.Header.Set("X-Amz-Target", "AWSMPMeteringService.BatchMeterUsage")
	r.Header.Set("X-Amz-Date", "20261118T123000Z")
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261118/us-east-1/aws-marketplace/aws4_request, "+
		"SignedHeaders=host;x-amz-date, Signature="+strings.Repeat("0", 64))
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		log.Fatal(err)
	}
	response.Body.Close()
}
