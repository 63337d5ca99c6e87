// Command schedule looks every 5 minutes for usage that is due to be reported, as a Lambda
// function.
package main

import "github.com/marketmeter/marketmeter/internal/lambdahost/workerhost"

func main() { workerhost.RunSchedule() }
