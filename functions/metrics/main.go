// Command metrics serves GET and POST /org/{orgId}/billableMetric as a Lambda function.
package main

import "github.com/marketmeter/marketmeter/internal/lambdahost/tablehost"

func main() { tablehost.Run("metrics") }
