package apitest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"go.yaml.in/yaml/v3"

	"github.com/marketmeter/marketmeter"
	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/lambdahost"
	"github.com/marketmeter/marketmeter/internal/table"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

const root = "../.."

// Operations, template, function folders, events, OpenAPI description and README agree.
func TestOperations(t *testing.T) {
	t.Parallel()
	ids, endpoints, folders, described := []string{}, []string{}, []string{}, []string{}
	scopes := map[string]string{}
	for _, o := range httpapi.Operations() {
		ids = append(ids, o.ID)
		endpoints = append(endpoints, o.Function+": "+o.Method+" "+o.Path)
		described = append(described, o.ID+": "+o.Method+" "+o.Path)
		scopes[o.ID] = o.Scopes.String()
	}
	for _, f := range lambdahost.Functions() {
		folders = append(folders, f.Name)
	}
	for _, all := range [][]string{ids, endpoints, folders, described} {
		slices.Sort(all)
	}
	if len(slices.Compact(slices.Clone(ids))) != len(ids) {
		t.Errorf("two operations have one ID: %q", ids)
	}

	t.Run("template.yaml", func(t *testing.T) {
		served, code := []string{}, []string{}
		for _, f := range deployed().functions {
			code = append(code, f.folder)
			for _, e := range f.endpoints {
				served = append(served, f.folder+": "+e.String())
			}
		}
		slices.Sort(served)
		slices.Sort(code)
		wantOperations(t, "template.yaml", endpoints, served)
		wantOperations(t, "CodeUri in template.yaml", folders, code)
	})
	t.Run("functions", func(t *testing.T) {
		wantOperations(t, "functions/", folders, filesNamed(t, "functions/*"))
		for _, f := range lambdahost.Functions() {
			wantMain(t, f)
		}
	})
	t.Run("events", func(t *testing.T) {
		sent := []string{}
		for _, id := range operationEvents(t) {
			sent = append(sent, id+": "+eventRoute(t, id))
		}
		wantOperations(t, "events/", described, sent)
	})
	t.Run("api/openapi.yaml", func(t *testing.T) {
		operations, admitted := openAPIOperations(t)
		wantOperations(t, "api/openapi.yaml", described, operations)
		wantOperations(t, "x-scopes in api/openapi.yaml", scopes, admitted)
	})
	t.Run("README.md", func(t *testing.T) {
		for _, o := range httpapi.Operations() {
			if !slices.ContainsFunc(strings.Split(string(readFile(t, "README.md")), "\n"), func(line string) bool {
				return strings.HasPrefix(line, "| `") && strings.Contains(line, "`"+o.Method) && strings.Contains(line, o.Path+"`")
			}) {
				t.Errorf("README.md has no row in its table of operations for %s %s", o.Method, o.Path)
			}
		}
	})
}

// template.yaml gives each function what its operations need: memory, time, and access to the
// table.
func TestOperations_TemplateHasWhatTheyNeed(t *testing.T) {
	t.Parallel()
	for _, problem := range templateProblems(marketmeter.Template) {
		t.Error(problem)
	}
	for _, c := range []struct{ old, new, reported string }{
		{"Timeout: 29", "Timeout: 28", "ListFunction has 1024 MB and 28s"},
		{"MemorySize: 256", "MemorySize: 128", "DeleteFunction has 128 MB"},
		{"      MemorySize: 1024\n", "", "ListFunction has 256 MB"},
		{`["ORG#*#PAGE#*"]`, `["ORG#*"]`, "ListFunction may"},
		{"Action: [dynamodb:Query, dynamodb:PutItem]", "Action: dynamodb:Query", "ConfigFunction may"},
		{"PK, SK, lastUsedTime", "PK, SK, scopes", "AuthorizerFunction may"},
		{"                - !Sub ${Table.Arn}/index/byBuyer\n", "", "ListFunction may"},
		{"[PING]", `["ORG#*"]`, "AuthorizerFunction may"},
		{"rate(5 minutes)", "rate(1 day)", "ScheduleFunction is called by the schedule"},
		{"EventSourceArn: !GetAtt PlanQueue.Arn", "EventSourceArn: !GetAtt PlanDeadLetters.Arn", "PlanFunction is called by"},
		{"FunctionName: !Sub ${PlanFunction.Arn}:live", "FunctionName: !GetAtt PlanFunction.Arn", "PlanMessages maps"},
		{"FunctionName: !Sub ${SubmitFunction.Arn}:live", "FunctionName: !Sub ${ListFunction.Arn}:live", "ListFunction is called by"},
		{"      FunctionResponseTypes: [ReportBatchItemFailures]\n", "", "PlanMessages maps"},
		{"FunctionResponseTypes: [ReportBatchItemFailures]", "FilterCriteria: {}", "PlanMessages has FilterCriteria"},
		{"[!GetAtt PlanQueue.Arn, !GetAtt SubmitQueue.Arn]", "[!GetAtt PlanQueue.Arn]", "ScheduleFunction may"},
		{"sqs:ReceiveMessage, sqs:DeleteMessage", "sqs:ReceiveMessage, sqs:PurgeQueue", "PlanFunction may"},
		{"EventInvokeConfig: {", "EventInvokeConfig: {DestinationConfig: {}, ", "DestinationConfig, which is not checked here"},
		{"  PlanQueue:\n", "  Open: {Type: AWS::SQS::QueuePolicy}\n  PlanQueue:\n", "a AWS::SQS::QueuePolicy, allows"},
		{"secret:marketmeter/*", "secret:*", "ConnectionFunction may"},
		{"role/marketmeter*", "role/*", "ConnectionFunction may"},
		{"Action: dynamodb:Query\n", "Action: [dynamodb:Query, aws-marketplace:BatchMeterUsage]\n", "ListFunction may"},
		{"              Action: sts:AssumeRole\n", "              Action: sts:TagSession\n", "ConnectionFunction may"},
	} {
		edited := bytes.Replace(marketmeter.Template, []byte(c.old), []byte(c.new), 1)
		if problems := strings.Join(templateProblems(edited), "\n"); bytes.Equal(edited, marketmeter.Template) || !strings.Contains(problems, c.reported) {
			t.Errorf("%q for %q: %q, want %q", c.new, c.old, problems, c.reported)
		}
	}
}

// templateProblems reports what a template declares of functions other than httpapi.Functions.
func templateProblems(template []byte) (problems []string) {
	d, err := readDeployment(template)
	if err != nil {
		return []string{err.Error()}
	}
	for _, f := range d.functions {
		i := slices.IndexFunc(lambdahost.Functions(), func(o lambdahost.Function) bool { return o.Name == f.folder })
		if i < 0 {
			continue // TestOperations reports it
		}
		declared := lambdahost.Functions()[i]
		if f.schedule != declared.Schedule || f.queue != declared.Queue {
			problems = append(problems, fmt.Sprintf("%s is called by the schedule %q and the queue %q: it is declared with %q and %q",
				f.name, f.schedule, f.queue, declared.Schedule, declared.Queue))
		}
		if f.memory != declared.Memory || f.timeout != declared.Timeout {
			problems = append(problems, fmt.Sprintf("%s has %d MB and %s: its operations have %d MB and %s", f.name, f.memory, f.timeout, declared.Memory, declared.Timeout))
		}
		allowed, needed := []string{}, []string{}
		for _, p := range f.permissions {
			allowed = append(allowed, fmt.Sprint(p, p.leading, p.attributes))
		}
		for _, a := range declared.Table {
			for _, action := range a.Actions {
				p := permission{action: "dynamodb:" + action, resource: "table", conditions: conditions{attributes: a.Attributes}}
				if a.Partitions != "" {
					p.leading = []string{a.Partitions}
				}
				if len(a.Indexes) == 0 {
					needed = append(needed, fmt.Sprint(p, p.leading, p.attributes))
				}
				for _, index := range a.Indexes {
					p.resource = "table/index/" + index
					needed = append(needed, fmt.Sprint(p, p.leading, p.attributes))
				}
			}
		}
		for _, c := range declared.Calls {
			p := permission{action: c.Action, resource: c.Resource}
			needed = append(needed, fmt.Sprint(p, p.leading, p.attributes))
		}
		slices.Sort(allowed)
		slices.Sort(needed)
		if needed = slices.Compact(needed); !slices.Equal(allowed, needed) {
			problems = append(problems, fmt.Sprintf("%s may %q: its operations need %q", f.name, allowed, needed))
		}
	}
	return problems
}

// A main that names a function without operations fails at its start and serves nothing.
func TestHandler_RefusesAFunctionWithoutOperations(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"lists", "listUsageRecordGroups", httpapi.AuthorizerFunction, ""} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("the function %q is served", name)
				}
			}()
			(&httpapi.API{}).Handler("list", name)
		}()
	}
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

// wantMain wants the function's main to be one call: it runs the function under its own name, with
// the table.
func wantMain(t *testing.T, f lambdahost.Function) {
	t.Helper()
	call := "tablehost.Run(" + strconv.Quote(f.Name) + ")"
	switch {
	case f.Name == httpapi.AuthorizerFunction:
		call = "tablehost.RunAuthorizer()"
	case len(f.Operations) == 0:
		host := "workerhost"
		if slices.ContainsFunc(httpapi.MarketplaceCalls(), func(c httpapi.Call) bool { return slices.Contains(f.Calls, c) }) {
			host = "connecthost"
		}
		call = host + ".Run" + strings.ToUpper(f.Name[:1]) + f.Name[1:] + "()"
	case len(f.Calls) > 0: // of marketplaces
		call = "connecthost.Run()"
	}
	main := string(readFile(t, "functions/"+f.Name+"/main.go"))
	if !strings.HasSuffix(main, "\nfunc main() { "+call+" }\n") || strings.Count(main, "func ") != 1 {
		t.Errorf("functions/%s/main.go must end with one call, %s: %s", f.Name, call, main)
	}
}

// operationEvents are the operations that have an event in events/, without the authorizer's event.
func operationEvents(t *testing.T) []string {
	t.Helper()
	files := filesNamed(t, "events/*.json")
	at, found := slices.BinarySearch(files, httpapi.AuthorizerFunction)
	if !found {
		t.Fatal("there is no events/" + httpapi.AuthorizerFunction + ".json")
	}
	return slices.Delete(files, at, at+1)
}

func readEvent(t *testing.T, operation string) (event events.APIGatewayV2HTTPRequest) {
	t.Helper()
	if err := json.Unmarshal(readFile(t, "events/"+operation+".json"), &event); err != nil {
		t.Fatal(err)
	}
	return event
}

// eventRoute is the route of an event, after a check that the event is consistent.
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

// openAPIOperations are the paths and methods of the description with their operationId, and the
// scopes that admit to each: x-scopes, any one of which is enough.
func openAPIOperations(t *testing.T) (operations []string, scopes map[string]string) {
	t.Helper()
	var description struct {
		Paths map[string]map[string]yaml.Node `yaml:"paths"`
	}
	if err := yaml.Unmarshal(readFile(t, "api/openapi.yaml"), &description); err != nil {
		t.Fatal(err)
	}
	operations, scopes = []string{}, map[string]string{}
	for path, item := range description.Paths {
		for method, node := range item {
			if !slices.Contains([]string{"get", "put", "post", "delete", "options", "head", "patch", "trace"}, method) {
				continue
			}
			var operation struct {
				OperationID string   `yaml:"operationId"`
				Scopes      []string `yaml:"x-scopes"`
			}
			if err := node.Decode(&operation); err != nil {
				t.Fatal(err)
			}
			operations = append(operations, operation.OperationID+": "+strings.ToUpper(method)+" "+path)
			scopes[operation.OperationID] = strings.Join(operation.Scopes, ",")
		}
	}
	slices.Sort(operations)
	return operations, scopes
}

// Every route of the API has the authorizer, and API Gateway calls it as the authorizer expects.
func TestOperations_RoutesHaveTheAuthorizer(t *testing.T) {
	t.Parallel()
	d := deployed()
	if len(d.globals) != 1 || d.globals["Function"].Kind == 0 {
		t.Errorf("the template has Globals other than Function, which may change the API: %v", slices.Collect(maps.Keys(d.globals)))
	}
	api := ""
	for name, r := range d.resources {
		switch {
		case r.Type == "AWS::Serverless::HttpApi" && api == "":
			api = name
		case strings.HasPrefix(r.Type, "AWS::Serverless::") && r.Type != "AWS::Serverless::Function",
			strings.HasPrefix(r.Type, "AWS::ApiGateway"), strings.HasPrefix(r.Type, "AWS::Lambda::") && r.Type != "AWS::Lambda::EventSourceMapping",
			strings.HasPrefix(r.Type, "AWS::ElasticLoadBalancing"), strings.HasPrefix(r.Type, "AWS::AppSync"):
			t.Errorf("%s, a %s, may reach the functions past the authorizer of %s", name, r.Type, api)
		}
	}
	properties := d.resources[api].Properties
	if err := wantKnown("the API", properties, []string{"AccessLogSettings", "Auth", "DefaultRouteSettings", "Description", "StageName", "Tags"}); err != nil {
		t.Error(err)
	}
	logs := properties["AccessLogSettings"]
	wantAccessLog(t, plain(&logs).(doc)["Format"].(string))
	auth := properties["Auth"]
	kept, _ := plain(&auth).(doc)["Authorizers"].(doc)["KeyAuthorizer"].(doc)["Identity"].(doc)["ReauthorizeEvery"].(string)
	if lag := "**" + kept + " seconds**"; kept == "" || !bytes.Contains(readFile(t, "docs/security.md"), []byte(lag)) {
		t.Errorf("docs/security.md does not say that a revoked key may be let in for %s", lag)
	}
	wantSame(t, doc{
		"DefaultAuthorizer": "KeyAuthorizer",
		"Authorizers": doc{"KeyAuthorizer": doc{
			"AuthorizerPayloadFormatVersion": "2.0", "EnableSimpleResponses": "true", "EnableFunctionDefaultPermissions": "true",
			"FunctionArn": "!Sub ${AuthorizerFunction.Arn}:live", "Identity": doc{"Headers": []any{"Authorization"}, "ReauthorizeEvery": kept},
		}},
	}, plain(&auth).(doc))
	if f := d.function("AuthorizerFunction"); f == nil || f.folder != httpapi.AuthorizerFunction || len(f.endpoints) != 0 {
		t.Errorf("AuthorizerFunction is %+v", f)
	}
	throttle := properties["DefaultRouteSettings"]
	wantSame(t, doc{"ThrottlingRateLimit": "!Ref RateLimit", "ThrottlingBurstLimit": "!Ref BurstLimit"}, plain(&throttle).(doc))

	for _, f := range d.functions {
		events := d.resources[f.name].Properties["Events"]
		if called := len(f.endpoints) > 0; called == (f.schedule+f.queue != "" || f.folder == httpapi.AuthorizerFunction) {
			t.Errorf("%s has the endpoints %v, the schedule %q and the queue %q: it must have endpoints alone, or none", f.name, f.endpoints, f.schedule, f.queue)
		}
		if len(f.endpoints) == 0 {
			continue
		}
		for name, event := range plainEvents(t, events) {
			members := slices.Sorted(maps.Keys(event))
			if !slices.Equal(members, []string{"ApiId", "Method", "Path"}) || event["ApiId"] != "!Ref "+api {
				t.Errorf("the event %s of %s has %v, of the API %v: only ApiId, Method and Path leave it to the default authorizer", name, f.name, members, event["ApiId"])
			}
		}
	}
}

// accessLogValues are values of the access log's variables that never hold a quote or a backslash:
// API Gateway writes a variable as it is. Only error.messageString is written in quotes and
// escaped.
var accessLogValues = map[string]string{
	"$context.requestTimeEpoch": "1722268288071", "$context.requestId": "bqO8gjLvIAMEPDA=", "$context.routeKey": "GET /org/{orgId}/usageRecordGroup",
	"$context.authorizer.keyId": "e103f7cd738a927d", "$context.identity.sourceIp": "203.0.113.17", "$context.status": "429",
	"$context.responseLength": "20", "$context.responseLatency": "7", "$context.integrationStatus": "-", "$context.error.responseType": "THROTTLED",
}

// wantAccessLog wants the format to give a line of JSON, whatever message API Gateway has.
func wantAccessLog(t *testing.T, format string) {
	t.Helper()
	const message = `the "thing" is C:\wrong`
	var unknown []string
	line := regexp.MustCompile(`\$context[\w.]+`).ReplaceAllStringFunc(format, func(variable string) string {
		value, known := accessLogValues[variable]
		switch {
		case variable == "$context.error.messageString":
			return toJSON(t, message)
		case !known:
			unknown = append(unknown, variable)
		}
		return value
	})
	if len(unknown) > 0 {
		t.Errorf("the access log has %q, which may hold what breaks its JSON", unknown)
	}
	var members doc
	if err := json.Unmarshal([]byte(line), &members); err != nil || members["error"] != message || strings.Contains(line, "\n") {
		t.Errorf("%v: %s", err, line)
	}
}

// plainEvents are the Properties of a function's events.
func plainEvents(t *testing.T, node yaml.Node) map[string]doc {
	t.Helper()
	all := map[string]doc{}
	if node.IsZero() {
		return all
	}
	for name, event := range plain(&node).(doc) {
		all[name] = event.(doc)["Properties"].(doc)
	}
	return all
}

// plain is YAML with every scalar as its text, after its tag if that is one of CloudFormation's.
func plain(node *yaml.Node) any {
	switch node.Kind {
	case yaml.MappingNode:
		m := doc{}
		for i := 0; i+1 < len(node.Content); i += 2 {
			m[node.Content[i].Value] = plain(node.Content[i+1])
		}
		return m
	case yaml.SequenceNode:
		l := []any{}
		for _, element := range node.Content {
			l = append(l, plain(element))
		}
		return l
	default:
		if strings.HasPrefix(node.Tag, "!") && !strings.HasPrefix(node.Tag, "!!") {
			return node.Tag + " " + node.Value
		}
		return node.Value
	}
}

// The function of its operation, and no other function, responds to each event in events/ with 200,
// for the client in the event's authorizer context.
func TestEvents_AreServed(t *testing.T) {
	t.Parallel()
	functions := map[string]string{}
	for _, o := range httpapi.Operations() {
		functions[o.ID] = o.Function
	}
	for _, operation := range operationEvents(t) {
		t.Run(operation, func(t *testing.T) {
			t.Parallel()
			function := functions[operation]
			if function == "" {
				t.Fatal("events/ has an event of no operation")
			}
			tbl := tabletest.New(t)
			event := readEvent(t, operation)
			org := event.PathParameters["orgId"]
			a := serve(t, "http", tbl, tbl)
			a.table = tbl
			a.giveAll(t, org)
			a.give(t, org, imported(group(cmp.Or(event.PathParameters["usageRecordGroupId"], "g1"))))
			log := slog.New(slog.NewJSONHandler(&logLines{}, nil))
			api := &httpapi.API{
				Table: tbl, Log: log, Now: func() time.Time { return now }, Authenticate: lambdahost.Principal, CountUnits: table.CountUnits,
			}
			lambda := lambdahost.Handler(api.Handler(function), log)
			wantStatus := func(event any, status int) {
				payload := []byte(toJSON(t, event))
				if got, err := (overLambda{function: lambda}).invoke(t.Context(), payload); err != nil || got.status != status {
					t.Errorf("%d %s, %v, want %d", got.status, got.body, err, status)
				}
			}
			wantStatus(event, http.StatusOK)
			event.RequestContext.Authorizer = nil
			wantStatus(event, http.StatusUnauthorized)
		})
	}
}

// The authorizer's event is the same request as the list's event. The context in the list's event
// is what the authorizer returns.
func TestEvents_AuthorizersIsServed(t *testing.T) {
	t.Parallel()
	var event events.APIGatewayV2CustomAuthorizerV2Request
	if err := json.Unmarshal(readFile(t, "events/"+httpapi.AuthorizerFunction+".json"), &event); err != nil {
		t.Fatal(err)
	}
	if event.Version != "2.0" || event.Type != "REQUEST" || !slices.Equal(event.IdentitySource, []string{event.Headers["authorization"]}) {
		t.Errorf("version %s, type %s, identitySource %q", event.Version, event.Type, event.IdentitySource)
	}
	key, wellFormed := keyIn(request{}.authorized(event.Headers["authorization"]))
	if !wellFormed {
		t.Fatalf("%s is no key", key)
	}
	tbl := tabletest.New(t)
	authorizer := lambdahost.Authorizer(&auth.Authenticator{Records: tbl, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return now }})
	if answer, err := authorizer(t.Context(), event); err != nil || answer.IsAuthorized {
		t.Errorf("a key that there is not: %v, %v", answer, err)
	}
	if err := tbl.AddAPIKey(t.Context(), recordOf(key, event.PathParameters["orgId"], allScopes)); err != nil {
		t.Fatal(err)
	}
	answer, err := authorizer(t.Context(), event)
	if err != nil || !answer.IsAuthorized {
		t.Errorf("%v, %v", answer, err)
	}
	for _, operation := range operationEvents(t) {
		authorizer := readEvent(t, operation).RequestContext.Authorizer
		if authorizer == nil {
			t.Fatalf("events/%s.json has no authorizer's context", operation)
		}
		wantSame(t, answer.Context, authorizer.Lambda)
	}
}
