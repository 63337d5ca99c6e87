// Command conventional is the list operation as a Lambda function as it is usually written. An
// invocation of our list function is compared with it.
package main

import (
	"context"
	"log"
	"os"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/awslabs/aws-lambda-go-api-proxy/httpadapter"

	"github.com/marketmeter/marketmeter/internal/bench/conventional"
)

func main() {
	c, err := config.LoadDefaultConfig(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	handler := conventional.Handler(dynamodb.NewFromConfig(c), os.Getenv("TABLE_NAME"))
	lambda.Start(httpadapter.NewV2(handler).ProxyWithContext)
}
