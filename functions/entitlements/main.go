// Command entitlements serves GET /org/{orgId}/entitlement as a Lambda function.
package main

import "github.com/marketmeter/marketmeter/internal/lambdahost/tablehost"

func main() { tablehost.Run("entitlements") }
