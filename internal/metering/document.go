package metering

import (
	"maps"
	"time"
)

// Document is the metaInfo as the API returns it, for matching, and for encoding values that have
// no type of their own: bool, string, Number, nil, []any and map[string]any.
func (m MetaInfo) Document() map[string]any { return documentOfMetaInfo(&m, false) }

// FullDocument is Document with the members that this version does not know.
func (m MetaInfo) FullDocument() map[string]any { return documentOfMetaInfo(&m, true) }

func documentOfMetaInfo(m *MetaInfo, withUnknown bool) map[string]any {
	document := documentOfMembers(MetaInfoMembers, m, withUnknown)
	if withUnknown {
		maps.Copy(document, m.Unknown)
	}
	return document
}

func documentOfMembers[O any](members []Member[O], o *O, withUnknown bool) map[string]any {
	document := map[string]any{}
	for i := range members {
		if value := members[i].Get(o); value != nil {
			document[members[i].Name] = documentOf(value, withUnknown)
		}
	}
	return document
}

// DocumentOfProblems is the problems as the API returns them, or with the members that this version
// does not know.
func DocumentOfProblems(problems []Problem, withUnknown bool) []any {
	documents := make([]any, len(problems))
	for i := range problems {
		document := documentOfMembers(ProblemMembers, &problems[i], withUnknown)
		if withUnknown {
			maps.Copy(document, problems[i].Unknown)
		}
		documents[i] = document
	}
	return documents
}

// documentOf is the document of a member's value. A document is returned unchanged.
func documentOf(value any, withUnknown bool) any {
	switch value := value.(type) {
	case time.Time:
		return FormatTime(value)
	case int32:
		return NumberOf(int64(value))
	case Quantity:
		return value.number()
	case map[string]Quantity:
		document := make(map[string]any, len(value))
		for key, q := range value {
			document[key] = q.number()
		}
		return document
	case []BillableRecord:
		records := make([]any, len(value))
		for i := range value {
			record := documentOfMembers(BillableMembers, &value[i], withUnknown)
			if withUnknown {
				maps.Copy(record, value[i].Unknown)
			}
			records[i] = record
		}
		return records
	default:
		return value
	}
}

// NoNumber represents, in a filter's document, a number that no stored document can hold: one of
// more than 38 digits. No document contains it.
type NoNumber struct{}
