// Command batchcreate serves POST /org/{orgId}/batchCreateUsageRecordGroups as a Lambda
// function.
package main

import "github.com/marketmeter/marketmeter/internal/lambdahost/tablehost"

func main() { tablehost.Run("batchcreate") }
