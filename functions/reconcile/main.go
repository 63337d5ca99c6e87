// Command reconcile compares once a day what was billed with what Azure has processed, as a Lambda
// function.
package main

import "github.com/marketmeter/marketmeter/internal/lambdahost/connecthost"

func main() { connecthost.RunReconcile() }
