package metering

import (
	"encoding/binary"
	"maps"
	"slices"
)

// Matcher decides whether documents contain a wanted one, as the list operation's metaInfo filter
// defines it: an object member by member; an array if each wanted element is contained in some
// stored element; numbers by value; everything else if it is equal.
//
// It reads a document once, from the leaves up. For each value in it, it finds those wanted values
// of the same place (the same names; in arrays any element) that the value contains. A wanted
// object or array is checked only if the rarest of its members or elements was found. So a document
// of n values costs close to n steps, not n times the wanted values, which takes seconds for 375 KB
// and 4 KB.
//
// A Matcher must not be used by more than one goroutine at a time.
type Matcher struct {
	root  *place
	scope int // of marks: one for each object or array that is checked
	steps int // comparisons so far; tests bound them
}

// place is a path at which wanted values may be, and the values wanted there, each once. The values
// are numbered from 0.
type place struct {
	scalars     map[any]int
	containers  map[string]int // by their members or elements
	members     map[string]*place
	elements    *place
	children    [][]child // of each value
	emptyObject int       // the number of {}, or none
	emptyArray  int
	watchers    [][]int // of each value: the objects or arrays around it that are checked when it is found
	marks       []int   // of each value: the last scope in which it was found
	found       []int   // by the last call of contained
	parents     []int   // of each value: in how many objects or arrays it is wanted
}

// child is a value that an object or array must contain.
type child struct {
	place *place
	value int
}

const none = -1

// NewMatcher returns a Matcher of a document.
func NewMatcher(wanted map[string]any) *Matcher {
	m := &Matcher{root: newPlace()}
	m.root.add(wanted)
	m.root.watch()
	return m
}

func newPlace() *place {
	return &place{scalars: map[any]int{}, containers: map[string]int{}, members: map[string]*place{}, emptyObject: none, emptyArray: none}
}

// add adds a wanted value to those of the place and returns its number.
func (p *place) add(wanted any) int {
	switch wanted := wanted.(type) {
	case map[string]any:
		if len(wanted) == 0 {
			return p.addEmpty(&p.emptyObject)
		}
		children := make([]child, 0, len(wanted))
		identity := []byte{'{'}
		for _, name := range slices.Sorted(maps.Keys(wanted)) {
			member := p.members[name]
			if member == nil {
				member = newPlace()
				p.members[name] = member
			}
			value := member.add(wanted[name])
			children = append(children, child{member, value})
			identity = binary.AppendUvarint(identity, uint64(len(name)))
			identity = binary.AppendUvarint(append(identity, name...), uint64(value))
		}
		return p.addContainer(identity, children)
	case []any:
		if len(wanted) == 0 {
			return p.addEmpty(&p.emptyArray)
		}
		if p.elements == nil {
			p.elements = newPlace()
		}
		values := make([]int, len(wanted))
		for i, element := range wanted {
			values[i] = p.elements.add(element)
		}
		slices.Sort(values)
		var children []child
		identity := []byte{'['}
		for _, value := range slices.Compact(values) {
			children = append(children, child{p.elements, value})
			identity = binary.AppendUvarint(identity, uint64(value))
		}
		return p.addContainer(identity, children)
	default:
		value, ok := p.scalars[wanted]
		if !ok {
			value = p.addValue(nil)
			p.scalars[wanted] = value
		}
		return value
	}
}

func (p *place) addEmpty(value *int) int {
	if *value == none {
		*value = p.addValue(nil)
	}
	return *value
}

func (p *place) addContainer(identity []byte, children []child) int {
	value, ok := p.containers[string(identity)]
	if !ok {
		value = p.addValue(children)
		p.containers[string(identity)] = value
		for _, c := range children {
			c.place.parents[c.value]++
		}
	}
	return value
}

func (p *place) addValue(children []child) int {
	p.children = append(p.children, children)
	p.watchers = append(p.watchers, nil)
	p.marks = append(p.marks, 0)
	p.parents = append(p.parents, 0)
	return len(p.children) - 1
}

// watch makes each object and array watch one of its children: of those that the fewest others
// want, the one that the fewest watch.
func (p *place) watch() {
	for value, children := range p.children {
		if len(children) == 0 {
			continue
		}
		rarest := slices.MinFunc(children, func(a, b child) int {
			if byParents := a.place.parents[a.value] - b.place.parents[b.value]; byParents != 0 {
				return byParents
			}
			return len(a.place.watchers[a.value]) - len(b.place.watchers[b.value])
		})
		rarest.place.watchers[rarest.value] = append(rarest.place.watchers[rarest.value], value)
	}
	for _, member := range p.members {
		member.watch()
	}
	if p.elements != nil {
		p.elements.watch()
	}
}

// Matches reports whether stored, a document, contains the wanted one.
func (m *Matcher) Matches(stored any) bool {
	m.scope++
	return len(m.contained(m.root, stored, m.scope)) > 0
}

// contained returns the wanted values of the place that stored contains, except objects and arrays
// that are marked in the scope around it. The result is valid until the next call for the same
// place.
func (m *Matcher) contained(p *place, stored any, around int) []int {
	m.steps++
	p.found = p.found[:0]
	switch stored := stored.(type) {
	case map[string]any:
		if p.emptyObject != none {
			p.found = append(p.found, p.emptyObject)
		}
		m.scope++
		scope := m.scope
		if len(stored) < len(p.members) {
			for name, value := range stored {
				if member := p.members[name]; member != nil {
					m.mark(member, value, scope)
				}
			}
			for name := range stored {
				if member := p.members[name]; member != nil {
					m.complete(p, around, member, member.found, scope)
				}
			}
			return p.found
		}
		for name, member := range p.members {
			if value, ok := stored[name]; ok {
				m.mark(member, value, scope)
			}
		}
		for name, member := range p.members {
			if _, ok := stored[name]; ok {
				m.complete(p, around, member, member.found, scope)
			}
		}
	case []any:
		if p.emptyArray != none {
			p.found = append(p.found, p.emptyArray)
		}
		if p.elements == nil {
			return p.found
		}
		m.scope++
		scope := m.scope
		var found []int
		for _, element := range stored {
			found = append(found, m.mark(p.elements, element, scope)...)
		}
		m.complete(p, around, p.elements, found, scope)
	default:
		if value, ok := p.scalars[stored]; ok {
			p.found = append(p.found, value)
		}
	}
	return p.found
}

// mark marks those wanted values that stored contains and that are not yet marked in the scope. It
// returns them.
func (m *Matcher) mark(p *place, stored any, scope int) []int {
	found := m.contained(p, stored, scope)
	m.steps += len(found)
	unmarked := found[:0]
	for _, value := range found {
		if p.marks[value] != scope {
			p.marks[value] = scope
			unmarked = append(unmarked, value)
		}
	}
	p.found = unmarked
	return unmarked
}

// complete adds to the found values of p the objects and arrays that watch one of the found values
// of in, which is below p, and whose children are all marked in the scope. It skips those that are
// marked in the scope around it.
func (m *Matcher) complete(p *place, around int, in *place, found []int, scope int) {
	for _, value := range found {
		m.steps += len(in.watchers[value])
		for _, watcher := range in.watchers[value] {
			if p.marks[watcher] == around {
				continue
			}
			complete := true
			for _, c := range p.children[watcher] {
				m.steps++
				if c.place.marks[c.value] != scope {
					complete = false
					break
				}
			}
			if complete {
				p.found = append(p.found, watcher)
			}
		}
	}
}
