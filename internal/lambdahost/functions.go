package lambdahost

import (
	"slices"
	"time"

	"github.com/marketmeter/marketmeter/internal/httpapi"
)

// Function is a Lambda function: what template.yaml must declare of it.
type Function struct {
	httpapi.Function
	Does string // what it does, if it serves no operation

	// Of a worker, what calls it: the messages of a queue in template.yaml, or a schedule.
	Queue    string
	Schedule string
}

// Functions returns the functions of the API, then the workers. docs/security.md and rows of
// template.yaml are generated from it (make generate), and TestOperations in internal/apitest
// checks the rest against it.
func Functions() (all []Function) {
	for _, f := range httpapi.Functions() {
		does := ""
		if f.Name == httpapi.AuthorizerFunction {
			does = "Identifies the caller of a request."
		}
		all = append(all, Function{Function: f, Does: does})
	}
	return append(all, workers()...)
}

// workerTimeout is a sixth of the visibility timeout of the queues, as AWS asks for.
const workerTimeout = 2 * time.Minute

// workers are the functions that report usage.
func workers() []Function {
	return []Function{
		{
			Function: httpapi.Function{
				Name: "schedule", Memory: 512, Timeout: workerTimeout,
				Table: append(work(),
					// It notes on which table reporting has begun.
					httpapi.Access{Actions: []string{"UpdateItem"}, Partitions: "REPORTING"},
					httpapi.Access{Actions: []string{"BatchGetItem", "Query"}, Partitions: "ORG#*"},
				),
				Calls: sends(),
			},
			Does:     "Finds what is due to be reported, every 5 minutes.",
			Schedule: "rate(5 minutes)",
		},
		{
			// An hour may have 100,000 groups, read in lists of 5,000.
			Function: httpapi.Function{
				Name: "plan", Memory: 1024, Timeout: workerTimeout,
				Table: append(work(),
					httpapi.Access{Actions: []string{"BatchGetItem", "Query", "UpdateItem"}, Partitions: "ORG#*"},
					httpapi.Access{Actions: []string{"GetItem", "PutItem"}, Partitions: "ORG#*#BILL#*"},
					httpapi.Access{Actions: []string{"PutItem"}, Partitions: "ORG#*#REPORT"},
				),
				Calls: append(sends(), receives("PlanQueue")...),
			},
			Does:  "Makes the reports of closed hours, and gives their groups what became of them.",
			Queue: "PlanQueue",
		},
		{
			// Requests are signed and their responses read: CPU comes with memory.
			Function: httpapi.Function{
				Name: "submit", Memory: 1024, Timeout: workerTimeout,
				Table: append(work(),
					httpapi.Access{Actions: []string{"GetItem", "BatchGetItem", "Query"}, Partitions: "ORG#*"},
					httpapi.Access{Actions: []string{"PutItem", "UpdateItem"}, Partitions: "ORG#*#BILL#*"},
					httpapi.Access{Actions: []string{"PutItem"}, Partitions: "ORG#*#DAILY#*"},
				),
				Calls: slices.Concat(sends(), receives("SubmitQueue"), httpapi.MarketplaceCalls()),
			},
			Does:  "Sends reports to the marketplaces.",
			Queue: "SubmitQueue",
		},
		{
			// It stops by itself before its time is over.
			Function: httpapi.Function{
				Name: "reconcile", Memory: 512, Timeout: 15 * time.Minute,
				Table: append(work(),
					httpapi.Access{Actions: []string{"GetItem", "BatchGetItem", "UpdateItem"}, Partitions: "ORG#*"},
					httpapi.Access{Actions: []string{"Query", "PutItem"}, Partitions: "ORG#*#BILL#*"},
					httpapi.Access{Actions: []string{"Query", "PutItem"}, Partitions: "ORG#*#DAILY#*"},
					httpapi.Access{Actions: []string{"PutItem"}, Partitions: "ORG#*#REPORT"},
				),
				Calls: slices.DeleteFunc(httpapi.MarketplaceCalls(), func(c httpapi.Call) bool { return c.Action != "secretsmanager:GetSecretValue" }),
			},
			Does:     "Compares what was billed with what Azure has processed, once a day.",
			Schedule: "rate(1 day)",
		},
	}
}

// work is what each worker does first: it finds out whether reporting is paused, whether the table
// is the one that it began on, and what waits.
func work() []httpapi.Access {
	return []httpapi.Access{
		{Actions: []string{"GetItem"}, Partitions: "PING"},
		{Actions: []string{"GetItem"}, Partitions: "REPORTING"},
		{Actions: []string{"DescribeTable"}},
		{Actions: []string{"Query"}, Indexes: []string{"byWork"}},
	}
}

// sends are the calls by which a worker enqueues hints.
func sends() []httpapi.Call {
	return []httpapi.Call{{Action: "sqs:SendMessage", Resource: "PlanQueue.Arn"}, {Action: "sqs:SendMessage", Resource: "SubmitQueue.Arn"}}
}

// receives are the calls that an event source mapping makes with the role of its function.
func receives(queue string) (all []httpapi.Call) {
	for _, action := range []string{"ReceiveMessage", "DeleteMessage", "GetQueueAttributes"} {
		all = append(all, httpapi.Call{Action: "sqs:" + action, Resource: queue + ".Arn"})
	}
	return all
}
