package sandbox

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
)

// The faults. Unless Accepted is set, the request is not done with throttled, serverError and
// reset, and is done with the others.
const (
	Lost        = "lost"        // the request is done, and the connection is closed without a response
	Reset       = "reset"       // the connection is reset before the request is done
	Throttled   = "throttled"   // the marketplace's own response to too many requests
	ServerError = "serverError" // a 5xx
	Unprocessed = "unprocessed" // records are returned undone: UnprocessedRecords, status Error, reportErrors
	Partial     = "partial"     // records are done, but missing from the response
	Malformed   = "malformed"   // the response is cut in the middle of its JSON
	Cut         = "cut"         // the connection closes in the middle of the response
	ContentType = "contentType" // the response is an HTML page
	Slow        = "slow"        // the response is delayed
	CheckError  = "checkError"  // Google's check: Code in checkErrors
)

var faultNames = []string{Lost, Reset, Throttled, ServerError, Unprocessed, Partial, Malformed, Cut, ContentType, Slow, CheckError}

// A Fault is a rule that makes requests fail.
type Fault struct {
	ID int `json:"id,omitempty"` // set by the sandbox
	// Marketplace and Operation select requests; empty means any. Without Operation a rule matches
	// only the calls that meter: BatchMeterUsage, usageEvent, batchUsageEvent, report (check for
	// checkError).
	Marketplace Marketplace `json:"marketplace,omitempty"`
	Operation   string      `json:"operation,omitempty"`
	// Fault is the fault; or AnyOf is set, from which the seed chooses one for each request.
	Fault string   `json:"fault,omitempty"`
	AnyOf []string `json:"anyOf,omitempty"`
	// Skip is the number of requests that pass first. Count is the number that are hit. If absent,
	// it is 1 or, with Probability, all.
	Skip  int  `json:"skip,omitempty"`
	Count *int `json:"count,omitempty"`
	// Probability is the chance that a request is hit; 0 means that there is no chance in it. Seed
	// decides it (absent: the sandbox's seed).
	Probability float64 `json:"probability,omitempty"`
	Seed        *uint64 `json:"seed,omitempty"`
	// Accepted overrides whether the request is done, for the faults that leave the client
	// uncertain: lost, cut, malformed, contentType and serverError.
	Accepted *bool `json:"accepted,omitempty"`
	// Records are the positions that unprocessed and partial act on; absent: the seed chooses at
	// least one.
	Records []int `json:"records,omitempty"`
	// Status is the HTTP status of serverError (500). Code is the error: a number of
	// google.rpc.Code for Google's unprocessed (14), a name for checkError
	// (BILLING_STATUS_UNAVAILABLE), an exception for AWS's serverError.
	Status int    `json:"status,omitempty"`
	Code   string `json:"code,omitempty"`
	// DelayMS is the delay of slow, in milliseconds of the machine's clock.
	DelayMS int `json:"delayMs,omitempty"`

	Matched int `json:"matched,omitempty"` // requests that the rule has matched so far
	Hit     int `json:"hit,omitempty"`     // requests that the rule has hit so far
}

// maxDelayMS bounds the delay of slow.
const maxDelayMS = 600_000

// maxPosition is the last position of a record on AWS and Azure.
const maxPosition = 24

var (
	checkErrorForm   = regexp.MustCompile(`^[A-Z][A-Z_]*$`)
	awsExceptionForm = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9]*$`)
)

// check returns why the rule could never do what it says, or nil.
func (f *Fault) check() error {
	names := f.names()
	switch {
	case (f.Fault == "") == (len(f.AnyOf) == 0):
		return fmt.Errorf("a rule needs fault or anyOf, and not both; faults are %v", faultNames)
	case f.Marketplace != "" && f.Marketplace != AWS && f.Marketplace != Azure && f.Marketplace != Google:
		return fmt.Errorf("marketplace %q must be aws, azure or gcp", f.Marketplace)
	case f.Operation != "" && !slices.Contains(operations, f.Operation):
		return fmt.Errorf("operation %q must be one of %v", f.Operation, operations)
	case f.Operation != "" && f.Marketplace != "" && marketplaceOf(f.Operation) != f.Marketplace:
		return fmt.Errorf("%s is an operation of %s, not of %s", f.Operation, marketplaceOf(f.Operation), f.Marketplace)
	case f.Skip < 0 || f.Count != nil && *f.Count < 1:
		return fmt.Errorf("skip must be at least 0 and count at least 1")
	case !(f.Probability >= 0 && f.Probability <= 1):
		return fmt.Errorf("probability must be over 0 and at most 1")
	case f.ID != 0 || f.Matched != 0 || f.Hit != 0:
		return fmt.Errorf("id, matched and hit are the sandbox's")
	}
	for _, name := range names {
		if !slices.Contains(faultNames, name) {
			return fmt.Errorf("there is no fault %q; faults are %v", name, faultNames)
		}
		if f.Accepted != nil && slices.Contains([]string{Reset, Throttled, Unprocessed, Partial, Slow, CheckError}, name) {
			return fmt.Errorf("accepted has no meaning for %s", name)
		}
		if f.Operation != "" && !means(name, f.Operation) {
			return fmt.Errorf("%s has no meaning for %s", name, f.Operation)
		}
	}
	if slices.Contains(f.AnyOf, CheckError) || f.Fault == CheckError && f.Marketplace != "" && f.Marketplace != Google {
		return fmt.Errorf("%s happens to Google's check alone, in a rule of its own", CheckError)
	}
	return errors.Join(f.checkRecords(), f.checkStatus(), f.checkCode(), f.checkDelay())
}

// names returns the faults of the rule.
func (f *Fault) names() []string {
	if f.Fault != "" {
		return []string{f.Fault}
	}
	return f.AnyOf
}

// has reports whether the rule has one of the faults.
func (f *Fault) has(faults ...string) bool {
	return slices.ContainsFunc(f.names(), func(name string) bool { return slices.Contains(faults, name) })
}

// reaches reports whether the rule can match a request to the marketplace.
func (f *Fault) reaches(m Marketplace) bool {
	return (f.Marketplace == "" || f.Marketplace == m) && (f.Operation == "" || marketplaceOf(f.Operation) == m)
}

func (f *Fault) checkRecords() error {
	if f.Records == nil {
		return nil
	}
	if !f.has(Unprocessed, Partial) || f.Operation == opUsageEvent {
		return fmt.Errorf("records have a meaning for %s and %s of several records alone", Unprocessed, Partial)
	}
	if len(f.Records) == 0 {
		return fmt.Errorf("records must be at least one position")
	}
	for i, position := range f.Records {
		// Only Google accepts more records than 25.
		if position < 0 || position > maxPosition && (f.reaches(AWS) || f.reaches(Azure)) {
			return fmt.Errorf("records[%d] is %d: positions are 0 to %d", i, position, maxPosition)
		}
	}
	return nil
}

func (f *Fault) checkStatus() error {
	switch {
	case f.Status == 0:
		return nil
	case !f.has(ServerError):
		return fmt.Errorf("status has a meaning for %s alone", ServerError)
	case f.Status < 500 || f.Status > 599:
		return fmt.Errorf("status must be 500 to 599")
	}
	return nil
}

func (f *Fault) checkCode() error {
	if f.Code == "" {
		return nil
	}
	used := false
	if f.has(Unprocessed, Partial) && f.reaches(Google) {
		used = true
		if n, err := strconv.Atoi(f.Code); err != nil || n < 1 || n > 16 || strconv.Itoa(n) != f.Code {
			return fmt.Errorf("code %q must be a number of google.rpc.Code, 1 to 16", f.Code)
		}
	}
	if f.has(ServerError) && f.reaches(AWS) {
		used = true
		if !awsExceptionForm.MatchString(f.Code) {
			return fmt.Errorf("code %q must be the name of an AWS exception", f.Code)
		}
	}
	if f.has(CheckError) {
		used = true
		if !checkErrorForm.MatchString(f.Code) {
			return fmt.Errorf("code %q must be a name such as BILLING_STATUS_UNAVAILABLE", f.Code)
		}
	}
	if !used {
		return fmt.Errorf("code has no meaning here: it is of gcp's %s and %s, of aws's %s and of %s", Unprocessed, Partial, ServerError, CheckError)
	}
	return nil
}

func (f *Fault) checkDelay() error {
	switch {
	case !f.has(Slow) && f.DelayMS != 0:
		return fmt.Errorf("delayMs has a meaning for %s alone", Slow)
	case f.has(Slow) && (f.DelayMS < 1 || f.DelayMS > maxDelayMS):
		return fmt.Errorf("%s needs delayMs, 1 to %d", Slow, maxDelayMS)
	}
	return nil
}

// means reports whether the fault can have an effect on the operation.
func means(fault, operation string) bool {
	switch fault {
	case Unprocessed:
		return meters(operation)
	case Partial:
		return meters(operation) && operation != opUsageEvent // it has one record
	case CheckError:
		return operation == opCheck
	}
	return true
}

// left returns how many more requests the rule will hit; -1 means any number.
func (f *Fault) left() int {
	if f.Count != nil {
		return *f.Count - f.Hit
	}
	if f.Probability > 0 {
		return -1
	}
	return 1 - f.Hit
}

// meets reports whether the rule applies to the operation.
func (f *Fault) meets(m Marketplace, operation string) bool {
	if f.left() == 0 || f.Marketplace != "" && f.Marketplace != m {
		return false
	}
	if f.Operation != "" {
		return f.Operation == operation
	}
	if f.Fault == CheckError {
		return operation == opCheck
	}
	return meters(operation) && len(f.choices(operation)) > 0
}

// choices returns the faults of the rule that can have an effect on the operation.
func (f *Fault) choices(operation string) []string {
	var names []string
	for _, name := range f.names() {
		if means(name, operation) {
			names = append(names, name)
		}
	}
	return names
}

// A hit is a fault that applies to a request.
type hit struct {
	rule  int
	fault string
	Fault
	chance  *rand.Rand
	missing bool // partial has left a record out of the response
}

// done reports whether the request is done in spite of the fault.
func (h *hit) done() bool {
	if h == nil {
		return true
	}
	if h.Accepted != nil {
		return *h.Accepted
	}
	switch h.fault {
	case Reset, Throttled, ServerError:
		return false
	}
	return true
}

// is reports whether the fault is the named one.
func (h *hit) is(fault string) bool { return h != nil && h.fault == fault }

// acted reports whether the fault had an effect on the request, whose decisions are given. Faults
// of records have none if the request failed as a whole, or does not have these records.
func (h *hit) acted(decisions []Decision) bool {
	switch h.fault {
	case Unprocessed, Partial, CheckError:
		return h.missing || slices.ContainsFunc(decisions, func(d Decision) bool { return d.Reason == "fault "+h.fault })
	}
	return true
}

// chosen returns which of n records the fault acts on.
func (h *hit) chosen(n int) map[int]bool {
	chosen := map[int]bool{}
	defer func() { h.missing = h.fault == Partial && len(chosen) > 0 }()
	if n == 0 {
		return chosen
	}
	if h.Records == nil {
		for i := range n {
			if h.chance.IntN(2) == 0 {
				chosen[i] = true
			}
		}
		chosen[h.chance.IntN(n)] = true
		return chosen
	}
	for _, i := range h.Records {
		if i < n {
			chosen[i] = true
		}
	}
	return chosen
}

// draw applies the rules to a request. It returns the ids of the rules that matched, which are
// counted when the request is applied, and the fault that hits the request, or nil.
func (s *state) draw(seed uint64, m Marketplace, operation string) (matched []int, h *hit) {
	for _, f := range s.faults {
		if !f.meets(m, operation) {
			continue
		}
		matched = append(matched, f.ID)
		if f.Matched < f.Skip {
			continue
		}
		ruleSeed := seed
		if f.Seed != nil {
			ruleSeed = *f.Seed
		}
		chance := rand.New(rand.NewPCG(ruleSeed, uint64(f.ID)<<32|uint64(f.Matched)))
		if f.Probability > 0 && chance.Float64() >= f.Probability {
			continue
		}
		names := f.choices(operation)
		name := names[0]
		if len(f.AnyOf) > 0 {
			name = names[chance.IntN(len(names))]
		}
		return matched, &hit{rule: f.ID, fault: name, Fault: *f, chance: chance}
	}
	return matched, nil
}
