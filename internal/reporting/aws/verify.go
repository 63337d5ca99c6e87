package aws

import (
	"context"
	"fmt"
	"net/http"

	"github.com/marketmeter/marketmeter/internal/awscall"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/reporting"
)

// Verify tries the credentials without metering: BatchMeterUsage with no record, in the default
// Region. It returns a *reporting.Fault if they can't be used.
//
// Whether AWS accepts an empty list is not documented. AWS checks the caller before it reads the
// body: if it refuses the list, the credentials were accepted (decision 54).
func (m *Marketplace) Verify(ctx context.Context) error {
	reply, err := m.do(ctx, metering.DefaultAWSRegion, Body(nil))
	if err != nil {
		return &reporting.Fault{Lane: faultOf(err), Reason: err.Error()}
	}
	name, reason := awscall.ReadException(reply.Body, reply.Header.Get("X-Amzn-Errortype"))
	rule, known := exceptions[name]
	switch {
	case reply.Err != nil:
		return &reporting.Fault{Lane: reporting.Unreachable, Reason: "AWS's response is missing or incomplete: " + reply.Err.Error()}
	case reply.Status == http.StatusOK:
		return nil
	case reply.Status/100 == 4 && known && rule.Lane == reporting.NoLaneFault:
		return nil // about the empty list
	case reply.Status/100 == 4 && known:
		return &reporting.Fault{Lane: rule.Lane, Reason: "AWS: " + reason, RetryAfter: reply.RetryAfter(m.options.Now())}
	case reply.Status == http.StatusForbidden || reply.Status == http.StatusUnauthorized:
		return &reporting.Fault{Lane: reporting.CredentialsRefused, Reason: fmt.Sprintf("AWS's response is status %d, %s", reply.Status, reason)}
	default:
		return &reporting.Fault{
			Lane: reporting.Unreachable, Reason: fmt.Sprintf("AWS's response is status %d, %s", reply.Status, reason), RetryAfter: reply.RetryAfter(m.options.Now()),
		}
	}
}
