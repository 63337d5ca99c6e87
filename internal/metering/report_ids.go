package metering

import (
	"crypto/sha1" //nolint:gosec // version 5 of a UUID is defined by it
	"strings"
	"time"
)

// reportNamespace is the UUID in which the names of reports and operations are hashed. It must
// never change: an operation that is sent again would be billed again.
var reportNamespace = [16]byte{0x6f, 0x2c, 0x91, 0x0e, 0x3b, 0x57, 0x4d, 0x84, 0x9a, 0x1d, 0xc4, 0x70, 0x5e, 0xb8, 0x26, 0xf3}

// ReportID is the id of an hour's report, a UUID of version 5. An hour has one report, always with
// the same id.
func ReportID(org OrgID, entitlement EntitlementID, hour time.Time) string {
	return reportUUID("report", string(org), string(entitlement), FormatTime(hour))
}

// OperationID is the id by which Google recognizes a resend. It is that of the report with the
// dimension: nothing in it is random or counted.
func OperationID(org OrgID, entitlement EntitlementID, hour time.Time, dimension string) string {
	return reportUUID("operation", string(org), string(entitlement), FormatTime(hour), dimension)
}

// reportUUID is a UUID of version 5 (RFC 9562, 5.5). No part holds a NUL: identifiers and keys have
// no control characters.
func reportUUID(parts ...string) string {
	sum := sha1.Sum(append(reportNamespace[:], strings.Join(parts, "\x00")...)) //nolint:gosec // it protects nothing
	return string(uuid([16]byte(sum[:16]), 5))
}
