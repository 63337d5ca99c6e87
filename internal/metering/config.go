package metering

import (
	"fmt"
	"maps"
	"slices"
)

// Config is an organization's usage metering config: how the usage it reports becomes usage that a
// marketplace takes (API reference: update usage metering config info). The zero value is the
// config of an organization that never set one. A nil member is absent.
type Config struct {
	Partners []PartnerConfig // at most one a partner, in the order given
}

// ConfigVersion is a config and which of its organization's versions it is: 1 is the first that was
// set, 0 the empty config of an organization that never set one.
type ConfigVersion struct {
	Config  Config
	Version int
}

// PartnerConfig is the config for one partner.
type PartnerConfig struct {
	Partner string // one of ConfigPartners

	// EnableDimensionMapping turns conversion on; without it the origin dimension is used.
	EnableDimensionMapping                  *bool
	EnableBillableDimension                 *bool
	EnableCommitWithAdditionalUsageMetering *bool // usage is reported only once the commit is used up
	// EnableCommitWithAdditionalUsageAtListPrice has no effect unless
	// EnableCommitWithAdditionalUsageMetering is true; it is accepted and kept either way.
	EnableCommitWithAdditionalUsageAtListPrice *bool

	DimensionMapping   map[string]MappingValue   // by source key
	DimensionMappingV2 map[string][]MappingValue // by source key; wins over DimensionMapping
}

// MappingValue says what a source dimension becomes.
type MappingValue struct {
	DimensionKey         string // the destination, 1 to 255 characters
	MappingMode          *MappingMode
	ConvertionMultiplier *Quantity // over 0 in quantity mode (the spelling is the API's)
}

// MappingMode says what a source value is: a quantity to multiply or an amount of money to divide
// by a price.
type MappingMode string

// MappingModes are all of them; empty is QUANTITY.
var MappingModes = []MappingMode{"", "QUANTITY", "AMOUNT"}

// ConfigPartners are the partners that a config may have an entry for. The API reference also
// lists "", by which no entry can mean anything.
var ConfigPartners = []string{
	"ADYEN", "ALIBABA", "AWS", "AWS_CHINA", "AZURE", "DATABRICKS", "GCP", "GOOGLE", "HUBSPOT", "INTUIT", "LAGO",
	"MARKETO", "METRONOME", "MICROSOFT", "ORACLE", "ORB", "REDHAT", "SALESFORCE", "SLACK", "SNOWFLAKE", "STRIPE", "ZOHO",
}

// ConfigPatch is a JSON merge patch (RFC 7396) of a Config, with one addition: entries of the
// array are matched by partner.
type ConfigPatch struct {
	Partners PatchMember[[]PartnerPatch]
}

// PartnerPatch patches the entry of its partner, or adds it.
type PartnerPatch struct {
	Partner                                    string
	EnableDimensionMapping                     PatchMember[bool]
	EnableBillableDimension                    PatchMember[bool]
	EnableCommitWithAdditionalUsageMetering    PatchMember[bool]
	EnableCommitWithAdditionalUsageAtListPrice PatchMember[bool]
	DimensionMapping                           PatchMember[map[string]*MappingPatch]  // nil removes the key
	DimensionMappingV2                         PatchMember[map[string][]MappingValue] // nil removes the key, another array replaces it
}

// MappingPatch patches one value of DimensionMapping.
type MappingPatch struct {
	DimensionKey         PatchMember[string]
	MappingMode          PatchMember[MappingMode]
	ConvertionMultiplier PatchMember[Quantity]
}

// PatchMember is a member of a merge patch. The zero value is absent and leaves the member as it
// is; Set with a nil Value is null and removes it.
type PatchMember[T any] struct {
	Set   bool
	Value *T
}

func (m PatchMember[T]) apply(old *T) *T {
	if !m.Set {
		return old
	}
	return m.Value
}

// Apply merges the patch into c and validates the whole. It returns Invalid naming the place and
// what would be right.
func (p ConfigPatch) Apply(c Config) (Config, error) {
	merged, err := p.Merge(c)
	if err != nil {
		return Config{}, err
	}
	return merged, merged.validate()
}

// Merge merges the patch into c, which it leaves as it is, without a look at the values. It
// returns Invalid where an entry of the patch can't be matched by its partner.
func (p ConfigPatch) Merge(c Config) (Config, error) {
	if !p.Partners.Set {
		return c, nil
	}
	if p.Partners.Value == nil {
		return Config{}, nil
	}
	merged := Config{Partners: slices.Clone(c.Partners)}
	seen := map[string]bool{}
	for i, entry := range *p.Partners.Value {
		if err := checkConfigPartner(entry.Partner); err != nil {
			return Config{}, Errorf(Invalid, "partnerUsageMeteringConfigs[%d].partner is %s: %v", i, Quote(entry.Partner), err)
		}
		if seen[entry.Partner] {
			return Config{}, Errorf(Invalid, "partnerUsageMeteringConfigs[%d].partner is %s again: there may be at most one entry a partner", i, Quote(entry.Partner))
		}
		seen[entry.Partner] = true
		at := slices.IndexFunc(merged.Partners, func(pc PartnerConfig) bool { return pc.Partner == entry.Partner })
		if at < 0 {
			merged.Partners = append(merged.Partners, entry.apply(PartnerConfig{Partner: entry.Partner}))
		} else {
			merged.Partners[at] = entry.apply(merged.Partners[at])
		}
	}
	return merged, nil
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

func (p PartnerPatch) apply(c PartnerConfig) PartnerConfig {
	c.EnableDimensionMapping = p.EnableDimensionMapping.apply(c.EnableDimensionMapping)
	c.EnableBillableDimension = p.EnableBillableDimension.apply(c.EnableBillableDimension)
	c.EnableCommitWithAdditionalUsageMetering = p.EnableCommitWithAdditionalUsageMetering.apply(c.EnableCommitWithAdditionalUsageMetering)
	c.EnableCommitWithAdditionalUsageAtListPrice = p.EnableCommitWithAdditionalUsageAtListPrice.apply(c.EnableCommitWithAdditionalUsageAtListPrice)
	c.DimensionMapping = mergeMap(c.DimensionMapping, p.DimensionMapping, func(patch *MappingPatch, old MappingValue) (MappingValue, bool) {
		if patch == nil {
			return MappingValue{}, false
		}
		return patch.Apply(old), true
	})
	c.DimensionMappingV2 = mergeMap(c.DimensionMappingV2, p.DimensionMappingV2, func(patch, _ []MappingValue) ([]MappingValue, bool) {
		return patch, patch != nil
	})
	return c
}

// mergeMap applies the patch of an object to old by merging each member that it names; merge says
// whether the member stays.
func mergeMap[P, V any](old map[string]V, patch PatchMember[map[string]P], merge func(P, V) (V, bool)) map[string]V {
	if !patch.Set {
		return old
	}
	if patch.Value == nil {
		return nil
	}
	merged := maps.Clone(old)
	if merged == nil {
		merged = make(map[string]V, len(*patch.Value))
	}
	for key, member := range *patch.Value {
		if value, stays := merge(member, merged[key]); stays {
			merged[key] = value
		} else {
			delete(merged, key)
		}
	}
	return merged
}

// Apply merges the patch into v.
func (p MappingPatch) Apply(v MappingValue) MappingValue {
	if key := p.DimensionKey.apply(&v.DimensionKey); key != nil {
		v.DimensionKey = *key
	} else {
		v.DimensionKey = ""
	}
	v.MappingMode = p.MappingMode.apply(v.MappingMode)
	v.ConvertionMultiplier = p.ConvertionMultiplier.apply(v.ConvertionMultiplier)
	return v
}

// validate checks the values of a whole config in an order that does not change, so that the same
// config has the same error.
func (c Config) validate() error {
	for _, p := range c.Partners {
		entry := "partnerUsageMeteringConfigs of " + p.Partner
		for _, key := range slices.Sorted(maps.Keys(p.DimensionMapping)) {
			if err := validateMapping(key, p.DimensionMapping[key]); err != nil {
				return Errorf(Invalid, "%s: dimensionMapping[%s]%v", entry, Quote(key), err)
			}
		}
		for _, key := range slices.Sorted(maps.Keys(p.DimensionMappingV2)) {
			if err := CheckKey(key); err != nil {
				return Errorf(Invalid, "%s: dimensionMappingV2[%s]: the source key is not allowed: %v", entry, Quote(key), err)
			}
			for i, value := range p.DimensionMappingV2[key] {
				if err := validateMapping(key, value); err != nil {
					return Errorf(Invalid, "%s: dimensionMappingV2[%s][%d]%v", entry, Quote(key), i, err)
				}
			}
		}
	}
	return nil
}

// validateMapping returns an error whose text continues the path of the value.
func validateMapping(key string, v MappingValue) error {
	if err := CheckKey(key); err != nil {
		return fmt.Errorf(": the source key is not allowed: %w", err)
	}
	if err := CheckKey(v.DimensionKey); err != nil {
		return fmt.Errorf(".dimensionKey is %s: %w", Quote(v.DimensionKey), err)
	}
	mode := MappingMode("")
	if v.MappingMode != nil {
		mode = *v.MappingMode
	}
	switch mode {
	case "AMOUNT":
		return nil
	case "", "QUANTITY":
		if v.ConvertionMultiplier == nil {
			return fmt.Errorf(".convertionMultiplier is missing: it must be a number over 0, except with the mappingMode AMOUNT")
		}
		if v.ConvertionMultiplier.Sign() <= 0 {
			return fmt.Errorf(".convertionMultiplier is %s: it must be over 0, except with the mappingMode AMOUNT", *v.ConvertionMultiplier)
		}
		return nil
	default:
		return fmt.Errorf(".mappingMode is %s: it must be %s", Quote(string(mode)), OneOf(MappingModes))
	}
}
