package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxDepth is more than the depth of any request to a marketplace.
const maxDepth = 32

// An object is a JSON object as it was sent. Names are case-sensitive.
type object struct {
	names   []string
	members map[string]any // *object, []any, string, json.Number, bool or nil
	raw     []byte
}

// A shapeError reports JSON that does not have the shape that a marketplace documents.
type shapeError struct{ path, message string }

func (e *shapeError) Error() string {
	if e.path == "" {
		return e.message
	}
	return e.path + ": " + e.message
}

func misshapen(path, format string, args ...any) error {
	return &shapeError{path, fmt.Sprintf(format, args...)}
}

// parseObject reads a body that must be one JSON object: valid UTF-8, without duplicate members,
// and with nothing after it.
func parseObject(body []byte) (*object, error) {
	if !utf8.Valid(body) {
		return nil, misshapen("", "the body is not valid UTF-8")
	}
	p := parser{json.NewDecoder(bytes.NewReader(body)), body}
	p.UseNumber()
	value, err := p.value("", 0)
	if err != nil {
		return nil, err
	}
	if _, err := p.Token(); !errors.Is(err, io.EOF) {
		return nil, misshapen("", "the body has more after its JSON value")
	}
	o, ok := value.(*object)
	if !ok {
		return nil, misshapen("", "the body must be a JSON object")
	}
	return o, nil
}

type parser struct {
	*json.Decoder
	body []byte
}

func (p parser) value(path string, depth int) (any, error) {
	if depth > maxDepth {
		return nil, misshapen(path, "more than %d levels deep", maxDepth)
	}
	token, err := p.Token()
	if err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, misshapen("", "the body ends before its JSON value does")
		}
		return nil, misshapen("", "the body is not JSON: %v", err)
	}
	switch token {
	case json.Delim('{'):
		o := &object{members: map[string]any{}}
		start := p.InputOffset() - 1
		for p.More() {
			token, err := p.Token()
			if err != nil {
				return nil, misshapen("", "the body is not JSON: %v", err)
			}
			name := token.(string) // Token returns only strings for names
			at := member(path, name)
			if _, twice := o.members[name]; twice {
				return nil, misshapen(at, "the member appears twice")
			}
			v, err := p.value(at, depth+1)
			if err != nil {
				return nil, err
			}
			o.names = append(o.names, name)
			o.members[name] = v
		}
		if _, err := p.Token(); err != nil {
			return nil, misshapen("", "the body is not JSON: %v", err)
		}
		o.raw = p.body[start:p.InputOffset()]
		return o, nil
	case json.Delim('['):
		list := []any{}
		for p.More() {
			v, err := p.value(element(path, len(list)), depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		if _, err := p.Token(); err != nil {
			return nil, misshapen("", "the body is not JSON: %v", err)
		}
		return list, nil
	}
	return token, nil
}

func member(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func element(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// only returns an error if the object has a member with another name.
func (o *object) only(path string, names ...string) error {
	for _, name := range o.names {
		if !slices.Contains(names, name) {
			return misshapen(member(path, name), "there is no such member; known are %s", strings.Join(names, ", "))
		}
	}
	return nil
}

// has reports whether the member is present; null counts as absent.
func (o *object) has(name string) bool { return o.members[name] != nil }

// get returns the member as a T, or the zero value if it is absent.
func get[T any](o *object, path, name, kind string) (T, error) {
	var zero T
	v := o.members[name]
	if v == nil {
		return zero, nil
	}
	t, ok := v.(T)
	if !ok {
		return zero, misshapen(member(path, name), "it must be %s", kind)
	}
	return t, nil
}

func (o *object) text(path, name string) (string, error) {
	return get[string](o, path, name, "a string")
}

func (o *object) number(path, name string) (json.Number, error) {
	return get[json.Number](o, path, name, "a number")
}

// objects returns the member as a list of objects, or nil if it is absent.
func (o *object) objects(path, name string) ([]*object, error) {
	list, err := get[[]any](o, path, name, "a list")
	if err != nil || list == nil {
		return nil, err
	}
	objects := make([]*object, len(list))
	for i, v := range list {
		e, ok := v.(*object)
		if !ok {
			return nil, misshapen(element(member(path, name), i), "it must be an object")
		}
		objects[i] = e
	}
	return objects, nil
}

// texts returns the member as an object of strings, or nil if it is absent.
func (o *object) texts(path, name string) (map[string]string, error) {
	m, err := get[*object](o, path, name, "an object")
	if err != nil || m == nil {
		return nil, err
	}
	texts := map[string]string{}
	for _, key := range m.names {
		text, ok := m.members[key].(string)
		if !ok {
			return nil, misshapen(member(member(path, name), key), "it must be a string")
		}
		texts[key] = text
	}
	return texts, nil
}
