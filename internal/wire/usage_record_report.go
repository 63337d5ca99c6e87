package wire

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
)

// MaxReportGroups is how many ids of groups a report has. usageRecordGroupCount counts all.
const MaxReportGroups = 1_000

// reportDigits is how many digits after the point a number of a report has that no decimal equals,
// such as a carry at list price. The rest is cut off. All other numbers are exact.
const reportDigits = 19

// AppendUsageRecordReport appends the report of a sealed hour as the API returns it. ids are its
// first groups, calls its calls to the marketplace, oldest first.
//
// The report has at most size bytes. If it would have more, the oldest calls are left out, then
// dimensions, the accepted ones first, then what billable metrics came to; info.message says so.
func AppendUsageRecordReport(b []byte, h *reports.Hour, ids []metering.GroupID, calls []reports.StoredCall, size int) []byte {
	r := usageRecordReport{
		hour: h, ids: ids[:min(len(ids), MaxReportGroups)],
		calls: calls, allCalls: len(calls), records: h.Sealed.Records, aggregates: h.Sealed.Aggregates,
	}
	length := func(r usageRecordReport) int { return len(r.append(nil)) }
	if length(r) <= size {
		return r.append(b)
	}
	// The number of those that fit, if fewer than all are shown.
	most := func(all int, with func(n int) usageRecordReport) usageRecordReport {
		return with(sort.Search(max(all-1, 0), func(n int) bool { return length(with(n+1)) > size }))
	}
	r = most(len(calls), func(n int) usageRecordReport {
		r.calls = calls[len(calls)-n:]
		return r
	})
	if length(r) > size {
		ordered := slices.Clone(h.Sealed.Records)
		slices.SortStableFunc(ordered, func(a, b reports.Record) int { return accepted(&a) - accepted(&b) })
		r = most(len(ordered), func(n int) usageRecordReport {
			r.records = slices.Clone(ordered[:n])
			slices.SortFunc(r.records, func(a, b reports.Record) int { return strings.Compare(a.Dimension, b.Dimension) })
			return r
		})
	}
	if length(r) > size {
		r.aggregates = nil
	}
	return r.append(b)
}

func accepted(r *reports.Record) int {
	if r.Outcome.Kind == reports.Accepted {
		return 1
	}
	return 0
}

// usageRecordReport is what a report shows of its hour.
type usageRecordReport struct {
	hour       *reports.Hour
	ids        []metering.GroupID
	calls      []reports.StoredCall // the newest of allCalls
	allCalls   int
	records    []reports.Record
	aggregates metering.Aggregates
}

// append appends the report. The members of each object are in the order of their names.
func (r *usageRecordReport) append(b []byte) []byte {
	h, s := r.hour, r.hour.Sealed
	b = AppendText(append(b, `{"buyerID":`...), string(s.Buyer))
	b = appendTime(append(b, `,"creationTime":`...), h.Opened)
	b = AppendText(append(b, `,"entitlementID":`...), string(h.Entitlement))
	b = append(b, `,"entitlementTermID":""`...)
	b = AppendText(append(b, `,"id":`...), h.ID())
	b = r.appendInfo(append(b, `,"info":`...))
	b = AppendText(append(b, `,"organizationID":`...), string(h.Organization))
	b = AppendText(append(b, `,"partner":`...), string(s.Partner))
	b = AppendText(append(b, `,"productID":`...), string(s.Product))
	return append(b, '}')
}

func (r *usageRecordReport) appendInfo(b []byte) []byte {
	s := r.hour.Sealed
	b = r.appendAggregates(append(b, `{"aggregatedBillableRecords":`...))
	last := lastCall{s.Partner, r.calls}
	if s.Partner == "AWS" {
		b = last.append(b, "awsMetering")
	}
	if s.Partner == "AZURE" {
		b = last.append(b, "azureMetering")
	}
	b = r.appendCalls(append(b, `,"calls":`...))
	b = appendDecimal(append(b, `,"commitAmount":`...), s.CommitAmount)
	b = r.appendMap(b, "decimalParts", func(r *reports.Record) metering.Exact { return r.CarryIn })
	b = r.appendMap(b, "dimensionUnitListPrice", func(r *reports.Record) metering.Exact { return metering.ExactOf(r.ListPrice) })
	b = r.appendMap(b, "dimensionUnitPrice", func(r *reports.Record) metering.Exact { return metering.ExactOf(r.UnitPrice) })
	b = appendTime(append(b, `,"endTime":`...), s.To)
	if s.Partner == "GCP" {
		b = last.append(b, "gcpMetering")
	}
	b = r.appendMap(b, "includedRecords", func(r *reports.Record) metering.Exact { return unlessRejected(r, r.Drawn) })
	b = AppendText(append(b, `,"message":`...), r.message())
	b = r.appendMap(b, "newDecimalParts", func(r *reports.Record) metering.Exact {
		if r.Outcome.Kind == reports.Rejected {
			return r.CarryIn // it went back
		}
		return r.CarryOut
	})
	b = r.appendOutcomes(append(b, `,"outcomes":`...))
	b = AppendText(append(b, `,"partner":`...), string(s.Partner))
	b = r.appendMap(b, "recordsToReportBeforeAdjustmentAtListPrice", func(r *reports.Record) metering.Exact {
		if r.Scale.Sign() == 0 || r.Scale.String() == "1" {
			return metering.Exact{} // it was not adjusted
		}
		return r.Excess()
	})
	b = r.appendMap(b, "reportedRecords", func(r *reports.Record) metering.Exact { return metering.ExactOf(r.Quantity) })
	b = appendTime(append(b, `,"startTime":`...), s.From)
	b = AppendText(append(b, `,"status":`...), reportStatus(r.hour))
	b = strconv.AppendInt(append(b, `,"usageRecordGroupCount":`...), int64(s.Groups), 10)
	b = append(b, `,"usageRecordGroupIds":[`...)
	for i, id := range r.ids {
		if i > 0 {
			b = append(b, ',')
		}
		b = AppendText(b, string(id))
	}
	b = appendDecimal(append(b, `],"usedCommitAmount":`...), s.UsedCommit)
	var drawn metering.Exact
	for i := range s.Records {
		drawn = drawn.Add(unlessRejected(&s.Records[i], s.Records[i].DrawnAmount))
	}
	b = appendDecimal(append(b, `,"usedCommitAmountIncrement":`...), drawn)
	return append(b, '}')
}

// unlessRejected returns what a record takes of the commit: a record that was refused has returned
// it.
func unlessRejected(r *reports.Record, drawn metering.Exact) metering.Exact {
	if r.Outcome.Kind == reports.Rejected {
		return metering.Exact{}
	}
	return drawn
}

func appendDecimal(b []byte, x metering.Exact) []byte { return append(b, x.Decimal(reportDigits)...) }

// appendMap appends a member that is a map from dimension to number. A dimension whose number is 0
// is not in it.
func (r *usageRecordReport) appendMap(b []byte, name string, number func(*reports.Record) metering.Exact) []byte {
	b = append(appendName(b, name), '{')
	for i := range r.records {
		if x := number(&r.records[i]); x.Sign() != 0 {
			b = appendDecimal(appendName(b, r.records[i].Dimension), x)
		}
	}
	return append(b, '}')
}

// appendAggregates appends what the billable metrics came to over the hour.
func (r *usageRecordReport) appendAggregates(b []byte) []byte {
	b = append(b, '[')
	for i, key := range slices.Sorted(maps.Keys(r.aggregates)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = AppendText(append(b, `{"key":`...), key)
		b = append(appendDecimal(append(b, `,"quantity":`...), r.aggregates[key]), '}')
	}
	return append(b, ']')
}

func (r *usageRecordReport) appendOutcomes(b []byte) []byte {
	b = append(b, '[')
	for i := range r.records {
		record, o := &r.records[i], &r.records[i].Outcome
		if i > 0 {
			b = append(b, ',')
		}
		code, reason := o.Code, o.Reason
		if o.Kind == reports.Undecided {
			code, reason = record.Pending()
		}
		b = strconv.AppendInt(append(b, `{"attempts":`...), int64(record.Attempted()), 10)
		b = appendUnlessEmpty(b, "code", string(code))
		if o.Difference != nil {
			b = appendDecimal(append(b, `,"difference":`...), *o.Difference)
		}
		b = AppendText(append(b, `,"dimension":`...), record.Dimension)
		b = appendUnlessEmpty(b, "evidence", string(o.Evidence))
		b = appendTime(append(b, `,"hour":`...), r.hour.Start)
		b = appendUnlessEmpty(b, "outcome", string(o.Kind))
		b = record.Quantity.Append(append(b, `,"quantity":`...))
		b = appendUnlessEmpty(b, "reason", reason)
		b = appendUnlessEmpty(b, "receipt", o.Receipt)
		if o.By != "" {
			b = AppendText(append(b, `,"resolvedBy":`...), o.By)
			b = appendTime(append(b, `,"resolvedTime":`...), o.At)
		}
		b = append(b, '}')
	}
	return append(b, ']')
}

func appendUnlessEmpty(b []byte, name, text string) []byte {
	if text == "" {
		return b
	}
	return AppendText(appendName(b, name), text)
}

// reportStatus is the status of an hour's report.
func reportStatus(h *reports.Hour) string {
	switch {
	case h.State != reports.StateSettled:
		return "CREATED"
	case h.Succeeded():
		return "SUCCESS"
	default:
		return "FAILED"
	}
}

// message says which dimensions have failed or are sent again, and what the report does not show.
func (r *usageRecordReport) message() string {
	var parts []string
	all := r.hour.Sealed.Records
	var failed, again []*reports.Record
	for i := range all {
		switch all[i].Outcome.Kind {
		case reports.Accepted:
		case reports.Undecided:
			if all[i].Attempted() > 0 {
				again = append(again, &all[i])
			}
		default:
			failed = append(failed, &all[i])
		}
	}
	if len(failed) > 0 {
		first := failed[0]
		parts = append(parts, fmt.Sprintf("%d of %d dimensions are not ACCEPTED: %s is %s, outcomes has the reason",
			len(failed), len(all), metering.Quote(first.Dimension), first.Outcome.Kind))
	}
	if len(again) > 0 {
		parts = append(parts, fmt.Sprintf("%d of %d dimensions were sent and have no outcome yet: of %s, outcomes has the reason",
			len(again), len(all), metering.Quote(again[0].Dimension)))
	}
	for _, left := range []struct {
		what     string
		out, all int
	}{
		{"calls to the marketplace", r.allCalls - len(r.calls), r.allCalls},
		{"dimensions", len(all) - len(r.records), len(all)},
		{"aggregated billable records", len(r.hour.Sealed.Aggregates) - len(r.aggregates), len(r.hour.Sealed.Aggregates)},
	} {
		if left.out > 0 {
			parts = append(parts, fmt.Sprintf("%d of %d %s are left out, as the report would be too large", left.out, left.all, left.what))
		}
	}
	return strings.Join(parts, "; ")
}

// appendCalls appends all calls, oldest first. What was sent and received is as it was on the wire,
// as far as it is about this hour.
func (r *usageRecordReport) appendCalls(b []byte) []byte {
	b = append(b, '[')
	for i := range r.calls {
		c := &r.calls[i]
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '{')
		b = appendUnlessEmpty(b, "correlationID", c.CorrelationID)
		if len(c.Request) > 0 {
			b = appendRaw(appendName(b, "request"), c.Request)
		}
		b = appendUnlessEmpty(b, "requestID", c.RequestID)
		b = append(appendName(b, "responses"), '[')
		for j, response := range c.Responses {
			if j > 0 {
				b = append(b, ',')
			}
			b = appendRaw(b, response)
		}
		b = append(b, ']')
		if c.Status != 0 {
			b = strconv.AppendInt(append(b, `,"status":`...), int64(c.Status), 10)
		}
		b = append(appendTime(append(b, `,"time":`...), c.Time), '}')
	}
	return append(b, ']')
}

// appendRaw appends JSON as it is. What is none becomes a string.
func appendRaw(b, raw []byte) []byte {
	if jsontext.Value(raw).IsValid() {
		return append(b, raw...)
	}
	return AppendText(b, string(raw))
}

// lastCall is the last call of a report, for the members that the public API has for its request
// and response. They have the form of the marketplace's own.
type lastCall struct {
	partner metering.Partner
	calls   []reports.StoredCall
}

// append appends the members whose names begin with prefix, if there are a request and a response.
func (l lastCall) append(b []byte, prefix string) []byte {
	if len(l.calls) == 0 {
		return b
	}
	c := &l.calls[len(l.calls)-1]
	if isObject(c.Request) {
		b = append(appendName(b, prefix+"Request"), c.Request...)
	}
	if c.Status == 0 {
		return b
	}
	var parts, unprocessed [][]byte
	for _, part := range c.Responses {
		switch {
		case !isObject(part):
		case l.partner == "AWS" && !hasMember(part, "Status"):
			unprocessed = append(unprocessed, part)
		default:
			parts = append(parts, part)
		}
	}
	b = append(appendName(b, prefix+"Response"), '{')
	switch l.partner {
	case "AWS":
		b = appendParts(appendName(b, "Results"), parts)
		b = appendParts(appendName(b, "UnprocessedRecords"), unprocessed)
	case "AZURE":
		b = strconv.AppendInt(appendName(b, "count"), int64(len(parts)), 10)
		b = appendParts(appendName(b, "result"), parts)
	case "GCP":
		b = appendParts(appendName(b, "reportErrors"), parts)
	}
	return append(b, '}')
}

func appendParts(b []byte, parts [][]byte) []byte {
	return append(append(append(b, '['), bytes.Join(parts, []byte{','})...), ']')
}

func isObject(raw []byte) bool {
	value := jsontext.Value(raw)
	return value.Kind() == '{' && value.IsValid()
}

// hasMember reports whether a JSON object has a member.
func hasMember(object []byte, name string) bool {
	d := jsontext.NewDecoder(bytes.NewReader(object))
	if _, err := d.ReadToken(); err != nil {
		return false
	}
	for d.PeekKind() == '"' {
		token, err := d.ReadToken()
		if err != nil {
			return false
		}
		if token.String() == name {
			return true
		}
		if d.SkipValue() != nil {
			return false
		}
	}
	return false
}
