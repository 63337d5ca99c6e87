// Command configversions serves GET /org/{orgId}/usageMeteringConfigInfo/versions as a Lambda
// function.
package main

import "github.com/marketmeter/marketmeter/internal/lambdahost/tablehost"

func main() { tablehost.Run("configversions") }
