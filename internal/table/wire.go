package table

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// wireGroup is a group of DynamoDB's answer to a Query in the API's JSON. Its bytes are good until
// the next is decoded.
type wireGroup struct {
	page     []byte // all groups up to this one
	metaInfo []byte // of this one
	position []byte // attrTime
}

// wireAnswer is what an answer to a Query tells beside its items.
type wireAnswer struct {
	last  string  // the position of LastEvaluatedKey; empty where nothing is left to read
	units float64 // that were consumed, where it was asked for
}

// decodeGroups appends the groups of DynamoDB's answer to a Query to those that begin at out[begins], joined
// by commas: each that take, which is called in their order, keeps. It copies from DynamoDB's JSON to the
// API's in one pass and makes nothing in between:
//
//   - Strings are checked, and keep their escapes as they are; numbers stay as DynamoDB spells them.
//   - The members of a group are those of groupMembers, checked for what they must be. Everything else is
//     passed over: nothing that is stored for the service alone gets out. So is an optional member of another
//     type, which a newer version may have written.
//   - An answer that is cut, is not JSON, holds what the API's JSON can't (binary, a set) or has not as
//     many items as its Count says is an error, never a shorter list.
//
// A group takes fewer bytes than its item in the answer.
func decodeGroups(answer, out []byte, begins int, take func(wireGroup) (keep bool, err error)) ([]byte, wireAnswer, error) {
	w := wire{in: answer, out: out, first: begins}
	var a wireAnswer
	items, count := -1, -1.0
	ok := w.object(func(name []byte) (ok bool) {
		switch string(name) {
		case "Items":
			if items >= 0 {
				return w.fail("Items is there twice")
			}
			items = 0
			return w.array(func() bool {
				items++
				return w.item(take)
			})
		case "Count":
			if count >= 0 {
				return w.fail("Count is there twice")
			}
			count, ok = w.float()
			return ok
		case "LastEvaluatedKey":
			if a.last != "" {
				return w.fail("LastEvaluatedKey is there twice")
			}
			a.last, ok = w.lastKey()
			return ok
		case "ConsumedCapacity":
			return w.object(func(name []byte) (ok bool) {
				if string(name) != "CapacityUnits" {
					return w.skip(0)
				}
				a.units, ok = w.float()
				return ok
			})
		default:
			return w.skip(0)
		}
	})
	if w.peek(); ok && w.at < len(w.in) {
		ok = w.fail("the answer goes on after its end")
	}
	if ok && (items < 0 || float64(items) != count) {
		ok = w.fail("the answer has %d items, and its Count is %v", items, count)
	}
	if !ok {
		w.fail("it is not an answer to Query")
	}
	return w.out, a, w.err
}

// wire is DynamoDB's answer, read up to at, and what was made of it.
type wire struct {
	in, out []byte
	at      int
	first   int   // where the groups begin in out
	err     error // the first failure; nothing after it is to be used

	escaped  bool // the last string has escapes
	position []byte
	metaInfo [2]int // from where to where in out
}

// fail notes a failure, and is false.
func (w *wire) fail(format string, a ...any) bool {
	if w.err == nil {
		w.err = fmt.Errorf("DynamoDB's answer at byte %d of %d: %s", w.at, len(w.in), fmt.Sprintf(format, a...))
	}
	return false
}

func (w *wire) item(take func(wireGroup) (bool, error)) bool {
	before := len(w.out)
	if before > w.first {
		w.out = append(w.out, ',')
	}
	w.position, w.metaInfo = nil, [2]int{}
	if !w.copyObject(kindGroup, 0) {
		return false
	}
	keep, err := take(wireGroup{w.out[w.first:], w.out[w.metaInfo[0]:w.metaInfo[1]], w.position})
	if err != nil {
		w.err = err
		return false
	}
	if !keep {
		w.out = w.out[:before]
	}
	return true
}

func (w *wire) lastKey() (position string, ok bool) {
	w.position = nil
	ok = w.object(func(name []byte) bool {
		if string(name) != attrTime {
			return w.skip(0)
		}
		tag, ok := w.tag()
		return ok && w.copyValue(tag, kindPosition, 0)
	})
	if ok && len(w.position) == 0 {
		ok = w.fail("LastEvaluatedKey has no %s", attrTime)
	}
	return string(w.position), ok
}

// kind is what an attribute must be to be copied.
type kind uint8

const (
	kindAny kind = iota
	kindText
	kindTime
	kindNumber
	kindInt32
	kindFlag
	kindAmounts // a map of numbers
	kindDocument
	kindMetaInfo
	kindBillables
	kindBillable
	kindGroup
	kindPosition // attrTime, kept beside the group
)

func (k kind) String() string {
	return [...]string{
		"what JSON can hold", "a string", "a time", "a number", "a 32-bit integer", "a boolean", "a map of numbers",
		"a map", "a map", "a list", "a map", "an item", "a string",
	}[k]
}

// member is a member of the API's JSON.
type member struct {
	name     string
	kind     kind
	required bool
}

// groupMembers are all that the API returns of a group, and attrTime.
var groupMembers = [...]member{
	{"id", kindText, true},
	{"organizationID", kindText, true},
	{"buyerID", kindText, true},
	{"entitlementID", kindText, true},
	{"partner", kindText, true},
	{"status", kindText, true},
	{"records", kindAmounts, true},
	{"metaInfo", kindMetaInfo, true},
	{"serialID", kindInt32, true},
	{"usageRecordReportID", kindText, true},
	{"creationTime", kindTime, true},
	{"lastUpdateTime", kindTime, true},
	{"reportedTime", kindTime, false},
	{attrTime, kindPosition, true},
}

// metaInfoMembers are all of a metaInfo, with metering.CarriedMembers.
var metaInfoMembers = [...]member{
	{"SkipValidation", kindFlag, false},
	{"source", kindText, false},
	{"timestamp", kindTime, false},
	{"originRecords", kindAmounts, false},
	{"billableRecords", kindBillables, false},
}

var billableMembers = [...]member{
	{"key", kindText, true},
	{"quantity", kindNumber, true},
	{"properties", kindDocument, false},
}

// known are the members of a kind of object as DynamoDB writes them.
type known struct {
	all      []knownMember // in the order of their names
	required uint64        // a bit for each of all
	byLetter []span        // of all, those that begin with the letter
}

type span struct{ first, end uint8 }

type knownMember struct {
	member
	optional bool   // and left out if it is of another type
	in, out  string // "status":{"S": and ,"status":
	tag      byte   // of in
}

var (
	knownOfGroup    = knownMembers(slices.Clone(groupMembers[:]))
	knownOfMetaInfo = knownMembers(append(carriedMembers(), metaInfoMembers[:]...))
	knownOfBillable = knownMembers(slices.Clone(billableMembers[:]))
)

func carriedMembers() (members []member) {
	kinds := map[metering.CarriedKind]kind{
		metering.CarriedText: kindText, metering.CarriedAmount: kindNumber, metering.CarriedCount: kindInt32, metering.CarriedTime: kindTime,
	}
	for _, m := range metering.CarriedMembers {
		members = append(members, member{m.Name, kinds[m.Kind], false})
	}
	return members
}

func knownMembers(members []member) (k known) {
	k.byLetter = slices.Repeat([]span{{}}, utf8.RuneSelf)
	slices.SortFunc(members, func(a, b member) int { return strings.Compare(a.name, b.name) })
	for i, m := range members {
		name, tag := `"`+m.name+`":`, m.kind.tag()
		optional := !m.required && m.kind != kindDocument // without its properties, a billable record says another thing
		k.all = append(k.all, knownMember{m, optional, name + `{"` + tag + `":`, "," + name, tagNamed([]byte(tag))})
		if m.required {
			k.required |= 1 << i
		}
		of := &k.byLetter[m.name[0]]
		if of.end == 0 {
			of.first = uint8(i)
		}
		of.end = uint8(i + 1)
	}
	return k
}

// tag is the type of an attribute of kind k, as DynamoDB names it; kindAny has each.
func (k kind) tag() string {
	switch k {
	case kindText, kindTime, kindPosition:
		return "S"
	case kindNumber, kindInt32:
		return "N"
	case kindFlag:
		return "BOOL"
	case kindBillables:
		return "L"
	default:
		return "M"
	}
}

// known is false where k is no object whose members are known.
func (k kind) known() (known, bool) {
	switch k {
	case kindGroup:
		return knownOfGroup, true
	case kindMetaInfo:
		return knownOfMetaInfo, true
	case kindBillable:
		return knownOfBillable, true
	default:
		return known{}, false
	}
}

// maxWireDepth is more than DynamoDB nests, and little enough for any stack.
const maxWireDepth = 100

// copyObject copies an object of attribute values, of kind k.
func (w *wire) copyObject(k kind, depth int) bool {
	if depth > maxWireDepth {
		return w.fail("it is nested more than %d levels deep", maxWireDepth)
	}
	if known, ok := k.known(); ok {
		return w.copyKnown(known, depth)
	}
	of := kindAny
	if k == kindAmounts {
		of = kindNumber
	}
	if !w.expect('{') {
		return false
	}
	w.out = append(w.out, '{')
	inside := len(w.out)
	for more := w.peek() != '}'; more; more = w.next() {
		name, ok := w.text()
		if !ok || !w.expect(':') {
			return false
		}
		if len(w.out) > inside {
			w.out = append(w.out, ',')
		}
		w.out = append(append(w.out, name...), ':')
		tag, ok := w.tag()
		if !ok || (tag != 'N' || !w.copyPlain(kindNumber)) && !w.copyValue(tag, of, depth+1) {
			return w.fail("%s must be %s", name, of)
		}
	}
	w.out = append(w.out, '}')
	return w.expect('}')
}

// copyKnown copies those members of an object that are known.
func (w *wire) copyKnown(known known, depth int) bool {
	if !w.expect('{') {
		return false
	}
	w.out = append(w.out, '{')
	inside, seen := len(w.out), uint64(0)
	for more := w.peek() != '}'; more; more = w.next() {
		place, tag, ok := w.knownMember(known)
		if !ok {
			return false
		}
		if place < 0 {
			if !w.skip(0) {
				return false
			}
			continue
		}
		m := &known.all[place]
		if seen&(1<<place) != 0 {
			return w.fail("%s is there twice", m.name)
		}
		seen |= 1 << place
		before, value := len(w.out), w.at
		switch {
		case m.kind == kindPosition:
		case len(w.out) > inside:
			w.out = append(w.out, m.out...)
		default:
			w.out = append(w.out, m.out[1:]...)
		}
		begin := len(w.out)
		if (tag != m.tag || !w.copyPlain(m.kind)) && !w.copyValue(tag, m.kind, depth+1) {
			if !m.optional {
				return w.fail("%s must be %s", m.name, m.kind)
			}
			w.err, w.at, w.out = nil, value, w.out[:before]
			if !w.skip(0) || !w.expect('}') {
				return false
			}
			continue
		}
		if m.kind == kindMetaInfo {
			w.metaInfo = [2]int{begin, len(w.out)}
		}
	}
	if missing := known.required &^ seen; missing != 0 {
		return w.fail("%s is missing", known.all[bits.TrailingZeros64(missing)].name)
	}
	w.out = append(w.out, '}')
	return w.expect('}')
}

// knownMember reads the name of a member and the tag of its value. Of a member that is not known its place is
// negative, and the whole value is still to be read.
func (w *wire) knownMember(k known) (place int, tag byte, ok bool) {
	if rest := w.in[w.at:]; len(rest) > 1 && rest[1] < utf8.RuneSelf {
		of := k.byLetter[rest[1]]
		for place := int(of.first); place < int(of.end); place++ {
			if m := &k.all[place]; len(rest) >= len(m.in) && string(rest[:len(m.in)]) == m.in {
				w.at += len(m.in)
				return place, m.tag, true
			}
		}
	}
	raw, ok := w.text()
	if !ok {
		return 0, 0, false
	}
	name := w.plain(raw)
	if !w.expect(':') {
		return 0, 0, false
	}
	for place := range k.all {
		if k.all[place].name == string(name) {
			tag, ok = w.tag()
			return place, tag, ok
		}
	}
	return -1, 0, true
}

// copyPlain copies what follows the tag of an attribute value of kind k, where it is written as DynamoDB
// mostly does. Else it does nothing, and all is up to copyValue.
func (w *wire) copyPlain(k kind) bool {
	in, end, quotes := w.in, 0, 0
	switch k {
	case kindText:
		end = plainText(in, w.at)
	case kindTime:
		end = w.at + len(`"2006-01-02T15:04:05.000Z"`)
		if end >= len(in) || in[w.at] != '"' || in[end-1] != '"' || !isTime(in[w.at+1:end-1]) {
			return false
		}
	case kindNumber:
		end, _ = plainNumber(in, w.at)
		quotes = 1
		if end-w.at > len(`"12345678901234567890123456789012345678"`) { // a longer one may have more digits than DynamoDB
			return false
		}
	case kindInt32:
		var integer bool
		end, integer = plainNumber(in, w.at)
		quotes = 1
		if !integer || end-w.at > len(`"999999999"`) { // a longer one may be too large
			return false
		}
	}
	if end == 0 || end >= len(in) || in[end] != '}' {
		return false
	}
	w.out = append(w.out, in[w.at+quotes:end-quotes]...)
	w.at = end + 1
	return true
}

// copyValue copies what follows the tag of an attribute value, which must be one of kind k.
func (w *wire) copyValue(tag byte, k kind, depth int) (ok bool) {
	switch tag {
	case 'S':
		ok = (k == kindText || k == kindAny || k == kindTime || k == kindPosition) && w.copyText(k)
	case 'N':
		ok = (k == kindNumber || k == kindAny || k == kindInt32) && w.copyNumber(k)
	case 'M':
		ok = (k == kindAmounts || k == kindDocument || k == kindMetaInfo || k == kindBillable || k == kindAny) && w.copyObject(k, depth)
	case 'L':
		ok = (k == kindBillables || k == kindAny) && w.copyList(k, depth)
	case tagBool:
		ok = (k == kindFlag || k == kindAny) && w.copyFlag()
	case tagNull:
		ok = k == kindAny && w.null()
	default:
		return w.fail("it is binary or a set")
	}
	return ok && w.expect('}')
}

// The types of attribute values whose names have more than a letter; others are told by theirs.
const tagBool, tagNull, tagOther = 1, 2, 3

// tag reads the beginning of an attribute value, up to the colon of {"S":"..."}.
func (w *wire) tag() (tag byte, ok bool) {
	if b := w.in[w.at:]; len(b) > 5 && b[0] == '{' && b[1] == '"' && b[3] == '"' && b[4] == ':' {
		w.at += 5
		switch b[2] {
		case 'S', 'N', 'M', 'L':
			return b[2], true
		}
		return tagOther, true
	}
	if !w.expect('{') {
		return 0, false
	}
	name, ok := w.text()
	if !ok {
		return 0, false
	}
	tag = tagNamed(w.plain(name))
	return tag, w.expect(':')
}

func tagNamed(name []byte) byte {
	switch string(name) {
	case "S", "N", "M", "L":
		return name[0]
	case "BOOL":
		return tagBool
	case "NULL":
		return tagNull
	default:
		return tagOther
	}
}

func (w *wire) copyText(k kind) bool {
	raw, ok := w.text()
	switch {
	case !ok:
		return false
	case k == kindText:
	case k == kindPosition:
		w.position = w.plain(raw)
		return len(w.position) > 0
	case k == kindTime && !isTime(w.plain(raw)):
		return false
	}
	w.out = append(w.out, raw...)
	return true
}

// isTime tells what is spelled as metering.FormatTime does.
func isTime(b []byte) bool {
	return len(b) == len("0000-00-00T00:00:00.000Z") &&
		isSpelled(b, 0xFFF0F0FFF0F0F0F0, 0x2D30302D30303030) && // 0000-00-
		isSpelled(b[8:], 0xF0F0FFF0F0FFF0F0, 0x30303A3030543030) && // 00T00:00
		isSpelled(b[16:], 0xFFF0F0F0FFF0F0FF, 0x5A3030302E30303A) // :00.000Z
}

// isSpelled compares the first eight bytes with those due: in full where the mask is 0xFF, and as digits where it
// is 0xF0.
func isSpelled(b []byte, mask, due uint64) bool {
	const six, sixteen = 0x0606060606060606, 0x1010101010101010
	eight := binary.LittleEndian.Uint64(b)
	digits := eight &^ mask // the lower half of each digit: 9 and 6 is below 16
	return eight&mask == due && (digits+six&^mask)&sixteen == 0
}

func (w *wire) copyNumber(k kind) bool {
	raw, ok := w.text()
	if !ok {
		return false
	}
	raw = w.plain(raw)
	if _, err := metering.ParseNumber(string(raw)); err != nil {
		return w.fail("%q: %v", raw, err)
	}
	if k == kindInt32 {
		if _, err := strconv.ParseInt(string(raw), 10, 32); err != nil {
			return w.copyInt32(string(raw))
		}
	}
	w.out = append(w.out, raw...)
	return true
}

// copyInt32 copies an integer that is not spelled as one: 1E+3.
func (w *wire) copyInt32(spelled string) bool {
	n, err := metering.ParseNumber(spelled)
	if err != nil {
		return false
	}
	i, err := strconv.ParseInt(n.String(), 10, 32)
	w.out = strconv.AppendInt(w.out, i, 10)
	return err == nil
}

// isNumber tells whether JSON spells a number so.
func isNumber(b []byte) bool {
	digits := func() bool {
		n := 0
		for n < len(b) && '0' <= b[n] && b[n] <= '9' {
			n++
		}
		b = b[n:]
		return n > 0
	}
	if len(b) > 0 && b[0] == '-' {
		b = b[1:]
	}
	if len(b) > 1 && b[0] == '0' && '0' <= b[1] && b[1] <= '9' || !digits() {
		return false
	}
	if len(b) > 0 && b[0] == '.' {
		b = b[1:]
		if !digits() {
			return false
		}
	}
	if len(b) > 0 && (b[0] == 'e' || b[0] == 'E') {
		b = b[1:]
		if len(b) > 0 && (b[0] == '+' || b[0] == '-') {
			b = b[1:]
		}
		if !digits() {
			return false
		}
	}
	return len(b) == 0
}

func (w *wire) copyList(k kind, depth int) bool {
	if depth > maxWireDepth {
		return w.fail("it is nested more than %d levels deep", maxWireDepth)
	}
	of := kindAny
	if k == kindBillables {
		of = kindBillable
	}
	if !w.expect('[') {
		return false
	}
	w.out = append(w.out, '[')
	inside := len(w.out)
	for more := w.peek() != ']'; more; more = w.next() {
		if len(w.out) > inside {
			w.out = append(w.out, ',')
		}
		tag, ok := w.tag()
		if !ok || !w.copyValue(tag, of, depth+1) {
			return false
		}
	}
	w.out = append(w.out, ']')
	return w.expect(']')
}

func (w *wire) copyFlag() bool {
	literal := "false"
	if w.peek() == 't' {
		literal = "true"
	}
	w.out = append(w.out, literal...)
	return w.word(literal)
}

func (w *wire) null() bool {
	literal := "true" // and false, which DynamoDB never has, is null to the SDK too
	if w.peek() == 'f' {
		literal = "false"
	}
	w.out = append(w.out, "null"...)
	return w.word(literal)
}

// What follows reads JSON of any meaning.

// peek is the next byte that is not white space, 0 at the end.
func (w *wire) peek() byte {
	if w.at < len(w.in) && w.in[w.at] > ' ' {
		return w.in[w.at]
	}
	return w.peekOn()
}

func (w *wire) peekOn() byte {
	for ; w.at < len(w.in); w.at++ {
		switch c := w.in[w.at]; c {
		case ' ', '\t', '\n', '\r':
		default:
			return c
		}
	}
	return 0
}

func (w *wire) expect(c byte) bool {
	if w.at < len(w.in) && w.in[w.at] == c {
		w.at++
		return true
	}
	return w.expectOn(c)
}

func (w *wire) expectOn(c byte) bool {
	if w.peekOn() != c {
		return w.fail("%q is due", c)
	}
	w.at++
	return true
}

// next goes on to the next member of an object or element of an array, if there is one.
func (w *wire) next() bool {
	if w.peek() != ',' {
		return false
	}
	w.at++
	return true
}

func (w *wire) word(word string) bool {
	w.peek()
	if !bytes.HasPrefix(w.in[w.at:], []byte(word)) {
		return w.fail("%s is due", word)
	}
	w.at += len(word)
	return true
}

// object reads an object; member reads the value of the member of that name.
func (w *wire) object(member func(name []byte) bool) bool {
	if !w.expect('{') {
		return false
	}
	for more := w.peek() != '}'; more; more = w.next() {
		raw, ok := w.text()
		if !ok {
			return false
		}
		name := w.plain(raw)
		if !w.expect(':') || !member(name) {
			return false
		}
	}
	return w.expect('}')
}

func (w *wire) array(element func() bool) bool {
	if !w.expect('[') {
		return false
	}
	for more := w.peek() != ']'; more; more = w.next() {
		if !element() {
			return false
		}
	}
	return w.expect(']')
}

// skip passes a value over.
func (w *wire) skip(depth int) bool {
	if depth > 2*maxWireDepth { // an attribute value is two levels of JSON
		return w.fail("it is nested more than %d levels of JSON deep", 2*maxWireDepth)
	}
	switch c := w.peek(); c {
	case '"':
		_, ok := w.text()
		return ok
	case '{':
		return w.object(func([]byte) bool { return w.skip(depth + 1) })
	case '[':
		return w.array(func() bool { return w.skip(depth + 1) })
	case 't':
		return w.word("true")
	case 'f':
		return w.word("false")
	case 'n':
		return w.word("null")
	default:
		_, ok := w.float()
		return ok
	}
}

// float reads a number of JSON that is no attribute.
func (w *wire) float() (float64, bool) {
	w.peek()
	end := w.at
	for end < len(w.in) && bytes.IndexByte([]byte("+-.0123456789eE"), w.in[end]) >= 0 {
		end++
	}
	raw := w.in[w.at:end]
	n, err := strconv.ParseFloat(string(raw), 64)
	if !isNumber(raw) || err != nil {
		return math.NaN(), w.fail("a number is due")
	}
	w.at = end
	return n, true
}

// text reads a string and returns it with its quotes and its escapes as they are.
func (w *wire) text() ([]byte, bool) {
	if end := plainText(w.in, w.at); end > 0 {
		raw := w.in[w.at:end]
		w.at, w.escaped = end, false
		return raw, true
	}
	return w.textOn()
}

// plainNumber returns where the string ends that begins at in[at], or 0 where that is none, or holds something
// else than a number of JSON without an exponent.
func plainNumber(in []byte, at int) (end int, integer bool) {
	if at >= len(in) || in[at] != '"' {
		return 0, false
	}
	at++
	if at < len(in) && in[at] == '-' {
		at++
	}
	whole := at
	at = afterDigits(in, at)
	if at == whole || in[whole] == '0' && at > whole+1 || at == len(in) {
		return 0, false
	}
	integer = in[at] != '.'
	if !integer {
		fraction := at + 1
		if at = afterDigits(in, fraction); at == fraction || at == len(in) {
			return 0, false
		}
	}
	if in[at] != '"' {
		return 0, false
	}
	return at + 1, integer
}

func afterDigits(in []byte, at int) int {
	for at < len(in) && in[at]-'0' <= 9 {
		at++
	}
	return at
}

// plainText returns where the string ends that begins at in[at], or 0 where that is none, or one that is not
// ASCII, has escapes, or ends with in.
func plainText(in []byte, at int) (end int) {
	if at >= len(in) || in[at] != '"' {
		return 0
	}
	for at++; at+8 <= len(in); at += 8 {
		special := specialBytes(binary.LittleEndian.Uint64(in[at:]))
		if special == 0 {
			continue
		}
		at += bits.TrailingZeros64(special) / 8
		if in[at] == '"' {
			return at + 1
		}
		return 0
	}
	return 0
}

func (w *wire) textOn() ([]byte, bool) {
	if !w.expect('"') {
		return nil, false
	}
	in, begin := w.in, w.at-1
	w.escaped = false
	ascii := true
	for w.at < len(in) {
		switch c := in[w.at]; {
		case c == '"':
			w.at++
			raw := in[begin:w.at]
			if !ascii && !utf8.Valid(raw) {
				return nil, w.fail("a string is not UTF-8")
			}
			return raw, true
		case c == '\\':
			n := escapeLen(in[w.at:])
			if n == 0 {
				return nil, w.fail("a string has an escape that JSON doesn't have")
			}
			w.escaped = true
			w.at += n
		case c < ' ':
			return nil, w.fail("a string has the control character %#x", c)
		default:
			ascii = ascii && c < utf8.RuneSelf
			w.at++
		}
	}
	return nil, w.fail("it ends within a string")
}

// specialBytes has the high bit of the first byte set, and none before it, of eight that is a quote, a
// backslash, a control character or not ASCII. (Later bytes may have theirs set for nothing.)
func specialBytes(b uint64) uint64 {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	quote, backslash := b^(ones*'"'), b^(ones*'\\')
	return (b | (b-ones*' ')&^b | (quote-ones)&^quote | (backslash-ones)&^backslash) & high
}

// escapeLen is the length of the escape that b begins with, both halves of a surrogate pair, or 0 where it
// is none or half of a pair.
func escapeLen(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
	default:
		return 0
	}
	switch r := hex4(b[2:]); {
	case r < 0 || 0xDC00 <= r && r <= 0xDFFF:
		return 0
	case 0xD800 <= r && r <= 0xDBFF:
		if len(b) < 12 || b[6] != '\\' || b[7] != 'u' {
			return 0
		}
		if low := hex4(b[8:]); low < 0xDC00 || low > 0xDFFF {
			return 0
		}
		return 12
	default:
		return 6
	}
}

// hex4 is the value of four hexadecimal digits, negative where b begins with none.
func hex4(b []byte) int {
	if len(b) < 4 {
		return -1
	}
	n := 0
	for _, c := range b[:4] {
		switch {
		case '0' <= c && c <= '9':
			n = n<<4 | int(c-'0')
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			n = n<<4 | int(c|0x20-'a'+10)
		default:
			return -1
		}
	}
	return n
}

// plain is what the string says that text has just read.
func (w *wire) plain(raw []byte) []byte {
	if !w.escaped {
		return raw[1 : len(raw)-1]
	}
	b, err := jsontext.AppendUnquote(nil, raw)
	if err != nil {
		w.fail("%v", err)
	}
	return b
}
