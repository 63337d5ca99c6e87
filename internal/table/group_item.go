package table

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
)

// groupItem is the group as it is stored: plain attributes, named and nested as its API JSON, plus
// the keys of the table and the indexes.
func groupItem(g *metering.Group) map[string]types.AttributeValue {
	// The identifiers of a Group were checked by what made it, or by the version that stored it.
	org, id := metering.OrgID(g.OrganizationID), metering.GroupID(g.ID)
	item := map[string]types.AttributeValue{
		attrPK:          text(orgKey(org)),
		attrSK:          text(groupKey(id)),
		attrTime:        text(timeKey(g.CreationTime, id)),
		attrStatus:      text(statusKey(org, g.Status)),
		attrBuyer:       text(buyerKey(org, metering.BuyerID(g.BuyerID))),
		attrEntitlement: text(entitlementKey(org, metering.EntitlementID(g.EntitlementID))),

		"id":                  text(g.ID),
		"organizationID":      text(g.OrganizationID),
		"buyerID":             text(g.BuyerID),
		"entitlementID":       text(g.EntitlementID),
		"partner":             text(string(g.Partner)),
		"status":              text(string(g.Status)),
		"records":             quantitiesValue(g.Records),
		"metaInfo":            documentValue(g.MetaInfo.Document()),
		"serialID":            number(strconv.Itoa(int(g.SerialID))),
		"usageRecordReportID": text(g.UsageRecordReportID),
		"creationTime":        text(metering.FormatTime(g.CreationTime)),
		"lastUpdateTime":      text(metering.FormatTime(g.LastUpdateTime)),
	}
	if g.ProductID != "" {
		item["productID"] = text(g.ProductID)
	}
	if !g.ReportedTime.IsZero() {
		item["reportedTime"] = text(metering.FormatTime(g.ReportedTime))
	}
	return item
}

func number(s string) *types.AttributeValueMemberN { return &types.AttributeValueMemberN{Value: s} }

func quantitiesValue(quantities map[string]metering.Quantity) types.AttributeValue {
	m := make(map[string]types.AttributeValue, len(quantities))
	for key, q := range quantities {
		m[key] = number(q.String())
	}
	return &types.AttributeValueMemberM{Value: m}
}

// documentValue stores one of metering's documents.
func documentValue(document any) types.AttributeValue {
	switch value := document.(type) {
	case nil:
		return &types.AttributeValueMemberNULL{Value: true}
	case bool:
		return &types.AttributeValueMemberBOOL{Value: value}
	case string:
		return text(value)
	case metering.Number:
		return number(value.String())
	case []any:
		l := make([]types.AttributeValue, len(value))
		for i, element := range value {
			l[i] = documentValue(element)
		}
		return &types.AttributeValueMemberL{Value: l}
	case map[string]any:
		m := make(map[string]types.AttributeValue, len(value))
		for name, member := range value {
			m[name] = documentValue(member)
		}
		return &types.AttributeValueMemberM{Value: m}
	default:
		panic(fmt.Sprintf("table: a document holds a %T", document))
	}
}

// isGroupAttribute tells the attributes that itemGroup reads or that are the service's own: those of the keys,
// and all that begin with "_".
func isGroupAttribute(name string) bool {
	switch name {
	case attrPK, attrSK, attrExpiry, "productID":
		return true
	}
	return strings.HasPrefix(name, "_") || slices.ContainsFunc(groupMembers[:], func(m member) bool { return m.name == name })
}

// itemGroup reads a stored group, which a newer version may have written: what this one does not know is in
// Unknown. It fails, naming the attribute, if a required one is missing or has another type.
func itemGroup(item map[string]types.AttributeValue) (metering.Group, error) {
	r := itemReader{item: item}
	g := metering.Group{
		ID:                  r.text("id"),
		OrganizationID:      r.text("organizationID"),
		BuyerID:             r.text("buyerID"),
		EntitlementID:       r.text("entitlementID"),
		Partner:             metering.Partner(r.text("partner")),
		Status:              metering.Status(r.text("status")),
		Records:             r.quantities("records"),
		SerialID:            r.int32("serialID"),
		UsageRecordReportID: r.text("usageRecordReportID"),
		CreationTime:        r.time("creationTime"),
		LastUpdateTime:      r.time("lastUpdateTime"),
	}
	if r.has("productID") && !read(&r, &g.ProductID, func(r *itemReader) string { return r.text("productID") }) {
		r.keepUnknown(&g.Unknown, "productID")
	}
	if r.has("reportedTime") && !read(&r, &g.ReportedTime, func(r *itemReader) time.Time { return r.exactTime("reportedTime") }) {
		r.keepUnknown(&g.Unknown, "reportedTime")
	}
	g.MetaInfo = r.metaInfo("metaInfo")
	for name := range item {
		if !isGroupAttribute(name) {
			r.keepUnknown(&g.Unknown, name)
		}
	}
	slices.Sort(r.unexportable)
	g.Unexportable = r.unexportable
	if r.err != nil {
		return metering.Group{}, &metering.Error{
			Code: metering.Internal, Message: "internal error",
			Cause: fmt.Errorf("the stored group %q of %q: %w", g.ID, g.OrganizationID, r.err),
		}
	}
	return g, nil
}
