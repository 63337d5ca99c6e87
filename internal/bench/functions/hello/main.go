// Command hello is the smallest possible Lambda function in Go. The start of our functions is
// compared with it.
package main

import "github.com/aws/aws-lambda-go/lambda"

func main() { lambda.Start(func() (string, error) { return "hello", nil }) }
