package reporting_test

import (
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/reporting"
	rt "github.com/marketmeter/marketmeter/internal/reporting/reportingtest"
)

func TestLaneOf_IsWhatARequestMayHold(t *testing.T) {
	changed := func(r reporting.Record, change func(*reporting.Record)) reporting.Record {
		change(&r)
		return r
	}
	for _, c := range []struct {
		partner metering.Partner
		name    string
		a, b    reporting.Record
		same    bool
	}{
		{"AWS", "another licence of the product", rt.AWS("d0", "1"), changed(rt.AWS("d0", "1"), func(r *reporting.Record) { r.IDs.LicenseARN = rt.OtherLicence }), true},
		{"AWS", "another product", rt.AWS("d0", "1"), changed(rt.AWS("d0", "1"), func(r *reporting.Record) { r.Product = "other" }), false},
		{
			"AWS", "licences of products that are not known", changed(rt.AWS("d0", "1"), func(r *reporting.Record) { r.Product = "" }),
			changed(rt.AWS("d0", "1"), func(r *reporting.Record) { r.Product, r.IDs.LicenseARN = "", rt.OtherLicence }), false,
		},
		{"AWS", "another integration", rt.AWS("d0", "1"), changed(rt.AWS("d0", "1"), func(r *reporting.Record) {
			r.IDs = metering.MarketplaceIDs{CustomerIdentifier: rt.Customer, ProductCode: "product-1"}
		}), false},
		{"AWS", "the default Region", rt.AWS("d0", "1"), changed(rt.AWS("d0", "1"), func(r *reporting.Record) { r.IDs.Region = "us-east-1" }), true},
		{"AWS", "another Region", rt.AWS("d0", "1"), changed(rt.AWS("d0", "1"), func(r *reporting.Record) { r.IDs.Region = "eu-west-1" }), false},
		{"AWS", "another organization", rt.AWS("d0", "1"), changed(rt.AWS("d0", "1"), func(r *reporting.Record) { r.Organization = "other" }), false},
		{"AZURE", "another resource", rt.Azure("d0", "1"), changed(rt.Azure("d0", "1"), func(r *reporting.Record) { r.IDs.ResourceID = rt.Sibling }), true},
		{"GCP", "another consumer", rt.Google("d0", "1"), changed(rt.Google("d0", "1"), func(r *reporting.Record) { r.IDs.UsageReportingID = "x" }), true},
		{"GCP", "another service", rt.Google("d0", "1"), changed(rt.Google("d0", "1"), func(r *reporting.Record) { r.IDs.ServiceName = "x" }), false},
		{"GCP", "another product of the service", rt.Google("d0", "1"), changed(rt.Google("d0", "1"), func(r *reporting.Record) { r.Product = "other" }), true},
	} {
		if same := reporting.LaneOf(c.partner, &c.a) == reporting.LaneOf(c.partner, &c.b); same != c.same {
			t.Errorf("%s, %s: same lane is %v", c.partner, c.name, same)
		}
	}
}

// The hour is that of UTC, whatever zone a time has.
func TestRecord_HourIsUTC(t *testing.T) {
	r := rt.AWS("d0", "1")
	r.Start = time.Date(2026, 11, 18, 17, 15, 0, 0, time.FixedZone("IST", 5*3600+1800))
	if want := time.Date(2026, 11, 18, 11, 0, 0, 0, time.UTC); !r.Hour().Equal(want) || r.Hour().Location() != time.UTC {
		t.Errorf("got %v", r.Hour())
	}
}

// A result without anything in it, as of a call that was never finished, is in doubt.
func TestResult_ZeroIsInDoubt(t *testing.T) {
	want(t, "zero", rt.Verdicts(reporting.Response{Results: make([]reporting.Result, 1)}), "in doubt resend")
}
