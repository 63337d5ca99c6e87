package metering

// GroupFilter says which groups of an organization a list holds. An empty member does not filter.
// At most one of Partner, ProductID, EntitlementID and BuyerID is set (API reference: list
// usageRecordGroups).
type GroupFilter struct {
	Partner       Partner
	ProductID     ProductID
	EntitlementID EntitlementID
	BuyerID       BuyerID
	Status        Status
	Source        Source
	MetaInfo      map[string]any // a document that the group's metaInfo must contain
	StartDate     Day            // on CreationTime, included; empty is from the beginning
	EndDate       Day            // on CreationTime, included; empty is to the end
}
