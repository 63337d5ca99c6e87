package table

import (
	"fmt"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// itemReader reads the attributes of an item or of a map in it; the first failure stays in err, and
// what is read after it is not to be used.
type itemReader struct {
	item map[string]types.AttributeValue
	err  error

	unexportable []string // the paths of unknown members that no document can hold
}

// read reads what a newer version may have stored in another form, and reports false then. It is no failure
// of r.
func read[T any](r *itemReader, to *T, how func(*itemReader) T) bool {
	in := itemReader{item: r.item}
	value := how(&in)
	if in.err != nil {
		return false
	}
	*to = value
	r.unexportable = append(r.unexportable, in.unexportable...)
	return true
}

// keepUnknown keeps an attribute that this version can't read as a document.
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

// storedError is the failure of a reader of a whole item.
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

func (r *itemReader) int32(name string) int32 {
	n, err := strconv.ParseInt(r.number(name), 10, 32)
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

// exactTime is a time as metering.FormatTime writes it.
func (r *itemReader) exactTime(name string) time.Time {
	t := r.time(name)
	if r.err == nil && metering.FormatTime(t) != r.text(name) {
		r.fail(name, "a time in UTC with three decimals")
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

// join takes over what a reader of the attribute of that name has found.
func (r *itemReader) join(name string, in itemReader) {
	for _, path := range in.unexportable {
		r.unexportable = append(r.unexportable, name+"."+path)
	}
	if r.err == nil && in.err != nil {
		r.err = fmt.Errorf("%s: %w", name, in.err)
	}
}

func (r *itemReader) metaInfo(name string) metering.MetaInfo {
	in := itemReader{item: r.object(name)}
	var m metering.MetaInfo
	for member := range in.item {
		if !in.metaInfoMember(&m, member) {
			in.keepUnknown(&m.Unknown, member)
		}
	}
	r.join(name, in)
	return m
}

// metaInfoMember reports false if this version does not know the member, or not in this form: passing it on
// might break a client, failing would break a list.
func (r *itemReader) metaInfoMember(m *metering.MetaInfo, name string) bool {
	switch name {
	case "SkipValidation":
		return read(r, &m.SkipValidation, func(r *itemReader) *bool { return r.flag(name) })
	case "source":
		return read(r, &m.Source, func(r *itemReader) *metering.Source {
			source := metering.Source(r.text(name))
			return &source
		})
	case "timestamp":
		return read(r, &m.Timestamp, func(r *itemReader) *time.Time {
			t := r.exactTime(name)
			return &t
		})
	case "originRecords":
		return read(r, &m.OriginRecords, func(r *itemReader) map[string]metering.Quantity { return r.quantities(name) })
	case "billableRecords":
		return read(r, &m.BillableRecords, func(r *itemReader) []metering.BillableRecord { return r.billableRecords(name) })
	}
	carried, known := metering.CarriedMemberNamed(name)
	var value any
	if !known || !read(r, &value, func(r *itemReader) any { return r.carried(carried) }) {
		return false
	}
	if m.Carried == nil {
		m.Carried = map[string]any{}
	}
	m.Carried[name] = value
	return true
}

func (r *itemReader) flag(name string) *bool {
	b, ok := r.item[name].(*types.AttributeValueMemberBOOL)
	if !ok {
		r.fail(name, "a boolean")
		return nil
	}
	return &b.Value
}

func (r *itemReader) carried(m metering.CarriedMember) any {
	switch m.Kind {
	case metering.CarriedTime:
		return metering.FormatTime(r.exactTime(m.Name))
	case metering.CarriedText:
		return r.text(m.Name)
	}
	n, err := metering.ParseNumber(r.number(m.Name))
	if err == nil && m.Kind == metering.CarriedCount {
		_, err = strconv.ParseInt(n.String(), 10, 32)
	}
	if err != nil {
		r.fail(m.Name, "a number of its kind")
	}
	return n
}

func (r *itemReader) billableRecords(name string) []metering.BillableRecord {
	l, ok := r.item[name].(*types.AttributeValueMemberL)
	if !ok {
		r.fail(name, "a list")
		return nil
	}
	records := make([]metering.BillableRecord, len(l.Value))
	for i, element := range l.Value {
		m, ok := element.(*types.AttributeValueMemberM)
		if !ok {
			r.fail(name, "a list of maps")
			return nil
		}
		in := itemReader{item: m.Value}
		records[i] = metering.BillableRecord{Key: in.text("key"), Quantity: in.quantity("quantity")}
		if in.has("properties") {
			records[i].Properties, ok = in.document("properties").(map[string]any)
			if !ok {
				in.fail("properties", "a map")
			}
		}
		for member := range in.item {
			if member != "key" && member != "quantity" && member != "properties" {
				in.keepUnknown(&records[i].Unknown, member)
			}
		}
		r.join(fmt.Sprintf("%s[%d]", name, i), in)
	}
	return records
}

func (r *itemReader) document(name string) any {
	document, err := valueDocument(r.item[name])
	if err != nil {
		r.fail(name, err.Error())
	}
	return document
}

// valueDocument is the inverse of documentValue.
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
