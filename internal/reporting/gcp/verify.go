package gcp

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/marketmeter/marketmeter/internal/reporting"
)

// noService is a service that can't exist (RFC 6761). A connection names no service: its
// entitlements do.
const noService = "verify.marketmeter.invalid"

// notUsable are the reasons of a refusal that are not about the service: the credentials can report
// for none. Source: google.api.ErrorReason.
var notUsable = map[string]bool{
	"ACCESS_TOKEN_SCOPE_INSUFFICIENT": true, "ACCOUNT_STATE_INVALID": true, "CONSUMER_INVALID": true, "CONSUMER_SUSPENDED": true,
	"SERVICE_DISABLED": true, // the Service Control API, in the project of the service account
}

// Verify tries the credentials without metering: it fetches a token, and calls check for a service
// that does not exist. It returns a *reporting.Fault if they can't be used.
//
// Google reads the token before it looks for the service: if it refuses the service, the token was
// accepted. Whether the account may report for a service shows at the first report (decision 54).
func (m *Marketplace) Verify(ctx context.Context) error {
	ctx, cancel := m.client.Bound(ctx)
	defer cancel()
	reply, err := m.do(ctx, noService, "check", []byte("{}"))
	if err != nil {
		return &reporting.Fault{Lane: faultOf(err), Reason: err.Error()}
	}
	name, reason := readError(reply.Body)
	fault := &reporting.Fault{
		Lane:   reporting.Unreachable,
		Reason: fmt.Sprintf("Google's response to check is status %d, %s", reply.Status, reason), RetryAfter: reply.RetryAfter(m.options.Now()),
	}
	switch {
	case reply.Err != nil:
		fault.Reason = "Google's response is missing or incomplete: " + reply.Err.Error()
		return fault
	case reply.Status == http.StatusOK && isCheck(reply.Body):
		return nil
	case reply.Status == http.StatusOK:
		fault.Reason = "the response with status 200 is not that of a check of Google's"
	case reply.Status == http.StatusTooManyRequests:
		fault.Lane = reporting.Throttled
	case reply.Status == http.StatusUnauthorized || reply.Status/100 == 4 && notUsable[reasonOf(reply.Body)]:
		fault.Lane = reporting.CredentialsRefused
	case reply.Status/100 == 4 && name != "":
		return nil // about the service
	}
	return fault
}

// reasonOf returns the reason in the details of an error of Google's, as google.rpc.ErrorInfo has
// it, or an empty string.
func reasonOf(body []byte) string {
	var response struct {
		Error struct {
			Details []struct {
				Reason string `json:"reason"`
			} `json:"details"`
		} `json:"error"`
	}
	if json.Unmarshal(body, &response) != nil {
		return ""
	}
	for _, d := range response.Error.Details {
		if d.Reason != "" {
			return d.Reason
		}
	}
	return ""
}
