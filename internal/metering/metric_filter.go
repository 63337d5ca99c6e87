package metering

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// metricRule is what a metric demands of the properties of its records.
type metricRule struct {
	names    map[string]bool // that properties may have; true if they must have it
	required []string        // the names that they must have, sorted
	groups   [][]filterRule  // in each, at least one must hold
	fault    string          // why this version can't apply the metric; empty if it can
}

type filterRule struct {
	name      string
	operation FilterOperation
	numeric   bool
	value     any
	number    Number // of the value, if numeric
	text      string // of the value, if not numeric
	comparing bool   // number or text is set
}

// newMetricRule compiles the metric. Properties must have a value for each name in the filters,
// groupBys and propertyUniqueOn. A name that only NOT_EXISTS filters have may be absent.
func newMetricRule(m *BillableMetric) *metricRule {
	rule := &metricRule{names: map[string]bool{}}
	unknown := func(in string, members map[string]any) {
		if len(members) > 0 && rule.fault == "" {
			rule.fault = fmt.Sprintf("%s has the member %s, which this version does not know", in, Quote(slices.Min(slices.Collect(maps.Keys(members)))))
		}
	}
	unknown("its info", m.Info.Unknown)
	for _, group := range m.Info.FilterGroups {
		unknown("a filter group", group.Unknown)
		filters := make([]filterRule, len(group.Filters))
		for i := range group.Filters {
			filter := &group.Filters[i]
			unknown("a filter", filter.Unknown)
			if !slices.Contains(FilterOperations, filter.Operation) || filter.ValueType != "" && !slices.Contains(FilterValueTypes, filter.ValueType) {
				rule.fault = fmt.Sprintf("a filter has the operation %s of the type %s, which this version does not know", Quote(filter.Operation), Quote(filter.ValueType))
			}
			filters[i] = newFilterRule(filter)
			rule.names[filter.Name] = rule.names[filter.Name] || filter.Operation != "NOT_EXISTS"
		}
		rule.groups = append(rule.groups, filters)
	}
	for _, name := range m.Info.GroupBys {
		rule.names[name] = true
	}
	switch {
	case !slices.Contains(AggregationTypes, m.AggregationType):
		rule.fault = fmt.Sprintf("its aggregationType is %s, which this version does not know", Quote(m.AggregationType))
	case m.Info.PropertyUniqueOn != "":
		rule.names[m.Info.PropertyUniqueOn] = true
	case m.AggregationType == AggregateUniqueCount:
		rule.fault = "its aggregationType is UNIQUE_COUNT and it has no propertyUniqueOn"
	}
	for name, required := range rule.names {
		if required {
			rule.required = append(rule.required, name)
		}
	}
	slices.Sort(rule.required)
	return rule
}

func newFilterRule(filter *MetricFilter) filterRule {
	rule := filterRule{name: filter.Name, operation: filter.Operation, value: filter.Value}
	_, isNumber := filter.Value.(Number)
	rule.numeric = filter.ValueType == "FLOAT" || filter.ValueType == "" && isNumber
	if rule.numeric {
		rule.number, rule.comparing = numberIn(filter.Value)
	} else {
		rule.text, rule.comparing = textIn(filter.Value)
	}
	return rule
}

// maxNamesListed is how many names a message lists.
const maxNamesListed = 5

// missing returns required names that the properties have no value for, at most maxNamesListed.
// A null is no value.
func (r *metricRule) missing(properties map[string]any) (names []string) {
	for _, name := range r.required {
		if properties[name] == nil {
			if names = append(names, name); len(names) == maxNamesListed {
				break
			}
		}
	}
	return names
}

// extra returns names of the properties that the metric does not have, at most maxNamesListed.
func (r *metricRule) extra(properties map[string]any) (names []string) {
	for name := range properties {
		if _, ok := r.names[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names[:min(len(names), maxNamesListed)]
}

// failing returns the index of the first filter group of which no filter holds.
func (r *metricRule) failing(properties map[string]any) (index int, fails bool) {
	for i, group := range r.groups {
		holds := false
		for j := range group {
			if holds = group[j].holds(properties[group[j].name]); holds {
				break
			}
		}
		if !holds {
			return i, true
		}
	}
	return 0, false
}

// holds reports whether the filter holds for a property; nil is none. A negation holds exactly if
// what it negates does not.
func (f *filterRule) holds(property any) bool {
	switch f.operation {
	case "IS", "EQ":
		return f.equals(property)
	case "NOT_IS", "NOT_EQ":
		return !f.equals(property)
	case "CONTAINS":
		return f.contained(property)
	case "NOT_CONTAINS":
		return !f.contained(property)
	case "EXISTS":
		return property != nil
	case "NOT_EXISTS":
		return property == nil
	}
	order, comparable := f.compare(property)
	if !comparable {
		return false
	}
	switch f.operation {
	case "GT":
		return order > 0
	case "GTE":
		return order >= 0
	case "LT":
		return order < 0
	case "LTE":
		return order <= 0
	default:
		return false
	}
}

func (f *filterRule) equals(property any) bool {
	if order, comparable := f.compare(property); comparable {
		return order == 0
	}
	return property != nil && reflect.DeepEqual(property, f.value)
}

// contained reports whether the value is an element of the property, if that is an array, or else a
// part of its text.
func (f *filterRule) contained(property any) bool {
	if array, ok := property.([]any); ok {
		return slices.ContainsFunc(array, f.equals)
	}
	part, ok := textIn(f.value)
	if !ok {
		return false
	}
	text, ok := textIn(property)
	return ok && strings.Contains(text, part)
}

// compare compares the property with the value, as numbers or as texts by their bytes.
func (f *filterRule) compare(property any) (order int, comparable bool) {
	if !f.comparing {
		return 0, false
	}
	if f.numeric {
		number, ok := numberIn(property)
		return number.compare(f.number), ok
	}
	text, ok := textIn(property)
	return strings.Compare(text, f.text), ok
}

// numberIn returns the number that a value is, or that its text spells.
func numberIn(value any) (Number, bool) {
	switch value := value.(type) {
	case Number:
		return value, true
	case string:
		n, err := ParseNumber(value)
		return n, err == nil
	default:
		return Number{}, false
	}
}

// textIn returns the text that a value is, or that spells it.
func textIn(value any) (string, bool) {
	switch value := value.(type) {
	case string:
		return value, true
	case Number:
		return value.String(), true
	case bool:
		if value {
			return "true", true
		}
		return "false", true
	default:
		return "", false
	}
}
