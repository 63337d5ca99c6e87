// Package listjson copies the groups in DynamoDB's response to a Query into the API's JSON, in one
// pass and without intermediate values: it is the hot path of a list (decision 21). It also finds
// strings in the response to a BatchGetItem, for validation.
//
//	listjson.go  a response: its items, its last key, the units that it consumed
//	batch.go     a response to BatchGetItem: strings of its items
//	schema.go    the members that are copied, from metering.GroupMembers
//	copy.go      an attribute value becomes a value of JSON
//	scan.go      reads any JSON
package listjson

import "fmt"

// PositionAttribute is the sort key of every index. A list's progress is measured by it.
const PositionAttribute = "_time"

// Group is a group of the response in the API's JSON. Its bytes are valid until the next group is
// decoded.
type Group struct {
	Page     []byte // all groups up to this one
	MetaInfo []byte // of this one
	Position []byte // PositionAttribute
}

// Response is what a response to a Query contains besides its items.
type Response struct {
	Last  string  // the position of LastEvaluatedKey; empty if nothing is left to read
	Units float64 // consumed, if they were requested
}

// AppendGroups appends the groups of DynamoDB's response to a Query to those that begin at
// out[begins], joined by commas. It calls take for each group, in their order, and adds the group
// if take returns true.
//
//   - Strings are checked and keep their escapes; numbers stay as DynamoDB spells them.
//   - The members of a group are those of the schema, checked for their types. Everything else is
//     left out, so data that is stored for the service alone is not returned. An optional member
//     of another type, which a newer version may have written, is left out too.
//   - A response that is cut, is not JSON, holds what the API's JSON can't (binary, a set) or has
//     another number of items than its Count is an error, never a shorter list.
//
// A group takes fewer bytes than its item in the response.
func AppendGroups(out, response []byte, begins int, take func(Group) (keep bool, err error)) ([]byte, Response, error) {
	cp := copier{schema: theSchema(), in: response, out: out, first: begins}
	var rest Response
	items, count := -1, -1.0
	ok := cp.object(func(name []byte) (ok bool) {
		switch string(name) {
		case "Items":
			if items >= 0 {
				return cp.fail("Items is given twice")
			}
			items = 0
			return cp.array(func() bool {
				items++
				return cp.item(take)
			})
		case "Count":
			if count >= 0 {
				return cp.fail("Count is given twice")
			}
			count, ok = cp.float()
			return ok
		case "LastEvaluatedKey":
			if rest.Last != "" {
				return cp.fail("LastEvaluatedKey is given twice")
			}
			rest.Last, ok = cp.lastKey()
			return ok
		case "ConsumedCapacity":
			return cp.object(func(name []byte) (ok bool) {
				if string(name) != "CapacityUnits" {
					return cp.skip(0)
				}
				rest.Units, ok = cp.float()
				return ok
			})
		default:
			return cp.skip(0)
		}
	})
	if cp.peek(); ok && cp.at < len(cp.in) {
		ok = cp.fail("more follows the response")
	}
	if ok && (items < 0 || float64(items) != count) {
		ok = cp.fail("the response has %d items, and its Count is %v", items, count)
	}
	if !ok {
		cp.fail("it is not a response to Query")
	}
	return cp.out, rest, cp.err
}

// copier is DynamoDB's response, read up to at, and the output so far.
type copier struct {
	schema  *schema
	in, out []byte
	at      int
	first   int   // out[first:] are the groups
	err     error // the first failure; later output is not used

	escaped  bool // the last string has escapes
	position []byte
	metaInfo [2]int // its bounds in out
}

// fail stores the first failure and returns false.
func (cp *copier) fail(format string, a ...any) bool {
	if cp.err == nil {
		cp.err = fmt.Errorf("DynamoDB's response at byte %d of %d: %s", cp.at, len(cp.in), fmt.Sprintf(format, a...))
	}
	return false
}

func (cp *copier) item(take func(Group) (bool, error)) bool {
	before := len(cp.out)
	if before > cp.first {
		cp.out = append(cp.out, ',')
	}
	cp.position, cp.metaInfo = nil, [2]int{}
	if !cp.copyObject(kindGroup, 0) {
		return false
	}
	keep, err := take(Group{Page: cp.out[cp.first:], MetaInfo: cp.out[cp.metaInfo[0]:cp.metaInfo[1]], Position: cp.position})
	if err != nil {
		cp.err = err
		return false
	}
	if !keep {
		cp.out = cp.out[:before]
	}
	return true
}

func (cp *copier) lastKey() (position string, ok bool) {
	cp.position = nil
	ok = cp.object(func(name []byte) bool {
		if string(name) != PositionAttribute {
			return cp.skip(0)
		}
		tag, ok := cp.tag()
		return ok && cp.copyValue(tag, kindPosition, 0)
	})
	if ok && len(cp.position) == 0 {
		ok = cp.fail("LastEvaluatedKey has no %s", PositionAttribute)
	}
	return string(cp.position), ok
}
