package wire

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// AppendGroup appends the group as the API returns it. Members and the keys of maps are in the
// order of their names, so that equal groups are equal bytes. productID is omitted.
func AppendGroup(b []byte, g *metering.Group) []byte {
	return appendGroup(b, g, false)
}

// AppendGroupForExport appends the group as DecodeGroup reads it: with its productID, if it has
// one, and with the members that this version does not know, for a version that does.
func AppendGroupForExport(b []byte, g *metering.Group) []byte {
	return appendGroup(b, g, true)
}

// membersByName returns the members of a group in the order of their names.
func membersByName() []*metering.Member[metering.Group] {
	byName.once.Do(func() {
		for _, name := range namesOf(metering.GroupMembers, func(m *metering.Member[metering.Group]) string { return m.Name }) {
			byName.members = append(byName.members, metering.MemberNamed(metering.GroupMembers, name))
		}
	})
	return byName.members
}

var byName struct {
	once    sync.Once
	members []*metering.Member[metering.Group]
}

func appendGroup(b []byte, g *metering.Group, export bool) []byte {
	b = append(b, '{')
	for _, m := range membersByName() {
		value := m.Get(g)
		if value == nil || m.Private && !export {
			continue
		}
		switch full := value.(type) {
		case metering.MetaInfo:
			if export {
				value = full.FullDocument()
			}
		case []metering.Problem:
			value = metering.DocumentOfProblems(full, export)
		}
		b = appendValue(appendName(b, m.Name), value)
	}
	if export {
		for _, name := range slices.Sorted(maps.Keys(g.Unknown)) {
			b = appendValue(appendName(b, name), g.Unknown[name])
		}
	}
	return append(b, '}')
}

// AppendMetaInfoForExport appends a group's metaInfo as AppendGroupForExport does.
func AppendMetaInfoForExport(b []byte, m *metering.MetaInfo) []byte {
	return appendValue(b, m.FullDocument())
}

// AppendProblemsForExport appends a group's problems as AppendGroupForExport does.
func AppendProblemsForExport(b []byte, problems []metering.Problem) []byte {
	return appendValue(b, metering.DocumentOfProblems(problems, true))
}

// AppendQuantities appends an object of quantities by key.
func AppendQuantities(b []byte, quantities map[string]metering.Quantity) []byte {
	b = append(b, '{')
	keys := make([]string, 0, fewKeys)
	for key := range quantities {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		b = quantities[key].Append(appendName(b, key))
	}
	return append(b, '}')
}

// fewKeys is as many keys as a group usually has, for which no memory is allocated.
const fewKeys = 16

// AppendConfig appends the config as the API returns it and the table stores it. The members of
// each object are in the order of their names.
func AppendConfig(b []byte, c metering.Config) []byte {
	return appendValue(b, map[string]any(c))
}

// AppendConfigVersion appends a version of the config with its number, time and key.
func AppendConfigVersion(b []byte, v *metering.ConfigVersion) []byte {
	b = append(append(b, `{"config":`...), v.Stored...)
	b = appendValue(append(b, `,"keyID":`...), v.KeyID)
	b = appendValue(append(b, `,"time":`...), v.Time)
	b = strconv.AppendInt(append(b, `,"version":`...), int64(v.Version), 10)
	return append(b, '}')
}

// appendMembers appends an object of the members that o has and of those that this version could
// not read, in the order of their names.
func appendMembers[O any](b []byte, members []metering.Member[O], o *O, unknown map[string]any) []byte {
	type named struct {
		name  string
		value any
	}
	all := make([]named, 0, len(members)+len(unknown))
	for i := range members {
		if _, unread := unknown[members[i].Name]; unread {
			continue
		}
		if value := members[i].Get(o); value != nil {
			all = append(all, named{members[i].Name, value})
		}
	}
	for name, value := range unknown {
		all = append(all, named{name, value})
	}
	slices.SortFunc(all, func(a, b named) int { return strings.Compare(a.name, b.name) })
	b = append(b, '{')
	for _, member := range all {
		b = appendValue(appendName(b, member.name), member.value)
	}
	return append(b, '}')
}

// appendList appends an array of objects.
func appendList[O any](b []byte, members []metering.Member[O], list []O, unknown func(*O) map[string]any) []byte {
	b = append(b, '[')
	for i := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendMembers(b, members, &list[i], unknown(&list[i]))
	}
	return append(b, ']')
}

// appendTime appends a time, which needs no escapes.
func appendTime(b []byte, t time.Time) []byte {
	return append(metering.AppendTime(append(b, '"'), t), '"')
}

// appendValue appends the value of a member, or one of metering's documents.
func appendValue(b []byte, value any) []byte {
	switch value := value.(type) {
	case time.Time:
		return appendTime(b, value)
	case int32:
		return strconv.AppendInt(b, int64(value), 10)
	case map[string]metering.Quantity:
		return AppendQuantities(b, value)
	case metering.Quantity:
		return append(b, value.String()...)
	case metering.MetaInfo:
		return appendValue(b, value.Document())
	case metering.EntitlementInfo:
		return appendMembers(b, metering.EntitlementInfoMembers, &value, value.Unknown)
	case []metering.Dimension:
		return appendList(b, metering.DimensionMembers, value, func(d *metering.Dimension) map[string]any { return d.Unknown })
	case metering.MarketplaceIDs:
		return appendMembers(b, metering.MarketplaceMembers, &value, value.Unknown)
	case metering.MetricInfo:
		return appendMembers(b, metering.MetricInfoMembers, &value, value.Unknown)
	case []metering.FilterGroup:
		return appendList(b, metering.FilterGroupMembers, value, func(g *metering.FilterGroup) map[string]any { return g.Unknown })
	case []metering.MetricFilter:
		return appendList(b, metering.FilterMembers, value, func(f *metering.MetricFilter) map[string]any { return f.Unknown })
	case []string:
		b = append(b, '[')
		for i, text := range value {
			if i > 0 {
				b = append(b, ',')
			}
			b = AppendText(b, text)
		}
		return append(b, ']')
	case nil:
		return append(b, "null"...)
	case bool:
		return strconv.AppendBool(b, value)
	case string:
		return AppendText(b, value)
	case metering.Number:
		return append(b, value.String()...)
	case metering.Numeral:
		return append(b, value...)
	case []any:
		b = append(b, '[')
		for i, element := range value {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendValue(b, element)
		}
		return append(b, ']')
	case map[string]any:
		b = append(b, '{')
		for _, name := range slices.Sorted(maps.Keys(value)) {
			b = appendValue(appendName(b, name), value[name])
		}
		return append(b, '}')
	default:
		panic(fmt.Sprintf("wire: a %T can't be written", value))
	}
}

// AppendText appends s as a JSON string. Bytes that are not UTF-8, which nothing stored has, become
// the replacement character.
func AppendText(b []byte, s string) []byte {
	if isPlain(s) {
		b = append(append(b, '"'), s...)
		return append(b, '"')
	}
	b, _ = jsontext.AppendQuote(b, s)
	return b
}

// isPlain reports whether a text is ASCII that JSON needs not escape.
func isPlain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// Escapes is how many bytes more JSON takes in a JSON string, as in the envelope in which Lambda
// returns it: each quote and each backslash takes two bytes.
func Escapes(json []byte) int {
	return bytes.Count(json, []byte{'"'}) + bytes.Count(json, []byte{'\\'})
}

// appendName begins a member of the object that b ends in.
func appendName(b []byte, name string) []byte {
	if b[len(b)-1] != '{' {
		b = append(b, ',')
	}
	return append(AppendText(b, name), ':')
}
