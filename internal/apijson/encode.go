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

// AppendGroupForExport appends the group with its productID, where it has one, as DecodeGroup
// reads it.
func AppendGroupForExport(b []byte, g *metering.Group) []byte {
	return appendGroup(b, g, true)
}

func appendGroup(b []byte, g *metering.Group, withProduct bool) []byte {
	b = append(b, '{')
	b = appendTextMember(b, "buyerID", g.BuyerID)
	b = appendTimeMember(b, "creationTime", g.CreationTime)
	b = appendTextMember(b, "entitlementID", g.EntitlementID)
	b = appendTextMember(b, "id", g.ID)
	b = appendTimeMember(b, "lastUpdateTime", g.LastUpdateTime)
	b = AppendMetaInfo(appendName(b, "metaInfo"), &g.MetaInfo)
	b = appendTextMember(b, "organizationID", g.OrganizationID)
	b = appendTextMember(b, "partner", string(g.Partner))
	if withProduct && g.ProductID != "" {
		b = appendTextMember(b, "productID", g.ProductID)
	}
	b = AppendQuantities(appendName(b, "records"), g.Records)
	if !g.ReportedTime.IsZero() {
		b = appendTimeMember(b, "reportedTime", g.ReportedTime)
	}
	b = strconv.AppendInt(appendName(b, "serialID"), int64(g.SerialID), 10)
	b = appendTextMember(b, "status", string(g.Status))
	b = appendTextMember(b, "usageRecordReportID", g.UsageRecordReportID)
	return append(b, '}')
}

// AppendMetaInfo appends a group's metaInfo, of whose members those are there that are present.
func AppendMetaInfo(b []byte, m *metering.MetaInfo) []byte {
	return appendDocument(b, m.Document())
}

// AppendQuantities appends an object of quantities by key.
func AppendQuantities(b []byte, quantities map[string]metering.Quantity) []byte {
	b = append(b, '{')
	for _, key := range slices.Sorted(maps.Keys(quantities)) {
		b = append(appendName(b, key), quantities[key].String()...)
	}
	return append(b, '}')
}

// AppendConfig appends the config as the API returns it and the table stores it.
func AppendConfig(b []byte, c metering.Config) []byte {
	b = append(b, `{"partnerUsageMeteringConfigs":[`...)
	for i, p := range c.Partners {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '{')
		if p.DimensionMapping != nil {
			b = append(appendName(b, "dimensionMapping"), '{')
			for _, key := range slices.Sorted(maps.Keys(p.DimensionMapping)) {
				b = appendMappingValue(appendName(b, key), p.DimensionMapping[key])
			}
			b = append(b, '}')
		}
		if p.DimensionMappingV2 != nil {
			b = append(appendName(b, "dimensionMappingV2"), '{')
			for _, key := range slices.Sorted(maps.Keys(p.DimensionMappingV2)) {
				b = append(appendName(b, key), '[')
				for i, value := range p.DimensionMappingV2[key] {
					if i > 0 {
						b = append(b, ',')
					}
					b = appendMappingValue(b, value)
				}
				b = append(b, ']')
			}
			b = append(b, '}')
		}
		b = appendFlag(b, "enableBillableDimension", p.EnableBillableDimension)
		b = appendFlag(b, "enableCommitWithAdditionalUsageAtListPrice", p.EnableCommitWithAdditionalUsageAtListPrice)
		b = appendFlag(b, "enableCommitWithAdditionalUsageMetering", p.EnableCommitWithAdditionalUsageMetering)
		b = appendFlag(b, "enableDimensionMapping", p.EnableDimensionMapping)
		b = appendTextMember(b, "partner", p.Partner)
		b = append(b, '}')
	}
	return append(b, "]}"...)
}

func appendMappingValue(b []byte, v metering.MappingValue) []byte {
	b = append(b, '{')
	if v.ConvertionMultiplier != nil {
		b = append(appendName(b, "convertionMultiplier"), v.ConvertionMultiplier.String()...)
	}
	b = appendTextMember(b, "dimensionKey", v.DimensionKey)
	if v.MappingMode != nil {
		b = appendTextMember(b, "mappingMode", string(*v.MappingMode))
	}
	return append(b, '}')
}

func appendFlag(b []byte, name string, flag *bool) []byte {
	if flag == nil {
		return b
	}
	return strconv.AppendBool(appendName(b, name), *flag)
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
