package apijson

import (
	"bytes"
	"errors"
	"io"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// DecodeConfig reads a stored config leniently: any JSON object is one, whatever its members are.
func DecodeConfig(stored []byte) (metering.Config, error) {
	d := &decoder{jsontext.NewDecoder(bytes.NewBuffer(stored), jsontext.AllowDuplicateNames(true))}
	value, err := d.document(len(stored), func(text string) (any, error) { return metering.Numeral(text), nil })
	if err != nil {
		return nil, err
	}
	config, ok := value.(map[string]any)
	if _, end := d.json.ReadToken(); !ok || !errors.Is(end, io.EOF) {
		return nil, metering.Errorf(metering.Invalid, "it must be one JSON object")
	}
	return config, nil
}

// DecodeConfigPatch reads a merge patch of the usage metering config. A whole config is one too: a
// patch of the empty config.
func DecodeConfigPatch(body []byte) (metering.ConfigPatch, error) {
	return decode(body, func(d *decoder) (metering.ConfigPatch, error) {
		patch := metering.ConfigPatch{}
		err := d.object("a usage metering config, an object", func(name string) (err error) {
			if name != "partnerUsageMeteringConfigs" {
				return d.unknown(name, []string{"partnerUsageMeteringConfigs"})
			}
			patch[name], err = orNull(d, func() ([]any, error) { return d.anyArray("an array of partner configs", d.partnerPatch) })
			return err
		})
		return patch, err
	})
}

// orNull reads a value of a document, or nil if the JSON has null.
func orNull[T any](d *decoder, read func() (T, error)) (any, error) {
	if d.null() {
		return nil, nil
	}
	return read()
}

// anyObject reads an object as a document.
func (d *decoder) anyObject(due string, member func(name string) (any, error)) (map[string]any, error) {
	object := map[string]any{}
	err := d.object(due, func(name string) (err error) {
		object[name], err = member(name)
		return err
	})
	return object, err
}

// anyArray reads an array as a document.
func (d *decoder) anyArray(due string, element func() (map[string]any, error)) ([]any, error) {
	array := []any{}
	err := d.array(due, func(int) error {
		value, err := element()
		array = append(array, value)
		return err
	})
	return array, err
}

var partnerConfigMembers = []string{
	"dimensionMapping", "dimensionMappingV2", "enableBillableDimension", "enableCommitWithAdditionalUsageAtListPrice",
	"enableCommitWithAdditionalUsageMetering", "enableDimensionMapping", "partner",
}

func (d *decoder) partnerPatch() (map[string]any, error) {
	return d.anyObject("a partner config, an object", func(name string) (any, error) {
		switch name {
		case "partner":
			return orNull(d, d.text)
		case "enableDimensionMapping", "enableBillableDimension", "enableCommitWithAdditionalUsageMetering", "enableCommitWithAdditionalUsageAtListPrice":
			return orNull(d, d.boolean)
		case "dimensionMapping":
			return orNull(d, func() (map[string]any, error) {
				return d.anyObject("an object of mapping values by source key", func(string) (any, error) { return orNull(d, d.mappingPatch) })
			})
		case "dimensionMappingV2":
			return orNull(d, func() (map[string]any, error) {
				return d.anyObject("an object of arrays of mapping values by source key", func(string) (any, error) {
					return orNull(d, func() ([]any, error) { return d.anyArray("an array of mapping values", d.mappingValue) })
				})
			})
		default:
			return nil, d.unknown(name, partnerConfigMembers)
		}
	})
}

var mappingValueMembers = []string{"convertionMultiplier", "dimensionKey", "mappingMode"}

func (d *decoder) mappingPatch() (map[string]any, error) {
	return d.anyObject("a mapping value, an object", func(name string) (any, error) {
		switch name {
		case "dimensionKey", "mappingMode":
			return orNull(d, d.text)
		case "convertionMultiplier":
			return orNull(d, func() (metering.Numeral, error) {
				q, err := d.quantity()
				return metering.Numeral(q.String()), err
			})
		default:
			return nil, d.unknown(name, mappingValueMembers)
		}
	})
}

// mappingValue reads a whole mapping value, in which null is as if the member were absent.
func (d *decoder) mappingValue() (map[string]any, error) {
	value, err := d.mappingPatch()
	for name, member := range value {
		if member == nil {
			delete(value, name)
		}
	}
	return value, err
}
