package reports

import (
	"crypto/sha1" //nolint:gosec // version 5 of a UUID is defined by it
	"encoding/hex"
	"strings"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// namespace is the UUID in which the names of reports and operations are hashed. It must never
// change: an operation that is sent again would be billed again.
var namespace = [16]byte{0x6f, 0x2c, 0x91, 0x0e, 0x3b, 0x57, 0x4d, 0x84, 0x9a, 0x1d, 0xc4, 0x70, 0x5e, 0xb8, 0x26, 0xf3}

// ReportID is the id of an hour's report, a UUID of version 5. An hour has one report, always with
// the same id.
func ReportID(org metering.OrgID, entitlement metering.EntitlementID, hour time.Time) string {
	return uuid5("report", string(org), string(entitlement), metering.FormatTime(hour))
}

// OperationID is the id by which Google recognizes a resend. It is that of the report with the
// dimension: nothing in it is random or counted.
func OperationID(org metering.OrgID, entitlement metering.EntitlementID, hour time.Time, dimension string) string {
	return uuid5("operation", string(org), string(entitlement), metering.FormatTime(hour), dimension)
}

// uuid5 is a UUID of version 5 (RFC 9562, 5.5). No part holds a NUL: identifiers and keys have no
// control characters.
func uuid5(parts ...string) string {
	sum := sha1.Sum(append(namespace[:], strings.Join(parts, "\x00")...)) //nolint:gosec // see above
	id := sum[:16]
	id[6] = id[6]&0x0f | 0x50
	id[8] = id[8]&0x3f | 0x80
	text := hex.EncodeToString(id)
	return text[:8] + "-" + text[8:12] + "-" + text[12:16] + "-" + text[16:20] + "-" + text[20:]
}
