package metering

import (
	"time"

	"github.com/govalues/decimal"
)

// The limits of the product, each with its unit and its source. A limit of a single mechanism, such
// as the size of a Link header or of a DynamoDB expression, is declared with that mechanism.

// Identifiers and keys.
const (
	MaxOrganizationID = 64  // bytes; the contract
	MaxBuyerID        = 256 // bytes; the contract
	MaxProductID      = 256 // bytes; the contract
	MaxEntitlementID  = 256 // bytes; the contract
	MaxGroupID        = 36  // characters; the contract
	MaxKey            = 255 // characters of a dimension or metric key; the contract
)

// Requests.
const (
	// MaxBatch is how many groups a request may carry. Source: the contract.
	MaxBatch = 1000

	// MaxBatchBody is how many bytes the body of a batch may have. Source: the event that carries
	// it, in which it is escaped, must fit in Lambda's 6 MB.
	MaxBatchBody = 4 << 20

	// MaxConfigBody is how many bytes the body of a config change may have. Source: ours; it is
	// more than a config that can be stored takes.
	MaxConfigBody = 1 << 20

	// MaxQueryParameters is how many parameters a query string may have. Source: net/url reads no
	// more.
	MaxQueryParameters = 10_000

	// MaxMetaInfoFilter is how many bytes the metaInfo filter of a list may have. Source: ours; API
	// Gateway allows a request line of at most 10,240 bytes, in which one byte may take three.
	MaxMetaInfoFilter = 4096

	// MaxFuture is how far ahead of the service's clock usage may be dated. Source: the contract;
	// clocks differ, usage does not happen tomorrow.
	MaxFuture = 5 * time.Minute
)

// Lists.
const (
	// MaxListLimit is how many groups a page may have, and has if the request names no limit.
	// Source: the contract.
	MaxListLimit = 1000

	// MaxListSize is how many bytes a page may take in the envelope that Lambda returns, in which
	// the body is a JSON string. Source: Lambda refuses an envelope over 6,291,556 bytes; the rest
	// is for headers. The local server has the same limit.
	MaxListSize = 6_200_000

	// DefaultWindowDays is how many days before the end date a list starts if no start date is
	// given. Source: the contract.
	DefaultWindowDays = 30
)

// What is stored.
const (
	// MaxStored is how many bytes a stored group may have. Source: a DynamoDB item may have 400 KB;
	// the rest is for what is added to a group on its way to the marketplace.
	MaxStored = 392 << 10

	// MaxConfigStored is how many bytes a stored config may have. Source: DynamoDB's 400 KB; the
	// rest is for the item's keys and its other attributes.
	MaxConfigStored = 400<<10 - 1<<10

	// MaxPropertiesDepth is how many levels the properties of a billable record may nest. Source:
	// DynamoDB's 32 levels; properties begin at the fifth.
	MaxPropertiesDepth = 24

	// MaxPropertyName is how many bytes the name of a member of properties may have; the minimum is
	// 1. Source: DynamoDB.
	MaxPropertyName = 64<<10 - 1

	// MaxStoredProblems is how many bytes the problems of a stored group may have. Source: ours; it
	// is about a dozen, and the response to a batch has a thousand groups.
	MaxStoredProblems = 4 << 10

	// MaxRaisedSerial is the largest serialID to which an imported group raises its organization's
	// counter. Source: ours; the 147 million above it, up to the largest of 32 bits, are for new
	// groups.
	MaxRaisedSerial = 2_000_000_000
)

// Usage on its way to a marketplace.
const (
	// DefaultAWSRegion is the Region of AWS Marketplace's metering service if an entitlement names
	// none. Source: the contract.
	DefaultAWSRegion = "us-east-1"

	// MaxCatalogItem is how many bytes a stored entitlement or billable metric may have. Source:
	// the contract.
	MaxCatalogItem = 32 << 10

	// MaxResourceURI is how many bytes the resourceURI of an entitlement may have. Source: ours; a
	// subscription, a resource group and a managed application take a few hundred.
	MaxResourceURI = 2048

	// MaxExternalID is how many bytes the externalID of an entitlement may have. Source: ours.
	MaxExternalID = 256

	// MaxReportBody is how many bytes the body of a report, and of a PUT, may have. Source: the
	// contract.
	MaxReportBody = 1 << 20

	// MaxIdempotencyKey is how many characters an Idempotency-Key may have. Source: the contract.
	MaxIdempotencyKey = 255

	// MaxRetryKeys is how many keys of retries a group stores. Source: the contract.
	MaxRetryKeys = 100

	// MaxProblems is how many problems of a code a group has; the last one counts the others.
	// Source: ours; a group with more records has one cause, and its problems are stored with it.
	MaxProblems = 100

	// CatalogAge is how old the entitlement, config or metrics may be that usage is checked
	// against. Source: the contract's 5 seconds, less the time that a request takes.
	CatalogAge = 4 * time.Second
)

// defaultLockMinutes is how long an hour stays open after its end, in minutes. Source: the
// contract.
var defaultLockMinutes = map[Partner]int{"AWS": 60, "AZURE": 60, "GCP": 10}

// maxLockMinutes is the max of a connection's lockMinutes. Source: the contract.
var maxLockMinutes = map[Partner]int{"AWS": 720, "AZURE": 720, "GCP": 50}

// quantityLimits is what the quantity of a dimension must be less than. Sources: AWS's
// QuantityAsDecimal has at most 10 digits before the point; Google's values are INT64.
var quantityLimits = map[Partner]Quantity{
	"AWS": {decimal.MustNew(10_000_000_000, 0)},
	"GCP": {decimal.MustParse("9223372036854775808")},
}
