package aws

import (
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/reporting"
)

// statuses is what a record's status in Results means, and unprocessed what a record in
// UnprocessedRecords is. To be in Results is not to be billed.
//
// Source: UsageRecordResult in the API model of meteringmarketplace. A status that is not here
// leaves the record in doubt.
var statuses = map[string]reporting.Rule{
	"Success": {Verdict: reports.Billed, Next: reporting.Done},
	// AWS does not say what it accepted. Whether an identical record is Success or DuplicateRecord
	// is not documented in one way.
	"DuplicateRecord": {Verdict: reports.Duplicate, Next: reporting.Done, Problem: metering.ProblemConflict},
	// The agreement may not be known yet, or be renewed.
	"CustomerNotSubscribed": {Verdict: reports.Refused, Next: reporting.Hourly, Problem: metering.ProblemNotSubscribed},
}

// unprocessed is what a record in UnprocessedRecords is: not billed. Source: the API model, "send
// them again".
var unprocessed = reporting.Rule{Verdict: reports.Refused, Next: reporting.Resend, Problem: metering.ProblemMarketplaceRefused}

// exceptions is what an exception with a status of 4xx means. Nothing of the request was done.
//
// Sources: the errors of BatchMeterUsage in the API model of meteringmarketplace; AWS's "Common
// error types" and the errors of its JSON protocol. An exception that is not here, among them
// InternalServiceErrorException, leaves the records in doubt, as does any response of 5xx.
var exceptions = map[string]reporting.Rule{
	// Some of the records are at fault: bisecting finds them.
	"TimestampOutOfBoundsException":      reporting.SomeAtFault(metering.ProblemExpired),
	"InvalidUsageDimensionException":     reporting.SomeAtFault(metering.ProblemDimensionUnknown),
	"InvalidLicenseException":            reporting.SomeAtFault(metering.ProblemMarketplaceRefused),
	"InvalidProductCodeException":        reporting.SomeAtFault(metering.ProblemMarketplaceRefused),
	"InvalidCustomerIdentifierException": reporting.SomeAtFault(metering.ProblemMarketplaceRefused),
	"InvalidTagException":                reporting.SomeAtFault(metering.ProblemMarketplaceRefused),
	"InvalidUsageAllocationsException":   reporting.SomeAtFault(metering.ProblemMarketplaceRefused),
	"ValidationException":                reporting.SomeAtFault(metering.ProblemMarketplaceRefused),
	"SerializationException":             reporting.SomeAtFault(metering.ProblemMarketplaceRefused),
	"RequestEntityTooLargeException":     reporting.SomeAtFault(metering.ProblemMarketplaceRefused),

	// The lane is at fault.
	"ThrottlingException":                 reporting.LaneAtFault(reporting.Throttled, metering.ProblemMarketplaceRefused),
	"DisabledApiException":                reporting.LaneAtFault(reporting.Misconfigured, metering.ProblemNoConnection),
	"UnknownOperationException":           reporting.LaneAtFault(reporting.Misconfigured, metering.ProblemNoConnection),
	"AccessDeniedException":               reporting.LaneAtFault(reporting.CredentialsRefused, metering.ProblemNoConnection),
	"ExpiredTokenException":               reporting.LaneAtFault(reporting.CredentialsRefused, metering.ProblemNoConnection),
	"IncompleteSignature":                 reporting.LaneAtFault(reporting.CredentialsRefused, metering.ProblemNoConnection),
	"IncompleteSignatureException":        reporting.LaneAtFault(reporting.CredentialsRefused, metering.ProblemNoConnection),
	"InvalidClientTokenId":                reporting.LaneAtFault(reporting.CredentialsRefused, metering.ProblemNoConnection),
	"InvalidSignatureException":           reporting.LaneAtFault(reporting.CredentialsRefused, metering.ProblemNoConnection),
	"MissingAuthenticationToken":          reporting.LaneAtFault(reporting.CredentialsRefused, metering.ProblemNoConnection),
	"MissingAuthenticationTokenException": reporting.LaneAtFault(reporting.CredentialsRefused, metering.ProblemNoConnection),
	"NotAuthorized":                       reporting.LaneAtFault(reporting.CredentialsRefused, metering.ProblemNoConnection),
	"OptInRequired":                       reporting.LaneAtFault(reporting.CredentialsRefused, metering.ProblemNoConnection),
	"RequestExpired":                      reporting.LaneAtFault(reporting.CredentialsRefused, metering.ProblemNoConnection),
	"UnrecognizedClientException":         reporting.LaneAtFault(reporting.CredentialsRefused, metering.ProblemNoConnection),
}

// readResults reads the body of a 200. Records that it does not name stay as they are.
func readResults(call *reporting.Call, body []byte) {
	var response struct{ Results, UnprocessedRecords []jsontext.Value }
	if err := json.Unmarshal(body, &response); err != nil {
		return // a body that is cut or no JSON: all are in doubt
	}
	for _, raw := range response.Results {
		var r struct {
			UsageRecord      echo
			MeteringRecordID string `json:"MeteringRecordId"`
			Status           string
		}
		if json.Unmarshal(raw, &r) != nil {
			continue
		}
		result := statuses[r.Status].Result("AWS's status is " + metering.Quote(r.Status))
		result.Receipt, result.Raw = r.MeteringRecordID, raw
		call.Say(r.UsageRecord.is, result)
	}
	for _, raw := range response.UnprocessedRecords {
		var e echo
		if json.Unmarshal(raw, &e) != nil {
			continue
		}
		result := unprocessed.Result("AWS has not processed the record")
		result.Raw = raw
		call.Say(e.is, result)
	}
}

// echo is a record as the response repeats it.
type echo struct {
	Timestamp            jsontext.Value
	Dimension            string
	CustomerIdentifier   string
	CustomerAWSAccountID string `json:"CustomerAWSAccountId"`
	LicenseARN           string `json:"LicenseArn"`
}

// is reports whether the echo is of the record. Identifiers that the response leaves out, or that
// were not sent, are not compared: the others decide if only one record has them.
func (e *echo) is(r *reporting.Record) bool {
	same := func(echo, sent string) bool { return echo == "" || sent == "" || echo == sent }
	return e.Dimension == r.Dimension && e.sameHour(r.Hour()) &&
		same(e.CustomerIdentifier, r.IDs.CustomerIdentifier) &&
		same(e.CustomerAWSAccountID, r.IDs.CustomerAWSAccountID) &&
		same(e.LicenseARN, r.IDs.LicenseARN)
}

// sameHour reads the timestamp, in seconds since 1970. A double holds them to the microsecond.
func (e *echo) sameHour(hour time.Time) bool {
	seconds, err := strconv.ParseFloat(string(e.Timestamp), 64)
	start := float64(hour.Unix())
	return err == nil && seconds >= start && seconds < start+time.Hour.Seconds()
}
