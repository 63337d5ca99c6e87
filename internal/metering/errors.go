package metering

import (
	"errors"
	"fmt"
	"time"
)

// Code says how a request failed, independent of the protocol.
type Code int

// The ways a request can fail.
const (
	Internal           Code = iota // a defect, or a store that returned nonsense
	Invalid                        // the request can't be read, breaks a rule, or asks for something impossible
	Unauthenticated                // nothing identifies the caller: no key, or no valid one
	Forbidden                      // the key is valid, but not for this
	NotFound                       // no such group, organization or key
	Conflict                       // what is stored does not allow it: a group's status, for example
	PreconditionFailed             // what is stored does not meet the conditions that the request names
	Unavailable                    // try again later: the store is throttled, out of reach or contended
)

// Error is a failure that a client may read. Message is a sentence that names the path and what is
// accepted; Cause is for the log only.
type Error struct {
	Code    Code
	Message string
	Cause   error

	// RetryAfter is how long a client should wait before it repeats the request. It is set only
	// with Unavailable.
	RetryAfter time.Duration
}

func (e *Error) Error() string {
	if e.Cause != nil {
		return e.Message + ": " + e.Cause.Error()
	}
	return e.Message
}

func (e *Error) Unwrap() error { return e.Cause }

// Errorf makes an Error without a cause.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// CodeOf returns the code of the Error in err's chain, or Internal if the chain has none.
func CodeOf(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return Internal
}
