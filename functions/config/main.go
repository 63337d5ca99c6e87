// Command config answers GET, PUT and PATCH /org/{orgId}/usageMeteringConfigInfo as a Lambda function.
package main

import (
	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/lambdahost/tablehost"
)

func main() { tablehost.Run(httpapi.GetConfig, httpapi.PutConfig, httpapi.PatchConfig) }
