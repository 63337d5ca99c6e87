package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/wire"
)

// onTable runs a command of the program on the table and returns its exit status and what it wrote, but
// for the line on standard error that says which table it acts on.
func onTable(t *testing.T, tableName, stdin string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	environment := map[string]string{"DYNAMODB_ENDPOINT": os.Getenv("DYNAMODB_ENDPOINT"), "TABLE_NAME": tableName}
	var out, errs bytes.Buffer
	getenv := func(name string) string { return environment[name] }
	status = run(t.Context(), args, getenv, strings.NewReader(stdin), &out, &errs)
	acts := "table " + tableName + " at " + os.Getenv("DYNAMODB_ENDPOINT") + ", from DYNAMODB_ENDPOINT\n"
	return status, out.String(), strings.TrimPrefix(errs.String(), acts)
}

// storedGroups are the organization's groups, newest first.
func storedGroups(t *testing.T, tbl *table.Table, org string) []metering.Group {
	t.Helper()
	var groups []metering.Group
	for g, err := range tbl.Groups(t.Context(), org, metering.GroupFilter{}) {
		if err != nil {
			t.Fatal(err)
		}
		groups = append(groups, *g)
	}
	return groups
}

// listedPages is what the list operation answers for all of time, every page, one a line, the members of each
// object in the order of their names.
func listedPages(t *testing.T, tbl *table.Table, org string, limit int) string {
	t.Helper()
	api := httpapi.API{
		Table: tbl, Log: slog.New(slog.DiscardHandler), Now: time.Now,
		Authenticate: func(*http.Request) (auth.Principal, error) {
			return auth.Principal{Organization: org, KeyID: "test", Scopes: auth.Read}, nil
		},
		CountUnits: table.CountUnits,
	}
	handler := api.Handler(httpapi.ListGroups)
	nextOffset := regexp.MustCompile(`"nextOffset":(\d+)}$`)
	var pages strings.Builder
	for offset := "0"; ; {
		path := fmt.Sprintf("/org/%s/usageRecordGroup?startDate=0000-01-01&endDate=9999-12-31&limit=%d&offset=%s", url.PathEscape(org), limit, offset)
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), "GET", path, nil))
		next := nextOffset.FindStringSubmatch(answer.Body.String())
		if answer.Code != 200 || next == nil {
			t.Fatalf("%s: %d %s", path, answer.Code, answer.Body)
		}
		var page any
		decoder := json.NewDecoder(answer.Body)
		decoder.UseNumber()
		if err := decoder.Decode(&page); err != nil {
			t.Fatal(err)
		}
		sorted, err := json.Marshal(page)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&pages, "%s\n", sorted)
		if offset = next[1]; offset == "0" {
			return pages.String()
		}
	}
}

// For all groups, the line that export writes is read as the same group.
func TestExportedLinesAreReadAsTheSameGroup(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := anyGroup().Draw(t, "group")
		line := wire.AppendGroupForExport(nil, &want)
		got, err := wire.DecodeGroup(line)
		if err != nil {
			t.Fatalf("%v\n%s", err, line)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(metering.Quantity{}, metering.Number{})); diff != "" {
			t.Fatalf("-want +got\n%s\n%s", diff, line)
		}
	})
}

// anyGroup draws groups that may be stored, with every member and value that the contract allows.
func anyGroup() *rapid.Generator[metering.Group] {
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
		}
	})
}

// anyID draws identifiers with what keys, paths, JSON and HTML give a meaning to, of at most that many
// bytes.
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

// manyGroups are n groups of the organization as anyGroup draws them, the same in every run; a tenth
// share a creation time.
func manyGroups(n int, org string) []metering.Group {
	groups := rapid.SliceOfN(anyGroup(), n, n).Example(1)
	for i := range groups {
		groups[i].OrganizationID = org
		groups[i].ID = fmt.Sprintf("%d %.20s", i, strings.ToValidUTF8(groups[i].ID, ""))
		if i%10 == 0 {
			groups[i].CreationTime = groups[0].CreationTime
		}
	}
	return groups
}

// linesOf are the groups as import reads them.
func linesOf(groups []metering.Group) string {
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

// sortedNewestFirst is a sorted copy.
func sortedNewestFirst(groups []metering.Group) []metering.Group {
	return slices.SortedFunc(slices.Values(groups), newestFirst)
}
