package main

import (
	"encoding/csv"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/marketmeter/marketmeter/internal/metering"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
	"github.com/marketmeter/marketmeter/internal/transfer/transfertest"
	"github.com/marketmeter/marketmeter/internal/wire"
)

func TestExportIntoImportGivesTheSameList(t *testing.T) {
	t.Parallel()
	const org = "o#1 +é"
	groups := transfertest.ManyGroups(400, org)
	client, from := tabletest.Client(t)
	_, to := tabletest.Client(t)
	status, stdout, stderr := onTable(t, from, transfertest.Lines(groups), "import", "--org", org, "-")
	if status != 0 || stdout != "imported 400, skipped 0, refused 0\n" {
		t.Fatalf("import: %d\n%s%s", status, stdout, stderr)
	}

	status, exported, stderr := onTable(t, from, "", "export", "--org", org)
	if status != 0 || stderr != "" {
		t.Fatalf("export: %d\n%s", status, stderr)
	}
	if want := transfertest.Lines(transfertest.SortedNewestFirst(groups)); exported != want {
		t.Errorf("what was imported is not what was exported, newest first:\n%s\nwant\n%s", exported, want)
	}
	if status, stdout, stderr = onTable(t, to, exported, "import", "--org", org, "-"); status != 0 {
		t.Fatalf("import of the export: %d\n%s%s", status, stdout, stderr)
	}
	if _, again, _ := onTable(t, to, "", "export", "--org", org); again != exported {
		t.Errorf("exported again:\n%s\nwant\n%s", again, exported)
	}
	fromTable, toTable := table.New(client, from), table.New(client, to)
	if got, want := listedPages(t, toTable, org, 37), listedPages(t, fromTable, org, 37); got != want {
		t.Errorf("listed:\n%s\nwant\n%s", got, want)
	}
}

func TestExportReadsEveryPage(t *testing.T) {
	t.Parallel()
	_, name := tabletest.Client(t)
	var want []string
	for _, g := range transfertest.ManyGroups(12, "o1") {
		g.UsageRecordReportID = strings.Repeat("x", 200_000) // five of them fill a page of DynamoDB
		want = append(want, string(wire.AppendGroupForExport(nil, &g))+"\n")
	}
	if status, stdout, stderr := onTable(t, name, strings.Join(want, ""), "import", "--org", "o1", "-"); status != 0 {
		t.Fatalf("import: %d\n%s%s", status, stdout, stderr)
	}
	status, exported, _ := onTable(t, name, "", "export", "--org", "o1")
	got := slices.Sorted(strings.Lines(exported))
	if slices.Sort(want); status != 0 || !slices.Equal(got, want) {
		t.Errorf("export: %d with %d lines; want 0 with the %d imported", status, len(got), len(want))
	}
}

func TestExportOfDays(t *testing.T) {
	t.Parallel()
	_, name := tabletest.Client(t)
	times := []string{
		"2026-03-04T00:00:00.000Z", "2026-03-03T23:59:59.999Z", "2026-03-03T00:00:00.000Z",
		"2026-03-02T23:59:59.999Z", "2026-03-02T00:00:00.000Z", "2026-03-01T23:59:59.999Z",
	}
	var lines strings.Builder
	for _, at := range times {
		lines.WriteString(transfertest.Line("g"+at, "creationTime", at))
	}
	if status, _, stderr := onTable(t, name, lines.String(), "import", "--org", "o1", "-"); status != 0 {
		t.Fatal(stderr)
	}
	for _, test := range []struct {
		flags []string
		want  []string
	}{
		{nil, times},
		{[]string{"--from", "2026-03-02"}, times[:5]},
		{[]string{"--to", "2026-03-03"}, times[1:]},
		{[]string{"--from", "2026-03-02", "--to", "2026-03-03"}, times[1:5]},
		{[]string{"--from", "2026-03-03", "--to", "2026-03-03"}, times[1:3]},
		{[]string{"--from", "2026-03-05"}, nil},
		{[]string{"--to", "2026-02-28"}, nil},
	} {
		status, stdout, stderr := onTable(t, name, "", append([]string{"export", "--org", "o1"}, test.flags...)...)
		var got []string
		for line := range strings.Lines(stdout) {
			group, err := wire.DecodeGroup([]byte(line))
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, metering.FormatTime(group.CreationTime))
		}
		if status != 0 || !slices.Equal(got, test.want) {
			t.Errorf("%v: %d, %q; want %q\n%s", test.flags, status, got, test.want, stderr)
		}
	}
}

func TestExportAsCSV(t *testing.T) {
	t.Parallel()
	_, name := tabletest.Client(t)
	lines := transfertest.Line("g1", "serialID", "3", "records", `{"b":0.10,"a":9007199254740993}`, "metaInfo", `{"source":"LAGO","lagoAmount":1.50}`,
		"productID", "p,1", "buyerID", `the "buyer"`, "reportedTime", "2026-03-01T13:00:00+01:00") +
		transfertest.Line("g0")
	if status, _, stderr := onTable(t, name, lines, "import", "--org", "o1", "-"); status != 0 {
		t.Fatal(stderr)
	}
	status, stdout, stderr := onTable(t, name, "", "export", "--org", "o1", "--format", "csv")
	got, err := csv.NewReader(strings.NewReader(stdout)).ReadAll()
	want := [][]string{
		{
			"id", "organizationID", "buyerID", "entitlementID", "productID", "partner", "status", "records", "metaInfo",
			"serialID", "usageRecordReportID", "creationTime", "lastUpdateTime", "reportedTime", "problems", "reportBy",
		},
		{
			"g1", "o1", `the "buyer"`, "ent-1", "p,1", "AWS", "CREATED", `{"a":9007199254740993,"b":0.1}`, `{"lagoAmount":1.5,"source":"LAGO"}`,
			"3", "", "2026-03-01T12:00:00.000Z", "2026-03-01T12:00:00.000Z", "2026-03-01T12:00:00.000Z", "", "",
		},
		{
			"g0", "o1", "buyer", "ent-1", "", "AWS", "CREATED", "{}", "{}",
			"0", "", "2026-03-01T12:00:00.000Z", "2026-03-01T12:00:00.000Z", "", "", "",
		},
	}
	if status != 0 || err != nil || !slices.EqualFunc(got, want, slices.Equal[[]string]) {
		t.Errorf("%d, %v, %s\n%q\nwant\n%q", status, err, stderr, got, want)
	}
	if _, empty, _ := onTable(t, name, "", "export", "--org", "o2", "--format", "csv"); empty != strings.Join(want[0], ",")+"\n" {
		t.Errorf("an organization without groups: %q; want the header", empty)
	}
}

// setAttribute sets an attribute of a stored group, as a newer version might.
func setAttribute(t *testing.T, client *dynamodb.Client, tableName, org, id, path string, value types.AttributeValue) {
	t.Helper()
	names, placeholders := map[string]string{}, []string{}
	for i, name := range strings.Split(path, ".") {
		placeholder := fmt.Sprint("#", i)
		name, index, isElement := strings.Cut(name, "[")
		names[placeholder] = name
		if isElement {
			placeholder += "[" + index
		}
		placeholders = append(placeholders, placeholder)
	}
	_, err := client.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{
		TableName: &tableName, UpdateExpression: aws.String("SET " + strings.Join(placeholders, ".") + " = :v"), ExpressionAttributeNames: names,
		Key: map[string]types.AttributeValue{
			"PK": &types.AttributeValueMemberS{Value: "ORG#" + org}, "SK": &types.AttributeValueMemberS{Value: "GROUP#" + id},
		},
		ExpressionAttributeValues: map[string]types.AttributeValue{":v": value},
	})
	if err != nil {
		t.Fatal(err)
	}
}

func groupLine(id string) string {
	return `{"id":"` + id + `","buyerID":"b","entitlementID":"e","partner":"AWS","status":"CREATED","creationTime":"2026-03-01T12:00:0` + id + `.000Z",` +
		`"metaInfo":{"billableRecords":[{"key":"k","quantity":1.5}],"source":"API"}}` + "\n"
}

func textValue(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }

// An export by an older version loses nothing that a newer version has stored.
func TestExport_KeepsWhatANewerVersionStored(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	if status, _, stderr := onTable(t, name, groupLine("1")+groupLine("2"), "import", "--org", "o", "-"); status != 0 {
		t.Fatal(stderr)
	}
	object := &types.AttributeValueMemberM{Value: map[string]types.AttributeValue{
		"code": textValue("TOO_OLD"), "n": &types.AttributeValueMemberN{Value: "0.10"}, "none": &types.AttributeValueMemberNULL{Value: true},
	}}
	for path, value := range map[string]types.AttributeValue{
		"problems": &types.AttributeValueMemberL{Value: []types.AttributeValue{object}}, "reportBy": textValue("2026-03-01T13:00:00.000Z"),
		"status": textValue("HELD"), "partner": textValue("NEWCLOUD"), "metaInfo.source": textValue("NEWSOURCE"),
		"metaInfo.newcloudInvoice": object, "metaInfo.timestamp": &types.AttributeValueMemberN{Value: "1772366400"},
		"metaInfo.lagoAmount": object, "metaInfo.billableRecords[0].unit": textValue("GB"),
		"_work": textValue("ORG#o#WORK#7"), "_due": textValue("2026-03-01T12:05:00.000Z"), "expiresAt": &types.AttributeValueMemberN{Value: "99999999999"},
	} {
		setAttribute(t, client, name, "o", "2", path, value)
	}
	status, exported, stderr := onTable(t, name, "", "export", "--org", "o")
	want := []string{
		`"problems":[{"code":"TOO_OLD","n":0.1,"none":null}]`, `"reportBy":"2026-03-01T13:00:00.000Z"`, `"status":"HELD"`, `"partner":"NEWCLOUD"`,
		`"source":"NEWSOURCE"`, `"newcloudInvoice":{"code":"TOO_OLD","n":0.1,"none":null}`, `"timestamp":1772366400`, `"lagoAmount":{"code"`,
		`"billableRecords":[{"key":"k","quantity":1.5,"unit":"GB"}]`,
	}
	lines := slices.Collect(strings.Lines(exported))
	if status != 0 || stderr != "" || len(lines) != 2 {
		t.Fatalf("export: %d, %q\n%s", status, stderr, exported)
	}
	for _, text := range want {
		if !strings.Contains(lines[0], text) {
			t.Errorf("there is no %s in %s", text, lines[0])
		}
	}
	for _, own := range []string{"_work", "_due", "expiresAt", "_op", "PK"} { // the service's own
		if strings.Contains(exported, own) {
			t.Errorf("%s was exported: %s", own, exported)
		}
	}
	// This version imports the group that it knows, and names the unknown members of the other.
	if status, stdout, stderr := onTable(t, name, exported, "import", "--org", "o3", "--rewrite-org", "-"); status != 1 ||
		stdout != "imported 1, skipped 0, refused 1\n" || !strings.HasPrefix(stderr, "line 1: ") {
		t.Errorf("import: %d, %q, %q", status, stdout, stderr)
	}
	known := strings.NewReplacer(`"HELD"`, `"CREATED"`, `"NEWCLOUD"`, `"AWS"`, `"NEWSOURCE"`, `"API"`, `,"timestamp":1772366400`, ``).Replace(lines[0])
	known = regexp.MustCompile(`"(lagoAmount|newcloudInvoice)":\{[^}]*\},`).ReplaceAllString(known, "")
	for _, member := range []string{`,"unit":"GB"`, `,"problems":[{"code":"TOO_OLD","n":0.1,"none":null}]`, `,"reportBy":"2026-03-01T13:00:00.000Z"`} {
		path := strings.Trim(strings.Split(member, ":")[0], `,"`)
		status, _, stderr := onTable(t, name, known, "import", "--org", "o4", "--rewrite-org", "-")
		if status != 1 || !strings.Contains(stderr, path+" is unknown") {
			t.Errorf("import of %s: %d, %q", known, status, stderr)
		}
		known = strings.Replace(known, member, "", 1)
	}
	if status, _, stderr := onTable(t, name, known, "import", "--org", "o4", "--rewrite-org", "-"); status != 0 {
		t.Errorf("import of %s: %q", known, stderr)
	}

	// CSV has no column for them.
	status, exported, stderr = onTable(t, name, "", "export", "--org", "o", "--format", "csv")
	if status != 1 || !strings.Contains(stderr, `group "2" is written without problems, reportBy`) || !strings.Contains(stderr, "what was written is not all") ||
		strings.Count(exported, "\n") != 3 || !strings.Contains(exported, "newcloudInvoice") || !strings.Contains(exported, `""unit"":""GB""`) {
		t.Errorf("export as CSV: %d, %q\n%s", status, stderr, exported)
	}
}

// The export names values that JSON can't hold, with their group, and groups that can't be read.
// It exports the others.
func TestExport_NamesWhatItCantWrite(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	var input strings.Builder
	for _, id := range []string{"1", "2", "3", "4", "5"} {
		input.WriteString(groupLine(id))
	}
	if status, _, stderr := onTable(t, name, input.String(), "import", "--org", "o", "-"); status != 0 {
		t.Fatal(stderr)
	}
	set := &types.AttributeValueMemberSS{Value: []string{"a"}}
	setAttribute(t, client, name, "o", "5", "tags", set)
	setAttribute(t, client, name, "o", "4", "metaInfo.tags", set)
	setAttribute(t, client, name, "o", "4", "metaInfo.billableRecords[0].blob", &types.AttributeValueMemberB{Value: []byte{1}})
	setAttribute(t, client, name, "o", "3", "serialID", textValue("seven"))
	setAttribute(t, client, name, "o", "2", "records", set)
	for format, lines := range map[string]int{"jsonl": 3, "csv": 4} {
		status, exported, stderr := onTable(t, name, "", "export", "--org", "o", "--format", format)
		for _, text := range []string{
			`group "5" is written without tags`, `group "4" is written without metaInfo.billableRecords[0].blob, metaInfo.tags`,
			`the stored group "3"`, "serialID", `the stored group "2"`, "records", "what was written is not all",
		} {
			if !strings.Contains(stderr, text) {
				t.Errorf("%s: standard error does not say %s: %s", format, text, stderr)
			}
		}
		if status != 1 || strings.Count(exported, "\n") != lines {
			t.Errorf("%s: %d\n%s", format, status, exported)
		}
	}
}

func TestExportTellsWhatItCantMean(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{}, "--org is missing"},
		{[]string{"--org", "a?"}, `--org is "a?": it must not hold "/" or "?"`},
		{[]string{"--org", "o1", "more"}, `it takes no argument "more"`},
		{[]string{"--org", "o1", "--format", "xml"}, `--format is "xml": it must be jsonl or csv`},
		{[]string{"--org", "o1", "--from", "2026-02-30"}, "it must be a day of the calendar as YYYY-MM-DD"},
		{[]string{"--org", "o1", "--from", "2026-03-02", "--to", "2026-03-01"}, "--from is 2026-03-02 and --to 2026-03-01: the first day must not be after the last"},
	} {
		status, stdout, stderr := onTable(t, "none", "", append([]string{"export"}, test.args...)...)
		if status != 2 || stdout != "" || !strings.Contains(stderr, test.want) {
			t.Errorf("%q: %d, %q, %q; want 2 and %q", test.args, status, stdout, stderr, test.want)
		}
	}
}

// An export returns identifiers with "%", stored by an earlier version, unchanged. An import
// refuses them and names the line.
func TestExport_KeepsIdentifiersWithPercent(t *testing.T) {
	t.Parallel()
	client, name := tabletest.Client(t)
	tbl := table.New(client, name)
	groups := transfertest.ManyGroups(4, "o%1")
	groups[1].ID, groups[2].EntitlementID, groups[3].BuyerID = "a%41", "100%", "50%"
	for i := range groups {
		if _, err := tbl.Put(t.Context(), &groups[i]); err != nil {
			t.Fatal(err)
		}
	}
	status, exported, stderr := onTable(t, name, "", "export", "--org", "o%1")
	if want := transfertest.Lines(transfertest.SortedNewestFirst(groups)); status != 0 || stderr != "" || exported != want {
		t.Fatalf("export: %d %s\n%swant\n%s", status, stderr, exported, want)
	}
	if status, csv, _ := onTable(t, name, "", "export", "--org", "o%1", "--format", "csv"); status != 0 || !strings.Contains(csv, "a%41") {
		t.Errorf("as CSV: %d\n%s", status, csv)
	}

	status, stdout, stderr := onTable(t, name, transfertest.Lines(groups), "import", "--org", "o2", "--rewrite-org", "-")
	if status != 1 || stdout != "imported 2, skipped 0, refused 2\n" {
		t.Errorf("import: %d, %q", status, stdout)
	}
	for _, want := range []string{`line 2: id is "a%41": it must not hold "/", "?" or "%"`, `line 3: entitlementID is "100%": it must not hold "/", "?" or "%"`} {
		if !strings.Contains(stderr, want) {
			t.Errorf("not told: %s\n%s", want, stderr)
		}
	}
}

// Commands store nothing new for an organization whose id can't be in a path. They read and end
// what is stored for one.
func TestOrgFlag_PercentIsTakenWhereNothingIsStored(t *testing.T) {
	t.Parallel()
	_, name := tabletest.Client(t)
	for _, c := range []struct {
		args   []string
		status int
		told   string
	}{
		{[]string{"import", "--org", "a%b", "-"}, 2, `--org is "a%b": it must not hold "/", "?" or "%"`},
		{[]string{"key", "create", "--org", "a%b"}, 2, `--org is "a%b": it must not hold "/", "?" or "%"`},
		{[]string{"key", "create", "--org", "a?b"}, 2, `--org is "a?b"`},
		{[]string{"export", "--org", "a%b"}, 0, ""},
		{[]string{"export", "--org", "a/b"}, 2, `--org is "a/b"`},
		{[]string{"key", "list", "--org", "a%b"}, 0, ""},
		{[]string{"key", "revoke", "--org", "a%b", "0123456789abcdef"}, 1, "0123456789abcdef"},
	} {
		if status, _, stderr := onTable(t, name, "", c.args...); status != c.status || !strings.Contains(stderr, c.told) {
			t.Errorf("%q: %d %s; want %d %s", c.args, status, stderr, c.status, c.told)
		}
	}
}

func TestExport_CSVRawIsAFlag(t *testing.T) {
	t.Parallel()
	_, name := tabletest.Client(t)
	if status, _, stderr := onTable(t, name, transfertest.Line("g1", "buyerID", "=1"), "import", "--org", "o1", "-"); status != 0 {
		t.Fatal(stderr)
	}
	for _, test := range []struct {
		flags []string
		want  string
	}{
		{[]string{"--format", "csv"}, "g1,o1,'=1,"},
		{[]string{"--format", "csv", "--csv-raw"}, "g1,o1,=1,"},
		{nil, `"buyerID":"=1"`},
	} {
		if status, stdout, stderr := onTable(t, name, "", append([]string{"export", "--org", "o1"}, test.flags...)...); status != 0 || !strings.Contains(stdout, test.want) {
			t.Errorf("%q: %d, %s%s", test.flags, status, stdout, stderr)
		}
	}
	if status, _, stderr := onTable(t, name, "", "export", "--org", "o1", "--csv-raw"); status != 2 || !strings.Contains(stderr, "--csv-raw is for --format csv alone") {
		t.Errorf("of JSON lines: %d, %s", status, stderr)
	}
}
