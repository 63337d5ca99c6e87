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

// groupItem is the stored form of a group that does not wait to be reported: the members of
// metering.GroupMembers, named and nested as in the API's JSON, and the keys of the table and the
// indexes.
func groupItem(g *metering.Group) map[string]types.AttributeValue {
	// The identifiers of a Group were checked by its constructor, or by the version that stored it.
	org, id := metering.OrgID(g.OrganizationID), metering.GroupID(g.ID)
	item := map[string]types.AttributeValue{
		attrPK:          text(orgKey(org)),
		attrSK:          text(groupKey(id)),
		attrTime:        text(timeKey(g.CreationTime, id)),
		attrBuyer:       text(buyerKey(org, metering.BuyerID(g.BuyerID))),
		attrEntitlement: text(entitlementKey(org, metering.EntitlementID(g.EntitlementID))),
	}
	for i := range metering.GroupMembers {
		m := &metering.GroupMembers[i]
		if value := m.Get(g); value != nil {
			item[m.Name] = attributeValue(value)
		}
	}
	groupStatus{org: org, status: g.Status, at: g.LastUpdateTime, problems: g.Problems}.putInto(item)
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

// attributeValue converts the value of a member, or a document.
func attributeValue(value any) types.AttributeValue {
	switch value := value.(type) {
	case time.Time:
		return text(metering.FormatTime(value))
	case int32:
		return number(strconv.Itoa(int(value)))
	case map[string]metering.Quantity:
		return quantitiesValue(value)
	case metering.MetaInfo:
		return attributeValue(value.Document())
	case []metering.Problem:
		return attributeValue(metering.DocumentOfProblems(value, false))
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
			l[i] = attributeValue(element)
		}
		return &types.AttributeValueMemberL{Value: l}
	case map[string]any:
		m := make(map[string]types.AttributeValue, len(value))
		for name, member := range value {
			m[name] = attributeValue(member)
		}
		return &types.AttributeValueMemberM{Value: m}
	default:
		panic(fmt.Sprintf("table: a %T can't be stored", value))
	}
}

// isOwn reports whether an attribute of a group is the service's own: the keys, and all names that
// begin with "_".
func isOwn(name string) bool {
	return name == attrPK || name == attrSK || name == attrExpiry || strings.HasPrefix(name, "_")
}

// itemGroup reads a stored group, which a newer version may have written: members that this version
// does not know are in Unknown. It fails, naming the attribute, if a required one is missing or has
// another type.
func itemGroup(item map[string]types.AttributeValue) (metering.Group, error) {
	r := itemReader{item: item}
	var g metering.Group
	readMembers(&r, metering.GroupMembers, &g, &g.Unknown, isOwn)
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
