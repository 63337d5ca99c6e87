// Command connection serves GET, PUT and DELETE /org/{orgId}/connection/{partner} as a Lambda
// function.
package main

import "github.com/marketmeter/marketmeter/internal/lambdahost/connecthost"

func main() { connecthost.Run() }
