package reports

import (
	"errors"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// Place is an entitlement's hour: the place in which its report is made.
type Place struct {
	Organization metering.OrgID
	Entitlement  metering.EntitlementID
	Hour         time.Time // its start, UTC
}

// ErrChanged is the error of a write whose condition failed, or that another transaction disturbed:
// another worker was first. What it wrote is read and adopted.
var ErrChanged = errors.New("another worker has changed it")

// ErrNewer is the error of an hour, or a ledger, that this version can't read in all its parts: a
// newer version has written it. It is left alone.
var ErrNewer = errors.New("it was written by a newer version, or is damaged")

// Step is a change of an hour, and what is written with it.
type Step struct {
	Before, After *Hour
	Ledger        *Ledger      // after the step; nil if it is unchanged
	Calls         []StoredCall // responses that the step stores
}

// StoredCall is one call to the marketplace, as far as it is about one hour: what the seller can
// show the marketplace's support. It holds no secret.
type StoredCall struct {
	Time          time.Time // before the call
	Status        int       // of HTTP; 0 if there was no response
	RequestID     string
	CorrelationID string
	Request       []byte   // the request with the records of the hour alone: JSON
	Responses     [][]byte // the parts of the response that are about them: JSON
}
