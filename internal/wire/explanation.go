package wire

import (
	"slices"
	"strconv"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// AppendExplanation appends the response of explained validation. The members of each object are in
// the order of their names.
func AppendExplanation(b []byte, groups []metering.ExplainedGroup) []byte {
	valid := true
	b = append(b, `{"groups":[`...)
	for i := range groups {
		g := &groups[i]
		valid = valid && g.Valid
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(append(b, `{"index":`...), int64(i), 10)
		b = appendPreview(append(b, `,"preview":`...), g.Preview)
		b = append(b, `,"problems":[`...)
		for j := range g.Problems {
			if j > 0 {
				b = append(b, ',')
			}
			b = appendProblem(b, &g.Problems[j])
		}
		b = append(strconv.AppendBool(append(b, `],"valid":`...), g.Valid), '}')
		if i == 0 { // the others are about as long
			b = slices.Grow(b, min(len(b)*9/8*(len(groups)-1), metering.MaxListSize))
		}
	}
	return append(strconv.AppendBool(append(b, `],"valid":`...), valid), '}')
}

// appendProblem appends a problem with its severity, which a stored problem does not have.
func appendProblem(b []byte, p *metering.Problem) []byte {
	b = AppendText(append(b, `{"code":`...), string(p.Code))
	b = AppendText(append(b, `,"hint":`...), p.Hint)
	b = AppendText(append(b, `,"message":`...), p.Message)
	b = AppendText(append(b, `,"path":`...), p.Path)
	b = AppendText(append(b, `,"severity":`...), string(p.Severity))
	return append(b, '}')
}

func appendPreview(b []byte, p *metering.Preview) []byte {
	if p == nil {
		return append(b, "null"...)
	}
	b = AppendQuantities(append(b, `{"originRecords":`...), p.OriginRecords)
	b = AppendText(append(b, `,"partner":`...), string(p.Entitlement.Partner))
	b = AppendQuantities(append(b, `,"records":`...), p.Records)
	if !p.ReportBy.IsZero() {
		b = appendTime(append(b, `,"reportBy":`...), p.ReportBy)
	}
	b = append(b, `,"requests":[`...)
	for i := range p.Requests {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendUsageRecord(b, p.Entitlement, &p.Requests[i])
	}
	return append(b, "]}"...)
}

// appendUsageRecord appends a record as the entitlement's marketplace takes it: a UsageRecord of
// AWS's BatchMeterUsage, an event of Azure's batchUsageEvent, or an operation of Google's
// services.report. Its members are those that are sent: TestExplain_ShowsWhatIsSent compares them.
func appendUsageRecord(b []byte, e *metering.Entitlement, r *metering.UsageRecord) []byte {
	ids := &e.Marketplace
	switch e.Partner {
	case "AWS":
		b = append(b, '{')
		b = appendMember(b, "CustomerAWSAccountId", ids.CustomerAWSAccountID)
		b = appendMember(b, "CustomerIdentifier", ids.CustomerIdentifier)
		b = appendMember(b, "Dimension", r.Dimension)
		b = appendMember(b, "LicenseArn", ids.LicenseARN)
		b = append(r.Quantity.Append(append(appendName(b, "QuantityAsDecimal"), '"')), '"')
		b = appendSeconds(appendName(b, "Timestamp"), r.Start)
	case "AZURE":
		b = append(b, '{')
		b = appendMember(b, "dimension", r.Dimension)
		b = appendSentTime(appendName(b, "effectiveStartTime"), r.Start)
		b = appendMember(b, "planId", ids.PlanID)
		b = r.Quantity.Append(appendName(b, "quantity"))
		b = appendMember(b, "resourceId", ids.ResourceID)
		b = appendMember(b, "resourceUri", ids.ResourceURI)
	case "GCP":
		b = append(b, '{')
		b = appendMember(b, "consumerId", ids.UsageReportingID)
		b = appendSentTime(appendName(b, "endTime"), r.End)
		b = AppendText(append(appendName(b, "metricValueSets"), `[{"metricName":`...), ids.ServiceName+"/"+r.Dimension)
		b = append(b, `,"metricValues":[{"int64Value":"`...)
		b = append(r.Quantity.Append(b), `"}]}]`...)
		b = appendMember(b, "operationId", r.OperationID)
		b = appendMember(b, "operationName", metering.GoogleOperationName)
		b = appendSentTime(appendName(b, "startTime"), r.Start)
	default: // no record is made for another marketplace
		panic("wire: usage can't be sent to " + string(e.Partner))
	}
	return append(b, '}')
}

// appendMember appends a member with a text, unless the text is empty.
func appendMember(b []byte, name, text string) []byte {
	if text == "" {
		return b
	}
	return AppendText(appendName(b, name), text)
}

func appendSentTime(b []byte, t time.Time) []byte {
	return append(metering.AppendSentTime(append(b, '"'), t), '"')
}

// appendSeconds appends a time as the seconds since 1970, with milliseconds only if it has some.
func appendSeconds(b []byte, t time.Time) []byte {
	return strconv.AppendFloat(b, float64(t.UnixMilli())/1000, 'f', -1, 64)
}
