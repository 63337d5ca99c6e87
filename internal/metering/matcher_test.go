package metering

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// contains is what Matcher must decide, as the contract defines it: each pair is compared.
func contains(stored, wanted any) bool {
	switch wanted := wanted.(type) {
	case map[string]any:
		object, ok := stored.(map[string]any)
		for name, value := range wanted {
			member, has := object[name]
			ok = ok && has && contains(member, value)
		}
		return ok
	case []any:
		array, ok := stored.([]any)
		for _, value := range wanted {
			some := false
			for _, element := range array {
				some = some || contains(element, value)
			}
			ok = ok && some
		}
		return ok
	default:
		return stored == wanted
	}
}

func genDocument(depth int) *rapid.Generator[any] {
	scalar := rapid.SampledFrom([]any{nil, true, false, "", "a", "1", NumberOf(1), NumberOf(2), NumberOf(0), NoNumber{}})
	if depth == 0 {
		return scalar
	}
	in := rapid.Deferred(func() *rapid.Generator[any] { return genDocument(depth - 1) })
	return rapid.OneOf(scalar,
		rapid.Map(rapid.SliceOfN(in, 0, 4), func(a []any) any { return a }),
		rapid.Map(rapid.MapOfN(rapid.SampledFrom([]string{"", "a", "b", "c"}), in, 0, 3), func(m map[string]any) any { return m }))
}

// partOf draws a document that the stored one contains, or nearly contains.
func partOf(t *rapid.T, stored any) any {
	if rapid.IntRange(0, 19).Draw(t, "change") == 0 {
		return genDocument(1).Draw(t, "other")
	}
	switch stored := stored.(type) {
	case map[string]any:
		part := map[string]any{}
		for _, name := range []string{"", "a", "b", "c"} {
			if member, ok := stored[name]; ok && rapid.Bool().Draw(t, "wanted") {
				part[name] = partOf(t, member)
			}
		}
		return part
	case []any:
		part := []any{}
		for i := 0; len(stored) > 0 && i < rapid.IntRange(0, 4).Draw(t, "elements"); i++ {
			part = append(part, partOf(t, rapid.SampledFrom(stored).Draw(t, "element")))
		}
		return part
	default:
		return stored
	}
}

// A Matcher decides as comparing each pair does, also after it has decided about other documents.
func TestMatcher_DecidesAsComparingEachPair(t *testing.T) {
	t.Parallel()
	matched, not := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		documents := rapid.SliceOfN(rapid.MapOfN(rapid.SampledFrom([]string{"a", "b", "c"}), genDocument(4), 0, 3), 1, 4).Draw(t, "documents")
		wanted, ok := partOf(t, documents[0]).(map[string]any)
		if !ok {
			return
		}
		m := NewMatcher(wanted)
		for _, stored := range documents {
			want := contains(stored, wanted)
			if got := m.Matches(stored); got != want {
				t.Fatalf("%v in %v: %v", wanted, stored, got)
			}
			if want {
				matched++
			} else {
				not++
			}
		}
	})
	if matched < 20 || not < 20 {
		t.Errorf("%d match, %d do not", matched, not)
	}
}

// costly are filters of about 4 KB and groups of about 375 KB that they do not match, for which
// comparing each pair takes seconds. Both are elements of properties.
func costly() map[string][2][]any {
	type object = map[string]any
	number := func(i int) any { return NumberOf(int64(i)) }
	repeat := func(n int, element func(i int) any) []any {
		array := make([]any, n)
		for i := range array {
			array[i] = element(i)
		}
		return array
	}
	// Sets of 4 of 10 values, as arrays or as objects.
	var sets, objects []any
	for bits := range 1 << 10 {
		var set []any
		members := object{}
		for i := range 10 {
			if bits>>i&1 == 1 {
				set = append(set, number(i))
				members[fmt.Sprint(i)] = number(0)
			}
		}
		if len(set) == 4 {
			sets, objects = append(sets, set), append(objects, members)
		}
	}
	cycle := func(values []any) func(int) any { return func(i int) any { return values[i%len(values)] } }
	deep := func(leaf any) any {
		for range 20 {
			leaf = []any{leaf}
		}
		return leaf
	}
	return map[string][2][]any{
		"numbers":                      {repeat(900, func(i int) any { return number(-1 - i) }), repeat(120_000, number)},
		"the same number":              {repeat(2000, func(int) any { return number(1) }), repeat(120_000, func(int) any { return number(2) })},
		"objects of a member":          {repeat(400, func(i int) any { return object{"a": number(-1 - i)} }), repeat(40_000, func(i int) any { return object{"a": number(i)} })},
		"objects with one value alike": {repeat(250, func(i int) any { return object{"a": number(1), "b": number(i)} }), repeat(40_000, func(int) any { return object{"a": number(1)} })},
		"objects of other members":     {repeat(400, func(i int) any { return object{fmt.Sprint(i): number(1)} }), repeat(60_000, func(int) any { return object{} })},
		"arrays of an element":         {repeat(600, func(i int) any { return []any{number(-1 - i)} }), repeat(60_000, func(i int) any { return []any{number(i)} })},
		"arrays with one value alike":  {repeat(500, func(i int) any { return []any{number(1), number(2 + i)} }), repeat(60_000, func(int) any { return []any{number(1)} })},
		"empty arrays among others":    {repeat(500, func(i int) any { return []any{[]any{}, number(i)} }), repeat(60_000, func(int) any { return []any{[]any{}} })},
		"many empty arrays":            {append(repeat(1300, func(int) any { return []any{} }), "no"), repeat(90_000, func(int) any { return []any{} })},
		"sets of the same values":      {append(slicesOf(sets), "no"), repeat(30_000, func(i int) any { return sets[i%len(sets)].([]any)[:3] })},
		"sets that are all there":      {append(slicesOf(sets), "no"), repeat(12_000, func(int) any { return repeat(10, number) })},
		"objects of the same members":  {append(slicesOf(objects[:120]), "no"), repeat(12_000, cycle(objects[120:]))},
		"arrays of arrays":             {{repeat(600, func(i int) any { return []any{number(-1 - i)} })}, repeat(10, func(int) any { return repeat(6_000, func(i int) any { return []any{number(i)} }) })},
		"deep":                         {repeat(80, func(i int) any { return deep(number(-1 - i)) }), repeat(4_000, func(i int) any { return deep(number(i)) })},
	}
}

func slicesOf(a []any) []any { return append([]any(nil), a...) }

func sizeOf(document any) int {
	nodes := 1
	switch document := document.(type) {
	case []any:
		for _, element := range document {
			nodes += sizeOf(element)
		}
	case map[string]any:
		for _, member := range document {
			nodes += sizeOf(member)
		}
	}
	return nodes
}

// A group costs a few steps for each of its values, whatever the filter.
func TestMatcher_StepsAreBounded(t *testing.T) {
	t.Parallel()
	for name, c := range costly() {
		m := NewMatcher(map[string]any{"properties": c[0]})
		stored := map[string]any{"properties": c[1]}
		if m.Matches(stored) {
			t.Errorf("%s: matches", name)
		}
		if most := 50 * sizeOf(stored); m.steps > most {
			t.Errorf("%s: %d steps for %d values in %d", name, m.steps, sizeOf(c[0]), sizeOf(stored))
		}
	}
}

func BenchmarkMatcher(b *testing.B) {
	for name, c := range costly() {
		b.Run(strings.ReplaceAll(name, " ", "-"), func(b *testing.B) {
			m := NewMatcher(map[string]any{"properties": c[0]})
			stored := map[string]any{"properties": c[1]}
			for b.Loop() {
				m.Matches(stored)
			}
		})
	}
}
