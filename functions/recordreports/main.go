// Command recordreports serves GET /org/{orgId}/usageRecordReport as a Lambda function.
package main

import "github.com/marketmeter/marketmeter/internal/lambdahost/tablehost"

func main() { tablehost.Run("recordreports") }
