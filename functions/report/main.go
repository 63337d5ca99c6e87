// Command report serves POST /org/{orgId}/entitlement/{entitlementId}/usageRecordGroup as a Lambda
// function.
package main

import "github.com/marketmeter/marketmeter/internal/lambdahost/tablehost"

func main() { tablehost.Run("report") }
