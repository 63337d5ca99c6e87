// Command entitlement serves GET, PUT and DELETE /org/{orgId}/entitlement/{entitlementId} as a
// Lambda function.
package main

import "github.com/marketmeter/marketmeter/internal/lambdahost/tablehost"

func main() { tablehost.Run("entitlement") }
