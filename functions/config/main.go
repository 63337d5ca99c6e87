// Command config answers GET, PUT and PATCH /org/{orgId}/usageMeteringConfigInfo as a Lambda function.
package main

import (
	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/lambdahost"
)

func main() { lambdahost.Run(httpapi.GetConfig, httpapi.PutConfig, httpapi.PatchConfig) }
