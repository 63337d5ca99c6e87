// Command delete answers DELETE /org/{orgId}/usageRecordGroup/{usageRecordGroupId} as a Lambda function.
package main

import (
	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/lambdahost"
)

func main() { lambdahost.Run(httpapi.DeleteGroup) }
