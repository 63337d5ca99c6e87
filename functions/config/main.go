// Command config serves GET, PUT and PATCH /org/{orgId}/usageMeteringConfigInfo as a Lambda
// function.
package main

import "github.com/marketmeter/marketmeter/internal/lambdahost/tablehost"

func main() { tablehost.Run("config") }
