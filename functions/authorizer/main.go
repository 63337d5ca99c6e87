// Command authorizer identifies the caller of a request for API Gateway, by the key in its
// Authorization header.
package main

import "github.com/marketmeter/marketmeter/internal/lambdahost/tablehost"

func main() { tablehost.RunAuthorizer() }
