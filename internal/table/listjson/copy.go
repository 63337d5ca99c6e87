package listjson

import (
	"encoding/binary"
	"math/bits"
	"strconv"
	"unicode/utf8"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// maxDepth is deeper than DynamoDB nests, and small enough for any stack.
const maxDepth = 100

// copyObject copies an object of attribute values, of kind k.
func (cp *copier) copyObject(k kind, depth int) bool {
	if depth > maxDepth {
		return cp.fail("it is nested more than %d levels deep", maxDepth)
	}
	if known := cp.schema.of(k); known != nil {
		return cp.copyKnown(known, depth)
	}
	of := kindAny
	if k == kindAmounts {
		of = kindNumber
	}
	if !cp.expect('{') {
		return false
	}
	cp.out = append(cp.out, '{')
	inside := len(cp.out)
	for more := cp.peek() != '}'; more; more = cp.next() {
		name, ok := cp.text()
		if !ok || !cp.expect(':') {
			return false
		}
		if len(cp.out) > inside {
			cp.out = append(cp.out, ',')
		}
		cp.out = append(append(cp.out, name...), ':')
		tag, ok := cp.tag()
		if !ok || (tag != 'N' || !cp.copyPlain(kindNumber)) && !cp.copyValue(tag, of, depth+1) {
			return cp.fail("%s must be %s", name, of)
		}
	}
	cp.out = append(cp.out, '}')
	return cp.expect('}')
}

// copyKnown copies the known members of an object.
func (cp *copier) copyKnown(known *known, depth int) bool {
	if !cp.expect('{') {
		return false
	}
	cp.out = append(cp.out, '{')
	inside, seen := len(cp.out), uint64(0)
	for more := cp.peek() != '}'; more; more = cp.next() {
		place, tag, ok := cp.knownMember(known)
		if !ok {
			return false
		}
		if place < 0 {
			if !cp.skip(0) {
				return false
			}
			continue
		}
		m := &known.all[place]
		if seen&(1<<place) != 0 {
			return cp.fail("%s is given twice", m.name)
		}
		seen |= 1 << place
		before, value := len(cp.out), cp.at
		switch {
		case m.kind == kindPosition:
		case len(cp.out) > inside:
			cp.out = append(cp.out, m.out...)
		default:
			cp.out = append(cp.out, m.out[1:]...)
		}
		begin := len(cp.out)
		if (tag != m.tag || !cp.copyPlain(m.kind)) && !cp.copyValue(tag, m.kind, depth+1) {
			if !m.optional {
				return cp.fail("%s must be %s", m.name, m.kind)
			}
			cp.err, cp.at, cp.out = nil, value, cp.out[:before]
			if !cp.skip(0) || !cp.expect('}') {
				return false
			}
			continue
		}
		if m.kind == kindMetaInfo {
			cp.metaInfo = [2]int{begin, len(cp.out)}
		}
	}
	if missing := known.required &^ seen; missing != 0 {
		return cp.fail("%s is missing", known.all[bits.TrailingZeros64(missing)].name)
	}
	cp.out = append(cp.out, '}')
	return cp.expect('}')
}

// knownMember reads the name of a member and the tag of its value, and returns its index in k.all.
// If the member is not known, the index is negative and its whole value is still to be read.
func (cp *copier) knownMember(k *known) (place int, tag byte, ok bool) {
	if rest := cp.in[cp.at:]; len(rest) > 1 && rest[1] < utf8.RuneSelf {
		of := k.byLetter[rest[1]]
		for place := int(of.first); place < int(of.end); place++ {
			if m := &k.all[place]; len(rest) >= len(m.in) && string(rest[:len(m.in)]) == m.in {
				cp.at += len(m.in)
				return place, m.tag, true
			}
		}
	}
	raw, ok := cp.text()
	if !ok {
		return 0, 0, false
	}
	name := cp.plain(raw)
	if !cp.expect(':') {
		return 0, 0, false
	}
	for place := range k.all {
		if k.all[place].name == string(name) {
			tag, ok = cp.tag()
			return place, tag, ok
		}
	}
	return -1, 0, true
}

// copyPlain copies what follows the tag of an attribute value of kind k, if it has DynamoDB's usual
// spelling. Otherwise it changes nothing, and copyValue is called.
func (cp *copier) copyPlain(k kind) bool {
	in, end, quotes := cp.in, 0, 0
	switch k {
	case kindText:
		end = plainText(in, cp.at)
	case kindTime:
		end = cp.at + len(`"2006-01-02T15:04:05.000Z"`)
		if end >= len(in) || in[cp.at] != '"' || in[end-1] != '"' || !isTime(in[cp.at+1:end-1]) {
			return false
		}
	case kindNumber:
		end, _ = plainNumber(in, cp.at)
		quotes = 1
		if end-cp.at > len(`"12345678901234567890123456789012345678"`) { // a longer one may have more digits than DynamoDB allows
			return false
		}
	case kindInt32:
		var integer bool
		end, integer = plainNumber(in, cp.at)
		quotes = 1
		if !integer || end-cp.at > len(`"999999999"`) { // a longer one may be too large
			return false
		}
	}
	if end == 0 || end >= len(in) || in[end] != '}' {
		return false
	}
	cp.out = append(cp.out, in[cp.at+quotes:end-quotes]...)
	cp.at = end + 1
	return true
}

// copyValue copies what follows the tag of an attribute value, which must be one of kind k.
func (cp *copier) copyValue(tag byte, k kind, depth int) (ok bool) {
	switch tag {
	case 'S':
		ok = (k == kindText || k == kindAny || k == kindTime || k == kindPosition) && cp.copyText(k)
	case 'N':
		ok = (k == kindNumber || k == kindAny || k == kindInt32) && cp.copyNumber(k)
	case 'M':
		ok = (k == kindAmounts || k == kindDocument || k == kindMetaInfo || k == kindBillable || k == kindProblem || k == kindAny) && cp.copyObject(k, depth)
	case 'L':
		ok = (k == kindBillables || k == kindProblems || k == kindAny) && cp.copyList(k, depth)
	case tagBool:
		ok = (k == kindFlag || k == kindAny) && cp.copyFlag()
	case tagNull:
		ok = k == kindAny && cp.null()
	default:
		return cp.fail("it is binary or a set")
	}
	return ok && cp.expect('}')
}

// Tags of types whose names have more than one letter; the tag of any other type is its letter.
const tagBool, tagNull, tagOther = 1, 2, 3

// tag reads the beginning of an attribute value, up to the colon of {"S":"..."}.
func (cp *copier) tag() (tag byte, ok bool) {
	if b := cp.in[cp.at:]; len(b) > 5 && b[0] == '{' && b[1] == '"' && b[3] == '"' && b[4] == ':' {
		cp.at += 5
		switch b[2] {
		case 'S', 'N', 'M', 'L':
			return b[2], true
		}
		return tagOther, true
	}
	if !cp.expect('{') {
		return 0, false
	}
	name, ok := cp.text()
	if !ok {
		return 0, false
	}
	tag = tagNamed(cp.plain(name))
	return tag, cp.expect(':')
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

func (cp *copier) copyText(k kind) bool {
	raw, ok := cp.text()
	switch {
	case !ok:
		return false
	case k == kindText:
	case k == kindPosition:
		cp.position = cp.plain(raw)
		return len(cp.position) > 0
	case k == kindTime && !isTime(cp.plain(raw)):
		return false
	}
	cp.out = append(cp.out, raw...)
	return true
}

// isTime reports whether b is spelled as metering.FormatTime spells a time.
func isTime(b []byte) bool {
	return len(b) == len("0000-00-00T00:00:00.000Z") &&
		isSpelled(b, 0xFFF0F0FFF0F0F0F0, 0x2D30302D30303030) && // 0000-00-
		isSpelled(b[8:], 0xF0F0FFF0F0FFF0F0, 0x30303A3030543030) && // 00T00:00
		isSpelled(b[16:], 0xFFF0F0F0FFF0F0FF, 0x5A3030302E30303A) // :00.000Z
}

// isSpelled compares the first eight bytes with the expected ones: in full if their mask is 0xFF,
// as digits if it is 0xF0.
func isSpelled(b []byte, mask, due uint64) bool {
	const six, sixteen = 0x0606060606060606, 0x1010101010101010
	eight := binary.LittleEndian.Uint64(b)
	digits := eight &^ mask // the lower half of each digit: 9 and 6 is below 16
	return eight&mask == due && (digits+six&^mask)&sixteen == 0
}

func (cp *copier) copyNumber(k kind) bool {
	raw, ok := cp.text()
	if !ok {
		return false
	}
	raw = cp.plain(raw)
	if _, err := metering.ParseNumber(string(raw)); err != nil {
		return cp.fail("%q: %v", raw, err)
	}
	if k == kindInt32 {
		if _, err := strconv.ParseInt(string(raw), 10, 32); err != nil {
			return cp.copyInt32(string(raw))
		}
	}
	cp.out = append(cp.out, raw...)
	return true
}

// copyInt32 copies an integer in another notation, such as 1E+3.
func (cp *copier) copyInt32(spelled string) bool {
	n, err := metering.ParseNumber(spelled)
	if err != nil {
		return false
	}
	i, err := strconv.ParseInt(n.String(), 10, 32)
	cp.out = strconv.AppendInt(cp.out, i, 10)
	return err == nil
}

func (cp *copier) copyList(k kind, depth int) bool {
	if depth > maxDepth {
		return cp.fail("it is nested more than %d levels deep", maxDepth)
	}
	of := kindAny
	switch k {
	case kindBillables:
		of = kindBillable
	case kindProblems:
		of = kindProblem
	}
	if !cp.expect('[') {
		return false
	}
	cp.out = append(cp.out, '[')
	inside := len(cp.out)
	for more := cp.peek() != ']'; more; more = cp.next() {
		if len(cp.out) > inside {
			cp.out = append(cp.out, ',')
		}
		tag, ok := cp.tag()
		if !ok || !cp.copyValue(tag, of, depth+1) {
			return false
		}
	}
	cp.out = append(cp.out, ']')
	return cp.expect(']')
}

func (cp *copier) copyFlag() bool {
	literal := "false"
	if cp.peek() == 't' {
		literal = "true"
	}
	cp.out = append(cp.out, literal...)
	return cp.word(literal)
}

func (cp *copier) null() bool {
	literal := "true" // and false, which DynamoDB never has, is null to the SDK too
	if cp.peek() == 'f' {
		literal = "false"
	}
	cp.out = append(cp.out, "null"...)
	return cp.word(literal)
}
