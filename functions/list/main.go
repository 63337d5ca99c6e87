// Command list serves GET /org/{orgId}/usageRecordGroup as a Lambda function.
package main

import "github.com/marketmeter/marketmeter/internal/lambdahost/tablehost"

func main() { tablehost.Run("list") }
