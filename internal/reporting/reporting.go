// Package reporting holds what usage is reported with: sealed records, the interface of a
// marketplace, and what its responses mean. The marketplaces are in aws, azure and gcp below; they
// never import each other. exchange has the HTTP that they share.
//
// What a response means is never guessed. A record is billed or refused only if a readable response
// says so in a documented way; everything else leaves it in doubt (decision 50).
package reporting

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
)

// Record is sealed usage of one dimension in one hour. It never changes: the marketplaces make the
// same bytes of it each time.
type Record struct {
	Organization metering.OrgID
	Entitlement  metering.EntitlementID
	Product      metering.ProductID // may be empty
	IDs          metering.MarketplaceIDs
	Dimension    string
	Quantity     metering.Quantity // more than 0, in what the marketplace holds exactly

	// Start and End are the hour, clamped to the entitlement. Start is in the hour and is the
	// timestamp for AWS and Azure. Google gets both.
	Start, End time.Time
}

// Hour is the start of the record's UTC hour, by which the marketplaces find duplicates.
func (r *Record) Hour() time.Time { return r.Start.UTC().Truncate(time.Hour) }

// Marketplace sends records of one connection. It is safe for concurrent use.
type Marketplace interface {
	// Fit returns how many of the first records fit in one request.
	Fit(records []Record) int
	// Body returns the request with the records of one lane, as Send sends it.
	Body(records []Record) []byte
	// Send makes one call with the records of one lane. It returns a result for each record, in
	// their order, whatever happens.
	//
	// It never sends a record that the marketplace could not hold, that is of another lane than the
	// first, that has the identity of an earlier one, or that does not fit. Such a record is
	// refused.
	Send(ctx context.Context, records []Record) Response
}

// Reader is a Marketplace that reports what it has processed. Azure does; AWS and Google do not.
type Reader interface {
	// ReadBack returns what the marketplace has processed of the usage of a UTC day. Its error is
	// ErrRefused if the credentials are missing or refused.
	ReadBack(ctx context.Context, date time.Time) (ReadBack, error)
}

// ReadBack is what a marketplace has processed of the usage of a UTC day. It proves a day, not an
// hour: a sum does not show which of the hours it has.
type ReadBack struct {
	Processed map[reports.Meter]reports.Processed
	// Resources are those, in lower case, that the marketplace has reported anything of, on that
	// day or the next: those that the connection sees.
	Resources map[string]bool
}

// ErrRefused is the error of a call whose credentials are missing, wrong or not allowed.
var ErrRefused = errors.New("the credentials of the connection are refused")

// Response is what one call came to.
type Response struct {
	Results []Result // one for each record, in their order

	// Lane is what is wrong with the lane, if the call failed for a reason that is no record's.
	// Then no record was processed, and each is refused with WaitForLane.
	Lane       LaneFault
	LaneReason string
	RetryAfter time.Duration // what the marketplace asks for; 0 if nothing

	// Request and Response are the bodies as they were on the wire, without secrets. They are nil
	// if nothing was sent or received.
	Request, Response []byte
	Status            int    // of HTTP; 0 if there was no response
	RequestID         string // the marketplace's id of the call, for its support
	CorrelationID     string // Azure's second id
}

// Result is what one call says about one record. The zero value is in doubt.
type Result struct {
	Verdict reports.Result
	Next    Next
	Problem metering.ProblemCode // why it is not billed; empty if it is billed or in doubt

	Receipt  string    // the marketplace's id of the record that it bills, if it has one
	Reason   string    // the marketplace's own words, or why nothing is known
	Accepted *Accepted // with Duplicate: what the marketplace reports of the earlier record, if anything
	Raw      []byte    // the part of the response about this record

	// OrLane is the fault of the lane that the refusal may be of, if it may be no record's.
	OrLane LaneFault
}

// Next says how to continue with a record.
type Next int

// The ways to continue.
const (
	Resend      Next = iota // send the same again
	Done                    // sending it again changes nothing
	Hourly                  // send it again, in the end each hour: what is missing may be set right at the marketplace
	Bisect                  // the request was refused because of some of its records: send each half by itself
	WaitForLane             // send it again once the lane works
)

func (n Next) String() string {
	return [...]string{"resend", "done", "hourly", "bisect", "wait for the lane"}[n]
}

// LaneFault is a reason why a call failed that is no record's.
type LaneFault int

// The faults of a lane.
const (
	NoLaneFault        LaneFault = iota
	Throttled                    // too many calls
	CredentialsRefused           // the credentials are missing, wrong or not allowed to report
	Misconfigured                // the marketplace does not have the API, or the product, here
	Unreachable                  // nothing could be sent
)

func (f LaneFault) String() string {
	return [...]string{"none", "throttled", "credentials refused", "misconfigured", "unreachable"}[f]
}

// Accepted is the earlier record of a duplicate, as far as the marketplace reports it.
type Accepted struct {
	Quantity string    // a JSON number, as the marketplace wrote it
	Equal    bool      // the quantity is the record's, in the type that the marketplace stores
	Time     time.Time // when it was accepted; zero if that is not reported
	Receipt  string
}

// Rule is the meaning of a marketplace's status or error. Each marketplace has one table of them.
type Rule struct {
	Verdict reports.Result
	Next    Next
	Problem metering.ProblemCode
	Lane    LaneFault
	OrLane  LaneFault
}

// Result returns the result of a record that the rule applies to.
func (r Rule) Result(reason string) Result {
	return Result{Verdict: r.Verdict, Next: r.Next, Problem: r.Problem, Reason: reason, OrLane: r.OrLane}
}

// SomeAtFault is the rule of a request that was refused because of some of its records.
func SomeAtFault(problem metering.ProblemCode) Rule {
	return Rule{Verdict: reports.Refused, Next: Bisect, Problem: problem}
}

// SomeOrLaneAtFault is the rule of a request that was refused because of some of its records, or
// for a reason that is no record's: the response does not show which.
func SomeOrLaneAtFault(fault LaneFault, problem metering.ProblemCode) Rule {
	return Rule{Verdict: reports.Refused, Next: Bisect, Problem: problem, OrLane: fault}
}

// LaneAtFault is the rule of a request that was refused for a reason that is no record's.
func LaneAtFault(fault LaneFault, problem metering.ProblemCode) Rule {
	return Rule{Verdict: reports.Refused, Next: WaitForLane, Problem: problem, Lane: fault}
}

// Lane is what is sent, throttled and refused together: a request holds records of one lane.
type Lane struct {
	Organization metering.OrgID
	Partner      metering.Partner
	Product      string
	Region       string
}

// Key identifies the lane in the index of work.
func (l *Lane) Key() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q", []string{string(l.Organization), string(l.Partner), l.Product, l.Region}))
	return hex.EncodeToString(sum[:12])
}

// LaneOf returns the lane of a record.
//
// AWS takes records of one product, integration and Region in a request. A licence is of one
// product, which it does not name: without the entitlement's product each licence is a lane.
func LaneOf(partner metering.Partner, r *Record) Lane {
	lane := Lane{Organization: r.Organization, Partner: partner, Product: string(r.Product)}
	switch partner {
	case "AWS":
		lane.Region = r.IDs.Region
		if lane.Region == "" {
			lane.Region = metering.DefaultAWSRegion
		}
		switch {
		case r.IDs.LicenseARN == "":
			lane.Product = "product code " + r.IDs.ProductCode
		case r.Product != "":
			lane.Product = "licences of " + string(r.Product)
		default:
			lane.Product = r.IDs.LicenseARN
		}
	case "GCP":
		lane.Product = r.IDs.ServiceName
	}
	return lane
}

// Secrets reads secrets by their ARN. It is safe for concurrent use.
type Secrets interface {
	// Secret returns ErrSecretUnavailable if the secret may be there, but can't be read now. Its
	// errors hold no secret.
	Secret(ctx context.Context, arn string) (string, error)
}

// ErrSecretUnavailable marks a secret that can't be read now, for a reason that is not the
// connection's.
var ErrSecretUnavailable = errors.New("the store of the secrets can't be reached")

// A Fault is why a connection can't be used. Its text holds no secret.
type Fault struct {
	Lane       LaneFault
	Reason     string        // the marketplace's own words, if there are any
	RetryAfter time.Duration // what the marketplace asks for; 0 if nothing
}

func (f *Fault) Error() string { return f.Reason }
