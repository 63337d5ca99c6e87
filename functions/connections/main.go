// Command connections serves GET /org/{orgId}/connection as a Lambda function.
package main

import "github.com/marketmeter/marketmeter/internal/lambdahost/tablehost"

func main() { tablehost.Run("connections") }
