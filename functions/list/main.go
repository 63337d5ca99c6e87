// Command list answers GET /org/{orgId}/usageRecordGroup as a Lambda function.
package main

import (
	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/lambdahost"
)

func main() { lambdahost.Run(httpapi.ListGroups) }
