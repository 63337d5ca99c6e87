package metering

import (
	"cmp"
	"crypto/sha1" //nolint:gosec // UUIDv5 is made with it; it protects nothing
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Report is a request to store new usage: one group, or a batch.
type Report struct {
	Groups []NewGroup // each with its entitlement
	Batch  bool       // an id that exists with the same content counts as stored

	// Key is the Idempotency-Key; empty is none. With it, no group has an id of the client.
	Key     string
	Request RequestHash // of operation, path and body

	Now time.Time
}

// RequestHash identifies the operation, path and body of a request with an Idempotency-Key.
type RequestHash [16]byte

// keyNamespace is the namespace of the ids of groups that were reported with an Idempotency-Key.
var keyNamespace = [16]byte{0x6d, 0x61, 0x72, 0x6b, 0x65, 0x74, 0x4d, 0x65, 0xb4, 0x65, 0x72, 0x2d, 0x6b, 0x65, 0x79, 0x73}

// KeyedGroupID is the id of the i-th group that is reported with an Idempotency-Key: a UUIDv5, so
// that a repeated request finds what it stored before.
func KeyedGroupID(org OrgID, key string, i int) GroupID {
	h := sha1.New() //nolint:gosec // see the import
	h.Write(keyNamespace[:])
	// Neither holds a control character, so no two of them make the same name.
	h.Write([]byte(string(org) + "\x00" + key + "\x00" + strconv.Itoa(i)))
	return uuid([16]byte(h.Sum(nil)), 5)
}

// NewGroupID is the id of a group that is reported without an id: a UUIDv7, of the time and of
// random bytes.
func NewGroupID(now time.Time, random [10]byte) GroupID {
	var id [16]byte
	copy(id[6:], random[:])
	milliseconds := now.UnixMilli()
	for i := range 6 {
		id[i] = byte(milliseconds >> (40 - 8*i))
	}
	return uuid(id, 7)
}

// uuid returns the id with its version and variant (RFC 9562).
func uuid(id [16]byte, version byte) GroupID {
	id[6] = id[6]&0x0F | version<<4
	id[8] = id[8]&0x3F | 0x80
	text := hex.EncodeToString(id[:])
	return GroupID(text[:8] + "-" + text[8:12] + "-" + text[12:16] + "-" + text[16:20] + "-" + text[20:])
}

// Group returns the group that is stored of a report: CREATED if the judgement has no error, else
// INVALID. It returns Invalid if the group can't be stored.
func (g *NewGroup) Group(org OrgID, id GroupID, terms *Terms, judged *Judgement, now time.Time) (Group, error) {
	source, timestamp := Source(g.MetaInfo.Source), judged.Timestamp
	if source == "" {
		source = "API"
	}
	group := Group{
		ID: string(id), OrganizationID: string(org), EntitlementID: g.EntitlementID,
		MetaInfo:     MetaInfo{Source: &source, Timestamp: &timestamp, Carried: g.MetaInfo.Carried},
		CreationTime: now.UTC().Truncate(time.Millisecond),
	}
	if g.MetaInfo.SkipValidation {
		skip := true
		group.MetaInfo.SkipValidation = &skip
	}
	if !terms.Exist() {
		group.keepSent(g)
	}
	return group, group.Judged(terms, judged, now)
}

// keepSent keeps what was sent of usage that can't be converted, for a retry.
func (g *Group) keepSent(sent *NewGroup) {
	if len(sent.Records) > 0 {
		g.MetaInfo.OriginRecords = make(map[string]Quantity, len(sent.Records))
	}
	for _, r := range sent.Records {
		g.MetaInfo.OriginRecords[r.Key], _ = ParseQuantity(r.Quantity) // Check has read it
	}
	billable, _ := sent.billable()
	for _, r := range billable {
		record := BillableRecord{Key: r.Key, Properties: r.Properties}
		if r.Quantity != "" {
			record.Quantity, _ = ParseQuantity(r.Quantity)
		}
		g.MetaInfo.BillableRecords = append(g.MetaInfo.BillableRecords, record)
	}
}

// Judged gives the group the status, quantities, owner and problems of a judgement, of a report or
// a retry. If the entitlement does not exist, the group keeps what it had of it. It returns Invalid
// if the group could not be stored so.
func (g *Group) Judged(terms *Terms, judged *Judgement, now time.Time) error {
	if e := terms.Entitlement; e != nil {
		g.BuyerID, g.ProductID, g.Partner = string(e.BuyerID), string(e.ProductID), e.Partner
	}
	if !terms.Exist() && g.MetaInfo.OriginRecords == nil && len(g.MetaInfo.BillableRecords) == 0 {
		g.MetaInfo.OriginRecords = g.Records // imported without them
	}
	g.Records, g.ReportBy = map[string]Quantity{}, judged.ReportBy
	if terms.Exist() {
		g.MetaInfo.OriginRecords, g.MetaInfo.BillableRecords = judged.OriginRecords, judged.Billable
		if judged.Records != nil {
			g.Records = judged.Records
		}
	}
	g.UsageRecordReportID, g.ReportedTime = "", time.Time{}
	g.LastUpdateTime = now.UTC().Truncate(time.Millisecond)
	g.Status, g.Problems = StatusCreated, nil
	if err := g.CheckStorable(); err != nil {
		return Errorf(Invalid, "%v", err)
	}
	if !judged.Valid() {
		g.Status = StatusInvalid
		g.keepProblems(judged.Problems)
	}
	return nil
}

// keepProblems stores the errors among the problems, of at most MaxStoredProblems bytes, so that a
// group with many of them can be stored.
func (g *Group) keepProblems(problems []Problem) {
	room := min(MaxStoredProblems, MaxStored-g.storedSize())
	g.Problems = firstProblems(problems, room, "validate the usage with explain=true to see all")
}

// FirstProblems returns what a group stores of the problems of its report, of at most
// MaxStoredProblems bytes. Those that forbid a retry come first.
func FirstProblems(problems []Problem) []Problem {
	first := firstProblems(unresolvedFirst(problems), MaxStoredProblems, "see the report")
	if sizeOfValue(first) > MaxStoredProblems { // one is too long
		return ShortProblems(problems)
	}
	return first
}

// ShortProblems returns one short problem, with its code, for a group that has no room for more.
func ShortProblems(problems []Problem) []Problem {
	if len(problems) == 0 {
		return nil
	}
	p := unresolvedFirst(problems)[0]
	p.Message, p.Hint = shortened(p.Message, maxShort), shortened(p.Hint, maxShort)
	if len(p.Path) > maxShort {
		p.Path = ""
	}
	if others := len(problems) - 1; others > 0 {
		p.Message += othersAre(others, "see the report")
	}
	return []Problem{p}
}

// maxShort is how many bytes each text of a short problem may have.
const maxShort = 300

// shortened returns the text, or what fits of it in n bytes.
func shortened(text string, n int) string {
	const more = "..."
	if len(text) <= n {
		return text
	}
	return Prefix(text, n-len(more)) + more
}

func unresolvedFirst(problems []Problem) []Problem {
	return slices.SortedStableFunc(slices.Values(problems), func(a, b Problem) int {
		return cmp.Compare(rank(a), rank(b))
	})
}

func rank(p Problem) int {
	if p.unresolved() {
		return 0
	}
	return 1
}

// firstProblems returns the errors among the problems, of at most room bytes, and at least one. The
// last one names the number of the others, and how to see them.
func firstProblems(problems []Problem, room int, how string) (first []Problem) {
	room -= sizeOfOthers
	others := 0
	for _, p := range problems {
		if p.Severity != SeverityError {
			continue
		}
		size := sizeOfValue([]Problem{p})
		if others > 0 || size > room && len(first) > 0 {
			others++
			continue
		}
		room -= size
		first = append(first, p)
	}
	if others > 0 {
		first[len(first)-1].Message += othersAre(others, how)
	}
	return first
}

func othersAre(n int, how string) string {
	return fmt.Sprintf(" (and %d more problems: %s)", n, how)
}

// sizeOfOthers is the room for the number of problems that are not stored.
const sizeOfOthers = 100

// UsedAt is when the usage of the group happened: that of one that was imported without a
// timestamp, when it was created.
func (g *Group) UsedAt() time.Time {
	if g.MetaInfo.Timestamp != nil {
		return *g.MetaInfo.Timestamp
	}
	return g.CreationTime
}

// AsReported returns the usage of a stored group as it was reported, to judge it again.
func (g *Group) AsReported() NewGroup {
	n := NewGroup{ID: g.ID, OrganizationID: g.OrganizationID, EntitlementID: g.EntitlementID, Timestamp: g.MetaInfo.Timestamp}
	n.MetaInfo.Carried = g.MetaInfo.Carried
	if g.MetaInfo.SkipValidation != nil {
		n.MetaInfo.SkipValidation = *g.MetaInfo.SkipValidation
	}
	if g.MetaInfo.Source != nil {
		n.MetaInfo.Source = string(*g.MetaInfo.Source)
	}
	if n.Timestamp == nil { // imported without one
		n.Timestamp = &g.CreationTime
	}
	for _, r := range g.MetaInfo.BillableRecords {
		n.BillableRecords = append(n.BillableRecords, NewBillableRecord{Key: r.Key, Properties: r.Properties, Quantity: r.Quantity.String()})
	}
	if len(n.BillableRecords) > 0 {
		return n
	}
	origin := g.origin()
	for _, key := range slices.Sorted(maps.Keys(origin)) {
		n.Records = append(n.Records, NewRecord{Key: key, Quantity: origin[key].String()})
	}
	return n
}

// origin are the records of the group as they were sent.
func (g *Group) origin() map[string]Quantity {
	if g.MetaInfo.OriginRecords == nil { // imported without them
		return g.Records
	}
	return g.MetaInfo.OriginRecords
}

// Reports reports whether the stored group has the content of the report: the same entitlement, the
// same records or billable records, and the timestamp and members of metaInfo as far as they were
// sent. Numbers are compared by value.
func (g *NewGroup) Reports(stored *Group) bool {
	m := &stored.MetaInfo
	timestamp := g.timestamp()
	switch {
	case stored.EntitlementID != g.EntitlementID,
		timestamp != nil && (m.Timestamp == nil || !m.Timestamp.Equal(*timestamp)),
		g.MetaInfo.SkipValidationSent && g.MetaInfo.SkipValidation != (m.SkipValidation != nil && *m.SkipValidation),
		g.MetaInfo.Source != "" && (m.Source == nil || *m.Source != Source(g.MetaInfo.Source)):
		return false
	}
	for name, value := range g.MetaInfo.Carried {
		if has, ok := m.Carried[name]; !ok || has != value {
			return false
		}
	}
	billable, _ := g.billable()
	if len(billable) != len(m.BillableRecords) {
		return false
	}
	for i, r := range billable {
		if has := &m.BillableRecords[i]; r.Key != has.Key || !sameQuantity(r.Quantity, has.Quantity) || !sameProperties(r.Properties, has.Properties) {
			return false
		}
	}
	if len(billable) > 0 {
		return true
	}
	origin := stored.origin()
	if len(g.Records) != len(origin) {
		return false
	}
	for _, r := range g.Records {
		if has, ok := origin[r.Key]; !ok || !sameQuantity(r.Quantity, has) {
			return false
		}
	}
	return true
}

// sameQuantity compares a quantity as it was sent, of which an empty one is 0.
func sameQuantity(sent string, stored Quantity) bool {
	if sent == "" {
		return stored == Quantity{}
	}
	q, err := ParseQuantity(sent)
	return err == nil && q == stored
}

func sameProperties(sent, stored map[string]any) bool {
	return len(sent) == len(stored) && (len(sent) == 0 || sameValue(sent, stored))
}

// Check returns Invalid if the report can't be stored, whatever is stored already: a group that
// Check refuses, or that names no entitlement, or two groups with one id. Of a batch it names the
// index; if every quantity is zero, the index of each such group.
func (r *Report) Check(org OrgID) error {
	var zero []int
	first := map[string]int{}
	for i := range r.Groups {
		g := &r.Groups[i]
		err := g.Check(org)
		earlier, repeated := first[g.ID]
		switch {
		case r.Batch && errors.Is(err, ErrAllZero):
			zero = append(zero, i)
			continue
		case err != nil:
		case g.EntitlementID == "":
			err = errors.New("entitlementID is missing: it must be the entitlement of the usage")
		case g.ID == "":
		case r.Key != "":
			err = fmt.Errorf("id is %s: with an Idempotency-Key the service makes the ids; send the key or ids", Quote(g.ID))
		case repeated:
			err = fmt.Errorf("id is %s, as at index %d: an id names one group", Quote(g.ID), earlier)
		default:
			first[g.ID] = i
		}
		if err != nil {
			return r.Refuse(i, err)
		}
	}
	if len(zero) > 0 {
		return Errorf(Invalid, "%s: %v", Indexes(zero), ErrAllZero)
	}
	return nil
}

// Refuse returns the Invalid of the i-th group.
func (r *Report) Refuse(i int, reason error) *Error {
	if !r.Batch {
		return Errorf(Invalid, "%v", reason)
	}
	return Errorf(Invalid, "index %d: %v", i, reason)
}

// Indexes names indexes for a message: index 3; indexes 0, 3 and 4.
func Indexes(indexes []int) string {
	texts := make([]string, len(indexes))
	for i, index := range indexes {
		texts[i] = strconv.Itoa(index)
	}
	last := len(texts) - 1
	if last == 0 {
		return "index " + texts[0]
	}
	return "indexes " + strings.Join(texts[:last], ", ") + " and " + texts[last]
}
