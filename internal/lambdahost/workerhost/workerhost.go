// Package workerhost runs the workers that report usage as Lambda functions: it adds the table and
// the queues to lambdahost. connecthost adds the marketplaces to that.
package workerhost

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/marketmeter/marketmeter/internal/awscall"
	"github.com/marketmeter/marketmeter/internal/dynamoclient"
	"github.com/marketmeter/marketmeter/internal/lambdahost"
	"github.com/marketmeter/marketmeter/internal/lambdahost/tablehost"
	"github.com/marketmeter/marketmeter/internal/reporting"
	"github.com/marketmeter/marketmeter/internal/reporting/exchange"
	"github.com/marketmeter/marketmeter/internal/table"
)

// RunSchedule serves as the worker schedule until Lambda ends the process.
func RunSchedule() {
	log := lambdahost.Log()
	lambda.Start(Schedule(log, Process(log)))
}

// RunPlan serves as the worker plan until Lambda ends the process.
func RunPlan() {
	log := lambdahost.Log()
	lambda.Start(Messages("plan", log, Process(log), (*reporting.Worker).PlanHint))
}

// Environment is what a worker has.
type Environment struct {
	Table        reporting.Store
	Marketplaces reporting.Marketplaces // only of a worker that sends
	Credentials  aws.CredentialsProvider
	Transport    *http.Transport // of all calls but those to the table
	// Getenv returns the variables of a function in template.yaml, and those that Lambda adds.
	Getenv func(string) string
	Now    func() time.Time
}

// Process returns the environment of the process, without marketplaces. It opens the table.
func Process(log *slog.Logger) Environment {
	return Environment{
		Table:       tablehost.Open(log, dynamoclient.AnswerTimeout),
		Credentials: tablehost.Credentials(),
		Transport:   http.DefaultTransport.(*http.Transport).Clone(),
		Getenv:      os.Getenv,
		Now:         lambdahost.Now,
	}
}

// AWS returns a client of AWS's services, and their endpoint if it is not the Region's.
func (e *Environment) AWS() (client *awscall.Client, endpoint string) {
	return &awscall.Client{Credentials: e.Credentials, HTTP: exchange.NewClient(e.Transport, 0), Now: e.Now}, e.Getenv("AWS_SERVICES_ENDPOINT")
}

// Schedule returns the function that a schedule calls every 5 minutes.
func Schedule(log *slog.Logger, e Environment) lambda.Handler {
	return scheduled("schedule", log, e, func(w *reporting.Worker, ctx context.Context) error {
		_, err := w.Schedule(ctx)
		return err
	})
}

// Reconcile returns the function that a schedule calls once a day.
func Reconcile(log *slog.Logger, e Environment) lambda.Handler {
	return scheduled("reconcile", log, e, (*reporting.Worker).Reconcile)
}

func scheduled(name string, log *slog.Logger, e Environment, work func(*reporting.Worker, context.Context) error) lambda.Handler {
	w, job := e.worker(log), job(name, log)
	run := job.Scheduled(func(ctx context.Context) error { return work(w, ctx) })
	return lambda.NewHandler(func(ctx context.Context) error {
		defer e.Transport.CloseIdleConnections()
		return run(ctx)
	})
}

// Messages returns the function of that name that a queue calls. It works on hints by work, so that
// a function has the code of its own work alone.
func Messages(name string, log *slog.Logger, e Environment, work func(*reporting.Worker, context.Context, reporting.Hint) error) lambda.Handler {
	w, job := e.worker(log), job(name, log)
	messages := job.Messages(func(ctx context.Context, h reporting.Hint) error { return work(w, ctx, h) })
	return lambda.NewHandler(func(ctx context.Context, event events.SQSEvent) (events.SQSEventResponse, error) {
		// Lambda freezes the process after an invocation. A connection would be broken in the next
		// one, and what is written to it in doubt.
		defer e.Transport.CloseIdleConnections()
		return messages(ctx, event)
	})
}

func job(name string, log *slog.Logger) *lambdahost.Job {
	return &lambdahost.Job{Name: name, Log: log, CountUnits: table.CountUnits}
}

func (e *Environment) worker(log *slog.Logger) *reporting.Worker {
	client, endpoint := e.AWS()
	queue := func(variable string) *awscall.Queue {
		return &awscall.Queue{Client: client, URL: e.Getenv(variable), Region: e.Getenv("AWS_REGION"), Endpoint: endpoint}
	}
	return &reporting.Worker{
		Store:        e.Table,
		Marketplaces: e.Marketplaces,
		Queue:        reporting.Queues{Plan: queue("PLAN_QUEUE_URL"), Submit: queue("SUBMIT_QUEUE_URL")},
		Lanes:        &reporting.Lanes{},
		Now:          e.Now,
		Log:          log,
	}
}
