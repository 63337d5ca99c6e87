package metering

import (
	"sync"
	"time"
)

// Terms are what the usage of an entitlement is checked against and converted by, as they were read
// at one moment. They must not change, nor be copied, once they are used: they are indexed then.
type Terms struct {
	Entitlement *Entitlement     // nil if it does not exist
	Connection  *Connection      // of the entitlement's partner; nil if there is none
	Config      ConfigVersion    // of the organization
	Metrics     []BillableMetric // of the organization; read only for billable records

	index     indexedTerms
	indexOnce sync.Once
}

// Judgement is what the terms say about a new group.
type Judgement struct {
	// Problems are all problems, in a fixed order. The group is INVALID if one is an ERROR.
	Problems []Problem

	// Records are the quantities by dimension key after conversion. They are not complete if a
	// problem is an ERROR: then they hold what could be converted.
	Records       map[string]Quantity
	OriginRecords map[string]Quantity // by source key, or by metric id for billable records
	Billable      []BillableRecord    // usage metering v2

	Timestamp time.Time // when the usage happened
	ReportBy  time.Time // the last moment at which the marketplace takes it; zero if it is not known
}

// Valid reports whether no problem is an ERROR.
func (j *Judgement) Valid() bool {
	for i := range j.Problems {
		if j.Problems[i].Severity == SeverityError {
			return false
		}
	}
	return true
}
