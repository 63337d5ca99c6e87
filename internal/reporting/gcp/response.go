package gcp

import (
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/reporting"
)

// accepted is what an operation is that a successful report does not name in reportErrors. Google
// has no ids of its own: the receipt is the operationId.
//
// Source: Service Control v1, ReportResponse: success with no errors means that all were processed.
var accepted = reporting.Rule{Verdict: reports.Billed, Next: reporting.Done}

// reportErrors is what the code of an operation in reportErrors means.
//
// Sources: ReportResponse (each operation that failed has an error) and google.rpc.Code. A code
// that is not here leaves the operation in doubt. So do those whose description in google.rpc.Code
// does not exclude that it was done: 4 says that it may have been, 14 that repeating is not always
// safe, and 13 says nothing.
var reportErrors = map[int]reporting.Rule{
	3:  {Verdict: reports.Refused, Next: reporting.Done, Problem: metering.ProblemMarketplaceRefused},   // INVALID_ARGUMENT
	4:  {Verdict: reports.InDoubt, Next: reporting.Resend},                                              // DEADLINE_EXCEEDED
	5:  notActive,                                                                                       // NOT_FOUND
	7:  notAllowed,                                                                                      // PERMISSION_DENIED
	8:  {Verdict: reports.Refused, Next: reporting.Resend, Problem: metering.ProblemMarketplaceRefused}, // RESOURCE_EXHAUSTED
	13: {Verdict: reports.InDoubt, Next: reporting.Resend},                                              // INTERNAL
	14: {Verdict: reports.InDoubt, Next: reporting.Resend},                                              // UNAVAILABLE
}

// notActive is an entitlement that is not active.
var notActive = reporting.Rule{Verdict: reports.Refused, Next: reporting.Hourly, Problem: metering.ProblemNotSubscribed}

// checkErrors is what a code in checkErrors means. Nothing is sent of a consumer that can't be
// billed. The zero Rule says nothing about it: the last result stands.
//
// Source: Service Control v1, CheckError.Code, also of its earlier versions. checkRule has the
// codes that are not here.
var checkErrors = map[string]reporting.Rule{
	// The buyer, or its project, is at fault.
	"NOT_FOUND":             notActive,
	"SERVICE_NOT_ACTIVATED": notActive,
	"BILLING_DISABLED":      notActive,
	"PROJECT_DELETED":       notActive, // it can be restored for 30 days
	// The usageReportingID is none: waiting changes nothing.
	"PROJECT_INVALID":  {Verdict: reports.Refused, Next: reporting.Done, Problem: metering.ProblemMarketplaceRefused},
	"CONSUMER_INVALID": {Verdict: reports.Refused, Next: reporting.Done, Problem: metering.ProblemMarketplaceRefused},
	// A policy or a key of the project forbids it.
	"PERMISSION_DENIED":        notAllowed,
	"ABUSER_DETECTED":          notAllowed,
	"IP_ADDRESS_BLOCKED":       notAllowed,
	"REFERER_BLOCKED":          notAllowed,
	"CLIENT_APP_BLOCKED":       notAllowed,
	"API_TARGET_BLOCKED":       notAllowed,
	"API_KEY_INVALID":          notAllowed,
	"API_KEY_EXPIRED":          notAllowed,
	"API_KEY_NOT_FOUND":        notAllowed,
	"INVALID_CREDENTIAL":       notAllowed,
	"SECURITY_POLICY_VIOLATED": notAllowed,
	"LOCATION_POLICY_VIOLATED": notAllowed,
	"RESOURCE_EXHAUSTED":       {Verdict: reports.Refused, Next: reporting.Resend, Problem: metering.ProblemMarketplaceRefused},
	// Google could not find out.
	"NAMESPACE_LOOKUP_UNAVAILABLE":               {},
	"SERVICE_STATUS_UNAVAILABLE":                 {},
	"BILLING_STATUS_UNAVAILABLE":                 {},
	"QUOTA_CHECK_UNAVAILABLE":                    {},
	"CLOUD_RESOURCE_MANAGER_BACKEND_UNAVAILABLE": {},
	"SECURITY_POLICY_BACKEND_UNAVAILABLE":        {},
	"LOCATION_POLICY_BACKEND_UNAVAILABLE":        {},
}

// notAllowed is usage that the marketplace does not take now.
var notAllowed = reporting.Rule{Verdict: reports.Refused, Next: reporting.Hourly, Problem: metering.ProblemMarketplaceRefused}

// checkRule returns the rule of a code in checkErrors. One that is not known is of an entitlement
// that is not active, or says nothing, by its form.
func checkRule(code string) reporting.Rule {
	rule, known := checkErrors[code]
	if !known && !strings.HasSuffix(code, "_UNAVAILABLE") {
		return notActive
	}
	return rule
}

// refusals is what a failed call means whose status is of 4xx, by the name in its error. Google
// checks the credentials and the form of a request before its operations.
//
// Sources: google.rpc.Code; the error model of Google's APIs. ReportResponse says of all other
// failures that what was done is unknown: they leave the operations in doubt.
var refusals = map[string]reporting.Rule{
	"INVALID_ARGUMENT":   reporting.SomeAtFault(metering.ProblemMarketplaceRefused),
	"UNAUTHENTICATED":    reporting.LaneAtFault(reporting.CredentialsRefused, metering.ProblemNoConnection),
	"PERMISSION_DENIED":  reporting.LaneAtFault(reporting.CredentialsRefused, metering.ProblemNoConnection),
	"NOT_FOUND":          reporting.LaneAtFault(reporting.Misconfigured, metering.ProblemNoConnection),
	"RESOURCE_EXHAUSTED": reporting.LaneAtFault(reporting.Throttled, metering.ProblemMarketplaceRefused),
}

// readError returns the name and the text of a failed call. The name is empty if the body is no
// error of Google's.
func readError(body []byte) (name, reason string) {
	var response struct {
		Error struct {
			Message string `json:"message"`
			Status  string `json:"status"`
		} `json:"error"`
	}
	if json.Unmarshal(body, &response) != nil || response.Error.Status == "" {
		return "", ""
	}
	return response.Error.Status, response.Error.Status + ": " + response.Error.Message
}

// reported is the body of a successful report: a ReportResponse, which may be empty.
type reported struct {
	Errors    []jsontext.Value `json:"reportErrors"`
	ConfigID  jsontext.Value   `json:"serviceConfigId"`
	RolloutID jsontext.Value   `json:"serviceRolloutId"`

	Failure jsontext.Value            `json:"error"`
	Others  map[string]jsontext.Value `json:",embed"`
}

// isReport reports whether the body is a ReportResponse. One that has other members alone is of
// something else, such as a proxy: it says nothing about the operations.
func (r *reported) isReport() bool {
	known := r.Errors != nil || r.ConfigID != nil || r.RolloutID != nil
	return r.Failure == nil && (known || len(r.Others) == 0)
}

// ofCheck are the members of a CheckResponse. Source: Service Control API v1, services.check.
var ofCheck = []string{"operationId", "checkErrors", "checkInfo", "quotaInfo", "serviceConfigId", "serviceRolloutId"}

// isCheck reports whether the body is a CheckResponse, by the rule of isReport.
func isCheck(body []byte) bool {
	var response map[string]jsontext.Value
	if json.Unmarshal(body, &response) != nil || response == nil {
		return false
	}
	has := func(member string) bool { return response[member] != nil }
	return !has("error") && (slices.ContainsFunc(ofCheck, has) || len(response) == 0)
}

// readResults reads the body of a successful report. If an error in it is of no operation of ours,
// all that it does not name are in doubt: one of them may be meant.
func readResults(call *reporting.Call, body []byte) {
	var response reported
	// What is not in reportErrors is billed: no spelling of it may be overlooked.
	anySpelling := json.MatchCaseInsensitiveNames(true)
	if jsontext.Value(body).Kind() != '{' || json.Unmarshal(body, &response, anySpelling) != nil {
		call.Rest(reporting.Result{Reason: "Google's response is cut or no JSON object"})
		return
	}
	if !response.isReport() {
		call.Rest(reporting.Result{Reason: "the response with status 200 is not that of a report"})
		return
	}
	positions := make(map[string]int, len(call.Sent))
	for i := range call.Sent {
		positions[OperationID(&call.Sent[i])] = i
	}
	complete := true
	for _, raw := range response.Errors {
		var e struct {
			OperationID string `json:"operationId"`
			Status      struct {
				Code    int    `json:"code"`
				Message string `json:"message"`
			} `json:"status"`
		}
		i, ours := 0, false
		if json.Unmarshal(raw, &e) == nil {
			i, ours = positions[e.OperationID]
		}
		if !ours {
			complete = false
			continue
		}
		result := reportErrors[e.Status.Code].Result(fmt.Sprintf("Google's code is %d: %s", e.Status.Code, e.Status.Message))
		result.Raw = raw
		call.SayAt(i, result)
	}
	if !complete {
		call.Rest(reporting.Result{Reason: "Google's response has an error that names no operation of the request"})
		return
	}
	for id, i := range positions {
		if !call.Named(i) {
			result := accepted.Result("")
			result.Receipt = id
			call.SayAt(i, result)
		}
	}
}
