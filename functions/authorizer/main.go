// Command authorizer tells API Gateway who sends a request, by the key in its Authorization header.
package main

import "github.com/marketmeter/marketmeter/internal/lambdahost/tablehost"

func main() { tablehost.RunAuthorizer() }
