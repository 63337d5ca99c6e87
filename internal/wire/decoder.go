// Package wire is the API's JSON: it decodes what clients send strictly into the domain's values,
// and encodes those values for responses.
//
// Strict means that an unknown or duplicate member, trailing data, a wrong type and text that is
// not UTF-8 are errors. Each is a metering.Invalid with the path and what is accepted. A null
// counts as absent, except in a config patch, in which it removes. Quantities never go through a
// binary float.
package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/agnivade/levenshtein"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// decoder reads one JSON value and knows its position in it.
type decoder struct {
	json *jsontext.Decoder

	stored  bool // the value is stored: any version may have written it, so it is read leniently
	private bool // the value may hold secrets: messages don't quote it

	repeated map[string]string // texts that are likely to be read again, by their spelling
}

// decode reads data, which must hold one JSON value and nothing else, with read.
func decode[T any](data []byte, read func(*decoder) (T, error)) (T, error) {
	return decodeBy(&decoder{json: jsontext.NewDecoder(bytes.NewBuffer(data))}, read)
}

// decodeBy is decode with a decoder.
func decodeBy[T any](d *decoder, read func(*decoder) (T, error)) (T, error) {
	value, err := read(d)
	if err == nil {
		offset := d.json.InputOffset()
		if _, end := d.json.ReadToken(); !errors.Is(end, io.EOF) {
			err = metering.Errorf(metering.Invalid, "more follows the JSON value, from byte %d on: it must be one value", offset)
		}
	}
	if err != nil {
		var none T
		return none, err
	}
	return value, nil
}

// token reads the next token; a syntax error becomes one that a client can act on.
func (d *decoder) token() (jsontext.Token, error) {
	token, err := d.json.ReadToken()
	if err != nil {
		err = d.readError(err)
	}
	return token, err
}

// readError is the error that a client gets for one of jsontext.
func (d *decoder) readError(err error) error {
	if errors.Is(err, jsontext.ErrDuplicateName) {
		var syntax *jsontext.SyntacticError
		if errors.As(err, &syntax) {
			return metering.Errorf(metering.Invalid, "%s is there twice: each member may be given once", pathOf(string(syntax.JSONPointer), nil))
		}
	}
	if errors.Is(err, io.EOF) {
		return metering.Errorf(metering.Invalid, "there is no JSON: it ends before a value begins")
	}
	var syntax *jsontext.SyntacticError
	if errors.As(err, &syntax) {
		return metering.Errorf(metering.Invalid, "this is not JSON, from byte %d on: %v", syntax.ByteOffset, syntax.Err)
	}
	return &metering.Error{Code: metering.Invalid, Message: "this is not JSON", Cause: err}
}

// errorf returns an Invalid about the value read last. The message begins with the value's path.
func (d *decoder) errorf(format string, args ...any) error {
	return metering.Errorf(metering.Invalid, "%s %s", d.path(), fmt.Sprintf(format, args...))
}

// path is the path of the value read last, as code would write it: [3].records["cpu h"].
func (d *decoder) path() string {
	inArray := make([]bool, 0, 8)
	for level := 1; level <= d.json.StackDepth(); level++ {
		kind, _ := d.json.StackIndex(level)
		inArray = append(inArray, kind == '[')
	}
	return pathOf(string(d.json.StackPointer()), inArray)
}

// pathOf writes a JSON pointer as code would. Without the kinds of its levels, a number is read as
// an index.
func pathOf(pointer string, inArray []bool) string {
	var b strings.Builder
	for level, token := range slices.Collect(jsontext.Pointer(pointer).Tokens()) {
		_, notNumber := strconv.ParseUint(token, 10, 31)
		isIndex := notNumber == nil
		if level < len(inArray) {
			isIndex = inArray[level]
		}
		switch {
		case isIndex:
			b.WriteString("[" + token + "]")
		case isName(token):
			if b.Len() > 0 {
				b.WriteByte('.')
			}
			b.WriteString(token)
		default:
			b.WriteString("[" + metering.Quote(token) + "]")
		}
	}
	if b.Len() == 0 {
		return "the JSON value"
	}
	return b.String()
}

func isName(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

// describe names a token for the sentence "... is X: it must be Y".
func (d *decoder) describe(token jsontext.Token) string {
	switch kind := token.Kind(); {
	case d.private && kind == '"':
		return "a string"
	case d.private && kind == '0':
		return "a number"
	}
	switch token.Kind() {
	case 'n':
		return "null"
	case 't', 'f':
		return "the boolean " + token.String()
	case '"':
		return "the string " + metering.Quote(token.String())
	case '0':
		text := token.String()
		if len(text) > 40 {
			text = text[:40] + "..."
		}
		return "the number " + text
	case '{':
		return "an object"
	default:
		return "an array"
	}
}

// tokenOf reads the next token, which must be of one of the kinds. After a '{' or '[' the decoder
// is inside the object or array, still at its path.
func (d *decoder) tokenOf(kinds, due string) (jsontext.Token, error) {
	token, err := d.token()
	if err == nil && strings.IndexByte(kinds, byte(token.Kind())) < 0 {
		err = d.errorf("is %s: it must be %s", d.describe(token), due)
	}
	return token, err
}

// null reads a null, if it is next, and reports whether it did.
func (d *decoder) null() bool {
	if d.json.PeekKind() != 'n' {
		return false
	}
	_, err := d.json.ReadToken()
	return err == nil
}

// object reads an object. member reads the value of the named member and refuses unknown names.
func (d *decoder) object(due string, member func(name string) error) error {
	if _, err := d.tokenOf("{", due); err != nil {
		return err
	}
	return d.members(member)
}

// members reads what follows a '{'.
func (d *decoder) members(member func(name string) error) error {
	for d.json.PeekKind() != '}' {
		name, err := d.name()
		if err != nil {
			return err
		}
		if err := member(name); err != nil {
			return err
		}
	}
	_, err := d.token()
	return err
}

// name reads the name of a member.
func (d *decoder) name() (string, error) {
	if d.json.PeekKind() == '"' {
		return d.repeatedText()
	}
	token, err := d.token()
	return token.String(), err
}

// maxRepeated is how many texts a decoder holds.
const maxRepeated = 1000

// repeatedText is text for what a batch has many times: a text read before takes no memory.
func (d *decoder) repeatedText() (string, error) {
	if d.json.PeekKind() != '"' {
		return d.text()
	}
	raw, err := d.json.ReadValue()
	if err != nil {
		return "", d.readError(err)
	}
	if text, ok := d.repeated[string(raw)]; ok {
		return text, nil
	}
	unquoted, err := jsontext.AppendUnquote(nil, raw)
	if err != nil {
		return "", d.readError(err)
	}
	text := string(unquoted)
	if d.repeated == nil {
		d.repeated = map[string]string{}
	}
	if len(d.repeated) < maxRepeated {
		d.repeated[string(raw)] = text
	}
	return text, nil
}

// array reads an array; element reads the i-th.
func (d *decoder) array(due string, element func(i int) error) error {
	if _, err := d.tokenOf("[", due); err != nil {
		return err
	}
	return d.elements(element)
}

// elements reads what follows a '['.
func (d *decoder) elements(element func(i int) error) error {
	for i := 0; d.json.PeekKind() != ']'; i++ {
		if err := element(i); err != nil {
			return err
		}
	}
	_, err := d.token()
	return err
}

// unknown returns the error for a member that is not in known, with the nearest known name as a
// hint. It must be called after the name is read and before the value is.
func (d *decoder) unknown(name string, known []string) error {
	if near, ok := nearest(name, known); ok {
		return d.errorf("is unknown: did you mean %s?", near)
	}
	return d.errorf("is unknown: known here are %s", strings.Join(known, ", "))
}

// nearest returns the known name of which name is most likely a misspelling: equal except for case,
// or reachable by edits of at most a third of the characters of the shorter name. ok is false if no
// known name is so close. A name that is far longer than a known one is not compared, so that its
// length costs nothing.
func nearest(name string, known []string) (near string, ok bool) {
	fewest := math.MaxInt
	for _, k := range known {
		if len(name) > utf8.UTFMax*2*len(k) {
			continue
		}
		if strings.EqualFold(name, k) {
			return k, true
		}
		lower, lowerKnown := strings.ToLower(name), strings.ToLower(k)
		most := min(utf8.RuneCountInString(lower), utf8.RuneCountInString(lowerKnown)) / 3
		if edits := levenshtein.ComputeDistance(lower, lowerKnown); edits <= most && edits < fewest {
			near, fewest = k, edits
		}
	}
	return near, near != ""
}

func (d *decoder) text() (string, error) {
	token, err := d.tokenOf(`"`, "a string")
	if err != nil {
		return "", err
	}
	return token.String(), nil
}

func (d *decoder) boolean() (bool, error) {
	token, err := d.tokenOf("tf", "true or false")
	if err != nil {
		return false, err
	}
	return token.Bool(), nil
}

// number reads a JSON number as it is spelled.
func (d *decoder) number() (string, error) {
	token, err := d.tokenOf("0", "a number")
	if err != nil {
		return "", err
	}
	return token.String(), nil
}

// document reads any JSON value as one of metering's documents. Arrays and objects may nest at most
// most levels deep. number converts the text of a number.
func (d *decoder) document(most int, number func(text string) (any, error)) (any, error) {
	return d.documentAt(0, most, number)
}

func (d *decoder) documentAt(level, most int, number func(text string) (any, error)) (any, error) {
	token, err := d.token()
	if err != nil {
		return nil, err
	}
	if level == most && (token.Kind() == '{' || token.Kind() == '[') {
		return nil, d.errorf("is nested too deep: arrays and objects may nest at most %d levels deep here", most)
	}
	switch token.Kind() {
	case 'n':
		return nil, nil
	case 't', 'f':
		return token.Bool(), nil
	case '"':
		return token.String(), nil
	case '0':
		n, err := number(token.String())
		if err != nil {
			return nil, d.errorf("is %s: %v", d.describe(token), err)
		}
		return n, nil
	case '{':
		object := map[string]any{}
		err := d.members(func(name string) (err error) {
			object[name], err = d.documentAt(level+1, most, number)
			return err
		})
		return object, err
	default:
		array := []any{}
		err := d.elements(func(int) error {
			element, err := d.documentAt(level+1, most, number)
			array = append(array, element)
			return err
		})
		return array, err
	}
}
