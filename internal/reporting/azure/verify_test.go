package azure

import (
	"context"
	"errors"
	"testing"

	"github.com/marketmeter/marketmeter/internal/reporting"
	rt "github.com/marketmeter/marketmeter/internal/reporting/reportingtest"
	"github.com/marketmeter/marketmeter/sandbox"
)

func TestVerify_StatusDecides(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	for status, want := range map[int]reporting.LaneFault{
		200: reporting.Unreachable, 204: reporting.Unreachable, 307: reporting.Unreachable, 400: reporting.CredentialsRefused, 401: reporting.CredentialsRefused,
		403: reporting.CredentialsRefused, 404: reporting.CredentialsRefused, 429: reporting.Throttled, 500: reporting.Unreachable, 503: reporting.Unreachable,
	} {
		for _, body := range []string{"", "<html>", `{"code":"Forbidden","message":"why"}`} {
			err := of(b, &rt.Canned{Path: "/api/usageEvents", Status: status, Body: body}).Verify(context.Background())
			got := reporting.NoLaneFault
			if fault, ok := errors.AsType[*reporting.Fault](err); ok {
				got = fault.Lane
			}
			if got != want || (err == nil) != (want == reporting.NoLaneFault) {
				t.Errorf("%d %s: %v, %v", status, body, got, err)
			}
		}
	}
	// What is no list is not from Azure: a proxy may have sent it.
	for body, verified := range map[string]bool{"[]": true, `[{"usageDate":"2026-11-18T00:00:00Z"}]`: true, "{}": false, "[": false, "null": false} {
		if err := of(b, &rt.Canned{Path: "/api/usageEvents", Status: 200, Body: body}).Verify(context.Background()); (err == nil) != verified {
			t.Errorf("%s: %v", body, err)
		}
	}
}
