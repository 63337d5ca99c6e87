package aws

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/reporting"
)

// maxRecords is how many records a request may have. Source: the API model of meteringmarketplace.
// The model's other limit, 1 MB, is far above what 25 records take.
const maxRecords = 25

var limits = reporting.Limits{Partner: "AWS", Records: maxRecords, Check: check, Identity: identity}

// Forms of the API model of meteringmarketplace.
var (
	quantityForm = regexp.MustCompile(`^(0|[1-9][0-9]{0,9})(\.[0-9]{1,6})?$`)
	// regionForm keeps a Region from changing the host of the endpoint.
	regionForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
)

type batch struct {
	ProductCode  string  `json:",omitzero"`
	UsageRecords []usage `json:"UsageRecords"`
}

// usage is a UsageRecord of the API model, with the members that are sent. Quantity is deprecated
// and never sent.
type usage struct {
	Timestamp            jsontext.Value
	Dimension            string
	QuantityAsDecimal    string
	CustomerIdentifier   string `json:",omitzero"`
	CustomerAWSAccountID string `json:"CustomerAWSAccountId,omitzero"`
	LicenseARN           string `json:"LicenseArn,omitzero"`
}

// Body returns the request for records of one lane. The same records give the same bytes.
//
// A licence determines the product: ProductCode beside LicenseArn is refused (marketplace:
// "Metering for usage"; RedHatInsights/rhsm-subscriptions PR 6539 ran into it).
func Body(records []reporting.Record) []byte {
	b := batch{UsageRecords: make([]usage, 0, len(records))}
	for i := range records {
		r := &records[i]
		u := usage{Timestamp: timestamp(r.Start), Dimension: r.Dimension, QuantityAsDecimal: r.Quantity.String()}
		if r.IDs.LicenseARN != "" {
			u.CustomerAWSAccountID, u.LicenseARN = r.IDs.CustomerAWSAccountID, r.IDs.LicenseARN
		} else {
			u.CustomerIdentifier, b.ProductCode = r.IDs.CustomerIdentifier, r.IDs.ProductCode
		}
		b.UsageRecords = append(b.UsageRecords, u)
	}
	body, err := json.Marshal(b)
	if err != nil {
		panic(err) // strings that check has seen
	}
	return body
}

// timestamp returns the time in seconds since 1970. JSON 1.1 allows three digits of a fraction.
func timestamp(t time.Time) jsontext.Value {
	text := strconv.FormatInt(t.Unix(), 10)
	if ms := t.Nanosecond() / int(time.Millisecond); ms != 0 {
		text += strings.TrimRight(fmt.Sprintf(".%03d", ms), "0")
	}
	return jsontext.Value(text)
}

// check returns why AWS could not hold the record.
func check(r *reporting.Record) (metering.ProblemCode, string) {
	quantity, ids := r.Quantity.String(), &r.IDs
	switch {
	case !quantityForm.MatchString(quantity):
		code := metering.ProblemQuantityRange
		if whole, fraction, _ := strings.Cut(quantity, "."); len(whole) <= 10 && len(fraction) > 6 {
			code = metering.ProblemQuantityPrecision
		}
		return code, "the quantity is " + quantity + ": AWS holds 10 digits before the point and 6 after it"
	case ids.LicenseARN != "" && (ids.CustomerIdentifier != "" || ids.ProductCode != ""):
		// Both integrations at once bill twice (marketplace: "Metering for usage").
		return metering.ProblemEntitlementWithoutIdentifiers, "the record has the identifiers of both integrations: it must have those of one"
	case !regionForm.MatchString(region(r)):
		return metering.ProblemEntitlementWithoutIdentifiers, "the region is " + metering.Quote(region(r)) + ": it must be as us-east-1"
	}
	return "", ""
}

func region(r *reporting.Record) string { return reporting.LaneOf("AWS", r).Region }

// identity is how AWS finds duplicates in a Region: account, licence, dimension and hour, or
// product, customer, dimension and hour.
func identity(r *reporting.Record) string {
	return fmt.Sprintf("%q", []string{
		r.IDs.CustomerAWSAccountID, r.IDs.LicenseARN, r.IDs.CustomerIdentifier, r.IDs.ProductCode,
		r.Dimension, r.Hour().Format(time.RFC3339),
	})
}
