package wire

import (
	"bytes"
	"errors"
	"io"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// DecodeConfig reads a stored config leniently: any JSON object is one, whatever its members are.
func DecodeConfig(text []byte) (metering.Config, error) {
	d := &decoder{json: jsontext.NewDecoder(bytes.NewBuffer(text), jsontext.AllowDuplicateNames(true))}
	value, err := d.document(len(text), numeral)
	if err != nil {
		return nil, err
	}
	stored, ok := value.(map[string]any)
	if _, end := d.json.ReadToken(); !ok || !errors.Is(end, io.EOF) {
		return nil, metering.Errorf(metering.Invalid, "it must be one JSON object")
	}
	return stored, nil
}

// DecodeConfigPatch reads a merge patch of the usage metering config. A whole config is also a
// patch: one of the empty config.
func DecodeConfigPatch(body []byte) (metering.ConfigPatch, error) {
	return decode(body, func(d *decoder) (metering.ConfigPatch, error) { return readDocument(config())(d) })
}

// document is an object of a config, whose members may be null: in a patch, null removes.
type document = map[string]any

func config() object[document] {
	return object[document]{"a usage metering config, an object", []member[document]{
		documentMember("partnerUsageMeteringConfigs", listOfAny("an array of partner configs", readDocument(partnerConfig()))),
	}}
}

func partnerConfig() object[document] {
	return object[document]{"a partner config, an object", []member[document]{
		documentMember("partner", (*decoder).text),
		documentMember("enableDimensionMapping", (*decoder).boolean),
		documentMember("enableBillableDimension", (*decoder).boolean),
		documentMember("enableCommitWithAdditionalUsageMetering", (*decoder).boolean),
		documentMember("enableCommitWithAdditionalUsageAtListPrice", (*decoder).boolean),
		documentMember("dimensionMapping", mapOf("an object of mapping values by source key", readDocument(mappingValue()))),
		documentMember("dimensionMappingV2", mapOf("an object of arrays of mapping values by source key",
			listOfAny("an array of mapping values", withoutNulls(readDocument(mappingValue()))))),
	}}
}

func mappingValue() object[document] {
	return object[document]{"a mapping value, an object", []member[document]{
		documentMember("dimensionKey", (*decoder).text),
		documentMember("mappingMode", (*decoder).text),
		documentMember("convertionMultiplier", (*decoder).multiplier),
	}}
}

// documentMember is a member of a document.
func documentMember[T any](name string, read func(*decoder) (T, error)) member[document] {
	return member[document]{name, func(d *decoder, o *document) (err error) {
		(*o)[name], err = orNull(d, read)
		return err
	}}
}

// orNull reads a value of a document, or nil if the JSON has null.
func orNull[T any](d *decoder, read func(*decoder) (T, error)) (any, error) {
	if d.null() {
		return nil, nil
	}
	return read(d)
}

func readDocument(of object[document]) func(*decoder) (document, error) {
	return func(d *decoder) (document, error) {
		o := document{}
		return o, of.read(d, &o)
	}
}

// mapOf returns a reader of an object whose members are null or what read reads.
func mapOf[T any](due string, read func(*decoder) (T, error)) func(*decoder) (document, error) {
	return func(d *decoder) (document, error) {
		o := document{}
		err := d.object(due, func(key string) (err error) {
			o[key], err = orNull(d, read)
			return err
		})
		return o, err
	}
}

// listOfAny returns a reader of an array of a document.
func listOfAny[T any](due string, element func(*decoder) (T, error)) func(*decoder) ([]any, error) {
	return func(d *decoder) ([]any, error) {
		list := []any{}
		err := d.array(due, func(int) error {
			value, err := element(d)
			list = append(list, value)
			return err
		})
		return list, err
	}
}

func (d *decoder) multiplier() (metering.Numeral, error) {
	q, err := d.quantity()
	return metering.Numeral(q.String()), err
}

// withoutNulls returns a reader of a document in which a null member counts as absent.
func withoutNulls(read func(*decoder) (document, error)) func(*decoder) (document, error) {
	return func(d *decoder) (document, error) {
		value, err := read(d)
		for name, member := range value {
			if member == nil {
				delete(value, name)
			}
		}
		return value, err
	}
}
