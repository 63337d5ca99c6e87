package lambdahost

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"math/bits"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/marketmeter/marketmeter/internal/wire"
)

// envelope is an http.ResponseWriter that writes a response in the form that API Gateway expects
// from a function (payload 2.0): {"statusCode":200,"headers":{...},"body":"..."}. A text body is
// escaped into it as it is written, and so copied once; a body with a Content-Encoding, or that is
// not UTF-8, is in base64. A client sees the same as with the adapter's own writer (decision 20).
//
// The status and the headers are those of the first WriteHeader or Write, as in net/http. The
// Content-Type is guessed only if Write comes first.
type envelope struct {
	header http.Header
	json   []byte // nil until the response begins
	bodyAt int    // the offset of the body's text in json
	coded  bool   // the body has a Content-Encoding
	binary []byte // the body, if it is to be in base64
}

func newEnvelope() *envelope { return &envelope{header: http.Header{}} }

func (e *envelope) Header() http.Header { return e.header }

func (e *envelope) WriteHeader(status int) {
	if e.json != nil || status < http.StatusOK { // an envelope holds one response, the final one
		return
	}
	head := struct {
		StatusCode int               `json:"statusCode"`
		Headers    map[string]string `json:"headers"`
		Cookies    []string          `json:"cookies,omitempty"`
	}{status, map[string]string{}, e.header["Set-Cookie"]}
	for name, values := range e.header {
		if name != "Set-Cookie" {
			head.Headers[name] = strings.Join(values, ",")
		}
	}
	text, err := json.Marshal(head)
	if err != nil {
		panic(err) // strings and a number always have JSON
	}
	e.json = append(text[:len(text)-1], `,"body":"`...)
	e.bodyAt = len(e.json)
	e.coded = e.header.Get("Content-Encoding") != ""
}

func (e *envelope) Write(p []byte) (int, error) {
	if e.json == nil {
		if e.header.Get("Content-Type") == "" {
			e.header.Set("Content-Type", http.DetectContentType(p))
		}
		e.WriteHeader(http.StatusOK)
	}
	if e.coded {
		e.binary = append(e.binary, p...)
		return len(p), nil
	}
	// Most responses are one Write. This is all the space it needs, including what appendEscaped
	// and end add.
	e.json = slices.Grow(e.json, len(p)+wire.Escapes(p)+16)
	e.json = appendEscaped(e.json, p)
	return len(p), nil
}

// end returns the envelope, or nil if there was no response.
func (e *envelope) end() []byte {
	if e.json == nil {
		return nil
	}
	// Escaping changes only ASCII, so the escaped text is UTF-8 if the body is, however that was
	// split. Everything else that we write is UTF-8.
	if body := e.json[e.bodyAt:]; !utf8.Valid(body) {
		e.coded, e.binary, e.json = true, unescaped(body), e.json[:e.bodyAt]
	}
	if e.coded {
		e.json = base64.StdEncoding.AppendEncode(e.json, e.binary)
		return append(e.json, `","isBase64Encoded":true}`...)
	}
	return append(e.json, `"}`...)
}

// appendEscaped appends text escaped for a JSON string: with a backslash before quotes and
// backslashes, and control characters as \u00XX. It copies eight bytes at a time, up to the first
// of them that needs an escape; in a list, every eighth byte does.
func appendEscaped(b, text []byte) []byte {
	for len(text) >= 8 {
		b = slices.Grow(b, 8)
		word := binary.LittleEndian.Uint64(text)
		binary.LittleEndian.PutUint64(b[len(b):len(b)+8], word)
		special := specialBytes(word)
		if special == 0 {
			b, text = b[:len(b)+8], text[8:]
			continue
		}
		n := bits.TrailingZeros64(special) / 8
		b = appendEscape(b[:len(b)+n], text[n])
		text = text[n+1:]
	}
	for _, c := range text {
		if c == '"' || c == '\\' || c < ' ' {
			b = appendEscape(b, c)
		} else {
			b = append(b, c)
		}
	}
	return b
}

// specialBytes has a bit in the lowest byte of the word that needs an escape, and is 0 if none
// does. Higher bits have no meaning: the subtraction borrows from the byte above.
func specialBytes(word uint64) uint64 {
	const each, high = 0x0101010101010101, 0x8080808080808080
	quote, backslash := word^each*'"', word^each*'\\' // a byte that matches becomes 0
	return ((quote-each)&^quote | (backslash-each)&^backslash | (word-each*' ')&^word) & high
}

func appendEscape(b []byte, c byte) []byte {
	if c < ' ' {
		const digits = "0123456789abcdef"
		return append(b, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
	}
	return append(b, '\\', c)
}

// unescaped reverses appendEscaped.
func unescaped(escaped []byte) []byte {
	text := make([]byte, 0, len(escaped))
	for {
		plain, escape, found := bytes.Cut(escaped, []byte{'\\'})
		text = append(text, plain...)
		switch {
		case !found:
			return text
		case escape[0] == 'u':
			text, _ = hex.AppendDecode(text, escape[3:5]) // appendEscaped wrote them
			escaped = escape[5:]
		default:
			text, escaped = append(text, escape[0]), escape[1:]
		}
	}
}
