package apijson

import (
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// AppendGroup appends the group as the API returns it: members in the order of their names, the
// keys of maps too, so that equal groups are equal bytes. productID is not one of them.
func AppendGroup(b []byte, g *metering.Group) []byte {
	return appendGroup(b, g, false)
}

// AppendGroupForExport appends the group with its productID, if it has one, as DecodeGroup reads it, and
// with the members that this version does not know, for a version that does.
func AppendGroupForExport(b []byte, g *metering.Group) []byte {
	return appendGroup(b, g, true)
}

func appendGroup(b []byte, g *metering.Group, export bool) []byte {
	b = append(b, '{')
	b = appendTextMember(b, "buyerID", g.BuyerID)
	b = appendTimeMember(b, "creationTime", g.CreationTime)
	b = appendTextMember(b, "entitlementID", g.EntitlementID)
	b = appendTextMember(b, "id", g.ID)
	b = appendTimeMember(b, "lastUpdateTime", g.LastUpdateTime)
	metaInfo := g.MetaInfo.Document()
	if export {
		metaInfo = g.MetaInfo.FullDocument()
	}
	b = appendDocument(appendName(b, "metaInfo"), metaInfo)
	b = appendTextMember(b, "organizationID", g.OrganizationID)
	b = appendTextMember(b, "partner", string(g.Partner))
	if export && g.ProductID != "" {
		b = appendTextMember(b, "productID", g.ProductID)
	}
	b = AppendQuantities(appendName(b, "records"), g.Records)
	if !g.ReportedTime.IsZero() {
		b = appendTimeMember(b, "reportedTime", g.ReportedTime)
	}
	b = strconv.AppendInt(appendName(b, "serialID"), int64(g.SerialID), 10)
	b = appendTextMember(b, "status", string(g.Status))
	b = appendTextMember(b, "usageRecordReportID", g.UsageRecordReportID)
	if export {
		for _, name := range slices.Sorted(maps.Keys(g.Unknown)) {
			b = appendDocument(appendName(b, name), g.Unknown[name])
		}
	}
	return append(b, '}')
}

// AppendMetaInfoForExport appends a group's metaInfo as AppendGroupForExport does.
func AppendMetaInfoForExport(b []byte, m *metering.MetaInfo) []byte {
	return appendDocument(b, m.FullDocument())
}

// AppendQuantities appends an object of quantities by key.
func AppendQuantities(b []byte, quantities map[string]metering.Quantity) []byte {
	b = append(b, '{')
	for _, key := range slices.Sorted(maps.Keys(quantities)) {
		b = append(appendName(b, key), quantities[key].String()...)
	}
	return append(b, '}')
}

// AppendConfig appends the config as the API returns it and the table stores it, the members of each
// object in the order of their names.
func AppendConfig(b []byte, c metering.Config) []byte {
	return appendDocument(b, map[string]any(c))
}

// appendDocument appends one of metering's documents.
func appendDocument(b []byte, value any) []byte {
	switch value := value.(type) {
	case nil:
		return append(b, "null"...)
	case bool:
		return strconv.AppendBool(b, value)
	case string:
		return AppendText(b, value)
	case metering.Number:
		return append(b, value.String()...)
	case metering.Numeral:
		return append(b, value...)
	case []any:
		b = append(b, '[')
		for i, element := range value {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendDocument(b, element)
		}
		return append(b, ']')
	case map[string]any:
		b = append(b, '{')
		for _, name := range slices.Sorted(maps.Keys(value)) {
			b = appendDocument(appendName(b, name), value[name])
		}
		return append(b, '}')
	default:
		panic("apijson: a document holds what no document may hold")
	}
}

// AppendText appends s as a JSON string. What is not UTF-8 in it, which nothing stored is, becomes
// the replacement character.
func AppendText(b []byte, s string) []byte {
	b, _ = jsontext.AppendQuote(b, s)
	return b
}

func appendTextMember(b []byte, name, s string) []byte { return AppendText(appendName(b, name), s) }

// appendTimeMember writes the quotes itself: a formatted time needs no escapes.
func appendTimeMember(b []byte, name string, t time.Time) []byte {
	b = append(appendName(b, name), '"')
	b = append(b, metering.FormatTime(t)...)
	return append(b, '"')
}

// appendName begins a member of the object that b ends in.
func appendName(b []byte, name string) []byte {
	if b[len(b)-1] != '{' {
		b = append(b, ',')
	}
	return append(AppendText(b, name), ':')
}
