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
	RemedySeller Remedy = "fixed by the seller" // a change of the usage, the entitlement, a metric, the config or the connection
	RemedyBuyer  Remedy = "fixed by the buyer"  // a change of the subscription at the marketplace
)

// Finding says what finds a problem.
type Finding int

// What finds a problem; a sum of these.
const (
	FoundByValidation Finding = 1 << iota // of new usage, and by a retry
	FoundByReporting                      // to the marketplace
)

// LateHint is what to do about usage that its marketplace does not take any more. A group that
// failed for it is billed if it is retried under CARRY later: its usage must not be reported a
// second time while the group can be retried.
const LateHint = "either set lateUsage of the connection to CARRY and retry the group; or delete the group and report its usage again with a later timestamp. " +
	"Never both: it would be billed twice. To delete a group that is REPORT_FAILED, retry it without CARRY: it becomes INVALID, or CREATED while its window is open. " +
	"Delete it at once, and report its usage again only after the DELETE succeeded. " +
	"One that is billed in part can't be deleted: never retry it once its rest is reported again."

// ConflictHint is how to resolve a dimension that is CONFLICT, so that nothing is billed twice or
// lost.
const ConflictHint = "If what stands is part of this usage, resolve the dimension as billed, and report the units that are missing as a new group. " +
	"Only if what stands is other usage, resolve it as not-billed, and retry the group: all of it is billed then."

// HintOf returns the hint of the problems with the code, unless they have a better one.
func HintOf(code ProblemCode) string { return kindOf(code).Hint }

// both is of what validation and reporting find.
const both = FoundByValidation | FoundByReporting

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
		Code: ProblemNotStorable, Severity: SeverityError, Remedy: RemedySeller, Found: both,
		Meaning: "The group has a value that can't be stored, no usage, or more usage than one group may hold. Reporting it responds with 400 and stores nothing. " +
			"`marketmeter report enqueue` refuses an imported group that has no room for its report.",
		Hint: "Change the value as the message says.",
	},
	{
		Code: ProblemDuplicateInBatch, Severity: SeverityWarning, Remedy: RemedySeller, Found: FoundByValidation,
		Meaning: "An earlier group of the batch has the same content: entitlement, records, timestamp and metaInfo. Both would be billed.",
		Hint:    "Leave the group out if it is the same usage.",
	},
	{
		Code: ProblemEntitlementUnknown, Severity: SeverityError, Remedy: RemedySeller, Found: both,
		Meaning: "The organization has no entitlement with this id, or has deleted it. Reporting usage for it responds with 404 (400 in a batch). Usage that waits is REPORT_FAILED if there is still none when its window ends.",
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
		Code: ProblemEntitlementWithoutIdentifiers, Severity: SeverityError, Remedy: RemedySeller, Found: both,
		Meaning: "The entitlement lacks identifiers by which its marketplace knows it, in its member marketplace, or has them in a form that can't be sent. Usage that waits is REPORT_FAILED if they are still missing when its window ends.",
		Hint:    "Correct the identifiers of the entitlement with PUT, then retry the group.",
		Errors:  []MarketplaceError{{"AWS", []string{awsCustomer, awsLicense, awsProduct}}, {"AZURE", []string{"ResourceNotFound"}}},
	},
	{
		Code: ProblemNoConnection, Severity: SeverityError, Remedy: RemedySeller, Found: both,
		Meaning: "The organization has no connection to the marketplace. A new group is CREATED and waits for one; explained validation warns. It is REPORT_FAILED if there is none when the time to report it ends. So it is if, until then, the marketplace refused the connection's credentials or could not be reached.",
		Hint:    "Connect the marketplace with PUT /org/{orgId}/connection/{partner}, or correct the connection.",
		Errors: []MarketplaceError{
			{"AWS", []string{
				"AccessDeniedException", "DisabledApiException", "ExpiredTokenException", "IncompleteSignature", "IncompleteSignatureException",
				"InvalidClientTokenId", "InvalidSignatureException", "MissingAuthenticationToken", "MissingAuthenticationTokenException", "NotAuthorized",
				"OptInRequired", "RequestExpired", "UnknownOperationException", "UnrecognizedClientException",
			}},
			{"GCP", []string{"NOT_FOUND", "PERMISSION_DENIED", "UNAUTHENTICATED"}},
		},
	},
	{
		Code: ProblemInTheFuture, Severity: SeverityError, Remedy: RemedySeller, Found: FoundByValidation,
		Meaning: "The timestamp is more than 5 minutes ahead of the service's clock.",
		Hint:    "Report usage when it has happened, and check the clock that the timestamp comes from.",
		Errors:  []MarketplaceError{{"AWS", []string{awsTimestamp}}, {"AZURE", []string{"BadArgument"}}},
	},
	{
		Code: ProblemTooOld, Severity: SeverityError, Remedy: RemedySeller, Found: FoundByValidation,
		Meaning: "The last moment at which the marketplace takes usage of this hour is over: 24 hours after its start, on AWS also 06:00 UTC on the 1st of the next month, and on AWS and Google an hour after a cancellation.",
		Hint:    "Report usage within hours. If it may be billed with a later hour, " + LateHint,
		Errors:  []MarketplaceError{{"AWS", []string{awsTimestamp}}, {"AZURE", []string{"Expired"}}},
	},
	{
		Code: ProblemMonthClosed, Severity: SeverityError, Remedy: RemedySeller, Found: FoundByValidation,
		Meaning: "The marketplace has closed the month of the usage: AWS at 06:00 UTC, Google at 01:00 US Pacific, on the 1st of the next.",
		Hint:    "Report usage before the month is closed. If it may be billed with the next month, " + LateHint,
		Errors:  []MarketplaceError{{"AWS", []string{awsTimestamp}}},
	},
	{
		Code: ProblemLate, Severity: SeverityWarning, Remedy: RemedySeller, Found: FoundByValidation,
		Meaning: "Google asks for usage within one hour. It takes later usage of the month too, with no promise.",
		Hint:    "Report usage to Google within an hour.",
	},
	{
		Code: ProblemDimensionUnknown, Severity: SeverityError, Remedy: RemedySeller, Found: both,
		Meaning: "After conversion, the usage is of a dimension that the entitlement does not list, or, when it is sent, that the marketplace does not know.",
		Hint:    "Use a key or a name of the entitlement's dimensions, or map the key in the usage metering config. A group that is billed in part is not converted again: add the dimension to the product at the marketplace, or report its rest as a new group and never retry this one.",
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
		Code: ProblemQuantityRange, Severity: SeverityError, Remedy: RemedySeller, Found: both,
		Meaning: "A quantity is greater than its marketplace takes: on AWS it must be under 10,000,000,000. Or the marketplace refused the quantity that was sent.",
		Hint:    "Check the quantity and the conversion, or split the usage over several hours.",
		Errors:  []MarketplaceError{{"AZURE", []string{"InvalidQuantity"}}},
	},
	{
		Code: ProblemQuantityPrecision, Severity: SeverityError, Remedy: RemedySeller, Found: both,
		Meaning: "A quantity of a group, as it is sent or as conversion makes it, has more than 19 digits. It is not rounded. Reporting a group that is sent so responds with 400. What is sealed is rounded down to the digits that its marketplace holds, and the rest is carried: if reporting finds the problem all the same, that is a defect of the service.",
		Hint:    "Use fewer digits. If reporting has found it, report the defect.",
	},
	{
		Code: ProblemNoPrice, Severity: SeverityError, Remedy: RemedySeller, Found: both,
		Meaning: "An amount of money is mapped to a dimension (mappingMode AMOUNT) for which the entitlement has no price over 0. Or the commit of the entitlement is to be drawn down by a dimension that has no rate over 0, or no listPrice over 0 if what exceeds the commit is metered at list price.",
		Hint:    "Set the rate of the dimension, and the listPrice if it is needed, in info.dimensions of the entitlement, and retry the group.",
	},
	{
		Code: ProblemExpired, Severity: SeverityError, Remedy: RemedySeller, Found: both,
		Meaning: "The window of the marketplace ended before the usage was billed: it waited or was sent too late, or its hour could not be made into records. The message says why. New usage that comes after its window is INVALID with TOO_OLD or MONTH_CLOSED instead.",
		Hint:    "If the usage may still be billed, " + LateHint,
		Errors:  []MarketplaceError{{"AWS", []string{awsTimestamp}}, {"AZURE", []string{"Expired"}}},
	},
	{
		Code: ProblemNoHourLeft, Severity: SeverityError, Remedy: RemedySeller, Found: both,
		Meaning: "Every hour that the usage could be reported in has been reported, up to the end of its month or of the entitlement. Or the entitlement, as it is now, starts after the hour or ended before it.",
		Hint:    "If the startTime, endTime or cancelTime of the entitlement is wrong, correct it, and retry the group before the end of its window. If the entitlement still runs, " + LateHint,
	},
	{
		Code: ProblemNotSubscribed, Severity: SeverityError, Remedy: RemedyBuyer, Found: FoundByReporting,
		Meaning: "At the marketplace, the buyer has no active subscription. The usage was attempted every hour until its window ended.",
		Hint:    "Check the subscription at the marketplace, and the identifiers of the entitlement. The window is over: " + LateHint,
		Errors: []MarketplaceError{
			{"AWS", []string{awsUnsubscribed}},
			{"AZURE", []string{"ResourceNotActive"}},
			{"GCP", []string{"BILLING_DISABLED", "SERVICE_NOT_ACTIVATED", "PROJECT_DELETED", "NOT_FOUND"}},
		},
	},
	{
		Code: ProblemMarketplaceRefused, Severity: SeverityError, Remedy: RemedySeller, Found: FoundByReporting,
		Meaning: "The marketplace refused the usage. The message has its error.",
		Hint:    "Fix what the marketplace names, then retry the group before the end of its window. After that, " + LateHint,
		Errors: []MarketplaceError{
			{"AWS", []string{
				awsLicense, awsProduct, awsCustomer, "InvalidTagException", "InvalidUsageAllocationsException", "RequestEntityTooLargeException",
				"SerializationException", "ThrottlingException", "ValidationException",
			}},
			{"AZURE", []string{"ResourceNotFound", "ResourceNotAuthorized", "BadArgument"}},
			{"GCP", []string{
				"INVALID_ARGUMENT", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "PROJECT_INVALID", "CONSUMER_INVALID", "ABUSER_DETECTED",
				"API_KEY_EXPIRED", "API_KEY_INVALID", "API_KEY_NOT_FOUND", "API_TARGET_BLOCKED", "CLIENT_APP_BLOCKED", "INVALID_CREDENTIAL",
				"IP_ADDRESS_BLOCKED", "LOCATION_POLICY_VIOLATED", "REFERER_BLOCKED", "SECURITY_POLICY_VIOLATED",
			}},
		},
	},
	{
		Code: ProblemConflict, Severity: SeverityError, Remedy: RemedySeller, Found: FoundByReporting,
		Meaning: "The marketplace has another record for this dimension and hour, which stands: another program meters the same entitlement, or the marketplace holds another quantity.",
		Hint:    "Stop the other meter, and compare the marketplace's record with this usage. " + ConflictHint,
		Errors:  []MarketplaceError{{"AWS", []string{"DuplicateRecord"}}, {"AZURE", []string{"Duplicate"}}},
	},
	{
		Code: ProblemOutcomeUnknown, Severity: SeverityError, Remedy: RemedySeller, Found: FoundByReporting,
		Meaning: "The usage was sent, and until its window ended no response said whether it is billed; at Google, until 3 hours after the first attempt that is in doubt. After a restore from a backup it may not have been sent.",
		Hint:    "Look it up at the marketplace, and resolve the dimension.",
		Errors: []MarketplaceError{
			{"AWS", []string{"InternalServiceErrorException"}},
			{"AZURE", []string{"Error"}},
			{"GCP", []string{"DEADLINE_EXCEEDED", "INTERNAL", "UNAVAILABLE"}},
		},
	},
}
