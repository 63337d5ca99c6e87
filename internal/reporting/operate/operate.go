// Package operate does what an operator asks of usage reporting: `marketmeter report`.
package operate

import (
	"io"
	"log/slog"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/stack"
)

// Request is what an operator asks. Each function reads what it needs of it.
type Request struct {
	Target *stack.Target
	Getenv func(string) string // SANDBOX_URL and the queues
	Now    func() time.Time
	Log    *slog.Logger

	Organization metering.OrgID
	Entitlement  metering.EntitlementID // empty is each
	By           string                 // the operator
	Since        time.Time              // zero if it is not given
	NotBilled    bool                   // the operator has looked the usage up at the marketplace
	Arguments    []string
}

// Result is what came of a Request. It is JSON by encoding/json.
type Result interface {
	WriteText(w io.Writer) error // for people
	Incomplete() bool            // not all that was asked could be done
}

// complete is the Incomplete of a result that is all that was asked.
type complete struct{}

func (complete) Incomplete() bool { return false }

// at is a time for people: to the second, in UTC.
func at(t time.Time) string { return t.UTC().Format(time.RFC3339) }
