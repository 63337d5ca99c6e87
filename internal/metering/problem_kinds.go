package metering

// ProblemKind describes the problems of one code. docs/problems.md is generated from ProblemKinds.
type ProblemKind struct {
	Code     ProblemCode
	Severity Severity // unless the problem says otherwise
	Remedy   Remedy
	Found    Finding
	Meaning  string
	Hint     string             // of the problem, unless it has a better one
	Errors   []MarketplaceError // the same, as the marketplaces say it
}

// MarketplaceError lists the names that a marketplace has for a kind of problem.
type MarketplaceError struct {
	Partner Partner
	Names   []string
}

// Remedy says what makes a problem go away.
type Remedy string

// The remedies.
const (
	RemedyWait   Remedy = "transient"           // it may go away by itself
	RemedySeller Remedy = "fixed by the seller" // a change of the usage, the entitlement, a metric, the config or the connection
	RemedyBuyer  Remedy = "fixed by the buyer"  // a change of the subscription at the marketplace
	RemedyNone   Remedy = "final"               // this usage can't be reported as it is
)

// Finding says what finds a problem.
type Finding int

// What finds a problem; a sum of these.
const (
	FoundByValidation Finding = 1 << iota // of new usage, and by a retry
	FoundByReporting                      // to the marketplace
)

// The names of a marketplace's errors are of its API: docs/problems.md links to them.
const (
	awsTimestamp    = "TimestampOutOfBoundsException"
	awsDimension    = "InvalidUsageDimensionException"
	awsCustomer     = "InvalidCustomerIdentifierException"
	awsLicense      = "InvalidLicenseException"
	awsProduct      = "InvalidProductCodeException"
	awsUnsubscribed = "CustomerNotSubscribed"
)

// ProblemKinds returns all kinds of problems, in the order of docs/problems.md: those of the group,
// the entitlement, the time, the records and the marketplace.
func ProblemKinds() []ProblemKind { return problemKinds }

// kindOf returns the kind of the code. It panics if no kind has the code, which is a defect.
func kindOf(code ProblemCode) ProblemKind {
	for i := range problemKinds {
		if problemKinds[i].Code == code {
			return problemKinds[i]
		}
	}
	panic("metering: no kind of problem has the code " + string(code))
}

var problemKinds = []ProblemKind{
	{
		Code: ProblemNotStorable, Severity: SeverityError, Remedy: RemedySeller, Found: FoundByValidation,
		Meaning: "The group has a value that can't be stored, no usage, or more usage than one group may hold. Reporting it responds with 400 and stores nothing.",
		Hint:    "Change the value as the message says.",
	},
	{
		Code: ProblemDuplicateInBatch, Severity: SeverityWarning, Remedy: RemedySeller, Found: FoundByValidation,
		Meaning: "An earlier group of the batch has the same content: entitlement, records, timestamp and metaInfo. Both would be billed.",
		Hint:    "Leave the group out if it is the same usage.",
	},
	{
		Code: ProblemEntitlementUnknown, Severity: SeverityError, Remedy: RemedySeller, Found: FoundByValidation,
		Meaning: "The organization has no entitlement with this id, or has deleted it. Reporting usage for it responds with 404 (400 in a batch).",
		Hint:    "Check the entitlementID, or create the entitlement with PUT /org/{orgId}/entitlement/{entitlementId}.",
		Errors:  []MarketplaceError{{"AWS", []string{awsCustomer, awsLicense}}, {"AZURE", []string{"ResourceNotFound"}}},
	},
	{
		Code: ProblemEntitlementNotActive, Severity: SeverityError, Remedy: RemedyBuyer, Found: FoundByValidation,
		Meaning: "The status of the entitlement allows no usage: it is PENDING_START or SUSPENDED.",
		Hint:    "Retry the group once the entitlement is ACTIVE.",
		Errors:  []MarketplaceError{{"AWS", []string{awsUnsubscribed}}, {"AZURE", []string{"ResourceNotActive"}}, {"GCP", []string{"SERVICE_NOT_ACTIVATED"}}},
	},
	{
		Code: ProblemEntitlementNotStarted, Severity: SeverityError, Remedy: RemedySeller, Found: FoundByValidation,
		Meaning: "The usage happened before the startTime of the entitlement.",
		Hint:    "Check the timestamp and the startTime of the entitlement.",
		Errors:  []MarketplaceError{{"AWS", []string{awsTimestamp}}, {"AZURE", []string{"BadArgument"}}},
	},
	{
		Code: ProblemEntitlementEnded, Severity: SeverityError, Remedy: RemedySeller, Found: FoundByValidation,
		Meaning: "The usage happened at or after the endTime of the entitlement, or its cancelTime.",
		Hint:    "Check the timestamp, and the endTime and cancelTime of the entitlement. Usage from afterwards can't be billed.",
		Errors:  []MarketplaceError{{"AWS", []string{awsUnsubscribed}}, {"AZURE", []string{"ResourceNotActive"}}},
	},
	{
		Code: ProblemEntitlementWithoutIdentifiers, Severity: SeverityError, Remedy: RemedySeller, Found: FoundByValidation,
		Meaning: "The entitlement lacks identifiers by which its marketplace knows it, in its member marketplace.",
		Hint:    "Add the identifiers to the entitlement with PUT, then retry the group.",
		Errors:  []MarketplaceError{{"AWS", []string{awsCustomer, awsLicense, awsProduct}}, {"AZURE", []string{"ResourceNotFound"}}},
	},
	{
		Code: ProblemNoConnection, Severity: SeverityError, Remedy: RemedySeller, Found: FoundByValidation | FoundByReporting,
		Meaning: "The organization has no connection to the marketplace. A new group is CREATED and waits for one; explained validation warns. It is REPORT_FAILED if there is none when the time to report it ends.",
		Hint:    "Connect the marketplace with PUT /org/{orgId}/connection/{partner}.",
	},
	{
		Code: ProblemInTheFuture, Severity: SeverityError, Remedy: RemedySeller, Found: FoundByValidation,
		Meaning: "The timestamp is more than 5 minutes ahead of the service's clock.",
		Hint:    "Report usage when it has happened, and check the clock that the timestamp comes from.",
		Errors:  []MarketplaceError{{"AWS", []string{awsTimestamp}}, {"AZURE", []string{"BadArgument"}}},
	},
	{
		Code: ProblemTooOld, Severity: SeverityError, Remedy: RemedyNone, Found: FoundByValidation,
		Meaning: "The last moment at which the marketplace takes usage of this hour is over: 24 hours after its start, on AWS also 06:00 UTC on the 1st of the next month, and on AWS and Google an hour after a cancellation.",
		Hint:    "Report usage within hours. If it may be billed with a later hour, report it again with a later timestamp, or set lateUsage of the connection to CARRY.",
		Errors:  []MarketplaceError{{"AWS", []string{awsTimestamp}}, {"AZURE", []string{"Expired"}}},
	},
	{
		Code: ProblemMonthClosed, Severity: SeverityError, Remedy: RemedyNone, Found: FoundByValidation,
		Meaning: "The marketplace has closed the month of the usage: AWS at 06:00 UTC, Google at 01:00 US Pacific, on the 1st of the next.",
		Hint:    "Report usage before the month is closed. If it may be billed with the next month, report it again with a later timestamp, or set lateUsage of the connection to CARRY.",
		Errors:  []MarketplaceError{{"AWS", []string{awsTimestamp}}},
	},
	{
		Code: ProblemLate, Severity: SeverityWarning, Remedy: RemedySeller, Found: FoundByValidation,
		Meaning: "Google asks for usage within one hour. It takes later usage of the month too, with no promise.",
		Hint:    "Report usage to Google within an hour.",
	},
	{
		Code: ProblemDimensionUnknown, Severity: SeverityError, Remedy: RemedySeller, Found: FoundByValidation,
		Meaning: "After conversion, the usage is of a dimension that the entitlement does not list.",
		Hint:    "Use a key or a name of the entitlement's dimensions, or map the key in the usage metering config.",
		Errors:  []MarketplaceError{{"AWS", []string{awsDimension}}, {"AZURE", []string{"InvalidDimension"}}},
	},
	{
		Code: ProblemDimensionsUnchecked, Severity: SeverityWarning, Remedy: RemedySeller, Found: FoundByValidation,
		Meaning: "The entitlement does not list its dimensions, so those of the usage are not checked.",
		Hint:    "List the dimensions in info.dimensions of the entitlement.",
	},
	{
		Code: ProblemMappingUnreadable, Severity: SeverityError, Remedy: RemedySeller, Found: FoundByValidation,
		Meaning: "The usage metering config maps the usage by a member or value that this version of the service does not know. A newer version has stored it, and ignoring it could convert wrongly.",
		Hint:    "Retry the group once all functions have the version that stored the config, or change the mapping.",
	},
	{
		Code: ProblemMetricUnknown, Severity: SeverityError, Remedy: RemedySeller, Found: FoundByValidation,
		Meaning: "The organization has no billable metric with the id that a billable record has as its key.",
		Hint:    "Use the id of a billable metric, or create the metric.",
	},
	{
		Code: ProblemMetricDeleted, Severity: SeverityError, Remedy: RemedySeller, Found: FoundByValidation,
		Meaning: "The billable metric of the record is DELETED.",
		Hint:    "Make the metric ACTIVE again, or use another.",
	},
	{
		Code: ProblemMetricProperties, Severity: SeverityError, Remedy: RemedySeller, Found: FoundByValidation,
		Meaning: "The properties of a billable record are not those that its metric names, or a group of filters of the metric excludes them.",
		Hint:    "Give each property that the metric's filters, groupBys and propertyUniqueOn name, and no other.",
	},
	{
		Code: ProblemQuantityNegative, Severity: SeverityError, Remedy: RemedySeller, Found: FoundByValidation,
		Meaning: "A quantity is negative.",
		Hint:    "A quantity is 0 or more: no marketplace takes usage back.",
		Errors:  []MarketplaceError{{"AZURE", []string{"InvalidQuantity"}}},
	},
	{
		Code: ProblemQuantityRange, Severity: SeverityError, Remedy: RemedySeller, Found: FoundByValidation,
		Meaning: "A quantity is greater than its marketplace takes: on AWS it must be under 10,000,000,000.",
		Hint:    "Check the quantity and the conversion, or split the usage over several hours.",
	},
	{
		Code: ProblemQuantityPrecision, Severity: SeverityError, Remedy: RemedySeller, Found: FoundByValidation,
		Meaning: "A quantity, as it is sent or as conversion makes it, has more than 19 digits. It is never rounded. Reporting a group that is sent so responds with 400.",
		Hint:    "Use fewer digits.",
	},
	{
		Code: ProblemNoPrice, Severity: SeverityError, Remedy: RemedySeller, Found: FoundByValidation,
		Meaning: "An amount of money is mapped to a dimension (mappingMode AMOUNT) for which the entitlement has no price over 0.",
		Hint:    "Set the rate of the dimension in the entitlement.",
	},
	{
		Code: ProblemExpired, Severity: SeverityError, Remedy: RemedyNone, Found: FoundByReporting,
		Meaning: "The window of the marketplace ended before the usage was billed: it came or was sent too late, or its hour could not be made into records. The message says why.",
		Hint:    "Report the usage again with a later timestamp, if it may be billed then.",
		Errors:  []MarketplaceError{{"AWS", []string{awsTimestamp}}, {"AZURE", []string{"Expired"}}},
	},
	{
		Code: ProblemNoHourLeft, Severity: SeverityError, Remedy: RemedyNone, Found: FoundByReporting,
		Meaning: "Every hour that the usage could be reported in has been reported, up to the end of its month or of the entitlement.",
		Hint:    "Report the usage again with a later timestamp, if the entitlement still runs.",
	},
	{
		Code: ProblemNotSubscribed, Severity: SeverityError, Remedy: RemedyBuyer, Found: FoundByReporting,
		Meaning: "At the marketplace, the buyer has no active subscription. The usage was attempted every hour until its window ended.",
		Hint:    "Check the subscription at the marketplace, and the identifiers of the entitlement.",
		Errors: []MarketplaceError{
			{"AWS", []string{awsUnsubscribed}},
			{"AZURE", []string{"ResourceNotActive"}},
			{"GCP", []string{"BILLING_DISABLED", "SERVICE_NOT_ACTIVATED", "PROJECT_DELETED", "NOT_FOUND"}},
		},
	},
	{
		Code: ProblemMarketplaceRefused, Severity: SeverityError, Remedy: RemedySeller, Found: FoundByReporting,
		Meaning: "The marketplace refused the usage. The message has its error.",
		Hint:    "Fix what the marketplace names, then retry the group.",
		Errors: []MarketplaceError{
			{"AWS", []string{awsDimension, awsLicense, awsProduct, awsCustomer, "InvalidTagException", "InvalidUsageAllocationsException"}},
			{"AZURE", []string{"ResourceNotFound", "ResourceNotAuthorized", "InvalidDimension", "InvalidQuantity", "BadArgument"}},
			{"GCP", []string{"INVALID_ARGUMENT", "PERMISSION_DENIED", "PROJECT_INVALID", "CONSUMER_INVALID"}},
		},
	},
	{
		Code: ProblemConflict, Severity: SeverityError, Remedy: RemedySeller, Found: FoundByReporting,
		Meaning: "The marketplace has another record for this dimension and hour, which stands: another program meters the same entitlement, or the marketplace holds another quantity.",
		Hint:    "Stop the other meter. Compare the marketplace's record with this usage, and resolve the dimension.",
		Errors:  []MarketplaceError{{"AWS", []string{"DuplicateRecord"}}, {"AZURE", []string{"Duplicate"}}},
	},
	{
		Code: ProblemOutcomeUnknown, Severity: SeverityError, Remedy: RemedySeller, Found: FoundByReporting,
		Meaning: "The usage was sent, and until its window ended no response said whether it is billed.",
		Hint:    "Look it up at the marketplace, and resolve the dimension.",
		Errors: []MarketplaceError{
			{"AWS", []string{"InternalServiceErrorException"}},
			{"AZURE", []string{"Error"}},
			{"GCP", []string{"DEADLINE_EXCEEDED", "INTERNAL", "UNAVAILABLE"}},
		},
	},
}
