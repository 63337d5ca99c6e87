package apitest

import (
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/marketmeter/marketmeter"
	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/lambdahost"
	"github.com/marketmeter/marketmeter/internal/lambdahost/tablehost"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// The policies in template.yaml allow exactly what the functions do. Each edit of the template that
// would change this is reported.
func TestPolicies_AllowWhatFunctionsDo(t *testing.T) {
	t.Parallel()
	requests := requestsOfFunctions(t)
	for name, asked := range requestsOfWorkers(t) {
		requests[name] = append(requests[name], asked...)
	}
	for _, problem := range policyProblems(marketmeter.Template, requests) {
		t.Error(problem)
	}
	for _, c := range policyEdits {
		text := string(marketmeter.Template)
		if !strings.Contains(text, c.old) {
			t.Errorf("%s: the template has no %q any more", c.what, c.old)
			continue
		}
		problems := strings.Join(policyProblems([]byte(strings.Replace(text, c.old, c.new, 1)), requests), "\n")
		if !strings.Contains(problems, c.told) {
			t.Errorf("%s is not told: %q", c.what, problems)
		}
	}
}

// policyProblems reports, by function, where the policies of a template differ from the requests.
func policyProblems(template []byte, requests map[string][]tabletest.Request) (problems []string) {
	d, err := readDeployment(template)
	if err != nil {
		return []string{err.Error()}
	}
	for name, asked := range requests {
		for _, request := range asked {
			if lacking := d.lacks(name, request); lacking != "" {
				problems = append(problems, fmt.Sprintf("%s asked DynamoDB, %s", name, lacking))
			}
		}
	}
	for _, f := range d.functions {
		for i, p := range f.permissions {
			if slices.ContainsFunc(f.permissions[:i], func(q permission) bool { return reflect.DeepEqual(q, p) }) {
				problems = append(problems, fmt.Sprintf("the policy of %s allows %s twice", f.name, p))
			}
			if !strings.HasPrefix(p.action, "dynamodb:") {
				continue // TestOperations_TemplateHasWhatTheyNeed compares it with Operation.Calls
			}
			done, used := false, map[string]bool{}
			for _, request := range requests[f.name] {
				for _, access := range request.Accesses {
					if !p.allows(access) {
						continue
					}
					done = true
					for _, name := range access.Attributes {
						used[name] = true
					}
					for _, pattern := range p.leading {
						used[pattern] = used[pattern] || slices.ContainsFunc(access.Partitions, func(partition string) bool {
							// The number of parts must be equal: partitions such as ORG#acme#PAGE#1
							// do not count as a use of ORG#*.
							return isLike(partition, pattern) && strings.Count(partition, "#") == strings.Count(pattern, "#")
						})
					}
				}
			}
			if !done {
				problems = append(problems, fmt.Sprintf("the policy of %s allows %s, which it never does", f.name, p))
			}
			for _, pattern := range p.leading {
				if !used[pattern] {
					problems = append(problems, fmt.Sprintf("the policy of %s allows %s in partitions %s, where it never does", f.name, p, pattern))
				}
			}
			for _, name := range p.attributes {
				if !used[name] {
					problems = append(problems, fmt.Sprintf("the policy of %s allows %s of the attribute %s, where it never does", f.name, p, name))
				}
			}
			if p.attributes != nil && (p.returns == nil || slices.Contains(p.returns, "ALL_OLD") || slices.Contains(p.returns, "ALL_NEW")) {
				problems = append(problems, fmt.Sprintf("the policy of %s allows %s of some attributes, and has it return all", f.name, p))
			}
			// The table also holds the keys; the indexes hold only groups.
			if p.leading == nil && p.resource == "table" && p.action != "dynamodb:DescribeTable" {
				problems = append(problems, fmt.Sprintf("the policy of %s allows %s in every partition", f.name, p))
			}
		}
	}
	return problems
}

// requestsOfFunctions sends what the operations show, in the way of AWS. It returns the requests to
// DynamoDB by the function that made them.
func requestsOfFunctions(t *testing.T) map[string][]tabletest.Request {
	t.Helper()
	a := newAPIOver(t, "lambda", tabletest.ShortPages(tabletest.Watched(t), 2))
	requests := map[string][]tabletest.Request{}
	functions := map[string]string{} // by operation
	for _, f := range deployed().functions {
		for _, o := range httpapi.Operations() {
			if o.Function == f.folder {
				functions[o.ID] = f.name
			}
		}
		requests[f.name] = requestsOfStart(t, a, f.folder)
	}
	do := func(r request) answer {
		t.Helper()
		got := a.do(t, r)
		requests["AuthorizerFunction"] = append(requests["AuthorizerFunction"], got.authentication...)
		if f, _ := routed(r.method, r.path); f != nil {
			requests[f.name] = append(requests[f.name], got.operation...)
		}
		return got
	}
	for _, o := range operations() {
		org := o.id
		a.give(t, org, o.given...)
		seen := len(requests[functions[o.id]])
		for _, e := range o.shows {
			if e.request.operator != nil {
				a.give(t, org, e.request)
			} else if got := do(e.request.of(org)); got.status != e.status {
				t.Errorf("%s: in shows, %s %s?%s: %d %s, want %d", o.id, e.request.method, e.request.path, e.request.query, got.status, got.body, e.status)
			}
		}
		if o.usesTable() == (len(requests[functions[o.id]]) == seen) {
			t.Errorf("%s: its declaration shows %d requests to DynamoDB", o.id, len(requests[functions[o.id]])-seen)
		}
	}
	if !slices.ContainsFunc(requests["ListFunction"], func(r tabletest.Request) bool { return len(r.StartKey) > 0 }) {
		t.Error("no list went on from a start key")
	}
	list := request{method: "GET", path: listPath("acme")}
	expired := a.newKey(t, "acme", auth.Read, func(r *auth.Record) { r.ExpiryTime = now })
	for _, r := range []request{
		list.authorized(""), list.authorized("Key mm_"), list.with(auth.New()), list.with(expired), list.with(a.newKey(t, "other", allScopes)),
		list.with(a.newKey(t, "acme", auth.Config)),
	} {
		if got := do(r); got.status < 400 {
			t.Errorf("status %d", got.status)
		}
	}
	a.clock.set(now.Add(time.Hour)) // the next hour of use
	want(t, do(list), http.StatusOK)
	return requests
}

// requestsOfStart are those that the function in that folder makes at its start, if it has a table.
func requestsOfStart(t *testing.T, a *api, folder string) []tabletest.Request {
	t.Helper()
	if !hasTable(folder) {
		return nil
	}
	ctx, requests := tabletest.Record(t.Context())
	tablehost.Warm(ctx, a.table, slog.New(slog.DiscardHandler))
	if len(requests()) != 1 {
		t.Errorf("%d requests at the start of %s", len(requests()), folder)
	}
	return requests()
}

// hasTable reports whether the function in that folder has access to the table.
func hasTable(folder string) bool {
	return slices.ContainsFunc(lambdahost.Functions(), func(f lambdahost.Function) bool { return f.Name == folder && len(f.Table) > 0 })
}

// policyEdits are edits of the template that each make a policy wrong, and the expected report.
var policyEdits = []struct{ what, old, new, told string }{
	{"an address for each function", "    Tracing: Active\n", "    Tracing: Active\n    FunctionUrlConfig: {AuthType: NONE}\n", "FunctionUrlConfig, which is not checked here"},
	{"a role that others may assume", "CodeUri: functions/list\n", "CodeUri: functions/list\n      AssumeRolePolicyDocument: {}\n", "AssumeRolePolicyDocument, which is not checked here"},
	{"a queue that may be sent to", "CodeUri: functions/list\n", "CodeUri: functions/list\n      DeadLetterQueue: {Type: SQS}\n", "DeadLetterQueue, which is not checked here"},
	{"an action more", "Action: dynamodb:GetItem\n", "Action: [dynamodb:GetItem, dynamodb:DeleteItem]\n", "AuthorizerFunction allows dynamodb:DeleteItem on table, which it never does"},
	{"an action less", "[dynamodb:Query, dynamodb:GetItem, dynamodb:PutItem]", "[dynamodb:Query, dynamodb:GetItem]", "ListFunction asked DynamoDB, which the policy of ListFunction does not allow: dynamodb:PutItem on table"},
	{"the noting of a use less", "Action: dynamodb:UpdateItem\n", "Action: dynamodb:GetItem\n", "AuthorizerFunction asked"},
	{"the attribute of a use less", "[PK, SK, lastUsedTime]", "[PK, SK]", "AuthorizerFunction asked"},
	{"an attribute more", "[PK, SK, lastUsedTime]", "[PK, SK, lastUsedTime, scopes]", "of the attribute scopes, where it never does"},
	{"all attributes returned", "[NONE, UPDATED_OLD, UPDATED_NEW]", "[NONE, ALL_NEW]", "has it return all"},
	{"another action", "Action: dynamodb:Query\n", "Action: dynamodb:GetItem\n", "ListFunction asked"},
	{"an index more", "                - !Sub ${Table.Arn}/index/byBuyer\n", "                - !Sub ${Table.Arn}/index/byBuyer\n                - !Sub ${Table.Arn}/index/byProduct\n", "ListFunction allows dynamodb:Query on table/index/byProduct"},
	{"an index less", "                - !Sub ${Table.Arn}/index/byTime\n", "", "dynamodb:Query on table/index/byTime"},
	{"the table beside its indexes", "                - !Sub ${Table.Arn}/index/byTime\n", "                - !Sub ${Table.Arn}/index/byTime\n                - !GetAtt Table.Arn\n", "ListFunction allows dynamodb:Query on table"},
	{"every index", "${Table.Arn}/index/byTime", "${Table.Arn}/index/*", "Resource"},
	{"every resource", "Resource: !GetAtt Table.Arn", `Resource: "*"`, "Resource"},
	{"every action", "Action: dynamodb:Query", "Action: dynamodb:*", "Action"},
	{"every action of a kind", "Action: dynamodb:Query", "Action: dynamodb:Q*", "Action"},
	{"all but an action", "Action: dynamodb:Query", "NotAction: dynamodb:Scan", "NotAction"},
	{"a managed policy", "      Policies:\n", "      Policies:\n        - AmazonDynamoDBFullAccess\n", "Policies"},
	{"a policy by its name alone", "      Policies:\n        - Version: \"2012-10-17\"\n", "      Policies: AmazonDynamoDBFullAccess\n      Tags:\n        - Version: \"2012-10-17\"\n", "Policies"},
	{"a policy template", "      Policies:\n", "      Policies:\n        - DynamoDBCrudPolicy:\n            TableName: !Ref Table\n", "Policies"},
	{"a role", "CodeUri: functions/list\n", "CodeUri: functions/list\n      Role: arn:aws:iam::123456789012:role/admin\n", "Role"},
	{"a URL past the API", "CodeUri: functions/list\n", "CodeUri: functions/list\n      FunctionUrlConfig: {AuthType: NONE}\n", "FunctionUrlConfig"},
	{"a write by what only reads", "Action: [dynamodb:BatchGetItem, dynamodb:Query]\n", "Action: [dynamodb:BatchGetItem, dynamodb:Query, dynamodb:PutItem]\n", "BatchValidateFunction allows dynamodb:PutItem on table, which it never does"},
	{"a policy of the stack", "\nResources:\n", "\nResources:\n  More:\n    Type: AWS::IAM::Policy\n", "AWS::IAM::Policy"},
	{"other partitions", `["KEY#*"]`, `["ORG#*"]`, "AuthorizerFunction asked"},
	{"partitions more", `["KEY#*"]`, `["KEY#*", "ORG#*"]`, "in partitions ORG#*"},
	{"every partition", `["KEY#*"]`, `["*"]`, "leading key"},
	{"pages of any organization's", `["ORG#*#PAGE#*"]`, `["ORG#*"]`, "in partitions ORG#*, where it never does"},
	{"no condition", "              Condition: {ForAllValues:StringLike: {dynamodb:LeadingKeys: [\"KEY#*\"]}}\n", "", "in every partition"},
	{"another condition", "ForAllValues:StringLike", "ForAnyValue:StringLike", "Condition"},
	{"the ping of another partition", "[PING]", "[PONG]", "AuthorizerFunction asked"},
	{"partitions that begin as the ping's", "[PING]", `["PING*"]`, "leading key"},
	{"partitions beside the ping's", "[PING]", `[PING, "ORG#*"]`, "in partitions ORG#*"},
	{"the gate of another partition", "[REPORTING]", "[PING]", "RetryFunction asked"},
	{"hours that plan may delete", "Action: [dynamodb:GetItem, dynamodb:PutItem]\n              Resource: !GetAtt Table.Arn\n              Condition: {ForAllValues:StringLike: {dynamodb:LeadingKeys: [\"ORG#*#BILL#*\"]}}", "Action: [dynamodb:GetItem, dynamodb:PutItem, dynamodb:DeleteItem]\n              Resource: !GetAtt Table.Arn\n              Condition: {ForAllValues:StringLike: {dynamodb:LeadingKeys: [\"ORG#*#BILL#*\"]}}", "PlanFunction allows dynamodb:DeleteItem on table, which it never does"},
	{"records of a day that submit may not write", "Action: dynamodb:PutItem\n              Resource: !GetAtt Table.Arn\n              Condition: {ForAllValues:StringLike: {dynamodb:LeadingKeys: [\"ORG#*#DAILY#*\"]}}", "Action: dynamodb:PutItem\n              Resource: !GetAtt Table.Arn\n              Condition: {ForAllValues:StringLike: {dynamodb:LeadingKeys: [\"ORG#*#REPORT\"]}}", "SubmitFunction asked"},
	{"every action of another service", "Action: sts:AssumeRole", "Action: sts:*", "Action"},
	{"a denial", "Effect: Allow", "Effect: Deny", "Effect"},
	{"a statement twice", "Resource:\n                - !Sub ${Table.Arn}/index/byTime\n", "Resource:\n                - !Sub ${Table.Arn}/index/byTime\n                - !Sub ${Table.Arn}/index/byTime\n", "twice"},
}
