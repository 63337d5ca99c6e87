package sandbox_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/sandbox"
)

// Each fuzz target sends a body to a marketplace. For any body, the response is one that the
// marketplace documents. The accepted usage is what an independent reading of the body finds by
// encoding/json: no record more or less, each with its identity, time and quantity. Sending the
// same body again adds nothing.

// An expectation is what the independent reading says about one record, event or operation of the
// body.
type expectation struct {
	accepted bool
	// lenient reports whether a strict reader may refuse what the body says, such as an hour of one
	// digit. Then the sandbox may refuse it too.
	lenient bool
	key     string // records with the same key share their identity: only the first is accepted
	records []expectedRecord
}

type expectedRecord struct {
	identity, buyer, product, plan, resource, dimension string

	time     time.Time
	quantity *big.Rat
}

func (e *expectedRecord) is(r *sandbox.Record) bool {
	quantity, ok := new(big.Rat).SetString(r.Quantity)
	return ok && quantity.Cmp(e.quantity) == 0 && r.Time.Equal(e.time) && r.Identity == e.identity && r.Buyer == e.buyer &&
		r.Product == e.product && r.Plan == e.plan && r.Resource == e.resource && r.Dimension == e.dimension
}

// checkAccepted checks that the accepted records are the expected ones, in their order.
func checkAccepted(t *testing.T, expected []expectation, added []sandbox.Record) {
	t.Helper()
	seen := map[string]bool{}
	rest := added
	for i, e := range expected {
		if !e.accepted || seen[e.key] {
			continue
		}
		same := len(rest) >= len(e.records)
		for n := 0; same && n < len(e.records); n++ {
			same = e.records[n].is(&rest[n])
		}
		if !same && !e.lenient {
			t.Fatalf("record %d was not accepted as %+v: %+v", i, e, added)
		}
		if same {
			seen[e.key] = true
			rest = rest[len(e.records):]
		}
	}
	if len(rest) > 0 {
		t.Fatalf("%+v was accepted, expected are %+v", rest, expected)
	}
}

// elements reads the body by encoding/json and returns the elements of a member, which must be
// objects.
func elements(t *testing.T, body []byte, name string) []map[string]any {
	t.Helper()
	var request map[string]any
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if err := d.Decode(&request); err != nil {
		t.Fatalf("%v, and it was read", err)
	}
	if name == "" {
		return []map[string]any{request}
	}
	return objectsOf(t, request[name])
}

// objectsOf returns a list of objects; null is an empty list.
func objectsOf(t *testing.T, v any) (objects []map[string]any) {
	t.Helper()
	list, ok := v.([]any)
	if !ok && v != nil {
		t.Fatalf("%v is not a list, and it was read", v)
	}
	for _, e := range list {
		o, ok := e.(map[string]any)
		if !ok {
			t.Fatalf("%v is not an object, and it was read", e)
		}
		objects = append(objects, o)
	}
	return objects
}

func text(o map[string]any, name string) string {
	s, _ := o[name].(string)
	return s
}

var identityEscapes = strings.NewReplacer(`\`, `\\`, `|`, `\|`)

func joined(parts ...string) string {
	for i := range parts {
		parts[i] = identityEscapes.Replace(parts[i])
	}
	return strings.Join(parts, "|")
}

var strictTime = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`)

// readTime reads a time in RFC 3339, strictly or leniently: without a zone it is in UTC.
func readTime(s string) (when time.Time, strict, ok bool) {
	when, err := time.Parse(time.RFC3339Nano, strings.ToUpper(s))
	if err != nil {
		when, err = time.Parse("2006-01-02T15:04:05", strings.ToUpper(s))
	}
	return when.UTC(), strictTime.MatchString(s), err == nil
}

// send2 sends the request twice and checks the properties common to all marketplaces.
func send2(t *testing.T, b *box, request func() *http.Request) (first answer, added []sandbox.Record) {
	t.Helper()
	var answers []answer
	var counts []int
	for range 2 {
		answers = append(answers, b.send(request())) // fails the test if the response is not JSON
		counts = append(counts, len(b.quantities()))
	}
	if counts[0] != counts[1] {
		t.Fatalf("the same request again added %d records", counts[1]-counts[0])
	}
	added, _ = b.Records()
	seen := map[string]bool{}
	for _, r := range added {
		if seen[r.Identity] {
			t.Fatalf("two records for %s", r.Identity)
		}
		seen[r.Identity] = true
	}
	if answers[0].status != 200 && len(added) > 0 {
		t.Fatalf("%d %s, and %d records", answers[0].status, answers[0].raw, len(added))
	}
	requests, _ := b.Requests()
	accepted := 0
	for _, d := range requests[len(requests)-2].Decisions {
		if d.Outcome == sandbox.Accepted {
			accepted++
		}
	}
	if len(requests[len(requests)-2].Decisions) == 0 && answers[0].status != 200 || accepted > len(added) {
		t.Fatalf("decisions %+v for %d records", requests[len(requests)-2].Decisions, len(added))
	}
	return answers[0], added
}

func FuzzAWS(f *testing.F) {
	for _, body := range []string{
		records(usage("17.42")), productRecords("prod-1", legacy("3")), records(usage("", "QuantityAsDecimal", "", "Quantity", "5")),
		records(usage("10", "UsageAllocations", `[{"AllocatedUsageQuantityAsDecimal":"10","Tags":[{"Key":"a","Value":"b"}]}]`)),
		records(usage("1", "Timestamp", "1.79e9")), records(usage("1"), usage("2")), `{"UsageRecords":[]}`,
		records(usage("1"), usage("1", "Timestamp", "1795004999.25"), usage("2", "Dimension", `"gb"`), usage("3", "Timestamp", "1795003199.999")),
		productRecords("prod-1", legacy("1"), legacy("1", "CustomerIdentifier", `"cust-2"`), legacy("1", "CustomerIdentifier", `"cust-suspended"`), legacy("2")), `{`, ``, `{"UsageRecords":[{}],"ProductCode":null}`,
	} {
		f.Add([]byte(body))
	}
	documented := map[string]bool{
		"TimestampOutOfBoundsException": true, "InvalidUsageDimensionException": true, "InvalidLicenseException": true, "InvalidProductCodeException": true,
		"InvalidCustomerIdentifierException": true, "InvalidTagException": true, "InvalidUsageAllocationsException": true,
		"ValidationException": true, "SerializationException": true, "RequestEntityTooLargeException": true,
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		b := fresh(t)
		a, added := send2(t, b, func() *http.Request { return awsRequest("BatchMeterUsage", "us-east-1", string(body)) })
		if a.status != 200 {
			if name, _ := a.get("__type").(string); a.status != 400 || !documented[name] {
				t.Fatalf("%d %s", a.status, a.raw)
			}
			return
		}
		sent := elements(t, body, "UsageRecords")
		if len(statuses(a)) != len(sent) {
			t.Fatalf("%d results for %d records", len(statuses(a)), len(sent))
		}
		var expected []expectation
		first := map[string]*big.Rat{}
		for i, o := range sent {
			e := expectAWS(t, elements(t, body, "")[0], o)
			expected = append(expected, e)
			status := a.get("Results", i, "Status")
			earlier := first[e.key]
			switch quantity := e.records[0].quantity; {
			case earlier != nil && earlier.Cmp(quantity) != 0:
				want(t, "another quantity", status, "DuplicateRecord")
			case earlier != nil: // the allocations decide
				if status != "Success" && status != "DuplicateRecord" {
					t.Fatalf("%v for an hour that has a record", status)
				}
			case e.accepted:
				want(t, "a first record", status, "Success")
				first[e.key] = quantity
			default:
				want(t, "no agreement", status, "CustomerNotSubscribed")
			}
		}
		checkAccepted(t, expected, added)
	})
}

// expectAWS reads a record of a request that was not refused, so it has no error that fails the
// whole request.
func expectAWS(t *testing.T, request, o map[string]any) expectation {
	t.Helper()
	dimensions := map[string][]string{"prod-1": {"requests", "gb"}, "prod-2": {"requests"}, "prod-new": {"requests"}}
	licences := map[string]string{licence: "prod-1", strings.Replace(licence, "l-0001", "l-0002", 1): "prod-2", strings.Replace(licence, "l-0001", "l-0003", 1): "prod-new"}
	customers := map[string]string{"cust-1": account, "cust-2": "444455556666", "cust-suspended": "777788889999"}

	number, _ := o["Timestamp"].(json.Number)
	seconds, ok := new(big.Rat).SetString(number.String())
	if !ok {
		t.Fatalf("the time %v was read", o["Timestamp"])
	}
	nanos := seconds.Mul(seconds, big.NewRat(1e9, 1))
	r := expectedRecord{dimension: text(o, "Dimension"), quantity: new(big.Rat)}
	whole := new(big.Int).Div(nanos.Num(), nanos.Denom())
	if !whole.IsInt64() {
		t.Fatalf("the time %s was read", number)
	}
	r.time = time.Unix(0, whole.Int64()).UTC()
	if age := noon.Sub(r.time); age < 0 || age >= 24*time.Hour {
		t.Fatalf("%s is outside the window", r.time)
	}
	number, hasWhole := o["Quantity"].(json.Number)
	decimal, hasDecimal := o["QuantityAsDecimal"].(string)
	if hasWhole && hasDecimal {
		t.Fatal("both quantities were read")
	}
	if hasWhole || hasDecimal {
		if _, ok := r.quantity.SetString(number.String() + decimal); !ok || r.quantity.Sign() < 0 {
			t.Fatalf("the quantity %v%v was read", number, decimal)
		}
	}
	hour := r.time.Format("2006-01-02T15") + ":00:00Z"
	accepted := true
	if arn := text(o, "LicenseArn"); arn != "" {
		r.buyer, r.product, r.resource = account, licences[arn], arn
		if text(o, "CustomerAWSAccountId") != account || request["ProductCode"] != nil || o["CustomerIdentifier"] != nil {
			t.Fatalf("%v was read", o)
		}
		r.identity = joined("us-east-1", "account", account, arn, r.dimension, hour)
	} else {
		identifier := text(o, "CustomerIdentifier")
		r.buyer, r.product, r.resource = customers[identifier], text(request, "ProductCode"), identifier
		if r.buyer == "" || r.product == "prod-new" || o["CustomerAWSAccountId"] != nil {
			t.Fatalf("%v was read", o)
		}
		r.identity = joined("us-east-1", "product", r.product, identifier, r.dimension, hour)
		accepted = identifier == "cust-1" // the others have no agreement, or are suspended
	}
	if !slices.Contains(dimensions[r.product], r.dimension) {
		t.Fatalf("%q is no dimension of %q", r.dimension, r.product)
	}
	return expectation{accepted: accepted, key: r.identity, records: []expectedRecord{r}}
}

func FuzzAzure(f *testing.F) {
	for _, body := range []string{
		`{"request":[` + event("5.5") + `]}`, `{"request":[` + event("1e-7") + `,` + event("2", "dimension", `"email"`) + `]}`, event("5"), `{"request":[]}`, ``, `{`,
		`{"request":[` + event("1", "effectiveStartTime", `"2026-11-18T12:00:00"`) + `]}`, `{"request":[` + event("1", "resourceId", `"x"`) + `]}`,
		`{"request":[` + event("1") + `,` + event("2") + `,` + event("0") + `,` + event("3", "effectiveStartTime", `"2026-11-18T11:59:59.5Z"`) + `,` +
			event("0.3", "resourceId", "", "resourceUri", `"`+managedApp+`"`, "planId", `"gold"`) + `]}`,
		`{"request":[` + event("1", "effectiveStartTime", `"2026-11-18T9:00:00Z"`) + `,` + event("2", "effectiveStartTime", `"2026-11-18T09:00:00Z"`) + `]}`,
		`{"request":[` + event("1", "resourceId", `"cccccccc-0000-4000-8000-000000000004"`, "effectiveStartTime", `"2026-11-18T09:00:00Z"`) + `]}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, path := range []string{"batchUsageEvent", "usageEvent"} {
			b := fresh(t)
			a, added := send2(t, b, func() *http.Request { return b.azureRequest(http.MethodPost, path, string(body)) })
			if a.status != 200 && a.status != 400 && a.status != 403 && a.status != 409 {
				t.Fatalf("%d %s", a.status, a.raw)
			}
			checkAzureResponse(t, b, path, a)
			if a.status == 200 && path == "batchUsageEvent" {
				var request struct{ Request []json.RawMessage }
				if err := json.Unmarshal(body, &request); err != nil || float64(len(request.Request)) != a.get("count") {
					t.Fatalf("%v, %s for %d events", err, a.raw, len(request.Request))
				}
			}
			if a.status == 200 {
				var expected []expectation
				for _, o := range elements(t, body, map[string]string{"batchUsageEvent": "request"}[path]) {
					expected = append(expected, expectAzure(o))
				}
				checkAccepted(t, expected, added)
				if path == "usageEvent" {
					want(t, "records", len(added), 1)
				}
			}
		}
	})
}

// expectAzure reads an event of a request that was not refused.
func expectAzure(o map[string]any) expectation {
	plans := map[string][]string{"silver": {"tokens", "email"}, "gold": {"tokens"}}
	id, uri := text(o, "resourceId"), text(o, "resourceUri")
	r := expectedRecord{product: "offer", plan: text(o, "planId"), resource: id + uri, dimension: text(o, "dimension")}
	when, strict, ok := readTime(text(o, "effectiveStartTime"))
	cancelled := strings.Replace(resource, "000000000001", "000000000004", 1)
	switch {
	case uri == "" && strings.EqualFold(id, resource):
		r.buyer = "contoso"
		ok = ok && r.plan == "silver"
	case uri == "" && strings.EqualFold(id, cancelled):
		r.buyer = cancelled
		ok = ok && r.plan == "silver" && when.Before(noon.Truncate(time.Hour).Add(-2*time.Hour))
	case id == "" && strings.EqualFold(uri, managedApp):
		r.buyer = managedApp
		ok = ok && r.plan == "gold"
	default:
		ok = false
	}
	number, _ := o["quantity"].(json.Number)
	quantity, err := strconv.ParseFloat(number.String(), 64)
	age := noon.Sub(when)
	if !ok || err != nil || !(quantity > 0) || age < 0 || age > 24*time.Hour || !slices.Contains(plans[r.plan], r.dimension) {
		return expectation{}
	}
	r.time = when
	r.quantity, _ = new(big.Rat).SetString(strconv.FormatFloat(quantity, 'e', -1, 64))
	r.identity = joined(strings.ToLower(id+uri), r.dimension, when.Format("2006-01-02T15")+":00:00Z")
	// The documentation's times end in Z.
	lenient := !strict || !strings.HasSuffix(text(o, "effectiveStartTime"), "Z")
	return expectation{accepted: true, lenient: lenient, key: r.identity, records: []expectedRecord{r}}
}

// checkAzureResponse checks only the response, because the request may be anything.
func checkAzureResponse(t *testing.T, b *box, path string, a answer) {
	t.Helper()
	r := b.azureRequest(http.MethodPost, path, "")
	response := httptest.NewRecorder()
	for name, values := range a.header {
		response.Header()[name] = values
	}
	response.WriteHeader(a.status)
	_, _ = response.WriteString(a.raw)
	if ok, errs := azureDescription().ValidateHttpResponse(r, response.Result()); !ok {
		t.Fatalf("%d %s: %+v", a.status, a.raw, errs[0])
	}
}

func FuzzGoogle(f *testing.F) {
	for _, body := range []string{
		`{"operations":[` + operation("op", `"150"`) + `]}`, `{"operations":[` + operation("op", "1", "labels", `{"a":"b"}`) + `,` + operation("op", "2") + `]}`,
		`{"operation":` + operation("op", "1") + `}`, `{"operations":[]}`, ``, `{`, `{"operations":[` + operation("op", "1", "endTime", `"2026-11-18T12:00:00.5+00:00"`) + `]}`,
		`{"operations":[` + operation("a|b", `"7"`, "endTime", `"2026-11-18T13:00:00+01:00"`) + `,` + operation("x", `"0"`) + `,` +
			operation("y", "3", "metricValueSets", strings.TrimSuffix(metrics("requests", "3"), "]")+","+strings.TrimPrefix(metrics("gb", `"4"`), "[")) + `,` +
			operation("z", "1", "consumerId", `"project_number:2"`) + `,` + operation("c", "1", "consumerId", `"project_number:5"`) + `,` +
			operation("f", "1", "endTime", `"2026-11-18T13:00:00Z"`) + `]}`,
		`{"operations":[` + operation("op", `"+5"`, "startTime", `"2026-11-18T1:00:00Z"`) + `]}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, method := range []string{":report", ":check"} {
			b := fresh(t)
			b.googleLogin()
			a, added := send2(t, b, func() *http.Request {
				r := httptest.NewRequest(http.MethodPost, googleBase+"/v1/services/"+service+method, strings.NewReader(string(body)))
				r.Header.Set("Authorization", "Bearer "+b.google)
				r.Header.Set("Content-Type", "application/json")
				return r
			})
			if a.status != 200 {
				if a.status != 400 || a.get("error", "status") != "INVALID_ARGUMENT" {
					t.Fatalf("%d %s", a.status, a.raw)
				}
				continue
			}
			if method == ":check" {
				if len(added) > 0 {
					t.Fatal("a check was billed")
				}
				continue
			}
			sent := elements(t, body, "operations")
			if failed, _ := a.get("reportErrors").([]any); len(failed) > len(sent) {
				t.Fatalf("%d errors for %d operations", len(failed), len(sent))
			}
			var expected []expectation
			for _, o := range sent {
				expected = append(expected, expectGoogle(t, o))
			}
			checkAccepted(t, expected, added)
		}
	})
}

var strictInteger = regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`)

// expectGoogle reads an operation of a report that was not refused.
func expectGoogle(t *testing.T, o map[string]any) expectation {
	t.Helper()
	id, usedBy := text(o, "operationId"), text(o, "consumerId")
	start, strictStart, okStart := readTime(text(o, "startTime"))
	end, strictEnd, okEnd := readTime(text(o, "endTime"))
	// October closed: the usage must end after the 1st at 00:00 US Pacific Daylight Time.
	opened := time.Date(2026, 11, 1, 7, 0, 0, 0, time.UTC)
	if id == "" || !okStart || !okEnd || start.IsZero() || !start.Before(end) || end.After(noon) || !end.After(opened) {
		return expectation{}
	}
	buyer := ""
	switch cancelled := noon.Truncate(time.Hour); {
	case usedBy == consumer:
		buyer = "acme"
	case usedBy == "project_number:5" && start.Before(cancelled) && !end.After(cancelled):
		buyer = usedBy
	default:
		return expectation{}
	}
	e := expectation{accepted: true, lenient: !strictStart || !strictEnd, key: id}
	// Longer intervals, and those that begin in a closed month, are not documented.
	e.lenient = e.lenient || end.Sub(start) > time.Hour || start.Before(opened)
	for _, set := range objectsOf(t, o["metricValueSets"]) {
		metric, ok := strings.CutPrefix(text(set, "metricName"), service+"/")
		values := objectsOf(t, set["metricValues"])
		if !ok || metric != "requests" && metric != "gb" || len(values) == 0 {
			return expectation{}
		}
		for _, v := range values {
			for _, other := range []string{"boolValue", "distributionValue", "doubleValue", "moneyValue", "stringValue"} {
				if v[other] != nil {
					return expectation{}
				}
			}
			digits := ""
			if v["int64Value"] != nil {
				digits = fmt.Sprint(v["int64Value"])
			}
			value, err := strconv.ParseInt(digits, 10, 64)
			if err != nil || value <= 0 {
				return expectation{}
			}
			e.lenient = e.lenient || !strictInteger.MatchString(digits) || v["startTime"] != nil || v["endTime"] != nil
			e.records = append(e.records, expectedRecord{
				identity: joined(service, strconv.Itoa(len(e.records)), id), buyer: buyer, product: service, resource: usedBy, dimension: metric,
				time: end, quantity: new(big.Rat).SetInt64(value),
			})
		}
	}
	e.accepted = len(e.records) > 0
	return e
}
