// Package connecthost runs what uses the connections as Lambda functions: it adds the marketplaces
// to tablehost and workerhost. A function that does not import it does not have their code.
package connecthost

import (
	"net/http"
	"os"

	"github.com/aws/aws-lambda-go/lambda"

	"github.com/marketmeter/marketmeter/internal/awscall"
	"github.com/marketmeter/marketmeter/internal/httpapi"
	"github.com/marketmeter/marketmeter/internal/lambdahost"
	"github.com/marketmeter/marketmeter/internal/lambdahost/tablehost"
	"github.com/marketmeter/marketmeter/internal/lambdahost/workerhost"
	"github.com/marketmeter/marketmeter/internal/reporting"
	"github.com/marketmeter/marketmeter/internal/reporting/connect"
)

// Run serves the operations of the function connection until Lambda ends the process. It has no
// others: with all of them and the marketplaces, the function would be over 10 MB.
func Run() {
	log := lambdahost.Log()
	api := tablehost.API(log)
	// Verifications are rare: a connection would be broken before the next one.
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableKeepAlives = true
	api.Verify = Connector(workerhost.Environment{Credentials: tablehost.Credentials(), Transport: transport, Getenv: os.Getenv, Now: lambdahost.Now}).Verify
	lambdahost.Serve(api, log, func(a *httpapi.API) http.Handler { return a.HandlerOf(httpapi.ConnectionOperations()) })
}

// RunSubmit serves as the worker submit until Lambda ends the process.
func RunSubmit() {
	log := lambdahost.Log()
	e := workerhost.Process(log)
	e.Marketplaces = Connector(e)
	lambda.Start(workerhost.Messages("submit", log, e, (*reporting.Worker).SubmitHint))
}

// RunReconcile serves as the worker reconcile until Lambda ends the process.
func RunReconcile() {
	log := lambdahost.Log()
	e := workerhost.Process(log)
	e.Marketplaces = Connector(e)
	lambda.Start(workerhost.Reconcile(log, e))
}

// Connector returns the connector of a function.
func Connector(e workerhost.Environment) *connect.Connector {
	client, endpoint := e.AWS()
	return connect.New(connect.Options{
		Credentials: e.Credentials, Region: e.Getenv("AWS_REGION"), STSEndpoint: endpoint,
		Secrets:    &awscall.Secrets{Client: client, Endpoint: endpoint},
		SandboxURL: e.Getenv("SANDBOX_URL"), OwnRoleOrganizations: tablehost.OwnRoleOrganizations(e.Getenv), Transport: e.Transport, Now: e.Now,
	})
}
