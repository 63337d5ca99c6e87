package wire

import (
	"math"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// object is a JSON object of a request that is read into an O; each of its members may occur once.
// (An object that is also stored, such as a group with its metaInfo and billable records, has its
// members listed in the domain: readMembers.)
type object[O any] struct {
	due     string // what the object is, for messages
	members []member[O]
}

// member is a member of an object. read is called at its value.
type member[O any] struct {
	name string
	read func(d *decoder, o *O) error
}

// read reads the object into o.
func (s *object[O]) read(d *decoder, o *O) error {
	return d.object(s.due, func(name string) error {
		for i := range s.members {
			if s.members[i].name == name {
				return s.members[i].read(d, o)
			}
		}
		return d.unknown(name, namesOf(s.members, func(m *member[O]) string { return m.name }))
	})
}

// value reads an object on its own.
func (s *object[O]) value(d *decoder) (o O, err error) {
	err = s.read(d, &o)
	return o, err
}

// field is a member that is read into a field. A null leaves the field as it is.
func field[O, T any](name string, read func(*decoder) (T, error), to func(*O) *T) member[O] {
	return member[O]{name, func(d *decoder, o *O) (err error) {
		if !d.null() {
			*to(o), err = read(d)
		}
		return err
	}}
}

// pointer returns a reader of a pointer to what read reads.
func pointer[T any](read func(*decoder) (T, error)) func(*decoder) (*T, error) {
	return func(d *decoder) (*T, error) {
		value, err := read(d)
		return &value, err
	}
}

// listOf returns a reader of an array, whose elements are read by element.
func listOf[T any](due string, element func(*decoder) (T, error)) func(*decoder) ([]T, error) {
	return func(d *decoder) (list []T, err error) {
		err = d.array(due, func(int) error {
			value, err := element(d)
			list = append(list, value)
			return err
		})
		return list, err
	}
}

// namesOf returns the names of members, in their order.
func namesOf[M any](members []M, name func(*M) string) []string {
	names := make([]string, len(members))
	for i := range members {
		names[i] = name(&members[i])
	}
	slices.Sort(names)
	return names
}

// readMembers reads an object into o. The domain lists its members. A member that is null stays
// unchanged. If the object is stored, unknown members, and members in a form that this version does
// not read, are stored in unknown.
func readMembers[O any](d *decoder, due string, members []metering.Member[O], o *O, unknown *map[string]any) error {
	return d.object(due, func(name string) error {
		m := metering.MemberNamed(members, name)
		if d.stored {
			return readStored(d, name, m, o, unknown)
		}
		if m == nil {
			return d.unknown(name, namesOf(members, func(m *metering.Member[O]) string { return m.Name }))
		}
		if d.null() {
			return nil
		}
		value, err := d.value(m.Kind, m.Values)
		if err == nil {
			m.Set(o, value)
		}
		return err
	})
}

// readStored reads a member of a stored object; m is nil if this version does not know it.
func readStored[O any](d *decoder, name string, m *metering.Member[O], o *O, unknown *map[string]any) error {
	if m != nil && isNested(m.Kind) && d.json.PeekKind() == nestedKind(m.Kind) {
		value, err := d.value(m.Kind, nil)
		if err == nil {
			m.Set(o, value)
		}
		return err
	}
	document, err := d.document(math.MaxInt, numeral)
	if err != nil {
		return err
	}
	if m != nil {
		if value, ok := storedValue(m.Kind, document); ok {
			m.Set(o, value)
			return nil
		}
	}
	if *unknown == nil {
		*unknown = map[string]any{}
	}
	(*unknown)[name] = document
	return nil
}

func numeral(text string) (any, error) { return metering.Numeral(text), nil }

// isNested reports whether a value of the kind has members of its own.
func isNested(kind metering.Kind) bool {
	switch kind {
	case metering.KindEntitlementInfo, metering.KindDimensions, metering.KindMarketplaceIDs,
		metering.KindMetricInfo, metering.KindFilterGroups, metering.KindMetricFilters:
		return true
	default:
		return false
	}
}

// nestedKind is how the JSON of a nested value begins.
func nestedKind(kind metering.Kind) jsontext.Kind {
	switch kind {
	case metering.KindDimensions, metering.KindFilterGroups, metering.KindMetricFilters:
		return '['
	default:
		return '{'
	}
}

// storedValue is the value of a member whose kind is not nested. ok is false if the document has
// another form.
func storedValue(kind metering.Kind, document any) (value any, ok bool) {
	switch kind {
	case metering.KindText:
		value, ok = document.(string)
	case metering.KindTime:
		text, _ := document.(string)
		t, err := metering.ParseTime(text)
		value, ok = t, err == nil && metering.FormatTime(t) == text
	case metering.KindCount:
		number, _ := document.(metering.Numeral)
		n, err := parseInt32(string(number))
		value, ok = n, err == nil
	case metering.KindFlag:
		value, ok = document.(bool)
	case metering.KindQuantity:
		number, _ := document.(metering.Numeral)
		q, err := metering.ParseQuantity(string(number))
		value, ok = q, err == nil
	case metering.KindProperties:
		value, ok = document.(map[string]any)
	case metering.KindTexts:
		list, isList := document.([]any)
		texts := make([]string, len(list))
		ok = isList
		for i := range list {
			text, isText := list[i].(string)
			texts[i], ok = text, ok && isText
		}
		value = texts
	case metering.KindDocument:
		value, ok = numbersOf(document)
		ok = ok && value != nil
	}
	return value, ok
}

// numbersOf returns the document with Numbers for its Numerals. ok is false if one does not fit.
func numbersOf(document any) (_ any, ok bool) {
	switch value := document.(type) {
	case metering.Numeral:
		n, err := metering.ParseNumber(string(value))
		return n, err == nil
	case []any:
		list := make([]any, len(value))
		for i := range value {
			if list[i], ok = numbersOf(value[i]); !ok {
				return nil, false
			}
		}
		return list, true
	case map[string]any:
		object := make(map[string]any, len(value))
		for name, member := range value {
			if object[name], ok = numbersOf(member); !ok {
				return nil, false
			}
		}
		return object, true
	default:
		return document, true
	}
}

// checkRequired returns an error if a stored object lacks a member without which it can't be read.
func checkRequired[O any](members []metering.Member[O], o *O) error {
	for i := range members {
		if m := &members[i]; m.Required && m.IsZero(o) {
			return metering.Errorf(metering.Invalid, "%s is missing", m.Name)
		}
	}
	return nil
}

// value reads the value of a member, as the type beside its kind. A text must be one of values, if
// there are any.
func (d *decoder) value(kind metering.Kind, values func() []string) (any, error) {
	switch kind {
	case metering.KindText:
		if values != nil {
			return d.oneOf(values())
		}
		return d.text()
	case metering.KindTime:
		return d.time()
	case metering.KindAmount:
		return d.amount()
	case metering.KindCount:
		return d.int32()
	case metering.KindFlag:
		return d.boolean()
	case metering.KindQuantity:
		return d.quantity()
	case metering.KindQuantities:
		return d.quantities()
	case metering.KindProperties:
		return d.properties()
	case metering.KindBillableRecords:
		return d.billableRecords()
	case metering.KindMetaInfo:
		var m metering.MetaInfo
		err := readMembers(d, "an object", metering.MetaInfoMembers, &m, nil)
		return m, err
	case metering.KindProblems:
		return listOf("an array of problems", func(d *decoder) (p metering.Problem, err error) {
			err = readMembers(d, "a problem, an object", metering.ProblemMembers, &p, nil)
			return p, err
		})(d)
	case metering.KindEntitlementInfo:
		var info metering.EntitlementInfo
		err := readMembers(d, "an object", metering.EntitlementInfoMembers, &info, &info.Unknown)
		info.DimensionsKnown = info.Dimensions != nil
		return info, err
	case metering.KindDimensions:
		return readList(d, "an array of dimensions", "a dimension, an object", metering.DimensionMembers,
			func(d *metering.Dimension) *map[string]any { return &d.Unknown })
	case metering.KindMarketplaceIDs:
		var ids metering.MarketplaceIDs
		err := readMembers(d, "an object", metering.MarketplaceMembers, &ids, &ids.Unknown)
		return ids, err
	case metering.KindMetricInfo:
		var info metering.MetricInfo
		err := readMembers(d, "an object", metering.MetricInfoMembers, &info, &info.Unknown)
		return info, err
	case metering.KindFilterGroups:
		return readList(d, "an array of groups of filters", "a group of filters, an object", metering.FilterGroupMembers,
			func(g *metering.FilterGroup) *map[string]any { return &g.Unknown })
	case metering.KindMetricFilters:
		return readList(d, "an array of filters", "a filter, an object", metering.FilterMembers,
			func(f *metering.MetricFilter) *map[string]any { return &f.Unknown })
	case metering.KindTexts:
		list, err := listOf("an array of strings", (*decoder).text)(d)
		if list == nil {
			list = []string{} // as readList
		}
		return list, err
	case metering.KindDocument:
		return d.document(metering.MaxPropertiesDepth, func(text string) (any, error) { return metering.ParseNumber(text) })
	default:
		panic("wire: a member has a kind that can't be read")
	}
}

// readList reads an array of objects. It is not nil, even if the array is empty.
func readList[O any](d *decoder, due, element string, members []metering.Member[O], unknown func(*O) *map[string]any) ([]O, error) {
	list := []O{}
	err := d.array(due, func(int) error {
		list = append(list, *new(O))
		o := &list[len(list)-1]
		return readMembers(d, element, members, o, unknown(o))
	})
	return list, err
}
