package apitest

import (
	"cmp"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"go.yaml.in/yaml/v3"

	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/lambdahost"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

const root = "../.."

// folder is the folder of the operation's function: its name up to the first "-".
func folder(operation string) string {
	name, _, _ := strings.Cut(operation, "-")
	return name
}

// Routes, template, function folders, events and OpenAPI description say the same.
func TestRoutesAgree(t *testing.T) {
	t.Parallel()
	operations, endpoints, folders, described := []string{}, []string{}, []string{}, []string{}
	for _, r := range (&httpapi.API{}).Routes() {
		operation := string(r.Operation)
		operations = append(operations, operation)
		endpoints = append(endpoints, folder(operation)+": "+r.Method+" "+r.Path)
		folders = append(folders, folder(operation))
		described = append(described, operation+": "+r.Method+" "+r.Path)
	}
	for _, all := range [][]string{operations, endpoints, folders, described} {
		slices.Sort(all)
	}
	folders = slices.Compact(folders)

	t.Run("template.yaml", func(t *testing.T) { wantSame(t, endpoints, templateEndpoints(t)) })
	t.Run("functions", func(t *testing.T) { wantSame(t, folders, filesNamed(t, "functions/*")) })
	t.Run("functions start their operations", func(t *testing.T) {
		started := []string{}
		for _, name := range folders {
			started = append(started, startedOperations(t, name)...)
		}
		slices.Sort(started)
		wantSame(t, operations, started)
	})
	t.Run("events", func(t *testing.T) {
		files := filesNamed(t, "events/*.json")
		wantSame(t, operations, files)
		sent := []string{}
		for _, operation := range files {
			sent = append(sent, operation+": "+eventRoute(t, operation))
		}
		wantSame(t, described, sent)
	})
	t.Run("api/openapi.yaml", func(t *testing.T) { wantSame(t, described, openAPIOperations(t)) })
}

// filesNamed are the files that match, without folder and extension.
func filesNamed(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, pattern))
	if err != nil {
		t.Fatal(err)
	}
	all := []string{}
	for _, file := range files {
		base := filepath.Base(file)
		all = append(all, strings.TrimSuffix(base, filepath.Ext(base)))
	}
	slices.Sort(all)
	return all
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// templateEndpoints are the HttpApi events of the template's functions.
func templateEndpoints(t *testing.T) []string {
	t.Helper()
	var template struct {
		Resources map[string]struct {
			Type       string    `yaml:"Type"`
			Properties yaml.Node `yaml:"Properties"` // !Ref and its like stand in it
		} `yaml:"Resources"`
	}
	if err := yaml.Unmarshal(readFile(t, "template.yaml"), &template); err != nil {
		t.Fatal(err)
	}
	endpoints := []string{}
	for name, resource := range template.Resources {
		if resource.Type != "AWS::Serverless::Function" {
			continue
		}
		var function struct {
			CodeURI string `yaml:"CodeUri"`
			Events  map[string]struct {
				Type       string `yaml:"Type"`
				Properties struct {
					Method string `yaml:"Method"`
					Path   string `yaml:"Path"`
				} `yaml:"Properties"`
			} `yaml:"Events"`
		}
		if err := resource.Properties.Decode(&function); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		code, ok := strings.CutPrefix(filepath.ToSlash(filepath.Clean(function.CodeURI)), "functions/")
		if !ok {
			t.Errorf("%s: its CodeUri %s is not below functions/", name, function.CodeURI)
		}
		for _, event := range function.Events {
			if event.Type == "HttpApi" {
				endpoints = append(endpoints, code+": "+event.Properties.Method+" "+event.Properties.Path)
			}
		}
	}
	slices.Sort(endpoints)
	return endpoints
}

// startedOperations are the operations that the function's main gives to lambdahost.Run.
func startedOperations(t *testing.T, name string) []string {
	t.Helper()
	values := operationConstants(t)
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, "functions", name, "main.go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	started := []string{}
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) == 0 {
			return true
		}
		for _, argument := range call.Args {
			selector, ok := argument.(*ast.SelectorExpr)
			if !ok || values[selector.Sel.Name] == "" {
				t.Errorf("functions/%s starts something that is no operation of httpapi", name)
				continue
			}
			if operation := values[selector.Sel.Name]; folder(operation) != name {
				t.Errorf("functions/%s starts %s", name, operation)
			}
			started = append(started, values[selector.Sel.Name])
		}
		return true
	})
	return started
}

// operationConstants are httpapi's constants of type Operation by their name in Go.
func operationConstants(t *testing.T) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, "internal/httpapi/routes.go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		for i, name := range spec.Names {
			if literal, ok := spec.Values[i].(*ast.BasicLit); ok {
				values[name.Name], _ = strconv.Unquote(literal.Value)
			}
		}
		return true
	})
	return values
}

func readEvent(t *testing.T, operation string) (event events.APIGatewayV2HTTPRequest) {
	t.Helper()
	if err := json.Unmarshal(readFile(t, "events/"+operation+".json"), &event); err != nil {
		t.Fatal(err)
	}
	return event
}

// eventRoute is the route of an event, after a check that the event is of one piece.
func eventRoute(t *testing.T, operation string) string {
	t.Helper()
	event := readEvent(t, operation)
	method, pattern, _ := strings.Cut(event.RouteKey, " ")
	path := pattern
	for name, value := range event.PathParameters {
		path = strings.ReplaceAll(path, "{"+name+"}", value)
	}
	for what, same := range map[string]bool{
		"version":                    event.Version == "2.0",
		"requestContext.routeKey":    event.RequestContext.RouteKey == event.RouteKey,
		"requestContext.stage":       event.RequestContext.Stage == "$default",
		"requestContext.http.method": event.RequestContext.HTTP.Method == method,
		"requestContext.http.path":   event.RequestContext.HTTP.Path == event.RawPath,
		"pathParameters":             event.RawPath == path,
	} {
		if !same {
			t.Errorf("events/%s.json: %s does not fit the rest", operation, what)
		}
	}
	for name := range event.Headers {
		if name != strings.ToLower(name) {
			t.Errorf("events/%s.json: the header %s is not in lower case", operation, name)
		}
	}
	return event.RouteKey
}

// openAPIOperations are the paths and methods of the description with their operationId.
func openAPIOperations(t *testing.T) []string {
	t.Helper()
	var description struct {
		Paths map[string]map[string]yaml.Node `yaml:"paths"`
	}
	if err := yaml.Unmarshal(readFile(t, "api/openapi.yaml"), &description); err != nil {
		t.Fatal(err)
	}
	operations := []string{}
	for path, item := range description.Paths {
		for method, node := range item {
			if !slices.Contains([]string{"get", "put", "post", "delete", "options", "head", "patch", "trace"}, method) {
				continue
			}
			var operation struct {
				OperationID string `yaml:"operationId"`
			}
			if err := node.Decode(&operation); err != nil {
				t.Fatal(err)
			}
			operations = append(operations, operation.OperationID+": "+strings.ToUpper(method)+" "+path)
		}
	}
	slices.Sort(operations)
	return operations
}

// Each event in events/ is one that the function of its operation, and no more than that function,
// answers with 200.
func TestTheEventsAreAnswered(t *testing.T) {
	t.Parallel()
	for _, operation := range filesNamed(t, "events/*.json") {
		t.Run(operation, func(t *testing.T) {
			t.Parallel()
			tbl := tabletest.New(t)
			event := readEvent(t, operation)
			org := event.PathParameters["orgId"]
			id := cmp.Or(event.PathParameters["usageRecordGroupId"], "g1")
			putGroups(t, tbl, org, group(id))
			own := []httpapi.Operation{}
			for _, o := range startedOperations(t, folder(operation)) {
				own = append(own, httpapi.Operation(o))
			}
			log := slog.New(slog.NewJSONHandler(&logLines{}, nil))
			api := &httpapi.API{Table: tbl, Log: log, Now: func() time.Time { return now }, CountUnits: table.CountUnits}
			response, err := lambdahost.Handler(api.Handler(own...), log)(t.Context(), event)
			if err != nil || response.StatusCode != http.StatusOK {
				t.Errorf("%d %s, %v", response.StatusCode, response.Body, err)
			}
		})
	}
}
