package reports

import (
	"strings"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// Attempt is a call to the marketplace with a record. It is stored before the call, and is in doubt
// until a definite response is stored.
type Attempt struct {
	Number int       // 1 for the first attempt of the record
	Time   time.Time // before the call
	Response
}

// Response is what a call says about one record.
type Response struct {
	Result  Result
	Receipt string // of the marketplace, if it billed

	// Of a refusal.
	Code   metering.ProblemCode
	Reason string // in the marketplace's words
	// Again reports whether the same record may be billed if it is sent again: it was not
	// processed, the lane was throttled, or the buyer may subscribe again.
	Again bool
	// Lane reports whether the refusal was about more than the record: a throttle, credentials that
	// are refused, a request that is divided. It does not delay the record as one of its own does.
	Lane bool

	// Of a duplicate, as far as the marketplace says what it has.
	Accepted   *metering.Exact // nil if it does not say
	AcceptedAt time.Time       // zero if it does not say
}

// Result is how a call ended for a record.
type Result string

// The results. One table for each marketplace maps its responses to them.
const (
	InDoubt   Result = ""          // no definite response: it may have billed, and may bill later
	Billed    Result = "BILLED"    //
	Refused   Result = "REFUSED"   // it has not billed, and will not
	Duplicate Result = "DUPLICATE" // a record of this hour stands already
)

// Results are all results that this version knows.
var Results = []Result{InDoubt, Billed, Refused, Duplicate}

// Delays until a record is sent again.
const (
	minDelay = time.Minute
	maxDelay = time.Hour // also the delay after a refusal that the buyer can end
)

// nextAttempt is when to send a record again after the attempts; zero if there are none. Each of
// its own doubles the delay, which a later one of the lane does not begin again.
func nextAttempt(attempts []Attempt) time.Time {
	if len(attempts) == 0 {
		return time.Time{}
	}
	var next time.Time
	delay := minDelay
	for i := range attempts {
		a := &attempts[i]
		if a.Lane {
			next = metering.Later(next, a.Time.Add(minDelay))
			continue
		}
		wait := delay
		if a.Code == metering.ProblemNotSubscribed {
			wait = maxDelay
		}
		next = metering.Later(next, a.Time.Add(wait))
		delay = min(2*delay, maxDelay)
	}
	return next
}

// LastAttempt is the last attempt of a record; nil if there is none.
func (r *Record) LastAttempt() *Attempt {
	if len(r.Attempts) == 0 {
		return nil
	}
	return &r.Attempts[len(r.Attempts)-1]
}

// Attempted is how often a record was sent.
func (r *Record) Attempted() int {
	last := r.LastAttempt()
	if last == nil {
		return 0
	}
	return last.Number // old refusals are dropped
}

// Pending is what the attempts of a record say while it has no outcome: the code of the last one,
// if it was refused, and why the record is not billed yet, or may be billed. Both are empty if the
// record has its outcome, or was never sent.
func (r *Record) Pending() (code metering.ProblemCode, reason string) {
	last := r.LastAttempt()
	if r.Outcome.Kind != Undecided || last == nil {
		return "", ""
	}
	if last.Result == InDoubt {
		reason = "it may be billed: the last attempt has no definite response"
		if last.Reason != "" {
			reason += ": " + last.Reason
		}
		return "", reason
	}
	reason = last.Reason
	if find(r.Attempts, InDoubt) >= 0 {
		reason = strings.TrimPrefix(reason+"; it may be billed: another attempt has no definite response", "; ")
	}
	return last.Code, reason
}
