package main

import (
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

// CloudWatch accepts ten metrics in an alarm: the eleventh function needs a second alarm.
func TestTemplate_EleventhFunctionNeedsAnotherAlarm(t *testing.T) {
	t.Parallel()
	text := read(t, "template.yaml")
	more := ""
	for _, name := range strings.Fields("One Two Three Four Five Six") {
		more += "  " + name + "Function:\n    Type: AWS::Serverless::Function\n    Properties:\n      CodeUri: functions/delete\n"
	}
	text = strings.Replace(text, "  Table:\n", more+"  Table:\n", 1)
	if _, err := template(text); err == nil || !strings.Contains(err.Error(), "10 functions and 11 are declared") {
		t.Errorf("eleven functions in one alarm: %v; with the functions that this test adds, template.yaml must have eleven", err)
	}
	for metric := range strings.FieldsSeq("Errors Throttles Duration") {
		alarm := regexp.MustCompile(`(?m)^  ` + metric + `Alarm:\n(?:    .*\n|\n)+`).FindString(text)
		text = strings.Replace(text, alarm, alarm+strings.Replace(alarm, metric+"Alarm", metric+"Alarm2", 1), 1)
	}
	got, err := template(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []string{
		"FILL(six, 0) / 10000", "MetricName: Errors, Dimensions: [{Name: FunctionName, Value: !Ref SixFunction}]",
		"MetricName: Errors, Dimensions: [{Name: FunctionName, Value: !Ref FiveFunction}]", "SixFunctionName:", `"${SixFunction}", {"label": "Six"}`,
	} {
		if want := max(1, 3*strings.Count(row, "label")); strings.Count(got, row) != want {
			t.Errorf("%d rows with %s, want %d", strings.Count(got, row), row, want)
		}
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
