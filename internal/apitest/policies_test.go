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
	"github.com/marketmeter/marketmeter/internal/lambdahost/tablehost"
	"github.com/marketmeter/marketmeter/internal/table/tabletest"
)

// The policies in template.yaml allow exactly what the functions do. Each edit of the template that
// would change this is reported.
func TestPoliciesAllowWhatFunctionsDo(t *testing.T) {
	t.Parallel()
	requests := requestsOfFunctions(t)
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
	for _, f := range deployed().functions {
		if asked := hasTable(f.folder); len(requests[f.name]) > 0 != asked {
			t.Errorf("%s made %d requests to DynamoDB: requestsOfFunctions must make it do all that it does", f.name, len(requests[f.name]))
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
			if p.leading == nil && p.resource == "table" {
				problems = append(problems, fmt.Sprintf("the policy of %s allows %s in every partition", f.name, p))
			}
		}
	}
	return problems
}

// requestsOfFunctions sends each operation in every variant that makes different requests to
// DynamoDB, in the way of AWS. It returns the requests by the function that made them.
func requestsOfFunctions(t *testing.T) map[string][]tabletest.Request {
	t.Helper()
	a := newAPIOver(t, "lambda", tabletest.ShortPages(tabletest.Watched(t), 2))
	requests := map[string][]tabletest.Request{}
	for _, f := range deployed().functions {
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
	large := doc{"metaInfo": doc{"metronomeInvoiceID": strings.Repeat("x", 380_000)}}
	a.put(t, "acme", group("g1"), group("g2", doc{"status": "INVALID"}), group("g3", large), group("g4", large), group("g5", large))
	for _, query := range []string{
		"", "limit=1", "limit=1&offset=1", "status=CREATED", "buyerId=buyer-1", "entitlementId=entitlement-1", "buyerId=buyer-1&status=CREATED",
		"entitlementId=entitlement-1&status=CREATED", "partner=AWS", "productId=product-1", "source=API", "metaInfo=%7B%22source%22%3A%22API%22%7D",
		"startDate=2024-07-01&endDate=2024-07-31", "status=REPORTED", "buyerId=nobody",
		"source=STRIPE", // a response of Query without a match
	} {
		want(t, do(request{method: "GET", path: listPath("acme"), query: query}), http.StatusOK)
	}
	if !slices.ContainsFunc(requests["ListFunction"], func(r tabletest.Request) bool { return len(r.StartKey) > 0 }) {
		t.Error("no list went on from a start key")
	}
	for _, c := range []struct {
		id, query string
		status    int
	}{
		{"g1", "creationDate=2024-07-01", http.StatusNotFound},
		{"g1", "creationDate=2024-07-28", http.StatusOK},
		{"g1", "", http.StatusBadRequest},
		{"g2", "", http.StatusOK},
		{"absent", "", http.StatusNotFound},
	} {
		want(t, do(request{method: "DELETE", path: groupPath("acme", c.id), query: c.query}), c.status)
	}
	for _, c := range []struct {
		method, body, ifMatch string
		status                int
	}{
		{"GET", "", "", http.StatusOK},
		{"PUT", `{"partnerUsageMeteringConfigs": [{"partner": "AWS"}]}`, "", http.StatusOK},
		{"GET", "", "", http.StatusOK},
		{"PATCH", `{"partnerUsageMeteringConfigs": [{"partner": "GCP"}]}`, "*", http.StatusOK},
		{"PATCH", `{}`, "", http.StatusOK},
		{"PUT", `{}`, `"never"`, http.StatusPreconditionFailed},
		{"PATCH", `{"partnerUsageMeteringConfigs": [{"partner": "NONE"}]}`, "", http.StatusBadRequest},
	} {
		r := request{method: c.method, path: configPath("acme"), body: c.body, headers: map[string]string{}}
		if c.ifMatch != "" {
			r.headers["If-Match"] = c.ifMatch
		}
		key, err := a.keys.of(t.Context(), "acme")
		if err != nil {
			t.Fatal(err)
		}
		want(t, do(r.with(key)), c.status)
	}
	for body, status := range map[string]int{`[{"records": {"cpu": 1}}]`: 200, `[{"records": {"cpu": 1}, "entitlementID": "e9"}]`: 500, `[{}]`: 500, `x`: 400} {
		want(t, do(request{method: "POST", path: validatePath("acme"), body: body}), status)
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
	return slices.ContainsFunc(httpapi.Functions(), func(f httpapi.Function) bool { return f.Name == folder && len(f.Table) > 0 })
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
	{"a policy by its name alone", "      Policies:\n        - Version: \"2012-10-17\"\n", "      Policies: AmazonDynamoDBFullAccess\n      Layers:\n        - Version: \"2012-10-17\"\n", "Policies"},
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
	{"a denial", "Effect: Allow", "Effect: Deny", "Effect"},
	{"a statement twice", "Resource:\n                - !Sub ${Table.Arn}/index/byTime\n", "Resource:\n                - !Sub ${Table.Arn}/index/byTime\n                - !Sub ${Table.Arn}/index/byTime\n", "twice"},
}
