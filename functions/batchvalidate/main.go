// Command batchvalidate answers POST /org/{orgId}/batchValidateUsageRecordGroups as a Lambda function.
package main

import (
	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/lambdahost"
)

func main() { lambdahost.Run(httpapi.BatchValidate) }
