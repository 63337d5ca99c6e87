// Package tablehost runs what needs the table as a Lambda function: it adds the AWS SDK to
// lambdahost.
package tablehost

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/marketmeter/marketmeter/internal/auth"
	"github.com/marketmeter/marketmeter/internal/dynamoclient"
	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/lambdahost"
	"github.com/marketmeter/marketmeter/internal/table"
)

// Run serves the operations of the named function, over the table, until Lambda ends the process.
func Run(function string) {
	log := lambdahost.Log()
	lambdahost.Serve(API(log), log, func(a *httpapi.API) http.Handler { return a.Handler(function) })
}

// API returns the API over the table, by the environment that the stack sets.
func API(log *slog.Logger) *httpapi.API {
	return &httpapi.API{
		Table:                Open(log, dynamoclient.AnswerTimeout),
		CountUnits:           table.CountUnits,
		SandboxURL:           os.Getenv("SANDBOX_URL"), // no stack sets it
		OwnRoleOrganizations: OwnRoleOrganizations(os.Getenv),
	}
}

// OwnRoleOrganizations are the organizations that may report to AWS with the role of the functions.
func OwnRoleOrganizations(getenv func(string) string) []string {
	return strings.FieldsFunc(getenv("OWN_ROLE_ORGANIZATIONS"), func(c rune) bool { return c == ',' })
}

// Credentials are those of the function's role, which Lambda passes in the environment. They do
// not change while the process lives.
func Credentials() aws.CredentialsProvider {
	return credentials.NewStaticCredentialsProvider(
		os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY"), os.Getenv("AWS_SESSION_TOKEN"))
}

// authorizerAnswer is how long the authorizer waits for a response, which takes milliseconds. It
// has 5 seconds in all: if a connection broke unnoticed while Lambda had the process frozen, that
// must cost an attempt, not the request.
const authorizerAnswer = 1500 * time.Millisecond

// RunAuthorizer serves as the Lambda authorizer of the HTTP API until Lambda ends the process.
func RunAuthorizer() {
	log := lambdahost.Log()
	lambda.Start(lambdahost.Authorizer(&auth.Authenticator{Records: Open(log, authorizerAnswer), Log: log, Now: lambdahost.Now}))
}

// Open opens and warms the table that TABLE_NAME names, at DYNAMODB_ENDPOINT if that is not empty.
// If TABLE_NAME is not set, the function exits at its start, which Lambda reports.
func Open(log *slog.Logger, answer time.Duration) *table.Table {
	name := os.Getenv("TABLE_NAME")
	if name == "" {
		log.Error("TABLE_NAME is not set: it must name the DynamoDB table")
		os.Exit(1)
	}
	t := table.New(dynamoclient.New(dynamoclient.Options{
		Region:      os.Getenv("AWS_REGION"),
		Endpoint:    os.Getenv("DYNAMODB_ENDPOINT"),
		Transport:   lambdahost.Traced(dynamoclient.NewTransport(answer), os.Getenv("AWS_XRAY_DAEMON_ADDRESS"), log),
		Credentials: Credentials(),
	}), name)
	Warm(context.Background(), t, log)
	return t
}

// warmTimeout is the max delay of a start if DynamoDB can't be reached.
const warmTimeout = time.Second

// Warm makes one call to the table, so that the first request finds an open connection, with TLS
// and DNS done, and the code of a call in memory. It returns when the call has ended: Lambda
// freezes a process that waits for its first event, and a half-open connection would not survive
// that.
//
// It never fails. Any response of DynamoDB is enough, even a refusal. If DynamoDB can't be reached,
// the first request will report it better.
func Warm(ctx context.Context, t *table.Table, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, warmTimeout)
	defer cancel()
	if err := t.Ping(ctx); err != nil {
		log.Warn("the table was not reached at the start", "error", err.Error())
	}
}
