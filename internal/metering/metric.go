package metering

import "time"

// BillableMetric says how billable records (usage metering v2) become a quantity.
type BillableMetric struct {
	ID              MetricID
	OrganizationID  OrgID
	Name            string // unique among the ACTIVE metrics of the organization
	Description     string
	AggregationType AggregationType
	Status          MetricStatus
	Info            MetricInfo

	CreationTime   time.Time // UTC, whole milliseconds, as is the other
	LastUpdateTime time.Time

	Unknown map[string]any // members that a newer version has stored
}

// MetricID is a billable metric: 1 to MaxKey characters that can travel in a path.
type MetricID string

// ParseMetricID makes the identifier of a metric.
func ParseMetricID(text string) (MetricID, error) {
	return parsed[MetricID](text, checkCharacters(text, MaxKey, inPath))
}

// AggregationType says how the records of an hour become one quantity.
type AggregationType string

// The aggregation types (API reference: billable metric).
const (
	AggregateCount       AggregationType = "COUNT"        // the number of records
	AggregateUniqueCount AggregationType = "UNIQUE_COUNT" // of distinct values of PropertyUniqueOn
	AggregateSum         AggregationType = "SUM"
	AggregateMax         AggregationType = "MAX"
	AggregateLast        AggregationType = "LAST" // the last record of the array
)

// AggregationTypes are all aggregation types.
var AggregationTypes = []AggregationType{AggregateCount, AggregateUniqueCount, AggregateSum, AggregateMax, AggregateLast}

// MetricStatus is the status of a metric.
type MetricStatus string

// The statuses of a metric.
const (
	MetricActive  MetricStatus = "ACTIVE"
	MetricDeleted MetricStatus = "DELETED"
)

// MetricStatuses are all statuses of a metric.
var MetricStatuses = []MetricStatus{MetricActive, MetricDeleted}

// MetricInfo says which records a metric counts. A record's properties hold a value for each name
// in the filters, GroupBys and PropertyUniqueOn, and for no other.
type MetricInfo struct {
	FilterGroups     []FilterGroup // all must hold
	GroupBys         []string
	PropertyUniqueOn string

	Unknown map[string]any
}

// FilterGroup is a group of filters, of which at least one must hold.
type FilterGroup struct {
	Filters []MetricFilter
	Unknown map[string]any
}

// MetricFilter is a condition on a property.
type MetricFilter struct {
	Name      string
	Operation FilterOperation
	Value     any // a document
	ValueType FilterValueType

	Unknown map[string]any
}

// FilterOperation is how a filter compares.
type FilterOperation string

// FilterOperations are all operations (API reference: billable metric).
var FilterOperations = []FilterOperation{
	"IS", "NOT_IS", "CONTAINS", "NOT_CONTAINS", "GT", "GTE", "LT", "LTE", "EQ", "NOT_EQ", "EXISTS", "NOT_EXISTS",
}

// FilterValueType says how a filter's value and the property are compared.
type FilterValueType string

// FilterValueTypes are all value types.
var FilterValueTypes = []FilterValueType{"STRING", "FLOAT"}
