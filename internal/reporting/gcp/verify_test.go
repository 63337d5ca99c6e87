package gcp

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/marketmeter/marketmeter/internal/reporting"
	rt "github.com/marketmeter/marketmeter/internal/reporting/reportingtest"
	"github.com/marketmeter/marketmeter/sandbox"
)

// A refusal of the service means that the token was accepted.
func TestVerify_RefusalOfTheServiceIsNoFault(t *testing.T) {
	b := rt.Start(t, sandbox.Options{})
	refusal := func(status, reason string) string {
		return fmt.Sprintf(`{"error":{"code":1,"status":%q,"message":"why","details":[{"@type":"x"},{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":%q}]}}`, status, reason)
	}
	for _, c := range []struct {
		status int
		body   string
		want   reporting.LaneFault
	}{
		{200, "{}", reporting.NoLaneFault},
		{200, `{"operationId":"x","serviceConfigId":"y","new":1}`, reporting.NoLaneFault},
		{200, `{"message":"blocked"}`, reporting.Unreachable}, // a proxy's
		{200, `{"error":{"code":503}}`, reporting.Unreachable},
		{200, "<html>", reporting.Unreachable},
		{200, "[]", reporting.Unreachable},
		{200, "", reporting.Unreachable},
		{400, refusal("INVALID_ARGUMENT", ""), reporting.NoLaneFault},
		{403, refusal("PERMISSION_DENIED", "IAM_PERMISSION_DENIED"), reporting.NoLaneFault},
		{404, refusal("NOT_FOUND", ""), reporting.NoLaneFault},
		{401, refusal("UNAUTHENTICATED", ""), reporting.CredentialsRefused},
		{401, "<html>", reporting.CredentialsRefused},
		{403, refusal("PERMISSION_DENIED", "SERVICE_DISABLED"), reporting.CredentialsRefused},
		{403, refusal("PERMISSION_DENIED", "ACCESS_TOKEN_SCOPE_INSUFFICIENT"), reporting.CredentialsRefused},
		{429, refusal("RESOURCE_EXHAUSTED", ""), reporting.Throttled},
		{403, "<html>", reporting.Unreachable}, // not Google's
		{500, refusal("INTERNAL", ""), reporting.Unreachable},
		{302, "", reporting.Unreachable},
	} {
		err := of(b, &rt.Canned{Path: ":check", Status: c.status, Body: c.body}).Verify(context.Background())
		got := reporting.NoLaneFault
		if fault, ok := errors.AsType[*reporting.Fault](err); ok {
			got = fault.Lane
		}
		if got != c.want || (err == nil) != (c.want == reporting.NoLaneFault) {
			t.Errorf("%d %s: %v, %v", c.status, c.body, got, err)
		}
	}
}
