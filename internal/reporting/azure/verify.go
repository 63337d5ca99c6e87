package azure

import (
	"context"
	"fmt"
	"net/http"

	"github.com/marketmeter/marketmeter/internal/reporting"
)

// Verify tries the credentials without metering: it fetches a token, and reads the usage events of
// today. It returns a *reporting.Fault if they can't be used.
func (m *Marketplace) Verify(ctx context.Context) error {
	today := m.options.Now()
	reply, err := m.usageEvents(ctx, 0, today, today, func(*day) error { return nil })
	if err != nil {
		return &reporting.Fault{Lane: faultOf(err), Reason: err.Error()}
	}
	reason, _ := readError(reply.Body)
	fault := &reporting.Fault{
		Lane:   reporting.Unreachable,
		Reason: fmt.Sprintf("Azure's response to usageEvents is status %d, %s", reply.Status, reason), RetryAfter: reply.RetryAfter(today),
	}
	switch {
	case reply.Err != nil:
		fault.Reason = "Azure's response is missing or incomplete: " + reply.Err.Error()
		return fault
	case reply.Status == http.StatusOK:
		return nil
	case reply.Status == http.StatusTooManyRequests:
		fault.Lane = reporting.Throttled
	case reply.Status/100 == 4:
		fault.Lane = reporting.CredentialsRefused
	}
	return fault
}
