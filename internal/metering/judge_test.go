package metering

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// judgeNow is when the tests judge: no month has just begun.
var judgeNow = time.Date(2024, 7, 29, 15, 51, 28, 71_000_000, time.UTC)

// completeIDs are identifiers with which usage can be reported.
var completeIDs = map[Partner]MarketplaceIDs{
	"AWS":   {CustomerAWSAccountID: "123456789012", LicenseARN: "arn:aws:license-manager::123456789012:license:l-1"},
	"AZURE": {ResourceID: "2f8a4b0e-6c1d-4e57-9a3b-0d1e2f3a4b5c", PlanID: "gold"},
	"GCP":   {UsageReportingID: "project_number:1", ServiceName: "example.endpoints.acme.cloud.goog"},
}

// active returns the terms of an active entitlement with the dimensions a and b; b has a price.
func active(partner Partner) *Terms {
	price, _ := ParseQuantity("2")
	return &Terms{
		Entitlement: &Entitlement{
			ID: "e1", OrganizationID: "o1", Partner: partner, BuyerID: "buyer", Status: EntitlementActive, Marketplace: completeIDs[partner],
			Info: EntitlementInfo{DimensionsKnown: true, Dimensions: []Dimension{{Key: "a"}, {Key: "b", Name: "bytes", Rate: price}}},
		},
		Connection: &Connection{Partner: partner},
		Config:     ConfigVersion{Config: EmptyConfig()},
	}
}

// usage returns a group of the entitlement e1 with a record of dimension a, of that time.
func usage(at time.Time) *NewGroup {
	return &NewGroup{EntitlementID: "e1", Timestamp: &at, Records: []NewRecord{{"a", "1"}}}
}

// found returns the codes of problems with their paths, warnings in lower case.
func found(problems []Problem) string {
	all := make([]string, len(problems))
	for i, p := range problems {
		code := string(p.Code)
		if p.Severity == SeverityWarning {
			code = strings.ToLower(code)
		}
		all[i] = code + " " + p.Path
	}
	return strings.Join(all, ", ")
}

func TestJudge_Entitlement(t *testing.T) {
	hour := func(h float64) time.Time { return judgeNow.Add(time.Duration(h * float64(time.Hour))) }
	for _, c := range []struct {
		name    string
		partner Partner
		change  func(e *Entitlement)
		at      time.Time // of the usage
		want    string
	}{
		{"active", "AWS", func(*Entitlement) {}, hour(-1), ""},
		{"about to be cancelled", "AWS", func(e *Entitlement) { e.Status = EntitlementPendingCancel }, hour(-1), ""},
		{"not started", "AWS", func(e *Entitlement) { e.Status = EntitlementPendingStart }, hour(-1), "ENTITLEMENT_NOT_ACTIVE /entitlementID"},
		{"suspended", "AZURE", func(e *Entitlement) { e.Status = EntitlementSuspended }, hour(-1), "ENTITLEMENT_NOT_ACTIVE /entitlementID"},
		{"of a newer version", "GCP", func(e *Entitlement) { e.Status = "PAUSED" }, hour(-0.5), "ENTITLEMENT_NOT_ACTIVE /entitlementID"},
		{"deleted", "AWS", func(e *Entitlement) { e.Status = EntitlementDeleted }, hour(-1), "ENTITLEMENT_UNKNOWN /entitlementID"},
		{"at its start", "AWS", func(e *Entitlement) { e.StartTime = hour(-1) }, hour(-1), ""},
		{"before its start", "AWS", func(e *Entitlement) { e.StartTime = hour(-1).Add(time.Millisecond) }, hour(-1), "ENTITLEMENT_NOT_STARTED /entitlementID"},
		{"before its end", "AWS", func(e *Entitlement) { e.EndTime = hour(-1).Add(time.Millisecond) }, hour(-1), ""},
		{"at its end", "AWS", func(e *Entitlement) { e.EndTime = hour(-1) }, hour(-1), "ENTITLEMENT_ENDED /entitlementID"},
		{"before it was cancelled", "AZURE", func(e *Entitlement) { e.Status, e.CancelTime = EntitlementCancelled, hour(-1) }, hour(-2), ""},
		{"when it was cancelled", "AZURE", func(e *Entitlement) { e.Status, e.CancelTime = EntitlementCancelled, hour(-1) }, hour(-1), "ENTITLEMENT_ENDED /entitlementID"},
		{"cancelled, not long ago", "AWS", func(e *Entitlement) { e.Status, e.CancelTime = EntitlementCancelled, hour(-0.9) }, hour(-2), ""},
		{"cancelled an hour ago", "AWS", func(e *Entitlement) { e.Status, e.CancelTime = EntitlementCancelled, hour(-1) }, hour(-2), "TOO_OLD /timestamp"},
		{"cancelled on Google an hour ago", "GCP", func(e *Entitlement) { e.Status, e.CancelTime = EntitlementCancelled, hour(-1) }, hour(-2), "TOO_OLD /timestamp"},
		{"cancelled without a time", "AWS", func(e *Entitlement) { e.Status = EntitlementCancelled }, hour(-1), "ENTITLEMENT_NOT_ACTIVE /entitlementID"},
		{"to be cancelled", "AWS", func(e *Entitlement) { e.Status, e.CancelTime = EntitlementPendingCancel, hour(1) }, hour(-1), ""},
		{"without identifiers", "AWS", func(e *Entitlement) { e.Marketplace = MarketplaceIDs{} }, hour(-1), "ENTITLEMENT_WITHOUT_IDENTIFIERS /entitlementID"},
		{"with half of them", "AZURE", func(e *Entitlement) { e.Marketplace.PlanID = "" }, hour(-1), "ENTITLEMENT_WITHOUT_IDENTIFIERS /entitlementID"},
		{"all at once", "AWS", func(e *Entitlement) {
			e.Status, e.StartTime, e.EndTime, e.Marketplace, e.Info.Dimensions = EntitlementSuspended, hour(3), hour(-30), MarketplaceIDs{}, nil
		}, hour(-30), "ENTITLEMENT_NOT_ACTIVE /entitlementID, ENTITLEMENT_NOT_STARTED /entitlementID, ENTITLEMENT_ENDED /entitlementID, " +
			"ENTITLEMENT_WITHOUT_IDENTIFIERS /entitlementID, TOO_OLD /timestamp, DIMENSION_UNKNOWN /records/a"},
	} {
		terms := active(c.partner)
		c.change(terms.Entitlement)
		g := usage(c.at)
		judgement := terms.Judge(g, judgeNow)
		if got := found(judgement.Problems); got != c.want || judgement.Valid() != (c.want == "") {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		for _, p := range judgement.Problems {
			if p.Path == "/entitlementID" && !strings.HasPrefix(p.Message, `entitlementID is "e1": `) || p.Hint == "" {
				t.Errorf("%s: %+v", c.name, p)
			}
		}
		g.MetaInfo.SkipValidation = true
		if judgement := terms.Judge(g, judgeNow); c.name != "deleted" && len(judgement.Problems) > 0 {
			t.Errorf("%s, skipped: %s", c.name, found(judgement.Problems))
		}
	}
	if got := found((&Terms{}).Judge(usage(judgeNow), judgeNow).Problems); got != "ENTITLEMENT_UNKNOWN /entitlementID" {
		t.Error(got)
	}
}

func TestJudge_Time(t *testing.T) {
	carry := func(t *Terms) { t.Connection.LateUsage = LateUsageCarried }
	keep := func(*Terms) {}
	ended := func(t *Terms) { carry(t); t.Entitlement.EndTime = judgeNow }
	for _, c := range []struct {
		name    string
		partner Partner
		change  func(*Terms)
		at, now string
		want    string
		by      string // reportBy; empty is none
	}{
		{"5 minutes ahead", "AWS", keep, "2024-07-29T15:56:28.071Z", "2024-07-29T15:51:28.071Z", "", "2024-07-30T15:00:00.000Z"},
		{"more", "AWS", keep, "2024-07-29T15:56:28.072Z", "2024-07-29T15:51:28.071Z", "IN_THE_FUTURE /timestamp", "2024-07-30T15:00:00.000Z"},
		{"23:59 h after the hour", "AWS", keep, "2024-07-28T16:30:00Z", "2024-07-29T15:59:59.999Z", "", "2024-07-29T16:00:00.000Z"},
		{"24 h after the hour", "AWS", keep, "2024-07-28T16:30:00Z", "2024-07-29T16:00:00Z", "TOO_OLD /timestamp", "2024-07-29T16:00:00.000Z"},
		{"24 h after the hour, Azure", "AZURE", keep, "2024-07-28T16:30:00Z", "2024-07-29T16:00:00Z", "TOO_OLD /timestamp", "2024-07-29T16:00:00.000Z"},
		{"carried", "AWS", carry, "2024-07-28T16:30:00Z", "2024-07-29T16:00:00Z", "", ""},
		{"carried in its window", "AWS", carry, "2024-07-28T16:30:00Z", "2024-07-29T15:00:00Z", "", "2024-07-29T16:00:00.000Z"},
		{"carried, but ended", "AWS", ended, "2024-07-28T15:30:00Z", "2024-07-29T16:00:00Z", "TOO_OLD /timestamp", "2024-07-29T15:00:00.000Z"},
		{"before AWS closes the month", "AWS", keep, "2024-07-31T23:30:00Z", "2024-08-01T05:59:59.999Z", "", "2024-08-01T06:00:00.000Z"},
		{"when AWS closes the month", "AWS", keep, "2024-07-31T23:30:00Z", "2024-08-01T06:00:00Z", "TOO_OLD /timestamp, MONTH_CLOSED /timestamp", "2024-08-01T06:00:00.000Z"},
		{"the month that AWS closed is carried", "AWS", carry, "2024-07-31T23:30:00Z", "2024-08-01T06:00:00Z", "", ""},
		{"a month ago", "AWS", keep, "2024-06-15T12:00:00Z", "2024-07-29T15:51:28Z", "TOO_OLD /timestamp", "2024-06-16T12:00:00.000Z"},
		{"an hour ago, Google", "GCP", keep, "2024-07-29T15:00:00.001Z", "2024-07-29T16:00:00Z", "", "2024-08-01T08:00:00.000Z"},
		{"late, Google", "GCP", keep, "2024-07-29T15:00:00Z", "2024-07-29T16:00:00Z", "late /timestamp", "2024-08-01T08:00:00.000Z"},
		{"late by weeks, Google", "GCP", keep, "2024-07-01T07:00:00Z", "2024-08-01T07:59:59.999Z", "late /timestamp", "2024-08-01T08:00:00.000Z"},
		{"when Google closes the month", "GCP", keep, "2024-07-31T23:59:59Z", "2024-08-01T08:00:00Z", "MONTH_CLOSED /timestamp", "2024-08-01T08:00:00.000Z"},
		{"the month that Google closed is carried", "GCP", carry, "2024-07-31T23:59:59Z", "2024-08-01T08:00:00Z", "", ""},
		{"without a connection", "AWS", func(t *Terms) { t.Connection = nil }, "2024-07-29T15:00:00Z", "2024-07-29T15:51:28Z", "", "2024-07-30T15:00:00.000Z"},
	} {
		terms := active(c.partner)
		c.change(terms)
		judgement := terms.Judge(usage(at(t, c.at)), at(t, c.now))
		by := ""
		if !judgement.ReportBy.IsZero() {
			by = FormatTime(judgement.ReportBy)
		}
		if got := found(judgement.Problems); got != c.want || by != c.by || !judgement.Timestamp.Equal(at(t, c.at)) {
			t.Errorf("%s: %s, by %s; want %s, by %s", c.name, got, by, c.want, c.by)
		}
	}

	g := usage(judgeNow)
	g.Timestamp = nil
	if j := active("GCP").Judge(g, judgeNow); len(j.Problems) > 0 || !j.Timestamp.Equal(judgeNow) {
		t.Errorf("usage without a time is of %v: %v", j.Timestamp, j.Problems)
	}
	future := judgeNow.Add(time.Hour)
	g.MetaInfo.Timestamp = &future
	if j := active("GCP").Judge(g, judgeNow); found(j.Problems) != "IN_THE_FUTURE /timestamp" || !strings.HasPrefix(j.Problems[0].Message, "metaInfo.timestamp is 2024-07-29T16:51:28.071Z: ") {
		t.Errorf("%+v", j.Problems)
	}
}

// Of a group that names no entitlement, only what needs none is checked.
func TestJudge_WithoutEntitlement(t *testing.T) {
	old := judgeNow.AddDate(-1, 0, 0)
	g := &NewGroup{Timestamp: &old, Records: []NewRecord{{"x", "1"}}}
	if j := (&Terms{}).Judge(g, judgeNow); len(j.Problems) > 0 || !j.ReportBy.IsZero() {
		t.Errorf("%+v", j)
	}
	g.Records = append(g.Records, NewRecord{"y/~", "-1"})
	if j := (&Terms{}).Judge(g, judgeNow); found(j.Problems) != "QUANTITY_NEGATIVE /records/y~1~0" {
		t.Errorf("%+v", j.Problems)
	}
}

// Negative usage and usage that can't be converted stays invalid with SkipValidation.
func TestJudge_SkipValidation(t *testing.T) {
	long := judgeNow.AddDate(1, 0, 0)
	g := &NewGroup{EntitlementID: "e1", Timestamp: &long, Records: []NewRecord{{"a", "1"}, {"b", "-1"}, {"x", "1"}}}
	g.MetaInfo.SkipValidation = true
	terms := active("AWS")
	terms.Entitlement.Status = EntitlementSuspended
	j := terms.Judge(g, judgeNow)
	if found(j.Problems) != "QUANTITY_NEGATIVE /records/b" || len(j.Records) != 2 {
		t.Errorf("%s, %v", found(j.Problems), j.Records)
	}
	terms.Config = config(t, `{"partnerUsageMeteringConfigs":[{"partner":"AWS","enableDimensionMapping":true,"dimensionMapping":{"a":{"dimensionKey":"a","mappingMode":"AMOUNT"}}}]}`)
	terms = &Terms{Entitlement: terms.Entitlement, Config: terms.Config}
	if got := found(terms.Judge(g, judgeNow).Problems); got != "NO_PRICE /records/a, QUANTITY_NEGATIVE /records/b" {
		t.Error(got)
	}
}

// validationCodes are the codes that validation can produce, each with a group and terms that do.
func TestJudge_ProducesEachCodeOfValidation(t *testing.T) {
	produced := map[ProblemCode]bool{}
	add := func(terms *Terms, groups ...*NewGroup) {
		batch := make([]NewGroup, len(groups))
		for i, g := range groups {
			batch[i] = *g
		}
		for _, e := range ExplainBatch(batch, "o1", TermsByEntitlement{"e1": terms}, judgeNow) {
			for _, p := range e.Problems {
				produced[p.Code] = true
				kind := kindOf(p.Code)
				if kind.Found&FoundByValidation == 0 {
					t.Errorf("validation finds %s", p.Code)
				}
				if p.Severity != kind.Severity && p.Code != ProblemNoConnection || p.Message == "" {
					t.Errorf("%+v", p)
				}
			}
		}
	}
	with := func(partner Partner, change func(*Terms)) *Terms {
		terms := active(partner)
		change(terms)
		return terms
	}
	now := func(records ...NewRecord) *NewGroup {
		return &NewGroup{EntitlementID: "e1", Timestamp: &judgeNow, Records: records}
	}
	billable := func(key string, properties map[string]any) *NewGroup {
		return &NewGroup{EntitlementID: "e1", BillableRecords: []NewBillableRecord{{Key: key, Quantity: "1", Properties: properties}}}
	}
	ordinary := now(NewRecord{"a", "1"})
	add(&Terms{}, ordinary)
	add(active("AWS"), ordinary, ordinary, now(), now(NewRecord{"x", "1"}), now(NewRecord{"a", "-1"}), now(NewRecord{"a", "1e10"}), now(NewRecord{"a", "1e30"}))
	add(active("AWS"), usage(judgeNow.Add(time.Hour)), usage(judgeNow.AddDate(0, -1, 0)))
	add(active("GCP"), usage(judgeNow.AddDate(0, -1, 0)), usage(judgeNow.Add(-2*time.Hour)))
	add(with("AWS", func(t *Terms) { t.Connection = nil }), ordinary)
	add(with("AWS", func(t *Terms) { t.Entitlement.Status = EntitlementSuspended }), ordinary)
	add(with("AWS", func(t *Terms) { t.Entitlement.StartTime = judgeNow.Add(1) }), ordinary)
	add(with("AWS", func(t *Terms) { t.Entitlement.EndTime = judgeNow }), ordinary)
	add(with("AWS", func(t *Terms) { t.Entitlement.Marketplace = MarketplaceIDs{} }), ordinary)
	add(with("AWS", func(t *Terms) { t.Entitlement.Info = EntitlementInfo{} }), ordinary)
	add(with("AWS", func(terms *Terms) {
		terms.Config = config(t, `{"partnerUsageMeteringConfigs":[{"partner":"AWS","enableDimensionMapping":true,"dimensionMapping":{"a":{"dimensionKey":"a","mappingMode":"AMOUNT"}}}]}`)
	}), ordinary)
	add(with("AWS", func(terms *Terms) {
		terms.Config = config(t, `{"partnerUsageMeteringConfigs":[{"partner":"AWS","enableDimensionMapping":true,"dimensionMapping":{"a":{"dimensionKey":"a","mappingMode":"NEW"}}}]}`)
	}), ordinary)
	add(with("AWS", func(t *Terms) {
		t.Metrics = []BillableMetric{
			{ID: "m1", Name: "a", AggregationType: AggregateSum, Status: MetricActive, Info: MetricInfo{GroupBys: []string{"region"}}},
			{ID: "m2", Name: "b", AggregationType: AggregateSum, Status: MetricDeleted},
		}
	}), billable("m1", nil), billable("m2", nil), billable("m3", nil))

	var retried Judgement
	retried.NoHour(ProblemExpired)
	retried.NoHour(ProblemNoHourLeft)
	for _, p := range retried.Problems {
		produced[p.Code] = true
	}

	for _, kind := range ProblemKinds() {
		if kind.Found&FoundByValidation != 0 && !produced[kind.Code] {
			t.Errorf("nothing here produces %s", kind.Code)
		}
	}
}

// The catalog describes each code once. The codes are the contract's and, of ours, those of what a
// report refuses and of a mapping that a newer version has stored.
func TestProblemKinds_AreTheContracts(t *testing.T) {
	want := strings.Fields(`ENTITLEMENT_UNKNOWN ENTITLEMENT_NOT_ACTIVE ENTITLEMENT_NOT_STARTED ENTITLEMENT_ENDED ENTITLEMENT_WITHOUT_IDENTIFIERS
		DIMENSION_UNKNOWN DIMENSIONS_UNCHECKED METRIC_UNKNOWN METRIC_DELETED METRIC_PROPERTIES QUANTITY_NEGATIVE QUANTITY_RANGE QUANTITY_PRECISION NO_PRICE
		TOO_OLD MONTH_CLOSED IN_THE_FUTURE LATE DUPLICATE_IN_BATCH NO_CONNECTION EXPIRED NO_HOUR_LEFT NOT_SUBSCRIBED MARKETPLACE_REFUSED CONFLICT OUTCOME_UNKNOWN
		NOT_STORABLE MAPPING_UNREADABLE`)
	warnings := strings.Fields("DIMENSIONS_UNCHECKED LATE DUPLICATE_IN_BATCH")
	var got []string
	for _, kind := range ProblemKinds() {
		got = append(got, string(kind.Code))
		if (kind.Severity == SeverityWarning) != slices.Contains(warnings, string(kind.Code)) {
			t.Errorf("%s is a %s", kind.Code, kind.Severity)
		}
		remedies := []Remedy{RemedySeller, RemedyBuyer}
		if kind.Meaning == "" || kind.Hint == "" || kind.Found == 0 || !slices.Contains(remedies, kind.Remedy) {
			t.Errorf("%+v", kind)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the codes are %q, want %q", got, want)
	}
	declared := declaredCodes(t)
	if all := slices.Sorted(maps.Values(declared)); !slices.Equal(all, want) {
		t.Errorf("declared are %q, want %q", all, want)
	}
}

// What reporting finds is what its packages name.
func TestProblemKinds_SayWhatReportingFinds(t *testing.T) {
	declared, named := declaredCodes(t), map[string]bool{}
	for _, root := range []string{"reports", "../reporting"} {
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if selector, ok := n.(*ast.SelectorExpr); ok && declared[selector.Sel.Name] != "" {
					named[declared[selector.Sel.Name]] = true
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, kind := range ProblemKinds() {
		if finds := kind.Found&FoundByReporting != 0; finds != named[string(kind.Code)] {
			t.Errorf("%s: found by reporting: %t, but its packages name it: %t", kind.Code, finds, named[string(kind.Code)])
		}
	}
}

// A group of which the marketplace takes no more is billed if it is retried under CARRY: what
// says to report its usage a second time must say so.
func TestProblemKinds_WarnOfBillingTwice(t *testing.T) {
	for _, code := range []ProblemCode{ProblemTooOld, ProblemMonthClosed, ProblemExpired, ProblemNoHourLeft} {
		if hint := HintOf(code); !strings.HasSuffix(hint, LateHint) {
			t.Errorf("%s: %s", code, hint)
		}
	}
	for _, kind := range ProblemKinds() {
		for _, warning := range []string{"Never both", "only after the DELETE succeeded"} {
			if strings.Contains(kind.Hint, "later timestamp") && !strings.Contains(kind.Hint, warning) {
				t.Errorf("%s: %s", kind.Code, kind.Hint)
			}
		}
	}
}

// declaredCodes returns the values of the constants of type ProblemCode, by their names.
func declaredCodes(t *testing.T) map[string]string {
	file, err := parser.ParseFile(token.NewFileSet(), "problem.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	codes := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || fmt.Sprint(spec.Type) != "ProblemCode" {
			return true
		}
		code, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		codes[spec.Names[0].Name] = code
		return true
	})
	return codes
}

// What validate approves, a report stores as CREATED, and the reverse: for any group and terms,
// plain and explained validation and a report come to the same.
func TestValidate_AgreesWithReport(t *testing.T) {
	valid, invalid, refused := 0, 0, 0
	property := func(rt *rapid.T) {
		terms := drawStates(rt)
		g := drawReported(rt)
		batch := []NewGroup{g}
		byID := TermsByEntitlement{"e1": terms}

		// A report, as the contract has it.
		stored, stores := Status(""), g.Check("o1") == nil && terms.Exist()
		if stores {
			judgement := terms.Judge(&g, judgeNow)
			stores = terms.CheckStorable(&g, "o1", &judgement) == nil
			stored = StatusInvalid
			if judgement.Valid() {
				stored = StatusCreated
			}
			if stores && len(judgement.Records) > len(judgement.OriginRecords)*3 {
				rt.Fatalf("records %v of %v", judgement.Records, judgement.OriginRecords)
			}
		}
		created := stores && stored == StatusCreated

		approves := ValidateBatch(batch, "o1", byID, judgeNow) == nil
		explained := ExplainBatch(batch, "o1", byID, judgeNow)[0]
		if approves != explained.Valid {
			rt.Fatalf("validate approves: %v; explained: %+v", approves, explained)
		}
		if (explained.Preview != nil) != terms.Exist() {
			rt.Fatalf("preview %v", explained.Preview)
		}
		if g.MetaInfo.SkipValidation {
			if !approves {
				rt.Fatal("a group with SkipValidation is not approved")
			}
			return
		}
		if approves != created {
			rt.Fatalf("validate approves: %v; a report stores: %v %s; %+v", approves, stores, stored, explained.Problems)
		}
		switch {
		case created:
			valid++
		case stores:
			invalid++
		default:
			refused++
		}
	}
	for i := 0; i < 5 && (valid == 0 || invalid == 0 || refused == 0); i++ { // one check may draw no valid group
		rapid.Check(t, property)
	}
	if valid == 0 || invalid == 0 || refused == 0 {
		t.Errorf("%d are stored as CREATED, %d as INVALID, %d refused", valid, invalid, refused)
	}
}

func drawStates(t *rapid.T) *Terms {
	// rapid draws 0 more often than 1 in 10.
	if rapid.IntRange(0, 9).Draw(t, "unknown") == 5 {
		return &Terms{}
	}
	terms := active(rapid.SampledFrom(Partners).Draw(t, "partner"))
	e := terms.Entitlement
	around := func(name string) time.Time {
		if rapid.IntRange(0, 3).Draw(t, name+" given") != 2 {
			return time.Time{}
		}
		return judgeNow.Add(time.Duration(rapid.IntRange(-30, 3).Draw(t, name)) * time.Hour)
	}
	e.StartTime, e.EndTime, e.CancelTime = around("start"), around("end"), around("cancel")
	e.Status = rapid.SampledFrom(append(slices.Repeat([]EntitlementStatus{EntitlementActive}, 6), EntitlementStatuses...)).Draw(t, "status")
	if rapid.IntRange(0, 9).Draw(t, "identifiers") == 5 {
		e.Marketplace = MarketplaceIDs{}
	}
	e.Info.DimensionsKnown = rapid.IntRange(0, 9).Draw(t, "dimensions") != 5
	if rapid.Bool().Draw(t, "connected") {
		terms.Connection.LateUsage = rapid.SampledFrom(append(LateUsages, "")).Draw(t, "lateUsage")
	} else {
		terms.Connection = nil
	}
	return terms
}

func drawReported(t *rapid.T) NewGroup {
	at := judgeNow.Add(time.Duration(rapid.IntRange(-60*30, 60).Draw(t, "minutes")) * time.Minute)
	g := NewGroup{EntitlementID: "e1", Timestamp: &at}
	g.MetaInfo.SkipValidation = rapid.IntRange(0, 9).Draw(t, "skip") == 5
	g.MetaInfo.Source = rapid.SampledFrom([]string{"", "API", "API", "API", "API", "API", "API", "nobody"}).Draw(t, "source")
	quantity := rapid.SampledFrom([]string{"1", "2.5", "7", "12", "0.001", "3", "4", "0", "-1", "9999999999", "1e10", "1e30"})
	for _, key := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "a", "a", "b", "b", "b", "bytes", "c", ""}), 0, 2, rapid.ID[string]).Draw(t, "keys") {
		g.Records = append(g.Records, NewRecord{key, quantity.Draw(t, "quantity")})
	}
	return g
}

// All problems of a group are found, at their paths, in the order of what was sent.
func TestExplainBatch_ListsWhatCantBeStored(t *testing.T) {
	g := NewGroup{
		ID: "a/b", OrganizationID: "other", EntitlementID: "e1", MetaInfo: NewMetaInfo{Source: "X"},
		BillableRecords: []NewBillableRecord{{Key: "", Quantity: "1e30", Properties: map[string]any{"": true}}, {Key: "k", Quantity: "1"}},
	}
	got := ExplainBatch([]NewGroup{g}, "o1", TermsByEntitlement{"e1": active("AWS")}, judgeNow)[0]
	want := "NOT_STORABLE /id, NOT_STORABLE /organizationID, NOT_STORABLE /metaInfo/source, NOT_STORABLE /billableRecords/0/key, " +
		"NOT_STORABLE /billableRecords/0/properties, QUANTITY_PRECISION /billableRecords/0/quantity"
	if found(got.Problems) != want || got.Valid || got.Preview == nil || len(got.Preview.Requests) > 0 {
		t.Errorf("%s, preview %v", found(got.Problems), got.Preview)
	}
}

// A batch warns of equal content, in any order and spelling, and refuses an id that it has twice.
func TestExplainBatch_Duplicates(t *testing.T) {
	at := judgeNow
	base := func() NewGroup {
		return NewGroup{ID: "g1", Timestamp: &at, Records: []NewRecord{{"a", "1"}, {"b", "20"}}, MetaInfo: NewMetaInfo{Carried: map[string]any{"lagoSubscriptionID": "s"}}}
	}
	for name, c := range map[string]struct {
		change func(*NewGroup)
		want   string
	}{
		"the same":             {func(*NewGroup) {}, "duplicate_in_batch "},
		"the same id":          {func(g *NewGroup) { g.ID = "g1"; g.Records[0].Quantity = "3" }, "NOT_STORABLE /id"},
		"another order":        {func(g *NewGroup) { slices.Reverse(g.Records) }, "duplicate_in_batch "},
		"another spelling":     {func(g *NewGroup) { g.Records[1].Quantity = "2.0e1" }, "duplicate_in_batch "},
		"the time in metaInfo": {func(g *NewGroup) { g.Timestamp, g.MetaInfo.Timestamp = nil, &at }, "duplicate_in_batch "},
		"another quantity":     {func(g *NewGroup) { g.Records[0].Quantity = "2" }, ""},
		"another key":          {func(g *NewGroup) { g.Records[0].Key = "c" }, ""},
		"another time":         {func(g *NewGroup) { g.Timestamp = nil }, ""},
		"another metaInfo":     {func(g *NewGroup) { g.MetaInfo.Carried = nil }, ""},
		"as billable records": {func(g *NewGroup) {
			g.Records, g.BillableRecords = nil, []NewBillableRecord{{Key: "a", Quantity: "1"}, {Key: "b", Quantity: "20"}}
		}, ""},
	} {
		second := base()
		second.ID = "g2"
		c.change(&second)
		batch := []NewGroup{base(), second}
		explained := ExplainBatch(batch, "o1", nil, judgeNow)
		if got := found(explained[1].Problems); got != c.want || !explained[0].Valid {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		if err := ValidateBatch(batch, "o1", nil, judgeNow); (err == nil) != explained[1].Valid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUsageRecords_AreWhatTheMarketplaceHolds(t *testing.T) {
	for _, c := range []struct {
		partner     Partner
		a           string
		start, end  string // of the entitlement, and its cancellation
		want        string
		first, last string
	}{
		{"AWS", "1.23456789", "", "", "1.234567", "2024-07-29T15:00:00.000Z", "2024-07-29T16:00:00.000Z"},
		{"AWS", "0.0000009", "", "", "", "", ""},
		{"AZURE", "1234567890123456.789", "", "", "1234567890123450", "2024-07-29T15:00:00.000Z", "2024-07-29T16:00:00.000Z"},
		{"AZURE", "9999999999999999999", "", "", "9999999999999990000", "2024-07-29T15:00:00.000Z", "2024-07-29T16:00:00.000Z"},
		{"AZURE", "0.0001234567890123456", "", "", "0.000123456789012345", "2024-07-29T15:00:00.000Z", "2024-07-29T16:00:00.000Z"},
		{"AZURE", "12.34567890123456789", "", "", "12.3456789012345", "2024-07-29T15:00:00.000Z", "2024-07-29T16:00:00.000Z"},
		{"GCP", "150.999", "", "", "150", "2024-07-29T15:00:00.000Z", "2024-07-29T16:00:00.000Z"},
		{"GCP", "0.999", "", "", "", "", ""},
		{"AWS", "1", "2024-07-29T15:30:00Z", "2024-07-29T15:55:00Z", "1", "2024-07-29T15:30:00.000Z", "2024-07-29T15:55:00.000Z"},
		{"AWS", "1", "", "2024-07-29T15:00:00.500Z", "1", "2024-07-29T15:00:00.000Z", "2024-07-29T15:00:00.500Z"},
		{"AWS", "1", "", "2024-07-29T15:00:00Z", "", "", ""},
		{"AWS", "1", "2024-07-29T17:10:00Z", "", "1", "2024-07-29T17:10:00.000Z", "2024-07-29T18:00:00.000Z"},
	} {
		terms := active(c.partner)
		terms.Entitlement.StartTime, terms.Entitlement.CancelTime = at(t, c.start), at(t, c.end)
		q, err := ParseQuantity(c.a)
		if err != nil {
			t.Fatal(err)
		}
		records := terms.usageRecords(&Judgement{Timestamp: judgeNow, Records: map[string]Quantity{"a": q, "zero": {}}})
		if c.want == "" {
			if len(records) > 0 {
				t.Errorf("%s of %s is sent as %v", c.a, c.partner, records)
			}
			continue
		}
		if len(records) != 1 || records[0].Quantity.String() != c.want || FormatTime(records[0].Start) != c.first || FormatTime(records[0].End) != c.last {
			t.Errorf("%s of %s is sent as %v", c.a, c.partner, records)
		}
		id := ""
		if c.partner == "GCP" {
			id = OperationID(terms.Entitlement.OrganizationID, terms.Entitlement.ID, HourOf(judgeNow), "a")
		}
		if records[0].OperationID != id {
			t.Errorf("%s: operation id %q, want %q", c.partner, records[0].OperationID, id)
		}
	}
}

// A Quantity is held as its Exact is.
func TestHeld_OfAQuantity(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q, err := ParseQuantity(rapid.StringMatching(`(0|[1-9][0-9]{0,17})`).Draw(t, "whole"))
		if rapid.Bool().Draw(t, "fraction") {
			q, err = ParseQuantity(rapid.StringMatching(`(0|[1-9][0-9]{0,11})\.[0-9]{1,7}`).Draw(t, "quantity"))
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, partner := range Partners {
			got, err := q.Held(partner)
			want, wantErr := ExactOf(q).Held(partner)
			if err != nil || wantErr != nil || got != want {
				t.Fatalf("%s on %s is %s, %v; want %s, %v", q, partner, got, err, want, wantErr)
			}
		}
	})
}

// For all exact numbers, what is held is the largest that the marketplace holds exactly, and it is
// held as it is.
func TestHeld_IsTheLargestThatTheMarketplaceHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		digits := rapid.StringMatching(`[1-9][0-9]{0,24}`).Draw(t, "digits")
		point := rapid.IntRange(0, 30).Draw(t, "point")
		x := MustExact(digits).Quo(MustExact("1" + strings.Repeat("0", point)))
		if rapid.Bool().Draw(t, "fraction") {
			x = x.Quo(MustExact("7"))
		}
		for _, partner := range Partners {
			held, err := x.Held(partner)
			if err != nil {
				t.Fatal(err)
			}
			q := ExactOf(held)
			if again, err := q.Held(partner); err != nil || again != held {
				t.Fatalf("%s is held as %s, %v", held, again, err)
			}
			if q.Sign() < 0 || q.Cmp(x) > 0 {
				t.Fatalf("%s holds %s as %s", partner, x, held)
			}
			whole, fraction, _ := strings.Cut(held.String(), ".")
			next := MustExact("0.000001")
			full := held.String() == "9999999999.999999"
			switch partner {
			case "AWS":
				if len(whole) > 10 || len(fraction) > 6 {
					t.Fatalf("AWS does not hold %s", held)
				}
			case "GCP":
				if _, err := strconv.ParseInt(held.String(), 10, 64); err != nil {
					t.Fatal(err)
				}
				next, full = MustExact("1"), held.String() == "9223372036854775807"
			case "AZURE":
				significant := strings.Trim(strings.TrimPrefix(whole+fraction, "0"), "0")
				if f, err := strconv.ParseFloat(held.String(), 64); err != nil || len(significant) > 15 || strconv.FormatFloat(f, 'f', -1, 64) != held.String() {
					t.Fatalf("a double does not hold %s: %v, %v", held, f, err)
				}
				full = q.Cmp(mostHeld["AZURE"]) == 0
				next = MustExact("0.0000000000000000001")
				for x.Quo(next).Cmp(MustExact("1000000000000000")) >= 0 {
					next = next.Mul(MustExact("10"))
				}
			}
			if !full && q.Add(next).Cmp(x) <= 0 {
				t.Fatalf("%s holds %s as %s, but it could hold %s", partner, x, held, q.Add(next))
			}
		}
	})
}
