package metering

import (
	"errors"
	"fmt"
	"time"
)

// Code says how a request failed. Each has one HTTP status, in internal/httpapi.
type Code int

// The ways a request can fail.
const (
	Internal             Code = iota // a defect or a store that answered nonsense
	Invalid                          // the request can't be read as the contract's, or asks for what can't be
	Unauthenticated                  // nothing tells who asks: no key, or none that is good
	Forbidden                        // the key is good, but not for this
	NotDeletable                     // the group's status is neither CREATED nor INVALID
	NotFound                         // no such group, organization or path
	MethodNotAllowed                 // the path exists, not with this method
	ConfigChanged                    // the current config does not meet the conditions of the request
	TooLarge                         // the body is over its limit
	UnsupportedMediaType             // the body is not JSON by its Content-Type
	ValidationFailed                 // a group of the batch breaks a rule for new usage
	Unavailable                      // try again later: the store is throttled, out of reach or contended
)

// Error is a failure that a client may read. Message is a sentence that names the place and what
// would be right; Cause is for the log alone.
type Error struct {
	Code    Code
	Message string
	Cause   error

	// RetryAfter is how long a client should wait before the same request again; set with
	// Unavailable alone.
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

// CodeOf is the code of the Error in err's chain, and Internal where there is none.
func CodeOf(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return Internal
}
