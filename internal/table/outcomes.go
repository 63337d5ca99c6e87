package table

import (
	"maps"
	"slices"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
)

// outcomesOf returns what became of each dimension of a group; nil if it was in no report, was
// converted again since, or if each was accepted.
func outcomesOf(item map[string]types.AttributeValue) (map[string]reports.Kind, error) {
	r := itemReader{item: item}
	if !r.has(attrOutcomes) || isText(item, attrOutcomes, inReport) {
		return nil, nil
	}
	in := itemReader{item: r.object(attrOutcomes)}
	outcomes := make(map[string]reports.Kind, len(in.item))
	for dimension := range in.item {
		outcomes[dimension] = reports.Kind(in.text(dimension))
	}
	r.join(attrOutcomes, in)
	return outcomes, r.storedError("a group")
}

// inReport is stored in place of outcomes for which a group has no room. The report has them.
const inReport = "IN_REPORT"

// outcomesValue is what a group stores of what became of each dimension; nil is nothing.
func outcomesValue(applied *reports.Applied) types.AttributeValue {
	if applied.Status == metering.StatusReported {
		return nil
	}
	if applied.InReport {
		return text(inReport)
	}
	m := make(map[string]types.AttributeValue, len(applied.Dimensions))
	for dimension, kind := range applied.Dimensions {
		m[dimension] = text(kind)
	}
	return &types.AttributeValueMemberM{Value: m}
}

// outcomesInReport is outcomesValue for a group without room. If all was rejected, nothing has to
// be stored: a retry converts the group again.
func outcomesInReport(applied *reports.Applied) types.AttributeValue {
	if applied.InReport {
		return outcomesValue(applied)
	}
	for _, kind := range applied.Dimensions {
		if kind != reports.Rejected {
			return text(inReport)
		}
	}
	return nil
}

// accepted returns the first dimension that was accepted, or "".
func accepted(outcomes map[string]reports.Kind) string {
	for _, dimension := range slices.Sorted(maps.Keys(outcomes)) {
		if outcomes[dimension] == reports.Accepted {
			return dimension
		}
	}
	return ""
}
