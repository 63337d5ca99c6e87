package apitest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// converting are the files that may make an identifier of a text without its check, and why: the
// text was checked before, by this version or by the one that stored it, or the service makes it.
var converting = map[string]string{
	"internal/table/keys.go":       "idOf reads a key of the table",
	"internal/table/group_item.go": "a Group holds what its decoder has checked, or what is stored",
	"internal/table/report.go":     "metering.Report.Check has checked the groups; what has no id gets one",
	"internal/table/retry.go":      "a Group holds what is stored",
	"internal/table/api_key.go":    "the organization of a Record",
	"internal/httpapi/metrics.go":  "newMetricID makes ids",

	"internal/metering/reports/expire.go":   "a Group holds what is stored",
	"internal/reporting/abandon.go":         "a Group holds what is stored",
	"internal/reporting/plan.go":            "a Group holds what is stored",
	"internal/reporting/operate/enqueue.go": "a Group holds what is stored",
	"internal/table/daily.go":               "what a daily record holds",
	"internal/table/report_place.go":        "what a report holds",
	"internal/table/unreconciled.go":        "what a key of the table holds",
	"internal/table/usage_record_report.go": "a report is sorted by its time and id, as a group",
	"internal/table/without_work.go":        "a Group holds what is stored",
	"internal/table/work.go":                "what a key of the table holds",
	"internal/reporting/worldtest/world.go": "the ids of a test",

	"internal/transfer/sample.go":                    "the ids of sample groups are of dates and numbers",
	"internal/transfer/transfertest/transfertest.go": "the organization of a test",
}

// Identifiers are made by their checks: outside of metering, only files with a stated reason
// convert a text to one.
func TestIdentifiers_AreMadeByTheirChecks(t *testing.T) {
	t.Parallel()
	found := map[string]bool{}
	for _, folder := range []string{"internal", "cmd", "functions"} {
		err := filepath.WalkDir(filepath.Join(root, folder), func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.Name() == "testdata" {
				return fs.SkipDir
			}
			if err == nil && !entry.IsDir() && strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") && convertsToID(t, path) {
				name, _ := filepath.Rel(root, path)
				found[filepath.ToSlash(name)] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	wantSame(t, slices.Sorted(maps.Keys(converting)), slices.Sorted(maps.Keys(found)))
	if !convertsToID(t, "testdata/converts/converts.go") {
		t.Error("the conversion in testdata/converts is not found")
	}
}

// convertsToID reports whether a file converts something to a type metering.<Name>ID.
func convertsToID(t *testing.T, path string) (converts bool) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		if of, ok := call.Fun.(*ast.SelectorExpr); ok {
			receiver, ok := of.X.(*ast.Ident)
			name := of.Sel.Name
			isCheck := strings.HasPrefix(name, "Parse") || strings.HasPrefix(name, "Stored") || name == "ReportID" || name == "OperationID" // which make an id
			converts = converts || ok && receiver.Name == "metering" && strings.HasSuffix(name, "ID") && !isCheck
		}
		return true
	})
	return converts
}
