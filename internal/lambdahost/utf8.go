package lambdahost

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/aws/aws-lambda-go/events"
)

// checkUTF8 returns an error, and its status, if the path, the query or the body of a request is
// not UTF-8. encoding/json replaces such bytes with U+FFFD, so that the handler would read another
// text than the client sent. The local server reads the text unchanged and refuses it with the same
// status.
//
// A header may be anything, as on the local server: none is stored.
func checkUTF8(payload []byte, event *events.APIGatewayV2HTTPRequest) (status int, err error) {
	if replacesText(payload) {
		var sent struct {
			RawPath, RawQueryString, Body json.RawMessage
		}
		if err := json.Unmarshal(payload, &sent); err != nil {
			return http.StatusInternalServerError, err
		}
		switch {
		case replacesText(sent.RawPath):
			return http.StatusNotFound, errors.New("there is no such path here: it is not UTF-8")
		case replacesText(sent.RawQueryString):
			return http.StatusBadRequest, errors.New("the query string is not UTF-8")
		case replacesText(sent.Body):
			return http.StatusBadRequest, errBodyNotUTF8
		}
	}
	// API Gateway passes a body of JSON as text, and may itself have put U+FFFD into it. Then the
	// length differs from what the client sent.
	length := event.Headers["content-length"]
	if length != "" && !event.IsBase64Encoded && strings.ContainsRune(event.Body, unicode.ReplacementChar) && length != strconv.Itoa(len(event.Body)) {
		return http.StatusBadRequest, errBodyNotUTF8
	}
	return 0, nil
}

var errBodyNotUTF8 = errors.New("the body is not UTF-8")

// replacesText reports whether encoding/json replaces something in that JSON: bytes that are not
// UTF-8, or an escaped half of a surrogate pair.
func replacesText(valid []byte) bool {
	if !utf8.Valid(valid) {
		return true
	}
	if !bytes.Contains(valid, []byte(`\u`)) {
		return false
	}
	for {
		_, escape, found := bytes.Cut(valid, []byte{'\\'})
		if !found {
			return false
		}
		if escape[0] != 'u' {
			valid = escape[1:]
			continue
		}
		unit := escapedUnit(escape)
		valid = escape[5:]
		if !utf16.IsSurrogate(unit) {
			continue
		}
		low, paired := bytes.CutPrefix(valid, []byte{'\\'})
		if !paired || low[0] != 'u' || utf16.DecodeRune(unit, escapedUnit(low)) == unicode.ReplacementChar {
			return true
		}
		valid = low[5:]
	}
}

// escapedUnit returns the UTF-16 code unit of an escape in valid JSON; escape begins at its u.
func escapedUnit(escape []byte) rune {
	unit, _ := strconv.ParseUint(string(escape[1:5]), 16, 16)
	return rune(unit)
}
