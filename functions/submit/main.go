// Command submit sends reports to the marketplaces, as a Lambda function.
package main

import "github.com/marketmeter/marketmeter/internal/lambdahost/connecthost"

func main() { connecthost.RunSubmit() }
