package wire

import (
	"slices"

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
// unchanged.
func readMembers[O any](d *decoder, due string, members []metering.Member[O], o *O) error {
	return d.object(due, func(name string) error {
		m := metering.MemberNamed(members, name)
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
		err := readMembers(d, "an object", metering.MetaInfoMembers, &m)
		return m, err
	case metering.KindProblems:
		return listOf("an array of problems", func(d *decoder) (p metering.Problem, err error) {
			err = readMembers(d, "a problem, an object", metering.ProblemMembers, &p)
			return p, err
		})(d)
	default:
		panic("wire: a member has a kind that can't be read")
	}
}
