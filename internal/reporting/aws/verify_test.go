package aws

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"github.com/marketmeter/marketmeter/internal/reporting"
	rt "github.com/marketmeter/marketmeter/internal/reporting/reportingtest"
	"github.com/marketmeter/marketmeter/sandbox"
)

// A refusal of the empty list means that the credentials were accepted. Every other one is a fault,
// as it is for records.
func TestVerify_RefusalOfTheListIsNoFault(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	lane := func(transport http.RoundTripper) reporting.LaneFault {
		err := of(b, transport).Verify(context.Background())
		if err == nil {
			return reporting.NoLaneFault
		}
		fault, ok := errors.AsType[*reporting.Fault](err)
		if !ok || fault.Reason == "" {
			t.Errorf("%v", err)
			return reporting.NoLaneFault
		}
		return fault.Lane
	}
	for name, rule := range exceptions {
		if got := lane(exception(400, name)); got != rule.Lane {
			t.Errorf("%s: %v, want %v", name, got, rule.Lane)
		}
		if got := lane(exception(500, name)); got != reporting.Unreachable {
			t.Errorf("%s at 500: %v", name, got)
		}
	}
	for status, want := range map[int]reporting.LaneFault{
		200: reporting.NoLaneFault, 301: reporting.Unreachable, 400: reporting.Unreachable, 401: reporting.CredentialsRefused,
		403: reporting.CredentialsRefused, 404: reporting.Unreachable, 502: reporting.Unreachable,
	} {
		if got := lane(&rt.Canned{Status: status, Body: "<html>"}); got != want {
			t.Errorf("%d: %v, want %v", status, got, want)
		}
	}
}
