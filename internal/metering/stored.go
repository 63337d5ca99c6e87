package metering

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// CheckStorable returns the reason why g can't be stored, or nil. The table and ValidateBatch both
// use this rule.
func (g *Group) CheckStorable() error {
	for i, r := range g.MetaInfo.BillableRecords {
		if err := checkProperties(r.Properties, "metaInfo.billableRecords["+strconv.Itoa(i)+"].properties"); err != nil {
			return err
		}
	}
	return checkStoredSize(g, "the group has %d bytes as stored")
}

func checkStoredSize(g *Group, has string) error {
	if size := g.storedSize(); size > MaxStored {
		return fmt.Errorf(has+": it may have at most %d (%d KB)", size, MaxStored, MaxStored>>10)
	}
	return nil
}

// checkProperties checks the names in the properties of a billable record, at any depth. It returns
// the first error in a fixed order. path is the path of the properties.
func checkProperties(properties map[string]any, path string) error {
	if namesFit(properties) {
		return nil
	}
	return misnamed(properties, path)
}

func nameFits(name string) bool { return name != "" && len(name) <= MaxPropertyName }

func namesFit(document any) bool {
	switch value := document.(type) {
	case map[string]any:
		for name, member := range value {
			if !nameFits(name) || !namesFit(member) {
				return false
			}
		}
	case []any:
		for _, element := range value {
			if !namesFit(element) {
				return false
			}
		}
	}
	return true
}

// misnamed returns the error for an invalid name in the document at path, or nil if all are valid.
func misnamed(document any, path string) error {
	switch value := document.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(value)) {
			if !nameFits(name) {
				return fmt.Errorf("%s has a member named %s, of %d bytes: a name must have 1 to %d bytes", path, Quote(name), len(name), MaxPropertyName)
			}
			if !namesFit(value[name]) {
				return misnamed(value[name], path+"["+Quote(name)+"]")
			}
		}
	case []any:
		for i, element := range value {
			if !namesFit(element) {
				return misnamed(element, fmt.Sprintf("%s[%d]", path, i))
			}
		}
	}
	return nil
}

// surelyFits reports whether g is so small that largest need not be measured. This is true of
// almost all groups.
func (g *NewGroup) surelyFits() bool { return g.roughSize() <= MaxStored }

// The max bytes of parts of a group, for roughSize.
const (
	roughIDs, roughNumber, roughRecord = 8 << 10, 32, 64
)

// roughSize is more bytes than g takes as stored, without a mapping.
func (g *NewGroup) roughSize() int {
	size := roughIDs
	for _, r := range g.Records {
		size += 2 * (len(r.Key) + roughNumber)
	}
	billable, _ := g.billable()
	for _, r := range billable {
		size += roughRecord + 3*(len(r.Key)+roughNumber) + sizeOfDocument(r.Properties)
	}
	for name, value := range g.MetaInfo.Carried {
		size += len(name) + roughNumber + sizeOfDocument(value)
	}
	return size
}

// largest returns the largest group that a report of g to the organization stores, if no mapping
// changes its keys: each value that g does not have yet is as long as it may be. g's quantities are
// valid.
func (g *NewGroup) largest(org OrgID) Group {
	// In the keys of the table a "#" takes three bytes; a character has at most four.
	id, entitlement, other := strings.Repeat("\U0010FFFF", MaxGroupID), strings.Repeat("#", MaxEntitlementID), strings.Repeat("#", max(MaxBuyerID, MaxProductID))
	if g.ID != "" {
		id = g.ID
	}
	if g.EntitlementID != "" {
		entitlement = g.EntitlementID
	}
	source, skip, at := longestOf(Sources), g.MetaInfo.SkipValidation, time.Time{}
	if g.MetaInfo.Source != "" {
		source = Source(g.MetaInfo.Source)
	}
	group := Group{
		ID: id, OrganizationID: string(org), BuyerID: other, EntitlementID: entitlement, ProductID: other,
		Partner: longestOf(Partners), Status: longestOf(Statuses), SerialID: 1<<31 - 1,
		MetaInfo: MetaInfo{SkipValidation: &skip, Source: &source, Timestamp: &at, Carried: g.MetaInfo.Carried},
		Records:  make(map[string]Quantity, len(g.Records)),
	}
	for _, r := range g.Records {
		group.Records[r.Key], _ = ParseQuantity(r.Quantity)
	}
	if billable, _ := g.billable(); len(billable) > 0 {
		group.MetaInfo.BillableRecords = make([]BillableRecord, len(billable))
		for i, r := range billable {
			quantity := Quantity{}
			if r.Quantity != "" {
				quantity, _ = ParseQuantity(r.Quantity)
			}
			group.MetaInfo.BillableRecords[i] = BillableRecord{Key: r.Key, Properties: r.Properties, Quantity: quantity}
			group.Records[r.Key] = longestQuantity // an aggregate
		}
	}
	group.MetaInfo.OriginRecords = group.Records
	return group
}

var longestQuantity, _ = ParseQuantity("0.1000000000000000001")

func longestOf[S ~string](values []S) S {
	return slices.MaxFunc(values, func(a, b S) int { return len(a) - len(b) })
}

// storedSize is the size of the item that internal/table makes of the group, as DynamoDB counts it
// (AWS: DynamoDB item sizes and formats): names and texts by their bytes, 1 byte for a boolean or a
// null, 3 for a map or list and 1 for each of its members. For a number, AWS documents about 1 byte
// per two digits and 1 more; storedSize counts the maximum.
func (g *Group) storedSize() int {
	const aTime, anOperation = len(timeLayout), 16
	org := sizeInKey(g.OrganizationID)
	size := len("PK"+"ORG#") + org +
		len("SK"+"GROUP#") + sizeInKey(g.ID) +
		len("_time"+"#") + aTime + len(g.ID) +
		len("_status"+"ORG##STATUS#") + org + len(g.Status) +
		len("_buyer"+"ORG##BUYER#") + org + sizeInKey(g.BuyerID) +
		len("_entitlement"+"ORG##ENTITLEMENT#") + org + sizeInKey(g.EntitlementID) +
		len("_op") + anOperation

	return size + sizeOfMembers(GroupMembers, g, 0)
}

const (
	sizeOfContainer = 3
	sizeOfMember    = 1
)

// sizeOfMembers is the size of the members of o; each is added per member to its name and value.
func sizeOfMembers[O any](members []Member[O], o *O, each int) (size int) {
	for i := range members {
		if value := members[i].Get(o); value != nil {
			size += len(members[i].Name) + sizeOfValue(value) + each
		}
	}
	return size
}

// sizeOfValue is the size of a member's value.
func sizeOfValue(value any) int {
	switch value := value.(type) {
	case time.Time:
		return len(timeLayout)
	case int32:
		return NumberOf(int64(value)).storedSize()
	case Quantity:
		return value.number().storedSize()
	case map[string]Quantity:
		size := sizeOfContainer
		for key, q := range value {
			size += sizeOfMember + len(key) + q.number().storedSize()
		}
		return size
	case []BillableRecord:
		size := sizeOfContainer
		for i := range value {
			size += sizeOfMember + sizeOfContainer + sizeOfMembers(BillableMembers, &value[i], sizeOfMember)
		}
		return size
	case []Problem:
		return sizeOfDocument(DocumentOfProblems(value, false))
	case MetaInfo:
		return sizeOfContainer + sizeOfMembers(MetaInfoMembers, &value, sizeOfMember)
	default:
		return sizeOfDocument(value)
	}
}

func sizeOfDocument(document any) int {
	switch value := document.(type) {
	case string:
		return len(value)
	case Number:
		return value.storedSize()
	case []any:
		size := sizeOfContainer
		for _, element := range value {
			size += sizeOfMember + sizeOfDocument(element)
		}
		return size
	case map[string]any:
		size := sizeOfContainer
		for name, member := range value {
			size += sizeOfMember + len(name) + sizeOfDocument(member)
		}
		return size
	default: // a boolean or nil
		return 1
	}
}

// storedSize counts digits in pairs from the decimal point; a half-empty pair counts as a pair.
func (n Number) storedSize() int {
	if n.digits == "" {
		return 1
	}
	first, last := n.exponent+len(n.digits)-1, n.exponent
	size := 1 + first>>1 - last>>1 + 1
	if n.negative {
		size++
	}
	return size
}

// sizeInKey is the size of an identifier in a key of the table, in which "%" and "#" are escaped.
func sizeInKey(id string) int {
	return len(id) + len("%23"[1:])*(strings.Count(id, "#")+strings.Count(id, "%"))
}
