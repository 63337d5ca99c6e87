package metering

import "maps"

// Document is the metaInfo as the API returns it, for matching and for encoding of what has no
// type of its own: bool, string, Number, nil, []any and map[string]any.
func (m MetaInfo) Document() map[string]any { return m.document(false) }

// FullDocument is Document with the members that this version does not know.
func (m MetaInfo) FullDocument() map[string]any { return m.document(true) }

func (m MetaInfo) document(withUnknown bool) map[string]any {
	doc := make(map[string]any, len(m.Carried)+5)
	if m.SkipValidation != nil {
		doc["SkipValidation"] = *m.SkipValidation
	}
	if m.Source != nil {
		doc["source"] = string(*m.Source)
	}
	if m.Timestamp != nil {
		doc["timestamp"] = FormatTime(*m.Timestamp)
	}
	if m.OriginRecords != nil {
		doc["originRecords"] = quantitiesDocument(m.OriginRecords)
	}
	if m.BillableRecords != nil {
		records := make([]any, len(m.BillableRecords))
		for i, r := range m.BillableRecords {
			record := map[string]any{"key": r.Key, "quantity": r.Quantity.number()}
			if r.Properties != nil {
				record["properties"] = r.Properties
			}
			if withUnknown {
				maps.Copy(record, r.Unknown)
			}
			records[i] = record
		}
		doc["billableRecords"] = records
	}
	maps.Copy(doc, m.Carried)
	if withUnknown {
		maps.Copy(doc, m.Unknown)
	}
	return doc
}

func quantitiesDocument(quantities map[string]Quantity) map[string]any {
	doc := make(map[string]any, len(quantities))
	for key, q := range quantities {
		doc[key] = q.number()
	}
	return doc
}

// NoNumber stands in a filter's document for a number that no stored document can hold (more than
// 38 digits): it is contained in nothing.
type NoNumber struct{}
