package metering

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"
)

// Config is an organization's usage metering config: how the usage it reports becomes usage that a
// marketplace accepts (API reference: update usage metering config info). It is a JSON object of
// nil, bool, string, Numeral, []any and map[string]any, not a struct: a newer version may have
// written it, and members that this version does not know stay unchanged (decision 25).
type Config map[string]any

// Numeral is a JSON number as it is spelled.
type Numeral string

// The members of a config that this version reads.
const (
	configEntries       = "partnerUsageMeteringConfigs"
	configPartner       = "partner"
	configMapping       = "dimensionMapping"
	configMappingV2     = "dimensionMappingV2"
	mappingDimensionKey = "dimensionKey"
	mappingMode         = "mappingMode"
	mappingMultiplier   = "convertionMultiplier" // the spelling is the API's
)

// EmptyConfig is the config of an organization that never set one.
func EmptyConfig() Config { return Config{configEntries: []any{}} }

// Equal reports whether both configs say the same: members in any order, numbers by value.
func (c Config) Equal(other Config) bool {
	return sameValue(map[string]any(c), map[string]any(other))
}

// ConfigVersion is a version of an organization's config as it is stored.
type ConfigVersion struct {
	Version int       // 1 is the first that was set; 0 is the empty config of an organization that never set one
	Time    time.Time // when it was set
	KeyID   string    // of the key that set it; empty if an earlier version of the service stored it
	Stored  []byte    // the JSON, as clients get it
	Config  Config    // what Stored says
	Err     error     // why Stored can't be read; Config is nil then
}

// Tag names the version and its content. Other content never has the same tag, not even that of a
// version with the same number that is written after a restore of the table.
func (v ConfigVersion) Tag() string {
	return strconv.Itoa(v.Version) + "-" + hashOf(v.Stored)
}

// Matches reports whether If-Match holds for the config. "*" matches any, including that of an
// organization that never set one.
func (v ConfigVersion) Matches(c Conditions) bool { return c.Matches(v.Tag(), true) }

// NoneMatches reports whether If-None-Match holds for the config. "*" matches any that was set:
// with it, a change succeeds only if it is the first.
func (v ConfigVersion) NoneMatches(c Conditions) bool { return c.NoneMatches(v.Tag(), v.Version > 0) }

// ConfigChange is a change of a config, and the conditions under which it is made.
type ConfigChange struct {
	Conditions Conditions
	Patch      ConfigPatch
	Replace    bool   // Patch is the whole config, and the current one need not be readable
	KeyID      string // of the key that makes the change
}

// Apply returns the config after the change. It returns PreconditionFailed if current does not meet
// the conditions, Invalid with the path if the config would break a rule, and current's error if
// the change has to read current and can't.
func (c ConfigChange) Apply(current ConfigVersion) (Config, error) {
	if err := CheckConditions(c.Conditions, "the config", current); err != nil {
		return nil, err
	}
	switch {
	case c.Replace:
		return c.Patch.Apply(EmptyConfig())
	case current.Err != nil:
		return nil, current.Err
	default:
		return c.Patch.Apply(current.Config)
	}
}

// MappingMode says what a source value is: a quantity to multiply or an amount of money to divide
// by a price.
type MappingMode string

// MappingModes are all mapping modes; the empty one is QUANTITY.
var MappingModes = []MappingMode{"", "QUANTITY", "AMOUNT"}

// ConfigPartners are the partners that a config may have an entry for. The API reference also lists
// "", but an entry for it would have no meaning.
var ConfigPartners = []string{
	"ADYEN", "ALIBABA", "AWS", "AWS_CHINA", "AZURE", "DATABRICKS", "GCP", "GOOGLE", "HUBSPOT", "INTUIT", "LAGO",
	"MARKETO", "METRONOME", "MICROSOFT", "ORACLE", "ORB", "REDHAT", "SALESFORCE", "SLACK", "SNOWFLAKE", "STRIPE", "ZOHO",
}

// ConfigPatch is a JSON merge patch (RFC 7396) of a Config, with one addition: entries of the array
// are matched by partner. All its members are known and have their types; a number is a quantity.
type ConfigPatch map[string]any

// Apply merges the patch into c and checks what the patch names; it does not check the rest of c
// and does not change c. A member whose value does not change keeps its spelling. Apply returns
// Invalid with the path and what is accepted.
func (p ConfigPatch) Apply(c Config) (Config, error) {
	value, named := p[configEntries]
	if !named {
		return c, nil
	}
	patches, _ := value.([]any) // null removes all entries
	merged := maps.Clone(c)
	entries := []any{}
	if stored := c[configEntries]; stored != nil && value != nil {
		array, ok := stored.([]any)
		if !ok {
			return nil, otherForm(configEntries, "an array")
		}
		entries = slices.Clone(array)
	}
	seen := map[string]bool{}
	for i, element := range patches {
		patch, _ := element.(map[string]any)
		partner, _ := patch[configPartner].(string)
		if err := checkConfigPartner(partner); err != nil {
			return nil, Errorf(Invalid, "partnerUsageMeteringConfigs[%d].partner is %s: %v", i, Quote(partner), err)
		}
		if seen[partner] {
			return nil, Errorf(Invalid, "partnerUsageMeteringConfigs[%d].partner is %s again: there may be at most one entry a partner", i, Quote(partner))
		}
		seen[partner] = true
		at := slices.IndexFunc(entries, func(entry any) bool {
			object, _ := entry.(map[string]any)
			return object[configPartner] == partner
		})
		if at < 0 {
			at, entries = len(entries), append(entries, nil)
		}
		before, _ := entries[at].(map[string]any)
		for _, name := range []string{configMapping, configMappingV2} {
			_, named := patch[name].(map[string]any)
			_, isObject := before[name].(map[string]any)
			array, isArray := before[name].([]any)
			holdsNothing := before[name] == nil || isArray && len(array) == 0
			if named && !isObject && !holdsNothing {
				return nil, otherForm("partnerUsageMeteringConfigs of "+partner+": "+name, "an object")
			}
		}
		after, _ := mergePatch(before, patch).(map[string]any)
		if err := checkEntry(before, after, patch); err != nil {
			return nil, Errorf(Invalid, "partnerUsageMeteringConfigs of %s: %v", partner, err)
		}
		entries[at] = after
	}
	merged[configEntries] = entries
	return merged, nil
}

// otherForm refuses to patch what another version has stored in a form that this one can't merge
// into: the result would be without it.
func otherForm(path, form string) error {
	return Errorf(Invalid, "%s is stored in another form than %s, as a newer version has written it: patch it with that version, or replace the config with PUT", path, form)
}

func checkConfigPartner(partner string) error {
	if partner == "" {
		return fmt.Errorf("an entry without a partner can mean nothing; it must be %s", OneOf(ConfigPartners))
	}
	if !slices.Contains(ConfigPartners, partner) {
		return fmt.Errorf("it must be %s", OneOf(ConfigPartners))
	}
	return nil
}

// mergePatch is MergePatch of RFC 7396, section 2. It does not change target. A member whose value
// does not change keeps its spelling.
func mergePatch(target, patch any) any {
	members, ok := patch.(map[string]any)
	if !ok {
		if sameValue(target, patch) {
			return target
		}
		return patch
	}
	object, _ := target.(map[string]any)
	merged := make(map[string]any, len(object)+len(members))
	maps.Copy(merged, object)
	for name, value := range members {
		if value == nil {
			delete(merged, name)
		} else {
			merged[name] = mergePatch(merged[name], value)
		}
	}
	return merged
}

// sameValue reports whether two JSON values are equal, numbers by value.
func sameValue(a, b any) bool {
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		return ok && maps.EqualFunc(a, b, sameValue)
	case []any:
		b, ok := b.([]any)
		return ok && slices.EqualFunc(a, b, sameValue)
	case Numeral:
		b, ok := b.(Numeral)
		if !ok || a == b {
			return ok
		}
		x, errX := ParseNumber(string(a))
		y, errY := ParseNumber(string(b))
		return errX == nil && errY == nil && x == y
	default:
		switch b.(type) {
		case map[string]any, []any:
			return false
		}
		return a == b
	}
}

// checkEntry checks what the patch of an entry names. The order of the checks is fixed, so that the
// same request has the same error.
func checkEntry(before, after, patch map[string]any) error {
	mapping, _ := patch[configMapping].(map[string]any)
	stored, _ := before[configMapping].(map[string]any)
	merged, _ := after[configMapping].(map[string]any)
	for _, key := range slices.Sorted(maps.Keys(mapping)) {
		named, ok := mapping[key].(map[string]any)
		if !ok {
			continue // removed
		}
		_, isStored := stored[key].(map[string]any)
		value, _ := merged[key].(map[string]any)
		if err := checkMapping(key, value, named, !isStored); err != nil {
			return fmt.Errorf("dimensionMapping[%s]%w", Quote(key), err)
		}
	}
	arrays, _ := patch[configMappingV2].(map[string]any)
	for _, key := range slices.Sorted(maps.Keys(arrays)) {
		array, ok := arrays[key].([]any)
		if !ok {
			continue // removed
		}
		if err := CheckKey(key); err != nil {
			return fmt.Errorf("dimensionMappingV2[%s]: the source key is not allowed: %w", Quote(key), err)
		}
		for i, element := range array {
			value, _ := element.(map[string]any)
			if err := checkMapping(key, value, value, true); err != nil {
				return fmt.Errorf("dimensionMappingV2[%s][%d]%w", Quote(key), i, err)
			}
		}
	}
	return nil
}

// checkMapping checks a mapping value after a patch. A new value is checked as a whole. Of a stored
// value, it checks the members that the patch names, and that mode and multiplier fit if the patch
// names one of them. A stored mode or multiplier that this version does not know fits everything.
// The error's text continues the path of the value.
func checkMapping(key string, value, named map[string]any, isNew bool) error {
	names := func(member string) bool {
		_, ok := named[member]
		return ok || isNew
	}
	if err := CheckKey(key); err != nil {
		return fmt.Errorf(": the source key is not allowed: %w", err)
	}
	if names(mappingDimensionKey) {
		destination, _ := value[mappingDimensionKey].(string)
		if err := CheckKey(destination); err != nil {
			return fmt.Errorf(".dimensionKey is %s: %w", Quote(destination), err)
		}
	}
	if !names(mappingMode) && !names(mappingMultiplier) {
		return nil
	}
	mode, isText := value[mappingMode].(string)
	switch {
	case isText && !slices.Contains(MappingModes, MappingMode(mode)) && names(mappingMode):
		return fmt.Errorf(".mappingMode is %s: it must be %s", Quote(mode), OneOf(MappingModes))
	case isText && !slices.Contains(MappingModes, MappingMode(mode)), !isText && value[mappingMode] != nil, mode == "AMOUNT":
		return nil
	}
	switch multiplier := value[mappingMultiplier].(type) {
	case nil:
		return fmt.Errorf(".convertionMultiplier is missing: it must be a number over 0, except with the mappingMode AMOUNT")
	case Numeral:
		if q, err := ParseQuantity(string(multiplier)); err == nil && q.Sign() <= 0 {
			return fmt.Errorf(".convertionMultiplier is %s: it must be over 0, except with the mappingMode AMOUNT", q)
		}
	}
	return nil
}
