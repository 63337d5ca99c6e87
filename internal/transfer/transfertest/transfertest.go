// Package transfertest generates groups and their lines for the tests of imports and exports.
package transfertest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/wire"
)

// StoredGroups returns the organization's groups, newest first.
func StoredGroups(t *testing.T, tbl *table.Table, org string) []metering.Group {
	t.Helper()
	var groups []metering.Group
	for g, err := range tbl.Groups(t.Context(), metering.OrgID(org), metering.GroupFilter{}) {
		if err != nil {
			t.Fatal(err)
		}
		groups = append(groups, *g)
	}
	return groups
}

// AnyGroup draws groups that may be stored, with every member and value that the contract allows.
func AnyGroup() *rapid.Generator[metering.Group] {
	return rapid.Custom(func(t *rapid.T) metering.Group {
		created := anyTime().Draw(t, "creationTime")
		return metering.Group{
			ID:                  anyID(36, true).Draw(t, "id"),
			OrganizationID:      anyID(16, true).Draw(t, "organizationID"),
			BuyerID:             anyID(64, false).Draw(t, "buyerID"),
			EntitlementID:       anyID(64, true).Draw(t, "entitlementID"),
			ProductID:           rapid.OneOf(rapid.Just(""), anyID(64, false)).Draw(t, "productID"),
			Partner:             rapid.SampledFrom(metering.Partners).Draw(t, "partner"),
			Status:              rapid.SampledFrom(metering.Statuses).Draw(t, "status"),
			Records:             anyQuantities().Draw(t, "records"),
			MetaInfo:            anyMetaInfo().Draw(t, "metaInfo"),
			SerialID:            rapid.Int32Min(0).Draw(t, "serialID"),
			UsageRecordReportID: rapid.String().Draw(t, "usageRecordReportID"),
			CreationTime:        created,
			LastUpdateTime:      rapid.OneOf(rapid.Just(created), anyTime()).Draw(t, "lastUpdateTime"),
			ReportedTime:        rapid.OneOf(rapid.Just(time.Time{}), anyTime()).Draw(t, "reportedTime"),
			Problems:            rapid.OneOf(rapid.Just[[]metering.Problem](nil), rapid.SliceOfN(anyProblem(), 1, 3)).Draw(t, "problems"),
			ReportBy:            rapid.OneOf(rapid.Just(time.Time{}), anyTime()).Draw(t, "reportBy"),
		}
	})
}

// anyID draws identifiers of a bounded number of bytes, with the characters that have a meaning in
// keys, paths, JSON and HTML.
func anyID(most int, inPath bool) *rapid.Generator[string] {
	runes := []rune("abzAZ09-_.#& <>\"'\\+=,:;@é日\u2028😀")
	if !inPath {
		runes = append(runes, '/', '?', '%')
	}
	return rapid.StringOfN(rapid.SampledFrom(runes), 1, most, most).Filter(func(id string) bool { return id != "." && id != ".." })
}

// anyTime draws times of whole milliseconds from the year 1 to 9999.
func anyTime() *rapid.Generator[time.Time] {
	first, last := time.Date(1, 1, 2, 0, 0, 0, 0, time.UTC).UnixMilli(), time.Date(9999, 12, 31, 23, 59, 59, 999e6, time.UTC).UnixMilli()
	return rapid.Map(rapid.OneOf(rapid.Int64Range(first, last), rapid.Int64Range(1.7e12, 1.8e12)), func(ms int64) time.Time {
		return time.UnixMilli(ms).UTC()
	})
}

func anyQuantity() *rapid.Generator[metering.Quantity] {
	return rapid.Custom(func(t *rapid.T) metering.Quantity {
		text := fmt.Sprintf("%de-%d", rapid.Int64().Draw(t, "digits"), rapid.IntRange(0, 19).Draw(t, "decimals"))
		q, err := metering.ParseQuantity(text)
		if err != nil {
			t.Fatal(err)
		}
		return q
	})
}

func anyQuantities() *rapid.Generator[map[string]metering.Quantity] {
	return rapid.MapOfN(anyID(255, false), anyQuantity(), 0, 4)
}

func anyNumber() *rapid.Generator[metering.Number] {
	return rapid.Custom(func(t *rapid.T) metering.Number {
		digits := rapid.StringMatching(`-?[1-9][0-9]{0,37}`).Draw(t, "digits")
		n, err := metering.ParseNumber(digits + "e" + strconv.Itoa(rapid.IntRange(-130, 125-37).Draw(t, "exponent")))
		if err != nil {
			t.Fatal(err)
		}
		return n
	})
}

func anyMetaInfo() *rapid.Generator[metering.MetaInfo] {
	return rapid.Custom(func(t *rapid.T) metering.MetaInfo {
		m := metering.MetaInfo{
			SkipValidation:  rapid.Ptr(rapid.Bool(), true).Draw(t, "SkipValidation"),
			Source:          rapid.Ptr(rapid.SampledFrom(metering.Sources), true).Draw(t, "source"),
			Timestamp:       rapid.Ptr(anyTime(), true).Draw(t, "timestamp"),
			OriginRecords:   rapid.OneOf(rapid.Just[map[string]metering.Quantity](nil), anyQuantities()).Draw(t, "originRecords"),
			BillableRecords: rapid.OneOf(rapid.Just[[]metering.BillableRecord](nil), rapid.SliceOfN(anyBillableRecord(), 0, 3)).Draw(t, "billableRecords"),
		}
		for _, member := range rapid.SliceOfDistinct(rapid.SampledFrom(metering.CarriedMembers()), rapid.ID).Draw(t, "carried") {
			if m.Carried == nil {
				m.Carried = map[string]any{}
			}
			switch member.Kind {
			case metering.KindText:
				m.Carried[member.Name] = rapid.String().Draw(t, member.Name)
			case metering.KindTime:
				m.Carried[member.Name] = metering.FormatTime(anyTime().Draw(t, member.Name))
			case metering.KindAmount:
				m.Carried[member.Name] = anyNumber().Draw(t, member.Name)
			case metering.KindCount:
				m.Carried[member.Name] = metering.NumberOf(int64(rapid.Int32().Draw(t, member.Name)))
			}
		}
		return m
	})
}

func anyProblem() *rapid.Generator[metering.Problem] {
	return rapid.Custom(func(t *rapid.T) metering.Problem {
		return metering.Problem{
			Code: metering.ProblemCode(rapid.String().Draw(t, "code")), Path: rapid.String().Draw(t, "path"),
			Message: rapid.String().Draw(t, "message"), Hint: rapid.String().Draw(t, "hint"),
		}
	})
}

func anyBillableRecord() *rapid.Generator[metering.BillableRecord] {
	return rapid.Custom(func(t *rapid.T) metering.BillableRecord {
		r := metering.BillableRecord{Key: anyID(255, false).Draw(t, "key"), Quantity: anyQuantity().Draw(t, "quantity")}
		if rapid.Bool().Draw(t, "has properties") {
			r.Properties = rapid.MapOfN(anyID(32, false), anyDocument(3), 0, 3).Draw(t, "properties")
		}
		return r
	})
}

func anyDocument(levels int) *rapid.Generator[any] {
	kinds := []*rapid.Generator[any]{
		rapid.Just[any](nil), rapid.Bool().AsAny(), rapid.String().AsAny(), anyNumber().AsAny(),
	}
	if levels > 0 {
		inner := anyDocument(levels - 1)
		kinds = append(kinds, rapid.SliceOfN(inner, 0, 3).AsAny(), rapid.MapOfN(anyID(32, false), inner, 0, 3).AsAny())
	}
	return rapid.OneOf(kinds...)
}

// ManyGroups returns n groups of the organization, drawn by AnyGroup and the same in every run. A
// tenth share a creation time.
func ManyGroups(n int, org string) []metering.Group {
	groups := rapid.SliceOfN(AnyGroup(), n, n).Example(1)
	for i := range groups {
		groups[i].OrganizationID = org
		groups[i].ID = fmt.Sprintf("%d %.20s", i, strings.ToValidUTF8(groups[i].ID, ""))
		if i%10 == 0 {
			groups[i].CreationTime = groups[0].CreationTime
		}
	}
	return groups
}

// Lines returns the groups as lines that Import reads.
func Lines(groups []metering.Group) string {
	var lines []byte
	for _, g := range groups {
		lines = append(wire.AppendGroupForExport(lines, &g), '\n')
	}
	return string(lines)
}

// newestFirst orders groups as a list does.
func newestFirst(a, b metering.Group) int {
	if order := b.CreationTime.Compare(a.CreationTime); order != 0 {
		return order
	}
	return strings.Compare(b.ID, a.ID)
}

// SortedNewestFirst returns a sorted copy.
func SortedNewestFirst(groups []metering.Group) []metering.Group {
	return slices.SortedFunc(slices.Values(groups), newestFirst)
}

// Line returns a line with the required members and those given as name, value. A value is a number
// or an object, as it is, or else a string. An empty value removes the member.
func Line(id string, members ...string) string {
	group := map[string]any{
		"id": id, "buyerID": "buyer", "entitlementID": "ent-1", "partner": "AWS", "status": "CREATED", "creationTime": "2026-03-01T12:00:00Z",
	}
	for i := 0; i < len(members); i += 2 {
		name, value := members[i], members[i+1]
		switch {
		case value == "":
			delete(group, name)
		case value[0] == '{' || name == "serialID":
			group[name] = json.RawMessage(value)
		default:
			group[name] = value
		}
	}
	line, err := json.Marshal(group)
	if err != nil {
		panic(err)
	}
	return string(line) + "\n"
}

// WantSerial fails the test if the organization's serial counter is below atLeast.
func WantSerial(t *testing.T, tbl *table.Table, org string, atLeast int32) {
	t.Helper()
	if serial, err := tbl.Serial(t.Context(), metering.OrgID(org)); err != nil || serial < atLeast {
		t.Errorf("the serial counter is %d, %v; want at least %d", serial, err, atLeast)
	}
}
