package metering

import "time"

// Connection is how an organization's usage reaches a marketplace. It holds no secret: SecretARN
// names one in AWS Secrets Manager. Absent members stay absent in the table; Effective fills them.
type Connection struct {
	Partner Partner

	RoleARN    string // AWS; empty is the function's own role
	ExternalID string // AWS; made by the service

	TenantID string // Azure
	ClientID string // Azure

	SecretARN        string         // Azure and Google
	WorkloadIdentity map[string]any // Google: the JSON of an external account

	LateUsage   LateUsage
	LockMinutes *int // how long an hour stays open after its end; nil is the default of the partner
	Endpoint    string

	Unknown map[string]any // members that a newer version has stored
}

// LateUsage says what happens to usage whose own window at the marketplace is over.
type LateUsage string

// The ways to treat late usage.
const (
	LateUsageFails   LateUsage = "FAIL"
	LateUsageCarried LateUsage = "CARRY" // it is reported in the first window that is open
)

// LateUsages are all ways to treat late usage. FAIL is the default.
var LateUsages = []LateUsage{LateUsageFails, LateUsageCarried}

// Effective returns the connection with the defaults of its absent members.
func (c Connection) Effective() Connection {
	if c.LateUsage == "" {
		c.LateUsage = LateUsageFails
	}
	if c.LockMinutes == nil {
		minutes := defaultLockMinutes[c.Partner]
		c.LockMinutes = &minutes
	}
	return c
}

// Lock is how long an hour stays open after its end.
func (c Connection) Lock() time.Duration {
	return time.Duration(*c.Effective().LockMinutes) * time.Minute
}
