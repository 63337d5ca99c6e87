package metering

import (
	"slices"
	"strings"
	"time"

	"github.com/govalues/decimal"
)

// UsageRecord is a quantity in the form that a marketplace takes.
type UsageRecord struct {
	Dimension string
	Quantity  Quantity // rounded down to what the marketplace holds exactly; over 0

	// The hour, from the start of the entitlement and to the second before its cancellation.
	Start, End time.Time

	OperationID string // of Google
}

// usageRecords are what the marketplace would be sent if the group were the only one of its hour,
// by dimension. What rounding takes away is carried to the next report, and nothing is sent for a
// quantity of which nothing is left.
func (t *Terms) usageRecords(j *Judgement) (records []UsageRecord) {
	e, hour := t.Entitlement, HourOf(j.Timestamp)
	start, end := hour, hour.Add(time.Hour)
	if start.Before(e.StartTime) {
		start = e.StartTime
	}
	if last := e.CancelTime.Add(-time.Second); !e.CancelTime.IsZero() && last.Before(end) {
		end = last
	}
	if start.After(end) {
		start = end
	}
	dimensions := make([]string, 0, fewDimensions)
	for dimension := range j.Records {
		dimensions = append(dimensions, dimension)
	}
	slices.Sort(dimensions)
	records = make([]UsageRecord, 0, len(dimensions))
	for _, dimension := range dimensions {
		if q := j.Records[dimension].RoundDown(e.Partner); q.Sign() > 0 {
			r := UsageRecord{Dimension: dimension, Quantity: q, Start: start, End: end}
			if e.Partner == "GCP" {
				r.OperationID = OperationID(e.OrganizationID, e.ID, hour, dimension)
			}
			records = append(records, r)
		}
	}
	return records
}

// fewDimensions is as many as a group usually has, for which no memory is allocated.
const fewDimensions = 16

// The precision of a marketplace's quantities. Source: the marketplaces' API references.
const (
	awsDecimals = 6  // of QuantityAsDecimal
	azureDigits = 15 // of a double
)

// RoundDown rounds a quantity that is 0 or more down to what the partner's marketplace holds
// exactly: 6 decimals on AWS, 15 significant digits on Azure, whole numbers on Google.
func (q Quantity) RoundDown(partner Partner) Quantity {
	switch partner {
	case "AWS":
		return Quantity{q.d.Trunc(awsDecimals).Trim(0)}
	case "AZURE":
		return q.leading(azureDigits)
	case "GCP":
		return Quantity{q.d.Trunc(0)}
	default:
		return q
	}
}

// leading replaces all but the first n significant digits by zeros.
func (q Quantity) leading(n int) Quantity {
	excess := q.d.Prec() - n
	if excess <= 0 {
		return q
	}
	if excess <= q.d.Scale() {
		return Quantity{q.d.Trunc(q.d.Scale() - excess).Trim(0)}
	}
	whole := q.d.Trunc(0).String()
	d, err := decimal.Parse(whole[:n] + strings.Repeat("0", len(whole)-n))
	if err != nil {
		panic("metering: " + q.String() + " does not fit with fewer digits")
	}
	return Quantity{d}
}
