// Command metric serves GET and PATCH /org/{orgId}/billableMetric/{billableMetricId} as a Lambda
// function.
package main

import "github.com/marketmeter/marketmeter/internal/lambdahost/tablehost"

func main() { tablehost.Run("metric") }
