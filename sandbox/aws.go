package sandbox

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// AWS Marketplace Metering, JSON 1.1. Source: the API model meteringmarketplace 2016-01-14 and the
// seller guide.

const (
	opBatchMeterUsage = "BatchMeterUsage"
	opResolveCustomer = "ResolveCustomer"

	awsTarget      = "AWSMPMeteringService."
	awsContentType = "application/x-amz-json-1.1"

	// awsMaxRecords is the max number of records of a request. awsMaxBody is the smallest size that
	// is not "less than 1 MB".
	awsMaxRecords = 25
	awsMaxBody    = 1_000_000
	awsWindow     = 24 * time.Hour
	// awsGrace is how long the previous month stays open on the 1st.
	awsGrace = 6 * time.Hour
	// cancellationGrace is how long usage before a cancellation may be sent, on AWS and on Google.
	cancellationGrace = time.Hour
)

// awsLicencesOnly is the date from which new products are metered by licence only.
var awsLicencesOnly = time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)

// The names of AWS's errors.
const (
	awsTimestamp    = "TimestampOutOfBoundsException"
	awsDimension    = "InvalidUsageDimensionException"
	awsLicence      = "InvalidLicenseException"
	awsProduct      = "InvalidProductCodeException"
	awsCustomer     = "InvalidCustomerIdentifierException"
	awsTag          = "InvalidTagException"
	awsAllocations  = "InvalidUsageAllocationsException"
	awsDisabled     = "DisabledApiException"
	awsThrottling   = "ThrottlingException"
	awsInternal     = "InternalServiceErrorException"
	awsToken        = "InvalidTokenException"
	awsExpiredToken = "ExpiredTokenException"
	// These names are of the protocol, not of the service's model.
	awsValidation    = "ValidationException"
	awsSerialization = "SerializationException"
)

// An awsError fails the whole request.
type awsError struct {
	name, message string
	undocumented  bool // the sources do not document AWS's behavior
}

func (e *awsError) Error() string { return e.name + ": " + e.message }

func awsFailure(name, format string, args ...any) *awsError {
	return &awsError{name: name, message: fmt.Sprintf(format, args...)}
}

type awsProtocol struct{ *call }

func (p awsProtocol) operation() string {
	if name, ok := strings.CutPrefix(p.Header.Get("X-Amz-Target"), awsTarget); ok && (name == opBatchMeterUsage || name == opResolveCustomer) {
		return name
	}
	return ""
}

var (
	credentialForm = regexp.MustCompile(`^([A-Za-z0-9]{3,128})/([0-9]{8})/([a-z0-9-]{1,64})/([a-z0-9-]+)/aws4_request$`)
	signatureForm  = regexp.MustCompile(`^[0-9a-f]{64}$`)
	amzDateForm    = regexp.MustCompile(`^([0-9]{8})T[0-9]{6}Z$`)
)

// An awsCaller is the account that signed a request, and the Region of the signature.
type awsCaller struct{ account, region string }

// caller reads the signature. It checks presence and form only, because the secret is not known
// here.
func (p awsProtocol) caller() (awsCaller, *awsError) {
	header := p.Header.Get("Authorization")
	if header == "" {
		return awsCaller{}, awsFailure("MissingAuthenticationTokenException", "Request is missing Authentication Token")
	}
	parts := map[string]string{}
	rest, ok := strings.CutPrefix(header, "AWS4-HMAC-SHA256 ")
	if ok {
		for part := range strings.SplitSeq(rest, ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
			parts[name] = value
		}
	}
	credential := credentialForm.FindStringSubmatch(parts["Credential"])
	date := amzDateForm.FindStringSubmatch(p.Header.Get("X-Amz-Date"))
	signed := strings.Split(parts["SignedHeaders"], ";")
	if !ok || credential == nil || date == nil || !signatureForm.MatchString(parts["Signature"]) ||
		!slices.Contains(signed, "host") || !slices.Contains(signed, "x-amz-date") {
		return awsCaller{}, awsFailure("IncompleteSignatureException", "Authorization header requires AWS4-HMAC-SHA256 with Credential, "+
			"SignedHeaders (host and x-amz-date among them) and Signature, and X-Amz-Date")
	}
	if credential[2] != date[1] {
		return awsCaller{}, awsFailure("InvalidSignatureException", "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP")
	}
	if credential[4] != "aws-marketplace" {
		return awsCaller{}, awsFailure("InvalidSignatureException", "Credential should be scoped to correct service: 'aws-marketplace'.")
	}
	region := credential[3]
	if path := strings.Trim(p.path, "/"); path != "" && path != region {
		return awsCaller{}, awsFailure("InvalidSignatureException", "Credential should be scoped to a valid Region, not '%s'.", region)
	}
	caller := awsCaller{credential[1], region}
	if len(p.state.catalog.AWS.Sellers) > 0 {
		account, known := p.state.catalog.awsSellers[credential[1]]
		if !known {
			return awsCaller{}, awsFailure("UnrecognizedClientException", "The security token included in the request is invalid.")
		}
		caller.account = account
	}
	return caller, nil
}

// throttle counts the requests of each account and Region in real time, and allows at most the
// limit in any second.
func (p awsProtocol) throttle() (response, bool) {
	caller, failed := p.caller()
	limit := p.options.RateLimit
	if failed != nil || limit < 0 {
		return response{}, false
	}
	key := caller.account + " " + caller.region
	times := p.rate[key]
	for len(times) > 0 && p.wall.Sub(times[0]) >= time.Second {
		times = times[1:]
	}
	over := len(times) >= limit
	if !over {
		times = append(times, p.wall)
	}
	p.rate[key] = times
	if !over {
		return response{}, false
	}
	reason := fmt.Sprintf("more than %d requests in a second of real time, for account %s in %s", limit, caller.account, caller.region)
	p.refuse(Throttling, awsThrottling, reason)
	return p.fail(awsFailure(awsThrottling, "Rate exceeded")), true
}

func (p awsProtocol) fail(e *awsError) response {
	status := http.StatusBadRequest
	if e.name == awsInternal {
		status = http.StatusInternalServerError
	}
	r := p.json(status, map[string]string{"__type": e.name, "message": e.message})
	r.header.Set("X-Amzn-Errortype", e.name)
	return r
}

func (p awsProtocol) json(status int, value any) response {
	r := jsonResponse(status, awsContentType, value)
	r.header.Set("X-Amzn-Requestid", p.uuid("request", 0))
	return r
}

func (p awsProtocol) failure(h *hit) response {
	if h.is(Throttled) {
		return p.fail(awsFailure(awsThrottling, "Rate exceeded"))
	}
	name := awsInternal
	if h.Code != "" {
		name = h.Code
	}
	r := p.fail(awsFailure(name, "An internal error has occurred. Retry your request."))
	if h.Status != 0 {
		r.status = h.Status
	}
	return r
}

func (p awsProtocol) respond() response {
	value, err := p.run()
	if err == nil {
		return p.json(http.StatusOK, value)
	}
	outcome := Refused
	if err.undocumented {
		outcome = Undocumented
	}
	p.refuse(outcome, err.name, err.message)
	return p.fail(err)
}

func (p awsProtocol) run() (any, *awsError) {
	if p.Method != http.MethodPost || p.call.operation == "" {
		return nil, awsFailure("UnknownOperationException", "POST with X-Amz-Target %s%s or %s is known here", awsTarget, opBatchMeterUsage, opResolveCustomer)
	}
	caller, failed := p.caller()
	if failed != nil {
		return nil, failed
	}
	if regions := p.state.catalog.AWS.Regions; len(regions) > 0 && !slices.Contains(regions, caller.region) {
		return nil, awsFailure(awsDisabled, "The API is disabled in the Region %s.", caller.region)
	}
	if len(p.body) >= awsMaxBody {
		return nil, awsFailure("RequestEntityTooLargeException", "The request must be less than 1 MB in size.")
	}
	if got := p.Header.Get("Content-Type"); got != awsContentType {
		return nil, awsFailure(awsSerialization, "Content-Type is %q: it must be %s", got, awsContentType)
	}
	body, err := parseObject(p.body)
	if err != nil {
		return nil, awsFailure(awsSerialization, "%v", err)
	}
	if p.call.operation == opResolveCustomer {
		return p.resolve(caller, body)
	}
	return p.batch(caller, body)
}

// resolve is ResolveCustomer.
func (p awsProtocol) resolve(caller awsCaller, body *object) (any, *awsError) {
	err := body.only("", "RegistrationToken")
	var text string
	if err == nil {
		text, err = body.text("", "RegistrationToken")
	}
	if err != nil {
		return nil, awsFailure(awsSerialization, "%v", err)
	}
	if text == "" {
		return nil, awsFailure(awsValidation, "RegistrationToken must not be empty")
	}
	for i := range p.state.catalog.AWS.Agreements {
		a := &p.state.catalog.AWS.Agreements[i]
		for _, t := range a.RegistrationTokens {
			if t.Token != text {
				continue
			}
			product := p.state.catalog.awsProducts[a.ProductCode]
			if !mayMeter(product, caller) {
				return nil, awsFailure(awsToken, "Registration token is invalid: the product belongs to another account.")
			}
			if t.Expires != nil && !p.now.Before(*t.Expires) {
				return nil, awsFailure(awsExpiredToken, "The submitted registration token has expired.")
			}
			result := map[string]any{"CustomerAWSAccountId": a.AccountID, "ProductCode": a.ProductCode}
			if id := p.state.catalog.awsCustomers[a.AccountID].CustomerIdentifier; id != "" && !licencesOnly(product) {
				result["CustomerIdentifier"] = id // not populated for new integrations
			}
			if a.LicenseArn != "" {
				result["LicenseArn"] = a.LicenseArn
			}
			if a.AgreementID != "" {
				result["Metadata"] = map[string]string{"AgreementId": a.AgreementID}
			}
			p.decisions = append(p.decisions, Decision{Outcome: Answered})
			return result, nil
		}
	}
	return nil, awsFailure(awsToken, "Registration token is invalid.")
}

func mayMeter(product *AWSProduct, caller awsCaller) bool {
	return product.Seller == "" || product.Seller == caller.account
}

func licencesOnly(product *AWSProduct) bool {
	return product.Created != nil && !product.Created.Before(awsLicencesOnly)
}

// An awsRecord is a usage record as it was sent, with its entries in the catalog.
type awsRecord struct {
	*object
	at                            string
	timestamp                     time.Time
	dimension                     string
	quantity                      *big.Rat
	decimal                       bool
	customer, identifier, licence string
	allocations                   string // a digest of their set, empty if there are none

	buyer      *AWSCustomer
	product    *AWSProduct
	agreements []*AWSAgreement // those that the record may belong to
	unit       *Dimension
}

// batch is BatchMeterUsage. An error in any record fails the whole request. Otherwise each record
// gets a status.
func (p awsProtocol) batch(caller awsCaller, body *object) (any, *awsError) {
	productCode, records, failed := p.readBatch(body)
	if failed != nil {
		return nil, failed
	}
	for i := range records {
		if failed := p.resolveRecord(caller, productCode, &records[i]); failed != nil {
			return nil, failed
		}
		if first := records[0].product; records[i].product != first {
			return nil, awsFailure(awsLicence, "%s: a request is for one product, %s here, not %s too",
				records[i].at, first.ProductCode, records[i].product.ProductCode)
		}
		if records[i].decimal != records[0].decimal {
			e := awsFailure(awsValidation, "%s: the records of a request must all have QuantityAsDecimal, or none of them", records[i].at)
			e.undocumented = true
			return nil, e
		}
	}
	undone, missing := map[int]bool{}, map[int]bool{}
	if p.fault.is(Unprocessed) {
		undone = p.fault.chosen(len(records))
	}
	if p.fault.is(Partial) {
		missing = p.fault.chosen(len(records))
	}
	type result struct {
		UsageRecord      json.RawMessage
		MeteringRecordId string `json:",omitempty"`
		Status           string
	}
	results, unprocessed := []result{}, []json.RawMessage{}
	for i := range records {
		r := &records[i]
		if undone[i] {
			p.decided(i, r.identity(caller.region), NotDone, "", "fault "+Unprocessed)
			unprocessed = append(unprocessed, r.raw)
			continue
		}
		status, id := p.meter(caller, i, r)
		if !missing[i] {
			results = append(results, result{r.raw, id, status})
		}
	}
	return map[string]any{"Results": results, "UnprocessedRecords": unprocessed}, nil
}

// readBatch reads the request's members and checks them against the API's model.
func (p awsProtocol) readBatch(body *object) (productCode string, records []awsRecord, failed *awsError) {
	err := body.only("", "ProductCode", "UsageRecords")
	var list []*object
	if err == nil {
		productCode, err = body.text("", "ProductCode")
	}
	if err == nil {
		list, err = body.objects("", "UsageRecords")
	}
	if err != nil {
		return "", nil, awsFailure(awsSerialization, "%v", err)
	}
	if list == nil {
		return "", nil, awsFailure(awsValidation, "UsageRecords is missing")
	}
	if len(list) > awsMaxRecords {
		return "", nil, awsFailure(awsValidation, "1 validation error detected: Value at 'usageRecords' failed to satisfy constraint: "+
			"Member must have length less than or equal to %d", awsMaxRecords)
	}
	if !productCodeForm.MatchString(productCode) {
		return "", nil, awsFailure(awsValidation, "ProductCode must match %s", productCodeForm)
	}
	for i, o := range list {
		r := awsRecord{object: o, at: element("UsageRecords", i)}
		if failed := r.read(); failed != nil {
			return "", nil, failed
		}
		if r.licence != "" && productCode == "" && body.has("ProductCode") {
			e := awsFailure(awsProduct, "%s: ProductCode must not be sent with LicenseArn, not even if it is empty", r.at)
			e.undocumented = true // the model allows an empty ProductCode, and does not say what it means here
			return "", nil, e
		}
		records = append(records, r)
	}
	return productCode, records, nil
}

var (
	productCodeForm = regexp.MustCompile(`^[-a-zA-Z0-9/=:_.@]{0,255}$`)
	awsQuantityForm = regexp.MustCompile(`^(0|[1-9][0-9]{0,9})(\.[0-9]{1,6})?$`)
	// In the model's pattern " -=" is a range: from the space to "=".
	awsTagForm = regexp.MustCompile(`^[a-zA-Z0-9+ -=._:\/@]+$`)
	digitsForm = regexp.MustCompile(`^[0-9]{1,255}$`)
)

func (r *awsRecord) read() *awsError {
	err := r.only(r.at, "Timestamp", "Dimension", "Quantity", "QuantityAsDecimal", "CustomerIdentifier", "CustomerAWSAccountId",
		"LicenseArn", "UsageAllocations")
	for _, m := range []struct {
		name string
		into *string
	}{{"Dimension", &r.dimension}, {"CustomerIdentifier", &r.identifier}, {"CustomerAWSAccountId", &r.customer}, {"LicenseArn", &r.licence}} {
		if err == nil {
			*m.into, err = r.text(r.at, m.name)
		}
	}
	var stamp json.Number
	if err == nil {
		stamp, err = r.number(r.at, "Timestamp")
	}
	if err != nil {
		return awsFailure(awsSerialization, "%v", err)
	}
	if stamp == "" || r.dimension == "" || len([]rune(r.dimension)) > 255 {
		return awsFailure(awsValidation, "%s: it needs Timestamp and Dimension (1 to 255 characters)", r.at)
	}
	seconds, ok := new(big.Rat).SetString(boundedNumber(stamp))
	if !ok || seconds.Sign() < 0 || seconds.Cmp(big.NewRat(1<<36, 1)) > 0 {
		return awsFailure(awsSerialization, "%s.Timestamp: %s is not a time in seconds since 1970", r.at, stamp)
	}
	nanos := new(big.Rat).Mul(seconds, big.NewRat(1e9, 1))
	whole, part := new(big.Int).DivMod(new(big.Int).Quo(nanos.Num(), nanos.Denom()), big.NewInt(1e9), new(big.Int))
	r.timestamp = time.Unix(whole.Int64(), part.Int64()).UTC()
	if r.has("CustomerAWSAccountId") && !digitsForm.MatchString(r.customer) {
		return awsFailure(awsValidation, "%s.CustomerAWSAccountId must have 1 to 255 digits", r.at)
	}
	if r.has("LicenseArn") && !validLicence(r.licence) {
		return awsFailure(awsValidation, "%s.LicenseArn must be an ARN", r.at)
	}
	if len([]rune(r.identifier)) > 255 {
		return awsFailure(awsValidation, "%s.CustomerIdentifier must have at most 255 characters", r.at)
	}
	var failed *awsError
	if r.quantity, r.decimal, failed = readQuantity(r.object, r.at, "Quantity", "QuantityAsDecimal"); failed != nil {
		return failed
	}
	return r.readAllocations()
}

// validLicence checks the ARN against the model. Its last part has at most 1024 characters.
func validLicence(arn string) bool {
	return licenseForm.MatchString(arn) && len(strings.SplitN(arn, ":", 6)[5]) <= 1024
}

// boundedNumber returns a number that is cheap to read exactly, or an empty string.
func boundedNumber(n json.Number) string {
	text := n.String()
	if _, exponent, ok := strings.Cut(strings.ToLower(text), "e"); ok {
		if e, err := strconv.Atoi(exponent); err != nil || e < -400 || e > 400 {
			return ""
		}
	}
	if len(text) > 1100 {
		return ""
	}
	return text
}

// readQuantity reads the whole number or the decimal. If both are absent, the quantity is zero; if
// both are set, it is an error.
func readQuantity(o *object, at, whole, decimal string) (quantity *big.Rat, isDecimal bool, failed *awsError) {
	number, err := o.number(at, whole)
	var text string
	if err == nil {
		text, err = o.text(at, decimal)
	}
	if err != nil {
		return nil, false, awsFailure(awsSerialization, "%v", err)
	}
	if number != "" && o.has(decimal) {
		return nil, false, awsFailure(awsValidation, "%s: %s and %s cannot both be set", at, whole, decimal)
	}
	if o.has(decimal) {
		if !awsQuantityForm.MatchString(text) {
			return nil, false, awsFailure(awsValidation, "%s.%s: %q must match %s", at, decimal, text, awsQuantityForm)
		}
		return mustDecimal(text), true, nil
	}
	if number == "" {
		return new(big.Rat), false, nil
	}
	n, err := strconv.ParseInt(number.String(), 10, 64)
	if err != nil {
		return nil, false, awsFailure(awsSerialization, "%s.%s: %s is not a whole number", at, whole, number)
	}
	if n < 0 || n > 2147483647 {
		return nil, false, awsFailure(awsValidation, "%s.%s: it must be 0 to 2147483647", at, whole)
	}
	return new(big.Rat).SetInt64(n), false, nil
}

// readAllocations checks that the allocations sum to the quantity and are of the same kind, and
// that their sets of tags differ. It stores their digest, which does not depend on their order.
func (r *awsRecord) readAllocations() *awsError {
	list, err := r.objects(r.at, "UsageAllocations")
	if err != nil {
		return awsFailure(awsSerialization, "%v", err)
	}
	if list == nil {
		return nil
	}
	at := member(r.at, "UsageAllocations")
	if len(list) < 1 || len(list) > 2500 {
		return awsFailure(awsValidation, "%s: it must have 1 to 2500 allocations", at)
	}
	sum, sets, split := new(big.Rat), map[string]bool{}, []string{}
	for i, o := range list {
		at := element(at, i)
		if err := o.only(at, "AllocatedUsageQuantity", "AllocatedUsageQuantityAsDecimal", "Tags"); err != nil {
			return awsFailure(awsSerialization, "%v", err)
		}
		quantity, decimal, failed := readQuantity(o, at, "AllocatedUsageQuantity", "AllocatedUsageQuantityAsDecimal")
		if failed != nil {
			return failed
		}
		if !o.has("AllocatedUsageQuantity") && !decimal {
			return awsFailure(awsAllocations, "%s: it needs AllocatedUsageQuantity or AllocatedUsageQuantityAsDecimal", at)
		}
		if decimal != r.decimal {
			return awsFailure(awsAllocations, "%s: its kind of quantity, whole or decimal, is not the record's", at)
		}
		tags, failed := readTags(o, at)
		if failed != nil {
			return failed
		}
		if sets[tags] {
			return awsFailure(awsAllocations, "%s: another allocation has the same tags", at)
		}
		sets[tags] = true
		sum.Add(sum, quantity)
		split = append(split, tags+"\x02"+formatDecimal(quantity))
	}
	if sum.Cmp(r.quantity) != 0 {
		return awsFailure(awsAllocations, "%s: their sum is %s, the quantity is %s", at, formatDecimal(sum), formatDecimal(r.quantity))
	}
	slices.Sort(split)
	r.allocations = fmt.Sprintf("%x", sha256.Sum256([]byte(strings.Join(split, "\x03"))))
	return nil
}

// readTags returns the set of tags in a canonical form that does not depend on their order.
func readTags(o *object, at string) (set string, failed *awsError) {
	list, err := o.objects(at, "Tags")
	if err != nil {
		return "", awsFailure(awsSerialization, "%v", err)
	}
	at = member(at, "Tags")
	if o.has("Tags") && (len(list) < 1 || len(list) > 5) {
		return "", awsFailure(awsTag, "%s: there must be 1 to 5 tags", at)
	}
	var tags []string
	keys := map[string]bool{}
	for i, t := range list {
		at := element(at, i)
		err := t.only(at, "Key", "Value")
		var key, value string
		if err == nil {
			key, err = t.text(at, "Key")
		}
		if err == nil {
			value, err = t.text(at, "Value")
		}
		if err != nil {
			return "", awsFailure(awsSerialization, "%v", err)
		}
		if len(key) > 100 || len(value) > 256 || !awsTagForm.MatchString(key) || !awsTagForm.MatchString(value) {
			return "", awsFailure(awsTag, "%s: Key must have 1 to 100 and Value 1 to 256 of the characters %s", at, awsTagForm)
		}
		if keys[key] {
			return "", awsFailure(awsTag, "%s: the key %q appears twice", at, key)
		}
		keys[key] = true
		tags = append(tags, key+"\x00"+value)
	}
	slices.Sort(tags)
	return strings.Join(tags, "\x01"), nil
}

// resolveRecord finds customer, product, agreements and dimension, and checks the window. An error
// fails the whole request.
func (p awsProtocol) resolveRecord(caller awsCaller, productCode string, r *awsRecord) *awsError {
	catalog := &p.state.catalog
	switch {
	case r.licence != "" && productCode != "":
		return awsFailure(awsProduct, "%s: ProductCode must not be sent with LicenseArn", r.at)
	case r.customer != "" && r.identifier == "" && r.has("CustomerIdentifier"):
		e := awsFailure(awsCustomer, "%s: CustomerIdentifier must not be sent with CustomerAWSAccountId, not even if it is empty", r.at)
		e.undocumented = true // the model allows an empty CustomerIdentifier, and does not say what it means here
		return e
	case r.licence != "" && r.identifier != "":
		return awsFailure(awsCustomer, "%s: CustomerIdentifier must not be sent with LicenseArn", r.at)
	case r.licence != "" && r.customer == "":
		return awsFailure(awsCustomer, "%s: LicenseArn needs CustomerAWSAccountId", r.at)
	case r.licence != "":
		agreement := catalog.awsLicences[r.licence]
		if agreement == nil {
			return awsFailure(awsLicence, "%s: there is no licence %s", r.at, r.licence)
		}
		if agreement.AccountID != r.customer {
			return awsFailure(awsLicence, "%s: the licence does not match the customer %s", r.at, r.customer)
		}
		r.buyer, r.product = catalog.awsCustomers[agreement.AccountID], catalog.awsProducts[agreement.ProductCode]
		r.agreements = []*AWSAgreement{agreement}
		if !mayMeter(r.product, caller) {
			return awsFailure(awsLicence, "%s: the licence is for a product of another account", r.at)
		}
	case r.customer != "" && r.identifier != "":
		return awsFailure(awsCustomer, "%s: CustomerIdentifier and CustomerAWSAccountId cannot both be set", r.at)
	case r.customer != "":
		e := awsFailure(awsLicence, "%s: CustomerAWSAccountId needs LicenseArn", r.at)
		e.undocumented = true // the documented integrations do not say whether it may be sent with ProductCode
		return e
	case r.identifier == "":
		return awsFailure(awsCustomer, "%s: it needs CustomerAWSAccountId and LicenseArn, or CustomerIdentifier", r.at)
	default:
		if r.product = catalog.awsProducts[productCode]; r.product == nil || !mayMeter(r.product, caller) {
			return awsFailure(awsProduct, "there is no product %q of this account", productCode)
		}
		if licencesOnly(r.product) {
			return awsFailure(awsCustomer, "%s: products created since 2026-06-01 are metered by CustomerAWSAccountId and LicenseArn", r.at)
		}
		if r.buyer = catalog.awsLegacy[r.identifier]; r.buyer == nil {
			return awsFailure(awsCustomer, "%s: there is no customer %q", r.at, r.identifier)
		}
		r.agreements = catalog.awsAgreements[r.buyer.AccountID+" "+productCode]
	}
	if r.unit = dimension(r.product.Dimensions, r.dimension); r.unit == nil {
		return awsFailure(awsDimension, "%s: the product %s has no dimension %q", r.at, r.product.ProductCode, r.dimension)
	}
	return p.window(r)
}

// window checks the timestamp. It must be less than 24 hours old, not in the future and not before
// the start of use. It must be of this month or, until 06:00 UTC on the 1st, of the previous one.
func (p awsProtocol) window(r *awsRecord) *awsError {
	age := p.now.Sub(r.timestamp)
	switch {
	case age < 0:
		return awsFailure(awsTimestamp, "%s: the timestamp is in the future", r.at)
	case age >= awsWindow:
		return awsFailure(awsTimestamp, "%s: the timestamp is 24 hours old, or older", r.at)
	}
	month := time.Date(p.now.Year(), p.now.Month(), 1, 0, 0, 0, 0, time.UTC)
	if r.timestamp.Before(month) && p.now.Sub(month) >= awsGrace {
		return awsFailure(awsTimestamp, "%s: the timestamp's month closed on the 1st at 06:00 UTC", r.at)
	}
	started := slices.ContainsFunc(r.agreements, func(a *AWSAgreement) bool { return a.Start == nil || !r.timestamp.Before(*a.Start) })
	switch {
	case started || len(r.agreements) == 0:
		return nil
	case r.licence != "":
		return awsFailure(awsLicence, "%s: the timestamp is before the license activation period", r.at)
	default:
		return awsFailure(awsTimestamp, "%s: the timestamp is before the start of use", r.at)
	}
}

// identity is the key by which the marketplace deduplicates. The Region is part of it.
func (r *awsRecord) identity(region string) string {
	hour := r.timestamp.Truncate(time.Hour).Format(time.RFC3339)
	if r.licence != "" {
		return identityOf(region, "account", r.customer, r.licence, r.dimension, hour)
	}
	return identityOf(region, "product", r.product.ProductCode, r.identifier, r.dimension, hour)
}

// meter decides the status of one record. An earlier record of the hour stands, also after the
// customer's agreement has ended: AWS does not document which of the two it checks first.
func (p awsProtocol) meter(caller awsCaller, i int, r *awsRecord) (status, id string) {
	identity := r.identity(caller.region)
	if earlier := p.find(identity); earlier != nil {
		return p.resent(i, r, identity, earlier)
	}
	if reason := p.notSubscribed(r); reason != "" {
		p.decided(i, identity, Refused, "CustomerNotSubscribed", reason)
		return "CustomerNotSubscribed", ""
	}
	id = p.uuid("record", i)
	p.records = append(p.records, Record{
		Marketplace: AWS, Identity: identity, ID: id, Request: p.number, Buyer: r.buyer.AccountID, Product: r.product.ProductCode,
		Resource: r.licence + r.identifier, Region: caller.region, Dimension: r.dimension, Time: r.timestamp, Accepted: p.now,
		Quantity: formatDecimal(r.quantity), Allocations: r.allocations, Price: priceOf(r.unit.Price), Currency: currencyOf(r.product.Currency),
	})
	p.decided(i, identity, Accepted, "Success", "")
	return "Success", id
}

// resent decides the status of a record of an hour that has one. It is identical if its quantity
// and its allocations are: its timestamp may be another one of the hour.
func (p awsProtocol) resent(i int, r *awsRecord, identity string, earlier *Record) (status, id string) {
	reason := fmt.Sprintf("request %d was accepted for this hour with %s, this says %s", earlier.Request, earlier.Quantity, formatDecimal(r.quantity))
	identical := mustDecimal(earlier.Quantity).Cmp(r.quantity) == 0
	if identical && earlier.Allocations != r.allocations {
		identical = false
		reason += " with other allocations"
	}
	if identical && !earlier.Time.Equal(r.timestamp) {
		reason += " with another time of the hour, which is not documented"
	}
	if identical && p.options.IdenticalResend == ResendSuccess {
		p.decided(i, identity, Duplicate, "Success", reason)
		return "Success", earlier.ID
	}
	p.decided(i, identity, Duplicate, "DuplicateRecord", reason)
	return "DuplicateRecord", ""
}

// notSubscribed returns why no agreement covers the record, or an empty string.
func (p awsProtocol) notSubscribed(r *awsRecord) string {
	if r.buyer.Suspended {
		return "the customer's account is suspended"
	}
	if len(r.agreements) == 0 {
		return "the customer has no agreement for the product"
	}
	reason := ""
	for _, a := range r.agreements {
		switch {
		case a.Start != nil && r.timestamp.Before(*a.Start):
			reason = "the agreement starts later"
		case a.Cancelled == nil || p.now.Before(*a.Cancelled):
			return ""
		case !r.timestamp.Before(*a.Cancelled):
			reason = "the timestamp is not before the cancellation"
		case p.now.Sub(*a.Cancelled) >= cancellationGrace:
			reason = "the agreement was cancelled an hour ago, or earlier"
		default:
			return ""
		}
	}
	return reason
}

func priceOf(price string) string {
	r, _ := parseDecimal(price)
	return formatDecimal(r)
}

func currencyOf(currency string) string {
	if currency == "" {
		return "USD"
	}
	return currency
}
