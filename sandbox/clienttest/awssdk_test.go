package clienttest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/marketplacemetering"
	"github.com/aws/aws-sdk-go-v2/service/marketplacemetering/types"
	"github.com/aws/smithy-go"

	"github.com/marketmeter/marketmeter/sandbox"
)

const licence = "arn:aws:license-manager::294406891311:license:l-1"

func awsClient(url, region string) *marketplacemetering.Client {
	return marketplacemetering.New(marketplacemetering.Options{
		Region: region, BaseEndpoint: aws.String(url + "/aws"),
		Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "any", ""), Retryer: aws.NopRetryer{},
	})
}

func usage(change func(*types.UsageRecord)) types.UsageRecord {
	r := types.UsageRecord{
		Timestamp: aws.Time(hour), Dimension: aws.String("requests"), Quantity: aws.Int32(17),
		CustomerAWSAccountId: aws.String("111122223333"), LicenseArn: aws.String(licence),
	}
	if change != nil {
		change(&r)
	}
	return r
}

func legacy(customer string) types.UsageRecord {
	return usage(func(r *types.UsageRecord) {
		r.CustomerAWSAccountId, r.LicenseArn, r.CustomerIdentifier = nil, nil, aws.String(customer)
	})
}

func meter(ctx context.Context, c *marketplacemetering.Client, product *string, records ...types.UsageRecord) (*marketplacemetering.BatchMeterUsageOutput, error) {
	return c.BatchMeterUsage(ctx, &marketplacemetering.BatchMeterUsageInput{ProductCode: product, UsageRecords: records})
}

func statuses(out *marketplacemetering.BatchMeterUsageOutput) string {
	var all []types.UsageRecordResultStatus
	for _, r := range out.Results {
		all = append(all, r.Status)
	}
	return fmt.Sprint(all)
}

func TestAWSSDK_MetersBothIntegrations(t *testing.T) {
	s, url := start(t, sandbox.Options{})
	c := awsClient(url, "us-east-1")
	out, err := meter(t.Context(), c, nil, usage(nil))
	if err != nil || statuses(out) != "[Success]" || aws.ToString(out.Results[0].MeteringRecordId) == "" || !out.Results[0].UsageRecord.Timestamp.Equal(hour) {
		t.Fatalf("got %+v, %v", out, err)
	}
	for _, step := range []struct {
		product *string
		record  types.UsageRecord
		want    string
	}{
		{aws.String("prod-1"), legacy("cust-1"), "[Success]"},
		{aws.String("prod-1"), legacy("cust-2"), "[CustomerNotSubscribed]"},
		{nil, usage(nil), "[Success]"},
		{nil, usage(func(r *types.UsageRecord) { r.Quantity = aws.Int32(18) }), "[DuplicateRecord]"},
	} {
		if out, err := meter(t.Context(), c, step.product, step.record); err != nil || statuses(out) != step.want {
			t.Fatalf("got %+v, %v, want %s", out, err, step.want)
		}
	}
	if _, err := s.AddFault(sandbox.Fault{Fault: sandbox.Unprocessed, Records: []int{0}}); err != nil {
		t.Fatal(err)
	}
	earlier := usage(func(r *types.UsageRecord) { r.Timestamp = aws.Time(hour.Add(-time.Hour)) })
	out, err = meter(t.Context(), c, nil, earlier)
	if err != nil || len(out.Results) != 0 || len(out.UnprocessedRecords) != 1 {
		t.Fatalf("got %+v, %v", out, err)
	}
	if out, err = meter(t.Context(), c, nil, out.UnprocessedRecords...); err != nil || statuses(out) != "[Success]" {
		t.Fatalf("got %+v, %v", out, err)
	}
	records, err := s.Records()
	if err != nil || len(records) != 3 {
		t.Fatalf("got %+v, %v", records, err)
	}
}

func TestAWSSDK_KnowsEachFailure(t *testing.T) {
	s, url := start(t, sandbox.Options{})
	c := awsClient(url, "us-east-1")
	allocations := func(list ...types.UsageAllocation) types.UsageRecord {
		return usage(func(r *types.UsageRecord) { r.UsageAllocations = list })
	}
	for _, f := range []struct {
		want    error
		product *string
		record  types.UsageRecord
		fault   string
	}{
		{&types.TimestampOutOfBoundsException{}, nil, usage(func(r *types.UsageRecord) { r.Timestamp = aws.Time(hour.Add(-24 * time.Hour)) }), ""},
		{&types.InvalidUsageDimensionException{}, nil, usage(func(r *types.UsageRecord) { r.Dimension = aws.String("nothing") }), ""},
		{&types.InvalidLicenseException{}, nil, usage(func(r *types.UsageRecord) { r.LicenseArn = aws.String(licence + "x") }), ""},
		{&types.InvalidProductCodeException{}, aws.String("prod-9"), legacy("cust-1"), ""},
		{&types.InvalidProductCodeException{}, aws.String("prod-1"), usage(nil), ""},
		{&types.InvalidCustomerIdentifierException{}, aws.String("prod-1"), legacy("cust-9"), ""},
		{&types.InvalidTagException{}, nil, allocations(types.UsageAllocation{AllocatedUsageQuantity: aws.Int32(17), Tags: []types.Tag{{Key: aws.String("ä"), Value: aws.String("b")}}}), ""},
		{&types.InvalidUsageAllocationsException{}, nil, allocations(types.UsageAllocation{AllocatedUsageQuantity: aws.Int32(16)}), ""},
		{&types.ThrottlingException{}, nil, usage(nil), sandbox.Throttled},
		{&types.InternalServiceErrorException{}, nil, usage(nil), sandbox.ServerError},
	} {
		if f.fault != "" {
			if _, err := s.AddFault(sandbox.Fault{Fault: f.fault}); err != nil {
				t.Fatal(err)
			}
		}
		_, err := meter(t.Context(), c, f.product, f.record)
		wantError(t, err, f.want)
	}
	_, err := meter(t.Context(), awsClient(url, "ap-south-1"), nil, usage(nil))
	wantError(t, err, &types.DisabledApiException{})
	var refused smithy.APIError
	if _, err := meter(t.Context(), c, nil, make26()...); !errors.As(err, &refused) || refused.ErrorCode() != "ValidationException" {
		t.Fatalf("26 records: %v", err)
	}
	for _, fault := range []string{sandbox.Lost, sandbox.Reset, sandbox.Cut, sandbox.Malformed, sandbox.ContentType} {
		if _, err := s.AddFault(sandbox.Fault{Fault: fault}); err != nil {
			t.Fatal(err)
		}
		if out, err := meter(t.Context(), c, nil, usage(nil)); err == nil {
			t.Fatalf("%s was not noticed: %+v", fault, out)
		}
	}
	// Nothing was accepted before the faults. "lost" accepted the record, and the others found it.
	records, err := s.Records()
	if err != nil || len(records) != 1 {
		t.Fatalf("got %+v, %v", records, err)
	}
}

func make26() []types.UsageRecord {
	var list []types.UsageRecord
	for range 26 {
		list = append(list, usage(nil))
	}
	return list
}

// wantError checks the type of the failure, which the SDK derives from its name.
func wantError(t *testing.T, err, want error) {
	t.Helper()
	for e := err; e != nil; e = errors.Unwrap(e) {
		if reflect.TypeOf(e) == reflect.TypeOf(want) {
			return
		}
	}
	t.Fatalf("got %v, want %T", err, want)
}

func TestAWSSDK_IsThrottled(t *testing.T) {
	_, url := start(t, sandbox.Options{RateLimit: 1, Now: func() time.Time { return hour }}) // the clock stands still
	c := awsClient(url, "us-east-1")
	if _, err := meter(t.Context(), c, nil, usage(nil)); err != nil {
		t.Fatal(err)
	}
	_, err := meter(t.Context(), c, nil, usage(nil))
	wantError(t, err, &types.ThrottlingException{})
}

func TestAWSSDK_ResolvesCustomers(t *testing.T) {
	_, url := start(t, sandbox.Options{})
	c := awsClient(url, "us-east-1")
	resolve := func(token string) (*marketplacemetering.ResolveCustomerOutput, error) {
		return c.ResolveCustomer(t.Context(), &marketplacemetering.ResolveCustomerInput{RegistrationToken: &token})
	}
	out, err := resolve("tok-1")
	if err != nil || aws.ToString(out.CustomerIdentifier) != "cust-1" || aws.ToString(out.ProductCode) != "prod-1" ||
		aws.ToString(out.CustomerAWSAccountId) != "111122223333" || aws.ToString(out.LicenseArn) != licence {
		t.Fatalf("got %+v, %v", out, err)
	}
	_, err = resolve("tok-9")
	wantError(t, err, &types.InvalidTokenException{})
	_, err = resolve("tok-old")
	wantError(t, err, &types.ExpiredTokenException{})
}
