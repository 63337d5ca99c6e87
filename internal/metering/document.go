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

// Contains reports whether stored contains wanted, the way the list operation's metaInfo filter
// means it: an object member by member, an array when each wanted element is contained in some
// stored element, numbers by value, all else when equal. Both are documents.
func Contains(stored, wanted any) bool {
	switch wanted := wanted.(type) {
	case map[string]any:
		object, ok := stored.(map[string]any)
		if !ok {
			return false
		}
		for name, value := range wanted {
			member, ok := object[name]
			if !ok || !Contains(member, value) {
				return false
			}
		}
		return true
	case []any:
		array, ok := stored.([]any)
		if !ok {
			return false
		}
		for _, value := range wanted {
			if !containedInSome(array, value) {
				return false
			}
		}
		return true
	default:
		return stored == wanted // neither can be a map or a slice of the same type
	}
}

// NoNumber stands in a filter's document for a number that no stored document can hold (more than
// 38 digits): it is contained in nothing.
type NoNumber struct{}

func containedInSome(array []any, wanted any) bool {
	for _, element := range array {
		if Contains(element, wanted) {
			return true
		}
	}
	return false
}
