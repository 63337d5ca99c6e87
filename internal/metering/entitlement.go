package metering

import "time"

// Entitlement is what a buyer has bought from the seller on a marketplace: the terms under which
// its usage is taken, converted and reported.
type Entitlement struct {
	ID             EntitlementID
	OrganizationID OrgID
	Name           string
	Partner        Partner
	BuyerID        BuyerID
	ProductID      ProductID // may be empty
	ExternalID     string
	Status         EntitlementStatus

	// Usage of [StartTime, EndTime) is taken; a zero time is no bound.
	StartTime time.Time
	EndTime   time.Time
	// CancelTime is when the status became CANCELLED. Usage from before it is taken as long as the
	// marketplace accepts it.
	CancelTime time.Time

	Info        EntitlementInfo
	Marketplace MarketplaceIDs

	CreationTime   time.Time // UTC, whole milliseconds, as are the others
	LastUpdateTime time.Time

	Unknown map[string]any // members that a newer version has stored
}

// EntitlementInfo are the prices of an entitlement.
type EntitlementInfo struct {
	Currency     string
	CommitAmount Quantity // in Currency; 0 is no commit
	Dimensions   []Dimension
	// DimensionsKnown reports whether the entitlement lists its dimensions. If it does not, the
	// dimensions of its usage are not checked; an empty list means that every dimension is unknown.
	DimensionsKnown bool

	Unknown map[string]any
}

// Dimension is what a marketplace meters of a product.
type Dimension struct {
	Key         string
	Name        string
	Description string
	Rate        Quantity // unit price in the entitlement's currency; 0 or less is none
	ListPrice   Quantity // ours; 0 or less is none
	ValueType   string

	Unknown map[string]any
}

// EntitlementStatus is the state of an entitlement at its marketplace.
type EntitlementStatus string

// The statuses of an entitlement (API reference: list entitlements).
const (
	EntitlementActive        EntitlementStatus = "ACTIVE"
	EntitlementCancelled     EntitlementStatus = "CANCELLED"
	EntitlementDeleted       EntitlementStatus = "DELETED"
	EntitlementPendingCancel EntitlementStatus = "PENDING_CANCEL"
	EntitlementPendingStart  EntitlementStatus = "PENDING_START"
	EntitlementSuspended     EntitlementStatus = "SUSPENDED"
)

// EntitlementStatuses are all statuses of an entitlement.
var EntitlementStatuses = []EntitlementStatus{
	EntitlementActive, EntitlementCancelled, EntitlementDeleted, EntitlementPendingCancel, EntitlementPendingStart, EntitlementSuspended,
}

// MarketplaceIDs are the identifiers by which a marketplace knows an entitlement. Those of the
// entitlement's partner are given, or none.
type MarketplaceIDs struct {
	// AWS: an account with a licence, or a customer with a product code.
	CustomerAWSAccountID string
	LicenseARN           string
	CustomerIdentifier   string
	ProductCode          string
	Region               string // empty is DefaultAWSRegion

	// Azure: one of both resources, and the plan.
	ResourceID  string
	ResourceURI string
	PlanID      string

	// Google.
	UsageReportingID string
	ServiceName      string

	Unknown map[string]any
}

// Complete reports whether usage can be reported with the identifiers to the partner.
func (m *MarketplaceIDs) Complete(partner Partner) bool {
	switch partner {
	case "AWS":
		return m.CustomerAWSAccountID != "" && m.LicenseARN != "" || m.CustomerIdentifier != "" && m.ProductCode != ""
	case "AZURE":
		return (m.ResourceID != "" || m.ResourceURI != "") && m.PlanID != ""
	case "GCP":
		return m.UsageReportingID != "" && m.ServiceName != ""
	default:
		return false
	}
}
