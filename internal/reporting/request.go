package reporting

import (
	"unicode/utf8"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
)

// Call is one request while it is made and its response is read.
type Call struct {
	Sent    []Record // what the request holds
	sent    []int    // the position of each in the records of the caller
	results []Result
	named   []bool // what the response has said something about
}

// Limits are what a marketplace takes in one request.
type Limits struct {
	Partner metering.Partner
	Records int // 0 is any number
	Bytes   int // of all records together; 0 is any number
	Size    func(*Record) int
	// Check returns why the marketplace could not hold the record, or an empty code.
	Check func(*Record) (metering.ProblemCode, string)
	// Identity is what no two records of a request may have in common.
	Identity func(*Record) string
}

// Begin selects the records to send. All others are refused: they were not sent.
func Begin(records []Record, limits *Limits) *Call {
	c := &Call{results: make([]Result, len(records))}
	seen := map[string]bool{}
	bytes := 0
	for i := range records {
		r := &records[i]
		notSent := func(reason string) {
			c.results[i] = Result{Verdict: reports.Refused, Problem: metering.ProblemMarketplaceRefused, Reason: "not sent: " + reason}
		}
		if code, reason := checkRecord(r, limits); code != "" {
			c.results[i] = Result{Verdict: reports.Refused, Next: Done, Problem: code, Reason: "not sent: " + reason}
			continue
		}
		identity := limits.Identity(r)
		size := 0
		if limits.Size != nil {
			size = limits.Size(r)
		}
		switch {
		case len(c.Sent) > 0 && LaneOf(limits.Partner, r) != LaneOf(limits.Partner, &c.Sent[0]):
			notSent("the request is of another lane")
			continue
		case seen[identity]:
			notSent("the request has another record of this dimension and hour")
			continue
		case limits.Records > 0 && len(c.Sent) == limits.Records || limits.Bytes > 0 && bytes+size > limits.Bytes:
			notSent("the request is full")
			continue
		}
		seen[identity] = true
		bytes += size
		c.Sent = append(c.Sent, *r)
		c.sent = append(c.sent, i)
	}
	c.named = make([]bool, len(c.Sent))
	return c
}

// Fit returns how many of the first records fit in one request.
func Fit(records []Record, limits *Limits) int {
	bytes := 0
	for i := range records {
		if limits.Size != nil {
			bytes += limits.Size(&records[i])
		}
		if limits.Records > 0 && i == limits.Records || limits.Bytes > 0 && bytes > limits.Bytes {
			return max(i, 1)
		}
	}
	return len(records)
}

func checkRecord(r *Record, limits *Limits) (metering.ProblemCode, string) {
	switch {
	case !r.IDs.Complete(limits.Partner):
		return metering.ProblemEntitlementWithoutIdentifiers, "the record has no complete identifiers"
	case r.Quantity.Sign() <= 0:
		// AWS would lock the hour with a zero, Azure and Google refuse it.
		return metering.ProblemQuantityRange, "the quantity is " + r.Quantity.String() + ": it must be more than 0"
	case r.Dimension == "" || utf8.RuneCountInString(r.Dimension) > metering.MaxKey || !utf8.ValidString(r.Dimension):
		return metering.ProblemMarketplaceRefused, "the dimension is no UTF-8 of 1 to 255 characters"
	case r.Start.IsZero() || !r.Start.Before(r.End):
		return metering.ProblemMarketplaceRefused, "the record has no time"
	}
	return limits.Check(r)
}

// Say records what the response says about the record for which same is true. If it names no single
// record, those that may be meant are in doubt.
func (c *Call) Say(same func(*Record) bool, result Result) {
	var found []int
	for i := range c.Sent {
		if same(&c.Sent[i]) {
			found = append(found, i)
		}
	}
	if len(found) > 1 {
		result = Result{Reason: "the response names no single record", Raw: result.Raw}
	}
	for _, i := range found {
		c.SayAt(i, result)
	}
}

// SayAt records what the response says about the record at the position in Sent. A response that
// names a record twice contradicts itself, or may: the record is in doubt.
func (c *Call) SayAt(i int, result Result) {
	if c.named[i] {
		result = Result{Reason: "the response names the record twice", Raw: result.Raw}
	}
	c.named[i] = true
	c.results[c.sent[i]] = result
}

// Named reports whether the response has said something about the record at the position in Sent.
func (c *Call) Named(i int) bool { return c.named[i] }

// Rest records a result of all records that the response has said nothing about.
func (c *Call) Rest(result Result) {
	for i := range c.Sent {
		if !c.named[i] {
			c.results[c.sent[i]] = result
			c.named[i] = true
		}
	}
}

// Whole records a result of the whole request, and the fault of the lane. A single record can't be
// bisected: it is the one at fault, unless the lane may be.
func (c *Call) Whole(rule Rule, reason string, response *Response) {
	if rule.Next == Bisect && len(c.Sent) == 1 {
		rule.Next = Done
		if rule.OrLane != NoLaneFault {
			rule.Next = Hourly
		}
	}
	c.Rest(rule.Result(reason))
	if rule.Lane != NoLaneFault {
		response.Lane, response.LaneReason = rule.Lane, reason
	}
}

// NotSent returns the response of a call of which nothing was sent.
func (c *Call) NotSent(fault LaneFault, reason string) Response {
	var response Response
	c.Whole(LaneAtFault(fault, metering.ProblemNoConnection), reason, &response)
	response.Results = c.results
	return response
}

// Results returns a result for each record of the caller.
func (c *Call) Results() []Result { return c.results }
