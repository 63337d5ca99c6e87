// Command retry serves POST /org/{orgId}/usageRecordGroup/{usageRecordGroupId}/retry as a Lambda
// function.
package main

import "github.com/marketmeter/marketmeter/internal/lambdahost/tablehost"

func main() { tablehost.Run("retry") }
