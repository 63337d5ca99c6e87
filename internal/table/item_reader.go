package table

import (
	"fmt"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// itemReader reads the attributes of an item or of a map in it. The first failure is in err; values
// read after it must not be used.
type itemReader struct {
	item map[string]types.AttributeValue
	err  error

	unexportable []string // the paths of unknown members that no document can hold
}

// readMembers reads the members of o. Optional members that can't be read in this form, and members
// that this version does not know, are stored in unknown: passing them on might break a client, and
// failing would break a list. Attributes that isOwn reports are ignored.
func readMembers[O any](r *itemReader, members []metering.Member[O], o *O, unknown *map[string]any, isOwn func(string) bool) {
	for i := range members {
		m := &members[i]
		if !m.Required && !r.has(m.Name) {
			continue
		}
		in := itemReader{item: r.item}
		value := in.value(m.Name, m.Kind, m.Required)
		if in.err != nil && m.Droppable() {
			r.keepUnknown(unknown, m.Name)
			continue
		}
		r.unexportable = append(r.unexportable, in.unexportable...)
		if r.err == nil {
			r.err = in.err
		}
		m.Set(o, value)
	}
	for name := range r.item {
		if metering.MemberNamed(members, name) == nil && !isOwn(name) {
			r.keepUnknown(unknown, name)
		}
	}
}

func isNone(string) bool { return false }

// value reads a member as the type of its kind. A time that is not required must be spelled as
// metering.FormatTime does.
func (r *itemReader) value(name string, kind metering.Kind, required bool) any {
	switch kind {
	case metering.KindText:
		return r.text(name)
	case metering.KindTime:
		t := r.time(name)
		if r.err == nil && !required && metering.FormatTime(t) != r.text(name) {
			r.fail(name, "a time in UTC with three decimals")
		}
		return t
	case metering.KindAmount:
		return r.amount(name)
	case metering.KindCount:
		return r.int32(name)
	case metering.KindFlag:
		return r.flag(name)
	case metering.KindQuantity:
		return r.quantity(name)
	case metering.KindQuantities:
		return r.quantities(name)
	case metering.KindProperties:
		properties, ok := r.document(name).(map[string]any)
		if !ok {
			r.fail(name, "a map")
		}
		return properties
	case metering.KindBillableRecords:
		return r.billableRecords(name)
	case metering.KindMetaInfo:
		var m metering.MetaInfo
		in := itemReader{item: r.object(name)}
		readMembers(&in, metering.MetaInfoMembers, &m, &m.Unknown, isNone)
		r.join(name, in)
		return m
	case metering.KindProblems:
		return r.problems(name)
	default:
		panic("table: " + name + " has a kind that can't be read")
	}
}

// keepUnknown stores an attribute that this version can't read in unknown, as a document.
func (r *itemReader) keepUnknown(unknown *map[string]any, name string) {
	document, err := valueDocument(r.item[name])
	if err != nil {
		r.unexportable = append(r.unexportable, name)
		return
	}
	if *unknown == nil {
		*unknown = map[string]any{}
	}
	(*unknown)[name] = document
}

// storedError is the error of a reader of a whole item.
func (r *itemReader) storedError(what string) error {
	if r.err == nil {
		return nil
	}
	return &metering.Error{Code: metering.Internal, Message: "internal error", Cause: fmt.Errorf("%s that is stored: %w", what, r.err)}
}

func (r *itemReader) has(name string) bool {
	_, ok := r.item[name]
	return ok
}

func (r *itemReader) fail(name, due string) {
	if r.err == nil {
		r.err = fmt.Errorf("attribute %s is %T and not %s", name, r.item[name], due)
	}
}

func (r *itemReader) text(name string) string {
	s, ok := r.item[name].(*types.AttributeValueMemberS)
	if !ok {
		r.fail(name, "a string")
		return ""
	}
	return s.Value
}

func (r *itemReader) number(name string) string {
	n, ok := r.item[name].(*types.AttributeValueMemberN)
	if !ok {
		r.fail(name, "a number")
		return ""
	}
	return n.Value
}

func (r *itemReader) amount(name string) metering.Number {
	n, err := metering.ParseNumber(r.number(name))
	if err != nil {
		r.fail(name, "a number")
	}
	return n
}

// int32 reads an integer however it is spelled: 1E+3.
func (r *itemReader) int32(name string) int32 {
	n, err := strconv.ParseInt(r.amount(name).String(), 10, 32)
	if err != nil {
		r.fail(name, "a 32-bit integer")
	}
	return int32(n)
}

func (r *itemReader) time(name string) time.Time {
	t, err := metering.ParseTime(r.text(name))
	if err != nil {
		r.fail(name, "a time")
	}
	return t
}

// unixTime is in seconds or milliseconds, as it was stored.
func (r *itemReader) unixTime(name string) int64 {
	n, err := strconv.ParseInt(r.number(name), 10, 64)
	if err != nil {
		r.fail(name, "a time")
	}
	return n
}

func (r *itemReader) object(name string) map[string]types.AttributeValue {
	m, ok := r.item[name].(*types.AttributeValueMemberM)
	if !ok {
		r.fail(name, "a map")
		return nil
	}
	return m.Value
}

func (r *itemReader) quantity(name string) metering.Quantity {
	q, err := metering.ParseQuantity(r.number(name))
	if err != nil {
		r.fail(name, "a quantity")
	}
	return q
}

func (r *itemReader) quantities(name string) map[string]metering.Quantity {
	in := itemReader{item: r.object(name)}
	quantities := make(map[string]metering.Quantity, len(in.item))
	for key := range in.item {
		quantities[key] = in.quantity(key)
	}
	r.join(name, in)
	return quantities
}

// join adds the findings of a reader of the attribute with that name.
func (r *itemReader) join(name string, in itemReader) {
	for _, path := range in.unexportable {
		r.unexportable = append(r.unexportable, name+"."+path)
	}
	if r.err == nil && in.err != nil {
		r.err = fmt.Errorf("%s: %w", name, in.err)
	}
}

func (r *itemReader) flag(name string) bool {
	b, ok := r.item[name].(*types.AttributeValueMemberBOOL)
	if !ok {
		r.fail(name, "a boolean")
		return false
	}
	return b.Value
}

func (r *itemReader) billableRecords(name string) []metering.BillableRecord {
	return readList(r, name, metering.BillableMembers, func(b *metering.BillableRecord) *map[string]any { return &b.Unknown })
}

func (r *itemReader) problems(name string) []metering.Problem {
	return readList(r, name, metering.ProblemMembers, func(p *metering.Problem) *map[string]any { return &p.Unknown })
}

// readList reads a list of maps.
func readList[O any](r *itemReader, name string, members []metering.Member[O], unknown func(*O) *map[string]any) []O {
	l, ok := r.item[name].(*types.AttributeValueMemberL)
	if !ok {
		r.fail(name, "a list")
		return nil
	}
	list := make([]O, len(l.Value))
	for i, element := range l.Value {
		m, ok := element.(*types.AttributeValueMemberM)
		if !ok {
			r.fail(name, "a list of maps")
			return nil
		}
		in := itemReader{item: m.Value}
		readMembers(&in, members, &list[i], unknown(&list[i]), isNone)
		r.join(fmt.Sprintf("%s[%d]", name, i), in)
	}
	return list
}

func (r *itemReader) document(name string) any {
	document, err := valueDocument(r.item[name])
	if err != nil {
		r.fail(name, err.Error())
	}
	return document
}

// valueDocument is the inverse of attributeValue for documents.
func valueDocument(value types.AttributeValue) (any, error) {
	switch value := value.(type) {
	case *types.AttributeValueMemberNULL:
		return nil, nil
	case *types.AttributeValueMemberBOOL:
		return value.Value, nil
	case *types.AttributeValueMemberS:
		return value.Value, nil
	case *types.AttributeValueMemberN:
		return metering.ParseNumber(value.Value)
	case *types.AttributeValueMemberL:
		array := make([]any, len(value.Value))
		for i, element := range value.Value {
			var err error
			if array[i], err = valueDocument(element); err != nil {
				return nil, err
			}
		}
		return array, nil
	case *types.AttributeValueMemberM:
		object := make(map[string]any, len(value.Value))
		for name, member := range value.Value {
			var err error
			if object[name], err = valueDocument(member); err != nil {
				return nil, err
			}
		}
		return object, nil
	default:
		return nil, fmt.Errorf("what JSON can hold")
	}
}
