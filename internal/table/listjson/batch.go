package listjson

// Batch is what a response to BatchGetItem contains besides its items.
type Batch struct {
	Unprocessed []string // the sort keys of the items that are to be requested again
	Units       float64  // consumed, if they were requested
}

// EachText calls take for each item in DynamoDB's response to a BatchGetItem of one table. values
// are the strings in the attributes of those names, as they are spelled in the response: Unquote
// decodes them. One is nil if the item does not have the attribute; one of another type is an
// error. values are used again for the next item; their bytes are those of the response.
//
// A response that is cut or is not JSON is an error.
func EachText(response []byte, names []string, take func(values [][]byte) error) (Batch, error) {
	cp := copier{in: response}
	var rest Batch
	values := make([][]byte, len(names))
	answered := false
	item := func() bool {
		clear(values)
		if !cp.texts(names, values) {
			return false
		}
		if err := take(values); err != nil {
			cp.err = err
		}
		return cp.err == nil
	}
	ok := cp.object(func(name []byte) bool {
		switch string(name) {
		case "Responses":
			if answered {
				return cp.fail("Responses is given twice")
			}
			answered = true
			return cp.object(func([]byte) bool { return cp.array(item) })
		case "UnprocessedKeys":
			return cp.object(func([]byte) bool { return cp.keys(&rest.Unprocessed) })
		case "ConsumedCapacity":
			return cp.array(func() bool { return cp.units(&rest.Units) })
		default:
			return cp.skip(0)
		}
	})
	if cp.peek(); ok && cp.at < len(cp.in) {
		ok = cp.fail("more follows the response")
	}
	if ok && !answered && len(rest.Unprocessed) == 0 {
		ok = cp.fail("it has no Responses")
	}
	if !ok {
		cp.fail("it is not a response to BatchGetItem")
	}
	return rest, cp.err
}

// Unquote decodes a string as it is spelled in a response.
func Unquote(raw []byte) ([]byte, error) {
	cp := copier{in: raw}
	text, ok := cp.text()
	if !ok || cp.at < len(raw) {
		cp.fail("it is not a string")
		return nil, cp.err
	}
	text = cp.plain(text)
	return text, cp.err
}

// texts reads an item: the strings in the attributes of those names.
func (cp *copier) texts(names []string, values [][]byte) bool {
	return cp.object(func(name []byte) bool {
		for i := range names {
			if string(name) != names[i] {
				continue
			}
			if values[i] != nil {
				return cp.fail("%s is given twice", name)
			}
			tag, ok := cp.tag()
			if !ok || tag != 'S' {
				return cp.fail("%s must be a string", name)
			}
			values[i], ok = cp.text()
			return ok && cp.expect('}')
		}
		return cp.skip(0)
	})
}

// keys reads the keys that were not processed, of one table.
func (cp *copier) keys(unprocessed *[]string) bool {
	names, values := []string{"SK"}, make([][]byte, 1)
	return cp.object(func(name []byte) bool {
		if string(name) != "Keys" {
			return cp.skip(0)
		}
		return cp.array(func() bool {
			clear(values)
			if !cp.texts(names, values) || values[0] == nil {
				return cp.fail("a key has no SK")
			}
			key, err := Unquote(values[0])
			if err != nil {
				return cp.fail("%v", err)
			}
			*unprocessed = append(*unprocessed, string(key))
			return true
		})
	})
}

// units adds the units of a ConsumedCapacity.
func (cp *copier) units(sum *float64) bool {
	return cp.object(func(name []byte) bool {
		if string(name) != "CapacityUnits" {
			return cp.skip(0)
		}
		units, ok := cp.float()
		*sum += units
		return ok
	})
}
