// Command plan makes the reports of closed hours, as a Lambda function.
package main

import "github.com/marketmeter/marketmeter/internal/lambdahost/workerhost"

func main() { workerhost.RunPlan() }
