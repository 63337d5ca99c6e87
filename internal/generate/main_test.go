package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestFiles_AreCurrent(t *testing.T) {
	t.Parallel()
	for name, generate := range files {
		current := read(t, name)
		generated, err := generate(current)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if generated != current {
			t.Errorf("%s is not current at line %d: run make generate", name, firstDifference(current, generated))
		}
	}
}

// Text that was edited by hand, or generated before, is generated again.
func TestFiles_EditsAreUndone(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ file, old, new string }{
		{"docs/problems.md", "### `TOO_OLD`\n", "### `OLD`\n"},
		{"docs/problems.md", "AZURE `Expired`", "AZURE `Old`"},
		{"docs/security.md", "| `listUsageRecordGroups` | yes | | | yes |\n", ""},
		{"docs/security.md", "| UpdateItem | partitions `ORG#*` |", "| PutItem | partitions `KEY#*` |"},
		{"docs/security.md", "1024 MB, 29s", "1024 MB, 30s"},
		{"template.yaml", "            FILL(list, 0) / 29000,\n", ""},
		{"template.yaml", "FILL(config, 0) / 15000", "FILL(config, 0) / 1500"},
		{"template.yaml", `MetricName: Throttles, Dimensions: [{Name: FunctionName, Value: !Ref ListFunction}]`, `MetricName: Throttles, Dimensions: [{Name: FunctionName, Value: !Ref DeleteFunction}]`},
		{"template.yaml", `["AWS/Lambda", "Duration", "FunctionName", "${ListFunction}", {"label": "List"}]`, `["AWS/Lambda", "Duration", "FunctionName", "${ListFunction}", {"label": "Old"}]`},
		{"template.yaml", "Serves GET, PUT and PATCH", "Serves GET"},
		{"template.yaml", "  ConfigFunctionName:\n", "  OtherFunctionName:\n"},
	} {
		text := read(t, c.file)
		edited := strings.Replace(text, c.old, c.new, 1)
		if edited == text {
			t.Errorf("%s has no %q any more", c.file, c.old)
			continue
		}
		current, err := files[c.file](text) // which text is, or TestFiles_AreCurrent reports it
		if err != nil {
			t.Fatal(err)
		}
		if generated, err := files[c.file](edited); err != nil || generated != current {
			t.Errorf("%s with %q for %q is not undone: %v", c.file, c.new, c.old, err)
		}
	}
	if _, err := securityGuide("no sections"); err == nil {
		t.Error("a guide without sections is current")
	}
	if _, err := template("Resources:\n"); err == nil {
		t.Error("a template without functions is current")
	}
}

// CloudWatch accepts ten metrics in an alarm.
func TestTemplate_EachTenFunctionsHaveTheirAlarms(t *testing.T) {
	t.Parallel()
	text := read(t, "template.yaml")
	more := ""
	for i := range 27 {
		more += fmt.Sprintf("  More%dFunction:\n    Type: AWS::Serverless::Function\n    Properties:\n      CodeUri: functions/delete\n", i)
	}
	got, err := template(strings.Replace(text, "  Table:\n", more+"  Table:\n", 1))
	if err != nil {
		t.Fatal(err)
	}
	for row, want := range map[string]int{
		"FILL(more26, 0) / 10000": 1, `"${More26Function}", {"label": "More26"}`: 3, "  More26FunctionName:": 1,
		"MetricName: Errors, Dimensions: [{Name: FunctionName, Value: !Ref More26Function}]": 1,
		"MetricName: Errors, Dimensions: [{Name: FunctionName, Value: !Ref ListFunction}]":   1,
		"  ErrorsAlarm2:": 1, "  ThrottlesAlarm3:": 1, "  DurationAlarm4:": 1,
		"!Ref InternalErrorsAlarm, !Ref ErrorsAlarm, !Ref ErrorsAlarm2, !Ref ErrorsAlarm3, !Ref ErrorsAlarm4": 1, `"${DurationAlarm4.Arn}",`: 1,
	} {
		if n := strings.Count(got, row); n != want {
			t.Errorf("%d times %s, want %d", n, row, want)
		}
	}
	for _, alarm := range regexp.MustCompile(`(?m)^  \w+Alarm\d*:\n(?:    .*\n|\n)+`).FindAllString(got, -1) {
		if n := strings.Count(alarm, "Namespace: AWS/Lambda"); n > 10 {
			t.Errorf("%d metrics in %s", n, alarm)
		}
	}
	back, err := template(strings.Replace(got, more, "", 1))
	if err != nil || back != text && !strings.Contains(text, "Alarm2") {
		t.Errorf("without the functions: %v at line %d", err, firstDifference(text, back))
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../..", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
