// Command get serves GET /org/{orgId}/usageRecordGroup/{usageRecordGroupId} as a Lambda
// function.
package main

import "github.com/marketmeter/marketmeter/internal/lambdahost/tablehost"

func main() { tablehost.Run("get") }
