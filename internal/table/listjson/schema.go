package listjson

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/marketmeter/marketmeter/internal/metering"
)

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
	kindPosition // PositionAttribute, not copied
)

func (k kind) String() string {
	return [...]string{
		"what JSON can hold", "a string", "a time", "a number", "a 32-bit integer", "a boolean", "a map of numbers",
		"a map", "a map", "a list", "a map", "an item", "a string",
	}[k]
}

// kinds are what the kinds of members are as attributes.
var kinds = map[metering.Kind]kind{
	metering.KindText:            kindText,
	metering.KindTime:            kindTime,
	metering.KindAmount:          kindNumber,
	metering.KindCount:           kindInt32,
	metering.KindFlag:            kindFlag,
	metering.KindQuantity:        kindNumber,
	metering.KindQuantities:      kindAmounts,
	metering.KindProperties:      kindDocument,
	metering.KindBillableRecords: kindBillables,
	metering.KindMetaInfo:        kindMetaInfo,
}

// member is an attribute that is copied.
type member struct {
	name     string
	kind     kind
	required bool
	optional bool // left out if it is of another type
}

// membersOf are the members that the API returns.
func membersOf[O any](members []metering.Member[O]) (all []member) {
	for i := range members {
		m := &members[i]
		kind, ok := kinds[m.Kind]
		if !ok {
			panic("listjson: " + m.Name + " has a kind that can't be copied")
		}
		if !m.Private {
			all = append(all, member{m.Name, kind, m.Required, m.Droppable()})
		}
	}
	return all
}

var groupMembers = append(membersOf(metering.GroupMembers), member{name: PositionAttribute, kind: kindPosition, required: true})

var (
	knownOfGroup    = knownMembers(groupMembers)
	knownOfMetaInfo = knownMembers(membersOf(metering.MetaInfoMembers))
	knownOfBillable = knownMembers(membersOf(metering.BillableMembers))
)

// Attributes are the names of those attributes of a group that AppendGroups reads.
func Attributes() []string {
	names := make([]string, len(groupMembers))
	for i, m := range groupMembers {
		names[i] = m.name
	}
	return names
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
	in, out string // "status":{"S": and ,"status":
	tag     byte   // of in
}

func knownMembers(members []member) (k known) {
	k.byLetter = slices.Repeat([]span{{}}, utf8.RuneSelf)
	slices.SortFunc(members, func(a, b member) int { return strings.Compare(a.name, b.name) })
	for i, m := range members {
		name, tag := `"`+m.name+`":`, m.kind.tag()
		k.all = append(k.all, knownMember{m, name + `{"` + tag + `":`, "," + name, tagNamed([]byte(tag))})
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

// tag is the type of an attribute of kind k, as DynamoDB names it; kindAny may have any.
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

// known returns false if k is no object whose members are known.
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
