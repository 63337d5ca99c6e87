package listjson

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/bits"
	"strconv"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// peek returns the next byte that is not white space, 0 at the end.
func (cp *copier) peek() byte {
	if cp.at < len(cp.in) && cp.in[cp.at] > ' ' {
		return cp.in[cp.at]
	}
	return cp.peekOn()
}

func (cp *copier) peekOn() byte {
	for ; cp.at < len(cp.in); cp.at++ {
		switch c := cp.in[cp.at]; c {
		case ' ', '\t', '\n', '\r':
		default:
			return c
		}
	}
	return 0
}

func (cp *copier) expect(c byte) bool {
	if cp.at < len(cp.in) && cp.in[cp.at] == c {
		cp.at++
		return true
	}
	return cp.expectOn(c)
}

func (cp *copier) expectOn(c byte) bool {
	if cp.peekOn() != c {
		return cp.fail("%q is due", c)
	}
	cp.at++
	return true
}

// next moves to the next member of an object or element of an array, if one exists.
func (cp *copier) next() bool {
	if cp.peek() != ',' {
		return false
	}
	cp.at++
	return true
}

func (cp *copier) word(word string) bool {
	cp.peek()
	if !bytes.HasPrefix(cp.in[cp.at:], []byte(word)) {
		return cp.fail("%s is due", word)
	}
	cp.at += len(word)
	return true
}

// object reads an object. member reads the value of the member of that name.
func (cp *copier) object(member func(name []byte) bool) bool {
	if !cp.expect('{') {
		return false
	}
	for more := cp.peek() != '}'; more; more = cp.next() {
		raw, ok := cp.text()
		if !ok {
			return false
		}
		name := cp.plain(raw)
		if !cp.expect(':') || !member(name) {
			return false
		}
	}
	return cp.expect('}')
}

func (cp *copier) array(element func() bool) bool {
	if !cp.expect('[') {
		return false
	}
	for more := cp.peek() != ']'; more; more = cp.next() {
		if !element() {
			return false
		}
	}
	return cp.expect(']')
}

// skip skips a value.
func (cp *copier) skip(depth int) bool {
	if depth > 2*maxDepth { // an attribute value is two levels of JSON
		return cp.fail("it is nested more than %d levels of JSON deep", 2*maxDepth)
	}
	switch c := cp.peek(); c {
	case '"':
		_, ok := cp.text()
		return ok
	case '{':
		return cp.object(func([]byte) bool { return cp.skip(depth + 1) })
	case '[':
		return cp.array(func() bool { return cp.skip(depth + 1) })
	case 't':
		return cp.word("true")
	case 'f':
		return cp.word("false")
	case 'n':
		return cp.word("null")
	default:
		_, ok := cp.float()
		return ok
	}
}

// float reads a JSON number that is not an attribute.
func (cp *copier) float() (float64, bool) {
	cp.peek()
	end := cp.at
	for end < len(cp.in) && bytes.IndexByte([]byte("+-.0123456789eE"), cp.in[end]) >= 0 {
		end++
	}
	raw := cp.in[cp.at:end]
	n, err := strconv.ParseFloat(string(raw), 64)
	if !isNumber(raw) || err != nil {
		return math.NaN(), cp.fail("a number is due")
	}
	cp.at = end
	return n, true
}

// text reads a string and returns it with its quotes and unchanged escapes.
func (cp *copier) text() ([]byte, bool) {
	if end := plainText(cp.in, cp.at); end > 0 {
		raw := cp.in[cp.at:end]
		cp.at, cp.escaped = end, false
		return raw, true
	}
	return cp.textOn()
}

// plainNumber returns the end of the string that begins at in[at], or 0 if none begins there or it
// is not a JSON number without an exponent.
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

// plainText returns the end of the string that begins at in[at], or 0 if none begins there, or if
// it is not ASCII, has escapes or ends with in.
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

func (cp *copier) textOn() ([]byte, bool) {
	if !cp.expect('"') {
		return nil, false
	}
	in, begin := cp.in, cp.at-1
	cp.escaped = false
	ascii := true
	for cp.at < len(in) {
		if cp.at+8 <= len(in) {
			special := specialBytes(binary.LittleEndian.Uint64(in[cp.at:]))
			if special == 0 {
				cp.at += 8
				continue
			}
			cp.at += bits.TrailingZeros64(special) / 8
		}
		switch c := in[cp.at]; {
		case c == '"':
			cp.at++
			raw := in[begin:cp.at]
			if !ascii && !utf8.Valid(raw) {
				return nil, cp.fail("a string is not UTF-8")
			}
			return raw, true
		case c == '\\':
			n := escapeLen(in[cp.at:])
			if n == 0 {
				return nil, cp.fail("a string has an escape that JSON doesn't have")
			}
			cp.escaped = true
			cp.at += n
		case c < ' ':
			return nil, cp.fail("a string has the control character %#x", c)
		default:
			ascii = ascii && c < utf8.RuneSelf
			cp.at++
		}
	}
	return nil, cp.fail("it ends within a string")
}

// specialBytes sets the high bit of the first of eight bytes that is a quote, a backslash, a
// control character or not ASCII, and none before it. (Later bytes may have theirs set without
// cause.)
func specialBytes(b uint64) uint64 {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	quote, backslash := b^(ones*'"'), b^(ones*'\\')
	return (b | (b-ones*' ')&^b | (quote-ones)&^quote | (backslash-ones)&^backslash) & high
}

// escapeLen returns the length of the escape that b begins with, both halves of a surrogate pair,
// or 0 if it is not an escape or only half of a pair.
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

// hex4 returns the value of four hexadecimal digits, or a negative number if b does not begin with
// them.
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

// plain decodes the string that text has just read.
func (cp *copier) plain(raw []byte) []byte {
	if !cp.escaped {
		return raw[1 : len(raw)-1]
	}
	b, err := jsontext.AppendUnquote(nil, raw)
	if err != nil {
		cp.fail("%v", err)
	}
	return b
}

// isNumber reports whether b is a number of JSON.
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
