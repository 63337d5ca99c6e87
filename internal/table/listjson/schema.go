package listjson

import (
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// kind is the type that an attribute must have to be copied.
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
	kindProblems
	kindProblem
	kindGroup
	kindPosition // PositionAttribute, not copied
)

func (k kind) String() string {
	return [...]string{
		"what JSON can hold", "a string", "a time", "a number", "a 32-bit integer", "a boolean", "a map of numbers",
		"a map", "a map", "a list", "a map", "a list", "a map", "an item", "a string",
	}[k]
}

// kindOf returns the kind of the attribute of a member of that kind.
func kindOf(k metering.Kind) kind {
	switch k {
	case metering.KindText:
		return kindText
	case metering.KindTime:
		return kindTime
	case metering.KindAmount, metering.KindQuantity:
		return kindNumber
	case metering.KindCount:
		return kindInt32
	case metering.KindFlag:
		return kindFlag
	case metering.KindQuantities:
		return kindAmounts
	case metering.KindProperties:
		return kindDocument
	case metering.KindBillableRecords:
		return kindBillables
	case metering.KindMetaInfo:
		return kindMetaInfo
	case metering.KindProblems:
		return kindProblems
	default:
		panic("listjson: a member has a kind that can't be copied")
	}
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
		if !m.Private {
			all = append(all, member{m.Name, kindOf(m.Kind), m.Required, m.Droppable()})
		}
	}
	return all
}

// schema holds the known members of each kind of object.
type schema struct{ group, metaInfo, billable, problem known }

// theSchema is built at its first use, so a program that lists nothing does not build it.
func theSchema() *schema {
	made.once.Do(func() {
		made.schema = schema{
			group:    knownMembers(append(membersOf(metering.GroupMembers), member{name: PositionAttribute, kind: kindPosition, required: true})),
			metaInfo: knownMembers(membersOf(metering.MetaInfoMembers)),
			billable: knownMembers(membersOf(metering.BillableMembers)),
			problem:  knownMembers(membersOf(metering.ProblemMembers)),
		}
	})
	return &made.schema
}

var made struct {
	once   sync.Once
	schema schema
}

// Attributes returns the names of the attributes of a group that AppendGroups reads.
func Attributes() []string {
	all := theSchema().group.all
	names := make([]string, len(all))
	for i := range all {
		names[i] = all[i].name
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

// tag returns DynamoDB's name of the type of an attribute of kind k; kindAny may have any.
func (k kind) tag() string {
	switch k {
	case kindText, kindTime, kindPosition:
		return "S"
	case kindNumber, kindInt32:
		return "N"
	case kindFlag:
		return "BOOL"
	case kindBillables, kindProblems:
		return "L"
	default:
		return "M"
	}
}

// of returns the known members of objects of kind k, nil if they have none.
func (s *schema) of(k kind) *known {
	switch k {
	case kindGroup:
		return &s.group
	case kindMetaInfo:
		return &s.metaInfo
	case kindBillable:
		return &s.billable
	case kindProblem:
		return &s.problem
	default:
		return nil
	}
}
