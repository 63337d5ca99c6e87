package metering

import (
	"fmt"
	"slices"
	"strings"
	"sync"
)

// indexedTerms are Terms as conversion reads them.
type indexedTerms struct {
	entitlement *Entitlement          // nil if it does not exist
	dimensions  map[string]*Dimension // of the entitlement, by key
	metrics     map[string]*BillableMetric

	mapping, mappingV2 map[string]any // of the entry of the entitlement's partner, if it is enabled
	fault              string         // why the entry can't be read; empty if it can

	names     map[string]*Dimension // by name; nil if several have the name
	namesOnce sync.Once             // most usage is reported by keys

	rules      map[*BillableMetric]*metricRule
	rulesMutex sync.Mutex
}

// indexed returns the index of the terms, which it makes once.
func (t *Terms) indexed() *indexedTerms {
	t.indexOnce.Do(func() {
		x := &t.index
		x.entitlement = t.Entitlement
		x.metrics = make(map[string]*BillableMetric, len(t.Metrics))
		for i := range t.Metrics {
			x.metrics[string(t.Metrics[i].ID)] = &t.Metrics[i]
		}
		if t.Entitlement == nil {
			return
		}
		dimensions := t.Entitlement.Info.Dimensions
		x.dimensions = make(map[string]*Dimension, len(dimensions))
		for i := range dimensions {
			x.dimensions[dimensions[i].Key] = &dimensions[i]
		}
		x.fault = x.readConfig(t.Config)
	})
	return &t.index
}

// dimensionOf returns the key of the dimension that has the key or, if none has, the name. It
// returns key itself if no dimension, or more than one, has it.
func (x *indexedTerms) dimensionOf(key string) string {
	if x.dimensions[key] == nil {
		if named, _ := x.named(key); named != nil {
			return named.Key
		}
	}
	return key
}

// named returns the dimension of a name. It returns nil and true if several have the name.
func (x *indexedTerms) named(name string) (dimension *Dimension, isName bool) {
	x.namesOnce.Do(func() {
		dimensions := x.entitlement.Info.Dimensions
		x.names = make(map[string]*Dimension, len(dimensions))
		for i := range dimensions {
			named := &dimensions[i]
			if _, again := x.names[named.Name]; again {
				named = nil
			}
			x.names[dimensions[i].Name] = named
		}
	})
	dimension, isName = x.names[name]
	return dimension, isName
}

// rateOf returns the unit price of a dimension, or 0 if it is not known.
func (x *indexedTerms) rateOf(key string) Quantity {
	if dimension := x.dimensions[key]; dimension != nil {
		return dimension.Rate
	}
	return Quantity{}
}

// metricNamed returns the id of the ACTIVE metric of a name, or "".
func (x *indexedTerms) metricNamed(name string) (id string) {
	for _, metric := range x.metrics {
		if metric.Name == name && metric.Status == MetricActive {
			return string(metric.ID)
		}
	}
	return ""
}

// ruleOf returns what a metric of the terms demands of its records, which is compiled once.
func (x *indexedTerms) ruleOf(m *BillableMetric) *metricRule {
	x.rulesMutex.Lock()
	defer x.rulesMutex.Unlock()
	rule := x.rules[m]
	if rule == nil {
		if x.rules == nil {
			x.rules = map[*BillableMetric]*metricRule{}
		}
		rule = newMetricRule(m)
		x.rules[m] = rule
	}
	return rule
}

// maxNearest is for how many unknown keys of a group the one that was meant is looked for.
const maxNearest = 5

// nearest returns a hint with the dimension of which key is most likely a misspelling: one that is
// equal but for case and for one place. It is empty if no dimension is.
func (x *indexedTerms) nearest(key string) string {
	best, length := "", 0
	lower := strings.ToLower(key)
	for i := range x.entitlement.Info.Dimensions {
		known := x.entitlement.Info.Dimensions[i].Key
		least := (2*max(len(key), len(known)) + 2) / 3
		if min(len(key), len(known)) < least {
			continue
		}
		if same := alike(lower, strings.ToLower(known)); same > length && same >= least {
			best, length = known, same
		}
	}
	if best == "" {
		return ""
	}
	return "did you mean " + Quote(best) + "? If not, "
}

// alike is how many bytes two texts have in common at the beginning and at the end.
func alike(a, b string) int {
	common := min(len(a), len(b))
	start := 0
	for start < common && a[start] == b[start] {
		start++
	}
	end := 0
	for end < common-start && a[len(a)-1-end] == b[len(b)-1-end] {
		end++
	}
	return start + end
}

// The members of an entry of the config, beside its partner and mappings.
const (
	configEnableMapping   = "enableDimensionMapping"
	configEnableBillable  = "enableBillableDimension"
	configEnableCommit    = "enableCommitWithAdditionalUsageMetering"
	configEnableListPrice = "enableCommitWithAdditionalUsageAtListPrice"
)

var (
	entryMembers   = []string{configPartner, configEnableMapping, configEnableBillable, configEnableCommit, configEnableListPrice, configMapping, configMappingV2}
	mappingMembers = []string{mappingDimensionKey, mappingMode, mappingMultiplier}
)

// entryOf finds the config's entry of a partner, which is nil if it has none. Another version may
// have stored the config: what this version can't read is a fault.
func entryOf(v ConfigVersion, partner Partner) (entry map[string]any, fault string) {
	if v.Err != nil {
		return nil, "the usage metering config can't be read: " + v.Err.Error()
	}
	stored := v.Config[configEntries]
	entries, ok := stored.([]any)
	if !ok && stored != nil {
		return nil, "the usage metering config can't be read: partnerUsageMeteringConfigs is not an array"
	}
	for i, element := range entries {
		object, _ := element.(map[string]any)
		named, ok := object[configPartner].(string)
		switch {
		case !ok:
			return nil, fmt.Sprintf("the usage metering config can't be read: partnerUsageMeteringConfigs[%d] has no partner", i)
		case named == string(partner) && entry != nil:
			return nil, fmt.Sprintf("the usage metering config has two entries of %s", named)
		case named == string(partner):
			entry = object
		}
	}
	return entry, ""
}

// readConfig finds the mappings of the entitlement's partner. What this version does not know could
// change the conversion: it is a fault.
func (x *indexedTerms) readConfig(v ConfigVersion) (fault string) {
	entry, fault := entryOf(v, x.entitlement.Partner)
	if fault != "" {
		return fault
	}
	config := fmt.Sprintf("the usage metering config of %s", x.entitlement.Partner)
	switch enabled := entry[configEnableMapping].(type) {
	case nil:
		return ""
	case bool:
		if !enabled {
			return ""
		}
	default:
		return config + " has an enableDimensionMapping that is neither true nor false"
	}
	if name := unknownMember(entry, entryMembers); name != "" {
		return fmt.Sprintf("%s has the member %s, which this version does not know", config, Quote(name))
	}
	for _, m := range []struct {
		name string
		to   *map[string]any
	}{{configMapping, &x.mapping}, {configMappingV2, &x.mappingV2}} {
		object, isObject := entry[m.name].(map[string]any)
		array, isArray := entry[m.name].([]any)
		if entry[m.name] != nil && !isObject && (!isArray || len(array) > 0) {
			return fmt.Sprintf("%s has a %s that is not an object", config, m.name)
		}
		*m.to = object
	}
	return ""
}

// unknownMember returns the first name in the object that is not known, or "".
func unknownMember(object map[string]any, known []string) (first string) {
	for name := range object {
		if !slices.Contains(known, name) && (first == "" || name < first) {
			first = name
		}
	}
	return first
}

// mapping is how the config maps a source. The zero value is none.
type mapping struct {
	name   string // configMapping or configMappingV2
	key    string
	values []any  // an empty array maps the source to nothing
	fault  string // why it can't be read; empty if it can
}

// absent reports whether the source is not mapped.
func (m *mapping) absent() bool { return m.name == "" }

// placeOf names the i-th value in a message.
func (m *mapping) placeOf(i int) string {
	if m.name == configMapping {
		return m.place()
	}
	return fmt.Sprintf("%s[%d]", m.place(), i)
}

func (m *mapping) place() string { return m.name + "[" + Quote(m.key) + "]" }

// mappingOf returns the mapping of a source. A V2 mapping takes precedence, also if it is empty.
func (x *indexedTerms) mappingOf(key string) mapping {
	if stored := x.mappingV2[key]; stored != nil {
		m := mapping{name: configMappingV2, key: key}
		values, ok := stored.([]any)
		if m.values = values; !ok {
			m.fault = "it is not an array"
		}
		return m
	}
	if stored := x.mapping[key]; stored != nil {
		return mapping{name: configMapping, key: key, values: []any{stored}}
	}
	return mapping{}
}

// mappingTo is a value of a mapping.
type mappingTo struct {
	key        string // of the dimension
	isAmount   bool
	multiplier Quantity // unless isAmount
}

// readMapping reads a value of a mapping.
func readMapping(value any) (to mappingTo, fault string) {
	object, ok := value.(map[string]any)
	if !ok {
		return to, "it is not an object"
	}
	if name := unknownMember(object, mappingMembers); name != "" {
		return to, fmt.Sprintf("it has the member %s, which this version does not know", Quote(name))
	}
	to.key, _ = object[mappingDimensionKey].(string)
	if err := CheckKey(to.key); err != nil {
		return to, fmt.Sprintf("its dimensionKey is not the key of a dimension: %v", err)
	}
	mode, isText := object[mappingMode].(string)
	if !isText && object[mappingMode] != nil || !slices.Contains(MappingModes, MappingMode(mode)) {
		return to, "its mappingMode is not " + OneOf(MappingModes)
	}
	if to.isAmount = mode == "AMOUNT"; to.isAmount {
		return to, ""
	}
	numeral, _ := object[mappingMultiplier].(Numeral)
	q, err := ParseQuantity(string(numeral))
	if err != nil || q.Sign() <= 0 {
		return to, "its convertionMultiplier is not a number over 0 of at most 19 digits"
	}
	to.multiplier = q
	return to, ""
}
