package apijson

import "github.com/marketmeter/marketmeter/internal/metering"

// DecodeConfigPatch reads a merge patch of the usage metering config. A whole config is one too: a
// patch of the empty config.
func DecodeConfigPatch(body []byte) (metering.ConfigPatch, error) {
	return decode(body, func(d *decoder) (p metering.ConfigPatch, err error) {
		err = d.object("a usage metering config, an object", func(name string) (err error) {
			if name != "partnerUsageMeteringConfigs" {
				return d.unknown(name, []string{"partnerUsageMeteringConfigs"})
			}
			p.Partners, err = patchMember(d, d.partnerPatches)
			return err
		})
		return p, err
	})
}

// patchMember reads a member of a merge patch, null included.
func patchMember[T any](d *decoder, read func() (T, error)) (metering.PatchMember[T], error) {
	value, err := optional(d, read)
	return metering.PatchMember[T]{Set: true, Value: value}, err
}

func (d *decoder) partnerPatches() ([]metering.PartnerPatch, error) {
	patches := []metering.PartnerPatch{}
	err := d.array("an array of partner configs", func(int) error {
		patch, err := d.partnerPatch()
		patches = append(patches, patch)
		return err
	})
	return patches, err
}

var partnerConfigMembers = []string{
	"dimensionMapping", "dimensionMappingV2", "enableBillableDimension", "enableCommitWithAdditionalUsageAtListPrice",
	"enableCommitWithAdditionalUsageMetering", "enableDimensionMapping", "partner",
}

func (d *decoder) partnerPatch() (p metering.PartnerPatch, err error) {
	err = d.object("a partner config, an object", func(name string) (err error) {
		switch name {
		case "partner":
			p.Partner, err = orZero(d, d.text)
		case "enableDimensionMapping":
			p.EnableDimensionMapping, err = patchMember(d, d.boolean)
		case "enableBillableDimension":
			p.EnableBillableDimension, err = patchMember(d, d.boolean)
		case "enableCommitWithAdditionalUsageMetering":
			p.EnableCommitWithAdditionalUsageMetering, err = patchMember(d, d.boolean)
		case "enableCommitWithAdditionalUsageAtListPrice":
			p.EnableCommitWithAdditionalUsageAtListPrice, err = patchMember(d, d.boolean)
		case "dimensionMapping":
			p.DimensionMapping, err = patchMember(d, d.mappingPatches)
		case "dimensionMappingV2":
			p.DimensionMappingV2, err = patchMember(d, d.mappingArrays)
		default:
			err = d.unknown(name, partnerConfigMembers)
		}
		return err
	})
	return p, err
}

func (d *decoder) mappingPatches() (map[string]*metering.MappingPatch, error) {
	patches := map[string]*metering.MappingPatch{}
	err := d.object("an object of mapping values by source key", func(key string) (err error) {
		patches[key], err = optional(d, d.mappingPatch)
		return err
	})
	return patches, err
}

func (d *decoder) mappingArrays() (map[string][]metering.MappingValue, error) {
	arrays := map[string][]metering.MappingValue{}
	err := d.object("an object of arrays of mapping values by source key", func(key string) (err error) {
		arrays[key], err = orZero(d, d.mappingValues)
		return err
	})
	return arrays, err
}

func (d *decoder) mappingValues() ([]metering.MappingValue, error) {
	values := []metering.MappingValue{}
	err := d.array("an array of mapping values", func(int) error {
		patch, err := d.mappingPatch()
		values = append(values, patch.Apply(metering.MappingValue{}))
		return err
	})
	return values, err
}

var mappingValueMembers = []string{"convertionMultiplier", "dimensionKey", "mappingMode"}

func (d *decoder) mappingPatch() (p metering.MappingPatch, err error) {
	err = d.object("a mapping value, an object", func(name string) (err error) {
		switch name {
		case "dimensionKey":
			p.DimensionKey, err = patchMember(d, d.text)
		case "mappingMode":
			p.MappingMode, err = patchMember(d, func() (metering.MappingMode, error) {
				text, err := d.text()
				return metering.MappingMode(text), err
			})
		case "convertionMultiplier":
			p.ConvertionMultiplier, err = patchMember(d, d.quantity)
		default:
			err = d.unknown(name, mappingValueMembers)
		}
		return err
	})
	return p, err
}
