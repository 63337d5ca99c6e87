package table

import (
	"crypto/sha256"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/metering/reports"
	"github.com/marketmeter/marketmeter/internal/table/listjson"
)

// Attributes of the service. Those of groups begin with "_", except the keys of the table. None is
// returned to a client, because decoding reads only the members of the API.
const (
	attrPK          = "PK"
	attrSK          = "SK"
	attrTime        = listjson.PositionAttribute // sort key of every index
	attrStatus      = "_status"
	attrBuyer       = "_buyer"
	attrEntitlement = "_entitlement"
	attrOperation   = "_op"       // of the write that made the item
	attrDeletion    = "_deletion" // of the delete of the group
	attrWork        = "_work"     // keys of byWork, while the group waits to be reported
	attrDue         = "_due"
	attrConfig      = "_config"  // the version of the config that converted the group
	attrRequest     = "_request" // the hash of a request with an Idempotency-Key that stored the group
	attrRetry       = "_retry"   // of the last retry of the group
	attrRest        = "_rest"    // of a group whose billable records were retried in part: they may be again
	attrRetryKeys   = "_retries" // the hashes of the Idempotency-Keys of its retries
	attrPosition    = "position"
	attrExpiry      = "expiresAt" // time to live
	attrWritten     = "writtenAt" // of a checkpoint or empty range: when its request was received
)

// index is a GSI over usage record groups; all sort by attrTime.
type index struct{ name, partition string }

var (
	byTime        = index{"byTime", attrPK}
	byStatus      = index{"byStatus", attrStatus}
	byBuyer       = index{"byBuyer", attrBuyer}
	byEntitlement = index{"byEntitlement", attrEntitlement}
)

// workShards is how many partitions byWork has: a worker asks each of them for what is due.
const workShards = 16

// workKey is the partition of the work of an entitlement in byWork. It is the only partition that
// organizations share; the items of the index are read by their keys, which name the organization.
func workKey(org metering.OrgID, entitlement metering.EntitlementID) string {
	return workPrefix + workShard(org, entitlement)
}

const workPrefix = "WORK#"

func workShard(org metering.OrgID, entitlement metering.EntitlementID) string {
	return shardOf(string(org) + "\x00" + string(entitlement))
}

// shardOf is the number of the partition of what is named so.
func shardOf(name string) string {
	sum := sha256.Sum256([]byte(name))
	return strconv.Itoa(int(sum[0] % workShards))
}

// dueEscaper escapes as keyEscaper does, in two bytes instead of three: with three, the longest
// dueKey would not fit in a sort key.
var dueEscaper = strings.NewReplacer("%", "%p", "#", "%h")

// dueKey sorts the work of byWork by the hour of its usage, then by entitlement. The id, as the
// last part, is not escaped.
func dueKey(hour time.Time, org metering.OrgID, entitlement metering.EntitlementID, id metering.GroupID) string {
	return hourText(hour) + "#" + dueEscaper.Replace(string(org)) + "#" + dueEscaper.Replace(string(entitlement)) + "#" + string(id)
}

const hourLayout = "2006-01-02T15"

// sendKey is the partition of byWork of the sealed hours of a lane.
func sendKey(lane string) string { return sendPrefix + shardOf(lane) }

const sendPrefix = "SEND#"

// sendLane begins the sendDueKey of each hour of a lane.
func sendLane(lane string) string { return dueEscaper.Replace(lane) + "#" }

// sendDueKey sorts the sealed hours of a sendKey by lane, then by their next attempt, then by hour.
// A zero time is before all others.
func sendDueKey(lane string, next, hour time.Time) string {
	return sendLane(lane) + metering.FormatTime(next) + "#" + hourText(hour)
}

// billKey is the partition of the hours of an entitlement, and of its ledger.
func billKey(org metering.OrgID, entitlement metering.EntitlementID) string {
	return orgKey(org) + billSeparator + keyEscaper.Replace(string(entitlement))
}

const (
	billSeparator = "#BILL#"
	ledgerKey     = "LEDGER"
	hourPrefix    = "HOUR#"
)

// hourKey is the sort key of an hour. Those of its other items begin with it and "#".
func hourKey(hour time.Time) string { return hourPrefix + hourText(hour) }

func recordsKey(hour time.Time, part int) string {
	return fmt.Sprintf("%s#RECORDS#%03d", hourKey(hour), part)
}

func candidatesKey(hour time.Time, opener string, part int) string {
	return fmt.Sprintf("%s#IDS#%s#%03d", hourKey(hour), keyEscaper.Replace(opener), part)
}

func sumKey(hour time.Time, part int) string { return fmt.Sprintf("%s#SUM#%03d", hourKey(hour), part) }

func billableKey(hour time.Time, part int) string {
	return fmt.Sprintf("%s#BILLABLE#%03d", hourKey(hour), part)
}

func appliedKey(hour time.Time) string { return hourKey(hour) + "#APPLIED" }

func leaseKey(hour time.Time) string { return hourKey(hour) + "#LEASE" }

func callsPrefix(hour time.Time) string { return hourKey(hour) + "#CALLS#" }

// callsKey is the sort key of the calls that the step to that version of the hour has stored.
func callsKey(hour time.Time, version int) string {
	return fmt.Sprintf("%s%010d", callsPrefix(hour), version)
}

// placeOf returns the place of an hour by the keys of its item, as an index has them; ok is false
// if they are those of another item.
func placeOf(pk, sk string) (p reports.Place, ok bool) {
	owner, isOrg := strings.CutPrefix(pk, orgPrefix)
	org, entitlement, isBill := strings.Cut(owner, billSeparator)
	start, isHour := strings.CutPrefix(sk, hourPrefix)
	hour, err := time.Parse(hourLayout, start)
	p = reports.Place{
		Organization: metering.OrgID(keyUnescaper.Replace(org)), Entitlement: metering.EntitlementID(keyUnescaper.Replace(entitlement)), Hour: hour,
	}
	return p, isOrg && isBill && isHour && err == nil && len(start) == len(hourLayout)
}

// keyEscaper escapes the separator in the parts of a key, so that no organization, buyer or id can
// form another's key.
var keyEscaper = strings.NewReplacer("%", "%25", "#", "%23")

// keyUnescaper returns what keyEscaper has escaped.
var keyUnescaper = strings.NewReplacer("%25", "%", "%23", "#")

const orgPrefix = "ORG#"

func orgKey(org metering.OrgID) string { return orgPrefix + keyEscaper.Replace(string(org)) }

func statusKey(org metering.OrgID, status metering.Status) string {
	return orgKey(org) + "#STATUS#" + keyEscaper.Replace(string(status))
}

func buyerKey(org metering.OrgID, buyer metering.BuyerID) string {
	return orgKey(org) + "#BUYER#" + keyEscaper.Replace(string(buyer))
}

func entitlementKey(org metering.OrgID, entitlement metering.EntitlementID) string {
	return orgKey(org) + "#ENTITLEMENT#" + keyEscaper.Replace(string(entitlement))
}

func groupKey(id metering.GroupID) string { return "GROUP#" + keyEscaper.Replace(string(id)) }

const configPrefix = "CONFIG#"

// maxConfigVersion is the last version that configKey has digits for.
const maxConfigVersion = 9_999_999_999

func configKey(version int) string { return fmt.Sprintf("%s%010d", configPrefix, version) }

const serialKey = "SERIAL"

// pageKey is the partition of the checkpoints and empty ranges of one list.
func pageKey(org metering.OrgID, fingerprint string) string {
	return orgKey(org) + "#PAGE#" + fingerprint
}

// checkpointKey sorts by offset, and before every emptyRangeKey.
func checkpointKey(offset int) string { return fmt.Sprintf("%010d", offset) }

func emptyRangeKey(position string) string { return "AFTER#" + position }

// apiKeyPrefix begins the partition of each API key, which is looked up by its hash before the
// organization is known. It also begins the sort key by which an organization's keys are listed.
const apiKeyPrefix = "KEY#"

const apiKeySK = "KEY"

// timeKey sorts groups by creation time, then by the bytes of their id. The id is not escaped: it
// is the last part, and the time before it has a fixed width.
func timeKey(created time.Time, id metering.GroupID) string {
	return metering.FormatTime(created) + "#" + string(id)
}

// maxSortKey is the max size of a sort key in DynamoDB, in bytes.
const maxSortKey = 1024

// idOf returns the id in a timeKey; ok is false if timeKey does not make such a position. The id
// may be one that only another version allows.
func idOf(position string) (id metering.GroupID, ok bool) {
	const width = len("2006-01-02T15:04:05.000Z")
	if len(position) <= width || position[width] != '#' {
		return "", false
	}
	created, err := metering.ParseTime(position[:width])
	id = metering.GroupID(position[width+1:])
	return id, err == nil && metering.FormatTime(created) == position[:width] && id != "" && utf8.ValidString(string(id)) &&
		len(position) <= maxSortKey && len(groupKey(id)) <= maxSortKey
}

// timeRange bounds timeKey to the days from start to end, both included; an empty day is no bound.
// The upper bound is the day with the letter after the T of its times. It is after every time of
// the day, in any spelling, and before the next day, which does not exist for 9999-12-31.
func timeRange(start, end metering.Day) (from, to string) {
	from, to = "0", ":"
	if start != "" {
		from = string(start)
	}
	if end != "" {
		to = string(end) + "U"
	}
	return from, to
}

func unixMilliseconds(at time.Time) *types.AttributeValueMemberN {
	return number(strconv.FormatInt(at.UnixMilli(), 10))
}

func unixTime(at time.Time) *types.AttributeValueMemberN {
	return number(strconv.FormatInt(at.Unix(), 10))
}

func text[S ~string](s S) *types.AttributeValueMemberS {
	return &types.AttributeValueMemberS{Value: string(s)}
}

func itemKey(pk, sk string) map[string]types.AttributeValue {
	return map[string]types.AttributeValue{attrPK: text(pk), attrSK: text(sk)}
}
