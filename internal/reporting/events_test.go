package reporting

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter/internal/metering/reports"
)

// declaredEvents returns the declared events, by the name of the constant.
func declaredEvents(t *testing.T) map[string]Event {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "events.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]Event{}
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok && spec.Type != nil {
			if of, ok := spec.Type.(*ast.Ident); ok && of.Name == "Event" {
				value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				all[spec.Names[0].Name] = Event(value)
			}
		}
		return true
	})
	return all
}

func TestEvents_AreMetrics(t *testing.T) {
	t.Parallel()
	all := declaredEvents(t)
	if len(all) == 0 || len(all) != len(levels) {
		t.Errorf("%d events are declared, %d have a level", len(all), len(levels))
	}
	for name, e := range all {
		if _, ok := levels[e]; !ok || MetricUnit(string(e)) != "Count" {
			t.Errorf("%s has no level", name)
		}
	}
	for _, member := range []string{"", "event", "organization", "msg", "version"} {
		if unit := MetricUnit(member); unit != "" {
			t.Errorf("%q is a metric, in %s", member, unit)
		}
	}
}

// uses returns how often each selector or identifier is used in Go code that is no test, below the
// folders. Those in declarations of constants, and in the tables levels and events, do not count.
func uses(t *testing.T, folders ...string) map[string]int {
	t.Helper()
	n := map[string]int{}
	for _, folder := range folders {
		err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(node ast.Node) bool {
				switch node := node.(type) {
				case *ast.GenDecl:
					return node.Tok != token.CONST
				case *ast.ValueSpec:
					return node.Names[0].Name != "levels" && node.Names[0].Name != "events"
				case *ast.CallExpr:
					if of, ok := node.Fun.(*ast.Ident); ok && of.Name == "notice" {
						n["notice "+node.Args[1].(*ast.SelectorExpr).Sel.Name]++
					}
				case *ast.Ident:
					n[node.Name]++
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// An alarm whose event nothing counts would never ring.
func TestEvents_AreEachCountedSomewhere(t *testing.T) {
	t.Parallel()
	used := uses(t, ".", "../lambdahost", "../table")
	noticed := map[Event]bool{}
	for notice, name := range map[reports.Notice]string{reports.StaleWork: "StaleWork", reports.UnknownWork: "UnknownWork", reports.TooLarge: "TooLarge"} {
		noticed[events[notice]] = used["notice "+name] > 0
	}
	if len(events) != len(noticed) {
		t.Errorf("%d notices are events, want %d", len(events), len(noticed))
	}
	for name, e := range declaredEvents(t) {
		if used[name] == 0 && !noticed[e] {
			t.Errorf("%s is counted nowhere", name)
		}
	}
}

func TestEvent_IsOneLine(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	now := time.Date(2026, 11, 27, 12, 30, 0, 0, time.UTC)
	w := &Worker{Log: slog.New(slog.NewJSONHandler(&log, nil)), Now: func() time.Time { return now }}
	line := func() map[string]any {
		t.Helper()
		members := map[string]any{}
		if err := json.Unmarshal(log.Bytes(), &members); err != nil {
			t.Fatalf("%s: %v", log.Bytes(), err)
		}
		log.Reset()
		return members
	}
	if w.event(t.Context(), EventRejected, 0); log.Len() != 0 {
		t.Errorf("nothing has happened: %s", log.Bytes())
	}
	w.event(t.Context(), EventRejected, 3, at(reports.Place{Organization: "acme", Entitlement: "e1", Hour: now.Truncate(time.Hour)}), "dimension", "d")
	got := line()
	for member, want := range map[string]any{
		"msg": EventLogged, "level": "WARN", "event": "rejected", "rejected": 3.0, "organization": "acme", "entitlement": "e1",
		"hour": "2026-11-27T12:00:00.000Z", "dimension": "d",
	} {
		if got[member] != want {
			t.Errorf("%s is %v, want %v", member, got[member], want)
		}
	}
	place := reports.Place{Organization: "acme", Entitlement: "e1", Hour: now.Truncate(time.Hour)}
	moment := func(d time.Duration) Moment { return Moment{now.Add(d), place} }
	for _, c := range []struct {
		name                      string
		seen                      Overview
		oldest, retried, deadline any
	}{
		{"nothing waits", Overview{}, 0.0, 0.0, nil},
		{"the current hour", Overview{Places: 1, Oldest: now.Truncate(time.Hour)}, 0.0, 0.0, nil},
		{"an old hour", Overview{Places: 1, Oldest: now.Add(-6 * time.Hour), Closed: moment(-4 * time.Hour), Deadline: moment(time.Hour)}, 4.0 * 3600, 0.0, 3600.0},
		{"an hour that is sent again", Overview{Lanes: 1, Oldest: now.Add(-6 * time.Hour), Retried: moment(-4 * time.Hour), Deadline: moment(time.Hour)}, 0.0, 4.0 * 3600, 3600.0},
		{"a deadline that has passed", Overview{Places: 1, Closed: moment(-47 * time.Hour), Deadline: moment(-time.Hour)}, 47.0 * 3600, 0.0, 0.0},
	} {
		w.scheduled(t.Context(), c.seen)
		got := line()
		for gauge := range units {
			if _, has := got[gauge]; !has && (gauge != gaugeDeadline || c.deadline != nil) {
				t.Errorf("%s: it has no %s", c.name, gauge)
			}
		}
		if got[gaugeOldest] != c.oldest || got[gaugeRetried] != c.retried || got[gaugeDeadline] != c.deadline || got["scheduled"] != 1.0 || got["level"] != "INFO" {
			t.Errorf("%s: %v", c.name, got)
		}
		for name, m := range map[string]Moment{"oldest": c.seen.Closed, "retried": c.seen.Retried, "earliest": c.seen.Deadline} {
			if of, _ := got[name].(map[string]any); (of["entitlement"] == "e1" && of["organization"] == "acme" && of["hour"] != nil) == m.IsZero() {
				t.Errorf("%s: the place of %s is %v", c.name, name, got[name])
			}
		}
	}
}
