package metering

import "time"

// Group is a usage record group: what one entitlement used, reported at once, and its status on the
// way to the marketplace.
type Group struct {
	ID             string // 1 to 36 characters, unique in the organization
	OrganizationID string
	BuyerID        string
	EntitlementID  string
	ProductID      string // stored and filtered by, never returned; may be empty
	Partner        Partner
	Status         Status

	Records  map[string]Quantity // by dimension key, after conversion
	MetaInfo MetaInfo

	SerialID            int32  // grows per organization, gaps allowed
	UsageRecordReportID string // empty until reported

	CreationTime   time.Time // UTC, whole milliseconds, as are the others
	LastUpdateTime time.Time
	ReportedTime   time.Time // zero until reported

	Problems []Problem // why the group is INVALID or REPORT_FAILED; nil otherwise
	ReportBy time.Time // the last moment at which its marketplace takes it; zero if it is not known

	// Unknown holds, as documents, the members that a newer version has stored and this one does
	// not know, and optional members in a form that this version does not read. Clients never get
	// them; an export includes them. Unexportable names those that JSON can't hold.
	Unknown      map[string]any
	Unexportable []string
}

// MetaInfo is what a group carries besides its records. A nil member is absent, and stays absent.
type MetaInfo struct {
	SkipValidation  *bool
	Source          *Source
	Timestamp       *time.Time          // when the usage happened
	OriginRecords   map[string]Quantity // before conversion
	BillableRecords []BillableRecord    // usage metering v2

	// Carried holds the members of CarriedMembers that are present: a Number for an amount or a
	// count, a string for a text or a time.
	Carried map[string]any

	Unknown map[string]any // as of a Group
}

// BillableRecord is a quantity of a billable metric (usage metering v2).
type BillableRecord struct {
	Key        string
	Properties map[string]any // equal to the metric's filters; values as in Document; nil is absent
	Quantity   Quantity

	Unknown map[string]any // as of a Group
}

// Partner is the marketplace that a group's usage goes to.
type Partner string

// Partners are the marketplaces of usage record groups.
var Partners = []Partner{"AWS", "AZURE", "GCP"}

// Status is the status of a group on its way to the marketplace.
type Status string

// The statuses of a group (API reference: list usageRecordGroups).
const (
	StatusCreated       Status = "CREATED"
	StatusDeleted       Status = "DELETED"
	StatusInvalid       Status = "INVALID"
	StatusReported      Status = "REPORTED"
	StatusReportPending Status = "REPORT_PENDING"
	StatusReportFailed  Status = "REPORT_FAILED"
)

// Statuses are all statuses.
var Statuses = []Status{
	StatusCreated, StatusDeleted, StatusInvalid, StatusReported, StatusReportPending, StatusReportFailed,
}

// Source is the system that a group's usage came from; empty if none was named.
type Source string

// Sources are the sources of a group, the union of the API reference's pages.
var Sources = []Source{"", "API", "INTERNAL", "METRONOME", "ORB", "LAGO", "STRIPE"}
