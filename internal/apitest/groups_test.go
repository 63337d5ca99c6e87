package apitest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/wire"
)

// doc is a JSON object, as a test writes it or as parse reads it.
type doc = map[string]any

// exact is a JSON number as parse reads it: its value as a fraction, so that 1, 1.0 and 1e0 are
// equal and nothing is rounded.
type exact string

// parse reads one JSON value, every number in it exact.
func parse(t testing.TB, text string) any {
	t.Helper()
	value := values(text)
	if err, ok := value.(error); ok {
		t.Fatalf("%v: %.300s", err, text)
	}
	return value
}

func toJSON(t testing.TB, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// wantSame compares two values that parse made.
func wantSame(t testing.TB, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// wantOperations wants a file or folder to have what httpapi.Operations has.
func wantOperations(t testing.TB, place string, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s is not as httpapi.Operations: it lacks the lines with -, those with + are too much\n%s", place, diff)
	}
}

// group is a usage record group created a day before now; members replace its members or add to
// them.
func group(id string, members ...doc) doc {
	g := doc{
		"id": id, "buyerID": "buyer-1", "entitlementID": "entitlement-1", "partner": "AWS", "status": "CREATED",
		"creationTime": "2024-07-28T10:00:00.000Z", "records": doc{"cpu": json.Number("1.5")}, "metaInfo": doc{"source": "API"},
		"serialID": 7, "usageRecordReportID": "", "productID": "product-1",
	}
	for _, m := range members {
		maps.Copy(g, m)
	}
	return g
}

func (a *api) put(t testing.TB, org string, groups ...doc) {
	t.Helper()
	putGroups(t, a.table, org, groups...)
}

// putGroups stores groups in the organization, as import does.
func putGroups(t testing.TB, tbl *table.Table, org string, groups ...doc) {
	t.Helper()
	work, failures := make(chan doc), make(chan error, len(groups))
	var workers sync.WaitGroup
	for range min(8, len(groups)) {
		workers.Go(func() {
			for g := range work {
				failures <- putGroup(t, tbl, org, g)
			}
		})
	}
	for _, g := range groups {
		work <- g
	}
	close(work)
	workers.Wait()
	close(failures)
	for err := range failures {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func putGroup(t testing.TB, tbl *table.Table, org string, g doc) error {
	stored, err := decodeGroup(org, g)
	if err != nil {
		return err
	}
	isNew, err := tbl.Put(t.Context(), stored)
	if err == nil && !isNew {
		err = errIsThere
	}
	if err != nil {
		return fmt.Errorf("put group %v: %w", g["id"], err)
	}
	return nil
}

// decodeGroup reads the group as import does. If an identifier holds "%", it reads the group as an
// earlier version did.
func decodeGroup(org string, g doc) (*metering.Group, error) {
	g = maps.Clone(g)
	id, entitlement := g["id"], g["entitlementID"]
	for _, name := range []string{"id", "entitlementID"} {
		if text, ok := g[name].(string); ok {
			g[name] = strings.ReplaceAll(text, "%", "x")
		}
	}
	line, err := json.Marshal(g)
	if err != nil {
		return nil, err
	}
	group, err := wire.DecodeGroup(line)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", line, err)
	}
	group.OrganizationID = org
	group.ID, group.EntitlementID = id.(string), entitlement.(string)
	return &group, nil
}

// answered is the group as the API must return it, as parse reads it.
func answered(t testing.TB, org string, g doc) doc {
	t.Helper()
	want := parse(t, toJSON(t, g)).(doc)
	delete(want, "productID")
	want["organizationID"] = org
	for _, absent := range []string{"records", "metaInfo"} {
		if want[absent] == nil {
			want[absent] = doc{}
		}
	}
	if want["lastUpdateTime"] == nil {
		want["lastUpdateTime"] = want["creationTime"]
	}
	for _, name := range []string{"creationTime", "lastUpdateTime", "reportedTime"} {
		asAnsweredTime(t, want, name)
	}
	metaInfo := want["metaInfo"].(doc)
	for _, name := range []string{"timestamp", "lagoUsageStartTime", "stripePeriodStartTime", "stripePeriodEndTime"} {
		asAnsweredTime(t, metaInfo, name)
	}
	return want
}

func asAnsweredTime(t testing.TB, object doc, name string) {
	if text, ok := object[name].(string); ok {
		object[name] = milliseconds(parseTime(t, text))
	}
}

func parseTime(t testing.TB, text string) time.Time {
	t.Helper()
	parsed, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// milliseconds is RFC 3339 in UTC with three decimals, truncated.
func milliseconds(at time.Time) string {
	at = at.UTC()
	return fmt.Sprintf("%s.%03dZ", at.Format("2006-01-02T15:04:05"), at.Nanosecond()/1_000_000)
}

// page is a response of the list operation.
type page struct {
	nextOffset int
	groups     []doc
}

func (p page) ids() []string {
	ids := []string{}
	for _, g := range p.groups {
		ids = append(ids, g["id"].(string))
	}
	return ids
}

// groupMembers and metaInfoMembers are the members that the contract names; any other in a response
// is a leak.
var (
	groupMembers = []string{
		"buyerID", "creationTime", "entitlementID", "id", "lastUpdateTime", "metaInfo", "organizationID", "partner",
		"problems", "records", "reportBy", "reportedTime", "serialID", "status", "usageRecordReportID",
	}
	metaInfoMembers = []string{
		"SkipValidation", "billableRecords", "lagoAmount", "lagoSubscriptionID", "lagoUsageStartTime", "metronomeDailyCostAmount",
		"metronomeInvoiceID", "metronomeMonthlyInvoiceAmount", "metronomeMonthlyInvoiceAmountAdjusted", "originRecords", "source",
		"stripeInvoiceID", "stripePeriodEndTime", "stripePeriodStartTime", "stripeSubscriptionItemID", "stripeUsageRecordSummaryID",
		"stripeUsageRecordSummaryTotalUsage", "timestamp",
	}
)

// asGroup checks that a value is a group with the contract's members and no others.
func asGroup(t testing.TB, value any) doc {
	t.Helper()
	g, ok := value.(doc)
	if !ok {
		t.Fatalf("not a group: %v", value)
	}
	for _, name := range groupMembers {
		if _, ok := g[name]; !ok && name != "reportedTime" && name != "problems" && name != "reportBy" {
			t.Errorf("group %v has no %s", g["id"], name)
		}
	}
	for name := range g {
		if !slices.Contains(groupMembers, name) {
			t.Errorf("group %v has the member %s, which is not the API's", g["id"], name)
		}
	}
	for name := range g["metaInfo"].(doc) {
		if !slices.Contains(metaInfoMembers, name) {
			t.Errorf("the metaInfo of group %v has the member %s, which is not the API's", g["id"], name)
		}
	}
	return g
}

// list requests one page, which must be returned.
func (a *api) list(t testing.TB, org string, parameters url.Values) page {
	t.Helper()
	got := a.get(t, listPath(org), parameters.Encode())
	want(t, got, http.StatusOK)
	body := parse(t, got.body).(doc)
	p := page{}
	for name, value := range body {
		switch name {
		case "nextOffset":
			if _, err := fmt.Sscan(string(value.(exact)), &p.nextOffset); err != nil {
				t.Fatal(err)
			}
		case "usageRecordGroups":
			for _, element := range value.([]any) {
				p.groups = append(p.groups, asGroup(t, element))
			}
		default:
			t.Errorf("the page has a member %s", name)
		}
	}
	if len(body) != 2 {
		t.Errorf("the page has %d members, want nextOffset and usageRecordGroups", len(body))
	}
	return p
}

// listAll follows nextOffset from the start to the end.
func (a *api) listAll(t testing.TB, org string, parameters url.Values) []doc {
	t.Helper()
	parameters = maps.Clone(parameters)
	if parameters == nil {
		parameters = url.Values{}
	}
	groups := []doc{}
	for {
		p := a.list(t, org, parameters)
		groups = append(groups, p.groups...)
		if p.nextOffset == 0 {
			return groups
		}
		if len(p.groups) == 0 || p.nextOffset != len(groups) {
			t.Fatalf("%d groups so far, %d on this page, nextOffset %d", len(groups), len(p.groups), p.nextOffset)
		}
		parameters.Set("offset", fmt.Sprint(p.nextOffset))
	}
}

func idsOf(groups []doc) []string { return page{groups: groups}.ids() }

func orgPath(org string) string { return "/org/" + url.PathEscape(org) }

func listPath(org string) string { return orgPath(org) + "/usageRecordGroup" }

func groupPath(org, id string) string { return listPath(org) + "/" + url.PathEscape(id) }

func configPath(org string) string { return orgPath(org) + "/usageMeteringConfigInfo" }
