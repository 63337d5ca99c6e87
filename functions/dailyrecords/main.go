// Command dailyrecords serves GET /org/{orgId}/partner/{partner}/usageMeteringDailyRecord as a
// Lambda function.
package main

import "github.com/marketmeter/marketmeter/internal/lambdahost/tablehost"

func main() { tablehost.Run("dailyrecords") }
