package sandbox

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
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
	// Probability is the chance that a request is hit. Seed decides it (absent: the sandbox's
	// seed).
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

// maxDelay bounds the delay of slow.
const maxDelay = 10 * time.Minute

func (f *Fault) check() error {
	names := f.AnyOf
	if f.Fault != "" {
		names = append(slices.Clone(names), f.Fault)
	}
	switch {
	case (f.Fault == "") == (len(f.AnyOf) == 0):
		return fmt.Errorf("a rule needs fault or anyOf, and not both; faults are %v", faultNames)
	case f.Marketplace != "" && f.Marketplace != AWS && f.Marketplace != Azure && f.Marketplace != Google:
		return fmt.Errorf("marketplace %q must be aws, azure or gcp", f.Marketplace)
	case f.Operation != "" && !slices.Contains(operations, f.Operation):
		return fmt.Errorf("operation %q must be one of %v", f.Operation, operations)
	case f.Skip < 0 || f.Count != nil && *f.Count < 1:
		return fmt.Errorf("skip must be at least 0 and count at least 1")
	case !(f.Probability >= 0 && f.Probability <= 1):
		return fmt.Errorf("probability must be 0 to 1")
	case f.Status != 0 && (f.Status < 400 || f.Status > 599):
		return fmt.Errorf("status must be 400 to 599")
	case f.DelayMS < 0 || time.Duration(f.DelayMS)*time.Millisecond > maxDelay:
		return fmt.Errorf("delayMs must be 0 to %d", maxDelay.Milliseconds())
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
	}
	if slices.Contains(f.AnyOf, CheckError) || f.Fault == CheckError &&
		(f.Operation != "" && f.Operation != opCheck || f.Marketplace != "" && f.Marketplace != Google) {
		return fmt.Errorf("%s happens to Google's check alone, in a rule of its own", CheckError)
	}
	for _, i := range f.Records {
		if i < 0 {
			return fmt.Errorf("records are positions, from 0")
		}
	}
	return nil
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
	return meters(operation)
}

// A hit is a fault that applies to a request.
type hit struct {
	rule  int
	fault string
	Fault
	chance *rand.Rand
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

// chosen returns which of n records the fault acts on.
func (h *hit) chosen(n int) map[int]bool {
	chosen := map[int]bool{}
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
		name := f.Fault
		if name == "" {
			name = f.AnyOf[chance.IntN(len(f.AnyOf))]
		}
		return matched, &hit{f.ID, name, *f, chance}
	}
	return matched, nil
}
