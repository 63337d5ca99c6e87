// Command generate writes what follows from httpapi.Operations, lambdahost.Functions and
// metering.ProblemKinds, and from the functions of template.yaml: in docs/security.md the tables
// of scopes and of access, in docs/problems.md each kind of problem, and in template.yaml the rows
// of each function in alarms, dashboard and outputs. With -diff it writes nothing, and fails if a
// file is not current.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/lambdahost"
	"github.com/marketmeter/marketmeter/internal/metering"
)

func main() {
	diff := flag.Bool("diff", false, "write nothing; fail if a file is not current")
	flag.Parse()
	stale := false
	for name, generate := range files {
		current, err := os.ReadFile(name)
		if err != nil {
			fail(err)
		}
		generated, err := generate(string(current))
		switch {
		case err != nil:
			fail(fmt.Errorf("%s: %w", name, err))
		case generated == string(current):
		case *diff:
			stale = true
			fmt.Fprintf(os.Stderr, "%s is not current at line %d: run make generate\n", name, firstDifference(string(current), generated))
		default:
			if err := os.WriteFile(name, []byte(generated), 0o644); err != nil { //nolint:gosec // a source file
				fail(err)
			}
		}
	}
	if stale {
		os.Exit(1)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func firstDifference(a, b string) (line int) {
	for line = 1; ; line++ {
		x, restOfA, _ := strings.Cut(a, "\n")
		y, restOfB, _ := strings.Cut(b, "\n")
		if x != y || a == "" {
			return line
		}
		a, b = restOfA, restOfB
	}
}

// files are the files with generated parts. Each function returns what the file must be.
var files = map[string]func(text string) (string, error){
	"docs/problems.md": problemGuide,
	"docs/security.md": securityGuide,
	"template.yaml":    template,
}

func securityGuide(text string) (string, error) {
	text, err := section(text, "access", accessTable())
	if err != nil {
		return "", err
	}
	return section(text, "scopes", scopeTable())
}

func problemGuide(text string) (string, error) {
	var b bytes.Buffer
	for _, kind := range metering.ProblemKinds() {
		fmt.Fprintf(&b, "\n### `%s`\n\n%s\n\n", kind.Code, kind.Meaning)
		fmt.Fprintf(&b, "* `%s`, %s; found by %s.\n", kind.Severity, kind.Remedy, foundBy(kind.Found))
		if len(kind.Errors) > 0 {
			fmt.Fprintf(&b, "* The marketplaces' names: %s.\n", namesOf(kind.Errors))
		}
		if kind.Hint != "" {
			fmt.Fprintf(&b, "* %s\n", kind.Hint)
		}
	}
	b.WriteString("\n")
	return section(text, "problems", b.String())
}

func foundBy(found metering.Finding) string {
	var all []string
	if found&metering.FoundByValidation != 0 {
		all = append(all, "validation")
	}
	if found&metering.FoundByReporting != 0 {
		all = append(all, "reporting")
	}
	return strings.Join(all, " and ")
}

// namesOf lists the names that marketplaces have for a kind of problem.
func namesOf(errors []metering.MarketplaceError) string {
	all := make([]string, len(errors))
	for i, e := range errors {
		all[i] = string(e.Partner) + " `" + strings.Join(e.Names, "`, `") + "`"
	}
	return strings.Join(all, "; ")
}

// section replaces the text between the comments of that name.
func section(text, name, content string) (string, error) {
	begin, end := "<!-- "+name+": by make generate -->\n", "<!-- end of "+name+" -->"
	before, rest, found := strings.Cut(text, begin)
	_, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		return "", fmt.Errorf("it has no section %q", begin+end)
	}
	return before + begin + content + end + after, nil
}

// accessTable returns the table of what each function may do.
func accessTable() string {
	var b bytes.Buffer
	b.WriteString("| function | serves | memory, time | may | on |\n|---|---|---|---|---|\n")
	for _, f := range lambdahost.Functions() {
		serves := []string{}
		for _, o := range f.Operations {
			serves = append(serves, "`"+o.ID+"`")
		}
		if len(serves) == 0 {
			serves = append(serves, strings.TrimSuffix(f.Does, "."))
		}
		start := fmt.Sprintf("| %s | %s | %d MB, %s ", f.Name, strings.Join(serves, ", "), f.Memory, f.Timeout)
		if len(f.Table) == 0 {
			fmt.Fprintf(&b, "%s| nothing | |\n", start)
		}
		written := map[string]bool{}
		for _, a := range f.Table {
			on := "partitions `" + a.Partitions + "`"
			switch {
			case len(a.Indexes) > 0:
				on = "the indexes `" + strings.Join(a.Indexes, "`, `") + "`"
			case a.Partitions == "":
				on = "the table, of which it reads no item"
			}
			if len(a.Attributes) > 0 {
				on += ", of attributes only `" + strings.Join(a.Attributes, "`, `") + "`"
			}
			row := fmt.Sprintf("| %s | %s |\n", strings.Join(a.Actions, ", "), on)
			if covered(a, f.Table) || written[row] {
				continue
			}
			written[row] = true
			b.WriteString(start + row)
			start = "| | | "
		}
		for _, c := range f.Calls {
			fmt.Fprintf(&b, "%s%s | `%s` |\n", start, c.Action, c.Resource)
			start = "| | | "
		}
	}
	return b.String()
}

// covered reports whether another access in the same partitions has all actions of a and others
// too.
func covered(a httpapi.Access, all []httpapi.Access) bool {
	for _, other := range all {
		if other.Partitions != a.Partitions || len(other.Indexes)+len(a.Indexes)+len(other.Attributes)+len(a.Attributes) > 0 ||
			len(other.Actions) <= len(a.Actions) {
			continue
		}
		all := true
		for _, action := range a.Actions {
			all = all && strings.Contains(" "+strings.Join(other.Actions, " ")+" ", " "+action+" ")
		}
		if all {
			return true
		}
	}
	return false
}

// scopeTable returns the table of the scopes that allow each operation.
func scopeTable() string {
	scopes := []auth.Scopes{auth.Read, auth.Write, auth.Config, auth.Admin}
	var b bytes.Buffer
	b.WriteString("| operation |")
	for _, s := range scopes {
		fmt.Fprintf(&b, " `%s` |", s)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(scopes)) + "\n")
	for _, o := range httpapi.Operations() {
		fmt.Fprintf(&b, "| `%s` |", o.ID)
		for _, s := range scopes {
			if s == auth.Admin || o.Scopes&s != 0 {
				b.WriteString(" yes |")
			} else {
				b.WriteString(" |")
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

// declaredFunction is a function of the template: ListFunction, of functions/list.
type declaredFunction struct {
	resource string
	lambdahost.Function
}

func (f declaredFunction) label() string { return strings.TrimSuffix(f.resource, "Function") }

// id is the function's name in metric math, which begins with a lower case letter.
func (f declaredFunction) id() string { return strings.ToLower(f.label()[:1]) + f.label()[1:] }

// watchedFor reports whether an alarm watches the metric of the function. Of plan none watches the
// duration, since it works on a large hour for nearly all of its time, and of reconcile none, since
// it runs once a day: an alarm of a quarter of an hour can't ring.
func (f declaredFunction) watchedFor(metric string) bool {
	return metric != "Duration" || f.Name != "plan" && f.Name != "reconcile"
}

// serves describes for the function's output what it serves, by Operations.
func (f declaredFunction) serves() string {
	if len(f.Operations) == 0 {
		return f.Does
	}
	methods, all := map[string]string{}, []string{}
	for _, o := range f.Operations {
		if at := methods[o.Path]; at == "" {
			all = append(all, o.Path)
			methods[o.Path] = o.Method
		} else {
			methods[o.Path] = strings.ReplaceAll(at, " and ", ", ") + " and " + o.Method
		}
	}
	for i, path := range all {
		all[i] = methods[path] + " " + path
	}
	return "Serves " + strings.Join(all, "; ") + "."
}

var (
	resourceLine  = regexp.MustCompile(`(?m)^  (\w+Function):\n    Type: AWS::Serverless::Function\n(?:    .*\n|\n)*?      CodeUri: functions/(\w+)\n`)
	alarmRows     = regexp.MustCompile(`(?m)(?:^        - \{Id: \w+, ReturnData: false, MetricStat: \{Stat: \w+, Period: \d+, Metric: \{Namespace: AWS/Lambda, .*\n)+`)
	alarmOf       = regexp.MustCompile(`Stat: (\w+), Period: (\d+), .*MetricName: (\w+),`)
	shareRows     = regexp.MustCompile(`(?m)(?:^            FILL\(\w+, 0\) / \d+,?\n)+`)
	dashboardRows = regexp.MustCompile(`(?m)(?:^ +\["AWS/Lambda", "\w+", "FunctionName", "\$\{\w+\}", \{"label": "\w+"\}\](?:,\n|))+`)
	dashboardOf   = regexp.MustCompile(`^( +)\["AWS/Lambda", "(\w+)"`)
	outputRows    = regexp.MustCompile(`(?m)(?:^  \w+FunctionName:\n    Description: .*\n    Value: !Ref \w+Function\n?)+`)
)

// metricsPerAlarm is how many metrics CloudWatch accepts in an alarm. Further functions are in a
// copy of the alarm, ErrorsAlarm2 and so on.
const metricsPerAlarm = 10

// copyAlarms writes as many copies of the alarms over functions as the functions need, and their
// names for CodeDeploy, which rolls a deployment back by the errors, and for the dashboard.
func copyAlarms(text string, functions []declaredFunction) (string, error) {
	onDashboard := ""
	for _, metric := range []string{"Errors", "Throttles", "Duration"} {
		name, watched := metric+"Alarm", 0
		for _, f := range functions {
			if f.watchedFor(metric) {
				watched++
			}
		}
		alarm := regexp.MustCompile(`(?m)^  ` + name + `:\n(?:    .*\n)+`).FindString(text)
		if alarm == "" {
			return "", fmt.Errorf("it has no %s", name)
		}
		copies, references := []string{}, []string{}
		for n := 1; n == 1 || (n-1)*metricsPerAlarm < watched; n++ {
			copied := name
			if n > 1 {
				copied += strconv.Itoa(n)
			}
			copies = append(copies, strings.Replace(alarm, name, copied, 1))
			references = append(references, "!Ref "+copied)
			onDashboard += `"${` + copied + `.Arn}", `
		}
		all := regexp.MustCompile(`(?m)(?:^  ` + name + `\d*:\n(?:    .*\n)+\n)+`)
		text = all.ReplaceAllLiteralString(text, strings.Join(copies, "\n")+"\n")
		rollback := regexp.MustCompile(`!Ref ` + name + `\d*(?:, !Ref ` + name + `\d*)*\]`)
		text = rollback.ReplaceAllLiteralString(text, strings.Join(references, ", ")+"]")
	}
	rows := regexp.MustCompile(`(?:"\$\{(?:Errors|Throttles|Duration)Alarm\d*\.Arn\}", ?)+`)
	return rows.ReplaceAllLiteralString(text, strings.TrimSuffix(onDashboard, " ")), nil
}

// template writes a row for each of its functions, in their order, in the alarms over functions, on
// the dashboard and in the outputs.
func template(text string) (string, error) {
	const all = math.MaxInt
	var functions []declaredFunction
	for _, found := range resourceLine.FindAllStringSubmatch(text, -1) {
		for _, f := range lambdahost.Functions() {
			if f.Name == found[2] {
				functions = append(functions, declaredFunction{found[1], f})
			}
		}
	}
	if len(functions) == 0 {
		return "", errors.New("it has no functions")
	}
	text, err := copyAlarms(text, functions)
	if err != nil {
		return "", err
	}
	rows := func(of *regexp.Regexp, most int, separator, end string, row func(old string, f declaredFunction) string) error {
		written, left := map[string]int{}, map[string][]string{} // rows, by the row of the first function
		text = of.ReplaceAllStringFunc(text, func(old string) string {
			all := []string{}
			for _, f := range functions {
				if r := row(old, f); r != "" {
					all = append(all, r)
				}
			}
			first := all[0]
			left[first] = all[min(written[first], len(all)):]
			these := left[first][:min(len(left[first]), most)]
			written[first] += len(these)
			left[first] = left[first][len(these):]
			return strings.Join(these, separator) + end
		})
		for first, missing := range left {
			if len(missing) > 0 {
				return fmt.Errorf("it has no rows for %d functions, of %s", len(missing), strings.TrimSpace(first))
			}
		}
		if len(written) == 0 {
			return fmt.Errorf("it has no rows like %s", of)
		}
		return nil
	}
	if err := rows(alarmRows, metricsPerAlarm, "\n", "\n", func(old string, f declaredFunction) string {
		m := alarmOf.FindStringSubmatch(old)
		if !f.watchedFor(m[3]) {
			return ""
		}
		return fmt.Sprintf("        - {Id: %s, ReturnData: false, MetricStat: {Stat: %s, Period: %s, Metric: {Namespace: AWS/Lambda, MetricName: %s, Dimensions: [{Name: FunctionName, Value: !Ref %s}]}}}",
			f.id(), m[1], m[2], m[3], f.resource)
	}); err != nil {
		return "", err
	}
	if err := rows(shareRows, metricsPerAlarm, ",\n", "\n", func(_ string, f declaredFunction) string {
		if !f.watchedFor("Duration") {
			return ""
		}
		return fmt.Sprintf("            FILL(%s, 0) / %d", f.id(), f.Timeout.Milliseconds())
	}); err != nil {
		return "", err
	}
	if err := rows(dashboardRows, all, ",\n", "", func(old string, f declaredFunction) string {
		m := dashboardOf.FindStringSubmatch(old)
		return fmt.Sprintf(`%s["AWS/Lambda", "%s", "FunctionName", "${%s}", {"label": "%s"}]`, m[1], m[2], f.resource, f.label())
	}); err != nil {
		return "", err
	}
	err = rows(outputRows, all, "\n", "\n", func(_ string, f declaredFunction) string {
		return fmt.Sprintf("  %sName:\n    Description: %s\n    Value: !Ref %s", f.resource, f.serves(), f.resource)
	})
	return text, err
}
