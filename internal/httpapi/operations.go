package httpapi

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/marketmeter/marketmeter/internal/auth"
)

// Operation is an operation of the API. Every path is one of an organization, {orgId}.
type Operation struct {
	// ID is the public API's name of the operation. It is the operationId in api/openapi.yaml, the
	// log's operation, and the name of a real event in events/.
	ID     string
	Method string
	Path   string
	Scopes auth.Scopes // one of them is enough

	// Function is the Lambda function that serves the operation: a folder of functions/. A function
	// has the max memory and timeout of its operations, and the access of all of them.
	Function string
	Memory   int           // in MB; 0 is defaultMemory
	Timeout  time.Duration // 0 is defaultTimeout
	Table    []Access
	Calls    []Call // of other services of AWS

	handle func(a *API, w http.ResponseWriter, r *http.Request) error
}

// Access is what an operation does to the table.
type Access struct {
	Actions    []string // of DynamoDB, such as GetItem
	Indexes    []string // nil is the table itself
	Partitions string   // how the partition keys begin: "ORG#*"; empty for indexes, which hold only groups
	Attributes []string // the only attributes that the actions may name; nil is any
}

// Call is an action of another service of AWS than DynamoDB.
type Call struct {
	Action   string // of IAM, such as sts:AssumeRole
	Resource string // as in a !Sub of template.yaml
}

// Operations is the whole API. docs/security.md and rows of template.yaml are generated from it
// (make generate), and TestOperations in internal/apitest checks the rest against it.
func Operations() []Operation {
	return slices.Concat([]Operation{
		{
			ID: "listUsageRecordGroups", Method: "GET", Path: "/org/{orgId}/usageRecordGroup", Scopes: auth.Read,
			// API Gateway waits for 30 s.
			Function: "list", Memory: 1024, Timeout: 29 * time.Second, Table: []Access{
				{Actions: []string{"Query"}, Indexes: []string{"byTime", "byStatus", "byBuyer", "byEntitlement"}},
				{Actions: []string{"Query", "GetItem", "PutItem"}, Partitions: "ORG#*#PAGE#*"},
			},
			handle: (*API).listGroups,
		},
		{
			ID: "deleteUsageRecordGroup", Method: "DELETE", Path: "/org/{orgId}/usageRecordGroup/{usageRecordGroupId}", Scopes: auth.Write,
			Function: "delete", Table: []Access{{Actions: []string{"UpdateItem"}, Partitions: "ORG#*"}},
			handle: (*API).deleteGroup,
		},
		{
			ID: "getUsageRecordGroup", Method: "GET", Path: "/org/{orgId}/usageRecordGroup/{usageRecordGroupId}", Scopes: auth.Read,
			Function: "get", Table: []Access{{Actions: []string{"GetItem"}, Partitions: "ORG#*"}},
			handle: (*API).getGroup,
		},
		{
			ID: "retryUsageRecordGroup", Method: "POST", Path: "/org/{orgId}/usageRecordGroup/{usageRecordGroupId}/retry", Scopes: auth.Write,
			Function: "retry", Memory: 1024,
			Table: []Access{
				{Actions: []string{"GetItem", "BatchGetItem", "Query", "UpdateItem"}, Partitions: "ORG#*"},
				{Actions: []string{"GetItem"}, Partitions: "REPORTING"},
			},
			handle: (*API).retryGroup,
		},
		{
			ID: "reportUsageRecordGroup", Method: "POST", Path: "/org/{orgId}/entitlement/{entitlementId}/usageRecordGroup", Scopes: auth.Write,
			Function: "report", Memory: 1024, Table: []Access{{Actions: []string{"PutItem", "UpdateItem", "GetItem", "BatchGetItem", "Query"}, Partitions: "ORG#*"}},
			handle: (*API).reportGroup,
		},
		{
			ID: "batchCreateUsageRecordGroups", Method: "POST", Path: "/org/{orgId}/batchCreateUsageRecordGroups", Scopes: auth.Write,
			// A thousand groups, in one partition of each index. API Gateway waits for 30 s.
			Function: "batchcreate", Memory: 1024, Timeout: 29 * time.Second,
			Table:  []Access{{Actions: []string{"PutItem", "UpdateItem", "GetItem", "BatchGetItem", "Query"}, Partitions: "ORG#*"}},
			handle: (*API).batchCreateGroups,
		},
		{
			ID: "batchValidateUsageRecordGroups", Method: "POST", Path: "/org/{orgId}/batchValidateUsageRecordGroups", Scopes: auth.Read | auth.Write,
			Function: "validate", Memory: 1024, Table: []Access{{Actions: []string{"BatchGetItem", "Query"}, Partitions: "ORG#*"}},
			handle: (*API).validateGroups,
		},
		{
			ID: "getUsageMeteringConfigInfo", Method: "GET", Path: "/org/{orgId}/usageMeteringConfigInfo", Scopes: auth.Read | auth.Config,
			Function: "config", Memory: 1024, Table: []Access{{Actions: []string{"Query"}, Partitions: "ORG#*"}},
			handle: (*API).getConfig,
		},
		{
			ID: "replaceUsageMeteringConfigInfo", Method: "PUT", Path: "/org/{orgId}/usageMeteringConfigInfo", Scopes: auth.Config,
			// Writers that collide retry until this time is nearly over.
			Function: "config", Memory: 1024, Timeout: 15 * time.Second, Table: []Access{{Actions: []string{"Query", "PutItem"}, Partitions: "ORG#*"}},
			handle: (*API).putConfig,
		},
		{
			ID: "updateUsageMeteringConfigInfo", Method: "PATCH", Path: "/org/{orgId}/usageMeteringConfigInfo", Scopes: auth.Config,
			Function: "config", Memory: 1024, Timeout: 15 * time.Second, Table: []Access{{Actions: []string{"Query", "PutItem"}, Partitions: "ORG#*"}},
			handle: (*API).patchConfig,
		},
		{
			ID: "listEntitlements", Method: "GET", Path: "/org/{orgId}/entitlement", Scopes: auth.Read,
			// All entitlements of the organization are read, and sorted in memory.
			Function: "entitlements", Memory: 1024, Timeout: 29 * time.Second, Table: []Access{{Actions: []string{"Query"}, Partitions: "ORG#*"}},
			handle: (*API).listEntitlements,
		},
		{
			ID: "getEntitlement", Method: "GET", Path: "/org/{orgId}/entitlement/{entitlementId}", Scopes: auth.Read,
			Function: "entitlement", Table: []Access{{Actions: []string{"GetItem"}, Partitions: "ORG#*"}},
			handle: (*API).getEntitlement,
		},
		{
			ID: "putEntitlement", Method: "PUT", Path: "/org/{orgId}/entitlement/{entitlementId}", Scopes: auth.Config,
			// Groups of the entitlement are read when its marketplace identifiers change.
			Function: "entitlement", Memory: 1024, Timeout: 29 * time.Second, Table: []Access{
				{Actions: []string{"GetItem", "PutItem", "DeleteItem"}, Partitions: "ORG#*"},
				{Actions: []string{"Query"}, Partitions: "ORG#*#BILL#*"},
				{Actions: []string{"Query"}, Indexes: []string{"byEntitlement"}},
			},
			handle: (*API).putEntitlement,
		},
		{
			ID: "deleteEntitlement", Method: "DELETE", Path: "/org/{orgId}/entitlement/{entitlementId}", Scopes: auth.Config,
			Function: "entitlement", Timeout: 29 * time.Second, Table: []Access{
				{Actions: []string{"GetItem", "PutItem", "DeleteItem"}, Partitions: "ORG#*"},
				{Actions: []string{"Query"}, Partitions: "ORG#*#BILL#*"},
				{Actions: []string{"Query"}, Indexes: []string{"byEntitlement"}},
			},
			handle: (*API).deleteEntitlement,
		},
		{
			ID: "listConnections", Method: "GET", Path: "/org/{orgId}/connection", Scopes: auth.Config,
			Function: "connections", Table: []Access{{Actions: []string{"Query"}, Partitions: "ORG#*"}},
			handle: (*API).listConnections,
		},
	}, ConnectionOperations(), []Operation{
		{
			ID: "listBillableMetrics", Method: "GET", Path: "/org/{orgId}/billableMetric", Scopes: auth.Read,
			// All metrics of the organization are read, and sorted in memory.
			Function: "metrics", Memory: 1024, Timeout: 29 * time.Second, Table: []Access{{Actions: []string{"Query"}, Partitions: "ORG#*"}},
			handle: (*API).listMetrics,
		},
		{
			ID: "createBillableMetric", Method: "POST", Path: "/org/{orgId}/billableMetric", Scopes: auth.Config,
			Function: "metrics", Table: []Access{{Actions: []string{"PutItem"}, Partitions: "ORG#*"}},
			handle: (*API).createMetric,
		},
		{
			ID: "getBillableMetric", Method: "GET", Path: "/org/{orgId}/billableMetric/{billableMetricId}", Scopes: auth.Read,
			Function: "metric", Table: []Access{{Actions: []string{"GetItem"}, Partitions: "ORG#*"}},
			handle: (*API).getMetric,
		},
		{
			ID: "updateBillableMetric", Method: "PATCH", Path: "/org/{orgId}/billableMetric/{billableMetricId}", Scopes: auth.Config,
			Function: "metric", Memory: 1024, Table: []Access{{Actions: []string{"GetItem", "PutItem", "DeleteItem"}, Partitions: "ORG#*"}},
			handle: (*API).patchMetric,
		},
		{
			ID: "listUsageMeteringConfigInfoVersions", Method: "GET", Path: "/org/{orgId}/usageMeteringConfigInfo/versions", Scopes: auth.Read | auth.Config,
			// A version has up to 400 KB, a response up to 6 MB.
			Function: "configversions", Memory: 1024, Table: []Access{{Actions: []string{"Query"}, Partitions: "ORG#*"}},
			handle: (*API).listConfigVersions,
		},
		{
			ID: "getUsageMeteringConfigInfoVersion", Method: "GET", Path: "/org/{orgId}/usageMeteringConfigInfo/versions/{version}", Scopes: auth.Read | auth.Config,
			Function: "configversion", Table: []Access{{Actions: []string{"GetItem"}, Partitions: "ORG#*"}},
			handle: (*API).getConfigVersion,
		},
		{
			ID: "listUsageRecordReports", Method: "GET", Path: "/org/{orgId}/usageRecordReport", Scopes: auth.Read,
			Function: "recordreports", Memory: 1024, Timeout: 29 * time.Second, Table: []Access{
				{Actions: []string{"Query"}, Partitions: "ORG#*#REPORT"},
				{Actions: []string{"Query", "GetItem", "PutItem"}, Partitions: "ORG#*#PAGE#*"},
			},
			handle: (*API).listReports,
		},
		{
			ID: "listUsageMeteringDailyRecords", Method: "GET", Path: "/org/{orgId}/partner/{partner}/usageMeteringDailyRecord", Scopes: auth.Read,
			Function: "dailyrecords", Memory: 1024, Timeout: 29 * time.Second, Table: []Access{
				{Actions: []string{"Query"}, Partitions: "ORG#*#DAILY#*"},
				{Actions: []string{"Query", "GetItem", "PutItem"}, Partitions: "ORG#*#PAGE#*"},
			},
			handle: (*API).listDailyRecords,
		},
	})
}

// ConnectionOperations are those of the function connection, for a program that has no others: it
// has the marketplaces instead.
func ConnectionOperations() []Operation {
	return []Operation{
		{
			ID: "getConnection", Method: "GET", Path: "/org/{orgId}/connection/{partner}", Scopes: auth.Config,
			Function: "connection", Table: []Access{{Actions: []string{"GetItem"}, Partitions: "ORG#*"}},
			handle: (*API).getConnection,
		},
		{
			ID: "putConnection", Method: "PUT", Path: "/org/{orgId}/connection/{partner}", Scopes: auth.Config,
			// To verify the credentials takes up to 20 s. API Gateway waits for 30 s.
			Function: "connection", Memory: 1024, Timeout: 29 * time.Second, Table: []Access{{Actions: []string{"GetItem", "PutItem"}, Partitions: "ORG#*"}},
			Calls:  MarketplaceCalls(),
			handle: (*API).putConnection,
		},
		{
			ID: "deleteConnection", Method: "DELETE", Path: "/org/{orgId}/connection/{partner}", Scopes: auth.Config,
			Function: "connection", Table: []Access{{Actions: []string{"GetItem", "PutItem"}, Partitions: "ORG#*"}},
			handle: (*API).deleteConnection,
		},
	}
}

// MarketplaceCalls are the calls by which a function uses the credentials of connections.
func MarketplaceCalls() []Call {
	return []Call{
		{"sts:AssumeRole", "arn:${AWS::Partition}:iam::*:role/marketmeter*"},
		{"secretsmanager:GetSecretValue", "arn:${AWS::Partition}:secretsmanager:*:${AWS::AccountId}:secret:marketmeter/*"},
		{"aws-marketplace:BatchMeterUsage", "*"}, // no other resource exists
	}
}

// Function is a Lambda function: what template.yaml must declare of it.
type Function struct {
	Name       string // its folder in functions/
	Memory     int    // in MB
	Timeout    time.Duration
	Table      []Access
	Calls      []Call
	Operations []Operation // empty for the authorizer
}

// The values in Globals of template.yaml.
const (
	defaultMemory  = 256
	defaultTimeout = 10 * time.Second
)

// AuthorizerFunction identifies the caller before each operation.
const AuthorizerFunction = "authorizer"

// Functions returns the authorizer and the functions of Operations, in their order.
func Functions() []Function {
	all := []Function{{
		// API Gateway waits for 10 s.
		Name: AuthorizerFunction, Memory: defaultMemory, Timeout: 5 * time.Second, Table: []Access{
			{Actions: []string{"GetItem"}, Partitions: "KEY#*"},
			{Actions: []string{"UpdateItem"}, Partitions: "KEY#*", Attributes: []string{"PK", "SK", "lastUsedTime"}},
		},
	}}
	for _, o := range Operations() {
		at := slices.IndexFunc(all, func(f Function) bool { return f.Name == o.Function })
		if at < 0 {
			at = len(all)
			all = append(all, Function{Name: o.Function})
		}
		f := &all[at]
		f.Memory = max(f.Memory, cmp.Or(o.Memory, defaultMemory))
		f.Timeout = max(f.Timeout, cmp.Or(o.Timeout, defaultTimeout))
		f.Table = append(f.Table, o.Table...)
		f.Calls = append(f.Calls, o.Calls...)
		f.Operations = append(f.Operations, o)
	}
	// Each function with a table reads an item of PING, which does not exist, when it starts.
	for i := range all {
		if len(all[i].Table) > 0 {
			all[i].Table = append(all[i].Table, Access{Actions: []string{"GetItem"}, Partitions: "PING"})
		}
	}
	return all
}

// operationsOf returns the operations of the named functions, or all if none is named. It panics if
// a named function has no operation, because then its main has the wrong name.
func operationsOf(functions []string) []Operation {
	if len(functions) == 0 {
		return Operations()
	}
	var served []Operation
	for _, name := range functions {
		before := len(served)
		for _, o := range Operations() {
			if o.Function == name {
				served = append(served, o)
			}
		}
		if len(served) == before {
			panic("no operation is served by a function " + name)
		}
	}
	return served
}

// parameters returns the names of the parameters in the path.
func (o Operation) parameters() (names []string) {
	for segment := range strings.SplitSeq(o.Path, "/") {
		if name, ok := strings.CutPrefix(segment, "{"); ok {
			names = append(names, strings.TrimSuffix(name, "}"))
		}
	}
	return names
}
