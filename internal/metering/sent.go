package metering

import (
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"
)

// UsageRecord is a quantity in the form that a marketplace takes.
type UsageRecord struct {
	Dimension string
	Quantity  Quantity // what the marketplace holds exactly; over 0

	Start, End time.Time // by SentTime

	OperationID string // of Google
}

// GoogleOperationName is the name of each operation that is sent to Google. It may be any text.
const GoogleOperationName = "Hourly usage report"

// usageRecords are what the marketplace would be sent if the group were the only one of its hour,
// by dimension. What rounding takes away is carried to the next report. Nothing is sent for a
// quantity of which nothing is left, or for an hour of which nothing is left.
func (t *Terms) usageRecords(j *Judgement) (records []UsageRecord) {
	e := t.Entitlement
	hour := HourOf(Later(j.Timestamp, e.StartTime))
	start, end, ok := SentTime(hour, e.StartTime, e.EndTime, e.CancelTime)
	if !ok {
		return []UsageRecord{}
	}
	dimensions := make([]string, 0, fewDimensions)
	for dimension := range j.Records {
		dimensions = append(dimensions, dimension)
	}
	slices.Sort(dimensions)
	records = make([]UsageRecord, 0, len(dimensions))
	for _, dimension := range dimensions {
		if q, err := j.Records[dimension].Held(e.Partner); err == nil && q.Sign() > 0 {
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

// SentTime returns the time that is sent for an hour: its start and end, clamped to the
// entitlement's start, end and cancellation, of which each may be zero. It returns false if nothing
// of the hour is left, as after a cancellation that was dated back. What is sent never leaves the
// hour: the marketplace would take it for another one.
func SentTime(hour, entitled, ended, cancelled time.Time) (start, end time.Time, ok bool) {
	start, end = hour, hour.Add(time.Hour)
	if !cancelled.IsZero() {
		start = Earlier(start, cancelled.Add(-time.Second))
		end = Earlier(end, cancelled)
	}
	if !ended.IsZero() {
		end = Earlier(end, ended)
	}
	start = Later(Later(start, hour), entitled)
	return start, end, start.Before(end)
}

// sentLayout has milliseconds only if the time has some.
const sentLayout = "2006-01-02T15:04:05.999Z"

// FormatSentTime returns t as Azure and Google are sent it: RFC 3339 in UTC, truncated to
// milliseconds.
func FormatSentTime(t time.Time) string { return t.UTC().Format(sentLayout) }

// AppendSentTime appends a time as FormatSentTime does.
func AppendSentTime(b []byte, t time.Time) []byte { return t.UTC().AppendFormat(b, sentLayout) }

// Earlier returns the earlier of two times.
func Earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// Later returns the later of two times.
func Later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Held returns x, which is 0 or more, rounded down to what the partner's marketplace holds exactly,
// within the limit of a quantity. Sources: AWS's QuantityAsDecimal has 6 digits after the point;
// Google's values are INT64; Azure's are doubles, which hold 15 significant digits. A Quantity has
// 19 digits.
func (x Exact) Held(partner Partner) (Quantity, error) {
	most, known := mostHeld[partner]
	if !known {
		return Quantity{}, fmt.Errorf("nothing is known of what %s takes", partner)
	}
	digits := 0
	switch partner {
	case "AWS":
		digits = awsDigits
	case "AZURE":
		digits = azureDigits(x)
	}
	if x = x.Floor(digits); x.Cmp(most) > 0 {
		x = most
	}
	held, ok := x.Quantity()
	if !ok {
		return held, fmt.Errorf("%s has more digits than a quantity", x) // a defect
	}
	return held, nil
}

// Held is Exact.Held of q. Most quantities are held as they are, which takes no exact numbers to
// find out.
func (q Quantity) Held(partner Partner) (Quantity, error) {
	limit, limited := quantityLimits[partner]
	asIs := partner == "AWS" && q.d.Scale() <= awsDigits || partner == "AZURE" && q.d.Prec() <= azureSignificant || partner == "GCP" && q.d.Scale() == 0
	if asIs && (!limited || q.d.Cmp(limit.d) < 0) {
		return Quantity{q.d.Trim(0)}, nil
	}
	return ExactOf(q).Held(partner)
}

const (
	awsDigits        = 6  // after the point
	azureSignificant = 15 // digits
)

// mostHeld is the largest quantity that the marketplaces hold. That of Azure has 15 significant
// digits of a Quantity's 19.
var mostHeld = map[Partner]Exact{
	"AWS":   mostBelow(quantityLimits["AWS"], awsDigits),
	"AZURE": MustExact("9999999999999990000"),
	"GCP":   mostBelow(quantityLimits["GCP"], 0),
}

// mostBelow returns the largest number below a quantity that has that many digits after the point.
func mostBelow(limit Quantity, digits int) Exact {
	return ExactOf(limit).Sub(Exact{new(big.Rat).SetFrac(big.NewInt(1), powerOf10(digits))})
}

// azureDigits is how many digits after the point leave 15 significant ones. It is negative for a
// number of more digits before the point.
func azureDigits(x Exact) int {
	const max = 19 // of a Quantity
	whole, fraction, _ := strings.Cut(x.Floor(max).String(), ".")
	if whole != "0" {
		return azureSignificant - len(whole)
	}
	zeros := len(fraction) - len(strings.TrimLeft(fraction, "0"))
	return min(zeros+azureSignificant, max)
}
